"""A receiver that behaves as that of CipherMQ 0.2.0.

It takes what each recv(1024) gives for exactly one line. An ack is tried three times, five seconds each; a message that
arrives where the confirmation was expected is lost to it. It acknowledges before its writer has written. After a clean
close by the server it connects again at once.

    receiver_020.py PORT
"""

import json
import os
import queue
import signal
import socket
import sys
import threading
import time

from envelope import decrypt, is_complete

ATTEMPTS = 3
handled = set()
to_write = queue.Queue()


def write_messages():
    while True:
        message_id, text = to_write.get()
        print(f"📥 [RECEIVER] Message read from queue: {message_id}, {text}")
        record = {"message_id": message_id, "message": text, "timestamp": time.time()}
        with open("received_messages.json", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"💾 [RECEIVER] Message {message_id} saved to file")


def acknowledge(connection, message_id):
    for attempt in range(1, ATTEMPTS + 1):
        print(f"📤 [RECEIVER] Sending ACK for message {message_id} (Attempt {attempt}/{ATTEMPTS})")
        try:
            connection.sendall(f"ack {message_id}\n".encode())
            connection.settimeout(5)
            reply = connection.recv(1024).decode().strip()
            if reply.startswith(f"ACK_CONFIRMED {message_id}"):
                print(f"✅ [RECEIVER] Server confirmed ACK for message {message_id}: {reply}")
                return
            print(f"⚠️ [RECEIVER] Unexpected server response: {reply}")
        except socket.timeout:
            print(f"🔁 [RECEIVER] Timeout on ACK for message {message_id}, retrying ({attempt}/{ATTEMPTS})...")
        finally:
            connection.settimeout(None)
        time.sleep(1)
    print(f"❌ [RECEIVER] Failed to acknowledge message {message_id}")


def handle(connection, line):
    parts = line.split(" ", 2)
    if len(parts) < 3:
        print("❌ [RECEIVER] Invalid message format")
        return
    message_id = parts[1]
    print(f"🔍 [RECEIVER] Processing message {message_id}")
    try:
        message = json.loads(parts[2])
    except ValueError as error:
        print(f"❌ [RECEIVER] JSON error: {error}")
        return
    if not is_complete(message):
        print(f"❌ [RECEIVER] Incomplete message for hybrid decryption: {message}")
        return
    if message_id in handled:
        print(f"⚠️ [RECEIVER] Duplicate message {message_id}, sending ACK")
        acknowledge(connection, message_id)
        return
    try:
        text = decrypt(message)
    except ValueError as error:
        print(f"❌ [RECEIVER] Error in hybrid decryption: {error}")
        print(f"❌ [RECEIVER] Decryption failed for message {message_id}")
        return
    print(f"✅ [RECEIVER] Decrypted message {message_id}: {text}")
    handled.add(message_id)
    to_write.put((message_id, text))
    if os.environ.get("DIE_BEFORE_ACK"):
        # Where the tests that kill a receiver want it to be.
        print("☠️ before the ack")
        signal.pause()
    acknowledge(connection, message_id)


def receive(port):
    connection = socket.create_connection(("127.0.0.1", port))
    print("✅ [RECEIVER] Connection established.")
    print("🚀 [RECEIVER] Subscribing to queue default_queue")
    connection.sendall(b"consume default_queue\n")
    reply = connection.recv(1024).decode().strip()
    print(f"✅ [RECEIVER] Server response for subscription: {reply}")
    while True:
        data = connection.recv(1024)
        if not data:
            print("🔌 [RECEIVER] Connection closed.")
            return
        line = data.decode().strip()
        print(f"📩 [RECEIVER] Raw message received: {line}")
        if line.startswith("Message: "):
            handle(connection, line)
        else:
            print(f"❌ [RECEIVER] Unknown message: {line}")


def stop(*_):
    print("🛑 [RECEIVER] Received SIGINT, shutting down...")
    sys.exit(0)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=write_messages, daemon=True).start()
    while True:
        try:
            receive(int(sys.argv[1]))
        except OSError as error:
            print(f"🔁 [RECEIVER] Connection failed: {error}. Retrying in 1 second...")
            time.sleep(1)
