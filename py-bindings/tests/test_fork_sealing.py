"""What was sealed with before a fork is sealed with on both sides after it, in every suite: never under the same key and nonce,
never with the same number in the same stream. What sealing made is looked into by an implementation that is not ours."""

from __future__ import annotations

import base64
import functools
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List

import ciphermq
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from conftest import Child, in_child
from parties import KINDS, ME, PRIVATE, opener, private_of, sealer

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "vectors"))
import check  # noqa: E402

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

MESSAGES = 40
FORKS = 30
THREADS = 4


class Shared:
    """`ciphermq.seal`, which keeps its sealers to itself."""

    def __init__(self, kind: str) -> None:
        self._public = PRIVATE[kind].public_key()

    def seal(self, text: str) -> str:
        return ciphermq.seal(text, self._public)


WAYS: Dict[str, Callable[[], Any]] = {kind: lambda kind=kind: sealer(kind) for kind in KINDS}
WAYS.update({f"seal() {kind}": lambda kind=kind: Shared(kind) for kind in PRIVATE})


def opener_of(way: str) -> ciphermq.Opener:
    return opener(way) if way in KINDS else ciphermq.Opener(PRIVATE[way.split()[1]])


@functools.lru_cache(maxsize=None)
def key_of(way: str) -> Any:
    private = private_of(way) if way in KINDS else PRIVATE[way.split()[1]]
    return check.Key(private.to_pem().decode())


def look_into(way: str, envelope: str) -> Dict[str, Any]:
    """What nobody but a receiver sees: the key, what makes it new for each message, the number in its stream."""
    key = key_of(way)
    senders = dict([check.load_sender(ME.sender_key().to_pem())]) if "signed" in way else None
    opened = check.open_envelope(envelope, [key], senders, must_sign=senders is not None)
    members = json.loads(envelope)
    if opened["suite"] == "1":
        opened["content_key"] = key.unwrap(check.raw(members["enc_session_key"]), hashes.SHA1(), None)
        opened["fresh"] = check.raw(members["nonce"])
    else:
        opened["fresh"] = check.raw(members["ciphertext"])[:24]
    return opened


@pytest.mark.parametrize("way", WAYS)
def test_parent_child_and_grandchild_share_no_key_no_nonce_and_no_number(way: str, tmp_path: Path) -> None:
    sealing, opening = WAYS[way](), opener_of(way)

    def seal_many(name: str) -> List[str]:
        return [sealing.seal(f"{name} {number}") for number in range(MESSAGES)]

    def write(name: str, envelopes: List[str]) -> None:
        (tmp_path / name).write_text("\n".join(envelopes))

    before = seal_many("parent")
    for envelope in before[:-1]:
        assert opening.open(envelope).text.startswith("parent")

    def grandchild() -> None:
        envelopes = seal_many("grandchild")
        write("grandchild", envelopes)
        opens_what_was_sealed_before_and_now(envelopes)

    def child() -> None:
        # At once, and again after a fork of its own.
        first = seal_many("child")
        further = Child(grandchild)
        second = seal_many("child")
        write("child", first + second)
        opens_what_was_sealed_before_and_now(first)
        further.wait()

    def opens_what_was_sealed_before_and_now(own: List[str]) -> None:
        """By an opener of before the fork: what it had unwrapped, what it had not, and what is new."""
        for envelope in (before[0], before[-1], *own[:3]):
            opened = opening.open(envelope)
            assert opened.text and opened.sender == (ME.kid if "signed" in way else None)

    forked = Child(child)
    after = seal_many("parent")
    forked.wait()
    sealed = {name: (tmp_path / name).read_text().split("\n") for name in ("child", "grandchild")}
    sealed["parent"] = before + after
    assert_nothing_is_shared(way, sealed)
    assert_opens(opener_of(way), way, sealed)


def assert_nothing_is_shared(way: str, sealed: Dict[str, List[str]]) -> None:
    seen = {name: [look_into(way, envelope) for envelope in envelopes] for name, envelopes in sealed.items()}
    everything = [message for messages in seen.values() for message in messages]
    assert len(everything) == 5 * MESSAGES
    for unique in ("message_id", "fresh"):
        assert len({message[unique] for message in everything}) == len(everything), unique
    keys = {name: {message["content_key"] for message in messages} for name, messages in seen.items()}
    # Otherwise nothing could be shared by mistake: each process goes on with the session key that it has.
    assert [len(keys[name]) for name in ("parent", "child", "grandchild")] == [1, 1, 1]
    assert len(set.union(*keys.values())) == 3
    if "number" in everything[0]:
        assert len({(message["session"], message["number"]) for message in everything}) == len(everything)
        assert len({message["session"] for message in everything}) == 3, "a stream each"
        for name, messages in seen.items():
            assert [message["number"] for message in messages] == list(range(len(messages))), name


