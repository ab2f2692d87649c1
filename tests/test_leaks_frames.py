"""leaks(): what the frames of parked goroutines refer to, whatever they are about."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import operator
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from conftest import Script
from golibx import Chan, Mutex, RWMutex, Semaphore, go, leaks, select
from leaking import counts_references_of_c_code, parked, receive, waits_on

pytestmark = pytest.mark.goroutine(preempt={"async": False}, leaks=False)


@pytest.fixture(autouse=True)
def _no_garbage() -> None:
    gc.collect()


# ---- generators and coroutines ----


def generate(ch: Chan[int]) -> Iterator[int]:
    yield 1
    with threading.Lock():
        for _ in range(2):
            yield [2, ch.recv()][1]


def delegate(ch: Chan[int]) -> Iterator[int]:
    yield from generate(ch)


def make_loop_over_a_generator() -> None:
    for _ in generate(Chan()):
        pass


def make_loop_over_a_hot_generator() -> None:
    for _ in range(50):  # until the interpreter has specialized both
        ch: Chan[int] = Chan(2)
        ch.send(1)
        ch.send(1)
        for _ in delegate(ch):
            pass
    for _ in delegate(Chan()):
        pass


def make_next() -> None:
    generator = generate(Chan())
    next(generator)
    next(generator)


def make_next_of_a_temporary() -> None:
    next(receive(c) for c in [Chan[int]()])


def make_yield_from() -> None:
    for _ in delegate(Chan()):
        pass


def make_body_of_a_loop_over_a_generator() -> None:
    for ch in (c for c in [Chan[int]()]):
        receive(ch)


def make_send_to_a_generator() -> None:
    generator = generate(Chan())
    generator.send(None)  # type: ignore[attr-defined]
    generator.send(1)  # type: ignore[attr-defined]


def catches(ch: Chan[int]) -> Generator[int, None, None]:
    try:
        yield 1
    except ValueError:
        ch.recv()


def cleans_up(ch: Chan[int]) -> Iterator[int]:
    try:
        yield 1
    finally:
        ch.recv()


def make_throw_into_a_generator() -> None:
    generator = catches(Chan())
    next(generator)
    generator.throw(ValueError)


def make_close_of_a_generator() -> None:
    generator = cleans_up(Chan())
    next(generator)
    generator.close()  # type: ignore[attr-defined]


def make_coroutine() -> None:
    async def inner(ch: Chan[int]) -> int:
        return ch.recv()

    async def outer(ch: Chan[int]) -> int:
        return await inner(ch) + 1

    outer(Chan()).send(None)


def make_async_for_and_with() -> None:
    async def generate(ch: Chan[int]) -> AsyncIterator[int]:
        yield ch.recv()

    class Manager:
        async def __aenter__(self) -> Chan[int]:
            return Chan()

        async def __aexit__(self, *_: object) -> None: ...

    async def main() -> None:
        async with Manager() as ch:
            async for _ in generate(ch):
                pass

    main().send(None)


# ---- with ----


def make_with_mutex() -> None:
    mutex = Mutex()
    with mutex, mutex:
        pass


def make_with_rwmutex() -> None:
    mutex = RWMutex()
    mutex.lock()
    with mutex:
        pass


def make_with_semaphore() -> None:
    semaphore = Semaphore(1)
    with semaphore, semaphore:
        pass


class Manager:
    def __init__(self) -> None:
        self.before: Chan[int] = Chan(1)
        self.after: Chan[int] = Chan(1)

    def __enter__(self) -> Manager:
        self.before.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self.after.recv()


def make_enter() -> None:
    with Manager():
        pass


def make_exit() -> None:
    manager = Manager()
    manager.before.send(1)
    with manager:
        pass


def make_exit_by_an_exception() -> None:
    manager = Manager()
    manager.before.send(1)
    with manager:
        raise ValueError


@contextlib.contextmanager
def managing(ch: Chan[int], wait: str) -> Iterator[Chan[int]]:
    if wait == "enter":
        ch.recv()
    try:
        yield ch
    finally:
        if wait == "exit":
            ch.recv()


def make_contextmanager_enter() -> None:
    with managing(Chan(), "enter"):
        pass


def make_contextmanager_body() -> None:
    with managing(Chan(), "body") as ch:
        ch.recv()


def make_contextmanager_exit() -> None:
    with managing(Chan(), "exit"):
        pass


def make_contextmanager_exit_by_an_exception() -> None:
    with managing(Chan(), "exit"):
        raise ValueError


# ---- arguments ----


def make_select_star_timeout() -> None:
    cases = [Chan[int]().on_recv() for _ in range(3)]
    select(*cases, timeout=None)


def make_select_star_and_more() -> None:
    cases = [Chan[int]().on_recv()]
    options: dict[str, Any] = {"timeout": None}
    select(*cases, Chan[int]().on_send(1), None, **options)


def make_select_keywords() -> None:
    select(Chan[int]().on_recv(), timeout=None, default=False)


def make_select_of_own_arguments() -> None:
    def passes_on(*cases: Any, **options: Any) -> None:
        select(*cases, **options)

    passes_on(Chan[int]().on_recv(), timeout=None)


def make_wrapped() -> None:
    def wrap(fn: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> int:
            return fn(*args, **kwargs)

        return wrapper

    @wrap
    @wrap
    def inner(ch: Chan[int]) -> int:
        return ch.recv()

    inner(Chan())


def make_pending_arguments() -> None:
    def many(*args: object, **kwargs: object) -> None: ...

    ch: Chan[int] = Chan()
    many(ch, [ch, (ch, {1: f"{ch!r} {many(ch, *[ch], a=ch, b=ch.recv())}"})])


# ---- operators and attributes ----


class Operators:
    def __init__(self) -> None:
        self.ch: Chan[int] = Chan()

    def _wait(self, *_: object) -> Any:
        return self.ch.recv()

    __add__ = __radd__ = __iadd__ = __lt__ = __getitem__ = __setitem__ = __delitem__ = _wait
    __contains__ = __bool__ = __neg__ = __iter__ = __call__ = _wait
    value = property(_wait, _wait, _wait)


def make_add() -> None:
    Operators() + (Operators(), 1)[0]


def make_add_on_the_right() -> None:
    object() + Operators()


def make_add_in_place() -> None:
    o = Operators()
    o += [o]


def make_compare() -> None:
    assert Operators() < [Operators()]


def make_get_item() -> None:
    Operators()[1]


def make_get_slice() -> None:
    Operators()[1:2]


def make_set_item() -> None:
    Operators()[1] = Operators()


def make_set_slice() -> None:
    Operators()[1:2] = Operators()


def make_delete_item() -> None:
    del Operators()[1]


def make_contains() -> None:
    assert [1] in Operators()  # type: ignore[operator]


def make_truth() -> None:
    if Operators():
        pass


def make_not() -> None:
    assert not Operators()


def make_negative() -> None:
    -Operators()


def make_iter() -> None:
    for _ in Operators():
        pass


def make_unpack() -> None:
    [*Operators()]


def make_call() -> None:
    Operators()()


def make_get_attribute() -> None:
    o = Operators()
    o.value  # noqa: B018


def make_set_attribute() -> None:
    Operators().value = Operators()


def make_delete_attribute() -> None:
    del Operators().value


# ---- namespaces and exceptions ----


def make_class_body() -> None:
    class Body:
        ch: Chan[int] = Chan()
        pair = (ch, ch.recv())


def make_class_body_with_bases() -> None:
    ch: Chan[int] = Chan()

    class Body(Manager):
        of = [ch]
        of[0].recv()


def fails(ch: Chan[int]) -> None:
    raise ValueError(ch)


def make_handler() -> None:
    ch: Chan[int] = Chan()
    try:
        fails(ch)
    except ValueError:
        ch.recv()


def make_handler_in_a_handler() -> None:
    ch: Chan[int] = Chan()
    try:
        fails(ch)
    except ValueError:
        try:
            fails(ch)
        except ValueError as exc:
            exc.args[0].recv()


def make_finally() -> None:
    ch: Chan[int] = Chan()
    try:
        fails(ch)
    finally:
        receive(ch)


def make_handler_of_a_group() -> None:
    ch: Chan[int] = Chan()
    try:
        raise ExceptionGroup("", [ValueError(ch)])
    except* ValueError:
        ch.recv()


def make_handler_in_a_generator() -> None:
    def handles(ch: Chan[int]) -> Iterator[int]:
        try:
            fails(ch)
        except ValueError:
            yield ch.recv()

    ch: Chan[int] = Chan()
    try:
        fails(ch)
    except ValueError:
        for _ in handles(ch):
            pass


SHAPES = [value for name, value in sorted(globals().items()) if name.startswith("make_")]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda f: f.__name__)
def test_every_way_to_be_leaked(shape: Callable[[], None]) -> None:
    g = go(shape)
    parked(g)
    assert leaks() == [g]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda f: f.__name__)
def test_who_else_has_it_may_use_it(shape: Callable[[], None]) -> None:
    g = go(shape)
    parked(g)
    held = waits_on(g)[-1]
    assert leaks() == []
    del held
    counts_references_of_c_code(g)


def test_all_at_once() -> None:
    goroutines = [go(shape) for shape in SHAPES for _ in range(3)]
    parked(*goroutines)
    held = [waits_on(g)[-1] for g in goroutines[1::3]]
    assert set(leaks()) == set(goroutines) - set(goroutines[1::3])
    del held
    assert set(leaks()) == set(goroutines)


def test_another_tuple_of_the_same_cases() -> None:
    cases = [Chan[int]().on_recv() for _ in range(3)]

    def selects(cases: list[Any]) -> None:
        select(*cases, timeout=None)

    g = go(selects, cases)
    parked(g)
    other = tuple(cases)
    del cases
    assert leaks() == []
    del other
    assert leaks() == [g]


# ---- what lies on the stack, but is not owned any more ----


class Parks:
    """Its end waits."""

    def __init__(self, ch: Chan[int]) -> None:
        self.ch = ch

    def __del__(self) -> None:
        self.ch.recv()


def started(ch: Chan[int]) -> Iterator[int]:
    generator = cleans_up(ch)
    next(generator)
    return generator


class Plain:
    pass


def with_callback(ch: Chan[int], refs: list[Any]) -> Plain:
    plain = Plain()
    refs.append(weakref.ref(plain, lambda _: ch.recv() and None))
    return plain


def ends_arguments(ch: Chan[int]) -> None:
    operator.is_(ch, Parks(ch))


def ends_arguments_of_a_method(ch: Chan[int]) -> None:
    [].__eq__(Parks(ch))


def ends_a_generator(ch: Chan[int]) -> None:
    operator.is_(ch, started(ch))


def ends_a_generator_inside(ch: Chan[int]) -> None:
    operator.is_(ch, [started(ch)])


def ends_what_is_referred_to_weakly(ch: Chan[int]) -> None:
    refs: list[Any] = []
    operator.is_(ch, with_callback(ch, refs))


def ends_operands(ch: Chan[int]) -> None:
    (ch,) + (Parks(ch),)  # noqa: RUF005


def ends_compared(ch: Chan[int]) -> None:
    (ch,) == Parks(ch)  # noqa: B015


def ends_star_arguments(ch: Chan[int]) -> None:
    operator.is_(*[ch, Parks(ch)])


def unwinds(ch: Chan[int]) -> None:
    (Parks(ch), ch, (ch,), int("x"))


def unwinds_a_generator(ch: Chan[int]) -> None:
    for _ in started(ch):
        (ch, int("x"))


def unwinds_a_list(ch: Chan[int]) -> None:
    ([Parks(ch)], ch, int("x"))


ENDS = [value for name, value in list(globals().items()) if name.startswith(("ends_", "unwinds"))]


@pytest.mark.parametrize("references", [1, 2, 3])
@pytest.mark.parametrize("shape", ENDS, ids=lambda f: f.__name__)
def test_what_was_dropped_is_not_counted(shape: Callable[..., None], references: int) -> None:
    """A finalizer waits, while its caller's stack has stale values for as many references."""
    ch: Chan[int] = Chan()
    address = id(ch)
    g = go(shape, ch)
    parked(g)
    # Held by as many as that, which can't be seen.
    for _ in range(references):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(ch))
    del ch
    assert leaks() == []
    again = ctypes.cast(address, ctypes.py_object).value
    for _ in range(references):
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(again))
    again.send(1)
    with contextlib.suppress(ValueError):
        g.result()


