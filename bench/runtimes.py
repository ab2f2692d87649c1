"""Who takes part: the runtimes, how their programs are started, which are missing and why."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from suite import GOLIBX, NATIVE_PEERS, Case, Kind

# In the order in which they are measured: what most targets refer to runs right before golibx.
RUNTIMES = (
    "asyncio",
    "gevent",
    "trio",
    "uvloop",
    "go-p2",
    "golibx-native-p2",
    "go-p1",
    "golibx-native-p1",
    "python",
    GOLIBX,
)

_HERE = Path(__file__).parent
_INSTALL = "pip install -r bench/requirements.txt"


@dataclass(frozen=True)
class Runtime:
    """One side of a comparison.

    Attributes:
        key: short name, for options and JSON.
        label: name to show.
        version: of the runtime, as its distribution or toolchain gives it.
        commands: for each kind of case it has programs for, the command line without the case's
            arguments.
        environment: set for its programs, on top of the driver's own.
    """

    key: str
    label: str
    version: str
    commands: Mapping[Kind, tuple[str, ...]]
    environment: Mapping[str, str] = field(default_factory=dict)

    def why_not(self, case: Case) -> str | None:
        """Why this runtime does not run a case; None when it does."""
        if not self.offers(case):
            return f"has no {case.kind} program"
        return case.excluded.get(self.key)

    def offers(self, case: Case) -> bool:
        """Whether this runtime has programs for the case's kind."""
        return case.kind in self.commands


@dataclass(frozen=True)
class Lineup:
    """Who takes part.

    Attributes:
        runtimes: those at hand, in the order to measure them.
        missing: why those that are not cannot take part, by key.
        load_generator: command line of the load generator, without its arguments.
    """

    runtimes: tuple[Runtime, ...]
    missing: Mapping[str, str]
    load_generator: tuple[str, ...]


def gather(build_directory: Path, wanted: Collection[str]) -> Lineup:
    """Find those of RUNTIMES that are wanted; build programs in an existing directory."""
    found: dict[str, Runtime] = {}
    missing: dict[str, str] = {}
    load_generator: tuple[str, ...] = (sys.executable, str(_HERE / "load.py"))

    try:
        program, version = _build_go(build_directory)
    except MissingError as reason:
        missing |= {key: str(reason) for key in ("go-p1", "go-p2") if key in wanted}
    else:
        load_generator = (program,)
        programs = _programs(micro=(program, "micro"), echo=(program, "echo"))
        programs["native"] = programs["micro"]
        for processors in ("1", "2"):
            found[f"go-p{processors}"] = Runtime(
                f"go-p{processors}",
                f"Go, P={processors}",
                version,
                programs,
                {"GOMAXPROCS": processors},
            )

    wanted_native = [key for key in NATIVE_PEERS if key in wanted]
    if wanted_native:
        try:
            program, version = build_native(build_directory)
        except MissingError as reason:
            missing |= {key: str(reason) for key in wanted_native}
        else:
            for key in wanted_native:
                processors = key[-1]
                found[key] = Runtime(
                    key,
                    f"native, P={processors}",
                    version,
                    {"native": (program,)},
                    {"GOMAXPROCS": processors},
                )

    python_version = platform.python_version()
    found["python"] = Runtime("python", "python", python_version, {"startup": (sys.executable,)})
    found["asyncio"] = Runtime("asyncio", "asyncio", python_version, _python_programs("asyncio"))
    for key in ("gevent", "trio", "uvloop", GOLIBX):
        if key not in wanted:
            continue
        try:
            version = _import_version(key)
        except MissingError as reason:
            missing[key] = str(reason)
            continue
        programs = _python_programs(key)
        if key == "trio":
            programs = {"micro": programs["micro"]}
        if key == GOLIBX:
            programs["startup"] = (sys.executable, "-m", GOLIBX, "run")
        found[key] = Runtime(key, key, version, programs)
    in_order = (found[key] for key in RUNTIMES if key in found and key in wanted)
    return Lineup(tuple(in_order), missing, load_generator)


class MissingError(Exception):
    """A runtime that cannot take part, and why."""


def _programs(micro: tuple[str, ...], echo: tuple[str, ...]) -> dict[Kind, tuple[str, ...]]:
    return {"micro": micro, "echo": echo, "latency": echo}


def _python_programs(key: str) -> dict[Kind, tuple[str, ...]]:
    return _programs(
        micro=(sys.executable, str(_HERE / f"{key}_micro.py")),
        echo=(sys.executable, str(_HERE / f"{key}_echo.py")),
    )


def _import_version(module: str) -> str:
    """The version of a module that can be imported, as a fresh process has to show."""
    names = "run, go, Chan" if module == GOLIBX else "__name__"
    result = subprocess.run(
        [sys.executable, "-c", f"from {module} import {names}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if result.returncode:
        last_line = (result.stderr.strip().splitlines() or ["no message"])[-1]
        remedy = "build and install it" if module == GOLIBX else _INSTALL
        raise MissingError(f"cannot be imported ({last_line}): {remedy}")
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return "not installed, found on the path"


def c_compiler() -> list[str] | None:
    """The command of a C compiler: the one that builds golibx, or the system's; None for none."""
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    system = shutil.which("cc")
    return None if system is None else [system]


def build_native(directory: Path) -> tuple[str, str]:
    """Build the C program; returns the executable's path and the version of golibx it runs on.

    It gets a copy of the library, so that a measurement does not see the next build. Raises
    MissingError.
    """
    compiler = c_compiler()
    if compiler is None:
        raise MissingError("there is no C compiler: pip install ziglang, or install cc")
    headers = _output([sys.executable, "-m", "golibx.include"], "golibx.h is not to be had")
    library = _output([sys.executable, "-m", "golibx.include", "--library"], "no library")
    copy = str(shutil.copy(library, directory))
    program = str(directory / "native_micro")
    flags = ["-O2", f"-I{headers}", "-o", program]
    link = [copy, "-Wl,-rpath,$ORIGIN", "-lm", "-lpthread"]
    _output([*compiler, str(_HERE / "native_micro.c"), *flags, *link], "native_micro.c: no build")
    return program, _output([program, "version"], "native_micro does not start")


def _output(command: list[str], trouble: str) -> str:
    """What a command prints. Raises MissingError, with the last line of its complaint."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if result.returncode:
        lines = (result.stderr.strip() or f"exit code {result.returncode}").splitlines()
        raise MissingError(f"{trouble}: {lines[-1]}")
    return result.stdout.strip()


def _build_go(directory: Path) -> tuple[str, str]:
    """Build the Go programs; returns the executable's path and Go's version."""
    beside_python = os.path.dirname(sys.executable)
    go = shutil.which("go", path=beside_python) or shutil.which("go")
    if go is None:
        raise MissingError(f"there is no go command: {_INSTALL}")
    program = str(directory / "gopeer")
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    build = subprocess.run(
        [go, "build", "-o", program, "."],
        cwd=_HERE / "gopeer",
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if build.returncode:
        raise MissingError(f"`go build` failed: {build.stderr.strip()}")
    version = subprocess.run(
        [go, "env", "GOVERSION"], env=environment, capture_output=True, text=True, check=True
    )
    return program, version.stdout.strip().removeprefix("go")
