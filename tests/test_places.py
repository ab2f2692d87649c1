"""What a place in the code calls, and its line."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from golibx.places import line_of, name_of_call

TIMES = 100  # after which the interpreter has specialized the instructions


class Probe:
    """Notes what its caller calls."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.lines: list[int] = []

    def __call__(self, *args: object, **kwargs: object) -> Probe:
        self.note(sys._getframe(1))
        return self

    def note(self, frame: FrameType) -> None:
        self.names.append(name_of_call(frame.f_code, frame.f_lasti))
        self.lines.append(line_of(frame.f_code, frame.f_lasti) - frame.f_code.co_firstlineno)

    @property
    def probe(self) -> Probe:
        return self

    def method(self, *args: object, **kwargs: object) -> Probe:
        self.note(sys._getframe(1))
        return self

    def __enter__(self) -> Probe:
        self.note(sys._getframe(1))
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def __add__(self, other: object) -> Probe:
        self.note(sys._getframe(1))
        return self


def other(*args: object) -> object:
    return args


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("probe()", "probe"),
        ("probe(1, 2)", "probe"),
        ("probe(x, y, key=x, more=y)", "probe"),
        ("probe(*pair)", "probe"),
        ("probe(*pair, **{})", "probe"),
        ("probe(x, *pair, key=x)", "probe"),
        ("probe.probe()", "probe.probe"),
        ("probe.probe.probe(x)", "probe.probe.probe"),
        ("probe.method()", "probe.method"),
        ("probe.probe.method(x, y)", "probe.probe.method"),
        ("probe.method(key=x)", "probe.method"),
        ("probe.method(*pair)", "probe.method"),
        ("probe(other(x, other(y)), [x, y], f'{x}')", "probe"),
        ("probe.method(other(x), other(*pair))", "probe.method"),
        ("[probe] and probe(x)", "probe"),
        ("y = probe(x)", "probe"),
        ("calls[0]()", ""),
        ("other(probe)[0]()", ""),
        ("other(probe)[0].method()", "method"),
        ("probe(x if y else 1)", ""),
        ("probe(x and y)", ""),
        ("with (probe if x else calls): pass", "__enter__"),
        ("probe + x", ""),
        ("with probe: pass", "probe.__enter__"),
        ("with probe.probe as p: pass", "probe.probe.__enter__"),
    ],
)
@pytest.mark.parametrize("is_global", [False, True])
def test_name_of_call(source: str, name: str, is_global: bool) -> None:
    probe = Probe()
    values = {"probe": probe, "x": 1, "y": 2, "pair": (1, 2), "calls": [probe]}
    names = ", ".join(values)
    head = f"def f():\n    global {names}" if is_global else f"def f({names}):"
    namespace: dict[str, Any] = {"other": other, **values}
    exec(f"{head}\n    {source}\n", namespace)
    for _ in range(TIMES):
        namespace["f"](*([] if is_global else values.values()))
        namespace.update(values)
    assert {*probe.names} == {name}
    assert {*probe.lines} == {2 if is_global else 1}


def test_names_that_depend_on_a_condition() -> None:
    """The compiler may have made a call in either branch."""
    probe = Probe()

    def f(x: bool) -> None:
        (probe if x else other)()
        (probe if x else other).method()  # type: ignore[attr-defined]

    f(True)
    first, second = probe.names
    assert first in {"", "probe"}
    assert second in {"method", "probe.method"}


def test_names_of_variables_of_all_kinds() -> None:
    probe = Probe()

    def closure() -> None:
        probe()
        probe.method()

    class Body:
        inner = probe
        inner()

    closure()
    assert probe.names == ["inner", "probe", "probe.method"]


def test_a_call_of_the_class_above() -> None:
    class Derived(Probe):
        def method(self, *args: object, **kwargs: object) -> Probe:
            return super().method()

    probe = Derived()
    probe.method()
    expected = "super().method" if sys.version_info >= (3, 12) else "method"
    assert probe.names == [expected]


def test_a_call_over_several_lines() -> None:
    probe = Probe()
    probe(
        1,
        probe.method(),
    )
    first = test_a_call_over_several_lines.__code__.co_firstlineno
    source_lines = [first + each for each in probe.lines]
    assert source_lines[0] == source_lines[1] + 2
    assert probe.names == ["probe.method", "probe"]


def test_a_place_before_the_first_instruction() -> None:
    code = test_name_of_call.__code__
    assert name_of_call(code, -1) == ""
    assert line_of(code, -1) == code.co_firstlineno
