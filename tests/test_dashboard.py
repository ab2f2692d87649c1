"""The plugin dashboard: which clients it answers, with what, and what becomes of requests.

The page itself, in a browser, is tested in test_dashboard_page.py.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conftest import Script
from golibx import ConfigError
from golibx.config import Config
from golibx.hookspec import GilWait, Tune
from golibx.plugins import _http, _looks, dashboard
from golibx.plugins.profile import Frame, Profile
from golibx.testing import wait_until
from golibx.testing.plugins import feed

ROOT = Path(__file__).parent.parent
TOKEN = "a-token.of_the~test"
PAGE = files("golibx.plugins") / "dashboard_page"

HEADER = """
import json, os, sys, time
import golibx
from golibx import Chan, Mutex, blocking, go, gosched, labels, sleep

def ends():
    '''Waits for the test to have had enough.'''
    blocking(sys.stdin.readline)

def shown(main, plugins=("dashboard",), config={}, **settings):
    settings = {"requests": 10000, **settings}
    tables = {"enabled": list(plugins), "dashboard": settings, **config.pop("plugins", {})}
    golibx.run(main, config={"plugins": tables, **config})
"""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


class Dashboard:
    """A process that runs with the plugin, as a client sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.process = process
        self.line = process.stderr.readline()
        found = re.fullmatch(r"golibx: dashboard: http://([^/]+):(\d+)/(.*)\n", self.line)
        assert found is not None, self.line + process.stderr.read()
        self.host, self.port, self.rest = found[1], int(found[2]), found[3]
        self.token = self.rest.removeprefix("#token=") if "#" in self.rest else TOKEN

    def ask(
        self, path: str, method: str = "GET", body: object = None, **headers: str | None
    ) -> Answer:
        """With the token and what else is needed, unless a header says otherwise."""
        given: dict[str, str | None] = {"Authorization": f"Bearer {self.token}"}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            given["Content-Type"] = "application/json"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in given.items() if value is not None}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=data, headers=sent)
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        answer = self.ask(path)
        assert answer.status == 200, answer.body
        return answer.json()

    def wait_for(self, path: str, condition: Callable[[Any], Any]) -> Any:
        """What is answered once it is as it should be."""

        def look() -> Any:
            answer = self.get(path)
            return answer if condition(answer) else None

        return wait_until(look)

    def raw(self, data: bytes) -> bytes:
        """All that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as conn:
            conn.sendall(data)
            parts = iter(lambda: conn.recv(65536), b"")
            return b"".join(parts)

    def end(self) -> tuple[int, str, str]:
        """Has its main function return."""
        out, err = self.process.communicate("\n", timeout=30)
        return self.process.returncode, out, err


@contextmanager
def started(script: Script, program: str, limit: float = 50.0) -> Iterator[Dashboard]:
    with script.start(HEADER + program, limit=limit) as process:
        yield Dashboard(process)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """One that nothing is changed in."""
    program = """
def wait_in(chan):
    with labels(request="17", user="<b>ada</b>"):
        chan.recv()

def sleeper(): sleep(3600)

def main():
    chans = [Chan() for _ in range(3)]
    for chan in chans: go(wait_in, chan)
    for _ in range(40): go(sleeper)
    odd = go(Chan().recv)
    odd.name = "<img src=x onerror=alert(1)>\\n\\x1b[31m\\ud800"
    ends()
