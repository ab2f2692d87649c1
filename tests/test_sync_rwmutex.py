"""RWMutex: readers and writers. What it has in common with other locks is in test_sync_locks."""

from __future__ import annotations

import random
import sys
import weakref

import pytest

from golibx import Cancelled, Goroutine, RWMutex, go, gosched, sleep, stats
from golibx.sync import RLocker

pytestmark = pytest.mark.goroutine(preempt={"async": False})


def assert_free(mutex: RWMutex) -> None:
    assert (mutex.locked, mutex.readers) == (False, 0)
    assert mutex.try_lock()
    assert not mutex.try_rlock()
    mutex.unlock()
    assert mutex.try_rlock()
    mutex.runlock()


def test_readers_share_and_writers_do_not() -> None:
    mutex = RWMutex()
    assert mutex.rlock() is True
    assert mutex.rlock(timeout=0) is True
    assert mutex.readers == 2
    assert mutex.try_lock() is False
    assert mutex.lock(0) is False
    assert mutex.try_rlock() is True
    for _ in range(3):
        mutex.runlock()
    assert mutex.lock() is True
    assert mutex.locked is True
    assert mutex.try_rlock() is False
    assert mutex.rlock(0.001) is False
    assert mutex.rlock(timeout=-1) is False
    mutex.unlock()
    assert_free(mutex)


def test_reader_is_a_lock() -> None:
    mutex = RWMutex()
    reader = mutex.reader()
    assert isinstance(reader, RLocker)
    with reader as taken, mutex.reader():
        assert taken is True
        assert mutex.readers == 2
        assert reader.try_lock() is True
        reader.unlock()
    assert reader.lock(timeout=5) is True
    assert mutex.readers == 1
    reader.unlock()
    with mutex:
        assert reader.try_lock() is False
        assert reader.lock(0) is False
    with pytest.raises(RuntimeError, match="runlock of an RWMutex that nobody reads"):
        reader.unlock()
    with pytest.raises(TypeError):
        RLocker()
    assert_free(mutex)


def test_misuse() -> None:
    mutex = RWMutex()
    with pytest.raises(RuntimeError, match="unlock of an unlocked RWMutex"):
        mutex.unlock()
    with pytest.raises(RuntimeError, match="runlock of an RWMutex that nobody reads"):
        mutex.runlock()
    with mutex, pytest.raises(RuntimeError, match="runlock"):
        mutex.runlock()
    with mutex.reader(), pytest.raises(RuntimeError, match="unlock"):
        mutex.unlock()
    assert_free(mutex)


def test_looks() -> None:
    mutex = RWMutex()
    assert repr(mutex).endswith(" unlocked>")
    with mutex:
        assert repr(mutex).endswith(" locked>")
    with mutex.reader() as _, mutex.reader():
        assert repr(mutex).endswith(" readers 2>")
        assert repr(mutex.reader()) == f"<RLocker of {mutex!r}>"


def test_wait_reasons() -> None:
    mutex = RWMutex()
    mutex.lock()
    waiters = [go(mutex.lock), go(mutex.rlock)]
    gosched()
    assert [w.state for w in waiters] == ["sync.RWMutex.Lock", "sync.RWMutex.RLock"]
    mutex.unlock()
    mutex_reader = waiters[1]
    assert mutex_reader.result() is True
    mutex.runlock()
    assert waiters[0].result() is True


def test_a_waiting_writer_keeps_new_readers_out() -> None:
    mutex = RWMutex()
    order: list[str] = []

    def write() -> None:
        with mutex:
            order.append("writer")

    def read() -> None:
        with mutex.reader():
            order.append("reader")

    mutex.rlock()
    goroutines = [go(write), go(read), go(read)]
    gosched()
    assert mutex.try_rlock() is False
    assert order == []
    mutex.runlock()
    for g in goroutines:
        g.join()
    assert order == ["writer", "reader", "reader"]
    assert_free(mutex)


def test_readers_that_wait_come_before_the_next_writer() -> None:
    mutex = RWMutex()
    order: list[str] = []

    def write(n: int) -> None:
        with mutex:
            order.append(f"writer {n}")

    def read() -> None:
        with mutex.reader():
            order.append("reader")
            gosched()

    mutex.lock()
    goroutines = [go(write, 1), go(write, 2), go(read), go(read)]
    gosched()
    mutex.unlock()
    for g in goroutines:
        g.join()
    assert order == ["reader", "reader", "writer 1", "writer 2"]
    assert_free(mutex)


@pytest.mark.parametrize("leave", ["cancel", "timeout"])
def test_readers_go_on_when_the_writer_that_kept_them_out_leaves(leave: str) -> None:
    mutex = RWMutex()
    mutex.rlock()
    writer = go(mutex.lock, None if leave == "cancel" else 0.002)
    gosched()
    readers = [go(mutex.rlock) for _ in range(3)]
    gosched()
    assert not any(r.done() for r in readers)
    if leave == "cancel":
        writer.cancel()
        with pytest.raises(Cancelled):
            writer.result()
    else:
        assert writer.result() is False
    assert [r.result() for r in readers] == [True] * 3
    assert mutex.readers == 4
    for _ in range(4):
        mutex.runlock()
    assert_free(mutex)


