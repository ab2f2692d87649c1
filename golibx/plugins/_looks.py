"""What the plugin dashboard shows: points of its charts, groups of goroutines, flame graphs.

Everything is made by the dashboard's service thread, of what any plugin may ask for. All of it is
bounded: the points that are kept, the goroutines that a look goes through, the groups and frames
that are told, the bars of a flame graph. What is left out is counted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from golibx import goroutines
from golibx.plugins.profile import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from threading import Thread
    from types import FrameType
    from typing import TypeAlias

    from golibx import Goroutine
    from golibx.plugins.profile import Profile
    from golibx.runtime import Runtime

    Place: TypeAlias = tuple[str, str, int]  # function, file, line

__all__ = ["COLUMNS", "PROFILES", "History", "Profiler", "groups", "quantile", "tree"]

_GAUGES = (
    "goroutines",
    "runq",
    "timers",
    "threads",
    "threads_idle",
    "threads_blocked",
    "native_goroutines",
    "native_queue_local",
    "native_queue_global",
)
_RATES = (
    "switches",
    "spawns",
    "preemptions",
    "preempt_requests",
    "handoffs",
    "retakes",
    "retakes_in_vain",
    "netpoll_wakeups",
    "lock_offers",
    "native_switches",
    "native_steals",
    "native_retakes",
)
COLUMNS = (
    "time",
    *_GAUGES,
    *(f"{name}_per_s" for name in _RATES),
    "native_preemptions_per_s",
    "latencies",
    "latency_p50_ns",
    "latency_p99_ns",
    "gil_waits_per_s",
    "gil_waited_ns_per_s",
    "cpus",
    "memory_bytes",
    "states",
)
"""Of a point of the charts. `time` is in seconds since 1970; `states` has goroutines by what they
do; what is not known is null."""

_NATIVE_PREEMPTIONS = ("native_preempt_yields", "native_preempt_klt", "native_preempt_coop")
_MOST_STATES = 16
"""States that a point tells apart; the rest is "other"."""
_REST = 100
"""So many times as long as a count of states is the pause after it, at least."""
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_MOST_FRAMES = 64
_MOST_GROUPS = 300
_MOST_MEMBERS = 20
_MOST_WORDS = 16
_MOST_TEXT = 200
"""Characters of a name or a label's value that are told."""
_MOST_BARS = 4000
_SMALLEST_SHARE = 2000
"""A bar has at least one in so many of the whole, or is left out."""


# ---- the charts ----


def quantile(counts: Mapping[int, int], share: float) -> int | None:
    """The length that this share of the waits does not exceed; None if there are none.

    Args:
        counts: how many were no longer than that many nanoseconds.
        share: from 0 to 1.
    """
    left = share * sum(counts.values())
    longest = None
    for length, count in sorted(counts.items()):
        if count:
            longest = length
            left -= count
            if left <= 0:
                break
    return longest


