"""golibx.testing: seeds, virtual time, limits, leaks."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import golibx
from golibx import (
    Chan,
    Deadlock,
    Goroutine,
    Mutex,
    Semaphore,
    Ticker,
    Timer,
    WaitGroup,
    _core,
    after,
    blocking,
    context,
    go,
    gosched,
    net,
    select,
    sleep,
    tick,
)
from golibx.patch import threads
from golibx.testing import Leaked, TimedOut, run, wait_until, wait_until_parked

Trace = list[object]


# ---- seeds ----


def stages() -> Trace:
    """Goroutines that pass values on, in buffered channels and locks; what happened, in order."""
    trace: Trace = []
    ch: Chan[object] = Chan(2)
    lock = Mutex()
    wg = WaitGroup()

    def produce(name: str) -> None:
        for number in range(4):
            ch.send((name, number))
            trace.append(("sent", name, number))
            with lock:
                trace.append(("locked", name))

    def consume() -> None:
        for value in ch:
            trace.append(("got", value))

    for name in "abc":
        wg.go(produce, name)
    consumers = [go(consume), go(consume)]
    wg.wait()
    ch.close()
    for g in consumers:
        g.join()
    return trace


def choices() -> Trace:
    full: list[Chan[int]] = [Chan(20) for _ in range(4)]
    for ch in full:
        for number in range(20):
            ch.send(number)
    return [select(*(ch.on_recv() for ch in full))[0] for _ in range(20)]


def wakers() -> Trace:
    """Goroutines that wait for the same moment."""
    trace: Trace = []

    def wait(number: int) -> None:
        sleep(1)
        trace.append(number)

    goroutines = [go(wait, number) for number in range(8)]
    for g in goroutines:
        g.join()
    return trace


@pytest.mark.parametrize("every_call", [False, True])
@pytest.mark.parametrize("program", [stages, choices, wakers])
def test_a_seed_is_an_order(program: Callable[[], Trace], every_call: bool) -> None:
    orders = []
    for seed in range(1, 13):
        traces = [
            run(program, seed=seed, preempt_every_call=every_call, virtual_time=program is wakers)
            for _ in range(5)
        ]
        assert all(trace == traces[0] for trace in traces)
        orders.append(tuple(traces[0]))
    assert len(set(orders)) >= 6


def test_an_order_does_not_depend_on_how_long_it_takes() -> None:
    """Not on sysmon's rounds either, nor on time slices or on starvation."""

    def busy() -> Trace:
        trace: Trace = []
        lock = Mutex()

        def work(name: str) -> None:
            for _ in range(3):
                with lock:
                    trace.append(name)
                    end = time.perf_counter() + next(delays)
                    while time.perf_counter() < end:
                        pass
                    gosched()

        goroutines = [go(work, name) for name in "abcd"]
        for g in goroutines:
            g.join()
        return trace

    traces = []
    for delay in (0, 0.004, 0.0001):
        delays = iter([delay, 0, delay, 0] * 100)
        traces.append(run(busy, seed=3, config={"preempt": {"slice": "1ms"}}))
    assert traces[0] == traces[1] == traces[2]


# Two calls of golibx's, and what another goroutine may do between them.
CALLS: dict[str, Callable[[], object]] = {
    "try_send": lambda: Chan[int](1).try_send(1),
    "a view's try_recv": lambda: Chan[int](1).receiver().try_recv(),
    "a buffered send": lambda: Chan[int](1).send(1),
    "close": lambda: Chan[int]().close(),
    "on_recv": lambda: Chan[int]().on_recv(),
    "iteration": lambda: next(iter(closed()), None),
    "iteration of a view": lambda: next(iter(closed().receiver()), None),
    "iteration of a timer's channel": lambda: next(iter(after(0))),
    "go": lambda: go(int),
    "select": lambda: select(default=True),
    "after": lambda: after(1),
    "Timer.stop": lambda: Timer(1).stop(),
    "Ticker.stop": lambda: Ticker(1).stop(),
    "a mutex": lambda: Mutex().__enter__(),
    "a semaphore": lambda: Semaphore(1).acquire(),
    "a group": lambda: WaitGroup().add(1),
    "an atomic": lambda: golibx.AtomicInt().add(1),
    "an event": lambda: golibx.Event().set(),
    "a pool": lambda: golibx.Pool(int).get(),
    "a context": lambda: context.with_cancel(context.background()),
    "err": lambda: context.background().err(),
    "done": lambda: current().done(),
    "num_goroutine": golibx.num_goroutine,
}


