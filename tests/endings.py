"""Ends of runs against goroutines that will not: `python endings.py [count] [most seconds] [seed]`.

Each run starts goroutines that swallow Cancelled, block, compute, wait, start others, keep their
thread and hold locks, at random, and ends in the middle of that. Then a second one looks whether it
is alone and whether everything works, and now and then all threads have to be home. Prints what
was wrong with the seed of the run, and exits with 1 if something was. A crash or a hang ends the
process.
"""

from __future__ import annotations

import faulthandler
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable

import golibx
from golibx import Chan, Event, Mutex, RWMutex, WaitGroup, _core, go, gosched, run, select, sleep

LIMIT = 60  # seconds that a run has
HOME = 10.0  # seconds that threads have to come home: no call of theirs blocks for longer than 0.03
EVERY = 10  # runs until they are waited for

most_left = 0
wrong: Counter[str] = Counter()
said: dict[str, int] = {}

# Used by all runs: what waits in them when a run ends is nothing to the next one.
ch: Chan[int] = Chan()
mutex = Mutex()
rwmutex = RWMutex()
event = Event()
rlock = threading.RLock()


def stubborn(rng: random.Random, depth: int) -> None:
    """Does some things, whatever is raised in it."""
    mine: Chan[int] = Chan(1)
    lock = threading.Lock()

    def held(some: object) -> None:
        with some:  # type: ignore[attr-defined]
            (sleep if rng.random() < 0.5 else time.sleep)(rng.random() * 0.004)

    def locked_to_its_thread() -> None:
        golibx.lock_os_thread()
        sleep(0.001)
        if rng.random() < 0.5:
            golibx.unlock_os_thread()

    doings: list[Callable[[], object]] = [
        lambda: time.sleep(rng.random() * 0.03),
        lambda: time.sleep(0),
        lambda: sleep(rng.random() * 0.004),
        gosched,
        lambda: sum(range(rng.randrange(60_000))),
        lambda: [gosched() for _ in range(50)],
        lambda: (mine.send(1), mine.recv()),
        ch.recv,
        lambda: ch.send(1),
        lambda: select(ch.on_recv(), mine.on_recv()),
        event.wait,
        lambda: held(lock),
        lambda: held(mutex),
        lambda: held(rwmutex.reader()),
        lambda: held(threading.RLock()),
        lambda: sorted(range(3), key=lambda n: (time.sleep(0.001), sleep(0.0005), n)[2]),
        locked_to_its_thread,
        lambda: threading.current_thread().name,
        lambda: go(stubborn, random.Random(rng.random()), depth + 1) if depth < 2 else None,
        lambda: go(int).result(),
        lambda: 1 // 0,
    ]
    for _ in range(rng.randrange(2, 10)):
        try:
            rng.choice(doings)()
        except BaseException:  # Cancelled above all
            pass


class Enough(Exception):
    """What the main goroutine raises where it does not return."""


def first(rng: random.Random, raises: bool) -> int:
    for _ in range(rng.randrange(1, 8)):
        go(stubborn, random.Random(rng.random()), 0)
    waits: list[Callable[[], object]] = [
        lambda: None,
        gosched,
        lambda: sleep(rng.random() * 0.003),
        lambda: time.sleep(rng.random() * 0.003),
        lambda: sum(range(50_000)),
    ]
    for _ in range(rng.randrange(3)):
        rng.choice(waits)()
    if raises:
        raise Enough
    return 5


def second() -> str:
    """What is not as in a run that is the only one there ever was."""
    if golibx.num_goroutine() != 1:
        return f"{golibx.num_goroutine()} goroutines at the beginning"
    if ch.try_send(7) or ch.try_recv() != (None, False):
        return "a goroutine is in the channel"
    # One that was given up may still do what need not wait: send to the receiver of `ch`.
    own: Chan[int] = Chan()
    waiter = go(own.recv)
    until = time.monotonic() + HOME
    while not own.try_send(7):  # it may have lost the processor before it waits
        if time.monotonic() > until:
            return "no goroutine receives"
        sleep(0.0001)
    if waiter.result() != 7:
        return "the channel does not work"
    group = WaitGroup()
    seen: list[int] = []
    for n in range(20):
        group.go(lambda n: (sleep(0.0002) if n % 2 else gosched(), seen.append(n)), n)
    group.wait()
    if sorted(seen) != list(range(20)):
        return "goroutines were not run, or twice"
    woken = go(event.wait)
    gosched()
    event.set()
    woken.result()
    event.clear()
    go(time.sleep, 0.0005).result()
    if golibx.num_goroutine() != 1:
        return f"{golibx.num_goroutine()} goroutines at the end"
    return ""


def threads() -> int:
    if sys.platform == "linux":
        return len(os.listdir("/proc/self/task"))
    return 0  # not known


def pair(seed: int) -> None:
    global most_left
    rng = random.Random(seed)
    timeout = rng.choice(["0ms", "1ms", "5ms", "20ms"])
    piece = rng.choice(["100us", "1ms", "10ms"])
    config = {"runtime": {"shutdown_timeout": timeout}, "preempt": {"slice": piece}}
    raises = rng.random() < 0.2
    result = "raised nothing"
    try:
        result = f"returned {run(first, rng, raises, config=config)}"
    except Enough:
        result = "raised"
    if result != ("raised" if raises else "returned 5"):
        note(f"the run {result}", seed)
    most_left = max(most_left, threads())
    if _core.active():
        note("a run is active after its end", seed)
    # A mutex that one of them holds for good is no fault of the others.
    while mutex.locked:
        mutex.unlock()
    if what := run(second, config=config):
        note(what, seed)


def note(what: str, seed: int) -> None:
    wrong[what] += 1
    said.setdefault(what, seed)


def main(count: int, limit: float, seed: int) -> int:
    until = time.monotonic() + limit
    run(second)
    runs = 0
    # Those that are given up are named there.
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        faulthandler.dump_traceback_later(LIMIT, exit=True, file=real)  # which is a thread
        at_first = threads()
        while runs < count and time.monotonic() < until:
            faulthandler.dump_traceback_later(LIMIT, exit=True, file=real)
            pair(seed + runs)
            runs += 1
            if runs % EVERY == 0:
                home = time.monotonic() + HOME
                while threads() > at_first and time.monotonic() < home:
                    time.sleep(0.001)
                if threads() > at_first:
                    note(f"{threads() - at_first} threads are not home", seed + runs - 1)
                    at_first = threads()
        os.dup2(real, 2)
        file.seek(0)
        named = file.read().count(b"\n")
    faulthandler.cancel_dump_traceback_later()
    print(
        f"{runs} ends, up to {most_left} threads after one, {named} warnings, wrong: {dict(wrong)}",
        flush=True,
    )
    for what, at in said.items():
        print(f"  {what}: first with seed {at}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(
        main(
            int(sys.argv[1]) if len(sys.argv) > 1 else 1000,
            float(sys.argv[2]) if len(sys.argv) > 2 else 600.0,
            int(sys.argv[3]) if len(sys.argv) > 3 else 0,
        )
    )
