"""tools/test_cpython.py: what it takes for a difference from plain Python."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parent.parent / "tools"
sys.path.insert(0, str(TOOLS))
try:
    import test_cpython as tool
finally:
    sys.path.remove(str(TOOLS))

PYTHON = Path("python")
PASSED = tool.Outcome("passed")
FAILED = tool.Outcome("failed", "AssertionError: not so")


class Runs:
    """Has the tool run made-up modules: a queue of what each way makes of it, the last for ever."""

    def __init__(self) -> None:
        self.plain: list[tool.Module] = []
        self.ours: list[tool.Module] = []
        self.calls: list[tuple[bool, tuple[str, ...], tuple[str, ...]]] = []

    def run(
        self,
        python: Path,
        way: Sequence[str],
        module: str,
        match: Sequence[str] = (),
        ignore: Sequence[str] = (),
        keep: Path | None = None,
    ) -> tool.Module:
        plain = way is tool.PLAIN
        self.calls.append((plain, tuple(match), tuple(ignore)))
        left = self.plain if plain else self.ours
        return left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    made_up = Runs()
    monkeypatch.setattr(tool, "run_module", made_up.run)
    monkeypatch.setattr(tool, "KEPT", tmp_path)
    return made_up


def compared(*exclusions: tool.Exclusion) -> tuple[tool.Counts, str]:
    result = tool.compare(PYTHON, "3.13", "test_m", [], exclusions)
    return result.counts, "\n".join(result.lines)


def module(**outcomes: tool.Outcome) -> tool.Module:
    return tool.Module({f"test.test_m.T.{name}": outcome for name, outcome in outcomes.items()})


def test_only_what_passes_in_plain_python_is_compared(runs: Runs) -> None:
    runs.plain = [module(a=PASSED, b=FAILED, c=tool.Outcome("skipped"))]
    runs.ours = [module(a=PASSED, b=FAILED, c=FAILED)]
    assert compared() == (tool.Counts(1, 0, 0), "")


def test_a_difference_is_repeated_alone(runs: Runs) -> None:
    runs.plain = [module(a=PASSED, b=PASSED)]
    runs.ours = [module(a=FAILED, b=PASSED), module(a=FAILED)]
    counts, text = compared()
    assert counts == (1, 1, 0)
    assert "test.test_m.T.a: failed on golibx only" in text
    assert runs.calls[-1] == (False, ("test.test_m.T.a",), ())
    runs.ours = [module(a=FAILED, b=PASSED), module(a=PASSED)]
    counts, text = compared()
    assert counts == (2, 0, 0)
    assert "passed when repeated" in text
    assert "AssertionError: not so" in text


def test_an_exclusion_that_passes_fails_the_run(runs: Runs) -> None:
    runs.plain = [module(a=PASSED, b=PASSED)]
    excluded = tool.Exclusion("test.test_m.T.a", "a reason")
    runs.ours = [module(a=FAILED, b=PASSED)]
    assert compared(excluded) == (tool.Counts(1, 0, 1), "")
    runs.ours = [module(a=PASSED, b=PASSED)]
    counts, text = compared(excluded)
    assert counts == (1, 1, 0)
    assert "is excluded, and passes (a reason)" in text
    elsewhere = tool.Exclusion("test.test_m.T.a", "a reason", on=("3.11",))
    assert compared(elsewhere) == (tool.Counts(2, 0, 0), "")


def test_an_exclusion_that_would_end_the_process_is_run_alone(runs: Runs) -> None:
    runs.plain = [module(a=PASSED, b=PASSED)]
    excluded = tool.Exclusion("test.test_m.T.a", "a reason", alone=True)
    runs.ours = [module(b=PASSED), tool.Module(broken="ended by signal 11")]
    assert compared(excluded) == (tool.Counts(1, 0, 1), "")
    assert runs.calls[1:] == [(False, (), ("test.test_m.T.a",)), (False, ("test.test_m.T.a",), ())]


def test_the_module_goes_on_without_what_ended_it(runs: Runs) -> None:
    runs.plain = [module(a=PASSED, b=PASSED)]
    crash = tool.Module({}, "ended by signal 11", "test.test_m.T.a")
    runs.ours = [crash, module(b=PASSED), crash]
    counts, text = compared()
    assert counts == (1, 1, 0)
    assert "ended by signal 11" in text
    assert (False, (), ("test.test_m.T.a",)) in runs.calls


def test_what_breaks_off_in_plain_python_is_left_out_on_both_sides(runs: Runs) -> None:
    hang = tool.Module({}, "stood still for 120 s", "test.test_m.T.a")
    runs.plain = [hang, module(b=PASSED)]
    runs.ours = [module(b=PASSED)]
    counts, text = compared()
    assert counts == (1, 0, 0)
    assert "test.test_m.T.a: left out" in text
    assert runs.calls[1:] == [
        (True, (), ("test.test_m.T.a",)),
        (False, (), ("test.test_m.T.a",)),
    ]


def test_a_module_that_does_not_begin_is_one_failure(runs: Runs) -> None:
    runs.plain = [module(a=PASSED, b=PASSED)]
    runs.ours = [tool.Module(broken="no report; exit code 1")]
    counts, text = compared()
    assert counts == (0, 1, 0)
    assert "no report; exit code 1" in text
    assert len(runs.calls) == 2
