"""Go's channel and select semantics, by the meaning of the programs in its test/chan and the tests
of its runtime's chan.go: what a Go programmer may rely on holds here. Each test runs with the
settings that are the default, and preempted every millisecond."""

# A lambda is the shortest way to do two things in a goroutine, though neither returns a value.
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest

from golibx import (
    Chan,
    ChannelClosed,
    Goroutine,
    RecvChan,
    SendChan,
    WaitGroup,
    after,
    go,
    gosched,
    select,
    stats,
)


@pytest.fixture(
    autouse=True,
    params=[
        pytest.param("default settings", marks=pytest.mark.goroutine),
        pytest.param("slice 1ms", marks=pytest.mark.goroutine(preempt={"slice": "1ms"})),
    ],
)
def _settings() -> None:
    """The marks do it."""


def is_parked(g: Goroutine[object], reason: str) -> bool:
    """Whether a goroutine waits by now, for this reason."""
    for _ in range(1000):
        if g.state == reason:
            return True
        gosched()
    return False


# ---- sieves ----

PRIMES = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71]


def count_to(out: SendChan[int], numbers: Iterator[int]) -> None:
    for number in numbers:
        out.send(number)


@pytest.mark.goroutine(leaks=False)
def test_sieve_of_filters() -> None:
    def keep_indivisible(numbers: RecvChan[int], out: SendChan[int], prime: int) -> None:
        for number in numbers:
            if number % prime:
                out.send(number)

    numbers: Chan[int] = Chan()
    go(count_to, numbers, itertools.count(2))
    found = []
    for _ in PRIMES:
        prime = numbers.recv()
        found.append(prime)
        rest: Chan[int] = Chan()
        go(keep_indivisible, numbers, rest, prime)
        numbers = rest
    assert found == PRIMES


@pytest.mark.goroutine(leaks=False)
def test_sieve_of_merged_multiples() -> None:
    """The composites are a merge of channels of multiples, the primes what it leaves out."""

    def merge(fresh: RecvChan[tuple[int, RecvChan[int]]], out: SendChan[int]) -> None:
        heads: list[tuple[int, int, RecvChan[int]]] = []
        serial = itertools.count()
        square, multiples = fresh.recv()
        while True:
            # The next prime's multiples are not needed below its square.
            if not heads or square <= heads[0][0]:
                heapq.heappush(heads, (multiples.recv(), next(serial), multiples))
                square, multiples = fresh.recv()
            least, number, source = heads[0]
            out.send(least)
            heapq.heapreplace(heads, (source.recv(), number, source))

    fresh: Chan[tuple[int, RecvChan[int]]] = Chan(100)
    composites: Chan[int] = Chan()
    go(merge, fresh, composites)
    found: list[int] = []
    composite = 0
    for candidate in itertools.count(2):
        while found and composite < candidate and candidate >= 4:
            composite = composites.recv()
        if composite == candidate:
            continue
        found.append(candidate)
        if len(found) == len(PRIMES):
            break
        multiples: Chan[int] = Chan()
        go(count_to, multiples, itertools.count(candidate * candidate, candidate))
        fresh.send((candidate * candidate, multiples))
    assert found == PRIMES


# ---- power series ----

Series = RecvChan[Fraction]


def series(coefficients: Callable[[SendChan[Fraction]], object]) -> Series:
    out: Chan[Fraction] = Chan()
    go(coefficients, out)
    return out


def take(s: Series, n: int = 8) -> list[Fraction]:
    return [s.recv() for _ in range(n)]


def split(s: Series) -> tuple[Series, Series]:
    """Two that give what one gives, however far one is ahead of the other."""
    outs: tuple[Chan[Fraction], Chan[Fraction]] = (Chan(), Chan())

    def run() -> None:
        behind = 0
        queue: list[Fraction] = []  # what only the other one has got
        fresh = s.recv()
        while True:
            due = queue[0] if queue else fresh
            late, _, _ = select(outs[1 - behind].on_send(fresh), outs[behind].on_send(due))
            if late and queue:
                queue.pop(0)
                continue
            if late:  # they were level
                behind = 1 - behind
            queue.append(fresh)
            fresh = s.recv()

    go(run)
    return outs


