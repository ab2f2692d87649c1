"""What changes while a run goes on: `_core.tune()`. What it did is told by counters and events.

Most of these would never end, or only after the minute that a slice takes, without the change.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import golibx
from golibx import _core, go, gosched, native, stats
from golibx.hookspec import SysmonTick
from golibx.schema import SCHEMA, Key
from golibx.values import parse_duration
from test_events import Record, record  # noqa: F401
from test_native import c, library_path  # noqa: F401

KEYS = {f"{table.name}.{key.name}": key for table in SCHEMA for key in table.keys if key.tunable}
DEFAULTS = _core.tunables()
MS = 1_000_000
ASLEEP = ("sysmon.sleep_min=500ms", "sysmon.sleep_max=10s")
AWAKE = {"sysmon.sleep_min": 20_000, "sysmon.sleep_max": 10 * MS}


def number(key: Key, value: object) -> int:
    return parse_duration(value) if isinstance(value, str) else int(str(value))


def limit_of(path: str) -> str:
    table, _, _ = path.partition(".")
    return f"{table}.{KEYS[path].at_most}"


def in_run(main: Callable[[], object], **config: dict[str, object]) -> Any:
    return golibx.run(main, config=config)


# ---- reading, and what is refused ----


def test_every_tunable_key_is_there_with_its_default() -> None:
    defaults = {path: number(key, key.default) for path, key in KEYS.items()}
    assert in_run(_core.tunables) == defaults == DEFAULTS


@pytest.mark.parametrize("path", KEYS)
def test_each_can_be_changed_to_the_ends_of_its_range(path: str) -> None:
    key = KEYS[path]
    values = [number(key, key.low), number(key, key.high)] + ([0] if key.zero else [])
    # One that it must not exceed, or that must not exceed it, is first moved out of its way.
    makes_room = {}
    for other, k in KEYS.items():
        if other == limit_of(path):
            makes_room[other] = number(k, k.high)
        if limit_of(other) == path:
            makes_room[other] = number(k, k.low)

    def main() -> None:
        assert _core.tune(makes_room) == {other: DEFAULTS[other] for other in makes_room}
        expected = {**DEFAULTS, **makes_room}
        for value in values:
            assert _core.tune({path: value}) == {path: expected[path]}
            expected[path] = value
            assert _core.tunables() == expected

    in_run(main)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"preempt.slice": 9_999}, ValueError, "9999 ns: allowed are 10us to 1m"),
        ({"preempt.slice": 60_000_000_001}, ValueError, "60000000001 ns: allowed are 10us to 1m"),
        ({"preempt.slice": 0}, ValueError, "preempt.slice cannot be 0 ns: allowed are 10us to 1m"),
        ({"preempt.slice": -1}, ValueError, "preempt.slice cannot be -1 ns: allowed are"),
        ({"preempt.slice": 1 << 70}, ValueError, f"cannot be {1 << 70} ns: allowed are"),
        ({"preempt.slice": 1.5}, TypeError, "preempt.slice cannot be 1.5: an int, of 10us to 1m"),
        ({"preempt.slice": "2ms"}, TypeError, "preempt.slice cannot be '2ms': an int"),
        ({"preempt.slice": True}, TypeError, "preempt.slice cannot be True: an int"),
        ({"native.spinning": 101}, ValueError, "native.spinning cannot be 101: allowed are 1 to"),
        ({"runtime.spin": 5}, ValueError, "5 ns: allowed are 1us to 1ms, or 0: sleep at once"),
        (
            {"retake.threshold": 20 * MS},
            ValueError,
            "retake.threshold cannot be 20000000 ns: more than retake.threshold_idle, which is 1",
        ),
        (
            {"sysmon.sleep_max": 5_000},
            ValueError,
            "sysmon.sleep_max cannot be 5000 ns: less than sysmon.sleep_min, which is 20000 ns",
        ),
        ({"preempt.slize": 1}, ValueError, "'preempt.slize' cannot change while a run goes on;"),
        ({"preempt.async": 1}, ValueError, "these can: runtime.offer_interval, "),
        ({"\udcff": 1}, ValueError, "cannot change while a run goes on"),
        ({5: 1}, ValueError, "5 cannot change while a run goes on"),
        ([5], TypeError, r"a dict of ints by key, not \[5\]"),
        # All or nothing, whichever comes first.
        ({"preempt.slice": MS, "native.spinning": 0}, ValueError, "native.spinning cannot be 0"),
        ({"native.spinning": 1, "preempt.slice": 1}, ValueError, "preempt.slice cannot be 1 ns"),
    ],
)
def test_what_is_refused_changes_nothing(changes: Any, error: type[Exception], text: str) -> None:
    def main() -> None:
        with pytest.raises(error, match=text):
            _core.tune(changes)
        assert _core.tunables() == DEFAULTS

    in_run(main)


def test_a_run_begins_with_what_its_configuration_says() -> None:
    def main() -> int:
        slice_ns = _core.tunables()["preempt.slice"]
        _core.tune({"preempt.slice": 7 * MS})
        return slice_ns

    assert in_run(main, preempt={"slice": "3ms"}) == 3 * MS
    assert in_run(main) == DEFAULTS["preempt.slice"]


def test_nothing_changes_where_nothing_runs(script: Any) -> None:
    program = """
