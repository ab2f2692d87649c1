"""Forks beside busy goroutines: `python forks.py [how many] [seconds at most]`.

Goroutines of all kinds keep the lane busy while others fork, from goroutines, the main one and
threads. Each child does one of a number of things and ends; what it writes and its status are
compared with what they have to be. Prints what was wrong, and exits with 1 if something was.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import golibx
from golibx import Chan, go, gosched, run, sleep

PARENT = os.getpid()
LIMIT = 30  # seconds that a child has
done = False
lock: threading.RLock  # made in the run


class Quiet(logging.Handler):
    """No file: in plain Python, too, a child may find the lock of its buffer held."""

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


logging.basicConfig(handlers=[Quiet()])
logger = logging.getLogger("forks")


def threads_begin() -> None:
    for g in [go(golibx.lock_os_thread) for _ in range(5)]:
        g.join()


def other(n: int) -> None:
    """One that is busy in the parent, and must not be seen in a child."""
    ch: Chan[int] = Chan(1)
    turns: list[Callable[[], object]] = [
        gosched,
        lambda: sleep(0.0001),
        lambda: time.sleep(0.0001),
        lambda: (ch.send(1), ch.recv()),
        lambda: sum(range(3000)),
        lambda: logger.warning("busy"),
        lambda: __import__("colorsys"),
        gc.collect,
        threads_begin,
    ]
    while not done:
        if os.getpid() != PARENT:
            os.write(2, b"another goroutine runs in the child\n")
            os._exit(97)
        turns[n % len(turns)]()
        if n % len(turns) == 6:
            sys.modules.pop("colorsys", None)


# ---- what children do: the status that each is to end with ----


def leave() -> int:
    os._exit(7)


def end() -> int:
    return 0


def quit_() -> int:
    sys.exit(3)


def anew() -> int:
    os._exit(run(lambda: go(lambda: 5).result()))


def imports() -> int:
    import colorsys
    import wave

    os._exit(4 if colorsys and wave else 1)


def threads() -> int:
    seen: list[int] = []
    thread = threading.Thread(target=seen.append, args=(6,))
    thread.start()
    thread.join()
    os._exit(*seen)


def locks() -> int:
    with lock:
        logger.warning("child")
    os._exit(8)


def again() -> int:
    if (pid := os.fork()) == 0:
        os._exit(9)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


KINDS: list[tuple[Callable[[], int], int]] = [
    (leave, 7),
    (end, 0),
    (quit_, 3),
    (anew, 5),
    (imports, 4),
    (threads, 6),
    (locks, 8),
    (again, 9),
]
wrong: Counter[str] = Counter()
forks = 0


def fork(kinds: list[tuple[Callable[[], int], int]]) -> bool:
    """Forks once. True in a child that is to return."""
    global forks
    forks += 1
    kind, status = kinds[forks % len(kinds)]
    read_end, write_end = os.pipe()
    with lock:
        pid = os.fork()
        if pid == 0:
            wrong.clear()  # the status of one that returns would be of its parent's others
            signal.alarm(LIMIT)
            os.write(write_end, b"x")
            kind()
            return True
        if os.getpid() != PARENT:
            os.write(2, b"the parent's branch runs in the child\n")
            os._exit(98)
    os.close(write_end)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    text = b""
    while piece := os.read(read_end, 100):
        text += piece
    os.close(read_end)
    if (ended, text) != (status, b"x"):
        wrong[f"{kind.__name__} {ended} {text!r}"] += 1
    return False


def forker(count: int, kinds: list[tuple[Callable[[], int], int]], until: float) -> None:
    while forks < count and time.monotonic() < until:
        if fork(kinds):
            return
        if random.random() < 0.3:
            gosched() if golibx.current() else time.sleep(0)


def main(count: int, limit: float) -> None:
    global done, lock
    lock = threading.RLock()
    until = time.monotonic() + limit
    for n in range(10):
        go(other, n)
    goroutines = [go(forker, count, KINDS, until) for _ in range(3)]
    # A thread that runs no goroutine: sys.exit() is no more than the thread's.
    in_thread = [(kind, 0 if kind is quit_ else status) for kind, status in KINDS]
    thread = threading.Thread(target=forker, args=(count, in_thread, until))
    thread.start()
    forker(count, KINDS, until)
    if os.getpid() != PARENT:
        return
    for g in goroutines:
        g.join()
    thread.join()
    done = True
    print(forks, "forks", dict(wrong), flush=True)


if __name__ == "__main__":
    import faulthandler
    import warnings

    faulthandler.cancel_dump_traceback_later()  # a child would wait for its thread
    faulthandler.register(signal.SIGALRM, chain=True)  # where it hangs
    warnings.simplefilter("ignore")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    limit = float(sys.argv[2]) if len(sys.argv) > 2 else 3600.0
    run(main, count, limit, config={"preempt": {"slice": "100us"}})
    sys.exit(1 if wrong else 0)
