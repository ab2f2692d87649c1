"""Ctrl-C between any two lines of golibx's own Python code leaves nothing half done."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import golibx
from golibx import (
    Chan,
    Event,
    Goroutine,
    GoroutinePoolExecutor,
    aio,
    context,
    go,
    gosched,
    net,
    run,
    scope,
    select,
    singleflight,
    sync,
)
from golibx import signal as gosignal
from golibx.scope import Scope
from interrupts import Interrupts

pytestmark = [
    pytest.mark.limit(120),
    # The interpreter eats what comes in a finalizer.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> Iterator[None]:
    """The collector leaves out what there is before: it is asked after each of many signals."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def interrupts(tmp_path_factory: pytest.TempPathFactory) -> Interrupts:
    return Interrupts(tmp_path_factory.mktemp("interrupts"))


# ---- each construct ----


def test_once_has_one_outcome(interrupts: Interrupts) -> None:
    """What the first call makes of it, all others get: the value, or that there is none."""

    def check(call: Callable[[], int], raised: BaseException | None) -> None:
        outcomes: list[object] = []
        for _ in range(2):
            try:
                outcomes.append(call())
            except RuntimeError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
        assert outcomes[0] == 5 or "KeyboardInterrupt" in str(outcomes[0])

    interrupts.everywhere(lambda: sync.once(lambda: 5), lambda call: call(), check)


def test_singleflight_keeps_no_key(interrupts: Interrupts) -> None:
    def check(group: singleflight.Group[str, int], raised: BaseException | None) -> None:
        assert not group._calls
        follower = go(group.do, "key", lambda: 2)
        assert follower.result(5) == (2, False)

    interrupts.everywhere(
        singleflight.Group[str, int], lambda group: group.do("key", lambda: 1), check
    )


def test_singleflight_ends_the_waits_of_others(interrupts: Interrupts) -> None:
    """One that has been waiting for the interrupted call makes the next one."""
    State = tuple[singleflight.Group[str, int], list[Goroutine[Any]]]

    def body(state: State) -> None:
        group, waiters = state

        def call() -> int:
            waiters.append(go(group.do, "key", lambda: 2))
            gosched()
            return 1

        group.do("key", call)

    def check(state: State, raised: BaseException | None) -> None:
        group, waiters = state
        for waiter in waiters:
            assert waiter.result(5) in ((1, True), (2, False))
        assert not group._calls

    interrupts.everywhere(lambda: (singleflight.Group(), []), body, check)


class Children:
    """Those of a scope, which wait until they are cancelled."""

    def __init__(self) -> None:
        self.all: list[Goroutine[Any]] = []
        self.outside = context.current()
        self.scope: Scope | None = None

    def wait(self) -> None:
        me = golibx.current()
        assert me is not None
        self.all.append(me)
        Event().wait()

    def check(self, raised: BaseException | None) -> None:
        assert context.current() is self.outside
        assert all(child.done() for child in self.all)
        if self.scope is not None:
            assert not [child for child in self.scope._live if child is not None]


def test_a_scope_leaves_no_child_alive(interrupts: Interrupts) -> None:
    def body(children: Children) -> None:
        with scope() as s:
            children.scope = s
            s.go(children.wait)
            s.go(children.wait)
            gosched()
            s.cancel()

    interrupts.everywhere(Children, body, Children.check)


def test_a_scope_whose_block_raises_leaves_no_child_alive(interrupts: Interrupts) -> None:
    def body(children: Children) -> None:
        try:
            with scope(limit=2, timeout=60) as s:
                children.scope = s
                s.go(children.wait)
                s.go(children.wait)
                gosched()
                raise KeyError("the block's")
        except* KeyError:
            pass

    interrupts.everywhere(Children, body, Children.check)


def test_a_scope_passes_on_what_a_child_raised(interrupts: Interrupts) -> None:
    """An error is not lost where the interrupt comes as the block takes the child's result."""

    def fail() -> None:
        raise LookupError("the child's")

    def body(seen: list[BaseException]) -> None:
        try:
            with scope() as s:
                for _ in s.map(lambda _: fail(), [1]):
                    pass
        except BaseExceptionGroup as errors:
            seen.extend(errors.exceptions)
        except KeyboardInterrupt as error:
            seen.append(error)
            raise

    def check(seen: list[BaseException], raised: BaseException | None) -> None:
        assert len(seen) == 1 or (not seen and raised is not None)
        assert isinstance(seen[0], LookupError | KeyboardInterrupt) if seen else True

    interrupts.everywhere(list, body, check)


