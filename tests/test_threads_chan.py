"""Channels and select() from plain threads, with goroutines as their partners."""

from __future__ import annotations

import ctypes
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import (
    Chan,
    ChannelClosed,
    DeadlineExceeded,
    Deadlock,
    Ticker,
    Timer,
    after,
    go,
    gosched,
    native,
    net,
    run,
    select,
    sleep,
    stats,
)
from golibx.testing import wait_until

pytestmark = pytest.mark.goroutine

PLAIN = pytest.mark.goroutine(False)
LONG = 30.0  # seconds: for what is not to be waited for


class Thread(threading.Thread):
    """A thread that keeps what its function returned, or raised."""

    def __init__(self, fn: Callable[..., object], *args: object) -> None:
        super().__init__(daemon=True)
        self.call = (fn, args)
        self.value: Any = None
        self.raised: BaseException | None = None
        self.start()

    def run(self) -> None:
        fn, args = self.call
        try:
            self.value = fn(*args)
        except BaseException as exc:
            self.raised = exc

    def outcome(self) -> Any:
        self.join(LONG)
        assert not self.is_alive(), "the thread waits still"
        if self.raised is not None:
            raise self.raised
        return self.value


def until_waiting(n: int) -> None:
    """Until so many threads wait."""
    wait_until(lambda: stats()["threads_waiting"] == n)


def waiting(fn: Callable[..., object], *args: object) -> Thread:
    """A thread that calls fn, and waits in there."""
    before = stats()["threads_waiting"]
    thread = Thread(fn, *args)
    until_waiting(before + 1)
    return thread


def come_back_late(
    threads: list[Thread], first: Callable[[], object], second: Callable[[], object]
) -> None:
    """Runs both, over and over: what `first` leaves waiting comes back when `second` runs."""
    interval = sys.getswitchinterval()
    for _ in range(20):
        threads.clear()
        sys.setswitchinterval(1)  # so that they do not come back before
        try:
            run(first)
            run(second)
        finally:
            sys.setswitchinterval(interval)
        for thread in threads:
            with pytest.raises(RuntimeError, match="the golibx run has ended"):
                thread.outcome()


RECEIVES: dict[str, Callable[[Chan[Any]], object]] = {
    "recv": lambda ch: ch.recv(),
    "recv with a time-out": lambda ch: ch.recv(timeout=LONG),
    "recv of a view": lambda ch: ch.receiver().recv(),
    "recv_ok": lambda ch: ch.recv_ok()[0],
    "iteration": lambda ch: next(iter(ch)),
    "select": lambda ch: select(ch.on_recv())[1],
    "select of several": lambda ch: select(Chan[int]().on_recv(), ch.on_recv(), None)[1],
    "select with a time-out": lambda ch: select(ch.on_recv(), timeout=LONG)[1],
}
SENDS: dict[str, Callable[[Chan[Any], object], object]] = {
    "send": lambda ch, value: ch.send(value),
    "send with a time-out": lambda ch, value: ch.send(value, timeout=LONG),
    "send of a view": lambda ch, value: ch.sender().send(value),
    "select": lambda ch, value: select(ch.on_send(value)),
    "select of several": lambda ch, value: select(Chan[int]().on_recv(), ch.on_send(value)),
}


@pytest.mark.parametrize("name", RECEIVES)
def test_receive(name: str) -> None:
    ch: Chan[str] = Chan()
    thread = waiting(RECEIVES[name], ch)
    ch.send("hello")
    assert thread.outcome() == "hello"
    # Also if the sender is there first, and out of a buffer.
    g = go(ch.send, "again")
    gosched()
    assert Thread(RECEIVES[name], ch).outcome() == "again"
    g.join()
    buffered: Chan[str] = Chan(1)
    buffered.send("kept")
    assert Thread(RECEIVES[name], buffered).outcome() == "kept"


