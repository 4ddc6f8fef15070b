"""Makes tests/vectors/envelope-v1/*.json with pycryptodome.

    python tests/interop/make_vectors.py

Every random byte comes from SHAKE-256 over a fixed text, so the files come out
the same each time (with the pycryptodome version they name). Nothing of our own
implementation takes part.
"""

import base64
import hashlib
import json
import pathlib

import Crypto
from Crypto.Cipher import AES, PKCS1_OAEP, PKCS1_v1_5
from Crypto.Hash import SHA1, SHA256, SHAKE256
from Crypto.PublicKey import RSA
from Crypto.Signature.pss import MGF1

FOLDER = pathlib.Path(__file__).parent.parent / "vectors" / "envelope-v1"
FORMAT = "ciphermq-envelope-vectors-1"
SAMPLE = b"This is a test hybrid message."


def source(name):
    """A random source of its own for each thing made, so that adding one changes no other."""
    return SHAKE256.new(b"ciphermq envelope vectors 1: " + name.encode()).read


def b64(data):
    return base64.b64encode(data).decode("ascii")


def expand(size):
    return bytes(i % 251 for i in range(size))


KEYS = {
    name: RSA.generate(bits, randfunc=source(name))
    for name, bits in [("rsa2048", 2048), ("rsa2048-other", 2048), ("rsa3072", 3072), ("rsa1048", 1048)]
}


def wrap(name, key, session_key, **oaep):
    oaep = {"randfunc": source("oaep " + name), **oaep}
    return PKCS1_OAEP.new(KEYS[key], **oaep).encrypt(session_key)


def members(name, plaintext=SAMPLE, key="rsa2048", key_len=16, nonce_len=16, **given):
    """The five members as bytes and text, ready to be spoilt."""
    session_key = given.get("session_key", source("session key " + name)(key_len))
    nonce = given.get("nonce", source("nonce " + name)(nonce_len))
    cipher = AES.new(session_key, AES.MODE_GCM, nonce=nonce)
    if "aad" in given:
        cipher.update(given["aad"])
    ciphertext, tag = cipher.encrypt_and_digest(plaintext)
    return {
        "message_id": given.get("message_id", name),
        "enc_session_key": given.get("wrapped") or wrap(name, key, session_key, **given.get("oaep", {})),
        "nonce": nonce,
        "tag": tag,
        "ciphertext": ciphertext,
    }


def as_text(raw):
    return {name: value if isinstance(value, str) else b64(value) for name, value in raw.items()}


def write(raw, **options):
    return json.dumps(as_text(raw), **options)


class Vectors:
    def __init__(self):
        self.cases = []

    def opens(self, name, envelope, plaintext=SAMPLE, key="rsa2048", comment="", result="valid"):
        case = {"id": name, "result": result, "key": key, "envelope": envelope, "plaintext": {"b64": b64(plaintext)}}
        self.add(case, comment)

    def fails(self, name, envelope, expect="decrypt", key="rsa2048", comment=""):
        self.add({"id": name, "result": "invalid", "key": key, "envelope": envelope, "expect": expect}, comment)

    def add(self, case, comment):
        assert all(case["id"] != other["id"] for other in self.cases), case["id"]
        self.cases.append({**case, "comment": comment} if comment else case)


