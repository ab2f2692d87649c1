"""asyncio in goroutines: event loops beside goroutines, and beside each other on one thread."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import Script
from golibx import (
    Cancelled,
    Chan,
    DeadlineExceeded,
    Event,
    WaitGroup,
    context,
    current,
    go,
    gosched,
    net,
    run,
    scope,
    sleep,
)
from golibx.testing import wait_until
from leaking import parked, threads_in_use

pytestmark = pytest.mark.goroutine


# ---- one loop among goroutines ----


def test_run_gives_the_result() -> None:
    async def main() -> int:
        await asyncio.sleep(0.001)
        return 42

    assert asyncio.run(main()) == 42
    assert go(asyncio.run, main()).result() == 42


def test_run_raises_what_the_coroutine_raised() -> None:
    async def main() -> None:
        await asyncio.sleep(0)
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        go(asyncio.run, main()).result()


def test_others_go_on_while_a_loop_waits() -> None:
    """The loop waits for what only they do."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def main() -> bytes:
        return await asyncio.get_running_loop().sock_recv(ours, 100)

    loop = go(asyncio.run, main())
    for _ in range(5):
        sleep(0.001)
    parked(loop)
    theirs.send(b"data")
    assert loop.result() == b"data"
    ours.close()
    theirs.close()


@pytest.mark.skipif(not hasattr(selectors, "EpollSelector"), reason="the loop waits in epoll")
def test_loops_that_wait_need_no_threads() -> None:
    everybody = WaitGroup()
    everybody.add(30)

    async def main() -> None:
        released = asyncio.Event()
        loops.append((asyncio.get_running_loop(), released))
        everybody.done()
        await released.wait()

    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    running = [go(asyncio.run, main()) for _ in range(30)]
    everybody.wait()
    for goroutine in running:
        parked(goroutine)
    assert {goroutine.kept_by for goroutine in running} == {None}
    wait_until(lambda: threads_in_use() < 15)
    for loop, released in loops:
        loop.call_soon_threadsafe(released.set)
    for goroutine in running:
        goroutine.result()


def test_a_hog_freezes_no_loop_and_a_coroutine_that_hogs_no_goroutine() -> None:
    stop = False

    log: list[str] = []

    def hog() -> None:
        while not stop:
            pass
        log.append("hog")

    async def main() -> None:
        nonlocal stop
        for _ in range(5):
            await asyncio.sleep(0.001)
        log.append("loop")
        stop = True

    async def hogs() -> None:
        hog()

    hogging = go(hog)
    asyncio.run(main())
    hogging.result()
    assert log == ["loop", "hog"]
    stop = False
    loop = go(asyncio.run, hogs())
    for _ in range(5):
        sleep(0.001)
    log.append("goroutine")
    stop = True
    loop.result()
    assert log == ["loop", "hog", "goroutine", "hog"]


def test_a_server_in_a_loop_and_clients_in_goroutines() -> None:
    address: Chan[tuple[str, int]] = Chan(1)
    ended: Chan[asyncio.Event] = Chan(1)
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        loops.append(asyncio.get_running_loop())
        ending = asyncio.Event()
        ended.send(ending)
        address.send(server.sockets[0].getsockname()[:2])
        async with server:
            await ending.wait()

    def client(n: int) -> bytes:
        with net.dial(where) as conn:
            for i in range(10):
                conn.sendall(b"client %d line %d\n" % (n, i))
            reply = b""
            while reply.count(b"\n") < 10:
                reply += conn.recv(1000)
            return reply

    server = go(asyncio.run, main())
    where = address.recv()
    with scope() as s:
        replies = list(s.map(client, range(20)))
    assert [reply.splitlines()[9] for reply in replies] == [
        b"CLIENT %d LINE 9" % n for n in range(20)
    ]
    loops[0].call_soon_threadsafe(ended.recv().set)
    server.result()


def test_call_soon_threadsafe_from_goroutines_and_threads() -> None:
    loops: Chan[asyncio.AbstractEventLoop] = Chan(1)
    got: list[int] = []

    async def main() -> None:
        all_ = asyncio.Event()
        loop = asyncio.get_running_loop()

        def take(n: int) -> None:
            got.append(n)
            if len(got) == 200:
                all_.set()

        loop.take = take  # type: ignore[attr-defined]
        loops.send(loop)
        await all_.wait()

    def give(loop: asyncio.AbstractEventLoop, first: int) -> None:
        for n in range(first, first + 50):
            loop.call_soon_threadsafe(loop.take, n)  # type: ignore[attr-defined]
            if current() is not None:
                gosched()

    running = go(asyncio.run, main())
    loop = loops.recv()
    thread = threading.Thread(target=give, args=(loop, 0))
    thread.start()
    with scope() as s:
        for n in range(1, 4):
            s.go(give, loop, n * 50)
    running.result()
    thread.join()
    assert sorted(got) == list(range(200))


