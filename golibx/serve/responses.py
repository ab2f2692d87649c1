"""What an application answers, to bytes: start_response(), write(), and how a body ends.

A body ends where its Content-Length says, with the last chunk, or with the connection: the first if
the application names a length or gives all of the body as a list, the second in HTTP/1.1 otherwise,
the third in HTTP/1.0. How a connection is used is for the server to say. So headers of the
application about that (Connection, Transfer-Encoding and the like) are left out, but for
`Connection: close`, which is done. Control characters in what becomes a line are refused: they
would let a client's text begin a header, or a second response.
"""

from __future__ import annotations

import io
import os
import re
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from http import HTTPStatus

    from golibx.serve.connection import Connection
    from golibx.serve.requests import Request

__all__ = ["FileWrapper", "Response"]

_STATUS = re.compile(r"[2-9]\d\d [\t\x20-\x7e\x80-\xff]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_PLAIN, _LENGTH, _DATE, _SERVER = 0, 1, 2, 4
_LEFT_OUT, _CONNECTION = 8, 9
_BODILESS = ("204", "304")
_KINDS = {
    "connection": _CONNECTION,
    "content-length": _LENGTH,
    "date": _DATE,
    "keep-alive": _LEFT_OUT,
    "proxy-connection": _LEFT_OUT,
    "server": _SERVER,
    "te": _LEFT_OUT,
    "trailer": _LEFT_OUT,
    "transfer-encoding": _LEFT_OUT,
    "upgrade": _LEFT_OUT,
}
_KNOWN_MAX = 1000
_kinds: dict[str, int] = {}
"""What a header's name means here, for names that are known to be right."""
_statuses: dict[str, str] = {}
"""The first line for a status that is known to be right."""
_COPIED_MAX = 65536
"""The largest body that is copied behind its head, to be sent in one go."""
_DRAINED_MAX = 65536
"""How much of a body that the application has not read is read for the connection to be kept."""


class FileWrapper:
    """The environment's wsgi.file_wrapper: a file as the blocks that it has.

    Where it is the whole result of the application and a file of the system, its bytes go from
    there to the socket.

    Args:
        file: has read(), and may have close().
        block_size: bytes to read at a time.
    """

    def __init__(self, file: Any, block_size: int = 65536) -> None:
        self.file = file
        self.block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(self.block_size), b"")

    def whole_file(self) -> tuple[int, int, int] | None:
        """Its descriptor, where it is, and the bytes from there on; None if it has none of that."""
        raw = self.file if isinstance(self.file, io.FileIO) else getattr(self.file, "raw", None)
        if not isinstance(raw, io.FileIO):  # others may have a descriptor and bytes of their own
            return None
        try:
            self.file.flush()
            at = self.file.tell()
            found = os.fstat(raw.fileno())
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return raw.fileno(), at, max(found.st_size - at, 0)


