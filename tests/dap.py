"""A client of the Debug Adapter Protocol, as far as a test needs one."""

from __future__ import annotations

import json
import socket
import time
from typing import Any


class Client:
    """Speaks to a debug adapter; requests are answered in order, events come in between."""

    def __init__(self, address: tuple[str, int], seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                self._socket = socket.create_connection(address, timeout=seconds)
                break
            except ConnectionRefusedError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        self._file = self._socket.makefile("rb")
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def wait_for_end(self) -> None:
        """Until the adapter closes the connection."""
        try:
            while True:
                self._receive()
        except EOFError:
            pass
        self._file.close()
        self._socket.close()

    def send(self, command: str, **arguments: object) -> int:
        self._number += 1
        message = {
            "seq": self._number,
            "type": "request",
            "command": command,
            "arguments": arguments,
        }
        body = json.dumps(message).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return self._number

    def _receive(self) -> dict[str, Any]:
        length = 0
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if not length:
            raise EOFError("the debug adapter has gone")
        message: dict[str, Any] = json.loads(self._file.read(length))
        if message["type"] == "event":
            self.events.append(message)
        return message

    def answer(self, number: int) -> dict[str, Any]:
        while True:
            message = self._receive()
            if message["type"] == "response" and message["request_seq"] == number:
                assert message["success"], message
                return message.get("body") or {}

    def request(self, command: str, **arguments: object) -> dict[str, Any]:
        return self.answer(self.send(command, **arguments))

    def event(self, name: str) -> dict[str, Any]:
        """The next event of that name that was not asked for before."""
        while True:
            for message in self.events:
                if message["event"] == name:
                    self.events.remove(message)
                    return message.get("body") or {}
            self._receive()
