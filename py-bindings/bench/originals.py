"""One message at a time through the broker: the package beside the way of the original scripts.

    python bench/originals.py [--messages 300] [--bytes 1024]

The scripts are those of tests/legacy_clients, which do what the clients of CipherMQ 0.2.0 and 1.0.0 do: a message is sealed and sent
before the next one, and its answer awaited; a message is received, opened and acknowledged before the next one. They run against the same
broker, each in a process of its own, and say nothing (their printing is not what is measured).
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Callable

import ciphermq
from ciphermq.testing import Broker

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "tests" / "legacy_clients"
TARGET = 20

SEND = {
    "0.2.0": """
import sender_020
for _ in range(count):
    message = sender_020.encrypt(text)
    assert sender_020.send(port, message, {message["message_id"]: message})
""",
    "1.0.0": """
import asyncio, json, sender_100
async def send():
    with open("config.json") as file:
        config = json.load(file)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(count):
        assert await sender_100.send_batch(reader, writer, config, [sender_100.encrypt(text)])
asyncio.run(send())
""",
}


def original_send(version: str, port: int, directory: str, text: str, count: int) -> float:
    program = f"""
import os, sys, time
sys.path.insert(0, {str(SCRIPTS)!r})
port, count, text = {port}, {count}, {text!r}
told, sys.stdout = sys.stdout, open(os.devnull, "w")
start = time.perf_counter()
{SEND[version]}
print(count / (time.perf_counter() - start), file=told)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=directory, check=True, stdout=subprocess.PIPE, text=True)
    return float(run.stdout)


def original_receive(broker: Broker, directory: str, sender: ciphermq.Sender, count: int) -> float:
    """From the first acknowledgement to the last: the start of the script is not counted."""
    receiver = subprocess.Popen([sys.executable, str(SCRIPTS / "receiver_100.py")], cwd=directory, stdout=subprocess.DEVNULL)
    try:
        until(lambda: depth(sender) < count)
        left, start = depth(sender), time.perf_counter()
        until(lambda: depth(sender) == 0)
        return left / (time.perf_counter() - start)
    finally:
        receiver.kill()
        receiver.wait()


def depth(sender: ciphermq.Sender) -> int:
    queue = next(queue for queue in sender.list_queues() if queue["queue"] == "default_queue")
    return queue["ready"] + queue["leased"]


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.005)


def timed(work: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        work()
    return count / (time.perf_counter() - start)


def report(name: str, ours: float, original: float) -> bool:
    print(f"{name:<36}{ours:>9,.0f}/s   original {original:>7,.0f}/s   ({ours / original:,.0f} x)")
    return ours >= TARGET * original


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=300, help="messages of the originals")
    parser.add_argument("--bytes", type=int, default=1024, help="size of a message")
    options = parser.parse_args()
    text, fine = "x" * options.bytes, True
    private, public = ciphermq.generate_keypair()
    with tempfile.TemporaryDirectory() as directory, Broker() as broker:
        ciphermq.write_keypair(directory, private)
        config = {"server_address": broker.host, "server_port": broker.port, "queue_name": "default_queue",
                  "exchange_name": "default_exchange", "routing_key": "default_key"}
        pathlib.Path(directory, "config.json").write_text(json.dumps(config))
        with ciphermq.Sender(**broker.address, public_key=public) as sender:
            timed(lambda: sender.send(text), 1000)
            ours = timed(lambda: sender.send(text), 20 * options.messages)
            for version in SEND:
                original = original_send(version, broker.port, directory, text, options.messages)
                fine &= report(f"Sender.send against {version}", ours, original)
            sender.purge("default_queue")
            sender.send_many([text] * 20 * options.messages)
            with ciphermq.Receiver(**broker.address, private_key=private) as receiver:
                ours = timed(lambda: next(receiver).ack(), 20 * options.messages)
            sender.send_many([text] * options.messages)
            fine &= report("Receiver, ack, against 1.0.0", ours, original_receive(broker, directory, sender, options.messages))
    print(f"{os.cpu_count()} cores, {options.bytes} bytes")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
