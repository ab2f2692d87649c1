"""`[patch] threads`: threads of a program as goroutines of its run, beside plain Python's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

RUN = [sys.executable, "-m", "golibx", "run"]

# What each prints, and how it ends, is the same under python.
SAME = {
    "who": """
import threading
def who():
    me = threading.current_thread()
    print(me.name, me.daemon, me.is_alive(), me.ident == threading.get_ident(), me is not main)
    print(sorted(t.name for t in threading.enumerate()), threading.active_count())
main = threading.current_thread()
for daemon in (False, True):
    thread = threading.Thread(target=who, name=f"mine {daemon}", daemon=daemon)
    print(thread, thread.is_alive(), thread.ident)
    thread.start()
    thread.join()
    print(thread.is_alive(), threading.active_count(), thread.name)
""",
    "misuse": """
import threading
def refused(call, *args):
    try: call(*args)
    except Exception as e: print(type(e).__name__, e)
thread = threading.Thread(target=lambda: refused(thread.join))
refused(thread.join)
thread.start()
thread.join()
refused(thread.start)
refused(thread.join, "x")
import _thread
refused(_thread.start_new_thread, 1, ())
refused(_thread.start_new_thread, print, 1)
refused(_thread.start_new_thread, print, (), 1)
""",
    "masks of signals": """
import os, signal, subprocess, sys, threading
USR1 = signal.SIGUSR1
signal.signal(USR1, lambda *args: print("handled"))
def blocked(): return USR1 in signal.pthread_sigmask(signal.SIG_BLOCK, [])
def in_thread(fn):
    thread = threading.Thread(target=fn)
    thread.start()
    thread.join()
CHILD = "import signal; print(signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
def work():
    print("its own", blocked(), signal.pthread_sigmask(signal.SIG_BLOCK, [USR1]), blocked())
    in_thread(lambda: print("inherits", blocked()))
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True)
    print("program", child.stdout.strip())
    if os.fork() == 0:
        print("fork", blocked(), flush=True)
        os._exit(0)
    os.wait()
    ready.set()
    go_on.wait()
    print("still", blocked())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [USR1])
    print("no more", blocked())
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
ready, go_on = threading.Event(), threading.Event()
thread = threading.Thread(target=work)
sys.stdout.flush()
thread.start()
ready.wait()
print("main", blocked())
in_thread(lambda: print("another", blocked()))
os.kill(os.getpid(), USR1)
print("sent")
go_on.set()
thread.join()
print("after", blocked())
in_thread(lambda: print("later", blocked()))
""",
    "what is the system's thread's": """
import hashlib, os, threading
def own():
    return sorted(os.sched_getaffinity(0)), os.getpriority(os.PRIO_PROCESS, 0), \\
        os.sched_getscheduler(0)
def block(): hashlib.pbkdf2_hmac("sha256", b"", b"", 30_000)
before = own()
def change():
    block()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.nice(3)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    changed.append(own())
    ready.set()
    go_on.wait()
    print(own() == changed[0], changed[0][1:])
def look(when):
    block()
    if own() != before: print(when, own())
def look_at_some(when):
    threads = [threading.Thread(target=look, args=(when,)) for _ in range(6)]
    for thread in threads: thread.start()
    look(when)
    for thread in threads: thread.join()
    print(when)
changed = []
ready, go_on = threading.Event(), threading.Event()
thread = threading.Thread(target=change)
thread.start()
block()
ready.wait()
look_at_some("meanwhile")
go_on.set()
thread.join()
look_at_some("after")
""",
    "time-out": """
import threading
go_on = threading.Event()
thread = threading.Thread(target=go_on.wait)
thread.start()
thread.join(0.01)
thread.join(0)
thread.join(-1)
print(thread.is_alive())
go_on.set()
thread.join()
print(thread.is_alive())
""",
    "what a thread raises": """
import sys, threading
threading.excepthook = lambda a: print(a.exc_type.__name__, a.exc_value, a.thread.name)
def fail(): raise ValueError(1)
def leave(): sys.exit(3)
for f in (fail, leave):
    thread = threading.Thread(target=f)
    thread.start()
    thread.join()
print("goes on")
""",
    "its traceback": """
import threading
def fail(): raise ValueError(1)
thread = threading.Thread(target=fail, name="x")
thread.start()
thread.join()
""",
    "without a Thread": """
import _thread, sys, threading
def hook(u):
    print(u.exc_type.__name__, u.exc_value, u.object is fail)
    ended.set()
sys.unraisablehook = hook
ended, seen = threading.Event(), []
def fail(): raise ValueError(2)
_thread.start_new_thread(fail, ())
ended.wait()
class Local(threading.local): pass
def work(a, *, b):
    seen.append((a, b, threading.get_ident()))
    lock.release()
