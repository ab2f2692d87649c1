"""Others that run between any two opcodes of golibx's own Python code."""

from __future__ import annotations

import asyncio
import importlib
import random
import selectors
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from golibx import Cancelled, Event, aio, current, go, gosched, run
from golibx.patch import imports, polling
from switching import at_opcode, at_opcodes

CONFIG = {"preempt": {"async": False}}


# ---- two goroutines in select() of one selector ----


def test_goroutines_wait_in_one_selector() -> None:
    """They switch at any opcodes."""

    def main(numbers: random.Random) -> None:
        ours, theirs = socket.socketpair()

        def switch() -> None:
            if numbers.random() < 0.4:
                gosched()

        def wait() -> None:
            found: list[Any] = []
            at_opcodes(polling, switch, lambda: found.extend(selector.select(60)))
            assert [key.fileobj for key, _ in found] == [ours]

        with ours, theirs, selectors.DefaultSelector() as selector:
            selector.register(ours, selectors.EVENT_READ)
            waiters = [go(wait) for _ in range(3)]
            for _ in range(10):
                gosched()
            theirs.send(b"x")
            for waiter in waiters:
                waiter.result()

    for seed in range(300):
        run(main, random.Random(seed), config=CONFIG)


# ---- a coroutine in a thread's loop that begins to wait as the run ends ----


class AtTheEnd:
    """A thread that awaits a goroutine, and stands still at an opcode until its waits are over."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.may_end = threading.Event()
        self.over = threading.Event()
        self.waits = threading.Event()
        self.main: Any = None
        self.g: Any = None
        self.reached = False
        self.outcome: BaseException | None = None

    def thread(self) -> None:
        try:
            self.reached = at_opcode(
                self.n, aio, self._stand_still, lambda: asyncio.run(self._wait())
            )
        finally:
            self.may_end.set()
            self.waits.set()

    async def _wait(self) -> None:
        settled = asyncio.create_task(self._settle())
        try:
            await asyncio.wait_for(aio.wait(self.g), 20)
        except (Cancelled, RuntimeError, TimeoutError) as error:
            self.outcome = error
        await settled

    async def _settle(self) -> None:
        for _ in range(9):  # turns of the loop, after which the other one waits
            await asyncio.sleep(0)
        self.may_end.set()
        self.waits.set()

    def _stand_still(self) -> None:
        self.may_end.set()
        # Unless that needs what this thread has.
        while not self.over.wait(0.001) and self.main.state != "sync.Mutex.Lock":
            pass


def test_a_wait_that_begins_as_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    end = aio.end

    def end_and_let_others_go_on(timeout: float) -> bool:
        ended = end(timeout)
        test.over.set()
        test.waits.wait()
        return ended

    def main(test: AtTheEnd) -> None:
        test.main = current()
        test.g = go(Event().wait)
        thread.start()
        test.may_end.wait()

    monkeypatch.setattr(aio, "end", end_and_let_others_go_on)
    n = 1
    while True:
        test = AtTheEnd(n)
        thread = threading.Thread(target=test.thread)
        run(main, test, config={**CONFIG, "runtime": {"shutdown_timeout": "0s"}})
        thread.join()
        assert not isinstance(test.outcome, TimeoutError), f"at opcode {n}"
        if not test.reached:
            break
        n += 1
    assert n > 30


# ---- the import of a module that is changed when it is imported ----


@pytest.fixture
def module_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.syspath_prepend(tmp_path)
    name = "golibx_imported_meanwhile"
    text = "import threading\nfrom test_switching import Import\nImport.began()\ncomplete = True\n"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setitem(sys.modules, "test_switching", sys.modules[__name__])
    importlib.invalidate_caches()
    yield name
    sys.modules.pop(name, None)
    imports._pending.pop(name, None)


class Import:
    """Of the module, by another thread."""

    current: Import

    def __init__(self, name: str, pauses: bool) -> None:
        self.name = name
        self.is_in_the_middle = threading.Event()
        self.may_go_on = threading.Event()
        if not pauses:
            self.may_go_on.set()
        self.thread = threading.Thread(target=importlib.import_module, args=(name,))

    @classmethod
    def began(cls) -> None:
        cls.current.is_in_the_middle.set()
        cls.current.may_go_on.wait()

    def start(self) -> None:
        """Returns when it has been imported, or is in the middle of that."""
        Import.current = self
        self.thread.start()
        self.is_in_the_middle.wait()
        if self.may_go_on.is_set():
            self.thread.join()


@pytest.mark.parametrize("pauses", [False, True], ids=["all of it", "half of it"])
def test_another_thread_imports_it_meanwhile(module_name: str, pauses: bool) -> None:
    n = 1
    while True:
        changed: list[bool] = []

        def change(module: ModuleType) -> None:
            changed.append(getattr(module, "complete", False))

        other = Import(module_name, pauses)

        def called(name: str) -> None:
            if name == "import_module":  # which waits for the other thread
                other.may_go_on.set()

        reached = at_opcode(
            n, imports, other.start, lambda: imports.when_imported(module_name, change), called
        )
        other.may_go_on.set()
        if reached:
            other.thread.join()
            assert changed == [True], f"at opcode {n}"
        sys.modules.pop(module_name, None)
        imports._pending.pop(module_name, None)
        if not reached:
            break
        n += 1
    assert n > 10
