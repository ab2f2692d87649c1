"""Runs the tests on every Python at hand, against the installed wheel, from an empty folder.

    python3 tools/run_tests.py build/dist/fast              all tests on all Pythons
    python3 tools/run_tests.py build/dist/fast --on 3.12 -k chan tests/test_sync.py

The Pythons are the one that runs this script and those of VERSIONS that are on PATH, as python3.12
or in pyenv; one that is missing is named and left out. Each has a virtual environment in
build/venv, which is made once and gets the wheel again when it changed. From an empty folder the
tests can only import what the wheel brought, never the source tree.

Two are tested at a time where there are two processors; --jobs 1 shows each as it goes. Tests of
what is the same on every Python (tests/conftest.py lists their files) run on the first one only,
some slow ones on the first and the last, unless files are named.

GOLIBX_EXTRAS names the extras of the wheel that are installed with it. GOLIBX_REQUIREMENTS names a
file of what else is, in a virtual environment of its own, build/venv-FOLDER for the file's folder.
What a file NAME-compiled.txt beside it names is left out, with a word, where it can't be installed.

All arguments but --on and --jobs go to pytest. The last line holds the sum of all Pythons, as
"12 passed, 0 failed, 3 skipped"; it is also in build/test/summary. The exit code is 0 if nothing
failed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "test"
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
RUN_LIMIT = 20 * 60.0  # seconds for one Python's tests, whose own limits should end them before
JOBS = 2  # Pythons tested at a time, where there are as many processors: the tests mostly wait
PROBE = """
import ensurepip, sys, sysconfig
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit("the wheel does not fit a free-threaded Python")
print("%d.%d" % sys.version_info[:2])
"""


class Unusable(Exception):
    """An interpreter that is there, but can't be tested on."""


