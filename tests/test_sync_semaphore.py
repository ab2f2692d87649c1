"""Semaphore with weights. What one of a single permit has in common with locks: test_sync_locks."""

from __future__ import annotations

import random
import sys

import pytest

from golibx import Cancelled, Goroutine, Semaphore, go, gosched, sleep, stats

pytestmark = pytest.mark.goroutine(preempt={"async": False})


def test_counts() -> None:
    semaphore = Semaphore(10)
    assert (semaphore.size, semaphore.available) == (10, 10)
    assert semaphore.acquire() is True
    assert semaphore.acquire(3) is True
    assert semaphore.acquire(n=2, timeout=0) is True
    assert semaphore.available == 4
    assert semaphore.try_acquire(5) is False
    assert semaphore.acquire(5, 0) is False
    assert semaphore.acquire(5, timeout=0.001) is False
    assert semaphore.try_acquire(4) is True
    assert semaphore.try_acquire() is False
    assert repr(semaphore).endswith(" 0/10>")
    semaphore.release(9)
    semaphore.release()
    assert semaphore.available == 10
    with semaphore as taken:
        assert taken is True
        assert semaphore.available == 9
    assert semaphore.available == 10


@pytest.mark.parametrize("n", [0, -1, -(10**30)])
def test_numbers_out_of_range(n: int) -> None:
    with pytest.raises(ValueError, match=f"permits must be at least 1, not {n}"):
        Semaphore(n)
    semaphore = Semaphore(5)
    for call in (semaphore.acquire, semaphore.try_acquire, semaphore.release):
        with pytest.raises(ValueError, match=f"permits must be at least 1, not {n}"):
            call(n)
    assert semaphore.available == 5


def test_more_than_there_ever_are() -> None:
    semaphore = Semaphore(5)
    for call in (semaphore.acquire, semaphore.try_acquire):
        with pytest.raises(ValueError, match="a Semaphore of 5 can never give 6 permits"):
            call(6)
    with pytest.raises(ValueError, match="must be at least 1, not 1000000000000000000000"):
        semaphore.acquire(10**21)
    assert Semaphore(2**63 - 1).try_acquire(2**63 - 1) is True


def test_more_than_are_held() -> None:
    semaphore = Semaphore(5)
    with pytest.raises(ValueError, match="release of 1 permits of a Semaphore of which 0 are held"):
        semaphore.release()
    semaphore.acquire(3)
    with pytest.raises(ValueError, match="release of 4 permits of a Semaphore of which 3 are held"):
        semaphore.release(4)
    assert semaphore.available == 2
    semaphore.release(3)


