"""Tuning a run while it goes on: golibx.tune(), the hook `tune`, rules of [tune], `on_tune`.

What the values do to the scheduler is tested in test_tuning.py, asking from outside in
test_control.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import ConfigError, _core, go, gomaxprocs, net, sleep, stats
from golibx.config import Config
from golibx.hookspec import Snapshot, Tune, TuningKey, hookimpl
from golibx.pluginmanager import PluginManager
from golibx.plugins import tuner
from golibx.rules import KEYS, METRICS, parse_limits, parse_rules, range_of, read_number
from golibx.testing import wait_until, wait_until_parked
from golibx.tuning import Meter, RuleBook, quantile
from test_events import until_retaken

MS = 1_000_000
SLICE = "preempt.slice"
PROCS = "runtime.gomaxprocs"
DEFAULTS = {path: read_number(key, key.default) for path, key in KEYS.items()}
OFTEN = ("hooks.tune_interval=1ms", "hooks.flush_interval=1ms")

RunWith = Callable[..., None]


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> RunWith:
    """Runs a function with plugins, objects by their names."""

    def run(main: Callable[[], object], *overrides: str, **plugins: object) -> None:
        monkeypatch.setitem(sys.modules, "given", SimpleNamespace(**plugins))
        enabled = ",".join(f"given:{name}" for name in plugins)
        options = [f"plugins.enabled={enabled}", *OFTEN, *overrides]
        golibx.run(main, config=Config.load(environ={}, overrides=options))

    return run


def plugin(function: Callable[..., object]) -> SimpleNamespace:
    """One with this hook."""
    return SimpleNamespace(**{function.__name__: hookimpl(function)})


def with_tune(tune: Callable[[Snapshot], object]) -> SimpleNamespace:
    def hook(snapshot: Snapshot) -> object:
        return tune(snapshot)

    hook.__name__ = "tune"
    return plugin(hook)


class Watcher:
    """A plugin that keeps the changes and snapshots, for a main goroutine to wait for."""

    def __init__(self) -> None:
        self.changes: list[Tune] = []
        self.snapshots: list[Snapshot] = []

    @hookimpl
    def on_tune(self, event: Tune) -> None:
        self.changes.append(event)

    @hookimpl
    def tune(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def of(self, who: str) -> list[Tune]:
        return [event for event in self.changes if event.who == who]


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


# ---- golibx.tune() ----


def test_what_was_before_comes_back_and_restores_it() -> None:
    def main() -> None:
        before = golibx.tune({SLICE: "2ms", "native.spinning": 25})
        assert before == {SLICE: 10 * MS, "native.spinning": 50}
        assert golibx.tunables()[SLICE] == 2 * MS
        assert golibx.tune(before) == {SLICE: 2 * MS, "native.spinning": 25}
        assert golibx.tune({}) == {}
        assert golibx.tune({SLICE: 3 * MS}) == {SLICE: 10 * MS}
        assert golibx.tune({"preempt": {"slice": "4ms"}}) == {SLICE: 3 * MS}  # type: ignore[dict-item]

    golibx.run(main)


@pytest.mark.parametrize("path", KEYS)
def test_every_key_takes_what_golib_toml_takes(path: str) -> None:
    key = KEYS[path]
    room: dict[str, int | str] = {"sysmon.sleep_max": "10s", "retake.threshold_idle": "10s"}
    room |= {"sysmon.sleep_min": "1us", "retake.threshold": "1us"}

    def main() -> None:
        golibx.tune(room)
        for value in (key.low, key.high):
            golibx.tune({path: value})
            assert golibx.tunables()[path] == read_number(key, value)
        for end, step in zip(range_of(key), (-1, 1), strict=True):
            with pytest.raises(ConfigError, match=f"{path} = ") as caught:
                golibx.tune({path: end + step or -1})
            assert caught.value.allowed == key.allowed

    procs = gomaxprocs()
    golibx.run(main)
    gomaxprocs(procs)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({SLICE: "9us"}, ConfigError, r'slice = "9us": out of range \(allowed: 10us to 1m\)'),
        ({SLICE: "ten"}, ConfigError, 'preempt.slice = "ten": not a number with a unit'),
        ({SLICE: 1.5}, ConfigError, "preempt.slice = 1.5: not a number with a unit"),
        ({SLICE: True}, ConfigError, "preempt.slice = true: not a number with a unit"),
        ({SLICE: None}, ConfigError, "preempt.slice"),
        ({"native.spinning": "50"}, ConfigError, "native.spinning = .50.: not an integer"),
        ({"preempt.slize": 1}, ConfigError, "slize = 1: cannot change .* mean preempt.slice?"),
        ({"slice": "1ms"}, ConfigError, "did you mean preempt.slice?"),
        ({"preempt.async": False}, ConfigError, "cannot change while a run goes on"),
        ({"runtime.gomaxprocs": 1025}, ConfigError, "gomaxprocs = 1025: out of range"),
        ({5: 1}, ConfigError, "5 = 1: cannot change"),
        ({"retake.threshold": "20ms"}, ConfigError, "more than retake.threshold_idle, which is"),
        ([SLICE], TypeError, r"a mapping of keys to values, not \['preempt.slice'\]"),
        (None, TypeError, "a mapping of keys to values, not None"),
        ({SLICE: "2ms", "native.spinning": 0}, ConfigError, "native.spinning = 0: out of range"),
        ({PROCS: 3, "retake.threshold": "20ms"}, ConfigError, "more than retake.threshold_idle"),
    ],
)
def test_what_is_refused_changes_nothing(changes: Any, error: type[Exception], text: str) -> None:
    def main() -> None:
        before = golibx.tunables()
        with pytest.raises(error, match=text):
            golibx.tune(changes)
        assert golibx.tunables() == before
        assert stats()["tunings"] == 0

    golibx.run(main)


def test_all_that_is_wrong_is_said() -> None:
    def main() -> None:
        with pytest.raises(ConfigError) as caught:
            golibx.tune({SLICE: "1ns", "native.spinning": 0, "x": 1})
        assert [error.key for error in caught.value.errors] == [SLICE, "native.spinning", "x"]

    golibx.run(main)


def test_gomaxprocs() -> None:
    procs = gomaxprocs()

    def main() -> None:
        assert golibx.tune({PROCS: procs + 2}) == {PROCS: procs}
        assert gomaxprocs() == golibx.tunables()[PROCS] == procs + 2
        golibx.tune({PROCS: 0})
        assert gomaxprocs() == (len(os.sched_getaffinity(0)) if sys.platform == "linux" else procs)
        golibx.tune({PROCS: procs})

    golibx.run(main)


def test_where_nothing_runs(script: Script) -> None:
    program = """
