"""Schedules of golibx.testing: all of them, one after the other, smaller, and again."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

import golibx
from conftest import Script
from golibx import Chan, Deadlock, Mutex, after, go, gosched, schedules, select, sleep, testing
from golibx.schedules import Choice
from golibx.testing import Explored, Leaked, WrongSchedule, run


@pytest.fixture(autouse=True)
def _time_to_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failure is made into does not depend on how busy the machine is."""
    monkeypatch.setattr(testing, "_SHRINK_S", 1e9)


def failure(test: Callable[[], object], **options: object) -> tuple[BaseException, str]:
    """What a test raises, and the schedule that its note names."""
    with pytest.raises((Exception, Deadlock)) as caught:
        run(test, **options)  # type: ignore[call-overload]
    for note in caught.value.__notes__:
        if note.startswith('golibx: schedule="'):
            return caught.value, note.split('"')[1]
    raise AssertionError(caught.value.__notes__)


# ---- all schedules ----


def test_every_beginning_is_met_once_and_the_cheap_ones_first() -> None:
    """Against all leaves of a tree, gone through as one would."""

    def options_after(taken: tuple[int, ...]) -> tuple[int, int] | None:
        """How many options there are, and how many of them cost nothing."""
        if len(taken) == 5 or (len(taken) == 3 and taken[0] == 1):
            return None
        options = 2 + (sum(taken) + len(taken)) % 3
        return options, 1 + len(taken) % options

    def leaves(taken: tuple[int, ...], cost: int, most: int) -> Iterator[tuple[int, ...]]:
        if (of := options_after(taken)) is None:
            yield taken
            return
        for option in range(of[0]):
            if cost + (option >= of[1]) <= most:
                yield from leaves((*taken, option), cost + (option >= of[1]), most)

    for most in range(4):
        seen: list[tuple[int, ...]] = []
        costs: list[int] = []

        def follow(plan: bytes, seen: list[tuple[int, ...]] = seen) -> bytes:
            planned = schedules.unpack(plan)
            made: list[Choice] = []
            while of := options_after(tuple(c.taken for c in made)):
                taken = planned[len(made)].taken if len(made) < len(planned) else 0
                made.append(Choice(0, *of, taken))
            seen.append(tuple(c.taken for c in made))
            costs.append(schedules.preemptions(made))
            return schedules.pack(made)

        assert list(schedules.every(most, follow)) == sorted(costs)
        assert sorted(seen) == sorted(leaves((), 0, most))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_all_orders_are_seen(count: int) -> None:
    orders: list[tuple[int, ...]] = []

    def test() -> None:
        order: list[int] = []
        for g in [go(order.append, number) for number in range(count)]:
            g.join()
        orders.append(tuple(order))

    explored = run(test, exhaustive=0)
    assert explored == Explored(len(orders), complete=True, preemptions=0)
    assert set(orders) == set(itertools.permutations(range(count)))
    assert str(explored) == f"all {len(orders)} schedules with at most 0 preemptions"


def increments() -> None:
    """A lost update, where a goroutine is preempted between two calls."""
    box: Chan[int] = Chan(9)
    counted = [0]

    def increment() -> None:
        value = counted[0]
        box.send(1)
        counted[0] = value + 1

    for g in [go(increment), go(increment)]:
        g.join()
    assert counted[0] == 2


def three_turns() -> None:
    """What is wrong only if they take turns: each is preempted, and the first one once more."""
    box: Chan[int] = Chan(9)
    state = [0]

    def looks() -> None:
        seen = []
        for _ in range(3):
            seen.append(state[0])
            box.send(1)
        assert seen != [0, 1, 2]

    def changes() -> None:
        state[0] = 1
        box.send(1)
        state[0] = 2

    g, other = go(looks), go(changes)
    other.join()
    g.result()


@pytest.mark.parametrize(("test", "needed"), [(increments, 1), (three_turns, 3)])
def test_what_needs_so_many_preemptions_is_found_with_them(
    test: Callable[[], None], needed: int
) -> None:
    assert run(test, exhaustive=needed - 1, preempt_every_call=True).complete
    assert run(test, exhaustive=needed + 1).complete  # without points there is nothing to preempt
    exc, schedule = failure(test, exhaustive=needed + 1, preempt_every_call=True)
    notes = [note for note in exc.__notes__ if note.startswith("golibx: ")]
    assert notes[0].startswith("golibx: this was schedule ")
    preemptions = "1 preemption" if needed == 1 else f"{needed} preemptions"
    assert [note.endswith(f"with {preemptions}") for note in notes] == [True, True]
    with pytest.raises(AssertionError):
        run(test, schedule=schedule)


