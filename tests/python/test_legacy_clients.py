"""Clients that behave as those of CipherMQ 0.2.0 and 1.0.0 work against our broker and with our package.

The programs are in tests/legacy_clients; their doc strings say what matters about them: one line for each recv(1024), a
64 KiB limit, replies that must start with certain words.
"""

import json
import socket
import threading
import time

import ciphermq
import pytest
from conftest import LEGACY_CLIENTS, LEGACY_PAUSE, eventually

SENDER_020 = LEGACY_CLIENTS / "sender_020.py"
RECEIVER_020 = LEGACY_CLIENTS / "receiver_020.py"
SENDER_100 = LEGACY_CLIENTS / "sender_100.py"
RECEIVER_100 = LEGACY_CLIENTS / "receiver_100.py"

SAMPLE = "This is a test hybrid message."
JSONL = "received_messages.jsonl"
LEASE = 30.0


def test_k01_a_020_sender_after_its_receiver(broker, start_client, workplace):
    here = workplace("k01", broker.port)
    receiver = start_client(RECEIVER_020, broker.port, cwd=here)
    receiver.wait_for("Server response for subscription: Subscribed to queue")
    sender = start_client(SENDER_020, broker.port, cwd=here)
    assert sender.wait() == 0
    assert "✅ [SENDER] Server ACK received for message" in sender.output
    assert "removed from pending messages" in sender.output
    assert [record["message"] for record in receiver.wait_for_records(1)] == [SAMPLE]
    receiver.wait_for("Server confirmed ACK for message")
    assert receiver.interrupt() == 0


def test_k02_a_020_sender_before_its_receiver(broker, start_client, workplace):
    here = workplace("k02", broker.port)
    assert start_client(SENDER_020, broker.port, cwd=here).wait() == 0
    receiver = start_client(RECEIVER_020, broker.port, cwd=here)
    assert [record["message"] for record in receiver.wait_for_records(1)] == [SAMPLE]
    receiver.wait_for("Server confirmed ACK for message")


def test_k03_a_020_receiver_takes_a_backlog_of_40(broker, start_client, workplace, legacy_messages):
    messages = legacy_messages(40)
    publish(broker, messages)
    receiver = start_client(RECEIVER_020, broker.port, cwd=workplace("k03", broker.port))
    records = receiver.wait_for_records(40)
    eventually(lambda: broker.is_empty("default_queue"), "all to be acknowledged")
    assert [record["message_id"] for record in records] == [message["message_id"] for message in messages]
    for trouble in ("Unexpected", "JSON error", "Unknown message", "Duplicate", "Timeout"):
        assert trouble not in receiver.output
    assert len(receiver.records()) == 40


def test_k04_a_100_receiver_and_its_sender(broker, start_client, workplace):
    here = workplace("k04", broker.port)
    receiver = start_client(RECEIVER_100, cwd=here)
    receiver.wait_for("Server response for subscription: Subscribed to queue")
    sender = start_client(SENDER_100, cwd=here)
    assert sender.wait() == 0
    assert sender.output.count("✅ [SENDER] Server ACK received for message") == 9
    records = receiver.wait_for_records(9, JSONL)
    assert [record["message"] for record in records] == [f"Test message {n}" for n in range(1, 10)]
    assert "Unhandled" not in receiver.output
    assert "JSON error" not in receiver.output


def test_k05_a_100_sender_needs_its_receivers_declarations_once(broker, start_client, workplace):
    here = workplace("k05", broker.port)
    early = start_client(SENDER_100, 5, cwd=here)
    assert early.wait() == 1
    assert "Error: Exchange 'ciphermq1_exchange' not found for message " in early.output
    assert "❌ [SENDER] Failed to send batch after 3 attempts." in early.output
    receiver = start_client(RECEIVER_100, cwd=here)
    receiver.wait_for("Server response for subscription: Subscribed to queue")
    assert start_client(SENDER_100, 5, cwd=here).wait() == 0
    assert len(receiver.wait_for_records(5, JSONL)) == 5


