"""Wrong use of the API: each has a clear outcome. What ends the process is a script in crash/.

The comments at the top of such a script say what it must do: `# exits with N` (negative for a
signal; `N or M`), `# stdout has RE` and `# stderr has RE` (a regular expression that is found
there), `# stderr is empty`, `# before 3.N` (for older Pythons only).
"""

# A lambda is the shortest way to do two things in a goroutine, though neither returns a value.
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import asyncio
import ctypes
import inspect
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable
from functools import cache, partial, partialmethod, wraps
from pathlib import Path
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import (
    Chan,
    WaitGroup,
    _core,
    blocking,
    current,
    go,
    gomaxprocs,
    gosched,
    native,
    num_goroutine,
    run,
    select,
    sleep,
    stats,
)
from golibx.testing import wait_until

WRONG_CALLS = Path(__file__).parent / "wrong_calls.py"
CRASHES = sorted((Path(__file__).parent / "crash").glob("*.py"))


@pytest.mark.parametrize("path", CRASHES, ids=lambda path: path.stem)
def test_crash(script: Script, path: Path) -> None:
    source = path.read_text()
    rules = re.findall(r"^# (exits with|std... has|stderr is empty) ?(.*)$", source, re.MULTILINE)
    assert rules, "the script must say what it does"
    before = re.search(r"^# before 3\.(\d+)", source, re.MULTILINE)
    if before and sys.version_info >= (3, int(before[1])):
        pytest.skip("for older Pythons only")
    result = script(path)
    output = {"stdout": result.stdout, "stderr": result.stderr}
    told = f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
    for kind, value in rules:
        if kind == "exits with":
            assert str(result.returncode) in value.split(" or "), told
        elif kind == "stderr is empty":
            assert result.stderr == "", told
        else:
            assert re.search(value, output[kind[:6]].rstrip("\n"), re.MULTILINE), f"{value}\n{told}"


# ---- recursion through C ----

# ruff: noqa: E501 - programs as texts
RECURSIONS = {
    "repr": "x = []\nfor _ in range(200_000): x = [x]\nrecurse = lambda: repr(x)",
    "sort key": "def recurse(): [1, 2].sort(key=lambda _: recurse())",
    "json": "import json\nx = []\nfor _ in range(200_000): x = [x]\nrecurse = lambda: json.dumps(x)",
    "json loads": "import json\nrecurse = lambda: json.loads('[' * 200_000)",
    "getattr": "class C:\n    def __getattr__(self, name): return getattr(self, name + 'x')\n"
    "recurse = lambda: C().a",
    "eq": "a = []; b = []\nfor _ in range(200_000): a = [a]; b = [b]\nrecurse = lambda: a == b",
    "map": "def recurse(): return list(map(lambda _: recurse(), [1]))",
    "partial": "import functools\nf = lambda: None\n"
    "for _ in range(200_000): f = functools.partial(f)\nrecurse = f",
    "call": "class C: pass\nC.__call__ = C()\nrecurse = C()",
    "str format": "class C:\n    def __format__(self, spec): return f'{self}'\n"
    "    __str__ = lambda self: format(self)\nrecurse = lambda: str(C())",
    "new": "class C:\n    def __new__(cls): return C()\nrecurse = C",
    "hash": "x = ()\nfor _ in range(200_000): x = (x,)\nrecurse = lambda: hash(x)",
    "copy": "import copy\nx = []\nfor _ in range(50_000): x = [x]\nrecurse = lambda: copy.deepcopy(x)",
    "pickle": "import pickle\nx = []\nfor _ in range(200_000): x = [x]\n"
    "recurse = lambda: pickle.dumps(x)",
    "re": "import re\nrecurse = lambda: re.compile('(' * 5000 + ')' * 5000)",
    "ast": "recurse = lambda: compile('-' * 100_000 + '1', '', 'eval')",
    "parser": "recurse = lambda: compile('(' * 150 + ')' * 150, '', 'eval')",
    "isinstance": "x = int\nfor _ in range(100_000): x = (x,)\nrecurse = lambda: isinstance('', x)",
    "compare dicts": "a = {}; b = {}\nfor _ in range(200_000): a = {0: a}; b = {0: b}\n"
    "recurse = lambda: a == b",
    "generators": "def g():\n    yield from g()\nrecurse = lambda: next(g())",
    "del chain": "class N:\n    def __init__(self, n): self.n = n\n    def __del__(self): del self.n\n"
    "def recurse():\n    x = None\n    for _ in range(20_000): x = N(x)\n    del x",
}


