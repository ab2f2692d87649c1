"""Channels: order, closing, waiting, and that no value is lost, doubled or leaked."""

# A lambda is the shortest way to do two things in a goroutine, though neither returns a value.
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from golibx import Cancelled, Chan, ChannelClosed, DeadlineExceeded, WaitGroup, go, gosched
from golibx.testing import wait_until

# Without preemption, so that a slow machine does not change which goroutine runs when.
pytestmark = pytest.mark.goroutine(preempt={"async": False})


class Thing:
    """Something that can be referred to weakly."""


# ---- order ----


def test_unbuffered_send_waits_for_its_receiver() -> None:
    ch: Chan[int] = Chan()
    log: list[str] = []

    def sender() -> None:
        log.append("sending")
        ch.send(1)
        log.append("sent")

    go(sender)
    gosched()
    assert log == ["sending"]
    assert ch.recv() == 1
    gosched()
    assert log == ["sending", "sent"]


@pytest.mark.parametrize("capacity", [0, 1, 2, 7, 1000])
def test_values_arrive_in_order(capacity: int) -> None:
    ch: Chan[int] = Chan(capacity)

    def sender() -> None:
        for i in range(3000):
            ch.send(i)
        ch.close()

    go(sender)
    assert list(ch) == list(range(3000))


def test_buffered_send_waits_only_when_full() -> None:
    ch: Chan[int] = Chan(3)
    for i in range(3):
        ch.send(i)
    sent: list[bool] = []
    go(lambda: (ch.send(3), sent.append(True)))
    gosched()
    assert sent == []
    assert ch.recv() == 0
    gosched()
    assert sent == [True]
    assert [ch.recv() for _ in range(3)] == [1, 2, 3]


def test_waiting_receivers_are_served_first_come_first_served() -> None:
    ch: Chan[int] = Chan()
    got: list[tuple[int, int]] = []
    for i in range(10):
        go(lambda i=i: got.append((i, ch.recv())))
    gosched()
    for i in range(10):
        ch.send(i)
    wait_until(lambda: len(got) >= 10)
    assert sorted(got) == [(i, i) for i in range(10)]


@pytest.mark.parametrize("capacity", [0, 3])
def test_waiting_senders_are_served_first_come_first_served(capacity: int) -> None:
    ch: Chan[int] = Chan(capacity)
    for i in range(20):
        go(ch.send, i)
    gosched()
    assert [ch.recv() for _ in range(20)] == list(range(20))


def test_a_ring_that_wraps() -> None:
    ch: Chan[int] = Chan(5)
    n = out = 0
    for burst in (3, 4, 5, 1, 5, 2, 5, 5):
        for _ in range(burst):
            ch.send(n)
            n += 1
        assert len(ch) == burst
        for _ in range(burst):
            assert ch.recv() == out
            out += 1
        assert len(ch) == 0


