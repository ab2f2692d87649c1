"""leaks(): what C code holds between two frames of Python, which no frame shows."""

from __future__ import annotations

import ctypes
import functools
import gc
import operator
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from golibx import Chan, Goroutine, current, go, leaks, singleflight
from leaking import counts_references_of_c_code, parked, receive, waits_on

pytestmark = pytest.mark.goroutine(preempt={"async": False}, leaks=False)

# mypy takes what is passed by a star for what the items' type says.
Any1 = tuple[Any, ...]


@pytest.fixture(autouse=True, scope="module")
def _few_objects() -> Iterator[None]:
    """A collection, of which there are thousands here, does not look at what was there before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _no_garbage() -> None:
    gc.collect()


def one() -> Any:
    return Chan[int]()


def several(a: object, ch: Chan[int], *rest: object, **options: object) -> int:
    return ch.recv()


def with_default(ch: Chan[int], option: object = 1) -> int:
    return ch.recv()


def only_keyword(*, ch: Chan[int]) -> int:
    return ch.recv()


def in_a_cell(ch: Chan[int]) -> int:
    def inner() -> int:
        return ch.recv()

    return inner()


class Service:
    def __init__(self) -> None:
        self.inbox: Chan[int] = Chan()

    def receive(self, ch: Chan[int]) -> int:
        return ch.recv()

    def serve(self) -> int:
        return self.inbox.recv()

    def many(self, *args: Any, **options: Any) -> Any:
        return args[0].recv()

    def __call__(self, ch: Chan[int]) -> int:
        return ch.recv()

    @classmethod
    def of_the_class(cls, ch: Chan[int]) -> int:
        return ch.recv()

    @staticmethod
    def static(ch: Chan[int]) -> int:
        return ch.recv()


class Derived(Service):
    def receive(self, *args: Any) -> int:
        return super().receive(*args)


# ---- functions ----


def make_list() -> None:
    arguments = [one()]
    receive(*arguments)


def make_tuple() -> None:
    arguments = (one(),)
    receive(*arguments)


def make_tuple_of_an_attribute() -> None:
    service = Service()
    service.arguments = (one(),)  # type: ignore[attr-defined]
    receive(*service.arguments)  # type: ignore[attr-defined]


def make_values_of_a_dict() -> None:
    receive(*{1: one()}.values())


def make_default() -> None:
    arguments = [one()]
    with_default(*arguments)


def make_default_given() -> None:
    arguments = (one(), 2)
    with_default(*arguments)


def make_default_by_keyword() -> None:
    arguments, options = [one()], {"option": 2}
    with_default(*arguments, **options)


def make_keyword() -> None:
    options = {"ch": one()}
    receive(**options)


def make_only_keyword() -> None:
    options = {"ch": one()}
    only_keyword(**options)


def make_rest() -> None:
    arguments: list[Any] = [1, one(), 3, 4]
    several(*arguments)


def make_rest_and_keywords() -> None:
    arguments: Any1 = (1, one(), 3)
    options = {"x": one()}
    several(*arguments, **options)


def make_cell() -> None:
    arguments = [one()]
    in_a_cell(*arguments)


def make_lambda() -> None:
    arguments = [one()]
    receives: Callable[..., Any] = lambda *args: args[0].recv()  # noqa: E731
    receives(*arguments)


def make_chain_of_stars() -> None:
    def first(*args: Any, **options: Any) -> Any:
        return second(1, *args, **options)

    def second(_: int, *args: Any, **options: Any) -> Any:
        return receive(*args, **options)

    arguments = [one()]
    first(*arguments)
    first(ch=one())


def make_chain_of_keywords() -> None:
    def first(*args: Any, **options: Any) -> Any:
        return receive(*args, **options)

    first(ch=one())


def make_the_same_twice() -> None:
    def second(_: object, ch: Chan[int]) -> int:
        return ch.recv()

    second(*[one()] * 2)


def make_comprehension() -> None:
    [receive(*arguments) for arguments in [(one(),)]]


def make_generator() -> None:
    def generate(*args: Any) -> Iterator[int]:
        yield from inner(*args)

    def inner(ch: Chan[int]) -> Iterator[int]:
        yield receive(*[ch])

    arguments = [one()]
    for _ in generate(*arguments):
        pass


def make_coroutine() -> None:
    async def inner(ch: Chan[int]) -> int:
        return ch.recv()

    async def outer(*args: Any) -> int:
        return await inner(*args)

    arguments = [one()]
    outer(*arguments).send(None)


def make_class_body() -> None:
    arguments = [one()]

    class Body:
        value = receive(*arguments)


def make_decorator() -> None:
    def decorate(*args: Any) -> Any:
        receive(*args)

    arguments = [one()]

    @decorate(*arguments)  # type: ignore[untyped-decorator]
    def decorated() -> None: ...


def make_with() -> None:
    class Manager:
        def __enter__(self) -> None:
            arguments = [one()]
            receive(*arguments)

        def __exit__(self, *_: object) -> None: ...

    with Manager():
        pass


# ---- methods and objects ----


def make_method() -> None:
    Service().receive(*[one()])


def make_method_with_a_tuple() -> None:
    arguments, service = (one(),), Service()
    service.receive(*arguments)


def make_method_without_arguments() -> None:
    arguments: Any1 = ()
    Service().serve(*arguments)


def make_method_with_keywords() -> None:
    options = {"ch": one()}
    Service().receive(**options)


def make_method_with_both() -> None:
    arguments = [one()]
    Service().many(*arguments, x=one())


def make_method_kept() -> None:
    method, arguments = Service().receive, [one()]
    method(*arguments)


def make_class_method() -> None:
    arguments = [one()]
    Service.of_the_class(*arguments)


def make_static_method() -> None:
    arguments = [one()]
    Service.static(*arguments)


def make_callable_object() -> None:
    arguments = [one()]
    Service()(*arguments)


def make_callable_object_with_keywords() -> None:
    options = {"ch": one()}
    Service()(**options)


def make_callable_object_plainly() -> None:
    Service()(one())


def make_inherited_method() -> None:
    arguments = [one()]
    Derived().receive(*arguments)


def make_object_by_init() -> None:
    class Here:
        def __init__(self, ch: Chan[int]) -> None:
            ch.recv()

    Here(one())


def make_object_by_init_of_its_own() -> None:
    class Here:
        def __init__(self) -> None:
            self.ch: Chan[int] = Chan()
            self.ch.recv()

    Here()


def make_object_by_init_with_a_star() -> None:
    class Here:
        def __init__(self, *args: Any, **options: Any) -> None:
            self.args = args
            self.args[0].recv()

    arguments = [one()]
    Here(*arguments, x=one())


def make_object_of_a_builtin_base() -> None:
    class Here(dict[str, Any]):
        def __init__(self, ch: Chan[int]) -> None:
            super().__init__(ch=ch)
            self["ch"].recv()

    Here(one())


def make_exception() -> None:
    class Here(Exception):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.args[0].recv()

    raise Here(one())


def make_hot_object() -> None:
    class Here:
        def __init__(self, ch: Chan[int]) -> None:
            self.ch = ch
            self.ch.recv()

    for _ in range(50):  # until the interpreter has specialized the call
        ch: Chan[int] = Chan(1)
        ch.send(1)
        Here(ch)
    (Here(one()),)


def make_object_by_inherited_init() -> None:
    class Base:
        def __init__(self, ch: Chan[int]) -> None:
            ch.recv()

    class Here(Base):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)

    Here(one())


def make_object_by_new() -> None:
    class Here:
        def __new__(cls, ch: Chan[int]) -> Here:
            ch.recv()
            return super().__new__(cls)

    arguments = (one(),)
    Here(*arguments)


def make_partial() -> None:
    functools.partial(receive, one())()


def make_partial_of_a_method() -> None:
    functools.partial(Service().receive, one())()


# ---- going through iterators ----


def make_list_of_a_generator() -> None:
    list(receive(ch) for ch in [one()])


def make_tuple_of_a_generator() -> None:
    tuple(receive(ch) for ch in [one()])


def make_dict_of_a_generator() -> None:
    dict((1, receive(ch)) for ch in [one()])


def make_any() -> None:
    arguments = [[one()]]
    any(receive(*each) for each in arguments)


def make_sum() -> None:
    sum(receive(ch) for ch in [one()])


def make_join() -> None:
    "".join(str(receive(ch)) for ch in [one()])


def make_star_of_a_generator() -> None:
    print(*(receive(ch) for ch in [one()]))


def make_star_of_a_map_that_has_ended() -> None:
    receive(*map(lambda ch: ch, [one()]))


def make_star_of_a_map() -> None:
    Service().many(*map(receive, [one()]))


def make_map() -> None:
    list(map(receive, [one()]))


def make_map_in_a_loop() -> None:
    for _ in map(receive, [one()]):
        pass


def make_map_of_two() -> None:
    list(map(lambda _, ch: ch.recv(), [1], [one()]))


def make_map_of_a_generator() -> None:
    list(map(str, (receive(ch) for ch in [one()])))


def make_map_of_a_map() -> None:
    list(map(receive, map(lambda ch: ch, [one()])))


def make_next_of_a_map() -> None:
    next(map(receive, [one()]))


def make_list_display_of_a_map() -> None:
    [*map(receive, [one()])]


def make_set_display_of_a_map() -> None:
    {*map(receive, [one()])}


def make_filter() -> None:
    list(filter(receive, [one()]))


def make_filter_in_a_loop() -> None:
    for _ in filter(receive, [one()]):
        pass


def make_sorted() -> None:
    sorted([one()], key=receive)


def make_sort() -> None:
    [one(), one()].sort(key=receive)


def make_min_and_max() -> None:
    arguments = [min, max]
    for each in arguments[current().id % 2 :]:
        each([one()], key=receive)


def make_max_of_a_generator() -> None:
    max(receive(ch) for ch in [one()])


def make_reduce() -> None:
    functools.reduce(lambda _, ch: ch.recv(), [1, one()])


SHAPES = [value for name, value in sorted(globals().items()) if name.startswith("make_")]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda f: f.__name__)
def test_every_way_to_be_leaked(shape: Callable[[], None]) -> None:
    g = go(shape)
    parked(g)
    assert leaks() == [g]
    counts_references_of_c_code(g)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda f: f.__name__)
def test_who_else_has_it_may_use_it(shape: Callable[[], None]) -> None:
    g = go(shape)
    parked(g)
    held = waits_on(g)[-1]
    assert leaks() == []
    del held
    assert leaks() == [g]


def test_all_at_once() -> None:
    goroutines = [go(shape) for shape in SHAPES for _ in range(3)]
    parked(*goroutines)
    held = [waits_on(g)[-1] for g in goroutines[1::3]]
    assert set(leaks()) == set(goroutines) - set(goroutines[1::3])
    del held
    assert set(leaks()) == set(goroutines)


# ---- tuples with the same items ----


def test_a_tuple_of_the_same_arguments() -> None:
    """It is another one than that which the interpreter has made of the list."""
    arguments = [Chan[int]()]
    g = go(lambda: receive(*arguments))
    parked(g)
    other = tuple(arguments)
    arguments.clear()
    assert leaks() == []
    del other
    assert leaks() == [g]


def test_a_tuple_with_a_default() -> None:
    """The default was not passed: code that has it in a tuple with the argument may use it."""

    def start() -> tuple[Goroutine[int], Any1]:
        ch, other = Chan[int](), Chan[int]()

        def waits(ch: Chan[int], default: Chan[int] = other) -> int:
            return default.recv()

        arguments = [ch]
        return go(lambda: waits(*arguments)), (ch, other)

    g, held = start()
    parked(g)
    assert leaks() == []
    del held
    gc.collect()
    assert leaks() == [g]


def test_a_tuple_with_what_came_by_keyword() -> None:
    def start() -> tuple[Goroutine[int], Any1]:
        ch, by_name = Chan[int](), Chan[int]()
        arguments, options = [ch], {"ch": by_name}

        def waits(_: Chan[int], ch: Chan[int]) -> int:
            return ch.recv()

        return go(lambda: waits(*arguments, **options)), (ch, by_name)

    g, held = start()
    parked(g)
    assert leaks() == []
    del held
    assert leaks() == [g]


def test_an_argument_that_a_closure_changes() -> None:
    kept: list[Any] = [Chan[int]()]

    def changes(ch: Chan[int]) -> int:
        def change() -> None:
            nonlocal ch
            ch = kept.pop()

        change()
        kept.append((ch,))
        holder = go(current().on_done)  # it holds nothing of this
        holder.join()
        return ch.recv()

    g = go(lambda: changes(*[Chan[int]()]))
    parked(g)
    assert leaks() == []


# ---- what has ended ----


class Parks:
    """Its end waits."""

    def __init__(self, ch: Chan[int]) -> None:
        self.ch = ch

    def __del__(self) -> None:
        self.ch.recv()


class ParksTwice:
    """Its end is a call of what was called with it."""

    def __init__(self, ch: Chan[int]) -> None:
        self.ch = ch
        self.calls = 0

    def __del__(self) -> None:
        self.calls += 1
        if self.calls == 2:
            self.ch.recv()


class Takes:
    def __init__(self, *_: object) -> None: ...

    def method(self, *_: object) -> None: ...


def ends_arguments_of_a_builtin(ch: Chan[int]) -> None:
    operator.is_(*iter([ch, Parks(ch)]))


def ends_arguments_of_a_method(ch: Chan[int]) -> None:
    Takes().method(*iter([ch, Parks(ch)]))


def ends_keywords_of_a_method(ch: Chan[int]) -> None:
    Service().many(*iter([Quick()]), a=ch, b=Parks(ch))


def ends_arguments_of_a_class(ch: Chan[int]) -> None:
    Takes(ch, Parks(ch))


def ends_arguments_of_a_function(ch: Chan[int]) -> None:
    ParksTwice.__del__(*iter([ParksTwice(ch)]))


def ends_items_of_a_map(ch: Chan[int]) -> None:
    list(map(lambda *_: None, [ch], map(Parks, [ch])))


def ends_items_of_a_map_by_its_function(ch: Chan[int]) -> None:
    list(map(ParksTwice.__del__, map(ParksTwice, [ch])))


def ends_what_is_sorted(ch: Chan[int]) -> None:
    sorted(map(Parks, [ch]), key=lambda _: 1)


class Quick:
    def recv(self) -> None: ...


ENDS = [value for name, value in list(globals().items()) if name.startswith("ends_")]


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
    g.result()


# ---- weak references of golibx's own ----


def test_who_waits_for_a_call_that_another_makes() -> None:
    def start() -> list[Goroutine[None]]:
        group: singleflight.Group[str, int] = singleflight.Group()

        def call() -> None:
            group.do("key", receive, Chan[int]())

        return [go(call), go(call)]

    goroutines = start()
    parked(*goroutines)
    assert leaks() == goroutines


def test_who_has_the_group_may_use_it() -> None:
    group: singleflight.Group[str, int] = singleflight.Group()

    def call(ch: Chan[int]) -> int:
        return group.do("key", receive, ch)[0]

    ch: Chan[int] = Chan()
    goroutines = [go(call, ch), go(call, ch)]
    parked(*goroutines)
    assert leaks() == []
    ch.send(1)
    assert [g.result() for g in goroutines] == [1, 1]
