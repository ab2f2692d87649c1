"""An echo server on golibx.  usage: golibx_echo.py PORT"""

from __future__ import annotations

import harness

from golibx import net, run


def echo(conn: net.Conn) -> None:
    """Send back what comes; a message of one byte is a command first."""
    while data := conn.recv(harness.RECEIVE_SIZE):
        if len(data) == 1:
            harness.disturb(data)
        conn.sendall(data)


if __name__ == "__main__":
    run(net.serve, echo, ("127.0.0.1", harness.echo_port()))