def _memory_bytes() -> int | None:
    """What the process has in memory; Linux tells."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


class History:
    """The last points of the charts, each as the JSON that is sent.

    Args:
        runtime: the run.
        interval_ns: the time between two points.
        length: how many are kept.
        has_latency: whether the waits of goroutines for their turn are measured.

    Attributes:
        gil_waits: how often the Python lane has waited for the GIL so far; the plugin counts.
        gil_waited_ns: how long in all.
    """

    def __init__(
        self, runtime: Runtime, *, interval_ns: int, length: int, has_latency: bool
    ) -> None:
        self._runtime = runtime
        self._interval_ns = interval_ns
        self._has_latency = has_latency
        self._points: deque[tuple[int, str]] = deque(maxlen=length)
        self._number = 0
        self._due_ns = time.monotonic_ns()
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._states: dict[str, int] = {}
        self._states_due_ns = 0
        self.gil_waits = self.gil_waited_ns = 0
        self._before = self._read()
        self._latencies = runtime.latencies() if has_latency else {}

    def _read(self) -> dict[str, int]:
        """What only grows, and the time."""
        return {
            **self._runtime.stats(),
            "now_ns": time.monotonic_ns(),
            "cpu_ns": time.process_time_ns(),
            "gil_waits": self.gil_waits,
            "gil_waited_ns": self.gil_waited_ns,
        }

    def tick(self) -> int:
        """Adds a point if it is time for one. How many nanoseconds there are to the next."""
        now_ns = time.monotonic_ns()
        if now_ns >= self._due_ns:
            self._due_ns += self._interval_ns
            if self._due_ns <= now_ns:  # C code has kept the interpreter's lock for so long
                self._due_ns = now_ns + self._interval_ns
            self._add()
        return self._due_ns - time.monotonic_ns()

    def _add(self) -> None:
        before, now = self._before, self._read()
        passed_ns = now["now_ns"] - before["now_ns"]
        if not self._number and passed_ns < self._interval_ns // 2:
            self._number += 1
            return  # rates need a time before
        self._before = now

        def rate(*names: str) -> float:
            grown = sum(now[name] - before[name] for name in names)
            return round(grown * 1e9 / passed_ns, 2)

        waits = self._waits()
        self._number += 1
        point = (
            round((self._epoch_ns + now["now_ns"]) / 1e9, 3),  # whatever is done to the clock
            *(now[name] for name in _GAUGES),
            *(rate(name) for name in _RATES),
            rate(*_NATIVE_PREEMPTIONS),
            sum(waits.values()),
            quantile(waits, 0.5),
            quantile(waits, 0.99),
            rate("gil_waits"),
            rate("gil_waited_ns"),
            round((now["cpu_ns"] - before["cpu_ns"]) / passed_ns, 3),
            _memory_bytes(),
            self._count_states(now["now_ns"]),
        )
        self._points.append((self._number, json.dumps(point, separators=(",", ":"))))

    def _waits(self) -> dict[int, int]:
        if not self._has_latency:
            return {}
        before, self._latencies = self._latencies, self._runtime.latencies()
        return {length: count - before.get(length, 0) for length, count in self._latencies.items()}

    def _count_states(self, now_ns: int) -> dict[str, int]:
        """As of now. With very many goroutines they are counted more rarely than points added."""
        if now_ns >= self._states_due_ns:
            began_ns = time.thread_time_ns()
            counts = Counter(goroutine.state for goroutine in goroutines())
            counts.pop("done", None)
            ordered = sorted(counts.items(), key=lambda item: -item[1])
            self._states = dict(ordered[:_MOST_STATES])
            if left := counts.total() - sum(self._states.values()):
                self._states["other"] = self._states.get("other", 0) + left
            self._states_due_ns = now_ns + _REST * (time.thread_time_ns() - began_ns)
        return self._states

    def since(self, number: int) -> str:
        """The points after that one as a JSON object; all that there are if it is not known."""
        newest = self._points[-1][0] if self._points else 0
        if not 0 <= number <= newest:
            number = 0
        points = ",".join(text for each, text in self._points if each > number)
        return f'{{"newest":{newest},"points":[{points}]}}'


# ---- goroutines ----


def _abridged(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"


def _places(frame: FrameType | None) -> tuple[Place, ...]:
    """The frames of the program's, the innermost first: without what calls its functions."""
    found: list[Place] = []
    while frame is not None and len(found) < _MOST_FRAMES:
        code = frame.f_code
        if code.co_qualname == "Runtime._main" and code.co_filename.startswith(_PACKAGE):
            break
        found.append((code.co_qualname, code.co_filename, frame.f_lineno or code.co_firstlineno))
        frame = frame.f_back
    end = len(found)
    while end and found[end - 1][1].startswith(_PACKAGE):
        end -= 1
    return tuple(found[: end or None])


