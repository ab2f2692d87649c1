"""Profiles of a run: where goroutines compute, wait, fight for locks, and are left for ever.

- `cpu`: which goroutine has the processor, and where, `hz` times a second. runtime.sample() looks;
  a thread adds up what it found. Threads of the program's own are looked at when their CPU clock
  says that they have computed.
- `block`: where goroutines wait and how long, by looking at them all at an interval. A wait that is
  longer than that is measured; of shorter ones some are found, and stand for the others.
- `mutex`: the same, of locks only.
- `leak`: the goroutines that golibx.leaks() finds when the time is up.

No hook is called for any of it. A look at all goroutines is followed by a pause that is a hundred
times as long at least: with very many of them looks are rarer.

The files are those of pprof (`go tool pprof`): a protobuf message, profile.proto, compressed by
gzip; or of speedscope (JSON). Each is written beside its place, and moved there when it is whole.

golibx.control takes profiles by the same classes, of a process that runs without the plugin.
"""

from __future__ import annotations

import gzip
import json
import os
import select
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from golibx import __version__, goroutines, leaks
from golibx.config import Key
from golibx.hookspec import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import CodeType, FrameType
    from typing import TypeAlias

    from golibx import Goroutine
    from golibx.config import Config
    from golibx.runtime import Runtime

    Rows: TypeAlias = list[tuple[int, Goroutine[Any], list[tuple[CodeType, int]]]]
    Sample: TypeAlias = Callable[[float, int], Rows]
    Labels: TypeAlias = tuple[tuple[str, str | int], ...]

__all__ = [
    "FORMATS",
    "KEYS",
    "KINDS",
    "TOTALS",
    "Collector",
    "Plugin",
    "Profile",
    "encode",
    "write",
]

KINDS = ("cpu", "block", "mutex", "leak")
FORMATS = ("pprof", "speedscope")
TOTALS = "totals"
"""Beside these, of "cpu", for requests over the control socket: nanoseconds by the numbers of the
goroutines, as JSON: `{"total_ns": …, "goroutines": {"7": …}}`."""
EXTENSIONS = {"pprof": ".pb.gz", "speedscope": ".speedscope.json"}

KEYS = (
    Key(
        "output",
        "path",
        "golibx-{kind}",
        "The files to write, without extension: `.pb.gz` or `.speedscope.json` is added. `{kind}` "
        "in it stands for the kind, `{pid}` for the number of the process.",
    ),
    Key("format", "choice", "pprof", "What the files are for.", choices=FORMATS),
    Key(
        "kinds",
        "strings",
        ["cpu"],
        'Which profiles to take: some of `"cpu"`, `"block"`, `"mutex"`, `"leak"`.',
    ),
    Key("hz", "int", 100, "Samples a second, of `cpu`.", low=10, high=1000),
    Key(
        "interval",
        "duration",
        "20ms",
        "Time between two looks at what waits, of `block` and `mutex`.",
        low="1ms",
        high="1m",
    ),
    Key(
        "duration",
        "duration",
        "0",
        "How long the profile is; it is written then.",
        low="10ms",
        high="24h",
        zero="until the run ends",
    ),
)

_TYPES = {
    "cpu": (("samples", "count"), ("cpu", "nanoseconds")),
    "block": (("contentions", "count"), ("delay", "nanoseconds")),
    "mutex": (("contentions", "count"), ("delay", "nanoseconds")),
    "leak": (("goroutines", "count"), ("waited", "nanoseconds")),
}
_LOCKS = {
    "lock",
    "semacquire",
    "sync.Mutex.Lock",
    "sync.Once.Do",
    "sync.RWMutex.Lock",
    "sync.RWMutex.RLock",
}
_BATCH_S = 0.1
"""How long samples are taken before they are added up."""
_REST = 100
"""So many times as long as a look is the pause after it, at least."""
_MOST_LABELLED = 20_000
"""Places of a profile that are told apart by their labels; more have none."""
_MOST_FRAMES = 200
_OWN_LABELS = {"goroutine", "id", "reason", "started at"}
"""The program's labels that have a name of these are left out."""
_LONG_NS = 3_600_000_000_000
_MOST_SHOWN_GOROUTINES = 50
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


