"""What the suite measures: the cases, how much work each does, and what golibx is meant to reach.

Data only: `runtimes` knows who takes part, `measure` how one measurement is made, `results` what
was measured, `report` how it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["micro", "native", "echo", "latency", "startup"]

GOLIBX = "golibx"
PYTHON = "python"
GO = "go-p1"
# The sides of golibx in a native case, and the peer that has as many processors.
NATIVE_PEERS = {"golibx-native-p1": "go-p1", "golibx-native-p2": "go-p2"}
NATIVE = tuple(NATIVE_PEERS)
PYTHON_PEERS = ("asyncio", "uvloop", "gevent", "trio", "runloom")


def is_golibx(runtime: str) -> bool:
    """Whether it is the key of golibx, on the driver's Python or on a further one."""
    return runtime == GOLIBX or runtime.startswith(f"{GOLIBX}-")


def on_python(runtime: str, name: str) -> str:
    """The key of a runtime on the further Python of that name."""
    return f"{runtime}-{name}"


@dataclass(frozen=True)
class Metric:
    """One number of a measurement: its name in a program's output, and how to show it.

    Attributes:
        key: its name in a program's output.
        heading: its column's; the last word is its unit.
        decimals: how many to show.
        absent: runtimes whose programs cannot tell it.
    """

    key: str
    heading: str
    decimals: int = 0
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Target:
    """What a metric of golibx may be at most, or has to be at least, in units of that metric.

    Attributes:
        relation: "ratio" to the peer's, "difference" from the peer's, or an "absolute" number.
        limit: the last value that meets the target.
        peer: key of the runtime it is compared with; None for an absolute number.
        runtime: key of the side of golibx that has to reach it.
        metric: the metric's key; None for the first.
        bound: which side of the limit meets the target.
    """

    relation: Literal["ratio", "difference", "absolute"]
    limit: float
    peer: str | None = None
    runtime: str = GOLIBX
    metric: str | None = None
    bound: Literal["at most", "at least"] = "at most"


@dataclass(frozen=True)
class Case:
    """One benchmark.

    Attributes:
        name: what --only takes.
        title: what is measured, for people.
        kind: which programs run it.
        metrics: the numbers to show; the first is the one that is compared.
        program: the name or argument that the programs know it by.
        operations: how often a micro case is done: by golibx, by "go" with any number of
            processors, and by the peers in "python". A native case's number is that of "all".
        targets: what golibx should reach.
        excluded: runtimes that offer the programs but not this case, with the reason.
        rounds: how many rounds at most; None for as many as asked.
        optional: only run when asked for by name.
        beside: for peers that run on a further Python, golibx's side on the same.
    """

    name: str
    title: str
    kind: Kind
    metrics: tuple[Metric, ...]
    program: str
    operations: Mapping[str, int] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    excluded: Mapping[str, str] = field(default_factory=dict)
    rounds: int | None = None
    optional: bool = False
    beside: Mapping[str, str] = field(default_factory=dict)

    def on_pythons(self, names: Sequence[str], beside: Mapping[str, str]) -> Case:
        """The same case with golibx's targets on further Pythons of these names too.

        `beside` is the attribute of that name.
        """
        targets = list(self.targets)
        for name in names:
            for target in self.targets:
                if target.runtime == GOLIBX:
                    peer = on_python(PYTHON, name) if target.peer == PYTHON else target.peer
                    targets.append(replace(target, runtime=on_python(GOLIBX, name), peer=peer))
        return replace(self, targets=tuple(targets), beside=beside)

    def metric(self, key: str | None) -> Metric:
        """The metric of that key; the first for None."""
        if key is None:
            return self.metrics[0]
        return next(metric for metric in self.metrics if metric.key == key)

    def metrics_of(self, runtime: str) -> tuple[Metric, ...]:
        """Those that a runtime's program can tell."""
        return tuple(metric for metric in self.metrics if runtime not in metric.absent)

    def golibx_beside(self, runtime: str) -> str | None:
        """The side of golibx that a runtime is compared with; None for golibx itself."""
        if self.kind != "native":
            return None if runtime == GOLIBX else self.beside.get(runtime, GOLIBX)
        return next((ours for ours, peer in NATIVE_PEERS.items() if peer == runtime), None)

    def operations_of(self, runtime: str) -> int:
        """How often a runtime does a micro or native case."""
        if self.kind == "native":
            return self.operations["all"]
        if is_golibx(runtime):
            return self.operations[GOLIBX]
        return self.operations["go" if runtime in NATIVE_PEERS.values() else "python"]