def late_answer() -> None:
    """The sender is slower than the time-out, though it need not be."""
    answer: Chan[int] = Chan()

    def handle() -> None:
        sleep(0.5)
        answer.send(1)

    go(handle)
    select(answer.on_recv(), after(1).on_recv())


def test_an_early_timer_is_a_choice_that_costs() -> None:
    options = {"virtual_time": True, "preempt_every_call": True}
    assert run(late_answer, exhaustive=0, **options).complete
    assert run(late_answer, exhaustive=2, early_timers=False, **options).complete
    exc, schedule = failure(late_answer, exhaustive=1, **options)
    assert isinstance(exc, Leaked)
    assert "t1/2" in schedule


def test_all_cases_of_a_select_and_all_timers_of_an_instant_are_taken() -> None:
    taken: set[int] = set()
    woken: set[tuple[int, ...]] = set()

    def test() -> None:
        full: list[Chan[int]] = [Chan(1) for _ in range(4)]
        for ch in full[1:]:
            ch.send(1)
        taken.add(select(*(ch.on_recv() for ch in full))[0])
        order: list[int] = []

        def wait(number: int) -> None:
            sleep(1)
            order.append(number)

        for g in [go(wait, number) for number in range(3)]:
            g.join()
        woken.add(tuple(order))

    assert run(test, exhaustive=0, virtual_time=True).complete
    assert taken == {1, 2, 3}
    assert woken == set(itertools.permutations(range(3)))


def test_goroutines_that_wait_in_a_loop_are_no_end_of_schedules() -> None:
    def test() -> None:
        done: list[int] = []

        def wait() -> None:
            while not done:
                gosched()

        goroutines = [go(wait), go(wait), go(done.append, 1)]
        for g in goroutines:
            g.join()

    assert run(test, exhaustive=1, schedules=5000).complete


def test_one_that_calls_without_end_is_preempted() -> None:
    """Without a choice: what happens by itself lets the others run as well."""

    def test() -> None:
        lock = Mutex()
        lock.lock()

        def spin() -> None:
            while not lock.try_lock():
                pass

        g = go(spin)
        gosched()
        lock.unlock()
        g.join()

    assert run(test, exhaustive=0, preempt_every_call=True, schedules=5000).complete


def test_the_limit_is_told() -> None:
    def test() -> None:
        for g in [go(gosched) for _ in range(6)]:
            g.join()

    with pytest.warns(
        RuntimeWarning, match="golibx: saw the first 20 schedules with at most 2 pre"
    ):
        explored = run(test, exhaustive=2, schedules=20, preempt_every_call=True)
    assert explored == Explored(20, complete=False, preemptions=2)


def test_a_test_that_is_not_the_same_again_is_told() -> None:
    numbers = itertools.count()

    def test() -> None:
        for g in [go(gosched) for _ in range(2 + next(numbers) % 3)]:
            g.join()

    with pytest.raises(WrongSchedule, match="does not do the same under the same choices"):
        run(test, exhaustive=1)


# ---- again ----


class Seen(Exception):
    """What a run has done."""


def traced() -> None:
    """Ends with all that happened, in order."""
    trace: list[object] = []
    ch: Chan[int] = Chan(1)
    lock = Mutex()

    def work(name: str) -> None:
        for number in range(3):
            index, _, _ = select(ch.on_send(number), ch.on_recv(), after(0.1).on_recv())
            trace.append((name, index))
            with lock:
                trace.append(name)
            sleep(0.1)

    for g in [go(work, name) for name in "abc"]:
        g.join()
    raise Seen(str(trace))


@pytest.mark.parametrize("seed", range(1, 21))
def test_the_choices_alone_make_a_run_again(seed: int) -> None:
    """Whatever strategy drew them."""
    options = {"preempt_every_call": True, "virtual_time": True}
    exc, schedule = failure(traced, seed=seed, **options)
    for _ in range(2):
        with pytest.raises(Seen) as again:
            run(traced, schedule=schedule)
        assert str(again.value) == str(exc)
        assert again.value.__notes__ == [f"golibx: this was schedule {schedule}"]


