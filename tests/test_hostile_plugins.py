"""Plugins that do harm: the program and the others go on, and the plugin at fault is named.

Each way to do harm is tried in each hook that is called while a program runs. Plugins that take too
long are in test_plugin_stats.py, what `tune` returns in test_tune.py, what `golib_configure` and
`golib_cli` raise in test_pluginmanager.py and test_cli.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import Cancelled, current, go, sleep
from golibx.config import Config
from golibx.hookspec import hookimpl
from golibx.pluginmanager import PluginManager
from golibx.testing import wait_until

HOOKS = ("golib_start", "on_goroutine_start", "tune", "golib_stop")
OFTEN = ("hooks.tune_interval=1ms", "hooks.flush_interval=1ms")


class Odd(BaseException):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise KeyboardInterrupt("in a text")


def recurse() -> None:
    recurse()


def raiser(exc: type[BaseException]) -> Callable[[], None]:
    def harm() -> None:
        raise exc

    return harm


def cancel_itself() -> None:
    goroutine = current()
    assert goroutine is not None
    goroutine.cancel()
    sleep(1)


RAISES: dict[str, Callable[[], object]] = {
    "ValueError": raiser(ValueError),
    "MemoryError": raiser(MemoryError),
    "StopIteration": raiser(StopIteration),
    "GeneratorExit": raiser(GeneratorExit),
    "SystemExit": raiser(SystemExit),
    "KeyboardInterrupt": raiser(KeyboardInterrupt),
    "Cancelled": raiser(Cancelled),
    "Deadlock": raiser(golibx.Deadlock),
    "Odd": raiser(Odd),
    "RecursionError": recurse,
}


class Good:
    """The plugin beside it, and what it has seen."""

    def __init__(self) -> None:
        self.called: list[str] = []

    @hookimpl
    def golib_start(self, runtime: Any) -> None:
        self.runtime = runtime
        self.called.append("golib_start")

    @hookimpl
    def on_goroutine_start(self) -> None:
        self.called.append("on_goroutine_start")

    @hookimpl
    def tune(self) -> None:
        self.called.append("tune")

    @hookimpl
    def golib_stop(self) -> None:
        self.counted = self.runtime.stats() if self.runtime else {}
        self.called.append("golib_stop")


def hostile(hook: str, harm: Callable[[], object]) -> SimpleNamespace:
    """A plugin that does it in its one hook."""

    def function() -> None:
        harm()

    function.__name__ = hook
    return SimpleNamespace(**{hook: hookimpl(function)})


def run_beside(
    good: Good,
    bad: object,
    monkeypatch: pytest.MonkeyPatch,
    *overrides: str,
    waits: bool = False,
) -> list[object]:
    """A program with both, which waits until the good one has been called again and again.

    And, with `waits`, until all goroutines have ended.
    """
    monkeypatch.setitem(sys.modules, "given", SimpleNamespace(bad=bad, good=good))
    options = ["plugins.enabled=given:bad,given:good", *OFTEN, *overrides]

    def main() -> list[object]:
        results = []
        for number in range(5):
            before = len(good.called)
            results.append(go(lambda x: x * x, number).result())
            wait_until(lambda: good.called[before:].count("tune") > 1)
            wait_until(lambda: "on_goroutine_start" in good.called[before:])
        if waits:
            wait_until(lambda: golibx.stats()["goroutines"] == 1)
        return results

    return golibx.run(main, config=Config.load(environ={}, overrides=options))


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("name", RAISES)
def test_one_that_raises(
    name: str,
    hook: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    good = Good()
    assert run_beside(good, hostile(hook, RAISES[name]), monkeypatch) == [0, 1, 4, 9, 16]
    said = capfd.readouterr().err
    assert said.count(f"golibx: plugin bad raised in {hook} and is disabled:") == 1
    assert said.count("golibx: ") == 1
    assert f"{name}" in said
    assert good.called[0] == "golib_start"
    assert good.called[-1] == "golib_stop"
    stats = good.runtime.plugin_stats()
    assert (stats["bad"].state, stats["good"].state) == ("raised", "active")


@pytest.mark.parametrize("hook", ["on_goroutine_start", "tune"])
def test_one_that_starts_goroutines_without_end(
    hook: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each call starts some, and their events are calls again."""
    good = Good()
    started = [0]

    def breed() -> None:
        for _ in range(3):
            go(int)
        started[0] += 3

    # There are always some left at the end, of which it then says so.
    bad = hostile(hook, breed)
    found = run_beside(good, bad, monkeypatch, "runtime.shutdown_timeout=10ms")
    assert found == [0, 1, 4, 9, 16]
    said = capfd.readouterr().err
    assert hook == "tune" or f"{hook} of plugin " in said or "did not end within 10ms" in said
    assert started[0] > 3
    assert "golib_stop" in good.called


