"""What golibx.stats() counts, as Prometheus metrics: over HTTP, in a text file, or both.

    # HELP golibx_switches_total Times a goroutine was put on the processor.
    # TYPE golibx_switches_total counter
    golibx_switches_total 90321.0

All is collected when a client asks: between two scrapes the plugin does nothing, unless `latency`
has one wake-up in eight measured for `golibx_sched_latency_seconds`. Requests are answered by a
service thread, `golibx.plugins._http`.

Only this machine may connect, unless `remote = true`: an address that others reach is refused
before the run begins. Where only this machine may, the request has to name it too (`Host:`), since
a page in a browser can have a name of its own lead to 127.0.0.1.

It needs the package prometheus-client: `pip install 'golibx[metrics]'`.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from golibx import goroutines
from golibx.config import Key
from golibx.hookspec import hookimpl
from golibx.plugins._http import (
    Limits,
    Request,
    Response,
    Server,
    is_local_name,
    is_same_origin,
    open_listener,
    problem_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from golibx.config import Config
    from golibx.runtime import Runtime

__all__ = ["KEYS", "METRICS", "Plugin"]

KEYS = (
    Key(
        "listen",
        "string",
        "127.0.0.1:9464",
        "Where requests for `/metrics` are answered, `host:port`. Empty: nowhere.",
    ),
    Key("remote", "bool", False, "Whether `listen` may be an address that other hosts reach."),
    Key(
        "latency",
        "bool",
        False,
        "Whether `golibx_sched_latency_seconds` is measured, which each wake-up pays for.",
    ),
    Key("file", "path", "", "A file for the metrics, always complete. Empty: none."),
    Key("interval", "duration", "15s", "Time between two writings of it.", low="100ms", high="1h"),
)

METRICS: Mapping[str, tuple[str, str, str]] = {
    "threads": ("gauge", "threads", "OS threads that carry goroutines."),
    "threads_idle": ("gauge", "threads_idle", "Of the threads, those without a goroutine."),
    "threads_blocked": (
        "gauge",
        "threads_blocked",
        "Of the threads, those in a blocking call that has lost its processor.",
    ),
    "threads_waiting": (
        "gauge",
        "threads_waiting",
        "Other threads that wait for a channel, a lock or the like.",
    ),
    "switches": ("counter", "switches", "Times a goroutine was put on the processor."),
    "spawns": ("counter", "spawns", "Goroutines that were started."),
    "preemptions": (
        "counter",
        "preemptions",
        "Goroutines that gave way since their time slice was over.",
    ),
    "preempt_requests": ("counter", "preempt_requests", "Times that one was asked to give way."),
    "handoffs": (
        "counter",
        "handoffs",
        "Times the processor was passed on from a goroutine that did not give way when asked.",
    ),
    "retakes": ("counter", "retakes", "Times the processor was taken from a blocking call."),
    "retakes_in_vain": (
        "counter",
        "retakes_in_vain",
        "Of the retakes, those whose call returned before another thread could use the processor.",
    ),
    "lock_offers": (
        "counter",
        "lock_offers",
        "Times the interpreter's lock was offered to threads that wait for it.",
    ),
    "threads_kept": (
        "counter",
        "threads_kept",
        "Waits that kept their thread, since C code lay below.",
    ),
    "threads_not_kept": (
        "counter",
        "threads_not_kept",
        "Of such waits, those that moved all the same, for want of threads.",
    ),
    "threads_awaited": (
        "counter",
        "threads_awaited",
        "Times that goroutines could run and had no thread.",
    ),
    "steals": ("counter", "steals", "Native goroutines' moves between processors."),
    "netpolls": ("counter", "netpolls", "Looks at the network."),
    "netpoll_wakeups": ("counter", "netpoll_wakeups", "Goroutines that those made ready."),
    "timers": ("gauge", "timers", "Pending timers: sleeps, time-outs, tickers."),
    "runq": ("gauge", "runnable_goroutines", "Goroutines that are ready to run."),
    "idle": ("counter", "idle", "Times that no goroutine could run."),
    "tunings": ("counter", "tunings", "Values that were changed while the program runs."),
    "events_recorded": ("counter", "events_recorded", "Events recorded for hooks of plugins."),
    "events_dropped": ("counter", "events_dropped", "Events that found the ring full."),
    "stacks_total": ("gauge", "stacks", "Stacks of goroutines that exist."),
    "stacks_free": ("gauge", "stacks_free", "Of the stacks, those without a goroutine."),
    "stack_bytes": ("gauge", "stack_size_bytes", "The size of each stack."),
    "native_gomaxprocs": ("gauge", "native_gomaxprocs", "Processors of the native lane."),
    "native_goroutines": ("gauge", "native_goroutines", "Native goroutines that live."),
    "native_spawns": ("counter", "native_spawns", "Native goroutines that were started."),
    "native_switches": (
        "counter",
        "native_switches",
        "Times a native goroutine was put on a processor.",
    ),
    "native_steals": ("counter", "native_steals", "Native goroutines' moves between processors."),
    "native_threads": ("gauge", "native_threads", "Native threads, spare ones included."),
    "native_threads_idle": ("gauge", "native_threads_idle", "Of these, those without work."),
    "native_thread_limit_hits": (
        "counter",
        "native_thread_limit_hits",
        "Times a native thread was wanted and there was none.",
    ),
    "native_handoffs": (
        "counter",
        "native_handoffs",
        "Native processors passed on by a thread that stopped.",
    ),
    "native_retakes": (
        "counter",
        "native_retakes",
        "Native processors taken from system calls.",
    ),
    "native_netpolls": ("counter", "native_netpolls", "The native lane's looks at the network."),
    "native_netpoll_wakeups": (
        "counter",
        "native_netpoll_wakeups",
        "Native goroutines that those made ready.",
    ),
    "native_timers": ("gauge", "native_timers", "Pending timers of the native lane."),
    "native_timer_fires": ("counter", "native_timer_fires", "Native timers that fired."),
    "native_timer_steals": (
        "counter",
        "native_timer_steals",
        "Of these, those that fired on another processor than they were set on.",
    ),
    "native_preempt_requests": (
        "counter",
        "native_preempt_requests",
        "Signals sent to native goroutines that had their time slice.",
    ),
    "native_preempt_yields": (
        "counter",
        "native_preempt_yields",
        "Native goroutines preempted inside registered text, by a switch.",
    ),
    "native_preempt_klt": (
        "counter",
        "native_preempt_klt",
        "Native goroutines preempted with their thread.",
    ),
    "native_preempt_coop": (
        "counter",
        "native_preempt_coop",
        "Native goroutines that gave way at a call of golibx after the request.",
    ),
    "native_stacks": ("gauge", "native_stacks", "Stacks of native goroutines that exist."),
    "native_stacks_free": ("gauge", "native_stacks_free", "Of these, those without a goroutine."),
    "native_procs_idle": ("gauge", "native_procs_idle", "Native processors without a goroutine."),
    "native_threads_spinning": (
        "gauge",
        "native_threads_spinning",
        "Native threads that look for work.",
    ),
    "native_queue_global": (
        "gauge",
        "native_queue_global",
        "Native goroutines in the queue of all processors.",
    ),
    "native_queue_local": (
        "gauge",
        "native_queue_local",
        "Native goroutines in the queues of single processors.",
    ),
    "native_events_recorded": (
        "counter",
        "native_events_recorded",
        "Events of the native lane recorded for hooks of plugins.",
    ),
    "native_events_dropped": (
        "counter",
        "native_events_dropped",
        "Events of the native lane that found their processor's ring full.",
    ),
}
"""By their keys in golibx.stats(): the kind, the name without `golibx_` and `_total`, and the help.

