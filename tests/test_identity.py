"""Identity: goroutines as what Python code takes for a thread."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import io
import logging
import multiprocessing
import operator
import os
import reprlib
import signal
import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import current_thread, get_ident  # as by programs that began before the run

import pytest

from conftest import Script
from golibx import Cancelled, Chan, _core, current, go, gosched, sleep
from golibx.testing import wait_until

pytestmark = pytest.mark.goroutine


def wander() -> None:
    """Parks, is preempted, and blocks, which moves goroutines between threads."""
    sleep(0.0002)
    sum(range(5000))
    time.sleep(0.0005)
    gosched()


@pytest.mark.goroutine(preempt={"slice": "100us"})
def test_an_ident_is_the_goroutines_wherever_it_runs() -> None:
    native: set[int] = set()
    local = threading.local()

    def work() -> tuple[int, threading.Thread]:
        mine, thread = get_ident(), current_thread()
        local.ident = mine
        for _ in range(20):
            wander()
            assert get_ident() == threading.get_ident() == local.ident == mine
            assert current_thread() is thread
            native.add(threading.get_native_id())
        assert thread.ident == mine
        return mine, thread

    while len(native) < 2:
        goroutines = [go(work) for _ in range(20)]
        results = [g.result() for g in goroutines]
        idents = {ident for ident, _ in results}
        assert len(idents) == 20
        threads = threading.enumerate()
        assert idents.isdisjoint(t.ident for t in threads)
        assert idents.isdisjoint(threading._active)  # type: ignore[attr-defined]
        assert not any(t.is_alive() for _, t in results)


def test_the_main_goroutine_is_the_main_thread_wherever_it_runs() -> None:
    main = threading.main_thread()
    native: set[int] = set()
    reader, writer = os.pipe()
    # On the main thread: its goroutine blocks, and main runs on another thread.
    while len(native) < 2:
        native.add(threading.get_native_id())
        blocked = go(os.read, reader, 1)
        gosched()
        native.add(threading.get_native_id())
        assert current_thread() is main
        assert get_ident() == main.ident
        os.write(writer, b".")
        assert blocked.result() == b"."
    os.close(reader)
    os.close(writer)


def test_a_goroutines_thread_object() -> None:
    def work() -> threading.Thread:
        thread = current_thread()
        goroutine = current()
        assert goroutine is not None
        assert thread.name == f"Goroutine-{goroutine.id} ({goroutine.name})"
        assert thread.is_alive()
        assert thread in threading.enumerate()
        assert thread.native_id is not None
        assert not threading.Thread().daemon
        with pytest.raises(RuntimeError, match="cannot join current thread"):
            thread.join()
        thread.name = "worker"
        assert current_thread().name == "worker"
        repr(thread)
        seen.send(thread)
        done.recv()
        return thread

    seen: Chan[threading.Thread] = Chan()
    done: Chan[None] = Chan()
    before = threading.active_count()
    goroutine = go(work)
    thread = seen.recv()
    assert threading.active_count() == before + 1
    assert isinstance(thread, threading.Thread)
    assert thread.native_id is None  # it must not pass for another thread
    thread.join(0.001)
    assert thread.is_alive()
    done.send(None)
    thread.join()
    assert not thread.is_alive()
    assert goroutine.result() is thread
    assert threading.active_count() == before


def test_nothing_is_kept_of_ended_goroutines() -> None:
    class Greets:
        def __del__(self) -> None:
            current_thread()

    local = threading.local()

    def work() -> None:
        local.value = Greets()  # asks when the goroutine has ended
        current_thread().greets = Greets()  # type: ignore[attr-defined]

    before = dict(threading._active)  # type: ignore[attr-defined]
    for _ in range(20):
        goroutines = [go(work) for _ in range(50)]
        for g in goroutines:
            g.join()
    gc.collect()
    # One may be preempted in the middle of its end.
    assert wait_until(lambda: threading._active == before)  # type: ignore[attr-defined]


def test_what_is_built_on_idents_sees_the_goroutine() -> None:
    class Slow:
        def __repr__(self) -> str:
            sleep(0.001)
            return "Slow()"

    @dataclasses.dataclass
    class Config:
        value: object

    class Guarded:
        @reprlib.recursive_repr()
        def __repr__(self) -> str:
            sleep(0.001)
            return "Guarded"

    for shared, text in (Config(Slow()), "(value=Slow())"), (Guarded(), "Guarded"):
        results = [g.result() for g in [go(repr, shared) for _ in range(5)]]
        assert all(result.endswith(text) for result in results)


def test_log_records_name_the_goroutine() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(thread)d %(threadName)s %(message)s"))
    logger = logging.getLogger("test_identity")
    logger.propagate = False
    logger.addHandler(handler)

    def work() -> tuple[int, int, str]:
        logger.warning("hello")
        goroutine = current()
        assert goroutine is not None
        return get_ident(), goroutine.id, goroutine.name

    ident, number, name = go(work).result()
    logger.warning("bye")
    assert out.getvalue() == (
        f"{ident} Goroutine-{number} ({name}) hello\n{get_ident()} MainThread bye\n"
    )


class TooLong(Exception):
    pass


@pytest.mark.parametrize("of_main", [False, True])
def test_an_asynchronous_exception_reaches_the_goroutine_that_is_meant(of_main: bool) -> None:
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def loop() -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            gosched()

    def spin() -> str:
        try:
            ready.send(get_ident())
            # A call: in 3.13 the jump back of a loop lies outside of the `try` around it.
            loop()
        except TooLong:
            return "raised"
        return "not raised"

    ready: Chan[int] = Chan(1)
    others = [go(sleep, 0.01) for _ in range(3)]
    threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(2)]
    for thread in threads:
        thread.start()

    def strike() -> None:
        assert raise_in(ctypes.c_ulong(ready.recv()), ctypes.py_object(TooLong)) == 1

    if of_main:
        striker = go(strike)
        assert spin() == "raised"
        striker.join()
    else:
        goroutine = go(spin)
        strike()
        assert goroutine.result() == "raised"
    for g in others:
        assert g.result() is None
    for thread in threads:
        thread.join()
    assert raise_in(ctypes.c_ulong(go(get_ident).result()), ctypes.py_object(TooLong)) == 0


def test_an_asynchronous_exception_that_comes_too_late_is_nobodys() -> None:
    """What has the ended goroutine's place is another one."""
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def tell() -> None:
        idents.send(get_ident())

    def spin() -> int:
        return sum(range(1000)) - sum(i for i in range(1000))

    idents: Chan[int] = Chan()
    done: Chan[None] = Chan()
    for _ in range(20):
        # Of Python's own it runs nothing any more once it has told.
        last = go(list, map(operator.call, (tell, done.recv)))
        assert raise_in(ctypes.c_ulong(idents.recv()), ctypes.py_object(TooLong)) == 1
        done.send(None)
        last.join()
        assert [go(spin).result() for _ in range(3)] == [0] * 3