def constant(value: int) -> Series:
    def run(out: SendChan[Fraction]) -> None:
        while True:
            out.send(Fraction(value))

    return series(run)


def add(a: Series, b: Series) -> Series:
    def run(out: SendChan[Fraction]) -> None:
        while True:
            # Whichever comes first.
            case, value, _ = select(a.on_recv(), b.on_recv())
            out.send(value + (b, a)[case].recv())

    return series(run)


def derivative(s: Series) -> Series:
    def run(out: SendChan[Fraction]) -> None:
        s.recv()
        for n in itertools.count(1):
            out.send(n * s.recv())

    return series(run)


def integral(s: Series, constant_term: int) -> Series:
    def run(out: SendChan[Fraction]) -> None:
        out.send(Fraction(constant_term))
        for n in itertools.count(1):
            out.send(s.recv() / n)

    return series(run)


def product(a: Series, b: Series) -> Series:
    """a0·b0 + x·(a0·B + b0·A + x·A·B), the tail being a product again, made when it is needed."""

    def run(out: SendChan[Fraction]) -> None:
        left: list[Fraction] = []
        right: list[Fraction] = []
        while True:
            left.append(a.recv())
            right.append(b.recv())
            out.send(sum((x * y for x, y in zip(left, reversed(right), strict=True)), Fraction(0)))

    return series(run)


def exponential() -> Series:
    """The series that is its own derivative: what it gives is fed back."""
    out: Chan[Fraction] = Chan()
    back: Chan[Fraction] = Chan()

    def run() -> None:
        for value in integral(back, 1):
            back_sender = go(back.send, value)
            out.send(value)
            back_sender.join()

    go(run)
    return out


FACTORIALS = [1, 1, 2, 6, 24, 120, 720, 5040]


@pytest.mark.goroutine(leaks=False)
def test_power_series() -> None:
    assert take(add(constant(1), constant(2))) == [3] * 8
    # 1/(1-x), its derivative, and its square, which is the same.
    assert take(derivative(constant(1))) == [*range(1, 9)]
    assert take(product(constant(1), constant(1))) == [*range(1, 9)]
    # The series of -log(1-x).
    assert take(integral(constant(1), 0)) == [0, *(Fraction(1, n) for n in range(1, 8))]
    assert take(exponential()) == [Fraction(1, n) for n in FACTORIALS]
    # Squared, exp(2x).
    squared = product(exponential(), exponential())
    assert take(squared) == [Fraction(2**n, f) for n, f in enumerate(FACTORIALS)]


@pytest.mark.goroutine(leaks=False)
def test_power_series_that_is_split() -> None:
    left, right = split(exponential())
    assert take(left, 5) == [Fraction(1, n) for n in FACTORIALS[:5]]
    assert take(right, 3) == [Fraction(1, n) for n in FACTORIALS[:3]]
    assert take(left, 3) == [Fraction(1, n) for n in FACTORIALS[5:]]
    assert take(right, 5) == [Fraction(1, n) for n in FACTORIALS[3:]]


# ---- order ----


@pytest.mark.parametrize("capacity", [0, 10])
def test_fifo(capacity: int) -> None:
    ch: Chan[int] = Chan(capacity)
    go(count_to, ch, iter(range(1000)))
    assert [ch.recv() for _ in range(1000)] == list(range(1000))


def test_waiters_are_served_in_order() -> None:
    """A chain of goroutines, each of which may send only when its predecessor has."""
    ch: Chan[int] = Chan()
    senders = []
    for i in range(50):
        senders.append(go(ch.send, i))
        assert is_parked(senders[-1], "chan send")
    assert [ch.recv() for _ in senders] == list(range(50))
    receivers = []
    for _ in range(50):
        receivers.append(go(ch.recv))
        assert is_parked(receivers[-1], "chan receive")
    for i in range(50):
        ch.send(i)
    assert [g.result() for g in receivers] == list(range(50))


