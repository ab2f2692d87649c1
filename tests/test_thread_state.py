"""What a thread keeps for the code on it belongs to the goroutine, from its start to its end."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import operator
import os
import platform
import sys
import time

import pytest

from conftest import Script
from golibx import Chan, go, gosched, sleep

pytestmark = pytest.mark.goroutine

UPWARD = 0x800  # FE_UPWARD of x86-64
TENTHS = [0.1] * 10


def ten_tenths() -> float:
    return functools.reduce(operator.add, TENTHS)


x86_64_only = pytest.mark.skipif(
    os.name == "nt" or platform.machine() not in {"x86_64", "AMD64"},
    reason="the constants are those of x86-64's C library",
)


@x86_64_only
def test_the_rounding_mode_is_the_goroutines() -> None:
    """Some goroutines round up: the others do not, and they do still."""
    m = ctypes.PyDLL(None if sys.platform == "darwin" else "libm.so.6")

    def upward() -> bool:
        m.fesetround(UPWARD)
        for _ in range(30):
            gosched()
            time.sleep(0.0002)
            sleep(0)
            if m.fegetround() != UPWARD or ten_tenths() == 0.9999999999999999:
                return False
        m.fesetround(0)
        return True

    def nearest() -> bool:
        for _ in range(30):
            gosched()
            time.sleep(0.0002)
            if m.fegetround() != 0 or ten_tenths() != 0.9999999999999999:
                return False
        return True

    goroutines = [go(fn) for _ in range(3) for fn in (upward, nearest)]
    assert [g.result() for g in goroutines] == [True] * 6


@x86_64_only
@pytest.mark.goroutine(False)
def test_a_signal_handler_rounds_as_the_main_goroutine(script: Script) -> None:
    """Whoever raises the signal, and whether or not main waits. Nothing traps."""
    program = f"""
import ctypes, os, signal, sys
from golibx import go, gosched, run, sleep
m = ctypes.PyDLL(None if sys.platform == "darwin" else "libm.so.6")
seen = []
def handler(*_):
    seen.append((m.fegetround(), m.fegetexcept() if sys.platform == "linux" else 0, 1 / 3))
def raises():
    m.fesetround({UPWARD})
    signal.raise_signal(signal.SIGUSR1)
    gosched()
def main():
    signal.signal(signal.SIGUSR1, handler)
    signal.raise_signal(signal.SIGUSR1)
    go(raises).join()
    for n in range(3, 6):
        go(os.kill, os.getpid(), signal.SIGUSR1).join()
        while len(seen) < n: sleep(0.0005)
    print(len(seen), set(seen))
run(main)
"""
    assert script.passes(program) == "5 {(0, 0, 0.3333333333333333)}\n"


@x86_64_only
def test_a_goroutine_starts_with_the_rounding_mode_of_its_starter() -> None:
    """As a thread does; also on the stack of one that has just ended with another mode."""
    m = ctypes.PyDLL(None if sys.platform == "darwin" else "libm.so.6")
    m.fesetround(UPWARD)
    up = [go(m.fegetround) for _ in range(3)]
    m.fesetround(0)
    down = [go(fn, *args) for fn, *args in [(m.fesetround, UPWARD), (m.fegetround,)] * 3]
    assert [g.result() for g in up] == [UPWARD] * 3
    assert [g.result() for g in down] == [0] * 6
    assert m.fegetround() == 0


def leave_hooks() -> None:
    sys.set_asyncgen_hooks(firstiter=print, finalizer=print)
    sys.set_coroutine_origin_tracking_depth(7)


def leave_tracing() -> None:
    sys.settrace(lambda *_: None)
    sys.setprofile(lambda *_: None)


def kept() -> tuple[object, ...]:
    hooks = sys.get_asyncgen_hooks()
    depth = sys.get_coroutine_origin_tracking_depth()
    loop = asyncio._get_running_loop()
    return hooks.firstiter, hooks.finalizer, depth, sys.gettrace(), sys.getprofile(), loop


@pytest.mark.parametrize("leave", [leave_hooks, leave_tracing])
def test_the_next_goroutine_finds_nothing_of_the_last(leave: object) -> None:
    before = kept()
    for _ in range(3):
        go(leave).join()  # type: ignore[arg-type]
        assert go(kept).result() == (None, None, 0, None, None, None)
    assert kept() == before


def test_hooks_belong_to_the_goroutine_that_set_them() -> None:
    ch = Chan[int]()

    def first() -> object:
        leave_hooks()
        ch.send(1)
        ch.send(2)
        return sys.get_asyncgen_hooks().firstiter

    g = go(first)
    ch.recv()
    assert go(kept).result() == (None, None, 0, None, None, None)
    ch.recv()
    assert g.result() is print


def test_hooks_of_the_program_are_its_own_after_a_run(script: Script) -> None:
    out = script.passes(
        """
import sys
from golibx import go, run
sys.set_coroutine_origin_tracking_depth(3)
def inner():
    return sys.get_coroutine_origin_tracking_depth()
print(run(lambda: (inner(), go(inner).result())), inner())
"""
    )
    assert out == "(3, 0) 3\n"
