"""Records what the scheduler does, as a file that chrome://tracing and ui.perfetto.dev show.

Each goroutine has a track: the stretches that it ran, waited and was ready, with reasons; and what
befell it meanwhile: preemptions, retakes, sockets that became ready, steals, panics. Changes of the
scheduler and its counters have a track of their own. docs/tracing.md says what is in the file, and
what no event tells.

A program marks what it does itself. Where no trace is on, that costs next to nothing:

    from golibx.plugins import trace

    with trace.region("parse", size=len(text)):
        ...
    trace.mark("cache is full", entries=900)

`mode = "file"` writes all that happens. `mode = "flight"` keeps the last seconds in memory and
writes them when it is asked: `flight()`, `golibx trace --flight PID`, a signal, an exception, a
long wait for a turn.

Hooks and regions only append to a deque. A service goroutine makes lines of what is there, one for
each event of the Trace Event Format, and writes them all at once; so does who finds the deque long.
The lines are put together by hand: json would take several times as long.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from golibx import Chan, Mutex, current, goroutines, labels, sleep
from golibx.config import Key
from golibx.hookspec import (
    DeadlockFound,
    GomaxprocsChange,
    GoroutineCreate,
    GoroutineExit,
    GoroutinePanic,
    GoroutinePark,
    GoroutineReady,
    GoroutineStart,
    NetpollReady,
    Preempt,
    Retake,
    Snapshot,
    Steal,
    Tune,
    hookimpl,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import BinaryIO

    from golibx import Goroutine
    from golibx.config import Config
    from golibx.runtime import Runtime

__all__ = ["KEYS", "Plugin", "flight", "mark", "region"]

KEYS = (
    Key(
        "output",
        "path",
        "golibx-trace.json",
        "The file to write; `{pid}` in it stands for the number of the process.",
    ),
    Key(
        "mode",
        "choice",
        "file",
        'Whether to write all that happens, or (`"flight"`) to keep the last of it in memory and '
        "to write that when asked.",
        choices=("file", "flight"),
    ),
    Key(
        "max_size",
        "size",
        "1GiB",
        'How large a file of mode `"file"` may become; what follows is counted.',
        low="4KiB",
        high="1TiB",
        zero="as large as it gets",
    ),
    Key(
        "flight",
        "duration",
        "10s",
        'How much mode `"flight"` writes: the time before it is asked.',
        low="10ms",
        high="1h",
    ),
    Key(
        "max_events",
        "int",
        100_000,
        'How many events mode `"flight"` keeps at most, at about 200 bytes each.',
        low=100,
        high=1_000_000,
    ),
    Key(
        "flight_on",
        "strings",
        [],
        'What has a file written: names of signals, such as `"SIGUSR2"`, and `"exception"`: one '
        "that nobody collects, or that ends the program.",
    ),
    Key(
        "flight_latency",
        "duration",
        "0",
        "Has a file written when a goroutine that was ready has waited this long for its turn.",
        low="10us",
        high="1h",
        zero="never",
    ),
    Key(
        "max_files",
        "int",
        10,
        "How many files exceptions and latencies may have written in a run.",
        low=1,
        high=10_000,
    ),
)

_FLUSH_S = 0.05
_MOST_HELD = 4096
"""Events of mode "file" that are in memory, before who adds one writes them."""
_NAMING_SHARE = 50
"""Looking for goroutines' names may take one part in this many of the time."""
_NAMING_NS = 200
"""What it takes for each goroutine, about."""
_PYTHON, _NATIVE, _SCHEDULER, _REGIONS, _THREADS = 1, 2, 3, 4, 5
"""The "processes" of the file, which are groups of tracks."""
_GROUPS = (
    (_PYTHON, "Python goroutines"),
    (_NATIVE, "native goroutines"),
    (_SCHEDULER, "scheduler"),
    (_REGIONS, "regions of goroutines"),
    (_THREADS, "regions of threads"),
)
_CHANGES, _COUNTERS, _OF_THE_FILE = 0, 1, 2
"""The scheduler's tracks. Events come later than what is counted or noted: one would not do."""
_GROUP_OF = {"python": _PYTHON, "native": _NATIVE}


# ---- what programs mark themselves ----


class _Own(NamedTuple):
    """A region's begin or end, or a mark. `time_ns` is first, as in all events."""

    time_ns: int
    phase: str
    group: int
    track: int
    track_name: str
    name: str
    arguments: str


