"""fork: what lives in the child, how it ends, and that nothing else of the run does."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from conftest import Script

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork"),
    pytest.mark.limit(120),
]

# The limit of scripts is a thread of faulthandler's, for which a child would wait at its end, in
# plain Python too.
HEAD = """
import faulthandler; faulthandler.cancel_dump_traceback_later()
import os, sys, threading, time, signal, atexit
import golibx
from golibx import Chan, Cancelled, go, gosched, run, sleep

def status_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_beside_busy_goroutines(script: Script) -> None:
    result = script(Path(__file__).with_name("forks.py"), "60", "30", limit=100)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "97" not in result.stdout


@pytest.mark.parametrize("traced", [False, True])
def test_beside_threads_that_begin(script: Script, traced: bool) -> None:
    """A thread that makes its thread state holds no lock that the child waits for."""
    if traced and hasattr(sys, "gettotalrefcount"):
        pytest.skip("the interpreter frees thread states without its lock, slowly in debug builds")
    program = (
        HEAD
        + """
from golibx import lock_os_thread
if TRACED:
    import tracemalloc
    tracemalloc.start()
over = False
def runs():
    while not over:
        run(lambda: [g.result() for g in [go(lock_os_thread) for _ in range(20)]])
t = threading.Thread(target=runs)
t.start()
for _ in range(100):
    pid = os.fork()
    if pid == 0:
        os._exit(len([bytes(i) for i in range(7)]))
    assert status_of(pid) == 7
    time.sleep(0.0005)
over = True
t.join()
"""
    )
    script.passes(program.replace("TRACED", str(traced)))


def test_a_run_in_the_child_of_a_fork_beside_runs_that_begin_and_end(script: Script) -> None:
    """The thread that forked is in no run, at whatever point another one's was."""
    program = """
def batch():
    for g in [go(time.sleep, 0.0001) for _ in range(5)]: g.result()
over = False
def runs():
    while not over:
        run(batch)
t = threading.Thread(target=runs)
t.start()
statuses = []
for i in range(60):
    pid = os.fork()
    if pid == 0:
        run(batch)
        os._exit(7)
    statuses.append(status_of(pid))
    time.sleep(i % 10 * 0.0001)
over = True
t.join()
assert set(statuses) == {7}, statuses
"""
    script.passes(HEAD + program)


@pytest.mark.parametrize("leaves", ["", "golibx.net.listen(('127.0.0.1', 0)).close()"])
def test_a_run_in_the_child_of_a_fork_between_two_runs(script: Script, leaves: str) -> None:
    """A run leaves what surrounds it for the next one, unless it has used the network."""
    program = """
import golibx.net
def threads():
    LEAVES
    for g in [go(golibx.lock_os_thread) for _ in range(5)]: g.result()
def runs():
    run(threads)
for _ in range(5):
    runs()
    pid = os.fork()
    if pid == 0:
        others = [threading.Thread(target=time.sleep, args=(0,)) for _ in range(5)]
        for t in others: t.start()
        runs()
        for t in others: t.join()
        os._exit(7)
    assert status_of(pid) == 7
"""
    script.passes(HEAD + program.replace("LEAVES", leaves))


@pytest.mark.parametrize("how", ["return", "raise", "sys.exit(3)", "sys.exit('text')"])
def test_the_main_goroutine_goes_on_as_the_main_thread(script: Script, how: str) -> None:
    """Its exit status, what it prints and atexit are those of the same program without golibx."""
    program = """
atexit.register(lambda: print("atexit", os.getpid() == parent))
parent = os.getpid()
print("begin", flush=True)
def main():
    pid = os.fork()
    if pid == 0:
        print("child")
        HOW
    else:
        print("status", status_of(pid))
START
print("after", os.getpid() == parent)
"""
    body = {"return": "return", "raise": "raise ValueError('wrong')"}.get(how, how)
    program = HEAD + program.replace("HOW", body)
    plain = script(program.replace("START", "main()"), env={"PYTHONUNBUFFERED": ""})
    ours = script(program.replace("START", "run(main)"), env={"PYTHONUNBUFFERED": ""})
    assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout)
    assert ours.stderr.splitlines()[-1:] == plain.stderr.splitlines()[-1:]


