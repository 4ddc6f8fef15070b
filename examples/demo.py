#!/usr/bin/env python3
"""What `make demo` runs: real encrypted messages from sender.py through the broker to receiver.py, exactly once each.

Starts the broker on a free port, the receiver, then the sender; shows what they say and what was received; stops everything
it has started. Exits 0 only if every message arrived, each once.
"""

import argparse
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import threading

EXAMPLES = pathlib.Path(__file__).resolve().parent
MESSAGES = ["This is a test hybrid message.", "Grüße, 世界, سلام 🚀", "The broker sees the envelope, never the text."]
SECONDS = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ciphermq", required=True, help="the program ciphermq")
    parser.add_argument("--keys", default="keys", help="directory of the key pair; made if it is not there")
    options = parser.parse_args()
    make_keys(options)
    with tempfile.TemporaryDirectory(prefix="ciphermq-demo-") as directory, contextlib.ExitStack() as running:
        return run(options, pathlib.Path(directory), running)


def run(options, directory, running) -> int:
    serve = [options.ciphermq, "serve", "--listen", "127.0.0.1:0", "--data-dir", str(directory / "data"), "--log", "error"]
    broker = start(running, serve, stdout=subprocess.PIPE)
    ready = broker.stdout.readline().strip()
    if not ready.startswith("CipherMQ ready on "):
        print(f"❌ [DEMO] The broker did not start: {ready}")
        return 1
    print(f"🟢 [DEMO] {ready}")
    port = ready.rsplit(":", 1)[1]

    output = directory / "received_messages.json"
    receive = [sys.executable, "-u", EXAMPLES / "receiver.py", "--port", port, "--output", output]
    receive += ["--count", str(len(MESSAGES)), "--private-key", f"{options.keys}/receiver_private.pem"]
    receiver = start(running, receive)
    send = [sys.executable, "-u", EXAMPLES / "sender.py", "--port", port, *MESSAGES]
    sender = start(running, [*send, "--public-key", f"{options.keys}/receiver_public.pem"])
    codes = [sender.wait(SECONDS), receiver.wait(SECONDS)]

    received = output.read_text(encoding="utf-8")
    print("\n📄 [DEMO] received_messages.json:")
    print(received, end="")
    records = [json.loads(line) for line in received.splitlines()]
    exactly_once = sorted(record["message"] for record in records) == sorted(MESSAGES)
    if codes == [0, 0] and exactly_once:
        print(f"\n✅ [DEMO] {len(MESSAGES)} messages sent, {len(records)} received, each exactly once.")
        return 0
    print(f"\n❌ [DEMO] Sent {len(MESSAGES)}, received {len(records)}; exit codes of sender and receiver: {codes}")
    return 1


def make_keys(options) -> None:
    if not pathlib.Path(options.keys, "receiver_private.pem").exists():
        subprocess.run([options.ciphermq, "keygen", "--out", options.keys], check=True)


def start(running, command, **settings) -> subprocess.Popen:
    """Starts a program that ends with the demo, however that ends."""
    process = subprocess.Popen(list(map(str, command)), text=True, **settings)
    running.callback(stop, process)
    return process


def stop(process) -> None:
    if process.poll() is None:
        process.terminate()
        # If it does not listen, the next signal does not ask.
        timer = threading.Timer(SECONDS / 6, process.kill)
        timer.start()
        process.wait()
        timer.cancel()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.TimeoutExpired as late:
        print(f"❌ [DEMO] Not done after {late.timeout} seconds: {late.cmd}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
