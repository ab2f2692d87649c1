"""Imports that the child of a fork finds half done.

Goroutines have the import system's locks as threads do (zsrc/python/host/import_lock.zig); in the
child, no thread is left to let go what others held in the parent.
"""

from __future__ import annotations

import os
import sys

__all__ = ["install"]

_installed = False


def install() -> None:
    """Has children forget those imports; does nothing the second time."""
    global _installed
    if not _installed and hasattr(os, "register_at_fork"):
        _installed = True
        os.register_at_fork(after_in_child=_forget_imports)


def _forget_imports() -> None:
    """In the child of a fork: imports that others were in the middle of begin anew."""
    bootstrap = sys.modules["_frozen_importlib"]
    me = bootstrap._thread.get_ident()
    locks = bootstrap._module_locks
    for name, reference in [*locks.items()]:
        lock = reference()
        if lock is None or lock.owner == me:
            continue
        # It has a lock of its own, which a thread may be in the middle of though none owns it.
        locks.pop(name, None)
        module = sys.modules.get(name)
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            del sys.modules[name]