lock = _thread.allocate_lock()
lock.acquire()
ident = _thread.start_new_thread(work, (1,), {"b": 2})
lock.acquire()
print(seen[0][:2], seen[0][2] == ident)
""",
    "outlives the main program": """
import threading, time, atexit
atexit.register(print, "at exit")
def work():
    threading.main_thread().join()
    time.sleep(0.05)
    print("worked", threading.main_thread().is_alive())
threading.Thread(target=work).start()
print("end of main")
""",
    "outlives a failed program": """
import threading, time
def work():
    time.sleep(0.05)
    print("worked")
threading.Thread(target=work).start()
raise ValueError("main")
""",
    "outlives an exit": """
import sys, threading, time
def work():
    time.sleep(0.05)
    print("worked")
threading.Thread(target=work).start()
sys.exit(7)
""",
    "waits for the main thread": """
import threading
def work():
    threading.main_thread().join()
    print("main has ended")
threading.Thread(target=work).start()
print("end")
""",
    "daemons": """
import queue, threading, time
def wait():
    try: queue.Queue().get()
    finally: print("never")
def compute():
    while True: pass
def sleep():
    try: time.sleep(100)
    except BaseException: print("never")
for f in (wait, compute, sleep):
    threading.Thread(target=f, daemon=True).start()
time.sleep(0.05)
print("end")
""",
    "daemons that are needed at exit": """
import atexit, multiprocessing, queue, threading
jobs, done, stop = queue.Queue(), [], threading.Event()
def work():
    while True:
        done.append(jobs.get())
        jobs.task_done()
threading.Thread(target=work, daemon=True).start()
other = threading.Thread(target=stop.wait, daemon=True)
other.start()
sent = multiprocessing.get_context("fork").Queue()
@atexit.register
def end():
    print("at exit", other.is_alive(), threading.main_thread().is_alive())
    jobs.join()
    stop.set()
    other.join()
    print(done, other.is_alive(), sent.get())
sent.put("x" * 9)
for i in range(3): jobs.put(i)
threading._register_atexit(print, "before", done is None)
""",
    "a lock that a daemon holds at exit": """
import atexit, sys, threading
lock, held, at_exit = threading.Lock(), threading.Event(), threading.Event()
def hold():
    with lock:
        held.set()
        at_exit.wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
@atexit.register
def end():
    at_exit.set()
    with lock: print("at exit", repr(sys.last_value))
raise ValueError(3)
""",
    "what functions at exit raise": """
import atexit, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
@atexit.register
def end():
    1 / 0
atexit.register(lambda: print("first"))
""",
    "says why it ends before it waits": """
import sys, threading
main = threading.main_thread()
def work():
    main.join()
    print("worked", file=sys.stderr)
threading.Thread(target=work).start()
sys.exit("reason")
""",
    "many wait for one": """
import threading
go_on, ends = threading.Event(), []
main, one = threading.main_thread(), threading.Thread(target=go_on.wait)
def wait():
    one.join()
    ends.append(one.is_alive())
    main.join()
    ends.append(main.is_alive())
    if len(ends) == 20: print(ends)
one.start()
threads = [threading.Thread(target=wait) for _ in range(10)]
for thread in threads: thread.start()
go_on.set()
one.join()
""",
    "a class of threads": """
import _thread, threading
class Own(threading.Thread):
    @property
    def name(self): raise ValueError
    @name.setter
    def name(self, value): pass
    def method(self, x): seen.append((x, _thread.get_ident())); lock.release()
seen, lock = [], _thread.allocate_lock()
lock.acquire()
own = Own(target=print, args=("ran",))
number = _thread.start_new_thread(own.method, (5,))
lock.acquire()
print(seen == [(5, number)], own.is_alive(), own.ident)
own.start()
own.join()
print(own.is_alive())
""",
    "time-outs that are none": """
import threading
go_on = threading.Event()
thread = threading.Thread(target=go_on.wait)
thread.start()
for timeout in (float("nan"), 1e300, 1e10, float("-inf"), "1", 0, False):
    try: thread.join(timeout)
    except Exception as error: print(type(error).__name__)
    else: print(thread.is_alive())
go_on.set()
""",
    "pool that nobody shuts down": """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(3)
print(sorted(pool.map(lambda x: x * x, range(10))))
kept = pool.submit(lambda: __import__("time").sleep(0.05) or print("done"))
print("end")
""",
    "timer": """
import threading
t = threading.Timer(0.02, lambda: print("rings"))
never = threading.Timer(100, print)
never.start()
t.start()
never.cancel()
t.join()
never.join()
print(never.finished.is_set())
""",
    "variables": """
