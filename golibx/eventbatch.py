"""Events as the native core records them, and what plugins are given of them.

The core has numbers: a kind, a time, a goroutine and two that depend on the kind. Here is what they
mean. An event that is for a hook of its own comes as a tuple of them. Those that are taken by the
batch come as bytes, a record of 32 each, and most plugins that take them so do not make objects of
them at all: that is what it is for.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from golibx import hookspec
from golibx.places import line_of, name_of_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import CodeType

__all__ = ["EVENT_HOOKS", "KINDS", "LANES", "EventBatch", "RawEvent"]

LANES = ("python", "native")
_OUTCOMES = ("returned", "raised", "cancelled")

RawEvent = tuple[int, int, int, int, Any, int]
"""As the native core records it: kind, time_ns, goroutine_id, two values that depend on the kind,
the second of them a number, a text or a tuple, and the lane, an index of LANES."""


def _goroutine_create(time_ns: int, lane: str, goroutine_id: int, parent_id: int, _: int) -> object:
    return hookspec.GoroutineCreate(time_ns, lane, goroutine_id, parent_id)


def _goroutine_start(time_ns: int, lane: str, goroutine_id: int, parent_id: int, _: int) -> object:
    return hookspec.GoroutineStart(time_ns, lane, goroutine_id, parent_id)


def _goroutine_park(time_ns: int, lane: str, goroutine_id: int, _: int, reason: str) -> object:
    return hookspec.GoroutinePark(time_ns, lane, goroutine_id, reason)


def _goroutine_ready(time_ns: int, lane: str, goroutine_id: int, waker_id: int, _: int) -> object:
    return hookspec.GoroutineReady(time_ns, lane, goroutine_id, waker_id)


def _goroutine_exit(
    time_ns: int, lane: str, goroutine_id: int, lifetime_ns: int, outcome: int
) -> object:
    return hookspec.GoroutineExit(time_ns, lane, goroutine_id, lifetime_ns, _OUTCOMES[outcome])


def _goroutine_panic(time_ns: int, lane: str, goroutine_id: int, _: int, exception: str) -> object:
    return hookspec.GoroutinePanic(time_ns, lane, goroutine_id, exception)


def _preempt(time_ns: int, lane: str, goroutine_id: int, ran_ns: int, handed_off: int) -> object:
    return hookspec.Preempt(time_ns, lane, goroutine_id, ran_ns, bool(handed_off))


def _retake(time_ns: int, lane: str, goroutine_id: int, blocked_ns: int, in_vain: int) -> object:
    return hookspec.Retake(time_ns, lane, goroutine_id, blocked_ns, bool(in_vain))


def _netpoll_ready(time_ns: int, lane: str, goroutine_id: int, fd: int, mode: int) -> object:
    return hookspec.NetpollReady(time_ns, lane, goroutine_id, fd, bool(mode & 1), bool(mode & 2))


def _steal(time_ns: int, lane: str, goroutine_id: int, processors: int, stolen: int) -> object:
    thief, victim = processors >> 32, processors & 0xFFFF_FFFF
    return hookspec.Steal(time_ns, lane, goroutine_id, stolen, thief, victim)


def _sysmon_tick(time_ns: int, lane: str, _: int, slept_ns: int, idle_rounds: int) -> object:
    return hookspec.SysmonTick(time_ns, lane, slept_ns, idle_rounds)


def _deadlock(time_ns: int, lane: str, goroutine_id: int, goroutines: int, _: int) -> object:
    return hookspec.DeadlockFound(time_ns, lane, goroutine_id, goroutines)


def _gomaxprocs(time_ns: int, _: str, _id: int, before: int, after: int) -> object:
    # Before the native lane has started, the Python lane records the change on its behalf.
    return hookspec.GomaxprocsChange(time_ns, "native", before, after)


def _tune(time_ns: int, lane: str, _id: int, _: int, change: tuple[str, str, int, int]) -> object:
    return hookspec.Tune(time_ns, lane, *change)


def _goroutine_run(time_ns: int, lane: str, goroutine_id: int, waited_ns: int, _: int) -> object:
    return hookspec.GoroutineRun(time_ns, lane, goroutine_id, waited_ns)


def _goroutine_block(
    time_ns: int,
    lane: str,
    goroutine_id: int,
    blocked_ns: int,
    where: tuple[CodeType, int] | None,
) -> object:
    function = place = ""
    if where is not None:
        code, _ = where
        function = name_of_call(*where)
        place = f"{code.co_filename}:{line_of(*where)} in {code.co_qualname}"
    return hookspec.GoroutineBlock(time_ns, lane, goroutine_id, blocked_ns, function, place)


def _goroutine_unblock(time_ns: int, lane: str, goroutine_id: int, a: int, b: int) -> object:
    # Two numbers of 48 bits: the second one is all of `b`, and what `a` has above the first.
    blocked_ns, waited_ns = a & 0xFFFF_FFFF_FFFF, a >> 48 << 32 | b
    return hookspec.GoroutineUnblock(time_ns, lane, goroutine_id, blocked_ns, waited_ns)


def _gil_wait(time_ns: int, lane: str, goroutine_id: int, waited_ns: int, offered: int) -> object:
    return hookspec.GilWait(time_ns, lane, goroutine_id, waited_ns, bool(offered))


EVENT_HOOKS: tuple[tuple[str, Callable[..., object]], ...] = (
    ("on_goroutine_create", _goroutine_create),
    ("on_goroutine_start", _goroutine_start),
    ("on_goroutine_park", _goroutine_park),
    ("on_goroutine_ready", _goroutine_ready),
    ("on_goroutine_exit", _goroutine_exit),
    ("on_goroutine_panic", _goroutine_panic),
    ("on_preempt", _preempt),
    ("on_retake", _retake),
    ("on_netpoll_ready", _netpoll_ready),
    ("on_steal", _steal),
    ("on_sysmon_tick", _sysmon_tick),
    ("on_deadlock", _deadlock),
    ("on_gomaxprocs", _gomaxprocs),
    ("on_tune", _tune),
    ("on_goroutine_run", _goroutine_run),
    ("on_goroutine_block", _goroutine_block),
    ("on_goroutine_unblock", _goroutine_unblock),
    ("on_gil_wait", _gil_wait),
)
"""By the native core's event kind: the hook, and what makes its event of the recorded numbers."""

