"""Tests of concurrent code: time limits, leak checks, seeded schedules, and a clock that jumps.

    from golibx.testing import run

    run(test, seed=7, preempt_every_call=True)     # the same order of goroutines every time
    run(test, seed="random", schedules=100)        # a hundred orders; the first that fails is named
    run(test, virtual_time=True)                   # sleeps of hours end at once, in order

    wait_until_parked(reader)                      # in a test: until that goroutine waits
    wait_until(lambda: log == [1, 2])              # until something is so

pytest's tests get the same from the mark `goroutine` of the plugin pytest_golibx.
golibx.testing.plugins is for tests of golibx's plugins.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import warnings
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from typing import Any, NamedTuple, overload

from golibx import _core
from golibx import schedules as _schedules
from golibx.errors import Cancelled, Deadlock
from golibx.patch import clock, signals
from golibx.runtime import Runtime, config_of, refuse_async
from golibx.schedules import WrongSchedule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Literal, NoReturn, TypeVar

    from golibx import _core as core
    from golibx.config import Config

    Goroutine = core.Goroutine[Any]
    Result = TypeVar("Result")

__all__ = [
    "Explored",
    "Leaked",
    "TimedOut",
    "WrongSchedule",
    "run",
    "wait_until",
    "wait_until_parked",
]

_MAX_SEED = 2**63 - 1
_MOST_SCHEDULES = 10_000
"""How many an exhaustive run goes through unless it is told."""
_SHRINK_RUNS = 1000
_SHRINK_S = 2.0
"""How much is done for a smaller schedule."""
_LONGEST_TEXT = 2000
"""A longer schedule is not shown."""
_AGAIN_S = 1.0
"""After the limit the test is told once more at this interval, in case it did not listen."""
_NOW_S = 0.001
"""An alarm comes in so many seconds if it is due already."""
_LEAK_GRACE_S = 1.0
"""What goroutines that run when the test ends may still run for."""
_POLL_S = 0.001
_TURNS = 10
"""A goroutine that waits for others gives way so often before it sleeps."""

# Also while the module's go by a virtual clock.
_monotonic = time.monotonic
_sleep = time.sleep


class TimedOut(BaseException):
    """A test passed its time limit. The text holds the stack of every goroutine.

    Not an Exception, so that the test does not take it for one of its own.
    """


class Leaked(AssertionError):
    """Goroutines that a test started were alive at its end. The text holds their stacks."""


class Explored(NamedTuple):
    """What an exhaustive run has seen.

    Attributes:
        schedules: how many.
        complete: whether these are all of them.
        preemptions: how many each had at most.
    """

    schedules: int
    complete: bool
    preemptions: int

    def __str__(self) -> str:
        preemptions = _counted(self.preemptions, "preemption")
        if self.complete:
            return f"all {self.schedules} schedules with at most {preemptions}"
        return (
            f"the first {self.schedules} schedules with at most {preemptions}, and there are more: "
            "give a higher limit, schedules=, or fewer preemptions"
        )


@overload
def run(
    fn: Callable[..., object],
    /,
    *args: Any,
    exhaustive: int,
    schedules: int | None = None,
    preempt_every_call: bool = False,
    virtual_time: bool = False,
    early_timers: bool = True,
    shrink: bool | None = None,
    timeout: float | None = None,
    leaks: bool = True,
    config: Config | str | os.PathLike[str] | Mapping[str, object] | None = None,
    **kwargs: Any,
) -> Explored: ...


@overload
def run(
    fn: Callable[..., Result],
    /,
    *args: Any,
    timeout: float | None = None,
    leaks: bool = True,
    seed: int | Literal["random"] | None = None,
    schedules: int | None = None,
    schedule: str | None = None,
    preempt_every_call: bool = False,
    virtual_time: bool = False,
    early_timers: bool = True,
    shrink: bool | None = None,
    config: Config | str | os.PathLike[str] | Mapping[str, object] | None = None,
    **kwargs: Any,
) -> Result: ...


def run(
    fn: Callable[..., Any],
    /,
    *args: Any,
    timeout: float | None = None,
    leaks: bool = True,
    seed: int | Literal["random"] | None = None,
    schedules: int | None = None,
    exhaustive: int | None = None,
    schedule: str | None = None,
    preempt_every_call: bool = False,
    virtual_time: bool = False,
    early_timers: bool = True,
    shrink: bool | None = None,
    config: Config | str | os.PathLike[str] | Mapping[str, object] | None = None,
    **kwargs: Any,
) -> Any:
    """Runs `fn(*args, **kwargs)` as golibx.run() does, the way that a test wants it.

    Args:
        fn: the main function.
        timeout: seconds after which it is ended with TimedOut, each time; None for no limit.
        seed: 1 to 2**63 - 1: decides the order in which goroutines run, and every other choice of
            the scheduler's; "random" for a new one. Goroutines are then not preempted by time.
        schedules: runs `fn` under this many seeds, one after the other, from `seed` or 1 on.
        exhaustive: runs `fn` under all schedules with so many preemptions at most, those with fewer
            first; returns an Explored then. `schedules` is the limit, 10 000 unless given. A
            RuntimeWarning says where it was reached.
        schedule: runs `fn` under the choices that the note of a failure shows, and with the options
            that they were made with, whatever is given for these.
        preempt_every_call: a goroutine may have to give way in every call of golibx's, also in
            those that do not wait. Needs `seed`, `schedules` or `exhaustive`.
        virtual_time: the clock of the goroutines stands still while one of them runs, and jumps to
            the next timer when all of them wait.
        early_timers: under a seed in virtual time a timer may also fire while goroutines run, as
            if they were slow. False for a test that counts on their time standing still.
        shrink: looks for a smaller schedule that fails the same way, in up to 1000 more runs of
            `fn`, whose output is not shown. Unless given, where there is more than one schedule.
        leaks: raises Leaked if goroutines are alive that `fn` left behind.
        config: as for golibx.run().

    Raises:
        TypeError: `fn` is a coroutine function.
        ValueError: an option is not what is allowed.
        WrongSchedule: `schedule` is not one, or not one of this program.
        TimedOut: the limit was passed.
        Leaked: goroutines were left behind.
        BaseException: what `fn` raises. Notes tell the seed and the schedule.
    """
    refuse_async(fn)
    _check(timeout, seed, schedules, exhaustive, schedule, preempt_every_call)
    if schedule is not None:
        letters, plan, _ = _schedules.parse(schedule)
        given = _schedules.needed(letters)
        preempt_every_call = given["preempt_every_call"]
        virtual_time = given["virtual_time"]
        early_timers = given["early_timers"]
    many = exhaustive is not None or (schedules or 1) > 1
    if seed == "random":
        seed = random.SystemRandom().randint(1, _MAX_SEED - (schedules or 1))
    elif seed is None and many and exhaustive is None:
        seed = 1
    loaded = config_of(config)
    options: dict[str, object] = {"virtual_time": int(virtual_time), "keep": int(many)}
    is_explored = seed is not None or exhaustive is not None or schedule is not None
    if is_explored:
        options |= {"explore": 1, "explore_calls": int(preempt_every_call), "retake_enabled": 0}
        options["explore_timers"] = int(early_timers)
    if is_explored or not loaded.preempt.async_:
        # What hangs has to end all the same: from Python 3.13 on, signals do not interrupt the
        # goroutine that computes. No test that keeps within its limit is preempted.
        limit = _first_limit(timeout)
        slice_ns = int(((limit or 0) + _AGAIN_S) * 1e9)
        options |= {"preempt_async": int(limit is not None), "preempt_slice_ns": slice_ns}
    letters = _schedules.letters_of(
        preempt_every_call=preempt_every_call,
        virtual_time=virtual_time,
        early_timers=early_timers,
    )
    runs = _Runs(fn, args, kwargs, leaks=leaks, timeout=timeout, config=loaded, options=options)
    search = _Search(runs, letters, shrink=many if shrink is None else shrink)
    try:
        if schedule is not None:
            return search.follow(schedule, plan)
        if exhaustive is not None:
            explored = search.go_through(exhaustive, schedules or _MOST_SCHEDULES)
            if not explored.complete:
                warnings.warn(f"golibx: saw {explored}", RuntimeWarning, stacklevel=2)
            return explored
        if seed is not None:
            return search.draw(seed, schedules or 1)
        return runs.once({})
    finally:
        runs.close()


def _check(
    timeout: float | None,
    seed: object,
    schedules: object,
    exhaustive: object,
    schedule: object,
    preempt_every_call: bool,
) -> None:
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be a number of seconds above 0, or None; not {timeout!r}")
    if schedules is not None and (
        not isinstance(schedules, int)
        or isinstance(schedules, bool)
        or not 1 <= schedules < _MAX_SEED
    ):
        raise ValueError(f"schedules must be an int from 1 on, not {schedules!r}")
    if seed not in (None, "random") and (
        not isinstance(seed, int)
        or isinstance(seed, bool)
        or not 1 <= seed <= _MAX_SEED - (schedules or 1) + 1
    ):
        raise ValueError(f'seed must be 1 to {_MAX_SEED}, "random" or None; not {seed!r}')
    if exhaustive is not None and (
        not isinstance(exhaustive, int) or isinstance(exhaustive, bool) or exhaustive < 0
    ):
        raise ValueError(
            f"exhaustive must be how many preemptions there may be, an int from 0 on, "
            f"not {exhaustive!r}"
        )
    if schedule is not None and not isinstance(schedule, str):
        raise ValueError(f"schedule must be the text of one, not {schedule!r}")
    ways = {"seed": seed, "exhaustive": exhaustive, "schedule": schedule}
    given = [name for name, value in ways.items() if value is not None]
    if schedule is not None and (schedules or 1) > 1:
        given.append("schedules")
    if len(given) > 1:
        raise ValueError(f"{given[0]} and {given[1]} exclude each other: give one")
    if preempt_every_call and not given and (schedules or 1) == 1:
        raise ValueError("preempt_every_call needs a seed, or schedules, or exhaustive")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# ---- schedules ----


class _Search:
    """Runs a test under one schedule after the other, until one fails."""

    def __init__(self, runs: _Runs, letters: str, *, shrink: bool) -> None:
        self._runs = runs
        self._letters = letters
        self._shrink = shrink

    def draw(self, seed: int, schedules: int) -> Any:
        result = None
        for number in range(schedules):
            try:
                result = self._runs.once({"seed": seed + number})
            except BaseException as exc:
                which = f" (schedule {number + 1} of {schedules})" if schedules > 1 else ""
                exc.add_note(f"golibx: this was seed {seed + number}{which}")
                self._explain(exc)
                raise
            if self._runs.is_child:
                break
        return result

    def go_through(self, preemptions: int, most: int) -> Explored:
        count = 0

        def once(plan: bytes) -> bytes:
            nonlocal count
            count += 1
            self._runs.once({"explore_follows": 1, "plan": plan})
            return self._made(plan)

        had = 0
        try:
            for had in _schedules.every(preemptions, once):  # noqa: B007  # for a failure
                if count == most or self._runs.is_child:
                    return Explored(count, complete=False, preemptions=preemptions)
        except BaseException as exc:
            if not isinstance(exc, WrongSchedule):
                exc.add_note(
                    f"golibx: this was schedule {count}, with {_counted(had, 'preemption')}"
                )
                self._explain(exc)
            raise
        return Explored(count, complete=True, preemptions=preemptions)

    def _made(self, plan: bytes) -> bytes:
        """The choices of a run that followed the beginning of another one's."""
        made, misfit, complete = _core.schedule()
        if misfit >= 0 or len(made) < len(plan):
            raise WrongSchedule(
                "the test does not do the same under the same choices, and so not all its "
                "schedules can be gone through: something from outside decides, as sockets, "
                "threads, the real time, random numbers, or what an earlier run has left behind"
            )
        if not complete:
            raise WrongSchedule("the test makes more choices than can be gone through")
        return made

    def follow(self, text: str, plan: _schedules.Schedule) -> Any:
        options = {"explore_follows": 1, "plan": _schedules.pack(plan)}
        try:
            result = self._runs.once(options)
        except BaseException as exc:
            made, misfit, _ = _core.schedule()
            _schedules.check(text, _schedules.unpack(made), misfit)
            exc.add_note(f"golibx: this was schedule {text}")
            raise
        made, misfit, _ = _core.schedule()
        _schedules.check(text, _schedules.unpack(made), misfit)
        return result

    # ---- a failure ----

    def _explain(self, exc: BaseException) -> None:
        """Tells what makes it again."""
        if not self._runs.began:
            return
        made, _, complete = _core.schedule()
        choices = _schedules.unpack(made)
        if not complete:
            exc.add_note("golibx: it made more choices than are written down")
            return
        if self._shrink and isinstance(exc, Exception) and not self._runs.is_child:
            smaller = self._smaller(exc, choices)
            if smaller is None:
                exc.add_note(
                    "golibx: the same choices do not make it again: something from outside "
                    "decides, as sockets, threads, the real time, or what an earlier run has left "
                    "behind"
                )
                return
            choices = smaller
        text = _schedules.text_of(choices, self._letters)
        if len(text) > _LONGEST_TEXT:
            exc.add_note(f"golibx: by {len(choices)} choices, too many to be shown")
            return
        preemptions = _counted(_schedules.preemptions(choices), "preemption")
        exc.add_note(f'golibx: schedule="{text}" makes it again, with {preemptions}')

    def _smaller(
        self, found: Exception, choices: _schedules.Schedule
    ) -> _schedules.Schedule | None:
        kind = _kind_of(found)

        def once(plan: bytes) -> tuple[bytes, bool]:
            failed = False
            try:
                self._runs.once({"explore_follows": 1, "plan": plan, "bends": 1})
            except Exception as exc:
                failed = _kind_of(exc) == kind
            return _core.schedule()[0], failed

        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            return _schedules.smaller(choices, once, most_runs=_SHRINK_RUNS, most_seconds=_SHRINK_S)


