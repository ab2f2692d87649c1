"""golibx.aio: coroutines awaited by goroutines, and goroutines awaited by coroutines."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import (
    Cancelled,
    Chan,
    DeadlineExceeded,
    Event,
    aio,
    context,
    current,
    go,
    gosched,
    num_goroutine,
    run,
    scope,
    sleep,
)
from golibx.testing import wait_until

pytestmark = pytest.mark.goroutine


async def give(value: object, seconds: float = 0.001) -> object:
    await asyncio.sleep(seconds)
    return value


class Waiting:
    """A coroutine that waits for ever, and takes a while to clean up."""

    def __init__(self, at_end: BaseException | None = None, stays: bool = False) -> None:
        self.begun = Event()
        self.cancels = 0
        self.cleaned_up = False
        self.release = asyncio.Event()
        self.at_end = at_end
        self.stays = stays

    async def main(self) -> str:
        while True:
            try:
                self.begun.set()
                await self.release.wait()
                self.cleaned_up = True
                return "released"
            except asyncio.CancelledError:
                self.cancels += 1
                if self.stays:
                    continue
                await asyncio.sleep(0.001)
                self.cleaned_up = True
                if self.at_end is not None:
                    raise self.at_end from None
                raise


# ---- run() ----


def test_run_gives_the_result() -> None:
    assert aio.run(give(42)) == 42


def test_goroutines_share_one_loop() -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop()

    with scope() as s:
        loops = set(s.map(lambda _: aio.run(loop()), range(20)))
    assert len(loops) == 1
    assert num_goroutine() == 1  # the loop's is the runtime's own
    # Made for it: what belongs to the loop is used by all.
    lock = asyncio.Lock()

    async def locked(n: int) -> int:
        async with lock:
            return await give(n)  # type: ignore[return-value]

    with scope() as s:
        assert list(s.map(lambda n: aio.run(locked(n)), range(10))) == list(range(10))


def test_coroutines_of_many_goroutines_wait_at_the_same_time() -> None:
    everybody = asyncio.Event()
    waiting = 0

    async def wait() -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 300:
            everybody.set()
        await everybody.wait()

    with scope() as s:
        for _ in range(300):
            s.go(aio.run, wait())
    assert waiting == 300


def test_run_raises_what_the_coroutine_raised() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError("no")

    with pytest.raises(LookupError, match="no") as info:
        aio.run(fails())
    assert info.traceback[-1].name == "fails"
    assert aio.run(give(1)) == 1


def test_run_has_a_copy_of_the_context_variables() -> None:
    variable = contextvars.ContextVar("variable", default="none")

    async def change() -> str:
        seen = variable.get()
        variable.set("changed")
        await asyncio.sleep(0)
        return seen + " " + variable.get()

    assert aio.run(change()) == "none changed"
    variable.set("mine")
    assert aio.run(change()) == "mine changed"
    assert variable.get() == "mine"
    assert go(aio.run, change()).result() == "mine changed"


def test_a_task_that_cancels_itself() -> None:
    async def cancels() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        aio.run(cancels())


def test_a_coroutine_that_blocks_freezes_no_goroutine() -> None:
    log: list[str] = []

    async def hog() -> None:
        log.append("begins")
        while not stop:
            pass
        log.append("ends")

    stop = False
    hogging = go(aio.run, hog())
    wait_until(lambda: log)
    for _ in range(5):
        sleep(0.001)
    log.append("goroutine")
    stop = True
    hogging.result()
    assert log == ["begins", "goroutine", "ends"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_coroutine_that_ends_the_program_ends_not_the_loop(kind: type[BaseException]) -> None:
    async def quits() -> None:
        raise kind(3)

    other = Waiting()
    waiting = go(aio.run, other.main())
    other.begun.wait()
    with pytest.raises(kind):
        aio.run(quits())
    assert aio.run(give(1)) == 1
    waiting.cancel()
    waiting.join()
    assert other.cleaned_up


# ---- run() under cancellation ----


def test_cancelling_the_goroutine_cancels_the_task() -> None:
    waiting = Waiting()
    g = go(aio.run, waiting.main())
    waiting.begun.wait()
    g.cancel()
    with pytest.raises(Cancelled):
        g.result()
    assert (waiting.cleaned_up, waiting.cancels) == (True, 1)


def test_a_deadline_cancels_the_task() -> None:
    waiting = Waiting()
    with pytest.raises(DeadlineExceeded), context.with_timeout(context.current(), 0.005):
        aio.run(waiting.main())
    assert waiting.cleaned_up


def test_a_context_that_is_done_does_not_let_the_coroutine_begin_to_wait() -> None:
    waiting = Waiting()
    with pytest.raises(Cancelled), context.with_cancel(context.current()) as (_, cancel):
        cancel()
        aio.run(waiting.main())
    assert not waiting.begun.is_set() or waiting.cleaned_up


def test_a_task_that_fails_when_it_is_cancelled() -> None:
    waiting = Waiting(at_end=OSError("cannot clean up"))
    g = go(aio.run, waiting.main())
    waiting.begun.wait()
    g.cancel()
    with pytest.raises(OSError, match="cannot clean up") as info:
        g.result()
    assert isinstance(info.value.__context__, Cancelled)


def test_a_task_that_goes_on_when_it_is_cancelled() -> None:
    waiting = Waiting(stays=True)
    g = go(aio.run, waiting.main())
    waiting.begun.wait()
    for n in range(1, 4):
        g.cancel()
        wait_until(lambda: waiting.cancels >= n)
    assert not g.done()
    aio.run(give(waiting.release.set()))
    with pytest.raises(Cancelled):
        g.result()
    assert waiting.cleaned_up


def test_cancellation_at_any_moment() -> None:
    """Either the result or Cancelled; and the coroutine ends before the goroutine."""
    outcomes = set()
    for n in range(60):
        ended = False

        async def main() -> int:
            nonlocal begun, ended
            begun = True
            try:
                for _ in range(3):
                    await asyncio.sleep(0)
                return 1
            finally:
                ended = True

        begun = False
        g = go(lambda main=main: aio.run(main()))
        for _ in range(n % 20):
            gosched()
        g.cancel()
        g.join()
        assert ended == begun
        outcomes.add("cancelled" if isinstance(g.exception, Cancelled) else g.result())
    assert outcomes == {"cancelled", 1}


# ---- the end of a run ----


@pytest.mark.goroutine(False)
def test_the_end_of_a_run_ends_its_coroutines_and_its_loop() -> None:
    waiting = Waiting()
    tasks: list[asyncio.Task[object]] = []
    loops: list[asyncio.AbstractEventLoop] = []
    child = Waiting()

    async def main() -> str:
        loops.append(asyncio.get_running_loop())
        tasks.append(asyncio.create_task(child.main()))
        return await waiting.main()

    def start() -> None:
        go(aio.run, main())
        waiting.begun.wait()
        child.begun.wait()

    run(start)
    assert waiting.cleaned_up
    assert child.cleaned_up
    assert tasks[0].cancelled()
    assert loops[0].is_closed()
    assert run(lambda: aio.run(give(2))) == 2


@pytest.mark.goroutine(False)
def test_goroutines_that_are_cancelled_at_the_end_may_still_await() -> None:
    log: list[object] = []
    begun = Event()

    def worker() -> None:
        try:
            begun.set()
            sleep(3600)
        finally:
            log.append(aio.run(give("closed")))

    def main() -> None:
        go(worker)
        begun.wait()

    run(main)
    assert log == ["closed"]


@pytest.mark.goroutine(False)
def test_a_loop_that_does_not_end(script: Script) -> None:
    program = """
