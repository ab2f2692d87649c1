"""golibx.context: trees, deadlines, values, and how a cancellation arrives."""

from __future__ import annotations

import ctypes
import gc
import logging
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial

import pytest

import golibx
from conftest import Script
from golibx import (
    Cancelled,
    Chan,
    ChannelClosed,
    DeadlineExceeded,
    Timer,
    WaitGroup,
    blocking,
    context,
    current,
    go,
    gosched,
    native,
    net,
    select,
    sleep,
    stats,
)
from golibx.context import Context
from golibx.testing import wait_until, wait_until_parked

# Without preemption, so that a slow machine does not change which goroutine runs when.
pytestmark = pytest.mark.goroutine(preempt={"async": False})

FAR = 3600.0


def never() -> None:
    Chan[None]().recv()


def outcome(fn: Callable[[], object]) -> BaseException | None:
    try:
        fn()
    except BaseException as exc:
        return exc
    return None


# ---- the tree ----


def test_background() -> None:
    ctx = context.background()
    assert ctx is context.background()
    assert ctx.err() is None
    assert ctx.deadline() is None
    assert ctx.value("key") is None
    assert context.cause(ctx) is None
    assert select(ctx.done().on_recv(), default=True)[0] == -1
    assert "without cancellation" in repr(ctx)


def test_with_cancel() -> None:
    ctx, cancel = context.with_cancel(context.background())
    assert ctx.err() is None
    assert "live" in repr(ctx)
    done = ctx.done()
    assert done is ctx.done()
    assert not done.closed
    cancel()
    assert isinstance(ctx.err(), Cancelled)
    assert isinstance(context.cause(ctx), Cancelled)
    assert done.recv_ok() == (None, False)
    assert ctx.done().closed
    assert "cancelled" in repr(ctx)
    cancel()  # nothing happens
    assert isinstance(ctx.err(), Cancelled)


def test_cancellation_goes_down_the_tree_and_not_up() -> None:
    root, cancel_root = context.with_cancel(context.background())
    left, cancel_left = context.with_cancel(root)
    below, _ = context.with_cancel(context.with_value(left, "k", 1))
    right, _ = context.with_timeout(root, FAR)
    channels = [ctx.done() for ctx in (root, left, below, right)]
    cancel_left()
    assert [ctx.err() is None for ctx in (root, left, below, right)] == [True, False, False, True]
    assert [ch.closed for ch in channels] == [False, True, True, False]
    cancel_root()
    assert [ch.closed for ch in channels] == [True] * 4
    late, _ = context.with_timeout(right, FAR)
    assert isinstance(late.err(), Cancelled)
    assert late.done().closed


def test_the_error_names_the_context_and_the_cause() -> None:
    parent, cancel = context.with_cancel_cause(context.background())
    child = context.with_value(context.with_cancel(parent)[0], "k", 1)
    reason = ValueError("the disk is full")
    cancel(reason)
    cancel(KeyError("too late"))
    for ctx in (parent, child):
        err = ctx.err()
        assert isinstance(err, Cancelled)
        assert err.context is parent
        assert err.__cause__ is reason
        assert err is not ctx.err()
        assert context.cause(ctx) is reason


def test_a_cause_is_an_exception() -> None:
    ctx, cancel = context.with_cancel_cause(context.background())
    with pytest.raises(TypeError, match="must be an exception or None, not 'because'"):
        cancel("because")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be an exception"):
        cancel(ValueError)  # type: ignore[arg-type]
    assert ctx.err() is None
    cancel()
    assert isinstance(context.cause(ctx), Cancelled)
    assert ctx.err().__cause__ is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "derive",
    [
        context.with_cancel,
        context.with_cancel_cause,
        lambda p: context.with_timeout(p, 1),
        lambda p: context.with_deadline(p, 1),
        lambda p: context.with_value(p, 1, 2),
        context.without_cancel,
        context.cause,
        lambda p: context.after_func(p, never),
    ],
)
def test_a_parent_is_a_context(derive: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match=r"must be a Context of golibx\.context, not None"):
        derive(None)


def test_values() -> None:
    key = object()
    ctx = context.with_value(context.background(), "user", "gopher")
    ctx = context.with_value(ctx, key, [1])
    inner, _ = context.with_cancel(context.with_value(ctx, "user", "python"))
    assert inner.value("user") == "python"
    assert ctx.value("user") == "gopher"
    assert inner.value(key) == [1]
    assert inner.value("none") is None
    assert inner.value("none", default=5) == 5
    assert inner.value(key="user") == "python"
    assert context.without_cancel(inner).value("user") == "python"


