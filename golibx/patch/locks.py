"""The import system's lock, which knows its owner by its thread.

It is the interpreter's own; goroutines need one whose owner is the goroutine, as that of other
locks is. Every run installs it, once a process. Threads outside of goroutines use it too.
"""

from __future__ import annotations

import _imp
import _thread
import sys
from types import ModuleType

__all__ = ["install"]

_installed = False


def install() -> None:
    """Puts the lock in place; does nothing the second time."""
    global _installed
    if _installed:
        return
    _installed = True
    bootstrap = sys.modules["_frozen_importlib"]
    lock = _thread.RLock()
    held = lock._is_owned  # type: ignore[attr-defined]

    def release_lock() -> None:
        if held():
            lock.release()
        else:  # the thread was importing when this was put in place
            _imp.release_lock()

    bootstrap._imp = _variant(  # type: ignore[attr-defined]
        _imp, acquire_lock=lock.acquire, release_lock=release_lock, lock_held=held
    )


def _variant(module: ModuleType, **changes: object) -> ModuleType:
    """A module with the same contents but for `changes`."""
    variant = ModuleType(module.__name__, module.__doc__)
    vars(variant).update(vars(module), **changes)
    return variant
