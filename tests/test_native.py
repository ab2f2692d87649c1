"""golibx.native: C functions and channels of C values, from Python.

The C code is that of the C library and of tests/native/python, compiled by the package ziglang or
the system's compiler.
"""

from __future__ import annotations

import array
import ctypes
import ctypes.util
import gc
import itertools
import os
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import golibx
from conftest import Script, c_compiler
from golibx import (
    Cancelled,
    Chan,
    ChannelClosed,
    DeadlineExceeded,
    _core,
    go,
    gomaxprocs,
    gosched,
    include,
    native,
    select,
    sleep,
    stats,
)
from golibx.testing import wait_until

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "tests" / "native" / "python" / "functions.c"

pytestmark = [
    pytest.mark.goroutine,
    pytest.mark.skipif(os.name != "posix", reason="native goroutines are for POSIX"),
]

libc = ctypes.CDLL(None)
libm = ctypes.CDLL(ctypes.util.find_library("m"))
libm.cos.restype = libm.pow.restype = ctypes.c_double
libm.cos.argtypes = (ctypes.c_double,)
libm.pow.argtypes = (ctypes.c_double, ctypes.c_double)


class Link(ctypes.Structure):
    _fields_ = [
        ("input", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("first", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("sum", ctypes.c_int64),
    ]


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_double), ("name", ctypes.c_int32)]


@pytest.fixture(scope="module")
def library_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    path = folder / "functions.so"
    options = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command = [*c_compiler(), *options, str(SOURCE), "-o", str(path)]
    result = subprocess.run(
        [*command, *include.cflags(), *include.libs()],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "ZIG_LOCAL_CACHE_DIR": str(folder / "zig-cache")},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return path


@pytest.fixture(scope="module")
def c(library_path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(library_path))


@pytest.fixture
def run_script(script: Script, library_path: Path) -> Callable[..., str]:
    """A program that has the C functions as `c`."""

    def run(program: str, **options: Any) -> str:
        head = "import ctypes, golibx\nfrom golibx import native, go, sleep\n"
        return script.passes(f"{head}c = ctypes.CDLL({str(library_path)!r})\n{program}", **options)

    return run


