"""Runs the benchmark suite: golibx beside Go, gevent, asyncio, trio and uvloop, at the same time.

See README.md in this directory for what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import report
from measure import MeasurementError, measure
from report import progress
from results import CaseResult
from runtimes import RUNTIMES, Lineup, further_pythons, gather
from suite import CASES, Case

_DEFAULT_ROUNDS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code.

    0: all ran. 2: wrong usage. 1: a program failed, or, with --check, a target was missed or
    could not be measured.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        _list_cases()
        return 0
    if not sys.platform.startswith("linux"):
        parser.error("the suite reads /proc and pins processes to CPUs: it needs Linux")
    try:
        pythons = further_pythons(options.python)
    except ValueError as error:
        parser.error(str(error))
    rounds = 1 if options.quick else options.rounds
    output = report.Report(sys.stdout)
    on = report.machine()  # before the suite itself keeps it busy
    results = []
    with tempfile.TemporaryDirectory(prefix="golibx-bench-") as build_directory:
        progress("building the programs in Go and C, looking for the peers")
        lineup = gather(Path(build_directory), options.runtime or RUNTIMES, pythons)
        output.lineup(lineup, on)
        names = [python.name for python in pythons]
        for selected in _selected(options.only, options.million):
            case = selected.on_pythons(names, lineup.beside)
            result = _run_case(case, lineup, min(rounds, case.rounds or rounds))
            output.case(result, lineup)
            results.append(result)
    output.summary(results)
    if options.json:
        content = json.dumps(report.document(on, lineup, results, rounds), indent=1)
        options.json.write_text(content + "\n", encoding="utf-8")
    failed = any(result.failures for result in results)
    missed = any(not result.met(target) for result in results for target in result.case.targets)
    return 1 if failed or (options.check and missed) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--list", action="store_true", help="list the cases with their targets, and run nothing")
    add(
        "--only",
        action="append",
        type=_pattern,
        metavar="CASE",
        help="run only this case, or those like 'native-*' (may be given often; see --list)",
    )
    add(
        "--runtime",
        action="append",
        choices=RUNTIMES,
        metavar="NAME",
        help=f"run this side only (may be given several times): {', '.join(RUNTIMES)}",
    )
    add(
        "--python",
        action="append",
        default=[],
        metavar="EXECUTABLE",
        help="measure golibx on this Python too (may be given several times)",
    )
    add(
        "--rounds",
        type=_positive,
        default=_DEFAULT_ROUNDS,
        metavar="K",
        help="measure everything K times and take medians (default: %(default)s)",
    )
    add("--quick", action="store_true", help="one round: a first impression, not a result")
    add("--million", action="store_true", help="also park 1 000 000 goroutines (16 GiB of memory)")
    add("--json", type=Path, metavar="FILE", help="write all samples to FILE")
    add("--check", action="store_true", help="exit with 1 when a target is not met")
    return parser


def _pattern(text: str) -> str:
    if not any(fnmatchcase(case.name, text) for case in CASES):
        raise argparse.ArgumentTypeError(f"there is no case {text!r}: see --list")
    return text


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _selected(only: list[str] | None, million: bool) -> list[Case]:
    """The cases to run; those that are optional only if named in full, or with --million."""
    cases = [case for case in CASES if million or not case.optional or case.name in (only or ())]
    if not only:
        return cases
    return [
        case
        for case in cases
        if case.optional or any(fnmatchcase(case.name, pattern) for pattern in only)
    ]


def _list_cases() -> None:
    for case in CASES:
        target = report.describe_targets(case)
        note = " (only with --million or --only)" if case.optional else ""
        print(f"{case.name:<18} {case.title}{note}" + (f"; {target}" if target else ""))


def _run_case(case: Case, lineup: Lineup, rounds: int) -> CaseResult:
    """Measure a case on every runtime in turn, round after round: all see the same noise."""
    result = CaseResult(case)
    for number in range(1, rounds + 1):
        for runtime in lineup.runtimes:
            if runtime.why_not(case) is not None or runtime.key in result.failures:
                continue
            progress(f"{case.name}: round {number} of {rounds}: {runtime.label}")
            try:
                result.add(runtime.key, measure(case, runtime, lineup.load_generator))
            except MeasurementError as error:
                result.failures[runtime.key] = str(error)
                progress(f"{case.name}: {runtime.label} failed: {error}", keep=True)
    progress("")
    return result


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
