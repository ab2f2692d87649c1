"""A live page about the run, served by the process itself: look at it in a browser.

Charts of goroutines by state, run queues, waits for a turn, preemptions, retakes and waits for the
GIL; all goroutines with their stacks, grouped by where they wait; flame graphs, taken when one is
asked for; and controls for everything that can be tuned.

Nothing listens unless the plugin is enabled, and then only this machine can connect, unless
`remote = true`. A client that asks for anything but the page itself, which is the same for all, has
to know a token. It is in the URL that is printed when the run begins, behind the `#`: that part
stays in the browser. The page keeps it for as long as its tab lives, and sends it as a header. It
is no cookie: those are sent to every port of the machine, and along with what other sites ask for.

A request has to name this machine (`Host:`), so that no page of another site reads anything under a
name of its own that leads here; and it must not come from a page of another site (`Origin:`,
`Sec-Fetch-Site:`). The page loads nothing from elsewhere, and its Content-Security-Policy allows
neither that nor scripts within the page. What comes from the program, such as names, labels and
functions, is only ever text in it.

A service thread answers (`golibx.plugins._http`) and adds a point to the charts each `interval`: it
needs no turn, and so is on time while goroutines compute.

The charts are drawn by uPlot 1.6.32, which is the package `uplot` of the npm registry. It lies in
`dashboard_page/uplot/`, unchanged, with its licence, MIT.
"""

from __future__ import annotations

import contextvars
import ipaddress
import json
import os
import re
import secrets
import socket
import sys
import time
from collections import deque
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from golibx import ConfigError, __version__, stacks
from golibx.config import Key
from golibx.hookspec import hookimpl, written
from golibx.plugins._http import (
    Limits,
    Request,
    Response,
    Server,
    host_of,
    is_local_name,
    is_same_origin,
    open_listener,
    problem_of,
)
from golibx.plugins._looks import COLUMNS, PROFILES, History, Profiler, groups

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from golibx.config import Config
    from golibx.hookspec import GilWait, Tune
    from golibx.runtime import Runtime

__all__ = ["KEYS", "Plugin"]

KEYS = (
    Key(
        "listen",
        "string",
        "127.0.0.1:0",
        "Where the page is served, `host:port`. Port 0: any that is free.",
    ),
    Key("remote", "bool", False, "Whether `listen` may be an address that other hosts reach."),
    Key(
        "hosts",
        "strings",
        [],
        "Names by which the page may be asked for, besides this machine's own: a proxy's, say.",
    ),
    Key(
        "token",
        "string",
        "",
        "What one has to know to see anything: 16 to 256 letters, digits, `-`, `.`, `_` and `~`. "
        "Empty: another one each run, which is printed.",
    ),
    Key("tune", "bool", True, "Whether the page may change values, and not only show them."),
    Key(
        "interval",
        "duration",
        "1s",
        "Time between two points of the charts.",
        low="100ms",
        high="1m",
    ),
    Key(
        "history",
        "duration",
        "10m",
        "How far back the charts go: at most 10 000 intervals.",
        low="1s",
        high="24h",
    ),
    Key(
        "latency",
        "bool",
        True,
        "Whether it is measured how long goroutines wait for their turn, which each wake-up pays "
        "for.",
    ),
    Key(
        "goroutines",
        "int",
        10_000,
        "How many goroutines, the oldest first, a look at their stacks goes through at most.",
        low=1,
        high=1_000_000,
    ),
    Key("connections", "int", 32, "How many connections there may be.", low=1, high=1000),
    Key("requests", "int", 50, "How many requests a second are answered.", low=5, high=10_000),
    Key(
        "request_size",
        "size",
        "64KiB",
        "The most that a request may have, beside the 8 KiB of its head.",
        low="1KiB",
        high="1MiB",
    ),
    Key(
        "timeout",
        "duration",
        "5s",
        "How long a request may take to arrive, and again its answer to be fetched.",
        low="100ms",
        high="1m",
    ),
)