def test_chain_of_goroutines() -> None:
    def pass_on(left: SendChan[int], right: RecvChan[int]) -> None:
        left.send(1 + right.recv())

    leftmost: Chan[int] = Chan()
    left = leftmost
    for _ in range(10_000):
        right: Chan[int] = Chan()
        go(pass_on, left, right)
        left = right
    go(left.send, 1)
    assert leftmost.recv() == 10_001


def test_operands_are_evaluated_once_and_in_order() -> None:
    log: list[str] = []
    channels: dict[str, Chan[str]] = {name: Chan(1) for name in "abc"}

    def channel(name: str) -> Chan[str]:
        log.append(f"channel {name}")
        return channels[name]

    def value(name: str) -> str:
        log.append(f"value {name}")
        return name

    channels["a"].send("full")
    channels["c"].send("full")
    chosen = select(
        channel("a").on_send(value("1")), channel("b").on_send(value("2")),
        channel("c").on_send(value("3")),
    )  # fmt: skip
    # Of those that are not chosen as well.
    assert log == ["channel a", "value 1", "channel b", "value 2", "channel c", "value 3"]
    assert chosen == (1, None, True)
    assert channels["b"].recv() == "2"
    log.clear()
    channel("b").send(value("4"))
    assert log == ["channel b", "value 4"]


def test_values_are_passed_as_they_are() -> None:
    """The identity of what is sent, an exception or a channel too."""
    things: list[object] = [None, (), ValueError(), Chan(), print, b"x" * 10_000, (1, [2])]
    for capacity in (0, 1):
        ch: Chan[object] = Chan(capacity)
        for thing in things:
            go(ch.send, thing)
            assert ch.recv() is thing


# ---- what blocks, and what does not ----


@pytest.mark.parametrize("value", [0, "text", None, 1.5, (1, 2)])
def test_nonblocking(value: object) -> None:
    synchronous: Chan[object] = Chan()
    buffered: Chan[object] = Chan(1)
    for ch in (synchronous, buffered):
        assert select(ch.on_recv(), default=True) == (-1, None, False)
        assert ch.try_recv() == (None, False)
    assert select(synchronous.on_send(value), default=True) == (-1, None, False)
    assert not synchronous.try_send(value)
    # A goroutine waits: now it can be done.
    receiver = go(synchronous.recv)
    assert is_parked(receiver, "chan receive")
    assert select(synchronous.on_send(value), default=True) == (0, None, True)
    assert receiver.result() is value
    sender = go(synchronous.send, value)
    assert is_parked(sender, "chan send")
    assert select(synchronous.on_recv(), default=True) == (0, value, True)
    sender.join()
    assert select(synchronous.on_recv(), default=True) == (-1, None, False)
    # And with a buffer.
    assert select(buffered.on_send(value), default=True) == (0, None, True)
    assert select(buffered.on_send(value), default=True) == (-1, None, False)
    assert select(buffered.on_recv(), default=True) == (0, value, True)
    assert select(buffered.on_recv(), default=True) == (-1, None, False)


@pytest.mark.parametrize("capacity", [0, 1, 2, 5])
def test_capacity(capacity: int) -> None:
    ch: Chan[int] = Chan(capacity)
    receiver = go(ch.recv)
    assert is_parked(receiver, "chan receive")  # from an empty one
    ch.send(-1)
    assert receiver.result() == -1
    for i in range(capacity):
        assert len(ch) == i
        ch.send(i)
    assert len(ch) == ch.capacity == capacity
    sender = go(ch.send, capacity)
    assert is_parked(sender, "chan send")  # to a full one
    assert len(ch) == capacity
    assert [ch.recv() for _ in range(capacity + 1)] == list(range(capacity + 1))
    sender.join()
    assert len(ch) == 0


@pytest.mark.goroutine(timeout=120)
def test_nonblocking_receive_races_with_close() -> None:
    """What a channel holds, or that it is closed, is seen at any moment: never the default."""
    missed = []

    def look(ch: Chan[int]) -> None:
        if select(ch.on_recv(), default=True)[0] == -1:
            missed.append(ch)

    for _ in range(100_000):
        ch: Chan[int] = Chan(1)
        ch.send(1)
        g = go(look, ch)
        ch.close()
        ch.try_recv() if len(ch) else None
        g.join()
    assert not missed


