"""Who takes part: the runtimes, how their programs are started, which are missing and why."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from suite import GOLIBX, NATIVE_PEERS, PYTHON, Case, Kind, on_python

# In the order in which they are measured: what most targets refer to runs right before golibx.
RUNTIMES = (
    "asyncio",
    "gevent",
    "trio",
    "uvloop",
    "runloom",
    "go-p2",
    "golibx-native-p2",
    "go-p1",
    "golibx-native-p1",
    PYTHON,
    GOLIBX,
)

_HERE = Path(__file__).parent
_INSTALL = "pip install -r bench/requirements.txt"


@dataclass(frozen=True)
class Interpreter:
    """A Python to measure on.

    Attributes:
        executable: its path.
        version: such as "3.12.1".
        name: what tells it from the others in keys and labels; "" for the driver's own.
    """

    executable: str
    version: str
    name: str = ""

    def key(self, runtime: str) -> str:
        """The key of a runtime on it."""
        return on_python(runtime, self.name) if self.name else runtime

    def label(self, runtime: str) -> str:
        """The label of a runtime on it."""
        return f"{runtime} {self.name}".rstrip()


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
        pythons: the further Pythons that golibx is measured on.
        beside: for peers that run on one of those, the key of golibx there.
    """

    runtimes: tuple[Runtime, ...]
    missing: Mapping[str, str]
    load_generator: tuple[str, ...]
    pythons: tuple[Interpreter, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)


def further_pythons(executables: Sequence[str]) -> tuple[Interpreter, ...]:
    """The Pythons that these are. Raises ValueError for what is none, or for two that look alike.

    A name is the shortest of "3.14", with a letter for debug and free-threaded builds, and
    "3.14.2" that tells it from the others.
    """
    found = []
    for executable in executables:
        code = "import platform, sys; print(platform.python_version(), sys.abiflags)"
        try:
            version, _, flags = _output([executable, "-c", code], "it fails").partition(" ")
        except (MissingError, OSError) as error:
            raise ValueError(f"{executable} is no Python: {error}") from None
        if not re.match(r"\d+\.\d+\.", version):
            raise ValueError(f"{executable} is no Python: it does not say which")
        short = ".".join(version.split(".")[:2]) + flags
        found.append((executable, version, short, version + flags))
    shorts = Counter(short for *_, short, _ in found)
    longs = Counter(long for *_, long in found)
    for long, count in longs.items():
        if count > 1:
            alike = " and ".join(executable for executable, *_, each in found if each == long)
            raise ValueError(f"nothing tells these apart, all are Python {long}: {alike}")
    return tuple(
        Interpreter(executable, version, short if shorts[short] == 1 else long)
        for executable, version, short, long in found
    )


def gather(
    build_directory: Path, names: Collection[str], pythons: Sequence[Interpreter] = ()
) -> Lineup:
    """Find the RUNTIMES of these names; build programs in an existing directory.

    golibx takes part on each of `pythons` too.
    """
    wanted = set(names)
    found: dict[str, Runtime] = {}
    missing: dict[str, str] = {}
    load_generator: tuple[str, ...] = (sys.executable, str(_HERE / "load.py"))

    try:
        program, version = build_go(build_directory)
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

    own = Interpreter(sys.executable, platform.python_version())
    found["asyncio"] = Runtime("asyncio", "asyncio", own.version, _python_programs("asyncio", own))
    beside = {}
    for key in ("gevent", "trio", "uvloop", "runloom"):
        if key in wanted:
            try:
                python, found[key] = _peer(key, (own, *pythons))
            except MissingError as reason:
                missing[key] = str(reason)
            else:
                beside[key] = python.key(GOLIBX)

    order = [key for key in RUNTIMES if key in wanted]
    for python in (own, *pythons):
        plain, ours = python.key(PYTHON), python.key(GOLIBX)
        found[plain] = _plain(python)
        if python is not own:
            order += [plain, ours] if PYTHON in wanted else [ours]
            beside[plain] = ours
        if python is not own or GOLIBX in wanted:
            try:
                found[ours] = _golibx(python)
            except MissingError as reason:
                missing[ours] = str(reason)
    in_order = tuple(found[key] for key in order if key in found)
    return Lineup(in_order, missing, load_generator, tuple(pythons), beside)


class MissingError(Exception):
    """A runtime that cannot take part, and why."""


def _programs(micro: tuple[str, ...], echo: tuple[str, ...]) -> dict[Kind, tuple[str, ...]]:
    return {"micro": micro, "echo": echo, "latency": echo}


def _plain(python: Interpreter) -> Runtime:
    """Python itself."""
    return Runtime(
        python.key(PYTHON),
        python.label(PYTHON),
        python.version,
        {"startup": (python.executable,)},
    )


def _peer(key: str, pythons: Sequence[Interpreter]) -> tuple[Interpreter, Runtime]:
    """gevent and its like, on the first Python that has it.

    Raises MissingError, with why the first one has it not.
    """
    missing: list[MissingError] = []
    for python in pythons:
        try:
            version = import_version(key, python)
        except MissingError as reason:
            missing.append(reason)
            continue
        programs = _python_programs(key, python)
        if key == "trio":
            programs = {"micro": programs["micro"]}
        return python, Runtime(key, key, version, programs)
    raise missing[0]


def _golibx(python: Interpreter) -> Runtime:
    """golibx itself. Raises MissingError."""
    version = import_version(GOLIBX, python)
    programs = _python_programs(GOLIBX, python)
    programs["startup"] = (python.executable, "-m", GOLIBX, "run")
    return Runtime(python.key(GOLIBX), python.label(GOLIBX), version, programs)


def _python_programs(name: str, python: Interpreter) -> dict[Kind, tuple[str, ...]]:
    return _programs(
        micro=(python.executable, str(_HERE / f"{name}_micro.py")),
        echo=(python.executable, str(_HERE / f"{name}_echo.py")),
    )


def import_version(module: str, python: Interpreter) -> str:
    """The version of a module that can be imported, as a fresh process has to show.

    Raises MissingError.
    """
    names = "run, go, Chan" if module == GOLIBX else "__name__"
    code = f"from {module} import __version__, {names}; print(__version__)"
    result = subprocess.run(
        [python.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    if result.returncode:
        last_line = (result.stderr.strip().splitlines() or ["no message"])[-1]
        where = f" for {python.executable}" if python.name else ""
        remedy = f"build and install it{where}" if module == GOLIBX else _INSTALL
        raise MissingError(f"cannot be imported ({last_line}): {remedy}")
    where = f" on Python {python.version}" if python.name else ""
    return result.stdout.strip() + where


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
    return program, program_version(program)


def _output(command: list[str], trouble: str) -> str:
    """What a command prints. Raises MissingError, with the last line of its complaint."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if result.returncode:
        lines = (result.stderr.strip() or f"exit code {result.returncode}").splitlines()
        raise MissingError(f"{trouble}: {lines[-1]}")
    return result.stdout.strip()


def build_go(directory: Path) -> tuple[str, str]:
    """Build the Go programs; returns the executable's path and Go's version.

    Raises MissingError.
    """
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
    return program, program_version(program)


def program_version(program: str) -> str:
    """What the program in C or Go runs on. Raises MissingError."""
    return _output([program, "version"], f"{program} does not start")
