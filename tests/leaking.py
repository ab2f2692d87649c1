"""What the tests of golibx.leaks() share, and other tests with goroutines that wait."""

from __future__ import annotations

import ctypes
from typing import Any

from golibx import Chan, Goroutine, gosched, leaks, stats


def parked(*goroutines: Goroutine[Any]) -> None:
    """Waits until all of them wait."""
    while not all(g.waiting for g in goroutines):
        assert not any(g.done() for g in goroutines), goroutines
        gosched()


def threads_in_use() -> int:
    """Those of golibx with a goroutine: of one that waits none, unless it keeps its thread.

    Those without one stay for a while, and a call that a slow machine lets wait makes one more.
    """
    figures = stats()
    return figures["threads"] - figures["threads_idle"]


def receive(ch: Chan[int]) -> int:
    return ch.recv()


def waits_on(g: Goroutine[Any]) -> list[Any]:
    on = g.waiting_on
    return [o for o in (on if isinstance(on, tuple) else (on,)) if o is not None]


def counts_references_of_c_code(g: Goroutine[Any]) -> None:
    """Such a reference to what the leaked goroutine waits on, which the collector cannot see."""
    held = waits_on(g)[-1]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
    address = id(held)
    del held
    assert leaks() == []
    ctypes.pythonapi.Py_DecRef(ctypes.cast(address, ctypes.py_object))
    assert leaks() == [g]
