"""What the tests themselves have to keep to: each says what happened, and waits for events.

A list of exceptions here may lose entries, and gets no new ones.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
FILES = sorted(TESTS.glob("test_*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef

# Calls that fail a test by themselves. `passes` is conftest.Script's: the program has to succeed,
# and asserts what it is about.
ASSERTING = {"assert_outcomes", "fail", "fnmatch_lines", "passes", "raises", "warns"}
# What lets others run.
WAITING = {"gosched", "sleep", "sched_yield"}

# Loops that wait, where how they wait is what the test is about.
LOOPS = {
    "test_context.py::test_nothing_is_lost_between_channels_and_cancellation",
    "test_costs.py::waiting_for",
    "test_identity.py::loop",
    "test_net.py::read_slowly",
    "test_priorities.py::wait",
    "test_retake.py::test_a_timer_fires_during_a_blocking_call",
    "test_schedules.py::wait",
    "test_testing.py::main",
    "test_tune.py::doze",
    "test_tune.py::main",
    "test_tuning.py::change_in_sleep",
    "test_tuning.py::main",
}


def name_of(path: Path) -> str:
    return path.name


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def called(node: ast.AST) -> Iterator[str]:
    """The names of what is called, or handed on to be called, in a piece of code."""
    for each in ast.walk(node):
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute):
            yield each.func.attr
        elif isinstance(each, ast.Name):
            yield each.id


def asserts(node: ast.AST, helpers: set[str]) -> bool:
    names = ASSERTING | helpers
    return any(isinstance(each, ast.Assert) for each in ast.walk(node)) or any(
        name in names for name in called(node)
    )


def definitions(path: Path) -> dict[str, ast.AST]:
    """The functions and classes of a module, and those that it imports from others here."""
    found: dict[str, ast.AST] = {}
    for node in tree_of(path).body:
        if isinstance(node, Function | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom) and (TESTS / f"{node.module}.py").exists():
            theirs = definitions(TESTS / f"{node.module}.py")
            for alias in node.names:
                if alias.name in theirs:
                    found[alias.asname or alias.name] = theirs[alias.name]
    return found


def asserting_helpers(path: Path) -> set[str]:
    """What a test may leave asserting to."""
    candidates = {k: v for k, v in definitions(path).items() if not k.startswith("test")}
    helpers: set[str] = set()
    while True:
        more = {k for k, v in candidates.items() if k not in helpers and asserts(v, helpers)}
        if not more:
            return helpers
        helpers |= more


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_test_asserts_what_happened(path: Path) -> None:
    helpers = asserting_helpers(path)
    silent = [
        f"{path.name}:{node.lineno} {node.name}"
        for node in ast.walk(tree_of(path))
        if isinstance(node, Function) and node.name.startswith("test_")
        if not asserts(node, helpers)
    ]
    assert silent == [], "these pass whatever happens, unless it hangs or raises"


def loops_that_wait(node: ast.AST, inside: str) -> Iterator[str]:
    """The functions with a loop that does nothing but let others run until something is so."""
    for child in ast.iter_child_nodes(node):
        name = child.name if isinstance(child, Function) else inside
        if isinstance(child, ast.While) and not isinstance(child.test, ast.Constant):
            calls = [each.value for each in child.body if isinstance(each, ast.Expr)]
            if len(calls) == len(child.body) and all(
                isinstance(call, ast.Call) and WAITING & {*called(call)} for call in calls
            ):
                yield name
        yield from loops_that_wait(child, name)


def test_loops_that_wait_are_golibx_testings() -> None:
    """Those of golibx.testing say what they wait for."""
    found = {
        f"{path.name}::{name}" for path in FILES for name in loops_that_wait(tree_of(path), "")
    }
    assert found - LOOPS == set(), "use wait_until() or wait_until_parked()"
    assert LOOPS - found == set(), "take these off the list"
