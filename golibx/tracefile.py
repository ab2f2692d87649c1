"""What `golibx trace FILE` tells of a file that the plugin trace has written, and its picture.

The file is read in pieces, and what is kept of it does not grow with its length, but with the
number of goroutines: a few numbers for each. The picture takes a second reading, once it is known
which goroutines were the busiest. Of a million events, which are two million lines, the first one
takes some 2 s, and both 3 s: nearly all lines are of two kinds, which one regular expression finds.

Only what the events say is told. They do not say when a goroutine that was woken or preempted ran
again, so a stretch "ready or running" is not divided; how long goroutines wait for their turn is
known of their first turn, and from the counters that the scheduler itself measures.
"""

from __future__ import annotations

import json
import re
import struct
from functools import lru_cache
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
        self.least = -1.0
        """Those that are no longer than this are not among them."""

    def add(self, stretch: _Stretch) -> None:
        if len(self._heap) < _MOST_LISTED:
            heappush(self._heap, stretch)
        elif stretch.length > self._heap[0].length:
            heappushpop(self._heap, stretch)
        if len(self._heap) == _MOST_LISTED:
            self.least = self._heap[0].length

    def __iter__(self) -> Iterator[_Stretch]:
        return iter(sorted(self._heap, reverse=True))


class _Open:
    """What has begun on a track and not ended yet; and how long it was not waiting."""

    __slots__ = ("busy_us", "stack", "track")

    def __init__(self, track: Track) -> None:
        self.track = track
        self.stack: list[tuple[float, str, str]] = []
        self.busy_us = 0.0


