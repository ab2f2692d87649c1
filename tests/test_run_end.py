"""The end of a run: what is left of it reaches neither the next run nor memory nor the exit."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from conftest import Script, c_library

# Its goroutine blocks beyond the end, and parks, starts others and raises when it comes back.
COMES_BACK = """
import time
from golibx import Cancelled, go, run, sleep
def query():
    try:
        time.sleep(0.05)
    finally:
        for _ in range(2):
            try: go(int).result()
            except Cancelled: pass
def main():
    go(query); sleep(0.01)
for _ in range(10):
    run(main, config={"runtime": {"shutdown_timeout": "10ms"}})
print("RIGHT", flush=True)
"""

STUBBORN = """
import random, time
from golibx import go, gosched, run, sleep
def stubborn():
    try: time.sleep(random.random() * 0.1)
    except BaseException: pass
    doings = [lambda: sleep(0.001), gosched, lambda: time.sleep(0.002), lambda: sum(range(50_000))]
    for _ in range(8):
        try: random.choice(doings)()
        except BaseException: pass
def main():
    for _ in range(4): go(stubborn)
    sleep(0.002); time.sleep(0.003)
for _ in range(30):
    run(main, config={"runtime": {"shutdown_timeout": "5ms"}})
print("RIGHT", flush=True)
"""

# Waits in a queue that the next run uses, and never goes on.
WAITER = """
import golibx
from golibx import Cancelled, Chan, Event, Mutex, WaitGroup, go, gosched, run, select
wg, ch, full, event, mutex, ended = WaitGroup(), Chan(), Chan(), Event(), Mutex(), []
waits = {
    "wg": wg.wait, "recv": ch.recv, "send": lambda: full.send(1), "event": event.wait,
    "mutex": mutex.lock, "select": lambda: select(ch.on_recv(), full.on_send(1)),
    "join": lambda: ended[0].join(),
}
def stubborn(wait):
    while True:
        try:
            wait()
            print("came back", flush=True)
            return
        except Cancelled: pass
def first():
    ended.append(go(stubborn, Chan().recv))
    wg.add(); mutex.lock()
    for wait in waits.values(): go(stubborn, wait)
    gosched()
def second():
    assert golibx.num_goroutine() == 1
    wg.done(); event.set(); mutex.unlock()
    assert not ch.try_send(7)
    assert full.try_recv()[1] is False
    waiter = go(ch.recv)
    gosched()
    assert ch.try_send(7)
    assert waiter.result() == 7
    for _ in range(3): gosched()
    assert golibx.num_goroutine() == 1
config = {"runtime": {"shutdown_timeout": "10ms"}}
run(first, config=config)
run(second, config=config)
run(golibx.num_goroutine)
print("RIGHT", flush=True)
"""


@pytest.mark.parametrize("program", [COMES_BACK, STUBBORN, WAITER])
def test_given_up_goroutines_stay_ended(script: Script, program: str) -> None:
    result = script(program)
    told = f"{result.returncode}\n{result.stdout}\n{result.stderr}"
    assert (result.returncode, result.stdout) == (0, "RIGHT\n"), told


def test_ends_at_random(script: Script) -> None:
    """What `make soak` does for longer."""
    result = script(Path(__file__).with_name("endings.py"), "60", "30", limit=100)
    told = f"{result.returncode}\n{result.stdout}\n{result.stderr}"
    assert result.returncode == 0, told
    assert re.match(r"\d+ ends, .* wrong: \{\}$", result.stdout), told


# Nothing is raised between two lines: the lock would stay locked.
LOCKS = {
    "try": """
import threading
lock = threading.Lock()
def work():
    while True:
        lock.acquire()
        try: pass
        finally: lock.release()
""",
    "context manager": """
import threading
lock = threading.Lock()
class Guard:
    def __enter__(self):
        lock.acquire()
        return self
    def __exit__(self, *exc):
        lock.release()
def work():
    while True:
        with Guard(): pass
""",
    "logging": """
import logging
class Handler(logging.Handler):
    def emit(self, record): self.format(record)
handler = Handler(); log = logging.getLogger("x"); log.addHandler(handler); log.propagate = False
lock = handler.lock
def work():
    while True: log.warning("busy")
""",
    "for": """
import itertools, threading
lock = threading.Lock()
def work():
    for _ in itertools.count():
        lock.acquire()
        try: pass
        finally: lock.release()
""",
    "while with a condition": """
import threading
lock = threading.Lock()
def work():
    while not lock.acquire(False) or lock.release() is None:
        pass
""",
}


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_no_lock_is_left_locked(script: Script, lock: str) -> None:
    program = f"""{lock}
from golibx import go, run, sleep
def main():
    for _ in range(2): go(work)
    sleep(0.004)
