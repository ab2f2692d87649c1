"""Dumps asked for from outside: SIGQUIT, dump_signal, `golibx dump`; leaks at the end of a run.

Each case is a real process. Its interpreter works or is stuck in C with its lock held.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Script
from golibx import Chan, _core, dump, go, gosched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they are Linux's")

SLEEPS = 115 if os.uname().machine == "aarch64" else 230  # the number of clock_nanosleep

PROGRAM = """
import ctypes, signal, sys, golibx
from golibx import Chan, Deadlock, go, gosched, sleep

def worker(ch):
    ch.recv()

def middle(ch):
    worker(ch)

def hold_the_lock():
    # A lock taken twice: unlike a sleep it is not ended by a signal.
    libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    print("ready", hex(ctypes.addressof(mutex)), flush=True)
    libc.pthread_mutex_lock(mutex)  # again

def wait():
    print("ready", flush=True)
    Chan().recv(60)

def deadlock():
    # Not the main one: the run goes on, because a goroutine blocks in C.
    print("ready", flush=True)
    import time
    time.sleep(60)

def main():
    ch = Chan()
    for _ in range(3):
        go(middle, ch)
    a, b = Chan(), Chan()
    go(lambda: (a.recv(), b.send(1))).name = "one"
    go(lambda: (b.recv(), a.send(1))).name = "two"
    gosched()
    globals()[sys.argv[1]]()

