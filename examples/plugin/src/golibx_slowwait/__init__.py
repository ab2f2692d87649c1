"""Logs each goroutine that has waited longer than a limit, and what for.

The time of a wait is that between two events, on_goroutine_park and on_goroutine_ready: how long
the goroutine then stood in the queue for its turn is no part of it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from golibx.config import Key
from golibx.hookspec import hookimpl

if TYPE_CHECKING:
    from golibx.config import Config
    from golibx.hookspec import GoroutineExit, GoroutinePark, GoroutineReady

__all__ = ["KEYS", "Plugin"]

KEYS = (
    Key("limit", "duration", "1s", "How long a goroutine may wait.", low="1ms", high="24h"),
    Key("ignore", "strings", ["sleep"], "What is waited for that is not logged."),
)

log = logging.getLogger(__name__)


class Plugin:
    """One run's: golibx makes a new one for each run."""

    def __init__(self) -> None:
        # By lane and id, as the two lanes number their goroutines each for itself. It has as many
        # items as goroutines that wait.
        self.waiting: dict[tuple[str, int], GoroutinePark] = {}
        self.late = 0

    @hookimpl
    def golib_configure(self, config: Config, name: str) -> None:
        settings = config.plugin(name, KEYS)  # a ConfigError names file, line, and what is allowed
        self.limit_ns: int = settings.limit_ns
        self.ignore: tuple[str, ...] = settings.ignore

    @hookimpl
    def on_goroutine_park(self, event: GoroutinePark) -> None:
        if event.reason not in self.ignore:
            self.waiting[event.lane, event.goroutine_id] = event

    @hookimpl
    def on_goroutine_ready(self, event: GoroutineReady) -> None:
        # None: it is ignored, or began to wait before the run.
        park = self.waiting.pop((event.lane, event.goroutine_id), None)
        if park is None:
            return
        waited_ns = event.time_ns - park.time_ns
        if waited_ns >= self.limit_ns:
            self.late += 1
            ms = waited_ns // 1_000_000
            log.warning(
                "goroutine %d (%s) waited %d ms: %s",
                event.goroutine_id,
                event.lane,
                ms,
                park.reason,
            )

    @hookimpl
    def on_goroutine_exit(self, event: GoroutineExit) -> None:
        self.waiting.pop((event.lane, event.goroutine_id), None)

    @hookimpl
    def golib_stop(self) -> None:
        if self.late:
            log.warning("%d waits were longer than the limit", self.late)
        for park in self.waiting.values():
            log.info("goroutine %d (%s) waits: %s", park.goroutine_id, park.lane, park.reason)
