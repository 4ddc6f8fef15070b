"""`ciphermq.aio` against the real broker: the names of the blocking side, awaited."""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
import threading
from typing import Any, Callable, Coroutine

import ciphermq
import pytest
from ciphermq import aio
from ciphermq.testing import Broker

from conftest import Keys, eventually

LIMIT = 60.0


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def within() -> None:
        await asyncio.wait_for(work(), LIMIT)

    asyncio.run(within())


@pytest.fixture
def address(ciphermq_broker: Broker) -> dict:
    return ciphermq_broker.address


def test_both_sides_have_the_same_names() -> None:
    for kind in ("Sender", "Receiver"):
        blocking, awaited = getattr(ciphermq, kind), getattr(aio, kind)
        names = {name for name in dir(blocking) if not name.startswith("_")}
        assert names == {name for name in dir(awaited) if not name.startswith("_")}
        for name in names:
            one, other = getattr(blocking, name), getattr(awaited, name)
            if callable(one):
                assert inspect.signature(one).parameters == inspect.signature(other).parameters, name


def test_messages_arrive_in_order_with_all_that_belongs_to_them(address: dict, keys: Keys) -> None:
    async def work() -> None:
        async with aio.Sender(**address, public_key=keys[1]) as sender:
            first = await sender.send("first", message_id="first")
            ids = [first, *await sender.send_many(str(n) for n in range(1000))]
            assert await sender.publish(ciphermq.seal("last", keys[1], message_id="last")) == "last"
        received = []
        async with aio.Receiver(**address, private_key=keys[0]) as receiver:
            async for message in receiver:
                assert isinstance(message, aio.Message) and message.envelope
                received.append(message.message_id)
                await message.ack(wait=False)
                if message.text == "last":
                    break
            assert await receiver.fetch(5, wait=0) == []
            [queue] = await receiver.list_queues()
            assert queue["ready"] == queue["leased"] == 0
        assert received == [*ids, "last"]

    run(work)


def test_async_with_acks_or_gives_back(address: dict, keys: Keys) -> None:
    async def work() -> None:
        async with aio.Sender(**address, public_key=keys[1]) as sender, aio.Receiver(
            **address, private_key=keys[0]
        ) as receiver:
            await sender.send("x", message_id="m")
            message = await receiver.receive(timeout=10)
            with pytest.raises(RuntimeError, match="work failed"):
                async with message:
                    raise RuntimeError("work failed")
            message = await receiver.receive(timeout=10)
            assert message.attempt == 2
            with pytest.raises(asyncio.CancelledError):
                async with message:
                    raise asyncio.CancelledError
            message = await receiver.receive(timeout=10)
            assert message.attempt == 2, "a cancelled task uses up no attempt"
            async with message as same:
                assert same is message
            assert (await sender.status("m"))["copies"][0]["status"] == "Acknowledged"
            with pytest.raises(ciphermq.LeaseLost):
                await message.ack()

    run(work)


def test_the_other_settlements(address: dict, keys: Keys) -> None:
    async def work() -> None:
        async with aio.Sender(**address, public_key=keys[1]) as sender, aio.Receiver(
            **address, private_key=keys[0]
        ) as receiver:
            await sender.send("x")
            message = await receiver.receive(timeout=10)
            await message.touch()
            await message.nack(delay=0.01)
            message = await receiver.receive(timeout=10)
            await message.release()
            message = await receiver.receive(timeout=10)
            await message.reject()
            assert message.attempt == 2
            assert [queue["queue"] for queue in await sender.list_queues()] == ["default_queue", "default_queue.dlq"]

    run(work)


def test_many_sends_at_a_time(address: dict, keys: Keys) -> None:
    async def work() -> None:
        async with aio.Sender(**address, public_key=keys[1]) as sender:
            ids = await asyncio.gather(*(sender.send(str(n), message_id=f"m-{n}") for n in range(2000)))
            assert ids == [f"m-{n}" for n in range(2000)] and sender.pending == 0

    run(work)


def test_the_loop_runs_while_a_call_waits(address: dict, keys: Keys) -> None:
    async def work() -> None:
        async with aio.Sender(**address, public_key=keys[1]) as sender, aio.Receiver(
            **address, private_key=keys[0]
        ) as receiver:
            waiting = asyncio.create_task(receiver.receive())
            for _ in range(100):
                await asyncio.sleep(0)
            assert not waiting.done()
            await sender.send("x")
            message = await waiting
            await message.ack()

    run(work)


