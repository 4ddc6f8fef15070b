"""Signatures, several recipients and changes of keys, through the real broker."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Dict, List

import ciphermq
import pytest
from ciphermq import aio
from ciphermq.testing import Broker
from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.PublicKey import RSA
from Crypto.Random import get_random_bytes

from conftest import Keys

KINDS = ["rsa", "x25519", "x-wing"]
each_kind = pytest.mark.parametrize("kind", KINDS)


def known(identity: ciphermq.Identity) -> ciphermq.Senders:
    senders = ciphermq.Senders()
    senders.add("me", identity.sender_key())
    return senders


@each_kind
def test_a_receiver_learns_who_sent_and_for_where(ciphermq_broker: Broker, kind: str) -> None:
    private, me = ciphermq.PrivateKey.generate(kind), ciphermq.Identity.generate()
    address = ciphermq_broker.address
    with ciphermq.Sender(**address, recipients=private.public_key(), identity=me, content_type="text/plain") as sender:
        sender.send("one by one")
        sender.send_many(f"number {n}" for n in range(5))
    with ciphermq.Receiver(**address, private_key=private, senders=known(me)) as receiver:
        messages = receiver.fetch(10, wait=10)
        while len(messages) < 6:
            messages += receiver.fetch(10, wait=10)
        assert [message.sender for message in messages] == [me.kid] * 6
        assert {message.context for message in messages} == {ciphermq.Context("default_exchange", "default_key", "text/plain")}
        numbers = [message.sequence[1] for message in messages]
        assert numbers == sorted(numbers) and len(set(numbers)) == 6
        assert {message.suite for message in messages} <= {"1", "2x", "2pq"} and messages[0].sent_at > 1.7e9
        for message in messages:
            message.ack()


@each_kind
def test_who_does_not_sign_is_not_let_in(ciphermq_broker: Broker, kind: str) -> None:
    private, me, address = ciphermq.PrivateKey.generate(kind), ciphermq.Identity.generate(), ciphermq_broker.address
    stranger = ciphermq.Identity.generate()
    with ciphermq.Receiver(**address, private_key=private, senders=known(me)) as receiver:
        for identity in (None, stranger):
            with ciphermq.Sender(**address, public_key=private.public_key(), identity=identity) as sender:
                sender.send("let me in")
            with pytest.raises(ciphermq.Untrusted) as caught:
                receiver.receive(timeout=10)
            assert caught.value.message is not None and caught.value.message.sender is None
            with pytest.raises(ciphermq.DecryptError):
                caught.value.message.body
            caught.value.message.reject()
        with ciphermq.Sender(**address, public_key=private.public_key(), identity=me) as sender:
            sender.send("it is me")
        message = receiver.receive(timeout=10)
        assert message is not None and message.text == "it is me"
        message.ack()


def test_each_of_several_recipients_opens_its_copy(ciphermq_broker: Broker) -> None:
    keys, address = [ciphermq.PrivateKey.generate("x-wing") for _ in range(2)], ciphermq_broker.address
    with ciphermq.Sender(**address, recipients=[key.public_key() for key in keys], padding="padme") as sender:
        for queue in ("one", "two"):
            sender.declare_queue(queue)
            sender.bind("default_exchange", queue, "news")
        sender.publish(
            ciphermq.Sealer([key.public_key() for key in keys]).seal(
                "for both", context=ciphermq.Context("default_exchange", "news")),
            routing_key="news",
        )
        sender.send("padded", routing_key="news")
    for key, queue in zip(keys, ("one", "two")):
        with ciphermq.Receiver(**address, private_key=key, queue=queue) as receiver:
            texts = [next(receiver).text for _ in range(2)]
            assert texts == ["for both", "padded"]


def test_a_message_for_elsewhere_is_refused(ciphermq_broker: Broker) -> None:
    private, address = ciphermq.PrivateKey.generate("x25519"), ciphermq_broker.address
    elsewhere = ciphermq.Sealer(private.public_key()).seal("pay", context=ciphermq.Context("orders", "eu"))
    with ciphermq.Sender(**address) as sender:
        sender.publish(elsewhere)
    with ciphermq.Receiver(**address, private_key=private) as receiver:
        with pytest.raises(ciphermq.Misdirected) as caught:
            receiver.receive(timeout=10)
        caught.value.message.release()
    with ciphermq.Receiver(**address, private_key=private, on_misdirected="warn") as receiver:
        message = receiver.receive(timeout=10)
        assert message is not None and message.text == "pay" and message.context == ciphermq.Context("orders", "eu")
        message.ack()


def test_keys_change_under_load_and_nothing_is_lost(ciphermq_broker: Broker) -> None:
    """Senders go over to a new key while messages to the old one wait."""
    address, keys = ciphermq_broker.address, ciphermq.Keyset(ciphermq.PrivateKey.generate("x25519"))
    sent: List[str] = []
    for generation in range(3):
        with ciphermq.Sender(**address, public_key=keys.public_key()) as sender:
            sent += sender.send_many(f"{generation} {n}" for n in range(200))
        keys.rotate(ciphermq.PrivateKey.generate("x-wing" if generation else "x25519"))
    with ciphermq.Receiver(**address, keyset=keys) as receiver:
        received = []
        for message in receiver:
            received.append(message.message_id)
            message.ack(wait=False)
            if len(received) == len(sent):
                break
    assert received == sent
    assert len(keys.prune(0)) == 3 and len(keys) == 1


def test_a_fresh_key_a_message_keeps_its_order_on_all_cores(ciphermq_broker: Broker, keys: Keys) -> None:
    """What original senders make: an RSA decryption for each message, spread over threads."""
    private, public = keys
    key, address = RSA.import_key(public.to_pem()), ciphermq_broker.address
    envelopes = [original(f"message {n}".encode(), key, f"m-{n}") for n in range(300)]
    spoilt = [17, 18, 250]
    for n in spoilt:
        envelopes[n] = original(b"x", RSA.import_key(ciphermq.generate_keypair()[1].to_pem()), f"m-{n}")
    with ciphermq.Sender(**address) as sender, ciphermq.Receiver(**address, private_key=private) as receiver:
        for envelope in envelopes:
            sender.publish(envelope)
        received: Dict[str, str] = {}
        failed = []
        while len(received) + len(failed) < len(envelopes):
            try:
                message = receiver.receive(timeout=20)
            except ciphermq.DecryptError as error:
                failed.append(error.message.message_id)
                error.message.reject()
                continue
            assert message is not None
            received[message.message_id] = message.text
            message.ack(wait=False)
    assert list(received) == [f"m-{n}" for n in range(300) if n not in spoilt], "out of order"
    assert received == {f"m-{n}": f"message {n}" for n in range(300) if n not in spoilt}
    assert failed == [f"m-{n}" for n in spoilt]


def original(text: bytes, key: RSA.RsaKey, message_id: str) -> str:
    session_key = get_random_bytes(16)
    cipher = AES.new(session_key, AES.MODE_GCM)
    ciphertext, tag = cipher.encrypt_and_digest(text)
    parts = {"enc_session_key": PKCS1_OAEP.new(key).encrypt(session_key), "nonce": cipher.nonce, "tag": tag, "ciphertext": ciphertext}
    return json.dumps({"message_id": message_id, **{name: base64.b64encode(part).decode() for name, part in parts.items()}})


def test_arguments_that_contradict_each_other_are_named(ciphermq_broker: Broker, keys: Keys) -> None:
    private, public = keys
    sealer, opener = ciphermq.Sealer(public), ciphermq.Opener(private)
    for wrong in (
        {"public_key": public, "recipients": [public]},
        {"public_key": public, "sealer": sealer},
        {"sealer": sealer, "padding": "padme"},
        {"identity": ciphermq.Identity.generate()},
    ):
        for make in (ciphermq.Sender, aio.Sender):
            with pytest.raises(TypeError):
                make(**ciphermq_broker.address, **wrong)
    for wrong in (
        {},
        {"private_key": private, "keyset": ciphermq.Keyset(private)},
        {"opener": opener, "require_signed": True},
        {"private_key": private, "require_signed": True},
    ):
        for make in (ciphermq.Receiver, aio.Receiver):
            with pytest.raises(TypeError):
                make(**ciphermq_broker.address, **wrong)


def test_the_same_with_asyncio(ciphermq_broker: Broker) -> None:
    private, me, address = ciphermq.PrivateKey.generate("x-wing"), ciphermq.Identity.generate(), ciphermq_broker.address

    async def talk() -> None:
        sealer = ciphermq.Sealer(private.public_key(), identity=me, compression="zstd")
        async with aio.Sender(**address, sealer=sealer) as sender:
            await sender.send("one by one")
            await sender.send_many(["a" * 5000] * 3)
        opener = ciphermq.Opener(private, senders=known(me))
        async with aio.Receiver(**address, opener=opener) as receiver:
            for _ in range(4):
                message = await receiver.receive(10)
                assert message is not None and message.sender == me.kid and message.suite == "2pq"
                await message.ack()

    asyncio.run(talk())


def test_keys_come_out_of_the_directory_when_the_pins_believe_them(ciphermq_broker: Broker, tmp_path: Path) -> None:
    me, liar, address = ciphermq.Identity.generate(), ciphermq.Identity.generate(), ciphermq_broker.address
    keys = ciphermq.Keyset(ciphermq.PrivateKey.generate("x-wing"))
    pins = ciphermq.Pins(tmp_path / "pins")
    with ciphermq.Receiver(**address, keyset=keys) as receiver, ciphermq.Sender(**address) as sender:
        assert sender.lookup_key("billing") is None
        with pytest.raises(ciphermq.Untrusted):
            sender.resolve("billing", pins)
        assert receiver.announce_key("billing", keys.public_key(), me).seq == 1
        first = sender.resolve("billing", pins)
        assert first.kid == keys.kids[0] and pins.identity("billing") == me.kid
        with pytest.raises(ciphermq.Refused, match="NOT_ALLOWED"):
            receiver.announce_key("billing", keys.public_key(), liar)
        for _ in range(3):
            keys.rotate(ciphermq.PrivateKey.generate("x-wing"))
            receiver.announce_key("billing", keys.public_key(), me)
        found = sender.lookup_key("billing")
        assert found is not None and (found.seq, found.kid, found.identity) == (4, keys.kids[0], me.kid)
        assert sender.resolve("billing", pins).public_key() == keys.public_key()
        assert sender.resolve_sender("billing", pins) == me.sender_key()
        receiver.announce_key("billing", None, me)
        with pytest.raises(ciphermq.Untrusted):
            sender.resolve("billing", pins)


def test_a_directory_that_changed_its_mind_is_not_believed(ciphermq_broker: Broker, tmp_path: Path) -> None:
    pins, key = ciphermq.Pins(tmp_path / "pins"), ciphermq.PrivateKey.generate("x25519").public_key()
    me, liar = ciphermq.Identity.generate(), ciphermq.Identity.generate()
    with ciphermq.Sender(**ciphermq_broker.address) as sender:
        sender.announce_key("billing", key, me)
        sender.resolve("billing", pins)
    ciphermq_broker.kill()
    ciphermq_broker.start()
    with ciphermq.Sender(**ciphermq_broker.address) as sender:
        sender.announce_key("billing", key, liar)
        with pytest.raises(ciphermq.KeyChanged) as caught:
            sender.resolve("billing", pins)
        assert isinstance(caught.value, ciphermq.Untrusted)


def test_the_directory_with_asyncio(ciphermq_broker: Broker, tmp_path: Path) -> None:
    me, key = ciphermq.Identity.generate(), ciphermq.PrivateKey.generate("x25519").public_key()

    async def talk() -> None:
        async with aio.Sender(**ciphermq_broker.address) as sender:
            await sender.announce_key("billing", key, me, not_after=2e9)
            found = await sender.lookup_key("billing")
            assert found is not None and found.kid == key.kid
            assert (await sender.resolve("billing", ciphermq.Pins(tmp_path / "pins"))).public_key() == key

    asyncio.run(talk())
