"""golibx.testing.plugins, by plugins that come with golibx and by ones that go wrong."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import pytest

import golibx
from golibx import ConfigError, go, hookspec, sleep
from golibx.eventbatch import EventBatch
from golibx.hookspec import (
    GoroutineExit,
    GoroutinePark,
    GoroutineReady,
    GoroutineStart,
    Preempt,
    Snapshot,
    Tune,
    Tuning,
    hookimpl,
)
from golibx.pluginmanager import PluginManager
from golibx.plugins import schedtrace, tuner, watchdog
from golibx.runtime import Runtime
from golibx.testing import plugins as tested
from golibx.testing import wait_until
from golibx.testing.plugins import Call, feed, run_with, snapshot

MS = 1_000_000
SLICE = "preempt.slice"
PARK = GoroutinePark(1_000, "python", 7, "chan receive")
READY = GoroutineReady(2_000, "python", 7, 1)


class Waits:
    """A plugin of a third party's."""

    def __init__(self) -> None:
        self.parked: list[int] = []
        self.limit = -1

    @hookimpl
    def golib_configure(self, config: golibx.config.Config, name: str) -> None:
        key = golibx.config.Key("limit", "int", 3, "At most.", low=1, high=9)
        self.limit = config.plugin(name, [key]).limit

    @hookimpl
    def on_goroutine_park(self, event: GoroutinePark) -> None:
        self.parked.append(event.goroutine_id)

    @hookimpl
    def on_goroutine_ready(self) -> None:
        self.parked.pop()


# ---- feed() ----


def test_feed() -> None:
    waits = Waits()
    seen = feed(waits, PARK, PARK, READY, GoroutineStart(1, "python", 2, 1), settings={"limit": 5})
    assert seen.plugin is waits
    assert (waits.parked, waits.limit) == ([7], 5)
    assert seen.calls[1:] == [
        Call("on_goroutine_park", (PARK,), None),
        Call("on_goroutine_park", (PARK,), None),
        Call("on_goroutine_ready", (), None),
    ]
    assert seen.calls[0].hook == "golib_configure"
    assert seen.events == [PARK, PARK] == seen.of(GoroutinePark)
    assert seen.of(GoroutineReady) == []
    assert (seen.error, seen.stderr, seen.tunings, seen.changes) == (None, "", [], [])
    assert seen.stats.state == "active"
    assert seen.stats.hooks["on_goroutine_park"].calls == 2
    assert repr(seen).startswith("<Seen: 4 calls of golib_configure, on_goroutine_park, ")


def test_feed_of_a_batch() -> None:
    class Counts:
        takes = ("on_goroutine_ready",)

        def __init__(self) -> None:
            self.events: list[object] = []

        @hookimpl
        def take_events(self, batch: EventBatch) -> None:
            self.events.extend(batch)

    kind = EventBatch.HOOKS.index("on_goroutine_ready")
    batch = EventBatch(EventBatch.RECORD.pack(1_200, 7, 2, 0, kind, 0), (), ())
    seen = feed(Counts, batch)
    assert seen.plugin.events == [GoroutineReady(1_200, "python", 7, 2)]
    assert seen.calls == [Call("take_events", (batch,), None)]


def test_feed_to_a_class_and_by_another_name() -> None:
    first, second = feed(Waits, PARK), feed(Waits, name="mine", settings={"limit": 2})
    assert first.plugin.parked == [7]
    assert (second.plugin.parked, second.plugin.limit) == ([], 2)


def test_feed_of_one_that_raises(capsys: pytest.CaptureFixture[str]) -> None:
    seen = feed(Waits(), READY, PARK)
    assert isinstance(seen.error, IndexError)
    assert seen.stats.state == "raised"
    assert [call.hook for call in seen.calls] == ["golib_configure", "on_goroutine_ready"]
    assert "plugin Waits raised in on_goroutine_ready and is disabled" in seen.stderr
    assert seen.stderr == capsys.readouterr().err
    assert not [name for name in sys.modules if name.startswith("golibx_tested_plugin")]