@pytest.mark.parametrize("name", SENDS)
def test_send(name: str) -> None:
    ch: Chan[str] = Chan()
    thread = waiting(SENDS[name], ch, "hello")
    assert ch.recv() == "hello"
    thread.outcome()
    g = go(ch.recv)
    gosched()
    Thread(SENDS[name], ch, "again").outcome()
    assert g.result() == "again"
    full: Chan[str] = Chan(1)
    full.send("first")
    thread = waiting(SENDS[name], full, "second")
    assert full.recv() == "first"
    thread.outcome()  # what it sent moves up into the buffer
    assert full.recv() == "second"


@pytest.mark.parametrize("name", RECEIVES)
def test_close_ends_a_receive(name: str) -> None:
    ch: Chan[str] = Chan()
    thread = waiting(RECEIVES[name], ch)
    ch.close()
    if name in ("recv", "recv with a time-out", "recv of a view"):
        with pytest.raises(ChannelClosed):
            thread.outcome()
    elif name == "iteration":
        with pytest.raises(StopIteration):
            thread.outcome()
    else:
        assert thread.outcome() is None


@pytest.mark.parametrize("name", SENDS)
def test_close_ends_a_send(name: str) -> None:
    ch: Chan[str] = Chan()
    thread = waiting(SENDS[name], ch, "in vain")
    ch.close()
    with pytest.raises(ChannelClosed):
        thread.outcome()
    assert ch.recv_ok() == (None, False)


def test_a_thread_closes() -> None:
    ch: Chan[int] = Chan()
    waiters = [go(ch.recv_ok), go(list, ch)]
    gosched()
    Thread(ch.close).outcome()
    assert waiters[0].result() == (None, False)
    assert waiters[1].result() == []


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_timeouts(seconds: float) -> None:
    class Value:
        pass

    ch: Chan[object] = Chan()
    value = Value()
    references = sys.getrefcount(value)
    calls: list[Callable[[], object]] = [
        lambda: ch.recv(timeout=seconds),
        lambda: ch.recv_ok(timeout=seconds),
        lambda: ch.send(value, timeout=seconds),
        lambda: select(ch.on_recv(), timeout=seconds),
        lambda: select(ch.on_send(value), timeout=seconds),
        lambda: select(timeout=seconds),
    ]
    for call in calls:
        with pytest.raises(DeadlineExceeded):
            Thread(call).outcome()
    # No waiter has stayed in a queue, and nothing was sent.
    assert ch.try_send(1) is False
    assert ch.try_recv() == (None, False)
    assert sys.getrefcount(value) == references
    assert stats()["threads_waiting"] == 0


@PLAIN
def test_a_thread_that_was_woken_is_not_counted_as_waiting() -> None:
    """Nor one of a run that has ended: it goes on when it gets the interpreter's lock."""
    threads: list[Thread] = []
    counts: list[int] = []

    def waits() -> None:
        threads.append(waiting(Chan[int]().recv))

    def counts_others() -> None:
        counts.append(stats()["threads_waiting"])

    come_back_late(threads, waits, counts_others)
    assert set(counts) == {0}

    def serves() -> None:
        for ch in (Chan[int](), native.Chan(ctypes.c_int64)):
            thread = waiting(ch.recv)
            # The thread has no time to go on before it is counted.
            sys.setswitchinterval(1)
            ch.send(1)
            counts.append(stats()["threads_waiting"])
            sys.setswitchinterval(0.005)
            assert thread.outcome() == 1

    run(serves)
    assert counts[-2:] == [0, 0]


def test_try_operations_find_a_waiting_thread() -> None:
    ch: Chan[int] = Chan()
    thread = waiting(ch.recv)
    assert ch.try_send(1) is True
    assert ch.try_send(2) is False
    assert thread.outcome() == 1
    thread = waiting(ch.send, 3)
    assert ch.try_recv() == (3, True)
    assert ch.try_recv() == (None, False)
    thread.outcome()