def _kind_of(exc: BaseException) -> tuple[object, ...]:
    """What makes two failures the same: the type, and where it was raised."""
    place = exc.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return (type(exc),)
    return type(exc), place.tb_frame.f_code, place.tb_lineno


class _TestRuntime(Runtime):
    """Runs with options of the core's that a configuration has no keys for."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.options: Mapping[str, object] = {}
        self._of_config = super()._core_options()

    def _core_options(self) -> dict[str, object]:
        return {**self._of_config, **self.options}


class _Runs:
    """The runs of a test function, one after the other.

    What surrounds them is set up once (Runtime.enter), unless one of them has changed it, or there
    are plugins, which live for one run.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        leaks: bool,
        timeout: float | None,
        config: Config,
        options: Mapping[str, object],
    ) -> None:
        self._fn = fn
        self._args = args
        self._kwargs = kwargs
        self._leaks = leaks
        self._timeout = timeout
        self._config = config
        self._options = options
        self._virtual = bool(options["virtual_time"])
        self._pid = os.getpid()
        self.began = False
        """The last run has called the function."""
        self._returned = False
        self._told = False
        self._main_id = 0
        self._end = 0.0
        self._others = _OthersAlarm()
        self._others_exc: BaseException | None = None
        self._runtime: _TestRuntime | None = None
        self._bystanders: frozenset[int] = frozenset()

    @property
    def is_child(self) -> bool:
        """The function has forked, and this is the child."""
        return os.getpid() != self._pid

    def once(self, options: Mapping[str, object]) -> Any:
        """Runs it, with these options beside those of all runs."""
        __tracebackhide__ = True
        self.began = self._returned = self._told = False
        self._others_exc = None
        if self._runtime is None:
            self._enter()
        assert self._runtime is not None
        self._runtime.options = {**self._options, **options}
        if _has_alarm():
            self._end = _monotonic() + (self._timeout or 0)
            self._arm()
        try:
            with clock.virtual() if self._virtual else nullcontext():
                return self._runtime.run_entered(self._main, (), {})
        except Deadlock as exc:
            if exc.args:
                exc.args = (_of_the_test(str(exc)),)
            raise
        finally:
            self._others.pause()
            if self._others_exc is not None or not self._runtime.is_intact():
                self.close()

    def _enter(self) -> None:
        self._runtime = runtime = _TestRuntime(self._config)
        self._bystanders = signals.bystanders
        _core.claim()
        try:
            runtime.enter()
        except BaseException:
            runtime.leave()
            _core.unclaim()
            self._runtime = None
            raise
        if _has_alarm():
            self._others = _OthersAlarm()
            # What was there before the test has nothing to do with what it waits for.
            signals.bystanders = signals.handled()
            signals.recount()

    def close(self) -> None:
        """Takes down what surrounds the runs. The next one sets it up anew."""
        runtime, self._runtime = self._runtime, None
        if runtime is None:
            return
        try:
            try:
                runtime.leave()
            finally:
                _core.unclaim()
        finally:
            self._others.restore()
            signals.bystanders = self._bystanders

    def _main(self) -> Any:
        __tracebackhide__ = True
        main = _core.current()
        assert main is not None
        self._main_id = main.id
        self.began = True
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

    # ---- the time limit: a signal, which ends also what never waits ----

    def _arm(self) -> None:
        """Sets the alarm for the first limit: the test's own, or that of other code."""
        delay = None if self._timeout is None else max(self._end - _monotonic(), _NOW_S)
        if self._others.comes_before(delay):
            delay = self._others.left_now() if self._others.is_limit else None
        if delay is not None:
            self._others.replace(self._on_alarm, delay)

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        """Python calls it in whatever goroutine the main thread runs, or in none."""
        if self._others.is_due():
            self._on_others_alarm(signum, frame)
            if self._others_exc is None:
                return
        current = _core.current()
        # Before `_main` has begun only the main goroutine runs, and services of plugins.
        in_main = current is not None and (
            current.id == self._main_id if self.began else not current.system
        )
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
    """An alarm of other code's, as pytest-timeout sets one, that was set before the test.

    If it is a limit that comes before the test's own, its handler is called in the middle of the
    test, and may raise in whatever goroutine that is. In the main one that ends the test.

    Attributes:
        left: seconds until it comes; 0 if there is none.
        is_limit: whether it calls a function, once.
    """

    def __init__(self) -> None:
        self.left = self._interval = 0.0
        self._handler: Any = None
        self._began = _monotonic()
        if _has_alarm():
            self.left, self._interval = signal.getitimer(signal.ITIMER_REAL)
            self._handler = signal.getsignal(signal.SIGALRM)
        self._replaced = False
        self._came = False
        self.is_limit = self.left > 0 and not self._interval and callable(self._handler)

    def comes_before(self, delay: float | None) -> bool:
        return self.left > 0 and (delay is None or self.left_now() <= delay)

    def left_now(self) -> float:
        return max(self.left - (_monotonic() - self._began), _NOW_S)

    def is_due(self) -> bool:
        """The kernel rounds what is left."""
        return self.is_limit and not self._came and self.left_now() <= _NOW_S

    def replace(self, handler: Callable[[int, FrameType | None], None], delay: float) -> None:
        if not self._replaced:
            self._replaced = True
            signals.set_plain(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, delay, _AGAIN_S)

    def pause(self) -> None:
        """Until it is replaced again: no alarm comes, and its time passes."""
        if self._replaced:
            signal.setitimer(signal.ITIMER_REAL, 0)

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
            signal.setitimer(signal.ITIMER_REAL, self.left_now(), self._interval)


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
        if line.startswith("    _Runs._main at "):
            outside = True
        elif line.startswith(("    created ", "    waits on ")) or not line.startswith("    "):
            outside = False
        if not (outside or f" at {__file__}:" in line):
            lines.append(line)
    return "".join(lines)


