"""Locks that know their owner: the re-entrant lock and the import system's.

_thread.RLock and the import system identify an owner by its thread. A goroutine may change threads
between acquire and release, when it parks or is preempted, and several share one; so their owner
has to be the goroutine. Every run installs this, once a process. Outside of goroutines the
replacements behave as the originals.
"""

from __future__ import annotations

import _imp
import _thread
import sys
import threading
from types import ModuleType

from golibx import _core

__all__ = ["install"]

_installed = False


def install() -> None:
    """Puts the goroutine-aware locks in place; does nothing the second time."""
    global _installed
    if _installed:
        return
    _installed = True
    _thread.RLock = _core.RLock  # type: ignore[assignment,misc]
    # The name by which threading.RLock() finds its implementation in C.
    threading._CRLock = _core.RLock  # type: ignore[attr-defined]
    for name in ("functools", "reprlib"):
        module = sys.modules.get(name)
        if module is not None and hasattr(module, "RLock"):
            module.RLock = _core.RLock  # type: ignore[attr-defined]
    _replace_logging_locks()
    _replace_import_locks()


def _replace_logging_locks() -> None:
    """Logging that was imported before: its locks are held around every record."""
    logging = sys.modules.get("logging")
    if logging is None:
        return
    logging._lock = _core.RLock()  # type: ignore[attr-defined]
    for reference in getattr(logging, "_handlerList", ()):
        handler = reference()
        if handler is not None and handler.lock is not None:
            handler.createLock()


def _replace_import_locks() -> None:
    bootstrap = sys.modules["_frozen_importlib"]
    bootstrap._thread = _variant(  # type: ignore[attr-defined]
        _thread, get_ident=_core.ident, RLock=_core.RLock
    )
    lock = _core.RLock()

    def release_lock() -> None:
        try:
            lock.release()
        except RuntimeError:
            # The thread was importing when the lock was replaced: it holds the one from before.
            _imp.release_lock()

    bootstrap._imp = _variant(  # type: ignore[attr-defined]
        _imp, acquire_lock=lock.acquire, release_lock=release_lock, lock_held=lock.locked
    )


def _variant(module: ModuleType, **changes: object) -> ModuleType:
    """A module with the same contents but for `changes`."""
    variant = ModuleType(module.__name__, module.__doc__)
    vars(variant).update(vars(module), **changes)
    return variant
