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

- The native core records an event only if some plugin has a hook for it; a hook that no plugin
  implements costs nothing.
- Events are delivered in batches (`[hooks] flush_interval`, sooner where a ring is half full), in
  the order of their timestamps, in a goroutine of its own. Hooks may use the whole API of golibx,
  and so may wait; meanwhile events collect, and when a processor has `[hooks] ring_size` of them,
  further ones are dropped and counted.
- Events are those of this run. What the native lane, which outlives runs, did between two runs is
  not reported.
- All hooks of a run are called one after the other, never two at once. They return nothing, but
  for `tune` and `on_preempt`.
- A plugin that raises is reported on stderr, once, with its name; from then on none of its hooks is
  called. The program and the other plugins go on.
- The time of each call is accounted (`Runtime.plugin_stats`), and a plugin that takes more than
  `[hooks] share` is named, or disabled.

Times are integers in nanoseconds. `time_ns` is a point on the clock of time.monotonic_ns().

`lane` says where an event happened: "python", where Python goroutines run, or "native", where C
functions do (golibx.native). Goroutines are known by their ids, integers that are never used again
in a run. The two lanes number theirs each for itself: goroutine 7 of one lane has nothing to do
with goroutine 7 of the other, so what counts as a key is the pair of lane and id. Python's main
goroutine is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import pluggy

from golibx.rules import Snapshot, TuningKey, written

if TYPE_CHECKING:
    import click

    from golibx.config import Config
    from golibx.eventbatch import EventBatch
    from golibx.runtime import Runtime

__all__ = [
    "DeadlockFound",
    "GilWait",
    "GomaxprocsChange",
    "GoroutineBlock",
    "GoroutineCreate",
    "GoroutineExit",
    "GoroutinePanic",
    "GoroutinePark",
    "GoroutineReady",
    "GoroutineRun",
    "GoroutineStart",
    "GoroutineUnblock",
    "HookStats",
    "NetpollReady",
    "PluginStats",
    "Preempt",
    "Retake",
    "Snapshot",
    "Steal",
    "SysmonTick",
    "Tune",
    "Tuning",
    "TuningKey",
    "Verdict",
    "hookimpl",
    "hookspec",
    "written",
]

hookspec = pluggy.HookspecMarker("golibx")
hookimpl = pluggy.HookimplMarker("golibx")

Tuning: TypeAlias = Mapping[str, int | str]
"""What to change: values by their keys in golib.toml, as they are written there, {"preempt.slice":
"2ms"}; a duration may also be an int of nanoseconds."""


Verdict: TypeAlias = str | int
"""What on_preempt may say of a goroutine: "demote", or a slice, a duration such as "50ms" or an int
of nanoseconds."""


class GoroutineCreate(NamedTuple):
    """A goroutine was made, and waits for its first turn."""

    time_ns: int
    """When it was made."""
    lane: str
    """Whose goroutine it is: "python" or "native"."""
    goroutine_id: int
    """The new goroutine."""
    parent_id: int
    """The goroutine of the same lane that started it; 0 for none: a thread, a timer, the other
    lane."""


class GoroutineStart(NamedTuple):
    """A goroutine began to run."""

    time_ns: int
    """When it began to run."""
    lane: str
    """Whose goroutine it is: "python" or "native"."""
    goroutine_id: int
    """The new goroutine."""
    parent_id: int
    """As in GoroutineCreate; 0 too for one that was made before the run."""


class GoroutinePark(NamedTuple):
    """A goroutine began to wait."""

    time_ns: int
    """When it began to wait."""
    lane: str
    """Whose goroutine it is: "python" or "native"."""
    goroutine_id: int
    """The goroutine that waits."""
    reason: str
    """What for, as in golibx.stacks(): "chan receive", "select", "sleep", "IO wait (read)" …"""


class GoroutineReady(NamedTuple):
    """A goroutine that had waited can run again, and waits for its turn."""

    time_ns: int
    """When it was woken."""
    lane: str
    """Whose goroutine it is: "python" or "native"."""
    goroutine_id: int
    """The goroutine that was woken."""
    waker_id: int
    """The goroutine of the same lane that woke it; 0 for none: the network, a timer, a thread, the
    other lane."""


class GoroutineExit(NamedTuple):
    """A goroutine ended."""

    time_ns: int
    """When it ended."""
    lane: str
    """Whose goroutine it is: "python" or "native"."""
    goroutine_id: int
    """The goroutine that ended."""
    lifetime_ns: int
    """How long ago it began to run."""
    outcome: str
    """How it ended: "returned", "raised" (an exception) or "cancelled". Native ones only return."""


