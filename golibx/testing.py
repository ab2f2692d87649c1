"""Tests of concurrent code: time limits, leak checks, seeded schedules, and a clock that jumps.

    from golibx.testing import run

    run(test, seed=7, preempt_every_call=True)     # the same order of goroutines every time
    run(test, seed="random", schedules=100)        # a hundred orders; the first that fails is named
    run(test, virtual_time=True)                   # sleeps of hours end at once, in order

pytest's tests get the same from the mark `goroutine`, whose plugin is the package pytest_golibx.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import contextmanager, nullcontext

from golibx import _core
from golibx.config import Config
from golibx.errors import Cancelled, Deadlock
from golibx.patch import clock, signals
from golibx.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType
    from typing import Any, Literal, NoReturn, TypeVar

    from golibx import _core as core

    Goroutine = core.Goroutine[Any]
    Result = TypeVar("Result")

__all__ = ["Leaked", "TimedOut", "run"]

_MAX_SEED = 2**63 - 1
_AGAIN_S = 1.0
"""After the limit the test is told once more at this interval, in case it did not listen."""
_LEAK_GRACE_S = 1.0
"""What goroutines that run when the test ends may still run for."""
_LEAK_POLL_S = 0.001

_monotonic = time.monotonic  # also while the module's goes by a virtual clock


class TimedOut(BaseException):
    """A test passed its time limit. The text holds the stack of every goroutine.

    Not an Exception, so that the test does not take it for one of its own.
    """


class Leaked(AssertionError):
    """Goroutines that a test started were alive at its end. The text holds their stacks."""


def run(
    fn: Callable[..., Result],
    /,
    *args: Any,
    timeout: float | None = None,
    leaks: bool = True,
    seed: int | Literal["random"] | None = None,
    schedules: int = 1,
    preempt_every_call: bool = False,
    virtual_time: bool = False,
    early_timers: bool = True,
    config: Config | str | os.PathLike[str] | Mapping[str, object] | None = None,
    **kwargs: Any,
) -> Result:
    """Runs `fn(*args, **kwargs)` as golibx.run() does, the way that a test wants it.

    Args:
        fn: the main function.
        timeout: seconds after which it is ended with TimedOut; None for no limit.
        seed: 1 to 2**63 - 1: decides the order in which goroutines run, and every other choice of
            the scheduler's; "random" for a new one. Goroutines are then not preempted by time.
        schedules: runs `fn` under this many seeds, one after the other, from `seed` or 1 on.
        preempt_every_call: a goroutine may have to give way in every call of golibx's, also in
            those that do not wait. Needs `seed` or `schedules`.
        virtual_time: the clock of the goroutines stands still while one of them runs, and jumps to
            the next timer when all of them wait.
        early_timers: under a seed in virtual time a timer may also fire while goroutines run, as
            if they were slow. False for a test that counts on their time standing still.
        leaks: raises Leaked if goroutines are alive that `fn` left behind.
        config: as for golibx.run().

    Raises:
        ValueError: an option is not what is allowed.
        TimedOut: the limit was passed.
        Leaked: goroutines were left behind.
        BaseException: what `fn` raises. A note tells the seed.
    """
    _check(timeout, seed, schedules, preempt_every_call)
    if seed == "random":
        seed = random.SystemRandom().randint(1, _MAX_SEED - schedules)
    elif seed is None and schedules > 1:
        seed = 1
    loaded = _loaded(config)
    options = {"virtual_time": int(virtual_time)}
    if seed is not None:
        options |= {"explore": 1, "explore_calls": int(preempt_every_call), "retake_enabled": 0}
        options["explore_timers"] = int(early_timers)
    if seed is not None or not loaded.preempt.async_:
        # What hangs is to be ended all the same: from Python 3.13 on, signals do not interrupt the
        # goroutine that computes. No test that keeps within its limit is preempted.
        limit = _first_limit(timeout)
        slice_ns = int(((limit or 0) + _AGAIN_S) * 1e9)
        options |= {"preempt_async": int(limit is not None), "preempt_slice_ns": slice_ns}
    result = None
    for number in range(schedules):
        if seed is not None:
            options["seed"] = seed + number
        test = _Test(fn, args, kwargs, leaks=leaks, timeout=timeout)
        try:
            result = test.run(loaded, options)
        except BaseException as exc:
            if seed is not None:
                which = f" (schedule {number + 1} of {schedules})" if schedules > 1 else ""
                exc.add_note(f"golibx: this was seed {seed + number}{which}")
            raise
    return result  # type: ignore[return-value]  # there is one schedule at least


def _check(
    timeout: float | None, seed: object, schedules: object, preempt_every_call: bool
) -> None:
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be a number of seconds above 0, or None; not {timeout!r}")
    if not isinstance(schedules, int) or not 1 <= schedules < _MAX_SEED:
        raise ValueError(f"schedules must be an int from 1 on, not {schedules!r}")
    if seed not in (None, "random") and (
        not isinstance(seed, int)
        or isinstance(seed, bool)
        or not 1 <= seed <= _MAX_SEED - schedules + 1
    ):
        raise ValueError(f'seed must be 1 to {_MAX_SEED}, "random" or None; not {seed!r}')
    if preempt_every_call and seed is None and schedules == 1:
        raise ValueError("preempt_every_call needs a seed, or schedules")


def _loaded(config: Config | str | os.PathLike[str] | Mapping[str, object] | None) -> Config:
    if isinstance(config, Config):
        return config
    if config is None or isinstance(config, str | os.PathLike):
        return Config.load(config)
    return Config.from_mapping(config)


class _TestRuntime(Runtime):
    """A run with options of the core's that a configuration has no keys for."""

    def __init__(self, config: Config, options: Mapping[str, int]) -> None:
        super().__init__(config)
        self._options = options

    def _core_options(self) -> dict[str, int]:
        return {**super()._core_options(), **self._options}


