"""Threads that a program starts, as goroutines of its run: `[patch] threads`.

threading.Thread stays as it is, with what it promises of names, daemons, join() and excepthook. It
stands on functions of the module _thread. In goroutines those of `_FUNCTIONS` take their place
(zsrc/python/patch/threads.zig).
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from types import MethodType

from golibx import _core
from golibx.errors import Cancelled, Deadlock
from golibx.frames import without_own_frames
from golibx.patch.threads import (
    GoroutineThread,
    OsThread,
    end_main_thread,
    end_pools,
    is_thread,
    of_program,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

__all__ = ["are_left", "end", "install", "uninstall"]

_sentinels: dict[int, _thread.LockType] = {}
"""Up to Python 3.12: what is released at a thread's end, by the thread's number."""

_IN_START = 2
"""Frames between the caller of Thread.start() and this module."""

_FOR_EVER = 9e9
"""Seconds: Python's own limit is 2**63 ns."""

_names: dict[int, str] = {}
"""From Python 3.14 on: the names of the system's threads, by the ids of goroutines."""

_finalizing: dict[int, _core.Goroutine[None]] = {}
"""By their ids: threads that are no daemons and whose function has ended, as long as finalizers of
what they had as thread-local data run. threading does not know them any more."""

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
    """New threads are threads again. No code waits any more for one that has not ended."""
    _core.set_thread_functions(None)
    for handle in list(_goroutines):
        handle._set_done()  # type: ignore[attr-defined]
    for lock in _sentinels.values():
        if lock.locked():
            lock.release()
    _sentinels.clear()
    _goroutines.clear()


def _forget() -> None:
    _sentinels.clear()
    _names.clear()
    _goroutines.clear()
    _finalizing.clear()
    of_program.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _thread_of(function: Callable[..., object]) -> threading.Thread | None:
    """The one that has the function called by its start()."""
    if type(function) is not MethodType or function.__name__ != "_bootstrap":
        return None
    thread = function.__self__
    return thread if isinstance(thread, threading.Thread) else None


def _start(
    function: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    /,
) -> object:
    named = {} if kwargs is None else kwargs
    if not (callable(function) and isinstance(args, tuple) and isinstance(named, dict)):
        return NotImplemented  # which raises what it does
    thread = _thread_of(function)
    if isinstance(thread, OsThread):
        return NotImplemented
    if thread is not None:
        _core.go_thread(_IN_START, _run, function, args, named, thread, None, None, _own_mask())
        return 0  # Thread.start() waits for the thread itself
    number = _core.Chan[int](1)
    _core.go_thread(1, _run, function, args, named, None, None, number, _own_mask())
    return number.recv()


def _start_joinable(
    function: Callable[..., object],
    handle: Any = None,
    daemon: bool = True,
) -> object:
    if not callable(function):
        return NotImplemented
    thread = _thread_of(function)
    kind = _thread._ThreadHandle  # type: ignore[attr-defined]
    if handle is None:
        handle = kind()
    if (
        isinstance(thread, OsThread)
        or type(handle) is not kind
        or not _core.begin_thread_handle(handle, 0)
    ):
        return NotImplemented
    try:
        goroutine = _core.go_thread(
            _IN_START, _run, function, (), {}, thread, handle, None, _own_mask()
        )
    except BaseException:
        handle._set_done()
        raise
    _goroutines[handle] = goroutine
    if handle.is_done():  # before it was there for `_run` to take it away
        _goroutines.pop(handle, None)
    return handle


