"""Migration torture: goroutines that give way in the middle of C code, on a lane that never rests.

Python code is called back from the middle of sort, re, json, dict, the collector, the import
system, ctypes … In each case here hundreds of goroutines park inside such callbacks while "movers"
block in calls that nothing patched, so that sysmon hands the lane from thread to thread thousands
of times. A goroutine thus goes on, with half a C call still on its stack, on another thread than
the one it began on. Each case checks its results exactly.

    python tests/torture.py                  all cases, one run of the scheduler each
    python tests/torture.py --case re_sub    one case
    python tests/torture.py --list           what there is

Exits 0 if every result was right and, in a full run, enough moves were seen; 1 otherwise; 3 after a
hang, with every goroutine's stack on stderr.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import contextvars
import copy
import csv
import ctypes
import decimal
import faulthandler
import functools
import gc
import hashlib
import heapq
import io
import itertools
import json
import os
import pickle
import random
import re
import sys
import tempfile
import threading
import time
import traceback
import types
import weakref
import xml.parsers.expat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import golibx
from golibx import Chan, Goroutine, blocking, go, gosched, sleep

T = TypeVar("T")
Case = Callable[["Torture"], None]

# sysmon looks every 20 us and takes the lane at the second look: the most moves there can be.
CONFIG: dict[str, object] = {
    "sysmon": {"sleep_min": "20us", "sleep_max": "20us"},
    "preempt": {"slice": "1ms"},
    "retake": {"threshold": "20us", "threshold_idle": "20us"},
}

HANG_EXIT = 3
BLOCK_S = 0.0004

CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    """Adds a case; its name is the function's."""
    CASES[function.__name__] = function
    return function


def check(actual: object, expected: object, what: str = "") -> None:
    """Fails the case unless both are equal."""
    if actual != expected:
        raise AssertionError(f"{what or 'result'}: {actual!r:.200} instead of {expected!r:.200}")


class Torture:
    """What a case works with: ways to park, goroutines that move the lane, counters.

    Attributes:
        scale: how much work a case does, 1.0 for the normal amount.
        pauses: how often a goroutine gave way.
        moves: how often it found itself on another thread afterwards.
    """

    def __init__(self, scale: float, rng: random.Random) -> None:
        self.scale = scale
        self.rng = rng
        self.pauses = 0
        self.moves = 0
        self._stopping = False
        self._bounded: Chan[int] = Chan(8)
        self._echo: Chan[tuple[Chan[int], int]] = Chan()
        self._data = rng.randbytes(40_000)
        self._libc = ctypes.CDLL(None)

    def count(self, normal: int) -> int:
        """`normal`, scaled, at least 2."""
        return max(2, int(normal * self.scale))

    # ---- goroutines ----

    def each(self, count: int, work: Callable[[int], T]) -> list[T]:
        """The results of work(0) … work(count - 1), each in a goroutine of its own."""
        goroutines = [go(work, i) for i in range(count)]
        return [g.result() for g in goroutines]

    def run(self, body: Case) -> dict[str, int]:
        """The main goroutine: a case with its movers. Returns the scheduler's counters."""
        helpers: list[Goroutine[None]] = [go(self._serve_echo) for _ in range(2)]
        helpers += [go(self._move, i) for i in range(4)]
        read_end, write_end = os.pipe()
        helpers += [go(self._read_pipe, read_end), go(self._write_pipe, write_end)]
        try:
            body(self)
        finally:
            self._stopping = True
            self._echo.close()
        for helper in helpers:
            helper.result(timeout=30)
        os.close(read_end)
        counters = golibx.stats()
        check(golibx.num_goroutine(), 1, "goroutines at the end")
        check(counters["runq"], 0, "runnable goroutines at the end")
        return counters

    def _serve_echo(self) -> None:
        for reply, value in self._echo:
            reply.send(value)

    def _move(self, i: int) -> None:
        while not self._stopping:
            self.block(i)
            sleep(0.0005)

    def _read_pipe(self, fd: int) -> None:
        while os.read(fd, 1):
            gosched()

    def _write_pipe(self, fd: int) -> None:
        try:
            while not self._stopping:
                os.write(fd, b"x")
                sleep(0.001)
        finally:
            os.close(fd)

    # ---- giving way ----

    def block(self, kind: int | None = None) -> None:
        """A short call that leaves the interpreter, and that golibx is not told of but for one."""
        kind = random.randrange(5) if kind is None else kind
        if kind == 0:
            time.sleep(BLOCK_S)
        elif kind == 1:
            self._libc.usleep(int(BLOCK_S * 1e6))
        elif kind == 2:
            zlib.compress(self._data, 1)
        elif kind == 3:
            blocking(time.sleep, BLOCK_S)
        else:
            hashlib.sha256(self._data).digest()

    def pause(self) -> None:
        """Gives way, in one way or another."""
        thread = threading.get_native_id()
        way = random.random()
        if way < 0.6:
            gosched()
        elif way < 0.75:
            self._bounded.send(1)
            self._bounded.recv()
        elif way < 0.9:
            reply: Chan[int] = Chan()
            token = id(reply)
            self._echo.send((reply, token))
            check(reply.recv(), token, "echo")
        elif way < 0.97:
            sleep(0.0001)
        elif way < 0.98:
            check(go(abs, -3).result(), 3, "goroutine in a callback")
        else:
            self.block()
        self.pauses += 1
        self.moves += thread != threading.get_native_id()

    def pauses_now(self) -> None:
        """Gives way now and then: for callbacks that come very often."""
        if random.random() < 0.1:
            self.pause()