def closed() -> Chan[int]:
    ch: Chan[int] = Chan()
    ch.close()
    return ch


def current() -> Goroutine[object]:
    g = golibx.current()
    assert g is not None
    return g


def is_point(call: Callable[[], object], **options: bool) -> bool:
    """Whether, for some of a few seeds, another goroutine runs in a call."""

    def main() -> bool:
        ran: list[int] = []
        other = _core.go(ran.append, 1)
        for _ in range(5):
            call()
        found = bool(ran)
        other.join()
        return found

    return any(run(main, seed=seed, leaks=False, **options) for seed in range(1, 6))


@pytest.mark.parametrize("name", CALLS)
def test_every_call_may_give_way(name: str) -> None:
    assert is_point(CALLS[name], preempt_every_call=True)
    assert not is_point(CALLS[name])


def test_calls_are_as_before_when_the_run_is_over() -> None:
    def main() -> list[int]:
        ran: list[int] = []
        other = go(ran.append, 1)
        for _ in range(50):
            for call in CALLS.values():
                call()
        found = list(ran)
        other.join()
        return found

    assert run(main, seed=1, preempt_every_call=True, leaks=False) == [1]
    assert (
        golibx.run(main, config={"preempt": {"async": False}, "retake": {"enabled": False}}) == []
    )


def increments() -> None:
    """Two goroutines, and a lost update between two calls that do not wait."""
    box: Chan[int] = Chan(1)
    box.send(0)
    counted = [0]

    def increment() -> None:
        value = counted[0]
        len(box), box.try_send(1)
        counted[0] = value + 1

    goroutines = [go(increment) for _ in range(2)]
    for g in goroutines:
        g.join()
    assert counted[0] == 2


def test_schedules_find_a_race_and_name_its_seed() -> None:
    run(increments, schedules=20)  # without points there is none
    with pytest.raises(AssertionError) as caught:
        run(increments, seed=100, schedules=50, preempt_every_call=True)
    note, _ = caught.value.__notes__
    seed = int(note.split()[4])
    assert 100 <= seed < 150
    assert note == f"golibx: this was seed {seed} (schedule {seed - 99} of 50)"
    for _ in range(5):
        with pytest.raises(AssertionError, match="== 2"):
            run(increments, seed=seed, preempt_every_call=True)