shown(main, interval="100ms", history="1s", token="TOKEN")
""".replace("TOKEN", TOKEN)
    folder = tmp_path_factory.mktemp("dashboard")
    with started(Script(folder), program, limit=600) as found:
        yield found


# ---- which clients are answered ----

GETS = ("about", "points", "goroutines", "stacks", "tuning", "profile")
POSTS = ("tune", "profile", "profile/stop")


def test_the_address_is_printed_once_with_a_token(script: Script) -> None:
    program = "shown(ends)\n"
    with started(script, program) as found:
        token = found.token
        assert (found.host, len(token)) == ("127.0.0.1", 32)
        assert found.get("/api/about")["pid"] == found.process.pid
        assert found.end() == (0, "", "")
    with started(script, program) as found:
        assert found.token != token  # another one each run
        assert found.ask("/api/about", Authorization=f"Bearer {token}").status == 401
        assert found.get("/api/about")["run"]


def test_a_token_of_the_settings_is_not_printed(plain: Dashboard) -> None:
    assert TOKEN not in plain.line
    assert plain.rest == " (with the token of its settings)"
    assert plain.ask("/api/about").status == 200


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \xff\xfe",
    ],
)
def test_nothing_is_told_without_the_token(plain: Dashboard, header: str | None) -> None:
    for method, names in (("GET", GETS), ("POST", POSTS), ("GET", ("nothing",))):
        for name in names:
            body = b"{}" if method == "POST" else None
            answer = plain.ask(f"/api/{name}", method, body, Authorization=header)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), name
            assert answer.json() == {"error": "the token is missing or not right"}


def test_the_token_is_taken_from_nothing_but_its_header(plain: Dashboard) -> None:
    """What a browser sends by itself, or keeps in its history, is no proof."""
    answer = plain.ask(f"/api/about?token={TOKEN}", Authorization=None, Cookie=f"token={TOKEN}")
    assert answer.status == 401
    assert "set-cookie" not in plain.ask("/").headers


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example", "10.1.2.3"])
def test_other_names_are_refused(plain: Dashboard, host: str) -> None:
    """A page can have a name of its own lead to 127.0.0.1, and is of the same origin then."""
    for path in ("/", "/page.js", "/api/about"):
        answer = plain.ask(path, Host=f"{host}:{plain.port}")
        assert answer.status == 403
        assert "is no name of this page's" in answer.json()["error"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_names_of_this_machine_are_known(plain: Dashboard, host: str) -> None:
    for each in (host, f"{host}:9000"):  # another port: a tunnel's
        assert plain.ask("/api/about", Host=each).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": ""},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_other_origins_are_refused(plain: Dashboard, headers: dict[str, str]) -> None:
    for path, method in (("/api/about", "GET"), ("/api/tune", "POST"), ("/page.js", "GET")):
        answer = plain.ask(path, method, b"{}", **headers)
        assert answer.status == 403
        assert answer.json() == {"error": "a page of another site may not ask"}
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_the_own_origin_is_right(plain: Dashboard) -> None:
    host = f"localhost:{plain.port}"
    for origin in (f"http://{host}", f"https://{host}"):
        answer = plain.ask("/api/about", Host=host, Origin=origin, Sec_Fetch_Site="same-origin")
        assert answer.status == 200
    # A link of another site's may lead to the page, which says nothing by itself.
    assert plain.ask("/", Sec_Fetch_Site="cross-site", Authorization=None).status == 200


# What another user of the machine can try: to ask, and to find the token in what is told of the
# process. Only data that would be wrong to tell is printed, and what asking without came to.
ANOTHER_USER = """
import encodings.idna, glob, http.client, json, os, sys  # none can be read any more then
port, process, token = sys.stdin.readline().split()
os.setgroups([])
os.setuid(65534)
statuses = set()
for method, names in (("GET", sys.argv[1].split()), ("POST", sys.argv[2].split())):
    for name in names:
        for given in ({}, {"Authorization": "Bearer " + process}):
            body = None if method == "GET" else json.dumps({"changes": {"preempt.slice": "1ms"}})
            connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
            headers = {"Content-Type": "application/json", **given}
            connection.request(method, "/api/" + name, body, headers)
            statuses.add(connection.getresponse().status)
            connection.close()
print("answered with", *statuses)
read = []
for path in glob.glob(f"/proc/{process}/*"):
    try:
        with open(path, "rb") as file:
            found = file.read(1 << 20)
    except OSError:
        continue
    read.append(os.path.basename(path))
    if token.encode() in found:
        print("the token is in", path)
print("cmdline" in read, "environ" in read, "mem" in read)
"""


def as_another_user(program: str, *arguments: str, stdin: str = "") -> str:
    """What it prints; it becomes nobody by itself, once it has what only we can read."""
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


NEEDS_ROOT = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to be another user"
)


@NEEDS_ROOT
def test_another_user_is_told_nothing_and_does_not_find_the_token(script: Script) -> None:
    with started(script, "shown(ends)\n") as found:
        before = found.get("/api/tuning")
        known = f"{found.port} {found.process.pid} {found.token}\n"
        said = as_another_user(ANOTHER_USER, " ".join(GETS), " ".join(POSTS), stdin=known)
        assert said == "answered with 401\nTrue False False\n"
        assert found.get("/api/tuning") == before
        assert found.get("/api/about")["pid"] == found.process.pid


def test_a_preflight_is_not_answered(plain: Dashboard) -> None:
    asked = {"Origin": "http://attacker.example", "Access_Control_Request_Method": "POST"}
    answer = plain.ask("/api/tune", "OPTIONS", **asked)
    assert answer.status == 403
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_body_has_to_be_json(plain: Dashboard) -> None:
    """Forms of other sites can send other kinds without asking."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None):
        answer = plain.ask("/api/tune", "POST", {"changes": {}}, Content_Type=kind)
        assert answer.status == 415
    for body in (b"", b"[]", b"nonsense", b"\xff", b"[" * 30_000, b"null"):
        answer = plain.ask("/api/tune", "POST", body)
        assert (answer.status, answer.json()) == (400, {"error": "the body is no JSON object"})


def test_methods_and_paths(plain: Dashboard) -> None:
    answer = plain.ask("/api/tune")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    answer = plain.ask("/api/profile", "DELETE")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
    answer = plain.ask("/page.js", "POST", b"{}")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    for path in ("/api/nothing", "/api", "/nothing", "/../dashboard.py", "/uplot/README.md"):
        assert plain.ask(path).status == 404
        assert plain.ask(path, Authorization=None).status == 401
    answer = plain.ask("/page.js", "HEAD")
    whole = plain.ask("/page.js")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) == len(whole.body)


