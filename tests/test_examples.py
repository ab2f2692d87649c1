"""The programs in examples/.

How long the tour's requests take is for bench/ to judge, not for a test on a machine that does
other things as well: here the middle one of them must be nowhere near the length of a phase, or,
with a mechanism switched off, not far from it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
GOLIBX = [sys.executable, "-m", "golibx", "run"]
CONFIGURED = [*GOLIBX, "--config", str(ROOT / "config" / "golib.toml")]
PHASE_MS = 600
SMALL = ["--clients", "30", "--rate", "150", "--seconds", str(PHASE_MS / 1000)]

Result = subprocess.CompletedProcess[str]
Table = dict[str, dict[str, str]]


def execute(*command: str) -> Result:
    return subprocess.run(command, text=True, capture_output=True, timeout=60)


def table(result: Result) -> Table:
    """What the tour printed, by column and row."""
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith(" ")]
    names, *rows = [
        [cell.strip() for cell in line.split("  ") if cell.strip()]
        for line in lines[start : start + 10]
    ]
    return {
        name: {row[0]: row[column] for row in rows} for column, name in enumerate(names, start=1)
    }


def median(column: dict[str, str]) -> float:
    return float(column["latency p50, ms"])


def test_tour_with_its_configuration() -> None:
    result = execute(*CONFIGURED, "--set", "plugins.schedtrace.interval=1h", "--", *SMALL)
    columns = table(result)
    assert list(columns) == ["before", "during hog", "during block", "whole run"]
    for column in columns.values():
        assert int(column["requests served"]) > 0
        assert int(column["words counted"]) > 0
        assert median(column) < PHASE_MS / 4
        assert median(column) <= float(column["p99, ms"]) <= float(column["max, ms"])
        assert int(column["goroutines"]) >= 2 * 30
        assert int(column["netpoll wake-ups"]) > int(column["requests served"])
    assert int(columns["during hog"]["preemptions"]) > 0
    assert int(columns["during block"]["retakes"]) > 0
    assert "from the hooks of tour_counter.py" in result.stdout
    assert "checked: " in result.stdout


@pytest.mark.parametrize(
    ("override", "phase", "event"),
    [
        ("preempt.async=false", "during hog", "preemptions"),
        ("retake.enabled=false", "during block", "retakes"),
    ],
)
def test_tour_freezes_without(override: str, phase: str, event: str) -> None:
    columns = table(execute(*CONFIGURED, "--set", override, "--", *SMALL))
    assert median(columns[phase]) > PHASE_MS / 4
    assert columns["whole run"][event] == "0"


def test_tour_under_plain_python() -> None:
    result = execute(sys.executable, str(EXAMPLES / "tour.py"), *SMALL)
    assert int(table(result)["during hog"]["preemptions"]) > 0
    assert "from golibx.stats()" in result.stdout


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        # The pipeline forgets a word.
        ("tour.Counted = lambda words, *rest: counted(words - 1, *rest)", "words, there are "),
        # The pipeline counts a reply twice.
        (
            "tour.count = lambda r, c: [c.send(counted(1, 0, 0)) for _ in r for _ in 'xx']",
            ", the pipeline counted ",
        ),
        # Sender and receiver see different bytes.
        ("tour.zlib = SimpleNamespace(crc32=lambda _: next(numbers))", " came damaged: "),
        ("tour.Library.pieces = lambda *_: []", ", the server said "),
    ],
    ids=["words", "replies", "checksum", "refusal"],
)
def test_tour_notices(tmp_path: Path, damage: str, message: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"""
import itertools, sys
from types import SimpleNamespace
sys.path.insert(0, {str(EXAMPLES)!r})
import tour
counted, numbers = tour.Counted, itertools.count()
{damage}
sys.exit(tour.main())
""")
    result = execute(*GOLIBX, str(program), *SMALL[:4], "--seconds", "0.1")
    assert result.returncode == 1
    assert "tour: " in result.stderr
    assert message in result.stderr


def test_hello() -> None:
    result = execute(*GOLIBX, str(EXAMPLES / "hello.py"))
    assert (result.returncode, result.stdout, result.stderr) == (0, "285\n", "")


def test_sieve() -> None:
    result = execute(*GOLIBX, str(EXAMPLES / "sieve.py"), "8")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == ["2", "3", "5", "7", "11", "13", "17", "19"]


@pytest.mark.skipif(os.name != "posix", reason="native goroutines are for POSIX")
def test_native_ctypes() -> None:
    result = execute(*GOLIBX, str(EXAMPLES / "native_ctypes.py"), "2000")
    assert (result.returncode, result.stderr) == (0, "")
    assert " arrays of 2000 strings in " in result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="names a library of Linux")
def test_native_cffi() -> None:
    pytest.importorskip("cffi")
    result = execute(*GOLIBX, str(EXAMPLES / "native_cffi.py"))
    assert (result.returncode, result.stderr) == (0, "")
    numbers = [f"received in C: {n}" for n in range(3)]
    assert result.stdout.splitlines() == ["hypot: 5.0", *numbers, "then: closed"]


@pytest.mark.skipif(os.name != "posix", reason="native goroutines are for POSIX")
def test_native_numba() -> None:
    pytest.importorskip("numba")
    result = execute(*GOLIBX, str(EXAMPLES / "native_numba.py"), "1000000")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "pi is about 3.141592\n"


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_echo() -> None:
    command = [*GOLIBX, str(EXAMPLES / "echo.py"), "127.0.0.1:0"]
    with subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().rpartition(":")[2])
            peers = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(3)]
            for number, peer in enumerate(peers):
                peer.sendall(b"%d" % number)
            assert [peer.recv(10) for peer in peers] == [b"0", b"1", b"2"]
            for peer in peers:
                peer.close()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
        assert process.returncode == -signal.SIGINT
        assert errors.splitlines()[-1] == "KeyboardInterrupt"
