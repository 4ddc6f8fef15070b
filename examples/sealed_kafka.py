#!/usr/bin/env python3
"""Sealed messages through Kafka, by kafka-python: the topic stands where the exchange does, the key where the routing key does.

    python examples/sealed_keys.py keys/
    python examples/sealed_kafka.py send keys/ "the goods are on the dock"
    python examples/sealed_kafka.py receive keys/

Needs `pip install kafka-python` and a Kafka.
"""

import collections
import sys

import sealed_keys

import ciphermq

try:
    import kafka
except ImportError:
    sys.exit("kafka-python is missing: pip install kafka-python")

TOPIC, KEY = "sealed", "eu"


def send(server: str, sealer: ciphermq.Sealer, text: str) -> None:
    envelope = sealer.seal(text, context=ciphermq.Context(TOPIC, KEY))
    producer = kafka.KafkaProducer(bootstrap_servers=server, acks="all")
    producer.send(TOPIC, key=KEY.encode(), value=envelope.encode()).get(timeout=10)
    producer.close()


def receive(server: str, opener: ciphermq.Opener) -> None:
    settings = {"group_id": "sealed", "auto_offset_reset": "earliest", "enable_auto_commit": False}
    consumer = kafka.KafkaConsumer(TOPIC, bootstrap_servers=server, **settings)
    # Kafka may deliver again, under any offset; the uniqueness of a sealing it cannot change.
    seen: collections.deque = collections.deque(maxlen=10_000)
    for record in consumer:
        delivered = ciphermq.Context(record.topic, (record.key or b"").decode())
        try:
            opened = opener.open(record.value, delivered=delivered)
        except ciphermq.Throttled:
            raise  # not committed: the next start tries again
        except ciphermq.CipherMQError as error:
            print(f"refused at {record.offset}: {error}", file=sys.stderr)
        else:
            if opened.uniqueness not in seen:
                seen.append(opened.uniqueness)
                print(opened.text, flush=True)
        consumer.commit()


if __name__ == "__main__":
    try:
        sys.exit(sealed_keys.run(__doc__, "localhost:9092", send, receive))
    except kafka.errors.KafkaError as fault:
        sys.exit(f"Kafka: {fault}")