@pytest.mark.parametrize("how", ["return", "raise"])
def test_another_goroutine_ends_as_a_thread(script: Script, how: str) -> None:
    program = """
atexit.register(lambda: print("atexit", os.getpid() == parent))
parent = os.getpid()
def f():
    pid = os.fork()
    if pid == 0:
        print("child", flush=True)
        HOW
    else:
        print("status", status_of(pid))
print("begin")
START
"""
    body = {"return": "return", "raise": "raise ValueError('wrong')"}[how]
    program = HEAD + program.replace("HOW", body)
    thread = "t = threading.Thread(target=f); t.start(); t.join()"
    plain = script(program.replace("START", thread), python=("-X", "utf8"))
    ours = script(program.replace("START", "run(lambda: go(f).join())"), python=("-X", "utf8"))
    assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout)
    assert ("ValueError: wrong" in ours.stderr) == (how == "raise")


def test_sys_exit_in_another_goroutine_ends_the_child(script: Script) -> None:
    program = """
atexit.register(lambda: print("atexit", os.getpid() == parent, flush=True))
parent = os.getpid()
def f(code):
    pid = os.fork()
    if pid == 0:
        threading.Thread(target=lambda: (time.sleep(0.1), os.write(1, b"thread\\n"))).start()
        sys.exit(code)
    return status_of(pid)
print(run(lambda: [go(f, code).result() for code in (3, None, "text")]), flush=True)
"""
    result = script(HEAD + program)
    child = "thread\natexit False\n"
    assert result.stdout == child * 3 + "[3, 0, 1]\natexit True\n", result.stderr
    assert result.stderr == "text\n"


@pytest.mark.parametrize("start", ["run(f)", "run(lambda: go(f).join())"])
def test_the_files_of_a_child_that_exits_are_written(
    script: Script, tmp_path: Path, start: str
) -> None:
    """Text on binary files: the first must be written before the second."""
    program = """
texts = [open(sys.argv[1] + name, "w") for name in "abc"]
texts[2].close()
raw = open(sys.argv[1] + "d", "wb")
update = open(sys.argv[1] + "e", "w+b")
def f():
    pid = os.fork()
    if pid == 0:
        for each in texts[:2]: each.write("text")
        for each in (raw, update): each.write(b"bytes")
        sys.exit(3)
    print(status_of(pid), flush=True)
START
"""
    output = script.passes((HEAD + program).replace("START", start), str(tmp_path) + "/f-")
    assert output == "3\n"
    written = {path.name: path.read_text() for path in tmp_path.glob("f-*")}
    assert written == {"f-a": "text", "f-b": "text", "f-c": "", "f-d": "bytes", "f-e": "bytes"}


def test_a_child_ends_as_it_does_after_a_run_of_its_own(script: Script) -> None:
    program = """
def forks(end):
    pid = os.fork()
    if pid == 0:
        assert run(lambda: go(lambda: 5).result()) == 5
        return end()
    return status_of(pid)
def leave(): sys.exit(5)
def fail(): raise ValueError
def late():
    # The parent's run is about to end.
    try: sleep(60)
    finally: print(forks(leave), flush=True)
def main():
    go(late)
    gosched()
    return [go(forks, end).result() for end in (leave, fail, int)] + [forks(leave)]
print(run(main, config={"runtime": {"on_panic": "exit"}}), flush=True)
"""
    result = script(HEAD + program)
    assert result.stdout == "5\n[5, 2, 0, 5]\n", result.stderr
    assert result.stderr.count("panicked:") == 1


def test_on_panic_exit_in_the_child(script: Script) -> None:
    program = """
def f():
    pid = os.fork()
    if pid == 0:
        raise ValueError("wrong")
    return status_of(pid)
print(run(lambda: go(f).result(), config={"runtime": {"on_panic": "exit"}}))
"""
    result = script(HEAD + program)
    assert result.stdout == "2\n"
    assert result.stderr.count("panicked") == 1