def address_of(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def flag() -> ctypes.c_int32:
    return ctypes.c_int32(0)


# ---- call ----


def test_call_of_the_math_library() -> None:
    assert native.call(libm.cos, 0.0) == 1.0
    assert native.call(libm.pow, 2, 10) == 1024.0
    assert native.call(libm.pow, 2.5, 2.0) == 6.25


def test_call_of_an_address() -> None:
    address = address_of(libm.cos)
    assert native.call(address, 0.0, restype=ctypes.c_double) == 1.0
    argtypes = (ctypes.c_double,)
    assert native.call(address, 0, restype=ctypes.c_double, argtypes=argtypes) == 1.0
    assert native.call(address_of(libc.abs), -5) == 5  # the result is an int, as in ctypes


@pytest.mark.goroutine(False)
def test_call_outside_of_a_run() -> None:
    assert not _core.active()
    assert native.call(libm.cos, 0.0) == 1.0
    assert native.call(libc.abs, -7) == 7


def test_integers_and_doubles(c: ctypes.CDLL) -> None:
    values = range(1, 9)
    expected = sum(i * i for i in values)
    result = native.call(c.integers8, *values, restype=ctypes.c_int64)
    assert result == expected
    assert native.call(c.integers8, *(-v for v in values), restype=ctypes.c_int64) == -expected
    floats = [float(v) for v in values]
    assert native.call(c.doubles8, *floats, restype=ctypes.c_double) == expected


def test_more_arguments_than_registers(c: ctypes.CDLL) -> None:
    d, f = ctypes.c_double, ctypes.c_float
    argtypes = (d, d, d, d, d, d, d, d, d, f, d, f)
    values = range(1, 13)
    result = native.call(c.doubles12, *values, restype=d, argtypes=argtypes)
    assert result == sum(i * i for i in values)
    mix = [v if v % 2 else float(v) for v in range(1, 21)]
    assert native.call(c.mixed20, *mix, restype=d) == sum(i * i for i in range(1, 21))


def test_a_mix_of_types_as_ctypes_passes_them(c: ctypes.CDLL) -> None:
    c.mixed.restype = ctypes.c_double
    c.mixed.argtypes = (
        ctypes.c_int8,
        ctypes.c_double,
        ctypes.c_uint16,
        ctypes.c_float,
        ctypes.c_int32,
        ctypes.c_float,
        ctypes.POINTER(ctypes.c_int32),
        ctypes.c_double,
        ctypes.c_uint64,
        ctypes.c_bool,
    )
    seven = ctypes.c_int32(-70)
    arguments = (-3, 2.25, 65535, 0.1, -5, 1.5, ctypes.byref(seven), 8.5, 2**40, True)
    expected = c.mixed(*arguments)
    assert native.call(c.mixed, *arguments) == expected
    assert native.call(c.mixed, *arguments[:6], ctypes.pointer(seven), *arguments[7:]) == expected


@pytest.mark.parametrize(
    ("name", "restype", "expected"),
    [
        ("minus1_8", ctypes.c_int8, -1),
        ("minus1_16", ctypes.c_int16, -1),
        ("minus1_32", ctypes.c_int32, -1),
        ("minus1_64", ctypes.c_int64, -1),
        ("all_8", ctypes.c_uint8, 2**8 - 1),
        ("all_16", ctypes.c_uint16, 2**16 - 1),
        ("all_32", ctypes.c_uint32, 2**32 - 1),
        ("all_64", ctypes.c_uint64, 2**64 - 1),
        ("all_64", ctypes.c_void_p, 2**64 - 1),
        ("minus1_64", ctypes.c_long, -1),
        ("minus1_32", None, None),
    ],
)
def test_results(c: ctypes.CDLL, name: str, restype: Any, expected: int | None) -> None:
    result = native.call(getattr(c, name), restype=restype)
    assert result == expected
    assert type(result) is type(expected)


def test_other_results(c: ctypes.CDLL) -> None:
    half = native.call(c.half, ctypes.c_float(3.5), restype=ctypes.c_float)
    assert half == 1.75
    assert native.call(c.half, 5, restype=ctypes.c_float, argtypes=[ctypes.c_float]) == 2.5
    assert native.call(c.is_even, 4, restype=ctypes.c_bool) is True
    assert native.call(c.is_even, 3, restype=ctypes.c_bool) is False
    assert native.call(c.letter, 2, restype=ctypes.c_char) == b"c"
    assert native.call(c.greeting, 1, restype=ctypes.c_char_p) == b"hello"
    assert native.call(c.greeting, 0, restype=ctypes.c_char_p) is None
    assert native.call(c.greeting, 0, restype=ctypes.c_void_p) is None
    pointer = native.call(c.greeting, 1, restype=ctypes.POINTER(ctypes.c_char))
    assert pointer[:5] == b"hello"
    assert not native.call(c.greeting, 0, restype=ctypes.POINTER(ctypes.c_char))

    class Status(ctypes.c_int):
        pass

    assert native.call(libc.abs, -3, restype=Status).value == 3
    assert native.call(libc.abs, -3, restype=lambda n: f"<{n}>") == "<3>"


def test_pointers(c: ctypes.CDLL) -> None:
    for make in (
        ctypes.byref,
        ctypes.pointer,
        ctypes.addressof,
        lambda cell: ctypes.cast(ctypes.byref(cell), ctypes.c_void_p),
        lambda cell: memoryview(cell),
    ):
        cell = flag()
        native.call(c.store, make(cell), restype=None)
        assert cell.value == 1
    values = (ctypes.c_int32 * 3)()
    native.call(c.store, values, restype=None)
    native.call(c.store, ctypes.byref(values, 8), restype=None)
    assert list(values) == [1, 0, 1]
    for memory in (bytearray(8), array.array("i", [0, 0])):
        native.call(c.store, memory, restype=None)
        assert memory[0] == 1
    assert native.call(libc.strlen, b"four", restype=ctypes.c_size_t) == 4
    libc.strlen.argtypes = [ctypes.c_char_p]
    assert native.call(libc.strlen, b"seven") == 5

    class Wrapped:
        def __init__(self) -> None:
            self._as_parameter_ = flag_of_wrapped

    flag_of_wrapped = ctypes.pointer(flag())
    native.call(c.store, Wrapped(), restype=None)
    assert flag_of_wrapped.contents.value == 1


def test_memory_is_held_during_the_call(c: ctypes.CDLL) -> None:
    memory = bytearray(4)
    g = go(native.call, c.sleep_while_zero, memory, restype=None)
    wait_until(lambda: stats()["native_goroutines"] != 0)
    with pytest.raises(BufferError):
        memory.append(1)
    memory[0] = 1
    g.join()
    memory.append(1)


def test_two_calls_run_at_the_same_time(c: ctypes.CDLL) -> None:
    """Each computes until the other has begun."""
    before = gomaxprocs(2)
    c.meet.argtypes = (ctypes.POINTER(ctypes.c_int32), ctypes.c_int32)
    c.meet.restype = ctypes.c_uint64
    count = flag()
    calls = [go(native.call, c.meet, ctypes.byref(count), 2) for _ in range(2)]
    assert all(call.result() >= 1 for call in calls)
    gomaxprocs(before)


def test_python_goes_on_during_a_call(c: ctypes.CDLL) -> None:
    stop = flag()
    g = go(native.call, c.spin_while_zero, ctypes.byref(stop), restype=None)
    for _ in range(100):
        sleep(0.0001)
    assert not g.done()
    stop.value = 1
    g.join()


def test_calls_in_threads(c: ctypes.CDLL) -> None:
    c.meet.argtypes = (ctypes.POINTER(ctypes.c_int32), ctypes.c_int32)
    count = flag()
    before = gomaxprocs(3)
    results: list[int] = []

    def call() -> None:
        results.append(native.call(c.meet, ctypes.byref(count), 3))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    call()
    for thread in threads:
        golibx.blocking(thread.join)
    assert len(results) == 3
    gomaxprocs(before)


def test_each_call_is_a_goroutine(c: ctypes.CDLL) -> None:
    numbers = {native.call(c.goid, restype=ctypes.c_uint64) for _ in range(100)}
    assert len(numbers) == 100
    assert 0 not in numbers


def test_a_cancelled_call_raises_and_its_function_goes_on(c: ctypes.CDLL) -> None:
    stop = flag()
    kept = weakref.ref(stop)
    g = go(native.call, c.sleep_while_zero, ctypes.byref(stop), restype=None)
    del stop
    wait_until(lambda: stats()["native_goroutines"] != 0)
    g.cancel()
    with pytest.raises(Cancelled):
        g.result()
    del g
    gc.collect()
    assert stats()["native_goroutines"] == 1
    held = kept()
    assert held is not None, "the function still uses it"
    held.value = 1
    del held
    wait_until(lambda: not stats()["native_goroutines"])
    native.call(libc.abs, 1)
    gc.collect()
    assert kept() is None


@pytest.mark.goroutine(False)
def test_interrupting_a_call(run_script: Callable[..., str]) -> None:
    program = """
import os, signal, threading, time
flag = ctypes.c_int32(0)
def interrupt():
    while golibx.stats()["native_goroutines"] == 0: time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
def main():
    try:
        native.call(c.sleep_while_zero, ctypes.byref(flag), restype=None)
    except KeyboardInterrupt:
        print("interrupted")
    flag.value = 1
threading.Thread(target=interrupt).start()
golibx.run(main)
while golibx.stats()["native_goroutines"]: time.sleep(0.001)
flag.value = 0
threading.Thread(target=interrupt).start()
main()
"""
    assert run_script(program) == "interrupted\ninterrupted\n"


@pytest.mark.goroutine(False)
@pytest.mark.parametrize("wait", ["native.Chan(ctypes.c_int64).recv()", "g.join()"])
def test_a_signal_that_another_thread_was_given(run_script: Callable[..., str], wait: str) -> None:
    """Its handler runs on the main thread, which that does not wake up."""
    program = f"""
import signal, threading
flag = ctypes.c_int32(0)
g = native.go(c.sleep_while_zero, ctypes.byref(flag))
seen = []

def note(number, frame):
    seen.append(number)
    if len(seen) == 2:
        raise TimeoutError

signal.signal(signal.SIGUSR1, note)

def send():
    waiting.wait()
    for n in 1, 2:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        while len(seen) < n:
            threading.Event().wait(0.001)

waiting = threading.Event()
threading.Thread(target=send).start()
waiting.set()
try:
    {wait}
except TimeoutError:
    print(len(seen), "signals")
flag.value = 1
"""
    assert run_script(program) == "2 signals\n"


@pytest.mark.goroutine(False)
def test_a_signal_handler_that_serves_the_wait_and_raises(run_script: Callable[..., str]) -> None:
    program = """
import os, signal, threading
channel = native.Chan(ctypes.c_int64)

def serve(number, frame):
    print("sent" if channel.try_send(7) else "refused")
    raise TimeoutError

signal.signal(signal.SIGUSR1, serve)
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
try:
    channel.recv()
    for _ in range(1000):
        pass
except TimeoutError:
    print("raised")
"""
    assert run_script(program) in {"sent\nraised\n", "refused\nraised\n"}


# ---- Python that C calls back ----


def test_callbacks(c: ctypes.CDLL) -> None:
    callback = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    c.call_back.restype = ctypes.c_int64
    c.call_back.argtypes = (callback, ctypes.c_int64)
    assert native.call(c.call_back, callback(lambda i: 2 * i), 1000) == 999 * 1000
    calls = [go(native.call, c.call_back, callback(lambda i: i), 300) for _ in range(10)]
    assert [call.result() for call in calls] == [299 * 150] * 10


def test_qsort_with_a_python_function() -> None:
    compare_type = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)
    )
    values = (ctypes.c_int * 50)(*((i * 37) % 50 for i in range(50)))
    compare = compare_type(lambda a, b: a[0] - b[0])
    native.call(libc.qsort, values, len(values), ctypes.sizeof(ctypes.c_int), compare, restype=None)
    assert list(values) == list(range(50))


@pytest.mark.goroutine(leaks=False)
def test_a_callback_uses_channels_of_c_values(c: ctypes.CDLL) -> None:
    callback = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    questions, answers = native.Chan(ctypes.c_int64), native.Chan(ctypes.c_int64)

    def ask(i: int) -> int:
        questions.send(i)
        return int(answers.recv())

    def answer() -> None:
        for question in questions:
            answers.send(question * question)

    go(answer)
    total = native.call(c.call_back, callback(ask), 50, restype=ctypes.c_int64)
    assert total == sum(i * i for i in range(50))
    questions.close()


def test_a_callback_calls_and_starts_native_functions(c: ctypes.CDLL) -> None:
    callback = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    count = flag()

    def inner(i: int) -> int:
        native.go(c.add_one, ctypes.byref(count)).join()
        return int(native.call(libm.pow, float(i), 2.0))

    assert native.call(c.call_back, callback(inner), 20) == sum(i * i for i in range(20))
    assert count.value == 20


