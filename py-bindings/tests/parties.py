"""Senders and receivers of each kind of message."""

from __future__ import annotations

from typing import Any, Dict

import ciphermq

KINDS = ["1", "1 signed", "1 signed each", "2r", "2x", "2x signed", "2pq", "2pq signed", "2pq signed for two"]
"""The suite, who signs what, for how many."""

KEY_KINDS = {"1": "rsa", "2r": "rsa", "2x": "x25519", "2pq": "x-wing"}
PRIVATE = {kind: ciphermq.PrivateKey.generate(kind) for kind in ("rsa", "x25519", "x-wing")}
OTHER = {kind: ciphermq.PrivateKey.generate(kind) for kind in PRIVATE}
ME, STRANGER = ciphermq.Identity.generate(), ciphermq.Identity.generate()
PLACE = ciphermq.Context("default_exchange", "default_key")


def private_of(kind: str) -> ciphermq.PrivateKey:
    return PRIVATE[KEY_KINDS[kind.split()[0]]]


def sealer(kind: str, keys: Dict[str, ciphermq.PrivateKey] = PRIVATE, me: ciphermq.Identity = ME) -> ciphermq.Sealer:
    suite, key_kind = kind.split()[0], KEY_KINDS[kind.split()[0]]
    recipients = [keys[key_kind].public_key(), *([OTHER[key_kind].public_key()] if "for two" in kind else [])]
    return ciphermq.Sealer(
        recipients, suite=suite, identity=me if "signed" in kind else None, signing="message" if "each" in kind else "session"
    )


def opener(kind: str, **options: Any) -> ciphermq.Opener:
    if "signed" in kind:
        options["senders"] = ciphermq.Senders()
        options["senders"].add("me", ME.sender_key())
    return ciphermq.Opener(private_of(kind), **options)
