"""The benchmark suite works: its programs do their work, its driver judges and reports it.

Nothing here looks at how quick anything is.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"

pytestmark = [
    pytest.mark.skipif(not BENCH.is_dir(), reason="the benchmarks are not beside the tests"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the suite needs Linux"),
]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The driver's modules."""
    monkeypatch.syspath_prepend(BENCH)
    names = ("suite", "runtimes", "measure", "results", "report", "run")
    modules: dict[str, ModuleType] = {name: importlib.import_module(name) for name in names}
    return SimpleNamespace(**modules)


def program(name: str, *arguments: object, timeout: float = 60) -> dict[str, float]:
    """Run a benchmark program; returns what it printed."""
    result = subprocess.run(
        [sys.executable, BENCH / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = (line.split("\t") for line in result.stdout.splitlines())
    return {name: float(value) for name, value in lines}


WORK = [
    ("yield2", 1000, {"ns"}),
    ("yield1000", 10_000, {"ns"}),
    ("pingpong", 1000, {"ns"}),
    ("buffered", 1000, {"ns"}),
    ("spawn", 100, {"ns", "cold_ns"}),
    ("select4", 400, {"ns"}),
    ("sieve", 100, {"ms"}),
    ("parked", 100, {"bytes", "create_ns", "wake_ns"}),
]


@pytest.mark.parametrize("runtime", ["golibx", "asyncio"])
@pytest.mark.parametrize(("case", "operations", "metrics"), WORK, ids=[work[0] for work in WORK])
def test_micro(runtime: str, case: str, operations: int, metrics: set[str]) -> None:
    results = program(f"{runtime}_micro.py", case, operations)
    assert results.keys() == metrics
    assert all(value > 0 for name, value in results.items() if name != "bytes")


@pytest.mark.parametrize("key", ["golibx", "asyncio"])
def test_echo_under_load(bench: SimpleNamespace, key: str) -> None:
    command = (sys.executable, str(BENCH / f"{key}_echo.py"))
    runtime = bench.runtimes.Runtime(key, key, "1.0", {"echo": command})
    with bench.measure.echo_server(runtime) as (port, pid):
        load = program("load.py", "load", port, 4, 64, 0.2, pid)
        latency = program("load.py", "latency", port, 2, 20, 0.2, "-")
    assert load["rate"] > 0
    assert load["cpu_us"] > 0
    assert latency.keys() == {"p50_ms", "p99_ms", "max_ms"}
    assert 0 < latency["p50_ms"] <= latency["p99_ms"] <= latency["max_ms"]


def test_a_server_that_ends_is_quoted(bench: SimpleNamespace) -> None:
    command = (sys.executable, "-c", "raise SystemExit('no such device')")
    runtime = bench.runtimes.Runtime("golibx", "golibx", "1.0", {"echo": command})
    with (
        pytest.raises(bench.measure.MeasurementError, match="exit code 1: no such device"),
        bench.measure.echo_server(runtime),
    ):
        pass


def test_bad_arguments_are_explained() -> None:
    result = subprocess.run(
        [sys.executable, BENCH / "asyncio_micro.py", "yield3", "many"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert "usage:" in result.stderr
    assert "yield2" in result.stderr


@pytest.mark.parametrize(
    ("relation", "peer", "ours", "theirs", "achieved", "met"),
    [
        ("ratio", "go-p1", [50.0, 60.0, 900.0], [100.0, 100.0, 1.0], 0.6, True),
        ("ratio", "go-p1", [61.0], [100.0], 0.61, False),
        ("ratio", "go-p1", [50.0], [], None, None),
        ("ratio", "go-p1", [50.0], [0.0], None, None),
        ("difference", "python", [70.5], [70.0], 0.5, True),
        ("difference", "python", [71.0], [70.0], 1.0, False),
        ("absolute", None, [0.6], [], 0.6, True),
        ("absolute", None, [0.7], [], 0.7, False),
        ("absolute", None, [], [], None, None),
    ],
)
def test_targets(
    bench: SimpleNamespace,
    relation: str,
    peer: str | None,
    ours: list[float],
    theirs: list[float],
    achieved: float | None,
    met: bool | None,
) -> None:
    result = bench.results.CaseResult(
        bench.suite.Case(
            name="case",
            title="A case",
            kind="micro",
            metrics=(bench.suite.Metric("ns", "ns"),),
            program="case",
            target=bench.suite.Target(relation, 0.6, peer),
        )
    )
    for value in ours:
        result.add("golibx", {"ns": value})
    for value in theirs:
        result.add(str(peer), {"ns": value})
    assert result.achieved() == (None if achieved is None else pytest.approx(achieved))
    assert result.met() is met


@pytest.fixture
def fake_lineup(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Replace all measuring; returns the list of measurements made, as (case, runtime)."""
    made: list[tuple[str, str]] = []
    values = {"go-p1": 100.0, "golibx": 50.0}

    def gather(build_directory: Path, wanted: object) -> object:
        runtimes = tuple(
            bench.runtimes.Runtime(key, key, "1.0", {"micro": ()}) for key in ("go-p1", "golibx")
        )
        return bench.runtimes.Lineup(runtimes, {"gevent": "is not there"}, ("load.py",))

    def measure(case: Any, runtime: Any, load_generator: object) -> dict[str, float]:
        made.append((case.name, runtime.key))
        if case.name == "sieve" and runtime.key == "golibx":
            raise bench.measure.MeasurementError("ended by signal 11")
        return {metric.key: values[runtime.key] for metric in case.metrics}

    monkeypatch.setattr(bench.run, "gather", gather)
    monkeypatch.setattr(bench.run, "measure", measure)
    return made


def test_runtimes_take_turns(
    bench: SimpleNamespace, fake_lineup: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run.main(["--only", "yield2", "--rounds", "3"]) == 0
    assert fake_lineup == [("yield2", "go-p1"), ("yield2", "golibx")] * 3
    output = capsys.readouterr().out
    assert "missing: gevent: is not there" in output
    assert "at most 0.60 of go-p1: 0.50, met" in output
    assert "1 of 1 targets met" in output
    assert "\x1b" not in output


def test_json_holds_every_sample(
    bench: SimpleNamespace, fake_lineup: list[tuple[str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "results.json"
    assert bench.run.main(["--only", "yield2", "--rounds", "2", "--json", str(file)]) == 0
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["missing"] == {"gevent": "is not there"}
    case = content["cases"]["yield2"]
    assert case["samples"] == {"go-p1": {"ns": [100.0] * 2}, "golibx": {"ns": [50.0] * 2}}
    assert case["ratios"] == {"go-p1": 0.5}
    assert case["target"]["met"] is True


def test_a_crash_is_reported_once_and_fails_the_run(
    bench: SimpleNamespace, fake_lineup: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run.main(["--only", "sieve", "--rounds", "3"]) == 1
    assert fake_lineup.count(("sieve", "golibx")) == 1
    assert fake_lineup.count(("sieve", "go-p1")) == 3
    output = capsys.readouterr().out
    assert "failed: ended by signal 11" in output
    assert "0 of 1 targets met, 1 not measured" in output


@pytest.mark.parametrize(("check", "exit_code"), [([], 0), (["--check"], 1)])
def test_check_makes_a_missed_target_count(
    bench: SimpleNamespace, fake_lineup: list[tuple[str, str]], check: list[str], exit_code: int
) -> None:
    # 50 of a target of 12 288 bytes is met; "parked" and "yield2" pass, "echo" cannot be measured.
    assert bench.run.main(["--quick", "--only", "parked", "--only", "yield2", *check]) == 0
    assert bench.run.main(["--quick", "--only", "echo", *check]) == exit_code


def test_a_missing_golibx_is_said(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.runtimes, "GOLIBX", "golibx_of_another_name")
    monkeypatch.setenv("PATH", os.devnull)
    lineup = bench.runtimes.gather(Path(os.devnull), ["asyncio", "golibx_of_another_name"])
    assert [runtime.key for runtime in lineup.runtimes] == ["asyncio"]
    assert "No module named" in lineup.missing["golibx_of_another_name"]


def test_every_case_has_a_program_in_golibx(bench: SimpleNamespace) -> None:
    names = {case.name for case in bench.suite.CASES}
    assert len(names) == len(bench.suite.CASES)
    source = (BENCH / "golibx_micro.py").read_text(encoding="utf-8")
    for case in bench.suite.CASES:
        assert case.kind != "micro" or f'"{case.program}":' in source