def test_a_key_that_cannot_be_compared() -> None:
    class Key:
        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

        __hash__ = None  # type: ignore[assignment]

    key = Key()
    ctx = context.with_value(context.background(), key, 1)
    assert ctx.value(key) == 1
    with pytest.raises(ZeroDivisionError):
        ctx.value("other")


def test_contexts_are_made_by_functions_only() -> None:
    with pytest.raises(TypeError):
        Context()


# ---- deadlines ----


def test_with_timeout() -> None:
    before = time.monotonic()
    ctx, _ = context.with_timeout(context.background(), 0.01)
    deadline = ctx.deadline()
    assert deadline is not None
    assert before + 0.01 <= deadline <= time.monotonic() + 0.01
    assert ctx.done().recv_ok() == (None, False)
    assert time.monotonic() >= deadline
    err = ctx.err()
    assert isinstance(err, DeadlineExceeded)
    assert err.context is ctx


def test_with_deadline() -> None:
    t = time.monotonic() + FAR
    ctx, cancel = context.with_deadline(context.background(), t)
    deadline = ctx.deadline()
    assert deadline is not None
    assert abs(deadline - t) < 1e-6
    assert ctx.err() is None
    cancel()
    assert isinstance(ctx.err(), Cancelled)
    past, _ = context.with_deadline(context.background(), time.monotonic() - 1)
    assert isinstance(past.err(), DeadlineExceeded)


@pytest.mark.parametrize("seconds", [0, -1.5, float("-inf")])
def test_a_timeout_that_is_over(seconds: float) -> None:
    ctx, _ = context.with_timeout(context.background(), seconds)
    assert isinstance(ctx.err(), DeadlineExceeded)
    assert ctx.done().closed


def test_bad_timeouts() -> None:
    with pytest.raises(TypeError, match="number of seconds, not 'soon'"):
        context.with_timeout(context.background(), "soon")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="number of seconds, not None"):
        context.with_deadline(context.background(), None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not nan"):
        context.with_timeout(context.background(), float("nan"))
    ctx, _ = context.with_timeout(context.background(), float("inf"))
    assert ctx.deadline() is None


def test_the_earlier_deadline_goes() -> None:
    timers = stats()["timers"]
    parent, cancel = context.with_timeout(context.background(), FAR)
    later, _ = context.with_timeout(parent, 2 * FAR)
    none, _ = context.with_cancel(later)
    earlier, _ = context.with_timeout(none, 0.01)
    assert later.deadline() == none.deadline() == parent.deadline()
    assert (earlier.deadline() or 0) < (parent.deadline() or 0)
    assert stats()["timers"] == timers + 2
    with pytest.raises(DeadlineExceeded), earlier:
        never()
    assert none.err() is None
    cancel()
    assert stats()["timers"] == timers


def test_a_deadline_is_seen_by_one_that_never_waits() -> None:
    outer, _ = context.with_timeout(context.background(), 0.005)
    inner, _ = context.with_cancel(outer)
    while inner.err() is None:
        pass
    assert isinstance(outer.err(), DeadlineExceeded)
    assert inner.err().context is outer  # type: ignore[union-attr]


def test_without_cancel() -> None:
    parent, cancel = context.with_timeout(context.background(), FAR)
    free = context.without_cancel(parent)
    below, _ = context.with_cancel(free)
    cancel()
    assert free.err() is None
    assert free.deadline() is None
    assert below.err() is None
    assert not free.done().closed


@pytest.mark.goroutine(False)
def test_a_context_of_no_run_keeps_its_deadline() -> None:
    ctx, _ = context.with_timeout(context.background(), 0.02)
    child, _ = context.with_cancel(ctx)
    unused, _ = context.with_timeout(context.background(), FAR)

    def wait() -> None:
        with pytest.raises(DeadlineExceeded), child:
            never()

    golibx.run(wait)
    assert isinstance(ctx.err(), DeadlineExceeded)
    del unused
    over, _ = context.with_timeout(context.background(), 0.001)
    while over.err() is None:
        pass


@pytest.mark.goroutine(False)
def test_a_context_outlives_runs() -> None:
    ctx, cancel = context.with_timeout(context.background(), FAR)

    def wait() -> None:
        go(ctx.done().recv_ok)
        with ctx:
            go(never)
        assert stats()["timers"] == 1

    golibx.run(wait)
    golibx.run(wait)
    cancel()

    def raises() -> None:
        with pytest.raises(Cancelled), ctx:
            sleep(1)

    golibx.run(raises)


@pytest.mark.goroutine(False)
def test_outside_of_a_goroutine() -> None:
    ctx, cancel = context.with_cancel(context.background())
    assert context.current() is context.background()
    with pytest.raises(RuntimeError, match="no golibx runtime is running"), ctx:
        pass
    with pytest.raises(RuntimeError, match="no golibx runtime is running"):
        context.after_func(ctx, never)
    cancel()
    assert isinstance(ctx.err(), Cancelled)


# ---- the ambient one ----


def test_current() -> None:
    assert context.current() is context.background()
    outer, _ = context.with_cancel(context.background())
    inner = context.with_value(outer, 1, 2)
    with outer as entered:
        assert entered is outer
        assert context.current() is outer
        with inner:
            assert context.current() is inner
            with inner, outer:
                assert context.current() is outer
            assert context.current() is inner
        assert context.current() is outer
    assert context.current() is context.background()
    assert outer.err() is None


def test_the_pair_owns_its_context() -> None:
    with context.with_cancel(context.background()) as (ctx, cancel):
        assert context.current() is ctx
        assert ctx.err() is None
        assert callable(cancel)
    assert isinstance(ctx.err(), Cancelled)
    with context.with_timeout(context.background(), FAR) as (ctx, _):
        assert context.current() is ctx
    assert isinstance(ctx.err(), Cancelled)
    with pytest.raises(ValueError), context.with_cancel_cause(ctx) as (ctx, _):
        raise ValueError


def test_a_goroutine_begins_under_its_spawners() -> None:
    with context.with_cancel(context.background()) as (ctx, _):
        assert go(context.current).result() is ctx
        assert go(lambda: go(context.current).result()).result() is ctx
        group = WaitGroup()
        assert group.go(context.current).result() is ctx
        late = go(never)
    # Its spawner has left the block, and cancelled it by that.
    late.join()
    assert isinstance(late.exception, Cancelled)
    assert go(context.current).result() is context.background()


def test_a_goroutine_that_has_not_begun_begins() -> None:
    begun: list[int] = []
    with context.with_cancel(context.background()) as (_, cancel):
        g = go(lambda: (begun.append(1), gosched()))
        cancel()
    g.join()
    assert begun == [1]
    assert isinstance(g.exception, Cancelled)


def test_leaving_another_than_the_last_is_refused() -> None:
    outer, _ = context.with_cancel(context.background())
    inner, _ = context.with_cancel(outer)
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(RuntimeError, match="left by the goroutine that entered it"):
        outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    outer.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="left by the goroutine that entered it"):
        outer.__exit__(None, None, None)


