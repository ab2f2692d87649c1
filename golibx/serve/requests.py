"""Bytes to requests: what a client sends, read by httptools (llhttp), within limits.

httptools calls a method for the target, for each header, for the end of the head, for each part of
the body and for its end. These build the WSGI environment as they come: there is no other form of a
request. It reads strictly: no bare line feeds, no folded headers, no control characters, not both
Content-Length and Transfer-Encoding, not two lengths. What is refused here besides is what makes
two programs read one request differently: an unknown transfer coding, chunks in HTTP/1.0, no or two
hosts in HTTP/1.1. Headers with an underscore in their names are left out, since X_Real_IP and
X-Real-IP would be the same to an application.

What arrives is given to httptools up to the first empty line, the rest when that request has been
answered. So a client that sends thousands of requests in one go has one or two of them in memory.

A request that asks for another protocol is answered as if it did not. httptools reads no body of
such a request; it is given another head with the same length, and then reads the body as that
one's.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    Environ: TypeAlias = dict[str, Any]

__all__ = ["Limits", "Parser", "Refused", "Request"]

_END = b"\r\n\r\n"
_PROTOCOLS = {"1.0": "HTTP/1.0", "1.1": "HTTP/1.1"}
_KEYS_MAX = 1000
_keys: dict[bytes, str] = {}
"""The key of the environment for a header's name as clients write it; "" for one left out."""
_HEADER_EXTRA = 4
"""Bytes of a header that are neither its name nor its value."""
_HEAD_EXTRA = 64
"""Bytes of a head that neither the target nor a header has: the method, the version."""


class Limits:
    """How large a request may be.

    Args:
        target: bytes of what the first line asks for.
        header_size: bytes of all headers.
        headers: how many.
        body: bytes; 0: any number.

    Attributes:
        head: bytes of all that comes before the body, or between two parts of it.
    """

    __slots__ = ("body", "head", "header_size", "headers", "target")

    def __init__(self, target: int, header_size: int, headers: int, body: int) -> None:
        self.target = target
        self.header_size = header_size
        self.headers = headers
        self.body = body
        self.head = target + header_size + _HEAD_EXTRA


class Refused(OSError):
    """A request that is not, or not wholly, given to the application.

    Attributes:
        status: the answer's.
        why: in words.
    """

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Request:
    """One that has a head already.

    Attributes:
        environ: the WSGI environment, without the input.
        is_head: whether the method is HEAD.
        is_1_1: whether the version is HTTP/1.1, otherwise it is HTTP/1.0.
        keeps_alive: whether the client allows for more requests.
        expects: whether the client waits for a "100 Continue" before it sends the body.
        parts: what has come of the body and has not been read.
        received: how much has come of it.
        length: of the body, as the client has said; -1 where it comes in chunks.
        complete: whether all of it has come.
    """

    is_head = False
    expects = False
    parts: Sequence[bytes] = ()
    received = 0
    length = 0
    complete = False

    def __init__(self, environ: Environ, is_1_1: bool, keeps_alive: bool) -> None:
        self.environ = environ
        self.is_1_1 = is_1_1
        self.keeps_alive = keeps_alive


