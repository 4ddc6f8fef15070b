"""What the calls take and return, for type checkers and for reading."""

from __future__ import annotations

import os
import typing
from typing import List, Optional, Union

Plaintext = Union[str, bytes, bytearray, memoryview]
"""What can be sealed: text (as UTF-8) or bytes."""

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
