"""What `golibx trace FILE` tells of a file that the plugin trace has written, and its picture.

The file is read in pieces, and what is kept of it does not grow with its length, but with the
number of goroutines: a few numbers for each. The picture takes a second reading, once it is known
which goroutines were the busiest.

Only what the events say is told. They do not say when a goroutine that was woken or preempted ran
again, so a stretch "ready or running" is not divided; how long goroutines wait for their turn is
known of their first turn, and from the counters that the scheduler itself measures.
"""

from __future__ import annotations

import json
import struct
from heapq import heappush, heappushpop
from typing import TYPE_CHECKING, Any, NamedTuple

from golibx import tracelines
from golibx.tracelines import MAGIC, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["Summary", "TraceFileError", "convert", "picture", "summary", "text"]

_PIECE = 1 << 18
"""Bytes that are read at once."""
_MOST_LISTED = 10
_PYTHON, _NATIVE, _SCHEDULER = 1, 2, 3
_LANES = {_PYTHON: "python", _NATIVE: "native"}

Track = tuple[int, int]
"""The group ("process") and the number in it."""


class TraceFileError(Exception):
    """The file can't be read, or is none of the plugin's; the text says why, and what to do."""


class _Stretch(NamedTuple):
    """Of a track; times in microseconds, as everywhere in the file."""

    length: float
    ts: float
    track: Track
    name: str


