"""The servers that tests/test_hardship.py treats badly: programs that know nothing of goroutines.

    golibx run hardship_app.py http      a ThreadingHTTPServer
    golibx run hardship_app.py tcp       a ThreadingTCPServer with requests of its own
    golibx serve hardship_app:app        an application for WSGI

All of them answer the same paths (`answer`). A request of the TCP server is a line with a path and
the length of what follows it; an answer is a line with its length, and itself.

Only what is for the tests, the path /stats, asks golibx for something.
"""

import json
import os
import resource
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATTERN = bytes(range(256)) * 1024
BIG = PATTERN * 16
BACKLOG = 4096

attempts = 0  # to accept a connection that failed
received = 0  # after an answer that ended its half of a connection


def answer(path, body):
    if path == "/echo":
        return body
    if path == "/big":
        return BIG
    if path == "/sleep":
        time.sleep(0.01)
    elif path == "/stats":
        return json.dumps(figures()).encode()
    elif path.startswith("/fork/"):
        return str(fork(int(path.removeprefix("/fork/")))).encode()
    elif path == "/keeper":
        return str(keeper()).encode()
    elif path.startswith("/killed/"):
        pid = int(path.removeprefix("/killed/"))
        os.kill(pid, signal.SIGKILL)
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode()
    elif path == "/command":
        return str(command()).encode()
    elif path.startswith("/descriptors/"):
        soft = int(path.removeprefix("/descriptors/"))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft or hard, hard))
    elif path.startswith("/timeout/"):  # of new connections
        seconds = float(path.removeprefix("/timeout/"))
        HttpHandler.timeout = TcpHandler.timeout = seconds or None
    return b"hello"


def figures():
    from golibx import stats

    return {
        "goroutines": stats()["goroutines"],
        "threads": threading.active_count(),
        "attempts": attempts,
        "received": received,
    }


# ---- children ----


def fork(port):
    """Returns how a child has ended that uses sockets as a plain program does."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            in_child(port)
            status = 42
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(port):
    one, other = socket.socketpair()
    thread = threading.Thread(target=send_back, args=(other,))
    thread.start()
    one.settimeout(30)
    one.sendall(PATTERN)
    one.shutdown(socket.SHUT_WR)
    data = b""
    while part := one.recv(65536):
        data += part
    thread.join()
    assert data == PATTERN
    # What listens outside is asked as well.
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(b"ping")
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        assert poll.poll(30_000)
        assert sock.recv(4, socket.MSG_WAITALL) == b"pong"


def send_back(sock):
    data = b""
    while part := sock.recv(65536):
        data += part
    sock.sendall(data)
    sock.close()


def keeper():
    """The number of a child that keeps all connections open that there are."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        while os.getppid() == parent:
            time.sleep(0.01)
        os._exit(1)
    return pid


def command():
    code = "read line; printf '%s' \"$line$line\"; exit 3"
    done = subprocess.run(["/bin/sh", "-c", code], input=b"ab\n", capture_output=True)
    assert done.stdout == b"abab", done
    return done.returncode


# ---- the servers ----


class Counting:
    """Counts connections that can't be accepted."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = BACKLOG

    def get_request(self):
        global attempts
        try:
            return super().get_request()
        except OSError:
            attempts += 1
            raise

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def read_to_the_end(sock):
    global received
    sock.shutdown(socket.SHUT_WR)
    while part := sock.recv(65536):
        received += len(part)


class HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b""
        if self.path != "/ends":
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = answer(self.path, body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        if self.path == "/ends":
            read_to_the_end(self.connection)
        if self.path in ("/ends", "/close"):
            self.close_connection = True

    do_POST = do_GET

    def log_message(self, *_):
        pass


class HttpServer(Counting, ThreadingHTTPServer):
    pass


class TcpHandler(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            if not line.endswith(b"\n"):
                return  # the client has gone
            path, length = line.decode().split()
            body = b"" if path == "/ends" else self.rfile.read(int(length))
            if path != "/ends" and len(body) < int(length):
                return
            data = answer(path, body)
            self.wfile.write(b"%d\n" % len(data) + data)
            if path == "/ends":
                read_to_the_end(self.connection)
            if path in ("/ends", "/close"):
                return


class TcpServer(Counting, socketserver.ThreadingTCPServer):
    pass


def app(environ, start_response):
    path = environ["PATH_INFO"]
    body = b"" if path == "/ends" else environ["wsgi.input"].read()
    data = answer(path, body)
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))]
    if path == "/close":
        headers.append(("Connection", "close"))
    start_response("200 OK", headers)
    return [data]


def main():
    kinds = {"http": (HttpServer, HttpHandler), "tcp": (TcpServer, TcpHandler)}
    server_class, handler = kinds[sys.argv[1]]
    with server_class(("127.0.0.1", 0), handler) as server:
        host, port = server.server_address
        print(f"serving on http://{host}:{port}", file=sys.stderr, flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
else:
    from golibx.serve import server

    def bear(self, listener, exc, plain=server.Server._bear):
        global attempts
        attempts += 1
        plain(self, listener, exc)

    server.Server._bear = bear