def test_first_come_first_served_among_threads_and_goroutines() -> None:
    ch: Chan[int] = Chan()
    receivers: list[Callable[[], int]] = []
    for i in range(12):
        if i % 3:
            receivers.append(waiting(ch.recv).outcome)
        else:
            receivers.append(go(ch.recv).result)
            gosched()
    for i in range(12):
        ch.send(i)
    assert [receive() for receive in receivers] == list(range(12))
    senders: list[Thread | golibx.Goroutine[None]] = []
    for i in range(12):
        if i % 3:
            senders.append(waiting(ch.send, i))
        else:
            senders.append(go(ch.send, i))
            gosched()
    assert [ch.recv() for _ in range(12)] == list(range(12))
    for sender in senders:
        sender.join()


def test_two_threads_alone() -> None:
    ch: Chan[int] = Chan()
    receiver = Thread(list, ch)

    def send() -> None:
        for i in range(500):
            ch.send(i)
        ch.close()

    Thread(send).outcome()
    assert receiver.outcome() == list(range(500))


def test_a_sleeping_lane_is_woken() -> None:
    """All goroutines wait when the thread sends: the M in the poller hears of it."""
    request: Chan[int] = Chan()
    answer: Chan[int] = Chan()

    def serve() -> None:
        for i in request:
            answer.send(i + 1)

    def ask() -> list[int]:
        found = []
        for i in range(300):
            request.send(i)
            found.append(answer.recv())
        return found

    thread = Thread(ask)
    g = go(serve)
    wait_until(lambda: not thread.is_alive())
    assert thread.outcome() == list(range(1, 301))
    request.close()
    g.join()


@pytest.mark.parametrize("capacity", [0, 1, 7])
@pytest.mark.goroutine(preempt={"slice": "1ms"})
def test_many_threads_and_goroutines_on_one_channel(capacity: int) -> None:
    ch: Chan[int] = Chan(capacity)
    each = 200

    def send(first: int) -> None:
        for i in range(each):
            if i % 2:
                ch.send(first + i)
            else:
                select(ch.on_send(first + i))

    def receive() -> list[int]:
        found = list[int]()
        while (got := select(ch.on_recv()) if len(found) % 2 else (0, *ch.recv_ok()))[2]:
            found.append(got[1])
        return found

    threads = [Thread(receive) for _ in range(5)]
    goroutines = [go(receive) for _ in range(5)]
    senders = [Thread(send, i * each) for i in range(5)]
    others = [go(send, i * each) for i in range(5, 10)]
    for g in others:
        g.join()
    for thread in senders:
        thread.outcome()
    ch.close()
    found = [t.outcome() for t in threads] + [g.result() for g in goroutines]
    assert sorted(i for part in found for i in part) == list(range(10 * each))


@pytest.mark.parametrize("way", ["operations", "select"])
@pytest.mark.goroutine(preempt={"slice": "1ms"})
def test_a_timeout_against_success(way: str) -> None:
    """Whatever was sent is received once, and what was not sent is not."""
    ch: Chan[int] = Chan()
    limit = 0.0003

    def send(seed: int) -> list[int]:
        rng = random.Random(seed)
        sent = []
        for i in range(seed * 10_000, seed * 10_000 + 250):
            seconds = rng.random() * limit
            try:
                if way == "select":
                    select(ch.on_send(i), Chan[int]().on_recv(), timeout=seconds)
                else:
                    ch.send(i, timeout=seconds)
            except DeadlineExceeded:
                continue
            sent.append(i)
        return sent

    def receive(seed: int) -> list[int]:
        rng = random.Random(seed)
        got = list[int]()
        while True:
            seconds = rng.random() * limit
            try:
                if way == "select":
                    _, value, ok = select(Chan[int]().on_recv(), ch.on_recv(), timeout=seconds)
                else:
                    value, ok = ch.recv_ok(timeout=seconds)
            except DeadlineExceeded:
                continue
            if not ok:
                return got
            assert value is not None
            got.append(value)

    receivers = [Thread(receive, i) for i in range(3)]
    others = [go(receive, i) for i in range(3, 5)]
    senders = [Thread(send, i) for i in range(3)]
    more = [go(send, i) for i in range(3, 5)]
    sent = [i for g in more for i in g.result()] + [i for t in senders for i in t.outcome()]
    ch.close()
    got = [i for t in receivers for i in t.outcome()] + [i for g in others for i in g.result()]
    assert sent
    assert Counter(got) == Counter(sent)


