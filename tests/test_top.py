"""`golibx top`: one look for a pipe, and the live view in a pseudo-terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from conftest import Script
from golibx import control, top
from golibx.dump import DumpError, request
from test_control import golibx, running
from test_dump import until_ready

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux's")

PROGRAM = """
import golibx
from golibx import Chan, go, sleep
def receives(chan):
    chan.recv()
def sleeps():
    while True:
        sleep(0.001)
def main():
    g = go(receives, Chan())
    g.name = "a \\x1b[31mred\\nname"
    go(sleeps)
    while not g.waiting or g.waited < 0.1:
        sleep(0.01)  # it has waited longer than this one
    print("ready")
    sleep(600)
golibx.run(main)
"""


@contextmanager
def asked(script: Script, program: str = PROGRAM) -> Iterator[subprocess.Popen[str]]:
    with script.start(program, limit=55) as process:
        until_ready(process)
        yield process
        process.kill()


def rows_of(text: str) -> list[list[str]]:
    """Those of the table of goroutines."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.split()[:2] == ["id", "name"])
    return [re.split(r"  +", line.strip()) for line in lines[at + 1 :]]


@pytest.mark.parametrize("order", top.ORDERS)
def test_one_look_for_a_pipe(script: Script, order: str) -> None:
    with asked(script) as process:
        result = golibx("top", process.pid, "--sort", order, "--interval", "0.1")
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert lines[0] == f"golibx top: process {process.pid} {script.file('')}"
    shown = dict(line.split(maxsplit=1) for line in lines[1:3] + lines[3:5])
    assert shown["goroutines"].startswith("3")
    assert "1 chan receive" in shown["goroutines"]
    rows = rows_of(result.stdout)
    assert sorted(row[0] for row in rows) == ["1", "2", "3"]
    if order == "id":
        assert [row[0] for row in rows] == ["1", "2", "3"]
    if order == "wait":
        assert rows[-1][1] == "sleeps"
    if order == "state":
        assert rows[0][2] == "chan receive"
    (red,) = (row for row in rows if row[0] == "2")
    assert red[1:3] == [r"a \x1b[31mred\nname", "chan receive"]
    assert red[-1] == "receives at program.py:5"


COMPUTING = """
import golibx
from golibx import Chan, go, sleep
def computes():
    while True:
        pass
def computes_little():
    while True:
        for _ in range(20_000): pass
        sleep(0.05)
def main():
    go(Chan().recv)
    for function in (computes_little, computes):
        go(function).name = function.__name__
    go(Chan().recv)
    sleep(0.01)
    print("ready")
    sleep(600)
golibx.run(main)
"""


def shares_of(text: str) -> dict[str, float]:
    """How much those ran of which that is known, in the order of the rows."""
    found = re.findall(r"^ *\d+ +(\S+) .* (\d+\.\d)%", text, re.M)
    return {name: float(share) for name, share in found}


def test_who_runs_longest_comes_first(script: Script) -> None:
    with asked(script, COMPUTING) as process:
        result = golibx("top", process.pid, "--once", "--sort", "run", "--interval", "0.5")
    assert (result.returncode, result.stderr) == (0, "")
    rows, shares = rows_of(result.stdout), shares_of(result.stdout)
    assert rows[0][1] == next(iter(shares)) == "computes"
    assert [*shares.values()] == sorted(shares.values(), reverse=True)
    assert shares["computes"] > 2 * shares.get("computes_little", 0.0)
    assert 0 < sum(shares.values()) <= 101
    others = [int(row[0]) for row in rows[len(shares) :]]
    assert others == sorted(others)
    assert len(rows) == 5


def test_why_it_is_not_known_who_runs(script: Script) -> None:
    """The profile of another process, which need not come for it: this one."""
    wanted = {"kind": "cpu", "format": "totals", "hz": 10}
    wanted |= {"interval_ns": 10**7, "duration_ns": 10**7}
    with asked(script, COMPUTING) as process:
        with pytest.raises(DumpError, match="there is no block profile for totals"):
            control.profile(process.pid, 0.01, kind="block", format_="totals")
        assert request(process.pid, f"profile {json.dumps({'do': 'start', **wanted})}") == "{}\n"
        result = golibx("top", process.pid, "--once", "--sort", "run", "--interval", "0.1")
    said = f"process {process.pid} refuses: process {os.getpid()} takes a profile of it already"
    assert f"how long goroutines run is not known: {said}\n" in result.stdout
    assert len(rows_of(result.stdout)) == 5


