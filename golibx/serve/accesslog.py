"""A line for each request, in the combined format that log readers know.

    127.0.0.1 - - [10/Oct/2026:13:55:36 +0000] "GET /x?y HTTP/1.1" 200 2326 "-" "curl/8.5.0"

Requests hand their lines to one goroutine, which writes all that there are at a time: so a request
needs no system call of its own. Where the disk or the reader is slower than that, requests wait.
What clients send is escaped: a line is a line.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import golibx
from golibx.errors import ChannelClosed

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AccessLog", "escaped"]

_PENDING_MAX = 1024
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0xAD)}
_ESCAPES |= {ord('"'): '\\"', ord("\\"): "\\\\"}


def escaped(text: str) -> str:
    """Without control characters, and so that it can stand in quotation marks."""
    return text.translate(_ESCAPES)


class AccessLog:
    """The file, opened at once.

    Args:
        path: of the file, which is appended to; "-" for stdout.

    Raises:
        OSError: it can't be opened.
    """

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = 1 if path == "-" else os.open(path, flags, 0o644)
        self._name = "stdout" if path == "-" else path
        self._second = -1
        self._stamp = ""
        self._has_failed = False

    def start(self) -> None:
        """Begins to write, in a goroutine of the present run."""
        self._lines: golibx.Chan[str] = golibx.Chan(_PENDING_MAX)
        self._writer = golibx.go(self._write)

    def add(self, environ: Mapping[str, Any], status: str, sent: int, began: float) -> None:
        """A line for a request that has been answered.

        Args:
            environ: of the request.
            status: "200 OK"; "" if there was none.
            sent: bytes of the body.
            began: when, in seconds since the epoch.
        """
        request = f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} {environ['SERVER_PROTOCOL']}"
        line = (
            f"{environ['REMOTE_ADDR'] or '-'} - - [{self._time(int(began))}] "
            f'"{escaped(request)}" {status[:3] or "-"} {sent or "-"} '
            f'"{escaped(environ.get("HTTP_REFERER", "-"))}" '
            f'"{escaped(environ.get("HTTP_USER_AGENT", "-"))}"\n'
        )
        try:
            self._lines.send(line)
        except ChannelClosed:
            pass  # of a request that was cut off at the end

    def _time(self, second: int) -> str:
        if second != self._second:
            t = time.gmtime(second)
            self._stamp = (
                f"{t.tm_mday:02}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year}:"
                f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"
            )
            self._second = second
        return self._stamp

    def _write(self) -> None:
        for line in self._lines:
            lines = [line]
            while (more := self._lines.try_recv())[1]:
                lines.append(more[0])
            data = "".join(lines).encode("latin-1", "replace")
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError as exc:
                if not self._has_failed:  # once: the next line has the same fate
                    self._has_failed = True
                    text = f"golibx: can't write the access log {self._name}: {exc.strerror}\n"
                    sys.stderr.write(text)

    def stop(self, timeout: float) -> None:
        """Writes what there is, if that can be done within so many seconds."""
        self._lines.close()
        self._writer.join(timeout)