def assert_opens(opening: ciphermq.Opener, way: str, sealed: Dict[str, List[str]]) -> None:
    for name, envelopes in sealed.items():
        opened = [opening.open(envelope) for envelope in envelopes]
        assert all(message.text.startswith(name) for message in opened)
        if "signed" in way:
            assert [message.order for message in opened] == ["first"] + ["next"] * (len(opened) - 1)
    assert opening.stats["missing"] == opening.stats["repeated"] == opening.stats["late"] == 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("1")])
def test_messages_in_parts_are_of_another_key_on_each_side(kind: str, tmp_path: Path) -> None:
    sealing = sealer(kind)

    def parts(name: str) -> None:
        (tmp_path / name).write_text("\n".join(sealing.seal_parts(name.encode() * 100, 300)))

    parts("before")
    child = Child(lambda: parts("child"))
    parts("parent")
    child.wait()
    keys, files = set(), set()
    for name in ("before", "child", "parent"):
        opening, collector = opener(kind), ciphermq.PartCollector()
        envelopes = (tmp_path / name).read_text().split("\n")
        whole = [collector.add(opening.open(envelope)) for envelope in envelopes][-1]
        assert whole is not None and whole.plaintext == name.encode() * 100
        seen = [look_into(kind, envelope) for envelope in envelopes]
        keys |= {one["content_key"] for one in seen}
        files |= {one["part"][0] for one in seen}
    assert len(keys) == len(files) == 3


def test_an_identity_signs_on_both_sides() -> None:
    me, key = ciphermq.Identity.generate(), PRIVATE["x25519"].public_key()
    before = ciphermq.Announcement.sign("me", key, me)
    reader, writer = os.pipe()
    in_child(lambda: os.write(writer, ciphermq.Announcement.sign("me", key, me, after=before).to_bytes()))
    theirs = ciphermq.Announcement.from_bytes(os.read(reader, 1 << 16))
    assert (theirs.seq, theirs.identity) == (2, me.kid)
    public = load_pem_public_key(me.sender_key().to_pem().encode())
    data = theirs.to_bytes()
    public.verify(data[-64:], data[:-64])  # type: ignore[union-attr,call-arg]
    os.close(reader)
    os.close(writer)


def test_a_fork_while_a_keyset_changes_hangs_nobody(tmp_path: Path) -> None:
    """The child has the keyset, or is told that it has to make one of its own; in either case at once."""
    keys = ciphermq.Keyset.create(tmp_path / "keys", ciphermq.PrivateKey.generate("x25519"))
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            keys.rotate(ciphermq.PrivateKey.generate("x25519"))
            keys.prune(0)

    def child() -> None:
        try:
            envelope = ciphermq.seal("x", keys.public_key())
            assert ciphermq.Opener(keys).open(envelope).text == "x"
            assert keys.kids and len(keys) and repr(keys)
        except ciphermq.ForkError as error:
            assert "after the fork" in str(error)

    thread = threading.Thread(target=change)
    thread.start()
    for _ in range(FORKS):
        in_child(child)
    stop.set()
    thread.join()
    child()


@pytest.mark.parametrize("way", ["seal() rsa", "1 signed", "2x signed"])
def test_a_fork_in_the_middle_of_sealing_and_opening_hangs_nobody(way: str) -> None:
    """A fork copies locks as they are. With threads that seal and open all the time some are held in one fork of fifty; what
    happens then for certain is tested in cipher-client/src/crypto/process.rs."""
    sealing, opening = WAYS[way](), opener_of(way)
    known = [sealing.seal("x") for _ in range(20)]
    stop = threading.Event()
    failures = []

    def work() -> None:
        try:
            while not stop.is_set():
                for envelope in known:
                    opening.open(envelope)
                    sealing.seal("x")
        except BaseException as failure:
            failures.append(failure)

    def child() -> None:
        for envelope in (*known, *(sealing.seal("x") for _ in range(5))):
            opening.open(envelope)
        bad = json.loads(known[0])
        bad["ciphertext"] = base64.b64encode(bytes(100)).decode()
        for _ in range(3):
            with pytest.raises(ciphermq.DecryptError):
                opening.open(json.dumps(bad))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(FORKS):
            in_child(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    child()