def test_to_thread_and_executors() -> None:
    async def main() -> tuple[int, int]:
        a = asyncio.to_thread(lambda: (time.sleep(0.001), 1)[1])
        with ThreadPoolExecutor(1) as pool:
            b = asyncio.get_running_loop().run_in_executor(pool, lambda: 2)
            return await a, await b

    assert go(asyncio.run, main()).result() == (1, 2)


# asyncio itself ignores that for as long as it calls it, for all that run meanwhile or for none.
@pytest.mark.filterwarnings("ignore:'get_child_watcher' is deprecated")
def test_subprocesses() -> None:
    async def main() -> tuple[bytes, int | None]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input()[::-1])", stdin=-1, stdout=-1
        )
        out, _ = await process.communicate(b"golibx\n")
        return out, process.returncode

    running = [go(asyncio.run, main()) for _ in range(2)]
    assert [goroutine.result() for goroutine in running] == [(b"xbilog\n", 0)] * 2


# ---- several loops ----


@pytest.mark.parametrize("debug", [False, True])
def test_loops_of_goroutines_on_one_thread_are_apart(debug: bool) -> None:
    everybody = WaitGroup()
    everybody.add(4)

    async def main(n: int) -> tuple[int, asyncio.AbstractEventLoop]:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        # In the middle of a step: all four loops are now running.
        everybody.done()
        everybody.wait()
        for _ in range(10):
            await asyncio.sleep(0.001)
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is task
            assert asyncio.all_tasks() == {task}
            gosched()
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is task
        return n, loop

    running = [go(asyncio.run, main(n), debug=debug) for n in range(4)]
    results = [goroutine.result() for goroutine in running]
    assert [n for n, _ in results] == list(range(4))
    assert len({id(loop) for _, loop in results}) == 4
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_a_loop_within_a_running_loop_is_refused_as_ever() -> None:
    async def inner() -> None: ...

    async def main() -> None:
        coroutine = inner()
        try:
            with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
                asyncio.run(coroutine)
        finally:
            coroutine.close()
        # In a goroutine of its own it may run, although this one waits in the middle of a step.
        go(asyncio.run, inner()).result()

    asyncio.run(main())


@pytest.mark.limit(120)
@pytest.mark.goroutine(preempt={"slice": "100us"})
def test_loops_that_are_preempted_and_change_threads() -> None:
    """In debug mode, where asyncio checks that no other thread touches the loop."""
    moved: set[int] = set()

    async def worker(queue: asyncio.Queue[int], lock: asyncio.Lock, out: list[int]) -> None:
        while True:
            n = await queue.get()
            moved.add(threading.get_native_id())
            async with lock:
                if n % 10 == 0:
                    time.sleep(0.0005)  # the scheduler takes the processor back
                sum(range(500))
                out.append(n)
            queue.task_done()

    async def main() -> int:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[int] = asyncio.Queue(3)
        lock = asyncio.Lock()
        out: list[int] = []
        workers = [asyncio.create_task(worker(queue, lock, out)) for _ in range(4)]
        for n in range(100):
            await queue.put(n)
            assert asyncio.get_running_loop() is loop
        await queue.join()
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return sum(out)

    while len(moved) < 2:
        running = [go(asyncio.run, main(), debug=True) for _ in range(8)]
        assert [goroutine.result() for goroutine in running] == [4950] * 8


def test_a_goroutine_that_changes_threads_does_not_take_the_main_threads_place() -> None:
    """As when it is moved in the middle of current_thread(), which asyncio.run() calls."""
    made_up = go(threading._DummyThread).result()
    assert threading.current_thread() is threading.main_thread()
    assert made_up.ident != threading.get_ident()
    del made_up
    assert threading.current_thread() is threading.main_thread()


# ---- cancellation and deadlines ----


