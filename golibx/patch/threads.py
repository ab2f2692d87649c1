"""Threads as the threading module sees them, and goroutines as it takes them for threads."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import weakref
from contextlib import suppress
from operator import attrgetter

from golibx import _core
from golibx.patch import notebook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

__all__ = [
    "GoroutineThread",
    "OsThread",
    "bystanders",
    "count_bystanders",
    "do_nothing",
    "end_main_thread",
    "end_pools",
    "end_process",
    "install",
    "is_thread",
    "join_others",
    "let_go",
    "of_program",
    "show_exit",
    "start_bystander",
]

bystanders: dict[int, FrameType] = {}
"""Threads that wake no goroutine, whatever they do: a deadlock is one in spite of them.

They are those of what runs the program, such as pytest-xdist. By their numbers, which other threads
get when they have ended, with the frame that each began in, which tells.
"""


of_program: set[int] = set()
"""The ids of the goroutines that are the program's threads, as long as they have not ended."""


def count_bystanders() -> int:
    """How many of them, and of IPython's own threads, have not ended."""
    now = sys._current_frames()
    known = {
        ident
        for ident, frame in bystanders.items()
        if ident in now and _outermost(now[ident]) is frame
    }
    if notebook.is_loaded():
        known |= notebook.tool_threads() & now.keys()
    return len(known)


class OsThread(threading.Thread):
    """One that is a thread of the operating system's, also if a goroutine starts it."""


def start_bystander(fn: Callable[..., object], args: tuple[Any, ...]) -> threading.Thread:
    """Starts a thread that is a bystander from the start, and a daemon."""
    known = _core.Event()

    def body() -> None:
        ident = threading.get_ident()
        bystanders[ident] = _outermost(sys._getframe())
        known.set()
        try:
            fn(*args)
        finally:
            bystanders.pop(ident, None)

    thread = OsThread(target=body, name=f"golibx {fn.__qualname__}", daemon=True)
    thread.start()
    known.wait()
    return thread


def _outermost(frame: FrameType) -> FrameType:
    while frame.f_back is not None:
        frame = frame.f_back
    return frame


def install() -> None:
    """Has current_thread() give each goroutine a thread object of its own.

    threading makes an object up for a thread that it does not know, a _DummyThread, which for
    goroutines becomes a GoroutineThread. Nothing is made unless the program asks. The main
    goroutine has the object of the thread that called run().
    """
    global _attributes
    if _attributes:
        return
    made = threading.Thread(name="?", daemon=False)  # without one it is Thread-1
    made._started.set()  # type: ignore[attr-defined]
    _attributes = vars(made)
    threading._DummyThread.__new__ = staticmethod(_new)  # type: ignore[assignment]
    if hasattr(threading, "_shutdown_locks_lock"):
        _renew_shutdown_lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_renew_shutdown_lock)


def _renew_shutdown_lock() -> None:
    """Up to Python 3.12: frees a lock in the child of a fork that another thread had in the parent.

    threading makes it anew there, but takes it before. For an RLock zsrc/python/run/fork.zig does
    this.
    """
    threading._shutdown_locks_lock = threading.RLock()  # type: ignore[attr-defined]


def do_nothing() -> None:
    """The next opportunity for the interpreter to raise what it has to."""


_attributes: dict[str, object] = {}
"""What all of them begin with: a Thread's, made once, since that makes several objects."""


def _new(cls: type[threading.Thread]) -> threading.Thread:
    if cls is threading._DummyThread and _core.in_goroutine() and not is_thread():
        cls = GoroutineThread
    return object.__new__(cls)


def is_thread() -> bool:
    """Whether the calling goroutine is a thread of the program's."""
    current = _core.current() if of_program else None
    return current is not None and current.id in of_program


class GoroutineThread(threading._DummyThread):
    """What current_thread() returns in a goroutine.

    It is in threading.enumerate() from then on until the goroutine ends. Threads that the goroutine
    starts are no daemons, as those of the main thread.
    """

    def __init__(self) -> None:
        goroutine = _core.current()  # None while the very last of it ends
        vars(self).update(_attributes)
        self._ident = _core.ident()
        # Weakly: code that holds the goroutine is expected to look at how it ended.
        self._goroutine = None if goroutine is None else weakref.ref(goroutine)
        self._name = "Goroutine" if goroutine is None else _name_of(goroutine)
        _core.keep_thread(threading._active, self)  # type: ignore[attr-defined]

    @property
    def native_id(self) -> int | None:
        """The thread that it runs on, if it is the one that asks."""
        return threading.get_native_id() if _core.ident() == self._ident else None

    def is_alive(self) -> bool:
        """Whether the goroutine has not ended."""
        goroutine = None if self._goroutine is None else self._goroutine()
        return goroutine is not None and not goroutine.done()

    def join(self, timeout: float | None = None) -> None:
        """Waits for the goroutine's end, as Thread.join() for a thread's."""
        goroutine = None if self._goroutine is None else self._goroutine()
        if goroutine is not None:
            if goroutine is _core.current():
                raise RuntimeError("cannot join current thread")
            goroutine.join(timeout)

    def _after_fork(self, new_ident: int | None = None) -> None:
        """In a fork's child, from Python 3.13 on. Its only thread becomes the main one."""
        if new_ident is not None:
            handle = threading._make_thread_handle(new_ident)  # type: ignore[attr-defined]
            self._handle = self._os_thread_handle = handle
        super()._after_fork(new_ident=new_ident)  # type: ignore[misc]

    def _reset_internal_locks(self, is_alive: bool) -> None:
        """The same up to Python 3.12: others may wait for its end as for the main thread's."""
        super()._reset_internal_locks(is_alive)  # type: ignore[misc]
        if is_alive:
            self.__class__ = threading._MainThread  # type: ignore[attr-defined]
            self._set_tstate_lock()  # type: ignore[attr-defined]