class GoroutinePanic(NamedTuple):
    """A goroutine ended with an exception that no code collects."""

    time_ns: int
    """When that was found: when the goroutine ended, or its Goroutine was forgotten."""
    lane: str
    """"python": C functions do not raise."""
    goroutine_id: int
    """The goroutine that raised."""
    exception: str
    """The last line of its traceback, as in "ValueError: no such user"."""


class Preempt(NamedTuple):
    """A goroutine that had used up its time slice lost its processor."""

    time_ns: int
    """When it stopped running."""
    lane: str
    """Whose goroutine it is: "python" or "native"."""
    goroutine_id: int
    """The goroutine that was preempted."""
    ran_ns: int
    """How long it had run without a wait, as far as sysmon has seen; 0 where it had not yet."""
    handed_off: bool
    """False: it gave way, at a bytecode boundary, in a call of golibx or in registered text. True:
    it reached none, and its processor was handed to another thread: in the Python lane when it next
    released the GIL, in the native lane at once."""


class Retake(NamedTuple):
    """A processor was taken from a goroutine that sat in a blocking call."""

    time_ns: int
    """When the processor was taken."""
    lane: str
    """Whose goroutine it is: "python" or "native"."""
    goroutine_id: int
    """The goroutine that blocked."""
    blocked_ns: int
    """How long it had been in the call."""
    in_vain: bool
    """Whether the call returned before another thread could use the processor."""


class NetpollReady(NamedTuple):
    """A socket that a goroutine waits for became ready."""

    time_ns: int
    """When the runtime learnt of it."""
    lane: str
    """Whose goroutine it is: "python" or "native"."""
    goroutine_id: int
    """The goroutine that is woken."""
    fd: int
    """The socket's file descriptor."""
    readable: bool
    """Whether it became readable: data, a connection to accept, the end of the stream, an error."""
    writable: bool
    """Whether it became writable: room to send, connected, an error."""


class Steal(NamedTuple):
    """A processor without work took goroutines from another one's queue."""

    time_ns: int
    """When they were taken."""
    lane: str
    """"native": the Python lane has one processor."""
    goroutine_id: int
    """The one of them that runs at once."""
    stolen: int
    """How many were taken."""
    processor: int
    """The processor that took them, from 0."""
    victim: int
    """The processor that they were taken from."""


class SysmonTick(NamedTuple):
    """A lane's sysmon looked at everything. Each lane has one."""

    time_ns: int
    """When its round began."""
    lane: str
    """Whose sysmon it is: "python" or "native"."""
    slept_ns: int
    """How long it had slept before."""
    idle_rounds: int
    """How many rounds before this one found nothing to do."""


class DeadlockFound(NamedTuple):
    """No goroutine can ever run again: Deadlock is raised in the main one."""

    time_ns: int
    """When that was found."""
    lane: str
    """"python": native goroutines that wait are no deadlock while there is Python."""
    goroutine_id: int
    """The main goroutine."""
    goroutines: int
    """How many are asleep."""


class GomaxprocsChange(NamedTuple):
    """The number of processors for native goroutines was set to another value."""

    time_ns: int
    """When it was set."""
    lane: str
    """"native": the Python lane has one processor."""
    before: int
    """Processors before."""
    after: int
    """Processors from here on."""


class Tune(NamedTuple):
    """A value that may change while the program runs was set to another one."""

    time_ns: int
    """When that was recorded, right after it was set."""
    lane: str
    """"python": it is Python that changes values, for both lanes."""
    who: str
    """Who changed it: "program", "plugin NAME", "rule 1" of [tune], "golibx tune (process 123)"."""
    key: str
    """The key in golib.toml, such as "preempt.slice"."""
    old: int
    """The value before; a duration in nanoseconds."""
    new: int
    """The value from here on."""


class GoroutineRun(NamedTuple):
    """A goroutine that was new, or had been woken, had its turn: it begins to run."""

    time_ns: int
    """When it was about to run, on the thread that it runs on."""
    lane: str
    """"python": native goroutines are not timed."""
    goroutine_id: int
    """The goroutine that runs."""
    waited_ns: int
    """How long it had waited for its turn: since it was made or woken; where a timer has woken it,
    since that was due."""