def _waits_on(goroutine: Goroutine[Any]) -> str:
    """What it waits on, in words. The program's own classes are not asked for theirs."""
    waiting_on = goroutine.waiting_on
    every = waiting_on if isinstance(waiting_on, tuple) else (waiting_on,)
    texts = []
    for each in every[:4]:
        if each is not None:
            is_own = type(each).__module__.partition(".")[0] == "golibx"
            texts.append(repr(each) if is_own else type(each).__qualname__)
    return _abridged(", ".join(dict.fromkeys(texts)))


def _matches(goroutine: Goroutine[Any], words: Iterable[str], rest: str) -> bool:
    """Whether each word is somewhere in what is shown of it; "#7" is the one with that number."""
    labels = " ".join(f"{name}={value}" for name, value in goroutine.labels.items())
    text = f"{goroutine.name}\n{labels}\n{rest}".lower()
    number = f"#{goroutine.id}"
    return all(word == number if word.startswith("#") else word in text for word in words)


def groups(query: str, *, system: bool, most: int) -> dict[str, Any]:
    """The goroutines, by where they wait: for JSON.

    Args:
        query: up to 16 words that each of them has to have in its name, labels, state or stack.
        system: also those of the runtime.
        most: how many are looked at.
    """
    every = goroutines(system=system)
    words = query.lower().split()[:_MOST_WORDS]
    found: dict[tuple[Any, ...], list[Goroutine[Any]]] = {}
    matching = 0
    for goroutine in every[:most]:
        state = goroutine.state
        if state == "done":
            continue
        places = _places(goroutine.frame)
        created = goroutine.started_at
        if words:
            stack = "\n".join(f"{name} at {file}:{line}" for name, file, line in places)
            if not _matches(goroutine, words, f"{state}\n{stack}\n{created}"):
                continue
        matching += 1
        locked, kept_by = goroutine.locked, goroutine.kept_by
        key = (state, places, created, goroutine.system, locked, kept_by)
        found.setdefault(key, []).append(goroutine)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return {
        "total": len(every),
        "looked_at": min(len(every), most),
        "matching": matching,
        "groups_total": len(ordered),
        "groups": [_group(*item) for item in ordered[:_MOST_GROUPS]],
    }


def _group(key: tuple[Any, ...], members: list[Goroutine[Any]]) -> dict[str, Any]:
    state, places, created, system, locked, kept_by = key
    waited = {each.id: each.waited if each.waiting else 0.0 for each in members}
    ordered = sorted(members, key=lambda each: (-waited[each.id], each.id))
    at = next((i for i, place in enumerate(places) if not place[1].startswith(_PACKAGE)), 0)
    if created.startswith(_PACKAGE):
        created = ""
    return {
        "state": state,
        "frames": places,
        "at": at,
        "created": created,
        "system": system,
        "locked": locked,
        "kept_by": kept_by,
        "count": len(members),
        "longest_s": max(waited.values()),
        "shortest_s": min(waited.values()),
        "members": [_member(each, waited[each.id]) for each in ordered[:_MOST_MEMBERS]],
    }


def _member(goroutine: Goroutine[Any], waited: float) -> dict[str, Any]:
    labels = [*goroutine.labels.items()][:_MOST_MEMBERS]
    return {
        "id": goroutine.id,
        "name": _abridged(goroutine.name),
        "waited_s": waited,
        "waits_on": _waits_on(goroutine),
        "parent": goroutine.parent,
        "priority": goroutine.priority,
        "labels": {_abridged(name): _abridged(value) for name, value in labels},
    }


# ---- flame graphs ----

PROFILES = ("cpu", "block", "mutex")
"""What can be profiled from the page."""
_HZ = 100
_LOOK_NS = 20_000_000


class _Bar:
    """A function as called by those above it."""

    __slots__ = ("below", "count", "ns")

    def __init__(self) -> None:
        self.ns = self.count = 0
        self.below: dict[tuple[str, str, int], _Bar] = {}

    def add(self, name: tuple[str, str, int], ns: int, count: int) -> _Bar:
        bar = self.below.get(name)
        if bar is None:
            bar = self.below[name] = _Bar()
        bar.ns += ns
        bar.count += count
        return bar


