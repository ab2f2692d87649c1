"""Goroutines and scopes as spans of OpenTelemetry, and what golibx.stats() counts as its metrics.

The span of a goroutine is the child of the span that was current where the goroutine was started,
and current in the goroutine itself: what the program opens there is its child. OpenTelemetry keeps
the current span in a context variable, which goroutines inherit; the goroutine sets it before its
function is called (Runtime.watch_goroutines). A scope's span is current in its block.

Spans and metrics go to the providers that the program has set, by OpenTelemetry's own functions or
variables, before the run or in it. Nothing is exported but by those; where there are none, all this
comes to nothing.

Metrics are collected when a reader asks. Instruments cannot be taken back: there is one set of them
in a process, which tells the counts of one run after the other as one sum.

It needs the package opentelemetry-api: `pip install 'golibx[otel]'`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from golibx import AtomicInt, Cancelled, __version__, current, goroutines
from golibx.config import Key
from golibx.hookspec import hookimpl
from golibx.plugins.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.trace import Span

    from golibx import Goroutine
    from golibx.config import Config
    from golibx.runtime import Runtime

__all__ = ["INSTRUMENTS", "KEYS", "Plugin"]

KEYS = (
    Key(
        "spans",
        "choice",
        "all",
        "Which goroutines have a span: all, those that begin with labels, or none.",
        choices=("all", "labelled", "off"),
    ),
    Key("scopes", "bool", True, "Whether blocks of `golibx.scope()` have a span."),
    Key(
        "max_spans",
        "int",
        1000,
        "How many spans may begin in a second; goroutines and scopes beyond that have none, and "
        "are counted.",
        low=1,
        high=1_000_000_000,
        zero="any number",
    ),
    Key("metrics", "bool", True, "Whether there are metrics."),
    Key(
        "latency",
        "bool",
        False,
        "Whether `golibx.sched_latency` is measured, which each wake-up pays for.",
    ),
)

_NAME = "golibx"
_REFUSED = "native_preempt_refused_"
_REFUSED_NAME = "golibx.native.preempt_refused"


def _name_of(name: str) -> str:
    """In OpenTelemetry's manner, of one of the plugin metrics: a unit is no part of it."""
    name = name.removesuffix("_bytes")
    return f"golibx.native.{name[7:]}" if name.startswith("native_") else f"golibx.{name}"


INSTRUMENTS: Mapping[str, tuple[str, str, str]] = {
    _name_of(name): (kind, "By" if name.endswith("_bytes") else "", key)
    for key, (kind, name, _) in METRICS.items()
}
"""Of the numbers of golibx.stats() by the name: the kind, the unit and the key there."""


def _kind_of(key: str) -> str:
    return METRICS[key][0] if key in METRICS else ""


_SPANS_LEFT_OUT = "golibx.spans_left_out"
_LATENCY = "golibx.sched_latency"
_LATENCY_LEFT_OUT = "golibx.sched_latency_left_out"
_LATENCY_BOUNDS = tuple((1 << bits) / 1e9 for bits in range(10, 36))
"""Seconds, 1 µs to 34 s, as those of the plugin metrics."""
_MOST_LATENCIES = 10_000
"""So many are recorded at a time, about: each is a call."""
_SECOND_NS = 1_000_000_000
_ENDS_PROGRAM = (KeyboardInterrupt, SystemExit)