def test_other_hosts_only_where_it_is_said(script: Script) -> None:
    program = """
try:
    shown(ends, listen="0.0.0.0:0")
except golibx.ConfigError as exc:
    print(exc)
shown(ends, listen="0.0.0.0:0", remote=True, hosts=["dash.example"])
"""
    with started(script, program) as found:
        assert found.host == socket.gethostname()
        named = {
            "dash.example": 200,
            "DASH.example:443": 200,
            socket.gethostname(): 200,
            "10.1.2.3:80": 200,  # one that no other can have lead elsewhere
            "attacker.example": 403,
        }
        assert {host: found.ask("/api/about", Host=host).status for host in named} == named
        assert found.ask("/api/about", Authorization=None).status == 401
        _, out, _ = found.end()
    assert "other hosts reach it: set remote = true if they are to" in out


def test_nothing_listens_unless_it_is_enabled(script: Script) -> None:
    program = """
def listening():
    inodes = set()
    for name in os.listdir("/proc/self/fd"):
        try: inodes.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError: pass
    lines = [line.split() for kind in ("tcp", "tcp6") if os.path.exists(f"/proc/net/{kind}")
             for line in open(f"/proc/net/{kind}").readlines()[1:]]
    return sum(line[3] == "0A" and f"socket:[{line[9]}]" in inodes for line in lines)

def main(): print(listening())
golibx.run(main)
print("golibx.plugins.dashboard" in sys.modules)
shown(main)
print(listening())
"""
    assert script.passes(HEADER + program).split() == ["0", "False", "1", "0"]


# ---- limits ----


def test_who_asks_slowly_keeps_nobody_waiting(script: Script) -> None:
    """They are more than there may be connections, and would be waited for for a minute each."""
    program = 'shown(ends, connections=8, timeout="1m", requests=10000)\n'
    with started(script, program) as found:
        address = ("127.0.0.1", found.port)
        silent = [socket.create_connection(address, timeout=30) for _ in range(30)]
        for conn in silent[10:]:
            conn.sendall(b"GET /api/about HTTP/1.1\r\nHost: local")
        assert found.get("/api/about")["pid"] == found.process.pid
        # Those that came first had the least time left.
        assert silent[0].recv(1) == b""
        silent[-1].sendall(b"host\r\n\r\n")
        assert silent[-1].recv(65536).startswith(b"HTTP/1.1 401 ")
        for conn in silent:
            conn.close()


def test_who_does_not_read_is_given_up(script: Script) -> None:
    program = 'shown(ends, connections=2, timeout="100ms", requests=10000)\n'
    request = b"GET /uplot/uPlot.iife.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with started(script, program) as found:
        with socket.socket() as conn:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            conn.connect(("127.0.0.1", found.port))
            conn.sendall(request)
            for _ in range(5):
                assert found.get("/api/about")["pid"] == found.process.pid
        with socket.create_connection(("127.0.0.1", found.port), timeout=30) as conn:
            assert conn.recv(1) == b""  # nor one that asks nothing


def test_what_is_too_much_is_refused(plain: Dashboard) -> None:
    post = f"POST /api/tune HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    get = "GET / HTTP/1.1\r\nHost: localhost\r\n"
    expected = {
        get + "X: y\r\n" * 3000: 431,
        f"{post}Content-Length: 65537\r\n\r\n": 413,
        f"{post}Content-Length: {'9' * 5000}\r\n\r\n": 413,
        f"{post}Content-Length: -1\r\n\r\n": 400,
        f"{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\n": 400,
        f"{post}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 411,
        f"{get}Host: attacker.example\r\n\r\n": 400,
        f"{get}nonsense\r\n\r\n": 400,
        f"{get} folded: yes\r\n\r\n": 400,
        f"GET /?{'&'.join('a' * 40)} HTTP/1.1\r\n\r\n": 400,
        "nonsense\r\n\r\n": 400,
        "GET http://127.0.0.1/ HTTP/1.1\r\n\r\n": 400,
        "GET / HTTP/2\r\n\r\n": 400,
    }
    for text, status in expected.items():
        answer = plain.raw(text.encode())
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (text[:100], answer[:200])


def test_a_body_of_all_that_is_allowed(plain: Dashboard) -> None:
    body = json.dumps({"changes": {}, "besides": "x" * 65_000}).encode().ljust(65_536)
    assert plain.ask("/api/tune", "POST", body).status == 200


def test_more_requests_than_a_second_has_room_for(script: Script) -> None:
    with started(script, "shown(ends, requests=5)\n") as found:
        answers = [found.ask("/api/about") for _ in range(40)]
        refused = [answer for answer in answers if answer.status == 429]
        assert answers[0].status == 200
        assert refused
        assert refused[0].headers["retry-after"] == "1"
        assert {answer.status for answer in answers} == {200, 429}


def test_it_answers_while_goroutines_compute(script: Script) -> None:
    program = """
def hog():
    while True: pass

def main():
    for _ in range(4): go(hog)
    ends()
shown(main, interval="100ms")
"""
    with started(script, program) as found:
        found.wait_for("/api/points", lambda points: points["newest"] >= 3)
        groups = found.get("/api/goroutines?q=hog")
        assert groups["matching"] == 4
        assert found.end()[0] == 0