`goroutines` is golibx_goroutines, and native_preempt_refused_REASON are one metric together.
"""
_REFUSED = "native_preempt_refused_"
_LATENCY_BOUNDS = tuple(1 << bits for bits in range(10, 36))
"""Nanoseconds, 1 µs to 34 s. Those of runtime.latencies() are one less than a power of two."""
_LIMITS = Limits(connections=16, body_bytes=8192, requests=0, timeout_ns=2_000_000_000)


class _Collector:
    """What prometheus_client asks at each scrape."""

    def __init__(self, runtime: Runtime, *, has_latency: bool) -> None:
        self._runtime = runtime
        self._has_latency = has_latency

    def describe(self) -> list[Metric]:
        """Nothing: registration must collect nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics as of now."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        stats = self._runtime.stats()
        states = GaugeMetricFamily(
            "golibx_goroutines", "Goroutines of the program, by what they do.", labels=["state"]
        )
        for state, number in sorted(Counter(g.state for g in goroutines()).items()):
            states.add_metric([state], number)
        yield states
        refused = CounterMetricFamily(
            "golibx_native_preempt_refused",
            "Signals to native goroutines that did not preempt them, by the reason.",
            labels=["reason"],
        )
        for key, value in stats.items():
            if key.startswith(_REFUSED):
                refused.add_metric([key.removeprefix(_REFUSED)], value)
            elif key in METRICS:
                kind, name, text = METRICS[key]
                family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
                yield family(f"golibx_{name}", text, value=value)
        yield refused
        if not self._has_latency:
            return
        buckets, total_ns = _buckets(self._runtime.latencies())
        latency = HistogramMetricFamily(
            "golibx_sched_latency_seconds",
            "How long goroutines waited from when they were ready until they ran; one in eight is "
            "measured. The sum is up to an eighth too large.",
        )
        latency.add_metric([], buckets, total_ns / 1e9)
        yield latency


