"""Everything is run once with secrets that are known; then none of them may be found anywhere.

Looked through: command lines and environments of all processes, all they print, logs with everything on, the broker's replies,
errors as Python shows them, and every file, the broker's data directory above all. In all spellings that leaks.py knows.
"""

import base64
import functools
import json
import pathlib
import re
import subprocess
import sys

import pytest
from conftest import DEADLINE, ROOT, Broker
from Crypto.IO import PEM, PKCS8
from Crypto.PublicKey import RSA
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from leaks import Processes, Search, marker, text_of

sys.path.insert(0, str(ROOT / "tests" / "vectors"))
import check  # noqa: E402  (suite 2 without anything of ours)
import ciphermq  # noqa: E402

CLIENT = pathlib.Path(__file__).parent / "secrets_client.py"
PASSPHRASE_VARIABLE = "TEST_KEY_PASSPHRASE"
# By name: the suite. Messages for the last are left in the queue.
KEYS = {"plain": "1", "by-file": "2x", "by-variable": "2pq", "other": "1"}
ED25519 = "1.3.101.112"
MODES = ("publish", "end-to-end", "crypto")


@pytest.fixture(scope="module")
def ran(tmp_path_factory, ciphermq_binary):
    """What came of running everything."""
    with Processes() as processes:
        run = Run(tmp_path_factory.mktemp("secrets"), ciphermq_binary, processes)
        try:
            run.everything()
        finally:
            run.end()
    return run


def test_nothing_that_was_meant_to_happen_failed_to(ran):
    assert ran.received == 9, "messages by the program `receive`"
    assert ran.printed["client"].endswith("done\n"), ran.printed["client"]
    assert {len(key) for key in ran.session_keys()} == {16, 32}, "of both suites"
    assert len(ran.session_keys()) >= 12
    assert ran.suites_on_disk() == {"1", "1 signed", "2r", "2x signed", "2pq", "2pq signed"}
    assert ran.log.count("\n") > 50, "the broker's log has everything on"


def test_plaintexts_are_nowhere(ran):
    assert_nowhere(ran, ran.search(plaintexts=ran.plaintexts), but_files=ran.inputs)


def test_passphrases_are_nowhere_but_where_they_were_given(ran):
    search = ran.search(passphrases=ran.passphrases.values())
    assert_nowhere(ran, search, but_files=ran.inputs, but_environment=ran.given_by_variable)
    held = [pid for pid in ran.given_by_variable if search.in_bytes(ran.processes.of(pid, "environ"))]
    assert held, "what is looked for in environments would be found there"


def test_private_keys_are_nowhere_but_in_their_files(ran):
    search = ran.search(private_keys=[number for numbers in ran.private_keys.values() for number in numbers])
    assert len(ran.private_keys) == 8, "each kind, of files and of a keyset"
    plain = [path for path in ran.private_keys if path.exists() and "ENCRYPTED" not in path.read_text()]
    assert search.in_files(ran.directory).keys() == {str(path) for path in plain}
    assert_nowhere(ran, search, but_files=plain)


def test_session_keys_are_nowhere(ran):
    assert_nowhere(ran, ran.search(session_keys=ran.session_keys()))


def test_the_brokers_directory_holds_the_messages_and_none_of_their_texts(ran):
    held = b"".join(path.read_bytes() for path in ran.data.rglob("*") if path.is_file())
    assert held.count(b'"enc_session_key"') >= 8, "the envelopes are on this disk"
    search = ran.search(plaintexts=ran.plaintexts, passphrases=ran.passphrases.values())
    assert search.in_bytes(held) == []
    # Not even the process that handles them.
    assert ran.searched_memory > 1 << 20
    assert ran.found_in_memory == []


