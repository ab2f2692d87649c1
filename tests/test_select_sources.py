"""select() over more than channels: ends of goroutines, sockets, timers, all of them together. That
it leaves nothing behind in any of their queues, and that a case happens exactly once."""

# A lambda is the shortest way to do two things in a goroutine, though neither returns a value.
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import golibx
from golibx import (
    Cancelled,
    Case,
    Chan,
    DeadlineExceeded,
    Deadlock,
    Goroutine,
    Timer,
    WaitGroup,
    after,
    go,
    gosched,
    net,
    select,
    sleep,
    stats,
)
from golibx.testing import wait_until

pytestmark = pytest.mark.goroutine


def is_parked(g: Goroutine[object], reason: str = "select") -> bool:
    for _ in range(1000):
        if g.state == reason:
            return True
        gosched()
    return False


@contextmanager
def connection() -> Iterator[tuple[net.Conn, net.Conn]]:
    with net.listen("127.0.0.1:0") as listener, net.dial(listener.address) as near:
        far, _ = listener.accept()
        with far:
            yield near, far


# ---- the ends of goroutines ----


def test_on_done() -> None:
    ch: Chan[int] = Chan()
    g = go(lambda: ch.recv() + 1)
    assert select(g.on_done(), default=True) == (-1, None, False)
    waiting = go(select, None, g.on_done())
    assert is_parked(waiting)
    ch.send(1)
    assert waiting.result() == (1, g, True)
    # For ever after.
    for _ in range(3):
        assert select(g.on_done()) == (0, g, True)
    assert g.result() == 2


