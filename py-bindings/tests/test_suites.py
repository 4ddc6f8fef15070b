"""Kinds of keys, keysets, identities, sealers and openers: what they promise, without a broker."""

from __future__ import annotations

import copy
import json
import os
import pickle
import stat
import threading
from pathlib import Path
from typing import Callable, List

import ciphermq
import pytest

KINDS = {"rsa": "1", "x25519": "2x", "x-wing": "2pq"}
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_the_kind_of_the_key_selects_the_suite(kind: str) -> None:
    private = ciphermq.PrivateKey.generate(kind)
    public = private.public_key()
    assert private.kind == public.kind == kind and private.kid == public.kid == public.fingerprint
    assert ciphermq.open_envelope(ciphermq.seal("text", public), private) == b"text"
    sealer = ciphermq.Sealer(public)
    opened = ciphermq.Opener(private).open(sealer.seal("text", message_id="m-1"))
    assert sealer.suite == opened.suite == KINDS[kind]
    assert (opened.message_id, opened.text, opened.sender, opened.part) == ("m-1", "text", None, None)


@each_kind
def test_keys_of_every_kind_survive_pem_and_a_passphrase(kind: str, tmp_path: Path) -> None:
    private = ciphermq.PrivateKey.generate(kind)
    assert ciphermq.PrivateKey.from_pem(private.to_pem()).kid == private.kid
    assert ciphermq.PublicKey.from_pem(private.public_key().to_pem()) == private.public_key()
    locked = private.to_pem(passphrase="correct horse")
    assert b"ENCRYPTED" in locked and ciphermq.PrivateKey.from_pem(locked, passphrase=b"correct horse").kid == private.kid
    path, _ = ciphermq.write_keypair(tmp_path, private, passphrase="correct horse")
    assert ciphermq.PrivateKey.from_file(path, passphrase="correct horse").kid == private.kid
    for wrong in ({}, {"passphrase": "wrong"}):
        with pytest.raises(ciphermq.PassphraseError):
            ciphermq.PrivateKey.from_file(path, **wrong)
    path.chmod(0o644)
    with pytest.raises(ciphermq.CipherMQError, match="others"):
        ciphermq.PrivateKey.from_file(path, passphrase="correct horse", strict=True)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="x-wing"):
        ciphermq.PrivateKey.generate("dsa")


@each_kind
def test_secrets_are_not_shown_copied_or_pickled(kind: str) -> None:
    private, identity = ciphermq.PrivateKey.generate(kind), ciphermq.Identity.generate()
    for secret in (private, identity, ciphermq.Keyset(private)):
        texts = [line for line in (private.to_pem() + identity.to_pem()).decode().splitlines() if "---" not in line]
        assert not any(text in shown for text in texts for shown in (repr(secret), str(secret), f"{secret}"))
        for leave in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="not copied or pickled"):
                leave(secret)
        assert not hasattr(secret, "__dict__")
    sealer = ciphermq.Sealer(private.public_key(), identity=identity)
    opened = ciphermq.Opener(private).open(sealer.seal("marker-secret"))
    assert "marker-secret" not in repr(opened)
    for keeper in (sealer, ciphermq.Opener(private), opened):
        with pytest.raises(TypeError):
            pickle.dumps(keeper)


def test_a_keyset_opens_what_was_sealed_before_a_change_of_keys(tmp_path: Path) -> None:
    first, second = ciphermq.PrivateKey.generate("x25519"), ciphermq.PrivateKey.generate("x-wing")
    keys = ciphermq.Keyset.create(tmp_path / "keys", first, passphrase="correct horse")
    old = ciphermq.seal("old", keys.public_key())
    keys.rotate(second)
    assert (keys.kids, len(keys)) == ([second.kid, first.kid], 2) and keys.public_key() == second.public_key()
    again = ciphermq.Keyset.open(tmp_path / "keys", passphrase="correct horse")
    opener = ciphermq.Opener(again)
    assert opener.open(old).plaintext == b"old"
    assert opener.open(ciphermq.seal("new", again.public_key())).plaintext == b"new"
    assert again.prune(3600) == [] and again.prune(0) == [first.kid] and again.kids == [second.kid]
    with pytest.raises(ciphermq.DecryptError):
        ciphermq.Opener(again).open(old)
    with pytest.raises(ciphermq.PassphraseError):
        ciphermq.Keyset.open(tmp_path / "keys")


