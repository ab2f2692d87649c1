"""Bugs of Go programs that leave goroutines behind, in golibx's words: seeds show each soon.

The shapes are those of the kernels that the GoBench collection (Yuan and others, CGO 2021) made of
bugs in public Go projects, named by project and issue; the code is this file's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from golibx import (
    Chan,
    Cond,
    Deadlock,
    Mutex,
    RWMutex,
    WaitGroup,
    after,
    context,
    go,
    leaks,
    select,
    sleep,
)
from golibx.testing import Leaked, run

MOST_SCHEDULES = 20


def cockroach_10214() -> None:
    """Two mutexes, taken in either order."""
    store, group = Mutex(), Mutex()

    def heartbeats() -> None:
        with store, group:
            pass

    def reports() -> None:
        with group, store:
            pass

    go(heartbeats)
    go(reports)


def cockroach_9935() -> None:
    """An error path that returns with the mutex locked."""
    mutex = Mutex()
    failed: list[int] = []

    def writes(number: int) -> None:
        mutex.lock()
        if number:
            failed.append(number)
            return
        mutex.unlock()

    go(writes, 0)
    go(writes, 1)


def cockroach_6181() -> None:
    """A reader that reads again, while a writer waits in between."""
    mutex = RWMutex()

    def prints() -> None:
        mutex.rlock()
        mutex.rlock()
        mutex.runlock()
        mutex.runlock()

    def changes() -> None:
        mutex.lock()
        mutex.unlock()

    go(prints)
    go(changes)


def etcd_6857() -> None:
    """A status request that the node, which has stopped, never answers."""
    status: Chan[Chan[int]] = Chan()
    stop: Chan[None] = Chan()

    def node() -> None:
        while True:
            index, request, _ = select(status.on_recv(), stop.on_recv())
            if index:
                return
            request.send(1)

    def asks() -> None:
        answer: Chan[int] = Chan()
        status.send(answer)
        answer.recv()

    go(node)
    go(asks)
    go(stop.close)


def etcd_7443() -> None:
    """The one that stops waits for the receiver, which waits for a mutex that the first holds."""
    mutex = Mutex()
    updates: Chan[int] = Chan()

    def receives() -> None:
        updates.recv()
        with mutex:
            updates.recv_ok()

    def stops() -> None:
        with mutex:
            updates.send(1)
            updates.send(2)

    go(receives)
    go(stops)


def etcd_7902() -> None:
    """Each waits for the round of the others, and one holds the lock."""
    mutex, release = Mutex(), Chan[None]()
    first: list[int] = []

    def round_of(number: int) -> None:
        with mutex:
            if not first:
                first.append(number)
                return
        release.recv_ok()

    go(round_of, 0)
    go(round_of, 1)


def grpc_660() -> None:
    """The benchmark's workers send to a channel that was left at the first stop."""
    results: Chan[int] = Chan()
    stop: Chan[None] = Chan()

    def works() -> None:
        select(results.on_send(1), stop.on_recv())
        results.send(2)

    def collects() -> None:
        select(results.on_recv(), stop.on_recv())
        stop.close()

    go(works)
    go(collects)


def grpc_1275() -> None:
    """The reader of a stream is not told that the stream was closed."""
    data: Chan[bytes] = Chan()
    done: Chan[None] = Chan()

    def reads() -> None:
        data.recv()
        done.close()

    def closes() -> None:
        done.recv_ok()

    go(reads)
    go(closes)


def kubernetes_6632() -> None:
    """Writing a frame with the lock, that the reset wants first."""
    mutex = Mutex()
    resets: Chan[int] = Chan()

    def monitors() -> None:
        resets.recv()
        with mutex:
            pass

    def writes() -> None:
        with mutex:
            resets.send(1)
        with mutex:
            resets.send(2)

    go(monitors)
    go(writes)


def kubernetes_10182() -> None:
    """The channel is full, and the receiver wants the lock that the sender holds."""
    mutex = Mutex()
    statuses: Chan[int] = Chan()

    def syncs() -> None:
        statuses.recv()
        with mutex:
            pass
        statuses.recv()

    def sets(value: int) -> None:
        with mutex:
            statuses.send(value)

    go(syncs)
    go(sets, 1)
    go(sets, 2)


def moby_28462() -> None:
    """A health check's monitor, and the goroutine that stops it with the lock held."""
    mutex = Mutex()
    stop: Chan[None] = Chan()

    def monitor() -> None:
        while True:
            index, _, _ = select(stop.on_recv(), default=True)
            if index == 0:
                return
            with mutex:
                pass

    def stops() -> None:
        with mutex:
            stop.send(None)

    go(monitor)
    go(stops)


def moby_29733() -> None:
    """A wake-up that comes before the wait."""
    mutex = Mutex()
    cond = Cond(mutex)

    def waits() -> None:
        with mutex:
            cond.wait()

    go(waits)
    go(cond.signal)


