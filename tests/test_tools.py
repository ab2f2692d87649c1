"""Goroutine programs under pytest-cov, pdb and debugpy, as their users start them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Script
from dap import Client

# ---- pytest-cov ----

APP = """\
import asyncio

from golibx import Chan, GoroutinePoolExecutor, WaitGroup, aio, go, net, select, sleep, stats


def hog(stop):
    while not stop:
        pass


def worker(jobs, results):
    for n in jobs:
        if n % 2:
            results.send(odd(n))
        elif n < 0:
            results.send("negative")
        else:
            results.send(even(n))


def odd(n):
    sleep(0.001)
    return n


def even(n):
    return helper(n) if n > 0 else 0


def helper(n):
    try:
        return 1 // (n - n)
    except ZeroDivisionError:
        return n
    finally:
        sleep(0)


async def coroutine(n):
    await asyncio.sleep(0.001)
    for i in range(n):
        if i == 1:
            break
    else:
        never()
    return n


def echo(conn):
    with conn:
        conn.sendall(conn.recv(100).upper())


def talk():
    listener = net.listen("127.0.0.1:0")
    go(lambda: echo(listener.accept()[0]))
    with net.dial(listener.address) as conn:
        conn.sendall(b"x")
        reply = conn.recv(100)
    listener.close()
    return reply


def main():
    stop = []
    go(hog, stop)
    preempted = stats()["preemptions"]
    while stats()["preemptions"] < preempted + 5:
        even(2)
    jobs, results, group = Chan(), Chan(20), WaitGroup()
    for _ in range(3):
        group.go(worker, jobs, results)
    for n in range(10):
        jobs.send(n)
    jobs.close()
    group.wait()
    with GoroutinePoolExecutor(2) as executor:
        squares = list(executor.map(lambda n: n * n, range(3)))
    index, _, _ = select(Chan().on_recv(), default=True)
    assert index == -1
    stop.append(True)
    numbers = sorted(results.recv() for _ in range(10))
    return numbers, squares, aio.run(coroutine(3)), talk()
"""

APP_TEST = """\
import pytest

from app import main
from golibx import run


def test_main():
    numbers, squares, n, reply = run(main, config={"preempt": {"slice": "1ms"}})
    assert numbers == list(range(10))
    assert squares == [0, 1, 4]
    assert n == 3
    assert reply == b"X"
"""

CORES = [None, "ctrace", "pytrace", *(["sysmon"] if sys.version_info >= (3, 12) else [])]


@pytest.mark.limit(120)
@pytest.mark.parametrize("core", CORES)
def test_pytest_cov(script: Script, core: str | None) -> None:
    """Every line that ran in a goroutine is counted, and every branch."""
    # Before 3.14 sys.monitoring does not tell branches in a way that coverage could use.
    branches = core != "sysmon"
    (script.cwd / "app.py").write_text(APP)
    (script.cwd / "test_app.py").write_text(APP_TEST)
    options = ["--cov=app", "--cov-report=json", "-p", "no:cacheprovider"]
    if branches:
        options.append("--cov-branch")
    environment = script.environment(100, {"COVERAGE_CORE": core} if core else {})
    # This test's own measurement, if any, is not the program's.
    environment = {k: v for k, v in environment.items() if not k.startswith("COV_CORE")}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options],
        cwd=script.cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (report,) = json.loads((script.cwd / "coverage.json").read_text())["files"].values()
    lines = APP.splitlines()
    missing = [lines[n - 1].strip() for n in report["missing_lines"]]
    assert missing == ['results.send("negative")', "never()"]
    if branches:
        arcs = [(lines[a - 1].strip(), lines[b - 1].strip()) for a, b in report["missing_branches"]]
        assert arcs == [
            ("elif n < 0:", 'results.send("negative")'),
            ("for i in range(n):", "never()"),
        ]


# ---- pdb ----

PDB = """\
from golibx import Chan, go, run, sleep

def worker(jobs, results):
    breakpoint()
    factor = 2
    value = jobs.recv()
    results.send(value * factor)
    return double(value)

def double(n):
    return n * 2

def main():
    jobs, results = Chan(), Chan()
    g = go(worker, jobs, results)
    others = go(lambda: [sleep(0.001) for _ in range(5)])
    others.join()
    jobs.send(21)
    print("result", results.recv(), g.result())

run(main)
"""


def test_pdb_in_a_goroutine(script: Script) -> None:
    """A breakpoint in it, its stack, steps over a receive and a send, and into a call."""
    commands = [
        "tbreak 6",
        "c",
        "bt",
        "p ('before', factor)",
        "n",  # parks until the main goroutine sends
        "p ('received', value)",
        "n",
        "s",
        "s",
        "p ('called', n)",
        "u",
        "p ('caller', value)",
        "c",
    ]
    result = script(PDB, stdin="\n".join(commands) + "\n")
    assert result.returncode == 0, result.stderr
    out = result.stdout
    assert re.search(r"program\.py\(6\)worker\(\)\n-> value = jobs\.recv\(\)", out)
    assert "('before', 2)" in out
    assert re.search(r"program\.py\(7\)worker\(\)\n-> results\.send\(value \* factor\)", out)
    assert "('received', 21)" in out
    assert "('called', 21)" in out
    assert "('caller', 21)" in out
    assert out.rstrip().endswith("result 42 42")


def test_pdb_post_mortem_of_a_goroutine(script: Script) -> None:
    program = """
