"""Plain threads that wait for what goroutines use, in stacks() and in the text of a deadlock."""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

import golibx
from golibx import (
    Chan,
    ChannelClosed,
    Deadlock,
    WaitGroup,
    _core,
    go,
    gosched,
    native,
    run,
    select,
    sleep,
    stacks,
    stats,
)
from golibx.sync import Cond, Event, Mutex, RWMutex, Semaphore
from golibx.testing import wait_until


def wait_in(ch: Chan[int]) -> int:
    return ch.recv()


def waiting(fn: Callable[..., object], *args: object) -> threading.Thread:
    """A thread that calls fn, and waits in there; what the end of that raises is dropped."""

    def target() -> None:
        try:
            fn(*args)
        except (ChannelClosed, RuntimeError):
            pass

    before = stats()["threads_waiting"]
    thread = threading.Thread(target=target, name=f"{fn.__name__} in a thread")
    thread.start()
    wait_until(lambda: stats()["threads_waiting"] != before)
    return thread


def block_of(thread: threading.Thread, text: str) -> str:
    """What a dump says of the thread."""
    [block] = [b for b in text.split("\n\n") if b.startswith(f"thread {thread.native_id} [")]
    return block.rstrip("\n") + "\n"


# ---- stacks() ----


@pytest.mark.goroutine
def test_a_thread_that_waits() -> None:
    ch: Chan[int] = Chan()
    go(wait_in, ch).name = "a goroutine"
    gosched()
    thread = waiting(wait_in, ch)
    text = stacks()
    block = block_of(thread, text)
    lines = block.splitlines()
    assert lines[0] == f"thread {thread.native_id} [chan receive] wait_in in a thread:"
    assert re.fullmatch(rf"    wait_in at {re.escape(__file__)}:\d+", lines[1])
    assert "    Thread.run at " in block
    assert lines[-1] == f"    waits on {ch!r}, as goroutine 2"
    assert "created" not in block
    assert f"    waits on {ch!r}, as thread {thread.native_id}\n" in text
    assert text.index("] a goroutine:") < text.index(block)
    for n in (1, 2):
        ch.send(n)
    thread.join()
    assert "thread " not in stacks()


@pytest.mark.goroutine
def test_the_objects_and_reasons_of_threads() -> None:
    ch: Chan[int] = Chan()
    full: Chan[int] = Chan()
    other: Chan[int] = Chan()
    group = WaitGroup()
    group.add()
    event = Event()
    mutex, rw, semaphore, guard = Mutex(), RWMutex(), Semaphore(1), Mutex()
    cond = Cond(guard)
    mutex.lock()
    rw.lock()
    semaphore.acquire()
    sleeper = go(sleep, 1000)

    def wait_for_cond() -> None:
        with guard:
            cond.wait()

    expected: list[tuple[threading.Thread, str, object]] = [
        (waiting(ch.recv), "chan receive", ch),
        (waiting(lambda: ch.recv(1000)), "chan receive", ch),
        (waiting(full.send, 1), "chan send", full),
        (
            waiting(lambda: select(other.on_recv(), None, ch.on_recv(), timeout=1000)),
            "select",
            other,
        ),
        (waiting(sleeper.join), "goroutine join", sleeper),
        (waiting(group.wait), "waitgroup wait", group),
        (waiting(event.wait), "event wait", event),
        (waiting(mutex.lock), "sync.Mutex.Lock", mutex),
        (waiting(rw.rlock), "sync.RWMutex.RLock", rw),
        (waiting(semaphore.acquire), "semacquire", semaphore),
        (waiting(wait_for_cond), "sync.Cond.Wait", cond),
    ]
    text = stacks()
    for thread, reason, on in expected:
        block = block_of(thread, text)
        assert f"[{reason}] " in block.splitlines()[0]
        assert f"    waits on {on!r}" in block
    numbers = ", ".join(str(thread.native_id) for thread, _, _ in expected[:2])
    assert f"    waits on {ch!r}, as threads {numbers}\n" in block_of(expected[3][0], text)
    full.recv()
    ch.close()
    sleeper.cancel()
    group.done()
    event.set()
    mutex.unlock()
    rw.unlock()
    semaphore.release()
    cond.signal()
    for thread, _, _ in expected:
        thread.join()


@pytest.mark.goroutine
def test_waits_for_native_code() -> None:
    libc = ctypes.CDLL(None)
    r, w = os.pipe()
    buffer = ctypes.create_string_buffer(1)
    numbers = native.Chan(ctypes.c_int64)
    receives = waiting(numbers.recv)
    calls = waiting(lambda: native.call(libc.read, r, buffer, 1, restype=ctypes.c_ssize_t))
    text = stacks()
    block = block_of(receives, text)
    assert "[chan receive] " in block
    assert f"    waits on {numbers!r}\n" in block
    assert "[native call] " in block_of(calls, text)
    os.write(w, b"x")
    numbers.send(1)
    for thread in (receives, calls):
        thread.join()
    os.close(r)
    os.close(w)