@pytest.mark.parametrize("where", ["main", "goroutine"])
@pytest.mark.parametrize("kind", RECURSIONS)
def test_recursion_through_c(script: Script, kind: str, where: str) -> None:
    start = "recurse()" if where == "main" else "golibx.go(recurse).result()"
    # os._exit: what is nested that deep can crash Python itself when it is freed.
    result = script(
        f"""
import os, sys
import golibx
{RECURSIONS[kind]}
def main():
    try:
        {start}
    except (RecursionError, MemoryError, ImportError, SyntaxError) as exc:
        print(type(exc).__name__)
    else:
        print("no limit reached")
    print("alive", golibx.go(lambda: 5).result(), flush=True)
    os._exit(0)
golibx.run(main)
"""
    )
    if result.returncode == 0:
        assert result.stdout.endswith("alive 5\n")
    else:
        assert re.search(r"^golibx: fatal: goroutine \d overflowed its stack", result.stderr), (
            f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
        )


@pytest.mark.parametrize("limit", [10_000, 1_000_000])
@pytest.mark.parametrize("kind", ["sort key", "getattr", "map", "repr"])
def test_recursion_through_c_beyond_a_raised_limit(script: Script, kind: str, limit: int) -> None:
    result = script(
        f"""
import os, sys
import golibx
sys.setrecursionlimit({limit})
{RECURSIONS[kind]}
def main():
    try:
        golibx.go(recurse).result()
    except (RecursionError, MemoryError) as exc:
        print(type(exc).__name__, flush=True)
    os._exit(0)
golibx.run(main)
"""
    )
    if result.returncode:
        assert re.search(r"^golibx: fatal: goroutine 2 overflowed its stack", result.stderr), (
            f"exit code {result.returncode}\n{result.stderr}"
        )
        assert "(most recent call first):\n  File" in result.stderr
    else:
        assert result.stdout == "RecursionError\n"


# ---- where there is no goroutine ----

CALLS: dict[str, Callable[[], object]] = {
    "go": lambda: go(print),
    "gosched": gosched,
    "sleep": lambda: sleep(0.001),
    "recv": lambda: Chan[int]().recv(),
    "recv_ok": lambda: Chan[int]().recv_ok(),
    "send": lambda: Chan[int]().send(1),
    "iterate": lambda: list(Chan[int]()),
    "select": lambda: select(Chan[int]().on_recv()),
    "wait": lambda: (group := WaitGroup(), group.add(), group.wait()),
    "waitgroup go": lambda: WaitGroup().go(print),
    "blocking": lambda: blocking(print),
    "cancel_all": lambda: _core.cancel_all(0),
    "events_wait": lambda: _core.events_wait(0, 0),
}


@pytest.mark.parametrize("name", CALLS)
def test_outside_a_run(name: str) -> None:
    with pytest.raises(RuntimeError, match="no golibx runtime is running"):
        CALLS[name]()


@pytest.mark.goroutine
@pytest.mark.parametrize("name", ["blocking", "cancel_all", "events_wait", "gosched"])
def test_from_a_foreign_thread(name: str) -> None:
    caught: list[BaseException] = []

    def in_thread() -> None:
        try:
            CALLS[name]()
        except BaseException as exc:
            caught.append(exc)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    [exc] = caught
    assert isinstance(exc, RuntimeError)
    assert "this thread runs no goroutine" in str(exc)