def test_a_scopes_places_are_given_back(interrupts: Interrupts) -> None:
    def body(ended: list[int]) -> None:
        with scope(limit=1) as s:
            try:
                s.go(ended.append, 1)
            except KeyboardInterrupt:
                pass
            for _ in range(2):
                s.go(ended.append, 1)

    def check(ended: list[int], raised: BaseException | None) -> None:
        assert raised is not None or len(ended) in (2, 3)

    interrupts.everywhere(list, body, check)


@pytest.mark.parametrize("make", ["with_cancel", "with_cancel_cause", "with_timeout"])
def test_no_context_stays_the_ambient_one(interrupts: Interrupts, make: str) -> None:
    def body(outside: golibx.context.Context) -> None:
        arguments = (60,) if make == "with_timeout" else ()
        with getattr(context, make)(outside, *arguments) as (ctx, _):
            assert context.current() is ctx

    def check(outside: golibx.context.Context, raised: BaseException | None) -> None:
        assert context.current() is outside

    interrupts.everywhere(context.current, body, check)


def test_an_executor_makes_the_calls_that_it_took(interrupts: Interrupts) -> None:
    class State:
        def __init__(self) -> None:
            self.executor = GoroutinePoolExecutor(max_workers=1)
            self.futures: list[Any] = []

    def body(state: State) -> None:
        with state.executor as executor:
            for n in range(3):
                state.futures.append(executor.submit(abs, -n))

    def check(state: State, raised: BaseException | None) -> None:
        state.executor.shutdown()
        assert [future.result(5) for future in state.futures] == [0, 1, 2][: len(state.futures)]
        assert not state.executor._workers
        assert not state.executor._queue

    interrupts.everywhere(State, body, check)


def test_aio_goes_on(interrupts: Interrupts) -> None:
    class State:
        def __init__(self) -> None:
            self.events: list[str] = []

        async def work(self) -> int:
            self.events.append("began")
            try:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            finally:
                self.events.append("ended")
            return 1

    def body(state: State) -> None:
        coroutine = state.work()
        try:
            assert aio.run(coroutine) == 1
        finally:
            coroutine.close()

    def check(state: State, raised: BaseException | None) -> None:
        assert state.events in ([], ["began", "ended"])
        background = aio._of_run._background
        assert background is None or not [t for t in background._tasks if not t.done()]
        assert aio.run(state.work()) == 1

    interrupts.everywhere(State, body, check, step=3)


def test_aio_wait_leaves_nobody_waiting(interrupts: Interrupts) -> None:
    class State:
        def __init__(self) -> None:
            self.loop = asyncio.new_event_loop()
            self.end = Event()

        async def wait(self) -> None:
            await aio.wait(go(self.end.set))

    def body(state: State) -> None:
        state.loop.run_until_complete(state.wait())

    def check(state: State, raised: BaseException | None) -> None:
        for task in asyncio.all_tasks(state.loop):
            task.cancel()
            with suppress(asyncio.CancelledError):
                state.loop.run_until_complete(task)
        assert not aio._of_run.waits
        state.loop.close()
        del raised, state
        gc.collect()

    interrupts.everywhere(State, body, check)


def descriptors() -> set[int]:
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    return {number for number in numbers if is_open(number)}