def test_what_a_child_may_do(script: Script) -> None:
    program = """
import multiprocessing, subprocess, pty
def square(n):
    return run(lambda: go(lambda: n * n).result())
def in_child():
    import wave
    seen = []
    t = threading.Thread(target=seen.append, args=(1,)); t.start(); t.join()
    seen.append(run(lambda: go(lambda: 2).result()))
    seen.append(run(lambda: [go(lambda: 3).result() for _ in range(2)][0]))
    pid = os.fork()
    if pid == 0:
        os._exit(run(lambda: go(lambda: 4).result()))
    seen.append(status_of(pid))
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        seen.append(pool.map(square, range(4)))
    q = context.Queue()
    p = context.Process(target=q.put, args=(5,)); p.start(); seen.append(q.get()); p.join()
    seen.append(subprocess.run(["true"], preexec_fn=lambda: None).returncode)
    seen.append(threading.current_thread() is threading.main_thread())
    old = signal.signal(signal.SIGUSR1, lambda *_: seen.append("signal"))
    os.kill(os.getpid(), signal.SIGUSR1)
    print(seen, flush=True)
def forks():
    pid = os.fork()
    if pid == 0:
        in_child()
        return "child"
    assert status_of(pid) == 0
def main():
    for n in range(3): go(sleep, 1000)
    go(forks).join()
    pid, fd = pty.fork()
    if pid == 0:
        os.write(1, b"on a terminal\\n")
        os._exit(0)
    print(os.read(fd, 100).split(), status_of(pid), flush=True)
    if forks() == "child":
        return "child"
    return "parent"
print(run(main), flush=True)
"""
    child = "[1, 2, 3, 4, [0, 1, 4, 9], 5, 0, True, 'signal']\n"
    out = script.passes(HEAD + program, limit=60)
    assert out == child + "[b'on', b'a', b'terminal'] 0\n" + child + "child\nparent\n"


def test_what_a_child_inherits(script: Script) -> None:
    """Locks that the goroutine holds are its own; those that stayed in the parent have ended."""
    program = """
from golibx import WaitGroup, Mutex, net, scope, after, context
from golibx.futures import GoroutinePoolExecutor
def main():
    ch, wg = Chan(), WaitGroup(); wg.add()
    waits = go(ch.recv)
    go(wg.wait)
    lock = threading.RLock()
    a, b = net.socketpair() if hasattr(net, "socketpair") else (None, None)
    timer = after(1000)
    gosched()
    me = threading.get_ident()
    with lock:
        pid = os.fork()
    if pid == 0:
        assert threading.get_ident() == me
        assert waits.done() and waits.join() and waits.state == "cancelled", waits
        try:
            waits.result()
        except Cancelled as e:
            print(e, flush=True)
        assert waits.frame is None and golibx.current() is None
        try:
            ch.recv()
        except RuntimeError as e:
            print(e, flush=True)
        wg.done()
        def anew():
            assert not ch.try_send(1)
            g = go(ch.recv); gosched(); ch.send(6)
            assert waits.join()
            return g.result()
        print(run(anew), flush=True)
        return
    assert status_of(pid) == 0
    ch.send(7); wg.done()
    print(waits.result(), flush=True)
run(main)
"""
    lines = script.passes(HEAD + program).splitlines()
    assert lines[0].startswith("goroutine 2 has stayed in the process")
    assert lines[1].startswith("this process was forked inside a golibx runtime")
    assert lines[2:] == ["6", "7"]


def test_from_everywhere(script: Script) -> None:
    """A finalizer, a signal handler, a goroutine locked to a thread, one back from blocking."""
    program = """
def fork(code):
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    got.append(status_of(pid))
class Dies:
    def __del__(self): fork(1)
got = []
def locked():
    golibx.lock_os_thread()
    fork(2)
    golibx.unlock_os_thread()
def blocks():
    for _ in range(5):
        time.sleep(0.01)
        fork(3)
def hog():
    while len(got) < 10: pass
def main():
    go(hog)
    go(lambda: Dies()).join()
    go(locked).join()
    go(blocks).join()
    signal.signal(signal.SIGUSR1, lambda *_: fork(4))
    signal.raise_signal(signal.SIGUSR1)
    go(lambda: os.kill(os.getpid(), signal.SIGUSR1)).join()
    while len(got) < 9: sleep(0.001)
    t = threading.Thread(target=fork, args=(5,)); t.start()
    while len(got) < 10: sleep(0.001)
    print(got)
run(main)
"""
    assert script.passes(HEAD + program) == "[1, 2, 3, 3, 3, 3, 3, 4, 4, 5]\n"


def test_from_a_thread_that_goes_on(script: Script) -> None:
    program = """
def f():
    pid = os.fork()
    if pid == 0:
        print("child", run(lambda: go(lambda: 5).result()), flush=True)
        return
    got.append(status_of(pid))
got = []
def main():
    go(sleep, 1000)
    t = threading.Thread(target=f); t.start()
    while not got: sleep(0.001)
    print("parent", got)
run(main)
"""
    assert script.passes(HEAD + program) == "child 5\nparent [0]\n"


