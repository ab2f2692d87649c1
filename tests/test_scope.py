"""scope(): children end before the block, the first error cancels the rest, errors are grouped."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Iterator
from functools import partial

import pytest

import golibx
from conftest import Script
from golibx import (
    Cancelled,
    Chan,
    DeadlineExceeded,
    Goroutine,
    as_completed,
    context,
    current,
    go,
    gosched,
    num_goroutine,
    scope,
    sleep,
    stats,
)
from golibx.scope import Scope
from golibx.testing import wait_until, wait_until_parked

# Without preemption, so that a slow machine does not change which goroutine runs when.
pytestmark = pytest.mark.goroutine(preempt={"async": False})

FAR = 3600.0
STORM = {"async": True, "slice": "1ms"}


def never() -> None:
    Chan[None]().recv()


def fail(error: BaseException) -> None:
    raise error


def kept(log: list[object], what: object) -> None:
    """Waits, and notes how that ended."""
    try:
        never()
    except BaseException as error:
        log.append((what, type(error)))
        raise


# ---- children ----


def test_children_end_before_the_block_is_left() -> None:
    ended: list[int] = []

    def child(n: int, *, pause: float) -> int:
        sleep(pause)
        ended.append(n)
        return n * n

    with scope() as s:
        goroutines = [s.go(child, n, pause=0.001 * (5 - n)) for n in range(5)]
        assert not any(g.done() for g in goroutines)
    assert sorted(ended) == [0, 1, 2, 3, 4]
    assert all(g.done() for g in goroutines)
    assert [g.result() for g in goroutines] == [0, 1, 4, 9, 16]
    assert num_goroutine() == 1


def test_an_empty_scope() -> None:
    with scope() as s:
        pass
    assert "ended" in repr(s)
    assert context.current() is context.background()
    assert s.context is not None
    assert isinstance(s.context.err(), Cancelled)


def test_a_child_is_a_goroutine_like_others() -> None:
    def child() -> Goroutine[object] | None:
        return current()

    with scope() as s:
        g = s.go(child)
        assert "1 children" in repr(s)
        me = current()
        assert me is not None
        assert g.parent == me.id
        assert g.name.endswith("child")
        assert g.started_at.startswith(__file__)
        assert g.result() is g


def test_children_may_start_children() -> None:
    started: list[int] = []

    def child(s: Scope, depth: int) -> None:
        started.append(depth)
        if depth:
            gosched()
            s.go(child, s, depth - 1)
            s.go(child, s, depth - 1)

    with scope() as s:
        s.go(child, s, 5)
    assert len(started) == 63


def test_other_goroutines_may_start_children() -> None:
    out: list[str] = []
    scopes: Chan[Scope] = Chan()

    def outsider() -> None:
        s = scopes.recv()
        s.go(lambda: (sleep(0.001), out.append("child")))

    go(outsider)
    with scope() as s:
        scopes.send(s)
        gosched()
    assert out == ["child"]


def test_the_ambient_context() -> None:
    with scope() as s:
        assert context.current() is s.context
        assert s.go(context.current).result() is s.context
        with scope() as inner:
            assert context.current() is inner.context
        assert context.current() is s.context
    assert context.current() is context.background()


def test_children_that_have_ended_are_let_go() -> None:
    class Result:
        pass

    with scope() as s:
        g = s.go(Result)
        result = weakref.ref(g.result())
        goroutine = weakref.ref(g)
        del g
        gosched()
        gc.collect()
        assert goroutine() is None
        assert result() is None


# ---- misuse ----


def test_misuse() -> None:
    s = scope()
    assert "not entered" in repr(s)
    for call in (partial(s.go, never), s.cancel, lambda: list(s.map(never, [1]))):
        with pytest.raises(RuntimeError, match="has not begun"):
            call()
    with s:
        pass
    with pytest.raises(RuntimeError, match="the scope has ended"):
        s.go(never)
    with pytest.raises(RuntimeError, match="only once"), s:
        pass
    assert num_goroutine() == 1


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_at_least_one(limit: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, not {limit}"):
        scope(limit=limit)
    with scope() as s, pytest.raises(ValueError, match=f"at least 1, not {limit}"):
        s.map(str, [1], limit=limit)


@pytest.mark.parametrize("limit", ["2", 1.5, True])
def test_a_limit_is_an_int(limit: int) -> None:
    with pytest.raises(TypeError, match="must be an int or None"):
        scope(limit=limit)
    with scope() as s, pytest.raises(TypeError, match="must be an int or None"):
        s.map(str, [1], limit=limit)


def test_a_bad_timeout() -> None:
    with pytest.raises(TypeError, match="number of seconds, not 'soon'"), scope(timeout="soon"):  # type: ignore[arg-type]
        pass
    assert context.current() is context.background()


def test_a_child_is_a_callable() -> None:
    with scope(limit=1) as s:
        with pytest.raises(TypeError, match=r"go\(\) needs a callable, not int"):
            s.go(5)  # type: ignore[arg-type]
        assert s.go(int).result() == 0  # its place is free again


@pytest.mark.goroutine(False)
def test_outside_of_a_goroutine() -> None:
    with pytest.raises(RuntimeError, match="no golibx runtime is running"), scope():
        pass


def test_a_context_that_was_not_left() -> None:
    ctx, _ = context.with_cancel(context.background())
    log: list[object] = []
    with pytest.raises(ExceptionGroup) as info, scope() as s:
        s.go(kept, log, 1)
        gosched()
        ctx.__enter__()
    assert info.group_contains(RuntimeError, match="left by the goroutine that entered it")
    assert log == [(1, Cancelled)]


# ---- errors ----


def test_the_first_error_cancels_the_rest() -> None:
    log: list[object] = []
    error = ValueError("first")
    with pytest.raises(ExceptionGroup) as info, scope() as s:
        s.go(kept, log, 1)
        s.go(lambda: (gosched(), fail(error)))
        s.go(kept, log, 2)
        kept(log, "block")
    assert info.value.exceptions == (error,)
    assert str(info.value) == "1 error in a scope (1 sub-exception)"
    assert sorted(map(str, log)) == sorted(map(str, [(w, Cancelled) for w in (1, 2, "block")]))
    assert error.__notes__[0].startswith("goroutine ")
    assert __file__ in error.__notes__[0]
    assert info.value.__cause__ is None


def test_an_error_of_the_block_cancels_the_children() -> None:
    log: list[object] = []
    error = ValueError("the block's")
    with pytest.raises(ExceptionGroup) as info, scope() as s:
        s.go(kept, log, 1)
        gosched()
        raise error
    assert info.value.exceptions == (error,)
    assert log == [(1, Cancelled)]


def test_errors_are_gathered() -> None:
    def bad_end(error: BaseException) -> None:
        try:
            never()
        finally:
            raise error

    errors = [KeyError(n) for n in range(3)]
    with pytest.raises(ExceptionGroup) as info, scope() as s:
        for error in errors:
            s.go(bad_end, error)
        gosched()
        raise ValueError
    assert [type(error) for error in info.value.exceptions] == [ValueError, *[KeyError] * 3]
    assert set(errors) < set(info.value.exceptions)


def test_the_block_may_take_an_error_from_a_child() -> None:
    error = ValueError("both have it")
    with pytest.raises(ExceptionGroup) as info, scope() as s:
        s.go(fail, error).result()
    assert info.value.exceptions == (error,)


def test_an_error_says_why_the_others_were_cancelled() -> None:
    causes: list[object] = []
    error = ValueError("why")

    def child() -> None:
        try:
            never()
        except Cancelled as cancelled:
            causes.append(cancelled.__cause__)
            assert cancelled.context is s.context
            raise

    with pytest.raises(ExceptionGroup), scope() as s:
        s.go(child)
        s.go(fail, error)
    assert causes == [error]


def test_a_child_that_was_cancelled_is_no_error() -> None:
    with scope() as s:
        first = s.go(never)
        second = s.go(lambda: (sleep(0.001), 5)[1])
        gosched()
        first.cancel()
    assert isinstance(first.exception, Cancelled)
    assert second.result() == 5


def test_a_base_exception_of_a_child() -> None:
    class Odd(BaseException):
        pass

    odd = Odd()
    with pytest.raises(BaseExceptionGroup) as info, scope() as s:
        s.go(fail, odd)
        never()
    assert info.value.exceptions == (odd,)


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_passes(end: type[BaseException]) -> None:
    log: list[object] = []
    error = end()
    with pytest.raises(end) as info, scope() as s:
        s.go(kept, log, 1)
        gosched()
        raise error
    assert info.value is error
    with pytest.raises(end) as info, scope() as s:
        s.go(kept, log, 2)
        s.go(fail, ValueError())
        s.go(fail, error)
        kept(log, "block")
    assert info.value is error
    assert len(log) == 3
    me = current()
    assert me is not None
    with pytest.raises(end) as info, scope() as s:
        s.go(kept, log, 3)
        s.go(lambda: me.throw(error))
    assert info.value is error
    assert len(log) == 4


def test_ctrl_c_while_the_scope_waits(script: Script) -> None:
    result = script(
        """