golibx.run(main, config=CONFIG)
"""


def program(**config: object) -> str:
    return PROGRAM.replace("CONFIG", repr(config))


def line_of(text: str) -> int:
    return PROGRAM.splitlines().index(text) + 1


def until_ready(process: subprocess.Popen[str]) -> None:
    """Until the program says so, and a thread of it is in the call that it names, if any.

    A mutex that is waited for names a call, and so does the call's number.
    """
    assert process.stdout is not None
    ready, *call = process.stdout.readline().split()
    assert ready == "ready"
    if call:
        until_in_call(process, call[0])


def until_in_call(process: subprocess.Popen[str], call: str) -> None:
    tasks = Path(f"/proc/{process.pid}/task")
    while not any(call in arguments_of_call(task) for task in tasks.iterdir()):
        assert process.poll() is None


def arguments_of_call(task: Path) -> list[str]:
    """Number and arguments of the system call that a thread is in, as /proc shows them."""
    try:
        return (task / "syscall").read_text(encoding="ascii").split()
    except OSError:  # it has ended
        return []


def golibx_dump(
    *arguments: object, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "golibx", "dump", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "NO_COLOR": "1", **(env or {})},
    )


def check_stacks(text: str, path: Path) -> None:
    """What is the same with the interpreter and without it."""
    assert f"    worker at {path}:{line_of('    ch.recv()')}\n" in text
    assert f"    middle at {path}:{line_of('    worker(ch)')}\n" in text
    assert f"    created by goroutine 1 at {path}:{line_of('        go(middle, ch)')}\n" in text
    assert text.startswith("goroutine 1 [") or "\ngoroutine 1 [" in text


def check_stuck(text: str, path: Path) -> None:
    assert text.startswith("golibx: the interpreter has not answered for 1 s")
    check_stacks(text, path)
    # It has been taken its P, if that was tried while it printed.
    assert re.search(
        r"^goroutine 1 \[(running|syscall), has the interpreter\]:$", text, re.MULTILINE
    )
    assert text.count("has the interpreter") == 1
    sleeps = line_of("    libc.pthread_mutex_lock(mutex)  # again")
    assert f"    hold_the_lock at {path}:{sleeps}\n    main at {path}:" in text
    assert re.search(r"^goroutine 2 \[chan receive\]:$", text, re.MULTILINE)
    assert text.count("    waits on <golibx.Chan 0x") == 5
    numbers = [int(n) for n in re.findall(r"^goroutine (\d+) \[", text, re.MULTILINE)]
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert text.count("\n\n") == 1 + len(numbers)


# ---- golibx dump ----


@pytest.mark.parametrize("how", ["wait", "deadlock"])
def test_of_a_process_that_works(script: Script, how: str) -> None:
    with script.start(program(), how) as process:
        until_ready(process)
        for _ in range(2):
            result = golibx_dump(process.pid)
            assert result.returncode == 0, result.stderr
            check_stacks(result.stdout, script.file(program()))
            assert "3 goroutines [chan receive] middle: 2, 3, 4\n" in result.stdout
            assert "[chan receive] one:\n" in result.stdout
        assert process.poll() is None


def test_of_a_process_whose_interpreter_is_stuck(script: Script) -> None:
    with script.start(program(), "hold_the_lock", limit=60) as process:
        until_ready(process)
        for _ in range(2):  # the second time another request waits for the interpreter already
            result = golibx_dump(process.pid)
            assert result.returncode == 0, result.stderr
            check_stuck(result.stdout, script.file(program()))
        assert process.poll() is None


def test_of_a_process_that_sleeps_with_the_lock_held(script: Script) -> None:
    source = (
        "import ctypes, golibx\n"
        f"def main():\n    print('ready', {SLEEPS}, flush=True)\n    ctypes.PyDLL(None).sleep(60)\n"
        "golibx.run(main)\n"
    )
    with script.start(source, limit=60) as process:
        until_ready(process)
        text = golibx_dump(process.pid).stdout
        assert re.search(
            r"^goroutine 1 \[(running|syscall), has the interpreter\]:$", text, re.MULTILINE
        )
        assert f"    main at {script.file(source)}:4\n" in text


def test_native_goroutines_of_a_stuck_process(script: Script) -> None:
    source = (
        "import ctypes, os\nfrom golibx import go, native, run, sleep, _core\n"
        "def main():\n"
        "    r, w = os.pipe()\n"
        "    go(native.call, ctypes.CDLL(None).read, r, ctypes.create_string_buffer(1), 1)\n"
        "    while not _core.native_goroutines(): sleep(0.001)\n"
        f"    print('ready', {SLEEPS}, flush=True)\n"
        "    ctypes.PyDLL(None).sleep(60)\n"
        "run(main)\n"
    )
    with script.start(source, limit=60) as process:
        until_ready(process)
        text = golibx_dump(process.pid).stdout
        assert re.search(r"^native goroutine \d+ \[\w+\]:\n    \w*read$", text, re.MULTILINE), text


THREADS = """
import ctypes, golibx, sys, threading
from golibx import Chan, WaitGroup, select, sleep, stats

def receives(ch):
    ch.recv()

def selects(*channels):
    select(*(ch.on_recv() for ch in channels))

def main():
    ch, other, group = Chan(), Chan(), WaitGroup()
    group.add()
    for target, arguments in ((receives, [ch]), (selects, [ch, other]), (group.wait, [])):
        threading.Thread(target=target, args=arguments, name=str(target), daemon=True).start()
    while stats()["threads_waiting"] < 3:
        sleep(0.001)
    libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    numbers = (t.native_id for t in threading.enumerate() if t.daemon)
    print(hex(ctypes.addressof(mutex)), *numbers, flush=True)
    if sys.argv[1] == "works":
        sleep(60)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # for ever, with the interpreter's lock