def test_on_done_of_one_that_raises() -> None:
    g = go(lambda: 1 // 0)
    index, ended, ok = select(after(1000).on_recv(), g.on_done())
    assert (index, ended, ok) == (1, g, True)
    with pytest.raises(ZeroDivisionError):
        ended.result()
    cancelled = go(sleep, 1000)
    assert is_parked(cancelled, "sleep")
    cancelled.cancel()
    assert select(cancelled.on_done())[1] is cancelled


def test_first_of_many_to_end() -> None:
    gate: Chan[None] = Chan()
    goroutines = [go(gate.recv) for _ in range(100)]
    chosen = go(lambda: select(*(g.on_done() for g in goroutines)))
    assert is_parked(chosen)
    goroutines[37].cancel()
    index, g, ok = chosen.result()
    assert (index, g, ok) == (37, goroutines[37], True)
    gate.close()
    for g in goroutines:
        g.join()


def test_joiners_and_selects_are_all_woken() -> None:
    gate: Chan[None] = Chan()
    g = go(gate.recv_ok)
    joiners = [go(g.join) for _ in range(5)]
    selects = [go(select, g.on_done(), g.on_done()) for _ in range(5)]
    gave_up = [go(select, g.on_done(), after(0.0001).on_recv()) for _ in range(5)]
    for other in gave_up:
        assert other.result()[0] == 1
    for other in selects:
        assert is_parked(other)
    gate.close()
    assert [j.result() for j in joiners] == [True] * 5
    assert {s.result()[1:] for s in selects} == {(g, True)}


def test_a_goroutine_does_not_end_while_it_waits_for_its_end() -> None:
    holder: list[Goroutine[object]] = []
    g = go(lambda: select(holder[0].on_done()))
    holder.append(g)
    assert is_parked(g)
    g.cancel()
    with pytest.raises(Cancelled):
        g.result()


@pytest.mark.goroutine(False)
def test_goroutines_that_wait_for_each_other_are_a_deadlock() -> None:
    def main() -> None:
        holder: list[Goroutine[object]] = []
        holder.append(go(lambda: select(holder[1].on_done())))
        holder.append(go(lambda: select(holder[0].on_done())))
        select(*(g.on_done() for g in holder))

    with pytest.raises(Deadlock):
        golibx.run(main)


# ---- sockets ----


def test_on_readable() -> None:
    with connection() as (near, far):
        assert select(far.on_readable(), default=True) == (-1, None, False)
        with pytest.raises(DeadlineExceeded):
            select(far.on_readable(), timeout=0.001)
        near.sendall(b"ab")
        assert select(far.on_readable(), after(1000).on_recv()) == (0, far, True)
        # It is until all is read.
        assert far.recv(1) == b"a"
        assert select(far.on_readable(), default=True) == (0, far, True)
        assert far.recv(1) == b"b"
        assert select(far.on_readable(), default=True) == (-1, None, False)
        waiting = go(select, far.on_readable())
        assert is_parked(waiting)
        near.sendall(b"c")
        assert waiting.result() == (0, far, True)
        assert far.recv(10) == b"c"


def test_a_cancellation_between_an_edge_and_the_turn_is_not_slept_over() -> None:
    """Another has read all by then: the select that finds nothing is not to wait again."""
    with connection() as (near, far):

        def reads_and_cancels() -> str:
            assert select(far.on_readable()) == (0, far, True)
            assert far.recv(10) == b"c"
            state = late.state
            late.cancel()
            return state

        first = go(reads_and_cancels)
        assert is_parked(first)
        late = go(select, far.on_readable())
        assert is_parked(late)
        near.sendall(b"c")
        assert first.result() == "runnable"
        with pytest.raises(Cancelled):
            late.result(timeout=10)


def test_the_end_of_a_stream_is_readable() -> None:
    with connection() as (near, far):
        waiting = go(select, far.on_readable(), None)
        assert is_parked(waiting)
        near.close()
        assert waiting.result() == (0, far, True)
        for _ in range(2):
            assert select(far.on_readable()) == (0, far, True)
            assert far.recv(10) == b""


def test_on_writable() -> None:
    with connection() as (near, far):
        assert select(near.on_readable(), near.on_writable()) == (1, near, True)
        # Until nothing fits any more.
        near.settimeout(0)
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                sent += near.send(bytes(1 << 16))
        assert select(near.on_writable(), default=True) == (-1, None, False)
        waiting = go(select, near.on_writable())
        assert is_parked(waiting)
        while sent:
            sent -= len(far.recv(1 << 20))
        assert waiting.result() == (0, near, True)
        assert near.send(b"x") == 1


def test_on_accept() -> None:
    with net.listen("127.0.0.1:0") as listener:
        assert select(listener.on_accept(), default=True) == (-1, None, False)
        waiting = go(select, listener.on_accept(), after(1000).on_recv())
        assert is_parked(waiting)
        with net.dial(listener.address):
            assert waiting.result() == (0, listener, True)
            conn, _ = listener.accept()
            conn.close()
            assert select(listener.on_accept(), default=True) == (-1, None, False)


def test_a_close_wakes_a_select() -> None:
    with connection() as (near, far):
        ch: Chan[int] = Chan()
        waiting = [go(select, ch.on_recv(), far.on_readable()) for _ in range(3)]
        for g in waiting:
            assert is_parked(g)
        far.close()
        assert [g.result() for g in waiting] == [(1, far, False)] * 3
        assert select(far.on_readable(), far.on_writable())[1:] == (far, False)
        near.close()


def test_a_select_does_not_tell_of_what_another_has_read() -> None:
    with connection() as (near, far):

        def select_and_read() -> bytes:
            select(far.on_readable())
            return far.recv(10)

        log: list[bytes] = []
        readers = [go(lambda: log.append(select_and_read())) for _ in range(3)]
        for g in readers:
            assert is_parked(g)
        for i, text in enumerate((b"x", b"y", b"z"), start=1):
            near.sendall(text)
            wait_until(lambda: len(log) >= i)
            # All were woken, and one had it: the others wait in their selects again.
            waiting = [g for g in readers if not g.done()]
            assert len(waiting) == 3 - i
            for g in waiting:
                assert is_parked(g)
                assert g.waiting_on == (far,)
        assert log == [b"x", b"y", b"z"]


def test_reads_and_selects_on_one_socket() -> None:
    with connection() as (near, far):
        reader = go(far.recv, 1)
        assert is_parked(reader, "IO wait (read)")
        both = go(select, far.on_readable(), near.on_readable(), far.on_readable())
        assert is_parked(both)
        near.sendall(b"12")
        assert reader.result() == b"1"
        index, which, ok = both.result()
        assert (index in {0, 2}, which, ok) == (True, far, True)
        assert far.recv(10) == b"2"


def test_waiting_for_a_socket_is_no_deadlock() -> None:
    """Code outside may send, though every goroutine sleeps: here a plain socket of this process,
    and no goroutine has its other end."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        conn = net.dial(server.getsockname())
        peer, _ = server.accept()
        with conn, peer:
            got = go(select, conn.on_readable())
            assert is_parked(got)
            timer = threading.Timer(0.3, peer.sendall, (b"x",))
            timer.start()
            assert got.result() == (0, conn, True)
            timer.join()


@pytest.mark.goroutine(False)
def test_a_socket_of_a_run_that_is_over() -> None:
    kept: list[net.Listener] = []
    golibx.run(lambda: kept.append(net.listen("127.0.0.1:0")))
    with pytest.raises(RuntimeError, match="has ended"):
        golibx.run(lambda: select(kept[0].on_accept()))
    kept[0].close()
    assert golibx.run(lambda: select(kept[0].on_accept())) == (0, kept[0], False)


# ---- all together ----


def test_all_kinds_ready_are_chosen_evenly() -> None:
    with connection() as (near, far):
        near.sendall(b"x")
        select(far.on_readable())
        closed: Chan[int] = Chan()
        closed.close()
        ended = go(lambda: None)
        ended.join()
        full: Chan[int] = Chan(1)
        timer = Timer(0)
        cases = [
            closed.on_recv(),
            full.on_send(1),
            ended.on_done(),
            timer.on_fire(),
            far.on_readable(),
            far.on_writable(),
        ]
        total = 6000
        counts: Counter[int] = Counter()
        for _ in range(total):
            index, value, ok = select(*cases)
            counts[index] += 1
            if index == 1:
                full.recv()
            elif index == 3:
                timer.reset(0)
        expected = total / len(cases)
        chi_square = sum((counts[i] - expected) ** 2 / expected for i in range(len(cases)))
        # Mean 5, variance 10: chance does not reach this, a choice that is off by a tenth does.
        assert chi_square < 5 + 12 * 10**0.5


def test_whichever_comes_first() -> None:
    with connection() as (near, far):
        ch: Chan[str] = Chan()
        sink: Chan[str] = Chan()
        gate: Chan[None] = Chan()
        worker = go(gate.recv_ok)
        timer = Timer(1000)
        cases = [
            ch.on_recv(),
            sink.on_send("sent"),
            worker.on_done(),
            timer.on_fire(),
            far.on_readable(),
            None,
        ]

        def first_of_all(event: Callable[[], object]) -> tuple[int, object, bool]:
            g = go(lambda: select(*cases))
            assert is_parked(g)
            event()
            return g.result()

        assert first_of_all(lambda: ch.send("received")) == (0, "received", True)
        assert first_of_all(sink.recv) == (1, None, True)
        assert first_of_all(lambda: timer.reset(0))[0] == 3
        assert first_of_all(lambda: near.sendall(b"x")) == (4, far, True)
        assert far.recv(1) == b"x"
        # It is in none of the queues any more.
        assert not ch.try_send("lost")
        assert sink.try_recv() == (None, False)
        assert stats()["timers"] == 0
        assert first_of_all(gate.close) == (2, worker, True)


def test_each_event_is_seen_once() -> None:
    """Many selects over the same sources, with values, ticks and ends racing: what happens is had
    by exactly one, but for the ends, which all may see."""
    values: Chan[int] = Chan()
    out: Chan[int] = Chan()
    stop: Chan[None] = Chan()
    timer = Timer(1000)
    timer.stop()
    received: list[int] = []
    sent = fired = 0

    def selects(me: int) -> None:
        nonlocal sent, fired
        while True:
            worker = go(gosched)
            index, value, _ = select(
                values.on_recv(), out.on_send(me), timer.on_fire(), worker.on_done(), stop.on_recv()
            )
            if index == 0:
                received.append(value)
            elif index == 1:
                sent += 1
            elif index == 2:
                fired += 1
            elif index == 4:
                return

    group = WaitGroup()
    for me in range(8):
        group.go(selects, me)
    pending = taken = 0
    n = 2000
    for i in range(n):
        values.send(i)
        if out.recv() is not None:
            taken += 1
        pending += not timer.reset(0.00001)
    left = timer.stop()
    stop.close()
    group.wait()
    assert sorted(received) == list(range(n))
    assert sent == taken == n
    assert fired + left == pending


def ended(value: object) -> Case:
    return go(lambda: value).on_done()


def running(value: object) -> Case:
    return go(lambda: sleep(1000) or value).on_done()


def due(value: object) -> Case:
    return after(0).on_recv()


def to_come(value: object) -> Case:
    return after(1000).on_recv()


@pytest.mark.parametrize("make", [ended, running, due, to_come])
@pytest.mark.parametrize("how", ["poll", "time-out", "cancel"])
def test_reference_counts(make: Callable[[object], Case], how: str) -> None:
    value = object()

    def use() -> None:
        case = make(value)
        if how == "poll":
            select(case, default=True)
        elif how == "time-out":
            with pytest.raises(DeadlineExceeded):
                select(None, timeout=0.0001)
            select(case, Chan[int]().on_recv(), after(0.0001).on_recv())
        else:
            g = go(select, case)
            gosched()
            g.cancel()
            g.join()

    use()
    golibx._core.cancel_all(10**9)
    gc.collect()
    before = sys.getrefcount(value), sys.getrefcount(Case)
    for _ in range(20):
        use()
    golibx._core.cancel_all(10**9)
    gc.collect()
    assert (sys.getrefcount(value), sys.getrefcount(Case)) == before
