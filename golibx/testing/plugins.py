"""Tests of plugins: feed one events, run a function with it, and look at what it saw and changed.

    from golibx.hookspec import GoroutinePark
    from golibx.testing.plugins import feed, run_with

    feed(plugin, GoroutinePark(1_000, "python", 7, "chan receive"))
    seen = run_with(plugin, main, settings={"limit": "1ms"})
    assert seen.of(GoroutinePark)[0].reason == "chan receive"
    assert seen.error is None

The plugin is loaded, checked, configured and called as in any run: what is recorded is what its
hooks were called with, in order, and what they returned or raised.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from inspect import ismodule
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from golibx import hookspec
from golibx.config import Config
from golibx.eventbatch import EVENT_HOOKS, EventBatch
from golibx.hookspec import PluginStats, Snapshot, Tune, hookimpl
from golibx.runtime import Runtime, refuse_async
from golibx.tuning import limits_of, tunables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from golibx.hookspec import Tuning

__all__ = ["Call", "Seen", "feed", "run_with", "snapshot"]

Result = TypeVar("Result")
Event = TypeVar("Event")

_QUICK = {"flush_interval": "1ms", "tune_interval": "1ms"}
"""Of [hooks], unless the test says otherwise: no test waits for long."""
_HOOKS = {
    getattr(hookspec, getattr(hookspec, name).__annotations__["event"]): name
    for name, _ in EVENT_HOOKS
}
"""The hook for each type of event."""
_numbers = count(1)


class Call(NamedTuple):
    """One call of a plugin's hook."""

    hook: str
    """The hook's name."""
    arguments: tuple[object, ...]
    """Those that it takes, in its order."""
    returned: object
    """What it returned; None where it raised."""


class Seen(Generic[Result]):
    """What happened to a plugin.

    Attributes:
        result: what the function returned that was run; None of feed().
        plugin: the plugin, as it was called: of a class, the instance.
        calls: its hooks' calls that have returned or raised, in order.
        changes: the values that were changed on its behalf, in order.
        error: what one of its hooks raised, and it was disabled for; None for nothing.
        stderr: what was written to sys.stderr meanwhile: golibx's messages, and all others.
        stats: the time of its hooks, as of Runtime.plugin_stats() at the end.
    """

    result: Result
    plugin: Any
    stats: PluginStats

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.changes: list[Tune] = []
        self.error: BaseException | None = None
        self.stderr = ""

    @property
    def events(self) -> list[object]:
        """The events that it was given, in order. Of hooks that do not take theirs there are none.

        See Seen.calls for those.
        """
        return [c.arguments[0] for c in self.calls if c.hook.startswith("on_") and c.arguments]

    def of(self, *types: type[Event]) -> list[Event]:
        """The events of these types."""
        return [event for event in self.events if isinstance(event, types)]

    @property
    def tunings(self) -> list[Tuning]:
        """What its hook `tune` returned, each time but for None."""
        returned = [c.returned for c in self.calls if c.hook == "tune" and c.returned is not None]
        return cast("list[Tuning]", returned)

    def __repr__(self) -> str:
        hooks = ", ".join(dict.fromkeys(call.hook for call in self.calls))
        return f"<Seen: {len(self.calls)} calls of {hooks or 'nothing'}; error={self.error!r}>"


class _Recording(Runtime):
    """A run that writes down what the hooks of one plugin are called with."""

    def __init__(self, config: Config, name: str, seen: Seen[Any]) -> None:
        self._recorded = name
        self._seen = seen
        super().__init__(config)

    def _hook_caller(self) -> Callable[..., object]:
        self._call = super()._hook_caller()
        return self._record

    def give(self, event: object) -> None:
        """Calls the hooks for it."""
        assert self._plugins is not None
        if isinstance(event, Snapshot):
            self._plugins.ask_tune(event, lambda *_: None)
        elif isinstance(event, EventBatch):
            self._plugins.dispatch_batch(event)
        else:
            self._plugins.deliver(_HOOKS[type(event)], event)

    def _record(self, function: Callable[..., object], /, *arguments: object) -> object:
        manager = self._plugins
        hook = None if manager is None else manager.calling
        if hook is None or hook.plugin.name != self._recorded or function is not hook.function:
            return self._call(function, *arguments)
        returned = None
        try:
            returned = self._call(function, *arguments)
        except BaseException as exc:
            self._seen.error = exc
            raise
        finally:
            self._seen.calls.append(Call(hook.name, arguments, returned))
        return returned


class _Changes:
    """A plugin that keeps what was changed on behalf of another one."""

    def __init__(self, name: str, seen: Seen[Any]) -> None:
        self._who = f"plugin {name}"
        self._seen = seen

    @hookimpl
    def on_tune(self, event: Tune) -> None:
        if event.who == self._who:
            self._seen.changes.append(event)


class _Tee:
    """What sys.stderr is meanwhile: it keeps what is written, and passes everything on."""

    def __init__(self, other: Any) -> None:
        self._other = other
        self._parts: list[str] = []

    def write(self, text: str) -> int:
        self._parts.append(text)
        if self._other is not None:  # as under pythonw
            self._other.write(text)
        return len(text)

    def flush(self) -> None:
        if self._other is not None:
            self._other.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._other, name)

    @property
    def text(self) -> str:
        return "".join(self._parts)