def test_a_callback_stays_on_its_thread(run_script: Callable[..., str]) -> None:
    """Its thread state is the thread's: neither preemption by a switch nor a wait in C moves it."""
    program = """
import threading
from golibx import _core, stats
lib = ctypes.CDLL(_core.__file__)
lib.golibx_sleep.argtypes = (ctypes.c_uint64,)
assert lib.golibx_register_module(ctypes.cast(c.call_back, ctypes.c_void_p)) == 0
callback = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
c.spin_while_zero.argtypes = c.store.argtypes = (ctypes.c_void_p,)

def back(i):
    thread = threading.get_native_id()
    if i % 3 == 0:
        flag = ctypes.c_int32(0)
        native.go(c.store, ctypes.byref(flag))
        c.spin_while_zero(ctypes.byref(flag))
    elif i % 3 == 1:
        lib.golibx_gosched()
    else:
        lib.golibx_sleep(1000)
    return thread == threading.get_native_id()

def work():
    return native.call(c.call_back, callback(back), 30, restype=ctypes.c_int64)

def preempted():
    return sum(stats()["native_preempt_" + way] for way in ("yields", "klt"))

def main():
    before = preempted()
    while preempted() < before + 10:
        results = [g.result() for g in [go(work) for _ in range(6)]]
        assert results == [30] * 6, results
    print("stayed")

golibx.run(main, config={"preempt": {"slice": "1ms"}, "runtime": {"gomaxprocs": 2}})
"""
    assert run_script(program) == "stayed\n"


def test_a_callback_with_the_gil_is_preempted_late(run_script: Callable[..., str]) -> None:
    program = """
from golibx import stats
callback = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)

def back(i):
    flag = ctypes.c_int32(0)
    native.go(c.store, ctypes.byref(flag))
    while not flag.value:
        pass
    return 1

def main():
    assert native.call(c.call_back, callback(back), 3, restype=ctypes.c_int64) == 3
    counters = stats()
    assert counters["native_preempt_refused_lock"] >= 10, counters
    assert counters["native_preempt_klt"] >= 1, counters
    print("ended")

golibx.run(main, config={"preempt": {"slice": "1ms"}, "runtime": {"gomaxprocs": 1}})
"""
    assert run_script(program) == "ended\n"


@pytest.mark.skipif(sys.platform != "linux", reason="scheduling policies are Linux's")
def test_threads_that_are_preempted_together_with_goroutines_are_patient(
    run_script: Callable[..., str],
) -> None:
    """One that took the CPU from the thread that wakes it would leave that one unfinished."""
    program = """
import os
from golibx import stats
c.spin_while_zero.argtypes = (ctypes.c_void_p,)

def threads(policy):
    tids = [int(tid) for tid in os.listdir("/proc/self/task")]
    return [tid for tid in tids if os.sched_getscheduler(tid) == policy]

def main():
    stop = ctypes.c_int32(0)
    hogs = [native.go(c.spin_while_zero, ctypes.byref(stop)) for _ in range(3)]
    while stats()["native_preempt_klt"] < 10 or not threads(os.SCHED_BATCH):
        sleep(0.001)
    stop.value = 1
    for g in hogs:
        g.join()
    while threads(os.SCHED_BATCH):
        sleep(0.001)
    allowed = os.sched_getaffinity(0)
    assert all(os.sched_getaffinity(tid) == allowed for tid in threads(os.SCHED_OTHER))
    print("rested")

golibx.run(main, config={"preempt": {"slice": "1ms"}, "runtime": {"gomaxprocs": 1}})
"""
    assert run_script(program) == "rested\n"


def test_a_callback_that_would_park_is_refused(c: ctypes.CDLL) -> None:
    callback = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    errors: list[str] = []

    def park(i: int) -> int:
        try:
            gosched()
        except RuntimeError as exc:
            errors.append(str(exc))
        return i

    native.call(c.call_back, callback(park), 1)
    assert len(errors) == 1
    assert "runs no goroutine" in errors[0]


def test_a_callback_waits_as_a_thread_does(c: ctypes.CDLL) -> None:
    callback = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    questions: Chan[int] = Chan()
    answers: Chan[int] = Chan()
    sums: list[int] = []

    def ask(i: int) -> int:
        for n in range(50):
            questions.send(n)
            sums.append(select(answers.on_recv(), timeout=30)[1])
        sleep(0.001)
        with pytest.raises(DeadlineExceeded):
            answers.recv(timeout=0.001)
        return i

    def answer() -> None:
        for n in questions:
            answers.send(n + 1)

    g = go(answer)
    assert native.call(c.call_back, callback(ask), 1) == 0
    questions.close()
    g.join()
    assert sums == list(range(1, 51))


# ---- go ----


def test_go(c: ctypes.CDLL) -> None:
    cell = flag()
    g = native.go(c.store, ctypes.byref(cell))
    assert g.join() is True
    assert g.done()
    assert cell.value == 1
    assert g.id > 0
    assert repr(g) == f"<NativeGoroutine {g.id} [done]>"
    assert isinstance(g, native.NativeGoroutine)


@pytest.mark.goroutine(False)
def test_go_outside_of_a_run(c: ctypes.CDLL) -> None:
    cell = flag()
    native.go(address_of(c.store), ctypes.addressof(cell)).join()
    assert cell.value == 1
    stop = flag()
    g = native.go(c.sleep_while_zero, ctypes.byref(stop))
    assert g.join(0.001) is False
    assert g.join(0) is False
    stop.value = 1
    assert g.join() is True


def test_join_with_a_timeout(c: ctypes.CDLL) -> None:
    stop = flag()
    g = native.go(c.sleep_while_zero, ctypes.byref(stop))
    assert repr(g).endswith("[running]>")
    assert g.join(timeout=0) is False
    assert g.join(0.002) is False
    assert not g.done()
    stop.value = 1
    assert g.join(30) is True


def test_join_is_cancelled(c: ctypes.CDLL) -> None:
    stop = flag()
    native_g = native.go(c.sleep_while_zero, ctypes.byref(stop))
    g = go(native_g.join)
    gosched()
    g.cancel()
    with pytest.raises(Cancelled):
        g.result()
    stop.value = 1
    assert native_g.join()


def test_a_thousand_goroutines(c: ctypes.CDLL) -> None:
    count = flag()
    goroutines = [native.go(c.add_one, ctypes.byref(count)) for _ in range(1000)]
    assert len({g.id for g in goroutines}) == 1000
    for g in goroutines:
        g.join()
    assert count.value == 1000


def test_joined_by_many(c: ctypes.CDLL) -> None:
    stop = flag()
    native_g = native.go(c.sleep_while_zero, ctypes.byref(stop))
    goroutines = [go(native_g.join) for _ in range(20)]
    threads = [threading.Thread(target=native_g.join) for _ in range(3)]
    for thread in threads:
        thread.start()
    gosched()
    stop.value = 1
    assert all(g.result() for g in goroutines)
    for thread in threads:
        golibx.blocking(thread.join)


def test_the_argument_is_kept_alive(c: ctypes.CDLL) -> None:
    stop = flag()
    kept = weakref.ref(stop)
    g = native.go(c.sleep_while_zero, ctypes.byref(stop))
    del stop
    gc.collect()
    held = kept()
    assert held is not None
    held.value = 1
    g.join()
    del held
    gc.collect()
    assert kept() is None


def test_an_argument_that_nobody_joins_for_is_let_go(c: ctypes.CDLL) -> None:
    """Without another call of golibx.native."""
    cell = flag()
    kept = weakref.ref(cell)
    native.go(c.store, ctypes.byref(cell))
    del cell
    for _ in range(5000):
        if kept() is None:
            break
        sleep(0.001)
    assert kept() is None


def test_goroutines_do_not_leak_memory(c: ctypes.CDLL) -> None:
    count = flag()

    def some() -> None:
        for _ in range(200):
            native.go(c.add_one, ctypes.byref(count))
            native.call(libc.abs, 1)

    some()
    wait_until(lambda: not stats()["native_goroutines"])
    before = stats()["native_stacks"]
    for _ in range(5):
        some()
    wait_until(lambda: not stats()["native_goroutines"])
    assert stats()["native_stacks"] <= before + 300


