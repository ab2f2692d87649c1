"""Signals: Ctrl-C reaches the main goroutine wherever it is, handlers of the program's own run, and
the process ends as python's would."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

from conftest import Script

PRELUDE = """\
import os, signal, sys, time
import golibx
from golibx import Chan, WaitGroup, go, gosched, net, run, select, sleep

def ready():
    print("ready", flush=True)

"""

SLICE = 'config={"preempt": {"slice": "1ms"}}'


def program(body: str) -> str:
    return PRELUDE + textwrap.dedent(body)


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    if line != "ready\n":
        out, err = process.communicate()
        pytest.fail(f"no start: {line}{out}{err}")


def interrupted(script: Script, body: str, sig: int = signal.SIGINT) -> tuple[int, str, str]:
    """Sends the signal once the program says that it is ready."""
    with script.start(program(body)) as process:
        wait_until_ready(process)
        process.send_signal(sig)
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


# What main does when the signal comes. It says that it is ready itself, so that the signal finds no
# other on its thread.
PLACES = {
    "recv": "ready(); Chan().recv()",
    "send": "ready(); Chan().send(1)",
    "select": "ready(); select(Chan().on_recv())",
    "sleep": "ready(); sleep(1000)",
    "join": "g = go(sleep, 1000); ready(); g.join()",
    "result": "g = go(sleep, 1000); ready(); g.result()",
    "waitgroup": "g = WaitGroup(); g.add(); ready(); g.wait()",
    "accept": "listener = net.listen(('127.0.0.1', 0)); ready(); listener.accept()",
    "loop": "ready()\n    while True: pass",
    "gosched": "ready()\n    while True: gosched()",
    "time.sleep": "ready(); time.sleep(1000)",
    "os.read": "r, w = os.pipe(); ready(); os.read(r, 1)",
    "behind a hog": "go(hog); ready(); Chan().recv()",
    "behind a blocked one": "go(time.sleep, 1); ready(); Chan().recv()",
    "behind a blocked hog": "go(hog); go(time.sleep, 1); ready(); sleep(1000)",
}

HOG = """
def hog():
    while True:
        pass

"""


@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c(script: Script, place: str) -> None:
    # A timer keeps what is parked for ever from being a deadlock.
    code, out, err = interrupted(
        script,
        HOG
        + f"""
def main():
    go(sleep, 1000)
    try:
        {PLACES[place].replace("    while", "        while")}
    except KeyboardInterrupt:
        print("caught")
        raise
    finally:
        print("finally")

run(main, {SLICE})
""",
    )
    assert out == "caught\nfinally\n", err
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "in main" in err
    assert code == -signal.SIGINT


def test_a_signal_that_another_thread_gets(script: Script) -> None:
    # The kernel may choose any thread that does not block the signal. The goroutine runs on one
    # that is not the main thread, since main blocks that.
    result = script(
        program(
            """
            def strike():
                sleep(0.02)
                signal.pthread_kill(threading.get_ident(), signal.SIGINT)

            def main():
                go(strike)
                time.sleep(1000)

            import threading
            run(main)
            """
        )
    )
    assert result.stderr.endswith("KeyboardInterrupt\n")
    assert "time.sleep(1000)" in result.stderr
    assert result.returncode == -signal.SIGINT


def test_children_start_with_no_signal_blocked(script: Script) -> None:
    # sysmon blocks all signals, and starts threads on which goroutines start processes.
    result = script(
        program(
            """
            import subprocess

            def blocked():
                sleep(0.02)
                command = ["grep", "SigBlk", "/proc/self/status"]
                done.send(subprocess.run(command, capture_output=True, text=True).stdout)

            def main():
                go(blocked)
                time.sleep(0.5)
                print(done.recv())

            done = Chan(1)
            run(main)
            """
        )
    )
    assert (result.stdout, result.stderr) == ("SigBlk:\t0000000000000000\n\n", "")


def test_the_program_keeps_its_use_of_sigurg(script: Script) -> None:
    # golibx interrupts the main thread's call by it only where no other code has a use for it.
    code, out, err = interrupted(
        script,
        """
        def main():
            signal.signal(signal.SIGURG, lambda *_: print("urgent"))
            go(sleep, 1000)
            try:
                ready()
                time.sleep(1000)
            except KeyboardInterrupt:
                print("caught")

        run(main)
        assert signal.getsignal(signal.SIGURG) is not signal.SIG_DFL
        """,
    )
    assert (code, out, err) == (0, "caught\n", "")


@pytest.mark.parametrize("place", ["recv", "loop", "time.sleep"])
def test_a_ctrl_c_that_is_caught(script: Script, place: str) -> None:
    code, out, err = interrupted(
        script,
        f"""