# ---- callbacks of C code ----


@case
def sort(t: Torture) -> None:
    def work(i: int) -> None:
        values = [random.Random(i).randrange(1000) for _ in range(60)]

        def key(value: int) -> int:
            t.pauses_now()
            return -value

        def compare(a: int, b: int) -> int:
            t.pauses_now()
            return a - b

        wanted = sorted(values)
        mine = list(values)
        mine.sort(key=key)
        check(mine, wanted[::-1], "list.sort(key)")
        check(sorted(values, key=functools.cmp_to_key(compare)), wanted, "sorted(cmp)")
        check(sorted(values, key=key, reverse=True), wanted, "sorted(key, reverse)")

    t.each(t.count(200), work)


@case
def re_sub(t: Torture) -> None:
    pattern = re.compile(r"\d+")

    def work(i: int) -> None:
        def double(match: re.Match[str]) -> str:
            t.pause()
            return str(2 * int(match[0]))

        text = " ".join(str(i + k) for k in range(20))
        wanted = " ".join(str(2 * (i + k)) for k in range(20))
        check(pattern.sub(double, text), wanted)

    t.each(t.count(300), work)


@case
def json_hooks(t: Torture) -> None:
    class Point:
        def __init__(self, x: int, y: int) -> None:
            self.x, self.y = x, y

    def work(i: int) -> None:
        def default(value: Any) -> Any:
            t.pause()
            return {"x": value.x, "y": value.y}

        def object_hook(d: dict[str, Any]) -> Any:
            t.pause()
            return (d["x"], d["y"]) if "x" in d else d

        text = json.dumps({"points": [Point(i, k) for k in range(10)]}, default=default)
        check(json.loads(text, object_hook=object_hook), {"points": [(i, k) for k in range(10)]})

    t.each(t.count(300), work)


@case
def dict_keys(t: Torture) -> None:
    class Key:
        def __init__(self, value: int) -> None:
            self.value = value

        def __hash__(self) -> int:
            t.pauses_now()
            return self.value % 7

        def __eq__(self, other: object) -> bool:
            t.pauses_now()
            return isinstance(other, Key) and self.value == other.value

    def work(i: int) -> None:
        table = {Key(k): k + i for k in range(30)}
        check(len(table), 30, "distinct keys")
        for k in range(0, 30, 3):
            del table[Key(k)]
        check(
            sum(table[Key(k)] for k in range(30) if k % 3), sum(k + i for k in range(30) if k % 3)
        )
        check(len({Key(k % 10) for k in range(30)}), 10, "set")
        check(len({Key(1), Key(2)} & {Key(2), Key(3)}), 1, "intersection")

    t.each(t.count(100), work)


