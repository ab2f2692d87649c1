"""Plain `socket` code under `golibx run` beside uvloop and gevent: echo, and http.server.

    python bench/sockets.py                        all rows, 3 rounds: about five minutes
    python bench/sockets.py --rounds 1 --seconds 1 --only http

golibx's program is socket_echo.py, which knows nothing of golibx: a thread for each connection.
uvloop's is a Protocol, gevent's a StreamServer, which are their quickest ways. http_hello.py is a
ThreadingHTTPServer, which `golibx run`, gevent.monkey and plain Python run unchanged.

The server is on one CPU, the load on another: gopeer, or load.py where there is no Go; wrk for
HTTP. Servers take turns in each round. What is printed are medians: the server's CPU time for a
request in microseconds, golibx's divided by that of each other one, and requests a second. Other
programs on the machine disturb the time less than the rate. A peer that is missing is named, and
left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from load import process_cpu
from measure import MeasurementError, call, echo_server, parse
from runtimes import Runtime, gather

HERE = Path(__file__).parent
CONNECTIONS = (1, 100, 1000)
SIZES = (64, 16 * 1024)
HTTP_CONNECTIONS = (1, 100)
GOLIBX = ("-m", "golibx", "run", "--no-config")
# For each kind of server, who runs it, by what options of Python, and which program.
ECHO = {
    "golibx": (*GOLIBX, "socket_echo.py"),
    "uvloop": ("uvloop_echo.py",),
    "gevent": ("gevent_echo.py",),
    "golibx.net": ("golibx_echo.py",),
    "threads": ("socket_echo.py",),
}
HTTP = {
    "golibx": (*GOLIBX, "http_hello.py"),
    "gevent": ("-m", "gevent.monkey", "http_hello.py"),
    "threads": ("http_hello.py",),
}

Measured = tuple[float, float]  # microseconds of CPU time a request, requests a second
Load = Callable[[str, str], Measured]  # of the port and the process id


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
    parser.add_argument("--only", choices=("echo", "http"))
    options = parser.parse_args()
    rounds, seconds = options.rounds, options.seconds
    if options.only != "echo" and shutil.which("wrk") is None:
        sys.exit("bench/sockets.py needs wrk for http.server: apt-get install wrk, or --only echo")
    print(f"load average {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        lineup = gather(Path(folder), ("go-p1", "golibx", "uvloop", "gevent"))
        for name, reason in lineup.missing.items():
            print(f"without {name}: {reason}")
        if options.only != "http":
            servers = runtimes(ECHO, lineup.missing)
            for size in SIZES:
                for connections in CONNECTIONS:
                    load = echo_load(lineup.load_generator, connections, size, seconds)
                    show(f"echo, {size} bytes, {connections}", measure(servers, rounds, load))
    if options.only != "echo":
        servers = runtimes(HTTP, lineup.missing)
        for connections in HTTP_CONNECTIONS:
            found = measure(servers, rounds, http_load(connections, seconds))
            show(f"http.server, {connections}", found)


def runtimes(programs: Mapping[str, Sequence[str]], missing: Mapping[str, str]) -> list[Runtime]:
    """Those that are at hand."""
    found = []
    for name, (*options, program) in programs.items():
        if name not in missing:
            command = (sys.executable, *options, str(HERE / program))
            found.append(Runtime(name, name, "", {"echo": command}))
    return found


def measure(servers: Sequence[Runtime], rounds: int, load: Load) -> dict[str, list[Measured]]:
    """What each has come to in each round."""
    found: dict[str, list[Measured]] = {server.key: [] for server in servers}
    cpus = sorted(os.sched_getaffinity(0))
    for _ in range(rounds):
        for server in servers:
            try:
                with echo_server(server, cpus[0]) as (port, pid):
                    found[server.key].append(load(port, pid))
            except MeasurementError as reason:
                print(f"{server.key} {reason}")
    return found


def echo_load(generator: Sequence[str], connections: int, size: int, seconds: int) -> Load:
    """Keeps a request under way on each connection."""

    def load(port: str, pid: str) -> Measured:
        sizes = (str(connections), str(size), str(seconds))
        results = parse(on_another_cpu([*generator, "load", port, *sizes, pid]))
        return results["cpu_us"], results["rate"]

    return load


def http_load(connections: int, seconds: int) -> Load:
    """As `echo_load`, by wrk."""

    def load(port: str, pid: str) -> Measured:
        def wrk(duration: int) -> int:
            options = ["-t1", f"-c{connections}", f"-d{duration}"]
            output = on_another_cpu(["wrk", *options, f"http://127.0.0.1:{port}/"])
            if "Non-2xx" in output or (requests := re.search(r"(\d+) requests in", output)) is None:
                sys.exit(f"wrk: {output}")
            return int(requests[1])

        wrk(1)  # a warm-up
        before = process_cpu(int(pid))
        requests = wrk(seconds)
        return (process_cpu(int(pid)) - before) * 1e6 / max(1, requests), requests / seconds

    return load


def on_another_cpu(command: Sequence[str]) -> str:
    """The output of a program that makes load."""
    return call(command, {"GOMAXPROCS": "1"}, sorted(os.sched_getaffinity(0))[1])


def show(case: str, found: Mapping[str, list[Measured]]) -> None:
    """Print a table."""
    print(f"\n{case:30} CPU us  golibx/it  requests/s  golibx/it")
    medians = {
        name: [statistics.median(column) for column in zip(*each, strict=True)]
        for name, each in found.items()
        if each
    }
    if "golibx" not in medians:
        return
    own_cpu, own_rate = medians["golibx"]
    for name, (cpu, rate) in medians.items():
        row = f"{cpu:6.1f} {own_cpu / cpu:10.2f} {rate:11.0f} {own_rate / rate:10.2f}"
        print(f"  {name:28} {row}", flush=True)


if __name__ == "__main__":
    main()
