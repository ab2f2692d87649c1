"""asyncio in goroutines: the goroutine that a loop belongs to.

A loop knows the thread that runs it. Here it is the goroutine, which may go on on another thread
after each wait.

One of uvloop's waits in C code, which neither parks its goroutine nor looks for signals unless that
is the main one. In another goroutine it gets a thread of its own: on the main thread it would keep
run() from returning, and nothing but its own code could end it.
"""

from __future__ import annotations

import functools
import threading
from types import ModuleType

from golibx import _core
from golibx.patch.imports import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["install"]

_installed = False


def install() -> None:
    """Makes the changes, once asyncio is imported; does nothing the second time."""
    global _installed
    if _installed:
        return
    _installed = True
    when_imported("asyncio.base_events", _know_goroutines)
    when_imported("uvloop", _leave_the_main_thread)


class _Overlay(ModuleType):
    """A module with some other names; the rest is looked up when it is used."""

    def __init__(self, module: ModuleType, **names: object) -> None:
        super().__init__(module.__name__, module.__doc__)
        self._module = module
        vars(self).update(names)

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)


def _know_goroutines(base_events: Any) -> None:
    base_events.threading = _Overlay(base_events.threading, get_ident=_core.ident)


def _leave_the_main_thread(uvloop: Any) -> None:
    # Not below C code, such as that of run_until_complete(), which calls the other.
    for name in ("run_until_complete", "run_forever"):
        setattr(uvloop.Loop, name, _off_the_main_thread(getattr(uvloop.Loop, name)))


def _off_the_main_thread(function: Any) -> Any:
    @functools.wraps(function)
    def runs(*args: Any, **kwargs: Any) -> Any:
        if _core.current() is None or _core.ident() == threading.main_thread().ident:
            return function(*args, **kwargs)
        _core.lock_os_thread()
        try:
            return function(*args, **kwargs)
        finally:
            _core.unlock_os_thread()

    return runs