_recorder: _Recorder | None = None
"""That of the run that goes on, if the plugin is enabled."""


class region:  # noqa: N801  # it is used as a function
    """A stretch of a goroutine's or thread's own: `with region("parse", size=9): …`.

    Regions may be nested. What they are given beside their name is shown with them: as JSON where
    that can express it, else by repr().
    """

    __slots__ = ("_arguments", "_began", "_name", "_recorder")

    def __init__(self, name: str, /, **arguments: object) -> None:
        self._name = name
        self._arguments = arguments
        self._recorder: _Recorder | None = None

    def __enter__(self) -> None:
        recorder = _recorder
        if recorder is not None:
            self._recorder = recorder
            self._began = recorder.add("B", self._name, self._arguments)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        recorder = self._recorder
        if recorder is not None:
            self._recorder = None
            recorder.record(self._began._replace(time_ns=time.monotonic_ns(), phase="E"))


def mark(text: str, /, **arguments: object) -> None:
    """An instant in the trace, on the track of this goroutine's or thread's regions."""
    recorder = _recorder
    if recorder is not None:
        recorder.add("i", text, arguments)


def _begin_labels(own: Mapping[str, str]) -> _Own | None:
    """Blocks of golibx.labels() are regions."""
    recorder = _recorder
    return None if recorder is None else recorder.add("B", "labels", own)


def _end_labels(began: _Own | None) -> None:
    recorder = _recorder
    if recorder is not None and began is not None:
        recorder.record(began._replace(time_ns=time.monotonic_ns(), phase="E"))


def flight(why: str = "the program") -> str:
    """Writes the last seconds of mode "flight" to a file, and returns its path.

    Raises:
        RuntimeError: the plugin is not enabled, or its mode is "file".
        OSError: the file can't be written.
    """
    recorder = _recorder
    if recorder is None:
        raise RuntimeError(
            "there is no trace in this process: start it with --set plugins.enabled=trace "
            "--set plugins.trace.mode=flight"
        )
    return recorder.write_flight(why)


def _json(value: object) -> str:
    """As JSON, in ASCII; by repr() what JSON does not have."""
    try:
        return json.dumps(value, default=repr, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError):
        if isinstance(value, dict):
            return json.dumps({str(key): repr(each) for key, each in value.items()})
        return json.dumps(repr(value))


# ---- lines of the file ----


def _after_create(event: GoroutineCreate) -> str:
    return f'"name":"ready","cat":"ready","args":{{"after":"create","by":{event.parent_id}}}'


def _after_start(event: GoroutineStart) -> str:
    return f'"name":"running","cat":"run","args":{{"after":"start","by":{event.parent_id}}}'


_waits: dict[str, str] = {}
"""By reason, of which there are few."""


def _after_park(event: GoroutinePark) -> str:
    text = _waits.get(event.reason)
    if text is None:
        text = _waits[event.reason] = f'"name":{json.dumps(event.reason)},"cat":"wait"'
    return text


_RUNNABLE = '"name":"ready or running","cat":"runnable","args":{'


def _after_preempt(event: Preempt) -> str:
    ran = f'"ran_us":{_us(event.ran_ns)},"handed_off":{_bool(event.handed_off)}'
    return f'{_RUNNABLE}"after":"preempt",{ran}}}'


def _after_retake(event: Retake) -> str:
    return (
        '"name":"blocking call or after it","cat":"call","args":{"after":"retake",'
        f'"blocked_us":{_us(event.blocked_ns)},"in_vain":{_bool(event.in_vain)}}}'
    )


_STRETCHES: dict[type, Callable[[Any], str]] = {
    GoroutineCreate: _after_create,
    GoroutineStart: _after_start,
    Preempt: _after_preempt,
    Retake: _after_retake,
}
"""The events after which a goroutine does something else, but for park and ready."""


def _us(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03d}"


def _bool(value: bool) -> str:
    return "true" if value else "false"


