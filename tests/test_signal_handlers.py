"""Signal handlers of the program's own: the main goroutine's, whichever is on its thread."""

from __future__ import annotations

import signal
import sys
import textwrap
from pathlib import Path

import pytest

from conftest import Script

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the Python lane needs Linux"
)

PRELUDE = """\
import asyncio, contextvars, os, signal, subprocess, sys, threading, time
import golibx
from golibx import Chan, Deadlock, Event, Mutex, WaitGroup, go, gosched, run, select, sleep

FAST = {"preempt": {"slice": "1ms"}, "sysmon": {"sleep_min": "20us"}}

class TimeIsUp(Exception):
    pass

def raises(signum, frame):
    raise TimeIsUp

def others():
    # On the main thread, and everywhere else.
    try:
        while not stop:
            sum(range(100))
            if len(stop) == 0:
                gosched()
        return "untouched"
    except TimeIsUp:
        return "hit"

def blocked():
    try:
        while not stop:
            time.sleep(0.0005)
        return "untouched"
    except TimeIsUp:
        return "hit"

stop = []

def beside(wait):
    # Has main wait while others compute and block, and the handler end that.
    gs = [go(f) for f in (others, others, blocked, blocked)]
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        wait()
        ended = "waited"
    except TimeIsUp:
        ended = "TimeIsUp"
    stop.append(1)
    print(ended, *{g.result() for g in gs})

"""

# How main waits. A lock is not to be interrupted: what was raised comes after it.
WAITS = {
    "receive": "Chan().recv(timeout=20)",
    "select": "select(Chan().on_recv(), timeout=20)",
    "sleep": "sleep(20)",
    "join": "go(blocked).join()",
    "time.sleep": "time.sleep(20)",
    "compute": "computes()",
    "event": "Event().wait(20)",
    "mutex": "waits_for_mutex()",
    "threading.Lock": "waits_for_lock()",
    "import lock": "[__import__('wsgiref.headers') for _ in iter(int, 1)]",
}

MORE = """
def computes():
    while True:
        pass

def waits_for_mutex():
    mutex = Mutex()
    mutex.lock()
    go(lambda: (sleep(0.05), mutex.unlock()))
    mutex.lock()
    sleep(20)

def waits_for_lock():
    lock = threading.Lock()
    lock.acquire()
    go(lambda: (sleep(0.05), lock.release()))
    lock.acquire()
    sleep(20)

"""


def passes(script: Script, body: str) -> str:
    return script.passes(PRELUDE + MORE + textwrap.dedent(body))


@pytest.mark.parametrize("wait", WAITS)
def test_what_a_handler_raises_is_the_main_goroutines(script: Script, wait: str) -> None:
    out = passes(
        script,
        f"""
        signal.signal(signal.SIGALRM, raises)
        run(lambda: beside(lambda: {WAITS[wait]}), config=FAST)
        """,
    )
    assert out == "TimeIsUp untouched\n"


def test_a_handler_sees_what_the_main_goroutine_has(script: Script) -> None:
    out = passes(
        script,
        """
        local, var = threading.local(), contextvars.ContextVar("var")

        def handler(signum, frame):
            seen.append((
                local.x, var.get(), golibx.current() is mine, type(sys.exc_info()[1]).__name__,
                frame.f_code.co_name,
            ))
            done.set()

        def hog():
            local.x = "hog's"
            while not seen:
                pass

        def main():
            global mine, done
            mine, done = golibx.current(), Event()
            local.x = "main's"
            var.set("main's")
            go(hog)
            go(lambda: signal.raise_signal(signal.SIGUSR1))
            try:
                1 // 0
            except ZeroDivisionError:
                done.wait()
            print(*seen)

        seen = []
        signal.signal(signal.SIGUSR1, handler)
        run(main, config=FAST)
        """,
    )
    assert out == "(\"main's\", \"main's\", True, 'ZeroDivisionError', 'main')\n"


