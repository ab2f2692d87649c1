"""What every goroutine does: stacks in the form of Go's, the text of a deadlock, `golibx dump`."""

from __future__ import annotations

import contextlib
import sys
import threading
from itertools import groupby

from golibx import _core
from golibx.errors import Deadlock
from golibx.frames import frames_of, is_starter
from golibx.leaked import variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping, Sequence
    from types import FrameType
    from typing import Any, TypeAlias

    from golibx import _core as core

    Goroutine: TypeAlias = core.Goroutine[Any]
    Who: TypeAlias = tuple[str, int]  # "goroutine" and its id, or "thread" and its number
    Having: TypeAlias = dict[int, list[Who]]  # by the id() of an object

__all__ = [
    "DumpError",
    "deadlock",
    "describe",
    "goroutines",
    "main_thread_joins",
    "printable",
    "report",
    "request",
    "snapshot",
    "stacks",
]

_MOST_SEARCHED = 1000
"""How many goroutines a deadlock's text looks for objects in."""
_MOST_SHOWN = 8
"""Of the goroutines of a group, and of the objects they wait on."""
_KINDS = ("goroutine", "thread")
"""In the order in which they are shown."""


def goroutines(*, system: bool = False) -> list[Goroutine]:
    """The goroutines that have not ended, the oldest first; an empty list where nothing runs.

    Args:
        system: also those that belong to the runtime, such as the service goroutines of plugins.
    """
    return [g for g in reversed(_core.goroutines()) if system or not g.system]


def stacks(only: Iterable[Goroutine] | None = None, /, *, system: bool = False) -> str:
    """The stacks of all goroutines as text, in the form of Go's dumps, the oldest goroutine first.

    Goroutines that wait for the same reason at the same place, started at the same place, are shown
    once, with their number and ids, and the labels that any of them has. The threads follow that
    run no goroutine and wait for one, a channel, a lock or the like; then native goroutines, with
    the function that each runs.

    Args:
        only: some goroutines: no others are shown, no threads and no native goroutines.
        system: also show those that belong to the runtime.
    """
    if only is not None:
        return describe(list(only))
    shown = goroutines(system=system)
    return "\n".join(filter(None, (describe(shown, _threads()), _native())))


def report() -> str:
    """What a signal or `golibx dump` shows while the interpreter works."""
    return stacks() or "golibx: there are no goroutines\n"


def snapshot() -> dict[str, Any]:
    """All that stacks() shows as an object for JSON: docs/debugging.md describes it."""
    return {
        "goroutines": [_goroutine_object(goroutine) for goroutine in goroutines(system=True)],
        "threads": [
            {**_object_of(thread), "waited_ns": int(thread.waited * 1e9)} for thread in _threads()
        ],
        "native_goroutines": [
            {"id": number, "state": state, "function": function, "locked": locked}
            for number, state, function, locked in sorted(_core.native_goroutines())
        ],
        "stats": _core.stats(),
    }


def _goroutine_object(goroutine: Goroutine) -> dict[str, Any]:
    member = _Member(goroutine)
    file, _, line = goroutine.started_at.rpartition(":")
    return {
        **_object_of(member),
        # It may have gone on since.
        "waited_ns": int(member.waited * 1e9),
        "system": goroutine.system,
        "priority": goroutine.priority,
        "labels": {**member.labels},
        "locked": member.locked,
        "kept_by": member.kept_by,
        "parent": goroutine.parent or None,
        "started_at": {"file": file, "line": int(line)} if line.isdecimal() else None,
    }


def _object_of(shown: _Shown) -> dict[str, Any]:
    return {
        "id": shown.who[1],
        "name": shown.name,
        "state": shown.state,
        "reason": shown.state if shown.waits else None,
        "waits_on": [_repr(each) for each in shown.waits_on],
        "frames": [
            {"function": function, "file": file, "line": line}
            for function, file, line in shown.places
        ],
    }


