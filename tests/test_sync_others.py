"""Event, Barrier, Once, once(), Pool and AtomicInt."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
import time
import weakref

import pytest

import golibx
from golibx import (
    AtomicInt,
    Barrier,
    BrokenBarrierError,
    Cancelled,
    Event,
    Once,
    Pool,
    go,
    gosched,
    once,
    run,
    sleep,
    stats,
)
from golibx.errors import GolibxError

pytestmark = pytest.mark.goroutine(preempt={"async": False})

SLICES = pytest.mark.goroutine(preempt={"slice": "1ms"})
PLAIN = pytest.mark.goroutine(False)


def late(seconds: float) -> None:
    """Passes the time without letting another goroutine run."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


# ---- Event ----


def test_event() -> None:
    event = Event()
    assert event.is_set() is False
    assert event.wait(0) is False
    assert event.wait(timeout=0.001) is False
    assert repr(event).endswith(" unset>")
    waiters = [go(event.wait) for _ in range(10)]
    gosched()
    assert waiters[0].state == "event wait"
    event.set()
    assert [w.result() for w in waiters] == [True] * 10
    assert event.is_set() is True
    assert event.wait() is True
    assert event.wait(0) is True
    assert repr(event).endswith(" set>")
    event.set()
    event.clear()
    assert event.is_set() is False


def test_event_that_is_cleared_at_once_has_been_set() -> None:
    event = Event()
    waiters = [go(event.wait), go(event.wait, 0.001), go(event.wait)]
    gosched()
    late(0.003)
    event.set()
    event.clear()
    waiters[2].cancel()
    assert [w.result() for w in waiters] == [True] * 3


def test_event_wakes_in_order() -> None:
    event = Event()
    order: list[int] = []
    waiters = [go(lambda n=n: (event.wait(), order.append(n))) for n in range(10)]
    gosched()
    event.set()
    for w in waiters:
        w.join()
    assert order == list(range(10))


def test_event_cancelled() -> None:
    event = Event()
    cancelled, other = go(event.wait), go(event.wait)
    gosched()
    cancelled.cancel()
    with pytest.raises(Cancelled):
        cancelled.result()
    event.set()
    assert other.result() is True


@PLAIN
def test_event_outside_of_goroutines() -> None:
    event = Event()
    assert event.wait(0) is False
    with pytest.raises(RuntimeError, match="no golibx runtime"):
        event.wait()
    event.set()
    assert event.wait() is True


def test_event_set_by_a_thread_while_it_blocks_in_c() -> None:
    event = Event()
    reader, writer = os.pipe()
    waiter = go(event.wait)

    def thread() -> None:
        os.read(reader, 1)
        event.set()

    t = threading.Thread(target=thread)
    t.start()
    gosched()
    assert not waiter.done()
    os.write(writer, b"x")
    assert waiter.result() is True
    t.join()
    os.close(reader)
    os.close(writer)


@SLICES
def test_event_under_preemption() -> None:
    start, stop = Event(), Event()
    counted = AtomicInt()

    def worker() -> None:
        start.wait()
        while not stop.is_set():
            counted.add()

    workers = [go(worker) for _ in range(20)]
    start.set()
    while stats()["preemptions"] < 30:
        counted.load()
    stop.set()
    for w in workers:
        w.result()
    assert counted.load() > 0


def test_event_bad_arguments_and_references() -> None:
    with pytest.raises(TypeError):
        Event(1)  # type: ignore[call-arg]
    event = Event()
    with pytest.raises(TypeError):
        event.wait("1")  # type: ignore[arg-type]
    count = sys.getrefcount(event)
    for _ in range(50):
        go(event.wait, 0.0001).join()
    assert sys.getrefcount(event) == count
    ref = weakref.ref(event)
    del event
    assert ref() is None


# ---- Barrier ----


def test_barrier() -> None:
    barrier = Barrier(3)
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)
    for _ in range(4):
        first = [go(barrier.wait), go(barrier.wait)]
        gosched()
        assert barrier.n_waiting == 2
        assert first[0].state == "barrier wait"
        assert repr(barrier).endswith(" 2/3>")
        assert barrier.wait() == 2
        assert [g.result() for g in first] == [0, 1]
        assert barrier.n_waiting == 0
    assert Barrier(1).wait() == 0
    assert Barrier(parties=1).wait(0) == 0


