"""Suite 2, and the member `x` of suite 1, sealed by another implementation.

Written from docs/encryption.md on `cryptography` (HPKE, chunked encryption, Ed25519, RSA-OAEP-SHA256) and pycryptodome (suite 1); nothing of
ours takes part. Every step can be spoilt by name: the vectors and the tests are made of what this writes. The other direction
is tests/vectors/check.py.
"""

import base64
import hashlib
import hmac
import json
import os
import struct

from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.Hash import SHAKE256
from Crypto.PublicKey import RSA
from cryptography.cobblestone import Cobblestone256Encryptor
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite

PADDED, COMPRESSED, PART = 1, 2, 4
SUITES = {"2r": 1, "2x": 2, "2pq": 3}
SUITE_OF_KIND = {"rsa": "2r", "x25519": "2x", "xwing": "2pq"}
# The identifier of draft-connolly-cfrg-xwing-kem as a complete AlgorithmIdentifier in DER.
XWING_ALGORITHM = bytes.fromhex("300d060b2b0601040183e62d81c87a")
HPKE = {
    "x25519": Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    "xwing": Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
}
STARTED_MS, LIFETIME_MS = 1_763_740_000_000, 60_000


def b64(data):
    return base64.b64encode(data).decode("ascii")


def sized(data):
    data = data.encode() if isinstance(data, str) else data
    return struct.pack(">I", len(data)) + data


def named(digest):
    return "sha256:" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def der(tag, content):
    size = len(content)
    head = bytes([size]) if size < 128 else b"\x82" + struct.pack(">H", size)
    return bytes([tag]) + head + content


def pem(label, content):
    text = b64(content)
    lines = [text[i:i + 64] for i in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----"]) + "\n"


def source(name):
    """A random source of its own for each key made, so that adding one changes no other."""
    return SHAKE256.new(b"ciphermq envelope vectors 2: " + name.encode()).read


class Key:
    """The key of a recipient, or (kind `ed25519`) of a sender, from a fixed seed: `seed` is 32 bytes, but for RSA a function."""

    def __init__(self, kind, seed):
        self.kind, self.hpke = kind, HPKE.get(kind)
        if kind == "rsa":
            text = RSA.generate(2048, randfunc=seed).export_key("PEM", pkcs=8)
            self.private = serialization.load_pem_private_key(text, None)
        elif kind == "xwing":
            halves = hashlib.shake_256(seed).digest(96)
            self.private = MLKEM768X25519PrivateKey(
                MLKEM768PrivateKey.from_seed_bytes(halves[:64]), x25519.X25519PrivateKey.from_private_bytes(halves[64:]))
        elif kind == "x25519":
            self.private = x25519.X25519PrivateKey.from_private_bytes(seed)
        else:
            self.private = Ed25519PrivateKey.from_private_bytes(seed)
        self.pkcs8, self.spki, self.kid = self._forms(seed)

    def _forms(self, seed):
        if self.kind == "xwing":
            halves = hashlib.shake_256(seed).digest(96)
            raw = MLKEM768PrivateKey.from_seed_bytes(halves[:64]).public_key().public_bytes_raw()
            raw += x25519.X25519PrivateKey.from_private_bytes(halves[64:]).public_key().public_bytes_raw()
            pkcs8 = der(0x30, b"\2\1\0" + XWING_ALGORITHM + der(4, seed))
            spki = der(0x30, XWING_ALGORITHM + der(3, b"\0" + raw))
            return pem("PRIVATE KEY", pkcs8), pem("PUBLIC KEY", spki), hashlib.sha256(b"cipher/xwing" + raw).digest()
        pkcs8 = self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
        spki = [self.private.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
                for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)]
        return pkcs8, spki[0].decode(), hashlib.sha256(spki[1]).digest()

    def wrap(self, content_key, label=b"cipher/2"):
        if self.hpke:
            return self.hpke.encrypt(content_key, self.private.public_key(), info=label)
        return self.private.public_key().encrypt(content_key, oaep(label))


def oaep(label):
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)


def header(suite, kids, message_id, *, version=2, flags=0, sent_ms=STARTED_MS + 17, session=bytes(range(16)), number=0,
           started_ms=STARTED_MS, lifetime_ms=LIFETIME_MS, exchange="", routing_key="", content_type="", skid=b"", part=None):
    """The canonical bytes; `part` is (file, index, count, bytes of the whole)."""
    flags |= PART if part else 0
    suite = SUITES.get(suite, suite)
    fields = struct.pack(">BBBQ16sQQQ", version, suite, flags, sent_ms, session, number, started_ms, lifetime_ms)
    fields += b"".join(map(sized, [message_id, exchange, routing_key, content_type, skid, b"".join(kids)]))
    return fields + (struct.pack(">16sIIQ", *part) if part else b"")


def seal_payload(content_key, hdr, text):
    """C2SP chunked encryption with AES-256-GCM: the header is its context."""
    encryptor = Cobblestone256Encryptor(content_key, hdr)
    return encryptor.update(text) + encryptor.finalize()


def session_statement(suite, session, started_ms, lifetime_ms, skid, kid, wrap):
    return (b"cipher/2 session\0" + bytes([SUITES[suite]]) + session + struct.pack(">QQ", started_ms, lifetime_ms) + skid + kid
            + hashlib.sha512(wrap).digest())


def message_statement(hdr, wraps, payload):
    parts = [hdr, b"".join(map(sized, wraps)), payload]
    return b"cipher/2 message\0" + b"".join(hashlib.sha512(part).digest() for part in parts)