def test_bad_arguments() -> None:
    with pytest.raises(TypeError):
        Semaphore()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Semaphore("5")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Semaphore(1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword"):
        Semaphore(m=1)  # type: ignore[call-arg]
    assert Semaphore(n=3).size == 3
    semaphore = Semaphore(1)
    with pytest.raises(TypeError):
        semaphore.acquire(1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        semaphore.acquire(timeout="1")  # type: ignore[arg-type]
    assert semaphore.available == 1


def test_wait_reason() -> None:
    semaphore = Semaphore(2)
    semaphore.acquire(2)
    waiter = go(semaphore.acquire)
    gosched()
    assert waiter.state == "semacquire"
    semaphore.release(2)
    assert waiter.result() is True


def test_one_that_wants_many_is_not_passed() -> None:
    semaphore = Semaphore(5)
    order: list[int] = []

    def take(n: int) -> None:
        semaphore.acquire(n)
        order.append(n)

    semaphore.acquire(4)
    waiters = [go(take, n) for n in (5, 1, 2)]
    gosched()
    # One permit is free, but there is a queue.
    assert semaphore.try_acquire() is False
    assert semaphore.acquire(timeout=0.001) is False
    semaphore.release(3)
    gosched()
    assert order == []
    semaphore.release(1)
    waiters[0].join()
    assert order == [5]
    semaphore.release(4)
    for w in waiters:
        w.join()
    assert order == [5, 1, 2]
    assert semaphore.available == 1


def test_a_release_serves_as_many_as_it_can() -> None:
    semaphore = Semaphore(6)
    semaphore.acquire(6)
    waiters = [go(semaphore.acquire, n) for n in (1, 2, 3, 1)]
    gosched()
    semaphore.release(6)
    for w in waiters[:3]:
        assert w.result() is True
    assert semaphore.available == 0
    assert not waiters[3].done()
    semaphore.release()
    assert waiters[3].result() is True


@pytest.mark.parametrize("leave", ["cancel", "timeout"])
def test_those_behind_one_that_leaves_are_served(leave: str) -> None:
    semaphore = Semaphore(5)
    semaphore.acquire(2)
    large = go(semaphore.acquire, 5, None if leave == "cancel" else 0.002)
    small = [go(semaphore.acquire) for _ in range(3)]
    gosched()
    assert not any(w.done() for w in small)
    if leave == "cancel":
        large.cancel()
        with pytest.raises(Cancelled):
            large.result()
    else:
        assert large.result() is False
    assert [w.result() for w in small] == [True] * 3
    assert semaphore.available == 0


def test_given_and_then_cancelled() -> None:
    semaphore = Semaphore(3)
    semaphore.acquire(3)

    def take() -> None:
        semaphore.acquire(3)
        try:
            gosched()  # raises
            raise AssertionError
        finally:
            semaphore.release(3)

    g = go(take)
    gosched()
    semaphore.release(3)
    assert semaphore.available == 0  # given already
    g.cancel()
    with pytest.raises(Cancelled):
        g.result()
    assert semaphore.available == 3


@pytest.mark.goroutine(preempt={"slice": "1ms"})
@pytest.mark.parametrize("seed", range(3))
def test_permits_are_neither_lost_nor_given_twice(seed: int) -> None:
    numbers = random.Random(seed)
    semaphore = Semaphore(7)
    held = taken = left = 0
    goroutines: list[Goroutine[None]] = []

    def worker(n: int, timeout: float | None) -> None:
        nonlocal held, taken, left
        try:
            if not semaphore.acquire(n, timeout):
                left += 1
                return
        except Cancelled:
            left += 1
            raise
        try:
            held += n
            taken += 1
            assert held <= 7
            if taken % 2:
                gosched()
            else:
                sleep(0.0001)
        finally:
            held -= n
            semaphore.release(n)

    for _ in range(500):
        timeout = numbers.choice([None, None, 0.0001, 0.002])
        goroutines.append(go(worker, numbers.randint(1, 7), timeout))
        if numbers.random() < 0.4:
            numbers.choice(goroutines).cancel()
        if numbers.random() < 0.3:
            gosched()
    for g in goroutines:
        g.join()
        assert g.exception is None or isinstance(g.exception, Cancelled)
    assert held == 0
    assert taken > 0
    assert left > 0
    assert semaphore.available == 7
    assert semaphore.try_acquire(7) is True


@pytest.mark.goroutine(preempt={"slice": "1ms"})
def test_many_goroutines_under_preemption() -> None:
    semaphore = Semaphore(3)
    inside = set[int]()
    most = 0

    def worker(n: int) -> None:
        nonlocal most
        for _ in range(3):
            with semaphore:
                inside.add(n)
                most = max(most, len(inside))
                before = stats()["preemptions"]
                while stats()["preemptions"] == before:
                    pass
                inside.remove(n)

    workers = [go(worker, n) for n in range(20)]
    # Without this hog the last worker, alone, would not be preempted any more.
    while not all(g.done() for g in workers):
        pass
    for g in workers:
        g.result()
    assert most == 3
    assert semaphore.available == 3


def test_references() -> None:
    semaphore = Semaphore(1000)
    count = sys.getrefcount(semaphore)
    for n in range(1, 200):
        semaphore.acquire(n)
        semaphore.release(n)
    assert sys.getrefcount(semaphore) == count
