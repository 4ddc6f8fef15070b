"""The exceptions of the package, each also a kind of a built-in one.

Texts say what to do next. They never hold a part of a message or of a key.
"""

from __future__ import annotations

import typing
from typing import Optional, Union

if typing.TYPE_CHECKING:
    import ciphermq.aio

__all__ = [
    "CipherMQError",
    "Closed",
    "ConnectionLost",
    "DecryptError",
    "EnvelopeError",
    "ForkError",
    "Full",
    "KeyChanged",
    "KeyFormatError",
    "LeaseLost",
    "Misdirected",
    "NoRoom",
    "OutcomeUnknown",
    "PassphraseError",
    "ProtocolError",
    "Refused",
    "Throttled",
    "Timeout",
    "Untrusted",
]


class CipherMQError(Exception):
    """The root: whatever goes wrong in this package, arguments excepted."""

    message_id: Optional[str] = None
    """The message it is about, if it is about one that was published or settled."""

    confirmed: typing.Sequence[str] = ()
    """From `send_many`: the ids that the broker has confirmed all the same."""


class ConnectionLost(CipherMQError, ConnectionError):
    """There is no broker to be reached, or it went away and did not come back in time."""


class Timeout(CipherMQError, TimeoutError):
    """The deadline passed before anything was sent: nothing has happened."""


class OutcomeUnknown(Timeout):
    """The deadline passed after sending: it may have happened. Publish again with the same `message_id`."""


class Refused(CipherMQError):
    """The broker said no."""

    code: str = ""
    """The broker's word for the reason, stable: `NO_ROUTE`, `NOT_FOUND`, … (docs/protocol.md, section 7)."""


class Full(Refused):
    """The queue, the broker's store or its disk is full. Consuming and acknowledging still work; publish later."""


class LeaseLost(CipherMQError):
    """The message was settled too late: it will be, or was, delivered again."""


class Closed(CipherMQError):
    """The sender or receiver was closed."""


class DecryptError(CipherMQError, ValueError):
    """The message does not open with this key. Every cause looks the same on purpose."""

    message: Optional[Union[ciphermq.Message, ciphermq.aio.Message]] = None
    """On receiving: the message, still to be settled (`reject` moves it to the dead-letter queue)."""


class EnvelopeError(CipherMQError, ValueError):
    """Not an envelope, or one of a kind or size this package does not handle; no key was touched."""

    message: Optional[Union[ciphermq.Message, ciphermq.aio.Message]] = None
    """On receiving: the message, still to be settled."""


class Throttled(CipherMQError):
    """Too many messages failed to open lately, so this one was not tried; release it and try later."""

    message: Optional[Union[ciphermq.Message, ciphermq.aio.Message]] = None
    """On receiving: the message, still to be settled."""


class Untrusted(CipherMQError):
    """Nobody who is believed vouches for this key or this message."""

    message: Optional[Union[ciphermq.Message, ciphermq.aio.Message]] = None
    """On receiving: the message, still to be settled."""


class KeyChanged(Untrusted):
    """A directory contradicts what is known of a name. Nothing is sealed to it until somebody has found out why."""


class Misdirected(CipherMQError):
    """The message opened, and its sender meant it for another exchange or routing key."""

    message: Optional[Union[ciphermq.Message, ciphermq.aio.Message]] = None
    """On receiving: the message, still to be settled."""


class Incomplete(CipherMQError):
    """Parts of a message did not come in time (`parts_timeout`); those that came went back to their queue. Its id is `message_id`."""

    missing: int = 0
    """How many parts did not come."""

    count: int = 0
    """How many it has."""


class NoRoom(CipherMQError):
    """Too many messages in parts are incomplete: release the part, and add it later."""


class KeyFormatError(CipherMQError, ValueError):
    """A key cannot be read or used; the text says why."""


class PassphraseError(KeyFormatError):
    """A key is encrypted, and no passphrase was given, or a wrong one."""


class ProtocolError(CipherMQError):
    """What answers at the address is not a CipherMQ broker this package understands."""


class ForkError(CipherMQError, RuntimeError):
    """The object was made before a fork and does not work in the child: make a new one there."""
