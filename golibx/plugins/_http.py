"""The small HTTP server of the plugins that answer requests: one service thread, for one program.

It is meant for a page or a scrape on the same machine, beside a program that has other things to
do. All connections are served by one thread, which waits for all of them at once: a client that
sends or reads slowly keeps no other waiting. Everything is bounded (`Limits`): a connection is
closed when its time is over; where there are too many, the one goes that has the least time left; a
request that is too long or one too many is refused. One request for each connection, no chunks.

It is a thread, not a goroutine: it needs no turn, and so answers while goroutines compute; and
while a goroutine waited for a socket, the scheduler would look at the network all the time.

A plugin that answers has to look who asks: `is_local_name` says whether `Host:` names this machine,
and `is_same_origin` whether a page of another site has sent the request.
"""

from __future__ import annotations

import ipaddress
import os
import re
import select
import socket
import sys
import time
import traceback
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from threading import Thread
    from typing import TypeAlias

__all__ = [
    "Limits",
    "Request",
    "Response",
    "Server",
    "host_of",
    "is_local_name",
    "is_loopback",
    "is_same_origin",
    "open_listener",
    "problem_of",
]

HEAD_BYTES = 8192
"""The most that a request may have before its body."""
_PART = 65536
_BACKLOG = 64
_NO_ROOM_NS = 100_000_000
"""How long no connection is accepted when there are no more descriptors."""
_TRY_AGAIN_NS = 1_000_000_000
_LOCAL_NAMES = ("localhost", "")
_ONCE = {"authorization", "content-length", "content-type", "host", "origin"}
"""Headers that mean nothing if there are two of them."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Limits(NamedTuple):
    """How much clients may ask for."""

    connections: int
    """How many at a time. A further one takes the place of that which has the least time left."""
    body_bytes: int
    """The most that the body of a request may have."""
    requests: int
    """How many a second; 0: any number."""
    timeout_ns: int
    """How long a request may take to arrive, and again the answer to be fetched."""


class Request(NamedTuple):
    """What a client asks."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes


class Response(NamedTuple):
    """What is answered."""

    status: int
    body: str | bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {}


Answer: TypeAlias = "Callable[[Request], Response]"