class Summary:
    """What a file says.

    Attributes:
        is_whole: whether it has its end; not of a process that was killed, or goes on.
        events: its lines but for names of tracks.
        end_us: the time of its last event; it begins at 0.
        about: what its first event says.
        ending: what its last event says; empty if it has none.
        instants: how many there are of each name.
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
        self.waits: dict[str, _Totals] = {}
        self.longest_waits = _Longest()
        self.preempts: dict[Track, _Totals] = {}
        self.calls: dict[Track, _Totals] = {}
        self.calls_in_vain = 0
        self.regions: dict[str, _Totals] = {}
        self.first_turns: dict[int, int] = {}
        self.latency_max_us = 0.0
        self.latency_p99_us = 0.0
        self._open: dict[Track, _Open] = {}
        self._open_at: dict[bytes, _Open] = {}

    def take(self, piece: bytes) -> None:
        """Takes whole lines along.

        Raises:
            ValueError, AttributeError, KeyError, TypeError: not all are events of the plugin.
        """
        parts = _TURN.split(piece)
        open_at = self._open_at
        waits, longest_waits = self.waits, self.longest_waits
        ts = 0.0
        for between, where, at, what in zip(*(parts[i::_STEP] for i in range(_STEP)), strict=False):
            if between:
                self._add_lines(between)
            ts = float(at)
            own = open_at.get(where)
            if own is None:
                own = open_at[where] = self._of_turn(where)
            name, kind = _begun_by(what)
            stack = own.stack
            if not stack:
                stack.append((ts, name, kind))
                continue
            began, ended_name, ended_kind = stack[-1]
            stack[-1] = (ts, name, kind)
            if ended_kind == "runnable":
                own.busy_us += ts - began
            elif ended_kind == "wait":
                length = ts - began
                totals = waits.get(ended_name)
                if totals is None:
                    totals = waits[ended_name] = _Totals()
                totals.count += 1
                totals.total += length
                totals.longest = max(totals.longest, length)
                if length > longest_waits.least:
                    longest_waits.add(_Stretch(length, began, own.track, ended_name))
            else:
                self._ended(own, began, ended_name, ended_kind, ts)
        self.events += 2 * (len(parts) // _STEP)
        self.end_us = max(self.end_us, ts)
        if parts[-1]:
            self._add_lines(parts[-1])

    def _of_turn(self, where: bytes) -> _Open:
        track = json.loads(b"{" + where + b"}")
        return self._of(track["pid"], track["tid"])

    def _of(self, group: int, number: int) -> _Open:
        track = (group, number)
        own = self._open.get(track)
        if own is None:
            own = self._open[track] = _Open(track)
        return own

    def _add_lines(self, lines: bytes) -> None:
        self.add(_events_of(lines))

    def add(self, events: list[dict[str, Any]]) -> None:
        """Takes these along."""
        opened = self._open
        self.events += len(events)
        for event in events:
            phase = event["ph"]
            if phase == "B":
                own = self._of(event["pid"], event["tid"])
                own.stack.append((event["ts"], event["name"], event["cat"]))
                if "args" in event and event["cat"] in ("runnable", "call"):
                    self._told(own.track, event["args"])
            elif phase == "E":
                found = opened.get((event["pid"], event["tid"]))
                if found is not None and found.stack:
                    self._ended(found, *found.stack.pop(), event["ts"])
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
        for own in self._open.values():
            for began, name, kind in own.stack:
                if kind != "ready":
                    self._ended(own, began, name, kind, self.end_us)

    @property
    def tracks(self) -> set[Track]:
        """The goroutines."""
        return {track for track in self._open if track[0] <= _NATIVE}

    def busiest(self, most: int) -> list[Track]:
        """Those that were not waiting for longest, in the order of their tracks."""
        busy = [own for own in self._open.values() if own.track[0] <= _NATIVE]
        return sorted(own.track for own in sorted(busy, key=lambda own: -own.busy_us)[:most])

    def _told(self, track: Track, arguments: dict[str, Any]) -> None:
        """What the event says that has begun a stretch, of what was before it."""
        if "ran_us" in arguments:
            self.preempts.setdefault(track, _Totals()).add(arguments["ran_us"])
        elif "blocked_us" in arguments:
            self.calls.setdefault(track, _Totals()).add(arguments["blocked_us"])
            self.calls_in_vain += arguments["in_vain"]

    def _ended(self, own: _Open, began: float, name: str, kind: str, ended: float) -> None:
        length = ended - began
        if kind == "wait":
            totals = self.waits.get(name)
            if totals is None:
                totals = self.waits[name] = _Totals()
            totals.add(length)
            self.longest_waits.add(_Stretch(length, began, own.track, name))
            return
        own.busy_us += length
        if kind == "ready":
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
_TURN = re.compile(
    rb'\{"ph":"E",("pid":[12],"tid":[0-9]+),"ts":([0-9.]+)\},\n'
    rb'\{"ph":"B",\1,"ts":\2,("name":"[^"\\]*","cat":"(?:wait"|runnable","args":\{"after":"wake"))'
    rb'(?:,"by":[0-9]+\})?\},\n'
)
"""What most of a file is: a goroutine that waits, or was woken. To read these as JSON would take
several times as long. What is between them is read so."""
_STEP = _TURN.groups + 1
"""In what `_TURN` splits: what is between two, and the groups."""


@lru_cache(maxsize=1024)
def _begun_by(what: bytes) -> tuple[str, str]:
    """The name and the kind of what begins, of the third group of `_TURN`."""
    begun = json.loads(b"{" + what + (b"}}" if what.endswith(b'"wake"') else b"}"))
    return begun["name"], begun["cat"]


def summary(path: str) -> Summary:
    """Reads a file. Raises TraceFileError."""
    found = Summary()
    for first, piece in _pieces(path, found):
        try:
            found.take(piece)
        except (ValueError, AttributeError, KeyError, TypeError):
            raise _wrong_line(path, first, piece) from None
    found.end()
    if not found.about:
        raise TraceFileError(f"{path}: {_NOT_ONE}: it does not say when it begins")
    return found


def _pieces(path: str, found: Summary | None = None) -> Iterator[tuple[int, bytes]]:
    """Some thousands of whole lines at once, after the number of the first one."""
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
            while piece := file.read(_PIECE):
                if not piece.endswith(b"\n"):
                    piece += file.readline()
                    if not piece.endswith(b"\n"):  # cut off in the midst of a line
                        piece = piece[: piece.rfind(b"\n") + 1]
                yield first, _without_end(piece, found)
                first += piece.count(b"\n")
    except OSError as exc:
        raise TraceFileError(f"{path}: can't be read: {exc.strerror}") from None


def _without_end(piece: bytes, found: Summary | None) -> bytes:
    if piece != b"]\n" and not piece.endswith(b"\n]\n"):
        return piece
    if found is not None:
        found.is_whole = True
    return piece.removesuffix(b"]\n")


def _unconverted(path: str, file: BinaryIO, found: Summary | None) -> Iterator[tuple[int, bytes]]:
    """As _pieces(), of a file with a process that was killed, or still writes it."""
    first = 2
    try:
        for number, lines in enumerate(lines_of(file)):
            piece = "".join(lines if number else lines[1:]).encode("ascii")
            yield first, _without_end(piece, found)
            first += piece.count(b"\n")
    except (ValueError, KeyError, TypeError, IndexError, struct.error) as exc:
        raise TraceFileError(f"{path}: {_NOT_ONE}: {exc}") from None


def _events_of(lines: bytes) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(b"[" + lines.rstrip(b",\n") + b"]")
    return events


def convert(path: str, new_path: str) -> None:
    """Makes one that viewers read of a file left by a killed process. Raises TraceFileError."""
    try:
        with open(path, "rb") as file, open(new_path, "wb") as out:
            tracelines.convert(file, out)
    except OSError as exc:
        raise TraceFileError(f"{exc.filename or new_path}: {exc.strerror}") from None
    except (ValueError, KeyError, TypeError, IndexError, struct.error) as exc:
        raise TraceFileError(f"{path}: not a file that is to be converted: {exc}") from None


def _wrong_line(path: str, first: int, piece: bytes) -> TraceFileError:
    for number, line in enumerate(piece.splitlines(keepends=True), first):
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
            at = self.began
            column = min(int(at / width), _COLUMNS - 1)
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
    rows = {track: _Row() for track in found.busiest(_MOST_DRAWN)}
    rows_at = {b'"pid":%d,"tid":%d' % track: row for track, row in rows.items()}
    for _, piece in _pieces(path):
        split = _TURN.split(piece)
        for between, where, at, what in zip(*(split[i::_STEP] for i in range(_STEP)), strict=False):
            if between:
                _draw(between, rows, width)
            row = rows_at.get(where)
            if row is not None:
                row.turn(float(at), _begun_by(what)[1], width)
        if split[-1]:
            _draw(split[-1], rows, width)
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


def _draw(lines: bytes, rows: dict[Track, _Row], width: float) -> None:
    for event in _events_of(lines):
        if event["ph"] in "BE":
            row = rows.get((event["pid"], event["tid"]))
            if row is not None:
                row.turn(event["ts"], event.get("cat", ""), width)


def _escaped(name: str) -> str:
    from xml.sax.saxutils import escape

    return "".join(c if c.isprintable() else "?" for c in escape(name))
