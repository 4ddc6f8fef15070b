"""`Sender` and `Receiver` for asyncio: the names and meanings of those that block, to be awaited.

    async with Sender(public_key=public) as sender:
        await sender.send("hello")

    async with Receiver(private_key=private) as receiver:
        async for message in receiver:
            async with message:
                print(message.text)

Nothing is started on import. An object belongs to the event loop it is first used in. Cancelling a call that waits is
safe: a message that has come meanwhile goes back to its queue.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import typing
from collections import deque
from collections.abc import Iterable, Sequence
from typing import BinaryIO, Deque, List, Optional, Union

from ciphermq import _types
from ciphermq._connected_aio import _Connected
from ciphermq._native import AsyncMessage as Message
from ciphermq._native import (
    Batch,
    Connection,
    Identity,
    Keyset,
    Opener,
    PrivateKey,
    PublicKey,
    Sealer,
    Senders,
)
from ciphermq._types import (
    Compression,
    Dedupe,
    OnMisdirected,
    Padding,
    Plaintext,
    Recipients,
    Suite,
)
from ciphermq.errors import CipherMQError, Closed

__all__ = ["Message", "Receiver", "Sender"]


class Sender(_Connected):
    """Seals messages and publishes them: for the holder of `public_key`, or for all of `recipients`.

    A message is tried `attempts` times, `timeout` seconds each, always under the same id: the broker stores it once,
    however often it arrives. May be used by several tasks at a time.

    What it seals is bound to the exchange and routing key it is published with, and to `content_type`, as far as the
    suite can. With an `identity` it signs. `padding="padme"` and `compression="zstd"` are for keys of suite 2. A
    `sealer` takes the place of all of these.

    Without any of them only `publish` works, for messages that are sealed already.
    """

    def __init__(
        self,
        host: str = _types.DEFAULT_HOST,
        port: int = _types.DEFAULT_PORT,
        *,
        public_key: Optional[PublicKey] = None,
        recipients: Optional[Recipients] = None,
        identity: Optional[Identity] = None,
        padding: Padding = None,
        compression: Compression = None,
        content_type: Optional[str] = None,
        sealer: Optional[Sealer] = None,
        exchange: str = _types.DEFAULT_EXCHANGE,
        routing_key: str = _types.DEFAULT_KEY,
        timeout: float = 5.0,
        attempts: int = 3,
        name: Optional[str] = None,
    ) -> None:
        self._address = (host, port)
        self._core = Connection(host, port, timeout=timeout, window=_types.WINDOW, name=name, asyncio=True)
        self._sealer = _types.sealer_of(public_key, recipients, identity, padding, compression, sealer)
        self._content_type = content_type
        self._exchange = exchange
        self._routing_key = routing_key
        self._timeout = timeout
        self._attempts = attempts

    @property
    def pending(self) -> int:
        """Messages on their way that the broker has not confirmed."""
        return self._core.pending

    async def send(
        self,
        message: Plaintext,
        *,
        message_id: Optional[str] = None,
        exchange: Optional[str] = None,
        routing_key: Optional[str] = None,
        timeout: Optional[float] = None,
        attempts: Optional[int] = None,
    ) -> str:
        """Seals and publishes one message; returns its id once the broker has it.

        Raises `Refused` when the broker says no (`Full` when there is no room), `OutcomeUnknown` when it does not
        answer: send again with the id from the exception's `message_id`.
        """
        return await self._core.send(
            self._exchange if exchange is None else exchange,
            self._routing_key if routing_key is None else routing_key,
            message,
            self._sealing(),
            content_type=self._content_type,
            message_id=message_id,
            timeout=self._timeout if timeout is None else timeout,
            attempts=self._attempts if attempts is None else attempts,
        )

    async def publish(
        self,
        envelope: str,
        message_id: Optional[str] = None,
        *,
        exchange: Optional[str] = None,
        routing_key: Optional[str] = None,
        timeout: Optional[float] = None,
        attempts: Optional[int] = None,
    ) -> str:
        """Publishes what `seal` made; returns its id once the broker has it.

        The id is the one in the envelope; a `message_id` that is given must be the same.
        """
        return await self._core.publish(
            self._exchange if exchange is None else exchange,
            self._routing_key if routing_key is None else routing_key,
            envelope,
            message_id=message_id,
            timeout=self._timeout if timeout is None else timeout,
            attempts=self._attempts if attempts is None else attempts,
        )

    async def send_many(self, messages: Iterable[Plaintext]) -> List[str]:
        """Seals and publishes all messages, in order, without waiting for one before the next; their ids.

        Messages are taken from the iterable in groups of 256. If some fail, the rest is sent all the same; then the
        first failure is raised, with the ids that were confirmed as its `confirmed`.
        """
        sealer = self._sealing()
        source = iter(messages)
        under_way: Deque[Batch] = deque()
        outcome = _Outcome()
        while group := list(itertools.islice(source, _types.GROUP)):
            if len(under_way) == _types.GROUPS_UNDER_WAY:
                await outcome.add(under_way.popleft())
            batch = await self._core.send_batch(
                self._exchange,
                self._routing_key,
                group,
                sealer,
                content_type=self._content_type,
                timeout=self._timeout,
                attempts=self._attempts,
            )
            under_way.append(batch)
        for batch in under_way:
            await outcome.add(batch)
        return outcome.ids()

    async def send_large(
        self,
        message: Union[Plaintext, BinaryIO],
        *,
        message_id: Optional[str] = None,
        exchange: Optional[str] = None,
        routing_key: Optional[str] = None,
        timeout: Optional[float] = None,
        attempts: Optional[int] = None,
    ) -> str:
        """Seals and publishes a message of any size, in parts that fit into the broker's lines; returns its id once the broker has all of it.

        A file that is open for reading is read from where it stands to its end, in constant memory. A `Receiver` hands the
        message over when it has all of its parts. For keys of suite 2. If it fails half way, send it again, with the same
        id or another one: what has arrived of the first try is given up by the receiver.
        """
        source, left = _types.source_of(message)
        large = await self._core.begin_large(
            self._exchange if exchange is None else exchange,
            self._routing_key if routing_key is None else routing_key,
            left,
            self._sealing(),
            content_type=self._content_type,
            message_id=message_id,
            timeout=self._timeout if timeout is None else timeout,
            attempts=self._attempts if attempts is None else attempts,
        )
        under_way: Deque[Batch] = deque()
        try:
            while (length := large.next_len) is not None:
                text = await asyncio.to_thread(_types.read_part, source, length, left)
                left -= length
                if len(under_way) * length >= _types.PARTS_UNDER_WAY_BYTES:
                    await under_way.popleft().wait()
                under_way.append(await large.send(text))
            for batch in under_way:
                await batch.wait()
        except CipherMQError as failure:
            failure.message_id = large.message_id
            raise
        return large.message_id

    async def send_file(
        self,
        path: Union[str, "os.PathLike[str]"],
        *,
        message_id: Optional[str] = None,
        exchange: Optional[str] = None,
        routing_key: Optional[str] = None,
        timeout: Optional[float] = None,
        attempts: Optional[int] = None,
    ) -> str:
        """Sends what is in a file, as `send_large`."""
        with open(path, "rb") as file:
            return await self.send_large(
                file,
                message_id=message_id,
                exchange=exchange,
                routing_key=routing_key,
                timeout=timeout,
                attempts=attempts,
            )

    def _sealing(self) -> Sealer:
        if self._sealer is None:
            raise TypeError("this Sender has no public_key: pass one, or seal the message and use publish()")
        return self._sealer


class _Outcome:
    """What came of the groups of `send_many`."""

    def __init__(self) -> None:
        self._ids: List[str] = []
        self._failure: Optional[CipherMQError] = None

    async def add(self, batch: Batch) -> None:
        try:
            self._ids += await batch.wait()
        except CipherMQError as failure:
            self._ids += failure.confirmed
            self._failure = self._failure or failure

    def ids(self) -> List[str]:
        if self._failure is None:
            return self._ids
        self._failure.confirmed = self._ids
        raise self._failure


class Receiver(_Connected):
    """Takes messages from a queue and opens them with `private_key`, or with those of a `keyset`. An asynchronous iterator of `Message`.

    At most `prefetch` messages are on their way or in hand at a time. A message that is neither settled nor kept goes
    back to the queue; so does every one in hand when the receiver is closed.

    With `dedupe` (`True`, or the path of a file that outlives the process) a message that was acknowledged here
    before is acknowledged again and not handed over. `dedupe_sync` has each note on disk before the broker is told.

    With `senders` only what one of them has signed is opened (`Message.sender` says which). `require_signed=False` takes
    unsigned messages as well, until the first signed one has come from the queue. A message that its sender bound to
    another exchange or routing key is refused (`on_misdirected`: `"refuse"`, `"warn"`, `"accept"`). An `opener` takes the
    place of all of these.

    A message that does not open raises `DecryptError`, `EnvelopeError`, `Untrusted` or `Misdirected`, which carry it as
    `message`; the iterator goes on after that. With `on_undecryptable="reject"` it goes to the dead-letter queue instead.

    A message that was sent in parts is handed over when all of them are there, and settled with all of them. Up to
    `parts_messages` incomplete ones of `parts_bytes` together wait, each for `parts_timeout` seconds, then `Incomplete` is
    raised. They are in memory, or with `spool` in files of that directory, which have mode 0600 and no name: nothing is
    left of them when the process ends. `Message.reader` reads them a piece at a time. A queue with such messages has one
    receiver: what several get of one message makes it whole for none.
    """

    def __init__(
        self,
        host: str = _types.DEFAULT_HOST,
        port: int = _types.DEFAULT_PORT,
        *,
        private_key: Optional[PrivateKey] = None,
        keyset: Optional[Keyset] = None,
        senders: Optional[Senders] = None,
        require_signed: Optional[bool] = None,
        suites: Optional[Sequence[Suite]] = None,
        on_misdirected: OnMisdirected = "refuse",
        opener: Optional[Opener] = None,
        queue: str = _types.DEFAULT_QUEUE,
        prefetch: int = 256,
        timeout: float = 5.0,
        dedupe: Dedupe = None,
        dedupe_sync: bool = False,
        on_undecryptable: str = "raise",
        parts_messages: int = 16,
        parts_bytes: int = _types.PARTS_BYTES,
        parts_timeout: float = 600.0,
        spool: Optional[Union[str, "os.PathLike[str]"]] = None,
        name: Optional[str] = None,
    ) -> None:
        if on_undecryptable not in ("raise", "reject"):
            raise ValueError('on_undecryptable is "raise" or "reject"')
        self._address = (host, port)
        self._core = Connection(host, port, timeout=timeout, window=_types.WINDOW, name=name, asyncio=True)
        self._queue = queue
        self._subscription = self._core.consume(
            queue,
            _types.opener_of(private_key, keyset, senders, require_signed, suites, on_misdirected, opener, queue),
            prefetch=prefetch,
            dedupe=dedupe,
            dedupe_sync=dedupe_sync,
            reject_undecryptable=on_undecryptable == "reject",
            parts_messages=parts_messages,
            parts_bytes=parts_bytes,
            parts_timeout=parts_timeout,
            spool=spool,
        )

    @property
    def queue(self) -> str:
        """The queue it takes messages from."""
        return self._queue

    @property
    def duplicates(self) -> int:
        """Messages that had been acknowledged before, and were so again without being handed over."""
        return self._subscription.duplicates

    @property
    def rejected(self) -> int:
        """Messages that did not open and went to the dead-letter queue."""
        return self._subscription.rejected

    async def subscribe(self) -> None:
        """Starts to take messages, which the first `receive` does by itself. Raises `Refused` for an unknown queue."""
        await self._subscription.start()

    async def unsubscribe(self) -> None:
        """Takes no more messages; those that were not handed over go back. What is in hand can still be settled."""
        await self._subscription.close()

    async def receive(self, timeout: Optional[float] = None) -> Optional[Message]:
        """The next message; `None` when `timeout` seconds are over. Without it, waits as long as it takes."""
        message = self._subscription.poll()
        if message is not None:
            return message
        return await self._subscription.receive(timeout)

    async def fetch(self, n: int, wait: Optional[float] = None) -> List[Message]:
        """Up to `n` messages: waits up to `wait` seconds for the first, then takes what else is there.

        An empty list means that there was none. A message that does not open is raised when it is the first.
        """
        return await self._subscription.fetch(n, wait)

    def __aiter__(self) -> typing.AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        try:
            message = await self.receive()
        except Closed:
            message = None
        if message is None:
            raise StopAsyncIteration
        return message