@pytest.mark.goroutine
def test_go_from_a_foreign_thread() -> None:
    out: list[object] = []
    done: Chan[int] = Chan(1)

    def in_thread() -> None:
        g = go(lambda: done.send(5))
        out.append((g.parent, g.done()))

    thread = threading.Thread(target=in_thread)
    thread.start()
    assert done.recv(timeout=30) == 5
    thread.join()
    assert out == [(0, False)] or out == [(0, True)]


@pytest.mark.goroutine
def test_what_works_from_a_foreign_thread() -> None:
    out: list[object] = []
    ch: Chan[int] = Chan(5)
    g = go(ch.recv)
    gosched()

    def in_thread() -> None:
        out.append(current())
        out.append(num_goroutine())
        out.append(stats()["goroutines"])
        out.append(ch.try_send(1))
        out.append(g.done())
        out.append("goroutine 1 [" in golibx.stacks())
        out.append(select(ch.on_recv(), default=True)[2] in (True, False))
        group = WaitGroup()
        group.add()
        group.done()
        out.append(group.wait())

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert out[:4] == [None, 2, 2, True]
    assert out[5:] == [True, True, True]
    g.join()


@pytest.mark.goroutine
def test_a_second_run_inside() -> None:
    with pytest.raises(RuntimeError, match="already running in this process"):
        run(lambda: None)
    caught: list[BaseException] = []

    def in_thread() -> None:
        try:
            run(lambda: None)
        except RuntimeError as exc:
            caught.append(exc)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert len(caught) == 1
    assert go(lambda: 5).result() == 5


def test_runs_in_sequence() -> None:
    for i in range(50):
        assert run(lambda i=i: go(lambda: i).result()) == i


def test_runs_that_fail_in_sequence() -> None:
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            run(lambda: 1 / 0)
        with pytest.raises(golibx.Deadlock):
            run(Chan[int]().recv)
        with pytest.raises(SystemExit):
            run(exit)


def test_runs_on_other_threads() -> None:
    out: list[object] = []
    for i in range(5):
        thread = threading.Thread(target=lambda i=i: out.append(run(lambda: go(abs, -i).result())))
        thread.start()
        thread.join()
    assert out == [0, 1, 2, 3, 4]
    assert run(lambda: 6) == 6


def test_no_threads_are_left() -> None:
    def main() -> None:
        import time

        for g in [go(time.sleep, 0.005) for _ in range(5)]:
            g.join()

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    run(main)
    before = threads()
    for _ in range(5):
        run(main)
    # A thread that came back late ends by itself, a moment after the run. This passes its time
    # limit if one never does.
    wait_until(lambda: threads() <= before)
    assert not _core.active()


def test_results_and_arguments_of_run() -> None:
    def f(*args: object, **kwargs: object) -> object:
        return args, kwargs

    assert run(f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, x=1) == ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10), {"x": 1})
    with pytest.raises(TypeError):
        run()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        run(5)  # type: ignore[arg-type]


# ---- wrong arguments ----

untyped: Any = golibx