def _amounts(quick: int, python: int) -> dict[str, int]:
    """Operations of a micro case: quick runtimes need more of them to last long enough."""
    return {"go": quick, GOLIBX: quick, "python": python}


def _native(
    name: str,
    title: str,
    metrics: tuple[Metric, ...],
    operations: int,
    targets: tuple[Target, ...],
    excluded: Mapping[str, str] | None = None,
    rounds: int | None = None,
    optional: bool = False,
) -> Case:
    """A case of the native lane and Go, as often on all sides; "native-" comes before its name."""
    return Case(
        name=f"native-{name}",
        title=f"Native: {title}",
        kind="native",
        metrics=metrics,
        program="parked" if name == "parked1m" else name,
        operations={"all": operations},
        targets=targets,
        excluded=excluded or {},
        rounds=rounds,
        optional=optional,
    )


def _of_go(on_one: float, on_two: float) -> tuple[Target, ...]:
    """At most so many times what Go needs with as many processors."""
    return tuple(
        Target("ratio", limit, peer, ours)
        for (ours, peer), limit in zip(NATIVE_PEERS.items(), (on_one, on_two), strict=True)
    )


def _kept(limit_10ms: float, limit_1ms: float) -> tuple[Target, ...]:
    """Throughput under preemption in percent of that without, at both slices, on both sides."""
    return tuple(
        Target("absolute", limit, runtime=ours, metric=metric, bound="at least")
        for ours in NATIVE
        for metric, limit in (("kept_10ms", limit_10ms), ("kept_1ms", limit_1ms))
    )


_PARKED = (
    Metric("bytes", "resident bytes"),
    Metric("create_ns", "create ns"),
    Metric("wake_ns", "wake ns"),
)
_LATENCY = (
    Metric("p99_ms", "p99 ms", 2),
    Metric("p50_ms", "p50 ms", 2),
    Metric("max_ms", "max ms", 2),
)
_ONLY_GOLIBX = dict.fromkeys(
    (*PYTHON_PEERS, *sorted(set(NATIVE_PEERS.values()))), "is about goroutines in CPython"
)
_GO = frozenset(NATIVE_PEERS.values())
_PREEMPT = (
    Metric("kept_10ms", "10 ms: %", 2),
    Metric("kept_1ms", "1 ms: %", 2, absent=_GO),
    Metric("kept_10ms_floor", "10 ms: system %", 2, absent=_GO),
    Metric("kept_1ms_floor", "1 ms: system %", 2, absent=_GO),
    Metric("cpu_kept_10ms", "10 ms: CPU %", 2),
    Metric("cpu_kept_1ms", "1 ms: CPU %", 2, absent=_GO),
    Metric("cpu_kept_10ms_floor", "10 ms: system CPU %", 2, absent=_GO),
    Metric("cpu_kept_1ms_floor", "1 ms: system CPU %", 2, absent=_GO),
    Metric("krows_off", "without: krows/s"),
    Metric("preempts_10ms", "10 ms: times/s", absent=_GO),
    Metric("preempts_1ms", "1 ms: times/s", absent=_GO),
)
_HOGS = ("spin", "qsort", "memcpy", "malloc", "spin_registered")
_PARKED_NATIVE_BYTES = tuple(Target("absolute", 5 * 1024, runtime=ours) for ours in NATIVE)
_NEEDS_TWO = dict.fromkeys(("go-p1", "golibx-native-p1"), "needs two processors")
_NOT_WITH_GO_P2 = {"go-p2": "the server has one CPU"}