@case
def functional(t: Torture) -> None:
    def work(i: int) -> None:
        def paused(value: int) -> int:
            t.pauses_now()
            return value

        def values() -> Iterator[int]:
            for k in range(40):
                t.pauses_now()
                yield k

        check(sum(map(paused, values())), 780, "sum(map)")
        check(list(filter(lambda v: paused(v) % 2, values())), list(range(1, 40, 2)), "filter")
        check(functools.reduce(lambda a, b: paused(a) + b, values(), i), 780 + i, "reduce")
        check(max(values(), key=paused), 39, "max(key)")
        check("".join(str(paused(v)) for v in values()), "".join(map(str, range(40))), "join")
        check(list(zip(values(), values(), strict=True))[-1], (39, 39), "zip")
        groups = [
            (k, len(list(g))) for k, g in itertools.groupby(values(), lambda v: paused(v) // 10)
        ]
        check(groups, [(0, 10), (1, 10), (2, 10), (3, 10)], "groupby")
        check(bisect.bisect(range(40), 20, key=paused), 21, "bisect(key)")
        check(dict((v, paused(v)) for v in values()), {v: v for v in range(40)}, "dict(iterator)")
        first, *rest = values()
        check((first, len(rest)), (0, 39), "unpacking")

    t.each(t.count(60), work)


@case
def comparisons(t: Torture) -> None:
    @functools.total_ordering
    class Item:
        def __init__(self, rank: int) -> None:
            self.rank = rank

        def __lt__(self, other: Item) -> bool:
            t.pauses_now()
            return self.rank < other.rank

        def __eq__(self, other: object) -> bool:
            t.pauses_now()
            return isinstance(other, Item) and self.rank == other.rank

    def work(i: int) -> None:
        ranks = [random.Random(i).randrange(100) for _ in range(40)]
        heap: list[Item] = []
        for rank in ranks:
            heapq.heappush(heap, Item(rank))
        check([heapq.heappop(heap).rank for _ in ranks], sorted(ranks), "heap")
        items = [Item(rank) for rank in ranks]
        check(items.index(Item(ranks[-1])), ranks.index(ranks[-1]), "index")
        check(items.count(Item(ranks[0])), ranks.count(ranks[0]), "count")
        check([Item(1), Item(2)] == [Item(1), Item(2)], True, "list equality")

    t.each(t.count(100), work)


@case
def ctypes_callbacks(t: Torture) -> None:
    libc = ctypes.CDLL(None)
    number = ctypes.POINTER(ctypes.c_int)
    comparator: Any = ctypes.CFUNCTYPE(ctypes.c_int, number, number)

    def work(i: int) -> None:
        def compare(a: Any, b: Any) -> int:
            t.pauses_now()
            return int(a[0]) - int(b[0])

        values = [random.Random(i).randrange(1000) for _ in range(48)]
        array = (ctypes.c_int * len(values))(*values)
        ctypes.set_errno(i)
        libc.qsort(array, len(values), ctypes.sizeof(ctypes.c_int), comparator(compare))
        check(list(array), sorted(values), "qsort")
        check(ctypes.get_errno(), i, "errno of this goroutine")

    t.each(t.count(200), work)


@case
def ctypes_nested(t: Torture) -> None:
    """Callbacks within callbacks, with and without the interpreter's lock in between."""
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
    locked = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int)

    def work(i: int) -> None:
        def descend(depth: int) -> int:
            t.pause()
            result = depth if depth == 0 else depth + (kind, locked)[depth % 2](descend)(depth - 1)
            t.pause()
            return result

        check(kind(descend)(8), 36)

    t.each(t.count(100), work)


