"""lock_os_thread(): a goroutine with a thread of its own."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from threading import get_native_id as thread_id

import pytest

import golibx
from conftest import Script
from golibx import (
    Cancelled,
    Chan,
    DeadlineExceeded,
    WaitGroup,
    blocking,
    current,
    go,
    gosched,
    lock_os_thread,
    select,
    sleep,
    stacks,
    unlock_os_thread,
)
from golibx.testing import wait_until, wait_until_parked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.goroutine

WAYS = ["sleep", "gosched", "compute", "block", "blocking", "send", "select"]


def leave(way: str, out: Chan[int]) -> None:
    """Stops running for a moment, or might be stopped."""
    match way:
        case "sleep":
            sleep(0.0001)
        case "gosched":
            gosched()
        case "compute":
            until = time.monotonic() + 0.003
            while time.monotonic() < until:
                pass
        case "block":
            time.sleep(0.0005)
        case "blocking":
            blocking(time.sleep, 0.0001)
        case "send":
            out.send(1)
        case "select":
            with pytest.raises(DeadlineExceeded):
                select(Chan[int]().on_recv(), timeout=0.0001)


def drain(channel: Chan[int]) -> None:
    for _ in channel:
        pass


@pytest.mark.goroutine(preempt={"slice": "1ms"})
@pytest.mark.parametrize("way", WAYS)
def test_it_stays_on_its_thread(way: str) -> None:
    out: Chan[int] = Chan()
    own: set[int] = set()
    all_locked = WaitGroup()
    all_locked.add(3)
    turns = 20

    def locked() -> int:
        lock_os_thread()
        thread = thread_id()
        own.add(thread)
        all_locked.done()
        all_locked.wait()
        for _ in range(turns):
            leave(way, out)
            assert thread_id() == thread
        own.discard(thread)
        unlock_os_thread()
        return thread

    def other() -> None:
        for _ in range(turns):
            leave(way, out)
            assert thread_id() not in own

    drains = go(drain, out)
    goroutines = [go(fn) for _ in range(3) for fn in (locked, other)]
    threads = [g.result() for g in goroutines]
    assert len({thread for thread in threads if thread is not None}) == 3
    assert threading.main_thread().native_id not in threads
    out.close()
    drains.join()


def test_the_main_goroutine_keeps_the_main_thread() -> None:
    main = thread_id()
    assert main == threading.main_thread().native_id
    lock_os_thread()
    threads = [go(thread_id) for _ in range(10)]
    for _ in range(50):
        time.sleep(0.0005)
        gosched()
        assert thread_id() == main
    assert main not in [g.result() for g in threads]
    unlock_os_thread()
    # From here on others may run there again.
    while go(thread_id).result() != main:
        pass


def test_it_is_counted() -> None:
    def locked() -> None:
        with pytest.raises(RuntimeError, match=rf"goroutine {current().id} is not locked"):
            unlock_os_thread()
        assert not current().locked
        lock_os_thread()
        thread = thread_id()
        lock_os_thread()
        unlock_os_thread()
        assert current().locked
        for _ in range(10):
            sleep(0.0001)
            assert thread_id() == thread
        unlock_os_thread()
        assert not current().locked
        with pytest.raises(RuntimeError, match="is not locked to its thread"):
            unlock_os_thread()

    go(locked).result()


@pytest.mark.goroutine(False)
def test_outside_of_a_run() -> None:
    for call in (lock_os_thread, unlock_os_thread):
        with pytest.raises(RuntimeError, match="no golibx runtime is running"):
            call()


def test_threads_have_no_goroutine_to_lock() -> None:
    errors: list[str] = []

    def thread() -> None:
        try:
            lock_os_thread()
        except RuntimeError as exc:
            errors.append(str(exc))

    t = threading.Thread(target=thread)
    t.start()
    t.join()
    assert len(errors) == 1
    assert "runs no goroutine" in errors[0]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_one_that_ends_locked_takes_its_thread_along() -> None:
    def locked(fails: bool) -> None:
        lock_os_thread()
        threads.append(thread_id())
        sleep(0.0001)
        if fails:
            raise ValueError("on purpose")

    threads: list[int] = []
    go(locked, False).join()
    g = go(locked, True)
    with pytest.raises(ValueError, match="on purpose"):
        g.result()
    assert len(set(threads)) == 2
    wait_until(lambda: not any(os.path.exists(f"/proc/self/task/{thread}") for thread in threads))


def test_a_cancelled_one_unlocks_where_it_says_so() -> None:
    waits: Chan[int] = Chan()
    started: Chan[int] = Chan()

    def locked() -> None:
        lock_os_thread()
        thread = thread_id()
        started.send(thread)
        try:
            waits.recv()
        finally:
            assert thread_id() == thread
            unlock_os_thread()

    g = go(locked)
    started.recv()
    g.cancel()
    with pytest.raises(golibx.Cancelled):
        g.result()


def test_a_library_that_checks_its_thread() -> None:
    """sqlite3 refuses a connection on another thread than that which made it."""

    def locked() -> int:
        lock_os_thread()
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE TABLE numbers (n INTEGER)")
        for n in range(20):
            sleep(0.0001)
            connection.execute("INSERT INTO numbers VALUES (?)", (n,))
            time.sleep(0.0002)
        (total,) = connection.execute("SELECT sum(n) FROM numbers").fetchone()
        connection.close()
        unlock_os_thread()
        return int(total)

    assert [g.result() for g in [go(locked) for _ in range(5)]] == [sum(range(20))] * 5


def test_dumps_say_so() -> None:
    waits: Chan[int] = Chan()

    def locked() -> None:
        lock_os_thread()
        waits.recv()
        unlock_os_thread()

    g = go(locked)
    wait_until_parked(g, state="chan receive")
    assert f"goroutine {g.id} [chan receive, locked to thread] " in stacks()
    waits.send(1)
    g.join()


def test_the_run_ends_while_it_waits(script: Script) -> None:
    program = """