def test_a_goroutine_may_end_without_leaving() -> None:
    """As one that holds a generator which entered a context."""
    kept: list[Iterator[None]] = []

    def entered(ctx: Context) -> Iterator[None]:
        with ctx:
            yield

    def leave_it_entered() -> weakref.ref[Context]:
        ctx = context.with_cancel(context.background())[0]
        kept.append(entered(ctx))
        next(kept[0])
        assert context.current() is ctx
        return weakref.ref(ctx)

    gone = go(leave_it_entered).result()
    assert context.current() is context.background()
    with pytest.raises(RuntimeError, match="left by the goroutine that entered it"):
        next(kept.pop())
    gc.collect()
    assert gone() is None


# ---- every wait obeys ----


def unserved_send(timeout: float | None = None) -> Callable[[], object]:
    return partial(Chan[int]().send, 1, timeout=timeout)


def unserved_join() -> Callable[[], object]:
    return go(never).join


def unserved_group() -> Callable[[], object]:
    group = WaitGroup()
    group.add()
    return group.wait


opened: list[Callable[[], None]] = []


@pytest.fixture(autouse=True)
def _close_what_was_opened() -> Iterator[None]:
    yield
    while opened:
        opened.pop()()


def silent_socket() -> Callable[[], object]:
    pair = [golibx._core.Socket(s.detach()) for s in socket.socketpair()]
    opened.extend(s.close for s in pair)
    return partial(pair[0].recv, 1)


def silent_listener() -> Callable[[], object]:
    listener = net.listen("127.0.0.1:0")
    opened.append(listener.close)
    return listener.accept