class _Refused(Exception):
    """A request that is not even handed on."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.response = Response(status, f"{text}\n")


class _Connection:
    """A client: first what has come from it, then what has yet to be sent.

    Attributes:
        due_ns: when it is closed.
        incoming: what has come of the request.
        needed: how many bytes the request has at least, as far as is known.
        outgoing: what is left of the answer; None: there is none yet.
        is_answered: all is sent, and it is the other side that is waited for.
    """

    __slots__ = ("due_ns", "incoming", "is_answered", "needed", "outgoing", "socket")

    def __init__(self, sock: socket.socket, due_ns: int) -> None:
        self.socket = sock
        self.due_ns = due_ns
        self.incoming = bytearray()
        self.needed = 0
        self.outgoing: memoryview | None = None
        self.is_answered = False


_servers: WeakSet[Server] = WeakSet()


def _leave_to_parent() -> None:
    """In the child of a fork: it answers no client, and must not keep the port."""
    for server in _servers:
        server.abandon()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_leave_to_parent)


class Server:
    """Answers requests in a service thread.

    Args:
        listener: where; None: nowhere, and only `tick` is called.
        answer: makes the answer to a request; whatever it raises is a 500, and said on stderr.
        limits: how much clients may ask for.
        tick: called now and then; does what is due, and returns after how many nanoseconds at most
            it wants the next call; None: never. What it raises is said on stderr, once.
        name: for what is said on stderr.
    """

    def __init__(
        self,
        listener: socket.socket | None,
        answer: Answer,
        limits: Limits,
        *,
        name: str,
        tick: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._listener = listener
        self._answer = answer
        self._limits = limits
        self._tick = tick
        self._name = name
        self._connections: dict[int, _Connection] = {}
        self._poll = select.poll()
        self._allowance = float(limits.requests)
        self._allowed_ns = time.monotonic_ns()
        self._closed_until_ns = 0
        self._has_failed = False
        self._thread: Thread | None = None

    def start(self, start_thread: Callable[[Callable[[], object]], Thread]) -> None:
        """Begins, by runtime.start_thread()."""
        self._waker = os.pipe()
        self._poll.register(self._waker[0], select.POLLIN)
        if self._listener is not None:
            self._listener.setblocking(False)
            self._poll.register(self._listener, select.POLLIN)
            _servers.add(self)
        self._thread = start_thread(self._serve)

    def stop(self) -> None:
        """Ends; a client that has no answer yet gets none."""
        if self._thread is None:
            return
        os.write(self._waker[1], b".")
        self._thread.join()
        self._thread = None
        for end in self._waker:
            os.close(end)
        self.abandon()

    def abandon(self) -> None:
        """Closes what this process has of it."""
        _servers.discard(self)
        if self._listener is not None:
            self._listener.close()
        for connection in self._connections.values():
            connection.socket.close()
        self._connections.clear()

    # ---- the thread ----

    def _serve(self) -> None:
        while True:
            wait_ns = self._until_next()
            for descriptor, _ in self._poll.poll(None if wait_ns is None else wait_ns / 1e6):
                if descriptor == self._waker[0]:
                    return
                if self._listener is not None and descriptor == self._listener.fileno():
                    self._accept()
                elif connection := self._connections.get(descriptor):  # else it made room
                    self._go_on(connection)
            self._end_those_late()

    def _until_next(self) -> int | None:
        """How many nanoseconds there is nothing to do, unless a client asks; None: for ever."""
        tick_ns = self._try_to_tick()
        now_ns = time.monotonic_ns()
        due = [connection.due_ns - now_ns for connection in self._connections.values()]
        if tick_ns is not None:
            due.append(tick_ns)
        if self._closed_until_ns:
            due.append(self._closed_until_ns - now_ns)
        return max(min(due), 0) if due else None

    def _try_to_tick(self) -> int | None:
        try:
            return self._tick()
        except Exception:  # What is due must not end the server either.
            self._report("has failed in what it does now and then, and tries again")
            return _TRY_AGAIN_NS

    def _report(self, what: str) -> None:
        """Says on stderr why, once: it may fail for each request."""
        if not self._has_failed and sys.stderr is not None:
            self._has_failed = True
            sys.stderr.write(f"golibx: {self._name} {what}:\n{traceback.format_exc()}")

    def _end_those_late(self) -> None:
        now_ns = time.monotonic_ns()
        for connection in [*self._connections.values()]:
            if connection.due_ns <= now_ns:
                self._close(connection)
        if 0 < self._closed_until_ns <= now_ns:
            self._closed_until_ns = 0
            assert self._listener is not None
            self._poll.register(self._listener, select.POLLIN)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has hung up
        except OSError:  # there are no descriptors left: the connection stays where it is
            self._closed_until_ns = time.monotonic_ns() + _NO_ROOM_NS
            self._poll.unregister(self._listener)
            return
        if len(self._connections) >= self._limits.connections:
            self._close(min(self._connections.values(), key=lambda each: each.due_ns))
        sock.setblocking(False)
        connection = _Connection(sock, time.monotonic_ns() + self._limits.timeout_ns)
        self._connections[sock.fileno()] = connection
        self._poll.register(sock, select.POLLIN)
        self._go_on(connection)

    def _close(self, connection: _Connection) -> None:
        descriptor = connection.socket.fileno()
        if self._connections.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)
            connection.socket.close()

    def _go_on(self, connection: _Connection) -> None:
        try:
            if connection.outgoing is None:
                self._receive(connection)
            elif not connection.is_answered:
                self._send(connection)
            # What comes now is thrown away. A reset would take the answer with it.
            elif not connection.socket.recv(_PART):
                self._close(connection)
        except BlockingIOError:
            pass
        except OSError:  # it has hung up
            self._close(connection)

    def _receive(self, connection: _Connection) -> None:
        part = connection.socket.recv(_PART)
        if not part:
            self._close(connection)
            return
        connection.incoming += part
        if len(connection.incoming) < connection.needed:
            return
        is_head = False
        try:
            request = _parse(bytes(connection.incoming), self._limits.body_bytes)
            if isinstance(request, int):
                connection.needed = request
                return
            is_head = request.method == "HEAD"
            response = self._response_to(request)
        except _Refused as exc:
            response = exc.response
        connection.incoming.clear()
        connection.outgoing = memoryview(_encode(response, head_only=is_head))
        connection.due_ns = time.monotonic_ns() + self._limits.timeout_ns
        self._poll.modify(connection.socket, select.POLLOUT)
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        assert connection.outgoing is not None
        sent = connection.socket.send(connection.outgoing)
        connection.outgoing = connection.outgoing[sent:]
        if not connection.outgoing:
            connection.is_answered = True
            connection.socket.shutdown(socket.SHUT_WR)
            self._poll.modify(connection.socket, select.POLLIN)

    def _response_to(self, request: Request) -> Response:
        if not self._is_allowed():
            text = f"more than {self._limits.requests} requests a second"
            return Response(429, f"{text}\n", headers={"Retry-After": "1"})
        try:
            return self._answer(request)
        except Exception:  # A request must not end the server.
            self._report(f"can't answer {request.path}")
            return Response(500, "this request could not be answered: stderr has the reason\n")

    def _is_allowed(self) -> bool:
        """Whether this is not one request too many: those of a second may come all at once."""
        rate = self._limits.requests
        if not rate:
            return True
        now_ns = time.monotonic_ns()
        gained = (now_ns - self._allowed_ns) / 1e9 * rate
        self._allowance = min(self._allowance + gained, float(rate))
        self._allowed_ns = now_ns
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


# ---- requests and answers as text ----


def _parse(data: bytes, body_limit: int) -> Request | int:
    """The request; if it is not complete, how many bytes it has at least. Raises _Refused."""
    head, end, body = data.partition(b"\r\n\r\n")
    if len(head) > HEAD_BYTES:
        raise _Refused(431, f"the head of a request has at most {HEAD_BYTES} bytes")
    if not end:
        return len(data) + 1
    lines = head.decode("latin-1").split("\r\n")
    method, _, rest = lines[0].partition(" ")
    target, _, version = rest.rpartition(" ")
    if not version.startswith("HTTP/1.") or not target.startswith("/"):
        raise _Refused(400, "this is not a request of HTTP/1")
    headers = _headers(lines[1:])
    if "transfer-encoding" in headers:
        raise _Refused(411, "a body needs a Content-Length, and comes as it is")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or not length.isascii():
        raise _Refused(400, "Content-Length is not a number")
    if len(length) > len(str(body_limit)) or int(length) > body_limit:
        raise _Refused(413, f"the body of a request has at most {body_limit} bytes")
    if len(body) < int(length):
        return len(data) - len(body) + int(length)
    path, _, query = target.partition("?")
    try:
        found = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=32))
    except ValueError:
        raise _Refused(400, "too many fields in the query") from None
    return Request(method, path, found, headers, body[: int(length)])


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not _NAME.fullmatch(name):
            raise _Refused(400, "this is not a header")
        if name in headers and name in _ONCE:
            raise _Refused(400, f"there is more than one {name}")
        headers[name] = value.strip(" \t")
    return headers


def _encode(response: Response, *, head_only: bool) -> bytes:
    data = response.body.encode() if isinstance(response.body, str) else response.body
    more = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
    head = (
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n"
        f"Content-Type: {response.content_type}\r\nContent-Length: {len(data)}\r\n"
        f"{more}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if head_only else data)


# ---- where a request is from ----


def host_of(host: str) -> str:
    """The name in a header `Host:`, without the port and the brackets of IPv6; in lower case."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.strip("[]").lower()


