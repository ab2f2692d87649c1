"""golibx.labels(): what a goroutine works on."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
import json
import logging
import pickle
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import golibx
from golibx import Chan, GoroutinePoolExecutor, current, go, gosched, labels, logrecords, run
from golibx.labels import _innermost
from golibx.testing import wait_until_parked


def own() -> dict[str, str]:
    goroutine = current()
    assert goroutine is not None
    assert goroutine.labels == labels.current()
    return dict(goroutine.labels)


def depth() -> int:
    """How many blocks the calling code is in, as far as they are kept."""
    n, block = 0, _innermost.get()
    while block.around is not None:
        n, block = n + 1, block.around
    return n


# ---- blocks ----


@pytest.mark.goroutine
def test_a_block_adds_and_replaces_and_restores() -> None:
    assert own() == {}
    with labels(request="1", user="ada"):
        assert own() == {"request": "1", "user": "ada"}
        with labels(user="bob", step="2"):
            assert own() == {"request": "1", "user": "bob", "step": "2"}
        assert own() == {"request": "1", "user": "ada"}
        with pytest.raises(ZeroDivisionError), labels(user="carl"):
            1 / 0  # noqa: B018
        assert own() == {"request": "1", "user": "ada"}
    assert own() == {}


@pytest.mark.goroutine
def test_the_mapping_cannot_be_changed_and_is_a_snapshot() -> None:
    with labels(request="1"):
        seen = labels.current()
        with pytest.raises(TypeError):
            seen["request"] = "2"  # type: ignore[index]
        with labels(request="2"):
            assert seen == {"request": "1"}
    assert seen == {"request": "1"}


@pytest.mark.goroutine
def test_one_object_many_times() -> None:
    both = labels(job="mail")
    assert repr(both) == "labels(job='mail')"
    with both:
        with labels(job="print"), both:
            assert own() == {"job": "mail"}
        assert own() == {"job": "mail"}
    assert own() == {}


@pytest.mark.goroutine
def test_a_goroutine_has_those_of_who_started_it_then() -> None:
    go_on: Chan[None] = Chan()
    said: Chan[dict[str, str]] = Chan()

    def worker() -> None:
        said.send(own())
        with labels(step="2"):
            go_on.recv()
            said.send(own())
        said.send(own())

    with labels(request="1"):
        g = go(worker)
        assert g.labels == {"request": "1"}  # it has not begun
        assert said.recv() == {"request": "1"}
        with labels(request="other"):
            wait_until_parked(g)
            assert g.labels == {"request": "1", "step": "2"}
    go_on.send(None)
    assert said.recv() == {"request": "1", "step": "2"}
    assert said.recv() == {"request": "1"}
    g.join()
    assert g.labels == {}


@pytest.mark.goroutine
def test_they_belong_to_the_goroutine_not_the_thread() -> None:
    def worker(name: str) -> None:
        with labels(name=name):
            for _ in range(50):
                gosched()
                assert own() == {"name": name}
                golibx.sleep(0)
                golibx.blocking(lambda: None)
                assert own() == {"name": name}

    for g in [go(worker, str(i)) for i in range(20)]:
        g.result()
    assert own() == {}


def test_the_main_goroutines_end_with_the_run() -> None:
    def main() -> dict[str, str]:
        labels(left="open").__enter__()
        return own()

    with labels(thread="yes"):
        assert run(main) == {"thread": "yes", "left": "open"}
        assert labels.current() == {"thread": "yes"}
    assert labels.current() == {}


def test_a_plain_thread_has_its_own() -> None:
    seen: list[Mapping[str, str]] = []

    def body() -> None:
        with labels(thread="2"):
            seen.append(labels.current())
        seen.append(labels.current())

    context = contextvars.Context()  # Pythons differ in what a thread starts with
    with labels(thread="1"):
        thread = threading.Thread(target=context.run, args=(body,))
        thread.start()
        thread.join()
        assert labels.current() == {"thread": "1"}
    assert seen == [{"thread": "2"}, {}]


@pytest.mark.goroutine
def test_what_a_thread_starts_has_the_threads() -> None:
    seen: Chan[dict[str, str]] = Chan(1)

    def body() -> None:
        with labels(thread="2"):
            go(lambda: seen.send(own()))

    thread = threading.Thread(target=body)
    thread.start()
    assert seen.recv() == {"thread": "2"}
    thread.join()


@pytest.mark.goroutine
def test_an_executor_and_context_variables_take_them_along() -> None:
    with GoroutinePoolExecutor() as executor:
        with labels(request="1"):
            future = executor.submit(own)
            context = contextvars.copy_context()
        assert future.result() == {"request": "1"}
        assert own() == {}
        assert context.run(own) == {"request": "1"}


def test_asyncio_tasks_have_their_own() -> None:
    async def task(name: str) -> dict[str, str]:
        with labels(task=name):
            await asyncio.sleep(0)
            return dict(labels.current())

    async def main() -> list[dict[str, str]]:
        with labels(request="1"):
            return await asyncio.gather(*(task(name) for name in "abc"))

    assert asyncio.run(main()) == [{"request": "1", "task": name} for name in "abc"]


@pytest.mark.goroutine
def test_cancelled_in_a_block() -> None:
    after: Chan[dict[str, str]] = Chan(1)

    def worker() -> None:
        try:
            with labels(step="1"):
                Chan[None]().recv()
        finally:
            after.send(own())

    g = go(worker)
    wait_until_parked(g)
    g.cancel()
    assert after.recv() == {}
    g.join()


# ---- ends in another order ----


def labelled(**own_: str) -> Iterator[None]:
    with labels(**own_):
        yield


@pytest.mark.goroutine
def test_blocks_of_generators_end_in_any_order() -> None:
    first, second = labelled(a="1", both="1"), labelled(b="2", both="2")
    next(first)
    with labels(c="3"):
        next(second)
        assert own() == {"a": "1", "b": "2", "c": "3", "both": "2"}
        first.close()  # type: ignore[attr-defined]
        assert own() == {"b": "2", "c": "3", "both": "2"}
    assert own() == {"b": "2", "both": "2"}
    second.close()  # type: ignore[attr-defined]
    assert own() == {}
    assert depth() == 0


@pytest.mark.goroutine
def test_a_generator_that_is_handed_on() -> None:
    generator = labelled(a="1")
    with labels(around="x"):
        next(generator)
        assert own() == {"a": "1", "around": "x"}

        def close() -> dict[str, str]:
            with labels(b="2"):
                generator.close()  # type: ignore[attr-defined]
                assert own() == {"around": "x", "b": "2"}
            return own()

        assert go(close).result() == {"around": "x"}
        # Where it has begun it goes on.
        assert own() == {"a": "1", "around": "x"}
    assert own() == {"a": "1"}


@pytest.mark.goroutine
def test_a_block_that_ends_where_it_is_not_known() -> None:
    generator = labelled(a="1")

    def begin() -> dict[str, str]:
        next(generator)
        return own()

    assert go(begin).result() == {"a": "1"}
    with labels(b="2"):
        generator.close()  # type: ignore[attr-defined]
        assert own() == {"b": "2"}


@pytest.mark.goroutine
def test_generations_do_not_add_up() -> None:
    """Each goroutine starts the next in a block of its own, which ends when that one is in its."""
    generations: list[golibx.Goroutine[None]] = []
    depths: list[int] = []

    def generation(n: int, entered: Chan[None]) -> None:
        with labels(n=str(n)):
            entered.send(None)
            if n < 50:
                next_entered: Chan[None] = Chan()
                generations.append(go(generation, n + 1, next_entered))
                next_entered.recv()
            else:
                for g in generations[:-1]:
                    g.join()
                depths.append(depth())

    entered: Chan[None] = Chan()
    generations.append(go(generation, 0, entered))
    entered.recv()
    generations[-1].join()
    while not depths:
        generations[-1].join()
    assert depths == [1]


@pytest.mark.goroutine
def test_a_collector_that_ends_a_block_of_another_generator() -> None:
    def garbage() -> None:
        generator = labelled(garbage="1")
        next(generator)
        cycle: list[Any] = [generator]
        cycle.append(cycle)

    gc.disable()
    try:
        with labels(a="1"):
            garbage()
            with labels(b="2"):
                assert own() == {"a": "1", "b": "2", "garbage": "1"}
                gc.collect()
                assert own() == {"a": "1", "b": "2"}
        assert own() == {}
    finally:
        gc.enable()


# ---- functions ----


@pytest.mark.goroutine
def test_as_a_decorator() -> None:
    @labels(job="mail")
    def send(n: int, *, to: str = "x") -> tuple[int, str, dict[str, str]]:
        """Sends."""
        if n == 0:
            return n, to, own()
        return send(n - 1, to=to)

    assert (send.__name__, send.__doc__) == ("send", "Sends.")
    assert send(3, to="ada") == (0, "ada", {"job": "mail"})
    results = [go(send, i).result() for i in range(3)]
    assert results == [(0, "x", {"job": "mail"})] * 3
    assert own() == {}

    class Mailer:
        @labels(method="yes")
        def send(self) -> dict[str, str]:
            return own()

    assert Mailer().send() == {"method": "yes"}


def test_functions_that_it_cannot_decorate() -> None:
    async def coroutine() -> None: ...

    async def asynchronous_generator() -> Any:
        yield

    def generator() -> Iterator[None]:
        yield

    for function in (coroutine, asynchronous_generator, generator):
        with pytest.raises(
            TypeError, match=r"labels\(a='1'\) cannot decorate .*Write `with labels"
        ):
            labels(a="1")(function)


def test_values_are_str() -> None:
    for value in (1, None, b"x", ["x"]):
        with pytest.raises(TypeError, match=r"labels\(\): user must be a str, not .*: use str\(\)"):
            labels(request="1", user=value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="positional"):
        labels({"request": "1"})  # type: ignore[misc]
    with pytest.raises(TypeError, match="keywords must be strings"):
        labels(**{1: "x"})  # type: ignore[misc]

    class Text(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise AssertionError

        __repr__ = __str__

    with labels(user=Text("ada"), self="s", labels="l"):
        value = labels.current()["user"]
        assert (type(value), value) == (str, "ada")
        assert labels.current() == {"user": "ada", "self": "s", "labels": "l"}


# ---- where they are shown ----


@pytest.mark.goroutine
def test_in_stacks() -> None:
    wait: Chan[None] = Chan()
    started = []
    for i in range(10):
        with labels(request=str(i), user="a\nb"):
            started.append(go(wait.recv))
    for g in started:
        wait_until_parked(g)
    text = golibx.stacks(started)
    assert text.startswith("10 goroutines [chan receive] ")
    shown = "', '".join(map(str, range(8)))
    assert f"\n    labels request='{shown}', …; user='a\\nb'\n" in text
    with labels(mine="yes"):
        assert "main:\n    labels mine='yes'\n" in golibx.stacks().replace(
            f"] {current().name}:",
            "] main:",  # type: ignore[union-attr]
        )
    assert "    labels mine" not in golibx.stacks()
    assert [dict(g.labels) for g in golibx.goroutines() if g in started] == [
        {"request": str(i), "user": "a\nb"} for i in range(10)
    ]
    for _ in started:
        wait.send(None)


def test_in_the_text_of_a_deadlock() -> None:
    def main() -> None:
        with labels(request="17"):
            Chan[None]().recv()

    with pytest.raises(golibx.Deadlock, match="    labels request='17'\n"):
        run(main)


def test_in_logs() -> None:
    make = logrecords.factory(logging.LogRecord)
    logger = logging.Logger("labels")  # noqa: LOG001
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(goroutineLabels)s %(message)s"))
    logger.addHandler(handler)

    def main() -> None:
        with labels(request="1"):
            logger.handle(make("labels", 20, "f", 1, "in a goroutine", (), None))
        logger.handle(make("labels", 20, "f", 1, "without", (), None))

    run(main)
    with labels(thread="1"):
        record = make("labels", 20, "f", 1, "on a thread", (), None)
    logger.handle(record)
    assert stream.getvalue().splitlines() == [
        "{'request': '1'} in a goroutine",
        "{} without",
        "{'thread': '1'} on a thread",
    ]
    assert vars(pickle.loads(pickle.dumps(record)))["goroutineLabels"] == {"thread": "1"}


def test_in_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"

    def worker() -> None:
        gosched()

    def main() -> None:
        with labels(request="17"):
            g = go(worker)
            golibx.sleep(0.2)  # names are looked up about as often
            with labels(step="2"):
                pass
            g.join()

    config = {"plugins": {"enabled": ["trace"], "trace": {"output": str(path)}}}
    run(main, config=config)
    events = json.loads(path.read_text())
    mine = [(e["ph"], e["ts"], e.get("args")) for e in events if e["pid"] == 4 and e["ph"] in "BE"]
    assert [each[0] for each in mine] == ["B", "B", "E", "E"]
    assert [each[2] for each in mine] == [{"request": "17"}, {"step": "2"}, None, None]
    assert mine[1][1] - mine[0][1] >= 100_000


@pytest.mark.goroutine
def test_watch() -> None:
    seen: list[object] = []
    first, second = labelled(a="1"), labelled(b="2")
    with labels(before="x"):
        stop = labels.watch(
            lambda own: seen.append(dict(own)) or own["a" if "a" in own else "b"], seen.append
        )
        next(first)
        next(second)
        stop()
        with labels(c="3"):
            first.close()  # type: ignore[attr-defined]
            second.close()  # type: ignore[attr-defined]
    assert seen == [{"a": "1"}, {"b": "2"}, "1", "2"]