def test_main_goes_on_when_the_handler_has_returned(script: Script) -> None:
    out = passes(
        script,
        """
        order = []

        def handler(signum, frame):
            ch.send("woken")  # main is ready from here on
            order.append("handler waits")
            gate.recv()
            order.append("handler ends")

        def main():
            global ch, gate
            ch, gate = Chan(1), Chan()
            go(lambda: signal.raise_signal(signal.SIGUSR1))
            go(lambda: (sleep(0.02), order.append("others go on"), gate.send(1)))
            order.append(ch.recv())
            print(*order, sep=", ")

        signal.signal(signal.SIGUSR1, handler)
        run(main, config=FAST)
        """,
    )
    assert out == "handler waits, others go on, handler ends, woken\n"


def test_several_handlers_and_what_they_raise(script: Script) -> None:
    out = passes(
        script,
        """
        def handler(signum, frame):
            raise ValueError(signum)

        def main():
            for n in (signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(n, handler)

            def strike():
                os.kill(os.getpid(), signal.SIGUSR1)
                os.kill(os.getpid(), signal.SIGUSR2)

            go(strike)
            caught = set()
            while len(caught) < 2:
                try:
                    sleep(10)
                except ValueError as error:
                    caught.add(error.args[0])
            print(sorted(caught) == [signal.SIGUSR1, signal.SIGUSR2])

        run(main, config=FAST)
        """,
    )
    assert out == "True\n"


# How main computes: what a handler raises there comes before any other line of main's.
COMPUTES = {
    "a loop": "for i in range(30_000): pass",
    "calls": "for i in range(3_000): inner()",
    "generators": "for i in generated(3_000): pass",
    "deep returns": "for i in range(200): deep(15)",
    "callbacks": "for i in range(20): sorted(range(300), key=lambda n: -n)",
}


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("compute", COMPUTES)
def test_a_handler_raises_where_it_has_seen_the_main_goroutine(
    script: Script, compute: str, traced: bool
) -> None:
    out = passes(
        script,
        f"""
        block = handled_in = None
        over = []

        def handler(signum, frame):
            global handled_in
            if block is not None:
                handled_in = block
                raise TimeIsUp

        def hog():  # main has been switched out in the block
            while not over:
                sum(range(3000))
                if block is not None and block != handled_in:
                    os.kill(os.getpid(), signal.SIGALRM)

        def inner():
            pass

        def generated(n):
            for i in range(n):
                yield i

        def deep(n):
            return n and deep(n - 1)

        def main():
            global block
            if {traced}:
                sys.settrace(lambda *_: None)
            signal.signal(signal.SIGALRM, handler)
            hogs = [go(hog), go(hog)]
            raised, elsewhere = 0, []
            number = 0
            while raised < 30:
                number += 1
                try:
                    block = number
                    while handled_in != block:
                        {COMPUTES[compute]}
                    block = None
                    # One that was raised late comes here.
                    time.sleep(0)
                except TimeIsUp:
                    raised += 1
                    if block != handled_in:
                        elsewhere.append((block, handled_in))
                    block = None
            over.append(True)
            for g in hogs:
                g.join()
            print(elsewhere)

        run(main)
        """,
    )
    assert out == "[]\n"


@pytest.mark.parametrize("wait", ["computes()", "time.sleep(10)", "sleep(10)"])
def test_signals_that_come_while_main_is_to_raise_wait_for_that(script: Script, wait: str) -> None:
    out = passes(
        script,
        f"""
        guarded = owing = False
        too_early = []

        def handler(signum, frame):
            global owing
            # Not where main has caught it, and is about to say so.
            if guarded and (frame.f_code is not main.__code__ or frame.f_lineno == line):
                if owing:
                    too_early.append(signum)
                owing = True
                raise TimeIsUp

        def main():
            global guarded, owing, line
            for n in (signal.SIGALRM, signal.SIGUSR1):
                signal.signal(n, handler)

            def strike():
                while not stop:
                    os.kill(os.getpid(), signal.SIGUSR1)
                    time.sleep(0.0005)

            gs = [go(f) for f in (others, blocked, blocked, strike)]
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0011)
            for _ in range(100):
                try:
                    line = sys._getframe().f_lineno + 2
                    guarded = True
                    {wait}
                except TimeIsUp:
                    guarded = owing = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            stop.append(True)
            for g in gs:
                g.join()
            print(too_early)

        run(main, config=FAST)
        """,
    )
    assert out == "[]\n"


