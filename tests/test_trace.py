"""The plugin trace: what is in its files, flights, and what `golibx trace` tells of them.

Programs run in a process of their own. `checked` looks at what holds for every file; each test at
what is its own.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import ConfigError, control, go, gomaxprocs, native, tracefile, tracelines
from golibx.config import Config
from golibx.dump import DumpError
from golibx.plugins import trace
from golibx.testing import wait_until
from golibx.tracefile import TraceFileError
from test_events import NEEDS_NATIVE, native_goroutines_end
from test_native import c, library_path  # noqa: F401

Events = list[dict[str, Any]]

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the socket is Linux's")
PYTHON, NATIVE, SCHEDULER, REGIONS, THREADS = 1, 2, 3, 4, 5


def read(path: Path) -> Events:
    """The events of a file, which has its end."""
    events: Events = json.loads(path.read_text(encoding="ascii"))
    checked(events)
    assert not still_open(events)
    return events


def read_cut(path: Path) -> Events:
    """Those of a file without end, as the viewers read it."""
    text = path.read_text(encoding="ascii")
    assert not text.endswith("]\n")
    whole_lines = text[: text.rindex("\n")]
    events: Events = json.loads(whole_lines.removesuffix(",") + "]")
    checked(events)
    return events


def checked(events: Events) -> None:
    """Whether each track is in order, and each E has its B."""
    before: dict[tuple[int, int], float] = {}
    for event in events:
        if event["ph"] == "M":
            continue
        track = (event["pid"], event["tid"])
        assert event["ts"] >= before.get(track, 0.0), event
        before[track] = event["ts"]
    still_open(events)


def still_open(events: Events) -> dict[tuple[int, int], list[str]]:
    """The stretches that have no end."""
    stacks: dict[tuple[int, int], list[str]] = {}
    for event in events:
        track = (event["pid"], event["tid"])
        if event["ph"] == "B":
            stacks.setdefault(track, []).append(event["name"])
        elif event["ph"] == "E":
            stacks[track].pop()
            if not stacks[track]:
                del stacks[track]
    return stacks


def named(events: Events, name: str) -> Events:
    return [event for event in events if event.get("name") == name]


def args_of(events: Events, name: str) -> dict[str, Any]:
    """What the one event of that name says."""
    (event,) = named(events, name)
    args: dict[str, Any] = event["args"]
    return args


def names_of(events: Events, group: int) -> dict[int, str]:
    """The tracks of a group."""
    return {e["tid"]: e["args"]["name"] for e in named(events, "thread_name") if e["pid"] == group}


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "golibx", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )


def so_far(path: Path) -> str:
    """What a file says that is written still: "" if it has no beginning yet."""
    try:
        with path.open("rb") as file:
            return "".join(line for lines in tracelines.lines_of(file) for line in lines)
    except (OSError, ValueError):
        return ""


def run_traced(main: Any, path: Path, *overrides: str) -> Events:
    """A run in this process, traced to a file."""
    options = ["plugins.enabled=trace", f"plugins.trace.output={path}", *overrides]
    golibx.run(main, config=Config.load(environ={}, overrides=options))
    return read(path)


def program_of(body: str, enabled: str = "", **settings: object) -> str:
    """A program whose function main() runs with the plugin."""
    plugins = {"enabled": [*filter(None, [enabled]), "trace"], "trace": settings}
    return (
        "import os, sys, threading, time, types\n"
        "import golibx\n"
        "from golibx import Chan, go, gosched, sleep\n"
        "from golibx.hookspec import hookimpl\n"
        "from golibx.plugins import trace\n"
        "from golibx.testing import wait_until\n"
        f"{body}\n"
        f"golibx.run(main, config={{'plugins': {plugins}}})\n"
    )


# ---- what is in a file ----

COUNTING = """
import json, collections, socket
counts = collections.Counter()

def counter(name):
    def hook(event):
        counts[name] += 1
    hook.__name__ = name
    return hookimpl(hook)

NAMES = [f"on_goroutine_{n}" for n in ("create", "start", "park", "ready", "exit", "panic")]
NAMES += [f"on_{n}" for n in ("preempt", "retake", "netpoll_ready", "steal", "deadlock")]
NAMES += ["on_gomaxprocs", "on_tune"]
plugin = types.SimpleNamespace(**{name: counter(name) for name in NAMES})

@hookimpl
def golib_stop(runtime):
    stats = runtime.stats()
    recorded = stats["events_recorded"] + stats["native_events_recorded"]
    dropped = stats["events_dropped"] + stats["native_events_dropped"]
    preempted = stats["preemptions"] + stats["handoffs"]
    print(json.dumps([counts, recorded, dropped, preempted, stats["spawns"]]))
plugin.golib_stop = golib_stop

@hookimpl
def tune(snapshot):
    counts["tune"] += 1
plugin.tune = tune
sys.modules["counting"] = types.SimpleNamespace(plugin=plugin)
"""

TOTALS = (
    COUNTING
    + """
def fails():
    raise ValueError("no such user")

def echo(near):
    while data := near.recv(9):
        near.sendall(data)

def main():
    far, near = socket.socketpair()
    go(echo, near)
    for _ in range(20):
        far.sendall(b"x")
        far.recv(9)
    far.close()
    c = Chan()
    go(lambda: [c.send(i) for i in range(50)])
    for _ in range(50):
        c.recv()
    go(fails)
    left = go(Chan().recv)
    done = []
    def hog():
        while not done:
            pass
    hogs = [go(hog), go(hog)]
    before = golibx.stats()
    wait_until(lambda: golibx.stats()["preemptions"] + golibx.stats()["handoffs"]
               > before["preemptions"] + before["handoffs"] + 3)
    done.append(True)
    golibx.tune({"preempt.slice": "2ms"})
    golibx.gomaxprocs(golibx.gomaxprocs() + 1)
    for each in hogs:
        each.join()
    left.cancel()