import asyncio
from golibx import Event, aio, go, run

begun = Event()

async def stays():
    begun.set()
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def start():
    global task
    task = asyncio.create_task(stays())

def main():
    aio.run(start())
    begun.wait()

run(main, config={"runtime": {"shutdown_timeout": "10ms"}})
print("ended")
"""
    result = script(program)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "ended\n"
    assert "golibx: the event loop of golibx.aio did not end within 10ms" in result.stderr


@pytest.mark.goroutine(False)
def test_ctrl_c_cancels_the_task(script: Script) -> None:
    program = """
import asyncio
from golibx import aio, run

async def main():
    try:
        print("ready", flush=True)
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.001)
        print("cleaned up", flush=True)

try:
    run(lambda: aio.run(main()))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with script.start(program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate() == ("cleaned up\ninterrupted\n", "")
        assert process.returncode == 0


@pytest.mark.goroutine(False)
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_child_process_has_a_loop_of_its_own(script: Script) -> None:
    program = """
import asyncio, os
from golibx import aio, run

async def give(value):
    await asyncio.sleep(0.001)
    return value

def main():
    print(aio.run(give("parent")), flush=True)
    pid = os.fork()
    if pid == 0:
        os._exit(child())
    assert os.waitpid(pid, 0)[1] == 0

def child():
    print(run(lambda: aio.run(give("child"))), flush=True)
    return 0

run(main)
"""
    assert script.passes(program) == "parent\nchild\n"


# ---- wait() ----


def everywhere(coro: Coroutine[Any, Any, Any], where: str) -> Any:
    """Runs the coroutine in a loop of a goroutine, of aio.run() or of a thread."""
    if where == "goroutine":
        return go(asyncio.run, coro).result()
    if where == "aio":
        return aio.run(coro)
    outcome: Chan[Any] = Chan(1)

    def thread() -> None:
        try:
            outcome.send(asyncio.run(coro))
        except BaseException as error:
            outcome.send(error)

    started = threading.Thread(target=thread)
    started.start()
    result = outcome.recv()
    started.join()
    if isinstance(result, BaseException):
        raise result
    return result


WHERE = pytest.mark.parametrize("where", ["goroutine", "aio", "thread"])


@WHERE
def test_wait_gives_the_result(where: str) -> None:
    async def main() -> list[int]:
        slow = go(lambda: (sleep(0.002), 1)[1])
        gs = [go(lambda n=n: n) for n in range(3)]
        waits = [aio.wait(g) for g in (slow, *gs)]
        results = await asyncio.gather(*waits)
        return [*results, await aio.wait(slow), await aio.wait(go(lambda: 5))]

    assert everywhere(main(), where) == [1, 0, 1, 2, 1, 5]


@WHERE
def test_wait_raises_what_the_goroutine_raised(where: str) -> None:
    def fails() -> None:
        sleep(0.001)
        raise LookupError("no")

    async def main() -> None:
        with pytest.raises(LookupError, match="no"):
            await aio.wait(go(fails))
        cancelled = go(sleep, 3600)
        waiting = asyncio.create_task(aio.wait(cancelled))
        await asyncio.sleep(0.001)
        cancelled.cancel()
        with pytest.raises(Cancelled):
            await waiting

    everywhere(main(), where)


@WHERE
def test_a_wait_that_is_cancelled_leaves_the_goroutine_alone(where: str) -> None:
    released = Event()

    async def main() -> None:
        g = go(lambda: (released.wait(), 7)[1])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(aio.wait(g), 0.002)
        assert not g.done()
        released.set()
        assert await aio.wait(g) == 7

    everywhere(main(), where)
    assert num_goroutine() == 1


@WHERE
def test_a_wait_that_cancels_the_goroutine(where: str) -> None:
    begun = cleaned_up = False

    def worker() -> None:
        nonlocal begun, cleaned_up
        try:
            begun = True
            sleep(3600)
        finally:
            with context.without_cancel(context.current()):
                sleep(0.001)
            cleaned_up = True

    async def main() -> None:
        g = go(worker)
        while not begun:
            await asyncio.sleep(0.001)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(aio.wait(g, cancel=True), 0.005)
        assert g.done()
        assert cleaned_up

    everywhere(main(), where)


def test_a_wait_that_cancels_a_goroutine_which_fails_for_it() -> None:
    def worker() -> None:
        try:
            sleep(3600)
        except Cancelled:
            raise OSError("cannot clean up") from None

    async def main() -> None:
        g = go(worker)
        task = asyncio.create_task(aio.wait(g, cancel=True))
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(OSError, match="cannot clean up"):
            await task

    asyncio.run(main())


def test_an_exception_that_a_coroutine_collects_is_not_reported(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fails() -> None:
        raise LookupError("no")

    async def main() -> None:
        with pytest.raises(LookupError):
            await aio.wait(go(fails))

    aio.run(main())
    assert capfd.readouterr().err == ""


def test_both_ways_at_once() -> None:
    """A goroutine waits for a coroutine that waits for a goroutine that …"""

    def down(n: int) -> int:
        return 0 if n == 0 else aio.run(up(n))

    async def up(n: int) -> int:
        return 1 + await aio.wait(go(down, n - 1))

    assert down(50) == 50


@pytest.mark.goroutine(False)
def test_asyncio_in_the_main_thread_and_golibx_in_another(script: Script) -> None:
    program = """
import asyncio, threading
from golibx import Chan, aio, go, run, sleep

quit = Chan(1)
running = threading.Event()

def golib():
    running.set()
    quit.recv(30)  # a wait with a time-out is no deadlock

async def main():
    thread = threading.Thread(target=run, args=(golib,))
    thread.start()
    await asyncio.to_thread(running.wait)
    results = [aio.wait(go(lambda n=n: (sleep(0.001), n)[1])) for n in range(5)]
    print(await asyncio.gather(*results))
    left = go(sleep, 3600)
    waiting = asyncio.create_task(aio.wait(left))
    await asyncio.sleep(0.01)
    quit.send(None)
    try:
        await waiting
    except BaseException as error:
        print(type(error).__name__)
    thread.join()
    try:
        await aio.wait(go(print))
    except RuntimeError as error:
        print("RuntimeError")

asyncio.run(main())
"""
    assert script.passes(program) == "[0, 1, 2, 3, 4]\nCancelled\nRuntimeError\n"


@pytest.mark.goroutine(False)
def test_a_goroutine_that_outlives_its_run(script: Script) -> None:
    program = """
import asyncio, threading, time
from golibx import Cancelled, Chan, aio, go, run

quit = Chan(1)
started = Chan(1)
waiting = threading.Event()
gone = threading.Event()

def stays():
    started.send(None)
    gone.wait()

def golib():
    global g
    g = go(stays)
    started.recv()
    running.set()
    quit.recv(30)  # a wait with a time-out is no deadlock

running = threading.Event()

async def main():
    config = {"runtime": {"shutdown_timeout": "10ms"}}
    thread = threading.Thread(target=run, args=(golib,), kwargs={"config": config})
    thread.start()
    await asyncio.to_thread(running.wait)
    task = asyncio.create_task(aio.wait(g))
    await asyncio.sleep(0.01)
    quit.send(None)
    for wait in (task, aio.wait(g)):
        try:
            await wait
        except RuntimeError as error:
            print(error)
    gone.set()
    thread.join()

asyncio.run(main())
"""
    out = script.passes(program)
    assert [line.rstrip("0123456789") for line in out.splitlines()] == [
        "the golibx run ended before goroutine "
    ] * 2


@pytest.mark.goroutine(False)
def test_a_thread_that_imports_while_the_first_run_begins(script: Script) -> None:
    program = """
import sys, threading
from golibx import run

class Finder:
    # Called with the import system's lock held.
    def find_spec(self, name, path, target=None):
        if name == "missing":
            importing.set()
            go_on.wait()

def imports():
    try:
        import missing
    except ImportError as error:
        print(error)

importing = threading.Event()
go_on = threading.Event()
sys.meta_path.insert(0, Finder())
thread = threading.Thread(target=imports)
thread.start()
importing.wait()
run(go_on.set)
thread.join()
import html
run(lambda: __import__("decimal"))
"""
    assert script.passes(program) == "No module named 'missing'\n"


# ---- bad use ----


def test_bad_use_of_run() -> None:
    for bad in (3, give, asyncio.sleep):
        with pytest.raises(TypeError, match="needs a coroutine, not"):
            aio.run(bad)  # type: ignore[arg-type]

    async def main() -> None:
        coroutine = give(1)
        try:
            with pytest.raises(RuntimeError, match="cannot be called from a coroutine"):
                aio.run(coroutine)
        finally:
            coroutine.close()

    aio.run(main())
    asyncio.run(main())


@pytest.mark.goroutine(False)
def test_run_outside_of_a_goroutine() -> None:
    coroutine = give(1)
    with pytest.raises(RuntimeError, match="works in goroutines"):
        aio.run(coroutine)
    coroutine.close()


def test_bad_use_of_wait() -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="needs a Goroutine, not 3"):
            await aio.wait(3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="needs a Goroutine, not <coroutine"):
            coroutine = give(1)
            try:
                await aio.wait(coroutine)  # type: ignore[arg-type]
            finally:
                coroutine.close()
        me = current()
        assert me is not None
        with pytest.raises(RuntimeError, match="cannot wait for itself"):
            await aio.wait(me)

    asyncio.run(main())


def test_aio_is_an_attribute_of_the_package() -> None:
    assert golibx.aio is aio
    assert aio.__all__ == ["run", "wait"]
