"""The import system's lock, which knows its owner by its thread.

It is the interpreter's own; goroutines need one whose owner is the goroutine, as that of other
locks is. Every run installs it, once a process. Threads outside of goroutines use it too.
"""

from __future__ import annotations

import _imp
import _thread
import os
import sys
from types import ModuleType

from golibx import _core

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
    _core.renew_at_fork(lock)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget_imports)

    def release_lock() -> None:
        if held():
            lock.release()
        else:  # the thread was importing when this was put in place
            _imp.release_lock()

    bootstrap._imp = _variant(  # type: ignore[attr-defined]
        _imp, acquire_lock=lock.acquire, release_lock=release_lock, lock_held=held
    )


def _forget_imports() -> None:
    """In the child of a fork: imports that others were in the middle of begin anew."""
    bootstrap = sys.modules["_frozen_importlib"]
    me = bootstrap._thread.get_ident()
    locks = bootstrap._module_locks
    for name, reference in [*locks.items()]:
        lock = reference()
        if lock is None or lock.owner in (None, me):
            continue
        locks.pop(name, None)
        module = sys.modules.get(name)
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            del sys.modules[name]


def _variant(module: ModuleType, **changes: object) -> ModuleType:
    """A module with the same contents but for `changes`."""
    variant = ModuleType(module.__name__, module.__doc__)
    vars(variant).update(vars(module), **changes)
    return variant