import os, signal
from golibx import Chan, gosched, run, scope, sleep

def child():
    try:
        Chan().recv()
    finally:
        sleep_shielded()
        print("cleaned up")

def sleep_shielded():
    from golibx import context
    with context.without_cancel(context.current()):
        sleep(0.01)

def interrupt():
    gosched()
    os.kill(os.getpid(), signal.SIGINT)

def main():
    with scope() as s:
        s.go(child)
        s.go(interrupt)

run(main)
"""
    )
    assert result.stdout == "cleaned up\n"
    assert result.stderr.rstrip().endswith("KeyboardInterrupt")


def test_what_is_thrown_while_the_scope_waits() -> None:
    log: list[object] = []
    ends: list[object] = []

    def owner() -> None:
        with scope() as s:
            s.go(kept, log, 1)
            s.go(kept, log, 2)

    def run_owner(thrown: BaseException | None) -> None:
        g = go(owner)
        wait_until_parked(g, state="goroutine join")
        if thrown is None:
            g.cancel()
        else:
            g.throw(thrown)
        g.join()
        ends.append(g.exception)

    error = ValueError("thrown")
    run_owner(None)
    run_owner(error)
    assert isinstance(ends[0], Cancelled)
    assert ends[1] is error
    assert len(log) == 4


def test_a_deadlock_is_reported_through_a_scope(script: Script) -> None:
    result = script(
        """
