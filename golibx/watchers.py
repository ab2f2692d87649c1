"""Watching goroutines and scopes begin and end: Runtime.watch_goroutines() and watch_scopes().

A watcher is called in the midst of the program, by the goroutine or in its block, and the program
must not see it fail: what it raises is reported, once, and then it is not called any more. That is
not so of what the goroutine was made to raise while it waited in there: a cancellation is the
goroutine's, which gets it again where it waits next.
"""

from __future__ import annotations

import sys

from golibx import _core
from golibx.errors import Cancelled, DeadlineExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Notes: TypeAlias = "list[tuple[Watcher, Any]]"

__all__ = ["Watcher", "Watchers", "begin", "end", "forget", "goroutines", "scopes"]


class Watcher:
    """What is called at the beginning of each, and at its end.

    Args:
        name: the plugin's.
        begin: called with the goroutine or the scope.
        end: called with what begin() has returned, and then with how it ended.
    """

    __slots__ = ("begin", "end", "has_failed", "name")

    def __init__(
        self, name: str, begin: Callable[[Any], object], end: Callable[..., object]
    ) -> None:
        for role, function in (("begin", begin), ("end", end)):
            if not callable(function):
                raise TypeError(f"{role} must be a function, not {function!r}")
        self.name = name
        self.begin = begin
        self.end = end
        self.has_failed = False


class Watchers:
    """Those of one kind.

    Args:
        method: the one of the Runtime that adds them.
        changed: called when there are others.

    Attributes:
        present: those that are called for what begins now.
    """

    __slots__ = ("_changed", "method", "present")

    def __init__(self, method: str, changed: Callable[[], object] = bool) -> None:
        self.method = method
        self.present: tuple[Watcher, ...] = ()
        self._changed = changed

    def add(self, watcher: Watcher) -> Callable[[], None]:
        """Returns what takes it off again."""
        self.present = (*self.present, watcher)
        self._changed()
        return lambda: self.drop(watcher)

    def drop(self, watcher: Watcher) -> None:
        """It is called no more for what begins; the end of what has begun it still learns."""
        self.present = tuple(each for each in self.present if each is not watcher)
        self._changed()

    def clear(self) -> None:
        """As `drop`, of all."""
        if self.present:
            self.present = ()
            self._changed()


def begin(kind: Watchers, subject: object) -> Notes:
    """The watchers that learn of its end, each with what it has noted. Raises nothing."""
    notes: Notes = []
    for watcher in kind.present:
        try:
            note = watcher.begin(subject)
        except BaseException as exc:
            if not _has_come_from_outside(exc):
                _fail(kind, watcher, "begin", exc)
        else:
            notes.append((watcher, note))
    return notes


def end(kind: Watchers, notes: Notes, *how_it_ended: object) -> None:
    """Tells those, the last one first. Raises nothing."""
    while notes:
        watcher, note = notes.pop()
        if watcher.has_failed:
            continue
        try:
            watcher.end(note, *how_it_ended)
        except BaseException as exc:
            if not _has_come_from_outside(exc):
                _fail(kind, watcher, "end", exc)


def forget() -> None:
    """The run has ended."""
    goroutines.clear()
    scopes.clear()


def _has_come_from_outside(exc: BaseException) -> bool:
    """Whether it was not the watcher's: then it is raised again where the goroutine waits next."""
    if _core.owe(exc):
        return True
    if isinstance(exc, KeyboardInterrupt):
        _core.throw_main(exc)
        return True
    # A context that is done has all waits raise it.
    return isinstance(exc, Cancelled | DeadlineExceeded) and exc.context is not None


def _fail(kind: Watchers, watcher: Watcher, role: str, exc: BaseException) -> None:
    if watcher.has_failed:  # in another goroutine, meanwhile
        return
    watcher.has_failed = True
    kind.drop(watcher)
    if sys.stderr is None:
        return
    import traceback

    # The first frame is the one of begin() or end().
    frames = exc.__traceback__.tb_next if exc.__traceback__ is not None else None
    text = "".join(traceback.format_exception(type(exc), exc, frames))
    sys.stderr.write(
        f"golibx: plugin {watcher.name} raised in the {role} of {kind.method}() and does not watch "
        f"any more:\n{text}"
    )
    sys.stderr.flush()


@_core.whole
def _goroutine_begins(
    goroutine: _core.Goroutine[Any],
) -> Callable[[str, BaseException | None], object] | None:
    notes = begin(goroutines, goroutine)
    if not notes:
        return None

    @_core.whole
    def ends(outcome: str, exception: BaseException | None) -> None:
        end(goroutines, notes, outcome, exception)

    return ends


def _tell_core() -> None:
    _core.watch_goroutines(_goroutine_begins if goroutines.present else None)


goroutines = Watchers("watch_goroutines", _tell_core)
scopes = Watchers("watch_scopes")