@case
def parsers(t: Torture) -> None:
    """Callbacks of expat, csv, pickle and copy."""

    class Thing:
        def __init__(self, value: int) -> None:
            self.value = value

        def __reduce__(self) -> tuple[Any, ...]:
            t.pause()
            return make_thing, (self.value,)

        def __deepcopy__(self, memo: dict[int, Any]) -> Thing:
            t.pause()
            return Thing(self.value + 1)

    def make_thing(value: int) -> Thing:
        t.pause()
        return Thing(value)

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            t.pauses_now()
            return "make" if obj is make_thing else None

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, pid: Any) -> Any:
            t.pauses_now()
            return make_thing

    def work(i: int) -> None:
        seen: list[str] = []

        def start(name: str, attributes: dict[str, str]) -> None:
            t.pause()
            seen.append(name)

        parser = xml.parsers.expat.ParserCreate()
        parser.StartElementHandler = start
        parser.Parse("<a>" + "".join(f"<b{k}/>" for k in range(10)) + "</a>", True)
        check(seen, ["a"] + [f"b{k}" for k in range(10)], "expat")

        def lines() -> Iterator[str]:
            for k in range(10):
                t.pause()
                yield f"{k},{i}\n"

        check(list(csv.reader(lines())), [[str(k), str(i)] for k in range(10)], "csv")
        buffer = io.BytesIO()
        Pickler(buffer).dump([Thing(k) for k in range(5)])
        buffer.seek(0)
        check([thing.value for thing in Unpickler(buffer).load()], list(range(5)), "pickle")
        check(
            [x.value for x in copy.deepcopy([Thing(k) for k in range(5)])], [1, 2, 3, 4, 5], "copy"
        )

    t.each(t.count(60), work)


@case
def streams(t: Torture) -> None:
    """A raw stream that parks below io's buffers, which lock with the thread's identity."""

    class Raw(io.RawIOBase):
        def __init__(self, data: bytes = b"") -> None:
            self.source = io.BytesIO(data)
            self.sink = b""

        def readable(self) -> bool:
            return True

        def writable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            t.pause()
            part = self.source.read(min(len(buffer), 50))
            buffer[: len(part)] = part
            return len(part)

        def write(self, data: Any) -> int:
            t.pause()
            part = bytes(data[:50])
            self.sink += part
            return len(part)

    def work(i: int) -> None:
        text = "".join(f"line {k} of {i}\n" for k in range(50))
        check("".join(io.TextIOWrapper(io.BufferedReader(Raw(text.encode()), 64))), text, "reading")
        raw = Raw()
        with contextlib.closing(io.BufferedWriter(raw, 64)) as writer:
            for line in text.splitlines(keepends=True):
                writer.write(line.encode())
            writer.flush()
            check(raw.sink.decode(), text, "writing")

    t.each(t.count(60), work)


# ---- the object model ----


@case
def attributes(t: Torture) -> None:
    class Lazy:
        def __getattr__(self, name: str) -> int:
            t.pause()
            if not name.startswith("n"):
                raise AttributeError(name)
            return int(name[1:])

        def __repr__(self) -> str:
            t.pause()
            return "<Lazy>"

        def __format__(self, spec: str) -> str:
            t.pause()
            return f"[{spec}]"

        def __getitem__(self, index: int) -> int:
            t.pause()
            if index >= 5:
                raise IndexError(index)
            return index

        def __bool__(self) -> bool:
            t.pause()
            return True

        def __index__(self) -> int:
            t.pause()
            return 3

        def __call__(self, *args: int, **kwargs: int) -> int:
            t.pause()
            return sum(args) + sum(kwargs.values())

        @property
        def seven(self) -> int:
            t.pause()
            return 7

    def work(i: int) -> None:
        lazy: Any = Lazy()
        check(getattr(lazy, f"n{i}"), i, "__getattr__")
        check(getattr(lazy, "other", None), None, "__getattr__ that raises")
        check(hasattr(lazy, "x"), False, "hasattr")
        check("%r and %r" % (lazy, [lazy]), "<Lazy> and [<Lazy>]", "%r")
        check(f"{lazy:abc} {lazy!r}", "[abc] <Lazy>", "format")
        check(list(lazy), [0, 1, 2, 3, 4], "iteration by index")
        check((not lazy, range(10)[lazy], lazy(1, 2, k=i)), (False, 3, 3 + i), "operators")
        check(lazy.seven, 7, "property")

    t.each(t.count(100), work)


