"""leaks(): which goroutines it finds, and above all which it does not."""

from __future__ import annotations

import asyncio
import ctypes
import dis
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import (
    Barrier,
    Chan,
    Cond,
    Event,
    Goroutine,
    Mutex,
    RecvChan,
    RWMutex,
    Semaphore,
    SendChan,
    Ticker,
    Timer,
    WaitGroup,
    _core,
    after,
    context,
    current,
    go,
    gosched,
    leaked,
    leaks,
    native,
    select,
    sleep,
)
from golibx.net import listen
from leaking import counts_references_of_c_code, parked, receive

pytestmark = pytest.mark.goroutine(preempt={"async": False}, leaks=False)

GLOBAL: Chan[int] = Chan()


@pytest.fixture(autouse=True)
def _no_garbage() -> None:
    gc.collect()


def names() -> set[str]:
    return {g.name.rpartition(".")[2] for g in leaks()}


# ---- which are leaked ----


def test_a_worker_waiting_on_a_channel_that_nobody_else_has() -> None:
    def start() -> Goroutine[int]:
        return go(receive, Chan[int]())

    g = start()
    parked(g)
    assert leaks() == [g]


def test_with_the_free_lists_of_modules() -> None:
    """_asyncio traverses its own free lists, where objects have no references."""

    async def several() -> None:
        futures = [asyncio.get_running_loop().create_future() for _ in range(5)]
        waits = [asyncio.ensure_future(wait(future)) for future in futures]
        await asyncio.sleep(0)
        for future in futures:
            future.set_result(None)
        await asyncio.gather(*waits)

    async def wait(future: asyncio.Future[None]) -> None:
        await future

    asyncio.run(several())
    g = go(receive, Chan[int]())
    parked(g)
    assert leaks() == [g]


def make_local() -> None:
    ch: Chan[int] = Chan()
    ch.recv()


def make_temporary() -> None:
    Chan[int]().recv()


def make_send() -> None:
    Chan[int]().send(1)


def make_loop() -> None:
    for _ in Chan[int]():
        pass


def make_inner_loops() -> None:
    ch: Chan[int] = Chan()
    for _ in range(3):
        for _ in [[1], [2]]:
            print(1, 2, ch.recv(), sep="")


def make_with() -> None:
    ch: Chan[int] = Chan()
    with threading.Lock():
        try:
            ch.recv()
        finally:
            ch.close()


def make_after_exception() -> None:
    ch: Chan[int] = Chan()
    try:
        raise ValueError
    except ValueError as exc:
        ch.send(len(exc.args))


def make_select() -> None:
    select(Chan[int]().on_recv(), None, Chan[int]().on_send(1))


def make_select_of_many() -> None:
    channels = [Chan[int]() for _ in range(20)]
    cases = [ch.on_recv() for ch in channels]
    select(*cases)


def make_select_of_a_tuple() -> None:
    cases = tuple(Chan[int]().on_recv() for _ in range(3))
    select(*cases)


def make_select_of_nothing() -> None:
    select()


def make_wait_group() -> None:
    group = WaitGroup()
    group.add()
    group.wait()


def make_mutex() -> None:
    mutex = Mutex()
    mutex.lock()
    mutex.lock()


def make_rwmutex() -> None:
    mutex = RWMutex()
    mutex.rlock()
    mutex.lock()


def make_cond() -> None:
    cond = Cond()
    with cond:
        cond.wait()


def make_semaphore() -> None:
    semaphore = Semaphore(2)
    semaphore.acquire(2)
    semaphore.acquire()


def make_event() -> None:
    Event().wait()


def make_barrier() -> None:
    Barrier(2).wait()


def make_method() -> None:
    recv = Chan[int]().recv
    recv()


def make_keyword() -> None:
    ch: Chan[int] = Chan()
    ch.recv(timeout=None)


def make_star() -> None:
    ch: Chan[int] = Chan()
    options: dict[str, Any] = {"timeout": None}
    ch.send(*[1], **options)


