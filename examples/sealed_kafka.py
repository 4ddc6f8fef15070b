#!/usr/bin/env python3
"""Sealed messages through Kafka, by kafka-python: the topic stands where the exchange does, the key where the routing key does.

    python examples/sealed_kafka.py send keys/ "the goods are on the dock"
    python examples/sealed_kafka.py receive keys/

Needs `pip install kafka-python` and a Kafka at localhost:9092. Keys: `python examples/sealed_files.py keys keys/`.
"""

import collections
import pathlib
import sys

import ciphermq

try:
    import kafka
except ImportError:
    kafka = None

TOPIC, KEY = "sealed", "eu"


def send(keys: pathlib.Path, text: str) -> None:
    sealer = ciphermq.Sealer(
        ciphermq.PublicKey.from_file(keys / "receiver_public.pem"),
        identity=ciphermq.Identity.from_file(keys / "sender.pem"),
    )
    envelope = sealer.seal(text, context=ciphermq.Context(TOPIC, KEY))
    producer = kafka.KafkaProducer(acks="all")
    producer.send(TOPIC, key=KEY.encode(), value=envelope.encode()).get(timeout=10)
    producer.close()


def receive(keys: pathlib.Path) -> None:
    senders = ciphermq.Senders()
    senders.add("sender", ciphermq.SenderKey.from_file(keys / "sender_public.pem"))
    opener = ciphermq.Opener(ciphermq.PrivateKey.from_file(keys / "receiver_private.pem"), senders=senders)
    seen: collections.deque = collections.deque(maxlen=10_000)
    for record in kafka.KafkaConsumer(TOPIC, group_id="sealed", enable_auto_commit=False):
        try:
            opened = opener.open(record.value, delivered=ciphermq.Context(record.topic, (record.key or b"").decode()))
        except ciphermq.CipherMQError as error:
            print(f"refused at {record.offset}: {error}", file=sys.stderr)
            continue
        # Kafka may deliver again, under any offset; the uniqueness of a sealing it cannot change.
        if opened.uniqueness not in seen:
            seen.append(opened.uniqueness)
            print(f"{senders.name(opened.sender or '')}: {opened.text}")


def main() -> int:
    if kafka is None:
        print("kafka-python is missing: pip install kafka-python", file=sys.stderr)
        return 1
    if len(sys.argv) == 4 and sys.argv[1] == "send":
        send(pathlib.Path(sys.argv[2]), sys.argv[3])
    elif len(sys.argv) == 3 and sys.argv[1] == "receive":
        receive(pathlib.Path(sys.argv[2]))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
