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

from golibx._core import (
    Case,
    Chan,
    Goroutine,
    WaitGroup,
    blocking,
    current,
    go,
    gomaxprocs,
    gosched,
    num_goroutine,
    select,
    sleep,
    stats,
)
from golibx.errors import (
    Cancelled,
    ChannelClosed,
    ConfigError,
    DeadlineExceeded,
    Deadlock,
    GolibxError,
)
from golibx.runtime import run
from golibx.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from golibx import native as native
    from golibx import net as net
    from golibx.dump import stacks as stacks
    from golibx.leaked import leaks as leaks

__all__ = [
    "Cancelled",
    "Case",
    "Chan",
    "ChannelClosed",
    "ConfigError",
    "DeadlineExceeded",
    "Deadlock",
    "GolibxError",
    "Goroutine",
    "WaitGroup",
    "__version__",
    "blocking",
    "current",
    "go",
    "gomaxprocs",
    "gosched",
    "leaks",
    "native",
    "net",
    "num_goroutine",
    "run",
    "select",
    "sleep",
    "stacks",
    "stats",
]


def __getattr__(name: str) -> object:
    # The modules behind these import ctypes, dis and socket, which a program may never need.
    if name == "native":
        import golibx.native

        return golibx.native
    if name == "net":
        import golibx.net

        return golibx.net
    if name == "stacks":
        from golibx.dump import stacks

        return stacks
    if name == "leaks":
        from golibx.leaked import leaks

        return leaks
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
