"""What the child of a fork has from its parent that is about goroutines which are not there.

An object that keeps track of goroutines would have the child wait for them. So it has
`forget_others()`, which is called in the child before any code of the program's.
"""

from __future__ import annotations

import os
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Inherited(Protocol):
        """An object that `made_anew` was called with."""

        def forget_others(self) -> None:
            """In the child: only the calling goroutine or thread is there."""


__all__ = ["made_anew", "references"]

_objects: weakref.WeakSet[Inherited] = weakref.WeakSet()


def made_anew(thing: Inherited) -> None:
    """Has thing.forget_others() called in children, as long as it lives."""
    _objects.add(thing)


def references() -> list[weakref.ReferenceType[Inherited]]:
    """The weak references by which they are known. Nothing in this process is woken by them."""
    return list(_objects.data)  # type: ignore[attr-defined]


def _forget_others() -> None:
    for thing in _objects:
        thing.forget_others()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_others)