class Parser:
    """Reads what one client sends.

    Args:
        base: what the environment of each request has.
        peer: the client's address and port, as text.
        limits: how large requests may be.

    Attributes:
        requests: those with a head that have not been taken yet.
        rest: what has come and has not been read, but for what lies before a place in it.
        silent: bytes since there was something to tell of: 0 if no head has begun.
        error: why nothing more can be read; None if it can.
    """

    __slots__ = (
        "_at",
        "_base",
        "_environ",
        "_http",
        "_limits",
        "_peer",
        "_places",
        "_request",
        "_room",
        "_substitute",
        "_target",
        "error",
        "requests",
        "rest",
        "silent",
    )

    def __init__(self, base: Environ, peer: tuple[str, str], limits: Limits) -> None:
        self._base = base
        self._peer = peer
        self._limits = limits
        self._environ: Environ | None = None  # of the head that is being read
        self._target = b""
        self._room = self._places = 0  # what its headers may still take
        self._request: Request | None = None  # the one with the body that is being read
        self.silent = 0  # bytes since there was something to tell of
        self._substitute = b""
        self.rest = b""
        self._at = 0  # where in that the next request may begin
        self.requests: list[Request] = []
        self.error: Refused | None = None
        self._http: Any = HttpRequestParser(self)

    def feed(self, data: bytes | memoryview) -> None:
        """Reads what has come, when there is no rest. What is wrong is in `error` then."""
        if type(data) is bytes:
            end = data.find(_END) + len(_END)
            if len(_END) <= end < len(data):
                self.rest = data
                self._at = end
                data = memoryview(data)[:end]
        self.silent += len(data)
        try:
            self._http.feed_data(data)
        except HttpParserUpgrade as exc:
            self._read_on(data, exc.args[0])
        except HttpParserCallbackError as exc:
            if not isinstance(exc.__context__, Refused):
                raise
            self.error = exc.__context__
        except HttpParserError as exc:
            self.error = Refused(HTTPStatus.BAD_REQUEST, f"this is no request of HTTP/1: {exc}")
        if self.silent > self._limits.head and self.error is None:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.error = Refused(status, f"headers have at most {self._limits.header_size} bytes")

    def feed_rest(self) -> None:
        """The same, for the next part of what is left."""
        rest, at = self.rest, self._at
        end = rest.find(_END, at) + len(_END)
        if end < len(_END) or end == len(rest):
            self.rest = b""
            self.feed(memoryview(rest)[at:])
        else:
            self._at = end
            self.feed(memoryview(rest)[at:end])

    def close(self) -> None:
        """Lets go of httptools' parser, which refers to this one."""
        self._http = None
        self.rest = b""

    def _read_on(self, data: bytes | memoryview, offset: int) -> None:
        """After a request for another protocol, which there is none of here."""
        substitute, self._substitute = self._substitute, b""
        if substitute:
            self.feed(memoryview(substitute))
        if self.error is None and offset < len(data):
            self.feed(memoryview(data)[offset:])

    # ---- what httptools calls ----

    def on_url(self, part: bytes) -> None:
        """The target, or a part of it."""
        limits = self._limits
        if self._environ is None:
            if self._request is not None:
                return  # that of a substitute
            self._environ = self._base.copy()
            self._target = part
            self._room = limits.header_size
            self._places = limits.headers
            self.silent += 1  # for a head behind the end of a body
        else:
            self._target += part
        if len(self._target) > limits.target:
            raise Refused(
                HTTPStatus.REQUEST_URI_TOO_LONG,
                f"the target of a request has at most {limits.target} bytes",
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header, or a trailer of chunks, which is of no use."""
        environ = self._environ
        if environ is None:
            return
        self._room -= len(name) + len(value) + _HEADER_EXTRA
        self._places -= 1
        if self._room < 0 or self._places < 0:
            limits = self._limits
            raise Refused(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"there are at most {limits.headers} headers of {limits.header_size} bytes",
            )
        key = _keys.get(name)
        if key is None:
            key = _key_of(name)
        if not key:
            return
        text = value.decode("latin-1").strip(" \t")
        if key in environ:
            text = _joined(key, environ[key], text)
        environ[key] = text

    def on_headers_complete(self) -> None:
        """The head is there."""
        environ, self._environ = self._environ, None
        if environ is None:
            return  # that of a substitute
        self.silent = 0
        http = self._http
        method = http.get_method().decode()
        environ["REQUEST_METHOD"] = method
        protocol = _PROTOCOLS.get(http.get_http_version())
        if protocol is None:
            raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 and 1.0 are spoken here")
        environ["SERVER_PROTOCOL"] = protocol
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self._peer
        is_1_1 = protocol == "HTTP/1.1"
        if is_1_1 and "HTTP_HOST" not in environ:
            raise Refused(HTTPStatus.BAD_REQUEST, "there is no header Host")
        target = self._target.decode("latin-1")
        environ["RAW_URI"] = target
        if target[0] != "/" or method == "CONNECT":
            target = _path_of(environ, target, method)
        path, _, query = target.partition("?")
        if "#" in target:
            raise Refused(HTTPStatus.BAD_REQUEST, "the target of a request has no fragment")
        environ["PATH_INFO"] = unquote(path, "latin-1") if "%" in path else path
        environ["QUERY_STRING"] = query
        request = Request(environ, is_1_1, http.should_keep_alive())
        if method == "HEAD":
            request.is_head = True
        if "HTTP_TRANSFER_ENCODING" in environ or "CONTENT_LENGTH" in environ:
            self._expect_body(request)
        if "HTTP_EXPECT" in environ:
            if environ["HTTP_EXPECT"].lower() != "100-continue":
                raise Refused(HTTPStatus.EXPECTATION_FAILED, "only 100-continue can be expected")
            request.expects = is_1_1
        self._request = request
        self.requests.append(request)

    def _expect_body(self, request: Request) -> None:
        environ = request.environ
        request.parts = []
        coding = environ.get("HTTP_TRANSFER_ENCODING")
        if coding is not None:
            if coding.lower() != "chunked":
                raise Refused(HTTPStatus.NOT_IMPLEMENTED, "the only transfer coding is chunked")
            if not request.is_1_1:
                raise Refused(HTTPStatus.BAD_REQUEST, "there are no chunks in HTTP/1.0")
            request.length = -1
            how = b"Transfer-Encoding: chunked"
        else:
            request.length = int(environ["CONTENT_LENGTH"])
            if request.length > self._limits.body > 0:
                raise self._too_large()
            how = b"Content-Length: %d" % request.length
        if request.length and "HTTP_UPGRADE" in environ and self._http.should_upgrade():
            self._substitute = b"POST / HTTP/1.1\r\nHost: -\r\n%b\r\n\r\n" % how

    def _too_large(self) -> Refused:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return Refused(status, f"the body of a request has at most {self._limits.body} bytes")

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        request = self._request
        assert request is not None
        self.silent = 0
        request.received += len(part)
        if request.received > self._limits.body > 0:
            raise self._too_large()
        assert isinstance(request.parts, list)
        request.parts.append(part)

    def on_message_complete(self) -> None:
        """The request is there as a whole."""
        self.silent = 0
        if self._substitute:
            return  # the body of the request is read as that of the substitute
        assert self._request is not None
        self._request.complete = True
        self._request = None


def _key_of(name: bytes) -> str:
    text = name.decode("latin-1").upper().replace("-", "_")
    if b"_" in name:
        key = ""
    elif text in ("CONTENT_LENGTH", "CONTENT_TYPE"):
        key = text
    else:
        key = f"HTTP_{text}"
    if len(_keys) < _KEYS_MAX:  # clients may think of any number of them
        _keys[name] = key
    return key


def _joined(key: str, first: str, second: str) -> str:
    """The value of a header that is there twice."""
    if key in ("HTTP_HOST", "CONTENT_TYPE", "CONTENT_LENGTH"):
        name = key.removeprefix("HTTP_").replace("_", "-").title()
        raise Refused(HTTPStatus.BAD_REQUEST, f"there is more than one header {name}")
    return f"{first}; {second}" if key == "HTTP_COOKIE" else f"{first},{second}"


def _path_of(environ: Environ, target: str, method: str) -> str:
    """Of a target that has the host too, as proxies get them; or of `*`, for OPTIONS."""
    if method == "CONNECT":
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, "this is no proxy")
    if target == "*" and method == "OPTIONS":
        return "/"
    scheme, mark, rest = target.partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        raise Refused(HTTPStatus.BAD_REQUEST, "the target of a request begins with /")
    end = min((at for at in map(rest.find, "/?") if at >= 0), default=len(rest))
    environ["HTTP_HOST"] = rest[:end]
    path = rest[end:]
    return path if path.startswith("/") else f"/{path}"
