"""Keys, sealing and opening."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import stat
import threading
from pathlib import Path

import ciphermq
import pytest
from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.PublicKey import RSA
from Crypto.Random import get_random_bytes

from conftest import Keys

TEXTS = [
    b"",
    b"x",
    b"the goods are on the dock tonight"[:30],
    bytes(range(256)) * 4,
    "Überraschung \u0645\u0631\u062d\u0628\u0627 🚚".encode(),
    b"a\0b\0",
    os.urandom(65_536),
    os.urandom(1 << 20),
]


def original_seal(text: bytes, public_pem: str, message_id: str) -> str:
    """What the Python original does for a message."""
    session_key = get_random_bytes(16)
    wrapped = PKCS1_OAEP.new(RSA.import_key(public_pem)).encrypt(session_key)
    cipher = AES.new(session_key, AES.MODE_GCM)
    ciphertext, tag = cipher.encrypt_and_digest(text)
    parts = {"enc_session_key": wrapped, "nonce": cipher.nonce, "tag": tag, "ciphertext": ciphertext}
    encoded = {name: base64.b64encode(part).decode() for name, part in parts.items()}
    return json.dumps({"message_id": message_id, **encoded})


def original_open(envelope: str, private_pem: bytes) -> bytes:
    parts = json.loads(envelope)
    wrapped, nonce, tag, ciphertext = (
        base64.b64decode(parts[name]) for name in ("enc_session_key", "nonce", "tag", "ciphertext")
    )
    session_key = PKCS1_OAEP.new(RSA.import_key(private_pem)).decrypt(wrapped)
    return AES.new(session_key, AES.MODE_GCM, nonce=nonce).decrypt_and_verify(ciphertext, tag)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{len(text)}B")
def test_what_is_sealed_opens_here_and_with_the_original(keys: Keys, text: bytes) -> None:
    private, public = keys
    envelope = ciphermq.seal(text, public)
    assert ciphermq.open_envelope(envelope, private) == text
    assert original_open(envelope, private.to_pem()) == text


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{len(text)}B")
def test_what_the_original_sealed_opens(keys: Keys, text: bytes) -> None:
    private, public = keys
    assert ciphermq.open_envelope(original_seal(text, public.to_pem(), "from-the-original"), private) == text


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, lambda text: memoryview(text * 2)[::2]])
def test_bytes_like_objects_are_taken_as_they_are(keys: Keys, form) -> None:
    private, public = keys
    given = form(b"aabbcc")
    assert ciphermq.open_envelope(ciphermq.seal(given, public), private) == bytes(given)


def test_text_is_sealed_as_utf_8(keys: Keys) -> None:
    private, public = keys
    assert ciphermq.open_envelope(ciphermq.seal("naïve 🚀", public), private) == "naïve 🚀".encode()


def test_an_envelope_may_come_as_bytes(keys: Keys) -> None:
    private, public = keys
    assert ciphermq.open_envelope(ciphermq.seal("x", public).encode(), private) == b"x"


@pytest.mark.parametrize("wrong", [5, None, 1.5, ["a"], object()])
def test_what_is_neither_text_nor_bytes_is_a_type_error(keys: Keys, wrong: object) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        ciphermq.seal(wrong, keys[1])


def test_a_text_that_is_no_utf_8_is_named(keys: Keys) -> None:
    with pytest.raises(UnicodeEncodeError):
        ciphermq.seal("\ud800", keys[1])


def test_the_message_id_is_the_callers_or_a_uuid(keys: Keys) -> None:
    _, public = keys
    assert json.loads(ciphermq.seal("x", public, message_id="order-17"))["message_id"] == "order-17"
    ids = {json.loads(ciphermq.seal("x", public))["message_id"] for _ in range(50)}
    assert len(ids) == 50 and all(len(one) == 36 for one in ids)


@pytest.mark.parametrize("bad", ["", "a b", "a\n", 'a"', "x" * 256])
def test_a_message_id_that_could_break_a_line_is_refused(keys: Keys, bad: str) -> None:
    with pytest.raises(ValueError, match="message id"):
        ciphermq.seal("x", keys[1], message_id=bad)


def test_every_way_not_to_open_looks_the_same(keys: Keys, other_keys: Keys) -> None:
    private, public = ciphermq.generate_keypair()
    altered = json.loads(ciphermq.seal("secret", public))
    failures = [ciphermq.seal("secret", other_keys[1])]
    for member in ("enc_session_key", "nonce", "tag", "ciphertext"):
        part = bytearray(base64.b64decode(altered[member]))
        part[0] ^= 1
        failures.append(json.dumps({**altered, member: base64.b64encode(part).decode()}))
    texts = set()
    for envelope in failures:
        with pytest.raises(ciphermq.DecryptError) as caught:
            ciphermq.open_envelope(envelope, private)
        texts.add(str(caught.value))
        assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert len(texts) == 1 and "secret" not in texts.pop()


@pytest.mark.parametrize("text", ["", "x", "{}", "[]", '{"message_id":"a"}', "{" * 1000, b"\xff\xfe"])
def test_what_is_no_envelope_is_told_apart_from_what_does_not_open(keys: Keys, text: str) -> None:
    with pytest.raises(ciphermq.EnvelopeError):
        ciphermq.open_envelope(text, keys[0])


def test_keys_survive_pem_and_files(tmp_path: Path, keys: Keys) -> None:
    private, public = keys
    paths = ciphermq.write_keypair(tmp_path / "made", private)
    assert [path.name for path in paths] == ["receiver_private.pem", "receiver_public.pem"]
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o600
    again = ciphermq.PrivateKey.from_file(paths[0])
    assert ciphermq.PublicKey.from_file(str(paths[1])) == public == again.public_key()
    assert ciphermq.PublicKey.from_pem(public.to_pem()).fingerprint == private.fingerprint
    assert ciphermq.open_envelope(ciphermq.seal("x", public), again) == b"x"


def test_key_files_are_never_overwritten(tmp_path: Path, keys: Keys) -> None:
    ciphermq.write_keypair(tmp_path, keys[0])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError):
        ciphermq.write_keypair(tmp_path, keys[0])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_keys_in_the_forms_of_pycryptodome_are_read() -> None:
    made = RSA.generate(2048)
    for pem in (made.export_key(), made.export_key(pkcs=8)):
        assert ciphermq.PrivateKey.from_pem(pem).bits == 2048
    assert ciphermq.PublicKey.from_pem(made.public_key().export_key()).bits == 2048


def test_an_old_small_key_needs_a_word(keys: Keys) -> None:
    made = RSA.generate(1048)
    pem = made.export_key()
    small = ciphermq.PrivateKey.from_pem(pem)
    with pytest.raises(ciphermq.KeyFormatError, match="allow_legacy_rsa"):
        ciphermq.seal("x", small.public_key())
    legacy = ciphermq.PrivateKey.from_pem(pem, allow_legacy_rsa=True)
    assert ciphermq.open_envelope(ciphermq.seal("x", legacy.public_key()), legacy) == b"x"


@pytest.mark.parametrize("wrong", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\n"])
def test_what_is_no_key_is_a_key_format_error(wrong: bytes) -> None:
    for read in (ciphermq.PrivateKey.from_pem, ciphermq.PublicKey.from_pem):
        with pytest.raises(ciphermq.KeyFormatError):
            read(wrong)


def test_the_wrong_half_is_named(keys: Keys) -> None:
    private, public = keys
    with pytest.raises(ciphermq.KeyFormatError, match="public key, a private one"):
        ciphermq.PrivateKey.from_pem(public.to_pem())
    with pytest.raises(ciphermq.KeyFormatError, match="private key, a public one"):
        ciphermq.PublicKey.from_pem(private.to_pem())


def test_a_missing_key_file_is_the_error_of_open(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        ciphermq.PrivateKey.from_file(tmp_path / "none.pem")
    assert caught.value.filename == str(tmp_path / "none.pem")


def test_a_private_key_is_not_shown_copied_or_pickled(keys: Keys) -> None:
    private, _ = keys
    secrets = [line for line in private.to_pem().decode().splitlines() if "-----" not in line]
    for shown in (repr(private), str(private), f"{private}"):
        assert not any(secret in shown for secret in secrets)
        assert private.fingerprint in shown
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not copied or pickled"):
            leave(private)
    with pytest.raises(TypeError):
        ciphermq.PrivateKey()
    assert not hasattr(private, "__dict__")


def test_public_keys_compare_by_what_they_are(keys: Keys, other_keys: Keys) -> None:
    same = ciphermq.PublicKey.from_pem(keys[1].to_pem())
    assert same == keys[1] and hash(same) == hash(keys[1])
    assert same != other_keys[1] and same != "key" and len({same, keys[1], other_keys[1]}) == 2


@pytest.mark.parametrize("bits", [0, 1024, 2049, 16384])
def test_key_sizes_have_bounds(bits: int) -> None:
    with pytest.raises(ValueError, match="bits"):
        ciphermq.generate_keypair(bits)


def test_a_readable_private_key_file_is_logged(tmp_path: Path, keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    private_path, _ = ciphermq.write_keypair(tmp_path, keys[0])
    private_path.chmod(0o644)
    with caplog.at_level("WARNING", logger="ciphermq"):
        ciphermq.PrivateKey.from_file(private_path)
    assert any("chmod 600" in record.getMessage() for record in caplog.records)


def test_other_threads_run_while_a_key_is_made() -> None:
    count, stop = [0], threading.Event()

    def run() -> None:
        while not stop.is_set():
            count[0] += 1

    thread = threading.Thread(target=run)
    thread.start()
    while count[0] == 0:
        pass
    before = count[0]
    ciphermq.generate_keypair(3072)
    after = count[0]
    stop.set()
    thread.join()
    assert after > before