def test_random_seeds_differ() -> None:
    seeds = set()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as caught:
            run(lambda: 1 // 0, seed="random")
        seeds.add(caught.value.__notes__[0])
    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 0}, r'seed must be 1 to \d+, "random" or None; not 0'),
        ({"seed": True}, "not True"),
        ({"seed": "x"}, "not 'x'"),
        ({"seed": 2**63 - 1, "schedules": 2}, "seed must be"),
        ({"schedules": True}, "schedules must be an int from 1 on, not True"),
        ({"schedules": 0}, "schedules must be an int from 1 on, not 0"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0, or None; not 0"),
        (
            {"preempt_every_call": True},
            "preempt_every_call needs a seed, or schedules, or exhaustive",
        ),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(int, **options)


def test_the_result_and_the_arguments() -> None:
    assert run(divmod, 17, 5) == (3, 2)
    assert run(int, "ff", base=16) == 255
    assert run(lambda seed: seed, 4, seed=1) == 4


# ---- virtual time ----


def test_sleeps_of_hours_end_at_once_and_in_order() -> None:
    def main() -> Trace:
        trace: Trace = []
        began = time.monotonic()

        def wait(hours: float) -> None:
            sleep(hours * 3600)
            trace.append((hours, time.monotonic() - began))

        goroutines = [go(wait, hours) for hours in (3, 0.5, 10_000, 1, 2)]
        for g in goroutines:
            g.join()
        return trace

    expected = [(hours, hours * 3600) for hours in (0.5, 1, 2, 3, 10_000)]
    assert run(main, virtual_time=True) == expected


def test_all_of_golibx_goes_by_virtual_time() -> None:
    def main() -> None:
        began = time.monotonic()

        def elapsed() -> float:
            return time.monotonic() - began

        with pytest.raises(golibx.DeadlineExceeded):
            Chan[int]().recv(timeout=60)
        assert elapsed() == 60
        with pytest.raises(golibx.DeadlineExceeded):
            select(Chan[int]().on_recv(), timeout=60)
        assert elapsed() == 120
        assert select(Chan[int]().on_recv(), after(60).on_recv())[1] == began + 180
        ctx, cancel = context.with_timeout(context.background(), 3600)
        assert ctx.deadline() == began + 180 + 3600
        ctx.done().recv_ok()
        assert elapsed() == 3780
        assert isinstance(ctx.err(), golibx.DeadlineExceeded)
        cancel()
        past, cancel = context.with_deadline(context.background(), began)
        assert isinstance(past.err(), golibx.DeadlineExceeded)
        cancel()
        ticks = tick(60)
        assert [ticks.recv() - began for _ in range(3)] == [3840, 3900, 3960]
        now = elapsed()
        fired: Chan[float] = Chan(1)
        timer = Timer(60, lambda: fired.send(elapsed() - now))
        assert timer.reset(120)
        assert fired.recv() == 120
        assert not timer.stop()
        lock = Mutex()
        lock.lock()
        assert not lock.lock(timeout=5)
        assert not golibx.Event().wait(timeout=5)
        assert elapsed() == now + 120 + 5 + 5

    run(main, virtual_time=True)


def test_the_module_time_goes_by_virtual_time_in_goroutines() -> None:
    real = time.sleep, time.monotonic, time.monotonic_ns, time.time, time.time_ns

    def main() -> None:
        before = time.time(), time.time_ns(), time.monotonic_ns()
        assert abs(before[0] - real[3]()) < 100
        time.sleep(86400)
        assert time.time() - before[0] == pytest.approx(86400)
        assert time.time_ns() - before[1] == time.monotonic_ns() - before[2] == 86400 * 10**9
        with pytest.raises(ValueError, match="sleep length must be non-negative"):
            time.sleep(-1)
        seen: list[float] = []
        thread = threading.Thread(target=lambda: seen.append(time.monotonic()))
        thread.start()
        blocking(thread.join)
        assert seen[0] < time.monotonic() - 80000

    run(main, virtual_time=True)
    assert real == (time.sleep, time.monotonic, time.monotonic_ns, time.time, time.time_ns)


def test_time_stands_still_while_a_goroutine_runs() -> None:
    def main() -> float:
        before = time.monotonic()
        end = time.perf_counter() + 0.01
        while time.perf_counter() < end:
            gosched()
        return time.monotonic() - before

    assert run(main, virtual_time=True) == 0


def test_time_waits_for_blocking_calls_and_threads() -> None:
    """They are at work, and it is not known for how long."""

    def main() -> None:
        began = time.monotonic()
        go_on = threading.Event()
        woken: list[str] = []

        def sleeper() -> None:
            sleep(3600)
            woken.append("sleeper")

        g = go(sleeper)
        threading.Timer(0.05, go_on.set).start()
        blocking(go_on.wait)
        assert not woken
        assert time.monotonic() == began
        g.join()

    run(main, virtual_time=True)


def test_a_deadlock_is_found_in_virtual_time() -> None:
    def main() -> None:
        g = go(sleep, 3600)
        try:
            Chan[int]().recv()
        finally:
            assert g.done()

    with pytest.raises(Deadlock):
        run(main, virtual_time=True)


def test_what_is_sent_within_the_process_arrives_before_time_jumps() -> None:
    def main() -> None:
        listener = net.listen("127.0.0.1:0")

        def serve() -> None:
            conn, _ = listener.accept()
            with conn:
                conn.sendall(conn.recv(10))
                sleep(3600)
                conn.sendall(b"late")

        g = go(serve)
        began = time.monotonic()
        with net.dial(listener.address) as conn:
            conn.settimeout(60)
            conn.sendall(b"hello")
            assert conn.recv(10) == b"hello"
            assert time.monotonic() == began
            with pytest.raises(TimeoutError):
                conn.recv(10)
            assert time.monotonic() == began + 60
            conn.settimeout(None)
            assert conn.recv(10) == b"late"
        g.join()
        listener.close()

    run(main, virtual_time=True)


def test_a_thread_waits_in_real_time() -> None:
    """While the goroutines' clock is ahead by hours."""
    lock = threading.RLock()

    def main() -> None:
        sleep(86400)
        timed_out: list[bool] = []

        def wait() -> None:
            timed_out.append(not lock.acquire(timeout=0.01))

        with lock:
            thread = threading.Thread(target=wait)
            thread.start()
            blocking(thread.join)
        assert timed_out == [True]

    run(main, virtual_time=True, timeout=20)


# ---- limits ----


def hang() -> None:
    go(sleep, 1000)
    Chan[int]().recv(timeout=1000)


def compute() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    "test",
    [
        hang,
        compute,
        lambda: go(compute).join(),
        lambda: blocking(threading.Event().wait, 100),
        lambda: select(),
    ],
    ids=["waits", "computes", "another computes", "blocks", "selects nothing"],
)
@pytest.mark.parametrize(
    "options",
    [{}, {"config": {"preempt": {"async": False}}}, {"seed": 1}],
    ids=["preempted", "not preempted", "seeded"],
)
def test_what_hangs_is_ended(test: Callable[[], None], options: dict[str, object]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    with pytest.raises((TimedOut, Deadlock)) as caught:
        run(test, timeout=0.05, **options)
    assert "goroutine 1 [" in str(caught.value)
    if caught.type is TimedOut:
        assert str(caught.value).startswith("the test passed its time limit of 0.05 s\n\n")
        assert "_Test" not in str(caught.value)
    else:
        assert test not in (hang, compute)


def test_every_goroutine_is_shown() -> None:
    with pytest.raises(TimedOut) as caught:
        run(hang, timeout=0.05)
    text = str(caught.value)
    assert "goroutine 1 [chan receive]" in text
    assert "    hang at " in text
    assert "goroutine 2 [sleep] sleep:\n    created by goroutine 1 at " in text


def test_a_limit_off_the_main_thread() -> None:
    """Where there are no signals."""
    caught: list[BaseException] = []

    def main() -> None:
        try:
            run(hang, timeout=0.05)
        except BaseException as exc:
            caught.append(exc)

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    assert [type(exc) for exc in caught] == [TimedOut]
    assert "    hang at " in str(caught[0])


def test_a_limit_of_somebody_elses_is_kept() -> None:
    heard: list[int] = []
    handler = signal.signal(signal.SIGALRM, lambda signum, frame: heard.append(signum))
    before = signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        run(sleep, 0.001, timeout=500)
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        assert 900 < left < 1000
        assert interval == 0
        signal.setitimer(signal.ITIMER_REAL, 0.01)  # sooner than ours
        with pytest.raises(TimedOut):
            run(lambda: [sleep(0.001) for _ in iter(lambda: bool(heard), True)], timeout=500)
            raise TimedOut
        assert heard
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *before)


