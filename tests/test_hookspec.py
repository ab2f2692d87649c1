"""The hooks and their events, as plugins see them; how the core's numbers become events."""

from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from golibx import hookspec
from golibx.config import Config
from golibx.hookspec import (
    GoroutineExit,
    GoroutineStart,
    NetpollReady,
    Preempt,
    Retake,
    hookimpl,
)
from golibx.pluginmanager import EVENT_HOOKS, PluginManager

EVENTS = (GoroutineStart, GoroutineExit, Preempt, Retake, NetpollReady)


def manager_of(plugin: object, monkeypatch: pytest.MonkeyPatch) -> PluginManager:
    """A manager whose one plugin is `plugin`."""
    module = SimpleNamespace(the_plugin=plugin)
    monkeypatch.setitem(sys.modules, "module_with_plugin", module)
    overrides = ["plugins.enabled=module_with_plugin:the_plugin"]
    return PluginManager(Config.load(environ={}, overrides=overrides))


class Recorder:
    """A plugin with one hook of every kind that takes all of its arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []


def _recorder_of(name: str) -> Any:
    arguments = list(inspect.signature(getattr(hookspec, name)).parameters)
    source = f"def {name}(self, {', '.join(arguments)}):\n    self.calls.append(({name!r}, "
    source += f"dict({', '.join(f'{argument}={argument}' for argument in arguments)})))"
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return hookimpl(namespace[name])


for _name in PluginManager.hook_names():
    setattr(Recorder, _name, _recorder_of(_name))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def manager(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> PluginManager:
    return manager_of(recorder, monkeypatch)


def event_of(recorder: Recorder, manager: PluginManager, raw: tuple[int, ...]) -> object:
    manager.dispatch([raw])  # type: ignore[list-item]
    ((_, arguments),) = recorder.calls
    recorder.calls.clear()
    return arguments["event"]


def test_golib_configure(recorder: Recorder, manager: PluginManager) -> None:
    runtime: Any = object()
    manager.configure(runtime)
    ((name, arguments),) = recorder.calls
    assert name == "golib_configure"
    assert isinstance(arguments["config"], Config)
    assert arguments["runtime"] is runtime


def test_golib_start(recorder: Recorder, manager: PluginManager) -> None:
    runtime: Any = object()
    manager.start(runtime)
    assert recorder.calls == [("golib_start", {"runtime": runtime})]


def test_golib_stop(recorder: Recorder, manager: PluginManager) -> None:
    runtime: Any = object()
    manager.stop(runtime)
    assert recorder.calls == [("golib_stop", {"runtime": runtime})]


def test_golib_cli(recorder: Recorder, manager: PluginManager) -> None:
    group: Any = object()
    manager.extend_cli(group)
    assert recorder.calls == [("golib_cli", {"group": group})]


def test_on_goroutine_start(recorder: Recorder, manager: PluginManager) -> None:
    event = event_of(recorder, manager, (0, 1_000, 7, 3, 0))
    assert event == GoroutineStart(time_ns=1_000, goroutine_id=7, parent_id=3)


@pytest.mark.parametrize(("code", "outcome"), [(0, "returned"), (1, "raised"), (2, "cancelled")])
def test_on_goroutine_exit(
    recorder: Recorder, manager: PluginManager, code: int, outcome: str
) -> None:
    event = event_of(recorder, manager, (1, 2_000, 7, 900, code))
    expected = GoroutineExit(time_ns=2_000, goroutine_id=7, lifetime_ns=900, outcome=outcome)
    assert event == expected


@pytest.mark.parametrize("handed_off", [False, True])
def test_on_preempt(recorder: Recorder, manager: PluginManager, handed_off: bool) -> None:
    event = event_of(recorder, manager, (2, 3_000, 7, 10_000_000, int(handed_off)))
    expected = Preempt(time_ns=3_000, goroutine_id=7, ran_ns=10_000_000, handed_off=handed_off)
    assert event == expected
    assert type(event.handed_off) is bool


@pytest.mark.parametrize("in_vain", [False, True])
def test_on_retake(recorder: Recorder, manager: PluginManager, in_vain: bool) -> None:
    event = event_of(recorder, manager, (3, 4_000, 7, 25_000, int(in_vain)))
    assert event == Retake(time_ns=4_000, goroutine_id=7, blocked_ns=25_000, in_vain=in_vain)
    assert type(event.in_vain) is bool


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_on_netpoll_ready(recorder: Recorder, manager: PluginManager, mode: int) -> None:
    event = event_of(recorder, manager, (4, 5_000, 7, 12, mode))
    assert event == NetpollReady(5_000, 7, fd=12, readable=mode in (1, 3), writable=mode in (2, 3))


def test_events_are_immutable() -> None:
    event = GoroutineStart(1, 2, 3)
    with pytest.raises(AttributeError):
        event.parent_id = 4  # type: ignore[misc]


def test_every_event_kind_has_its_hook() -> None:
    kinds = [name for name, _ in EVENT_HOOKS]
    assert kinds == [name for name in PluginManager.hook_names() if name.startswith("on_")]
    annotations = [getattr(hookspec, name).__annotations__["event"] for name in kinds]
    assert annotations == [event.__name__ for event in EVENTS]


def test_hook_takes_only_the_arguments_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Plugin:
        @hookimpl
        def on_retake(self) -> None:
            calls.append("on_retake")

        @hookimpl
        def golib_configure(self, runtime: object) -> None:
            calls.append("golib_configure")

    manager = manager_of(Plugin(), monkeypatch)
    manager.dispatch([(3, 1, 2, 3, 0)])
    manager.configure(SimpleNamespace())  # type: ignore[arg-type]
    assert calls == ["on_retake", "golib_configure"]
