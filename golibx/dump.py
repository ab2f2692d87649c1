"""What every goroutine does: stacks in the form of Go's, and the text of a deadlock."""

from __future__ import annotations

import traceback
from itertools import groupby

from golibx import _core
from golibx.errors import Deadlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TypeAlias

    from golibx import _core as core

    Goroutine: TypeAlias = core.Goroutine[Any]

__all__ = ["stacks"]


def stacks(*, system: bool = False) -> str:
    """The stacks of all goroutines as text, in the form of Go's dumps, the oldest goroutine first.

    Goroutines that wait for the same thing at the same place, started at the same place, are shown
    once, with their number.

    Args:
        system: also show those that belong to the runtime.
    """
    shown = [g for g in reversed(_core.goroutines()) if system or not g.system]
    described = sorted(((_description(g), g) for g in shown), key=_by_description)
    groups = [
        ([g for _, g in members], text) for text, members in groupby(described, key=lambda d: d[0])
    ]
    groups.sort(key=lambda group: group[0][0].id)
    return "\n".join(_headline(members) + text for members, text in groups)


def deadlock() -> Deadlock:
    """The exception that the main goroutine raises when all goroutines are asleep."""
    count = _core.num_goroutine()
    goroutines = "1 goroutine" if count == 1 else f"{count} goroutines"
    return Deadlock(f"all goroutines are asleep - deadlock! ({goroutines})\n\n{stacks()}")


def _by_description(described: tuple[str, Goroutine]) -> tuple[str, int]:
    return described[0], described[1].id


def _headline(members: list[Goroutine]) -> str:
    first = members[0]
    if len(members) == 1:
        return f"goroutine {first.id} [{first.state}] {first.name}:\n"
    ids = _abridged(str(g.id) for g in members)
    return f"{len(members)} goroutines [{first.state}] {first.name}: {ids}\n"


def _abridged(ids: Iterable[str]) -> str:
    most = 8
    all_ids = list(ids)
    return ", ".join(all_ids[:most]) + (", …" if len(all_ids) > most else "")


def _description(goroutine: Goroutine) -> str:
    """What goroutines of one group have in common."""
    frame = goroutine.frame
    lines = []
    if goroutine is _core.current():
        # Not the frames of this module.
        while frame is not None and frame.f_globals.get("__name__") == __name__:
            frame = frame.f_back
    if frame is not None:
        entries = traceback.extract_stack(frame)
        lines = [f"    {e.name} at {e.filename}:{e.lineno}\n" for e in reversed(entries)]
    if goroutine.started_at:
        parent = f" in goroutine {goroutine.parent}" if goroutine.parent else ""
        lines.append(f"    started at {goroutine.started_at}{parent}\n")
    return "".join(lines)
