#!/usr/bin/env python3
"""Encrypts messages for the holder of a key and sends them through a CipherMQ broker.

    python examples/sender.py "Hello" "and a second message"
    seq 100 | python examples/sender.py -

A message is tried three times, five seconds each, always under the same id, so the broker stores it once however often it
arrives. Until the broker has acknowledged it, it stays in the list of pending messages.
"""

import argparse
import contextlib
import json
import sys
import time
import uuid

import ciphermq

SAMPLE = "This is a test hybrid message."
ATTEMPTS = 3
TIMEOUT = 5.0
PAUSE = 1.0


def main() -> int:
    options = parse_arguments()
    try:
        public_key = ciphermq.PublicKey.from_file(options.public_key)
    except (OSError, ciphermq.KeyFormatError) as error:
        print(f"❌ [SENDER] Error loading public key: {error}")
        print("   Make a key pair with: ciphermq keygen --out keys")
        return 1

    pending = {}
    sender = ciphermq.Sender(options.host, options.port, exchange=options.exchange, routing_key=options.key)
    with contextlib.closing(sender):
        for text in messages(options.messages):
            message_id = str(uuid.uuid4())
            print(f"📝 [SENDER] Original message: {text}")
            envelope = ciphermq.seal(text, public_key, message_id=message_id)
            pending[message_id] = envelope
            print(f"📤 [SENDER] Message {message_id} added to pending messages")
            print(f"📦 [SENDER] Encrypted data for message {message_id}:")
            print(json.dumps(json.loads(envelope), indent=2))
            if publish(sender, message_id, envelope):
                del pending[message_id]
                print(f"🗑️ [SENDER] Message {message_id} removed from pending messages")

    if pending:
        print(f"❌ [SENDER] {len(pending)} messages are still pending: {', '.join(pending)}")
    return 1 if pending else 0


def publish(sender: ciphermq.Sender, message_id: str, envelope: str) -> bool:
    """Tries to hand a message to the broker; says whether the broker has it."""
    for attempt in range(1, ATTEMPTS + 1):
        time.sleep(PAUSE if attempt > 1 else 0)
        print(f"🚀 [SENDER] Sending message {message_id} to server (Attempt {attempt}/{ATTEMPTS})")
        try:
            sender.publish(envelope, message_id, timeout=TIMEOUT, attempts=1)
        except ciphermq.Timeout:
            print(f"🔁 [SENDER] Timeout for message {message_id}, retrying ({attempt}/{ATTEMPTS})...")
        except ciphermq.Refused as refusal:
            # The broker's word is final until somebody changes something there, for example binds a queue.
            print(f"⚠️ [SENDER] Unexpected server response: {refusal}")
            break
        except ciphermq.CipherMQError as error:
            print(f"❌ [SENDER] Error sending message {message_id}: {error}")
        else:
            print(f"✅ [SENDER] Server ACK received for message {message_id}: ACK {message_id}")
            return True
    print(f"❌ [SENDER] Failed to send message {message_id} after {attempt} attempts.")
    return False


def messages(arguments):
    """The messages of the command line; the lines of standard input for `-`."""
    for argument in arguments or [SAMPLE]:
        if argument == "-":
            yield from (line.rstrip("\n") for line in sys.stdin)
        else:
            yield argument


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Encrypts messages and sends them through a CipherMQ broker.")
    parser.add_argument("messages", nargs="*", help=f"what to send; - reads lines from stdin (default: {SAMPLE!r})")
    parser.add_argument("--host", default="127.0.0.1", help="where the broker listens (default: %(default)s)")
    parser.add_argument("--port", type=int, default=5672, help="(default: %(default)s)")
    parser.add_argument("--exchange", default="default_exchange", help="(default: %(default)s)")
    parser.add_argument("--key", default="default_key", help="the routing key (default: %(default)s)")
    parser.add_argument("--public-key", default="keys/receiver_public.pem", help="whom to encrypt for (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("🛑 [SENDER] Received SIGINT, shutting down...")
        sys.exit(130)