@pytest.mark.parametrize("event", [None, 7, ("a", "b"), Waits, GoroutinePark])
def test_feed_of_what_is_no_event(event: object) -> None:
    with pytest.raises(TypeError, match=r"is no event: golibx\.hookspec has their types"):
        feed(Waits, event)


def test_every_event_can_be_fed() -> None:
    """And reaches its hook."""
    events = [
        getattr(hookspec, getattr(hookspec, name).__annotations__["event"])
        for name in PluginManager.hook_names()
        if name.startswith("on_")
    ]
    assert set(events) == set(tested._HOOKS)
    for event in events:
        name = tested._HOOKS[event]
        assert list(signature(getattr(hookspec, name)).parameters) == ["event"]

        def hook(event: object) -> None:
            pass

        hook.__name__ = name
        made = event(*range(len(event._fields)))
        plugin = types.SimpleNamespace(**{name: hookimpl(hook)})
        assert feed(plugin, made).calls == [Call(name, (made,), None)]


# ---- snapshots, and the tuner that comes with golibx ----


def test_snapshot() -> None:
    made = snapshot(runnable=4, latency_p99_ns=5, tunables={SLICE: 7})
    assert (made.runnable, made.latency_p99_ns, made.latency_p50_ns, made.idle) == (4, 5, None, 0)
    assert made.tunables == {**golibx.tunables(), SLICE: 7}
    assert made.limits[SLICE] == (10_000, 60_000 * MS)
    with pytest.raises(TypeError, match="a Snapshot has no latency; it has time_ns, "):
        snapshot(latency=3)


def look(slice_ms: float, late_ms: float, **values: object) -> Snapshot:
    tunables = {SLICE: int(slice_ms * MS)}
    return snapshot(latencies=50, latency_p99_ns=int(late_ms * MS), tunables=tunables, **values)


@pytest.mark.parametrize(
    ("looks", "wanted"),
    [
        ([look(10, 6)], [{SLICE: 5 * MS}]),
        ([look(10, 6), look(5, 6), look(2.5, 4)], [{SLICE: 5 * MS}, {SLICE: 2_500_000}]),
        ([look(10, 6)._replace(latencies=7)], []),
        ([look(10, 4), snapshot(latencies=50)], []),
        ([look(10, 6, limits={SLICE: (8 * MS, 20 * MS)})], [{SLICE: 8 * MS}]),
        ([look(0.1, 6)], []),
    ],
)
def test_what_the_tuner_wants(looks: list[Snapshot], wanted: list[Tuning]) -> None:
    seen = feed(tuner, *looks, settings={"goal": "5ms"})
    assert seen.tunings == wanted
    assert seen.error is None
    assert len(seen.calls) == 1 + len(looks)


# ---- run_with() ----


def test_run_with(capsys: pytest.CaptureFixture[str]) -> None:
    def main(seconds: float, *, last: str) -> str:
        for _ in range(2):
            go(sleep, seconds).join()
        return last

    waits = Waits()
    seen = run_with(waits, main, 0.001, last="end", settings={"limit": 9})
    assert seen.result == "end"
    assert waits.limit == 9
    parks = seen.of(GoroutinePark)
    assert [event.reason for event in parks if event.goroutine_id != 1] == ["sleep", "sleep"]
    assert seen.stats.hooks["on_goroutine_park"].calls == len(parks)
    assert seen.error is None
    assert capsys.readouterr().err == ""


def test_run_with_a_built_in_plugin(tmp_path: Path) -> None:
    def main() -> None:
        go(int).join()
        golibx.tune({SLICE: "2ms"})

    output = tmp_path / "trace.txt"
    by_name = run_with("schedtrace", main, settings={"output": str(output)})
    of_module = run_with(schedtrace, main, settings={"output": str(output)})
    for seen in (by_name, of_module):
        assert [type(event) for event in seen.events if not isinstance(event, Preempt)] == [
            GoroutineStart,
            GoroutineExit,
            Tune,
        ]
        assert seen.changes == []  # it was the program
        assert isinstance(seen.plugin, schedtrace.Plugin)
    assert output.read_text().count("tune preempt.slice=2ms was=10ms by program") == 2