def is_open(number: int) -> bool:
    """Not so that by which the folder was listed."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def test_net_closes_each_descriptor_once(interrupts: Interrupts) -> None:
    class State:
        def __init__(self) -> None:
            self.listener = net.listen("127.0.0.1:0")
            gc.collect()
            self.before = descriptors()
            self.others: list[int] = []

    def body(state: State) -> None:
        try:
            with net.dial(state.listener.address[:2]) as conn, net.listen("127.0.0.1:0"):
                conn.getsockname()
                conn.getsockopt(6, 1)
        except BaseException:
            # They get the numbers of descriptors that are closed once already.
            state.others = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]
            raise

    def check(state: State, raised: BaseException | None) -> None:
        gc.collect()
        for fd in state.others:
            os.close(fd)
        assert descriptors() <= state.before
        state.listener.close()

    interrupts.everywhere(State, body, check)


def test_signals_have_the_effect_of_the_last_change_or_the_one_before(
    interrupts: Interrupts,
) -> None:
    """What the module knows of a channel is what the system does with the signal."""

    def body(chan: Chan[signal.Signals]) -> None:
        gosignal.notify(chan, signal.SIGUSR1)
        gosignal.stop(chan)
        gosignal.ignore(signal.SIGUSR1)
        gosignal.reset(signal.SIGUSR1)

    def check(chan: Chan[signal.Signals], raised: BaseException | None) -> None:
        if signal.SIGUSR1 in gosignal._channels:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert chan.recv(5) == signal.SIGUSR1
        elif signal.SIGUSR1 in gosignal._ignored:
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            came: list[int] = []
            old = signal.signal(signal.SIGUSR1, lambda n, _: came.append(n))
            signal.raise_signal(signal.SIGUSR1)
            assert came == [signal.SIGUSR1]
            signal.signal(signal.SIGUSR1, old)
        gosignal.reset()

    interrupts.everywhere(lambda: Chan(1), body, check, step=7)


def test_select_and_timers(interrupts: Interrupts) -> None:
    def body(ch: Chan[int]) -> None:
        ctx, cancel = context.with_timeout(context.current(), 60)
        ticker = golibx.Ticker(60)
        try:
            go(ch.send, 1)
            index, value, ok = select(ticker.on_fire(), ch.on_recv(), ctx.done().on_recv())
            assert (index, value, ok) == (1, 1, True)
        finally:
            ticker.stop()
            cancel()

    def check(ch: Chan[int], raised: BaseException | None) -> None:
        pass

    interrupts.everywhere(lambda: Chan(1), body, check)


# ---- handlers of the program's ----


class Alarm(Exception):
    pass


def test_a_handler_may_do_what_it_interrupts(interrupts: Interrupts) -> None:
    """It is called where golibx has no lock that it wants, and what it raises comes there."""

    class State:
        def __init__(self) -> None:
            self.executor = GoroutinePoolExecutor(max_workers=1)
            self.group: singleflight.Group[str, int] = singleflight.Group()
            self.called = 0
            signal.signal(signal.SIGUSR1, self.handle)

        def handle(self, number: int, frame: object) -> None:
            self.called += 1
            assert self.executor.submit(abs, -1).result() == 1
            assert self.group.do("other", lambda: 1) == (1, False)
            raise Alarm

    def body(state: State) -> None:
        assert state.executor.submit(abs, -2).result() == 2
        assert state.group.do("key", lambda: 2) == (2, False)
        state.group.forget("key")

    def check(state: State, raised: BaseException | None) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        assert state.called == (raised is not None)
        state.executor.shutdown()
        assert not state.group._calls

    interrupts.everywhere(State, body, check, number=signal.SIGUSR1, raises=Alarm)


def test_a_socket_that_is_closed_meanwhile_is_not_another_one(interrupts: Interrupts) -> None:
    """Its number may be that of the next descriptor at once."""

    class State:
        def __init__(self) -> None:
            self.conn = net.listen("127.0.0.1:0")
            with socket.socket(fileno=os.dup(self.conn.fileno())) as same:
                self.name = same.getsockname()
            self.next: Any = None
            signal.signal(signal.SIGUSR1, self.close)

        def close(self, number: int, frame: object) -> None:
            fd = self.conn.fileno()
            self.conn.close()
            self.next = net.listen("[::1]:0")
            assert self.next.fileno() == fd

    def body(state: State) -> None:
        conn = state.conn
        with suppress(OSError):
            assert conn.address == state.name
            assert conn.family == socket.AF_INET
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def check(state: State, raised: BaseException | None) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        if state.next is not None:
            assert state.next.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
            state.next.close()
        state.conn.close()

    interrupts.everywhere(State, body, check, number=signal.SIGUSR1, raises=Alarm)


# ---- the run itself ----


def test_a_run_that_is_interrupted_leaves_nothing_behind(interrupts: Interrupts) -> None:
    """At any line of its beginning or end: the next run finds all as it was."""
    run(gosched)
    gc.collect()
    before = (signal.getsignal(signal.SIGINT), descriptors())
    n = 1
    began: list[int] = []
    ended: list[int] = []

    def one_turn() -> None:
        for _ in range(2):  # the interpreter looks for signals here
            gosched()

    def main() -> None:
        def waits() -> None:
            try:
                Event().wait()
            finally:
                one_turn()  # its end takes more than that
                ended.append(1)

        go(waits)
        gosched()
        began.append(1)

    def reaches(n: int) -> bool:
        ended.clear()
        began.clear()
        reached = True
        try:
            reached = interrupts.once(n, signal.SIGINT, lambda: run(main))
        except KeyboardInterrupt:
            pass
        assert len(ended) >= len(began), f"a goroutine was left at opcode {n}"
        assert run(lambda: 5) == 5
        assert (signal.getsignal(signal.SIGINT), descriptors()) == before, f"at opcode {n}"
        return reached

    while reaches(n):
        n += 61
    assert n > 1000
    # Where the run ends, there are points of which the interpreter looks for signals late.
    for closer in range(n - 800, n, 5):
        reaches(closer)
