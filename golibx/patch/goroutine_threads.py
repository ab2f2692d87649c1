"""Threads that a program starts, as goroutines of its run: `[patch] threads`.

threading.Thread stays as it is, with what it promises of names, daemons, join() and excepthook. It
stands on functions of the module _thread, whose place those of `_FUNCTIONS` take in goroutines
(zsrc/python/patch/threads.zig).
"""

from __future__ import annotations

import _thread
import os
import threading

from golibx import _core
from golibx.errors import Cancelled
from golibx.patch.threads import (
    GoroutineThread,
    OsThread,
    daemons,
    end_main_thread,
    end_pools,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

__all__ = ["install", "others_to_wait_for", "uninstall", "wait_for_others"]

_sentinels: dict[int, _thread.LockType] = {}
"""Up to Python 3.12: what is released at a thread's end, by the thread's number."""

_IN_START = 2
"""Frames between who calls Thread.start() and this module."""

_ids: set[int] = set()
"""Those goroutines, as long as they have not ended."""

_goroutines: dict[object, _core.Goroutine[None]] = {}
"""From Python 3.13 on: by the handles of threads that have not ended."""


def install() -> str | None:
    """Has the threads that goroutines start be goroutines, until `uninstall`.

    Returns:
        None, or why they stay threads.
    """
    reason = _core.patch("threads")
    if reason is None:
        _core.set_thread_functions(_FUNCTIONS)
    return reason


def uninstall() -> None:
    """New threads are threads again. Nobody waits any more for one that has not ended."""
    _core.set_thread_functions(None)
    for lock in _sentinels.values():
        if lock.locked():
            lock.release()
    _sentinels.clear()
    _goroutines.clear()


def _forget() -> None:
    _ids.clear()
    _sentinels.clear()
    _goroutines.clear()
    daemons.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _is_to_be_a_thread(function: Callable[..., object]) -> bool:
    return isinstance(getattr(function, "__self__", None), OsThread)


def _start(
    function: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    /,
) -> object:
    named = {} if kwargs is None else kwargs
    if not (callable(function) and isinstance(args, tuple) and isinstance(named, dict)):
        return NotImplemented  # which raises what it does
    if _is_to_be_a_thread(function):
        return NotImplemented
    thread = getattr(function, "__self__", None)
    if isinstance(thread, threading.Thread):
        _core.go_thread(
            thread.daemon, _IN_START, _run, function, args, named, None, thread.daemon, None
        )
        return 0  # Thread.start() waits for the thread itself
    # _thread itself knows no daemons: nobody waits for what it has started.
    number = _core.Chan[int](1)
    _core.go_thread(True, 1, _run, function, args, named, None, True, number)
    return number.recv()


def _start_joinable(
    function: Callable[..., object],
    handle: Any = None,
    daemon: bool = True,
) -> object:
    if not callable(function) or _is_to_be_a_thread(function):
        return NotImplemented
    kind = _thread._ThreadHandle  # type: ignore[attr-defined]
    if handle is None:
        handle = kind()
    if type(handle) is not kind or not _core.begin_thread_handle(handle, 0):
        return NotImplemented
    _goroutines[handle] = _core.go_thread(
        daemon, _IN_START, _run, function, (), {}, handle, daemon, None
    )
    return handle


def _run(
    function: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    handle: Any,
    is_daemon: bool,
    number: _core.Chan[int] | None,
) -> None:
    """What the goroutine does."""
    current = _core.current()
    assert current is not None
    ident = _core.ident()
    _ids.add(current.id)
    if is_daemon:
        daemons.add(current.id)
    if handle is not None:
        _core.begin_thread_handle(handle, ident)
    if number is not None:
        number.send(ident)
    thread = getattr(function, "__self__", None)
    if isinstance(thread, threading.Thread):
        current.name = thread.name
    try:
        function(*args, **kwargs)
    except SystemExit:
        pass
    except Cancelled:
        raise
    except BaseException as error:
        _core.report_thread_error(function, error)
    finally:
        _ids.discard(current.id)
        daemons.discard(current.id)
        lock = _sentinels.pop(ident, None)
        if lock is not None and lock.locked():
            lock.release()
        if handle is not None:
            _goroutines.pop(handle, None)
            handle._set_done()


def _join(handle: object, timeout: float | None = None) -> object:
    """A handle's join()."""
    if not (timeout is None or isinstance(timeout, (int, float))):
        return NotImplemented
    limit = timeout if timeout is None or timeout >= 0 else None
    goroutine = _goroutines.get(handle)
    if goroutine is None:
        if not _is_of_main_thread(handle) or threading.current_thread() is threading.main_thread():
            return NotImplemented
        # C takes it for the calling one, whichever goroutine calls on that thread.
        _main_has_ended.wait(limit)
        return None
    if goroutine is _core.current():
        raise RuntimeError("Cannot join current thread")
    goroutine.join(limit)
    return None


_main_has_ended = _core.Event()


def _is_of_main_thread(handle: object) -> bool:
    attributes = vars(threading.main_thread())
    return any(attributes.get(name) is handle for name in ("_handle", "_os_thread_handle"))


def _count(others: int) -> int:
    return others + len(_ids)


def _set_sentinel() -> _thread.LockType:
    lock = _thread.allocate_lock()
    _sentinels[_core.ident()] = lock
    return lock


def _excepthook(args: Any, /) -> object:
    """A goroutine that was told to end has ended: nobody is told, as with SystemExit."""
    return None if issubclass(args.exc_type, Cancelled) else NotImplemented


def _refuse_in_threads(name: str) -> Callable[..., object]:
    """Of a function for the main thread: the others refuse it, whichever thread they run on."""

    def function(*_args: object) -> object:
        current = _core.current()
        if current is not None and current.id in _ids:
            raise ValueError(f"{name} only works in main thread of the main interpreter")
        return NotImplemented

    return function


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "start_new_thread": _start,
    "start_new": _start,
    "start_joinable_thread": _start_joinable,
    "_ThreadHandle.join": _join,
    "_set_sentinel": _set_sentinel,
    "_excepthook": _excepthook,
    "_count": _count,
    "signal": _refuse_in_threads("signal"),
    "set_wakeup_fd": _refuse_in_threads("set_wakeup_fd"),
}


def others_to_wait_for() -> bool:
    """Whether there are any that a program waits for at its end, as goroutines."""
    return any(True for _ in _others())


def _others() -> Iterator[threading.Thread]:
    this = threading.current_thread()
    for thread in threading.enumerate():
        if thread is this or thread.daemon or isinstance(thread, GoroutineThread):
            continue
        # One may be said to have ended, by a join() that was interrupted, and not have.
        if thread.is_alive():
            yield thread


def wait_for_others() -> None:
    """In the main goroutine, at the program's end: waits as the interpreter does for threads.

    Those that end may start others. The interpreter itself, later, finds that it is done.
    """
    if not others_to_wait_for():
        return
    end_main_thread()
    _main_has_ended.set()
    end_pools()
    while others_to_wait_for():
        for thread in list(_others()):
            thread.join()
