"""The microbenchmarks on asyncio.  usage: asyncio_micro.py CASE OPERATIONS"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count, repeat

import harness


async def yields(tasks: int, operations: int) -> None:
    """Switch between tasks that do nothing but give way."""

    async def worker(turns: int) -> None:
        sleep = asyncio.sleep
        for _ in repeat(None, turns):
            await sleep(0)

    await asyncio.gather(*(worker(operations // tasks) for _ in range(tasks)))


async def pingpong(operations: int) -> None:
    """Send operations messages, half of them there, half of them back.

    A queue of one is the nearest thing to an unbuffered channel.
    """
    there: asyncio.Queue[int] = asyncio.Queue(1)
    back: asyncio.Queue[int] = asyncio.Queue(1)
    rounds = operations // 2

    async def peer() -> None:
        for _ in range(rounds):
            await back.put(await there.get())

    task = asyncio.create_task(peer())
    for i in range(rounds):
        await there.put(i)
        await back.get()
    await task


async def buffered(operations: int) -> None:
    """Send messages through a queue with room for 128."""
    messages: asyncio.Queue[int] = asyncio.Queue(128)

    async def producer() -> None:
        for i in range(operations):
            await messages.put(i)

    task = asyncio.create_task(producer())
    for _ in range(operations):
        await messages.get()
    await task


async def spawn(operations: int) -> None:
    """Start tasks that do nothing, then join them all."""

    async def nothing() -> None:
        pass

    for task in [asyncio.create_task(nothing()) for _ in range(operations)]:
        await task


async def select4(operations: int) -> None:
    """Receive from whichever of four producers is ready, with a task for each pending get."""
    queues: list[asyncio.Queue[int]] = [asyncio.Queue(1) for _ in range(4)]

    async def producer(queue: asyncio.Queue[int]) -> None:
        for i in range(operations // 4):
            await queue.put(i)

    producers = [asyncio.create_task(producer(queue)) for queue in queues]
    pending = {asyncio.create_task(queue.get()): queue for queue in queues}
    received = 0
    while received < operations // 4 * 4:
        done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            queue = pending.pop(task)
            pending[asyncio.create_task(queue.get())] = queue
        received += len(done)
    for task in pending:
        task.cancel()
    await asyncio.gather(*producers)


async def sieve(operations: int) -> None:
    """Find as many primes with a chain of filters, a task for each prime."""

    async def generate(numbers: asyncio.Queue[int]) -> None:
        for number in count(2):
            await numbers.put(number)

    async def keep_indivisible(
        numbers: asyncio.Queue[int], survivors: asyncio.Queue[int], prime: int
    ) -> None:
        while True:
            number = await numbers.get()
            if number % prime:
                await survivors.put(number)

    numbers: asyncio.Queue[int] = asyncio.Queue(1)
    tasks = [asyncio.create_task(generate(numbers))]  # the loop alone would not keep them alive
    prime = 0
    for _ in range(operations):
        prime = await numbers.get()
        survivors: asyncio.Queue[int] = asyncio.Queue(1)
        tasks.append(asyncio.create_task(keep_indivisible(numbers, survivors, prime)))
        numbers = survivors
    harness.check_prime(operations, prime)


async def parked(operations: int) -> None:
    """Let tasks wait for one event, then set it."""
    meter = harness.ParkedMeter(operations)
    gate = asyncio.Event()
    started = 0

    async def waiter() -> None:
        nonlocal started
        started += 1
        await gate.wait()

    tasks = [asyncio.create_task(waiter()) for _ in range(operations)]
    while started < operations:
        await asyncio.sleep(0)
    meter.all_parked()
    gate.set()
    for task in tasks:
        await task
    meter.all_ended()


async def mutex(operations: int) -> None:
    """Lock and unlock what nobody else wants."""
    lock = asyncio.Lock()
    for _ in repeat(None, operations):
        await lock.acquire()
        lock.release()


async def contended(operations: int) -> None:
    """Lock what others hold while they give way."""
    lock = asyncio.Lock()

    async def worker() -> None:
        for _ in repeat(None, operations // harness.CONTENDERS):
            async with lock:
                await asyncio.sleep(0)

    await asyncio.gather(*(worker() for _ in range(harness.CONTENDERS)))


async def cond(operations: int) -> None:
    """Take turns: wait for one's own, notify the other's."""
    changed = asyncio.Condition()
    turn = 0

    async def worker(mine: int) -> None:
        nonlocal turn
        for _ in repeat(None, operations // 2):
            async with changed:
                while turn != mine:
                    await changed.wait()
                turn = 1 - mine
                changed.notify()

    await asyncio.gather(worker(0), worker(1))


async def semaphore(operations: int) -> None:
    """Take one of fewer permits than there are tasks, and give way while it is held."""
    permits = asyncio.Semaphore(harness.CONTENDERS // 2)

    async def worker() -> None:
        for _ in repeat(None, operations // harness.CONTENDERS):
            async with permits:
                await asyncio.sleep(0)

    await asyncio.gather(*(worker() for _ in range(harness.CONTENDERS)))


async def time_outs(operations: int) -> None:
    """Enter blocks with a deadline, and leave them long before."""
    for _ in repeat(None, operations):
        async with asyncio.timeout(60):
            pass


async def timers(operations: int) -> None:
    """Start timers, then cancel them all."""
    loop = asyncio.get_running_loop()

    def nothing() -> None:
        pass

    for timer in [loop.call_later(60 + i % 1000, nothing) for i in range(operations)]:
        timer.cancel()


async def scopes(operations: int) -> None:
    """Start tasks in groups, a thousand in each, and wait for their ends."""

    async def nothing() -> None:
        pass

    for _ in range(operations // harness.CHILDREN):
        async with asyncio.TaskGroup() as group:
            for _ in range(harness.CHILDREN):
                group.create_task(nothing())


CASES: dict[str, Callable[[int], Awaitable[None]]] = {
    "yield2": partial(yields, 2),
    "yield1000": partial(yields, 1000),
    "pingpong": pingpong,
    "buffered": buffered,
    "spawn": spawn,
    "select4": select4,
    "sieve": sieve,
    "parked": parked,
    "mutex": mutex,
    "contended": contended,
    "cond": cond,
    "semaphore": semaphore,
    "timeout": time_outs,
    "timer": timers,
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
    asyncio.run(main())
