"""docs/encryption.md as a program: opens every vector below that is valid, and refuses all others.

It takes `cryptography` (50 or newer) and nothing of ours. A refusal is an exception: an `assert`
(so not with -O) or what the libraries raise. The format first, then what the files of vectors mean.
"""

import base64, hmac, json, pathlib, re, struct, sys  # noqa: E401  (short is worth more here)
from hashlib import sha256, sha512, shake_256

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import mlkem, padding, rsa, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

XWING = bytes.fromhex("060b2b0601040183e62d81c87a")
X_TYPES = {"v": int, "kid": str, "skid": str, "signed": str, "session": str, "sig": str,
           "seq": int, "ts": int, "ctx": dict, "mac": str}


class Key:
    """A recipient's private key: its id, its suite as hdr and JSON have it, and what it unwraps."""

    def __init__(self, pem):
        der = base64.b64decode(pem.split("-----")[2])
        if XWING in der[:20]:  # behind it 32 bytes, which make the seeds of both halves
            seeds = shake_256(der[-32:]).digest(96)
            halves = (mlkem.MLKEM768PrivateKey.from_seed_bytes(seeds[:64]),
                      x25519.X25519PrivateKey.from_private_bytes(seeds[64:]))
            public = b"".join(half.public_key().public_bytes_raw() for half in halves)
            self.kid, self.suite = sha256(b"cipher/xwing" + public).digest(), (3, "2pq")
            self.private = hpke.MLKEM768X25519PrivateKey(*halves)
        else:
            self.private = serialization.load_der_private_key(der, None)
            self.kid = key_id(self.private.public_key())
            self.suite = (1, "2r") if isinstance(self.private, rsa.RSAPrivateKey) else (2, "2x")

    def unwrap(self, wrap, sha=hashes.SHA256(), label=b"cipher/2"):
        if self.suite == (1, "2r"):
            return self.private.decrypt(wrap, padding.OAEP(padding.MGF1(sha), sha, label))
        kem = hpke.KEM.X25519 if self.suite == (2, "2x") else hpke.KEM.MLKEM768_X25519
        suite = hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
        return suite.decrypt(wrap, self.private, label)


def open_envelope(text, keys, senders=None, must_sign=False):
    """`senders`: public keys by their ids; with `None` signatures are not looked at."""
    objects = []
    m = json.loads(text, object_pairs_hook=lambda pairs: objects.append(pairs) or dict(pairs))
    assert all(len(dict(pairs)) == len(pairs) for pairs in objects), "nothing is there twice"
    assert re.fullmatch(r'[^\s"\\\0-\x1f\x7f-\x9f]+', m["message_id"])
    assert len(m["message_id"].encode()) <= 255 and type(m.get("v", 1)) is int
    return {1: open_first, 2: open_second}[m.get("v", 1)](m, keys, senders, must_sign)


def open_first(m, keys, senders, must_sign):
    """Suite 1: AES-GCM under a key that RSA-OAEP wraps, as the original clients have it."""
    wrap, ciphertext = raw(m["enc_session_key"]), raw(m["ciphertext"])
    nonce, tag = raw(m["nonce"], 12, 16), raw(m["tag"], 16)
    rsa_keys = [key for key in keys if key.suite == (1, "2r")]
    key = [key for key in rsa_keys if key.private.key_size == 8 * len(wrap) >= 2048][0]
    session_key = key.unwrap(wrap, hashes.SHA1(), None)
    is_signed = senders is not None and "x" in m
    assert is_signed or not must_sign
    opened = {"message_id": m["message_id"], "suite": "1", "sender": None, "context": None}
    if is_signed:
        sealed = wrap, nonce, tag, ciphertext
        opened.update(open_x(m, key.kid, session_key, sealed, senders, must_sign))
    return {**opened, "plaintext": AESGCM(session_key).decrypt(nonce, ciphertext + tag, None)}


def open_x(m, kid, session_key, sealed, senders, must_sign):
    """The member `x`: what ties sender, time, number and context to a message of suite 1."""
    x, ctx, (wrap, nonce, tag, ciphertext) = m["x"], m["x"]["ctx"], sealed
    names = ("exchange", "routing_key", "content_type")
    assert {name: type(value) for name, value in x.items()} == X_TYPES and x["v"] == 1
    assert set(names[:2]) <= set(ctx) <= set(names)
    context = [ctx.get(name, "") for name in names]
    assert all(len(text.encode()) <= 255 for text in context)
    assert all(0 <= x[name] < 2**53 for name in ("seq", "ts"))
    session, skid = raw(x["session"], 32), base64.urlsafe_b64decode(x["skid"][7:] + "=")
    assert (x["kid"], x["skid"]) == (named(kid), named(skid))
    mode = {"session": b"\1", "message": b"\2"}[x["signed"]]
    statement = b"cipher/1 session\0" + kid + skid + mode + session + sha256(wrap).digest()
    binding = (sized(m["message_id"].encode(), nonce) + tag + struct.pack(">QQ", x["seq"], x["ts"])
               + sized(*(text.encode() for text in context)))
    digests = [sha256(part).digest() for part in (statement, binding, ciphertext)]
    mac_key = HKDF(hashes.SHA256(), 32, b"cipher/1x", b"mac\0" + digests[0]).derive(session_key)
    assert hmac.compare_digest(hmac.digest(mac_key, binding, "sha256"), raw(x["mac"], 32))
    started, lifetime = struct.unpack(">16xQQ", session)
    assert 0 <= x["ts"] - started <= lifetime
    if mode == b"\2":
        statement = b"cipher/1 message\0" + b"".join(digests)
    return {"sender": signer(senders, must_sign, skid, raw(x["sig"], 64), statement),
            "context": context if any(context) else None,
            "sent_ms": x["ts"], "session": session[:16].hex(), "number": x["seq"]}


