"""Calls that block without telling golibx: their processor is taken, the other goroutines go on.

Most of these would never end if it were not: what the blocked goroutine waits for is done by
another goroutine.
"""

# A lambda is the shortest way to do two things in a goroutine, though neither returns a value.
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import golibx
from conftest import Script, c_library
from golibx import Chan, WaitGroup, current, go, gosched, sleep, stats
from golibx.testing import wait_until

pytestmark = pytest.mark.goroutine

libc = ctypes.CDLL(None)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


def retakes() -> int:
    return stats()["retakes"]


def goes_on_meanwhile(block: Callable[[], object]) -> None:
    """Calls `block`, which blocks for a moment, until another goroutine has run during it."""
    me = current()
    assert me is not None
    seen: list[str] = []

    def other() -> None:
        while "syscall" not in seen:
            seen.append(me.state)
            gosched()

    g = go(other)
    while not g.done():
        block()
    assert "syscall" in seen


@pytest.mark.parametrize(
    "block",
    [
        functools.partial(time.sleep, 0.01),
        functools.partial(libc.usleep, 10_000),
        functools.partial(threading.Event().wait, 0.01),
        functools.partial(os.system, "sleep 0.01"),
    ],
    ids=["time.sleep", "usleep", "Event.wait", "system"],
)
def test_others_run_during_a_blocking_call(block: Callable[[], object]) -> None:
    before = retakes()
    while retakes() == before:  # the call's slice may end first
        goes_on_meanwhile(block)


def test_a_timer_fires_during_a_blocking_call() -> None:
    log: list[str] = []

    def timed() -> None:
        for _ in range(5):
            sleep(0.001)
        log.append("timed")

    go(timed)
    gosched()
    before = retakes()
    while not log:
        time.sleep(0.02)
    assert log == ["timed"]
    assert retakes() > before


def test_os_read_from_a_pipe_that_a_goroutine_writes(pipe: tuple[int, int]) -> None:
    r, w = pipe
    go(os.write, w, b"from the other side")
    assert os.read(r, 100) == b"from the other side"


def test_both_ends_of_a_pipe_block_in_turn(pipe: tuple[int, int]) -> None:
    r, w = pipe
    size = 1 << 20

    def writer() -> None:
        left = memoryview(bytes(size))
        while left:
            left = left[os.write(w, left) :]
        os.close(w)

    g = go(writer)
    got = 0
    while part := os.read(r, 100_000):
        got += len(part)
    assert got == size
    g.result()


def test_many_block_at_once() -> None:
    n = 40
    pipes = [os.pipe() for _ in range(n)]
    readers = [go(os.read, r, 10) for r, _ in pipes]
    try:
        for i, (_, w) in reversed(list(enumerate(pipes))):
            os.write(w, b"%d" % i)
        assert [g.result() for g in readers] == [b"%d" % i for i in range(n)]
    finally:
        for r, w in pipes:
            os.close(r)
            os.close(w)


def test_a_chain_of_blocked_readers() -> None:
    # Each waits in os.read for the one behind it, which waits as well.
    n = 20
    pipes = [os.pipe() for _ in range(n + 1)]

    def relay(i: int) -> None:
        os.write(pipes[i + 1][1], os.read(pipes[i][0], 10))

    group = WaitGroup()
    for i in reversed(range(n)):
        group.go(relay, i)
    go(os.write, pipes[0][1], b"along")
    assert os.read(pipes[n][0], 10) == b"along"
    group.wait()
    for r, w in pipes:
        os.close(r)
        os.close(w)


