"""What the tests share: time limits, scripts in their own process.

Goroutine tests are pytest_golibx's, as users' are: `@pytest.mark.goroutine(timeout=…, **config)`.
Every other test has a limit too, 60 seconds unless `@pytest.mark.limit(seconds)` says otherwise. If
even failing is not possible for one that passes it, because the interpreter hangs, faulthandler
prints what it can from a thread of its own, and ends the process. Neither limit needs a Python
thread, which would keep deadlocks from being detected.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import pytest

import golibx
from golibx import _core
from golibx.patch import signals
from golibx.testing import TimedOut

LIMIT = 60.0  # seconds
GRACE = 15.0  # seconds from the limit to the end of the process
SCRIPT_LIMIT = 15.0  # seconds

Result = subprocess.CompletedProcess[str]


def c_compiler() -> list[str]:
    """The command of one; skips the test where there is none."""
    if find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        pytest.skip("there is no C compiler: neither ziglang nor cc")
    return [found]


def c_library(folder: Path, name: str, source: str, *options: str) -> Path:
    """The path of a shared library in the folder, compiled from that text."""
    (folder / f"{name}.c").write_text(source)
    command = [*c_compiler(), "-O1", "-shared", "-fPIC", f"{name}.c", "-o", f"{name}.so", *options]
    environment = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(folder / "cache")}
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=50)
    return folder / f"{name}.so"


# Where golibx is not installed, as in a source tree, its entry point is not found.
pytest_plugins = ["pytest_golibx", "pytester"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "limit(seconds): end the test when it takes longer")


# They look at every object of the process: first, while there are few.
LOOK_AT_ALL_OBJECTS = ("test_leaks.py", "test_leaks_frames.py", "test_kernels.py")


# They test what is the same on every Python: tools/run_tests.py has one Python run them, the slow
# ones of all, and names it to the others.
OF_ANY_PYTHON = (
    "test_bench_smoke.py",
    "test_dashboard.py",
    "test_dashboard_page.py",
    "test_dask_hosts.py",
    "test_docs.py",
    "test_include.py",
    "test_metrics.py",
    "test_native_c.py",
    "test_native_stress.py",
    "test_otel.py",
    "test_pairs.py",
    "test_plugin_example.py",
    "test_pytest_plugin.py",
    "test_tidy.py",
    "test_tidy_tests.py",
    "test_tools.py",
    "test_top.py",
    "test_trace.py",
    "test_wheels_tool.py",
)

# They are slow, and hardly depend on the Python: that one and the last of them run these.
OF_TWO_PYTHONS = (
    "test_celery.py",
    "test_cli.py",
    "test_console_script.py",
    "test_control.py",
    "test_dask.py",
    "test_examples.py",
    "test_gunicorn.py",
    "test_hardship.py",
    "test_joblib.py",
    "test_kernels.py",
    "test_patch_receive.py",
    "test_pluginmanager.py",
    "test_profile.py",
    "test_serve.py",
    "test_stateful_chan.py",
    "test_stateful_context.py",
    "test_stateful_scope.py",
    "test_stateful_select.py",
    "test_sync_locks.py",
    "test_testing.py",
    "test_tune.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LOOK_AT_ALL_OBJECTS)
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    first, *last = os.environ.get("GOLIBX_TESTED_ON", own).split()
    others = OF_ANY_PYTHON if own != first else ()
    if own not in (first, *last):
        others += OF_TWO_PYTHONS
    config.hook.pytest_deselected(items=[item for item in items if item.path.name in others])
    items[:] = [item for item in items if item.path.name not in others]


def pytest_collection_finish() -> None:
    """What the tests themselves consist of is not looked at in each collection, nor by leaks()."""
    gc.collect()
    gc.freeze()


# ---- time limits ----


def _on_alarm(signum: int, frame: FrameType | None) -> None:
    if not _core.active():
        raise TimedOut("the test passed its time limit")
    _core.throw_main(TimedOut(f"the test passed its time limit\n\n{golibx.stacks(system=True)}"))


@pytest.fixture(scope="session")
def _stderr(request: pytest.FixtureRequest) -> Iterator[int]:
    """The real standard error, which output capture hides."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        fd = os.dup(2)
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def _limit(request: pytest.FixtureRequest, _stderr: int) -> Iterator[None]:
    from pytest_golibx import keywords_of  # not before pytest has it rewritten

    keywords = keywords_of(request.node)
    if keywords is not None:  # pytest_golibx ends it
        seconds = keywords.get("timeout", LIMIT)
        faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=_stderr)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
        return
    marker = request.node.get_closest_marker("limit")
    seconds = float(marker.args[0]) if marker else LIMIT
    old = signals.set_plain(signal.SIGALRM, _on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=_stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    yield
    assert not _core.active(), "the test left a runtime behind"


# ---- scripts ----

# Where sitecustomize is found before the script starts. It has no part in how the script's signals
# and memory faults are handled.
#
# While it starts, the interpreter switches to another allocator for moments (the last time after
# sitecustomize, in _PyPathConfig_UpdateGlobal). A thread that begins then frees its argument by the
# wrong one, and aborts where they differ: the limit's would, and is done without.
SITECUSTOMIZE = """\
import faulthandler, os, sys
is_debug_build = hasattr(sys, "gettotalrefcount")
if not (is_debug_build or sys.flags.dev_mode or "PYTHONMALLOC" in os.environ):
    faulthandler.dump_traceback_later(float(os.environ["TEST_LIMIT"]), exit=True)
"""


class Script:
    """Runs Python programs in a process of their own, from an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._site = folder / "site"
        self._site.mkdir()
        (self._site / "sitecustomize.py").write_text(SITECUSTOMIZE)
        self.cwd = folder / "cwd"
        self.cwd.mkdir()

    def file(self, program: str | Path) -> Path:
        """The program's file, written first if it is a text."""
        if isinstance(program, Path):
            return program
        path = self.folder / "program.py"
        path.write_text(program)
        return path

    def environment(self, limit: float, env: dict[str, str] | None = None) -> dict[str, str]:
        # The golibx that this process tests, wherever the process was started.
        package = str(Path(golibx.__file__).parent.parent)
        paths = [str(self._site), package]
        if before := os.environ.get("PYTHONPATH"):
            paths.append(before)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GOLIB", "GOMAXPROCS"))}
        kept.pop("PYTHONFAULTHANDLER", None)
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(paths),
            "TEST_LIMIT": str(limit),
            "NO_COLOR": "1",
            # The limit is a thread, which fork() warns of since 3.12.
            "PYTHONWARNINGS": "ignore:This process:DeprecationWarning",
            **(env or {}),
        }

    @contextmanager
    def start(
        self,
        program: str | Path,
        *args: str,
        python: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        limit: float = SCRIPT_LIMIT,
    ) -> Iterator[subprocess.Popen[str]]:
        """The running program; it and its children are killed at the end of the block."""
        process = subprocess.Popen(
            [sys.executable, "-u", *python, str(self.file(program)), *args],
            cwd=self.cwd,
            env=self.environment(limit, env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.communicate()

    def __call__(
        self,
        program: str | Path,
        *args: str,
        python: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        limit: float = SCRIPT_LIMIT,
        stdin: str = "",
    ) -> Result:
        """Runs the program to its end."""
        with self.start(program, *args, python=python, env=env, limit=limit) as process:
            out, err = process.communicate(stdin, timeout=limit + GRACE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def passes(self, program: str | Path, *args: str, **options: object) -> str:
        """As calling it, for a program that must exit with 0; returns what it printed."""
        call: Callable[..., Result] = self
        result = call(program, *args, **options)
        assert result.returncode == 0, f"exit code {result.returncode}\n{result.stderr}"
        return result.stdout


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)
