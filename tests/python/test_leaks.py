"""The search for secrets finds what is there, or the tests that find nothing say nothing."""

import base64
import secrets
import subprocess
import sys

import pytest
from leaks import Processes, Search, forms, marker, text_of, windows

WORD = "QwErTzUiOpAs"
KEY = bytes(range(100, 228))

SPELLINGS = {
    "as it is": lambda secret: secret,
    "hex": lambda secret: secret.hex().encode(),
    "upper hex": lambda secret: secret.hex().upper().encode(),
    "hex with colons": lambda secret: secret.hex(":").encode(),
    "repr of bytes": lambda secret: repr(list(secret)).encode(),
    "base64": base64.b64encode,
    "base64 behind a byte": lambda secret: base64.b64encode(b"\xff" + secret + b"\xff"),
    "base64 behind two bytes": lambda secret: base64.b64encode(b"\xff\xff" + secret + b"\xff"),
    "base64url": lambda secret: base64.urlsafe_b64encode(b"\xfb\xff\xfe" + secret),
    "lines of PEM": lambda secret: base64.encodebytes(b"\x30" * 41 + secret),
    "backwards": lambda secret: secret[::-1],
    "UTF-16": lambda secret: secret.decode("latin-1").encode("utf-16-le"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("secret", [WORD, KEY], ids=["word", "key"])
def test_every_spelling_is_found_wherever_it_stands(secret, spelling):
    search = Search()
    search.add("planted", secret)
    raw = secret.encode() if isinstance(secret, str) else secret
    for before in range(4):
        data = b"x" * before + SPELLINGS[spelling](raw) + b" and more"
        assert search.in_bytes(data), (spelling, before)


def test_a_piece_of_a_long_secret_is_enough():
    search = Search()
    search.add("text", WORD)
    search.add("key", KEY)
    assert search.in_bytes(text_of(WORD)[:20].encode())
    assert search.in_bytes(b"cut off: " + KEY[40 : 40 + 47])
    assert all(len(piece) >= 16 for piece in windows(KEY))


def test_nothing_is_found_where_nothing_is():
    search = Search()
    for number in range(20):
        search.add(str(number), marker())
        search.add(str(number), secrets.token_bytes(16))
    assert search.in_bytes(secrets.token_bytes(1 << 20) + bytes(1 << 20)) == []
    assert len({needle for needle in forms(WORD).values()}) >= 12


def test_files_are_searched_with_their_names_but_not_the_excepted(tmp_path):
    search = Search()
    search.add("planted", WORD)
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "binary").write_bytes(b"\xff\0" * 100 + bytes(1 << 16) + WORD.encode() + b"\0")
    (deep / f"name-{WORD}").write_text("")
    (deep / "excepted").write_text(WORD)
    (deep / "other").write_text("nothing")
    found = search.in_files(tmp_path, but=[deep / "excepted"])
    assert sorted(found) == [str(deep / "binary"), str(deep / f"name-{WORD}")]


def test_command_lines_and_environments_of_children_and_their_children_are_seen():
    word, other = marker(), marker()
    grandchild = f"import sys; print(flush=True); sys.stdin.read() # {word}"
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], env={'HELD': sys.argv[2]})"
    search = Search()
    search.add("argument", word)
    with Processes() as processes:
        command = [sys.executable, "-c", child, grandchild, other]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            processes.look()
            process.stdin.close()
    assert search.in_bytes(processes.all("cmdline", but=[process.pid]))
    assert search.in_bytes(processes.of(process.pid, "cmdline"))
    assert f"HELD={other}".encode() in processes.all("environ")
