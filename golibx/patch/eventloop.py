"""asyncio in goroutines: whose a loop is.

A loop knows the thread that runs it. Here it is the goroutine, which may go on on another thread
after each wait.
"""

from __future__ import annotations

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