def deadlock() -> Deadlock:
    """The exception that the main goroutine raises when all goroutines are asleep."""
    shown = goroutines()
    threads = _threads()
    count = _count(_core.num_goroutine(), "goroutine")
    if threads:
        count += f" and {_count(len(threads), 'thread')}"
    text = describe(shown, threads, _holders(shown, threads))
    text = "\n".join(filter(None, (text, _native())))
    return Deadlock(f"all goroutines are asleep - deadlock! ({count})\n\n{text}")


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


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


def describe(
    goroutines: Sequence[Goroutine],
    threads: Sequence[_Thread] = (),
    holders: Having | None = None,
) -> str:
    """The stacks of these goroutines, equal ones grouped, in the order of their ids; then threads.

    Args:
        goroutines: the goroutines.
        threads: the threads.
        holders: which goroutines and threads have an object in a local variable.
    """
    members: list[_Shown] = [*map(_Member, goroutines), *threads]
    waiters: Having = {}
    for member in members:
        for each in member.waits_on:
            waiters.setdefault(id(each), []).append(member.who)
    members.sort(key=lambda m: (m.key, m.who))
    groups = [list(group) for _, group in groupby(members, key=lambda m: m.key)]
    groups.sort(key=lambda group: (_KINDS.index(group[0].who[0]), group[0].who))
    return "\n".join(_block(group, waiters, holders or {}) for group in groups)


def _holders(goroutines: Sequence[Goroutine], threads: Sequence[_Thread]) -> Having:
    """Which of them have, in a local variable, an object that one of them waits on."""
    on = [*(_objects(g.waiting_on) for g in goroutines), *(thread.waits_on for thread in threads)]
    wanted = {id(each) for one in on for each in one}
    frames: list[tuple[Who, FrameType | None]] = [
        *((("goroutine", g.id), g.frame) for g in goroutines[:_MOST_SEARCHED]),
        *((thread.who, thread.frame) for thread in threads[:_MOST_SEARCHED]),
    ]
    holders: Having = {}
    for who, innermost in frames:
        frame = innermost
        while frame is not None:
            for each in variables(frame):
                if id(each) in wanted and who not in holders.setdefault(id(each), []):
                    holders[id(each)].append(who)
            frame = frame.f_back
    return holders


def _objects(waiting_on: object) -> list[object]:
    """Each once: a select may have the same channel twice."""
    every = waiting_on if isinstance(waiting_on, tuple) else (waiting_on,)
    return list({id(each): each for each in every if each is not None}.values())


class _Shown:
    """What goroutines and threads have in common."""

    __slots__ = (
        "frames",
        "labels",
        "name",
        "places",
        "state",
        "waited",
        "waits",
        "waits_on",
        "who",
    )

    who: Who
    name: str
    state: str
    waited: float
    waits: bool
    waits_on: list[object]
    labels: Mapping[str, str]
    places: list[tuple[str, str, int]]
    frames: str
    locked = False
    kept_by: str | None = None
    created = ""

    @property
    def key(self) -> tuple[str, str, bool, str | None, str, str]:
        """What those of one group have in common."""
        return self.who[0], self.state, self.locked, self.kept_by, self.frames, self.created


class _Member(_Shown):
    """A goroutine as it was when it was looked at, since it may go on meanwhile."""

    __slots__ = ("created", "kept_by", "locked")

    def __init__(self, goroutine: Goroutine) -> None:
        self.who = ("goroutine", goroutine.id)
        self.name = printable(goroutine.name, lines=False)
        self.waits = goroutine.waiting
        self.state = goroutine.state
        self.waited = goroutine.waited
        self.locked = goroutine.locked
        self.kept_by = goroutine.kept_by
        self.waits_on = _objects(goroutine.waiting_on)
        self.labels = goroutine.labels
        frame = goroutine.frame
        if goroutine is _core.current():
            # Not the frames of this module.
            while frame is not None and frame.f_globals.get("__name__") == __name__:
                frame = frame.f_back
        self.places = _places(frame)
        self.frames = _lines(self.places)
        self.created = ""
        if goroutine.started_at and not is_starter(goroutine.started_at):
            by = f"by goroutine {goroutine.parent} " if goroutine.parent else ""
            place = printable(goroutine.started_at, lines=False)
            self.created = f"    created {by}at {place}\n"