def test_flock_between_goroutines(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    order: list[str] = []

    def second() -> None:
        fd = os.open(path, os.O_RDWR)
        order.append("second asks")
        fcntl.flock(fd, fcntl.LOCK_EX)
        order.append("second has it")
        os.close(fd)

    first = os.open(path, os.O_RDWR)
    fcntl.flock(first, fcntl.LOCK_EX)
    g = go(second)
    wait_until(lambda: g.state == "syscall")
    order.append("first gives it up")
    fcntl.flock(first, fcntl.LOCK_UN)
    g.result()
    os.close(first)
    assert order == ["second asks", "first gives it up", "second has it"]


def test_flock_taken_in_turns_by_many(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    inside = 0

    def f() -> None:
        nonlocal inside
        fd = os.open(path, os.O_RDWR)
        for _ in range(20):
            fcntl.flock(fd, fcntl.LOCK_EX)
            inside += 1
            assert inside == 1
            gosched()
            inside -= 1
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)

    group = [go(f) for _ in range(8)]
    for g in group:
        g.result()


def test_a_thread_lock_between_goroutines() -> None:
    # Nothing patches threading here: acquire() blocks the thread.
    lock = threading.Lock()
    lock.acquire()
    g = go(lock.acquire)
    wait_until(lambda: g.state == "syscall")
    lock.release()
    assert g.result() is True
    lock.release()


def test_queue_between_goroutines() -> None:
    q: queue.Queue[int] = queue.Queue(1)

    def producer() -> None:
        for i in range(100):
            q.put(i)

    g = go(producer)
    assert [q.get() for _ in range(100)] == list(range(100))
    g.result()


def test_blocking_sockets_between_goroutines() -> None:
    a, b = socket.socketpair()
    with a, b:

        def echo() -> None:
            while data := b.recv(100):
                b.sendall(data)

        g = go(echo)
        for i in range(50):
            a.sendall(b"%d" % i)
            assert a.recv(100) == b"%d" % i
        a.shutdown(socket.SHUT_WR)
        g.result()


def test_subprocesses() -> None:
    def f(i: int) -> bytes:
        return subprocess.run(
            [sys.executable, "-S", "-c", f"print({i})"], capture_output=True, check=True
        ).stdout

    goroutines = [go(f, i) for i in range(5)]
    assert [g.result().strip() for g in goroutines] == [b"%d" % i for i in range(5)]


def test_threads_and_pools() -> None:
    def f(i: int) -> int:
        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(abs, range(-i, 0)))

    goroutines = [go(f, i) for i in range(8)]
    assert [g.result() for g in goroutines] == [i * (i + 1) // 2 for i in range(8)]


def test_results_and_exceptions_of_blocking_calls() -> None:
    def fails() -> None:
        time.sleep(0.002)
        raise LookupError("after it blocked")

    def f(i: int) -> int:
        time.sleep(0.001 * (i % 3))
        return i

    bad = go(fails)
    assert [g.result() for g in [go(f, i) for i in range(30)]] == list(range(30))
    with pytest.raises(LookupError, match="after it blocked"):
        bad.result()


def block_and_send() -> list[int]:
    ch: Chan[int] = Chan()

    def f(i: int) -> None:
        for _ in range(5):
            time.sleep(0.001)
            ch.send(i)

    for i in range(10):
        go(f, i)
    return [ch.recv() for _ in range(50)]


def test_a_blocked_goroutine_comes_back_and_parks() -> None:
    assert sorted(block_and_send()) == sorted(list(range(10)) * 5)


@pytest.mark.goroutine(False)
def test_main_is_woken_while_its_thread_is_on_another_errand() -> None:
    # The main thread, sent to retake a P in vain, missed that it was to run the main goroutine.
    def main() -> int:
        return sum(block_and_send())

    assert {golibx.run(main) for _ in range(40)} == {225}


def test_nested_in_a_ctypes_callback() -> None:
    # Python calls C, C calls Python, that blocks, and parks.
    compare_type = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)
    )

    def f(seed: int) -> list[int]:
        def compare(a: ctypes._Pointer[ctypes.c_int], b: ctypes._Pointer[ctypes.c_int]) -> int:
            if (a[0] + b[0]) % 5 == 0:
                time.sleep(0.0005)
            elif (a[0] + b[0]) % 7 == 0:
                sleep(0.0001)
            else:
                gosched()
            return a[0] - b[0]

        numbers = (ctypes.c_int * 20)(*((i * seed) % 23 for i in range(20)))
        libc.qsort(numbers, 20, ctypes.sizeof(ctypes.c_int), compare_type(compare))
        return list(numbers)

    goroutines = [go(f, seed) for seed in range(1, 9)]
    for seed, g in enumerate(goroutines, 1):
        assert g.result() == sorted((i * seed) % 23 for i in range(20))


