"""Preemption of Python code. What it did is told by the order of events and by counters."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import Chan, Event, WaitGroup, _core, current, go, gosched, lock_os_thread, sleep, stats
from golibx.testing import wait_until

pytestmark = pytest.mark.goroutine(preempt={"slice": "1ms"})

OFF: dict[str, object] = {"preempt": {"async": False}}
needs_settrace = pytest.mark.skipif(
    sys.gettrace() is not None, reason="another tool traces these tests"
)


def preemptions() -> int:
    """How often a goroutine had to give way, at a bytecode or by losing its processor."""
    counters = stats()
    return counters["preemptions"] + counters["handoffs"] + counters["retakes"]


def until_preempted(work: Callable[[], object], times: int = 20) -> None:
    """Calls `work` until goroutines were preempted that often; something else must be runnable."""
    goal = stats()["preemptions"] + times
    while stats()["preemptions"] < goal:
        work()


def compete(work: Callable[[], None], times: int = 30) -> None:
    """Does `work` in two goroutines at once, and beside a hog, until they were preempted enough."""
    stop: list[bool] = []

    def hog() -> None:
        while not stop:
            pass

    def worker() -> None:
        until_preempted(work, times)

    go(hog)
    try:
        for g in [go(worker), go(worker)]:
            g.result()
    finally:
        stop.append(True)


# ---- which code is preempted ----


def test_a_loop_gives_way() -> None:
    flag: list[bool] = []
    go(flag.append, True)
    n = 0
    while not flag:  # would be endless
        n += 1
    assert preemptions() > 0


def test_two_loops_take_turns() -> None:
    turns = ["b"]

    def hog(name: str) -> None:
        while turns.count(name) < 5:
            if turns[-1] != name:
                turns.append(name)

    for g in [go(hog, "a"), go(hog, "b")]:
        g.join()
    assert turns == ["b", "a"] * 5


def test_one_that_gives_way_to_a_goroutine_with_its_own_thread_is_preempted() -> None:
    channel: Chan[int] = Chan(1)
    got: list[int] = []

    def locked() -> None:
        lock_os_thread()
        for value in channel:
            got.append(value)  # one at a time

    other = go(locked)
    goal = stats()["preemptions"] + 5
    sent = 0
    while stats()["preemptions"] < goal:
        channel.send(sent)
        sent += 1
        while len(got) < sent:
            pass
    channel.close()
    other.join()
    assert got == list(range(sent))


def comprehension() -> None:
    sum(x for x in range(1000))


def calls() -> None:
    def f(n: int) -> int:
        return n if n == 0 else f(n - 1)

    f(100)


def exceptions() -> None:
    for _ in range(100):
        try:
            raise ValueError
        except ValueError:
            pass


def generators() -> None:
    def numbers() -> Iterator[int]:
        yield from range(100)

    list(numbers())


def classes() -> None:
    class Local:
        x = [i for i in range(100)]

    assert len(Local.x) == 100


def with_blocks() -> None:
    lock = threading.Lock()
    for _ in range(100):
        with lock:
            pass


def callbacks() -> None:
    sorted(range(200), key=lambda x: -x)
    re.sub("a", lambda m: "b", "a" * 50)


def compiled() -> None:
    exec(compile("for i in range(200): j = i * i", "<text>", "exec"))


@pytest.mark.parametrize(
    "work",
    [comprehension, calls, exceptions, generators, classes, with_blocks, callbacks, compiled],
)
def test_hogs_of_all_kinds(work: Callable[[], None]) -> None:
    stop: list[bool] = []
    seen: list[int] = []

    def other() -> None:
        for i in range(10):
            seen.append(i)
            gosched()
        stop.append(True)

    go(other)
    while not stop:
        work()
    assert seen == list(range(10))


def test_many_hogs_and_results() -> None:
    def work(n: int) -> int:
        total = 0
        for i in range(n):
            total += i * i % 7
        return total

    n = 300_000  # far longer than 3.11's switch interval, which is what it takes there
    expected = work(n)
    before = preemptions()
    while preemptions() < before + 10:
        goroutines = [go(work, n) for _ in range(8)]
        assert [g.result() for g in goroutines] == [expected] * 8


def test_a_preempted_goroutine_keeps_its_exception_state() -> None:
    def work() -> None:
        for i in range(50):
            try:
                raise ValueError(i)
            except ValueError as exc:
                for _ in range(50):
                    pass
                assert sys.exc_info()[1] is exc
        assert sys.exc_info() == (None, None, None)

    compete(work)


def test_a_hog_is_marked_in_dumps() -> None:
    stop: list[bool] = []

    def hog() -> None:
        while not stop:
            pass

    g = go(hog)
    # Comes back because the hog was preempted.
    wait_until(lambda: g.state == "runnable (preempted)")
    assert g.frame is not None
    assert g.frame.f_code.co_name == "hog"
    stop.append(True)
    g.join()


@pytest.mark.goroutine(preempt={"slice": "10ms"})
@pytest.mark.parametrize(("others", "least", "most"), [(1, 0.3, 0.75), (20, 0.1, 0.4)])
def test_what_a_hog_gets_beside_those_that_are_busy(others: int, least: float, most: float) -> None:
    # Beside many a turn in four, beside few one in two: as a share of all that is done.
    counts = {"hog": 0, "others": 0}
    stop: list[bool] = []

    def hog() -> None:
        while not stop:
            counts["hog"] += sum(range(2000)) > 0

    def other() -> None:
        while not stop:
            counts["others"] += sum(range(2000)) > 0
            gosched()

    goroutines = [go(hog), *(go(other) for _ in range(others))]
    until_preempted(gosched, 20)
    stop.append(True)
    for g in goroutines:
        g.join()
    assert least < counts["hog"] / sum(counts.values()) < most, counts


def test_cancel_reaches_a_preempted_goroutine_at_its_next_park() -> None:
    stop: list[bool] = []
    log: list[str] = []

    def hog() -> None:
        while not stop:
            pass
        log.append("still there")
        gosched()
        log.append("not here")

    g = go(hog)
    gosched()
    g.cancel()
    gosched()
    assert log == []
    stop.append(True)
    g.join()
    assert log == ["still there"]
    assert g.state == "cancelled"


def test_timers_and_channels_under_hogs() -> None:
    stop: list[bool] = []

    def hog() -> None:
        while not stop:
            pass

    hogs = [go(hog) for _ in range(3)]
    ch: Chan[int] = Chan()

    def ticker() -> None:
        for i in range(20):
            sleep(0.0001)
            ch.send(i)
        ch.close()

    go(ticker)
    assert list(ch) == list(range(20))
    stop.append(True)
    for g in hogs:
        g.join()


def test_a_deep_stack_is_preempted_and_resumed() -> None:
    def deep(n: int) -> int:
        if n == 0:
            comprehension()
            return 0
        return 1 + deep(n - 1)

    def work() -> None:
        assert deep(300) == 300

    compete(work)


def test_imports_under_preemption(script: Script) -> None:
    # Locks of the import system know threads, not goroutines.
    out = script.passes(
        """