def test_main_forks_on_another_thread(script: Script) -> None:
    """A goroutine blocks the main thread meanwhile: run() returns in the child all the same."""
    program = """
def main():
    blocked = go(time.sleep, 2)
    gosched()
    first = threading.main_thread().native_id
    deadline = time.monotonic() + 1.5
    while threading.get_native_id() == first and time.monotonic() < deadline:
        sleep(0.001)
    pid = os.fork()
    if pid == 0:
        def deep(n): return n and 1 + deep(n - 1)
        assert deep(500) == 500
        return "child"
    assert status_of(pid) == 5
    return "parent"
print(run(main), flush=True)
threading.Thread(target=lambda: None).start()
def deep(n): return n and 1 + deep(n - 1)
assert deep(800) == 800
if len(sys.argv) == 1 and os.getppid() == int(os.environ["THE_PARENT"]): sys.exit(5)
"""
    head = 'import os; os.environ.setdefault("THE_PARENT", str(os.getpid()))\n'
    assert script.passes(head + HEAD + program) == "child\nparent\n"


def test_recursion_in_the_child(script: Script) -> None:
    program = """
def deep(): return deep()
def f():
    pid = os.fork()
    if pid == 0:
        sys.setrecursionlimit(10**6 if sys.version_info >= (3, 12) else 5000)
        try:
            sorted([1], key=lambda _: deep())
        except RecursionError:
            sys.exit(3)
    return status_of(pid)
print(run(lambda: go(f).result()))
"""
    assert script.passes(HEAD + program) == "3\n"


def test_nothing_is_shared_with_the_parent(script: Script) -> None:
    """The child's signals, and what it closes, are its own."""
    program = """
from golibx import net
def main():
    signal.signal(signal.SIGUSR1, lambda *_: None)
    with net.listen(("127.0.0.1", 0)) as listener:
        client = net.dial(listener.address)
        server, _ = listener.accept()
        gate, leave = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            for conn in (client, server, listener): conn.close()
            run(lambda: go(sleep, 0.01).join())
            os._exit(0)
        reader = go(server.recv, 10)
        assert status_of(pid) == 0
        sleep(0.01)
        client.sendall(b"hello")
        print(reader.result(), flush=True)
run(main)
"""
    assert script.passes(HEAD + program) == "b'hello'\n"


def test_imports_that_others_were_in_the_middle_of(script: Script) -> None:
    program = """
import pathlib
pathlib.Path("slow.py").write_text("import golibx\\ngolibx.sleep(0.3)\\nvalue = 5\\n")
sys.path.insert(0, "")
def imports():
    import slow
    return slow.value
def main():
    g = go(imports)
    while "slow" not in sys.modules: gosched()
    pid = os.fork()
    if pid == 0:
        os._exit(run(imports))
    print(status_of(pid), g.result(), flush=True)
run(main)
"""
    assert script.passes(HEAD + program) == "5 5\n"


def test_an_import_that_another_was_about_to_begin(script: Script) -> None:
    # It is in the middle of _ModuleLock.acquire() or release(), and owns nothing.
    program = """
import importlib, signal
def about_to(lock):
    with lock.lock:
        holds.send(None)
        over.recv()
def main():
    global holds, over
    holds, over = golibx.Chan(), golibx.Chan()
    lock = importlib._bootstrap._get_module_lock("colorsys")
    g = go(about_to, lock)
    holds.recv()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        import colorsys
        os._exit(5)
    over.send(None)
    print(status_of(pid), g.result(), flush=True)
run(main)
"""
    assert script.passes(HEAD + program) == "5 None\n"


@pytest.mark.parametrize("lock", ["_active_limbo_lock", "_shutdown_locks_lock"])
@pytest.mark.parametrize("forker", ["goroutine", "main", "thread"])
def test_locks_of_threading_that_another_had(script: Script, forker: str, lock: str) -> None:
    # What knows of threads is finalized in the child before threading makes the first anew.
    if not hasattr(threading, lock):
        pytest.skip("3.13 has no such lock")
    program = f"""
import _thread
knows = threading.Event()
def known():
    threading.current_thread()
    knows.set()
    time.sleep(100)
def has_the_lock():
    with threading.{lock}:
        holds.send(None)
        over.recv()
def fork():
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        again = os.fork()
        if again == 0: os._exit(4)
        os._exit(1 + status_of(again))
    return status_of(pid)
def main():
    global holds, over
    holds, over = Chan(), Chan()
    go_on = threading.Event()
    statuses = []
    thread = threading.Thread(target=lambda: (go_on.wait(), statuses.append(fork())))
    thread.start()
    _thread.start_new_thread(known, ())
    knows.wait()
    go(has_the_lock)
    holds.recv()
    if {forker!r} == "thread":
        go_on.set()
        while not statuses: sleep(0.001)
    else:
        statuses.append(fork() if {forker!r} == "main" else go(fork).result())
    over.close()
    go_on.set()
    thread.join()
    print(statuses[0])
run(main)
"""
    assert script.passes(HEAD + program) == "5\n"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="warns since 3.12")
