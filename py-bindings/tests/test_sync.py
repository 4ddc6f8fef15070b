"""`Sender` and `Receiver` against the real broker."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Iterator

import ciphermq
import pytest
from ciphermq.testing import Broker

from conftest import Keys, eventually


@pytest.fixture
def sender(ciphermq_broker: Broker, keys: Keys) -> Iterator[ciphermq.Sender]:
    with ciphermq.Sender(**ciphermq_broker.address, public_key=keys[1]) as sender:
        yield sender


@pytest.fixture
def receiver(ciphermq_broker: Broker, keys: Keys) -> Iterator[ciphermq.Receiver]:
    with ciphermq.Receiver(**ciphermq_broker.address, private_key=keys[0]) as receiver:
        yield receiver


def test_a_message_arrives_with_all_that_belongs_to_it(sender: ciphermq.Sender, receiver: ciphermq.Receiver) -> None:
    message_id = sender.send("the goods are on the dock 🚚")
    message = receiver.receive(timeout=10)
    assert message is not None
    assert message.message_id == message_id
    assert message.text == "the goods are on the dock 🚚" and message.body == message.text.encode()
    assert (message.queue, message.exchange) == ("default_queue", "default_exchange")
    assert message.routing_key == "default_key"
    assert message.attempt == 1 and message.published > 1.7e9 and message.dead_letter is None
    assert json.loads(message.envelope or "")["message_id"] == message_id
    assert "dock" not in repr(message) and message_id in repr(message)
    message.ack()
    assert message.envelope is None and message.body
    status = sender.status(message_id)
    assert status is not None and status["copies"][0]["status"] == "Acknowledged"


def test_send_returns_when_the_broker_has_it(sender: ciphermq.Sender) -> None:
    assert sender.send("x", message_id="order-1") == "order-1"
    status = sender.status("order-1")
    assert status is not None and status["copies"][0]["status"] == "Sent"
    assert sender.pending == 0 and sender.connected
    assert sender.status("never") is None


def test_sending_again_under_an_id_is_no_second_copy(sender: ciphermq.Sender, receiver: ciphermq.Receiver) -> None:
    for _ in range(3):
        sender.send("x", message_id="once")
    messages = receiver.fetch(10, wait=10)
    assert [message.message_id for message in messages] == ["once"]
    assert receiver.fetch(10, wait=0) == []


def test_sealed_first_and_published_later(sender: ciphermq.Sender, receiver: ciphermq.Receiver, keys: Keys) -> None:
    envelope = ciphermq.seal("sealed before", keys[1], message_id="early")
    assert sender.publish(envelope, "early") == "early"
    message = receiver.receive(timeout=10)
    assert message is not None and message.envelope == envelope and message.text == "sealed before"
    with pytest.raises(ValueError, match="message_id"):
        sender.publish(envelope, "another")
    with pytest.raises(ciphermq.EnvelopeError):
        sender.publish("{}")


def test_many_messages_keep_their_order(sender: ciphermq.Sender, receiver: ciphermq.Receiver) -> None:
    texts = [f"message {n}" for n in range(3000)]
    ids = sender.send_many(iter(texts))
    assert len(set(ids)) == 3000 and sender.pending == 0
    received = []
    for message in receiver:
        received.append((message.message_id, message.text))
        message.ack(wait=False)
        if len(received) == 3000:
            break
    assert received == list(zip(ids, texts))
    receiver.ping()
    [queue] = [queue for queue in sender.list_queues() if queue["queue"] == "default_queue"]
    assert queue["ready"] == queue["leased"] == 0


def test_send_many_of_nothing_is_nothing(sender: ciphermq.Sender) -> None:
    assert sender.send_many([]) == []


def test_send_many_says_what_was_confirmed(sender: ciphermq.Sender, keys: Keys) -> None:
    sender.declare_queue("small", max_messages=10)
    sender.bind("default_exchange", "small", "small")
    with ciphermq.Sender(port=_port(sender), public_key=keys[1], routing_key="small") as small:
        with pytest.raises(ciphermq.Full) as caught:
            small.send_many(f"{n}" for n in range(600))
    assert len(caught.value.confirmed) == 10
    assert caught.value.code == "QUEUE_FULL" and caught.value.message_id not in caught.value.confirmed


def test_with_acks_on_success_and_gives_back_on_an_error(sender: ciphermq.Sender, receiver: ciphermq.Receiver) -> None:
    sender.send("x")
    for expected in (1, 2):
        message = receiver.receive(timeout=10)
        assert message is not None and message.attempt == expected
        if expected == 1:
            with pytest.raises(RuntimeError, match="work failed"), message:
                raise RuntimeError("work failed")
        else:
            with message as same:
                assert same is message
    assert receiver.receive(timeout=0) is None
    with pytest.raises(ciphermq.LeaseLost, match="settled before"):
        message.ack()


def test_with_leaves_a_message_that_was_settled_inside(
    sender: ciphermq.Sender, receiver: ciphermq.Receiver, keys: Keys
) -> None:
    sender.send("x")
    message = receiver.receive(timeout=10)
    assert message is not None
    with message:
        message.reject()
    with ciphermq.Receiver(port=_port(sender), private_key=keys[0], queue="default_queue.dlq") as dead:
        [letter] = dead.fetch(1, wait=10)
        assert letter.dead_letter == ("default_queue", "rejected") and letter.text == "x"


def test_ctrl_c_in_the_work_uses_up_no_attempt(sender: ciphermq.Sender, receiver: ciphermq.Receiver) -> None:
    sender.send("x")
    message = receiver.receive(timeout=10)
    assert message is not None
    with pytest.raises(KeyboardInterrupt), message:
        raise KeyboardInterrupt
    again = receiver.receive(timeout=10)
    assert again is not None and again.attempt == 1


def test_nack_with_a_delay_and_release(sender: ciphermq.Sender, receiver: ciphermq.Receiver) -> None:
    sender.send("x")
    first = receiver.receive(timeout=10)
    assert first is not None
    first.touch()
    first.nack(delay=0.05)
    second = receiver.receive(timeout=10)
    assert second is not None and second.attempt == 2
    second.release()
    third = receiver.receive(timeout=10)
    assert third is not None and third.attempt == 2


def test_a_message_that_is_dropped_goes_back(sender: ciphermq.Sender, receiver: ciphermq.Receiver) -> None:
    sender.send("x")
    message = receiver.receive(timeout=10)
    assert message is not None
    del message
    again = receiver.receive(timeout=10)
    assert again is not None and again.attempt == 1


def test_fetch_returns_none_to_n(sender: ciphermq.Sender, receiver: ciphermq.Receiver) -> None:
    assert receiver.fetch(5, wait=0) == [] and receiver.fetch(5, wait=0.01) == []
    sender.send_many(str(n) for n in range(8))
    got = []
    while len(got) < 8:
        some = receiver.fetch(5, wait=10)
        assert 1 <= len(some) <= 5
        got += some
    assert [message.text for message in got] == [str(n) for n in range(8)]
    assert receiver.receive(timeout=0) is None


def test_prefetch_bounds_what_is_in_hand(sender: ciphermq.Sender, keys: Keys) -> None:
    sender.send_many(str(n) for n in range(5))
    with ciphermq.Receiver(port=_port(sender), private_key=keys[0], prefetch=2) as receiver:
        held = [receiver.receive(timeout=10), receiver.receive(timeout=10)]
        assert receiver.receive(timeout=0.05) is None
        assert held[0] is not None
        held[0].ack()
        third = receiver.receive(timeout=10)
        assert third is not None and third.text == "2"


def test_closing_ends_the_iteration_of_another_thread(receiver: ciphermq.Receiver) -> None:
    received = []
    thread = threading.Thread(target=lambda: received.extend(receiver))
    receiver.subscribe()
    thread.start()
    receiver.close()
    thread.join(20)
    assert not thread.is_alive() and received == []
    assert list(receiver) == [] and receiver.closed
    with pytest.raises(ciphermq.Closed):
        receiver.receive(timeout=1)


def test_unsubscribing_ends_the_wait_of_another_thread(sender: ciphermq.Sender, receiver: ciphermq.Receiver) -> None:
    outcome = []
    receiver.subscribe()
    thread = threading.Thread(target=lambda: outcome.append(receiver.receive()))
    thread.start()

    def has_ended() -> bool:
        receiver.unsubscribe()
        return bool(outcome)

    eventually(has_ended)
    thread.join()
    assert outcome == [None] and sender.list_queues()[0]["consumers"] == 0
    sender.send("later")
    later = receiver.receive(timeout=10)
    assert later is not None and later.text == "later"


def test_topology_is_made_listed_and_taken_away(sender: ciphermq.Sender) -> None:
    bounds = {"max_messages": 9, "max_bytes": 10_000}
    sender.declare_queue("jobs", lease=12.5, max_attempts=3, dead_letter="jobs.failed", durability="interval:50", **bounds)
    with pytest.raises(ValueError, match="durability"):
        sender.declare_queue("other", durability="fsync")
    sender.declare_exchange("work")
    sender.bind("work", "jobs", "job")
    [jobs] = [queue for queue in sender.list_queues() if queue["queue"] == "jobs"]
    assert (jobs["lease"], jobs["max_attempts"], jobs["dead_letter"]) == (12.5, 3, "jobs.failed")
    assert (jobs["max_messages"], jobs["max_bytes"], jobs["ready"]) == (9, 10_000, 0)
    assert jobs["durability"] == "interval:50"
    assert {"exchange": "work", "kind": "direct", "bindings": 1} in sender.list_exchanges()
    assert sender.list_bindings("work") == [{"exchange": "work", "queue": "jobs", "routing_key": "job"}]
    sender.send("x", exchange="work", routing_key="job")
    with pytest.raises(ciphermq.Refused) as caught:
        sender.delete_queue("jobs")
    assert caught.value.code == "NOT_EMPTY"
    assert sender.purge("jobs") == 1
    sender.unbind("work", "jobs", "job")
    sender.delete_queue("jobs", force=True)
    sender.delete_exchange("work")
    assert sender.list_bindings() == [
        {"exchange": "default_exchange", "queue": "default_queue", "routing_key": "default_key"}
    ]
    assert sender.stats()["published"] == 1
    assert sender.ping() > 0


def test_a_message_that_does_not_open_comes_with_its_handle(
    sender: ciphermq.Sender, receiver: ciphermq.Receiver, other_keys: Keys
) -> None:
    sender.publish(ciphermq.seal("not for you", other_keys[1], message_id="foreign"))
    sender.send("for you")
    with pytest.raises(ciphermq.DecryptError) as caught:
        next(receiver)
    message = caught.value.message
    assert isinstance(message, ciphermq.Message) and message.message_id == "foreign"
    assert json.loads(message.envelope or "")["message_id"] == "foreign"
    with pytest.raises(ciphermq.DecryptError):
        message.body
    message.reject()
    assert next(receiver).text == "for you"


def test_fetch_returns_what_opens_before_it_raises(
    sender: ciphermq.Sender, receiver: ciphermq.Receiver, other_keys: Keys
) -> None:
    sender.send("first")
    sender.publish(ciphermq.seal("x", other_keys[1]))
    sender.send("third")
    eventually(lambda: sender.list_queues()[0]["ready"] == 3)
    texts, refused = [], 0
    while len(texts) < 2:
        try:
            for message in receiver.fetch(10, wait=10):
                texts.append(message.text)
                message.ack()
        except ciphermq.DecryptError as error:
            refused += 1
            assert error.message is not None
            error.message.reject()
    assert texts == ["first", "third"] and refused == 1


def test_undecryptable_messages_can_be_put_away(
    sender: ciphermq.Sender, keys: Keys, other_keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    sender.publish(ciphermq.seal("x", other_keys[1], message_id="foreign"))
    sender.send("mine")
    with caplog.at_level(logging.WARNING, logger="ciphermq"):
        with ciphermq.Receiver(port=_port(sender), private_key=keys[0], on_undecryptable="reject") as receiver:
            message = receiver.receive(timeout=10)
            assert message is not None and message.text == "mine"
            assert receiver.rejected == 1
    with ciphermq.Receiver(port=_port(sender), private_key=other_keys[0], queue="default_queue.dlq") as dead:
        letter = dead.receive(timeout=10)
        assert letter is not None and letter.message_id == "foreign"
    assert any("foreign" in record.getMessage() for record in caplog.records)


def test_dedupe_hands_a_message_over_once_across_restarts(ciphermq_broker: Broker, keys: Keys, tmp_path: Path) -> None:
    """A broker that forgot, as after a lost acknowledgement, delivers again; the receiver's file knows better."""
    envelope = ciphermq.seal("x", keys[1], message_id="seen")
    options = {"private_key": keys[0], "dedupe": tmp_path / "seen.db", "dedupe_sync": True}
    address = ciphermq_broker.address
    with ciphermq.Sender(**address) as sender, ciphermq.Receiver(**address, **options) as receiver:
        sender.publish(envelope)
        message = receiver.receive(timeout=10)
        assert message is not None
        message.ack()
    ciphermq_broker.restart()
    with ciphermq.Sender(**address) as sender, ciphermq.Receiver(**address, **options) as receiver:
        sender.publish(envelope)
        sender.publish(ciphermq.seal("new", keys[1]))
        message = receiver.receive(timeout=10)
        assert message is not None and message.text == "new"
        assert receiver.duplicates == 1


