"""What the threading module keeps of the threads that goroutines ran on."""

from __future__ import annotations

import sys
import threading

from golibx import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["bystanders", "count_bystanders", "forget_dummy", "install"]

bystanders: dict[int, FrameType] = {}
"""Threads that wake no goroutine, whatever they do: a deadlock is one in spite of them.

They are those of what runs the program, such as pytest-xdist. By their numbers, which other threads
get when they have ended, with the frame that each began in, which tells.
"""


def count_bystanders() -> int:
    """How many of them have not ended."""
    now = sys._current_frames()
    return sum(
        _outermost(now[ident]) is frame for ident, frame in bystanders.items() if ident in now
    )


def _outermost(frame: FrameType) -> FrameType:
    while frame.f_back is not None:
        frame = frame.f_back
    return frame


def install() -> None:
    """Has no made-up thread object take the place of a thread's own.

    current_thread() makes one up when it finds none for the calling thread. A goroutine that goes
    on on another thread in the middle of that would give it the other thread's number, and that of
    the main thread would count as another one from then on.
    """
    threading._DummyThread._set_ident = _set_ident  # type: ignore[attr-defined]


def _set_ident(self: threading.Thread) -> None:
    ident = threading.get_ident()
    taken = ident in threading._active  # type: ignore[attr-defined]
    self._ident = _core.ident() if taken else ident  # type: ignore[attr-defined]


def forget_dummy() -> None:
    """Lets go of the thread object that threading made up for the main goroutine, if it did.

    current_thread() makes one where the main goroutine is on another thread than the main one,
    because a goroutine blocks that. Newer versions tie its life to a thread-local of the calling
    context, here the main thread's, and complain when that goes only at the interpreter's end.
    """
    locals_ = getattr(threading, "_thread_local_info", None)
    if locals_ is not None:
        locals_.__dict__.pop("_track_dummy_thread_ref", None)
