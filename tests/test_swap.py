"""Thread states are swapped without the GIL, and the interpreter is none the wiser.

What a swap by hand leaves is compared word for word with what the interpreter's own leaves when a
way is looked for (zsrc/python/host/swap_find.zig): where that is not the same, `golibx info` says
so.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from conftest import Script, c_library
from golibx import _core

KNOWN = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 16)
WAYS = ["auto", "interpreter"]
both_ways = pytest.mark.parametrize("way", WAYS)


def test_a_way_is_found_where_there_is_one() -> None:
    info = _core.info()
    assert (info["swap"], bool(info["swap_reason"])) == (
        ("by hand", False) if KNOWN else ("interpreter", True)
    )


def test_the_interpreters_own_swap_can_be_asked_for(script: Script) -> None:
    code = """
from golibx import _core, run
def look(): return [_core.info()[k] for k in ("swap", "swap_reason")]
print(run(look, config={"runtime": {"swap": "interpreter"}}), run(look))
"""
    found = [_core.info()[k] for k in ("swap", "swap_reason")]
    assert script.passes(code) == f"['interpreter', 'runtime.swap'] {found}\n"


STATES = """
import ctypes, sys
from golibx import go, gosched, run
get = ctypes.pythonapi.PyThreadState_Get
get.restype = ctypes.c_void_p
# From eval_breaker to what_event, which are no pointers. Requests for the GIL may come at any time.
first, last = (24, 56) if sys.version_info < (3, 13) else (32, 68)
def words(state): return list((ctypes.c_uint32 * ((last - first) // 4)).from_address(state + first))
seen = []
def one():
    state = get()
    for _ in range(3):
        seen.append(words(state))
        gosched()
    return state
def two(other):
    for _ in range(3):
        seen.append(words(get()))
        gosched()
def main():
    g = go(one)
    h = go(two, g)
    own = get()
    for _ in range(3):
        seen.append(words(own))
        gosched()
    g.join(), h.join()
    print(seen)
    print(get() == ctypes.pythonapi.PyGILState_GetThisThreadState())
    print(ctypes.pythonapi.PyGILState_Check())
ctypes.pythonapi.PyGILState_GetThisThreadState.restype = ctypes.c_void_p
run(main, config={"runtime": {"swap": sys.argv[1]}, "preempt": {"async": False}})
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="another thread state")
def test_thread_states_are_left_as_the_interpreter_leaves_them(script: Script) -> None:
    by_hand, by_interpreter = (script.passes(STATES, way) for way in WAYS)
    assert by_hand == by_interpreter
    assert by_hand.endswith("True\n1\n")


# Before the interpreter has its slot.
TAKEN_SLOTS = """
#include <pthread.h>
__attribute__((constructor)) static void take(void) {
    pthread_key_t key;
    for (int i = 0; i < 40; i++) pthread_key_create(&key, NULL);
}
"""


@pytest.mark.skipif(not KNOWN, reason="the interpreter swaps")
@pytest.mark.parametrize("taken", [False, True], ids=["first slots", "slots taken"])
def test_callbacks_find_their_goroutine_wherever_the_slot_is(
    script: Script, tmp_path: Path, taken: bool
) -> None:
    """Up to 3.13, PyGILState's is a thread-specific slot: glibc keeps the first 32 elsewhere."""
    code = """
import ctypes, threading
from golibx import _core, go, gosched, run
get = ctypes.pythonapi.PyGILState_GetThisThreadState
get.restype = ctypes.c_void_p
@ctypes.CFUNCTYPE(ctypes.c_int)
def callback():
    gosched()
    return 1
def one():
    found = {get()}
    for _ in range(50):
        gosched()
        found.add(get())
    return len(found), callback(), found.pop()
def main():
    results = [g.result() for g in [go(one) for _ in range(5)]]
    states = {state for *_, state in results}
    print(*[(found, called) for found, called, _ in results], len(states))
    print(_core.info()["swap"])
for start in (run, lambda f: threading.Thread(target=run, args=[f]).start()): start(main)
"""
    environment = {}
    if taken:
        environment["LD_PRELOAD"] = str(c_library(tmp_path, "taken", TAKEN_SLOTS, "-lpthread"))
    expected = "(1, 1) " * 5 + "5\nby hand\n"
    assert script.passes(code, env=environment) == expected * 2


@both_ways
def test_threads_get_the_gil_among_goroutines_that_switch(script: Script, way: str) -> None:
    """Of one that ends while it is the lock's last holder, too; and no request is left over."""
    code = """
import _thread, ctypes, sys
from golibx import go, gosched, run
usleep = ctypes.CDLL(None).usleep
turns = [0, 0]
def outside(i):
    while turns[i] < 20:
        usleep(100)
        turns[i] += 1
def short(): gosched()
def switches():
    while min(turns) < 20:
        go(short)
        gosched()
start = _thread.start_new_thread
def main():
    for i in range(2): start(outside, (i,))
    goroutines = [go(switches) for _ in range(3)]
    for g in goroutines: g.join()
    for _ in range(100_000): gosched()
    print(turns)
run(main, config={"runtime": {"swap": sys.argv[1]}})
"""
    assert script.passes(code, way) == "[20, 20]\n"


@both_ways
def test_goroutines_that_leave_something_behind_end_while_threads_want_the_gil(
    script: Script, way: str
) -> None:
    """Their thread states are deleted: no thread may write to one that was the last holder."""
    code = """
import _thread, ctypes, sys
from golibx import go, gosched, run
usleep = ctypes.CDLL(None).usleep
done = False
def outside():
    while not done: usleep(10)
def leaves():
    sys.set_asyncgen_hooks(firstiter=print, finalizer=print)
    gosched()
start = _thread.start_new_thread
sys.setswitchinterval(1e-5)
def main():
    global done
    for _ in range(3): start(outside, ())
    for _ in range(150):
        for g in [go(leaves) for _ in range(10)]: g.join()
    done = True
    print("ended")
run(main, config={"runtime": {"swap": sys.argv[1]}})
"""
    assert script.passes(code, way, env={"PYTHONMALLOC": "debug"}) == "ended\n"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no sys.monitoring")
@both_ways
def test_monitoring_is_switched_on_and_off_for_those_who_wait(script: Script, way: str) -> None:
    code = """
import sys
from golibx import go, gosched, run
m = sys.monitoring
seen = []
def starts(code, _):
    if code.co_name in ("callee", "comes_later"): seen.append(code.co_name)
def callee(): pass
def waits():
    for _ in range(6):
        gosched()
        callee()
def comes_later(): pass
def main():
    m.use_tool_id(3, "test")
    m.register_callback(3, m.events.PY_START, starts)
    g = go(waits)
    for i in range(6):
        gosched()
        m.set_events(3, m.events.PY_START if i % 2 == 0 else 0)
        comes_later()
    g.join()
    print(seen)
run(main, config={"runtime": {"swap": sys.argv[1]}, "preempt": {"async": False}})
"""
    assert script.passes(code, way) == str(["comes_later", "callee"] * 3) + "\n"


@both_ways
def test_goroutines_are_traced_one_by_one(script: Script, way: str) -> None:
    code = """
import sys
from golibx import go, gosched, run
def traced(n):
    seen = []
    def tracer(frame, event, arg):
        if frame.f_code is callee.__code__: seen.append(event)
        return tracer
    for _ in range(n):
        sys.settrace(tracer)
        gosched()
        callee()
        sys.settrace(None)
        gosched()
        callee()
    return len(seen)
def callee(): pass
def main():
    print([g.result() for g in [go(traced, n) for n in (1, 2, 3)]])
run(main, config={"runtime": {"swap": sys.argv[1]}, "preempt": {"async": False}})
"""
    assert script.passes(code, way) == "[3, 6, 9]\n"


@both_ways
def test_pending_calls_are_made_while_the_main_goroutine_waits(script: Script, way: str) -> None:
    """Those of the main thread: any goroutine on it makes them."""
    code = """
import ctypes, sys
from golibx import go, gosched, run
calls = []
@ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
def call(_):
    calls.append(1)
    return 0
add = ctypes.pythonapi.Py_AddPendingCall
add.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
address = ctypes.cast(call, ctypes.c_void_p)
done = 0
def adds():
    global done
    for n in range(1, 20):
        add(address, None)
        for _ in range(100):
            gosched()
            if len(calls) == n: break
    done = len(calls)
def switches():
    while not done: gosched()
def main():
    for g in [go(adds), go(switches)]: g.join()
    print(done)
# The main thread has to be the one that runs them.
config = {"preempt": {"async": False}, "retake": {"enabled": False}}
run(main, config={"runtime": {"swap": sys.argv[1]}, **config})
"""
    assert script.passes(code, way) == "19\n"


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork")
@both_ways
def test_the_child_of_a_fork_swaps_as_well(script: Script, way: str) -> None:
    """It has another slot for PyGILState, which callbacks go by."""
    code = """
import ctypes, os, sys
from golibx import go, gosched, run
@ctypes.CFUNCTYPE(ctypes.c_int)
def callback():
    gosched()
    return 1
def calls(): return sum(callback() for _ in range(5))
def inner():
    return [g.result() for g in [go(calls) for _ in range(3)]]
def forks():
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        print(run(inner, config={"runtime": {"swap": sys.argv[1]}}), flush=True)
        os._exit(0)
    return os.waitpid(pid, 0)[1]
def main(): return [inner(), go(forks).result(), inner()]
print(run(main, config={"runtime": {"swap": sys.argv[1]}}), flush=True)
pid = os.fork()
if pid == 0:
    print(run(inner, config={"runtime": {"swap": sys.argv[1]}}), flush=True)
    os._exit(0)
print(os.waitpid(pid, 0)[1])
"""
    five = "[5, 5, 5]"
    assert script.passes(code, way) == f"{five}\n[{five}, 0, {five}]\n{five}\n0\n"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="no _interpreters")
@both_ways
def test_goroutines_switch_around_subinterpreters(script: Script, way: str) -> None:
    """With a GIL of its own, and with the main one's, where its state is the lock's last holder."""
    code = """
import _interpreters, sys
from golibx import go, gosched, run
def uses(kind):
    for _ in range(2):
        i = _interpreters.create(kind)
        gosched()
        _interpreters.exec(i, "x = sum(range(1000))")
        gosched()
        _interpreters.destroy(i)
        gosched()
    return kind
def main():
    print([g.result() for g in [go(uses, k) for k in ("isolated", "legacy") * 2]])
run(main, config={"runtime": {"swap": sys.argv[1]}})
"""
    assert script.passes(code, way, limit=40) == str(["isolated", "legacy"] * 2) + "\n"


@both_ways
def test_threads_come_and_go_among_goroutines_that_switch(script: Script, way: str) -> None:
    """Threads are started and joined; C code's own threads make and delete thread states."""
    code = """
import ctypes, sys, threading
from golibx import go, gosched, run
libc = ctypes.CDLL(None)
@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
def body(_): return None
made = []
def starts():
    for _ in range(20):
        gosched()
        t = threading.Thread(target=made.append, args=(1,))
        t.start()
        gosched()
        t.join()
def foreign():
    for _ in range(20):
        t = ctypes.c_ulong()
        libc.pthread_create(ctypes.byref(t), None, body, None)
        gosched()
        libc.pthread_join(t, None)
def main():
    for g in [go(f) for f in (starts, foreign) * 2]: g.join()
    print(len(made))
run(main, config={"runtime": {"swap": sys.argv[1]}})
"""
    assert script.passes(code, way) == "40\n"
