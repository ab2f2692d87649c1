"""How results are shown: tables and a summary for people, a document for programs."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TextIO

from results import CaseResult
from runtimes import Lineup, Runtime
from suite import GO, GOLIBX, Case, Metric, Target

_LABEL = 11  # characters, at least
_GREEN, _RED, _YELLOW, _BOLD, _DIM = "32", "31", "33", "1", "2"


class Report:
    """Writes to a text stream, in colour if that is a terminal and NO_COLOR is not set."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._coloured = stream.isatty() and not os.environ.get("NO_COLOR")

    def lineup(self, lineup: Lineup, on: str) -> None:
        """Say who takes part, who does not and why, and on what machine (see `machine`)."""
        self._line(on)
        versions = {runtime.label: runtime.version for runtime in lineup.runtimes}
        self._line(", ".join(f"{label} {version}" for label, version in versions.items()))
        self._line(f"load generator: {os.path.basename(lineup.load_generator[-1])}")
        for key, reason in lineup.missing.items():
            self._line(self._paint(f"missing: {key}: {reason}", _YELLOW))

    def case(self, result: CaseResult, lineup: Lineup) -> None:
        """A case's table: a row for each runtime, a target in the row of who has to reach it."""
        case = result.case
        self._line()
        self._line(self._paint(case.title, _BOLD))
        headings = [metric.heading for metric in case.metrics]
        widths = [max(10, len(heading)) for heading in headings]
        columns = [f"{heading:>{width}}" for heading, width in zip(headings, widths, strict=True)]
        columns.insert(1, f"{'spread':>7}")
        columns.append(f"{'golibx/it':>10}")
        if _beside_go(result):
            columns.append(f"{'it/Go P=1':>10}")
        runtimes = [runtime for runtime in lineup.runtimes if runtime.offers(case)]
        label_width = max([_LABEL, *(len(runtime.label) for runtime in runtimes)])
        line = f"  {'':<{label_width}} {'  '.join(columns)}  target"
        self._line(self._paint(line.rstrip(), _DIM))
        for runtime in runtimes:
            self._row(result, runtime, f"  {runtime.label:<{label_width}} ", widths)

    def _row(self, result: CaseResult, runtime: Runtime, label: str, widths: Sequence[int]) -> None:
        if runtime.key in result.failures:
            self._line(label + self._paint(f"failed: {result.failures[runtime.key]}", _RED))
            return
        excluded = runtime.why_not(result.case)
        if excluded is not None:
            self._line(label + self._paint(f"not measured: {excluded}", _DIM))
            return
        cells = []
        for metric, width in zip(result.case.metrics, widths, strict=True):
            cells.append(f"{_number(metric, result.median(runtime.key, metric.key)):>{width}}")
        spread = result.spread(runtime.key)
        cells.insert(1, f"{'' if spread is None else f'±{spread:.0%}':>7}")
        ratios = [result.ratio(runtime.key)]
        if _beside_go(result):
            ratios.append(result.of_go(runtime.key))
        cells += [f"{'' if ratio is None else f'{ratio:.2f}':>10}" for ratio in ratios]
        targets = [target for target in result.case.targets if target.runtime == runtime.key]
        if targets:
            cells.append("; ".join(self._verdict(result, target) for target in targets))
        self._line((label + "  ".join(cells)).rstrip())

    def summary(self, results: Sequence[CaseResult]) -> None:
        """How many targets were met, and which were not."""
        self._line()
        targeted = [(result, target) for result in results for target in result.case.targets]
        verdicts = [result.met(target) for result, target in targeted]
        line = f"{verdicts.count(True)} of {len(targeted)} targets met"
        if None in verdicts:
            line += f", {verdicts.count(None)} not measured"
        self._line(self._paint(line, _BOLD))
        for (result, target), met in zip(targeted, verdicts, strict=True):
            if not met:
                who = "" if target.runtime == GOLIBX else f"{target.runtime} "
                self._line(f"  {result.case.name}: {who}{self._verdict(result, target)}")

    def _verdict(self, result: CaseResult, target: Target) -> str:
        """A target of a case, what was achieved, and whether that is enough."""
        allowed = _describe(result.case, target)
        achieved = result.achieved(target)
        if achieved is None:
            return f"{allowed}: " + self._paint("not measured", _YELLOW)
        met = result.met(target)
        word = self._paint("met", _GREEN) if met else self._paint("missed", _RED)
        return f"{allowed}: {_limited(result.case, target, achieved)}, {word}"

    def _line(self, text: str = "") -> None:
        print(text, file=self._stream)

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text


