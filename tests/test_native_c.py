"""The C ABI: the programs of tests/native and examples/native, in processes without Python.

Each of tests/native is a list of cases that check themselves; what it prints on failure names the
line and the case. They and the examples are built against the installed header and library, with
the compiler of the package ziglang, or the system's where that is not installed.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from golibx import include

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "native"
EXAMPLES = ROOT / "examples" / "native"
PROGRAMS = sorted(TESTS.glob("*.c"))

RUN_LIMIT = 100.0  # seconds
WARNINGS = ("-Wall", "-Wextra", "-Werror")

pytestmark = [
    pytest.mark.limit(RUN_LIMIT + 80),
    pytest.mark.skipif(os.name != "posix", reason="the C ABI's tests are for POSIX"),
]


def zig(compiler: str) -> list[str] | None:
    return [sys.executable, "-m", "ziglang", compiler] if find_spec("ziglang") else None


def system(*names: str) -> list[str] | None:
    found = [path for name in names if (path := shutil.which(name))]
    return found[:1] or None


COMPILERS = {"zig": zig("cc"), "system": system("cc", "gcc", "clang")}
COMPILER = COMPILERS["zig"] or COMPILERS["system"]
CXX_COMPILER = zig("c++") or system("c++", "g++", "clang++")

Build = Callable[..., Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds a C program and returns its path."""
    folder = tmp_path_factory.mktemp("programs")

    def built(source: Path, *options: str, compiler: list[str] | None = COMPILER) -> Path:
        if compiler is None:
            pytest.skip("there is no C compiler: neither ziglang nor cc")
        program = folder / f"{source.parent.name}-{source.stem}-{len(list(folder.iterdir()))}"
        command = [*compiler, "-std=c11", "-O2", *WARNINGS, str(source), "-o", str(program)]
        compile_with(command, folder, *include.cflags(), *include.libs(), "-lm", *options)
        return program

    return built


def compile_with(command: list[str], folder: Path, *options: str) -> None:
    environment = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(folder / "zig-cache")}
    result = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT,
        cwd=folder,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def execute(program: Path, *arguments: str, **env: str) -> str:
    """Runs a program that must pass; returns what it printed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GOLIB", "GOMAXPROCS"))}
    with subprocess.Popen(
        [str(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=program.parent,
        env={**kept, **env},
    ) as process:
        try:
            out, err = process.communicate(timeout=RUN_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"it hangs after {RUN_LIMIT:.0f} s, having printed:\n{out}{err}")
    assert process.returncode == 0, f"exit code {process.returncode}\n{out}{err}"
    return out


# ---- tests/native ----


@pytest.mark.parametrize("source", PROGRAMS, ids=lambda path: path.stem)
def test_program(build: Build, source: Path) -> None:
    cases = len(re.findall(r"^ +CASE(?:_OUTSIDE)?\(\w+\),$", source.read_text(), re.MULTILINE))
    assert execute(build(source, f"-I{TESTS}")) == f"{cases} passed\n"


# ---- examples/native ----


def test_hello(build: Build) -> None:
    assert execute(build(EXAMPLES / "hello.c")) == "285\n"


def test_sieve(build: Build) -> None:
    program = build(EXAMPLES / "sieve.c")
    assert execute(program, "10") == "2 3 5 7 11 13 17 19 23 29\n"
    assert execute(program, "300").split()[-1] == "1987"


def test_pingpong(build: Build) -> None:
    lines = execute(build(EXAMPLES / "pingpong.c")).splitlines()
    assert lines == [
        "ping: 1000 hits, then kept the ball",
        "pong: 999 hits, then no ball in time",
        "game over",
    ]


def test_echo(build: Build) -> None:
    assert execute(build(EXAMPLES / "echo.c"), "50", "20").splitlines() == [
        "50 clients: 1000 messages came back, 0 did not, 0 clients were refused",
        "the server had 50 connections",
    ]


def test_parallel(build: Build) -> None:
    one, *others, last = execute(build(EXAMPLES / "parallel.c"), "100").splitlines()
    assert one.startswith("1 processor: 1.274219991 in ")
    assert [line.split(": ")[1].split()[0] for line in others] == ["1.274219991"]
    assert last.endswith("the same result: yes")


def test_hogs(build: Build) -> None:
    text = execute(build(EXAMPLES / "hogs.c"), "400", GOMAXPROCS="2")
    assert text.splitlines()[-1] == "everybody got a share: yes"
    assert re.findall(r"^\w+: 3 hogs on 2 processors$", text, re.MULTILINE)
    with_thread, without = re.findall(r"preempted (\d+) times with their thread, (\d+) ", text)
    assert int(with_thread[0]) > 0
    assert int(with_thread[1]) == 0
    assert int(without[1]) > 0
    # How much later is for a machine that does nothing else.
    assert all(float(ms) < 2000 for ms in re.findall(r"woke ([\d.]+) ms late", text))


@pytest.mark.parametrize("name", COMPILERS)
def test_compiler(build: Build, name: str) -> None:
    """Each one links a program with the library, though nothing defines its Python symbols."""
    compiler = COMPILERS[name]
    if compiler is None:
        pytest.skip(f"{name}: there is no such compiler")
    program = build(EXAMPLES / "hello.c", compiler=compiler)
    assert execute(program) == "285\n"
    assert execute(program, LD_BIND_NOW="1", DYLD_BIND_AT_LAUNCH="1") == "285\n"


# ---- the header ----


def header() -> str:
    text = Path(include.header()).read_text(encoding="utf-8")
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


FUNCTIONS = re.findall(r"^[\w *]+?\b(golibx_\w+)\(", header(), re.MULTILINE)
CODES = re.findall(r"\b(GOLIBX_\w+) = ", header())


def test_the_header_has_functions() -> None:
    assert len(FUNCTIONS) == len(set(FUNCTIONS)) > 50
    assert "golibx_go" in FUNCTIONS


@pytest.mark.parametrize("name", [*FUNCTIONS, *CODES])
def test_name_is_tested(name: str) -> None:
    assert any(re.search(rf"\b{name}\b", path.read_text()) for path in PROGRAMS)


def test_the_library_exports_what_the_header_declares() -> None:
    library = ctypes.CDLL(include.library())
    missing = [name for name in FUNCTIONS if not hasattr(library, name)]
    assert not missing


@pytest.mark.parametrize("language", ["c99", "c11", "c++11", "c++20"])
def test_header_compiles_as(tmp_path: Path, language: str) -> None:
    compiler = CXX_COMPILER if language.startswith("c++") else COMPILER
    if compiler is None:
        pytest.skip("there is no compiler for it")
    source = tmp_path / ("use.cc" if language.startswith("c++") else "use.c")
    source.write_text(
        '#include "golibx.h"\n'
        "golibx_config config = GOLIBX_CONFIG_INIT;\n"
        "int use(golibx_mutex *m) { return golibx_mutex_trylock(m); }\n"
    )
    command = [*compiler, f"-std={language}", *WARNINGS, "-Wpedantic", "-c", str(source)]
    compile_with(command, tmp_path, *include.cflags(), "-o", str(tmp_path / "use.o"))