@pytest.mark.parametrize("action", ["always", "error"])
def test_the_warning_of_threads(script: Script, action: str) -> None:
    program = f"""
import warnings
warnings.simplefilter({action!r})
done = False
def busy():
    while not done: time.sleep(0.0001)
def forker():
    for _ in range(15):
        try:
            pid = os.fork()
        except DeprecationWarning:
            return  # the child is lost sight of, as in plain Python
        if pid == 0: os._exit(0)
        assert status_of(pid) == 0
def main():
    global done
    for _ in range(3): go(busy)
    for g in [go(forker) for _ in range(2)]: g.join()
    done = True
run(main)
print("end")
"""
    result = script(HEAD + program, env={"PYTHONWARNINGS": ""})
    assert (result.returncode, "Fatal" in result.stderr) == (0, False), result.stderr
    assert action == "error" or "multi-threaded" in result.stderr


def test_a_fork_waits_for_the_import_that_others_are_in_the_middle_of(script: Script) -> None:
    """Its child sees what importlib's tables are between two imports."""
    out = script.passes(
        """
import _imp, os, sys, threading, time
from golibx import Chan, go, run, sleep

def half(begun, sleep):
    _imp.acquire_lock()
    sys.modules["halved"] = 1
    begun()
    for _ in range(5):
        sleep(0.001)
    sys.modules["halved"] = 2
    _imp.release_lock()

def forked():
    pid = os.fork()
    if not pid:
        complete = sys.modules["halved"] == 2
        import colorsys
        os._exit(0 if complete and not _imp.lock_held() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def beside(start):
    begun = Chan(1)
    other = start(half, lambda: begun.send(None), sleep if start is go else time.sleep)
    begun.recv()
    assert _imp.lock_held()
    status = forked()
    other.join()
    return status

def thread(function, *args):
    t = threading.Thread(target=function, args=args)
    t.start()
    return t

def main():
    statuses = [beside(go), beside(thread), go(beside, go).result(), go(beside, thread).result()]
    _imp.acquire_lock()  # a fork in the middle of an import of one's own
    sys.modules["halved"] = 2
    pid = os.fork()
    _imp.release_lock()
    if not pid:
        import colorsys
        os._exit(_imp.lock_held())
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    print(statuses, _imp.lock_held())

import warnings
warnings.simplefilter("ignore", DeprecationWarning)
run(main)
"""
    )
    assert out == "[0, 0, 0, 0, 0] False\n"


# Objects of golibx's that keep track of goroutines, used in a child while others had them: `use`
# in a run of the child's own. A goroutine is in the midst of each, and holds the lock that guards
# it.
KEPT = {
    "executor": """
        executor = golibx.futures.GoroutinePoolExecutor(max_workers=2)
        def begin():
            for _ in range(5): executor.submit(Chan().recv)
            gosched()
            hold(executor._lock)
        def use():
            assert [*executor.map(abs, [-1, -2, -3])] == [1, 2, 3]
            executor.shutdown()
    """,
    "executor, by a worker of its own": """
        executor = golibx.futures.GoroutinePoolExecutor(1, initializer=lambda: None)
        def begin():
            made = []
            executor.submit(forks)
            for i in range(3): executor.submit(os.write, w, b"x")
            executor.shutdown()
            # Not the child as well.
            assert os.read(r, 10) == b"xxx"
            return True
        r, w = os.pipe()
        def use():
            executor._shutdown = False
            assert executor.submit(abs, -1).result() == 1
    """,
    "group": """
        group = golibx.singleflight.Group()
        def begin():
            go(group.do, "key", Chan().recv)
            gosched()
            hold(group._lock)
        def use():
            assert group.do("key", lambda: 1) == (1, False)
    """,
    "aio": """
        import asyncio
        from golibx import aio
        async def one(): return 1
        def begin():
            aio.run(one())
            go(aio.run, asyncio.sleep(100))
            hold(aio._of_run._lock)
        def use():
            assert aio.run(one()) == 1
    """,
    "signal channels": """
        def begin():
            golibx.signal.notify(Chan(1), signal.SIGUSR1)
        def use():
            ch = Chan(1)
            golibx.signal.notify(ch, signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert ch.recv(timeout=20) == signal.SIGUSR1
    """,
}