def is_local_name(host: str) -> bool:
    """Whether a header `Host:` names this machine as only it is named.

    A page in a browser can have a name of its own lead to 127.0.0.1, and would be of the same
    origin then; but it can't have it be one of these.
    """
    name = host_of(host)
    return name in _LOCAL_NAMES or is_loopback(name)


def is_loopback(address: str) -> bool:
    """Whether it is an IP address that only this machine reaches."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_same_origin(headers: Mapping[str, str]) -> bool:
    """Whether it was no page of another site that has sent the request.

    Browsers say so by `Origin:` and `Sec-Fetch-Site:`. Other programs send neither.
    """
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    origin, host = headers.get("origin"), headers.get("host", "").lower()
    return origin is None or origin.lower() in (f"http://{host}", f"https://{host}")


# ---- where to listen ----


def problem_of(listen: str, *, is_remote: bool) -> str:
    """What keeps "host:port" from being listened on, or ""."""
    host, colon, port = listen.rpartition(":")
    is_bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not colon or not port.isdecimal() or int(port) > 65535 or is_bare_ipv6:
        return 'not "host:port", such as "127.0.0.1:9464" or "[::1]:9464"'
    host = host.strip("[]")
    try:
        found = socket.getaddrinfo(
            host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as exc:
        return f"no address of this machine: {exc.strerror}"
    if not is_remote and not all(is_loopback(str(where[0])) for *_, where in found):
        return "other hosts reach it: set remote = true if they are to, or listen on 127.0.0.1"
    try:
        open_listener(listen).close()
    except OSError as exc:
        return f"can't be listened on: {os.strerror(exc.errno or 0)}"
    return ""


def open_listener(listen: str) -> socket.socket:
    """A listening socket for "host:port". Raises OSError."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not host and socket.has_dualstack_ipv6():
        address = ("", int(port))
        return socket.create_server(
            address, family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
        )
    family, *_ = socket.getaddrinfo(host or "0.0.0.0", int(port), type=socket.SOCK_STREAM)[0]
    return socket.create_server((host, int(port)), family=family, backlog=_BACKLOG)
