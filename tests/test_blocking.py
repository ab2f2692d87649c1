"""blocking(): gives the processor up first, for calls that are known to block."""

# A lambda is the shortest way to do two things in a goroutine, though neither returns a value.
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import os
import time

import pytest

from golibx import Cancelled, Chan, blocking, current, go, gosched, num_goroutine, stats
from golibx.testing import wait_until

pytestmark = pytest.mark.goroutine


def test_result_and_arguments() -> None:
    def f(*args: int, **kwargs: int) -> tuple[tuple[int, ...], dict[str, int]]:
        return args, kwargs

    assert blocking(f) == ((), {})
    assert blocking(f, 1, 2, 3, 4, 5, a=6) == ((1, 2, 3, 4, 5), {"a": 6})
    assert blocking(abs, -1) == 1
    assert blocking(lambda: None) is None


def test_exceptions() -> None:
    def f() -> None:
        raise LookupError("inside")

    for _ in range(10):
        with pytest.raises(LookupError, match="inside"):
            blocking(f)
    gosched()


@pytest.mark.goroutine(retake={"enabled": False})
def test_others_run_though_nothing_is_retaken() -> None:
    r, w = os.pipe()
    go(os.write, w, b"x")
    assert blocking(os.read, r, 10) == b"x"
    os.close(r)
    os.close(w)
    assert stats()["retakes"] == 0


@pytest.mark.goroutine(retake={"enabled": False})
def test_many_at_once() -> None:
    pipes = [os.pipe() for _ in range(20)]
    readers = [go(blocking, os.read, r, 10) for r, _ in pipes]
    for i, (_, w) in enumerate(pipes):
        os.write(w, b"%d" % i)
    assert [g.result() for g in readers] == [b"%d" % i for i in range(20)]
    for r, w in pipes:
        os.close(r)
        os.close(w)


def test_the_call_may_park() -> None:
    ch: Chan[int] = Chan()

    def f() -> int:
        time.sleep(0.001)
        return ch.recv() + ch.recv()

    g = go(blocking, f)
    ch.send(1)
    ch.send(2)
    assert g.result() == 3


def test_nested() -> None:
    assert blocking(blocking, blocking, time.sleep, 0.001) is None
    assert blocking(lambda: blocking(lambda: 5)) == 5


def test_it_stays_the_same_goroutine() -> None:
    me = current()
    assert blocking(current) is me
    assert blocking(num_goroutine) == 1


def test_the_caller_is_shown_as_blocked() -> None:
    r, w = os.pipe()
    g = go(blocking, os.read, r, 1)
    wait_until(lambda: (g.state, stats()["threads_blocked"]) == ("syscall", 1))
    os.write(w, b"x")
    assert g.result() == b"x"
    os.close(r)
    os.close(w)


def test_a_cancellation_before_it_and_during_it() -> None:
    ran: list[int] = []
    me: list[object] = []

    def before() -> None:
        g = current()
        assert g is not None
        me.append(g)
        g.cancel()
        blocking(ran.append, 1)

    g = go(before)
    with pytest.raises(Cancelled):
        g.result()
    assert ran == []

    r, w = os.pipe()
    during = go(lambda: (blocking(os.read, r, 1), ran.append(2), gosched(), ran.append(3)))
    gosched()
    during.cancel()
    os.write(w, b"x")
    during.join()
    assert during.state == "cancelled"
    assert ran == [2]
    os.close(r)
    os.close(w)


def test_bad_arguments() -> None:
    with pytest.raises(TypeError):
        blocking()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        blocking(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        blocking(abs)
    gosched()


@pytest.mark.goroutine(False)
def test_outside_a_run() -> None:
    with pytest.raises(RuntimeError, match="no golibx runtime"):
        blocking(abs, 1)
