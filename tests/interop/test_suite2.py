"""Our package and `cryptography` open each other's messages of suite 2, and signed ones of suite 1.

oracle.py seals and tests/vectors/check.py opens, both written from docs/encryption.md on cryptography and pycryptodome.
"""

import json
import os
import pathlib
import sys

import oracle
import pytest
from Crypto.PublicKey import RSA

import ciphermq

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "vectors"))
import check  # noqa: E402  (opens both suites with nothing of ours)

SUITES = {"2r": "rsa", "2x": "x25519", "2pq": "x-wing"}
TEXTS = {"0 B": b"", "1 B": b"a", "1 KiB": bytes(range(256)) * 4, "16383 B": bytes(16383), "16384 B": bytes(16384),
         "16385 B": bytes(16385), "1 MiB": bytes(i % 251 for i in range(1 << 20))}
CONTEXT = {"exchange": "orders", "routing_key": "eu.new", "content_type": "text/plain"}
each_suite = pytest.mark.parametrize("suite", SUITES)
each_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())


class Party:
    """One key as both sides hold it."""

    def __init__(self, suite):
        self.ours = ciphermq.PrivateKey.generate(SUITES[suite])
        pem = self.ours.to_pem().decode()
        self.theirs = check.Key(pem)
        self.to_us = as_oracle(SUITES[suite], pem)
        self.public = self.ours.public_key()


def as_oracle(kind, pem):
    """The oracle's recipient of this private key: it takes the public half only."""
    theirs = check.Key(pem)
    key = oracle.Key.__new__(oracle.Key)
    key.kind, key.kid, key.private = kind.replace("-", ""), theirs.kid, theirs.private
    key.hpke = oracle.HPKE.get(key.kind)
    return key


PARTIES = {suite: [Party(suite) for _ in range(3)] for suite in SUITES}
ME = ciphermq.Identity.generate()
SENDER = oracle.Key("ed25519", os.urandom(32))


def theirs():
    """Our identity as theirs knows it."""
    return dict([check.load_sender(ME.sender_key().to_pem())])


def known():
    """Their identity as our receiver knows it."""
    senders = ciphermq.Senders()
    senders.add("them", ciphermq.SenderKey.from_pem(SENDER.spki))
    return senders


@each_suite
@each_text
def test_they_open_what_we_seal(suite, text):
    party = PARTIES[suite][0]
    sealed = ciphermq.Sealer(party.public, suite=suite).seal(text)
    opened = check.open_envelope(sealed, [party.theirs])
    assert (opened["plaintext"], opened["suite"]) == (text, suite)


@each_suite
@each_text
def test_we_open_what_they_seal(suite, text):
    party = PARTIES[suite][0]
    sealed = oracle.write(oracle.seal(text, [party.to_us], "m-1"))
    opened = ciphermq.Opener(party.ours).open(sealed)
    assert (opened.plaintext, opened.suite, opened.message_id) == (text, suite, "m-1")


@each_suite
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("signed", [False, True])
def test_they_find_what_we_bound(suite, count, signed):
    parties = PARTIES[suite][:count]
    sealer = ciphermq.Sealer([party.public for party in parties], suite=suite, identity=ME if signed else None)
    for n in range(3):
        sealed = sealer.seal(f"message {n}", context=ciphermq.Context(**CONTEXT), message_id=f"m-{n}")
        for party in parties:
            opened = check.open_envelope(sealed, [party.theirs], theirs(), must_sign=signed)
            assert opened["plaintext"] == f"message {n}".encode()
            assert opened["context"] == list(CONTEXT.values()) and opened["number"] == n
            assert opened["sender"] == (ME.kid if signed else None)


@each_suite
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("signed", [False, True])
def test_we_find_what_they_bound(suite, count, signed):
    parties = PARTIES[suite][:count]
    sealed = oracle.write(oracle.seal(
        b"text", [party.to_us for party in parties], "m-1", identity=SENDER if signed else None, number=7, **CONTEXT))
    for party in parties:
        opener = ciphermq.Opener(party.ours, senders=known(), require_signed=signed)
        opened = opener.open(sealed, delivered=ciphermq.Context("orders", "eu.new"))
        assert (opened.plaintext, opened.context) == (b"text", ciphermq.Context(**CONTEXT))
        assert opened.sender == (oracle.named(SENDER.kid) if signed else None)
        assert opened.sequence[1] == 7 and opened.sent_at == (oracle.STARTED_MS + 17) / 1000
        with pytest.raises(ciphermq.Misdirected):
            opener.open(sealed, delivered=ciphermq.Context("orders", "us.new"))


