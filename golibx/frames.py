"""Which frames are golibx's own: what a reader of tracebacks and dumps need not see.

Only those that lead to the program's first: golibx's code that the program has called shows where
it waits.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType

__all__ = ["frames_of", "is_own", "is_starter", "without_own_frames"]

_PACKAGE = os.path.dirname(__file__) + os.sep
_STARTERS = tuple(_PACKAGE + name for name in ("runtime.py", "program.py", "console.py"))


def is_own(frame: FrameType) -> bool:
    """Whether a frame runs golibx's code."""
    return frame.f_code.co_filename.startswith(_PACKAGE)


def is_starter(place: str) -> bool:
    """Whether a place, as in "file:line", is where golibx starts programs."""
    return place.startswith(_STARTERS)


def without_own_frames(traceback: TracebackType | None) -> TracebackType | None:
    """`traceback` from the first frame on that is not golibx's."""
    while traceback is not None and is_own(traceback.tb_frame):
        traceback = traceback.tb_next
    return traceback


def frames_of(frame: FrameType | None) -> list[FrameType]:
    """A goroutine's frames, the innermost first: those from where its function was called.

    All of them if they are all golibx's: a service goroutine's.
    """
    shown = []
    found = []
    while frame is not None:
        found.append(frame)
        if is_own(frame) and frame.f_code.co_qualname == "Runtime._main":
            break  # what lies below has called run(), and is no part of the goroutine
        if not is_starter(frame.f_code.co_filename):
            shown.append(frame)
        frame = frame.f_back
    while shown and is_own(shown[-1]):
        shown.pop()
    return shown or found
