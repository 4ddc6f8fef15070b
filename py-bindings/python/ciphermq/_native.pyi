# What the native module offers. Users import these names from `ciphermq` and `ciphermq.aio`.

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Awaitable, List, Optional, Tuple, Type, Union, final

from typing_extensions import disjoint_base

from ciphermq._types import Dedupe, Plaintext

__all__ = [
    "AsyncMessage",
    "Batch",
    "Broker",
    "Connection",
    "Message",
    "MessageBase",
    "PrivateKey",
    "PublicKey",
    "Subscription",
    "__version__",
    "generate_keypair",
    "open_envelope",
    "seal",
    "write_keypair",
]

__version__: str

def seal(plaintext: Plaintext, public_key: PublicKey, *, message_id: Optional[str] = None) -> str:
    """Seals a message for the holder of a key; the envelope is a JSON text without line breaks.

    Without a `message_id` a version 4 UUID is made. A given one has 1 to 255 bytes and no space, control character,
    quote or backslash. Calls with the same key object share a session key for up to 1,000 messages, 60 seconds or 1
    GiB.
    """

def open_envelope(envelope: Plaintext, private_key: PrivateKey) -> bytes:
    """Opens an envelope with the key it was sealed for.

    Raises `EnvelopeError` when it is none, `DecryptError` when it does not open, whatever the cause, and `Throttled`
    when too many others failed before.
    """

def generate_keypair(bits: int = 2048) -> Tuple[PrivateKey, PublicKey]:
    """Makes an RSA key pair: 2048 to 8192 bits, a multiple of 8."""

def write_keypair(directory: str | os.PathLike[str], private_key: PrivateKey) -> Tuple[Path, Path]:
    """Writes `receiver_private.pem` (mode 0600) and `receiver_public.pem` into a folder; their paths.

    Makes the folder if need be. Raises `FileExistsError` rather than overwrite a file.
    """

@final
class PublicKey:
    """The key of a recipient: what it takes to seal a message for them."""

    @staticmethod
    def from_pem(data: Plaintext, *, allow_legacy_rsa: bool = False) -> PublicKey:
        """Reads a PEM text: SPKI or PKCS#1. `allow_legacy_rsa` takes RSA keys under 2048 bits as well."""

    @staticmethod
    def from_file(path: str | os.PathLike[str], *, allow_legacy_rsa: bool = False) -> PublicKey:
        """Reads a PEM file."""

    def to_pem(self) -> str:
        """The PEM text (SPKI)."""

    @property
    def fingerprint(self) -> str:
        """The name of the key: `sha256:` and the base64url of the hash of its SPKI form."""

    @property
    def bits(self) -> int:
        """Size of the modulus."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class PrivateKey:
    """The key that opens what was sealed to its public half. It is not shown, copied or pickled."""

    @staticmethod
    def from_pem(data: Plaintext, *, allow_legacy_rsa: bool = False) -> PrivateKey:
        """Reads a PEM text: PKCS#8 or PKCS#1, not encrypted."""

    @staticmethod
    def from_file(path: str | os.PathLike[str], *, allow_legacy_rsa: bool = False) -> PrivateKey:
        """Reads a PEM file. One that others than its owner can read is logged as a warning."""

    def public_key(self) -> PublicKey:
        """The half to give to senders."""

    def to_pem(self) -> bytes:
        """The PEM text (PKCS#8). Keep it from logs; `write_keypair` writes a file for the owner only."""

    @property
    def fingerprint(self) -> str:
        """The name of the key: that of its public half."""

    @property
    def bits(self) -> int:
        """Size of the modulus."""

    def __copy__(self) -> None: ...
    def __deepcopy__(self, memo: Any, /) -> None: ...
    def __reduce__(self) -> Any: ...

@disjoint_base
class MessageBase:
    """What both kinds of message have in common."""

    @property
    def message_id(self) -> str:
        """The id its publisher gave it."""

    @property
    def body(self) -> bytes:
        """The opened message. Raises `DecryptError` for one that did not open."""

    @property
    def text(self) -> str:
        """The opened message as UTF-8 text. Raises `UnicodeDecodeError` when it is none."""

    @property
    def envelope(self) -> Optional[str]:
        """The sealed form, byte for byte as it was published; `None` once the message is settled."""

    @property
    def queue(self) -> str:
        """The queue it came from."""

    @property
    def exchange(self) -> str:
        """The exchange it was published to."""

    @property
    def routing_key(self) -> str:
        """The key it was published with."""

    @property
    def attempt(self) -> int:
        """Which delivery this is, counting those that used up an attempt: 1 is the first."""

    @property
    def published(self) -> float:
        """When the broker took it, in seconds since 1970."""

    @property
    def dead_letter(self) -> Optional[Tuple[str, str]]:
        """In a dead-letter queue: the queue it was in, and why it left (`rejected`, `attempts`, `too-long`)."""

    def ack(self, *, wait: bool = True) -> Any: ...
    def nack(self, *, delay: Optional[float] = None) -> Any: ...
    def release(self) -> Any: ...
    def reject(self) -> Any: ...
    def touch(self) -> Any: ...