def seal(text, recipients, message_id, *, identity=None, suite=None, content_key=None, label=b"cipher/2", wraps=None,
         bound=None, **fields):
    """The members of an envelope, decoded (`wraps` without the first, `hdr` and so on as bytes), ready to be spoilt.

    `bound` is the header that the payload is bound to, if that is another one.
    """
    recipients = sorted(recipients, key=lambda key: key.kid)
    suite = suite or SUITE_OF_KIND[recipients[0].kind]
    content_key = content_key or os.urandom(32)
    skid = identity.kid if identity else b""
    fields = {"session": os.urandom(16), "skid": skid, **fields}
    hdr = header(suite, [key.kid for key in recipients], message_id, **fields)
    wraps = wraps or [key.wrap(content_key, label) for key in recipients]
    payload = seal_payload(content_key, hdr if bound is None else bound, text)
    members = {"message_id": message_id, "enc_session_key": wraps[0], "nonce": b"", "tag": b"", "v": 2, "suite": suite, "hdr": hdr}
    if len(wraps) > 1:
        members["wraps"] = wraps[1:]
    if identity:
        members["sig"] = identity.private.sign(statement(members, payload, fields))
    return {**members, "ciphertext": payload}


def statement(members, payload, fields):
    """What the sender signs: the session for one recipient, the message for several."""
    if "wraps" in members:
        return message_statement(members["hdr"], [members["enc_session_key"], *members["wraps"]], payload)
    started, lifetime = fields.get("started_ms", STARTED_MS), fields.get("lifetime_ms", LIFETIME_MS)
    kid = members["hdr"][-32:] if "part" not in fields else members["hdr"][-64:-32]
    return session_statement(
        members["suite"], fields["session"], started, lifetime, fields["skid"], kid, members["enc_session_key"])


def write(members, **options):
    """The JSON."""
    def text(value):
        if isinstance(value, list):
            return [text(one) for one in value]
        return b64(value) if isinstance(value, bytes) else value

    return json.dumps({name: text(value) for name, value in members.items()}, **{"separators": (",", ":"), **options})


def padme(size):
    """Length after padding: Nikitin et al., PURBs, algorithm 1."""
    if size < 2:
        return size
    exponent = size.bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    return -(-size >> low_bits << low_bits) if low_bits > 0 else size


def pad(text):
    return (text + b"\x80").ljust(padme(len(text) + 1), b"\0")


def zstd_frame(*blocks, window=0x38):
    """A zstd frame (RFC 8878) by hand: a block is bytes as they are, or (byte, count)."""
    frame = bytes.fromhex("28b52ffd") + bytes([0, window])
    for place, block in enumerate(blocks):
        raw = isinstance(block, bytes)
        size = len(block) if raw else block[1]
        kind = 0 if raw else 1
        frame += struct.pack("<I", (place == len(blocks) - 1) | kind << 1 | size << 3)[:3] + (block if raw else block[0])
    return frame


# --- suite 1 with the member `x`


def bounds(stream=bytes(range(16)), started_ms=STARTED_MS, lifetime_ms=LIFETIME_MS):
    return stream + struct.pack(">QQ", started_ms, lifetime_ms)


def hkdf(secret, salt, info):
    """HKDF-SHA256 for 32 bytes: RFC 5869."""
    key = hmac.digest(salt, secret, "sha256")
    return hmac.digest(key, info + b"\1", "sha256")


def seal_first(text, public_key, message_id, *, session_key=None, nonce=None, wrapped=None):
    """The members of suite 1, decoded, and the session key. `public_key` is pycryptodome's."""
    session_key = session_key or os.urandom(16)
    cipher = AES.new(session_key, AES.MODE_GCM, nonce=nonce or os.urandom(16))
    ciphertext, tag = cipher.encrypt_and_digest(text)
    wrapped = wrapped or PKCS1_OAEP.new(public_key).encrypt(session_key)
    return {"message_id": message_id, "enc_session_key": wrapped, "nonce": cipher.nonce, "tag": tag, "ciphertext": ciphertext}, session_key


def extension(members, session_key, kid, identity, *, signed="session", seq=0, ts=STARTED_MS + 17, exchange="", routing_key="",
              content_type="", session=None, signer=None):
    """The member `x`: what ties sender, time, number and place to a message of suite 1. `signer` signs in place of the sender."""
    session = session or bounds()
    mode = {"session": 1, "message": 2}[signed]
    claim = (b"cipher/1 session\0" + kid + identity.kid + bytes([mode]) + session
             + hashlib.sha256(members["enc_session_key"]).digest())
    digest = hashlib.sha256(claim).digest()
    binding = (sized(members["message_id"]) + sized(members["nonce"]) + members["tag"] + struct.pack(">QQ", seq, ts)
               + sized(exchange) + sized(routing_key) + sized(content_type))
    mac = hmac.digest(hkdf(session_key, b"cipher/1x", b"mac\0" + digest), binding, "sha256")
    if signed == "message":
        parts = [binding, members["ciphertext"]]
        claim = b"cipher/1 message\0" + digest + b"".join(hashlib.sha256(part).digest() for part in parts)
    context = {"exchange": exchange, "routing_key": routing_key, **({"content_type": content_type} if content_type else {})}
    return {
        "v": 1, "kid": named(kid), "skid": named(identity.kid), "signed": signed, "session": b64(session),
        "sig": b64((signer or identity).private.sign(claim)), "seq": seq, "ts": ts, "ctx": context, "mac": b64(mac),
    }
