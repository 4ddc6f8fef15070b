"""What the calls take and return, for type checkers and for reading."""

from __future__ import annotations

import io
import os
import typing
from collections.abc import Sequence
from typing import BinaryIO, List, Optional, Tuple, Union

if typing.TYPE_CHECKING:
    from ciphermq._native import Identity, Keyset, Opener, PrivateKey, PublicKey, Recipient, Sealer, Senders

Plaintext = Union[str, bytes, bytearray, memoryview]
"""What can be sealed: text (as UTF-8) or bytes."""

KeyKind = Union[typing.Literal["rsa"], typing.Literal["x25519"], typing.Literal["x-wing"]]
"""RSA is what the original clients have (suite 1); X-Wing (suite 2pq) holds against quantum computers as well."""

Suite = Union[typing.Literal["1"], typing.Literal["2r"], typing.Literal["2x"], typing.Literal["2pq"]]
"""How a message is protected; the kind of the recipient's key decides."""

Padding = Optional[typing.Literal["padme"]]
Compression = Optional[typing.Literal["zstd"]]
OnMisdirected = Union[typing.Literal["refuse"], typing.Literal["warn"], typing.Literal["accept"]]
Signing = Union[typing.Literal["session"], typing.Literal["message"]]
PinMode = Union[typing.Literal["tofu"], typing.Literal["strict"]]

Recipients = Union["PublicKey", "Recipient", typing.Sequence[Union["PublicKey", "Recipient"]]]
"""Whom to seal for. A key out of a directory is no `Recipient` until somebody has vouched for it."""

Dedupe = Union[None, bool, str, "os.PathLike[str]"]
"""What a receiver remembers: nothing, `True` (until the process ends), or the path of a file."""


class QueueInfo(typing.TypedDict):
    """A queue, as the broker shows it. Times are seconds."""

    queue: str
    ready: int
    leased: int
    delayed: int
    bytes: int
    consumers: int
    lease: float
    max_attempts: int
    dead_letter: Optional[str]
    max_messages: int
    max_bytes: int
    durability: str


class ExchangeInfo(typing.TypedDict):
    """An exchange, as the broker shows it."""

    exchange: str
    kind: str
    bindings: int


class BindingInfo(typing.TypedDict):
    """A binding, as the broker shows it."""

    exchange: str
    queue: str
    routing_key: str


class CopyStatus(typing.TypedDict):
    """A message in one queue. `status` is `Sent`, `Delivered` or `Acknowledged`; times are seconds since 1970."""

    exchange: str
    queue: str
    status: str
    attempts: int
    published: Optional[float]
    delivered: Optional[float]
    acknowledged: Optional[float]


class MessageStatus(typing.TypedDict):
    """Where a message is: one entry for each queue it was put into."""

    message_id: str
    copies: List[CopyStatus]


Stats = dict[str, typing.Any]
"""The broker's statistics; docs/protocol.md, section 5.4, says what is in it."""

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 5672
DEFAULT_EXCHANGE = "default_exchange"
DEFAULT_KEY = "default_key"
DEFAULT_QUEUE = "default_queue"

GROUP = 256
"""Messages that `send_many` takes from its iterable at a time."""

GROUPS_UNDER_WAY = 4
"""Groups that `send_many` has under way at a time."""

WINDOW = GROUP * GROUPS_UNDER_WAY
"""Publishes without confirmation on one connection; the next one waits."""


PARTS_BYTES = 256 << 20
"""Bytes of messages in parts that a receiver holds while they are incomplete."""

PARTS_UNDER_WAY_BYTES = 8 << 20
"""Bytes of parts without confirmation that a sender keeps, to send them again."""


def source_of(message: Union[Plaintext, BinaryIO]) -> Tuple[BinaryIO, int]:
    """What a large message is read from, and how long it is."""
    if isinstance(message, str):
        message = message.encode()
    if isinstance(message, (bytes, bytearray, memoryview)):
        return io.BytesIO(message), memoryview(message).nbytes
    start = message.tell()
    size = message.seek(0, os.SEEK_END) - start
    message.seek(start)
    return message, size


def read_part(source: BinaryIO, length: int, left: int) -> bytes:
    """The next part of what is left. What it is of must not change while it is sent: it would never be whole."""
    text = bytearray()
    while len(text) < length:
        piece = source.read(length - len(text))
        if not piece:
            raise ValueError("the file became shorter while it was sent")
        text += piece
    if length == left and source.read(1):
        raise ValueError("the file became longer while it was sent")
    return bytes(text)


def sealer_of(
    public_key: Optional[PublicKey],
    recipients: Optional[Recipients],
    identity: Optional[Identity],
    padding: Padding,
    compression: Compression,
    sealer: Optional[Sealer],
) -> Optional[Sealer]:
    """What the arguments of a `Sender` come to."""
    from ciphermq._native import Sealer as make

    whom = [given for given in (public_key, recipients, sealer) if given is not None]
    if len(whom) > 1:
        raise TypeError("give one of public_key, recipients and sealer")
    options = {"identity": identity, "padding": padding, "compression": compression}
    given_options = [name for name, value in options.items() if value is not None]
    if given_options and (not whom or sealer is not None):
        raise TypeError(f"{given_options[0]} goes with public_key or recipients")
    if not whom or sealer is not None:
        return sealer
    return make(
        recipients if public_key is None else public_key,  # type: ignore[arg-type]  # one of them is there
        identity=identity,
        padding=padding,
        compression=compression,
    )


def opener_of(
    private_key: Optional[PrivateKey],
    keyset: Optional[Keyset],
    senders: Optional[Senders],
    require_signed: Optional[bool],
    suites: Optional[Sequence[Suite]],
    on_misdirected: OnMisdirected,
    opener: Optional[Opener],
    queue: str,
) -> Opener:
    """What the arguments of a `Receiver` come to."""
    from ciphermq._native import Opener as make

    if [private_key, keyset, opener].count(None) != 2:
        raise TypeError("give one of private_key, keyset and opener")
    if opener is not None:
        if senders is not None or require_signed is not None or suites is not None or on_misdirected != "refuse":
            raise TypeError("senders, require_signed, suites and on_misdirected are the opener's own: give them to Opener")
        return opener
    return make(
        private_key if keyset is None else keyset,  # type: ignore[arg-type]  # one of them is there
        senders=senders,
        require_signed=require_signed,
        source=queue,
        suites=suites,
        on_misdirected=on_misdirected,
    )
