"""`golibx serve`: real processes, and clients that send what bytes they like."""

from __future__ import annotations

import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import golibx

pytest.importorskip("httptools")

HERE = Path(__file__).resolve().parent
ROOT = Path(golibx.__file__).resolve().parent.parent
PATTERN = bytes(range(256)) * 1024
COMMAND = [sys.executable, "-m", "golibx", "serve"]
RESET = struct.pack("ii", 1, 0)


class Reply(NamedTuple):
    status: int
    headers: HTTPMessage
    body: bytes


class Server:
    """A running `golibx serve`."""

    def __init__(self, folder: Path, *arguments: str, **options: Any) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.said = ""
        self.address: Any = ()
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if match := re.search(r"serving .* on .*http://\[?([^\s\]]+)\]?:(\d+)", line):
                self.address = (match[1], int(match[2]))
                return
            if match := re.search(r"serving .* on unix:(\S+)", line):
                self.address = match[1]
                return

    def connect(self) -> socket.socket:
        if isinstance(self.address, str):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(20)
            sock.connect(self.address)
            return sock
        return socket.create_connection(self.address, timeout=20)

    def ask(self, request: bytes | str) -> Reply:
        """The reply to what has a connection of its own."""
        with closing(self.connect()) as sock:
            sock.sendall(request.encode() if isinstance(request, str) else request)
            return reply(sock)

    def get(self, path: str, method: str = "GET") -> Reply:
        with closing(self.connect()) as sock:
            sock.sendall(get(path, method))
            return reply(sock, method)

    def json(self, path: str) -> Any:
        return json.loads(self.get(path).body)

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Ends it as a service manager does; returns all that it has said."""
        self.process.send_signal(number)
        return self.wait(0)

    def wait(self, status: int) -> str:
        _, said = self.process.communicate(timeout=20)
        self.said += said
        assert self.process.returncode == status, self.said
        return self.said

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def get(path: str, method: str = "GET", *headers: str, version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: here", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def reply(sock: socket.socket, method: str = "GET") -> Reply:
    response = HTTPResponse(sock, method=method)
    response.begin()
    return Reply(response.status, response.headers, response.read())


def ask_on(sock: socket.socket, path: str, method: str = "GET") -> Reply:
    """The reply to the next request of a connection."""
    sock.sendall(get(path, method))
    return reply(sock, method)


def everything(sock: socket.socket) -> bytes:
    data = b""
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def raw(server: Server, request: bytes) -> bytes:
    """All that is sent back until the server closes the connection."""
    with closing(server.connect()) as sock:
        sock.sendall(request)
        with suppress(OSError):  # it has been answered, and broken off
            sock.shutdown(socket.SHUT_WR)
        return everything(sock)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    shutil.copy(HERE / "serve_app.py", folder)
    (folder / "pattern").write_bytes(PATTERN)
    return folder


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[Server]:
    """One for all tests that leave it as it was."""
    server = Server(folder, "serve_app:app", "--bind", "127.0.0.1:0", "--access-log", "log")
    yield server
    server.kill()


@pytest.fixture(scope="module")
def strict(folder: Path) -> Iterator[Server]:
    """One that allows for little."""
    limits = {
        "target-size": "64B",
        "headers": "6",
        "header-size": "256B",
        "body-size": "1000B",
        "header-timeout": "300ms",
        "keep-alive": "300ms",
        "io-timeout": "300ms",
    }
    options = [f"--{name}={value}" for name, value in limits.items()]
    server = Server(folder, "serve_app:app", "--bind", "127.0.0.1:0", *options)
    yield server
    server.kill()


Serve = Callable[..., Server]


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(*arguments: str, **options: Any) -> Server:
            if not any(each.startswith("--bind") for each in arguments):
                arguments = ("--bind", "127.0.0.1:0", *arguments)
            server = Server(folder, "serve_app:app", *arguments, **options)
            stack.callback(server.kill)
            assert server.address, server.said
            return server

        yield start


# ---- WSGI ----


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_the_validator_of_wsgiref_finds_nothing(web: Server, method: str) -> None:
    body = b"x=1" if method in ("POST", "PUT") else b""
    length = f"Content-Length: {len(body)}"
    with closing(web.connect()) as sock:
        sock.sendall(get("/validated?a=%20b", method, length) + body)
        status, headers, got = reply(sock, method)
    expected = body or b"hello"
    assert (status, headers["Content-Length"]) == (200, str(len(expected)))
    assert got == (b"" if method == "HEAD" else expected)


def test_the_environment(web: Server) -> None:
    headers = ("X-Twice: a", "Cookie: a=1", "x-twice: b ", "Cookie: b=2", "X_Spoofed: 1", "A: \xe9")
    with closing(web.connect()) as sock:
        sock.sendall(get("/environ/caf%C3%A9%2Fx;y?q=%41&r", "GET", *headers))
        environ = json.loads(reply(sock).body)
        host, port = sock.getsockname()
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/environ/café/x;y"
    assert environ["QUERY_STRING"] == "q=%41&r"
    assert environ["RAW_URI"] == "/environ/caf%C3%A9%2Fx;y?q=%41&r"
    assert (environ["HTTP_X_TWICE"], environ["HTTP_COOKIE"]) == ("a,b", "a=1; b=2")
    assert environ["HTTP_A"] == "\xe9"
    assert "HTTP_X_SPOOFED" not in environ
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == (host, str(port))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (
        web.address[0],
        str(web.address[1]),
    )
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["wsgi.multithread"] is True
    assert environ["wsgi.multiprocess"] is environ["wsgi.run_once"] is False
    assert environ["wsgi.url_scheme"] == "http"


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("http://other:80/environ?a", "/environ", "other:80"),
        ("HTTP://other/environ/x", "/environ/x", "other"),
        ("/environ//x", "/environ//x", "here"),
    ],
)
def test_forms_of_a_target(web: Server, target: str, path: str, host: str) -> None:
    environ = json.loads(web.ask(get(target)).body)
    assert (environ["PATH_INFO"], environ["HTTP_HOST"]) == (path, host)


def test_a_request_for_the_server_itself(web: Server) -> None:
    assert web.ask(get("*", "OPTIONS")).body == b"hello"


def test_bodies_that_come_with_their_heads_or_later(web: Server) -> None:
    head = get("/echo", "POST", "Content-Length: 9")
    chunked = get("/echo", "POST", "Transfer-Encoding: chunked")
    chunks = b"4;name=value\r\nsome\r\n5\r\n body\r\n0\r\nX-Trailer: dropped\r\n\r\n"
    assert web.ask(head + b"some body").body == b"some body"
    assert web.ask(chunked + chunks).body == b"some body"
    for request in (head + b"some body", chunked + chunks):
        with closing(web.connect()) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in request:
                sock.send(bytes([byte]))
            assert reply(sock).body == b"some body"


def test_a_large_body(web: Server) -> None:
    body = PATTERN * 8
    head = get("/echo", "POST", f"Content-Length: {len(body)}")
    with closing(web.connect()) as sock, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(sock.sendall, head + body)
        assert reply(sock).body == body
        sent.result()


@pytest.mark.parametrize("kind", ["length", "chunks"])
def test_the_ways_to_read_a_body(web: Server, kind: str) -> None:
    body = b"one\ntwo\nthree"

    def post(path: str) -> bytes:
        if kind == "length":
            return get(path, "POST", f"Content-Length: {len(body)}") + body
        return get(path, "POST", "Transfer-Encoding: chunked") + b"d\r\n" + body + b"\r\n0\r\n\r\n"

    assert web.ask(post("/lines")).body == repr([b"one\n", [b"two\n", b"three"]]).encode()
    assert web.ask(post("/parts")).body == repr([b"one", b"\n", b"two\nthree"]).encode()
    # One that waits for the rest while the application reads.
    request = post("/parts")
    with closing(web.connect()) as sock:
        sock.sendall(request[:-9])
        sock.sendall(request[-9:])
        assert reply(sock).body == repr([b"one", b"\n", b"two\nthree"]).encode()


def test_a_body_that_is_expected_only_if_it_is_read(web: Server) -> None:
    expecting = ("Content-Length: 4", "Expect: 100-continue")
    with closing(web.connect()) as sock:
        sock.sendall(get("/echo", "POST", *expecting))
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"body")
        assert reply(sock).body == b"body"
    with closing(web.connect()) as sock:
        sock.sendall(get("/ignored", "POST", *expecting))
        status, headers, body = reply(sock)
        assert (status, body, headers["Connection"]) == (200, b"ignored", "close")
    assert web.ask(get("/", "GET", "Expect: miracles")).status == 417


def test_a_body_that_is_not_read(web: Server) -> None:
    with closing(web.connect()) as sock:
        for _ in range(2):  # what is left of the first is no request
            sock.sendall(get("/ignored", "POST", "Content-Length: 5000") + b"G" * 5000)
            assert reply(sock).body == b"ignored"
    with closing(web.connect()) as sock:
        sock.sendall(get("/ignored", "POST", "Content-Length: 5000000") + b"G" * 200_000)
        assert reply(sock)[::2] == (200, b"ignored")
        sock.shutdown(socket.SHUT_WR)
        assert everything(sock) == b""


@pytest.mark.parametrize(
    ("path", "body"),
    [("/write", b"one two three"), ("/stream", b"one two three"), ("/empty", b"")],
)
def test_answers_without_a_length(web: Server, path: str, body: bytes) -> None:
    status, headers, got = web.get(path)
    assert (status, got) == (200, body)
    assert (headers["Transfer-Encoding"] == "chunked") is bool(body)
    answer = raw(web, get(path, version="1.0"))
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert rest == body
    assert b"chunked" not in head


def test_an_iterable_is_closed_whatever_happens(web: Server) -> None:
    before = web.json("/count")["closed"]
    web.get("/stream")
    raw(web, get("/breaks"))
    web.get("/none")
    with closing(web.connect()) as sock:
        sock.sendall(get("/endless"))
        sock.recv(1)
    while web.json("/count")["closed"] < before + 4:
        pass
    assert web.json("/count")["closed"] == before + 4


def test_answers_that_have_no_body(web: Server) -> None:
    with closing(web.connect()) as sock:
        none, same, big, stream = (
            ask_on(sock, *request)
            for request in [("/none",), ("/same",), ("/big", "HEAD"), ("/stream", "HEAD")]
        )
        sock.sendall(get("/"))
        assert reply(sock).body == b"hello"
    assert (none.status, none.headers["Content-Length"], none.body) == (204, None, b"")
    assert (same.status, same.headers["Content-Length"]) == (304, "5")
    assert big.headers["Content-Length"] == str(len(PATTERN) * 8)
    assert stream.headers["Transfer-Encoding"] is None


def test_files(web: Server) -> None:
    status, headers, body = web.get("/file")
    assert (status, headers["Content-Length"]) == (200, str(len(PATTERN) - 1))
    assert body == PATTERN[1:]
    assert web.get("/range_").body == PATTERN[256:768]
    assert web.get("/memory").body == PATTERN
    assert web.get("/big").body == PATTERN * 8


def test_start_response_with_an_exception(web: Server) -> None:
    status, headers, body = web.get("/anew")
    assert (status, headers["X-First"], headers["X-Second"], body) == (503, None, "2", b"busy")
    # What has begun is not answered by something else.
    answer = raw(web, get("/late"))
    assert answer.endswith(b"12345")
    assert b"500" not in answer


def test_the_application_keeps_to_its_length_or_not(web: Server) -> None:
    with closing(web.connect()) as sock:
        sock.sendall(get("/long"))
        assert reply(sock).body == b"123"
        sock.sendall(get("/"))
        assert reply(sock).body == b"hello"
    answer = raw(web, get("/short") + get("/"))
    assert answer.endswith(b"\r\n\r\n12345")


def test_how_a_connection_is_used_is_the_servers_to_say(web: Server) -> None:
    answer = raw(web, get("/hop") + get("/"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"hop"
    assert b"chunked" not in head
    assert head.count(b"Connection: close") == 1
    assert b"Keep-Alive" not in head


def test_the_servers_own_headers(web: Server) -> None:
    _, headers, _ = web.get("/")
    assert headers["Server"] == "golibx"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["Date"])
    _, headers, _ = web.get("/date")
    assert (headers.get_all("Date"), headers.get_all("Server")) == (["today"], ["mine"])


@pytest.mark.parametrize(
    "path",
    [
        *("/split/cr", "/split/lf", "/split/nul", "/split/euro", "/name", "/status"),
        *("/raises", "/exits", "/nothing", "/wrong", "/twice"),
    ],
)
def test_what_the_application_does_wrong_is_an_error_of_its_own(web: Server, path: str) -> None:
    answer = raw(web, get(path) + get(path))
    assert answer.count(b"HTTP/1.1 ") == 1
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert body == b"Internal Server Error\n"
    assert b"X" not in head


def test_an_answer_that_breaks_off_does_not_look_whole(web: Server) -> None:
    assert not raw(web, get("/breaks")).endswith(b"0\r\n\r\n")


# ---- HTTP ----


def test_connections_are_kept_as_both_wish(web: Server) -> None:
    with closing(web.connect()) as sock:
        for _ in range(3):
            sock.sendall(get("/"))
            _, headers, body = reply(sock)
            assert (headers["Connection"], body) == (None, b"hello")
        sock.sendall(get("/", "GET", "Connection: close"))
        assert reply(sock).headers["Connection"] == "close"
        assert sock.recv(1) == b""
    with closing(web.connect()) as sock:
        sock.sendall(get("/", "GET", "Connection: keep-alive", version="1.0"))
        assert reply(sock).headers["Connection"] == "keep-alive"
        sock.sendall(get("/", version="1.0"))
        assert reply(sock).headers["Connection"] == "close"
        assert sock.recv(1) == b""


def test_requests_in_one_go_are_answered_in_their_order(web: Server) -> None:
    post = get("/echo", "POST", "Content-Length: 3") + b"two"
    chunked = get("/echo", "POST", "Transfer-Encoding: chunked")
    chunked += b"5\r\nthree\r\n0\r\n\r\n"
    with closing(web.connect()) as sock, ThreadPoolExecutor(1) as pool:
        requests = (get("/") + post + chunked) * 200
        sent = pool.submit(sock.sendall, requests)
        bodies = [reply_of(sock) for _ in range(600)]
        sent.result()
    assert bodies == [b"hello", b"two", b"three"] * 200


def reply_of(sock: socket.socket) -> bytes:
    """A reply that ends where its Content-Length says, and nothing of the next one."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    match = re.search(rb"Content-Length: (\d+)", head)
    assert match is not None, head
    return sock.recv(int(match[1]), socket.MSG_WAITALL)


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_request_for_another_protocol_is_answered_in_this_one(web: Server, framing: str) -> None:
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    if framing == "length":
        request = get("/echo", "POST", *upgrade, "Content-Length: 5") + b"GET /"
    else:
        request = get("/echo", "POST", *upgrade, "Transfer-Encoding: chunked")
        request += b"5\r\nGET /\r\n0\r\n\r\n"
    with closing(web.connect()) as sock:
        sock.sendall(request + get("/", "GET", *upgrade) + request)
        assert [reply_of(sock) for _ in range(3)] == [b"GET /", b"hello", b"GET /"]