class GoroutineBlock(NamedTuple):
    """A goroutine in a blocking call lost its processor: others run meanwhile."""

    time_ns: int
    """When the processor was taken."""
    lane: str
    """"python": of native goroutines there is on_retake."""
    goroutine_id: int
    """The goroutine that blocks."""
    blocked_ns: int
    """How long it had been in the call, as far as sysmon has seen; about 0 for golibx.blocking(),
    which gives the processor up before."""
    function: str
    """What is called, as the code that calls it names it: "time.sleep", "self.lock.acquire",
    "lock.__enter__" for a `with`. "" where it comes from more than names."""
    place: str
    """Where in the Python code, as in "/app/main.py:12 in Client.fetch"; "" for none."""


class GoroutineUnblock(NamedTuple):
    """A goroutine that had blocked has a processor again."""

    time_ns: int
    """When it had one."""
    lane: str
    """"python": of native goroutines there is on_retake."""
    goroutine_id: int
    """The goroutine that blocked."""
    blocked_ns: int
    """How long it did without: from the call's beginning, as in GoroutineBlock, until it wanted a
    processor. With the call that is the wait for the GIL after it, and the bytecodes that it ran
    until its next call of golibx, or until sysmon saw it run. At most 78 hours."""
    waited_ns: int
    """How long it then waited for its turn; 0 for one that ended without. At most 78 hours."""


class GilWait(NamedTuple):
    """The Python lane could go on, and had to wait for the GIL, which others held."""

    time_ns: int
    """When it had the GIL."""
    lane: str
    """"python": native goroutines need no GIL."""
    goroutine_id: int
    """The goroutine that was kept from going on; 0 where none had its turn yet."""
    waited_ns: int
    """How long it waited."""
    offered: bool
    """True: between two turns it had let the GIL go for threads that wanted it. False: a thread of
    the runtime's came for it: from its rest, from the network, or to take a processor."""


class HookStats(NamedTuple):
    """The time that one hook of one plugin took: see Runtime.plugin_stats()."""

    calls: int
    """How many calls have returned or raised."""
    total_ns: int
    """How long all of these took, each from the call to the return: also what it waited, and what
    others ran while it was preempted. Meanwhile no other hook is called."""
    longest_ns: int
    """The longest one."""
    present_ns: int
    """How long the call has lasted that goes on now; 0: none does."""


class PluginStats(NamedTuple):
    """What the hooks of one plugin took: see Runtime.plugin_stats()."""

    state: str
    """"active", "over its share" (of `[hooks] share`, and warned of), "disabled" (for that), or
    "raised" (and disabled for it)."""
    share: float
    """How much of the wall time since the run began its event hooks and `tune` took, in percent."""
    hooks: Mapping[str, HookStats]
    """Those it has, by their names."""


@hookspec
def golib_configure(config: Config, runtime: Runtime, name: str) -> None:
    """Called once before the run, in the order of `[plugins] enabled`.

    The place to read settings: `config.plugin(name, KEYS)` checks the plugin's own table, which is
    that of the name that it was enabled under. A
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
    the file of `golibx --config FILE` or GOLIB_PLUGINS_ENABLED enables; ./golib.toml's are not.
    """


@hookspec
def on_goroutine_create(event: GoroutineCreate) -> None:
    """A goroutine was made. The main one and service goroutines are not reported."""


@hookspec
def on_goroutine_start(event: GoroutineStart) -> None:
    """A goroutine began to run. The main one and service goroutines are not reported."""


@hookspec
def on_goroutine_park(event: GoroutinePark) -> None:
    """A goroutine began to wait. Service goroutines are not reported."""


@hookspec
def on_goroutine_ready(event: GoroutineReady) -> None:
    """A goroutine that waited was woken. Service goroutines are not reported."""


@hookspec
def on_goroutine_exit(event: GoroutineExit) -> None:
    """A goroutine ended: it returned, raised or was cancelled. This run could report its start."""


@hookspec
def on_goroutine_panic(event: GoroutinePanic) -> None:
    """A goroutine ended with an exception that no code collects.

    By then it was printed. An exception that code may still collect is not reported yet.
    """


@hookspec
def on_preempt(event: Preempt) -> Verdict | None:
    """A goroutine was preempted after it had used up its time slice (`[preempt] slice`).

    The hook may return a verdict on it, which holds until the goroutine next waits: "demote" gives
    it a low priority; a duration of 10us to 1m, "50ms" or an int of nanoseconds, a slice of that
    length, if that is longer than `[preempt] slice`. Of several plugins' verdicts of a kind the
    last one counts. One on a goroutine that has waited or ended meanwhile, a service goroutine or
    one of the native lane is of no effect. For any other value the plugin is disabled, as for an
    exception.

    A verdict comes late: the event is delivered within `[hooks] flush_interval`, once the
    goroutine of the hooks has its turn. The goroutine may have had further turns by then. The low
    priority counts when it next waits for its turn, the slice from its next preemption on.
    """