class Frame(NamedTuple):
    """A place in the program, as `code` is at `line`."""

    function: str
    file: str
    first_line: int
    line: int


_ELSEWHERE = Frame("(outside of the interpreter)", "", 0, 0)
"""C code without the interpreter's lock, native goroutines, and what golibx itself takes."""


class Profile:
    """What is known of one kind: samples by their frames and labels.

    Args:
        kind: one of KINDS.
        period_ns: the time between two looks.

    Attributes:
        samples: the two values of a sample, by its frames (the innermost first) and labels.
        begun_ns: when it began, on the clock of time.time_ns().
        duration_ns: how long it took.
    """

    def __init__(self, kind: str, period_ns: int = 0) -> None:
        self.kind = kind
        self.period_ns = period_ns
        self.samples: dict[tuple[tuple[Frame, ...], Labels], list[int]] = {}
        self.begun_ns = time.time_ns()
        self.duration_ns = 0

    def add(self, frames: tuple[Frame, ...], labels: Labels, count: int, value: int) -> None:
        """Adds to a sample."""
        key = (frames, labels)
        sample = self.samples.get(key)
        if sample is None:
            if len(self.samples) >= _MOST_LABELLED:
                key = (frames, ())
            sample = self.samples.setdefault(key, [0, 0])
        sample[0] += count
        sample[1] += value

    def total(self) -> tuple[int, int]:
        """The sums of both values."""
        values = self.samples.values()
        return sum(value[0] for value in values), sum(value[1] for value in values)


# ---- frames ----


def _is_own(file: str) -> bool:
    return file.startswith(_PACKAGE)


def _trimmed(places: Iterable[tuple[CodeType, int]]) -> tuple[Frame, ...]:
    """Those of the program: without what has called run(), and golibx's that call functions."""
    every: list[Frame] = []
    for code, line in places:
        file, name = code.co_filename, code.co_qualname
        if name == "Runtime._main" and _is_own(file):
            break
        every.append(Frame(name, file, code.co_firstlineno, line or code.co_firstlineno))
    end = len(every)
    while end and _is_own(every[end - 1].file):
        end -= 1
    return tuple(every[: end or None])


def _places(frame: FrameType | None) -> list[tuple[CodeType, int]]:
    found: list[tuple[CodeType, int]] = []
    while frame is not None and len(found) < _MOST_FRAMES:
        found.append((frame.f_code, frame.f_lineno or 0))
        frame = frame.f_back
    return found


def _labels(goroutine: Goroutine[Any], *more: tuple[str, str | int]) -> Labels:
    started: Labels = ()
    if goroutine.started_at and not _is_own(goroutine.started_at):
        started = (("started at", goroutine.started_at),)
    own = [pair for pair in goroutine.labels.items() if pair[0] not in _OWN_LABELS]
    return (("goroutine", goroutine.name), *more, *started, *own)


# ---- collecting ----


_taking: dict[int, Collector] = {}
"""By the process: the collector that takes its CPU profile. runtime.sample() is for one at a time,
and between two calls of one collector's another one would come in."""