@pytest.mark.parametrize("what", KEPT)
def test_what_keeps_track_of_goroutines_can_be_used_in_the_child(script: Script, what: str) -> None:
    code = HEAD + "import golibx.futures, golibx.signal, golibx.singleflight\n"
    code += textwrap.dedent(KEPT[what])
    code += """
def hold(lock):
    def held():
        with lock:
            Chan().recv()
    go(held)
    gosched()

def forks():
    # Finalizers of what the others had come before everything else.
    pid = os.fork()
    if pid == 0:
        run(use)
        os.write(1, b"used\\n")
        os._exit(7)
    assert status_of(pid) == 7

def main():
    if not begin():
        forks()
    os._exit(0)

run(main)
"""
    assert script.passes(code) == "used\n"


# What a child sees of itself, in the run and afterwards. In the parent `work` returns its status.
WHO = """
import concurrent.futures, sqlite3
parent = os.getpid()
atexit.register(lambda: print("atexit", os.getpid() == parent, flush=True))
def work():
    lock, own, local = threading.RLock(), threading._PyRLock(), threading.local()
    made = sqlite3.connect(":memory:")
    me = threading.get_ident()
    local.x = 1
    def look(when):
        this, got = threading.main_thread(), []
        if not me == threading.get_ident() == this.ident:
            print("another number")
        print(when, this is threading.current_thread(), this.is_alive(), threading.active_count())
        print(me in sys._current_frames(), me in sys._current_exceptions(), local.x)
        for each in lock, own:
            with each: pass
        made.execute("select 1")
        signal.signal(signal.SIGUSR1, lambda *_: got.append("signal"))
        signal.pthread_kill(me, signal.SIGUSR1)
        print(got, flush=True)
    lock.acquire(); own.acquire()
    pid = os.fork()
    if pid: return status_of(pid)
    signal.alarm(20)
    look("child")
    lock.release(); own.release()
    return look
def late(): time.sleep(0.05); print("thread", flush=True)
"""

AS_MAIN = """
RUN
if isinstance(look, int): print("status", look, flush=True); os._exit(0)
look("after")
AGAIN
look("after it")
pid = os.fork()
if pid == 0:
    look("grandchild")
    sys.exit(4)
print("status", status_of(pid))
concurrent.futures.ThreadPoolExecutor().submit(late)
sys.exit(3)
"""

# A goroutine keeps the main thread away.
ELSEWHERE = """
def main():
    r, w = os.pipe()
    go(os.read, r, 1)
    first = threading.get_native_id()
    while threading.get_native_id() == first: sleep(0.0001)
    result = work()
    if isinstance(result, int): os.write(w, b"x")
    return result
look = run(main)
"""


@pytest.mark.parametrize("start", ["look = run(work)", ELSEWHERE], ids=["there", "elsewhere"])
def test_the_childs_main_goroutine_is_the_main_thread(script: Script, start: str) -> None:
    """As in plain Python, whatever thread it forked on; and the interpreter ends as there."""
    again = "(look('again'), go(gosched).join(), look('again'))"
    program = HEAD + WHO + AS_MAIN
    plain = program.replace("RUN", "look = work()").replace(
        "AGAIN", again.replace("go(gosched).join()", "0")
    )
    ours = program.replace("RUN", start).replace("AGAIN", f"run(lambda: {again})")
    expected = script.passes(plain)
    assert expected.endswith("status 4\nthread\natexit False\nstatus 3\n")
    assert script.passes(ours) == expected


def test_the_childs_other_goroutine_is_the_main_thread(script: Script) -> None:
    program = """
def f():
    look = work()
    if isinstance(look, int): print("status", look, flush=True); return
    threading.Thread(target=late).start()
    signal.alarm(0)
START
"""
    program = HEAD + WHO + program
    thread = "t = threading.Thread(target=f); t.start(); t.join()"
    expected = script.passes(program.replace("START", thread))
    assert expected.endswith("thread\nstatus 0\natexit True\n")
    assert script.passes(program.replace("START", "run(lambda: go(f).join())")) == expected


