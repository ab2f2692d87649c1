"""Finding, loading and calling plugins, and keeping what they do wrong away from the program.

golibx.hookspec says what a plugin may be and what its hooks are given. pluggy checks the hooks of a
plugin against the specifications and orders them; they are called by PluginManager itself, one by
one, because a plugin that raises must be known by name and must not keep the others from being
called. Hooks return nothing, so nothing of pluggy's result handling is missed.

Importing this module imports pluggy: a run without plugins does without.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from inspect import ismodule
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from golibx import hookspec
from golibx.errors import ConfigError
from golibx.values import is_file_reference, split_file_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from importlib.metadata import EntryPoints
    from types import ModuleType, TracebackType

    import click

    from golibx.config import Config
    from golibx.runtime import Runtime

__all__ = [
    "EVENT_HOOKS",
    "Plugin",
    "PluginManager",
    "RawEvent",
    "builtin_names",
    "installed_names",
]

ENTRY_POINT_GROUP = "golibx"

_LANES = ("python", "native")
_OUTCOMES = ("returned", "raised", "cancelled")

RawEvent = tuple[int, int, int, int, Any, int]
"""As the native core records it: kind, time_ns, goroutine_id, two values that depend on the kind,
the second of them a number or a text, and the lane, an index of _LANES."""


def _goroutine_create(time_ns: int, lane: str, goroutine_id: int, parent_id: int, _: int) -> object:
    return hookspec.GoroutineCreate(time_ns, lane, goroutine_id, parent_id)


def _goroutine_start(time_ns: int, lane: str, goroutine_id: int, parent_id: int, _: int) -> object:
    return hookspec.GoroutineStart(time_ns, lane, goroutine_id, parent_id)


def _goroutine_park(time_ns: int, lane: str, goroutine_id: int, _: int, reason: str) -> object:
    return hookspec.GoroutinePark(time_ns, lane, goroutine_id, reason)


def _goroutine_ready(time_ns: int, lane: str, goroutine_id: int, waker_id: int, _: int) -> object:
    return hookspec.GoroutineReady(time_ns, lane, goroutine_id, waker_id)


def _goroutine_exit(
    time_ns: int, lane: str, goroutine_id: int, lifetime_ns: int, outcome: int
) -> object:
    return hookspec.GoroutineExit(time_ns, lane, goroutine_id, lifetime_ns, _OUTCOMES[outcome])


def _goroutine_panic(time_ns: int, lane: str, goroutine_id: int, _: int, exception: str) -> object:
    return hookspec.GoroutinePanic(time_ns, lane, goroutine_id, exception)


def _preempt(time_ns: int, lane: str, goroutine_id: int, ran_ns: int, handed_off: int) -> object:
    return hookspec.Preempt(time_ns, lane, goroutine_id, ran_ns, bool(handed_off))


def _retake(time_ns: int, lane: str, goroutine_id: int, blocked_ns: int, in_vain: int) -> object:
    return hookspec.Retake(time_ns, lane, goroutine_id, blocked_ns, bool(in_vain))


def _netpoll_ready(time_ns: int, lane: str, goroutine_id: int, fd: int, mode: int) -> object:
    return hookspec.NetpollReady(time_ns, lane, goroutine_id, fd, bool(mode & 1), bool(mode & 2))


def _steal(time_ns: int, lane: str, goroutine_id: int, processors: int, stolen: int) -> object:
    thief, victim = processors >> 32, processors & 0xFFFF_FFFF
    return hookspec.Steal(time_ns, lane, goroutine_id, stolen, thief, victim)


def _sysmon_tick(time_ns: int, lane: str, _: int, slept_ns: int, idle_rounds: int) -> object:
    return hookspec.SysmonTick(time_ns, lane, slept_ns, idle_rounds)


def _deadlock(time_ns: int, lane: str, goroutine_id: int, goroutines: int, _: int) -> object:
    return hookspec.DeadlockFound(time_ns, lane, goroutine_id, goroutines)


def _gomaxprocs(time_ns: int, _: str, _id: int, before: int, after: int) -> object:
    # Before the native lane has started, the Python lane records the change on its behalf.
    return hookspec.GomaxprocsChange(time_ns, "native", before, after)


EVENT_HOOKS: tuple[tuple[str, Callable[..., object]], ...] = (
    ("on_goroutine_create", _goroutine_create),
    ("on_goroutine_start", _goroutine_start),
    ("on_goroutine_park", _goroutine_park),
    ("on_goroutine_ready", _goroutine_ready),
    ("on_goroutine_exit", _goroutine_exit),
    ("on_goroutine_panic", _goroutine_panic),
    ("on_preempt", _preempt),
    ("on_retake", _retake),
    ("on_netpoll_ready", _netpoll_ready),
    ("on_steal", _steal),
    ("on_sysmon_tick", _sysmon_tick),
    ("on_deadlock", _deadlock),
    ("on_gomaxprocs", _gomaxprocs),
)
"""By the native core's event kind: the hook, and what makes its event of the recorded numbers."""