def make_container() -> None:
    holder = {"channels": [(Chan[int](),)]}
    holder["self"] = [holder]  # type: ignore[list-item]
    holder["channels"][0][0].recv()


def make_reader() -> None:
    mutex = RWMutex()
    mutex.lock()
    reader = mutex.reader()
    reader.lock()


def make_cond_of_a_reader() -> None:
    reader = RWMutex().reader()
    cond = Cond(reader)
    with cond:
        cond.wait()


def make_stopped_timer() -> None:
    timer = Timer(1000)
    timer.stop()
    timer.c.recv()


def make_select_of_a_stopped_timer() -> None:
    timer = Timer(1000)
    timer.stop()
    select(timer.c.on_recv(), Chan[int]().on_recv())


def make_local_class() -> None:
    class Here:
        ch: Chan[int] = Chan()

    Here.ch.recv()


def make_list_of_arguments() -> None:
    receive(*[Chan[int]()])


def make_under_a_context() -> None:
    ctx, _ = context.with_cancel(context.background())
    del _
    with ctx:
        Chan[int]().recv()


def make_under_a_value_of_a_context() -> None:
    ctx, _ = context.with_cancel(context.background())
    del _
    with context.with_value(ctx, "key", 1):
        Chan[int]().recv()


def make_end_of_a_context() -> None:
    ctx, _ = context.with_cancel(context.background())
    del _
    ctx.done().recv_ok()


def make_nested_calls() -> None:
    def a(ch: Chan[int]) -> int:
        return b(ch) + 1

    def b(ch: Chan[int]) -> int:
        def c() -> int:
            return ch.recv()

        return c()

    a(Chan())


def make_object() -> None:
    class Worker:
        def __init__(self) -> None:
            self.inbox: Chan[int] = Chan()

        def run(self) -> None:
            while True:
                self.inbox.recv()

    Service().run(Worker)


class Service:
    def __init__(self) -> None:
        self.inbox: Chan[int] = Chan()

    def run(self, _: object = None) -> None:
        while True:
            self.inbox.recv()


SHAPES = [value for name, value in sorted(globals().items()) if name.startswith("make_")]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda f: f.__name__)
def test_every_way_to_be_leaked(shape: Callable[[], None]) -> None:
    g = go(shape)
    parked(g)
    assert leaks() == [g]


def test_the_function_that_go_was_given() -> None:
    ch: Chan[int] = Chan()
    goroutines = [go(Chan[int]().recv), go(Service().run), go(lambda ch=ch: ch.recv())]
    del ch
    parked(*goroutines)
    assert leaks() == goroutines


def test_a_closure_whose_handle_is_held() -> None:
    def start() -> Goroutine[int]:
        ch: Chan[int] = Chan()
        return go(lambda: ch.recv())

    g = start()
    parked(g)
    assert leaks() == [g]


def cycle() -> tuple[Goroutine[None], Goroutine[None]]:
    a: Chan[int] = Chan()
    b: Chan[int] = Chan()

    def one() -> None:
        a.recv()
        b.send(1)

    def two() -> None:
        b.recv()
        a.send(1)

    return go(one), go(two)


def test_two_that_wait_for_each_other() -> None:
    goroutines = cycle()
    parked(*goroutines)
    assert leaks() == list(goroutines)


def test_those_who_wait_for_the_leaked() -> None:
    g = go(make_local)
    joins = go(g.join)
    group = WaitGroup()
    in_group = group.go(make_local)
    waits = go(group.wait)
    del group
    parked(g, joins, in_group, waits)
    assert leaks() == [g, joins, in_group, waits]


def test_the_main_goroutine_may_be_leaked() -> None:
    found: list[str] = []
    main = current()
    assert main is not None

    def looks() -> None:
        parked(main)
        found.extend(names())
        main.cancel()

    go(looks)
    with pytest.raises(golibx.Cancelled):
        make_local()
    assert found == [main.name.rpartition(".")[2]]


def test_once_a_reference_goes_a_goroutine_is_leaked() -> None:
    ch: Chan[int] = Chan()
    g = go(receive, ch)
    parked(g)
    assert leaks() == []
    del ch
    assert leaks() == [g]


