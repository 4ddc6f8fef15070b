"""The algorithm of the original CipherMQ Python clients, on pycryptodome.

RSA-OAEP (SHA-1, MGF1-SHA-1, empty label) round a 16-byte session key; AES-GCM
with a 16-byte random nonce and a 16-byte tag; five members of JSON in standard
base64. Written from the description in docs/encryption.md, as the second
implementation that the tests compare ours with.
"""

import base64
import json
import uuid

from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.PublicKey import RSA
from Crypto.Random import get_random_bytes

MEMBERS = ("message_id", "enc_session_key", "nonce", "tag", "ciphertext")


def text(data):
    return base64.b64encode(data).decode("ascii")


def seal(plaintext: bytes, public_pem, *, message_id=None, session_key=None) -> str:
    """What the original sender does with a message."""
    session_key = session_key or get_random_bytes(16)
    enc_session_key = PKCS1_OAEP.new(RSA.import_key(public_pem)).encrypt(session_key)
    cipher = AES.new(session_key, AES.MODE_GCM)
    ciphertext, tag = cipher.encrypt_and_digest(plaintext)
    return json.dumps(
        {
            "message_id": message_id or str(uuid.uuid4()),
            "enc_session_key": text(enc_session_key),
            "nonce": text(cipher.nonce),
            "tag": text(tag),
            "ciphertext": text(ciphertext),
        }
    )


def open_envelope(envelope: str, private_pem) -> bytes:
    """What the original receiver does with a message; ValueError if it fails."""
    members = json.loads(envelope)
    if not set(MEMBERS).issubset(members):
        raise ValueError("incomplete message")
    decoded = {name: base64.b64decode(members[name]) for name in MEMBERS[1:]}
    session_key = PKCS1_OAEP.new(RSA.import_key(private_pem)).decrypt(decoded["enc_session_key"])
    cipher = AES.new(session_key, AES.MODE_GCM, nonce=decoded["nonce"])
    return cipher.decrypt_and_verify(decoded["ciphertext"], decoded["tag"])