WAITS: dict[str, Callable[[], Callable[[], object]]] = {
    "send": unserved_send,
    "send_timeout": partial(unserved_send, FAR),
    "recv": lambda: Chan[int]().recv,
    "recv_ok": lambda: partial(Chan[int]().recv_ok, FAR),
    "iteration": lambda: Chan[int]().__next__,
    "select": lambda: partial(select, Chan[int]().on_recv(), Chan[int]().on_send(1)),
    "select_nothing": lambda: select,
    "sleep": lambda: partial(sleep, FAR),
    "join": unserved_join,
    "result": lambda: partial(go(never).result, FAR),
    "wait_group": unserved_group,
    "accept": silent_listener,
    "socket": silent_socket,
    "native_chan": lambda: native.Chan(ctypes.c_int64).recv,
    "native_call": lambda: partial(native.call, ctypes.CDLL(None).usleep, 100_000),
}


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.goroutine(leaks=False)
def test_a_wait_ends_with_its_context(name: str) -> None:
    wait = WAITS[name]()
    ctx, cancel = context.with_cancel(context.background())

    def waiter() -> None:
        with ctx:
            wait()

    g = go(waiter)
    wait_until(lambda: g.state not in ("runnable", "running"))
    cancel()
    g.join()
    assert isinstance(g.exception, Cancelled)
    assert g.exception.context is ctx
    assert g.state == "cancelled"


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.goroutine(leaks=False)
def test_a_wait_ends_with_its_deadline(name: str) -> None:
    wait = WAITS[name]()
    ctx, _ = context.with_timeout(context.background(), 0.002)
    with ctx:
        error = outcome(wait)
    assert isinstance(error, DeadlineExceeded)
    assert error.context is ctx


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.goroutine(leaks=False)
def test_a_wait_under_a_context_that_is_done_raises(name: str) -> None:
    wait = WAITS[name]()
    switches = stats()["switches"]
    with context.with_cancel(context.background()) as (_, cancel):
        cancel()
        errors = [outcome(wait) for _ in range(3)]
    assert [type(error) for error in errors] == [Cancelled] * 3
    assert stats()["switches"] == switches  # and does not wait first


def test_a_native_call_under_a_context_that_is_done_does_not_begin() -> None:
    labs = ctypes.CDLL(None).labs
    assert native.call(labs, -1, restype=ctypes.c_long) == 1
    begun = native.counters()["spawns"]
    with context.with_cancel(context.background()) as (_, cancel):
        cancel()
        assert isinstance(outcome(partial(native.call, labs, -1)), Cancelled)
    assert native.counters()["spawns"] == begun


def test_other_park_points_obey() -> None:
    with context.with_cancel(context.background()) as (_, cancel):
        cancel()
        for call in (gosched, lambda: sleep(0), lambda: blocking(int)):
            assert isinstance(outcome(call), Cancelled)


def test_what_can_be_done_at_once_is_done() -> None:
    ch: Chan[int] = Chan(2)
    ended = go(int)
    ended.join()
    with context.with_cancel(context.background()) as (_, cancel):
        cancel()
        ch.send(1)
        assert ch.recv() == 1
        assert select(ch.on_send(2))[0] == 0
        assert ended.result() == 0
        assert ended.join()
        WaitGroup().wait()


def test_a_shield() -> None:
    log: list[object] = []

    def worker() -> None:
        try:
            never()
        finally:
            log.append(type(outcome(gosched)))
            with context.without_cancel(context.current()):
                sleep(0.001)
                log.append("cleaned up")

    with context.with_cancel(context.background()) as (_, cancel):
        g = go(worker)
        gosched()
        cancel()
    g.join()
    assert isinstance(g.exception, Cancelled)
    assert log == [Cancelled, "cleaned up"]


def test_goroutine_cancel_goes_through_a_shield() -> None:
    def worker() -> None:
        with context.without_cancel(context.current()):
            never()

    g = go(worker)
    gosched()
    g.cancel()
    g.join()
    assert isinstance(g.exception, Cancelled)
    assert g.exception.context is None


def test_locks_of_the_standard_library_do_not_obey() -> None:
    """Or logging would raise, now and then, in what cleans up."""
    lock = threading.RLock()
    with lock, context.with_cancel(context.background()) as (_, cancel):

        def worker() -> str:
            with lock:
                return "has it"

        g = go(worker)
        gosched()
        cancel()
    assert g.result() == "has it"
    logger = logging.getLogger("golibx.tests")
    written: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = written.append
    logger.addHandler(handler)
    try:
        with context.with_cancel(context.background()) as (_, cancel):
            cancel()
            logger.warning("written")
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in written] == ["written"]


