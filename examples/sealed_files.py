#!/usr/bin/env python3
"""Sealed files: no broker, the same envelopes.

    python examples/sealed_files.py keys keys/                   a key pair for the receiver, an identity for the sender
    python examples/sealed_files.py seal keys/ report.pdf        writes report.pdf.sealed
    python examples/sealed_files.py open keys/ report.pdf.sealed writes report.pdf

A file is sealed in parts, one envelope a line, and opened whole or not at all.
"""

import argparse
import pathlib
import sys

import ciphermq

PART_BYTES = 4 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["keys", "seal", "open"])
    parser.add_argument("keys", type=pathlib.Path, help="directory of the keys")
    parser.add_argument("file", type=pathlib.Path, nargs="?")
    options = parser.parse_args()
    if options.command == "keys":
        make_keys(options.keys)
    elif options.file is None:
        parser.error("which file?")
    elif options.command == "seal":
        seal(options.keys, options.file)
    else:
        open_sealed(options.keys, options.file)
    return 0


def make_keys(directory: pathlib.Path) -> None:
    """On real machines the sender has `sender.pem` and `receiver_public.pem`, the receiver the other two."""
    private, _ = ciphermq.write_keypair(directory, ciphermq.PrivateKey.generate("x-wing"))
    identity = ciphermq.Identity.generate()
    identity.write_file(directory / "sender.pem")
    (directory / "sender_public.pem").write_text(identity.sender_key().to_pem())
    print(f"{private}\n{directory / 'sender.pem'}")


def seal(keys: pathlib.Path, file: pathlib.Path) -> None:
    sealer = ciphermq.Sealer(
        ciphermq.PublicKey.from_file(keys / "receiver_public.pem"),
        identity=ciphermq.Identity.from_file(keys / "sender.pem"),
    )
    # The name is bound: a file that was exchanged for another one does not open under its name.
    context = ciphermq.Context("files", file.name)
    parts = sealer.seal_parts(file.read_bytes(), PART_BYTES, context=context)
    file.with_name(file.name + ".sealed").write_text("\n".join(parts) + "\n")


def open_sealed(keys: pathlib.Path, file: pathlib.Path) -> None:
    senders = ciphermq.Senders()
    senders.add("sender", ciphermq.SenderKey.from_file(keys / "sender_public.pem"))
    opener = ciphermq.Opener(ciphermq.PrivateKey.from_file(keys / "receiver_private.pem"), senders=senders)
    target = file.with_suffix("")
    delivered, collector = ciphermq.Context("files", target.name), ciphermq.PartCollector()
    whole = None
    for line in file.read_text().splitlines():
        whole = whole or collector.add(opener.open(line, delivered=delivered))
    if whole is None:
        raise SystemExit(f"{file}: a part is missing")
    target.write_bytes(whole.plaintext)


if __name__ == "__main__":
    sys.exit(main())