class _Lines:
    """Makes lines of events, and knows what is open on each track.

    Args:
        begun_ns: where the file's time begins. Events before that are moved there.
        names: what Python goroutines are called, as far as anybody knows.
        services: the service goroutines, of which only some events are reported.
    """

    def __init__(self, begun_ns: int, names: dict[int, str], services: set[int]) -> None:
        self._names = names
        self._services = services
        self._begun_ns = begun_ns
        self._open: dict[str, set[int]] = {"python": set(), "native": set()}
        self._regions: dict[tuple[int, int], list[_Own]] = {}
        self._named_services: set[int] = set()
        self.unnamed: set[int] = set()
        self.events = 0

    def head(self) -> list[str]:
        lines = ["[\n"]
        for group, name in _GROUPS:
            arguments = f'"args":{{"name":"{name}"}}'
            lines.append(f'{{"ph":"M","pid":{group},"tid":0,"name":"process_name",{arguments}}},\n')
        for track, name in ((_CHANGES, "changes"), (_OF_THE_FILE, "this file")):
            lines.append(self._name_line(_SCHEDULER, track, name))
        about = {
            "process": os.getpid(),
            "program": sys.argv[0] if sys.argv else "",
            "python": sys.version.partition(" ")[0],
            "unix_ns": time.time_ns() - (time.monotonic_ns() - self._begun_ns),
            "monotonic_ns": self._begun_ns,
        }
        lines.append(self.note(self._begun_ns, "trace begins", about))
        return lines

    def begin_main(self, time_ns: int) -> str:
        """Python's main goroutine, whose start is not reported."""
        ts = _us(max(time_ns - self._begun_ns, 0))
        self._open["python"].add(1)
        arguments = '"args":{"after":"start","by":0}'
        return (
            self._name_line(_PYTHON, 1, "main 1")
            + f'{{"ph":"B","pid":1,"tid":1,"ts":{ts},"name":"running","cat":"run",{arguments}}},\n'
        )

    def note(
        self, time_ns: int, name: str, arguments: dict[str, Any], track: int = _OF_THE_FILE
    ) -> str:
        """An instant of one of the scheduler's tracks."""
        ts = _us(max(time_ns - self._begun_ns, 0))
        return (
            f'{{"ph":"i","s":"g","pid":{_SCHEDULER},"tid":{track},"ts":{ts},"name":"{name}",'
            f'"args":{_json(arguments)}}},\n'
        )

    def add(self, events: Iterable[Any], lines: list[str]) -> None:
        """Appends the lines of the events."""
        append = lines.append
        begun_ns = self._begun_ns
        count = 0
        for event in events:
            count += 1
            kind = event.__class__
            if kind is GoroutinePark:  # it and the next one are most of all
                time_ns, lane, track, reason = event
                what = _waits.get(reason) or _after_park(event)
            elif kind is GoroutineReady:
                time_ns, lane, track, waker = event
                what = f'{_RUNNABLE}"after":"wake","by":{waker}}}'
            elif stretch := _STRETCHES.get(kind):
                time_ns, lane, track = event[:3]
                what = stretch(event)
            else:
                self._add_other(event, lines)
                continue
            passed = time_ns - begun_ns if time_ns > begun_ns else 0
            where = (
                f'"pid":{1 if lane == "python" else 2},"tid":{track},'
                f'"ts":{passed // 1000}.{passed % 1000:03d}'
            )
            opened = self._open[lane]
            if track in opened:
                append(f'{{"ph":"E",{where}}},\n{{"ph":"B",{where},{what}}},\n')
            elif lane == "python" and track in self._services:
                self._add_of_service(event, what, lines)
            else:
                opened.add(track)
                if lane == "python":
                    self.unnamed.add(track)
                else:
                    append(self._name_line(_NATIVE, track, f"goroutine {track}"))
                if kind is GoroutineReady:
                    append(self._earlier_wait(lane, track))
                    append(f'{{"ph":"E",{where}}},\n')
                append(f'{{"ph":"B",{where},{what}}},\n')
        self.events += count

    def _add_of_service(self, event: Any, what: str, lines: list[str]) -> None:
        """As an instant: when it does something else again is not reported."""
        if event.goroutine_id not in self._named_services:
            self._named_services.add(event.goroutine_id)
            name = self._names.get(event.goroutine_id, "service")
            self.name(event.goroutine_id, f"(service) {name}", lines)
        name = "preempted" if event.__class__ is Preempt else "retaken"
        arguments = json.loads(f"{{{what}}}")["args"]
        lines.append(self._instant(event, name, arguments))

    @staticmethod
    def _earlier_wait(lane: str, track: int) -> str:
        """What a goroutine did that is woken, and began to before the file did."""
        where = f'"pid":{_GROUP_OF[lane]},"tid":{track},"ts":0.000'
        return f'{{"ph":"B",{where},"name":"a wait that began before","cat":"wait"}},\n'

    def _add_other(self, event: Any, lines: list[str]) -> None:
        kind = event.__class__
        if kind is _Own:
            self._add_own(event, lines)
        elif kind is Snapshot:
            lines.extend(self._counters(event))
        elif kind is GoroutineExit:
            self._add_exit(event, lines)
        elif kind is Tune:
            what = {"key": event.key, "old": written(event.key, event.old)}
            what |= {"new": written(event.key, event.new), "who": event.who}
            lines.append(self.note(event.time_ns, "tune", what, _CHANGES))
        elif kind is GomaxprocsChange:
            what = {"before": event.before, "after": event.after}
            lines.append(self.note(event.time_ns, "gomaxprocs", what, _CHANGES))
        elif kind is DeadlockFound:
            what = {"goroutines": event.goroutines}
            lines.append(self.note(event.time_ns, "deadlock", what, _CHANGES))
        elif kind is GoroutinePanic:
            lines.append(self._instant(event, "panic", {"exception": event.exception}))
        elif kind is NetpollReady:
            what = {"fd": event.fd, "readable": event.readable, "writable": event.writable}
            lines.append(self._instant(event, "socket ready", what))
        elif kind is Steal:
            what = {"stolen": event.stolen, "processor": event.processor, "victim": event.victim}
            lines.append(self._instant(event, "stolen", what))

    def _instant(self, event: Any, name: str, arguments: dict[str, Any]) -> str:
        ts = _us(max(event.time_ns - self._begun_ns, 0))
        return (
            f'{{"ph":"i","s":"t","pid":{_GROUP_OF[event.lane]},"tid":{event.goroutine_id},'
            f'"ts":{ts},"name":"{name}","args":{_json(arguments)}}},\n'
        )

    def _add_exit(self, event: GoroutineExit, lines: list[str]) -> None:
        track = event.goroutine_id
        group = _GROUP_OF[event.lane]
        if event.lane == "python" and track in self.unnamed:
            self.name(track, self._names.get(track, "goroutine"), lines)
        opened = self._open[event.lane]
        if track in opened:
            opened.remove(track)
            ts = _us(max(event.time_ns - self._begun_ns, 0))
            lines.append(f'{{"ph":"E","pid":{group},"tid":{track},"ts":{ts}}},\n')
        what = {"outcome": event.outcome, "lifetime_us": event.lifetime_ns / 1000}
        lines.append(self._instant(event, "exit", what))

    def _counters(self, snapshot: Snapshot) -> Iterable[str]:
        values: dict[str, float] = {
            "goroutines": snapshot.goroutines,
            "runnable": snapshot.runnable,
            "threads": snapshot.threads,
            "threads blocked": snapshot.threads_blocked,
        }
        if snapshot.latency_p99_ns is not None and snapshot.latency_max_ns is not None:
            values["latency p99 (us)"] = snapshot.latency_p99_ns / 1000
            values["latency max (us)"] = snapshot.latency_max_ns / 1000
        ts = _us(max(snapshot.time_ns - self._begun_ns, 0))
        for name, value in values.items():
            yield (
                f'{{"ph":"C","pid":{_SCHEDULER},"tid":{_COUNTERS},"ts":{ts},"name":"{name}",'
                f'"args":{{"value":{value}}}}},\n'
            )

    def _add_own(self, event: _Own, lines: list[str]) -> None:
        key = (event.group, event.track)
        opened = self._regions.get(key)
        if opened is None:
            opened = self._regions[key] = []
            lines.append(self._name_line(*key, f"{event.track_name} {event.track}"))
        if event.group == _REGIONS and event.track in self.unnamed:
            self.name(event.track, event.track_name, lines)
        if event.phase == "B":
            opened.append(event)
            lines.append(self._own_line(event))
        elif event.phase == "i":
            lines.append(self._own_line(event))
        else:
            self._end_region(opened, event, lines)

    def _end_region(self, opened: list[_Own], event: _Own, lines: list[str]) -> None:
        """The last one, unless generators have their ends in another order than nesting has."""
        own = (each for each in reversed(opened) if each.arguments is event.arguments)
        began = next((each for each in own if each.name == event.name), None)
        if began is None:  # before the file began
            return
        above = opened[opened.index(began) + 1 :]
        ends = [each._replace(time_ns=event.time_ns, phase="E") for each in (began, *above)]
        lines.extend(self._own_line(each) for each in reversed(ends))
        lines.extend(self._own_line(each._replace(time_ns=event.time_ns)) for each in above)
        opened.remove(began)

    def _own_line(self, event: _Own) -> str:
        ts = _us(max(event.time_ns - self._begun_ns, 0))
        where = f'"pid":{event.group},"tid":{event.track},"ts":{ts}'
        if event.phase == "E":
            return f'{{"ph":"E",{where}}},\n'
        scope = '"s":"t",' if event.phase == "i" else ""
        arguments = f',"args":{event.arguments}' if event.arguments != "{}" else ""
        category = "mark" if event.phase == "i" else "region"
        return (
            f'{{"ph":"{event.phase}",{scope}{where},"name":{_json(event.name)},'
            f'"cat":"{category}"{arguments}}},\n'
        )

    def name(self, track: int, name: str, lines: list[str]) -> None:
        """Names the track of a Python goroutine."""
        self.unnamed.discard(track)
        lines.append(self._name_line(_PYTHON, track, f"{name} {track}"))

    def name_known(self, lines: list[str]) -> None:
        """Names the tracks that are not yet, and whose goroutine's name is known."""
        for track in sorted(self.unnamed & self._names.keys()):
            self.name(track, self._names[track], lines)

    def _name_line(self, group: int, track: int, name: str) -> str:
        arguments = f'"args":{{"name":{_json(name)}}}'
        return f'{{"ph":"M","pid":{group},"tid":{track},"name":"thread_name",{arguments}}},\n'

    def close(self, time_ns: int, lines: list[str]) -> None:
        """Ends all that is open, and names what has none."""
        for track in sorted(self.unnamed):
            self.name(track, self._names.get(track, "goroutine"), lines)
        ts = _us(max(time_ns - self._begun_ns, 0))
        for lane, group in _GROUP_OF.items():
            lines.extend(
                f'{{"ph":"E","pid":{group},"tid":{track},"ts":{ts}}},\n'
                for track in sorted(self._open[lane])
            )
            self._open[lane].clear()
        for opened in self._regions.values():
            lines.extend(self._own_line(e._replace(time_ns=time_ns, phase="E")) for e in opened)
            opened.clear()


