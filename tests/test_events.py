"""Events on their way from the scheduler to the hooks: of either lane, in order, of one run.

What the core's numbers become is tested in test_hookspec.py; here the core makes them.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import (
    Chan,
    Deadlock,
    WaitGroup,
    go,
    gomaxprocs,
    gosched,
    native,
    sleep,
    stats,
    testing,
)
from golibx.config import Config
from golibx.eventbatch import EventBatch
from golibx.hookspec import (
    DeadlockFound,
    GilWait,
    GomaxprocsChange,
    GoroutineBlock,
    GoroutineCreate,
    GoroutineExit,
    GoroutinePanic,
    GoroutinePark,
    GoroutineReady,
    GoroutineRun,
    GoroutineStart,
    GoroutineUnblock,
    NetpollReady,
    Preempt,
    Retake,
    Steal,
    SysmonTick,
    Tune,
    hookimpl,
)
from golibx.pluginmanager import PluginManager
from golibx.testing import wait_until
from test_native import c, flag, library_path  # noqa: F401

GOLIBX_OK, GOLIBX_NOT_RUNNING = 0, -7
EVENT_HOOKS = [name for name in PluginManager.hook_names() if name.startswith("on_")]
LIFE = ("create", "start", "park", "ready", "exit")
NEEDS_NATIVE = pytest.mark.skipif(os.name != "posix", reason="native goroutines are for POSIX")

Record = Callable[..., list[Any]]


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    """Runs a function with a plugin for some events, and returns these; `into` has them sooner."""

    def run(
        main: Callable[[], object],
        *hooks: str,
        overrides: tuple[str, ...] = (),
        into: list[Any] | None = None,
        by: Callable[..., object] = golibx.run,
    ) -> list[Any]:
        events: list[Any] = [] if into is None else into

        def hook(name: str) -> Any:
            source = f"def {name}(event): events.append(event)"
            namespace: dict[str, Any] = {"events": events}
            exec(source, namespace)
            return hookimpl(namespace[name])

        plugin = SimpleNamespace(**{name: hook(name) for name in hooks})
        monkeypatch.setitem(sys.modules, "recorder", SimpleNamespace(plugin=plugin))
        options = ["plugins.enabled=recorder:plugin", "hooks.flush_interval=1ms", *overrides]
        by(main, config=Config.load(environ={}, overrides=options))
        return events

    return run


@pytest.fixture
def processors() -> Iterator[None]:
    before = gomaxprocs()
    yield
    gomaxprocs(before)


def hooks(*names: str) -> list[str]:
    return [f"on_goroutine_{name}" for name in names]


def of(events: list[Any], lane: str, goroutine_id: int) -> list[Any]:
    return [e for e in events if (e.lane, getattr(e, "goroutine_id", 0)) == (lane, goroutine_id)]


def until(condition: Callable[[], object]) -> None:
    """For what nothing reports; the test's limit ends it."""
    wait_until(condition)


def native_goroutines_end() -> None:
    """A call returns a little before the goroutine that it was made in has ended."""
    until(lambda: stats()["native_goroutines"] == 0)


# ---- the Python lane ----


def test_life_of_a_goroutine(record: Record) -> None:
    def main() -> None:
        ch = Chan[int]()
        goroutine = go(ch.recv)
        gosched()
        ch.send(1)
        goroutine.join()
        ids.append(goroutine.id)

    ids: list[int] = []
    events = record(main, *hooks(*LIFE))
    made, started, parked, woken, ended = of(events, "python", ids[-1])
    assert made[1:] == GoroutineCreate(0, "python", ids[-1], parent_id=1)[1:]
    assert started[1:] == GoroutineStart(0, "python", ids[-1], parent_id=1)[1:]
    assert parked[1:] == GoroutinePark(0, "python", ids[-1], "chan receive")[1:]
    assert woken[1:] == GoroutineReady(0, "python", ids[-1], waker_id=1)[1:]
    assert isinstance(ended, GoroutineExit)
    assert ended.outcome == "returned"
    assert 0 < ended.lifetime_ns <= ended.time_ns - started.time_ns + 1_000_000


def check_times(made: dict[int, int], spans: dict[int, tuple[int, int]]) -> None:
    """They are told to some microseconds: the kernel may be changing the pace of its clock."""
    assert spans.keys() <= made.keys()
    for number, (before, after) in spans.items():
        assert before - 5_000 <= made[number] <= after + 5_000