def test_a_storm_of_handlers_that_raise_beside_busy_goroutines(script: Script) -> None:
    out = passes(
        script,
        """
        def main():
            signal.signal(signal.SIGALRM, raises)
            gs = [go(f) for f in (others, others, blocked)]
            caught = 0
            while caught < 50:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.001)
                    if caught % 3 == 0:
                        sleep(10)
                    elif caught % 3 == 1:
                        Chan().recv()
                    else:
                        while True:
                            pass
                except TimeIsUp:
                    caught += 1
            stop.append(1)
            print(caught, *{g.result() for g in gs})

        run(main, config=FAST)
        """,
    )
    assert out == "50 untouched\n"


def test_the_program_sees_its_own_handlers(script: Script) -> None:
    out = passes(
        script,
        """
        def first(*_): pass
        def second(*_): pass

        signal.signal(signal.SIGUSR1, first)

        def main():
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            assert signal.getsignal(signal.SIGUSR1) is first
            assert signal.signal(signal.SIGUSR1, second) is first
            assert signal.getsignal(signal.SIGUSR1) is second
            assert signal.signal(signal.SIGUSR2, signal.SIG_IGN) is signal.SIG_DFL
            assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN
            assert signal.signal(signal.SIGINT, first) is signal.default_int_handler
            assert signal.signal(signal.SIGINT, signal.default_int_handler) is first
            try:
                signal.signal(signal.SIGUSR1, "no handler")
            except TypeError:
                return

        run(main)
        assert signal.getsignal(signal.SIGUSR1) is second
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.signal(signal.SIGINT, first) is signal.default_int_handler
        print("well")
        """,
    )
    assert out == "well\n"


def test_a_fault_handler_of_the_programs_leaves_overflows_to_golibx(script: Script) -> None:
    out = passes(
        script,
        """
        def deep(n):
            return sorted([1], key=lambda _: deep(n + 1))

        def main():
            signal.signal(signal.SIGSEGV, lambda *_: print("handler"))
            os.kill(os.getpid(), signal.SIGSEGV)
            try:
                go(deep, 0).result()
            except RecursionError:
                print("RecursionError")
            signal.signal(signal.SIGSEGV, signal.SIG_IGN)
            os.kill(os.getpid(), signal.SIGSEGV)

        run(main)
        """,
    )
    assert out == "handler\nRecursionError\n"


# ---- deadlocks ----

DEADLOCKS = {
    "no handler": ("", "Deadlock"),
    "a handler": ("signal.signal(signal.SIGTERM, told)", "told"),
    "a handler that is gone": (
        "signal.signal(signal.SIGTERM, told); signal.signal(signal.SIGTERM, signal.SIG_DFL)",
        "Deadlock",
    ),
    "an ignored signal": ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "Deadlock"),
}


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("case", DEADLOCKS)
def test_deadlock(script: Script, case: str, inside: bool) -> None:
    install, outcome = DEADLOCKS[case]
    out = passes(
        script,
        f"""
        def told(*_):
            end.set()

        def install():
            {install or "pass"}

        def main():
            global end
            end = Event()
            if {inside}:
                install()
            if {outcome == "told"}:
                subprocess.Popen(["sh", "-c", "sleep 0.2; kill -TERM $PPID"])
            try:
                end.wait()
                print("told")
            except Deadlock:
                print("Deadlock")

        if not {inside}:
            install()
        run(main)
        """,
    )
    assert out == outcome + "\n"


