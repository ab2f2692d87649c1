"""The microbenchmarks on gevent.  usage: gevent_micro.py CASE OPERATIONS"""

# The peers are optional, and not all are typed.
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count, repeat

import gevent
import harness
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.pool import Group
from gevent.queue import Channel, Queue


def yields(tasks: int, operations: int) -> None:
    """Switch between tasks that do nothing but give way."""

    def worker(turns: int) -> None:
        sleep = gevent.sleep
        for _ in repeat(None, turns):
            sleep(0)

    gevent.joinall([gevent.spawn(worker, operations // tasks) for _ in range(tasks)])


def pingpong(operations: int) -> None:
    """Send operations messages over unbuffered channels: half of them there, half of them back."""
    there, back = Channel(), Channel()
    rounds = operations // 2

    def peer() -> None:
        for _ in range(rounds):
            back.put(there.get())

    greenlet = gevent.spawn(peer)
    for i in range(rounds):
        there.put(i)
        back.get()
    greenlet.join()


def buffered(operations: int) -> None:
    """Send messages through a queue with room for 128."""
    messages = Queue(128)

    def producer() -> None:
        for i in range(operations):
            messages.put(i)

    greenlet = gevent.spawn(producer)
    for _ in range(operations):
        messages.get()
    greenlet.join()


def spawn(operations: int) -> None:
    """Start greenlets that do nothing, then join them all."""

    def nothing() -> None:
        pass

    for greenlet in [gevent.spawn(nothing) for _ in range(operations)]:
        greenlet.join()


def sieve(operations: int) -> None:
    """Find as many primes with a chain of filters, a greenlet for each prime."""

    def generate(numbers: Channel) -> None:
        for number in count(2):
            numbers.put(number)

    def keep_indivisible(numbers: Channel, survivors: Channel, prime: int) -> None:
        for number in numbers:
            if number % prime:
                survivors.put(number)

    numbers = Channel()
    gevent.spawn(generate, numbers)
    prime = 0
    for _ in range(operations):
        prime = numbers.get()
        survivors = Channel()
        gevent.spawn(keep_indivisible, numbers, survivors, prime)
        numbers = survivors
    harness.check_prime(operations, prime)


def parked(operations: int) -> None:
    """Let greenlets wait for one event, then set it."""
    meter = harness.ParkedMeter(operations)
    gate = Event()
    started = 0

    def waiter() -> None:
        nonlocal started
        started += 1
        gate.wait()

    greenlets = [gevent.spawn(waiter) for _ in range(operations)]
    while started < operations:
        gevent.sleep(0)
    meter.all_parked()
    gate.set()
    for greenlet in greenlets:
        greenlet.join()
    meter.all_ended()


def mutex(operations: int) -> None:
    """Lock and unlock what nobody else wants."""
    lock = BoundedSemaphore(1)
    acquire, release = lock.acquire, lock.release
    for _ in repeat(None, operations):
        acquire()
        release()


def permits(number: int, operations: int) -> None:
    """Take one of fewer permits than there are greenlets, and give way while it is held."""
    held = BoundedSemaphore(number)

    def worker() -> None:
        sleep = gevent.sleep
        for _ in repeat(None, operations // harness.CONTENDERS):
            with held:
                sleep(0)

    gevent.joinall([gevent.spawn(worker) for _ in range(harness.CONTENDERS)])


def time_outs(operations: int) -> None:
    """Start timeouts, and cancel them long before."""
    for _ in repeat(None, operations):
        gevent.Timeout.start_new(60).cancel()


def timers(operations: int) -> None:
    """Start timers, then stop them all."""
    loop = gevent.get_hub().loop

    def nothing() -> None:
        pass

    started = [loop.timer(60 + i % 1000) for i in range(operations)]
    for timer in started:
        timer.start(nothing)
    for timer in started:
        timer.stop()
        timer.close()


def scopes(operations: int) -> None:
    """Start greenlets in groups, a thousand in each, and wait for their ends."""

    def nothing() -> None:
        pass

    for _ in range(operations // harness.CHILDREN):
        group = Group()
        for _ in range(harness.CHILDREN):
            group.spawn(nothing)
        group.join()


CASES: dict[str, Callable[[int], None]] = {
    "yield2": partial(yields, 2),
    "yield1000": partial(yields, 1000),
    "pingpong": pingpong,
    "buffered": buffered,
    "spawn": spawn,
    "sieve": sieve,
    "parked": parked,
    "mutex": mutex,
    "contended": partial(permits, 1),
    "semaphore": partial(permits, harness.CONTENDERS // 2),
    "timeout": time_outs,
    "timer": timers,
    "scope": scopes,
}

if __name__ == "__main__":
    case, operations = harness.micro_arguments(CASES)
    harness.measure(case, operations, CASES[case])
    harness.leave()