class Collector:
    """Takes profiles until it is stopped or the time is up.

    Args:
        kinds: which ones.
        hz: samples a second, of "cpu".
        interval_ns: time between two looks, of "block" and "mutex".
        duration_ns: how long; 0: until it is stopped.
        sample: runtime.sample().
        start_thread: runtime.start_thread().

    Attributes:
        profiles: by kind.
        problem: why a profile could not be taken; "" if all is well.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        *,
        hz: int,
        interval_ns: int,
        duration_ns: int,
        sample: Sample,
        start_thread: Callable[[Callable[[], object]], threading.Thread],
    ) -> None:
        self._hz = hz
        self._interval_ns = interval_ns
        self._duration_ns = duration_ns
        self._sample = sample
        self._start_thread = start_thread
        periods = {"cpu": 1_000_000_000 // hz, "block": interval_ns, "mutex": interval_ns}
        self.profiles = {kind: Profile(kind, periods.get(kind, 0)) for kind in kinds}
        self.problem = ""
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._waking = threading.Lock()
        self._waker: tuple[int, int] | None = None

    def start(self) -> None:
        """Begins. It needs a run."""
        self._begun_ns = time.monotonic_ns()
        for profile in self.profiles.values():
            profile.begun_ns = time.time_ns()
        self._waker = os.pipe()
        if "cpu" in self.profiles:
            if _taking.setdefault(os.getpid(), self) is self:
                self._threads.append(self._start_thread(self._take_samples))
            else:
                self.problem = "another CPU profile is being taken: there can be one at a time"
        if "block" in self.profiles or "mutex" in self.profiles:
            self._threads.append(self._start_thread(self._keep_looking))

    def interrupt(self) -> None:
        """Has join() return soon, before the time is up. Nothing to do if it is over."""
        with self._waking:
            if self._waker is not None:
                os.write(self._waker[1], b".")

    def join(self) -> None:
        """Waits until it is over, and all is added up."""
        ends = self._ends()
        while left_ns := self._left_ns():
            if ends.poll(left_ns / 1e6):
                break
        self._stopping = True
        self.interrupt()
        for thread in self._threads:
            thread.join()
        if _taking.get(os.getpid()) is self:
            del _taking[os.getpid()]
        with self._waking:
            assert self._waker is not None
            for end in self._waker:
                os.close(end)
            self._waker = None
        if "leak" in self.profiles:
            self._find_leaks(self.profiles["leak"])
        duration_ns = time.monotonic_ns() - self._begun_ns
        for profile in self.profiles.values():
            profile.duration_ns = duration_ns

    def _ends(self) -> select.poll:
        """Ready once interrupt() was called: what it writes is left in the pipe."""
        assert self._waker is not None
        ends = select.poll()
        ends.register(self._waker[0], select.POLLIN)
        return ends

    def _left_ns(self) -> int:
        if not self._duration_ns:
            return _LONG_NS
        return max(self._begun_ns + self._duration_ns - time.monotonic_ns(), 0)

    # ---- cpu ----

    def _take_samples(self) -> None:
        """A thread."""
        profile = self.profiles["cpu"]
        known: dict[tuple[tuple[CodeType, int], ...], tuple[Frame, ...]] = {}
        period_s = 1 / self._hz
        threads = _Threads(self._threads)
        process_ns, own_ns = time.process_time_ns(), time.thread_time_ns()
        told_ns = 0
        while not self._stopping and (left_ns := self._left_ns()):
            batch_s = min(_BATCH_S, left_ns / 1e9)
            try:
                rows = self._sample(period_s, max(round(batch_s * self._hz), 1))
            except RuntimeError as exc:  # another one takes a profile
                self.problem = str(exc)
                return
            for ns, goroutine, places in rows:
                key = tuple(places)
                frames = known.get(key)
                if frames is None:
                    if len(known) >= _MOST_LABELLED:
                        known.clear()
                    frames = known[key] = _trimmed(places)
                labels = _labels(goroutine, ("id", goroutine.id))
                profile.add(frames, labels, 1, ns)
                told_ns += ns
            told_ns += threads.look(profile)
        process_ns = time.process_time_ns() - process_ns
        left = process_ns - (time.thread_time_ns() - own_ns) - told_ns
        if left > 0:
            profile.add((_ELSEWHERE,), (), 0, left)

    # ---- block and mutex ----

    def _keep_looking(self) -> None:
        """A thread."""
        ends = self._ends()
        waits = _Waits(self.profiles.get("block"), self.profiles.get("mutex"))
        pause_ns = self._interval_ns
        while left_ns := self._left_ns():
            if ends.poll(min(pause_ns, left_ns) / 1e6):
                break
            pause_ns = max(self._interval_ns, _REST * waits.look())
        waits.look()

    # ---- leak ----

    def _find_leaks(self, profile: Profile) -> None:
        try:
            found = leaks()
        except RuntimeError as exc:  # a Python with frames that are not known
            self.problem = str(exc)
            return
        for goroutine in found:
            labels = _labels(goroutine, ("reason", goroutine.state))
            frames = _trimmed(_places(goroutine.frame))
            profile.add(frames, labels, 1, int(goroutine.waited * 1e9))


class _Threads:
    """What the program's own threads compute, by their CPU clocks; Linux lets others read those."""

    def __init__(self, besides: Sequence[threading.Thread]) -> None:
        self._besides = besides
        self._clocks: dict[int, int] = {}
        self._are_there = sys.platform == "linux"
        self.look(None)

    def look(self, profile: Profile | None) -> int:
        """How long they have computed since the last look, in nanoseconds."""
        if not self._are_there:
            return 0
        clocks: dict[int, int] = {}
        told_ns = 0
        frames: dict[int, FrameType] | None = None
        besides = {threading.main_thread(), threading.current_thread(), *self._besides}
        for thread in threading.enumerate():
            # Goroutines have no number of their own here; the main thread runs some, mostly.
            number = thread.native_id
            if number is None or thread in besides:
                continue
            try:
                now_ns = time.clock_gettime_ns((~number << 3) | 6)  # CPUCLOCK_PERTHREAD | SCHED
            except OSError:  # it has ended
                continue
            clocks[number] = now_ns
            spent_ns = now_ns - self._clocks.get(number, now_ns if profile is None else 0)
            if profile is None or spent_ns < 1_000_000:
                clocks[number] -= spent_ns  # it counts when there is more of it
                continue
            if frames is None:
                frames = sys._current_frames()  # noqa: SLF001  # a documented function
            places = _trimmed(_places(frames.get(thread.ident or 0)))
            profile.add(places or (_ELSEWHERE,), (("thread", thread.name),), 1, spent_ns)
            told_ns += spent_ns
        self._clocks = clocks
        return told_ns


