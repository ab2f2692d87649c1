"""singleflight: one call for all goroutines that want it at the same time."""

from __future__ import annotations

import gc
import random
import weakref

import pytest

from golibx import Cancelled, Event, Goroutine, go, gosched, singleflight, sleep, stats

pytestmark = pytest.mark.goroutine(preempt={"async": False})


def test_one_call_for_all() -> None:
    group = singleflight.Group[str, int]()
    go_on = Event()
    calls: list[tuple[int, int]] = []

    def slow(a: int, *, b: int) -> int:
        calls.append((a, b))
        go_on.wait()
        return len(calls)

    callers = [go(group.do, "key", slow, 1, b=2) for _ in range(10)]
    other = go(group.do, "other", lambda: 50)
    gosched()
    assert other.result() == (50, False)
    go_on.set()
    assert [c.result() for c in callers] == [(1, True)] * 10
    assert calls == [(1, 2)]
    assert group.do("key", slow, 3, b=4) == (2, False)
    assert not group._calls


def test_errors_are_everyone_s() -> None:
    group = singleflight.Group[int, None]()
    go_on = Event()

    def fail() -> None:
        go_on.wait()
        raise KeyError("missing")

    callers = [go(group.do, 1, fail) for _ in range(5)]
    gosched()
    go_on.set()
    for c in callers:
        with pytest.raises(KeyError, match="missing"):
            c.result()
    assert group.do(1, lambda: None) == (None, False)


def test_when_the_one_that_calls_is_cancelled_another_calls() -> None:
    group = singleflight.Group[int, int]()
    calls: list[int] = []
    go_on = Event()

    def slow() -> int:
        calls.append(1)
        go_on.wait()
        return len(calls)

    callers = [go(group.do, 1, slow) for _ in range(4)]
    gosched()
    callers[0].cancel()
    with pytest.raises(Cancelled):
        callers[0].result()
    gosched()
    assert calls == [1, 1]
    go_on.set()
    assert [c.result() for c in callers[1:]] == [(2, True)] * 3


def test_one_that_waits_is_cancelled() -> None:
    group = singleflight.Group[int, int]()
    go_on = Event()
    callers = [go(group.do, 1, lambda: go_on.wait() + 4) for _ in range(3)]
    gosched()
    callers[1].cancel()
    with pytest.raises(Cancelled):
        callers[1].result()
    go_on.set()
    assert callers[0].result() == callers[2].result() == (5, True)


def test_forget() -> None:
    group = singleflight.Group[str, int]()
    go_on = Event()
    first = go(group.do, "a", lambda: 1 if go_on.wait() else 0)
    gosched()
    group.forget("a")
    group.forget("unknown")
    assert group.do("a", lambda: 2) == (2, False)
    second = go(group.do, "a", lambda: 3 if go_on.wait() else 0)
    gosched()
    go_on.set()
    assert first.result() == (1, False)
    assert second.result() == (3, False)
    assert not group._calls


def test_cancelling_a_caller_at_its_end_leaves_nothing_that_is_stale() -> None:
    group = singleflight.Group[int, int]()
    go_on = Event()
    caller = go(group.do, 1, lambda: 1 if go_on.wait() else 0)
    gosched()
    with group._lock:  # it has to wait for it at its end
        go_on.set()
        gosched()
        assert caller.state == "sync.Mutex.Lock"
        waiter = go(group.do, 1, lambda: 2)
        caller.cancel()
    assert caller.result() == (1, False)
    assert waiter.result() == (2, False)
    assert group.do(1, lambda: 3) == (3, False)
    assert not group._calls


@pytest.mark.goroutine(preempt={"slice": "1ms"})
def test_many_under_preemption() -> None:
    numbers = random.Random(1)
    group = singleflight.Group[int, int]()
    running = [0] * 5
    goroutines: list[Goroutine[tuple[int, bool]]] = []

    def work(key: int) -> int:
        assert running[key] == 0
        running[key] = 1
        try:
            sleep(0.0002)
            before = stats()["preemptions"]
            for _ in range(20_000):
                if stats()["preemptions"] > before:
                    break
        finally:
            running[key] = 0
        return key * 10

    def call(key: int) -> tuple[int, bool]:
        value, shared = group.do(key, work, key)
        assert value == key * 10
        return value, shared

    for _ in range(300):
        goroutines.append(go(call, numbers.randrange(5)))
        if numbers.random() < 0.1:
            numbers.choice(goroutines).cancel()
        if numbers.random() < 0.2:
            gosched()
    shared = 0
    for g in goroutines:
        g.join()
        assert g.exception is None or isinstance(g.exception, Cancelled)
        if g.exception is None:
            shared += g.result()[1]
    assert shared > 0
    assert running == [0] * 5


@pytest.mark.goroutine(False)
def test_outside_of_goroutines() -> None:
    assert singleflight.Group[int, int]().do(1, lambda: 2) == (2, False)


def test_nothing_is_kept() -> None:
    class Thing:
        pass

    group = singleflight.Group[str, Thing]()
    value, _ = group.do("a", Thing)
    ref = weakref.ref(value)
    del value
    gc.collect()
    assert ref() is None