def test_times_are_those_of_the_monotonic_clock(record: Record) -> None:
    def main() -> None:
        for _ in range(500):
            before = time.monotonic_ns()
            goroutine = go(int)
            spans[goroutine.id] = before, time.monotonic_ns()
            goroutine.join()
            if goroutine.id % 50 == 0:
                sleep(0.003)  # and what came before is delivered

    spans: dict[int, tuple[int, int]] = {}
    events = record(main, *hooks("create", "exit"))
    check_times(
        {e.goroutine_id: e.time_ns for e in events if isinstance(e, GoroutineCreate)}, spans
    )
    times = [e.time_ns for e in events]
    assert times == sorted(times)


def test_who_wakes_by_a_timer_is_nobody(record: Record) -> None:
    events = record(lambda: go(sleep, 0.002).join(), *hooks("park", "ready"))
    (parked,) = [e for e in events if isinstance(e, GoroutinePark) and e.reason == "sleep"]
    woken = [e for e in events if isinstance(e, GoroutineReady)]
    assert [e.waker_id for e in woken if e.goroutine_id == parked.goroutine_id] == [0]


def test_who_is_new_or_woken_runs(record: Record) -> None:
    def main() -> None:
        ch = Chan[int]()
        goroutine = go(ch.recv)
        gosched()
        ch.send(1)
        goroutine.join()
        ids.append(goroutine.id)

    ids: list[int] = []
    events = record(main, *hooks(*LIFE, "run"))
    life = of(events, "python", ids[-1])
    assert [type(e) for e in life] == [
        GoroutineCreate,
        GoroutineRun,
        GoroutineStart,
        GoroutinePark,
        GoroutineReady,
        GoroutineRun,
        GoroutineExit,
    ]
    _, first, _, parked, _, second, _ = life
    assert first.waited_ns > 0
    assert 0 < second.waited_ns < second.time_ns - parked.time_ns


def test_turns_are_told_once_wherever_the_goroutine_runs(record: Record) -> None:
    """On whichever thread: locked to one, in a blocking call, computing, with a priority."""

    def work(number: int) -> None:
        if number == 0:
            golibx.lock_os_thread()
        golibx.current().priority = ("low", "normal", "high")[number % 3]
        for i in range(20):
            if i % 4 == 0:
                sleep(0.0001)
            elif i % 4 == 1:
                time.sleep(0.0005)
            elif i % 4 == 2:
                ch.send(i)
            else:
                ch.recv()

    def main() -> None:
        group = WaitGroup()
        for number in range(6):
            group.go(work, number)
        group.wait()

    ch = Chan[int](6)
    events = record(main, *hooks("create", "ready", "run"))
    waits: dict[int, bool] = {1: True}  # the making of the main goroutine is not reported
    ran: dict[int, int] = {}
    for e in events:
        if isinstance(e, GoroutineRun):
            assert waits[e.goroutine_id]
            assert ran.get(e.goroutine_id, 0) < e.time_ns - e.waited_ns
            ran[e.goroutine_id] = e.time_ns
        else:
            assert not waits.get(e.goroutine_id, False)
        waits[e.goroutine_id] = not isinstance(e, GoroutineRun)
    assert len(ran) == 7
    assert not any(waits.values())


def test_a_turn_in_virtual_time_waits_in_real_time(record: Record) -> None:
    def main() -> None:
        for _ in range(3):
            go(sleep, 3600).join()

    events = record(main, *hooks("run"), by=partial(testing.run, virtual_time=True))
    assert len(events) > 6
    assert all(0 <= e.waited_ns < 3_600_000_000_000 for e in events)


def until_retaken(block: Callable[[], object]) -> None:
    before = stats()["retakes"]
    while stats()["retakes"] == before:  # the call's slice may end first
        block()


def check_blocks(events: list[Any]) -> list[GoroutineBlock]:
    """The calls of one goroutine that cost it its processor; it has come back from each."""
    blocks, unblocks = events[::2], events[1::2]
    for block, unblock in zip(blocks, unblocks, strict=True):
        assert isinstance(block, GoroutineBlock)
        assert isinstance(unblock, GoroutineUnblock)
        assert block.lane == unblock.lane == "python"
        assert 0 < block.blocked_ns <= unblock.blocked_ns
        assert unblock.waited_ns < unblock.time_ns - block.time_ns
    return blocks