def test_many() -> None:
    goroutines = [go(make_local) for _ in range(2000)]
    for g in goroutines:
        parked(g)
    assert len(leaks()) == 2000


# ---- which are not ----


def test_a_global_holds_the_channel() -> None:
    g = go(receive, GLOBAL)
    parked(g)
    assert leaks() == []
    g.cancel()


@pytest.mark.parametrize(
    "shape", [f for f in SHAPES if f is not make_select_of_nothing], ids=lambda f: f.__name__
)
def test_a_reference_of_c_code_counts(shape: Callable[[], None]) -> None:
    g = go(shape)
    parked(g)
    counts_references_of_c_code(g)


def test_a_running_goroutine_has_it() -> None:
    ch: Chan[int] = Chan()
    g = go(receive, ch)
    parked(g)
    assert leaks() == []
    ch.send(1)


def test_a_sleeping_goroutine_has_it() -> None:
    ch: Chan[int] = Chan()

    def sends_later(ch: Chan[int]) -> None:
        sleep(1000)
        ch.send(1)

    g, h = go(receive, ch), go(sends_later, ch)
    del ch
    parked(g, h)
    assert leaks() == []
    h.cancel()
    h.join()
    del h  # its exception has the frame
    assert leaks() == [g]


def test_a_chain_of_parked_goroutines_ends_in_one_that_is_alive() -> None:
    a, b, c = Chan[int](), Chan[int](), Chan[int]()

    def passes_on(source: Chan[int], target: Chan[int]) -> None:
        target.send(source.recv())

    goroutines = [go(receive, c), go(passes_on, b, c), go(passes_on, a, b)]
    del b, c
    parked(*goroutines)
    assert leaks() == []
    del a
    assert leaks() == goroutines


def test_a_goroutine_at_a_socket_has_it() -> None:
    ch: Chan[int] = Chan()
    with listen(("127.0.0.1", 0)) as listener:

        def accepts(ch: Chan[int]) -> None:
            listener.accept()
            ch.send(1)

        g, h = go(receive, ch), go(accepts, ch)
        del ch
        parked(g, h)
        assert leaks() == []
        h.cancel()
        h.join()
        del h  # its exception has the frame
        assert leaks() == [g]


def test_a_wait_with_a_timeout_ends() -> None:
    def waits() -> None:
        Chan[int]().recv(1000)

    g, h = go(waits), go(lambda: select(Chan[int]().on_recv(), timeout=1000))
    parked(g, h)
    assert leaks() == []


def test_joining_what_is_alive() -> None:
    sleeps = go(sleep, 1000)
    group = WaitGroup()
    group.go(sleep, 1000)
    goroutines = [go(sleeps.join), go(group.wait)]
    del group
    parked(*goroutines)
    assert leaks() == []


def make_receive_from_a_timer() -> None:
    after(1000).recv()


def make_select_with_a_timer() -> None:
    select(Chan[int]().on_recv(), after(1000).on_recv())


def make_select_of_a_ticker() -> None:
    select(Ticker(1000).on_fire())


def make_select_with_a_listener() -> None:
    with listen("127.0.0.1:0") as listener:
        select(Chan[int]().on_recv(), listener.on_accept())


def make_select_with_a_native_channel() -> None:
    select(Chan[int]().on_recv(), native.Chan(ctypes.c_int).on_recv())


@pytest.mark.parametrize(
    "shape",
    [
        make_receive_from_a_timer,
        make_select_with_a_timer,
        make_select_of_a_ticker,
        make_select_with_a_listener,
        make_select_with_a_native_channel,
    ],
    ids=lambda f: f.__name__,
)
def test_what_others_than_goroutines_can_end(shape: Callable[[], None]) -> None:
    g = go(shape)
    parked(g)
    assert leaks() == []
    g.cancel()