def open_second(m, keys, senders, must_sign):
    """Suite 2: a header, a wrap of the content key for each recipient, chunked encryption."""
    hdr, payload = raw(m["hdr"]), raw(m["ciphertext"])
    fixed, fields, rest = struct.unpack(">BBBQ16sQQQ", hdr[:51]), [], hdr[51:]
    version, suite, flags, sent_ms, session, number, started, lifetime = fixed
    for longest in (255, 255, 255, 255, 32, 64 * 32):
        size = int.from_bytes(rest[:4], "big")
        assert size <= min(longest, len(rest) - 4)
        fields, rest = [*fields, rest[4:4 + size]], rest[4 + size:]
    message_id, *context = [field.decode() for field in fields[:4]]
    skid, kids = fields[4], [fields[5][at:at + 32] for at in range(0, len(fields[5]), 32)]
    part = struct.unpack(">16sIIQ", rest) if flags & 4 else None
    assert version == 2 and flags < 8 and (part[1] < part[2] if part else not rest)
    assert message_id == m["message_id"] and m["nonce"] == m["tag"] == "" and len(skid) in (0, 32)
    wraps = [raw(wrap) for wrap in [m["enc_session_key"], *m.get("wraps", [])]]
    assert kids == sorted(set(kids)) and len(kids[-1]) == 32 and len(kids) == len(wraps)
    own = {key.kid: key for key in keys if key.suite == (suite, m["suite"])}
    key, wrap = [(own[kid], wrap) for kid, wrap in zip(kids, wraps) if kid in own][0]
    sender = None
    if senders is not None and skid:
        if len(kids) > 1:  # signed message by message
            digests = [sha512(signed).digest() for signed in (hdr, sized(*wraps), payload)]
            statement = b"cipher/2 message\0" + b"".join(digests)
        else:
            assert 0 <= sent_ms - started <= lifetime
            statement = (b"cipher/2 session\0" + hdr[1:2] + session + hdr[35:51] + skid + kids[0]
                         + sha512(wrap).digest())
        sender = signer(senders, must_sign, skid, raw(m["sig"], 64), statement)
    assert sender or not must_sign
    content_key = key.unwrap(wrap)
    commitment, text = chunks("decrypt", 16400, content_key, payload[:24], hdr, payload[56:])
    assert hmac.compare_digest(commitment, payload[24:56])
    if flags & 1:
        text, mark, zeros = text.rpartition(b"\x80")
        assert mark and not zeros.strip(b"\0")
    return {"message_id": message_id, "plaintext": unzstd(text) if flags & 2 else text,
            "suite": m["suite"], "sender": sender, "context": context if any(context) else None,
            "sent_ms": sent_ms, "session": session.hex(), "number": number, "part": part,
            "content_key": content_key}


def chunks(work, size, content_key, salt, hdr, data):
    """C2SP chunked encryption: the commitment, and the data sealed or opened piece by piece."""
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + hdr
    derived = HKDFExpand(hashes.SHA512(), 76, info).derive(content_key)
    work, nonce = getattr(AESGCM(derived[:32]), work), int.from_bytes(derived[32:44], "big")
    pieces = enumerate(data[at:at + size] for at in range(0, len(data) + 1, size))
    done = [work((nonce ^ n).to_bytes(12, "big"), piece, None) for n, piece in pieces]
    return derived[44:], b"".join(done)


def unzstd(frame):
    """RFC 8878, as far as the vectors have it: blocks that are stored, or one byte repeated."""
    assert frame[:5] == bytes.fromhex("28b52ffd00")
    text, at, last = b"", 6, 0
    while not last:
        word = int.from_bytes(frame[at:at + 3], "little")
        last, kind, size = word & 1, word >> 1 & 3, word >> 3
        block = frame[at + 3:at + 3 + (1 if kind else size)]
        text, at = text + (block * size if kind else block), at + 3 + len(block)
        assert kind < 2 and block and len(text) <= max(256 * len(frame), 65536)
    assert at == len(frame)
    return text


