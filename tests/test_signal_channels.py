"""golibx.signal: signals on channels, as Go's os/signal."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import golibx.signal
from conftest import Script

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the Python lane needs Linux"
)

GRACEFUL = Path(__file__).parent.parent / "examples" / "graceful.py"

PRELUDE = """\
import os, signal, subprocess, sys, threading, time
import golibx, golibx.signal
from golibx import Chan, Deadlock, context, go, run, select, sleep

def send(number):
    os.kill(os.getpid(), number)

def main():
"""

CASES = {
    "one": """
    ch = Chan(1)
    golibx.signal.notify(ch, signal.SIGTERM)
    send(signal.SIGTERM)
    return ch.recv() is signal.SIGTERM
""",
    "in any goroutine, with the main thread blocked": """
    ch = Chan(1)
    def receive():
        golibx.signal.notify(ch, signal.SIGTERM)
        go(time.sleep, 0.3)
        send(signal.SIGTERM)
        return ch.recv()
    g = go(receive)
    time.sleep(0.1)
    return g.result() is signal.SIGTERM
""",
    "several channels": """
    a, b = Chan(1), Chan(1)
    golibx.signal.notify(a, signal.SIGUSR1)
    golibx.signal.notify(b, signal.SIGUSR1, signal.SIGUSR2)
    send(signal.SIGUSR1)
    first = a.recv(), b.recv()
    send(signal.SIGUSR2)
    return first == (signal.SIGUSR1,) * 2 and b.recv() == signal.SIGUSR2 and not len(a)
""",
    "a full channel misses some": """
    ch, other = Chan(1), Chan(4)
    golibx.signal.notify(ch, signal.SIGUSR1)
    golibx.signal.notify(other, signal.SIGUSR1)
    for _ in range(3):
        send(signal.SIGUSR1)
        other.recv()
    return len(ch) == 1
""",
    "no KeyboardInterrupt, and one afterwards": """
    ch = Chan(1)
    golibx.signal.notify(ch, signal.SIGINT)
    send(signal.SIGINT)
    ch.recv()
    golibx.signal.stop(ch)
    try:
        send(signal.SIGINT)
        sleep(10)
    except KeyboardInterrupt:
        return True
""",
    "the program's handler is back after stop": """
    seen = []
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    ch = Chan(1)
    golibx.signal.notify(ch, signal.SIGUSR1)
    send(signal.SIGUSR1)
    ch.recv()
    golibx.signal.reset(signal.SIGUSR1)
    send(signal.SIGUSR1)
    while not seen:
        sleep(0.001)
    return len(seen) == 1 and not len(ch)
