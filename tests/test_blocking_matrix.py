"""Every call of golibx that waits, and what is true of all of them.

A `Call` of blocking_calls.py says how to wait in one, and how to have one that waits succeed. For
each there are tests for: its timeout, a cancellation while it waits, cancellation and success at
the same time in either order (nothing is lost, nothing is had twice), a close while it waits, the
end of an ambient context. Which apply:

    call                              timeout            closed by     wakes  lane of the other side
    Chan.send, recv, recv_ok, next    raises, next: none close()       one    Python
    select                            raises             its channels  one    Python, and native
    Mutex, RWMutex, Semaphore         False              -             one    Python
    Cond.wait                         False              -             one    Python
    WaitGroup, Event                  False              -             all    Python
    Barrier.wait                      raises, breaks it  abort()       all    Python
    Once.do, singleflight, scope, map -                  -             all    Python
    Goroutine.join, result            False, raises      -             all    Python
    Timer.c, Ticker.c, after          raises             -             one    Python
    sleep                             -                  -             -      -
    context.done()                    raises             is a close    all    Python
    net accept, recv, send            settimeout         close()       one    the kernel's
    net.dial                          raises             -             -      the kernel's
    native.Chan send, recv            raises             close()       one    both
    native.call                       -                  -             all    native
    NativeGoroutine.join              False              -             all    native

What has no timeout of its own has that of the ambient context. The native lane has locks and the
like of its own (golibx.h), which Python code reaches by native.call only. `Pool.get` never waits,
and `blocking(fn)` is a call in C: nothing ends it early.
"""

from __future__ import annotations

import ast
import errno
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import golibx
from blocking_calls import CALLS, NEVER, Call, parked
from golibx import (
    Cancelled,
    Chan,
    ChannelClosed,
    DeadlineExceeded,
    Goroutine,
    context,
    go,
    gosched,
    sleep,
)

# Without preemption, so that a slow machine does not change which goroutine runs when.
pytestmark = pytest.mark.goroutine(preempt={"async": False})

SOON = 0.002  # seconds
ROUNDS = 50


