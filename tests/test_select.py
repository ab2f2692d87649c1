"""select: which case it takes, when it waits, and that it leaves nothing behind."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable

import pytest

import golibx
from golibx import (
    Cancelled,
    Case,
    Chan,
    ChannelClosed,
    DeadlineExceeded,
    WaitGroup,
    go,
    gosched,
    select,
)

# Without preemption, so that a slow machine does not change which goroutine runs when.
pytestmark = pytest.mark.goroutine(preempt={"async": False})


class Thing:
    """Something with a reference count of its own."""


# ---- what is ready ----


def test_receive_that_is_ready() -> None:
    a: Chan[int] = Chan(1)
    b: Chan[int] = Chan(1)
    b.send(5)
    assert select(a.on_recv(), b.on_recv()) == (1, 5, True)


def test_send_that_is_ready() -> None:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan(1)
    assert select(a.on_send(1), b.on_send(2)) == (1, None, True)
    assert b.recv() == 2


def test_closed_is_ready_to_receive() -> None:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan()
    b.close()
    for _ in range(20):
        assert select(a.on_recv(), b.on_recv()) == (1, None, False)


def test_closed_drains_first() -> None:
    ch: Chan[int] = Chan(2)
    ch.send(1)
    ch.close()
    assert select(ch.on_recv()) == (0, 1, True)
    assert select(ch.on_recv()) == (0, None, False)


def test_closed_send_raises() -> None:
    a: Chan[int] = Chan()
    ch: Chan[int] = Chan(1)
    ch.close()
    with pytest.raises(ChannelClosed, match="case 1"):
        select(a.on_recv(), ch.on_send(1))


def test_none_is_a_value() -> None:
    ch: Chan[None] = Chan(1)
    assert select(ch.on_send(None)) == (0, None, True)
    assert select(ch.on_recv()) == (0, None, True)


def test_partner_that_waits() -> None:
    ch: Chan[int] = Chan()
    g = go(ch.send, 7)
    gosched()
    assert select(ch.on_recv()) == (0, 7, True)
    g.join()
    g2 = go(ch.recv)
    gosched()
    assert select(ch.on_send(8)) == (0, None, True)
    assert g2.result() == 8


# ---- default, time-out, None cases, no cases ----


def test_default() -> None:
    ch: Chan[int] = Chan()
    assert select(ch.on_recv(), ch.on_send(1), default=True) == (-1, None, False)
    assert select(default=True) == (-1, None, False)
    assert select(None, default=True) == (-1, None, False)
    go(ch.send, 1)
    gosched()
    assert select(ch.on_recv(), default=True) == (0, 1, True)


def test_default_comes_before_a_timeout() -> None:
    assert select(Chan[int]().on_recv(), default=True, timeout=100) == (-1, None, False)


@pytest.mark.parametrize("timeout", [0, -1, 0.001])
def test_timeout(timeout: float) -> None:
    ch: Chan[int] = Chan()
    with pytest.raises(DeadlineExceeded, match="select timed out"):
        select(ch.on_recv(), ch.on_send(1), timeout=timeout)
    with pytest.raises(DeadlineExceeded):
        select(timeout=timeout)
    with pytest.raises(DeadlineExceeded):
        select(None, None, timeout=timeout)
    # It does not wait any more.
    g = go(ch.recv)
    gosched()
    ch.send(3)
    assert g.result() == 3


def test_timeout_that_is_not_needed() -> None:
    ch: Chan[int] = Chan()
    go(ch.send, 1)
    assert select(ch.on_recv(), timeout=100) == (0, 1, True)
    go(ch.send, 2)
    assert select(ch.on_recv(), timeout=None) == (0, 2, True)


def test_none_cases_never_fire() -> None:
    ch: Chan[int] = Chan(1)
    ch.send(1)
    assert select(None, None, ch.on_recv(), None) == (2, 1, True)
    go(ch.send, 2)
    assert select(None, ch.on_recv()) == (1, 2, True)


def test_merging_with_none_cases() -> None:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan()

    def count(ch: Chan[int], first: int, n: int) -> None:
        for i in range(first, first + n):
            ch.send(i)
        ch.close()

    go(count, a, 0, 100)
    go(count, b, 1000, 50)
    cases: list[Case | None] = [a.on_recv(), b.on_recv()]
    got = []
    while any(cases):
        index, value, ok = select(*cases)
        if ok:
            got.append(value)
        else:
            cases[index] = None
    assert sorted(got) == [*range(100), *range(1000, 1050)]


def test_select_without_cases_waits_until_it_is_cancelled() -> None:
    goroutines = [go(select), go(select, None, None)]
    gosched()
    for g in goroutines:
        assert not g.done()
        assert "select" in g.state
        g.cancel()
        with pytest.raises(Cancelled):
            g.result()


@pytest.mark.goroutine(False)
def test_select_without_cases_alone_is_a_deadlock() -> None:
    with pytest.raises(golibx.Deadlock):
        golibx.run(select)


# ---- waiting ----


def test_waits_for_the_first() -> None:
    channels: list[Chan[int]] = [Chan() for _ in range(4)]
    g = go(lambda: select(*(ch.on_recv() for ch in channels)))
    gosched()
    channels[2].send(9)
    assert g.result() == (2, 9, True)
    for i in (0, 1, 3):  # it waits on none of the others any more
        assert channels[i].try_send(1) is False


def test_waits_to_send() -> None:
    a: Chan[str] = Chan()
    b: Chan[str] = Chan()
    g = go(lambda: select(a.on_send("a"), b.on_send("b")))
    gosched()
    assert b.recv() == "b"
    assert g.result() == (1, None, True)
    assert a.try_recv() == (None, False)


def test_waits_to_send_and_receive_on_one_channel() -> None:
    ch: Chan[str] = Chan()
    both = [go(lambda: select(ch.on_recv(), ch.on_send("sent"))) for _ in range(2)]
    results = sorted((g.result() for g in both), key=lambda r: r[0])
    assert results == [(0, "sent", True), (1, None, True)]


def test_a_select_does_not_meet_itself() -> None:
    ch: Chan[int] = Chan()
    with pytest.raises(DeadlineExceeded):
        select(ch.on_recv(), ch.on_send(1), timeout=0.001)


def test_the_same_channel_several_times() -> None:
    ch: Chan[int] = Chan()
    seen: Counter[int] = Counter()
    for i in range(400):
        g = go(lambda: select(ch.on_recv(), ch.on_recv(), ch.on_recv()))
        if i % 2:
            gosched()  # half of them wait already
        ch.send(i)
        index, value, ok = g.result()
        assert (value, ok) == (i, True)
        seen[index] += 1
    assert set(seen) <= {0, 1, 2}
    assert ch.try_send(1) is False


def test_close_wakes_a_waiting_select() -> None:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan()
    receiving = go(lambda: select(a.on_recv(), b.on_recv()))
    sending = go(lambda: select(a.on_send(1), b.on_send(1), None))
    # Neither meets the other: one at a time.
    receiving.cancel()
    gosched()
    sending.cancel()
    gosched()
    receiving = go(lambda: select(a.on_recv(), b.on_recv()))
    gosched()
    b.close()
    assert receiving.result() == (1, None, False)
    c: Chan[int] = Chan()
    sending = go(lambda: select(a.on_send(1), c.on_send(1)))
    gosched()
    c.close()
    with pytest.raises(ChannelClosed, match="case 1"):
        sending.result()


def test_two_selects_meet() -> None:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan()
    sender = go(lambda: select(a.on_send(1), b.on_send(2)))
    receiver = go(lambda: select(b.on_recv(), a.on_recv()))
    s, r = sender.result(), receiver.result()
    assert (s[0], r[0], r[1]) in {(0, 1, 1), (1, 0, 2)}


@pytest.mark.parametrize("n", [1, 15, 16, 17, 64, 1000])
def test_any_number_of_cases(n: int) -> None:
    channels: list[Chan[int]] = [Chan() for _ in range(n)]
    cases = [ch.on_recv() for ch in channels]
    for i in {0, n // 2, n - 1}:
        g = go(lambda: select(*cases))
        gosched()
        channels[i].send(i)
        assert g.result() == (i, i, True)
        g = go(channels[i].send, -1)
        gosched()
        assert select(*cases) == (i, -1, True)
    assert select(*cases, default=True) == (-1, None, False)


def test_cases_can_be_used_again_and_shared() -> None:
    ch: Chan[int] = Chan()
    recv, send = ch.on_recv(), ch.on_send(5)
    receivers = [go(lambda: select(recv)) for _ in range(10)]
    senders = [go(lambda: select(send)) for _ in range(10)]
    assert [g.result() for g in receivers] == [(0, 5, True)] * 10
    assert [g.result() for g in senders] == [(0, None, True)] * 10


def test_bad_cases() -> None:
    ch: Chan[int] = Chan()
    for bad in (ch, 1, "x", ch.recv):
        with pytest.raises(TypeError, match="case 1 of select"):
            select(ch.on_recv(), bad)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        select(ch.on_recv(), other=1)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        Case()
    with pytest.raises(TypeError):
        select(ch.on_recv(), timeout="1")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="nan"):
        select(ch.on_recv(), timeout=float("nan"))


@pytest.mark.goroutine(False)
def test_a_select_that_need_not_wait_works_without_a_runtime() -> None:
    ch: Chan[int] = Chan(1)
    assert select(ch.on_send(3)) == (0, None, True)
    assert select(ch.on_recv()) == (0, 3, True)
    assert select(ch.on_recv(), default=True) == (-1, None, False)


# ---- fairness ----


def chi_square(counts: Counter[int], n: int, total: int) -> float:
    expected = total / n
    return sum((counts[i] - expected) ** 2 / expected for i in range(n))


@pytest.mark.parametrize("n", [2, 3, 4, 16, 20])
def test_ready_cases_are_chosen_evenly(n: int) -> None:
    channels: list[Chan[None]] = [Chan() for _ in range(n)]
    for ch in channels:
        ch.close()
    cases = [ch.on_recv() for ch in channels]
    total = 20_000
    counts = Counter(select(*cases)[0] for _ in range(total))
    # The statistic has mean n-1 and variance 2(n-1); 12 deviations above never happen by chance,
    # while a choice that is off by a tenth gives hundreds.
    assert chi_square(counts, n, total) < (n - 1) + 12 * (2 * (n - 1)) ** 0.5


def test_pairs_of_choices_are_independent() -> None:
    channels: list[Chan[None]] = [Chan() for _ in range(2)]
    for ch in channels:
        ch.close()
    cases = [ch.on_recv() for ch in channels]
    choices = [select(*cases)[0] for _ in range(40_000)]
    pairs = Counter(2 * a + b for a, b in zip(choices[::2], choices[1::2], strict=True))
    assert chi_square(pairs, 4, 20_000) < 3 + 12 * 6**0.5


@pytest.mark.goroutine(False)
def test_the_seed_decides() -> None:
    def choices() -> list[int]:
        channels: list[Chan[None]] = [Chan() for _ in range(3)]
        for ch in channels:
            ch.close()
        return [select(*(ch.on_recv() for ch in channels))[0] for _ in range(200)]

    seeded = [golibx.run(choices, config={"runtime": {"seed": 42}}) for _ in range(2)]
    assert seeded[0] == seeded[1]
    assert golibx.run(choices, config={"runtime": {"seed": 43}}) != seeded[0]


@pytest.mark.goroutine(leaks=False)
def test_producers_are_all_served() -> None:
    channels: list[Chan[int]] = [Chan(1) for _ in range(5)]

    def produce(ch: Chan[int]) -> None:
        while True:
            ch.send(0)

    for ch in channels:
        go(produce, ch)
    counts = Counter(select(*(ch.on_recv() for ch in channels))[0] for _ in range(5000))
    assert set(counts) == set(range(5))


# ---- nothing lost, doubled or leaked ----


def test_selecting_loses_and_doubles_nothing() -> None:
    channels: list[Chan[int]] = [Chan(i) for i in range(4)]
    stop: Chan[None] = Chan()
    received: list[int] = []
    sent: list[int] = []

    def receiver() -> None:
        while True:
            index, value, ok = select(*(ch.on_recv() for ch in channels), stop.on_recv())
            if index == 4:
                return
            assert ok
            received.append(value)

    def sender(first: int) -> None:
        for i in range(first, first + 50):
            try:
                select(*(ch.on_send(i) for ch in channels), timeout=0.0001 if i % 3 else None)
            except DeadlineExceeded:
                continue
            sent.append(i)

    group = WaitGroup()
    for n in range(20):
        group.go(sender, n * 50)
    receivers = [go(receiver) for _ in range(5)]
    turn = 0
    while not group.wait(timeout=0.0005):
        turn += 1
        receivers[turn % 5].cancel()
        receivers[turn % 5] = go(receiver)
    stop.close()
    for r in receivers:
        r.result()
    for ch in channels:
        ch.close()
        received.extend(ch)
    assert len(set(received)) == len(received)
    assert sorted(received) == sorted(sent)


def ready_send(value: object) -> None:
    ch: Chan[object] = Chan(1)
    select(ch.on_send(value))
    select(ch.on_recv())


def waiting_send(value: object) -> None:
    a: Chan[object] = Chan()
    b: Chan[object] = Chan()
    g = go(lambda: select(a.on_send(value), b.on_send(value), a.on_send(value)))
    gosched()
    a.recv()
    g.join()


def waiting_recv(value: object) -> None:
    a: Chan[object] = Chan()
    b: Chan[object] = Chan()
    g = go(lambda: select(a.on_recv(), b.on_recv()))
    gosched()
    b.send(value)
    g.join()


def given_up(value: object) -> None:
    a: Chan[object] = Chan()
    select(a.on_send(value), default=True)
    for timeout in (0, 0.0001):
        with pytest.raises(DeadlineExceeded):
            select(a.on_send(value), a.on_send(value), timeout=timeout)


def cancelled(value: object) -> None:
    a: Chan[object] = Chan()
    g = go(lambda: select(a.on_send(value), a.on_recv()))
    gosched()
    g.cancel()
    g.join()


def closed(value: object) -> None:
    a: Chan[object] = Chan()
    b: Chan[object] = Chan()
    g = go(lambda: select(a.on_send(value), b.on_send(value)))
    gosched()
    b.close()
    g.join()
    assert isinstance(g.exception, ChannelClosed)
    with pytest.raises(ChannelClosed):
        select(b.on_send(value))


def bad(value: object) -> None:
    a: Chan[object] = Chan()
    with pytest.raises(TypeError):
        select(a.on_send(value), a.on_send(value), value)  # type: ignore[call-overload]


def many(value: object) -> None:
    channels: list[Chan[object]] = [Chan() for _ in range(40)]
    g = go(lambda: select(*(ch.on_send(value) for ch in channels)))
    gosched()
    channels[39].recv()
    g.join()


@pytest.mark.parametrize(
    "use", [ready_send, waiting_send, waiting_recv, given_up, cancelled, closed, bad, many]
)
def test_reference_counts(use: Callable[[object], None]) -> None:
    value = Thing()
    use(value)
    gc.collect()
    before = sys.getrefcount(value), sys.getrefcount(Chan), sys.getrefcount(Case)
    for _ in range(50):
        use(value)
    gc.collect()
    assert (sys.getrefcount(value), sys.getrefcount(Chan), sys.getrefcount(Case)) == before