# ---- channels ----


KINDS: list[tuple[Any, list[Any]]] = [
    (ctypes.c_int8, [-128, 0, 127]),
    (ctypes.c_uint8, [0, 255]),
    (ctypes.c_int16, [-(2**15), 2**15 - 1]),
    (ctypes.c_uint16, [0, 2**16 - 1]),
    (ctypes.c_int32, [-(2**31), 2**31 - 1]),
    (ctypes.c_uint32, [0, 2**32 - 1]),
    (ctypes.c_int64, [-(2**63), 2**63 - 1]),
    (ctypes.c_uint64, [0, 2**64 - 1]),
    (ctypes.c_long, [-1, 1]),
    (ctypes.c_size_t, [0, 2**63]),
    (ctypes.c_double, [0.0, -1.5, 1e300]),
    (ctypes.c_float, [0.0, -1.5]),
    (ctypes.c_bool, [True, False]),
    (ctypes.c_char, [b"a", b"\0"]),
    (ctypes.c_void_p, [None, 1, 2**64 - 1]),
]


@pytest.mark.parametrize(("ctype", "values"), KINDS, ids=lambda v: getattr(v, "__name__", ""))
def test_kinds_of_values(ctype: Any, values: list[Any]) -> None:
    ch = native.Chan(ctype, len(values))
    for value in values:
        ch.send(value)
    ch.close()
    received = list(ch)
    assert received == values
    assert [type(v) for v in received] == [type(v) for v in values]


def test_structures_and_arrays() -> None:
    points = native.Chan(Point, 1)
    sent = Point(1.5, 2.5, 3)
    points.send(sent)
    sent.x = 0
    got = points.recv()
    assert isinstance(got, Point)
    assert (got.x, got.y, got.name) == (1.5, 2.5, 3)
    big = native.Chan(ctypes.c_char * 60_000)
    go(big.send, (ctypes.c_char * 60_000)(*b"large"))
    assert big.recv()[:6] == b"large\0"
    numbers = native.Chan(ctypes.c_int64, 1)
    numbers.send(ctypes.c_int64(5))
    assert numbers.recv() == 5


@pytest.mark.parametrize(
    ("ctype", "value", "error", "text"),
    [
        (ctypes.c_int32, 2**31, ValueError, "2147483648 is not in the range of a native.Chan of"),
        (ctypes.c_uint8, -1, ValueError, "0 to 255"),
        (ctypes.c_int64, 2**70, ValueError, "-9223372036854775808 to 9223372036854775807"),
        (ctypes.c_uint64, 2**64, ValueError, "0 to 18446744073709551615"),
        (ctypes.c_int32, "1", TypeError, "cannot carry '1'"),
        (ctypes.c_int32, 1.0, TypeError, "cannot carry 1.0"),
        (ctypes.c_int32, None, TypeError, "cannot carry None"),
        (ctypes.c_double, "x", TypeError, "cannot carry 'x'"),
        (ctypes.c_char, b"ab", TypeError, "cannot carry b'ab'"),
        (Point, 1, TypeError, "cannot carry 1"),
    ],
)
def test_values_that_do_not_fit(ctype: Any, value: object, error: Any, text: str) -> None:
    ch = native.Chan(ctype, 1)
    for send in (ch.send, ch.try_send):
        with pytest.raises(error, match=text):
            send(value)
    assert len(ch) == 0


@pytest.mark.parametrize(
    "ctype",
    [
        int,
        "q",
        None,
        ctypes.c_char_p,
        ctypes.py_object,
        ctypes.POINTER(ctypes.c_int),
        ctypes.c_wchar,
        ctypes.c_longdouble,
        ctypes.c_int32.__ctype_be__,
    ],
)
def test_types_that_a_channel_cannot_have(ctype: Any) -> None:
    with pytest.raises(TypeError, match=r"a native\.Chan is of a simple type of ctypes"):
        native.Chan(ctype)


def test_bad_channels() -> None:
    for capacity in (-1, 2**40):
        with pytest.raises(ValueError, match="capacity must be between 0 and"):
            native.Chan(ctypes.c_int, capacity)
    with pytest.raises(ValueError, match="at most 65536 bytes, not 65537"):
        native.Chan(ctypes.c_char * 65537)
    with pytest.raises(MemoryError):
        native.Chan(ctypes.c_char * 65536, 2**39)
    with pytest.raises((TypeError, AttributeError)):
        native.Chan(ctypes.c_int, "1")  # type: ignore[arg-type]
    for address in (0, -1, 2**64, "x"):
        with pytest.raises(ValueError, match="the address of a channel"):
            native.Chan.at(address, ctypes.c_int)  # type: ignore[arg-type]


def test_channel_attributes() -> None:
    ch = native.Chan(ctypes.c_int32, 3)
    assert (ch.capacity, len(ch), ch.closed, ch.ctype) == (3, 0, False, ctypes.c_int32)
    assert ch
    ch.send(1)
    assert len(ch) == 1
    assert repr(ch) == f"<native.Chan of c_int at {ch.address:#x} 1/3>"
    again = native.Chan.at(ch.address, ctypes.c_int32)
    assert again.recv() == 1
    with pytest.raises(ValueError, match="has elements of 4 bytes, not 8"):
        native.Chan.at(ch.address, ctypes.c_int64)
    ch.close()
    assert again.closed
    assert repr(ch).endswith("0/3 closed>")
    weakref.ref(ch)


def test_try_and_close() -> None:
    ch = native.Chan(ctypes.c_int32, 1)
    assert ch.try_recv() == (None, False)
    assert ch.try_send(1) is True
    assert ch.try_send(2) is False
    ch.close()
    assert ch.recv_ok() == (1, True)
    assert ch.recv_ok() == (None, False)
    for operation in (ch.recv, ch.try_recv, ch.close, lambda: ch.send(1), lambda: ch.try_send(1)):
        with pytest.raises(ChannelClosed):
            operation()
    assert list(ch) == []


def test_timeouts() -> None:
    ch = native.Chan(ctypes.c_int32)
    for timeout in (0, 0.001):
        with pytest.raises(DeadlineExceeded):
            ch.recv(timeout)
        with pytest.raises(DeadlineExceeded):
            ch.send(1, timeout=timeout)
        with pytest.raises(DeadlineExceeded):
            ch.recv_ok(timeout)
    for bad in ("1", float("nan")):
        with pytest.raises((TypeError, ValueError)):
            ch.recv(bad)  # type: ignore[arg-type]
    # None that gave up is in the way.
    go(ch.send, 5)
    assert ch.recv(30) == 5


def test_python_goroutines_wait_for_each_other() -> None:
    ch = native.Chan(ctypes.c_int32)
    go(lambda: [ch.send(i) for i in range(100)] and ch.close())
    assert list(ch) == list(range(100))


def test_closing_wakes_everybody() -> None:
    ch = native.Chan(ctypes.c_int32)
    receivers = [go(ch.recv_ok) for _ in range(5)]
    with pytest.raises(DeadlineExceeded):
        ch.recv(0.001)
    ch.close()
    assert [g.result() for g in receivers] == [(None, False)] * 5
    full = native.Chan(ctypes.c_int32)
    senders = [go(full.send, i) for i in range(5)]
    with pytest.raises(DeadlineExceeded):
        full.send(1, 0.001)
    full.close()
    for g in senders:
        with pytest.raises(ChannelClosed):
            g.result()


