"""Envelopes over files, RabbitMQ and Kafka: the examples do what they say, the latter two with a stand-in for the client."""

import importlib.util
import subprocess
import sys
import types

import pytest
from conftest import ROOT

import ciphermq

EXAMPLES = ROOT / "examples"


def run(*arguments, fails=False):
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert (done.returncode != 0) == fails, done.stderr
    return done


@pytest.fixture
def keys(tmp_path):
    run(EXAMPLES / "sealed_keys.py", tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def keyring(monkeypatch):
    """What the examples share."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return load("sealed_keys")


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_file_is_opened_whole_or_not_at_all(keys, tmp_path):
    content = bytes(i % 251 for i in range(9 << 20))
    report = tmp_path / "report.pdf"
    report.write_bytes(content)
    run(EXAMPLES / "sealed_files.py", "seal", keys, report)
    report.unlink()
    sealed = tmp_path / "report.pdf.sealed"
    lines = sealed.read_text().splitlines(keepends=True)
    assert len(lines) == 3 and content[:100].hex() not in sealed.read_text()
    run(EXAMPLES / "sealed_files.py", "open", keys, sealed)
    assert report.read_bytes() == content
    assert "File exists" in run(EXAMPLES / "sealed_files.py", "open", keys, sealed, fails=True).stderr
    report.unlink()
    renamed = tmp_path / "invoice.pdf.sealed"
    renamed.write_text("".join(lines))
    assert "another routing key" in run(EXAMPLES / "sealed_files.py", "open", keys, renamed, fails=True).stderr
    sealed.write_text("".join(lines[:2]))
    assert "a part is missing" in run(EXAMPLES / "sealed_files.py", "open", keys, sealed, fails=True).stderr
    assert not report.exists() and not (tmp_path / "invoice.pdf").exists()


class Rabbit(types.ModuleType):
    """As much of pika as the example uses."""

    def __init__(self):
        super().__init__("pika")
        self.queue, self.acked, self.rejected = [], [], []
        self.ConnectionParameters = lambda host, port: (host, port)
        self.BlockingConnection = self.connect
        self.BasicProperties = types.SimpleNamespace

    def connect(self, parameters):
        assert parameters == ("localhost", 5672)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def channel(self):
        return self

    def queue_declare(self, queue, durable):
        assert durable

    def confirm_delivery(self):
        pass

    def basic_publish(self, exchange, routing_key, body, properties):
        assert properties.delivery_mode == 2
        self.queue.append((exchange, routing_key, body))

    def basic_consume(self, queue, on_message):
        self.on_message = on_message

    def basic_ack(self, tag):
        self.acked.append(tag)

    def basic_reject(self, tag, requeue):
        assert not requeue
        self.rejected.append(tag)

    def start_consuming(self):
        for tag, (exchange, routing_key, body) in enumerate(self.queue):
            method = types.SimpleNamespace(delivery_tag=tag, exchange=exchange, routing_key=routing_key)
            self.on_message(self, method, None, body)


def test_messages_go_through_rabbitmq(keys, keyring, monkeypatch, capsys):
    rabbit = Rabbit()
    monkeypatch.setitem(sys.modules, "pika", rabbit)
    example = load("sealed_rabbitmq")
    server, sealer = "localhost:5672", keyring.sealer(keys)
    example.send(server, sealer, "the goods are on the dock")
    example.send(server, sealer, "and more")
    assert all(b"dock" not in body for _, _, body in rabbit.queue)
    public = ciphermq.PublicKey.from_file(keys / "receiver_public.pem")
    rabbit.queue.append(("", "sealed", ciphermq.seal("let me in", public).encode()))
    rabbit.queue.append(("", "elsewhere", rabbit.queue[0][2]))
    example.receive(server, keyring.opener(keys))
    assert capsys.readouterr().out == "the goods are on the dock\nand more\n"
    assert (rabbit.acked, rabbit.rejected) == ([0, 1], [2, 3])


def test_messages_go_through_kafka(keys, keyring, monkeypatch, capsys):
    records, committed = [], []
    kafka = types.ModuleType("kafka")

    class Producer:
        def __init__(self, bootstrap_servers, acks):
            assert (bootstrap_servers, acks) == ("localhost:9092", "all")

        def send(self, topic, key, value):
            records.append(types.SimpleNamespace(topic=topic, key=key, value=value, offset=len(records)))
            return types.SimpleNamespace(get=lambda timeout: None)

        def close(self):
            pass

    class Consumer:
        def __init__(self, topic, bootstrap_servers, group_id, auto_offset_reset, enable_auto_commit):
            assert (topic, auto_offset_reset, enable_auto_commit) == ("sealed", "earliest", False)

        def __iter__(self):
            for record in records:
                self.current = record.offset
                yield record

        def commit(self):
            committed.append(self.current)

    kafka.KafkaProducer, kafka.KafkaConsumer = Producer, Consumer
    monkeypatch.setitem(sys.modules, "kafka", kafka)
    example = load("sealed_kafka")
    example.send("localhost:9092", keyring.sealer(keys), "the goods are on the dock")
    records.append(types.SimpleNamespace(**{**vars(records[0]), "offset": 1}))
    records.append(types.SimpleNamespace(**{**vars(records[0]), "key": b"us", "offset": 2}))
    example.receive("localhost:9092", keyring.opener(keys))
    told = capsys.readouterr()
    assert told.out == "the goods are on the dock\n" and "refused at 2" in told.err
    assert committed == [0, 1, 2], "each when it was done with"


@pytest.mark.parametrize("name", ["sealed_rabbitmq", "sealed_kafka"])
def test_a_missing_client_is_named(name):
    told = run("-c", f"import sys; sys.modules.update(pika=None, kafka=None); sys.path.insert(0, {str(EXAMPLES)!r}); "
                     f"import {name}", fails=True)
    assert "pip install" in told.stderr