class _Budget:
    """So many in each second of the clock; the others are counted. 0: any number.

    Without a lock: in the child of a fork, no thread would release one that another had.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._left_out = AtomicInt()
        # The second, and in the lower 32 bits how many have begun in it.
        self._begun = AtomicInt()

    @property
    def left_out(self) -> int:
        """How many were too many."""
        return self._left_out.load()

    def take(self) -> bool:
        """Whether one more may begin now."""
        if not self._most:
            return True
        now = time.monotonic_ns() // _SECOND_NS
        while True:
            before = self._begun.load()
            second, begun = before >> 32, before & 0xFFFF_FFFF
            if now > second:
                second, begun = now, 0
            if begun >= self._most:
                self._left_out.add()
                return False
            if self._begun.compare_and_swap(before, second << 32 | begun + 1):
                return True


class _Sums:
    """Counters of one run after the other, as sums that only grow.

    Most begin at 0 with each run; those of the native lane, which outlives runs, go on.
    """

    def __init__(self) -> None:
        self._before: Counter[str] = Counter()
        self._last: dict[str, int] = {}

    def note(self, key: str, value: int) -> int:
        """Its sum, where it is `value` now."""
        last = self._last.get(key, 0)
        if value < last:
            self._before[key] += last
        self._last[key] = value
        return self._before[key] + value

    def of(self, key: str) -> int:
        """As of when it was last noted."""
        return self._before[key] + self._last.get(key, 0)

    def under(self, prefix: str) -> dict[str, int]:
        """The same, of all keys that begin so, without that."""
        return {
            key.removeprefix(prefix): self.of(key) for key in self._last if key.startswith(prefix)
        }


class _Instruments:
    """The process's. Callbacks come in whatever thread or goroutine has a reader collect."""

    def __init__(self) -> None:
        from opentelemetry import metrics

        self._observation = metrics.Observation
        self._renew_lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)
        self._sums = _Sums()
        self._runtime: Runtime | None = None
        self._budget: _Budget | None = None
        self._has_latency = False
        self._told: Mapping[int, int] = {}
        meter = metrics.get_meter(_NAME, __version__)
        make = {"counter": meter.create_observable_counter, "gauge": meter.create_observable_gauge}
        for name, (kind, unit, key) in INSTRUMENTS.items():
            callback = partial(self._count if kind == "counter" else self._gauge, key)
            make[kind](name, [callback], unit, METRICS[key][2])
        meter.create_observable_gauge(
            "golibx.goroutines",
            [self._states],
            description="Goroutines of the program, by what they do.",
        )
        meter.create_observable_counter(
            _REFUSED_NAME,
            [self._refused],
            description="Signals to native goroutines that did not preempt them, by the reason.",
        )
        meter.create_observable_counter(
            _SPANS_LEFT_OUT,
            [partial(self._count, _SPANS_LEFT_OUT)],
            description="Goroutines and scopes without a span, for `max_spans`.",
        )
        self._latency = meter.create_histogram(
            _LATENCY,
            "s",
            "How long goroutines waited from when they were ready until they ran.",
            explicit_bucket_boundaries_advisory=_LATENCY_BOUNDS,
        )
        # Its callback records what the histogram gets in the same collection.
        meter.create_observable_counter(
            _LATENCY_LEFT_OUT,
            [self._latencies],
            description="Waits that were measured, and left out of the histogram.",
        )

    def _renew_lock(self) -> None:
        # A collection goes on while a run ends; also while the program forks.
        self._lock = threading.Lock()

    def begin(self, runtime: Runtime, budget: _Budget, *, has_latency: bool) -> None:
        """With the run."""
        with self._lock:
            self._runtime = runtime
            self._budget = budget
            self._has_latency = has_latency
            self._told = {}
            self._note_all()

    def end(self) -> None:
        """With the run. What is collected from here on are the sums."""
        self._record_latencies()
        with self._lock:
            self._note_all()
            self._runtime = self._budget = None
            self._has_latency = False

    def _stats(self) -> dict[str, int]:
        """Of the run that goes on, or none."""
        if self._runtime is None or self._budget is None:
            return {}
        return {**self._runtime.stats(), _SPANS_LEFT_OUT: self._budget.left_out}

    def _note_all(self) -> None:
        for key, value in self._stats().items():
            if key == _SPANS_LEFT_OUT or key.startswith(_REFUSED) or _kind_of(key) == "counter":
                self._sums.note(key, value)

    # ---- callbacks ----

    def _count(self, key: str, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            value = self._stats().get(key)
            total = self._sums.of(key) if value is None else self._sums.note(key, value)
        return [self._observation(total)]

    def _gauge(self, key: str, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            value = self._stats().get(key)
        return [] if value is None else [self._observation(value)]

    def _states(self, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            if self._runtime is None:
                return []
            states = Counter(goroutine.state for goroutine in goroutines())
        return [self._observation(number, {"state": state}) for state, number in states.items()]

    def _refused(self, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            self._note_all()
            totals = self._sums.under(_REFUSED)
        return [self._observation(total, {"reason": reason}) for reason, total in totals.items()]

    def _latencies(self, _: CallbackOptions) -> Iterable[Observation]:
        self._record_latencies()
        return [self._observation(self._sums.of(_LATENCY_LEFT_OUT))]

    def _record_latencies(self) -> None:
        """What was measured since the last time."""
        with self._lock:
            if self._runtime is None or not self._has_latency:
                return
            told, self._told = self._told, self._runtime.latencies()
            new = {ns: count - told.get(ns, 0) for ns, count in self._told.items()}
            thinned = _thinned(new, _MOST_LATENCIES)
            left_out = sum(new.values()) - sum(thinned.values())
            self._sums.note(_LATENCY_LEFT_OUT, self._sums.of(_LATENCY_LEFT_OUT) + left_out)
        for longest_ns, count in thinned.items():
            for _ in range(count):
                self._latency.record(longest_ns / 1e9)


def _thinned(counts: Mapping[int, int], most: int) -> dict[int, int]:
    """About as many as that in all, in their proportions: of what there is at least one."""
    total = sum(counts.values())
    if total <= most:
        return dict(counts)
    return {key: -(-count * most // total) for key, count in counts.items()}


_instruments: _Instruments | None = None


class Plugin:
    """One run's spans and metrics."""

    def __init__(self) -> None:
        self._metrics: _Instruments | None = None

    @hookimpl
    def golib_configure(self, config: Config, name: str) -> None:
        settings = config.plugin(name, KEYS)
        try:
            from opentelemetry import context, metrics, trace  # noqa: F401
        except ImportError as exc:
            problem = (
                f"{name} needs the package opentelemetry-api: pip install 'golibx[otel]' ({exc})"
            )
            raise config.error("plugins.enabled", problem, value=name) from exc
        self._name = name
        self._spans: str = settings.spans
        self._has_scopes: bool = settings.scopes
        self._has_metrics: bool = settings.metrics
        self._has_latency: bool = settings.latency
        self._most: int = settings.max_spans
        self._budget = _Budget(self._most)
        if self._spans == "off" and not self._has_scopes and not self._has_metrics:
            problem = 'nothing is left to do: spans is "off", scopes and metrics are false'
            raise config.error(f"plugins.{name}", problem)
        if self._has_latency and not self._has_metrics:
            problem = "is of no effect where metrics is false"
            raise config.error(f"plugins.{name}.latency", problem, value=True)

    @hookimpl
    def golib_start(self, runtime: Runtime) -> None:
        from opentelemetry import context, trace

        self._context, self._trace = context, trace
        # By this key OpenTelemetry's own instrumentations know that an exporter is at work.
        self._suppressed: str = getattr(
            context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation"
        )
        # A proxy, where the program sets its provider later.
        self._tracer = trace.get_tracer(_NAME, __version__)
        if self._spans != "off":
            runtime.watch_goroutines(self._begin_goroutine, self._end_goroutine)
        if self._has_scopes:
            runtime.watch_scopes(self._begin_scope, self._end_scope)
        if self._has_metrics:
            global _instruments
            if _instruments is None:
                _instruments = _Instruments()
            self._metrics = _instruments
            if self._has_latency:
                runtime.latencies()  # from here on they are measured
            self._metrics.begin(runtime, self._budget, has_latency=self._has_latency)

    @hookimpl
    def golib_stop(self) -> None:
        if self._metrics is not None:
            self._metrics.end()
        if left_out := self._budget.left_out:
            spans = "1 span" if left_out == 1 else f"{left_out} spans"
            sys.stderr.write(
                f"otel: {spans} left out: more than plugins.{self._name}.max_spans = {self._most} "
                "in a second\n"
            )

    # ---- spans ----

    def _begin(self, name: str, attributes: Mapping[str, Any]) -> tuple[Span, Context] | None:
        """A span that is current from here on, and what was before; None: it is left out."""
        if self._context.get_value(self._suppressed) or not self._budget.take():
            return None
        outer = self._context.get_current()
        span = self._tracer.start_span(name, attributes=attributes)
        self._context.attach(self._trace.set_span_in_context(span, outer))
        return span, outer

    def _begin_goroutine(self, goroutine: Goroutine[Any]) -> Span | None:
        labels = goroutine.labels
        if self._spans == "labelled" and not labels:
            return None
        attributes = {
            "golibx.goroutine.id": goroutine.id,
            "golibx.goroutine.parent": goroutine.parent,
            "golibx.goroutine.started_at": goroutine.started_at,
            **_attributes_of(labels),
        }
        begun = self._begin(goroutine.name, attributes)
        return None if begun is None else begun[0]

    def _end_goroutine(
        self, span: Span | None, outcome: str, exception: BaseException | None
    ) -> None:
        if span is None:
            return
        if span.is_recording():
            goroutine = current()
            if goroutine is not None:
                span.update_name(goroutine.name)  # the program may have given it one
            span.set_attribute("golibx.goroutine.outcome", outcome)
            if outcome == "raised":
                _tell_error(span, exception)
        span.end()

    def _begin_scope(self, _: object) -> tuple[Span, Context] | None:
        goroutine = current()
        if goroutine is None:
            return self._begin("scope", {})
        attributes = {"golibx.goroutine.id": goroutine.id, **_attributes_of(goroutine.labels)}
        return self._begin("scope", attributes)

    def _end_scope(
        self, begun: tuple[Span, Context] | None, exception: BaseException | None
    ) -> None:
        if begun is None:
            return
        span, outer = begun
        # No more where a generator has begun the block and another goroutine ends it.
        if self._trace.get_current_span() is span:
            self._context.attach(outer)
        if span.is_recording():
            outcome = "returned"
            if exception is not None:
                outcome = "cancelled" if isinstance(exception, Cancelled) else "raised"
            span.set_attribute("golibx.scope.outcome", outcome)
            if outcome == "raised":
                _tell_error(span, exception)
        span.end()


def _attributes_of(labels: Mapping[str, str]) -> dict[str, str]:
    return {f"golibx.labels.{name}": value for name, value in labels.items()}


def _tell_error(span: Span, exception: BaseException | None) -> None:
    if exception is None or isinstance(exception, _ENDS_PROGRAM):
        return
    from opentelemetry.trace import StatusCode

    kind = type(exception)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    span.set_attribute("error.type", name)
    span.set_status(StatusCode.ERROR, kind.__qualname__)
    # Its text is made by the program's code, which may raise: then its type has to do.
    with suppress(Exception):
        span.set_status(StatusCode.ERROR, f"{kind.__qualname__}: {exception}")
        span.record_exception(exception)