class _Thread(_Shown):
    """The same of a thread that waits."""

    __slots__ = ("frame",)

    def __init__(
        self,
        number: int,
        name: str,
        state: str,
        waiting_on: object,
        waited: float,
        frame: FrameType | None,
    ) -> None:
        self.who = ("thread", number)
        self.name = name
        self.waits = state != "runnable"
        self.state = state
        self.waited = waited
        self.waits_on = _objects(waiting_on)
        self.labels = {}
        self.frame = frame
        self.places = _places(frame)
        self.frames = _lines(self.places)


def _threads() -> list[_Thread]:
    """Those that run no goroutine and wait, the oldest wait first."""
    # Not threading.enumerate(): it takes a lock, and this would wait for the thread that has it.
    active: dict[int, threading.Thread] = vars(threading)["_active"]
    found: dict[int, _Thread] = {}
    for number, ident, state, waiting_on, waited, frame in _core.waiting_threads():
        if number in found:  # it waits in a signal handler that runs in a wait
            found[number].waits_on += _objects(waiting_on)
            continue
        thread = active.get(ident)  # None: one of C code's
        name = "?" if thread is None else printable(thread.name, lines=False)
        found[number] = _Thread(number, name, state, waiting_on, waited, frame)
    return list(reversed(found.values()))


def _places(frame: FrameType | None) -> list[tuple[str, str, int]]:
    return [
        (each.f_code.co_qualname, each.f_code.co_filename, each.f_lineno)
        for each in frames_of(frame)
    ]


def _lines(places: Iterable[tuple[str, str, int]]) -> str:
    return "".join(
        f"    {printable(f'{function} at {file}:{line}', lines=False)}\n"
        for function, file, line in places
    )


def _block(group: Sequence[_Shown], waiters: Having, holders: Having) -> str:
    first = group[0]
    kind, number = first.who
    own = {member.who for member in group}
    state = first.state + _duration([member.waited for member in group])
    if first.locked:
        state += ", locked to thread"
    if first.kept_by is not None:
        state += f", keeps its thread for {first.kept_by}"
    if len(group) == 1:
        headline = f"{kind} {number} [{state}] {first.name}:\n"
    else:
        listed = _abridged(str(member.who[1]) for member in group)
        headline = f"{len(group)} {kind}s [{state}] {first.name}: {listed}\n"
    objects = {id(each): each for member in group for each in member.waits_on}
    waits = "".join(
        f"    waits on {_repr(each)}"
        f"{_others(', as ', waiters[key], own)}"
        f"{_others(', which is also a variable in ', holders.get(key, ()), own)}\n"
        for key, each in list(objects.items())[:_MOST_SHOWN]
    )
    if len(objects) > _MOST_SHOWN:
        waits += f"    … and on {len(objects) - _MOST_SHOWN} more\n"
    return headline + _labels(group) + first.frames + waits + first.created


def _labels(group: Sequence[_Shown]) -> str:
    """Each name once, with the different values that the group has."""
    values: dict[str, dict[str, None]] = {}
    for member in group:
        for name, value in member.labels.items():
            values.setdefault(name, {})[repr(value)] = None
    if not values:
        return ""
    shown = "; ".join(f"{name}={_abridged(each)}" for name, each in values.items())
    return f"    labels {printable(shown, lines=False)}\n"


def _others(what: str, having: Sequence[Who], own: set[Who]) -> str:
    """Those of other groups that wait on the same object, or have it."""
    parts = []
    for kind in _KINDS:
        numbers = [str(who[1]) for who in having if who[0] == kind and who not in own]
        if numbers:
            parts.append(f"{kind}{'s' if len(numbers) > 1 else ''} {_abridged(numbers)}")
    return what + " and ".join(parts) if parts else ""


