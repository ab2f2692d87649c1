"""sleep and every other bounded wait: the order of wake-ups. No test looks at a clock."""

# A lambda is the shortest way to do two things in a goroutine, though neither returns a value.
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import random

import pytest

import golibx
from golibx import Cancelled, Chan, DeadlineExceeded, WaitGroup, go, gosched, select, sleep, stats

# Without preemption, so that a slow machine does not change which goroutine runs when.
pytestmark = pytest.mark.goroutine(preempt={"async": False})


def test_sleepers_wake_in_order_of_their_times() -> None:
    order: list[int] = []
    delays = list(range(1, 31))
    random.Random(1).shuffle(delays)

    def f(delay: int) -> None:
        sleep(delay * 0.01)
        order.append(delay)

    group = WaitGroup()
    for delay in delays:
        group.go(f, delay)
    group.wait()
    assert order == sorted(delays)


def test_a_later_start_of_the_same_sleep_wakes_later() -> None:
    order: list[int] = []

    def f(i: int) -> None:
        sleep(0.02)
        order.append(i)

    group = WaitGroup()
    for i in range(50):
        group.go(f, i)
    group.wait()
    assert order == list(range(50))


def test_zero_and_less_only_yield() -> None:
    log: list[str] = []
    go(log.append, "other")
    sleep(0)
    assert log == ["other"]
    go(log.append, "another")
    sleep(-5)
    assert log == ["other", "another"]
    sleep(-float("inf"))


def test_numbers_of_all_kinds() -> None:
    from fractions import Fraction

    class Seconds:
        def __float__(self) -> float:
            return 0.001

    for seconds in (0, False, 1e-9, Fraction(1, 1000), Seconds()):
        assert sleep(seconds) is None  # type: ignore[arg-type, func-returns-value]


def test_bad_arguments() -> None:
    for bad in ("1", None, [], object()):
        with pytest.raises(TypeError):
            sleep(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nan"):
        sleep(float("nan"))
    with pytest.raises(OverflowError):
        sleep(10**400)
    with pytest.raises(TypeError):
        sleep()  # type: ignore[call-arg]

    class Failing:
        def __float__(self) -> float:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        sleep(Failing())  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [1e9, 9.1e9, 1e12, 1e300, float("inf")])
def test_very_long_sleeps(seconds: float) -> None:
    g = go(sleep, seconds)
    gosched()
    assert "sleep" in g.state
    g.cancel()
    with pytest.raises(Cancelled):
        g.result()


def test_a_shorter_sleep_that_starts_later_wakes_first() -> None:
    order: list[str] = []
    long = go(lambda: (sleep(1000), order.append("long")))
    gosched()
    go(lambda: (sleep(0.001), order.append("short"))).join()
    assert order == ["short"]
    long.cancel()


def test_many_timers() -> None:
    group = WaitGroup()
    rng = random.Random(2)
    for _ in range(5000):
        group.go(sleep, rng.random() * 0.05)
    group.wait()
    assert stats()["timers"] == 0


def test_cancelled_and_served_waits_leave_no_timer() -> None:
    before = stats()["timers"]
    ch: Chan[int] = Chan()
    goroutines = [go(sleep, 1000) for _ in range(100)]
    goroutines += [go(ch.recv, 1000) for _ in range(100)]
    goroutines += [go(lambda: select(ch.on_recv(), timeout=1000)) for _ in range(100)]
    gosched()
    assert stats()["timers"] == before + 300
    for i in range(50):
        ch.send(i)
    assert stats()["timers"] >= before
    for g in goroutines:
        g.cancel()
    for g in goroutines:
        g.join()
    assert stats()["timers"] == before


def test_a_timeout_and_a_value_exclude_each_other() -> None:
    ch: Chan[int] = Chan()
    outcomes = {"value": 0, "timeout": 0}
    sent = 0

    def receiver() -> None:
        try:
            ch.recv(timeout=0.002)
            outcomes["value"] += 1
        except DeadlineExceeded:
            outcomes["timeout"] += 1

    for i in range(200):
        g = go(receiver)
        gosched()
        if i % 2:
            sleep(0.0019)
        sent += ch.try_send(i)
        g.join()
    assert outcomes["value"] == sent
    assert outcomes["value"] + outcomes["timeout"] == 200


@pytest.mark.goroutine(preempt={})
def test_sleep_while_another_computes() -> None:
    woken: list[bool] = []
    go(lambda: (sleep(0.001), woken.append(True)))
    gosched()
    n = 0
    while not woken:  # ends only if the timer gets its turn between these
        n += 1
    assert woken == [True]


@pytest.mark.goroutine(False)
def test_sleep_alone_is_no_deadlock() -> None:
    log: list[str] = []
    golibx.run(lambda: (sleep(0.001), log.append("woken")))
    assert log == ["woken"]


@pytest.mark.goroutine(False)
def test_a_sleeping_goroutine_may_still_wake_main() -> None:
    def main() -> str:
        ch: Chan[str] = Chan()
        go(lambda: (sleep(0.001), ch.send("woke")))
        return ch.recv()

    assert golibx.run(main) == "woke"


@pytest.mark.goroutine(False)
def test_sleep_outside_a_run() -> None:
    with pytest.raises(RuntimeError, match="no golibx runtime"):
        sleep(0.001)
