"""What the plugin trace writes while a program runs, and the lines of the trace that come of it.

While events happen there is no time to make text of them: a goroutine that passes values on makes
two in a tenth of a microsecond. So a file is first written as it comes, in blocks: the bytes of
whole batches (golibx.eventbatch), and as JSON what is rare. When the run has ended, `convert` makes
lines of it, one for each event of the Trace Event Format. A process that was killed leaves its file
unconverted: `golibx trace` reads that as well, up to the last whole block.

A block is a tag of four letters, the length of its content as four bytes in the machine's order,
and that content; the first one is HEAD. The lines are put together by hand: json would take several
times as long.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from golibx.eventbatch import EVENT_HOOKS, KINDS, LANES, EventBatch
from golibx.hookspec import (
    DeadlockFound,
    GomaxprocsChange,
    GoroutineExit,
    GoroutinePanic,
    NetpollReady,
    Snapshot,
    Steal,
    Tune,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import BinaryIO

__all__ = [
    "MAGIC",
    "REGIONS",
    "THREADS",
    "Counters",
    "Lines",
    "Own",
    "about",
    "blocks_of",
    "convert",
    "end_block",
    "head_block",
    "lines_of",
    "names_block",
    "note_block",
    "reasons_block",
    "to_json",
]

MAGIC = b"golibx trace, not converted yet\n"
"""What a file begins with while it is written, or if its process was killed."""
_BLOCK = struct.Struct("=4sI")
_COUNT = struct.Struct("=I")
_HEAD, _REASONS, _NAMES, _EVENTS, _OWN, _COUNTED, _NOTE, _END = (
    b"HEAD",
    b"WHYS",
    b"NAME",
    b"EVNT",
    b"MARK",
    b"SNAP",
    b"NOTE",
    b"ENDS",
)
_LONGEST_BLOCK = 1 << 30
_PIECE = 256
"""Events, after each of which it is looked at how large the file has become."""
_MOST_NAMES = 100_000

PYTHON, NATIVE, SCHEDULER, REGIONS, THREADS = 1, 2, 3, 4, 5
"""The "processes" of the file, which are groups of tracks."""
_GROUPS = (
    (PYTHON, "Python goroutines"),
    (NATIVE, "native goroutines"),
    (SCHEDULER, "scheduler"),
    (REGIONS, "regions of goroutines"),
    (THREADS, "regions of threads"),
)
_CHANGES, _COUNTERS, _OF_THE_FILE = 0, 1, 2
"""The scheduler's tracks. Events come later than what is counted or noted: one would not do."""
_GROUP_OF = {"python": PYTHON, "native": NATIVE}
_GROUPS_OF_LANES = tuple(_GROUP_OF[lane] for lane in LANES)


class Own(NamedTuple):
    """A region's begin or end, or a mark. `time_ns` is first, as in all events."""

    time_ns: int
    phase: str
    group: int
    track: int
    track_name: str
    name: str
    arguments: str
    number: int
    """The same for the begin and the end of a region."""


class Counters(NamedTuple):
    """What the scheduler counts, at some time."""

    time_ns: int
    values: dict[str, float]

    @classmethod
    def of(cls, snapshot: Snapshot) -> Counters:
        """Those that a trace has curves of."""
        values: dict[str, float] = {
            "goroutines": snapshot.goroutines,
            "runnable": snapshot.runnable,
            "threads": snapshot.threads,
            "threads blocked": snapshot.threads_blocked,
        }
        if snapshot.latency_p99_ns is not None and snapshot.latency_max_ns is not None:
            values["latency p99 (us)"] = snapshot.latency_p99_ns / 1000
            values["latency max (us)"] = snapshot.latency_max_ns / 1000
        return cls(snapshot.time_ns, values)


def to_json(value: object) -> str:
    """As JSON, in ASCII; by repr() what JSON does not have."""
    try:
        return json.dumps(value, default=repr, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError):
        if isinstance(value, dict):
            return json.dumps({str(key): repr(each) for key, each in value.items()})
        return json.dumps(repr(value))