def test_barrier_keeps_rounds_apart() -> None:
    barrier = Barrier(4)
    rounds = [0] * 4

    def party(n: int) -> None:
        for r in range(50):
            assert min(rounds) >= r - 1
            rounds[n] = r
            barrier.wait()
            assert min(rounds) >= r

    for g in [go(party, n) for n in range(4)]:
        g.result()


@pytest.mark.parametrize("timeout", [0, -1, 0.001])
def test_barrier_timeout_breaks_it(timeout: float) -> None:
    barrier = Barrier(3)
    other = go(barrier.wait)
    gosched()
    with pytest.raises(BrokenBarrierError):
        barrier.wait(timeout)
    with pytest.raises(threading.BrokenBarrierError):
        other.result()
    assert issubclass(BrokenBarrierError, GolibxError)
    assert barrier.broken is True
    assert repr(barrier).endswith(" broken>")
    with pytest.raises(BrokenBarrierError):
        barrier.wait()
    barrier.reset()
    assert barrier.broken is False
    others = [go(barrier.wait), go(barrier.wait)]
    gosched()
    assert barrier.wait() == 2
    assert [g.result() for g in others] == [0, 1]


def test_barrier_cancellation_breaks_it() -> None:
    barrier = Barrier(3)
    cancelled, other = go(barrier.wait), go(barrier.wait)
    gosched()
    cancelled.cancel()
    with pytest.raises(Cancelled):
        cancelled.result()
    with pytest.raises(BrokenBarrierError):
        other.result()
    assert barrier.broken is True


def test_barrier_passed_and_then_cancelled() -> None:
    barrier = Barrier(2)
    g = go(barrier.wait)
    gosched()
    assert barrier.wait() == 1
    g.cancel()
    assert g.result() == 0
    assert barrier.broken is False


def test_barrier_cancelled_and_then_passed() -> None:
    # All parties came before it was full: none waited in vain.
    barrier = Barrier(2)
    for end in ("cancel", "timeout"):
        g = go(barrier.wait, None if end == "cancel" else 0.001)
        gosched()
        if end == "cancel":
            g.cancel()
        else:
            late(0.003)
        assert barrier.wait() == 1
        assert g.result() == 0
        assert barrier.broken is False


def test_barrier_reset_and_abort_while_one_is_leaving() -> None:
    barrier = Barrier(2)
    g = go(barrier.wait)
    gosched()
    g.cancel()
    barrier.reset()  # before the cancelled one has run
    with pytest.raises(Cancelled):
        g.result()
    assert barrier.broken is False
    assert barrier.n_waiting == 0
    for undo in (barrier.reset, barrier.abort):
        barrier.reset()
        g = go(barrier.wait)
        gosched()
        undo()
        with pytest.raises(BrokenBarrierError):
            g.result()
    assert barrier.broken is True


@SLICES
@pytest.mark.parametrize("seed", range(3))
def test_barrier_races(seed: int) -> None:
    """One that has passed has passed with two others of the same round."""
    numbers = random.Random(seed)
    barrier = Barrier(3)
    places = [0, 0, 0]

    def party(timeout: float | None) -> None:
        try:
            place = barrier.wait(timeout)
        except BrokenBarrierError:
            return
        passed.add(1)
        places[place] += 1  # one goroutine a place and round, and rounds follow each other

    passed = AtomicInt()
    for _ in range(100):
        parties = [go(party, numbers.choice([None, None, 0.0001, 0.001])) for _ in range(3)]
        if numbers.random() < 0.3:
            numbers.choice(parties).cancel()
        if numbers.random() < 0.5:
            gosched()
        if numbers.random() < 0.2:
            barrier.abort()
        if numbers.random() < 0.2:
            barrier.reset()
        if numbers.random() < 0.5:
            late(0.0003)
        if any(p.state == "cancelled" for p in parties):
            barrier.abort()
        while not all(p.done() for p in parties):
            sleep(0.0005)
            if barrier.n_waiting + sum(p.done() for p in parties) == 3:
                barrier.abort()
        barrier.reset()
        assert places[0] == places[1] == places[2]
    assert passed.load() == sum(places) > 0