# ---- other ways of the interpreter's ----


def test_asyncio_cancels_its_main_task(script: Script) -> None:
    result = script(
        PRELUDE
        + """
async def main():
    try:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("cancelled, cleaned up")
        raise

def hog():
    while True:
        pass

run(lambda: (go(hog), asyncio.run(main())), config=FAST)
"""
    )
    assert result.stdout == "cancelled, cleaned up\n", result.stderr
    assert result.stderr.endswith("KeyboardInterrupt\n")
    assert result.returncode == -signal.SIGINT


def test_the_rest_of_the_signal_module(script: Script) -> None:
    out = passes(
        script,
        """
        def main():
            seen = []
            signal.signal(signal.SIGUSR1, lambda n, _: seen.append(n))
            # pause() returns when a handler has run, whichever thread gets the signal.
            over = []
            def send():
                while not over:
                    sleep(0.02)
                    os.kill(os.getpid(), signal.SIGUSR1)
            sender = go(send)
            signal.pause()
            over.append(True)
            sender.join()
            assert set(seen) == {signal.SIGUSR1}
            del seen[1:]
            # Another thread's.
            ident = threading.main_thread().ident
            go(lambda: (sleep(0.02), signal.pthread_kill(ident, signal.SIGUSR1)))
            while len(seen) < 2:
                sleep(0.001)
            # A call goes on after a handler that raised nothing.
            go(lambda: (sleep(0.02), os.kill(os.getpid(), signal.SIGUSR1)))
            r, w = os.pipe()
            go(lambda: (sleep(0.05), os.write(w, b"x")))
            assert os.read(r, 1) == b"x" and len(seen) == 3
            signal.siginterrupt(signal.SIGUSR1, False)
            signal.raise_signal(signal.SIGUSR1)
            assert len(seen) == 4
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
            assert signal.sigwait([signal.SIGUSR2]) == signal.SIGUSR2
            print("well")

        run(main)
        """,
    )
    assert out == "well\n"


def test_goroutines_may_do_on_any_thread_what_the_main_thread_may(script: Script) -> None:
    """asyncio.run() sets a handler when it begins, and another one when it ends."""
    code = """
import asyncio, os, signal, threading, time
from golibx import go, gosched, run

def block():
    while not over: time.sleep(0.0003)

def work():  # one that comes back from a call meanwhile goes on where this one ran
    while not over:
        time.sleep(0.0003)
        sum(range(20_000))

async def block_loop():
    for _ in range(50):
        await asyncio.sleep(0.0003)
        time.sleep(0.0003)

def elsewhere():
    gosched()
    time.sleep(0.0005)
    return threading.get_native_id() != os.getpid()

def another():
    for _ in range(20):
        while not elsewhere(): pass
        asyncio.run(loop_with_handler())

async def loop_with_handler():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
    while not elsewhere(): await asyncio.sleep(0)

def main():
    for f in (block, block, block, work): go(f)
    moved = 0
    read, write = os.pipe()
    os.set_blocking(write, False)
    while moved < 20:
        if not elsewhere(): continue
        moved += 1
        signal.signal(signal.SIGUSR1, lambda *_: None)
        before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        assert signal.set_wakeup_fd(before) == write
        asyncio.run(block_loop())
    go(another).result()
    for call in (signal.signal, 1, signal.SIG_DFL), (signal.set_wakeup_fd, -1):
        thread = threading.Thread(target=call[0], args=call[1:])
        thread.start()
        thread.join()
    over.append(True)

over = []
threading.excepthook = lambda args: print(args.exc_value)
run(main)
"""
    refused = "signal only works in main thread of the main interpreter\n"
    out = script.passes(code)
    assert out == refused + refused.replace("signal", "set_wakeup_fd"), out


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("raises", [False, True])
def test_what_comes_while_nothing_is_to_disturb_is_called_after_it(
    script: Script, raises: bool, fails: bool
) -> None:
    """The interpreter looks once whether the thread may call handlers, and not again."""
    code = """
import os, signal, sys
from golibx import _core
from golibx.patch import signals

def handler(*_):
    seen.append("handled")
    if RAISES: raise ValueError

def body():
    os.kill(os.getpid(), signal.SIGUSR1)
    for _ in range(1000): pass
    seen.append("over")
    return 1 / (1 - FAILS)

seen = []
signals.learn_main_thread()
signal.signal(signal.SIGUSR1, handler)
try: seen.append(_core.call_undisturbed(body))
except Exception as e: seen += [type(e).__name__, type(e.__context__).__name__]
print(*seen)
"""
    expected = {
        (False, False): "1.0",
        (False, True): "ZeroDivisionError NoneType",
        (True, False): "ValueError NoneType",
        (True, True): "ValueError ZeroDivisionError",
    }[raises, fails]
    code = code.replace("RAISES", str(raises)).replace("FAILS", str(fails))
    assert script.passes(code) == f"over handled {expected}\n"