def _own_mask() -> set[int] | None:
    """The signals that the calling goroutine blocks, where these are not the program's."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, ()) if _core.has_own_mask() else None


def _run(
    function: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    thread: Any,
    handle: Any,
    number: _core.Chan[int] | None,
    mask: set[int] | None,
) -> None:
    """What the goroutine does."""
    current = _core.current()
    assert current is not None
    ident = _core.ident()
    of_program.add(current.id)
    try:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if handle is not None:
            _core.begin_thread_handle(handle, ident)
        if number is not None:
            number.send(ident)
        if thread is not None:
            current.name = str(thread._name)  # its class may make something else of `name`
        function(*args, **kwargs)
    except SystemExit:
        pass
    except Cancelled:
        raise
    except BaseException as error:
        _core.report_thread_error(function, error)
    finally:
        if thread is not None and not thread.daemon:
            _finalizing[current.id] = current
        of_program.discard(current.id)
        # Before anyone is told that the thread has ended, as a thread of the system does it.
        _core.drop_locals()
        _finalizing.pop(current.id, None)
        _names.pop(current.id, None)
        lock = _sentinels.pop(ident, None)
        if lock is not None:
            _end(thread, lock)
        if handle is not None:
            handle._set_done()
            _goroutines.pop(handle, None)


def _end(thread: Any, lock: _thread.LockType) -> None:
    """Up to Python 3.12: lets the goroutines that wait for the thread go on.

    Each of them releases the lock, which another has by then. That must not be the thread's any
    more: threading asserts that it is not held. And it asserts that one without it has stopped.
    """
    knows = getattr(thread, "_tstate_lock", None) is lock
    if knows:
        thread._is_stopped = True
        thread._tstate_lock = None
    if lock.locked():
        lock.release()
    if knows:
        thread._stop()


def _join(handle: object, timeout: float | None = None) -> object:
    """A handle's join()."""
    if not (timeout is None or isinstance(timeout, (int, float))):
        return NotImplemented
    if timeout is not None and not timeout < _FOR_EVER:
        return NotImplemented  # it is too large, or no number
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
    return others + len(of_program)


def _set_sentinel() -> _thread.LockType:
    lock = _thread.allocate_lock()
    _sentinels[_core.ident()] = lock
    return lock


def _set_name(name: str) -> object:
    """From Python 3.14 on: the name of the system's thread, which is no goroutine's own.

    The goroutine has it, whole, and `_get_name` what would be left of it there.
    """
    current = _core.current()
    if current is None or not (isinstance(name, str) and is_thread()):
        return NotImplemented
    encoded = name.encode(sys.getfilesystemencoding(), "replace").partition(b"\0")[0]
    _names[current.id] = os.fsdecode(encoded[: getattr(_thread, "_NAME_MAXLEN", None)])
    with suppress(ValueError):  # one that a goroutine cannot have
        current.name = name
    return None


def _get_name() -> object:
    current = _core.current()
    return NotImplemented if current is None else _names.get(current.id, NotImplemented)


def _excepthook(args: Any, /) -> object:
    """A goroutine that was told to end has ended: that is not reported, as with SystemExit."""
    return None if issubclass(args.exc_type, Cancelled) else NotImplemented


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "start_new_thread": _start,
    "start_new": _start,
    "start_joinable_thread": _start_joinable,
    "_ThreadHandle.join": _join,
    "set_name": _set_name,
    "_get_name": _get_name,
    "_set_sentinel": _set_sentinel,
    "_excepthook": _excepthook,
    "_count": _count,
}


def are_left() -> bool:
    """Whether there are threads that have not ended."""
    return bool(of_program or _finalizing)


def end(*, waits: bool) -> None:
    """In the main goroutine: does what the interpreter does when a program has ended.

    It waits for threads that are no daemons, and then calls the functions for the exit, in the
    middle of the daemons. The interpreter itself, later, finds that all this is done.

    Raises:
        Deadlock: no thread will ever end.
    """
    if not are_left():
        return
    _core.owe_nothing()
    try:
        if waits:
            _wait_for_others()
    except Deadlock:
        raise
    except BaseException as error:
        error.__traceback__ = without_own_frames(error.__traceback__)
        _core.report_shutdown_error(error)
    finally:
        atexit._run_exitfuncs()


def _wait_for_others() -> None:
    end_pools()
    end_main_thread()
    _main_has_ended.set()
    # Those that end may start others.
    while others := [*_others()]:
        for thread in others:
            thread.join()


def _others() -> Iterator[threading.Thread | _core.Goroutine[None]]:
    yield from [*_finalizing.values()]
    this = threading.current_thread()
    for thread in threading.enumerate():
        if thread is this or thread.daemon or isinstance(thread, GoroutineThread):
            continue
        # One may be said to have ended, by a join() that was interrupted, and not have.
        if thread.is_alive():
            yield thread
