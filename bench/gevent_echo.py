"""An echo server on gevent.  usage: gevent_echo.py PORT"""

# The peers are optional, and not all are typed.
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import socket

import gevent.socket
import harness
from gevent.server import StreamServer


def echo(conn: gevent.socket.socket, address: object) -> None:
    """Send back what comes; a message of one byte is a command first."""
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := conn.recv(harness.RECEIVE_SIZE):
        if len(data) == 1:
            harness.disturb(data)
        conn.sendall(data)


if __name__ == "__main__":
    address = ("127.0.0.1", harness.echo_port())
    StreamServer(address, echo, backlog=harness.BACKLOG).serve_forever()
