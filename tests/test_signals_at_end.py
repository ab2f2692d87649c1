"""What a signal handler raises while the main goroutine's function ends comes out of run()."""

from __future__ import annotations

import sys
import textwrap

import pytest

from conftest import Script

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the Python lane needs Linux"
)

PRELUDE = """\
import ctypes, os, signal, sys, threading, time
import golibx
from golibx import go, run, sleep
from golibx.runtime import Runtime

class TimeIsUp(Exception):
    pass

FAST = {"preempt": {"slice": "1ms"}, "sysmon": {"sleep_min": "20us"}}
libc = ctypes.CDLL(None)
MAIN = Runtime._main.__code__

# A call that no signal ends: the handler runs beside it, and ends it.
lock = ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(lock)

def wait_for_handler():
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    libc.pthread_mutex_lock(lock)

def outcome(main):
    try:
        return run(main, config=FAST)
    except BaseException as error:
        return repr(error), repr(error.__context__)

"""


def passes(script: Script, body: str, *args: str) -> str:
    return script.passes(PRELUDE + textwrap.dedent(body), *args)


@pytest.mark.parametrize("lasts", ["sleeps", "computes", "at once"])
@pytest.mark.parametrize("ends", ["returns", "raises"])
def test_a_handler_that_outlasts_the_call_that_it_ends(
    script: Script, lasts: str, ends: str
) -> None:
    out = passes(
        script,
        """
        def handler(signum, frame):
            libc.pthread_mutex_unlock(lock)
            if lasts == "sleeps":
                returned.wait()
                for _ in range(20):
                    time.sleep(0.001)
            while lasts == "computes" and not returned.is_set():
                pass
            raise TimeIsUp

        def main():
            wait_for_handler()
            returned.set()
            if ends == "raises":
                raise ValueError("main's")

        lasts, ends = sys.argv[1:]
        returned = threading.Event()
        signal.signal(signal.SIGALRM, handler)
        print(*outcome(main))
        # Nothing of it is left for the next one.
        print(outcome(lambda: sleep(0.05)))
        """,
        lasts,
        ends,
    )
    assert out.startswith("TimeIsUp() ")
    assert out.splitlines()[1:] == ["None"]


@pytest.mark.parametrize("ends", ["returns", "raises"])
def test_a_handler_at_the_last_event_of_the_main_goroutine(script: Script, ends: str) -> None:
    # No bytecode is left at which to raise, and tools are told of the return only once.
    out = passes(
        script,
        """
        def handler(signum, frame):
            libc.pthread_mutex_unlock(lock)
            raise TimeIsUp

        def on_end(code, *args):
            if code is MAIN:
                wait_for_handler()

        def trace(frame, what, arg):
            if frame.f_code is MAIN and what == "return":
                wait_for_handler()
            return trace

        def watch():
            if sys.version_info < (3, 12):
                sys._getframe(2).f_trace = trace
                return sys.settrace(trace)
            monitoring = sys.monitoring
            monitoring.use_tool_id(1, "test")
            event = monitoring.events.PY_UNWIND if raises else monitoring.events.PY_RETURN
            monitoring.register_callback(1, event, on_end)
            monitoring.set_events(1, event)

        def main():
            watch()
            if raises:
                raise ValueError("main's")

        raises = sys.argv[1] == "raises"
        signal.signal(signal.SIGALRM, handler)
        print(*outcome(main))
        """,
        ends,
    )
    assert out.startswith("TimeIsUp() ")


def test_what_a_handler_raises_after_its_run_stays_out_of_the_next(script: Script) -> None:
    # Ctrl-C has ended the wait for it.
    out = passes(
        script,
        """
        def handler(signum, frame):
            libc.pthread_mutex_unlock(lock)
            try:
                over.wait()
            finally:
                raise TimeIsUp

        def main():
            global mine
            mine = golibx.current()
            threading.Thread(target=interrupt).start()
            wait_for_handler()

        def interrupt():
            while mine.state != "shutdown":
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)

        def next_main():
            over.set()
            reported.wait(20)
            sleep(0.01)
            return "undisturbed"

        def report(unraisable):
            print("reported", repr(unraisable.exc_value))
            reported.set()

        sys.unraisablehook = report
        over, reported = threading.Event(), threading.Event()
        signal.signal(signal.SIGALRM, handler)
        print(*outcome(main))
        print(outcome(next_main))
        """,
    )
    assert out == "KeyboardInterrupt() None\nreported TimeIsUp()\nundisturbed\n"
