"""Changes to modules that a program may import later, or never."""

from __future__ import annotations

import importlib
import sys

from golibx import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__all__ = ["when_imported"]

_pending: dict[str, Callable[[Any], None]] = {}


def when_imported(name: str, change: Callable[[Any], None]) -> None:
    """Calls change(module) once the module `name` has been imported, or now if it has."""
    # Not later: another thread may import it meanwhile, and must not come by unseen.
    _pending[name] = change
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    module = sys.modules.get(name)
    if module is None:
        return
    if getattr(module.__spec__, "_initializing", False):
        # Another thread is in the middle of it, without golibx's loader: a thread that imports it
        # too waits for the end of that.
        importlib.import_module(name)
    if _pending.pop(name, None) is not None:
        change(module)


def _find_spec(
    name: str, path: Sequence[str] | None, target: ModuleType | None = None
) -> ModuleSpec | None:
    """Finds what the other finders find, with a loader that makes the change."""
    for finder in sys.meta_path:
        if finder is not _finder:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
    return None


class _Finder:
    """Knows the modules to change. All others' imports run none of golibx's code."""

    def __init__(self) -> None:
        self.find_spec = _core.only_for(_pending, _find_spec)


_finder = _Finder()


class _Loader:
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # Code that asks the module for its loader, such as inspect, has to find the real one.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        change = _pending.pop(module.__name__, None)
        if change is not None:
            change(module)

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)
