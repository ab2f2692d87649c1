"""The server of one process: listeners, how many connections there may be, and the end.

A connection above the limit is not accepted: it waits in the listener's queue, where it costs this
process nothing, and is served as soon as there is a place, by this process or another. A "503" to
it would take a place too, and would tell a client to go away that has only to wait. So that idle
connections keep no client out, the one that has been idle longest is closed when a client waits,
and as long as one does, answers end their connections. The same is done when there are no
descriptors left.

The end: no client is accepted any more, idle connections are closed, and the others have a time to
end. Their answers say `Connection: close`.
"""

from __future__ import annotations

import errno
import io
import sys
import time
import traceback
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import golibx
from golibx.frames import without_own_frames
from golibx.net import PASSING_ERRORS, Conn, Listener
from golibx.serve.accesslog import AccessLog, escaped
from golibx.serve.connection import Connection
from golibx.serve.requests import Limits
from golibx.serve.responses import FileWrapper
from golibx.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from golibx.schema import Serve

__all__ = ["Server", "say"]

_PAUSE_S = 0.05
"""Before the next attempt when a connection can't be accepted."""
_QUIET_S = 10.0
"""How often at most it is said that connections can't be accepted."""
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_NS = 1e9


class _NoBody:
    """The input of requests without a body: all of them have the same."""

    def read(self, _: int | None = -1, /) -> bytes:
        return b""

    def readline(self, _: int | None = -1, /) -> bytes:
        return b""

    def readlines(self, _: int | None = -1, /) -> list[bytes]:
        return []

    def __iter__(self) -> _NoBody:
        return self

    def __next__(self) -> bytes:
        raise StopIteration

    def close(self) -> None:
        pass