def _beside_go(result: CaseResult) -> bool:
    """Whether all that was measured can be compared with Go on one processor."""
    case = result.case
    return case.kind != "native" and result.median(GO, case.metrics[0].key) is not None


def document(
    on: str, lineup: Lineup, results: Sequence[CaseResult], rounds: int
) -> dict[str, object]:
    """Everything that was measured, for JSON; the samples are one number for each round.

    `on` is what `machine` said before the first case.
    """
    return {
        "machine": on,
        "rounds": rounds,
        "versions": {runtime.key: runtime.version for runtime in lineup.runtimes},
        "pythons": {python.name: python.executable for python in lineup.pythons},
        "missing": dict(lineup.missing),
        "load_generator": os.path.basename(lineup.load_generator[-1]),
        "cases": {result.case.name: _case_document(result) for result in results},
    }


def _case_document(result: CaseResult) -> Mapping[str, object]:
    case = result.case
    content: dict[str, object] = {
        "title": case.title,
        "compared": case.metrics[0].key,
        "samples": result.samples,
        "medians": {
            runtime: {metric: result.median(runtime, metric) for metric in metrics}
            for runtime, metrics in result.samples.items()
        },
        "ratios": {
            runtime: result.ratio(runtime)
            for runtime in result.samples
            if case.golibx_beside(runtime) is not None
        },
        "of_go": {
            runtime: result.of_go(runtime)
            for runtime in result.samples
            if runtime != GO and _beside_go(result)
        },
        "failures": result.failures,
    }
    content["targets"] = [
        dataclasses.asdict(target)
        | {
            "metric": case.metric(target.metric).key,
            "achieved": result.achieved(target),
            "met": result.met(target),
        }
        for target in case.targets
    ]
    return content


def progress(text: str, *, keep: bool = False) -> None:
    """Show on stderr what is being done: in one line that is overwritten, if that is a terminal."""
    with suppress(OSError):
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="\n" if keep else "", file=sys.stderr, flush=True)
        elif text:
            print(text, file=sys.stderr, flush=True)


def machine() -> str:
    """The machine in one line: system, processor architecture, CPUs to use, how busy it is."""
    system = platform.uname()
    cpus = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return f"{system.system} {system.release}, {system.machine}, {cpus} CPUs, load {load:.1f}"


def describe_targets(case: Case) -> str:
    """The targets of a case in words, such as "at most 0.6 of go-p1"; "" when it has none."""
    words = (_describe(case, target) for target in case.targets)
    return "; ".join(dict.fromkeys(words))


def _describe(case: Case, target: Target) -> str:
    limit = _limited(case, target, target.limit)
    if target.relation == "ratio":
        return f"{target.bound} {limit} of {target.peer}"
    if target.relation == "difference":
        return f"{target.bound} {target.peer} + {limit}"
    which = "" if target.metric is None else case.metric(target.metric).heading.rpartition(" ")[0]
    return f"{which} {target.bound} {limit}".lstrip()


def _limited(case: Case, target: Target, value: float) -> str:
    """A target's limit, or what it limits, with its unit."""
    if target.relation == "ratio":
        return f"{value:.2f}"
    metric = case.metric(target.metric)
    return f"{_number(metric, value)} {metric.heading.split()[-1]}"


def _number(metric: Metric, value: float | None) -> str:
    return "-" if value is None else f"{value:,.{metric.decimals}f}"