def test_a_lease_that_ran_out_in_hand_goes_on(keys: Keys) -> None:
    """With dedupe the second delivery is the one in hand, which can be settled."""
    with Broker(lease=0.05) as broker:
        with ciphermq.Sender(**broker.address, public_key=keys[1]) as sender:
            with ciphermq.Receiver(**broker.address, private_key=keys[0], dedupe=True) as receiver:
                sender.send("slow", message_id="slow")
                message = receiver.receive(timeout=10)
                assert message is not None

                def is_delivered_again() -> bool:
                    assert receiver.receive(timeout=0.02) is None
                    status = sender.status("slow")
                    return status is not None and status["copies"][0]["attempts"] >= 2

                eventually(is_delivered_again)
                message.ack()
                status = sender.status("slow")
                assert status is not None and status["copies"][0]["status"] == "Acknowledged"


def test_a_copy_under_another_id_is_recognised(ciphermq_broker: Broker, keys: Keys) -> None:
    address = ciphermq_broker.address
    original = ciphermq.seal("pay once", keys[1], message_id="first")
    copies = [original.replace('"first"', f'"copy-{n}"') for n in range(3)]
    with ciphermq.Sender(**address) as sender:
        with ciphermq.Receiver(**address, private_key=keys[0], dedupe=True) as receiver:
            for envelope in (original, *copies[:2]):
                sender.publish(envelope)
            message = receiver.receive(timeout=10)
            assert message is not None and message.message_id == "first"
            assert receiver.receive(timeout=0.1) is None, "the copies came while the first was in hand"
            message.ack()
            sender.publish(copies[2])
            assert receiver.receive(timeout=0.1) is None
            eventually(lambda: receiver.receive(timeout=0) is None and receiver.duplicates == 3)


