# What the native module offers. Users import these names from `ciphermq` and `ciphermq.aio`.

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Awaitable, Dict, List, Optional, Sequence, Tuple, Type, Union, final

from typing_extensions import disjoint_base

from ciphermq._types import (
    Compression,
    Dedupe,
    KeyKind,
    OnMisdirected,
    Padding,
    PinMode,
    Plaintext,
    Recipients,
    Signing,
    Suite,
)

__all__ = [
    "Announcement",
    "AsyncMessage",
    "Batch",
    "BodyReader",
    "Broker",
    "Connection",
    "Context",
    "Identity",
    "Keyset",
    "LargeMessage",
    "Message",
    "MessageBase",
    "Opened",
    "Opener",
    "PartCollector",
    "Pins",
    "PrivateKey",
    "PublicKey",
    "Recipient",
    "Sealer",
    "SenderKey",
    "Senders",
    "Subscription",
    "UnverifiedRecipient",
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

def write_keypair(
    directory: str | os.PathLike[str], private_key: PrivateKey, *, passphrase: Optional[Plaintext] = None
) -> Tuple[Path, Path]:
    """Writes `receiver_private.pem` (mode 0600) and `receiver_public.pem` into a folder; their paths.

    With a `passphrase` the private key is encrypted. Makes the folder if need be. Raises `FileExistsError` rather than overwrite a file.
    """

@final
class PublicKey:
    """The key of a recipient: what it takes to seal a message for them."""

    @staticmethod
    def from_pem(data: Plaintext, *, allow_legacy_rsa: bool = False) -> PublicKey:
        """Reads a PEM text: SPKI of RSA, X25519 or X-Wing, or PKCS#1. `allow_legacy_rsa` takes RSA keys under 2048 bits as well."""

    @staticmethod
    def from_file(path: str | os.PathLike[str], *, allow_legacy_rsa: bool = False) -> PublicKey:
        """Reads a PEM file."""

    def to_pem(self) -> str:
        """The PEM text (SPKI)."""

    @property
    def kind(self) -> KeyKind:
        """What kind of key it is; the kind selects the suite."""

    @property
    def kid(self) -> str:
        """The name of the key: `sha256:` and the base64url of a hash of it."""

    @property
    def fingerprint(self) -> str:
        """The same as `kid`: what people compare."""

    @property
    def bits(self) -> int:
        """Size of the modulus, or of all of a key that has none."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class PrivateKey:
    """The key that opens what was sealed to its public half. It is not shown, copied or pickled."""

    @staticmethod
    def generate(kind: KeyKind = "x-wing") -> PrivateKey:
        """Makes a key; one of RSA has 2048 bits."""

    @staticmethod
    def from_pem(
        data: Plaintext, *, passphrase: Optional[Plaintext] = None, allow_legacy_rsa: bool = False
    ) -> PrivateKey:
        """Reads a PEM text: PKCS#8, encrypted or not, or PKCS#1."""

    @staticmethod
    def from_file(
        path: str | os.PathLike[str],
        *,
        passphrase: Optional[Plaintext] = None,
        strict: bool = False,
        allow_legacy_rsa: bool = False,
    ) -> PrivateKey:
        """Reads a PEM file. One that others than its owner can read is logged as a warning, or refused with `strict`."""

    def public_key(self) -> PublicKey:
        """The half to give to senders."""

    def to_pem(self, *, passphrase: Optional[Plaintext] = None) -> bytes:
        """The PEM text (PKCS#8). Keep it from logs; `write_keypair` writes a file for the owner only."""

    @property
    def kind(self) -> KeyKind:
        """What kind of key it is; the kind selects the suite."""

    @property
    def kid(self) -> str:
        """The name of the key: `sha256:` and the base64url of a hash of it."""

    @property
    def fingerprint(self) -> str:
        """The same as `kid`: what people compare."""

    @property
    def bits(self) -> int:
        """Size of the modulus, or of all of a key that has none."""

    def __copy__(self) -> None: ...
    def __deepcopy__(self, memo: Any, /) -> None: ...
    def __reduce__(self) -> Any: ...

@final
class Keyset:
    """The private keys of a receiver: one that senders seal to, and those before it that still open.

    In memory, or in a directory (`create`, `open`), where each change is on disk before the call returns.
    """

    def __new__(cls, primary: PrivateKey, *retired: PrivateKey) -> Keyset: ...
    @staticmethod
    def create(
        directory: str | os.PathLike[str], primary: PrivateKey, *, passphrase: Optional[Plaintext] = None
    ) -> Keyset:
        """Makes one in a directory."""

    @staticmethod
    def open(
        directory: str | os.PathLike[str], *, passphrase: Optional[Plaintext] = None, strict: bool = False
    ) -> Keyset:
        """Opens the one in a directory."""

    def public_key(self) -> PublicKey:
        """What senders are to use."""

    @property
    def kids(self) -> List[str]:
        """The names of all keys, the primary first."""

    def rotate(self, key: PrivateKey) -> None:
        """Makes `key` the primary; the one before still opens. An `Opener` made before does not know it: make a new one."""

    def reload(self) -> bool:
        """Reads the directory again if another program has changed it, and says whether it had. An `Opener` or `Receiver` made before
        does not know the new keys: make a new one.
        """

    def prune(self, retention: float) -> List[str]:
        """Deletes the keys retired for `retention` seconds or longer; their names. What is sealed to them is lost."""

    def __len__(self) -> int: ...
    def __copy__(self) -> None: ...
    def __deepcopy__(self, memo: Any, /) -> None: ...
    def __reduce__(self) -> Any: ...

@final
class Identity:
    """The key that says who sends: it signs messages and announcements. It is not shown, copied or pickled."""

    @staticmethod
    def generate() -> Identity:
        """Makes a new one."""

    @staticmethod
    def from_pem(data: Plaintext, *, passphrase: Optional[Plaintext] = None) -> Identity:
        """Reads a PEM text: PKCS#8 of Ed25519."""

    @staticmethod
    def from_file(
        path: str | os.PathLike[str], *, passphrase: Optional[Plaintext] = None, strict: bool = False
    ) -> Identity:
        """Reads a PEM file. One that others than its owner can read is logged as a warning, or refused with `strict`."""

    def write_file(self, path: str | os.PathLike[str], *, passphrase: Optional[Plaintext] = None) -> None:
        """Writes a new file of mode 0600. Raises `FileExistsError` rather than overwrite one."""

    def to_pem(self, *, passphrase: Optional[Plaintext] = None) -> bytes:
        """The PEM text (PKCS#8). Keep it from logs."""

    def sender_key(self) -> SenderKey:
        """The half to give to receivers."""

    @property
    def kid(self) -> str:
        """The name of the public half."""

    def __copy__(self) -> None: ...
    def __deepcopy__(self, memo: Any, /) -> None: ...
    def __reduce__(self) -> Any: ...

@final
class SenderKey:
    """What a receiver knows a sender by: the public half of an `Identity`."""

    @staticmethod
    def from_pem(data: Plaintext) -> SenderKey:
        """Reads a PEM text (SPKI)."""

    @staticmethod
    def from_file(path: str | os.PathLike[str]) -> SenderKey:
        """Reads a PEM file."""

    def to_pem(self) -> str:
        """The PEM text (SPKI)."""

    @property
    def kid(self) -> str:
        """The name of the key."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Recipient:
    """A key that somebody vouches for: the caller, by making this of it, or the pin store."""

    def __new__(cls, public_key: PublicKey) -> Recipient: ...
    def public_key(self) -> PublicKey:
        """The key."""

    @property
    def kid(self) -> str:
        """The name of the key."""

@final
class UnverifiedRecipient:
    """A key out of a directory, for which nobody vouches. Sealing to it is a `TypeError`."""

    def __new__(cls, public_key: PublicKey) -> UnverifiedRecipient: ...
    @property
    def kid(self) -> str:
        """The name of the key, to be compared by another way."""

    def verify(self, expected: str) -> Recipient:
        """The key, if it is the expected one; `Untrusted` if it is not."""

@final
class Context:
    """What a sender binds to a message beside its text: where it publishes it, and what the text is."""

    def __new__(cls, exchange: str = "", routing_key: str = "", content_type: Optional[str] = None) -> Context: ...
    @property
    def exchange(self) -> str:
        """The exchange published to; on other transports the topic, or nothing."""

    @property
    def routing_key(self) -> str:
        """The key published with."""

    @property
    def content_type(self) -> Optional[str]:
        """What the text is, a media type by custom."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Sealer:
    """Seals for one recipient or several (64 at most), all with the same kind of key. To be kept, and shared between threads.

    A session key is used for `messages` messages, `lifetime` seconds (60) or `bytes` bytes (1 GiB), whichever is over
    first; `messages=1` is a fresh key for each. Several RSA recipients take suite 2r, and so does one with `suite="2r"`.

    With an `identity` it signs: once a session key where there is one recipient, unless `signing="message"` (RSA only), which is slower
    and lets the recipient prove to others who sent it.

    With `padding="padme"` the envelope tells the length only roughly. With `compression="zstd"` it tells something of
    the content: not for messages that mix a secret with text that others choose.
    """

    def __new__(
        cls,
        recipients: Recipients,
        *,
        identity: Optional[Identity] = None,
        signing: Signing = "session",
        suite: Optional[Suite] = None,
        padding: Padding = None,
        compression: Compression = None,
        messages: int = 1000,
        lifetime: float = ...,
        bytes: int = ...,
    ) -> Sealer: ...
    @property
    def suite(self) -> Suite:
        """The suite it seals with."""

    def seal(
        self, plaintext: Plaintext, *, context: Optional[Context] = None, message_id: Optional[str] = None
    ) -> str:
        """Seals a message; the envelope is a JSON text without line breaks."""

    def seal_parts(
        self,
        plaintext: Plaintext,
        part_bytes: int,
        *,
        context: Optional[Context] = None,
        message_id: Optional[str] = None,
    ) -> List[str]:
        """Seals a message larger than a line as several envelopes. A `PartCollector` puts them together. Suite 2 only."""

    def seal_file(
        self,
        source: Union[str, "os.PathLike[str]"],
        target: Union[str, "os.PathLike[str]"],
        *,
        context: Optional[Context] = None,
        message_id: Optional[str] = None,
    ) -> str:
        """Seals a file of up to 48 MB into an envelope in another file, in 1 MiB of memory; its message id. Suite 2 only.

        The target is there, with mode 0600, when it is whole; when this fails nothing has changed.
        """

    def rotate(self) -> None:
        """Forgets the session key: the next message starts a new one."""

@final
class Opener:
    """Opens messages with one private key, several, or a keyset. To be kept, and shared between threads.

    With `senders` only what one of them has signed is opened. `require_signed=False` takes unsigned messages as well,
    until the first signed one has come from this `source`; with `mixed` also after that. A sender that has used a
    stronger suite before is refused a weaker one, unless `allow_lower_suites`. With `max_age` (seconds) a signed message
    is refused that was sealed longer ago: replays from before what the receiver remembers.

    With `only_for` only what its sender bound to one of these exchanges and routing keys is opened, whatever the broker
    says of the delivery; content types do not count.
    """

    def __new__(
        cls,
        keys: Union[PrivateKey, Sequence[PrivateKey], Keyset],
        *,
        senders: Optional[Senders] = None,
        require_signed: Optional[bool] = None,
        source: str = "",
        mixed: bool = False,
        allow_lower_suites: bool = False,
        max_age: Optional[float] = None,
        suites: Optional[Sequence[Suite]] = None,
        on_misdirected: OnMisdirected = "refuse",
        only_for: Optional[Sequence[Context]] = None,
    ) -> Opener: ...
    def open(self, envelope: Plaintext, *, delivered: Optional[Context] = None) -> Opened:
        """Opens an envelope; with `delivered`, one that came by this exchange and routing key.

        Raises `EnvelopeError`, `DecryptError` (whatever has to do with a key, alike), `Throttled`, `Untrusted`,
        `Misdirected`.
        """

    def open_file(
        self,
        source: Union[str, "os.PathLike[str]"],
        target: Union[str, "os.PathLike[str]"],
        *,
        delivered: Optional[Context] = None,
    ) -> Opened:
        """Opens the envelope in a file into another file, in 1 MiB of memory; what is known of it beside the text. Suite 2 only.

        The target is there, with mode 0600, when all of the text is authenticated; when this fails nothing has changed.
        """

    def forget(self) -> None:
        """Forgets every session key."""

    @property
    def stats(self) -> Dict[str, int]:
        """Counts since the start: `opened`, `failed`, `throttled`, `unwraps`; of signed messages `missing`, `late`, `repeated`."""

@final
class Opened:
    """An opened message. It is not shown: logs are read by others than messages are."""

    @property
    def message_id(self) -> str:
        """The id. Suite 1 without a signature does not authenticate it."""

    @property
    def plaintext(self) -> bytes:
        """What was sealed."""

    @property
    def text(self) -> str:
        """The same as UTF-8 text. Raises `UnicodeDecodeError` when it is none."""

    @property
    def suite(self) -> Suite:
        """How it was protected."""

    @property
    def sender(self) -> Optional[str]:
        """The `kid` of the known sender whose signature was checked; `None` when nothing is proven."""

    @property
    def claimed_sender(self) -> Optional[str]:
        """The `kid` of a sender that is not known: anybody can have put it there."""

    @property
    def context(self) -> Optional[Context]:
        """What its sender bound to it; `None` if nothing."""

    @property
    def sent_at(self) -> Optional[float]:
        """When it was sealed, by its sender's clock: seconds since 1970."""

    @property
    def sequence(self) -> Optional[Tuple[str, int]]:
        """The sender's stream, and the number of the message in it."""

    @property
    def order(self) -> str:
        """What that number says, if a known sender signed it: `first`, `next`, `gap` (some did not come, or not yet),
        `late`, `repeat`, `old`; else `untracked`.
        """

    @property
    def uniqueness(self) -> bytes:
        """32 bytes that no two sealings share: tells a repetition even under another id."""

    @property
    def part(self) -> Optional[Tuple[int, int]]:
        """Of a part of a larger message: its index, from 0 on, and how many there are."""

@final
class PartCollector:
    """Puts messages that came in parts together: in any order, each part once or more often.

    `messages` may be incomplete at a time, of `bytes` together (256 MiB), for `age` seconds each (600).
    """

    def __new__(cls, *, messages: int = 16, bytes: int = ..., age: float = ...) -> PartCollector: ...
    def add(self, opened: Opened) -> Optional[Opened]:
        """Takes a part; the whole message when it was the last one missing, or none at all.

        Raises `NoRoom` for what may be added later, `EnvelopeError` for a part that contradicts the others.
        """

    @property
    def incomplete(self) -> int:
        """Messages that are incomplete."""

@final
class Senders:
    """The senders a receiver knows, in memory or in a file, with what it has come to expect of them."""

    def __new__(cls, path: Optional[Union[str, "os.PathLike[str]"]] = None) -> Senders: ...
    def add(self, name: str, key: SenderKey) -> None:
        """Makes a sender known under a name for people."""

    def remove(self, kid: str) -> None:
        """Forgets a sender: nothing it signs is believed any more."""

    def name(self, kid: str) -> Optional[str]:
        """The name a sender was made known under."""

    def forget_source(self, source: str) -> None:
        """Forgets that messages from there are signed: unsigned ones are taken again until the next signed one."""

@final
class Announcement:
    """A key that somebody announced as his, signed by his identity. That identity is not vouched for: see `Pins`."""

    @staticmethod
    def sign(
        client_id: str,
        public_key: Optional[PublicKey],
        identity: Identity,
        *,
        after: Optional[Announcement] = None,
        successor: Optional[SenderKey] = None,
        not_before: Optional[float] = None,
        not_after: Optional[float] = None,
    ) -> Announcement:
        """Makes the first one, or the one `after` another. Times are seconds since 1970."""

    @staticmethod
    def from_bytes(data: Plaintext) -> Announcement:
        """Reads it and checks its signature."""

    def to_bytes(self) -> bytes:
        """The bytes, signature included."""

    @property
    def client_id(self) -> str:
        """Who announces."""

    @property
    def seq(self) -> int:
        """How many he has made, this one included."""

    @property
    def identity(self) -> str:
        """The name of the identity that signed."""

    @property
    def kid(self) -> Optional[str]:
        """The name of the key announced, if one was."""

@final
class Pins:
    """The identities behind names, remembered in a directory of files.

    With `mode="tofu"` the first announcement of a name is believed, and its identity's fingerprint logged; with
    `"strict"` only names that were pinned.
    """

    def __new__(cls, directory: Union[str, "os.PathLike[str]"], *, mode: PinMode = "tofu") -> Pins: ...
    def pin(self, client_id: str, identity: str) -> None:
        """Pins a name to the `kid` of an identity, which came by another way than the directory."""

    def take(self, client_id: str, announced: Sequence[Announcement]) -> None:
        """Takes what a directory says of a name, oldest first. Raises `KeyChanged` when that contradicts what is known."""

    def recipient(self, client_id: str) -> Recipient:
        """The key to seal to for a name. Raises `Untrusted` when there is none now."""

    def sender(self, client_id: str) -> SenderKey:
        """The key that messages of a name are signed with: for `Senders.add`."""

    def identity(self, client_id: str) -> Optional[str]:
        """The `kid` of the identity that a name is pinned to."""

    def forget(self, client_id: str) -> None:
        """Forgets a name: the next announcement is a first use again."""

@disjoint_base
class MessageBase:
    """What both kinds of message have in common."""

    @property
    def message_id(self) -> str:
        """The id its publisher gave it."""

    @property
    def body(self) -> bytes:
        """The opened message. Raises `DecryptError` for one that did not open. One in a `spool` is read anew each time."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    def reader(self) -> BodyReader:
        """Reads the body a piece at a time, which takes no memory for one that is in a `spool`."""

    @property
    def text(self) -> str:
        """The opened message as UTF-8 text. Raises `UnicodeDecodeError` when it is none."""

    @property
    def suite(self) -> Optional[Suite]:
        """How it was protected."""

    @property
    def sender(self) -> Optional[str]:
        """The `kid` of the known sender whose signature was checked; `None` when nothing is proven."""

    @property
    def claimed_sender(self) -> Optional[str]:
        """The `kid` of a sender that is not known: anybody can have put it there."""

    @property
    def context(self) -> Optional[Context]:
        """What its sender bound to it; `None` if nothing."""

    @property
    def sent_at(self) -> Optional[float]:
        """When it was sealed, by its sender's clock: seconds since 1970."""

    @property
    def sequence(self) -> Optional[Tuple[str, int]]:
        """The sender's stream, and the number of the message in it."""

    @property
    def order(self) -> Optional[str]:
        """What that number says, if a known sender signed it: `first`, `next`, `gap` (some did not come, or not yet),
        `late`, `repeat`, `old`; else `untracked`.
        """

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
        sealer: Sealer,
        *,
        content_type: Optional[str],
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
        sealer: Sealer,
        *,
        content_type: Optional[str],
        timeout: float,
        attempts: int,
    ) -> Any: ...
    def begin_large(
        self,
        exchange: str,
        routing_key: str,
        bytes: int,
        sealer: Sealer,
        *,
        content_type: Optional[str],
        message_id: Optional[str],
        timeout: float,
        attempts: int,
    ) -> Any: ...
    def consume(
        self,
        queue: str,
        opener: Opener,
        *,
        prefetch: int,
        dedupe: Dedupe,
        dedupe_sync: bool,
        reject_undecryptable: bool,
        parts_messages: int,
        parts_bytes: int,
        parts_timeout: float,
        spool: Optional[Union[str, "os.PathLike[str]"]],
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
    def announce_key(
        self,
        client_id: str,
        public_key: Optional[PublicKey],
        identity: Identity,
        *,
        not_before: Optional[float],
        not_after: Optional[float],
    ) -> Any: ...
    def lookup_key(self, client_id: str) -> Any: ...
    def resolve(self, client_id: str, pins: Pins) -> Any: ...
    def resolve_sender(self, client_id: str, pins: Pins) -> Any: ...
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
class LargeMessage:
    """A message whose parts are being sent."""

    @property
    def message_id(self) -> str: ...
    @property
    def next_len(self) -> Optional[int]: ...
    def send(self, text: Plaintext) -> Any: ...

@final
class BodyReader:
    """Reads the body of a message from its beginning, as a file that is open for reading does (`shutil.copyfileobj`)."""

    def read(self, size: Optional[int] = None, /) -> bytes:
        """Up to `size` bytes, or all that are left; none at the end."""

    def __enter__(self) -> BodyReader: ...
    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        exception: Optional[BaseException],
        traceback: Optional[TracebackType],
        /,
    ) -> None: ...

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