def test_frames_are_found_by_ident() -> None:
    def work() -> None:
        idents.send(get_ident())
        done.recv()

    idents: Chan[int] = Chan(10)
    done: Chan[None] = Chan()
    goroutines = [go(work) for _ in range(10)]
    waiting = {idents.recv() for _ in goroutines}
    frames = sys._current_frames()
    assert all(frames[ident].f_code is work.__code__ for ident in waiting)
    assert frames[get_ident()] is sys._getframe()
    assert waiting <= sys._current_exceptions().keys()
    done.close()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="POSIX")
def test_a_signal_for_a_goroutine_interrupts_what_it_does(script: Script) -> None:
    out = script.passes(
        """
import os, signal, threading
from golibx import Chan, go, run, sleep

seen = []
idents = Chan(1)
reader, writer = os.pipe()

def read():
    idents.send(threading.get_ident())
    return os.read(reader, 1)

def park():
    idents.send(threading.get_ident())
    return idents.recv()

def main():
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    for function, end in (read, lambda: os.write(writer, b"x")), (park, lambda: idents.send(0)):
        goroutine = go(function)
        signal.pthread_kill(idents.recv(), signal.SIGUSR1)
        while not seen:
            sleep(0.001)
        seen.clear()
        end()
        print(goroutine.result())
    try:
        signal.pthread_kill(go(threading.get_ident).result(), signal.SIGUSR1)
    except ProcessLookupError:
        print("ended")

run(main)
"""
    )
    assert out.splitlines() == ["b'x'", "0", "ended"]


