"""Compares golibx's native lane with Go at 1, 2, 4, 8 and 16 processors, as many as there are.

Prints one table in Markdown: medians, and golibx's divided by Go's (below 1, golibx needs less).
The exit code is 0; 1 when a program failed or the two did not compute the same; 2 for wrong usage;
3 when there is something missing that it needs. See README.md in this directory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import report
from measure import MeasurementError, call, parse
from report import progress
from runtimes import MissingError, build_go, build_native, program_version
from suite import GOLIBX

GO = "Go"
PROCESSORS = (1, 2, 4, 8, 16)

_ROUNDS = 5
_SECONDS = 240.0
_QUICK = 10  # times less work


@dataclass(frozen=True)
class Load:
    """What is measured; both programs know the case by the same name.

    Attributes:
        title: what is done, for people.
        case: the programs' name of it.
        operations: how often.
        unit: of the number shown.
        metric: the one that is shown, in the programs' output.
        divisor: from the metric's unit to the shown one.
    """

    title: str
    case: str
    operations: int
    unit: str
    metric: str = "ns"
    divisor: float = 1.0


LOADS = (
    Load("spawn storm, from 64", "storm", 200_000, "ns/goroutine"),
    Load("ping-pong, 64 pairs", "pairs", 640_000, "ns/message"),
    Load("hot channel, 32 to 32", "hot", 640_000, "ns/message"),
    Load("select of 4, 32 of them", "selects", 256_000, "ns/message"),
    Load("sleeps, user and system time", "timers", 50_000, "CPU ns/sleep", "cpu_ns"),
    Load("fan-out of 1 to 2 us each, stolen", "fanout", 100_000, "ns/task"),
    Load("spectral norms", "norms", 32, "ms/norm", divisor=1e6),
    Load("memory of a parked goroutine", "parked", 100_000, "bytes", "bytes"),
)

Samples = dict[tuple[Load, int, str], list[float]]  # for each load, P and side


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for; returns the exit code."""
    cpus = len(os.sched_getaffinity(0))
    parser = _parser(cpus)
    options = parser.parse_args(arguments)
    if not sys.platform.startswith("linux"):
        parser.error("it needs Linux")
    if options.parse_only:
        return 0
    loads = [load for load in LOADS if not options.only or load.case in options.only]
    on = report.machine()
    with tempfile.TemporaryDirectory(prefix="golibx-scale-") as directory:
        try:
            programs = _programs(options.programs, Path(directory))
        except MissingError as error:
            progress(f"scale: {error}", keep=True)
            return 3
        versions = {side: program_version(program) for side, program in programs.items()}
        samples, rounds, failures = _measure(loads, programs, options)
    heading = [on, *(f"{side} {version}" for side, version in versions.items())]
    heading.append(f"medians of {rounds}" if rounds > 1 else "one round: a first impression")
    table = _table(loads, options.processors, samples)
    text = "\n".join(["; ".join(heading), "", *table, ""])
    print(text, end="")
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    for failure in failures:
        print(f"scale: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _parser(cpus: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scale.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--processors",
        type=_processors,
        default=[count for count in PROCESSORS if count <= cpus],
        metavar="P,P...",
        help="numbers of processors (default: those of 1, 2, 4, 8, 16 that there are)",
    )
    add(
        "--only",
        action="append",
        choices=[load.case for load in LOADS],
        help="measure only this (may be given several times)",
    )
    add("--quick", action="store_true", help="one round with a tenth of the work")
    add(
        "--seconds",
        type=float,
        default=_SECONDS,
        help=f"start no round, of {_ROUNDS}, that would end later (default: %(default)s)",
    )
    add("--output", type=Path, metavar="FILE", help="write the table to FILE too")
    add(
        "--programs",
        type=Path,
        metavar="DIRECTORY",
        help="with gopeer, native_micro and its library as they were built elsewhere",
    )
    add("--parse-only", action="store_true", help=argparse.SUPPRESS)  # scale.sh, before a set-up
    return parser


def _processors(text: str) -> list[int]:
    counts = text.split(",")
    if not all(count.isdecimal() and int(count) for count in counts):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1,2,4")
    return sorted({int(count) for count in counts})


def _programs(built: Path | None, directory: Path) -> dict[str, str]:
    """The executables of both sides. Raises MissingError."""
    if built is not None:
        found = {GO: built / "gopeer", GOLIBX: built / "native_micro"}
        for path in found.values():
            if not os.access(path, os.X_OK):
                raise MissingError(f"there is no program {path}")
        return {side: str(path.absolute()) for side, path in found.items()}
    progress("building the programs in Go and C")
    return {GO: build_go(directory)[0], GOLIBX: build_native(directory)[0]}


def _measure(
    loads: Sequence[Load], programs: dict[str, str], options: argparse.Namespace
) -> tuple[Samples, int, list[str]]:
    """Samples of all rounds that there was time for, their number, and what went wrong."""
    samples: Samples = defaultdict(list)
    failures: dict[tuple[Load, int, str], str] = {}
    start = time.monotonic()
    rounds, longest = 0, 0.0
    while rounds < (1 if options.quick else _ROUNDS):
        began = time.monotonic()
        if rounds and began + longest > start + options.seconds:
            break
        rounds += 1
        for load in loads:
            operations = load.operations // _QUICK if options.quick else load.operations
            for count in options.processors:
                sums = {}
                for side, program in programs.items():
                    key = (load, count, side)
                    if key in failures:
                        continue
                    progress(f"round {rounds}: {load.title}: {side}, P={count}")
                    arguments = ["micro"] if side == GO else []
                    command = [program, *arguments, load.case, str(max(1, operations))]
                    try:
                        results = parse(call(command, {"GOMAXPROCS": str(count)}))
                        samples[key].append(results[load.metric] / load.divisor)
                        sums[side] = results.get("sum")
                    except (MeasurementError, KeyError) as error:
                        failures[key] = f"{load.case}, P={count}: {side} failed: {error}"
                if len(set(sums.values())) > 1:
                    said = " and ".join(f"{side} {value}" for side, value in sums.items())
                    key = (load, count, "")
                    failures[key] = f"{load.case}, P={count}: the sums differ: {said}"
        longest = max(longest, time.monotonic() - began)
    progress("")
    return samples, rounds, list(failures.values())


def _table(loads: Sequence[Load], processors: Sequence[int], samples: Samples) -> list[str]:
    """A row for each load and number of processors."""
    lines = [
        f"| | | P | {GOLIBX} | {GO} | {GOLIBX}/{GO} | {GOLIBX}, of P=1 | {GO}, of P=1 |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for load in loads:
        for count in processors:
            ours, theirs = (_median(samples, load, count, side) for side in (GOLIBX, GO))
            ours_on_one, theirs_on_one = (_median(samples, load, 1, side) for side in (GOLIBX, GO))
            cells = [load.title, load.unit, str(count), _number(ours), _number(theirs)]
            ratios = [(ours, theirs), (ours, ours_on_one), (theirs, theirs_on_one)]
            cells += [_ratio(over, under) for over, under in ratios]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _median(samples: Samples, load: Load, count: int, side: str) -> float | None:
    values = samples.get((load, count, side))
    return statistics.median(values) if values else None


def _number(value: float | None) -> str:
    return "failed" if value is None else f"{value:,.1f}"


def _ratio(over: float | None, under: float | None) -> str:
    return "" if over is None or not under else f"{over / under:.2f}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
