"""What a goroutine was to raise, and what it did raise, is not lost on the way."""

from __future__ import annotations

import pytest

from conftest import Script

# Each swallows the Cancelled that comes where the goroutine parks, without any `except`.
EATERS = {
    "finalizer": """
class Resource:
    def __del__(self): sleep(20)
def eat(): Resource()
""",
    "finalizer with a finally": """
class Resource:
    def __del__(self):
        try: sleep(20)
        finally: len("")
def eat(): Resource()
""",
    "finalizer that raises again": """
class Resource:
    def __del__(self):
        try: self.wait()
        except BaseException: raise
    def wait(self): sleep(20)
def eat(): Resource()
""",
    "weak reference's callback": """
import weakref
class Thing: pass
def eat():
    thing = Thing()
    r = weakref.ref(thing, lambda _: sleep(20))
    del thing
""",
    "generator that is dropped": """
def numbers():
    try: yield 1
    finally: sleep(20)
def eat(): next(numbers())
""",
    "the collector's callback": """
import gc
def callback(phase, info):
    gc.callbacks.remove(callback)
    sleep(20)
def eat():
    gc.callbacks.append(callback)
    gc.collect()
""",
    "foreign callback": """
import ctypes
@ctypes.CFUNCTYPE(None)
def callback(): sleep(20)
def eat(): callback()
""",
}

WORK = """
import sys
from golibx import Cancelled, Chan, go, run, sleep
sys.unraisablehook = lambda unraisable: seen.append(unraisable.exc_type)
seen = []
ended = []
{eater}
def work():
    try:
        eat()
        {then}
    except Cancelled:
        ended.append(True)
        raise
def main():
    g = go(work)
    while g.state != "sleep": sleep(0.001)
    g.cancel()
    print(g.join(20), g.state, ended, seen)
run(main)
"""


@pytest.mark.parametrize("then", ["while True: sleep(0.01)", "Chan().recv()"])
@pytest.mark.parametrize("eater", EATERS)
def test_a_cancellation_that_was_eaten_is_still_owed(script: Script, eater: str, then: str) -> None:
    result = script(WORK.format(eater=EATERS[eater], then=then))
    assert result.stdout.startswith("True cancelled [True]"), result.stdout + result.stderr
    assert result.stdout.count("Cancelled") == 1, result.stdout


def test_at_the_end_of_a_run(script: Script) -> None:
    """There a goroutine is told once to end, and what does not park is watched in its loops."""
    code = f"""
from golibx import go, run, sleep
{EATERS["finalizer"]}
def parks():
    eat()
    while True: sleep(0.01)
def computes():
    eat()
    while True: pass
def main():
    both = [go(parks), go(computes)]
    while [g.state for g in both] != ["sleep", "sleep"]: sleep(0.001)
run(main)
"""
    result = script(code)
    assert "did not end" not in result.stderr, result.stderr
    assert result.stderr.count("Exception ignored") == 2, result.stderr
    assert result.returncode == 0, result.stderr


HANDLED = {
    "except": """
def park():
    try: sleep(20)
    except Cancelled: pass
""",
    "except in the caller": """
def inner(): sleep(20)
def park():
    try: inner()
    except Cancelled: return
""",
    "finally that returns": """
def park():
    try: sleep(20)
    finally: return
""",
    "suppress": """
import contextlib
def park():
    with contextlib.suppress(Cancelled): sleep(20)
""",
    "in a finalizer": """
class Resource:
    def __del__(self):
        try: sleep(20)
        except Cancelled: pass
def park(): Resource()
""",
    "as another one": """
class Resource:
    def __del__(self):
        try: sleep(20)
        except Cancelled: raise KeyError
def park(): Resource()
""",
    "in a generator": """
def numbers():
    try: sleep(20)
    except Cancelled: pass
    yield 1
def park(): next(numbers())
""",
    "in a generator that goes on": """
def numbers():
    try: sleep(20)
    except Cancelled: yield 1
    yield 2
g = numbers()
def park(): next(g)
""",
    "in sort()": """
def park():
    try: sorted([1, 2], key=lambda x: sleep(20))
    except Cancelled: pass
""",
    "with its traceback cut": """
def wait(): sleep(20)
def park():
    try: wait()
    except Cancelled as e: e.__traceback__ = e.__traceback__.tb_next
""",
    "kept and dropped": """
kept = []
def park():
    try: sleep(20)
    except Cancelled as e: kept.append(e)
    kept.clear()
""",
}


@pytest.mark.parametrize("how", HANDLED)
def test_one_that_was_handled_is_not(script: Script, how: str) -> None:
    code = f"""
import sys
from golibx import Cancelled, gosched, go, run, sleep
sys.unraisablehook = lambda unraisable: None
{HANDLED[how]}
def work():
    park()
    for _ in range(3): gosched(); sleep(0.001)
    return "done"
def main():
    g = go(work)
    while g.state != "sleep": sleep(0.001)
    g.cancel()
    print(g.result(20))
run(main)
"""
    result = script(code)
    assert result.stdout == "done\n", result.stdout + result.stderr


def test_parks_of_a_handler_do_not_raise_it_again(script: Script) -> None:
    """While it is being handled, and another one is in the meantime."""
    code = """
from golibx import Cancelled, gosched, go, run, sleep
def work():
    try: sleep(1)
    finally:
        for _ in range(3): sleep(0.001)
        try: 1 / 0
        except ZeroDivisionError: sleep(0.001)
        print("cleaned up", flush=True)
def main():
    g = go(work)
    while g.state != "sleep": sleep(0.001)
    g.cancel()
    print(g.join(20), g.state)
run(main)
"""
    result = script(code)
    assert result.stdout == "cleaned up\nTrue cancelled\n", result.stdout + result.stderr