def moby_4951() -> None:
    """Devices and their set, each locked by the goroutine that wants the other."""
    devices, device = Mutex(), Mutex()

    def deactivates() -> None:
        devices.lock()
        device.lock()
        device.unlock()
        devices.unlock()

    def removes() -> None:
        device.lock()
        devices.lock()
        devices.unlock()
        device.unlock()

    for each in (deactivates, removes):
        go(each)


def istio_16224() -> None:
    """A cache that tells its subscriber with the lock that the subscriber wants."""
    mutex = Mutex()
    events: Chan[int] = Chan()

    def subscriber() -> None:
        with mutex:
            pass
        events.recv()

    def emits() -> None:
        with mutex:
            events.send(1)

    go(subscriber)
    go(emits)


def hugo_3251() -> None:
    """A lock for each address, that one of two never gives back."""
    locks: dict[str, Mutex] = {}

    def fetches() -> None:
        locks.setdefault("url", Mutex()).lock()
        if len(locks) == 1 and locks["url"].locked:
            return
        locks["url"].unlock()

    go(fetches)
    go(fetches)


def syncthing_5795() -> None:
    """Closing waits for the loop that closes."""
    closed: Chan[None] = Chan()
    inbox: Chan[str] = Chan(1)

    def dispatches() -> None:
        if inbox.recv() == "close":
            closed.recv_ok()
        closed.close()

    go(dispatches)
    inbox.send("close")


def serving_2137() -> None:
    """A request that holds its place while it waits for another's."""
    places: Chan[None] = Chan(1)
    done: Chan[None] = Chan()

    def request() -> None:
        places.send(None)
        select(done.on_recv(), done.on_send(None))
        places.recv()

    go(request)
    go(request)


def slow_sender(limit: float) -> None:
    """The one that asked has given up when the answer comes: kubernetes 5316, among many."""
    answer: Chan[int] = Chan()

    def handles() -> None:
        sleep(0.5)
        answer.send(1)

    go(handles)
    select(answer.on_recv(), after(limit).on_recv())


def kubernetes_5316() -> None:
    slow_sender(1.0)


def context_that_ends_first() -> None:
    """grpc 862 and others: the deadline passes before the first send."""
    values: Chan[int] = Chan()
    ctx, cancel = context.with_timeout(context.background(), 10)

    def produces() -> None:
        values.send(1)

    go(produces)
    select(values.on_recv(), ctx.done().on_recv())
    cancel()


def moby_27782() -> None:
    """The follower's timer and its event are one instant apart."""
    group = WaitGroup()
    event: Chan[int] = Chan()

    def follows() -> None:
        select(event.on_recv(), after(1).on_recv())

    def writes() -> None:
        sleep(1)
        event.send(1)

    group.go(follows)
    go(writes)
    group.wait()


KERNELS = [
    cockroach_10214,
    cockroach_9935,
    cockroach_6181,
    etcd_6857,
    etcd_7443,
    etcd_7902,
    grpc_660,
    grpc_1275,
    kubernetes_6632,
    kubernetes_10182,
    kubernetes_5316,
    moby_28462,
    moby_29733,
    moby_4951,
    moby_27782,
    istio_16224,
    hugo_3251,
    syncthing_5795,
    serving_2137,
    context_that_ends_first,
]


@pytest.mark.parametrize("first", [1, 500, 1000, 12345])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda f: f.__name__)
def test_seeds_show_it_soon(kernel: Callable[[], None], first: int) -> None:
    with pytest.raises((Leaked, Deadlock)) as caught:
        run(
            kernel,
            seed=first,
            schedules=MOST_SCHEDULES,
            preempt_every_call=True,
            virtual_time=True,
            timeout=10,
        )
    seed = int(caught.value.__notes__[0].split()[4])

    def again() -> None:
        run(kernel, seed=seed, preempt_every_call=True, virtual_time=True, timeout=10)

    for _ in range(2):
        with pytest.raises(type(caught.value)):
            again()


@pytest.mark.parametrize("lowest", [1, 2**62])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda f: f.__name__)
def test_it_is_shown_as_soon_whatever_seed_is_first(
    kernel: Callable[[], None], lowest: int
) -> None:
    """From one seed that shows it to the next there are no more than so many."""
    first = lowest
    while first < lowest + 5 * MOST_SCHEDULES:
        with pytest.raises((Leaked, Deadlock)) as caught:
            run(
                kernel,
                seed=first,
                schedules=MOST_SCHEDULES,
                preempt_every_call=True,
                virtual_time=True,
                timeout=10,
                shrink=False,
            )
        first = int(caught.value.__notes__[0].split()[4]) + 1


STUCK_AT_ONCE = [etcd_7443, syncthing_5795, grpc_1275]


@pytest.mark.parametrize("kernel", STUCK_AT_ONCE, ids=lambda f: f.__name__)
def test_leaks_finds_it_while_others_run(kernel: Callable[[], None]) -> None:
    def main() -> list[Any]:
        kernel()
        sleep(1)
        return [g.name for g in leaks()]

    found = run(
        main, seed=1, virtual_time=True, leaks=False, config={"runtime": {"shutdown_timeout": "1s"}}
    )
    assert found
