"""The plugin profile and `golibx profile`: what the files have, and what is refused.

The files of pprof are read by a decoder of this file's own, which knows only the wire format.
"""

from __future__ import annotations

import ctypes
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conftest import Script
from golibx import ConfigError, Goroutine, _core, control, go, run
from golibx.config import Config
from golibx.dump import DumpError
from golibx.plugins import profile
from golibx.plugins.profile import Frame, Plugin, Profile, encode, write
from test_control import golibx
from test_dump import until_ready

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux's processes can be asked")

# ---- reading ----


class Read(NamedTuple):
    """A profile as it is in a file."""

    types: list[tuple[str, str]]
    samples: list[tuple[tuple[Frame, ...], tuple[int, ...], dict[str, Any]]]
    period: int
    duration: int
    default: str

    def value(self, *functions: str, index: int = 1, **labels: str) -> int:
        """The sum of those with the innermost frame in one of the functions (none: in any)."""
        return sum(
            values[index]
            for frames, values, own in self.samples
            if (not functions or frames[0].function in functions)
            and all(own.get(key) == value for key, value in labels.items())
        )


def varints(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0


def fields(data: bytes) -> dict[int, list[Any]]:
    """The fields of a message by their numbers: ints, and bytes."""
    found: dict[int, list[Any]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        end = at
        while data[end] > 0x7F:
            end += 1
        (value,) = varints(data[at : end + 1])
        at = end + 1
        return value

    while at < len(data):
        key = number()
        value: Any = number()
        if key & 7 == 2:
            length, value = value, data[at : at + value]
            assert len(value) == length
            at += length
        else:
            assert key & 7 == 0
        found.setdefault(key >> 3, []).append(value)
    return found


def read(data: bytes) -> Read:
    message = fields(gzip.decompress(data))
    strings = [text.decode() for text in message[6]]
    assert strings[0] == ""

    def text(of: dict[int, list[int]], number: int) -> str:
        return strings[of.get(number, [0])[0]]

    functions = {}
    for each in map(fields, message.get(5, [])):
        functions[each[1][0]] = (text(each, 2), text(each, 4), each.get(5, [0])[0])
    locations = {}
    for each in map(fields, message.get(4, [])):
        assert each[2] == [1]  # the mapping
        (line,) = map(fields, each[4])
        locations[each[1][0]] = Frame(*functions[line[1][0]], line.get(2, [0])[0])
    samples = []
    for each in map(fields, message.get(2, [])):
        frames = tuple(locations[number] for number in varints(each[1][0]))
        labels = {
            text(label, 1): label[3][0] if 3 in label else text(label, 2)
            for label in map(fields, each.get(3, []))
        }
        samples.append((frames, tuple(varints(each[2][0])), labels))
    types = [(text(pair, 1), text(pair, 2)) for pair in map(fields, message[1])]
    return Read(
        types, samples, message.get(12, [0])[0], message.get(10, [0])[0], strings[message[14][0]]
    )


# ---- the files ----

OUTER = Frame("outer", "/a/b.py", 3, 9)
INNER = Frame("Class.inner", "/a/ü.py", 20, 21)


def example(kind: str = "cpu") -> Profile:
    made = Profile(kind, 10_000_000)
    made.duration_ns = 5_000_000_000
    made.add((INNER, OUTER), (("goroutine", "a name"), ("id", 7)), 1, 1 << 40)
    made.add((INNER, OUTER), (("goroutine", "a name"), ("id", 7)), 1, 500)
    made.add((OUTER,), (("goroutine", 'other "\n"'), ("id", 300)), 1, 129)
    made.add((OUTER,), (), 0, 0)
    return made


@pytest.mark.parametrize("kind", profile.KINDS)
def test_a_file_of_pprof_has_all_that_was_added(kind: str) -> None:
    made = example(kind)
    found = read(encode(made, "pprof"))
    assert found.samples == [
        ((INNER, OUTER), (2, (1 << 40) + 500), {"goroutine": "a name", "id": 7}),
        ((OUTER,), (1, 129), {"goroutine": 'other "\n"', "id": 300}),
        ((OUTER,), (0, 0), {}),
    ]
    assert (found.value(index=0), found.value(index=1)) == made.total()
    assert [unit for _, unit in found.types] == ["count", "nanoseconds"]
    assert found.default == found.types[kind != "leak"][0]
    assert (found.period, found.duration) == (10_000_000, 5_000_000_000)


def test_a_file_of_speedscope_has_all_that_was_added() -> None:
    made = example()
    found = json.loads(encode(made, "speedscope"))
    names = [frame["name"] for frame in found["shared"]["frames"]]
    assert [each["name"] for each in found["profiles"]] == ["all (cpu)", "a name", 'other "\n"']
    for each in found["profiles"]:
        assert each["type"] == "sampled"
        assert each["endValue"] == sum(each["weights"])
        assert len(each["samples"]) == len(each["weights"])
    every = found["profiles"][0]
    assert every["endValue"] == made.total()[1]
    assert [[names[i] for i in stack] for stack in every["samples"]] == [
        ["outer", "Class.inner"],
        ["outer"],
    ]


def test_go_reads_a_file(tmp_path: Path) -> None:
    """Go is no requirement of the tests: without it the decoder here is all."""
    (tmp_path / "x.pb.gz").write_bytes(encode(example(), "pprof"))
    tool = shutil.which("go", path=os.path.dirname(sys.executable)) or shutil.which("go")
    if tool is None:
        return
    command = [tool, "tool", "pprof", "-top", "x.pb.gz"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert result.returncode == 0, result.stderr
    assert "Type: cpu" in result.stdout
    assert re.search(r" 100% +1099.51s +100%  Class.inner$", result.stdout, re.M), result.stdout


def test_many_places_lose_their_labels_not_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "_MOST_LABELLED", 10)
    made = Profile("cpu")
    for number in range(100):
        made.add((OUTER,), (("id", number),), 1, 5)
    assert len(made.samples) == 11
    assert made.total() == (100, 500)


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(str(path), b"old")
    write(str(path), b"new")
    assert path.read_bytes() == b"new"
    (tmp_path / "folder" / "in it").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        write(str(tmp_path / "folder"), b"x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


# ---- the plugin ----

HEADER = """
import ctypes, os, sys, threading, time
import golibx
from golibx import Chan, Mutex, go, sleep

def crunch(seconds):
    '''Computes for so much CPU time of this thread or goroutine's thread.'''
    end = time.process_time() + seconds
    while time.process_time() < end:
        add()

def add():
    x = 0
    for i in range(200):
        x += i

def profiled(main, **settings):
    golibx.run(main, config={"plugins": {"enabled": ["profile"], "profile": settings}})
"""


def profile_of(script: Script, program: str, kind: str = "cpu") -> Read:
    result = script(HEADER + program, limit=50)
    assert result.returncode == 0, result.stderr
    path = script.cwd / f"golibx-{kind}.pb.gz"
    said = [f"golibx: profile: the {each} profile is in " for each in profile.KINDS]
    assert all(line.startswith(tuple(said)) for line in result.stderr.splitlines()), result.stderr
    return read(path.read_bytes())


def test_who_computes_has_the_time(script: Script) -> None:
    program = """
def busy():
    crunch(0.6)
def idle():
    sleep(0.1)
def main():
    with golibx.labels(request="/slow", id="one that is taken"):
        first = go(busy)
    first.name = "the busy one"
    go(idle).join()
    first.join()
profiled(main)
"""
    found = profile_of(script, program)
    assert found.types == [("samples", "count"), ("cpu", "nanoseconds")]
    assert found.period == 10_000_000
    computed = found.value("crunch", "add", "busy", goroutine="the busy one")
    assert computed > found.value(goroutine="main") + found.value(goroutine="idle")
    inside = [s for s in found.samples if s[0][0].function == "add"]
    (frames, _, labels), *_ = inside
    assert [frame.function for frame in frames] == ["add", "crunch", "busy"]
    # The interpreter looks for the call that notes the frames at the function's start, too.
    places = [sample[0][0] for sample in inside]
    assert all(place.line >= place.first_line > 0 for place in places)
    assert any(place.line > place.first_line for place in places)
    assert frames[0].file == str(script.file(""))
    assert re.fullmatch(r".*program\.py:\d+", labels["started at"])
    assert labels["request"] == "/slow"
    assert labels["id"] > 1


def test_short_stretches_are_seen_where_they_are(script: Script) -> None:
    """On 3.11 their time is that of the line where they end."""
    program = """
def bursts():
    end = time.process_time() + 0.4
    while time.process_time() < end:
        for _ in range(40):
            add()
        sleep(0.002)
def main():
    go(bursts).join()
profiled(main, hz=1000)
"""
    found = profile_of(script, program)
    # How many there are is up to how busy the machine is.
    assert found.value(goroutine="bursts") > 0
    if sys.version_info >= (3, 12):
        assert found.value("add", goroutine="bursts") > 0


def test_c_code_with_the_lock_counts_for_its_line(script: Script) -> None:
    program = """
held = ctypes.PyDLL(None)
def keeps():
    for _ in range(6):
        held.usleep(100_000)
def main():
    go(keeps).join()
profiled(main)
"""
    assert profile_of(script, program).value("keeps") > 0


@linux
def test_threads_of_the_program_have_their_time(script: Script) -> None:
    program = """
def main():
    thread = threading.Thread(target=crunch, args=[0.6], name="plain")
    thread.start()
    thread.join()
profiled(main)
"""
    found = profile_of(script, program)
    assert found.value("crunch", "add", thread="plain") > 0


def test_waits_have_their_reasons(script: Script) -> None:
    program = """
chan, mutex = Chan(), Mutex()
def receiver():
    chan.recv()
def locker():
    with mutex:
        pass
def main():
    with mutex:
        waiting = [go(receiver), go(locker), go(locker)]
        sleep(0.5)
    chan.send(1)
    for g in waiting: g.join()
profiled(main, kinds=["block", "mutex"], interval="5ms")
"""
    block = profile_of(script, program, "block")
    mutex = profile_of(script, program, "mutex")
    assert block.types == [("contentions", "count"), ("delay", "nanoseconds")]
    for found in (block, mutex):
        assert found.value("locker", index=0, reason="sync.Mutex.Lock") == 2
        assert found.value("locker", reason="sync.Mutex.Lock") > 0
    assert block.value("receiver", index=0, reason="chan receive") == 1
    # Each look that found the two found the other one, too.
    assert 2 * block.value("receiver", reason="chan receive") >= block.value("locker")
    assert block.value("main", reason="sleep") > 0
    assert mutex.value() == mutex.value("locker")


def test_leaks_are_found_when_the_time_is_up(script: Script) -> None:
    program = """
def left():
    Chan().recv()
def main():
    for _ in range(3):
        go(left)
    path = os.path.join(os.getcwd(), "golibx-leak.pb.gz")
    while not os.path.exists(path):
        sleep(0.01)
profiled(main, kinds=["leak"], duration="50ms")
"""
    found = profile_of(script, program, "leak")
    assert found.value("left", index=0, reason="chan receive") == found.value(index=0) == 3


def test_what_cannot_be_written_is_said(script: Script) -> None:
    program = """
def main():
    os.rmdir("out")
os.mkdir("out")
profiled(main, output="out/x")
"""
    result = script(HEADER + program)
    assert result.returncode == 0
    assert re.fullmatch(
        r"golibx: profile: .*/out/x\.pb\.gz can't be written: No such file or directory\n",
        result.stderr,
    )


def test_a_deadlock_is_still_found(script: Script) -> None:
    program = """
def main():
    Chan().recv()
try:
    profiled(main, kinds=["cpu", "block"])
except golibx.Deadlock as exc:
    print(str(exc).splitlines()[0])
"""
    expected = "all goroutines are asleep - deadlock! (1 goroutine)\n"
    assert script.passes(HEADER + program) == expected


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"hz": 5}, "plugins.profile.hz = 5: out of range"),
        ({"format": "svg"}, '"svg".*pprof.*speedscope'),
        ({"kinds": ["gpu"]}, "gpu is no kind of profile"),
        ({"kinds": []}, "there would be no profile"),
        ({"kinds": ["leak"]}, "needs a duration"),
        ({"kinds": ["cpu", "block"], "output": "x"}, "needs {kind}: each kind has a file"),
        ({"output": ""}, "must not be empty"),
        ({"output": "/no/such/folder/x"}, "can't be written: there is no folder /no/such/folder"),
        ({"herz": 1}, "did you mean plugins.profile.hz?"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], text: str) -> None:
    config = Config.from_mapping({"plugins": {"profile": settings}}, environ={})
    with pytest.raises(ConfigError, match=text):
        Plugin().golib_configure(config, "profile")