import golibx
try:
    golibx.tune({"preempt.slice": "1ms"})
except RuntimeError as exc:
    print(exc)
"""
    said = "no runtime is running: a run begins with what its configuration says\n"
    assert script.passes(program) == said


def test_changes_are_counted() -> None:
    def main() -> None:
        golibx.tune({SLICE: "2ms", "native.spinning": 25})
        golibx.tune({SLICE: "2ms"})  # which it is
        assert stats()["tunings"] == 2

    golibx.run(main)
    assert golibx.run(stats)["tunings"] == 0


# ---- on_tune ----


def test_events_tell_who_changed_what(run_with: RunWith, watcher: Watcher) -> None:
    def main() -> None:
        golibx.tune({SLICE: "2ms", "native.spinning": 50})
        thread = threading.Thread(target=golibx.tune, args=({"retake.reserves": 3},))
        thread.start()
        wait_until(lambda: len(watcher.changes) == 2)
        thread.join()

    run_with(main, watcher=watcher)
    first, second = watcher.changes
    assert first[1:] == ("python", "program", SLICE, 10 * MS, 2 * MS)
    assert second[1:] == ("python", "program", "retake.reserves", 16, 3)
    assert first.time_ns < second.time_ns


def test_changes_of_several_are_told_in_their_order(run_with: RunWith, watcher: Watcher) -> None:
    """Each has the value before that the one before had set."""
    times = 200

    def change(first: int) -> None:
        for value in range(first, first + 2 * times, 2):
            golibx.tune({SLICE: MS + value})

    def main() -> None:
        threads = [threading.Thread(target=change, args=(first,)) for first in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    run_with(main, watcher=watcher)
    values = [10 * MS, *(event.new for event in watcher.changes)]
    assert [event.old for event in watcher.changes] == values[:-1]
    assert sorted(values[1:]) == [MS + i for i in range(2 * times)]


def test_runtime_tune_is_on_behalf_of_the_plugin(run_with: RunWith, watcher: Watcher) -> None:
    def serve(runtime: Any) -> None:
        runtime.tune({"native.spinning": 25})

    def golib_start(runtime: Any) -> None:
        assert runtime.tune({SLICE: "2ms"}) == {SLICE: 10 * MS}
        assert runtime.tunables() == golibx.tunables()
        runtime.go_system(serve, runtime)

    def main() -> None:
        wait_until(lambda: len(watcher.changes) == 2)
        golibx.tune({SLICE: "3ms"})

    run_with(main, mine=plugin(golib_start), watcher=watcher)
    who = [(event.who, event.key) for event in watcher.changes]
    mine = "plugin mine"
    assert who == [(mine, SLICE), (mine, "native.spinning"), ("program", SLICE)]


# ---- the hook ----


def test_what_the_hook_returns_is_set(run_with: RunWith, watcher: Watcher) -> None:
    def main() -> None:
        wait_until(lambda: golibx.tunables()[SLICE] == 2 * MS)
        wait_until(lambda: bool(watcher.changes))

    run_with(main, mine=with_tune(lambda _: {SLICE: "2ms"}), watcher=watcher)
    (event,) = watcher.changes
    assert event[1:] == Tune(0, "python", "plugin mine", SLICE, 10 * MS, 2 * MS)[1:]


def test_snapshots(run_with: RunWith, watcher: Watcher) -> None:
    def main() -> None:
        for _ in range(3):
            go(sleep, 0.001).join()
        wait_until(lambda: sum(s.spawns for s in watcher.snapshots) >= 3)

    run_with(main, watcher=watcher)
    first, *_, last = watcher.snapshots
    assert all(
        a.time_ns + b.interval_ns == b.time_ns
        for a, b in zip(watcher.snapshots, watcher.snapshots[1:], strict=False)
    )
    assert all(s.goroutines >= 1 and s.threads >= 1 for s in watcher.snapshots)
    assert sum(s.switches for s in watcher.snapshots) >= 6
    assert last.tunables == {**DEFAULTS, PROCS: gomaxprocs()}
    assert last.limits == {path: range_of(key) for path, key in KEYS.items()}
    for name in Snapshot._fields:
        with pytest.raises(AttributeError):
            setattr(first, name, 1)
    for mapping in (first.tunables, first.limits):
        with pytest.raises(TypeError):
            mapping[SLICE] = 1  # type: ignore[index]


def raiser(exc: BaseException) -> Callable[[Snapshot], object]:
    def tune(_: Snapshot) -> object:
        raise exc

    return tune


class Hostile:
    items = None

    def keys(self) -> Any:
        raise SystemExit("keys")


HOSTILE: dict[str, tuple[Callable[[Snapshot], object], str]] = {
    "raises": (raiser(ValueError("no")), "ValueError: no"),
    "cancelled": (raiser(golibx.Cancelled()), "golibx.errors.Cancelled"),
    "interrupt": (raiser(KeyboardInterrupt()), "KeyboardInterrupt"),
    "exit": (raiser(SystemExit(3)), "SystemExit: 3"),
    "list": (lambda _: [SLICE], "it returned ['preempt.slice'], which is neither None nor a mapp"),
    "text": (lambda _: "2ms", "it returned '2ms', which is neither None nor a mapping"),
    "number": (lambda _: 0, "it returned 0, which is neither None nor a mapping"),
    "generator": (lambda _: (x for x in ()), "it returned a generator"),
    "items": (lambda _: Hostile(), "SystemExit: keys"),
    "value": (lambda _: {SLICE: object()}, "preempt.slice = <object object"),
    "range": (
        lambda _: {SLICE: "9us"},
        'preempt.slice = "9us": out of range (allowed: 10us to 1m)',
    ),
    "key": (lambda _: {"preempt.slize": 1}, "did you mean preempt.slice?"),
    "order": (lambda _: {"retake.threshold": "1s"}, "more than retake.threshold_idle"),
    "recurses": (lambda s: HOSTILE["recurses"][0](s), "RecursionError"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_plugin(
    name: str, run_with: RunWith, watcher: Watcher, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is named with its hook, once; the program, and other plugins, go on."""
    tune, said = HOSTILE[name]

    def main() -> None:
        looks = len(watcher.snapshots)
        wait_until(lambda: len(watcher.snapshots) > looks + 3)

    run_with(main, hostile=with_tune(tune), watcher=watcher)
    error = capfd.readouterr().err
    assert error.count("golibx: plugin hostile raised in tune and is disabled:") == 1
    assert said in error
    assert watcher.changes == []