def test_cancelling_a_wait() -> None:
    ch = native.Chan(ctypes.c_int32)
    for operation in (lambda: ch.recv(), lambda: ch.send(1), lambda: next(ch)):
        g = go(operation)
        gosched()
        g.cancel()
        with pytest.raises(Cancelled):
            g.result()
    go(ch.send, 7)
    assert ch.recv() == 7


@pytest.mark.parametrize("capacity", [0, 1, 100])
def test_from_native_to_python(c: ctypes.CDLL, capacity: int) -> None:
    ch = native.Chan(ctypes.c_int64, capacity)
    link = Link(output=ch.address, first=0, count=2000)
    g = native.go(c.produce_and_close, ctypes.byref(link))
    assert list(ch) == list(range(2000))
    assert g.join()


@pytest.mark.parametrize("capacity", [0, 1, 100])
def test_from_python_to_native(c: ctypes.CDLL, capacity: int) -> None:
    ch = native.Chan(ctypes.c_int64, capacity)
    link = Link(input=ch.address)
    g = native.go(c.consume, ctypes.byref(link))
    for i in range(2000):
        ch.send(i)
    ch.close()
    g.join()
    assert (link.count, link.sum) == (2000, 1999 * 1000)


def test_there_and_back(c: ctypes.CDLL) -> None:
    a, b, d = (native.Chan(ctypes.c_int64, 3) for _ in range(3))
    links = [Link(input=a.address, output=b.address), Link(input=b.address, output=d.address)]
    for link in links:
        native.go(c.increment, ctypes.byref(link))

    def send() -> None:
        for i in range(1000):
            a.send(i)
        a.close()

    go(send)
    assert list(d) == list(range(2, 1002))


def test_structures_there_and_back(c: ctypes.CDLL) -> None:
    there, back = native.Chan(Point), native.Chan(Point)
    link = Link(input=there.address, output=back.address)
    g = native.go(c.move_points, ctypes.byref(link))
    for i in range(100):
        there.send(Point(i, i, i))
        p = back.recv()
        assert (p.x, p.y, p.name) == (i + 1, 2 * i, i + 1)
    there.close()
    g.join()


def test_threads_receive(c: ctypes.CDLL) -> None:
    ch = native.Chan(ctypes.c_int64)
    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda: results.append(list(ch))) for _ in range(4)]
    for thread in threads:
        thread.start()
    link = Link(output=ch.address, first=0, count=2000)
    g = go(lambda: list(ch))
    native.go(c.produce_and_close, ctypes.byref(link))
    results.append(g.result())
    for thread in threads:
        golibx.blocking(thread.join)
    assert sorted(itertools.chain(*results)) == list(range(2000))


@pytest.mark.goroutine(False)
def test_channels_outside_of_a_run(c: ctypes.CDLL) -> None:
    ch = native.Chan(ctypes.c_int64)
    link = Link(output=ch.address, first=0, count=500)
    native.go(c.produce_and_close, ctypes.byref(link))
    assert list(ch) == list(range(500))
    other = native.Chan(ctypes.c_int64)
    for timeout in (0, 0.001):
        with pytest.raises(DeadlineExceeded):
            other.recv(timeout)


def test_a_thousand_goroutines_of_each_kind(c: ctypes.CDLL) -> None:
    ch = native.Chan(ctypes.c_int64)
    links = [Link(output=ch.address, first=10 * i, count=10) for i in range(1000)]
    native_goroutines = [native.go(c.produce, ctypes.byref(link)) for link in links]
    receivers = [go(lambda: [ch.recv() for _ in range(10)]) for _ in range(1000)]
    received = sorted(itertools.chain(*(g.result() for g in receivers)))
    assert received == list(range(10_000))
    for g in native_goroutines:
        g.join()


@pytest.mark.goroutine(leaks=False)
def test_no_wake_up_is_lost_when_the_lane_idles_computes_and_blocks(c: ctypes.CDLL) -> None:
    """Native goroutines send after pauses that no state of the Python lane is too short for."""
    channels = [native.Chan(ctypes.c_int64) for _ in range(4)]
    links = [Link(output=ch.address, first=0, count=700) for ch in channels]
    for link in links:
        native.go(c.produce_slowly, ctypes.byref(link))
    ended = False

    def disturb() -> None:
        for turn in itertools.count():
            if ended:
                return
            (lambda: sleep(0.00002), gosched, lambda: time.sleep(0.00005), lambda: sum(range(500)))[
                turn % 4
            ]()

    go(disturb)
    receivers = [go(list, ch) for ch in channels]
    for receiver in receivers:
        assert receiver.result(50) == list(range(700))
    ended = True


def test_timeouts_and_hand_overs_exclude_each_other(c: ctypes.CDLL) -> None:
    """A receive that gives up about when a value comes either has it, or leaves it to the next."""
    ch = native.Chan(ctypes.c_int64)
    link = Link(output=ch.address, first=0, count=3000)
    native.go(c.produce_slowly, ctypes.byref(link))
    received: list[int] = []
    late = 0
    for n in itertools.count():
        try:
            value, ok = ch.recv_ok(0.00001 * (n % 7))
        except DeadlineExceeded:
            late += 1
            continue
        if not ok:
            break
        received.append(value)
    assert received == list(range(3000))
    assert late > 0


def test_timeouts_of_sends(c: ctypes.CDLL) -> None:
    ch = native.Chan(ctypes.c_int64)
    link = Link(input=ch.address)
    g = native.go(c.consume_slowly, ctypes.byref(link))
    sent = late = 0
    while sent < 2000:
        try:
            ch.send(sent, 0.00001 * (late % 7))
            sent += 1
        except DeadlineExceeded:
            late += 1
    ch.close()
    g.join()
    assert (link.count, link.sum) == (2000, 1999 * 1000)
    assert late > 0


def test_timeouts_of_threads(c: ctypes.CDLL) -> None:
    ch = native.Chan(ctypes.c_int64)
    link = Link(output=ch.address, first=0, count=1500)
    received: list[int] = []

    def receive() -> None:
        for n in itertools.count():
            try:
                value, ok = ch.recv_ok(0.00001 * (n % 7))
            except DeadlineExceeded:
                continue
            if not ok:
                return
            received.append(value)

    threads = [threading.Thread(target=receive) for _ in range(2)]
    for thread in threads:
        thread.start()
    native.go(c.produce_slowly, ctypes.byref(link))
    for thread in threads:
        golibx.blocking(thread.join)
    assert sorted(received) == list(range(1500))


def test_cancellation_and_hand_overs_exclude_each_other(c: ctypes.CDLL) -> None:
    ch = native.Chan(ctypes.c_int64)
    link = Link(output=ch.address, first=0, count=1500)
    native.go(c.produce_slowly, ctypes.byref(link))
    received: list[int] = []
    cancelled = 0

    def receive() -> None:
        while True:
            received.append(ch.recv())

    while True:
        g = go(receive)
        sleep(0.00003)
        g.cancel()
        try:
            g.result()
        except Cancelled:
            cancelled += 1
        except ChannelClosed:
            break
    assert received == list(range(1500))
    assert cancelled > 0


def test_a_wait_for_native_code_is_no_deadlock(c: ctypes.CDLL) -> None:
    ch = native.Chan(ctypes.c_int64)
    link = Link(output=ch.address, first=0, count=1)
    go(lambda: golibx.blocking(time.sleep, 0.05) or native.go(c.produce, ctypes.byref(link)))
    assert ch.recv() == 0
    cell = flag()
    g = native.go(c.sleep_while_zero, ctypes.byref(cell))
    threading.Timer(0.3, lambda: setattr(cell, "value", 1)).start()
    assert g.join()


# ---- select over both kinds of channels ----


def is_parked(g: golibx.Goroutine[Any], reason: str = "select") -> bool:
    for _ in range(1000):
        if g.state == reason:
            return True
        gosched()
    return False