@case
def classes(t: Torture) -> None:
    """Making classes and descriptors: metaclass, __init_subclass__, __set_name__, __new__."""

    class Meta(type):
        @classmethod
        def __prepare__(mcs, name: str, bases: Any, /, **kwargs: Any) -> dict[str, object]:
            t.pause()
            return {}

        def __instancecheck__(cls, instance: object) -> bool:
            t.pause()
            return super().__instancecheck__(instance)

    class Field:
        name = ""

        def __set_name__(self, owner: type, name: str) -> None:
            t.pause()
            self.name = name

        def __get__(self, instance: Any, owner: type) -> str:
            t.pause()
            return self.name

    class Base(metaclass=Meta):
        number = -1

        def __init_subclass__(cls, number: int) -> None:
            t.pause()
            cls.number = number

        def __new__(cls) -> Base:
            t.pause()
            return super().__new__(cls)

    def work(i: int) -> None:
        class Mine(Base, number=i):
            first = Field()
            second = Field()

        one = Mine()
        check((one.first, one.second, one.number), ("first", "second", i))
        check((isinstance(one, Base), isinstance(1, Base)), (True, False), "isinstance")

    t.each(t.count(150), work)


@case
def generators(t: Torture) -> None:
    closed = []

    def inner(i: int) -> Iterator[int]:
        try:
            for k in range(10):
                t.pause()
                got = yield i + k
                check(got, k, "sent value")
        finally:
            t.pause()
            closed.append(i)

    def outer(i: int) -> Iterator[int]:
        yield from inner(i)
        try:
            yield -1
        except KeyError:
            t.pause()
            yield -2

    async def coroutine(n: int) -> int:
        t.pause()
        return n if n == 0 else n + await coroutine(n - 1)

    def work(i: int) -> None:
        generator: Any = outer(i)
        total = next(generator)
        for k in range(10):
            value = generator.send(k)
            total += value
        check(total, 10 * i + 45 - 1, "generator")
        check(generator.throw(KeyError()), -2, "throw")
        generator.close()
        early: Any = outer(i)
        next(early)
        early.close()
        try:
            coroutine(5).send(None)
        except StopIteration as stop:
            check(stop.value, 15, "coroutine")

    count = t.count(150)
    t.each(count, work)
    check(sorted(closed), sorted(2 * list(range(count))), "finally blocks")


@case
def context_managers(t: Torture) -> None:
    def work(i: int) -> None:
        steps: list[str] = []

        class Manager:
            def __init__(self, name: str) -> None:
                self.name = name

            def __enter__(self) -> Manager:
                t.pause()
                steps.append(f"+{self.name}")
                return self

            def __exit__(self, kind: Any, value: Any, traceback: Any) -> bool:
                t.pause()
                steps.append(f"-{self.name}{kind.__name__ if kind else ''}")
                return kind is KeyError

        @contextlib.contextmanager
        def manager() -> Iterator[int]:
            t.pause()
            try:
                yield i
            finally:
                t.pause()
                steps.append("-g")

        with Manager("a"), Manager("b"):
            t.pause()
            raise KeyError(i)
        with contextlib.ExitStack() as stack:
            stack.enter_context(Manager("c"))
            check(stack.enter_context(manager()), i)
            stack.callback(t.pause)
        check(steps, ["+a", "+b", "-bKeyError", "-a", "+c", "-g", "-c"])

    t.each(t.count(150), work)