def main():
    go(sleep, 1000)
    try:
        {PLACES[place].replace("    while", "        while")}
    except KeyboardInterrupt:
        print("caught")
    go(print, "goes on").join()
    return 5

print(run(main, {SLICE}))
""",
    )
    assert (code, out, err) == (0, "caught\ngoes on\n5\n", "")


def test_ctrl_c_cancels_the_others(script: Script) -> None:
    code, out, err = interrupted(
        script,
        """
def f():
    try:
        sleep(1000)
    except BaseException as exc:
        print(type(exc).__name__)
        raise

def main():
    go(f)
    go(ready)
    Chan().recv()

run(main)
""",
    )
    assert out == "Cancelled\n"
    assert code == -signal.SIGINT, err


def test_only_main_gets_it(script: Script) -> None:
    code, out, err = interrupted(
        script,
        """
caught = []

def hog():
    try:
        while not caught:
            pass
    except KeyboardInterrupt:
        print("not the hog")

def main():
    g = go(hog)
    try:
        ready()
        Chan().recv()
    except KeyboardInterrupt:
        caught.append(1)
    g.result()
    print("only main")

run(main, config={"preempt": {"slice": "1ms"}})
""",
    )
    assert (code, out) == (0, "only main\n"), err


def test_with_preemption_switched_off(script: Script) -> None:
    code, out, err = interrupted(
        script,
        """
def main():
    ready()
    while True:
        pass

run(main, config={"preempt": {"async": False}})
""",
    )
    assert code == -signal.SIGINT
    assert "KeyboardInterrupt" in err


def test_several_ctrl_c(script: Script) -> None:
    body = """
def main():
    n = 0
    go(sleep, 1000)
    while n < 3:
        try:
            go(ready)
            Chan().recv()
        except KeyboardInterrupt:
            n += 1
    print("three")

run(main)
"""
    with script.start(program(body)) as process:
        for _ in range(3):
            wait_until_ready(process)
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "three\n", "")


def test_ctrl_c_as_plain_python_after_the_run(script: Script) -> None:
    code, out, err = interrupted(
        script,
        """
run(lambda: None)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
ready()
# Python 3.14 and 3.15 do not look for signals after a call with keyword arguments of a C function,
# such as print()'s, that is made for the first time, and time.sleep() does not before it sleeps: a
# signal that came before that waits, with golibx or without, until it is over.
while True:
    time.sleep(0.01)
""",
    )
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_sigterm_ends_the_process(script: Script) -> None:
    code, _, err = interrupted(script, "run(lambda: (go(ready), sleep(1000)))", signal.SIGTERM)
    assert code == -signal.SIGTERM
    assert err == ""


# ---- handlers of the program's own ----

HANDLED = ["recv", "sleep", "loop", "time.sleep", "behind a hog", "behind a blocked one"]


@pytest.mark.parametrize("place", HANDLED)
def test_a_handler_runs_wherever_main_is(script: Script, place: str) -> None:
    code, out, err = interrupted(
        script,
        HOG
        + f"""
def handler(signum, frame):
    print("handler", signum == signal.SIGUSR1, flush=True)
    os._exit(7)

signal.signal(signal.SIGUSR1, handler)

def main():
    go(sleep, 1000)
    {PLACES[place]}

run(main, {SLICE})
""",
        signal.SIGUSR1,
    )
    assert (code, out) == (7, "handler True\n"), err


@pytest.mark.parametrize("place", ["recv", "sleep", "loop", "time.sleep"])
def test_a_handler_that_raises(script: Script, place: str) -> None:
    # Where main runs or waits, its exception is raised there.
    code, out, err = interrupted(
        script,
        f"""
class Mine(Exception):
    pass

def handler(signum, frame):
    raise Mine

signal.signal(signal.SIGUSR1, handler)

def main():
    go(sleep, 1000)
    try:
        {PLACES[place].replace("    while", "        while")}
    except Mine:
        print("Mine")

run(main, {SLICE})
""",
        signal.SIGUSR1,
    )
    assert (code, out) == (0, "Mine\n"), err


def test_a_handler_may_use_channels_and_spawn(script: Script) -> None:
    code, out, err = interrupted(
        script,
        """
