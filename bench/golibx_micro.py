"""The microbenchmarks on golibx.  usage: golibx_micro.py CASE OPERATIONS"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count, repeat
from threading import RLock, get_ident
from time import perf_counter_ns

import harness

from golibx import (
    Chan,
    Cond,
    Mutex,
    Semaphore,
    Timer,
    WaitGroup,
    context,
    go,
    gosched,
    run,
    scope,
    select,
)


def yields(tasks: int, operations: int) -> None:
    """Switch between tasks that do nothing but give way."""
    workers = WaitGroup()

    def worker(turns: int) -> None:
        for _ in repeat(None, turns):
            gosched()
        workers.done()

    workers.add(tasks)
    for _ in range(tasks):
        go(worker, operations // tasks)
    workers.wait()


def _two_ends(rounds: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """What two goroutines run: the second sends a message, the first one back, `rounds` times."""
    there: Chan[int] = Chan()
    back: Chan[int] = Chan()

    def returns() -> None:
        for _ in range(rounds):
            back.send(there.recv())

    def sends() -> None:
        for i in range(rounds):
            there.send(i)
            back.recv()

    return returns, sends


def pingpong(operations: int) -> None:
    """Send operations messages over unbuffered channels: half of them there, half of them back."""
    returns, sends = _two_ends(operations // 2)
    go(returns)
    sends()


def pingpong_mapped(operations: int) -> None:
    """The same, by functions that map() calls."""
    there: Chan[int] = Chan()
    back: Chan[int] = Chan()
    rounds = operations // 2

    def returns(_: int) -> None:
        back.send(there.recv())

    def sends(i: int) -> None:
        there.send(i)
        back.recv()

    def both(step: Callable[[int], None]) -> None:
        for _ in map(step, range(rounds)):
            pass

    go(both, returns)
    go(both, sends).join()


def pingpong_below_c(operations: int) -> None:
    """The same, but one of the two is in what C code has called: it keeps its thread."""
    returns, sends = _two_ends(operations // 2)
    go(returns)
    go(harness.below_c, sends).join()


def rlock(operations: int) -> None:
    """Lock a threading.RLock that others hold while they give way."""
    guard = RLock()
    workers = WaitGroup()
    waits: list[int] = []

    def worker() -> None:
        for _ in repeat(None, operations // (2 * harness.CONTENDERS)):
            start = perf_counter_ns()
            with guard:
                waits.append(perf_counter_ns() - start)
                gosched()

    for _ in range(2 * harness.CONTENDERS):
        workers.go(worker)
    workers.wait()
    harness.emit_waits(waits)


def idents(operations: int) -> None:
    """Ask which thread one is on, in a goroutine."""

    def asks() -> None:
        for _ in repeat(None, operations):
            get_ident()

    go(asks).join()


def buffered(operations: int) -> None:
    """Send messages through a channel with room for 128."""
    messages: Chan[int] = Chan(128)

    def producer() -> None:
        for i in range(operations):
            messages.send(i)
        messages.close()

    go(producer)
    for _ in messages:
        pass


def spawn(operations: int) -> None:
    """Start goroutines that do nothing, then join them all."""

    def nothing() -> None:
        pass

    for goroutine in [go(nothing) for _ in range(operations)]:
        goroutine.join()


def select4(operations: int) -> None:
    """Receive from whichever of four producers is ready."""
    channels: list[Chan[int]] = [Chan() for _ in range(4)]

    def producer(channel: Chan[int]) -> None:
        for i in range(operations // 4):
            channel.send(i)

    for channel in channels:
        go(producer, channel)
    cases = [channel.on_recv() for channel in channels]
    for _ in range(operations // 4 * 4):
        select(*cases)


def sieve(operations: int) -> None:
    """Find as many primes with a chain of filters, a goroutine for each prime."""

    def generate(numbers: Chan[int]) -> None:
        for number in count(2):
            numbers.send(number)

    def keep_indivisible(numbers: Chan[int], survivors: Chan[int], prime: int) -> None:
        for number in numbers:
            if number % prime:
                survivors.send(number)

    numbers: Chan[int] = Chan()
    go(generate, numbers)
    prime = 0
    for _ in range(operations):
        prime = numbers.recv()
        survivors: Chan[int] = Chan()
        go(keep_indivisible, numbers, survivors, prime)
        numbers = survivors
    harness.check_prime(operations, prime)


def parked(operations: int) -> None:
    """Let goroutines wait to receive from one channel, then close it."""
    meter = harness.ParkedMeter(operations)
    gate: Chan[None] = Chan()
    started, ended = WaitGroup(), WaitGroup()

    def waiter() -> None:
        started.done()
        gate.recv_ok()
        ended.done()

    started.add(operations)
    ended.add(operations)
    for _ in range(operations):
        go(waiter)
    started.wait()
    meter.all_parked()
    gate.close()
    ended.wait()
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
    workers = WaitGroup()

    def worker() -> None:
        for _ in repeat(None, operations // harness.CONTENDERS):
            with guard:
                gosched()

    for _ in range(harness.CONTENDERS):
        workers.go(worker)
    workers.wait()


def cond(operations: int) -> None:
    """Take turns: wait for one's own, signal the other's."""
    changed = Cond()
    workers = WaitGroup()
    turn = 0

    def worker(mine: int) -> None:
        nonlocal turn
        for _ in repeat(None, operations // 2):
            with changed:
                while turn != mine:
                    changed.wait()
                turn = 1 - mine
                changed.signal()

    workers.go(worker, 0)
    workers.go(worker, 1)
    workers.wait()


def semaphore(operations: int) -> None:
    """Take one of fewer permits than there are tasks, and give way while it is held."""
    permits = Semaphore(harness.CONTENDERS // 2)
    workers = WaitGroup()

    def worker() -> None:
        for _ in repeat(None, operations // harness.CONTENDERS):
            with permits:
                gosched()

    for _ in range(harness.CONTENDERS):
        workers.go(worker)
    workers.wait()


def cancel_contexts(operations: int) -> None:
    """Make contexts and cancel them."""
    parent, _ = context.with_cancel(context.background())
    for _ in repeat(None, operations):
        _, cancel = context.with_cancel(parent)
        cancel()


def time_out_contexts(operations: int) -> None:
    """Make contexts with a deadline, and cancel them long before."""
    parent, _ = context.with_cancel(context.background())
    for _ in repeat(None, operations):
        _, cancel = context.with_timeout(parent, 60)
        cancel()


def timers(operations: int) -> None:
    """Start timers, then stop them all."""

    def nothing() -> None:
        pass

    for timer in [Timer(60 + i % 1000, nothing) for i in range(operations)]:
        timer.stop()


def scopes(operations: int) -> None:
    """Start children in scopes, a thousand in each, and wait for their ends."""

    def nothing() -> None:
        pass

    for _ in range(operations // harness.CHILDREN):
        with scope() as s:
            for _ in range(harness.CHILDREN):
                s.go(nothing)


CASES: dict[str, Callable[[int], None]] = {
    "yield2": partial(yields, 2),
    "yield1000": partial(yields, 1000),
    "pingpong": pingpong,
    "mapped": pingpong_mapped,
    "below_c": pingpong_below_c,
    "rlock": rlock,
    "ident": idents,
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

if __name__ == "__main__":
    case, operations = harness.micro_arguments(CASES)
    run(harness.measure, case, operations, CASES[case])
