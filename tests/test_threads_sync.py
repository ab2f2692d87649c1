"""Locks and the like from plain threads, with goroutines as their partners."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from golibx import (
    Barrier,
    BrokenBarrierError,
    Cancelled,
    Cond,
    Event,
    Mutex,
    Once,
    RWMutex,
    Semaphore,
    WaitGroup,
    go,
    gosched,
    run,
    sleep,
    stats,
)
from golibx.testing import wait_until, wait_until_parked
from test_threads_chan import LONG, PLAIN, Thread, come_back_late, waiting

pytestmark = pytest.mark.goroutine


class Exclusive:
    """Something to lock and unlock, exclusively."""

    def __init__(self, kind: str) -> None:
        mutex, rwmutex, semaphore = Mutex(), RWMutex(), Semaphore(1)
        self.lock: Callable[..., bool]
        self.unlock: Callable[[], None]
        self.lock, self.unlock = {
            "Mutex": (mutex.lock, mutex.unlock),
            "RWMutex": (rwmutex.lock, rwmutex.unlock),
            "semaphore": (lambda **kw: semaphore.acquire(1, **kw), semaphore.release),
        }[kind]
        self.context: Any = {"Mutex": mutex, "RWMutex": rwmutex, "semaphore": semaphore}[kind]


@pytest.fixture(params=["Mutex", "RWMutex", "semaphore"])
def lock(request: pytest.FixtureRequest) -> Exclusive:
    return Exclusive(request.param)


# ---- locks ----


def test_a_thread_waits_for_a_lock(lock: Exclusive) -> None:
    lock.lock()
    thread = waiting(lock.lock)
    lock.unlock()
    assert thread.outcome() is True
    assert lock.lock(timeout=0.001) is False
    waiter = go(lock.lock)
    gosched()
    Thread(lock.unlock).outcome()
    assert waiter.result() is True
    assert Thread(lambda: lock.lock(timeout=0.01)).outcome() is False
    assert Thread(lambda: lock.lock(timeout=0)).outcome() is False
    assert stats()["threads_waiting"] == 0
    lock.unlock()

    def inside() -> bool:
        with lock.context:
            return not lock.lock(timeout=0)

    assert Thread(inside).outcome() is True


@pytest.mark.goroutine(preempt={"slice": "1ms"})
def test_exclusion_among_threads_and_goroutines(lock: Exclusive) -> None:
    inside = 0
    entered = Counter[str]()

    def work(seed: int, kind: str) -> None:
        nonlocal inside
        rng = random.Random(seed)
        for _ in range(100):
            if rng.random() < 0.5:
                lock.lock()
            elif not lock.lock(timeout=rng.random() * 0.0005):
                entered["late"] += 1
                continue
            inside += 1
            assert inside == 1
            sleep(0.00005 if rng.random() < 0.3 else 0)
            assert inside == 1
            inside -= 1
            entered[kind] += 1
            lock.unlock()

    threads = [Thread(work, i, "thread") for i in range(5)]
    goroutines = [go(work, i, "goroutine") for i in range(5)]
    for g in goroutines:
        g.result()
    for thread in threads:
        thread.outcome()
    assert entered.total() == 1000
    assert entered["thread"] > 0
    assert entered["goroutine"] > 0
    assert lock.lock(timeout=0) is True


def test_readers_and_writers() -> None:
    m = RWMutex()
    m.rlock()
    assert Thread(m.rlock).outcome() is True
    writer = waiting(m.lock)
    reader = waiting(m.rlock)  # behind the writer
    view = waiting(m.reader().lock)
    assert m.try_rlock() is False
    m.runlock()
    m.runlock()
    assert writer.outcome() is True
    m.unlock()
    assert reader.outcome() is True
    assert view.outcome() is True
    assert m.readers == 2
    # A writer that gives up lets the readers in that wait behind it.
    late = go(m.lock)
    wait_until_parked(late)
    behind = waiting(m.rlock)
    late.cancel()
    with pytest.raises(Cancelled):
        late.result()
    assert behind.outcome() is True


def test_permits_are_given_in_order() -> None:
    s = Semaphore(3)
    s.acquire(3)
    waiters: list[Callable[[], object]] = []
    for n in (2, 1, 3):
        waiters.append(waiting(s.acquire, n).outcome)
        waiters.append(go(s.acquire, n).result)
        gosched()
    s.release(3)
    for n, waiter in zip((2, 2, 1, 1, 3, 3), waiters, strict=True):
        assert waiter() is True
        s.release(n)
    assert s.available == 3


# ---- Cond ----


@pytest.mark.parametrize("kind", ["Mutex", "RWMutex", "reader"])
def test_cond(kind: str) -> None:
    made = {"Mutex": Mutex, "RWMutex": RWMutex, "reader": lambda: RWMutex().reader()}[kind]()
    cond = Cond(made)
    items: list[int] = []

    def take() -> int:
        with cond:
            cond.wait_for(lambda: items)
            return items.pop()

    threads = [waiting(take) for _ in range(3)]
    goroutines = [go(take) for _ in range(3)]
    gosched()
    for i in range(6):
        with cond:
            items.append(i)
        cond.signal()
        wait_until(lambda: not items)
    assert sorted([t.outcome() for t in threads] + [g.result() for g in goroutines]) == [*range(6)]

    def wait(seconds: float) -> bool:
        with cond:
            return cond.wait(timeout=seconds)

    assert Thread(wait, 0.001).outcome() is False
    woken = [waiting(wait, LONG), waiting(wait, LONG)]
    Thread(cond.broadcast).outcome()
    assert [t.outcome() for t in woken] == [True, True]


def test_cond_has_the_lock_again_after_a_timeout() -> None:
    m = Mutex()
    cond = Cond(m)
    out: list[str] = []

    def wait() -> None:
        with cond:
            assert cond.wait(timeout=0.001) is False
            out.append("has it")

    m.lock()
    thread = Thread(wait)
    wait_until(lambda: stats()["threads_waiting"] == 1)
    m.unlock()
    # It waits for the lock now, whatever the time.
    with m:
        wait_until(lambda: stats()["threads_waiting"] == 1)
        sleep(0.01)
        assert stats()["threads_waiting"] == 1
        assert out == []
    thread.outcome()
    assert out == ["has it"]
    assert m.locked is False


# ---- the others ----


def test_waitgroup() -> None:
    group = WaitGroup()
    group.add(2)
    thread = waiting(group.wait)
    assert Thread(group.wait, 0.001).outcome() is False
    group.done()
    Thread(group.done).outcome()
    assert thread.outcome() is True
    assert Thread(group.wait).outcome() is True

    def start() -> bool:
        for _ in range(20):
            group.go(sleep, 0.0001)
        return group.wait()

    assert Thread(start).outcome() is True
    assert group.count == 0


def test_event() -> None:
    event = Event()
    threads = [waiting(event.wait), waiting(event.wait, LONG)]
    waiter = go(event.wait)
    gosched()
    assert Thread(event.wait, 0.001).outcome() is False
    Thread(event.set).outcome()
    event.clear()  # they were woken nevertheless
    assert [t.outcome() for t in threads] == [True, True]
    assert waiter.result() is True


def test_barrier() -> None:
    barrier = Barrier(4)
    for _ in range(20):
        threads = [Thread(barrier.wait) for _ in range(2)]
        g = go(barrier.wait)
        places = [barrier.wait(), g.result(), *(t.outcome() for t in threads)]
        assert sorted(places) == [0, 1, 2, 3]
    others = [waiting(barrier.wait), waiting(barrier.wait)]
    with pytest.raises(BrokenBarrierError):
        Thread(barrier.wait, 0.001).outcome()
    for other in others:
        with pytest.raises(BrokenBarrierError):
            other.outcome()


def test_once() -> None:
    once = Once()
    hold = Event()
    calls: list[int] = []

    def first() -> None:
        calls.append(1)
        hold.wait()

    g = go(once.do, first)
    gosched()
    thread = waiting(once.do, first)
    hold.set()
    thread.outcome()
    g.join()
    assert calls == [1]
    assert once.done


# ---- the end of a run ----


@PLAIN
@pytest.mark.parametrize(
    "what",
    ["Mutex", "writer", "reader", "Cond", "Semaphore", "WaitGroup", "Event", "Barrier", "Once"],
)
def test_the_end_of_a_run_ends_the_wait(what: str) -> None:
    """And leaves what was waited for as it was, for the next."""
    mutex, rwmutex, cond = Mutex(), RWMutex(), Cond()
    semaphore, group, event, barrier, once = Semaphore(1), WaitGroup(), Event(), Barrier(2), Once()
    running = threading.Event()

    def wait_on_cond() -> None:
        cond.locker.lock()
        try:
            cond.wait()
        finally:
            cond.locker.unlock()

    calls: dict[str, Callable[[], object]] = {
        "Mutex": mutex.lock,
        "writer": rwmutex.lock,
        "reader": rwmutex.rlock,
        "Cond": wait_on_cond,
        "Semaphore": semaphore.acquire,
        "WaitGroup": group.wait,
        "Event": event.wait,
        "Barrier": barrier.wait,
        "Once": lambda: once.do(print),
    }

    def main() -> None:
        mutex.lock()
        rwmutex.lock()
        semaphore.acquire()
        group.add()
        if what == "Once":
            Thread(once.do, running.wait)
            wait_until(lambda: repr(once).endswith(" running>"))
        threads.append(waiting(calls[what]))

    threads: list[Thread] = []
    run(main)
    with pytest.raises(RuntimeError, match="the golibx run has ended while this thread"):
        threads[0].outcome()
    running.set()
    mutex.unlock()
    rwmutex.unlock()
    semaphore.release()
    group.done()

    def again() -> None:
        if what == "Barrier":
            assert not barrier.broken
            assert barrier.n_waiting == 0
            g = go(barrier.wait)
            barrier.wait(timeout=LONG)
            g.join()
        with mutex, rwmutex, semaphore, cond:
            pass
        assert group.wait(timeout=LONG)
        assert event.wait(timeout=0) is False

    run(again)


@PLAIN
@pytest.mark.parametrize("kind", ["Mutex", "RWMutex", "semaphore"])
def test_threads_that_come_back_in_the_next_run(
    kind: str,
) -> None:
    """They leave the queue alone, in which others wait by then."""
    lock = Exclusive(kind)
    threads: list[Thread] = []

    def first() -> None:
        lock.lock()
        for _ in range(6):
            threads.append(waiting(lock.lock))

    def second() -> None:
        goroutines = [go(take) for _ in range(4)]
        gosched()
        wait_until(lambda: not any(thread.is_alive() for thread in threads))
        lock.unlock()
        for g in goroutines:
            g.result(timeout=LONG)

    def take() -> None:
        lock.lock()
        lock.unlock()

    come_back_late(threads, first, second)