def test_an_uncollected_echo_is_not_reported(script: Script) -> None:
    """The goroutine that set the deadline learns of it; its helpers' ends are no news."""
    result = script(
        """
from golibx import Chan, context, go, run, sleep

def main():
    try:
        with context.with_timeout(context.current(), 0.5):
            go(Chan().recv)
            go(lambda: Chan().recv(timeout=0.001)).join()
            sleep(10)
    except TimeoutError as error:
        print(error)
    sleep(0)

run(main)
"""
    )
    assert result.stdout == "context deadline exceeded\n"
    assert "channel receive timed out" in result.stderr
    assert "context deadline exceeded" not in result.stderr


def test_deadlines_are_no_deadlock(script: Script) -> None:
    result = script(
        """
from golibx import Chan, context, run

def main():
    try:
        with context.with_timeout(context.current(), 0.05):
            Chan().recv()
    except TimeoutError:
        print("in time")
    with context.with_cancel(context.current()):
        Chan().recv()

run(main)
"""
    )
    assert result.stdout == "in time\n"
    assert "all goroutines are asleep" in result.stderr


def test_the_end_of_a_run_ends_those_under_a_shield(script: Script) -> None:
    assert (
        script.passes(
            """
from golibx import Chan, context, go, gosched, run

def worker():
    try:
        with context.without_cancel(context.current()):
            Chan().recv()
    finally:
        print("ended")

def main():
    ctx, cancel = context.with_cancel(context.current())
    ctx.__enter__()  # and is not left
    go(worker)
    gosched()
    cancel()

run(main)
"""
        )
        == "ended\n"
    )


def test_cancelled_by_a_thread() -> None:
    ctx, cancel = context.with_cancel(context.background())
    thread = threading.Timer(0.01, cancel)
    thread.start()
    with pytest.raises(Cancelled), ctx:
        never()
    thread.join()


def test_a_deadline_set_by_a_thread() -> None:
    made: list[Context] = []
    thread = threading.Timer(
        0.01, lambda: made.append(context.with_timeout(context.background(), 0.01)[0])
    )
    thread.start()
    far, _ = context.with_timeout(context.background(), FAR)
    wait_until(lambda: made)
    assert made[0].done().recv_ok() == (None, False)
    thread.join()
    assert far.err() is None


# ---- cancelling and being served at the same time ----

STORM = {"async": True, "slice": "1ms"}


@pytest.mark.goroutine(preempt=STORM)
@pytest.mark.parametrize("capacity", [0, 3])
def test_nothing_is_lost_between_channels_and_cancellation(capacity: int) -> None:
    """Senders and receivers are cancelled all the time; each value arrives once or was not sent."""
    ch: Chan[int] = Chan(capacity)
    sent: list[int] = []
    received: list[int] = []
    stop: list[bool] = []
    numbers = iter(range(10**9))

    def send() -> None:
        while not stop:
            n = next(numbers)
            with context.with_cancel(context.background()) as (ctx, cancel):
                cancels.send(cancel)
                try:
                    if n % 2:
                        ch.send(n)
                    else:
                        select(ch.on_send(n), never_ready.on_recv())
                except Cancelled as error:
                    assert error.context is ctx
                else:
                    sent.append(n)

    def receive() -> None:
        while not stop:
            with context.with_cancel(context.background()) as (ctx, cancel):
                cancels.send(cancel)
                try:
                    value = ch.recv() if len(received) % 2 else select(ch.on_recv())[1]
                except Cancelled as error:
                    assert error.context is ctx
                else:
                    received.append(value)

    def cancel_them() -> None:
        for cancel in cancels:
            if next(numbers) % 3:
                gosched()
            cancel()

    never_ready: Chan[int] = Chan()
    cancels: Chan[Callable[[], None]] = Chan(8)
    workers = [go(f) for f in (send, send, receive, receive)]
    cancellers = [go(cancel_them), go(cancel_them)]
    end = time.monotonic() + 0.4
    while time.monotonic() < end and len(sent) < 20_000:
        sleep(0.01)
    stop.append(True)
    for worker in workers:
        worker.result()
    cancels.close()
    for canceller in cancellers:
        canceller.result()
    left = []
    while len(ch):
        left.append(ch.recv())
    assert len(sent) > 100
    assert sorted(sent) == sorted(received + left)


@pytest.mark.goroutine(preempt=STORM)
def test_a_cancellation_and_a_value_exclude_each_other() -> None:
    """Both happen in one turn, in either order: whatever came first counts, and only that."""
    for turn in range(300):
        ch: Chan[int] = Chan()
        ctx, cancel = context.with_cancel(context.background())
        got: list[object] = []

        def receive() -> None:
            with ctx:
                try:
                    got.append(ch.recv())
                except Cancelled:
                    got.append("cancelled")

        g = go(receive)
        wait_until_parked(g, state="chan receive")
        if turn % 2:
            assert ch.try_send(turn)
            cancel()
        else:
            cancel()
            assert not ch.try_send(turn)
        g.result()
        assert got == [turn if turn % 2 else "cancelled"]