import golibx, threading
from golibx import Chan, go, gosched, lock_os_thread

def stubborn():
    lock_os_thread()
    while True:
        try:
            Chan().recv()
        except golibx.Cancelled:
            pass

def main():
    g = go(stubborn)
    while g.state != "chan receive":
        gosched()

for _ in range(3):
    golibx.run(main, config={"runtime": {"shutdown_timeout": "10ms"}})
print(threading.current_thread().name, golibx.run(lambda: go(lambda: 5).result()))
"""
    assert script.passes(program) == "MainThread 5\n"


def test_a_deadlock_is_seen(script: Script) -> None:
    program = """
import golibx
from golibx import Chan, go, lock_os_thread

def main():
    lock_os_thread()
    c = Chan()
    def locked():
        lock_os_thread()
        c.recv()
    go(locked)
    try:
        c.recv()
    except golibx.Deadlock as exc:
        print(str(exc).count("locked to thread"))

golibx.run(main)
"""
    assert script.passes(program) == "2\n"


def test_ctrl_c_reaches_a_locked_main_goroutine(script: Script) -> None:
    program = """
import os, signal, golibx
from golibx import go, lock_os_thread, sleep

def main():
    lock_os_thread()
    go(lambda: os.kill(os.getpid(), signal.SIGINT))
    try:
        sleep(60)
    except KeyboardInterrupt:
        print("interrupted")

golibx.run(main)
"""
    assert script.passes(program) == "interrupted\n"


def test_there_is_a_limit(script: Script) -> None:
    # The last thread that is left may just be on its way home, again and again.
    program = """
import golibx
from golibx import Chan, go, lock_os_thread, unlock_os_thread

