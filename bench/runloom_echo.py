"""An echo server on runloom.  usage: runloom_echo.py PORT"""

# The peers are optional, and not all are typed.
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import socket
import sys

import harness
import runloom

ON = (1).to_bytes(4, sys.byteorder)  # as C has it


def echo(conn: runloom.TCPConn) -> None:
    """Send back what comes; a message of one byte is a command first."""
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, ON)
    while data := conn.recv(harness.RECEIVE_SIZE):
        if len(data) == 1:
            harness.disturb(data)
        conn.send_all(data)
    conn.close()


def serve() -> None:
    """Accept connections for ever."""
    listener = runloom.TCPConn.listen("127.0.0.1", harness.echo_port(), harness.BACKLOG)
    while True:
        runloom.fiber(echo, listener.accept())


if __name__ == "__main__":
    runloom.optimize("throughput")
    runloom.run(1, serve)