@pytest.fixture
def _alarm() -> Iterator[None]:
    """What the test does to the alarm is undone."""
    handler = signal.getsignal(signal.SIGALRM)
    before = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, *before)


class Limit(Exception):
    """What no code expects, and some takes for something else."""


@pytest.mark.usefixtures("_alarm")
@pytest.mark.parametrize("options", [{}, {"seed": 1}], ids=["preempted", "seeded"])
@pytest.mark.parametrize("timeout", [None, 1000])
@pytest.mark.parametrize(
    "test",
    [hang, compute, lambda: go(compute).join(), lambda: blocking(threading.Event().wait, 100)],
    ids=["waits", "computes", "another computes", "blocks"],
)
def test_a_limit_of_somebody_elses_ends_the_test(
    test: Callable[[], None], timeout: float | None, options: dict[str, object]
) -> None:
    """From whatever goroutine its handler is called in."""

    def handler(signum: int, frame: object) -> None:
        raise Limit

    signal.signal(signal.SIGALRM, handler)
    for seconds in (0.05, 0.5, 5):
        signal.setitimer(signal.ITIMER_REAL, seconds)
        with pytest.raises(Limit) as caught:
            run(test, timeout=timeout, **options)
        assert signal.getsignal(signal.SIGALRM) is handler
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
        stacks, *_ = getattr(caught.value, "__notes__", [""])
        if "goroutine 1 [" in stacks:
            break  # otherwise the alarm came before there was one
    assert stacks.startswith("golibx: what the goroutines did\n\ngoroutine 1 [")
    assert "golibx/testing/" not in stacks


