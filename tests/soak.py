"""Soak: everything at once, for minutes, and nothing may grow, hang, crash or be wrong.

    python tests/soak.py                     ten minutes
    python tests/soak.py --seconds 60 --seed 7 --preempt 500us

Workers of many kinds (see WORKERS) each do small jobs with results that are known, over and over,
until the time is up. Preemption comes every millisecond, sysmon takes the lane back as early as it
can, and this file, as a plugin, watches all of it and compares with the scheduler's own counters.
Every ten seconds there is a line of progress.

Exits 1 if a result was wrong, if a goroutine died of an exception it was not meant to raise, or
if after the first minute something grew by more than LIMITS allow; 3, with every goroutine's stack,
after 20 seconds without progress.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import hashlib
import json
import os
import random
import re
import sys
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import golibx
from golibx import (
    Cancelled,
    Chan,
    DeadlineExceeded,
    Goroutine,
    WaitGroup,
    blocking,
    go,
    gosched,
    net,
    select,
    sleep,
)
from golibx.hookspec import (
    NetpollReady,
    Preempt,
    Retake,
    hookimpl,
)
from golibx.runtime import Runtime

REPORT_S = 10.0
LATE_EVENTS = 20
STALL_S = 20.0
HANG_EXIT = 3


class Sample(NamedTuple):
    """What must not grow."""

    rss_kib: int
    heap_kib: int
    goroutines: int
    threads: int
    fds: int
    objects: int


# How much the median of the last samples may be above that of the first ones after the warm-up.
# Work comes and goes, so single samples differ: spawn storms alone make goroutines come and go by
# the hundreds. A leak of one object in a thousand jobs grows without end and passes any of these
# within minutes: there are tens of thousands of jobs a second.
LIMITS = Sample(
    # What glibc's arenas have free goes on growing where threads allocate for each other, in a
    # program without golibx too; it is the heap in use that tells of leaks.
    rss_kib=24 * 1024,
    heap_kib=2 * 1024,
    goroutines=300,  # one storm
    threads=24,  # blocked at the moment of the sample
    fds=60,  # connections that are open at the moment of the sample
    objects=40_000,  # alive at the moment of the sample, garbage not yet collected
)
HIGHEST_THREADS = 400


class WrongResult(Exception):
    """A checked result was wrong."""


def check(actual: object, expected: object, what: str) -> None:
    """Raises WrongResult unless both are equal."""
    if actual != expected:
        raise WrongResult(f"{what}: {actual!r:.200} instead of {expected!r:.200}")


class Soak:
    """The state that workers and the reporter share.

    Attributes:
        jobs: how many jobs of each kind were done.
        failures: what went wrong, as text.
    """

    def __init__(self, seed: int, seconds: float) -> None:
        self.rng = random.Random(seed)
        self.jobs: Counter[str] = Counter()
        self.failures: list[str] = []
        self.samples: list[tuple[float, Sample]] = []
        self.began = time.monotonic()
        self.ends = self.began + seconds
        self.last_progress = self.began
        self.data = self.rng.randbytes(60_000)
        self.libc = ctypes.CDLL(None)
        self.listener = net.listen(("127.0.0.1", 0))
        self.port = int(self.listener.address[1])
        self.files = list_sources()

    @property
    def running(self) -> bool:
        """Whether there is time left and nothing has failed."""
        return time.monotonic() < self.ends and not self.failures

    def fail(self, text: str) -> None:
        """Notes a failure; the run ends soon."""
        self.failures.append(text)

    # ---- workers: each job takes milliseconds and checks its result ----

    def channels(self, rng: random.Random) -> None:
        """A pipeline of three stages over channels of random capacity."""
        n = rng.randrange(1, 100)
        first: Chan[int] = Chan(rng.choice([0, 1, 16]))
        second: Chan[int] = Chan(rng.choice([0, 1, 16]))

        def produce() -> None:
            for i in range(n):
                first.send(i)
            first.close()

        def square() -> None:
            for value in first:
                second.send(value * value)

        go(produce)
        group = WaitGroup()
        for _ in range(3):
            group.go(square)

        def finish() -> None:
            group.wait()
            second.close()

        go(finish)
        check(sum(second), sum(i * i for i in range(n)), "pipeline")

    def selects(self, rng: random.Random) -> None:
        """Select over several channels with time-outs; nothing is lost or seen twice."""
        n = rng.randrange(1, 40)
        sources: list[Chan[int]] = [Chan(rng.choice([0, 2])) for _ in range(4)]
        quit_: Chan[None] = Chan()

        def produce(which: int) -> None:
            for i in range(n):
                while True:
                    try:
                        sources[which].send(i * 4 + which, timeout=0.0003 * (1 + i % 4))
                        break
                    except DeadlineExceeded:
                        gosched()

        def stop_later() -> None:
            group.wait()
            quit_.close()

        group = WaitGroup()
        for which in range(4):
            group.go(produce, which)
        go(stop_later)
        got: list[int] = []
        cases = [s.on_recv() for s in sources] + [quit_.on_recv()]
        while True:
            try:
                index, value, _ = select(*cases, timeout=0.001)
            except DeadlineExceeded:
                continue
            if index == 4:
                break
            got.append(value)
        # Each producer's last value may be in a buffer still.
        for source in sources:
            source.close()
            got += source
        check(sorted(got), list(range(4 * n)), "select")

    def blocks(self, rng: random.Random) -> None:
        """Calls that block, most of them unknown to golibx."""
        kind = rng.randrange(6)
        if kind == 0:
            time.sleep(rng.random() * 0.003)
        elif kind == 1:
            self.libc.usleep(rng.randrange(2000))
        elif kind == 2:
            check(zlib.decompress(zlib.compress(self.data, 1)) == self.data, True, "zlib")
        elif kind == 3:
            blocking(time.sleep, rng.random() * 0.002)
        elif kind == 4:
            hashlib.sha256(self.data).digest()
        else:
            read_end, write_end = os.pipe()
            try:
                writer = go(self._write_later, write_end, rng.random() * 0.002)
                check(os.read(read_end, 1), b"x", "pipe")
                check(writer.result(), 1, "pipe write")
            finally:
                os.close(read_end)
                os.close(write_end)

    def _write_later(self, fd: int, delay: float) -> int:
        sleep(delay)
        return os.write(fd, b"x")

    def computes(self, rng: random.Random) -> None:
        """Pure Python for several slices."""
        n = rng.randrange(2_000, 60_000)
        total = 0
        for i in range(n):
            total += i & 7
        check(total, sum(i & 7 for i in range(n)), "loop")

    def callbacks(self, rng: random.Random) -> None:
        """Parking below C code."""
        values = [rng.randrange(1000) for _ in range(50)]

        def key(value: int) -> int:
            if value % 5 == 0:
                gosched()
            return value

        check(sorted(values, key=key), sorted(values), "sorted")

        def double(match: re.Match[str]) -> str:
            sleep(0.00005)
            return str(2 * int(match[0]))

        check(re.sub(r"\d+", double, "1 2 3"), "2 4 6", "re.sub")

        def hook(pairs: list[tuple[str, object]]) -> int:
            gosched()
            return len(pairs)

        check(json.loads('{"a": {"b": 1}, "c": 2}', object_pairs_hook=hook), 2, "json")

    def storms(self, rng: random.Random) -> None:
        """Hundreds of goroutines at once, some with names, some that raise."""
        n = rng.randrange(10, 250)

        def work(i: int) -> int:
            if i % 3 == 0:
                gosched()
            if i % 7 == 0:
                raise KeyError(i)
            return i

        goroutines = [go(work, i) for i in range(n)]
        total = 0
        errors = 0
        for goroutine in goroutines:
            try:
                total += goroutine.result()
            except KeyError:
                errors += 1
        check(errors, len(range(0, n, 7)), "exceptions")
        check(total, sum(i for i in range(n) if i % 7), "results")

    def cancels(self, rng: random.Random) -> None:
        """Cancellation at a random moment of a random wait; finally blocks run, once."""
        never: Chan[int] = Chan()
        begun: list[int] = []
        ended: list[int] = []
        group = WaitGroup()

        def nap() -> None:
            while True:
                sleep(0.0005)

        def compute() -> None:
            while True:
                sum(range(1000))
                gosched()

        def block() -> None:
            while True:
                time.sleep(0.0003)
                gosched()

        waits: list[Callable[[], object]] = [
            nap,
            compute,
            block,
            never.recv,
            lambda: never.recv(timeout=30),
            lambda: select(never.on_recv(), never.on_recv(), timeout=30),
            lambda: select(),
            lambda: group.wait(),
            lambda: go(sleep, 0.01).join(),
        ]

        def victim(i: int) -> None:
            begun.append(i)
            try:
                waits[i % len(waits)]()
                if i % len(waits) == len(waits) - 1:
                    never.recv()
            finally:
                gosched()
                ended.append(i)

        group.add()
        n = rng.randrange(1, 30)
        offset = rng.randrange(len(waits))
        victims = [go(victim, i + offset) for i in range(n)]
        sleep(rng.random() * 0.003)
        rng.shuffle(victims)
        for one in victims:
            one.cancel()
            if rng.random() < 0.2:
                gosched()
        for one in victims:
            try:
                one.result()
            except Cancelled:
                continue
            raise WrongResult("a cancelled goroutine returned")
        # Those that were cancelled before their first turn never began.
        check(sorted(ended), sorted(begun), "finally blocks")
        group.done()

    def deadlines(self, rng: random.Random) -> None:
        """Every wait with a time-out ends in time, give or take a busy machine."""
        channel: Chan[int] = Chan()
        timeout = rng.random() * 0.01
        began = time.monotonic()
        try:
            (channel.recv if rng.random() < 0.5 else lambda **k: channel.send(1, **k))(
                timeout=timeout
            )
        except DeadlineExceeded:
            check(time.monotonic() - began >= timeout, True, "not too early")
        else:
            raise WrongResult("no goroutine could have answered")
        napper = go(sleep, 0.002)
        napper.join(timeout=rng.random() * 0.004)
        check(napper.join(), True, "join")
        with_timeout = WaitGroup()
        with_timeout.add()
        check(with_timeout.wait(timeout=0.0005), False, "WaitGroup")

    def sockets(self, rng: random.Random) -> None:
        """Echo over loopback; some connections are closed while goroutines use them."""
        with net.dial(("127.0.0.1", self.port), timeout=10) as conn:
            conn.settimeout(10)
            for _ in range(rng.randrange(1, 8)):
                text = rng.choice(self.files)[: rng.randrange(1, 30_000)]
                message = len(text).to_bytes(4, "big") + text
                sender = go(conn.sendall, message)
                reply = bytearray()
                while len(reply) < len(message):
                    part = conn.recv(65536)
                    check(bool(part), True, "the server is there")
                    reply += part
                check(bytes(reply) == message, True, "echo")
                sender.result()
            if rng.random() < 0.3:
                self._close_midway(conn, rng)

    def _close_midway(self, conn: net.Conn, rng: random.Random) -> None:
        def read() -> str:
            try:
                while conn.recv(1000):
                    pass
            except OSError as exc:
                return type(exc).__name__
            return "end"

        conn.settimeout(None)
        reader = go(read)
        sleep(rng.random() * 0.002)
        if rng.random() < 0.5:
            conn.close()
        else:
            reader.cancel()
        try:
            check(
                reader.result(timeout=10) in ("OSError", "end"),
                True,
                "reader of a closed connection",
            )
        except Cancelled:
            pass

    def serve_connection(self, conn: net.Conn) -> None:
        """The server's side of `sockets`."""
        try:
            with conn:
                while part := conn.recv(4096):
                    conn.sendall(part)
        except OSError:
            pass  # the client went away

    def garbage(self, rng: random.Random) -> None:
        """Cycles with finalizers that park."""
        ended: list[int] = []

        class Node:
            def __init__(self, number: int) -> None:
                self.number = number
                self.me = self

            def __del__(self) -> None:
                ended.append(self.number)
                try:
                    gosched()
                except Cancelled:
                    # Meant for the goroutine in which the collector happens to run.
                    me = golibx.current()
                    assert me is not None
                    me.cancel()

        n = rng.randrange(1, 20)
        for i in range(n):
            Node(i)
        until = time.monotonic() + 15
        while len(ended) < n and time.monotonic() < until:
            gc.collect(rng.choice([0, 1, 2]))
            sleep(0.001)
        check(sorted(ended), list(range(n)), "finalizers")

    # ---- the whole ----

    def work(self, kind: str, seed: int) -> None:
        """One worker, for as long as the run lasts."""
        job: Callable[[random.Random], None] = getattr(self, kind)
        rng = random.Random(seed)
        while self.running:
            try:
                job(rng)
            except Exception:
                self.fail(f"{kind}:\n{traceback.format_exc()}")
                return
            self.jobs[kind] += 1
            if rng.random() < 0.3:
                sleep(rng.random() * 0.002)

    def main(self) -> None:
        """The main goroutine."""
        server = go(net.serve, self.serve_connection, self.listener)
        workers: list[Goroutine[None]] = []
        for kind, count in WORKERS.items():
            for _ in range(count):
                workers.append(go(self.work, kind, self.rng.getrandbits(32)))
        while self.running:
            sleep(min(REPORT_S, max(0.01, self.ends - time.monotonic())))
            self.report()
        for worker in workers:
            if not worker.join(timeout=STALL_S):
                self.fail(f"{worker!r} did not end")
        self.listener.close()
        server.result(timeout=10)
        until = time.monotonic() + STALL_S / 2
        while golibx.num_goroutine() > 1 and time.monotonic() < until:
            sleep(0.01)
        if golibx.num_goroutine() > 1:
            self.fail(f"goroutines are left at the end:\n{golibx.stacks()}")

    def report(self) -> None:
        """Takes a sample and prints a line."""
        sample = take_sample()
        elapsed = time.monotonic() - self.began
        self.samples.append((elapsed, sample))
        s = golibx.stats()
        print(
            f"{elapsed:6.0f} s  jobs {self.jobs.total():7}  goroutines {sample.goroutines:4}"
            f"  threads {sample.threads:3}  RSS {sample.rss_kib // 1024:4} MiB"
            f"  heap {sample.heap_kib:6} KiB  fds {sample.fds:3}"
            f"  objects {sample.objects:6}  switches {s['switches']:9}"
            f"  preemptions {s['preemptions']:6}  retakes {s['retakes']:6}"
            f" (in vain {s['retakes_in_vain']:5})  handoffs {s['handoffs']:4}"
            f"  polls {s['netpolls']:7}",
            flush=True,
        )

    def watch(self, finished: threading.Event) -> None:
        """The watchdog, a thread outside of the runtime."""
        seen = -1
        while not finished.wait(1.0):
            if self.jobs.total() != seen:
                seen = self.jobs.total()
                self.last_progress = time.monotonic()
                faulthandler.dump_traceback_later(STALL_S + 30, exit=True)
            elif time.monotonic() - self.last_progress > STALL_S:
                print(f"soak: no progress for {STALL_S:g} s", file=sys.stderr, flush=True)
                print(golibx.stacks(system=True), golibx.stats(), file=sys.stderr, flush=True)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(HANG_EXIT)
        faulthandler.cancel_dump_traceback_later()