@case
def exceptions(t: Torture) -> None:
    def work(i: int) -> None:
        def deeper(depth: int) -> None:
            try:
                t.pause()
                if depth == 0:
                    raise KeyError(i)
                deeper(depth - 1)
            except (KeyError, ValueError) as exc:
                check(sys.exception(), exc, "exception being handled")
                t.pause()
                check(sys.exception(), exc, "exception being handled, after a pause")
                raise ValueError(i, depth) from (exc if depth % 2 else None)
            finally:
                t.pause()

        caught: BaseException | None = None
        try:
            deeper(5)
        except ValueError as exc:
            caught = exc
        for depth in range(5, -1, -1):
            check(getattr(caught, "args", None), (i, depth), "chain")
            assert caught is not None
            check(caught.__cause__ is None, depth % 2 == 0, "cause")
            caught = caught.__context__
        check(getattr(caught, "args", None), (i,), "end of the chain")
        check(sys.exception(), None, "no exception afterwards")
        seen = []
        try:
            raise ExceptionGroup("group", [KeyError(1), OSError(2), KeyError(3)])
        except* KeyError as group:
            t.pause()
            seen.append(len(group.exceptions))
        except* OSError as group:
            t.pause()
            seen.append(len(group.exceptions))
        check(seen, [2, 1], "except*")

    t.each(t.count(150), work)


# ---- the collector ----


@case
def finalizers(t: Torture) -> None:
    ended: list[int] = []
    noted: list[int] = []

    class Mortal:
        def __init__(self, number: int) -> None:
            self.number = number
            self.me: Mortal | None = None

        def __del__(self) -> None:
            t.pause()
            ended.append(self.number)

    def work(i: int) -> None:
        watches = []
        for k in range(6):
            mortal = Mortal(6 * i + k)

            def note(_: object, number: int = 6 * i + k) -> None:
                t.pause()
                noted.append(number)

            watches.append(weakref.ref(mortal, note))
            if k % 2:
                mortal.me = mortal  # only the collector ends this one
            del mortal
            t.pause()
        if i % 10 == 0:
            gc.collect()
        everything.append(watches)

    everything: list[Any] = []
    count = t.count(150)
    t.each(count, work)
    until = time.monotonic() + 20
    while (len(ended) < 6 * count or len(noted) < 6 * count) and time.monotonic() < until:
        gc.collect()
        sleep(0.001)
    check(sorted(ended), list(range(6 * count)), "__del__")
    check(sorted(noted), list(range(6 * count)), "weakref callbacks")


@case
def collector(t: Torture) -> None:
    """gc.collect() in many goroutines at once, and callbacks of the collector that park."""
    generations = []

    def callback(phase: str, info: dict[str, int]) -> None:
        t.pauses_now()
        generations.append(phase)

    def work(i: int) -> None:
        for k in range(5):
            cycle: list[Any] = [i, k]
            cycle.append(cycle)
            gc.collect(k % 3)
            t.pause()

    gc.callbacks.append(callback)
    try:
        t.each(t.count(60), work)
    finally:
        gc.callbacks.remove(callback)
    check(bool(generations), True, "the collector ran")


@case
def weak_tables(t: Torture) -> None:
    class Value:
        pass

    table: weakref.WeakValueDictionary[int, Value] = weakref.WeakValueDictionary()
    finished = []

    def finish(i: int) -> None:
        t.pause()
        finished.append(i)

    def work(i: int) -> None:
        value = Value()
        table[i] = value
        weakref.finalize(value, finish, i)
        t.pause()
        check(table[i] is value, True, "weak value")
        del value
        t.pause()

    count = t.count(200)
    t.each(count, work)
    gc.collect()
    check(len(table), 0, "weak values that are left")
    check(sorted(finished), list(range(count)), "finalize")


# ---- per-goroutine state ----


@case
def thread_locals(t: Torture) -> None:
    local = threading.local()

    class Counting(threading.local):
        def __init__(self) -> None:
            t.pause()
            self.count = 0

    counting = Counting()

    def work(i: int) -> None:
        check(hasattr(local, "value"), False, "thread-local data of another goroutine")
        local.value = i
        for _ in range(10):
            t.pause()
            check(local.value, i, "thread-local data")
            counting.count += 1
        check(counting.count, 10, "subclass of threading.local")

    t.each(t.count(200), work)
    t.each(t.count(200), work)  # on the stacks and thread states of the first ones


