"""The examples do what they say, also when something is in their way."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT, eventually

SENDER = ROOT / "examples" / "sender.py"
RECEIVER = ROOT / "examples" / "receiver.py"
DEMO = ROOT / "examples" / "demo.py"

PUBLIC = ("--public-key", "receiver_public.pem")
PRIVATE = ("--private-key", "receiver_private.pem")


@pytest.fixture
def here(workplace, broker):
    return workplace("examples", broker.port)


def send(broker, here, *messages, **settings):
    command = [sys.executable, str(SENDER), "--port", str(broker.port), *PUBLIC, *messages]
    return subprocess.run(command, cwd=here, capture_output=True, text=True, encoding="utf-8", timeout=60, **settings)


def test_every_message_arrives_once_and_the_console_tells_the_story(broker, start_client, here):
    receiver = start_client(RECEIVER, "--port", broker.port, *PRIVATE, "--count", 2, cwd=here)
    sent = send(broker, here, "Hello", "Grüße 🚀")
    assert sent.returncode == 0, sent.stderr
    assert receiver.wait() == 0
    records = receiver.records()
    assert [record["message"] for record in records] == ["Hello", "Grüße 🚀"]
    assert all(set(record) == {"message_id", "message", "timestamp"} for record in records)
    assert broker.is_empty("default_queue")

    first = records[0]["message_id"]
    in_order(
        sent.stdout,
        "📝 [SENDER] Original message: Hello",
        f"📤 [SENDER] Message {first} added to pending messages",
        f"📦 [SENDER] Encrypted data for message {first}:",
        f"🚀 [SENDER] Sending message {first} to server (Attempt 1/3)",
        f"✅ [SENDER] Server ACK received for message {first}: ACK {first}",
        f"🗑️ [SENDER] Message {first} removed from pending messages",
    )
    in_order(
        receiver.output,
        "📝 [RECEIVER] Starting message processing...",
        "✅ [RECEIVER] Connection established.",
        "🚀 [RECEIVER] Subscribing to queue default_queue",
        "✅ [RECEIVER] Server response for subscription: Subscribed to queue",
        f"📩 [RECEIVER] Raw message received: Message: {first} {{",
        f"🔍 [RECEIVER] Processing message {first}",
        f"✅ [RECEIVER] Decrypted message {first}: Hello",
        f"📥 [RECEIVER] Message read from queue: {first}, Hello",
        f"💾 [RECEIVER] Message {first} saved to file",
        f"📤 [RECEIVER] Sending ACK for message {first} (Attempt 1/3)",
        f"✅ [RECEIVER] Server confirmed ACK for message {first}: ACK_CONFIRMED {first}",
    )


def test_messages_come_from_standard_input(broker, start_client, here):
    sent = send(broker, here, "-", input="one\ntwo\n")
    assert sent.returncode == 0, sent.stderr
    receiver = start_client(RECEIVER, "--port", broker.port, *PRIVATE, "--count", 2, cwd=here)
    assert receiver.wait() == 0
    assert [record["message"] for record in receiver.records()] == ["one", "two"]


def test_a_receiver_ends_cleanly_on_ctrl_c(broker, start_client, here):
    receiver = start_client(RECEIVER, "--port", broker.port, *PRIVATE, cwd=here)
    receiver.wait_for("Subscribed to queue")
    assert receiver.interrupt() == 0
    assert "🛑 [RECEIVER] Received SIGINT, shutting down..." in receiver.output
    assert "🛑 [RECEIVER] Message processing stopped." in receiver.output
    assert "Traceback" not in receiver.output


def test_what_a_crash_left_in_the_file_is_not_written_twice(broker, start_client, here):
    # Written but not acknowledged, and a line that was cut off.
    assert send(broker, here, "written before", "cut off").returncode == 0
    with broker.connect() as connection:
        ids = [connection.ask("fetch default_queue").split(" ")[1] for _ in range(2)]
    whole = {"message_id": ids[0], "message": "written before", "timestamp": 1.0}
    (here / "received_messages.json").write_text(json.dumps(whole) + '\n{"message_id": "' + ids[1])

    receiver = start_client(RECEIVER, "--port", broker.port, *PRIVATE, "--count", 1, cwd=here)
    assert receiver.wait() == 0
    assert f"⚠️ [RECEIVER] Duplicate message {ids[0]}, sending ACK" in receiver.output
    lines = (here / "received_messages.json").read_text().splitlines()
    assert json.loads(lines[0]) == whole
    assert json.loads(lines[2])["message_id"] == ids[1]
    assert len(lines) == 3
    assert broker.is_empty("default_queue")


def test_a_message_for_another_key_is_said_to_be_undecryptable_and_not_acknowledged(broker, start_client, here, tmp_path):
    import ciphermq

    ciphermq.write_keypair(str(tmp_path / "other"), ciphermq.generate_keypair()[0])
    other = send(broker, here, "secret", "--public-key", str(tmp_path / "other" / "receiver_public.pem"))
    assert other.returncode == 0, other.stderr
    assert send(broker, here, "readable").returncode == 0
    receiver = start_client(RECEIVER, "--port", broker.port, *PRIVATE, "--count", 1, cwd=here)
    assert receiver.wait() == 0
    assert "❌ [RECEIVER] Decryption failed for message" in receiver.output
    assert [record["message"] for record in receiver.records()] == ["readable"]
    eventually(lambda: broker.queue("default_queue")["delayed"] == 1, "the other message to wait for another try")


def test_a_refused_message_stays_pending_and_the_exit_code_says_so(broker, here):
    refused = send(broker, here, "lost?", "--key", "nobody")
    assert refused.returncode == 1
    assert "⚠️ [SENDER] Unexpected server response:" in refused.stdout
    assert "1 messages are still pending" in refused.stdout
    assert "Traceback" not in refused.stderr


def test_without_a_broker_the_sender_gives_up_after_three_tries(broker, here):
    broker.kill()
    failed = send(broker, here, "lost?")
    assert failed.returncode == 1
    assert "(Attempt 3/3)" in failed.stdout
    assert "after 3 attempts." in failed.stdout
    assert "Traceback" not in failed.stderr


def test_without_a_key_both_say_how_to_make_one(broker, start_client, tmp_path):
    sender = start_client(SENDER, "--port", broker.port, cwd=tmp_path)
    receiver = start_client(RECEIVER, "--port", broker.port, cwd=tmp_path)
    for client in (sender, receiver):
        assert client.wait() == 1
        assert "ciphermq keygen --out keys" in client.output
        assert "Traceback" not in client.output


def test_the_demo_delivers_everything_and_leaves_nothing_running(ciphermq_binary, tmp_path):
    demo = subprocess.run(
        [sys.executable, DEMO, "--ciphermq", ciphermq_binary, "--keys", tmp_path / "keys"],
        capture_output=True, text=True, encoding="utf-8", timeout=120,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "3 messages sent, 3 received, each exactly once." in demo.stdout


def in_order(output, *lines):
    at = 0
    for line in lines:
        found = output.find(line, at)
        assert found >= 0, f"{line!r} is missing, or not in this place:\n{output}"
        at = found + len(line)