_MOST_POINTS = 10_000
_MOST_CHANGES = 100
"""Changes of values that the page shows."""
_SECONDS = (1, 60)
"""The shortest and the longest profile."""
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,256}")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Failed(Exception):
    """A request that gets an answer other than what it asked for."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.response = _json({"error": text}, status, named)


def _json(what: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = what if isinstance(what, str) else json.dumps(what, separators=(",", ":"))
    return Response(status, body, "application/json", headers or {})


class Plugin:
    """One run's page."""

    def __init__(self) -> None:
        self._server: Server | None = None
        self._history: History | None = None
        self._changes: deque[dict[str, Any]] = deque(maxlen=_MOST_CHANGES)

    @hookimpl
    def golib_configure(self, config: Config, name: str) -> None:
        settings = config.plugin(name, KEYS)
        table = f"plugins.{name}"
        self._listen: str = settings.listen
        self._is_remote: bool = settings.remote
        if problem := problem_of(self._listen, is_remote=self._is_remote):
            raise config.error(f"{table}.listen", problem, value=self._listen)
        token: str = settings.token
        if token and not _TOKEN.fullmatch(token):
            problem = "is not a token"  # and is not shown: it may be one, nearly
            allowed = "16 to 256 letters, digits, -, ., _ and ~"
            raise config.error(f"{table}.token", problem, allowed=allowed)
        self._is_own_token = bool(token)
        self._token = token or secrets.token_urlsafe(24)
        self._interval_ns: int = settings.interval_ns
        self._points = settings.history_ns // self._interval_ns
        if self._points > _MOST_POINTS:
            problem = f"is {self._points} times `interval`: that is too much to keep"
            allowed = f"at most {_MOST_POINTS} times"
            value = config.plugin_table(name).get("history", "10m")
            raise config.error(f"{table}.history", problem, value=value, allowed=allowed)
        self._may_tune: bool = settings.tune
        self._has_latency: bool = settings.latency
        self._most_goroutines: int = settings.goroutines
        self._limits = Limits(
            connections=settings.connections,
            body_bytes=settings.request_size,
            requests=settings.requests,
            timeout_ns=settings.timeout_ns,
        )
        self._names = {host_of(each) for each in settings.hosts}

    @hookimpl
    def golib_start(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._context = contextvars.copy_context()  # says which plugin tunes
        self._page = _read_page()
        self._profiler = Profiler(runtime)
        self._history = History(
            runtime,
            interval_ns=self._interval_ns,
            length=self._points,
            has_latency=self._has_latency,
        )
        self._run = secrets.token_hex(8)
        self._began = time.time()
        self._routes: dict[tuple[str, str], Callable[[Request], Response]] = {
            ("GET", "/api/about"): self._about,
            ("GET", "/api/points"): self._get_points,
            ("GET", "/api/goroutines"): self._goroutines,
            ("GET", "/api/stacks"): self._stacks,
            ("GET", "/api/tuning"): self._tuning,
            ("POST", "/api/tune"): self._tune,
            ("GET", "/api/profile"): self._look_at_profile,
            ("POST", "/api/profile"): self._start_profile,
            ("POST", "/api/profile/stop"): self._stop_profile,
        }
        listener = open_listener(self._listen)
        address = listener.getsockname()
        server = Server(
            listener, self._answer, self._limits, name="dashboard", tick=self._history.tick
        )
        server.start(runtime.start_thread)
        self._server = server
        self._say_where(address[1])

    def _say_where(self, port: int) -> None:
        host, _, _ = self._listen.rpartition(":")
        if host in ("", "0.0.0.0", "[::]"):
            host = socket.gethostname()
        url = f"http://{host}:{port}/"
        # The token of golib.toml stays there.
        text = (
            f"{url} (with the token of its settings)"
            if self._is_own_token
            else (f"{url}#token={self._token}")
        )
        if sys.stderr is not None:
            sys.stderr.write(f"golibx: dashboard: {text}\n")
            sys.stderr.flush()

    @hookimpl
    def golib_stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._profiler.end()

    @hookimpl
    def on_gil_wait(self, event: GilWait) -> None:
        if self._history is not None:
            self._history.gil_waits += 1
            self._history.gil_waited_ns += event.waited_ns

    @hookimpl
    def on_tune(self, event: Tune) -> None:
        change = {
            "time": round(time.time() - (time.monotonic_ns() - event.time_ns) / 1e9, 3),
            "who": event.who,
            "key": event.key,
            "old": str(written(event.key, event.old)),
            "new": str(written(event.key, event.new)),
        }
        self._changes.append(change)

    # ---- which clients may ask ----

    def _answer(self, request: Request) -> Response:
        """To a request, by the server's thread."""
        try:
            response = self._answered(request)
        except _Failed as exc:
            response = exc.response
        return response._replace(headers={**_HEADERS, **response.headers})

    def _answered(self, request: Request) -> Response:
        host = request.headers.get("host", "")
        if not self._is_known(host):
            text = f"{host_of(host)} is no name of this page's: [plugins.dashboard] hosts has more"
            raise _Failed(403, text)
        is_of_page = request.path in self._page
        # A link from elsewhere may lead to the page, which is the same for all.
        if request.path != "/" and not is_same_origin(request.headers):
            raise _Failed(403, "a page of another site may not ask")
        if is_of_page:
            if request.method not in ("GET", "HEAD"):
                raise _Failed(405, "only GET and HEAD", Allow="GET, HEAD")
            return self._page[request.path]
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = self._token.encode()
        if not secrets.compare_digest(token.encode(), known) or scheme.lower() != "bearer":
            raise _Failed(401, "the token is missing or not right", WWW_Authenticate="Bearer")
        methods = [method for method, path in self._routes if path == request.path]
        if not methods:
            raise _Failed(404, "there is no such thing")
        if request.method not in methods:
            raise _Failed(405, f"only {' and '.join(methods)}", Allow=", ".join(methods))
        return self._routes[request.method, request.path](request)

    def _is_known(self, host: str) -> bool:
        """Whether the page may be asked for by that name."""
        name = host_of(host)
        if is_local_name(host) or name in self._names:
            return True
        if not self._is_remote:
            return False
        if name in (host_of(self._listen), socket.gethostname().lower()):
            return True
        try:
            ipaddress.ip_address(name)  # no name that another could have lead here
        except ValueError:
            return False
        return True

    # ---- what is asked ----

    def _about(self, _: Request) -> Response:
        about = {
            "run": self._run,
            "pid": os.getpid(),
            "program": sys.argv[0] if sys.argv else "",
            "python": sys.version.partition(" ")[0],
            "golibx": __version__,
            "began": self._began,
            "interval_s": self._interval_ns / 1e9,
            "points": self._points,
            "columns": COLUMNS,
            "has_latency": self._has_latency,
            "may_tune": self._may_tune,
            "profiles": PROFILES,
            "profile_seconds": _SECONDS,
        }
        return _json(about)

    def _get_points(self, request: Request) -> Response:
        assert self._history is not None
        text = request.query.get("since", "0")
        number = int(text) if text.isdecimal() and len(text) < 16 else 0
        if request.query.get("run") != self._run:
            number = 0
        points = self._history.since(number)
        return _json(f'{{"run":"{self._run}",{points[1:]}')

    def _goroutines(self, request: Request) -> Response:
        system = request.query.get("system") == "1"
        query = request.query.get("q", "")
        return _json(groups(query, system=system, most=self._most_goroutines))

    def _stacks(self, _: Request) -> Response:
        name = f'attachment; filename="stacks-{os.getpid()}.txt"'
        text = stacks(system=True).encode(errors="backslashreplace")
        return Response(200, text, headers={"Content-Disposition": name})

    def _tuning(self, _: Request) -> Response:
        keys = []
        for path, key in self._runtime.tuning_keys().items():
            about = {
                "key": path,
                "value": str(written(path, key.value)),
                "configured": str(written(path, key.configured)),
                "low": str(written(path, key.low)),
                "high": str(written(path, key.high)),
                "numbers": [key.value, key.low, key.high],
                "zero": key.zero,
                "is_duration": key.is_duration,
                "description": key.description,
            }
            keys.append(about)
        return _json({"keys": keys, "changes": [*self._changes]})

    def _tune(self, request: Request) -> Response:
        if not self._may_tune:
            raise _Failed(403, "[plugins.dashboard] tune = false: the page may change nothing")
        changes = _body(request).get("changes")
        if not isinstance(changes, dict) or not all(
            isinstance(value, str) for value in changes.values()
        ):
            raise _Failed(400, "what to change is an object of strings by key")
        known = self._runtime.tuning_keys()
        wanted: dict[str, int | str] = {}
        for path, text in changes.items():
            is_number = path in known and not known[path].is_duration
            wanted[path] = _number(text.strip()) if is_number else text.strip()
        try:
            before = self._context.run(self._runtime.tune, wanted)
        except ConfigError as exc:
            errors = [{"key": each.key, "problem": str(each)} for each in exc.errors]
            return _json({"error": str(exc), "errors": errors}, 422)
        except RuntimeError as exc:
            raise _Failed(409, str(exc)) from None
        return _json({"before": {path: str(written(path, n)) for path, n in before.items()}})

    def _start_profile(self, request: Request) -> Response:
        wanted = _body(request)
        kind, seconds = wanted.get("kind"), wanted.get("seconds")
        if kind not in PROFILES:
            raise _Failed(400, f"there is no such profile (allowed: {', '.join(PROFILES)})")
        least, most = _SECONDS
        if (
            isinstance(seconds, bool)
            or not isinstance(seconds, int | float)
            or not least <= seconds <= most
        ):
            raise _Failed(400, f"a profile takes {least} to {most} seconds")
        try:
            self._profiler.start(kind, seconds)
        except RuntimeError as exc:
            raise _Failed(409, str(exc)) from None
        return _json(self._profiler.look(by_goroutine=False), 202)

    def _look_at_profile(self, request: Request) -> Response:
        return _json(self._profiler.look(by_goroutine=request.query.get("by") == "goroutine"))

    def _stop_profile(self, _: Request) -> Response:
        self._profiler.stop()
        return _json({})


def _number(text: str) -> int | str:
    """An int, or what is none for others to refuse."""
    is_int = text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20
    return int(text) if is_int else text


def _body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # other sites' pages can't send that unasked
        raise _Failed(415, "the body has to be application/json")
    try:
        found = json.loads(request.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _Failed(400, "the body is no JSON object")
    return found


def _read_page() -> dict[str, Response]:
    """The files of the page, by the paths that they are asked for."""
    page = {}
    folder = files("golibx.plugins") / "dashboard_page"
    for prefix, inner in (("/", folder), ("/uplot/", folder / "uplot")):
        for file in inner.iterdir():
            kind = _TYPES.get(os.path.splitext(file.name)[1])
            if kind is not None:
                path = "/" if file.name == "index.html" else prefix + file.name
                page[path] = Response(200, file.read_bytes(), kind)
    return page