def test_a_timeout_holds_while_another_thread_waits(sender: ciphermq.Sender, receiver: ciphermq.Receiver) -> None:
    got = []
    thread = threading.Thread(target=lambda: got.append(receiver.receive()))
    thread.start()
    eventually(lambda: sender.list_queues()[0]["consumers"] == 1)
    for _ in range(3):
        assert receiver.receive(timeout=0.02) is None and receiver.fetch(3, wait=0) == []
    sender.send("x")
    thread.join(20)
    assert got[0].text == "x"


def test_two_receivers_share_a_queue(sender: ciphermq.Sender, keys: Keys) -> None:
    options = {"port": _port(sender), "private_key": keys[0]}
    with ciphermq.Receiver(**options) as one, ciphermq.Receiver(**options) as two:
        one.subscribe()
        two.subscribe()
        sender.send_many(str(n) for n in range(100))
        texts = []
        while len(texts) < 100:
            for receiver in (one, two):
                for message in receiver.fetch(100, wait=0.01):
                    texts.append(message.text)
                    message.ack(wait=False)
    assert sorted(texts, key=int) == [str(n) for n in range(100)]


def test_threads_share_a_sender(sender: ciphermq.Sender, receiver: ciphermq.Receiver) -> None:
    threads = [threading.Thread(target=lambda: [sender.send("x") for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = set()
    while len(ids) < 400:
        for message in receiver.fetch(400, wait=10):
            assert message.message_id not in ids
            ids.add(message.message_id)
            message.ack(wait=False)
    assert receiver.receive(timeout=0) is None and sender.pending == 0


def _port(connected: ciphermq.Sender) -> int:
    return connected.address[1]
