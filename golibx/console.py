"""The interactive console of `golibx run -i`, in the main goroutine.

What is typed runs in the main goroutine: it may wait, start goroutines, and see what the others
do, which go on while the console waits for input. Ctrl-C ends what is running, Ctrl-D the program.

The main goroutine keeps the main thread from its start on: only there Python handles Ctrl-C while
it reads a line.
"""

from __future__ import annotations

import code
import os
import sys
import traceback

from golibx import _core
from golibx.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, TypeAlias

    Frames: TypeAlias = Callable[[TracebackType | None], TracebackType | None]

__all__ = ["after", "interact"]


def after(
    main: Callable[[], object], names: Callable[[], dict[str, Any]], frames: Frames
) -> Callable[[], None]:
    """A function that calls `main`, shows what it raises, and then is a console.

    Args:
        main: the program.
        names: gives the names that the program has left.
        frames: takes from a traceback what to show.
    """

    def run() -> None:
        _core.lock_os_thread()
        try:
            main()
        except BaseException as exc:  # SystemExit too, as under `python -i`
            shown = frames(exc.__traceback__)
            sys.last_type, sys.last_value, sys.last_traceback = type(exc), exc, shown
            traceback.print_exception(type(exc), exc, shown)
        interact(names(), frames)

    return run


def interact(names: dict[str, Any], frames: Frames, *, startup: bool = False) -> None:
    """Reads and runs statements until the input ends, or one raises SystemExit.

    Args:
        names: the names that they see.
        frames: takes from a traceback what to show.
        startup: whether this is all there is to run: with a banner, and PYTHONSTARTUP's file first.
    """
    _core.lock_os_thread()
    if sys.stdin is not None and sys.stdin.isatty():
        _prepare_editing()
    banner = ""
    if startup:
        _run_startup_file(names)
        banner = (
            f"Python {sys.version} on {sys.platform}\nThe main goroutine of golibx {__version__}"
        )
    _Console(names, frames).interact(banner, "")


class _Console(code.InteractiveConsole):
    def __init__(self, names: dict[str, Any], frames: Frames) -> None:
        super().__init__(names, "<stdin>")
        self._frames = frames

    def showtraceback(self) -> None:
        _, exc, _ = sys.exc_info()
        if exc is not None:
            exc.__traceback__ = self._frames(exc.__traceback__)
        super().showtraceback()


def _prepare_editing() -> None:
    hook = getattr(sys, "__interactivehook__", None)
    if hook is None:  # python -I
        return
    try:
        hook()
    except Exception:  # as python does: a console without editing is one
        traceback.print_exc()


def _run_startup_file(names: dict[str, Any]) -> None:
    path = os.environ.get("PYTHONSTARTUP")
    if not path or sys.flags.ignore_environment:
        return
    try:
        with open(path, "rb") as file:
            exec(compile(file.read(), path, "exec"), names)
    except Exception:  # as python does: shown, and the console goes on
        traceback.print_exc()
