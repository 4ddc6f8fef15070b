"""docs/encryption.md as a program: opens envelopes of suites 1 and 2 with `cryptography` (50 or newer) and pycryptodome.

For whoever implements the format anew. It is complete but for compression (zstd frames of stored and repeated blocks only) and for
what a receiver remembers from one message to the next.
"""

import base64
import hashlib
import hmac
import json
import struct
import unicodedata

from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.PublicKey import RSA
from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key, load_pem_public_key

MEMBERS = ["message_id", "enc_session_key", "nonce", "tag", "ciphertext"]
SUITES = {1: "2r", 2: "2x", 3: "2pq"}
WRAP_LENGTHS = {"2r": range(256, 1025), "2x": [80], "2pq": [1168]}
XWING = bytes.fromhex("060b2b0601040183e62d81c87a")


class Refused(Exception):
    """Its text is what vectors call `expect`."""


def need(condition, fault):
    if not condition:
        raise Refused(fault)


def load(pem):
    """A private key out of PKCS#8, and the suite of HPKE for it if it is one for that."""
    der = base64.b64decode("".join(pem.split("\n")[1:]).split("-")[0])
    kem = KEM.X25519
    if XWING in der[:20]:  # the seed stands at the end
        halves = hashlib.shake_256(der[-32:]).digest(96)
        key = MLKEM768X25519PrivateKey(
            MLKEM768PrivateKey.from_seed_bytes(halves[:64]), x25519.X25519PrivateKey.from_private_bytes(halves[64:]))
        kem = KEM.MLKEM768_X25519
    else:
        key = load_der_private_key(der, None)
    return key, None if isinstance(key, rsa.RSAPrivateKey) else Suite(kem, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class Private:
    """A private key, ready to unwrap."""

    def __init__(self, pem):
        key, hpke = load(pem)
        if hpke:
            self.rsa, self.unwrap = None, lambda wrap: hpke.decrypt(wrap, key, b"cipher/2")
            is_hybrid = isinstance(key, MLKEM768X25519PrivateKey)
            self.suite, self.kid = ("2pq", xwing_id(pem)) if is_hybrid else ("2x", key_id(key.public_key()))
        else:
            oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"cipher/2")
            self.rsa, self.unwrap = RSA.import_key(pem), lambda wrap: key.decrypt(wrap, oaep)
            self.suite, self.kid = "2r", key_id(key.public_key())


def xwing_id(pem):
    seed = base64.b64decode("".join(pem.split("\n")[1:]).split("-")[0])[-32:]
    halves = hashlib.shake_256(seed).digest(96)
    public = MLKEM768PrivateKey.from_seed_bytes(halves[:64]).public_key().public_bytes_raw()
    public += x25519.X25519PrivateKey.from_private_bytes(halves[64:]).public_key().public_bytes_raw()
    return hashlib.sha256(b"cipher/xwing" + public).digest()


def load_sender(pem):
    """The kid of a sender's public key, and the key."""
    key = load_pem_public_key(pem.encode())
    return key_id(key), key


def key_id(public):
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def named(kid):
    return "sha256:" + base64.urlsafe_b64encode(kid).decode().rstrip("=")


def sized(data):
    return struct.pack(">I", len(data)) + data


def unbase64(part, text, length=None):
    need(isinstance(text, str) and text.isascii(), "malformed:" + part)
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused("malformed:" + part) from None
    need(base64.b64encode(data).decode() == text and length in (None, len(data)), "malformed:" + part)
    return data


def open_envelope(text, keys, senders=None, require_signed=False):
    """Opens with private keys; `senders` are known public keys by kid, `None`: signatures are not looked at. Raises `Refused`."""
    twice = set()

    def members_of(pairs):
        names = [name for name, _ in pairs]
        twice.update(name for name in names if names.count(name) > 1)
        return dict(pairs)

    try:
        members = json.loads(text, object_pairs_hook=members_of)
    except (ValueError, RecursionError):
        raise Refused("malformed:envelope") from None
    need(isinstance(members, dict), "malformed:envelope")
    version = members.get("v") if type(members.get("v")) is int else 1
    need(version in (1, 2) and "v" not in twice, "unsupported")
    required = MEMBERS + ["suite", "hdr"] * (version == 2)
    need(version == 2 or "tag" in members or not set(MEMBERS) - {"tag"} <= members.keys(), "unsupported")  # a later dialect
    for name in required:
        need(isinstance(members.get(name), str) and name not in twice, "malformed:" + name)
    message_id = members["message_id"]
    is_plain = all(c not in '"\\' and not c.isspace() and unicodedata.category(c) != "Cc" for c in message_id)
    need(is_plain and 1 <= len(message_id.encode()) <= 255, "malformed:message_id")
    try:
        return (open_second if version == 2 else open_first)(members, twice, keys, senders, require_signed)
    except (InvalidTag, InvalidSignature, ValueError):  # whatever has to do with a key looks alike
        raise Refused("decrypt") from None


