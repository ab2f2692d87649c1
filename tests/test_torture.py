"""The migration torture of tests/torture.py, a case a process, so that a crash or a hang is one
failed test with its stacks. Takes about 20 seconds; `python tests/torture.py` is the full run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("torture.py")
CASE_LIMIT_S = 30
# After the case's own watchdog and the interpreter's have had their time.
PROCESS_LIMIT_S = CASE_LIMIT_S + 25

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the Python lane needs Linux"
)


def run_torture(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The script's outcome; fails with what it wrote if it has to be stopped."""
    command = [sys.executable, "-X", "faulthandler", str(SCRIPT), *arguments]
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            output, _ = process.communicate(timeout=PROCESS_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler writes the stacks
            try:
                output, _ = process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate()
            pytest.fail(f"{' '.join(arguments)} hangs\n{output}")
    return subprocess.CompletedProcess(command, process.returncode, output, "")


def case_names() -> list[str]:
    """What there is, without importing golibx here."""
    source = SCRIPT.read_text()
    return [part.partition("(")[0] for part in source.split("@case\ndef ")[1:]]


@pytest.mark.parametrize("name", case_names())
def test_case(name: str) -> None:
    done = run_torture("--case", name, "--limit", str(CASE_LIMIT_S))
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}"


def test_the_lane_really_moves() -> None:
    """All cases in one process, one run of the scheduler after the other."""
    done = run_torture("--limit", str(CASE_LIMIT_S))
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}"
    assert "moves between threads" in done.stdout
