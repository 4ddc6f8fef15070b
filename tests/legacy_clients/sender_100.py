"""A sender that behaves as that of CipherMQ 1.0.0.

Nine messages in batches of at most five on one connection. What one read of up to 4096 bytes gives must contain "ACK <id>"
for every message of the batch; three attempts of five seconds, 1, 2 and 4 seconds apart.

    sender_100.py [MESSAGES]    (reads config.json)
"""

import asyncio
import json
import sys

from envelope import encrypt

ATTEMPTS = 3
BATCH = 5


async def send_batch(reader, writer, config, batch):
    line = f"publish_batch {config['exchange_name']} {config['routing_key']} {json.dumps(batch)}\n"
    waiting = [message["message_id"] for message in batch]
    for attempt in range(1, ATTEMPTS + 1):
        print(f"🚀 [SENDER] Sending batch of {len(batch)} messages (Attempt {attempt}/{ATTEMPTS})")
        writer.write(line.encode())
        await writer.drain()
        try:
            reply = (await asyncio.wait_for(reader.read(4096), 5)).decode().strip()
            print(f"🔍 [SENDER] Server response: {reply}")
            for message_id in list(waiting):
                if f"ACK {message_id}" in reply:
                    print(f"✅ [SENDER] Server ACK received for message {message_id}")
                    waiting.remove(message_id)
                else:
                    print(f"⚠️ [SENDER] Unexpected server response for message {message_id}: {reply}")
            if not waiting:
                return True
        except asyncio.TimeoutError:
            print(f"🔁 [SENDER] Timeout for batch, retrying ({attempt}/{ATTEMPTS})...")
        await asyncio.sleep(2 ** (attempt - 1))
    print(f"❌ [SENDER] Failed to send batch after {ATTEMPTS} attempts.")
    return False


async def main(messages):
    with open("config.json", encoding="utf-8") as file:
        config = json.load(file)
    texts = [f"Test message {n}" for n in range(1, messages + 1)]
    for text in texts:
        print(f"📝 [SENDER] Queued message: {text}")
    reader, writer = await asyncio.open_connection(config["server_address"], config["server_port"])
    done = True
    for start in range(0, messages, BATCH):
        batch = [encrypt(text) for text in texts[start : start + BATCH]]
        print(f"📦 [SENDER] Collected batch of {len(batch)} messages")
        done = await send_batch(reader, writer, config, batch) and done
    writer.close()
    return done


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)) else 1)
