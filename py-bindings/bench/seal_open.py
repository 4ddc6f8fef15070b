"""Sealing and opening, and a message's whole way, in messages a second.

    python bench/seal_open.py [--seconds 2] [--bytes 1024]

Beside the package runs the way of the Python originals, on pycryptodome: the PEM text is read and a session key wrapped
for every message, the parts are put into base64 and JSON. "Key kept" is the same with the PEM text read once, which they
do not do; the package is measured by that one. Build it with --release first.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import os
import platform
import sys
import time
import uuid
from typing import Callable, List

import ciphermq
from ciphermq import aio
from ciphermq.testing import Broker
from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.PublicKey import RSA
from Crypto.Random import get_random_bytes

MESSAGES = 50_000
TARGET = 20


def original_seal(text: bytes, key: RSA.RsaKey) -> str:
    session_key = get_random_bytes(16)
    wrapped = PKCS1_OAEP.new(key).encrypt(session_key)
    cipher = AES.new(session_key, AES.MODE_GCM)
    ciphertext, tag = cipher.encrypt_and_digest(text)
    return json.dumps({
        "message_id": str(uuid.uuid4()),
        "enc_session_key": base64.b64encode(wrapped).decode(),
        "nonce": base64.b64encode(cipher.nonce).decode(),
        "tag": base64.b64encode(tag).decode(),
        "ciphertext": base64.b64encode(ciphertext).decode(),
    })


def original_open(envelope: str, key: RSA.RsaKey) -> bytes:
    message = json.loads(envelope)
    session_key = PKCS1_OAEP.new(key).decrypt(base64.b64decode(message["enc_session_key"]))
    cipher = AES.new(session_key, AES.MODE_GCM, nonce=base64.b64decode(message["nonce"]))
    return cipher.decrypt_and_verify(base64.b64decode(message["ciphertext"]), base64.b64decode(message["tag"]))


def rate(work: Callable[[], object], seconds: float) -> float:
    """Calls a second: the best of three runs, after one call to warm up."""
    work()
    best = 0.0
    for _ in range(3):
        count, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds / 3:
            work()
            count += 1
        best = max(best, count / spent)
    return best


def report(name: str, ours: float, original: float, key_kept: float) -> bool:
    compared = f"original {original:>7,.0f}/s ({ours / original:,.0f} x)"
    print(f"{name:<28}{ours:>10,.0f}/s   {compared:<30} key kept {key_kept:>7,.0f}/s ({ours / key_kept:,.0f} x)")
    return ours >= TARGET * max(original, key_kept)


def crypto(text: bytes, seconds: float) -> bool:
    private, public = ciphermq.generate_keypair()
    # In the form of the originals' key script, which is the one pycryptodome reads fastest.
    private_pem = RSA.import_key(private.to_pem()).export_key()
    public_pem = public.to_pem()
    private_key, public_key = RSA.import_key(private_pem), RSA.import_key(public_pem)
    fine = report(
        "seal",
        rate(lambda: ciphermq.seal(text, public), seconds),
        rate(lambda: original_seal(text, RSA.import_key(public_pem)), seconds),
        rate(lambda: original_seal(text, public_key), seconds),
    )
    # What a sender of ours makes: a session key lasts for 1,000 messages.
    envelopes = [ciphermq.seal(text, public) for _ in range(4000)]
    position = 0

    def open_next() -> None:
        nonlocal position
        position = (position + 1) % len(envelopes)
        ciphermq.open_envelope(envelopes[position], private)

    fine &= report(
        "open_envelope",
        rate(open_next, seconds),
        rate(lambda: original_open(envelopes[0], RSA.import_key(private_pem)), seconds),
        rate(lambda: original_open(envelopes[0], private_key), seconds),
    )
    suites(text, seconds)
    foreign = [original_seal(text, public_key) for _ in range(200)]
    start = time.perf_counter()
    for envelope in foreign:
        ciphermq.open_envelope(envelope, private)
    ours = len(foreign) / (time.perf_counter() - start)
    print(f"{'open, a key a message':<28}{ours:>10,.0f}/s   (envelopes of the original: an RSA operation each)")
    return fine


def suites(text: bytes, seconds: float) -> None:
    """Suite 2, and signed messages of both, by the objects that are kept."""
    me, senders = ciphermq.Identity.generate(), ciphermq.Senders()
    senders.add("me", me.sender_key())
    for kind in ("rsa", "x25519", "x-wing"):
        private = ciphermq.PrivateKey.generate(kind)
        for identity in (None, me):
            sealer = ciphermq.Sealer(private.public_key(), identity=identity)
            opener = ciphermq.Opener(private, senders=senders if identity else None)
            envelopes = [sealer.seal(text) for _ in range(4000)]
            source = itertools.cycle(envelopes)
            sealing, opening = rate(lambda: sealer.seal(text), seconds), rate(lambda: opener.open(next(source)), seconds)
            name = f"{kind}{', signed' if identity else ''}"
            print(f"{'Sealer, Opener: ' + name:<34}{sealing:>10,.0f}/s {opening:>10,.0f}/s")


def originals_as_senders(text: bytes, count: int = 2000) -> None:
    """An RSA decryption for each message, through the broker: what the cores make of it."""
    private, public = ciphermq.generate_keypair()
    key = RSA.import_key(public.to_pem())
    envelopes = [original_seal(text, key) for _ in range(count)]
    with Broker() as broker, ciphermq.Sender(**broker.address) as sender:
        for envelope in envelopes:
            sender.publish(envelope)
        with ciphermq.Receiver(**broker.address, private_key=private) as receiver:
            start = time.perf_counter()
            for _, message in zip(range(count), receiver):
                message.ack(wait=False)
            receiver.ping()
            rates = count / (time.perf_counter() - start)
    start = time.perf_counter()
    for envelope in envelopes[:400]:
        ciphermq.open_envelope(envelope, private)
    alone = 400 / (time.perf_counter() - start)
    print(f"{'Receiver, a key a message':<28}{rates:>10,.0f}/s   ({rates / alone:.1f} x one thread, {alone:,.0f}/s)")


def end_to_end(text: bytes, kind: str) -> None:
    private = ciphermq.PrivateKey.generate(kind)
    public = private.public_key()
    print(f"through the broker, {kind}:")
    texts: List[bytes] = [text] * MESSAGES
    with Broker() as broker:
        with ciphermq.Sender(**broker.address, public_key=public) as sender:
            start = time.perf_counter()
            sender.send_many(texts)
            print(f"{'Sender.send_many':<28}{MESSAGES / (time.perf_counter() - start):>10,.0f}/s")
            with ciphermq.Receiver(**broker.address, private_key=private) as receiver:
                start = time.perf_counter()
                for _, message in zip(range(MESSAGES), receiver):
                    message.ack(wait=False)
                receiver.ping()
                print(f"{'Receiver, ack(wait=False)':<28}{MESSAGES / (time.perf_counter() - start):>10,.0f}/s")
            spent = rate(lambda: sender.send(text), 2)
            print(f"{'Sender.send, one by one':<28}{spent:>10,.0f}/s")
            sender.purge("default_queue")
        asyncio.run(end_to_end_async(broker, private, public, texts))


async def end_to_end_async(
    broker: Broker, private: ciphermq.PrivateKey, public: ciphermq.PublicKey, texts: List[bytes]
) -> None:
    async with aio.Sender(**broker.address, public_key=public) as sender:
        start = time.perf_counter()
        await sender.send_many(texts)
        print(f"{'aio.Sender.send_many':<28}{MESSAGES / (time.perf_counter() - start):>10,.0f}/s")
    async with aio.Receiver(**broker.address, private_key=private) as receiver:
        start, count = time.perf_counter(), 0
        async for message in receiver:
            await message.ack(wait=False)
            count += 1
            if count == MESSAGES:
                break
        await receiver.ping()
        print(f"{'aio.Receiver, as above':<28}{MESSAGES / (time.perf_counter() - start):>10,.0f}/s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each figure")
    parser.add_argument("--bytes", type=int, default=1024, help="size of a message")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {options.bytes} bytes")
    text = os.urandom(options.bytes)
    fine = crypto(text, options.seconds)
    for kind in ("rsa", "x25519", "x-wing"):
        end_to_end(text, kind)
    originals_as_senders(text)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