WRONG_ARGUMENTS: dict[str, tuple[Callable[[], object], str]] = {
    "too few": (
        lambda: untyped.Chan().send(),
        r"send\(\) missing required argument 'value' \(pos 1\)",
    ),
    "the second": (
        lambda: untyped.AtomicInt().compare_and_swap(1),
        r"compare_and_swap\(\) missing required argument 'new' \(pos 2\)",
    ),
    "too many": (
        lambda: untyped.Chan().send(1, 2, 3),
        r"send\(\) takes at most 2 arguments \(3 given\)",
    ),
    "too many where all must be": (
        lambda: untyped.AtomicInt().compare_and_swap(1, 2, 3),
        r"compare_and_swap\(\) takes exactly 2 arguments \(3 given\)",
    ),
    "too many with names": (
        lambda: untyped.Chan().recv(timeout=1, what=2),
        r"recv\(\) takes at most 1 keyword argument \(2 given\)",
    ),
    "an unknown name": (
        lambda: untyped.Chan().send(1, time=2),
        r"send\(\) got an unexpected keyword argument 'time'",
    ),
    "twice": (
        lambda: untyped.Chan().send(1, value=2),
        r"send\(\) got multiple values for argument 'value'",
    ),
    "some where there are none": (
        lambda: untyped.Event().set(1),
        r"Event.set\(\) takes no arguments",
    ),
    "none where there is one": (
        lambda: untyped.AtomicInt().store(),
        r"AtomicInt.store\(\) takes exactly one argument \(0 given\)",
    ),
    "too few by position": (
        lambda: untyped._core.context_with_value(None, None),
        r"context_with_value expected 3 arguments, got 2",
    ),
    "a constructor with too few": (
        untyped.Semaphore,
        r"Semaphore\(\) missing required argument 'n' \(pos 1\)",
    ),
    "a constructor with too many": (
        lambda: untyped.Chan(1, 2),
        r"Chan\(\) takes at most 1 argument \(2 given\)",
    ),
    "a constructor with an unknown name": (
        lambda: untyped.Chan(size=1),
        r"Chan\(\) got an unexpected keyword argument 'size'",
    ),
    "a constructor without any": (lambda: untyped.Mutex(1), r"Mutex\(\) takes no arguments"),
    "a constructor by name": (
        lambda: untyped.SendChan(chan=untyped.Chan()),
        r"SendChan\(\) takes no keyword arguments",
    ),
    "a property": (lambda: delattr(current(), "name"), "a goroutine's name cannot be deleted"),
}


@pytest.mark.goroutine
@pytest.mark.parametrize("case", WRONG_ARGUMENTS)
def test_wrong_arguments_are_told_as_by_the_interpreter(case: str) -> None:
    call, text = WRONG_ARGUMENTS[case]
    with pytest.raises((TypeError, AttributeError), match=f"^{text}"):
        call()


def test_every_function_of_the_library_tells_its_signature() -> None:
    """That of a type, too, if programs may call it."""
    owners: list[object] = [_core]
    owners += [t for t in vars(_core).values() if isinstance(t, type)]
    for owner in owners:
        for name, function in vars(owner).items():
            if isinstance(function, BuiltinFunctionType | MethodDescriptorType):
                assert inspect.signature(function), f"{owner}.{name}"
    assert str(inspect.signature(Chan.send)) == "(self, /, value, timeout=None)"
    assert str(inspect.signature(Chan.try_send)) == "(self, value, /)"
    assert str(inspect.signature(golibx.Mutex.__exit__)) == "(self, /, *exc_info)"
    assert str(inspect.signature(golibx.Semaphore)) == "(n)"
    assert str(inspect.signature(go)) == "(fn, /, *args, **kwargs)"


# ---- wrong types and values ----


