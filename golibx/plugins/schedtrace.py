"""A line about the scheduler at an interval, like Go's GODEBUG=schedtrace.

    SCHED 1004ms: gomaxprocs=2 goroutines=12 threads=3 runqueue=4 switches=90321 preemptions=96 …

The time is since the start of the run. `goroutines`, `threads` and `runqueue` (those ready to run)
are as of now; the others count from the start: switches from one goroutine to another, preemptions,
retakes of a processor from a blocking call, polls of the network, and idles: times that no
goroutine could run. Once the native lane has started, the line goes on with that, as Go's does:
processors without work, threads, those that look for work and those without any, the goroutines in
the queue of all processors and in that of each:

    … native: goroutines=9 idleprocs=0 threads=6 spinningthreads=0 idlethreads=2 runqueue=3 [1 2]

A value that is changed while the program runs (golibx.tune, [tune], a plugin) has a line as well:

    SCHED 1201ms: tune preempt.slice=2ms was=10ms by plugin tuner

The last line has totals, which the plugin counts by its hooks:

    SCHED 5008ms: total goroutines=212 raised=0 cancelled=2 preempted=187 retaken=1 in_vain=0 …

Events of the native lane are counted under the same names with `native_` before them.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

from golibx import gomaxprocs, sleep
from golibx.config import Key
from golibx.hookspec import hookimpl, written

if TYPE_CHECKING:
    from golibx import Goroutine
    from golibx.config import Config
    from golibx.hookspec import (
        GoroutineExit,
        GoroutineStart,
        NetpollReady,
        Preempt,
        Retake,
        Steal,
        Tune,
    )
    from golibx.runtime import Runtime

__all__ = ["KEYS", "Plugin"]

KEYS = (
    Key("interval", "duration", "1s", "Time between two lines.", low="10ms", high="1h"),
    Key("output", "path", "", "The file that the lines are appended to. Empty: stderr."),
    Key("totals", "bool", True, "Whether to end with a line of totals, counted by hooks."),
)
_COUNTERS = (
    ("goroutines", "goroutines"),
    ("threads", "threads"),
    ("runqueue", "runq"),
    ("switches", "switches"),
    ("preemptions", "preemptions"),
    ("retakes", "retakes"),
    ("polls", "netpolls"),
    ("idles", "idle"),
)
"""What a line shows, and its name in stats()."""
_NATIVE_COUNTERS = (
    ("goroutines", "native_goroutines"),
    ("idleprocs", "native_procs_idle"),
    ("threads", "native_threads"),
    ("spinningthreads", "native_threads_spinning"),
    ("idlethreads", "native_threads_idle"),
    ("runqueue", "native_queue_global"),
)
_TOTALS = ("goroutines", "raised", "cancelled", "preempted", "retaken", "in_vain", "ready")
_NATIVE_TOTALS = ("goroutines", "preempted", "retaken", "ready", "stolen")


class Plugin:
    """One run's trace."""

    def __init__(self) -> None:
        self._totals = dict.fromkeys(_TOTALS, 0)
        self._native_totals = dict.fromkeys(_NATIVE_TOTALS, 0)
        self._began_ns = 0
        self._output: TextIO | None = None
        self._tracer: Goroutine[None] | None = None

    @hookimpl
    def golib_configure(self, config: Config, name: str) -> None:
        settings = config.plugin(name, KEYS)
        self._interval_ns: int = settings.interval_ns
        self._wants_totals: bool = settings.totals
        if settings.output:
            try:
                self._output = open(settings.output, "a", encoding="utf-8")  # noqa: SIM115
            except OSError as exc:
                problem = f"can't be written: {exc.strerror}"
                key = f"plugins.{name}.output"
                raise config.error(key, problem, value=settings.output) from exc

    @hookimpl
    def golib_start(self, runtime: Runtime) -> None:
        self._began_ns = time.monotonic_ns()
        self._tracer = runtime.go_system(self._trace, runtime)

    def _trace(self, runtime: Runtime) -> None:
        line_ns = self._began_ns
        while True:
            # From the start and not from the line before, so that the lines do not drift.
            line_ns += self._interval_ns
            sleep(max(line_ns - time.monotonic_ns(), 0) / 1e9)
            stats = runtime.stats()
            line = f"gomaxprocs={gomaxprocs()} {_counters(stats, _COUNTERS)}"
            if stats["native_threads"]:
                line += f" native: {_counters(stats, _NATIVE_COUNTERS)} {_run_queues()}"
            self._write(line)

    @hookimpl
    def golib_stop(self) -> None:
        if self._tracer is not None:
            self._tracer.cancel()
            self._tracer.join()
        if self._wants_totals:
            line = "total " + " ".join(f"{name}={n}" for name, n in self._totals.items())
            if any(self._native_totals.values()):
                totals = (f"native_{name}={n}" for name, n in self._native_totals.items())
                line = f"{line} {' '.join(totals)}"
            self._write(line)
        if self._output is not None:
            self._output.close()

    @hookimpl
    def on_goroutine_start(self, event: GoroutineStart) -> None:
        self._of(event.lane)["goroutines"] += 1

    @hookimpl
    def on_goroutine_exit(self, event: GoroutineExit) -> None:
        if event.outcome != "returned":
            self._totals[event.outcome] += 1

    @hookimpl
    def on_preempt(self, event: Preempt) -> None:
        self._of(event.lane)["preempted"] += 1

    @hookimpl
    def on_retake(self, event: Retake) -> None:
        self._of(event.lane)["retaken"] += 1
        self._totals["in_vain"] += event.in_vain

    @hookimpl
    def on_netpoll_ready(self, event: NetpollReady) -> None:
        self._of(event.lane)["ready"] += 1

    @hookimpl
    def on_steal(self, event: Steal) -> None:
        self._native_totals["stolen"] += event.stolen

    @hookimpl
    def on_tune(self, event: Tune) -> None:
        new, old = written(event.key, event.new), written(event.key, event.old)
        self._write(f"tune {event.key}={new} was={old} by {event.who}", event.time_ns)

    def _of(self, lane: str) -> dict[str, int]:
        return self._totals if lane == "python" else self._native_totals

    def _write(self, text: str, time_ns: int = 0) -> None:
        milliseconds = ((time_ns or time.monotonic_ns()) - self._began_ns) // 1_000_000
        output = self._output or sys.stderr
        output.write(f"SCHED {milliseconds}ms: {text}\n")
        output.flush()


def _counters(stats: dict[str, int], which: tuple[tuple[str, str], ...]) -> str:
    return " ".join(f"{name}={stats[counter]}" for name, counter in which)


def _run_queues() -> str:
    # It imports ctypes, which a program without native goroutines does without.
    from golibx import native

    return f"[{' '.join(map(str, native.run_queues()))}]"
