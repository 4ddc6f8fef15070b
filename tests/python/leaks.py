"""Looks for secrets where none may be: in texts, below directories, in what the system tells of processes."""

from __future__ import annotations

import base64
import os
import pathlib
import re
import secrets
import string
import threading
import time

WINDOW = 24
"""Bytes of a long secret that are looked for at a time: half a line of PEM, so that one is always whole in a line."""

SHORT = 12
"""Letters of a marker. Long enough to be no accident, short enough to be seen in a text that was cut off."""


def marker():
    """A word that occurs nowhere."""
    return "".join(secrets.choice(string.ascii_letters) for _ in range(SHORT))


def text_of(word):
    """A secret text in which the word stands often, so that a piece of it is enough."""
    return " ".join([word] * 20)


def forms(secret):
    """All that a secret may look like, by name."""
    secret = secret.encode() if isinstance(secret, str) else bytes(secret)
    numbers = [str(byte) for byte in secret]
    found = {
        "as it is": secret,
        "hex": secret.hex().encode(),
        "upper hex": secret.hex().upper().encode(),
        "hex with colons": secret.hex(":").encode(),
        "numbers": ", ".join(numbers).encode(),
        "numbers without spaces": ",".join(numbers).encode(),
        "backwards": secret[::-1],
        "backwards in hex": secret[::-1].hex().encode(),
        "UTF-16": secret.decode("latin-1").encode("utf-16-le"),
    }
    for shift in range(3):
        found[f"base64, {shift}"] = _base64(secret, shift)
        found[f"base64url, {shift}"] = found[f"base64, {shift}"].replace(b"+", b"-").replace(b"/", b"_")
    return found


def _base64(secret, shift):
    """The characters that a secret has in base64 wherever its first byte stands `shift` bytes behind a group of three."""
    text = base64.b64encode(bytes(shift) + secret)
    first = -(-shift * 8 // 6)
    last = (shift + len(secret)) * 8 // 6
    return text[first:last]


def windows(secret):
    """A long secret in pieces, each of which tells enough."""
    return [secret[at : at + WINDOW] for at in range(0, max(1, len(secret) - WINDOW + 1), WINDOW)]


class Search:
    """Finds secrets, each with a name that may be shown."""

    def __init__(self):
        self._needles = []

    def add(self, name, secret):
        pieces = [secret] if isinstance(secret, str) else windows(secret)
        for piece in pieces:
            self._needles += [(f"{name} ({form})", needle) for form, needle in forms(piece).items()]

    def in_bytes(self, data):
        """The names of what is in there."""
        # What was prepared on disk and not used yet.
        data = re.sub(rb"\0{64,}", b"\0", data)
        return [name for name, needle in self._needles if needle in data]

    def in_files(self, directory, but=()):
        """The names, by file, of what is in the files below a directory, and in their names."""
        but = {pathlib.Path(path).resolve() for path in but}
        found = {}
        for path in pathlib.Path(directory).rglob("*"):
            names = self.in_bytes(os.fsencode(path.name))
            if path.is_file() and path.resolve() not in but:
                names += self.in_bytes(path.read_bytes())
            if names:
                found[str(path)] = names
        return found


class Processes:
    """Writes down command line and environment of every process that descends from this one."""

    def __init__(self):
        self._seen = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def look(self):
        for pid in self._descendants():
            for what in ("cmdline", "environ"):
                try:
                    data = pathlib.Path(f"/proc/{pid}/{what}").read_bytes()
                except OSError:
                    continue
                self._seen.setdefault((pid, what), set()).add(data)

    def all(self, what, but=()):
        """All command lines (`cmdline`) or environments (`environ`) seen."""
        return b"\n".join(data for (pid, kind), seen in self._seen.items() if kind == what and pid not in but for data in seen)

    def of(self, pid, what):
        return b"\n".join(self._seen.get((pid, what), ()))

    def _run(self):
        while not self._ended.is_set():
            self.look()
            time.sleep(0.005)

    def _descendants(self):
        pending, found = [os.getpid()], []
        while pending:
            for children in pathlib.Path(f"/proc/{pending.pop()}/task").glob("*/children"):
                try:
                    pids = [int(pid) for pid in children.read_text().split()]
                except OSError:
                    continue
                pending += pids
                found += pids
        return found