"""
)


def test_totals_are_those_of_the_hooks(script: Script) -> None:
    result = script(program_of(TOTALS, "counting:plugin"))
    assert result.returncode == 0, result.stderr
    found, recorded, dropped, preempted, spawns = json.loads(result.stdout)
    counts = Counter(found)
    events = read(script.cwd / "golibx-trace.json")
    after = Counter(e["args"]["after"] for e in events if "after" in e.get("args", {}))
    assert dropped == 0
    # What happens while golib_stop is called is recorded, perhaps, and not delivered.
    assert recorded >= sum(counts.values()) - counts["tune"] > 100
    assert after["create"] == counts["on_goroutine_create"] <= spawns
    assert after["start"] == counts["on_goroutine_start"] + 1  # the main one
    assert after["wake"] == counts["on_goroutine_ready"]
    assert after["preempt"] == counts["on_preempt"] <= preempted
    assert after["retake"] == counts["on_retake"]
    waits = [e for e in events if e.get("cat") == "wait"]
    assert len(waits) == counts["on_goroutine_park"]
    for name, hook in (
        ("exit", "on_goroutine_exit"),
        ("panic", "on_goroutine_panic"),
        ("socket ready", "on_netpoll_ready"),
        ("tune", "on_tune"),
        ("gomaxprocs", "on_gomaxprocs"),
        ("stolen", "on_steal"),
    ):
        assert len(named(events, name)) == counts[hook], name
    assert counts["on_goroutine_panic"] == counts["on_tune"] == counts["on_gomaxprocs"] == 1
    ending = args_of(events, "trace ends")
    assert ending == {"events": sum(counts.values()), "dropped": 0, "left_out": 0}
    summary = tracefile.summary(str(script.cwd / "golibx-trace.json"))
    assert summary.is_whole
    assert summary.shown()["preemptions"] == counts["on_preempt"]
    assert summary.shown()["goroutines"] == {"python": after["create"] + 1, "native": 0}


COUNTERS = """
import ctypes, json, socket
from golibx import native
c = ctypes.CDLL(LIBRARY)
seen = {}

@hookimpl
def golib_stop(runtime):
    seen["stop"] = runtime.stats()
    print(json.dumps(seen))
sys.modules["counting"] = types.SimpleNamespace(plugin=types.SimpleNamespace(golib_stop=golib_stop))

def main():
    seen["begin"] = golibx.stats()
    chan = Chan()
    go(lambda: [chan.send(i) for i in range(50)])
    for _ in range(50):
        chan.recv()
    far, near = socket.socketpair()
    done = []

    def hog():
        while not done:
            pass

    def grown(*names):
        now = golibx.stats()
        return sum(now[name] - seen["begin"][name] for name in names)

    hogs = [go(hog), go(hog)]
    wait_until(lambda: grown("preemptions", "handoffs") > 3)
    done.append(True)
    for each in hogs:
        each.join()
    while grown("retakes") < 2:
        blocked = go(time.sleep, 0.005)
        go(sleep, 0.001).join()
        blocked.join()
    with trace.region("native"):
        native.call(c.start_many, 100)
    trace.mark("done")
    golibx.tune({"preempt.slice": "1m", "native.spinning": 33})
    wait_until(lambda: golibx.stats()["native_goroutines"] == 0)
    seen["end"] = golibx.stats()
