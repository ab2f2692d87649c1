"""Asking and changing a process from outside: `golibx tune`, `stats`, `ps`, and their protocol.

Each case is a real process. Its interpreter works or is stuck in C with its lock held.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import Script
from golibx import _core, control, dump
from golibx.dump import DumpError, request
from golibx.rules import KEYS
from test_dump import until_ready

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they are Linux's")

MS = 1_000_000
SLICE = "preempt.slice"

PROGRAM = """
import ctypes, sys, golibx, golibx.control
from golibx.hookspec import hookimpl

def say(line):  # in one piece: others are preempted in the midst of theirs
    sys.stdout.write(line + "\\n")

class Plugin:
    @hookimpl
    def on_tune(self, event):
        who = event.who.partition(" (")[0]
        say(f"{who} {event.key} {event.old} {event.new}")
sys.modules["watching"] = Plugin

def waits():
    say("ready")
    while True:
        golibx.sleep(0.001)

def hog():
    golibx.go(lambda: [golibx.sleep(0.001) for _ in iter(int, 1)])
    say("ready")
    while True:
        pass

def stuck():
    # A lock taken twice: unlike a sleep it is not ended by a signal.
    libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    say(f"ready {hex(ctypes.addressof(mutex))}")
    libc.pthread_mutex_lock(mutex)

def main():
    golibx.go(golibx.sleep, 600)
    golibx.tune({"native.spinning": 33})
    globals()[sys.argv[1]]()

golibx.run(main, config=CONFIG)
"""


@contextmanager
def running(
    script: Script, how: str = "waits", **config: object
) -> Iterator[subprocess.Popen[str]]:
    with script.start(PROGRAM.replace("CONFIG", repr(config)), how, limit=55) as process:
        until_ready(process)
        yield process
        process.kill()


def golibx(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "golibx", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )


def exchange(pid: int, sent: bytes, *, ends: bool = False) -> str:
    """What the process answers to these bytes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(50)
        connection.connect(f"\0golibx-{pid}")
        connection.sendall(sent)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        parts = []
        try:
            while part := connection.recv(65536):
                parts.append(part)
        except ConnectionResetError:  # it did not read all that was sent
            assert parts
        return b"".join(parts).decode()


# ---- the commands ----


def test_tune_shows_every_key(script: Script) -> None:
    with running(script) as process:
        result = golibx("tune", process.pid)
    assert (result.returncode, result.stderr) == (0, "")
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["key", "value", "default", "allowed"]
    shown = {key: (value, rest) for key, value, rest in (row.split(maxsplit=2) for row in rows)}
    assert shown.keys() == KEYS.keys()
    assert shown["native.spinning"] == ("33", "50       1 to 100")
    for key, (_, rest) in shown.items():
        assert rest.endswith(KEYS[key].allowed)


def test_tune_changes_and_takes_back(script: Script) -> None:
    """The program's plugins are told which process did it."""
    config = {"plugins": {"enabled": ["watching:Plugin"]}, "hooks": {"flush_interval": "1ms"}}
    program = PROGRAM.replace("CONFIG", repr(config)).replace(
        'sys.modules["watching"] = Plugin',
        'import types\nsys.modules["watching"] = types.SimpleNamespace(Plugin=Plugin)',
    )
    with script.start(program, "waits", limit=55) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        assert sorted(lines) == ["program native.spinning 50 33\n", "ready\n"]
        result = golibx("tune", process.pid, "preempt.slice=2ms", "native.spinning=33")
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == (
            "preempt.slice = 2ms  # was 10ms\nnative.spinning = 33  # was 33\n"
        )
        assert process.stdout.readline() == "golibx tune preempt.slice 10000000 2000000\n"
        assert control.stats(process.pid)["tunables"][SLICE] == 2 * MS
        assert control.tune(process.pid, {SLICE: "10ms"}) == {SLICE: 2 * MS}
        assert process.stdout.readline() == "golibx tune preempt.slice 2000000 10000000\n"
        process.kill()


def test_a_hog_gives_way_when_golibx_tune_says_so(script: Script) -> None:
    """Nothing preempts it before, within a slice of a minute."""
    config = {"preempt": {"slice": "1m"}, "retake": {"enabled": False}}
    with running(script, "hog", **config) as process:
        counters = control.stats(process.pid)["stats"]
        assert counters["preemptions"] + counters["handoffs"] == 0
        assert golibx("tune", process.pid, "preempt.slice=2ms").returncode == 0
        while counters["preemptions"] + counters["handoffs"] == 0:
            counters = control.stats(process.pid)["stats"]
        assert control.tune(process.pid, {SLICE: "1m"}) == {SLICE: 2 * MS}


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        (["preempt.slice=2us"], 1, 'preempt.slice = "2us": out of range (allowed: 10us to 1m)'),
        (["preempt.slize=2ms"], 1, "did you mean preempt.slice?"),
        (["native.spinning=many"], 1, 'native.spinning = "many": not an integer'),
        (["preempt.slice=2ms", "native.spinning=0"], 1, "native.spinning = "),
        (["retake.threshold=1s"], 1, "more than retake.threshold_idle, which is"),
        (["preempt.slice"], 2, "'preempt.slice' is not KEY=VALUE, such as preempt.slice=2ms"),
        (["=2ms"], 2, "'=2ms' is not KEY=VALUE"),
        ([f"preempt.slice={'1' * 5000}ms"], 1, "more than 4096 bytes"),
    ],
)
def test_what_tune_refuses_changes_nothing(
    script: Script, changes: list[str], status: int, said: str
) -> None:
    with running(script) as process:
        before = control.stats(process.pid)["tunables"]
        result = golibx("tune", process.pid, *changes)
        assert (result.returncode, result.stdout) == (status, "")
        assert said in result.stderr
        assert control.stats(process.pid)["tunables"] == before