def main():
    refused, go_on = Chan(), Chan()
    def locked():
        try:
            lock_os_thread()
        except RuntimeError as exc:
            refused.send(str(exc))
            return
        go_on.recv()
        unlock_os_thread()
    goroutines = [go(locked) for _ in range(4)]
    reason = refused.recv()
    for _ in range(3):
        go_on.send(1)
    for g in goroutines:
        g.join()
    return reason

for _ in range(100):
    reason = golibx.run(main, config={"runtime": {"max_threads": 4}})
    assert "3 are locked to theirs, and [runtime] max_threads is 4" in reason, reason
print(reason)
"""
    assert "there is no thread for goroutine" in script.passes(program)


def test_that_all_threads_block_is_said(script: Script) -> None:
    program = """
import os, sys, threading
import golibx
from golibx import go, stats

def main():
    said, say = os.pipe()
    os.dup2(say, 2)
    reading, writing = os.pipe()
    def help():
        # A thread, as no goroutine can run.
        line = os.read(said, 1000)
        assert stats()["threads_awaited"] > 0
        os.write(writing, b"12345")
        print(line.decode(), end="")
    helper = threading.Thread(target=help)
    helper.start()
    goroutines = [go(os.read, reading, 1) for _ in range(5)]
    blocked = [g.result() for g in goroutines]
    assert sorted(blocked) == [b"1", b"2", b"3", b"4", b"5"]
    helper.join()

golibx.run(main, config={"runtime": {"max_threads": 4}})
"""
    out = script.passes(program)
    assert "goroutines wait for a thread: all 4 block in C code" in out
    assert out.count("\n") == 1


@pytest.mark.goroutine(False)
def test_in_seeded_and_virtual_runs() -> None:
    def order(seed: int) -> list[int]:
        seen: list[int] = []

        def locked(n: int) -> None:
            lock_os_thread()
            thread = thread_id()
            for _ in range(5):
                sleep(60)
                assert thread_id() == thread
                gosched()
                seen.append(n)
            unlock_os_thread()

        def main() -> list[int]:
            for g in [go(locked, n) for n in range(5)]:
                g.join()
            return seen

        return golibx.testing.run(main, seed=seed, virtual_time=True)

    orders = [order(seed) for seed in range(1, 6)]
    assert orders == [order(seed) for seed in range(1, 6)]
    assert len({tuple(each) for each in orders}) > 1


def test_threads_are_used_again() -> None:
    def locked() -> int:
        lock_os_thread()
        thread = thread_id()
        unlock_os_thread()
        return thread

    # A goroutine that lost its processor may keep some from this.
    assert len({go(locked).result() for _ in range(200)}) < 100


def test_a_cancelled_goroutine_is_unlocked_in_its_clean_up() -> None:
    def clean_up() -> bool:
        lock_os_thread()
        try:
            me = current()
            assert me is not None
            me.cancel()
        finally:
            unlock_os_thread()
        with pytest.raises(Cancelled):
            gosched()
        return me.locked

    assert not go(clean_up).result()


@pytest.mark.parametrize("calls", [lambda f: list(map(f, [0])), lambda f: f(0)])
def test_no_other_runs_on_the_thread_below_a_call_that_was_seen_before(
    calls: Callable[[Callable[[int], None]], object],
) -> None:
    """That nothing below keeps the thread is remembered, and no longer so once it is locked."""
    threads: Chan[int] = Chan()

    def feeds() -> None:
        while True:
            threads.send(thread_id())

    def locks(_: int) -> None:
        for _ in range(3):
            threads.recv()
        lock_os_thread()
        threads.recv()  # it was on its way
        others = {threads.recv() for _ in range(20)}
        assert thread_id() not in others
        unlock_os_thread()

    def locks_again() -> None:
        for _ in range(3):  # at first it may be on the main thread, which it leaves
            calls(locks)

    feeder = go(feeds)
    go(locks_again).result()
    feeder.cancel()
    feeder.join()