def _buckets(latencies: Mapping[int, int]) -> tuple[list[tuple[str, float]], int]:
    """Cumulative counts by their bounds in seconds, and the sum of the latencies in nanoseconds."""
    ordered = sorted(latencies.items())
    buckets: list[tuple[str, float]] = []
    counted = position = 0
    for bound in _LATENCY_BOUNDS:
        while position < len(ordered) and ordered[position][0] < bound:
            counted += ordered[position][1]
            position += 1
        buckets.append((repr(bound / 1e9), counted))
    buckets.append(("+Inf", sum(latencies.values())))
    return buckets, sum(longest * count for longest, count in ordered)


class Plugin:
    """One run's metrics."""

    def __init__(self) -> None:
        self._server: Server | None = None
        self._has_failed = False

    @hookimpl
    def golib_configure(self, config: Config, name: str) -> None:
        settings = config.plugin(name, KEYS)
        try:
            import prometheus_client  # noqa: F401
        except ImportError as exc:
            problem = (
                f"{name} needs the package prometheus-client: pip install 'golibx[metrics]' ({exc})"
            )
            raise config.error("plugins.enabled", problem, value=name) from exc
        self._listen: str = settings.listen
        self._is_remote: bool = settings.remote
        self._has_latency: bool = settings.latency
        self._file: str = settings.file
        self._interval_ns: int = settings.interval_ns
        if not self._listen and not self._file:
            problem = "is empty, as `file` is: the metrics would go nowhere"
            raise config.error(f"plugins.{name}.listen", problem, value="")
        if self._listen:
            problem = problem_of(self._listen, is_remote=self._is_remote)
            if problem:
                raise config.error(f"plugins.{name}.listen", problem, value=self._listen)
        if self._file:
            folder = os.path.dirname(self._file)
            if not os.access(folder, os.W_OK | os.X_OK) or os.path.isdir(self._file):
                problem = "can't be written: it is a folder, or its folder can't be written to"
                raise config.error(f"plugins.{name}.file", problem, value=self._file)

    @hookimpl
    def golib_start(self, runtime: Runtime) -> None:
        from prometheus_client import CollectorRegistry

        if self._has_latency:
            runtime.latencies()  # from here on they are measured
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(runtime, has_latency=self._has_latency))
        listener = open_listener(self._listen) if self._listen else None
        if self._file:
            self._write()
        self._due_ns = time.monotonic_ns() + self._interval_ns
        server = Server(listener, self._answer, _LIMITS, name="metrics", tick=self._tick)
        server.start(runtime.start_thread)
        self._server = server

    @hookimpl
    def golib_stop(self) -> None:
        if self._server is None:
            return
        self._server.stop()
        if self._file:
            self._write()

    # ---- the file ----

    def _tick(self) -> int | None:
        """Writes it when it is due. By the server's thread."""
        if not self._file:
            return None
        if time.monotonic_ns() >= self._due_ns:
            self._due_ns = time.monotonic_ns() + self._interval_ns
            self._try_to_write()
        return self._due_ns - time.monotonic_ns()

    def _try_to_write(self) -> None:
        try:
            self._write()
            self._has_failed = False
        except OSError as exc:
            if not self._has_failed:
                self._has_failed = True
                sys.stderr.write(f"golibx: metrics can't be written: {exc}\n")

    def _write(self) -> None:
        """A reader finds the old text or the new one, whole."""
        from prometheus_client.openmetrics.exposition import generate_latest

        text = generate_latest(self._registry)
        partial = f"{self._file}.{os.getpid()}.partial"
        try:
            with open(partial, "wb") as file:
                file.write(text)
            os.replace(partial, self._file)
        except BaseException:
            with suppress(OSError):
                os.unlink(partial)
            raise

    # ---- HTTP ----

    def _answer(self, request: Request) -> Response:
        if not self._is_remote and not is_local_name(request.headers.get("host", "")):
            text = "only names of this machine: set remote = true to be reached by others\n"
            return Response(403, text)
        if not self._is_remote and not is_same_origin(request.headers):
            return Response(403, "a page of another site may not ask\n")
        if request.method not in ("GET", "HEAD"):
            return Response(405, "only GET and HEAD\n", headers={"Allow": "GET, HEAD"})
        if request.path not in ("/", "/metrics"):
            return Response(404, "the metrics are at /metrics\n")
        from prometheus_client.exposition import choose_encoder

        generate, content_type = choose_encoder(request.headers.get("accept", ""))
        body: Any = generate(self._registry)
        return Response(200, body, content_type)
