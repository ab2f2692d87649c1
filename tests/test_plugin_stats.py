"""The time of plugins' hooks: how it is accounted, shown, and held to `[hooks] share`.

What goes over its share does so for as long as it takes to be noticed, and no test asks how long
that was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import control, go, pluginmanager
from golibx.config import Config
from golibx.hookspec import HookStats, PluginStats, hookimpl
from golibx.pluginmanager import PluginManager
from golibx.runtime import Runtime
from golibx.testing import wait_until
from test_control import golibx as command
from test_dump import until_ready

START = (1, 1, 2, 1, 0, 0)
EXIT = (4, 2, 2, 1, 0, 0)
OFTEN = ("hooks.flush_interval=1ms", "hooks.tune_interval=1ms", "hooks.share_interval=20ms")

Seen = dict[str, PluginStats]


@pytest.fixture
def enable(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """A configuration with plugins, objects by their names."""

    def config(*overrides: str, **plugins: object) -> Config:
        monkeypatch.setitem(sys.modules, "given", SimpleNamespace(**plugins))
        enabled = ",".join(f"given:{name}" for name in plugins)
        return Config.load(environ={}, overrides=[f"plugins.enabled={enabled}", *OFTEN, *overrides])

    return config


Enable = Callable[..., Config]


class Noted:
    """A plugin that keeps the runtime, and counts the goroutines that start."""

    def __init__(self) -> None:
        self.started = 0

    @hookimpl
    def golib_start(self, runtime: Runtime) -> None:
        self.runtime = runtime

    @hookimpl
    def on_goroutine_start(self) -> None:
        self.started += 1

    def state(self, name: str) -> str:
        return self.runtime.plugin_stats()[name].state


# ---- what is counted ----


def test_the_time_of_each_hook(enable: Enable, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only the hooks move."""
    now = [1_000]
    monkeypatch.setattr(pluginmanager, "monotonic_ns", lambda: now[0])
    seen: list[Seen] = []

    class Slow:
        @hookimpl
        def golib_start(self) -> None:
            now[0] += 500

        @hookimpl
        def on_goroutine_start(self) -> None:
            now[0] += 30
            seen.append(manager.stats())

        @hookimpl
        def on_goroutine_exit(self) -> None:
            now[0] += 7
            raise ValueError

    class Quick:
        @hookimpl
        def on_goroutine_start(self) -> None:
            now[0] += 1

        @hookimpl
        def tune(self) -> None:
            now[0] += 2

    manager = PluginManager(enable(slow=Slow(), quick=Quick()))
    manager.begin()
    runtime: Any = object()
    manager.start(runtime)
    manager.dispatch([START, START, EXIT, EXIT, START])
    manager.ask_tune(None, lambda *_: None)
    # Slow's hooks: 30 and 30, and 7; Quick's: 1 each, and 2. Then no plugin was called.
    now[0] += 1_500 - (now[0] - 1_000) % 1_500
    slow, quick = manager.stats().values()
    assert slow.state == "raised"
    assert slow.hooks == {
        "golib_start": HookStats(1, 500, 500, 0),
        "on_goroutine_start": HookStats(2, 60, 30, 0),
        "on_goroutine_exit": HookStats(1, 7, 7, 0),
    }
    assert quick == PluginStats(
        state="active",
        share=100 * 5 / 1_500,
        hooks={"on_goroutine_start": HookStats(3, 3, 1, 0), "tune": HookStats(1, 2, 2, 0)},
    )
    assert slow.share == 100 * 67 / 1_500
    # During the second call, which had lasted 30 by then.
    assert seen[1]["slow"].hooks["on_goroutine_start"] == HookStats(1, 30, 30, 30)


def test_the_share_is_that_since_the_last_look(
    enable: Enable, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000]
    monkeypatch.setattr(pluginmanager, "monotonic_ns", lambda: now[0])

    class Hungry:
        ns = 20

        @hookimpl
        def golib_start(self) -> None:
            now[0] += 900

        @hookimpl
        def on_goroutine_start(self) -> None:
            now[0] += self.ns

    hungry = Hungry()
    manager = PluginManager(enable(hungry=hungry))
    manager.begin()
    runtime: Any = object()
    manager.start(runtime)
    # 20 of 100, of 1000, of 100, and again.
    for pause in (80, 980, 80):
        manager.dispatch([START])
        now[0] += pause
        assert manager.look_at_shares(2, disable=True) == []
    manager.dispatch([START])
    now[0] += 80
    (line,) = manager.look_at_shares(2, disable=False)
    assert line == (
        "golibx: plugin hungry took 20.0% of the last 1e-07 s in its hooks (1 call); "
        "[hooks] share allows 2%"
    )
    assert manager.stats()["hungry"].state == "over its share"
    manager.dispatch([START])
    assert manager.look_at_shares(2, disable=False) == []  # once is enough
    assert manager.event_mask