from golibx import Chan, run, scope

def main():
    with scope() as s:
        s.go(Chan().recv)

run(main)
"""
    )
    assert "all goroutines are asleep" in result.stderr
    assert "ExceptionGroup" not in result.stderr


def test_the_end_of_a_run_ends_scopes(script: Script) -> None:
    assert (
        script.passes(
            """
import os
from golibx import Chan, go, gosched, run, scope

def child(n):
    try:
        Chan().recv()
    finally:
        os.write(1, b"child ended, ")

def worker():
    try:
        with scope() as s:
            s.go(child, 1)
            s.go(child, 2)
    finally:
        print("worker ended")

def main():
    go(worker)
    gosched()
    gosched()

run(main)
"""
        )
        == "child ended, child ended, worker ended\n"
    )


def test_nobody_else_reports_the_errors_of_children(script: Script) -> None:
    result = script(
        """
from golibx import run, scope

def fail():
    raise ValueError("once")

def main():
    try:
        with scope() as s:
            s.go(fail)
            s.go(exit, 3)
    except SystemExit as end:
        print(end.code)

run(main)
"""
    )
    assert result.stdout == "3\n"
    assert result.stderr == ""


# ---- cancel(), deadlines, shields, nesting ----


def test_cancel() -> None:
    log: list[object] = []
    with scope() as s:
        s.go(kept, log, 1)
        gosched()
        s.cancel()
        kept(log, "block")
    assert log == [("block", Cancelled), (1, Cancelled)]
    with scope() as s:
        s.go(s.cancel)
        never()
    reason = ValueError("reason")
    with scope() as s:
        g = s.go(never)
        gosched()
        s.cancel(reason)
    assert isinstance(g.exception, Cancelled)
    assert g.exception.__cause__ is reason


def test_cancel_takes_an_exception() -> None:
    with scope() as s, pytest.raises(TypeError, match="must be an exception or None"):
        s.cancel("why")  # type: ignore[arg-type]


def test_a_deadline_of_the_block() -> None:
    with pytest.raises(DeadlineExceeded) as info, scope(timeout=0.005) as s:
        never()
    assert info.value.context is s.context


def test_a_deadline_of_a_child() -> None:
    log: list[object] = []
    with pytest.raises(DeadlineExceeded) as info, scope(timeout=0.005) as s:
        s.go(kept, log, 1)
    assert info.value.context is s.context
    assert log == [(1, DeadlineExceeded)]


def test_a_deadline_that_interrupts_nobody() -> None:
    with scope(timeout=0.002) as s:
        assert s.context is not None
        while s.context.err() is None:
            pass
    with scope(timeout=FAR) as s:
        s.go(gosched)
    assert stats()["timers"] == 0


def test_a_deadline_and_an_error() -> None:
    def bad_end() -> None:
        try:
            never()
        finally:
            raise ValueError

    for in_block in (True, False):
        with pytest.raises(ExceptionGroup) as info, scope(timeout=0.002) as s:
            s.go(bad_end)
            s.go(never)
            if in_block:
                never()
        assert sorted(type(error).__name__ for error in info.value.exceptions) == [
            "DeadlineExceeded",
            "ValueError",
        ]


def test_a_childs_own_deadline_is_an_error() -> None:
    def child() -> None:
        with context.with_timeout(context.current(), 0.001):
            never()

    with pytest.raises(ExceptionGroup) as info, scope() as s:
        s.go(child)
        s.go(lambda: Chan[int]().recv(timeout=0.001))
    assert all(isinstance(error, DeadlineExceeded) for error in info.value.exceptions)


def test_nested_scopes() -> None:
    log: list[object] = []
    with scope() as outer:
        outer.go(kept, log, "outer")
        with pytest.raises(ExceptionGroup), scope() as inner:
            inner.go(kept, log, "inner")
            inner.go(fail, ValueError())
            never()
        assert log == [("inner", Cancelled)]
        gosched()
        outer.cancel()
    assert log == [("inner", Cancelled), ("outer", Cancelled)]


def test_an_outer_scope_cancels_the_inner_ones() -> None:
    log: list[object] = []

    def owner() -> None:
        try:
            with scope() as inner:
                inner.go(kept, log, "child")
                kept(log, "block")
        except Cancelled as error:
            assert error.context is outer.context
            log.append("inner")
            raise

    def waiting_owner() -> None:
        try:
            with scope() as inner:
                inner.go(kept, log, "child")
        except Cancelled as error:
            assert error.context is outer.context
            log.append("inner")
            raise

    for worker in (owner, waiting_owner):
        log.clear()
        error = ValueError()
        with pytest.raises(ExceptionGroup) as info, scope() as outer:
            outer.go(worker)
            gosched()
            gosched()
            raise error
        assert info.value.exceptions == (error,)
        assert log[-1] == "inner"
        assert ("child", Cancelled) in log


def test_a_deadline_around_a_scope_passes() -> None:
    for in_block in (True, False):
        with (
            pytest.raises(DeadlineExceeded) as info,
            context.with_timeout(context.current(), 0.003) as (ctx, _),
            scope() as s,
        ):
            s.go(never)
            if in_block:
                never()
        assert info.value.context is ctx
        with (
            pytest.raises(BaseExceptionGroup) as group,
            context.with_cancel(context.current()) as (ctx, cancel),
            scope() as s,
        ):
            s.go(lambda: (gosched(), cancel(), fail(ValueError())))
            never()
        assert {type(e) for e in group.value.exceptions} == {Cancelled, ValueError}


def test_a_scope_whose_children_succeeded_does_not_raise() -> None:
    """Though the context around it was cancelled while it waited for them."""
    with context.with_cancel(context.current()) as (_, cancel):
        with scope() as s:
            g = s.go(lambda: (cancel(), 5)[1])
        assert g.result() == 5
        with pytest.raises(Cancelled):
            gosched()


def test_shield() -> None:
    log: list[object] = []
    with context.with_cancel(context.current()) as (_, cancel):
        with scope(shield=True) as s:
            cancel()
            s.go(lambda: (sleep(0.001), log.append("child")))
            sleep(0.001)
            log.append("block")
        assert sorted(map(str, log)) == ["block", "child"]
        with pytest.raises(DeadlineExceeded), scope(shield=True, timeout=0.001):
            never()
        with pytest.raises(Cancelled), scope():
            never()


def test_a_parked_parent_is_interrupted_wherever_it_is() -> None:
    """The block waits in a function that knows nothing of the scope."""
    ch: Chan[int] = Chan()

    def elsewhere() -> int:
        return ch.recv()

    with pytest.raises(ExceptionGroup), scope() as s:
        s.go(lambda: (sleep(0.001), fail(ValueError())))
        elsewhere()
    assert ch.try_send(1) is False


# ---- a limit ----


@pytest.mark.parametrize("limit", [1, 3])
def test_limit(limit: int) -> None:
    live = most = 0

    def child() -> None:
        nonlocal live, most
        live += 1
        most = max(most, live)
        sleep(0.0005)
        live -= 1

    with scope(limit=limit) as s:
        for n in range(12):
            s.go(child)
            assert live <= limit
            if n >= limit:
                assert most == limit
    assert (live, most) == (0, limit)


def test_waiting_for_a_place_is_interrupted() -> None:
    started: list[int] = []
    with pytest.raises(ExceptionGroup), scope(limit=1) as s:
        s.go(lambda: (sleep(0.001), fail(ValueError())))
        s.go(started.append, 1)
        s.go(started.append, 2)
    assert len(started) <= 1
    with pytest.raises(DeadlineExceeded), scope(limit=1, timeout=0.002) as s:
        s.go(never)
        s.go(never)


# ---- map and as_completed ----


@pytest.mark.parametrize("limit", [None, 1, 3, 100])
def test_map_keeps_the_order(limit: int | None) -> None:
    def square(n: int) -> int:
        sleep(0.0005 * (n % 3))
        return n * n

    with scope() as s:
        assert list(s.map(square, range(20), limit=limit)) == [n * n for n in range(20)]
        assert list(s.map(square, [], limit=limit)) == []


def test_map_is_lazy_with_a_limit() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for n in itertools.count():
            taken.append(n)
            yield n

    with scope() as s:
        results = s.map(str, source(), limit=4)
        assert [next(results) for _ in range(6)] == ["0", "1", "2", "3", "4", "5"]
        assert 6 <= len(taken) <= 10


def test_map_with_a_scope_of_limited_size() -> None:
    with scope(limit=2) as s:
        assert list(s.map(lambda n: (gosched(), -n)[1], range(10))) == [-n for n in range(10)]


def test_an_error_in_map_is_the_scopes() -> None:
    got: list[int] = []
    log: list[object] = []

    def work(n: int) -> int:
        if n == 2:
            raise ValueError(n)
        return n

    with pytest.raises(ExceptionGroup) as info, scope() as s:
        s.go(kept, log, 1)
        for result in s.map(work, range(5)):
            got.append(result)
    assert got == [0, 1]
    assert len(info.value.exceptions) == 1
    assert log == [(1, Cancelled)]


def test_a_cancelled_child_of_map() -> None:
    with scope() as s:
        results = s.map(lambda _: never(), [1])
        gosched()
        for g in golibx._core.goroutines():
            if g.name.endswith("<lambda>"):
                g.cancel()
        with pytest.raises(Cancelled):
            next(results)


def test_as_completed() -> None:
    gates: list[Chan[int]] = [Chan() for _ in range(5)]
    order = [3, 0, 4, 1, 2]
    with scope() as s:
        goroutines = [s.go(gate.recv) for gate in gates]
        ended = as_completed(goroutines)
        for n in order:
            gates[n].send(n)
            assert next(ended) is goroutines[n]
        assert list(ended) == []


@pytest.mark.parametrize("limit", [None, 1, 2])
def test_as_completed_over_a_scope_that_fails(limit: int | None) -> None:
    def work(n: int) -> int:
        sleep(0.001 * (n + 1))
        if n == 2:
            raise ValueError(n)
        return n

    results = []
    with pytest.raises(ExceptionGroup) as caught, scope(limit=limit) as s:
        children = [s.go(work, n) for n in range(4)]
        for g in as_completed(children):
            results.append(g.result())
    assert [str(error) for error in caught.value.exceptions] == ["2"]
    assert results == [0, 1]


def test_as_completed_of_those_that_have_ended_and_failed() -> None:
    done = go(int)
    failed = go(fail, ValueError())
    done.join()
    failed.join()
    cancelled = go(never)
    gosched()
    cancelled.cancel()
    assert set(as_completed([done, failed, cancelled])) == {done, failed, cancelled}
    assert list(as_completed(iter([done, done]))) == [done, done]
    assert list(as_completed([])) == []
    assert isinstance(failed.exception, ValueError)


def test_as_completed_takes_goroutines() -> None:
    with pytest.raises(TypeError, match="5 is not a Goroutine"):
        as_completed([5])  # type: ignore[list-item]


def test_as_completed_is_interrupted() -> None:
    with scope() as s:
        g = s.go(never)
        s.go(lambda: (gosched(), s.cancel()))
        for _ in as_completed([g]):
            raise AssertionError
        raise AssertionError
    assert isinstance(g.exception, Cancelled)


def test_as_completed_that_is_given_up_leaves_nothing() -> None:
    gate: Chan[None] = Chan()
    g = go(gate.recv_ok)
    ended: Chan[object] = Chan(1)
    gone = weakref.ref(ended)
    golibx._core.notify_end(g, ended)  # type: ignore[arg-type]
    del ended
    gc.collect()
    assert gone() is not None
    gate.close()
    g.join()
    gosched()
    assert gone() is None


# ---- under preemption ----


@pytest.mark.goroutine(preempt=STORM)
@pytest.mark.parametrize("limit", [None, 4])
def test_a_storm_of_failing_scopes(limit: int | None) -> None:
    """Each child that began has ended when its scope has, and each error is raised once."""
    begun: list[int] = []
    ended: list[int] = []
    failed: list[int] = []
    raised: list[int] = []

    def child(s: Scope, n: int) -> None:
        begun.append(n)
        try:
            if n % 5 == 0:
                gosched()
            if n % 7 == 0 and limit is None:  # or all places might wait for one
                s.go(child, s, 1)
            if n % 11 == 0:
                failed.append(n)
                raise ValueError(n)
            sleep(0.0001 * (n % 3))
        finally:
            ended.append(n)

    def owner(k: int) -> None:
        mine: list[Goroutine[None]] = []
        try:
            with scope(limit=limit, timeout=0.02 if k % 4 == 0 else None) as s:
                for n in range(k, k + 12):
                    mine.append(s.go(child, s, n))
        except ExceptionGroup as group:
            raised.extend(e.args[0] for e in group.exceptions if isinstance(e, ValueError))
        except DeadlineExceeded:
            pass
        assert all(g.done() for g in mine)

    goroutines = [go(owner, k) for k in range(120)]
    for g in goroutines:
        g.result()
    assert sorted(begun) == sorted(ended)
    assert len(begun) > 300
    assert sorted(failed) == sorted(raised)
    wait_until(lambda: num_goroutine() == 1)  # the last steps of some
    assert stats()["timers"] == 0


@pytest.mark.goroutine(preempt=STORM)
def test_an_outsider_starts_children_until_the_scope_ends() -> None:
    """What it started has ended with the scope; what it could not start, it was told of."""
    for pause in range(40):
        started: list[Goroutine[None]] = []
        scopes: Chan[Scope] = Chan()

        def outsider() -> None:
            s = scopes.recv()
            for _ in range(50):
                try:
                    started.append(s.go(gosched))
                except RuntimeError as error:
                    assert "the scope has ended" in str(error)
                    return
                for _ in range(pause % 5):
                    gosched()

        g = go(outsider)
        with scope() as s:
            scopes.send(s)
        assert all(child.done() for child in list(started))
        g.result()


def test_a_child_that_is_started_as_the_scope_closes() -> None:
    """By another goroutine, after the scope has found that none is left."""
    late: list[Goroutine[None]] = []

    class Children(dict[Goroutine[object] | None, None]):
        def __setitem__(self, key: Goroutine[object] | None, value: None) -> None:
            if not late:
                late.append(s.go(sleep, 0.001))
            super().__setitem__(key, value)

    with scope() as s:
        s._live = Children()
    assert late[0].done()


def test_children_from_threads() -> None:
    out: list[int] = []
    with scope() as s:
        hold = s.go(never)
        threads = [threading.Thread(target=s.go, args=(out.append, n)) for n in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hold.cancel()
    assert sorted(out) == [0, 1, 2, 3, 4]
