"""Reports goroutines that keep others from their turn, or do not get one, with their stacks.

A service thread looks at an interval at what each goroutine does, and since when:

- `hog`: it was computing at each look for so long. A wait that begins and ends between two looks is
  not seen, but goroutines that nothing ever preempts are no hogs where others run too.
- `late`: it was ready to run at each look for so long, and the scheduler has put no more goroutines
  on the processor meanwhile than stood in the queue. Else it may have run between two looks.
- `blocked`: it was at each look in a call that has lost its processor, for so long. `on_retake`
  tells when another call has, but not where a goroutine makes several before it asks for one.
- `stuck`: it kept the interpreter's lock in C code for so long, and nothing else could run. While
  that lasts no plugin can run either: it is reported right after. `on_preempt` tells which
  goroutine's code it was. Where no such event comes, all are shown that did not wait then.

It is a thread that looks, not a goroutine: goroutines wait for their turn, and would be late like
those that it looks for. A thread needs the interpreter's lock only.

Where nothing has run since the last look, the next one reads a few counters. Else it goes through
all goroutines. The pause after a look is a hundred times as long as the look at least: with very
many goroutines looks are rarer. No hook is called for a switch: the two that there are belong to
preemptions and retakes.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, NamedTuple, TextIO

from golibx import goroutines, stacks, stats
from golibx.config import Key
from golibx.hookspec import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Thread

    from golibx import Goroutine
    from golibx.config import Config
    from golibx.hookspec import Preempt, Retake
    from golibx.runtime import Runtime

__all__ = ["KEYS", "Plugin"]

_OFF = "it is not reported"
_SIGNALS = ("SIGUSR1", "SIGUSR2", "SIGTERM", "SIGINT", "SIGQUIT", "SIGABRT", "SIGALRM")

KEYS = (
    Key("interval", "duration", "100ms", "Time between two looks.", low="1ms", high="1m"),
    Key(
        "hog",
        "duration",
        "1s",
        "How long a goroutine may compute without a wait.",
        low="10ms",
        high="24h",
        zero=_OFF,
    ),
    Key(
        "late",
        "duration",
        "1s",
        "How long a goroutine may be ready to run without a turn.",
        low="10ms",
        high="24h",
        zero=_OFF,
    ),
    Key(
        "blocked",
        "duration",
        "10s",
        "How long a goroutine may be in a blocking call, as of C code.",
        low="10ms",
        high="24h",
        zero=_OFF,
    ),
    Key(
        "stuck",
        "duration",
        "1s",
        "How long C code may keep the interpreter's lock.",
        low="10ms",
        high="24h",
        zero=_OFF,
    ),
    Key(
        "repeat",
        "duration",
        "1m",
        "A goroutine is reported once in this time, for each of the four; what is left out is "
        "counted, and said at the end.",
        low="10ms",
        high="24h",
    ),
    Key("output", "path", "", "The file that reports are appended to. Empty: stderr."),
    Key(
        "action",
        "choice",
        "report",
        "What follows a report: nothing, `signal` to the own process, or its end by SIGKILL.",
        choices=("report", "signal", "kill"),
    ),
    Key("signal", "choice", "SIGUSR1", "The signal of `action`.", choices=_SIGNALS),
)
_REST = 100
"""So many times as long as a look is the pause after it, at least."""
_MOST_COST_NS = 20_000.0
"""What it is taken to cost at most to look at one goroutine, until it is known."""
_MOST_KEPT = 64
"""Stacks that are kept for a `stuck` that has no event yet."""


_MOST_DOUBTS = 4
_FEW_SWITCHES = 8
_EVENTS_TAKE_NS = 200_000_000
"""How long an event may take to be delivered, behind those that are ready to run."""
_STATES = {
    "running": "hog",
    "runnable (preempted)": "hog",
    "runnable": "late",
    "syscall": "blocked",
}


class _Seen(NamedTuple):
    """A goroutine that did not wait when it was looked at, and has not been seen otherwise since.

    Attributes:
        what: what it is at: "hog", "late" or "blocked".
        since_ns: when it was seen first.
        sure_ns: at which look it was sure that it had gone on with that.
        doubts: at how many looks since then it was not.
        switches: what the counter said when it was seen first.
        ahead: how many goroutines were ready to run then, itself included.
        has_run: whether it was running at the last look.
    """

    what: str
    since_ns: int
    sure_ns: int
    doubts: int
    switches: int
    ahead: int
    has_run: bool


class _Due(NamedTuple):
    goroutine: Goroutine[object]
    lasted_ns: int


class Plugin:
    """One run's watchdog."""

    def __init__(self) -> None:
        self._output: TextIO | None = None
        self._watcher: Thread | None = None
        self._seen: dict[int, _Seen] = {}
        self._blocked_since: dict[int, int] = {}
        self._preempted_at: dict[int, int] = {}
        self._switches = -1
        self._looked_ns = 0
        self._cost_ns = _MOST_COST_NS
        self._names: dict[int, str] = {}
        self._stuck: list[Preempt] = []
        self._kept: dict[int, tuple[str, str]] = {}
        self._stood_still = (0, 0)
        self._dropped = 0
        self._last: dict[tuple[str, int], int] = {}
        self._left_out: set[tuple[str, int]] = set()
        self._left_out_count = 0
        self._left_out_goroutines: set[int] = set()

    @hookimpl
    def golib_configure(self, config: Config, name: str) -> None:
        settings = config.plugin(name, KEYS)
        self._interval_ns: int = settings.interval_ns
        self._limits: dict[str, int] = {
            "hog": settings.hog_ns,
            "late": settings.late_ns,
            "blocked": settings.blocked_ns,
        }
        self._stuck_ns: int = settings.stuck_ns
        self._repeat_ns: int = settings.repeat_ns
        self._signal: signal.Signals | None = None
        if settings.action == "signal":
            self._signal = signal.Signals[settings.signal]
        elif settings.action == "kill":
            self._signal = signal.SIGKILL
        if settings.output:
            try:
                self._output = open(settings.output, "a", encoding="utf-8")  # noqa: SIM115
            except OSError as exc:
                problem = f"can't be written: {exc.strerror}"
                key = f"plugins.{name}.output"
                raise config.error(key, problem, value=settings.output) from exc

    @hookimpl
    def golib_start(self, runtime: Runtime) -> None:
        self._waker = os.pipe()
        self._pause_ns = self._interval_ns
        self._watcher = runtime.start_thread(self._watch)

    @hookimpl
    def golib_stop(self) -> None:
        if self._watcher is not None:
            os.write(self._waker[1], b".")
            self._watcher.join()
            for end in self._waker:
                os.close(end)
        self._report_stuck(sys.maxsize)  # what ended right before the program did
        if self._left_out_count:
            reports = _count(self._left_out_count, "report")
            about = _count(len(self._left_out_goroutines), "goroutine")
            self._write(f"watchdog: {reports} left out, about {about} reported before\n")
        if self._output is not None:
            self._output.close()

    @hookimpl
    def on_retake(self, event: Retake) -> None:
        if event.lane == "python":
            self._blocked_since[event.goroutine_id] = event.time_ns - event.blocked_ns

    @hookimpl
    def on_preempt(self, event: Preempt) -> None:
        if event.lane == "python":
            self._preempted_at[event.goroutine_id] = event.time_ns
            if event.ran_ns >= self._stuck_ns > 0:
                self._stuck.append(event)

    # ---- looks ----

    def _watch(self) -> None:
        """The thread."""
        ends = select.poll()
        ends.register(self._waker[0], select.POLLIN)
        now_ns = time.monotonic_ns()
        while True:
            due_ns = now_ns + self._pause_ns  # since the lock may be lost in a look as well
            if ends.poll(self._pause_ns / 1e6):
                return
            now_ns = time.monotonic_ns()
            counters = stats()
            self._report_stuck(now_ns)
            # Where many goroutines took turns meanwhile, it is this thread that was late.
            few = counters["switches"] - self._switches <= _FEW_SWITCHES
            if few and now_ns - due_ns >= self._stuck_ns > 0:
                self._stand_still(due_ns, now_ns)
            self._look(counters, now_ns)

    def _look(self, counters: dict[str, int], now_ns: int) -> None:
        self._pause_ns = self._interval_ns
        if counters["events_dropped"] != self._dropped:
            # Among them was perhaps that a call had ended and another begun.
            self._dropped = counters["events_dropped"]
            self._blocked_since.clear()
            self._seen.clear()
        has_switched = counters["switches"] != self._switches
        is_calm = not (counters["runq"] or counters["threads_blocked"] or self._seen)
        if is_calm and not has_switched:
            self._looked_ns = now_ns
            return
        began_ns = time.monotonic_ns()
        looked_at = goroutines()
        seen: dict[int, _Seen] = {}
        due: dict[str, list[_Due]] = {}
        for goroutine in looked_at:
            what, is_running = _what(goroutine)
            if not what:
                continue
            number = goroutine.id
            entry = self._follow(number, what, is_running, has_switched, counters, now_ns)
            seen[number] = entry
            since_ns = entry.since_ns
            if entry.what == "blocked":
                since_ns = max(since_ns, self._blocked_since.get(number, 0))  # another call
            lasted_ns = now_ns - since_ns
            if (
                lasted_ns >= self._limits[entry.what] > 0
                and entry.since_ns < now_ns == entry.sure_ns
            ):
                due.setdefault(entry.what, []).append(_Due(goroutine, lasted_ns))
        # The least, since others may have run meanwhile.
        each_ns = (time.monotonic_ns() - began_ns) / max(len(looked_at), 1)
        self._cost_ns = min(self._cost_ns, each_ns)
        self._pause_ns = max(self._interval_ns, int(len(looked_at) * self._cost_ns * _REST))
        self._switches = counters["switches"]
        self._names = {each.id: each.name for each in looked_at if each.id in seen}
        self._seen = seen
        self._blocked_since = {k: v for k, v in self._blocked_since.items() if k in seen}
        self._preempted_at = {k: v for k, v in self._preempted_at.items() if k in seen}
        self._left_out = {key for key in self._left_out if key[1] in seen}
        self._looked_ns = now_ns
        for what, those in due.items():
            if those := [each for each in those if self._is_due(what, each.goroutine.id, now_ns)]:
                self._report(what, those)

    def _follow(
        self,
        number: int,
        what: str,
        is_running: bool,
        has_switched: bool,
        counters: dict[str, int],
        now_ns: int,
    ) -> _Seen:
        """What is known of a goroutine after this look."""
        switches = counters["switches"]
        new = _Seen(what, now_ns, now_ns, 0, switches, counters["runq"], is_running)
        entry = self._seen.get(number)
        if entry is None:
            return new
        if entry.what != what:
            # One that computes has lost its processor, perhaps, while this thread has the lock.
            if (entry.what, what) == ("hog", "blocked") and entry.doubts < _MOST_DOUBTS:
                return entry._replace(doubts=entry.doubts + 1)
            return new
        if what == "late" and switches - entry.switches > entry.ahead:
            return new
        if (
            what == "hog"
            and is_running
            and entry.has_run
            and has_switched
            and self._preempted_at.get(number, 0) < entry.sure_ns
        ):
            # Others ran meanwhile. If it was not preempted for them, it has waited; but that is
            # told somewhat later than it happens.
            return entry._replace(doubts=entry.doubts + 1) if entry.doubts < _MOST_DOUBTS else new
        return entry._replace(sure_ns=now_ns, doubts=0, has_run=is_running)

    def _is_due(self, what: str, number: int, now_ns: int) -> bool:
        """Whether to report it. One that is not is counted once, however often it is seen."""
        key = (what, number)
        last_ns = self._last.get(key)
        if last_ns is None or now_ns - last_ns >= self._repeat_ns:
            self._last = {
                each: at_ns
                for each, at_ns in self._last.items()
                if now_ns - at_ns < self._repeat_ns
            }
            self._last[key] = now_ns
            self._left_out.add(key)
            return True
        if key not in self._left_out:
            self._left_out.add(key)
            self._count_left_out(number)
        return False

    def _count_left_out(self, number: int) -> None:
        self._left_out_count += 1
        self._left_out_goroutines.add(number)

    # ---- C code that keeps the interpreter's lock ----

    def _stand_still(self, due_ns: int, now_ns: int) -> None:
        """This thread was late, so nothing ran: an event will tell which C code it was."""
        self._stood_still = (due_ns, now_ns)
        # What the others waited they do not owe to themselves.
        self._seen = {k: seen for k, seen in self._seen.items() if seen.what == "blocked"}
        began = [g for g in goroutines() if _what(g)[0] and g.frame is not None]
        began.sort(key=lambda g: not _what(g)[1])
        self._kept = {g.id: (g.name, stacks([g])) for g in began[:_MOST_KEPT]}

    def _report_stuck(self, now_ns: int) -> None:
        """What an earlier look has found, once an event of then has been delivered."""
        due_ns, seen_ns = self._stood_still
        if not due_ns:
            # It may be told before it is seen.
            self._stuck = [event for event in self._stuck if event.time_ns >= self._looked_ns]
            return
        if not self._stuck and now_ns - seen_ns < _EVENTS_TAKE_NS:
            return
        stuck, self._stuck = self._stuck, []
        kept, self._kept = self._kept, {}
        self._stood_still = (0, 0)
        if stuck:
            longest = max(stuck, key=lambda event: event.ran_ns)
            number, lasted_ns = longest.goroutine_id, longest.ran_ns
        else:
            number, lasted_ns = 0, seen_ns - due_ns
        is_due = self._is_due("stuck", number, seen_ns)
        self._left_out.discard(("stuck", number))  # each time is another one
        if not is_due:
            return
        lasted = _duration(lasted_ns)
        if number:
            name, text = kept.get(number, (self._names.get(number, "?"), "    (it has ended)\n"))
            says = (
                f"goroutine {number} ({name}) kept the interpreter's lock in C code for {lasted}; "
                "right after:"
            )
        else:
            says = (
                f"nothing ran for {lasted}: C code kept the interpreter's lock, or the machine "
                f"gave the process no time; while it lasts, `golibx dump {os.getpid()}` tells; "
                "those that did not wait right after:"
            )
            text = "\n".join(stack for _, stack in kept.values()) or "    (none)\n"
        self._write(f"watchdog: {says}\n\n{text}\n")
        self._act()

    # ---- reports ----

    def _report(self, what: str, those: Sequence[_Due]) -> None:
        lasted = _duration(max(each.lasted_ns for each in those))
        if len(those) == 1:
            goroutine = those[0].goroutine
            who, has, time_ = f"goroutine {goroutine.id} ({goroutine.name})", "has", "for"
        else:
            who, has, time_ = f"{len(those)} goroutines", "have", "for up to"
        says = {
            "hog": f"{has} computed without a wait {time_} {lasted}",
            "late": f"{has} been ready to run {time_} {lasted} without a turn",
            "blocked": f"{has} been in blocking calls {time_} {lasted}",
        }[what]
        self._write(f"watchdog: {who} {says}:\n\n{stacks([each.goroutine for each in those])}\n")
        self._act()

    def _act(self) -> None:
        if self._signal is not None:
            os.kill(os.getpid(), self._signal)

    def _write(self, text: str) -> None:
        output = self._output or sys.stderr
        output.write(text)
        output.flush()


def _what(goroutine: Goroutine[object]) -> tuple[str, bool]:
    """What it is at, "hog", "late", "blocked", or "" if it waits or has ended; whether it runs."""
    if goroutine.waiting:
        return "", False
    state = goroutine.state
    return _STATES.get(state, ""), state == "running"


def _duration(ns: int) -> str:
    return f"{ns / 1e9:.2f} s" if ns >= 1_000_000_000 else f"{ns / 1e6:.0f} ms"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