def test_a_keyset_follows_what_another_program_changed(tmp_path: Path) -> None:
    ciphermq.Keyset.create(tmp_path / "keys", ciphermq.PrivateKey.generate("x25519"))
    here, elsewhere = ciphermq.Keyset.open(tmp_path / "keys"), ciphermq.Keyset.open(tmp_path / "keys")
    assert not here.reload()
    elsewhere.rotate(ciphermq.PrivateKey.generate("x25519"))
    assert here.reload() and here.kids == elsewhere.kids


def test_several_keys_may_be_given_in_the_place_of_a_keyset() -> None:
    keys = [ciphermq.PrivateKey.generate(kind) for kind in KINDS]
    opener = ciphermq.Opener(keys)
    assert [opener.open(ciphermq.seal("x", key.public_key())).suite for key in keys] == list(KINDS.values())
    assert ciphermq.Keyset(*keys).kids == [key.kid for key in keys]
    for wrong in ([], ["key"], None, keys[0].public_key()):
        with pytest.raises(TypeError, match="PrivateKey"):
            ciphermq.Opener(wrong)


def test_one_ciphertext_serves_several_recipients() -> None:
    keys = [ciphermq.PrivateKey.generate("x-wing") for _ in range(3)]
    recipients = [keys[0].public_key(), ciphermq.Recipient(keys[1].public_key()), keys[2].public_key()]
    envelope = ciphermq.Sealer(recipients).seal("for all of you")
    assert [ciphermq.Opener(key).open(envelope).text for key in keys] == ["for all of you"] * 3
    with pytest.raises(ciphermq.DecryptError):
        ciphermq.Opener(ciphermq.PrivateKey.generate("x-wing")).open(envelope)
    rsa = [ciphermq.generate_keypair() for _ in range(2)]
    assert ciphermq.Sealer([public for _, public in rsa]).suite == "2r"


@pytest.mark.parametrize("wrong", [[], "key", [None], None, 5])
def test_recipients_are_keys(wrong: object) -> None:
    with pytest.raises((TypeError, ValueError), match="recipient"):
        ciphermq.Sealer(wrong)


def test_recipients_of_several_kinds_are_refused() -> None:
    keys = [ciphermq.PrivateKey.generate(kind).public_key() for kind in ("x25519", "x-wing")]
    with pytest.raises(ValueError, match="same kind"):
        ciphermq.Sealer(keys)


def test_a_key_nobody_vouches_for_cannot_be_sealed_to() -> None:
    key = ciphermq.PrivateKey.generate("x25519").public_key()
    found = ciphermq.UnverifiedRecipient(key)
    for recipients in (found, [found], [key, found]):
        with pytest.raises(TypeError, match="vouches"):
            ciphermq.Sealer(recipients)
    with pytest.raises(TypeError):
        ciphermq.seal("x", found)
    with pytest.raises(TypeError):
        ciphermq.Sender(recipients=found)
    assert not hasattr(found, "public_key")
    with pytest.raises(ciphermq.Untrusted):
        found.verify(ciphermq.PrivateKey.generate("x25519").kid)
    trusted = found.verify(key.kid)
    assert trusted.public_key() == key and ciphermq.Sealer(trusted).suite == "2x"


def signed_pair(kind: str = "x25519", **policy: object):
    private, me = ciphermq.PrivateKey.generate(kind), ciphermq.Identity.generate()
    senders = ciphermq.Senders()
    senders.add("me", me.sender_key())
    return me, private, ciphermq.Opener(private, senders=senders, **policy)


@each_kind
def test_a_signature_says_who_sealed(kind: str) -> None:
    me, private, opener = signed_pair(kind)
    stranger = ciphermq.Identity.generate()
    sealer = ciphermq.Sealer(private.public_key(), identity=me)
    numbers = [opener.open(sealer.seal("text")) for _ in range(3)]
    assert [opened.sender for opened in numbers] == [me.kid] * 3
    assert [opened.sequence[1] for opened in numbers] == [0, 1, 2] and len({opened.sequence[0] for opened in numbers}) == 1
    for other in (ciphermq.Sealer(private.public_key()), ciphermq.Sealer(private.public_key(), identity=stranger)):
        with pytest.raises(ciphermq.Untrusted):
            opener.open(other.seal("text"))


