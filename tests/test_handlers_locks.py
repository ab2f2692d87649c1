"""Handlers of signals that want the lock that the main goroutine, or the main thread, waits for.

A thread that waits for a lock of the interpreter's leaves it while its handlers run: another that
wants the lock has it meanwhile, the handler too. So it is with golibx's.
"""

from __future__ import annotations

import sys
import textwrap

import pytest

from conftest import Script

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the Python lane needs Linux"
)

PRELUDE = """\
import os, signal, sys, threading
import golibx
from golibx import Event, Mutex, RWMutex, Semaphore, go, gosched, run, sleep
from golibx.testing import wait_until_parked

class Lock:
    def __init__(self, lock, take=None, give=None, attempt=None):
        self.lock = lock
        self.take, self.give = take or lock.lock, give or lock.unlock
        self.attempt = attempt or lock.try_lock

def semaphore():
    s = Semaphore(1)
    return Lock(s, s.acquire, s.release, s.try_acquire)

def writer():
    return Lock(RWMutex())

def rlock():
    r = threading.RLock()
    return Lock(r, r.acquire, r.release, lambda: r.acquire(False))

def mutex():
    return Lock(Mutex())

said = []
called = []  # of handlers

def until_called():
    # A signal that another thread than the main one gets is noticed a moment later.
    while not called:
        gosched()
    for _ in range(100):
        gosched()

def handler(signum, frame):
    called.append(signum)
    lock.take()
    said.append("handler")
    lock.give()

held, runs, gate = Event(), Event(), Event()

def main_beside(kind):
    # The main goroutine waits for a lock that holds() has.
    global lock, main_goroutine
    lock, main_goroutine = kind(), golibx.current()
    holder = go(holds)
    held.wait()
    lock.take()
    said.append("main")
    lock.give()
    holder.result()
    print(*said)
"""

KINDS = ["mutex", "semaphore", "writer", "rlock"]


def passes(script: Script, body: str) -> str:
    return script.passes(PRELUDE + textwrap.dedent(body))


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_waits_behind_the_main_goroutine(script: Script, kind: str) -> None:
    """It is main's turn first, and main cannot take it before the handler has returned."""
    out = passes(
        script,
        f"""
        def holds():
            lock.take()
            held.set()
            wait_until_parked(main_goroutine)
            signal.raise_signal(signal.SIGUSR1)
            # The handler is called before others go on, and waits.
            until_called()
            said.append("holder")
            lock.give()

        signal.signal(signal.SIGUSR1, handler)
        run(lambda: main_beside({kind}))
        """,
    )
    assert out == "holder handler main\n"


@pytest.mark.parametrize("kind", ["mutex", "rlock"])
def test_the_main_goroutine_was_woken_before_the_handler(script: Script, kind: str) -> None:
    """It has the chance to take the lock, and another took it first; then the handler wants it."""
    program = f"""
    def holds():
        lock.take()
        held.set()
        wait_until_parked(main_goroutine)
        lock.give()
        said.append(lock.attempt())
        if said == [True]:
            signal.raise_signal(signal.SIGUSR1)
            until_called()
            lock.give()

    signal.signal(signal.SIGUSR1, handler)
    run(lambda: main_beside({kind}), config={{"preempt": {{"slice": "10s"}}}})
    """
    # On a busy machine main may have waited so long that it is given the lock.
    while (out := passes(script, program)) == "False main\n":
        pass
    assert out == "True handler main\n"


@pytest.mark.parametrize("kind", ["mutex", "rlock"])
def test_the_handler_waits_for_one_behind_the_main_goroutine(script: Script, kind: str) -> None:
    """Main was woken, the lock is open, and the handler waits for the next in the queue."""
    out = passes(
        script,
        f"""
        def handler(signum, frame):
            other.result()
            said.append("handler")

        def holds():
            lock.take()
            held.set()
            wait_until_parked(main_goroutine)
            global other
            other = go(wants)
            wait_until_parked(other)
            lock.give()
            if "unlocked" in repr(lock.lock):
                signal.raise_signal(signal.SIGUSR1)
            else:
                print("main was given the lock", end=" ")

        def wants():
            lock.take()
            said.append("other")
            lock.give()

        signal.signal(signal.SIGUSR1, handler)
        run(lambda: main_beside({kind}), config={{"preempt": {{"slice": "10s"}}}})
        """,
    )
    # Main may have had its turn before the signal came to its thread.
    orders = ["other handler main\n", "main other handler\n"]
    # An RLock is main's at once where that has waited for a millisecond.
    assert out in orders or (kind == "rlock" and out.startswith("main was given the lock"))


@pytest.mark.parametrize(("kind", "starves"), [*((kind, False) for kind in KINDS), ("mutex", True)])
def test_the_lock_is_let_go_while_the_handler_runs(
    script: Script, kind: str, starves: bool
) -> None:
    """Main would be woken, or given it, if it were in the queue still."""
    out = passes(
        script,
        f"""
        def handler(signum, frame):
            runs.set()
            gate.wait()
            lock.take()
            said.append("handler")
            lock.give()

        def holds():
            lock.take()
            held.set()
            wait_until_parked(main_goroutine)
            if {starves}:
                # Longer than a mutex lets a goroutine wait; then main loses its chance.
                sleep(0.005)
                lock.give()
                assert lock.attempt()
                gosched()
                wait_until_parked(main_goroutine)
            signal.raise_signal(signal.SIGUSR1)
            runs.wait()
            lock.give()
            gate.set()

        signal.signal(signal.SIGUSR1, handler)
        run(lambda: main_beside({kind}), config={{"preempt": {{"slice": "10s"}}}})
        """,
    )
    assert out == "handler main\n"


