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
import collections, ctypes, os, signal, sys, threading, time
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

waits = threading.Event()

def strike():
    waits.wait()
    while waiter.state != "syscall":
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGALRM)

# Before the run: a thread.
threading.Thread(target=strike, daemon=True).start()

def wait_for_handler():
    global waiter
    waiter = golibx.current()
    waits.set()
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


# What makes a call that no signal ends, and then unwinds so many frames, of the program's code or
# of the import system's, before one of them goes on.
UNWINDS = {
    "few": "deep(5)",
    "many": "deep(100)",
    "import": "__import__('waits_for_handler')",
}


@pytest.mark.parametrize("how", UNWINDS)
def test_nothing_goes_on_before_what_a_handler_raised_while_frames_are_unwound(
    script: Script, how: str
) -> None:
    out = passes(
        script,
        f"""
        def handler(signum, frame):
            handled.set()
            raise TimeIsUp

        def release():
            handled.wait()
            # It has thrown that.
            while len(golibx._core.goroutines()) > 1:
                time.sleep(0.001)
            libc.pthread_mutex_unlock(lock)

        def deep(n):
            return deep(n - 1) if n else wait()

        def wait():
            global waiter
            waiter = golibx.current()
            waits.set()
            raising_lock(lock)

        def main():
            try:
                {UNWINDS[how]}
            except ZeroDivisionError:
                goes_on.append(True)
                while True:
                    pass

        handled, goes_on = threading.Event(), []
        # 1 / 0, in C: the call raises what no bytecode does.
        raising_lock = ctypes.CDLL(None)["pthread_mutex_lock"]
        raising_lock.restype = (1).__truediv__
        sys.path.insert(0, os.path.dirname(__file__))
        with open(os.path.join(sys.path[0], "waits_for_handler.py"), "w") as file:
            file.write("import __main__\\n__main__.wait()\\n")
        signal.signal(signal.SIGALRM, handler)
        threading.Thread(target=release).start()
        FAST["preempt"]["slice"] = "1s"
        print(*outcome(main), goes_on)
        """,
    )
    assert out.startswith("TimeIsUp() ")
    assert out.endswith(" []\n")


def test_no_module_is_executed_before_what_a_handler_raised_in_the_import_system(
    script: Script,
) -> None:
    # It is thrown while a finder's C code waits for a lock, below frames of the import system only,
    # which are not to be interrupted themselves.
    out = passes(
        script,
        """
        def handler(signum, frame):
            handled.set()
            raise TimeIsUp

        def interrupt():
            mutex.acquire()
            locked.set()
            began.wait()
            while not mine.waiting:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGALRM)
            handled.wait()
            # It has thrown that.
            while len(golibx._core.goroutines()) > 1:
                time.sleep(0.001)
            mutex.release()

        mutex, executed = threading.RLock(), []
        handled, locked, began = threading.Event(), threading.Event(), threading.Event()

        class Waits:
            # C code that acquires the lock for an argument.
            from_param = collections.defaultdict(mutex.acquire).__getitem__

        class Finder:
            find_spec = ctypes.CDLL(None)["getpid"]

        def main():
            global mine
            mine = golibx.current()
            sys.meta_path.insert(0, Finder)
            began.set()
            import computes_for_ever

        Finder.find_spec.argtypes = [Waits, ctypes.c_void_p, ctypes.c_void_p]
        Finder.find_spec.restype = {os.getpid(): None}.__getitem__  # nothing found
        sys.path.insert(0, os.path.dirname(__file__))
        path = os.path.join(sys.path[0], "computes_for_ever.py")
        with open(path, "w") as file:
            file.write("import __main__\\n__main__.executed.append(1)\\nwhile True: pass\\n")
        signal.signal(signal.SIGALRM, handler)
        thread = threading.Thread(target=interrupt)
        thread.start()
        locked.wait()
        FAST["preempt"]["slice"] = "1s"
        print(*outcome(main), executed)
        thread.join()
        # The import system's locks are free.
        sys.meta_path.remove(Finder)
        with open(path, "w") as file:
            file.write("done = True")
        print(outcome(lambda: __import__("computes_for_ever").done))
        """,
    )
    # Where the lock's own code has raised it already, ctypes says so in an ArgumentError.
    assert "TimeIsUp" in out
    assert out.endswith(" None []\nTrue\n")
