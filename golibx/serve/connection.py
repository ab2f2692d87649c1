"""One client: its requests one after the other, in a goroutine of its own.

The goroutine waits for the client most of the time, and then has little but itself: no buffer, no
request. How long it waits is bounded in each state: for a request to begin, for its head to be
whole, for more of its body, for room to send. Only the application takes as long as it likes.

A connection that waits for a request is on a list of the server's, and may be closed by that if
nothing has come. Whether it still was there when something came decides which of the two was
quicker: what has been taken off the list is not answered.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
import struct
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from golibx import _core
from golibx.errors import DeadlineExceeded
from golibx.serve.requests import Parser, Refused, Request
from golibx.serve.responses import Response

if TYPE_CHECKING:
    from golibx.net import Conn
    from golibx.serve.server import Server

__all__ = ["Connection", "Disconnected"]

_PART = 65536
_DRAINED_MAX = 65536
_LINGER_S = 2.0
_LINGER_MAX = 1 << 20
"""How long, and how much, is thrown away of what a client goes on to send that has its answer. A
socket that is closed with something unread would take the answer with it."""
_RESET = struct.pack("ii", 1, 0)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Disconnected(ConnectionError):
    """The client has gone, or takes nothing, or sends nothing, for too long."""


class Connection:
    """What one client asks, and is answered.

    Args:
        server: the server that it belongs to.
        conn: the socket, which is closed in the end.
        base: what the environment of each request has.
        address: the client's.

    Attributes:
        server: the server that it belongs to.
    """

    __slots__ = ("_conn", "_is_broken", "_parser", "_was_asked", "server")

    def __init__(self, server: Server, conn: Conn, base: dict[str, Any], address: Any) -> None:
        self.server = server
        self._conn = conn
        peer = (address[0], str(address[1])) if isinstance(address, tuple) else ("", "")
        self._parser = Parser(base, peer, server.limits)
        self._is_broken = False
        self._was_asked = False

    def serve(self) -> None:
        """Until the client, or the server, has had enough."""
        try:
            while (request := self._next_request()) is not None:
                self._was_asked = True
                if not self._answer(request):
                    break
        except Refused as exc:
            with contextlib.suppress(Disconnected):
                self._refuse(exc)
        except OSError:
            pass  # it has gone
        finally:
            self._waiting.pop(self, None)
            self._parser.close()
            self._conn.close()

    @property
    def _waiting(self) -> dict[Connection, bool]:
        """The server's list that this is on while it waits for a request."""
        return self.server.idle if self._was_asked else self.server.fresh

    def close_if_waiting(self) -> bool:
        """Closes it from elsewhere. False if a request is there, or has just come."""
        try:
            self._conn.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            if self._waiting.pop(self, False):
                self._conn.close()
                return True
        except OSError:
            pass  # its own goroutine is about to see that
        return False

    # ---- receiving ----

    def _next_request(self) -> Request | None:
        """Waits for a request. None if there will be none. Raises Refused and OSError."""
        parser, server, conn = self._parser, self.server, self._conn
        requests = parser.requests
        while not requests:
            if parser.error is not None:
                raise parser.error
            if parser.rest:
                parser.feed_rest()
                continue
            if parser.silent:
                if not self._receive_head():
                    return None
                continue
            if self._was_asked:
                waiting, timeout = server.idle, server.idle_timeout_s
            else:
                waiting, timeout = server.fresh, server.header_timeout_s
            waiting[self] = True  # first: a thread that stops the server closes those in there
            if server.gives_up_connections and (self._was_asked or server.is_stopping):
                timeout = 0  # what is there is answered
            conn.settimeout(timeout)
            try:
                data = conn.recv(_PART)
            except OSError:  # the time is over, the server has closed it, or the client has
                return None
            if not waiting.pop(self, False) or not data:
                return None
            parser.feed(data)
        return requests.pop(0)

    def _receive_head(self) -> bool:
        """Waits for all of a head that has begun. False if the client has gone."""
        parser = self._parser
        until = time.monotonic() + self.server.header_timeout_s
        while not parser.requests and parser.error is None:
            self._conn.settimeout(max(until - time.monotonic(), 0.001))
            try:
                data = self._conn.recv(_PART)
            except DeadlineExceeded:
                status = HTTPStatus.REQUEST_TIMEOUT
                raise Refused(status, "the head of a request has not come in time") from None
            if not data:
                return False
            parser.feed(data)
            while parser.rest and not parser.requests and parser.error is None:
                parser.feed_rest()
        return True

    def receive_body(self, request: Request) -> bool:
        """Waits for more of the body. False if there is none.

        Raises:
            Refused: it is too large, or not made of chunks as it should be.
            Disconnected: the client has gone, or has stopped.
        """
        parser = self._parser
        while not request.parts:
            if request.complete:
                return False
            if parser.error is not None:
                raise parser.error
            if parser.rest:
                parser.feed_rest()
                continue
            if request.expects:
                request.expects = False
                self.send(_CONTINUE)
            try:
                data = self._conn.recv(_PART)
            except OSError as exc:
                self._is_broken = True
                raise Disconnected(f"the client's body does not go on: {exc}") from None
            if not data:
                self._is_broken = True
                raise Disconnected("the client has gone before its body had ended")
            parser.feed(data)
        return True

    # ---- answering ----

    def _answer(self, request: Request) -> bool:
        """Has the application answer it. Returns whether the connection is for more requests."""
        server = self.server
        self._conn.settimeout(server.io_timeout_s)
        began = time.time() if server.access_log is not None else 0.0
        environ = request.environ
        body: io.IOBase | None = None
        if request.length:
            body = self._body_of(request)
            environ["wsgi.input"] = body
        response = Response(self, request)
        result: Any = None
        try:
            result = server.application(environ, response.start)
            response.give(result)
        except (Exception, SystemExit) as exc:
            self._answer_failure(request, response, exc)
        finally:
            if type(result) is not list and hasattr(result, "close"):
                self._close_result(request, result)
            # Code that has kept it must not read what belongs to another request.
            if body is not None:
                body.close()
            if server.access_log is not None:
                server.access_log.add(environ, response.status, response.sent, began)
        if response.shortfall:
            server.report_length(environ, response.shortfall)
        if self._is_broken:
            return False
        if not request.complete and not (response.keeps_alive and self._drain(request)):
            self._linger()
            return False
        return response.keeps_alive and self._parser.error is None

    def _body_of(self, request: Request) -> io.IOBase:
        parser = self._parser
        while parser.rest and not request.complete and parser.error is None:
            parser.feed_rest()
        if request.complete:
            parts, request.parts = request.parts, ()
            return io.BytesIO(parts[0] if len(parts) == 1 else b"".join(parts))
        return io.BufferedReader(_Body(self, request))

    def _close_result(self, request: Request, result: Any) -> None:
        try:
            result.close()
        except (Exception, SystemExit) as exc:
            self.server.report(request.environ, exc)

    def _answer_failure(self, request: Request, response: Response, exc: BaseException) -> None:
        """What the application has raised."""
        if self._is_broken:
            return  # it has been told, and there is no other to tell
        if exc is self._parser.error:
            assert isinstance(exc, Refused)
            status, text = exc.status, exc.why
        else:
            self.server.report(request.environ, exc)
            status, text = HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error"
        if response.is_begun:
            self._abort()
        else:
            response.fail(status, text)

    def _abort(self) -> None:
        """Has the client see that its answer is not whole."""
        self._is_broken = True
        self._conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _refuse(self, refused: Refused) -> None:
        """Answers what has not become a request."""
        self._conn.settimeout(_LINGER_S)
        status = refused.status
        text = f"{refused.why}\n".encode("latin-1", "replace")
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"Content-Type: text/plain; charset=latin-1\r\nContent-Length: {len(text)}\r\n"
            f"Connection: close\r\n{self.server.stamp()}\r\n"
        )
        self.send(head.encode("latin-1") + text)
        if status is not HTTPStatus.REQUEST_TIMEOUT:  # when nothing comes any more
            self._linger()

    def send(self, data: bytes) -> None:
        """Sends all of it. Raises Disconnected."""
        conn = self._conn
        try:
            sent = conn.send(data)
            if sent < len(data):
                rest = memoryview(data)[sent:]
                while rest:
                    rest = rest[conn.send(rest) :]
        except OSError as exc:
            self._is_broken = True
            raise Disconnected(f"the client does not take its answer: {exc}") from None

    def send_file(self, descriptor: int, at: int, size: int) -> int:
        """Sends that much of a file, or what there is; returns how much. Raises Disconnected."""
        conn, end = self._conn, at + size
        try:
            while at < end:
                try:
                    given = os.sendfile(conn.fileno(), descriptor, at, end - at)
                except BlockingIOError:
                    self._wait_for_room()
                    continue
                if not given:
                    break
                at += given
        except OSError as exc:
            self._is_broken = True
            raise Disconnected(f"the client does not take its answer: {exc}") from None
        return size - (end - at)

    def _wait_for_room(self) -> None:
        _, _, is_open = _core.select(self._conn.on_writable(), timeout=self.server.io_timeout_s)
        if not is_open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    # ---- ending ----

    def _drain(self, request: Request) -> bool:
        """Throws the rest of a body away. False if that would be much, or does not come."""
        most = request.received + _DRAINED_MAX
        try:
            while self.receive_body(request):
                request.parts = []
                if request.received > most:
                    return False
        except OSError:
            return False
        return True

    def _linger(self) -> None:
        """Lets the client read its answer before the connection is closed."""
        if self._is_broken:
            return
        conn = self._conn
        until = time.monotonic() + _LINGER_S
        thrown_away = 0
        try:
            conn.shutdown(socket.SHUT_WR)
            while thrown_away < _LINGER_MAX and (left := until - time.monotonic()) > 0:
                conn.settimeout(left)
                data = conn.recv(_PART)
                if not data:
                    break
                thrown_away += len(data)
        except OSError:
            pass


class _Body(io.RawIOBase):
    """The input of the application, under a buffer: what comes of a body while it is read."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self._part = memoryview(b"")

    def readable(self) -> bool:
        return True

    def _more(self) -> bool:
        """Whether there is a part that has not been read."""
        if not self._part:
            request = self._request
            if not self._connection.receive_body(request):
                return False
            parts, request.parts = request.parts, []
            self._part = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._more():
            return 0
        part = self._part[: len(buffer)]
        buffer[: len(part)] = part
        self._part = self._part[len(part) :]
        return len(part)

    def readall(self) -> bytes:
        parts = []
        while self._more():
            parts.append(self._part)
            self._part = memoryview(b"")
        return b"".join(parts)