def test_a_run_without_plugins() -> None:
    assert Runtime(Config.load(environ={})).plugin_stats() == {}
    assert pluginmanager.running is None


# ---- the limit, in a run ----


def spins(noted: Noted) -> Callable[[], object]:
    def hook() -> None:
        while noted.state("bad") == "active":
            pass

    return hook


def sleeps(noted: Noted) -> Callable[[], object]:
    def hook() -> None:
        wait_until(lambda: noted.state("bad") != "active")

    return hook


@pytest.mark.parametrize("hook_name", ["on_goroutine_start", "tune"])
@pytest.mark.parametrize("behave", [spins, sleeps])
@pytest.mark.parametrize("over", ["warn", "disable"])
def test_one_that_is_over_its_share(
    enable: Enable,
    capsys: pytest.CaptureFixture[str],
    behave: Callable[[Noted], Callable[[], object]],
    hook_name: str,
    over: str,
) -> None:
    """The program goes on, and the other plugin gets all of its events, once the hook returns."""
    noted = Noted()
    hook, stopped = behave(noted), []

    class Bad:
        @hookimpl
        def golib_stop(self) -> None:
            stopped.append(noted.runtime.plugin_stats()["bad"].hooks[hook_name].calls)

    def implementation(self: object) -> None:
        hook()

    implementation.__name__ = hook_name
    setattr(Bad, hook_name, hookimpl(implementation))

    def main() -> int:
        go(int).join()
        wait_until(lambda: noted.state("bad") != "active")
        calls = noted.runtime.plugin_stats()["bad"].hooks[hook_name].calls
        for _ in range(5):
            go(int).join()
        wait_until(lambda: noted.started == 6)
        return calls

    config = enable("hooks.share=50", f"hooks.over_share={over}", noted=noted, bad=Bad())
    calls = golibx.run(main, config=config)
    named = "golibx: plugin bad took "
    said = capsys.readouterr().err
    assert said.count(named) == 1
    assert said.count("\n") == 1
    assert f", and one of {hook_name} that goes on since " in said
    assert "[hooks] share allows 50%" in said
    assert ("they are not called any more, but for golib_stop" in said) == (over == "disable")
    (called,) = stopped
    if over == "disable":
        assert called == 1
        assert noted.state("bad") == "disabled"
    else:
        assert called >= calls
        assert noted.state("bad") == "over its share"
    assert noted.state("noted") == "active"


def test_what_only_a_disabled_one_wanted_is_not_recorded(enable: Enable) -> None:
    noted = Noted()

    class Bad:
        @hookimpl
        def on_goroutine_exit(self) -> None:
            while noted.state("bad") == "active":
                pass

    def main() -> None:
        go(int).join()
        wait_until(lambda: noted.state("bad") == "disabled")
        wait_until(lambda: noted.started == 1)
        hooks = noted.runtime.plugin_stats()["bad"].hooks
        wait_until(lambda: hooks_of("bad")["on_goroutine_exit"].calls == 1)
        assert hooks.keys() == {"on_goroutine_exit"}
        # The next batch is the first under the new mask, at the latest.
        go(int).join()
        wait_until(lambda: noted.started == 2)
        before = golibx.stats()["events_recorded"]
        go(int).join()
        wait_until(lambda: noted.started == 3)
        assert golibx.stats()["events_recorded"] == before + 1

    def hooks_of(name: str) -> Any:
        return noted.runtime.plugin_stats()[name].hooks

    golibx.run(
        main, config=enable("hooks.share=50", "hooks.over_share=disable", noted=noted, bad=Bad())
    )


def recurses(event: object) -> None:
    recurses(event)


def raises(_: object) -> None:
    raise golibx.Cancelled


