"""What the threading module keeps of the threads that goroutines ran on."""

from __future__ import annotations

import threading

__all__ = ["forget_dummy"]


def forget_dummy() -> None:
    """Lets go of the thread object that threading made up for the main goroutine, if it did.

    current_thread() makes one where the main goroutine is on another thread than the main one,
    because a goroutine blocks that. Newer versions tie its life to a thread-local of the calling
    context, here the main thread's, and complain when that goes only at the interpreter's end.
    """
    locals_ = getattr(threading, "_thread_local_info", None)
    if locals_ is not None:
        locals_.__dict__.pop("_track_dummy_thread_ref", None)