@pytest.mark.parametrize("becomes", ["closed", "a file", "a blocking socket"])
@pytest.mark.parametrize("when", ["before", "in", "after a fork in"])
def test_a_wakeup_descriptor_that_the_program_has_closed(
    script: Script, when: str, becomes: str
) -> None:
    """The interpreter takes no such number back; run() returns all the same."""
    code = """
import os, signal, socket, sys
from golibx import go, run

when, becomes = sys.argv[1:]

def leave_closed():
    one, other = socket.socketpair()
    one.setblocking(False)
    number = one.fileno()
    signal.set_wakeup_fd(number)
    one.close()
    if becomes == "a file": os.dup2(opened.fileno(), number)
    if becomes == "a blocking socket": os.dup2(other.fileno(), number)

def main():
    if when == "in": leave_closed()
    if when == "after a fork in":
        leave_closed()
        if (child := os.fork()) == 0: return "child"
        assert os.waitpid(child, 0)[1] == 0
    return go(lambda: "well").result()

opened = open(__file__)
if when == "before": leave_closed()
for _ in range(2):
    print(result := run(main))
    if result == "child": os._exit(0)  # faulthandler waits there for the thread of its time limit
"""
    expected = ("child\n" * when.startswith("after") + "well\n") * 2
    assert script.passes(code, when, becomes) == expected


@pytest.mark.parametrize("how", ["ctrl-c", "handler"])
@pytest.mark.parametrize("state", ["open", "closed", "closed at its other end", "full"])
@pytest.mark.parametrize("when", ["before", "in", "in, by what a library has kept"])
def test_a_program_that_has_signals_written_somewhere_is_woken_by_them(
    script: Script, when: str, state: str, how: str
) -> None:
    """Another goroutine has the main thread, in a call that no signal ends."""
    code = """
import os, signal, socket, sys, threading, time
kept = signal.set_wakeup_fd
from golibx import Event, current, go, gosched, run, stats

when, state, how = sys.argv[1:]
number = signal.SIGINT if how == "ctrl-c" else signal.SIGUSR1

def handler(number, frame):
    raise KeyboardInterrupt

def kill():
    time.sleep(0.05)  # for all threads to have gone to sleep
    os.kill(os.getpid(), number)

def give():
    one.setblocking(False)
    other.setblocking(False)
    if state == "full":
        try:
            while True: one.send(bytes(4096))
        except BlockingIOError: pass
    set_wakeup_fd = signal.set_wakeup_fd if when in ("before", "in") else kept
    set_wakeup_fd(one.fileno(), warn_on_full_buffer=False)
    if state == "closed": one.close()
    if state == "closed at its other end": other.close()

def main():
    if when != "before": give()
    go(os.read, r, 1)
    while stats()["threads_blocked"] == 0: gosched()
    go(strike, current())
    try: Event().wait()
    finally: os.write(w, b"x")

def strike(g):
    while not g.waiting: gosched()
    thread.start()

one, other = socket.socketpair()
r, w = os.pipe()
thread = threading.Thread(target=kill)
if how == "handler": signal.signal(number, handler)
if when == "before": give()
try: run(main)
except KeyboardInterrupt: print("interrupted")
if state == "open":
    print(other.recv(10) == bytes([number]), signal.set_wakeup_fd(-1) == one.fileno())
"""
    result = script(code, when, state, how)
    expected = "interrupted\n" + "True True\n" * (state == "open")
    assert (result.returncode, result.stdout) == (0, expected)
    # The interpreter can't be asked whether the program wants to know of a full one.
    if (when, state) != ("before", "full"):
        assert result.stderr == ""