@pytest.mark.goroutine(timeout=120)
def test_nonblocking_select_races_with_the_other_channel() -> None:
    """Two channels of which one has a value at any time: a select sees it, whichever it is."""
    missed = []
    for _ in range(2000):
        first: Chan[int] = Chan(1)
        second: Chan[int] = Chan(1)
        first.send(1)

        def look(a: Chan[int] = first, b: Chan[int] = second) -> None:
            if select(a.on_recv(), b.on_recv(), default=True)[0] == -1:
                missed.append((a, b))

        g = go(look)
        second.send(1)
        select(first.on_recv(), default=True)
        g.join()
    assert not missed


def test_nil_blocks() -> None:
    """A None case is a nil channel's: alone it blocks for ever, among others it is not there."""
    assert select(None, None, default=True) == (-1, None, False)
    g = go(select, None, None)
    assert is_parked(g, "select")
    g.cancel()
    ready: Chan[int] = Chan(1)
    for _ in range(20):
        ready.send(7)
        assert select(None, ready.on_recv(), None) == (1, 7, True)


# ---- close ----


@pytest.mark.parametrize("capacity", [0, 2])
def test_close(capacity: int) -> None:
    ch: Chan[int] = Chan(capacity)
    for i in range(capacity):
        ch.send(i)
    ch.close()
    # What was sent before comes first.
    for i in range(capacity):
        assert ch.recv_ok() == (i, True)
    for _ in range(3):
        assert ch.recv_ok() == (None, False)
        assert select(ch.on_recv(), default=True) == (0, None, False)
        assert list(ch) == []
        for operation in (
            ch.recv,
            ch.try_recv,
            ch.close,
            lambda: ch.send(1),
            lambda: ch.try_send(1),
        ):
            with pytest.raises(ChannelClosed):
                operation()  # type: ignore[operator]
        with pytest.raises(ChannelClosed):
            select(ch.on_send(1), default=True)


def test_close_wakes_all_that_wait() -> None:
    ch: Chan[int] = Chan()
    other: Chan[int] = Chan()
    receivers = [go(ch.recv_ok) for _ in range(10)]
    selects = [go(select, ch.on_recv(), other.on_recv()) for _ in range(10)]
    for g in receivers:
        assert is_parked(g, "chan receive")
    for g in selects:
        assert is_parked(g, "select")
    ch.close()
    assert [g.result() for g in receivers] == [(None, False)] * 10
    assert [g.result() for g in selects] == [(0, None, False)] * 10


def test_close_fails_senders_that_wait() -> None:
    ch: Chan[int] = Chan()
    senders = [go(ch.send, i) for i in range(10)]
    for g in senders:
        assert is_parked(g, "chan send")
    ch.close()
    for g in senders:
        with pytest.raises(ChannelClosed):
            g.result()


# ---- select ----


@pytest.mark.parametrize("capacity", [0, 2])
def test_double_select(capacity: int) -> None:
    """A sender that selects among channels, and one goroutine for each that passes on: no value is
    sent twice."""
    channels: list[Chan[int]] = [Chan(capacity) for _ in range(4)]
    merged: Chan[int] = Chan()
    n = 5000

    def sender() -> None:
        a, b, c, d = channels
        for i in range(n):
            select(a.on_send(i), b.on_send(i), c.on_send(i), d.on_send(i))
        for ch in channels:
            ch.close()

    def pass_on(ch: Chan[int]) -> None:
        for value in ch:
            merged.send(value)

    muxes = WaitGroup()
    for ch in channels:
        muxes.go(pass_on, ch)
    go(sender)
    go(lambda: (muxes.wait(), merged.close()))
    assert sorted(merged) == list(range(n))


def preempted() -> int:
    counters = stats()
    return counters["preemptions"] + counters["handoffs"] + counters["retakes"]


def test_select_is_fair() -> None:
    """Two that are always ready are both served, and with the same probability.

    While one of those that make them ready is kept from its turn by preemption, it is not ready.
    """
    for _ in range(100):
        before = preempted()
        taken = taken_by_select(2000)
        if preempted() == before:
            # Eighteen standard deviations of a fair coin: off by a fifth is found, chance is not.
            assert abs(taken - 1000) < 400
            return
    pytest.fail("no attempt was without a preemption")