POOL = """
import concurrent.futures
threading._register_atexit(os.write, 1, b"before the threads end\\n")
def f():
    pid = os.fork()
    if pid == 0:
        POOLS = concurrent.futures.ThreadPoolExecutor(2)
        for _ in range(3): POOLS.submit(lambda: (time.sleep(0.01), os.write(1, b"called\\n")))
        threading.Thread(target=os.write, args=(1, b"thread\\n")).start()
        END
    print("status", status_of(pid), flush=True)
START
"""


@pytest.mark.parametrize("pool", ["pool", "sys.pool"])
@pytest.mark.parametrize("end", ["sys.exit(3)", "raise KeyboardInterrupt"])
def test_the_childs_threads_end_as_at_a_programs_end(script: Script, end: str, pool: str) -> None:
    """Pools' idle threads are told to, also those of a pool that the program still has."""
    program = (HEAD + POOL).replace("END", end).replace("POOLS", pool)
    expected = sorted(script.passes(program.replace("START", "f()")).splitlines())
    assert len(expected) == 7, expected
    ours = script.passes(program.replace("START", "run(lambda: go(f).join())"))
    assert sorted(ours.splitlines()) == expected


@pytest.mark.parametrize("end", ["1 // 0", "try: 1 // 0\n        finally: {}[0]"])
def test_the_childs_threads_end_as_when_a_thread_raises(script: Script, end: str) -> None:
    """What it raised goes with it, and with that the pool. The pool's idle threads end then."""
    program = (HEAD + POOL).replace("END", end).replace("POOLS", "pool")
    thread = "t = threading.Thread(target=f); t.start(); t.join()"
    expected = sorted(script.passes(program.replace("START", thread)).splitlines())
    assert len(expected) == 6, expected
    ours = script.passes(program.replace("START", "run(lambda: go(f).join())"))
    assert sorted(ours.splitlines()) == expected


# What it has goes, as where a program ends: files are written.
HELD = """
def f():
    global kept
    sys.stdout.flush()
    pid = os.fork()
    if pid: return print("status", status_of(pid), flush=True)
    kept, own = open(1, "w", closefd=False), open(1, "w", closefd=False)
    kept.write("kept\\n"); own.write("own\\n")
    END
START
"""


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise ValueError", "return"])
def test_what_the_childs_main_goroutine_has_goes(script: Script, end: str) -> None:
    program = (HEAD + HELD).replace("END", end)
    expected = script.passes(program.replace("START", "f()"))
    assert {"kept", "own"} <= set(expected.split())
    assert script.passes(program.replace("START", "run(f)")) == expected
    with script.start(program.replace("START", "f()"), python=("-m", "golibx", "run")) as process:
        assert process.communicate(timeout=60)[0] == expected


def test_run_holds_nothing_of_what_it_has_raised(script: Script) -> None:
    program = """
class Held: pass
def main():
    global ref
    held = Held(); ref = weakref.ref(held)
    if forks and (pid := os.fork()): os._exit(status_of(pid))
    1 // 0
import gc, weakref
gc.disable()
for forks in False, True:
    try: run(main)
    except ZeroDivisionError: pass
    print(ref(), flush=True)
"""
    assert script.passes(HEAD + program) == "None\nNone\n"


BAD = """
class Bad:
    def __str__(self): raise ValueError("bad")
def fails(*_): raise ValueError("hook")
def exits(*_): sys.exit(8)
def f(): child(END)
def child(end):
    pid = os.fork()
    if pid == 0:
        atexit.register(os.write, 1, b"atexit\\n")
        end()
    print("status", status_of(pid), flush=True)
def interrupt(hook=None):
    if hook: sys.excepthook = hook
    else: del sys.excepthook
    raise KeyboardInterrupt
START
"""


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("lambda: sys.exit(Bad())", 1),
        ("lambda: sys.exit(2**63)", 255),
        ("lambda: sys.exit(-2**63)", 0),
        ("lambda: sys.exit(-2**63 - 1)", 255),
        ("lambda: sys.exit(2**40 + 7)", 7),
        ("interrupt", -2),
        ("lambda: interrupt(fails)", -2),
        ("lambda: interrupt(exits)", 8),
    ],
)
@pytest.mark.parametrize("start", ["run(f)", "run(lambda: go(f).join())"])
def test_a_child_ends_however_its_end_is_told(
    script: Script, end: str, status: int, start: str
) -> None:
    """By what cannot be printed, what is no status, and hooks that raise or are not there."""
    program = (HEAD + BAD).replace("END", end).replace("START", start)
    assert script.passes(program) == f"atexit\nstatus {status}\n"