def _duration(waited: Sequence[float]) -> str:
    """How long they have waited, in minutes as Go says it; nothing for less than one."""
    shortest, longest = int(min(waited) // 60), int(max(waited) // 60)
    if not longest:
        return ""
    minutes = f"{longest}" if shortest == longest else f"{shortest}~{longest}"
    return f", {minutes} minute{'s' if longest > 1 else ''}"


def _repr(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # A dump must not end because of what it shows.
        text = object.__repr__(value)
    return printable(text, lines=False)


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


# ---- golibx dump, and what else is asked of another process ----

_MOST_ASKED = 4096
"""Bytes of a request, its end included: zsrc/python/run/requests.zig."""


class DumpError(Exception):
    """A process could not be asked, or has refused; the text says why, and what to do."""


def request(pid: int, what: str = "dump", *, timeout: float = 15.0) -> str:
    """What another process answers that is in a golibx run, even if its interpreter is stuck.

    Args:
        pid: its process id.
        what: what it is asked: "dump", or a request of golibx.control.
        timeout: seconds to wait for each part of the answer.

    Raises:
        DumpError: there is no such process, it is not golibx's, or another user's; another one
            answers in its place; or it refuses what it is asked.
    """
    import socket

    if sys.platform != "linux":
        raise DumpError("golibx dump works on Linux only: elsewhere use py-spy or a debugger")
    line = f"golibx 1 {what}\n".encode()
    if len(line) > _MOST_ASKED:
        raise DumpError(f"that is too much to ask at once: more than {_MOST_ASKED} bytes")
    if not 0 < pid < 1 << 31:
        raise DumpError(f"{pid} is not the id of a process (allowed: 1 to {(1 << 31) - 1})")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(f"\0golibx-{pid}")
            _check_who_answers(connection, pid)
            _send(connection, line)
            parts = _received(connection)
        except ConnectionRefusedError:
            raise DumpError(_why_not(pid)) from None
        except TimeoutError:
            raise DumpError(
                f"process {pid} has not answered for {timeout:g} s: is it stopped? "
                f"`kill -CONT {pid}` lets it go on"
            ) from None
        except ConnectionError as exc:
            raise DumpError(f"process {pid} ended while it was asked: {exc.strerror}") from None
    answer = printable(b"".join(parts).decode(errors="replace"))
    if answer.startswith("+"):
        return answer[1:]
    if answer == "-another user's process\n":
        raise DumpError(f"process {pid} belongs to another user: ask as that user, or as root")
    if answer.startswith("-"):
        raise DumpError(f"process {pid} refuses: {answer[1:].strip()}")
    raise DumpError(f"process {pid} ended while it was asked")


def _send(connection: socket.socket, line: bytes) -> None:
    # A process that refuses to be asked has hung up, perhaps, and has said why.
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(line)


def _received(connection: socket.socket) -> list[bytes]:
    parts: list[bytes] = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        if not parts:  # else it has not read all of the request: an older golibx reads none
            raise
    return parts


def _check_who_answers(connection: socket.socket, pid: int) -> None:
    """Any process may listen under the name that this one would have."""
    import socket
    import struct

    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    answering, user, _ = struct.unpack("iII", credentials)
    if answering != pid:
        raise DumpError(
            f"process {answering} of user {user} listens where process {pid} would: what it says "
            "is not to be trusted"
        )


def printable(text: str, *, lines: bool = True) -> str:
    """`text` with what a terminal would obey instead of show written as an escape sequence.

    Args:
        text: what a program may have chosen, such as a name.
        lines: whether it may have several. A name with two could look like another goroutine.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or (lines and c == "\n") else c.encode("unicode_escape").decode()
        for c in text
    )


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
        "ended, `[debug] control` is false, or it runs in another network namespace (a container), "
        "where golibx dump must run"
    )