def test_a_schedule_has_its_options_with_it() -> None:
    _, schedule = failure(late_answer, seed=1, schedules=50, virtual_time=True)
    assert schedule.startswith("1vt:")
    with pytest.raises(Leaked):
        run(late_answer, schedule=schedule, early_timers=False, preempt_every_call=True)


@pytest.mark.parametrize(
    "text",
    [
        *("", "1cv", "1cv:", "1vc:~0000", "2cv:~0000", "1x:~0000", "1cv:c1/2~000", "1cv:c1/2"),
        *("1cv:c/2~0000", "1cv:q1/2~0000", "1cv:c1/2.~0000", "1cv:c1/2..c1/2~0000"),
        *("1cv:c2/2~0000", "1cv:c0/2~0000", "1cv:99999c1/2~0000", "1cv:c1/99999~0000"),
    ],
)
def test_what_is_no_schedule_is_told(text: str) -> None:
    with pytest.raises(WrongSchedule) as caught:
        run(int, schedule=text)
    assert repr(text) in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_schedule_of_another_program_is_told() -> None:
    _, schedule = failure(increments, seed=1, schedules=50, preempt_every_call=True)

    def without_box() -> None:
        for g in [go(gosched), go(gosched), go(gosched)]:
            g.join()

    with pytest.raises(WrongSchedule, match="is not one of this program as it is now: choice"):
        run(without_box, schedule=schedule)
    with pytest.raises(WrongSchedule, match=r"it has \d+ choices, and the program 0"):
        run(int, schedule=schedule)
    head, _, _ = schedule.partition("~")
    with pytest.raises(WrongSchedule, match="choices before its last one are others"):
        run(increments, schedule=f"{head}~ffff")

    def fails() -> None:
        raise KeyError(1)

    with pytest.raises(WrongSchedule) as caught:
        run(fails, schedule=schedule)
    assert isinstance(caught.value.__context__, KeyError)


# ---- smaller ----


def noisy() -> None:
    """A race of two goroutines among others that have nothing to do with it."""
    box: Chan[int] = Chan(9)
    lock = Mutex()

    def noise() -> None:
        for _ in range(6):
            with lock:
                gosched()

    others = [go(noise) for _ in range(3)]
    counted = [0]

    def increment() -> None:
        value = counted[0]
        box.send(1)
        counted[0] = value + 1

    for g in [go(increment), go(increment), *others]:
        g.join()
    assert counted[0] == 2


@pytest.mark.parametrize("seed", [1, 100])
def test_what_has_nothing_to_do_with_it_is_left_out(seed: int) -> None:
    exc, schedule = failure(noisy, seed=seed, schedules=100, preempt_every_call=True)
    assert exc.__notes__[-1].endswith("with 1 preemption")
    assert schedule.count("/") <= 3
    found = int(exc.__notes__[0].split()[4])
    _, whole = failure(noisy, seed=found, preempt_every_call=True)
    assert whole.count("/") > schedule.count("/")  # one schedule alone is not made smaller
    assert failure(noisy, seed=found, preempt_every_call=True, shrink=True)[1] == schedule


def test_another_failure_is_not_taken_for_this_one() -> None:
    """Without a preemption it fails too, elsewhere."""

    def test() -> None:
        try:
            increments()
        except AssertionError:
            raise KeyError(1) from None
        raise KeyError(2)

    for seed in range(1, 100):
        exc, schedule = failure(test, seed=seed, preempt_every_call=True, shrink=True)
        with pytest.raises(KeyError) as again:
            run(test, schedule=schedule)
        assert again.value.args == exc.args
        if exc.args == (1,):
            assert schedule.count("/") == 1
            return
    pytest.fail("no seed has shown the race")


