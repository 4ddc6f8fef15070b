"""A receiver that behaves as that of CipherMQ 1.0.0.

Declares queue and exchange, binds them with the queue first, consumes; reads one line after each. asyncio's readline takes
at most 64 KiB; a longer line ends the connection and it connects again. While it waits for a confirmation it keeps messages
that arrive. Records are flushed every ten messages or after a second.

    receiver_100.py    (reads config.json)
"""

import asyncio
import json
import signal
import sys
import time
from collections import deque

from envelope import decrypt, is_complete

ATTEMPTS = 3
FLUSH_RECORDS = 10
handled = set()
records = []


def flush():
    if not records:
        return
    with open("received_messages.jsonl", "a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    print(f"💾 [RECEIVER] Batch of {len(records)} messages saved to received_messages.jsonl")
    records.clear()


class Receiver:
    def __init__(self, reader, writer, config):
        self.reader, self.writer, self.config = reader, writer, config
        self.waiting = deque()

    async def ask(self, request, what):
        self.writer.write(f"{request}\n".encode())
        await self.writer.drain()
        reply = (await self.reader.readline()).decode().strip()
        print(f"✅ [RECEIVER] Server response for {what}: {reply}")

    async def run(self):
        queue, exchange = self.config["queue_name"], self.config["exchange_name"]
        await self.ask(f"declare_queue {queue}", "queue declaration")
        await self.ask(f"declare_exchange {exchange}", "exchange declaration")
        await self.ask(f"bind {queue} {exchange} {self.config['routing_key']}", "binding")
        await self.ask(f"consume {queue}", "subscription")
        while True:
            if self.waiting:
                line = self.waiting.popleft()
                print(f"📩 [RECEIVER] Processing queued message: {line}")
            else:
                try:
                    data = await asyncio.wait_for(self.reader.readline(), 1)
                except asyncio.TimeoutError:
                    flush()
                    continue
                if not data:
                    print("🔌 [RECEIVER] Connection closed.")
                    return
                line = data.decode().strip()
            await self.handle(line)

    async def handle(self, line):
        if not line.startswith("Message: "):
            print(f"⚠️ [RECEIVER] Unhandled message: {line}")
            return
        message_id, text = line.split(" ", 2)[1:]
        try:
            message = json.loads(text)
        except ValueError as error:
            print(f"❌ [RECEIVER] JSON error in message parsing: {error}")
            return
        if not is_complete(message):
            print(f"❌ [RECEIVER] Incomplete message for hybrid decryption: {message}")
            return
        if message_id in handled:
            print(f"⚠️ [RECEIVER] Duplicate message {message_id}, sending ACK")
            await self.acknowledge(message_id)
            return
        try:
            plaintext = decrypt(message)
        except ValueError:
            print(f"❌ [RECEIVER] Decryption failed for message {message_id}")
            return
        print(f"✅ [RECEIVER] Decrypted message {message_id}: {plaintext}")
        handled.add(message_id)
        records.append({"message_id": message_id, "message": plaintext, "timestamp": time.time()})
        if len(records) >= FLUSH_RECORDS:
            flush()
        await self.acknowledge(message_id)

    async def acknowledge(self, message_id):
        for attempt in range(1, ATTEMPTS + 1):
            self.writer.write(f"ack {message_id}\n".encode())
            await self.writer.drain()
            end = time.monotonic() + 5
            while time.monotonic() < end:
                try:
                    data = await asyncio.wait_for(self.reader.readline(), end - time.monotonic())
                except asyncio.TimeoutError:
                    break
                line = data.decode().strip()
                print(f"🔍 [RECEIVER] ACK response: {line}")
                if line == f"ACK_CONFIRMED {message_id}":
                    return
                if line.startswith("Message: "):
                    print(f"🔄 [RECEIVER] Received new message in ACK response, queuing: {line}")
                    self.waiting.append(line)
                elif not data:
                    return
            print(f"🔁 [RECEIVER] No correct ACK received, retrying ({attempt}/{ATTEMPTS})...")
            await asyncio.sleep(2 ** (attempt - 1))
        print(f"❌ [RECEIVER] Failed to acknowledge message {message_id}")


async def main():
    with open("config.json", encoding="utf-8") as file:
        config = json.load(file)
    while True:
        try:
            streams = await asyncio.open_connection(config["server_address"], config["server_port"])
            await Receiver(*streams, config).run()
        except (OSError, ValueError) as error:
            # ValueError: a line over the limit of 64 KiB.
            print(f"❌ [RECEIVER] Error in receive_messages: {error}")
            await asyncio.sleep(1)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    # The original dies of SIGINT with an exception; here it only has to die.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(main())
