"""What the 0.2.0 and 1.0.0 clients do with a message: RSA-OAEP (SHA-1) round a 16-byte key, AES-GCM with a 16-byte nonce."""

import base64
import json
import uuid

from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.PublicKey import RSA
from Crypto.Random import get_random_bytes

MEMBERS = ("message_id", "enc_session_key", "nonce", "tag", "ciphertext")


def encrypt(text):
    """An envelope as a dict, for the holder of receiver_private.pem."""
    with open("receiver_public.pem", "rb") as file:
        wrap = PKCS1_OAEP.new(RSA.import_key(file.read()))
    session_key = get_random_bytes(16)
    cipher = AES.new(session_key, AES.MODE_GCM)
    ciphertext, tag = cipher.encrypt_and_digest(text.encode())
    parts = (wrap.encrypt(session_key), cipher.nonce, tag, ciphertext)
    return dict(zip(MEMBERS, [str(uuid.uuid4())] + [base64.b64encode(part).decode() for part in parts]))


def decrypt(message):
    """The text of an envelope; ValueError when it does not open."""
    with open("receiver_private.pem", "rb") as file:
        unwrap = PKCS1_OAEP.new(RSA.import_key(file.read()))
    wrapped, nonce, tag, ciphertext = (base64.b64decode(message[member]) for member in MEMBERS[1:])
    cipher = AES.new(unwrap.decrypt(wrapped), AES.MODE_GCM, nonce=nonce)
    return cipher.decrypt_and_verify(ciphertext, tag).decode()


def is_complete(message):
    return all(member in message for member in MEMBERS)


def to_line(message):
    return json.dumps(message)
