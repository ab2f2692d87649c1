"""Where the interpreter writes the numbers of signals that come: signal.set_wakeup_fd().

While a run lasts, that is a pipe of golibx's: it wakes the scheduler, whatever its threads do. The
scheduler writes what comes out of the pipe to the descriptor that the program has given, before the
run or in it (zsrc/python/host/signals.zig). To the program all is as without golibx.
"""

from __future__ import annotations

import operator
import os
import signal
from functools import partial

from golibx import _core
from golibx.patch import threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["is_watched", "leave", "patch", "read_end", "watch"]

_set_wakeup_fd: Any = signal.set_wakeup_fd
"""The interpreter's own."""

_patched = False

_pipe: tuple[int, int] | tuple[()] = ()
"""Its read end wakes the scheduler when a signal comes; made once, and never closed."""

_files: list[tuple[int, int]] = []
"""The files that its ends are."""

_watches = False
"""The interpreter writes to the pipe."""

_program_fd = -1
"""The program's descriptor, while the interpreter writes to the pipe; -1 for none."""


def patch() -> None:
    """Makes the changes; does nothing the second time. On the main thread."""
    global _patched, _set_wakeup_fd
    if not _patched:
        # Where it is: libraries have kept it.
        _set_wakeup_fd = _core.replace_set_wakeup_fd(_signal_set_wakeup_fd)
        _patched = True


def read_end() -> int:
    """Of the pipe, if signals write to that; else -1."""
    return _pipe[0] if _pipe and _watches else -1


def watch() -> bool:
    """Has signals wake the scheduler from here on. False where there are no such pipes."""
    global _watches, _program_fd
    if os.name != "posix":
        return False
    # C code may have closed it between two runs, and opened something else by the number.
    if not _pipe or [*map(_file_of, _pipe)] != _files:
        _core.call_undisturbed(_open_pipe)
    assert _pipe
    _watches = True
    previous = _set(_pipe[1])
    _program_fd = -1 if previous in _pipe else previous
    # The interpreter does not tell what the program has said of full buffers.
    _core.forward_signals(_pipe[0], _program_fd, True)
    return True


def leave() -> None:
    """Signals write to the program's descriptor again, if it has one. May be called once more."""
    global _watches, _program_fd
    previous = _set(-1)
    # C code may have set another one.
    fd = _program_fd if previous in (-1, *_pipe) else previous
    _core.forward_signals(-1, -1, True)
    _restore(fd)
    _watches, _program_fd = False, -1


def is_watched() -> bool:
    """Whether signals have written to the pipe until now, as they do from here on."""
    if not _pipe:
        return False
    write_end = _pipe[1]
    return _set(write_end) == write_end


def _set(fd: int, warns: bool = False) -> int:
    call = partial(_set_wakeup_fd, fd, warn_on_full_buffer=warns)
    previous: int = _core.call_as_main_thread(call)
    return previous


def _restore(fd: int) -> None:
    try:
        _set(fd)
    except (OSError, ValueError):
        pass  # the program has closed it, and it may be another file's by now


def _file_of(fd: int) -> tuple[int, int]:
    try:
        status = os.fstat(fd)
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def _open_pipe() -> None:
    global _pipe, _files
    for fd in _pipe:
        _core.leave_descriptor(fd)
    _pipe = ends = os.pipe()
    for fd in ends:
        os.set_blocking(fd, False)
        _core.keep_descriptor(fd)
    _files = [*map(_file_of, ends)]


def _signal_set_wakeup_fd(fd: int, /, *, warn_on_full_buffer: bool = True) -> int:
    number = operator.index(fd)
    if threads.is_thread():
        raise ValueError("set_wakeup_fd only works in main thread of the main interpreter")
    return _change(number, bool(warn_on_full_buffer))


@_core.whole
def _change(fd: int, warns: bool) -> int:
    global _program_fd
    # It looks at the thread and the descriptor before it changes anything.
    previous = _set(fd, warns)
    if not _watches:
        return previous
    assert _pipe
    if previous in (-1, *_pipe):
        previous = _program_fd
    _set(_pipe[1])
    _program_fd = fd
    _core.forward_signals(_pipe[0], fd, warns)
    try:
        os.write(_pipe[1], b"\0")  # a signal that came meanwhile has woken no thread
    except BlockingIOError:
        pass  # as good as written
    return previous


# Errors name it.
_signal_set_wakeup_fd.__name__ = _signal_set_wakeup_fd.__qualname__ = "set_wakeup_fd"


def _part_from_parent() -> None:
    """In the child of a fork: what it is told of signals is not the parent's business."""
    global _pipe, _watches, _program_fd
    if not _pipe:
        return
    fd = _set(-1)
    if fd in (-1, *_pipe):
        fd = _program_fd
    _core.forward_signals(-1, -1, True)
    pipe, _pipe = _pipe, ()
    _watches, _program_fd = False, -1
    for end in pipe:
        os.close(end)
    _restore(fd)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_part_from_parent)