"""


@NEEDS_NATIVE
def test_totals_are_the_counters_and_every_field_is_documented(
    script: Script,
    library_path: Path,  # noqa: F811
) -> None:
    """Viewers read what the Trace Event Format says; what is in the file is what happened."""
    body = COUNTERS.replace("LIBRARY", repr(str(library_path)))
    seen = json.loads(script.passes(program_of(body, "counting:plugin")))
    events = read(script.cwd / "golibx-trace.json")
    for event in events:
        documented(event)
    after = Counter((e["pid"], e["args"]["after"]) for e in events if "after" in e.get("args", {}))
    of_services = Counter(e["name"] for e in events if e["ph"] == "i" and e["pid"] == PYTHON)
    in_file = {
        ("spawns",): after[PYTHON, "create"],
        ("native_spawns",): after[NATIVE, "create"],
        ("preemptions", "handoffs"): after[PYTHON, "preempt"] + of_services["preempted"],
        ("retakes",): after[PYTHON, "retake"] + of_services["retaken"],
        ("tunings",): len(named(events, "tune")),
    }
    begin, end, stop = seen["begin"], seen["end"], seen["stop"]
    stop["spawns"] -= begin["spawns"]  # the runtime's own
    for names, count in in_file.items():
        # What is there of it at the beginning may have been before the file was begun.
        least, most = sum(end[n] - begin[n] for n in names), sum(stop[n] for n in names)
        assert least <= count <= most, names
        assert count > 0, names
    assert after[NATIVE, "create"] == after[NATIVE, "start"] == 101
    assert after[PYTHON, "create"] + 1 == after[PYTHON, "start"]
    assert args_of(events, "trace ends")["dropped"] == stop["events_dropped"] == 0


_INTEGER, _NUMBER, _TEXT = (int,), (int, float), (str,)
_ALWAYS: dict[str, tuple[type, ...]] = {"ph": _TEXT, "pid": _INTEGER, "tid": _INTEGER}
_NAMED = _ALWAYS | {"ts": _NUMBER, "name": _TEXT}
DOCUMENTED: dict[str, tuple[dict[str, tuple[type, ...]], dict[str, tuple[type, ...]]]] = {
    "B": (_NAMED, {"cat": _TEXT, "args": (dict,)}),
    "E": (_ALWAYS | {"ts": _NUMBER}, {"args": (dict,)}),
    "i": (_NAMED | {"s": _TEXT}, {"cat": _TEXT, "args": (dict,)}),
    "C": (_NAMED | {"args": (dict,)}, {}),
    "M": (_ALWAYS | {"name": _TEXT, "args": (dict,)}, {}),
}
"""By the phase: the fields that an event has, and those that it may have. The format has others."""


def documented(event: dict[str, Any]) -> None:
    """Whether the event is as the Trace Event Format has it."""
    assert list(event)[0] == "ph"
    has, may_have = DOCUMENTED[event["ph"]]
    assert has.keys() <= event.keys() <= has.keys() | may_have.keys(), event
    for name, value in event.items():
        assert type(value) in (has | may_have)[name], (name, event)
    assert 0 <= event["pid"] < 1 << 31
    assert 0 <= event["tid"] < 1 << 31
    assert event.get("ts", 0) >= 0
    if event["ph"] == "i":
        assert event["s"] in ("g", "p", "t")
    elif event["ph"] == "C":  # each value is one curve of it
        assert event["args"]
        assert {type(value) for value in event["args"].values()} <= {int, float}
    elif event["ph"] == "M":
        assert event["name"] in ("process_name", "thread_name")
        assert event["args"].keys() == {"name"}
        assert type(event["args"]["name"]) is str


def test_what_the_events_say(tmp_path: Path) -> None:
    def fails() -> None:
        raise ValueError('"no such user"\n')

    def main() -> None:
        sleeper = go(golibx.sleep, 0.001)
        ids.append(sleeper.id)
        sleeper.join()
        failing = golibx.WaitGroup()
        failing.go(fails)
        failing.wait()
        golibx.tune({"preempt.slice": "2ms"})

    ids: list[int] = []
    undisturbed = ("preempt.slice=1m", "retake.enabled=false")
    events = run_traced(main, tmp_path / "trace.json", *undisturbed)
    own = [e for e in events if (e["pid"], e["tid"]) == (PYTHON, ids[0]) and e["ph"] != "M"]
    assert [(e["ph"], e.get("name")) for e in own] == [
        ("B", "ready"),
        ("E", None),
        ("B", "running"),
        ("E", None),
        ("B", "sleep"),
        ("E", None),
        ("B", "ready or running"),
        ("E", None),
        ("i", "exit"),
    ]
    assert own[-1]["args"]["outcome"] == "returned"
    assert own[0]["args"] == {"after": "create", "by": 1}
    assert args_of(events, "panic") == {"exception": 'ValueError: "no such user"'}
    assert args_of(events, "tune") == {
        "key": "preempt.slice",
        "old": "1m",
        "new": "2ms",
        "who": "program",
    }
    assert args_of(events, "trace begins")["process"] == os.getpid()


def test_a_deadlock(tmp_path: Path) -> None:
    def main() -> None:
        with pytest.raises(golibx.Deadlock):
            golibx.Chan[int]().recv()

    events = run_traced(main, tmp_path / "trace.json")
    assert args_of(events, "deadlock") == {"goroutines": 1}


def test_tracks_have_names(tmp_path: Path) -> None:
    """Of those that live long enough to be looked at."""
    path = tmp_path / "trace.json"

    def named_in_the_file() -> bool:
        return f"worker {ids[0]}" in so_far(path)

    def main() -> None:
        def worker() -> None:
            wait_until(named_in_the_file)

        goroutine = go(worker)
        ids.append(goroutine.id)
        goroutine.join()

    ids: list[int] = []
    names = names_of(run_traced(main, path), PYTHON)
    services = {number for number, name in names.items() if name.startswith("(service) ")}
    assert names.keys() - services == {1, ids[0]}
    assert names[1] == "main 1"
    assert names[ids[0]].endswith(f".worker {ids[0]}")
    groups = {e["pid"]: e["args"]["name"] for e in named(read(path), "process_name")}
    assert groups[PYTHON] == "Python goroutines"
    assert len(groups) == 5


@NEEDS_NATIVE
def test_native_goroutines_have_tracks(tmp_path: Path, c: ctypes.CDLL) -> None:  # noqa: F811
    def main() -> None:
        native.call(c.start_many, 5)
        native_goroutines_end()

    before = gomaxprocs()
    events = run_traced(main, tmp_path / "trace.json")
    gomaxprocs(before)
    tracks = {e["tid"] for e in events if e["pid"] == NATIVE and e["ph"] == "B"}
    assert len(tracks) == 6
    assert names_of(events, NATIVE) == {track: f"goroutine {track}" for track in tracks}
    summary = tracefile.summary(str(tmp_path / "trace.json"))
    assert summary.shown()["goroutines"]["native"] == 6
    assert " native\n" in tracefile.text(summary)


# ---- regions and marks ----


def test_regions_and_marks(tmp_path: Path) -> None:
    def inside() -> None:
        with trace.region("outer", size=9, what=object):
            with trace.region("inner"):
                golibx.sleep(0.001)
            with pytest.raises(ValueError), trace.region("fails"):
                raise ValueError
            trace.mark("half", share=float("nan"), text='"é\ud800')

    def main() -> None:
        ids.append(golibx.current().id)  # type: ignore[union-attr]
        goroutine = go(inside)
        ids.append(goroutine.id)
        goroutine.join()
        thread = threading.Thread(target=trace.mark, args=("in a thread",), name="T")
        thread.start()
        thread.join()

    ids: list[int] = []
    events = run_traced(main, tmp_path / "trace.json")
    own = [e for e in events if e["pid"] == REGIONS and e["ph"] != "M"]
    assert [(e["ph"], e.get("name")) for e in own] == [
        ("B", "outer"),
        ("B", "inner"),
        ("E", None),
        ("B", "fails"),
        ("E", None),
        ("i", "half"),
        ("E", None),
    ]
    assert {e["tid"] for e in own} == {ids[1]}
    assert own[0]["args"] == {"size": 9, "what": repr(object)}
    assert own[5]["args"]["share"] == "nan"
    assert names_of(events, REGIONS).keys() == {ids[1]}
    for group in (PYTHON, REGIONS):
        assert names_of(events, group)[ids[1]].endswith(f".inside {ids[1]}")
    (thread_name,) = names_of(events, THREADS).values()
    assert thread_name.startswith("T ")
    (in_thread,) = named(events, "in a thread")
    assert in_thread["pid"] == THREADS
    regions = tracefile.summary(str(tmp_path / "trace.json")).shown()["regions"]
    assert {name: each["count"] for name, each in regions.items()} == {
        "outer": 1,
        "inner": 1,
        "fails": 1,
    }


def test_regions_that_end_in_another_order(tmp_path: Path) -> None:
    """As those of generators may."""

    def main() -> None:
        first, second = trace.region("first"), trace.region("second")
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)
        trace.region("open").__enter__()

    events = run_traced(main, tmp_path / "trace.json")
    own = [(e["ph"], e.get("name")) for e in events if e["pid"] == REGIONS and e["ph"] != "M"]
    assert own == [
        ("B", "first"),
        ("B", "second"),
        ("E", None),
        ("E", None),
        ("B", "second"),
        ("E", None),
        ("B", "open"),
        ("E", None),
    ]


def test_without_a_trace_they_do_nothing() -> None:
    class Touchy:
        def __repr__(self) -> str:
            raise AssertionError

    with trace.region("x", touchy=Touchy()):
        trace.mark("y", touchy=Touchy())
    with pytest.raises(RuntimeError, match=r"--set plugins\.trace\.mode=flight"):
        trace.flight()


def test_a_region_that_outlives_the_run(tmp_path: Path) -> None:
    region = trace.region("long")
    events = run_traced(region.__enter__, tmp_path / "trace.json")
    region.__exit__(None, None, None)
    assert len(named(events, "long")) == 1
    assert read(tmp_path / "trace.json") == events


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_writes_nothing(script: Script) -> None:
    body = """