# ---- select over what else can be waited for ----


def test_select_does_one_of_several() -> None:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan()
    thread = waiting(lambda: select(a.on_recv(), b.on_send(5), a.on_recv()))
    assert b.recv() == 5
    assert thread.outcome() == (1, None, True)
    assert a.try_send(1) is False
    thread = waiting(lambda: select(a.on_recv(), b.on_send(5)))
    a.send(7)
    assert thread.outcome() == (0, 7, True)
    assert b.try_recv() == (None, False)


def test_select_over_timers() -> None:
    begin = time.monotonic()

    def wait() -> object:
        index, when, ok = select(Chan[int]().on_recv(), after(0.01).on_recv())
        assert (index, ok) == (1, True)
        return when

    assert begin + 0.01 <= Thread(wait).outcome() <= time.monotonic()
    assert Thread(lambda: Timer(0.001).c.recv()).outcome() <= time.monotonic()
    ticker = Ticker(0.001)
    assert len(Thread(lambda: [ticker.c.recv() for _ in range(3)]).outcome()) == 3
    with pytest.raises(DeadlineExceeded):
        Thread(lambda: select(after(LONG).on_recv(), timeout=0.001)).outcome()
    assert stats()["timers"] == 0


def test_select_sees_a_goroutine_end() -> None:
    hold: Chan[int] = Chan()
    g = go(hold.recv)
    thread = waiting(lambda: select(g.on_done(), Chan[int]().on_recv()))
    hold.send(1)
    assert thread.outcome() == (0, g, True)


def test_select_over_channels_of_c_values() -> None:
    numbers = native.Chan(ctypes.c_int64)
    objects: Chan[str] = Chan()

    def choose() -> object:
        return select(numbers.on_recv(), objects.on_recv())

    thread = waiting(choose)
    numbers.send(5)
    assert thread.outcome() == (0, 5, True)
    thread = waiting(choose)
    objects.send("five")
    assert thread.outcome() == (1, "five", True)
    thread = waiting(lambda: select(objects.on_recv(), numbers.on_send(6)))
    assert numbers.recv() == 6
    assert thread.outcome() == (1, None, True)
    thread = waiting(choose)
    numbers.close()
    assert thread.outcome() == (0, None, False)


@pytest.mark.goroutine(preempt={"slice": "1ms"})
def test_a_timeout_against_a_channel_of_c_values() -> None:
    numbers = native.Chan(ctypes.c_int64)
    objects: Chan[int] = Chan()

    def receive() -> list[int]:
        got = []
        while True:
            try:
                _, value, ok = select(numbers.on_recv(), objects.on_recv(), timeout=0.0001)
            except DeadlineExceeded:
                continue
            if not ok:
                return got
            got.append(value)

    def send(ch: Any, first: int) -> None:
        for i in range(first, first + 300):
            ch.send(i)

    receivers = [Thread(receive) for _ in range(3)]
    senders = [Thread(send, numbers, 0), Thread(send, objects, 1000)]
    goroutines = [go(send, numbers, 2000), go(send, objects, 3000)]
    for g in goroutines:
        g.join()
    for sender in senders:
        sender.outcome()
    objects.close()
    got = sorted(i for receiver in receivers for i in receiver.outcome())
    assert got == [first + i for first in (0, 1000, 2000, 3000) for i in range(300)]


def test_select_over_a_socket_is_for_goroutines() -> None:
    with net.listen("127.0.0.1:0") as listener:
        with pytest.raises(RuntimeError, match="select case 1 is of a socket"):
            Thread(lambda: select(Chan[int]().on_recv(), listener.on_accept())).outcome()
        with socket.create_connection(listener.address):
            conn, _ = listener.accept()
            conn.close()