import contextvars, threading
variable = contextvars.ContextVar("variable", default="default")
local = threading.local()
def show():
    print(variable.get(), getattr(local, "x", None))
    local.x = variable.set("other") and 1
variable.set("main")
local.x = "main"
for _ in range(2):
    thread = threading.Thread(target=show)
    thread.start()
    thread.join()
print(variable.get(), local.x)
""",
    "data of ended threads": """
import gc, threading, weakref
class Data: pass
local, seen = threading.local(), []
def work():
    local.data = Data()
    seen.append(weakref.ref(local.data))
threads = [threading.Thread(target=work) for _ in range(10)]
for thread in threads: thread.start()
for thread in threads: thread.join()
gc.collect()
print(len(seen), sum(ref() is not None for ref in seen))
""",
    "hooks of new threads": """
import sys, threading
seen = set()
def profile(frame, event, arg): seen.add(frame.f_code.co_name)
threading.setprofile(profile)
def work(): pass
thread = threading.Thread(target=work)
thread.start()
thread.join()
print("work" in seen, sys.getprofile())
""",
    "what the main thread may": """
import asyncio, signal, threading
async def add(): asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
def work():
    for call in (
        lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
        lambda: signal.set_wakeup_fd(-1),
        lambda: asyncio.run(add()),
    ):
        try: call()
        except Exception as error: print(type(error).__name__, error)
    print(signal.getsignal(signal.SIGUSR1))
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(signal.signal(signal.SIGUSR1, signal.SIG_IGN))
""",
    "names": """
import os, threading
def name(): return open("/proc/self/comm").read()
before = name()
def work(): threading.current_thread().name = "renamed"
for i in range(20):
    thread = threading.Thread(target=work, name="mine")
    thread.start()
    thread.join()
print(name() == before, thread.name)
""",
    "names of the system's threads": """
import _thread, threading
name = getattr(_thread, "_get_name", lambda: None)
def work():
    print(name())
    threading.current_thread().name = "renamed to what is longer"
    print(name())
thread = threading.Thread(target=work, name="mine")
thread.start()
thread.join()
print(thread.name)
""",
    "fork": """
import os, threading, time
def child():
    pid = os.fork()
    if pid == 0:
        me = threading.current_thread()
        print(me is threading.main_thread(), threading.active_count(), flush=True)
        thread = threading.Thread(target=print, args=("of the child",), kwargs={"flush": True})
        thread.start()
        thread.join()
        os._exit(5)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
def ends(): children.append(os.fork())
children = []
thread = threading.Thread(target=ends)
thread.start()
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]), flush=True)
stays = threading.Event()
other = threading.Thread(target=stays.wait)
other.start()
thread = threading.Thread(target=child)
thread.start()
thread.join()
stays.set()
other.join()
""",
    "processes": """
import multiprocessing, threading
def work(x): return x * 2
if __name__ == "__main__":
    def use():
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(work, range(5)))
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
""",
    "asyncio": """
import asyncio, threading, time
async def main():
    loop = asyncio.get_running_loop()
    seen = await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.01) for _ in range(20)))
    await loop.run_in_executor(None, print, "in a thread")
    future = loop.create_future()
    threading.Thread(target=loop.call_soon_threadsafe, args=(future.set_result, 7)).start()
    print(len(seen), await future)
asyncio.run(main())
""",
    "server": """
import http.server, threading, urllib.request
class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
threading.Thread(target=server.serve_forever).start()
def ask(i): seen.append(urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}").read())
seen = []
threads = [threading.Thread(target=ask, args=(i,)) for i in range(30)]
for thread in threads: thread.start()
for thread in threads: thread.join()
server.shutdown()
server.server_close()
print(len(seen), set(seen))
""",
    "pipeline": """
import queue, threading
first, second = queue.Queue(2), queue.Queue(2)
def stage(source, target):
    while (item := source.get()) is not None:
        target.put(item + 1)
        source.task_done()
    target.put(None)
threading.Thread(target=stage, args=(first, second)).start()
def feed():
    for i in range(500): first.put(i)
    first.put(None)
threading.Thread(target=feed).start()
total = 0
while (item := second.get()) is not None: total += item
print(total)
""",
    "thread-local data": """
import threading, time
local = threading.local()
ends = []
class Kept:
    def __del__(self):
        time.sleep(0.02)
        ends.append(1)
