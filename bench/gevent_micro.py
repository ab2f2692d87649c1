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


CASES: dict[str, Callable[[int], None]] = {
    "yield2": partial(yields, 2),
    "yield1000": partial(yields, 1000),
    "pingpong": pingpong,
    "buffered": buffered,
    "spawn": spawn,
    "sieve": sieve,
    "parked": parked,
}

if __name__ == "__main__":
    case, operations = harness.micro_arguments(CASES)
    harness.measure(case, operations, CASES[case])
    harness.leave()