def about(begun_ns: int) -> dict[str, Any]:
    """What the first event of a file says if the file's time begins then."""
    return {
        "process": os.getpid(),
        "program": sys.argv[0] if sys.argv else "",
        "python": sys.version.partition(" ")[0],
        "unix_ns": time.time_ns() - (time.monotonic_ns() - begun_ns),
        "monotonic_ns": begun_ns,
    }


# ---- blocks ----


def _block(tag: bytes, content: bytes) -> bytes:
    return _BLOCK.pack(tag, len(content)) + content


def _json_block(tag: bytes, value: object) -> bytes:
    return _block(tag, json.dumps(value, separators=(",", ":")).encode("ascii"))


def head_block(begun_ns: int, main_ns: int) -> bytes:
    """The first one: when the file begins, and when the main goroutine did in it."""
    return _json_block(_HEAD, {"about": about(begun_ns), "main_ns": main_ns})


def reasons_block(reasons: Sequence[str]) -> bytes:
    """Before the first batch: what the numbers mean that those have for reasons."""
    return _json_block(_REASONS, reasons)


def names_block(names: Mapping[int, str], services: Iterable[int]) -> bytes:
    """What goroutines are called, and which of them are service goroutines."""
    return _json_block(_NAMES, [[*names.items()], [*services]])


def note_block(time_ns: int, name: str, arguments: dict[str, Any]) -> bytes:
    """An instant on the file's own track."""
    return _json_block(_NOTE, [time_ns, name, arguments])


def end_block(time_ns: int, dropped: int, left_out: int) -> bytes:
    """The last one."""
    what = {"time_ns": time_ns, "dropped": dropped, "left_out": left_out}
    return _json_block(_END, what)


def blocks_of(items: Iterable[EventBatch | Own | Counters]) -> Iterator[bytes]:
    """Of what has been collected, in its order; some come in two parts."""
    own: list[Own] = []
    for item in items:
        if isinstance(item, Own):
            own.append(item)
            continue
        if own:
            yield _json_block(_OWN, own)
            own = []
        if isinstance(item, Counters):
            yield _json_block(_COUNTED, item)
        else:
            objects = json.dumps(item.objects).encode("ascii") if item.objects else b""
            length = _COUNT.size + len(objects) + len(item.data)
            # Not as one: that would copy it.
            yield _BLOCK.pack(_EVENTS, length) + _COUNT.pack(len(objects)) + objects
            yield item.data
    if own:
        yield _json_block(_OWN, own)


