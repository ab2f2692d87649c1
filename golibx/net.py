"""TCP for goroutines: dial, listen and serve. Waiting for the network parks only the goroutine.

Addresses are ("host", port) or "host:port"; an IPv6 host in the latter form stands in brackets,
"[::1]:8000". An empty host means all interfaces when listening, this machine when dialling.
"""

from __future__ import annotations

import errno
import io
import os
import socket
from typing import TYPE_CHECKING, Any, overload

from golibx import _core
from golibx.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Literal, Self, TypeAlias

    Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | str
    SocketAddress: TypeAlias = tuple[Any, ...]
    _BinaryBothMode: TypeAlias = Literal["rwb", "rbw", "wrb", "wbr", "brw", "bwr"]
    _BinaryMode: TypeAlias = Literal["b", "rb", "br", "wb", "bw"] | _BinaryBothMode

__all__ = ["Conn", "Listener", "dial", "listen", "serve"]

DEFAULT_BACKLOG = 4096  # the kernel's net.core.somaxconn, which caps it, is 4096 since Linux 5.4


class _Socket(_core.Socket):
    """What connections and listeners have in common."""

    __slots__ = ()

    @property
    def family(self) -> socket.AddressFamily:
        """socket.AF_INET or socket.AF_INET6."""
        return socket.AddressFamily(self._family)

    def __enter__(self) -> Self:
        return self

    @_core.whole
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Conn(_Socket):
    """A TCP connection, with the methods of a socket.

    Small messages are sent at once (TCP_NODELAY). An operation that takes longer than
    settimeout() allows raises DeadlineExceeded, which is a TimeoutError. One goroutine may read
    while another writes.
    """

    __slots__ = ()

    def getpeername(self) -> SocketAddress:
        """The address of the other end, as socket.getpeername()."""
        return self._getpeername()

    @overload
    def makefile(
        self,
        mode: _BinaryMode,
        buffering: Literal[0],
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.RawIOBase: ...
    @overload
    def makefile(
        self,
        mode: _BinaryBothMode,
        buffering: Literal[-1, 1] | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.BufferedRWPair: ...
    @overload
    def makefile(
        self,
        mode: Literal["rb", "br", "b"],
        buffering: Literal[-1, 1] | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.BufferedReader: ...
    @overload
    def makefile(
        self,
        mode: Literal["wb", "bw"],
        buffering: Literal[-1, 1] | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.BufferedWriter: ...
    @overload
    def makefile(
        self,
        mode: _BinaryMode,
        buffering: int,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.IOBase: ...
    @overload
    def makefile(
        self,
        mode: Literal["r", "w", "rw", "wr", ""] = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.TextIOWrapper: ...

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.IOBase:
        """A file over the connection, as socket.makefile(). Closing it leaves that open.

        A read that a time-out or a cancellation ends may have taken something already: later reads
        of the file raise OSError, so that nothing is missing from what they return.
        """
        if not set(mode) <= {"r", "w", "b"}:
            raise ValueError(f"invalid mode {mode!r} (only r, w, b allowed)")
        writing = "w" in mode
        reading = "r" in mode or not writing
        raw = _ConnIO(self, reading=reading, writing=writing)
        if buffering == 0:
            if "b" not in mode:
                raise ValueError("unbuffered streams must be binary")
            return raw
        size = io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 0 else buffering
        buffered: io.BufferedIOBase
        if reading and writing:
            buffered = io.BufferedRWPair(raw, raw, size)
        elif reading:
            buffered = io.BufferedReader(raw, size)
        else:
            buffered = io.BufferedWriter(raw, size)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(  # type: ignore[type-var]
            buffered,
            io.text_encoding(encoding),
            errors,
            newline,
        )
        text.mode = mode  # type: ignore[misc]
        return text

    def __repr__(self) -> str:
        if self.closed:
            return "<golibx.net.Conn closed>"
        return f"<golibx.net.Conn {self.getsockname()} fd={self.fileno()}>"


class _ConnIO(io.RawIOBase):
    """The raw stream under Conn.makefile(), as socket.SocketIO."""

    def __init__(self, conn: Conn, *, reading: bool, writing: bool) -> None:
        self._conn = conn
        self._reading = reading
        self._writing = writing
        self._cut_short: str | None = None

    def readable(self) -> bool:
        return self._reading and not self._is_closed()

    def writable(self) -> bool:
        return self._writing and not self._is_closed()

    def _is_closed(self) -> bool:
        if self.closed:
            raise ValueError("I/O operation on closed socket.")
        return False

    def readinto(self, buffer: Any) -> int | None:
        if not self.readable():
            raise io.UnsupportedOperation("not readable")
        # What a buffer above had collected for a line is gone with the exception.
        if self._cut_short is not None:
            raise OSError(f"cannot read from {self._cut_short} object")
        try:
            return self._conn.recv_into(buffer)
        except BlockingIOError:
            return None
        except TimeoutError:
            self._cut_short = "timed out"
            raise
        except OSError:
            raise
        except BaseException:
            self._cut_short = "interrupted"
            raise

    def write(self, data: Any) -> int | None:
        if not self.writable():
            raise io.UnsupportedOperation("not writable")
        try:
            return self._conn.send(data)
        except BlockingIOError:
            return None

    def fileno(self) -> int:
        self._is_closed()
        return self._conn.fileno()

    @property
    def name(self) -> int:
        return -1 if self.closed else self._conn.fileno()

    @property
    def mode(self) -> str:
        return "r" * self._reading + "w" * self._writing + "b"


class Listener(_Socket):
    """A listening TCP socket."""

    __slots__ = ()

    def accept(self) -> tuple[Conn, SocketAddress]:  # type: ignore[override]
        """Waits for a connection; returns it and the address of its other end."""
        return super().accept(Conn)

    def on_accept(self) -> _core.Case:
        """A case for select(): accept() would not wait. Gives the listener."""
        return self.on_readable()

    @property
    def address(self) -> SocketAddress:
        """Where it listens: ("host", port), and two more items for IPv6."""
        return self.getsockname()

    def __iter__(self) -> Iterator[Conn]:
        """The connections, until the listener is closed."""
        while True:
            try:
                conn, _ = self.accept()
            except OSError as exc:
                if self.closed and exc.errno == errno.EBADF:
                    return
                raise
            yield conn

    def __repr__(self) -> str:
        if self.closed:
            return "<golibx.net.Listener closed>"
        return f"<golibx.net.Listener {self.address} fd={self.fileno()}>"


def listen(
    address: Address, *, backlog: int = DEFAULT_BACKLOG, reuse_port: bool = False
) -> Listener:
    """Listens on a TCP address.

    Args:
        address: where; port 0 lets the system choose, see Listener.address.
        backlog: connections that may wait to be accepted; the system has a limit of its own.
        reuse_port: let several processes listen on the same address (SO_REUSEPORT).

    Raises:
        OSError: the address can't be used.
        ValueError: it is not an address.
    """
    plain = listening_socket(address, backlog=backlog, reuse_port=reuse_port)
    try:
        return _core.adopt_socket(Listener, plain)
    except BaseException:
        plain.close()
        raise


def listening_socket(
    address: Address, *, backlog: int = DEFAULT_BACKLOG, reuse_port: bool = False
) -> socket.socket:
    """What listen() makes a Listener of: a socket of the standard library, which does not block."""
    host, port = _split(address)
    last_error: OSError | None = None
    for family, kind, proto, _, where in _resolve(host, port, passive=True):
        plain = socket.socket(family, kind, proto)
        try:
            plain.setblocking(False)
            if os.name == "posix":
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6 and host:
                plain.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            plain.bind(where)
            plain.listen(backlog)
            return plain
        except OSError as exc:
            plain.close()
            last_error = OSError(exc.errno, f"cannot listen on {_text(host, port)}: {exc.strerror}")
            continue
        except BaseException:
            plain.close()
            raise
    assert last_error is not None
    raise last_error


def dial(address: Address, timeout: float | None = None) -> Conn:
    """Connects to a TCP address; tries each address that the host name has.

    Args:
        address: where.
        timeout: seconds until DeadlineExceeded is raised; None waits as long as the system does.
            It does not bound the look-up of a host name.

    Raises:
        DeadlineExceeded: the time was up.
        OSError: no program accepts connections there.
        ValueError: it is not an address.
    """
    host, port = _split(address)
    last_error: OSError | None = None
    for family, kind, proto, _, where in _resolve(host, port, passive=False):
        plain = socket.socket(family, kind, proto)
        try:
            plain.setblocking(False)
            code = plain.connect_ex(where)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            conn = _core.adopt_socket(Conn, plain)
        except OSError as exc:
            plain.close()
            last_error = _dial_error(exc, host, port)
            continue
        except BaseException:
            plain.close()
            raise
        try:
            if code == errno.EINPROGRESS:
                conn.wait_write(timeout)
                code = int(conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                if code:
                    raise OSError(code, os.strerror(code))
            conn.no_delay()
        except DeadlineExceeded as exc:
            conn.close()
            if exc.context is not None:
                raise  # that of the ambient context
            raise DeadlineExceeded(
                f"connecting to {_text(host, port)} took over {timeout} s"
            ) from None
        except OSError as exc:
            conn.close()
            last_error = _dial_error(exc, host, port)
            continue
        except BaseException:
            conn.close()
            raise
        return conn
    assert last_error is not None
    raise last_error


def serve(
    handler: Callable[[Conn], object],
    address: Address | Listener,
    *,
    backlog: int = DEFAULT_BACKLOG,
) -> None:
    """Accepts connections for ever and calls `handler(conn)` in a goroutine for each.

    The connection is closed when the handler returns. Returns when the listener is closed. When
    the process is out of file descriptors, it waits for some to become free.

    Args:
        handler: gets the Conn. An exception it raises ends that goroutine only, and is reported.
        address: where to listen, or a Listener, which serve() closes at its end.
        backlog: as in listen().

    Raises:
        TypeError: `handler` is a coroutine function.
    """
    callee = _core.async_callee(handler)
    if callee is not None:
        name, is_generator = callee
        what = "is an async generator" if is_generator else "is async"
        remedy = (
            "golibx.aio.run(...) in a handler awaits a coroutine that has `async for` over it"
            if is_generator
            else f"golibx.aio.run({name}(...)) in a handler awaits it"
        )
        raise TypeError(
            f"serve() needs a handler that runs when it is called, and {name}() {what}: {remedy}"
        )
    listener = address if isinstance(address, Listener) else listen(address, backlog=backlog)
    go = _core.go
    with listener:
        while True:
            try:
                conn, _ = listener.accept()
            except OSError as exc:
                if exc.errno == errno.EBADF and listener.closed:
                    return
                if exc.errno not in PASSING_ERRORS:
                    raise
                _core.sleep(_PASSING_ERROR_PAUSE)
                continue
            go(_handle, handler, conn)


# Nothing is wrong with the listener: too many descriptors or too little memory for now, or the peer
# has gone before it was accepted.
PASSING_ERRORS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED}
)
_PASSING_ERROR_PAUSE = 0.05  # seconds


def _handle(handler: Callable[[Conn], object], conn: Conn) -> None:
    try:
        handler(conn)
    finally:
        conn.close()


def _split(address: Address) -> tuple[str, int]:
    if isinstance(address, tuple):
        if len(address) < 2 or not isinstance(address[0], str) or not isinstance(address[1], int):
            raise ValueError(f'an address is ("host", port) or "host:port", not {address!r}')
        host, port = address[0], address[1]
    elif isinstance(address, str):
        host, colon, port_text = address.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"an IPv6 host needs brackets, [host]:port; got {address!r}")
        if not colon or not port_text.isdecimal():
            raise ValueError(f'an address is ("host", port) or "host:port", not {address!r}')
        port = int(port_text)
    else:
        raise TypeError(f'an address is ("host", port) or "host:port", not {address!r}')
    if not 0 <= port <= 65535:
        raise ValueError(f"a port is between 0 and 65535, not {port}")
    return host, port


def _resolve(host: str, port: int, *, passive: bool) -> list[tuple[Any, Any, int, str, Any]]:
    flags = socket.AI_PASSIVE if passive else 0
    if not host and not passive:
        host = "localhost"
    # A look-up may take long; it blocks this goroutine only, since it releases the interpreter.
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    if passive and not host:
        # One IPv6 socket takes IPv4 connections too.
        found.sort(key=lambda item: item[0] != socket.AF_INET6)
    return found


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _dial_error(exc: OSError, host: str, port: int) -> OSError:
    return OSError(exc.errno, f"cannot connect to {_text(host, port)}: {exc.strerror}")