def taken_by_select(trials: int) -> int:
    """How many of so many values come from the first of two sources."""
    sources: list[Chan[None]] = [Chan() for _ in range(2)]
    outs: list[Chan[None]] = [Chan() for _ in range(2)]
    done: Chan[None] = Chan()

    def feed(ch: Chan[None]) -> None:
        while select(ch.on_send(None), done.on_recv())[0] == 0:
            pass

    def forward() -> None:
        while True:
            index, _, _ = select(sources[0].on_recv(), sources[1].on_recv(), done.on_recv())
            if index == 2:
                return
            if select(outs[index].on_send(None), done.on_recv())[0] == 1:
                return

    goroutines = [*(go(feed, ch) for ch in sources), go(forward)]
    counts: Counter[int] = Counter()
    for _ in range(trials):
        counts[select(outs[0].on_recv(), outs[1].on_recv())[0]] += 1
    done.close()
    for g in goroutines:
        g.join()
    return counts[0]


def test_pseudo_random_send() -> None:
    for capacity in (0, 100):
        ch: Chan[int] = Chan(capacity)
        n = 1000
        seen: list[int] = []

        def receive(ch: Chan[int] = ch, seen: list[int] = seen) -> None:
            seen.extend(ch)

        g = go(receive)
        for _ in range(n):
            select(ch.on_send(0), ch.on_send(1))
        ch.close()
        g.join()
        assert len(seen) == n
        assert n / 10 < sum(seen) < n - n / 10


@pytest.mark.parametrize("capacity", [0, 10])
def test_self_select(capacity: int) -> None:
    """Goroutines that send and receive on one channel in one select meet one another, not
    themselves."""
    ch: Chan[int] = Chan(capacity)
    mistakes = []

    def run(me: int) -> None:
        for _ in range(1000):
            if me == 0:
                index, value, _ = select(ch.on_send(me), ch.on_recv())
                received = index == 1
            else:
                index, value, _ = select(ch.on_recv(), ch.on_send(me))
                received = index == 0
            if received and capacity == 0 and value == me:
                mistakes.append(me)
        # The other may still need a partner.
        while not done[1 - me]:
            done[me] = True
            select(ch.on_recv(), ch.on_send(me), default=True)
            gosched()
        done[me] = True

    done = [False, False]
    both = [go(run, me) for me in range(2)]
    for g in both:
        g.join()
    assert not mistakes


def test_duplicate_channel() -> None:
    """The same channel several times in one select, which leaves all of the queues."""
    c: Chan[int] = Chan()
    d: Chan[int] = Chan()
    e: Chan[int] = Chan()

    def both() -> None:
        select(c.on_recv(), c.on_recv(), d.on_recv())
        e.send(9)

    g = go(both)
    assert is_parked(g, "select")
    other = go(c.recv)
    assert is_parked(other, "chan receive")
    d.send(7)  # wakes the select, which takes its two places in c's queue away
    assert e.recv() == 9
    g.join()
    c.send(8)
    assert other.result() == 8
    assert not c.try_send(1)


@pytest.mark.goroutine(timeout=120)
def test_select_stress() -> None:
    """Ten goroutines: a sender and a receiver for each of four channels, and one select over all to
    send and one to receive. All that is sent arrives."""
    channels: list[Chan[int]] = [Chan(capacity) for capacity in (0, 0, 2, 3)]
    n = 2000
    sent: list[int] = []
    received: list[int] = []

    def send(k: int) -> None:
        for i in range(n):
            sent.append(k * n + i)
            channels[k].send(k * n + i)

    def receive(k: int) -> None:
        for _ in range(n):
            received.append(channels[k].recv())

    def over_all(*, receives: bool) -> None:
        left = [n] * 4
        number = itertools.count(4 * n)
        while any(left):
            value = next(number)
            index, got, _ = select(
                *(
                    None if not left[k] else ch.on_recv() if receives else ch.on_send(value)
                    for k, ch in enumerate(channels)
                )
            )
            left[index] -= 1
            (received if receives else sent).append(got if receives else value)

    group = WaitGroup()
    for k in range(4):
        group.go(send, k)
        group.go(receive, k)
    group.go(over_all, receives=True)
    group.go(over_all, receives=False)
    group.wait()
    assert len(received) == 8 * n
    assert sorted(received) == sorted(sent)


