"""An echo server as a plain program has it: a thread for each connection, and blocking sockets.

usage: socket_echo.py PORT
"""

from __future__ import annotations

import socket
import threading

import harness


def echo(conn: socket.socket) -> None:
    """Send back what comes."""
    with conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := conn.recv(harness.RECEIVE_SIZE):
            conn.sendall(data)


def main() -> None:
    """Serve until the process is ended."""
    address = ("127.0.0.1", harness.echo_port())
    with socket.create_server(address, backlog=harness.BACKLOG) as listener:
        while True:
            conn, _ = listener.accept()
            threading.Thread(target=echo, args=(conn,), daemon=True).start()


if __name__ == "__main__":
    main()
