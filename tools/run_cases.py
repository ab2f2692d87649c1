"""Runs small programs that once went wrong, again and again, and checks what each must do.

    python3 tools/run_cases.py FOLDER                    each once, on the Python that runs this
    python3 tools/run_cases.py FOLDER --times 20 --python ~/.venvs/3.14/bin/python
    python3 tools/run_cases.py FOLDER --only fork-double --only bug-m-hang

FOLDER holds the programs, by the names that CASES has. golibx has to be importable, by an
installation or PYTHONPATH, and for some of them scipy, cryptography and greenlet. Each runs in an
empty folder. Says of each how often it was wrong, with the end of what the first wrong run printed;
the exit code is 1 if any was.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT = 90.0  # seconds for one run of one program


@dataclass(frozen=True)
class Case:
    """A program and what it must do.

    Attributes:
        name: of its file, without .py.
        out: a pattern that all of stdout must match, with blank ends removed; None: anything.
        code: the exit code; negative: the signal that ends it.
        err: a pattern to be found in stderr.
        wrong: a pattern that must not be found in either.
        arguments: of the program.
        command: what Python is given before the program's path.
        also: a pattern that may be in stderr instead, with exit code 1.
    """

    name: str
    out: str | None = None
    code: int = 0
    err: str = ""
    wrong: str = "WRONG|Segmentation fault|Fatal Python error"
    arguments: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    also: str = ""


RUN = ("-m", "golibx", "run")

CASES = (
    Case("asyncio-ctrl-c", "cancelled, cleaned up", code=-2, err="KeyboardInterrupt"),
    Case("bug-a-repr", r"\['(.*)', '\1'\]"),
    Case("bug-b-reader", r"20000000 \[None, None\]"),
    Case("bug-c-mp-lock", ".*: 1"),
    Case("bug-d-queue", r"\[None, None, None, None, None, None\]"),
    # 3.13 compiles a loop's jump back as no part of the `try` around it, and raises there at times.
    Case("bug-e-async-exc", "RIGHT.*", also=r"line 13, in main\n.*\n.*\nTooLong$"),
    Case("bug-f-hooks", r"\(None, 0\)"),
    Case("bug-g-cancel-del", "cancelled: True"),
    Case("bug-h-fork-exit", ".*: 3"),
    Case("bug-i-fork-segv", ".*: 0"),
    Case("bug-i-fork-segv", ".*: 0", arguments=("fh",)),
    Case("bug-j-closerange", "main returns\nrun is over"),
    Case("bug-k-makefile", "timed out", code=1, err="OSError"),
    Case("bug-l-recv0", r"b''\n0\n.*Errno 9.*"),
    Case("bug-m-hang"),
    Case("bug-m-lock-left", "RIGHT.*"),
    Case("bug-m2-lock-left", ".*by 0 of 100.*"),
    Case("bug-n-sysexit", "caught 3\nwent on"),
    Case("bug-o-signal-deadlock", "RIGHT.*"),
    Case("bug-p-crash", "RIGHT.*"),
    Case("bug-q-fatal", "RIGHT.*"),
    Case("bug-r-interrupt", ".*were 0 KeyboardInterrupts.*"),
    Case("c-recursion", "RIGHT.*"),
    Case("float-environment", r"\[False, False, False\] \[(\d+), \1, \1\]"),
    Case("foreign-greenlet"),
    Case("foreign-pyo3"),
    Case("foreign-scipy", r"0 \[\]"),
    Case("foreign-scipy", r"0 \[\]", arguments=("sleep",)),
    Case("foreign-sqlite", "20"),
    Case("fork-double", r"\{\}"),
    Case("fork-import", "0"),
    Case("fork-warning"),
    Case("leaks-false", r"\[\] \[\]"),
    Case("leaks-missed", r"(\S+ found\s*){7}", wrong="missed"),
    Case(
        "panic-exit",
        code=2,
        err="ZeroDivisionError",
        command=(*RUN, "--set", "runtime.on_panic=exit"),
    ),
    Case("panic-kept-handle", err="ZeroDivisionError"),
    Case("run-straggler", arguments=("wg",)),
    Case("run-straggler", arguments=("ch",)),
    Case("rwmutex-cond-spin", wrong=r"cpu during [^:]*: 0\.[1-9]"),
    Case("sent-sigsegv", code=-11, wrong="survived"),
    Case("signal-exception", r"\('TimeIsUp', \['untouched', 'untouched', 'untouched'\]\)"),
    Case("syntax-error", code=1, err="SyntaxError", command=RUN),
    Case("two-runs-at-once", ""),
    Case("waitgroup-quadratic"),
)


def problem(case: Case, result: subprocess.CompletedProcess[str]) -> str:
    """What is wrong with a run; empty if nothing is."""
    out, err = result.stdout.strip(), result.stderr
    if case.also and result.returncode == 1 and re.search(case.also, err):
        return ""
    if result.returncode != case.code:
        return f"exit code {result.returncode}, not {case.code}"
    if case.out is not None and not re.fullmatch(case.out, out, re.DOTALL):
        return f"printed {out[-200:]!r}, not {case.out!r}"
    if not re.search(case.err, err):
        return f"stderr lacks {case.err!r}"
    if case.wrong and (found := re.search(case.wrong, out + err)):
        return f"printed {found[0]!r}"
    return ""


def run(case: Case, folder: Path, python: str) -> str:
    """Runs it once; what was wrong, with the end of its stderr."""
    command = [python, *case.command, str(folder / f"{case.name}.py"), *case.arguments]
    with tempfile.TemporaryDirectory(prefix="golibx-case-") as empty:
        try:
            result = subprocess.run(
                command, cwd=empty, capture_output=True, text=True, timeout=LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            return f"did not end within {LIMIT:.0f} s"
    wrong = problem(case, result)
    return f"{wrong}\n{result.stderr[-2000:]}" if wrong else ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the programs are")
    parser.add_argument("--times", type=int, default=1, help="how often each runs (1)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter (this one)")
    parser.add_argument("--only", action="append", help="a case (may be given several times)")
    options = parser.parse_args(arguments)
    # A shell has its background jobs ignore Ctrl-C, and the programs would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cases = [case for case in CASES if not options.only or case.name in options.only]
    if not cases:
        parser.error(f"--only: no case is named {' or '.join(options.only)}")
    folder = options.folder.resolve()
    missing = sorted({case.name for case in cases if not (folder / f"{case.name}.py").exists()})
    if missing:
        parser.error(f"{folder} lacks {', '.join(missing)}")
    failed = 0
    for case in cases:
        wrong = [text for _ in range(options.times) if (text := run(case, folder, options.python))]
        failed += bool(wrong)
        name = " ".join((case.name, *case.arguments))
        print(f"{name}: {len(wrong)} of {options.times} wrong", flush=True)
        if wrong:
            print("    " + wrong[0].replace("\n", "\n    "), flush=True)
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
