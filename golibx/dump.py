"""What every goroutine does: stacks in the form of Go's, the text of a deadlock, `golibx dump`."""

from __future__ import annotations

import sys
import threading
from itertools import groupby

from golibx import _core
from golibx.errors import Deadlock
from golibx.leaked import variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TypeAlias

    from golibx import _core as core

    Goroutine: TypeAlias = core.Goroutine[Any]
    Numbers: TypeAlias = dict[int, list[int]]

__all__ = ["DumpError", "deadlock", "describe", "main_thread_joins", "report", "request", "stacks"]

_MOST_SEARCHED = 1000
"""How many goroutines a deadlock's text looks for objects in."""
_MOST_SHOWN = 8
"""Of the goroutines of a group, and of the objects they wait on."""


def stacks(*, system: bool = False) -> str:
    """The stacks of all goroutines as text, in the form of Go's dumps, the oldest goroutine first.

    Goroutines that wait for the same reason at the same place, started at the same place, are shown
    once, with their number and ids. Native goroutines follow, with the function that each runs.

    Args:
        system: also show those that belong to the runtime.
    """
    shown = [g for g in reversed(_core.goroutines()) if system or not g.system]
    return "\n".join(filter(None, (describe(shown), _native())))


def report() -> str:
    """What a signal or `golibx dump` shows while the interpreter works."""
    return stacks() or "golibx: there are no goroutines\n"


def deadlock() -> Deadlock:
    """The exception that the main goroutine raises when all goroutines are asleep."""
    count = _core.num_goroutine()
    goroutines = "1 goroutine" if count == 1 else f"{count} goroutines"
    shown = [g for g in reversed(_core.goroutines()) if not g.system]
    text = "\n".join(filter(None, (describe(shown, _holders(shown)), _native())))
    return Deadlock(f"all goroutines are asleep - deadlock! ({goroutines})\n\n{text}")


def main_thread_joins(ident: int) -> bool:
    """Whether the main thread is in join(), without a time-out, of the thread with that number."""
    frames = sys._current_frames()  # noqa: SLF001
    frame = frames.get(threading.main_thread().ident or 0)
    while frame is not None and frame.f_globals is vars(threading):
        if frame.f_code is threading.Thread.join.__code__:
            joined = frame.f_locals["self"]
            return joined.ident == ident and frame.f_locals["timeout"] is None
        frame = frame.f_back
    return False


def describe(goroutines: Sequence[Goroutine], holders: Numbers | None = None) -> str:
    """The stacks of these goroutines, equal ones grouped, in the order of their ids.

    Args:
        goroutines: the goroutines.
        holders: which goroutines have an object in a local variable, by its id().
    """
    members = [_Member(g) for g in goroutines]
    waiters: Numbers = {}
    for member in members:
        for each in member.waits_on:
            waiters.setdefault(id(each), []).append(member.id)
    members.sort(key=lambda m: (m.key, m.id))
    groups = [list(group) for _, group in groupby(members, key=lambda m: m.key)]
    groups.sort(key=lambda group: group[0].id)
    return "\n".join(_block(group, waiters, holders or {}) for group in groups)


def _holders(goroutines: Sequence[Goroutine]) -> Numbers:
    """Which of the goroutines have an object that one of them waits on in a local variable."""
    on = [g.waiting_on for g in goroutines]
    wanted = {id(each) for one in on for each in (one if isinstance(one, tuple) else (one,))}
    wanted.discard(id(None))
    holders: Numbers = {}
    for goroutine in goroutines[:_MOST_SEARCHED]:
        frame = goroutine.frame
        while frame is not None:
            for each in variables(frame):
                if id(each) in wanted and goroutine.id not in holders.setdefault(id(each), []):
                    holders[id(each)].append(goroutine.id)
            frame = frame.f_back
    return holders


class _Member:
    """A goroutine as it was when it was looked at, since it may go on meanwhile."""

    __slots__ = ("created", "frames", "id", "locked", "name", "state", "waited", "waits_on")

    def __init__(self, goroutine: Goroutine) -> None:
        self.id = goroutine.id
        self.name = goroutine.name
        self.state = goroutine.state
        self.waited = goroutine.waited
        self.locked = goroutine.locked
        on = goroutine.waiting_on
        every = on if isinstance(on, tuple) else (on,)
        # Once each: a select may have the same channel twice.
        self.waits_on = list({id(each): each for each in every if each is not None}.values())
        self.frames = _frames(goroutine)
        self.created = ""
        if goroutine.started_at:
            by = f"by goroutine {goroutine.parent} " if goroutine.parent else ""
            self.created = f"    created {by}at {goroutine.started_at}\n"

    @property
    def key(self) -> tuple[str, bool, str, str]:
        """What goroutines of one group have in common."""
        return self.state, self.locked, self.frames, self.created