def test_blocking_inside_callbacks_of_c() -> None:
    def f(n: int) -> list[int]:
        def key(x: int) -> int:
            time.sleep(0.0001 if x % 3 else 0)
            return -x

        return sorted(range(n), key=key)

    goroutines = [go(f, 20) for _ in range(5)]
    assert [g.result() for g in goroutines] == [list(range(19, -1, -1))] * 5


def test_cancel_meets_a_blocked_goroutine_when_it_comes_back(pipe: tuple[int, int]) -> None:
    r, w = pipe
    log: list[object] = []

    def f() -> None:
        log.append(os.read(r, 10))
        gosched()
        log.append("not here")

    g = go(f)
    wait_until(lambda: g.state == "syscall")
    assert g.cancel() is True
    gosched()
    assert not g.done()
    os.write(w, b"x")
    g.join()
    assert log == [b"x"]
    assert g.state == "cancelled"


def test_a_goroutine_may_end_without_its_processor() -> None:
    def f() -> str:
        time.sleep(0.003)
        return "ended"

    goroutines = [go(f) for _ in range(20)]
    wait_until(lambda: all(g.done() for g in goroutines))
    assert [g.result() for g in goroutines] == ["ended"] * 20


def test_the_state_and_the_count_of_blocked_goroutines(pipe: tuple[int, int]) -> None:
    r, w = pipe
    goroutines = [go(os.read, r, 1) for _ in range(3)]
    wait_until(lambda: stats()["threads_blocked"] >= 3)
    assert [g.state for g in goroutines] == ["syscall"] * 3
    os.write(w, b"abc")
    assert sorted(g.result() for g in goroutines) == [b"a", b"b", b"c"]
    wait_until(lambda: stats()["threads_blocked"] == 0)


@pytest.mark.goroutine(False)
@pytest.mark.parametrize("enabled", [True, False])
def test_switched_off(enabled: bool) -> None:
    def main() -> tuple[list[str], int]:
        log: list[str] = []
        go(log.append, "other")
        while len(log) < 1:
            time.sleep(0.05)
            log.append("slept")
        gosched()
        return log, retakes()

    log, count = golibx.run(
        main, config={"retake": {"enabled": enabled}, "preempt": {"async": False}}
    )
    if enabled:
        assert set(log) == {"other", "slept"}
    else:
        assert log == ["slept", "other"]
        assert count == 0


@pytest.mark.goroutine(
    retake={"threshold": "10s", "threshold_idle": "10s"}, preempt={"async": False}
)
def test_the_threshold_counts() -> None:
    log: list[str] = []
    go(log.append, "other")
    time.sleep(0.05)
    assert log == []
    assert retakes() == 0


@pytest.mark.goroutine(False)
def test_main_blocked_alone_is_no_deadlock(pipe: tuple[int, int]) -> None:
    r, w = pipe

    def main() -> bytes:
        ch: Chan[bytes] = Chan()
        go(lambda: ch.send(os.read(r, 10)))
        go(lambda: (time.sleep(0.02), os.write(w, b"x")))
        return ch.recv()

    assert golibx.run(main) == b"x"


def take_turns(until: Callable[[], bool], turn: float) -> None:
    while not until():
        end = time.perf_counter() + turn
        while time.perf_counter() < end:
            pass
        gosched()