@pytest.mark.goroutine(preempt=STORM)
def test_sockets_lose_no_byte() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    reader = golibx._core.Socket(ours.detach())
    writer = golibx._core.Socket(theirs.detach())
    total = 3000
    timeouts = 0

    def write() -> None:
        for n in range(total):
            writer.sendall(bytes([n % 251]))
            if n % 100 == 0:
                sleep(0.001)

    g = go(write)
    data = b""
    while len(data) < total:
        try:
            with context.with_timeout(context.current(), 0.0003):
                data += reader.recv(64)
        except DeadlineExceeded:
            timeouts += 1
    g.result()
    assert data == bytes(n % 251 for n in range(total))
    reader.close()
    writer.close()


@pytest.mark.goroutine(preempt=STORM)
@pytest.mark.goroutine(leaks=False)
def test_deadlines_race_with_cancellations() -> None:
    """Each wait ends once, by the one or by the other, and so do all that are below."""

    def wait(n: int) -> str:
        ctx, cancel = context.with_timeout(context.background(), 0.0002 * (n % 7))
        below = [context.with_cancel(ctx)[0] for _ in range(3)]
        helpers = []
        for child in below:
            with child:
                helpers.append(go(sleep, FAR))
        go(lambda: (sleep(0.0002 * (n % 5)), cancel()))
        with ctx:
            error = outcome(never)
        ends = set()
        for helper in helpers:
            helper.join()
            ends.add(type(helper.exception))
        assert ends == {type(error)}
        assert {type(child.err()) for child in below} == {type(error)}
        return type(error).__name__

    goroutines = [go(wait, n) for n in range(400)]
    ends = [g.result() for g in goroutines]
    assert set(ends) <= {"Cancelled", "DeadlineExceeded"}


@pytest.mark.goroutine(preempt=STORM)
def test_join_and_wait_group_race_with_cancellations() -> None:
    def waiter(wait: Callable[[], object], ctx: Context) -> bool:
        with ctx:
            try:
                wait()
            except Cancelled:
                return False
            return True

    served = 0
    for turn in range(200):
        gate: Chan[None] = Chan()
        worker = go(gate.recv_ok)
        group = WaitGroup()
        group.add()
        ctx, cancel = context.with_cancel(context.background())
        waiters = [go(waiter, w, ctx) for w in (worker.join, group.wait, worker.result)]
        wait_until(lambda: not any(w.state in ("runnable", "running") for w in waiters))
        if turn % 2:
            gate.close()
            group.done()
            worker.join()
            cancel()
        else:
            cancel()
            gate.close()
            group.done()
        results = [w.result() for w in waiters]
        assert results == [bool(turn % 2)] * 3
        served += sum(results)
    assert served == 300


@pytest.mark.goroutine(preempt=STORM)
def test_a_storm_of_cancelled_trees() -> None:
    ended = 0

    def leaf() -> None:
        nonlocal ended
        try:
            never()
        finally:
            ended += 1

    def branch(depth: int) -> None:
        with context.with_cancel(context.current()):
            if depth == 0:
                leaf()
            children = [go(branch, depth - 1) for _ in range(3)]
            for child in children:
                child.join()

    trees = 20
    for _ in range(trees):
        with context.with_cancel(context.current()) as (_, cancel):
            root = go(branch, 3)
            for _ in range(40):
                gosched()
            cancel()
        root.join()
    wait_until(lambda: golibx.num_goroutine() == 1)
    assert ended <= trees * 27
    assert stats()["timers"] == 0


# ---- after_func ----


def test_after_func() -> None:
    ctx, cancel = context.with_cancel(context.with_value(context.background(), "k", "v"))
    called: Chan[tuple[object, object]] = Chan(5)

    def note() -> None:
        called.send((context.current().value("k"), context.current().err()))

    stop = context.after_func(ctx, note)
    gosched()
    assert len(called) == 0
    cancel()
    assert called.recv() == ("v", None)
    assert stop() is False
    late = context.after_func(ctx, note)
    assert late() is False
    assert called.recv() == ("v", None)


