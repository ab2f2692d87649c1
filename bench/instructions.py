"""Counts the instructions that goroutines take, with valgrind: no other program disturbs that.

Each count is the difference between two runs of golibx_micro.py's work that differ in how often
they do it, divided by that: what a process takes to start and to end is in both. See README.md in
this directory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import MeasurementError, call
from runtimes import Interpreter, MissingError, further_pythons, import_version
from suite import GOLIBX

TOTAL = "total"
PARTS = ("interpreter", GOLIBX, "rest")

# How often the longer run does what the shorter one does once.
_TIMES = 3

# Neither a slice's end nor a signal is to come in between.
_PROGRAM = """
import functools, sys
sys.path.insert(0, sys.argv[1])
import golibx, golibx_micro
case, operations, at_once, below = sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]

def work():
    for _ in range(operations // at_once):
        golibx_micro.CASES[case](at_once)

def call_below(f):
    if below == "map": list(map(lambda _: f(), [None]))
    else: functools.partial(f)()

if below:
    golibx_micro.go = lambda *call: golibx.go(call_below, functools.partial(*call))
    work = functools.partial(call_below, work)

golibx.run(work, config={"preempt": {"async": False, "slice": "1m"}})
"""


@dataclass(frozen=True)
class Work:
    """What is counted.

    Attributes:
        name: for people and JSON.
        case: what golibx_micro.py knows it by.
        operations: how often the shorter run does it.
        at_once: how many operations are one call of the case; None for all of a run.
        below: the function of the interpreter's own below which each goroutine's code runs, "map"
            or "partial"; "" for none.
    """

    name: str
    case: str
    operations: int
    at_once: int | None = None
    below: str = ""


# The counts of two runs differ by less than one in these amounts.
WORKS = (
    Work("yield", "yield2", 20_000),
    Work("pingpong", "pingpong", 20_000),
    # A park below the interpreter's own C code takes a look at what lies there.
    Work("pingpong_map", "pingpong", 20_000, below="map"),
    Work("pingpong_partial", "pingpong", 20_000, below="partial"),
    Work("buffered", "buffered", 20_000),
    # By the thousand, so that all but the first find stacks to use again.
    Work("spawn", "spawn", 5_000, at_once=1000),
    Work("select4", "select4", 10_000),
)

Counts = Mapping[str, Mapping[str, float]]  # for each work, of each part and in total


def main(arguments: Sequence[str] | None = None) -> int:
    """Count what the command line asks for; returns the exit code: 1 where a Python failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--python",
        action="append",
        metavar="EXECUTABLE",
        help="count on this Python (may be given several times; default: the running one)",
    )
    add(
        "--only",
        action="append",
        choices=[work.name for work in WORKS],
        help="count only this (may be given several times)",
    )
    add("--json", type=Path, metavar="FILE", help="write the counts to FILE")
    options = parser.parse_args(arguments)
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        parser.error("there is no valgrind: install it")
    try:
        pythons = further_pythons(options.python or [sys.executable])
    except ValueError as error:
        parser.error(str(error))
    works = [work for work in WORKS if not options.only or work.name in options.only]

    counts: dict[str, Counts] = {}
    versions: dict[str, str] = {}
    for python in pythons:
        try:
            versions[python.name] = import_version(GOLIBX, python)
            found = {}
            for work in works:
                print(f"{work.name} on Python {python.version}", file=sys.stderr, flush=True)
                found[work.name] = _each(valgrind, python, work)
            counts[python.name] = found
        except (MissingError, MeasurementError) as error:
            print(f"Python {python.name}: {error}", file=sys.stderr)
    if counts:
        print(*_table(works, counts), sep="\n")
    if options.json:
        content = {"versions": versions, "instructions": counts}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0 if len(counts) == len(pythons) else 1


def _each(valgrind: str, python: Interpreter, work: Work) -> dict[str, float]:
    """The instructions of one operation. Raises MeasurementError."""
    few = _run(valgrind, python, work, work.operations)
    many = _run(valgrind, python, work, _TIMES * work.operations)
    extra = (_TIMES - 1) * work.operations
    each = {part: (many[part] - few[part]) / extra for part in PARTS}
    return {TOTAL: sum(each.values())} | each


def _run(valgrind: str, python: Interpreter, work: Work, operations: int) -> Mapping[str, int]:
    """The instructions of a whole process, of each part. Raises MeasurementError."""
    with tempfile.TemporaryDirectory(prefix="golibx-instructions-") as directory:
        output = Path(directory, "callgrind.out")
        tool = [valgrind, "--tool=callgrind", "--dump-line=no", f"--callgrind-out-file={output}"]
        program = [python.executable, "-c", _PROGRAM, str(Path(__file__).parent)]
        at_once = work.at_once or operations
        arguments = [work.case, str(operations), str(at_once), work.below]
        call([*tool, *program, *arguments], {"PYTHONHASHSEED": "0"})
        return parts(output.read_text(encoding="utf-8"))


def parts(profile: str) -> Mapping[str, int]:
    """How many instructions of callgrind's output each part has executed itself.

    Raises MeasurementError if they are not all of those that it counted.
    """
    counts: Counter[str] = Counter(dict.fromkeys(PARTS, 0))
    names: dict[str, str] = {}  # of objects, by callgrind's numbers: it tells each name once
    current, is_call, expected = "rest", False, 0
    for line in profile.splitlines():
        if match := re.match(r"(c?)ob=(\(\d+\))(?: (.+))?", line):
            of_callee, number, name = match.groups()
            if name:
                names[number] = _part(name)
            if not of_callee:
                current = names[number]
        elif line.startswith("calls="):
            is_call = True  # what follows is the callee's
        elif match := re.match(r"(?:[+-]?\d+|\*) (\d+)$", line):
            if not is_call:
                counts[current] += int(match[1])
            is_call = False
        elif match := re.match(r"(?:totals|summary): (\d+)", line):
            expected = int(match[1])
    if counts.total() != expected:
        raise MeasurementError(f"callgrind's {expected} instructions were read as {counts.total()}")
    return counts


def _part(path: str) -> str:
    name = os.path.basename(path)
    if name.startswith("_core.abi3."):
        return GOLIBX
    return "interpreter" if re.match(r"(lib)?python", name) else "rest"


def _table(works: Sequence[Work], counts: Mapping[str, Counts]) -> list[str]:
    """A row for each work, and below one for each part; a column for each Python."""
    lines = [f"{'instructions':<18}" + "".join(f"{name:>9}" for name in counts)]
    for work in works:
        for part in (TOTAL, *PARTS):
            label = work.name if part == TOTAL else f"  {part}"
            cells = (f"{found[work.name][part]:>9,.0f}" for found in counts.values())
            lines.append(f"{label:<18}" + "".join(cells))
    return lines


if __name__ == "__main__":
    sys.exit(main())
