"""What waiting costs does not grow with the number of goroutines that wait for the same.

Each case lets n goroutines wait and go on, for one n and for many times as many, and compares the
processor time: it may grow by the factor, a search through the waiters would have it grow by the
factor's square. Of several tries the best counts, since neighbours on the machine take caches away.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest

from golibx import (
    Barrier,
    Cancelled,
    Chan,
    Cond,
    DeadlineExceeded,
    Event,
    Goroutine,
    Mutex,
    Once,
    RWMutex,
    Semaphore,
    Timer,
    WaitGroup,
    context,
    go,
    gosched,
    net,
    select,
    sleep,
)

FEW = 250
FACTOR = 16
MOST = (
    4 * FACTOR
)  # more than FACTOR, since fewer fit into the caches; a search gives FACTOR * FACTOR
TRIES = 4


def park(n: int, wait: Callable[[], object]) -> list[Goroutine]:
    goroutines = [go(wait) for _ in range(n)]
    gosched()
    return goroutines


def end(goroutines: list[Goroutine]) -> None:
    for g in goroutines:
        g.join()


def cancel_in_turn(goroutines: list[Goroutine]) -> None:
    """The last first, each before the next: the worst for a list that is searched from its head."""
    for g in reversed(goroutines):
        g.cancel()
    for g in goroutines:
        with pytest.raises(Cancelled):
            g.result()


def wait_group(n: int) -> None:
    group = WaitGroup()
    group.add()
    waiters = park(n, group.wait)
    group.done()
    end(waiters)


def wait_group_cancelled(n: int) -> None:
    group = WaitGroup()
    group.add()
    cancel_in_turn(park(n, group.wait))


def wait_group_timeouts(n: int) -> None:
    group = WaitGroup()
    group.add()
    end(park(n, lambda: group.wait(timeout=0.001)))


def join(n: int) -> None:
    event = Event()
    joined = go(event.wait)
    waiters = park(n, joined.join)
    event.set()
    end(waiters)


def join_cancelled(n: int) -> None:
    event = Event()
    joined = go(event.wait)
    cancel_in_turn(park(n, joined.join))
    event.set()


def join_selected(n: int) -> None:
    event = Event()
    joined = go(event.wait)
    other: Chan[int] = Chan()
    waiters = park(n, lambda: select(joined.on_done(), other.on_recv()))
    event.set()
    end(waiters)


def event(n: int) -> None:
    flag = Event()
    waiters = park(n, flag.wait)
    flag.set()
    end(waiters)


def mutex(n: int) -> None:
    lock = Mutex()

    def use() -> None:
        with lock:
            pass

    lock.lock()
    waiters = park(n, use)
    lock.unlock()
    end(waiters)


def mutex_cancelled(n: int) -> None:
    lock = Mutex()
    lock.lock()
    cancel_in_turn(park(n, lock.lock))


def readers(n: int) -> None:
    lock = RWMutex()

    def use() -> None:
        with lock.reader():
            gosched()

    lock.lock()
    waiters = park(n, use)
    lock.unlock()
    end(waiters)


def writers(n: int) -> None:
    lock = RWMutex()

    def use() -> None:
        with lock:
            gosched()

    lock.rlock()
    waiters = park(n, use)
    lock.runlock()
    end(waiters)


def writers_cancelled(n: int) -> None:
    lock = RWMutex()
    lock.rlock()
    cancel_in_turn(park(n, lock.lock))


def waiting_for(cond: Cond, n: int) -> list[Goroutine]:
    waiting = 0

    def use() -> None:
        nonlocal waiting
        with cond:
            waiting += 1
            cond.wait()

    waiters = park(n, use)
    while waiting < n:
        gosched()
    with cond:  # the ones that counted wait by now
        return waiters


def condition(n: int) -> None:
    cond = Cond()
    waiters = waiting_for(cond, n)
    cond.broadcast()
    end(waiters)


def condition_signalled(n: int) -> None:
    cond = Cond()
    waiters = waiting_for(cond, n)
    for _ in range(n):
        cond.signal()
    end(waiters)


def semaphore(n: int) -> None:
    permits = Semaphore(1)

    def use() -> None:
        with permits:
            gosched()

    permits.acquire()
    waiters = park(n, use)
    permits.release()
    end(waiters)


def semaphore_cancelled(n: int) -> None:
    permits = Semaphore(1)
    permits.acquire()
    cancel_in_turn(park(n, permits.acquire))


def barrier(n: int) -> None:
    meeting = Barrier(n + 1)
    waiters = park(n, meeting.wait)
    meeting.wait()
    end(waiters)


def once(n: int) -> None:
    only = Once()
    release = Event()
    first = go(only.do, release.wait)
    gosched()
    waiters = park(n, lambda: only.do(release.wait))
    release.set()
    end([first, *waiters])


def receivers(n: int) -> None:
    chan: Chan[int] = Chan()
    waiters = park(n, chan.recv)
    for i in range(n):
        chan.send(i)
    end(waiters)


def receivers_at_close(n: int) -> None:
    chan: Chan[int] = Chan()
    waiters = park(n, lambda: list(chan))
    chan.close()
    end(waiters)


def receivers_cancelled(n: int) -> None:
    chan: Chan[int] = Chan()
    cancel_in_turn(park(n, chan.recv))


def receivers_that_have_left(n: int) -> None:
    """Cancelled but not yet run, they are still in the queue that each send looks through."""
    chan: Chan[int] = Chan(n)
    waiters = park(n, chan.recv)
    for g in waiters:
        g.cancel()
    for i in range(n):
        chan.send(i)
    for g in waiters:
        with pytest.raises(Cancelled):
            g.result()


def selects(n: int) -> None:
    first: Chan[int] = Chan()
    second: Chan[int] = Chan()
    waiters = park(n, lambda: select(first.on_recv(), second.on_recv()))
    for i in range(n):
        second.send(i)
    end(waiters)


def select_of_many(n: int) -> None:
    """One goroutine over many channels, woken once."""
    chans: list[Chan[int]] = [Chan() for _ in range(n)]
    waiter = go(lambda: select(*[c.on_recv() for c in chans]))
    gosched()
    chans[-1].send(1)
    waiter.join()


def context_cancelled(n: int) -> None:
    ctx, cancel = context.with_cancel(context.background())
    flag = Event()

    def use() -> None:
        with ctx:
            flag.wait()

    waiters = park(n, use)
    cancel()
    for g in waiters:
        with pytest.raises(Cancelled):
            g.result()


def contexts_of_one_parent(n: int) -> None:
    root, cancel = context.with_cancel(context.background())
    children = [context.with_cancel(root) for _ in range(n)]
    for _, cancel_one in children[::2]:
        cancel_one()
    cancel()


def sleepers(n: int) -> None:
    end(park(n, lambda: sleep(0.001)))


def sleepers_cancelled(n: int) -> None:
    cancel_in_turn(park(n, lambda: sleep(3600)))


def timers_stopped(n: int) -> None:
    """Of a heap of many the ones in the middle."""
    group = WaitGroup()
    timers = [Timer(3600 + i) for i in range(n)]
    for timer in timers:
        group.go(select, timer.c.on_recv(), timer.c.on_recv())
    gosched()
    for timer in timers[::2] + timers[1::2]:
        timer.reset(0)
    group.wait()


def socket_timeouts(n: int) -> None:
    """Many wait for one socket, and leave it one by one."""
    with net.listen("127.0.0.1:0") as listener:
        accepting = go(listener.accept)
        conn = net.dial(listener.address)
        other, _ = accepting.result()
        conn.settimeout(0.001)

        def use() -> None:
            try:
                conn.recv(1)
            except DeadlineExceeded:
                pass

        end(park(n, use))
        conn.close()
        other.close()


def socket_served_in_turn(n: int) -> None:
    """Many wait for one socket, and each gets something from an event of its own."""
    with net.listen("127.0.0.1:0") as listener:
        accepting = go(listener.accept)
        conn = net.dial(listener.address)
        other, _ = accepting.result()
        served: Chan[int] = Chan(1)

        def use() -> None:
            conn.recv(1)
            served.send(1)

        waiters = park(n, use)
        for _ in range(n):
            other.send(b"x")
            served.recv()
        end(waiters)
        conn.close()
        other.close()


def socket_closed(n: int) -> None:
    with net.listen("127.0.0.1:0") as listener:

        def use() -> None:
            with pytest.raises(OSError):
                listener.accept()

        waiters = park(n, use)
        listener.close()
        end(waiters)


CASES = [
    wait_group,
    wait_group_cancelled,
    wait_group_timeouts,
    join,
    join_cancelled,
    join_selected,
    event,
    mutex,
    mutex_cancelled,
    readers,
    writers,
    writers_cancelled,
    condition,
    condition_signalled,
    semaphore,
    semaphore_cancelled,
    barrier,
    once,
    receivers,
    receivers_at_close,
    receivers_cancelled,
    receivers_that_have_left,
    selects,
    select_of_many,
    context_cancelled,
    contexts_of_one_parent,
    sleepers,
    sleepers_cancelled,
    timers_stopped,
    socket_timeouts,
    socket_served_in_turn,
    socket_closed,
]


def cost(case: Callable[[int], None], n: int) -> float:
    # A collection in the larger one would cost what other tests have left.
    gc.collect()
    gc.disable()
    try:
        began = time.process_time()
        case(n)
        return time.process_time() - began
    finally:
        gc.enable()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.goroutine(preempt={"async": False})
def test_cost_is_linear(case: Callable[[int], None]) -> None:
    growth: list[float] = []
    while len(growth) < TRIES and not (growth and growth[-1] < MOST):
        few = min(cost(case, FEW), cost(case, FEW))
        growth.append(cost(case, FEW * FACTOR) / max(few, 1e-6))
    assert growth[-1] < MOST, (
        f"{FACTOR} times as many cost {min(growth):.0f} times as much: {growth}"
    )
