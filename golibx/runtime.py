"""run(): a function as the main goroutine, with its configuration, plugins, signals and end.

The life of a run:

1. the configuration is read; plugins are loaded and get golib_configure;
2. the native core starts, and this thread becomes the main goroutine: golib_start, then the
   function;
3. when the function returned or raised, the goroutines that are left are cancelled and waited for,
   the last events delivered, golib_stop called;
4. the core stops, and the result or exception goes to the caller.

How a goroutine's exception that no code collects can end the program: `[runtime] on_panic = "exit"`
raises SystemExit(2) in the main goroutine once the exception was printed, and SystemExit and
KeyboardInterrupt are always passed on to the main goroutine. So sys.exit() does the same in every
goroutine, and `finally` blocks run however a program ends.

The plugin manager, and pluggy with it, is imported only if a plugin is enabled.
"""

from __future__ import annotations

import os
import signal
import sys

# Before Python 3.13 the first import of threading takes its thread for the main one, and a
# program's own first import may happen in a goroutine that runs on another thread.
import threading
import time

from golibx import _core, tuning, watchers
from golibx.config import Config, refuse_unread
from golibx.errors import ConfigError, DeadlineExceeded
from golibx.frames import without_own_frames
from golibx.patch import (
    eventloop,
    greenlets,
    locks,
    notebook,
    polling,
    signals,
    threads,
    wakeup,
)
from golibx.values import format_duration

TYPE_CHECKING = False  # typing costs more to import than this whole module
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import CodeType, FrameType
    from typing import Any, ParamSpec, TextIO, TypeVar

    from golibx._core import Goroutine
    from golibx.hookspec import PluginStats, TuningKey
    from golibx.pluginmanager import Plugin, PluginManager
    from golibx.scope import Scope

    Params = ParamSpec("Params")
    Result = TypeVar("Result")
    Note = TypeVar("Note")

__all__ = ["Runtime", "run"]

_PANIC_EXIT_CODE = 2  # as in Go


def run(
    fn: Callable[..., Result],
    /,
    *args: Any,
    config: Config | str | os.PathLike[str] | Mapping[str, object] | None = None,
    **kwargs: Any,
) -> Result:
    """Runs `fn(*args, **kwargs)` as the main goroutine on this thread and returns its result.

    When it returns or raises, the goroutines that are left are cancelled.

    In the main goroutine of a program that `golibx run` has started it only calls `fn`: the program
    is in a run already, and its goroutines end with that. The settings are those of the command; a
    `config` that is given is named in a RuntimeWarning.

    Args:
        fn: the main function.
        config: a Config, the path of a golib.toml, or its tables as nested dicts; None for the
            defaults. The environment's GOLIB_… variables apply unless a Config is given.

    Raises:
        TypeError: `fn` is not callable, or a coroutine function; `config` is none of these.
        ConfigError: the configuration or one of its plugins is not right; nothing was run.
        RuntimeError: a runtime is running in this process already.
        BaseException: what `fn` raises.
    """
    refuse_async(fn)
    is_running = _program is not None and _core.current() is _program
    if is_running and config is not None:
        import warnings

        text = (
            "run(config=…) has no effect under `golibx run`, which has the settings: give it "
            "--config or --set"
        )
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    try:
        if is_running:
            return fn(*args, **kwargs)
        return Runtime(config_of(config)).run(fn, args, kwargs)
    except BaseException as exc:
        # `raise` adds no frame: the caller of run() is followed by what was run.
        exc.__traceback__ = without_own_frames(exc.__traceback__)
        raise


def refuse_async(fn: object) -> None:
    """Raises TypeError if a call of the main function would run nothing."""
    callee = _core.async_callee(fn)
    if callee is None:
        return
    name, is_generator = callee
    if is_generator:
        raise TypeError(
            f"run() needs a function, and {name}() is an async generator: "
            "golibx.run(asyncio.run, main()) runs in the main goroutine a coroutine main() that "
            "has `async for` over it"
        )
    raise TypeError(
        f"run() needs a function, and {name}() is async: "
        f"golibx.run(asyncio.run, {name}(…)) runs it in the main goroutine"
    )


_program: Goroutine[object] | None = None
"""The main goroutine of what `golibx run` has started."""