for i in range(15):
    run(main)
    assert lock.acquire(timeout=1), f"left locked by run {{i + 1}}"
    lock.release()
print("RIGHT", flush=True)
"""
    result = script(program)
    told = f"{result.returncode}\n{result.stdout}\n{result.stderr}"
    assert (result.returncode, result.stdout, result.stderr) == (0, "RIGHT\n", ""), told


@pytest.mark.parametrize(
    "waits", ["L.acquire", "lambda: L.__enter__()", "threading.Event().wait", "queue.Queue().get"]
)
def test_a_lock_on_the_main_thread_does_not_keep_run(script: Script, waits: str) -> None:
    """It makes pending calls before it waits on, as only the interpreter does between two lines."""
    program = f"""
import queue, threading
from golibx import go, run, sleep
L = threading.Lock()
L.acquire()
def main():
    go({waits})
    sleep(0.01)
for _ in range(3): run(main, config={{"runtime": {{"shutdown_timeout": "5ms"}}}})
print("over", L.locked())
"""
    result = script(program)
    assert (result.returncode, result.stdout) == (0, "over True\n"), result.stderr


def test_finally_around_a_loop_runs(script: Script) -> None:
    """The loop is the first statement of the `try`, and of a caller's."""
    program = """
from golibx import go, run, gosched
def inner():
    try:
        while True: pass
    finally: print("inner", flush=True)
def outer():
    try: inner()
    finally: print("outer", flush=True)
def main():
    go(outer)
    gosched()
run(main)
"""
    result = script(program)
    assert (result.returncode, result.stdout, result.stderr) == (0, "inner\nouter\n", "")


FINALIZES = """
import sys, threading
from golibx import Chan, go, gosched, run, sleep
local = threading.local()
ends = []
class Kept:
    def __call__(self, generator): pass
    def __del__(self):
        {ends}
        ends.append(1)
def work():
    {keep}
def main():
    for g in [go(work) for _ in range(10)]:
        g.join()
    {then}
run(main, config={{"runtime": {{"shutdown_timeout": "{timeout}"}}}})
print(len(ends), flush=True)
"""
LOCAL = "local.kept = Kept()"
HOOK = "sys.set_asyncgen_hooks(Kept())"
ENDS = ["gosched()", "for _ in range(50): gosched()", "sleep(0.005)"]


@pytest.mark.parametrize("ends", ENDS)
def test_finalizers_of_thread_local_data_have_run_when_it_is_joined(
    script: Script, ends: str
) -> None:
    result = script(FINALIZES.format(keep=LOCAL, ends=ends, then="print(len(ends))", timeout="5s"))
    assert (result.returncode, result.stdout, result.stderr) == (0, "10\n10\n", "")


@pytest.mark.parametrize("ends", ENDS)
def test_finalizers_of_what_else_a_goroutine_leaves_have_their_time(
    script: Script, ends: str
) -> None:
    """They run when it has ended for those that join it."""
    result = script(FINALIZES.format(keep=HOOK, ends=ends, then="", timeout="10s"))
    assert (result.returncode, result.stdout, result.stderr) == (0, "10\n", "")


def test_finalizers_of_what_a_goroutine_leaves_have_no_more_time_than_others(
    script: Script,
) -> None:
    ends = "if len(ends) == 5: Chan().recv()"
    result = script(FINALIZES.format(keep=HOOK, ends=ends, then="", timeout="50ms"))
    assert (result.returncode, result.stdout) == (0, "5\n"), result.stderr
    assert result.stderr == (
        "golibx: 5 goroutines did not end within 50ms after cancellation\n"
        "  5 whose function has ended: a finalizer of what it has left goes on\n"
    )


# A daemon thread is in run() when the interpreter ends: computing, blocking, switching and waiting.
DAEMON = """
import sys, threading, time
from golibx import Chan, go, run, sleep
def compute():
    while True: sum(range(2000))
def block():
    while True: time.sleep(0.0002)
def ping(a, b):
    while True: a.send(1); b.recv()
def pong(a, b):
    while True: a.recv(); b.send(1)
def wait():
    while True: sleep(0.0003)
started = threading.Event()
def main():
    a, b = Chan(), Chan()
    for each in compute, compute, block, block, wait: go(each)
    go(ping, a, b); go(pong, a, b)
    started.set()
    sleep(100)
threading.Thread(target=run, args=(main,), daemon=True).start()
started.wait()
time.sleep({delay})
print("ends", flush=True)
"""


@pytest.mark.parametrize("delay", [0, 0.001, 0.003, 0.01, 0.02, 0.03])
def test_the_interpreter_ends_while_a_daemon_thread_is_in_run(script: Script, delay: float) -> None:
    result = script(DAEMON.format(delay=delay))
    assert (result.stdout, result.stderr, result.returncode) == ("ends\n", "", 0)


