"""golibx serve beside gunicorn and granian: a hello, an answer after 20 ms, and idle connections.

    python bench/serve.py                     Flask and plain WSGI, 3 rounds: about four minutes
    python bench/serve.py --rounds 1 --seconds 2

Needs wrk, which makes the requests, and two CPUs: the server is on the first, wrk on the second. In
the current environment have to be golibx[serve], flask, gunicorn, gevent and granian; one that is
missing is named and left out. Servers take turns in each round. What is printed are medians: the
requests a second, those of golibx divided by those of each other one, and the CPU time of a
request, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

APP = """
import time

def plain(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.02)
    body = b"Hello, world!"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

try:
    from flask import Flask
except ImportError:
    pass
else:
    app = Flask(__name__)

    @app.get("/")
    def hello():
        return "Hello, world!"

    @app.get("/slow")
    def slow():
        time.sleep(0.02)
        return "Hello, world!"
"""
THREADS = "200"
"""As many as there are connections that wait at a time: those that need threads have enough."""
GUNICORN = ["-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--log-level", "error"]
SERVERS = {
    "golibx": ["-m", "golibx", "serve", "--no-config", "--bind", "127.0.0.1:{port}"],
    "gthread": [*GUNICORN, "--keep-alive", "75", "-k", "gthread", "--threads", THREADS],
    "gevent": [*GUNICORN, "--keep-alive", "75", "-k", "gevent", "--worker-connections", "20000"],
    "granian": [
        *("-m", "granian", "--interface", "wsgi", "--port", "{port}", "--no-log", "--no-ws"),
        *("--blocking-threads", "{threads}"),
    ],
}
NEEDS = {"golibx": "httptools", "gthread": "gunicorn", "gevent": "gevent", "granian": "granian"}


class Case(NamedTuple):
    name: str
    app: str
    path: str
    connections: int
    threads: int


CASES = (
    Case("hello, WSGI", "plain", "/", 32, 1),
    Case("hello, Flask", "app", "/", 32, 1),
    Case("20 ms, Flask", "app", "/slow", 200, 128),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--idle", type=int, default=10_000, help="connections")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("bench/serve.py needs wrk: apt-get install wrk")
    servers = [name for name in SERVERS if find_spec(NEEDS[name]) is not None]
    print(f"load average {os.getloadavg()[0]:.2f}; without {set(SERVERS) - {*servers} or 'none'}")
    cases = [case for case in CASES if case.app == "plain" or find_spec("flask") is not None]
    for case in cases:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
        for _ in range(options.rounds):
            for name in servers:
                with running(name, case.app, case.threads) as (pid, port):
                    found[name].append(measure(pid, port, case, options.seconds))
        show(case.name, found)
    print(f"\n{options.idle} idle connections: {idle(options.idle):.1f} KiB each in golibx serve")


def show(case: str, found: dict[str, list[tuple[float, float]]]) -> None:
    print(f"\n{case:14} requests/s  golibx/it  CPU us each  golibx/it")
    medians = {
        name: [statistics.median(column) for column in zip(*each, strict=True)]
        for name, each in found.items()
    }
    own_rate, own_cpu = medians["golibx"]
    for name, (each, cpu) in medians.items():
        row = f"{each:10.0f} {own_rate / each:10.2f} {cpu:12.1f} {own_cpu / cpu:10.2f}"
        print(f"  {name:12} {row}", flush=True)


@contextmanager
def running(name: str, app: str, threads: int, *more: str) -> Iterator[tuple[int, int]]:
    """The pid and port of a server that serves."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    arguments = [each.format(port=port, threads=threads) for each in SERVERS[name]]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "served.py").write_text(APP)
        process = subprocess.Popen(
            ["taskset", "-c", "0", sys.executable, *arguments, *more, f"served:{app}"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(port)
            yield process.pid, port
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(port: int) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                ask([sock])
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def measure(pid: int, port: int, case: Case, seconds: int) -> tuple[float, float]:
    """Requests a second, and microseconds of CPU time for each."""
    url = f"http://127.0.0.1:{port}{case.path}"
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{case.connections}", f"-d{seconds}s", url]
    before = cpu_time(pid)
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    spent = cpu_time(pid) - before
    requests = re.search(r"(\d+) requests in", result.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", result.stdout)
    if requests is None or rate is None or "Non-2xx" in result.stdout:
        raise SystemExit(f"{case.name}: not all is well\n{result.stdout}")
    return float(rate[1]), spent / int(requests[1]) * 1e6


def cpu_time(pid: int) -> float:
    """Seconds, of a process and its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") + sum(cpu_time(int(each)) for each in children)


def idle(count: int) -> float:
    """KiB of memory for each connection that has been answered and is kept."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 100, hard), hard))
    limits = ("--connections", str(count + 100), "--keep-alive", "10m")
    with running("golibx", "plain", 1, *limits) as (pid, port), ExitStack() as stack:
        before = resident(pid)
        for _ in range(0, count, 100):
            address = ("127.0.0.1", port)
            some = [stack.enter_context(socket.create_connection(address)) for _ in range(100)]
            ask(some)
        return (resident(pid) - before) / count


def ask(connections: Sequence[socket.socket]) -> None:
    for each in connections:
        each.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    for each in connections:
        data = b""
        while not data.endswith(b"!"):
            part = each.recv(4096)
            if not part:
                raise ConnectionError("no answer")
            data += part


def resident(pid: int) -> float:
    """KiB."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return float(match[1])


if __name__ == "__main__":
    main()
