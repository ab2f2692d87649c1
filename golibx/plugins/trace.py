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

Events are taken by the batch, and written as they come: nothing is done for a single one. What has
been written is made a file for the viewers when the run has ended (golibx.tracelines). In mode
"flight" the batches are kept instead, and made a file when somebody asks.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from golibx import Chan, Mutex, current, goroutines, labels
from golibx.config import Key
from golibx.eventbatch import EventBatch
from golibx.hookspec import GoroutinePanic, Snapshot, hookimpl
from golibx.tracelines import (
    MAGIC,
    REGIONS,
    THREADS,
    Counters,
    Lines,
    Own,
    about,
    blocks_of,
    convert,
    end_block,
    head_block,
    names_block,
    note_block,
    reasons_block,
    to_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
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
        'How many events mode `"flight"` keeps at most, at 32 bytes each, or about 300 for a '
        "region or mark.",
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
_MOST_COLLECTED = 1_000_000
"""Events of mode "file" that are in memory, at 32 bytes each, before who has more writes them."""
_MOST_BLOCKS = 512
"""Written by one call, if the system does so: it may take no more than a thousand."""
_MOST_HELD = 1024
"""Regions and marks of mode "file" that are in memory, before who adds one writes them."""
_NAMING_SHARE = 50
"""Looking for goroutines' names may take one part in this many of the time."""
_NAMING_NS = 200
"""What it takes for each goroutine, about."""
# ---- what programs mark themselves ----


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


def _begin_labels(own: Mapping[str, str]) -> Own | None:
    """Blocks of golibx.labels() are regions."""
    recorder = _recorder
    return None if recorder is None else recorder.add("B", "labels", own)


def _end_labels(began: Own | None) -> None:
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
        self._most_events = most_events
        self._events: deque[EventBatch | Own | Counters] = deque()
        self._marks: deque[Own | Counters] = deque(maxlen=most_events)
        self._kept = 0
        self._collected = 0
        self._written = 0
        self._is_over = threading.Event()
        self._forgotten_ns = 0
        self._reasons: Sequence[str] = ()
        self._new_reasons: Sequence[str] = ()
        # All that a hook or a region does with what it has.
        self.record: Callable[[Own | Counters], object] = self._mark if flight_ns else self._hold
        self.take: Callable[[EventBatch], object] = self._keep if flight_ns else self._collect
        self._lock = Mutex()
        self._names: dict[int, str] = {}
        self._services: set[int] = set()
        self._new_names: dict[int, str] = {}
        self._new_services: set[int] = set()
        self._begun_ns = time.monotonic_ns()
        self._file: BinaryIO | None = None
        self._size = 0
        self._left_out = 0
        self._dropped = 0
        self._next_look_ns = 0
        self._newest_seen = 0
        self._region_numbers = itertools.count(1)
        self._numbers = itertools.count(1)  # of flights
        self._unused_numbers: list[int] = []

    def add(self, phase: str, name: str, arguments: Mapping[str, object]) -> Own:
        """What the program marks. Returns the event."""
        text = to_json(dict(arguments))
        number = next(self._region_numbers)
        goroutine = current()
        if goroutine is not None:
            group, track, own = REGIONS, goroutine.id, goroutine.name
        else:
            own = threading.current_thread().name
            group, track = THREADS, threading.get_native_id()
        event = Own(time.monotonic_ns(), phase, group, track, own, str(name), text, number)
        self.record(event)
        return event

    # ---- all of it ----

    def open(self) -> None:
        """Begins the file. Raises OSError."""
        # What is no file can be written only once, when all is known.
        is_file = not os.path.exists(self._path) or os.path.isfile(self._path)
        if is_file:
            self._file = open(self._path, "w+b", buffering=0)  # noqa: SIM115
        else:
            self._file = _unnamed_file()
        main_ns = time.monotonic_ns()
        self._write([MAGIC, head_block(self._begun_ns, main_ns)])

    def _hold(self, event: Own | Counters) -> None:
        self._events.append(event)
        # If somebody writes already, that one takes this along.
        if len(self._events) >= _MOST_HELD and self._lock.try_lock():
            try:
                self._flush()
            finally:
                self._lock.unlock()

    def _collect(self, batch: EventBatch) -> None:
        if self._reasons is not batch.reasons:
            self._reasons = self._new_reasons = batch.reasons
        self._events.append(batch)
        self._collected += len(batch)
        self.look_for_names()
        # The thread may be held up for long. Meanwhile others wait, and events are dropped.
        if self._collected - self._written > _MOST_COLLECTED:
            with self._lock:
                self._flush()

    def keep_writing(self) -> None:
        """A thread.

        A write lets the interpreter's lock go, and who delivers events has no time to wait for that
        again.
        """
        while not self._is_over.wait(_FLUSH_S):
            self.look_for_names()
            with self._lock:
                self._flush()

    def stop_writing(self) -> None:
        """Ends the thread."""
        self._is_over.set()

    def _flush(self) -> None:
        """Writes what is held. The lock is the caller's."""
        events = self._events
        held = [events.popleft() for _ in range(len(events))]
        self._written += sum(len(each) for each in held if isinstance(each, EventBatch))
        names, self._new_names = self._new_names, {}
        services, self._new_services = self._new_services, set()
        if not held and not names:
            return
        is_full = bool(self._max_size) and self._size >= self._max_size
        if self._file is None or is_full:
            self._left_out += _count(held)
            return
        blocks = [names_block(names, services)] if names else []
        if self._new_reasons:
            blocks.append(reasons_block(self._new_reasons))
            self._new_reasons = ()
        try:
            blocks.extend(blocks_of(held))
            self._note_dropped(blocks)
            self._write(blocks)
        except BaseException:  # of a signal's handler, perhaps: what is lost is counted
            self._left_out += _count(held)
            raise

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
                self._names[number] = self._new_names[number] = _name_of(goroutine)
                if goroutine.system:
                    self._services.add(number)
                    self._new_services.add(number)
                newest = max(newest, number)
        self._newest_seen = newest
        names = self._names
        for number in list(itertools.islice(names, max(len(names) - self._most_events, 0))):
            names.pop(number, None)

    def _note_dropped(self, blocks: list[bytes]) -> None:
        stats = self._runtime.stats()
        dropped = stats["events_dropped"] + stats["native_events_dropped"]
        if dropped > self._dropped:
            what = {"events": dropped - self._dropped}
            self._dropped = dropped
            blocks.append(note_block(time.monotonic_ns(), "events dropped", what))

    def _write(self, blocks: list[bytes]) -> None:
        assert self._file is not None
        try:
            # Many at once: after each call the interpreter's lock has to be waited for.
            for first in range(0, len(blocks), _MOST_BLOCKS):
                some = blocks[first : first + _MOST_BLOCKS]
                _write_parts(self._file, some)
                self._size += sum(map(len, some))
        except OSError as exc:
            self._file.close()
            self._file = None
            _say(f"{self._path} can't be written: {exc.strerror}; the trace ends there")

    def close(self) -> None:
        """Writes the rest, at the end of the run, and makes lines of all."""
        with self._lock:
            self.look_for_names(now=True)
            self._flush()
            if self._file is not None:
                blocks: list[bytes] = []
                self._note_dropped(blocks)
                blocks.append(end_block(time.monotonic_ns(), self._dropped, self._left_out))
                self._write(blocks)
            if self._file is None:
                return
            with self._file as file:
                self._file = None
                try:
                    self._left_out = self._convert(file)
                except OSError as exc:
                    _say(f"{self._path} can't be written: {exc.strerror}; the trace ends there")
                    return
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

    def _convert(self, file: BinaryIO) -> int:
        """Puts lines in the place of blocks. How many events have none."""
        file.seek(0)
        new = f"{self._path}.new"
        is_file = os.path.isfile(self._path)
        try:
            out = open(new, "wb") if is_file else open(self._path, "wb")  # noqa: SIM115
        except PermissionError:  # its folder is not ours to write to: the file is
            with _unnamed_file() as unnamed:
                left_out = convert(file, unnamed, self._max_size)
                unnamed.seek(0)
                with open(self._path, "wb") as place:
                    shutil.copyfileobj(unnamed, place)
            return left_out
        try:
            with out:
                left_out = convert(file, out, self._max_size)
            if is_file:
                os.replace(new, self._path)
        except BaseException:
            if is_file:
                with suppress(OSError):
                    os.unlink(new)
            raise
        return left_out

    # ---- the last of it ----

    def _mark(self, event: Own | Counters) -> None:
        self._marks.append(event)

    def _keep(self, batch: EventBatch) -> None:
        """Of the pump's only."""
        self.look_for_names()
        self._reasons = batch.reasons
        self._events.append(batch)
        self._kept += len(batch)
        while self._kept - len(oldest := self._batch(0)) >= self._most_events:
            self._forgotten_ns = oldest.last_ns
            self._events.popleft()
            self._kept -= len(oldest)

    def _batch(self, at: int) -> EventBatch:
        batch = self._events[at]
        assert isinstance(batch, EventBatch)
        return batch

    def write_flight(self, why: str) -> str:
        """Writes what is kept to a new file; its path. See `flight`."""
        if not self._flight_ns:
            raise RuntimeError(
                f'[plugins.trace] mode is "file": all that happens is written to {self._path}. '
                'With mode = "flight" the last seconds can be asked for'
            )
        # Without the lock: a signal's handler may ask for a flight in the midst of another.
        held, marks = self._events.copy(), self._marks.copy()
        now_ns = time.monotonic_ns()
        self.look_for_names(now=True)
        batches, own, is_short = self._last(held, marks, now_ns - self._flight_ns)
        times = [batch.first_ns for batch in batches] + [each.time_ns for each in own]
        begun_ns = min(times, default=now_ns)
        lines = Lines(begun_ns, self._names, self._services)
        lines.know(self._reasons)
        text = lines.head(about(begun_ns))
        for each in (*batches, *own):
            lines.add(each, text)
        lines.close(now_ns, text)
        stats = self._runtime.stats()
        what = {
            "why": why,
            "events": lines.events,
            "dropped": stats["events_dropped"] + stats["native_events_dropped"],
            "limited_by_max_events": is_short,
        }
        text.append(lines.end(now_ns, what))
        path = self._write_next(text)
        _say(f"the last {(now_ns - begun_ns) / 1e9:.3f} s are in {path} ({why})")
        return path

    def _last(
        self,
        held: Iterable[EventBatch | Own | Counters],
        marks: Iterable[Own | Counters],
        from_ns: int,
    ) -> tuple[list[EventBatch], list[Own | Counters], bool]:
        """What has happened since, `max_events` at most; and whether that was a limit."""
        batches = [e.since(from_ns) for e in held if isinstance(e, EventBatch)]
        own = [each for each in marks if each.time_ns >= from_ns]
        most = self._most_events
        is_short = self._forgotten_ns >= from_ns or len(own) == most
        if sum(map(len, batches)) + len(own) > most:
            is_short = True
            times = [record[0] for b in batches for record in b.RECORD.iter_unpack(b.data)]
            times += [each.time_ns for each in own]
            times.sort()
            from_ns = times[-most]
            batches = [each.since(from_ns) for each in batches]
            own = [each for each in own if each.time_ns >= from_ns]
        return [each for each in batches if len(each)], own, is_short

    def _write_next(self, text: list[str]) -> str:
        """To a file of its own. The path."""
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
        return path


def _name_of(goroutine: Goroutine[Any]) -> str:
    """With its labels: those that it has been started with, unless it has begun with others."""
    own = ", ".join(f"{name}={value}" for name, value in goroutine.labels.items())
    return f"{goroutine.name} ({own})" if own else goroutine.name


def _count(items: Iterable[EventBatch | Own | Counters]) -> int:
    """The events of all these."""
    return sum(len(each) if isinstance(each, EventBatch) else 1 for each in items)


def _unnamed_file() -> BinaryIO:
    return cast("BinaryIO", tempfile.TemporaryFile(buffering=0))


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _write_parts(file: BinaryIO, parts: list[bytes]) -> None:
    """Without a copy of them, where the system can."""
    if not hasattr(os, "writev"):
        _write_all(file, b"".join(parts))
        return
    written = os.writev(file.fileno(), parts)
    if written < sum(map(len, parts)):
        _write_all(file, b"".join(parts)[written:])


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

    takes = (
        "on_goroutine_create",
        "on_goroutine_start",
        "on_goroutine_park",
        "on_goroutine_ready",
        "on_goroutine_exit",
        "on_goroutine_panic",
        "on_preempt",
        "on_retake",
        "on_netpoll_ready",
        "on_steal",
        "on_deadlock",
        "on_gomaxprocs",
        "on_tune",
    )

    def __init__(self) -> None:
        self._writer: threading.Thread | None = None
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
            self._writer = runtime.start_thread(self._recorder.keep_writing)
        self._recorder.look_for_names(now=True)
        _recorder = self._recorder
        self._stop_watching = labels.watch(_begin_labels, _end_labels)

    @hookimpl
    def golib_stop(self) -> None:
        global _recorder
        _recorder = None
        self._stop_watching()
        if self._writer is not None:
            self._recorder.stop_writing()
            self._writer.join()
        if self._listener is not None:
            self._listener.cancel()
            self._listener.join()
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
        self._recorder.record(Counters.of(snapshot))
        latency_ns = snapshot.latency_max_ns
        if self._latency_ns and latency_ns is not None and latency_ns >= self._latency_ns:
            self._write_by_itself(f"a goroutine waited {latency_ns / 1e6:.3f} ms for its turn")

    @hookimpl
    def take_events(self, batch: EventBatch) -> None:
        self._recorder.take(batch)
        if batch.objects and self._on_exception:
            for event in batch:
                if isinstance(event, GoroutinePanic):
                    self._write_by_itself(event.exception.partition("\n")[0])


def _forget() -> None:
    """In the child of a fork: the file is the parent's."""
    global _recorder
    _recorder = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