def main():
    pid = os.fork()
    if pid == 0:
        for _ in range(10_000):
            trace.mark("child")
        os._exit(0)
    os.waitpid(pid, 0)
    trace.mark("parent")
"""
    script.passes(program_of(body))
    events = read(script.cwd / "golibx-trace.json")
    assert len(named(events, "parent")) == 1
    assert named(events, "child") == []


# ---- how files are written ----


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_process_that_is_killed_leaves_a_file(script: Script) -> None:
    body = """
def waits():
    sleep(600)
def main():
    go(waits).join()
"""
    path = script.cwd / "golibx-trace.json"
    with script.start(program_of(body)) as process:
        wait_until(lambda: '"name":"sleep"' in so_far(path))
        process.kill()
        process.wait()
    result = command("trace", path, "--convert", script.cwd / "converted.json")
    assert result.returncode == 0, result.stderr
    assert "The file has no end" in result.stdout
    events = read_cut(script.cwd / "converted.json")
    assert sorted(still_open(events).values()) == [["goroutine join"], ["sleep"]]
    assert tracefile.summary(str(script.cwd / "converted.json")).shown() == (
        tracefile.summary(str(path)).shown()
    )
    summary = tracefile.summary(str(path))
    assert not summary.is_whole
    assert "The file has no end" in tracefile.text(summary)
    assert {wait["reason"] for wait in summary.shown()["longest_waits"]} >= {"sleep"}


def test_a_file_that_is_cut_anywhere_says_what_is_whole_in_it(tmp_path: Path) -> None:
    """As one of a process that was killed in the midst of a write."""
    kept = tmp_path / "kept"

    def main() -> None:
        with trace.region("r", x="1"):
            for _ in range(50):
                go(golibx.sleep, 0.0001).join()
        golibx.tune({"preempt.slice": "2ms"})
        wait_until(lambda: '"name":"tune"' in so_far(tmp_path / "trace.json"))
        kept.write_bytes((tmp_path / "trace.json").read_bytes())

    events = run_traced(main, tmp_path / "trace.json")
    content = kept.read_bytes()
    whole = so_far(kept)
    cut = tmp_path / "cut"
    lengths = {0, len(content), *range(40, len(content), max(len(content) // 20, 1))}
    for length in sorted(lengths):
        cut.write_bytes(content[:length])
        text = so_far(cut)
        assert whole.startswith(text)
        if text:
            found = tracefile.summary(str(cut))
            assert not found.is_whole
            assert found.events <= len(events)
    assert text == whole
    assert tracefile.picture(str(cut), found).endswith("</svg>\n")
    for wrong in (content[:40], content + b"XXXX\4\0\0\0{}{}", content[:32] + b"A" * 99):
        cut.write_bytes(wrong)
        with pytest.raises(TraceFileError, match="no file of the plugin trace"):
            tracefile.summary(str(cut))


def test_max_size(script: Script) -> None:
    body = (
        COUNTING
        + """