ch = Chan(10)

def handler(signum, frame):
    ch.try_send("from the handler")
    go(lambda: ch.send("from its goroutine"))

signal.signal(signal.SIGUSR1, handler)

def main():
    go(sleep, 1000)
    go(ready)
    print(ch.recv())
    print(ch.recv())

run(main)
""",
        signal.SIGUSR1,
    )
    assert (code, out) == (0, "from the handler\nfrom its goroutine\n"), err


def test_a_sigint_handler_of_the_programs_own(script: Script) -> None:
    code, out, err = interrupted(
        script,
        """
ch = Chan(1)
signal.signal(signal.SIGINT, lambda *args: ch.try_send("mine"))

def main():
    go(sleep, 1000)
    go(ready)
    print(ch.recv())

run(main)
print(signal.getsignal(signal.SIGINT).__name__)
""",
    )
    assert (code, out) == (0, "mine\n<lambda>\n"), err


def test_a_handler_set_inside_the_run_stays(script: Script) -> None:
    out = script.passes(
        program(
            """
def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.kill(os.getpid(), signal.SIGINT)
    gosched()

run(main)
print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
"""
        )
    )
    assert out == "True\n"


def test_alarms(script: Script) -> None:
    out = script.passes(
        program(
            """
ticks = []
signal.signal(signal.SIGALRM, lambda *args: ticks.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)

def waits():
    while len(ticks) < 30:
        sleep(0.0005)

def computes():
    while len(ticks) < 60:
        pass

def blocks():
    while len(ticks) < 90:
        time.sleep(0.0005)

def main():
    for f in (waits, computes, blocks):
        go(f)
    for f in (waits, computes, blocks):
        go(f).join()

run(main, config={"preempt": {"slice": "1ms"}})
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(ticks) >= 90)
"""
        )
    )
    assert out == "True\n"


def test_a_storm_of_signals(script: Script) -> None:
    body = """
n = 0

def handler(signum, frame):
    global n
    n += 1

signal.signal(signal.SIGUSR1, handler)

def ping(a, b):
    for v in a:
        b.send(v)

def main():
    a, b = Chan(), Chan()
    go(ping, a, b)
    ready()
    v = 0
    while n < 200:
        a.send(v)
        assert b.recv() == v
        v += 1
        if v % 50 == 0:
            time.sleep(0.0001)
        if v % 70 == 0:
            sleep(0.0001)
    print("done", flush=True)
    os._exit(0)  # Python's end takes the handler away

run(main)
"""
    with script.start(program(body)) as process:
        wait_until_ready(process)
        while process.poll() is None:
            process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n"), err


def test_run_outside_the_main_thread_leaves_signals_alone(script: Script) -> None:
    code, out, err = interrupted(
        script,
        """
import threading

stop = Chan()

def main():
    go(ready)
    select(stop.on_recv(), timeout=1000)
    print("told to stop")
    ended.set()

ended = threading.Event()
thread = threading.Thread(target=run, args=(main,))
try:
    thread.start()
    while not ended.wait(0.05):  # a lock without a time-out can miss a signal that comes early
        pass
except KeyboardInterrupt:
    print("main thread")
    stop.close()
# Not join(): in CPython before 3.13 it returns at once after it was interrupted.
ended.wait()
""",
    )
    assert (code, out) == (0, "main thread\ntold to stop\n"), err


@pytest.mark.skipif(sys.platform == "win32", reason="no job control")
def test_stop_and_continue(script: Script) -> None:
    body = """
def main():
    ch = Chan()
    def ticks():
        while True:
            sleep(0.001)
            ch.try_send(1)
    go(ticks)
    ready()
    sys.stdin.readline()
    for _ in range(5):
        ch.recv()
    print("goes on")

run(main)
"""
    with script.start(program(body)) as process:
        wait_until_ready(process)
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate("\n", timeout=60)
    assert (process.returncode, out) == (0, "goes on\n"), err


MASK = """
import os, signal, threading, time
from golibx import Chan, go, gosched, run, sleep

USR1, kill = signal.SIGUSR1, lambda: os.kill(os.getpid(), signal.SIGUSR1)
handled = []
signal.signal(USR1, lambda *_: handled.append(threading.get_native_id()))

def is_blocked():
    return USR1 in signal.pthread_sigmask(signal.SIG_BLOCK, [])

def blocks():
    while not over:
        time.sleep(0.0003)

def computes():
    while not over:
        sum(range(1000))