def test_blocking_calls_have_names(record: Record) -> None:
    lock = threading.Lock()

    def sleeps() -> None:
        until_retaken(lambda: time.sleep(0.005))

    def enters() -> None:
        with lock:
            pass

    def main() -> None:
        first = go(sleeps)
        first.join()
        lock.acquire()
        second = go(enters)
        before = stats()["retakes"]
        until(lambda: stats()["retakes"] > before)
        lock.release()
        second.join()
        ids.extend((first.id, second.id))

    ids: list[int] = []
    events = record(main, *hooks("block", "unblock"))
    for goroutine_id, function, code in (
        (ids[0], "time.sleep", sleeps.__code__),
        (ids[1], "lock.__enter__", enters.__code__),
    ):
        block = check_blocks(of(events, "python", goroutine_id))[-1]
        assert block.function == function
        file, _, rest = block.place.rpartition(":")
        line, _, name = rest.partition(" in ")
        assert file == code.co_filename
        assert 0 < int(line) - code.co_firstlineno < 3 or "lambda" in name
        assert name.startswith(code.co_qualname)


def test_a_processor_that_is_given_up(record: Record) -> None:
    def main() -> None:
        golibx.blocking(time.sleep, 0.002)

    (block,) = check_blocks(record(main, *hooks("block", "unblock")))
    assert block.function == "golibx.blocking"


def test_blocks_have_their_ends_where_goroutines_end_blocked(record: Record) -> None:
    """Each that has lost its processor has it back, or ends, as it takes no more calls."""

    def main() -> None:
        group = WaitGroup()
        for _ in range(20):
            group.go(time.sleep, 0.01)
        group.wait()

    events = record(main, *hooks("block", "unblock"))
    assert events
    for goroutine_id in {e.goroutine_id for e in events}:
        blocks = check_blocks(of(events, "python", goroutine_id))
        # No code of Python's calls it, unless it is the main goroutine.
        assert goroutine_id == 1 or {(e.function, e.place) for e in blocks} == {("", "")}


def holding_the_gil(until_there_is: list[Any]) -> threading.Thread:
    """A thread that holds it for 3 ms at a time."""
    usleep = ctypes.PyDLL(None).usleep

    def hold() -> None:
        while not until_there_is:
            usleep(3_000)

    thread = threading.Thread(target=hold)
    thread.start()
    return thread


def test_waits_for_the_gil(record: Record) -> None:
    """A thread holds it again and again while the main goroutine's sleep is over."""
    events: list[Any] = []

    def main() -> None:
        thread = holding_the_gil(events)
        until(lambda: events)
        thread.join()

    record(main, "on_gil_wait", into=events)
    assert {type(e) for e in events} == {GilWait}
    assert all(e.lane == "python" and e.waited_ns >= 1_000_000 for e in events)
    # Only one that was offered is on behalf of a goroutine.
    assert all(e.goroutine_id == 0 or e.offered for e in events)


def test_short_waits_for_the_gil_are_no_events(record: Record) -> None:
    done: list[bool] = []

    def main() -> None:
        thread = holding_the_gil(done)
        for _ in range(20):
            sleep(0.001)
        done.append(True)
        thread.join()

    assert record(main, "on_gil_wait", overrides=("hooks.gil_wait_min=10s",)) == []


def test_service_goroutines_make_no_events(record: Record) -> None:
    """The pump is one: its own waits would never come to an end."""

    def main() -> None:
        for _ in range(5):
            sleep(0.005)

    events = record(main, *hooks(*LIFE))
    assert {(type(e), e.goroutine_id) for e in events} == {(GoroutinePark, 1), (GoroutineReady, 1)}
    # Five sleeps, and the wait for the pump, which is over with the events.
    assert sum(isinstance(e, GoroutinePark) and e.reason == "sleep" for e in events) == 5


class Oops(Exception):
    pass


