"""Memory faults and stacks that end: RecursionError where a thread would have it, the program's
disposition for what was sent, and for what is no goroutine's stack."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from conftest import Script

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the Python lane needs Linux"
)

RECURSIONS = Path(__file__).with_name("recursions.py")
# The parser's own limits, which are no recursion errors.
OTHERS = {"source": "MemoryError", "literal": "MemoryError"}


def outcomes(out: str) -> dict[str, str]:
    pairs = [line.split() for line in out.splitlines()]
    return {name: outcome for name, outcome in pairs if outcome != OTHERS.get(name)}


def test_recursion_in_a_goroutine(script: Script) -> None:
    # In a thread each of these is a RecursionError, or returns, for want of one: see recursions.py.
    seen = outcomes(script.passes(RECURSIONS, "goroutine", limit=40.0))
    assert len(seen) > 30
    assert set(seen.values()) == {"RecursionError"}


@pytest.mark.parametrize("place", ["goroutine", "main"])
@pytest.mark.parametrize("size", ["256KiB", "4MiB"])
def test_recursion_on_a_stack_of_another_size(script: Script, place: str, size: str) -> None:
    kinds = ["sort", "substitution", "twice_caught", "whole_limit_afterwards"]
    env = {"GOLIB_STACK_SIZE": size, "GOLIB_STACK_MAIN_SIZE": size}
    out = script.passes(RECURSIONS, place, *kinds, env=env)
    assert outcomes(out) == dict.fromkeys(kinds, "RecursionError")


SOURCES = """
from __future__ import annotations
import ast, os, symtable, sys
import golibx
sys.setrecursionlimit(1_000_000)
sys.path.insert(0, os.getcwd())
DEEP = 30_000
calls = "f" + "()" * DEEP
open("deep.py", "w").write("def x(f): return " + calls)
def tree():
    node = ast.Constant(1)
    for _ in range(DEEP): node = ast.UnaryOp(ast.USub(), node)
    return ast.fix_missing_locations(ast.Expression(node))
def right():
    long = "y = 1\\n" * 1000
    exec(long + "def f(a: b): pass\\nassert f.__annotations__ == {'a': 'b'}", {})
    exec(long + "z = x", names := {"x": 2})
    assert names["z"] == 2 and "z" not in globals()
    assert eval(" \\t1" + "+x" * 500, {}, {"x": 2}) == eval(b" 1" + b"+x" * 500, {"x": 2}) == 1001
    for call in exec, eval:
        try: call(long + "1 +", {})
        except SyntaxError as error: assert error.filename == "<string>"
    def count(n): return n and 1 + count(n - 1)
    assert count(50_000) == 50_000
for name, f in {
    "compile": lambda: compile(calls, "", "eval"),
    "names": lambda: compile("a" + ".a" * DEEP, "", "eval"),
    "exec": lambda: exec("x = lambda f: " + calls),
    "eval": lambda: eval(b" lambda f: " + calls.encode()),
    "parse": lambda: ast.parse(calls),
    "tree": lambda: compile(tree(), "", "eval"),
    "symtable": lambda: symtable.symtable(calls, "", "eval"),
    "import": lambda: __import__("deep"),
}.items():
    def main():
        try: golibx.go(f).result()
        except RecursionError: print("refused", end=" ")
        golibx.go(right).result()
        print(name, flush=True)
    golibx.run(main)
os._exit(0)  # what is nested that deep may crash Python when it is freed
"""


def test_deep_source_under_a_raised_limit(script: Script) -> None:
    """In threads it is compiled; from 3.12 on the compiler has a limit of its own."""
    out = script.passes(SOURCES, limit=40.0)
    assert out.split("\n")[:-1] == [
        f"refused {name}"
        for name in ("compile", "names", "exec", "eval", "parse", "tree", "symtable", "import")
    ]


SHALLOWER = """
import golibx
def main():
    for call, *rest in (compile, "", "eval"), (exec,), (eval,):
        try: golibx.go(call, "f" + "()" * 2500, *rest).result()
        except RecursionError: print("refused")
    golibx.go(compile, "f" + "()" * 250, "", "eval").result()
golibx.run(main)
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the compiler has a limit of its own")
def test_deep_source_on_a_small_stack(script: Script) -> None:
    """The interpreter's own limit allows 3000 levels."""
    out = script.passes(SHALLOWER, env={"GOLIB_STACK_SIZE": "128KiB"})
    assert out.split() == ["refused"] * 3