class Server:
    """Serves an application, in the run that it is made in.

    Args:
        application: for WSGI.
        settings: the table [serve].
        listeners: where; closed at the end.
        access_log: where requests are noted, or None.

    Attributes:
        application: the same.
        access_log: the same.
        limits: how large requests may be.
        idle: the connections that wait for another request, those first that do so longest.
        fresh: those that wait for their first one.
        is_stopping: whether the end has begun.
        gives_up_connections: whether answers end their connections: then, or when places are rare.
        header_timeout_s: how long a new connection may say nothing, and a head may take.
        idle_timeout_s: how long a connection may be idle after a request.
        io_timeout_s: how long nothing of a body may come, or nothing of an answer be taken.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        settings: Serve,
        listeners: Sequence[Listener],
        access_log: AccessLog | None,
    ) -> None:
        self.application = application
        self.access_log = access_log
        self.limits = Limits(
            settings.target_size, settings.header_size, settings.headers, settings.body_size
        )
        self.idle: dict[Connection, bool] = {}
        self.fresh: dict[Connection, bool] = {}
        self.is_stopping = False
        self.gives_up_connections = False
        self.header_timeout_s = settings.header_timeout_ns / _NS
        self.idle_timeout_s = settings.keep_alive_ns / _NS
        self.io_timeout_s = settings.io_timeout_ns / _NS
        self._listeners = listeners
        self._is_multiprocess = settings.workers > 1
        self._places = golibx.Semaphore(settings.connections)
        self._waiting = 0  # listeners with a connection for which there is no place
        self._stamp = ""
        self._stamp_until = 0.0
        self._quiet_until = 0.0
        self._acceptors: list[golibx.Goroutine[None]] = []

    def start(self) -> None:
        """Begins to accept connections."""
        if self.access_log is not None:
            self.access_log.start()
        for listener in self._listeners:
            base = self._environ_of(listener)
            self._acceptors.append(golibx.go(self._accept, listener, base))

    def stop(self, timeout: float) -> int:
        """Ends; returns how many connections were not done within so many seconds."""
        self.is_stopping = self.gives_up_connections = True
        for listener in self._listeners:
            listener.close()
        for acceptor in self._acceptors:
            acceptor.cancel()
            acceptor.join()
        for connection in [*self.idle, *self.fresh]:
            connection.close_if_waiting()
        is_done = self._places.acquire(self._places.size, timeout)
        left = 0 if is_done else self._places.size - self._places.available
        if self.access_log is not None:
            self.access_log.stop(1.0)
        return left

    # ---- accepting ----

    def _accept(self, listener: Listener, base: dict[str, Any]) -> None:
        """Starts a goroutine for each connection, as long as there are places."""
        while not self.is_stopping:
            if not self._places.try_acquire():
                self._wait_for_place(listener)
            try:
                conn, address = listener.accept()
            except OSError as exc:
                self._places.release()
                if listener.closed:
                    return
                self._bear(listener, exc)
                continue
            except BaseException:
                self._places.release()
                raise
            try:
                golibx.go(self._serve, conn, base, address)
            except BaseException as exc:
                conn.close()
                self._places.release()
                if not isinstance(exc, MemoryError):
                    raise
                self._bear(listener, OSError(errno.ENOMEM, "no memory for a goroutine"))

    def _serve(self, conn: Conn, base: dict[str, Any], address: Any) -> None:
        try:
            Connection(self, conn, base, address).serve()
        finally:
            conn.close()
            self._places.release()

    def _wait_for_place(self, listener: Listener) -> None:
        """Once a client waits that has none."""
        golibx.select(listener.on_accept())
        self._waiting += 1
        self.gives_up_connections = True
        try:
            self._close_longest_idle()
            self._places.acquire()
        finally:
            self._waiting -= 1
            self.gives_up_connections = False
            if self._waiting or self.is_stopping:  # looked at last: either may begin meanwhile
                self.gives_up_connections = True

    def _close_longest_idle(self) -> bool:
        """False if no connection is idle."""
        return any(connection.close_if_waiting() for connection in list(self.idle))

    def _bear(self, listener: Listener, exc: OSError) -> None:
        """A connection can't be accepted now."""
        if exc.errno == errno.ECONNABORTED:
            return  # it has gone before it was accepted
        room_made = exc.errno in _NO_DESCRIPTORS and self._close_longest_idle()
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_S
            again = "" if exc.errno in PASSING_ERRORS else ", which is unusual"
            text = f"can't accept connections{again}: {exc.strerror}; others are tried"
            say(f"{text} on {listener.address}")
        if not room_made:
            golibx.sleep(_PAUSE_S)

    # ---- what every request and response has ----

    def _environ_of(self, listener: Listener) -> dict[str, Any]:
        where = listener.address
        is_tcp = isinstance(where, tuple)
        host = where[0] if is_tcp else ""
        if host in ("", "0.0.0.0", "::"):
            host = "localhost"
        return {
            "SCRIPT_NAME": "",
            "SERVER_NAME": host,
            "SERVER_PORT": str(where[1]) if is_tcp else "80",
            "SERVER_SOFTWARE": f"golibx/{__version__}",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": _NoBody(),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr or io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": self._is_multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
        }

    def stamp(self) -> str:
        """The headers Server and Date, for the present second."""
        now = time.time()
        if now >= self._stamp_until:
            self._stamp = f"Server: golibx\r\nDate: {formatdate(now, usegmt=True)}\r\n"
            self._stamp_until = float(int(now) + 1)
        return self._stamp

    # ---- what goes wrong ----

    def report(self, environ: Mapping[str, Any], exc: BaseException) -> None:
        """The application has raised something: here it is, and the client hears nothing of it."""
        frames = without_own_frames(exc.__traceback__) or exc.__traceback__
        lines = traceback.format_exception(type(exc), exc, frames)
        say(f"{_request_of(environ)} failed:\n{''.join(lines)}".rstrip("\n"))

    def report_length(self, environ: Mapping[str, Any], shortfall: int) -> None:
        """The application has not kept to the Content-Length that it has named."""
        what = "less" if shortfall > 0 else "more"
        text = f"bytes {what} than its Content-Length has been given"
        say(f"{_request_of(environ)}: {abs(shortfall)} {text}")


def _request_of(environ: Mapping[str, Any]) -> str:
    return f"{environ['REQUEST_METHOD']} {escaped(environ['RAW_URI'])}"


def say(text: str) -> None:
    """On stderr, if there is one."""
    if sys.stderr is not None:
        sys.stderr.write(f"golibx: {text}\n")
        sys.stderr.flush()
