"""What goes wrong, and what it is called."""

from __future__ import annotations

import logging
import pickle
import socket
import subprocess
import sys
import threading
import time
from typing import Callable, Iterator, List, Optional, Type

import ciphermq
import pytest
from ciphermq.testing import Broker

from conftest import Keys, eventually

HELLO = b"Hello 1 server=fake/1 session=%032x lease=30000 max_line=1048576 max_pending=1024 max_prefetch=65535\n" % 7


class FakeBroker:
    """Answers each line with what `answer` makes of it, or not at all."""

    def __init__(self, answer: Callable[[bytes], Optional[bytes]]) -> None:
        self._answer = answer
        self.lines: List[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                self.lines.append(line)
                reply = self._answer(line)
                if reply:
                    connection.sendall(reply)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def silent() -> Iterator[FakeBroker]:
    """Says hello and nothing more."""
    broker = FakeBroker(lambda line: HELLO if line.startswith(b"hello") else None)
    yield broker
    broker.close()


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (ciphermq.ConnectionLost, ConnectionError),
        (ciphermq.Timeout, TimeoutError),
        (ciphermq.OutcomeUnknown, ciphermq.Timeout),
        (ciphermq.Full, ciphermq.Refused),
        (ciphermq.DecryptError, ValueError),
        (ciphermq.EnvelopeError, ValueError),
        (ciphermq.KeyFormatError, ValueError),
        (ciphermq.ForkError, RuntimeError),
    ],
)
def test_errors_are_also_what_python_calls_them(error: Type[Exception], parent: Type[Exception]) -> None:
    assert issubclass(error, parent) and issubclass(error, ciphermq.CipherMQError)
    assert str(error("what to do next")) == "what to do next"


def test_every_error_has_the_root() -> None:
    for name in ciphermq.errors.__all__:
        assert issubclass(getattr(ciphermq.errors, name), ciphermq.CipherMQError)
        assert getattr(ciphermq, name) is getattr(ciphermq.errors, name)


def test_errors_can_be_pickled_with_what_they_carry(ciphermq_broker: Broker, keys: Keys) -> None:
    with ciphermq.Sender(**ciphermq_broker.address, public_key=keys[1]) as sender:
        with pytest.raises(ciphermq.Refused) as caught:
            sender.send("x", routing_key="nobody", message_id="lost")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.code, again.message_id) == (ciphermq.Refused, "NO_ROUTE", "lost")
    assert "nobody" in str(again)


