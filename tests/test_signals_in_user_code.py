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
import os, signal, sys, threading
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
}


@pytest.mark.parametrize("case", CASES)
def test_ctrl_c_ends_it_as_in_plain_python(script: Script, case: str) -> None:
    body = "def main():\n" + textwrap.indent(textwrap.dedent(CASES[case]), "    ")
    script.passes(PRELUDE + body + "\nrun(main, config=FAST)\n")
