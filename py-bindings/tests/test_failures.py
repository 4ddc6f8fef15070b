"""Whatever keeps a message from opening looks the same from outside: to the caller, and to the broker.

Each message that somebody changed goes through the real broker to a `Receiver`, whose lines to the broker are listened to.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import ciphermq
import pytest
from ciphermq import aio
from ciphermq.testing import Broker

from parties import KINDS, ME, OTHER, PLACE, STRANGER, opener, sealer

WAIT = 20.0
"""Seconds for what must come; only ever reached by a failing test."""

each_kind = pytest.mark.parametrize("kind", KINDS)

DEAD = "default_queue.dlq"

Members = Dict[str, Any]


# --- ways to spoil a message


def flip(text: str, at: int) -> str:
    data = bytearray(base64.b64decode(text))
    data[at] ^= 1
    return base64.b64encode(data).decode()


def cut(text: str, count: int) -> str:
    return base64.b64encode(base64.b64decode(text)[:-count]).decode()


def flipped(member: str, at: int) -> Callable[[Members], None]:
    return lambda members: members.update({member: flip(members[member], at)})


def flipped_in_x(member: str, at: int) -> Callable[[Members], None]:
    return lambda members: members["x"].update({member: flip(members["x"][member], at)})


def another_key(members: Members) -> None:
    header = base64.b64decode(members["hdr"])
    members["hdr"] = base64.b64encode(header.replace(b"default_key", b"another_key")).decode()


def claim_to_be_me(members: Members) -> None:
    """A message that a stranger has signed, under the name of somebody known."""
    if "x" in members:
        members["x"]["skid"] = ME.kid
        return
    strangers, mine = (base64.urlsafe_b64decode(kid[7:] + "=") for kid in (STRANGER.kid, ME.kid))
    header = base64.b64decode(members["hdr"])
    assert strangers in header
    members["hdr"] = base64.b64encode(header.replace(strangers, mine)).decode()


class Spoilt(NamedTuple):
    """How one message was made, and changed."""

    name: str
    spoil: Callable[[Members], None]
    seal: Callable[[str], ciphermq.Sealer] = sealer


def ways(kind: str) -> Iterator[Spoilt]:
    """All that somebody who carries a message, or makes one up, can do to it without breaking its form."""
    members = json.loads(sealer(kind).seal("text", context=PLACE))
    is_signed = "signed" in kind
    for member in ("enc_session_key", "ciphertext", *(("nonce", "tag") if kind.startswith("1") else ())):
        for at in (0, len(base64.b64decode(members[member])) // 2, -1):
            yield Spoilt(f"{member} flipped at {at}", flipped(member, at))
    yield Spoilt("ciphertext cut by a byte", lambda m: m.update(ciphertext=cut(m["ciphertext"], 1)))
    yield Spoilt("ciphertext of another message", lambda m: m.update(ciphertext=_other(kind)["ciphertext"]))
    yield Spoilt("session key of another message", lambda m: m.update(enc_session_key=_other(kind)["enc_session_key"]))
    yield Spoilt("for another key", lambda m: None, lambda kind: sealer(kind.replace(" for two", ""), OTHER))
    if "hdr" in members:
        for field, at in {"time": 10, "session": 26, "number": 34, "started": 42, "lifetime": 50, "recipient": -1}.items():
            yield Spoilt(f"{field} in the header flipped", flipped("hdr", at))
        yield Spoilt("routing key in the header changed", another_key)
        yield Spoilt("ciphertext cut to nothing", lambda m: m.update(ciphertext=""))
    if "for two" in kind:
        yield Spoilt("wraps exchanged", lambda m: m.update(enc_session_key=m["wraps"][0], wraps=[m["enc_session_key"]]))
    if is_signed:
        yield Spoilt("signed by a stranger as if by me", claim_to_be_me, lambda kind: sealer(kind, me=STRANGER))
        if "hdr" in members:
            yield Spoilt("signature flipped", flipped("sig", 0))
            yield Spoilt("signature of zeros", lambda m: m.update(sig=base64.b64encode(bytes(64)).decode()))
        else:
            for member in ("sig", "mac", "session"):
                yield Spoilt(f"{member} flipped", flipped_in_x(member, 5))
            yield Spoilt("number changed", lambda m: m["x"].update(seq=99))
            yield Spoilt("time changed", lambda m: m["x"].update(ts=m["x"]["ts"] + 1))
            yield Spoilt("place changed", lambda m: m["x"]["ctx"].update(routing_key="default_key2"))
            yield Spoilt("recipient changed", lambda m: m["x"].update(kid=OTHER["rsa"].kid))
            yield Spoilt("id changed", lambda m: m.update(message_id="n" + m["message_id"][1:]))


def _other(kind: str) -> Members:
    return json.loads(sealer(kind).seal("text", context=PLACE))


_count = iter(range(1000, 10_000))


def spoilt(kind: str, way: Spoilt) -> Tuple[str, str]:
    """An envelope changed in one way, and its id, which no other has."""
    members = json.loads(way.seal(kind).seal("text", context=PLACE, message_id=f"m-{next(_count)}"))
    way.spoil(members)
    return members["message_id"], json.dumps(members)


# --- what can be seen


class Tap:
    """Stands between a receiver and the broker, and writes down what the receiver says."""

    def __init__(self, broker: Broker) -> None:
        self.lines: List[str] = []
        self._broker = broker.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        client, _ = self._listener.accept()
        self._listener.close()
        with client, socket.create_connection(("127.0.0.1", self._broker)) as broker:
            for end in (client, broker):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._answers, args=(broker, client), daemon=True).start()
            with client.makefile("rb") as lines:
                for line in lines:
                    self.lines.append(line.decode().rstrip("\n"))
                    broker.sendall(line)

    def _answers(self, broker: socket.socket, client: socket.socket) -> None:
        try:
            while data := broker.recv(1 << 16):
                client.sendall(data)
        except OSError:
            pass  # The test is over.

    def said(self, message_id: str) -> List[str]:
        """Without what is another each time."""
        return [" ".join("<id>" if word == message_id else word for word in line.split()) for line in self.lines]


def told(error: ciphermq.CipherMQError) -> str:
    """All that a caller, a log or a traceback shows of an exception."""
    known = {name: type(value).__name__ for name, value in vars(error).items()}
    return f"{type(error).__name__} {error} {error.args} {known} {error.__cause__} {error.__context__}"


def behaviours(broker: Broker, kind: str, settle: str) -> Dict[str, str]:
    """All that is seen of a receiver that gets a message that does not open, settles it, and then gets a good one; for each way."""
    seen = {}
    tap = Tap(broker)
    options = {"on_undecryptable": "reject"} if settle == "by itself" else {}
    with ciphermq.Sender(**broker.address) as sender:
        with ciphermq.Receiver(port=tap.port, opener=opener(kind), **options) as receiver:
            receiver.subscribe()
            for way in ways(kind):
                message_id, envelope = spoilt(kind, way)
                before, rejected = len(tap.lines), receiver.rejected
                sender.publish(envelope)
                good = sender.publish(sealer(kind).seal("good", context=PLACE))
                told_first = [] if settle == "by itself" else failure(receiver, message_id, envelope, settle)
                message = receiver.receive(timeout=WAIT)
                assert message is not None and (message.message_id, message.text, message.attempt) == (good, "good", 1)
                message.ack()
                rows = {row["queue"]: (row["ready"], row["leased"], row["delayed"]) for row in sender.list_queues()}
                if DEAD in rows:
                    sender.purge(DEAD)
                lines = [line for line in tap.said(message_id)[before:] if good not in line]
                seen[f"{kind}: {way.name}"] = repr((told_first, lines, rows, receiver.rejected - rejected, receiver.duplicates))
    return seen


def failure(receiver: ciphermq.Receiver, message_id: str, envelope: str, settle: str) -> List[Any]:
    with pytest.raises(ciphermq.DecryptError) as caught:
        receiver.receive(timeout=WAIT)
    message = caught.value.message
    assert message is not None and (message.message_id, message.envelope) == (message_id, envelope)
    shown = [message.suite, message.sender, message.claimed_sender, message.context, message.sent_at, message.sequence]
    assert message_id not in str(caught.value) and shown == [None] * 6, "nothing that was not authenticated"
    with pytest.raises(ciphermq.DecryptError) as again:
        message.body
    getattr(message, settle)()
    return [told(caught.value), told(again.value), shown, message.attempt]


@pytest.mark.parametrize("settle", ["ack", "reject", "by itself"])
def test_all_cryptographic_failures_look_alike_to_the_caller_and_to_the_broker(ciphermq_broker: Broker, settle: str) -> None:
    seen: Dict[str, List[str]] = {}
    for kind in KINDS:
        for name, behaviour in behaviours(ciphermq_broker, kind, settle).items():
            seen.setdefault(behaviour, []).append(name)
    assert sum(map(len, seen.values())) > 180
    assert len(seen) == 1, {behaviour: names[:5] for behaviour, names in seen.items()}


@each_kind
def test_the_failure_comes_back_when_it_was_given_back(ciphermq_broker: Broker, kind: str) -> None:
    message_id, envelope = spoilt(kind, next(ways(kind)))
    with ciphermq.Sender(**ciphermq_broker.address) as sender:
        sender.publish(envelope)
    with ciphermq.Receiver(**ciphermq_broker.address, opener=opener(kind)) as receiver:
        texts: Set[str] = set()
        for attempt, settle in ((1, "release"), (1, "nack"), (2, "ack")):
            with pytest.raises(ciphermq.DecryptError) as caught:
                receiver.receive(timeout=WAIT)
            assert caught.value.message is not None and caught.value.message.attempt == attempt
            texts.add(told(caught.value))
            getattr(caught.value.message, settle)()
        assert len(texts) == 1
        assert receiver.receive(timeout=0.1) is None


def test_asyncio_tells_the_same(ciphermq_broker: Broker) -> None:
    async def run() -> Set[str]:
        texts = set()
        sender = aio.Sender(**ciphermq_broker.address)
        for kind in KINDS:
            for way in list(ways(kind))[::5]:
                await sender.publish(spoilt(kind, way)[1])
                async with aio.Receiver(**ciphermq_broker.address, opener=opener(kind)) as receiver:
                    with pytest.raises(ciphermq.DecryptError) as caught:
                        await receiver.receive(timeout=WAIT)
                    await caught.value.message.reject()
                    texts.add(told(caught.value).replace("AsyncMessage", "Message"))
        await sender.close()
        return texts

    (text,) = asyncio.run(run())
    message_id, envelope = spoilt("2x", next(ways("2x")))
    with ciphermq.Sender(**ciphermq_broker.address) as sender:
        sender.publish(envelope)
    with ciphermq.Receiver(**ciphermq_broker.address, opener=opener("2x")) as receiver:
        with pytest.raises(ciphermq.DecryptError) as caught:
            receiver.receive(timeout=WAIT)
        assert told(caught.value) == text
        caught.value.message.ack()


# --- what is told apart, because no key and no text of the message has to do with it


def refused(broker: Broker, envelope: str, opener: ciphermq.Opener, key: Optional[str] = None) -> ciphermq.CipherMQError:
    """What a receiver raises; the message goes away afterwards."""
    with ciphermq.Sender(**broker.address) as sender:
        if key:
            sender.bind("default_exchange", "default_queue", key)
        sender.publish(envelope, **({"routing_key": key} if key else {}))
    with ciphermq.Receiver(**broker.address, opener=opener) as receiver:
        with pytest.raises(ciphermq.CipherMQError) as caught:
            receiver.receive(timeout=WAIT)
        message = caught.value.message
        assert message.sender is None and message.context is None and "secret" not in told(caught.value)
        with pytest.raises(ciphermq.DecryptError):
            message.body
        message.reject()
        assert receiver.receive(timeout=0.1) is None
    return caught.value


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("1",)])
def test_a_message_for_another_place_is_misdirected_and_not_handed_over(ciphermq_broker: Broker, kind: str) -> None:
    texts = {
        told(refused(ciphermq_broker, sealer(kind).seal("secret", context=ciphermq.Context(exchange, key)), opener(kind)))
        for exchange, key in (("default_exchange", "another_key"), ("default_exchange", ""))
    }
    moved = refused(ciphermq_broker, sealer(kind).seal("secret", context=PLACE), opener(kind), key="another_key")
    assert isinstance(moved, ciphermq.Misdirected) and texts == {told(moved)}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "signed" in kind])
def test_a_sender_nobody_knows_is_untrusted_whether_it_signs_or_not(ciphermq_broker: Broker, kind: str) -> None:
    unsigned = "1" if kind.startswith("1") else kind.split()[0]
    for sealed in (sealer(kind, me=STRANGER), sealer(unsigned)):
        error = refused(ciphermq_broker, sealed.seal("secret", context=PLACE), opener(kind))
        assert isinstance(error, ciphermq.Untrusted)


@each_kind
def test_what_breaks_the_format_is_told_apart(ciphermq_broker: Broker, kind: str) -> None:
    members = json.loads(sealer(kind).seal("secret", context=PLACE))
    members["enc_session_key"] += "="
    assert isinstance(refused(ciphermq_broker, json.dumps(members), opener(kind)), ciphermq.EnvelopeError)


# --- replay


@each_kind
def test_a_replay_is_acknowledged_and_not_handed_over_again(ciphermq_broker: Broker, kind: str, tmp_path: Any) -> None:
    """Also one that whoever carries it has given another id, where the id is not part of what is authenticated."""
    envelope = sealer(kind).seal("once", context=PLACE)
    replays = [envelope]
    if kind == "1":
        replays.append(json.dumps({**json.loads(envelope), "message_id": "another"}))
    with ciphermq.Sender(**ciphermq_broker.address, timeout=WAIT) as sender:
        sender.declare_exchange("replayed")
        sender.bind("replayed", "default_queue", "default_key")
        sender.publish(envelope)
        # Another exchange: the broker itself takes the same id once for each.
        options: Dict[str, Any] = {"dedupe": tmp_path / "seen", "opener": opener(kind, on_misdirected="accept")}
        with ciphermq.Receiver(**ciphermq_broker.address, **options) as receiver:
            message = receiver.receive(timeout=WAIT)
            assert message is not None and message.text == "once"
            message.ack()
            for replay in replays:
                sender.publish(replay, exchange="replayed")
            sender.publish(sealer(kind).seal("after them", context=PLACE))
            message = receiver.receive(timeout=WAIT)
            assert message is not None and message.text == "after them" and receiver.duplicates == len(replays)
            message.ack()
        assert sender.list_queues()[0]["ready"] == 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "signed" in kind])
def test_without_a_memory_a_replay_of_a_signed_message_says_so(ciphermq_broker: Broker, kind: str) -> None:
    envelope = sealer(kind).seal("once", context=PLACE)
    with ciphermq.Sender(**ciphermq_broker.address) as sender:
        sender.declare_exchange("replayed")
        sender.bind("replayed", "default_queue", "default_key")
        sender.publish(envelope)
        sender.publish(envelope, exchange="replayed")
    accepting = opener(kind, on_misdirected="accept")
    with ciphermq.Receiver(**ciphermq_broker.address, opener=accepting) as receiver:
        orders = []
        for _ in range(2):
            with next(receiver) as message:
                orders.append(message.order)
    assert orders == ["first", "repeat"] and accepting.stats["repeated"] == 1
