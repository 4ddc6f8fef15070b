"""What `Sender` and `Receiver` have in common: the connection, and what can be asked on it."""

from __future__ import annotations

from types import TracebackType
from typing import List, Optional, Tuple, Type, TypeVar

from ciphermq._native import (
    Announcement,
    Connection,
    Identity,
    Pins,
    PublicKey,
    Recipient,
    SenderKey,
)
from ciphermq._types import BindingInfo, ExchangeInfo, MessageStatus, QueueInfo, Stats
from ciphermq.errors import CipherMQError

_Self = TypeVar("_Self", bound="_Connected")


class _Connected:
    """A connection to the broker and what can be asked on it.

    The connection is made on first use, or by `with`. When it is lost it is made again, as often as need be; what was
    not confirmed is sent again under the same id.
    """

    _core: Connection
    _address: Tuple[str, int]

    def __enter__(self: _Self) -> _Self:
        self.connect()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        exception: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        try:
            self.close()
        except CipherMQError:
            # The exception of the block is the one to be seen.
            if exception is None:
                raise

    def connect(self) -> None:
        """Connects, if that was not done. Raises `ConnectionLost` when there is no broker."""
        self._core.connect()

    def close(self) -> None:
        """Waits for what is under way, at most `timeout`, and ends the connection. To be called once or often."""
        self._core.close()

    @property
    def address(self) -> Tuple[str, int]:
        """Host and port of the broker."""
        return self._address

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._core.connected

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._core.closed

    @property
    def reconnects(self) -> int:
        """How many times the connection was lost and made again."""
        return self._core.reconnects

    def ping(self) -> float:
        """The time the broker takes for an answer, in seconds."""
        return self._core.ping()

    def declare_queue(
        self,
        queue: str,
        *,
        lease: Optional[float] = None,
        max_attempts: Optional[int] = None,
        dead_letter: Optional[str] = None,
        max_messages: Optional[int] = None,
        max_bytes: Optional[int] = None,
        durability: Optional[str] = None,
    ) -> None:
        """Makes a queue if it is not there. What is not said is the broker's default, or stays as it is.

        `lease` is in seconds. `durability` is what the confirmation of a message waits for: `sync` (it is on disk),
        `interval:<ms>` or `none`. `Refused` with `CONFLICT`: it is there with other options.
        """
        self._core.declare_queue(
            queue,
            lease=lease,
            max_attempts=max_attempts,
            dead_letter=dead_letter,
            max_messages=max_messages,
            max_bytes=max_bytes,
            durability=durability,
        )

    def declare_exchange(self, exchange: str) -> None:
        """Makes an exchange if it is not there."""
        self._core.declare_exchange(exchange)

    def bind(self, exchange: str, queue: str, routing_key: str) -> None:
        """Sends messages published to `exchange` with `routing_key` to `queue` as well."""
        self._core.bind(exchange, queue, routing_key)

    def unbind(self, exchange: str, queue: str, routing_key: str) -> None:
        """Takes a binding away."""
        self._core.unbind(exchange, queue, routing_key)

    def delete_queue(self, queue: str, *, force: bool = False) -> None:
        """Deletes a queue; with `force` also one that holds messages."""
        self._core.delete_queue(queue, force)

    def delete_exchange(self, exchange: str) -> None:
        """Deletes an exchange and its bindings."""
        self._core.delete_exchange(exchange)

    def purge(self, queue: str) -> int:
        """Removes the messages of a queue that nobody has in hand; how many."""
        return self._core.purge(queue)

    def status(self, message_id: str) -> Optional[MessageStatus]:
        """Where a message is; `None` when the broker does not know the id (any more)."""
        return self._core.status(message_id)

    def list_queues(self) -> List[QueueInfo]:
        """All queues, by name."""
        return self._core.list_queues()

    def list_exchanges(self) -> List[ExchangeInfo]:
        """All exchanges, by name."""
        return self._core.list_exchanges()

    def list_bindings(self, exchange: Optional[str] = None) -> List[BindingInfo]:
        """The bindings of one exchange, or of all."""
        return self._core.list_bindings(exchange)

    def announce_key(
        self,
        client_id: str,
        public_key: Optional[PublicKey],
        identity: Identity,
        *,
        not_before: Optional[float] = None,
        not_after: Optional[float] = None,
    ) -> Announcement:
        """Announces the key of `client_id`, signed, in the broker's directory, in the place of the one before.

        `None` in the place of the key takes it back. Times are seconds since 1970. `Refused` with `NOT_ALLOWED`: the name
        belongs to another identity.
        """
        return self._core.announce_key(
            client_id, public_key, identity, not_before=not_before, not_after=not_after
        )

    def lookup_key(self, client_id: str) -> Optional[Announcement]:
        """The last announcement under a name, for which nobody vouches; `None` when there is none."""
        return self._core.lookup_key(client_id)

    def resolve(self, client_id: str, pins: Pins) -> Recipient:
        """The key to seal to for `client_id`, as the directory has it and `pins` believe it.

        Raises `KeyChanged` when the directory contradicts what is pinned, `Untrusted` when there is no key to believe in.
        """
        return self._core.resolve(client_id, pins)

    def resolve_sender(self, client_id: str, pins: Pins) -> SenderKey:
        """The key that messages of `client_id` are signed with, in the same manner: for `Senders.add`."""
        return self._core.resolve_sender(client_id, pins)

    def stats(self) -> Stats:
        """The broker's statistics."""
        return self._core.stats()