# Goroutines of each kind.
WORKERS = {
    "channels": 12,
    "selects": 8,
    "blocks": 12,
    "computes": 4,
    "callbacks": 12,
    "storms": 3,
    "cancels": 6,
    "deadlines": 12,
    "sockets": 16,
    "garbage": 2,
}


def list_sources() -> list[bytes]:
    """Texts to send: some of the standard library's own."""
    folder = os.path.dirname(os.__file__)
    names = ("os.py", "re/__init__.py", "json/decoder.py", "inspect.py", "typing.py")
    sources = []
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            sources.append(file.read())
    return sources


class MallInfo(ctypes.Structure):
    """What mallinfo2() of glibc 2.33 and later returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def heap_in_use() -> int:
    """Bytes that malloc() has given out, in all arenas; 0 where that is not known."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = MallInfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def take_sample() -> Sample:
    """What the process holds now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return Sample(
        rss_kib=pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        heap_kib=heap_in_use() // 1024,
        goroutines=golibx.num_goroutine(),
        threads=len(os.listdir("/proc/self/task")),
        fds=len(os.listdir("/proc/self/fd")),
        objects=len(gc.get_objects()),
    )


def median(samples: list[Sample]) -> Sample:
    """Field by field."""
    return Sample(*(sorted(column)[len(column) // 2] for column in zip(*samples, strict=True)))


def growth(samples: list[tuple[float, Sample]]) -> list[str]:
    """What grew too much after the first minute (of a shorter run: after its first half)."""
    if len(samples) < 4:
        return []
    warm_s = min(60.0, samples[-1][0] / 2)
    warm = [sample for elapsed, sample in samples if elapsed >= warm_s]
    part = max(1, len(warm) // 4)
    first, last = median(warm[:part]), median(warm[-part:])
    grown = [
        f"{name} grew from {a} to {b} (at most {limit} more are expected)"
        for name, a, b, limit in zip(Sample._fields, first, last, LIMITS, strict=True)
        if b - a > limit
    ]
    most = max(sample.threads for _, sample in samples)
    if most > HIGHEST_THREADS:
        grown.append(
            f"there were {most} threads at one time (at most {HIGHEST_THREADS} are expected)"
        )
    return grown


witnesses: list[Plugin] = []


class Plugin:
    """Sees what the scheduler does. Python imports this file a second time for it, beside __main__.

    Not starts and ends: ten thousand a second would be most of the work.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.seen: Counter[str] = Counter()
        sys.modules["__main__"].witnesses.append(self)  # type: ignore[attr-defined]

    @hookimpl
    def on_preempt(self, event: Preempt) -> None:
        """Counts both ways."""
        self.seen["handoffs" if event.handed_off else "preemptions"] += 1

    @hookimpl
    def on_retake(self, event: Retake) -> None:
        """Counts."""
        self.seen["retakes"] += 1

    @hookimpl
    def on_netpoll_ready(self, event: NetpollReady) -> None:
        """Counts."""
        self.seen["ready sockets"] += 1

    @hookimpl
    def golib_stop(self, runtime: Runtime) -> None:
        """Compares with the counters, which may have gone on since the last event was delivered."""
        stats = runtime.stats()
        self.seen["dropped"] = stats["events_dropped"]
        if stats["events_dropped"]:
            self.problems.append(f"{stats['events_dropped']} events were dropped")
        for name in ("preemptions", "handoffs", "retakes"):
            if not stats[name] - LATE_EVENTS <= self.seen[name] <= stats[name]:
                self.problems.append(f"{self.seen[name]} events, {stats[name]} {name}")


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Soak test of the golibx scheduler.")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default: 600)")
    parser.add_argument("--seed", type=int, default=1, help="of the workers' choices")
    parser.add_argument("--preempt", default="1ms", help="preemption's slice (default: 1ms)")
    parser.add_argument("--retake", default="20us", help="retake's threshold (default: 20us)")
    options = parser.parse_args()
    faulthandler.enable()
    config = {
        "runtime": {"seed": options.seed},
        "preempt": {"slice": options.preempt},
        "retake": {"threshold": options.retake},
        "plugins": {"enabled": [os.path.abspath(__file__)]},
    }
    finished = threading.Event()
    soaks: list[Soak] = []

    def body() -> None:
        soak = Soak(options.seed, options.seconds)
        soaks.append(soak)
        threading.Thread(target=soak.watch, args=(finished,), daemon=True).start()
        soak.main()

    golibx.run(body, config=config)
    finished.set()
    soak = soaks[0]
    print(", ".join(f"{kind} {count}" for kind, count in sorted(soak.jobs.items())))
    [witness] = witnesses
    print(", ".join(f"{kind} {count}" for kind, count in sorted(witness.seen.items())))
    problems = soak.failures + growth(soak.samples) + witness.problems
    for problem in problems:
        print(f"FAILED {problem}")
    if not problems:
        print(f"soak: {soak.jobs.total()} jobs, nothing wrong, nothing grew")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
