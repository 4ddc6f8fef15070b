#!/usr/bin/env python3
"""Sealed files: no broker, the same envelopes.

    python examples/sealed_keys.py keys/
    python examples/sealed_files.py seal keys/ report.pdf         writes report.pdf.sealed
    python examples/sealed_files.py open keys/ report.pdf.sealed  writes report.pdf

A file is sealed in parts, one envelope a line, and opened whole or not at all.
"""

import argparse
import os
import pathlib
import sys
import tempfile

import sealed_keys

import ciphermq

PART_BYTES = 4 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["seal", "open"])
    parser.add_argument("keys", type=pathlib.Path, help="directory of the keys")
    parser.add_argument("file", type=pathlib.Path)
    options = parser.parse_args()
    try:
        if options.command == "seal":
            seal(sealed_keys.sealer(options.keys), options.file)
        else:
            open_sealed(sealed_keys.opener(options.keys), options.file)
    except KeyboardInterrupt:
        return 130
    except (OSError, ciphermq.CipherMQError) as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 1
    return 0


def seal(sealer: ciphermq.Sealer, file: pathlib.Path) -> None:
    # The name is bound: a file that was exchanged for another one does not open under its name.
    context = ciphermq.Context("files", file.name)
    parts = sealer.seal_parts(file.read_bytes(), PART_BYTES, context=context)
    put(file.with_name(file.name + ".sealed"), "".join(f"{part}\n" for part in parts).encode())


def open_sealed(opener: ciphermq.Opener, file: pathlib.Path) -> None:
    if file.suffix != ".sealed":
        raise SystemExit(f"{file}: not a name that `seal` gives")
    target = file.with_suffix("")
    delivered, collector = ciphermq.Context("files", target.name), ciphermq.PartCollector()
    whole = None
    for line in file.read_text().splitlines():
        whole = collector.add(opener.open(line, delivered=delivered)) or whole
    if whole is None:
        raise SystemExit(f"{file}: a part is missing")
    put(target, whole.plaintext)


def put(file: pathlib.Path, content: bytes) -> None:
    """Whole or not at all, and over nothing."""
    with tempfile.NamedTemporaryFile(dir=file.parent) as partial:
        partial.write(content)
        partial.flush()
        os.link(partial.name, file)


if __name__ == "__main__":
    sys.exit(main())