def test_after_func_stop() -> None:
    ctx, cancel = context.with_cancel(context.background())
    called: list[int] = []
    stops = [context.after_func(ctx, lambda n=n: called.append(n)) for n in range(5)]
    assert [stops[n]() for n in (1, 3)] == [True, True]
    assert stops[1]() is False
    cancel()
    gosched()
    gosched()
    assert sorted(called) == [0, 2, 4]
    assert [stop() for stop in stops] == [False] * 5


def test_after_func_of_a_deadline_that_nobody_holds() -> None:
    called: Chan[int] = Chan(1)
    context.after_func(
        context.with_value(context.with_timeout(context.background(), 0.005)[0], 1, 1),
        lambda: called.send(1),
    )
    gc.collect()
    assert called.recv() == 1
    gc.collect()
    assert stats()["timers"] == 0


def test_after_func_of_background_never_comes() -> None:
    stop = context.after_func(context.background(), never)
    assert stop() is True
    assert stop() is False


def test_after_func_needs_a_callable() -> None:
    ctx, _ = context.with_cancel(context.background())
    with pytest.raises(TypeError, match="callable"):
        context.after_func(ctx, 5)  # type: ignore[arg-type]


def test_after_func_that_raises_is_reported(script: Script) -> None:
    result = script(
        """
from golibx import context, gosched, run

def main():
    ctx, cancel = context.with_cancel(context.background())
    context.after_func(ctx, lambda: 1 / 0)
    cancel()
    gosched()

run(main)
"""
    )
    assert "ZeroDivisionError" in result.stderr


# ---- what is forgotten goes away ----


def test_forgotten_contexts_go_away() -> None:
    timers = stats()["timers"]
    parent, cancel = context.with_cancel(context.background())
    children = [context.with_timeout(context.with_value(parent, 1, 2), FAR) for _ in range(100)]
    gone = [weakref.ref(child[0]) for child in children]
    assert stats()["timers"] == timers + 100
    for n in range(50):
        children[n][1]()
    assert stats()["timers"] == timers + 50
    children.clear()
    assert stats()["timers"] == timers
    assert not any(ref() for ref in gone)
    cancel()


def test_a_channel_keeps_its_context() -> None:
    done = context.with_timeout(context.background(), 0.005)[0].done()
    gc.collect()
    assert done.recv_ok() == (None, False)
    ctx: Context | None = context.with_timeout(context.background(), FAR)[0]
    assert ctx is not None
    gone = weakref.ref(ctx)
    done = ctx.done()
    ctx = None
    gc.collect()
    assert gone() is not None
    del done
    gc.collect()
    assert gone() is None
    assert stats()["timers"] == 0


def test_cycles_go_away() -> None:
    class Value:
        pass

    value = Value()
    ctx, value.cancel = context.with_cancel_cause(  # type: ignore[attr-defined]
        context.with_value(context.background(), "k", value)
    )
    value.stop = context.after_func(ctx, partial(id, value))  # type: ignore[attr-defined]
    value.done = ctx.done()  # type: ignore[attr-defined]
    gone = weakref.ref(value)
    del value, ctx
    gc.collect()
    assert gone() is None


def test_registrations_keep_what_they_need_until_they_are_stopped() -> None:
    class Value:
        pass

    parent, _ = context.with_cancel(context.background())
    value = Value()
    gone = weakref.ref(value)
    stop = context.after_func(context.with_cancel(parent)[0], partial(id, value))
    del value
    gc.collect()
    assert gone() is not None
    assert stop()
    assert gone() is None


def test_an_ambient_context_goes_with_its_goroutine() -> None:
    ctx, cancel = context.with_cancel(context.background())
    gone = weakref.ref(ctx)
    with ctx:
        goroutines = [go(never) for _ in range(10)]
    gosched()
    cancel()
    for g in goroutines:
        g.join()
    del ctx, cancel
    goroutines.clear()
    del g
    gc.collect()
    assert gone() is None


def test_the_function_of_a_timer_runs_under_the_context_it_was_started_under() -> None:
    seen: Chan[Context] = Chan()
    ctx, cancel = context.with_cancel(context.background())
    with ctx:
        timer = Timer(0, lambda: seen.send(context.current()))
        assert seen.recv() is ctx
    assert context.current() is not ctx
    timer.reset(0)
    assert seen.recv() is context.current()
    gone = weakref.ref(ctx)
    with ctx:
        stopped = Timer(FAR, never)
    del ctx, cancel
    assert gone() is not None
    assert stopped.stop()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("at_once", [False, True])