@pytest.mark.parametrize("end", ["sys.exit(5)", "raise KeyboardInterrupt", "return"])
def test_a_child_of_a_run_in_a_child_ends_as_its_parent(script: Script, end: str) -> None:
    """Past its run it is the goroutine that the run was called in."""
    program = """
def f():
    pid = os.fork()
    if pid: return print("child", status_of(pid), flush=True)
    def inner():
        pid = os.fork()
        if pid: print("grandchild", status_of(pid), flush=True)
    run(inner)
    END
run(lambda: go(f).join())
"""
    status = {"sys.exit(5)": 5, "return": 0}.get(end, -2)
    expected = f"grandchild {status}\nchild {status}\n"
    assert script.passes((HEAD + program).replace("END", end)) == expected


@pytest.mark.parametrize("end", ["sys.exit(5)", "raise ValueError", "return"])
def test_a_child_of_a_signal_handler_ends_by_what_that_raises(script: Script, end: str) -> None:
    """The main goroutine waits, another one is on its thread or none is."""
    program = """
def handler(*_):
    pid = os.fork()
    if pid: return print("status", status_of(pid), flush=True)
    atexit.register(os.write, 1, b"atexit\\n")
    END
signal.signal(signal.SIGUSR1, handler)
def main():
    go(lambda: (os.kill(os.getpid(), signal.SIGUSR1), time.sleep(0.05))).join()
    late = lambda: (time.sleep(0.05), os.kill(os.getpid(), signal.SIGUSR1))
    threading.Thread(target=late).start()
    sleep(0.2)
run(main)
"""
    status = {"sys.exit(5)": 5, "return": 0}.get(end, 1)
    expected = f"atexit\nstatus {status}\n" * 2
    assert script.passes((HEAD + program).replace("END", end)) == expected


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("end", ["sys.exit(3)", "raise ValueError", "return"])
def test_the_childs_threads_may_wait_for_it(script: Script, end: str, asked: bool) -> None:
    """For its main thread, as in plain Python, however that came into being."""
    program = """
def f():
    if ASKED: threading.current_thread()
    pid = os.fork()
    if pid: return print("status", status_of(pid), flush=True)
    def wait():
        this.join(); os.write(1, b"joined\\n")
    this = threading.main_thread()
    threading.Thread(target=wait).start()
    time.sleep(0.05)
    END
START
"""
    program = (HEAD + program).replace("END", end).replace("ASKED", str(asked))
    status = 3 if "exit" in end else 0
    ours = script.passes(program.replace("START", "run(lambda: go(f).join())"))
    assert set(ours.splitlines()) == {"joined", f"status {status}"}
    status = {"sys.exit(3)": 3, "return": 0}.get(end, 1)
    ours = script.passes(program.replace("START", "run(f)"))
    assert set(ours.splitlines()) == {"joined", f"status {status}"}


def test_a_thread_forks_after_a_run(script: Script) -> None:
    """The child's thread is its main one, as in plain Python."""
    program = """
import os, signal, threading
import golibx

golibx.run(int)

def forks():
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(golibx.run(lambda: golibx.go(int).result()))
    print(os.waitpid(child, 0)[1])

thread = threading.Thread(target=forks)
thread.start()
thread.join()
"""
    result = script(program)
    assert (result.stdout, result.stderr) == ("handled\n0\n", "")


def test_a_fork_that_has_just_got_the_import_lock_imports(script: Script) -> None:
    """As 3.12 and later warn of threads, with that lock held, while others are about to take it."""
    program = """
import os, sys, threading, warnings
import golibx
golibx.run(lambda: None)
warnings.simplefilter("always")
def show(message, *rest):
    # Not what the threads import: plain Python's fork has a deadlock there.
    sys.modules.pop("keyword", None)
    import keyword
warnings.showwarning = show
stop = False
def importer():
    while not stop:
        sys.modules.pop("colorsys", None)
        try: import colorsys
        except KeyError: pass
sys.setswitchinterval(1e-5)
threads = [threading.Thread(target=importer) for _ in range(3)]
for t in threads: t.start()
for _ in range(150):
    try: pid = os.fork()
    except KeyError: continue
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
stop = True
for t in threads: t.join()
print("well")
"""
    assert script.passes(program) == "well\n"
