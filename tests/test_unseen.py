"""What a program's tools find of golibx where the program does not call it: nothing."""

from __future__ import annotations

import _imp
import faulthandler
import importlib
import inspect
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import BuiltinFunctionType, ModuleType

import pytest

from conftest import Script
from golibx import go, gosched, sleep

pytestmark = pytest.mark.goroutine


def test_an_import_shows_traces_no_frames_of_golibx(script: Script) -> None:
    # selectors is not imported: golibx wants to know when it is.
    seen = script.passes(
        """
import sys, golibx

def main():
    seen = []
    sys.settrace(lambda frame, event, arg: seen.append(frame.f_code.co_filename))
    import colorsys
    sys.settrace(None)
    print(len(seen) > 5, sum(golibx.__path__[0] in name for name in seen))
    assert "selectors" not in sys.modules
    import selectors
    print(selectors.EpollSelector._selector_cls.__name__)

golibx.run(main)
"""
    )
    assert seen.split() == ["True", "0", "Epoll"]


def test_built_in_functions_stay_what_they_are() -> None:
    functions = (
        faulthandler.enable,
        faulthandler.disable,
        _imp.acquire_lock,
        _imp.release_lock,
        threading.get_ident,
    )
    for function in functions:
        assert type(function) is BuiltinFunctionType


def test_what_a_module_has_is_its_own() -> None:
    """As pydoc shows it, and CPython's test_signal wants it."""
    names = ("signal", "threading", "select", "selectors", "time", "faulthandler", "socket")
    for name in names:
        for key, value in vars(importlib.import_module(name)).items():
            if not key.startswith("_") and (inspect.isroutine(value) or inspect.isclass(value)):
                assert not str(value.__module__).startswith("golibx"), (name, key)


class Finder:
    """Finds nothing; notes whether the import lock was held, and by which thread."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.held: set[bool] = set()

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> None:
        self.held.add(_imp.lock_held())
        self.inside += 1
        self.most = max(self.most, self.inside)
        gosched()
        sleep(0.001)
        self.inside -= 1


def test_finders_have_the_import_lock_for_themselves() -> None:
    assert not _imp.lock_held()
    finder = Finder()
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    try:
        importing = [go(_import_missing, f"golibx_missing_{i}") for i in range(5)]
        for g in importing:
            g.join()
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
    assert finder.held == {True}
    assert finder.most == 1
    assert not _imp.lock_held()


def _import_missing(name: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        __import__(name)


def test_the_import_lock_is_its_owners() -> None:
    def release() -> str:
        with pytest.raises(RuntimeError) as refused:
            _imp.release_lock()
        return str(refused.value)

    _imp.acquire_lock()
    _imp.acquire_lock()
    try:
        with ThreadPoolExecutor(1) as pool:
            assert {go(release).result(), pool.submit(release).result()} == {
                "not holding the import lock"
            }
            waiting = [go(_take_turn), pool.submit(_take_turn)]
            _imp.release_lock()
            gosched()
            assert not any(each.done() for each in waiting)
            _imp.release_lock()
            assert [each.result() for each in waiting] == [None, None]
    finally:
        if _imp.lock_held():
            _imp.release_lock()


def _take_turn() -> None:
    _imp.acquire_lock()
    _imp.release_lock()