class _Waits:
    """What goroutines wait for, by looks at all of them."""

    def __init__(self, block: Profile | None, mutex: Profile | None) -> None:
        self._block = block
        self._mutex = mutex
        self._looked_ns = time.monotonic_ns()
        self._seen: dict[int, tuple[str, tuple[Frame, ...], Labels]] = {}

    def look(self) -> int:
        """Returns what it took, in nanoseconds of CPU time."""
        cost_ns = time.thread_time_ns()
        began_ns = time.monotonic_ns()
        passed_ns = began_ns - self._looked_ns
        self._looked_ns = began_ns
        seen: dict[int, tuple[str, tuple[Frame, ...], Labels]] = {}
        for goroutine in goroutines():
            if not goroutine.waiting:
                continue
            number = goroutine.id
            waited_ns = int(goroutine.waited * 1e9) - (time.monotonic_ns() - began_ns)
            known = self._seen.get(number) if waited_ns >= passed_ns else None
            if known is None:
                # `state` first: it may go on meanwhile, and what is read is of a later wait then.
                state = goroutine.state
                places = _trimmed(_places(goroutine.frame))
                if not goroutine.waiting or (self._block is None and state not in _LOCKS):
                    continue
                known = (state, places, _labels(goroutine, ("reason", state)))
                is_new = 1
            else:
                is_new = 0
            seen[number] = known
            state, frames, labels = known
            # Found by chance, it stands for those between two looks that were not.
            if self._block is not None:
                self._block.add(frames, labels, is_new, passed_ns)
            if self._mutex is not None and state in _LOCKS:
                self._mutex.add(frames, labels, is_new, passed_ns)
        self._seen = seen
        return time.thread_time_ns() - cost_ns


# ---- files ----


def encode(profile: Profile, format_: str) -> bytes:
    """The bytes of a file in one of FORMATS, or of TOTALS."""
    if format_ == TOTALS:
        return _totals(profile)
    return _pprof(profile) if format_ == "pprof" else _speedscope(profile)