""",
    "a handler set afterwards takes its place": """
    seen, ch = [], Chan(1)
    golibx.signal.notify(ch, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    send(signal.SIGUSR1)
    while not seen:
        sleep(0.001)
    golibx.signal.stop(ch)
    send(signal.SIGUSR1)
    while len(seen) < 2:
        sleep(0.001)
    return not len(ch)
""",
    "ignored": """
    golibx.signal.ignore(signal.SIGTERM, signal.SIGINT)
    send(signal.SIGTERM)
    send(signal.SIGINT)
    ch = Chan(1)
    golibx.signal.notify(ch, signal.SIGTERM)
    send(signal.SIGTERM)
    return ch.recv() is signal.SIGTERM
""",
    "all of them": """
    ch = Chan(8)
    golibx.signal.notify(ch)
    for number in (signal.SIGHUP, signal.SIGWINCH, signal.SIGUSR2):
        send(number)
    seen = {ch.recv(), ch.recv(), ch.recv()}
    return seen == {signal.SIGHUP, signal.SIGWINCH, signal.SIGUSR2}
""",
    "a closed channel": """
    ch, other = Chan(1), Chan(1)
    golibx.signal.notify(ch, signal.SIGUSR1)
    golibx.signal.notify(other, signal.SIGUSR1)
    ch.close()
    send(signal.SIGUSR1)
    return other.recv() is signal.SIGUSR1
""",
    "a context": """
    ctx, stop = golibx.signal.notify_context(context.background(), signal.SIGTERM)
    send(signal.SIGTERM)
    ctx.done().recv_ok()
    stop()
    return ctx.err() is not None
""",
    "a context that is stopped": """
    ctx, stop = golibx.signal.notify_context(context.background(), signal.SIGUSR1)
    stop()
    return ctx.err() is not None and signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
""",
    "a deadlock without it": """
    ch = Chan(1)
    golibx.signal.notify(ch, signal.SIGTERM)
    golibx.signal.stop(ch)
    try:
        ch.recv()
    except Deadlock:
        return True
""",
    "waiting for it is none": """
    ch = Chan(1)
    golibx.signal.notify(ch, signal.SIGTERM)
    subprocess.Popen(["sh", "-c", "sleep 0.3; kill -TERM $PPID"])
    return ch.recv() is signal.SIGTERM
""",
    "what is refused": """
    refused = []
    for numbers in ([signal.SIGKILL], [signal.SIGSEGV], [0], [1000]):
        try:
            golibx.signal.notify(Chan(1), *numbers)
        except ValueError:
            refused.append(1)
    try:
        golibx.signal.notify("no channel", signal.SIGTERM)
    except TypeError:
        refused.append(1)
    return len(refused) == 5
""",
}


@pytest.mark.parametrize("case", CASES)
def test_notify(script: Script, case: str) -> None:
    assert script.passes(PRELUDE + CASES[case] + "\nprint(run(main))\n") == "True\n"


def test_the_end_of_a_run_puts_everything_back(script: Script) -> None:
    result = script(
        PRELUDE
        + """
    golibx.signal.notify(Chan(1), signal.SIGTERM, signal.SIGINT)
    golibx.signal.ignore(signal.SIGHUP)

for _ in range(3):
    run(main)
try:
    send(signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("KeyboardInterrupt", flush=True)
send(signal.SIGTERM)
"""
    )
    assert (result.returncode, result.stdout) == (-signal.SIGTERM, "KeyboardInterrupt\n")


def test_outside_a_run() -> None:
    with pytest.raises(RuntimeError, match="while a run goes on"):
        golibx.signal.notify(golibx.Chan(1), signal.SIGTERM)


def test_every_name_is_on_its_page() -> None:
    text = (GRACEFUL.parent.parent / "docs" / "signals.md").read_text(encoding="utf-8")
    for name in golibx.signal.__all__:
        assert f"`{name}(" in text, name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_ends_well(script: Script, number: int) -> None:
    import socket

    with script.start(GRACEFUL, "0") as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"before")
            assert client.recv(10) == b"before"
            server.send_signal(number)
            assert server.stdout.readline() == "ending\n"
            client.sendall(b"after")
            assert client.recv(10) == b"after"
        try:
            assert server.wait(timeout=30) == 0
        except subprocess.TimeoutExpired:
            pytest.fail("it did not end")


def test_goroutines_notify_and_stop_at_a_time(script: Script) -> None:
    """No signal goes astray, and none that is watched is forgotten."""
    program = """
import gc, os, random, signal, socket
import golibx
from golibx import Chan, go, gosched
from golibx.signal import notify, stop

pair = socket.socketpair

def give_way():
    for _ in range(random.randrange(4)):
        gosched()

def slow_pair():
    give_way()
    return pair()

class Core:
    def __getattr__(self, name):
        if golibx._core.current() is not None:
            give_way()
        return getattr(golibx._core, name)

def main():
    socket.socketpair = slow_pair
    golibx.signal._core = golibx.patch.signals._core = Core()
    first, second = Chan(1), Chan(1)
    signal.signal(signal.SIGUSR1, print)
    signal.signal(signal.SIGUSR2, print)
    a, b = go(notify, first, signal.SIGUSR1), go(notify, second, signal.SIGUSR2)
    a.result(), b.result()
    gc.collect()
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert (first.recv(timeout=5), second.recv(timeout=5)) == (signal.SIGUSR1, signal.SIGUSR2)
        a, b = go(stop, first), go(notify, second, signal.SIGUSR1)
        a.result(), b.result()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert second.recv(timeout=5) == signal.SIGUSR1
        stop(second)
        notify(first, signal.SIGUSR1)
        notify(second, signal.SIGUSR2)

for seed in range(40):
    random.seed(seed)
    golibx.run(main)
print("well")
"""
    assert script.passes(program) == "well\n"
