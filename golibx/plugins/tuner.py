"""Shortens the time slice until goroutines wait for their turn no longer than a goal says.

The plugin is asked at each `[hooks] tune_interval`. While the 99th percentile of the waits is over
the goal it halves `preempt.slice`, or goes to a quarter or an eighth where it is over twice or four
times the goal, down to 100us or what `[tune] limits` allows. When it has been under a quarter of
the goal for a while, the slice doubles again, up to what it was at the start: a short slice costs
switches. Between the two nothing changes. If a doubling has to be taken back at once, the next one
takes twice as long to come, so that it does not go to and fro.

A look with few waits says little about their 99th percentile, and is passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from golibx.config import Key
from golibx.hookspec import hookimpl

if TYPE_CHECKING:
    from golibx.config import Config
    from golibx.hookspec import Snapshot, Tuning
    from golibx.runtime import Runtime

__all__ = ["KEYS", "Plugin"]

KEYS = (
    Key("goal", "duration", "5ms", "What 99 waits in 100 are to be under.", low="10us", high="10s"),
    Key(
        "calm",
        "int",
        20,
        "At how many looks in a row the waits have to be under a quarter of the goal before the "
        "slice grows again.",
        low=1,
        high=1_000_000,
    ),
    Key("least", "int", 8, "Looks with fewer waits are passed over.", low=1, high=1_000_000),
)
_SLICE = "preempt.slice"
_SHORTEST_NS = 100_000
"""A switch should stay a small part of a slice."""
_LONGEST_CALM = 64
"""Times what was set: how long a doubling may be put off."""


class Plugin:
    """One run's tuner."""

    def __init__(self) -> None:
        self._calm_looks = 0
        self._put_off = 1
        self._grown = False

    @hookimpl
    def golib_configure(self, config: Config, name: str) -> None:
        settings = config.plugin(name, KEYS)
        self._goal_ns: int = settings.goal_ns
        self._calm: int = settings.calm
        self._least: int = settings.least

    @hookimpl
    def golib_start(self, runtime: Runtime) -> None:
        self._longest_ns = runtime.tunables()[_SLICE]

    @hookimpl
    def tune(self, snapshot: Snapshot) -> Tuning | None:
        latency_ns = snapshot.latency_p99_ns
        if latency_ns is None or snapshot.latencies < self._least:
            return None
        slice_ns = snapshot.tunables[_SLICE]
        shortest_ns, longest_ns = snapshot.limits[_SLICE]
        shortest_ns = max(shortest_ns, _SHORTEST_NS)
        if latency_ns > self._goal_ns:
            self._calm_looks = 0
            if self._grown:
                self._put_off = min(2 * self._put_off, _LONGEST_CALM)
                self._grown = False
            share = 2 if latency_ns <= 2 * self._goal_ns else 4
            if latency_ns > 4 * self._goal_ns:
                share = 8
            wanted_ns = max(slice_ns // share, shortest_ns)
            return {_SLICE: wanted_ns} if wanted_ns < slice_ns else None
        if latency_ns > self._goal_ns // 4:
            self._calm_looks = 0
            return None
        self._calm_looks += 1
        if self._calm_looks < self._calm * self._put_off:
            return None
        self._calm_looks = 0
        wanted_ns = min(2 * slice_ns, longest_ns, self._longest_ns)
        if wanted_ns <= slice_ns:
            return None
        self._grown = True
        return {_SLICE: wanted_ns}
