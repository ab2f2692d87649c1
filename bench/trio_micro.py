"""The microbenchmarks on trio.  usage: trio_micro.py CASE OPERATIONS"""

# The peers are optional, and not all are typed.
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count, repeat
from typing import Any

import harness
import trio


async def yields(tasks: int, operations: int) -> None:
    """Switch between tasks that do nothing but give way."""

    async def worker(turns: int) -> None:
        checkpoint = trio.lowlevel.checkpoint
        for _ in repeat(None, turns):
            await checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(worker, operations // tasks)


async def pingpong(operations: int) -> None:
    """Send operations messages over unbuffered channels: half of them there, half of them back."""
    send_there, receive_there = trio.open_memory_channel[int](0)
    send_back, receive_back = trio.open_memory_channel[int](0)
    rounds = operations // 2

    async def peer() -> None:
        for _ in range(rounds):
            await send_back.send(await receive_there.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        for i in range(rounds):
            await send_there.send(i)
            await receive_back.receive()


async def buffered(operations: int) -> None:
    """Send messages through a channel with room for 128."""
    send, receive = trio.open_memory_channel[int](128)

    async def producer() -> None:
        async with send:
            for i in range(operations):
                await send.send(i)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(producer)
        async for _ in receive:
            pass


async def spawn(operations: int) -> None:
    """Start tasks that do nothing, then join them all."""

    async def nothing() -> None:
        pass

    async with trio.open_nursery() as nursery:
        for _ in range(operations):
            nursery.start_soon(nothing)


async def sieve(operations: int) -> None:
    """Find as many primes with a chain of filters, a task for each prime."""

    async def generate(numbers: Any) -> None:
        for number in count(2):
            await numbers.send(number)

    async def keep_indivisible(numbers: Any, survivors: Any, prime: int) -> None:
        async for number in numbers:
            if number % prime:
                await survivors.send(number)

    async with trio.open_nursery() as nursery:
        send, numbers = trio.open_memory_channel[int](0)
        nursery.start_soon(generate, send)
        prime = 0
        for _ in range(operations):
            prime = await numbers.receive()
            send, survivors = trio.open_memory_channel[int](0)
            nursery.start_soon(keep_indivisible, numbers, send, prime)
            numbers = survivors
        harness.check_prime(operations, prime)
        nursery.cancel_scope.cancel()


async def parked(operations: int) -> None:
    """Let tasks wait for one event, then set it."""
    meter = harness.ParkedMeter(operations)
    gate = trio.Event()
    started = 0

    async def waiter() -> None:
        nonlocal started
        started += 1
        await gate.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(operations):
            nursery.start_soon(waiter)
        while started < operations:
            await trio.lowlevel.checkpoint()
        meter.all_parked()
        gate.set()
    meter.all_ended()


async def mutex(operations: int) -> None:
    """Lock and unlock what nobody else wants."""
    lock = trio.Lock()
    for _ in repeat(None, operations):
        await lock.acquire()
        lock.release()


async def contended(operations: int) -> None:
    """Lock what others hold while they give way."""
    lock = trio.Lock()

    async def worker() -> None:
        for _ in repeat(None, operations // harness.CONTENDERS):
            async with lock:
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(harness.CONTENDERS):
            nursery.start_soon(worker)


async def cond(operations: int) -> None:
    """Take turns: wait for one's own, notify the other's."""
    changed = trio.Condition()
    turn = 0

    async def worker(mine: int) -> None:
        nonlocal turn
        for _ in repeat(None, operations // 2):
            async with changed:
                while turn != mine:
                    await changed.wait()
                turn = 1 - mine
                changed.notify()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker, 0)
        nursery.start_soon(worker, 1)


async def semaphore(operations: int) -> None:
    """Take one of fewer permits than there are tasks, and give way while it is held."""
    permits = trio.Semaphore(harness.CONTENDERS // 2)

    async def worker() -> None:
        for _ in repeat(None, operations // harness.CONTENDERS):
            async with permits:
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(harness.CONTENDERS):
            nursery.start_soon(worker)


async def cancel_scopes(operations: int) -> None:
    """Make cancel scopes and cancel them."""
    for _ in repeat(None, operations):
        with trio.CancelScope() as scope:
            scope.cancel()


async def time_outs(operations: int) -> None:
    """Enter blocks with a deadline, and leave them long before."""
    for _ in repeat(None, operations):
        with trio.fail_after(60):
            pass


async def scopes(operations: int) -> None:
    """Start tasks in nurseries, a thousand in each, and wait for their ends."""

    async def nothing() -> None:
        pass

    for _ in range(operations // harness.CHILDREN):
        async with trio.open_nursery() as nursery:
            for _ in range(harness.CHILDREN):
                nursery.start_soon(nothing)


CASES: dict[str, Callable[[int], Awaitable[None]]] = {
    "yield2": partial(yields, 2),
    "yield1000": partial(yields, 1000),
    "pingpong": pingpong,
    "buffered": buffered,
    "spawn": spawn,
    "sieve": sieve,
    "parked": parked,
    "mutex": mutex,
    "contended": contended,
    "cond": cond,
    "semaphore": semaphore,
    "context": cancel_scopes,
    "timeout": time_outs,
    "scope": scopes,
}


async def main() -> None:
    """Run the passes of the case given on the command line."""
    case, operations = harness.micro_arguments(CASES)
    for turns, meter in harness.passes(case, operations):
        with meter:
            await CASES[case](turns)
    harness.leave()


if __name__ == "__main__":
    trio.run(main)
