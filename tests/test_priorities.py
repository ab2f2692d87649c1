"""Priorities of goroutines: which one goes first, and that none starves."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Literal

import pytest

import golibx
from golibx import (
    Chan,
    Deadlock,
    Event,
    Goroutine,
    Mutex,
    _core,
    current,
    go,
    gosched,
    lock_os_thread,
    scope,
    sleep,
    stats,
    testing,
    unlock_os_thread,
)
from golibx.hookspec import Preempt, hookimpl
from golibx.testing import wait_until, wait_until_parked

Priority = Literal["low", "normal", "high"]
PRIORITIES: tuple[Priority, ...] = ("low", "normal", "high")
OTHERS_TURNS, JOIN_TURNS = 64, 256  # zsrc/serial/ranks.zig


def me() -> Goroutine[object]:
    goroutine = current()
    assert goroutine is not None
    return goroutine


def start(priority: Priority, fn: Callable[..., object], *args: object) -> Goroutine[object]:
    """Starts a goroutine of that priority."""
    before = me().priority
    me().priority = priority
    try:
        return go(fn, *args)
    finally:
        me().priority = before


# ---- what it is ----


@pytest.mark.goroutine
def test_it_is_normal_and_may_be_set() -> None:
    assert me().priority == "normal"
    for priority in PRIORITIES:
        me().priority = priority
        assert me().priority == priority
        gosched()
        assert me().priority == priority
    wait: Chan[None] = Chan()
    other = go(wait.recv)
    assert other.priority == "high"
    other.priority = "low"
    assert (other.priority, me().priority) == ("low", "high")
    wait.send(None)
    other.join()
    other.priority = "high"  # it has ended
    assert other.priority == "normal"


@pytest.mark.goroutine
def test_values_that_are_none() -> None:
    for value in ("urgent", "", "LOW"):
        with pytest.raises(ValueError, match=f'"low", "normal" or "high", not {value!r}'):
            me().priority = value  # type: ignore[assignment]
    for value in (1, None, b"low"):
        with pytest.raises(TypeError, match=f'"low", "normal" or "high", not {value!r}'):
            me().priority = value  # type: ignore[assignment]
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del me().priority
    assert me().priority == "normal"


@pytest.mark.goroutine
def test_who_is_started_has_it_too() -> None:
    said: Chan[str] = Chan(1)

    def child() -> None:
        said.send(me().priority)

    def parent() -> None:
        go(child)

    for priority in PRIORITIES:
        start(priority, parent)
        assert said.recv() == priority
    with scope() as s:
        me().priority = "low"
        s.go(child)
        assert said.recv() == "low"
    thread = threading.Thread(target=parent)
    thread.start()
    assert said.recv() == "normal"
    thread.join()


# ---- which one goes first ----


@pytest.mark.goroutine
def test_new_ones() -> None:
    order: list[str] = []
    started = [
        start(priority, order.append, f"{priority} {i}") for priority in PRIORITIES for i in "12"
    ]
    for g in started:
        g.join()
    assert order == ["high 1", "high 2", "normal 1", "normal 2", "low 1", "low 2"]


@pytest.mark.goroutine
def test_those_that_are_woken() -> None:
    order: list[str] = []
    channels: list[Chan[None]] = []
    waiters = []

    def waiter(name: str, wake: Chan[None]) -> None:
        wake.recv()
        order.append(name)

    for priority in PRIORITIES:
        channels.append(Chan(1))
        waiters.append(start(priority, waiter, priority, channels[-1]))
        wait_until_parked(waiters[-1])
    for channel in channels:
        channel.send(None)
    for g in waiters:
        g.join()
    assert order == ["high", "normal", "low"]


@pytest.mark.goroutine(virtual_time=True)
def test_those_that_a_timer_wakes() -> None:
    order: list[str] = []

    def sleeper(name: str) -> None:
        sleep(1)
        order.append(name)

    sleepers = [start(priority, sleeper, priority) for priority in PRIORITIES]
    for g in sleepers:
        wait_until_parked(g)
    for g in sleepers:
        g.join()
    assert order == ["high", "normal", "low"]


@pytest.mark.goroutine
def test_who_gives_way_lets_all_others_run() -> None:
    for waits, works in (("high", "normal"), ("high", "low"), ("normal", "low"), ("low", "low")):
        done: list[str] = []

        def wait(done: list[str] = done) -> None:
            while not done:
                gosched()

        waiting = start(waits, wait)  # type: ignore[arg-type]
        start(works, done.append, "done").join()  # type: ignore[arg-type]
        waiting.join()


@pytest.mark.goroutine
def test_they_are_counted_as_runnable() -> None:
    before = stats()["runq"]
    started = [start(priority, int) for priority in PRIORITIES]
    assert stats()["runq"] - before == 3
    for g in started:
        g.join()


# ---- none starves ----


def pass_on(turns: list[int], token: Chan[None], other: Chan[None]) -> None:
    """One of a pair that wakes each other for ever."""
    while True:
        token.recv()
        turns[0] += 1
        other.send(None)


def pair(priority: Priority) -> tuple[list[int], list[Goroutine[object]]]:
    turns = [0]
    one: Chan[None] = Chan(1)
    two: Chan[None] = Chan(1)
    goroutines = [start(priority, pass_on, turns, *each) for each in ((one, two), (two, one))]
    one.send(None)
    return turns, goroutines


def longest_wait(turns: list[int]) -> int:
    """Of a goroutine that gives way again and again, in turns of others."""
    longest = 0
    for _ in range(100):
        before = turns[0]
        gosched()
        longest = max(longest, turns[0] - before)
    return longest


@pytest.mark.goroutine(leaks=False)
@pytest.mark.parametrize(
    ("busy", "waits", "at_most"),
    [("high", "normal", OTHERS_TURNS), ("normal", "low", JOIN_TURNS + OTHERS_TURNS)],
)
def test_the_longest_wait(busy: Priority, waits: Priority, at_most: int) -> None:
    turns, goroutines = pair(busy)
    result = start(waits, longest_wait, turns)
    longest = result.result()
    assert isinstance(longest, int)
    assert 2 < longest <= at_most + 2
    for g in goroutines:
        g.cancel()
        g.join()


@pytest.mark.goroutine(leaks=False)
def test_all_at_once() -> None:
    pairs = [pair(priority) for priority in PRIORITIES for _ in range(2)]
    enough = Event()

    def watch() -> None:
        wait_until(lambda: all(turns[0] > 20 for turns, _ in pairs))
        enough.set()

    start("low", watch)
    enough.wait()
    for _, goroutines in pairs:
        for g in goroutines:
            g.cancel()
            g.join()


@pytest.mark.goroutine
@pytest.mark.parametrize("busy", ["normal", "high"])
def test_a_low_one_beside_one_that_computes(busy: Priority) -> None:
    done: list[str] = []

    def compute() -> None:
        while not done:
            pass

    hog = start(busy, compute)
    start("low", done.append, "done").join()
    hog.join()


@pytest.mark.goroutine
@pytest.mark.parametrize("low", [1, 3])
def test_ones_that_compute_end(low: int) -> None:
    """In their order, since they have as much to do; that is not asserted, as threads are slow."""

    def compute() -> int:
        return sum(1 for _ in range(300_000))

    priorities: list[Priority] = ["low"] * low + ["normal", "normal", "high"]
    for g in [start(priority, compute) for priority in priorities]:
        assert g.result() == 300_000


@pytest.mark.goroutine(leaks=False)
def test_a_lock_that_a_low_one_holds() -> None:
    lock = Mutex()
    locked = Event()

    def low() -> None:
        with lock:
            locked.set()
            gosched()

    def high() -> None:
        with lock:
            pass

    holder = start("low", low)
    locked.wait()
    _, goroutines = pair("normal")
    start("high", high).join()
    holder.join()
    for g in goroutines:
        g.cancel()
        g.join()


# ---- what plugins say: on_preempt ----


class Judge:
    """A plugin with one verdict on the goroutines that are named."""

    def __init__(self, verdict: str | int, *names: str) -> None:
        self.verdict = verdict
        self.names = names
        self.asked: list[str] = []

    @hookimpl
    def on_preempt(self, event: Preempt) -> str | int | None:
        for g in golibx.goroutines():
            if g.id == event.goroutine_id and g.name in self.names:
                self.asked.append(g.name)
                return self.verdict
        return None


def run_with(judge: Judge, monkeypatch: pytest.MonkeyPatch, main: Callable[[], object]) -> object:
    monkeypatch.setitem(sys.modules, "judging", SimpleNamespace(judge=judge))
    return golibx.run(
        main,
        config={
            "plugins": {"enabled": ["judging:judge"]},
            "preempt": {"slice": "1ms"},
            "hooks": {"flush_interval": "1ms"},
        },
    )


def compute(until: Callable[[], object]) -> int:
    n = 0
    while not until():
        n += 1
    return n


def without_the_other(judge: Judge, turns: list[int], seconds: float) -> None:
    """Computes until it has had so much time of the processor while another one counted no turn."""
    compute(lambda: judge.asked)
    while True:
        seen, began = turns[0], time.process_time()
        while turns[0] == seen:
            if time.process_time() - began > seconds:
                return


def count_turns(turns: list[int], done: list[bool]) -> None:
    while not done:
        turns[0] += 1


@pytest.mark.parametrize("verdict", ["1m", 60_000_000_000])
def test_a_longer_slice(monkeypatch: pytest.MonkeyPatch, verdict: str | int) -> None:
    """One that computes does so for many slices of another, which is not let in."""
    judge = Judge(verdict, "judged")

    def main() -> None:
        turns = [0]
        done: list[bool] = []
        pair = [go(without_the_other, judge, turns, 0.1), go(count_turns, turns, done)]
        pair[0].name = "judged"
        pair[0].join()
        done.append(True)
        pair[1].join()

    run_with(judge, monkeypatch, main)
    assert set(judge.asked) == {"judged"}


@pytest.mark.goroutine
def test_one_that_is_demoted_lets_all_others_go_first() -> None:
    order: list[str] = []

    def other() -> None:
        for _ in range(10):
            order.append("other")
            gosched()

    def start_two() -> None:  # one alone would let this one run when it gives way
        order.clear()
        for _ in range(2):
            start("normal", other)

    for priority in PRIORITIES:
        me().priority = priority
        start_two()
        assert _core.judge(me().id, time.monotonic_ns(), 0)
        assert me().priority == priority
        gosched()
        assert len(order) == 20
        # It waits, and is what it was.
        start_two()
        assert _core.judge(me().id, time.monotonic_ns(), 0)
        sleep(0.001)
        start_two()
        gosched()
        assert len(order) == (20 if priority == "low" else 2)
        wait_until(lambda: len(order) == 20)


@pytest.mark.goroutine
def test_verdicts_that_come_too_late() -> None:
    since = time.monotonic_ns()
    wait: Chan[None] = Chan()
    waits = go(wait.recv)
    wait_until_parked(waits)
    for slice_ns in (0, 1_000_000):
        assert not _core.judge(waits.id, since, slice_ns)
        assert not _core.judge(1 << 40, since, slice_ns)
    wait.send(None)
    waits.join()
    assert not _core.judge(waits.id, since, 0)
    number = Chan[int](1)
    service = _core.go_system(lambda: number.send(me().id) or compute(lambda: done))  # type: ignore[func-returns-value]
    done: list[bool] = []
    assert not _core.judge(number.recv(), since, 0)
    done.append(True)
    service.join()


def test_it_is_low_until_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge("demote", "hog")

    def main() -> None:
        order: list[str] = []
        wake: Chan[None] = Chan(1)

        def hog() -> None:
            compute(lambda: judge.asked)
            wake.recv()
            order.append("hog")

        hogs = go(hog)
        hogs.name = "hog"
        go(compute, lambda: judge.asked).join()  # without another it is not preempted
        wait_until_parked(hogs)
        wake.send(None)
        normal = go(order.append, "normal")
        normal.join()
        hogs.join()
        assert order == ["hog", "normal"]

    run_with(judge, monkeypatch, main)


# ---- with the rest ----


@pytest.mark.goroutine
@pytest.mark.parametrize("priority", PRIORITIES)
def test_blocking_calls_and_threads_of_their_own(priority: Priority) -> None:
    def work() -> Priority:
        for _ in range(5):
            time.sleep(0.001)
            golibx.blocking(time.sleep, 0.001)
            gosched()
        lock_os_thread()
        for _ in range(5):
            time.sleep(0.001)
            gosched()
            sleep(0.001)
        unlock_os_thread()
        return me().priority

    workers = [start(priority, work) for _ in range(5)]
    others = [go(time.sleep, 0.01) for _ in range(5)]
    for g in workers:
        assert g.result() == priority
    for other in others:
        other.join()


@pytest.mark.parametrize("priority", PRIORITIES)
def test_the_main_goroutine(priority: Priority) -> None:
    def main() -> int:
        me().priority = priority
        answers: Chan[int] = Chan()
        for i in range(5):
            go(answers.send, i)
        got = sum(answers.recv() for _ in range(5))
        go(Chan[None]().recv)  # is cancelled at the end
        go(gosched)
        return got

    assert golibx.run(main) == 10

    def asleep() -> None:
        me().priority = priority
        go(Chan[None]().recv)
        Chan[None]().recv()

    with pytest.raises(Deadlock):
        golibx.run(asleep)


def orders(seed: int) -> tuple[str, ...]:
    """In which three goroutines of all priorities come to their ends in an explored run."""
    order: list[str] = []

    def work(name: str) -> None:
        gosched()
        order.append(name)

    def main() -> None:
        for g in [start(priority, work, priority) for priority in PRIORITIES]:
            g.join()

    testing.run(main, seed=seed)
    return tuple(order)


def test_explored_runs_try_all_orders() -> None:
    found = [orders(seed) for seed in range(1, 101)]
    assert [orders(seed) for seed in range(1, 21)] == found[:20]
    assert len(set(found)) == 6