def test_an_exception_whose_handle_is_kept_is_reported_at_the_end(script: Script) -> None:
    code = """
from golibx import go, run, sleep
kept = []
def fail(text): raise ValueError(text)
def main():
    kept.extend(go(fail, text) for text in ("first", "second", "collected", "asked"))
    sleep(0.01)
    try: kept[2].result()
    except ValueError: pass
    kept[3].exception
    print("main returns", flush=True)
run(main)
print("after the run", flush=True)
try: kept[0].result()
except ValueError as e: print("and raised:", e)
kept.clear()
"""
    result = script(code)
    assert result.stdout == "main returns\nafter the run\nand raised: first\n", result.stderr
    assert result.stderr.count("panicked") == 2, result.stderr
    assert result.stderr.index("ValueError: first") < result.stderr.index("ValueError: second")
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("raised", "settings", "code"),
    [("1 / 0", "{}", 0), ("1 / 0", '{"runtime": {"on_panic": "exit"}}', 2)],
)
def test_a_kept_panic_and_the_exit_code(
    script: Script, raised: str, settings: str, code: int
) -> None:
    text = f"""
from golibx import go, run, sleep
kept = []
def main():
    kept.append(go(lambda: {raised}))
    sleep(0.01)
run(main, config={settings})
"""
    result = script(text)
    assert result.returncode == code, result.stderr
    assert result.stderr.count("panicked") == 1
    assert "ignored" not in result.stderr


def test_a_panic_that_the_main_goroutine_notices_ends_the_program(script: Script) -> None:
    """Its handle goes in the main goroutine, which goes on to compute: nothing is ignored."""
    code = """
from golibx import go, run
def main():
    go(lambda: 1 / 0).join()
    while True: pass
run(main, config={"runtime": {"on_panic": "exit"}})
"""
    result = script(code)
    assert result.returncode == 2, result.stderr
    assert "ignored" not in result.stderr
    assert result.stderr.count("Traceback") == 1, result.stderr


WAITS = {
    "result": "g.result()",
    "select": "select(g.on_done()); g.result()",
    "as_completed": "next(iter(as_completed([g]))).result()",
    "a thread's result": "threading.Thread(target=thread, args=(g,)).run()",
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_request_to_end_that_somebody_waits_for_is_theirs(script: Script, wait: str) -> None:
    code = f"""
import sys, threading
from golibx import as_completed, go, run, select, sleep
def thread(g): g.result()
def main():
    g = go(sys.exit, 3)
    try: {WAITS[wait]}
    except SystemExit as e: print("caught", e.code, flush=True)
    for _ in range(3): sleep(0.001)
    print("went on", flush=True)
run(main)
"""
    result = script(code)
    assert result.stdout == "caught 3\nwent on\n", result.stdout + result.stderr
    assert result.returncode == 0, result.stderr


def test_one_that_is_waited_for_and_never_asked_ends_the_program(script: Script) -> None:
    code = """
import sys
from golibx import go, run, select, sleep
kept = []
def main():
    kept.append(go(sys.exit, 3))
    select(kept[0].on_done())
    print("main returns", flush=True)
run(main)
"""
    result = script(code)
    assert result.stdout == "main returns\n"
    assert result.returncode == 3, result.stderr


def test_the_next_run_is_not_told_of_an_ended_runs_panic(script: Script) -> None:
    code = """
import sys, threading
from golibx import go, lock_os_thread, run, sleep
go_on = threading.Event()
class Errors:
    said = ""
    def write(self, text):
        sys.__stderr__.write(text)
        Errors.said += text
    def flush(self): sys.__stderr__.flush()
sys.stderr = Errors()
def stubborn():
    lock_os_thread()  # not the main thread, which run() has to return on
    go_on.wait()
    1 / 0
def first():
    go(stubborn)
    sleep(0.01)
def second():
    go_on.set()
    while "ZeroDivisionError: " not in Errors.said: sleep(0.001)
    for _ in range(100): sleep(0.0001)
    print("second goes on", flush=True)
run(first, config={"runtime": {"shutdown_timeout": "10ms"}})
run(second, config={"runtime": {"on_panic": "exit"}})
"""
    result = script(code)
    assert result.stdout == "second goes on\n", result.stderr
    assert result.returncode == 0, result.stderr
    assert "ZeroDivisionError" in result.stderr


def test_a_program_that_cancels_nothing_has_no_audit_hook(script: Script) -> None:
    """With one the interpreter makes arguments for every event, such as a call of id()."""
    code = """
import sys
from golibx import DeadlineExceeded, WaitGroup, Chan, context, go, run, sleep
hooks = []
sys.addaudithook(lambda event, args: event == "sys.addaudithook" and hooks.append(event))
def quiet():
    ctx, cancel = context.with_timeout(context.background(), 0.001)
    group = WaitGroup()
    for _ in range(3): group.go(sleep, 0.001)
    group.wait()
    ctx.done().recv_ok()
    try: Chan().recv(timeout=0.001)
    except DeadlineExceeded: cancel()
def cancels():
    g = go(sleep, 10)
    sleep(0.001)
    g.cancel()
    g.join()
for f in quiet, quiet, cancels, cancels:
    run(f)
    print(len(hooks))
"""
    assert script.passes(code) == "0\n0\n1\n1\n"
