"""WaitGroup, with Go's rules."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

from golibx import Cancelled, Chan, WaitGroup, current, go, gosched

# Without preemption, so that a slow machine does not change which goroutine runs when.
pytestmark = pytest.mark.goroutine(preempt={"async": False})


def test_waits_for_all() -> None:
    group = WaitGroup()
    done: list[int] = []

    def f(i: int) -> None:
        gosched()
        done.append(i)
        group.done()

    for i in range(100):
        group.add()
        go(f, i)
    assert group.wait() is True
    assert len(done) == 100


def test_zero_does_not_wait() -> None:
    group = WaitGroup()
    assert group.wait() is True
    assert group.wait(0) is True
    group.add(3)
    group.add(-3)
    assert group.wait() is True


def test_the_timeout_is_checked_though_nothing_is_waited_for() -> None:
    with pytest.raises(TypeError, match="number of seconds or None, not 'soon'"):
        WaitGroup().wait("soon")  # type: ignore[arg-type]


def test_count() -> None:
    group = WaitGroup()
    assert group.count == 0
    group.add()
    group.add(5)
    assert group.count == 6
    group.done()
    assert group.count == 5
    group.add(delta=-5)
    assert group.count == 0
    assert "count 0" in repr(group)


def test_negative_is_refused_and_changes_nothing() -> None:
    group = WaitGroup()
    with pytest.raises(ValueError, match="negative WaitGroup counter"):
        group.done()
    group.add(2)
    with pytest.raises(ValueError, match="negative WaitGroup counter"):
        group.add(-3)
    assert group.count == 2
    group.add(-2)
    assert group.wait() is True


def test_overflow_is_refused() -> None:
    group = WaitGroup()
    group.add(2**63 - 1)
    with pytest.raises(OverflowError):
        group.add(1)
    with pytest.raises(OverflowError):
        group.add(2**64)
    assert group.count == 2**63 - 1


def test_many_wait() -> None:
    group = WaitGroup()
    group.add()
    waiters = [go(group.wait) for _ in range(20)]
    gosched()
    assert not any(w.done() for w in waiters)
    group.done()
    assert [w.result() for w in waiters] == [True] * 20


def test_timeout() -> None:
    group = WaitGroup()
    group.add()
    assert group.wait(0) is False
    assert group.wait(-5) is False
    assert group.wait(0.001) is False
    assert group.wait(timeout=0.001) is False
    group.done()
    assert group.wait(timeout=100) is True


def test_reuse() -> None:
    group = WaitGroup()
    for round_ in range(5):
        out: list[int] = []
        for i in range(10):
            group.go(out.append, i)
        group.wait()
        assert len(out) == 10, round_


def test_go_counts_until_the_end() -> None:
    group = WaitGroup()
    ch: Chan[int] = Chan()
    g = group.go(ch.recv)
    assert group.count == 1
    ch.send(4)
    group.wait()
    assert g.result() == 4
    assert group.count == 0


def test_go_passes_arguments() -> None:
    group = WaitGroup()

    def f(*args: int, **kwargs: int) -> tuple[tuple[int, ...], dict[str, int]]:
        return args, kwargs

    assert group.go(f, 1, 2, 3, 4, 5, 6, a=7).result() == ((1, 2, 3, 4, 5, 6), {"a": 7})


def test_go_counts_failures_and_cancellations() -> None:
    group = WaitGroup()
    bad = group.go(lambda: 1 / 0)
    never_ran = group.go(lambda: None)
    never_ran.cancel()
    parked = group.go(Chan[int]().recv)
    gosched()
    parked.cancel()
    assert group.wait() is True
    assert isinstance(bad.exception, ZeroDivisionError)
    for g in (never_ran, parked):
        with pytest.raises(Cancelled):
            g.result()


def test_go_needs_a_callable() -> None:
    group = WaitGroup()
    with pytest.raises(TypeError):
        group.go(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        group.go()  # type: ignore[call-arg]
    assert group.count == 0


def test_go_that_cannot_count_starts_nothing() -> None:
    group = WaitGroup()
    group.add(2**63 - 1)
    ran: list[int] = []
    with pytest.raises(OverflowError):
        group.go(ran.append, 1)
    gosched()
    assert ran == []


def test_an_extra_done_in_a_counted_goroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda e: reported.append(str(e.exc_value)))
    group = WaitGroup()
    group.go(group.done).join()  # its own end finds nothing left to take off
    assert group.count == 0
    assert reported == ["negative WaitGroup counter: 0 with -1 added"]


def test_a_waiter_can_be_cancelled() -> None:
    group = WaitGroup()
    group.add()
    waiter = go(group.wait)
    gosched()
    waiter.cancel()
    with pytest.raises(Cancelled):
        waiter.result()
    group.done()
    assert group.wait() is True


def test_used_again_before_the_waiters_have_returned() -> None:
    # Go panics: the waiters of the first round cannot tell that it has ended.
    group = WaitGroup()
    group.add()
    waiter = go(group.wait)
    gosched()
    group.done()
    group.add()
    with pytest.raises(RuntimeError, match="used again, with a count of 1, before wait"):
        waiter.result()
    group.done()
    assert group.wait() is True


def test_references() -> None:
    group = WaitGroup()
    ref = weakref.ref(group)
    group.go(current).join()
    group.go(lambda: None).cancel()
    gosched()
    count = sys.getrefcount(group)
    for _ in range(50):
        group.go(lambda: None)
    group.wait()
    gosched()
    gc.collect()
    assert sys.getrefcount(group) == count
    del group
    assert ref() is None


def test_bad_arguments() -> None:
    group = WaitGroup()
    with pytest.raises(TypeError):
        WaitGroup(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        group.add("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        group.add(1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        group.done(1)  # type: ignore[call-arg]
    group.add()
    with pytest.raises(TypeError):
        group.wait("1")  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        group.count = 5  # type: ignore[misc]