def _blocks_in(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """All that are whole. Raises ValueError for what is none."""
    while len(head := file.read(_BLOCK.size)) == _BLOCK.size:
        tag, length = _BLOCK.unpack(head)
        if length > _LONGEST_BLOCK:
            raise ValueError(f"a block of {length} bytes")
        content = file.read(length)
        if len(content) < length:
            return
        yield tag, content


# ---- lines ----

_RUNNABLE = '"name":"ready or running","cat":"runnable","args":{'
_PARK, _READY = KINDS["on_goroutine_park"], KINDS["on_goroutine_ready"]
_CREATE, _START = KINDS["on_goroutine_create"], KINDS["on_goroutine_start"]
_PREEMPT, _RETAKE = KINDS["on_preempt"], KINDS["on_retake"]
_STRETCHES = {_CREATE, _START, _PARK, _READY, _PREEMPT, _RETAKE}
"""The kinds after which a goroutine does something else."""
_WITH_OBJECT = {KINDS["on_goroutine_panic"], KINDS["on_tune"]}


def _stretch(kind: int, a: int, b: int) -> str:
    """What a goroutine does after an event, but for park and ready."""
    if kind == _CREATE:
        return f'"name":"ready","cat":"ready","args":{{"after":"create","by":{a}}}'
    if kind == _START:
        return f'"name":"running","cat":"run","args":{{"after":"start","by":{a}}}'
    if kind == _PREEMPT:
        ran = f'"ran_us":{_us(a)},"handed_off":{_bool(b)}'
        return f'{_RUNNABLE}"after":"preempt",{ran}}}'
    return (
        '"name":"blocking call or after it","cat":"call","args":{"after":"retake",'
        f'"blocked_us":{_us(a)},"in_vain":{_bool(b)}}}'
    )


def _us(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03d}"


def _bool(value: int) -> str:
    return "true" if value else "false"


class Lines:
    """Makes lines of events, and knows what is open on each track.

    Args:
        begun_ns: where the file's time begins. Events before that are moved there.
        names: what Python goroutines are called, as far as that is known.
        services: the service goroutines, of which only some events are reported.
    """

    def __init__(self, begun_ns: int, names: dict[int, str], services: set[int]) -> None:
        self._names = names
        self._services = services
        self._begun_ns = begun_ns
        self._waits: list[str] = []
        self._open: tuple[set[int], set[int]] = (set(), set())  # by the lane
        self._regions: dict[tuple[int, int], list[Own]] = {}
        self._named_services: set[int] = set()
        self.unnamed: set[int] = set()
        self.events = 0

    def head(self, said: dict[str, Any]) -> list[str]:
        """The first lines; `said` is what `about` has said when the file was begun."""
        lines = ["[\n"]
        for group, name in _GROUPS:
            arguments = f'"args":{{"name":"{name}"}}'
            lines.append(f'{{"ph":"M","pid":{group},"tid":0,"name":"process_name",{arguments}}},\n')
        for track, name in ((_CHANGES, "changes"), (_OF_THE_FILE, "this file")):
            lines.append(self._name_line(SCHEDULER, track, name))
        lines.append(self.note(self._begun_ns, "trace begins", said))
        return lines

    def begin_main(self, time_ns: int) -> str:
        """Python's main goroutine: its start is not reported."""
        ts = _us(max(time_ns - self._begun_ns, 0))
        self._open[0].add(1)
        arguments = '"args":{"after":"start","by":0}'
        return (
            self._name_line(PYTHON, 1, "main 1")
            + f'{{"ph":"B","pid":1,"tid":1,"ts":{ts},"name":"running","cat":"run",{arguments}}},\n'
        )

    def note(
        self, time_ns: int, name: str, arguments: dict[str, Any], track: int = _OF_THE_FILE
    ) -> str:
        """An instant of one of the scheduler's tracks."""
        ts = _us(max(time_ns - self._begun_ns, 0))
        return (
            f'{{"ph":"i","s":"g","pid":{SCHEDULER},"tid":{track},"ts":{ts},"name":"{name}",'
            f'"args":{to_json(arguments)}}},\n'
        )

    def know(self, reasons: Iterable[str]) -> None:
        """Why goroutines wait, by the number that batches have for it."""
        self._waits = [f'"name":{json.dumps(reason)},"cat":"wait"' for reason in reasons]

    def add(self, item: EventBatch | Own | Counters, lines: list[str]) -> None:
        """Appends the lines of it."""
        if isinstance(item, EventBatch):
            self.add_batch(item.data, item.objects, lines)
            return
        self.events += 1
        if isinstance(item, Own):
            self._add_own(item, lines)
        else:
            lines.extend(self._counters(item))

    def add_batch(self, data: bytes, objects: Sequence[Any], lines: list[str]) -> None:
        """Appends the lines of a batch's events."""
        append = lines.append
        begun_ns = self._begun_ns
        waits, opened_of, services = self._waits, self._open, self._services
        count = 0
        for time_ns, track, a, b, kind, lane in EventBatch.RECORD.iter_unpack(data):
            count += 1
            if kind == _PARK:  # it and the next one are most of all
                what = waits[b]
            elif kind == _READY:
                what = f'{_RUNNABLE}"after":"wake","by":{a}}}'
            elif kind in _STRETCHES:
                what = _stretch(kind, a, b)
            else:
                value = objects[b] if kind in _WITH_OBJECT else b
                self._add_other(EVENT_HOOKS[kind][1](time_ns, LANES[lane], track, a, value), lines)
                continue
            passed = time_ns - begun_ns if time_ns > begun_ns else 0
            where = f'"pid":{lane + 1},"tid":{track},"ts":{passed // 1000}.{passed % 1000:03d}'
            opened = opened_of[lane]
            if track in opened:
                append(f'{{"ph":"E",{where}}},\n{{"ph":"B",{where},{what}}},\n')
            elif lane == 0 and track in services:
                self._add_of_service(kind, where, track, what, lines)
            else:
                opened.add(track)
                self._begin_track(kind, lane, track, where, lines)
                append(f'{{"ph":"B",{where},{what}}},\n')
        self.events += count

    def _begin_track(self, kind: int, lane: int, track: int, where: str, lines: list[str]) -> None:
        if lane == 0:
            self.unnamed.add(track)
        else:
            lines.append(self._name_line(NATIVE, track, f"goroutine {track}"))
        if kind == _READY:  # it began to wait before the file
            before = f'"pid":{_GROUPS_OF_LANES[lane]},"tid":{track},"ts":0.000'
            lines.append(
                f'{{"ph":"B",{before},"name":"a wait that began before","cat":"wait"}},\n'
                f'{{"ph":"E",{where}}},\n'
            )

    def _add_of_service(
        self, kind: int, where: str, track: int, what: str, lines: list[str]
    ) -> None:
        """As an instant: when it does something else again is not reported."""
        if track not in self._named_services:
            self._named_services.add(track)
            self.name(track, f"(service) {self._names.get(track, 'service')}", lines)
        name = "preempted" if kind == _PREEMPT else "retaken"
        arguments = to_json(json.loads(f"{{{what}}}")["args"])
        lines.append(f'{{"ph":"i","s":"t",{where},"name":"{name}","args":{arguments}}},\n')

    def _add_other(self, event: Any, lines: list[str]) -> None:
        kind = event.__class__
        if kind is GoroutineExit:
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
            f'"ts":{ts},"name":"{name}","args":{to_json(arguments)}}},\n'
        )

    def _add_exit(self, event: GoroutineExit, lines: list[str]) -> None:
        track = event.goroutine_id
        lane = LANES.index(event.lane)
        if lane == 0 and track in self.unnamed:
            self.name(track, self._names.get(track, "goroutine"), lines)
        opened = self._open[lane]
        if track in opened:
            opened.remove(track)
            ts = _us(max(event.time_ns - self._begun_ns, 0))
            lines.append(f'{{"ph":"E","pid":{_GROUPS_OF_LANES[lane]},"tid":{track},"ts":{ts}}},\n')
        what = {"outcome": event.outcome, "lifetime_us": event.lifetime_ns / 1000}
        lines.append(self._instant(event, "exit", what))

    def _counters(self, counters: Counters) -> Iterable[str]:
        ts = _us(max(counters.time_ns - self._begun_ns, 0))
        for name, value in counters.values.items():
            yield (
                f'{{"ph":"C","pid":{SCHEDULER},"tid":{_COUNTERS},"ts":{ts},"name":"{name}",'
                f'"args":{{"value":{value}}}}},\n'
            )

    def _add_own(self, event: Own, lines: list[str]) -> None:
        key = (event.group, event.track)
        opened = self._regions.get(key)
        if opened is None:
            opened = self._regions[key] = []
            lines.append(self._name_line(*key, f"{event.track_name} {event.track}"))
        if event.group == REGIONS and event.track in self.unnamed:
            self.name(event.track, event.track_name, lines)
        if event.phase == "B":
            opened.append(event)
            lines.append(self._own_line(event))
        elif event.phase == "i":
            lines.append(self._own_line(event))
        else:
            self._end_region(opened, event, lines)

    def _end_region(self, opened: list[Own], event: Own, lines: list[str]) -> None:
        """The last one, unless generators have their ends in another order than nesting has."""
        own = (each for each in reversed(opened) if each.number == event.number)
        began = next(own, None)
        if began is None:  # before the file began
            return
        above = opened[opened.index(began) + 1 :]
        ends = [each._replace(time_ns=event.time_ns, phase="E") for each in (began, *above)]
        lines.extend(self._own_line(each) for each in reversed(ends))
        lines.extend(self._own_line(each._replace(time_ns=event.time_ns)) for each in above)
        opened.remove(began)

    def _own_line(self, event: Own) -> str:
        ts = _us(max(event.time_ns - self._begun_ns, 0))
        where = f'"pid":{event.group},"tid":{event.track},"ts":{ts}'
        if event.phase == "E":
            return f'{{"ph":"E",{where}}},\n'
        scope = '"s":"t",' if event.phase == "i" else ""
        arguments = f',"args":{event.arguments}' if event.arguments != "{}" else ""
        category = "mark" if event.phase == "i" else "region"
        return (
            f'{{"ph":"{event.phase}",{scope}{where},"name":{to_json(event.name)},'
            f'"cat":"{category}"{arguments}}},\n'
        )

    def name(self, track: int, name: str, lines: list[str]) -> None:
        """Names the track of a Python goroutine."""
        self.unnamed.discard(track)
        lines.append(self._name_line(PYTHON, track, f"{name} {track}"))

    def name_known(self, lines: list[str]) -> None:
        """Names the tracks that have no name yet, if the name of their goroutine is known."""
        for track in sorted(self.unnamed & self._names.keys()):
            self.name(track, self._names[track], lines)

    def _name_line(self, group: int, track: int, name: str) -> str:
        arguments = f'"args":{{"name":{to_json(name)}}}'
        return f'{{"ph":"M","pid":{group},"tid":{track},"name":"thread_name",{arguments}}},\n'

    def close(self, time_ns: int, lines: list[str]) -> None:
        """Ends all that is open, and names what has none."""
        for track in sorted(self.unnamed):
            self.name(track, self._names.get(track, "goroutine"), lines)
        ts = _us(max(time_ns - self._begun_ns, 0))
        for group, opened in zip(_GROUPS_OF_LANES, self._open, strict=True):
            lines.extend(
                f'{{"ph":"E","pid":{group},"tid":{track},"ts":{ts}}},\n' for track in sorted(opened)
            )
            opened.clear()
        for regions in self._regions.values():
            lines.extend(self._own_line(e._replace(time_ns=time_ns, phase="E")) for e in regions)
            regions.clear()

    def end(self, time_ns: int, what: dict[str, Any]) -> str:
        """The last line."""
        return self.note(time_ns, "trace ends", what).rstrip(",\n") + "\n]\n"