class Cleanup:
    """A coroutine that waits for ever, and cleans up with a wait of its own."""

    def __init__(self) -> None:
        self.begun = Event()
        self.log: list[str] = []

    async def main(self) -> None:
        task = asyncio.create_task(self.wait("child"))
        try:
            await self.wait("main")
        finally:
            await asyncio.gather(task, return_exceptions=True)

    async def wait(self, name: str) -> None:
        try:
            self.begun.set()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
            self.log.append(name)
            raise


def test_cancelling_the_goroutine_cancels_the_tasks_and_cleans_up() -> None:
    cleanup = Cleanup()
    running = go(asyncio.run, cleanup.main())
    cleanup.begun.wait()
    parked(running)
    assert running.cancel()
    with pytest.raises(Cancelled):
        running.result()
    assert sorted(cleanup.log) == ["child", "main"]


def test_a_deadline_of_the_goroutine_cancels_the_tasks_and_cleans_up() -> None:
    cleanup = Cleanup()
    with (
        pytest.raises(DeadlineExceeded),
        context.with_timeout(context.current(), 0.01),
    ):
        asyncio.run(cleanup.main())
    assert sorted(cleanup.log) == ["child", "main"]


def test_a_scope_cancels_the_loops_in_it() -> None:
    cleanups = [Cleanup() for _ in range(3)]

    def fails() -> None:
        for cleanup in cleanups:
            cleanup.begun.wait()
        raise ValueError("enough")

    with pytest.raises(ExceptionGroup) as info, scope() as s:
        for cleanup in cleanups:
            s.go(asyncio.run, cleanup.main())
        s.go(fails)
    assert [str(error) for error in info.value.exceptions] == ["enough"]
    assert all(sorted(cleanup.log) == ["child", "main"] for cleanup in cleanups)


@pytest.mark.goroutine(False)
def test_the_end_of_the_run_ends_loops() -> None:
    cleanup = Cleanup()

    def main() -> None:
        go(asyncio.run, cleanup.main())
        cleanup.begun.wait()

    run(main)
    assert sorted(cleanup.log) == ["child", "main"]


def test_timeouts_of_asyncio() -> None:
    async def main() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(3600)
        except TimeoutError:
            return "in time"
        return "late"

    assert go(asyncio.run, main()).result() == "in time"


# ---- loops beside the run ----


@pytest.mark.goroutine(False)
def test_a_loop_is_used_before_in_and_after_runs() -> None:
    async def main() -> int:
        await asyncio.sleep(0.001)
        return 1

    run(lambda: None)
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(main()) == 1
    assert run(loop.run_until_complete, main()) == 1
    assert run(loop.run_until_complete, main()) == 1
    assert loop.run_until_complete(main()) == 1
    loop.close()


def test_a_loop_in_a_thread_beside_goroutines() -> None:
    ended: Chan[int] = Chan(1)

    async def main() -> None:
        for _ in range(5):
            await asyncio.sleep(0.001)
        ended.send(1)

    thread = threading.Thread(target=lambda: asyncio.run(main(), debug=True))
    thread.start()
    assert ended.recv() == 1
    thread.join()


# ---- the selector itself ----


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