def test_a_cancellation_ends_a_select_over_cases_of_all_kinds(at_once: bool) -> None:
    values: Chan[int] = Chan()
    numbers = native.Chan(ctypes.c_int32)
    timer = Timer(FAR)
    ctx, cancel = context.with_cancel(context.background())
    errors: list[BaseException | None] = []
    with net.listen("127.0.0.1:0") as listener:

        def selects() -> None:
            cases = (
                values.on_recv(),
                numbers.on_recv(),
                timer.on_fire(),
                listener.on_accept(),
                watched.on_done(),
            )
            with ctx:
                errors.append(outcome(lambda: select(*cases)))

        watched = go(never)
        if at_once:
            cancel()
        waiting = go(selects)
        gosched()
        assert waiting.waiting is not at_once
        cancel()
        waiting.join()
    assert isinstance(errors[0], Cancelled)
    # It has left all the queues: it keeps no later goroutine waiting.
    assert not values.try_send(1)
    assert not numbers.try_send(1)
    assert timer.stop()
    watched.cancel()


def test_long_chains() -> None:
    ctx = context.background()
    root = None
    for n in range(50_000):
        ctx, cancel = context.with_cancel(context.with_value(ctx, n, n))
        root = root or cancel
    assert ctx.value(0) == 0
    assert root is not None
    root()
    assert isinstance(ctx.err(), Cancelled)
    del root, ctx, cancel


# ---- Goroutine.throw ----


def test_throw_raises_where_it_waits() -> None:
    caught: list[BaseException] = []

    def worker() -> str:
        for _ in range(3):
            try:
                never()
            except (ValueError, KeyError) as error:
                caught.append(error)
        return "ended"

    g = go(worker)
    gosched()
    errors = [ValueError(1), KeyError(2)]
    assert g.throw(errors[0]) is True
    assert g.throw(errors[1]) is True
    assert g.throw(ValueError) is True
    assert g.result() == "ended"
    assert caught[:2] == errors
    assert isinstance(caught[2], ValueError)
    assert g.throw(ValueError) is False


def test_throw_before_it_began_and_at_the_next_wait() -> None:
    g = go(never)
    g.throw(ValueError("early"))
    with pytest.raises(ValueError, match="early"):
        g.result()
    me = current()
    assert me is not None
    me.throw(ValueError("mine"))
    me.throw(KeyError("too"))
    ch: Chan[int] = Chan(1)
    ch.send(1)
    with pytest.raises(ValueError, match="mine"):
        gosched()
    with pytest.raises(KeyError, match="too"):
        gosched()
    gosched()


def test_throw_takes_exceptions() -> None:
    g = go(never)
    for bad in (5, int, "text", None):
        with pytest.raises(TypeError, match=r"throw\(\) needs an exception, not"):
            g.throw(bad)  # type: ignore[arg-type]
    g.cancel()


def test_what_was_thrown_and_not_raised_is_let_go() -> None:
    class Thrown(ValueError):
        pass

    errors = [Thrown(n) for n in range(5)]
    gone = [weakref.ref(error) for error in errors]
    ch: Chan[None] = Chan()

    def waits_once() -> None:
        with pytest.raises(ValueError):
            ch.recv()

    g = go(waits_once)
    gosched()
    for error in errors:
        g.throw(error)
    errors.clear()
    del error
    g.result()
    gc.collect()
    assert not any(ref() for ref in gone)


def test_a_collected_exception_tells_where_its_goroutine_began() -> None:
    def fails() -> None:
        raise ValueError("x")

    def passes_on() -> None:
        go(fails).result()

    g = go(passes_on)
    for _ in range(2):
        with pytest.raises(ValueError) as info:
            g.result()
    first, second = info.value.__notes__
    assert first.startswith("goroutine ")
    assert "passes_on.<locals>" not in first
    assert ".fails] started at " in first
    assert __file__ in first
    assert ".passes_on] started at " in second


def test_closed_channels_say_so_under_a_context() -> None:
    ch: Chan[int] = Chan()
    with context.with_cancel(context.background()):
        g = go(ch.recv)
        gosched()
        ch.close()
        with pytest.raises(ChannelClosed):
            g.result()


@pytest.mark.goroutine(False)
def test_a_child_of_what_is_done_has_its_deadline() -> None:
    parent, cancel = context.with_timeout(context.background(), 3600)
    cancel()
    later, _ = context.with_timeout(parent, 7200)
    sooner, _ = context.with_timeout(parent, 1800)
    assert later.deadline() == context.with_cancel(parent)[0].deadline() == parent.deadline()
    assert (sooner.deadline() or 0) < (parent.deadline() or 0)
    assert parent.err() is not None