def main():
    c = Chan()
    go(lambda: [c.send(i) for i in range(2000)])
    for _ in range(2000):
        c.recv()
"""
    )
    result = script(program_of(body, "counting:plugin", max_size="20KiB"))
    assert result.returncode == 0, result.stderr
    counts, *_ = json.loads(result.stdout)
    path = script.cwd / "golibx-trace.json"
    events = read(path)
    ending = args_of(events, "trace ends")
    assert ending["left_out"] > 0
    assert ending["events"] + ending["left_out"] == sum(counts.values())
    # What is open has its end, and the last 256 events were begun before it was full.
    assert 20 * 1024 <= path.stat().st_size < 20 * 1024 + 300 * 256
    assert args_of(events, "max_size is reached") == {"max_size": 20 * 1024}
    assert (
        f"golibx: trace: {ending['left_out']} events are missing in {path}, which has reached "
        "max_size of [plugins.trace]" in result.stderr
    )


def test_what_the_core_drops_is_in_the_file(tmp_path: Path, capfd: Any) -> None:
    def main() -> None:
        # Without a wait in between, for the pump would have its turn.
        for _ in range(100):
            golibx._core.record_panic(7, "x")
        golibx.sleep(0.001)

    path = tmp_path / "trace.json"
    events = run_traced(main, path, "hooks.ring_size=64")
    dropped = args_of(events, "trace ends")["dropped"]
    assert dropped >= 36
    assert sum(e["args"]["events"] for e in named(events, "events dropped")) == dropped
    assert 0 < 100 - len(named(events, "panic")) <= dropped
    assert f"{dropped} events are missing in {path}: they came faster" in capfd.readouterr().err
    assert f"missing     {dropped} events dropped" in tracefile.text(tracefile.summary(str(path)))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_ends_the_trace_and_not_the_program(script: Script) -> None:
    result = script(program_of("def main(): print('done')", output="/dev/full"))
    assert (result.returncode, result.stdout) == (0, "done\n")
    said = "golibx: trace: /dev/full can't be written: No space left on device; the trace ends"
    assert result.stderr.count(said) == 1


def test_the_name_may_have_the_process_in_it(script: Script) -> None:
    script.passes(program_of("def main(): print(os.getpid())", output="t-{pid}.json"))
    (path,) = script.cwd.glob("*.json")
    assert path.name == f"t-{args_of(read(path), 'trace begins')['process']}.json"


def test_checking_a_configuration_writes_nothing(script: Script) -> None:
    (script.cwd / "golib.toml").write_text('[plugins]\nenabled = ["trace"]\n')
    (script.cwd / "golibx-trace.json").write_text("kept")
    result = command("check-config", script.cwd / "golib.toml")
    assert result.returncode == 0, result.stderr
    assert (script.cwd / "golibx-trace.json").read_text() == "kept"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("output=", 'plugins.trace.output = "": must not be empty'),
        ("output=no/such/t.json", "can't be written: there is no folder "),
        ("output=/", "can't be written: it is a folder"),
        ("mode=fast", 'plugins.trace.mode = "fast"'),
        ("max_size=1KiB", "(allowed: 4KiB to 1TiB, or 0: as large as it gets)"),
        ("max_events=5", "(allowed: 100 to 1000000)"),
        ("flight=1ms", "(allowed: 10ms to 1h)"),
        ('flight_on=["SIGUSR2"]', 'flight_on = ["SIGUSR2"]: needs mode = "flight"'),
        ("flight_latency=5ms", 'flight_latency = "5ms": needs mode = "flight"'),
        ('flight_on=["SIGNONE"]', 'SIGNONE is neither "exception" nor a signal that can be caught'),
        ('flight_on=["SIGKILL"]', 'SIGKILL is neither "exception" nor a signal'),
        ("outptu=x", "did you mean plugins.trace.output?"),
    ],
)
def test_wrong_settings(setting: str, said: str) -> None:
    overrides = ["plugins.enabled=trace", f"plugins.trace.{setting}"]
    with pytest.raises(ConfigError) as caught:
        golibx.run(int, config=Config.load(environ={}, overrides=overrides))
    assert said in str(caught.value)
    assert "plugins.trace." in str(caught.value)


# ---- flights ----


def test_a_flight_is_bounded(script: Script) -> None:
    body = """
def main():
    for i in range(3000):
        trace.mark("early", i=i)
    print(trace.flight())
    print(trace.flight("again"))
"""
    result = script(program_of(body, mode="flight", max_events=200))
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first == str(script.cwd / "golibx-trace.json")
    assert second == str(script.cwd / "golibx-trace.2.json")
    events = read(Path(first))
    ending = args_of(events, "trace ends")
    assert (ending["events"], ending["limited_by_max_events"]) == (200, True)
    assert (ending["why"], ending["dropped"]) == ("the program", 0)
    assert [e["args"]["i"] for e in named(events, "early")][-1] == 2999
    assert args_of(read(Path(second)), "trace ends")["why"] == "again"
    assert f" s are in {first} (the program)\n" in result.stderr


def test_handlers_of_signals_ask_for_flights_in_the_midst_of_others(script: Script) -> None:
    body = """
import signal
paths = []
in_flight = 0

def handler(signum, frame):
    global in_flight
    while frame is not None:
        in_flight += frame.f_code.co_name == "write_flight"
        frame = frame.f_back
    # Where a flight takes longer than the timer, each handler interrupts the one before.
    if in_flight >= 3:
        signal.setitimer(signal.ITIMER_REAL, 0)
    paths.append(trace.flight("handler"))