def test_recursion_that_is_switched_out_deep_down(script: Script) -> None:
    # Goroutines with an open reserve wait, go on and end, and their stacks are used again.
    out = script.passes(
        """
import golibx
from golibx import Chan, go, gosched

def down(n):
    try:
        return sorted([n], key=lambda _: down(n + 1))
    except RecursionError:
        gosched()
        gate.recv_ok()
        raise

def once():
    try:
        down(0)
    except RecursionError as error:
        return type(error)

def main():
    global gate
    for _ in range(5):
        gate = Chan()
        gs = [go(once) for _ in range(8)]
        for _ in range(20):
            gosched()
        gate.close()
        assert {g.result() for g in gs} == {RecursionError}

golibx.run(main, config={"preempt": {"slice": "1ms"}})
golibx.run(main)
print("well")
""",
        limit=55.0,
    )
    assert out == "well\n"


PRELUDE = """\
import ctypes, faulthandler, golibx, os, signal, sys

def send():
    os.kill(os.getpid(), signal.SIGSEGV)

def cause():
    ctypes.string_at(0)

def deep(n=0):
    try:
        sorted([1], key=lambda _: deep(n + 1))
    except RecursionError:
        if n == 0:
            print("RecursionError", flush=True)
            return
        raise
"""

DEAD = -signal.SIGSEGV
TOLD = "Fatal Python error: Segmentation fault"

# What the program does, how it ends, what it prints, what is in its stderr.
FAULTS = {
    "sent": ("run(send)", DEAD, "", ""),
    "sent in a goroutine": ("run(lambda: golibx.go(send).result())", DEAD, "", ""),
    "caused": ("run(cause)", DEAD, "", ""),
    "caused in a goroutine": ("run(lambda: golibx.go(cause).result())", DEAD, "", ""),
    "sent by itself": (
        "run(lambda: signal.raise_signal(signal.SIGSEGV))",
        DEAD,
        "",
        "",
    ),
    "sent, with faulthandler": ("faulthandler.enable(); run(send)", DEAD, "", TOLD),
    "caused, with faulthandler": ("faulthandler.enable(); run(cause)", DEAD, "", TOLD),
    "sent, with faulthandler inside": ("run(faulthandler.enable, send)", DEAD, "", TOLD),
    "caused, with faulthandler inside": (
        "run(faulthandler.enable, deep, cause)",
        DEAD,
        "RecursionError\n",
        TOLD,
    ),
    "caused, with faulthandler from an earlier run": (
        "run(faulthandler.enable); run(deep, cause)",
        DEAD,
        "RecursionError\n",
        TOLD,
    ),
    "caused after a run": ("run(faulthandler.enable); cause()", DEAD, "", TOLD),
    "caused, with faulthandler switched off": (
        "faulthandler.enable(); run(faulthandler.disable, deep, cause)",
        DEAD,
        "RecursionError\n",
        "",
    ),
    "sent, and ignored": (
        "signal.signal(signal.SIGSEGV, signal.SIG_IGN); run(send, deep)",
        0,
        "RecursionError\n",
        "",
    ),
    "sent, and handled": (
        "signal.signal(signal.SIGSEGV, lambda *_: print('handler')); run(send, deep)",
        0,
        "handler\nRecursionError\n",
        "",
    ),
    "sent as another signal": ("run(lambda: os.kill(os.getpid(), signal.SIGFPE))", -8, "", ""),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults(script: Script, case: str) -> None:
    program, code, out, err = FAULTS[case]
    run = "\ndef run(*functions):\n    golibx.run(lambda: [f() for f in functions])\n\n"
    result = script(PRELUDE + run + program)
    assert (result.returncode, result.stdout) == (code, out), result.stderr
    if err:
        assert err in result.stderr
    else:
        assert result.stderr == ""


def test_the_disposition_after_a_run_is_as_before(script: Script) -> None:
    out = script.passes(
        PRELUDE
        + """
libc = ctypes.CDLL(None)
libc.signal.restype = libc.signal.argtypes = None
libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.signal.restype = ctypes.c_void_p

def disposition():
    before = libc.signal(signal.SIGSEGV, None)
    libc.signal(signal.SIGSEGV, before)
    return before

assert not disposition()
golibx.run(lambda: None)
assert not disposition()
golibx.run(lambda: libc.signal(signal.SIGSEGV, 1))
print(disposition())
"""
    )
    assert out == "1\n"


@pytest.mark.limit(120)
def test_a_worker_that_dies_of_a_fault(script: Script) -> None:
    out = script.passes(
        """
import os, signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
import multiprocessing
import golibx

def die():
    os.kill(os.getpid(), signal.SIGSEGV)

def main():
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            pool.submit(die).result()
        except BrokenProcessPool:
            print("broken")

if __name__ == "__main__":
    golibx.run(main)
""",
        limit=60.0,
    )
    assert out == "broken\n"
