"""C code that keeps something per thread while Python code that it called is switched out."""

from __future__ import annotations

import ctypes
import functools
import io
import operator
import os
import sys
import time
from threading import get_native_id as thread_id

import pytest

from conftest import Script, c_library
from golibx import Chan, WaitGroup, blocking, go, gosched, select, sleep, stacks, stats
from golibx.testing import wait_until_parked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.goroutine,
    pytest.mark.skipif(os.name == "nt", reason="nothing tells what lies on a stack there"),
]

COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
LIBC = ctypes.CDLL(None)
LIBC.qsort.restype = None


def through_c(fn: Callable[[], object]) -> None:
    """Has the C library call `fn`, more than once."""

    def compare(_a: int, _b: int) -> int:
        fn()
        return 0

    data = (ctypes.c_int * 3)(3, 2, 1)
    LIBC.qsort(data, 3, ctypes.sizeof(ctypes.c_int), COMPARE(compare))


def leave(way: str, out: Chan[int]) -> None:
    """Stops running for a moment, or might be stopped."""
    match way:
        case "sleep":
            sleep(0.0001)
        case "gosched":
            gosched()
        case "compute":
            until = time.monotonic() + 0.002
            while time.monotonic() < until:
                pass
        case "block":
            time.sleep(0.0003)
        case "blocking":
            blocking(time.sleep, 0.0001)
        case "send":
            out.send(1)
        case "select":
            select(out.on_send(1), timeout=1)
        case "iterate":
            next(out)


WAYS = ["sleep", "gosched", "compute", "block", "blocking", "send", "select", "iterate"]


@pytest.mark.goroutine(preempt={"slice": "100us"})
@pytest.mark.parametrize("way", WAYS)
def test_a_thread_is_kept_below_c_code(way: str) -> None:
    """Of all goroutines, those in C code stay on their thread, which no other uses meanwhile."""
    out = Chan[int]()
    inside: set[int] = set()
    strays = []

    def keeps() -> None:
        def visit() -> None:
            me = thread_id()
            if me in inside:
                strays.append("shared")
            inside.add(me)
            leave(way, out)
            if thread_id() != me:
                strays.append("moved")
            inside.discard(thread_id())

        for _ in range(3):
            through_c(visit)
            gosched()

    def wanders() -> None:
        for _ in range(100):
            gosched()
            if thread_id() in inside:
                strays.append("shared")

    def partner() -> None:
        while True:
            if way == "iterate":
                out.send(1)
            else:
                out.recv()

    helper = go(partner)
    group = WaitGroup()
    for _ in range(4):
        group.go(keeps)
        group.go(wanders)
    group.wait()
    helper.cancel()
    assert strays == []
    if way not in {"compute", "block", "blocking"}:  # these need not be switched out
        assert stats()["threads_kept"] > 0


class Manager:
    def __enter__(self) -> None:
        gosched()

    def __exit__(self, *exc_info: object) -> None:
        gosched()


class Made:
    def __init__(self, _value: int = 0) -> None:
        gosched()

    @property
    def attribute(self) -> int:
        gosched()
        return 0

    def __lt__(self, _other: Made) -> bool:
        gosched()
        return False

    def __iter__(self) -> Made:
        return self

    def __next__(self) -> int:
        gosched()
        raise StopIteration

    def __del__(self) -> None:
        gosched()


def in_managers() -> None:
    with Manager(), Manager():
        gosched()


def of_a_value(value: int) -> int:
    gosched()
    return value


def in_a_loop() -> None:
    for _ in map(of_a_value, range(3)):
        pass


