"""A server that ends well: after SIGTERM or Ctrl-C it still serves its clients, but no new ones.

    golibx run examples/graceful.py [port]

A second signal ends it at once. Try it with `nc 127.0.0.1 8080`, and `kill` its process.
"""

import sys
from signal import SIGINT, SIGTERM

import golibx.signal
from golibx import WaitGroup, context, go, net

DRAIN_S = 10.0


def serve(conn: net.Conn) -> None:
    with conn:
        while line := conn.recv(4096):
            conn.sendall(line)


def accept(listener: net.Listener, busy: WaitGroup) -> None:
    while True:
        try:
            conn, _ = listener.accept()
        except OSError:  # it was closed
            return
        busy.go(serve, conn)


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    ctx, stop = golibx.signal.notify_context(context.background(), SIGTERM, SIGINT)
    listener = net.listen(("127.0.0.1", port))
    host, port = listener.address[:2]
    print(f"serving on {host}:{port}", flush=True)
    busy = WaitGroup()
    acceptor = go(accept, listener, busy)

    ctx.done().recv_ok()
    stop()
    print("ending", flush=True)
    listener.close()
    acceptor.join()
    if not busy.wait(timeout=DRAIN_S):
        print(f"{busy.count} clients are cut off", flush=True)
        sys.exit(1)


if __name__ == "__main__":
    golibx.run(main)
