"""Ctrl-C ends every wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ciphermq
import pytest
from ciphermq.testing import Broker

from conftest import Keys

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent with kill")

PROGRAM = """
import sys, time, ciphermq
port, key, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]
private = ciphermq.PrivateKey.from_file(key)
receiver = ciphermq.Receiver(port=port, private_key=private)
sender = ciphermq.Sender(port=port, public_key=private.public_key(), timeout=60)
receiver.subscribe()
sender.connect()
waits = {
    "receive": receiver.receive,
    "receive-timeout": lambda: receiver.receive(timeout=60),
    "fetch": lambda: receiver.fetch(5, wait=60),
    "iterate": lambda: next(receiver),
    "send": lambda: sender.send("x"),
    "send-many": lambda: sender.send_many(["x"]),
}
try:
    print("waiting", flush=True)
    if what.startswith("send"):
        sys.stdin.readline()  # until the broker is gone
        print("going", flush=True)
    waits[what]()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("what", ["receive", "receive-timeout", "fetch", "iterate", "send", "send-many"])
def test_ctrl_c_interrupts(ciphermq_broker: Broker, keys: Keys, tmp_path: Path, what: str) -> None:
    private_path, _ = ciphermq.write_keypair(tmp_path, keys[0])
    command = [sys.executable, "-c", PROGRAM, str(ciphermq_broker.port), str(private_path), what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin and program.stdout
        assert program.stdout.readline() == "waiting\n"
        if what.startswith("send"):
            ciphermq_broker.kill()
            program.stdin.write("\n")
            program.stdin.flush()
            assert program.stdout.readline() == "going\n"
        interrupted = time.monotonic()
        os.kill(program.pid, signal.SIGINT)
        assert program.stdout.readline() == "interrupted\n"
        assert time.monotonic() - interrupted < 5
        program.stdin.close()
        assert program.wait(20) == 0


def test_a_handler_that_does_not_raise_lets_the_wait_go_on(ciphermq_broker: Broker, keys: Keys) -> None:
    calls = []
    before = signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
    try:
        with ciphermq.Receiver(**ciphermq_broker.address, private_key=keys[0]) as receiver:
            receiver.subscribe()
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
            assert receiver.receive(timeout=0.5) is None
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(calls) >= 3


def test_an_interrupted_wait_loses_no_message(ciphermq_broker: Broker, keys: Keys) -> None:
    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with ciphermq.Sender(**ciphermq_broker.address, public_key=keys[1]) as sender:
            with ciphermq.Receiver(**ciphermq_broker.address, private_key=keys[0]) as receiver:
                for number in range(20):
                    receiver.subscribe()
                    signal.setitimer(signal.ITIMER_REAL, 0.001)
                    with pytest.raises(Stop):
                        receiver.receive(timeout=10)
                    sender.send(str(number))
                    message = receiver.receive(timeout=10)
                    assert message is not None and message.text == str(number)
                    message.ack()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
