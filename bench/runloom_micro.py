"""The microbenchmarks on runloom.  usage: runloom_micro.py CASE OPERATIONS

In its mode for one thread, since more need a Python without a GIL, and with its trade for speed:
without it, a process has no room for 100 000 fibers under Linux's usual limit of mappings.
"""

# The peers are optional, and not all are typed.
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import count, repeat

import harness
import runloom
from runloom_c import Mutex, sched_yield  # its quickest way to give way, and to lock

# A deadline is a fiber, which ends at its next turn after the cancellation.
DEADLINES_AT_ONCE = 1000


def yields(tasks: int, operations: int) -> None:
    """Switch between tasks that do nothing but give way."""
    workers = runloom.WaitGroup()

    def worker(turns: int) -> None:
        give_way = sched_yield
        for _ in repeat(None, turns):
            give_way()
        workers.done()

    workers.add(tasks)
    for _ in range(tasks):
        runloom.fiber(worker, operations // tasks)
    workers.wait()


def pingpong(operations: int) -> None:
    """Send operations messages over unbuffered channels: half of them there, half of them back."""
    there, back = runloom.Chan(), runloom.Chan()
    rounds = operations // 2

    def peer() -> None:
        for _ in range(rounds):
            message, _ok = there.recv()
            back.send(message)

    runloom.fiber(peer)
    for i in range(rounds):
        there.send(i)
        back.recv()


def buffered(operations: int) -> None:
    """Send messages through a channel with room for 128."""
    messages = runloom.Chan(128)

    def producer() -> None:
        for i in range(operations):
            messages.send(i)
        messages.close()

    runloom.fiber(producer)
    for _ in messages:
        pass


def spawn(operations: int) -> None:
    """Start fibers that only say that they have run, and wait for them: they have no join."""
    tasks = runloom.WaitGroup()
    tasks.add(operations)
    for _ in range(operations):
        runloom.fiber(tasks.done)
    tasks.wait()


def select4(operations: int) -> None:
    """Receive from whichever of four producers is ready."""
    channels = [runloom.Chan() for _ in range(4)]

    def producer(channel: runloom.Chan) -> None:
        for i in range(operations // 4):
            channel.send(i)

    for channel in channels:
        runloom.fiber(producer, channel)
    cases = [("recv", channel) for channel in channels]
    for _ in range(operations // 4 * 4):
        runloom.select(cases)


def sieve(operations: int) -> None:
    """Find as many primes with a chain of filters, a fiber for each prime."""

    def generate(numbers: runloom.Chan) -> None:
        for number in count(2):
            numbers.send(number)

    def keep_indivisible(numbers: runloom.Chan, survivors: runloom.Chan, prime: int) -> None:
        for number in numbers:
            if number % prime:
                survivors.send(number)

    numbers = runloom.Chan()
    runloom.fiber(generate, numbers)
    prime = 0
    for _ in range(operations):
        prime, _ok = numbers.recv()
        survivors = runloom.Chan()
        runloom.fiber(keep_indivisible, numbers, survivors, prime)
        numbers = survivors
    harness.check_prime(operations, prime)


def parked(operations: int) -> None:
    """Let fibers wait to receive from one channel, then close it."""
    meter = harness.ParkedMeter(operations)
    gate = runloom.Chan()
    started = ended = 0

    def waiter() -> None:
        nonlocal started, ended
        started += 1
        gate.recv()
        ended += 1

    for _ in range(operations):
        runloom.fiber(waiter)
    while started < operations:
        sched_yield()
    meter.all_parked()
    gate.close()
    while ended < operations:
        sched_yield()
    meter.all_ended()


def mutex(operations: int) -> None:
    """Lock and unlock what nobody else wants."""
    guard = Mutex()
    lock, unlock = guard.lock, guard.unlock
    for _ in repeat(None, operations):
        lock()
        unlock()


def contended(operations: int) -> None:
    """Lock what others hold while they give way."""
    guard = Mutex()
    workers = runloom.WaitGroup()

    def worker() -> None:
        for _ in repeat(None, operations // harness.CONTENDERS):
            with guard:
                sched_yield()
        workers.done()

    workers.add(harness.CONTENDERS)
    for _ in range(harness.CONTENDERS):
        runloom.fiber(worker)
    workers.wait()


def cond(operations: int) -> None:
    """Take turns: wait for one's own, signal the other's."""
    changed = runloom.sync.Condition()
    workers = runloom.WaitGroup()
    turn = 0

    def worker(mine: int) -> None:
        nonlocal turn
        for _ in repeat(None, operations // 2):
            with changed:
                while turn != mine:
                    changed.wait()
                turn = 1 - mine
                changed.notify()
        workers.done()

    workers.add(2)
    runloom.fiber(worker, 0)
    runloom.fiber(worker, 1)
    workers.wait()


def semaphore(operations: int) -> None:
    """Take one of fewer permits than there are fibers, and give way while it is held."""
    permits = runloom.sync.Semaphore(harness.CONTENDERS // 2)
    workers = runloom.WaitGroup()

    def worker() -> None:
        for _ in repeat(None, operations // harness.CONTENDERS):
            permits.acquire()
            sched_yield()
            permits.release()
        workers.done()

    workers.add(harness.CONTENDERS)
    for _ in range(harness.CONTENDERS):
        runloom.fiber(worker)
    workers.wait()


def cancel_contexts(operations: int) -> None:
    """Make contexts and cancel them."""
    parent, _ = runloom.context.WithCancel(runloom.context.Background())
    for _ in repeat(None, operations):
        _, cancel = runloom.context.WithCancel(parent)
        cancel()


def time_out_contexts(operations: int) -> None:
    """Make contexts with a deadline, and cancel them long before."""
    parent, _ = runloom.context.WithCancel(runloom.context.Background())
    for i in range(operations):
        _, cancel = runloom.context.WithTimeout(parent, 60)
        cancel()
        if i % DEADLINES_AT_ONCE == 0:
            sched_yield()


def timers(operations: int) -> None:
    """Start timers, then stop them all: each is a fiber, which then ends."""
    for timer in [runloom.time.Timer(60 + i % 1000) for i in range(operations)]:
        timer.Stop()
    sched_yield()


def scopes(operations: int) -> None:
    """Start children in sets, a thousand in each, and wait for their ends."""

    def nothing() -> None:
        pass

    for _ in range(operations // harness.CHILDREN):
        with runloom.sync.JoinSet() as children:
            for _ in range(harness.CHILDREN):
                children.spawn(nothing)


CASES: dict[str, Callable[[int], None]] = {
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
    "context": cancel_contexts,
    "timeout": time_out_contexts,
    "timer": timers,
    "scope": scopes,
}


def main(case: str, operations: int) -> None:
    """The first fiber: its end is the program's, however many others wait."""
    try:
        harness.measure(case, operations, CASES[case])
    except BaseException:
        sys.excepthook(*sys.exc_info())
        harness.leave(1)
    harness.leave()


if __name__ == "__main__":
    case, operations = harness.micro_arguments(CASES)
    runloom.optimize("throughput")
    runloom.run(1, partial(main, case, operations))