@pytest.mark.goroutine(False)
def test_what_was_dropped_has_become_part_of_another_object(script: Script) -> None:
    """Its second word refers to an instance, then, where that of an object refers to its type."""
    code = """
import ctypes, operator, sys
from golibx import Chan, go, leaks, run
from golibx.testing import wait_until_parked

def forged(*words):  # an object, as far as C code can tell
    filled = [*words, *[0x4141414141414141] * (256 - len(words))]
    memory = (ctypes.c_size_t * 256)(*filled)
    kept.append(memory)
    return memory, ctypes.addressof(memory)

class Class: pass

class Parks:
    def __del__(self):
        stale[1] = instance
        ch.recv()

def ends_arguments():
    if sys.version_info < (3, 14):  # the first argument ends first
        operator.is_(ctypes.cast(at, ctypes.py_object).value, Parks())
    else:
        operator.is_(Parks(), ctypes.cast(at, ctypes.py_object).value)

def main():
    g = go(ends_arguments)
    wait_until_parked(g)
    assert leaks() == []
    assert stale[1] == instance
    ch.send(1)
    g.result()

kept, ch = [], Chan()
_, instance = forged(100, id(Class))
stale, at = forged(100, id(object))
run(main)
print("well")
"""
    assert script.passes(code) == "well\n"