import sys, golibx
MODULES = ["json", "email.message", "http.client", "xml.dom.minidom", "unittest", "sqlite3",
           "ctypes", "decimal", "fractions", "csv", "configparser", "argparse", "logging.config",
           "multiprocessing.pool", "concurrent.futures", "asyncio", "wsgiref.handlers", "zipfile"]
def load(names):
    for name in names:
        __import__(name)
def main():
    group = golibx.WaitGroup()
    for i in range(6):
        group.go(load, MODULES[i:] + MODULES[:i])
    group.wait()
    print("preempted:", golibx.stats()["preemptions"] > 0)
golibx.run(main, config={"preempt": {"slice": "50us"}})
print(all(name in sys.modules for name in MODULES))
"""
    )
    assert out.splitlines()[-1] == "True"


# ---- switched off ----


def count_to(n: int) -> None:
    i = 0
    while i < n:
        i += 1


def hog_and_other() -> tuple[list[str], dict[str, int]]:
    log: list[str] = []
    go(log.append, "other")
    count_to(2_000_000)
    log.append("hog is done")
    gosched()
    return log, stats()


@pytest.mark.goroutine(False)
def test_off_by_configuration() -> None:
    log, counters = golibx.run(hog_and_other, config=OFF)
    assert log == ["hog is done", "other"]
    assert counters["preemptions"] == 0
    assert counters["preempt_requests"] == 0
    assert counters["handoffs"] == 0


@pytest.mark.goroutine(False)
def test_on_for_comparison() -> None:
    def main() -> None:
        flag: list[bool] = []
        go(flag.append, True)
        while not flag:
            count_to(1000)
        assert (flag, preemptions() > 0) == ([True], True)

    golibx.run(main, config={"preempt": {"slice": "1ms"}})


@pytest.mark.goroutine(False)
def test_off_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLIB_ASYNCPREEMPT_OFF", "1")
    log, counters = golibx.run(hog_and_other)
    assert log == ["hog is done", "other"]
    assert counters["preemptions"] == 0


# ---- tools that look at every line ----


def sample(n: int) -> int:
    total = 0
    for i in range(n):
        if i % 3:
            total += i
        else:
            total -= 1
    try:
        raise ValueError(total)
    except ValueError:
        total += inner(2)
    return total


def inner(n: int) -> int:
    return sum(x for x in range(n))


SAMPLED = (sample.__code__, inner.__code__)


def lines_under_settrace(n: int) -> list[tuple[str, str, int]]:
    """The trace function's events for a call of sample."""
    events: list[tuple[str, str, int]] = []

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code in SAMPLED:
            events.append((frame.f_code.co_name, event, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        sample(n)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(None)
    return events


@needs_settrace
def test_settrace_gets_every_line() -> None:
    expected = lines_under_settrace(100)
    assert len(expected) > 300

    def work() -> None:
        assert lines_under_settrace(100) == expected

    compete(work)


@needs_settrace
def test_settrace_set_before_a_long_run() -> None:
    # One trace function that stays, while its goroutine is preempted again and again.
    def main() -> int:
        count = 0

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal count
            if frame.f_code is count_to.__code__ and event == "line":
                count += 1
            return trace

        sys.settrace(trace)
        try:
            count_to(50_000)
        finally:
            sys.settrace(None)
        return count

    before = preemptions()
    while preemptions() < before + 20:
        goroutines = [go(main) for _ in range(2)]
        # i = 0, the condition once more than the body, the body
        assert [g.result() for g in goroutines] == [1 + 50_001 + 50_000] * 2


@needs_settrace
def test_opcodes_under_settrace() -> None:
    def opcodes() -> int:
        count = 0

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal count
            if frame.f_code is inner.__code__:
                frame.f_trace_opcodes = True
                count += event == "opcode"
            return trace

        sys.settrace(trace)
        try:
            inner(50)
        finally:
            sys.settrace(None)
        return count

    opcodes()  # the first call specializes the code, which 3.12 reports as fewer instructions
    expected = opcodes()
    assert expected > 5

    def work() -> None:
        assert opcodes() == expected

    compete(work)


@needs_settrace
def test_a_trace_function_that_raises() -> None:
    def raising() -> None:
        def trace(frame: FrameType, event: str, arg: object) -> Any:
            if frame.f_code is inner.__code__ and event == "line":
                raise LookupError("by the trace function")
            return trace

        sys.settrace(trace)
        try:
            with pytest.raises(LookupError, match="by the trace function"):
                sample(30)
            assert sys.gettrace() is None
        finally:
            sys.settrace(None)

    compete(raising)


@needs_settrace
def test_a_trace_function_that_is_changed_meanwhile() -> None:
    def work() -> None:
        seen: list[str] = []

        def first(frame: FrameType, event: str, arg: object) -> Any:
            seen.append("first")
            return first

        def second(frame: FrameType, event: str, arg: object) -> Any:
            seen.append("second")
            return second

        for trace in (first, second, first):
            sys.settrace(trace)
            inner(5)
            assert sys.gettrace() is trace
            assert seen[-1] == trace.__name__
        sys.settrace(None)
        assert sys.gettrace() is None
        before = len(seen)
        inner(5)
        assert len(seen) == before

    compete(work)


def test_setprofile_gets_every_call() -> None:
    def profile() -> list[tuple[str, str]]:
        events: list[tuple[str, str]] = []

        def on_event(frame: FrameType, event: str, arg: object) -> None:
            if frame.f_code in SAMPLED:
                events.append((frame.f_code.co_name, event))

        sys.setprofile(on_event)
        try:
            sample(300)
        finally:
            sys.setprofile(None)
        return events

    expected = profile()
    assert expected.count(("sample", "return")) == expected.count(("sample", "call")) == 1

    def work() -> None:
        assert profile() == expected

    compete(work)


def test_threading_settrace_and_setprofile_reach_goroutines() -> None:
    calls_seen: set[str] = set()
    profiled: set[str] = set()

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        calls_seen.add(frame.f_code.co_name)
        return None

    def profile(frame: FrameType, event: str, arg: object) -> None:
        profiled.add(frame.f_code.co_name)

    threading.settrace(trace)
    threading.setprofile(profile)
    try:
        go(inner, 3).join()
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
        threading.setprofile(None)
    assert "inner" in calls_seen
    assert "inner" in profiled
    assert go(sys.gettrace).result() is None


@pytest.mark.parametrize("name", ["_trace_hook", "_profile_hook"])
def test_the_hook_for_new_threads_may_be_set_and_taken_back_at_any_time(name: str) -> None:
    asked = sys.gettrace if name == "_trace_hook" else sys.getprofile

    def hook(frame: FrameType, event: str, arg: object) -> None:
        return None

    for _ in range(5):
        assert go(asked).result() is None
        assert go(asked).result() is None
        setattr(threading, name, hook)
        try:
            assert go(asked).result() is hook
            assert go(asked).result() is hook
        finally:
            setattr(threading, name, None)


@pytest.mark.parametrize("kind", ["trace", "profile"])
def test_threading_knows_a_traced_goroutine_before_its_first_event(kind: str) -> None:
    """As a thread that it starts: debugpy asks, and lets those that are none run through."""
    seen: list[threading.Thread | None] = []

    def hook(frame: FrameType, event: str, arg: object) -> None:
        if frame.f_code is inner.__code__:
            seen.append(threading._active.get(threading.get_ident()))  # type: ignore[attr-defined]

    getattr(threading, f"set{kind}")(hook)
    try:
        thread = go(lambda: (inner(3), threading.current_thread())[1]).result()
    finally:
        getattr(threading, f"set{kind}")(None)
    assert seen[:1] == [thread]
    assert thread not in threading._active.values()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["trace", "profile"])
def test_the_main_goroutine_is_traced_as_its_thread(script: Script, kind: str) -> None:
    """threading's hooks are for new threads: the one that called run() keeps what it has."""
    program = f"""
import sys, threading
from golibx import run

def own(*_): pass
def others(*_): pass
threading.set{kind}(others)
print(run(sys.get{kind}) is None)
sys.set{kind}(own)
inside, after = run(sys.get{kind}), sys.get{kind}()
sys.set{kind}(None)
print(inside is own, after is own)
"""
    assert script(program).stdout == "True\nTrue True\n"


# ---- sys.monitoring, 3.12+ ----

needs_monitoring = pytest.mark.skipif(sys.version_info < (3, 12), reason="no sys.monitoring")


@pytest.fixture
def tool() -> Iterator[int]:
    monitoring = sys.monitoring  # type: ignore[attr-defined]
    number = next(n for n in range(6) if monitoring.get_tool(n) is None)
    monitoring.use_tool_id(number, "a test's own")
    yield number
    monitoring.free_tool_id(number)


@needs_monitoring
@pytest.mark.parametrize("event", ["LINE", "INSTRUCTION", "BRANCH", "PY_START", "CALL"])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_monitoring_gets_every_event(tool: int, event: str, scope: str) -> None:
    monitoring = sys.monitoring  # type: ignore[attr-defined]
    number = getattr(monitoring.events, event)
    seen: dict[int, list[tuple[CodeType, object]]] = {}

    def callback(code: CodeType, *args: object) -> None:
        if code in SAMPLED:
            me = current()
            seen.setdefault(me.id if me else 0, []).append((code, args[0]))

    monitoring.register_callback(tool, number, callback)
    if scope == "local":
        for code in SAMPLED:
            monitoring.set_local_events(tool, code, number)
    else:
        monitoring.set_events(tool, number)
    # From 3.14 on BRANCH stands for two events, and those are what one finds.
    was_set = [monitoring.get_local_events(tool, code) for code in SAMPLED]

    def run_once() -> list[tuple[CodeType, object]]:
        me = current()
        assert me is not None
        seen[me.id] = []
        sample(60)
        return seen.pop(me.id)

    try:
        expected = run_once()
        assert expected

        def work() -> None:
            assert run_once() == expected

        compete(work)
        assert [monitoring.get_local_events(tool, code) for code in SAMPLED] == was_set
    finally:
        monitoring.set_events(tool, 0)
        for code in SAMPLED:
            monitoring.set_local_events(tool, code, 0)
        monitoring.register_callback(tool, number, None)


@needs_monitoring
def test_disabled_monitoring_stays_disabled(tool: int) -> None:
    monitoring = sys.monitoring  # type: ignore[attr-defined]
    seen: list[int] = []

    def callback(code: CodeType, line: int) -> object:
        if code is inner.__code__:
            seen.append(line)
        return monitoring.DISABLE

    monitoring.register_callback(tool, monitoring.events.LINE, callback)
    monitoring.set_local_events(tool, inner.__code__, monitoring.events.LINE)
    try:
        compete(lambda: assert_equal(inner(100), 4950))
    finally:
        monitoring.set_local_events(tool, inner.__code__, 0)
        monitoring.register_callback(tool, monitoring.events.LINE, None)
    assert len(seen) == len(set(seen)) > 0


def assert_equal(a: object, b: object) -> None:
    assert a == b


@needs_monitoring
@pytest.mark.goroutine(False)
def test_the_tool_id_is_free_after_a_run() -> None:
    monitoring = sys.monitoring  # type: ignore[attr-defined]
    before = [monitoring.get_tool(n) for n in range(6)]
    during = golibx.run(lambda: [monitoring.get_tool(n) for n in range(6)])
    assert "golibx" in during
    assert [monitoring.get_tool(n) for n in range(6)] == before


@needs_monitoring
@pytest.mark.goroutine(False)
def test_all_tool_ids_taken() -> None:
    monitoring = sys.monitoring  # type: ignore[attr-defined]
    taken = [n for n in range(6) if monitoring.get_tool(n) is None]
    for n in taken:
        monitoring.use_tool_id(n, "a test's")
    try:
        assert golibx.run(lambda: 5) == 5  # without preemption, but it runs
        assert golibx._core.info()["preempt"] == "none"
        assert "taken" in golibx._core.info()["preempt_reason"]
    finally:
        for n in taken:
            monitoring.free_tool_id(n)


# ---- debugger and coverage, as their users start them ----

HOGGED = """\
import golibx
from golibx import go, run

stop = []

def hog():
    while not stop:
        pass

def counted(n):
    total = 0
    for i in range(n):
        if i % 2:
            total += 1
        elif i < 0:
            never()
        else:
            total += 2
    return total

def work(g):
    goal = golibx.stats()["preemptions"] + 20
    while golibx.stats()["preemptions"] < goal:
        counted(1000)
    {extra}
    return counted(10)

def main():
    go(hog)
    goroutines = [go(work, i) for i in range(2)]
    print([g.result() for g in goroutines])
    stop.append(True)

run(main, config={{"preempt": {{"slice": "1ms"}}}})
"""


@pytest.mark.goroutine(False)
@pytest.mark.parametrize("core", ["ctrace", "pytrace", "sysmon"])
def test_coverage(script: Script, core: str) -> None:
    coverage = pytest.importorskip("coverage")
    if core == "sysmon" and sys.version_info < (3, 12):
        pytest.skip("no sys.monitoring")
    program = script.file(HOGGED.format(extra="pass"))
    out = script.passes(
        program, python=("-m", "coverage", "run", "--data-file=data"), env={"COVERAGE_CORE": core}
    )
    assert out == "[15, 15]\n"
    data = coverage.CoverageData(str(script.cwd / "data"))
    data.read()
    covered = data.lines(str(program))
    assert covered is not None
    lines = program.read_text().splitlines()
    missed = {line.strip() for i, line in enumerate(lines, 1) if line and i not in covered}
    assert missed <= {"never()", "else:"}


@pytest.mark.goroutine(False)
def test_pdb(script: Script) -> None:
    result = script(
        HOGGED.format(extra="if g == 0: breakpoint()"),
        stdin="p g\nb 14\nc\np (n, i, total)\nw\ncl 1\nc\n",
    )
    assert result.returncode == 0, result.stderr
    assert "(10, 1, 2)" in result.stdout
    assert "Breakpoint 1 at" in result.stdout
    assert "Deleted breakpoint 1" in result.stdout
    assert "work()" in result.stdout
    assert result.stdout.rstrip().endswith("[15, 15]")


@pytest.mark.goroutine(False)
def test_cprofile(script: Script) -> None:
    result = script(HOGGED.format(extra="pass"), python=("-m", "cProfile"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("[15, 15]\n")
    assert "(main)" in result.stdout


def test_group_of_hogs_finishes_in_any_order() -> None:
    group = WaitGroup()
    goroutines = [group.go(count_to, n * 5000) for n in range(20)]
    assert group.wait()
    assert all(g.done() and g.exception is None for g in goroutines)


def test_preemption_tells_audit_hooks_nothing(script: Script) -> None:
    """A hook is Python code, in the middle of the program's own sys.settrace()."""
    out = script.passes(
        """
import sys
from golibx import go, run, stats

told = 0

def hook(event, args):
    global told
    if event == "sys.settrace":
        told += 1
        for _ in range(200):
            pass

sys.addaudithook(hook)

def trace(frame, event, arg):
    return None

def compute():
    while not over:
        pass

def main():
    global over, told
    over = False
    others = [go(compute) for _ in range(2)]
    for wanted in (50, 250):  # first golibx finds out where trace functions are, once a process
        told = turns = 0
        while stats()["preemptions"] < wanted:
            for _ in range(20):
                sys.settrace(trace)
                assert sys.gettrace() is trace
                sys.settrace(None)
            turns += 1
    over = True
    for g in others:
        g.join()
    print(told - turns * 40)

run(main, config={"preempt": {"slice": "200us"}, "runtime": {"switch_interval": "200us"}})
"""
    )
    assert out == "0\n"


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="the interpreter itself tells of it, as at a thread's end"
)
def test_a_goroutines_profile_function_ends_with_it_whatever_audit_hooks_say(
    script: Script,
) -> None:
    out = script.passes(
        """
import sys
from golibx import go, run

refuses = False

def hook(event, args):
    if refuses and event in ("sys.setprofile", "sys.settrace"):
        raise RuntimeError(event)

sys.addaudithook(hook)

def profiled():
    global refuses
    sys.setprofile(lambda *args: seen.append(args))
    refuses = True

def main():
    global refuses
    for _ in range(10):
        refuses = False
        go(profiled).join()
        count = len(seen)
        assert go(sys.getprofile).result() is None
        go(sum, [1]).join()
        assert len(seen) == count

seen, unraisable = [], []
sys.unraisablehook = lambda args: unraisable.append(str(args.exc_value))
run(main)
print(unraisable)
"""
    )
    assert out == "[]\n"


def test_what_computes_raises_at_once() -> None:
    class Ended(Exception):
        pass

    started = Event()

    def compute() -> None:
        started.set()
        while True:
            pass

    computing, waiting = go(compute), go(Chan[int]().recv)
    started.wait()
    for each in (computing, waiting):
        assert _core.throw_at_once(each, Ended())
        with pytest.raises(Ended):
            each.result()
        assert not _core.throw_at_once(each, Ended())
    me = current()
    assert me is not None
    with pytest.raises(RuntimeError, match="raises by itself"):
        _core.throw_at_once(me, Ended())
    with pytest.raises(TypeError, match="a goroutine and an exception"):
        _core.throw_at_once(me, Ended)  # type: ignore[arg-type]
