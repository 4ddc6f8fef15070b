"""What the documents tell a reader to type works: every `sh` and `python` block, in order, in a fresh directory."""

import os
import pathlib
import re
import subprocess

import pytest
from conftest import DEADLINE, ROOT

import ciphermq


@pytest.fixture
def follow(start_broker, ciphermq_binary, tmp_path, monkeypatch, capfd):
    """Does what a part of a document says; gives what was printed."""
    monkeypatch.chdir(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ciphermq").symlink_to(pathlib.Path(ciphermq_binary).resolve())
    port = start_broker().port
    names = {}

    def shell(text):
        settings = {name: value for name, value in os.environ.items() if not name.startswith("CIPHERMQ_")}
        settings["PATH"] = f"{programs}{os.pathsep}{settings['PATH']}"
        settings["CIPHERMQ_SERVER"] = f"127.0.0.1:{port}"
        subprocess.run(["bash", "-euo", "pipefail", "-c", text], env=settings, stdin=subprocess.DEVNULL, check=True, timeout=DEADLINE)

    def python(text):
        # The documents use the broker's own port.
        exec(re.sub(r"\b(Sender|Receiver)\((?=[a-z)])", rf"\1(port={port}, ", text), names)

    def run(document, *, section=None, blocks, change=lambda text: text):
        text = (ROOT / document).read_text(encoding="utf-8")
        if section is not None:
            text = text[text.index(f"\n## {section}\n") + 1 :]
            text = text[: text.find("\n## ")]
        found = re.findall(r"^```(sh|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        assert len(found) == blocks, "a block more or less than this test knows"
        for language, block in found:
            (shell if language == "sh" else python)(change(block))
        return capfd.readouterr().out

    run.port = port
    return run


def test_encryption(follow):
    printed = follow("docs/encryption.md", blocks=5)
    first, second, third = "the goods are on the dock\n", "warehouse says: and so is the invoice\n", "warehouse says: by pigeon\n"
    positions = [printed.index(text) for text in (first, second, third)]
    assert positions == sorted(positions)
    assert "sealed to the first key\nsealed to the second key\n" in printed
    with ciphermq.Receiver(port=follow.port, keyset=ciphermq.Keyset.open("keys")) as receiver:
        with receiver.receive(DEADLINE) as message:
            assert message.text == "to whatever key the warehouse has now"


def test_links_lead_somewhere():
    documents = [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")]
    assert len(documents) >= 10
    dead = []
    for document in documents:
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text(encoding="utf-8")):
            path, _, anchor = link.partition("#")
            target = (document.parent / path).resolve() if path else document
            if not target.exists() or (anchor and anchor not in anchors(target)):
                dead.append(f"{document.relative_to(ROOT)}: {link}")
    assert not dead


def anchors(document):
    """As GitHub makes them of headings."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_lengths_that_keys_are_chosen_by():
    document = (ROOT / "docs/encryption.md").read_text(encoding="utf-8")
    lengths = {}
    for kind in ("rsa", "x25519", "x-wing"):
        lengths[kind] = len(ciphermq.Sealer(ciphermq.PrivateKey.generate(kind).public_key()).seal(bytes(1024)))
        assert f"| {lengths[kind]:,} bytes |" in document
    assert f"{lengths['x-wing'] - lengths['x25519']:,} bytes more on each message" in document


def test_operations_on_keys(follow):
    printed = follow("docs/operations.md", section="Keys", blocks=1)
    assert printed.count("  status  ") == 2 and "retired key  sha256:" in printed and "deleted" not in printed


def test_the_first_minute_of_the_readme(follow):
    def change(block):
        done_already = ("make demo", "cargo build", "target/release/ciphermq serve")
        lines = [line for line in block.splitlines() if not line.startswith(done_already)]
        text = "\n".join(lines).replace("target/release/", "")
        # It reads for ever; one message is enough here.
        return text.replace("print(message.text)", "print(message.text)\n            break")

    section = (ROOT / "README.md").read_text(encoding="utf-8")
    assert section.count("target/release/ciphermq serve") == 1
    printed = follow("README.md", section="60 seconds", blocks=3, change=change)
    assert printed.endswith("the first secret\nthe second secret\n"), printed
