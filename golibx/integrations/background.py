"""A run in a thread of its own, for programs that golibx does not run.

Code that gives work to goroutines holds the run for as long as there is some. The first holder
begins it, and after the last one it ends. Where the program is in a run already, that one is used.
The environment's GOLIB_… variables configure the run. At the program's end what is left is
cancelled. sys.exit() in a goroutine ends the program as Ctrl-C does.
"""

from __future__ import annotations

import _thread
import atexit
import threading

import golibx
from golibx import _core
from golibx.inherited import made_anew

__all__ = ["hold", "release", "wait"]

_DAY_S = 86400.0


class _Background:
    def __init__(self) -> None:
        self._guard = _core.Guard()  # of what follows
        self._holders = 0
        self._over = golibx.Event()  # told to end
        self._starting = threading.Lock()  # one thread at a time begins a run; of what follows
        self._thread: threading.Thread | None = None
        made_anew(self)
        atexit.register(self._end)

    def forget_others(self) -> None:
        """In the child of a fork: the thread and the holders of the run are the parent's."""
        self._guard = _core.Guard()
        self._holders = 0
        self._over = golibx.Event()
        self._starting = threading.Lock()
        self._thread = None

    def hold(self) -> None:
        """See to it that there is a run until release() is called as often.

        Raises:
            ConfigError: the environment's configuration is not right.
        """
        if golibx.current() is not None:  # which has one
            with self._guard:
                self._holders += 1
            return
        with self._starting:
            with self._guard:
                self._holders += 1
                is_first = self._holders == 1
            try:
                if self._thread is not None and (is_first or not self._thread.is_alive()):
                    self._thread.join()  # it was told to end, or a goroutine has ended it
                    self._thread = None
                if not _core.active():
                    self._start()
            except BaseException:
                self.release()
                raise

    def release(self) -> None:
        """The opposite of hold(). Does not wait for the end of the run."""
        with self._guard:
            self._holders -= 1
            if self._holders == 0:
                self._over.set()

    def wait(self) -> None:
        """Until the run has ended, if it was told to; not in its own goroutines."""
        if golibx.current() is None and self._over.is_set():
            with self._starting:
                if self._thread is not None and self._over.is_set():
                    self._thread.join()
                    self._thread = None

    def _start(self) -> None:
        begun = threading.Event()
        over = self._over = golibx.Event()
        failures: list[BaseException] = []

        def main() -> None:
            begun.set()
            try:
                while not over.wait(_DAY_S):  # what may time out is no part of a deadlock
                    pass
            except SystemExit:  # a goroutine has asked for the program's end
                _thread.interrupt_main()

        def run() -> None:
            try:
                golibx.run(main)
            except BaseException as error:
                if begun.is_set():
                    raise
                failures.append(error)
            finally:
                begun.set()

        self._thread = threading.Thread(target=run, name="golibx background run", daemon=True)
        self._thread.start()
        begun.wait()
        if failures:
            raise failures[0]

    def _end(self) -> None:
        """At the program's end, which other threads do not live to see."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()


_background = _Background()
hold = _background.hold
release = _background.release
wait = _background.wait