def test_it_answers_in_a_program_that_is_patched(script: Script) -> None:
    program = """
golibx.patch_all()

def hog():
    while True: pass

def main():
    go(hog)
    ends()
shown(main, timeout="500ms", connections=4)
"""
    with started(script, program) as found:
        silent = [socket.create_connection(("127.0.0.1", found.port)) for _ in range(10)]
        found.wait_for("/api/goroutines?q=hog", lambda groups: groups["matching"] == 1)
        assert len(found.ask("/uplot/uPlot.iife.min.js").body) > 50_000
        for conn in silent:
            conn.close()
        assert found.end() == (0, "", "")


def test_a_deadlock_is_still_found(script: Script) -> None:
    program = """
try:
    shown(lambda: Chan().recv())
except golibx.Deadlock as exc:
    print(str(exc).splitlines()[0])
"""
    expected = "all goroutines are asleep - deadlock! (1 goroutine)\n"
    assert script.passes(HEADER + program) == expected


def test_a_child_does_not_keep_the_port(script: Script) -> None:
    program = """
def main():
    ready, done = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.write(ready[1], b".")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    print(done[1], flush=True)
    ends()
shown(main)
blocking(sys.stdin.readline)
"""
    with started(script, program) as found:
        assert found.get("/api/about")["pid"] == found.process.pid
        assert found.process.stdout is not None
        assert found.process.stdin is not None
        assert found.process.stdout.readline()
        found.process.stdin.write("\n")
        found.process.stdin.flush()
        # The child lives on, and a client that connects is told at once that no program is there.
        with pytest.raises(ConnectionRefusedError):
            while True:
                try:
                    found.ask("/api/about")
                except (http.client.RemoteDisconnected, ConnectionResetError):
                    pass


# ---- what is answered ----


def test_the_page_and_its_policy(plain: Dashboard) -> None:
    answer = plain.ask("/", Authorization=None)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "require-trusted-types-for 'script'" in policy
    others = (plain.ask("/api/about"), plain.ask("/api/about", Authorization=None))
    for each in (answer, *others):
        assert each.headers["content-security-policy"] == policy
        assert each.headers["x-content-type-options"] == "nosniff"
        assert each.headers["cache-control"] == "no-store"
        assert each.headers["referrer-policy"] == "no-referrer"
        assert each.headers["cross-origin-resource-policy"] == "same-origin"
        assert each.headers["connection"] == "close"


def test_the_page_needs_nothing_from_elsewhere(plain: Dashboard) -> None:
    text = plain.ask("/", Authorization=None).body.decode()
    used = re.findall(r'(?:src|href)="(?!#)([^"]+)"', text)
    modules = [*used]
    while modules:
        path = modules.pop()
        assert path.startswith("/")
        assert not path.startswith("//")
        answer = plain.ask(path, Authorization=None)
        assert answer.status == 200, path
        if path.endswith(".js") and "/uplot/" not in path:
            imported = re.findall(r'from "\.(/\w+\.js)"', answer.body.decode())
            modules += [each for each in imported if each not in used]
            used += imported
    names = {path.name for path in PAGE.iterdir() if path.is_file()}
    assert {path.rpartition("/")[2] for path in used if "/uplot/" not in path} | {
        "index.html"
    } == names


