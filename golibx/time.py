"""Time for goroutines: sleep, after, tick, Timer and Ticker, with the semantics of Go's package.

Durations are seconds, as floats; they count on the monotonic clock, in nanoseconds. What is
received from a timer is the time it was due at, in seconds of the standard library's
time.monotonic().

    select(ch.on_recv(), after(2.5).on_recv())     # at most 2.5 seconds
    for now in tick(60): ...                       # every minute
    timer = Timer(30, save)                        # save() in a goroutine of its own, in 30 seconds
    timer.reset(30)                                # … from now on

As since Go 1.23, nothing stale is received after stop() or reset(), and a timer or ticker that the
program has let go need not be stopped: it is collected like every object.
"""

from __future__ import annotations

from golibx._core import Ticker, Timer, after, sleep, tick

__all__ = ["Ticker", "Timer", "after", "sleep", "tick"]