def test_of_a_process_that_is_in_no_run() -> None:
    result = golibx("top", os.getpid(), "--once")
    assert (result.returncode, result.stdout) == (1, "")
    assert f"process {os.getpid()} is in no golibx run" in result.stderr


def test_of_a_stuck_process(script: Script) -> None:
    with running(script, "stuck") as process:
        result = golibx("top", process.pid, "--once")
    assert result.returncode == 0
    assert f"`golibx dump {process.pid}` says which" in result.stdout


class Terminal:
    """`golibx top` in a pseudo-terminal of 24 lines."""

    def __init__(self, pid: int, *options: str) -> None:
        self.ours, self.theirs = os.openpty()
        termios.tcsetwinsize(self.theirs, (24, 100))
        self.before = termios.tcgetattr(self.theirs)
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "golibx", "top", str(pid), "--interval", "0.1", *options],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
        )

    def until(self, pattern: str) -> None:
        """Reads until it has shown that, after what was read before."""
        self.shown = ""
        while not re.search(pattern, self.shown, re.S):
            self.shown += os.read(self.ours, 65536).decode()

    def press(self, key: str) -> None:
        os.write(self.ours, key.encode())

    def end(self) -> int:
        status = self.process.wait(50)
        assert termios.tcgetattr(self.theirs) == self.before, "the terminal is left as it was"
        os.close(self.theirs)
        os.close(self.ours)
        return status


ENTERS, LEAVES = r"\x1b\[\?1049h", r"\x1b\[\?1049l"


def test_the_live_view(script: Script) -> None:
    with asked(script) as process:
        terminal = Terminal(process.pid)
        terminal.until(rf"{ENTERS}.*in all.*receives at program.py:5.*q quits")
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.shown), "no colours were wanted"
        terminal.until(r"a second +\d+ switches")
        by_number = "waited[^q]*main at[^q]*receives at[^q]*q quits"
        others = "waited[^q]*receives at[^q]*main at[^q]*q quits"
        for key, pattern in (("i", by_number), ("s", others), ("i", by_number), ("w", others)):
            terminal.press(key)
            terminal.until(pattern)
        terminal.press("q")
        terminal.until(LEAVES)
        assert terminal.end() == 0


def test_the_live_view_orders_by_who_runs(script: Script) -> None:
    with asked(script, COMPUTING) as process:
        terminal = Terminal(process.pid)
        terminal.until("waited.*q quits")
        terminal.press("r")
        terminal.until(r"is shown from the next look on.*ran.*where.*q quits")
        terminal.until(r"ran[^%]*where[^%]*computes [^%]*\d\.\d%.*q quits")
        terminal.press("q")
        terminal.until(LEAVES)
        assert terminal.end() == 0


def test_ctrl_c_ends_the_live_view(script: Script) -> None:
    with asked(script) as process:
        terminal = Terminal(process.pid)
        terminal.until("q quits")
        terminal.process.send_signal(2)
        terminal.until(LEAVES)
        assert terminal.end() == 130


def test_the_live_view_ends_with_the_process(script: Script) -> None:
    with asked(script) as process:
        terminal = Terminal(process.pid)
        terminal.until("q quits")
        process.kill()
        process.wait()
        terminal.until(rf"{LEAVES}.*Error: ")
        assert terminal.end() == 1
        assert str(process.pid) in terminal.shown


def test_more_than_fit_are_counted(script: Script) -> None:
    program = PROGRAM.replace("    go(sleeps)\n", "    for _ in range(50): go(sleeps)\n")
    with script.start(program, limit=55) as process:
        until_ready(process)
        terminal = Terminal(process.pid)
        terminal.until(r"… and \d+ more.*q quits")
        terminal.press("q")
        terminal.until(LEAVES)
        assert terminal.end() == 0
        process.kill()


def test_a_terminal_that_can_do_nothing_gets_one_look(script: Script) -> None:
    with asked(script) as process:
        ours, theirs = os.openpty()
        command = [sys.executable, "-m", "golibx", "top", str(process.pid)]
        environment = {**os.environ, "TERM": "dumb"}
        result = subprocess.run(command, stdin=theirs, stdout=theirs, env=environment, timeout=50)
        os.close(theirs)
        shown = os.read(ours, 65536).decode()
        os.close(ours)
    assert result.returncode == 0
    assert "\x1b" not in shown
    assert "golibx top: process" in shown
