"""Runs the storms of stress.c against the native lane, and says which of them came to their end.

    python3 tests/native_stress/run.py               each a second, on 1, 2, 3 and 8 processors
    python3 tests/native_stress/run.py --times 50    the soak: each 50 times, with other seeds
    python3 tests/native_stress/run.py --only net,park --procs 2 --times 10

Each storm runs with each GOMAXPROCS and in each of three ways: preempted every 100 us inside
registered text; the same with threads only; not preempted. One line a run says how long it took
and what the scheduler did; the exit code is 0 if none failed. A failure prints all of its output,
and the command that repeats it.

The program is compiled with cc, gcc, clang or the package ziglang, and linked with --library,
golibx/_core.abi3.so by default. STRESS_GDB=1 adds the stacks of what hangs or crashes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SOURCE = HERE / "stress.c"
STORMS = (
    "cpu",
    "select",
    "cond",
    "steal",
    "syscall",
    "timer",
    "procs",
    "create",
    "net",
    "klt",
    "park",
    "close",
)
WAYS = {
    "registered": ("--register",),
    "threads": ("--no-register",),
    "off": ("--no-preempt",),
}
SLOWEST = 60.0  # seconds that a run may take longer than it was told to


class Run(NamedTuple):
    """One run of one storm."""

    storm: str
    procs: int
    way: str
    seed: int

    def arguments(self, seconds: float, slice_us: int) -> list[str]:
        numbers = {"procs": self.procs, "seconds": seconds, "slice-us": slice_us, "seed": self.seed}
        options = [text for name, n in numbers.items() for text in (f"--{name}", str(n))]
        return [self.storm, *options, *WAYS[self.way]]


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="golibx-stress-") as folder:
        program = options.program or build(Path(folder), options.header, options.library)
        runs = list(
            itertools.starmap(
                Run,
                itertools.product(
                    options.only, options.procs, options.ways, range(1, options.times + 1)
                ),
            )
        )
        began = time.monotonic()
        failed = [run for run in runs if not passes(program, run, options)]
    passed = len(runs) - len(failed)
    print(f"{passed} passed, {len(failed)} failed in {time.monotonic() - began:.0f} s", flush=True)
    return 1 if failed else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs the storms of stress.c.")
    parser.add_argument("--only", type=names(STORMS), default=STORMS, help="storms, with commas")
    parser.add_argument("--procs", type=numbers, default=(1, 2, 3, 8), help="default: 1,2,3,8")
    parser.add_argument(
        "--ways", type=names(tuple(WAYS)), default=tuple(WAYS), help=", ".join(WAYS)
    )
    parser.add_argument("--times", type=int, default=1, help="how often, each with another seed")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each at least")
    parser.add_argument("--slice-us", type=int, default=100, help="time slice in microseconds")
    parser.add_argument("--library", type=Path, default=ROOT / "golibx" / "_core.abi3.so")
    parser.add_argument("--header", type=Path, default=ROOT / "zsrc", help="folder of golibx.h")
    parser.add_argument("--program", type=Path, help="stress, compiled already")
    return parser.parse_args(arguments)


def names(known: tuple[str, ...]):  # type: ignore[no-untyped-def]  # argparse wants a callable
    def read(text: str) -> tuple[str, ...]:
        given = tuple(text.split(","))
        for name in given:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return given

    return read


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def find_compiler() -> list[str] | None:
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    return [sys.executable, "-m", "ziglang", "cc"] if find_spec("ziglang") else None


def build(folder: Path, header: Path, library: Path) -> Path:
    """The program, linked with the library, which it finds where that is now."""
    compiler = find_compiler() or sys.exit("there is no C compiler: neither cc nor ziglang")
    program = folder / "stress"
    command = [*compiler, "-std=c11", "-O2", "-g", f"-I{header}", str(SOURCE), str(library)]
    command += [f"-Wl,-rpath,{library.resolve().parent}", "-lm", "-lpthread", "-o", str(program)]
    environment = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(folder / "zig-cache")}
    subprocess.run(command, check=True, env=environment)
    return program


def passes(program: Path, run: Run, options: argparse.Namespace) -> bool:
    command = [str(program), *run.arguments(options.seconds, options.slice_us)]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GOLIB_", "GOMAXPROCS"))}
    if run.storm == "klt" and run.seed % 2 == 1:
        # glibc's malloc with one lock: a goroutine that is stopped while it holds that stops all
        # others, and so does one that makes threads.
        env |= {"MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    began = time.monotonic()
    try:
        result = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=options.seconds + SLOWEST,
            env=env,
            check=False,
        )
        code, output = result.returncode, result.stdout
    except subprocess.TimeoutExpired as expired:
        written = expired.stdout or b""  # bytes, whatever `text` says, but for newer Pythons
        text = written.decode(errors="replace") if isinstance(written, bytes) else written
        code, output = -9, f"{text}it was killed\n"
    seconds = time.monotonic() - began
    label = f"{run.storm:8} procs {run.procs} {run.way:10} seed {run.seed:2}"
    if code == 0:
        print(f"{label} {seconds:5.1f} s  {output.strip().partition('; ')[2]}", flush=True)
        return True
    print(f"{label} {seconds:5.1f} s  FAILED with exit code {code}", flush=True)
    print(output, end="", flush=True)
    print(f"again: {' '.join(command)}", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