def main():
    threads = set()
    def seen():
        threads.add(threading.get_native_id())
    for f in (blocks, blocks, blocks, computes): go(f)
    i = 0
    while i < 12 or len(threads) < 2:
        i += 1
        assert signal.pthread_sigmask(signal.SIG_BLOCK, [USR1]) == set(), i
        kill()
        # No thread has let it through.
        assert USR1 in signal.sigpending() and not handled
        for _ in range(3):
            time.sleep(0.0003)
            seen()
            assert is_blocked()
            gosched()
        assert go(is_blocked).result()
        assert USR1 in signal.sigpending() and not handled
        if i % 2:
            # In another goroutine, which lets it through for all.
            go(signal.pthread_sigmask, signal.SIG_UNBLOCK, [USR1]).result()
            while not handled: sleep(0.0001)
            assert not is_blocked()
        else:
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            assert handled
        handled.clear()
    # A goroutine that waits for it, beside the others.
    signal.pthread_sigmask(signal.SIG_BLOCK, [USR1])
    for _ in range(20):
        g = go(signal.sigwait, [USR1])
        gosched()
        kill()
        assert g.result() == USR1
    # Threads that are started inherit it, and change their own only.
    found = []
    def thread():
        found.append(is_blocked())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [USR1])
    t = threading.Thread(target=thread)
    t.start()
    t.join()
    assert found == [True] and is_blocked()
    # With everything blocked the runtime goes on.
    everything = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for _ in range(5): assert go(is_blocked).result(); time.sleep(0.0003)
    signal.pthread_sigmask(signal.SIG_SETMASK, everything)
    over.append(1)
    assert not handled

over = []
run(main)
print(is_blocked())
"""


def test_a_mask_is_the_programs_whatever_thread_a_goroutine_is_on(script: Script) -> None:
    out = script.passes(MASK)
    assert out == "True\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a mask is the thread's")
def test_a_thread_that_the_kernel_keeps_lets_nothing_through_when_it_comes_back(
    script: Script,
) -> None:
    # In posix_spawn(), which waits for the child: that opens two pipes, and waits for us there.
    out = script.passes("""
import ctypes, os, signal
from golibx import go, run

USR1, libc = signal.SIGUSR1, ctypes.CDLL(None, use_errno=True)
handled = []
signal.signal(USR1, lambda *_: handled.append(1))
os.mkfifo("begun")
os.mkfifo("end")

def spawns():
    actions, pid = ctypes.create_string_buffer(1024), ctypes.c_int()
    libc.posix_spawn_file_actions_init(actions)
    libc.posix_spawn_file_actions_addopen(actions, 7, b"begun", os.O_WRONLY, 0)
    libc.posix_spawn_file_actions_addopen(actions, 8, b"end", os.O_RDONLY, 0)
    argv = (ctypes.c_char_p * 2)(b"true", None)
    assert libc.posix_spawnp(ctypes.byref(pid), b"true", actions, None, argv, None) == 0
    return os.waitpid(pid.value, 0)[1]

def main():
    spawner = go(spawns)
    os.close(os.open("begun", os.O_RDONLY))
    signal.pthread_sigmask(signal.SIG_BLOCK, [USR1])
    os.kill(os.getpid(), USR1)
    assert USR1 in signal.sigpending()
    os.close(os.open("end", os.O_WRONLY))
    assert spawner.result() == 0
    print(USR1 in signal.sigpending(), handled)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [USR1])
    print(handled)

run(main)
""")
    assert out == "True []\n[1]\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a mask is the thread's")
def test_a_call_that_puts_its_own_mask_back_leaves_the_programs(script: Script) -> None:
    # As system() does, at its end: it blocks SIGCHLD meanwhile.
    out = script.passes("""
import os, signal
from golibx import go, run

USR1 = signal.SIGUSR1
os.mkfifo("begun")
os.mkfifo("end")

def calls():
    assert os.system("echo > begun; read line < end") == 0
    return USR1 in signal.pthread_sigmask(signal.SIG_BLOCK, [])

def main():
    for how in signal.SIG_BLOCK, signal.SIG_UNBLOCK:
        caller = go(calls)
        with open("begun") as begun:
            begun.read()
        signal.pthread_sigmask(how, [USR1])
        with open("end", "w") as end:
            end.write("line\\n")
        print(caller.result(), USR1 in signal.pthread_sigmask(signal.SIG_BLOCK, []))

run(main)
""")
    assert out == "True True\nFalse False\n"