def test_the_limits_are_not_for_golibx_tune(script: Script) -> None:
    with running(script, tune={"limits": {SLICE: {"min": "5ms"}}}) as process:
        assert control.tune(process.pid, {SLICE: "1ms"}) == {SLICE: 10 * MS}


def test_stats(script: Script) -> None:
    with running(script) as process:
        result = golibx("stats", process.pid)
        assert (result.returncode, result.stderr) == (0, "")
        shown = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
        assert shown["goroutines"] == "2"
        assert shown["tunings"] == "1"
        assert shown["latency_p99_ns"] == "not measured yet"
        # From then on they are measured.
        while not (found := control.stats(process.pid))["latency"]["count"]:
            pass
        assert found["latency"]["p50_ns"] <= found["latency"]["max_ns"]
        result = golibx("stats", process.pid, "--json")
    found = json.loads(result.stdout)
    assert found["pid"] == process.pid
    assert found["interpreter"] is True
    assert found["stats"].keys() == _core.stats().keys()
    assert found["tunables"].keys() == KEYS.keys()


def test_ps(script: Script) -> None:
    with running(script) as process:
        assert process.pid in control.processes()
        result = golibx("ps")
        row = next(r for r in result.stdout.splitlines() if r.startswith(f"{process.pid} "))
    assert result.stdout.split()[:4] == ["pid", "goroutines", "threads", "program"]
    assert row.split()[1] == "2"
    assert row.endswith(str(script.file(PROGRAM.replace("CONFIG", "{}"))))
    process.wait()
    assert process.pid not in control.processes()


# What golibx dump --json has, as docs/debugging.md says.
SHOWN = ["id", "name", "state", "reason", "waits_on", "frames", "waited_ns"]
KEYS_OF = {
    "goroutines": [
        *SHOWN,
        "system",
        "priority",
        "labels",
        "locked",
        "kept_by",
        "parent",
        "started_at",
    ],
    "threads": SHOWN,
    "native_goroutines": ["id", "state", "function", "locked"],
}

DUMPED = """
import threading, golibx, os, sys
from golibx import Chan, go, sleep
def worker(jobs):
    jobs.recv()
def main():
    jobs = Chan()
    with golibx.labels(request="/login"):
        goroutine = go(worker, jobs)
    goroutine.priority = "low"
    goroutine.name = "a \\x1b[31mred\\nname"
    threading.Thread(target=worker, args=[jobs], daemon=True, name="plain").start()
    while golibx.stats()["threads_waiting"] == 0:
        sleep(0.001)
    print("ready")
    sleep(600)
golibx.run(main)
"""


def test_dump_as_json(script: Script) -> None:
    with script.start(DUMPED, limit=55) as process:
        until_ready(process)
        result = golibx("dump", process.pid, "--json")
        process.kill()
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert (found["pid"], found["interpreter"]) == (process.pid, True)
    assert found["program"] == str(script.file(""))
    assert found["stats"]["goroutines"] == 2
    for kind, keys in KEYS_OF.items():
        for each in found[kind]:
            assert list(each) == keys
    main, worker = (each for each in found["goroutines"] if not each["system"])
    assert (main["id"], main["state"], main["reason"], main["parent"]) == (
        1,
        "sleep",
        "sleep",
        None,
    )
    assert worker["name"] == r"a \x1b[31mred\nname"
    assert worker["reason"] == "chan receive"
    assert worker["waited_ns"] > 0
    assert worker["parent"] == 1
    assert worker["started_at"] == {"file": found["program"], "line": 9}
    assert (worker["priority"], worker["labels"]) == ("low", {"request": "/login"})
    assert (main["priority"], main["labels"]) == ("normal", {})
    place = {"function": "worker", "file": found["program"], "line": 5}
    assert worker["frames"] == [place]
    (thread,) = found["threads"]
    assert (thread["name"], thread["reason"], thread["frames"][0]) == (
        "plain",
        "chan receive",
        place,
    )
    assert thread["waits_on"] == worker["waits_on"]
    assert worker["waits_on"][0].startswith("<Chan 0x")