# ---- from blocks to lines ----


class _Conversion:
    """Of one file."""

    def __init__(self, head: dict[str, Any], max_size: int) -> None:
        begun_ns = head["about"]["monotonic_ns"]
        self._names: dict[int, str] = {}
        self._services: set[int] = set()
        self._lines = Lines(begun_ns, self._names, self._services)
        self._max_size = max_size
        self._size = 0
        self._is_full = False
        self._newest_ns = begun_ns
        self._head = head
        self.left_out = 0

    def begin(self) -> list[str]:
        main = self._lines.begin_main(self._head["main_ns"])
        return self._counted([*self._lines.head(self._head["about"]), main])

    def _counted(self, lines: list[str]) -> list[str]:
        self._size += sum(map(len, lines))
        return lines

    def take(self, tag: bytes, content: bytes) -> Iterator[list[str]]:
        """The lines of a block. Raises ValueError or the like if it is none of these."""
        if tag == _EVENTS:
            (length,) = _COUNT.unpack_from(content)
            begin = _COUNT.size + length
            objects = json.loads(content[_COUNT.size : begin]) if length else ()
            step = _PIECE * EventBatch.RECORD.size
            for at in range(begin, len(content), step):
                data = content[at : at + step]
                yield self._events(data, objects)
            yield self._name_known()
        elif tag == _REASONS:
            self._lines.know(json.loads(content))
        elif tag == _END:
            yield self._end(json.loads(content))
        elif tag == _NAMES:
            names, services = json.loads(content)
            self._names.update(names)
            self._services.update(services)
            yield self._name_known()
        elif tag == _NOTE:
            if not self._is_full:
                yield self._counted([self._lines.note(*json.loads(content))])
        elif tag == _OWN:
            for each in json.loads(content):
                yield self._item(Own(*each))
        elif tag == _COUNTED:
            yield self._item(Counters(*json.loads(content)))
        else:
            raise ValueError(f"a block {tag!r}")

    def _name_known(self) -> list[str]:
        lines: list[str] = []
        if not self._is_full:
            self._lines.name_known(lines)
        for number in list(islice(self._names, max(len(self._names) - _MOST_NAMES, 0))):
            del self._names[number]
        return self._counted(lines)

    def _events(self, data: bytes, objects: Sequence[Any]) -> list[str]:
        lines: list[str] = []
        if self._is_full:
            self.left_out += len(data) // EventBatch.RECORD.size
            return lines
        self._lines.add_batch(data, objects, lines)
        self._newest_ns = EventBatch.RECORD.unpack(data[-EventBatch.RECORD.size :])[0]
        return self._close_if_full(self._counted(lines))

    def _item(self, item: Own | Counters) -> list[str]:
        lines: list[str] = []
        if self._is_full:
            self.left_out += 1
            return lines
        self._lines.add(item, lines)
        self._newest_ns = max(self._newest_ns, item.time_ns)
        return self._close_if_full(self._counted(lines))

    def _close_if_full(self, lines: list[str]) -> list[str]:
        if self._max_size and self._size >= self._max_size:
            self._is_full = True
            self._lines.close(self._newest_ns, lines)
            what = {"max_size": self._max_size}
            lines.append(self._lines.note(self._newest_ns, "max_size is reached", what))
        return lines

    def _end(self, ending: dict[str, Any]) -> list[str]:
        lines: list[str] = []
        self.left_out += ending["left_out"]
        self._lines.close(ending["time_ns"], lines)
        what = {
            "events": self._lines.events,
            "dropped": ending["dropped"],
            "left_out": self.left_out,
        }
        lines.append(self._lines.end(ending["time_ns"], what))
        return lines


