"""Messages larger than a line, through the real broker: whole, once, or not at all. And files in constant memory."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Callable, List

import ciphermq
import pytest
from ciphermq import aio
from ciphermq.testing import Broker

from conftest import eventually

EXCHANGE = ("default_exchange", "default_key")


@pytest.fixture(scope="module")
def key() -> ciphermq.PrivateKey:
    return ciphermq.PrivateKey.generate("x25519")


def counts(broker: Broker) -> List[int]:
    with ciphermq.Sender(**broker.address) as sender:
        queue = next(queue for queue in sender.list_queues() if queue["queue"] == "default_queue")
        return [queue["ready"], queue["leased"], queue["delayed"]]


def publish_parts(broker: Broker, parts: List[str]) -> None:
    with ciphermq.Sender(**broker.address) as sender:
        for part in parts:
            sender.publish(part)


def parts_of(key: ciphermq.PrivateKey, text: bytes, part_bytes: int, message_id: str = "scan") -> List[str]:
    return ciphermq.Sealer(key.public_key()).seal_parts(
        text, part_bytes, context=ciphermq.Context(*EXCHANGE), message_id=message_id)


def test_a_file_larger_than_a_line_arrives_whole(ciphermq_broker: Broker, key: ciphermq.PrivateKey, tmp_path: Path) -> None:
    text = os.urandom((3 << 20) + 5)
    (tmp_path / "scan").write_bytes(text)
    with ciphermq.Sender(**ciphermq_broker.address, public_key=key.public_key()) as sender:
        assert sender.send_file(tmp_path / "scan", message_id="scan-7") == "scan-7"
        sender.send("short")
    with ciphermq.Receiver(**ciphermq_broker.address, private_key=key, prefetch=3) as receiver:
        message = receiver.receive(timeout=20)
        assert message is not None and (message.message_id, message.size) == ("scan-7", len(text))
        assert message.body == text and message.reader().read() == text and message.order == "untracked"
        assert counts(ciphermq_broker)[1] == 50, "all parts and the short one are leased"
        message.touch()
        message.ack()
        short = receiver.receive(timeout=20)
        assert short is not None and (short.text, short.size, short.reader().read(2)) == ("short", 5, b"sh")
        short.ack()
    assert counts(ciphermq_broker) == [0, 0, 0]


def test_a_spooled_message_is_read_a_piece_at_a_time_and_leaves_no_file(
    ciphermq_broker: Broker, key: ciphermq.PrivateKey, tmp_path: Path
) -> None:
    text, spool = os.urandom(1 << 20), tmp_path / "spool"
    spool.mkdir()
    with ciphermq.Sender(**ciphermq_broker.address, public_key=key.public_key()) as sender:
        sender.send_large(text)
    with ciphermq.Receiver(**ciphermq_broker.address, private_key=key, spool=spool) as receiver:
        with next(receiver) as message:
            with message.reader() as source, open(tmp_path / "copy", "wb") as target:
                shutil.copyfileobj(source, target)
            assert message.body == text and message.size == len(text)
    assert (tmp_path / "copy").read_bytes() == text and list(spool.iterdir()) == []
    assert counts(ciphermq_broker) == [0, 0, 0]


def test_parts_of_two_messages_between_each_other_are_kept_apart(ciphermq_broker: Broker, key: ciphermq.PrivateKey) -> None:
    texts = {name: os.urandom(60_000) for name in ("a", "b", "c")}
    sealed = [parts_of(key, text, 10_000, name) for name, text in texts.items()]
    for room in (16, 1):
        publish_parts(ciphermq_broker, [part for group in zip(*sealed) for part in reversed(group)])
        with ciphermq.Receiver(**ciphermq_broker.address, private_key=key, prefetch=2, parts_messages=room) as receiver:
            received = {}
            while len(received) < 3:
                with next(receiver) as message:
                    assert message.attempt == 1
                    received[message.message_id] = message.body
            assert received == texts
        sealed = [parts_of(key, text, 10_000, name) for name, text in texts.items()]
    assert counts(ciphermq_broker) == [0, 0, 0]


def test_a_missing_part_is_told_with_its_numbers(ciphermq_broker: Broker, key: ciphermq.PrivateKey) -> None:
    publish_parts(ciphermq_broker, [part for n, part in enumerate(parts_of(key, bytes(5000), 1000)) if n not in (1, 2)])
    with ciphermq.Receiver(**ciphermq_broker.address, private_key=key, parts_timeout=0.3) as receiver:
        with pytest.raises(ciphermq.Incomplete, match="scan is incomplete: 2 of its 5 parts") as caught:
            receiver.receive(timeout=20)
        assert (caught.value.message_id, caught.value.missing, caught.value.count) == ("scan", 2, 5)
        assert counts(ciphermq_broker) == [0, 0, 3], "they come again later, with an attempt used up"


def test_what_stays_incomplete_is_put_away_where_that_is_wanted(ciphermq_broker: Broker, key: ciphermq.PrivateKey) -> None:
    publish_parts(ciphermq_broker, parts_of(key, bytes(5000), 1000)[:2])
    with ciphermq.Receiver(
        **ciphermq_broker.address, private_key=key, parts_timeout=0.2, on_undecryptable="reject"
    ) as receiver:
        assert receiver.receive(timeout=1) is None and receiver.rejected == 1
    with ciphermq.Receiver(**ciphermq_broker.address, private_key=key, queue="default_queue.dlq") as receiver:
        assert receiver.receive(timeout=0.2) is None
    assert counts(ciphermq_broker) == [0, 0, 0]


def test_an_altered_part_is_told_and_makes_nothing_whole(ciphermq_broker: Broker, key: ciphermq.PrivateKey) -> None:
    parts = parts_of(key, os.urandom(30_000), 10_000)
    middle = len(parts[1]) // 2
    parts[1] = parts[1][:middle] + ("B" if parts[1][middle] == "A" else "A") + parts[1][middle + 1:]
    publish_parts(ciphermq_broker, parts)
    with ciphermq.Receiver(**ciphermq_broker.address, private_key=key, parts_timeout=0.5) as receiver:
        with pytest.raises(ciphermq.DecryptError) as caught:
            receiver.receive(timeout=20)
        caught.value.message.reject()
        with pytest.raises(ciphermq.Incomplete):
            receiver.receive(timeout=20)


def test_a_message_over_the_bounds_is_told_with_the_part(ciphermq_broker: Broker, key: ciphermq.PrivateKey) -> None:
    publish_parts(ciphermq_broker, parts_of(key, bytes(5000), 3000))
    with ciphermq.Receiver(**ciphermq_broker.address, private_key=key, parts_bytes=4000) as receiver:
        for _ in range(2):
            with pytest.raises(ciphermq.EnvelopeError, match="5000 bytes") as caught:
                receiver.receive(timeout=20)
            assert "ciphertext" in caught.value.message.envelope
            caught.value.message.reject()
    assert counts(ciphermq_broker) == [0, 0, 0]


def test_a_sender_that_was_cut_off_sends_again_with_the_same_id(ciphermq_broker: Broker, key: ciphermq.PrivateKey) -> None:
    text = os.urandom(300_000)
    publish_parts(ciphermq_broker, parts_of(key, text, 65_536)[:3])
    with ciphermq.Sender(**ciphermq_broker.address, public_key=key.public_key()) as sender:
        sender.send_large(text, message_id="scan")
    with ciphermq.Receiver(**ciphermq_broker.address, private_key=key) as receiver:
        with next(receiver) as message:
            assert (message.message_id, message.body) == ("scan", text)


def test_dedupe_knows_a_large_message_in_parts_and_whole(
    ciphermq_broker: Broker, key: ciphermq.PrivateKey, tmp_path: Path
) -> None:
    text, address = os.urandom(200_000), ciphermq_broker.address
    with ciphermq.Sender(**address, public_key=key.public_key()) as sender:
        sender.send_large(text, message_id="scan")
        with ciphermq.Receiver(**address, private_key=key, dedupe=tmp_path / "seen") as receiver:
            next(receiver).nack()
            next(receiver).release()
            del receiver
        with ciphermq.Receiver(**address, private_key=key, dedupe=tmp_path / "seen") as receiver:
            next(receiver).ack()
        sender.send_large(text, message_id="scan")
        sender.send("last")
        with ciphermq.Receiver(**address, private_key=key, dedupe=tmp_path / "seen") as receiver:
            with next(receiver) as last:
                assert last.text == "last" and receiver.duplicates == 4
    eventually(lambda: counts(ciphermq_broker) == [0, 0, 0])


@pytest.mark.parametrize("dedupe", [None, True])
def test_a_lost_connection_is_made_up_for(tmp_path: Path, key: ciphermq.PrivateKey, dedupe: object) -> None:
    parts, text = [], os.urandom(50_000)
    with Broker(data_dir=tmp_path) as broker:
        parts = parts_of(key, text, 10_000)
        publish_parts(broker, parts[:3])
        with ciphermq.Receiver(**broker.address, private_key=key, dedupe=dedupe, timeout=20) as receiver:
            assert receiver.receive(timeout=0.3) is None
            assert counts(broker) == [0, 3, 0]
            broker.stop()
            broker.start()
            publish_parts(broker, parts[3:])
            message = receiver.receive(timeout=20)
            assert message is not None and message.body == text and receiver.reconnects >= 1
            message.ack()
        eventually(lambda: counts(broker) == [0, 0, 0])


KILLED = """
import sys, ciphermq
key = ciphermq.PrivateKey.from_file(sys.argv[3])
receiver = ciphermq.Receiver(sys.argv[1], int(sys.argv[2]), private_key=key, spool=sys.argv[4])
assert receiver.receive(timeout=0.5) is None
print("half", flush=True)
message = receiver.receive()
print("whole", message.size, flush=True)
receiver.receive()
"""


def test_what_a_killed_process_had_comes_whole_to_the_next(
    ciphermq_broker: Broker, key: ciphermq.PrivateKey, tmp_path: Path
) -> None:
    text, spool = os.urandom(300_000), tmp_path / "spool"
    spool.mkdir()
    path, _ = ciphermq.write_keypair(tmp_path, key)
    parts, address = parts_of(key, text, 65_536), ciphermq_broker.address
    for has_all in (False, True):
        publish_parts(ciphermq_broker, parts[3:] if has_all else parts[:3])
        arguments = [address["host"], str(address["port"]), str(path), str(spool)]
        process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if has_all:
            # All of it is there already, so nothing is missing after half a second.
            process.wait(timeout=30)
            assert process.returncode == 1
        else:
            assert process.stdout.readline() == "half\n"
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=30)
        process.stdout.close()
        assert list(spool.iterdir()) == [], "nothing is left of it"
        eventually(lambda: counts(ciphermq_broker) == [5 if has_all else 3, 0, 0])
    with ciphermq.Receiver(**address, private_key=key) as receiver:
        with next(receiver) as message:
            assert message.body == text


def test_a_large_message_is_signed_and_has_its_place(ciphermq_broker: Broker, key: ciphermq.PrivateKey) -> None:
    me, senders = ciphermq.Identity.generate(), ciphermq.Senders()
    senders.add("me", me.sender_key())
    with ciphermq.Sender(**ciphermq_broker.address, recipients=key.public_key(), identity=me, compression="zstd") as sender:
        sender.send("one")
        sender.send_large(b"two" * 100_000)
        sender.send("three")
    with ciphermq.Receiver(**ciphermq_broker.address, private_key=key, senders=senders) as receiver:
        for expected in ("first", "next", "next"):
            with next(receiver) as message:
                assert (message.order, message.sender) == (expected, me.kid)


def test_what_cannot_be_sent_large_is_told(
    ciphermq_broker: Broker, key: ciphermq.PrivateKey, tmp_path: Path
) -> None:
    with ciphermq.Sender(**ciphermq_broker.address, public_key=ciphermq.generate_keypair()[1]) as sender:
        with pytest.raises(ValueError, match="suite 2"):
            sender.send_large(b"x")
    with ciphermq.Sender(**ciphermq_broker.address, public_key=key.public_key()) as sender:
        with pytest.raises(FileNotFoundError):
            sender.send_file(tmp_path / "absent")
        with open(tmp_path / "changing", "w+b") as file:
            file.write(bytes(1000))
            file.seek(0)
            growing = Growing(file)
            with pytest.raises(ValueError, match="longer"):
                sender.send_large(growing)
    assert counts(ciphermq_broker) == [0, 0, 0]


class Growing:
    """A file that somebody else writes to."""

    def __init__(self, file: object) -> None:
        self.tell, self.seek, self._file = file.tell, file.seek, file

    def read(self, size: int) -> bytes:
        here = self._file.tell()
        self._file.seek(0, 2)
        self._file.write(b"more")
        self._file.seek(here)
        return self._file.read(size)


def test_the_same_with_asyncio(ciphermq_broker: Broker, key: ciphermq.PrivateKey, tmp_path: Path) -> None:
    text = os.urandom(1 << 20)
    (tmp_path / "scan").write_bytes(text)

    async def talk() -> None:
        async with aio.Sender(**ciphermq_broker.address, public_key=key.public_key()) as sender:
            assert await sender.send_file(tmp_path / "scan", message_id="scan") == "scan"
            await sender.send_large(text)
        async with aio.Receiver(**ciphermq_broker.address, private_key=key, spool=tmp_path) as receiver:
            for _ in range(2):
                message = await receiver.receive(20)
                assert message is not None and message.reader().read() == text
                await message.ack()

    asyncio.run(talk())
    assert counts(ciphermq_broker) == [0, 0, 0]


def test_files_are_sealed_and_opened_whole_or_not_at_all(key: ciphermq.PrivateKey, tmp_path: Path) -> None:
    plain, sealed, opened = (tmp_path / name for name in ("plain", "sealed", "opened"))
    text = os.urandom(1 << 20)
    plain.write_bytes(text)
    context = ciphermq.Context("scans", "eu")
    assert ciphermq.Sealer(key.public_key(), padding="padme").seal_file(plain, str(sealed), context=context, message_id="m") == "m"
    opener = ciphermq.Opener(key)
    message = opener.open_file(sealed, opened, delivered=context)
    assert (message.message_id, message.context, message.plaintext) == ("m", context, b"")
    assert opened.read_bytes() == text and opener.open(sealed.read_text()).plaintext == text
    assert stat.S_IMODE(sealed.stat().st_mode) == stat.S_IMODE(opened.stat().st_mode) == 0o600
    damaged = bytearray(sealed.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    sealed.write_bytes(damaged)
    with pytest.raises((ciphermq.DecryptError, ciphermq.EnvelopeError)):
        opener.open_file(sealed, opened)
    with pytest.raises(ciphermq.Misdirected):
        ciphermq.Sealer(key.public_key()).seal_file(plain, sealed, context=context)
        opener.open_file(sealed, opened, delivered=ciphermq.Context("scans", "us"))
    with pytest.raises(FileNotFoundError):
        opener.open_file(tmp_path / "absent", opened)
    assert opened.read_bytes() == text and sorted(tmp_path.iterdir()) == [opened, plain, sealed]


MEMORY = """
import resource, sys, ciphermq
key = ciphermq.PrivateKey.from_file(sys.argv[1])
sealer, opener = ciphermq.Sealer(key.public_key()), ciphermq.Opener(key)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sealer.seal_file(sys.argv[2], sys.argv[2] + ".sealed")
opener.open_file(sys.argv[2] + ".sealed", sys.argv[2] + ".opened")
before = peak()
sealer.seal_file(sys.argv[3], sys.argv[3] + ".sealed")
opener.open_file(sys.argv[3] + ".sealed", sys.argv[3] + ".opened")
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is that of Linux")
def test_files_take_no_memory_for_their_length(key: ciphermq.PrivateKey, tmp_path: Path) -> None:
    path, _ = ciphermq.write_keypair(tmp_path, key)
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(os.urandom(100_000))
    large.write_bytes(os.urandom(32 << 20))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path), str(small), str(large)], capture_output=True, text=True, check=True)
    assert large.read_bytes() == (tmp_path / "large.opened").read_bytes()
    assert int(done.stdout) <= 1024, f"{done.stdout} KiB"