@final
class Message(MessageBase):
    """A message in hand. As a context manager it is acknowledged at the end, or given back on an exception.

    Whoever drops it unsettled gives it back. Settling it twice, or too late, raises `LeaseLost`.
    """

    def ack(self, *, wait: bool = True) -> None:
        """Done with the message: it is never delivered again. With `wait=False` returns before the broker's word."""

    def nack(self, *, delay: Optional[float] = None) -> None:
        """Back into the queue, now or after `delay` seconds; uses up an attempt."""

    def release(self) -> None:
        """Back into the queue at once; uses up no attempt."""

    def reject(self) -> None:
        """Into the dead-letter queue."""

    def touch(self) -> None:
        """The lease starts anew from now."""

    def __enter__(self) -> Message: ...
    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        exception: Optional[BaseException],
        traceback: Optional[TracebackType],
        /,
    ) -> Optional[bool]: ...

@final
class AsyncMessage(MessageBase):
    """A message in hand, for asyncio: as `ciphermq.Message`, to be awaited."""

    def ack(self, *, wait: bool = True) -> Awaitable[None]:
        """Done with the message: it is never delivered again. With `wait=False` does not wait for the broker's word."""

    def nack(self, *, delay: Optional[float] = None) -> Awaitable[None]:
        """Back into the queue, now or after `delay` seconds; uses up an attempt."""

    def release(self) -> Awaitable[None]:
        """Back into the queue at once; uses up no attempt."""

    def reject(self) -> Awaitable[None]:
        """Into the dead-letter queue."""

    def touch(self) -> Awaitable[None]:
        """The lease starts anew from now."""

    def __aenter__(self) -> Awaitable[AsyncMessage]: ...
    def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        exception: Optional[BaseException],
        traceback: Optional[TracebackType],
        /,
    ) -> Awaitable[Optional[bool]]: ...

# The rest is not for users. What waits returns a value, or an awaitable of it when made with `asyncio=True`.

@final
class Connection:
    """A client that connects on first use."""

    def __new__(
        cls, host: str, port: int, *, timeout: float, window: int, name: Optional[str], asyncio: bool
    ) -> Connection: ...
    @property
    def connected(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    @property
    def reconnects(self) -> int: ...
    @property
    def pending(self) -> int: ...
    def connect(self) -> Any: ...
    def close(self) -> Any: ...
    def send(
        self,
        exchange: str,
        routing_key: str,
        plaintext: Plaintext,
        public_key: PublicKey,
        *,
        message_id: Optional[str],
        timeout: float,
        attempts: int,
    ) -> Any: ...
    def publish(
        self,
        exchange: str,
        routing_key: str,
        envelope: str,
        *,
        message_id: Optional[str],
        timeout: float,
        attempts: int,
    ) -> Any: ...
    def send_batch(
        self,
        exchange: str,
        routing_key: str,
        plaintexts: List[Plaintext],
        public_key: PublicKey,
        *,
        timeout: float,
        attempts: int,
    ) -> Any: ...
    def consume(
        self,
        queue: str,
        private_key: PrivateKey,
        *,
        prefetch: int,
        dedupe: Dedupe,
        dedupe_sync: bool,
        reject_undecryptable: bool,
    ) -> Subscription: ...
    def declare_queue(
        self,
        queue: str,
        *,
        lease: Optional[float],
        max_attempts: Optional[int],
        dead_letter: Optional[str],
        max_messages: Optional[int],
        max_bytes: Optional[int],
        durability: Optional[str],
    ) -> Any: ...
    def declare_exchange(self, exchange: str) -> Any: ...
    def bind(self, exchange: str, queue: str, routing_key: str) -> Any: ...
    def unbind(self, exchange: str, queue: str, routing_key: str) -> Any: ...
    def delete_queue(self, queue: str, force: bool) -> Any: ...
    def delete_exchange(self, exchange: str) -> Any: ...
    def purge(self, queue: str) -> Any: ...
    def ping(self) -> Any: ...
    def status(self, message_id: str) -> Any: ...
    def list_queues(self) -> Any: ...
    def list_exchanges(self) -> Any: ...
    def list_bindings(self, exchange: Optional[str]) -> Any: ...
    def stats(self) -> Any: ...

@final
class Batch:
    """Messages on their way."""

    def wait(self) -> Any: ...

@final
class Subscription:
    """The messages of one queue."""

    def start(self) -> Any: ...
    def poll(self) -> Any: ...
    def receive(self, timeout: Optional[float]) -> Any: ...
    def fetch(self, max: int, wait: Optional[float]) -> Any: ...
    def close(self) -> Any: ...
    @property
    def duplicates(self) -> int: ...
    @property
    def rejected(self) -> int: ...

@final
class Broker:
    """The broker, inside this process."""

    def __new__(
        cls,
        *,
        port: int,
        lease: Optional[float],
        max_attempts: Optional[int],
        data_dir: Optional[Union[str, "os.PathLike[str]"]],
    ) -> Broker: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