def _totals(profile: Profile) -> bytes:
    goroutines: dict[str, int] = {}
    for (_, labels), (_, ns) in profile.samples.items():
        number = dict(labels).get("id")
        if number is not None:
            goroutines[str(number)] = goroutines.get(str(number), 0) + ns
    return json.dumps({"total_ns": profile.duration_ns, "goroutines": goroutines}).encode()


def write(path: str, data: bytes) -> None:
    """Writes a file that is there as a whole or not at all. Raises OSError."""
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _number(value: int) -> bytes:
    """A varint: seven bits a byte, the lowest first."""
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _field(number: int, value: int | bytes) -> bytes:
    """A field of a message: a varint, or bytes with their length. Zero need not be there."""
    if isinstance(value, int):
        return _number(number << 3) + _number(value) if value else b""
    return _number(number << 3 | 2) + _number(len(value)) + value


def _packed(number: int, values: Iterable[int]) -> bytes:
    return _field(number, b"".join(map(_number, values)))


class _Table(dict[Any, int]):
    """Numbers for what is asked for, in this order, from `first` on."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __missing__(self, key: Any) -> int:
        number = self[key] = len(self) + self._first
        return number


def _pprof(profile: Profile) -> bytes:
    """The message Profile of profile.proto. The numbers of the fields are that file's."""
    strings, functions, locations = _Table(0), _Table(1), _Table(1)
    strings[""]  # the first one has to be

    def value_type(pair: tuple[str, str]) -> bytes:
        return _field(1, strings[pair[0]]) + _field(2, strings[pair[1]])

    def label(key: str, value: str | int) -> bytes:
        if isinstance(value, int):
            return _field(1, strings[key]) + _field(3, value)
        return _field(1, strings[key]) + _field(2, strings[value])

    types = _TYPES[profile.kind]
    parts = [_field(1, value_type(pair)) for pair in types]
    for (frames, labels), values in profile.samples.items():
        message = _packed(1, (locations[frame] for frame in frames)) + _packed(2, values)
        message += b"".join(_field(3, label(*pair)) for pair in labels)
        parts.append(_field(2, message))
    program = sys.argv[0] if sys.argv and sys.argv[0] else "python"
    has = b"".join(_field(number, 1) for number in (7, 8, 9))  # functions, files, lines
    parts.append(_field(3, _field(1, 1) + _field(5, strings[program]) + has))
    for frame, number in locations.items():
        function = functions[frame[:3]]
        line = _field(1, function) + _field(2, frame.line)
        parts.append(_field(4, _field(1, number) + _field(2, 1) + _field(4, line)))
    for (name, file, first_line), number in functions.items():
        named = _field(2, strings[name]) + _field(3, strings[name])
        where = _field(4, strings[file]) + _field(5, first_line)
        parts.append(_field(5, _field(1, number) + named + where))
    parts.append(_field(9, profile.begun_ns) + _field(10, profile.duration_ns))
    if profile.period_ns:
        parts.append(_field(11, value_type(types[1])) + _field(12, profile.period_ns))
    parts.append(_field(14, strings[types[profile.kind != "leak"][0]]))
    texts = [_field(6, text.encode(errors="backslashreplace")) for text in strings]
    return gzip.compress(b"".join([*parts, *texts]), mtime=0)


