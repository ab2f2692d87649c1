"""The page of the plugin dashboard in a browser: Chromium, where it is installed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import chromium
from chromium import Page
from conftest import Script
from test_dashboard import TOKEN, Dashboard, started

pytestmark = [
    pytest.mark.skipif(chromium.find() is None, reason="there is no Chromium"),
    pytest.mark.limit(120),
]

PROGRAM = """
def burn():
    return sum(range(20_000))

def hog():
    while True: burn()

def wait_in(chan):
    with labels(user="<b>ada</b>"):
        chan.recv()

def main():
    g = go(hog); g.name = NAME
    for _ in range(30): go(wait_in, Chan())
    for line in iter(lambda: blocking(sys.stdin.readline), "\\n"):
        if line == "more\\n":
            for _ in range(100): go(sleep, 3600)
NAME = "<img src=x onerror='document.title=1'>"
shown(main, interval="100ms", history="3s", config={"hooks": {"flush_interval": "1ms"}})
"""


@pytest.fixture
def shown(script: Script) -> Iterator[Dashboard]:
    with started(script, PROGRAM, limit=150) as found:
        yield found


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with chromium.browser(tmp_path / "browser") as found:
        yield found


def open_page(page: Page, found: Dashboard, view: str = "charts") -> None:
    page.open(f"http://127.0.0.1:{found.port}/{found.rest}")
    page.wait_for("document.getElementById('charts')?.hidden === false")
    page.evaluate(f"location.hash = '#{view}'")
    page.wait_for(f"document.getElementById('{view}').hidden === false")


def tile(page: Page, name: str) -> str:
    script = """[...document.querySelectorAll('.tile')].find(
        (each) => each.textContent.endsWith(NAME)).firstChild.textContent"""
    return str(page.wait_for(script.replace("NAME", json.dumps(name))))


def control(key: str) -> str:
    """JavaScript for the control of a value."""
    condition = f"each.querySelector('code').textContent === {json.dumps(key)}"
    return f"[...document.querySelectorAll('.control')].find((each) => {condition})"


def test_charts_move(page: Page, shown: Dashboard) -> None:
    open_page(page, shown)
    page.wait_for("document.querySelectorAll('.chart canvas').length === 11")
    picture = "document.querySelector('.chart canvas').toDataURL()"
    before = page.evaluate(picture)
    page.wait_for(f"{picture} !== {json.dumps(before)}")
    assert tile(page, "goroutines") == "32"
    assert shown.process.stdin is not None
    shown.process.stdin.write("more\n")
    shown.process.stdin.flush()
    page.wait_for("document.querySelector('.tile').textContent === '132goroutines'")
    page.wait_for("document.querySelector('.legend').textContent.includes('sleep100')")
    # While it is paused, nothing does.
    page.evaluate("document.getElementById('pause').click()")
    before = page.evaluate(picture)
    number = shown.get("/api/points")["newest"]
    shown.wait_for("/api/points", lambda points: points["newest"] > number + 5)
    assert page.evaluate(picture) == before
    assert page.complaints() == []


def test_a_page_that_is_open_for_long_does_not_grow(page: Page, shown: Dashboard) -> None:
    """History is 30 points: after 60 all are others, and there is no more of anything."""

    def size() -> tuple[int, float]:
        page.send("HeapProfiler.collectGarbage")
        nodes = page.evaluate("document.querySelectorAll('*').length")
        metrics = page.send("Performance.getMetrics")["metrics"]
        heap = next(each["value"] for each in metrics if each["name"] == "JSHeapUsedSize")
        return nodes, heap

    page.send("Performance.enable")
    open_page(page, shown)
    shown.wait_for("/api/points", lambda points: points["newest"] > 40)
    sizes = []
    for number in (60, 120):
        for view in ("goroutines", "tuning", "charts"):
            page.evaluate(f"location.hash = '#{view}'")
            page.wait_for(f"document.getElementById('{view}').hidden === false")
            shown.wait_for("/api/points", lambda points, n=number: points["newest"] > n)
        page.wait_for("document.querySelectorAll('.chart canvas').length === 11")
        sizes.append(size())
    (nodes, heap), (later_nodes, later_heap) = sizes
    assert later_nodes <= nodes + 50
    assert later_heap <= heap + 1_000_000
    assert page.complaints() == []


def test_a_control_changes_a_value(page: Page, shown: Dashboard) -> None:
    def value() -> str:
        keys = {key["key"]: key for key in shown.get("/api/tuning")["keys"]}
        return str(keys["preempt.slice"]["value"])

    def enter(text: str) -> None:
        page.evaluate(
            f"""{{ const input = {mine}.querySelector('input[type=text]');
            input.value = {json.dumps(text)};
            input.dispatchEvent(new Event('input'));
            {mine}.querySelector('button').click(); }}"""
        )

    open_page(page, shown, "tuning")
    mine = control("preempt.slice")
    page.wait_for(f"{mine} !== undefined")
    enter("2ms")
    page.wait_for(f"{mine}.querySelector('.now').textContent === '2ms'")
    assert value() == "2ms"
    page.wait_for("document.getElementById('changes').textContent.includes('10ms2ms')")
    enter("1us")
    page.wait_for(f"{mine}.querySelector('.error').textContent.includes('10us to 1m')")
    assert value() == "2ms"
    assert page.evaluate(f"{mine}.querySelector('input[type=text]').value") == "1us"
    # The slider goes from end to end of the range, and changes the value when it is let go.
    page.evaluate(
        f"""{{ const slider = {mine}.querySelector('input[type=range]');
        slider.value = slider.max;
        slider.dispatchEvent(new Event('input'));
        slider.dispatchEvent(new Event('change')); }}"""
    )
    page.wait_for(f"{mine}.querySelector('.now').textContent === '1m'")
    assert value() == "1m"
    page.evaluate(f"{mine}.querySelector('[type=button]').click()")  # Reset
    page.wait_for(f"{mine}.querySelector('.now').textContent === '10ms'")
    assert value() == "10ms"
    assert all("422" in each for each in page.complaints())


def test_goroutines_and_what_they_are_called(page: Page, shown: Dashboard) -> None:
    open_page(page, shown, "goroutines")
    page.wait_for("document.querySelector('details .count')?.textContent === '30'")
    page.evaluate("document.querySelector('details').open = true")
    page.wait_for("document.querySelectorAll('details[open] tbody tr').length === 20")
    assert "user=<b>ada</b>" in page.evaluate("document.querySelector('details').textContent")
    page.evaluate(
        """{ const search = document.getElementById('search'); search.value = 'onerror';
        search.dispatchEvent(new Event('input')); }"""
    )
    count = "document.getElementById('goroutine-count').textContent"
    page.wait_for(f"{count} === '1 of 32 goroutines in 1 group'")
    page.evaluate("document.querySelector('details').open = true")
    page.wait_for("document.querySelector('.members').textContent.includes('<img src=x')")
    assert page.evaluate("document.querySelectorAll('details img, details b b').length") == 0
    assert page.evaluate("document.title").endswith("golibx")
    assert page.complaints() == []


def test_a_flame_graph(page: Page, shown: Dashboard) -> None:
    open_page(page, shown, "flame")
    page.evaluate("document.getElementById('seconds').value = 1")
    page.evaluate("document.getElementById('take').click()")
    bars = "[...document.querySelectorAll('.bar')]"
    page.wait_for(f"{bars}.some((bar) => bar.textContent === 'burn')")
    hog = f"{bars}.find((bar) => bar.textContent === 'hog')"
    assert page.evaluate(f"{hog}.title").startswith("hog, ")
    page.evaluate(f"{hog}.click()")
    page.wait_for(f"{hog}.style.width === '100%'")
    assert page.evaluate("document.getElementById('unzoom').disabled") is False
    page.evaluate("document.getElementById('by-goroutine').click()")
    page.wait_for(f"{bars}.some((bar) => bar.textContent.startsWith('<img'))")
    assert page.evaluate("document.querySelectorAll('#bars img').length") == 0
    assert page.complaints() == []


def test_a_wrong_token_is_refused(page: Page, shown: Dashboard) -> None:
    page.open(f"http://127.0.0.1:{shown.port}/")
    page.wait_for("document.getElementById('login')?.hidden === false")
    assert page.evaluate("document.getElementById('login-error').textContent") == ""

    def enter(token: str) -> None:
        page.evaluate(f"document.getElementById('token').value = {json.dumps(token)}")
        page.evaluate("document.querySelector('#login-form button').click()")

    enter(TOKEN)
    page.wait_for("document.getElementById('login-error').textContent.includes('not this')")
    assert page.evaluate("document.querySelectorAll('.chart').length") == 0
    enter(shown.token)
    page.wait_for("document.querySelectorAll('.chart canvas').length === 11")
    # It is nowhere where others would get it.
    assert shown.token not in page.evaluate("location.href + document.cookie")
    assert page.evaluate("localStorage.length") == 0


def test_what_ends_is_said(page: Page, shown: Dashboard) -> None:
    open_page(page, shown)
    page.wait_for("document.querySelectorAll('.chart canvas').length === 11")
    shown.end()
    page.wait_for("document.getElementById('banner').textContent.includes('has ended')")
    assert page.evaluate("document.body.classList.contains('stale')")


def test_both_schemes(page: Page, shown: Dashboard) -> None:
    open_page(page, shown)
    page.wait_for("document.querySelectorAll('.chart canvas').length === 11")
    colours = []
    for scheme in ("light", "dark"):
        page.use_scheme(scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(246, 247, 249)", "rgb(20, 23, 26)"]
    assert page.complaints() == []


# ---- pages of others ----


@contextmanager
def foreign_page(port: int) -> Iterator[int]:
    """The port of another site on this machine. Its page may do what it likes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<iframe src='http://127.0.0.1:{port}/'></iframe>".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_foreign_origin_is_refused(page: Page, shown: Dashboard) -> None:
    """Even one that knows the token, which it can't."""
    with foreign_page(shown.port) as port:
        page.open(f"http://127.0.0.1:{port}/")
        page.wait_for(f"location.port === '{port}' && document.querySelector('iframe') !== null")
        address = f"http://127.0.0.1:{shown.port}/api/tune"
        asking = {
            "method": "POST",
            "headers": {
                "Authorization": f"Bearer {shown.token}",
                "Content-Type": "application/json",
            },
            "body": json.dumps({"changes": {"preempt.slice": "2ms"}}),
        }
        plain = {"method": "POST", "mode": "no-cors", "body": asking["body"]}
        for options in (asking, plain):
            result = page.evaluate(
                f"fetch({json.dumps(address)}, {json.dumps(options)})"
                ".then((answer) => answer.type, (error) => error.name)"
            )
            assert result in ("TypeError", "opaque")
        refused = page.evaluate(
            f"""new Promise((resolve) => {{ const script = document.createElement('script');
            script.onerror = () => resolve(true); script.onload = () => resolve(false);
            script.src = 'http://127.0.0.1:{shown.port}/page.js';
            document.body.append(script); }})"""
        )
        assert refused is True
        page.wait_for("document.querySelector('iframe').contentDocument === null")
    keys = {key["key"]: key for key in shown.get("/api/tuning")["keys"]}
    assert keys["preempt.slice"]["value"] == "10ms"
    assert any("frame" in each for each in page.complaints())
