"""GoroutinePoolExecutor, an Executor of concurrent.futures with goroutines for workers."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import traceback
from concurrent import futures

import pytest

import golibx
from conftest import Script
from golibx import (
    Cancelled,
    Chan,
    DeadlineExceeded,
    Event,
    Goroutine,
    GoroutinePoolExecutor,
    WaitGroup,
    _core,
    context,
    current,
    go,
    num_goroutine,
    run,
    sleep,
    stats,
)
from golibx.testing import wait_until, wait_until_parked
from leaking import threads_in_use

pytestmark = pytest.mark.goroutine


# ---- calls ----


def test_submit_gives_the_result() -> None:
    with GoroutinePoolExecutor() as executor:
        future = executor.submit(divmod, 7, 2)
        assert isinstance(future, futures.Future)
        assert future.result() == (3, 1)
        assert executor.submit(dict, a=1).result(1.0) == {"a": 1}
    assert num_goroutine() == 1


def test_without_a_limit_all_calls_run_at_once() -> None:
    everybody = WaitGroup()
    everybody.add(300)

    def call() -> None:
        everybody.done()
        everybody.wait()

    with GoroutinePoolExecutor() as executor:
        for future in [executor.submit(call) for _ in range(300)]:
            assert future.result() is None


@pytest.mark.parametrize("limit", [1, 3])
def test_the_limit_is_one_on_calls_at_once_and_is_used_up(limit: int) -> None:
    running = most = 0

    def call(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        sleep(0.001)
        running -= 1
        return n

    with GoroutinePoolExecutor(limit) as executor:
        results = [executor.submit(call, n) for n in range(20)]
        assert [future.result() for future in results] == list(range(20))
    assert most == limit


def test_calls_that_wait_for_a_place_begin_in_order() -> None:
    begun: list[int] = []
    with GoroutinePoolExecutor(1) as executor:
        for n in range(50):
            executor.submit(begun.append, n)
    assert begun == list(range(50))


def test_an_exception_keeps_its_traceback() -> None:
    def fails() -> None:
        raise ValueError("no")

    with GoroutinePoolExecutor() as executor:
        future = executor.submit(fails)
        with pytest.raises(ValueError, match="no") as info:
            future.result()
        assert future.exception() is info.value
        assert "fails" in [frame.name for frame in traceback.extract_tb(info.value.__traceback__)]


def test_sys_exit_in_a_call_is_the_futures() -> None:
    with GoroutinePoolExecutor() as executor:
        assert isinstance(executor.submit(exit, 3).exception(), SystemExit)


def test_calls_have_the_submitters_variables_and_context() -> None:
    variable = contextvars.ContextVar("variable", default="none")

    def call() -> tuple[str, object]:
        return variable.get(), context.current().value("key")

    with GoroutinePoolExecutor(1) as executor:
        variable.set("first")
        with context.with_value(context.current(), "key", 1):
            first = executor.submit(call)
        variable.set("second")
        second = executor.submit(call)
        assert first.result() == ("first", 1)
        assert second.result() == ("second", None)


def test_a_deadline_of_the_submitter_ends_the_call_and_not_the_worker() -> None:
    hurried, _ = context.with_timeout(context.current(), 0.01)
    with GoroutinePoolExecutor(1) as executor:
        with hurried:
            late = executor.submit(sleep, 3600)
        after = executor.submit(sleep, 0.001)
        with pytest.raises(DeadlineExceeded):
            late.result()
        assert after.result() is None


def test_names() -> None:
    def name() -> str:
        goroutine = current()
        assert goroutine is not None
        return goroutine.name

    with GoroutinePoolExecutor(1, "fetcher") as executor:
        assert executor.submit(name).result() == "fetcher_0"
    with GoroutinePoolExecutor(1) as executor:
        assert executor.submit(name).result().startswith("GoroutinePoolExecutor-")


# ---- map ----


def test_map_is_in_order_whatever_ends_first() -> None:
    def call(n: int, m: int) -> int:
        sleep(0.001 * (5 - n))
        return n * m

    with GoroutinePoolExecutor() as executor:
        assert list(executor.map(call, range(5), range(10, 15), chunksize=2)) == [0, 11, 24, 39, 56]


def test_map_times_out() -> None:
    released = Event()
    with GoroutinePoolExecutor() as executor:
        results = executor.map(lambda n: n and released.wait(), range(2), timeout=0.01)
        assert next(results) == 0
        with pytest.raises(TimeoutError):
            next(results)
        released.set()


def test_map_raises_what_a_call_raised() -> None:
    with GoroutinePoolExecutor(2) as executor:
        results = executor.map(lambda n: 1 // (n - 2), range(4))
        assert next(results) == -1
        assert next(results) == -1
        with pytest.raises(ZeroDivisionError):
            next(results)


# ---- waiting for futures ----


def test_goroutines_that_wait_for_a_result_need_no_threads() -> None:
    released = Event()
    with GoroutinePoolExecutor() as executor:
        future = executor.submit(lambda: (released.wait(), 42)[1])
        waiting = [go(future.result) for _ in range(500)]
        waiting += [go(future.exception) for _ in range(100)]
        wait_until_parked(*waiting)
        wait_until(lambda: threads_in_use() < 20)
        released.set()
        assert [g.result() for g in waiting] == [42] * 500 + [None] * 100


def test_result_times_out() -> None:
    released = Event()
    with GoroutinePoolExecutor() as executor:
        future = executor.submit(released.wait)
        for timeout in (0, 0.001, -1):
            with pytest.raises(TimeoutError):
                future.result(timeout)
            with pytest.raises(TimeoutError):
                future.exception(timeout)
        released.set()
        assert future.result(60) is True
        assert future.result(0) is True


def test_a_goroutine_that_waits_is_cancelled_and_the_call_goes_on() -> None:
    released = Event()
    with GoroutinePoolExecutor() as executor:
        future = executor.submit(released.wait)
        waiting = go(future.result)
        wait_until_parked(waiting)
        waiting.cancel()
        with pytest.raises(Cancelled):
            waiting.result()
        assert future.running()
        released.set()
        assert future.result() is True


@pytest.mark.parametrize("how", ["wait", "as_completed", "callback"])
def test_others_go_on_while_one_waits_for_several(how: str) -> None:
    """The others have the futures end: if they were frozen, the wait would not end."""
    baton: Chan[int] = Chan()
    waiting = Event()

    def call() -> int:
        waiting.wait()
        return baton.recv()

    def others() -> None:
        waiting.set()
        for n in range(5):
            sleep(0.001)
            baton.send(n)

    with GoroutinePoolExecutor() as executor:
        pending = [executor.submit(call) for _ in range(5)]
        other = go(others)
        if how == "wait":
            done, left = futures.wait(pending)
            assert not left
        elif how == "as_completed":
            done = set(futures.as_completed(pending))
        else:
            ended: Chan[futures.Future[int]] = Chan(5)
            for future in pending:
                future.add_done_callback(ended.send)
            done = {ended.recv() for _ in range(5)}
        assert sorted(future.result() for future in done) == list(range(5))
        other.result()


def test_wait_for_the_first_and_with_a_timeout() -> None:
    released = Event()
    with GoroutinePoolExecutor() as executor:
        slow = executor.submit(released.wait)
        fast = executor.submit(sleep, 0.001)
        done, left = futures.wait([slow, fast], return_when=futures.FIRST_COMPLETED)
        assert (done, left) == ({fast}, {slow})
        assert futures.wait([slow], timeout=0.001).not_done == {slow}
        with pytest.raises(TimeoutError):
            list(futures.as_completed([slow], timeout=0.001))
        released.set()


def test_a_call_that_has_not_begun_can_be_cancelled() -> None:
    released = Event()
    with GoroutinePoolExecutor(1) as executor:
        first = executor.submit(released.wait)
        second = executor.submit(released.wait)
        third = executor.submit(released.wait)
        wait_until(first.running)
        assert not first.cancel()
        assert second.cancel()
        released.set()
        assert third.result() is True
        with pytest.raises(futures.CancelledError):
            second.result()


def test_threads_submit_and_wait() -> None:
    results: Chan[int] = Chan(4)
    with GoroutinePoolExecutor(2) as executor:

        def thread() -> None:
            future = executor.submit(lambda: (sleep(0.001), current() is not None)[1])
            assert future.result(30) is True
            done = futures.wait([executor.submit(sleep, 0.001) for _ in range(5)]).done
            results.send(len(done))

        threads = [threading.Thread(target=thread) for _ in range(4)]
        for t in threads:
            t.start()
        assert [results.recv() for _ in range(4)] == [5] * 4
        for t in threads:
            t.join()


@pytest.mark.goroutine(preempt={"slice": "100us"})
def test_one_that_is_preempted_in_the_middle_holds_no_thread_of_others_up() -> None:
    before = stats()
    with GoroutinePoolExecutor() as executor:
        calls = [executor.submit(int) for _ in range(5000)]
        assert threads_in_use() < 100
        for future in calls:
            future.result()
    assert stats()["preemptions"] > before["preemptions"]


# ---- shutdown ----


def test_the_block_ends_when_all_calls_have() -> None:
    ended: list[int] = []

    def call(n: int) -> None:
        sleep(0.001)
        ended.append(n)

    with GoroutinePoolExecutor(2) as executor:
        for n in range(6):
            executor.submit(call, n)
    assert sorted(ended) == list(range(6))
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(call, 6)
    executor.shutdown()


def test_shutdown_without_waiting() -> None:
    released = Event()
    executor = GoroutinePoolExecutor(1)
    pending = [executor.submit(released.wait) for _ in range(3)]
    executor.shutdown(wait=False)
    assert not any(future.done() for future in pending)
    released.set()
    executor.shutdown()
    assert all(future.done() and future.result() for future in pending)


def test_shutdown_that_cancels_what_has_not_begun() -> None:
    released = Event()
    executor = GoroutinePoolExecutor(1)
    pending = [executor.submit(released.wait) for _ in range(3)]
    wait_until(pending[0].running)
    stopping = go(executor.shutdown, cancel_futures=True)
    wait_until(lambda: pending[1].cancelled() and pending[2].cancelled())
    assert not stopping.done()
    released.set()
    stopping.join()
    assert pending[0].result() is True


def test_a_call_cannot_wait_for_its_executors_end() -> None:
    executor = GoroutinePoolExecutor()
    with pytest.raises(RuntimeError, match="cannot wait for its shutdown"):
        executor.submit(executor.shutdown).result()
    executor.shutdown()


class WithALastLine(GoroutinePoolExecutor):
    """Its goroutines wait after their last call, when they are no workers any more."""

    line: Chan[int]

    def _make_calls(self) -> None:
        super()._make_calls()
        self.line.recv_ok()


@pytest.mark.parametrize("from_a_thread", [False, True])
def test_shutdown_waits_until_the_goroutines_have_ended(from_a_thread: bool) -> None:
    executor = WithALastLine(2)
    executor.line = Chan()
    for future in [executor.submit(current) for _ in range(2)]:
        future.result()
    workers = [g for g in _core.goroutines() if g.name.startswith("GoroutinePoolExecutor")]
    assert workers

    def stop() -> bool:
        executor.shutdown()
        return all(worker.done() for worker in workers)

    stopping = go(golibx.blocking, stop) if from_a_thread else go(stop)
    wait_until_parked(stopping)
    executor.line.close()
    assert stopping.result()


def test_shutdown_of_one_that_was_never_used() -> None:
    begun: list[bool] = []
    before = num_goroutine()
    executor = GoroutinePoolExecutor(3, initializer=begun.append, initargs=(True,))
    executor.shutdown()
    assert (begun, num_goroutine()) == ([], before)
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(int)


# ---- initializer ----


def test_each_goroutine_is_initialized_once_and_kept() -> None:
    local = threading.local()
    made: list[str] = []

    def begin(text: str) -> None:
        local.text = text
        made.append(text)

    def call() -> str:
        sleep(0.001)
        return local.text

    with GoroutinePoolExecutor(3, initializer=begin, initargs=("ready",)) as executor:
        assert list(executor.map(lambda _: call(), range(10))) == ["ready"] * 10
        assert made == ["ready"] * 3
        for _ in range(5):
            assert executor.submit(call).result() == "ready"
        assert len(made) == 3
        assert num_goroutine() == 4
    # The last may have told of its end, and have a line to go.
    wait_until(lambda: num_goroutine() == 1)


def test_an_initializer_that_raises_breaks_the_executor() -> None:
    def begin() -> None:
        sleep(0.001)
        raise OSError("no database")

    executor = GoroutinePoolExecutor(1, initializer=begin)
    pending = [executor.submit(print) for _ in range(3)]
    for future in pending:
        with pytest.raises(futures.BrokenExecutor, match="initializer") as info:
            future.result()
        assert str(info.value.__cause__) == "no database"
    with pytest.raises(futures.BrokenExecutor) as info:
        executor.submit(print)
    assert str(info.value.__cause__) == "no database"
    executor.shutdown()


# ---- cancellation, and the end of a run ----


def test_a_call_that_raises_cancelled_takes_none_with_it() -> None:
    def call() -> int:
        me = current()
        assert me is not None
        me.cancel()
        sleep(0)
        return 1

    with GoroutinePoolExecutor(1) as executor:
        pending = [executor.submit(call), executor.submit(call), executor.submit(divmod, 3, 2)]
        for future in pending[:2]:
            with pytest.raises(Cancelled):
                future.result()
        assert pending[2].result() == (1, 1)


@pytest.mark.goroutine(False)
@pytest.mark.parametrize("begun", [True, False])
def test_the_end_of_a_run_ends_every_future(begun: bool) -> None:
    executor = GoroutinePoolExecutor(2)
    pending: list[futures.Future[None]] = []

    def main() -> None:
        pending.extend(executor.submit(sleep, 3600) for _ in range(5))
        if begun:
            wait_until(pending[1].running)

    run(main, config={"preempt": {"async": False}})  # or some may begin
    assert all(future.done() for future in pending)
    cancelled = [future for future in pending if future.cancelled()]
    assert cancelled == pending[2 if begun else 0 :]
    for future in pending[: 2 if begun else 0]:
        assert isinstance(future.exception(), Cancelled)
    with pytest.raises(RuntimeError, match="needs a golibx runtime"):
        executor.submit(print)
    # In another run it works as before.
    assert run(lambda: executor.submit(divmod, 7, 2).result()) == (3, 1)
    executor.shutdown()


@pytest.mark.goroutine(preempt={"slice": "50us"})
def test_cancellation_at_any_moment_leaves_no_future_behind() -> None:
    for round_ in range(30):
        workers: list[Goroutine[object]] = []

        def call() -> None:
            me = current()
            assert me is not None
            workers.append(me)
            for _ in range(3):
                golibx.gosched()

        with GoroutinePoolExecutor(4) as executor:
            pending = [executor.submit(call) for _ in range(40)]
            for _ in range(round_):
                golibx.gosched()
                if workers:
                    workers.pop().cancel()
        for future in pending:
            assert future.done()
            assert not future.cancelled()


# ---- asyncio ----


def test_run_in_executor_of_a_loop_in_a_goroutine() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with GoroutinePoolExecutor() as executor:
            calls = [loop.run_in_executor(executor, call, n) for n in range(50)]
            return await asyncio.gather(*calls)

    def call(n: int) -> int:
        assert current() is not None
        sleep(0.001)
        return n

    assert go(asyncio.run, main()).result() == list(range(50))


def test_run_in_executor_of_a_loop_in_a_thread() -> None:
    results: Chan[object] = Chan(1)

    async def main(executor: GoroutinePoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        try:
            calls = [loop.run_in_executor(executor, call, n) for n in range(50)]
            results.send(await asyncio.gather(*calls))
        except BaseException as error:
            results.send(error)

    def call(n: int) -> int:
        assert current() is not None
        sleep(0.001)
        return n

    with GoroutinePoolExecutor() as executor:
        thread = threading.Thread(target=lambda: asyncio.run(main(executor)))
        thread.start()
        assert results.recv() == list(range(50))
        thread.join()


# ---- bad use ----


@pytest.mark.goroutine(False)
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_workers": 0}, ValueError, "at least 1, not 0"),
        ({"max_workers": -3}, ValueError, "at least 1, not -3"),
        ({"max_workers": 1.5}, TypeError, "int or None, not 1.5"),
        ({"max_workers": True}, TypeError, "int or None, not True"),
        ({"initializer": 3}, TypeError, "callable, not 3"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        GoroutinePoolExecutor(**arguments)  # type: ignore[arg-type]


def test_submit_of_what_cannot_be_called() -> None:
    with GoroutinePoolExecutor() as executor, pytest.raises(TypeError, match="callable, not 3"):
        executor.submit(3)  # type: ignore[arg-type]


@pytest.mark.goroutine(False)
def test_futures_are_not_imported_before_they_are_used(script: Script) -> None:
    program = """
import sys
import golibx
assert "concurrent.futures" not in sys.modules
assert "asyncio" not in sys.modules
golibx.run(print, "ran")
assert "concurrent.futures" not in sys.modules
assert "asyncio" not in sys.modules
"""
    assert script.passes(program) == "ran\n"


def test_a_hog_in_a_call_freezes_nobody() -> None:
    stop = False

    def hog() -> int:
        n = 0
        while not stop:
            n += 1
        return n

    with GoroutinePoolExecutor(2) as executor:
        hogs = [executor.submit(hog) for _ in range(2)]
        wait_until(lambda: all(future.running() for future in hogs))
        for _ in range(3):
            sleep(0.001)
        stop = True
        assert all(future.result() > 0 for future in hogs)
