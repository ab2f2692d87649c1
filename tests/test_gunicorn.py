"""golibx.integrations.gunicorn: real gunicorn processes, and plain HTTP clients."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

import golibx

pytest.importorskip("gunicorn")

ROOT = Path(golibx.__file__).resolve().parent.parent

APP = """
import json, os, sys, threading, time
import golibx

started = threading.Event()
stop = threading.Event()
lock = threading.Lock()  # made at import, before any run

def hog():
    while not stop.is_set():
        sum(range(1000))
    return "the hog ended"

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/sleep":
        time.sleep(0.3)
        text = "slept"
    elif path == "/lock":
        with lock:
            time.sleep(0.001)
        text = "locked"
    elif path == "/hog":
        text = hog()
    elif path == "/stop":
        stop.set()
        text = "stopped"
    elif path == "/slow":
        started.set()
        stop.wait()
        text = "slow"
    elif path == "/started":
        started.wait()
        text = str(os.getpid())
    elif path == "/raises":
        raise ValueError("of the application")
    elif path == "/echo":
        text = environ["wsgi.input"].read().decode()
    elif path == "/config":
        from golibx import runtime
        text = str(runtime._entered.config.preempt.slice_ns)
    else:
        text = json.dumps({"threads": golibx.stats()["threads"], "pid": os.getpid()})
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text.encode()]
"""


class Server:
    def __init__(self, process: subprocess.Popen[str], address: tuple[str, int]) -> None:
        self.process = process
        self.address = address

    def connect(self) -> HTTPConnection:
        return HTTPConnection(*self.address, timeout=60)

    def get(self, path: str, body: bytes | None = None) -> tuple[int, str]:
        with closing(self.connect()) as client:
            client.request("POST" if body else "GET", path, body)
            reply = client.getresponse()
            return reply.status, reply.read().decode()

    def stop(self) -> str:
        """Ends it as a service manager does. Returns what it has logged."""
        self.process.terminate()
        _, log = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, log
        return log


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    (tmp_path / "app.py").write_text(APP)
    with contextmanager(_serving)(tmp_path) as start:
        yield start


def _serving(folder: Path) -> Iterator[Serve]:
    started: list[Server] = []

    def start(*options: str) -> Server:
        with socket.create_server(("127.0.0.1", 0), backlog=500) as listener:
            command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}"]
            command += [
                "--worker-class",
                "golibx.integrations.gunicorn.Worker",
                *options,
                "app:app",
            ]
            process = subprocess.Popen(
                command,
                cwd=folder,
                pass_fds=[listener.fileno()],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)},
            )
            started.append(Server(process, listener.getsockname()))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


def test_many_requests_wait_at_once(serve: Serve) -> None:
    server = serve()
    with ThreadPoolExecutor(100) as pool:
        replies = list(pool.map(server.get, ["/sleep"] * 200 + ["/lock"] * 100))
    assert replies == [(200, "slept")] * 200 + [(200, "locked")] * 100
    status, text = server.get("/")
    assert status == 200
    assert json.loads(text)["threads"] < 20
    server.stop()


def test_workers_read_the_configuration_of_their_folder(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "golib.toml").write_text('[preempt]\nslice = "7ms"\n')
    server = serve()
    assert server.get("/config") == (200, "7000000")
    server.stop()


def test_a_request_that_computes_stops_no_other(serve: Serve) -> None:
    server = serve()
    with ThreadPoolExecutor(20) as pool:
        hog = pool.submit(server.get, "/hog")
        others = list(pool.map(server.get, ["/echo"] * 50, [b"hello"] * 50))
        assert others == [(200, "hello")] * 50
        assert not hog.done()
        assert server.get("/stop") == (200, "stopped")
        assert hog.result() == (200, "the hog ended")
    server.stop()


def test_what_the_application_raises_is_an_error_of_its_request(serve: Serve) -> None:
    server = serve()
    assert server.get("/raises")[0] == 500
    assert server.get("/echo", b"x") == (200, "x")
    assert "ValueError: of the application" in server.stop()


def test_requests_end_before_the_server_does(serve: Serve) -> None:
    server = serve("--graceful-timeout", "50")
    with ThreadPoolExecutor() as pool, closing(server.connect()) as other:
        slow = pool.submit(server.get, "/slow")
        other.request("GET", "/started")
        os.kill(int(other.getresponse().read()), signal.SIGTERM)
        # The connection was there before: its requests are served to the end.
        other.request("GET", "/stop")
        assert other.getresponse().read() == b"stopped"
        assert slow.result() == (200, "slow")
    server.stop()


def test_a_request_that_does_not_end_is_given_up(serve: Serve) -> None:
    server = serve("--graceful-timeout", "1")
    with ThreadPoolExecutor() as pool, closing(server.connect()) as other:
        slow = pool.submit(server.get, "/slow")
        other.request("GET", "/started")
        other.getresponse().read()
        server.stop()
        assert slow.exception() is not None or slow.result()[0] == 500


def test_an_idle_connection_is_closed(serve: Serve) -> None:
    server = serve("--keep-alive", "1")
    with closing(server.connect()) as client:
        for _ in range(2):
            client.request("GET", "/echo", b"x")
            assert client.getresponse().read() == b"x"
        assert client.sock.recv(1) == b""
    server.stop()


def test_several_workers_share_a_socket(serve: Serve) -> None:
    server = serve("--workers", "3", "--worker-connections", "10")
    with ThreadPoolExecutor(60) as pool:
        assert {status for status, _ in pool.map(server.get, ["/sleep"] * 120)} == {200}
        pids = {json.loads(text)["pid"] for _, text in pool.map(server.get, ["/"] * 100)}
    assert pids
    server.stop()


def test_a_worker_that_has_served_enough_is_replaced(serve: Serve) -> None:
    server = serve("--max-requests", "5")
    pids = {json.loads(server.get("/")[1])["pid"] for _ in range(20)}
    assert len(pids) > 1
    server.stop()
