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
from Crypto.Cipher import PKCS1_OAEP
from Crypto.IO import PEM, PKCS8
from Crypto.PublicKey import RSA
from cryptography.exceptions import InvalidTag
from leaks import Processes, Search, marker, text_of

sys.path.insert(0, str(ROOT / "tests" / "vectors"))
import check  # noqa: E402  (suite 2 without anything of ours)

CLIENT = pathlib.Path(__file__).parent / "secrets_client.py"
PASSPHRASE_VARIABLE = "TEST_KEY_PASSPHRASE"
# By name: the suite. Messages for the last are left in the queue.
KEYS = {"plain": "1", "by-file": "2x", "by-variable": "2pq", "other": "1"}
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
    assert ran.received == 6, "messages by the program `receive`"
    assert ran.printed["client"].endswith("done\n"), ran.printed["client"]
    assert {len(key) for key in ran.session_keys()} == {16, 32}, "of both suites"
    assert len(ran.session_keys()) >= 6
    assert ran.log.count("\n") > 50, "the broker's log has everything on"


def test_plaintexts_are_nowhere(ran):
    assert_nowhere(ran, ran.search(plaintexts=ran.plaintexts), but_files=ran.inputs)


def test_passphrases_are_nowhere_but_where_they_were_given(ran):
    search = ran.search(passphrases=ran.passphrases.values())
    assert_nowhere(ran, search, but_files=ran.inputs, but_environment=ran.given_by_variable)
    held = [pid for pid in ran.given_by_variable if search.in_bytes(ran.processes.of(pid, "environ"))]
    assert held, "what is looked for in environments would be found there"


def test_private_keys_are_nowhere_but_in_their_files(ran):
    search = ran.search(private_keys=[number for key in KEYS for number in ran.private_numbers(key)])
    files = [ran.private(key) for key in KEYS]
    assert len(search.in_files(ran.directory)) == sum("ENCRYPTED" not in file.read_text() for file in files)
    assert_nowhere(ran, search, but_files=files)


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
        self.plaintexts = [marker() for _ in range(12)]
        self.passphrases = {name: marker() for name in ("by-file", "by-variable", "wrong")}
        self.printed = {}
        self.inputs = []
        self.given_by_variable = []
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
        self.program("keygen sign", "keygen", "--suite", "sign", "--out", self.directory / "keys" / "sender", *flags["by-file"])
        keyset = self.directory / "keys" / "keyset"
        self.program("keygen keyset", "keygen", "--suite", "2x", "--keyset", "--out", keyset, *flags["by-file"])
        self.program("rotate", "key", "rotate", keyset, *flags["by-file"][1:])
        self.program("fingerprint", "key", "fingerprint", keyset, *flags["by-file"][1:])
        again = self.directory / "keys" / "rewrapped.pem"
        again.write_bytes(self.private("by-variable").read_bytes())
        again.chmod(0o600)
        self.program("rewrap", "key", "rewrap", again, *flags["by-variable"][1:], "--new-passphrase-file", by_file)

    def send_and_receive(self):
        """Two texts for each key; those for `other` stay."""
        for number, key in enumerate(KEYS):
            texts = self.plaintexts[2 * number : 2 * number + 2]
            given = "".join(f"{text_of(text)}\n" for text in texts)
            self.program(f"send {key}", "send", "--to", self.public(key), "--json", *self.server(), given=given)
            if key != "other":
                count = ["--count", "2", "--timeout-ms", "20000", "--json"]
                printed = self.program(f"receive {key}", "receive", *self.identity(key), *count, *self.server(), shows_texts=True)
                received = [json.loads(line)["message"] for line in printed.splitlines()]
                assert received == [text_of(text) for text in texts]
                self.received += len(received)

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
        self.program("private key for a public one", "send", "--to", self.private("plain"), *self.server(), given="x\n", status=1)

    def use_the_package(self):
        task = {
            "port": self.broker.port,
            "texts": [text_of(text) for text in self.plaintexts[8:12]],
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
        search = self.search(plaintexts=[*self.plaintexts[3:8]], passphrases=self.passphrases.values())
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

    # What a passphrase costs an attacker it costs here too: once is enough.
    @functools.cache
    def pkcs8(self, key):
        """A private key without its passphrase."""
        der, _, _ = PEM.decode(self.private(key).read_text())
        algorithm, inner, _ = PKCS8.unwrap(der, self.passphrases.get(key))
        return algorithm, inner

    def private_numbers(self, key):
        """The parts of a private key that are secret."""
        _, inner = self.pkcs8(key)
        if KEYS[key] != "1":
            return [inner[-32:]]
        rsa = RSA.import_key(inner)
        return [number.to_bytes((number.bit_length() + 7) // 8, "big") for number in (rsa.d, rsa.p, rsa.q)]

    def openers(self):
        """What unwraps session keys, by the length of what it unwraps."""
        for key, suite in KEYS.items():
            algorithm, inner = self.pkcs8(key)
            if suite == "1":
                yield PKCS1_OAEP.new(RSA.import_key(inner)).decrypt
            else:
                yield check.Key(PEM.encode(PKCS8.wrap(inner, algorithm, key_params=None), "PRIVATE KEY")).unwrap

    @functools.cache
    def session_keys(self):
        """Of every message that is on the broker's disk."""
        held = b"".join(path.read_bytes() for path in self.data.rglob("*") if path.is_file())
        openers = list(self.openers())
        found = set()
        for wrapped in set(re.findall(rb'"enc_session_key": ?"([A-Za-z0-9+/=]{100,})"', held)):
            for opener in openers:
                try:
                    found.add(opener(base64.b64decode(wrapped)))
                except (ValueError, InvalidTag):
                    continue
        return sorted(found)