def test_select_what_is_ready() -> None:
    empty: Chan[int] = Chan()
    ch = native.Chan(ctypes.c_int32, 2)
    assert select(ch.on_recv(), empty.on_recv(), default=True) == (-1, None, False)
    assert select(ch.on_send(7)) == (0, None, True)
    assert select(empty.on_recv(), ch.on_send(-8)) == (1, None, True)
    assert select(ch.on_send(9), default=True) == (-1, None, False)
    with pytest.raises(DeadlineExceeded):
        select(ch.on_send(9), timeout=0.001)
    assert select(empty.on_recv(), ch.on_recv(), None) == (1, 7, True)
    assert select(ch.on_recv(), default=True) == (0, -8, True)
    ch.close()
    assert select(empty.on_recv(), ch.on_recv()) == (1, None, False)
    with pytest.raises(ChannelClosed, match="case 1"):
        select(empty.on_recv(), ch.on_send(1))


def test_select_values_of_all_sizes() -> None:
    for ctype, value in (
        (ctypes.c_bool, True),
        (ctypes.c_double, 1.5),
        (ctypes.c_char, b"x"),
        (ctypes.c_uint64, (1 << 64) - 1),
        (ctypes.c_void_p, None),
    ):
        ch = native.Chan(ctype)
        g = go(select, ch.on_recv())
        assert is_parked(g)
        assert select(ch.on_send(value), Chan[int]().on_recv()) == (0, None, True)
        assert g.result() == (0, value, True)
    array_type = ctypes.c_int64 * 500
    large = native.Chan(array_type)
    case = large.on_send(array_type(*range(500)))
    for _ in range(2):  # the case has the values, as they were
        g = go(select, case)
        index, got, ok = select(large.on_recv())
        assert (index, list(got), ok) == (0, list(range(500)), True)
        g.join()
    with pytest.raises(ValueError, match="range"):
        native.Chan(ctypes.c_int8).on_send(300)
    with pytest.raises(TypeError):
        native.Chan(ctypes.c_int8).on_send("x")
    with pytest.raises(TypeError):
        select(large)  # type: ignore[call-overload]


def test_select_waits_on_both_kinds() -> None:
    ch: Chan[int] = Chan()
    numbers = native.Chan(ctypes.c_int64)
    others = native.Chan(ctypes.c_int64)
    cases = [
        numbers.on_recv(),
        ch.on_recv(),
        others.on_send(5),
        others.on_recv(),
        numbers.on_recv(),
    ]

    def after(event: Callable[[], object]) -> tuple[int, Any, bool]:
        g = go(select, *cases)
        assert is_parked(g)
        event()
        return g.result()

    for i in range(20):
        index, *rest = after(lambda i=i: numbers.send(i))
        assert (index in {0, 4}, rest) == (True, [i, True])
        assert after(lambda i=i: ch.send(i)) == (1, i, True)
        assert after(others.recv) == (2, None, True)
        assert after(lambda i=i: others.send(i)) == (3, i, True)
    # It is in none of the queues any more.
    assert not numbers.try_send(1)
    assert others.try_recv() == (None, False)
    assert not ch.try_send(1)
    assert after(others.close)[2] is False


def test_select_two_at_once() -> None:
    """Two selects of Python's that meet on a native channel."""
    ch = native.Chan(ctypes.c_int32)
    never: Chan[int] = Chan()
    for i in range(100):
        g = go(select, never.on_recv(), ch.on_send(i))
        assert select(ch.on_recv(), never.on_recv()) == (0, i, True)
        assert g.result() == (1, None, True)
        with pytest.raises(DeadlineExceeded):
            select(ch.on_recv(), ch.on_send(1), timeout=0.0001)  # not with itself


def test_select_cancelled_and_timed_out() -> None:
    ch = native.Chan(ctypes.c_int64)
    g = go(select, ch.on_recv(), ch.on_recv())
    assert is_parked(g)
    g.cancel()
    with pytest.raises(Cancelled):
        g.result()
    assert not ch.try_send(1)


def test_select_over_native_channels_is_no_deadlock(c: ctypes.CDLL) -> None:
    ch = native.Chan(ctypes.c_int64)
    link = Link(output=ch.address, first=3, count=1)
    go(lambda: golibx.blocking(time.sleep, 0.05) or native.go(c.produce, ctypes.byref(link)))
    assert select(Chan[int]().on_recv(), ch.on_recv()) == (1, 3, True)


@pytest.mark.goroutine(timeout=120)
def test_select_against_native_goroutines(c: ctypes.CDLL) -> None:
    """Selects over a Python channel and two native ones, with native goroutines on other threads at
    the other ends, while selects time out and are cancelled: all arrive, once and in order."""
    n = 4000
    inputs = [native.Chan(ctypes.c_int64, capacity) for capacity in (0, 3)]
    output = native.Chan(ctypes.c_int64)
    ch: Chan[int] = Chan()
    links = [Link(output=i.address, first=k * n, count=n) for k, i in enumerate(inputs)]
    sink = Link(input=output.address)
    producers = [native.go(c.produce_and_close, ctypes.byref(link)) for link in links]
    consumer = native.go(c.consume, ctypes.byref(sink))
    received: list[int] = []
    sent: list[int] = []
    next_value = itertools.count(1)
    open_inputs = [True, True]

    def one_turn() -> None:
        value = next(next_value)
        cases = [i.on_recv() if left else None for i, left in zip(inputs, open_inputs, strict=True)]
        try:
            index, got, ok = select(*cases, ch.on_recv(), output.on_send(value), timeout=0.00002)
        except DeadlineExceeded:
            return
        if index == 3:
            sent.append(value)
        elif not ok:
            open_inputs[index] = False
        else:
            received.append(got)

    def feed() -> None:
        for i in range(n):
            ch.send(2 * n + i)

    feeder = go(feed)
    while any(open_inputs) or len(received) < 3 * n:
        g = go(one_turn)
        gosched()
        if len(received) % 7 == 0:
            g.cancel()
        g.join()
    feeder.join()
    for p in producers:
        assert p.join()
    output.close()
    assert consumer.join()
    for first in (0, n, 2 * n):
        assert [v for v in received if first <= v < first + n] == list(range(first, first + n))
    assert sink.count == len(sent)
    assert sink.sum == sum(sent)


@pytest.mark.goroutine(timeout=120)
def test_many_selects_against_native_goroutines(c: ctypes.CDLL) -> None:
    """The same with many selects at a time: natives find waiters that others have claimed."""
    n = 3000
    numbers = native.Chan(ctypes.c_int64)
    output = native.Chan(ctypes.c_int64)
    ch: Chan[int] = Chan()
    stop: Chan[None] = Chan()
    links = [Link(output=numbers.address, first=k * n, count=n) for k in range(3)]
    sink = Link(input=output.address)
    producers = [native.go(c.produce, ctypes.byref(link)) for link in links]
    consumer = native.go(c.consume, ctypes.byref(sink))
    received: Counter[int] = Counter()
    sent = 0

    def selects() -> None:
        nonlocal sent
        while True:
            index, value, _ = select(
                numbers.on_recv(), ch.on_recv(), output.on_send(1), stop.on_recv()
            )
            if index in {0, 1}:
                received[value] += 1
            elif index == 2:
                sent += 1
            else:
                return

    goroutines = [go(selects) for _ in range(20)]
    for i in range(3 * n, 4 * n):
        ch.send(i)
    for p in producers:
        assert p.join()
    stop.close()
    for g in goroutines:
        g.result()
    output.close()
    assert consumer.join()
    assert received == Counter(range(4 * n))
    assert sink.count == sink.sum == sent


