"""Timers and tickers: what is received, what stop and reset promise, and what is left behind. No
test looks at how long something took; values say when they were due, on a clock that goes on."""

# A lambda is the shortest way to do two things in a goroutine, though neither returns a value.
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import contextvars
import gc
import itertools
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable

import pytest

import golibx
from conftest import Script
from golibx import (
    Cancelled,
    Chan,
    ChannelClosed,
    DeadlineExceeded,
    Deadlock,
    Goroutine,
    RecvChan,
    Ticker,
    Timer,
    WaitGroup,
    after,
    context,
    current,
    go,
    gosched,
    num_goroutine,
    select,
    sleep,
    stats,
    testing,
    tick,
)
from golibx.testing import wait_until

pytestmark = pytest.mark.goroutine


def is_parked(g: Goroutine[object]) -> bool:
    wait_until(lambda: g.state != "runnable")
    return not g.done()


# ---- a value when the time has come ----


def test_after() -> None:
    start = time.monotonic()
    due = after(0.002).recv()
    assert start + 0.002 <= due + 1e-6
    assert due <= time.monotonic()


def test_values_are_the_times_they_were_due_at() -> None:
    channels = [after(delay) for delay in (0.003, 0.001, 0.002)]
    sleep(0.004)
    late, early, middle = [ch.recv() for ch in channels]
    assert early < middle < late
    assert late - early == pytest.approx(0.002, abs=0.0005)


@pytest.mark.parametrize("seconds", [0, -1, -0.5, False])
def test_due_at_once(seconds: float) -> None:
    assert after(seconds).try_recv()[1]
    assert Timer(seconds).c.try_recv()[1]


@pytest.mark.parametrize("seconds", [1000, 1e12, float("inf")])
def test_far_away(seconds: float) -> None:
    ch = after(seconds)
    assert ch.try_recv() == (None, False)
    assert select(ch.on_recv(), default=True) == (-1, None, False)
    with pytest.raises(DeadlineExceeded):
        ch.recv(timeout=0.001)
    with pytest.raises(DeadlineExceeded):
        ch.recv(timeout=0)
    assert Timer(seconds).stop()


def test_once_only() -> None:
    ch = after(0)
    assert ch.recv_ok()[1] is True
    assert ch.try_recv() == (None, False)
    g = go(ch.recv)
    assert is_parked(g)
    g.cancel()
    with pytest.raises(Cancelled):
        g.result()


def test_it_is_a_receive_only_channel() -> None:
    for ch in (after(1000), tick(1000), Timer(1000).c, Ticker(1000).c):
        assert isinstance(ch, RecvChan)
        assert (len(ch), ch.capacity, ch.closed, bool(ch)) == (0, 0, False, True)
        assert "TimeChan" in repr(ch)
        assert not hasattr(ch, "send")
        assert not hasattr(ch, "close")
    with pytest.raises(TypeError):
        type(after(1))()


def test_many_in_random_order() -> None:
    delays = [i * 1e-5 for i in range(1000)]
    random.Random(3).shuffle(delays)
    order: list[float] = []
    group = WaitGroup()
    for delay in delays:
        ch = after(delay)
        group.go(lambda ch=ch: order.append(ch.recv()))
    group.wait()
    assert len(order) == 1000
    assert stats()["timers"] == 0


def test_waiters_are_served_in_order() -> None:
    ticker = Ticker(0.001)
    order: list[int] = []
    group = WaitGroup()
    for i in range(10):
        group.go(lambda i=i: (ticker.c.recv(), order.append(i)))
        gosched()
    group.wait()
    assert sorted(order) == list(range(10))
    assert stats()["timers"] == 0


# ---- stop and reset ----


def test_stop() -> None:
    timer = Timer(1000)
    assert "pending" in repr(timer)
    assert timer.stop()
    assert "pending" not in repr(timer)
    assert not timer.stop()
    timer = Timer(0)
    timer.c.recv()
    assert not timer.stop()


def test_nothing_stale_after_stop() -> None:
    """The time had come, but was not received: the value is taken back."""
    timer = Timer(0)
    assert timer.stop()
    assert timer.c.try_recv() == (None, False)