@pytest.mark.parametrize("turn", [0.0002, 0.001, 0.003])
def test_a_thread_gets_the_gil_back_among_goroutines_that_switch(turn: float) -> None:
    # Turns shorter than the interpreter's switch interval, and long enough that a thread that wakes
    # up never meets the moment in which a switch lets the GIL go.
    thread = threading.Thread(target=lambda: [time.sleep(0.0005) for _ in range(20)])
    thread.start()
    others = [go(take_turns, lambda: not thread.is_alive(), turn) for _ in range(2)]
    for g in others:
        g.join()
    assert not thread.is_alive()


@pytest.mark.goroutine(seed=1)
def test_a_goroutine_gets_the_gil_back_among_others_that_switch() -> None:
    blocks = go(lambda: [time.sleep(0.0005) for _ in range(20)])
    others = [go(take_turns, blocks.done, 0.001) for _ in range(2)]
    for g in others:
        g.join()
    assert len(blocks.result()) == 20


@pytest.mark.parametrize("from_main", [True, False])
@pytest.mark.goroutine(preempt={"slice": "1ms"})
def test_few_threads_block_on_the_lock_of_a_preempted_goroutine(from_main: bool) -> None:
    """Of three times, the best: the lock may be with a thread that the system keeps waiting.

    Every goroutine that runs meanwhile blocks, as the lock is none of golibx's.
    """
    lock = threading.Lock()
    most = 0

    def takes_it_once() -> None:
        with lock:
            pass

    def takes_it_often() -> None:
        nonlocal most
        most = 0
        others = []
        while len(others) < 5000:
            with lock:
                sum(range(100))
            others.append(go(takes_it_once))
            most = max(most, stats()["threads_blocked"])
        for g in others:
            g.join()

    for _ in range(3):
        if from_main:
            takes_it_often()
        else:
            go(takes_it_often).join()
        if most < 1000:
            break
    assert most < 1000  # several thousand, if all that are woken find it locked


def test_a_thread_that_computes_does_not_hold_blocking_calls_up(script: Script) -> None:
    """By what it has done when they have all been made: not much more than beside threads.

    A thread that asks a computing one for the GIL waits a switch interval. A hundred threads do
    that at the same time, and so must what runs goroutines.
    """
    code = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
import golibx
from golibx.futures import GoroutinePoolExecutor
done, stop = 0, False
def computes():
    global done
    while not stop:
        sum(range(200))
        done += 1
def during(kind):
    with kind(100) as pool:
        before = done
        list(pool.map(time.sleep, [0.01] * 200))
        return done - before
thread = threading.Thread(target=computes)
thread.start()
among_threads = min(during(ThreadPoolExecutor) for _ in range(3))
among_goroutines = min(golibx.run(during, GoroutinePoolExecutor) for _ in range(3))
stop = True
thread.join()
print(round(among_goroutines / max(among_threads, 1), 1))
"""
    assert float(script.passes(code, limit=60)) < 4  # 5 to 20, if one asks after the other


DELAY = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}
void *PyThreadState_Swap(void *state) {
    static void *(*plain)(void *);
    static int calls;
    if (!plain) plain = (void *(*)(void *))dlsym(RTLD_NEXT, "PyThreadState_Swap");
    void *before = plain(state);
    if (state && ++calls % 7 == 0)
        for (long until = now() + 15000000L; now() < until;);
    return before;
}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="puts a function before the interpreter's")
def test_a_delay_in_a_switch_is_no_blocking_call(script: Script, tmp_path: Path) -> None:
    """As on a busy machine, when the system runs others just there. It is not to cost the turn."""
    library = c_library(tmp_path, "delay", DELAY, "-ldl")
    code = """
from golibx import go, gosched, run, stats
def turns():
    for _ in range(150): gosched()
def main():
    for g in [go(turns), go(turns)]: g.join()
    print(stats()["retakes"])
run(main, config={"preempt": {"async": False}, "runtime": {"swap": "interpreter"}})
"""
    assert script.passes(code, env={"LD_PRELOAD": str(library)}) == "0\n"
