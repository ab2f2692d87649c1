"""Programs that were not written for golibx, under `golibx run`, beside plain Python.

`make test-programs` runs them; what they need is in requirements.txt here. Each program with_*.py
has 100 threads that use a package against a real server, a thread that computes, one in a blocked C
call and one that sleeps again and again (beside.py). It has to print the same as under python, and
what the test expects; so nothing is lost, nothing stands still and nothing is complained of.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest

import golibx

HERE = Path(__file__).parent
sys.path[:0] = map(str, (HERE.parent.parent / "bench" / "real", HERE.parent))

import compare  # noqa: E402

import chromium  # noqa: E402

LIMIT = 200.0  # seconds, for a program: HTTPie takes half of it beside a thread that computes
EACH = "EACH"
GOLIBX = ("-m", "golibx", "run")

pytestmark = pytest.mark.limit(2 * LIMIT + 20)


def needs(package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"there is no {package}: pip install -r tests/programs/requirements.txt")


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GOLIB", "GOMAXPROCS"))}
    paths = [str(HERE), str(Path(golibx.__file__).parent.parent)]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "NO_COLOR": "1", **more}


def output_of(*command: str, cwd: Path, **env: str) -> tuple[str, str]:
    """What the program prints, on standard output and on standard error."""
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment(**env),
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        stacks = subprocess.run(
            [sys.executable, "-m", "golibx", "dump", str(process.pid)],
            capture_output=True,
            env=environment(),
            text=True,
            check=False,
        )
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{command} did not end:\n{out}\n{err}\n{stacks.stdout}\n{stacks.stderr}")
    assert process.returncode == 0, f"exit code {process.returncode}\n{out}\n{err}"
    return out, err


def compare_runs(folder: Path, *command: str, **env: str) -> str:
    """Runs it under python and under golibx, which have to print the same; returns what.

    An argument EACH is another name for each of them.
    """
    plain = output_of(*[part.replace(EACH, "plain") for part in command], cwd=folder, **env)
    ours = [part.replace(EACH, "golibx") for part in command]
    ours = output_of(*GOLIBX, *ours, cwd=folder, **env)
    differ = [
        set(mine.splitlines()) ^ set(its.splitlines())
        for mine, its in zip(ours, plain, strict=True)
    ]
    assert ours == plain, differ
    return ours[0]


def tells(*results: object, stood_still: str = "[]", more: str = "") -> str:
    """What beside.run prints of these results, and the program after it."""
    lines = [f"{number} {result}\n" for number, result in enumerate(results)]
    return (
        "".join(lines)
        + f"stood still in {stood_still}\n"
        + "the blocked call returned None b'released'\n"
        + more
    )


def program(name: str) -> str:
    return str(HERE / f"with_{name}.py")


# ---- servers ----


@pytest.fixture(scope="module")
def servers() -> Iterator[compare.Servers]:
    with ExitStack() as stack:
        yield compare.Servers(stack)


def port_of(servers: compare.Servers, name: str) -> str:
    try:
        servers.ensure("", name)
    except compare.MissingError as reason:
        pytest.skip(f"{reason}: python bench/real/compare.py --install")
    return str(servers.ports[name])


@contextmanager
def serving(*command: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """What it says on standard error is in the file `said`."""
    with (cwd / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=said,
            cwd=cwd,
            env=environment(),
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(port: str) -> None:
    """Returns once a program listens there."""
    until = time.monotonic() + LIMIT
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(port))).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < until, f"no program listens on port {port}"
            time.sleep(0.05)


@contextmanager
def own_server(name: str, folder: Path) -> Iterator[str]:
    """The port of a server of this folder, which plain Python runs."""
    with serving(str(HERE / f"{name}_server.py"), cwd=folder) as process:
        assert process.stdout is not None
        yield str(int(process.stdout.readline()))


@pytest.fixture
def http(tmp_path: Path) -> Iterator[str]:
    """The URL of http_server.py, which plain Python runs."""
    with own_server("http", tmp_path) as port:
        yield f"http://127.0.0.1:{port}"


# ---- clients ----


def test_requests(tmp_path: Path, http: str) -> None:
    needs("requests")
    expected = [(str(n), 100_000 * len(str(n)), str(n), 404) for n in range(100)]
    assert compare_runs(tmp_path, program("requests"), http) == tells(*expected)


def test_urllib3(tmp_path: Path, http: str) -> None:
    needs("urllib3")
    expected = [(str(n), 100_000 * len(str(n)), str(n)) for n in range(100)]
    assert compare_runs(tmp_path, program("urllib3"), http) == tells(*expected)


def test_httpx(tmp_path: Path, http: str) -> None:
    needs("httpx")
    expected = [(str(n), 100_000 * len(str(n)), str(n)) for n in range(100)]
    assert compare_runs(tmp_path, program("httpx"), http) == tells(*expected)


def test_redis(tmp_path: Path, servers: compare.Servers) -> None:
    needs("redis")
    expected = [(None, [str(n), n + 1], 1, "word") for n in range(100)]
    found = compare_runs(tmp_path, program("redis"), port_of(servers, "redis"))
    assert found == tells(*expected, more="counter 100\n")


@pytest.mark.parametrize("name", ["psycopg", "psycopg2"])
def test_psycopg(tmp_path: Path, servers: compare.Servers, name: str) -> None:
    needs(name)
    expected = [(n, total(name, n), "22012") for n in range(100)]
    found = compare_runs(tmp_path, program(name), port_of(servers, "postgres"))
    assert found == tells(*expected)


def test_psycopg2_that_waits_by_a_callback(tmp_path: Path, servers: compare.Servers) -> None:
    needs("psycopg2")
    expected = [(n, total("psycopg2", n), "22012") for n in range(100)]
    arguments = (program("psycopg2"), port_of(servers, "postgres"), "callback")
    assert compare_runs(tmp_path, *arguments) == tells(*expected)


def total(name: str, n: int) -> int | None:
    """The sum of the numbers below n, of those up to n with psycopg2; NULL for none."""
    return n * (n - 1 if name == "psycopg" else n + 1) // 2 if n else None


def test_sqlalchemy(tmp_path: Path, servers: compare.Servers) -> None:
    needs("sqlalchemy")
    needs("psycopg")
    found = compare_runs(tmp_path, program("sqlalchemy"), port_of(servers, "postgres"))
    pool = "Pool size: 20  Connections in pool: 20 Current Overflow: 0 Current Checked out "
    more = f"rows 100\n{pool}connections: 0\n"
    assert found == tells(*[(n, n * n) for n in range(100)], more=more)


def test_websockets(tmp_path: Path) -> None:
    needs("websockets")
    expected = [(f"{n} word"[::-1], 100_000) for n in range(100)]
    assert compare_runs(tmp_path, program("websockets")) == tells(*expected)


@pytest.mark.parametrize("name", ["pymysql", "MySQLdb"])
def test_mysql(tmp_path: Path, servers: compare.Servers, name: str) -> None:
    if name == "MySQLdb" and find_spec(name) is None:
        pytest.skip(
            "there is no mysqlclient, which needs a C compiler and, on Debian, libmariadb-dev and "
            "pkg-config: pip install -r tests/programs/requirements-compiled.txt"
        )
    needs(name)
    text = "mysqlclient" if name == "MySQLdb" else name
    found = compare_runs(tmp_path, program(text), port_of(servers, "mysql"))
    assert found == tells(*[((0, n), 100_000, 1054) for n in range(100)])


def test_pymongo(tmp_path: Path) -> None:
    needs("pymongo")
    with own_server("mongo", tmp_path) as port:
        found = compare_runs(tmp_path, program("pymongo"), port, EACH)
    assert found == tells(*[([*range(10)], 59)] * 100, more="100 1001\n")


def test_dnspython(tmp_path: Path) -> None:
    needs("dns")
    with own_server("dns", tmp_path) as port:
        found = compare_runs(tmp_path, program("dns"), port)
    wrong = "The DNS query name does not exist: missing{}.example."
    assert found == tells(*[(f"10.0.0.{n}", str(n), wrong.format(n)) for n in range(100)])


def test_paramiko(tmp_path: Path) -> None:
    needs("paramiko")
    commands = [f"command {n}" for n in range(100)]
    expected = [(command[::-1], 100_000, len(command)) for command in commands]
    assert compare_runs(tmp_path, program("paramiko")) == tells(*expected)


def test_grpc(tmp_path: Path) -> None:
    needs("grpc")
    expected = [(f"word {n}"[::-1], n, "NOT_FOUND") for n in range(100)]
    assert compare_runs(tmp_path, program("grpc")) == tells(*expected)


def test_boto3(tmp_path: Path) -> None:
    needs("boto3")
    needs("moto")
    port = str(compare.free_port())
    with serving("-m", "moto.server", "--port", port, cwd=tmp_path):
        wait_for(port)
        found = compare_runs(tmp_path, program("boto3"), f"http://127.0.0.1:{port}", EACH)
    assert found == tells(*[(n, n, "NoSuchKey") for n in range(100)], more="100 4950\n")


def test_playwright(tmp_path: Path) -> None:
    needs("playwright")
    browser = chromium.find()
    if browser is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    expected = [(f"page {n}, clicked", [1, 2], "TimeoutError") for n in range(3)]
    assert compare_runs(tmp_path, program("playwright"), browser) == tells(*expected)


# ---- servers of applications, and of files ----

# What each is given, but its port, with 100 threads where it has a number of its own.
SERVERS = {
    "waitress": "-m waitress --port={port} --threads=200 --connection-limit=500 app:app",
    "cheroot": "-m cheroot --bind 127.0.0.1:{port} --threads 200 --request-queue-size 500 app:app",
    "gunicorn": "-m gunicorn --bind 127.0.0.1:{port} --threads 200 app:app",
    "flask": "-m flask --app flask_app run --port {port}",
    "cherrypy": "{here}/cherrypy_app.py {port}",
}


@pytest.mark.parametrize("name", SERVERS)
def test_server(tmp_path: Path, name: str) -> None:
    needs(name)
    ours, plain = (served(name, tmp_path, before) for before in (GOLIBX, ()))
    assert ours == plain


def served(name: str, folder: Path, before: Sequence[str]) -> set[str]:
    """What the server says, without its numbers, when it has answered 200 requests rightly."""
    port = compare.free_port()
    command = SERVERS[name].format(port=port, here=HERE).split()
    with serving(*before, *command, cwd=folder) as process, ThreadPoolExecutor(100) as pool:
        wait_for(str(port))
        begin = ask(port, "state")
        answers = list(pool.map(lambda number: ask(port, str(number)), range(100)))
        end = ask(port, "state")
        echoes = list(pool.map(lambda _: ask(port, "", b"x" * 100_000), range(100)))
        stopped = ask(port, "stop")
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT)
    said = (folder / "said").read_text()
    assert answers == [str(n) for n in range(100)], said
    assert [*map(len, echoes)] == [100_000] * 100, said
    turns, ticks = zip(*[map(int, each.split()) for each in (begin, end)], strict=True)
    assert turns[0] < turns[1], said
    assert ticks[0] < ticks[1], said
    assert stopped == "(None, b'released')", said
    return {f"exit code {process.returncode}", *lines_of(said)}


def lines_of(said: str) -> set[str]:
    """Without numbers, and without the frames of tracebacks, of which golibx has others."""
    return {re.sub(r"\d+", "N", line) for line in said.splitlines() if line[:1].strip()}


def ask(port: int, path: str, body: bytes | None = None) -> str:
    return read(port, path, body).decode()


def read(port: int, path: str, body: bytes | None = None) -> bytes:
    with urlopen(f"http://127.0.0.1:{port}/{path}", body, timeout=LIMIT) as response:
        content: bytes = response.read()
    return content


def test_pypiserver(tmp_path: Path) -> None:
    needs("pypiserver")
    files = {f"package{n}-1.0.tar.gz": os.urandom(1000 * n) for n in range(100)}
    (tmp_path / "packages").mkdir()
    for name, content in files.items():
        (tmp_path / "packages" / name).write_bytes(content)

    def said(*before: str) -> set[str]:
        port = compare.free_port()
        command = f"-m beside pypiserver run --interface 127.0.0.1 --port {port} packages".split()
        with serving(*before, *command, cwd=tmp_path) as process, ThreadPoolExecutor(100) as pool:
            wait_for(str(port))
            got = list(pool.map(lambda name: read(port, f"packages/{name}"), files))
            pages = list(pool.map(lambda n: ask(port, f"simple/package{n}/"), range(100)))
            process.send_signal(signal.SIGINT)
            process.wait(LIMIT)
        said = (tmp_path / "said").read_text()
        assert got == list(files.values()), said
        assert all(name in page for name, page in zip(files, pages, strict=True)), said
        assert "went on [True, True] the blocked call returned None b'released'" in said
        return {f"exit code {process.returncode}", *lines_of(said)}

    assert said(*GOLIBX) == said()


# ---- commands ----


def test_httpie(tmp_path: Path, http: str) -> None:
    needs("httpie")
    command = ("-m", "httpie", "--ignore-stdin", "--body", f"{http}/echo/word")
    assert compare_runs(tmp_path, *command, HOME=str(tmp_path)).strip() == "word"
    found = compare_runs(tmp_path, program("httpie"), http, HOME=str(tmp_path))
    assert found == tells(*[(0, str(n)) for n in range(100)])


def test_linkchecker(tmp_path: Path, http: str) -> None:
    needs("linkcheck")
    tmp_path.chmod(0o755)
    (tmp_path / "settings").write_text(
        "[checking]\nthreads=100\nmaxrequestspersecond=10000\n[output]\nstatus=0\nlog=csv\n"
        "[csv]\nverbose=1\nparts=urlname,valid,result\n"
    )
    script = str(Path(sys.executable).parent / "linkchecker")
    settings = (
        "--config",
        str(tmp_path / "settings"),
        "--check-extern",
        "--verbose",
        f"{http}/links/100",
    )
    for command in [(script, *settings), ("-m", "beside", "linkcheck", *settings)]:
        outs, errs = zip(
            *[output_of(*run, *command, cwd=tmp_path) for run in ((), GOLIBX)], strict=True
        )
        assert lines_of(errs[0]) == lines_of(errs[1])
        links = [{row for row in out.splitlines() if "200 OK" in row} for out in outs]
        assert links[0] == links[1]
        assert len(links[0]) == 101, outs
    assert "went on [True, True] the blocked call returned None b'released'" in errs[1]


def test_locust_is_refused(tmp_path: Path) -> None:
    """It stands on gevent, which wants to be the one that switches."""
    needs("locust")
    command = [sys.executable, *GOLIBX, "-m", "locust", "--version"]
    refused = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        "RuntimeError: gevent.monkey.patch_all() inside golibx.run(): goroutines need the standard "
        "library as it is; leave gevent out, since blocking calls give way there without it, or "
        "start a program that stands on gevent with python"
    )


# ---- helpers of programs with threads ----


def test_joblib(tmp_path: Path) -> None:
    needs("joblib")
    squares = [n * n for n in range(103)]
    expected = [squares[n : n + 4] for n in range(100)]
    more = f"{squares[:100]}\n" * 3
    assert compare_runs(tmp_path, program("joblib")) == tells(*expected, more=more)


def test_tqdm(tmp_path: Path) -> None:
    needs("tqdm")
    more = f"1000\n{[n * n for n in range(100)]}\n"
    assert compare_runs(tmp_path, program("tqdm")) == tells(*[10] * 100, more=more)


def test_rich(tmp_path: Path) -> None:
    needs("rich")
    more = "lost []\nfinished True 1000\n"
    assert compare_runs(tmp_path, program("rich")) == tells(*[None] * 100, more=more)


def test_dask(tmp_path: Path) -> None:
    needs("dask")
    expected = [sum(range(n, n + 4)) for n in range(100)]
    more = f"4950\n{sum(n * n for n in range(1, 1000, 2))}\n"
    assert compare_runs(tmp_path, program("dask")) == tells(*expected, more=more)