golibx.run(main)
"""


@pytest.mark.parametrize("how", ["works", "is stuck"])
@pytest.mark.parametrize("asked", ["golibx dump", "SIGQUIT"])
def test_threads_that_wait(script: Script, how: str, asked: str) -> None:
    stuck = how == "is stuck"
    with script.start(THREADS, how, limit=60) as process:
        assert process.stdout is not None
        mutex, *numbers = process.stdout.readline().split()
        if stuck:
            until_in_call(process, mutex)
        if asked == "SIGQUIT":
            process.send_signal(signal.SIGQUIT)
            text = process.communicate(timeout=40)[1].removeprefix("SIGQUIT: quit\n\n")
        else:
            text = golibx_dump(process.pid).stdout
    assert text.startswith("golibx: the interpreter has not answered") == stuck
    lines = THREADS.splitlines()
    path = script.file(THREADS)
    first, second, third = (
        re.search(rf"^thread {number} \[.*?\n\n", text + "\n", re.MULTILINE | re.DOTALL)
        for number in numbers
    )
    assert first is not None, text
    assert second is not None, text
    assert third is not None, text
    reasons = ["chan receive", "select", "waitgroup wait"]
    for found, reason, name in zip(
        (first, second, third), reasons, ("receives", "selects", "WaitGroup"), strict=True
    ):
        headline = found[0].splitlines()[0]
        assert f" [{reason}]" in headline
        assert (name in headline) != stuck  # names are not read without the interpreter
    assert f"\n    receives at {path}:{lines.index('    ch.recv()') + 1}\n" in first[0]
    assert "Thread.run at " in first[0]
    assert "\n    selects at " in second[0]
    if stuck:
        assert "\n    waits on <golibx.Chan 0x" in first[0]
        assert "\n    waits on 2 cases\n" in second[0]
        assert "\n    waits on <golibx.WaitGroup 0x" in third[0]
    else:
        assert f", as thread {numbers[1]}\n" in first[0]
        assert f", as thread {numbers[0]}\n" in second[0]
        assert "\n    waits on <WaitGroup 0x" in third[0]
    assert text.index("goroutine 1 [") < text.index("\nthread ")


def test_the_next_run_of_a_process_answers_too(script: Script) -> None:
    source = (
        "import golibx\n"
        "for _ in range(3): golibx.run(lambda: None)\n"
        "def main():\n    print('ready', flush=True)\n    golibx.sleep(60)\n"
        "golibx.run(main)\n"
    )
    with script.start(source) as process:
        until_ready(process)
        assert "goroutine 1 [sleep]" in golibx_dump(process.pid).stdout


@pytest.mark.goroutine
def test_a_process_may_ask_for_its_own() -> None:
    ch: Chan[int] = Chan()
    go(ch.recv)
    gosched()
    # The interpreter answers while this goroutine blocks in the socket's calls.
    assert f"waits on {ch!r}" in dump.request(os.getpid())
    ch.send(1)


def test_a_lock_that_an_answer_holds_is_no_deadlock(script: Script) -> None:
    """As the import system's, while the first dump imports what it needs."""
    script.passes("""
import os, subprocess, sys, threading, time
import golibx, golibx.dump
lock = threading.RLock()
held = threading.Event()

def report(*_):
    with lock:
        held.set()
        # Longer than it takes to look for a deadlock again.
        time.sleep(0.4)
    return "an answer"

golibx.dump.report = report

def main():
    command = [sys.executable, "-m", "golibx", "dump", str(os.getpid())]
    asks = subprocess.Popen(command, stdout=subprocess.PIPE)
    while not held.is_set():
        golibx.sleep(0.001)
    with lock:
        pass
    assert asks.communicate()[0].strip() == b"an answer"

golibx.run(main)
""")


def test_there_is_no_such_process(script: Script) -> None:
    with script.start("pass") as process:
        process.wait()
    result = golibx_dump(process.pid)
    assert result.returncode == 1
    assert f"Error: there is no process {process.pid}: `pgrep -f golibx` lists" in result.stderr


def test_a_process_without_golibx(script: Script) -> None:
    with script.start("print('ready', flush=True); input()") as process:
        until_ready(process)
        result = golibx_dump(process.pid)
        assert result.returncode == 1
        assert f"process {process.pid} is in no golibx run" in result.stderr
        assert process.poll() is None


def test_after_its_run(script: Script) -> None:
    source = "import golibx\ngolibx.run(lambda: None)\nprint('ready', flush=True)\ninput()\n"
    with script.start(source) as process:
        until_ready(process)
        assert f"process {process.pid} is in no golibx run" in golibx_dump(process.pid).stderr