def main():
    for i in range(500):
        trace.mark("here", i=i)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    while in_flight < 3:
        paths.append(trace.flight("main"))
    print(len(paths) - len(set(paths)), *paths)
"""
    result = script(program_of(body, mode="flight", flight="1h"))
    assert result.returncode == 0, result.stderr
    same, *paths = result.stdout.split()
    assert same == "0"
    for path in paths:
        assert len(named(read(Path(path)), "here")) == 500


def test_a_flight_has_the_last_seconds(script: Script) -> None:
    body = """
def main():
    trace.mark("long ago")
    sleep(0.05)
    with trace.region("open"):
        print(trace.flight())
"""
    path = Path(script.passes(program_of(body, mode="flight", flight="20ms")).strip())
    events = read(path)
    assert named(events, "long ago") == []
    assert len(named(events, "open")) == 1
    ending = args_of(events, "trace ends")
    assert ending["limited_by_max_events"] is False
    assert events[-1]["ts"] <= 20_000
    # The sleep began before it.
    (wait,) = [e for e in events if e.get("cat") == "wait" and e["tid"] == 1] or [None]
    assert wait is None or wait["name"] == "a wait that began before"


def wait_for_line(process: subprocess.Popen[str], part: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if part in line:
            return line
    raise AssertionError(part)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="needs SIGUSR2")
def test_a_signal_has_a_flight_written(script: Script) -> None:
    body = """
def main():
    trace.mark("before")
    print("ready")
    while True:
        sleep(0.001)
"""
    program = program_of(body, mode="flight", flight_on=["SIGUSR2"])
    with script.start(program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for name in ("golibx-trace.json", "golibx-trace.2.json"):
            process.send_signal(signal.SIGUSR2)
            assert f" s are in {script.cwd / name} (SIGUSR2)" in wait_for_line(process, "trace: ")
            events = read(script.cwd / name)
            assert len(named(events, "before")) == 1
            assert names_of(events, REGIONS) == {1: "main 1"}


FAILING = """
def fails():
    raise ValueError("no such user")
def main():
    go(fails)
    gosched()
    sleep(0.001)
"""


def test_a_panic_has_a_flight_written(script: Script) -> None:
    """The next one is too soon for a file of its own."""
    body = FAILING + "    go(fails)\n    sleep(0.001)\n"
    result = script(program_of(body, mode="flight", flight_on=["exception"]))
    assert result.returncode == 0
    events = read(script.cwd / "golibx-trace.json")
    assert args_of(events, "trace ends")["why"] == "ValueError: no such user"
    assert named(events, "panic")
    assert [path.name for path in script.cwd.glob("*.json")] == ["golibx-trace.json"]
    assert "1 more exceptions or long waits have no file of their own" in result.stderr


def test_exceptions_have_so_many_flights_written(script: Script) -> None:
    body = """
def fails():
    raise ValueError("no such user")
def main():
    for name in ("golibx-trace.json", "golibx-trace.2.json"):
        go(fails)
        wait_until(lambda: os.path.exists(name))
        sleep(0.02)
    group = golibx.WaitGroup()
    group.go(fails)
    group.go(fails)
    group.wait()
"""
    settings = {"flight": "10ms", "flight_on": ["exception"], "max_files": 2}
    result = script(program_of(body, mode="flight", **settings))
    assert result.returncode == 0, result.stderr
    names = sorted(path.name for path in script.cwd.glob("*.json"))
    assert names == ["golibx-trace.2.json", "golibx-trace.json"]
    assert "2 more exceptions or long waits have no file of their own" in result.stderr


def test_an_exception_that_ends_the_program_has_a_flight_written(script: Script) -> None:
    body = "def main():\n    Chan().recv()\n"
    result = script(program_of(body, mode="flight", flight_on=["exception"]))
    assert result.returncode == 1
    events = read(script.cwd / "golibx-trace.json")
    assert args_of(events, "trace ends")["why"] == "Deadlock ended the program"
    assert args_of(events, "deadlock") == {"goroutines": 1}


@pytest.mark.parametrize("how", ["return", "sys.exit(0)", "raise KeyboardInterrupt"])
def test_what_is_no_exception_has_none_written(script: Script, how: str) -> None:
    program = program_of(f"def main():\n    {how}\n", mode="flight", flight_on=["exception"])
    script(program)
    assert list(script.cwd.glob("*.json")) == []


def test_a_long_wait_has_a_flight_written(script: Script) -> None:
    body = """
def hog():
    while not os.path.exists("golibx-trace.json"):
        pass
def main():
    hogs = [go(hog) for _ in range(3)]
    while not all(h.done() for h in hogs):
        sleep(0.0005)
"""
    result = script(program_of(body, mode="flight", flight_latency="10us"))
    assert result.returncode == 0, result.stderr
    why = args_of(read(script.cwd / "golibx-trace.json"), "trace ends")["why"]
    assert why.startswith("a goroutine waited ")
    assert why.endswith(" ms for its turn")


def test_a_flight_that_cannot_be_written(script: Script) -> None:
    body = """
def main():
    os.mkdir("golibx-trace.json")
    try:
        trace.flight()
    except OSError as exc:
        print(exc.filename)
    raise ValueError
