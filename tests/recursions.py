"""Recursion without end through C code, each kind in a goroutine or a thread: prints how it ended.

    python tests/recursions.py goroutine|main|thread KIND…

A kind may end the process where the interpreter has no check of its own; the test compares.
"""

from __future__ import annotations

import ast
import copy
import ctypes
import functools
import json
import pickle
import re
import sqlite3
import sys
import threading
from collections.abc import Callable
from typing import Any
from xml.parsers import expat

import golibx

KINDS: dict[str, Callable[[], object]] = {}
DEEP = 30_000


def kind(function: Callable[[], object]) -> Callable[[], object]:
    KINDS[function.__name__] = function
    return function


def nested(times: int = DEEP) -> list[Any]:
    value: list[Any] = []
    for _ in range(times):
        value = [value]
    return value


@kind
def python() -> object:
    return python()


@kind
def sort() -> object:
    return sorted([1, 2], key=lambda _: sort())


@kind
def mapped() -> object:
    return list(map(lambda _: mapped(), [1]))


@kind
def partial() -> object:
    return functools.partial(partial)()


@kind
def reduced() -> object:
    return functools.reduce(lambda _, __: reduced(), [1, 2])


@kind
def attribute() -> object:
    class A:
        def __getattr__(self, name: str) -> object:
            return getattr(self, name)

    return A().x


@kind
def property_() -> object:
    class A:
        @property
        def x(self) -> object:
            return self.x

    return A().x


@kind
def init() -> object:
    class A:
        def __init__(self) -> None:
            A()

    return A()


@kind
def called() -> object:
    class A:
        def __call__(self) -> object:
            return functools.partial(A())()

    return A()()


@kind
def operator() -> object:
    class A:
        def __add__(self, other: object) -> object:
            return A() + 1

    return A() + 1


@kind
def representation() -> object:
    return repr(nested())


@kind
def own_repr() -> object:
    class A:
        def __repr__(self) -> str:
            return repr([self, A()])

    return repr(A())


@kind
def comparison() -> object:
    return nested() == nested()


@kind
def hashes() -> object:
    value: tuple[Any, ...] = ()
    for _ in range(1000):
        value = (value,)

    class A:
        def __hash__(self) -> int:
            return hash((A(), value))

    return hash(A())


@kind
def json_dump() -> object:
    return json.dumps(nested())


@kind
def json_load() -> object:
    return json.loads("[" * DEEP + "]" * DEEP)


@kind
def json_hook() -> object:
    return json.loads("{}", object_hook=lambda _: json_hook())


@kind
def pickled() -> object:
    return pickle.dumps(nested())


@kind
def pickled_by_reduce() -> object:
    return pickle.dumps(Reduced())


class Reduced:
    def __reduce__(self) -> Any:
        return Reduced, (Reduced(),)


@kind
def deep_copy() -> object:
    return copy.deepcopy(nested())


@kind
def substitution() -> object:
    return re.sub("a", lambda _: str(substitution()), "a")


@kind
def pattern() -> object:
    return re.compile("(" * 20_000 + ")" * 20_000)


@kind
def source() -> object:
    return compile("-" * 20_000 + "1", "", "eval")


@kind
def source_of_calls() -> object:
    return compile("f" + "()" * 20_000, "", "eval")


@kind
def source_of_names() -> object:
    return compile("a" + ".a" * 20_000, "", "eval")


@kind
def literal() -> object:
    return ast.literal_eval("+" * 20_000 + "1")


@kind
def tree() -> object:
    node: ast.expr = ast.Constant(1)
    for _ in range(20_000):
        node = ast.UnaryOp(ast.USub(), node)
    return compile(ast.fix_missing_locations(ast.Expression(node)), "", "eval")


@kind
def evaluated() -> object:
    return eval("evaluated()")


@kind
def instances() -> object:
    value: Any = int
    for _ in range(DEEP):
        value = (value,)
    return isinstance("", value)


@kind
def unions() -> object:
    class Meta(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, A)

    class A(metaclass=Meta):
        pass

    return isinstance(1, A)


@kind
def foreign_callback() -> object:
    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def compare(a: object, b: object) -> int:
        try:
            sort_by_c()
        except RecursionError:
            pass
        return 0

    def sort_by_c() -> None:
        ctypes.CDLL(None).qsort((ctypes.c_int * 2)(2, 1), 2, 4, compare)

    sort_by_c()
    raise RecursionError("seen by the callback, if not by ctypes before it was called")


@kind
def database() -> object:
    connection = sqlite3.connect(":memory:", check_same_thread=False)

    def call() -> int:
        return int(connection.execute("select f()").fetchone()[0])

    connection.create_function("f", 0, call)
    try:
        return call()
    except sqlite3.OperationalError:  # what sqlite3 makes of any exception in a function
        raise RecursionError from None


@kind
def xml() -> object:
    def parse(*_: object) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler = parse
        parser.Parse("<a/>", True)

    return parse()


@kind
def generators() -> object:
    def walk() -> Any:
        yield from walk()

    return list(walk())


@kind
def imports() -> object:
    class Finder:
        @staticmethod
        def find_spec(name: str, path: object, target: object = None) -> object:
            return __import__(name + "x")

    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]
    try:
        return __import__("none_such")
    finally:
        sys.meta_path.pop(0)


@kind
def destruction() -> object:
    value = nested()
    del value
    raise RecursionError("none: the interpreter unravels it")


@kind
def finalizers() -> object:
    class A:
        def __init__(self, inner: object) -> None:
            self.inner = inner

    value: Any = None
    for _ in range(DEEP):
        value = A((value,))
    del value
    raise RecursionError("none: the interpreter unravels it")


@kind
def twice_caught() -> object:
    """Deep down it is caught, and goes on."""

    def down(times: int) -> None:
        try:
            sort()
        except RecursionError:
            if times:
                down(times - 1)
            else:
                raise

    for _ in range(20):
        try:
            down(3)
        except RecursionError:
            pass
    return sort()


@kind
def whole_limit_afterwards() -> object:
    """What was taken for an overflow is given back at once."""

    def count(n: int) -> int:
        return n if n == 0 else 1 + count(n - 1)

    try:
        sort()
    except RecursionError:
        pass
    assert count(900) == 900
    json.loads("[" * 900 + "]" * 900)
    return sort()


def outcome(name: str) -> str:
    try:
        KINDS[name]()
    except (RecursionError, MemoryError, pickle.PicklingError) as error:
        return type(error).__name__
    except re.error:  # deep patterns are refused by their number of groups
        return "RecursionError"
    return "returned"


def main(place: str, names: list[str]) -> None:
    for name in names:
        if place == "thread":
            results: list[str] = []
            thread = threading.Thread(target=lambda name=name: results.append(outcome(name)))
            thread.start()
            thread.join()
            result = results[0]
        elif place == "main":
            result = golibx.run(outcome, name)
        else:
            result = golibx.run(lambda name=name: golibx.go(outcome, name).result())
        print(name, result, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or list(KINDS))
