"""Runs CPython's own tests on golibx and compares them with plain Python's.

    python3 tools/test_cpython.py build/dist/fast               all modules on all Pythons
    python3 tools/test_cpython.py build/dist/fast --on 3.13 test_threading test_signal
    python3 tools/test_cpython.py build/dist/fast --on 3.13 test_signal --match '*wakeup*'
    python3 tools/test_cpython.py build/dist/fast --stdlib      those of what golibx patches

Each module runs twice in processes of its own: by `python -m test NAME`, and by `python -m golibx
run -m test NAME`, which has it in the main goroutine, with the standard library patched unless
--unpatched is given. A test that passes in the first and not in
the second is a difference. It is run once more, alone, since some of these tests depend on how busy
the machine is in plain Python too; those that pass then are named as repeated. A test that ends the
process, or stands still, is a difference too, and the module goes on without it.

tests/cpython/exclusions.toml has the differences that are meant, each with its reason. An exclusion
that applies and yet passes is a failure: it has to go. Those that would end or hang the process
(`alone = true`) are kept out of their module's run and have a process of their own. Those with
`patched = true` are not meant to differ with --unpatched.

What plain Python made of a module is kept in build/cpython and used again; --fresh forgets it. The
last line is a sum, as "900 passed, 0 failed, 31 skipped"; the exit code is 0 if nothing differed.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from run_tests import ROOT, VERSIONS, Counts, environment, find_python, say

KEPT = ROOT / "build" / "cpython"
EXCLUSIONS = ROOT / "tests" / "cpython" / "exclusions.toml"
MODULES = (
    "test_threading",
    "test_thread",
    "test_signal",
    "test_asyncio",
    "test_concurrent_futures",
    "test_importlib",  # with test_threaded_import
    "test_sys_settrace",
    "test_monitoring",
    "test_bdb",
    "test_trace",
    "test_inspect",
    "test_fork1",
    "test_multiprocessing_fork",
    "test_subprocess",
    "test_generators",
    "test_coroutines",
    "test_asyncgen",
    "test_gc",
    "test_io",
    "test_socket",
    "test_queue",
    "test_context",
)
STDLIB = (
    "test_socket",
    "test_ssl",
    "test_select",
    "test_selectors",
    "test_poll",
    "test_epoll",
    "test_threading",
    "test_thread",
    "test_threading_local",
    "test_queue",
    "test_timeout",
    "test_signal",
    "test_subprocess",
    "test_socketserver",
    "test_httpservers",
    "test_httplib",
    "test_urllib2_localnet",
    "test_smtplib",
    "test_poplib",
    "test_imaplib",
    "test_asyncio",
    "test_logging",
    "test_sched",
    "test_context",
    "test_sqlite3",
    "test_wsgiref",
)
RESOURCES = {"test_socketserver": "network"}  # without which CPython runs none of its tests
MODULE_LIMIT = 20 * 60.0  # seconds
STALL_LIMIT = 120.0  # seconds without a word from a module: more than any test of these takes
MOST_BROKEN = 12  # tests of a module that end or hang it; then the rest is given up
PLAIN = ("-m", "test")
ON_GOLIBX = ("-m", "golibx", "run", "-m", "test")
OFF = ("--set", "patch.stdlib=false", "--set", "patch.threads=false")
UNPATCHED = ("-m", "golibx", "run", *OFF, "-m", "test")
BEGINNING = re.compile(r"^\w+ \((test\.[\w.]+)\)", re.MULTILINE)  # of a test, as -v shows it


@dataclass(frozen=True)
class Exclusion:
    """Tests that are meant to differ, and why."""

    test: str
    reason: str
    on: tuple[str, ...] = ()
    alone: bool = False
    patched: bool = False

    def applies(self, test: str, version: str) -> bool:
        return (not self.on or version in self.on) and fnmatch.fnmatchcase(test, self.test)


class Outcome(NamedTuple):
    """What became of one test."""

    state: str  # "passed", "failed" or "skipped"
    text: str = ""


@dataclass
class Module:
    """One module's tests by their names, and how its process ended if not by itself."""

    tests: dict[str, Outcome] = field(default_factory=dict)
    broken: str = ""
    at: str = ""  # the test that broke it
    left_out: tuple[str, ...] = ()  # those that ended or hung it when they were in it