# Children that end beside a daemon thread's run, idle to the system: main goes on as soon as
# a switch lets the GIL go, and the switch when main sleeps, with the thread states freed by then.
MID_SWITCH = """
import faulthandler; faulthandler.cancel_dump_traceback_later()
import os, threading, time
from golibx import Chan, go, run
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
def ping(a, b):
    while True: a.send(1); b.recv()
def main():
    a, b = Chan(), Chan()
    go(ping, a, b); go(lambda: [b.send(x) for x in a])
    started.set()
    Chan().recv()
def daemon():
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    run(main)
class Sleeps:
    def __del__(self, sleep=time.sleep): sleep(0.01)
started = threading.Event()
statuses = set()
for n in range(30):
    if (pid := os.fork()) == 0:
        at_the_end = Sleeps()
        threading.Thread(target=daemon, daemon=True).start()
        started.wait()
        time.sleep(n % 6 * 0.001)
        break
    statuses.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
else:
    print(statuses, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux")
def test_the_interpreter_ends_in_the_middle_of_a_switch(script: Script) -> None:
    """What the C library frees is overwritten: a thread state that is used afterwards is none."""
    result = script(MID_SWITCH, env={"MALLOC_PERTURB_": "85"})
    assert (result.stdout, result.stderr, result.returncode) == ("{0}\n", "", 0)


def test_threads_that_start_goroutines_without_end_do_not_keep_a_run(script: Script) -> None:
    """They are refused, and so are timers, from when the goroutines are told to end."""
    program = """
import threading
from golibx import Chan, Timer, go, gosched, run, sleep
def start(begin):
    try:
        while True: begin()
    except RuntimeError as e: refused.append(str(e))
refused = []
begins = [lambda: go(sleep, 0.001), lambda: Timer(0.001, gosched)]
threads = [threading.Thread(target=start, args=(begin,)) for begin in begins]
def wait():
    try: Chan().recv()
    finally:
        for t in threads: t.start()
        for t in threads: t.join()
def main():
    go(wait)
    gosched()
run(main)
print(*refused, sep="\\n")
print(run(lambda: go(int).result()))
"""
    result = script(program)
    line = "the golibx run is ending: a thread cannot start goroutines in it\n"
    assert (result.stdout, result.stderr) == (line * 2 + "0\n", "")


SHORT_CALLS = {
    "sleep": "lambda: time.sleep(0.01)",
    "lock": "lambda: lock.acquire(timeout=0.01)",
    "select": "lambda: select.select([reading], [], [], 0.01)",
    "read": "lambda: os.read(reading, 1)",
    "queue": "lambda: queue.Queue().get(timeout=0.01)",
    "subprocess": "lambda: subprocess.run(['sleep', '0.01'])",
}


@pytest.mark.parametrize("call", SHORT_CALLS)
@pytest.mark.parametrize("after", ["pass", "continue"])
def test_one_short_call_after_the_other_on_the_main_thread(
    script: Script, call: str, after: str
) -> None:
    """A goroutine that was given up goes on whatever is raised in them; run() returns."""
    program = f"""
import os, queue, select, subprocess, threading, time
from golibx import go, run, sleep

lock = threading.Lock()
lock.acquire()
reading, writing = os.pipe()
call = {SHORT_CALLS[call]}

def goes_on():
    while True:
        try:
            call()
        except BaseException:
            {after}

def main():
    go(goes_on)
    sleep(0.02)

run(main, config={{"runtime": {{"shutdown_timeout": "20ms"}}}})
print("returned", flush=True)
os._exit(0)
"""
    assert script.passes(program) == "returned\n"


def test_ctrl_c_while_a_run_waits_for_the_main_thread(script: Script) -> None:
    program = """
import os, signal, threading, time
import golibx

def goes_on():
    while True:
        try:
            while True:
                try:
                    time.sleep(100)
                except BaseException:
                    pass
        except BaseException:
            pass

def main():
    golibx.go(goes_on)
    golibx.sleep(0.01)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

try:
    golibx.run(main, config={"runtime": {"shutdown_timeout": "300ms"}})
except KeyboardInterrupt:
    print("interrupted", flush=True)
os._exit(0)
"""
    assert script.passes(program) == "interrupted\n"


def test_handlers_that_raise_while_given_up_goroutines_hold_the_main_thread(script: Script) -> None:
    """What they raise comes out of run(), and nothing else does; the next run() works."""
    program = """
import random, signal, time
import golibx

class Raised(Exception):
    pass

random.seed(1)
raises = False
outcomes = set()

