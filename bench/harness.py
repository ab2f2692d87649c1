"""What the Python benchmark programs share: command line, passes, results, disturbances.

A program prints its results as lines of "name<TAB>value"; the driver reads them. This module
imports nothing outside the standard library and starts nothing: it costs every runtime the same.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

# How long the CPU hog and the blocking call last, in seconds; gopeer has the same.
DISTURBANCE = 2.0

# Requests larger than this are not expected; gopeer reads as much at once.
RECEIVE_SIZE = 65536

# Thousands of connections may come at once.
BACKLOG = 4096

# Tasks that want the same lock or permits; children of a scope. gopeer has the same.
CONTENDERS = 10
CHILDREN = 1000

_PRIMES = {10: 29, 100: 541, 1000: 7919}


def emit(name: str, value: float) -> None:
    """Print one result."""
    print(f"{name}\t{value:.3f}", flush=True)


@contextmanager
def timed(name: str, per_second: float) -> Iterator[None]:
    """Emit how long the block took, multiplied by per_second, as name."""
    start = time.perf_counter()
    yield
    emit(name, (time.perf_counter() - start) * per_second)


def passes(case: str, operations: int) -> Iterator[tuple[int, AbstractContextManager[None]]]:
    """The runs that make up a case: how many operations to do, and a context to do them in."""
    nanoseconds = 1e9 / operations
    if case == "parked":  # measures itself, with ParkedMeter
        yield operations, nullcontext()
    elif case == "sieve":  # long enough to need no warm-up
        yield operations, timed("ms", 1e3)
    elif case == "rlock":  # it tells more, and once
        yield operations, timed("ns", nanoseconds)
    elif case == "spawn":
        yield operations, timed("cold_ns", nanoseconds)
        yield operations, timed("ns", nanoseconds)
    else:
        yield max(1, operations // 10), nullcontext()
        yield operations, timed("ns", nanoseconds)


def measure(case: str, operations: int, work: Callable[[int], None]) -> None:
    """Run the passes of a case on a runtime whose tasks are plain functions."""
    for count, meter in passes(case, operations):
        with meter:
            work(count)


def micro_arguments(cases: Mapping[str, object]) -> tuple[str, int]:
    """The case and the number of operations given on the command line, as CASE OPERATIONS.

    Ends the program with exit code 2 when they are not usable.
    """
    if len(sys.argv) != 3 or sys.argv[1] not in cases or not sys.argv[2].isdecimal():
        print(f"usage: {sys.argv[0]} {{{','.join(cases)}}} OPERATIONS", file=sys.stderr)
        sys.exit(2)
    return sys.argv[1], int(sys.argv[2])


def echo_port() -> int:
    """The port given on the command line. Ends the program with exit code 2 when there is none."""
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        print(f"usage: {sys.argv[0]} PORT", file=sys.stderr)
        sys.exit(2)
    return int(sys.argv[1])


def check_prime(count: int, prime: int) -> None:
    """Raise ArithmeticError if prime is known not to be the count-th prime."""
    if prime != _PRIMES.get(count, prime):
        raise ArithmeticError(f"prime {count} is {_PRIMES[count]}, not {prime}")


def emit_waits(waits_ns: list[int]) -> None:
    """Emit the median and the 99th percentile of times that tasks have waited."""
    waits_ns.sort()
    emit("wait_p50_us", waits_ns[len(waits_ns) // 2] / 1e3)
    emit("wait_p99_us", waits_ns[len(waits_ns) * 99 // 100] / 1e3)


class ParkedMeter:
    """Measures tasks that all wait: make it, start them, say when all wait and when all ended."""

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        gc.collect()
        self._resident = _resident_bytes()
        self._start = time.perf_counter()

    def all_parked(self) -> None:
        """Emit resident bytes and creation time for one task; the next step is to wake them."""
        emit("bytes", (_resident_bytes() - self._resident) / self._tasks)
        self._emit_step("create_ns")

    def all_ended(self) -> None:
        """Emit the time to wake one task and see it end."""
        self._emit_step("wake_ns")

    def _emit_step(self, name: str) -> None:
        now = time.perf_counter()
        emit(name, (now - self._start) * 1e9 / self._tasks)
        self._start = time.perf_counter()


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def leave(status: int = 0) -> None:
    """End the process at once, without waiting for or complaining about tasks that never end."""
    sys.stdout.flush()
    os._exit(status)


def below_c(function: Callable[[], None]) -> None:
    """Have the C library call the function."""
    pending = [function]

    def compare(_a: int, _b: int) -> int:
        if pending:
            pending.pop()()
        return 0

    pointer = ctypes.c_void_p
    kind = ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer)
    ctypes.CDLL(None).qsort((ctypes.c_int * 2)(2, 1), 2, ctypes.sizeof(ctypes.c_int), kind(compare))


def disturb(command: bytes) -> None:
    """Obey a message of one byte: b"H" burns CPU, b"B" blocks, anything else does nothing."""
    if command == b"H":
        hog()
    elif command == b"B":
        block()


def hog() -> None:
    """Burn CPU in Python bytecode."""
    end = time.perf_counter() + DISTURBANCE
    count = 0
    while time.perf_counter() < end:
        count += 1


def block() -> None:
    """Block the thread in a C call that releases the GIL and that no runtime patches."""
    end = time.monotonic() + DISTURBANCE
    while (left := end - time.monotonic()) > 0:  # a signal may cut the sleep short
        _usleep(int(left * 1e6) + 1)


_usleep = ctypes.CDLL(None).usleep
_usleep.argtypes = [ctypes.c_uint]
