"""The hooks that plugins implement, and the events they are given.

A plugin is a module, a class or an object with functions marked `@hookimpl` that have the name of a
hook. It takes only the arguments it names. A module that has a class named `Plugin` offers that
class: it is instantiated, without arguments, for each run.

    from golibx.hookspec import NetpollReady, hookimpl

    class Plugin:
        def __init__(self) -> None:
            self.reads = 0

        @hookimpl
        def on_netpoll_ready(self, event: NetpollReady) -> None:
            self.reads += event.readable

        @hookimpl
        def golib_stop(self) -> None:
            print(f"{self.reads} times a socket became readable")

What every plugin may rely on:

- The native core records an event only if some plugin has a hook for it; a hook that nobody
  implements costs nothing.
- Events are delivered in batches (`[hooks] flush_interval`), in the order of their timestamps, in a
  goroutine of its own. Hooks may use the whole API of golibx, and so may wait; meanwhile events
  collect, and when `[hooks] ring_size` of them did, further ones are dropped and counted.
- All hooks of a run are called one after the other, never two at once.
- A plugin that raises is reported on stderr, once, with its name; from then on none of its hooks is
  called. The program and the other plugins go on.

Times are integers in nanoseconds. `time_ns` is a point on the clock of time.monotonic_ns().
Goroutines are known by their ids, integers that are never used again in a run; the main goroutine's
is 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pluggy

if TYPE_CHECKING:
    import click

    from golibx.config import Config
    from golibx.runtime import Runtime

__all__ = [
    "GoroutineExit",
    "GoroutineStart",
    "NetpollReady",
    "Preempt",
    "Retake",
    "hookimpl",
    "hookspec",
]

hookspec = pluggy.HookspecMarker("golibx")
hookimpl = pluggy.HookimplMarker("golibx")


class GoroutineStart(NamedTuple):
    """A goroutine began to run."""

    time_ns: int
    """When it began to run."""
    goroutine_id: int
    """The new goroutine."""
    parent_id: int
    """The goroutine that called `go`."""


class GoroutineExit(NamedTuple):
    """A goroutine ended."""

    time_ns: int
    """When it ended."""
    goroutine_id: int
    """The goroutine that ended."""
    lifetime_ns: int
    """How long ago it began to run."""
    outcome: str
    """How it ended: "returned", "raised" (an exception) or "cancelled"."""


class Preempt(NamedTuple):
    """A goroutine that had used up its time slice lost its processor."""

    time_ns: int
    """When it stopped running."""
    goroutine_id: int
    """The goroutine that was preempted."""
    ran_ns: int
    """How long it had run without a wait."""
    handed_off: bool
    """False: it yielded at a bytecode boundary. True: it reached none, and its processor was handed
    to another thread when it next released the GIL."""


class Retake(NamedTuple):
    """A processor was taken from a goroutine that sat in a blocking call."""

    time_ns: int
    """When the processor was taken."""
    goroutine_id: int
    """The goroutine that blocked."""
    blocked_ns: int
    """How long it had been in the call."""
    in_vain: bool
    """Whether the call returned before anyone else could use the processor."""


class NetpollReady(NamedTuple):
    """A socket that a goroutine waits for became ready."""

    time_ns: int
    """When the runtime learnt of it."""
    goroutine_id: int
    """The goroutine that is woken."""
    fd: int
    """The socket's file descriptor."""
    readable: bool
    """Whether it became readable: data, a connection to accept, the end of the stream, an error."""
    writable: bool
    """Whether it became writable: room to send, connected, an error."""


@hookspec
def golib_configure(config: Config, runtime: Runtime) -> None:
    """Called once before the run, in the order of `[plugins] enabled`.

    The place to read settings: `config.plugin("NAME", KEYS)` checks the plugin's own table. A
    ConfigError raised here ends the run before it starts. The scheduler does not run yet, so no
    goroutine can be started; keep `runtime` for later.
    """


@hookspec
def golib_start(runtime: Runtime) -> None:
    """Called in the main goroutine right before the program's main function.

    Service goroutines, which must not keep the program alive, are started here with
    `runtime.go_system`.
    """


@hookspec
def golib_stop(runtime: Runtime) -> None:
    """Called in the main goroutine after the program ended and the last event was delivered.

    All goroutines of the program have ended, or were given up after `[runtime] shutdown_timeout`.
    Plugins end the service goroutines they started, and write what they have to say.
    """


@hookspec
def golib_cli(group: click.Group) -> None:
    """Called when the `golibx` command is not given one of its own subcommands: add yours.

    This happens outside a run, without golib_configure. The plugins that are asked are those that
    ./golib.toml or GOLIB_PLUGINS_ENABLED enables.
    """


@hookspec
def on_goroutine_start(event: GoroutineStart) -> None:
    """A goroutine began to run. The main one and service goroutines are not reported."""


@hookspec
def on_goroutine_exit(event: GoroutineExit) -> None:
    """A goroutine that on_goroutine_start was called for returned, raised or was cancelled."""


@hookspec
def on_preempt(event: Preempt) -> None:
    """A goroutine was preempted after it had used up its time slice (`[preempt] slice`)."""


@hookspec
def on_retake(event: Retake) -> None:
    """A processor was taken from a goroutine in a blocking call (`[retake] threshold`)."""


@hookspec
def on_netpoll_ready(event: NetpollReady) -> None:
    """A socket that a goroutine waits for became ready."""