@pytest.mark.usefixtures("_alarm")
@pytest.mark.parametrize("again", [False, True])
def test_an_alarm_that_is_no_limit_leaves_the_tests_own(again: bool) -> None:
    heard: list[int] = []

    def handler(signum: int, frame: object) -> None:
        heard.append(signum)
        if again and len(heard) < 3:
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    with pytest.raises(TimedOut):
        run(hang, timeout=0.2)
    assert heard == [signal.SIGALRM] * (3 if again else 1)
    assert signal.getsignal(signal.SIGALRM) is handler


@pytest.mark.usefixtures("_alarm")
def test_an_alarm_that_nobody_handles_or_that_repeats_is_left_alone() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    run(sleep, 0.02, timeout=1000)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
    heard: list[int] = []
    signal.signal(signal.SIGALRM, lambda signum, frame: heard.append(signum))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    run(lambda: [sleep(0.001) for _ in iter(lambda: len(heard) > 2, True)], timeout=1000)
    assert signal.getitimer(signal.ITIMER_REAL)[1] == pytest.approx(0.01)


# ---- leaks ----


def test_leaks_are_named_with_their_place() -> None:
    def main() -> None:
        ch: Chan[int] = Chan()
        go(ch.recv)
        go(sleep, 1000).name = "sleeper"

    with pytest.raises(Leaked) as caught:
        run(main)
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 goroutines were left behind by the test"
    assert lines[2] == "goroutine 2 [chan receive] Chan.recv:"
    assert lines[4].startswith(f"    created by goroutine 1 at {__file__}:")
    assert lines[6] == "goroutine 3 [sleep] sleeper:"
    run(main, leaks=False)


def test_who_is_about_to_end_is_no_leak() -> None:
    def main() -> None:
        ch: Chan[int] = Chan()

        def wait() -> None:
            ch.recv_ok()
            for _ in range(10):
                gosched()
            blocking(time.sleep, 0.01)
            ended.append(True)

        for _ in range(5):
            go(wait)
        gosched()
        ch.close()
        go(gosched)

    ended: list[bool] = []
    run(main)
    assert len(ended) == 5
    run(main, seed=1)
    assert len(ended) == 10


@pytest.mark.parametrize("seed", [None, 1])
def test_who_has_a_message_that_nobody_has_looked_for_is_no_leak(seed: int | None) -> None:
    """As the handler of a connection: the test closes the other end last."""

    def main() -> None:
        with (
            net.listen(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.address),
        ):
            conn, _ = listener.accept()
            handlers.append(go(conn.recv, 1))
            wait_until_parked(*handlers)

    handlers: list[Goroutine[bytes]] = []
    run(main, seed=seed)
    assert [g.result() for g in handlers] == [b""]


def test_a_failure_is_not_a_leak() -> None:
    def main() -> None:
        go(sleep, 1000)
        raise KeyError(1)

    with pytest.raises(KeyError):
        run(main)


# ---- deadlocks ----


def test_a_deadlock_shows_the_test_alone() -> None:
    ch: Chan[int] = Chan()
    with pytest.raises(Deadlock) as caught:
        run(ch.recv)
    lines = str(caught.value).splitlines()
    assert lines[:3] == [
        "all goroutines are asleep - deadlock! (1 goroutine)",
        "",
        "goroutine 1 [chan receive] main:",
    ]
    (waits,) = lines[3:]  # neither golibx's frames nor where golibx started it
    assert waits.startswith("    waits on <Chan ")