def test_the_watchdog_is_not_called_for_every_event() -> None:
    seen = run_with(watchdog, lambda: go(sleep, 0.001).join())
    hooks = {call.hook for call in seen.calls}
    assert hooks - {"on_preempt", "on_retake"} == {"golib_configure", "golib_start", "golib_stop"}


def test_what_a_plugin_changes() -> None:
    class Tunes:
        @hookimpl
        def golib_start(self, runtime: Runtime) -> None:
            runtime.tune({"native.spinning": 25})

        @hookimpl
        def tune(self, snapshot: Snapshot) -> Tuning | None:
            return {SLICE: "2ms"} if snapshot.tunables[SLICE] != 2 * MS else None

    def main() -> None:
        golibx.tune({"native.steal_rounds": 3})
        wait_until(lambda: golibx.tunables()[SLICE] == 2 * MS)

    seen = run_with(Tunes, main)
    changes = [(event.key, event.old, event.new) for event in seen.changes]
    assert changes == [("native.spinning", 50, 25), (SLICE, 10 * MS, 2 * MS)]
    assert {event.who for event in seen.changes} == {"plugin Tunes"}
    assert seen.tunings == [{SLICE: "2ms"}]


def test_one_that_raises_in_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    class Bad:
        @hookimpl
        def on_goroutine_exit(self) -> None:
            raise golibx.Cancelled

    bad = Bad()
    seen = run_with(bad, lambda: [go(int).join() for _ in range(3)])
    assert isinstance(seen.error, golibx.Cancelled)
    assert [call.hook for call in seen.calls] == ["on_goroutine_exit"]
    assert seen.plugin is bad
    assert "plugin Bad raised in on_goroutine_exit" in capsys.readouterr().err


def test_what_the_function_raises_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        run_with(Waits, lambda: 1 // 0)
    assert sys.stderr is not None
    assert not [name for name in sys.modules if name.startswith("golibx_tested_plugin")]


def test_other_tables_and_plugins() -> None:
    def main() -> int:
        return golibx.tunables()[SLICE]

    tables = {"preempt": {"slice": "3ms"}, "plugins": {"enabled": ["tuner"]}}
    before = repr(tables)
    assert run_with(Waits, main, config=tables).result == 3 * MS
    assert repr(tables) == before


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLIB_PREEMPT_SLICE", "3ms")
    assert run_with(Waits, lambda: golibx.tunables()[SLICE]).result == 10 * MS


class NoHooks:
    pass


async def coroutine() -> None:
    pass


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: run_with(NoHooks, int), ConfigError, "has no hooks"),
        (lambda: feed(NoHooks()), ConfigError, "has no hooks"),
        (lambda: run_with("none_such", int), ConfigError, "no built-in plugin"),
        (lambda: run_with(Waits, int, settings={"limit": 10}), ConfigError, "Waits.limit = 10"),
        (lambda: feed(Waits, settings={"limits": 1}), ConfigError, "did you mean"),
        (lambda: feed(Waits, config={"preempt": {"slize": 1}}), ConfigError, "preempt.slize"),
        (lambda: run_with(Waits, int, config="golib.toml"), TypeError, "the tables of golib.toml"),
        (lambda: run_with("tuner", int, name="mine"), TypeError, "a str has its own"),
        (lambda: run_with(Waits, coroutine), TypeError, "is async"),
    ],
)
def test_what_is_refused(call: Callable[[], object], error: type[Exception], text: str) -> None:
    stderr = sys.stderr
    with pytest.raises(error, match=text):
        call()
    assert sys.stderr is stderr