def test_one_that_starts_very_many_goroutines_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """More than the rings have room for: what is dropped is counted."""
    good = Good()
    many = 30_000
    left = [1]

    def flood() -> None:
        if left:
            left.clear()
            for _ in range(many):
                go(int)

    bad = hostile("on_goroutine_start", flood)
    found = run_beside(good, bad, monkeypatch, "hooks.ring_size=4096", waits=True)
    assert found == [0, 1, 4, 9, 16]
    assert capfd.readouterr().err == ""
    dropped = good.counted["events_dropped"]
    assert good.called.count("on_goroutine_start") + dropped == many + 5
    assert dropped > 0


def unregister(good: Good) -> None:
    """By what a plugin is not to touch."""
    manager = good.runtime._plugins
    (own,) = (each for each in manager.plugins if each.name == "bad")
    manager._checker.unregister(own.object)
    manager.plugins.remove(own)


@pytest.mark.parametrize("hook", HOOKS[1:])
@pytest.mark.parametrize("then", ["goes on", "raises"])
def test_one_that_unregisters_itself_in_its_hook(
    hook: str, then: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    good = Good()
    left = [1]

    def leave() -> None:
        if left:
            left.clear()
            unregister(good)
        if then == "raises":
            raise ValueError("gone")

    assert run_beside(good, hostile(hook, leave), monkeypatch) == [0, 1, 4, 9, 16]
    said = capfd.readouterr().err
    assert said.count(f"plugin bad raised in {hook}") == (then == "raises")
    assert said.count("\nValueError: gone\n") == (then == "raises")
    assert said.count("Traceback") == (then == "raises")
    assert good.called[-1] == "golib_stop"


def test_one_that_takes_all_hooks_away(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of its own object, and of the list that it is given."""
    good = Good()
    bad = SimpleNamespace()

    def vanish() -> None:
        vars(bad).clear()
        sys.modules.pop("given", None)
        assert good.runtime.plugins is not good.runtime.plugins  # a tuple of its own

    vars(bad).update(vars(hostile("on_goroutine_start", vanish)))
    assert run_beside(good, bad, monkeypatch) == [0, 1, 4, 9, 16]
    assert capfd.readouterr().err == ""


def test_one_that_fails_in_two_hooks_is_reported_once(script: Script) -> None:
    """The first hangs; golib_stop raises meanwhile, and then the end of the run frees the first."""
    program = """
import sys, time, types, golibx
from golibx import go, sleep
from golibx.hookspec import hookimpl
came = []
class Bad:
    @hookimpl
    def on_goroutine_exit(self):
        came.append(1)
        time.sleep(600)
    @hookimpl
    def golib_stop(self):
        raise ValueError("first")
sys.modules["given"] = types.SimpleNamespace(bad=Bad())
def main():
    go(int).join()
    while not came: sleep(0.001)
settings = {"enabled": ["given:bad"]}
config = {"plugins": settings, "hooks": {"flush_interval": "1ms"}}
golibx.run(main, config={**config, "runtime": {"shutdown_timeout": "10ms"}})
print("over")
"""
    result = script(program)
    assert (result.returncode, result.stdout) == (0, "over\n")
    assert result.stderr.count("plugin bad raised in") == 1
    assert "plugin bad raised in golib_stop and is disabled:" in result.stderr
    assert "on_goroutine_exit of plugin bad has not returned within 1s" in result.stderr
    assert "panicked" not in result.stderr
    assert "list.remove" not in result.stderr


@pytest.mark.parametrize("hook", ["golib_configure", "golib_cli"])
@pytest.mark.parametrize("name", ["ValueError", "Cancelled", "SystemExit", "RecursionError"])
def test_one_that_raises_before_the_run(
    hook: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = Good()
    given = SimpleNamespace(bad=hostile(hook, RAISES[name]), good=good)
    monkeypatch.setitem(sys.modules, "given", given)
    options = ["plugins.enabled=given:bad,given:good"]
    manager = PluginManager(Config.load(environ={}, overrides=options))
    nothing: Any = None
    manager.configure(nothing)
    manager.extend_cli(nothing)
    manager.start(nothing)
    assert good.called == ["golib_start"]
    assert [plugin.name for plugin in manager.plugins] == ["good"]
    said = capsys.readouterr().err
    assert said.count(f"golibx: plugin bad raised in {hook} and is disabled:") == 1
    assert name in said
