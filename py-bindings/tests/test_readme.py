"""The programs of the README run."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path

import ciphermq
from ciphermq.testing import Broker

README = Path(__file__).resolve().parent.parent / "README.md"


def programs() -> list:
    found = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 4, "a program more or less than this test knows"
    return found


def at(port: int, program: str) -> str:
    return re.sub(r"(Sender|Receiver)\((p\w+_key=|recipients=|keyset=)", rf"\1(port={port}, \2", program)


def test_the_blocking_program(ciphermq_broker: Broker, capsys) -> None:
    exec(at(ciphermq_broker.port, programs()[0]), {})
    assert capsys.readouterr().out.endswith(" the goods are on the dock\n")


def test_the_asyncio_program(ciphermq_broker: Broker, capsys) -> None:
    private, public = ciphermq.generate_keypair()
    program = "async def main():\n" + "\n".join("    " + line for line in programs()[1].splitlines())
    # It reads for ever; a thousand messages are enough here.
    enough = "print(message.text)\n            if message.text == 'number 999': break"
    program = program.replace("print(message.text)", enough)
    names = {"private": private, "public": public}
    exec(at(ciphermq_broker.port, program), names)
    asyncio.run(names["main"]())
    assert capsys.readouterr().out.splitlines() == [f"number {n}" for n in range(1000)]


def test_the_program_of_identities_and_keysets(ciphermq_broker: Broker, capsys) -> None:
    exec(at(ciphermq_broker.port, programs()[2]), {"ciphermq": ciphermq})
    assert capsys.readouterr().out == "billing default_key pay the invoice\n"


def test_the_test_of_the_fixture(ciphermq_broker: Broker) -> None:
    names = {"ciphermq": ciphermq, "public": ciphermq.generate_keypair()[1]}
    exec(programs()[3], names)
    assert list(inspect.signature(names["test_flow"]).parameters) == ["ciphermq_broker"]
    names["test_flow"](ciphermq_broker)
    with ciphermq.Sender(port=ciphermq_broker.port) as sender:
        assert sender.stats()["published"] == 1