def _speedscope(profile: Profile) -> bytes:
    """All goroutines together, and then those by themselves that have most of it."""
    numbers = _Table(0)
    which = profile.kind != "leak"
    together: dict[str, dict[tuple[int, ...], int]] = {"": {}}
    for (frames, labels), values in profile.samples.items():
        stack = tuple(numbers[frame] for frame in reversed(frames))
        named = dict(labels)
        who = str(named.get("goroutine", named.get("thread", "")))
        for name in {"", who}:
            stacks = together.setdefault(name, {})
            stacks[stack] = stacks.get(stack, 0) + values[which]
    ordered = sorted(together.items(), key=lambda item: (item[0] != "", -sum(item[1].values())))
    title = f"{profile.kind} profile of {sys.argv[0] if sys.argv else 'python'}"
    profiles = [
        {
            "type": "sampled",
            "name": name or f"all ({profile.kind})",
            "unit": "nanoseconds" if which else "none",
            "startValue": 0,
            "endValue": sum(stacks.values()),
            "samples": list(stacks),
            "weights": list(stacks.values()),
        }
        for name, stacks in ordered[: _MOST_SHOWN_GOROUTINES + 1]
    ]
    frames_ = [
        {"name": frame.function, "file": frame.file, "line": frame.line} for frame in numbers
    ]
    what = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": title,
        "exporter": f"golibx@{__version__}",
        "activeProfileIndex": 0,
        "shared": {"frames": frames_},
        "profiles": profiles,
    }
    return json.dumps(what).encode()


# ---- the plugin ----


def _why_unwritable(path: str) -> str:
    """Nothing is written yet: the user may only check the configuration."""
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        return "it is a folder"
    if not os.path.isdir(folder):
        return f"there is no folder {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"no permission for {folder}"
    return ""


class Plugin:
    """One run's profiles."""

    def __init__(self) -> None:
        self._collector: Collector | None = None
        self._writer: threading.Thread | None = None

    @hookimpl
    def golib_configure(self, config: Config, name: str) -> None:
        settings = config.plugin(name, KEYS)
        table = f"plugins.{name}"
        kinds = list(dict.fromkeys(settings.kinds))
        allowed = ", ".join(f'"{kind}"' for kind in KINDS)
        for kind in kinds:
            if kind not in KINDS:
                problem = f"{kind} is no kind of profile"
                raise config.error(f"{table}.kinds", problem, value=kind, allowed=allowed)
        if not kinds:
            problem = "is empty: there would be no profile"
            raise config.error(f"{table}.kinds", problem, value=[], allowed=allowed)
        if "leak" in kinds and not settings.duration_ns:
            problem = (
                "has leak, which needs a duration: when the run ends, what is left has been "
                "cancelled already, and [debug] leaks = true tells of it"
            )
            raise config.error(f"{table}.kinds", problem, value=kinds)
        self._format: str = settings.format
        output: str = settings.output
        if not output or (len(kinds) > 1 and "{kind}" not in output):
            problem = "needs {kind}: each kind has a file" if output else "must not be empty"
            raise config.error(f"{table}.output", problem, value=output)
        output = output.replace("{pid}", str(os.getpid())) + EXTENSIONS[self._format]
        self._paths = {kind: output.replace("{kind}", kind) for kind in kinds}
        for path in self._paths.values():
            if problem := _why_unwritable(path):
                problem = f"can't be written: {problem}"
                raise config.error(f"{table}.output", problem, value=settings.output)
        self._hz: int = settings.hz
        self._interval_ns: int = settings.interval_ns
        self._duration_ns: int = settings.duration_ns

    @hookimpl
    def golib_start(self, runtime: Runtime) -> None:
        self._collector = Collector(
            list(self._paths),
            hz=self._hz,
            interval_ns=self._interval_ns,
            duration_ns=self._duration_ns,
            sample=runtime.sample,
            start_thread=runtime.start_thread,
        )
        self._collector.start()
        self._writer = runtime.start_thread(self._write)

    @hookimpl
    def golib_stop(self) -> None:
        if self._collector is not None and self._writer is not None:
            self._collector.interrupt()
            self._writer.join()

    def _write(self) -> None:
        """The thread."""
        collector = self._collector
        assert collector is not None
        collector.join()
        if collector.problem:
            _say(collector.problem)
        for kind, profile in collector.profiles.items():
            path = self._paths[kind]
            try:
                write(path, encode(profile, self._format))
            except OSError as exc:
                _say(f"{path} can't be written: {exc.strerror}")
            else:
                _say(f"the {kind} profile is in {path}")


def _say(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"golibx: profile: {text}\n")
        sys.stderr.flush()