def test_a_select_that_waits_for_an_end() -> None:
    sleeps, never_ends = go(sleep, 1000), go(receive, Chan[int]())
    alive = go(lambda: select(Chan[int]().on_recv(), sleeps.on_done()))
    stuck = go(lambda: select(Chan[int]().on_recv(), never_ends.on_done()))
    parked(sleeps, never_ends, alive, stuck)
    assert set(leaks()) == {never_ends, stuck}


def test_one_direction_of_a_channel() -> None:
    ch: Chan[int] = Chan()

    def receives(view: RecvChan[int]) -> None:
        view.recv()

    def selects(view: SendChan[int]) -> None:
        select(view.on_send(1), None)

    g, h = go(receives, ch.receiver()), go(selects, Chan[int]().sender())
    parked(g, h)
    assert leaks() == [h]
    view = ch.sender()
    del ch
    assert leaks() == [h]
    del view
    assert set(leaks()) == {g, h}


def test_one_case_of_a_select_that_is_alive() -> None:
    ch: Chan[int] = Chan()

    def selects(ch: Chan[int]) -> None:
        select(Chan[int]().on_recv(), ch.on_recv())

    g = go(selects, ch)
    parked(g)
    assert leaks() == []
    del ch
    assert leaks() == [g]


def test_a_weak_reference_may_come_back() -> None:
    ch: Chan[int] = Chan()
    weak = weakref.ref(ch)
    g = go(receive, ch)
    del ch
    parked(g)
    assert leaks() == []
    del weak
    assert leaks() == [g]


def test_a_weak_reference_to_what_has_the_channel() -> None:
    service = Service()
    weak = weakref.WeakSet([service])
    g = go(service.run)
    del service
    parked(g)
    assert leaks() == []
    del weak
    assert leaks() == [g]


def test_a_thread_has_it() -> None:
    ch: Chan[int] = Chan()
    g = go(receive, ch)
    stop = threading.Event()

    def in_thread(ch: Chan[int]) -> None:
        stop.wait()
        ch.try_send(1)

    thread = threading.Thread(target=in_thread, args=(ch,))
    thread.start()
    del ch
    parked(g)
    assert leaks() == []
    stop.set()
    thread.join()
    g.join()


def test_a_generator_and_an_object_in_a_cycle_keep_it() -> None:
    ch: Chan[int] = Chan()

    def generate(ch: Chan[int]) -> Iterator[int]:
        yield 1
        yield ch.recv()

    generator = generate(ch)
    next(generator)
    g = go(receive, ch)
    del ch
    parked(g)
    assert leaks() == []
    del generator
    assert leaks() == [g]


def test_a_value_in_the_buffer_of_a_living_channel() -> None:
    carrier: Chan[Chan[int]] = Chan(1)
    ch: Chan[int] = Chan()
    carrier.send(ch)
    g = go(receive, ch)
    del ch
    parked(g)
    assert leaks() == []
    carrier.recv().send(1)


def test_a_context_can_end_the_wait() -> None:
    ctx, cancel = context.with_cancel(context.current())

    def wait() -> None:
        with ctx:
            Chan[int]().recv()

    g = go(wait)
    parked(g)
    assert leaks() == []
    cancel()
    assert g.join()


@pytest.mark.parametrize(
    "derive", [context.with_cancel, lambda c: (context.with_value(c, 1, 2), None)]
)
def test_a_parent_ends_its_children(derive: Callable[[Any], Any]) -> None:
    parent, cancel = context.with_cancel(context.background())
    child, _ = derive(parent)
    g = go(child.done().recv_ok)

    def waits_under(ctx: Any) -> None:
        with ctx:
            Chan[int]().recv()

    h = go(waits_under, child)
    del child, _
    parked(g, h)
    assert leaks() == []
    del parent
    assert leaks() == []
    cancel()
    assert g.join()
    assert h.join()


def test_a_parent_that_nobody_has_ends_nothing() -> None:
    parent, cancel = context.with_cancel(context.background())
    child, _ = context.with_cancel(parent)
    g = go(child.done().recv_ok)
    parked(g)
    del child, _, parent
    assert leaks() == []
    del cancel
    assert leaks() == [g]


