"""websockets.sync: a server with a thread a connection, and 100 clients of it."""

import threading
import time

import beside
from websockets.sync.client import connect
from websockets.sync.server import serve

everybody = threading.Barrier(100)


def handler(connection):
    for message in connection:
        everybody.wait()
        time.sleep(0.1)
        connection.send(message[::-1])


def task(number):
    with connect(f"ws://127.0.0.1:{port}", proxy=None, open_timeout=60) as connection:
        connection.send(f"{number} word")
        first = connection.recv()
        connection.send("x" * 100_000)
        second = len(connection.recv())
        connection.ping().wait()
    return first, second


with serve(handler, "127.0.0.1", 0, open_timeout=60) as server:
    port = server.socket.getsockname()[1]
    threading.Thread(target=server.serve_forever).start()
    beside.run(task)
    server.shutdown()