def test_what_comes_from_the_program_is_only_text() -> None:
    """No script and no style is within the page, and nothing makes elements of texts."""
    page = (PAGE / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", page) == []
    for file in PAGE.iterdir():
        text = file.read_text() if file.is_file() else ""
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == [], file.name
        if file.name.endswith(".js"):
            unsafe = r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function"
            assert re.findall(unsafe, text) == [], file.name


def test_the_library_has_its_licence_beside_it() -> None:
    folder = PAGE / "uplot"
    assert {file.name for file in folder.iterdir()} == {
        "LICENSE",
        "README.md",
        "uPlot.iife.min.js",
        "uPlot.min.css",
    }
    version = re.search(r"uPlot (\d+\.\d+\.\d+)", (folder / "README.md").read_text())
    assert version is not None
    assert f"uPlot {version[1]}," in str(dashboard.__doc__)
    first_line = (folder / "uPlot.iife.min.js").read_text().partition("\n")[0]
    assert f"(v{version[1]})" in first_line
    assert (folder / "LICENSE").read_text().startswith("The MIT License")
    for file in (*folder.iterdir(), *(each for each in PAGE.iterdir() if each.is_file())):
        assert len(file.read_bytes()) < 1 << 20


def test_points(plain: Dashboard) -> None:
    about = plain.get("/api/about")
    run, columns = about["run"], about["columns"]
    assert columns == list(_looks.COLUMNS)
    assert (about["points"], about["interval_s"]) == (10, 0.1)
    found = plain.wait_for("/api/points", lambda points: points["newest"] > 12)
    assert found["run"] == run
    assert len(found["points"]) == 10  # no more are kept
    point = dict(zip(columns, found["points"][-1], strict=True))
    assert point["goroutines"] == 45
    assert point["states"] == {"sleep": 40, "chan receive": 4, "syscall": 1}
    assert point["threads"] >= 1
    assert point["memory_bytes"] > 1_000_000
    times = [each[0] for each in found["points"]]
    assert times == sorted(times)
    newest = found["newest"]
    later = plain.wait_for(f"/api/points?run={run}&since={newest}", lambda each: each["points"])
    assert len(later["points"]) == later["newest"] - newest <= 10
    for since in ("", "-1", "nonsense", "9" * 30, "999999999"):
        assert len(plain.get(f"/api/points?run={run}&since={since}")["points"]) == 10
    # A client that asks with another run's number has none of this one's.
    assert len(plain.get(f"/api/points?run=other&since={newest}")["points"]) == 10


def test_points_tell_what_happens(script: Script) -> None:
    program = """
def main():
    there, back = Chan(), Chan()
    go(lambda: [back.send(x) for x in there])
    def play():
        while True: there.send(1); back.recv(); sleep(0.0001)
    def hog():
        while True: pass
    def block():
        while True: time.sleep(0.002); gosched()
    for each in (play, hog, hog, block): go(each)
    ends()
shown(main, interval="100ms", config={"preempt": {"slice": "1ms"}})
"""
    with started(script, program) as found:
        columns = found.get("/api/about")["columns"]

        def grown(points: Any) -> bool:
            rows = [dict(zip(columns, point, strict=True)) for point in points["points"]]
            names = ("switches_per_s", "preemptions_per_s", "retakes_per_s", "latencies", "cpus")
            return all(any(row[name] > 0 for row in rows) for name in (*names, "runq"))

        points = found.wait_for("/api/points", grown)["points"]
        latencies = [point[columns.index("latency_p50_ns")] for point in points]
        longest = [point[columns.index("latency_p99_ns")] for point in points]
        assert all(p50 <= p99 for p50, p99 in zip(latencies, longest, strict=True) if p50)
        assert any(latencies)


def test_latencies_are_not_measured_if_not_wanted(script: Script) -> None:
    program = """
def main():
    def play():
        while True: sleep(0.0001)
    go(play)
    ends()
shown(main, interval="100ms", latency=False)
"""
    with started(script, program) as found:
        about = found.get("/api/about")
        assert about["has_latency"] is False
        points = found.wait_for("/api/points", lambda points: points["newest"] >= 4)["points"]
        assert {point[about["columns"].index("latency_p50_ns")] for point in points} == {None}


def test_waits_for_the_gil_and_changes_are_told(script: Script) -> None:
    program = """
import threading

def main():
    going = [1]
    def compute():
        while going: sum(range(100_000))
    threads = [threading.Thread(target=compute) for _ in range(2)]
    for each in threads: each.start()
    def wake():
        while going: sleep(0.001)
    go(wake)
    ends()
    going.clear()
    for each in threads: each.join()
shown(main, interval="100ms", config={"hooks": {"gil_wait_min": "1us", "flush_interval": "1ms"}})
"""
    with started(script, program) as found:
        columns = found.get("/api/about")["columns"]
        waits, waited = (columns.index(f"gil_{each}_per_s") for each in ("waits", "waited_ns"))
        found.wait_for(
            "/api/points", lambda points: any(each[waits] > 0 for each in points["points"])
        )
        points = found.get("/api/points")["points"]
        assert all((point[waits] > 0) == (point[waited] > 0) for point in points)
        assert found.end()[0] == 0


def test_hooks_before_the_run_has_begun() -> None:
    wait = GilWait(1, "python", 1, 1_000_000, offered=False)
    tune = Tune(time.monotonic_ns(), "python", "program", "preempt.slice", 10**7, 2 * 10**6)
    seen = feed(dashboard.Plugin, wait, tune)
    assert seen.error is None
    (change,) = seen.plugin._changes
    assert change.pop("time") > 1e9
    assert change == {"who": "program", "key": "preempt.slice", "old": "10ms", "new": "2ms"}


def test_quantile() -> None:
    assert _looks.quantile({}, 0.5) is None
    assert _looks.quantile({7: 0}, 0.5) is None
    counts = {1000: 50, 10: 50, 2000: 0}
    assert [_looks.quantile(counts, share) for share in (0.5, 0.51, 1.0)] == [10, 1000, 1000]


# ---- goroutines ----


def test_goroutines_are_grouped_by_where_they_wait(plain: Dashboard) -> None:
    found = plain.get("/api/goroutines")
    assert (found["total"], found["looked_at"], found["matching"]) == (45, 45, 45)
    assert found["groups_total"] == len(found["groups"]) == 4
    sleeping, receiving, *_ = found["groups"]
    assert (sleeping["count"], sleeping["state"]) == (40, "sleep")
    assert [frame[0] for frame in sleeping["frames"]] == ["sleeper"]
    assert len(sleeping["members"]) == 20
    assert sleeping["longest_s"] >= sleeping["shortest_s"] > 0
    assert receiving["count"] == 3
    assert [frame[0] for frame in receiving["frames"]] == ["wait_in"]
    assert re.fullmatch(r".*program\.py:\d+", receiving["created"])
    member = receiving["members"][0]
    assert member["labels"] == {"request": "17", "user": "<b>ada</b>"}
    assert member["waits_on"].startswith("<Chan ")
    assert (member["parent"], member["priority"], member["name"]) == (1, "normal", "wait_in")


def test_goroutines_are_searched(plain: Dashboard) -> None:
    def matching(query: str) -> int:
        found = plain.get(f"/api/goroutines?q={query}")
        assert sum(group["count"] for group in found["groups"]) == found["matching"]
        return int(found["matching"])

    assert matching("sleeper") == 40
    assert matching("SLEEP") == 40
    assert matching("request%3D17") == 3
    assert matching("chan+receive+program.py") == 4
    assert matching("%3Cimg") == 1
    assert matching("wait_in+sleeper") == 0
    (group,) = plain.get("/api/goroutines?q=%231")["groups"]
    assert [member["name"] for member in group["members"]] == ["main"]


def test_the_runtimes_own_goroutines_are_shown_if_wanted(plain: Dashboard) -> None:
    own = plain.get("/api/goroutines?system=1")
    names = {member["name"] for group in own["groups"] for member in group["members"]}
    assert own["total"] > 45
    assert "Runtime._deliver_events" in names
    assert {group["system"] for group in own["groups"]} == {True, False}


def test_a_look_goes_through_so_many(script: Script) -> None:
    program = """
def main():
    for _ in range(50): go(sleep, 3600)
    ends()
shown(main, goroutines=20)
"""
    with started(script, program) as found:
        groups = found.wait_for("/api/goroutines", lambda groups: groups["total"] == 51)
        assert (groups["looked_at"], groups["matching"]) == (20, 20)


def test_names_are_carried_as_they_are(plain: Dashboard) -> None:
    groups = plain.get("/api/goroutines?q=onerror")["groups"]
    assert groups[0]["members"][0]["name"] == "<img src=x onerror=alert(1)>\n\x1b[31m\ud800"


def test_stacks_as_text(plain: Dashboard) -> None:
    answer = plain.ask("/api/stacks")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"].startswith("attachment;")
    text = answer.body.decode()
    assert "40 goroutines [sleep] sleeper: " in text
    assert "wait_in at " in text


# ---- tuning ----

KEPT = """
def main():
    ends()
    print(golibx.tunables()["preempt.slice"])
"""


def tune(found: Dashboard, **changes: str) -> Answer:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return found.ask("/api/tune", "POST", {"changes": named})


def test_all_that_can_be_tuned_is_shown(script: Script) -> None:
    config = '{"tune": {"limits": {"preempt.slice": {"min": "2ms"}}}}'
    with started(script, f"shown(ends, config={config})\n") as found:
        keys = {key["key"]: key for key in found.get("/api/tuning")["keys"]}
        assert keys["preempt.slice"].items() >= {
            ("value", "10ms"),
            ("configured", "10ms"),
            ("low", "2ms"),
            ("high", "1m"),
            ("is_duration", True),
        }
        assert keys["preempt.slice"]["numbers"] == [10**7, 2 * 10**6, 60 * 10**9]
        assert keys["runtime.gomaxprocs"]["zero"].startswith("as many as there are CPUs")
        assert keys["native.spinning"]["value"] == "50"
        assert all(len(key["description"]) > 20 for key in keys.values())
        # Limits are for plugins, of which this is one.
        answer = tune(found, preempt__slice="1ms")
        assert "beyond what [tune] limits says (allowed: 2ms to 1m)" in answer.json()["error"]


def test_a_value_is_set(script: Script) -> None:
    with started(
        script, f"{KEPT}shown(main, config={{'hooks': {{'flush_interval': '1ms'}}}})\n"
    ) as found:
        answer = tune(found, preempt__slice=" 2ms ", native__spinning="25")
        assert (answer.status, answer.json()) == (
            200,
            {"before": {"preempt.slice": "10ms", "native.spinning": "50"}},
        )
        tuning = found.wait_for("/api/tuning", lambda tuning: len(tuning["changes"]) == 2)
        told = [(each["who"], each["key"], each["old"], each["new"]) for each in tuning["changes"]]
        assert told == [
            ("plugin dashboard", "preempt.slice", "10ms", "2ms"),
            ("plugin dashboard", "native.spinning", "50", "25"),
        ]
        keys = {key["key"]: key for key in tuning["keys"]}
        assert (keys["preempt.slice"]["value"], keys["preempt.slice"]["configured"]) == (
            "2ms",
            "10ms",
        )
        assert tune(found, runtime__gomaxprocs="3").status == 200
        assert found.end()[:2] == (0, "2000000\n")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"preempt.slice": "1us"}, 'preempt.slice = "1us": out of range (allowed: 10us to 1m)'),
        ({"preempt.slice": "2"}, "not a number with a unit"),
        ({"preempt.slice": ""}, "not a number with a unit"),
        ({"native.spinning": "2ms"}, 'native.spinning = "2ms": not'),
        ({"native.spinning": "101"}, "native.spinning = 101: out of range (allowed: 1 to 100)"),
        ({"preempt.slize": "2ms"}, "cannot change while a run goes on"),
        ({"preempt.slice": "2ms", "native.spinning": "0"}, "native.spinning = 0: out of range"),
        ({"sysmon.sleep_min": "1s", "sysmon.sleep_max": "1ms"}, "sleep_m"),
    ],
)
def test_what_is_refused_changes_nothing(
    plain: Dashboard, changes: dict[str, str], text: str
) -> None:
    before = [key["value"] for key in plain.get("/api/tuning")["keys"]]
    answer = plain.ask("/api/tune", "POST", {"changes": changes})
    assert answer.status == 422
    assert text in answer.json()["error"]
    assert answer.json()["errors"][0]["problem"] in answer.json()["error"]
    assert [key["value"] for key in plain.get("/api/tuning")["keys"]] == before


