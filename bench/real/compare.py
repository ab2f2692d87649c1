"""Measures one ordinary program on threads, on gevent and on golibx.

    python bench/real/compare.py                       every row, 100 threads, medians of 5 rounds
    python bench/real/compare.py --only redis --only queue --rounds 9
    python bench/real/compare.py --only http.client --tasks 1000
    python bench/real/compare.py --hog                 a thread computes meanwhile
    python bench/real/compare.py --install             the servers, Debian's packages; as root

bench/real/program.py is started by `python`, by `python -m gevent.monkey` and by `golibx run` with
`[patch] threads`, one after the other in each round. The servers are started here, with data in a
temporary folder, and ended. A row whose server or package is missing is left out, and the reason is
printed.

The targets: at least 1.0 of the better of the others in rate, at most 1.0 of the better in p99;
with --hog at least 0.9 of threads in rate, at most 1.1 in p99, as gevent stands still there. With
--check the exit code is 1 if one was missed.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import importlib.util
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = str(HERE / "program.py")
PACKAGES = ("nginx-light", "redis-server", "postgresql", "mariadb-server")
RUNTIMES = {
    "threads": (sys.executable, PROGRAM),
    "gevent": (sys.executable, "-m", "gevent.monkey", PROGRAM),
    "golibx": (sys.executable, "-m", "golibx", "run", PROGRAM),
}
# For each row, the Python package and the server that it needs.
NEEDS = {
    "requests": ("requests", "http"),
    "http.client": ("", "slow"),
    "redis": ("redis", "redis"),
    "psycopg": ("psycopg", "postgres"),
    "mysqlclient": ("MySQLdb", "mysql"),
    "sqlalchemy": ("sqlalchemy", "postgres"),
    "queue": ("", ""),
    "condition": ("", ""),
    "pool": ("", ""),
    "file-log": ("", ""),
    "subprocess": ("", ""),
}
START_LIMIT = 60.0  # seconds, for a server
RUN_LIMIT = 120.0  # seconds, for a program beside what it measures
CONNECTIONS = 2000


class MissingError(Exception):
    """A server or a package is not there; str() has the reason."""


@dataclass
class Result:
    """What a runtime did in one row."""

    runs: list[dict[str, float]] = field(default_factory=list)
    trouble: str = ""

    def median(self, name: str) -> float:
        return statistics.median(run[name] for run in self.runs)

    def spread(self, name: str) -> float:
        """Half of the distance from the least to the most, as a share of the median."""
        values = [run[name] for run in self.runs]
        return (max(values) - min(values)) / 2 / self.median(name)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=NEEDS, help="this row; may be repeated")
    parser.add_argument("--runtime", action="append", choices=RUNTIMES, help="may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--tasks", type=int, default=100, help="threads; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each; default: %(default)s")
    parser.add_argument("--hog", action="store_true", help="a thread computes meanwhile")
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a target is missed")
    parser.add_argument("--list", action="store_true", help="print the rows, and end")
    parser.add_argument("--install", action="store_true", help="install the servers, and end")
    options = parser.parse_args()
    if options.list:
        print(*NEEDS, sep="\n")
        return 0
    if options.install:
        return subprocess.run(["apt-get", "install", "--yes", *PACKAGES], check=False).returncode
    runtimes = options.runtime or list(RUNTIMES)
    if "gevent" in runtimes and importlib.util.find_spec("gevent") is None:
        print("gevent is left out: the package is not installed")
        runtimes.remove("gevent")
    everything: dict[str, dict[str, Result]] = {}
    met = True
    with ExitStack() as stack:
        servers = Servers(stack)
        for row in options.only or NEEDS:
            try:
                servers.ensure(*NEEDS[row])
            except MissingError as reason:
                print(f"{row}: left out: {reason}")
                continue
            results = {name: Result() for name in runtimes}
            for number in range(options.rounds):
                for name, result in results.items():
                    progress(f"{row}: round {number + 1} of {options.rounds}: {name}")
                    if not result.trouble:
                        measure(RUNTIMES[name], row, options, servers.ports, result)
            progress("")
            met &= show(row, results, options.hog)
            everything[row] = results
    if options.json:
        document = {
            row: {name: vars(result) for name, result in results.items()}
            for row, results in everything.items()
        }
        options.json.write_text(json.dumps(document, indent=1))
    return 0 if met or not options.check else 1


def progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def measure(
    command: Sequence[str],
    row: str,
    options: argparse.Namespace,
    ports: dict[str, int],
    result: Result,
) -> None:
    arguments = [row, str(options.tasks), str(options.seconds)]
    if options.hog:
        arguments.append("--hog")
    environment = {**os.environ, "BENCH_REAL_PORTS": json.dumps(ports)}
    try:
        done = subprocess.run(
            [*command, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=options.seconds + RUN_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        result.trouble = f"it did not end within {options.seconds + RUN_LIMIT:.0f} s"
        return
    try:
        run = json.loads(done.stdout)
    except ValueError:
        words = done.stderr.strip().splitlines() or ["nothing"]
        result.trouble = f"exit code {done.returncode}: {words[-1]}"
        return
    if run["errors"]:
        result.trouble = "; ".join(
            f"{name} ({times} times)" for name, times in run["errors"].items()
        )
    result.runs.append({name: value for name, value in run.items() if name != "errors"})


COLUMNS = (
    ("rate", "a second", ".0f"),
    ("p50", "p50 ms", ".1f"),
    ("p99", "p99 ms", ".1f"),
    ("longest", "longest ms", ".0f"),
    ("cpu", "CPU us", ".0f"),
    ("threads", "threads", ".0f"),
)


def show(row: str, results: dict[str, Result], hog: bool) -> bool:
    """Prints the row; whether golibx meets its targets."""
    print(f"\n{row}")
    print(f"  {'':10}" + "".join(f"{title:>12}" for _, title, _ in COLUMNS) + "  spread of rate")
    for name, result in results.items():
        if result.runs:
            cells = "".join(f"{format(result.median(key), how):>12}" for key, _, how in COLUMNS)
            print(f"  {name:10}{cells}{result.spread('rate'):>+15.0%}".replace("+", "±"))
        if result.trouble:
            print(f"  {name:10}{result.trouble}")
    ours = results.get("golibx")
    peers = ("threads",) if hog else ("threads", "gevent")
    others = [results[name] for name in peers if name in results and results[name].runs]
    if ours is None or not ours.runs or not others:
        return True
    rate = ours.median("rate") / max(other.median("rate") for other in others)
    p99 = ours.median("p99") / min(other.median("p99") for other in others)
    met = rate >= 0.9 and p99 <= 1.1 if hog else rate >= 1.0 and p99 <= 1.0
    peer = "threads" if hog else "the better"
    print(f"  of {peer}: rate {rate:.2f}, p99 {p99:.2f}: {'met' if met else 'missed'}")
    sys.stdout.flush()
    return met


# ---- servers ----


class Servers:
    """Those that a row has needed so far, and their ports."""

    def __init__(self, stack: ExitStack) -> None:
        self.ports: dict[str, int] = {}
        self._stack = stack
        self._missing: dict[str, MissingError] = {}

    def ensure(self, package: str, server: str) -> None:
        """Raises MissingError."""
        if package and importlib.util.find_spec(package) is None:
            raise MissingError(f"the Python package {package} is not installed")
        if not server or server in self.ports:
            return
        if server in self._missing:
            raise self._missing[server]
        try:
            self.ports[server] = self._stack.enter_context(SERVERS[server]())
        except MissingError as error:
            self._missing[server] = error
            raise


def find_program(*names: str) -> str:
    folders = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin", *folders])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    raise MissingError(f"there is no program {names[0]}: --install installs the servers")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(
    command: Sequence[str], port: int, folder: Path, owner: str | None = None
) -> Iterator[int]:
    """The server, until it is not needed; its port, when it accepts."""
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, user=owner)
    try:
        until = time.monotonic() + START_LIMIT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > until:
                words = (folder / "output").read_text(errors="replace").strip().splitlines()
                said = words[-1] if words else "it said nothing"
                raise MissingError(f"{Path(command[0]).name} does not start: {said}")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def folder_of(owner: str | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-real-", ignore_cleanup_errors=True) as name:
        if owner is not None:
            try:
                shutil.chown(name, owner)
            except LookupError:
                raise MissingError(f"there is no user {owner}") from None
        yield Path(name)


def unless_root(owner: str) -> str | None:
    """Who a server runs as that refuses to be root's."""
    return owner if getpass.getuser() == "root" else None


