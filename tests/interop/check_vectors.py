"""Opens every vector of tests/vectors with nothing but `cryptography` (50 or newer) and pycryptodome.

    python tests/interop/check_vectors.py

reader.py is the format; here is what the files of vectors mean.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import sys

from Crypto.Cipher import AES

from reader import Private, Refused, load_sender, named, need, open_envelope

VECTORS = pathlib.Path(__file__).parent.parent / "vectors"


def expand(told):
    """A long text is told by a rule."""
    if "b64" in told:
        return base64.b64decode(told["b64"])
    text = bytes(i % 251 for i in range(told["size"]))
    assert hashlib.sha256(text).hexdigest() == told["sha256"]
    return text


def seal_again(case, text):
    """The ciphertext of a long message from its keys, as the vector has it."""
    if "session_key_hex" in case:
        cipher = AES.new(bytes.fromhex(case["session_key_hex"]), AES.MODE_GCM, nonce=base64.b64decode(case["members"]["nonce"]))
        return cipher.encrypt(text)
    salt, hdr = bytes.fromhex(case["salt_hex"]), base64.b64decode(case["members"]["hdr"])
    derived, block = b"", b""
    for count in (1, 2):  # HKDF-SHA512, the content key being its PRK
        info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + hdr
        block = hmac.digest(bytes.fromhex(case["content_key_hex"]), block + info + bytes([count]), "sha512")
        derived += block
    key, nonce, commitment = derived[:32], derived[32:44], derived[44:76]
    payload = salt + commitment
    for count, at in enumerate(range(0, len(text) + 1, 16384)):
        chunk_nonce = int.from_bytes(nonce, "big") ^ count
        cipher = AES.new(key, AES.MODE_GCM, nonce=chunk_nonce.to_bytes(12, "big"))
        payload += b"".join(cipher.encrypt_and_digest(text[at:at + 16384]))
    return payload


def check(case, keys, senders):
    """Opens one vector; a text if that did not end as it says."""
    known = case.get("senders")
    envelope, text = case.get("envelope"), expand(case["plaintext"]) if "plaintext" in case else None
    if envelope is None:
        ciphertext = seal_again(case, text)
        assert hashlib.sha256(ciphertext).hexdigest() == case["ciphertext_sha256"], case["id"]
        envelope = json.dumps({**case["members"], "ciphertext": base64.b64encode(ciphertext).decode()})
    own = [keys[name] for name in case.get("keys", [case.get("key")])]
    try:
        need(own[0].rsa is None or own[0].rsa.size_in_bits() >= 2048 or case["result"] == "acceptable", "key_too_small")
        opened = open_envelope(envelope, own, known and dict(senders[name] for name in known["known"]), bool(known and known["require"]))
        told = opened["context"] and opened["context"][:2]
        need("delivered" not in case or told in (None, case["delivered"]), "misdirected")
    except Refused as refused:
        return None if str(refused) == case.get("expect") else f"{case['id']}: {refused}, not {case.get('expect', 'opened')}"
    if case["result"] == "invalid" or opened["plaintext"] != text:
        return f"{case['id']}: opened" + " to another text" * (case["result"] != "invalid")
    for name, value in case.get("opened", {}).items():
        if tidy(opened.get(name)) != value:
            return f"{case['id']}: {name} is {tidy(opened.get(name))}, not {value}"
    return None


def check_parts(message, key):
    """Puts a message in parts together; a text if that did not end as its vector says."""
    seen, whole = {}, None
    try:
        for envelope in message["envelopes"]:
            opened = open_envelope(envelope, [key])
            file, index, count, size = opened["part"]
            message_id, _, number = opened["message_id"].rpartition("/")
            parts = seen.setdefault((opened["origin"], file), {})
            like = {(message_id, opened["context"][0], count, size), *(like for like, _ in parts.values())}
            parts[index] = like.copy().pop(), opened["plaintext"]
            text = b"".join(text for _, (_, text) in sorted(parts.items()))
            need(len(like) == 1 and number == str(index) and len(text) <= size, "malformed:hdr")
            if len(parts) == count:
                need(len(text) == size, "malformed:hdr")
                whole = message_id, text
        need(whole, "incomplete")
    except Refused as refused:
        return None if str(refused) == message.get("expect") else f"{message['id']}: {refused}"
    is_right = message["result"] == "valid" and whole == (message["message_id"], expand(message["plaintext"]))
    return None if is_right else f"{message['id']}: put together"


def tidy(value):
    """As JSON has it."""
    if isinstance(value, bytes):
        return named(value) if len(value) == 32 else value.hex()
    return [tidy(one) for one in value] if isinstance(value, (list, tuple)) else value


def main():
    count, wrong = 0, []
    for folder in sorted(VECTORS.glob("envelope-v*")):
        told = json.loads((folder / "keys.json").read_text())
        keys = {name: Private(key["pkcs8"]) for name, key in told["keys"].items()}
        assert all(named(keys[name].kid) == key["fingerprint"] for name, key in told["keys"].items())
        for path in sorted(folder.glob("*.json")):
            content = json.loads(path.read_text())
            senders = {name: load_sender(key["spki"]) for name, key in {**told, **content}.get("senders", {}).items()}
            outcomes = [check(case, keys, senders) for case in content.get("envelopes", [])]
            outcomes += [check_parts(message, keys[content["key"]]) for message in content.get("messages", [])]
            count, wrong = count + len(outcomes), wrong + [outcome for outcome in outcomes if outcome]
    print("\n".join(wrong) or f"{count} vectors, all as they should be")
    return 1 if wrong or count < 400 else 0


if __name__ == "__main__":
    sys.exit(main())