@pytest.mark.parametrize("kind", ["x25519", "x-wing"])
def test_a_signature_for_every_message_is_refused_where_there_would_be_one_a_session(kind: str) -> None:
    me, private, _ = signed_pair(kind)
    with pytest.raises(ValueError, match="signing"):
        ciphermq.Sealer(private.public_key(), identity=me, signing="message")


@pytest.mark.parametrize(
    ("kind", "signing"), [("rsa", "session"), ("rsa", "message"), ("x25519", "session"), ("x-wing", "session")]
)
def test_what_was_left_out_or_comes_again_is_told(kind: str, signing: str) -> None:
    me, private, opener = signed_pair(kind)
    sealer = ciphermq.Sealer(private.public_key(), identity=me, signing=signing)
    envelopes = [sealer.seal(f"{n}") for n in range(5)]
    orders = [opener.open(envelopes[n]).order for n in (0, 1, 4, 3, 1)]
    assert orders == ["first", "next", "gap", "late", "repeat"]
    assert opener.stats["missing"] == 2 and opener.stats["late"] == opener.stats["repeated"] == 1
    assert ciphermq.Opener(private).open(envelopes[0]).order == "untracked"
    with pytest.raises(ValueError, match="signing"):
        ciphermq.Sealer(private.public_key(), identity=me, signing="always")


def test_unsigned_messages_are_taken_until_the_first_signed_one() -> None:
    me, private, opener = signed_pair(require_signed=False, source="orders")
    public = private.public_key()
    unsigned = ciphermq.Sealer(public)
    stranger = ciphermq.Identity.generate()
    claimed = opener.open(ciphermq.Sealer(public, identity=stranger).seal("x"))
    assert (claimed.sender, claimed.claimed_sender) == (None, stranger.kid)
    assert opener.open(unsigned.seal("x")).sender is None
    assert opener.open(ciphermq.Sealer(public, identity=me).seal("x")).sender == me.kid
    with pytest.raises(ciphermq.Untrusted):
        opener.open(unsigned.seal("x"))
    _, private, opener = signed_pair(require_signed=True)
    with pytest.raises(TypeError, match="senders"):
        ciphermq.Opener(private, require_signed=True)


def test_what_is_bound_is_found_and_compared() -> None:
    private = ciphermq.PrivateKey.generate("x25519")
    context = ciphermq.Context("orders", "eu.new", "text/plain")
    sealed = ciphermq.Sealer(private.public_key()).seal("x", context=context)
    for policy in ("refuse", "warn", "accept"):
        opener = ciphermq.Opener(private, on_misdirected=policy)
        opened = opener.open(sealed, delivered=ciphermq.Context("orders", "eu.new"))
        assert opened.context == context and hash(opened.context) == hash(context) and opened.context != ciphermq.Context()
        assert opened.sent_at is not None and opened.sent_at > 1.7e9
        if policy == "refuse":
            with pytest.raises(ciphermq.Misdirected):
                opener.open(sealed, delivered=ciphermq.Context("orders", "us.new"))
        else:
            assert opener.open(sealed, delivered=ciphermq.Context("orders", "us.new")).plaintext == b"x"
    assert repr(context) == "Context('orders', 'eu.new', 'text/plain')".replace("'", '"')


def test_only_what_was_meant_for_a_named_place_is_opened() -> None:
    private = ciphermq.PrivateKey.generate("x25519")
    sealer = ciphermq.Sealer(private.public_key())
    places = [ciphermq.Context("orders", "eu"), ciphermq.Context("orders", "us")]
    opener = ciphermq.Opener(private, only_for=places, on_misdirected="accept")
    sealed = sealer.seal("x", context=ciphermq.Context("orders", "us", "text/plain"))
    assert opener.open(sealed).text == opener.open(sealed, delivered=places[0]).text == "x"
    for context in (ciphermq.Context("refunds", "eu"), ciphermq.Context("orders", ""), None):
        sealed = sealer.seal("x", context=context) if context else sealer.seal("x")
        for delivered in (None, places[0]):
            with pytest.raises(ciphermq.Misdirected):
                opener.open(sealed, delivered=delivered)