class _Test:
    """One run of a test function."""

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        leaks: bool,
        timeout: float | None,
    ) -> None:
        self._fn = fn
        self._args = args
        self._kwargs = kwargs
        self._leaks = leaks
        self._timeout = timeout
        self._returned = False
        self._told = False
        self._main_id = 0
        self._end = 0.0
        self._others = _OthersAlarm()
        self._others_exc: BaseException | None = None

    def run(self, config: Config, options: Mapping[str, int]) -> Any:
        __tracebackhide__ = True
        runtime = _TestRuntime(config, options)
        with self._limit(), clock.virtual() if options["virtual_time"] else nullcontext():
            try:
                return runtime.run(self._main, (), {})
            except Deadlock as exc:
                if exc.args:
                    exc.args = (_of_the_test(str(exc)),)
                raise

    def _main(self) -> Any:
        __tracebackhide__ = True
        main = _core.current()
        assert main is not None
        self._main_id = main.id
        watch = None
        if self._timeout is not None and not _has_alarm():
            watch = _core.go_system(self._watch, self._timeout)
        try:
            result = self._fn(*self._args, **self._kwargs)
            if self._leaks:
                _check_leaks()
            return result
        finally:
            self._returned = True
            if watch is not None:
                watch.cancel()

    # ---- the time limit ----

    @contextmanager
    def _limit(self) -> Iterator[None]:
        """A signal, which ends also what never waits: it needs no thread and no goroutine."""
        if not _has_alarm():
            yield
            return
        self._end = _monotonic() + (self._timeout or 0)
        self._others = _OthersAlarm()
        bystanders = signals.bystanders
        # What was there before the test has nothing to do with what it waits for.
        signals.bystanders = signals.handled()
        try:
            self._arm()
            yield
        finally:
            self._others.restore()
            signals.bystanders = bystanders

    def _arm(self) -> None:
        """Sets the alarm for the first limit: the test's own, or that of somebody else."""
        delay = None if self._timeout is None else max(self._end - _monotonic(), 0.001)
        if self._others.comes_before(delay):
            delay = self._others.left if self._others.is_limit else None
        if delay is not None:
            self._others.replace(self._on_alarm, delay)

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        """Python calls it in whatever goroutine the main thread runs, or in none."""
        if self._others.is_due():
            self._on_others_alarm(signum, frame)
            if self._others_exc is None:
                return
        current = _core.current()
        in_main = current is not None and current.id == self._main_id
        if current is not None and not in_main and (self._told or self._returned):
            raise Cancelled("the test has passed its time limit")  # it may never wait
        if self._returned and self._others_exc is None:
            return
        self._told = True
        exc = self._others_exc or self._timed_out()
        if in_main:
            raise exc
        _core.throw_main(exc)

    def _on_others_alarm(self, signum: int, frame: FrameType | None) -> None:
        """What their handler raises is for the main goroutine, as it would be without others."""
        self._others_exc = self._others.call(signum, frame)
        if self._others_exc is None:
            self._others = _OthersAlarm()
            self._arm()
        else:
            self._others_exc.add_note(f"golibx: what the goroutines did\n\n{_stacks()}")
            self._others.replace(self._on_alarm, _AGAIN_S)

    def _watch(self, timeout: float) -> None:
        """The limit where there is no signal: a goroutine of the runtime's own."""
        _core.sleep(timeout)
        while not self._returned:
            _core.throw_main(self._timed_out())
            _core.sleep(_AGAIN_S)

    def _timed_out(self) -> TimedOut:
        return TimedOut(f"the test passed its time limit of {self._timeout:g} s\n\n{_stacks()}")