def test_nothing_stale_after_reset() -> None:
    timer = Timer(0)
    assert timer.reset(1000)
    assert timer.c.try_recv() == (None, False)
    assert timer.reset(0)
    assert timer.c.try_recv()[1]
    assert not timer.reset(0)
    assert select(timer.on_fire(), default=True)[0] == 0
    assert not timer.stop()


def test_reset_moves_those_that_wait() -> None:
    timer = Timer(1000)
    g = go(timer.c.recv)
    assert is_parked(g)
    assert timer.reset(2000)
    assert is_parked(g)
    before = time.monotonic()
    assert timer.reset(0.001)
    assert g.result() >= before


@pytest.mark.goroutine(False)
def test_stop_leaves_those_that_wait() -> None:
    def stops() -> None:
        timer = Timer(0.002)
        g = go(timer.c.recv)
        assert is_parked(g)
        assert stats()["timers"] == 1
        assert timer.stop()
        assert stats()["timers"] == 0
        sleep(0.004)
        assert not g.done()
        timer.reset(0)
        g.result()

    testing.run(stops, seed=1, virtual_time=True, early_timers=False)


def test_stop_and_reset_race_with_a_receiver() -> None:
    """Each round ends in exactly one way: stopped, or received."""
    timer = Timer(1000)
    received: list[float] = []
    rng = random.Random(4)

    def receive() -> None:
        while True:
            try:
                received.append(timer.c.recv(timeout=rng.random() * 0.0005))
            except DeadlineExceeded:
                continue

    timer.stop()
    receivers = [go(receive) for _ in range(3)]
    stopped = 0
    rounds = 1000
    for _ in range(rounds):
        assert not timer.reset(rng.random() * 0.0003)
        if rng.random() < 0.5:
            sleep(rng.random() * 0.0004)
        stopped += timer.stop()
    for g in receivers:
        g.cancel()
        g.join()
    assert 0 < stopped < rounds
    assert stopped + len(received) == rounds
    assert stats()["timers"] == 0


def test_reset_races_with_itself() -> None:
    """Of what several reset, each pending time is received once or replaced."""
    timer = Timer(1000)
    received = replaced = 0
    rng = random.Random(5)
    resets = 0

    def reset() -> None:
        nonlocal replaced, resets
        for _ in range(300):
            replaced += timer.reset(rng.random() * 0.0002)
            resets += 1
            sleep(rng.random() * 0.0002)

    group = WaitGroup()
    for _ in range(4):
        group.go(reset)
    over: Chan[None] = Chan()
    go(lambda: (group.wait(), over.close()))
    while select(timer.on_fire(), over.on_recv())[0] == 0:
        received += 1
    left = timer.stop()
    assert received + replaced + left == resets + 1


# ---- tickers ----


def test_ticks_are_evenly_spaced() -> None:
    period = 0.001
    times = [t for _, t in zip(range(5), tick(period), strict=False)]
    for a, b in itertools.pairwise(times):
        # Whole periods: of a machine that is late, some are missing.
        assert round((b - a) / period) >= 1
        assert (b - a) / period == pytest.approx(round((b - a) / period), abs=0.01)


def test_slow_receivers_miss_ticks() -> None:
    ticker = Ticker(0.001)
    sleep(0.0105)
    first = ticker.c.recv()
    second = ticker.c.recv()
    assert second - first > 0.0085  # not the 2nd, which was due 1 ms after the 1st


def test_ticker_stop_and_reset() -> None:
    ticker = Ticker(0.0005)
    ticker.c.recv()
    sleep(0.001)
    ticker.stop()
    assert ticker.c.try_recv() == (None, False)
    g = go(ticker.c.recv)
    sleep(0.002)
    assert not g.done()
    ticker.reset(0.0005)
    g.result()
    ticker.c.recv()
    assert not ticker.c.closed


def test_ticker_in_a_select() -> None:
    ticker = Ticker(0.0005)
    end = after(0.01)
    ticks = 0
    while select(ticker.on_fire(), end.on_recv())[0] == 0:
        ticks += 1
    assert ticks >= 1
    assert stats()["timers"] == 0


# ---- a function in a goroutine of its own ----