def test_panic(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise Oops("first line\nsecond line")

    def collected() -> None:
        goroutine = go(fail)
        with pytest.raises(Oops):
            goroutine.result()

    def main() -> None:
        collected()
        gone = WaitGroup()
        gone.go(fail)
        gone.wait()

    (event,) = record(main, *hooks("panic"))
    assert isinstance(event, GoroutinePanic)
    assert event.exception == "test_events.Oops: first line\nsecond line"
    assert event.lane == "python"
    assert "panicked" in capsys.readouterr().err


def test_a_panic_whose_event_is_dropped_leaves_nothing(
    record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise Oops("x" * 100)

    def main() -> None:
        # Without a wait in between, for the pump would have its turn.
        found.append([golibx._core.record_panic(7, "x") for _ in range(100)])

    found: list[list[bool]] = []
    events = record(main, *hooks("panic"), overrides=("hooks.ring_size=64",))
    assert found == [[True] * 64 + [False] * 36]
    assert len(events) == 64


def test_deadlock(record: Record) -> None:
    def main() -> None:
        go(Chan[int]().recv)
        with pytest.raises(Deadlock):
            Chan[int]().recv()

    (event,) = record(main, "on_deadlock")
    assert event[1:] == DeadlockFound(0, "python", 1, goroutines=2)[1:]


def test_sysmon_tick(record: Record) -> None:
    def main() -> None:
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass

    events = record(main, "on_sysmon_tick")
    assert {type(e) for e in events} == {SysmonTick}
    assert all(e.slept_ns > 0 and e.idle_rounds >= 0 for e in events)
    assert any(e.lane == "python" for e in events)


def test_nothing_is_recorded_without_a_plugin() -> None:
    def main() -> dict[str, int]:
        go(sleep, 0.001).join()
        native.call(ctypes.CDLL(native.library()).golibx_gosched)
        return stats()

    found = golibx.run(main)
    assert (found["events_recorded"], found["events_dropped"]) == (0, 0)


# ---- by the batch ----


class Taker:
    """Takes events by the batch; `events` is for a plugin that is given them one by one."""

    takes = tuple(EVENT_HOOKS)

    def __init__(self) -> None:
        self.batches: list[EventBatch] = []
        self.events: list[Any] = []

    @hookimpl
    def take_events(self, batch: EventBatch) -> None:
        self.batches.append(batch)

    @hookimpl
    def golib_stop(self, runtime: Any) -> None:
        self.counted = runtime.stats()

    def taken(self) -> list[Any]:
        return [event for batch in self.batches for event in batch]


def run_taking(
    main: Callable[[], object],
    monkeypatch: pytest.MonkeyPatch,
    *overrides: str,
    also_single: bool = False,
    takes: tuple[str, ...] = Taker.takes,
) -> Taker:
    taker = Taker()
    taker.takes = takes
    single = {name: single_hook(name, taker.events) for name in takes if also_single}
    plugins = {"taker": taker, "single": SimpleNamespace(**single)}
    monkeypatch.setitem(sys.modules, "taking", SimpleNamespace(**plugins))
    enabled = "taking:taker,taking:single" if also_single else "taking:taker"
    options = [f"plugins.enabled={enabled}", "hooks.flush_interval=1ms", *overrides]
    golibx.run(main, config=Config.load(environ={}, overrides=options))
    return taker


def single_hook(name: str, events: list[Any]) -> Any:
    def hook(event: object) -> None:
        events.append(event)

    hook.__name__ = name
    return hookimpl(hook)


def test_batches_have_what_single_hooks_are_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise Oops("in a goroutine")

    def main() -> None:
        group = WaitGroup()
        group.go(fail)
        for _ in range(20):
            group.go(sleep, 0.0005)
            group.go(until_retaken, lambda: time.sleep(0.001))
        group.wait()
        golibx.tune({"preempt.slice": "2ms"})
        ch = Chan[int]()
        goroutine = go(lambda: [ch.send(i) for i in range(3000)])
        for _ in range(3000):
            ch.recv()
        goroutine.join()

    taker = run_taking(main, monkeypatch, "hooks.ring_size=65536", also_single=True)
    taken = taker.taken()
    assert taken == taker.events
    # What happens while the last hooks are called is recorded, and not delivered. On a busy machine
    # that is more.
    recorded = taker.counted["events_recorded"] + taker.counted["native_events_recorded"]
    assert recorded - 1000 < len(taken) <= recorded
    assert taker.counted["events_dropped"] == 0
    assert {GoroutinePanic, GoroutineBlock, GoroutineUnblock, Tune} <= {type(e) for e in taken}
    times = [e.time_ns for e in taken]
    assert times == sorted(times)
    assert "panicked" in capsys.readouterr().err


@pytest.mark.parametrize("ring_size", [64, 65536])
def test_what_batches_have_and_what_is_dropped_is_all(
    monkeypatch: pytest.MonkeyPatch, ring_size: int
) -> None:
    def main() -> None:
        for _ in range(40):
            group = WaitGroup()
            for _ in range(100):
                group.go(int)
            group.wait()

    takes = tuple(hooks("create", "start", "exit"))
    taker = run_taking(main, monkeypatch, f"hooks.ring_size={ring_size}", takes=takes)
    taken, dropped = sum(map(len, taker.batches)), taker.counted["events_dropped"]
    assert taken == taker.counted["events_recorded"]
    assert taken + dropped == 3 * 40 * 100
    assert (dropped > 0) == (ring_size == 64)


def test_a_ring_that_is_half_full_is_emptied_before_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise nothing would be taken for ten seconds, and most be dropped."""

    def main() -> None:
        ch = Chan[int]()
        goroutine = go(lambda: [ch.send(i) for i in range(20_000)])
        for _ in range(20_000):
            ch.recv()
        goroutine.join()

    overrides = ("hooks.ring_size=4096", "hooks.flush_interval=10s", "preempt.async=false")
    takes = tuple(hooks("park", "ready"))
    taker = run_taking(main, monkeypatch, *overrides, takes=takes)
    assert taker.counted["events_dropped"] == 0
    assert len(taker.batches) > 4
    assert 20_000 < sum(map(len, taker.batches)) <= taker.counted["events_recorded"]


def test_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        for _ in range(20):
            go(int).join()

    taker = run_taking(main, monkeypatch, takes=tuple(hooks("create", "exit")))
    for batch in taker.batches:
        events = [*batch]
        assert (batch.first_ns, batch.last_ns) == (events[0].time_ns, events[-1].time_ns)
        for event in events:
            later = [e for e in events if e.time_ns >= event.time_ns]
            assert [*batch.since(event.time_ns)] == later
        assert len(batch.since(0)) == len(batch)
        nothing = batch.since(batch.last_ns + 1)
        assert [*nothing] == []
        with pytest.raises(IndexError, match="has no events"):
            _ = nothing.first_ns


# ---- the native lane ----


@NEEDS_NATIVE
def test_life_of_a_native_goroutine(record: Record, c: ctypes.CDLL) -> None:  # noqa: F811
    def main() -> None:
        cell = flag()
        goroutine = native.go(c.sleep_while_zero, ctypes.byref(cell))
        ids.append(goroutine.id)
        before = stats()["native_timer_fires"]
        until(lambda: stats()["native_timer_fires"] > before)
        cell.value = 1
        goroutine.join()
        native_goroutines_end()

    ids: list[int] = []
    events = record(main, *hooks(*LIFE))
    made, started, *waits, ended = of(events, "native", ids[-1])
    assert made[1:] == GoroutineCreate(0, "native", ids[-1], parent_id=0)[1:]
    assert started[1:] == GoroutineStart(0, "native", ids[-1], parent_id=0)[1:]
    assert waits
    for parked, woken in zip(waits[::2], waits[1::2], strict=True):
        assert parked[1:] == GoroutinePark(0, "native", ids[-1], "sleep")[1:]
        assert woken[1:] == GoroutineReady(0, "native", ids[-1], waker_id=0)[1:]
    assert isinstance(ended, GoroutineExit)
    assert ended.outcome == "returned"
    assert 0 < ended.lifetime_ns <= ended.time_ns - started.time_ns + 1_000_000


@NEEDS_NATIVE
def test_native_times_are_those_of_the_monotonic_clock(
    record: Record,
    c: ctypes.CDLL,  # noqa: F811
) -> None:
    def main() -> None:
        cell = flag()
        cell.value = 1
        for number in range(500):
            before = time.monotonic_ns()
            goroutine = native.go(c.sleep_while_zero, ctypes.byref(cell))
            spans[goroutine.id] = before, time.monotonic_ns()
            goroutine.join()
            if number % 50 == 0:
                sleep(0.003)

    spans: dict[int, tuple[int, int]] = {}
    events = record(main, *hooks("create", "exit"))
    native_ones = [e for e in events if isinstance(e, GoroutineCreate) and e.lane == "native"]
    check_times({e.goroutine_id: e.time_ns for e in native_ones}, spans)
    times = [e.time_ns for e in events]
    assert times == sorted(times)


@NEEDS_NATIVE
def test_native_goroutines_have_parents_and_wakers(
    record: Record,
    c: ctypes.CDLL,  # noqa: F811
    processors: None,
) -> None:
    def main() -> None:
        gomaxprocs(1)  # with two, the children may have ended before another waits for them
        native.call(c.start_many, 3)
        native_goroutines_end()

    events = record(main, *hooks(*LIFE))
    natives = [e for e in events if e.lane == "native"]
    parent, *children = [e.goroutine_id for e in natives if isinstance(e, GoroutineCreate)]
    assert len(children) == 3
    for kind in (GoroutineCreate, GoroutineStart):
        assert [e.parent_id for e in natives if isinstance(e, kind)] == [0, parent, parent, parent]
    assert [e.reason for e in natives if isinstance(e, GoroutinePark)] == ["waitgroup wait"]
    (woken,) = [e for e in natives if isinstance(e, GoroutineReady)]
    assert woken.goroutine_id == parent
    assert woken.waker_id in children


@NEEDS_NATIVE
def test_native_preempt(record: Record, c: ctypes.CDLL, processors: None) -> None:  # noqa: F811
    def main() -> None:
        gomaxprocs(1)
        cell = flag()
        hogs = [native.go(c.spin_while_zero, ctypes.byref(cell)) for _ in range(2)]
        before = stats()
        until(lambda: preemptions(stats()) >= preemptions(before) + 3)
        cell.value = 1
        for hog in hogs:
            hog.join()
        ids.extend(hog.id for hog in hogs)

    def preemptions(now: dict[str, int]) -> int:
        return sum(now[f"native_preempt_{way}"] for way in ("yields", "klt", "coop"))

    ids: list[int] = []
    # The native lane keeps the settings of the run that used it first: that of a test without
    # preemption, perhaps.
    stop = ctypes.CDLL(native.library()).golibx_stop
    stop.argtypes = (ctypes.c_int64,)
    assert stop(2**63 - 1) in (GOLIBX_OK, GOLIBX_NOT_RUNNING)
    events = record(main, "on_preempt", overrides=("preempt.slice=2ms",))
    natives = [e for e in events if isinstance(e, Preempt) and e.lane == "native"]
    assert len(natives) >= 3
    assert {e.goroutine_id for e in natives} == set(ids)
    # This library's text is not registered: they stop with their threads.
    assert all(e.handed_off for e in natives)
    assert all(0 < e.ran_ns < 10_000_000_000 for e in natives)


@NEEDS_NATIVE
def test_native_steal(record: Record, c: ctypes.CDLL, processors: None) -> None:  # noqa: F811
    def main() -> None:
        gomaxprocs(4)
        before = stats()["steals"]
        while stats()["steals"] < before + 5:
            native.call(c.start_many, 500)
        stolen.append(stats()["steals"] - before)

    stolen: list[int] = []
    events = record(main, "on_steal")
    assert {type(e) for e in events} == {Steal}
    for e in events:
        assert e.lane == "native"
        assert e.processor != e.victim
        assert 0 <= e.processor < 64
        assert 0 <= e.victim < 64
        assert 1 <= e.stolen <= 128
        assert e.goroutine_id > 0
    assert sum(e.stolen for e in events) >= stolen[0]


@NEEDS_NATIVE
def test_native_retake(record: Record, c: ctypes.CDLL) -> None:  # noqa: F811
    def main() -> None:
        read_end, write_end = os.pipe()
        before = stats()["native_events_recorded"]
        goroutine = native.go(c.block_in_read, read_end)
        until(lambda: stats()["native_events_recorded"] > before)
        os.write(write_end, b"x")
        goroutine.join()
        os.close(read_end)
        os.close(write_end)
        ids.append(goroutine.id)

    ids: list[int] = []
    events = [e for e in record(main, "on_retake") if e.lane == "native"]
    (event,) = events
    assert isinstance(event, Retake)
    assert event.goroutine_id == ids[0]
    assert 20_000 <= event.blocked_ns < 10_000_000_000
    assert not event.in_vain


@NEEDS_NATIVE
def test_native_netpoll_ready(record: Record, c: ctypes.CDLL) -> None:  # noqa: F811
    def main() -> None:
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        goroutine = native.go(c.wait_readable, read_end)
        os.write(write_end, b"x")
        goroutine.join()
        fds.append(read_end)
        parked.append(goroutine.id)
        os.close(read_end)
        os.close(write_end)

    fds: list[int] = []
    parked: list[int] = []
    # The byte may be there before the goroutine waits: then there is no event.
    for _ in range(100):
        events = [e for e in record(main, "on_netpoll_ready") if e.lane == "native"]
        if events:
            break
    (event,) = events
    assert event[1:] == NetpollReady(0, "native", parked[-1], fds[-1], True, False)[1:]


@NEEDS_NATIVE
def test_gomaxprocs_change(record: Record, processors: None) -> None:
    def main() -> None:
        native.call(ctypes.CDLL(native.library()).golibx_gosched)
        before.append(gomaxprocs(3))
        gomaxprocs(3)
        gomaxprocs(5)

    before: list[int] = []
    gomaxprocs(2)
    events = record(main, "on_gomaxprocs")
    assert [e[1:] for e in events] == [
        GomaxprocsChange(0, "native", 2, 3)[1:],
        GomaxprocsChange(0, "native", 3, 5)[1:],
    ]


@NEEDS_NATIVE
def test_events_of_both_lanes_are_in_order(
    record: Record,
    c: ctypes.CDLL,  # noqa: F811
    processors: None,
) -> None:
    def main() -> None:
        gomaxprocs(4)
        group = WaitGroup()
        for _ in range(4):
            group.go(lambda: [native.call(c.start_many, 200) for _ in range(10)])
        group.wait()
        native_goroutines_end()

    # Each goroutine has three events at least, and the pump may not run for a while. What is left
    # at the run's end may take longer than it waits for that.
    overrides = ("hooks.ring_size=131072", "runtime.shutdown_timeout=1m")
    events = record(main, *EVENT_HOOKS, overrides=overrides)
    times = [e.time_ns for e in events]
    assert times == sorted(times)
    assert {e.lane for e in events} == {"python", "native"}
    # What a goroutine does comes in the order in which it did it.
    born: dict[tuple[str, int], list[type]] = {}
    for e in events:
        if isinstance(e, GoroutineCreate | GoroutineStart | GoroutineExit):
            born.setdefault((e.lane, e.goroutine_id), []).append(type(e))
    assert {tuple(life) for life in born.values()} == {
        (GoroutineCreate, GoroutineStart, GoroutineExit)
    }
    assert len(born) == 4 + 40 * 201


@NEEDS_NATIVE
def test_native_events_are_delivered_or_counted(record: Record, c: ctypes.CDLL) -> None:  # noqa: F811
    """Without a plugin that waits in its hook: what does not fit is dropped and counted."""

    def main() -> None:
        native.call(c.start_many, 5000)
        native_goroutines_end()
        figures.append(stats())

    figures: list[dict[str, int]] = []
    # The native lane's rings are of the size that it was first used with, which is larger.
    events = record(main, *hooks("create", "start", "exit"))
    (found,) = figures
    natives = [e for e in events if e.lane == "native"]
    assert found["native_events_dropped"] == 0
    assert len(natives) == 3 * 5001
    assert found["native_events_recorded"] == len(natives)


SMALL_RINGS = """
import sys
from golibx import run, stats
from golibx.config import Config
from golibx.hookspec import hookimpl

count = 0
@hookimpl
def on_goroutine_start(event):
    global count
    count += event.lane == "native"
@hookimpl
def on_goroutine_create(event): on_goroutine_start(event)

sys.modules["counter"] = sys.modules[__name__]
def main():
    native.call(c.start_many, 5000)
    return stats()
config = Config.load(environ={}, overrides=["plugins.enabled=counter", "hooks.ring_size=64"])
for _ in range(2):
    count = 0
    found = run(main, config=config)
    dropped, recorded = found["native_events_dropped"], found["native_events_recorded"]
    print(dropped > 5000, dropped + recorded == 2 * 5001, found["events_dropped"] == dropped)
    print(count == recorded)
"""


@NEEDS_NATIVE
def test_events_that_find_a_ring_full_are_counted(
    script: Script,
    library_path: Any,  # noqa: F811
) -> None:
    head = f"import ctypes\nfrom golibx import native\nc = ctypes.CDLL({str(library_path)!r})\n"
    lines = script.passes(head + SMALL_RINGS).splitlines()
    assert lines == ["True True True", "True"] * 2


@NEEDS_NATIVE
@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc for the memory")
def test_a_flood_arrives_or_is_counted(script: Script, library_path: Path) -> None:  # noqa: F811
    """As many as the machine can make; ten seconds of it are a part of `make soak`."""
    flood = Path(__file__).with_name("flood.py")
    result = script(flood, "0.5", str(library_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "native: " in result.stdout


@NEEDS_NATIVE
def test_a_run_does_not_see_another_one_s_events(record: Record, c: ctypes.CDLL) -> None:  # noqa: F811
    cell = flag()
    outlives: list[native.NativeGoroutine] = []

    def first() -> None:
        outlives.append(native.go(c.sleep_while_zero, ctypes.byref(cell)))

    def second() -> None:
        began.append(time.monotonic_ns())
        cell.value = 1
        outlives[0].join()
        native.call(c.start_many, 2)
        native_goroutines_end()

    began: list[int] = []
    record(first, *EVENT_HOOKS, overrides=("runtime.shutdown_timeout=0s",))
    native.call(c.start_many, 2)  # between runs: no plugin wants them
    golibx.run(lambda: native.call(c.start_many, 2))  # a run without plugins
    events = record(second, *hooks(*LIFE))
    assert min(e.time_ns for e in events) > began[0] - 1_000_000_000
    natives = [e for e in events if e.lane == "native"]
    old = outlives[0].id
    # It started in another run, so its end is not reported.
    assert {type(e) for e in of(natives, "native", old)} <= {GoroutinePark, GoroutineReady}
    made = {e.goroutine_id for e in natives if isinstance(e, GoroutineCreate)}
    assert len(made) == 3
    assert {e.goroutine_id for e in natives} <= made | {old}
    ended = [e.goroutine_id for e in natives if isinstance(e, GoroutineExit)]
    assert set(ended) == made


@NEEDS_NATIVE
def test_a_plugin_that_fails_ends_its_events(
    record: Record,
    c: ctypes.CDLL,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @hookimpl
    def on_goroutine_create(event: GoroutineCreate) -> None:
        raise Oops("no")

    def records() -> bool:
        before = stats()["native_events_recorded"]
        native.call(c.start_many, 100)
        return stats()["native_events_recorded"] != before

    def main() -> bool:
        assert records()
        until(lambda: not records())
        return any(records() for _ in range(10))

    plugin = SimpleNamespace(on_goroutine_create=on_goroutine_create)
    monkeypatch.setitem(sys.modules, "failing", SimpleNamespace(plugin=plugin))
    options = ["plugins.enabled=failing:plugin", "hooks.flush_interval=1ms"]
    assert not golibx.run(main, config=Config.load(environ={}, overrides=options))
    assert capsys.readouterr().err.count("plugin plugin raised in on_goroutine_create") == 1


FORK = """
import os, sys
import golibx
from golibx import run, stats
from golibx.config import Config
from golibx.hookspec import hookimpl

seen = []
@hookimpl
def on_goroutine_exit(event): seen.append((event.lane, event.outcome))

sys.modules["counter"] = sys.modules[__name__]
config = Config.load(environ={}, overrides=["plugins.enabled=counter"])
def main():
    native.call(c.start_many, 2)
    while stats()["native_goroutines"]: golibx.sleep(0.001)
run(main, config=config)
parent = len(seen)
seen.clear()
pid = os.fork()
run(main, config=config)
if pid == 0:
    print("child", len(seen) == parent == 3, flush=True)
    os._exit(0)  # faulthandler's thread, which a script of the tests has, is not in the child
os.waitpid(pid, 0)
print("parent", len(seen) == parent)
"""


@NEEDS_NATIVE
def test_events_in_the_child_of_a_fork(script: Script, library_path: Any) -> None:  # noqa: F811
    head = f"import ctypes\nfrom golibx import native\nc = ctypes.CDLL({str(library_path)!r})\n"
    assert script.passes(head + FORK).splitlines() == ["child True", "parent True"]


NATIVE_WAIT = """
class Config(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32), ("numbers", ctypes.c_uint32 * 3), ("sizes", ctypes.c_uint64 * 8),
        ("detect_deadlock", ctypes.c_uint32),
    ]
lib = ctypes.CDLL(native.library())
config = Config(size=ctypes.sizeof(Config), detect_deadlock=1)
assert lib.golibx_start(ctypes.byref(config)) == 0
ch = native.Chan(ctypes.c_int)
receives = native.go(c.receive, ch)
while golibx.stats()["native_procs_idle"] < golibx.gomaxprocs(): time.sleep(0.001)
time.sleep(0.4)  # sysmon looks after some 30 ms, and then ten times a second
ch.send(1)
print(receives.join(10))
"""


@NEEDS_NATIVE
def test_native_goroutines_that_wait_for_python_are_no_deadlock(
    script: Script,
    library_path: Any,  # noqa: F811
) -> None:
    head = (
        "import ctypes, time, golibx\nfrom golibx import native\n"
        f"c = ctypes.CDLL({str(library_path)!r})\n"
    )
    assert script.passes(head + NATIVE_WAIT) == "True\n"