def open_second(members, twice, keys, senders, require_signed):
    need("sig" not in twice and isinstance(members.get("sig", ""), str), "malformed:sig")
    more = members.get("wraps", [])
    need("wraps" not in twice and isinstance(more, list) and len(more) <= 64 and all(isinstance(w, str) for w in more), "malformed:wraps")
    need(len(members["hdr"]) <= 4500, "malformed:hdr")
    hdr = unbase64("hdr", members["hdr"])
    header = read_header(hdr)
    need(members["nonce"] == "", "malformed:nonce")
    need(members["tag"] == "", "malformed:tag")
    need(members["suite"] == header["suite"], "malformed:suite")
    need(members["message_id"].encode() == header["message_id"], "malformed:message_id")
    need(len(more) + 1 == len(header["kids"]), "malformed:wraps")
    payload = unbase64("ciphertext", members["ciphertext"])
    own = [(place, key) for place, kid in enumerate(header["kids"]) for key in keys if (key.kid, key.suite) == (kid, header["suite"])]
    need(own, "decrypt")
    place, key = own[0]
    wraps = {}
    for at, wrap in enumerate([members["enc_session_key"], *more]):
        if at == place or header["skid"]:
            part = "wraps" if at else "enc_session_key"
            wraps[at] = unbase64(part, wrap)
            need(len(wraps[at]) in WRAP_LENGTHS[header["suite"]], "malformed:" + part)
    sender = check_signature(members, header, hdr, wraps, payload, senders, require_signed)
    content_key = key.unwrap(wraps[place])
    decryptor = Cobblestone256Decryptor(content_key, hdr)
    text = decryptor.update(payload) + decryptor.finalize()
    if header["flags"] & 1:
        text, mark, zeros = text.rpartition(b"\x80")
        need(mark and not zeros.strip(b"\0"), "malformed:ciphertext")
    text = unzstd(text) if header["flags"] & 2 else text
    context = [header[name].decode() for name in ("exchange", "routing_key", "content_type")]
    return {"message_id": members["message_id"], "plaintext": text, "suite": header["suite"], "sender": sender, "context": context if any(context) else None,
            "sent_ms": header["sent_ms"], "session": header["session"], "number": header["number"], "part": header.get("part"),
            "origin": hashlib.sha256(content_key).digest()}


def read_header(hdr):
    """The canonical header: fixed fields, then texts with their lengths, big-endian."""
    need(len(hdr) >= 51, "malformed:hdr")
    names = ("version", "suite", "flags", "sent_ms", "session", "number", "started_ms", "lifetime_ms")
    header, rest = dict(zip(names, struct.unpack(">BBBQ16sQQQ", hdr[:51]))), hdr[51:]
    need(header["version"] == 2 and header["suite"] in SUITES, "unsupported")
    header["suite"] = SUITES[header["suite"]]
    for name, longest in (("message_id", 255), ("exchange", 255), ("routing_key", 255), ("content_type", 255), ("skid", 32), ("kids", 2048)):
        size = int.from_bytes(rest[:4], "big")
        need(len(rest) >= 4 + size and size <= longest, "malformed:hdr")
        need(name in ("skid", "kids") or is_text(rest[4:4 + size]), "malformed:hdr")
        header[name], rest = rest[4:4 + size], rest[4 + size:]
    kids = header["kids"] = [header["kids"][at:at + 32] for at in range(0, len(header["kids"]), 32)]
    need(kids and len(kids[-1]) == 32 and kids == sorted(set(kids)) and len(header["skid"]) in (0, 32), "malformed:hdr")
    if header["flags"] & 4:
        need(len(rest) >= 32, "malformed:hdr")
        header["part"], rest = struct.unpack(">16sIIQ", rest[:32]), rest[32:]
        need(header["part"][1] < header["part"][2], "malformed:hdr")
    need(not header["flags"] & ~7, "unsupported")
    need(not rest, "malformed:hdr")
    return header


def is_text(data):
    try:
        return data.decode() is not None
    except UnicodeDecodeError:
        return False


def check_signature(members, header, hdr, wraps, payload, senders, require_signed):
    """Who sealed a message of suite 2: a kid, `None` for nobody, or `unknown` and a kid."""
    if senders is None or not header["skid"]:
        need(not require_signed, "untrusted")
        return None
    need("sig" in members, "malformed:sig")
    signature = unbase64("sig", members["sig"], 64)
    if len(wraps) > 1:
        parts = hdr, b"".join(sized(wraps[at]) for at in sorted(wraps)), payload
        statement = b"cipher/2 message\0" + b"".join(hashlib.sha512(part).digest() for part in parts)
    else:
        need(0 <= header["sent_ms"] - header["started_ms"] <= header["lifetime_ms"], "decrypt")
        statement = (b"cipher/2 session\0" + hdr[1:2] + header["session"] + hdr[35:51] + header["skid"] + header["kids"][0]
                     + hashlib.sha512(wraps[0]).digest())
    return verify(senders, header["skid"], signature, statement, require_signed)