def valid(v):
    texts = {
        "empty": b"",
        "one-byte": b"a",
        "sample": SAMPLE,
        "nul": b"\0",
        "nul-inside": b"before\0after",
        "utf-8": "Grüße, 世界, سلام, 🚀".encode(),
        "not-utf-8": b"\xff\xfe\x80",
        "every-byte": bytes(range(256)),
        "json": b'{"message_id": "inner", "tag": "\\""}',
        "kib": expand(1024),
    }
    for name, plaintext in texts.items():
        v.opens(name, write(members(name, plaintext)), plaintext)
    for size in (15, 16, 17, 31, 32, 33, 127, 128, 129):
        name = f"size-{size}"
        v.opens(name, write(members(name, expand(size))), expand(size), comment="edges of blocks")
    for key_len in (16, 24, 32):
        for nonce_len in (12, 16):
            name = f"aes{key_len * 8}-nonce{nonce_len}"
            v.opens(name, write(members(name, key_len=key_len, nonce_len=nonce_len)))
    session_key = source("shared session key")(16)
    wrapped = wrap("shared", "rsa2048", session_key)
    for n in (1, 2, 3):
        name = f"reused-session-key-{n}"
        v.opens(name, write(members(name, session_key=session_key, wrapped=wrapped)))
    v.opens("rewrapped-session-key", write(members("rewrapped-session-key", session_key=session_key)))
    key = source("session key counter-wrap")(16)
    for start in (0xFFFFFFFF, 0xFFFFFFFE):
        name = f"counter-wrap-{start:x}"
        raw = members(name, expand(100), session_key=key, nonce=nonce_for_counter(key, start))
        v.opens(name, write(raw), expand(100), comment="the 32-bit block counter passes zero")
    v.opens("rsa3072", write(members("rsa3072", key="rsa3072")), key="rsa3072")
    v.opens("rsa1048", write(members("rsa1048", key="rsa1048")), key="rsa1048", result="acceptable",
            comment="the originals' key script made such keys for a while: opens with opt-in only")


def valid_json(v):
    raw = members("form")
    v.opens("compact", write(raw, separators=(",", ":")))
    v.opens("indented", write(raw, indent=2))
    v.opens("surrounded-by-space", "\r\n\t " + write(raw) + " \n")
    v.opens("reversed-order", write(dict(reversed(raw.items()))))
    v.opens("escaped-slash", write({**raw, "message_id": "escaped-slash"}).replace("/", "\\/"))
    v.opens("escaped-letters", "".join(["{", ", ".join(
        '"{}": "{}"'.format(escape(name), escape(value)) for name, value in as_text(raw).items()), "}"]))
    extra = {"x": {"v": 1, "sig": "…", "deep": [[1, 2.5, None, True]]}, "sent_time": "2025-10-16", "receiver_client_id": "r"}
    v.opens("extra-members-behind", write(raw)[:-1] + ", " + json.dumps(extra)[1:])
    v.opens("extra-members-before", json.dumps(extra)[:-1] + ", " + write(raw)[1:])
    v.opens("message-id-not-bound", write({**raw, "message_id": "another-id"}),
            comment="suite 1 does not authenticate the id: dedupe on nonce and tag as well")
    v.opens("message-id-non-ascii", write({**raw, "message_id": "größe-№17"}, ensure_ascii=False))
    v.opens("message-id-longest", write({**raw, "message_id": "i" * 255}))


def escape(text):
    return "".join(f"\\u{ord(c):04x}" if i % 3 == 0 else c for i, c in enumerate(text))