@pytest.mark.parametrize("text", [b"", b"short", bytes(1000), b"ends with \x80\0\0"], ids=len)
def test_padding_goes_both_ways(text):
    party = PARTIES["2x"][0]
    sealed = ciphermq.Sealer(party.public, padding="padme").seal(text)
    assert check.open_envelope(sealed, [party.theirs])["plaintext"] == text
    payload = len(check.raw(json.loads(sealed)["ciphertext"]))
    assert payload == 24 + 32 + oracle.padme(len(text) + 1) + 16
    padded = oracle.write(oracle.seal(oracle.pad(text), [party.to_us], "m-1", flags=oracle.PADDED))
    assert ciphermq.Opener(party.ours).open(padded).plaintext == text


def test_what_they_compressed_opens():
    party = PARTIES["2pq"][0]
    frame = oracle.zstd_frame(b"stored, then ", (b"a", 5000))
    sealed = oracle.write(oracle.seal(frame, [party.to_us], "m-1", flags=oracle.COMPRESSED))
    assert ciphermq.Opener(party.ours).open(sealed).plaintext == b"stored, then " + b"a" * 5000


def test_parts_go_both_ways():
    party, text = PARTIES["2x"][0], bytes(i % 251 for i in range(100_000))
    parts = ciphermq.Sealer(party.public).seal_parts(text, 30_000, message_id="scan")
    opened = [check.open_envelope(part, [party.theirs]) for part in parts]
    assert b"".join(part["plaintext"] for part in opened) == text
    assert [part["part"][1:] for part in opened] == [(n, 4, len(text)) for n in range(4)]
    assert len({(part["content_key"], part["part"][0]) for part in opened}) == 1, "one key, one file"
    content_key, file = os.urandom(32), os.urandom(16)
    wraps, collector, whole = [party.to_us.wrap(content_key)], ciphermq.PartCollector(), []
    for n in (2, 0, 1):
        members = oracle.seal(text[n * 40_000:(n + 1) * 40_000], [party.to_us], f"scan/{file.hex()}/{n}", content_key=content_key, wraps=wraps,
                              session=bytes(16), number=5, part=(file, n, 3, len(text)))
        whole.append(collector.add(ciphermq.Opener(party.ours).open(oracle.write(members))))
    assert whole[:2] == [None, None] and (whole[2].plaintext, whole[2].message_id) == (text, "scan")


@each_suite
def test_a_message_of_ours_that_somebody_changed_is_refused(suite):
    party = PARTIES[suite][0]
    sealed = json.loads(ciphermq.Sealer(party.public, suite=suite).seal(b"text"))
    for member in ("enc_session_key", "hdr", "ciphertext"):
        data = bytearray(check.raw(sealed[member]))
        data[len(data) // 2] ^= 1
        changed = json.dumps({**sealed, member: oracle.b64(bytes(data))})
        with pytest.raises(check.REFUSALS):
            check.open_envelope(changed, [party.theirs])
        with pytest.raises((ciphermq.DecryptError, ciphermq.EnvelopeError)):
            ciphermq.Opener(party.ours).open(changed)


def test_signed_messages_of_suite_1_go_both_ways():
    party = PARTIES["2r"][0]
    sealer = ciphermq.Sealer(party.public, identity=ME)
    for n in range(3):
        opened = check.open_envelope(
            sealer.seal(f"message {n}", context=ciphermq.Context(**CONTEXT)), [party.theirs], theirs(), must_sign=True)
        assert opened["plaintext"] == f"message {n}".encode() and opened["suite"] == "1"
        assert opened["context"] == list(CONTEXT.values()) and opened["number"] == n
    for signed in ("session", "message"):
        public = RSA.import_key(party.public.to_pem())
        members, session_key = oracle.seal_first(b"text", public, "m-1")
        members["x"] = oracle.extension(members, session_key, party.theirs.kid, SENDER, signed=signed, seq=7, **CONTEXT)
        opened = ciphermq.Opener(party.ours, senders=known()).open(oracle.write(members))
        assert (opened.plaintext, opened.suite, opened.sender) == (b"text", "1", oracle.named(SENDER.kid))
        assert opened.context == ciphermq.Context(**CONTEXT) and opened.sequence[1] == 7
        # An original receiver reads past `x`.
        assert ciphermq.open_envelope(oracle.write(members), party.ours) == b"text"