def test_function() -> None:
    done: Chan[Goroutine[object] | None] = Chan()
    before = num_goroutine()
    timer = Timer(1000, lambda: done.send(current()))
    assert timer.c is None
    with pytest.raises(TypeError, match="calls a function"):
        timer.on_fire()
    assert num_goroutine() == before  # until its time has come
    timer.reset(0.001)
    g = done.recv()
    me = current()
    assert g is not None
    assert me is not None
    assert g is not me
    assert g.parent == me.id
    assert "test_time.py" in g.started_at
    assert not timer.stop()


def test_function_that_is_stopped_is_not_called() -> None:
    called: list[int] = []
    timers = [Timer(0.002, lambda i=i: called.append(i)) for i in range(10)]
    assert [t.stop() for t in timers[::2]] == [True] * 5
    assert [t.stop() for t in timers[::2]] == [False] * 5
    sleep(0.004)
    assert sorted(called) == [1, 3, 5, 7, 9]
    assert stats()["timers"] == 0


def test_function_again_after_reset() -> None:
    called: Chan[int] = Chan(10)
    timer = Timer(1000, lambda: called.send(1))
    assert timer.reset(0)
    called.recv()
    assert not timer.reset(0.0005)
    called.recv()
    assert not timer.reset(1000)
    assert timer.stop()
    assert called.try_recv() == (None, False)


def test_stop_races_with_the_call() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    rng = random.Random(6)
    stopped = 0
    timer = Timer(1000, call)
    timer.stop()
    for _ in range(1000):
        assert not timer.reset(rng.random() * 0.0002)
        sleep(rng.random() * 0.0003)
        stopped += timer.stop()
    gosched()
    assert 0 < stopped < 1000
    assert calls + stopped == 1000


def test_function_that_resets_its_own_timer() -> None:
    left = 5
    done: Chan[None] = Chan()

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            timer.reset(0.0001)
        else:
            done.close()

    timer = Timer(0, again)
    assert done.recv_ok() == (None, False)
    assert left == 0


def test_function_has_the_context_of_who_started_it() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("mine")
    seen: Chan[str] = Chan()
    timer = Timer(0, lambda: seen.send(variable.get()))
    variable.set("later")
    assert seen.recv() == "mine"
    assert timer.stop() is False


def test_function_is_a_child_of_who_started_it() -> None:
    seen: Chan[tuple[int, str, object]] = Chan()

    def call() -> None:
        child = current()
        assert child is not None
        seen.send((child.parent, child.started_at, context.current().value("key")))

    def start() -> int:
        with context.with_value(context.background(), "key", "value"):
            Timer(0.001, call)
        me = current()
        assert me is not None
        return me.id

    starter = go(start).result()
    line = start.__code__.co_firstlineno + 2
    assert seen.recv() == (starter, f"{__file__}:{line}", "value")


def test_function_that_nobody_else_has() -> None:
    """The timer and its starter are gone, and the collector was there, when it is called."""
    called: Chan[int] = Chan(100)

    def start() -> None:
        for i in range(100):
            Timer(0.001 * (i % 3), lambda i=i: called.send(i))

    go(start).join()
    gc.collect()
    assert sorted(called.recv() for _ in range(100)) == list(range(100))


def test_function_for_whose_goroutine_there_is_no_memory_yet(script: Script) -> None:
    """It comes later. The first allocation after set_nomemory() is the goroutine's."""
    program = """
from golibx import *
try: from _testcapi import remove_mem_hooks, set_nomemory
except ImportError: raise SystemExit("no _testcapi")
def main():
    gate = Chan(1)
    send = gate.send
    def call():
        remove_mem_hooks()
        send("called")
    recv = gate.recv
    Timer(0.001, call)
    set_nomemory(0, 1)
    value = recv()
    print(value)
run(main)
"""
    result = script(program)
    if "no _testcapi" in result.stderr:
        pytest.skip("this Python has no _testcapi")
    assert (result.returncode, result.stdout) == (0, "called\n"), result.stderr