class Counts(NamedTuple):
    """How tests went."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"

    def plus(self, other: Counts) -> Counts:
        return Counts(*(mine + its for mine, its in zip(self, other, strict=True)))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Arguments that are not here go to pytest.")
    parser.add_argument("dist", type=Path, help="the folder that holds the wheel")
    parser.add_argument("--on", action="append", help="a version, as 3.12; default: all")
    parser.add_argument(
        "--jobs", type=int, default=min(JOBS, os.cpu_count() or 1), help="Pythons tested at a time"
    )
    options, pytest_arguments = parser.parse_known_args(arguments)

    # A shell has its background jobs ignore Ctrl-C and SIGQUIT, and all below would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "summary").unlink(missing_ok=True)
    (wheel,) = options.dist.resolve().glob("*.whl")
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    total = Counts()
    versions = list(options.on or dict.fromkeys((own, *VERSIONS)))
    pythons = {version: find_python(version) for version in versions}
    for version in versions:
        if pythons[version] is None:
            say(f"Python {version} is not on this machine: left out")
    present = {version: python for version, python in pythons.items() if python is not None}
    jobs = min(options.jobs, len(present))
    # A user who names tests wants them everywhere.
    all_on = None
    if own in present and name_no_tests(pytest_arguments):
        all_on = f"{own} {[*present][-1]}"

    def test(version: str, python: str) -> Counts:
        try:
            interpreter = environment(version, python, wheel)
        except Unusable as error:
            if version == own:
                raise
            say(f"Python {version}: {error}: left out")
            return Counts()
        return run_tests(interpreter, version, wheel, pytest_arguments, jobs > 1, all_on)

    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        running = {
            version: pool.submit(test, version, python) for version, python in present.items()
        }
        for version, job in running.items():
            counts = job.result()
            say(f"Python {version}: {counts}")
            total = total.plus(counts)

    if total == Counts():
        say("no tests were run")
        return 1
    (RESULTS / "summary").write_text(f"{total}\n")
    print(total, flush=True)
    return 1 if total.failed else 0


def find_python(version: str) -> str | None:
    """The path of an interpreter that works, or None."""
    for candidate in candidates(version):
        probe = subprocess.run(
            [candidate, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False
        )
        if probe.returncode == 0 and probe.stdout.strip() == version:
            return candidate
    return None


def candidates(version: str) -> Iterator[str]:
    if sys.version.startswith(f"{version}."):
        yield sys.executable
    name = f"python{version}"
    pyenv_roots = [os.environ["PYENV_ROOT"]] if "PYENV_ROOT" in os.environ else []
    if on_path := shutil.which(name):
        yield on_path
        # pyenv's stand-in works only for the versions that are switched on; the others are beside.
        if Path(on_path).parent.name == "shims":
            pyenv_roots.append(str(Path(on_path).parent.parent))
    for root in dict.fromkeys(pyenv_roots):
        found = Path(root).glob(f"versions/{version}.*/bin/{name}")
        yield from (str(path) for path in sorted(found, reverse=True))


def environment(version: str, python: str, wheel: Path) -> Path:
    """The interpreter of the version's virtual environment, which has the wheel installed."""
    extras = os.environ.get("GOLIBX_EXTRAS", "test")
    named = os.environ.get("GOLIBX_REQUIREMENTS")
    requirements = [Path(named)] if named else []
    optional = [file for r in requirements if (file := r.with_stem(f"{r.stem}-compiled")).exists()]
    kind = "-".join(["venv", *(r.resolve().parent.name for r in requirements)])
    folder = ROOT / "build" / kind / version
    installed = folder / "installed"
    interpreter = folder / "bin" / "python"
    contents = b"".join(file.read_bytes() for file in [wheel, *requirements, *optional])
    state = hashlib.sha256(contents + extras.encode()).hexdigest()
    if installed.exists() and installed.read_text() == state:
        return interpreter
    if not installed.exists():
        say(f"Python {version}: setting up {folder.relative_to(ROOT)}")
        made = subprocess.run([python, "-m", "venv", "--clear", folder], check=False)
        if made.returncode != 0:
            raise Unusable(f"{python} can't make a virtual environment")
    pip = [str(interpreter), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # pip keeps what is installed under the same version, whatever the wheel's contents.
    subprocess.run([*pip, "uninstall", "--yes", "golibx"], stderr=subprocess.DEVNULL, check=True)
    more = [part for file in requirements for part in ("--requirement", str(file))]
    subprocess.run([*pip, "install", f"{wheel}[{extras}]", *more], check=True)
    for file in optional:
        tried = subprocess.run([*pip, "install", "--requirement", str(file)], check=False)
        if tried.returncode != 0:
            say(f"Python {version}: what {file.name} names is left out: pip could not install it")
    installed.write_text(state)
    return interpreter


def run_tests(
    python: Path,
    version: str,
    wheel: Path,
    pytest_arguments: list[str],
    beside_others: bool,
    all_on: str | None,
) -> Counts:
    """Runs the tests on one Python. Beside others, what it prints comes in one piece.

    Those that are the same on all Pythons only run on the first of `all_on`, if that is given, and
    some slow ones on both.
    """
    report = RESULTS / f"{version}.xml"
    report.unlink(missing_ok=True)
    arguments = [in_root(argument) for argument in pytest_arguments]
    if name_no_tests(pytest_arguments):
        arguments.append(str(ROOT / "tests"))
    command = [str(python), "-m", "pytest", "-c", f"{ROOT / 'pyproject.toml'}"]
    command += [f"--rootdir={ROOT}", f"--junit-xml={report}", *arguments]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env["GOLIBX_DIST"] = str(wheel.parent)
    if all_on is not None:
        env["GOLIBX_TESTED_ON"] = all_on
    say(f"Python {version}")
    with (
        tempfile.TemporaryDirectory(prefix="golibx-test-") as empty_folder,
        (RESULTS / f"{version}.log").open("w+") as log,
    ):
        output = log if beside_others else None
        process = subprocess.Popen(command, cwd=empty_folder, env=env, stdout=output, stderr=output)
        try:
            exit_code = process.wait(RUN_LIMIT)
        except subprocess.TimeoutExpired:
            say(f"Python {version}: not finished after {RUN_LIMIT:.0f} s; its stacks:")
            exit_code = abort(process)
        except BaseException:
            process.kill()
            raise
        log.seek(0)
        print(log.read(), end="", flush=True)
    return counted(report, exit_code)


def name_no_tests(arguments: list[str]) -> bool:
    return all(in_root(argument) == argument for argument in arguments)


def in_root(argument: str) -> str:
    """A file of tests, named relative to the repository, as an absolute path; others unchanged."""
    file = argument.partition("::")[0]
    is_file = not argument.startswith("-") and "/" in file and (ROOT / file).exists()
    return str(ROOT / argument) if is_file else argument


def abort(process: subprocess.Popen[bytes]) -> int:
    """Ends pytest, whose faulthandler prints all stacks on SIGABRT."""
    process.send_signal(signal.SIGABRT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait()


def counted(report: Path, exit_code: int) -> Counts:
    """What pytest's report says; a run that ended badly without saying why is a failure too."""
    passed = failed = skipped = 0
    if report.exists():
        for suite in ET.parse(report).iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            failed += bad
            skipped += int(suite.get("skipped", 0))
            passed += int(suite.get("tests", 0)) - bad - int(suite.get("skipped", 0))
    if exit_code != 0 and not failed:
        say(f"pytest ended with exit code {exit_code}")
        failed = 1
    return Counts(passed, failed, skipped)


def say(text: str) -> None:
    print(f"--- {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