def verify(senders, skid, signature, statement, require_signed):
    if skid in senders:
        senders[skid].verify(signature, statement)
        return skid
    need(not require_signed, "untrusted")
    return "unknown", skid


def unzstd(frame):
    """RFC 8878: one frame without a stated size, of blocks that are stored (0) or one byte repeated (1)."""
    need(frame[:5] == bytes.fromhex("28b52ffd00"), "malformed:ciphertext")
    text, at, last = b"", 6, 0
    while not last:
        word = int.from_bytes(frame[at:at + 3], "little")
        last, kind, size = word & 1, word >> 1 & 3, word >> 3
        need(len(frame) >= at + 3 + (1 if kind else size) and kind < 2, "malformed:ciphertext")
        text += frame[at + 3:at + 3 + size] if kind == 0 else frame[at + 3:at + 4] * size
        need(len(text) <= min(max(256 * len(frame), 64 << 10), 64 << 20), "too_large")
        at += 3 + (1 if kind else size)
    need(at == len(frame), "malformed:ciphertext")
    return text


def open_first(members, twice, keys, senders, require_signed):
    wrapped = unbase64("enc_session_key", members["enc_session_key"])
    need(len(wrapped) != 80, "unsupported")  # the sealed box of a later dialect
    nonce = unbase64("nonce", members["nonce"])
    need(len(nonce) in (12, 16), "unsupported")
    tag, ciphertext = unbase64("tag", members["tag"], 16), unbase64("ciphertext", members["ciphertext"])
    key = next((key for key in keys if key.rsa and key.rsa.size_in_bytes() == len(wrapped)), None)
    need(key, "decrypt")
    session_key = PKCS1_OAEP.new(key.rsa).decrypt(wrapped)
    opened = {"suite": "1", "sender": None, "context": None}
    if senders is not None and "x" in members:
        need("x" not in twice, "malformed:x")
        opened.update(check_extension(members, session_key, wrapped, nonce, tag, ciphertext, key, senders, require_signed))
    else:
        need(not require_signed, "untrusted")
    return {**opened, "plaintext": AES.new(session_key, AES.MODE_GCM, nonce=nonce).decrypt_and_verify(ciphertext, tag)}


def check_extension(members, session_key, wrapped, nonce, tag, ciphertext, key, senders, require_signed):
    """The member `x` of suite 1."""
    x = members["x"]
    names = {"v": int, "kid": str, "skid": str, "signed": str, "session": str, "sig": str, "seq": int, "ts": int, "ctx": dict, "mac": str}
    need(isinstance(x, dict) and set(x) == set(names) and all(type(x[name]) is kind for name, kind in names.items()), "malformed:x")
    need(x["v"] == 1, "unsupported")
    need(x["signed"] in ("session", "message"), "malformed:x.signed")
    for name in ("seq", "ts"):
        need(0 <= x[name] < 2**53, "malformed:x." + name)
    context = [x["ctx"].get(name, "").encode() for name in ("exchange", "routing_key", "content_type")]
    for name, text in zip(("exchange", "routing_key", "content_type"), context):
        need(len(text) <= 255, "malformed:x.ctx." + name)
    session, signature, mac = unbase64("x.session", x["session"], 32), unbase64("x.sig", x["sig"], 64), unbase64("x.mac", x["mac"], 32)
    need(x["kid"] == named(key.kid), "decrypt")
    skid = base64.urlsafe_b64decode(x["skid"][7:] + "=")
    statement = (b"cipher/1 session\0" + key.kid + skid + (b"\1" if x["signed"] == "session" else b"\2") + session
                 + hashlib.sha256(wrapped).digest())
    digest = hashlib.sha256(statement).digest()
    binding = (sized(members["message_id"].encode()) + sized(nonce) + tag + struct.pack(">QQ", x["seq"], x["ts"])
               + b"".join(map(sized, context)))
    if x["signed"] == "message":
        statement = b"cipher/1 message\0" + digest + hashlib.sha256(binding).digest() + hashlib.sha256(ciphertext).digest()
    sender = verify(senders, skid, signature, statement, require_signed)
    mac_key = hmac.digest(hmac.digest(b"cipher/1x", session_key, "sha256"), b"mac\0" + digest + b"\1", "sha256")
    started, lifetime = struct.unpack(">QQ", session[16:])
    need(hmac.compare_digest(hmac.digest(mac_key, binding, "sha256"), mac) and 0 <= x["ts"] - started <= lifetime, "decrypt")
    return {"sender": sender, "context": [text.decode() for text in context] if any(context) else None,
            "sent_ms": x["ts"], "session": session[:16], "number": x["seq"]}