def test_a_signed_message_is_taken_until_it_is_too_old() -> None:
    me, private, opener = signed_pair(max_age=3600)
    assert opener.open(ciphermq.Sealer(private.public_key(), identity=me).seal("x")).sender == me.kid
    # Sealed in 2025.
    vectors = Path(__file__).parents[2] / "tests" / "vectors" / "envelope-v1"
    signed = json.loads((vectors / "signed.json").read_text())
    key = json.loads((vectors / "keys.json").read_text())["keys"]["rsa2048"]["pkcs8"]
    senders = ciphermq.Senders()
    senders.add("alice", ciphermq.SenderKey.from_pem(signed["senders"]["ed25519-alice"]["spki"]))
    old = next(case for case in signed["envelopes"] if case["id"] == "session-0")["envelope"]
    receiver = ciphermq.PrivateKey.from_pem(key)
    assert ciphermq.Opener(receiver, senders=senders).open(old).plaintext
    with pytest.raises(ciphermq.Untrusted, match="longer ago"):
        ciphermq.Opener(receiver, senders=senders, max_age=86_400).open(old)
    with pytest.raises(TypeError, match="senders"):
        ciphermq.Opener(private, max_age=1)


def test_padding_hides_the_length_and_compression_shortens() -> None:
    private = ciphermq.PrivateKey.generate("x25519")
    opener = ciphermq.Opener(private)
    padded = ciphermq.Sealer(private.public_key(), padding="padme")
    lengths = {len(padded.seal(b"a" * size)) for size in range(900, 950)}
    assert len(lengths) <= 2 and opener.open(padded.seal(b"a\x80\0")).plaintext == b"a\x80\0"
    compressed = ciphermq.Sealer(private.public_key(), compression="zstd").seal("abc" * 10_000)
    assert len(compressed) < 5000 and opener.open(compressed).text == "abc" * 10_000
    for options in ({"padding": "some"}, {"compression": "gzip"}, {"suite": "3"}, {"suite": "2pq"}, {"messages": 0}):
        with pytest.raises(ValueError):
            ciphermq.Sealer(private.public_key(), **options)
    with pytest.raises(ValueError, match="suite 2"):
        ciphermq.Sealer(ciphermq.generate_keypair()[1], padding="padme")


def test_only_the_suites_that_are_named_are_taken() -> None:
    rsa, wing = ciphermq.PrivateKey.generate("rsa"), ciphermq.PrivateKey.generate("x-wing")
    opener = ciphermq.Opener([wing, rsa], suites=["2pq"])
    assert opener.open(ciphermq.seal("x", wing.public_key())).suite == "2pq"
    with pytest.raises(ciphermq.EnvelopeError, match="suite"):
        opener.open(ciphermq.seal("x", rsa.public_key()))


def test_parts_come_together_in_any_order() -> None:
    private = ciphermq.PrivateKey.generate("x25519")
    text = os.urandom(100_000)
    parts = ciphermq.Sealer(private.public_key()).seal_parts(text, 30_000, message_id="scan")
    opener, collector = ciphermq.Opener(private), ciphermq.PartCollector(messages=1)
    opened = [opener.open(part) for part in parts]
    assert [part.part for part in opened] == [(n, 4) for n in range(4)]
    assert [collector.add(part) for part in (opened[3], opened[1], opened[1], opened[0])] == [None] * 4
    other = ciphermq.Sealer(private.public_key()).seal_parts(b"ab", 1)
    with pytest.raises(ciphermq.NoRoom):
        collector.add(opener.open(other[0]))
    whole = collector.add(opened[2])
    assert whole is not None and (whole.plaintext, whole.message_id, whole.part) == (text, "scan", None)
    assert collector.incomplete == 0


def test_session_keys_are_reused_within_the_bounds_given() -> None:
    public = ciphermq.PrivateKey.generate("x25519").public_key()

    def keys(sealer: ciphermq.Sealer, count: int = 6) -> List[str]:
        return [json.loads(sealer.seal("x"))["enc_session_key"] for _ in range(count)]

    assert len(set(keys(ciphermq.Sealer(public)))) == 1
    assert len(set(keys(ciphermq.Sealer(public, messages=1)))) == 6
    assert len(set(keys(ciphermq.Sealer(public, messages=2)))) == 3
    sealer = ciphermq.Sealer(public)
    first = keys(sealer, 1)
    sealer.rotate()
    assert keys(sealer, 1) != first


def test_every_cryptographic_failure_looks_the_same_in_every_suite() -> None:
    me, private, _ = signed_pair()
    texts = set()
    for envelope in spoilt(ciphermq.Sealer(private.public_key(), identity=me).seal("secret")):
        with pytest.raises(ciphermq.DecryptError) as caught:
            ciphermq.Opener(private).open(envelope)
        texts.add(str(caught.value))
        assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert len(texts) == 1 and "secret" not in texts.pop()