def test_no_broker_is_connection_lost_at_once(keys: Keys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(ciphermq.ConnectionLost, match="ciphermq serve"):
        with ciphermq.Sender(port=port, public_key=keys[1]):
            pytest.fail("there is no broker")
    with pytest.raises(ConnectionError):
        ciphermq.Receiver(port=port, private_key=keys[0]).receive()


def test_what_answers_and_is_no_broker_is_named(keys: Keys) -> None:
    other = FakeBroker(lambda line: b"HTTP/1.1 400 Bad Request\n")
    with pytest.raises((ciphermq.ProtocolError, ciphermq.ConnectionLost)):
        ciphermq.Sender(port=other.port, public_key=keys[1], timeout=2).connect()
    other.close()


def test_no_answer_is_outcome_unknown_after_all_attempts(silent: FakeBroker, keys: Keys) -> None:
    sender = ciphermq.Sender(port=silent.port, public_key=keys[1], timeout=0.1, attempts=3)
    started = time.monotonic()
    with pytest.raises(ciphermq.OutcomeUnknown) as caught:
        sender.send("x", message_id="again")
    assert 0.3 <= time.monotonic() - started < 10
    assert caught.value.message_id == "again" and sender.pending == 0
    published = [line for line in silent.lines if line.startswith(b"publish ")]
    assert len(published) >= 3 and len(set(published)) == 1, "the same envelope each time"


def test_no_answer_to_a_question_is_a_timeout(silent: FakeBroker, keys: Keys) -> None:
    sender = ciphermq.Sender(port=silent.port, public_key=keys[1], timeout=0.1)
    with pytest.raises(TimeoutError):
        sender.ping()


def test_send_many_without_an_answer_names_nothing_as_confirmed(silent: FakeBroker, keys: Keys) -> None:
    sender = ciphermq.Sender(port=silent.port, public_key=keys[1], timeout=0.1, attempts=1)
    with pytest.raises(ciphermq.OutcomeUnknown) as caught:
        sender.send_many(["a", "b"])
    assert list(caught.value.confirmed) == [] and sender.pending == 0


def test_a_longer_time_for_one_call_is_taken(silent: FakeBroker, keys: Keys) -> None:
    sender = ciphermq.Sender(port=silent.port, public_key=keys[1], timeout=0.05, attempts=1)
    started = time.monotonic()
    with pytest.raises(ciphermq.OutcomeUnknown):
        sender.send("x", timeout=0.4)
    assert time.monotonic() - started >= 0.4


def test_refusals_carry_the_brokers_code(ciphermq_broker: Broker, keys: Keys) -> None:
    with ciphermq.Sender(**ciphermq_broker.address, public_key=keys[1]) as sender:
        sender.declare_queue("q", max_attempts=3)
        refused = {
            "NO_ROUTE": lambda: sender.send("x", routing_key="nobody"),
            "NOT_FOUND": lambda: sender.purge("unknown"),
            "CONFLICT": lambda: sender.declare_queue("q", max_attempts=4),
        }
        for code, ask in refused.items():
            with pytest.raises(ciphermq.Refused) as caught:
                ask()
            assert caught.value.code == code
    with ciphermq.Receiver(**ciphermq_broker.address, private_key=keys[0], queue="unknown") as receiver:
        with pytest.raises(ciphermq.Refused, match="unknown"):
            receiver.receive(timeout=1)


def test_a_full_queue_is_full(ciphermq_broker: Broker, keys: Keys) -> None:
    with ciphermq.Sender(**ciphermq_broker.address, public_key=keys[1], routing_key="small") as sender:
        sender.declare_queue("small", max_messages=1)
        sender.bind("default_exchange", "small", "small")
        sender.send("fits")
        with pytest.raises(ciphermq.Full) as caught:
            sender.send("does not")
        assert caught.value.code == "QUEUE_FULL"


def test_a_message_longer_than_a_line_is_refused_before_it_is_sent(ciphermq_broker: Broker, keys: Keys) -> None:
    with ciphermq.Sender(**ciphermq_broker.address, public_key=keys[1]) as sender:
        with pytest.raises(ciphermq.EnvelopeError, match="limit"):
            sender.send(b"x" * (2 << 20))
        assert sender.send("x")


def test_a_deleted_queue_ends_the_wait(ciphermq_broker: Broker, keys: Keys) -> None:
    with ciphermq.Sender(**ciphermq_broker.address) as admin:
        admin.declare_queue("short")
        with ciphermq.Receiver(**ciphermq_broker.address, private_key=keys[0], queue="short") as receiver:
            receiver.subscribe()
            admin.delete_queue("short")
            with pytest.raises(ciphermq.Refused):
                receiver.receive(timeout=10)


def test_after_close_every_call_is_closed(ciphermq_broker: Broker, keys: Keys) -> None:
    sender = ciphermq.Sender(**ciphermq_broker.address, public_key=keys[1])
    sender.send("x")
    sender.close()
    sender.close()
    assert sender.closed
    for call in (lambda: sender.send("x"), lambda: sender.send_many(["x"]), sender.ping, sender.connect):
        with pytest.raises(ciphermq.Closed):
            call()


def test_arguments_out_of_range_are_value_errors(keys: Keys) -> None:
    for wrong in (
        lambda: ciphermq.Sender(timeout=-1),
        lambda: ciphermq.Sender(timeout=float("nan")),
        lambda: ciphermq.Sender(timeout=0).connect(),
        lambda: ciphermq.Sender(public_key=keys[1], attempts=0).send("x"),
        lambda: ciphermq.Receiver(private_key=keys[0], dedupe=False),
        lambda: ciphermq.Receiver(private_key=keys[0], on_undecryptable="ignore"),
    ):
        with pytest.raises(ValueError):
            wrong()
    with pytest.raises(OverflowError):
        ciphermq.Sender(port=70_000)
    with pytest.raises(TypeError, match="public_key"):
        ciphermq.Sender().send("x")


def test_names_that_could_break_a_line_are_refused(ciphermq_broker: Broker, keys: Keys) -> None:
    with ciphermq.Sender(**ciphermq_broker.address, public_key=keys[1]) as sender:
        for name in ("a b", "", "a\nquit", "x" * 256):
            with pytest.raises(ValueError):
                sender.declare_queue(name)
            with pytest.raises(ValueError):
                sender.send("x", routing_key=name)


def test_a_file_that_is_no_dedupe_file_is_left_alone(keys: Keys, tmp_path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes, which are long enough to be taken for something else " * 4)
    before = path.read_bytes()
    with pytest.raises(ciphermq.CipherMQError, match="notes.txt"):
        ciphermq.Receiver(private_key=keys[0], dedupe=path)
    assert path.read_bytes() == before


def test_a_restart_of_the_broker_is_survived_and_logged(
    ciphermq_broker: Broker, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    address = ciphermq_broker.address
    with caplog.at_level(logging.INFO, logger="ciphermq"):
        sender = ciphermq.Sender(**address, public_key=keys[1], timeout=30)
        receiver = ciphermq.Receiver(**address, private_key=keys[0], timeout=30)
        sender.connect()
        receiver.subscribe()
        ciphermq_broker.kill()
        eventually(lambda: not sender.connected)
        sent: List[str] = []
        thread = threading.Thread(target=lambda: sent.append(sender.send("sent while it was away")))
        thread.start()
        eventually(lambda: sender.pending == 1)
        ciphermq_broker.start()
        message = receiver.receive(timeout=30)
        thread.join(30)
        assert message is not None and message.text == "sent while it was away"
        assert sent == [message.message_id] and sender.reconnects == receiver.reconnects == 1
        message.ack()
        eventually(lambda: any("again" in record.getMessage() for record in caplog.records))
    assert any("lost" in record.getMessage() and record.levelno == logging.WARNING for record in caplog.records)
    assert all(record.name == "ciphermq" and "away" not in record.getMessage() for record in caplog.records)
    sender.close()
    receiver.close()


def test_the_package_installs_no_handlers() -> None:
    assert logging.getLogger("ciphermq").handlers == []
    assert logging.getLogger("ciphermq").level == logging.NOTSET


def test_a_message_settled_on_a_lost_connection_is_lease_lost(ciphermq_broker: Broker, keys: Keys) -> None:
    address = ciphermq_broker.address
    with ciphermq.Sender(**address, public_key=keys[1]) as sender:
        with ciphermq.Receiver(**address, private_key=keys[0]) as receiver:
            sender.send("x", message_id="m")
            message = receiver.receive(timeout=10)
            assert message is not None
            ciphermq_broker.restart()
            eventually(lambda: receiver.reconnects == 1 and receiver.connected)
            with pytest.raises(ciphermq.LeaseLost) as caught:
                message.ack()
            assert caught.value.message_id == "m"


LEFT_OPEN = """
import asyncio, sys, ciphermq
from ciphermq import aio
port, queue, private = int(sys.argv[1]), sys.argv[2], ciphermq.generate_keypair()[0]
sender = ciphermq.Sender(port=port, public_key=private.public_key(), routing_key=queue)
receiver = ciphermq.Receiver(port=port, private_key=private, queue=queue)
sender.declare_queue(queue)
sender.bind("default_exchange", queue, queue)
sender.send_many(str(n) for n in range(500))
message = receiver.receive(timeout=10)

async def leave():
    global waiting
    other = aio.Receiver(port=port, private_key=private, queue=queue)
    await other.subscribe()
    waiting = asyncio.ensure_future(other.receive())
    await asyncio.sleep(0)

asyncio.run(leave())
print("leaving", flush=True)
"""


def test_a_program_that_closes_nothing_ends_cleanly(ciphermq_broker: Broker) -> None:
    for queue in ("q1", "q2", "q3", "q4", "q5", "q6"):
        command = [sys.executable, "-c", LEFT_OPEN, str(ciphermq_broker.port), queue]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


def test_other_threads_run_while_one_waits(ciphermq_broker: Broker, keys: Keys) -> None:
    with ciphermq.Receiver(**ciphermq_broker.address, private_key=keys[0]) as receiver:
        receiver.subscribe()
        waiting = threading.Thread(target=lambda: receiver.receive(timeout=0.3))
        waiting.start()
        turns = 0
        while waiting.is_alive():
            turns += 1
        assert turns > 1000
