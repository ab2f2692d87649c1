"""What the threading module keeps of the threads that goroutines ran on."""

from __future__ import annotations

import threading

from golibx import _core

__all__ = ["forget_dummy", "install"]


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
