"""Calling plugins, and keeping what they do wrong away from the program and from each other.

golibx.hookspec says what a plugin may be and what its hooks are given, golibx.pluginfinder finds
and loads it. pluggy checks the hooks of a plugin against the specifications and orders them; they
are called by PluginManager itself, one by one, because a plugin that raises must be known by name
and must not keep the others from being called. Of pluggy's result handling nothing is missed: only
`tune` and `on_preempt` return something, which each plugin answers for itself.

Each call is timed, for Runtime.plugin_stats() and `[hooks] share`: an account for each hook of each
plugin is written by the thread that calls that hook, which is one at a time, and read by any
thread.

Importing this module imports pluggy: a run without plugins does without.
"""

from __future__ import annotations

import operator
import sys
import threading
import time
from contextvars import ContextVar
from inspect import (
    isasyncgen,
    isasyncgenfunction,
    iscoroutine,
    iscoroutinefunction,
    isgenerator,
    isgeneratorfunction,
)
from time import monotonic_ns
from typing import TYPE_CHECKING, NamedTuple

import pluggy

from golibx import hookspec
from golibx.errors import ConfigError
from golibx.eventbatch import EVENT_HOOKS, KINDS, LANES, EventBatch, RawEvent
from golibx.hookspec import HookStats, PluginStats
from golibx.pluginfinder import Loader, Plugin, builtin_names, installed_names, nearest
from golibx.values import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence
    from types import TracebackType

    import click

    from golibx.config import Config
    from golibx.runtime import Runtime

__all__ = [
    "Plugin",
    "PluginManager",
    "builtin_names",
    "calling_plugin",
    "installed_names",
    "set_running",
]

_IN_NO_RUN = ("golib_configure", "golib_cli")
"""Hooks that are called before golibx counts how many times Ctrl-C was pressed."""

calling_plugin: ContextVar[str] = ContextVar("calling_plugin")
"""The name of the plugin that has a hook being called, or that has started the goroutine."""


running: PluginManager | None = None
"""Of the run that goes on, for golibx.control."""


class _Account:
    """The time of one hook of one plugin.

    Attributes:
        is_on: whether it may be called.
        calls: how many have returned or raised.
        total_ns: how long these took.
        longest_ns: the longest of them.
        since_ns: when the call began that goes on now; 0: none does.
    """

    __slots__ = ("calls", "is_on", "longest_ns", "since_ns", "total_ns")

    def __init__(self) -> None:
        self.is_on = True
        self.calls = self.total_ns = self.longest_ns = self.since_ns = 0

    def spent_ns(self, now_ns: int) -> int:
        """How long all calls took, with what there is of the one that goes on."""
        # In this order: a call that ends in between is not counted twice.
        since_ns, total_ns = self.since_ns, self.total_ns
        return total_ns + (max(now_ns - since_ns, 0) if since_ns else 0)


class _Hook(NamedTuple):
    plugin: Plugin
    name: str
    function: Callable[..., object]
    arguments: tuple[str, ...]
    account: _Account


class _Look(NamedTuple):
    """What a plugin's hooks had taken and how often they were called, at some time."""

    spent_ns: int
    calls: int
    is_over: bool


_NO_LOOK = _Look(0, 0, is_over=False)


