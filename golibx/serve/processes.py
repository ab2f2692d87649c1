"""Several processes that serve on the same sockets, and the one that starts and ends them.

The supervisor opens the listening sockets and forks; the workers inherit them. With sockets of
their own on one port (SO_REUSEPORT), the kernel would give each connection to one worker at once:
what waits for a worker that dies is lost, and what waits for a busy one is not served by an idle
one. The supervisor imports no application and enters no run, so a fork copies nothing but the
command.

The first worker is waited for until it serves: what is wrong with an application is said once. A
worker that dies is started again, each at most once a second. SIGTERM and SIGINT have all of them
end gracefully; a second one ends them at once. Workers learn of the supervisor's own death from a
socket: only the supervisor has the other end.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Supervisor"]

_ENDING = (signal.SIGTERM, signal.SIGINT)
_AWAITED = (*_ENDING, signal.SIGCHLD)
_LOOK_S = 0.05
"""How often it is looked whether the first worker serves."""
_RESTART_S = 1.0
"""Between two starts of the same worker."""
_FOREVER_S = 3600.0


class _Worker:
    """A place for a process.

    Attributes:
        pid: of the process that has it; 0 while there is none.
        started: when the last one was, on the monotonic clock.
    """

    __slots__ = ("pid", "started")

    def __init__(self) -> None:
        self.pid = 0
        self.started = -_FOREVER_S


class Supervisor:
    """Starts workers, and sees that there are so many of them.

    Args:
        count: how many.
        patience: seconds that a worker has to end before it is killed.
        say: told what happens, a line at a time.
    """

    def __init__(self, count: int, patience: float, say: Callable[[str], object]) -> None:
        self._workers = [_Worker() for _ in range(count)]
        self._patience = patience
        self._say = say
        self._old_mask: set[int | signal.Signals] = set()
        self._signals = 0  # how many have come that end
        self._kill_at = 0.0
        self._status = 0
        self._serves = False  # and what dies from now on is started again
        self.lifeline, self._ours = socket.socketpair()

    def run(self, announce: Callable[[], object], listeners: Sequence[socket.socket]) -> int | None:
        """Works until it is told to end, or no worker can serve; returns the exit status.

        In a worker it returns None, and `lifeline` is for that.

        Args:
            announce: called when the first worker serves.
            listeners: closed here when the end begins.
        """
        # From here on a signal is waited for: none comes between a look and a wait.
        self._old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
        self._ours.setblocking(False)
        if self._start(self._workers[0]):
            return None
        if self._first_serves():
            announce()
            while not self._signals:
                if self._start_missing():
                    return None
                self._wait(self._until_next_start())
        for listener in listeners:
            listener.close()
        self._end()
        return self._status

    def _start(self, worker: _Worker) -> bool:
        """Forks. True in the worker."""
        worker.started = time.monotonic()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        try:
            worker.pid = os.fork()
        except OSError as exc:
            self._say(f"can't start a worker: {exc.strerror}; another attempt follows")
            return False
        if worker.pid:
            return False
        self._ours.close()
        # Ctrl-C is for all processes of a terminal, and the supervisor passes it on.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._old_mask)
        return True

    def _first_serves(self) -> bool:
        """Waits until it does. False if it has died, or all have to end."""
        while not self._signals:
            self._wait(_LOOK_S)
            try:
                if self._ours.recv(1):
                    self._serves = True
                    return True
            except BlockingIOError:
                pass
            if not self._workers[0].pid:
                return False
        return False

    def _start_missing(self) -> bool:
        """Starts those that are due. True in a worker."""
        now = time.monotonic()
        return any(
            self._start(worker)
            for worker in self._workers
            if not worker.pid and now - worker.started >= _RESTART_S
        )

    def _until_next_start(self) -> float:
        dead = [worker.started + _RESTART_S for worker in self._workers if not worker.pid]
        return max(min(dead) - time.monotonic(), 0.0) if dead else _FOREVER_S

    def _wait(self, seconds: float) -> None:
        """For a signal, and does what it says."""
        found = signal.sigtimedwait(_AWAITED, seconds)
        if found is None:
            return
        if found.si_signo in _ENDING:
            self._signals += 1
            if self._signals == 1:
                self._kill_at = time.monotonic() + self._patience
            self._signal_all(signal.SIGTERM)
        self._reap()

    def _reap(self) -> None:
        for worker in self._workers:
            if not worker.pid:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if not pid:
                continue
            worker.pid = 0
            code = os.waitstatus_to_exitcode(status)
            if self._signals:
                continue
            name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            if self._serves:
                self._say(f"worker {pid} has ended with {name}; another is started")
            else:
                self._status = code if code > 0 else 1
                if code <= 0:  # else it has said why
                    self._say(f"worker {pid} has ended with {name} before it served")

    def _signal_all(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, number)

    def _end(self) -> None:
        """Waits for the workers, and kills those that do not end."""
        if self._signals:
            self._status = 0
        while any(worker.pid for worker in self._workers):
            left = self._kill_at - time.monotonic()
            if left <= 0:
                self._say("workers that have not ended are killed")
                self._signal_all(signal.SIGKILL)
                self._kill_at = time.monotonic() + _FOREVER_S
                self._status = 1
                continue
            self._wait(left)