import pdb
from golibx import go, run, sleep

def fails(n):
    sleep(0.001)
    return 1 // n

def main():
    g = go(fails, 0)
    g.join()
    pdb.post_mortem(g.exception.__traceback__)

run(main)
"""
    result = script(program, stdin="p ('n is', n)\nq\n")
    assert "('n is', 0)" in result.stdout
    assert "return 1 // n" in result.stdout


# ---- debugpy ----

DEBUGGED = """\
from golibx import Chan, go, gosched, run, sleep

def worker(number, jobs, results):
    total = 0
    for job in jobs:
        total += job
        results.send(total)
    return total

def main():
    jobs, results = Chan(), Chan(10)
    others = go(lambda: [sleep(0.001) for _ in range(20)])
    g = go(worker, 7, jobs, results)
    for n in (1, 2, 3):
        jobs.send(n)
        results.recv()
    jobs.close()
    others.join()
    print("result", g.result(), flush=True)

run(main)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Debugged:
    """A program under debugpy, at its first breakpoint when the block begins."""

    def __init__(self, client: Client, path: Path) -> None:
        self.client = client
        self.path = str(path)

    def begin(self, *lines: int) -> None:
        client = self.client
        client.request("initialize", adapterID="test", pathFormat="path", linesStartAt1=True)
        attached = client.send("attach", justMyCode=False)
        client.event("initialized")
        breakpoints = [{"line": line} for line in lines]
        answer = client.request(
            "setBreakpoints", source={"path": self.path}, breakpoints=breakpoints
        )
        assert all(point["verified"] for point in answer["breakpoints"])
        client.request("configurationDone")
        client.answer(attached)

    def stop(self, reason: str) -> tuple[int, list[dict[str, Any]]]:
        """Waits until the program stops; its thread and stack."""
        stopped = self.client.event("stopped")
        assert stopped["reason"] == reason
        thread = stopped["threadId"]
        assert thread in [each["id"] for each in self.client.request("threads")["threads"]]
        frames = self.client.request("stackTrace", threadId=thread)["stackFrames"]
        return thread, frames

    def evaluate(self, expression: str, frame: dict[str, Any]) -> str:
        answer = self.client.request("evaluate", expression=expression, frameId=frame["id"])
        value: str = answer["result"]
        return value


@pytest.mark.limit(120)
def test_debugpy(script: Script) -> None:
    """A breakpoint in a goroutine: stack, values, steps over a channel operation, the end."""
    port = free_port()
    path = script.file(DEBUGGED)
    command = [sys.executable, "-Xfrozen_modules=off", "-m", "debugpy", "--wait-for-client"]
    # The adapter, a process of its own, has them open for as long as it likes.
    out, err = script.folder / "out", script.folder / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            [*command, "--listen", f"127.0.0.1:{port}", str(path)],
            cwd=script.cwd,
            env=script.environment(100),
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        client = Client(("127.0.0.1", port), 60)
        debugged = Debugged(client, path)
        debugged.begin(6)

        thread, frames = debugged.stop("breakpoint")
        assert [frame["name"] for frame in frames][:1] == ["worker"]
        assert frames[0]["line"] == 6
        assert debugged.evaluate("(number, job, total)", frames[0]) == "(7, 1, 0)"

        client.request("continue", threadId=thread)
        thread, frames = debugged.stop("breakpoint")
        assert debugged.evaluate("(job, total)", frames[0]) == "(2, 1)"
        assert debugged.evaluate("jobs.capacity", frames[0]) == "0"

        client.request("setBreakpoints", source={"path": str(path)}, breakpoints=[])
        client.request("next", threadId=thread)
        thread, frames = debugged.stop("step")
        assert frames[0]["line"] == 7
        client.request("next", threadId=thread)
        thread, frames = debugged.stop("step")
        assert frames[0]["line"] == 5
        client.request("next", threadId=thread)  # parks: the third job was not sent yet
        thread, frames = debugged.stop("step")
        assert frames[0]["line"] == 6
        assert debugged.evaluate("(job, total)", frames[0]) == "(3, 3)"

        client.request("continue", threadId=thread)
        client.event("terminated")
        client.request("disconnect")
        client.wait_for_end()
        assert process.wait(60) == 0, err.read_text()
        assert out.read_text() == "result 6\n"
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        end_adapter(port)


def end_adapter(port: int) -> None:
    """It is in a session of its own, and outlives a program that was killed."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = entry.read_bytes().split(b"\0")
            if b"--port" in arguments and str(port).encode() in arguments:
                os.kill(int(entry.parent.name), signal.SIGKILL)
        except OSError:  # it has ended since
            pass