class PluginManager:
    """The plugins of one run.

    Args:
        config: says which plugins there are, and holds their tables.

        interrupts: how many times Ctrl-C has been pressed so far. That is the only thing that
            raises into a hook from outside.
        problems: a list that takes what would be raised; the others are loaded all the same.
        call: calls a hook's function with arguments.

    Raises:
        ConfigError: a plugin can't be found or imported, or has a hook that does not exist.

    Attributes:
        plugins: those that are loaded and have not failed, in the order they were loaded.
        single_mask: bit k is set if some plugin has a hook for the core's events of kind k.
        batch_mask: and if some plugin takes those with many others.
        calling: the plugin and the hook that are being called, or None.
    """

    def __init__(
        self,
        config: Config,
        interrupts: Callable[[], int] = int,
        problems: list[ConfigError] | None = None,
        call: Callable[..., object] = operator.call,
    ) -> None:
        self._config = config
        self._interrupts = interrupts
        self._call_function = call
        self._hooks: dict[str, list[_Hook]] = {}
        self._accounts: dict[str, dict[str, _Account]] = {}
        self._states: dict[str, str] = {}
        self._takes: dict[str, tuple[str, ...]] = {}
        self._looks: dict[str, _Look] = {}
        self._looked_ns = self._began_ns = monotonic_ns()
        self._disabling = threading.RLock()  # hooks are called in other goroutines than looks
        self._checker = pluggy.PluginManager("golibx")
        self._checker.add_hookspecs(hookspec)
        self.plugins: list[Plugin] = []
        self.single_mask = self.batch_mask = 0
        self.calling: _Hook | None = None
        loader = Loader(config)
        references = [*config.plugins.enabled]
        if config.plugins.autoload:
            references += [name for name in installed_names() if name not in references]
        found: list[ConfigError] = [] if problems is None else problems
        for reference in references:
            try:
                plugin = loader.load(reference)
                if plugin is not None:  # and not one by another name
                    self._add(plugin, reference)
            except ConfigError as exc:
                found.append(exc)
        if problems is None and found:
            raise ConfigError.of(found)

    def _add(self, plugin: Plugin, reference: str) -> None:
        try:
            if self._checker.register(plugin.object, plugin.name) is None:
                raise ValueError("is blocked")
        except ValueError as exc:
            problem = f"there is already another plugin named {plugin.name}"
            raise self._error(reference, problem) from exc
        except pluggy.PluginValidationError as exc:
            raise self._error(reference, str(exc)) from exc
        self._check_hooks(plugin, reference)
        self.plugins.append(plugin)
        self._states[plugin.name] = "active"
        self._collect_hooks()

    def _check_hooks(self, plugin: Plugin, reference: str) -> None:
        callers = self._checker.get_hookcallers(plugin.object) or []
        if not callers:
            raise self._error(reference, "has no hooks: functions marked with @hookimpl")
        for caller in callers:
            if not caller.has_spec():
                problem = f"implements {caller.name}, which is not a hook"
                raise self._error(reference, problem, nearest(caller.name, self.hook_names()))
            for impl in caller.get_hookimpls():
                if impl.plugin is not plugin.object:
                    continue
                if impl.hookwrapper or impl.wrapper:
                    raise self._error(reference, f"wraps {caller.name}, but hooks return nothing")
                if iscoroutinefunction(impl.function) or isasyncgenfunction(impl.function):
                    what, does = "an async function", "await"
                    if isasyncgenfunction(impl.function):
                        what, does = "an async generator", "go through"
                    problem = (
                        f"has {what} for {caller.name}, which nothing would {does}: "
                        "write a plain one, which may call golibx.aio.run()"
                    )
                    raise self._error(reference, problem)
                if isgeneratorfunction(impl.function):
                    problem = f"has a generator for {caller.name}, of which nothing would run"
                    raise self._error(reference, problem)
            if caller.name == "take_events":
                self._check_takes(plugin, reference)

    def _check_takes(self, plugin: Plugin, reference: str) -> None:
        takes = getattr(plugin.object, "takes", None)
        if not isinstance(takes, tuple | list) or not takes:
            problem = (
                "has take_events, and no attribute `takes`: the names of the hooks whose events "
                f"that is given, such as {('on_goroutine_park', 'on_goroutine_ready')}"
            )
            raise self._error(reference, problem)
        for name in takes:
            if name not in KINDS:
                problem = f"takes {name!r}, which is not the hook of an event"
                raise self._error(reference, problem, nearest(str(name), KINDS))
        self._takes[plugin.name] = tuple(takes)

    def _error(self, reference: str, problem: str, near: str | None = None) -> ConfigError:
        return self._config.error("plugins.enabled", problem, value=reference, nearest=near)

    def _collect_hooks(self) -> None:
        by_object = {id(plugin.object): plugin for plugin in self.plugins}
        positions = {plugin_id: position for position, plugin_id in enumerate(by_object)}

        def order(impl: pluggy.HookImpl) -> tuple[int, int]:
            # pluggy would call the last one first; ours are called as they are listed.
            return (impl.trylast - impl.tryfirst, positions.get(id(impl.plugin), 0))

        self._hooks = {
            name: [
                hook
                for impl in sorted(getattr(self._checker.hook, name).get_hookimpls(), key=order)
                if id(impl.plugin) in by_object
                and (hook := self._hook(by_object[id(impl.plugin)], name, impl)).account.is_on
            ]
            for name in self.hook_names()
        }
        self.single_mask = _mask_of(name for name, _ in EVENT_HOOKS if self._hooks[name])
        takers = [hook.plugin.name for hook in self._hooks["take_events"]]
        self.batch_mask = _mask_of(name for taker in takers for name in self._takes[taker])

    def _hook(self, plugin: Plugin, name: str, impl: pluggy.HookImpl) -> _Hook:
        accounts = self._accounts.setdefault(plugin.name, {})
        account = accounts.setdefault(name, _Account())
        return _Hook(plugin, name, impl.function, tuple(impl.argnames), account)

    @staticmethod
    def hook_names() -> list[str]:
        """The names of all hooks there are."""
        return [
            name
            for name in vars(hookspec)
            if name.startswith(("golib_", "on_")) or name in ("tune", "take_events")
        ]

    def hooks_of(self, plugin: Plugin) -> list[str]:
        """The names of the hooks that `plugin` implements."""
        return [
            name for name, hooks in self._hooks.items() if any(h.plugin is plugin for h in hooks)
        ]

    def wants(self, hook: str) -> bool:
        """Whether some plugin implements `hook`."""
        return bool(self._hooks.get(hook))

    def wants_event(self, hook: str) -> bool:
        """Whether some plugin is given the events of `hook`, one by one or many at once."""
        return bool(self.event_mask >> KINDS[hook] & 1)

    @property
    def event_mask(self) -> int:
        """Bit k is set if some plugin wants the native core's events of kind k."""
        return self.single_mask | self.batch_mask

    def configure(self, runtime: Runtime, problems: list[ConfigError] | None = None) -> None:
        """Calls golib_configure.

        All that plugins find wrong with their settings is raised, or added to `problems`.
        """
        found: list[ConfigError] = [] if problems is None else problems
        for hook in tuple(self._hooks.get("golib_configure", ())):
            name = hook.plugin.name
            try:
                self._call(hook, {"config": self._config, "runtime": runtime, "name": name})
            except ConfigError as exc:
                found.append(exc)
        if problems is None and found:
            raise ConfigError.of(found)

    def start(self, runtime: Runtime) -> None:
        """Calls golib_start."""
        self._call_all("golib_start", runtime=runtime)

    def stop(self, runtime: Runtime) -> None:
        """Calls golib_stop. Ctrl-C ends one of them and is raised when all have been called."""
        interrupt = None
        for hook in tuple(self._hooks.get("golib_stop", ())):
            try:
                self._call(hook, {"runtime": runtime})
            except KeyboardInterrupt as exc:
                interrupt = exc
        if interrupt is not None:
            raise interrupt

    def extend_cli(self, group: click.Group) -> None:
        """Calls golib_cli."""
        self._call_all("golib_cli", group=group)

    def dispatch(
        self,
        events: Iterable[RawEvent],
        *,
        budget_ns: int = sys.maxsize,
        pause: Callable[[], object] = bool,
        judge: Callable[[int, int, int], object] | None = None,
    ) -> None:
        """Calls the event hooks.

        Args:
            events: in the order of their delivery.
            budget_ns: nanoseconds after which `pause` is called, before the next event.
            pause: lets others run.
            judge: takes a verdict of on_preempt: the goroutine's id, when it was preempted, and a
                slice in nanoseconds, 0 for "demote".
        """
        began_ns = time.monotonic_ns()
        for kind, time_ns, goroutine_id, a, b, lane in events:
            name, make_event = EVENT_HOOKS[kind]
            # A hook may have failed, and its plugin gone, since the event was recorded.
            if hooks := self._hooks.get(name):
                event = make_event(time_ns, LANES[lane], goroutine_id, a, b)
                for hook in hooks:  # a new list takes its place if a plugin is disabled
                    # An event is all that there is to take.
                    use = None if name != "on_preempt" else _user_of(judge, event)
                    self._call_with(hook, (event,) if hook.arguments else (), use)
            if time.monotonic_ns() - began_ns >= budget_ns:
                pause()
                began_ns = time.monotonic_ns()

    def dispatch_batch(self, batch: EventBatch) -> None:
        """Calls take_events."""
        for hook in tuple(self._hooks.get("take_events", ())):
            self._call(hook, {"batch": batch})

    def deliver(self, name: str, event: object) -> None:
        """Calls the hooks `name` for one event, which is made already."""
        use = None if name != "on_preempt" else _user_of(None, event)
        for hook in self._hooks.get(name, ()):
            self._call_with(hook, (event,) if hook.arguments else (), use)

    def ask_tune(self, snapshot: object, apply: Callable[[str, object], object]) -> None:
        """Calls tune, and `apply` with each plugin's name and what it returned, unless None."""
        for hook in tuple(self._hooks.get("tune", ())):
            self._call(hook, {"snapshot": snapshot}, apply)

    def _call_all(self, name: str, **values: object) -> None:
        for hook in tuple(self._hooks.get(name, ())):
            self._call(hook, values)

    def _call(
        self,
        hook: _Hook,
        values: dict[str, object],
        use: Callable[[str, object], object] | None = None,
    ) -> None:
        """Calls it with those of the values that it names; see _call_with."""
        self._call_with(hook, [values[argument] for argument in hook.arguments], use)

    def _call_with(
        self,
        hook: _Hook,
        arguments: Sequence[object],
        use: Callable[[str, object], object] | None = None,
    ) -> None:
        """`use` is for what it returns; if that cannot be used, the plugin is to blame."""
        account = hook.account
        if not account.is_on:
            return
        interrupts = self._interrupts()
        before, self.calling = self.calling, hook
        token = calling_plugin.set(hook.plugin.name)
        account.since_ns = began_ns = monotonic_ns()
        try:
            result = self._call_function(hook.function, *arguments)
            if result is not None:
                _refuse_unrun(result)
                if use is not None:
                    self._call_function(use, hook.plugin.name, result)
        except ConfigError as exc:
            if hook.name == "golib_configure":
                raise
            self._disable(hook, exc)
        except BaseException as exc:
            # A plugin has no say in when the program ends: whatever it raises is its failure, also
            # SystemExit and Cancelled. Not so what the user raises into it.
            if isinstance(exc, KeyboardInterrupt):
                if hook.name in _IN_NO_RUN:
                    exc.add_note(f"golibx: plugin {hook.plugin.name} was in {hook.name}")
                    raise
                if self._interrupts() != interrupts:
                    raise
            self._disable(hook, exc)
        finally:
            took_ns = monotonic_ns() - began_ns
            account.since_ns = 0
            account.calls += 1
            account.total_ns += took_ns
            if took_ns > account.longest_ns:  # noqa: PLR1730  # max() takes longer
                account.longest_ns = took_ns
            calling_plugin.reset(token)
            self.calling = before

    def _disable(self, hook: _Hook, exc: BaseException) -> None:
        plugin = hook.plugin
        with self._disabling:
            is_first = self._states[plugin.name] != "raised"
            self._states[plugin.name] = "raised"
            self._switch_off(plugin)
            # It may have failed in another hook meanwhile, or have taken itself out of these.
            if plugin in self.plugins:
                self.plugins.remove(plugin)
            if self._checker.is_registered(plugin.object):
                self._checker.unregister(plugin.object)
            self._collect_hooks()
        if not is_first:
            return
        # The first frame is the one of _call.
        frames = exc.__traceback__.tb_next if exc.__traceback__ is not None else None
        _report(f"golibx: plugin {plugin.name} raised in {hook.name} and is disabled:", exc, frames)

    def _switch_off(self, plugin: Plugin, but: Container[str] = ()) -> None:
        for name, account in self._accounts[plugin.name].items():
            account.is_on = name in but

    # ---- their time ----

    def begin(self) -> None:
        """The run begins: what shares are shares of."""
        self._looked_ns = self._began_ns = monotonic_ns()

    def stats(self) -> dict[str, PluginStats]:
        """What the hooks of each plugin took, also of those that are disabled."""
        now_ns = monotonic_ns()
        lasted_ns = max(now_ns - self._began_ns, 1)
        return {
            name: PluginStats(
                state=self._states[name],
                share=100 * self._look(name, now_ns).spent_ns / lasted_ns,
                hooks={hook: _stats_of(each, now_ns) for hook, each in [*accounts.items()]},
            )
            for name, accounts in [*self._accounts.items()]
        }

    def look_at_shares(self, most: int, *, disable: bool) -> list[str]:
        """The plugins that took more than allowed of the time since the last look: a line for each.

        And of the time before that look: a hook may have been held up once, by what others do on
        the machine. Each plugin is named once in a run.

        Args:
            most: percent of the wall time that a plugin's event hooks and `tune` may take.
            disable: they are not called any more.
        """
        now_ns = monotonic_ns()
        lasted_ns = max(now_ns - self._looked_ns, 1)
        lines = []
        for plugin in tuple(self.plugins):
            name = plugin.name
            look, before = self._look(name, now_ns), self._looks.get(name, _NO_LOOK)
            share = 100 * (look.spent_ns - before.spent_ns) / lasted_ns
            self._looks[name] = look = look._replace(is_over=share > most)
            if not (before.is_over and look.is_over and self._states[name] == "active"):
                continue
            calls = look.calls - before.calls
            counted = "1 call" if calls == 1 else f"{calls} calls"
            text = (
                f"golibx: plugin {name} took {share:.1f}% of the last "
                f"{lasted_ns / 1e9:.3g} s in its hooks ({counted}{self._going_on(name, now_ns)}); "
                f"[hooks] share allows {most}%"
            )
            lines.append(text + self._over(plugin, disable=disable))
        self._looked_ns = now_ns
        return lines

    def _over(self, plugin: Plugin, *, disable: bool) -> str:
        with self._disabling:
            if self._states[plugin.name] != "active":  # it has raised meanwhile
                return ""
            if not disable:
                self._states[plugin.name] = "over its share"
                return ""
            self._states[plugin.name] = "disabled"
            # It may have started what only it can end.
            self._switch_off(plugin, but=("golib_stop",))
            self._collect_hooks()
        return "; they are not called any more, but for golib_stop"

    def _look(self, name: str, now_ns: int) -> _Look:
        counted = [
            account for hook, account in [*self._accounts[name].items()] if _has_a_share(hook)
        ]
        spent_ns = sum(account.spent_ns(now_ns) for account in counted)
        return _Look(spent_ns, sum(account.calls for account in counted), is_over=False)

    def _going_on(self, name: str, now_ns: int) -> str:
        for hook, account in [*self._accounts[name].items()]:
            if (since_ns := account.since_ns) and _has_a_share(hook):
                return f", and one of {hook} that goes on since {(now_ns - since_ns) / 1e9:.3g} s"
        return ""