def make_data(command: Sequence[str], folder: Path, owner: str | None) -> None:
    """What a server of databases begins with. Raises MissingError."""
    made = subprocess.run(
        command, cwd=folder, user=owner, capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise MissingError(f"{Path(command[0]).name} failed: {made.stderr.strip()}")


@contextmanager
def http() -> Iterator[int]:
    program, port = find_program("nginx"), free_port()
    with folder_of(None) as folder:
        (folder / "small").write_text("x" * 100)
        (folder / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;\n"
            f"events {{ worker_connections {2 * CONNECTIONS}; }}\n"
            "http { access_log off; keepalive_requests 100000000;\n"
            f"server {{ listen 127.0.0.1:{port} backlog=4096; root {folder}; }} }}\n"
        )
        folder.chmod(0o755)
        with started((program, "-c", str(folder / "nginx.conf")), port, folder):
            yield port


@contextmanager
def slow() -> Iterator[int]:
    command = (sys.executable, str(HERE / "slow_server.py"))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


@contextmanager
def redis() -> Iterator[int]:
    program, port = find_program("redis-server"), free_port()
    with folder_of(None) as folder:
        command = (program, "--port", str(port), "--save", "", "--appendonly", "no")
        with started(command, port, folder):
            yield port


@contextmanager
def postgres() -> Iterator[int]:
    initdb, program, port = find_program("initdb"), find_program("postgres"), free_port()
    owner = unless_root("postgres")
    with folder_of(owner) as folder:
        data = str(folder / "data")
        command = (initdb, "--pgdata", data, "--username", "postgres", "--auth", "trust")
        make_data(command, folder, owner)
        settings = (f"port={port}", f"unix_socket_directories={folder}", "max_connections=1100")
        options = [part for each in settings for part in ("-c", each)]
        with started([program, "-D", data, *options], port, folder, owner):
            yield port


@contextmanager
def mysql() -> Iterator[int]:
    program, install = find_program("mariadbd", "mysqld"), find_program("mariadb-install-db")
    port, owner = free_port(), unless_root("mysql")
    with folder_of(owner) as folder:
        data = f"--datadir={folder / 'data'}"
        method = "--auth-root-authentication-method=normal"
        make_data((install, "--no-defaults", data, method), folder, owner)
        command = (
            program,
            "--no-defaults",
            data,
            f"--port={port}",
            f"--socket={folder / 'socket'}",
            "--bind-address=127.0.0.1",
            "--skip-grant-tables",
            "--skip-networking=0",
            f"--max-connections={CONNECTIONS}",
        )
        with started(command, port, folder, owner):
            yield port


SERVERS: dict[str, Callable[[], contextlib.AbstractContextManager[int]]] = {
    "http": http,
    "slow": slow,
    "redis": redis,
    "postgres": postgres,
    "mysql": mysql,
}

if __name__ == "__main__":
    raise SystemExit(main())