@pytest.mark.parametrize("n", [1, 100, 2000])
def test_many_cases(n: int) -> None:
    channels: list[Chan[int]] = [Chan() for _ in range(n)]
    for i, ch in enumerate(channels):
        go(ch.send, i)
    cases = [ch.on_recv() for ch in channels]
    got = [select(*cases) for _ in range(n)]
    assert sorted(got) == [(i, i, True) for i in range(n)]
    assert select(*cases, default=True) == (-1, None, False)


def test_select_with_one_case_is_the_operation() -> None:
    ch: Chan[int] = Chan()
    for i in range(100):
        g = go(select, ch.on_send(i))
        assert select(ch.on_recv()) == (0, i, True)
        assert g.result() == (0, None, True)


def test_a_select_that_gave_up_takes_nothing() -> None:
    """Receivers that time out against senders that time out: a value is received exactly when its
    send says so."""
    ch: Chan[int] = Chan()
    received: list[int] = []
    sent: list[int] = []

    def receive() -> None:
        for _ in range(300):
            index, value, _ = select(ch.on_recv(), after(0.0002).on_recv())
            if index == 0:
                received.append(value)

    def send(first: int) -> None:
        for value in range(first, first + 300):
            if select(after(0.0001).on_recv(), ch.on_send(value))[0] == 1:
                sent.append(value)

    group = WaitGroup()
    for k in range(4):
        group.go(receive)
        group.go(send, k * 1000)
    group.wait()
    assert sorted(received) == sorted(sent)


def test_multiple_consumers() -> None:
    work: Chan[int] = Chan(23)
    results: Chan[int] = Chan(79)
    primes = [2, 3, 7, 11, 13, 17, 19, 23, 27, 31]

    def worker() -> None:
        for value in work:
            if primes[value % len(primes)] == value:
                gosched()
            results.send(value)

    workers = WaitGroup()
    for _ in range(23):
        workers.go(worker)

    def feed() -> None:
        for i in range(10_000):
            work.send(primes[i % len(primes)])
        work.close()
        workers.wait()
        results.close()

    go(feed)
    assert sum(results) == sum(primes) * 1000


# ---- directions ----


def test_directions() -> None:
    """What a compiler would refuse is an error of mypy's, and an AttributeError without it."""
    ch: Chan[int] = Chan(1)
    sender: SendChan[int] = ch
    receiver: RecvChan[int] = ch
    sender, receiver = ch.sender(), ch.receiver()
    sender.send(1)
    assert receiver.recv() == 1
    for refused in (
        lambda: sender.recv(),  # type: ignore[attr-defined]
        lambda: sender.try_recv(),  # type: ignore[attr-defined]
        lambda: sender.recv_ok(),  # type: ignore[attr-defined]
        lambda: sender.on_recv(),  # type: ignore[attr-defined]
        lambda: receiver.send(1),  # type: ignore[attr-defined]
        lambda: receiver.try_send(1),  # type: ignore[attr-defined]
        lambda: receiver.on_send(1),  # type: ignore[attr-defined]
        lambda: receiver.close(),  # type: ignore[attr-defined]
    ):
        with pytest.raises(AttributeError):
            refused()
    with pytest.raises(TypeError):
        iter(sender)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="needs a Chan"):
        SendChan(receiver)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs a Chan"):
        RecvChan(sender)  # type: ignore[arg-type]

    def only_bools(values: RecvChan[bool]) -> None: ...

    numbers: RecvChan[int] = Chan[bool]().receiver()  # covariant
    bools: SendChan[bool] = Chan[int]().sender()  # contravariant
    only_bools(numbers)  # type: ignore[arg-type]
    assert bools.try_send(True) is False