def test_a_plugin_that_sleeps(run_with: RunWith, capfd: pytest.CaptureFixture[str]) -> None:
    """The program and the rules go on; at the end it is named."""
    asleep: list[bool] = []

    def tune(_: Snapshot) -> None:
        asleep.append(True)
        golibx.Chan[int]().recv()

    def main() -> None:
        wait_until(lambda: bool(asleep))
        wait_until(lambda: golibx.tunables()[SLICE] == 2 * MS)

    rule = '[{ when = "threads > 0", set = { "preempt.slice" = "2ms" } }]'
    timeout = "runtime.shutdown_timeout=10ms"
    run_with(main, f"tune.rules={rule}", timeout, sleeper=with_tune(tune))
    assert "tune of plugin sleeper has not returned within 1s" in capfd.readouterr().err


def test_hooks_are_not_called_two_at_once(run_with: RunWith) -> None:
    inside: list[str] = []
    together: list[str] = []
    count = [0]

    def visit(name: str) -> None:
        if inside:
            together.append(name)
        inside.append(name)
        sleep(0.0005)
        inside.pop()
        count[0] += 1

    def on_goroutine_exit(event: object) -> None:
        visit("event")

    def main() -> None:
        while count[0] < 40:
            go(int).join()
            sleep(0.0005)

    run_with(main, one=plugin(on_goroutine_exit), two=with_tune(lambda _: visit("tune")))
    assert together == []


