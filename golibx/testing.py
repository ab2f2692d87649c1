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
from golibx.errors import Cancelled
from golibx.patch import clock
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
    if seed is not None or not loaded.preempt.async_:
        # What hangs is to be ended all the same: from Python 3.13 on, signals do not interrupt the
        # goroutine that computes. No test that keeps within its limit is preempted.
        slice_ns = int(((timeout or 0) + _AGAIN_S) * 1e9)
        options |= {"preempt_async": int(timeout is not None), "preempt_slice_ns": slice_ns}
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

    def run(self, config: Config, options: Mapping[str, int]) -> Any:
        __tracebackhide__ = True
        runtime = _TestRuntime(config, options)
        with self._limit(), clock.virtual() if options["virtual_time"] else nullcontext():
            return runtime.run(self._main, (), {})

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
        if self._timeout is None or not _has_alarm():
            yield
            return
        began = _monotonic()
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        if 0 < left <= self._timeout:  # somebody else's limit, which comes sooner
            yield
            return
        handler = signal.signal(signal.SIGALRM, self._on_alarm)
        signal.setitimer(signal.ITIMER_REAL, self._timeout, _AGAIN_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            if left > 0:
                left = max(left - (_monotonic() - began), 0.001)
                signal.setitimer(signal.ITIMER_REAL, left, interval)

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        """Python calls it in whatever goroutine the main thread runs, or in none."""
        current = _core.current()
        in_main = current is not None and current.id == self._main_id
        if current is not None and not in_main and (self._told or self._returned):
            raise Cancelled("the test has passed its time limit")  # it may never wait
        if self._returned:
            return
        self._told = True
        exc = self._timed_out()
        if in_main:
            raise exc
        _core.throw_main(exc)

    def _watch(self, timeout: float) -> None:
        """The limit where there is no signal: a goroutine of the runtime's own."""
        _core.sleep(timeout)
        while not self._returned:
            _core.throw_main(self._timed_out())
            _core.sleep(_AGAIN_S)

    def _timed_out(self) -> TimedOut:
        from golibx.dump import stacks

        # Without what lies between pytest and the test.
        lines = []
        outside = False
        for line in stacks().splitlines(keepends=True):
            outside = line.startswith("    ") and (outside or "    _Test._main at" in line)
            if line.startswith("    created ") or not (outside or f" at {__file__}:" in line):
                lines.append(line)
        limit = f"{self._timeout:g} s"
        return TimedOut(f"the test passed its time limit of {limit}\n\n{''.join(lines)}")


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