def test_k06_a_020_sender_whose_first_ack_is_lost_succeeds_at_the_second_attempt(broker, start_client, workplace):
    here = workplace("k06", broker.port)
    with LosesTheFirstReply(broker.port) as port:
        sender = start_client(SENDER_020, port, cwd=here)
        assert sender.wait() == 0
    assert "retrying (1/3)" in sender.output
    assert "(Attempt 2/3)" in sender.output and "(Attempt 3/3)" not in sender.output
    row = broker.queue("default_queue")
    assert row["ready"] == 1, row


def test_k07_a_message_survives_kill_9_of_the_broker_between_ack_and_delivery(
    start_broker, start_client, workplace, tmp_path
):
    broker = start_broker(*LEGACY_PAUSE, data_dir=tmp_path / "data")
    here = workplace("k07", broker.port)
    assert start_client(SENDER_020, broker.port, cwd=here).wait() == 0
    broker.kill()
    broker = start_broker(*LEGACY_PAUSE, data_dir=tmp_path / "data", port=broker.port)
    receiver = start_client(RECEIVER_020, broker.port, cwd=here)
    assert [record["message"] for record in receiver.wait_for_records(1)] == [SAMPLE]
    receiver.wait_for("Server confirmed ACK for message")
    broker.kill()
    broker = start_broker(*LEGACY_PAUSE, data_dir=tmp_path / "data")
    assert broker.is_empty("default_queue")


def test_k08_a_killed_receivers_message_reaches_the_next_one_at_once(broker, start_client, workplace):
    here = workplace("k08", broker.port)
    assert start_client(SENDER_020, broker.port, cwd=here).wait() == 0
    first = start_client(RECEIVER_020, broker.port, cwd=here, DIE_BEFORE_ACK="yes")
    first.wait_for("before the ack")
    second = start_client(RECEIVER_020, broker.port, cwd=workplace("k08-next", broker.port))
    second.wait_for("Server response for subscription: Subscribed to queue")
    killed = time.monotonic()
    first.kill()
    assert [record["message"] for record in second.wait_for_records(1)] == [SAMPLE]
    assert time.monotonic() - killed < LEASE / 2


def test_k09_a_message_for_another_key_lets_others_pass_and_ends_in_the_dead_letter_queue(
    start_broker, start_client, workplace, legacy_messages
):
    broker = start_broker(*LEGACY_PAUSE, "--lease-ms", "1000", "--max-attempts", "2")
    _, stranger = ciphermq.generate_keypair()
    poison = json.loads(ciphermq.seal("for somebody else", stranger))
    good = legacy_messages(3)
    publish(broker, [poison, *good])
    receiver = start_client(RECEIVER_020, broker.port, cwd=workplace("k09", broker.port))
    records = receiver.wait_for_records(3)
    assert [record["message_id"] for record in records] == [message["message_id"] for message in good]
    eventually(lambda: (broker.queue("default_queue.dlq") or {}).get("ready") == 1, "the poison to be moved")
    assert receiver.output.count(f"Decryption failed for message {poison['message_id']}") == 2
    assert broker.is_empty("default_queue")


def test_k14_two_020_receivers_share_the_work(broker, start_client, workplace, legacy_messages):
    receivers = [start_client(RECEIVER_020, broker.port, cwd=workplace(f"k14-{n}", broker.port)) for n in range(2)]
    for receiver in receivers:
        receiver.wait_for("Server response for subscription: Subscribed to queue")
    messages = legacy_messages(60)
    publish(broker, messages)
    eventually(lambda: broker.is_empty("default_queue"), "all to be acknowledged")
    eventually(lambda: sum(len(receiver.records()) for receiver in receivers) >= 60, "all to be written")
    received = [record["message_id"] for receiver in receivers for record in receiver.records()]
    assert sorted(received) == sorted(message["message_id"] for message in messages)
    assert all(len(receiver.records()) >= 10 for receiver in receivers)