@pytest.mark.parametrize("changes", [None, [], {"preempt.slice": 5}, {"preempt.slice": None}])
def test_what_is_no_change_is_refused(plain: Dashboard, changes: object) -> None:
    answer = plain.ask("/api/tune", "POST", {"changes": changes})
    assert answer.status == 400
    assert "an object of strings by key" in answer.json()["error"]


def test_a_page_that_may_change_nothing(script: Script) -> None:
    with started(script, f"{KEPT}shown(main, tune=False)\n") as found:
        assert found.get("/api/about")["may_tune"] is False
        answer = tune(found, preempt__slice="2ms")
        assert answer.status == 403
        assert "tune = false" in answer.json()["error"]
        assert found.end()[:2] == (0, "10000000\n")


# ---- flame graphs ----

HOG = """
def burn():
    return sum(range(20_000))

def hog():
    while True: burn()

def wait(lock):
    while True:
        with lock: sleep(0.01)

def main():
    g = go(hog); g.name = "<b>hog</b>"
    lock = Mutex()
    for _ in range(2): go(wait, lock)
    ends()
"""


def profile(found: Dashboard, kind: str, seconds: float = 1, by: str = "") -> Any:
    answer = found.ask("/api/profile", "POST", {"kind": kind, "seconds": seconds})
    assert answer.status == 202, answer.body
    path = f"/api/profile?by={by}"
    return found.wait_for(path, lambda profile: profile["state"] != "taking")