# ---- the end of a run ----


@PLAIN
@pytest.mark.parametrize("what", ["recv", "send", "select", "select native", "timer", "join"])
def test_the_end_of_a_run_ends_the_wait(what: str) -> None:
    ch: Chan[int] = Chan()
    held = native.Chan(ctypes.c_int64)
    calls: dict[str, Callable[[], object]] = {
        "recv": lambda: ch.recv(timeout=LONG),
        "send": lambda: ch.send(1),
        "select": lambda: select(ch.on_recv(), after(LONG).on_recv()),
        "select native": lambda: select(ch.on_recv(), held.on_recv()),
        "timer": lambda: after(LONG).recv(),
        "join": lambda: left[0].join(),
    }
    left: list[golibx.Goroutine[None]] = []
    threads: list[Thread] = []

    def stubborn() -> None:
        while True:
            try:
                ch.receiver().recv() if what == "send" else Chan[int]().recv()
            except golibx.Cancelled:
                pass

    def main() -> None:
        if what == "join":
            left.append(go(stubborn))
            gosched()
        threads.extend(waiting(calls[what]) for _ in range(3))

    run(main, config={"runtime": {"shutdown_timeout": "10ms"}})
    for thread in threads:
        with pytest.raises(RuntimeError, match="the golibx run has ended while this thread"):
            thread.outcome()
    assert stats()["threads_waiting"] == 0
    # The channel is as good as new in the next run.
    assert ch.try_recv() == (None, False)
    assert ch.try_send(2) is False
    assert run(lambda: (go(ch.send, 3), ch.recv(timeout=LONG))[1]) == 3


@PLAIN
@pytest.mark.limit(120)
def test_runs_that_end_and_begin_while_threads_come() -> None:
    """Threads use the same channels and timers in runs and between them."""
    ch: Chan[int] = Chan()
    ticker: list[Ticker] = []
    stop = threading.Event()

    def hammer(seed: int) -> tuple[list[int], Counter[str]]:
        rng = random.Random(seed)
        got, errors = list[int](), Counter[str]()
        while not stop.is_set():
            try:
                if rng.random() < 0.5:
                    got.append(ch.recv())
                elif ticker:
                    index, value, _ = select(ticker[0].on_fire(), ch.on_recv(), timeout=0.01)
                    if index == 1:
                        got.append(int(value))
            except DeadlineExceeded:
                errors["late"] += 1
            except RuntimeError as exc:
                errors["ended" if "has ended" in str(exc) else "none"] += 1
        return got, errors

    def main(first: int) -> list[int]:
        if not ticker:
            ticker.append(Ticker(0.0005))
        sent = []
        for i in range(first, first + 10):
            ch.send(i)
            sent.append(i)
        return sent

    threads = [Thread(hammer, i) for i in range(4)]
    sent = [i for n in range(30) for i in run(main, n * 10)]
    stop.set()
    found = [thread.outcome() for thread in threads]
    assert Counter(i for got, _ in found for i in got) == Counter(sent)
    assert sum(errors["ended"] for _, errors in found) > 0


@PLAIN
def test_threads_that_come_back_to_a_timer_in_the_next_run() -> None:
    """They leave the queue alone, in which others wait by then."""
    threads: list[Thread] = []
    ticker: list[Ticker] = []

    def first() -> None:
        ticker.append(Ticker(1000))
        for _ in range(6):
            threads.append(waiting(ticker[-1].c.recv))

    def second() -> None:
        goroutines = [go(ticker[-1].c.recv, LONG) for _ in range(4)]
        gosched()
        wait_until(lambda: not any(thread.is_alive() for thread in threads))
        ticker[-1].reset(0.0005)
        for g in goroutines:
            g.result()

    come_back_late(threads, first, second)


@PLAIN
def test_without_a_run() -> None:
    with pytest.raises(RuntimeError, match="no golibx runtime is running"):
        Thread(Chan[int]().recv).outcome()


# ---- deadlocks ----


