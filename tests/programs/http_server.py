"""A plain HTTP server: it prints its port, and serves until it is ended.

    /echo/WORD     the word
    /together/N/WORD    the word, once N such requests are here at once, and 0.1 s later
    /links/N       a page with links to N such requests
    anything else  404

A POST is answered with its body.
"""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HELD = 0.1  # seconds, in which the clients' process has to go on
together = {}
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        parts = self.path.strip("/").split("/")
        if parts[0] == "together":
            with lock:
                barrier = together.setdefault(parts[1], threading.Barrier(int(parts[1])))
            barrier.wait(60)
            time.sleep(HELD)
        elif parts[0] == "links":
            links = [f'<a href="/together/{parts[1]}/{n}">it</a>' for n in range(int(parts[1]))]
            self.reply(200, "".join(links).encode(), "text/html")
            return
        elif parts[0] != "echo":
            self.reply(404, b"no such page")
            return
        self.reply(200, parts[-1].encode())

    def do_POST(self):
        self.reply(200, self.rfile.read(int(self.headers["Content-Length"])))

    def reply(self, status, body, kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("LinkChecker", "may be fast")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 500
    daemon_threads = True


server = Server(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
