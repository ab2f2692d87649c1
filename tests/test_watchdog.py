"""The plugin watchdog: what it reports, what it leaves alone, and what follows."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from conftest import Script
from golibx import ConfigError
from golibx.config import Config
from golibx.plugins.watchdog import Plugin

HEADER = """
import ctypes, os, signal, time
import golibx
from golibx import Chan, Event, go, gosched, sleep, stats

libc, held_libc = ctypes.CDLL(None), ctypes.PyDLL(None)  # the second one keeps the lock

def reports():
    with open("reports.txt") as file:
        return file.read()

def crunch(until):
    '''Computes, and looks now and then whether it is enough.'''
    while not until():
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass

def said(*texts):
    return lambda: all(text in reports() for text in texts)

def watched(main, **settings):
    off = dict.fromkeys(("hog", "late", "blocked", "stuck"), "0s")
    table = {**off, "interval": "5ms", "output": "reports.txt", **settings}
    golibx.run(main, config={"plugins": {"enabled": ["watchdog"], "watchdog": table}})
"""


def reports_of(script: Script, program: str, returncode: int = 0) -> list[str]:
    """The reports, with the stacks that follow each headline."""
    result = script(HEADER + program)
    assert result.returncode == returncode, result.stderr
    assert result.stderr == ""
    text = (script.cwd / "reports.txt").read_text()
    return re.split(r"^watchdog: ", text, flags=re.M)[1:]


def test_a_hog_is_reported_once_with_its_stack(script: Script) -> None:
    program = """
def main():
    hog = go(crunch, said("computed"))
    hog.name = "the hog"
    hog.join()
    go(crunch, said("computed")).join()
watched(main, hog="50ms")
"""
    (report,) = reports_of(script, program)
    assert re.match(r"goroutine \d+ \(the hog\) has computed without a wait for \d+ ms:", report)
    assert re.search(r"^goroutine \d+ \[.+\] the hog:\n(    .+\n)*    crunch at ", report, re.M)


def test_several_hogs_are_found_though_each_is_preempted(script: Script) -> None:
    program = """
def first():
    crunch(said("    first at", "    second at"))
def second():
    crunch(said("    first at", "    second at"))
def main():
    for g in [go(first), go(second)]: g.join()
watched(main, hog="50ms")
"""
    text = "".join(reports_of(script, program))
    assert text.count("    first at ") == text.count("    second at ") == 1


def test_what_gives_way_is_no_hog(script: Script) -> None:
    program = """
def main():
    # The first two are always at it, but wait for each other; the third is known to be found.
    there, back = Chan(), Chan()
    def echo():
        for x in there: back.send(x)
    def ping():
        while True:
            there.send(1); back.recv()
    go(echo); go(ping)
    go(crunch, said("computed")).join()
watched(main, hog="50ms")
"""
    reports = reports_of(script, program)
    assert "crunch at" in reports[0]
    assert not any("ping at" in report or "echo at" in report for report in reports)


def test_who_gets_no_turn_is_reported(script: Script) -> None:
    program = """
def waiter(event):
    event.wait()
def main():
    events = [Event() for _ in range(50)]
    waiters = [go(waiter, event) for event in events]
    hogs = [go(crunch, said("been ready")) for _ in range(20)]
    while "been ready" not in reports():
        # As many as there are have something to do in the queue before the last ones.
        hogs += [go(crunch, said("been ready")) for _ in range(100)]
        for event in events: event.set()
        gosched()
    for g in hogs + waiters: g.join()
watched(main, late="50ms")
"""
    reports = reports_of(script, program)
    assert re.match(
        r"(goroutine \d+ \(\w+\) has|\d+ goroutines have) been ready to run", reports[0]
    )
    assert "[runnable]" in reports[0]
    assert "created by goroutine 1 at " in reports[0]


def test_a_blocked_call_is_reported_once(script: Script) -> None:
    program = """
def call(seconds):
    libc.sleep(seconds)
