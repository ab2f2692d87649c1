"""Ctrl-C in code of the program's that golibx calls, where its own is not to be interrupted."""

from __future__ import annotations

import sys
import textwrap

import pytest

from conftest import Script

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the Python lane needs Linux"
)

PRELUDE = """\
import _signal, os, signal, sys, threading
import golibx
from golibx import Chan, Event, GoroutinePoolExecutor, context, go, gosched, run, scope, sync
from golibx import signal as gosignal
from golibx.singleflight import Group

FAST = {"preempt": {"slice": "1ms"}, "sysmon": {"sleep_min": "20us"}}
began = threading.Event()

def interrupt():
    while True:
        began.wait()
        began.clear()
        os.kill(os.getpid(), signal.SIGINT)

# Before the run: a thread.
threading.Thread(target=interrupt, daemon=True).start()

def endless(*args, **kwargs):
    began.set()
    while True:
        pass

def interrupted(call):
    # With and without another goroutine that takes part of the time, and the signals.
    for beside in (False, True):
        stop = []
        def hog():
            while not stop:
                pass
        if beside:
            go(hog)
            gosched()
        try:
            call()
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("no KeyboardInterrupt")
        stop.append(1)

class Key:
    # One that computes for ever where it is told to.
    def __init__(self, name, hash_=hash, equal=lambda one, other: one.name == other.name):
        self.name, self.hash_, self.equal = name, hash_, equal
    def __hash__(self):
        return self.hash_(self.name)
    def __eq__(self, other):
        return self.equal(self, other)

class Number:
    __float__ = __index__ = endless

class Shown:
    __repr__ = endless

"""

# By what of the program's is called; each computes for ever, and what is left behind is right.
CASES = {
    "singleflight: __hash__": """
        group = Group()
        interrupted(lambda: group.do(Key(1, endless), int))
        interrupted(lambda: group.forget(Key(1, endless)))
        assert group.do(Key(1), int) == (0, False) and not group._calls
    """,
    "singleflight: __eq__": """
        group, over = Group(), Event()
        first = go(group.do, Key(1, equal=lambda one, other: other.equal(other, one)), over.wait)
        gosched()
        interrupted(lambda: group.do(Key(1, equal=endless), int))
        interrupted(lambda: group.forget(Key(1, equal=endless)))
        # It is still that of the key, and others find it.
        second = go(group.do, Key(1), int)
        gosched()
        over.set()
        assert first.result() == second.result() == (True, True) and not group._calls
    """,
    "scope: the time-out's __float__": """
        def enter():
            with scope(timeout=Number()):
                raise AssertionError("entered")
        before = context.current()
        interrupted(enter)
        assert context.current() is before
    """,
    "an executor's submit(): __repr__": """
        executor = GoroutinePoolExecutor()
        interrupted(lambda: executor.submit(Shown()))
        assert executor.submit(int).result() == 0
    """,
    "notify(): __repr__": "interrupted(lambda: gosignal.notify(Shown()))",
    "notify(), ignore(), reset(): a signal's __hash__ and __eq__": """
        chan = Chan(1)
        interrupted(lambda: gosignal.notify(chan, Key(1, endless)))
        interrupted(lambda: gosignal.ignore(Key(1, endless)))
        interrupted(lambda: gosignal.reset(Key(1, endless)))
        gosignal.notify(chan, signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert chan.recv(timeout=20) == signal.SIGUSR1
    """,
    "signal(): __index__": "interrupted(lambda: _signal.signal(Number(), signal.SIG_DFL))",
    "set_wakeup_fd(): __index__": "interrupted(lambda: signal.set_wakeup_fd(Number()))",
}


@pytest.mark.parametrize("case", CASES)
def test_ctrl_c_ends_it_as_in_plain_python(script: Script, case: str) -> None:
    body = "def main():\n" + textwrap.indent(textwrap.dedent(CASES[case]), "    ")
    script.passes(PRELUDE + body + "\nrun(main, config=FAST)\n")


def test_ctrl_c_ends_an_exceptions_own_text_in_a_report(script: Script) -> None:
    """Of what a goroutine raised and no code has collected, when the main function has returned."""
    out = script.passes(
        PRELUDE
        + """
class Panic(Exception):
    # Not __str__: the module traceback eats whatever that raises.
    __notes__ = property(endless)

def raises():
    raise Panic

def main():
    global kept
    kept = go(raises)
    gosched()

try:
    run(main, config=FAST)
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    assert out == "interrupted\n"


# Where no bytecode is left of the frames that the main goroutine is in: at the end of its slice.
LATE = """
import hashlib, operator
from functools import partial

# Neither looks for signals: the handler runs beside it.
slow = partial(hashlib.pbkdf2_hmac, "sha256", b"", b"", 400_000)

def forever():
    while True:
        pass

def calls(*functions):
    list(map(operator.call, (began.set, slow, *functions)))

def deep(n):
    return deep(n - 1) if n else calls(partial(int, "not a number"))

def handles():
    sys.setrecursionlimit(5000)
    try:
        deep(1500)
    except ValueError:
        forever()
"""


@pytest.mark.parametrize("call", ["calls(forever)", "handles()"])
def test_ctrl_c_ends_what_c_code_goes_on_with(script: Script, call: str) -> None:
    """C code that calls the next function; C code that raises through many frames."""
    script.passes(
        PRELUDE + LATE + f"def main():\n    interrupted(lambda: {call})\nrun(main, config=FAST)\n"
    )