@hookspec
def on_retake(event: Retake) -> None:
    """A processor was taken from a goroutine in a blocking call (`[retake] threshold`)."""


@hookspec
def on_netpoll_ready(event: NetpollReady) -> None:
    """A socket that a goroutine waits for became ready."""


@hookspec
def on_steal(event: Steal) -> None:
    """A processor took goroutines from another one's queue."""


@hookspec
def on_sysmon_tick(event: SysmonTick) -> None:
    """A sysmon made a round.

    In a busy lane that is up to 50 000 times a second. Each delivery wakes the Python lane's sysmon
    for some more rounds, so a program with this hook never sleeps for longer than
    `[hooks] flush_interval`.
    """


@hookspec
def on_deadlock(event: DeadlockFound) -> None:
    """All goroutines are asleep for ever. Called once the main one has had Deadlock raised."""


@hookspec
def on_gomaxprocs(event: GomaxprocsChange) -> None:
    """`gomaxprocs(n)`, or golibx_gomaxprocs() in C, changed the number of processors."""


@hookspec
def on_tune(event: Tune) -> None:
    """A value was changed while the program runs: one event for each that is another now.

    By `tune` of a plugin, `Runtime.tune`, a rule of `[tune]`, golibx.tune(), or `golibx tune PID`.
    `gomaxprocs(n)` has a hook of its own.
    """


@hookspec
def on_goroutine_run(event: GoroutineRun) -> None:
    """A goroutine that was new or woken begins to run: how long it was ready and had no turn.

    Once for each time that it is made or woken, before on_goroutine_start for a new one; not when
    it goes on after a preemption, after it gave way or after a blocking call. The thread that
    switches to it records that; while there is such a hook each of these turns costs two readings
    of the clock beside the event. Service goroutines are not reported.

        @hookimpl
        def on_goroutine_run(self, event):
            self.longest_ns = max(self.longest_ns, event.waited_ns)
    """


@hookspec
def on_goroutine_block(event: GoroutineBlock) -> None:
    """A goroutine in a blocking call lost its processor (`[retake] threshold`): what it calls.

    Also by golibx.blocking(), which gives it up; not after a hand-over at the end of a slice, of
    which on_preempt tells. Calls that are over sooner are not reported, nor service goroutines. The
    thread that takes the processor looks at the goroutine's innermost frame for that; the names are
    found when the event is delivered, once for each place.

        @hookimpl
        def on_goroutine_block(self, event):
            self.calls[event.function or event.place] += 1
    """


@hookspec
def on_goroutine_unblock(event: GoroutineUnblock) -> None:
    """A goroutine has a processor again: once for each on_goroutine_block, unless the run ends.

    The goroutine itself records it, when it goes on; what it costs is two readings of the clock
    beside the event. Service goroutines are not reported.

        @hookimpl
        def on_goroutine_unblock(self, event):
            self.blocked_ns += event.blocked_ns
    """


@hookspec
def on_gil_wait(event: GilWait) -> None:
    """The Python lane waited for the GIL for `[hooks] gil_wait_min` or longer.

    Other threads had it: those of the program, or C code that computes with the GIL. It does not
    see waits that the interpreter does not tell of: of a goroutine that comes back from a call (a
    part of `blocked_ns` of on_goroutine_unblock), or that was interrupted in its bytecodes since a
    thread had asked for the GIL. The thread that has waited records it. While there is such a hook,
    each time that the runtime asks for the GIL costs two readings of the clock.

        @hookimpl
        def on_gil_wait(self, event):
            self.longest_ns = max(self.longest_ns, event.waited_ns)
    """


@hookspec
def tune(snapshot: Snapshot) -> Tuning | None:
    """Asked each `[hooks] tune_interval`: what to change, or None for nothing.

    All of it is changed or nothing, within `[tune] limits`; a value beyond those is refused and
    reported, once for each key. For anything else that cannot be done the plugin is disabled, as
    for an exception.
    """


@hookspec
def take_events(batch: EventBatch) -> None:
    """Many events at once: for plugins that only count, keep or write them.

    Those are the events of the hooks that the plugin names in its attribute `takes`, and of those
    that others take so. All of them have happened since the last call, and come in the order of
    their times, before the hooks for single events are called for any. They are made objects only
    where the plugin goes through them; `golibx.eventbatch` says what the bytes are that they are
    made of. A batch costs a few microseconds, and an event in it some nanoseconds.

        takes = ("on_goroutine_park", "on_goroutine_ready")

        @hookimpl
        def take_events(self, batch):
            self.file.write(batch.data)
    """
