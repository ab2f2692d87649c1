"""A run in the cell of a notebook, or at IPython's prompt.

What surrounds it there has threads, which save the history or carry messages, and an event loop
that runs on the very thread: it called the cell. The threads wake no goroutine, so a deadlock is
one in spite of them; and the loop stands still until the cell returns, so no goroutine is in it.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["is_loaded", "loop_set_aside", "tool_threads"]

_TOOLS = frozenset(
    ("IPython", "debugpy", "ipykernel", "jupyter_client", "pydevd", "tornado", "traitlets", "zmq")
)


def is_loaded() -> bool:
    """Whether there may be threads of that kind."""
    return "IPython" in sys.modules


def tool_threads() -> set[int]:
    """The numbers of IPython's and Jupyter's own threads, by where their code comes from."""
    active: dict[int, threading.Thread] = vars(threading)["_active"]
    return {number for number, thread in list(active.items()) if _is_tool(thread)}


def _is_tool(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)  # gone, once it has ended
    modules = (type(thread).__module__, getattr(target, "__module__", None))
    return any(str(module).partition(".")[0] in _TOOLS for module in modules)


@contextmanager
def loop_set_aside() -> Iterator[None]:
    """Has asyncio know of no loop that runs on this thread, inside the block."""
    events = sys.modules.get("asyncio.events")
    loop = None if events is None else events._get_running_loop()
    if events is None or loop is None:
        yield
        return
    tasks = sys.modules["asyncio.tasks"]
    swap_task = getattr(tasks, "_swap_current_task", None)  # from 3.12 on; 3.14 needs it
    task = None if swap_task is None else swap_task(loop, None)
    events._set_running_loop(None)
    try:
        yield
    finally:
        events._set_running_loop(loop)
        if swap_task is not None:
            swap_task(loop, task)
