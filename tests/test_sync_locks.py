"""What Mutex, RWMutex and Semaphore have in common, and what is a Mutex's own."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

import golibx
from conftest import Script
from golibx import (
    Cancelled,
    Goroutine,
    Mutex,
    RWMutex,
    Semaphore,
    _core,
    go,
    gosched,
    run,
    sleep,
    stats,
)
from golibx.testing import wait_until

# Without preemption, so that a slow machine does not change which goroutine runs when.
pytestmark = pytest.mark.goroutine(preempt={"async": False})

SLICES = pytest.mark.goroutine(preempt={"slice": "1ms"})


class Lock:
    """An exclusive lock of any of the kinds."""

    def __init__(self, kind: str) -> None:
        self.object: Mutex | RWMutex | Semaphore
        if kind == "semaphore":
            self.object = semaphore = Semaphore(1)
            self.lock: Callable[..., bool] = lambda timeout=None: semaphore.acquire(1, timeout)
            self.try_lock: Callable[[], bool] = semaphore.try_acquire
            self.unlock: Callable[[], None] = semaphore.release
            self.misuse: type[Exception] = ValueError
        else:
            self.object = lock = Mutex() if kind == "Mutex" else RWMutex()
            self.lock, self.try_lock, self.unlock = lock.lock, lock.try_lock, lock.unlock
            self.misuse = RuntimeError

    def __enter__(self) -> bool:
        return self.object.__enter__()

    def __exit__(self, *exc_info: object) -> None:
        self.object.__exit__(*exc_info)


KINDS = ["Mutex", "RWMutex", "semaphore"]


@pytest.fixture(params=KINDS)
def lock(request: pytest.FixtureRequest) -> Lock:
    return Lock(request.param)


def assert_free(lock: Lock) -> None:
    assert lock.try_lock()
    assert not lock.try_lock()
    lock.unlock()


# ---- semantics ----


def test_lock_and_unlock(lock: Lock) -> None:
    assert lock.lock() is True
    assert lock.try_lock() is False
    assert lock.unlock() is None
    assert lock.try_lock() is True
    lock.unlock()
    with lock as taken:
        assert taken is True
        assert lock.try_lock() is False
    assert_free(lock)


def test_with_unlocks_after_an_exception(lock: Lock) -> None:
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert_free(lock)


def test_unlock_of_what_is_not_locked(lock: Lock) -> None:
    for _ in range(2):
        with pytest.raises(lock.misuse, match=r"unlock of an unlocked|release of 1 permits"):
            lock.unlock()
        with lock:
            pass


def test_another_goroutine_may_unlock(lock: Lock) -> None:
    lock.lock()
    go(lock.unlock).join()
    assert_free(lock)


def test_waiters_come_first_come_first_served(lock: Lock) -> None:
    order: list[int] = []

    def waiter(n: int) -> None:
        with lock:
            order.append(n)

    lock.lock()
    waiters = [go(waiter, n) for n in range(20)]
    gosched()
    lock.unlock()
    for w in waiters:
        w.join()
    assert order == list(range(20))


def test_exclusion_while_goroutines_give_way(lock: Lock) -> None:
    inside = total = 0

    def worker() -> None:
        nonlocal inside, total
        for _ in range(50):
            with lock:
                inside += 1
                gosched()
                assert inside == 1
                inside -= 1
                total += 1

    for w in [go(worker) for _ in range(20)]:
        w.result()
    assert total == 20 * 50


@SLICES
def test_exclusion_while_goroutines_are_preempted(lock: Lock) -> None:
    inside = total = ended = 0

    def hog() -> None:
        """Without it no other could run in place of one that has the lock."""
        while ended < 20:
            pass

    def worker() -> None:
        nonlocal inside, total, ended
        for _ in range(3):
            with lock:
                assert inside == 0
                inside = 1
                before, preempted = total, stats()["preemptions"]
                while stats()["preemptions"] == preempted:
                    pass
                total = before + 1
                inside = 0
        ended += 1

    for w in [go(hog), *(go(worker) for _ in range(20))]:
        w.result()
    assert total == 20 * 3
    assert_free(lock)


# ---- timeouts ----


def test_timeout(lock: Lock) -> None:
    lock.lock()
    for timeout in (0, -1, 0.001, 0.002):
        assert lock.lock(timeout) is False
    assert lock.lock(timeout=0.001) is False
    lock.unlock()
    assert lock.lock(timeout=0) is True
    lock.unlock()
    assert lock.lock(1000) is True
    lock.unlock()
    assert_free(lock)


def test_a_wait_with_a_timeout_gets_it(lock: Lock) -> None:
    lock.lock()
    waiter = go(lock.lock, 1000)
    gosched()
    lock.unlock()
    assert waiter.result() is True
    assert lock.try_lock() is False
    lock.unlock()


def test_a_bad_timeout_is_refused_though_it_is_free(lock: Lock) -> None:
    with pytest.raises(TypeError, match="number of seconds or None, not 'soon'"):
        lock.lock("soon")
    with pytest.raises(ValueError, match="nan"):
        lock.lock(float("nan"))
    assert_free(lock)


def test_one_that_timed_out_does_not_take_the_turn_of_the_next(lock: Lock) -> None:
    lock.lock()
    first = go(lock.lock, 0.001)
    second = go(lock.lock)
    assert first.result() is False
    lock.unlock()
    assert second.result() is True
    lock.unlock()
    assert_free(lock)


def test_unlocked_in_time_though_the_waiter_runs_late(lock: Lock) -> None:
    lock.lock()
    waiter = go(lock.lock, 0.002)
    gosched()
    late = time.monotonic() + 0.01
    lock.unlock()
    while time.monotonic() < late:  # no other runs
        pass
    assert waiter.result() is True
    lock.unlock()
    assert_free(lock)


# ---- cancellation ----


def test_a_waiter_can_be_cancelled(lock: Lock) -> None:
    lock.lock()
    waiter, other = go(lock.lock), go(lock.lock)
    gosched()
    waiter.cancel()
    with pytest.raises(Cancelled):
        waiter.result()
    assert not other.done()
    lock.unlock()
    assert other.result() is True
    lock.unlock()
    assert_free(lock)


def test_cancelled_and_then_unlocked(lock: Lock) -> None:
    lock.lock()
    cancelled, other = go(lock.lock), go(lock.lock)
    gosched()
    cancelled.cancel()
    lock.unlock()  # before the cancelled one has run
    assert other.result() is True
    with pytest.raises(Cancelled):
        cancelled.result()
    lock.unlock()
    assert_free(lock)


def test_unlocked_and_then_cancelled(lock: Lock) -> None:
    steps: list[str] = []

    def waiter() -> None:
        lock.lock()
        steps.append("locked")
        try:
            gosched()
            steps.append("not reached")
        finally:
            lock.unlock()

    lock.lock()
    g = go(waiter)
    gosched()
    lock.unlock()
    g.cancel()  # it has the lock, or a chance that no other takes, already
    with pytest.raises(Cancelled):
        g.result()
    assert steps == ["locked"]
    assert_free(lock)


def test_one_to_be_cancelled_does_not_begin_to_wait(lock: Lock) -> None:
    lock.lock()
    g = go(lock.lock)
    g.cancel()
    with pytest.raises(Cancelled):
        g.result()
    lock.unlock()
    assert_free(lock)


@SLICES
@pytest.mark.parametrize("seed", range(3))
def test_cancellations_timeouts_and_success_race(lock: Lock, seed: int) -> None:
    numbers = random.Random(seed)
    inside = taken = left = 0
    goroutines: list[Goroutine[None]] = []

    def worker(timeout: float | None) -> None:
        nonlocal inside, taken, left
        try:
            if not lock.lock(timeout):
                left += 1
                return
        except Cancelled:
            left += 1
            raise
        taken += 1
        try:
            inside += 1
            assert inside == 1
            if taken % 3 == 0:
                gosched()
            elif taken % 7 == 0:
                sleep(0.0002)
        finally:
            inside -= 1
            lock.unlock()

    for _ in range(400):
        goroutines.append(go(worker, numbers.choice([None, None, 0.0001, 0.001, 0.003])))
        if numbers.random() < 0.4:
            numbers.choice(goroutines).cancel()
        if numbers.random() < 0.3:
            gosched()
    ended = 0
    for g in goroutines:
        g.join()
        if not isinstance(g.exception, Cancelled):
            assert g.exception is None
        ended += 1
    assert ended == 400
    assert inside == 0
    assert taken > 0
    assert left > 0
    assert_free(lock)


# ---- which code may call, and when ----


@pytest.mark.goroutine(False)
def test_works_without_a_runtime(lock: Lock) -> None:
    with lock:
        assert lock.try_lock() is False
        assert lock.lock(timeout=0) is False
        with pytest.raises(RuntimeError, match="no golibx runtime is running"):
            lock.lock()
    assert_free(lock)


def test_a_plain_thread_may_do_what_need_not_wait(lock: Lock) -> None:
    out: list[object] = []

    def thread() -> None:
        with lock:
            out.append("locked")
        lock.lock()
        out.append(lock.lock(timeout=0))

    t = threading.Thread(target=thread)
    t.start()
    t.join()
    assert out == ["locked", False]
    waiter = go(lock.lock)
    gosched()
    t = threading.Thread(target=lock.unlock)
    t.start()
    t.join()
    assert waiter.result() is True


def test_held_while_the_processor_is_taken_back(lock: Lock) -> None:
    reader, writer = os.pipe()
    wanted = 0

    def holder() -> None:
        nonlocal wanted
        for _ in range(3):
            with lock:
                wanted += 1
                assert os.read(reader, 1) == b"x"  # blocks in C: the others go on
                assert wanted == 0

    def other() -> None:
        nonlocal wanted
        for _ in range(9):
            wait_until(lambda: wanted)
            assert not lock.try_lock()
            wanted -= 1
            os.write(writer, b"x")

    for g in [go(other), *(go(holder) for _ in range(3))]:
        g.result()
    os.close(reader)
    os.close(writer)
    assert stats()["retakes"] > 0
    assert_free(lock)


@pytest.mark.goroutine(False)
def test_waiters_of_a_run_that_has_ended_are_forgotten(lock: Lock) -> None:
    def stubborn() -> None:
        while True:
            try:
                lock.lock()
                return
            except Cancelled:
                pass

    def first() -> None:
        lock.lock()
        go(stubborn)
        gosched()

    def second() -> None:
        lock.unlock()  # no goroutine of this run waits
        assert_free(lock)
        with lock:
            waiter = go(lock.lock)
            gosched()
        assert waiter.result() is True
        lock.unlock()

    config = {"runtime": {"shutdown_timeout": "1ms"}}
    for _ in range(3):
        run(first, config=config)
        run(second, config=config)


@pytest.mark.goroutine(False)
def test_the_child_of_a_fork_forgets_the_waiters_too(script: Script) -> None:
    program = """