@pytest.mark.parametrize("text", [SAMPLE, "", "Grüße, 世界 🚀"], ids=["sample", "empty", "non-ASCII"])
def test_k17_our_sender_and_a_020_receiver(broker, start_client, workplace, our_keys, text):
    receiver = start_client(RECEIVER_020, broker.port, cwd=workplace("k17", broker.port))
    with ciphermq.Sender(port=broker.port, public_key=our_keys[1]) as sender:
        message_id = sender.send(text)
    (record,) = receiver.wait_for_records(1)
    assert (record["message_id"], record["message"]) == (message_id, text)
    eventually(lambda: broker.is_empty("default_queue"), "it to be acknowledged")


def test_k17_our_sender_and_a_100_receiver(broker, start_client, workplace, our_keys):
    receiver = start_client(RECEIVER_100, cwd=workplace("k17", broker.port))
    receiver.wait_for("Server response for subscription: Subscribed to queue")
    texts = [SAMPLE, "x" * 40_000, "Grüße"]
    names = {"exchange": "ciphermq1_exchange", "routing_key": "ciphermq1_key"}
    with ciphermq.Sender(port=broker.port, public_key=our_keys[1], **names) as sender:
        ids = sender.send_many(texts)
    records = receiver.wait_for_records(3, JSONL)
    assert [(record["message_id"], record["message"]) for record in records] == list(zip(ids, texts))


def test_k17_a_020_sender_and_our_receiver(broker, start_client, workplace, our_keys):
    here = workplace("k17", broker.port)
    assert start_client(SENDER_020, broker.port, SAMPLE, cwd=here).wait() == 0
    with ciphermq.Receiver(port=broker.port, private_key=our_keys[0]) as receiver:
        message = receiver.receive(timeout=10)
        assert message.text == SAMPLE
        message.ack()
    assert broker.is_empty("default_queue")


def test_k17_a_100_sender_and_our_receiver(broker, start_client, workplace, our_keys):
    here = workplace("k17", broker.port)
    with ciphermq.Receiver(port=broker.port, private_key=our_keys[0], queue="ciphermq1_queue") as receiver:
        receiver.declare_queue("ciphermq1_queue")
        receiver.declare_exchange("ciphermq1_exchange")
        receiver.bind("ciphermq1_exchange", "ciphermq1_queue", "ciphermq1_key")
        assert start_client(SENDER_100, cwd=here).wait() == 0
        for n in range(1, 10):
            message = receiver.receive(timeout=10)
            assert message.text == f"Test message {n}"
            message.ack()
    assert broker.is_empty("ciphermq1_queue")


@pytest.fixture
def legacy_messages(legacy_keys, monkeypatch):
    """Envelopes as the originals make them; they look for the key in the current directory."""
    import envelope

    monkeypatch.chdir(legacy_keys)
    return lambda count: [envelope.encrypt(f"message {n}") for n in range(count)]


@pytest.fixture
def our_keys(legacy_keys):
    """The originals' key files, read by our package."""
    private = ciphermq.PrivateKey.from_pem((legacy_keys / "receiver_private.pem").read_bytes())
    public = ciphermq.PublicKey.from_pem((legacy_keys / "receiver_public.pem").read_bytes())
    return private, public


def publish(broker, messages):
    with broker.connect() as connection:
        for message in messages:
            reply = connection.ask(f"publish default_exchange default_key {json.dumps(message)}")
            assert reply == f"ACK {message['message_id']}"


class LosesTheFirstReply:
    """A proxy in front of a broker that swallows the first thing the broker says."""

    def __init__(self, port):
        self._broker = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._first = True
        self._sockets = [self._listener]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self._listener.getsockname()[1]

    def __exit__(self, *_):
        for end in self._sockets:
            end.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._broker))
            self._sockets += [client, server]
            swallow, self._first = self._first, False
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, swallow), daemon=True).start()

    @staticmethod
    def _pass(source, target, swallow):
        try:
            while data := source.recv(65536):
                if swallow:
                    swallow = False
                else:
                    target.sendall(data)
        except OSError:
            pass
