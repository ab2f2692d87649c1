"""asyncio in goroutines: whose a loop is, and signals.

A loop knows the thread that runs it. Here it is the goroutine, which may go on on another thread
after each wait. And a loop that handles signals has the interpreter write them to a socket of its
own, where golibx would miss them.
"""

from __future__ import annotations

import os
import signal
from types import ModuleType

from golibx import _core
from golibx.patch.imports import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["forward_signals", "install"]

_installed = False
_signal_fd = -1
"""Where signals are written while a run watches for them."""


def install() -> None:
    """Makes the changes, once asyncio is imported; does nothing the second time."""
    global _installed
    if _installed:
        return
    _installed = True
    when_imported("asyncio.base_events", _know_goroutines)
    if os.name == "posix":
        when_imported("asyncio.unix_events", _share_signals)


def forward_signals(fd: int) -> None:
    """Has loops that get signals write them to `fd` too; -1 for none."""
    global _signal_fd
    _signal_fd = fd


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


def _share_signals(unix_events: Any) -> None:
    unix_events.signal = _Overlay(unix_events.signal, set_wakeup_fd=_set_wakeup_fd)
    loop = unix_events._UnixSelectorEventLoop
    process = loop._process_self_data

    def _process_self_data(self: object, data: bytes) -> None:
        signals = data.replace(b"\0", b"")
        if signals and _signal_fd >= 0:
            try:
                os.write(_signal_fd, signals)
            except BlockingIOError:  # as good as written: the reader will wake up
                pass
        process(self, data)

    loop._process_self_data = _process_self_data


def _set_wakeup_fd(fd: int, *, warn_on_full_buffer: bool = True) -> int:
    if fd == -1 and _signal_fd >= 0:
        return signal.set_wakeup_fd(_signal_fd, warn_on_full_buffer=False)
    return signal.set_wakeup_fd(fd, warn_on_full_buffer=warn_on_full_buffer)