CASES = (
    Case(
        name="yield2",
        title="Yield, 2 tasks",
        kind="micro",
        metrics=(Metric("ns", "ns/yield", 1),),
        program="yield2",
        operations=_amounts(5_000_000, 500_000),
        targets=(Target("ratio", 0.55, GO),),
    ),
    Case(
        name="yield1000",
        title="Yield, 1000 tasks",
        kind="micro",
        metrics=(Metric("ns", "ns/yield", 1),),
        program="yield1000",
        operations=_amounts(5_000_000, 500_000),
        targets=(Target("ratio", 0.55, GO),),
    ),
    Case(
        name="pingpong",
        title="Ping-pong over unbuffered channels (a round trip is two messages)",
        kind="micro",
        metrics=(Metric("ns", "ns/message", 1),),
        program="pingpong",
        operations=_amounts(2_000_000, 200_000),
        targets=(Target("ratio", 0.4, GO),),
    ),
    Case(
        name="buffered",
        title="Producer to consumer over a buffered channel (128)",
        kind="micro",
        metrics=(Metric("ns", "ns/message", 1),),
        program="buffered",
        operations=_amounts(5_000_000, 500_000),
        targets=(Target("ratio", 1.2, GO),),
    ),
    Case(
        name="spawn",
        title="Spawn and join 100 000 tasks",
        kind="micro",
        metrics=(Metric("ns", "ns/task", 0), Metric("cold_ns", "first time ns", 0)),
        program="spawn",
        operations=_amounts(100_000, 100_000),
        targets=(Target("ratio", 0.35, GO),),
    ),
    Case(
        name="select4",
        title="Select over 4 unbuffered channels",
        kind="micro",
        metrics=(Metric("ns", "ns/message", 1),),
        program="select4",
        operations=_amounts(1_000_000, 40_000),
        targets=(Target("ratio", 0.75, GO),),
        excluded=dict.fromkeys(("gevent", "trio"), "has no select over channels"),
    ),
    Case(
        name="sieve",
        title="Prime sieve, 1000 primes (half a million messages, 1000 tasks)",
        kind="micro",
        metrics=(Metric("ms", "ms", 0),),
        program="sieve",
        operations=_amounts(1000, 1000),
        targets=(Target("ratio", 0.9, GO),),
    ),
    Case(
        name="parked",
        title="Memory of a parked task, 100 000 of them",
        kind="micro",
        metrics=_PARKED,
        program="parked",
        operations=_amounts(100_000, 100_000),
        targets=(Target("absolute", 7.5 * 1024),),
    ),
    Case(
        name="parked1m",
        title="Memory of a parked task, 1 000 000 of them",
        kind="micro",
        metrics=_PARKED,
        program="parked",
        operations=_amounts(1_000_000, 1_000_000),
        targets=(Target("absolute", 7.5 * 1024),),
        excluded=dict.fromkeys(PYTHON_PEERS, "slow, and 100 000 tell as much")
        | {"go-p2": "as Go, P=1"},
        rounds=1,
        optional=True,
    ),
    Case(
        name="mutex",
        title="Lock and unlock a mutex that nobody else wants",
        kind="micro",
        metrics=(Metric("ns", "ns/lock", 1),),
        program="mutex",
        operations=_amounts(5_000_000, 500_000),
        targets=(Target("ratio", 2.5, GO),),
    ),
    Case(
        name="mutex-contended",
        title="Lock and unlock a mutex, 10 tasks that give way while they hold it",
        kind="micro",
        metrics=(Metric("ns", "ns/lock", 1),),
        program="contended",
        operations=_amounts(1_000_000, 100_000),
    ),
    Case(
        name="cond",
        title="Two tasks that take turns by a condition variable",
        kind="micro",
        metrics=(Metric("ns", "ns/turn", 1),),
        program="cond",
        operations=_amounts(1_000_000, 100_000),
        excluded={"gevent": "has no condition variable"},
    ),
    Case(
        name="semaphore",
        title="Acquire and release one of 5 permits, 10 tasks that give way while they hold it",
        kind="micro",
        metrics=(Metric("ns", "ns/permit", 1),),
        program="semaphore",
        operations=_amounts(1_000_000, 100_000),
    ),
    Case(
        name="pingpong-map",
        title="As pingpong, by functions that map() calls",
        kind="micro",
        metrics=(Metric("ns", "ns/message", 1),),
        program="mapped",
        operations=_amounts(1_000_000, 100_000),
        excluded=_ONLY_GOLIBX,
    ),
    Case(
        name="pingpong-c",
        title="As pingpong, one of the two in what C code has called: it keeps its thread",
        kind="micro",
        metrics=(Metric("ns", "ns/message", 1),),
        program="below_c",
        operations=_amounts(100_000, 100_000),
        targets=(Target("absolute", 7500),),
        excluded=_ONLY_GOLIBX,
    ),
    Case(
        name="rlock-contended",
        title="Lock and unlock a threading.RLock, 20 goroutines that give way while they hold it",
        kind="micro",
        metrics=(
            Metric("ns", "ns/lock", 1),
            Metric("wait_p50_us", "wait p50 us", 1),
            Metric("wait_p99_us", "p99 us", 1),
        ),
        program="rlock",
        operations=_amounts(100_000, 100_000),
        excluded=_ONLY_GOLIBX,
    ),
    Case(
        name="get-ident",
        title="threading.get_ident()",
        kind="micro",
        metrics=(Metric("ns", "ns/call", 1),),
        program="ident",
        operations=_amounts(2_000_000, 2_000_000),
        excluded=_ONLY_GOLIBX,
    ),
    Case(
        name="context",
        title="Make a context under another, cancel it",
        kind="micro",
        metrics=(Metric("ns", "ns/context", 1),),
        program="context",
        operations=_amounts(1_000_000, 200_000),
        excluded=dict.fromkeys(("asyncio", "uvloop", "gevent"), "has no contexts to cancel"),
    ),
    Case(
        name="context-timeout",
        title="Make a context with a deadline, cancel it before",
        kind="micro",
        metrics=(Metric("ns", "ns/context", 1),),
        program="timeout",
        operations=_amounts(1_000_000, 200_000),
    ),
    Case(
        name="timer",
        title="Start 100 000 timers, then stop them all",
        kind="micro",
        metrics=(Metric("ns", "ns/timer", 1),),
        program="timer",
        operations=_amounts(100_000, 100_000),
        excluded={"trio": "has deadlines of blocks, no timers"},
    ),
    Case(
        name="scope",
        title="Start 1000 children in a scope and join them",
        kind="micro",
        metrics=(Metric("ns", "ns/child", 1),),
        program="scope",
        operations=_amounts(100_000, 100_000),
    ),
    Case(
        name="echo",
        title="TCP echo, 100 connections, 64 bytes; the server on one CPU, the load on another",
        kind="echo",
        metrics=(
            Metric("cpu_us", "CPU us/request", 2),
            Metric("rate", "requests/s"),
            Metric("p99_ms", "p99 ms", 2),
        ),
        program="load",
        targets=(Target("ratio", 1.1, "uvloop"),),
        excluded=_NOT_WITH_GO_P2,
    ),
    Case(
        name="latency-idle",
        title="Echo latency, 5 connections x 10/s, nothing else to do",
        kind="latency",
        metrics=_LATENCY,
        program="-",
        excluded=_NOT_WITH_GO_P2,
    ),
    Case(
        name="latency-hog",
        title="Echo latency, 5 connections x 10/s, while one task burns CPU for 2 s",
        kind="latency",
        metrics=_LATENCY,
        program="H",
        targets=(Target("absolute", 25.0),),
        excluded=_NOT_WITH_GO_P2,
    ),
    Case(
        name="latency-block",
        title="Echo latency, 5 connections x 10/s, while one task blocks for 2 s in a C call",
        kind="latency",
        metrics=_LATENCY,
        program="B",
        targets=(Target("absolute", 5.0),),
        excluded=_NOT_WITH_GO_P2,
    ),
    Case(
        name="startup",
        title="Start-up: `golibx run hello.py` and `python hello.py`",
        kind="startup",
        metrics=(Metric("ms", "ms", 1),),
        program="hello.py",
        targets=(Target("difference", 60.0, PYTHON),),
    ),
    _native(
        "yield2",
        "yield, 2 goroutines",
        (Metric("ns", "ns/yield", 1),),
        5_000_000,
        _of_go(0.2, 0.6),
    ),
    _native(
        "yield1000",
        "yield, 1000 goroutines",
        (Metric("ns", "ns/yield", 1),),
        5_000_000,
        _of_go(0.2, 0.6),
    ),
    _native(
        "pingpong",
        "ping-pong over unbuffered channels (a round trip is two messages)",
        (Metric("ns", "ns/message", 1),),
        2_000_000,
        _of_go(0.3, 0.9),
    ),
    _native(
        "buffered",
        "producer to consumer over a buffered channel (128)",
        (Metric("ns", "ns/message", 1),),
        5_000_000,
        _of_go(1.0, 1.0),
    ),
    _native(
        "spawn",
        "spawn and join 100 000 goroutines",
        (Metric("ns", "ns/task", 0), Metric("cold_ns", "first time ns", 0)),
        100_000,
        _of_go(0.25, 0.9),
    ),
    _native(
        "select4",
        "select over 4 unbuffered channels",
        (Metric("ns", "ns/message", 1),),
        1_000_000,
        _of_go(0.45, 1.0),
    ),
    _native(
        "sieve",
        "prime sieve, 1000 primes (half a million messages, 1000 goroutines)",
        (Metric("ms", "ms", 0),),
        1000,
        _of_go(0.4, 1.0),
    ),
    _native(
        "timers",
        "100 000 goroutines that each sleep twice for 1 to 1000 ms",
        (
            Metric("cpu_ns", "CPU ns/timer"),
            Metric("cold_cpu_ns", "first time ns"),
            Metric("late_p99_ms", "late p99 ms", 2),
        ),
        100_000,
        _of_go(0.7, 0.7),
    ),
    _native(
        "parked",
        "memory of a parked goroutine, 100 000 of them",
        _PARKED,
        100_000,
        _PARKED_NATIVE_BYTES,
    ),
    _native(
        "parked1m",
        "memory of a parked goroutine, 1 000 000 of them",
        _PARKED,
        1_000_000,
        _PARKED_NATIVE_BYTES,
        rounds=1,
        optional=True,
    ),
    _native(
        "preempt",
        "spectral norms, 4 goroutines a processor: throughput with slices, in % of that without",
        _PREEMPT,
        200,
        _kept(99.5, 98.0),
        rounds=3,
    ),
    _native(
        "preempt-klt",
        "the same, preempted together with the thread: the code is not registered",
        _PREEMPT,
        200,
        _kept(99.5, 98.0),
        excluded=dict.fromkeys(sorted(_GO), "has one way only"),
        rounds=3,
    ),
    _native(
        "speedup",
        "two CPU-bound goroutines: one after the other, and both at once",
        (
            Metric("speedup", "times", 2),
            Metric("serial_ms", "serial ms"),
            Metric("parallel_ms", "at once ms"),
        ),
        200_000_000,
        (Target("absolute", 1.9, runtime="golibx-native-p2", bound="at least"),),
        excluded=_NEEDS_TWO,
    ),
    _native(
        "fair",
        "a hog a processor and one more, spinning or in libc, and a sleeper: 5 x 2 s",
        (
            Metric("off_pct", "share off by %", 1),
            Metric("late_ms", "sleeper late ms", 1),
            *(Metric(f"off_{kind}", f"{kind}: %", 1) for kind in _HOGS),
            *(Metric(f"late_{kind}", f"{kind}: ms", 1) for kind in _HOGS),
        ),
        2000,
        tuple(
            Target("absolute", limit, runtime=ours, metric=metric)
            for ours in NATIVE
            for metric, limit in (("off_pct", 10.0), ("late_ms", 25.0))
        ),
        excluded=dict.fromkeys(sorted(_GO), "compiles no hog that sits in libc"),
        rounds=3,
    ),
)
