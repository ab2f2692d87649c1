"""A line about the scheduler at an interval, like Go's GODEBUG=schedtrace.

    SCHED 1004ms: gomaxprocs=2 goroutines=12 threads=3 runqueue=4 switches=90321 preemptions=96 …

The time is since the start of the run. `goroutines`, `threads` and `runqueue` (those ready to run)
are as of now; the others count from the start: switches from one goroutine to another, preemptions,
retakes of a processor from a blocking call, polls of the network, and idles: times that no
goroutine could run.

The last line has totals, which the plugin counts by its hooks:

    SCHED 5008ms: total goroutines=212 raised=0 cancelled=2 preempted=187 retaken=1 in_vain=0 …
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

from golibx import gomaxprocs, sleep
from golibx.config import Key
from golibx.hookspec import hookimpl

if TYPE_CHECKING:
    from golibx import Goroutine
    from golibx.config import Config
    from golibx.hookspec import GoroutineExit, GoroutineStart, NetpollReady, Preempt, Retake
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


class Plugin:
    """One run's trace."""

    def __init__(self) -> None:
        self._totals = dict.fromkeys(
            ("goroutines", "raised", "cancelled", "preempted", "retaken", "in_vain", "ready"), 0
        )
        self._began_ns = 0
        self._output: TextIO | None = None
        self._tracer: Goroutine[None] | None = None

    @hookimpl
    def golib_configure(self, config: Config) -> None:
        settings = config.plugin("schedtrace", KEYS)
        self._interval_ns: int = settings.interval_ns
        self._wants_totals: bool = settings.totals
        if settings.output:
            try:
                self._output = open(settings.output, "a", encoding="utf-8")  # noqa: SIM115
            except OSError as exc:
                problem = f"can't be written: {exc.strerror}"
                raise config.error(
                    "plugins.schedtrace.output", problem, value=settings.output
                ) from exc

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
            counters = " ".join(f"{name}={stats[counter]}" for name, counter in _COUNTERS)
            self._write(f"gomaxprocs={gomaxprocs()} {counters}")

    @hookimpl
    def golib_stop(self) -> None:
        if self._tracer is not None:
            self._tracer.cancel()
            self._tracer.join()
        if self._wants_totals:
            self._write("total " + " ".join(f"{name}={n}" for name, n in self._totals.items()))
        if self._output is not None:
            self._output.close()

    @hookimpl
    def on_goroutine_start(self, event: GoroutineStart) -> None:
        self._totals["goroutines"] += 1

    @hookimpl
    def on_goroutine_exit(self, event: GoroutineExit) -> None:
        if event.outcome != "returned":
            self._totals[event.outcome] += 1

    @hookimpl
    def on_preempt(self, event: Preempt) -> None:
        self._totals["preempted"] += 1

    @hookimpl
    def on_retake(self, event: Retake) -> None:
        self._totals["retaken"] += 1
        self._totals["in_vain"] += event.in_vain

    @hookimpl
    def on_netpoll_ready(self, event: NetpollReady) -> None:
        self._totals["ready"] += 1

    def _write(self, text: str) -> None:
        milliseconds = (time.monotonic_ns() - self._began_ns) // 1_000_000
        output = self._output or sys.stderr
        output.write(f"SCHED {milliseconds}ms: {text}\n")
        output.flush()