def config_of(config: Config | str | os.PathLike[str] | Mapping[str, object] | None) -> Config:
    """What it stands for. Raises ConfigError with all that is wrong, also for its plugins."""
    if isinstance(config, Config):
        return config
    is_path = config is None or isinstance(config, str | os.PathLike)
    if not is_path and not hasattr(config, "items"):
        raise TypeError(
            "config must be a Config, the path of a golib.toml, or a dict of its tables, "
            f"not {config!r}"
        )
    loaded, problems = Config.examine(config)
    refuse(loaded, problems)
    return loaded


def refuse(config: Config, problems: Sequence[ConfigError]) -> None:
    """Raises ConfigError if there are problems, with what plugins find wrong beside them."""
    refuse_unread(problems)
    if problems:
        Runtime(config, problems)


class Runtime:
    """A run, as plugins see it. Except for `config` it is of use only while the run lasts.

    Args:
        config: the configuration of the run.
        problems: what is known to be wrong with it.

    Raises:
        ConfigError: for these, and for all that plugins find wrong.

    Attributes:
        config: the configuration of the run.
        is_program: whether it is that of `golibx run`.
    """

    def __init__(self, config: Config, problems: Sequence[ConfigError] = ()) -> None:
        self.config = config
        self.is_program = False
        self._plugins: PluginManager | None = None
        self._pump: Goroutine[None] | None = None
        self._askers: list[Goroutine[None]] = []
        self._asking_ends: _core.Chan[None] = _core.Chan()
        self._hooks_lock = _core.Mutex()
        self._refused: set[tuple[str, str]] = set()
        self._event_mask = 0
        self._measures_latency = False
        self._replaced: list[tuple[Any, str, object]] = []
        self._main_id = 0
        self._ending = False
        self._late_exit: SystemExit | None = None
        self._outer: Runtime | None = None
        self._takes_interrupts = False
        self._interrupts = 0
        self._own_signal = 0
        self._freeing = False
        self._on_main_thread = False
        self._wakes_on_signals = False
        self._old_switch_interval = 0.0
        self._switch_interval = 0.0
        self._signal_changes = 0
        self._pid = os.getpid()
        if config.plugins.enabled or config.plugins.autoload:
            from golibx.pluginmanager import PluginManager

            found = [*problems]
            self._plugins = PluginManager(
                config, lambda: self._interrupts, found, call=self._hook_caller()
            )
            self._plugins.configure(self, found)
            self._event_mask = self._plugins.event_mask
            problems = found
        if problems:
            raise ConfigError.of(problems)
        if config.tune.rules or (self._plugins is not None and self._plugins.wants("tune")):
            self._measures_latency = True

    def _hook_caller(self) -> Callable[..., object]:
        """What calls a function of a plugin's with arguments."""
        return _core.open_to_signals

    @property
    def plugins(self) -> Sequence[Plugin]:
        """The plugins that are loaded and have not failed."""
        return () if self._plugins is None else tuple(self._plugins.plugins)

    def go(
        self, fn: Callable[Params, Result], /, *args: Params.args, **kwargs: Params.kwargs
    ) -> Goroutine[Result]:
        """Starts `fn(*args, **kwargs)` as a goroutine of the program."""
        return _core.go(fn, *args, **kwargs)

    def go_system(self, fn: Callable[..., Result], /, *args: Any) -> Goroutine[Result]:
        """Starts `fn(*args)` as a service goroutine.

        It does not count as one of the program's: the program ends, and a deadlock is found, in
        spite of it. golibx does not cancel it when the program ends: the code that started it has
        to.
        """
        return _core.go_system(fn, *args)

    def start_thread(self, fn: Callable[..., object], /, *args: Any) -> threading.Thread:
        """Starts `fn(*args)` in a service thread, for what has to be on time.

        A goroutine waits for its turn; a thread needs the interpreter's lock only. It does not keep
        a deadlock from being found either, so it must not wake goroutines of the program. The code
        that started it has to end it. Its exceptions go to threading.excepthook.
        """
        return threads.start_bystander(fn, args)

    def sample(
        self, period: float, count: int
    ) -> list[tuple[int, Goroutine[Any], list[tuple[CodeType, int]]]]:
        """Looks `count` times which goroutine has the processor, for a profile of CPU time.

        Looks are `period` seconds apart on average. This is for a thread, as of `start_thread`,
        and for one at a time. From Python 3.12 on it is the goroutine itself that notes its frames,
        at its next jump or call. On 3.11 this thread looks at them, once it has the interpreter's
        lock.

        Returns:
            A (nanoseconds, goroutine, frames) for each look that found one: the time that the look
            stands for, and the frames as (code, line), the innermost first. A goroutine in a
            blocking call, or in C code without the interpreter's lock, is not found.

        Raises:
            RuntimeError: a goroutine has called this, or another thread is at it.
            ValueError: `period` is not between 0.0001 and 60, or `count` negative.
        """
        return _core.sample(period, count)

    def stats(self) -> dict[str, int]:
        """The scheduler's counters, as golibx.stats()."""
        return _core.stats()

    def latencies(self) -> dict[int, int]:
        """How long goroutines of this run waited for their turn: counts by length, in nanoseconds.

        Each key is the longest wait that is counted there, and at most an eighth longer than the
        shortest one. One wake-up in eight is measured, on average, from the first call on.
        """
        _core.measure_latency()
        return _core.latencies()

    def plugin_stats(self) -> dict[str, PluginStats]:
        """What the hooks of each plugin took: by its name, and by hook.

        Also those of plugins that were disabled, for an exception or for `[hooks] share`.
        """
        return {} if self._plugins is None else self._plugins.stats()

    def tunables(self) -> dict[str, int]:
        """The present values of what may change while the program runs, as golibx.tunables()."""
        return tuning.tunables()

    def tuning_keys(self) -> dict[str, TuningKey]:
        """What is known about each of them, by its key: range, beginning, meaning."""
        return tuning.keys(self.config)

    def tune(self, changes: Mapping[str, int | str]) -> dict[str, int]:
        """Changes some of them within `[tune] limits`: tune({"preempt.slice": "2ms"}).

        As golibx.tune(), which has no limits, and on behalf of the plugin that calls it in a hook,
        or in a goroutine that a hook has started.

        Raises:
            ConfigError: a key that cannot change, or a value that is not allowed, with what is;
                nothing was changed.
            TypeError: `changes` is not a mapping.
            RuntimeError: the run has not begun, or has ended.
        """
        name = self._calling_plugin()
        who = f"plugin {name}" if name else "program"
        return tuning.change(changes, who, self.config.tune.limits)

    def _calling_plugin(self) -> str:
        """The plugin whose hook this is in, or whose hook started the goroutine; "" for none."""
        if self._plugins is None:
            return ""
        from golibx.pluginmanager import calling_plugin

        return calling_plugin.get("")

    def watch_goroutines(
        self,
        begin: Callable[[Goroutine[Any]], Note],
        end: Callable[[Note, str, BaseException | None], object],
    ) -> Callable[[], None]:
        """Has begin(goroutine) called by each goroutine of the program's that begins from now on.

        Unlike hooks, which come later, these are called at once: by the goroutine itself, before
        its function, which has the context variables that begin() has set, and after it, before
        other code learns of its end. Many goroutines may be in them at a time, and they are not
        accounted. They should not wait: the program would.

        What they raise is reported on stderr, once, and then they are not called any more. The main
        goroutine, service goroutines and native ones do not call them.

        Args:
            begin: given the goroutine. It must not be kept: what a goroutine raises is reported
                only when no code has it any more.
            end: given what begin() has returned; "returned", "raised" or "cancelled"; and the
                exception, or None.

        Returns:
            stop: begin() is called no more, as after the run; end() is for those that have begun.

        Raises:
            TypeError: one of them is no function.
            RuntimeError: the run has not begun, or has ended.
        """
        return self._watch(watchers.goroutines, begin, end)

    def watch_scopes(
        self, begin: Callable[[Scope], Note], end: Callable[[Note, BaseException | None], object]
    ) -> Callable[[], None]:
        """Has begin(scope) called at the beginning of each block of golibx.scope().

        It is called by the goroutine that enters the block. The context variables that begin() has
        set are there in the block, and in its children. Otherwise as watch_goroutines().

        Args:
            begin: given the Scope.
            end: given what begin() has returned, and what the block raises or None; called when all
                children have ended.

        Returns:
            stop: begin() is called no more, as after the run; end() is for those that have begun.

        Raises:
            TypeError: one of them is no function.
            RuntimeError: the run has not begun, or has ended.
        """
        return self._watch(watchers.scopes, begin, end)

    def _watch(
        self,
        kind: watchers.Watchers,
        begin: Callable[[Any], object],
        end: Callable[..., object],
    ) -> Callable[[], None]:
        if not _core.active() or self._plugins is None:
            raise RuntimeError(f"{kind.method}() is for a run that goes on, with plugins")
        return kind.add(watchers.Watcher(self._calling_plugin() or "?", begin, end))

    def disturb(self, *, seed: int, preempt: int = 0, delay: int = 0, delay_ns: int = 0) -> None:
        """Has calls of golibx's by the program's goroutines let others go first, or come late.

        Those are the calls that `preempt_every_call` of golibx.testing is about: each method of a
        channel, a lock and the like, `go`, `select` and so on. It lasts until the run ends, or
        until the next disturb(), which begins anew. The draws are the same for the same seed, in
        the order in which the calls are made.

        Args:
            seed: 0 to 2**63 - 1.
            preempt: one in so many calls gives way to all that can run; 0: none does.
            delay: before one in so many the goroutine sleeps; 0: before none.
            delay_ns: the longest of these sleeps, 1 to 10**10 nanoseconds.

        Raises:
            TypeError: one of these is no int.
            ValueError: one of these is out of its range.
            RuntimeError: the run has not begun, or is one of golibx.testing's with a seed or in
                virtual time.
        """
        most = {"seed": 2**63 - 1, "preempt": 10**9, "delay": 10**9, "delay_ns": 10**10}
        given = {"seed": seed, "preempt": preempt, "delay": delay, "delay_ns": delay_ns}
        for name, value in given.items():
            least = 1 if name == "delay_ns" and delay else 0
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int, not {value!r}")
            if not least <= value <= most[name]:
                raise ValueError(f"{name} must be {least} to {most[name]}, not {value}")
        _core.disturb(seed, preempt, delay, delay_ns)

    def disturbances(self) -> dict[str, int]:
        """What disturb() came to: "calls", and how many of them were "preempted" and "delayed"."""
        return dict(zip(("calls", "preempted", "delayed"), _core.disturbances(), strict=True))

    def replace(
        self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]
    ) -> None:
        """Replaces a function of a class or module until the run has ended, after golib_stop.

        What is put in its place is `make(present)`, which gets the function that is there. Several
        may replace the same one: each wraps those before it, and they are taken back in reverse.
        Functions of C types, which cannot be changed, cannot be replaced. A class method is given
        as bound to `owner`.

        Args:
            owner: a class or a module.
            name: the attribute.
            make: given the present function, returns the one to call instead.

        Raises:
            AttributeError: there is no such attribute.
            TypeError: it is no function, or `owner` cannot be changed.
            RuntimeError: the run has not begun, or has ended.
        """
        if not _core.active() or self._plugins is None:
            raise RuntimeError("replace() is for a run that goes on, with plugins")
        from inspect import getattr_static

        present = getattr(owner, name)
        if not callable(present):
            raise TypeError(f"{name} of {owner!r} is {present!r}, no function")
        own = vars(owner).get(name, _INHERITED)
        made: object = make(present)
        if isinstance(getattr_static(owner, name), staticmethod | classmethod):
            made = staticmethod(made)  # type: ignore[arg-type]  # `present` has its class, if any
        setattr(owner, name, made)
        self._replaced.append((owner, name, own))

    def _put_back(self) -> None:
        """What was replaced."""
        while self._replaced:
            owner, name, own = self._replaced.pop()
            if own is _INHERITED:
                delattr(owner, name)
            else:
                setattr(owner, name, own)

    def _core_options(self) -> dict[str, object]:
        return {**self.config.core_options()}

    def run(
        self, fn: Callable[..., Result], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Result:
        """What the function run() does, once."""
        result: Result = _core.claimed(self.enter, self.leave, self.run_entered, fn, args, kwargs)
        return result

    def enter(self) -> None:
        """Before a run, or several one after the other, which the caller has claimed."""
        global _entered
        self._outer = _entered
        _entered = self
        self._set_up()

    def leave(self) -> None:
        """After it, also if `enter` has raised. May be called again where it has."""
        global _entered
        self._tear_down()
        if _entered is self:
            _entered = self._outer
        if _entered is not None:
            # In the child of a fork, the run that the survivor is from.
            _core.set_panic_handlers(_entered.on_panic, _report_panic)

    def _set_up(self) -> None:
        """What it has begun `_tear_down` undoes, wherever a signal's handler has raised in it."""
        self._on_main_thread = on_main_thread = (
            threading.current_thread() is threading.main_thread()
        )
        greenlets.check()
        if on_main_thread:
            signals.learn_main_thread()
            _core.call_undisturbed(signals.patch)
            _core.call_undisturbed(wakeup.patch)
        _core.call_undisturbed(_patch)
        _core.set_panic_handlers(self.on_panic, _report_panic)
        self._takes_interrupts = (
            on_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._takes_interrupts:
            signals.set_plain(signal.SIGINT, self.on_interrupt)
            signals.interrupts = self.on_interrupt
        if on_main_thread:
            signals.install()
        self._wakes_on_signals = on_main_thread  # until that is known
        self._wakes_on_signals = on_main_thread and wakeup.watch()
        self._take_own_signal(on_main_thread)
        if switch_interval := self.config.runtime.switch_interval_ns / 1e9:
            self._old_switch_interval = sys.getswitchinterval()
            sys.setswitchinterval(switch_interval)
        self._switch_interval = sys.getswitchinterval()
        self._signal_changes = signals.changes

    def is_intact(self) -> bool:
        """Whether another run finds what `enter` has set up as it was, after one that has ended."""
        return (
            self._plugins is None  # which live for one run
            and self._pid == os.getpid()
            and self._signal_changes == signals.changes
            and self._switch_interval == sys.getswitchinterval()
            and (not self._wakes_on_signals or wakeup.is_watched())
        )

    def _tear_down(self) -> None:
        if self._old_switch_interval:
            sys.setswitchinterval(self._old_switch_interval)
        # Unless the program has put its own in place.
        if self._takes_interrupts:
            signals.interrupts = None
            if signals.present(signal.SIGINT) == self.on_interrupt:
                signal.signal(signal.SIGINT, signal.default_int_handler)
        # In the child of a fork, where run() returns too, the hook below has seen to it.
        if self._wakes_on_signals and self._pid == os.getpid():
            wakeup.leave()
        self._leave_own_signal()

    def run_entered(
        self, fn: Callable[..., Result], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Result:
        """One run, between `enter` and `leave`."""
        options = self._core_options()
        options["event_mask"] = self._event_mask | tuning.LATENCY_BIT * self._measures_latency
        options["on_main_thread"] = self._on_main_thread
        options["quit_signal"] = True
        options["foreign_moves"] = self.config.runtime.foreign == "move"
        options["foreign_movable"] = self.config.runtime.foreign_movable
        options["control"] = self.config.debug.control
        dump_signal = self.config.debug.dump_signal
        if dump_signal != "none":
            options["dump_signal"] = getattr(signal, dump_signal, 0)
        self._ending = self._freeing = False
        self._askers.clear()
        self._asking_ends = _core.Chan()
        self._interrupts = 0
        self._late_exit = None
        try:
            with notebook.loop_set_aside():
                result: Result = _core.run(self._main, (fn, args, kwargs), None, options)
            return result
        finally:
            _core.call_undisturbed(self._forget_run)

    def _forget_run(self) -> None:
        if self.is_program:
            global _program
            _program = None  # and what it raised
        if self._plugins is not None:
            from golibx.pluginmanager import set_running

            set_running(None)
            self._put_back()
            watchers.forget()
        if "golibx.signal" in sys.modules:
            sys.modules["golibx.signal"].end()
        if "golibx.aio" in sys.modules:
            sys.modules["golibx.aio"].forget()

    def _main(
        self, fn: Callable[..., Result], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Result:
        """The main goroutine."""
        try:
            self._name_main()
            if (read_end := wakeup.read_end()) >= 0:
                _core.watch_signals(read_end)
            if self._plugins is not None:
                from golibx.pluginmanager import set_running

                set_running(self._plugins)
                self._plugins.begin()
                self._plugins.start(self)
                # After golib_start, because hooks are promised never to be called two at once.
                self._pump = _core.go_system(self._deliver_events)
                if self._plugins.wants("tune"):
                    meter = tuning.Meter(self.config.tune.limits)
                    asker = _core.go_system(self._ask_plugins, self._plugins, meter)
                    self._askers.append(asker)
                if self.config.hooks.share:
                    self._askers.append(_core.go_system(self._watch_shares, self._plugins))
            if self.config.tune.rules:
                meter = tuning.Meter(self.config.tune.limits)
                self._askers.append(_core.go_system(self._follow_rules, meter))
            # Without *, 3.11 has the function run in this one's evaluation loop: see foreign.zig.
            result = fn(*args, **kwargs) if args or kwargs else fn()
        except BaseException:
            self._end()
            raise
        self._end()
        if self._late_exit is not None and self._pid == os.getpid():
            raise self._late_exit
        return result

    def _name_main(self) -> None:
        """Not in `_main`: its frame must hold no goroutine, which holds what is raised."""
        main = _core.current()
        assert main is not None
        self._main_id = main.id
        main.name = "main"
        if self.is_program:
            global _program
            _program = main

    @_core.whole
    def _end(self) -> None:
        # A child that this goroutine has forked has left behind all that has to end.
        if self._pid != os.getpid():
            return
        self._ending = True
        if self.config.debug.leaks:
            _core.open_to_signals(_report_leaks)
        began_ns = time.monotonic_ns()
        timeout_ns = self.config.runtime.shutdown_timeout_ns
        try:
            left = _core.cancel_all(timeout_ns)
            if left and timeout_ns:
                goroutines = "1 goroutine" if left == 1 else f"{left} goroutines"
                timeout = format_duration(timeout_ns)
                _write(
                    f"golibx: {goroutines} did not end within {timeout} after cancellation\n"
                    + _names_of_left(left)
                )
            self._end_event_loop(time.monotonic_ns() - began_ns)
            self._wait_for_native(time.monotonic_ns() - began_ns)
            _core.report_uncollected()
        finally:
            try:
                self._asking_ends.close()
                if self._plugins is not None:
                    self._end_plugins(self._plugins, timeout_ns)
                elif self._askers:
                    self._askers[0].join()
            finally:
                # Last, since it may take as long as the call that blocks it. Also where Ctrl-C or a
                # signal's handler has raised something in here.
                self._free_main_thread()

    def _end_event_loop(self, spent_ns: int) -> None:
        """That of golibx.aio, if the program has used it."""
        aio = sys.modules.get("golibx.aio")
        timeout_ns = self.config.runtime.shutdown_timeout_ns
        if aio is not None and not aio.end(max(0, timeout_ns - spent_ns) / 1e9) and timeout_ns:
            timeout = format_duration(timeout_ns)
            _write(f"golibx: the event loop of golibx.aio did not end within {timeout}\n")

    def _wait_for_native(self, spent_ns: int) -> None:
        """Native goroutines can't be cancelled: those that do not end go on with the process."""
        timeout_ns = self.config.runtime.shutdown_timeout_ns
        left = _core.native_wait(max(0, timeout_ns - spent_ns))
        if left and timeout_ns:
            goroutines = "1 native goroutine" if left == 1 else f"{left} native goroutines"
            timeout = format_duration(timeout_ns)
            _write(f"golibx: {goroutines} did not end within {timeout}; what they run goes on\n")

    def _take_own_signal(self, on_main_thread: bool) -> None:
        """Unless the program has a use for it. For `_free_main_thread` and signals.zig."""
        if on_main_thread and _OWN_SIGNAL and not signals.present(_OWN_SIGNAL):
            self._own_signal = _OWN_SIGNAL
            signals.set_plain(_OWN_SIGNAL, _core.on_own_signal)

    def _leave_own_signal(self) -> None:
        number = self._own_signal
        if number and signals.present(number) is _core.on_own_signal:
            signals.set_plain(number, int(signal.SIG_DFL))
        self._own_signal = 0

    def _free_main_thread(self) -> None:
        """Has a goroutine that blocks the main thread raise Cancelled: run() returns there.

        One that was given up, a plugin's hook, or a service goroutine that its plugin has left.
        """
        interrupted: BaseException | None = None
        warn_at = time.monotonic() + _WARN_AFTER_S
        while (is_locked := _core.free_main_thread(self._own_signal)) is not None:
            self._freeing = True
            try:
                _core.blocking(time.sleep, _FREE_INTERVAL_S)
                if time.monotonic() > warn_at:
                    warn_at = float("inf")
                    _write(
                        (_LOCKED_TO_MAIN if is_locked else _BLOCKS_MAIN)
                        + _names_of_left(system=True)
                    )
            except BaseException as exc:
                # Ctrl-C, which reaches the call too.
                interrupted = exc
        if interrupted is not None:
            raise interrupted

    def _end_plugins(self, plugins: PluginManager, timeout_ns: int) -> None:
        _core.events_stop()
        # Not for ever: a hook may wait for what will not happen any more.
        timeout = max(timeout_ns / 1e9, 1.0)
        callers = [self._pump, *self._askers] if self._pump is not None else []
        if not all(caller.join(timeout) for caller in callers):
            hook = plugins.calling
            who = f"{hook.name} of plugin {hook.plugin.name}" if hook else "a plugin's hook"
            waited = format_duration(int(timeout * 1e9))
            _write(
                f"golibx: {who} has not returned within {waited} of the program's end; the events "
                "that are left are not delivered\n"
            )
        plugins.stop(self)

    def _ask_plugins(self, plugins: PluginManager, meter: tuning.Meter) -> None:
        """A service goroutine: what plugins want to change."""
        while self._pause_asking(self.config.hooks.tune_interval_ns):
            snapshot = meter.snapshot()
            with self._hooks_lock:  # hooks are promised never to be called two at once
                plugins.ask_tune(snapshot, self._apply)
            self._follow_event_mask(plugins)

    def _apply(self, name: str, changes: Any) -> None:
        """What a plugin's `tune` has returned. Raises what disables the plugin."""
        if not hasattr(changes, "items"):
            raise TypeError(f"it returned {changes!r}, which is neither None nor a mapping")
        try:
            tuning.change(changes, f"plugin {name}", self.config.tune.limits)
        except tuning.BeyondLimits as exc:
            for error in exc.errors:
                if (name, error.key) not in self._refused:
                    self._refused.add((name, error.key))
                    _write(f"golibx: tune of plugin {name} is refused: {error}\n")

    def _follow_rules(self, meter: tuning.Meter) -> None:
        """A service goroutine: what the rules of `[tune]` say."""
        settings = self.config.tune
        book = tuning.RuleBook(
            settings.rules, settings.limits, settings.confirm, settings.cooldown_ns
        )
        while self._pause_asking(self.config.hooks.tune_interval_ns):
            for text in book.look(meter.snapshot()):
                _write(text + "\n")

    def _watch_shares(self, plugins: PluginManager) -> None:
        """A service goroutine: finds plugins that take more than `[hooks] share`, or that hang."""
        settings = self.config.hooks
        while self._pause_asking(settings.share_interval_ns):
            disable = settings.over_share == "disable"
            for text in plugins.look_at_shares(settings.share, disable=disable):
                _write(text + "\n")
            self._follow_event_mask(plugins)

    def _pause_asking(self, interval_ns: int) -> bool:
        """Waits for that long. False if the run is about to end."""
        try:
            self._asking_ends.recv_ok(interval_ns / 1e9)
        except DeadlineExceeded:
            return not self._ending
        return False

    def _deliver_events(self) -> None:
        """The pump goroutine: takes the recorded events to the plugins' hooks."""
        from golibx.eventbatch import EventBatch

        plugins = self._plugins
        assert plugins is not None
        budget_ns = self.config.hooks.budget_ns
        reasons = _core.wait_reasons()
        while taken := _core.events_wait(plugins.single_mask, plugins.batch_mask):
            events, data, objects = taken
            with self._hooks_lock:
                if data:
                    plugins.dispatch_batch(EventBatch(data, objects, reasons))
                plugins.dispatch(
                    events, budget_ns=budget_ns, pause=_core.gosched, judge=_core.judge
                )
            self._follow_event_mask(plugins)

    def _follow_event_mask(self, plugins: PluginManager) -> None:
        """A plugin may have been disabled."""
        mask = plugins.event_mask
        if mask != self._event_mask:
            self._event_mask = mask
            _core.set_event_mask(mask)

    def on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        """The handler of SIGINT. Python calls it in whatever goroutine the main thread runs."""
        if _core.hold_back(self.on_interrupt, signum):
            return
        self._interrupts += 1
        goroutine = _core.current()
        if (
            self._freeing
            or not _core.active()
            or (goroutine is not None and goroutine.id == self._main_id)
        ):
            signal.default_int_handler(signum, frame)
        _core.interrupt_main()

    def on_panic(self, goroutine: Goroutine[object], exc: BaseException) -> None:
        """Called in a goroutine that ended with an exception which no code collects."""
        is_request_to_end = isinstance(exc, SystemExit | KeyboardInterrupt)
        if not is_request_to_end:
            _report_panic(goroutine, exc)
            if self._plugins is not None and self._plugins.wants_event("on_goroutine_panic"):
                _core.record_panic(goroutine.id, _last_line(exc))
        request: BaseException
        if is_request_to_end:
            request = exc
        elif self.config.runtime.on_panic == "exit":
            request = SystemExit(_PANIC_EXIT_CODE)
        else:
            return
        if not self._ending or self._pid != os.getpid():
            _core.throw_main(request)
        elif self._late_exit is None and isinstance(request, SystemExit):
            self._late_exit = request


_INHERITED = object()

_entered: Runtime | None = None
"""That of the run that goes on; in the child of a fork, of one that has a survivor."""

_OWN_SIGNAL: int = signal.SIGRTMAX - 1 if sys.platform == "linux" else 0
"""Ends a C call that keeps run() from returning, or the main goroutine from its signal handlers;
the programs that have a use for it keep it."""

_BLOCKS_MAIN = """\
golibx: a goroutine that was given up blocks the main thread in a call that no signal ends: \
run() returns when the call does
"""
_LOCKED_TO_MAIN = """\
golibx: a goroutine that was given up is locked to the main thread, by lock_os_thread() or a \
greenlet, and cannot go on elsewhere: run() returns when it ends or waits
"""

_FREE_INTERVAL_S = 0.001
_WARN_AFTER_S = 1.0
_MOST_NAMED = 10


def _names_of_left(count: int = 0, *, system: bool = False) -> str:
    """A line for each goroutine of the program's, or of all, that has not ended.

    Of `count` that are left, those without a name have ended, but for finalizers.
    """
    from golibx.dump import printable

    main = _core.current()
    left = [
        g
        for g in reversed(_core.goroutines())
        if g is not main and (system or not (g.system or g.id in threads.of_program))
    ]
    lines = []
    for goroutine in left[:_MOST_NAMED]:
        place = f" started at {goroutine.started_at}" if goroutine.started_at else ""
        name = printable(goroutine.name, lines=False)
        lines.append(f"  goroutine {goroutine.id} [{name}]{place}: {goroutine.state}\n")
    if len(left) > _MOST_NAMED:
        lines.append(f"  and {len(left) - _MOST_NAMED} more\n")
    if count > len(left):
        lines.append(
            f"  {count - len(left)} whose function has ended: a finalizer of what it has left "
            "goes on\n"
        )
    return "".join(lines)


def _patch() -> None:
    """Once in a process."""
    locks.install()
    threads.install()
    greenlets.install()
    polling.install()
    eventloop.install()


_reporting = _core.Guard()
"""Many may panic at once. Each would take a thread to wait for an import that another makes, and to
read the source files that a traceback shows."""


def _report_panic(goroutine: Goroutine[object], exc: BaseException) -> None:
    with _reporting:
        import traceback

        from golibx.dump import printable

        name = printable(goroutine.name, lines=False)
        place = f" started at {goroutine.started_at}" if goroutine.started_at else ""
        frames = without_own_frames(exc.__traceback__) or exc.__traceback__
        what = f"goroutine {goroutine.id} [{name}]{place} panicked:"
        try:
            # The exception's text is made by the program's code, which Ctrl-C has to end.
            lines = _core.open_to_signals(traceback.format_exception, type(exc), exc, frames)
            _write(f"{what}\n{''.join(lines)}")
        except KeyboardInterrupt as interrupt:
            _write(f"{what} {type(exc).__qualname__}\n")
            _core.throw_main(interrupt)  # the caller of this would only report it


def _report_leaks() -> None:
    """Says which goroutines the main one leaves behind, for `[debug] leaks`."""
    from golibx import dump

    main = _core.current()
    left = [
        g
        for g in reversed(_core.goroutines())
        if g is not main and g.waiting and not (g.system or g.id in threads.of_program)
    ]
    if not left:
        return
    goroutines = "1 goroutine" if len(left) == 1 else f"{len(left)} goroutines"
    _write(f"golibx: {goroutines} still waited when main returned:\n\n{dump.describe(left)}\n")


def _last_line(exc: BaseException) -> str:
    """Of its traceback: the exception's type and text. After _report_panic."""
    import traceback

    lines: list[str] = _core.open_to_signals(traceback.format_exception_only, exc)
    return lines[-1].strip()


def _write(text: str) -> None:
    if sys.stderr is not None:  # there is none under pythonw
        _core.open_to_signals(_write_to, sys.stderr, text)


def _write_to(file: TextIO, text: str) -> None:
    file.write(text)
    file.flush()