def test_many_to_many() -> None:
    for capacity in (0, 1, 16):
        ch: Chan[int] = Chan(capacity)
        results: Chan[list[int]] = Chan()
        group = WaitGroup()

        def sender(first: int, ch: Chan[int] = ch) -> None:
            for i in range(first, first + 200):
                ch.send(i)

        def receiver(ch: Chan[int] = ch, results: Chan[list[int]] = results) -> None:
            results.send(list(ch))

        for s in range(10):
            group.go(sender, s * 200)
        for _ in range(7):
            go(receiver)
        group.wait()
        ch.close()
        parts = [results.recv() for _ in range(7)]
        assert sorted(v for part in parts for v in part) == list(range(2000))
        for part in parts:  # of each sender in order
            for s in range(10):
                own = [v for v in part if v // 200 == s]
                assert own == sorted(own)


def test_ping_pong() -> None:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan()

    def echo() -> None:
        for v in a:
            b.send(v + 1)
        b.close()

    go(echo)
    v = 0
    for _ in range(5000):
        a.send(v)
        v = b.recv()
    a.close()
    assert v == 5000
    assert list(b) == []


@pytest.mark.goroutine(leaks=False)
def test_sieve() -> None:
    def generate(out: Chan[int]) -> None:
        n = 2
        while True:
            out.send(n)
            n += 1

    def keep(source: Chan[int], out: Chan[int], prime: int) -> None:
        for n in source:
            if n % prime:
                out.send(n)

    ch: Chan[int] = Chan()
    go(generate, ch)
    primes = []
    for _ in range(100):
        prime = ch.recv()
        primes.append(prime)
        after: Chan[int] = Chan()
        go(keep, ch, after, prime)
        ch = after
    assert primes[:10] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
    assert primes[-1] == 541


# ---- closing ----


def test_close_lets_the_buffer_drain() -> None:
    ch: Chan[int] = Chan(4)
    ch.send(1)
    ch.send(2)
    assert not ch.closed
    ch.close()
    assert ch.closed
    assert len(ch) == 2
    assert ch.recv() == 1
    assert ch.recv_ok() == (2, True)
    assert ch.recv_ok() == (None, False)
    with pytest.raises(ChannelClosed, match="receive on a closed channel"):
        ch.recv()
    with pytest.raises(ChannelClosed):
        ch.try_recv()
    assert list(ch) == []


def test_send_on_closed() -> None:
    for capacity in (0, 1):
        ch: Chan[int] = Chan(capacity)
        ch.close()
        with pytest.raises(ChannelClosed, match="send on a closed channel"):
            ch.send(1)
        with pytest.raises(ChannelClosed, match="send on a closed channel"):
            ch.try_send(1)
        with pytest.raises(ChannelClosed, match="send on a closed channel"):
            ch.send(1, timeout=1)


def test_close_of_closed() -> None:
    ch: Chan[int] = Chan()
    ch.close()
    with pytest.raises(ChannelClosed, match="close of a closed channel"):
        ch.close()


def test_close_wakes_all_receivers() -> None:
    ch: Chan[int] = Chan()
    log: list[str] = []

    def recv() -> None:
        try:
            ch.recv()
        except ChannelClosed:
            log.append("recv")

    def recv_ok() -> None:
        assert ch.recv_ok() == (None, False)
        log.append("recv_ok")

    def iterate() -> None:
        assert list(ch) == []
        log.append("iterate")

    goroutines = [go(f) for f in (recv, recv_ok, iterate) for _ in range(10)]
    gosched()
    ch.close()
    for g in goroutines:
        g.result()
    assert Counter(log) == {"recv": 10, "recv_ok": 10, "iterate": 10}


def test_close_wakes_all_senders() -> None:
    ch: Chan[int] = Chan(1)
    ch.send(0)
    goroutines = [go(ch.send, i) for i in range(10)]
    gosched()
    ch.close()
    for g in goroutines:
        with pytest.raises(ChannelClosed, match="send on a closed channel"):
            g.result()
    assert list(ch) == [0]


def test_closing_while_iterating() -> None:
    ch: Chan[int] = Chan(10)
    for i in range(5):
        ch.send(i)
    got = []
    for v in ch:
        got.append(v)
        if v == 2:
            ch.close()
    assert got == list(range(5))


# ---- what does not wait ----


def test_try_send_and_try_recv() -> None:
    ch: Chan[int] = Chan()
    assert ch.try_recv() == (None, False)
    assert ch.try_send(1) is False
    g = go(ch.recv)
    gosched()
    assert ch.try_send(2) is True
    assert ch.try_send(3) is False
    assert g.result() == 2
    s = go(ch.send, 4)
    gosched()
    assert ch.try_recv() == (4, True)
    s.join()


def test_try_on_a_buffer() -> None:
    ch: Chan[int] = Chan(2)
    assert [ch.try_send(i) for i in range(3)] == [True, True, False]
    assert [ch.try_recv() for _ in range(3)] == [(0, True), (1, True), (None, False)]


def test_none_is_a_value() -> None:
    ch: Chan[None] = Chan(3)
    ch.send(None)
    ch.send(None)
    assert ch.recv() is None
    assert ch.recv_ok() == (None, True)
    ch.send(None)
    assert ch.try_recv() == (None, True)
    go(ch.send, None)
    assert ch.recv_ok() == (None, True)
    ch.send(None)
    ch.close()
    assert list(ch) == [None]


@pytest.mark.goroutine(False)
def test_what_need_not_wait_works_without_a_runtime() -> None:
    ch: Chan[int] = Chan(2)
    ch.send(1)
    assert ch.try_send(2) is True
    assert len(ch) == 2
    assert ch.recv() == 1
    ch.close()
    assert list(ch) == [2]


# ---- time-outs ----


@pytest.mark.parametrize("timeout", [0, -1, 0.001, 1e-9])
def test_timeouts(timeout: float) -> None:
    ch: Chan[int] = Chan()
    with pytest.raises(DeadlineExceeded, match="receive timed out"):
        ch.recv(timeout)
    with pytest.raises(DeadlineExceeded):
        ch.recv(timeout=timeout)
    with pytest.raises(DeadlineExceeded):
        ch.recv_ok(timeout=timeout)
    with pytest.raises(TimeoutError, match="send timed out"):
        ch.send(1, timeout)
    with pytest.raises(DeadlineExceeded):
        ch.send(1, timeout=timeout)
    # None of them is still in the queue.
    g = go(ch.recv)
    gosched()
    ch.send(2)
    assert g.result() == 2


@pytest.mark.parametrize("timeout", [None, 100, 1e300, float("inf")])
def test_a_timeout_that_is_not_needed(timeout: float | None) -> None:
    ch: Chan[int] = Chan()
    go(ch.send, 1)
    assert ch.recv(timeout) == 1
    go(ch.send, 2, timeout)
    assert ch.recv_ok(timeout) == (2, True)
    g = go(ch.recv, timeout=timeout)
    ch.send(3, timeout=timeout)
    assert g.result() == 3


def test_a_receiver_that_gave_up_gets_nothing() -> None:
    ch: Chan[int] = Chan()
    quick = [go(ch.recv, 0.001) for _ in range(5)]
    patient = go(ch.recv)
    for g in quick:
        g.join()
        assert isinstance(g.exception, DeadlineExceeded)
    ch.send(1)
    assert patient.result() == 1


def test_a_sender_that_gave_up_sends_nothing() -> None:
    ch: Chan[int] = Chan(1)
    ch.send(0)
    quick = [go(ch.send, -i, 0.001) for i in range(1, 6)]
    patient = go(ch.send, 1)
    for g in quick:
        g.join()
        assert isinstance(g.exception, DeadlineExceeded)
    assert ch.recv() == 0
    assert ch.recv() == 1
    assert ch.try_recv() == (None, False)
    patient.join()


# ---- cancellation ----


def test_cancelled_waiters_leave_the_queue() -> None:
    ch: Chan[int] = Chan()
    receivers = [go(ch.recv) for _ in range(9)]
    gosched()
    for g in receivers[::2]:
        g.cancel()
    for i in range(4):
        ch.send(i)
    for g in receivers:
        g.join()
    assert [g.result() for g in receivers[1::2]] == [0, 1, 2, 3]
    for g in receivers[::2]:
        with pytest.raises(Cancelled):
            g.result()


@pytest.mark.parametrize("capacity", [0, 1, 5])
def test_cancellation_loses_and_doubles_nothing(capacity: int) -> None:
    ch: Chan[int] = Chan(capacity)
    received: list[int] = []
    sent: list[int] = []

    def receiver() -> None:
        while True:
            received.append(ch.recv())

    def sender(first: int) -> None:
        for i in range(first, first + 50):
            ch.send(i)
            sent.append(i)

    senders = [go(sender, n * 50) for n in range(20)]
    receivers = [go(receiver) for _ in range(10)]
    turn = 0
    while not all(s.done() for s in senders):
        gosched()
        turn += 1
        victim = turn % 10
        receivers[victim].cancel()
        receivers[victim] = go(receiver)
        if turn % 7 == 0:
            senders[turn % 20].cancel()
    while ch.try_recv()[1]:
        pytest.fail("receivers were waiting, the buffer cannot hold anything")
    for r in receivers:
        r.cancel()
        r.join()
    assert len(set(received)) == len(received)
    # What was reported as sent arrived; a cancelled sender's last value did not.
    assert sorted(received) == sorted(sent)


def test_timeouts_lose_and_double_nothing() -> None:
    ch: Chan[int] = Chan()
    received: list[int] = []
    sent: list[int] = []

    def receiver() -> None:
        while True:
            try:
                received.append(ch.recv(timeout=0.0002))
            except DeadlineExceeded:
                if all(s.done() for s in senders):
                    return

    def sender(first: int) -> None:
        for i in range(first, first + 100):
            try:
                ch.send(i, timeout=0.0001)
            except DeadlineExceeded:
                continue
            sent.append(i)

    senders = [go(sender, n * 100) for n in range(10)]
    receivers = [go(receiver) for _ in range(8)]
    for g in (*senders, *receivers):
        g.result()
    assert len(set(received)) == len(received)
    assert sorted(received) == sorted(sent)


# ---- references ----


def through_buffer(value: object) -> None:
    ch: Chan[object] = Chan(2)
    ch.send(value)
    ch.send(value)
    ch.recv()
    ch.recv_ok()
    ch.try_send(value)
    ch.try_recv()


def left_in_buffer(value: object) -> None:
    ch: Chan[object] = Chan(10)
    for _ in range(10):
        ch.send(value)
    ch.recv()


def hand_over_to_receiver(value: object) -> None:
    ch: Chan[object] = Chan()
    g = go(ch.recv)
    gosched()
    ch.send(value)
    g.join()


def hand_over_from_sender(value: object) -> None:
    ch: Chan[object] = Chan()
    g = go(ch.send, value)
    gosched()
    ch.recv()
    g.join()


def sender_behind_buffer(value: object) -> None:
    ch: Chan[object] = Chan(1)
    ch.send(value)
    g = go(ch.send, value)
    gosched()
    ch.recv()
    ch.recv()
    g.join()


def refused(value: object) -> None:
    ch: Chan[object] = Chan()
    ch.try_send(value)
    with pytest.raises(DeadlineExceeded):
        ch.send(value, 0)
    with pytest.raises(DeadlineExceeded):
        ch.send(value, 0.0001)
    ch.close()
    with pytest.raises(ChannelClosed):
        ch.send(value)
    with pytest.raises(ChannelClosed):
        ch.try_send(value)


def sender_cancelled(value: object) -> None:
    ch: Chan[object] = Chan()
    g = go(ch.send, value)
    gosched()
    g.cancel()
    g.join()


def sender_closed_on(value: object) -> None:
    ch: Chan[object] = Chan()
    g = go(ch.send, value)
    gosched()
    ch.close()
    g.join()
    assert isinstance(g.exception, ChannelClosed)


def iterated(value: object) -> None:
    ch: Chan[object] = Chan(3)
    for _ in range(3):
        ch.send(value)
    ch.close()
    for _ in ch:
        pass


@pytest.mark.parametrize(
    "use",
    [
        through_buffer,
        left_in_buffer,
        hand_over_to_receiver,
        hand_over_from_sender,
        sender_behind_buffer,
        refused,
        sender_cancelled,
        sender_closed_on,
        iterated,
    ],
)
def test_reference_counts(use: Callable[[object], None]) -> None:
    value = Thing()
    use(value)
    gc.collect()
    before = sys.getrefcount(value), sys.getrefcount(Chan), sys.getrefcount(use)
    for _ in range(50):
        use(value)
    gc.collect()
    after = sys.getrefcount(value), sys.getrefcount(Chan), sys.getrefcount(use)
    assert after == before


def test_a_channel_in_its_own_buffer_is_collected() -> None:
    ch: Chan[Any] = Chan(2)
    ch.send(ch)
    ref = weakref.ref(ch)
    del ch
    gc.collect()
    assert ref() is None


def test_values_are_freed_with_the_channel() -> None:
    thing = Thing()
    gone = weakref.ref(thing)
    ch: Chan[Thing] = Chan(1)
    ch.send(thing)
    del thing
    assert gone() is not None
    del ch
    assert gone() is None


def test_a_values_finalizer_may_use_the_channel() -> None:
    ch: Chan[object] = Chan(3)
    log: list[object] = []

    class Noisy:
        def __del__(self) -> None:
            log.append(len(ch))
            ch.try_send("from __del__")

    ch.send(Noisy())
    ch.recv()
    assert log == [0]
    assert ch.recv() == "from __del__"


def test_finalizers_of_a_dying_channel_may_park() -> None:
    log: list[str] = []

    class Noisy:
        def __del__(self) -> None:
            gosched()
            log.append("gone")

    ch: Chan[Noisy] = Chan(3)
    for _ in range(3):
        ch.send(Noisy())
    del ch
    assert log == ["gone"] * 3


# ---- the object ----


def test_len_capacity_and_truth() -> None:
    ch: Chan[int] = Chan(3)
    assert (len(ch), ch.capacity, bool(ch)) == (0, 3, True)
    ch.send(1)
    assert (len(ch), ch.capacity, bool(ch)) == (1, 3, True)
    assert Chan().capacity == 0
    assert len(Chan()) == 0
    assert Chan(capacity=5).capacity == 5
    with pytest.raises(AttributeError):
        ch.capacity = 4  # type: ignore[misc]


def test_repr() -> None:
    ch: Chan[int] = Chan(3)
    ch.send(1)
    assert "Chan" in repr(ch)
    assert "1/3" in repr(ch)
    assert "closed" not in repr(ch)
    ch.close()
    assert "closed" in repr(ch)


def test_generic_alias() -> None:
    alias = Chan[int]
    assert alias.__origin__ is Chan  # type: ignore[attr-defined]
    assert alias.__args__ == (int,)  # type: ignore[attr-defined]
    ch = Chan[int](4)
    assert isinstance(ch, Chan)
    assert ch.capacity == 4


def test_channels_hash_and_compare_by_identity() -> None:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan()
    assert a != b
    assert {a: 1, b: 2}[a] == 1


def test_weak_references() -> None:
    ch: Chan[int] = Chan()
    ref = weakref.ref(ch)
    assert ref() is ch
    del ch
    assert ref() is None


@pytest.mark.goroutine(False)
def test_a_channel_outlives_its_run() -> None:
    import golibx

    ch: Chan[int] = Chan(3)
    waiting: list[object] = []

    def first() -> None:
        ch.send(1)
        waiting.append(go(lambda: [ch.recv(), ch.recv()]))
        gosched()

    golibx.run(first)
    assert len(ch) == 0  # the cancelled receiver had taken the only one

    def second() -> int:
        go(ch.send, 2)
        return ch.recv()

    assert golibx.run(second) == 2


def test_a_plain_thread_may_send_what_need_not_wait() -> None:
    ch: Chan[int] = Chan()
    out: list[object] = []
    go(lambda: out.append(ch.recv()))
    gosched()
    thread = threading.Thread(target=lambda: out.append(ch.try_send(5)))
    thread.start()
    thread.join()
    wait_until(lambda: len(out) >= 2)
    assert sorted(out, key=str) == [5, True]