@case
def context_variables(t: Torture) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=-1)

    def child(expected: int) -> int:
        check(variable.get(), expected, "inherited value")
        variable.set(-5)
        t.pause()
        return variable.get()

    def work(i: int) -> None:
        check(variable.get(), 1000, "value of the spawner")
        token = variable.set(i)
        for _ in range(5):
            t.pause()
            check(variable.get(), i, "own value")
        check(go(child, i).result(), -5)
        check(variable.get(), i, "own value, after the child's change")
        check(contextvars.copy_context().run(child, i), -5)
        check(variable.get(), i, "own value, after Context.run")
        variable.reset(token)
        check(variable.get(), 1000, "value after reset")

    variable.set(1000)
    t.each(t.count(150), work)


@case
def decimal_contexts(t: Torture) -> None:
    wanted = {p: str(decimal.Context(prec=p).divide(decimal.Decimal(1), 7)) for p in range(1, 51)}

    def work(i: int) -> None:
        precision = i % 50 + 1
        with decimal.localcontext() as context:
            context.prec = precision
            for _ in range(10):
                t.pause()
                check(str(decimal.Decimal(1) / 7), wanted[precision], "precision of this goroutine")
        check(decimal.getcontext().prec, 28, "precision afterwards")

    t.each(t.count(200), work)


@case
def locks(t: Torture) -> None:
    """threading.Lock blocks its goroutine's thread, and the lane goes on."""
    lock = threading.Lock()
    inside = 0
    total = 0

    def work(i: int) -> None:
        nonlocal inside, total
        for _ in range(5):
            with lock:
                inside += 1
                t.pause()
                check(inside, 1, "goroutines that hold the lock")
                inside -= 1
                total += i

    count = t.count(20)
    t.each(count, work)
    check(total, 5 * sum(range(count)))


# ---- imports ----


@contextlib.contextmanager
def module_path(t: Torture, **sources: str) -> Iterator[dict[str, int]]:
    """Modules that can be imported meanwhile, and the counts of how often each was executed."""
    executed: dict[str, int] = {}
    hook = types.ModuleType("torture_hook")

    def begin(name: str) -> None:
        executed[name] = executed.get(name, 0) + 1
        t.pause()

    hook.__dict__.update(begin=begin, pause=t.pause)
    sys.modules["torture_hook"] = hook
    with tempfile.TemporaryDirectory() as folder:
        for name, source in sources.items():
            text = f"import torture_hook\ntorture_hook.begin(__name__)\n{source}\ndone = True\n"
            Path(folder, f"{name}.py").write_text(text)
        sys.path.insert(0, folder)
        importlib_caches()
        try:
            yield executed
        finally:
            sys.path.remove(folder)
            for name in ["torture_hook", *sources]:
                sys.modules.pop(name, None)


def importlib_caches() -> None:
    """Has the import system look at the folders again."""
    import importlib

    importlib.invalidate_caches()


@case
def imports(t: Torture) -> None:
    """Each goroutine imports a module of its own, which imports another."""
    count = t.count(60)
    sources = {
        f"torture_own_{i}": f"import torture_sub_{i}\ntorture_hook.pause()" for i in range(count)
    }
    sources |= {f"torture_sub_{i}": f"torture_hook.pause()\nvalue = {i}" for i in range(count)}

    def work(i: int) -> None:
        module = __import__(f"torture_own_{i}")
        check((module.done, getattr(module, f"torture_sub_{i}").value), (True, i))

    with module_path(t, **sources) as executed:
        t.each(count, work)
        check(set(executed.values()), {1}, "times that a module was executed")


@case
def imports_shared(t: Torture) -> None:
    """Goroutines import the same modules at the same time: each is executed once, and complete."""
    names = [f"torture_shared_{k}" for k in range(10)]
    sources = {name: "for _ in range(5): torture_hook.pause()" for name in names}

    def work(i: int) -> None:
        for name in random.sample(names, len(names)):
            check(getattr(__import__(name), "done", False), True, f"{name} is complete")

    with module_path(t, **sources) as executed:
        t.each(t.count(60), work)
        check(executed, dict.fromkeys(names, 1), "times that a module was executed")