def signer(senders, must_sign, skid, signature, statement):
    """The id of who signed; of one who is not known, only what he says."""
    if skid in senders:
        senders[skid].verify(signature, statement)
        return named(skid)
    assert not must_sign
    return ["unknown", named(skid)]


def raw(text, *lengths):
    """Out of base64, which has one form."""
    data = base64.b64decode(text, validate=True)
    assert base64.b64encode(data).decode() == text and (not lengths or len(data) in lengths)
    return data


def sized(*fields):
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def named(kid):
    return "sha256:" + base64.urlsafe_b64encode(kid).decode().rstrip("=")


def load_sender(pem):
    """A public key that signs, behind its id."""
    public = serialization.load_pem_public_key(pem.encode())
    return key_id(public), public


def key_id(public):
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return sha256(public.public_bytes(serialization.Encoding.DER, spki)).digest()


# --- what the files of vectors mean

REFUSALS = (AssertionError, ValueError, LookupError, TypeError, AttributeError, struct.error,
            InvalidTag, InvalidSignature)


def check(folder):
    """How many vectors opened, how many were refused, and which did otherwise than they say."""
    opened, refused, wrong = 0, 0, []
    for path in sorted(folder.glob("*/*.json")):
        content = json.loads(path.read_text("utf-8"))
        told = json.loads((path.parent / "keys.json").read_text("utf-8"))
        keys = {name: Key(key["pkcs8"]) for name, key in told["keys"].items()}
        fingerprints = {name: key["fingerprint"] for name, key in told["keys"].items()}
        wrong += [name for name, key in keys.items() if named(key.kid) != fingerprints[name]]
        senders = {**told, **content}.get("senders", {})
        for case in [*content.get("envelopes", []), *content.get("messages", [])]:
            own = case.get("keys") or [case.get("key") or content["key"]]
            is_open, is_told = open_case(case, [keys[name] for name in own], senders)
            opened, refused = opened + is_open, refused + (not is_open)
            if case["result"] != "acceptable" and is_told != (case["result"] == "valid"):
                wrong.append(f"{path.parent.name}/{path.name}: {case['id']}")
    return opened, refused, wrong


def open_case(case, keys, senders):
    """Whether it opens, and whether to what it says."""
    told, trusted = case.get("plaintext", {"b64": ""}), None
    text = raw(told["b64"]) if "b64" in told else bytes(n % 251 for n in range(told["size"]))
    if "senders" in case:
        trusted = dict(load_sender(senders[name]["spki"]) for name in case["senders"]["known"])
    try:
        if "envelopes" in case:
            opened = join([open_envelope(envelope, keys) for envelope in case["envelopes"]])
        else:
            envelope = case.get("envelope") or seal_again(case, text)
            opened = open_envelope(envelope, keys, trusted, trusted and case["senders"]["require"])
        assert not opened["context"] or case.get("delivered") in (None, opened["context"][:2])
    except REFUSALS:
        return False, False
    message_id = case.get("message_id", opened["message_id"])
    details = {**case.get("opened", {}), "message_id": message_id, "plaintext": text}
    return True, all(opened.get(name) == value for name, value in details.items())


def join(opened):
    """A message in parts: all under one content key, of one file and one place."""
    (count, size, _, _, exchange), = {(
        *one["part"][2:], one["part"][0], one["content_key"], one["context"][0]) for one in opened}
    message_id, file = opened[0]["message_id"].partition("/")[0], opened[0]["part"][0].hex()
    assert all(one["message_id"] == f"{message_id}/{file}/{one['part'][1]}" for one in opened)
    assert len({(one["session"], one["number"]) for one in opened}) == 1
    parts = {one["part"][1]: one["plaintext"] for one in opened}
    text = b"".join(parts[index] for index in sorted(parts))
    assert len(parts) == count and len(text) == size
    return {"message_id": message_id, "plaintext": text, "context": [exchange]}


def seal_again(case, text):
    """A long envelope is told by its keys."""
    m = case["members"]
    if "session_key_hex" in case:
        aead = AESGCM(bytes.fromhex(case["session_key_hex"]))
        ciphertext = aead.encrypt(raw(m["nonce"]), text, None)[:-16]
    else:
        salt, key = bytes.fromhex(case["salt_hex"]), bytes.fromhex(case["content_key_hex"])
        ciphertext = salt + b"".join(chunks("encrypt", 16384, key, salt, raw(m["hdr"]), text))
    assert sha256(ciphertext).hexdigest() == case["ciphertext_sha256"]
    return json.dumps({**m, "ciphertext": base64.b64encode(ciphertext).decode()})


if __name__ == "__main__":
    opened, refused, wrong = check(pathlib.Path(__file__).parent)
    print(f"{opened} vectors opened, {refused} refused")
    print("".join(f"not as it says: {name}\n" for name in wrong), end="")
    sys.exit(bool(wrong) or not opened + refused)