KINDS: dict[str, int] = {name: kind for kind, (name, _) in enumerate(EVENT_HOOKS)}
"""By the name of the hook."""
_PARK = KINDS["on_goroutine_park"]
_WITH_OBJECT = frozenset(
    KINDS[name] for name in ("on_goroutine_panic", "on_tune", "on_goroutine_block")
)


class EventBatch:
    """Some events, in the order of their times: an iterable of what their hooks would be given.

    Making these takes a microsecond or two for each. What it is made of can be had for less:

    Args:
        data: a record for each event.
        objects: what the records refer to.
        reasons: why goroutines wait, by the number that the records have for it.

    Attributes:
        data: bytes, a record for each event: `EventBatch.RECORD` unpacks (time_ns, goroutine_id, a,
            b, kind, lane). The kind is a key of `EventBatch.HOOKS`, which has the hook's name; the
            lane is 0 for Python's and 1 for the native one; what a and b are is in docs/plugins.md.
        objects: what b refers to, of kinds that have an object.
        reasons: why goroutines wait: what b refers to of `on_goroutine_park`.
    """

    __slots__ = ("data", "objects", "reasons")

    RECORD = struct.Struct("=QQQIBBxx")
    HOOKS = tuple(name for name, _ in EVENT_HOOKS)

    def __init__(self, data: bytes, objects: Sequence[Any], reasons: Sequence[str]) -> None:
        self.data = data
        self.objects = objects
        self.reasons = reasons

    def __len__(self) -> int:
        return len(self.data) // self.RECORD.size

    def __iter__(self) -> Iterator[Any]:
        reasons, objects = self.reasons, self.objects
        for time_ns, goroutine_id, a, b, kind, lane in self.RECORD.iter_unpack(self.data):
            what = reasons[b] if kind == _PARK else objects[b] if kind in _WITH_OBJECT else b
            yield EVENT_HOOKS[kind][1](time_ns, LANES[lane], goroutine_id, a, what)

    @property
    def first_ns(self) -> int:
        """The time of the first event. Raises IndexError if there is none."""
        return self._time_at(0)

    @property
    def last_ns(self) -> int:
        """That of the last one."""
        return self._time_at(len(self) - 1)

    def _time_at(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError("the batch has no events")
        time_ns: int = self.RECORD.unpack_from(self.data, index * self.RECORD.size)[0]
        return time_ns

    def since(self, time_ns: int) -> EventBatch:
        """Those of its events that happened then or later."""
        first = bisect_left(range(len(self)), time_ns, key=self._time_at)
        return EventBatch(self.data[first * self.RECORD.size :], self.objects, self.reasons)

    def __repr__(self) -> str:
        return f"<EventBatch: {len(self)} events>"