class Plugin(NamedTuple):
    """A plugin that was found."""

    name: str
    """What it is called in messages, and its table [plugins.NAME]."""
    origin: str
    """Where it came from, in words: "built-in", "installed", "module …" or a file's path."""
    object: Any
    """What has the hooks: a module or an instance."""


class _Hook(NamedTuple):
    plugin: Plugin
    name: str
    function: Callable[..., object]
    arguments: tuple[str, ...]


class PluginManager:
    """The plugins of one run.

    Args:
        config: says which plugins there are, and holds their tables.

    Raises:
        ConfigError: a plugin can't be found or imported, or has a hook that does not exist.

    Attributes:
        plugins: those that are loaded and have not failed, in the order they were loaded.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._hooks: dict[str, list[_Hook]] = {}
        self._checker = pluggy.PluginManager("golibx")
        self._checker.add_hookspecs(hookspec)
        self.plugins: list[Plugin] = []
        for reference in config.plugins.enabled:
            self._add(_find(reference, config), reference)
        if config.plugins.autoload:
            loaded = {plugin.name for plugin in self.plugins}
            for name in installed_names():
                if name not in loaded:
                    self._add(_find(name, config), name)

    def _add(self, plugin: Plugin, reference: str) -> None:
        try:
            if self._checker.register(plugin.object, plugin.name) is None:
                raise ValueError("is blocked")
        except ValueError as exc:
            problem = f"there is already a plugin named {plugin.name}, or it is enabled twice"
            raise self._error(reference, problem) from exc
        except pluggy.PluginValidationError as exc:
            raise self._error(reference, str(exc)) from exc
        self.plugins.append(plugin)
        callers = self._checker.get_hookcallers(plugin.object) or []
        if not callers:
            raise self._error(reference, "has no hooks: functions marked with @hookimpl")
        for caller in callers:
            if not caller.has_spec():
                nearest = _nearest(caller.name, self.hook_names())
                problem = f"implements {caller.name}, which is not a hook"
                raise self._error(reference, problem, nearest)
            if any(impl.hookwrapper or impl.wrapper for impl in caller.get_hookimpls()):
                raise self._error(reference, f"wraps {caller.name}, but hooks return nothing")
        self._collect_hooks()

    def _error(self, reference: str, problem: str, nearest: str | None = None) -> ConfigError:
        return self._config.error("plugins.enabled", problem, value=reference, nearest=nearest)

    def _collect_hooks(self) -> None:
        by_object = {id(plugin.object): plugin for plugin in self.plugins}
        positions = {plugin_id: position for position, plugin_id in enumerate(by_object)}

        def order(impl: pluggy.HookImpl) -> tuple[int, int]:
            # pluggy would call the last one first; ours are called as they are listed.
            return (impl.trylast - impl.tryfirst, positions[id(impl.plugin)])

        self._hooks = {
            name: [
                _Hook(by_object[id(impl.plugin)], name, impl.function, tuple(impl.argnames))
                for impl in sorted(getattr(self._checker.hook, name).get_hookimpls(), key=order)
            ]
            for name in self.hook_names()
        }

    @staticmethod
    def hook_names() -> list[str]:
        """The names of all hooks there are."""
        return [name for name in vars(hookspec) if name.startswith(("golib_", "on_"))]

    def hooks_of(self, plugin: Plugin) -> list[str]:
        """The names of the hooks that `plugin` implements."""
        return [
            name for name, hooks in self._hooks.items() if any(h.plugin is plugin for h in hooks)
        ]

    def wants(self, hook: str) -> bool:
        """Whether some plugin implements `hook`."""
        return bool(self._hooks.get(hook))

    @property
    def event_mask(self) -> int:
        """Bit k is set if some plugin has a hook for the native core's events of kind k."""
        return sum(1 << kind for kind, (name, _) in enumerate(EVENT_HOOKS) if self._hooks.get(name))

    def configure(self, runtime: Runtime) -> None:
        """Calls golib_configure. A ConfigError of a plugin is raised."""
        self._call_all("golib_configure", config=self._config, runtime=runtime)

    def start(self, runtime: Runtime) -> None:
        """Calls golib_start."""
        self._call_all("golib_start", runtime=runtime)

    def stop(self, runtime: Runtime) -> None:
        """Calls golib_stop."""
        self._call_all("golib_stop", runtime=runtime)

    def extend_cli(self, group: click.Group) -> None:
        """Calls golib_cli."""
        self._call_all("golib_cli", group=group)

    def dispatch(
        self,
        events: Iterable[RawEvent],
        *,
        budget_ns: int = sys.maxsize,
        pause: Callable[[], object] = bool,
    ) -> None:
        """Calls the event hooks.

        Args:
            events: in the order in which they are to be delivered.
            budget_ns: nanoseconds after which `pause` is called, before the next event.
            pause: lets others run.
        """
        began_ns = time.monotonic_ns()
        for kind, time_ns, goroutine_id, a, b, lane in events:
            name, make_event = EVENT_HOOKS[kind]
            # A hook may have failed, and its plugin gone, since the event was recorded.
            if hooks := self._hooks.get(name):
                event = make_event(time_ns, _LANES[lane], goroutine_id, a, b)
                for hook in tuple(hooks):
                    self._call(hook, {"event": event})
            if time.monotonic_ns() - began_ns >= budget_ns:
                pause()
                began_ns = time.monotonic_ns()

    def _call_all(self, name: str, **values: object) -> None:
        for hook in tuple(self._hooks.get(name, ())):
            self._call(hook, values)

    def _call(self, hook: _Hook, values: dict[str, object]) -> None:
        if hook.plugin not in self.plugins:
            return
        try:
            hook.function(*[values[argument] for argument in hook.arguments])
        except ConfigError as exc:
            if hook.name == "golib_configure":
                raise
            self._disable(hook, exc)
        # A plugin has no say in when the program ends: sys.exit() in a hook is a failure as well.
        # What is raised into it from outside, KeyboardInterrupt and Cancelled, is not.
        except (Exception, SystemExit) as exc:
            self._disable(hook, exc)

    def _disable(self, hook: _Hook, exc: BaseException) -> None:
        plugin = hook.plugin
        self.plugins.remove(plugin)
        self._checker.unregister(plugin.object)
        self._collect_hooks()
        # The first frame is the one of _call.
        frames = exc.__traceback__.tb_next if exc.__traceback__ is not None else None
        _report(f"golibx: plugin {plugin.name} raised in {hook.name} and is disabled:", exc, frames)