def test_cancelling_a_wait_loses_no_message(address: dict, keys: Keys) -> None:
    async def work() -> None:
        async with aio.Sender(**address, public_key=keys[1]) as sender, aio.Receiver(
            **address, private_key=keys[0]
        ) as receiver:
            await receiver.subscribe()
            for number in range(100):
                waiting = asyncio.create_task(receiver.receive())
                await asyncio.sleep(0)
                sending = asyncio.create_task(sender.send(str(number)))
                for _ in range(number % 20):
                    await asyncio.sleep(0)
                waiting.cancel()
                outcome = (await asyncio.gather(waiting, return_exceptions=True))[0]
                await sending
                if isinstance(outcome, asyncio.CancelledError):
                    outcome = await receiver.receive(timeout=10)
                assert outcome.text == str(number)
                await outcome.ack()

    run(work)


def test_wait_for_ends_a_wait(address: dict, keys: Keys) -> None:
    async def work() -> None:
        async with aio.Receiver(**address, private_key=keys[0]) as receiver:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(receiver.receive(), 0.02)
            assert await receiver.receive(timeout=0) is None

    run(work)


def test_closing_ends_the_iteration_of_another_task(address: dict, keys: Keys) -> None:
    async def work() -> None:
        receiver = aio.Receiver(**address, private_key=keys[0])
        await receiver.subscribe()

        async def collect() -> list:
            return [message async for message in receiver]

        collecting = asyncio.create_task(collect())
        await asyncio.sleep(0)
        await receiver.close()
        assert await collecting == []
        with pytest.raises(ciphermq.Closed):
            await receiver.receive()

    run(work)


def test_errors_are_those_of_the_blocking_side(address: dict, keys: Keys, other_keys: Keys) -> None:
    async def work() -> None:
        async with aio.Sender(**address, public_key=keys[1]) as sender:
            with pytest.raises(ciphermq.Refused) as refused:
                await sender.send("x", routing_key="nobody", message_id="m")
            assert refused.value.code == "NO_ROUTE" and refused.value.message_id == "m"
            await sender.publish(ciphermq.seal("x", other_keys[1], message_id="foreign"))
        async with aio.Receiver(**address, private_key=keys[0]) as receiver:
            with pytest.raises(ciphermq.DecryptError) as caught:
                await receiver.receive(timeout=10)
            assert isinstance(caught.value.message, aio.Message)
            await caught.value.message.reject()
        with pytest.raises(ValueError):
            await sender.send("x", timeout=-1)

    run(work)


def test_an_object_belongs_to_one_loop(address: dict, keys: Keys) -> None:
    sender = aio.Sender(**address, public_key=keys[1])
    asyncio.run(sender.connect())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(sender.connect())
    with pytest.raises(RuntimeError, match="no running event loop"):
        sender.connect().send(None)


def test_loops_in_several_threads_at_a_time(address: dict, keys: Keys) -> None:
    failures = []

    async def work() -> None:
        async with aio.Sender(**address, public_key=keys[1]) as sender:
            await asyncio.gather(*(sender.send("x") for _ in range(100)))

    def thread() -> None:
        try:
            run(work)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failures == []


def test_a_loop_that_closes_over_a_wait_is_no_harm(address: dict, keys: Keys) -> None:
    """`run` cancels what still waits; the answer that comes later finds nobody."""

    async def leave_behind() -> None:
        receiver = aio.Receiver(**address, private_key=keys[0])
        await receiver.subscribe()
        asyncio.ensure_future(receiver.receive())
        await asyncio.sleep(0)

    for _ in range(5):
        asyncio.run(leave_behind())
    gc.collect()
    with ciphermq.Sender(**address, public_key=keys[1]) as sender:
        eventually(lambda: sender.list_queues()[0]["consumers"] == 0)
        sender.send("x")
        with ciphermq.Receiver(**address, private_key=keys[0]) as receiver:
            assert receiver.receive(timeout=10).text == "x"


def test_import_starts_neither_loop_nor_thread() -> None:
    program = (
        "import asyncio, threading, ciphermq, ciphermq.aio, ciphermq.testing\n"
        "assert threading.active_count() == 1\n"
        "assert len(__import__('os').listdir('/proc/self/task')) == 1\n"
        "try: asyncio.get_running_loop()\n"
        "except RuntimeError: print('clean')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "clean\n", done.stderr


def test_works_under_uvloop(address: dict, keys: Keys) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def work() -> None:
        async with aio.Sender(**address, public_key=keys[1]) as sender:
            ids = await sender.send_many(str(n) for n in range(500))
        async with aio.Receiver(**address, private_key=keys[0]) as receiver:
            for expected in ids:
                async with await receiver.receive(timeout=10) as message:
                    assert message.message_id == expected

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(work(), LIMIT))
    finally:
        loop.close()