@pytest.mark.parametrize("kind", ["plaintexts", "passphrases", "private_keys", "session_keys"])
def test_one_that_is_planted_is_found(ran, kind):
    """In a file, in what a program prints and on a command line, in another spelling each."""
    secret = {
        "plaintexts": ran.plaintexts[3],
        "passphrases": ran.passphrases["by-variable"],
        "private_keys": ran.private_keys[ran.private("by-file")][0],
        "session_keys": ran.session_keys()[0],
    }[kind]
    data = secret.encode() if isinstance(secret, str) else secret
    search = ran.search(**{kind: [secret]})
    but = [*ran.inputs, *ran.private_keys]
    assert_nowhere(ran, search, but, ran.given_by_variable)
    planted = ran.directory / "data" / "planted"
    planted.write_bytes(b"\xff\xff" + base64.b64encode(b"x" + data))
    with pytest.raises(AssertionError):
        assert_nowhere(ran, search, but, ran.given_by_variable)
    planted.unlink()
    ran.printed["planted"] = f"Traceback: {data!r}" if isinstance(secret, str) else f"{list(data)}"
    with pytest.raises(AssertionError):
        assert_nowhere(ran, search, but, ran.given_by_variable)
    del ran.printed["planted"]
    with Processes() as processes:
        command = [sys.executable, "-c", "input()", base64.urlsafe_b64encode(data).decode()]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            processes.look()
            process.communicate(b"\n")
    assert search.in_bytes(processes.all("cmdline"))
    assert_nowhere(ran, search, but, ran.given_by_variable)


def assert_nowhere(ran, search, but_files=(), but_environment=()):
    assert search.in_files(ran.directory, but=but_files) == {}
    printed = {name: search.in_bytes(text.encode()) for name, text in ran.printed.items()}
    assert {name: found for name, found in printed.items() if found} == {}
    assert search.in_bytes(ran.processes.all("cmdline")) == []
    assert search.in_bytes(ran.processes.all("environ", but=but_environment)) == []


