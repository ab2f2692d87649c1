"""golibx.integrations.joblib: joblib's Parallel, in goroutines and in programs without a run."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import _core
from golibx.testing import wait_until

pytest.importorskip("joblib")

import joblib

from golibx.integrations.joblib import ALL_JOBS, GoroutineBackend

delayed = joblib.delayed
Run = Callable[[Callable[[], Any]], Any]


def in_a_goroutine(function: Callable[[], Any]) -> Any:
    result = golibx.run(function)
    assert not _core.active()
    return result


def in_a_thread(function: Callable[[], Any]) -> Any:
    """Of a program without a run."""
    result = function()
    wait_until(lambda: not _core.active())
    return result


@pytest.fixture(scope="module", autouse=True)
def _unpatch() -> Iterator[None]:
    """The backend patches this process, which other tests do not expect."""
    yield
    golibx.unpatch()


@pytest.fixture(params=[in_a_goroutine, in_a_thread])
def where(request: pytest.FixtureRequest) -> Iterator[Run]:
    with joblib.parallel_config(backend="golibx", n_jobs=50):
        yield request.param


def meet(barrier: threading.Barrier, number: int) -> tuple[int, bool, int]:
    barrier.wait(50)
    return number, golibx.current() is not None, golibx.stats()["threads"]


def test_many_tasks_wait_at_once(where: Run) -> None:
    barrier = threading.Barrier(50)
    calls = (delayed(meet)(barrier, number) for number in range(200))
    results = where(lambda: joblib.Parallel()(calls))
    assert [result[0] for result in results] == [*range(200)]
    assert all(result[1] for result in results)
    assert max(result[2] for result in results) < 20


def test_as_many_run_as_was_said(where: Run) -> None:
    running = golibx.AtomicInt()
    most = []

    def task() -> None:
        most.append(running.add(1))
        time.sleep(0.001)
        running.add(-1)

    where(lambda: joblib.Parallel(n_jobs=7, pre_dispatch="all")(delayed(task)() for _ in range(50)))
    assert max(most) == 7


def test_calls_of_parallel_in_tasks(where: Run) -> None:
    barriers = [threading.Barrier(3) for _ in range(3)]

    def outer(number: int) -> list[tuple[int, bool]]:
        calls = (delayed(inner)(barriers[number], x) for x in range(3))
        return joblib.Parallel(n_jobs=3)(calls)

    def inner(barrier: threading.Barrier, number: int) -> list[tuple[int, bool, int]]:
        innermost = threading.Barrier(2)
        barrier.wait(50)
        return joblib.Parallel(n_jobs=2)(delayed(meet)(innermost, number) for _ in range(2))

    results = where(lambda: joblib.Parallel(n_jobs=3)(delayed(outer)(n) for n in range(3)))
    numbers = [[[each[:2] for each in most] for most in more] for more in results]
    assert numbers == [[[(n, True)] * 2 for n in range(3)]] * 3


def test_an_error_ends_the_other_tasks(where: Run) -> None:
    ended: list[str] = []
    begun = threading.Barrier(3)

    def waits() -> None:
        try:
            begun.wait(50)
            time.sleep(1000)
        finally:
            ended.append("waits")

    def computes() -> None:
        try:
            begun.wait(50)
            while True:
                pass
        finally:
            ended.append("computes")

    def fails() -> None:
        begun.wait(50)
        raise ValueError("of the task")

    def main() -> None:
        with pytest.raises(ValueError, match="of the task") as caught:
            joblib.Parallel()(delayed(each)() for each in (waits, computes, fails))
        assert "in fails" in caught.value.__notes__[0]
        wait_until(lambda: len(ended) == 2)

    where(main)
    assert sorted(ended) == ["computes", "waits"]


def test_a_time_limit_ends_tasks(where: Run) -> None:
    ended = golibx.Event()

    def computes() -> None:
        try:
            while True:
                pass
        finally:
            ended.set()

    def main() -> None:
        with pytest.raises(multiprocessing.TimeoutError):
            joblib.Parallel(timeout=0.05)([delayed(computes)(), delayed(time.sleep)(0)])
        assert ended.wait(50)

    where(main)


def test_an_iterable_that_raises(where: Run) -> None:
    def calls() -> Iterator[Any]:
        for _ in range(200):
            yield delayed(time.sleep)(0)
        raise ValueError("of the iterable")

    def main() -> None:
        with pytest.raises(ValueError, match="of the iterable"):
            joblib.Parallel()(calls())

    where(main)


@pytest.mark.parametrize("kind", ["generator", "generator_unordered"])
def test_results_as_they_come(where: Run, kind: str) -> None:
    last = threading.Event()

    def task(number: int) -> int:
        if number == 99:
            assert last.wait(50)
        return number

    def main() -> None:
        found = joblib.Parallel(return_as=kind)(delayed(task)(n) for n in range(100))
        first = [next(found) for _ in range(99)]
        assert sorted(first) == [*range(99)]
        last.set()
        assert [*found] == [99]

    where(main)


def test_a_generator_that_is_left(where: Run) -> None:
    ended = golibx.Event()

    def waits() -> None:
        try:
            time.sleep(1000)
        finally:
            ended.set()

    def main() -> None:
        calls = [delayed(int)("1"), delayed(waits)()]
        results = joblib.Parallel(return_as="generator")(calls)
        assert next(results) == 1
        with pytest.warns(UserWarning, match="have been\ncancelled|have been cancelled"):
            results.close()
        assert ended.wait(50)

    where(main)


def test_several_calls_in_a_block(where: Run) -> None:
    def fails() -> None:
        raise ValueError("of the task")

    def main() -> None:
        with joblib.Parallel() as parallel:
            for _ in range(3):
                assert parallel(delayed(pow)(n, 2) for n in range(5)) == [0, 1, 4, 9, 16]
            with pytest.raises(ValueError, match="of the task"):
                parallel([delayed(fails)(), delayed(pow)(2, 2)])
            assert parallel(delayed(pow)(n, 2) for n in range(5)) == [0, 1, 4, 9, 16]

    where(main)


def test_from_several_threads_at_once() -> None:
    def main() -> None:
        with joblib.parallel_config(backend="golibx", n_jobs=5):
            barrier = threading.Barrier(5)
            results = joblib.Parallel()(delayed(meet)(barrier, n) for n in range(100))
            assert [result[0] for result in results] == [*range(100)]
            done.append(1)

    done: list[int] = []
    threads = [threading.Thread(target=main) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 5
    wait_until(lambda: not _core.active())


def test_numbers_of_jobs() -> None:
    backend = GoroutineBackend(nesting_level=0)
    numbers = (5, 1000, None, -1, -2, -1000)
    effective = [backend.effective_n_jobs(n) for n in numbers]
    assert effective == [5, 1000, 1, ALL_JOBS, ALL_JOBS - 1, 1]
    with pytest.raises(ValueError, match="n_jobs == 0"):
        backend.effective_n_jobs(0)
    with joblib.parallel_config(backend="golibx"):
        assert joblib.effective_n_jobs(-1) == ALL_JOBS
        assert joblib.Parallel()(delayed(golibx.current)() for _ in range(2)) == [None, None]


def test_a_wrong_configuration_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLIB_PREEMPT_SLICE", "never")
    with (
        joblib.parallel_config(backend="golibx", n_jobs=2),
        pytest.raises(golibx.ConfigError, match="GOLIB_PREEMPT_SLICE"),
    ):
        joblib.Parallel()(delayed(int)() for _ in range(2))
    assert not _core.active()


def test_a_program_that_ends_in_the_middle(script: Script) -> None:
    """What is left of a generator is cancelled; and Ctrl-C ends a call."""
    out = script.passes("""