def test_what_dump_has_as_json_is_documented() -> None:
    text = (Path(__file__).parent.parent / "docs" / "debugging.md").read_text(encoding="utf-8")
    section = text.partition("### For programs\n")[2].partition("\n## ")[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.M)
    whole, goroutine = (re.findall(r"`(\w+)`", re.sub(r"(?m) \| .*", "", t)) for t in tables)
    assert set(whole) == {"pid", *control._about(), *dump.snapshot()}
    assert goroutine == KEYS_OF["goroutines"]


@pytest.mark.parametrize(
    "command", [["tune"], ["stats"], ["dump", "--json"], ["tune", "preempt.slice=2ms"]]
)
def test_of_a_process_that_is_in_no_run(command: list[str]) -> None:
    name, *changes = command
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        result = golibx(name, process.pid, *changes)
        process.kill()
    assert (result.returncode, result.stdout) == (1, "")
    assert f"process {process.pid} is in no golibx run" in result.stderr


# ---- a stuck interpreter ----


def test_of_a_stuck_process(script: Script) -> None:
    with running(script, "stuck") as process:
        found = control.stats(process.pid)
        assert found["interpreter"] is False
        assert found["stats"]["goroutines"] == 2
        assert found["tunables"]["native.spinning"] == 33
        assert found["stats"].keys() <= _core.stats().keys()
        assert {*found["tunables"], "runtime.gomaxprocs"} == KEYS.keys()
        with pytest.raises(DumpError, match=r"refuses: the interpreter .* not answered for 5 s"):
            control.tune(process.pid, {SLICE: "2ms"})
        result = golibx("tune", process.pid)
        assert "native.spinning" in result.stdout
        assert f"the interpreter of process {process.pid} has not answered" in result.stderr
        assert request(process.pid).startswith("golibx: the interpreter has not answered for 1 s")
        with pytest.raises(DumpError, match=r"refuses: the interpreter .* not answered for 5 s"):
            control.goroutines(process.pid)


# ---- the protocol ----


def test_requests_that_are_refused(script: Script) -> None:
    with running(script) as process:
        pid = process.pid
        other = (
            "-not a request of golibx's, version 1: ask with the golibx that the process runs on\n"
        )
        assert exchange(pid, b"golibx 2 stats\n") == other
        assert exchange(pid, b"GET / HTTP/1.1\r\n") == other
        assert exchange(pid, b"\n") == other
        too_long = "-the request is longer than 4095 bytes\n"
        assert exchange(pid, b"golibx 1 tune " + b"x" * 5000 + b"\n") == too_long
        assert exchange(pid, b"golibx 1 \xff\n") == "-the request is not UTF-8\n"
        assert exchange(pid, b"golibx 1 fly\n").startswith("-there is no request 'fly' of golibx")
        assert exchange(pid, b"golibx 1 \n") == "-the request says nothing\n"
        for body in (b"", b"5", b"[]", b'{"a": 1}', b"{", b"[" * 3000):
            assert exchange(pid, b"golibx 1 tune " + body + b"\n").startswith("-"), body
        assert control.stats(pid)["stats"]["tunings"] == 1


def test_who_says_nothing_gets_a_dump(script: Script) -> None:
    with running(script) as process:
        for dump in (
            exchange(process.pid, b""),
            exchange(process.pid, b"", ends=True),
            exchange(process.pid, b"golibx 1 st", ends=True),
            exchange(process.pid, b"golibx 1 dump\n"),
            "+" + request(process.pid),
        ):
            assert re.match(r"\+goroutine 1 \[\w+", dump)


def test_the_socket_can_be_switched_off(script: Script) -> None:
    with running(script, debug={"control": False}) as process:
        assert process.pid not in control.processes()
        for what in (lambda: control.stats(process.pid), lambda: request(process.pid)):
            with pytest.raises(DumpError, match=r"`\[debug\] control` is false"):
                what()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_another_user_is_refused(script: Script) -> None:
    asks = (
        "import os, sys\nos.setuid(65534)\n"
        "from golibx import control\n"
        "from golibx.dump import DumpError\n"
        "change = {'preempt.slice': '1ms'}\n"
        "for ask in (lambda: control.stats(PID), lambda: control.tune(PID, change),\n"
        "            lambda: control.trace(PID), lambda: control.profile(PID, 0.1),\n"
        "            lambda: control.goroutines(PID)):\n"
        "    try: print(ask())\n"
        "    except DumpError as exc: print(exc)\n"
    )
    with running(script) as process:
        refused = f"process {process.pid} belongs to another user: ask as that user, or as root\n"
        program = f"PID = {process.pid}\nimport golibx.control, json, socket, struct\n{asks}"
        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False
        )
        assert (result.stdout, result.stderr) == (5 * refused, "")
        assert control.stats(process.pid)["tunables"][SLICE] == 10 * MS


# ---- what answers ----


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("tune {}", "no runtime is running"),
        ("stats now", "there is no request"),
        ("trace now", "there is no request 'trace' of golibx"),
        ("trace", "start it with --set plugins.enabled=trace"),
        ("", "no request"),
    ],
)
def test_answers_without_a_run(asked: str, text: str) -> None:
    answer = control.answer(asked, 1)
    assert answer.startswith("-")
    assert text in answer
