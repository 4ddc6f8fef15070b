#!/usr/bin/env python3
"""Takes messages from a CipherMQ broker, decrypts them and writes them to received_messages.json.

    python examples/receiver.py                 until Ctrl-C
    python examples/receiver.py --count 3       until three messages have been written

Each line of the file is one JSON object: message_id, message, timestamp. A message is written and flushed before it is
acknowledged; one that comes again after that (because the acknowledgement was lost) is recognised by its id in the file,
so it stands there once.
"""

import argparse
import contextlib
import json
import sys
import time

import ciphermq

ATTEMPTS = 3
TIMEOUT = 5.0
RETRY_SECONDS = 30.0


def main() -> int:
    options = parse_arguments()
    try:
        private_key = ciphermq.PrivateKey.from_file(options.private_key)
    except (OSError, ciphermq.KeyFormatError) as error:
        print(f"❌ [RECEIVER] Error loading private key: {error}")
        print("   Make a key pair with: ciphermq keygen --out keys")
        return 1

    print("📝 [RECEIVER] Starting message processing...")
    receiver = ciphermq.Receiver(options.host, options.port, private_key=private_key, queue=options.queue, timeout=TIMEOUT)
    with open(options.output, "a+", encoding="utf-8") as file, contextlib.closing(receiver):
        seen = ids_in(file)
        try:
            subscribe(receiver)
            written = 0
            while options.count is None or written < options.count:
                written += receive(receiver, file, seen)
        except KeyboardInterrupt:
            print("🛑 [RECEIVER] Received SIGINT, shutting down...")
    print("🔌 [RECEIVER] Connection closed.")
    print("🛑 [RECEIVER] Message processing stopped.")
    return 0


def subscribe(receiver: ciphermq.Receiver) -> None:
    """Connects, however long it takes. A connection lost later is made again by the receiver itself."""
    while True:
        try:
            receiver.connect()
            print("✅ [RECEIVER] Connection established.")
            print(f"🚀 [RECEIVER] Subscribing to queue {receiver.queue}")
            receiver.declare_queue(receiver.queue)
            receiver.subscribe()
            print("✅ [RECEIVER] Server response for subscription: Subscribed to queue")
            return
        except (ciphermq.ConnectionLost, ciphermq.Timeout) as error:
            print(f"🔁 [RECEIVER] Connection failed: {error}. Retrying in 1 second...")
            time.sleep(1)


def receive(receiver: ciphermq.Receiver, file, seen: set) -> int:
    """Takes one message; gives how many were written."""
    try:
        message = receiver.receive()
    except (ciphermq.DecryptError, ciphermq.EnvelopeError, ciphermq.Throttled) as error:
        print(f"❌ [RECEIVER] Decryption failed for message {error.message.message_id}")
        # Perhaps another receiver has the key; after the last attempt the broker moves it to the dead-letter queue.
        with contextlib.suppress(ciphermq.CipherMQError):
            error.message.nack(delay=RETRY_SECONDS)
        return 0
    except ciphermq.CipherMQError as error:
        print(f"❌ [RECEIVER] Error receiving messages: {error}")
        time.sleep(1)
        return 0
    message_id, text = message.message_id, message.body.decode("utf-8", "replace")
    print(f"📩 [RECEIVER] Raw message received: Message: {message_id} {message.envelope}")
    print(f"🔍 [RECEIVER] Processing message {message_id}")
    if message_id in seen:
        print(f"⚠️ [RECEIVER] Duplicate message {message_id}, sending ACK")
        acknowledge(message)
        return 0
    print(f"✅ [RECEIVER] Decrypted message {message_id}: {text}")
    print(f"📥 [RECEIVER] Message read from queue: {message_id}, {text}")
    record = {"message_id": message_id, "message": text, "timestamp": time.time()}
    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    file.flush()
    seen.add(message_id)
    print(f"💾 [RECEIVER] Message {message_id} saved to file")
    acknowledge(message)
    return 1


def acknowledge(message: ciphermq.Message) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        print(f"📤 [RECEIVER] Sending ACK for message {message.message_id} (Attempt {attempt}/{ATTEMPTS})")
        try:
            message.ack()
        except ciphermq.Timeout:
            print(f"🔁 [RECEIVER] Timeout on ACK for message {message.message_id}, retrying ({attempt}/{ATTEMPTS})...")
        except ciphermq.CipherMQError as error:
            # It will come again, and be recognised.
            print(f"❌ [RECEIVER] Error sending ACK for message {message.message_id}: {error}")
            break
        else:
            reply = f"ACK_CONFIRMED {message.message_id}"
            print(f"✅ [RECEIVER] Server confirmed ACK for message {message.message_id}: {reply}")
            return
    print(f"❌ [RECEIVER] Failed to acknowledge message {message.message_id}")


def ids_in(file) -> set:
    """The messages an earlier run has written."""
    file.seek(0)
    ids, line = set(), "\n"
    for line in file:
        # A line cut off by a crash is of a message that was never acknowledged: it comes again.
        with contextlib.suppress(ValueError):
            ids.add(json.loads(line)["message_id"])
    if not line.endswith("\n"):
        file.write("\n")
    return ids


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Takes messages from a CipherMQ broker and decrypts them.")
    parser.add_argument("--host", default="127.0.0.1", help="where the broker listens (default: %(default)s)")
    parser.add_argument("--port", type=int, default=5672, help="(default: %(default)s)")
    parser.add_argument("--queue", default="default_queue", help="made if it is not there (default: %(default)s)")
    parser.add_argument("--private-key", default="keys/receiver_private.pem", help="(default: %(default)s)")
    parser.add_argument("--output", default="received_messages.json", help="(default: %(default)s)")
    parser.add_argument("--count", type=int, help="stop after so many messages (default: go on until Ctrl-C)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