@case
def imports_circular(t: Torture) -> None:
    """Modules that import each other, begun at different ends.

    With plain threads, too, one of two may be told that the locks of the modules are in a deadlock.
    It tries again then, and a module that failed half-way is executed again.
    """
    count = t.count(20)
    sources = {}
    for i in range(count):
        sources[f"torture_a{i}"] = f"import torture_b{i}\ntorture_hook.pause()"
        sources[f"torture_b{i}"] = f"import torture_a{i}\ntorture_hook.pause()"

    def work(i: int) -> int:
        retries = 0
        while True:
            try:
                module = __import__(f"torture_{'ab'[i % 2]}{i // 2}")
            except RuntimeError as exc:
                if type(exc).__name__ != "_DeadlockError":
                    raise
                retries += 1
                t.pause()
                continue
            check(getattr(module, "done", False), True, f"{module.__name__} is complete")
            return retries

    with module_path(t, **sources) as executed:
        retries = sum(t.each(2 * count, work))
        check(set(executed), set(sources), "modules that were executed")
        again = sum(executed.values()) - len(sources)
        check(again <= 2 * retries, True, f"{again} executed again after {retries} retries")


# ---- running them ----


def dump_on_hang(limit_s: float, name: str) -> threading.Event:
    """Ends the process with every goroutine's stack unless the event returned is set in time."""
    finished = threading.Event()

    def watch() -> None:
        if finished.wait(limit_s):
            return
        print(f"torture: {name} did not end within {limit_s:g} s", file=sys.stderr, flush=True)
        print(golibx.stacks(system=True), golibx.stats(), file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        os._exit(HANG_EXIT)

    threading.Thread(target=watch, daemon=True).start()
    # Should even the interpreter's lock be stuck.
    faulthandler.dump_traceback_later(limit_s + 10, exit=True)
    return finished


def run_case(name: str, scale: float, seed: int, limit_s: float) -> Torture:
    """One run of the scheduler with one case; prints its line. Raises what the case raises."""
    torture = Torture(scale, random.Random(seed))
    finished = dump_on_hang(limit_s, name)
    began = time.monotonic()
    try:
        counters = golibx.run(torture.run, CASES[name], config=CONFIG)
    finally:
        finished.set()
        faulthandler.cancel_dump_traceback_later()
    print(
        f"{name:18} {time.monotonic() - began:6.2f} s  pauses {torture.pauses:6}"
        f"  moves {torture.moves:6}  switches {counters['switches']:7}"
        f"  retakes {counters['retakes']:5} (in vain {counters['retakes_in_vain']:4})"
        f"  handoffs {counters['handoffs']:3}  preemptions {counters['preemptions']:4}"
        f"  threads {counters['threads']:3}",
        flush=True,
    )
    return torture


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Migration torture of the golibx scheduler.")
    parser.add_argument("--case", action="append", choices=sorted(CASES), help="only this one")
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work (default: 1)")
    parser.add_argument("--rounds", type=int, default=1, help="repeat everything (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="of the cases' data")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that one case may take")
    parser.add_argument("--moves", type=int, help="moves that there must be (full run: 10000)")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    options = parser.parse_args()
    if options.list:
        print("\n".join(CASES))
        return 0
    faulthandler.enable()
    names = options.case or list(CASES)
    wanted = options.moves
    if wanted is None:
        wanted = 0 if options.case else int(10_000 * min(1.0, options.scale) * options.rounds)
    moves = 0
    failed = []
    for round_number in range(options.rounds):
        for name in names:
            try:
                moves += run_case(
                    name, options.scale, options.seed + round_number, options.limit
                ).moves
            except Exception:
                print(f"{name:18} FAILED", flush=True)
                traceback.print_exc(file=sys.stdout)
                failed.append(name)
    core = " ".join(f"{k}={golibx._core.info()[k]}" for k in ("build", "preempt", "retake"))
    print(f"Python {sys.version.split()[0]}, {core}: {moves} moves between threads")
    if failed:
        print(f"failed: {', '.join(failed)}")
    if moves < wanted:
        print(f"only {moves} moves: the torture was none (at least {wanted} are needed)")
    return 1 if failed or moves < wanted else 0


if __name__ == "__main__":
    sys.exit(main())