def test_a_channel_with_a_waiter_may_be_dropped(c: ctypes.CDLL) -> None:
    """An error of the program, which costs memory, but nothing else."""
    ch = native.Chan(ctypes.c_int64)
    link = Link(input=ch.address)
    g = native.go(c.consume, ctypes.byref(link))
    assert not g.join(0.01)
    address = ch.address
    del ch
    native.Chan.at(address, ctypes.c_int64).close()
    assert g.join()


# ---- bad arguments ----


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("x",), TypeError, r"argument 1 is 'x': C takes bytes, not a str"),
        ((1, {}), TypeError, r"argument 2 is {}: allowed are an int, a float, None"),
        ((2**64,), ValueError, r"argument 1 is 18446744073709551616: 64 bits hold"),
        ((-(2**63) - 1,), ValueError, "64 bits hold"),
        ((Point(),), TypeError, r"passed by ctypes\.byref"),
        ((1.0,) * 25, ValueError, "argument 25: there is no room for it"),
        ((memoryview(bytes(10))[::2],), ValueError, "its memory cannot be used"),
    ],
)
def test_bad_arguments(arguments: tuple[object, ...], error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        native.call(libc.abs, *arguments)


@pytest.mark.parametrize(
    ("argtypes", "arguments", "error", "text"),
    [
        ([ctypes.c_int], (), TypeError, "takes 1 arguments, not 0"),
        ([ctypes.c_int], (2**31,), ValueError, "holds -2147483648 to 2147483647"),
        ([ctypes.c_uint8], (-1,), ValueError, "argument 1 is -1: a c_ubyte holds 0 to 255"),
        ([ctypes.c_int], ("1",), TypeError, "argument 1 is '1': it must be a c_int"),
        ([ctypes.c_int], (1.0,), TypeError, "it must be a c_int"),
        ([ctypes.c_double], ("1",), TypeError, "it must be a c_double"),
        ([ctypes.c_double, ctypes.c_char], (1, b"ab"), TypeError, "argument 2 is b'ab'"),
        ([Point], (Point(),), TypeError, "Point cannot be passed by value"),
        ([int], (1,), TypeError, "argument type 1 is no ctypes type"),
        ([ctypes.POINTER(ctypes.c_int)], (ctypes.pointer(ctypes.c_double()),), TypeError, "LP_c_"),
        ([ctypes.POINTER(ctypes.c_int)], (5,), TypeError, "it must be a LP_c_int"),
    ],
)
def test_bad_typed_arguments(
    argtypes: list[Any], arguments: tuple[object, ...], error: Any, text: str
) -> None:
    with pytest.raises(error, match=text):
        native.call(address_of(libc.abs), *arguments, argtypes=argtypes)


@pytest.mark.parametrize("function", [None, "abs", 1.0, len, object()])
def test_what_is_no_function(function: object) -> None:
    for start in (native.call, native.go):
        with pytest.raises(TypeError, match="the function must be an address, a function of"):
            start(function)


@pytest.mark.parametrize("address", [0, -1, 2**64])
def test_bad_addresses(address: int) -> None:
    for start in (native.call, native.go):
        with pytest.raises(ValueError, match="where there can be none"):
            start(address)


@pytest.mark.parametrize("restype", [int, Point, "i", ctypes.c_longdouble, ctypes.py_object])
def test_bad_restypes(restype: object) -> None:
    with pytest.raises(TypeError, match="restype must be"):
        native.call(libc.abs, 1, restype=restype)


@pytest.mark.parametrize("arg", ["text", 1.5, [], ctypes.c_int(1), ctypes.c_longdouble(1)])
def test_bad_arguments_of_go(c: ctypes.CDLL, arg: object) -> None:
    with pytest.raises(TypeError, match="argument 1 is"):
        native.go(c.store, arg)


def test_classes_cannot_be_misused() -> None:
    with pytest.raises(TypeError):
        native.NativeGoroutine()
    with pytest.raises(TypeError):
        _core.NativeChan()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        _core.NativeBuffer(1)  # type: ignore[arg-type]


# ---- cffi and numba ----

CDEF = """
typedef struct { double x, y; int name; } point;
double doubles8(double, double, double, double, double, double, double, double);
float half(float);
_Bool is_even(int);
char letter(int);
const char *greeting(int);
uint64_t all_64(void);
int8_t minus1_8(void);
void store(void *);
void sleep_while_zero(void *);
"""


def test_cffi(library_path: Path) -> None:
    cffi = pytest.importorskip("cffi")
    ffi = cffi.FFI()
    ffi.cdef(CDEF)
    lib = ffi.dlopen(str(library_path))
    assert native.call(lib.doubles8, *range(8)) == sum(i * (i + 1) for i in range(8))
    assert native.call(lib.half, 3) == 1.5
    assert native.call(lib.is_even, 2) is True
    assert native.call(lib.letter, 1) == b"b"
    assert native.call(lib.all_64) == 2**64 - 1
    assert native.call(lib.minus1_8) == -1
    assert ffi.string(native.call(lib.greeting, 1)) == b"hello"
    assert native.call(lib.greeting, 0) == ffi.NULL
    for cell in (ffi.new("int *"), ffi.new("int[2]")):
        assert native.call(lib.store, cell) is None
        assert cell[0] == 1
        cell[0] = 0
        native.go(lib.store, cell).join()
        assert cell[0] == 1
    native.go(ffi.cast("void *", lib.store), ffi.addressof(cell, 1)).join()
    assert cell[1] == 1
    point = ffi.new("point *")
    with pytest.raises(TypeError, match="is a structure: pass its address"):
        native.call(lib.store, point[0])
    with pytest.raises(TypeError, match="takes 8 arguments, not 1"):
        native.call(lib.doubles8, 1)
    buffer = ffi.buffer(cell)
    native.call(lib.store, buffer)

    @ffi.callback("int(int)")
    def twice(n: int) -> int:
        return 2 * n

    assert native.call(twice, 21) == 42


def test_numba() -> None:
    numba = pytest.importorskip("numba")

    @numba.cfunc("float64(float64, int64)")
    def power(x: float, n: int) -> float:
        result = 1.0
        for _ in range(n):
            result *= x
        return result

    assert native.call(power, 2.0, 10) == 1024.0
    assert native.call(power.address, 2.0, 10, restype=ctypes.c_double) == 1024.0
    calls = [go(native.call, power, 1.0, 1000 + i) for i in range(20)]
    assert [call.result() for call in calls] == [1.0] * 20

    @numba.cfunc("void(CPointer(float64))")
    def triple(cell: Any) -> None:
        cell[0] *= 3.0

    cell = array.array("d", [7.0])
    native.go(triple, cell).join()
    assert cell[0] == 21.0
    with pytest.raises(TypeError, match="takes 2 arguments, not 1"):
        native.call(power, 1.0)


def test_numpy(c: ctypes.CDLL) -> None:
    numpy = pytest.importorskip("numpy")
    values = numpy.zeros(4, dtype=numpy.int32)
    native.call(c.store, values[2:], restype=None)
    assert list(values) == [0, 0, 1, 0]
    with pytest.raises(ValueError, match="its memory cannot be used"):
        native.call(c.store, values[::2], restype=None)


# ---- the runtime ----


def test_library_and_counters() -> None:
    assert native.library() == include.library()
    assert hasattr(ctypes.CDLL(native.library()), "golibx_go")
    native.call(libc.abs, 1)
    found = native.counters()
    header = Path(include.header()).read_text(encoding="utf-8")
    assert all(f" {name};" in header for name in found)
    assert found["spawns"] > 0
    assert found["gomaxprocs"] == gomaxprocs()
    everything = stats()
    assert everything["steals"] >= found["steals"]
    for name in found:
        if name != "steals":
            assert f"native_{name}" in everything


def test_stats_count_native_goroutines(c: ctypes.CDLL) -> None:
    before = stats()
    cell = flag()
    g = native.go(c.sleep_while_zero, ctypes.byref(cell))
    now = stats()
    assert now["native_goroutines"] == before["native_goroutines"] + 1
    assert now["native_spawns"] == before["native_spawns"] + 1
    cell.value = 1
    g.join()


def test_gomaxprocs_is_that_of_the_native_lane(c: ctypes.CDLL) -> None:
    before = gomaxprocs(3)
    assert native.counters()["gomaxprocs"] == 3
    count = flag()
    c.meet.argtypes = (ctypes.POINTER(ctypes.c_int32), ctypes.c_int32)
    calls = [go(native.call, c.meet, ctypes.byref(count), 3) for _ in range(3)]
    for call in calls:
        call.join()
    assert gomaxprocs(1) == 3
    assert native.call(libc.abs, -1) == 1
    assert gomaxprocs(before) == 1
    for bad in (-1, 1025):
        with pytest.raises(ValueError, match="between 1 and 1024"):
            gomaxprocs(bad)


@pytest.mark.goroutine(False)
def test_settings_reach_the_native_runtime(run_script: Callable[..., str]) -> None:
    program = """
def main():
    native.call(c.store, ctypes.byref(ctypes.c_int32()), restype=None)
    info = golibx._core.info()
    print(golibx.gomaxprocs(), info["native_stack_bytes"], info["native_preempt"])
    print(info["native_preempt_reason"])
print(golibx.stats()["native_threads"])
golibx.run(main, config={
    "runtime": {"gomaxprocs": 3}, "stack": {"native_size": "64KiB"}, "preempt": {"async": False}})
golibx.run(lambda: print(golibx.gomaxprocs()), config={"runtime": {"gomaxprocs": 2}})
"""
    expected = "0\n3 65536 at calls only\nswitched off by preempt.async\n2\n"
    assert run_script(program) == expected


@pytest.mark.goroutine(False)
def test_settings_outside_of_a_run(run_script: Callable[..., str]) -> None:
    program = """
print(golibx.gomaxprocs())
native.call(c.minus1_8)
print(golibx.gomaxprocs(), golibx._core.info()["native_stack_bytes"])
"""
    env = {"GOMAXPROCS": "5", "GOLIB_STACK_NATIVE_SIZE": "1MiB"}
    assert run_script(program, env=env) == "5\n5 1048576\n"
    program = "golibx.gomaxprocs(4)\nnative.call(c.minus1_8)\nprint(golibx.gomaxprocs())\n"
    assert run_script(program) == "4\n"


@pytest.mark.goroutine(False)
def test_info(run_script: Callable[..., str]) -> None:
    program = """
print(golibx._core.info()["native_preempt"])
native.call(c.minus1_8)
print(golibx._core.info()["native_preempt"])
"""
    before, after = run_script(program).splitlines()
    if sys.platform == "linux":
        assert before == "signal"
        assert after.startswith("signal ")


@pytest.mark.goroutine(False)
def test_a_run_waits_for_its_native_goroutines(run_script: Callable[..., str]) -> None:
    program = """
import threading
flag = ctypes.c_int32()
def main():
    native.go(c.sleep_while_zero, ctypes.byref(flag))
    threading.Timer(0.2, lambda: setattr(flag, "value", 1)).start()
golibx.run(main)
print(flag.value)
"""
    assert run_script(program) == "1\n"


@pytest.mark.goroutine(False)
def test_native_goroutines_that_do_not_end(script: Script, library_path: Path) -> None:
    program = f"""
import ctypes, golibx
from golibx import native
c = ctypes.CDLL({str(library_path)!r})
flag = ctypes.c_int32()
def main():
    native.go(c.sleep_while_zero, ctypes.byref(flag))
    native.go(c.spin_while_zero, ctypes.byref(flag))
golibx.run(main, config={{"runtime": {{"shutdown_timeout": "50ms"}}}})
golibx.run(lambda: None)
print("end")
"""
    result = script(program)
    assert (result.returncode, result.stdout) == (0, "end\n")
    assert result.stderr == (
        "golibx: 2 native goroutines did not end within 50ms; what they run goes on\n"
    )


@pytest.mark.goroutine(False)
@pytest.mark.parametrize("where", ["in a run", "outside of one"])
def test_exit_with_running_goroutines(script: Script, library_path: Path, where: str) -> None:
    """They call Python, write to its memory and send to a channel while the interpreter ends."""
    program = f"""
import ctypes, golibx, time
from golibx import native
c = ctypes.CDLL({str(library_path)!r})
ch = native.Chan(ctypes.c_int64)
turns = 0
@ctypes.CFUNCTYPE(None)
def turn():
    global turns
    turns += 1
class Link(ctypes.Structure):
    _fields_ = [("input", ctypes.c_void_p), ("output", ctypes.c_void_p)] + [
        (n, ctypes.c_int64) for n in ("first", "count", "sum")]
link = Link(output=ch.address, count=1 << 60)
def main():
    for _ in range(2):
        native.go(c.call_for_ever, turn)
        native.go(c.write_for_ever, bytearray(4096))
    native.go(c.produce, link)
    while turns < 100: time.sleep(0.001)
    for _ in range(20): ch.recv()
    print("end")
if {where!r} == "in a run":
    golibx.run(main, config={{"runtime": {{"shutdown_timeout": "10ms"}}}})
else:
    main()
"""
    for _ in range(3):
        result = script(program)
        assert (result.returncode, result.stdout) == (0, "end\n"), result.stderr


def test_exit_beside_a_thread_that_starts_threads(script: Script) -> None:
    """It asks for thread states with the interpreter's lock, which the one that ends it needs."""
    program = """
import threading, golibx
def starts():
    while True:
        for t in [threading.Thread(target=int, daemon=True) for _ in range(5)]:
            t.start()
            begun.set()
begun = threading.Event()
golibx.run(int)
threading.Thread(target=starts, daemon=True).start()
begun.wait()
"""
    for _ in range(3):
        assert script.passes(program) == ""


@pytest.mark.goroutine(False)
def test_fork(run_script: Callable[..., str]) -> None:
    """The child has no native goroutines, and starts a native runtime of its own."""
    program = """
import os, warnings
warnings.simplefilter("ignore")
flag = ctypes.c_int32()
native.go(c.sleep_while_zero, ctypes.byref(flag))
assert golibx.stats()["native_goroutines"] == 1
def child():
    assert golibx.stats()["native_goroutines"] == 0
    assert golibx.stats()["native_threads"] == 0
    print(native.call(c.minus1_8, restype=ctypes.c_int8), flush=True)
    golibx.run(lambda: print(native.call(c.minus1_16, restype=ctypes.c_int16), flush=True))
    ch = native.Chan(ctypes.c_int32, 1)
    ch.send(5)
    print(ch.recv(), flush=True)
def fork():
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
fork()
fork()
flag.value = 1
"""
    assert run_script(program) == "-1\n-1\n5\n" * 2


@pytest.mark.goroutine(False)
def test_fork_in_a_run(run_script: Callable[..., str]) -> None:
    program = """
import os, warnings
warnings.simplefilter("ignore")
def main():
    native.call(c.minus1_8)
    go(native.Chan(ctypes.c_int32).recv)
    sleep(0.01)
    pid = os.fork()
    if pid == 0:
        print(native.call(c.minus1_8, restype=ctypes.c_int8), flush=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    print(native.call(c.minus1_8, restype=ctypes.c_int8), flush=True)
golibx.run(main)
"""
    assert run_script(program) == "-1\n-1\n"


@pytest.fixture(autouse=True)
def _no_native_goroutine_is_left() -> Iterator[None]:
    yield
    wait_until(lambda: not native.counters()["goroutines"], timeout=10)
