"""What clients and the system do to servers: http.server and socketserver under `golibx run`, which
know nothing of goroutines, and `golibx serve`.

Each is a process of its own that is treated badly by plain sockets of this one; then it has to have
as many goroutines, threads and descriptors as before, and to answer. With GOLIBX_HARDSHIP=50 there
are 50 times as many connections (`make soak`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import golibx

TIMES = int(os.environ.get("GOLIBX_HARDSHIP", "1"))
ROOT = Path(golibx.__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
KINDS = ["http", "tcp", *["serve"] * (find_spec("httptools") is not None)]
RESET = struct.pack("ii", 1, 0)
BIG = 16 << 18  # bytes of the answer to /big

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.limit(60 + 20 * TIMES),
]


class State(NamedTuple):
    goroutines: int
    threads: int
    descriptors: int


class Server:
    """A server in a process of its own, and what is asked of it."""

    def __init__(self, kind: str, folder: Path, *options: str, **more: Any) -> None:
        self.kind = kind
        self.log = folder / f"{kind}.log"
        command = [sys.executable, "-m", "golibx"]
        if kind == "serve":
            command += ["serve", "hardship_app:app", "--bind", "127.0.0.1:0", *options]
        else:
            command += ["run", str(HERE / "hardship_app.py"), kind, *options]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
            "NO_COLOR": "1",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stderr=log, stdin=subprocess.PIPE, **more
            )
        while not (found := re.search(r"http://127.0.0.1:(\d+)", self.said())):
            assert self.process.poll() is None, self.said()
        self.address = ("127.0.0.1", int(found[1]))

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)

    def request(self, path: str, body: bytes = b"") -> bytes:
        if self.kind == "tcp":
            return f"{path} {len(body)}\n".encode() + body
        method = "POST" if body else "GET"
        head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def answer(self, sock: socket.socket) -> bytes:
        """What the next answer has, of which nothing has been read."""
        head = b""
        end = b"\n" if self.kind == "tcp" else b"\r\n\r\n"
        while not head.endswith(end):
            part = sock.recv(1)
            assert part, f"no answer but {head!r}"
            head += part
        length = re.search(rb"(?:^|Content-Length: )(\d+)\s", head)
        assert length is not None, head
        return exactly(sock, int(length[1]))

    def ask_on(self, sock: socket.socket, path: str, body: bytes = b"") -> bytes:
        sock.sendall(self.request(path, body))
        return self.answer(sock)

    def ask(self, path: str, body: bytes = b"") -> bytes:
        with closing(self.connect()) as sock:
            return self.ask_on(sock, path, body)

    def figures(self) -> dict[str, int]:
        return dict(json.loads(self.ask("/stats")))

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def os_threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def resident(self) -> int:
        """Bytes."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * resource.getpagesize()

    def state(self) -> State:
        figures = self.figures()
        return State(figures["goroutines"], figures["threads"], self.descriptors())

    def end(self) -> None:
        """It ends as it should, and has had nothing to complain of."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate()
        said = self.said()
        assert self.process.returncode == 0, said
        for word in ("Traceback", "panic", "fatal"):
            assert word not in said

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One for all tests: each leaves it as it was."""
    server = Server(request.param, tmp_path_factory.mktemp("hardship"))
    yield server
    try:
        server.end()
    finally:
        server.kill()


@pytest.fixture
def unchanged(server: Server) -> Iterator[State]:
    """The state of the server, which it is to return to, with no thread of the system more."""
    before = settled(server)
    yield before
    while any(now > then for now, then in zip(server.state(), before, strict=True)):
        pass
    assert server.ask("/hello") == b"hello"


def settled(server: Server) -> State:
    """Once what was asked for before has ended: two looks find the same."""
    before = server.state()
    while before != (before := server.state()):
        pass
    return before


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, f"{len(data)} bytes of {size}"
        data += part
    return bytes(data)


def everything(sock: socket.socket) -> bytes:
    data = b""
    with suppress(ConnectionResetError):
        while part := sock.recv(65536):
            data += part
    return data


# ---- slow clients ----