def test_no_deadlock_while_a_thread_may_come() -> None:
    ch: Chan[int] = Chan()
    begin = threading.Event()

    def late() -> None:
        begin.wait()
        ch.send(5)

    thread = Thread(late)
    go(lambda: (sleep(0.05), begin.set()))  # for which the lane has to look more than once
    assert ch.recv() == 5
    thread.outcome()
    # One that waits itself comes again when its time is up.
    thread = Thread(ch.send, 6)
    assert ch.recv() == 6
    thread.outcome()


def test_a_thread_that_comes_when_its_time_is_up_is_no_deadlock() -> None:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan()

    def late() -> None:
        with pytest.raises(DeadlineExceeded):
            a.recv(timeout=0.1)
        b.send(1)

    thread = Thread(late)
    assert b.recv() == 1
    thread.outcome()


@PLAIN
def test_deadlock_when_threads_wait_for_ever_too() -> None:
    threads: list[Thread] = []

    def main() -> None:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan()
        threads.append(waiting(a.recv))
        threads.append(waiting(lambda: select(a.on_recv(), b.on_recv())))
        go(a.recv)
        b.recv()

    with pytest.raises(Deadlock):
        run(main)
    for thread in threads:
        with pytest.raises(RuntimeError, match="the golibx run has ended"):
            thread.outcome()


@PLAIN
def test_deadlock_when_the_threads_have_gone() -> None:
    ch: Chan[int] = Chan()
    begin = threading.Event()

    def main() -> None:
        threading.Thread(target=begin.wait).start()
        Thread(lambda: ch.try_send(1))
        go(lambda: (sleep(0.05), begin.set()))
        ch.recv()
        ch.recv()

    with pytest.raises(Deadlock):
        run(main)


def test_no_deadlock_of_a_run_that_the_main_thread_uses(script: Script) -> None:
    """The main thread is none of those that Python counts."""
    result = script(
        """
import threading, time
from golibx import Chan, run

request, answer = Chan(), Chan()
begun = threading.Event()

def main():
    begun.set()
    while (value := request.recv()) is not None:
        answer.send(value + 1)

thread = threading.Thread(target=run, args=(main,))
thread.start()
begun.wait()
for i in range(3):
    request.send(i)
    time.sleep(0.1)
    print(answer.recv())
request.send(None)
thread.join()
"""
    )
    assert (result.returncode, result.stdout) == (0, "1\n2\n3\n"), result.stderr


# ---- signals, in the main thread of a run on another ----

BEGIN = """
import os, signal, sys, threading, time
from golibx import Chan, DeadlineExceeded, Event, go, run, select, sleep, stats

ch, done = Chan(), Chan()
begun = threading.Event()

def main():
    begun.set()
    body()
    select(done.on_recv(), timeout=30)

def until_waiting(n):
    while stats()["threads_waiting"] != n:
        sleep(0.001)

def interrupt():
    until_waiting(1)
    os.kill(os.getpid(), signal.SIGINT)

def start():
    thread = threading.Thread(target=run, args=(main,))
    thread.start()
    begun.wait()
    return thread
"""

posix = pytest.mark.skipif(sys.platform == "win32", reason="no such signals")


@posix
@pytest.mark.parametrize(
    "call",
    [
        "ch.recv()",
        "ch.recv(timeout=30)",
        "ch.recv_ok()",
        "ch.send(1)",
        "list(ch)",
        "select(ch.on_recv(), ch.on_send(2))",
        "sleep(30)",
        "go(sleep, 30).join()",
        "Event().wait()",
    ],
)
def test_ctrl_c(script: Script, call: str) -> None:
    result = script(
        f"""{BEGIN}
body = interrupt
thread = start()
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", ch.try_send(1), stats()["threads_waiting"])
done.send(None)
thread.join()
"""
    )
    assert (result.returncode, result.stdout) == (0, "interrupted False 0\n"), result.stderr


