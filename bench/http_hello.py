"""A hello by http.server, with a thread for each connection.  usage: http_hello.py PORT

It imports nothing from here: gevent.monkey does not find that.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hello(BaseHTTPRequestHandler):
    """Answers each request with the same."""

    protocol_version = "HTTP/1.1"
    # The head and the body are two writes: the second would wait for the client's delayed ACK.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer."""
        body = b"Hello, world!"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Takes as many connections as come at once."""

    request_queue_size = 4096
    daemon_threads = True


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Hello).serve_forever()
