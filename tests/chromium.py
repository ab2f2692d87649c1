"""A headless Chromium for tests of pages, by its DevTools protocol over a pair of pipes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from golibx.testing import wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find() -> str | None:
    """Its path, if it is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A tab. Every call waits for its answer; the test's time limit ends what does not come."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to = os.fdopen(to_browser, "wb", buffering=0)
        self._from = os.fdopen(from_browser, "rb", buffering=0)
        self._rest = b""
        self._number = 0
        self._session = ""
        self.events: deque[dict[str, Any]] = deque(maxlen=2000)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        self._to.close()
        self._from.close()

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._from.fileno(), 1 << 16)
            assert part, "the browser has ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and what it returns."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            found = self._receive()
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found['error']}"
                result: dict[str, Any] = found["result"]
                return result
            self.events.append(found)

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript, also of a promise."""
        result = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, condition: str) -> Any:
        """The value of JavaScript once it is true."""
        return wait_until(lambda: self.evaluate(condition))

    def screenshot(self, path: Path) -> None:
        data = self.send("Page.captureScreenshot", captureBeyondViewport=False)["data"]
        path.write_bytes(b64decode(data))

    def use_scheme(self, scheme: str) -> None:
        """ "dark" or "light"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def complaints(self) -> list[str]:
        """What the page's scripts have raised, and what the browser has logged of it."""
        found = []
        for event in self.events:
            parameters = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                found.append(details.get("exception", {}).get("description", details["text"]))
            elif event.get("method") == "Log.entryAdded":
                found.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        return found


@contextmanager
def browser(folder: Path, *, width: int = 1400, height: int = 1000) -> Iterator[Page]:
    """One that keeps what it writes in the folder."""
    path = find()
    assert path is not None
    read_end, to_browser = os.pipe()
    from_browser, write_end = os.pipe()
    # It reads from descriptor 3 and writes to 4.
    quiet = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio")
    more = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
    command = [path, *quiet, *more, "--remote-debugging-pipe", f"--window-size={width},{height}"]
    command += [f"--user-data-dir={folder / 'profile'}", "about:blank"]
    shell = 'exec "$@" 3<&"$FROM" 4>&"$TO"'
    environment = {**os.environ, "HOME": str(folder), "FROM": str(read_end), "TO": str(write_end)}
    process = subprocess.Popen(
        ["/bin/bash", "-c", shell, "-", *command],
        env=environment,
        pass_fds=(read_end, write_end),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(read_end)
    os.close(write_end)
    page = None
    try:
        page = Page(to_browser, from_browser)
        yield page
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        if page is not None:
            page.close()