def tree(profile: Profile, *, by_goroutine: bool) -> dict[str, Any]:
    """A profile as nested bars [function, file, first line, ns, count, […]]: for JSON.

    Args:
        profile: the profile.
        by_goroutine: whether the outermost bars are the names of goroutines.
    """
    root = _Bar()
    for (frames, labels), (count, ns) in profile.samples.items():
        root.ns += ns
        root.count += count
        bar = root
        if by_goroutine:
            named = dict(labels)
            who = named.get("goroutine", named.get("thread", "(no goroutine)"))
            bar = bar.add((_abridged(str(who)), "", 0), ns, count)
        for frame in reversed(frames):
            bar = bar.add((frame.function, frame.file, frame.first_line), ns, count)
    least = max(root.ns // _SMALLEST_SHARE, 1)
    told, left_out = _widest(root, least)
    return {
        "ns": root.ns,
        "count": root.count,
        "left_out": left_out,
        "bars": told,
    }


def _widest(root: _Bar, least: int) -> tuple[list[Any], int]:
    """The bars of at least that many nanoseconds, and how many are left out of those below."""
    told: list[Any] = []
    left_out = number = 0
    waiting: deque[tuple[_Bar, list[Any]]] = deque([(root, told)])
    while waiting:
        bar, place = waiting.popleft()
        for name, each in sorted(bar.below.items(), key=lambda item: -item[1].ns):
            if each.ns < least or number >= _MOST_BARS:
                left_out += 1
                continue
            number += 1
            inner: list[Any] = []
            place.append([*name, each.ns, each.count, inner])
            waiting.append((each, inner))
    return told, left_out


class Profiler:
    """Takes one profile at a time, and keeps the last one.

    Args:
        runtime: the run.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._collector: Collector | None = None
        self._waiter: Thread | None = None
        self._kind = ""
        self._seconds = 0.0
        self._began_ns = 0
        self._is_done = True
        self._number = 0

    def start(self, kind: str, seconds: float) -> None:
        """Begins. Raises RuntimeError if one is being taken."""
        if not self._is_done:
            raise RuntimeError("a profile is being taken: wait for its end, or stop it")
        self._collector = Collector(
            [kind],
            hz=_HZ,
            interval_ns=_LOOK_NS,
            duration_ns=int(seconds * 1e9),
            sample=self._runtime.sample,
            start_thread=self._runtime.start_thread,
        )
        self._kind, self._seconds = kind, seconds
        self._number += 1
        self._began_ns = time.monotonic_ns()
        self._collector.start()
        if self._collector.problem:
            self._collector.interrupt()
        self._is_done = False
        self._waiter = self._runtime.start_thread(self._wait)

    def _wait(self) -> None:
        """A thread."""
        assert self._collector is not None
        try:
            self._collector.join()
        finally:
            self._is_done = True

    def stop(self) -> None:
        """Ends the one that is being taken, if any; what it has is kept."""
        if self._collector is not None and not self._is_done:
            self._collector.interrupt()

    def end(self) -> None:
        """Before the run ends."""
        self.stop()
        if self._waiter is not None:
            self._waiter.join()

    def look(self, *, by_goroutine: bool) -> dict[str, Any]:
        """How far it is, and the flame graph when it is done: for JSON."""
        collector = self._collector
        if collector is None:
            return {"state": "none"}
        about = {"number": self._number, "kind": self._kind, "seconds": self._seconds}
        if not self._is_done:
            passed_s = (time.monotonic_ns() - self._began_ns) / 1e9
            return {"state": "taking", **about, "passed_s": round(passed_s, 2)}
        profile = collector.profiles[self._kind]
        about["took_s"] = profile.duration_ns / 1e9
        if collector.problem:
            return {"state": "failed", **about, "problem": collector.problem}
        found = tree(profile, by_goroutine=by_goroutine)
        return {"state": "done", **about, "program": sys.argv[0] if sys.argv else "", **found}
