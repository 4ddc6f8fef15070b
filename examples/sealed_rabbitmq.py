#!/usr/bin/env python3
"""Sealed messages through RabbitMQ, by pika: the broker in between is another, the envelopes are the same.

    python examples/sealed_rabbitmq.py send keys/ "the goods are on the dock"
    python examples/sealed_rabbitmq.py receive keys/

Needs `pip install pika` and a RabbitMQ at localhost. Keys: `python examples/sealed_files.py keys keys/`.
"""

import pathlib
import sys

import ciphermq

try:
    import pika
except ImportError:
    pika = None

EXCHANGE, ROUTING_KEY = "", "sealed"


def send(keys: pathlib.Path, text: str) -> None:
    sealer = ciphermq.Sealer(
        ciphermq.PublicKey.from_file(keys / "receiver_public.pem"),
        identity=ciphermq.Identity.from_file(keys / "sender.pem"),
    )
    envelope = sealer.seal(text, context=ciphermq.Context(EXCHANGE, ROUTING_KEY))
    with pika.BlockingConnection() as connection:
        channel = connection.channel()
        channel.queue_declare(ROUTING_KEY, durable=True)
        channel.confirm_delivery()
        channel.basic_publish(EXCHANGE, ROUTING_KEY, envelope.encode(), pika.BasicProperties(delivery_mode=2))


def receive(keys: pathlib.Path) -> None:
    senders = ciphermq.Senders()
    senders.add("sender", ciphermq.SenderKey.from_file(keys / "sender_public.pem"))
    opener = ciphermq.Opener(ciphermq.PrivateKey.from_file(keys / "receiver_private.pem"), senders=senders)

    def on_message(channel, method, properties, body: bytes) -> None:
        delivered = ciphermq.Context(method.exchange, method.routing_key)
        try:
            opened = opener.open(body, delivered=delivered)
        except ciphermq.Throttled:
            channel.basic_nack(method.delivery_tag, requeue=True)
        except ciphermq.CipherMQError as error:
            print(f"refused: {error}", file=sys.stderr)
            channel.basic_reject(method.delivery_tag, requeue=False)
        else:
            print(f"{senders.name(opened.sender or '')}: {opened.text}")
            channel.basic_ack(method.delivery_tag)

    with pika.BlockingConnection() as connection:
        channel = connection.channel()
        channel.queue_declare(ROUTING_KEY, durable=True)
        channel.basic_consume(ROUTING_KEY, on_message)
        channel.start_consuming()


def main() -> int:
    if pika is None:
        print("pika is missing: pip install pika", file=sys.stderr)
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
