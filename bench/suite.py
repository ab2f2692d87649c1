"""What the suite measures: the cases, how much work each does, and what golibx is meant to reach.

Data only: `runtimes` knows who takes part, `measure` how one measurement is made, `results` what
was measured, `report` how it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["micro", "echo", "latency", "startup"]

GOLIBX = "golibx"
PYTHON_PEERS = ("asyncio", "uvloop", "gevent")


@dataclass(frozen=True)
class Metric:
    """One number of a measurement: its name in a program's output, and how to show it."""

    key: str
    heading: str
    decimals: int = 0


@dataclass(frozen=True)
class Target:
    """What the first metric of golibx may be at most, in units of that metric.

    Attributes:
        relation: "ratio" to the peer's, "difference" from the peer's, or an "absolute" number.
        limit: the largest value that meets the target.
        peer: key of the runtime it is compared with; None for an absolute number.
    """

    relation: Literal["ratio", "difference", "absolute"]
    limit: float
    peer: str | None = None


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
            processors, and by the peers in "python".
        target: what golibx should reach; None for none.
        excluded: runtimes that offer the programs but not this case, with the reason.
        rounds: how many rounds at most; None for as many as asked.
        optional: only run when asked for by name.
    """

    name: str
    title: str
    kind: Kind
    metrics: tuple[Metric, ...]
    program: str
    operations: Mapping[str, int] = field(default_factory=dict)
    target: Target | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)
    rounds: int | None = None
    optional: bool = False

    def operations_of(self, runtime: str) -> int:
        """How often a runtime does a micro case."""
        family = {"go-p1": "go", "go-p2": "go", GOLIBX: GOLIBX}.get(runtime, "python")
        return self.operations[family]


def _amounts(quick: int, python: int) -> dict[str, int]:
    """Operations of a micro case: quick runtimes need more of them to last long enough."""
    return {"go": quick, GOLIBX: quick, "python": python}


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
_NOT_WITH_GO_P2 = {"go-p2": "the server has one CPU"}

CASES = (
    Case(
        name="yield2",
        title="Yield, 2 tasks",
        kind="micro",
        metrics=(Metric("ns", "ns/yield", 1),),
        program="yield2",
        operations=_amounts(5_000_000, 500_000),
        target=Target("ratio", 0.6, "go-p1"),
    ),
    Case(
        name="yield1000",
        title="Yield, 1000 tasks",
        kind="micro",
        metrics=(Metric("ns", "ns/yield", 1),),
        program="yield1000",
        operations=_amounts(5_000_000, 500_000),
        target=Target("ratio", 0.6, "go-p1"),
    ),
    Case(
        name="pingpong",
        title="Ping-pong over unbuffered channels (a round trip is two messages)",
        kind="micro",
        metrics=(Metric("ns", "ns/message", 1),),
        program="pingpong",
        operations=_amounts(2_000_000, 200_000),
        target=Target("ratio", 1.2, "go-p1"),
    ),
    Case(
        name="buffered",
        title="Producer to consumer over a buffered channel (128)",
        kind="micro",
        metrics=(Metric("ns", "ns/message", 1),),
        program="buffered",
        operations=_amounts(5_000_000, 500_000),
        target=Target("ratio", 2.5, "go-p1"),
    ),
    Case(
        name="spawn",
        title="Spawn and join 100 000 tasks",
        kind="micro",
        metrics=(Metric("ns", "ns/task", 0), Metric("cold_ns", "first time ns", 0)),
        program="spawn",
        operations=_amounts(100_000, 100_000),
        target=Target("ratio", 0.7, "go-p1"),
    ),
    Case(
        name="select4",
        title="Select over 4 unbuffered channels",
        kind="micro",
        metrics=(Metric("ns", "ns/message", 1),),
        program="select4",
        operations=_amounts(1_000_000, 40_000),
        target=Target("ratio", 2.5, "go-p1"),
        excluded={"gevent": "has no select over channels"},
    ),
    Case(
        name="sieve",
        title="Prime sieve, 1000 primes (half a million messages, 1000 tasks)",
        kind="micro",
        metrics=(Metric("ms", "ms", 0),),
        program="sieve",
        operations=_amounts(1000, 1000),
        target=Target("ratio", 2.0, "go-p1"),
    ),
    Case(
        name="parked",
        title="Memory of a parked task, 100 000 of them",
        kind="micro",
        metrics=_PARKED,
        program="parked",
        operations=_amounts(100_000, 100_000),
        target=Target("absolute", 12 * 1024),
    ),
    Case(
        name="parked1m",
        title="Memory of a parked task, 1 000 000 of them",
        kind="micro",
        metrics=_PARKED,
        program="parked",
        operations=_amounts(1_000_000, 1_000_000),
        target=Target("absolute", 12 * 1024),
        excluded=dict.fromkeys(PYTHON_PEERS, "slow, and 100 000 tell as much")
        | {"go-p2": "as Go, P=1"},
        rounds=1,
        optional=True,
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
        target=Target("ratio", 1.1, "uvloop"),
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
        target=Target("absolute", 25.0),
        excluded=_NOT_WITH_GO_P2,
    ),
    Case(
        name="latency-block",
        title="Echo latency, 5 connections x 10/s, while one task blocks for 2 s in a C call",
        kind="latency",
        metrics=_LATENCY,
        program="B",
        target=Target("absolute", 5.0),
        excluded=_NOT_WITH_GO_P2,
    ),
    Case(
        name="startup",
        title="Start-up: `golibx run hello.py` and `python hello.py`",
        kind="startup",
        metrics=(Metric("ms", "ms", 1),),
        program="hello.py",
        target=Target("difference", 60.0, "python"),
    ),
)