@posix
def test_a_handler_that_returns_does_not_end_the_wait(script: Script) -> None:
    """Its thread keeps its place; the handler itself may wait, too."""
    result = script(
        f"""{BEGIN}
other = Chan()
seen = []

def handler(signum, frame):
    seen.append(other.recv(timeout=30))

def body():
    until_waiting(1)
    second = go(ch.recv)
    sleep(0)
    os.kill(os.getpid(), signal.SIGUSR1)
    other.send(7)
    ch.send("first")
    ch.send("second")
    seen.append(second.result())

signal.signal(signal.SIGUSR1, handler)
thread = start()
first = ch.recv()
done.send(None)
thread.join()
print(first, seen)
"""
    )
    assert (result.returncode, result.stdout) == (0, "first [7, 'second']\n"), result.stderr


@posix
def test_a_main_thread_that_may_handle_signals_is_no_deadlock(script: Script) -> None:
    """Though all wait: until then a signal may come, and its handler wakes a goroutine."""
    with script.start(
        f"""{BEGIN}
def handler(signum, frame):
    ch.send("from a handler", timeout=30)

def body():
    until_waiting(1)
    print("waits", flush=True)
    print(ch.recv())
    done.close()

signal.signal(signal.SIGUSR1, handler)
thread = start()
list(done)
thread.join()
"""
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        # So long that the search for a deadlock has come by: it looks every 100 ms.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGUSR1)
        assert process.communicate(timeout=30)[0] == "from a handler\n"


@posix
def test_a_handler_that_raises_when_the_wait_has_succeeded(script: Script) -> None:
    """What was received is not lost to it, and neither is the exception."""
    result = script(
        f"""{BEGIN}
received = []

def handler(signum, frame):
    assert ch.try_send(5)  # to the wait that this interrupts
    raise KeyboardInterrupt

def body():
    interrupt()

signal.signal(signal.SIGINT, handler)
thread = start()
try:
    list(map(received.append, map(lambda _: ch.recv(), range(1))))
    while True:
        pass
except KeyboardInterrupt:
    print("interrupted")
print(stats()["threads_waiting"], ch.try_send(1))
done.send(None)
thread.join()
"""
    )
    assert (result.returncode, result.stdout) == (0, "interrupted\n0 False\n"), result.stderr


@posix
def test_a_handler_between_two_goroutines_waits_as_the_main_one(script: Script) -> None:
    out = script.passes(
        """
import os, signal, threading, time
from golibx import Chan, current, go, run

ch, answer = Chan(), Chan()

def interrupt(waits):
    while waits.state != "chan receive":
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGUSR1)

def handler(signum, frame):
    go(ch.send, current())
    print(ch.recv() is main_goroutine)
    go(answer.send, 5)

def main():
    global main_goroutine
    main_goroutine = current()
    signal.signal(signal.SIGUSR1, handler)
    threading.Thread(target=interrupt, args=(current(),)).start()
    print(answer.recv(timeout=30))

run(main)
"""
    )
    assert out == "True\n5\n"


# ---- the end of the process ----


@pytest.mark.skipif(not hasattr(sys, "getswitchinterval"), reason="needs CPython")
def test_interpreter_exit_with_daemon_threads_that_wait(script: Script) -> None:
    result = script(
        """
import threading
from golibx import Chan, run, select, sleep, stats

ch = Chan()

def wait():
    try:
        select(ch.on_recv())
    except RuntimeError as exc:
        sys.stdout.write(str(exc) + "\\n")
        threading.Event().wait()

import sys

def main():
    for _ in range(3):
        threading.Thread(target=wait, daemon=True).start()
    while stats()["threads_waiting"] < 3:
        sleep(0.001)
    sys.exit(3)

run(main)
"""
    )
    assert result.returncode == 3, result.stderr
    assert result.stderr == ""


def test_exit_with_threads_that_are_no_daemons(script: Script) -> None:
    """The interpreter waits for them, and they for the run, which has ended."""
    result = script(
        """
import threading
from golibx import Chan, run, sleep, stats

def wait():
    try:
        Chan().recv()
    except RuntimeError as exc:
        print(exc)

def main():
    threading.Thread(target=wait).start()
    while stats()["threads_waiting"] < 1:
        sleep(0.001)

run(main)
"""
    )
    ended = "the golibx run has ended while this thread waited for its goroutines\n"
    assert (result.returncode, result.stdout) == (0, ended), result.stderr


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork")
@pytest.mark.parametrize("who", ["the main goroutine", "a thread"])
def test_fork_while_threads_wait(script: Script, who: str) -> None:
    """In the child they are gone, and out of the queues; in the parent they go on."""
    result = script(
        f"""
import os, sys, threading
from golibx import Chan, WaitGroup, go, run, select, sleep, stats

ch, other, lone, group = Chan(), Chan(), Chan(), WaitGroup()
group.add()

def in_child():
    def main():
        g = go(ch.recv, 30)
        sleep(0)
        assert ch.try_send(5)  # to a goroutine, and to no thread
        assert not other.try_send(6)
        assert not lone.try_send(7)
        group.done()
        return g.result()
    # Threads of the child get the stacks of those that are gone.
    nested = []
    for _ in range(150): nested = [nested]
    barrier = threading.Barrier(12)
    def dig():
        barrier.wait()
        repr(nested)
    more = [threading.Thread(target=dig) for _ in range(12)]
    for thread in more: thread.start()
    for thread in more: thread.join()
    print("child", run(main), stats()["threads_waiting"])
    sys.stdout.flush()
    os._exit(0)

def fork():
    pid = os.fork()
    if pid == 0:
        in_child()
    return os.waitpid(pid, 0)[1]

def main():
    calls = [ch.recv, lambda: select(ch.on_recv(), other.on_recv()), ch.recv, lone.recv, group.wait]
    got = []
    threads = []
    for n, call in enumerate(calls):
        threads.append(threading.Thread(target=lambda call=call: got.append(call())))
        threads[-1].start()
        while stats()["threads_waiting"] != n + 1:
            sleep(0.001)
    if {who!r} == "a thread":
        status = []
        forker = threading.Thread(target=lambda: status.append(fork()))
        forker.start()
        while forker.is_alive():
            sleep(0.001)
        print("status", *status)
    else:
        print("status", fork())
    for value in (1, 2, 3):
        ch.send(value)
    lone.send(4)
    group.done()
    for thread in threads:
        thread.join()
    print("parent", len(got))

run(main)
"""
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "child 5 0\nstatus 0\nparent 5\n", result.stderr


# ---- work from threads ----


def test_go_and_result_from_a_thread() -> None:
    def fail() -> None:
        raise ValueError("as told")

    def work(n: int) -> int:
        sleep(0.001)
        return n * n

    def in_thread(n: int) -> int:
        goroutines = [go(work, n + i) for i in range(5)]
        assert goroutines[0].join(timeout=0) in (False, True)
        assert goroutines[4].join() is True
        return sum(g.result() for g in goroutines)

    threads = [Thread(in_thread, n) for n in range(10)]
    assert [t.outcome() for t in threads] == [
        sum((n + i) ** 2 for i in range(5)) for n in range(10)
    ]
    with pytest.raises(ValueError, match="as told"):
        Thread(lambda: go(fail).result()).outcome()
    hold: Chan[int] = Chan()
    g = go(hold.recv)
    assert Thread(g.join, 0.001).outcome() is False
    with pytest.raises(DeadlineExceeded):
        Thread(g.result, 0.001).outcome()
    hold.send(1)
    assert Thread(g.result).outcome() == 1


@PLAIN
def test_go_from_a_thread_without_a_run() -> None:
    with pytest.raises(RuntimeError, match="no golibx runtime is running"):
        Thread(go, print).outcome()


def test_sleep_in_a_thread() -> None:
    begin = time.monotonic()
    Thread(sleep, 0.01).outcome()
    assert time.monotonic() - begin >= 0.01
    Thread(sleep, 0).outcome()
