"""The program's signal handlers: what the interpreter has of them while a run lasts.

The interpreter calls a handler in whatever goroutine its main thread runs. So it gets a
SignalHandler for each, which has the program's called as the main goroutine's
(zsrc/python/host/signals.zig). signal.signal() and getsignal() give and take the program's own.
What only the main thread may do any goroutine may, on whatever thread it is, but for those that are
the program's threads.

Handlers that mean the whole process rather than the program, a test's time limit above all, are set
by `set_plain`: the interpreter calls them as they are.
"""

from __future__ import annotations

import operator
import signal
import sys

from golibx import _core
from golibx.patch import faults, threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    Handler = Callable[[int, FrameType | None], object]

__all__ = [
    "bystanders",
    "changes",
    "handled",
    "install",
    "interrupts",
    "learn_main_thread",
    "patch",
    "present",
    "recount",
    "set_plain",
    "watched",
]

# What the functions of the module signal call, whichever module has imported those.
_signal: Any = sys.modules["_signal"]
_set_signal = _signal.signal
_get_signal = _signal.getsignal
_installed = False
_NUMBERS = tuple(_signal.valid_signals())
"""Plain ints, where the module signal makes enumeration members at every call."""

bystanders: frozenset[int] = frozenset()
"""Signals with handlers that wake no goroutine: a deadlock is one in spite of them."""

watched = 0
"""How many signals are sent to channels, by golibx.signal."""

changes = 0
"""How often the program has called signal.signal()."""

interrupts: Handler | None = None
"""What a run has in the place of signal.default_int_handler, while it lasts."""


def learn_main_thread() -> None:
    """Has the scheduler know the main thread, on which it is called."""
    _core.learn_main_thread(_set_signal)


def patch() -> None:
    """Makes the changes; does nothing the second time. On the main thread."""
    global _installed
    if not _installed:
        _installed = True
        _signal.signal = _signal_signal
        _signal.getsignal = _signal_getsignal


def install() -> None:
    """Wraps what handlers there are. On the main thread."""
    for number in _NUMBERS:
        handler = _get_signal(number)
        if callable(handler) and handler is not signal.default_int_handler:
            _wrap(number, handler)
    recount()


def _wrap(number: int, handler: Any) -> None:
    if number not in _plain and type(handler) is not _core.SignalHandler:
        _set(number, _core.SignalHandler(handler))


_plain: set[int] = set()
"""Signals with handlers that `set_plain` has set."""


def set_plain(number: int, handler: Any) -> Any:
    """signal.signal() for a handler that is not the program's. Returns the program's own."""
    old = _shown(_set(number, handler))
    if callable(handler):
        _plain.add(number)
    else:
        _plain.discard(number)
    recount()
    return old


def present(number: int) -> object:
    """What the interpreter has for this signal."""
    return _get_signal(number)


def handled() -> frozenset[int]:
    """The signals that have a handler."""
    return frozenset(n for n in _NUMBERS if callable(_get_signal(n)))


def _signal_signal(signalnum: int, handler: Any, /) -> Any:
    number = operator.index(signalnum)
    if threads.is_thread():
        raise ValueError("signal only works in main thread of the main interpreter")
    return _change(number, handler)


@_core.whole
def _change(number: int, handler: Any) -> Any:
    global changes
    changes += 1
    if handler is signal.default_int_handler:
        given = handler if interrupts is None else interrupts
    elif callable(handler) and _core.active():
        given = _core.SignalHandler(handler)
    else:
        given = handler
    old = _set(number, given)
    _plain.discard(number)
    recount()
    return _shown(old)


def _signal_getsignal(signalnum: int, /) -> Any:
    return _shown(_get_signal(signalnum))


def _set(number: int, handler: Any) -> Any:
    global _own
    set_signal = _set_fault if number in _FAULTS else _set_signal
    old = _core.call_as_main_thread(set_signal, number, handler)
    if handler is _core.on_own_signal:
        _own = number
        _core.use_signal(number)
    elif number == _own:
        _own = 0
        _core.use_signal(0)
    return old


_own = 0
"""The signal that golibx tells itself things by, while there is one."""


_FAULTS = {getattr(signal, name) for name in ("SIGSEGV", "SIGBUS") if hasattr(signal, name)}
_set_fault = faults.put_below(_set_signal)


def _shown(handler: Any) -> Any:
    if type(handler) is _core.SignalHandler:
        return handler.function
    if interrupts is not None and handler == interrupts:
        return signal.default_int_handler
    return handler


def main_thread_may_handle() -> bool:
    """Whether any signal has a handler of the program's, where the run is on another thread."""
    golibxs = (signal.default_int_handler, interrupts, _core.on_own_signal)
    return any(
        callable(handler) and handler not in golibxs for handler in map(_get_signal, _NUMBERS)
    )


def recount() -> None:
    """Tells the scheduler how many signals may wake a goroutine."""
    _core.recount_signals(globals())