def test_a_deadline_ends_what_nobody_has() -> None:
    def waits(ctx: Any) -> None:
        with ctx:
            Chan[int]().recv()

    ctx, _ = context.with_timeout(context.background(), 1000)
    child, _ = context.with_cancel(ctx)
    goroutines = [
        go(ctx.done().recv_ok),
        go(waits, ctx),
        go(child.done().recv_ok),
        go(waits, child),
    ]
    del ctx, child, _
    parked(*goroutines)
    assert leaks() == []
    for g in goroutines:
        g.cancel()


def test_what_a_deadline_will_call_is_alive() -> None:
    def start() -> Goroutine[int]:
        ch: Chan[int] = Chan()
        ctx, _ = context.with_timeout(context.background(), 1000)
        context.after_func(ctx, lambda: ch.send(1))
        return go(receive, ch)

    g = start()
    parked(g)
    assert leaks() == []
    g.cancel()


def test_who_holds_a_stopped_timer_may_start_it_again() -> None:
    timer = Timer(1000)
    timer.stop()
    g = go(timer.c.recv)
    parked(g)
    assert leaks() == []
    del timer
    assert leaks() == [g]


def test_a_scope_and_its_child() -> None:
    def start(ch: Chan[int] | None) -> None:
        with golibx.scope() as s:
            s.go((ch or Chan[int]()).recv)

    ch: Chan[int] = Chan()
    alive, stuck = go(start, ch), go(start, None)
    parked(alive, stuck)
    gosched()
    assert stuck in leaks()
    assert alive not in leaks()
    ch.send(1)
    alive.result()


def test_as_completed_of_what_never_ends() -> None:
    def waits(ch: Chan[int] | None) -> None:
        for _ in golibx.as_completed([go((ch or Chan[int]()).recv)]):
            pass

    ch: Chan[int] = Chan()
    alive, stuck = go(waits, ch), go(waits, None)
    parked(alive, stuck)
    gosched()
    assert stuck in leaks()
    assert alive not in leaks()
    ch.send(1)
    alive.result()


def test_the_end_of_the_background_never_comes() -> None:
    g = go(context.background().done().recv_ok)
    parked(g)
    assert leaks() == [g]


def test_garbage_holds_nobody() -> None:
    def start() -> Goroutine[int]:
        ch: Chan[int] = Chan()
        circle: list[Any] = [ch]
        circle.append(circle)
        return go(receive, ch)

    g = start()
    parked(g)
    assert leaks() == [g]


def test_a_class_that_somebody_refers_to_weakly() -> None:
    def start() -> tuple[Goroutine[int], Any]:
        class Here:
            ch: Chan[int] = Chan()

        return go(lambda: Here.ch.recv()), weakref.ref(Here)

    g, weak = start()
    parked(g)
    assert leaks() == []
    del weak
    assert leaks() == [g]


def test_parameters_that_change_are_not_the_arguments() -> None:
    """A tuple of what they are now may be any code's."""
    kept: list[Any] = []

    def changes(ch: Chan[int]) -> None:
        ch = kept.pop()
        kept.append((ch,))
        holder = go(sleep, 1000)
        kept.append(holder)
        ch.recv()

    kept.append(Chan[int]())
    g = go(lambda: changes(*[Chan[int]()]))
    parked(g)
    assert leaks() == []
    kept[-1].cancel()


def test_sockets_sleepers_and_system_goroutines_are_not_judged() -> None:
    goroutines = [go(sleep, 1000), _core.go_system(make_local)]
    parked(*goroutines)
    assert leaks() == []
    goroutines[1].cancel()


@pytest.mark.goroutine(False)
def test_outside_a_run() -> None:
    assert leaks() == []


def test_from_a_thread() -> None:
    g = go(make_local)
    parked(g)
    out: list[Any] = []
    thread = threading.Thread(target=lambda: out.extend(leaks()))
    thread.start()
    thread.join()
    assert out == [g]