def _has_alarm() -> bool:
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


# ---- waiting for what others do ----


def wait_until(condition: Callable[[], Result], *, timeout: float | None = None) -> Result:
    """Lets the other goroutines and threads run until `condition()` is true; returns its value.

    It asks again and again, the first times after a turn of the others and then every millisecond,
    of the clock that goroutines have. Works in goroutines and threads.

    Args:
        condition: a function without arguments. It must not wait.
        timeout: real seconds; None waits until the test's own limit.

    Raises:
        AssertionError: the time was up. The text has the stack of every goroutine.
    """
    end = None if timeout is None else _monotonic() + timeout
    turns = 0
    while not (value := condition()):
        if end is not None and _monotonic() >= end:
            raise AssertionError(f"it was not so within {timeout:g} s\n\n{_stacks()}")
        turns += 1
        _let_others_run(turns)
    return value


def wait_until_parked(
    *goroutines: Goroutine, state: str = "", timeout: float | None = None
) -> None:
    """Lets others run until each of the goroutines waits for something.

    Args:
        goroutines: the ones to wait for.
        state: what their `Goroutine.state` has to contain, such as "chan receive".
        timeout: real seconds; None waits until the test's own limit.

    Raises:
        AssertionError: one has ended, or the time was up. The text has the stacks.
    """

    def are_parked() -> bool:
        for g in goroutines:
            if g.done():
                raise AssertionError(f"goroutine {g.id} ({g.name}) has ended: it waits no more")
        return all(g.waiting and state in g.state for g in goroutines)

    wait_until(are_parked, timeout=timeout)