def _go_on() -> None:
    """In a fork's child, from Python 3.13 on: its only thread has not ended, whichever it was.

    The interpreter knows it by the thread's number, and the main goroutine may have forked on
    another thread than its own.
    """
    thread: Any = threading.main_thread()
    handle = threading._make_thread_handle(thread.ident)  # type: ignore[attr-defined]
    for name in ("_handle", "_os_thread_handle"):
        if hasattr(thread, name) and getattr(thread, name).is_done():
            setattr(thread, name, handle)


if hasattr(threading, "_make_thread_handle") and hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_go_on)


def _name_of(goroutine: _core.Goroutine[Any]) -> str:
    """As those that threading gives to its own."""
    return f"Goroutine-{goroutine.id} ({goroutine.name})"


def join_others() -> None:
    """Waits for the threads that a program waits for at its end.

    They may wait for this one, which has ended as far as they can tell.
    """
    this = threading._active.get(threading.get_ident())  # type: ignore[attr-defined]
    # None: a thread that has forked, and by that is the main one, and has ended.
    if this is None or this is threading.main_thread():
        end_main_thread()
    while others := [t for t in threading.enumerate() if t is not this and not t.daemon]:
        for thread in others:
            thread.join()


def end_main_thread() -> None:
    """Has threads see that the main thread, which calls, has ended."""
    this = threading.main_thread()
    lock: Any = getattr(this, "_tstate_lock", None)  # up to Python 3.12
    if lock is not None and lock.locked():
        lock.release()
    for end in ("_stop", "_handle._set_done", "_os_thread_handle._set_done"):
        with suppress(AttributeError):
            attrgetter(end)(this)()


def let_go(error: BaseException) -> None:
    """Clears the frames that raised `error`: what they have goes, as where a thread raises.

    A pool of threads tells the idle ones to end when the program has let it go.
    """
    seen: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        each = errors.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            where = each.__traceback__
            while where is not None:
                with suppress(RuntimeError):  # it still runs
                    where.tb_frame.clear()
                where = where.tb_next
            errors += [each.__cause__, each.__context__]


def end_pools() -> None:
    """Calls the functions that come before a program's end waits for its threads.

    Pools tell their idle threads there that they have to end: concurrent.futures does.
    """
    threading._SHUTTING_DOWN = True  # type: ignore[attr-defined]
    for call in reversed(threading._threading_atexits):  # type: ignore[attr-defined]
        _call(call)  # if one raises, the others are called all the same


def _call(function: Callable[[], object]) -> None:
    """At the end, which goes on if `function` raises."""
    try:
        function()
    except BaseException as error:
        with suppress(BaseException):
            sys.excepthook(type(error), error, error.__traceback__)


def end_process(error: BaseException) -> int:
    """Ends what Python has, as where `error` ends a program; returns its status, -1 for SIGINT.

    In the child of a fork on another goroutine than the main one: the interpreter's own way leads
    through a thread state that is not there any more.
    """
    status = _show(error)
    end_pools()
    _call(join_others)  # until Ctrl-C
    atexit._run_exitfuncs()
    _call(_flush_files)
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            status = status or 120  # as Python's own
    return status


def _flush_files() -> None:
    """Writes what files have in their buffers, as their ends in the interpreter's would."""
    import io  # not before: a program may have replaced what this makes use of

    kinds = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
    for each in gc.get_objects():
        if issubclass(type(each), kinds) and each not in (sys.stdout, sys.stderr):
            with suppress(Exception):
                each.flush()


_INTERRUPTED = -1


def _show(error: BaseException) -> int:
    """Says what ends the program, as the interpreter does; returns its status."""
    if isinstance(error, SystemExit):
        return show_exit(error.code)
    try:
        hook = getattr(sys, "excepthook", None)
        if hook is None:
            sys.stderr.write("sys.excepthook is missing\n")
            hook = sys.__excepthook__
        hook(type(error), error, error.__traceback__)
    except SystemExit as exc:
        return show_exit(exc.code)
    except BaseException as wrong:
        with suppress(BaseException):
            sys.stderr.write("Error in sys.excepthook:\n")
            sys.__excepthook__(type(wrong), wrong, wrong.__traceback__)
            sys.stderr.write("\nOriginal exception was:\n")
            sys.__excepthook__(type(error), error, error.__traceback__)
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def show_exit(code: object) -> int:
    """Says what SystemExit has to say, as the interpreter does; returns the program's status."""
    if code is None:
        return 0
    if isinstance(code, int):
        number = int.__index__(code)
        # What is no C long counts as -1.
        return (number if -sys.maxsize - 1 <= number <= sys.maxsize else -1) & 0xFF
    with suppress(BaseException):
        if sys.stderr is not None:
            print(code, file=sys.stderr)
    return 1
