"""The functions of the module time, going by a run's virtual clock in its goroutines."""

from __future__ import annotations

import time
from contextlib import contextmanager

from golibx import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["virtual"]


@contextmanager
def virtual() -> Iterator[None]:
    """Replaces sleep, monotonic, time and their _ns forms in the module while the block runs.

    Threads that are no goroutines go on with the real ones, and so does code that imported them by
    name.
    """
    sleep, monotonic_ns, time_ns = time.sleep, time.monotonic_ns, time.time_ns
    kept = {name: getattr(time, name) for name in _NAMES}
    ahead_ns = time_ns() - monotonic_ns()

    def virtual_sleep(seconds: float, /) -> None:
        if _core.current() is None:
            return sleep(seconds)
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        return _core.sleep(seconds)

    def virtual_monotonic_ns() -> int:
        return monotonic_ns() if _core.current() is None else _core.now_ns()

    def virtual_time_ns() -> int:
        return time_ns() if _core.current() is None else _core.now_ns() + ahead_ns

    time.sleep = virtual_sleep  # type: ignore[assignment]  # what is no float has __float__
    time.monotonic_ns = virtual_monotonic_ns
    time.time_ns = virtual_time_ns
    time.monotonic = lambda: virtual_monotonic_ns() / 1e9
    time.time = lambda: virtual_time_ns() / 1e9
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(time, name, function)


_NAMES = ("sleep", "monotonic", "monotonic_ns", "time", "time_ns")