def _frames(goroutine: Goroutine) -> str:
    frame = goroutine.frame
    if goroutine is _core.current():
        # Not the frames of this module.
        while frame is not None and frame.f_globals.get("__name__") == __name__:
            frame = frame.f_back
    lines = []
    while frame is not None:
        code = frame.f_code
        lines.append(f"    {code.co_qualname} at {code.co_filename}:{frame.f_lineno}\n")
        frame = frame.f_back
    return "".join(lines)


def _block(group: Sequence[_Member], waiters: Numbers, holders: Numbers) -> str:
    first = group[0]
    ids = {member.id for member in group}
    state = first.state + _duration([member.waited for member in group])
    if first.locked:
        state += ", locked to thread"
    if len(group) == 1:
        headline = f"goroutine {first.id} [{state}] {first.name}:\n"
    else:
        listed = _abridged(str(member.id) for member in group)
        headline = f"{len(group)} goroutines [{state}] {first.name}: {listed}\n"
    objects = {id(each): each for member in group for each in member.waits_on}
    waits = "".join(
        f"    waits on {_repr(each)}"
        f"{_others(', as', waiters[number], ids)}"
        f"{_others(', which is also a variable in', holders.get(number, ()), ids)}\n"
        for number, each in list(objects.items())[:_MOST_SHOWN]
    )
    if len(objects) > _MOST_SHOWN:
        waits += f"    … and on {len(objects) - _MOST_SHOWN} more\n"
    return headline + first.frames + waits + first.created


def _others(what: str, goroutines: Sequence[int], ids: set[int]) -> str:
    """The goroutines of other groups that wait on the same object, or have it."""
    others = [str(each) for each in goroutines if each not in ids]
    if not others:
        return ""
    return f"{what} goroutine{'s' if len(others) > 1 else ''} {_abridged(others)}"


def _duration(waited: Sequence[float]) -> str:
    """How long they have waited, in minutes as Go says it; nothing for less than one."""
    shortest, longest = int(min(waited) // 60), int(max(waited) // 60)
    if not longest:
        return ""
    minutes = f"{longest}" if shortest == longest else f"{shortest}~{longest}"
    return f", {minutes} minute{'s' if longest > 1 else ''}"


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # A dump must not end because of what it shows.
        return object.__repr__(value)


def _abridged(ids: Iterable[str]) -> str:
    all_ids = list(ids)
    return ", ".join(all_ids[:_MOST_SHOWN]) + (", …" if len(all_ids) > _MOST_SHOWN else "")


def _native() -> str:
    groups: dict[tuple[str, str, bool], list[int]] = {}
    for number, state, function, locked in sorted(_core.native_goroutines()):
        groups.setdefault((state, function, locked), []).append(number)
    blocks = []
    for (state, function, locked), ids in groups.items():
        what = f"[{state}{', locked to thread' if locked else ''}]"
        if len(ids) == 1:
            headline = f"native goroutine {ids[0]} {what}:\n"
        else:
            headline = f"{len(ids)} native goroutines {what}: {_abridged(map(str, ids))}\n"
        blocks.append(f"{headline}    {function}\n")
    return "\n".join(blocks)


# ---- golibx dump ----


class DumpError(Exception):
    """No dump could be had of a process; the text says why, and what to do."""


def request(pid: int, *, timeout: float = 15.0) -> str:
    """The dump of another process that is in a golibx run, even if its interpreter is stuck.

    Args:
        pid: its process id.
        timeout: seconds to wait for each part of the answer.

    Raises:
        DumpError: there is no such process, it is not golibx's, or another user's.
    """
    import socket

    if sys.platform != "linux":
        raise DumpError("golibx dump works on Linux only: elsewhere use py-spy or a debugger")
    if not 0 < pid < 1 << 31:
        raise DumpError(f"{pid} is not the id of a process (allowed: 1 to {(1 << 31) - 1})")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(f"\0golibx-{pid}")
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        except ConnectionRefusedError:
            raise DumpError(_why_not(pid)) from None
        except TimeoutError:
            raise DumpError(
                f"process {pid} has not answered for {timeout:g} s: is it stopped? "
                f"`kill -CONT {pid}` lets it go on"
            ) from None
        except ConnectionError as exc:
            raise DumpError(f"process {pid} ended while it was asked: {exc.strerror}") from None
    answer = b"".join(parts).decode(errors="replace")
    if answer.startswith("+"):
        return answer[1:]
    if answer.startswith("-"):
        raise DumpError(f"process {pid} belongs to another user: ask as that user, or as root")
    raise DumpError(f"process {pid} ended while it was asked")


def _why_not(pid: int) -> str:
    import os

    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return f"there is no process {pid}: `pgrep -f golibx` lists those that may be meant"
    except PermissionError:
        return f"process {pid} belongs to another user, and is in no golibx run that could answer"
    return (
        f"process {pid} is in no golibx run: it is another program, its run has not begun or has "
        "ended, or it runs in another network namespace (a container), where golibx dump must run"
    )
