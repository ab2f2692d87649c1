"""Calls that many want at the same time, made once for all of them: Go's x/sync/singleflight.

A Group is put before something slow that has the same answer for all callers, such as a look-up
that fills a cache, so that a thousand goroutines that miss the cache make one call together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, cast

from golibx._core import Event, Guard, open_to_signals, whole
from golibx.inherited import made_anew

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Group"]

_K = TypeVar("_K", bound=Hashable)
_T = TypeVar("_T")
_P = ParamSpec("_P")


_NO_VALUE = BaseException("the call was interrupted")


class _Call(Generic[_K, _T]):
    __slots__ = ("done", "error", "hash", "key", "shared", "traceback", "value")

    def __init__(self, key: _K) -> None:
        # The program's code, as are the keys' comparisons: Ctrl-C has to be raised in it.
        self.hash = open_to_signals(hash, key)
        self.key = key
        self.done = Event()
        self.shared = False
        self.value: _T | None = None
        # Until there is a value: one of the waiters makes the next call.
        self.error: BaseException | None = _NO_VALUE
        self.traceback: TracebackType | None = None

    def is_for(self, key: _K) -> bool:
        """Whether keys are equal that have the same hash, as a dict finds it."""
        return self.key is key or bool(open_to_signals(_are_equal, self.key, key))


def _are_equal(one: object, other: object) -> bool:
    return bool(one == other)


class Group(Generic[_K, _T]):
    """Calls in progress, by key: `Group[str, bytes]()` has keys that are str and results bytes."""

    def __init__(self) -> None:
        self._lock = Guard()
        # By their keys' hashes: no code of the program's runs in a look-up or with the lock held.
        self._calls: dict[int, list[_Call[_K, _T]]] = {}
        made_anew(self)

    def forget_others(self) -> None:
        """In the child of a fork: those that make the calls are not there."""
        self._calls = {}

    @whole
    def do(
        self, key: _K, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> tuple[_T, bool]:
        """Returns (fn(*args, **kwargs), shared), or waits for the call that is made for the key.

        `shared` is whether several callers got this result. An Exception that fn raises is raised
        in all of them. When it is another BaseException, such as Cancelled, only the caller that
        made the call raises it, and one of those that waited makes the next.
        """
        while True:
            mine: _Call[_K, _T] = _Call(key)
            try:
                call = self._join(mine)
                if call is mine:
                    # Without *, leaks() sees what the function waits for.
                    mine.value = open_to_signals(lambda: fn(*args, **kwargs))
                    mine.error = None
                    return mine.value, mine.shared
            except BaseException as error:
                mine.error = error
                mine.traceback = error.__traceback__
                raise
            finally:
                # Outside of runs a signal may come between any two lines: all are in the `try`.
                mine.done.set()
                with self._lock:
                    self._drop(mine)
            call.done.wait()
            if call.error is None:
                return cast("_T", call.value), True
            if isinstance(call.error, Exception):
                raise call.error.with_traceback(call.traceback)

    def forget(self, key: _K) -> None:
        """Has the next do() for the key call its function, and not wait for the present call."""
        for call in tuple(self._calls.get(hash(key), ())):
            if call.is_for(key):
                with self._lock:
                    self._drop(call)

    def _join(self, mine: _Call[_K, _T]) -> _Call[_K, _T]:
        """The call in progress for its key; `mine`, which is that from now on, if there is none."""
        others: list[_Call[_K, _T]] = []
        while True:
            with self._lock:
                calls = self._calls.setdefault(mine.hash, [])
                # Keys that came while others were compared. A call that is done may still be there,
                # if its goroutine has not come to that.
                new = [each for each in calls if each not in others and not each.done.is_set()]
                if not new:
                    calls.append(mine)
                    return mine
            for call in new:
                if call.is_for(mine.key):
                    with self._lock:
                        if call in self._calls.get(mine.hash, ()) and not call.done.is_set():
                            call.shared = True
                            return call
            others.extend(new)

    def _drop(self, call: _Call[_K, _T]) -> None:
        """With the lock held. It may have been forgotten."""
        calls = self._calls.get(call.hash)
        if calls is None:
            return
        if call in calls:
            calls.remove(call)
        if not calls:
            del self._calls[call.hash]