SMUGGLED = {
    "length and chunks": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    b"Content-Length: 2\r\n\r\nab",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na",
    "a length with a sign": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
    "a negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "a huge length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "chunks that are not last": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "a bare line feed": b"GET / HTTP/1.1\nHost: a\n\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "a zero byte": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a relative target": b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_what_two_servers_would_read_differently_is_refused(web: Server, name: str) -> None:
    answer = raw(web, SMUGGLED[name] + get("/"))
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close\r\n" in answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("here:80", "CONNECT"), 501),
        (get("/", "POST", "Transfer-Encoding: gzip, chunked"), 501),
        (get("/", version="2.0"), 505),
        (b"GET /\r\n\r\n", 505),
    ],
)
def test_what_is_not_done_here(web: Server, request_: bytes, status: int) -> None:
    assert web.ask(request_).status == status


@pytest.mark.parametrize("chunk", [b"x\r\n", b"-1\r\na", b"3\r\nabcd\r\n", b"1\nab"])
def test_chunks_that_are_none(web: Server, chunk: bytes) -> None:
    answer = raw(web, get("/echo", "POST", "Transfer-Encoding: chunked") + chunk + b"\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


# ---- limits ----


def test_how_large_a_request_may_be(strict: Server) -> None:
    def status(*lines: str, body: bytes = b"") -> int:
        return strict.ask("\r\n".join(lines).encode() + b"\r\n\r\n" + body).status

    first = "POST /echo HTTP/1.1"
    host = "Host: here"
    assert status(f"GET /{'a' * 63} HTTP/1.1", host) == 200
    assert status(f"GET /{'a' * 64} HTTP/1.1", host) == 414
    assert status(first, host, *["A: b"] * 5) == 200
    assert status(first, host, *["A: b"] * 6) == 431
    assert status(first, host, f"A: {'b' * 230}") == 200
    assert status(first, host, f"A: {'b' * 250}") == 431
    assert status(first, host, "Content-Length: 1000", body=b"a" * 1000) == 200
    assert status(first, host, "Content-Length: 1001", body=b"a" * 1001) == 413
    chunked = "Transfer-Encoding: chunked"
    assert status(first, host, chunked, body=b"3e8\r\n" + b"a" * 1000 + b"\r\n0\r\n\r\n") == 200
    assert status(first, host, chunked, body=b"3e9\r\n" + b"a" * 1001 + b"\r\n0\r\n\r\n") == 413


@pytest.mark.parametrize(
    ("begin", "on", "status"),
    [
        (b"GET /", b"a", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: ", b"a", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"A: a\r\n", 431),
        (get("/echo", "POST", "Transfer-Encoding: chunked") + b"1;", b"a", 431),
        (get("/echo", "POST", "Transfer-Encoding: chunked") + b"0\r\nA: ", b"a", 431),
    ],
)
def test_what_does_not_end_is_refused_all_the_same(
    strict: Server, begin: bytes, on: bytes, status: int
) -> None:
    with closing(strict.connect()) as sock:
        sock.sendall(begin)
        try:
            for _ in range(200):
                sock.sendall(on * 100)
        except OSError:
            pass
        assert everything(sock).startswith(f"HTTP/1.1 {status} ".encode())


def test_how_long_a_client_may_take(strict: Server) -> None:
    with ExitStack() as stack:
        silent, slow, idle, body, half = (
            stack.enter_context(closing(strict.connect())) for _ in range(5)
        )
        slow.sendall(b"GET / HTTP/1.1\r\nHost: ")
        idle.sendall(get("/"))
        body.sendall(get("/echo", "POST", "Content-Length: 10") + b"12345")
        half.sendall(get("/ignored", "POST", "Content-Length: 10") + b"12345")
        assert everything(silent) == b""
        assert everything(slow).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert everything(idle).endswith(b"\r\n\r\nhello")
        assert everything(body) == b""
        assert everything(half).endswith(b"\r\n\r\nignored")


def test_a_client_that_takes_nothing_is_given_up(strict: Server) -> None:
    before = strict.json("/count")["closed"]
    with closing(strict.connect()) as sock:
        sock.sendall(get("/endless"))
        while strict.json("/count")["closed"] == before:
            pass
        assert everything(sock).startswith(b"HTTP/1.1 200 OK\r\n")


def test_slow_clients_keep_nobody_out(serve: Serve) -> None:
    """Slow loris: heads that come a byte at a time, on as many connections as there may be."""
    server = serve("--connections", "20", "--header-timeout", "200ms")
    with ExitStack() as stack:
        for _ in range(50):
            slow = stack.enter_context(closing(server.connect()))
            slow.sendall(b"GET / HTTP/1.1\r\nX-")
        assert server.get("/").body == b"hello"
    server.end()


def test_idle_connections_keep_nobody_out(serve: Serve) -> None:
    server = serve("--connections", "5")
    with ExitStack() as stack:
        idle = [stack.enter_context(closing(server.connect())) for _ in range(5)]
        for sock in idle:
            sock.sendall(get("/"))
            assert reply(sock).body == b"hello"
        assert server.get("/").body == b"hello"
        assert idle[0].recv(1) == b""  # the one that was idle longest
        idle[4].sendall(get("/"))
        assert reply(idle[4]).body == b"hello"
    server.end()


def test_more_connections_than_may_be_wait(serve: Serve) -> None:
    server = serve("--connections", "3")
    with ThreadPoolExecutor(30) as pool:
        bodies = [each.body for each in pool.map(server.get, ["/sleep"] * 9)]
    assert bodies == [b"slept"] * 9
    server.end()


def test_so_many_connections_wait_in_the_backlog(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    server = serve(f"--bind=unix:{path}", "--connections=1", "--backlog=1")
    busy = server.connect()
    busy.sendall(get("/slow"))
    waiting = []
    with pytest.raises(BlockingIOError):
        for _ in range(10):
            sock = socket.socket(socket.AF_UNIX)
            waiting.append(sock)
            sock.setblocking(False)
            sock.connect(str(path))
    assert len(waiting) <= 4  # one more than asked for, one that was being accepted
    for sock in (busy, *waiting):
        sock.close()


# ---- what clients do to a server ----


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def test_clients_that_go_at_any_moment_leave_nothing_behind(serve: Serve) -> None:
    """A storm of resets: after half a head, half a body, in the midst of an answer, at once."""
    server = serve()
    server.get("/")
    before, goroutines = descriptors(server), server.json("/stats")["goroutines"]
    requests = [b"", b"GET / HT", get("/endless"), get("/big"), get("/sleep"), get("/") * 50]
    requests += [get("/echo", "POST", "Content-Length: 100") + b"abc"]
    for number in range(400):
        with closing(server.connect()) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.sendall(requests[number % len(requests)])
            if number % 3 == 0 and requests[number % len(requests)]:
                select.select([sock], [], [], 0.001)
    while descriptors(server) > before or server.json("/stats")["goroutines"] > goroutines:
        pass
    assert server.get("/").body == b"hello"
    said = server.end()
    assert "failed" not in said
    assert "panicked" not in said


def test_a_peer_that_has_closed_its_half_is_answered(web: Server) -> None:
    assert raw(web, get("/sleep")).endswith(b"\r\n\r\nslept")
    assert raw(web, b"") == b""
    assert raw(web, b"GET / HTTP/1.1\r\n") == b""
    head = get("/echo", "POST", "Content-Length: 10")
    assert raw(web, head + b"12345") == b""  # half a body is none


def test_no_descriptors_left(serve: Serve) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    server = serve(preexec_fn=limit)
    with ExitStack() as stack:
        socks = [stack.enter_context(closing(server.connect())) for _ in range(100)]
        for sock in socks:
            sock.sendall(get("/"))
        # Idle ones make room for those that wait.
        answered = [everything_until(sock, b"hello") for sock in socks]
        assert all(answered)
    assert server.get("/").body == b"hello"
    assert "Too many open files" in server.end()


def everything_until(sock: socket.socket, end: bytes) -> bool:
    data = b""
    while not data.endswith(end):
        part = sock.recv(65536)
        if not part:
            return False
        data += part
    return True


def test_requests_that_wait_and_one_that_computes(serve: Serve) -> None:
    server = serve()
    with ThreadPoolExecutor(100) as pool:
        hog = pool.submit(server.get, "/hog")
        server.get("/begun")
        bodies = [each.body for each in pool.map(server.get, ["/sleep"] * 100)]
        assert bodies == [b"slept"] * 100
        assert server.json("/stats")["threads"] < 50
        assert not hog.done()
        assert server.get("/finish").body == b"finished"
        assert hog.result().body == b"the hog ended"
    server.end()


# ---- the end ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_finished_and_what_is_idle_is_closed(
    serve: Serve, number: signal.Signals
) -> None:
    server = serve()
    with closing(server.connect()) as idle, closing(server.connect()) as new:
        idle.sendall(get("/"))
        reply(idle)
        with ThreadPoolExecutor() as pool, closing(server.connect()) as other:
            slow = pool.submit(server.get, "/slow")
            other.sendall(get("/begun"))
            reply(other)
            other.sendall(b"GET /finish HTTP/1.1\r\n")  # has begun, and is served to its end
            server.process.send_signal(number)
            assert idle.recv(1) == b""
            assert new.recv(1) == b""
            with pytest.raises(OSError):
                server.connect()
            other.sendall(b"Host: a\r\n\r\n")
            assert reply(other).body == b"finished"
            assert other.recv(1) == b""
            assert slow.result().headers["Connection"] == "close"
    server.wait(0)


def test_what_does_not_end_in_time_is_cut_off(serve: Serve) -> None:
    server = serve("--graceful-timeout", "100ms")
    with closing(server.connect()) as slow:
        slow.sendall(get("/slow"))
        server.get("/begun")
        assert "1 connections were not done in time" in server.end()
        assert everything(slow) == b""


def test_a_second_signal_ends_it_at_once(serve: Serve) -> None:
    server = serve()
    with closing(server.connect()) as idle, closing(server.connect()) as slow:
        slow.sendall(get("/slow"))
        server.get("/begun")
        server.process.terminate()
        assert idle.recv(1) == b""  # the first one has been heard
        server.process.terminate()
        server.wait(-signal.SIGTERM)


# ---- several processes ----


def test_several_workers(serve: Serve) -> None:
    server = serve("--workers", "2")
    pids = set()
    while len(pids) < 2:
        pids.add(server.json("/stats")["pid"])
    assert server.process.pid not in pids
    assert server.json("/environ")["wsgi.multiprocess"] is True
    # One that dies is started again.
    (first, second) = pids
    os.kill(first, signal.SIGKILL)
    while not server.json("/stats")["pid"] not in pids:
        pass
    said = server.end()
    assert f"worker {first} has ended with SIGKILL; another is started" in said
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


def test_workers_do_not_outlive_their_supervisor(serve: Serve) -> None:
    server = serve("--workers", "2")
    server.get("/")
    server.process.kill()
    assert server.process.stderr is not None
    server.process.stderr.read()  # up to the end of the last process that has it
    with pytest.raises(OSError):
        server.connect()


def test_workers_end_at_once_at_a_second_signal(serve: Serve) -> None:
    server = serve("--workers", "2")
    with closing(server.connect()) as slow:
        slow.sendall(get("/slow"))
        while not ended_by_another_signal(server):
            pass
        assert "not done in time" not in server.wait(0)
        assert everything(slow) == b""


def ended_by_another_signal(server: Server) -> bool:
    server.process.terminate()
    try:
        server.process.wait(0.2)  # two that come at once are one
    except subprocess.TimeoutExpired:
        return False
    return True


# ---- the command ----


def refused(folder: Path, *arguments: str, status: int) -> str:
    server = Server(folder, *arguments)
    assert server.address == ()
    said = server.wait(status)
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("app", "text", "status"),
    [
        ("no_such:app", "golibx: No module named no_such", 1),
        ("serve_app:ap", "module serve_app has no ap: did you mean app?", 1),
        ("serve_app:config", "serve_app:config is dict {'not': 'an application'}", 1),
        ("serve_app:asgi", "serve_app:asgi is async", 1),
        ("serve_app", "'serve_app' is not MODULE:APP", 2),
        ("", "There is nothing to serve", 2),
    ],
)
def test_there_is_no_such_application(folder: Path, app: str, text: str, status: int) -> None:
    assert text in refused(folder, *[app] * bool(app), "--bind", "127.0.0.1:0", status=status)


def test_an_application_that_cannot_be_imported_in_workers(folder: Path) -> None:
    (folder / "broken.py").write_text("import no_such_module\n")
    arguments = ("broken:app", "--bind", "127.0.0.1:0", "--workers", "3")
    server = Server(folder, *arguments)
    said = server.wait(1)
    assert said.count("ModuleNotFoundError: No module named 'no_such_module'") == 1
    assert "golibx/serve" not in said


def test_an_address_that_cannot_be_listened_on(folder: Path, web: Server) -> None:
    host, port = web.address
    said = refused(folder, "serve_app:app", "--bind", f"{host}:{port}", status=1)
    assert said.startswith(f"golibx: can't listen on {host}:{port}: Address already in use")
    said = refused(folder, "serve_app:app", "--bind", "here", status=1)
    assert 'golibx: an address is ("host", port) or "host:port", not' in said
    assert "unix:path" in said


def test_values_of_options(folder: Path) -> None:
    said = refused(folder, "serve_app:app", "--workers", "0", "--keep-alive", "5", status=2)
    assert 'serve.workers = "0": out of range (allowed: 1 to 1024)' in said
    assert "serve.keep_alive" in said


def test_the_configuration_has_it_all(folder: Path) -> None:
    text = '[serve]\napp = "serve_app:make()"\nbind = ["127.0.0.1:0"]\nheaders = 3\n'
    (folder / "serve.toml").write_text(text)
    server = Server(folder, "--config", "serve.toml")
    assert server.json("/count")["made"] == 1
    assert server.ask(get("/", "GET", *["A: b"] * 3)).status == 431
    server.end()


def test_other_places_to_listen(folder: Path) -> None:
    path = folder / "sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()  # as of a server that has died
    server = Server(folder, "serve_app:app", "--bind", "unix:sock", "--bind", "[::1]:0")
    match = re.search(r"http://\[::1\]:(\d+)", server.said)
    assert match is not None
    with closing(socket.create_connection(("::1", int(match[1])))) as sock:
        sock.sendall(get("/environ"))
        environ = json.loads(reply(sock).body)
        assert (environ["REMOTE_ADDR"], environ["SERVER_NAME"]) == ("::1", "::1")
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.connect(str(path))
        sock.sendall(get("/environ"))
        assert json.loads(reply(sock).body)["REMOTE_ADDR"] == ""
    server.end()
    assert not path.exists()


def test_the_access_log(web: Server, folder: Path) -> None:
    agent = 'User-Agent: "quoted" \x85'
    web.ask(get("/stream?logged", "GET", agent, "Referer: there"))
    line = ""
    while "logged" not in line:
        line = next((x for x in (folder / "log").read_text().splitlines() if "?logged" in x), "")
    assert re.fullmatch(
        r"127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "
        r'"GET /stream\?logged HTTP/1\.1" 200 13 "there" "\\"quoted\\" \\x85"',
        line,
    )


def test_what_the_log_says_of_errors(serve: Serve) -> None:
    server = serve()
    for path in ("/raises?x", "/short", "/long", "/breaks"):
        raw(server, get(path))
    said = server.end()
    assert "golibx: GET /raises?x failed:\nTraceback (most recent call last):\n" in said
    assert "ValueError: a secret" in said
    assert "golibx: GET /short: 4 bytes less than its Content-Length has been given" in said
    assert "golibx: GET /long: 2 bytes more than its Content-Length has been given" in said
    assert "ValueError: in the midst" in said
    assert "panicked" not in said
    assert "golibx/serve" not in said


def test_without_httptools(folder: Path) -> None:
    hide = "import sys; sys.modules['httptools'] = None; from golibx.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", hide, "serve", "serve_app:app"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert "pip install 'golibx[serve]'" in result.stderr