def _report(headline: str, exc: BaseException, frames: TracebackType | None) -> None:
    import traceback

    if sys.stderr is not None:
        lines = traceback.format_exception(type(exc), exc, frames)
        sys.stderr.write(f"{headline}\n{''.join(lines)}")
        sys.stderr.flush()


def builtin_names() -> list[str]:
    """The names of the plugins that come with golibx."""
    import pkgutil

    import golibx.plugins

    return sorted(module.name for module in pkgutil.iter_modules(golibx.plugins.__path__))


def installed_names() -> list[str]:
    """The names of the plugins that installed packages offer, by entry points of group golibx."""
    return sorted(_entry_points().names)


def _entry_points() -> EntryPoints:
    # Slow to import and to scan, hence only when a name is neither a file nor built in.
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINT_GROUP)


def _find(reference: str, config: Config) -> Plugin:
    """The plugin that an item of `[plugins] enabled` refers to. Raises ConfigError."""
    try:
        if is_file_reference(reference):
            return _from_file(reference)
        if ":" in reference:
            return _from_object(reference)
        return _from_name(reference)
    except _NotFoundError as exc:
        known = [*builtin_names(), *installed_names()]
        raise config.error(
            "plugins.enabled",
            str(exc),
            value=reference,
            nearest=None if is_file_reference(reference) else _nearest(reference, known),
        ) from None
    except (Exception, SystemExit) as exc:
        # Whatever the plugin's module or class does when it is imported or created.
        problem = f"can't be loaded: {type(exc).__name__}: {exc}"
        raise config.error("plugins.enabled", problem, value=reference) from exc


class _NotFoundError(Exception):
    """No plugin of that name; the text says where it was looked for."""


def _from_file(reference: str) -> Plugin:
    path, attribute = split_file_reference(reference)
    if not os.path.isfile(path):
        raise _NotFoundError("there is no such file")
    name = os.path.splitext(os.path.basename(path))[0]
    module_name = f"golibx_plugin_{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise _NotFoundError("this is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # As an import does: dataclasses, pickle and typing look a class's module up here.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return Plugin(attribute or name, path, _offered(module, attribute))


def _from_object(reference: str) -> Plugin:
    module_name, _, attribute = reference.partition(":")
    module = _import(module_name)
    if module is None:
        raise _NotFoundError(f"there is no module {module_name}")
    return Plugin(
        attribute.rpartition(".")[2], f"module {module_name}", _offered(module, attribute)
    )


def _from_name(reference: str) -> Plugin:
    if "." not in reference:
        module = _import(f"golibx.plugins.{reference}")
        if module is not None:
            return Plugin(reference, "built-in", _offered(module))
    for entry_point in _entry_points().select(name=reference):
        return Plugin(reference, "installed", _offered(entry_point.load()))
    module = _import(reference)
    if module is None:
        raise _NotFoundError(
            "there is no built-in plugin, no installed one (entry point of group "
            f"{ENTRY_POINT_GROUP}) and no module of this name"
        )
    return Plugin(reference.rpartition(".")[2], f"module {reference}", _offered(module))


def _import(name: str) -> ModuleType | None:
    """The module, or None if it does not exist. Raises what it raises when it is imported."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        # If the one that is missing is another module, then this one exists but does not work.
        if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
            return None
        raise


def _offered(thing: object, attribute: str = "") -> object:
    """The plugin that a module, class or object offers: itself, its attribute, or its Plugin."""
    for part in attribute.split(".") if attribute else ():
        if not hasattr(thing, part):
            raise _NotFoundError(f"there is no {part} in it")
        thing = getattr(thing, part)
    if ismodule(thing):
        thing = getattr(thing, "Plugin", thing)
    return thing() if isinstance(thing, type) else thing


def _nearest(name: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    matches = get_close_matches(name, list(known), n=1)
    return matches[0] if matches else None
