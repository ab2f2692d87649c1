"""The frames of goroutines' Python code, of which the first lie on their C stacks."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

import pytest

from conftest import Script
from golibx import Chan, _core, go, gosched
from golibx.testing import wait_until_parked

pytestmark = pytest.mark.goroutine


def down(depth: int, bottom: Callable[[], object]) -> int:
    """Calls itself, with a frame of its own size each time."""
    a, b, c, d = depth, depth + 1, depth + 2, depth + 3
    if depth:
        assert down(depth - 1, bottom) == depth - 1
    else:
        bottom()
    assert (a, b, c, d) == (depth, depth + 1, depth + 2, depth + 3)
    return depth


@pytest.mark.parametrize("depth", [1, 3, 5, 8, 13, 21, 34, 200])
def test_frames_of_any_depth_are_kept_while_others_run(depth: int) -> None:
    go_on: Chan[None] = Chan()
    goroutines = [go(down, depth, go_on.recv) for _ in range(50)]
    gosched()
    others = [go(down, n, gosched) for n in range(40)]
    for _ in goroutines:
        go_on.send(None)
    assert [g.result() for g in goroutines] == [depth] * 50
    assert [g.result() for g in others] == list(range(40))


def test_a_loop_that_passes_the_end_of_a_chunk_at_each_turn() -> None:
    def at(depth: int) -> int:
        if depth:
            return at(depth - 1)
        return sum(down(2, gosched) for _ in range(20))

    assert [go(at, depth).result() for depth in range(60)] == [40] * 60


def frames(depth: int, seen: list[FrameType]) -> Iterator[int]:
    value = depth * 7
    seen.append(sys._getframe())
    yield value
    yield value + 1


def test_frames_outlive_their_goroutine() -> None:
    seen: list[FrameType] = []
    tracebacks: list[TracebackType] = []
    left: list[Iterator[int]] = []

    def keeps(n: int) -> None:
        marker = f"marker {n}"
        seen.append(sys._getframe())
        generator = frames(n, seen)
        assert next(generator) == n * 7
        left.append(generator)
        try:
            raise ValueError(marker)
        except ValueError as e:
            assert e.__traceback__
            tracebacks.append(e.__traceback__)

    for n in range(100):
        go(keeps, n).join()
    for g in [go(down, 10, gosched) for _ in range(100)]:
        g.join()
    gc.collect()
    assert [f.f_locals["marker"] for f in seen[::2]] == [f"marker {n}" for n in range(100)]
    assert [t.tb_frame.f_locals["n"] for t in tracebacks] == list(range(100))
    assert [next(generator) for generator in left] == [n * 7 + 1 for n in range(100)]


def test_the_child_of_a_fork_and_the_end_of_the_program(script: Script) -> None:
    """Where the interpreter frees the thread states of goroutines that have not ended."""
    program = """
import faulthandler; faulthandler.cancel_dump_traceback_later()  # a child would wait for its thread
import os, sys
from golibx import Chan, go, gosched, run, sleep

def down(depth):
    return down(depth - 1) if depth else never.recv()

def forks(depth):
    if depth: return forks(depth - 1)
    pid = os.fork()
    if pid == 0:
        sys.exit(run(lambda: go(lambda: 5).result()))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def stubborn(depth):
    if depth: return stubborn(depth - 1)
    while True:
        try: sleep(60)
        except BaseException: pass

def main():
    global never
    never = Chan()
    for depth in range(30): go(down, depth)
    for depth in range(30): go(stubborn, depth)
    gosched()
    print(sorted({go(forks, depth).result() for depth in range(0, 30, 3)} | {forks(3)}))

run(main, config={"runtime": {"shutdown_timeout": "100ms"}})
"""
    result = script(program)
    assert (result.returncode, result.stdout) == (0, "[5]\n")


def resident() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_one_that_waits_takes_a_page_for_its_calls_and_its_frames() -> None:
    if _core.info()["build"] == "debug":
        pytest.skip("a debug build's calls take several pages")
    count = 5000
    go_on: Chan[None] = Chan()
    kept = [go(go_on.recv) for _ in range(100)]
    wait_until_parked(kept[-1])
    gc.collect()
    before = resident()
    kept += [go(lambda: go_on.recv()) for _ in range(count)]
    wait_until_parked(kept[-1])
    each = (resident() - before) / count
    for _ in kept:
        go_on.send(None)
    for g in kept:
        g.join()
    assert each < 7.5 * 1024
