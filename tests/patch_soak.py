"""Goroutines and threads that share locks, queues and sockets of the patched standard library.

    python tests/patch_soak.py [SECONDS [SEED]]

Each counts what it has put, taken and sent; at the end the sums must agree, and every lock is free.
Some are cancelled, waits have time-outs of a few microseconds to milliseconds, and time slices are
short. The last line is "ok", with the sums.
"""

from __future__ import annotations

import queue
import random
import select
import socket
import sys
import threading
import time
from collections import Counter

import golibx
from golibx import Cancelled, go, run
from golibx.config import Config

SLICE = "100us"
LOCKS = [threading.Lock() for _ in range(3)]
CONDITION = threading.Condition()


class Shared:
    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self.guarded = [0] * len(LOCKS)
        self.simple: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.bounded: queue.Queue[int] = queue.Queue(4)
        self.end = 0.0

    def goes_on(self) -> bool:
        return time.monotonic() < self.end


def with_locks(shared: Shared, rng: random.Random) -> None:
    while shared.goes_on():
        i = rng.randrange(len(LOCKS))
        timeout = rng.choice((-1, -1, 1e-6, 1e-3))
        if not LOCKS[i].acquire(timeout=timeout):
            continue
        try:
            before = shared.guarded[i]
            if rng.random() < 0.2:
                time.sleep(rng.choice((0, 1e-5, 1e-4)))
            shared.guarded[i] = before + 1
            shared.sums[f"lock {i}"] += 1
        finally:
            LOCKS[i].release()


def with_queues(shared: Shared, rng: random.Random) -> None:
    while shared.goes_on():
        which = rng.randrange(4)
        try:
            if which == 0:
                shared.simple.put(1)
                add(shared, "simple put")
            elif which == 1:
                shared.simple.get(timeout=rng.choice((1e-6, 1e-4, 1e-3)))
                add(shared, "simple got")
            elif which == 2:
                shared.bounded.put(1, timeout=rng.choice((1e-6, 1e-3)))
                add(shared, "bounded put")
            else:
                shared.bounded.get(timeout=rng.choice((1e-6, 1e-3)))
                add(shared, "bounded got")
        except (queue.Empty, queue.Full):
            pass


COUNTING = threading.Lock()


def add(shared: Shared, name: str, n: int = 1) -> None:
    with COUNTING:
        shared.sums[name] += n


def with_conditions(shared: Shared, rng: random.Random) -> None:
    while shared.goes_on():
        with CONDITION:
            if rng.random() < 0.5:
                CONDITION.notify()
            else:
                CONDITION.wait(rng.choice((1e-5, 1e-3)))


def echo(shared: Shared, end: socket.socket, rng: random.Random) -> None:
    end.settimeout(rng.choice((None, 60)))
    while data := end.recv(rng.choice((1, 100, 5000))):
        end.sendall(data)
    end.close()


def ask(shared: Shared, end: socket.socket, rng: random.Random) -> None:
    end.settimeout(rng.choice((None, 60)))
    while shared.goes_on():
        size = rng.choice((1, 100, 20_000))
        end.sendall(bytes(size))
        left = size
        while left:
            if rng.random() < 0.1:
                select.select([end], [], [], 60)
            left -= len(end.recv(left))
        add(shared, "echoed", size)
    end.shutdown(socket.SHUT_WR)
    assert end.recv(1) == b""
    end.close()


def cancelled(shared: Shared, rng: random.Random) -> None:
    """Starts goroutines that wait, and cancels them."""
    while shared.goes_on():
        one, other = socket.socketpair()
        waits = [go(one.recv, 1), go(time.sleep, 10), go(threading.Event().wait)]
        waits += [go(queue.SimpleQueue[int]().get)]
        time.sleep(rng.choice((0, 1e-4)))
        for each in waits:
            each.cancel()
        for each in waits:
            try:
                each.result()
            except Cancelled:
                add(shared, "cancelled")
        one.close()
        other.close()


def soak(seconds: float, seed: int) -> Shared:
    shared = Shared()
    shared.end = time.monotonic() + seconds
    bodies = [with_locks, with_queues, with_conditions]
    threads = [
        threading.Thread(target=body, args=(shared, random.Random(seed + i)))
        for i, body in enumerate(bodies)
    ]
    for thread in threads:
        thread.start()
    started = []
    for i in range(6):
        started += [go(body, shared, random.Random(seed + 10 * i)) for body in bodies]
        one, other = socket.socketpair()
        started += [
            go(ask, shared, one, random.Random(i)),
            go(echo, shared, other, random.Random(i)),
        ]
    started.append(go(cancelled, shared, random.Random(seed)))
    for each in started:
        each.result()
    for thread in threads:
        thread.join()
    return shared


def check(shared: Shared) -> None:
    sums = shared.sums
    assert sums["simple put"] - sums["simple got"] == shared.simple.qsize()
    assert sums["bounded put"] - sums["bounded got"] == shared.bounded.qsize()
    assert not any(lock.locked() for lock in LOCKS)
    assert sums["echoed"]
    assert sums["cancelled"]
    # Each lock kept all others from writing what one had read.
    assert shared.guarded == [sums[f"lock {i}"] for i in range(len(LOCKS))]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    print("seed", seed, flush=True)
    golibx.patch_all()
    config = Config.load(overrides=[f"preempt.slice={SLICE}"])
    shared = run(soak, seconds, seed, config=config)
    check(shared)
    print("ok", dict(shared.sums))


if __name__ == "__main__":
    main()