@pytest.mark.goroutine
def test_equal_threads_are_grouped_but_not_with_goroutines() -> None:
    ch: Chan[int] = Chan()
    for _ in range(2):
        go(wait_in, ch)
    gosched()
    threads = [waiting(wait_in, ch) for _ in range(3)]
    text = stacks()
    numbers = [str(number) for number in sorted(t.native_id or 0 for t in threads)]
    assert "2 goroutines [chan receive] wait_in: 2, 3\n" in text
    assert f"3 threads [chan receive] wait_in in a thread: {', '.join(numbers)}\n" in text
    assert f"    waits on {ch!r}, as goroutines 2, 3\n" in text
    by_age = ", ".join(str(t.native_id) for t in threads)
    assert f"    waits on {ch!r}, as threads {by_age}\n" in text
    for n in range(5):
        ch.send(n)
    for thread in threads:
        thread.join()


@pytest.mark.goroutine
def test_a_thread_of_c_code() -> None:
    ch: Chan[int] = Chan()
    numbers: list[int] = []

    @ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
    def in_thread(_: object) -> None:
        numbers.append(threading.get_native_id())
        ch.recv()

    # As C code would: the interpreter has made no Thread of it.
    state = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: in_thread(None))
    libc = ctypes.CDLL(None)
    thread = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(thread), None, state, None) == 0
    wait_until(lambda: stats()["threads_waiting"])
    assert f"thread {numbers[0]} [chan receive] ?:\n" in stacks()
    ch.send(1)
    libc.pthread_join(thread, None)


@pytest.mark.goroutine
def test_a_handler_of_a_signal_waits_in_a_wait(script: Any) -> None:
    """The main thread, which runs no goroutine, waits twice."""
    out = script.passes(
        """
import os, re, signal, threading, golibx
from golibx import Chan, sleep, stacks, stats

outer, inner, ready = Chan(), Chan(), threading.Event()

def handler(*_):
    inner.recv()

def main():
    ready.set()
    while stats()["threads_waiting"] < 1: sleep(0.001)
    os.kill(os.getpid(), signal.SIGUSR1)
    while stats()["threads_waiting"] < 2: sleep(0.001)
    text = stacks()
    print(len(re.findall(r"^thread \\d+ \\[chan receive\\] MainThread:$", text, re.M)))
    print(f"waits on {outer!r}" in text, f"waits on {inner!r}" in text)
    inner.send(1)
    outer.send(1)

signal.signal(signal.SIGUSR1, handler)
thread = threading.Thread(target=golibx.run, args=(main,))
thread.start()
ready.wait()
outer.recv()
thread.join()
"""
    )
    assert out == "1\nTrue True\n"


@pytest.mark.goroutine(False)
def test_those_of_a_run_that_has_ended_are_not_shown() -> None:
    threads: list[threading.Thread] = []
    run(lambda: threads.append(waiting(wait_in, Chan[int]())))
    assert stacks() == ""
    assert run(lambda: _core.waiting_threads()) == []
    threads[0].join()


# ---- deadlock ----


@pytest.mark.goroutine(False)
def test_threads_of_a_deadlock() -> None:
    channels: list[Chan[int]] = []
    threads: list[threading.Thread] = []

    def has_it(asked: Chan[int], answer: Chan[int]) -> None:
        asked.recv()
        answer.send(1)

    def main() -> None:
        asked: Chan[int] = Chan()
        answer: Chan[int] = Chan()
        channels.extend((asked, answer))
        threads.extend((waiting(has_it, asked, answer), waiting(wait_in, answer)))
        answer.recv()

    with pytest.raises(Deadlock) as info:
        golibx.run(main)
    text = str(info.value)
    asked, answer = channels
    first, second = (thread.native_id for thread in threads)
    assert text.startswith(
        "all goroutines are asleep - deadlock! (1 goroutine and 2 threads)\n\ngoroutine 1 ["
    )
    held = f"    waits on {answer!r}, as thread {second}, which is also a variable in "
    assert re.search(rf"^{re.escape(held)}threads {first}, {second}$", text, re.MULTILINE), text
    block = block_of(threads[0], text)
    assert f"    waits on {asked!r}" in block
    assert "has_it at " in block
    assert f"    waits on {answer!r}, as goroutine 1" in block_of(threads[1], text)
    for thread in threads:
        thread.join()


@pytest.mark.goroutine(False)
def test_one_thread_of_a_deadlock() -> None:
    def main() -> None:
        ch: Chan[int] = Chan()
        waiting(wait_in, ch)
        ch.recv()

    with pytest.raises(Deadlock, match=r"deadlock! \(1 goroutine and 1 thread\)\n"):
        golibx.run(main)