@PLAIN
def test_barrier_outside_of_goroutines() -> None:
    barrier = Barrier(2)
    with pytest.raises(RuntimeError, match="no golibx runtime"):
        barrier.wait()
    assert barrier.n_waiting == 0
    assert Barrier(1).wait() == 0

    def stubborn() -> None:
        while True:
            try:
                barrier.wait()
            except Cancelled:
                barrier.reset()

    def first() -> None:
        go(stubborn)
        gosched()
        assert barrier.n_waiting == 1

    def second() -> None:
        assert barrier.n_waiting == 0
        g = go(barrier.wait)
        gosched()
        assert barrier.wait() == 1
        assert g.result() == 0

    run(first, config={"runtime": {"shutdown_timeout": "1ms"}})
    run(second)


def test_barrier_bad_arguments_and_references() -> None:
    for bad in (0, -3):
        with pytest.raises(ValueError, match=f"parties of a Barrier must be at least 1, not {bad}"):
            Barrier(bad)
    with pytest.raises(TypeError):
        Barrier()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Barrier("2")  # type: ignore[arg-type]
    barrier = Barrier(2)
    with pytest.raises(TypeError):
        barrier.wait("1")  # type: ignore[arg-type]
    assert barrier.broken is False
    count = sys.getrefcount(barrier)
    for _ in range(50):
        g = go(barrier.wait)
        gosched()
        barrier.wait()
        g.join()
    del g
    assert sys.getrefcount(barrier) == count
    ref = weakref.ref(barrier)
    del barrier
    assert ref() is None


# ---- Once ----


def test_once_do() -> None:
    o = Once()
    calls: list[object] = []
    assert o.done is False
    assert repr(o).endswith(" new>")
    assert o.do(lambda *args, **kwargs: calls.append((args, kwargs)), 1, 2, a=3) is None
    o.do(calls.append, "again")
    assert calls == [((1, 2), {"a": 3})]
    assert o.done is True
    assert repr(o).endswith(" done>")


def test_once_others_wait_until_it_is_done() -> None:
    o = Once()
    ready = Event()
    order: list[str] = []

    def slow() -> None:
        order.append("begin")
        ready.wait()
        order.append("end")

    def caller(n: int) -> None:
        o.do(slow)
        order.append(str(n))

    callers = [go(caller, n) for n in range(4)]
    gosched()
    assert o.done is False
    assert callers[1].state == "sync.Once.Do"
    ready.set()
    for c in callers:
        c.result()
    assert order == ["begin", "end", "0", "1", "2", "3"]


def test_once_a_call_that_raises_counts() -> None:
    o = Once()
    ready = Event()

    def fail() -> None:
        ready.wait()
        raise KeyError("x")

    first, second = go(o.do, fail), go(o.do, fail)
    gosched()
    ready.set()
    with pytest.raises(KeyError):
        first.result()
    assert second.result() is None
    o.do(fail)
    assert o.done is True


def test_once_cancelled() -> None:
    o = Once()
    caller, waiter, other = go(o.do, sleep, 1000), go(o.do, sleep, 1000), go(o.do, sleep, 1000)
    gosched()
    waiter.cancel()
    with pytest.raises(Cancelled):
        waiter.result()
    assert not other.done()
    caller.cancel()
    with pytest.raises(Cancelled):
        caller.result()
    assert other.result() is None
    late_waiter = Once()
    go_on = Event()
    callers = [go(late_waiter.do, go_on.wait) for _ in range(2)]
    gosched()
    go_on.set()
    callers[0].join()
    callers[1].cancel()  # done already
    assert callers[1].result() is None


def test_once_misuse() -> None:
    o = Once()
    with pytest.raises(RuntimeError, match="it would wait for itself"):
        o.do(o.do, print)
    with pytest.raises(TypeError, match="missing the function"):
        Once().do()  # type: ignore[call-arg]
    o = Once()
    with pytest.raises(TypeError, match="needs a callable, not 5"):
        o.do(5)  # type: ignore[arg-type]
    assert o.done is False
    with pytest.raises(TypeError):
        Once(1)  # type: ignore[call-arg]


@PLAIN
def test_once_outside_of_goroutines() -> None:
    o = Once()
    calls: list[int] = []
    o.do(calls.append, 1)
    o.do(calls.append, 2)
    assert calls == [1]
    o = Once()
    with pytest.raises(RuntimeError, match="wait for itself"):
        o.do(o.do, print)