import time, signal, threading
import joblib
import golibx.integrations.joblib

def waits():
    try:
        begun.wait()
        time.sleep(1000)
    finally:
        print("ended", flush=True)

with joblib.parallel_config(backend="golibx", n_jobs=3):
    begun = threading.Barrier(3, lambda: signal.raise_signal(signal.SIGINT))
    threading.Thread(target=begun.wait).start()
    try:
        joblib.Parallel()(joblib.delayed(waits)() for _ in range(2))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    begun = threading.Barrier(2)
    calls = [joblib.delayed(begun.wait)(), joblib.delayed(waits)()]
    results = joblib.Parallel(return_as="generator")(calls)
    next(results)
print("main ends", flush=True)
""")
    assert out.count("ended") == 3
    assert "interrupted" in out
    assert "main ends" in out


@pytest.mark.parametrize("what", ["sys.exit, 3", "int, 'x'"])
def test_a_goroutine_that_ends_the_program(script: Script, what: str) -> None:
    result = script(
        f"""
import sys, time
import joblib
import golibx
import golibx.integrations.joblib

def task():
    golibx.go({what})
    time.sleep(1000)

with joblib.parallel_config(backend="golibx", n_jobs=3):
    joblib.Parallel()(joblib.delayed(task)() for _ in range(2))
""",
        env={"GOLIB_RUNTIME_ON_PANIC": "exit"},
    )
    assert result.returncode in (1, -2, 130), result.stderr
    assert "KeyboardInterrupt" in result.stderr
    assert ("ValueError" in result.stderr) == ("int" in what)
