"""Database drivers that wait in C: their own way to wait by Python functions, in goroutines."""

from __future__ import annotations

from golibx import _core
from golibx.patch.imports import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

__all__ = ["install", "uninstall"]

_wanted = False


def install() -> None:
    """Has psycopg 3 wait by select.poll(), which parks goroutines where `select` is patched.

    Its wait_c() waits within C code, and keeps a thread.
    """
    global _wanted
    _wanted = True
    when_imported("psycopg.waiting", _change)


def uninstall() -> None:
    """Goroutines wait as threads do again."""
    global _wanted
    _wanted = False


def _change(waiting: ModuleType) -> None:
    if not all(hasattr(waiting, name) for name in ("wait", "wait_c", "wait_poll")):
        return  # this version has no choice
    original, by_poll = waiting.wait, waiting.wait_poll
    if original is not waiting.wait_c:
        return  # the user has chosen

    def wait(*args: Any, **kwargs: Any) -> Any:
        parks = _wanted and _core.in_goroutine()
        return (by_poll if parks else original)(*args, **kwargs)

    waiting.wait = wait  # type: ignore[attr-defined]