def handler(number, frame):
    if raises and random.random() < 0.3:
        raise Raised

def goes_on():
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        try:
            while time.monotonic() < end:
                time.sleep(0.003)
        except BaseException:
            pass

def main():
    global raises
    for _ in range(4):
        golibx.go(goes_on)
    raises = True
    time.sleep(0.001)

signal.signal(signal.SIGALRM, handler)
for _ in range(40):
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        golibx.run(main, config={"runtime": {"shutdown_timeout": "20ms"}})
        raises = False
        outcomes.add("returned")
    except Exception as exc:
        raises = False
        outcomes.add(repr(exc))
    signal.setitimer(signal.ITIMER_REAL, 0)
print(outcomes - {"returned"})
"""
    assert script.passes(program) == "{'Raised()'}\n"


def test_an_exception_between_any_two_lines_around_a_run(script: Script) -> None:
    """As a signal's handler raises it: what surrounds a run is taken down, the next run() works."""
    program = """
import signal, sys
import golibx
from golibx import _core, runtime
from golibx.patch import signals, wakeup

signal.signal(signal.SIGUSR1, lambda number, frame: None)
handler = signal.getsignal(signal.SIGUSR1)
config = golibx.config.Config.from_mapping({"runtime": {"switch_interval": "7ms"}})

signals._NUMBERS = (signal.SIGINT, signal.SIGUSR1, runtime._OWN_SIGNAL)  # fewer lines

class Raised(Exception):
    pass

held = (signals.patch, wakeup.patch, runtime._patch, wakeup._open_pipe)
held = {f.__code__ for f in held}
left = 0

def trace(frame, event, arg):
    global left
    code = frame.f_code
    if code in held or "golibx" not in code.co_filename:
        return None  # no handler is called in there
    if event == "line":
        left -= 1
        if left == 0:
            raise Raised(code.co_qualname, frame.f_lineno)
    return trace

for n in range(1, 1000):
    left = n
    runs = []
    sys.settrace(trace)
    try:
        golibx.run(runs.append, n, config=config)
    except Raised as exc:
        pass
    sys.settrace(None)
    assert golibx.run(lambda: n) == n
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signals.present(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGUSR1) is handler
    assert signal.getsignal(runtime._OWN_SIGNAL) == signal.SIG_DFL
    assert abs(sys.getswitchinterval() - 0.005) < 1e-9, n
    assert signal.set_wakeup_fd(-1) == -1, n
    assert runtime._entered is None
    if left > 0:
        break
print(n > 50, runs == [n])
"""
    assert script.passes(program) == "True True\n"


def test_a_signal_pipe_that_c_code_has_closed_between_two_runs(script: Script) -> None:
    program = """
import ctypes, os, signal, time
import golibx
from golibx.patch import wakeup

class Interrupted(Exception):
    pass

def handler(number, frame):
    raise Interrupted

def wait():
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        golibx.Chan().recv()
    except Interrupted:
        return "interrupted"

signal.signal(signal.SIGALRM, handler)
print(golibx.run(wait))
old = wakeup._pipe
for fd in old:
    ctypes.CDLL(None).close(fd)
mine = [os.open(os.devnull, os.O_RDWR) for _ in old]
print(sorted(mine) == sorted(old))
print(golibx.run(wait))
for fd in mine:
    os.close(fd)
print(golibx.run(wait))
"""
    assert script.passes(program) == "interrupted\nTrue\ninterrupted\ninterrupted\n"


NAP = """
#include <time.h>

void nap(long seconds) {
    struct timespec left = {seconds, 0};
    while (nanosleep(&left, &left) != 0) {
        /* no signal ends it */
    }
}
"""


def test_the_goroutine_that_is_locked_to_the_main_thread_is_named(
    script: Script, tmp_path: Path
) -> None:
    """Below a callback it is locked where it is."""
    program = """
import ctypes, sys, threading
import golibx

library = ctypes.CDLL(sys.argv[1])
main_thread = threading.get_native_id()
is_there = False

def naps():
    global is_there
    ctypes.CFUNCTYPE(None)(golibx.lock_os_thread)()
    # Where this one is slow, another thread has taken it over.
    is_there = threading.get_native_id() == main_thread
    if is_there:
        library.nap(2)

def main():
    golibx.go(naps)
    golibx.sleep(0.01)

while not is_there:
    golibx.run(main, config={"runtime": {"shutdown_timeout": "20ms"}})
print("returned")
"""
    result = script(program, str(c_library(tmp_path, "nap", NAP)))
    assert result.stdout == "returned\n"
    text = "golibx: a goroutine that was given up is locked to the main thread, by lock_os_thread()"
    assert text in result.stderr
    assert "goroutine 2 [naps] started at" in result.stderr