# ---- the recorder ----


class _Recorder:
    """Collects the events of a run, and writes them.

    Args:
        runtime: the run.
        path: the file.
        flight_ns: how much of the past a file is to have; 0 for all of it, as it happens.
        most_events: how many of them are kept for that.
        max_size: the bytes that a file of all of it may have; 0 for any number.
    """

    def __init__(
        self, runtime: Runtime, path: str, flight_ns: int, most_events: int, max_size: int
    ) -> None:
        self._runtime = runtime
        self._path = path
        self._flight_ns = flight_ns
        self._max_size = max_size
        self._events: deque[Any] = deque(maxlen=most_events if flight_ns else None)
        # All that a hook does with an event.
        self.record: Callable[[Any], object] = self._events.append if flight_ns else self._hold
        self._lock = Mutex()
        self._names: dict[int, str] = {}
        self._services: set[int] = set()
        self._most_names = most_events
        self._lines = _Lines(time.monotonic_ns(), self._names, self._services)
        self._file: BinaryIO | None = None
        self._size = 0
        self._full = False
        self._left_out = 0
        self._dropped = 0
        self._next_look_ns = 0
        self._newest_seen = 0
        self._numbers = itertools.count(1)  # of flights
        self._unused_numbers: list[int] = []

    def add(self, phase: str, name: str, arguments: Mapping[str, object]) -> _Own:
        """What the program marks. Returns the event."""
        text = _json(dict(arguments))
        goroutine = current()
        if goroutine is not None:
            event = _Own(0, phase, _REGIONS, goroutine.id, goroutine.name, str(name), text)
        else:
            thread = threading.current_thread().name
            number = threading.get_native_id()
            event = _Own(0, phase, _THREADS, number, thread, str(name), text)
        event = event._replace(time_ns=time.monotonic_ns())
        self.record(event)
        return event

    # ---- all of it ----

    def open(self) -> None:
        """Begins the file. Raises OSError."""
        self._file = open(self._path, "wb", buffering=0)  # noqa: SIM115
        self._write([*self._lines.head(), self._lines.begin_main(time.monotonic_ns())])

    def _hold(self, event: Any) -> None:
        self._events.append(event)
        # If somebody writes already, that one takes this along.
        if len(self._events) >= _MOST_HELD and self._lock.try_lock():
            try:
                self._flush()
            finally:
                self._lock.unlock()

    def keep_writing(self) -> None:
        """A service goroutine."""
        while True:
            sleep(_FLUSH_S)
            self.look_for_names()
            with self._lock:
                self._flush()

    def _flush(self) -> None:
        """Writes what is held. The lock is the caller's."""
        events = self._events
        batch = [events.popleft() for _ in range(len(events))]
        if not batch:
            return
        if self._file is None or self._full:
            self._left_out += len(batch)
            return
        lines: list[str] = []
        done = 0
        try:
            while done < len(batch) and not self._full:
                piece = batch[done : done + 256]
                self._lines.add(piece, lines)
                done += len(piece)
                size = sum(map(len, lines))
                self._full = bool(self._max_size) and self._size + size >= self._max_size
            self._lines.name_known(lines)
            self._note_dropped(lines)
            if self._full:
                now_ns = time.monotonic_ns()
                self._lines.close(now_ns, lines)
                what = {"max_size": self._max_size}
                lines.append(self._lines.note(now_ns, "max_size is reached", what))
            self._write(lines)
        except BaseException:  # of a signal's handler, perhaps: what is lost is counted
            self._left_out += len(batch)
            raise
        self._left_out += len(batch) - done

    def look_for_names(self, *, now: bool = False) -> None:
        """Of goroutines that have come since the last look. There may be many that have not."""
        now_ns = time.monotonic_ns()
        if now_ns < self._next_look_ns and not now:
            return
        present = goroutines(system=True)
        self._next_look_ns = now_ns + _NAMING_SHARE * _NAMING_NS * len(present)
        newest = seen = self._newest_seen
        for goroutine in present:
            number = goroutine.id
            if number > seen:
                self._names[number] = _name_of(goroutine)
                if goroutine.system:
                    self._services.add(number)
                newest = max(newest, number)
        self._newest_seen = newest
        names = self._names
        for number in list(itertools.islice(names, max(len(names) - self._most_names, 0))):
            names.pop(number, None)

    def _note_dropped(self, text: list[str]) -> None:
        stats = self._runtime.stats()
        dropped = stats["events_dropped"] + stats["native_events_dropped"]
        if dropped > self._dropped:
            what = {"events": dropped - self._dropped}
            self._dropped = dropped
            text.append(self._lines.note(time.monotonic_ns(), "events dropped", what))

    def _write(self, lines: list[str]) -> None:
        data = "".join(lines).encode("ascii")
        assert self._file is not None
        self._size += len(data)
        try:
            _write_all(self._file, data)
        except OSError as exc:
            self._file.close()
            self._file = None
            _say(f"{self._path} can't be written: {exc.strerror}; the trace ends there")

    def close(self) -> None:
        """Writes the rest, at the end of the run."""
        with self._lock:
            self._flush()
            if self._file is None:
                return
            now_ns = time.monotonic_ns()
            lines: list[str] = []
            self._note_dropped(lines)
            self.look_for_names(now=True)
            self._lines.close(now_ns, lines)
            what = {
                "events": self._lines.events,
                "dropped": self._dropped,
                "left_out": self._left_out,
            }
            lines.append(self._lines.note(now_ns, "trace ends", what).rstrip(",\n") + "\n]\n")
            self._write(lines)
            if self._file is not None:
                self._file.close()
                self._file = None
        if self._dropped:
            _say(
                f"{self._dropped} events are missing in {self._path}: they came faster than they "
                "were delivered. A larger [hooks] ring_size holds more of them"
            )
        if self._left_out:
            _say(
                f"{self._left_out} events are missing in {self._path}, which has reached "
                "max_size of [plugins.trace]"
            )

    # ---- the last of it ----

    def write_flight(self, why: str) -> str:
        """Writes what is kept to a new file; its path. See `flight`."""
        if not self._flight_ns:
            raise RuntimeError(
                f'[plugins.trace] mode is "file": all that happens is written to {self._path}. '
                'With mode = "flight" the last seconds can be asked for'
            )
        # Without the lock: a signal's handler may ask for a flight in the midst of another.
        held = self._events.copy()
        now_ns = time.monotonic_ns()
        from_ns = now_ns - self._flight_ns
        events = [event for event in held if event[0] >= from_ns]
        is_short = len(events) == self._events.maxlen
        begun_ns = min((event[0] for event in events), default=now_ns)
        self.look_for_names(now=True)
        lines = _Lines(begun_ns, self._names, self._services)
        text = lines.head()
        lines.add(events, text)
        lines.close(now_ns, text)
        stats = self._runtime.stats()
        what = {
            "why": why,
            "events": lines.events,
            "dropped": stats["events_dropped"] + stats["native_events_dropped"],
            "limited_by_max_events": is_short,
        }
        text.append(lines.note(now_ns, "trace ends", what).rstrip(",\n") + "\n]\n")
        path = self._path
        number = self._unused_numbers.pop() if self._unused_numbers else next(self._numbers)
        if number > 1:
            root, extension = os.path.splitext(path)
            path = f"{root}.{number}{extension}"
        try:
            with open(path, "wb", buffering=0) as file:
                _write_all(file, "".join(text).encode("ascii"))
        except OSError:
            self._unused_numbers.append(number)
            raise
        _say(f"the last {(now_ns - begun_ns) / 1e9:.3f} s are in {path} ({why})")
        return path