def main():
    go(call, 1).join()
    assert reports().count("blocking calls") == 1
watched(main, blocked="200ms")
"""
    (report,) = reports_of(script, program)
    assert re.match(r"goroutine \d+ \(call\) has been in blocking calls for \d+ ms:", report)
    assert "    call at " in report


def test_code_that_keeps_the_lock_is_reported(script: Script) -> None:
    program = """
def keeps():
    held_libc.usleep(600_000)
    crunch(said("C code"))
def other():
    crunch(said("C code"))
def main():
    for g in [go(other), go(keeps)]: g.join()
watched(main, stuck="400ms")
"""
    reports = reports_of(script, program)
    (report,) = [each for each in reports if "keeps at " in each]
    assert "lock in C code for" in report or "C code kept the interpreter's lock" in report
    assert "\n    keeps at " in report


def test_nothing_is_reported_of_an_idle_program(script: Script) -> None:
    program = """
def main():
    chans = [Chan() for _ in range(100)]
    waiting = [go(list, chan) for chan in chans]
    for _ in range(20):
        sleep(0.01)
    for chan in chans: chan.close()
    for g in waiting: g.join()
watched(main, hog="1s", late="1s", blocked="1s", stuck="5s")
"""
    assert reports_of(script, program) == []


def test_what_is_left_out_is_said_at_the_end(script: Script) -> None:
    program = """
def main():
    def hog():
        crunch(said("computed"))
        for _ in range(3):
            sleep(0.05)
            end = time.monotonic() + 0.3
            while time.monotonic() < end: pass
    go(hog).join()
watched(main, hog="50ms", repeat="1h")
"""
    first, *more = reports_of(script, program)
    assert "has computed" in first
    assert len(more) == 1
    assert re.fullmatch(r"[1-3] reports? left out, about 1 goroutine reported before\n", more[0])


def test_a_goroutine_is_reported_again_after_a_while(script: Script) -> None:
    program = """
def main():
    go(crunch, lambda: reports().count("has computed") >= 3).join()
watched(main, hog="20ms", repeat="30ms")
"""
    assert len(reports_of(script, program)) >= 3


def test_the_signal_is_delivered(script: Script) -> None:
    program = """
got = []
signal.signal(signal.SIGUSR2, lambda number, frame: got.append(number))
def main():
    go(crunch, lambda: got).join()
    assert got == [signal.SIGUSR2]
watched(main, hog="50ms", action="signal", signal="SIGUSR2")
"""
    assert len(reports_of(script, program)) == 1


def test_the_process_can_be_killed(script: Script) -> None:
    program = """
def main():
    go(crunch, lambda: False).join()
watched(main, hog="50ms", action="kill")
"""
    (report,) = reports_of(script, program, -signal.SIGKILL)
    assert "crunch at" in report


def test_a_deadlock_is_still_found(script: Script) -> None:
    program = """
def main():
    Chan().recv()
try:
    watched(main, hog="1s")
except golibx.Deadlock as exc:
    print(str(exc).splitlines()[0])
"""
    expected = "all goroutines are asleep - deadlock! (1 goroutine)\n"
    assert script.passes(HEADER + program) == expected


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("hog", "1ms", r'plugins.watchdog.hog = "1ms": out of range'),
        ("late", "x", r'plugins.watchdog.late = "x": not a number'),
        ("action", "panic", r'"panic".*report.*signal.*kill'),
        ("signal", "SIGKILL", r'plugins.watchdog.signal = "SIGKILL"'),
        ("output", "no/such/folder/x", "can't be written: No such file or directory"),
        ("hogg", "1s", "did you mean plugins.watchdog.hog?"),
    ],
)
def test_bad_settings_are_refused(key: str, value: str, text: str, tmp_path: Path) -> None:
    config = Config.from_mapping({"plugins": {"watchdog": {key: value}}}, environ={})
    with pytest.raises(ConfigError, match=text):
        Plugin().golib_configure(config, "watchdog")