class Response:
    """The answer to one request.

    Attributes:
        status: of the first line, "" before start_response().
        keeps_alive: whether the connection is for more requests.
        is_begun: whether its head has been sent.
        sent: how many bytes of the body were.
        shortfall: how many the application has given less than it said, or, below 0, more.
    """

    _headers = ""
    _own = 0  # which of Date and Server are the application's
    _length = _left = -1
    _in_chunks = False
    _is_bodiless = False
    status = ""
    is_begun = False
    sent = 0
    shortfall = 0

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self.keeps_alive = request.keeps_alive

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], None]:
        """The start_response() of the application."""
        if exc_info is not None or self.status:
            try:
                self._check_again(exc_info)
            finally:
                exc_info = None  # which refers to this frame
        first = _statuses.get(status)
        if first is None:
            first = _first_line(status)
        length, own, text = -1, 0, first
        for name, value in headers:
            kind = _kinds.get(name)
            if kind is None:
                kind = _kind_of(name)
            if type(value) is not str or not (value.isascii() and value.isprintable()):
                _check_value(name, value)
            if kind == _LENGTH:
                length = _length_of(value, length)
            elif kind:
                own |= kind
                if kind >= _LEFT_OUT:
                    if kind == _CONNECTION and "close" in value.lower():
                        self.keeps_alive = False
                    continue
            text += f"{name}: {value}\r\n"
        self._is_bodiless = status.startswith(_BODILESS)
        if self._is_bodiless and length >= 0 and status.startswith("204"):
            raise ValueError("a response 204 has no Content-Length")
        self.status = status
        self._headers = text
        self._own = own & (_DATE | _SERVER)
        self._length = self._left = length
        return self.write

    def _check_again(self, exc_info: Any) -> None:
        """Whether there may be another start_response(). Raises what it is called for, if not."""
        if exc_info is None:
            raise AssertionError("start_response() is called once, and then only with exc_info")
        if self.is_begun:
            raise exc_info[1].with_traceback(exc_info[2])

    @property
    def _has_body(self) -> bool:
        return not (self._is_bodiless or self._request.is_head)

    # ---- the body ----

    def give(self, result: Iterable[bytes]) -> None:
        """Sends what the application has returned, all of it."""
        if type(result) is not list and type(result) is not tuple:
            if not (isinstance(result, FileWrapper) and self._give_file(result)):
                for block in result:
                    if block:
                        self.write(block)
            self.end()
            return
        body = result[0] if len(result) == 1 else b"".join(result)
        if type(body) is not bytes:
            body = _checked(body)
        size = len(body)
        if self.is_begun or (self._length >= 0 and self._length != size):
            self.write(body)
            self.end()
            return
        data = self._head(size)
        self.is_begun = True
        if not (self._is_bodiless or self._request.is_head):
            self.sent = size
            if size > _COPIED_MAX:
                self._connection.send(data)
                data = body
            else:
                data += body
        self._connection.send(data)

    def write(self, block: bytes, /) -> None:
        """Sends some of it; the write() of the application."""
        if type(block) is not bytes:
            block = _checked(block)
        if not block:
            return
        head = b"" if self.is_begun else self._head(-1)
        self.is_begun = True
        if not self._has_body:
            block = b""
        elif self._length >= 0:
            if len(block) > self._left:
                self.shortfall = self._left - len(block)
                block = block[: self._left]
            self._left -= len(block)
        self.sent += len(block)
        if self._in_chunks and block:
            block = b"%x\r\n%b\r\n" % (len(block), block)
        if head or block:
            self._connection.send(head + block if head else block)

    def end(self) -> None:
        """All of it has been given."""
        if not self.is_begun:
            head = self._head(max(self._length, 0) if self._request.is_head else 0)
            self.is_begun = True
            self._connection.send(head)
        if self._in_chunks:
            self._connection.send(b"0\r\n\r\n")
        elif self._has_body and self._left > 0:
            self.shortfall = self._left
            self.keeps_alive = False

    def _give_file(self, wrapper: FileWrapper) -> bool:
        """Has the system send it. False if that can't be done."""
        found = wrapper.whole_file()
        if found is None or self.is_begun or not self._has_body:
            return False
        descriptor, at, size = found
        if self._length >= 0:
            size = min(size, self._length)
        head = self._head(size)
        self.is_begun = True
        self._connection.send(head)
        given = self._connection.send_file(descriptor, at, size)
        self.sent += given
        if given < size:  # it was cut short meanwhile
            self._length, self._left = size, size - given
        elif self._length >= 0:
            self._left -= given
        return True

    def _head(self, length: int) -> bytes:
        """The head, where the application has given a body of that length, if any (-1)."""
        if not self.status:
            raise AssertionError("the application has not called start_response()")
        server, request = self._connection.server, self._request
        text = self._headers
        if self._length < 0 and not self._is_bodiless:
            text += self._framing(length)
        if not request.complete:
            self.keeps_alive = self.keeps_alive and _will_be_drained(request)
            request.expects = False  # to be told to go on, in the midst of this
        if not self.keeps_alive or server.gives_up_connections:
            self.keeps_alive = False
            text += "Connection: close\r\n"
        elif not request.is_1_1:
            text += "Connection: keep-alive\r\n"
        stamp = server.stamp()
        if self._own:
            name, _, date = stamp.partition("\r\n")
            stamp = "" if self._own & _SERVER else f"{name}\r\n"
            stamp += "" if self._own & _DATE else date
        return f"{text}{stamp}\r\n".encode("latin-1")

    def _framing(self, length: int) -> str:
        """The header that says where the body ends. The application has said nothing of that."""
        if length >= 0 and (length or not self._request.is_head):
            return f"Content-Length: {length}\r\n"
        if self._request.is_head:
            return ""  # what it would be is unknown
        if self._request.is_1_1:
            self._in_chunks = True
            return "Transfer-Encoding: chunked\r\n"
        self.keeps_alive = False
        return ""

    def fail(self, status: HTTPStatus, text: str) -> None:
        """Answers instead of the application, before it has begun to."""
        self.status = ""
        self.keeps_alive = False
        line = f"{status.value} {status.phrase}"
        self.start(line, [("Content-Type", "text/plain; charset=utf-8")])
        self.give([f"{text}\n".encode()])


def _will_be_drained(request: Request) -> bool:
    """Whether what is left of its body is little, and on its way."""
    return not request.expects and 0 <= request.length - request.received <= _DRAINED_MAX


def _checked(block: object) -> bytes:
    if isinstance(block, bytes | bytearray | memoryview):
        return bytes(block)
    raise TypeError(f"a body is made of bytes, not of {type(block).__name__}: {block!r:.60}")


def _first_line(status: object) -> str:
    if not isinstance(status, str):
        raise TypeError(f"a status is a str such as '200 OK', not {status!r:.60}")
    if not _STATUS.fullmatch(status):
        raise ValueError(f"{status!r:.60} is no status of a response, such as '200 OK'")
    line = f"HTTP/1.1 {status}\r\n"
    if len(_statuses) < _KNOWN_MAX:
        _statuses[status] = line
    return line


def _kind_of(name: object) -> int:
    if not isinstance(name, str):
        raise TypeError(f"the name of a header is a str, not {name!r:.60}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r:.60} is no name of a header")
    kind = _KINDS.get(name.lower(), _PLAIN)
    if len(_kinds) < _KNOWN_MAX:
        _kinds[name] = kind
    return kind


def _check_value(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"the value of a header is a str, and that of {name} is {value!r:.60}")
    if not _VALUE.fullmatch(value):
        raise ValueError(
            f"the header {name} has control characters, or some that are not in latin-1: "
            f"{value!r:.60}"
        )


def _length_of(value: str, before: int) -> int:
    if value.isascii() and value.isdecimal():
        length = int(value)
        if before < 0 or before == length:
            return length
    raise ValueError(f"{value!r:.60} is no Content-Length, or a second one")