@pytest.mark.goroutine(False)
def test_function_that_raises_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        Timer(0, lambda: 1 // 0)
        sleep(0.001)

    golibx.run(main)
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.goroutine(False)
def test_function_that_is_pending_at_the_end_is_not_called() -> None:
    called: list[int] = []

    class Callable:
        def __call__(self) -> None:
            called.append(1)

    function = Callable()
    before = sys.getrefcount(function)
    kept: list[Timer] = []

    def main() -> None:
        Timer(0.05, function)
        kept.append(Timer(0.05, function))

    golibx.run(main)
    golibx.run(sleep, 0.06)
    assert not called
    assert not kept[0].stop()
    assert "pending" not in repr(kept[0])
    kept.clear()
    assert sys.getrefcount(function) == before


@pytest.mark.goroutine(False)
def test_function_timer_in_a_later_run() -> None:
    called: list[int] = []
    timers: list[Timer] = []
    golibx.run(lambda: timers.append(Timer(1000, lambda: called.append(1))))

    def main() -> None:
        assert timers[0].reset(0) is False
        sleep(0.001)

    golibx.run(main)
    assert called == [1]


# ---- what is forgotten, and what is left ----


@pytest.mark.parametrize(
    "make",
    [
        lambda: Timer(0.0001),
        lambda: Ticker(0.0001),
        lambda: Timer(1000),
        lambda: Timer(0.0001).c,
        lambda: after(0.0001),
        lambda: after(1000),
        lambda: tick(0.0001),
    ],
)
def test_forgotten_ones_are_collected(make: Callable[[], object]) -> None:
    thing = make()
    ref = weakref.ref(thing)
    del thing
    assert ref() is None
    assert stats()["timers"] == 0


def test_forgotten_function_is_called_all_the_same() -> None:
    done: Chan[int] = Chan()
    Timer(0.0005, lambda: done.send(1))
    gc.collect()
    assert done.recv() == 1


def test_a_timer_and_its_function_in_a_cycle() -> None:
    def cycle() -> weakref.ref[Timer]:
        timer = Timer(0, lambda: timer)
        sleep(0.0005)
        return weakref.ref(timer)

    ref = cycle()
    gc.collect()
    assert ref() is None


def test_waits_that_end_otherwise_leave_no_timer() -> None:
    never: Chan[int] = Chan()
    waits = [go(after(1000).recv) for _ in range(100)]
    waits += [go(lambda: select(never.on_recv(), after(1000).on_recv())) for _ in range(100)]
    for g in waits:
        assert is_parked(g)
    assert stats()["timers"] == 200
    for g in waits:
        g.cancel()
        with pytest.raises(Cancelled):
            g.result()
    assert stats()["timers"] == 0
    for _ in range(100):
        ch: Chan[int] = Chan()
        g = go(ch.send, 1)
        assert select(after(1000).on_recv(), ch.on_recv(), after(1000).on_recv()) == (1, 1, True)
    assert stats()["timers"] == 0


def test_cancelled_while_the_time_comes() -> None:
    for i in range(300):
        g = go(after(0.0001).recv)
        sleep(0.00005 * (i % 5))
        g.cancel()
        g.join()
    assert stats()["timers"] == 0


@pytest.mark.parametrize(
    ("make", "most"),
    [("after(1000)", 200), ("Timer(1000)", 200), ("Timer(1000, main)", 500)],
)
def test_memory_of_pending_timers(script: Script, make: str, most: int) -> None:
    program = f"""
import gc
from golibx import *
def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096
def main():
    gc.disable()
    n = 200_000
    kept = [None] * n
    before = resident()
    for i in range(n):
        kept[i] = {make}
    print((resident() - before) / n)
run(main)
"""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    assert 0 < float(script.passes(program)) <= most


# ---- hope, and none ----


@pytest.mark.goroutine(False)
def test_waiting_for_a_timer_is_no_deadlock() -> None:
    golibx.run(after(0.002).recv)
    golibx.run(lambda: select(after(0.002).on_recv(), Chan[int]().on_recv()))

    def main() -> None:
        ch: Chan[int] = Chan()
        go(lambda: (after(0.002).recv(), ch.send(1)))
        ch.recv()
        Timer(0.002, lambda: ch.send(2))
        assert ch.recv() == 2

    golibx.run(main)


@pytest.mark.goroutine(False)
@pytest.mark.parametrize("case", range(6))
def test_waiting_for_what_never_comes_is_a_deadlock(case: int) -> None:
    def main() -> None:
        ch: Chan[int] = Chan()
        received = after(0)
        received.recv()
        stopped = Timer(1000)
        waiting = go(stopped.c.recv)
        assert is_parked(waiting)
        stopped.stop()
        function = Timer(1000, lambda: None)
        function.stop()
        pending = after(1000)  # no goroutine waits for it, so that it can wake none
        # Wait for it, and go away again.
        with pytest.raises(DeadlineExceeded):
            pending.recv(timeout=0.0001)
        [
            received.recv,
            stopped.c.recv,
            ch.recv,
            after(float("inf")).recv,
            lambda: select(received.on_recv(), stopped.on_fire()),
            lambda: ch.recv(),
        ][case]()

    with pytest.raises(Deadlock):
        golibx.run(main)


@pytest.mark.goroutine(False)
def test_a_service_that_waits_for_a_ticker_is_no_hope() -> None:
    def main() -> None:
        g = golibx._core.go_system(tick(0.001).recv)
        try:
            Chan[int]().recv()
        finally:
            g.cancel()

    with pytest.raises(Deadlock):
        golibx.run(main)


# ---- threads, runs, arguments ----


def test_reset_from_a_thread() -> None:
    """The runtime sleeps until the time that it knew of: it has to be told."""
    timer = Timer(1000)
    thread = threading.Timer(0.01, timer.reset, (0,))
    thread.start()
    timer.c.recv()
    thread.join()
    done: Chan[int] = Chan()
    thread = threading.Timer(0.01, lambda: Timer(0.001, lambda: done.send(1)))
    thread.start()
    assert done.recv() == 1
    thread.join()


@pytest.mark.goroutine(False)
def test_outside_of_a_run() -> None:
    assert after(0).try_recv()[1]
    timer = Timer(0)
    assert select(timer.on_fire(), default=True)[0] == 0
    assert not timer.reset(1000)
    assert timer.stop()
    ticker = Ticker(1000)
    for operation in (timer.c.recv, ticker.c.recv, lambda: Timer(1, print)):
        with pytest.raises(RuntimeError, match="no golibx runtime"):
            operation()
    # And it can be waited for in any run.
    timer.reset(0.001)
    golibx.run(timer.c.recv)
    timer.reset(0.001)
    golibx.run(timer.c.recv)


@pytest.mark.goroutine(False)
def test_one_that_an_ended_run_waited_for() -> None:
    timer = Timer(0.05)

    def main() -> None:
        golibx._core.go_system(timer.c.recv)  # no code cancels it
        sleep(0.001)

    golibx.run(main)
    timer.reset(0.001)
    golibx.run(timer.c.recv)
    assert not timer.stop()


def test_bad_arguments() -> None:
    for make in (after, tick, Timer, Ticker, Timer(1).reset, Ticker(1).reset):
        for bad in ("1", None, [], object()):
            with pytest.raises(TypeError, match="number of seconds"):
                make(bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="nan"):
            make(float("nan"))
        with pytest.raises(OverflowError):
            make(10**400)
        with pytest.raises(TypeError):
            make()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            make(1, other=2)  # type: ignore[call-arg]
    for make in (tick, Ticker, Ticker(1).reset):
        for zero in (0, -1, -0.0):
            with pytest.raises(ValueError, match="above zero"):
                make(zero)
    with pytest.raises(TypeError, match="callable or None"):
        Timer(1, 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="multiple values"):
        Timer(1, seconds=2)  # type: ignore[misc]
    with pytest.raises(TypeError, match="at most 2"):
        Timer(1, None, 3)  # type: ignore[call-arg]
    assert Timer(seconds=1000, fn=None).stop()
    assert after(seconds=0).try_recv()[1]
    with pytest.raises(ChannelClosed):
        closed: Chan[int] = Chan()
        closed.close()
        select(closed.on_send(1), after(1000).on_recv())


def test_the_module_hides_nobody() -> None:
    import golibx.runtime
    import golibx.time as golibx_time

    assert golibx.runtime.time is time
    assert golibx_time is not time
    for name in golibx_time.__all__:
        assert getattr(golibx_time, name) is getattr(golibx, name)