class _OthersAlarm:
    """An alarm of somebody else's, as pytest-timeout sets one, that was set before the test.

    If it is a limit that comes before the test's own, its handler is called in the middle of the
    test, and may raise in whatever goroutine that is. In the main one that ends the test.

    Attributes:
        left: seconds until it comes; 0 if there is none.
        is_limit: whether a function is to be called, once.
    """

    def __init__(self) -> None:
        self.left = self._interval = 0.0
        self._handler: Any = None
        if _has_alarm():
            self.left, self._interval = signal.getitimer(signal.ITIMER_REAL)
            self._handler = signal.getsignal(signal.SIGALRM)
        self._began = _monotonic()
        self._replaced = False
        self._came = False
        self.is_limit = self.left > 0 and not self._interval and callable(self._handler)

    def comes_before(self, delay: float | None) -> bool:
        return self.left > 0 and (delay is None or self.left <= delay)

    def is_due(self) -> bool:
        left = self.left - (_monotonic() - self._began)
        return self.is_limit and not self._came and left <= 0

    def replace(self, handler: Callable[[int, FrameType | None], None], delay: float) -> None:
        self._replaced = True
        signals.set_plain(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, delay, _AGAIN_S)

    def call(self, signum: int, frame: FrameType | None) -> BaseException | None:
        """Has it come now. Returns what its handler raises."""
        self._came = True
        self.restore()
        try:
            self._handler(signum, frame)
        except BaseException as exc:
            return exc
        return None

    def restore(self) -> None:
        if not self._replaced:
            return
        self._replaced = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._handler)
        if self.left > 0 and not self._came:
            left = max(self.left - (_monotonic() - self._began), 0.001)
            signal.setitimer(signal.ITIMER_REAL, left, self._interval)


def _first_limit(timeout: float | None) -> float | None:
    others = _OthersAlarm()
    return others.left if others.is_limit and others.comes_before(timeout) else timeout


def _stacks() -> str:
    from golibx.dump import stacks

    return _of_the_test(stacks())


def _of_the_test(dump: str) -> str:
    """Without what lies between pytest and the test."""
    lines = []
    outside = False
    for line in dump.splitlines(keepends=True):
        if line.startswith("    _Test._main at "):
            outside = True
        elif line.startswith(("    created ", "    waits on ")) or not line.startswith("    "):
            outside = False
        if not (outside or f" at {__file__}:" in line):
            lines.append(line)
    return "".join(lines)


def _has_alarm() -> bool:
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


# ---- leaks ----


def _left() -> list[Goroutine]:
    main = _core.current()
    return [g for g in reversed(_core.goroutines()) if g is not main and not g.system]


def _check_leaks() -> None:
    """In the main goroutine, at the end of the test."""
    __tracebackhide__ = True
    end = _monotonic() + _LEAK_GRACE_S
    # Those that have got what they waited for are about to end.
    while (moving := [g for g in _left() if not g.waiting]) and _monotonic() < end:
        if all(g.state == "syscall" for g in moving):
            _core.sleep(_LEAK_POLL_S)
        else:
            _core.gosched()
    if left := _left():
        _raise_leaked(left)


def _raise_leaked(left: list[Goroutine]) -> NoReturn:
    __tracebackhide__ = True
    from golibx.dump import describe

    goroutines = "1 goroutine was" if len(left) == 1 else f"{len(left)} goroutines were"
    raise Leaked(f"{goroutines} left behind by the test\n\n{describe(left)}")