def test_slow_clients_keep_nobody_out(server: Server, unchanged: State) -> None:
    """Slow loris: hundreds of heads that come byte by byte."""
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(server.connect())) for _ in range(200)]
        request = server.request("/hello")
        for byte in request[:8]:
            for sock in slow:
                sock.sendall(bytes([byte]))
            assert server.ask("/hello") == b"hello"
        assert server.state().goroutines > len(slow)
        assert server.os_threads() < 50
        for sock in slow[::2]:
            sock.sendall(request[8:])
            assert server.answer(sock) == b"hello"


@pytest.mark.skipif("serve" not in KINDS, reason="needs httptools")
def test_slow_clients_are_ended(tmp_path: Path) -> None:
    """The time for a head is that for all of it, however often a byte comes."""
    server = Server("serve", tmp_path, "--header-timeout", "300ms")
    with ExitStack() as stack:
        stack.callback(server.kill)
        before = settled(server)
        slow = [stack.enter_context(closing(server.connect())) for _ in range(100)]
        for sock in slow:
            sock.sendall(b"GET / HTTP/1.1\r\nX: ")
        ended: set[socket.socket] = set()
        while len(ended) < len(slow):
            for sock in set(slow) - ended:
                with suppress(OSError):
                    sock.sendall(b"x")
                if select.select([sock], [], [], 0)[0]:
                    # Nothing: it was closed with a byte unread, which resets it.
                    assert everything(sock)[:12] in (b"HTTP/1.1 408", b"")
                    ended.add(sock)
        while any(now > then for now, then in zip(server.state(), before, strict=True)):
            pass
        server.end()


@pytest.mark.parametrize("server", ["http", "tcp"], indirect=True)
def test_time_outs_of_sockets_end_silent_clients(server: Server, unchanged: State) -> None:
    server.ask("/timeout/0.2")
    with ExitStack() as stack:
        silent = [stack.enter_context(closing(server.connect())) for _ in range(100)]
        for number, sock in enumerate(silent):
            sock.sendall(server.request("/hello")[: number % 8])
        for sock in silent:
            assert everything(sock) == b""
    server.ask("/timeout/0")


# ---- resets ----


def test_connections_that_are_gone_before_they_are_accepted(
    server: Server, unchanged: State
) -> None:
    for _ in range(TIMES):
        server.process.send_signal(signal.SIGSTOP)
        try:
            for number in range(500):
                sock = server.connect()
                if number % 2:
                    sock.sendall(server.request("/hello"))
                reset(sock)
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert server.ask("/hello") == b"hello"


STAGES = ["accepted", "in a request", "while it works", "in an answer", "after an answer"]


@pytest.mark.parametrize("stage", STAGES)
def test_clients_that_reset_their_connections(server: Server, unchanged: State, stage: str) -> None:
    for _ in range(100 * TIMES):
        sock = server.connect()
        if stage == "in a request":
            sock.sendall(server.request("/echo", b"x" * 1000)[:-500])
        elif stage == "while it works":
            sock.sendall(server.request("/sleep"))
        elif stage == "in an answer":
            sock.sendall(server.request("/big"))
            sock.recv(1)
        elif stage == "after an answer":
            server.ask_on(sock, "/hello")
        reset(sock)
    assert server.ask("/hello") == b"hello"


# ---- no descriptors left ----


def test_no_descriptors_left(server: Server, unchanged: State) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(closing(server.connect()))
        begin = server.request("/stats")[:4]  # of the next request, so that it is not idle

        def figures() -> dict[str, int]:
            first.sendall(server.request("/stats")[4:] + begin)
            return dict(json.loads(server.answer(first)))

        first.sendall(begin)
        attempts = figures()["attempts"]
        limit = server.descriptors() + 30
        server.ask(f"/descriptors/{limit}")
        begun = time.monotonic()
        request = server.request("/hello")
        socks = [stack.enter_context(closing(server.connect())) for _ in range(100)]
        for sock in socks:
            sock.sendall(request[:4])
        # The clients that it has are served, while it can accept no other.
        while (tried := figures()["attempts"] - attempts) < 3:
            pass
        assert server.descriptors() == limit
        if server.kind == "serve":  # socketserver tries again at once, on golibx or not
            assert tried <= 4 + (time.monotonic() - begun) / 0.05
        # The others are accepted when there is room.
        for sock in socks:
            sock.sendall(request[4:])
            assert server.answer(sock) == b"hello"
            sock.close()
        server.ask("/descriptors/0")


# ---- peers that close their half ----


