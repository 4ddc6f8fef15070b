#!/usr/bin/env python3
"""Sealed messages through RabbitMQ, by pika: the broker in between is another, the envelopes are the same.

    python examples/sealed_keys.py keys/
    python examples/sealed_rabbitmq.py send keys/ "the goods are on the dock"
    python examples/sealed_rabbitmq.py receive keys/

Needs `pip install pika` and a RabbitMQ.
"""

import contextlib
import sys

import sealed_keys

import ciphermq

try:
    import pika
except ImportError:
    sys.exit("pika is missing: pip install pika")

EXCHANGE, ROUTING_KEY = "", "sealed"


def send(server: str, sealer: ciphermq.Sealer, text: str) -> None:
    envelope = sealer.seal(text, context=ciphermq.Context(EXCHANGE, ROUTING_KEY))
    with channel_to(server) as channel:
        channel.confirm_delivery()
        channel.basic_publish(EXCHANGE, ROUTING_KEY, envelope.encode(), pika.BasicProperties(delivery_mode=2))


def receive(server: str, opener: ciphermq.Opener) -> None:
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
            print(opened.text, flush=True)
            channel.basic_ack(method.delivery_tag)

    with channel_to(server) as channel:
        channel.basic_consume(ROUTING_KEY, on_message)
        channel.start_consuming()


@contextlib.contextmanager
def channel_to(server: str):
    host, _, port = server.partition(":")
    try:
        connected = pika.BlockingConnection(pika.ConnectionParameters(host, int(port)))
    except pika.exceptions.AMQPConnectionError:
        sys.exit(f"no RabbitMQ answers at {server}")
    with connected as connection:
        channel = connection.channel()
        channel.queue_declare(ROUTING_KEY, durable=True)
        yield channel


if __name__ == "__main__":
    sys.exit(sealed_keys.run(__doc__, "localhost:5672", send, receive))