def test_the_runs_that_make_it_smaller_are_not_heard(capfd: pytest.CaptureFixture[str]) -> None:
    runs = itertools.count(1)

    def test() -> None:
        print("run", next(runs))
        go(lambda: 1 // 0)  # a panic, which is printed as well
        increments()

    exc, _ = failure(test, seed=1, schedules=50, preempt_every_call=True)
    number = int(exc.__notes__[0].split("(schedule ")[1].split()[0])
    out, err = capfd.readouterr()
    assert out.splitlines() == [f"run {i + 1}" for i in range(number)]
    assert err.count("panicked") <= number < next(runs) - 1


def test_what_its_choices_do_not_decide_is_told() -> None:
    runs = itertools.count()

    def test() -> None:
        go(gosched).join()
        assert next(runs) != 3

    with pytest.raises(AssertionError) as caught:
        run(test, schedules=10)
    assert caught.value.__notes__[0] == "golibx: this was seed 4 (schedule 4 of 10)"
    assert caught.value.__notes__[1].startswith("golibx: the same choices do not make it again")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exhaustive": -1}, "exhaustive must be how many preemptions there may be, .* not -1"),
        ({"exhaustive": True}, "not True"),
        ({"exhaustive": 1, "seed": 1}, "seed and exhaustive exclude each other"),
        ({"schedule": "1:~0000", "exhaustive": 1}, "exhaustive and schedule exclude each other"),
        ({"schedule": "1:~0000", "schedules": 2}, "schedule and schedules exclude each other"),
        ({"schedule": 1}, "schedule must be the text of one, not 1"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(int, **options)


# ---- each begins anew ----


SEVERAL = [{"schedules": 4}, {"exhaustive": 0}]


@pytest.mark.parametrize("several", SEVERAL, ids=["seeds", "exhaustive"])
def test_every_schedule_begins_as_the_first(several: dict[str, int]) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen: list[object] = []

    def test() -> None:
        main = golibx.current()
        assert main is not None
        stats = golibx.stats()
        begun = [stats[name] for name in ("goroutines", "spawns", "switches", "threads")]
        g = go(variable.set, 2)
        seen.append((main.id, g.id, begun, time.monotonic() % 1, variable.get()))
        variable.set(1)
        go(gosched)
        sleep(0.25)
        g.join()

    run(test, virtual_time=True, **several)
    assert len(seen) >= 2
    assert all(each == seen[0] for each in seen), seen


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_the_threads_are_those_of_one_run(script: Script) -> None:
    """In a process of its own: where a goroutine was given up before, nothing is kept."""
    code = """
import os
from golibx import go, gosched
from golibx.testing import run

seen = []

def test():
    seen.append(set(os.listdir("/proc/self/task")))
    go(gosched).join()

run(test, schedules=5)
assert all(each == seen[0] for each in seen), seen
"""
    script.passes(code)


def test_what_one_schedule_leaves_does_not_reach_the_next() -> None:
    """A goroutine that will not end, a timer, a panic, a signal's handler, its descriptor."""
    left: list[str] = []
    numbers = itertools.count()
    go_on = [False]

    def stubborn() -> None:
        while not go_on[0]:
            with contextlib.suppress(golibx.Cancelled):
                sleep(0.001)
        left.append("ran on")

    def test() -> None:
        number = next(numbers)
        assert golibx.num_goroutine() == 1
        if number == 0:
            go(stubborn)
        elif number == 1:
            golibx.Timer(0.01, lambda: left.append("timer"))
        elif number == 2:
            go(lambda: 1 // 0)
        elif number == 3:
            signal.signal(signal.SIGUSR1, lambda *_: None)
            signal.set_wakeup_fd(-1)
        else:
            sleep(0.02)
            if number == 5:
                Chan[int]().recv()  # no goroutine will ever send

    before = signal.getsignal(signal.SIGUSR1)
    try:
        with pytest.raises(Deadlock):
            run(
                test,
                schedules=8,
                leaks=False,
                timeout=20,
                config={"runtime": {"shutdown_timeout": "20ms"}},
            )
    finally:
        go_on[0] = True
        signal.signal(signal.SIGUSR1, before)
    assert not left


def test_each_has_the_whole_limit() -> None:
    """And what one took is not missing to the next."""

    runs: list[None] = []

    def test() -> None:
        sleep(0.03)
        runs.append(None)

    run(test, schedules=8, timeout=0.2)
    assert len(runs) == 8


def test_a_run_after_schedules_is_a_plain_one() -> None:
    run(gosched, schedules=3, preempt_every_call=True, virtual_time=True)

    def plain() -> float:
        began = time.monotonic()
        sleep(0.01)
        ran: list[int] = []
        g = go(ran.append, 1)
        for _ in range(100):
            golibx.num_goroutine()
        assert not ran or golibx.stats()["preemptions"]
        g.join()
        return time.monotonic() - began

    assert golibx.run(plain) >= 0.01