def names_of(bars: list[Any]) -> set[str]:
    return {bar[0] for bar in bars}.union(*(names_of(bar[5]) for bar in bars))


def check_sums(bars: list[Any], ns: int) -> None:
    assert sum(bar[3] for bar in bars) <= ns
    for bar in bars:
        check_sums(bar[5], bar[3])


def test_a_flame_graph_of_what_computes(script: Script) -> None:
    with started(script, f"{HOG}shown(main)\n") as found:
        assert found.get("/api/profile") == {"state": "none"}
        cpu = profile(found, "cpu")
        assert (cpu["state"], cpu["kind"], cpu["number"]) == ("done", "cpu", 1)
        (hog,) = [bar for bar in cpu["bars"] if bar[0] == "hog"]
        assert hog[1].endswith("program.py")
        assert hog[2] > 1
        assert hog[4] > 10
        assert cpu["ns"] // 2 < hog[3] <= cpu["ns"]
        check_sums(cpu["bars"], cpu["ns"])
        named = found.get("/api/profile?by=goroutine")
        assert "<b>hog</b>" in {bar[0] for bar in named["bars"]}
        assert "hog" in names_of(named["bars"])
        # In its place comes another one.
        block = profile(found, "block")
        assert (block["kind"], block["number"]) == ("block", 2)
        assert {"wait", "main"} <= names_of(block["bars"]) | {"main"}
        mutex = profile(found, "mutex")
        assert names_of(mutex["bars"]) == {"wait"}


def test_one_profile_at_a_time_which_can_be_stopped(script: Script) -> None:
    with started(script, f"{HOG}shown(main)\n") as found:
        wanted = {"kind": "cpu", "seconds": 60}
        begun = found.ask("/api/profile", "POST", wanted).json()
        assert (begun["state"], begun["seconds"]) == ("taking", 60)
        answer = found.ask("/api/profile", "POST", wanted)
        assert answer.status == 409
        assert "a profile is being taken" in answer.json()["error"]
        found.wait_for("/api/profile", lambda profile: profile["passed_s"] > 0.3)
        assert found.ask("/api/profile/stop", "POST", {}).status == 200
        done = found.wait_for("/api/profile", lambda profile: profile["state"] == "done")
        assert done["took_s"] < 60
        assert "hog" in names_of(done["bars"])
        # The end of the run does not wait for one.
        assert found.ask("/api/profile", "POST", wanted).status == 202
        assert found.end() == (0, "", "")


def test_a_profile_that_cannot_be_taken_says_why(script: Script) -> None:
    """Another plugin is at it, and goes on with that."""
    program = f'{HOG}shown(main, plugins=("profile", "dashboard"))\n'
    with started(script, program) as found:
        failed = profile(found, "cpu")
        assert failed["state"] == "failed"
        assert failed["problem"].startswith("another CPU profile is being taken")
        assert profile(found, "block")["state"] == "done"
        code, _, err = found.end()
        assert code == 0
        assert "golibx: profile: the cpu profile is in " in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"kind": "leak", "seconds": 1},
        {"kind": ["cpu"], "seconds": 1},
        {"kind": "cpu"},
        {"kind": "cpu", "seconds": 0},
        {"kind": "cpu", "seconds": 61},
        {"kind": "cpu", "seconds": True},
        {"kind": "cpu", "seconds": "1"},
        {"kind": "cpu", "seconds": float("nan")},
    ],
)
def test_what_is_no_profile_is_refused(plain: Dashboard, wanted: dict[str, Any]) -> None:
    answer = plain.ask("/api/profile", "POST", wanted)
    assert answer.status == 400
    assert "profile" in answer.json()["error"]
    assert plain.get("/api/profile") == {"state": "none"}