@SLICES
def test_once_under_preemption() -> None:
    begun = AtomicInt()
    for _ in range(20):
        o = Once()
        seen: list[int] = []

        def init() -> None:
            begun.add()
            before = stats()["preemptions"]
            while stats()["preemptions"] == before:
                pass
            seen.append(1)

        def caller() -> None:
            o.do(init)
            assert seen == [1]

        def other() -> None:
            while not seen:
                pass

        for g in [go(caller), go(other), *(go(caller) for _ in range(5))]:
            g.result()
    assert begun.load() == 20


def test_once_references() -> None:
    class Thing:
        def __call__(self) -> None:
            pass

    o = Once()
    thing = Thing()
    ref = weakref.ref(thing)
    o.do(thing)
    o.do(thing)
    del thing
    assert ref() is None
    ref2 = weakref.ref(o)
    del o
    assert ref2() is None


# ---- once() ----


def test_once_function() -> None:
    calls: list[int] = []

    @once
    def value() -> str:
        """Says so."""
        calls.append(1)
        gosched()
        return "value"

    assert value.__name__ == "value"
    assert value.__doc__ == "Says so."
    assert [g.result() for g in [go(value) for _ in range(5)]] == ["value"] * 5
    assert value() == "value"
    assert calls == [1]


def test_once_function_that_raises() -> None:
    calls: list[int] = []

    @once
    def fail() -> int:
        calls.append(1)
        raise KeyError("missing")

    depths = []
    for _ in range(3):
        with pytest.raises(KeyError, match="missing") as info:
            fail()
        depths.append(len(info.traceback))
    assert calls == [1]
    # It would grow with each call.
    assert depths[1] == depths[2]


def test_once_function_that_is_cancelled() -> None:
    forever = once(lambda: sleep(1000))
    first, second = go(forever), go(forever)
    gosched()
    first.cancel()
    with pytest.raises(Cancelled):
        first.result()
    with pytest.raises(RuntimeError, match="the only call ended with Cancelled") as info:
        second.result()
    assert isinstance(info.value.__cause__, Cancelled)


def test_once_function_lets_go_of_the_function() -> None:
    class Thing:
        def __call__(self) -> int:
            return 4

    thing = Thing()
    ref = weakref.ref(thing)
    four = once(thing)
    del thing
    assert ref() is not None
    assert four() == 4
    gc.collect()
    assert ref() is None
    assert four() == 4
    with pytest.raises(TypeError, match="needs a callable, not 5"):
        once(5)  # type: ignore[arg-type]


# ---- Pool ----


class Item:
    pass


def test_pool() -> None:
    pool: Pool[list[int]] = Pool(list)
    assert pool.get() == []
    a, b = [1], [2]
    pool.put(a)
    pool.put(b)
    assert len(pool) == 2
    assert repr(pool).endswith(" 2>")
    assert pool.get() is b
    assert pool.get() is a
    assert pool.get() == []
    assert bool(pool) is True
    empty: Pool[int | None] = Pool()
    assert empty.get() is None
    assert Pool(new=None).get() is None
    assert Pool(new=dict).get() == {}
    with pytest.raises(ZeroDivisionError):
        Pool(lambda: 1 / 0).get()


def test_pool_misuse() -> None:
    with pytest.raises(ValueError, match="None cannot be put into a Pool"):
        Pool().put(None)
    with pytest.raises(TypeError, match="must be callable or None, not 5"):
        Pool(5)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        Pool(list, 5)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        Pool().put()  # type: ignore[call-arg]


def test_pool_lets_go_at_the_second_collection() -> None:
    gc.collect()
    pool = Pool(Item)
    items = [Item(), Item()]
    refs = [weakref.ref(item) for item in items]
    for item in items:
        pool.put(item)
    del item, items
    gc.collect(0)
    gc.collect(1)
    assert len(pool) == 2
    gc.collect()
    assert len(pool) == 2  # the victims may still be had
    assert pool.get() is refs[1]()
    gc.collect()
    assert len(pool) == 0
    assert refs[0]() is None
    assert refs[1]() is None


def test_pool_keeps_what_is_in_use() -> None:
    gc.collect()
    pool = Pool(Item)
    pool.put(item := Item())
    for _ in range(5):
        gc.collect()
        assert pool.get() is item
        pool.put(item)


