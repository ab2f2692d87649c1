"""The load generator where there is no Go toolchain; gopeer has a quicker one with the same output.

usage: load.py load PORT CONNECTIONS SIZE SECONDS SERVER_PID
       load.py latency PORT CONNECTIONS RATE SECONDS COMMAND
"""

from __future__ import annotations

import selectors
import socket
import sys
import threading
import time

from harness import emit

# Before the measurement starts, so that buffers, caches and malloc's thresholds settle; seconds.
WARM_UP = 1.0

# A server that answers nothing for so long has failed; seconds.
PATIENCE = 60.0


def run_load(port: int, connections: int, size: int, seconds: float, server_pid: int) -> None:
    """Keep one request under way on each connection; measure rate, latency and the server's CPU."""
    request = bytes(size)
    selector = selectors.DefaultSelector()
    sent: dict[socket.socket, float] = {}
    received: dict[socket.socket, int] = {}
    for _ in range(connections):
        conn = dial(port)
        selector.register(conn, selectors.EVENT_READ)
        sent[conn], received[conn] = time.perf_counter(), 0
        conn.sendall(request)

    def serve_until(end: float) -> list[float]:
        latencies = []
        while time.perf_counter() < end:
            ready = selector.select(PATIENCE)
            if not ready:
                sys.exit(f"load: no answer in {PATIENCE:.0f} s")
            for key, _ in ready:
                conn = key.fileobj
                assert isinstance(conn, socket.socket)
                data = conn.recv(size)
                if not data:
                    sys.exit("load: the server closed a connection")
                received[conn] += len(data)
                if received[conn] == size:
                    now = time.perf_counter()
                    latencies.append(now - sent[conn])
                    sent[conn], received[conn] = now, 0
                    conn.sendall(request)
        return latencies

    serve_until(time.perf_counter() + WARM_UP)
    cpu, start = process_cpu(server_pid), time.perf_counter()
    latencies = serve_until(start + seconds)
    elapsed = time.perf_counter() - start
    cpu = process_cpu(server_pid) - cpu
    for conn in sent:  # read the last reply, or the close would reset the connection
        conn.recv(size)
        conn.close()
    emit("cpu_us", cpu * 1e6 / max(1, len(latencies)))
    emit("rate", len(latencies) / elapsed)
    emit_latencies(latencies)


def run_latency(port: int, connections: int, rate: int, seconds: float, command: bytes) -> None:
    """Send rate requests a second on each connection while the server obeys a command (b"-": none).

    A request's latency counts from when it was due, so that requests which could not be sent
    because an earlier one was stuck count as late too.
    """
    control = dial(port)
    exchange(control, b"E")
    latencies: list[float] = []
    start = time.perf_counter() + 0.2

    def client(conn: socket.socket, offset: float) -> None:
        request = bytes(64)
        for k in range(-max(1, rate // 10), int(seconds * rate)):  # negative: warm-up
            due = start + offset + k / rate
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
                due = time.perf_counter()  # the client's own timer is not the server's latency
            exchange(conn, request)
            if k >= 0:
                latencies.append(time.perf_counter() - due)

    clients = [
        threading.Thread(target=client, args=(dial(port), i / rate / connections))
        for i in range(connections)
    ]
    for thread in clients:
        thread.start()
    time.sleep(max(0.0, start - time.perf_counter()))
    if command != b"-":
        began = time.perf_counter()
        exchange(control, command)
        emit("disturbed_ms", (time.perf_counter() - began) * 1e3)
    for thread in clients:
        thread.join()
    emit_latencies(latencies)


def dial(port: int) -> socket.socket:
    """A connection to the server, with small writes sent at once."""
    conn = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return conn


def exchange(conn: socket.socket, request: bytes) -> None:
    """Send a request and wait for all of its reply."""
    conn.sendall(request)
    missing = len(request)
    while missing:
        data = conn.recv(missing)
        if not data:
            raise ConnectionError("the server closed a connection")
        missing -= len(data)


def emit_latencies(latencies: list[float]) -> None:
    """Print median, 99th percentile and maximum, in milliseconds."""
    if not latencies:
        sys.exit("load: no request was answered")
    latencies.sort()
    for name, fraction in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0)):
        emit(name, latencies[int(fraction * (len(latencies) - 1))] * 1e3)


def process_cpu(pid: int) -> float:
    """CPU time of all threads of a process, in seconds.

    /proc/PID/stat would count in steps of 10 ms. The clock's number is what
    clock_getcpuclockid(3) computes from a process id.
    """
    return time.clock_gettime(~pid << 3 | 2)


def main() -> None:
    """Run the load that the command line asks for."""
    match sys.argv[1:]:
        case ["load", port, connections, size, seconds, pid]:
            run_load(int(port), int(connections), int(size), float(seconds), int(pid))
        case ["latency", port, connections, rate, seconds, command]:
            run_latency(
                int(port), int(connections), int(rate), float(seconds), command.encode("ascii")
            )
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