def test_a_wakeup_descriptor_gets_every_signal_of_the_programs_and_no_other(
    script: Script,
) -> None:
    """golibx has a signal of its own. A full one is told of, if the program has not said no."""
    code = """
import os, signal, socket
from golibx import Chan, go, run

def send(number, count=1):
    for _ in range(count):
        os.kill(os.getpid(), number)
        came.recv()

def main():
    assert signal.set_wakeup_fd(two.fileno()) == one.fileno()
    signal.signal(signal.SIGUSR1, lambda *_: came.send(1))
    signal.signal(signal.SIGUSR2, lambda *_: came.send(1))
    go(send, signal.SIGUSR1, 3).join()
    send(signal.SIGUSR2)
    for bad in 10_000, opened.fileno():
        try: signal.set_wakeup_fd(bad)
        except (OSError, ValueError): pass
        else: print(bad)
    assert signal.set_wakeup_fd(-1) == two.fileno()
    send(signal.SIGUSR2)
    assert signal.set_wakeup_fd(full.fileno()) == -1
    send(signal.SIGUSR2)

pairs = [socket.socketpair() for _ in range(3)]
for pair in pairs:
    for each in pair: each.setblocking(False)
(one, _), (two, end), (full, _) = pairs
opened = socket.socket()
came = Chan(1)
try:
    while True: full.send(bytes(4096))
except BlockingIOError: pass
signal.set_wakeup_fd(one.fileno())
run(main)
usr1, usr2 = signal.SIGUSR1, signal.SIGUSR2
assert end.recv(10) == bytes([usr1, usr1, usr1, usr2])
assert signal.set_wakeup_fd(-1) == full.fileno()
try: print(pairs[0][1].recv(10))
except BlockingIOError: print("nothing")
"""
    result = script(code)
    assert (result.returncode, result.stdout) == (0, "nothing\n"), result.stderr
    assert result.stderr.count("of signal.set_wakeup_fd(): AGAIN\n") == 1


# What interrupts each of them in plain Python: a C call that is over when a handler has run, or
# raised. The main goroutine makes it on another thread, since one that blocks has the main thread.
ELSEWHERE = """
import fcntl, queue

read_end, write_end = os.pipe()
never, _ = os.pipe()
fifo = os.path.join(sys.argv[1], "fifo")
os.mkfifo(fifo)
lock, condition = threading.Lock(), threading.Condition()
lock.acquire()
one, other = socket.socketpair()
readable = select.poll()
readable.register(never, select.POLLIN)
events = select.epoll()

def waits_on_condition():
    with condition:
        condition.wait(20)

CALLS = {
    "pause": signal.pause,
    "time.sleep": lambda: time.sleep(20),
    "select": lambda: select.select([never], [], [], 20),
    "poll": lambda: readable.poll(20_000),
    "epoll": lambda: events.poll(20),
    "read": lambda: os.read(never, 1),
    "recv": lambda: one.recv(1),
    "sigtimedwait": lambda: signal.sigtimedwait([signal.SIGUSR2], 20),
    "open": lambda: open(fifo),
    "lock": lambda: lock.acquire(timeout=20),
    "condition": waits_on_condition,
    "queue": lambda: queue.Queue().get(timeout=20),
    "waitpid": lambda: os.waitpid(child.pid, 0),
}

def elsewhere(f):
    # On another thread than the process's main one.
    def main():
        go(os.read, read_end, 1)
        while threading.get_native_id() == os.getpid():
            gosched()
        f()
        os.write(write_end, b"x")
    run(main, config=FAST)
"""