def run_with(
    plugin: object,
    fn: Callable[..., Result],
    /,
    *args: Any,
    name: str | None = None,
    settings: Mapping[str, object] | None = None,
    config: Mapping[str, object] | None = None,
    **kwargs: Any,
) -> Seen[Result]:
    """Runs `fn(*args, **kwargs)` as the main goroutine, with a plugin, and tells what that saw.

    Args:
        plugin: a class, which is instantiated; an object or module with hooks; or a str, as an item
            of `[plugins] enabled`.
        fn: the main function.
        args: its arguments.
        name: what the plugin is called in messages, and its table; as `[plugins] enabled` would
            call it unless given. Not for a str.
        settings: the plugin's own table, [plugins.NAME].
        config: the tables of golib.toml, as nested dicts. The environment has no say. Events are
            delivered, and `tune` asked, each millisecond unless [hooks] says otherwise.
        kwargs: more arguments of `fn`.

    Raises:
        ConfigError: the configuration, or the plugin, is not right; nothing was run.
        TypeError: `fn` cannot be run, or the plugin is none of these.
        BaseException: what `fn` raises.
    """
    refuse_async(fn)
    with _prepared(plugin, name, settings, config) as (runtime, seen):
        seen.result = runtime.run(fn, args, kwargs)
    return seen


def feed(
    plugin: object,
    /,
    *events: object,
    name: str | None = None,
    settings: Mapping[str, object] | None = None,
    config: Mapping[str, object] | None = None,
) -> Seen[None]:
    """Calls the hooks of a plugin for these events, one after the other; nothing is run.

    `golib_configure` is called before; `golib_start` and `golib_stop` are not, as they are for a
    run. What `tune` returns is not set: see Seen.tunings.

    Args:
        plugin: as for run_with().
        events: of golibx.hookspec, a Snapshot for `tune` among them: see snapshot(); or an
            EventBatch for `take_events`.
        name: as for run_with().
        settings: as for run_with().
        config: as for run_with().

    Raises:
        ConfigError: as run_with().
        TypeError: one of `events` is none.
    """
    for event in events:
        if not isinstance(event, (EventBatch, Snapshot, *_HOOKS)):
            raise TypeError(f"{event!r} is no event: golibx.hookspec has their types")
    with _prepared(plugin, name, settings, config) as (runtime, seen):
        for event in events:
            runtime.give(event)
        seen.result = None
    return cast("Seen[None]", seen)


def snapshot(**values: Any) -> Snapshot:
    """A Snapshot with these values, for feed().

    The others are 0, or None for latencies; `tunables` and `limits` are complete, and what is given
    of them takes the place of single keys.

    Raises:
        TypeError: a Snapshot has no such field.
    """
    defaults: dict[str, Any] = {
        field: None if field.startswith("latency_") else 0 for field in Snapshot._fields
    }
    if unknown := [field for field in values if field not in defaults]:
        raise TypeError(f"a Snapshot has no {unknown[0]}; it has {', '.join(Snapshot._fields)}")
    tables: dict[str, dict[str, Any]] = {"tunables": {**tunables()}, "limits": {**limits_of({})}}
    for field, table in tables.items():
        table.update(values.pop(field, {}))
        defaults[field] = table
    return Snapshot(**{**defaults, **values})


@contextmanager
def _prepared(
    plugin: object,
    name: str | None,
    settings: Mapping[str, object] | None,
    config: Mapping[str, object] | None,
) -> Iterator[tuple[_Recording, Seen[Any]]]:
    """The runtime of a run with the plugin, and what takes what it sees."""
    seen: Seen[Any] = Seen()
    module = f"golibx_tested_plugin_{next(_numbers)}"
    given = SimpleNamespace()
    if isinstance(plugin, str):
        if name is not None:
            raise TypeError("name= is for a class, an object or a module: a str has its own")
        reference = plugin
        name = _name_of_reference(plugin)
    else:
        name = _name_of(plugin) if name is None else name
        reference = f"{module}:{name}"
        setattr(given, name, getattr(plugin, "Plugin", plugin) if ismodule(plugin) else plugin)
    given.changes = _Changes(name, seen)
    tables = _with_plugins(config, [reference, f"{module}:changes"], name, settings)
    loaded = Config.from_mapping(tables, environ={})
    sys.modules[module] = cast("Any", given)
    stderr = sys.stderr
    sys.stderr = tee = cast("Any", _Tee(stderr))
    try:
        runtime = _Recording(loaded, name, seen)
        (seen.plugin,) = [each.object for each in runtime.plugins if each.name == name] or [None]
        yield runtime, seen
        seen.stats = runtime.plugin_stats()[name]
    finally:
        sys.stderr = stderr
        seen.stderr = tee.text
        del sys.modules[module]


def _name_of(plugin: object) -> str:
    """What `[plugins] enabled` would call it."""
    if ismodule(plugin):
        return plugin.__name__.rpartition(".")[2]
    kind = plugin if isinstance(plugin, type) else type(plugin)
    return kind.__module__.rpartition(".")[2] if kind.__name__ == "Plugin" else kind.__name__


def _name_of_reference(reference: str) -> str:
    from golibx.pluginfinder import find

    return find(reference, Config.from_mapping({}, environ={})).name


def _with_plugins(
    config: Mapping[str, object] | None,
    references: list[str],
    name: str,
    settings: Mapping[str, object] | None,
) -> dict[str, object]:
    """The tables, with more of them enabled and their settings."""
    if config is not None and not hasattr(config, "items"):
        raise TypeError(f"config must be the tables of golib.toml, as a dict, not {config!r}")
    tables: dict[str, Any] = dict(config or {})
    plugins = dict(tables.get("plugins", {}))
    plugins["enabled"] = [*references, *plugins.get("enabled", [])]
    if settings is not None:
        plugins[name] = dict(settings)
    tables["plugins"] = plugins
    tables["hooks"] = {**_QUICK, **tables.get("hooks", {})}
    return tables