PLAIN: dict[str, Callable[[], object]] = {
    "call": gosched,
    "partial": functools.partial(of_a_value, 1),
    "map": lambda: list(map(of_a_value, range(3))),
    "loop": in_a_loop,
    "sort": lambda: sorted(range(3), key=of_a_value),
    "compare": lambda: min(Made(), Made()),
    "init": Made,
    "property": lambda: operator.attrgetter("attribute")(Made()),
    "with": in_managers,
    "next": lambda: list(Made()),
    "generator": lambda: sum(of_a_value(i) for i in range(3)),
    "expanded": lambda: of_a_value(*[1]),
    "reduce": lambda: functools.reduce(lambda a, b: of_a_value(a + b), range(3)),
    "exec": lambda: exec("gosched()", {"gosched": gosched}),
    "text": lambda: io.TextIOWrapper(io.BytesIO(b"a\n")).readline() and gosched(),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_the_interpreters_own_frames_keep_no_thread(kind: str) -> None:
    before = stats()["threads_kept"]
    group = WaitGroup()
    for _ in range(3):
        group.go(lambda: [PLAIN[kind]() for _ in range(5)])
    group.wait()
    assert stats()["threads_kept"] == before


SPACIOUS = """
#include <alloca.h>
extern void *PyObject_CallNoArgs(void *);
int room = 0;
void *call(void *self, void *fn) {
    volatile char *unused = alloca(room + 1);
    unused[room] = 0;
    void *result = PyObject_CallNoArgs(fn);
    unused[0] = self != 0;
    return result;
}
"""


class Method(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


@pytest.fixture(scope="module")
def spacious(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """A library with a function that calls another, with as much on the stack as is wanted."""
    folder = tmp_path_factory.mktemp("spacious")
    options = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
    return ctypes.CDLL(str(c_library(folder, "spacious", SPACIOUS, *options)))


@pytest.mark.goroutine(preempt={"async": False})
def test_no_frame_is_mistaken_for_the_goroutines_first(spacious: ctypes.CDLL) -> None:
    """C code takes just as much of the stack as what the interpreter had called before."""
    meth_o = 8
    definition = Method(b"call", ctypes.cast(spacious.call, ctypes.c_void_p).value, meth_o, None)
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype = ctypes.py_object
    call = new(ctypes.byref(definition), None, None)
    room = ctypes.c_int.in_dll(spacious, "room")

    asked, answers = Chan[int](), Chan[int]()

    def answer() -> None:
        for _ in asked:
            answers.send(1)

    def visit() -> None:  # waits for certain
        asked.send(1)
        answers.recv()

    def work(kind: str) -> list[int]:
        missed = []
        for size in range(0, 1024, 16):
            PLAIN[kind]()
            room.value = size
            before = stats()["threads_kept"]
            call(visit)
            if stats()["threads_kept"] == before:
                missed.append(size)
        return missed

    helper = go(answer)
    gosched()
    for kind in PLAIN:
        assert go(work, kind).result() == [], kind
        assert go(functools.partial(work, kind)).result() == [], kind
    helper.cancel()


@pytest.mark.goroutine(preempt={"slice": "100us"})
def test_one_that_is_alone_goes_on_below_c_code() -> None:
    """Its time slice ends, and no other can be given the processor, from thread to thread."""
    before = stats()

    def compute() -> None:
        until = stats()["preempt_requests"] + 10
        while stats()["preempt_requests"] < until:
            for _ in range(100_000):
                pass

    through_c(compute)
    assert stats()["threads_kept"] == before["threads_kept"]


@pytest.mark.goroutine(runtime={"foreign": "move"})
def test_all_may_move() -> None:
    group = WaitGroup()
    for _ in range(3):
        group.go(through_c, gosched)
    group.wait()
    assert stats()["threads_kept"] == 0


@pytest.mark.goroutine(runtime={"foreign_movable": ["libc", "libffi", "_ctypes"]})
def test_some_modules_may_move() -> None:
    group = WaitGroup()
    for _ in range(3):
        group.go(through_c, gosched)
    group.wait()
    assert stats()["threads_kept"] == 0


def test_a_dump_says_for_what_a_thread_is_kept() -> None:
    ch = Chan[int]()
    g = go(through_c, ch.recv_ok)
    wait_until_parked(g)
    assert g.kept_by is not None
    assert f"goroutine {g.id} [chan receive, keeps its thread for {g.kept_by}] " in stacks()
    ch.close()
    g.join()
    assert g.kept_by is None


@pytest.mark.goroutine(runtime={"max_threads": 4})
def test_without_threads_it_goes_on_anywhere() -> None:
    group = WaitGroup()
    for _ in range(8):
        group.go(through_c, functools.partial(sleep, 0.0005))
    group.wait()
    assert stats()["threads_not_kept"] > 0
    assert stats()["threads"] <= 4


def test_the_main_goroutine_goes_on_beside_one_that_keeps_the_main_thread() -> None:
    """A goroutine that keeps the main thread does not keep the main goroutine."""
    main = thread_id()
    release = Chan[int]()
    waiting = Chan[int](64)

    def visit() -> None:
        waiting.send(thread_id())
        release.recv_ok()

    held = []
    for _ in range(50):
        held.append(go(through_c, visit))
        if waiting.recv() == main:
            break
    for _ in range(20):
        gosched()
        sleep(0.0001)
    wait_until_parked(*held, state="chan receive")
    assert all(g.kept_by for g in held)
    release.close()
    visited: list[bool] = []
    go(through_c, lambda: visited.append(True)).result()
    assert set(visited) == {True}
    for g in held:
        g.cancel()
    assert all(g.join() for g in held)
    sleep(0.001)
    assert thread_id() == main


def test_a_run_ends_with_goroutines_that_keep_threads(script: Script) -> None:
    out = script.passes(
        """
import ctypes, threading, time
from golibx import Chan, go, gosched, run
kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def through_c(fn):
    compare = kind(lambda a, b: fn() or 0)
    ctypes.CDLL(None).qsort((ctypes.c_int * 3)(3, 2, 1), 3, 4, compare)
never = Chan()
def stubborn():
    try:
        never.recv()
    except BaseException:
        never.recv()
def main():
    for _ in range(3):
        go(through_c, stubborn)
    gosched()
    time.sleep(0.01)
for _ in range(2):
    run(main, config={"runtime": {"shutdown_timeout": "20ms"}})
print("ended")
"""
    )
    assert out == "ended\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_below_c_code(script: Script) -> None:
    out = script.passes(
        """
import ctypes, os
from golibx import go, gosched, run, sleep
kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def through_c(fn):
    compare = kind(lambda a, b: fn() or 0)
    ctypes.CDLL(None).qsort((ctypes.c_int * 3)(3, 2, 1), 3, 4, compare)
statuses = []
def forks():
    gosched()
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    sleep(0.001)
def main():
    for g in [go(through_c, forks), go(through_c, lambda: sleep(0.001))]:
        g.result()
    print(set(statuses))
run(main)
"""
    )
    assert out == "{7}\n"


def test_functions_in_python_of_a_database() -> None:
    import sqlite3

    def work() -> int:
        c = sqlite3.connect(":memory:", check_same_thread=False)
        c.create_function("slow", 1, lambda x: (time.sleep(0.0005), x)[1])
        for _ in range(5):
            assert c.execute("select slow(1) + slow(2)").fetchone()[0] == 3
        c.close()
        return 1

    assert sum(g.result(timeout=20) for g in [go(work) for _ in range(10)]) == 10


def test_calls_from_a_stack_of_another_depth() -> None:
    """The same call, straight and below C code, again and again: what was found is not mistaken."""
    strays = []

    def visit() -> None:
        me = thread_id()
        sleep(0)
        if thread_id() != me:
            strays.append(me)

    def work() -> None:
        for i in range(20):
            gosched()
            through_c(visit)
            list(map(of_a_value, range(i % 3)))
            through_c(lambda: list(map(lambda _: visit(), range(2))))

    group = WaitGroup()
    for _ in range(5):
        group.go(work)
    group.wait()
    assert strays == []


class Raw(io.RawIOBase):
    """Gives way in the middle of each operation."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.at = 0
        self.written: list[bytes] = []

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        sleep(0.0001)
        n = min(len(buffer), 1000, len(self.data) - self.at)
        buffer[:n] = self.data[self.at : self.at + n]
        self.at += n
        gosched()
        return n

    def write(self, data: bytes) -> int:  # type: ignore[override]
        gosched()
        self.written.append(bytes(data))
        sleep(0.0001)
        return len(data)


READS: dict[str, Callable[[io.BufferedReader], bytes]] = {
    "read": lambda f: f.read(700),
    "read1": lambda f: f.read1(700),
    "readline": lambda f: f.readline(),
    "iterate": lambda f: next(f, b""),
    "peek": lambda f: f.read(len(f.peek(1))),
    "readinto": lambda f: bytes(data[: f.readinto(data)]) if (data := bytearray(300)) else b"",
}


@pytest.mark.parametrize("kind", READS)
def test_goroutines_take_turns_at_a_buffered_reader(kind: str) -> None:
    """One waits in the middle of its call: the others wait for it, and nothing is lost or twice."""
    lines = [b"%06d\n" % n for n in range(4000)]
    f = io.BufferedReader(Raw(b"".join(lines)), 512)

    def read() -> list[bytes]:
        parts = []
        while part := READS[kind](f):
            parts.append(part)
        return parts

    goroutines = [go(read) for _ in range(3)]
    parts = [part for g in goroutines for part in g.result(timeout=30)]
    # peek and read are two calls, between which others read; and CPython looks for a line before
    # it takes the lock, so that two threads may get parts of one.
    if kind not in {"peek", "readline", "iterate"}:
        assert sum(map(len, parts)) == sum(map(len, lines))
    assert stats()["threads_kept"] > 0


def test_goroutines_take_turns_at_a_buffered_writer() -> None:
    raw = Raw()
    f = io.BufferedWriter(raw, 64)

    def write(letter: bytes) -> None:
        for _ in range(20):
            f.write(letter * 50)
        f.flush()

    goroutines = [go(write, letter) for letter in (b"a", b"b", b"c")]
    for g in goroutines:
        g.result(timeout=30)
    data = b"".join(raw.written)
    assert [data.count(letter) for letter in (b"a", b"b", b"c")] == [1000] * 3
    assert all(data[at : at + 50] == data[at : at + 1] * 50 for at in range(0, len(data), 50))


STAYS = {
    "import": "importlib.reload(colorsys)",
    "signal mask": "signal.pthread_sigmask(signal.SIG_BLOCK, [])",
    "fork": "forks(os.fork)",
    "subprocess": "subprocess.run(['true'], preexec_fn=int)",
    "lock": "golibx.lock_os_thread(); time.sleep(0.001); golibx.unlock_os_thread()",
    "greenlet": "greenlet.greenlet(int).switch()",
}


@pytest.mark.parametrize("what", STAYS)
def test_what_moves_goroutines_off_the_main_thread_does_not_below_others_code(
    script: Script, what: str
) -> None:
    program = f"""
import colorsys, ctypes, importlib, os, signal, subprocess, threading, time
import greenlet
import golibx

Compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
moved = []

def forks(fork):
    child = fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)

def compare(a, b):
    before = threading.get_native_id()
    {STAYS[what]}
    moved.append(threading.get_native_id() != before)
    return 0

def sort():
    numbers = (ctypes.c_int * 2)(2, 1)
    ctypes.CDLL(None).qsort(numbers, 2, 4, Compare(compare))

def main():
    for g in [golibx.go(sort) for _ in range(4)]:
        g.result()

golibx.run(main)
print(moved)
"""
    assert script.passes(program) == "[False, False, False, False]\n"


def test_an_import_below_sqlite(script: Script) -> None:
    program = """
import datetime, sqlite3
from golibx import go, run

def year(text):
    return datetime.datetime.strptime(text, "%Y-%m-%d").year  # imports _strptime

def query():
    connection = sqlite3.connect(":memory:")
    connection.create_function("year", 1, year)
    return connection.execute("select year('2026-11-29')").fetchone()

run(lambda: print(go(query).result()))
"""
    assert script.passes(program) == "(2026,)\n"