@dataclass
class Comparison:
    """A module on one Python."""

    version: str
    module: str
    counts: Counts = field(default_factory=Counts)
    lines: list[str] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Compares CPython's tests on golibx with plain.")
    parser.add_argument("dist", type=Path, help="the folder that holds the wheel")
    parser.add_argument("modules", nargs="*", help="as test_queue; default: those of this file")
    parser.add_argument("--on", action="append", help="a version, as 3.12; default: all")
    parser.add_argument("--match", action="append", default=[], help="only tests of this pattern")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--stdlib", action="store_true", help="those of what golibx patches")
    parser.add_argument("--unpatched", action="store_true", help="without what [patch] does")
    parser.add_argument("--fresh", action="store_true", help="run the plain tests again")
    options = parser.parse_intermixed_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    exclusions = [e for e in read_exclusions() if not (options.unpatched and e.patched)]
    way = UNPATCHED if options.unpatched else ON_GOLIBX
    if options.fresh:
        shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True, exist_ok=True)
    (wheel,) = options.dist.resolve().glob("*.whl")
    total = Counts()
    for version in options.on or VERSIONS:
        found = find_python(version)
        if found is None:
            say(f"Python {version} is not on this machine: left out")
            continue
        python = environment(version, found, wheel)
        wanted = options.modules or (STDLIB if options.stdlib else MODULES)
        modules = [m for m in wanted if has_module(python, m)]
        say(f"Python {version}: {len(modules)} modules")
        if missing := [m for m in wanted if m not in modules]:
            say(f"Python {version} has no {', '.join(missing)}: left out")
        with ThreadPoolExecutor(options.jobs) as pool:
            jobs = [
                pool.submit(compare, python, version, module, options.match, exclusions, way)
                for module in modules
            ]
            for job in jobs:
                one = job.result()
                say(f"Python {version} {one.module}: {one.counts}")
                for line in one.lines:
                    print(line, flush=True)
                total = total.plus(one.counts)
    print(total, flush=True)
    return 1 if total.failed or total == Counts() else 0


def read_exclusions() -> list[Exclusion]:
    with EXCLUSIONS.open("rb") as file:
        rows = tomllib.load(file).get("exclusion", [])
    for row in rows:
        row["on"] = tuple(row.get("on", ()))
    return [Exclusion(**row) for row in rows]


def has_module(python: Path, module: str) -> bool:
    code = f"import importlib.util as u; raise SystemExit(u.find_spec('test.{module}') is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def compare(
    python: Path,
    version: str,
    module: str,
    match: Sequence[str],
    exclusions: Sequence[Exclusion],
    way: Sequence[str] = ON_GOLIBX,
) -> Comparison:
    """Runs a module both ways."""
    prefix = f"test.{module}."
    mine = [e for e in exclusions if e.test.startswith(prefix) and e.applies(e.test, version)]
    alone = [e.test for e in mine if e.alone]
    plain = plain_run(python, version, module)
    result = Comparison(version, module)
    wanted = [
        test
        for test, outcome in plain.tests.items()
        if outcome.state == "passed"
        and (not match or any(fnmatch.fnmatchcase(test, pattern) for pattern in match))
    ]
    for test in plain.left_out:
        result.lines.append(f"    {test}: left out, since it breaks off in plain Python")
    ours = our_run(python, way, module, match, [*alone, *plain.left_out], result.lines)
    if not ours and any(test not in alone for test in wanted):
        result.counts = Counts(failed=1)  # none of it begins: not to be tried one by one
        return result
    passed = failed = skipped = 0
    for test in wanted:
        excluded = next((e for e in mine if e.applies(test, version)), None)
        if excluded is not None and excluded.alone:
            got = run_alone(python, way, module, test)
        else:
            got = ours.get(test, Outcome("failed", "it was not run"))
            if got.state != "passed" and excluded is None:
                first = got
                got = run_alone(python, way, module, test)
                if got.state == "passed":
                    result.lines.append(f"    {test}: {first.state}; passed when repeated")
                    result.lines.extend(indented(first.text))
        if excluded is not None:
            if got.state == "passed":
                failed += 1
                result.lines.append(f"    {test}: is excluded, and passes ({excluded.reason})")
            else:
                skipped += 1
        elif got.state == "passed":
            passed += 1
        else:
            failed += 1
            result.lines.append(f"    {test}: {got.state} on golibx only")
            result.lines.extend(indented(got.text))
    if plain.broken:
        result.lines.append(f"    {module} in plain Python: {plain.broken}")
    result.counts = Counts(passed, failed, skipped)
    return result


def indented(text: str) -> Iterator[str]:
    """The end of what a test has to say."""
    return (f"        {line}" for line in text.splitlines()[-25:])