def work(): local.kept = Kept()
threads = [threading.Thread(target=work) for _ in range(5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(ends), [thread.is_alive() for thread in threads])
""",
    "thread-local data at the end": """
import atexit, threading, time
local = threading.local()
ends = []
class Kept:
    def __del__(self):
        time.sleep(0.05)
        ends.append(1)
def work(started):
    local.kept = Kept()
    started.set()
atexit.register(lambda: print(len(ends)))
for _ in range(5):
    started = threading.Event()
    threading.Thread(target=work, args=(started,)).start()
    started.wait()
""",
}


def ended(command: list[str], program: Path) -> tuple[str, str, int]:
    done = subprocess.run(
        [*command, str(program)], capture_output=True, text=True, timeout=30, check=False
    )
    return (done.stdout, re.sub("0x[0-9a-f]+|pid=[0-9]+", "…", done.stderr), done.returncode)


def written(folder: Path, code: str) -> Path:
    program = folder / "program.py"
    program.write_text(code)
    return program


@pytest.mark.parametrize("name", SAME)
def test_it_is_as_under_python(tmp_path: Path, name: str) -> None:
    program = written(tmp_path, SAME[name])
    plain = ended([sys.executable], program)
    assert ended(RUN, program) == plain


def run(tmp_path: Path, code: str) -> str:
    program = written(tmp_path, code)
    stdout, stderr, status = ended(RUN, program)
    assert (stderr, status) == ("", 0)
    return stdout


def test_they_need_no_threads(tmp_path: Path) -> None:
    program = """
import threading, golibx
go_on, here = threading.Event(), threading.Barrier(1001)
def work():
    assert golibx.current().name == threading.current_thread().name
    here.wait()
    go_on.wait()
threads = [threading.Thread(target=work) for _ in range(1000)]
for thread in threads: thread.start()
here.wait()
print(golibx.stats()["threads"] < 10, threading.active_count())
go_on.set()
for thread in threads: thread.join()
"""
    assert run(tmp_path, program) == "True 1001\n"


def test_one_that_computes_or_blocks_stops_no_other(tmp_path: Path) -> None:
    program = """
import ctypes, threading, time
def compute():
    while not over: pass
def block():
    ctypes.CDLL(None).usleep(50_000)
over = False
threads = [threading.Thread(target=f) for f in (compute, block, block)]
for thread in threads: thread.start()
ticks = 0
def tick():
    global ticks, over
    for _ in range(20):
        time.sleep(0.001)
        ticks += 1
    over = True
ticker = threading.Thread(target=tick)
ticker.start()
ticker.join()
for thread in threads: thread.join()
print(ticks)
"""
    assert run(tmp_path, program) == "20\n"


def test_threads_that_wait_for_each_other_are_a_deadlock(tmp_path: Path) -> None:
    program = written(
        tmp_path,
        "import queue, threading\n"
        "thread = threading.Thread(target=queue.Queue().get, name='waits')\n"
        "thread.start()\n"
        "thread.join()\n",
    )
    _, stderr, status = ended(RUN, program)
    assert status == 1
    assert "Deadlock" in stderr
    assert "waits" in stderr
    assert re.search(r"created by goroutine 1 at .*program.py:3\n", stderr)


def test_threads_outside_of_goroutines_stay_threads(tmp_path: Path) -> None:
    """Those of golibx itself, and what these start."""
    program = """
import threading, golibx
from golibx.patch.threads import OsThread
seen = []
def inner(): seen.append(golibx.current())
def outer():
    inner()
    thread = threading.Thread(target=inner)
    thread.start()
    thread.join()
thread = OsThread(target=outer)
thread.start()
thread.join()
print(seen)
"""
    assert run(tmp_path, program) == "[None, None]\n"


def test_they_stay_threads_where_that_is_asked_for(tmp_path: Path) -> None:
    program = written(
        tmp_path,
        "import threading, golibx\n"
        "thread = threading.Thread(target=lambda: print(golibx.current()))\n"
        "thread.start()\n"
        "thread.join()\n",
    )
    command = [sys.executable, "-m", "golibx", "run", "--set", "patch.threads=false"]
    assert ended(command, program) == ("None\n", "", 0)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="a Thread has a handle there, and no lock")
def test_one_that_is_joined_amid_its_end_has_ended(tmp_path: Path) -> None:
    program = """
import threading
class Slow(threading.Thread):
    def _stop(self):
        ends.set()
        go_on.wait()
        super()._stop()
ends, go_on = threading.Event(), threading.Event()
thread = Slow()
thread.start()
ends.wait()
thread.join()
print(thread.is_alive())
go_on.set()
"""
    assert run(tmp_path, program) == "False\n"


def test_ctrl_c_while_they_are_waited_for(tmp_path: Path) -> None:
    program = written(
        tmp_path,
        "import os, signal, threading, time\n"
        "def work():\n"
        "    time.sleep(0.05)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(100)\n"
        "threading.Thread(target=work).start()\n"
        "print('end', flush=True)\n",
    )
    stdout, stderr, status = ended(RUN, program)
    assert (stdout, status) == ("end\n", 0)  # as under python
    assert stderr.count("KeyboardInterrupt") == 1
    assert "in end" not in stderr
