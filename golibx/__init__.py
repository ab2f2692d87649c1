"""Go's concurrency for Python: goroutines, channels and select on a native scheduler.

    from golibx import Chan, go, run

    def main() -> None:
        ch: Chan[int] = Chan()
        go(lambda: ch.send(42))
        print(ch.recv())

    run(main)

Everything that waits, waits for its own goroutine only: a channel operation, a sleep, a socket of
golibx.net, and also any call of an extension module that blocks, since the scheduler takes the
processor back from those.
"""

from __future__ import annotations

import sys

if "free-threading" in sys.version:
    # The library is for the stable ABI, which builds without the lock do not have.
    raise ImportError(
        "golibx does not support free-threaded builds of Python, as this one is: "
        f"use CPython {sys.version_info.major}.{sys.version_info.minor} with its global lock"
    )

from golibx import context as context
from golibx._core import (
    AtomicInt,
    Barrier,
    Case,
    Chan,
    Cond,
    Event,
    Goroutine,
    Mutex,
    Once,
    Pool,
    RecvChan,
    RWMutex,
    Semaphore,
    SendChan,
    WaitGroup,
    blocking,
    current,
    go,
    gomaxprocs,
    gosched,
    lock_os_thread,
    num_goroutine,
    select,
    stats,
    unlock_os_thread,
)
from golibx.errors import (
    Cancelled,
    ChannelClosed,
    ConfigError,
    DeadlineExceeded,
    Deadlock,
    GolibxError,
)
from golibx.labels import labels
from golibx.patch.stdlib import patch_all, patched, unpatch
from golibx.runtime import run
from golibx.scope import as_completed, scope
from golibx.time import Ticker, Timer, after, sleep, tick
from golibx.tuning import tunables, tune
from golibx.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from golibx import aio as aio
    from golibx import logrecords as logrecords
    from golibx import native as native
    from golibx import net as net
    from golibx import singleflight as singleflight
    from golibx.dump import goroutines as goroutines
    from golibx.dump import stacks as stacks
    from golibx.futures import GoroutinePoolExecutor as GoroutinePoolExecutor
    from golibx.leaked import leaks as leaks
    from golibx.sync import BrokenBarrierError as BrokenBarrierError
    from golibx.sync import once as once

__all__ = [
    "AtomicInt",
    "Barrier",
    "BrokenBarrierError",
    "Cancelled",
    "Case",
    "Chan",
    "ChannelClosed",
    "Cond",
    "ConfigError",
    "DeadlineExceeded",
    "Deadlock",
    "Event",
    "GolibxError",
    "Goroutine",
    "GoroutinePoolExecutor",
    "Mutex",
    "Once",
    "Pool",
    "RWMutex",
    "RecvChan",
    "Semaphore",
    "SendChan",
    "Ticker",
    "Timer",
    "WaitGroup",
    "__version__",
    "after",
    "aio",
    "as_completed",
    "blocking",
    "context",
    "current",
    "go",
    "gomaxprocs",
    "goroutines",
    "gosched",
    "labels",
    "leaks",
    "lock_os_thread",
    "logrecords",
    "native",
    "net",
    "num_goroutine",
    "once",
    "patch_all",
    "patched",
    "run",
    "scope",
    "select",
    "singleflight",
    "sleep",
    "stacks",
    "stats",
    "tick",
    "tunables",
    "tune",
    "unlock_os_thread",
    "unpatch",
]


def __getattr__(name: str) -> object:
    # What is behind these imports asyncio, ctypes, dis, logging, socket and typing, which a program
    # may never need.
    if name == "aio":
        import golibx.aio

        return golibx.aio
    if name == "logrecords":
        import golibx.logrecords

        return golibx.logrecords
    if name == "native":
        import golibx.native

        return golibx.native
    if name == "net":
        import golibx.net

        return golibx.net
    if name == "signal":
        import golibx.signal

        return golibx.signal
    if name == "singleflight":
        import golibx.singleflight

        return golibx.singleflight
    if name in ("goroutines", "stacks"):
        import golibx.dump

        return getattr(golibx.dump, name)
    if name == "leaks":
        from golibx.leaked import leaks

        return leaks
    if name == "GoroutinePoolExecutor":
        from golibx.futures import GoroutinePoolExecutor

        return GoroutinePoolExecutor
    if name in ("BrokenBarrierError", "once"):
        import golibx.sync

        return getattr(golibx.sync, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