@pytest.mark.goroutine(preempt={})
def test_while_others_run() -> None:
    """Goroutines that come, go and are preempted: what is found is right at any time."""
    leaked_ones = [go(make_local) for _ in range(5)]
    parked(*leaked_ones)
    stop = False

    def busy() -> None:
        while not stop:
            ch: Chan[int] = Chan()
            g = go(receive, ch)
            gosched()
            ch.send(sum(range(100)))
            g.join()

    others = [go(busy) for _ in range(3)]
    for _ in range(20):
        assert leaks() == leaked_ones
        gosched()
    stop = True
    for g in others:
        g.result()


def test_garbage_collection_goes_on_afterwards() -> None:
    assert gc.isenabled()
    leaks()
    assert gc.isenabled()
    gc.disable()
    try:
        leaks()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_unknown_frames_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaked, "_known", False)
    with pytest.raises(RuntimeError, match=r"3\.11 to 3\.15"):
        leaks()


@pytest.mark.goroutine(False)
def test_measuring_frames_checks_its_arguments() -> None:
    code, error = make_local.__code__, ValueError()
    with pytest.raises(TypeError):
        _core.measure_frames(code, 777)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        _core.measure_frames(object(), 777, error)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.measure_frames(code, "777", error)  # type: ignore[arg-type]
    assert leaked._frames_are_known()
    assert _core.frame_slots(object()) is None  # type: ignore[arg-type]


# ---- the depth of the value stack ----

DEPTHS = """
import ctypes, dis, sys
from golibx import leaked
assert leaked._frames_are_known()
depths, right, wrong = {}, 0, []

def profile(frame, event, arg):
    # A caller that calls Python code without C code between them has stored how deep its stack is.
    global right
    caller = frame.f_back
    if event != "call" or caller is None:
        return
    code, lasti = caller.f_code, caller.f_lasti
    interpreter_frame = ctypes.c_size_t.from_address(id(caller) + 24).value
    stored = ctypes.c_int.from_address(interpreter_frame + 64).value
    while code.co_code[lasti] == 0:  # the cache of the instruction
        lasti -= 2
    name = dis.opname[code.co_code[lasti]]
    if stored < 0 or name not in leaked._CALLS:
        return
    slots = len({*code.co_varnames, *code.co_cellvars}) + len(code.co_freevars)
    if stored == slots + leaked._depth(code, lasti, depths)[0]:
        right += 1
    else:
        wrong.append((code.co_qualname, lasti, name, stored))

sys.setprofile(profile)
import argparse, ast, dataclasses, difflib, email.message, json, logging.config, re, tokenize
import xml.dom.minidom
re.compile(r"(a|b)*c(?P<x>d+)[^e]{2,3}")
ast.unparse(ast.parse(open(difflib.__file__).read()))
list(tokenize.generate_tokens(open(dataclasses.__file__).readline))
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=int)
parser.parse_args(["--x", "4"])
parser.format_help()
xml.dom.minidom.parseString("<a><b c='d'/></a>").toprettyxml()
sys.setprofile(None)
print(len(wrong), right > 10_000, wrong[:5])
"""


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="frames say how deep their stacks are")
@pytest.mark.goroutine(False)
def test_stack_depths_are_those_of_the_interpreter(script: Script) -> None:
    assert script.passes(DEPTHS, limit=60).startswith("0 True")


@pytest.mark.goroutine(False)
def test_exception_tables_are_read_as_dis_reads_them() -> None:
    for function in (make_with, make_after_exception, test_while_others_run, parked):
        code = function.__code__
        expected = [
            (e.start, e.end, e.target, e.depth + e.lasti + 1)
            for e in dis._parse_exception_table(code)  # type: ignore[attr-defined]
        ]
        assert leaked._handlers_of(code) == expected


@pytest.mark.goroutine(False)
def test_variables_leave_the_frame_as_it_is() -> None:
    def inside(frame: FrameType) -> int:
        return len(leaked.variables(frame))

    value = object()
    before = sys.getrefcount(value)
    assert inside(sys._getframe()) >= 3
    assert sys.getrefcount(value) == before