"""
    result = script(program_of(body, mode="flight", flight_on=["exception"]))
    path = script.cwd / "golibx-trace.json"
    assert (result.returncode, result.stdout) == (1, f"{path}\n")
    assert f"golibx: trace: {path} can't be written: Is a directory" in result.stderr


def test_files_of_all_have_no_flight(tmp_path: Path) -> None:
    def main() -> None:
        with pytest.raises(RuntimeError, match='mode is "file": all that happens is written to'):
            trace.flight()

    run_traced(main, tmp_path / "trace.json")


WAITING = """
def main():
    trace.mark("before")
    print("ready")
    while True:
        sleep(0.001)
"""


@LINUX
def test_a_flight_by_process(script: Script) -> None:
    with script.start(program_of(WAITING, mode="flight"), limit=55) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        result = command("trace", "--flight", process.pid)
        path = script.cwd / "golibx-trace.json"
        assert (result.returncode, result.stdout, result.stderr) == (0, f"{path}\n", "")
        events = read(path)
        assert len(named(events, "before")) == 1
        why = args_of(events, "trace ends")["why"]
        assert why.startswith("golibx trace --flight, of process ")
        assert control.trace(process.pid) == str(script.cwd / "golibx-trace.2.json")
        assert command("trace", path).returncode == 0


@LINUX
@pytest.mark.parametrize(
    ("program", "said"),
    [
        (program_of(WAITING), 'refuses: [plugins.trace] mode is "file": all that happens is writ'),
        (
            program_of(WAITING).replace("'enabled': ['trace']", "'enabled': []"),
            "there is no trace in this process: start it with --set plugins.enabled=trace",
        ),
        (
            program_of(WAITING)
            .replace("'enabled': ['trace'], 'trace': {}", "")
            .replace("from golibx.plugins import trace\n", "")
            .replace('    trace.mark("before")\n', ""),
            "it runs without the plugin trace: start it with --set plugins.enabled=trace",
        ),
    ],
)
def test_a_process_without_flight(script: Script, program: str, said: str) -> None:
    with script.start(program, limit=55) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        result = command("trace", "--flight", process.pid)
        assert (result.returncode, result.stdout) == (1, "")
        assert said in result.stderr
        with pytest.raises(DumpError, match="plugins"):
            control.trace(process.pid)


# ---- golibx trace FILE ----

HOGGING = """
def glutton():
    while golibx.stats()["preemptions"] + golibx.stats()["handoffs"] < 6:
        pass
def meek():
    for _ in iter(hog.done, True):
        sleep(0.001)
def main():
    global hog
    hog = go(glutton)
    for _ in range(2):
        go(meek)
    hog.join()