def test_readers_stay_out_while_another_writer_waits() -> None:
    mutex = RWMutex()
    mutex.rlock()
    first, second = go(mutex.lock), go(mutex.lock)
    reader = go(mutex.rlock)
    gosched()
    first.cancel()
    with pytest.raises(Cancelled):
        first.result()
    gosched()
    assert not reader.done()
    mutex.runlock()
    assert second.result() is True
    mutex.unlock()
    assert reader.result() is True
    mutex.runlock()
    assert_free(mutex)


def test_a_cancelled_reader_is_passed_by() -> None:
    mutex = RWMutex()
    mutex.lock()
    cancelled, other = go(mutex.rlock), go(mutex.rlock)
    gosched()
    cancelled.cancel()
    mutex.unlock()
    assert other.result() is True
    with pytest.raises(Cancelled):
        cancelled.result()
    assert mutex.readers == 1
    mutex.runlock()
    assert_free(mutex)


def test_a_reader_that_is_cancelled_after_it_was_let_in_has_it() -> None:
    mutex = RWMutex()
    mutex.lock()

    def read() -> None:
        with mutex.reader():
            assert mutex.readers == 1
            gosched()  # raises
            raise AssertionError

    g = go(read)
    gosched()
    mutex.unlock()
    assert mutex.readers == 1
    g.cancel()
    with pytest.raises(Cancelled):
        g.result()
    assert_free(mutex)


def test_a_cancelled_writer_whose_turn_has_come_lets_readers_in() -> None:
    mutex = RWMutex()
    mutex.rlock()
    writer, reader = go(mutex.lock), go(mutex.rlock)
    gosched()
    writer.cancel()
    mutex.runlock()  # before it has run
    assert reader.result() is True
    with pytest.raises(Cancelled):
        writer.result()
    mutex.runlock()
    assert_free(mutex)


@pytest.mark.goroutine(preempt={"slice": "1ms"})
@pytest.mark.parametrize("seed", range(3))
def test_readers_writers_cancellations_and_timeouts_race(seed: int) -> None:
    numbers = random.Random(seed)
    mutex = RWMutex()
    reading = writing = most_reading = written = left = 0
    goroutines: list[Goroutine[None]] = []

    def check() -> None:
        assert writing == 0 or (writing == 1 and reading == 0)

    def read(timeout: float | None) -> None:
        nonlocal reading, most_reading, left
        if not mutex.rlock(timeout):
            left += 1
            return
        try:
            reading += 1
            most_reading = max(reading, most_reading)
            check()
            gosched()
            check()
        finally:
            reading -= 1
            mutex.runlock()

    def write(timeout: float | None) -> None:
        nonlocal writing, written, left
        if not mutex.lock(timeout):
            left += 1
            return
        try:
            writing += 1
            check()
            written += 1
            sleep(0.0001)
            check()
        finally:
            writing -= 1
            mutex.unlock()

    for _ in range(500):
        f = write if numbers.random() < 0.3 else read
        goroutines.append(go(f, numbers.choice([None, None, 0.0001, 0.002])))
        if numbers.random() < 0.3:
            numbers.choice(goroutines).cancel()
        if numbers.random() < 0.3:
            gosched()
    for g in goroutines:
        g.join()
        assert g.exception is None or isinstance(g.exception, Cancelled)
    assert most_reading > 1
    assert written > 0
    assert left > 0
    assert_free(mutex)


@pytest.mark.goroutine(preempt={"slice": "1ms"})
def test_preempted_while_reading_and_writing() -> None:
    mutex = RWMutex()
    pair = [0, 0]
    ended = 0

    def hog() -> None:
        """Without it no other could run in place of a writer."""
        while ended < 8:
            pass

    def wait_for_preemption() -> None:
        before = stats()["preemptions"]
        while stats()["preemptions"] == before:
            pass

    def write() -> None:
        nonlocal ended
        for _ in range(5):
            with mutex:
                pair[0] += 1
                wait_for_preemption()
                pair[1] += 1
        ended += 1

    def read() -> None:
        nonlocal ended
        for _ in range(5):
            with mutex.reader():
                before = pair[0]
                wait_for_preemption()
                assert before == pair[0] == pair[1]
        ended += 1

    for g in [go(hog), *(go(write) for _ in range(3)), *(go(read) for _ in range(5))]:
        g.result()
    assert pair == [15, 15]
    assert_free(mutex)


def test_references_of_a_reader() -> None:
    mutex = RWMutex()
    count = sys.getrefcount(mutex)
    readers = [mutex.reader() for _ in range(10)]
    assert sys.getrefcount(mutex) == count + 10
    ref = weakref.ref(readers[0])
    del readers
    assert ref() is None
    assert sys.getrefcount(mutex) == count
    for _ in range(100):
        with mutex.reader():
            pass
    assert sys.getrefcount(mutex) == count