THROUGH = """
import resource, sys, ciphermq
key = ciphermq.PrivateKey.from_file(sys.argv[3])
address = {"host": sys.argv[1], "port": int(sys.argv[2])}
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def send_and_receive(path):
    with ciphermq.Sender(**address, public_key=key.public_key(), timeout=60) as sender:
        sender.send_file(path)
    with ciphermq.Receiver(**address, private_key=key, spool=sys.argv[4], prefetch=16, timeout=60) as receiver:
        with next(receiver) as message, message.reader() as source, open(path + ".received", "wb") as target:
            while piece := source.read(65536):
                target.write(piece)
send_and_receive(sys.argv[5])
before = peak()
send_and_receive(sys.argv[6])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is that of Linux")
def test_a_large_message_takes_no_memory_for_its_length(
    ciphermq_broker: Broker, key: ciphermq.PrivateKey, tmp_path: Path
) -> None:
    path, _ = ciphermq.write_keypair(tmp_path, key)
    small, large, spool = tmp_path / "small", tmp_path / "large", tmp_path / "spool"
    spool.mkdir()
    small.write_bytes(os.urandom(10 << 20))
    large.write_bytes(os.urandom(64 << 20))
    address = ciphermq_broker.address
    arguments = [address["host"], str(address["port"]), *map(str, (path, spool, small, large))]
    done = subprocess.run([sys.executable, "-c", THROUGH, *arguments], capture_output=True, text=True, check=True)
    assert large.read_bytes() == (tmp_path / "large.received").read_bytes()
    print(f"{done.stdout.strip()} KiB")
    assert int(done.stdout) <= 8192, f"{done.stdout} KiB"