def test_pool_in_a_cycle() -> None:
    class Node:
        def __init__(self) -> None:
            self.pool = Pool(self.make)

        def make(self) -> Node:
            return self

    node = Node()
    node.pool.put(node)
    ref = weakref.ref(node)
    pool_ref = weakref.ref(node.pool)
    del node
    gc.collect()
    assert ref() is None
    assert pool_ref() is None


def test_pool_whose_objects_use_pools_when_they_end() -> None:
    log: list[int] = []

    class Ends:
        def __del__(self) -> None:
            log.append(1)
            pools.append(Pool(list))
            pools.pop(0)
            pool.put([len(log)])

    pool: Pool[object] = Pool()
    pools: list[object] = [Pool(), Pool()]
    for _ in range(10):
        pool.put(Ends())
    gc.collect()
    gc.collect()
    assert log == [1] * 10
    gc.collect()
    gc.collect()
    assert len(pool) == 0


def test_pool_references() -> None:
    class Maker:
        def __call__(self) -> Item:
            return Item()

    maker = Maker()
    count = sys.getrefcount(maker)
    pool = Pool(maker)
    assert sys.getrefcount(maker) == count + 1
    item = pool.get()
    own = sys.getrefcount(item)
    for _ in range(100):
        pool.put(item)
        assert sys.getrefcount(item) == own + 1
        assert pool.get() is item
    assert sys.getrefcount(item) == own
    pool.put(item)
    del pool
    assert sys.getrefcount(item) == own
    assert sys.getrefcount(maker) == count


@SLICES
def test_pool_under_preemption() -> None:
    """No goroutine gets what another has."""
    pool: Pool[list[int]] = Pool(list)

    def worker(n: int) -> None:
        while stats()["preemptions"] < 30:
            mine = pool.get()
            assert mine == []
            mine.append(n)
            for _ in range(500):
                pass
            assert mine == [n]
            mine.clear()
            pool.put(mine)

    for g in [go(worker, n) for n in range(20)]:
        g.result()
    assert len(pool) <= 20


@PLAIN
def test_pool_outside_of_goroutines() -> None:
    pool = Pool(list)
    pool.put([1])
    assert pool.get() == [1]
    assert Pool[int].__origin__ is Pool  # type: ignore[attr-defined]


# ---- AtomicInt ----


def test_atomic_int() -> None:
    n = AtomicInt()
    assert n.load() == 0
    assert n.add() == 1
    assert n.add(5) == 6
    assert n.add(delta=-7) == -1
    assert n.store(10) is None
    assert n.swap(20) == 10
    assert n.compare_and_swap(10, 30) is False
    assert n.compare_and_swap(20, 30) is True
    assert n.compare_and_swap(old=30, new=40) is True
    assert n.load() == 40
    assert repr(n).endswith(" 40>")
    assert AtomicInt(7).load() == AtomicInt(value=7).load() == 7


def test_atomic_int_has_64_bits() -> None:
    most, least = 2**63 - 1, -(2**63)
    n = AtomicInt(most)
    with pytest.raises(OverflowError, match="64 bits"):
        n.add()
    assert n.load() == most
    n.store(least)
    with pytest.raises(OverflowError, match="64 bits"):
        n.add(-1)
    assert n.swap(0) == least
    for call in (n.add, n.store, n.swap, AtomicInt):
        with pytest.raises(OverflowError):
            call(2**63)
    assert n.load() == 0


def test_atomic_int_bad_arguments() -> None:
    n = AtomicInt()
    for bad in (1.5, "1", None):
        for call in (n.add, n.store, n.swap, AtomicInt):
            with pytest.raises(TypeError):
                call(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing required argument 'new'"):
        n.compare_and_swap(1)  # type: ignore[call-arg]
    ref = weakref.ref(n)
    del n
    assert ref() is None


@SLICES
def test_atomic_int_under_preemption() -> None:
    n = AtomicInt()
    added = [0] * 10

    def worker(i: int) -> None:
        while stats()["preemptions"] < 30:
            if i % 2:
                n.add()
            else:
                while not n.compare_and_swap(old := n.load(), old + 1):
                    pass
            added[i] += 1

    for g in [go(worker, i) for i in range(len(added))]:
        g.result()
    assert n.load() == sum(added)


def test_everything_is_exported() -> None:
    for name in golibx.sync.__all__:
        if name != "RLocker":
            assert getattr(golibx, name) is getattr(golibx.sync, name)
            assert name in golibx.__all__