# ---- limits ----


def test_limits_are_for_plugins(
    run_with: RunWith, watcher: Watcher, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int]] = []

    def tune(snapshot: Snapshot) -> Mapping[str, int | str]:
        seen.append(snapshot.limits[SLICE])
        return {SLICE: "1ms" if len(seen) < 5 else "5ms"}

    def golib_start(runtime: Any) -> None:
        with pytest.raises(ConfigError, match=r"beyond what \[tune\] limits says .allowed: 2ms to"):
            runtime.tune({SLICE: "1ms"})

    def main() -> None:
        golibx.tune({SLICE: "100us"})
        wait_until(lambda: golibx.tunables()[SLICE] == 5 * MS)

    limits = 'tune.limits={ "preempt.slice" = { min = "2ms", max = "20ms" } }'
    run_with(main, limits, mine=with_tune(tune), other=plugin(golib_start), watcher=watcher)
    assert set(seen) == {(2 * MS, 20 * MS)}
    error = capfd.readouterr().err
    assert error == (
        'golibx: tune of plugin mine is refused: preempt.slice = "1ms": beyond what [tune] limits '
        "says (allowed: 2ms to 20ms)\n"
    )


def test_tuning_keys_say_what_there_is(run_with: RunWith) -> None:
    seen: list[dict[str, TuningKey]] = []

    def golib_start(runtime: Any) -> None:
        runtime.tune({SLICE: "3ms"})
        seen.append(runtime.tuning_keys())

    limits = f'tune.limits={{ "{SLICE}" = {{ min = "2ms" }} }}'
    run_with(lambda: None, limits, "preempt.slice=4ms", mine=plugin(golib_start))
    (found,) = seen
    assert found.keys() == golibx.tunables().keys()
    assert found[SLICE][:6] == (3 * MS, 4 * MS, 2 * MS, 60_000 * MS, "", True)
    procs = found["runtime.gomaxprocs"]
    assert (procs.low, procs.high, procs.is_duration) == (1, 1024, False)
    assert procs.zero == "as many as there are CPUs this process may use"
    assert procs.configured == procs.value == len(os.sched_getaffinity(0))
    for path, key in KEYS.items():
        assert found[path].description == key.description
        if path != SLICE:
            assert (found[path].low, found[path].high) == range_of(key)