def _name_of(goroutine: Goroutine[Any]) -> str:
    """With its labels: those that it has been started with, unless it has begun with others."""
    own = ", ".join(f"{name}={value}" for name, value in goroutine.labels.items())
    return f"{goroutine.name} ({own})" if own else goroutine.name


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _say(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"golibx: trace: {text}\n")
        sys.stderr.flush()


# ---- the plugin ----

_NOT_FOR_CHANNELS = {"SIGKILL", "SIGSTOP", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP"}
_NOT_FOR_CHANNELS |= {"SIGABRT", "SIGSYS"}


def _why_unwritable(path: str) -> str:
    """Nothing is written yet: somebody may only check the configuration."""
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        return "it is a folder"
    if not os.path.isdir(folder):
        return f"there is no folder {folder}"
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        return "no permission"
    return ""


class Plugin:
    """One run's trace."""

    def __init__(self) -> None:
        self._writer: Goroutine[None] | None = None
        self._listener: Goroutine[None] | None = None
        self._by_themselves: list[Goroutine[None]] = []
        self._stop_watching: Callable[[], None] = lambda: None
        self._written_ns = 0
        self._count = 0
        self._skipped = 0

    @hookimpl
    def golib_configure(self, config: Config, runtime: Runtime, name: str) -> None:
        settings = config.plugin(name, KEYS)
        self._runtime = runtime
        self._is_flight: bool = settings.mode == "flight"
        self._flight_ns: int = settings.flight_ns
        self._latency_ns: int = settings.flight_latency_ns
        self._most_files: int = settings.max_files
        table = f"plugins.{name}"
        if not settings.output:
            raise config.error(f"{table}.output", "must not be empty", value="", allowed="a path")
        path = settings.output.replace("{pid}", str(os.getpid()))
        if problem := _why_unwritable(path):
            raise config.error(
                f"{table}.output", f"can't be written: {problem}", value=settings.output
            )
        self._signals: list[int] = []
        self._on_exception = False
        for item in settings.flight_on:
            if item == "exception":
                self._on_exception = True
            elif item in signal.Signals.__members__ and item not in _NOT_FOR_CHANNELS:
                self._signals.append(signal.Signals[item])
            else:
                problem = f'{item} is neither "exception" nor a signal that can be caught'
                key = f"{table}.flight_on"
                raise config.error(key, problem, value=item, allowed='"exception", "SIGUSR2" …')
        for key in ("flight_on", "flight_latency"):
            value = config.plugin_table(name).get(key)
            if value is not None and not self._is_flight:
                problem = 'needs mode = "flight": mode "file" writes all that happens anyway'
                raise config.error(f"{table}.{key}", problem, value=value)
        self._recorder = _Recorder(
            runtime,
            path,
            self._flight_ns if self._is_flight else 0,
            settings.max_events,
            settings.max_size,
        )
        self._record = self._recorder.record

    @hookimpl
    def golib_start(self, runtime: Runtime) -> None:
        global _recorder
        if self._is_flight:
            if self._signals:
                # It imports socket, which other runs do without.
                from golibx.signal import notify

                came: Chan[signal.Signals] = Chan(1)
                notify(came, *self._signals)
                self._listener = runtime.go_system(self._listen, came)
        else:
            self._recorder.open()
            self._writer = runtime.go_system(self._recorder.keep_writing)
        self._recorder.look_for_names(now=True)
        _recorder = self._recorder
        self._stop_watching = labels.watch(_begin_labels, _end_labels)

    @hookimpl
    def golib_stop(self) -> None:
        global _recorder
        _recorder = None
        self._stop_watching()
        for goroutine in (self._writer, self._listener):
            if goroutine is not None:
                goroutine.cancel()
                goroutine.join()
        for goroutine in self._by_themselves:
            goroutine.join()
        if not self._is_flight:
            self._recorder.close()
            return
        exc = sys.exception()  # what has ended the program
        if self._on_exception and isinstance(exc, Exception):
            self._write(f"{type(exc).__name__} ended the program")
        if self._skipped:
            _say(
                f"{self._skipped} more exceptions or long waits have no file of their own: they "
                "came within the time that a file has, or after max_files of them"
            )

    def _listen(self, came: Chan[signal.Signals]) -> None:
        """A service goroutine."""
        for number in came:
            self._write(number.name)

    def _write_by_itself(self, why: str) -> None:
        """Unless the last such file has what led to this one, too."""
        now_ns = time.monotonic_ns()
        is_soon = self._count and now_ns - self._written_ns < self._flight_ns
        if is_soon or self._count == self._most_files:
            self._skipped += 1
            return
        self._count += 1
        self._written_ns = now_ns
        self._by_themselves = [g for g in self._by_themselves if not g.done()]
        self._by_themselves.append(self._runtime.go_system(self._write, why))

    def _write(self, why: str) -> None:
        try:
            self._recorder.write_flight(why)
        except OSError as exc:
            _say(f"{exc.filename} can't be written: {exc.strerror}")

    @hookimpl
    def tune(self, snapshot: Snapshot) -> None:
        """Changes nothing: the counters are wanted."""
        self._record(snapshot)
        latency_ns = snapshot.latency_max_ns
        if self._latency_ns and latency_ns is not None and latency_ns >= self._latency_ns:
            self._write_by_itself(f"a goroutine waited {latency_ns / 1e6:.3f} ms for its turn")

    @hookimpl
    def on_goroutine_create(self, event: GoroutineCreate) -> None:
        self._record(event)
        # Later it may have ended, and nobody knows what it was called.
        self._recorder.look_for_names()

    @hookimpl
    def on_goroutine_start(self, event: GoroutineStart) -> None:
        self._record(event)

    @hookimpl
    def on_goroutine_park(self, event: GoroutinePark) -> None:
        self._record(event)

    @hookimpl
    def on_goroutine_ready(self, event: GoroutineReady) -> None:
        self._record(event)

    @hookimpl
    def on_goroutine_exit(self, event: GoroutineExit) -> None:
        self._record(event)

    @hookimpl
    def on_goroutine_panic(self, event: GoroutinePanic) -> None:
        self._record(event)
        if self._on_exception:
            self._write_by_itself(event.exception.partition("\n")[0])

    @hookimpl
    def on_preempt(self, event: Preempt) -> None:
        self._record(event)

    @hookimpl
    def on_retake(self, event: Retake) -> None:
        self._record(event)

    @hookimpl
    def on_netpoll_ready(self, event: NetpollReady) -> None:
        self._record(event)

    @hookimpl
    def on_steal(self, event: Steal) -> None:
        self._record(event)

    @hookimpl
    def on_deadlock(self, event: DeadlockFound) -> None:
        self._record(event)

    @hookimpl
    def on_gomaxprocs(self, event: GomaxprocsChange) -> None:
        self._record(event)

    @hookimpl
    def on_tune(self, event: Tune) -> None:
        self._record(event)


def _forget() -> None:
    """In the child of a fork: the file is the parent's."""
    global _recorder
    _recorder = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
