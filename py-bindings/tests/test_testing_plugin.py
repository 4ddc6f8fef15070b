"""The fixture, as a user's tests meet it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import ciphermq
import pytest
from ciphermq.testing import Broker

from conftest import Keys

USERS_TEST = """
import ciphermq

def test_flow(ciphermq_broker):
    private, public = ciphermq.generate_keypair()
    with ciphermq.Sender(port=ciphermq_broker.port, public_key=public) as sender:
        sender.send("hello")
    with ciphermq.Receiver(ciphermq_broker.host, ciphermq_broker.port, private_key=private) as receiver:
        assert next(receiver).text == "hello"

def test_each_test_has_a_broker_of_its_own(ciphermq_broker):
    with ciphermq.Sender(port=ciphermq_broker.port) as sender:
        assert sender.stats()["published"] == 0

def test_what_is_confirmed_survives(ciphermq_durable_broker):
    with ciphermq.Sender(port=ciphermq_durable_broker.port, public_key=ciphermq.generate_keypair()[1]) as sender:
        sender.send("kept")
        ciphermq_durable_broker.kill()
        ciphermq_durable_broker.start()
        assert sender.list_queues()[0]["ready"] == 1
"""


def test_a_users_test_finds_the_fixture_by_itself(tmp_path: Path) -> None:
    (tmp_path / "test_users.py").write_text(USERS_TEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr


def test_it_speaks_the_text_protocol() -> None:
    with Broker() as broker, socket.create_connection((broker.host, broker.port), timeout=10) as line:
        line.sendall(b"declare_queue jobs\nnonsense\n")
        answer = line.makefile("rb")
        assert [answer.readline(), answer.readline()] == [b"Queue declared\n", b"Unknown command\n"]


def test_it_listens_on_loopback_only_on_a_free_port() -> None:
    with Broker() as one, Broker() as other:
        assert one.host == other.host == "127.0.0.1" and one.port != other.port
        assert one.address == {"host": "127.0.0.1", "port": one.port}


@pytest.mark.parametrize("end", [Broker.stop, Broker.kill])
def test_after_its_end_the_port_is_free_and_it_starts_again_there(keys: Keys, end) -> None:
    broker = Broker()
    port = broker.port
    with ciphermq.Sender(port=port, public_key=keys[1]) as sender:
        sender.send("forgotten")
        end(broker)
        end(broker)
        with pytest.raises(OSError):
            socket.create_connection((broker.host, port), timeout=10)
        broker.start()
        assert broker.port == port
        assert sender.send("kept by the new one")
        assert sender.list_queues()[0]["ready"] == 1
    broker.stop()


@pytest.mark.parametrize("end", [Broker.stop, Broker.kill])
def test_with_a_directory_everything_is_there_again(keys: Keys, tmp_path: Path, end) -> None:
    private, public = keys
    with Broker(data_dir=tmp_path / "new" / "data") as broker:
        with ciphermq.Sender(**broker.address, public_key=public) as sender:
            sender.declare_queue("jobs", max_attempts=3)
            message_id = sender.send("kept")
            end(broker)
            broker.start()
            assert sender.send("kept", message_id=message_id) == message_id
            assert {row["queue"]: row["ready"] for row in sender.list_queues()} == {"default_queue": 1, "jobs": 0}
        with ciphermq.Receiver(**broker.address, private_key=private) as receiver:
            assert next(receiver).text == "kept"


def test_two_brokers_cannot_share_a_directory(tmp_path: Path) -> None:
    with Broker(data_dir=tmp_path):
        with pytest.raises(OSError, match="in use"):
            Broker(data_dir=tmp_path)
    Broker(data_dir=tmp_path).stop()


def test_a_port_that_is_taken_is_an_os_error() -> None:
    with Broker() as broker:
        with pytest.raises(OSError, match="in use"):
            Broker(port=broker.port)


def test_lease_and_attempts_are_those_of_queues_that_do_not_say(keys: Keys) -> None:
    with Broker(lease=12.5, max_attempts=2) as broker, ciphermq.Sender(**broker.address) as sender:
        [queue] = sender.list_queues()
        assert (queue["lease"], queue["max_attempts"]) == (12.5, 2)


def test_it_can_be_made_without_pytest() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "from ciphermq.testing import Broker\n"
        "with Broker() as broker: print(broker.port > 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr
