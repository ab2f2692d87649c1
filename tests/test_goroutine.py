"""go() and the Goroutine it returns; and what a goroutine has of its own, as a thread would."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import functools
import gc
import inspect
import mmap
import re
import sys
import threading
import traceback
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import (
    Cancelled,
    Chan,
    DeadlineExceeded,
    Goroutine,
    WaitGroup,
    _core,
    current,
    go,
    gosched,
    num_goroutine,
    sleep,
    stats,
)
from golibx.testing import wait_until

# Without preemption, so that a slow machine does not change which goroutine runs when.
pytestmark = pytest.mark.goroutine(preempt={"async": False})


class Thing:
    """Something that can be referred to weakly."""


# ---- calling ----


def test_result_is_what_the_function_returned() -> None:
    thing = Thing()
    assert go(lambda: thing).result() is thing
    assert go(lambda: None).result() is None


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 6, 40])
@pytest.mark.parametrize("k", [0, 1, 4, 5, 40])
def test_any_number_of_arguments(n: int, k: int) -> None:
    def f(*args: int, **kwargs: int) -> tuple[tuple[int, ...], dict[str, int]]:
        return args, kwargs

    kwargs = {f"key{i}": -i for i in range(k)}
    assert go(f, *range(n), **kwargs).result() == (tuple(range(n)), kwargs)


def test_keyword_arguments_may_have_the_names_of_gos_own() -> None:
    def f(**kwargs: int) -> dict[str, int]:
        return kwargs

    assert go(f, fn=1, name=2, args=3).result() == {"fn": 1, "name": 2, "args": 3}


class Callable_:
    def __call__(self, x: int) -> int:
        return x + 1

    def method(self, x: int) -> int:
        return x + 2

    @classmethod
    def of_class(cls, x: int) -> int:
        return x + 3

    @staticmethod
    def static(x: int) -> int:
        return x + 4


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (Callable_(), 11),
        (Callable_().method, 12),
        (Callable_.of_class, 13),
        (Callable_.static, 14),
        (functools.partial(pow, 2), 1024),
        (lambda x: x, 10),
        (str, "10"),
        (abs, 10),
        ([].append, None),
        (types.SimpleNamespace, TypeError),
        (range(3).index, ValueError),
    ],
)
def test_anything_callable(fn: Any, expected: object) -> None:
    g = go(fn, 10)
    if isinstance(expected, type) and issubclass(expected, Exception):
        if sys.version_info >= (3, 13) and fn is types.SimpleNamespace:
            expected = TypeError
        with pytest.raises(expected):
            g.result()
    else:
        assert g.result() == expected


def test_arguments_live_until_the_end_and_no_longer() -> None:
    thing = Thing()
    gone = weakref.ref(thing)
    ch: Chan[int] = Chan()
    g = go(lambda x, *, y: ch.recv(), thing, y=thing)
    del thing
    gosched()
    assert gone() is not None
    ch.send(1)
    g.join()
    assert gone() is None


def test_what_a_closure_holds_goes_with_the_goroutine() -> None:
    thing = Thing()
    gone = weakref.ref(thing)

    def start(held: Thing) -> Goroutine[int]:
        return go(lambda: id(held))

    g = start(thing)
    del thing
    assert g.result() != 0
    assert gone() is None
    assert g.name.endswith("<lambda>")


def test_the_function_does_not_run_before_its_spawner_waits() -> None:
    ran: list[int] = []
    g = go(ran.append, 1)
    assert ran == []
    g.join()
    assert ran == [1]


def test_first_in_first_out() -> None:
    order: list[int] = []
    goroutines = [go(order.append, i) for i in range(1000)]
    for g in goroutines:
        g.join()
    assert order == list(range(1000))


def test_gosched_takes_turns() -> None:
    order: list[str] = []

    def f(name: str) -> None:
        for _ in range(3):
            order.append(name)
            gosched()

    a, b = go(f, "a"), go(f, "b")
    a.join()
    b.join()
    assert order == ["a", "b"] * 3


def test_many_spawns() -> None:
    n = 100_000
    group = WaitGroup()
    total = 0

    def f(i: int) -> None:
        nonlocal total
        total += i

    for i in range(n):
        group.go(f, i)
    group.wait()
    assert total == n * (n - 1) // 2
    assert num_goroutine() == 1


def test_many_parked_at_once() -> None:
    n = 10_000
    start: Chan[None] = Chan()
    done: Chan[int] = Chan(n)

    def f(i: int) -> None:
        start.recv_ok()
        done.send(i)

    for i in range(n):
        go(f, i)
    gosched()
    assert num_goroutine() == n + 1
    start.close()
    assert sorted(done.recv() for _ in range(n)) == list(range(n))


def test_nested_spawns() -> None:
    def f(depth: int) -> int:
        if depth == 0:
            return 1
        left, right = go(f, depth - 1), go(f, depth - 1)
        return left.result() + right.result()

    assert f(10) == 1024


# ---- join and result ----


def test_join() -> None:
    ch: Chan[int] = Chan()
    g = go(ch.recv)
    assert not g.done()
    assert g.join(0) is False
    assert g.join(timeout=0.001) is False
    assert g.join(-1) is False
    ch.send(1)
    assert g.join() is True
    assert g.done()
    assert g.join(0) is True


def test_result_times_out() -> None:
    ch: Chan[int] = Chan()
    g = go(ch.recv)
    for timeout in (0, 0.001):
        with pytest.raises(DeadlineExceeded, match=f"goroutine {g.id} did not end"):
            g.result(timeout)
    ch.send(7)
    assert g.result(timeout=None) == 7


def test_many_join_one() -> None:
    ch: Chan[str] = Chan()
    g = go(ch.recv)
    waiting = [go(g.result) for _ in range(50)]
    gosched()
    ch.send("x")
    assert [w.result() for w in waiting] == ["x"] * 50


def test_a_joiner_that_gave_up_is_not_woken() -> None:
    ch: Chan[int] = Chan()
    g = go(ch.recv)
    log: list[object] = []

    def wait(timeout: float | None) -> None:
        log.append(g.join(timeout))

    waiters = [go(wait, 0.001), go(wait, None), go(wait, 0.001)]
    waiters[0].join()
    waiters[2].join()
    assert log == [False, False]
    ch.send(1)
    waiters[1].join()
    assert log == [False, False, True]


def test_a_cancelled_joiner_leaves_the_joined_alone() -> None:
    ch: Chan[int] = Chan()
    g = go(ch.recv)
    waiter = go(g.join)
    gosched()
    waiter.cancel()
    waiter.join()
    assert waiter.state == "cancelled"
    assert not g.done()
    ch.send(3)
    assert g.result() == 3


def test_join_does_not_raise() -> None:
    g = go(lambda: 1 / 0)
    assert g.join() is True
    assert isinstance(g.exception, ZeroDivisionError)


@pytest.mark.goroutine(False)
def test_a_handle_outlives_its_run() -> None:
    def main() -> tuple[Goroutine[int], Goroutine[float]]:
        good, bad = go(lambda: 5), go(lambda: 1 / 0)
        good.join()
        bad.join()
        return good, bad

    good, bad = golibx.run(main)
    assert good.done()
    assert good.result() == 5
    assert good.join() is True
    assert good.cancel() is False
    assert good.state == "done"
    assert good.frame is None
    with pytest.raises(ZeroDivisionError):
        bad.result()
    assert "done" in repr(good)


# ---- exceptions ----


def fails(message: str) -> None:
    raise LookupError(message)


def test_result_raises_with_the_goroutines_traceback() -> None:
    g = go(fails, "why")
    with pytest.raises(LookupError, match="why") as info:
        g.result()
    assert info.value is g.exception
    text = "".join(traceback.format_exception(info.value))
    assert "in fails" in text
    assert "test_result_raises_with" in text


def test_result_raises_each_time() -> None:
    g = go(fails, "again")
    for _ in range(3):
        with pytest.raises(LookupError, match="again"):
            g.result()
    waiters = [go(g.result) for _ in range(3)]
    for w in waiters:
        with pytest.raises(LookupError, match="again"):
            w.result()


def test_exception_groups_and_base_exceptions_travel() -> None:
    def raising(exc: BaseException) -> None:
        raise exc

    group = ExceptionGroup("several", [ValueError(1), TypeError(2)])
    for exc in (group, GeneratorExit(), StopIteration(3), Cancelled()):
        g = go(raising, exc)
        with pytest.raises(type(exc)) as info:
            g.result()
        assert info.value is exc


def test_an_uncollected_exception_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    g = go(fails, "reported")
    number = g.id
    g.join()
    del g
    gc.collect()
    err = capsys.readouterr().err
    assert err.count("LookupError: reported") == 1
    assert re.search(rf"^goroutine {number} \[fails\] started at .*test_goroutine.py:\d+", err)
    assert "in fails" in err


def test_an_exception_is_reported_when_nobody_holds_the_handle(
    capsys: pytest.CaptureFixture[str],
) -> None:
    go(fails, "unheld")
    wait_until(lambda: num_goroutine() == 1)  # the report reads the source, which may take a while
    assert capsys.readouterr().err.count("LookupError: unheld") == 1


@pytest.mark.parametrize("how", ["result", "exception"])
def test_a_collected_exception_is_not_reported(
    how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    g = go(fails, "collected")
    g.join()
    if how == "result":
        with pytest.raises(LookupError):
            g.result()
    else:
        assert isinstance(g.exception, LookupError)
    del g
    gc.collect()
    assert capsys.readouterr().err == ""


def test_a_cancelled_goroutine_is_not_reported(capsys: pytest.CaptureFixture[str]) -> None:
    g = go(Chan[int]().recv)
    gosched()
    g.cancel()
    g.join()
    del g
    gc.collect()
    assert capsys.readouterr().err == ""


def test_a_raising_goroutine_leaves_the_others_alone(capsys: pytest.CaptureFixture[str]) -> None:
    ch: Chan[int] = Chan()
    for i in range(20):
        go(fails, str(i))
        go(ch.send, i)
    assert sorted(ch.recv() for _ in range(20)) == list(range(20))
    wait_until(lambda: num_goroutine() == 1)  # one may read its source lines for its report
    assert capsys.readouterr().err.count("panicked") == 20


def test_an_exceptions_frames_are_freed_with_it() -> None:
    thing = Thing()
    gone = weakref.ref(thing)

    def f(held: Thing) -> None:
        raise KeyError(id(held))

    g = go(f, thing)
    del thing
    g.join()
    assert isinstance(g.exception, KeyError)
    assert gone() is not None  # by the traceback
    del g
    gc.collect()
    assert gone() is None


# ---- cancel ----


def test_cancel_a_parked_goroutine() -> None:
    log: list[str] = []
    ch: Chan[int] = Chan()

    def f() -> None:
        try:
            ch.recv()
        except Exception:
            log.append("must not catch it")
        finally:
            log.append("finally")

    g = go(f)
    gosched()
    assert g.cancel() is True
    assert log == []  # it runs later
    assert g.join() is True
    assert log == ["finally"]
    assert g.state == "cancelled"
    with pytest.raises(Cancelled):
        g.result()
    assert g.cancel() is False


def test_cancel_before_the_start() -> None:
    ran: list[int] = []
    g = go(ran.append, 1)
    assert g.cancel() is True
    g.join()
    assert ran == []
    assert g.state == "cancelled"


def test_cancel_frees_arguments_of_what_never_ran() -> None:
    thing = Thing()
    gone = weakref.ref(thing)
    g = go(lambda *args, **kwargs: None, thing, 1, 2, 3, 4, key=thing)
    del thing
    g.cancel()
    g.join()
    assert gone() is None


def test_cancel_takes_effect_at_the_next_park() -> None:
    log: list[str] = []

    def f() -> None:
        current_ = current()
        assert current_ is not None
        current_.cancel()
        log.append("goes on")
        gosched()
        log.append("not here")

    g = go(f)
    g.join()
    assert log == ["goes on"]
    assert g.state == "cancelled"


@pytest.mark.parametrize("park", ["gosched", "sleep", "sleep0", "recv", "select", "join", "wait"])
def test_every_park_can_be_cancelled(park: str) -> None:
    ch: Chan[int] = Chan()
    group = WaitGroup()
    group.add()
    other = go(ch.recv)
    how: dict[str, Any] = {
        "gosched": gosched,
        "sleep": lambda: sleep(1000),
        "sleep0": lambda: sleep(0),
        "recv": ch.recv,
        "select": lambda: golibx.select(ch.on_recv()),
        "join": other.join,
        "wait": group.wait,
    }
    log: list[str] = []

    def f() -> None:
        try:
            while True:
                how[park]()
        finally:
            log.append("ended")

    g = go(f)
    gosched()
    gosched()
    g.cancel()
    g.join()
    assert g.state == "cancelled"
    assert log == ["ended"]
    ch.send(1)  # the cancelled one waits no longer, the other gets it
    assert other.result() == 1


def test_a_goroutine_may_survive_cancellation() -> None:
    ch: Chan[int] = Chan()

    def f() -> int:
        try:
            ch.recv()
        except Cancelled:
            pass
        return ch.recv()

    g = go(f)
    gosched()
    g.cancel()
    ch.send(5)
    assert g.result() == 5
    assert g.state == "done"


def test_cancel_twice_is_once() -> None:
    caught = 0
    ch: Chan[int] = Chan()

    def f() -> int:
        nonlocal caught
        try:
            ch.recv()
        except Cancelled:
            caught += 1
        return ch.recv()

    g = go(f)
    gosched()
    assert g.cancel()
    assert g.cancel()
    ch.send(1)
    assert g.result() == 1
    assert caught == 1


def test_finally_may_park_after_a_cancellation() -> None:
    ch: Chan[str] = Chan()

    def f() -> None:
        try:
            sleep(1000)
        finally:
            sleep(0.001)
            gosched()
            ch.send("cleaned up")

    g = go(f)
    gosched()
    g.cancel()
    assert ch.recv() == "cleaned up"
    g.join()
    assert g.state == "cancelled"


def test_the_woken_is_not_cancelled_halfway() -> None:
    # The value is handed over before the cancellation: it must not be lost.
    ch: Chan[int] = Chan()
    got: list[int] = []

    def f() -> None:
        got.append(ch.recv())
        gosched()
        got.append(-1)

    g = go(f)
    gosched()
    ch.send(1)
    g.cancel()
    g.join()
    assert got == [1]


@pytest.mark.goroutine(False)
def test_what_is_left_at_the_end_is_cancelled() -> None:
    log: list[int] = []

    def f(i: int) -> None:
        try:
            sleep(1000)
        finally:
            log.append(i)

    def main() -> list[Goroutine[None]]:
        goroutines = [go(f, i) for i in range(5)]
        gosched()
        return goroutines

    goroutines = golibx.run(main)
    assert sorted(log) == list(range(5))
    assert {g.state for g in goroutines} == {"cancelled"}


# ---- what a goroutine tells of itself ----


def test_ids_are_unique_and_grow() -> None:
    goroutines = [go(lambda: None) for _ in range(100)]
    ids = [g.id for g in goroutines]
    assert ids == sorted(set(ids))
    for g in goroutines:
        g.join()
    assert go(lambda: None).id > ids[-1]


@pytest.mark.goroutine(False)
def test_main_is_number_one() -> None:
    def main() -> tuple[int, int, str]:
        me = current()
        assert me is not None
        return me.id, me.parent, me.state

    assert golibx.run(main) == (1, 0, "running")
    assert golibx.run(main) == (1, 0, "running")


def test_parent() -> None:
    me = current()
    assert me is not None

    def f() -> tuple[int, int]:
        inner = go(lambda: None)
        inner.join()
        return inner.parent, me.id

    g = go(f)
    assert g.parent == me.id
    assert g.result() == (g.id, me.id)


def test_current() -> None:
    g = go(current)
    assert g.result() is g
    assert current() is current()


@pytest.mark.goroutine(False)
def test_outside_there_is_no_current_goroutine() -> None:
    assert current() is None
    assert num_goroutine() == 0


def test_num_goroutine() -> None:
    assert num_goroutine() == 1
    g = go(lambda: num_goroutine())
    assert num_goroutine() == 2
    assert g.result() == 2
    assert num_goroutine() == 1


def test_started_at() -> None:
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    g = go(lambda: None)
    assert g.started_at == f"{__file__}:{line}"
    g.join()
    assert g.started_at == f"{__file__}:{line}"


def test_started_at_of_one_that_no_python_code_started() -> None:
    assert isinstance(list(map(go, [lambda: None]))[0].started_at, str)


def test_name() -> None:
    def local() -> None: ...

    assert go(local).name == "test_name.<locals>.local"
    assert go(lambda: None).name.endswith("<lambda>")
    assert go(Callable_().method, 1).name == "Callable_.method"
    assert go(Callable_(), 1).name == "Callable_"
    assert go(abs, 1).name == "abs"
    assert go(functools.partial(abs, 1)).name == "partial"


def test_name_can_be_set() -> None:
    g = go(lambda: None)
    g.name = "worker ⚙ 7"
    assert g.name == "worker ⚙ 7"
    assert "worker ⚙ 7" in repr(g)
    g.join()
    assert g.name == "worker ⚙ 7"
    g.name = "afterwards"
    assert g.name == "afterwards"
    with pytest.raises(TypeError, match="must be a str"):
        g.name = 5  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        del g.name


@pytest.mark.goroutine(leaks=False)
def test_state() -> None:
    ch: Chan[int] = Chan()
    group = WaitGroup()
    group.add()
    other = go(ch.recv)
    parked = {
        "chan receive": other,
        "chan send": go(Chan[int]().send, 1),
        "select": go(lambda: golibx.select(ch.on_recv())),
        "sleep": go(sleep, 1000),
        "join": go(other.join),
    }
    runnable = go(lambda: None)
    assert {g.state for g in (*parked.values(), runnable)} == {"runnable"}
    gosched()
    gosched()
    states = {name: g.state for name, g in parked.items()}
    assert len(set(states.values())) == len(states)
    for name, state in states.items():
        assert name in state, states
    assert go(lambda: current().state).result() == "running"  # type: ignore[union-attr]
    assert runnable.state == "done"
    bad = go(fails, "")
    bad.join()
    assert bad.state == "raised"
    assert bad.exception is not None


def test_repr() -> None:
    def f() -> None: ...

    g = go(f)
    assert repr(g) == f"<Goroutine {g.id} test_repr.<locals>.f [runnable]>"
    g.join()
    assert re.fullmatch(rf"<Goroutine {g.id} .*f \[done\]>", repr(g))


def test_frame() -> None:
    ch: Chan[int] = Chan()

    def inner() -> int:
        return ch.recv()

    def outer() -> int:
        local = 5
        return inner() + local

    g = go(outer)
    assert g.frame is None
    gosched()
    assert g.frame is not None
    assert [f.name for f in traceback.extract_stack(g.frame)] == ["outer", "inner"]
    assert g.frame.f_back is not None
    assert g.frame.f_back.f_locals["local"] == 5
    ch.send(1)
    g.join()
    assert g.frame is None


def test_exception_attribute() -> None:
    ch: Chan[int] = Chan()
    g = go(ch.recv)
    assert g.exception is None
    ch.send(1)
    g.join()
    assert g.exception is None


def test_system_goroutines_are_not_counted() -> None:
    ch: Chan[int] = Chan()
    g = _core.go_system(ch.recv)
    gosched()
    assert g.system
    assert num_goroutine() == 1
    ch.send(5)
    assert g.result() == 5


def test_goroutine_is_generic() -> None:
    alias = Goroutine[int]
    assert alias.__origin__ is Goroutine  # type: ignore[attr-defined]
    assert alias.__args__ == (int,)  # type: ignore[attr-defined]


def test_attributes_are_read_only() -> None:
    g = go(lambda: None)
    for name in ("id", "parent", "state", "frame", "exception", "started_at", "system"):
        with pytest.raises(AttributeError):
            setattr(g, name, 1)
    with pytest.raises(AttributeError):
        g.other = 1  # type: ignore[attr-defined]


def test_goroutines_are_made_by_go_only() -> None:
    with pytest.raises(TypeError):
        Goroutine()
    with pytest.raises(TypeError):
        type("Mine", (Goroutine,), {})


# ---- memory ----


def test_weak_references_to_the_handle() -> None:
    ch: Chan[int] = Chan()
    g = go(ch.recv)
    ref = weakref.ref(g)
    called: list[int] = []
    weakref.finalize(g, called.append, 1)
    del g
    gosched()
    gc.collect()
    assert ref() is not None  # a goroutine that lives owns its handle
    ch.send(1)
    gosched()
    assert ref() is None
    assert called == [1]


def test_a_handle_that_is_its_own_result_is_collected() -> None:
    g = go(current)
    g.join()
    assert g.result() is g
    ref = weakref.ref(g)
    del g
    gc.collect()
    assert ref() is None


def test_a_cycle_through_the_closure_is_collected() -> None:
    def start() -> weakref.ref[Goroutine[list[object]]]:
        box: list[object] = []
        g = go(lambda: box)
        box.append(g)
        g.join()
        return weakref.ref(g)

    ref = start()
    gc.collect()
    assert ref() is None


def test_collection_while_goroutines_live() -> None:
    ch: Chan[int] = Chan()
    goroutines = [go(ch.recv) for _ in range(100)]
    for i in range(100):
        gc.collect(0)
        ch.send(i)
        gosched()
    gc.collect()
    assert [g.result() for g in goroutines] == list(range(100))


def test_no_objects_are_left_behind() -> None:
    def burst() -> None:
        group = WaitGroup()
        for i in range(200):
            group.go(lambda *a, **k: None, i, 2, 3, 4, 5, key=6)
        group.wait()
        bad = [go(fails, "x") for _ in range(20)]
        for g in bad:
            g.join()
            assert g.exception is not None
        cancelled = [go(sleep, 1000) for _ in range(20)]
        gosched()
        for c in cancelled:
            c.cancel()
            c.join()

    burst()
    gc.collect()
    before = len(gc.get_objects())
    references = sys.getrefcount(fails), sys.getrefcount(Goroutine), sys.getrefcount(None)
    for _ in range(10):
        burst()
    gc.collect()
    assert len(gc.get_objects()) - before < 50
    after = sys.getrefcount(fails), sys.getrefcount(Goroutine)
    assert abs(after[0] - references[0]) < 5
    assert abs(after[1] - references[1]) < 5


@pytest.mark.goroutine(False)
def test_a_run_ends_however_many_have_not_even_begun() -> None:
    goroutines: list[Goroutine[None]] = []

    def main() -> None:
        goroutines.extend(go(sleep, 1000) for _ in range(10_000))
        wait_until(lambda: stats()["timers"] >= 10_000)
        goroutines.extend(go(sleep, 1000) for _ in range(150_000))

    golibx.run(main, config={"preempt": {"async": False}})
    assert all(g.done() for g in goroutines)


def test_finalizers_that_run_at_the_end_may_park_and_spawn() -> None:
    ch: Chan[str] = Chan()

    class Noisy:
        def __del__(self) -> None:
            gosched()
            ch.send("from __del__")
            go(ch.send, "from a goroutine of __del__")

    go(lambda noisy: None, Noisy())
    assert ch.recv() == "from __del__"
    assert ch.recv() == "from a goroutine of __del__"


def test_a_result_whose_finalizer_parks() -> None:
    ch: Chan[int] = Chan()

    class Noisy:
        def __del__(self) -> None:
            ch.send(1)

    go(Noisy)
    assert ch.recv() == 1


# ---- a goroutine's own: context, locals, exceptions, recursion ----

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_context_is_copied_at_the_spawn() -> None:
    variable.set("parent")

    def child() -> str:
        seen = variable.get()
        variable.set("child")
        gosched()
        assert variable.get() == "child"
        return seen

    g = go(child)
    variable.set("parent, later")
    assert g.result() == "parent"
    assert variable.get() == "parent, later"


other: contextvars.ContextVar[str] = contextvars.ContextVar("other", default="unset")


def without_variables(fn: Callable[..., Any], *args: Any) -> Goroutine[Any]:
    """Starts it where no context variable is set."""
    return contextvars.Context().run(go, fn, *args)


def test_a_context_variable_that_only_goroutines_set_is_each_ones_own() -> None:
    def sets(value: str) -> tuple[str, str]:
        before = variable.get()
        variable.set(value)
        gosched()
        return before, variable.get()

    goroutines = [without_variables(sets, str(i)) for i in range(10)]
    assert [g.result() for g in goroutines] == [("unset", str(i)) for i in range(10)]
    assert len(contextvars.Context().run(contextvars.copy_context)) == 0


def test_what_a_variable_remembers_of_an_ended_goroutine_is_nobodys() -> None:
    # A variable keeps its last value with the number of the thread state, which is used again.
    def sets() -> str:
        variable.set("of the one before")
        return variable.get()

    def reads() -> str:
        other.set("so that there is a context")
        return variable.get()

    for _ in range(20):
        assert without_variables(sets).result() == "of the one before"
        assert without_variables(reads).result() == "unset"


def test_a_variable_that_a_finalizer_sets_at_the_end() -> None:
    class Sets:
        def __del__(self) -> None:
            variable.set("by a finalizer")

    def end(_: Sets) -> None:
        pass

    for _ in range(20):
        assert without_variables(end, Sets()).join()
        assert without_variables(variable.get).result() == "unset"


def test_a_variables_value_whose_finalizer_sets_one() -> None:
    class Sets:
        def __del__(self) -> None:
            other.set("by a finalizer")

    holder: contextvars.ContextVar[Sets] = contextvars.ContextVar("holder")

    for _ in range(20):
        assert without_variables(lambda: holder.set(Sets()) and None).join()
        assert without_variables(other.get).result() == "unset"


def test_the_main_goroutines_variables_stay_in_the_run(script: Script) -> None:
    program = """
import contextvars, golibx
variable = contextvars.ContextVar("variable", default="unset")
for _ in range(3):
    golibx.run(variable.set, "set")
    print(variable.get())
"""
    assert script.passes(program) == "unset\n" * 3


def test_context_run_inside_a_goroutine() -> None:
    def inside() -> str:
        variable.set("inside")
        gosched()
        return variable.get()

    def f() -> tuple[str, str]:
        variable.set("outside")
        found = contextvars.copy_context().run(inside)
        return found, variable.get()

    goroutines = [go(f) for _ in range(10)]
    assert {g.result() for g in goroutines} == {("inside", "outside")}


def test_decimal_context() -> None:
    def f(precision: int) -> str:
        with decimal.localcontext() as context:
            context.prec = precision
            gosched()
            return str(decimal.Decimal(1) / 3)

    goroutines = [go(f, n) for n in (3, 5, 7)]
    assert [len(g.result()) - 2 for g in goroutines] == [3, 5, 7]


def test_thread_local_data_is_goroutine_local() -> None:
    local = threading.local()
    local.value = "main"

    def f(i: int) -> int:
        assert not hasattr(local, "value")
        local.value = i
        gosched()
        return local.value  # type: ignore[no-any-return]

    for _ in range(3):  # stacks and thread states are reused
        goroutines = [go(f, i) for i in range(20)]
        assert [g.result() for g in goroutines] == list(range(20))
    assert local.value == "main"


def test_thread_local_data_dies_with_the_goroutine() -> None:
    local = threading.local()
    thing = Thing()
    gone = weakref.ref(thing)

    def f(held: Thing) -> None:
        local.thing = held

    g = go(f, thing)
    del thing
    g.join()
    assert gone() is None


def test_handled_exceptions_are_goroutine_local() -> None:
    def f(i: int) -> int:
        assert sys.exc_info() == (None, None, None)
        try:
            raise ValueError(i)
        except ValueError as exc:
            gosched()
            assert sys.exc_info()[1] is exc
            try:
                raise KeyError(i)
            except KeyError as inner:
                sleep(0)
                assert sys.exc_info()[1] is inner
                assert inner.__context__ is exc
            gosched()
            assert sys.exc_info()[1] is exc
            try:
                raise
            except ValueError as again:
                assert again is exc
        assert sys.exc_info() == (None, None, None)
        return i

    try:
        raise OSError("of main")
    except OSError as exc:
        goroutines = [go(f, i) for i in range(50)]
        assert [g.result() for g in goroutines] == list(range(50))
        assert sys.exc_info()[1] is exc


def test_a_new_exception_has_no_context_of_another_goroutine() -> None:
    def f() -> None:
        raise KeyError("mine")

    try:
        raise ValueError("spawner's")
    except ValueError:
        g = go(f)
        g.join()
    assert g.exception is not None
    assert g.exception.__context__ is None


def test_a_generator_may_be_advanced_by_several() -> None:
    def numbers() -> Iterator[int]:
        for i in range(10):
            gosched()
            yield i

    it = numbers()
    found: list[int] = []
    for _ in range(10):
        found.append(go(next, it).result())
    assert found == list(range(10))


def test_a_generator_that_parks_is_executing() -> None:
    ch: Chan[int] = Chan()

    def numbers() -> Iterator[int]:
        yield ch.recv()
        yield 2

    it = numbers()
    first = go(next, it)
    gosched()
    with pytest.raises(ValueError, match="already executing"):
        next(it)
    ch.send(1)
    assert first.result() == 1
    assert next(it) == 2


def test_generators_of_many_goroutines_interleave() -> None:
    def numbers(n: int) -> Iterator[int]:
        for i in range(n):
            gosched()
            yield i

    def f(n: int) -> int:
        return sum(x + y for x, y in zip(numbers(n), numbers(n), strict=True))

    goroutines = [go(f, n) for n in range(30)]
    assert [g.result() for g in goroutines] == [n * (n - 1) for n in range(30)]


def test_an_abandoned_generator_is_closed() -> None:
    log: list[str] = []

    def numbers() -> Iterator[int]:
        try:
            yield 1
        finally:
            gosched()
            log.append("closed")

    go(lambda: next(numbers())).join()
    assert log == ["closed"]


def test_coroutines_and_asyncio() -> None:
    async def main(n: int) -> int:
        await asyncio.sleep(0.001)
        results = await asyncio.gather(*(asyncio.sleep(0, i) for i in range(n)))
        return sum(results)

    goroutines = [go(lambda n=n: asyncio.run(main(n))) for n in range(5)]
    assert [g.result() for g in goroutines] == [n * (n - 1) // 2 for n in range(5)]


def test_recursion_is_counted_for_each() -> None:
    limit = sys.getrecursionlimit()

    def deep(n: int) -> int:
        if n == 0:
            gosched()
            return 0
        return 1 + deep(n - 1)

    depth = limit * 3 // 4
    goroutines = [go(deep, depth) for _ in range(8)]
    assert [g.result() for g in goroutines] == [depth] * 8


def test_recursion_error_and_on() -> None:
    def endless() -> None:
        endless()

    def f() -> str:
        for _ in range(3):
            with pytest.raises(RecursionError):
                endless()
            gosched()
        return "went on"

    goroutines = [go(f) for _ in range(5)]
    assert [g.result() for g in goroutines] == ["went on"] * 5


def test_reuse_after_a_recursion_error() -> None:
    def endless() -> None:
        endless()

    def deep(n: int) -> int:
        return n if n == 0 else 1 + deep(n - 1)

    for _ in range(20):
        g = go(endless)
        g.join()
        assert isinstance(g.exception, RecursionError)
        assert go(deep, 700).result() == 700


def test_settrace_does_not_leak_into_the_next() -> None:
    def traced() -> None:
        sys.settrace(lambda *args: None)
        sys.setprofile(lambda *args: None)

    go(traced).join()
    assert go(lambda: (sys.gettrace(), sys.getprofile())).result() == (None, None)


def test_threads_of_the_programs_own() -> None:
    out: list[object] = []

    def in_thread() -> None:
        out.append(current())
        out.append(threading.current_thread().name)

    thread = threading.Thread(target=in_thread, name="mine")
    thread.start()
    thread.join()
    assert out == [None, "mine"]


@pytest.mark.skipif(sys.platform != "linux", reason="what is resident is asked of Linux")
def test_stacks_of_ended_goroutines_are_kept_or_given_back(script: Script) -> None:
    """By `[stack] keep`: each has touched a page of its stack at least."""
    program = """
import mmap
from golibx import Chan, go, run
def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * mmap.PAGESIZE
def main():
    chan = Chan()
    waiting = [go(chan.recv_ok) for _ in range(1500)]
    for each in waiting:
        while not each.waiting: golibx.gosched()
    before = resident()
    chan.close()
    for each in waiting: each.join()
    return before - resident()
import golibx
print(run(main, config={"stack": {"keep": KEEP}}))
"""
    given_back = [int(script.passes(program.replace("KEEP", keep))) for keep in ('"1GiB"', "0")]
    assert given_back[1] - given_back[0] >= 1500 * mmap.PAGESIZE // 2
