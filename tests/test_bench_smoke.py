"""The benchmark suite works: its programs do their work, its driver judges and reports it.

Nothing here looks at how quick anything is.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import golibx

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
    """Run a benchmark program in Python; returns what it printed."""
    return printed(sys.executable, BENCH / name, *arguments, timeout=timeout)


def printed(
    *command: object, environment: dict[str, str] | None = None, timeout: float = 60
) -> dict[str, float]:
    """Run a benchmark program; returns what it printed."""
    result = subprocess.run(
        [str(argument) for argument in command],
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = (line.split("\t") for line in result.stdout.splitlines())
    return {name: float(value) for name, value in lines}


def executable(path: Path, command: str) -> Path:
    """Make a program that runs a shell command."""
    path.write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


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
SYNC_WORK = [
    (case, operations, {"ns"})
    for case, operations in {
        "mutex": 1000,
        "contended": 1000,
        "cond": 1000,
        "semaphore": 1000,
        "context": 1000,
        "timeout": 1000,
        "timer": 1000,
        "scope": 10_000,
    }.items()
]
OWN_WORK = [
    ("mapped", 1000, {"ns"}),
    ("below_c", 1000, {"ns"}),
    ("rlock", 1000, {"ns", "wait_p50_us", "wait_p99_us"}),
    ("ident", 1000, {"ns"}),
]
OWN = {work[0] for work in OWN_WORK}
LACKS = {
    "asyncio": {"context"} | OWN,
    "gevent": {"select4", "cond", "context"} | OWN,
    "trio": {"select4", "timer"} | OWN,
    "runloom": OWN,
}
# Those peers that are installed: they are no requirements of the tests.
PYTHONS = ["golibx", "asyncio", *filter(importlib.util.find_spec, ("gevent", "trio", "runloom"))]


@pytest.mark.parametrize(
    ("runtime", "case", "operations", "metrics"),
    [
        pytest.param(runtime, *work, id=f"{runtime}-{work[0]}")
        for runtime in PYTHONS
        for work in [*WORK, *SYNC_WORK, *OWN_WORK]
        if work[0] not in LACKS.get(runtime, ())
    ],
)
def test_micro(runtime: str, case: str, operations: int, metrics: set[str]) -> None:
    results = program(f"{runtime}_micro.py", case, operations)
    assert results.keys() == metrics
    assert all(value > 0 for name, value in results.items() if name != "bytes")


@pytest.mark.parametrize("runtime", ["golibx", "asyncio", "gevent", "trio", "runloom", "go-p1"])
def test_a_runtime_has_a_program_for_every_case_or_says_why_not(
    bench: SimpleNamespace, runtime: str
) -> None:
    if runtime == "go-p1":
        source = (BENCH / "gopeer" / "micro.go").read_text(encoding="utf-8")
    else:
        source = (BENCH / f"{runtime}_micro.py").read_text(encoding="utf-8").split("CASES: ")[1]
    known = set(re.findall(r'^(?:\t| {4})"(\w+)": ', source, re.MULTILINE))
    # parked1m is the program of another case.
    cases = [case for case in bench.suite.CASES if case.kind == "micro" and not case.optional]
    has = {case.program for case in cases if runtime not in case.excluded}
    assert has & known == has
    assert known & {case.program for case in cases} == has


HOGS = ("spin", "qsort", "memcpy", "malloc", "spin_registered")
NATIVE_WORK = [
    *WORK,
    ("timers", 100, {"cpu_ns", "cold_cpu_ns", "late_p99_ms"}),
    ("speedup", 1000, {"speedup", "serial_ms", "parallel_ms"}),
    ("storm", 6400, {"ns", "sum"}),
    ("pairs", 12_800, {"ns", "sum"}),
    ("hot", 3200, {"ns", "sum"}),
    ("selects", 12_800, {"ns", "sum"}),
    ("fanout", 100, {"ns", "sum"}),
    ("norms", 1, {"ns", "sum"}),
    ("fair", 20, {"off_pct", "late_ms"} | {f"{m}_{k}" for m in ("off", "late") for k in HOGS}),
]
NATIVE_IDS = [work[0] for work in NATIVE_WORK]


@pytest.fixture(scope="module")
def native_micro(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program of the native lane."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        runtimes: Any = importlib.import_module("runtimes")
        if runtimes.c_compiler() is None:
            pytest.skip("there is no C compiler: neither ziglang nor cc")
        executable, version = runtimes.build_native(tmp_path_factory.mktemp("native"))
    assert version == golibx.__version__
    return str(executable)


@pytest.mark.parametrize("processors", ["1", "2"])
@pytest.mark.parametrize(("case", "operations", "metrics"), NATIVE_WORK, ids=NATIVE_IDS)
def test_native(
    native_micro: str, case: str, operations: int, metrics: set[str], processors: str
) -> None:
    results = printed(native_micro, case, operations, environment={"GOMAXPROCS": processors})
    assert results.keys() == metrics
    maybe_zero = {"bytes", "cpu_ns", "cold_cpu_ns", "off_pct", *(f"off_{kind}" for kind in HOGS)}
    assert all(value > 0 for name, value in results.items() if name not in maybe_zero)


@pytest.mark.parametrize("case", ["preempt", "preempt-klt"])
def test_native_preemption(bench: SimpleNamespace, native_micro: str, case: str) -> None:
    results = printed(native_micro, case, 50, environment={"GOMAXPROCS": "2"})
    (found,) = (each for each in bench.suite.CASES if each.name == f"native-{case}")
    assert results.keys() >= {metric.key for metric in found.metrics}
    # On a busy machine, 50 ms may be over before any goroutine has had a slice of 10 ms.
    assert all(value > 0 for name, value in results.items() if name != "preempts_10ms")


SUMS = {
    "storm": 6400,
    "pairs": 64 * sum(range(100)),
    "hot": 32 * sum(range(100)),
    "selects": 128 * sum(range(100)),
    "norms": 1_274_224_148,
}


@pytest.mark.parametrize(("case", "expected"), SUMS.items())
def test_native_goroutines_do_all_of_it(native_micro: str, case: str, expected: int) -> None:
    (operations,) = (work[1] for work in NATIVE_WORK if work[0] == case)
    results = printed(native_micro, case, operations, environment={"GOMAXPROCS": "2"})
    assert results["sum"] == expected


def test_go_does_the_same(bench: SimpleNamespace, native_micro: str, tmp_path: Path) -> None:
    try:
        go, _ = bench.runtimes.build_go(tmp_path)
    except bench.runtimes.MissingError as reason:
        pytest.skip(str(reason))
    for case, operations, metrics in NATIVE_WORK:
        if "sum" in metrics:
            ours = printed(native_micro, case, operations)
            assert printed(go, "micro", case, operations)["sum"] == ours["sum"], case


SCALE = BENCH / "scale.sh"


def scale(*options: object) -> subprocess.CompletedProcess[str]:
    """Run the comparison for many processors."""
    command = ["bash", str(SCALE), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def fake_programs(directory: Path, of_native: str) -> Path:
    """Programs that print the same whatever they are asked for, but for one line of the C one."""
    script = 'test "$1" = version && echo 1.0 || printf "ns\\t%s\\nsum\\t%s\\n" {}'
    executable(directory / "gopeer", script.format("200 7"))
    executable(directory / "native_micro", script.format(f"$((100 / GOMAXPROCS)) {of_native}"))
    return directory


def test_scale_prints_one_table(tmp_path: Path) -> None:
    programs, file = fake_programs(tmp_path, "7"), tmp_path / "table.md"
    options = ["--programs", programs, "--only", "hot", "--processors", "2,1"]
    result = scale(*options, "--output", file)
    assert (result.returncode, file.read_text(encoding="utf-8")) == (0, result.stdout)
    heading, _, columns, _, *rows = result.stdout.splitlines()
    assert heading.endswith("; Go 1.0; golibx 1.0; medians of 5")
    assert columns.startswith("| | | P | golibx | Go | golibx/Go |")
    assert [row.split(" | ")[2:] for row in rows] == [
        ["1", "100.0", "200.0", "0.50", "1.00", "1.00 |"],
        ["2", "50.0", "200.0", "0.25", "0.50", "1.00 |"],
    ]


def test_scale_fails_where_the_two_differ(tmp_path: Path) -> None:
    options = ["--programs", fake_programs(tmp_path, "8"), "--quick", "--processors", "1"]
    result = scale(*options, "--only", "hot", "--only", "norms")
    assert result.returncode == 1
    assert "scale: hot, P=1: the sums differ: Go 7.0 and golibx 8.0" in result.stderr
    executable(tmp_path / "gopeer", 'test "$1" = version && echo 1.0 || exit 3')
    result = scale(*options, "--only", "hot")
    assert result.returncode == 1
    assert "scale: hot, P=1: Go failed: ended with exit code 3" in result.stderr
    assert "| 1 | 100.0 | failed |" in result.stdout


def test_scale_says_what_is_wrong(tmp_path: Path) -> None:
    for options, code, words in (
        (["--help"], 0, "usage: scale.sh"),
        (["--processors", "0"], 2, "'0' is not like 1,2,4"),
        (["--only", "hit"], 2, "invalid choice: 'hit'"),
        (["--programs", tmp_path], 3, f"there is no program {tmp_path}/gopeer"),
    ):
        result = scale(*options)
        assert result.returncode == code
        assert words in result.stdout + result.stderr


def test_native_arguments_are_explained(native_micro: str) -> None:
    for arguments in (["yield3", "100"], ["yield2", "many"], ["yield2"]):
        result = subprocess.run(
            [native_micro, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == 2
        assert "yield2" in result.stderr


@pytest.mark.parametrize("key", sorted(set(PYTHONS) - {"trio"}))
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


PROFILE = """\
# callgrind format
ob=(1) /usr/lib/libpython3.13.so.1.0
fn=(1) eval
0 100
cob=(2) /usr/lib/python3/golibx/_core.abi3.so
cfn=(2) switch
calls=7 0
0 5000
+3 11
ob=(2)
fn=(2)
* 40
cob=(1)
cfn=(1)
calls=1 0
* 3000
ob=(3) /usr/lib/libc.so.6
fn=(3) memcpy
-2 9
totals: {total}
"""


def test_instructions_are_told_apart_by_file(bench: SimpleNamespace) -> None:
    instructions: Any = importlib.import_module("instructions")
    counts = instructions.parts(PROFILE.format(total=160))
    assert counts == {"interpreter": 111, "golibx": 40, "rest": 9}
    with pytest.raises(bench.measure.MeasurementError, match="161 instructions were read as 160"):
        instructions.parts(PROFILE.format(total=161))


def instructions(*options: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the counter of instructions."""
    return subprocess.run(
        [sys.executable, str(BENCH / "instructions.py"), *map(str, options)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="there is no valgrind")
@pytest.mark.skipif(hasattr(sys, "gettotalrefcount"), reason="takes minutes in a debug build")
@pytest.mark.limit(300)  # two starts under valgrind
def test_instructions_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    result = instructions("--only", "yield", "--json", file)
    assert result.returncode == 0, result.stderr
    content = json.loads(file.read_text(encoding="utf-8"))
    ((name, counts),) = content["instructions"].items()
    assert content["versions"][name].startswith(golibx.__version__)
    each = counts["yield"]
    # A switch of two goroutines and the loop that asks for it, whatever the build.
    assert 50 < each["golibx"] < 50_000
    assert 50 < each["interpreter"] < 50_000
    assert each["total"] == pytest.approx(sum(each.values()) - each["total"])
    assert re.search(rf"^yield +{each['total']:,.0f}$", result.stdout, re.MULTILINE)


def test_instructions_say_what_is_missing(tmp_path: Path) -> None:
    result = instructions("--only", "yield", PATH=os.devnull)
    assert (result.returncode, result.stderr.splitlines()[-1].partition("error: ")[2]) == (
        2,
        "there is no valgrind: install it",
    )
    executable(tmp_path / "valgrind", "exit 1")
    bare = executable(tmp_path / "bare", f'exec {shlex.quote(sys.executable)} -I -S "$@"')
    result = instructions("--python", bare, PATH=str(tmp_path))
    assert result.returncode == 1
    assert "No module named" in result.stderr
    assert not result.stdout


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
    target = bench.suite.Target(relation, 0.6, peer)
    result = bench.results.CaseResult(
        bench.suite.Case(
            name="case",
            title="A case",
            kind="micro",
            metrics=(bench.suite.Metric("ns", "ns"),),
            program="case",
            targets=(target,),
        )
    )
    for value in ours:
        result.add("golibx", {"ns": value})
    for value in theirs:
        result.add(str(peer), {"ns": value})
    assert result.achieved(target) == (None if achieved is None else pytest.approx(achieved))
    assert result.met(target) is met


def test_native_targets_are_for_as_many_processors(bench: SimpleNamespace) -> None:
    (case,) = (case for case in bench.suite.CASES if case.name == "native-yield2")
    result = bench.results.CaseResult(case)
    for runtime, value in {"go-p1": 100.0, "go-p2": 80.0, "golibx-native-p1": 20.0}.items():
        result.add(runtime, {"ns": value})
    on_one, on_two = case.targets
    assert (on_one.peer, result.achieved(on_one), result.met(on_one)) == ("go-p1", 0.2, True)
    assert (on_two.peer, result.achieved(on_two), result.met(on_two)) == ("go-p2", None, None)
    ratios = {runtime: result.ratio(runtime) for runtime in result.samples}
    assert ratios == {"go-p1": 0.2, "go-p2": None, "golibx-native-p1": None}


def test_a_target_may_be_a_least_value_of_any_metric(bench: SimpleNamespace) -> None:
    (case,) = (case for case in bench.suite.CASES if case.name == "native-preempt")
    result = bench.results.CaseResult(case)
    numbers = {metric.key: 97.5 for metric in case.metrics} | {"kept_10ms": 99.75}
    result.add("golibx-native-p1", numbers)
    met = {(target.runtime, target.metric): result.met(target) for target in case.targets}
    assert met == {
        ("golibx-native-p1", "kept_10ms"): True,
        ("golibx-native-p1", "kept_1ms"): False,
        ("golibx-native-p2", "kept_10ms"): None,
        ("golibx-native-p2", "kept_1ms"): None,
    }
    # Go has one slice only: its other numbers are not asked for.
    result.add("go-p1", {"kept_10ms": 99.0, "cpu_kept_10ms": 99.0, "krows_off": 1.0})
    assert result.median("go-p1", "kept_1ms") is None


def test_preemption_that_did_not_happen_fails(bench: SimpleNamespace) -> None:
    (case,) = (case for case in bench.suite.CASES if case.name == "native-preempt")
    lines = [f"{metric.key}\t{0 if metric.key == 'preempts_1ms' else 1}" for metric in case.metrics]
    command = (sys.executable, "-c", f"print({chr(10).join(lines)!r})")
    key = "golibx-native-p1"
    runtime = bench.runtimes.Runtime(key, key, "1.0", {"native": command})
    with pytest.raises(bench.measure.MeasurementError, match="preempts_1ms is 0"):
        bench.measure.measure(case, runtime, ())


@pytest.fixture
def fake_lineup(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Replace all measuring; returns the list of measurements made, as (case, runtime)."""
    made: list[tuple[str, str]] = []
    values = {"go-p1": 100.0, "golibx": 50.0}

    def gather(build_directory: Path, names: object, pythons: object) -> object:
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
    assert "at most 0.55 of go-p1: 0.50, met" in output
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
    assert case["of_go"] == {"golibx": 0.5}
    (target,) = case["targets"]
    assert (target["peer"], target["metric"], target["met"]) == ("go-p1", "ns", True)


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


def test_golibx_on_a_further_python_is_a_side_of_its_own(
    bench: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here, the further one is the driver's own under another path."""
    python = shlex.join(["exec", sys.executable])
    other = executable(tmp_path / "other", f'{python} "$@"')
    file = tmp_path / "results.json"
    options = ["--quick", "--only", "startup", "--runtime", "python", "--python", str(other)]
    assert bench.run.main([*options, "--json", str(file)]) == 0
    name = ".".join(map(str, sys.version_info[:2])) + sys.abiflags
    output = capsys.readouterr().out
    assert re.search(
        rf"^  golibx {name} .* at most python-{name} \+ 60.0 ms: ", output, re.MULTILINE
    )
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["pythons"] == {name: str(other)}
    case = content["cases"]["startup"]
    assert case["samples"].keys() == {"python", f"python-{name}", f"golibx-{name}"}
    assert case["ratios"][f"python-{name}"] > 0
    sides = {target["runtime"]: target["peer"] for target in case["targets"]}
    assert sides == {"golibx": "python", f"golibx-{name}": f"python-{name}"}


def test_a_python_without_golibx_says_so(
    bench: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = executable(tmp_path / "bare", f'exec {shlex.quote(sys.executable)} -I -S "$@"')
    options = ["--quick", "--only", "startup", "--runtime", "python", "--python", str(bare)]
    assert bench.run.main([*options, "--check"]) == 1
    output = capsys.readouterr().out
    assert re.search(r"missing: golibx-3\S+: cannot be imported .*No module named", output)


def test_a_peer_runs_on_the_first_python_that_has_it(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gevent.py").write_text("__version__ = '1.0'\n", encoding="utf-8")
    script = 'PYTHONPATH="{}" exec {} -s "$@"'
    quoted = shlex.quote(sys.executable)
    has_it = executable(tmp_path / "has-it", script.format(tmp_path, quoted))
    bare = executable(tmp_path / "bare", script.format("", f"{quoted} -S"))
    pythons = bench.runtimes.further_pythons([str(has_it)])
    monkeypatch.setattr(sys, "executable", str(bare))
    monkeypatch.setenv("PATH", os.devnull)
    lineup = bench.runtimes.gather(Path(os.devnull), ["gevent"], pythons)
    gevent = lineup.runtimes[0]
    assert (gevent.key, gevent.commands["micro"][0]) == ("gevent", str(has_it))
    assert gevent.version.startswith("1.0 on Python 3.")
    assert lineup.beside["gevent"] == pythons[0].key("golibx")


def test_pythons_that_look_alike_get_longer_names_or_are_refused(
    bench: SimpleNamespace, tmp_path: Path
) -> None:
    versions = {"a": "3.14.1", "b": "3.14.2", "c": "3.14.2 t", "d": "3.15.0rc1", "e": "3.14.1"}
    paths = {
        name: str(executable(tmp_path / name, f"echo {version}"))
        for name, version in versions.items()
    }
    found = bench.runtimes.further_pythons([paths[name] for name in "abcd"])
    assert [python.name for python in found] == ["3.14.1", "3.14.2", "3.14t", "3.15"]
    assert [python.key("golibx") for python in found][2:] == ["golibx-3.14t", "golibx-3.15"]
    with pytest.raises(ValueError, match=rf"all are Python 3.14.1: {paths['a']} and {paths['e']}"):
        bench.runtimes.further_pythons([paths[name] for name in "aeb"])


@pytest.mark.parametrize("path", ["true", "false", os.devnull, "no-such-python"])
def test_what_is_no_python_is_refused(
    bench: SimpleNamespace, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.run.main(["--only", "startup", "--python", path])
    assert f"{path} is no Python: " in capsys.readouterr().err


def test_targets_hold_on_further_pythons(bench: SimpleNamespace) -> None:
    (case,) = (case for case in bench.suite.CASES if case.name == "yield2")
    case = case.on_pythons(["3.12"], {"gevent": "golibx-3.12"})
    result = bench.results.CaseResult(case)
    values = {"go-p1": 100.0, "gevent": 400.0, "golibx": 50.0, "golibx-3.12": 60.0}
    for runtime, value in values.items():
        result.add(runtime, {"ns": value})
    verdicts = {target.runtime: result.met(target) for target in case.targets}
    assert verdicts == {"golibx": True, "golibx-3.12": False}
    assert (result.ratio("gevent"), result.of_go("gevent")) == (0.15, 4.0)
    assert case.operations_of("golibx-3.12") == case.operations_of("golibx")
    (native,) = (case for case in bench.suite.CASES if case.name == "native-yield2")
    assert native.on_pythons(["3.12"], {}).targets == native.targets


def test_a_missing_golibx_is_said(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.runtimes, "GOLIBX", "golibx_of_another_name")
    monkeypatch.setenv("PATH", os.devnull)
    lineup = bench.runtimes.gather(Path(os.devnull), ["asyncio", "golibx_of_another_name"])
    assert [runtime.key for runtime in lineup.runtimes] == ["asyncio"]
    assert "No module named" in lineup.missing["golibx_of_another_name"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--only", "native-y*"], ["native-yield2", "native-yield1000"]),
        (["--only", "native-park*"], ["native-parked"]),
        (["--only", "native-parked1m"], ["native-parked1m"]),
        (["--only", "echo", "--million"], ["parked1m", "echo", "native-parked1m"]),
    ],
)
def test_cases_are_selected_by_pattern(
    bench: SimpleNamespace,
    fake_lineup: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    names: list[str],
) -> None:
    run: list[str] = []

    def run_case(case: Any, lineup: object, rounds: int) -> Any:
        run.append(case.name)
        return bench.results.CaseResult(case)

    monkeypatch.setattr(bench.run, "_run_case", run_case)
    assert bench.run.main(options) == 0
    assert run == names


def test_a_pattern_without_a_case_is_refused(
    bench: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.run.main(["--only", "nativ-*"])
    assert "there is no case 'nativ-*'" in capsys.readouterr().err


def test_a_missing_compiler_is_said(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.runtimes, "c_compiler", lambda: None)
    lineup = bench.runtimes.gather(Path(os.devnull), ["golibx-native-p2"])
    assert not lineup.runtimes
    assert "no C compiler" in lineup.missing["golibx-native-p2"]


def test_every_case_has_a_program_in_golibx(bench: SimpleNamespace) -> None:
    names = {case.name for case in bench.suite.CASES}
    assert len(names) == len(bench.suite.CASES)
    sources = {"micro": BENCH / "golibx_micro.py", "native": BENCH / "native_micro.c"}
    texts = {kind: path.read_text(encoding="utf-8") for kind, path in sources.items()}
    for case in bench.suite.CASES:
        assert f'"{case.program}"' in texts.get(case.kind, f'"{case.program}"')