def spoilt(envelope: str) -> List[str]:
    members = json.loads(envelope)
    flip = {"A": "B"}
    changed = []
    for member in ("enc_session_key", "ciphertext"):
        middle = len(members[member]) // 2
        value = members[member]
        changed.append(json.dumps({**members, member: value[:middle] + flip.get(value[middle], "A") + value[middle + 1:]}))
    other = json.loads(ciphermq.Sealer(ciphermq.PrivateKey.generate("x25519").public_key()).seal("x", message_id=members["message_id"]))
    return [*changed, json.dumps(other)]


def test_known_senders_survive_in_their_file(tmp_path: Path) -> None:
    me, path = ciphermq.Identity.generate(), tmp_path / "senders"
    ciphermq.Senders(path).add("billing", me.sender_key())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = ciphermq.Senders(path)
    assert again.name(me.kid) == "billing"
    again.remove(me.kid)
    assert ciphermq.Senders(path).name(me.kid) is None


def test_an_identity_survives_in_its_file(tmp_path: Path) -> None:
    me, path = ciphermq.Identity.generate(), tmp_path / "identity.pem"
    me.write_file(path, passphrase="correct horse")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ciphermq.Identity.from_file(path, passphrase="correct horse").kid == me.kid
    with pytest.raises(ciphermq.PassphraseError):
        ciphermq.Identity.from_file(path)
    with pytest.raises(FileExistsError):
        me.write_file(path)
    public = ciphermq.SenderKey.from_pem(me.sender_key().to_pem())
    assert public == me.sender_key() and public.kid == me.kid and len({public, me.sender_key()}) == 1


def test_a_pinned_name_takes_new_keys_and_no_others(tmp_path: Path) -> None:
    me, keys = ciphermq.Identity.generate(), [ciphermq.PrivateKey.generate("x-wing").public_key() for _ in range(2)]
    first = ciphermq.Announcement.sign("billing", keys[0], me)
    second = ciphermq.Announcement.sign("billing", keys[1], me, after=first)
    pins = ciphermq.Pins(tmp_path / "pins")
    pins.take("billing", [first])
    assert pins.recipient("billing").public_key() == keys[0] and pins.identity("billing") == me.kid
    pins.take("billing", [ciphermq.Announcement.from_bytes(second.to_bytes())])
    assert pins.recipient("billing").kid == keys[1].kid and pins.sender("billing") == me.sender_key()
    lie = ciphermq.Announcement.sign("billing", keys[0], ciphermq.Identity.generate(), after=second)
    with pytest.raises(ciphermq.KeyChanged):
        pins.take("billing", [lie])
    assert ciphermq.Pins(tmp_path / "pins").recipient("billing").kid == keys[1].kid
    strict = ciphermq.Pins(tmp_path / "strict", mode="strict")
    with pytest.raises(ciphermq.Untrusted):
        strict.take("billing", [first])
    strict.pin("billing", me.kid)
    strict.take("billing", [first])
    assert (first.seq, second.seq, second.client_id, second.kid) == (1, 2, "billing", keys[1].kid)
    changed = bytearray(first.to_bytes())
    changed[40] ^= 1
    with pytest.raises(ciphermq.CipherMQError):
        ciphermq.Announcement.from_bytes(bytes(changed))


@pytest.mark.parametrize(
    "work",
    [lambda sealer, opener: sealer.seal(bytes(8 << 20)), lambda sealer, opener: opener.open(opener.large)],
    ids=["seal", "open"],
)
def test_other_threads_run_meanwhile(work: Callable) -> None:
    private = ciphermq.PrivateKey.generate("x25519")
    sealer, opener = ciphermq.Sealer(private.public_key()), Opener(private)
    opener.large = sealer.seal(bytes(8 << 20))
    count, stop = [0], threading.Event()

    def run() -> None:
        while not stop.is_set():
            count[0] += 1

    thread = threading.Thread(target=run)
    thread.start()
    while count[0] == 0:
        pass
    before, rounds = count[0], 0
    while count[0] == before and rounds < 100:
        work(sealer, opener)
        rounds += 1
    stop.set()
    thread.join()
    assert count[0] > before


class Opener:
    """One with room for an attribute."""

    def __init__(self, private: ciphermq.PrivateKey) -> None:
        self.open = ciphermq.Opener(private).open
        self.large = ""