@pytest.mark.goroutine
@pytest.mark.parametrize("bad", [None, 5, "print", [], ...])
def test_go_needs_a_callable(bad: object) -> None:
    with pytest.raises(TypeError, match=f"go\\(\\) needs a callable, not {type(bad).__name__}"):
        go(bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        go(bad, 1, x=2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing the function"):
        go()  # type: ignore[call-arg]
    assert num_goroutine() == 1


async def fetch(n: int = 0) -> int:
    return n


async def items() -> AsyncIterator[int]:
    yield 1


class Client:
    async def get(self) -> None: ...

    get_it = partialmethod(get)


class Caller:
    async def __call__(self) -> None: ...


class Stream:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


class Derived(Caller): ...


class Static:
    @staticmethod
    async def __call__() -> None: ...


class ByClass:
    @classmethod
    async def __call__(cls) -> None: ...


class OfAnother:
    __call__ = Caller()


class Meta(type):
    async def __call__(cls) -> None: ...


class Partial(partial[Any]): ...


class Plain:
    """None of its calls makes a coroutine."""

    def __call__(self) -> int:
        return 1

    @cache  # noqa: B019
    def cached(self) -> int:
        return 1

    part = partialmethod(lambda _: 1)


class OwnPartial(partial[Any]):
    def __call__(self) -> int:
        return 1


@wraps(fetch)
def awaits_it() -> int:
    return asyncio.run(fetch(1))


ASYNC: dict[str, Callable[..., object]] = {
    "fetch": fetch,
    "items": items,
    "Client.get": Client().get,
    "fetch of a partial": partial(partial(fetch), 1),
    "Client.get of a partial": partial(Client().get),
    "Client.get of a partial method": Client().get_it,
    "Caller.__call__": Caller(),
    "Caller.__call__ as a method": Caller().__call__,
    "Caller.__call__ of a partial": partial(Caller()),
    "Caller.__call__ of a base": Derived(),
    "Caller.__call__ of an attribute": OfAnother(),
    "Stream.__call__": Stream(),
    "Static.__call__": Static(),
    "ByClass.__call__": ByClass(),
    "Meta.__call__": Meta("Class", (), {}),
    "fetch of a derived partial": Partial(fetch),
    "fetch of a cache": cache(fetch),
    "fetch of a static method": staticmethod(fetch),
}

ASYNC_GENERATORS = {"items", "Stream.__call__"}

PLAIN: dict[str, Callable[..., object]] = {
    "instance": Plain(),
    "method": Plain().__call__,
    "partial": partial(Plain()),
    "partial method": Plain().part,
    "cached method": Plain().cached,
    "derived partial that does not call it": OwnPartial(fetch),
    "wrapper that awaits": awaits_it,
    "class": Plain,
    "built-in": "".upper,
    "built-in of a partial": partial(abs, -1),
    "slot": Plain().__str__,
}


@pytest.mark.goroutine
@pytest.mark.parametrize("name", ASYNC)
def test_an_async_function_is_refused_with_a_hint(name: str) -> None:
    function = ASYNC[name]
    qualname = name.partition(" ")[0]
    hint = (
        rf"{qualname}\(\) is an async generator: golibx.aio.run\(...\) awaits .* `async for` over it"
        if name in ASYNC_GENERATORS
        else rf"{qualname}\(\) is async: golibx.aio.run\({qualname}\(...\)\) awaits it"
    )
    starts: list[Callable[[Callable[..., object]], object]] = [
        golibx.go,
        golibx.WaitGroup().go,
        lambda f: golibx.Timer(60, f),
        lambda f: golibx.context.after_func(golibx.context.background(), f),
        lambda f: golibx.Once().do(f),
        lambda f: golibx.Cond(golibx.Mutex()).wait_for(f),
    ]
    for start in starts:
        with pytest.raises(TypeError, match=hint):
            start(function)
    with golibx.scope() as s, pytest.raises(TypeError, match=hint):
        s.go(function)
    assert golibx.go(golibx.aio.run, fetch(3)).result() == 3


@pytest.mark.goroutine
@pytest.mark.parametrize("name", PLAIN)
def test_what_is_called_by_something_else_is_not_taken_for_async(name: str) -> None:
    expected = PLAIN[name]()
    assert type(golibx.go(PLAIN[name]).result()) is type(expected)


@pytest.mark.goroutine
def test_a_callable_that_calls_itself_is_no_circle_for_go() -> None:
    class Endless: ...

    Endless.__call__ = Endless()  # type: ignore[attr-defined]
    with pytest.raises(RecursionError):
        golibx.go(Endless()).result()  # type: ignore[arg-type]


def test_run_refuses_an_async_function() -> None:
    with pytest.raises(TypeError, match=r"fetch\(\) is async: golibx.run\(asyncio.run, fetch"):
        golibx.run(fetch)
    for name in "Client.get", "fetch of a partial", "Stream.__call__":
        what = "an async generator: .* `async for`" if name in ASYNC_GENERATORS else "async"
        with pytest.raises(TypeError, match=rf"{name.partition(' ')[0]}\(\) is {what}"):
            golibx.run(ASYNC[name])
        with pytest.raises(TypeError, match=rf"{name.partition(' ')[0]}\(\) is {what}"):
            golibx.testing.run(ASYNC[name], seed=1)
    assert golibx.run(asyncio.run, fetch(4)) == 4


@pytest.mark.parametrize("config", [5, b"golib.toml", ["preempt"]])
def test_run_refuses_what_is_no_configuration(config: object) -> None:
    with pytest.raises(TypeError, match=r"config must be .* not (5|b'golib.toml'|\['preempt'\])"):
        golibx.run(int, config=config)  # type: ignore[call-overload]


@pytest.mark.goroutine
def test_blocking_refuses_an_async_function() -> None:
    with pytest.raises(TypeError, match=r"blocking\(\) needs .* and fetch\(\) is async"):
        golibx.blocking(fetch)


def test_serve_refuses_an_async_handler_before_it_listens() -> None:
    with pytest.raises(TypeError, match=r"serve\(\) needs a handler .* and fetch\(\) is async"):
        golibx.net.serve(fetch, "127.0.0.1:0")
    with pytest.raises(
        TypeError, match=r"serve\(\) needs a handler .* Caller.__call__\(\) is async"
    ):
        golibx.net.serve(partial(Caller()), "127.0.0.1:0")
    with pytest.raises(TypeError, match=r"items\(\) is an async generator: .* `async for` over it"):
        golibx.net.serve(items, "127.0.0.1:0")


def test_an_executor_refuses_an_async_initializer() -> None:
    with pytest.raises(TypeError, match=r"initializer is async, and nothing would await fetch"):
        golibx.GoroutinePoolExecutor(initializer=fetch)
    with pytest.raises(TypeError, match=r"is an async generator, .* would go through items\(\)"):
        golibx.GoroutinePoolExecutor(initializer=items)


@pytest.mark.goroutine
def test_wrong_arguments_are_the_goroutines_error() -> None:
    g = go(lambda a, b: None, 1)  # type: ignore[call-arg, misc]
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        g.result()


@pytest.mark.goroutine
def test_join_and_result_of_itself() -> None:
    me = current()
    assert me is not None
    for f in (me.join, me.result, lambda: me.join(1)):
        with pytest.raises(RuntimeError, match="cannot wait for itself"):
            f()


@pytest.mark.goroutine
def test_cancel_of_what_has_ended() -> None:
    good, bad = go(lambda: 5), go(lambda: 1 / 0)
    good.join()
    bad.join()
    assert good.cancel() is False
    assert bad.cancel() is False
    assert good.result() == 5
    assert isinstance(bad.exception, ZeroDivisionError)


@pytest.mark.goroutine
def test_main_cancels_itself() -> None:
    me = current()
    assert me is not None
    assert me.cancel()
    with pytest.raises(golibx.Cancelled):
        gosched()


def test_a_cancelled_main() -> None:
    def main() -> None:
        me = current()
        assert me is not None
        go(me.cancel)
        Chan[int]().recv()

    with pytest.raises(golibx.Cancelled):
        run(main)


@pytest.mark.goroutine
@pytest.mark.parametrize("bad", ["1", [], object(), b"1", 1j])
def test_timeouts_of_wrong_types(bad: object) -> None:
    ch: Chan[int] = Chan()
    group = WaitGroup()
    group.add()
    g = go(ch.recv)
    calls: list[Callable[[], object]] = [
        lambda: ch.recv(bad),  # type: ignore[arg-type]
        lambda: ch.recv_ok(timeout=bad),  # type: ignore[arg-type]
        lambda: Chan[int]().send(1, bad),  # type: ignore[arg-type]
        lambda: select(ch.on_recv(), timeout=bad),  # type: ignore[call-overload]
        lambda: g.join(bad),  # type: ignore[arg-type]
        lambda: g.result(timeout=bad),  # type: ignore[arg-type]
        lambda: group.wait(bad),  # type: ignore[arg-type]
    ]
    for f in calls:
        with pytest.raises(TypeError):
            f()
    nan_calls: list[Callable[[], object]] = [
        lambda: ch.recv(float("nan")),
        lambda: g.join(float("nan")),
        lambda: group.wait(float("nan")),
    ]
    for f in nan_calls:
        with pytest.raises(ValueError, match="nan"):
            f()
    ch.send(1)
    assert g.result() == 1


@pytest.mark.goroutine
def test_wrong_numbers_of_arguments() -> None:
    ch: Chan[int] = Chan(1)
    g = go(lambda: None)
    calls: list[Callable[[], object]] = [
        lambda: ch.send(),  # type: ignore[call-arg]
        lambda: ch.send(1, 2, 3),  # type: ignore[call-arg]
        lambda: ch.send(1, timeout=1, other=2),  # type: ignore[call-arg]
        lambda: ch.send(1, 1, timeout=1),  # type: ignore[misc]
        lambda: ch.recv(1, 2),  # type: ignore[call-arg]
        lambda: ch.recv(other=1),  # type: ignore[call-arg]
        lambda: ch.recv_ok(1, 2),  # type: ignore[call-arg]
        lambda: ch.try_send(),  # type: ignore[call-arg]
        lambda: ch.try_recv(1),  # type: ignore[call-arg]
        lambda: ch.close(1),  # type: ignore[call-arg]
        lambda: ch.on_send(),  # type: ignore[call-arg]
        lambda: g.join(1, 2),  # type: ignore[call-arg]
        lambda: g.result(time=1),  # type: ignore[call-arg]
        lambda: g.cancel(1),  # type: ignore[call-arg]
        lambda: gosched(1),  # type: ignore[call-arg]
        lambda: sleep(1, 2),  # type: ignore[call-arg]
        lambda: sleep(seconds=1),  # type: ignore[call-arg]
        lambda: num_goroutine(1),  # type: ignore[call-arg]
        lambda: gomaxprocs(1, 2),  # type: ignore[call-arg]
    ]
    for f in calls:
        with pytest.raises(TypeError):
            f()
    assert len(ch) == 0


def test_channel_capacities() -> None:
    for bad in (-1, -(2**62), 2**41):
        with pytest.raises(ValueError, match="Chan capacity must be between 0 and"):
            Chan(bad)
    with pytest.raises((MemoryError, ValueError)):
        Chan(2**40)
    with pytest.raises(OverflowError):
        Chan(2**64)
    for bad_type in ("1", 1.0, None, []):
        with pytest.raises(TypeError):
            Chan(bad_type)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Chan(1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Chan(1, capacity=2)  # type: ignore[misc]
    with pytest.raises(TypeError):
        Chan(size=2)  # type: ignore[call-arg]

    class Index:
        def __index__(self) -> int:
            return 3

    assert Chan(Index()).capacity == 3  # type: ignore[arg-type]
    assert Chan(True).capacity == 1


def test_gomaxprocs() -> None:
    before = gomaxprocs()
    assert before >= 1
    assert gomaxprocs(3) == before
    assert gomaxprocs(0) == 3
    assert gomaxprocs(n=before) == 3
    assert gomaxprocs(None) == before
    for bad in (-1, 1025, 2**70):
        with pytest.raises((ValueError, OverflowError)):
            gomaxprocs(bad)
    with pytest.raises(TypeError):
        gomaxprocs("2")  # type: ignore[arg-type]
    assert gomaxprocs() == before


@pytest.mark.goroutine
def test_system_calls_of_the_runtime_layer() -> None:
    with pytest.raises(TypeError):
        _core.throw_main("not an exception")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.throw_main(ValueError)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.cancel_all("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.set_event_mask("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.go_system(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.Socket()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        _core.Socket("1")  # type: ignore[arg-type]
    with pytest.raises((ValueError, OSError)):
        _core.Socket(-1)
    with pytest.raises(OSError):
        _core.Socket(10**6)


def test_options_of_the_core(request: pytest.FixtureRequest) -> None:
    bad: list[dict[str, int]] = [
        {"stack_size": 1},
        {"stack_size": 65537},
        {"stack_size": -1},
        {"stack_main_size": 5},
        {"max_threads": -1},
        {"sysmon_sleep_min_ns": -5},
        {"hooks_ring_size": -1},
        {"hooks_ring_size": 2**63},
    ]
    with pytest.raises(RuntimeError, match="claim"):
        _core.run(print, (), None, {})
    _core.claim()
    request.addfinalizer(_core.unclaim)
    for options in bad:
        with pytest.raises((ValueError, OverflowError)):
            _core.run(print, (), None, options)
    with pytest.raises(TypeError):
        _core.run(print, (), None)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        _core.run(print, (), None, {"seed": "x"})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        _core.run(5, (), None, {})  # type: ignore[arg-type]
    with pytest.raises(SystemError):
        _core.run(print, [], None, {})  # type: ignore[arg-type]
    assert _core.run(lambda: 5, (), None, {}) == 5


def test_types_cannot_be_changed() -> None:
    for cls in (Chan, WaitGroup, golibx.Goroutine, golibx.Case):
        with pytest.raises(TypeError):
            cls.extra = 1  # type: ignore[attr-defined, union-attr]
        with pytest.raises(TypeError):
            type("Mine", (cls,), {})
    with pytest.raises(AttributeError):
        Chan[int]().extra = 1  # type: ignore[attr-defined]


def test_what_cannot_be_copied_or_pickled() -> None:
    import copy
    import pickle

    for thing in (Chan[int](), WaitGroup()):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
        with pytest.raises(TypeError):
            copy.copy(thing)


def test_free_threaded_builds_are_refused(script: Script) -> None:
    """Their objects look different from what the library takes them for."""
    result = script(
        "import sys\n"
        "sys.version = sys.version.replace('(', 'experimental free-threading build (', 1)\n"
        "import golibx._core\n"
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: golibx does not support free-threaded builds of Python")


def test_panics_at_once_take_no_threads(script: Script) -> None:
    # All but one wait while the first of them imports what shows its traceback.
    program = """
import sys, time
from importlib.machinery import PathFinder, SourceFileLoader
import golibx
from golibx import go, sleep, stats

class Slow(SourceFileLoader):
    def exec_module(self, module):
        time.sleep(0.2)
        super().exec_module(module)

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in ("traceback", "golibx.dump"):
            return None
        spec = PathFinder.find_spec(name, path)
        spec.loader = Slow(name, spec.origin)
        return spec

def fail():
    raise ValueError

def main():
    for name in ("traceback", "golibx.dump"):
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Slow)
    for _ in range(300):
        go(fail)
    while stats()["goroutines"] > 1:
        sleep(0.01)
    print(stats()["threads"])

golibx.run(main)
"""
    result = script(program)
    assert result.returncode == 0
    assert result.stderr.count("panicked:") == 300
    assert int(result.stdout) < 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each function has a process")
@pytest.mark.limit(300)
@pytest.mark.parametrize("where", ["main", "run"])
def test_wrong_arguments_crash_no_function_of_the_core(script: Script, where: str) -> None:
    result = script(WRONG_CALLS, where, limit=280)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the system says where code lies")
def test_a_native_function_lies_where_code_is() -> None:
    data = ctypes.create_string_buffer(64)
    for address in (1, 4096, ctypes.addressof(data), 1 << 46, (1 << 64) - 1):
        with pytest.raises(ValueError, match=rf"no code at address {address:#x}"):
            native.go(address)
        with pytest.raises(ValueError, match=rf"no code at address {address:#x}"):
            native.call(address)
    # Code that libffi has made, and a library's, as addresses.
    doubled = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: n * 2)
    for _ in range(2):
        assert native.call(ctypes.cast(doubled, ctypes.c_void_p).value, 21) == 42
    labs = ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p).value
    assert native.call(labs, -7, restype=ctypes.c_long) == 7
