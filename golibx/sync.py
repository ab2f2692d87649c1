"""Go's package sync for goroutines: locks, conditions, permits and what else they meet at.

What waits takes a timeout in seconds and returns whether it got what it waited for: False only when
the time is up. (Barrier.wait() breaks the barrier then, as threading's does.) A goroutine that is
cancelled while it waits raises Cancelled there; if it was given what it waits for first, it has it.
What need not wait works from any thread.
"""

from __future__ import annotations

import threading
from functools import update_wrapper
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from golibx import _core
from golibx._core import (
    AtomicInt,
    Barrier,
    Cond,
    Event,
    Mutex,
    Once,
    Pool,
    RLocker,
    RWMutex,
    Semaphore,
    WaitGroup,
)
from golibx.errors import GolibxError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = [
    "AtomicInt",
    "Barrier",
    "BrokenBarrierError",
    "Cond",
    "Event",
    "Mutex",
    "Once",
    "Pool",
    "RLocker",
    "RWMutex",
    "Semaphore",
    "WaitGroup",
    "once",
]

_T = TypeVar("_T")


class BrokenBarrierError(GolibxError, threading.BrokenBarrierError):
    """A Barrier that one of its parties left, or that was aborted or reset.

    Also threading's error of that name.
    """


class _Unknown:
    """The type of what stands for a value that there is not."""


_UNKNOWN = _Unknown()


class _OnceFunction(Generic[_T]):
    def __init__(self, fn: Callable[[], _T]) -> None:
        self._once = Once()
        self._fn: Callable[[], _T] | None = fn
        self._value: _T | _Unknown = _UNKNOWN
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        update_wrapper(self, fn)
        # It would keep what the function holds alive after the call.
        self.__dict__.pop("__wrapped__", None)

    def __call__(self) -> _T:
        if self._fn is not None:
            # Raises only for the first caller.
            self._once.do(self._call, self._fn)
        error = self._error
        if error is None:
            if self._value is _UNKNOWN:
                raise RuntimeError("the only call was interrupted before it had a result")
            return cast("_T", self._value)
        if isinstance(error, Exception):
            # Where fn raised it: what earlier callers have added is of no interest.
            raise error.with_traceback(self._traceback)
        # Not this goroutine was cancelled.
        raise RuntimeError(f"the only call ended with {error!r}") from error

    @_core.whole
    def _call(self, fn: Callable[[], _T]) -> None:
        try:
            self._value = _core.open_to_signals(fn)
        except BaseException as error:
            self._error = error
            self._traceback = error.__traceback__
            raise
        finally:
            self._fn = None


def once(fn: Callable[[], _T]) -> Callable[[], _T]:
    """Returns a function that calls fn() the first time and returns its result every time.

    Goroutines that come while it runs wait for it. If fn raises an Exception, every call raises it;
    if it is cancelled, or raises another BaseException, the first call raises that and the others
    RuntimeError. As Go's sync.OnceFunc and sync.OnceValue; also as a decorator.

    Raises:
        TypeError: fn is not callable.
    """
    if not callable(fn):
        raise TypeError(f"once() needs a callable, not {fn!r}")
    return _OnceFunction(fn)
