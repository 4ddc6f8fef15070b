"""After a fork: connections made before say so at once, what is made after works. Sealing: test_fork_sealing.py."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import warnings
from pathlib import Path

import ciphermq
import pytest
from ciphermq import aio
from ciphermq.testing import Broker

from conftest import Keys, in_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

def test_objects_of_the_parent_raise_fork_error_in_the_child(ciphermq_broker: Broker, keys: Keys) -> None:
    address = ciphermq_broker.address
    with ciphermq.Sender(**address, public_key=keys[1]) as sender:
        with ciphermq.Receiver(**address, private_key=keys[0]) as receiver:
            sender.send("x")
            message = receiver.receive(timeout=10)
            assert message is not None

            def child() -> None:
                started = time.monotonic()
                for use in (
                    lambda: sender.send("y"),
                    lambda: sender.send_many(["y"]),
                    lambda: sender.pending,
                    sender.ping,
                    sender.close,
                    receiver.receive,
                    lambda: receiver.fetch(1, wait=0),
                    lambda: next(receiver),
                    message.ack,
                    lambda: message.envelope,
                    ciphermq_broker.stop,
                ):
                    with pytest.raises(ciphermq.ForkError, match="fork"):
                        use()
                assert message.text == "x", "what was opened before is there"
                assert time.monotonic() - started < 5

            in_child(child)
            message.ack()
            assert sender.send("the parent goes on")


def test_dropping_objects_of_the_parent_in_the_child_changes_nothing(ciphermq_broker: Broker, keys: Keys) -> None:
    held = {}
    address = ciphermq_broker.address
    held["sender"] = ciphermq.Sender(**address, public_key=keys[1])
    held["receiver"] = ciphermq.Receiver(**address, private_key=keys[0])
    held["sender"].send("x", message_id="kept")
    held["message"] = held["receiver"].receive(timeout=10)
    in_child(held.clear)
    held["message"].ack()
    assert held["sender"].status("kept")["copies"][0]["status"] == "Acknowledged"
    held["sender"].close()
    held["receiver"].close()


def test_a_child_makes_its_own(ciphermq_broker: Broker, keys: Keys) -> None:
    address = ciphermq_broker.address
    with ciphermq.Sender(**address, public_key=keys[1]) as sender:
        sender.send("from the parent")

        def child() -> None:
            with ciphermq.Sender(**address, public_key=keys[1]) as own:
                own.send("from the child")
            with ciphermq.Receiver(**address, private_key=keys[0]) as receiver:
                texts = set()
                while len(texts) < 2:
                    with next(receiver) as message:
                        texts.add(message.text)
                assert texts == {"from the parent", "from the child"}

        in_child(child)
        assert sender.list_queues()[0]["ready"] == 0


def test_a_child_can_fork_again(ciphermq_broker: Broker, keys: Keys) -> None:
    def grandchild() -> None:
        with ciphermq.Sender(**ciphermq_broker.address, public_key=keys[1]) as own:
            own.send("x")

    def child() -> None:
        grandchild()
        in_child(grandchild)

    in_child(child)


def test_a_fork_while_others_open_their_dedupe_files_keeps_no_child_from_its_own(keys: Keys, tmp_path: Path) -> None:
    stop = threading.Event()

    def open_and_close(path: Path) -> None:
        while not stop.is_set():
            try:
                ciphermq.Receiver(private_key=keys[0], dedupe=path).close()
            except ciphermq.CipherMQError as error:
                # A child that has not ended yet has what its parent had open.
                assert "in use by another process" in str(error)

    def child() -> None:
        ciphermq.Receiver(private_key=keys[0], dedupe=tmp_path / f"child-{os.getpid()}").close()

    threads = [threading.Thread(target=open_and_close, args=(tmp_path / f"{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            in_child(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_asyncio_objects_raise_fork_error_too(ciphermq_broker: Broker, keys: Keys) -> None:
    import asyncio

    sender = aio.Sender(**ciphermq_broker.address, public_key=keys[1])

    async def run() -> None:
        await sender.send("x")

    asyncio.run(run())

    def child() -> None:
        with pytest.raises(ciphermq.ForkError):
            asyncio.run(run())

    in_child(child)


def _work(port: int, public_pem: str, number: int) -> str:
    public = ciphermq.PublicKey.from_pem(public_pem)
    with ciphermq.Sender(port=port, public_key=public) as sender:
        return sender.send(f"{number}", message_id=f"from-{number}")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_multiprocessing_send(ciphermq_broker: Broker, keys: Keys, method: str) -> None:
    port = ciphermq_broker.port
    with ciphermq.Sender(port=port, public_key=keys[1]) as sender:
        sender.send("so that the parent has threads", message_id="parent")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            with multiprocessing.get_context(method).Pool(2) as pool:
                arguments = [(port, keys[1].to_pem(), number) for number in range(4)]
                ids = pool.starmap_async(_work, arguments).get(60)
        assert ids == [f"from-{number}" for number in range(4)]
        assert sender.list_queues()[0]["ready"] == 5