import os, sys
import golibx
from golibx import Mutex, go, gosched, run

mutex = Mutex()

def child():
    mutex.unlock()
    assert mutex.try_lock()
    waiter = go(mutex.lock)
    gosched()
    mutex.unlock()
    assert waiter.result()
    print("child", flush=True)

def main():
    mutex.lock()
    waiter = go(mutex.lock)
    gosched()
    if (pid := os.fork()) == 0:
        run(child)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    mutex.unlock()
    assert waiter.result()
    print("parent")

run(main)
"""
    assert script.passes(program) == "child\nparent\n"


# ---- memory ----


def test_references(lock: Lock) -> None:
    o = lock.object
    ref = weakref.ref(o)
    count = sys.getrefcount(o)
    true = sys.getrefcount(True)
    for _ in range(100):
        lock.lock()
        for g in [go(lock.lock), go(lock.lock, 0.0001)]:
            gosched()
            g.cancel()
            g.join()
        lock.unlock()
    gc.collect()
    assert sys.getrefcount(o) == count
    assert abs(sys.getrefcount(True) - true) < 50
    del o, g
    for name in list(vars(lock)):
        delattr(lock, name)
    assert ref() is None


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_cycle(kind: str) -> None:
    class Node:
        pass

    node = Node()
    node.self = node  # type: ignore[attr-defined]
    node.lock = Lock(kind).object  # type: ignore[attr-defined]
    ref = weakref.ref(node.lock)  # type: ignore[attr-defined]
    del node
    assert ref() is not None
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize("kind", [Mutex, RWMutex])
def test_bad_arguments(kind: type[Mutex] | type[RWMutex]) -> None:
    with pytest.raises(TypeError, match="takes no arguments"):
        kind(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="takes no arguments"):
        kind(a=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'time'"):
        kind().lock(time=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        kind().lock(1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        kind().unlock(1)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        kind().locked = True  # type: ignore[misc]
    with pytest.raises(TypeError):
        type("Sub", (kind,), {})


# ---- Mutex ----


def test_mutex_looks() -> None:
    mutex = Mutex()
    assert mutex.locked is False
    assert repr(mutex).endswith(" unlocked>")
    with mutex:
        assert mutex.locked is True
        assert repr(mutex).endswith(" locked>")


def test_wait_reason_of_a_mutex() -> None:
    mutex = Mutex()
    mutex.lock()
    waiter = go(mutex.lock)
    gosched()
    assert waiter.state == "sync.Mutex.Lock"
    assert "[sync.Mutex.Lock" in golibx.stacks()
    mutex.unlock()
    waiter.join()


def test_normal_mode_lets_the_running_goroutine_have_it_again() -> None:
    mutex = Mutex()
    order: list[str] = []

    def waiter() -> None:
        with mutex:
            order.append("waiter")

    mutex.lock()
    g = go(waiter)
    gosched()
    mutex.unlock()
    with mutex:  # the waiter has not run yet
        order.append("main")
    g.join()
    assert order == ["main", "waiter"]


def test_starvation_mode_ends_a_hog_of_the_mutex() -> None:
    """Without it the waiter would never find the mutex free: the hog gives way only with it."""
    mutex = Mutex()
    stop = False
    rounds = 0

    def hog() -> None:
        nonlocal rounds
        while not stop:
            with mutex:
                rounds += 1
                gosched()

    def waiter() -> None:
        nonlocal stop
        with mutex:
            stop = True

    hogs = [go(hog) for _ in range(2)]
    gosched()
    go(waiter).join()
    for g in hogs:
        g.join()
    assert rounds > 2


def test_starvation_mode_is_left_again() -> None:
    mutex = Mutex()

    def waiter() -> None:
        for _ in range(3):
            with mutex:
                sleep(0.002)  # so that the others wait for longer than a millisecond

    for w in [go(waiter) for _ in range(4)]:
        w.join()
    test = go(test_normal_mode_lets_the_running_goroutine_have_it_again)
    assert test.result() is None
    order: list[str] = []
    mutex.lock()
    g = go(lambda: (mutex.lock(), order.append("waiter"), mutex.unlock()))
    gosched()
    mutex.unlock()
    assert mutex.try_lock() is True  # in starvation mode it would be the waiter's
    order.append("main")
    mutex.unlock()
    g.join()
    assert order == ["main", "waiter"]


@pytest.mark.parametrize("leave", ["cancel", "timeout"])
def test_the_one_that_starves_leaves(leave: str) -> None:
    """What starvation mode has promised to a waiter goes to the next, or makes the mutex free."""
    mutex = Mutex()
    mutex.lock()
    starving = go(mutex.lock, None if leave == "cancel" else 0.02)
    gosched()
    sleep(0.002)
    mutex.unlock()  # wakes it
    assert mutex.try_lock()  # first
    gosched()  # it waits again, and has starved for long
    if leave == "cancel":
        starving.cancel()
        with pytest.raises(Cancelled):
            starving.result()
    else:
        assert starving.result() is False
    mutex.unlock()
    assert mutex.locked is False
    assert mutex.try_lock()


def test_a_woken_waiter_that_loses_and_is_cancelled_then() -> None:
    mutex = Mutex()
    mutex.lock()
    first, second = go(mutex.lock), go(mutex.lock)
    gosched()
    mutex.unlock()  # wakes the first
    assert mutex.try_lock()
    first.cancel()
    gosched()  # it finds the mutex locked, and its cancellation
    with pytest.raises(Cancelled):
        first.result()
    mutex.unlock()  # must wake the second
    assert second.result() is True


@SLICES
def test_fair_under_contention() -> None:
    mutex = Mutex()
    counts = [0] * 8
    stop = False

    def worker(n: int) -> None:
        while not stop:
            with mutex:
                counts[n] += 1
                gosched()

    workers = [go(worker, n) for n in range(len(counts))]
    wait_until(lambda: sum(counts) >= 2000)
    stop = True
    for w in workers:
        w.join()
    assert min(counts) > 0


@pytest.mark.goroutine(False)
def test_locking_it_twice_is_a_deadlock(script: Script) -> None:
    result = script("""