def test_a_selector_in_a_goroutine(pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    with selectors.DefaultSelector() as selector:
        key = selector.register(a, selectors.EVENT_READ, "data")
        assert selector.select(0) == []
        assert selector.select(-1) == []
        assert selector.select(0.002) == []
        selecting = go(selector.select)
        parked(selecting)
        b.send(b"x")
        assert selecting.result() == [(key, selectors.EVENT_READ)]
        # Not read: it is still ready, each time.
        assert selector.select() == [(key, selectors.EVENT_READ)]
        assert selector.select(60) == [(key, selectors.EVENT_READ)]
        assert a.recv(10) == b"x"
        assert selector.select(0.001) == []
        key = selector.modify(a, selectors.EVENT_READ | selectors.EVENT_WRITE)
        assert selector.select() == [(key, selectors.EVENT_WRITE)]
        selector.unregister(a)
        assert selector.select(0.001) == []
        # What is registered while it waits counts, as with epoll.
        selecting = go(selector.select, 60)
        parked(selecting)
        selector.register(b, selectors.EVENT_WRITE)
        assert len(selecting.result()) == 1


def test_a_selector_is_closed() -> None:
    selector = selectors.DefaultSelector()
    assert selector.select(0.001) == []
    fds = os.listdir("/proc/self/fd") if sys.platform == "linux" else []
    selector.close()
    if fds:
        assert len(os.listdir("/proc/self/fd")) == len(fds) - 2  # that of epoll, and the watched


# ---- signals, in a process of their own ----

INTERRUPTED = """
import asyncio, os, signal, sys
from golibx import go, run, sleep

async def main():
    try:
        print("ready", flush=True)
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.001)
        print("cleaned up", flush=True)

try:
    run(asyncio.run, main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.goroutine(False)
def test_ctrl_c_in_a_loop_of_the_main_goroutine(script: Script) -> None:
    with script.start(INTERRUPTED) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate() == ("cleaned up\ninterrupted\n", "")
        assert process.returncode == 0


@pytest.mark.goroutine(False)
def test_ctrl_c_while_the_loop_is_in_another_goroutine(script: Script) -> None:
    program = INTERRUPTED.replace("run(asyncio.run, main())", "run(lambda: outer())").replace(
        "try:\n    run",
        "def outer():\n    go(asyncio.run, main())\n    sleep(3600)\n\ntry:\n    run",
    )
    with script.start(program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate() == ("cleaned up\ninterrupted\n", "")
        assert process.returncode == 0


HANDLERS = """
import asyncio, signal
from golibx import Chan, go, run, sleep

async def main():
    loop = asyncio.get_running_loop()
    terminated = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: print("usr1", flush=True))
    print("ready", flush=True)
    await terminated.wait()
    if not KEEP:
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGUSR1)
    try:
        print("terminated", flush=True)
        await asyncio.sleep(3600)
    finally:
        print("cleaned up", flush=True)

try:
    run(asyncio.run, main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.goroutine(False)
@pytest.mark.parametrize("keep", [True, False])
def test_signal_handlers_of_a_loop_and_ctrl_c(script: Script, keep: bool) -> None:
    """With the loop's handlers in place Ctrl-C works, and it does after they were removed."""
    with script.start(HANDLERS.replace("KEEP", str(keep))) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "usr1\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "terminated\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate() == ("cleaned up\ninterrupted\n", "")
        assert process.returncode == 0


STRIKE = """
import threading, time

def strike():
    time.sleep(0.1)  # for the main thread to have gone to sleep
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

thread = threading.Thread(target=strike)
"""


@pytest.mark.goroutine(False)
def test_a_ctrl_c_that_another_thread_gets_after_a_loop_handled_signals(script: Script) -> None:
    """Nothing but what the interpreter writes for a signal wakes the main thread then."""
    program = HANDLERS.replace("KEEP", "False").replace(
        "        await asyncio.sleep(3600)\n",
        "        thread.start()\n        await asyncio.sleep(3600)\n",
    )
    program = program.replace("    await terminated.wait()\n", "")
    out = script.passes(STRIKE + program)
    assert out == "ready\nterminated\ncleaned up\ninterrupted\n"


@pytest.mark.goroutine(False)
def test_a_ctrl_c_that_another_thread_gets_while_a_loop_handles_signals(script: Script) -> None:
    """The loop gets what the interpreter writes, and the main thread is in a C call."""
    program = """
import asyncio, signal
from golibx import Chan, go, run

async def loop():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)
    handled.send(True)
    await asyncio.sleep(3600)

def main():
    go(asyncio.run, loop())
    handled.recv()
    thread.start()
    time.sleep(3600)

handled = Chan()
try:
    run(main)
except KeyboardInterrupt:
    print("interrupted")
"""
    assert script.passes(STRIKE + program) == "interrupted\n"


# ---- how asyncio is changed ----


@pytest.mark.goroutine(False)
@pytest.mark.parametrize("early", [True, False])
def test_asyncio_is_imported_before_or_in_the_run(script: Script, early: bool) -> None:
    program = """
import importlib.util, inspect, sys
from golibx import current, go, gosched, run

if EARLY:
    import asyncio

def main():
    importlib.util.find_spec("selectors")  # asking is not importing
    import asyncio, asyncio.base_events, selectors

    async def wait():
        await asyncio.sleep(3600)

    g = go(lambda: asyncio.run(wait(), debug=True))
    while not g.waiting:
        gosched()
    g.cancel()
    g.join()
    assert "class BaseEventLoop" in inspect.getsource(asyncio.base_events)
    assert type(asyncio.base_events.__spec__.loader).__module__ == "_frozen_importlib_external"
    print(asyncio.base_events.threading.Thread.__name__)

run(main)
run(main)
"""
    assert script.passes(program.replace("EARLY", str(early))) == "Thread\nThread\n"