def _mask_of(hooks: Iterable[str]) -> int:
    """Of the kinds of these hooks' events, in the core."""
    mask = 0
    for name in hooks:
        mask |= 1 << KINDS[name]
    return mask


def set_running(manager: PluginManager | None) -> None:
    """The run of these plugins begins; None: it has ended."""
    global running
    running = manager


def _has_a_share(hook: str) -> bool:
    """Not those that are called once, before the program or after it."""
    return not hook.startswith("golib_")


def _stats_of(account: _Account, now_ns: int) -> HookStats:
    since_ns = account.since_ns
    present_ns = max(now_ns - since_ns, 0) if since_ns else 0
    return HookStats(account.calls, account.total_ns, account.longest_ns, present_ns)


def _user_of(
    judge: Callable[[int, int, int], object] | None, event: object
) -> Callable[[str, object], object]:
    """What takes the verdict of a hook on_preempt."""

    def use(_: str, verdict: object) -> None:
        slice_ns = _slice_of(verdict)
        assert isinstance(event, hookspec.Preempt)
        if judge is not None and event.lane == "python":
            judge(event.goroutine_id, event.time_ns, slice_ns)

    return use


def _slice_of(verdict: object) -> int:
    """In nanoseconds; 0 for "demote". Raises TypeError or ValueError."""
    allowed = f'"demote", or a slice of {_SLICES}, such as "50ms" or an int of nanoseconds'
    if isinstance(verdict, str):
        if verdict == "demote":
            return 0
        try:
            slice_ns = parse_duration(verdict)
        except ValueError as exc:
            raise ValueError(f"it returned {verdict!r}, which is no verdict: {allowed}") from exc
    elif isinstance(verdict, int) and not isinstance(verdict, bool):
        slice_ns = verdict
    else:
        raise TypeError(f"it returned {verdict!r}, which is no verdict: {allowed}")
    if not _SHORTEST_SLICE_NS <= slice_ns <= _LONGEST_SLICE_NS:
        raise ValueError(f"it returned {verdict!r}, which is out of range: {allowed}")
    return slice_ns


_SLICES = "10us to 1m"
_SHORTEST_SLICE_NS, _LONGEST_SLICE_NS = 10_000, 60_000_000_000


def _refuse_unrun(result: object) -> None:
    """Raises TypeError for what a hook has returned that would have to be run."""
    if iscoroutine(result):
        result.close()
        raise TypeError("it returned a coroutine, which nothing would await")
    if isgenerator(result) or isasyncgen(result):
        what = "a generator" if isgenerator(result) else "an async generator"
        raise TypeError(f"it returned {what}, of which nothing would run")


def _report(headline: str, exc: BaseException, frames: TracebackType | None) -> None:
    import traceback

    if sys.stderr is not None:
        lines = traceback.format_exception(type(exc), exc, frames)
        sys.stderr.write(f"{headline}\n{''.join(lines)}")
        sys.stderr.flush()
