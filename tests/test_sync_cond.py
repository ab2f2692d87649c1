"""Cond, on each kind of lock."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
import weakref

import pytest

import golibx
from golibx import (
    Cancelled,
    Cond,
    Goroutine,
    Mutex,
    RWMutex,
    context,
    go,
    gosched,
    sleep,
    stats,
)
from golibx.sync import RLocker
from golibx.testing import wait_until, wait_until_parked

pytestmark = pytest.mark.goroutine(preempt={"async": False})


@pytest.fixture(params=["Mutex", "RWMutex", "reader"])
def cond(request: pytest.FixtureRequest) -> Cond:
    if request.param == "Mutex":
        return Cond()
    mutex = RWMutex()
    return Cond(mutex if request.param == "RWMutex" else mutex.reader())


def is_locked(cond: Cond) -> bool:
    locker = cond.locker
    if not isinstance(locker, RLocker):
        return locker.locked
    return not repr(locker).endswith("unlocked>>")


def wait(cond: Cond, timeout: float | None = None) -> bool:
    with cond:
        woken = cond.wait(timeout)
        assert is_locked(cond)
        return woken


def test_its_lock() -> None:
    mutex = Mutex()
    assert Cond(mutex).locker is mutex
    assert isinstance(Cond().locker, Mutex)
    assert isinstance(Cond(None).locker, Mutex)
    assert isinstance(Cond(lock=RWMutex()).locker, RWMutex)
    for bad in (5, threading.Lock(), Cond()):
        with pytest.raises(TypeError, match="must be a Mutex, an RWMutex or its reader"):
            Cond(bad)  # type: ignore[arg-type]
    assert "<Mutex" in repr(Cond())


def test_signal_wakes_the_first(cond: Cond) -> None:
    order: list[int] = []

    def waiter(n: int) -> None:
        assert wait(cond) is True
        order.append(n)

    waiters = [go(waiter, n) for n in range(5)]
    gosched()
    assert not is_locked(cond)
    for n in range(5):
        cond.signal()
        waiters[n].join()
        assert order == list(range(n + 1))
    cond.signal()  # no goroutine waits: nothing is remembered
    assert wait(cond, 0.001) is False
    assert not is_locked(cond)


def test_broadcast_wakes_all(cond: Cond) -> None:
    order: list[int] = []

    def waiter(n: int) -> None:
        assert wait(cond) is True
        order.append(n)

    waiters = [go(waiter, n) for n in range(10)]
    gosched()
    with cond:
        cond.broadcast()
    for w in waiters:
        w.join()
    assert sorted(order) == list(range(10))
    assert not is_locked(cond)


def test_wait_reason(cond: Cond) -> None:
    waiter = go(wait, cond)
    gosched()
    assert waiter.state == "sync.Cond.Wait"
    assert "[sync.Cond.Wait" in golibx.stacks()
    cond.signal()
    assert waiter.result() is True


def test_a_queue(cond: Cond) -> None:
    if isinstance(cond.locker, RLocker):
        cond = Cond()
    queue: list[int] = []
    out: list[int] = []

    def consumer() -> None:
        for _ in range(100):
            with cond:
                while not queue:
                    cond.wait()
                out.append(queue.pop(0))

    def producer(n: int) -> None:
        for i in range(50):
            with cond:
                queue.append(n * 50 + i)
            cond.signal()
            if i % 5 == 0:
                gosched()

    for g in [*(go(consumer) for _ in range(2)), *(go(producer, n) for n in range(4))]:
        g.result()
    assert sorted(out) == list(range(200))


def test_wait_for(cond: Cond) -> None:
    values: list[int] = []

    def waiter() -> int:
        with cond:
            n = cond.wait_for(lambda: len(values) > 2 and sum(values))
            assert is_locked(cond)
            return n

    g = go(waiter)
    for n in (1, 2, 3):
        gosched()
        values.append(n)
        cond.broadcast()
    assert g.result() == 6
    with cond:
        assert cond.wait_for(lambda: "at once", timeout=0) == "at once"
        assert cond.wait_for(lambda: "", 0) == ""
        assert cond.wait_for(lambda: None, timeout=0.001) is None
        with pytest.raises(ZeroDivisionError):
            cond.wait_for(lambda: 1 / 0)
        with pytest.raises(TypeError):
            cond.wait_for()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            cond.wait_for(5)  # type: ignore[arg-type]
        assert is_locked(cond)


def test_wait_for_waits_no_longer_in_all_than_the_timeout() -> None:
    cond = Cond()
    stop = False

    def waker() -> None:
        while not stop:
            cond.broadcast()
            gosched()

    g = go(waker)
    with cond:
        assert cond.wait_for(lambda: False, timeout=0.01) is False
    stop = True
    g.join()


def test_timeout(cond: Cond) -> None:
    for timeout in (0, -1, 0.001):
        assert wait(cond, timeout) is False
    assert not is_locked(cond)
    with cond, pytest.raises(TypeError, match="number of seconds or None"):
        cond.wait("soon")  # type: ignore[arg-type]


def test_misuse(cond: Cond) -> None:
    with pytest.raises(RuntimeError, match="wait on a Cond whose lock is not locked"):
        cond.wait()
    with pytest.raises(RuntimeError, match="wait on a Cond whose lock is not locked"):
        cond.wait_for(lambda: False)
    with pytest.raises(RuntimeError, match="not locked"), cond:
        locker = cond.locker
        locker.unlock()
    assert not is_locked(cond)


def test_the_lock_is_held_when_a_cancellation_is_raised(cond: Cond) -> None:
    held: list[bool] = []

    def waiter() -> None:
        with cond:
            try:
                cond.wait()
            finally:
                held.append(is_locked(cond))

    g, other = go(waiter), go(wait, cond)
    gosched()
    g.cancel()
    with pytest.raises(Cancelled):
        g.result()
    assert held == [True]
    cond.signal()
    assert other.result() is True
    assert not is_locked(cond)


@pytest.mark.parametrize("end", ["signal", "cancel", "timeout", "both"])
def test_the_lock_is_waited_for_however_the_wait_ends(end: str) -> None:
    cond = Cond()
    steps: list[str] = []

    def waiter() -> None:
        with cond:
            try:
                steps.append(f"woken: {cond.wait(0.001 if end == 'timeout' else None)}")
            except Cancelled:
                steps.append("cancelled")
                raise
            finally:
                assert cond.locker.try_lock() is False

    g = go(waiter)
    gosched()
    with cond:
        if end in ("signal", "both"):
            cond.signal()
        if end in ("cancel", "both"):
            g.cancel()
        gosched()
        if end == "timeout":
            wait_until_parked(g, state="sync.Mutex.Lock")
        assert g.state == "sync.Mutex.Lock"
        g.cancel()  # also while it waits for the lock
        gosched()
        assert steps == []
    g.join()
    if end == "cancel":
        assert steps == ["cancelled"]
        assert isinstance(g.exception, Cancelled)
    else:
        # It has what it waited for; it is cancelled where it next waits, which it does not do.
        assert steps == [f"woken: {end != 'timeout'}"]
        assert g.exception is None
    assert not is_locked(cond)


def test_cancelled_and_then_signalled(cond: Cond) -> None:
    cancelled, other = go(wait, cond), go(wait, cond)
    gosched()
    cancelled.cancel()
    cond.signal()  # is for the other
    assert other.result() is True
    with pytest.raises(Cancelled):
        cancelled.result()


def test_signalled_and_then_cancelled(cond: Cond) -> None:
    woken, other = go(wait, cond), go(wait, cond, 0.05)
    gosched()
    cond.signal()
    woken.cancel()
    assert woken.result() is True
    assert other.result() is False


def test_signalled_in_time_though_the_waiter_runs_late(cond: Cond) -> None:
    waiter = go(wait, cond, 0.002)
    gosched()
    cond.signal()
    late = time.monotonic() + 0.01
    while time.monotonic() < late:
        pass
    assert waiter.result() is True


def test_one_to_be_cancelled_keeps_the_lock(cond: Cond) -> None:
    def f() -> None:
        with cond:
            g.cancel()
            try:
                cond.wait()
            finally:
                assert is_locked(cond)

    g = go(f)
    with pytest.raises(Cancelled):
        g.result()
    assert not is_locked(cond)


@pytest.mark.goroutine(preempt={"slice": "1ms"})
@pytest.mark.parametrize("seed", range(3))
def test_no_signal_is_lost(seed: int) -> None:
    """As many are woken as signals found a waiter, whatever else happens to the waiters."""
    numbers = random.Random(seed)
    cond = Cond()
    waiting = permits = taken = 0
    goroutines: list[Goroutine[None]] = []

    def waiter(timeout: float | None) -> None:
        nonlocal waiting, permits, taken
        with cond:
            waiting += 1
            try:
                woken = cond.wait(timeout)
            finally:
                waiting -= 1
            if woken:
                assert permits > 0
                permits -= 1
                taken += 1

    for _ in range(500):
        goroutines.append(go(waiter, numbers.choice([None, 0.0001, 0.002])))
        if numbers.random() < 0.3:
            numbers.choice(goroutines).cancel()
        if numbers.random() < 0.5:
            gosched()
        if numbers.random() < 0.7:
            with cond:
                # One claimed by its timeout or cancellation may still count as waiting.
                permits += 1
                cond.signal()
    while not all(g.done() for g in goroutines):
        with cond:
            permits += waiting
            cond.broadcast()
        gosched()
    for g in goroutines:
        assert g.exception is None or isinstance(g.exception, Cancelled)
    assert taken > 0
    assert not is_locked(cond)


@pytest.mark.goroutine(preempt={"slice": "1ms"})
def test_taking_turns_under_preemption() -> None:
    cond = Cond()
    turn = ended = 0

    def hog() -> None:
        """Without it no other could run in place of one that has the lock."""
        while ended < 4:
            pass

    def player(me: int) -> None:
        nonlocal turn, ended
        for _ in range(10):
            with cond:
                while turn % 4 != me:
                    cond.wait()
                before = stats()["preemptions"]
                while stats()["preemptions"] == before:
                    pass
                turn += 1
                cond.broadcast()
        ended += 1

    for g in [go(hog), *(go(player, n) for n in range(4))]:
        g.result()
    assert turn == 40


@pytest.mark.goroutine(False)
def test_outside_of_goroutines(cond: Cond) -> None:
    cond.signal()
    cond.broadcast()
    with cond:
        assert cond.wait_for(lambda: True) is True
        with pytest.raises(RuntimeError, match="no golibx runtime is running"):
            cond.wait()
        assert is_locked(cond)
    assert not is_locked(cond)


def test_a_thread_may_signal(cond: Cond) -> None:
    waiter = go(wait, cond)
    gosched()
    thread = threading.Thread(target=cond.signal)
    thread.start()
    thread.join()
    assert waiter.result() is True


def test_references(cond: Cond) -> None:
    locker = cond.locker
    count, own = sys.getrefcount(locker), sys.getrefcount(cond)
    for _ in range(50):
        waiters = [go(wait, cond), go(wait, cond, 0.0001), go(wait, cond)]
        gosched()
        waiters[0].cancel()
        cond.broadcast()
        for w in waiters:
            w.join()
    del w, waiters
    gc.collect()
    assert (sys.getrefcount(locker), sys.getrefcount(cond)) == (count, own)
    made = Cond(locker)
    assert sys.getrefcount(locker) == count + 1
    ref = weakref.ref(made)
    del made
    assert ref() is None
    assert sys.getrefcount(locker) == count


@pytest.mark.parametrize("kind", ["Mutex", "RWMutex", "reader"])
def test_whoever_needs_the_lock_back_under_a_context_that_is_done_sleeps(kind: str) -> None:
    lock = Mutex() if kind == "Mutex" else RWMutex()
    cond = Cond(lock.reader() if kind == "reader" and isinstance(lock, RWMutex) else lock)
    ctx, cancel = context.with_cancel(context.background())

    def waiter() -> None:
        with ctx, pytest.raises(Cancelled):
            wait(cond)

    g = go(waiter)
    wait_until_parked(g, state="sync.Cond.Wait")
    lock.lock()
    cancel()
    wait_until(lambda: g.state != "sync.Cond.Wait")
    switches = stats()["switches"]
    sleep(0.02)
    assert stats()["switches"] - switches < 10
    lock.unlock()
    g.result()