def test_a_stopped_process_and_a_timeout(script: Script) -> None:
    with script.start(program(), "wait", limit=60) as process:
        until_ready(process)
        process.send_signal(signal.SIGSTOP)
        result = golibx_dump(process.pid, "--timeout", "0.3")
        assert result.returncode == 1
        assert f"`kill -CONT {process.pid}`" in result.stderr
        process.send_signal(signal.SIGCONT)
        assert golibx_dump(process.pid).returncode == 0


@pytest.mark.parametrize("pid", ["0", "-1", "x", "99999999999"])
def test_what_is_no_pid(pid: str) -> None:
    result = golibx_dump("--", pid)
    assert result.returncode in (1, 2)
    assert pid in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_other_users_are_refused(script: Script) -> None:
    ask = (
        "import os, socket, sys\nos.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\ns.connect('\\0golibx-' + sys.argv[1])\n"
        "print(s.recv(1000).decode())\n"
    )
    with script.start(program(), "wait") as process:
        until_ready(process)
        out = subprocess.run(
            [sys.executable, "-c", ask, str(process.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.startswith("-")


def test_who_listens_in_place_of_a_process_is_not_believed() -> None:
    import socket

    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process,
        socket.socket(socket.AF_UNIX) as impostor,
    ):
        impostor.bind(f"\0golibx-{process.pid}")
        impostor.listen()
        result = golibx_dump(process.pid)
        process.kill()
    assert (result.returncode, result.stdout) == (1, "")
    assert f"process {os.getpid()} of user {os.geteuid()} listens" in result.stderr


def test_nothing_that_a_terminal_would_obey(script: Script) -> None:
    text = (
        "import golibx\n"
        "def main():\n"
        "    golibx.go(golibx.sleep, 60).name = '\\x1b]0;owned\\x07\\r\\x9b31m\\u202eok'\n"
        "    golibx.go(golibx.sleep, 60).name = 'a:\\n\\ngoroutine 99 [running] main'\n"
        "    print('ready', flush=True)\n    golibx.sleep(60)\n"
        "golibx.run(main)\n"
    )
    with script.start(text) as process:
        until_ready(process)
        result = golibx_dump(process.pid)
    assert result.returncode == 0
    assert r"\x1b]0;owned\x07\r\x9b31m\u202eok:" in result.stdout
    assert r"[sleep] a:\n\ngoroutine 99 [running] main:" in result.stdout  # and no goroutine more
    assert all(line.isprintable() for line in result.stdout.split("\n"))


NO_DESCRIPTORS = """
import os, resource, time, golibx
def main():
    import golibx.dump  # before there is no way to read files any more
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    used = []
    try:
        while True: used.append(os.dup(0))
    except OSError:
        print("ready", flush=True)
    for line in iter(input, "end"):
        began = time.process_time()
        golibx.sleep(0.5)
        print(time.process_time() - began, flush=True)
golibx.run(main)
"""


def test_a_process_without_free_descriptors(script: Script) -> None:
    """It answers one at a time; a client that has to wait keeps no thread of it busy."""
    import socket

    with script.start(NO_DESCRIPTORS) as process:
        until_ready(process)
        for _ in range(2):
            result = golibx_dump(process.pid)
            assert result.returncode == 0, result.stderr
            assert "goroutine 1 [" in result.stdout
        assert process.stdin is not None
        assert process.stdout is not None
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            for each in (first, second):
                each.connect(f"\0golibx-{process.pid}")
            process.stdin.write("\n")
            process.stdin.flush()
            assert float(process.stdout.readline()) < 0.3
        process.kill()


def test_a_reader_that_goes_away_does_no_harm(script: Script) -> None:
    import socket

    with script.start(program(), "wait") as process:
        until_ready(process)
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(f"\0golibx-{process.pid}")
        assert golibx_dump(process.pid).returncode == 0


def test_the_child_of_a_fork_is_not_its_parent(script: Script) -> None:
    source = (
        "import golibx, os, sys, signal\n"
        "def main():\n"
        "    if (pid := os.fork()) == 0:\n"
        "        default = signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL\n"
        "        os.write(1, b'%s\\n' % repr(default).encode())\n"  # in one piece
        "        sys.stdin.read()\n"
        "        os._exit(0)\n"
        "    os.write(1, b'%d\\n' % pid)\n"
        "    golibx.sleep(60)\n"
        "golibx.run(main)\n"
    )
    with script.start(source, limit=60) as process:
        assert process.stdout is not None
        lines = {process.stdout.readline().strip() for _ in range(2)}
        child = int(next(line for line in lines if line != "True"))
        assert f"process {child} is in no golibx run" in golibx_dump(child).stderr
        assert golibx_dump(process.pid).returncode == 0
        os.kill(child, signal.SIGQUIT)  # does what it does by default
        assert golibx_dump(process.pid).returncode == 0


def test_help() -> None:
    result = golibx_dump("--help")
    assert result.returncode == 0
    assert "golibx dump 1234" in result.stdout
    assert "--timeout SECONDS" in result.stdout


def test_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(dump.DumpError, match="Linux only"):
        dump.request(1)


# ---- signals ----


@pytest.mark.parametrize("how", ["wait", "deadlock", "hold_the_lock"])
def test_sigquit_dumps_and_ends_the_process(script: Script, how: str) -> None:
    with script.start(program(), how, limit=60) as process:
        until_ready(process)
        process.send_signal(signal.SIGQUIT)
        _, err = process.communicate(timeout=40)
    assert process.returncode == 2
    assert err.startswith("SIGQUIT: quit\n\n")
    text = err.removeprefix("SIGQUIT: quit\n\n")
    if how == "hold_the_lock":
        check_stuck(text, script.file(program()))
    else:
        check_stacks(text, script.file(program()))


def test_a_handler_of_the_programs_own_is_left_alone(script: Script) -> None:
    source = (
        "import golibx, signal, os\n"
        "signal.signal(signal.SIGQUIT, lambda *_: print('mine', flush=True))\n"
        "def main():\n    os.kill(os.getpid(), signal.SIGQUIT)\n    golibx.sleep(0.05)\n"
        "golibx.run(main)\n"
    )
    result = script(source)
    assert (result.returncode, result.stdout, result.stderr) == (0, "mine\n", "")


def test_a_handler_that_the_program_installs_later_wins_and_stays(script: Script) -> None:
    source = (
        "import golibx, signal, os\n"
        "def main():\n"
        "    signal.signal(signal.SIGQUIT, lambda *_: print('mine', flush=True))\n"
        "    os.kill(os.getpid(), signal.SIGQUIT)\n    golibx.sleep(0.05)\n"
        "golibx.run(main)\n"
        "os.kill(os.getpid(), signal.SIGQUIT)\n"
    )
    assert script.passes(source) == "mine\nmine\n"


def test_after_the_run_sigquit_is_as_before(script: Script) -> None:
    source = (
        "import golibx, signal, os\n"
        "golibx.run(lambda: None)\nos.kill(os.getpid(), signal.SIGQUIT)\n"
    )
    assert script(source).returncode == -signal.SIGQUIT


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGHUP", "SIGVTALRM"])
def test_a_signal_of_ones_choice_dumps_and_goes_on(script: Script, name: str) -> None:
    # Under nohup it would be ignored.
    source = f"import signal\nsignal.signal(signal.{name}, signal.SIG_DFL)\n"
    source += program(debug={"dump_signal": name})
    with script.start(source, "wait", limit=60) as process:
        until_ready(process)
        assert process.stderr is not None
        for _ in range(2):
            process.send_signal(getattr(signal, name))
            while "] two:" not in process.stderr.readline():
                pass
        assert process.poll() is None


def test_without_the_setting_the_signal_is_the_programs(script: Script) -> None:
    with script.start(program(), "wait") as process:
        until_ready(process)
        process.send_signal(signal.SIGUSR1)
        process.communicate(timeout=40)
    assert process.returncode == -signal.SIGUSR1


def test_a_dump_signal_that_the_program_handles_is_said(script: Script) -> None:
    source = (
        "import golibx, signal\nsignal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "golibx.run(lambda: None, config={'debug': {'dump_signal': 'SIGUSR1'}})\n"
    )
    result = script(source)
    assert result.returncode == 0
    assert result.stderr == (
        "golibx: debug.dump_signal is not used: the program has a handler for signal 10 already\n"
    )


# ---- [debug] leaks ----


def test_those_left_at_the_end_are_said(script: Script) -> None:
    source = (
        "import golibx\n"
        "def worker(ch):\n    ch.recv()\n"
        "def main():\n"
        "    for _ in range(2): golibx.go(worker, golibx.Chan())\n"
        "    golibx.go(lambda: None).join()\n"
        "    golibx.gosched()\n"
        "golibx.run(main, config={'debug': {'leaks': True}})\n"
    )
    path = script.file(source)
    result = script(source)
    assert result.returncode == 0
    lines = result.stderr.splitlines()
    assert lines[0] == "golibx: 2 goroutines still waited when main returned:"
    assert lines[2] == "2 goroutines [chan receive] worker: 2, 3"
    assert lines[3] == f"    worker at {path}:3"
    assert lines[4].startswith("    waits on <Chan 0x")
    assert f"    created by goroutine 1 at {path}:5" in lines


def test_nothing_is_said_of_a_clean_end(script: Script) -> None:
    source = (
        "import golibx\n"
        "golibx.run(lambda: golibx.go(golibx.gosched).join(), config={'debug': {'leaks': True}})\n"
        "golibx.run(lambda: (golibx.go(golibx.sleep, 9), golibx.gosched()))\n"
    )
    result = script(source)
    assert (result.returncode, result.stderr) == (0, "")


# ---- faulthandler ----


def test_faulthandler_in_a_goroutine(script: Script) -> None:
    source = (
        "import faulthandler, golibx\n"
        "def inner():\n    faulthandler.dump_traceback(all_threads=False)\n"
        "golibx.run(lambda: golibx.go(inner).join())\n"
    )
    path = script.file(source)
    result = script(source)
    assert result.returncode == 0
    assert f'File "{path}", line 3 in inner' in result.stderr


def test_faulthandler_sees_all_goroutines(script: Script) -> None:
    source = (
        "import faulthandler, golibx\n"
        "def waits(ch):\n    ch.recv()\n"
        "def main():\n"
        "    ch = golibx.Chan()\n    golibx.go(waits, ch)\n    golibx.gosched()\n"
        "    faulthandler.dump_traceback()\n    ch.send(1)\n"
        "golibx.run(main)\n"
    )
    path = script.file(source)
    result = script(source)
    assert f'File "{path}", line 3 in waits' in result.stderr
    assert f'File "{path}", line 8 in main' in result.stderr


def test_faulthandler_later(script: Script) -> None:
    source = (
        "import faulthandler, golibx\n"
        "def stuck():\n    while True:\n        pass\n"
        "def main():\n"
        "    faulthandler.dump_traceback_later(0.1, exit=True)\n"
        "    golibx.go(stuck)\n    golibx.Chan().recv()\n"
        "golibx.run(main)\n"
    )
    path = script.file(source)
    result = script(source)
    assert result.returncode == 1
    assert result.stderr.startswith("Timeout (0:00:00.100000)!\n")
    assert re.search(rf'File "{re.escape(str(path))}", line [34] in stuck', result.stderr)
    assert f'File "{path}", line 8 in main' in result.stderr


# ---- without a run ----


def test_there_are_no_native_goroutines() -> None:
    assert _core.native_goroutines() == []
