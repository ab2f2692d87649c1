"""Runtime.watch_goroutines() and watch_scopes(): what is called where they begin and end."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import (
    AtomicInt,
    Cancelled,
    Chan,
    DeadlineExceeded,
    Goroutine,
    WaitGroup,
    context,
    current,
    go,
    labels,
    scope,
    sleep,
    watchers,
)
from golibx.hookspec import hookimpl
from golibx.runtime import Runtime
from golibx.scope import Scope
from golibx.testing import wait_until, wait_until_parked
from golibx.testing.plugins import run_with

variable: ContextVar[str] = ContextVar("variable", default="")


class Plugin:
    """Notes what it is called with."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.runtime: Runtime | None = None

    @hookimpl
    def golib_start(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.stop = runtime.watch_goroutines(self.begin, self.end)
        self.stop_scopes = runtime.watch_scopes(self.begin_scope, self.end_scope)

    def begin(self, goroutine: Goroutine[Any]) -> int:
        assert goroutine is current()
        variable.set(f"{variable.get()}/{name_of(goroutine)}")
        self.seen.append(("begin", name_of(goroutine)))
        return goroutine.id

    def end(self, note: int, outcome: str, exception: BaseException | None) -> None:
        goroutine = current()
        assert goroutine is not None
        assert goroutine.id == note
        assert not goroutine.done()
        self.seen.append((outcome, name_of(goroutine), type(exception).__name__))

    def begin_scope(self, begun: Scope) -> str:
        assert begun.context is not None
        variable.set(f"{variable.get()}/scope")
        return variable.get()

    def end_scope(self, note: str, exception: BaseException | None) -> None:
        self.seen.append(("scope", note, type(exception).__name__))


def watched(main: Callable[[], object], plugin: Plugin | None = None) -> list[tuple[Any, ...]]:
    plugin = plugin or Plugin()
    seen = run_with(plugin, main)
    if seen.error is not None:
        raise seen.error
    return plugin.seen


def named(name: str, function: Callable[[], object]) -> Goroutine[Any]:
    with labels(name=name):
        return go(function)


def name_of(goroutine: Goroutine[Any]) -> str:
    return goroutine.labels.get("name", "?")


# ---- goroutines ----


def test_a_goroutine_calls_them_before_its_function_and_after_it() -> None:
    values = []

    def inner() -> None:
        values.append(variable.get())

    def outer() -> None:
        values.append(variable.get())
        named("inner", inner).join()
        values.append(variable.get())

    def main() -> None:
        named("outer", outer).join()
        values.append(variable.get())

    assert watched(main) == [
        ("begin", "outer"),
        ("begin", "inner"),
        ("returned", "inner", "NoneType"),
        ("returned", "outer", "NoneType"),
    ]
    assert values == ["/outer", "/outer/inner", "/outer", ""]


def test_they_learn_how_it_has_ended() -> None:
    def fails() -> None:
        raise KeyError("k")

    def main() -> None:
        named("fails", fails).join()
        waiting = named("waits", Chan().recv)
        wait_until_parked(waiting)
        waiting.cancel()
        waiting.join()
        unborn = named("unborn", fails)
        unborn.cancel()
        unborn.join()
        deadline = context.with_timeout(context.background(), 0.001)[0]
        with deadline:
            late = named("late", lambda: sleep(60))
        late.join()

    assert [each for each in watched(main) if each[0] != "begin"] == [
        ("raised", "fails", "KeyError"),
        ("cancelled", "waits", "Cancelled"),
        ("cancelled", "unborn", "Cancelled"),
        ("cancelled", "late", "DeadlineExceeded"),
    ]


def test_nobody_learns_of_the_end_before_them() -> None:
    ended: list[str] = []

    class Slow(Plugin):
        def end(self, note: int, outcome: str, exception: BaseException | None) -> None:
            goroutine = current()
            assert goroutine is not None
            for _ in range(5):
                golibx.gosched()  # all others run
            ended.append(name_of(goroutine))

    def main() -> None:
        joined = named("joined", lambda: None)
        joined.join()
        assert ended == ["joined"]
        group = WaitGroup()
        group.go(lambda: None)
        group.wait()
        assert len(ended) == 2
        with scope() as s:
            s.go(lambda: None)
        assert len(ended) == 3
        chosen = go(lambda: None)
        golibx.select(chosen.on_done())
        assert len(ended) == 4

    watched(main, Slow())


def test_main_service_and_native_goroutines_do_not_call_them() -> None:
    plugin = Plugin()

    def main() -> None:
        assert plugin.runtime is not None
        plugin.runtime.go_system(lambda: None).join()
        plugin.runtime.start_thread(lambda: None).join()

    assert watched(main, plugin) == []


def test_one_that_a_thread_starts_calls_them_too() -> None:
    def main() -> None:
        begun: Chan[Goroutine[None]] = Chan()

        def start() -> None:
            variable.set("thread")
            begun.send(named("of a thread", lambda: seen.append(variable.get())))

        thread = threading.Thread(target=start)
        thread.start()
        begun.recv().join()
        thread.join()

    seen: list[str] = []
    assert len(watched(main)) == 2
    assert seen == ["thread/of a thread"]


def test_a_panic_is_reported_as_without_them(capfd: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise ValueError("no such user")

    def main() -> None:
        with labels(name="fails"):
            go(fails)
        text = [""]

        def is_reported() -> bool:
            text[0] += capfd.readouterr().err
            return "ValueError: no such user" in text[0]

        wait_until(is_reported)
        assert "panicked:" in text[0]

    assert ("raised", "fails", "ValueError") in watched(main)


def test_stop_and_the_end_of_the_run() -> None:
    plugin = Plugin()

    def main() -> None:
        waiting = named("waiting", Chan().recv)
        wait_until_parked(waiting)
        plugin.stop()
        plugin.stop()
        named("after", lambda: None).join()
        waiting.cancel()
        waiting.join()

    assert watched(main, plugin) == [
        ("begin", "waiting"),
        ("cancelled", "waiting", "Cancelled"),
    ]
    other = Plugin()
    watched(lambda: None, other)
    golibx.run(lambda: go(lambda: None).join())
    assert other.seen == []
    assert watchers.goroutines.present == watchers.scopes.present == ()
    assert other.runtime is not None
    with pytest.raises(RuntimeError, match="is for a run that goes on"):
        other.runtime.watch_goroutines(other.begin, other.end)


def test_two_are_nested() -> None:
    calls: list[str] = []

    class Two:
        @hookimpl
        def golib_start(self, runtime: Runtime) -> None:
            for name in "ab":
                runtime.watch_goroutines(
                    lambda g, name=name: calls.append(f"begin {name}") or name,
                    lambda note, outcome, exc: calls.append(f"end {note}"),
                )

    seen = run_with(Two(), lambda: go(lambda: None).join())
    assert seen.error is None
    assert calls == ["begin a", "begin b", "end b", "end a"]


def test_what_is_no_function_is_refused() -> None:
    plugin = Plugin()

    def main() -> None:
        assert plugin.runtime is not None
        with pytest.raises(TypeError, match="begin must be a function, not 7"):
            plugin.runtime.watch_goroutines(7, print)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="end must be a function, not None"):
            plugin.runtime.watch_scopes(print, None)  # type: ignore[arg-type]

    watched(main, plugin)


# ---- what goes wrong in them ----


@pytest.mark.parametrize("role", ["begin", "end"])
@pytest.mark.parametrize(
    "error", [ValueError("mine"), SystemExit(3), Cancelled("mine"), GeneratorExit("mine")]
)
def test_one_that_raises_is_reported_once_and_the_program_goes_on(
    role: str, error: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object) -> None:
        raise error

    plugin = Plugin()
    setattr(plugin, role, fail)

    def main() -> None:
        ended = [go(lambda x: x * x, x) for x in range(20)]
        assert [g.result() for g in ended] == [x * x for x in range(20)]
        with scope() as s:
            s.go(sleep, 0)

    seen = watched(main, plugin)
    text = capfd.readouterr().err
    assert text.count("golibx: plugin") == 1
    assert f"raised in the {role} of watch_goroutines() and does not watch any more:" in text
    assert text.count("mine") == (0 if isinstance(error, SystemExit) else 1)
    assert "in fail" in text
    assert len([each for each in seen if each[0] == "scope"]) == 1


@pytest.mark.parametrize("role", ["begin_scope", "end_scope"])
def test_one_of_scopes_that_raises(role: str, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(*args: object) -> None:
        raise ValueError("mine")

    plugin = Plugin()
    setattr(plugin, role, fail)

    def main() -> None:
        for _ in range(5):
            with scope() as s:
                child = s.go(lambda: 7)
            assert child.result() == 7

    watched(main, plugin)
    text = capfd.readouterr().err
    assert text.count("golibx: plugin") == text.count("ValueError: mine") == 1
    assert f"{role.removesuffix('_scope')} of watch_scopes()" in text


@pytest.mark.parametrize(
    "thrown", [None, KeyError("thrown")], ids=["cancelled", "another exception"]
)
def test_what_comes_while_begin_waits_is_raised_later(
    thrown: BaseException | None, capfd: pytest.CaptureFixture[str]
) -> None:
    gate: Chan[None] = Chan()
    has_begun = []

    class Waits(Plugin):
        def begin(self, goroutine: Goroutine[Any]) -> int:
            if name_of(goroutine) == "victim":
                gate.recv()
            return super().begin(goroutine)

    def body() -> None:
        has_begun.append(1)
        Chan[None]().recv()

    def main() -> None:
        victim = named("victim", body)
        wait_until_parked(victim)
        if thrown is None:
            victim.cancel()
            with pytest.raises(Cancelled):
                victim.result()
        else:
            victim.throw(thrown)
            with pytest.raises(KeyError):
                victim.result()
        assert has_begun == [1]
        named("another", lambda: None).join()

    # begin() has not come to its end, so end() is not called.
    assert watched(main, Waits()) == [
        ("begin", "another"),
        ("returned", "another", "NoneType"),
    ]
    assert capfd.readouterr().err == ""


def test_a_wait_under_a_context_that_is_done_is_not_its_fault(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Waits(Plugin):
        def end(self, note: int, outcome: str, exception: BaseException | None) -> None:
            super().end(note, outcome, exception)
            sleep(0.001)

    def main() -> None:
        with scope() as s:
            with labels(name="child"):
                s.go(sleep, 60)
            s.cancel()
        named("later", lambda: None).join()

    seen = watched(main, Waits())
    assert ("cancelled", "child", "Cancelled") in seen
    assert ("returned", "later", "NoneType") in seen
    assert capfd.readouterr().err == ""


def test_the_end_of_a_run_finds_some_in_them() -> None:
    gate: Chan[None] = Chan()

    class Waits(Plugin):
        def end(self, note: int, outcome: str, exception: BaseException | None) -> None:
            super().end(note, outcome, exception)
            gate.recv()

    def main() -> None:
        waiting = [go(lambda: None) for _ in range(5)]
        for goroutine in waiting:
            wait_until_parked(goroutine)

    assert len(watched(main, Waits())) == 10


def test_nothing_is_kept() -> None:
    class Thing:
        pass

    def alive() -> int:
        gc.collect()
        return sum(type(each) is Thing for each in gc.get_objects())

    class Notes(Plugin):
        def begin(self, goroutine: Goroutine[Any]) -> Any:
            return Thing()

        def end(self, note: Any, outcome: str, exception: BaseException | None) -> None:
            pass

    def main() -> None:
        for _ in range(20):
            go(lambda: None).join()
            failed = go(int, "x")
            failed.join()
            assert isinstance(failed.exception, ValueError)
            del failed
        cancelled = go(sleep, 60)
        cancelled.cancel()
        cancelled.join()
        assert alive() == 0

    seen = run_with(Notes(), main)
    assert seen.error is None


def test_very_many_at_a_time() -> None:
    count = AtomicInt()

    class Counts(Plugin):
        def begin(self, goroutine: Goroutine[Any]) -> int:
            count.add()
            return 1

        def end(self, note: int, outcome: str, exception: BaseException | None) -> None:
            count.add(-note)

    def main() -> None:
        gate: Chan[None] = Chan()
        waiting = [go(gate.recv_ok) for _ in range(2000)]
        wait_until(lambda: count.load() == 2000)
        gate.close()
        for goroutine in waiting:
            goroutine.join()
        assert count.load() == 0

    watched(main, Counts())


def test_in_the_child_of_a_fork_the_end_is_the_parents(script: Script) -> None:
    program = """
import os
import golibx
from golibx.hookspec import hookimpl

class Plugin:
    @hookimpl
    def golib_start(self, runtime):
        runtime.watch_goroutines(lambda g: os.getpid(), self.end)

    def end(self, pid, outcome, exception):
        print("end", pid == os.getpid(), flush=True)

def forks():
    pid = os.fork()
    if pid == 0:
        print("in the child", flush=True)
    else:
        os.waitpid(pid, 0)

if __name__ == "__main__":
    settings = {"plugins": {"enabled": [f"{__file__}:Plugin"]}}
    golibx.run(lambda: golibx.go(forks).join(), config=settings)
"""
    assert script.passes(program).splitlines() == ["in the child", "end True"]


# ---- scopes ----


def test_a_scope_calls_them_around_its_block() -> None:
    values = []

    def main() -> None:
        with scope() as s:
            values.append(variable.get())
            s.go(lambda: values.append(variable.get()))

    seen = watched(main)
    assert seen[-1] == ("scope", "/scope", "NoneType")
    assert values[0] == "/scope"
    assert values[1].startswith("/scope/")
    assert [each[0] for each in seen] == ["begin", "returned", "scope"]


def test_they_learn_what_a_scope_raises() -> None:
    def fails() -> None:
        raise ValueError

    def main() -> None:
        with pytest.raises(ExceptionGroup), scope() as s:
            s.go(fails)
        with pytest.raises(DeadlineExceeded), scope(timeout=0.001):
            sleep(60)
        with scope() as s:
            s.cancel()
            sleep(60)
        with pytest.raises(SystemExit), scope():
            raise SystemExit

    seen = [each[2] for each in watched(main) if each[0] == "scope"]
    assert seen == ["ExceptionGroup", "DeadlineExceeded", "NoneType", "SystemExit"]


def test_a_scope_that_cannot_begin_calls_nobody() -> None:
    def main() -> None:
        with pytest.raises(TypeError), scope(timeout="soon"):  # type: ignore[arg-type]
            pass

    assert watched(main) == []