# ---- samples ----


def test_sample_is_for_threads() -> None:
    with pytest.raises(RuntimeError, match="a goroutine would only find itself"):
        run(_core.sample, 0.01, 1)


@pytest.mark.parametrize("period", [0.0, -1.0, 61.0, float("nan")])
def test_sample_refuses_a_period(period: float) -> None:
    with pytest.raises(ValueError, match="the period must be between"):
        _core.sample(period, 1)


def test_sample_refuses_a_count() -> None:
    with pytest.raises(ValueError, match="the count must not be negative"):
        _core.sample(0.01, -1)


def test_sample_without_a_run_finds_nothing() -> None:
    assert _core.sample(0.001, 3) == []


def test_one_thread_at_a_time_takes_samples() -> None:
    def other() -> None:
        while not refused:
            try:
                _core.sample(0.001, 5)
            except RuntimeError as exc:
                refused.append(str(exc))

    refused: list[str] = []
    threads = [threading.Thread(target=other) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused[0] == "another thread takes samples: there can be one CPU profile at a time"


@linux
def test_a_thread_that_samples_wakes_up_in_time() -> None:
    """Else it would find a goroutine that runs for moments only where it waits. When it has done
    so it is as it was, and so are threads that it starts."""

    def slack() -> int:
        return int(ctypes.CDLL(None).prctl(get_timerslack))

    def watch() -> None:
        native_id.append(threading.get_native_id())
        before = slack()
        began.set()
        _core.sample(0.001, 500)
        found.append((before, slack()))

    get_timerslack = 30  # PR_GET_TIMERSLACK of <linux/prctl.h>
    found: list[tuple[int, int]] = []
    native_id: list[int] = []
    began = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    began.wait()
    path = Path(f"/proc/{native_id[0]}/timerslack_ns")
    while path.read_text() != "1000\n":
        assert thread.is_alive(), "it samples with the slack that it had"
    thread.join()
    assert found[0][0] == found[0][1] > 1000


def test_samples_beside_goroutines_that_come_and_go() -> None:
    """What is noted is of a goroutine that lives, however short it does."""

    def brief() -> int:
        return sum(range(200))

    def watch() -> None:
        while len(found) < 200:
            found.extend(_core.sample(0.0001, 50))

    def main() -> None:
        while len(found) < 200:
            for goroutine in [go(brief) for _ in range(50)]:
                goroutine.join()
        thread.join()

    found: list[Any] = []
    thread = threading.Thread(target=watch)
    thread.start()
    run(main)
    for ns, goroutine, frames in found:
        assert ns >= 0
        assert type(goroutine) is Goroutine
        for code, line in frames:
            assert line is None or line >= code.co_firstlineno or line <= 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_samples_beside_forks(script: Script) -> None:
    """The child has no such thread, and may take samples itself."""
    program = """
from golibx import _core
def watch():
    while not ended:
        _core.sample(0.0001, 50)
def main():
    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(30):
        crunch(0.005)
        child = os.fork()
        if child == 0:
            os._exit(len(_core.sample(0.0001, 1)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ended.append(True)
    thread.join()
ended = []
golibx.run(main)
"""
    script.passes(HEADER + program, limit=50)


# ---- golibx profile ----

SERVER = (
    HEADER
    + """
def left():
    Chan().recv()
def busy():
    while True:
        for _ in range(50): add()
        sleep(0.0001)
def main():
    go(left)
    go(busy)
    print("ready")
    sleep(600)
golibx.run(main)
"""
)


@linux
@pytest.mark.parametrize("kind", profile.KINDS)
def test_a_process_without_the_plugin(script: Script, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "out.pb.gz"
    with script.start(SERVER, limit=55) as process:
        until_ready(process)
        result = golibx("profile", process.pid, "--seconds", "0.5", "--kind", kind, "-o", path)
        process.kill()
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{path}\n", "")
    found = read(path.read_bytes())
    if kind in ("cpu", "block"):
        assert found.value(goroutine="busy", index=0) > 0
    if kind in ("block", "leak"):
        assert found.value("left", index=0) == 1
    if kind == "mutex":
        assert found.samples == []


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_only_one_profile_at_a_time(script: Script, tmp_path: Path, number: int) -> None:
    """One that was given up, or that has lost its asker, is in no other's way."""
    path = tmp_path / "out.pb.gz"
    with script.start(SERVER, limit=55) as process:
        until_ready(process)
        command = [sys.executable, "-m", "golibx", "profile", str(process.pid), "--seconds", "50"]
        with subprocess.Popen([*command, "-o", str(path)], stderr=subprocess.PIPE) as first:
            while "takes a profile of it already" not in refusal(process.pid):
                pass
            result = golibx("profile", process.pid, "-o", path)
            assert result.returncode == 1
            assert f"process {first.pid} takes a profile of it already" in result.stderr
            first.send_signal(number)
            first.communicate()
        assert first.returncode == (130 if number == signal.SIGINT else -number)
        assert not [name for name in os.listdir(tmp_path) if "out.pb" in name]
        while "already" in refusal(process.pid):
            pass
        assert read(control.profile(process.pid, 0.05)).duration > 0
        process.kill()


def refusal(pid: int) -> str:
    """Why a profile cannot begin; if it could, that there is no such one."""
    with pytest.raises(DumpError) as caught:
        control.profile(pid, 0.01, kind="gpu")
    return str(caught.value)


@linux
def test_a_deadlock_is_found_while_a_profile_is_taken(script: Script) -> None:
    program = """
def main():
    print("ready")
    sys.stdin.readline()
    Chan().recv()
golibx.run(main)
"""
    with script.start(HEADER + program, limit=55) as process:
        until_ready(process)
        command = [sys.executable, "-m", "golibx", "profile", str(process.pid), "--seconds", "50"]
        with subprocess.Popen([*command, "-o", "/dev/shm/x"], stderr=subprocess.PIPE) as first:
            while "takes a profile of it already" not in refusal(process.pid):
                pass
            _, errors = process.communicate("go on\n", timeout=50)
            first.communicate()
        assert first.returncode == 1
    assert "Deadlock: all goroutines are asleep" in errors


@linux
def test_a_terminal_shows_how_far_it_is(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "out.pb.gz"
    with script.start(SERVER, limit=55) as process:
        until_ready(process)
        ours, theirs = os.openpty()
        command = [sys.executable, "-m", "golibx", "profile", str(process.pid), "--seconds", "0.5"]
        with subprocess.Popen([*command, "-o", str(path)], stderr=theirs) as asking:
            os.close(theirs)
            shown = b""
            try:
                while part := os.read(ours, 4096):
                    shown += part
            except OSError:  # its end, on Linux
                pass
        os.close(ours)
        process.kill()
    assert asking.returncode == 0
    assert f"cpu profile of {process.pid}".encode() in shown


@linux
def test_requests_that_make_no_sense_are_refused(script: Script) -> None:
    with script.start(SERVER, limit=55) as process:
        until_ready(process)
        for options in ({"kind": "gpu"}, {"format_": "svg"}, {"hz": 0}, {"hz": 10**9}):
            with pytest.raises(DumpError, match=r"refuses: (there is no|hz = )"):
                control.profile(process.pid, 0.01, **options)
        with pytest.raises(DumpError, match=r"duration_ns = .*: out of range"):
            control.profile(process.pid, 1e9)
        process.kill()


@linux
def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    result = golibx("profile", os.getpid(), "-o", tmp_path / "no" / "x")
    assert result.returncode == 1
    assert "can't be written: no access to" in result.stderr
    result = golibx("profile", os.getpid(), "-o", tmp_path)
    assert "can't be written: it is a folder" in result.stderr
    result = golibx("profile", os.getpid(), "-o", tmp_path / "x")
    assert f"process {os.getpid()} is in no golibx run" in result.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("profile", "Expecting value"),
        ("profile 5", "a profile has no None"),
        ('profile {"do": "look"}', "the profile is gone"),
        ('profile {"do": "start"}', "no runtime is running"),
    ],
)
def test_answers_without_a_run(asked: str, text: str) -> None:
    answer = control.answer(asked, 1)
    assert answer.startswith("-")
    assert text in answer