from golibx import _core
try:
    _core.tune({"preempt.slice": 1_000_000})
except RuntimeError as exc:
    print(exc)
"""
    said = "no runtime is running: a run begins with what its configuration says\n"
    assert script.passes(program) == said


# ---- preemption ----

# While another thread has the GIL it looks as if the goroutine was in a blocking call.
ONLY_PREEMPTED: dict[str, dict[str, object]] = {
    "preempt": {"slice": "1m"},
    "retake": {"enabled": False},
}


def change_in_sleep(ticks: list[SysmonTick], lane: str) -> int:
    """Changes what sysmon sleeps by, when it has begun a new sleep, and tells when that was."""
    while not any(e.lane == lane for e in ticks):
        gosched()
    now_ns = time.monotonic_ns()
    _core.tune({"preempt.slice": MS, **AWAKE})
    return now_ns


def slept_at(ticks: list[SysmonTick], lane: str, time_ns: int) -> int:
    """How long the sleep took that sysmon was in then."""
    return next(e.slept_ns for e in ticks if e.lane == lane and e.time_ns > time_ns)


def spin_until(flag: list[bool]) -> None:
    while not flag:
        pass


def preempted() -> int:
    counters = stats()
    return counters["preemptions"] + counters["handoffs"]


def test_a_slice_ends_sooner_that_a_goroutine_made_shorter() -> None:
    def main() -> None:
        seen: list[bool] = []
        go(seen.append, True)
        assert preempted() == 0
        assert _core.tune({"preempt.slice": MS}) == {"preempt.slice": 60_000 * MS}
        spin_until(seen)
        assert preempted() > 0

    in_run(main, **ONLY_PREEMPTED)


def test_a_slice_ends_sooner_that_a_thread_made_shorter() -> None:
    """The goroutine computes all the while."""

    def main() -> None:
        seen: list[bool] = []
        spins = threading.Event()

        def change() -> None:
            spins.wait()
            assert preempted() == 0
            _core.tune({"preempt.slice": MS})

        thread = threading.Thread(target=change)
        thread.start()
        go(seen.append, True)
        spins.set()
        spin_until(seen)
        assert preempted() > 0
        thread.join()

    in_run(main, **ONLY_PREEMPTED)


def test_sysmon_is_woken_from_a_sleep_that_is_too_long(record: Record) -> None:  # noqa: F811
    def main() -> None:
        seen: list[bool] = []
        changed_ns.append(change_in_sleep(ticks, "python"))
        go(seen.append, True)
        spin_until(seen)

    ticks: list[SysmonTick] = []
    changed_ns: list[int] = []
    record(main, "on_sysmon_tick", overrides=("preempt.slice=1m", *ASLEEP), into=ticks)
    assert slept_at(ticks, "python", changed_ns[0]) < 500 * MS


def test_sysmon_s_sleeps_grow_after_so_many_rounds(record: Record) -> None:  # noqa: F811
    def main() -> None:
        while not longest():
            gosched()

    def longest() -> list[SysmonTick]:
        return [e for e in ticks if e.lane == "python" and e.slept_ns >= 16 * 200_000]

    ticks: list[SysmonTick] = []
    overrides = ("preempt.slice=1m", "sysmon.sleep_min=200us", "sysmon.idle_rounds=2")
    record(main, "on_sysmon_tick", overrides=overrides, into=ticks)
    # By default it takes 50 rounds until they begin to grow.
    assert min(e.idle_rounds for e in longest()) < 50


def test_native_goroutines_have_the_new_slice(
    record: Record,  # noqa: F811
    c: ctypes.CDLL,  # noqa: F811
) -> None:
    def main() -> None:
        flag = ctypes.c_int32(0)
        hog = native.go(c.spin_while_zero, ctypes.byref(flag))
        native.go(c.store, ctypes.byref(flag))
        before = stats()["native_preempt_requests"]
        changed_ns.append(change_in_sleep(ticks, "native"))
        hog.join()
        assert stats()["native_preempt_requests"] > before

    ticks: list[SysmonTick] = []
    changed_ns: list[int] = []
    overrides = ("preempt.slice=1m", "runtime.gomaxprocs=1", *ASLEEP)
    record(main, "on_sysmon_tick", overrides=overrides, into=ticks)
    assert slept_at(ticks, "native", changed_ns[0]) < 500 * MS


# ---- retake ----

LONG = ("retake.threshold=10s", "retake.threshold_idle=10s")
SHORT = {"retake.threshold": 20_000, "retake.threshold_idle": 10 * MS}


@pytest.mark.parametrize("who", ["goroutine", "thread"])
def test_a_blocking_call_loses_its_processor_by_the_new_threshold(
    record: Record,  # noqa: F811
    who: str,
) -> None:
    """By the old one it would, after ten seconds."""

    def main() -> None:
        reads, writes = os.pipe()
        before = stats()["retakes"]
        go(os.write, writes, b"x")
        thread = threading.Thread(target=_core.tune, args=(SHORT,))
        if who == "goroutine":
            _core.tune(SHORT)
        else:
            thread.start()
        assert os.read(reads, 1) == b"x"
        assert stats()["retakes"] > before
        if who == "thread":
            thread.join()
        os.close(reads)
        os.close(writes)

    retakes = record(main, "on_retake", overrides=LONG)
    assert retakes
    assert all(e.blocked_ns < 10_000 * MS for e in retakes)


# ---- the interpreter's lock ----


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 hands the GIL over in a swap")
def test_the_gil_is_offered_by_the_new_interval() -> None:
    def main() -> int:
        stop: list[bool] = []
        thread = threading.Thread(target=spin_until, args=(stop,))
        go(lambda: [gosched() for _ in iter(lambda: bool(stop), True)])
        thread.start()
        _core.tune({"runtime.offer_interval": 100_000})
        while stats()["lock_offers"] < 5:
            gosched()
        stop.append(True)
        thread.join()
        return stats()["lock_offers"]

    runtime: dict[str, object] = {"swap": "interpreter", "offer_interval": "10s"}
    assert in_run(main, runtime=runtime) >= 5


# ---- the network, and threads that wait for work ----


def test_sockets_are_looked_at_by_the_new_interval() -> None:
    """Two goroutines compute and give way, and never wait."""

    def main() -> int:
        with golibx.net.listen(("127.0.0.1", 0)) as listener:
            accepting = go(listener.accept)
            stop: list[bool] = []
            other = go(lambda: [gosched() for _ in iter(lambda: bool(stop), True)])
            gosched()
            _core.tune({"netpoll.interval": 100_000})
            before = stats()["netpolls"]
            while stats()["netpolls"] < before + 5:
                gosched()
            stop.append(True)
            other.join()
            accepting.cancel()
            return stats()["netpolls"] - before

    assert in_run(main, netpoll={"interval": "10s"}) >= 5


@pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")
def test_the_poller_is_the_one_that_is_asked_for() -> None:
    def main() -> str:
        with golibx.net.listen(("127.0.0.1", 0)) as listener:
            accepting = go(listener.accept)
            with golibx.net.dial(listener.address):
                accepting.result()[0].close()
        return _core.info()["netpoll"]

    assert in_run(main, netpoll={"backend": "epoll"}) == "epoll"


@pytest.mark.parametrize("spin", ["0", "1ms"])
def test_threads_hand_values_over_whether_they_spin_or_not(spin: str) -> None:
    def main() -> int:
        there, back = golibx.Chan[int](), golibx.Chan[int]()
        thread = threading.Thread(target=lambda: [back.send(x + 1) for x in there])
        thread.start()
        total = 0
        for i in range(50):
            there.send(i)
            total += back.recv()
        there.close()
        thread.join()
        return total

    assert in_run(main, runtime={"spin": spin}) == sum(range(1, 51))


# ---- several at once ----


def test_of_two_threads_that_change_at_once_each_change_is_whole() -> None:
    """Each value is its own: the thread that replaces it tells so, once, of both keys at a time."""
    times = 2000

    def main() -> None:
        replaced: list[tuple[int, int]] = []
        numbers = [range(1_000 + i, 1_000 + i + 2 * times, 2) for i in (0, 1)]

        def change(values: range) -> None:
            for value in values:
                old = _core.tune({"sysmon.sleep_min": value, "sysmon.sleep_max": 2 * value})
                replaced.append((old["sysmon.sleep_min"], old["sysmon.sleep_max"]))

        threads = [threading.Thread(target=change, args=(each,)) for each in numbers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        last = _core.tunables()
        left = (last["sysmon.sleep_min"], last["sysmon.sleep_max"])
        first = (DEFAULTS["sysmon.sleep_min"], DEFAULTS["sysmon.sleep_max"])
        written = [(value, 2 * value) for value in itertools.chain(*numbers)]
        assert sorted([*replaced, left]) == sorted([first, *written])

    in_run(main)
