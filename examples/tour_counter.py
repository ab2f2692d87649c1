"""The tour's plugin: counts the scheduler's events, for the tour to show.

golib.toml enables it by its path:

    [plugins]
    enabled = ["../examples/tour_counter.py"]
"""

from __future__ import annotations

import sys

from golibx.hookspec import (
    GoroutineExit,
    GoroutineStart,
    NetpollReady,
    Preempt,
    Retake,
    hookimpl,
)

__all__ = ["Plugin", "active"]

# A plugin that is named by its path is not known under the file's own name. This makes
# `import tour_counter` in the tour give this very module, with the plugin of this run.
sys.modules.setdefault("tour_counter", sys.modules[__name__])

active: Plugin | None = None
"""The plugin of the run that is under way; None where none was enabled."""


class Plugin:
    """Counts, by hooks. They are called one at a time, so the counters need no lock.

    Attributes:
        goroutines: how many of the program's goroutines there are.
        preemptions: how often a goroutine lost its processor because its time slice was over.
        retakes: how often a processor was taken from a goroutine in a blocking call.
        netpoll_wakeups: how often a goroutine was woken because its socket was ready.
    """

    def __init__(self) -> None:
        self.goroutines = 1  # the main one, which is not reported
        self.preemptions = 0
        self.retakes = 0
        self.netpoll_wakeups = 0

    @hookimpl
    def golib_start(self) -> None:
        global active
        active = self

    @hookimpl
    def golib_stop(self) -> None:
        global active
        active = None

    @hookimpl
    def on_goroutine_start(self, event: GoroutineStart) -> None:
        self.goroutines += 1

    @hookimpl
    def on_goroutine_exit(self, event: GoroutineExit) -> None:
        self.goroutines -= 1

    @hookimpl
    def on_preempt(self, event: Preempt) -> None:
        self.preemptions += 1

    @hookimpl
    def on_retake(self, event: Retake) -> None:
        self.retakes += 1

    @hookimpl
    def on_netpoll_ready(self, event: NetpollReady) -> None:
        self.netpoll_wakeups += 1