@pytest.mark.parametrize("hook", [recurses, raises])
def test_one_that_raises_is_accounted(
    enable: Enable, capsys: pytest.CaptureFixture[str], hook: Callable[..., object]
) -> None:
    noted = Noted()

    def on_goroutine_start(event: object) -> None:
        hook(event)

    def main() -> None:
        for _ in range(3):
            go(int).join()
        wait_until(lambda: noted.started == 3)

    bad = SimpleNamespace(on_goroutine_start=hookimpl(on_goroutine_start))
    golibx.run(main, config=enable("hooks.share=100", noted=noted, bad=bad))
    found = noted.runtime.plugin_stats()
    assert found["bad"].state == "raised"
    assert found["bad"].hooks["on_goroutine_start"].calls == 1
    assert found["noted"].hooks["on_goroutine_start"].calls == 3
    assert capsys.readouterr().err.count("plugin bad raised in on_goroutine_start") == 1


def test_a_plugin_may_ask_in_its_hooks_and_goroutines(enable: Enable) -> None:
    seen: list[Seen] = []

    class Asks(Noted):
        @hookimpl
        def golib_stop(self) -> None:
            seen.append(self.runtime.plugin_stats())

    def main() -> None:
        go(int).join()
        seen.append(go(asks.runtime.plugin_stats).result())

    asks = Asks()
    golibx.run(main, config=enable(asks=asks))
    assert seen[1]["asks"].hooks["golib_stop"].present_ns > 0
    assert seen[1]["asks"].hooks["on_goroutine_start"].calls == 2
    assert seen[0]["asks"].state == "active"


# ---- from another terminal ----

PROGRAM = """
import sys, types, golibx
from golibx.hookspec import hookimpl
class Plugin:
    @hookimpl
    def golib_start(self): pass
    @hookimpl
    def on_goroutine_start(self): pass
    @hookimpl
    def on_goroutine_exit(self): 1 / 0
sys.modules["given"] = types.SimpleNamespace(mine=Plugin())
def main():
    for _ in range(3):
        golibx.go(int).join()
    golibx.sleep(0.1)
    print("ready")
    while True: golibx.sleep(0.01)
golibx.run(main, config={"plugins": {"enabled": PLUGINS}, "hooks": {"flush_interval": "1ms"}})
"""
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the socket is Linux's")


@needs_linux
def test_plugins_of_a_process(script: Script) -> None:
    program = PROGRAM.replace("PLUGINS", "['given:mine', 'schedtrace']")
    with script.start(program, limit=55) as process:
        until_ready(process)
        wait_until(lambda: control.plugins(process.pid)["mine"]["state"] == "raised", timeout=50)
        result = command("plugins", "--stats", process.pid)
        as_json = command("plugins", "--stats", process.pid, "--json")
        process.kill()
    assert (result.returncode, result.stderr) == (0, "")
    header, mine, *rows = result.stdout.splitlines()
    assert header.split() == [
        "plugin",
        "share",
        "state",
        "hook",
        *("calls", "total_ns", "mean_ns", "longest_ns", "present_ns"),
    ]
    assert mine.split()[0] == "mine"
    assert mine.split()[1].endswith("%")
    assert mine.split()[2:] == ["raised"]
    other = next(number for number, row in enumerate(rows) if row.startswith("schedtrace"))
    shown = {row.split()[0]: row.split()[1:] for row in rows[:other]}
    assert shown["golib_start"][0] == shown["on_goroutine_exit"][0] == "1"
    calls, total, mean, longest = map(int, shown["on_goroutine_exit"])
    assert (calls, mean, longest) == (1, total, total)
    assert rows[other].split()[2] == "active"
    found = json.loads(as_json.stdout)
    assert list(found) == ["mine", "schedtrace"]
    assert found["mine"].keys() == set(PluginStats._fields)
    assert found["mine"]["hooks"]["golib_start"].keys() == set(HookStats._fields)


@needs_linux
def test_plugins_of_a_process_that_has_none(script: Script) -> None:
    with script.start(PROGRAM.replace("PLUGINS", "[]"), limit=55) as process:
        until_ready(process)
        result = command("plugins", "--stats", process.pid)
        process.kill()
    assert result.stdout == f"process {process.pid} has no plugins\n"


def test_plugins_stats_of_what_it_cannot_be() -> None:
    result = command("plugins", "--stats", 1)
    assert result.returncode == 1
    assert "process 1" in result.stderr
    for arguments in (["--stats", "1", "--set", "a.b=1"], ["--json"], ["--stats", "x"]):
        assert command("plugins", *arguments).returncode == 2


def test_the_answer_without_a_run() -> None:
    assert control.answer("plugins", 1) == "+{}\n"
    assert control.answer("plugins now", 1).startswith("-there is no request 'plugins' of golibx")