def test_faulthandler_shows_goroutines(script: Script) -> None:
    """It asks the C library for their threads' names, from Python 3.14 on."""
    result = script(
        """
import faulthandler, sys, threading
from golibx import go, run, sleep

def main():
    for _ in range(5):
        go(sleep, 30)
    sleep(0.01)
    print(hex(go(threading.get_ident).result()))
    faulthandler.dump_traceback(all_threads=True)

run(main)
"""
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("Thread 0x") >= 6


def test_functions_do_outside_what_they_did() -> None:
    """In threads, during a run and after it."""
    threads: dict[int, threading.Thread] = {}

    def ask() -> None:
        threads[get_ident()] = current_thread()

    started = [threading.Thread(target=ask) for _ in range(3)]
    for thread in started:
        thread.start()
        thread.join()
    assert set(threads.values()) <= set(started)
    assert "_thread.get_ident" in _core.replaced()
    assert get_ident.__name__ == "get_ident"
    with pytest.raises(TypeError):
        get_ident(1)  # type: ignore[call-arg]


def test_functions_that_were_imported_before_golibx(script: Script) -> None:
    out = script.passes(
        """
from _thread import get_ident
import threading

def plain():
    for _ in range(1000):
        get_ident()  # the call gets specialised
    return get_ident()

before = plain()
from golibx import go, run, sleep
goroutines = lambda: [go(lambda: (plain(), sleep(0))[0]) for _ in range(9)]
print(run(lambda: len({g.result() for g in goroutines()})))
print(run(plain) == before == plain(), threading.active_count())
"""
    )
    assert out.split() == ["9", "True", "1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_forked_goroutine_is_who_it_was(script: Script) -> None:
    out = script.passes(
        """
import os, threading
from golibx import go, run

def work(asks):
    ident = threading.get_ident()
    if asks:
        threading.current_thread()
    pid = os.fork()
    if pid == 0:
        assert threading.get_ident() == ident
        assert threading.current_thread() is threading.main_thread()
        assert threading.active_count() == 1
        os._exit(7)
    return os.waitpid(pid, 0)[1] >> 8

run(lambda: print([go(work, asks).result() for asks in (False, True)]))
"""
    )
    assert out == "[7, 7]\n"


# ---- C code that asks which thread it is on ----

redirected = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="calls are redirected on Linux only"
)


@redirected
@pytest.mark.goroutine(preempt={"slice": "100us"})
def test_a_connection_of_sqlite3_is_the_goroutines(tmp_path: Path) -> None:
    def work(n: int) -> int:
        with sqlite3.connect(":memory:") as connection:
            connection.execute("CREATE TABLE t (x INTEGER)")
            for i in range(30):
                connection.execute("INSERT INTO t VALUES (?)", (i,))
                wander()
            rows = connection.cursor()
            rows.execute("SELECT x FROM t")
            total = 0
            for (x,) in rows:
                total += x
                if x % 10 == 0:
                    wander()
            connection.commit()
            copy = sqlite3.connect(tmp_path / str(n))
            connection.backup(copy, pages=1, progress=lambda *_: gosched(), sleep=0.0001)
            wander()
            assert copy.execute("SELECT sum(x) FROM t").fetchone() == (total,)
            copy.close()
        connection.close()
        return total

    assert [g.result() for g in [go(work, n) for n in range(8)]] == [435] * 8


@redirected
def test_a_connection_of_sqlite3_is_nobody_elses() -> None:
    mine = sqlite3.connect(":memory:")
    shared = sqlite3.connect(":memory:", check_same_thread=False)
    idents = []

    def use() -> None:
        idents.append(get_ident())
        shared.execute("SELECT 1")
        mine.execute("SELECT 1")

    with pytest.raises(sqlite3.ProgrammingError) as raised:
        go(use).result()
    assert f"thread id {get_ident()} and this is thread id {idents[0]}" in str(raised.value)
    thread = ThreadPoolExecutor(1)
    with pytest.raises(sqlite3.ProgrammingError):
        thread.submit(use).result()
    thread.shutdown()
    mine.execute("SELECT 1")
    mine.close()
    shared.close()


@redirected
def test_multiprocessings_locks_belong_to_goroutines() -> None:
    lock = multiprocessing.RLock()
    value = multiprocessing.Value("i", 0)
    inside = most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with lock, lock:
                inside += 1
                most = max(most, inside)
                wander()
                inside -= 1
            with value:
                before = value.value
                sleep(0.0001)
                value.value = before + 1
        with pytest.raises(AssertionError, match="not owned"):
            lock.release()

    with lock:
        sleep(0)
    for g in [go(work) for _ in range(4)]:
        g.result()
    assert most == 1
    assert value.value == 20


@redirected
def test_a_joinable_queue() -> None:
    queue: multiprocessing.JoinableQueue[int] = multiprocessing.JoinableQueue()

    def put() -> None:
        for i in range(50):
            queue.put(i)

    got: list[int] = []

    def get() -> None:
        for _ in range(50):
            got.append(queue.get())
            queue.task_done()

    for g in [go(f) for f in (put, put, get, get)]:
        g.result()
    queue.join()
    assert sorted(got) == sorted([*range(50), *range(50)])
    queue.close()
    queue.join_thread()


@redirected
def test_modules_that_are_loaded_in_the_run(script: Script) -> None:
    out = script.passes(
        """
import sys
from golibx import go, run, sleep

def main():
    assert "_sqlite3" not in sys.modules
    import sqlite3
    connection = sqlite3.connect(":memory:")

    def use():
        try:
            connection.execute("SELECT 1")
        except sqlite3.ProgrammingError:
            return "refused"

    print([go(use).result() for _ in range(3)])

run(main)
"""
    )
    assert out == "['refused', 'refused', 'refused']\n"


# ---- re-entrant locks ----

BEFORE = """
import threading
lock = threading.RLock()  # as modules have them that are imported first
condition = threading.Condition()
"""


def test_locks_from_before_the_run(script: Script) -> None:
    """In goroutines and threads at once."""
    out = script.passes(
        BEFORE
        + """
import time
from golibx import go, run, sleep

inside = most = 0

def work():
    global inside, most
    for i in range(10):
        with lock, lock:
            inside += 1
            most = max(most, inside)
            sum(range(1000))
            if i % 5 == 0:
                time.sleep(0.0003)
                if threading.current_thread() in threads:
                    inside -= 1
                    continue
                sleep(0.0001)
            inside -= 1

threads = [threading.Thread(target=work) for _ in range(3)]
items = []

def take():
    with condition:
        condition.wait_for(lambda: items)
        return items.pop()

def main():
    for thread in threads:
        thread.start()
    for g in [go(work) for _ in range(100)]:
        g.result()
    for thread in threads:
        thread.join()
    takers = [go(take) for _ in range(10)]
    for i in range(10):
        with condition:
            items.append(i)
            condition.notify()
    print(most, sorted(g.result() for g in takers))

run(main, config={"preempt": {"slice": "100us"}})
"""
    )
    assert out == "1 [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n"


def test_a_lock_that_is_held_across_the_borders_of_a_run(script: Script) -> None:
    out = script.passes(
        BEFORE
        + """
from golibx import run

lock.acquire()

def main():
    lock.release()
    lock.acquire()
    lock.acquire()

run(main)
lock.release()
lock.release()
try:
    lock.release()
except RuntimeError as e:
    print(e)
"""
    )
    assert out == "cannot release un-acquired lock\n"


def test_a_reentrant_lock_is_the_goroutines() -> None:
    lock = threading.RLock()

    def elsewhere() -> tuple[bool, bool]:
        with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
            lock.release()
        return lock.acquire(blocking=False), lock.acquire(timeout=0.001)

    with lock, lock:
        wander()
        assert lock._is_owned()  # type: ignore[attr-defined]
        assert lock._recursion_count() == 2  # type: ignore[attr-defined]
        assert go(elsewhere).result() == (False, False)
    assert go(lock.acquire, False).result()
    with pytest.raises(ValueError):
        lock.acquire(False, 1)
    with pytest.raises(ValueError):
        lock.acquire(timeout=-2)


def test_a_reentrant_lock_refuses_time_outs_in_the_interpreters_words() -> None:
    def refusals() -> list[str]:
        lock = threading.RLock()
        texts = []
        for arguments in ((True, 1e100), (True, threading.TIMEOUT_MAX * 2), (True, -2), (False, 1)):
            with pytest.raises((OverflowError, ValueError)) as refused:
                lock.acquire(*arguments)
            texts.append(repr(refused.value))
        with pytest.raises(ValueError) as refused:
            lock.acquire(timeout=float("nan"))
        return [*texts, repr(refused.value)]

    with ThreadPoolExecutor(1) as pool:
        assert refusals() == pool.submit(refusals).result()
    assert threading.RLock().acquire(timeout=threading.TIMEOUT_MAX)


def test_who_waits_long_for_a_reentrant_lock_is_next() -> None:
    """Those that take it again and again do not have it for ever."""
    lock = threading.RLock()
    stop = False

    def hog() -> int:
        turns = 0
        while not stop:
            with lock:
                until = time.monotonic() + 0.002
                while time.monotonic() < until:
                    pass
                gosched()
            turns += 1
        return turns

    hogs = [go(hog) for _ in range(3)]
    for _ in range(10):
        with lock:
            pass
        gosched()
    stop = True
    turns = [g.result() for g in hogs]
    assert min(turns) > 0
    assert max(turns) < 100


def test_a_cancelled_wait_for_a_reentrant_lock() -> None:
    lock = threading.RLock()
    with lock:
        waiter = go(lock.acquire)
        gosched()
        waiter.cancel()
        with pytest.raises(Cancelled):
            waiter.result()
    assert go(lock.acquire, False).result() is True


REPLACED_BEFORE = """
import _signal, _thread, faulthandler, posix, threading
for module, name in [
    (_signal, "pthread_kill"), (_thread, "get_ident"), (posix, "fork"),
    (faulthandler, "enable"), (faulthandler, "disable"),
]:
    def wrapper(*args, original=getattr(module, name), **kwargs):
        return original(*args, **kwargs)
    setattr(module, name, wrapper)
import golibx
faulthandler.enable()
get_ident = threading.get_ident
def main():
    for function in _thread.get_ident, get_ident:
        print(golibx.go(function).result() == function())
    print(faulthandler.is_enabled())
golibx.run(main)
"""


def test_functions_that_the_program_has_replaced_before(script: Script) -> None:
    """As ipykernel does with faulthandler.enable: the interpreter's own are under them."""
    assert script.passes(REPLACED_BEFORE).split() == ["False", "False", "True"]


REPLACED_CLASS = """
import _io, importlib, io, os, sys, threading
module, _, name = sys.argv[1].partition(".")
holder = importlib.import_module(module)
own = getattr(holder, name)
if sys.argv[2] == "derived class":
    new = type(name, (own,), {"__module__": own.__module__})
elif sys.argv[2] == "other class":
    new = type(name, (), {
        "__module__": own.__module__,
        "__init__": lambda self, *args, **kwargs: setattr(self, "own", own(*args, **kwargs)),
        "__getattr__": lambda self, name: getattr(self.own, name),
        "__enter__": lambda self: self.own.__enter__(),
        "__exit__": lambda self, *exc: self.own.__exit__(*exc),
    })
else:
    def new(*args, **kwargs): return own(*args, **kwargs)
early = threading.RLock()
setattr(holder, name, new)
import golibx
from golibx import _core
in_place = {}
def main():
    in_place.update(_core.replaced())
    early.acquire()
    assert golibx.go(early.acquire, False).result() is False
    kept = threading.local()
    kept.x = 1
    assert golibx.go(hasattr, kept, "x").result() is False
    if module == "selectors":
        import asyncio
        assert golibx.go(asyncio.run, asyncio.sleep(0, 5)).result() == 5
    fd = os.eventfd(0)
    os.close(fd)
golibx.run(main)
print(*(name in in_place for name in ("_thread.RLock.acquire", "_io.BufferedReader.read")))
"""


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("_thread.RLock", "derived class"),
        ("_thread.RLock", "other class"),
        ("_thread.RLock", "function"),
        ("_io.BufferedReader", "derived class"),
        ("_io.BufferedReader", "function"),
        ("_thread._local", "other class"),
        ("selectors.EpollSelector", "function"),
        ("posix.close", "function"),
        ("sys._current_frames", "function"),
    ],
)
def test_what_else_the_program_has_replaced_before(script: Script, name: str, how: str) -> None:
    """The interpreter's own classes are found among all that there are."""
    assert script.passes(REPLACED_CLASS, name, how).split() == ["True", "True"]