def _let_others_run(turns: int) -> None:
    if _core.current() is None:
        _sleep(_POLL_S)
    elif turns % _TURNS:
        _core.go_last()
    else:
        _core.sleep(_POLL_S)


# ---- leaks ----


def _left() -> list[Goroutine]:
    main = _core.current()
    return [g for g in reversed(_core.goroutines()) if g is not main and not g.system]


def _check_leaks() -> None:
    """In the main goroutine, at the end of the test."""
    __tracebackhide__ = True
    end = _monotonic() + _LEAK_GRACE_S
    looked = False
    # Those that have got what they waited for are about to end.
    while (left := _left()) and _monotonic() < end:
        moving = [g for g in left if not g.waiting]
        if any(g.state != "syscall" for g in moving):
            _core.go_last()
        elif moving or not looked:  # what came from the network is told while nothing else runs
            looked = not moving
            _core.sleep(_POLL_S)
        else:
            break
    if left:
        _raise_leaked(left)


def _raise_leaked(left: list[Goroutine]) -> NoReturn:
    __tracebackhide__ = True
    from golibx.dump import describe

    goroutines = "1 goroutine was" if len(left) == 1 else f"{len(left)} goroutines were"
    raise Leaked(f"{goroutines} left behind by the test\n\n{describe(left)}")