@pytest.mark.parametrize(
    ("limits", "key", "text"),
    [
        ({SLICE: {"min": "5ms", "max": "1ms"}}, f"limits.{SLICE}.min", "more than max"),
        ({SLICE: {"min": "1us"}}, f"limits.{SLICE}.min", "out of range .allowed: 10us to 1m"),
        ({SLICE: {"least": "1ms"}}, f"limits.{SLICE}.least", "unknown key"),
        ({SLICE: "1ms"}, f"limits.{SLICE}", "not a table"),
        ({"preempt": {"slize": {}}}, "limits.preempt.slize", "did you mean preempt.slice?"),
        ({"stack.size": {"min": 1}}, "limits.stack.size", "cannot change while a run goes on"),
    ],
)
def test_limits_that_are_wrong(limits: object, key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        parse_limits(limits, "limits")
    assert caught.value.key == key


# ---- rules ----


def snapshot_of(time_ms: int, **values: Any) -> Snapshot:
    base: dict[str, Any] = dict.fromkeys(Snapshot._fields, 0)
    base |= {"tunables": golibx.tunables(), "limits": {}, "time_ns": time_ms * MS}
    return Snapshot(**{**base, **values})


def slices_after(rules: list[dict[str, object]], looks: list[Any], **options: Any) -> list[int]:
    """The slice in milliseconds after each look at a p99 in milliseconds, one each 100 ms."""
    settings = {"limits": {}, "confirm": 1, "cooldown_ns": 0, **options}
    found: list[int] = []

    def main() -> None:
        book = RuleBook(parse_rules(rules, "rules"), **settings)
        for i, p99_ms in enumerate(looks, 1):
            ns = None if p99_ms is None else p99_ms * MS
            assert book.look(snapshot_of(100 * i, latency_p99_ns=ns)) == []
            found.append(golibx.tunables()[SLICE] // MS)

    golibx.run(main)
    return found


SLOW = {"when": "latency_p99 > 5ms", "set": {SLICE: "2ms"}}
FAST = {"when": "latency_p99 < 1ms", "set": {SLICE: "10ms"}}


def test_a_rule_sets_and_another_takes_back() -> None:
    assert slices_after([SLOW, FAST], [5, 6, 3, 1, 0, None, 9]) == [10, 2, 2, 2, 10, 10, 2]


def test_a_condition_has_to_be_confirmed() -> None:
    looks = [6, 3, 6, 6, None, 6, 6, 6]
    assert slices_after([SLOW], looks, confirm=3) == [10] * 7 + [2]


def test_after_a_change_the_key_is_left_alone() -> None:
    looks = [6, 0, 0, 0, 6]
    assert slices_after([SLOW, FAST], looks, cooldown_ns=300 * MS) == [2, 2, 2, 10, 10]


def test_of_two_rules_the_first_counts() -> None:
    always = {"when": "latency_p99 >= 0ms", "set": {SLICE: "7ms"}}
    assert slices_after([SLOW, always], [6, 6, 1]) == [2, 2, 7]


def test_every_metric_and_comparison() -> None:
    for metric, field in METRICS.items():
        unit = "ns" if field.endswith("_ns") else ""
        for sign, expected in ((">", [0, 0, 1]), (">=", [0, 1, 1]), ("<", [1, 0, 0])):
            for given, holds in zip((4, 5, 6), expected, strict=True):
                when = f"{metric} {sign} 5{unit} and {metric}<=9{unit}"
                (rule,) = parse_rules([{"when": when, "set": {SLICE: "1ms"}}], "rules")
                assert rule.holds(snapshot_of(0, **{field: given})) == bool(holds)


def test_metrics_are_the_fields_of_the_snapshot() -> None:
    no_metrics = {"time_ns", "interval_ns", "tunables", "limits"}
    assert {*METRICS.values()} == {*Snapshot._fields} - no_metrics


@pytest.mark.parametrize(
    ("rule", "key", "text"),
    [
        (
            {"when": "latency_p98 > 5ms"},
            "[1].when",
            "no metric latency_p98; did you mean latency_p9",
        ),
        ({"when": "latency_p99_ns > 5ms"}, "[1].when", "did you mean latency_p99?"),
        (
            {"when": "latency_p99 > 5"},
            "[1].when",
            "'5', which latency_p99 is compared with, is not a",
        ),
        (
            {"when": "runnable > 5ms"},
            "[1].when",
            "'5ms', which runnable is compared with, is not a",
        ),
        (
            {"when": "runnable = 5"},
            "[1].when",
            "'runnable = 5' is not a comparison .allowed: METRIC",
        ),
        ({"when": "runnable > 5 or idle > 2"}, "[1].when", "is not a"),
        ({"when": ""}, "[1].when", "not a condition"),
        ({"when": 5}, "[1].when", "not a condition"),
        ({"set": {}}, "[1].set", "sets nothing"),
        ({"set": [SLICE]}, "[1].set", "not a table"),
        ({"set": {SLICE: "1us"}}, f"[1].set.{SLICE}", "out of range .allowed: 10us to 1m"),
        ({"set": {"preempt": {"slize": 1}}}, "[1].set.preempt.slize", "mean preempt.slice?"),
        ({"for": "5s"}, "[1].for", "unknown key"),
    ],
)
def test_rules_that_are_wrong(rule: dict[str, object], key: str, text: str) -> None:
    right = {"when": "runnable > 1", "set": {SLICE: "1ms"}}
    with pytest.raises(ConfigError, match=text) as caught:
        parse_rules([{**right, **rule}], "rules")
    assert caught.value.key == f"rules{key}"


def test_check_config_says_where(script: Script) -> None:
    text = """\
[tune]
limits = { "preempt.slice" = { min = "1ms" } }
[[tune.rules]]
when = "runnable > 1"
set = { preempt.slice = "2ms" }
[[tune.rules]]
when = "runnable > 3"
[tune.rules.set]
preempt.slice = "20us"
"""
    (script.cwd / "golib.toml").write_text(text)
    path = script.cwd / "golib.toml"
    program = f"from golibx.__main__ import main\nmain(['check-config', {str(path)!r}])\n"
    result = script(program)
    assert result.returncode == 2
    assert result.stderr == (
        f'golibx: {path}:9: tune.rules[2].set.preempt.slice = "20us": beyond what [tune] limits '
        "says (allowed: 1ms to 1m)\n"
    )


def test_a_rule_that_cannot_be_obeyed_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    rule = {"when": "threads > 0", "set": {"retake.threshold": "1s"}}
    config = {"tune": {"rules": [rule]}, "hooks": {"tune_interval": "1ms"}}
    said: list[str] = []

    def main() -> None:
        while not "".join(said).endswith("\n"):
            sleep(0.001)
            said.append(capfd.readouterr().err)
        sleep(0.02)  # it is looked at again and again

    golibx.run(main, config=config)
    error = "".join(said) + capfd.readouterr().err
    assert error.startswith("golibx: rule 1 of [tune], 'threads > 0', sets nothing: retake.thresho")
    assert error.count("\n") == 1


def test_rules_need_no_plugin(script: Script) -> None:
    program = """
import sys, golibx
from golibx.testing import wait_until
def main():
    wait_until(lambda: golibx.stats()["tunings"] == 1)
    print("pluggy" in sys.modules, golibx.tunables()["preempt.slice"])
rule = {"when": "goroutines > 0", "set": {"preempt.slice": "2ms"}}
golibx.run(main, config={"tune": {"rules": [rule]}, "hooks": {"tune_interval": "1ms"}})
"""
    assert script.passes(program) == "False 2000000\n"


# ---- latencies ----


def test_latencies_are_measured_for_who_asks(run_with: RunWith, watcher: Watcher) -> None:
    def main() -> None:
        for _ in range(100):
            sleep(0)
            go(sleep, 0.0001).join()

    golibx.run(main)
    assert golibx.run(_core.latencies) == {}

    def until_measured() -> None:
        main()
        wait_until(lambda: any(s.latencies for s in watcher.snapshots))

    run_with(until_measured, watcher=watcher)
    for snapshot in watcher.snapshots:
        quantiles = snapshot[-6:-2]
        if snapshot.latencies:
            assert sorted(quantiles) == list(quantiles)
        else:
            assert quantiles == (None,) * 4


def test_measuring_records_no_events(run_with: RunWith) -> None:
    """A goroutine that is made ready is looked at for either, by one test."""
    snapshots: list[Snapshot] = []

    def main() -> None:
        while not any(s.latencies for s in snapshots):
            go(sleep, 0.0001).join()
        assert stats()["events_recorded"] == 0

    run_with(main, mine=with_tune(snapshots.append))


def test_both_are_had_by_who_asks_for_both(run_with: RunWith) -> None:
    events: list[object] = []
    snapshots: list[Snapshot] = []

    def on_goroutine_ready(event: object) -> None:
        events.append(event)

    def main() -> None:
        while not any(s.latencies for s in snapshots) or not events:
            go(sleep, 0.0001).join()

    run_with(main, ready=plugin(on_goroutine_ready), mine=with_tune(snapshots.append))
    assert events
    assert any(s.latencies for s in snapshots)


def test_quantiles() -> None:
    latencies = {10: 50, 20: 40, 30: 9, 40: 1}
    assert [quantile(latencies, q) for q in (0.5, 0.9, 0.99, 1.0)] == [10, 20, 30, 40]
    assert quantile({10: 0, 20: 1}, 0.01) == 20
    assert quantile({}, 0.5) is quantile({10: 0}, 0.5) is None


HOGS = ("preempt.slice=2s", "hooks.tune_interval=10ms", "retake.enabled=false")
"""A goroutine that computes gives way after a tenth of that, once it was preempted."""


def hog_until(done: Callable[[], bool], over: Callable[[], bool] = lambda: True) -> None:
    """Computes all the time, while other goroutines sleep for a millisecond at a time.

    They go on with that until it is over.
    """
    ends: list[bool] = []

    def doze() -> None:
        while not ends:
            sleep(0.001)

    dozing = [go(doze) for _ in range(32)]
    while not done():
        for _ in range(1000):
            pass
    wait_until(over)
    ends.append(True)
    for each in dozing:
        each.join()


def p99s(snapshots: list[Snapshot]) -> list[int]:
    return [s.latency_p99_ns for s in snapshots if s.latency_p99_ns is not None]


def test_goroutines_wait_as_long_as_the_slice_lets_others_run(run_with: RunWith) -> None:
    before: list[Snapshot] = []
    after: list[Snapshot] = []

    def tune(snapshot: Snapshot) -> Mapping[str, int | str] | None:
        (before if snapshot.tunables[SLICE] == 2000 * MS else after).append(snapshot)
        return {SLICE: "5ms"} if len(p99s(before)) == 2 and not after else None

    run_with(lambda: hog_until(lambda: len(p99s(after)) >= 5), *HOGS, mine=with_tune(tune))
    assert max(p99s(before)) >= 200 * MS
    assert min(p99s(after)) < max(p99s(before)) / 2


# ---- the plugin tuner ----

GOAL = 100 * MS


def test_without_a_tuner_the_goal_is_missed(run_with: RunWith, watcher: Watcher) -> None:
    run_with(lambda: hog_until(lambda: len(p99s(watcher.snapshots)) >= 3), *HOGS, watcher=watcher)
    assert max(p99s(watcher.snapshots)) > GOAL
    assert watcher.changes == []


def test_the_tuner_reaches_the_goal_and_goes_back(run_with: RunWith, watcher: Watcher) -> None:
    def reached() -> bool:
        return any(p99 <= GOAL for p99 in p99s(watcher.snapshots)) and bool(watcher.changes)

    def is_back() -> bool:
        return bool(watcher.changes[-1].new == 2000 * MS)

    settings = [f"plugins.tuner.{each}" for each in (f"goal={GOAL}ns", "least=1", "calm=1")]
    run_with(
        lambda: hog_until(reached, is_back),
        *HOGS,
        *settings,
        watcher=watcher,
        tuner=tuner.Plugin(),
    )
    assert p99s(watcher.snapshots)[0] > GOAL
    assert {event.who for event in watcher.changes} == {"plugin tuner"}
    assert watcher.changes[0].new < watcher.changes[0].old == 2000 * MS


def test_a_rule_reaches_the_goal_and_another_goes_back(run_with: RunWith, watcher: Watcher) -> None:
    """While something computes there is always a goroutine that can run."""
    rules = (
        '[{ when = "latency_p99 > 100ms", set = { "preempt.slice" = "10ms" } }, '
        '{ when = "idle > 0", set = { "preempt.slice" = "2s" } }]'
    )

    def reached() -> bool:
        return any(p99 <= GOAL for p99 in p99s(watcher.snapshots)) and bool(watcher.changes)

    options = (f"tune.rules={rules}", "tune.confirm=1")
    run_with(
        lambda: hog_until(reached, lambda: len(watcher.changes) == 2),
        *HOGS,
        *options,
        watcher=watcher,
    )
    assert p99s(watcher.snapshots)[0] > GOAL
    assert [e[2:] for e in watcher.changes] == [
        ("rule 1", SLICE, 2000 * MS, 10 * MS),
        ("rule 2", SLICE, 10 * MS, 2000 * MS),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="the socket is Linux's")
def test_another_terminal_reaches_the_goal_and_goes_back(
    run_with: RunWith, watcher: Watcher
) -> None:
    def says(value: str) -> None:
        command = [sys.executable, "-m", "golibx", "tune", str(os.getpid()), f"{SLICE}={value}"]
        subprocess.run(command, stdout=subprocess.DEVNULL, timeout=50, check=True)

    somebody = threading.Thread(target=says, args=("10ms",))

    def reached() -> bool:
        # The command may be there sooner than anyone has waited for too long.
        if somebody.ident is None and any(p99 > GOAL for p99 in p99s(watcher.snapshots)):
            somebody.start()
        return any(p99 <= GOAL for p99 in p99s(watcher.snapshots)) and bool(watcher.changes)

    def main() -> None:
        hog_until(reached)
        somebody.join()
        says("2s")
        wait_until(lambda: len(watcher.changes) == 2)

    run_with(main, *HOGS, watcher=watcher)
    assert p99s(watcher.snapshots)[0] > GOAL
    assert {event.who.partition(" (")[0] for event in watcher.changes} == {"golibx tune"}
    assert [e[3:] for e in watcher.changes] == [
        (SLICE, 2000 * MS, 10 * MS),
        (SLICE, 10 * MS, 2000 * MS),
    ]


def tuner_after(looks: list[int | None], limits: tuple[int, int] = (1, 10_000)) -> list[int]:
    """The slice in microseconds after each look at a p99 in milliseconds, with a goal of 5."""
    mine = tuner.Plugin()
    overrides = ["plugins.enabled=tuner", "plugins.tuner.calm=2"]
    mine.golib_configure(Config.load(environ={}, overrides=overrides), "tuner")
    runtime: Any = SimpleNamespace(tunables=lambda: {SLICE: 10 * MS})
    mine.golib_start(runtime)
    slice_ns = 10 * MS
    found = []
    for p99_ms in looks:
        ns = None if p99_ms is None else p99_ms * MS
        snapshot = snapshot_of(
            0,
            latency_p99_ns=ns,
            latencies=8,
            tunables={SLICE: slice_ns},
            limits={SLICE: (limits[0] * 1000, limits[1] * 1000)},
        )
        for key, value in (mine.tune(snapshot) or {}).items():
            assert key == SLICE
            slice_ns = int(value)
        found.append(slice_ns // 1000)
    return found


def test_the_tuner_halves_and_doubles() -> None:
    assert tuner_after([5, 6, 6, 3, None]) == [10_000, 5_000, 2_500, 2_500, 2_500]
    assert tuner_after([6, 1, 1, 1, 1]) == [5_000, 5_000, 10_000, 10_000, 10_000]
    assert tuner_after([6, 6, 6, 6], limits=(3_000, 10_000)) == [5_000, 3_000, 3_000, 3_000]
    assert tuner_after([11, 11, 21, 21]) == [2_500, 625, 100, 100]
    assert tuner_after([60] * 9)[-1] == 100


def test_the_tuner_takes_longer_to_try_again() -> None:
    assert tuner_after([6, 1, 1, 6, 1, 1, 1, 1]) == [
        5_000,
        5_000,
        10_000,
        5_000,
        5_000,
        5_000,
        5_000,
        10_000,
    ]


def test_the_tour_with_the_tuner(tmp_path: Path) -> None:
    """During its hog the tuner shortens the slice, and the tour's figures add up."""
    root = Path(__file__).parent.parent
    if not (root / "examples" / "tour.py").exists():
        pytest.skip("there are no examples beside the tests")
    watch = (
        "from golibx.hookspec import hookimpl\n"
        "@hookimpl\ndef on_tune(event): print('changed', event.who, event.new < event.old)\n"
    )
    (tmp_path / "watch.py").write_text(watch)
    options = ("plugins.enabled=tuner,./watch.py", "plugins.tuner.goal=500us", "preempt.slice=50ms")
    command = [sys.executable, "-m", "golibx", "run", "--no-config"]
    command += [part for option in options for part in ("--set", option)]
    command += [str(root / "examples" / "tour.py"), "--seconds", "1", "--clients", "20"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=55, env=environment
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "changed plugin tuner True\n" in result.stdout


# ---- what there is ----


def test_the_hook_is_known() -> None:
    assert "tune" in PluginManager.hook_names()


def test_a_meter_counts_from_the_look_before() -> None:
    def main() -> None:
        meter = Meter({SLICE: (MS, 2 * MS)})
        go(int).join()
        first = meter.snapshot()
        second = meter.snapshot()
        assert (first.spawns, second.spawns) == (1, 0)
        assert second.time_ns - second.interval_ns == first.time_ns
        assert second.limits[SLICE] == (MS, 2 * MS)

    golibx.run(main)


def test_what_a_meter_counts() -> None:
    def main() -> None:
        _core.measure_latency()
        before = stats()
        meter = Meter({})
        since = stats()
        make_all_happen(before)
        until = stats()
        found = meter.snapshot()
        after = stats()
        for name in ("spawns", "switches", "preemptions", "retakes", "netpoll_wakeups", "idle"):
            counted = getattr(found, name)
            assert 0 < until[name] - since[name] <= counted <= after[name] - before[name], name
        assert found.preemptions + found.retakes + found.netpoll_wakeups + found.idle > 3
        longest = max(_core.latencies())
        assert found.latency_p50_ns is not None
        assert found.latency_p90_ns is not None
        assert found.latency_p99_ns is not None
        assert found.latency_p50_ns <= found.latency_p90_ns <= found.latency_p99_ns <= longest
        assert found.latency_max_ns == longest

    golibx.run(main, config={"preempt": {"slice": "1ms"}})


def make_all_happen(before: dict[str, int]) -> None:
    """A retake, an idle wait, one that is woken by its socket, a preemption, a latency."""

    def is_preempted() -> bool:
        other = go(int)
        for _ in range(100_000):
            pass
        other.join()
        return stats()["preemptions"] > before["preemptions"]

    until_retaken(lambda: time.sleep(0.001))
    with net.listen(("127.0.0.1", 0)) as listener:
        accepting = go(listener.accept)
        wait_until_parked(accepting)
        with net.dial(listener.address):
            accepting.result()[0].close()
    sleep(0.001)
    wait_until(is_preempted)
    wait_until(lambda: go(int).join() and bool(_core.latencies()))


def test_a_snapshot_tells_who_is_ready_and_who_blocks() -> None:
    def main() -> None:
        reads, writes = os.pipe()
        blocked = go(os.read, reads, 1)
        wait_until(lambda: stats()["threads_blocked"] == 1)
        meter = Meter({})
        ready = [go(int) for _ in range(3)]
        found = meter.snapshot()
        assert (found.runnable, found.threads_blocked) == (3, 1)
        for each in ready:
            each.join()
        assert meter.snapshot().runnable == 0
        os.write(writes, b"x")
        assert blocked.result() == b"x"
        os.close(reads)
        os.close(writes)

    golibx.run(main)


def test_a_rule_leaves_a_key_alone_that_it_has_set(script: Script) -> None:
    """For `[tune] cooldown`; another key, set by a later rule, says that the second was due."""
    program = """
import golibx
from golibx import Chan, go, tunables
from golibx.testing import wait_until
rules = [
    {"when": "goroutines > 2", "set": {"preempt.slice": "2ms"}},
    {"when": "goroutines <= 2", "set": {"preempt.slice": "5ms"}},
    {"when": "goroutines <= 2", "set": {"native.spinning": 25}},
]
def main():
    chan = Chan()
    waiting = [go(chan.recv_ok) for _ in range(3)]
    wait_until(lambda: tunables()["preempt.slice"] == 2_000_000)
    chan.close()
    for each in waiting: each.join()
    wait_until(lambda: tunables()["native.spinning"] == 25)
    print(tunables()["preempt.slice"])
often = {"tune_interval": "1ms"}
golibx.run(main, config={"tune": {"cooldown": "1h", "rules": rules}, "hooks": often})
"""
    assert script.passes(program) == "2000000\n"
