"""A worker class for gunicorn whose connections are goroutines.

    gunicorn -k golibx.integrations.gunicorn.Worker app:app

The application is ordinary blocking WSGI code. What would block a thread parks its goroutine
(golibx.patch_all), a request that computes is preempted, and one that blocks in a C library blocks
no other. gunicorn's settings mean what they do for its other asynchronous workers:
`worker_connections` bounds the connections at a time, `keepalive` is how long one may be idle, and
`graceful_timeout` how long requests may take to end. `golib.toml` and GOLIB_ variables configure
each worker process.
"""

from __future__ import annotations

import errno
import os
import select
import time
from typing import TYPE_CHECKING, Any

from gunicorn.workers.base_async import AsyncWorker

import golibx
from golibx import context
from golibx.config import default_config
from golibx.errors import DeadlineExceeded
from golibx.runtime import config_of

if TYPE_CHECKING:
    import socket
    from types import TracebackType

__all__ = ["Worker"]

_BEAT_S = 1.0
"""How often the arbiter hears of the worker; it allows for `timeout`, 30 s by default."""
_PAUSE_S = 0.1
"""Before the next attempt when there are no descriptors or buffers for a connection."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Worker(AsyncWorker):  # type: ignore[misc]  # gunicorn has no types
    """A process of gunicorn's, with a goroutine for each connection."""

    alive: bool

    def init_process(self) -> None:
        """Sets the process up and serves until it is told to stop, in the main goroutine."""
        config = config_of(default_config())
        golibx.patch_all(config.patch.stdlib)
        golibx.run(super().init_process, config=config)

    def timeout_ctx(self) -> _QuietTimeout:
        """What a request's first line has to come within."""
        return _QuietTimeout(self.cfg.keepalive)

    def run(self) -> None:
        """Serves until gunicorn says that it is enough, and lets requests end."""
        self._places = golibx.Semaphore(self.worker_connections)
        acceptors = [golibx.go(self._accept, listener) for listener in self.sockets]
        signals = select.poll()
        signals.register(self.PIPE[0], select.POLLIN)  # signal handlers have a byte written there
        while self.alive and self._has_parent():
            self.notify()
            signals.poll(_BEAT_S * 1000)
        self.alive = False
        for acceptor in acceptors:
            acceptor.cancel()
        self._let_requests_end()

    def _has_parent(self) -> bool:
        if self.ppid == os.getppid():
            return True
        self.log.info("Parent changed, shutting down: %s", self)
        return False

    def _accept(self, listener: socket.socket) -> None:
        """Starts a goroutine for each connection, as long as there are places."""
        ready = select.poll()
        ready.register(listener, select.POLLIN)
        while self.alive:
            self._places.acquire()
            try:
                accepted = self._accept_one(listener, ready)
            except BaseException:
                self._places.release()
                raise
            golibx.go(self._serve, listener, *accepted)

    def _accept_one(self, listener: socket.socket, ready: select.poll) -> tuple[Any, Any]:
        listener.setblocking(False)  # another process may be quicker
        while True:
            ready.poll()
            try:
                return listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                pass
            except OSError as exc:
                if exc.errno not in _EXHAUSTED:
                    raise
                self.log.warning("Cannot accept connections: %s", exc)
                golibx.sleep(_PAUSE_S)

    def _serve(self, listener: socket.socket, client: socket.socket, address: object) -> None:
        try:
            client.setblocking(True)
            self.handle(listener, client, address)  # closes it
        finally:
            self._places.release()

    def _let_requests_end(self) -> None:
        """Waits for them, `graceful_timeout` at most. What is left is cancelled by run()'s end."""
        end = time.monotonic() + self.cfg.graceful_timeout
        while self._places.available < self._places.size:
            if time.monotonic() >= end:
                self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
                return
            self.notify()
            golibx.sleep(_PAUSE_S)


class _QuietTimeout:
    """Ends its block after that many seconds, without an exception."""

    def __init__(self, seconds: float) -> None:
        self._context, self._cancel = context.with_timeout(context.current(), seconds)

    def __enter__(self) -> None:
        self._context.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._context.__exit__(kind, value, traceback)
        self._cancel()
        return isinstance(value, DeadlineExceeded) and value.context is self._context
