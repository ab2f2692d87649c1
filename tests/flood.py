"""Events of both lanes as fast as they can be made: `python flood.py [SECONDS [LIBRARY]]`.

Two C functions start goroutines that end at once, on as many processors as there are, and Python
goroutines do the same beside them: three events for each, none of another kind. A plugin takes all
that is delivered. For each lane, what arrives and what the runtime has counted as dropped has to be
what was sent, neither more nor less; what arrives has to be in the order of its times, and a
goroutine's in the order of its life; and the memory that is used must not grow after the first
second. Prints what it has counted, and exits with 1 if something is wrong.

LIBRARY is tests/native/python/functions.c, compiled; without it that is done here.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import golibx
from golibx import WaitGroup, go, include, native, sleep, stats
from golibx.config import Config
from golibx.eventbatch import KINDS, LANES, EventBatch
from golibx.hookspec import hookimpl
from golibx.runtime import Runtime
from golibx.testing import wait_until

SOURCE = Path(__file__).resolve().parent / "native" / "python" / "functions.c"
TAKES = ("on_goroutine_create", "on_goroutine_start", "on_goroutine_exit")
CREATE, EXIT = KINDS["on_goroutine_create"], KINDS["on_goroutine_exit"]
RING_SIZE = 16_384
MOST_GROWN_KIB = 16 * 1024
"""The rings are 32 bytes an event: of 50 million events, not held back, 1.6 GB."""
AT_ONCE = 20_000
LOOKED_AT = 16
"""One batch in so many is looked at closely: that takes longer than to make it."""

wrong: list[str] = []


class Taker:
    """The plugin."""

    takes = TAKES

    def __init__(self) -> None:
        self.arrived: Counter[str] = Counter()
        self.last_ns = 0
        self.batches = 0
        self.stats: dict[str, int] = {}

    @hookimpl
    def take_events(self, batch: EventBatch) -> None:
        if batch.first_ns < self.last_ns:
            wrong.append(f"a batch begins {self.last_ns - batch.first_ns} ns before the last one")
        self.last_ns = batch.last_ns
        lanes = batch.data[29 :: EventBatch.RECORD.size]
        natives = lanes.count(1)
        self.arrived["native"] += natives
        self.arrived["python"] += len(lanes) - natives
        times = memoryview(batch.data).cast("Q")[::4].tolist()
        if times != sorted(times):
            wrong.append("the events of a batch are not in the order of their times")
        self.batches += 1
        if self.batches % LOOKED_AT == 0:
            self.look_closely(batch)

    def look_closely(self, batch: EventBatch) -> None:
        """A goroutine is created, started and ended in that order, and each once."""
        lives: dict[tuple[int, int], int] = {}
        for _, number, _, _, kind, lane in EventBatch.RECORD.iter_unpack(batch.data):
            if lives.get((lane, number), -1) >= kind:
                wrong.append(f"a {LANES[lane]} goroutine has {kind} after {lives[lane, number]}")
            lives[lane, number] = kind
            if not CREATE <= kind <= EXIT:
                wrong.append(f"an event of a kind {kind} that is not wanted")

    @hookimpl
    def golib_stop(self, runtime: Runtime) -> None:
        self.stats = runtime.stats()


def resident_kib() -> int:
    """What the process has in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def compiled(folder: str) -> str:
    """The C functions as a library."""
    zig = [sys.executable, "-m", "ziglang"] if find_spec("ziglang") else []
    path = os.path.join(folder, "functions.so")
    command = [*zig, "cc", "-std=c11", "-O2", "-shared", "-fPIC", str(SOURCE), "-o", path]
    subprocess.run([*command, *include.cflags(), *include.libs()], check=True)
    return path


class Flood:
    """Sends, and counts what it has sent."""

    def __init__(self, seconds: float, library: str) -> None:
        self.start_many = ctypes.CDLL(library).start_many
        self.seconds = seconds
        self.sent: Counter[str] = Counter()
        self.memory: list[int] = []
        self.lasted = 0.0

    def natives(self) -> None:
        while time.monotonic() < self.ends:
            native.call(self.start_many, AT_ONCE)
            self.sent["native"] += 3 * (AT_ONCE + 1)  # and the one that the call is made in

    def pythons(self) -> None:
        while time.monotonic() < self.ends:
            group = WaitGroup()
            for _ in range(100):
                group.go(int)
            group.wait()
            self.sent["python"] += 3 * 100
            sleep(0.0001)

    def main(self) -> None:
        began = time.monotonic()
        self.ends = began + self.seconds
        flooding = [go(self.natives), go(self.natives), go(self.pythons)]
        self.sent["python"] += 3 * len(flooding)
        while time.monotonic() < self.ends:
            sleep(min(0.1, self.seconds / 10))
            self.memory.append(resident_kib())
        for each in flooding:
            each.join()
        self.lasted = time.monotonic() - began
        # A call returns a little before the goroutine that it was made in has ended.
        wait_until(lambda: stats()["native_goroutines"] == 0)


def check(flood: Flood, taker: Taker) -> None:
    """Compares what was sent with what has become of it."""
    natives_dropped = taker.stats["native_events_dropped"]
    dropped = {
        "native": natives_dropped,
        "python": taker.stats["events_dropped"] - natives_dropped,
    }
    for lane, sent in flood.sent.items():
        arrived = taker.arrived[lane]
        print(f"{lane}: {sent} sent, {arrived} arrived, {dropped[lane]} dropped")
        if arrived + dropped[lane] != sent:
            wrong.append(f"of the {lane} lane {sent - arrived - dropped[lane]} are missing")
        if not arrived:
            wrong.append(f"none of the {lane} lane arrived")
    warm = flood.memory[len(flood.memory) // 10 :]
    grown = max(warm) - warm[0]
    rate = sum(flood.sent.values()) / flood.lasted / 1e6
    print(f"{rate:.1f} million a second for {flood.lasted:.1f} s; {grown} KiB more memory")
    if grown > MOST_GROWN_KIB:
        wrong.append(f"{grown} KiB more memory than after the first tenth")


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    taker: Any = Taker()
    sys.modules["flooded"] = SimpleNamespace(taker=taker)  # type: ignore[assignment]
    options = ["plugins.enabled=flooded:taker", f"hooks.ring_size={RING_SIZE}"]
    config = Config.load(environ={}, overrides=options)
    with tempfile.TemporaryDirectory() as folder:
        library = sys.argv[2] if len(sys.argv) > 2 else compiled(folder)
        flood = Flood(seconds, library)
        golibx.run(flood.main, config=config)
    check(flood, taker)
    for text, times in Counter(wrong).items():
        print(f"wrong, {times} times: {text}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