class Run:
    """One broker with everything logged, and all programs once, in the right and in the wrong way."""

    def __init__(self, directory, binary, processes):
        self.directory, self.binary, self.processes = directory, binary, processes
        self.data = directory / "data"
        self.plaintexts = [marker() for _ in range(20)]
        self.passphrases = {name: marker() for name in ("by-file", "by-variable", "wrong")}
        self.printed = {}
        self.inputs = []
        self.given_by_variable = []
        # The secret numbers of each, by the path of its file.
        self.private_keys = {}
        self.keys = []
        self.received = 0
        self.searched_memory, self.found_in_memory = 0, []
        self.log = ""
        self.broker = None

    def everything(self):
        self.make_keys()
        self.broker = Broker(
            self.binary, self.directory / "broker.log", ["--data-dir", str(self.data), "--listen", "127.0.0.1:0", "--log", "trace"]
        )
        self.send_and_receive()
        self.change_keys()
        self.receive_in_wrong_ways()
        self.use_the_package()
        self.say_wrong_lines()
        self.look_into_the_broker()
        self.broker.kill()
        self.log = self.broker.output
        self.look_at_the_directory()
        self.bench()

    def end(self):
        if self.broker is not None and self.broker.process.poll() is None:
            self.broker.kill()

    def private(self, key):
        return self.directory / "keys" / key / "receiver_private.pem"

    def public(self, key):
        return self.directory / "keys" / key / "receiver_public.pem"

    def make_keys(self):
        by_file = self.input("passphrase", self.passphrases["by-file"] + "\n")
        self.input("wrong-passphrase", self.passphrases["wrong"] + "\n")
        flags = {
            "by-file": ["--encrypt", "--passphrase-file", by_file],
            "by-variable": ["--encrypt", "--passphrase-env", PASSPHRASE_VARIABLE],
        }
        for key, suite in KEYS.items():
            out = self.private(key).parent
            self.program(f"keygen {key}", "keygen", "--suite", suite, "--out", out, *flags.get(key, []))
            self.note_private_key(self.private(key), self.passphrases.get(key))
        self.program("keygen sign", "keygen", "--suite", "sign", "--out", self.signs.parent, *flags["by-file"])
        self.note_private_key(self.signs, self.passphrases["by-file"])
        self.program("keygen keyset", "keygen", "--suite", "2pq", "--keyset", "--out", self.keyset, *flags["by-file"])
        self.note_keyset()
        again = self.directory / "keys" / "rewrapped.pem"
        again.write_bytes(self.private("by-variable").read_bytes())
        again.chmod(0o600)
        self.program("rewrap", "key", "rewrap", again, *flags["by-variable"][1:], "--new-passphrase-file", by_file)
        self.note_private_key(again, self.passphrases["by-file"])
        for path in (*self.private_keys, self.keyset, self.public("plain"), self.signs.parent / "sender_public.pem"):
            for name in ("show", "fingerprint"):
                given = flags["by-variable"] if path == self.private("by-variable") else flags["by-file"]
                self.program(f"{name} {path}", "key", name, path, *given[1:])
        self.program("show as JSON", "key", "show", "--json", self.private("plain"))

    @property
    def signs(self):
        return self.directory / "keys" / "sender" / "sender_private.pem"

    @property
    def keyset(self):
        return self.directory / "keys" / "keyset"

    def note_keyset(self):
        for path in self.keyset.glob("key-*.pem"):
            if not path.name.endswith(".public.pem") and path not in self.private_keys:
                self.note_private_key(path, self.passphrases["by-file"])

    def send_and_receive(self):
        """Two texts for each key, signed but for `other`, whose messages stay; two for two keys at a time, two for the keyset."""
        by_file = ("--passphrase-file", self.directory / "passphrase")
        signed = ("--sign", self.signs, *by_file)
        known = ("--from", self.signs.with_name("sender_public.pem"))
        for number, key in enumerate(["plain", "by-file", "by-variable"]):
            texts = self.plaintexts[2 * number : 2 * number + 2]
            self.send(f"send {key}", texts, self.public(key), *signed)
            self.receive(f"receive {key}", texts, *self.identity(key), *known)
        self.send("send two", self.plaintexts[12:13], self.public("plain"), "--to", self.public("other"))
        self.receive("receive two", self.plaintexts[12:13], *self.identity("plain"))
        self.send("send keyset", self.plaintexts[13:14], self.keyset)
        self.program("rotate", "key", "rotate", self.keyset, *by_file)
        self.note_keyset()
        self.send("send keyset again", self.plaintexts[14:15], self.keyset, *signed)
        self.receive("receive keyset", self.plaintexts[13:15], "--identity", self.keyset, *by_file)
        self.send("send other", self.plaintexts[6:8], self.public("other"))

    def send(self, name, texts, to, *flags):
        given = "".join(f"{text_of(text)}\n" for text in texts)
        self.program(name, "send", "--to", to, *flags, "--json", *self.server(), given=given)

    def receive(self, name, texts, *flags):
        count = ["--count", str(len(texts)), "--timeout-ms", "20000", "--json"]
        printed = self.program(name, "receive", *flags, *count, *self.server(), shows_texts=True)
        received = [json.loads(line)["message"] for line in printed.splitlines()]
        assert received == [text_of(text) for text in texts]
        self.received += len(received)

    def change_keys(self):
        """Sealing anew, and giving up the old key of the keyset."""
        by_file = ("--passphrase-file", self.directory / "passphrase")
        old = sorted(self.keyset.glob("key-*.public.pem"))
        envelopes = [ciphermq.seal(text_of(self.plaintexts[15]), ciphermq.PublicKey.from_pem(path.read_bytes())) for path in old]
        bad = json.dumps({**json.loads(envelopes[0]), "ciphertext": "AAAA"})
        given = "\n".join([*envelopes, bad, text_of(self.plaintexts[16]), ""])
        self.program("rewrap envelopes", "key", "rewrap", "--envelope", self.keyset, *by_file, given=given, status=1)
        self.program("prune", "key", "prune", self.keyset, "--retention", "0", *by_file)
        assert len([path for path in self.private_keys if not path.exists()]) == 1, "one key was given up"
        self.program("prune with a wrong passphrase", "key", "rotate", self.keyset,
                     "--passphrase-file", self.directory / "wrong-passphrase", status=(0, 1, 2))
        self.note_keyset()

    def receive_in_wrong_ways(self):
        """With another key, with wrong passphrases and without."""
        short = ["--timeout-ms", "300", *self.server()]
        private = self.private("by-file")
        wrong = self.directory / "wrong-passphrase"
        missing = self.directory / "no-such-file"
        self.program("receive with another key", "receive", *self.identity("plain"), *short, status=1)
        for name, flags in {
            "wrong passphrase": ["--passphrase-file", wrong],
            "no passphrase": [],
            "no file of a passphrase": ["--passphrase-file", missing],
            "no variable of a passphrase": ["--passphrase-env", "NO_SUCH_VARIABLE"],
        }.items():
            self.program(f"receive, {name}", "receive", "--identity", private, *flags, *short, status=(1, 2))
            self.program(f"show, {name}", "key", "show", private, *flags, status=(0, 1, 2))
        text = self.input("text", text_of(self.plaintexts[0]))
        self.program("text for a key", "receive", "--identity", text, *short, status=1)
        self.program("text for a public key", "send", "--to", text, *self.server(), given="x\n", status=1)
        sign = ["--to", self.public("plain"), *self.server(), "--sign"]
        self.program("sign with a wrong passphrase", "send", *sign, self.signs, "--passphrase-file", wrong, given="x\n", status=1)
        self.program("sign without one", "send", *sign, self.signs, given="x\n", status=(1, 2))
        self.program("sign with a key that opens", "send", *sign, private, "--passphrase-file", wrong, given="x\n", status=1)
        self.program("unsigned where signed is asked for", "receive", *self.identity("other"), "--from",
                     self.signs.with_name("sender_public.pem"), *short, status=1)
        self.program("private key for a public one", "send", "--to", self.private("plain"), *self.server(), given="x\n", status=1)

    def use_the_package(self):
        task = {
            "port": self.broker.port,
            "texts": [text_of(text) for text in self.plaintexts[8:12]],
            "more_texts": [text_of(text) for text in self.plaintexts[17:20]],
            "identity_pem": self.signs.read_text(),
            "keyset": str(self.keyset),
            "passphrase": self.passphrases["by-file"],
            "wrong_passphrase": self.passphrases["wrong"],
            "xwing_pem": self.private("by-variable").read_text(),
            "xwing_passphrase": self.passphrases["by-variable"],
            "private_pem": self.private("plain").read_text(),
            "other_private_pem": self.private("other").read_text(),
            "encrypted_pem": self.private("by-file").read_text(),
        }
        # What was not opened above is in the way.
        self.say(["hello 1", "purge default_queue"])
        self.run("client", [sys.executable, str(CLIENT)], given=json.dumps(task))

    def say_wrong_lines(self):
        """Lines a client should not send: a text where an envelope or a name belongs."""
        text, word = text_of(self.plaintexts[1]), self.plaintexts[2]
        publish = "publish default_exchange default_key"
        lines = [
            f"{publish} {text}",
            f'{publish} {{"message_id":"m","text":"{text}"}}',
            f'{publish} {{"message_id":"m","enc_session_key":"a","nonce":"b","tag":"c","ciphertext":"{text}',
            f'{publish} {{"message_id":{{"{word}":1}},"enc_session_key":"a","nonce":"b","tag":"c","ciphertext":"d"}}',
            f'publish_batch default_exchange default_key ["{text}"]',
        ]
        # A word that is no command is told to who sent it, and to nobody else.
        no_commands = [text, word]
        self.printed["wrong lines"] = self.say(lines + no_commands)
        self.printed["wrong lines after hello"] = self.say(["hello 1", *lines])
        assert word in self.say(["hello 1", *no_commands])
        asked = ["stats", "list_queues", "list_exchanges", "list_bindings", "status m", "help", "help publish"]
        self.printed["questions"] = self.say(["hello 1", *asked])

    def say(self, lines):
        """What the broker answers."""
        with self.broker.connect() as connection:
            return "\n".join(connection.ask(line) for line in lines)

    def look_into_the_broker(self):
        """Its memory, where the system lets us. It got some texts in lines that were no envelopes, so not those."""
        search = self.search(plaintexts=[*self.plaintexts[3:8], *self.plaintexts[12:15], *self.plaintexts[17:]], passphrases=self.passphrases.values())
        process = pathlib.Path(f"/proc/{self.broker.process.pid}")
        with (process / "mem").open("rb", 0) as memory:
            for line in (process / "maps").read_text().splitlines():
                start, end, mode = re.match(r"([0-9a-f]+)-([0-9a-f]+) (....)", line).groups()
                if mode.startswith("rw"):
                    try:
                        memory.seek(int(start, 16))
                        data = memory.read(int(end, 16) - int(start, 16))
                    except (OSError, OverflowError):
                        continue
                    self.searched_memory += len(data)
                    self.found_in_memory += search.in_bytes(data)

    def look_at_the_directory(self):
        for command in ("inspect", "verify"):
            for flags in ((), ("--json",)):
                self.program(" ".join((command, *flags)), command, self.data, *flags)

    def bench(self):
        place = self.directory / "bench"
        place.mkdir()
        small = ["--quick", "--modes", ",".join(MODES), "--sizes", "256", "--connections", "1", "--windows", "1"]
        self.program("bench", "bench", *small, "--data-dir", place)

    def server(self):
        return ("--server", f"127.0.0.1:{self.broker.port}")

    def identity(self, key):
        flags = {
            "by-file": ("--passphrase-file", self.directory / "passphrase"),
            "by-variable": ("--passphrase-env", PASSPHRASE_VARIABLE),
        }
        return ("--identity", self.private(key), *flags.get(key, ()))

    def input(self, name, text):
        """A file that is given to programs."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        self.inputs.append(path)
        return path

    def program(self, name, *arguments, **options):
        return self.run(name, [self.binary, *map(str, arguments)], **options)

    def run(self, name, command, given="", status=0, shows_texts=False):
        """Runs a program to its end and keeps what it printed."""
        environment = {}
        if PASSPHRASE_VARIABLE in command:
            environment[PASSPHRASE_VARIABLE] = self.passphrases["by-variable"]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        # An environment of its own: that of this process is not under test.
        process = subprocess.Popen(command, cwd=self.directory, env=environment, text=True, encoding="utf-8", **pipes)
        if environment:
            self.given_by_variable.append(process.pid)
        self.processes.look()
        stdout, stderr = process.communicate(given, timeout=6 * DEADLINE)
        expected = status if isinstance(status, tuple) else (status,)
        assert process.returncode in expected, f"{name}: {process.returncode}\n{stderr}"
        self.printed[name] = stderr if shows_texts else stdout + stderr
        return stdout

    def search(self, **secrets):
        search = Search()
        for kind, all_of_them in secrets.items():
            for number, secret in enumerate(all_of_them):
                search.add(f"{kind} {number}", secret)
        return search

    def note_private_key(self, path, passphrase):
        """Writes down what of a private key is secret, and keeps the key to open what is on the disk later."""
        algorithm, inner, _ = PKCS8.unwrap(PEM.decode(path.read_text())[0], passphrase)
        if len(inner) < 100:
            self.private_keys[path] = [inner[-32:]]
            if algorithm != ED25519:
                self.keys.append(check.Key(PEM.encode(PKCS8.wrap(inner, algorithm, key_params=None), "PRIVATE KEY")))
            return
        rsa = RSA.import_key(inner)
        numbers = (rsa.d, rsa.p, rsa.q, rsa.u, rsa.d % (rsa.p - 1), rsa.d % (rsa.q - 1))
        self.private_keys[path] = [number.to_bytes((number.bit_length() + 7) // 8, "big") for number in numbers]
        self.keys.append(check.Key(rsa.export_key("PEM", pkcs=8).decode()))

    def envelopes_on_disk(self):
        """In the form in which a client published them."""
        held = b"".join(path.read_bytes() for path in self.data.rglob("*") if path.is_file())
        return [json.loads(envelope) for envelope in set(re.findall(rb'\{"message_id": ?"[^{}]*(?:\{[^{}]*(?:\{[^{}]*\})?[^{}]*\})?[^{}]*\}', held))]

    def suites_on_disk(self):
        signed = [" signed" * ("sig" in one or "x" in one) for one in self.envelopes_on_disk()]
        return {one.get("suite", "1") + mark for one, mark in zip(self.envelopes_on_disk(), signed)}

    @functools.cache
    def session_keys(self):
        """Of every message that is on the broker's disk, whoever it is for."""
        wraps = {wrap for one in self.envelopes_on_disk() for wrap in [one["enc_session_key"], *one.get("wraps", [])]}
        found = set()
        for wrap in wraps:
            for key in self.keys:
                for label in [(), (hashes.SHA1(), None)]:
                    try:
                        found.add(key.unwrap(base64.b64decode(wrap), *label))
                    except (ValueError, InvalidTag):
                        continue
        return sorted(found)