def those(condition: Callable[[type[Call]], bool]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", [*filter(condition, CALLS)], ids=lambda k: k.__name__)


# ---- what a waiter comes to ----


def outcome(call: Call, timeout: float | None = None) -> str:
    try:
        got = call.wait() if timeout is None else call.wait(timeout)
    except Cancelled:
        return "cancelled"
    except DeadlineExceeded:
        return "timeout"
    except ChannelClosed:
        return "closed"
    except BlockingIOError:  # a socket's timeout of zero
        return "timeout"
    except OSError as error:
        assert error.errno == errno.EBADF, error
        return "closed"
    return "timeout" if got is False else "got"


def to_the_end(call: Call, timeout: float | None = None) -> tuple[str, bool]:
    """How a wait ended, and whether the goroutine is still to be cancelled."""
    how = outcome(call, timeout)
    try:
        Chan().recv(timeout=0)
    except DeadlineExceeded:
        return how, False
    except Cancelled:
        return how, True
    raise AssertionError("received from a channel that no other code knows")


def waiting(call: Call, timeout: float | None = None) -> Goroutine[tuple[str, bool]]:
    g = go(to_the_end, call, timeout)
    parked(g)
    return g


def settle(
    call: Call,
    victim: Goroutine[tuple[str, bool]],
    bystander: Goroutine[tuple[str, bool]],
    allowed: set[str],
) -> str:
    """After one give() and, at most, a cancellation: what was given arrived once.

    Returns how it went for the victim.
    """
    how, still_cancelled = victim.result(30)
    assert how in allowed
    # The cancellation is not lost either.
    assert not (how == "cancelled" and still_cancelled)
    if call.cancel_breaks and how != "got":
        other = "closed"
    else:
        other = "got"
        if call.wakes == "one" and (how == "got" or call.goes_on):
            for _ in range(3):
                gosched()
            if not call.goes_on:
                assert not bystander.done(), "both have what was given once"
            call.give()
    assert bystander.result(30) == (other, False)
    call.check((how == "got") + (other == "got"))
    call.end()
    return how


# ---- timeouts ----


@those(lambda kind: kind.timeout)
def test_timeout(kind: type[Call]) -> None:
    for timeout in (0, SOON):
        call = kind(1)
        assert outcome(call, timeout) == "timeout"
        if kind.gives:
            g = waiting(call) if not kind.cancel_breaks else None
            call.give()
            if g is not None:
                assert g.result(30) == ("got", False)
        call.end()


@those(lambda kind: kind.timeout and kind.gives)
def test_in_time(kind: type[Call]) -> None:
    call = kind(1)
    g = waiting(call, NEVER)
    call.give()
    assert g.result(30) == ("got", False)
    call.check(1)
    call.end()


@those(lambda kind: kind.timeout and kind.gives)
def test_timeout_and_success_race(kind: type[Call]) -> None:
    numbers = random.Random(1)
    for _ in range(ROUNDS):
        call = kind(2)
        bystander = waiting(call)
        victim = go(to_the_end, call, numbers.choice((0, 1e-6, 2e-5, 1e-4, 5e-4)))
        for _ in range(numbers.randrange(4)):
            gosched()
        if numbers.random() < 0.5 and not victim.done():
            sleep(numbers.choice((1e-6, 2e-5, 1e-4)))
        # One that came first gets it first, and the victim nothing more: so it leaves by its time.
        call.give()
        how, _ = victim.result(30)
        assert how in ("got", "timeout")
        if kind.cancel_breaks:
            assert bystander.result(30)[0] in ("got", "closed")
            continue
        if how == "timeout" or kind.wakes == "all":
            assert bystander.result(30) == ("got", False)
        elif not bystander.join(0):
            call.give()
            assert bystander.result(30) == ("got", False)
        call.check(1 + (how == "got"))
        call.end()


# ---- cancellation ----


@those(lambda kind: True)
def test_cancelled_while_it_waits(kind: type[Call]) -> None:
    call = kind(2)
    victim, bystander = waiting(call), waiting(call)
    assert victim.cancel()
    assert victim.result(30) == ("cancelled", False)
    if not kind.cancel_breaks:
        assert not bystander.done()
    if kind.gives:
        call.give()
        settle(call, victim, bystander, {"cancelled"})
        return
    bystander.cancel()
    assert bystander.result(30) == ("cancelled", False)
    call.end()


@those(lambda kind: kind.gives)
def test_success_and_then_cancelled(kind: type[Call]) -> None:
    for _ in range(ROUNDS):
        call = kind(2)
        victim, bystander = waiting(call), waiting(call)
        call.give()
        was_there = victim.cancel()
        how = settle(call, victim, bystander, {"got"} if kind.instant else {"got", "cancelled"})
        if how == "got":
            assert victim.result() == ("got", was_there)


@those(lambda kind: kind.gives)
def test_cancelled_and_then_success(kind: type[Call]) -> None:
    for _ in range(ROUNDS):
        call = kind(2)
        victim, bystander = waiting(call), waiting(call)
        victim.cancel()
        call.give()
        allowed = {"got", "cancelled"} if kind.looks_again else {"cancelled"}
        if settle(call, victim, bystander, allowed) == "got":
            assert victim.result() == ("got", True)


@pytest.mark.goroutine(preempt={"slice": "50us"})
@those(lambda kind: kind.gives)
def test_cancellation_and_success_under_preemption(kind: type[Call]) -> None:
    numbers = random.Random(2)
    hogging = True

    def hog() -> None:
        while hogging:
            pass

    for _ in range(2):
        calls = [kind(2) for _ in range(10)]
        waiters = [(call, waiting(call), waiting(call)) for call in calls]
        hogging = True
        hogs = go(hog)

        def give(calls: list[Call]) -> None:
            for call in calls:
                call.give()

        def cancel(waiters: list[Any]) -> None:
            for _, victim, _ in waiters:
                victim.cancel()

        both = [
            go(give, numbers.sample(calls, 10)),
            go(cancel, numbers.sample(waiters, 10)),
        ]
        for g in both:
            g.result()
        hogging = False
        hogs.join()
        for call, victim, bystander in waiters:
            settle(call, victim, bystander, {"got", "cancelled"})


# ---- closing ----


@those(lambda kind: kind.closes)
def test_closed_while_it_waits(kind: type[Call]) -> None:
    for _ in range(ROUNDS):
        call = kind(2)
        waiters = [waiting(call), waiting(call)]
        call.close()
        assert [g.result(30) for g in waiters] == [("closed", False)] * 2
        call.check(0)
        call.end()


@those(lambda kind: kind.closes)
def test_cancelled_and_then_closed(kind: type[Call]) -> None:
    for _ in range(ROUNDS):
        call = kind(2)
        waiters = [waiting(call), waiting(call)]
        waiters[0].cancel()
        call.close()
        result = waiters[0].result(30)
        assert result == ("cancelled", False) or (kind.looks_again and result == ("closed", True))
        assert waiters[1].result(30) == ("closed", False)
        call.check(0)
        call.end()


@those(lambda kind: kind.closes)
def test_closed_and_then_cancelled(kind: type[Call]) -> None:
    for _ in range(ROUNDS):
        call = kind(2)
        waiters = [waiting(call), waiting(call)]
        call.close()
        waiters[0].cancel()
        assert waiters[0].result(30) in (("closed", True), ("cancelled", False))
        assert waiters[1].result(30) == ("closed", False)
        call.check(0)
        call.end()


# ---- the ambient context ----


@those(lambda kind: True)
def test_the_deadline_of_the_ambient_context(kind: type[Call]) -> None:
    call, another = kind(2), kind(1)
    bystander = waiting(call)
    with context.with_timeout(context.current(), SOON) as (ctx, _):
        with pytest.raises(DeadlineExceeded) as caught:
            call.wait()
        assert caught.value.context is ctx
        # For good: the next wait does not begin.
        with pytest.raises(DeadlineExceeded) as caught:
            another.wait()
    another.end()
    if kind.gives and not kind.cancel_breaks:
        assert not bystander.done()
        call.give()
        if kind.goes_on:
            call.give()
        assert bystander.result(30) == ("got", False)
        call.check(1)
    else:
        bystander.cancel()
        bystander.join()
    call.end()


@those(lambda kind: True)
def test_the_cancellation_of_the_ambient_context(kind: type[Call]) -> None:
    call = kind(2)
    ctx, cancel = context.with_cancel(context.current())
    bystander = waiting(call)

    def wait() -> None:
        with ctx:
            call.wait()

    victim = go(wait)
    parked(victim)
    cancel()
    with pytest.raises(Cancelled) as caught:
        victim.result(30)
    assert caught.value.context is ctx
    if kind.gives and not kind.cancel_breaks:
        call.give()
        if kind.goes_on:
            call.give()
        assert bystander.result(30) == ("got", False)
        call.check(1)
    else:
        bystander.cancel()
        bystander.join()
    call.end()


# ---- nothing is left out ----


def test_every_call_with_a_timeout_is_here() -> None:
    stub = ast.parse((Path(golibx.__file__).parent / "_core.pyi").read_text(encoding="utf-8"))
    takes_a_timeout = set()
    for node in ast.walk(stub):
        for each in (
            getattr(node, "body", ()) if isinstance(node, ast.ClassDef | ast.Module) else ()
        ):
            if isinstance(each, ast.FunctionDef):
                arguments = [*each.args.args, *each.args.kwonlyargs]
                if any(argument.arg == "timeout" for argument in arguments):
                    owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
                    takes_a_timeout.add(owner + each.name)
    takes_a_timeout -= {"RLock.acquire"}  # threading's, see tests/test_sync_rlock.py
    assert takes_a_timeout <= {name for kind in CALLS for name in kind.covers}


def test_every_call_is_in_the_table_of_context_md() -> None:
    page = Path(__file__).parent.parent / "docs" / "context.md"
    (section,) = re.findall(
        r"^## What it ends\n(.*?)^## ", page.read_text(encoding="utf-8"), re.M | re.S
    )
    table = " ".join(line.split(" | ")[0] for line in section.splitlines() if line[:1] == "|")
    own = {"RLocker.lock", "Socket.wait_write"}  # RWMutex.reader()'s, and what net.dial calls
    for name in {name for kind in CALLS for name in kind.covers} - own:
        method = name.rpartition(".")[2]
        assert re.search(rf"[.`]{method}`", table), name