def test_a_tree_is_bounded() -> None:
    """What is too narrow to be seen, or one too many, is counted."""
    taken = Profile("cpu", 1)
    for i in range(6000):
        taken.add((Frame(f"f{i}", "f.py", i, i),), (), 1, 10_000)
    taken.add((Frame("large", "f.py", 1, 1), Frame("outer", "f.py", 1, 1)), (), 5, 10**9)
    found = _looks.tree(taken, by_goroutine=False)
    assert (found["ns"], found["count"]) == (10**9 + 6 * 10**7, 6005)
    assert found["left_out"] == 6000
    (outer,) = found["bars"]
    assert outer[:5] == ["outer", "f.py", 1, 10**9, 5]
    assert outer[5] == [["large", "f.py", 1, 10**9, 5, []]]
    many = Profile("cpu", 1)
    for i in range(2000):
        many.add((Frame(f"g{i}", "", 0, 0), Frame(f"f{i}", "", 0, 0)), (), 1, 10**6)
    found = _looks.tree(many, by_goroutine=True)
    assert len(found["bars"]) == 1
    assert found["bars"][0][0] == "(no goroutine)"
    assert len(found["bars"][0][5]) == 2000
    assert sum(len(bar[5]) for bar in found["bars"][0][5]) == 4000 - 2001
    assert found["left_out"] == 1


# ---- settings ----


def refusal(**settings: object) -> str:
    config = Config.from_mapping({"plugins": {"dashboard": settings}}, environ={})
    with pytest.raises(ConfigError) as caught:
        dashboard.Plugin().golib_configure(config, "dashboard")
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"listen": "9464"}, 'plugins.dashboard.listen = "9464": not "host:port"'),
        ({"listen": ""}, 'not "host:port"'),
        ({"listen": "[::]:0"}, "other hosts reach it: set remote = true if they are to"),
        ({"listen": ":0"}, "other hosts reach it"),
        ({"listen": "192.0.2.7:0", "remote": True}, "can't be listened on: Cannot assign"),
        ({"token": "short"}, "plugins.dashboard.token: is not a token (allowed: 16 to 256"),
        ({"token": "with spaces in it, and long"}, "is not a token"),
        ({"interval": "100ms", "history": "1h"}, "is 36000 times `interval`"),
        ({"interval": "1ms"}, "out of range (allowed: 100ms to 1m)"),
        ({"request_size": "2MiB"}, "out of range (allowed: 1KiB to 1MiB)"),
        ({"lisen": "x"}, "did you mean plugins.dashboard.listen?"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], text: str) -> None:
    assert text in refusal(**settings)


def test_a_token_that_is_refused_is_not_shown() -> None:
    assert "nearly a token" not in refusal(token="nearly a token, but for the spaces")


def test_a_port_in_use_is_said_before_the_run() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = refusal(listen=f"127.0.0.1:{port}")
    assert f'listen = "127.0.0.1:{port}": can\'t be listened on: Address' in text


def test_an_answer_that_fails_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    def answer(_: _http.Request) -> _http.Response:
        raise ValueError("out of answers")

    limits = _http.Limits(connections=2, body_bytes=0, requests=0, timeout_ns=10**9)
    server = _http.Server(None, answer, limits, name="dashboard")
    request = _http.Request("GET", "/x", {}, {}, b"")
    assert [server._response_to(request).status for _ in range(2)] == [500, 500]
    assert server._until_next() is None
    err = capfd.readouterr().err
    assert err.startswith("golibx: dashboard can't answer /x:\nTraceback")
    assert err.count("ValueError: out of answers") == 1


def test_what_is_due_may_fail(capfd: pytest.CaptureFixture[str]) -> None:
    def tick() -> int:
        raise OSError("too many open files")

    limits = _http.Limits(connections=2, body_bytes=0, requests=0, timeout_ns=10**9)
    server = _http.Server(None, lambda _: _http.Response(200, ""), limits, name="x", tick=tick)
    for _ in range(2):
        wait_ns = server._until_next()
        assert wait_ns is not None
        assert wait_ns > 0
    err = capfd.readouterr().err
    assert err.startswith("golibx: x has failed in what it does now and then, and tries again:\n")
    assert err.count("OSError: too many open files") == 1


def test_descriptors_run_out(script: Script) -> None:
    """A client that connects then is answered when there are some again; nothing spins before."""
    program = """
import resource

def main():
    held = [os.dup(0) for _ in range(8)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1, 4096))
    full = []
    try:
        while True: full.append(os.dup(0))
    except OSError: pass
    print("full", flush=True)
    ends()
    before = time.process_time()
    sleep(1)
    print(time.process_time() - before < 0.5)
    for each in full + held: os.close(each)
    ends()
shown(main)
"""
    with started(script, program) as found:
        assert found.process.stdout is not None
        assert found.process.stdin is not None
        assert found.process.stdout.readline() == "full\n"
        with socket.create_connection(("127.0.0.1", found.port), timeout=30) as conn:
            conn.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            found.process.stdin.write("\n")
            found.process.stdin.flush()
            assert found.process.stdout.readline() == "True\n"
            assert conn.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert found.end()[0] == 0