def test_clients_that_have_closed_their_half_are_answered(server: Server, unchanged: State) -> None:
    for path, length in [("/hello", 5), ("/sleep", 5), ("/big", BIG)]:
        with closing(server.connect()) as sock:
            sock.sendall(server.request(path))
            sock.shutdown(socket.SHUT_WR)
            assert len(server.answer(sock)) == length
            assert everything(sock) == b""
    for request in (b"", server.request("/hello")[:4], server.request("/echo", b"123")[:-1]):
        with closing(server.connect()) as sock:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            everything(sock)


def test_servers_that_have_closed_their_half_still_receive(
    server: Server, unchanged: State
) -> None:
    body = b"x" * 500_000
    with closing(server.connect()) as sock:
        request = server.request("/ends", body)
        sock.sendall(request[: -len(body)])
        assert server.answer(sock) == b"hello"
        before = server.figures()["received"]
        if server.kind != "serve":
            assert sock.recv(1) == b""
        sock.sendall(body)
        sock.shutdown(socket.SHUT_WR)
        assert everything(sock) == b""
    if server.kind != "serve":
        while server.figures()["received"] < before + len(body):
            pass
        assert server.figures()["received"] == before + len(body)


# ---- very many ----


def test_connections_opened_and_closed_leave_nothing_behind(
    server: Server, unchanged: State
) -> None:
    """2000, or 100 000 if there are 50 times as many."""

    def connections(count: int) -> None:
        for _ in range(count):
            with closing(server.connect()) as sock:
                assert server.ask_on(sock, "/hello") == b"hello"

    count = 2000 * TIMES
    connections(count // 4)
    before, threads = server.resident(), server.os_threads()
    connections(count * 3 // 4)
    assert server.resident() - before < 3 << 20
    assert server.os_threads() <= threads + 4


# ---- children ----


@pytest.mark.parametrize("how", ["/fork/", "/command"])
def test_children_beside_busy_sockets(server: Server, unchanged: State, how: str) -> None:
    """Each client gets back what it has sent, no more and no less, while the server forks."""
    done = threading.Event()

    def busy(number: int) -> int:
        with closing(server.connect()) as sock:
            count = 0
            while not done.is_set() or count < 3:
                block = hashlib.sha256(b"%d %d" % (number, count)).digest() * (1 + count % 1000)
                assert server.ask_on(sock, "/echo", block) == block
                count += 1
        return count

    def answer_pings(listener: socket.socket) -> None:
        while True:
            sock, _ = listener.accept()
            with closing(sock):
                if sock.recv(4) != b"ping":
                    return
                sock.sendall(b"pong")
                assert sock.recv(1) == b""

    with closing(socket.create_server(("127.0.0.1", 0))) as listener, ThreadPoolExecutor(9) as pool:
        port = listener.getsockname()[1]
        pinged = pool.submit(answer_pings, listener)
        clients = [pool.submit(busy, number) for number in range(8)]
        try:
            for _ in range(10 * TIMES):
                if how == "/fork/":
                    assert server.ask(f"{how}{port}") == b"42"
                else:
                    assert server.ask(how) == b"3"
        finally:
            done.set()
            socket.create_connection(("127.0.0.1", port)).close()
        assert all(client.result() >= 3 for client in clients)
        pinged.result()


def test_connections_that_a_child_keeps_open(server: Server, unchanged: State) -> None:
    """What happens on them is nothing to the connections that get their descriptors' numbers."""
    with ExitStack() as stack:
        first = [stack.enter_context(closing(server.connect())) for _ in range(20)]
        for sock in first:
            assert server.ask_on(sock, "/hello") == b"hello"
        pid = server.ask("/keeper").decode()
        for sock in first:
            assert server.ask_on(sock, "/close") == b"hello"
        while server.descriptors() > unchanged.descriptors:
            pass
        second = [stack.enter_context(closing(server.connect())) for _ in range(20)]
        request = server.request("/hello")
        for sock in second:
            sock.sendall(request[:5])
        for old, new in zip(first, second, strict=True):
            old.sendall(b"x" * 1000)
            new.sendall(request[5:])
            assert server.answer(new) == b"hello"
            reset(old)
            assert server.ask_on(new, "/sleep") == b"hello"
        assert server.ask(f"/killed/{pid}") == b"-9"
        for sock in second:
            assert server.ask_on(sock, "/hello") == b"hello"