import golibx
def main():
    mutex = golibx.Mutex()
    mutex.lock()
    mutex.lock()
golibx.run(main)
""")
    assert result.returncode == 1
    assert "Deadlock" in result.stderr
    assert "goroutine 1 [sync.Mutex.Lock]" in result.stderr


@pytest.fixture(autouse=True)
def _no_garbage() -> Iterator[None]:
    yield
    gc.collect()
    assert not gc.garbage


# ---- golibx's own ----


def hold_one_after_the_other(
    guard: _core.Guard, spawn: Callable[[Callable[[], None]], Callable[[], object]]
) -> list[int]:
    """What 20 callers of 50 turns each saw of others inside."""
    inside: list[int] = []
    seen: list[int] = []

    def turns() -> None:
        for _ in range(50):
            with guard:
                seen.append(len(inside))
                inside.append(1)
                time.sleep(0.00001)
                inside.pop()

    for wait in [spawn(turns) for _ in range(20)]:
        wait()
    return seen


def in_goroutine(function: Callable[[], None]) -> Callable[[], object]:
    return go(function).result


def in_thread(function: Callable[[], None]) -> Callable[[], object]:
    thread = threading.Thread(target=function)
    thread.start()
    return thread.join


@pytest.mark.goroutine(preempt={"slice": "100us"})
def test_a_guard_lets_one_in_at_a_time() -> None:
    guard = _core.Guard()
    spawns = [in_goroutine, in_thread] * 10
    assert hold_one_after_the_other(guard, lambda f: spawns.pop()(f)) == [0] * 1000


@pytest.mark.goroutine(False)
def test_a_guard_outside_of_a_run() -> None:
    assert hold_one_after_the_other(_core.Guard(), in_thread) == [0] * 1000


def test_who_waits_for_a_guard_is_cancelled_after_it() -> None:
    guard = _core.Guard()
    got: list[str] = []

    def waits() -> None:
        with guard:
            got.append("the guard")
        sleep(1000)

    with guard:
        g = go(waits)
        gosched()
        g.cancel()
        gosched()
        assert not g.done()
    with pytest.raises(Cancelled):
        g.result()
    assert got == ["the guard"]
