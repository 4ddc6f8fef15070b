"""What a caller gets wrong is said: what it was, and what to do."""

from __future__ import annotations

import os
import pathlib
from typing import Any, Callable

import ciphermq
import pytest

KEY = ciphermq.PrivateKey.generate("x25519")
RSA = ciphermq.PrivateKey.generate("rsa")
IDENTITY = ciphermq.Identity.generate()


@pytest.mark.parametrize("key", [KEY, RSA])
def test_signing_without_an_identity_is_refused(key: ciphermq.PrivateKey) -> None:
    with pytest.raises(ValueError, match="signing: needs an identity"):
        ciphermq.Sealer(key.public_key(), signing="message")


@pytest.mark.parametrize("demand", ["require_signed", "mixed", "allow_lower_suites"])
def test_a_demand_on_senders_needs_senders(demand: str) -> None:
    demands: Any = {demand: True}
    with pytest.raises(TypeError, match=f"{demand} needs senders"):
        ciphermq.Opener(KEY, **demands)


def test_a_path_in_the_place_of_a_key_is_told_how_to_read_it() -> None:
    path: Any = "keys/receiver_public.pem"
    with pytest.raises(TypeError, match="PublicKey.from_file reads one"):
        ciphermq.Sealer(path)
    with pytest.raises(TypeError, match="PrivateKey.from_file and Keyset.open read them"):
        ciphermq.Opener(path)


def test_a_name_that_is_too_long_is_no_message_to_be_sent_in_parts() -> None:
    context = ciphermq.Context("e" * 256, "key")
    with pytest.raises(ValueError, match="exchange of 256 bytes is over the limit of 255$") as raised:
        ciphermq.Sealer(KEY.public_key()).seal("text", context=context)
    assert not isinstance(raised.value, ciphermq.EnvelopeError)


def test_a_secret_that_is_not_copied_names_what_loads_it(tmp_path: pathlib.Path) -> None:
    for secret, load in [(KEY, "PrivateKey.from_file"), (IDENTITY, "Identity.from_file"), (ciphermq.Keyset(KEY), "Keyset.open")]:
        with pytest.raises(TypeError, match=load):
            secret.__reduce__()


def test_strict_refuses_what_others_can_read(tmp_path: pathlib.Path) -> None:
    private, _ = ciphermq.write_keypair(tmp_path / "pair", KEY)
    signing = tmp_path / "sender.pem"
    IDENTITY.write_file(signing)
    readers: dict[pathlib.Path, Callable[..., object]] = {
        private: ciphermq.PrivateKey.from_file,
        signing: ciphermq.Identity.from_file,
    }
    for path, read in readers.items():
        read(path, strict=True)
        os.chmod(path, 0o640)
        with pytest.raises(ciphermq.CipherMQError, match="chmod 600"):
            read(path, strict=True)
        read(path)


def test_a_pair_is_never_written_over_another(tmp_path: pathlib.Path) -> None:
    private, _ = ciphermq.write_keypair(tmp_path, KEY)
    with pytest.raises(FileExistsError, match="there is a key already; choose another folder"):
        ciphermq.write_keypair(tmp_path, RSA)
    assert ciphermq.PrivateKey.from_file(private).kid == KEY.kid