def test_those_behind_the_main_goroutine_want_less(script: Script) -> None:
    """It waits for two permits, one is free, and the handler waits for one that wants it."""
    out = passes(
        script,
        """
        def handler(signum, frame):
            called.append(signum)
            small.result()
            said.append("handler")

        def takes_one():
            permits.acquire()
            said.append("small")
            permits.release()

        def beside_main():
            global small
            wait_until_parked(main_goroutine)
            small = go(takes_one)
            wait_until_parked(small)
            signal.raise_signal(signal.SIGUSR1)
            until_called()
            permits.release()

        def main():
            global permits, main_goroutine
            permits, main_goroutine = Semaphore(2), golibx.current()
            permits.acquire()
            other = go(beside_main)
            permits.acquire(2)
            said.append("main")
            other.result()
            print(*said)

        signal.signal(signal.SIGUSR1, handler)
        run(main)
        """,
    )
    assert out == "small handler main\n"


def test_the_main_goroutine_keeps_readers_out(script: Script) -> None:
    """It waits to write, and the handler waits for one that wants to read."""
    out = passes(
        script,
        """
        def handler(signum, frame):
            called.append(signum)
            reader.result()
            said.append("handler")

        def reads():
            with mutex.reader():
                said.append("reader")

        def beside_main():
            global reader
            mutex.rlock()
            held.set()
            wait_until_parked(main_goroutine)
            reader = go(reads)
            wait_until_parked(reader)
            signal.raise_signal(signal.SIGUSR1)
            until_called()
            mutex.runlock()

        def main():
            global mutex, held, main_goroutine
            mutex, held, main_goroutine = RWMutex(), Event(), golibx.current()
            other = go(beside_main)
            held.wait()
            mutex.lock()
            said.append("main")
            other.result()
            print(*said)

        signal.signal(signal.SIGUSR1, handler)
        run(main)
        """,
    )
    assert out == "reader handler main\n"


def test_a_storm_of_signals_passes_nobody_over(script: Script) -> None:
    """Main begins its waits anew all the time, and has its turn among those that come again."""
    out = passes(
        script,
        """
        came = 0

        def handler(signum, frame):
            global came
            came += 1

        def again():
            while not done:
                lock.take()
                sleep(0.0002)
                lock.give()

        done = []

        def main():
            global lock
            for kind in mutex, semaphore, writer:
                lock = kind()
                done.clear()
                others = [go(again) for _ in range(4)]
                for _ in range(50):
                    lock.take()
                    lock.give()
                done.append(True)
                for goroutine in others:
                    goroutine.result()
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(came > 0)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        run(main)
        """,
    )
    assert out == "True\n"


@pytest.mark.parametrize("before", [True, False], ids=["handler waits", "handler comes later"])
@pytest.mark.parametrize("kind", ["mutex", "semaphore", "writer"])
def test_a_main_thread_that_waits_beside_the_run(script: Script, kind: str, before: bool) -> None:
    out = passes(
        script,
        f"""
        def handler(signum, frame):
            runs.set()
            if not {before}:
                gate.wait()
            lock.take()
            said.append("handler")
            lock.give()

        def waits_for_thread():
            while all(row[2] == "runnable" for row in golibx._core.waiting_threads()):
                sleep(0.0005)

        def holds():
            lock.take()
            held.set()
            waits_for_thread()
            os.kill(os.getpid(), signal.SIGUSR1)
            runs.wait()
            if {before}:
                # The handler waits with another stand-in, as the thread does no more.
                waits_for_thread()
            said.append("holder")
            lock.give()
            gate.set()
            over.wait()

        lock, held, runs, gate, over = {kind}(), threading.Event(), Event(), Event(), Event()
        signal.signal(signal.SIGUSR1, handler)
        thread = threading.Thread(target=lambda: run(holds))
        thread.start()
        held.wait()
        lock.take()
        said.append("main")
        lock.give()
        over.set()
        thread.join()
        print(*said)
        """,
    )
    assert out == "holder handler main\n"


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_handler_raises_ends_the_wait(script: Script, kind: str) -> None:
    out = passes(
        script,
        f"""
        def handler(signum, frame):
            raise KeyError("mine")

        def holds():
            lock.take()
            held.set()
            wait_until_parked(main_goroutine)
            signal.raise_signal(signal.SIGUSR1)
            gate.wait()
            lock.give()

        def main():
            global lock, held, gate, main_goroutine
            lock, main_goroutine = {kind}(), golibx.current()
            held, gate = Event(), Event()
            holder = go(holds)
            held.wait()
            try:
                lock.take()
            except KeyError as e:
                said.append(e.args[0])
            gate.set()
            holder.result()
            lock.take()
            lock.give()
            print(*said)

        signal.signal(signal.SIGUSR1, handler)
        run(main)
        """,
    )
    assert out == "mine\n"