def elsewhere(script: Script, body: str, tmp_path: Path) -> str:
    prelude = PRELUDE.replace("select, sleep", "sleep") + "import select, socket\n" + ELSEWHERE
    return script.passes(prelude + textwrap.dedent(body), str(tmp_path))


def test_a_handler_that_raises_ends_the_main_goroutines_call_on_any_thread(
    script: Script, tmp_path: Path
) -> None:
    out = elsewhere(
        script,
        """
        def main():
            for name, call in CALLS.items():
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                try:
                    print(name, "returned", call())
                except TimeIsUp:
                    assert ran.pop() is golibx.current()

        def handler(signum, frame):
            ran.append(golibx.current())
            raise TimeIsUp

        ran = []
        signal.signal(signal.SIGALRM, handler)
        child = subprocess.Popen(["sleep", "20"])
        elsewhere(main)
        child.kill()
        child.wait()
        """,
        tmp_path,
    )
    assert out == ""


def test_pause_on_any_thread_returns_when_the_handler_has_run(
    script: Script, tmp_path: Path
) -> None:
    out = elsewhere(
        script,
        """
        def main():
            # Sent to whichever thread, and to the one that waits, until one comes while it waits.
            for thread in (None, threading.get_native_id()) * 10:
                over = threading.Event()
                if thread is None:
                    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
                else:
                    threading.Thread(target=kill, args=(ident, over)).start()
                signal.pause()
                over.set()
                signal.setitimer(signal.ITIMER_REAL, 0)
                assert set(ran) == {golibx.current()}, ran
            for helper in set(threading.enumerate()) - {threading.main_thread()}:
                helper.join()
            ran.clear()
            # Others go on where they were.
            signal.setitimer(signal.ITIMER_REAL, 0.002)
            time.sleep(0.05)
            assert len(ran) == 1
            print("done")

        def kill(thread, over):
            while not over.wait(0.002):
                libc.pthread_kill(ctypes.c_ulong(thread), signal.SIGALRM)

        import ctypes
        libc = ctypes.CDLL(None)
        libc.pthread_self.restype = ctypes.c_ulong
        ran = []
        signal.signal(signal.SIGALRM, lambda signum, frame: ran.append(golibx.current()))

        def with_ident():
            global ident
            ident = libc.pthread_self()
            main()

        elsewhere(with_ident)
        """,
        tmp_path,
    )
    assert out == "done\n"


def test_ctrl_c_ends_the_main_goroutines_call_on_any_thread(script: Script, tmp_path: Path) -> None:
    out = elsewhere(
        script,
        """
        def main():
            threading.Timer(0.02, os.kill, [os.getpid(), signal.SIGINT]).start()
            try:
                time.sleep(20)
            except KeyboardInterrupt:
                print("KeyboardInterrupt")

        elsewhere(main)
        """,
        tmp_path,
    )
    assert out == "KeyboardInterrupt\n"


def test_a_handler_does_not_wait_for_a_call_that_does_not_look_for_signals(
    script: Script, tmp_path: Path
) -> None:
    out = elsewhere(
        script,
        """
        def main():
            signal.setitimer(signal.ITIMER_REAL, 0.002)
            # Until the handler has written to it.
            buffer = ctypes.create_string_buffer(1)
            while libc.read(release, buffer, 1) != 1:
                pass
            print("released")

        import ctypes
        libc = ctypes.CDLL(None)
        release, into = os.pipe()
        signal.signal(signal.SIGALRM, lambda signum, frame: os.write(into, b"x"))
        elsewhere(main)
        """,
        tmp_path,
    )
    assert out == "released\n"