def flips(v):
    raw = members("flip")
    for member in ("enc_session_key", "nonce", "tag", "ciphertext"):
        for bit in (0, len(raw[member]) * 4 + 3, len(raw[member]) * 8 - 1):
            value = bytearray(raw[member])
            value[bit // 8] ^= 1 << (bit % 8)
            v.fails(f"flip-{member}-{bit}", write({**raw, member: bytes(value)}))
    other = members("flip-other")
    for member in ("enc_session_key", "nonce", "tag", "ciphertext"):
        v.fails(f"swapped-{member}", write({**raw, member: other[member]}), comment="a member of another message")
    v.fails("ciphertext-shorter", write({**raw, "ciphertext": raw["ciphertext"][:-1]}))
    v.fails("ciphertext-longer", write({**raw, "ciphertext": raw["ciphertext"] + b"\0"}))
    v.fails("ciphertext-empty", write({**raw, "ciphertext": b""}))
    v.fails("additional-data", write(members("additional-data", aad=b"flip")))


def key_blocks(v):
    v.fails("wrong-key", write(members("wrong-key", key="rsa2048-other")))
    v.fails("larger-key", write(members("larger-key", key="rsa3072")))
    v.fails("small-key-without-opt-in", write(members("rsa1048", key="rsa1048")), "key_too_small", key="rsa1048")
    v.fails("oaep-label", write(members("oaep-label", oaep={"label": b"cipher"})))
    v.fails("oaep-sha256", write(members("oaep-sha256", oaep={"hashAlgo": SHA256})))
    v.fails("oaep-sha256-mgf-sha1", write(members("oaep-sha256-mgf-sha1", oaep={
        "hashAlgo": SHA256, "mgfunc": lambda seed, n: MGF1(seed, n, SHA1)})))
    v.fails("oaep-sha1-mgf-sha256", write(members("oaep-sha1-mgf-sha256", oaep={
        "mgfunc": lambda seed, n: MGF1(seed, n, SHA256)})))
    raw = members("block")
    key = KEYS["rsa2048"]
    v15 = PKCS1_v1_5.new(key, randfunc=source("v1.5")).encrypt(source("session key block")(16))
    blocks = {
        "pkcs1-v1.5": v15,
        "zero": bytes(256),
        "one": (1).to_bytes(256, "big"),
        "modulus-minus-one": (key.n - 1).to_bytes(256, "big"),
        "modulus": key.n.to_bytes(256, "big"),
        "plus-modulus": plus_modulus(key),
        "all-ones": b"\xff" * 256,
        "shorter": raw["enc_session_key"][:-1],
        "longer": raw["enc_session_key"] + b"\0",
        "leading-zero": b"\0" + raw["enc_session_key"],
        "empty": b"",
    }
    for name, block in blocks.items():
        v.fails(f"block-{name}", write({**raw, "enc_session_key": block}))
    for size in (0, 1, 15, 17, 20, 23, 25, 31, 33, 64):
        name = f"session-key-of-{size}"
        wrapped = wrap(name, "rsa2048", source(name)(size))
        v.fails(name, write({**raw, "enc_session_key": wrapped}))


def plus_modulus(key):
    """A good block written as the next larger number of the same remainder."""
    for n in range(100):
        block = int.from_bytes(wrap(f"plus-modulus {n}", "rsa2048", source("session key block")(16)), "big") + key.n
        if block < 2**2048:
            return block.to_bytes(256, "big")
    raise AssertionError("the modulus leaves no room")


def malformed(v):
    raw = members("shape")
    text = as_text(raw)
    v.fails("tag-of-12", write({**raw, "tag": raw["tag"][:12]}), "malformed:tag", comment="a cut tag is easier to guess")
    v.fails("tag-of-4", write({**raw, "tag": raw["tag"][:4]}), "malformed:tag")
    v.fails("tag-of-17", write({**raw, "tag": raw["tag"] + b"\0"}), "malformed:tag")
    v.fails("tag-empty", write({**raw, "tag": b""}), "malformed:tag")
    for size in (0, 1, 8, 11, 13, 15, 17, 32):
        name = f"nonce-of-{size}"
        if size:
            v.fails(name, write(members(name, nonce_len=size)), "unsupported")
        else:
            v.fails(name, write({**raw, "nonce": b""}), "unsupported")
    for member, value in text.items():
        v.fails(f"{member}-missing", write({k: x for k, x in raw.items() if k != member}),
                "unsupported" if member == "tag" else f"malformed:{member}")
        v.fails(f"{member}-twice", write(raw)[:-1] + f', "{member}": "{value}"}}', f"malformed:{member}")
        for kind, wrong in {"null": None, "number": 1, "list": [value], "object": {"b64": value}, "bool": True}.items():
            v.fails(f"{member}-is-{kind}", json.dumps({**text, member: wrong}), f"malformed:{member}")
        if member == "message_id":
            continue
        spoilt = {
            "unpadded": value.rstrip("="),
            "cut": value[:-1],
            "url-safe": value.replace("+", "-").replace("/", "_") if "+" in value or "/" in value else "-_" + value[2:],
            "space-inside": value[:8] + " " + value[8:],
            "newline-at-end": value + "\n",
            "foreign-character": "*" + value[1:],
            "more-padding": value + "====",
            "not-canonical": not_canonical(value),
            "nul": "\0" + value[1:],
        }
        for kind, wrong in spoilt.items():
            if wrong is not None and wrong != value:
                v.fails(f"{member}-{kind}", json.dumps({**text, member: wrong}), f"malformed:{member}")
    for name, wrong in {"empty": "", "space": "a b", "newline": "a\nb", "quote": 'a"b', "backslash": "a\\b",
                        "nul": "a\0", "too-long": "i" * 256}.items():
        v.fails(f"message-id-{name}", write({**raw, "message_id": wrong}), "malformed:message_id")
    whole = write(raw)
    for name, wrong in {"empty": "", "cut": whole[:-1], "list": f"[{whole}]", "string": json.dumps(whole), "null": "null",
                        "two": whole + whole, "single-quotes": whole.replace('"', "'"), "trailing-comma": whole[:-1] + ",}",
                        "bom": "\ufeff" + whole, "deep-and-cut": '{"x": ' + "[" * 200}.items():
        v.fails(f"text-{name}", wrong, "malformed:envelope")
    box = source("sealed box")(80)
    v.fails("dialect-sealed-box", write({**raw, "enc_session_key": box, "nonce": raw["nonce"][:12]}), "unsupported",
            comment="CipherMQ of 2025-07-18 to 1.4.0: an X25519 sealed box of 80 bytes")
    v.fails("dialect-joined-tag", write({k: x for k, x in {**raw, "enc_session_key": box}.items() if k != "tag"}), "unsupported",
            comment="CipherMQ 1.4.1: the tag stands at the end of the ciphertext")


def not_canonical(value):
    """The same bytes with stray bits in the last character."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body = value.rstrip("=")
    if body == value:
        return None
    return body[:-1] + alphabet[alphabet.index(body[-1]) + 1] + "=" * (len(value) - len(body))


def large():
    """Envelopes told by what they are made of: the texts are too long to store."""
    cases = []
    for size in (64 << 10, (64 << 10) + 1, 1 << 20):
        name = f"expanded-{size}"
        plaintext = expand(size)
        session_key = source("session key " + name)(16)
        raw = members(name, plaintext, session_key=session_key)
        text = as_text(raw)
        del text["ciphertext"]
        cases.append({
            "id": name,
            "result": "valid",
            "key": "rsa2048",
            "members": text,
            "session_key_hex": session_key.hex(),
            "plaintext": {"expand": "byte i is i mod 251", "size": size, "sha256": hashlib.sha256(plaintext).hexdigest()},
            "ciphertext_sha256": hashlib.sha256(raw["ciphertext"]).hexdigest(),
        })
    return cases


def multiply(a, b):
    """In GF(2^128) as GCM writes it: the first bit is the coefficient of 1."""
    product = 0
    for bit in range(127, -1, -1):
        if b >> bit & 1:
            product ^= a
        a = a >> 1 ^ (0xE1 << 120 if a & 1 else 0)
    return product


def inverse(a):
    result = 1 << 127
    for _ in range(127):
        a = multiply(a, a)
        result = multiply(result, a)
    return result


def nonce_for_counter(key, counter):
    """The 16-byte nonce whose first block counter is `counter`.

    J0 = (N * H ^ 128) * H, solved for N.
    """
    h = int.from_bytes(AES.new(key, AES.MODE_ECB).encrypt(bytes(16)), "big")
    j0 = int.from_bytes(source("counter")(12), "big") << 32 | counter
    nonce = multiply(multiply(j0, inverse(h)) ^ 128, inverse(h))
    return nonce.to_bytes(16, "big")


def keys():
    out = {}
    for name, key in KEYS.items():
        spki = key.public_key().export_key("DER")
        digest = base64.urlsafe_b64encode(hashlib.sha256(spki).digest()).decode().rstrip("=")
        out[name] = {
            "pkcs1": key.export_key("PEM").decode(),
            "pkcs8": key.export_key("PEM", pkcs=8).decode(),
            "spki": key.public_key().export_key("PEM").decode(),
            "fingerprint": "sha256:" + digest,
        }
    return out


def save(name, content):
    head = {"format": FORMAT, "made_with": f"pycryptodome {Crypto.__version__}, tests/interop/make_vectors.py"}
    path = FOLDER / name
    path.write_text(json.dumps({**head, **content}, indent=1, ensure_ascii=True) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    save("keys.json", {"keys": keys()})
    for name, makers in {"valid.json": [valid, valid_json], "invalid.json": [flips, key_blocks, malformed]}.items():
        v = Vectors()
        for make in makers:
            make(v)
        print(len(v.cases), "cases")
        save(name, {"envelopes": v.cases})
    save("large.json", {"envelopes": large()})


if __name__ == "__main__":
    main()