def test_a_bystander_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it lives: another thread may have its number after that."""
    began, end = threading.Event(), threading.Event()

    def stand_by() -> None:
        began.set()
        end.wait()

    thread = threading.Thread(target=stand_by)
    thread.start()
    began.wait()
    assert thread.ident is not None
    frame = sys._current_frames()[thread.ident]
    while frame.f_back is not None:
        frame = frame.f_back
    monkeypatch.setattr(threads, "bystanders", {thread.ident: frame})
    try:
        with pytest.raises(Deadlock):
            run(Chan[int]().recv)
    finally:
        end.set()
        thread.join()

    def main() -> int:
        ch: Chan[int] = Chan()
        asleep = threading.Event()

        def send() -> None:
            asleep.wait()
            time.sleep(0.01)  # the main goroutine sleeps by now, and is looked at
            ch.send(1)

        other = threading.Thread(target=send)
        other.start()
        assert other.ident is not None
        # Whether the system has given it the same number or not.
        threads.bystanders[other.ident] = frame
        go(asleep.set)
        return ch.recv()

    assert run(main) == 1


# ---- waiting for what others do ----


@pytest.mark.parametrize("options", [{}, {"seed": 3}, {"virtual_time": True}])
def test_wait_until_lets_others_run(options: dict[str, Any]) -> None:
    def main() -> list[int]:
        log: list[int] = []

        def work(n: int) -> None:
            for _ in range(n):
                gosched()
            sleep(0.001)
            log.append(n)

        for n in range(30):
            go(work, n)
        assert wait_until(lambda: log if len(log) == 30 else None) is log
        return log

    assert sorted(run(main, **options)) == list(range(30))


def test_wait_until_is_the_same_under_a_seed() -> None:
    def main() -> list[int]:
        log: list[int] = []
        for n in range(5):
            go(log.append, n)
        wait_until(lambda: len(log) == 5)
        return log

    assert len({tuple(run(main, seed=seed)) for seed in range(1, 20)}) > 3
    for seed in range(1, 5):
        assert run(main, seed=seed) == run(main, seed=seed)


def test_wait_until_gives_way_to_one_that_computes() -> None:
    def main() -> None:
        done: list[int] = []

        def compute() -> None:
            n = 0
            while n < 300_000:
                n += 1
            done.append(n)

        go(compute)
        assert wait_until(lambda: done) == [300_000]

    run(main)


@pytest.mark.parametrize("in_thread", [False, True])
def test_wait_until_for_threads(in_thread: bool) -> None:
    def main() -> None:
        ch: Chan[int] = Chan()
        log: list[object] = []

        def thread() -> None:
            wait_until(lambda: log == ["waiting"])
            log.append(ch.recv())

        started = threading.Thread(target=thread)
        if in_thread:
            started.start()
        go(lambda: (log.append("waiting"), ch.send(1)))
        if not in_thread:
            started.start()
        wait_until(lambda: log == ["waiting", 1])
        started.join()

    run(main)
    # And outside of any run.
    log: list[int] = []
    other = threading.Thread(target=log.append, args=(1,))
    other.start()
    assert wait_until(lambda: log) == [1]
    other.join()


def test_wait_until_has_a_time_limit() -> None:
    def main() -> None:
        waiting = go(Chan[int]().recv)
        waiting.name = "receiver"
        with pytest.raises(AssertionError, match=r"not so within 0\.01 s") as raised:
            wait_until(lambda: False, timeout=0.01)
        assert "[chan receive] receiver" in str(raised.value)
        with pytest.raises(AssertionError, match="not so within"):
            wait_until_parked(waiting, state="sleep", timeout=0.01)
        waiting.cancel()

    run(main)


def test_wait_until_ends_at_the_limit_of_the_test() -> None:
    with pytest.raises(TimedOut):
        run(wait_until, lambda: False, timeout=0.05)


def test_wait_until_parked() -> None:
    def main() -> None:
        ch: Chan[int] = Chan()

        def work(n: int) -> None:
            for _ in range(n):
                gosched()
            blocking(time.sleep, 0.001)
            ch.recv()

        workers = [go(work, n) for n in range(10)]
        wait_until_parked(*workers, state="chan receive")
        assert {g.state for g in workers} == {"chan receive"}
        for _ in workers:
            ch.send(1)
        workers[0].join()
        with pytest.raises(AssertionError, match=rf"goroutine {workers[0].id} .* has ended"):
            wait_until_parked(workers[0])
        wait_until_parked()

    run(main)


def test_wait_until_passes_on_what_the_condition_raises() -> None:
    def main() -> None:
        with pytest.raises(ZeroDivisionError):
            wait_until(lambda: 1 / 0)

    run(main)
