"""What a program has beside its tasks: a thread that computes, one that blocks in C, a clock.

    beside.run(task)                                   100 threads call task(number)
    python -m beside PACKAGE ARGUMENTS                 the package's own command, with those beside

Neither knows of golibx. What `run` prints is the same each time that nothing is lost and nothing
stands still: the results in the order of their numbers, and what the others did meanwhile.
"""

import ctypes
import os
import runpy
import sys
import threading
import time
import traceback

TASKS = 100
WORD = b"released"


class Beside:
    """The three threads, from `with` to its end."""

    def __init__(self):
        self.turns = 0  # of the thread that computes
        self.ticks = 0  # of the one that sleeps again and again
        self.returned = None  # by the blocked call
        self._stopping = False
        self._reader, self._writer = os.pipe()
        self._threads = [
            threading.Thread(target=target, name=target.__name__, daemon=True)
            for target in (self.compute, self.block, self.tick)
        ]

    def compute(self):
        while not self._stopping:
            for _ in range(1000):
                pass
            self.turns += 1

    def tick(self):
        while not self._stopping:
            time.sleep(0.002)
            self.ticks += 1

    def block(self):
        """In read(2) itself, which no code has replaced."""
        buffer = ctypes.create_string_buffer(len(WORD))
        count = -1
        while count < 0:  # again where a signal has ended it, as C libraries do
            count = ctypes.CDLL(None).read(self._reader, buffer, len(WORD))
        self.returned = buffer.raw[:count]

    def start(self):
        for thread in self._threads:
            thread.start()
        while not (self.turns and self.ticks):
            time.sleep(0.001)
        return self

    def stop(self):
        """Returns what the blocked call has returned: once it was let go, and not before."""
        early = self.returned
        os.write(self._writer, WORD)
        self._stopping = True
        for thread in self._threads:
            thread.join()
        os.close(self._reader)
        os.close(self._writer)
        return early, self.returned

    def state(self):
        return self.turns, self.ticks


def run(task, count=TASKS, held=True, calls=1):
    """Has as many threads call task(number), and prints what came of it.

    held: each call takes long enough that the others must have gone on in it; otherwise they must
        have in all of them together.
    calls: so often at most it is called, until they have: where it waits in C for a while, which
        a busy machine may take from all others.
    """
    results = [None] * count
    stood_still = []
    beside = Beside().start()
    begin = threading.Barrier(count)

    def call(number):
        begin.wait()
        turns, ticks = beside.state()
        for _ in range(calls):
            try:
                results[number] = task(number)
            except BaseException:
                results[number] = traceback.format_exc()
            if beside.turns > turns and beside.ticks > ticks:
                return
        if held:
            stood_still.append(number)

    turns, ticks = beside.state()
    threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not (beside.turns > turns and beside.ticks > ticks):
        stood_still.append("all")
    returned = beside.stop()
    for number, result in enumerate(results):
        print(number, result)
    print("stood still in", sorted(stood_still, key=str))
    print("the blocked call returned", *returned)


if __name__ == "__main__":
    others = Beside().start()
    begin = others.state()
    del sys.argv[0]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        went_on = [now > before for now, before in zip(others.state(), begin, strict=True)]
        print("went on", went_on, "the blocked call returned", *others.stop(), file=sys.stderr)
