#!/usr/bin/env python3
"""What the examples sealed_*.py share: keys in a directory, and what seals and opens with them.

    python examples/sealed_keys.py keys/    makes a key pair for the receiver and an identity for the sender
"""

import argparse
import pathlib
import sys

import ciphermq


def make(directory: pathlib.Path) -> None:
    """On real machines the sender has `sender.pem` and `receiver_public.pem`, the receiver the other two."""
    ciphermq.write_keypair(directory, ciphermq.PrivateKey.generate("x-wing"))
    identity = ciphermq.Identity.generate()
    identity.write_file(directory / "sender.pem")
    (directory / "sender_public.pem").write_text(identity.sender_key().to_pem())


def sealer(directory: pathlib.Path) -> ciphermq.Sealer:
    return ciphermq.Sealer(
        ciphermq.PublicKey.from_file(directory / "receiver_public.pem"),
        identity=ciphermq.Identity.from_file(directory / "sender.pem"),
    )


def opener(directory: pathlib.Path) -> ciphermq.Opener:
    """Opens what the sender has signed, and nothing else."""
    senders = ciphermq.Senders()
    senders.add("sender", ciphermq.SenderKey.from_file(directory / "sender_public.pem"))
    return ciphermq.Opener(ciphermq.PrivateKey.from_file(directory / "receiver_private.pem"), senders=senders)


def run(about: str, server: str, send, receive) -> int:
    """The command line of an example that sends through a broker: `send KEYS TEXT` and `receive KEYS`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=server, help="host:port (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("send", "receive"):
        command = commands.add_parser(name)
        command.add_argument("keys", type=pathlib.Path, help="directory of the keys")
        if name == "send":
            command.add_argument("text")
    options = parser.parse_args()
    try:
        if options.command == "send":
            send(options.server, sealer(options.keys), options.text)
        else:
            receive(options.server, opener(options.keys))
    except KeyboardInterrupt:
        pass
    except (OSError, ciphermq.KeyFormatError) as error:
        sys.exit(f"{error}\nkeys are made with: python examples/sealed_keys.py {options.keys}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        make(pathlib.Path(sys.argv[1]))
    except OSError as fault:
        sys.exit(str(fault))