"""


def test_a_hog_shows_up(script: Script) -> None:
    script.passes(program_of(HOGGING))
    path = script.cwd / "golibx-trace.json"
    result = command("trace", path, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    first, *_ = found["hogs"]
    assert first["goroutine"].startswith("glutton ")
    assert 0 < first["count"] <= found["preemptions"]
    assert found["whole"] is True
    assert found["goroutines"]["python"] == 4
    assert sum(found["first_turn_us"].values()) == 3
    text = command("trace", path).stdout
    row = text.partition("\nRan longest without giving way\n")[2].splitlines()[1]
    assert row.split()[0] == "glutton"
    assert row.split()[-1] == str(first["count"])
    for headline in ("Waits by reason", "Longest waits", "Waits for the first turn"):
        assert f"\n{headline}\n" in text


HEAD = (
    '[\n{"ph":"i","s":"g","pid":3,"tid":0,"ts":0.000,"name":"trace begins","args":{"process":1}},\n'
)


def made(path: Path, count: int) -> None:
    """A file of about so many events: 100 goroutines wait and run in turns."""
    with path.open("w", encoding="ascii") as file:
        file.write(HEAD)
        for i in range(count // 2):
            where = f'"pid":1,"tid":{i % 100 + 2},"ts":{i}.500'
            if i >= 100:
                file.write(f'{{"ph":"E",{where}}},\n')
            what = (
                '"name":"ready or running","cat":"runnable","args":{"after":"wake","by":3}'
                if i // 100 % 2
                else '"name":"chan receive","cat":"wait"'
            )
            file.write(f'{{"ph":"B",{where},{what}}},\n')


def test_what_a_summary_counts(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    made(path, 1000)
    found = tracefile.summary(str(path)).shown()
    assert found["events"] == 1 + 500 + 400
    assert found["duration_us"] == 499.5
    assert found["goroutines"] == {"python": 100, "native": 0}
    assert found["waits"] == {
        "chan receive": {"count": 300, "total_us": 24_950.0, "longest_us": 100.0}
    }
    assert len(found["longest_waits"]) == 10  # of those that last still, too


MEASURE = """
import resource, sys
from golibx import tracefile
tracefile.text(tracefile.summary(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = tracefile.summary(sys.argv[2])
tracefile.text(found)
print(found.events, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@LINUX
def test_a_summary_takes_little_memory(script: Script) -> None:
    """However long the file is: all of these events at once take more than 20 MiB."""
    made(script.cwd / "short.json", 5_000)
    made(script.cwd / "long.json", 50_000)
    events, grown = map(int, script.passes(MEASURE, "short.json", "long.json", limit=50).split())
    assert events == 49_901
    assert grown < 8


OPEN_A_MILLION = """
import resource, sys
from golibx import commands, tracefile
from golibx.cli import main
with open("/proc/self/statm") as file:
    most = int(file.read().split()[0]) * resource.getpagesize() + 80 * 1000 * 1000
assert most < 500 * 1000 * 1000, most
resource.setrlimit(resource.RLIMIT_AS, (most, most))
main(["trace", "long.json", "--svg", "long.svg"])
"""


@LINUX
def test_a_million_events_open_within_80_mb(script: Script) -> None:
    """In the summary and the picture: lines of the file, all of which would take more."""
    made(script.cwd / "long.json", 1_000_000)
    text = script.passes(OPEN_A_MILLION, limit=55)
    counted = dict(line.split(maxsplit=1) for line in text.splitlines()[:3])
    assert counted["events"] == str(1 + 500_000 + 499_900)
    (waits,) = (line.split() for line in text.splitlines() if "chan receive  100.0us" in line)
    assert waits[-1] == "250000"
    rows = ET.parse(script.cwd / "long.svg").getroot().findall(".//*[@text-anchor='end']")
    assert len(rows) == 30


def written_otherwise(path: Path, new_path: Path) -> None:
    """The same events, in lines that only a reader of JSON makes sense of."""
    events = json.loads(path.read_text(encoding="ascii"))
    lines = ",\n".join(json.dumps(event, sort_keys=True) for event in events)
    new_path.write_text(f"[\n{lines}\n]\n", encoding="ascii")


def test_what_is_read_does_not_depend_on_how_lines_are_written(script: Script) -> None:
    """Most lines are not read as JSON."""
    script.passes(program_of(TOTALS, "counting:plugin"))
    path, other = script.cwd / "golibx-trace.json", script.cwd / "other.json"
    written_otherwise(path, other)
    found, same = tracefile.summary(str(path)), tracefile.summary(str(other))
    assert found.shown() == same.shown()
    for most in range(1, len(found.tracks)):
        assert found.busiest(most) == same.busiest(most)
    assert tracefile.picture(str(path), found) == tracefile.picture(str(other), same)


def test_the_busiest_are_drawn(tmp_path: Path) -> None:
    def begins(track: int, ts: int, what: str) -> str:
        where = f'"pid":1,"tid":{track},"ts":{ts}.000'
        end = f'{{"ph":"E",{where}}},\n' if ts else ""
        return f'{end}{{"ph":"B",{where},{what}}},\n'

    run = '"name":"running","cat":"run","args":{"after":"start","by":1}'
    wait = '"name":"sleep","cat":"wait"'
    woken = '"name":"ready or running","cat":"runnable","args":{"after":"wake","by":0}'
    lines = [begins(track, 0, run) for track in (2, 3, 4)]
    lines += [begins(2, 100, wait), begins(3, 10, wait), begins(3, 20, woken), begins(3, 50, wait)]
    lines += [begins(4, 15, wait), begins(4, 80, woken), begins(4, 82, wait)]
    path = tmp_path / "busy.json"
    path.write_text(HEAD + "".join(lines))
    found = tracefile.summary(str(path))
    assert [found.busiest(most) for most in (1, 2, 3)] == [
        [(1, 2)],
        [(1, 2), (1, 3)],
        [(1, 2), (1, 3), (1, 4)],
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1: no file of the plugin trace (`golibx run --set plugins.enabled=trace` writes"),
        ('{"traceEvents": []}\n', ":1: no file of the plugin trace"),
        ("[\n]\n", "it does not say when it begins"),
        (HEAD + "{}\n", ":3: not an event of the plugin trace: '{}'"),
        (HEAD + "x,\n", ":3: not an event of the plugin trace: 'x,'"),
        (HEAD + '{"ph":"B","pid":1,"tid":2},\n', ":3: not an event"),
        (HEAD + "5,\n", ":3: not an event"),
        (HEAD + '{"ph":"C","pid":3,"tid":0,"ts":1,"name":"x","args":{}},\n', ":3: not an event"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(TraceFileError) as caught:
        tracefile.summary(str(path))
    assert f"{path}" in str(caught.value)
    assert said in str(caught.value)


def test_a_file_that_is_cut_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text(
        HEAD + '{"ph":"B","pid":1,"tid":2,"ts":1.000,"name":"sleep","cat":"wait"},\n{"p'
    )
    found = tracefile.summary(str(path))
    assert (found.events, found.is_whole) == (2, False)


def test_a_picture(script: Script) -> None:
    script.passes(program_of(HOGGING))
    picture = script.cwd / "trace.svg"
    result = command("trace", script.cwd / "golibx-trace.json", "--svg", picture)
    assert result.returncode == 0, result.stderr
    root = ET.parse(picture).getroot()
    texts = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.startswith("glutton ") for text in texts)
    assert "ready or running" in texts
    bars = list(root.iter("{http://www.w3.org/2000/svg}rect"))[6:]
    assert len(bars) >= 4
    for bar in bars:
        assert (
            220
            <= int(bar.get("x", ""))
            <= int(bar.get("x", "")) + int(bar.get("width", ""))
            <= 1220
        )


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "Name either a FILE, or a process by --flight PID."),
        (["x.json", "--flight", "1"], 2, "Name either a FILE, or a process"),
        (["--flight", "1", "--json"], 2, "--json, --svg and --convert are for a FILE"),
        (["no/such.json"], 1, "no/such.json: can't be read: No such file or directory"),
        (["--flight", "2147483647"], 1, "there is no process 2147483647"),
    ],
)
def test_wrong_arguments(arguments: list[str], status: int, said: str) -> None:
    result = command("trace", *arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert said in result.stderr


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    made(tmp_path / "made.json", 1000)
    result = command("trace", tmp_path / "made.json", "--svg", tmp_path / "no" / "x.svg")
    assert (result.returncode, result.stdout) == (1, "")
    assert f"{tmp_path / 'no' / 'x.svg'}: can't be written: No such file" in result.stderr