def our_run(
    python: Path,
    way: Sequence[str],
    module: str,
    match: Sequence[str],
    ignore: Sequence[str],
    lines: list[str],
) -> dict[str, Outcome]:
    """What golibx makes of the module, also of the tests that end the process or hang."""
    broken: dict[str, Outcome] = {}
    while True:
        ran = run_module(python, way, module, match=match, ignore=[*ignore, *broken])
        if ran.broken:
            lines.append(f"    {module}: {ran.broken}")
        if not ran.at or ran.at in broken or len(broken) == MOST_BROKEN:
            return ran.tests | broken
        broken[ran.at] = Outcome("failed", ran.broken)


def plain_run(python: Path, version: str, module: str) -> Module:
    """What plain Python makes of the module: kept, since it is always the same.

    What ends it or stands still there too, for want of some device, is left out on both sides.
    """
    kept = KEPT / f"{version}-{module}.xml"
    left_out = kept.with_suffix(".left-out")
    if kept.exists():
        names = left_out.read_text().split() if left_out.exists() else []
        return Module(read_report(kept), left_out=tuple(names))
    broken: list[str] = []
    while True:
        done = run_module(python, PLAIN, module, ignore=broken, keep=kept)
        if not done.at or done.at in broken or len(broken) == MOST_BROKEN:
            break
        broken.append(done.at)
    if broken:
        left_out.write_text("\n".join(broken))
    done.left_out = tuple(broken)
    return done


def run_alone(python: Path, way: Sequence[str], module: str, test: str) -> Outcome:
    """One test in a process of its own."""
    ran = run_module(python, way, module, match=[test])
    return ran.tests.get(test, Outcome("failed", ran.broken or "it was not run"))


def run_module(
    python: Path,
    way: Sequence[str],
    module: str,
    match: Sequence[str] = (),
    ignore: Sequence[str] = (),
    keep: Path | None = None,
) -> Module:
    """Runs a module's tests in an empty folder and a session of their own."""
    with tempfile.TemporaryDirectory(prefix="golibx-", ignore_cleanup_errors=True) as folder:
        report = Path(folder) / "report.xml"
        output = Path(folder) / "output"
        command = [str(python), *way, "-v", "--junit-xml", str(report)]
        if module in RESOURCES:
            command += ["--use", RESOURCES[module]]
        for pattern in match:
            command += ["--match", pattern]
        for pattern in ignore:
            command += ["--ignore", pattern]
        work = Path(folder) / "work"
        work.mkdir()
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*command, module],
                cwd=work,
                env=environment_of_tests(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            broken = wait(process, output)
        tests = read_report(report)
        if report.exists() and keep is not None:
            shutil.copyfile(report, keep)
        if not tests and not broken:
            broken = f"no report; exit code {process.returncode}"
        if not broken:
            return Module(tests)
        text = output.read_text(errors="replace")
        begun = BEGINNING.findall(text)
        tail = text.splitlines()[-40:]
        return Module(tests, "\n        ".join([broken, *tail]), begun[-1] if begun else "")


def environment_of_tests() -> Mapping[str, str]:
    names = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in names if name in os.environ}


def wait(process: subprocess.Popen[bytes], output: Path) -> str:
    """Empty if the process ended by itself in time, else what became of it."""
    began = heard = time.monotonic()
    size = 0
    while True:
        try:
            code = process.wait(1)
        except subprocess.TimeoutExpired:
            now = time.monotonic()
            if output.stat().st_size != size:
                size = output.stat().st_size
                heard = now
            if now - heard > STALL_LIMIT or now - began > MODULE_LIMIT:
                break
            continue
        kill_session(process)
        return f"ended by signal {-code}" if code < 0 else ""
    process.send_signal(signal.SIGQUIT)  # golibx prints every goroutine's stack
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        pass
    kill_session(process)
    return f"stood still for {now - heard:.0f} s, after {now - began:.0f} s"


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Whatever the tests left behind in their process group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def read_report(path: Path) -> dict[str, Outcome]:
    if not path.exists() or path.stat().st_size == 0:
        return {}
    return dict(outcomes(path))


def outcomes(path: Path) -> Iterator[tuple[str, Outcome]]:
    for case in ET.parse(path).iter("testcase"):
        name = case.get("name", "")
        bad = next((e for e in case if e.tag in ("error", "failure")), None)
        if bad is not None:
            yield name, Outcome("failed", bad.text or bad.get("message") or "")
        elif case.find("skipped") is not None or case.get("result") == "skipped":
            yield name, Outcome("skipped", case.findtext("skipped") or "")
        else:
            yield name, Outcome("passed")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
