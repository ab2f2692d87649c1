"""Something else that happens at every opcode of a file of golibx's, in a goroutine or thread."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any


def at_opcode(
    n: int,
    module: ModuleType,
    act: Callable[[], object],
    body: Callable[[], object],
    called: Callable[[str], object] = str,
) -> bool:
    """Calls body() with act() before the n-th opcode of the module's; whether it has so many.

    `called` is told the names of the functions in Python that are called.
    """
    left = n

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            act()

    at_opcodes(module, count, body, called)
    return left <= 0


def at_opcodes(
    module: ModuleType,
    act: Callable[[], object],
    body: Callable[[], object],
    called: Callable[[str], object] = str,
) -> None:
    """Calls body() with act() before every opcode of the module's."""

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "call":
            called(frame.f_code.co_name)
            if frame.f_code.co_filename != module.__file__:
                return None
            frame.f_trace = trace  # before the next line, or that has no effect from 3.13 on
            frame.f_trace_opcodes = True
        elif event == "opcode":
            act()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        body()
    finally:
        sys.settrace(before)