class _Totals:
    """Of things of one name."""

    __slots__ = ("count", "longest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.longest = 0.0

    def add(self, length: float) -> None:
        self.count += 1
        self.total += length
        self.longest = max(self.longest, length)

    def shown(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "total_us": round(self.total, 3),
            "longest_us": round(self.longest, 3),
        }


class _Longest:
    """The longest stretches of many."""

    def __init__(self) -> None:
        self._heap: list[_Stretch] = []

    def add(self, stretch: _Stretch) -> None:
        if len(self._heap) < _MOST_LISTED:
            heappush(self._heap, stretch)
        elif stretch.length > self._heap[0].length:
            heappushpop(self._heap, stretch)

    def __iter__(self) -> Iterator[_Stretch]:
        return iter(sorted(self._heap, reverse=True))


class Summary:
    """What a file says.

    Attributes:
        is_whole: whether it has its end; not of a process that was killed, or goes on.
        events: its lines but for names of tracks.
        end_us: the time of its last event; it begins at 0.
        about: what its first event says.
        ending: what its last event says; empty if it has none.
        instants: how many there are of each name.
        tracks: the goroutines.
        waits, regions: by reason or name.
    """

    def __init__(self) -> None:
        self.is_whole = False
        self.events = 0
        self.end_us = 0.0
        self.about: dict[str, Any] = {}
        self.ending: dict[str, Any] = {}
        self.dropped = 0
        self.instants: dict[str, int] = {}
        self.names: dict[Track, str] = {}
        self.tracks: set[Track] = set()
        self.waits: dict[str, _Totals] = {}
        self.longest_waits = _Longest()
        self.preempts: dict[Track, _Totals] = {}
        self.calls: dict[Track, _Totals] = {}
        self.calls_in_vain = 0
        self.regions: dict[str, _Totals] = {}
        self.first_turns: dict[int, int] = {}
        self.latency_max_us = 0.0
        self.latency_p99_us = 0.0
        self._open: dict[Track, list[tuple[float, str, str]]] = {}

    def add(self, events: list[dict[str, Any]]) -> None:
        """Takes these along."""
        opened = self._open
        self.events += len(events)
        for event in events:
            phase = event["ph"]
            if phase == "B":
                track = (event["pid"], event["tid"])
                began = (event["ts"], event["name"], event["cat"])
                stack = opened.get(track)
                if stack is None:
                    opened[track] = [began]
                    if track[0] <= _NATIVE:
                        self.tracks.add(track)
                else:
                    stack.append(began)
                if "args" in event and began[2] in ("runnable", "call"):
                    self._told(track, event["args"])
            elif phase == "E":
                track = (event["pid"], event["tid"])
                stack = opened.get(track)
                if stack:
                    self._ended(track, *stack.pop(), event["ts"])
            elif phase == "M":
                self.events -= 1
                self.names[event["pid"], event["tid"]] = event["args"]["name"]
                continue
            else:
                self._other(phase, event)
        if events:
            self.end_us = max(self.end_us, events[-1].get("ts", 0.0))

    def end(self) -> None:
        """What has not ended did last until the end of the file."""
        for track, stack in self._open.items():
            for began, name, kind in stack:
                if kind != "ready":
                    self._ended(track, began, name, kind, self.end_us)

    def _told(self, track: Track, arguments: dict[str, Any]) -> None:
        """What the event says that has begun a stretch, of what was before it."""
        if "ran_us" in arguments:
            self.preempts.setdefault(track, _Totals()).add(arguments["ran_us"])
        elif "blocked_us" in arguments:
            self.calls.setdefault(track, _Totals()).add(arguments["blocked_us"])
            self.calls_in_vain += arguments["in_vain"]

    def _ended(self, track: Track, began: float, name: str, kind: str, ended: float) -> None:
        length = ended - began
        if kind == "wait":
            totals = self.waits.get(name)
            if totals is None:
                totals = self.waits[name] = _Totals()
            totals.add(length)
            self.longest_waits.add(_Stretch(length, began, track, name))
        elif kind == "ready":
            bound = int(length).bit_length()
            self.first_turns[bound] = self.first_turns.get(bound, 0) + 1
        elif kind == "region":
            self.regions.setdefault(name, _Totals()).add(length)

    def _other(self, phase: str, event: dict[str, Any]) -> None:
        name = event["name"]
        if phase == "C":
            value = event["args"]["value"]
            if name == "latency max (us)":
                self.latency_max_us = max(self.latency_max_us, value)
            elif name == "latency p99 (us)":
                self.latency_p99_us = max(self.latency_p99_us, value)
            return
        if event["pid"] == _SCHEDULER:
            if name == "trace begins":
                self.about = event["args"]
            elif name == "trace ends":
                self.ending = event["args"]
            elif name == "events dropped":
                self.dropped += event["args"]["events"]
        elif name in ("preempted", "retaken"):  # service goroutines
            self._told((event["pid"], event["tid"]), event["args"])
        self.instants[name] = self.instants.get(name, 0) + 1

    def name(self, track: Track) -> str:
        """What a goroutine's track is called."""
        default = f"goroutine {track[1]}"
        name = self.names.get(track, default)
        return f"native {name}" if track[0] == _NATIVE else name

    def hogs(self) -> list[tuple[Track, _Totals]]:
        """The goroutines that used up their time slices, the one with the longest run first."""
        return _longest_first(self.preempts)

    def shown(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "whole": self.is_whole,
            "duration_us": self.end_us,
            "events": self.events,
            "goroutines": {
                lane: sum(track[0] == group for track in self.tracks)
                for group, lane in _LANES.items()
            },
            "about": self.about,
            "ending": self.ending,
            "dropped": self.ending.get("dropped", self.dropped),
            "left_out": self.ending.get("left_out", 0),
            "instants": self.instants,
            "preemptions": sum(each.count for each in self.preempts.values()),
            "retakes": sum(each.count for each in self.calls.values()),
            "retakes_in_vain": self.calls_in_vain,
            "waits": {name: each.shown() for name, each in self.waits.items()},
            "longest_waits": [
                {
                    "goroutine": self.name(each.track),
                    "reason": each.name,
                    "at_us": each.ts,
                    "waited_us": round(each.length, 3),
                }
                for each in self.longest_waits
            ],
            "hogs": [
                {"goroutine": self.name(track), **each.shown()} for track, each in self.hogs()
            ],
            "blocked_calls": [
                {"goroutine": self.name(track), **each.shown()}
                for track, each in _longest_first(self.calls)
            ],
            "first_turn_us": {
                str(1 << bound): count for bound, count in sorted(self.first_turns.items())
            },
            "latency_p99_us": self.latency_p99_us or None,
            "latency_max_us": self.latency_max_us or None,
            "regions": {name: each.shown() for name, each in self.regions.items()},
        }


def _longest_first(totals: dict[Track, _Totals]) -> list[tuple[Track, _Totals]]:
    return sorted(totals.items(), key=lambda item: (-item[1].longest, item[0]))[:_MOST_LISTED]


# ---- reading ----


_NOT_ONE = "no file of the plugin trace (`golibx run --set plugins.enabled=trace` writes one)"


def summary(path: str) -> Summary:
    """Reads a file. Raises TraceFileError."""
    found = Summary()
    for first, lines, events in _pieces(path, found):
        try:
            found.add(events)
        except (AttributeError, KeyError, TypeError):
            raise _wrong_line(path, first, lines) from None
    found.end()
    if not found.about:
        raise TraceFileError(f"{path}: {_NOT_ONE}: it does not say when it begins")
    return found


def _pieces(
    path: str, found: Summary | None = None
) -> Iterator[tuple[int, list[bytes], list[dict[str, Any]]]]:
    """Some thousands of events at once: the number of their first line, their lines, the events."""
    first = 2
    try:
        with open(path, "rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                file.seek(0)
                yield from _unconverted(path, file, found)
                return
            file.seek(0)
            if file.readline() != b"[\n":
                raise TraceFileError(f"{path}:1: {_NOT_ONE}: its first line is not [")
            while lines := file.readlines(_PIECE):
                count = len(lines)
                if lines[-1] == b"]\n":
                    lines.pop()
                    if found is not None:
                        found.is_whole = True
                elif not lines[-1].endswith(b"\n"):
                    lines.pop()  # cut off in the midst of it
                try:
                    events = json.loads(b"[" + b"".join(lines).rstrip(b",\n") + b"]")
                except ValueError:
                    raise _wrong_line(path, first, lines) from None
                yield first, lines, events
                first += count
    except OSError as exc:
        raise TraceFileError(f"{path}: can't be read: {exc.strerror}") from None


def _unconverted(
    path: str, file: BinaryIO, found: Summary | None
) -> Iterator[tuple[int, list[bytes], list[dict[str, Any]]]]:
    """As _pieces(), of one whose process was killed, or writes it still."""
    first = 2
    try:
        for number, lines in enumerate(lines_of(file)):
            text = "".join(lines if number else lines[1:])
            if text.endswith("\n]\n"):
                text = text.removesuffix("]\n")
                if found is not None:
                    found.is_whole = True
            yield first, [], json.loads("[" + text.rstrip(",\n") + "]")
            first += text.count("\n")
    except (ValueError, KeyError, TypeError, IndexError, struct.error) as exc:
        raise TraceFileError(f"{path}: {_NOT_ONE}: {exc}") from None


def convert(path: str, new_path: str) -> None:
    """Makes of a file whose process was killed one that viewers read. Raises TraceFileError."""
    try:
        with open(path, "rb") as file, open(new_path, "wb") as out:
            tracelines.convert(file, out)
    except OSError as exc:
        raise TraceFileError(f"{exc.filename or new_path}: {exc.strerror}") from None
    except (ValueError, KeyError, TypeError, IndexError, struct.error) as exc:
        raise TraceFileError(f"{path}: not a file that is to be converted: {exc}") from None


def _wrong_line(path: str, first: int, lines: list[bytes]) -> TraceFileError:
    for number, line in enumerate(lines, first):
        try:
            event = json.loads(line.rstrip(b",\n"))
        except ValueError:
            event = None
        if not _is_event(event):
            shown = line[:60].decode(errors="replace").strip()
            return TraceFileError(f"{path}:{number}: not an event of the plugin trace: {shown!r}")
    return TraceFileError(f"{path}:{first}: no events of the plugin trace")


_FIELDS = {
    "B": ({"pid", "tid", "ts", "name", "cat"}, set[str]()),
    "E": ({"pid", "tid", "ts"}, set[str]()),
    "M": ({"pid", "tid", "args"}, {"name"}),
    "i": ({"pid", "tid", "ts", "name"}, set[str]()),
    "C": ({"pid", "tid", "ts", "name", "args"}, {"value"}),
}


def _is_event(event: Any) -> bool:
    try:
        fields, arguments = _FIELDS[event["ph"]]
        return event.keys() >= fields and (not arguments or bool(event["args"].keys() >= arguments))
    except (AttributeError, KeyError, TypeError):
        return False


# ---- the text ----


def text(found: Summary) -> str:
    """The summary, for people."""
    shown = found.shown()
    native = shown["goroutines"]["native"]
    lines = [
        f"duration    {_time(found.end_us)}",
        f"goroutines  {shown['goroutines']['python']}" + (f", {native} native" if native else ""),
        f"events      {found.events}",
        f"preemptions {shown['preemptions']}",
        f"retakes     {shown['retakes']} ({shown['retakes_in_vain']} in vain)",
    ]
    if found.latency_max_us:
        lines.append(
            f"latency     p99 {_time(found.latency_p99_us)}, "
            f"longest {_time(found.latency_max_us)}: of the worst look"
        )
    names = ("deadlock", "panic", "tune", "gomaxprocs", "socket ready", "stolen")
    instants = [name for name in names if name in found.instants]
    lines += [f"{name:<11} {found.instants[name]}" for name in instants]
    if shown["dropped"] or shown["left_out"]:
        lines.append(
            f"missing     {shown['dropped']} events dropped, {shown['left_out']} beyond max_size"
        )
    if not found.is_whole:
        lines.append("The file has no end: its process was killed, or goes on.")
    sections: list[tuple[str, list[tuple[str, ...]]]] = [
        ("Waits by reason", _totals_rows("reason", shown["waits"])),
        ("Longest waits", _rows(shown["longest_waits"], "waited_us", "reason", "at_us")),
        (
            "Ran longest without giving way",
            _rows(shown["hogs"], "longest_us", "total_us", "count"),
        ),
        ("Blocked calls", _rows(shown["blocked_calls"], "longest_us", "total_us", "count")),
        ("Waits for the first turn", _histogram(shown["first_turn_us"])),
        ("Regions", _totals_rows("region", shown["regions"])),
    ]
    for headline, rows in sections:
        if len(rows) > 1:
            lines += ["", headline, *_aligned(rows)]
    return "\n".join(lines) + "\n"


def _time(us: float) -> str:
    for scale, unit in ((1e6, "s"), (1e3, "ms")):
        if us >= scale:
            return f"{us / scale:.3f}{unit}"
    return f"{us:.1f}us"


def _totals_rows(what: str, totals: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    ordered = sorted(totals.items(), key=lambda item: (-item[1]["longest_us"], item[0]))
    rows: list[tuple[str, ...]] = [(what, "longest", "total", "count")]
    for name, each in ordered[:_MOST_LISTED]:
        longest, total = _time(each["longest_us"]), _time(each["total_us"])
        rows.append((name, longest, total, str(each["count"])))
    if len(ordered) > _MOST_LISTED:
        rows.append((f"and {len(ordered) - _MOST_LISTED} more", "", "", ""))
    return rows


def _rows(each: list[dict[str, Any]], *keys: str) -> list[tuple[str, ...]]:
    rows = [("goroutine", *(key.removesuffix("_us") for key in keys))]
    for item in each:
        values = (_time(item[k]) if k.endswith("_us") else str(item[k]) for k in keys)
        rows += [(item["goroutine"], *values)]
    return rows


def _histogram(counts: dict[str, int]) -> list[tuple[str, ...]]:
    most = max(counts.values(), default=0)
    rows = [
        (_time(float(bound)), str(count), "#" * -(-40 * count // most))
        for bound, count in counts.items()
    ]
    return [("under", "goroutines", ""), *rows]


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()


# ---- the picture ----

_COLUMNS = 1000
_LEFT, _TOP, _ROW, _BAR = 220, 40, 22, 14
_MOST_DRAWN = 30
_COLOURS = {
    "run": ("#2b8a3e", "runs"),
    "ready": ("#f08c00", "ready"),
    "runnable": ("#8bbf4d", "ready or running"),
    "call": ("#c92a2a", "blocking call or after it"),
    "wait": ("#d0d7de", "waits"),
}


class _Row:
    """How long a goroutine was in which state, in each of the picture's columns."""

    def __init__(self) -> None:
        self.columns: list[dict[str, float]] = [{} for _ in range(_COLUMNS)]
        self.began = 0.0
        self.state = ""

    def turn(self, ts: float, state: str, width: float) -> None:
        if self.state:
            column = min(int(self.began / width), _COLUMNS - 1)
            at = self.began
            while at < ts:
                until = ts if column == _COLUMNS - 1 else min(ts, (column + 1) * width)
                spent = self.columns[column]
                spent[self.state] = spent.get(self.state, 0.0) + until - at
                at = until
                column += 1
        self.began, self.state = ts, state

    def runs(self) -> Iterator[tuple[int, int, str]]:
        """Stretches of columns of which one state had most: first, how many, which."""
        first, before = 0, ""
        for number, spent in enumerate([*self.columns, {}]):
            state = max(spent, key=lambda each: spent[each]) if spent else ""
            if state != before or number == _COLUMNS:
                if before:
                    yield first, number - first, before
                first, before = number, state


def picture(path: str, found: Summary) -> str:
    """An SVG of the goroutines that were not waiting for longest. Raises TraceFileError."""
    width = max(found.end_us, 1.0) / _COLUMNS
    busiest = _busiest(path)
    rows = {track: _Row() for track in busiest}
    for _, _, events in _pieces(path):
        for event in events:
            if event["ph"] not in "BE":
                continue
            row = rows.get((event["pid"], event["tid"]))
            if row is not None:
                row.turn(event["ts"], event.get("cat", ""), width)
    for row in rows.values():
        row.turn(found.end_us, "", width)
    height = _TOP + _ROW * (len(rows) + 1)
    total_width = _LEFT + _COLUMNS + 50
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total_width}" height="{height}" '
        'font-family="sans-serif" font-size="12">\n'
        '<rect width="100%" height="100%" fill="white"/>\n'
    )
    parts = [head]
    x = _LEFT
    for colour, label in _COLOURS.values():
        parts.append(f'<rect x="{x}" y="10" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16}" y="20">{label}</text>\n')
        x += 40 + 7 * len(label)
    for number, (track, row) in enumerate(rows.items()):
        y = _TOP + _ROW * number
        name = _escaped(found.name(track)[:32])
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">{name}</text>\n')
        parts.extend(
            f'<rect x="{_LEFT + first}" y="{y}" width="{count}" height="{_BAR}" '
            f'fill="{_COLOURS[state][0]}"/>\n'
            for first, count, state in row.runs()
        )
    y = height - 8
    for tenth in range(0, 11, 2):
        x = _LEFT + _COLUMNS * tenth // 10
        label = _time(found.end_us * tenth / 10)
        parts.append(f'<text x="{x}" y="{y}" text-anchor="middle">{label}</text>\n')
    return "".join([*parts, "</svg>\n"])


def _busiest(path: str) -> list[Track]:
    """The goroutines to draw, in the order of their tracks."""
    busy: dict[Track, float] = {}
    began: dict[Track, tuple[float, str]] = {}
    for _, _, events in _pieces(path):
        for event in events:
            if event["ph"] == "B" and event["pid"] <= _NATIVE:
                began[event["pid"], event["tid"]] = (event["ts"], event["cat"])
            elif event["ph"] == "E" and event["pid"] <= _NATIVE:
                track = (event["pid"], event["tid"])
                ts, state = began.pop(track, (event["ts"], ""))
                busy.setdefault(track, 0.0)
                if state != "wait":
                    busy[track] += event["ts"] - ts
    for track in began:
        busy.setdefault(track, 0.0)
    return sorted(sorted(busy, key=lambda track: -busy[track])[:_MOST_DRAWN])


def _escaped(name: str) -> str:
    from xml.sax.saxutils import escape

    return "".join(c if c.isprintable() else "?" for c in escape(name))