def _lines(file: BinaryIO, max_size: int) -> Iterator[tuple[_Conversion, list[str]]]:
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("no trace that is not converted yet")
    blocks = _blocks_in(file)
    tag, content = next(blocks, (b"", b""))
    if tag != _HEAD:
        raise ValueError("it has no beginning")
    conversion = _Conversion(json.loads(content), max_size)
    yield conversion, conversion.begin()
    for tag, content in blocks:
        for lines in conversion.take(tag, content):
            yield conversion, lines


def lines_of(file: BinaryIO) -> Iterator[list[str]]:
    """The lines of a file that is not converted yet, some hundreds at a time.

    The last one is "]" if the file has its end.

    Raises:
        ValueError, KeyError, TypeError, IndexError, struct.error: it is no such file.
        OSError: it can't be read.
    """
    for _, lines in _lines(file, 0):
        yield lines


def convert(file: BinaryIO, out: BinaryIO, max_size: int = 0) -> int:
    """Writes the lines of such a file, and returns how many events are missing in them.

    Args:
        file: at its beginning.
        out: what takes the lines.
        max_size: how many bytes they may have, about; what follows is left out. 0: any number.

    Raises:
        OSError: of either; and as lines_of().
    """
    left_out = 0
    for conversion, lines in _lines(file, max_size):
        out.write("".join(lines).encode("ascii"))
        left_out = conversion.left_out
    return left_out
