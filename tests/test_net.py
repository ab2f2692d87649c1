"""golibx.net: TCP between goroutines, over the loopback interface."""

# A lambda is the shortest way to do two things in a goroutine, though neither returns a value.
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import errno
import gc
import hashlib
import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from tempfile import TemporaryDirectory

import pytest

import golibx
import leaking
from golibx import (
    Cancelled,
    Chan,
    DeadlineExceeded,
    WaitGroup,
    as_completed,
    go,
    net,
    num_goroutine,
    sleep,
)
from golibx.net import Conn, Listener
from golibx.testing import wait_until

pytestmark = pytest.mark.goroutine


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError:
        return False
    return True


HOSTS = [
    "127.0.0.1",
    pytest.param(
        "::1", marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
    ),
]


@contextmanager
def pair(host: str = "127.0.0.1") -> Iterator[tuple[Conn, Conn]]:
    """Both ends of a connection."""
    with net.listen((host, 0)) as listener:
        accepted = go(listener.accept)
        client = net.dial((host, listener.address[1]))
        server, _ = accepted.result()
    with client, server:
        yield client, server


@contextmanager
def serving(
    handler: Callable[[Conn], object], host: str = "127.0.0.1"
) -> Iterator[tuple[str, int]]:
    listener = net.listen((host, 0))
    server = go(net.serve, handler, listener)
    try:
        yield host, listener.address[1]
    finally:
        listener.close()
        server.result()


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def parked(g: golibx.Goroutine[object]) -> None:
    """Yields until the goroutine waits."""
    leaking.parked(g)
    assert "IO" in g.state, g.state


def payload(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def read_all(conn: Conn, size: int = 65536) -> bytes:
    parts = []
    while part := conn.recv(size):
        parts.append(part)
    return b"".join(parts)


# ---- dial, listen, serve ----


@pytest.mark.parametrize("host", HOSTS)
def test_echo(host: str) -> None:
    def echo(conn: Conn) -> None:
        while data := conn.recv(1024):
            conn.sendall(data)

    with serving(echo, host) as address, net.dial(address) as conn:
        for i in range(100):
            message = str(i).encode() * (i + 1)
            conn.sendall(message)
            got = b""
            while len(got) < len(message):
                got += conn.recv(1024)
            assert got == message
        conn.shutdown(socket.SHUT_WR)
        assert conn.recv(1) == b""


@pytest.mark.parametrize("host", HOSTS)
def test_addresses(host: str) -> None:
    with net.listen((host, 0)) as listener:
        assert listener.address == listener.getsockname()
        assert listener.address[0] == host
        port = listener.address[1]
        accepted = go(listener.accept)
        with net.dial((host, port)) as client:
            server, peer = accepted.result()
            with server:
                assert peer == client.getsockname()
                assert server.getpeername() == peer
                assert client.getpeername()[:2] == (host, port)
                assert server.getsockname()[:2] == (host, port)
                assert len(peer) == (4 if ":" in host else 2)
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                assert client.family == server.family == listener.family == family


@pytest.mark.parametrize("host", HOSTS)
def test_addresses_as_text(host: str) -> None:
    text = f"[{host}]" if ":" in host else host
    with net.listen(f"{text}:0") as listener:
        accepted = go(listener.accept)
        with net.dial(f"{text}:{listener.address[1]}") as client:
            server, address = accepted.result()
            assert address == client.getsockname()
            server.close()


def test_host_names_and_all_interfaces() -> None:
    with net.listen(("", 0)) as listener:
        port = listener.address[1]
        accepted = go(lambda: [listener.accept() for _ in range(3)])
        clients = [net.dial((host, port)) for host in ("127.0.0.1", "localhost", "")]
        ports = [client.getsockname()[1] for client in clients]
        assert [address[1] for _, address in accepted.result()] == ports
        for conn in (*clients, *(conn for conn, _ in accepted.result())):
            conn.close()


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_all_interfaces_take_both_families() -> None:
    with net.listen(("", 0)) as listener:
        accepted = go(lambda: [listener.accept() for _ in range(2)])
        clients = [net.dial((host, listener.address[1])) for host in ("127.0.0.1", "::1")]
        assert [c.family for c in clients] == [socket.AF_INET, socket.AF_INET6]
        hosts = [address[0] for _, address in accepted.result()]
        assert [host.removeprefix("::ffff:") for host in hosts] == ["127.0.0.1", "::1"]
        for conn in (*clients, *(conn for conn, _ in accepted.result())):
            conn.close()


@pytest.mark.parametrize(
    "address", ["localhost", "localhost:", "localhost:http", "::1:80", ("h",), ("h", "1"), (1, 2)]
)
def test_what_is_no_address(address: object) -> None:
    for f in (net.dial, net.listen):
        with pytest.raises(ValueError):
            f(address)  # type: ignore[arg-type]


@pytest.mark.parametrize("port", [-1, 65536, 10**10])
def test_ports_out_of_range(port: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 65535"):
        net.dial(("127.0.0.1", port))
    with pytest.raises(ValueError, match="between 0 and 65535"):
        net.listen(("127.0.0.1", port))


@pytest.mark.parametrize("address", [None, 5, b"localhost:80", ["h", 1]])
def test_addresses_of_wrong_types(address: object) -> None:
    with pytest.raises(TypeError):
        net.dial(address)  # type: ignore[arg-type]


def test_refused() -> None:
    with net.listen(("127.0.0.1", 0)) as listener:
        port = listener.address[1]
    before = open_fds()
    with pytest.raises(ConnectionRefusedError, match=f"cannot connect to 127.0.0.1:{port}"):
        net.dial(("127.0.0.1", port))
    with pytest.raises(ConnectionRefusedError):
        net.dial(("127.0.0.1", port), timeout=10)
    assert open_fds() == before


def test_unknown_host() -> None:
    with pytest.raises(socket.gaierror):
        net.dial(("host.invalid", 80))


def test_address_in_use() -> None:
    with net.listen(("127.0.0.1", 0)) as listener:
        port = listener.address[1]
        before = open_fds()
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}") as info:
            net.listen(("127.0.0.1", port))
        assert info.value.errno == errno.EADDRINUSE
        assert open_fds() == before


def test_reuse_port() -> None:
    with net.listen(("127.0.0.1", 0), reuse_port=True) as listener:
        with net.listen(("127.0.0.1", listener.address[1]), reuse_port=True) as other:
            assert other.address == listener.address
        with pytest.raises(OSError, match="in use"):
            net.listen(("127.0.0.1", listener.address[1]))


def test_dial_times_out() -> None:
    # A full backlog: the kernel drops what comes beyond it.
    with net.listen(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.address[1]
        filling: list[Conn] = []
        before = 0
        with pytest.raises(DeadlineExceeded, match=f"127.0.0.1:{port} took over"):
            for _ in range(10):
                before = open_fds()
                filling.append(net.dial(("127.0.0.1", port), timeout=0.05))
        assert open_fds() == before
        for conn in filling:
            conn.close()


def test_serve_returns_when_its_listener_is_closed() -> None:
    listener = net.listen(("127.0.0.1", 0))
    server = go(net.serve, lambda conn: None, listener)
    parked(server)
    listener.close()
    assert server.result() is None


def test_serve_by_address_until_it_is_cancelled() -> None:
    server = go(net.serve, lambda conn: None, ("127.0.0.1", 0))
    parked(server)
    before = open_fds()
    server.cancel()
    server.join()
    assert server.state == "cancelled"
    assert open_fds() == before - 1


def test_serve_closes_connections_and_survives_handlers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def handler(conn: Conn) -> None:
        if conn.recv(1) == b"x":
            raise LookupError("in the handler")

    with serving(handler) as address:
        for message in (b"x", b"y", b"x"):
            with net.dial(address) as conn:
                conn.sendall(message)
                assert conn.recv(10) == b""
    # A handler's connection is closed before its exception is reported.
    wait_until(lambda: golibx.num_goroutine() == 1)
    assert capsys.readouterr().err.count("LookupError: in the handler") == 2


def test_many_connections() -> None:
    def echo(conn: Conn) -> None:
        while data := conn.recv(100):
            conn.sendall(data)

    open_together: Chan[None] = Chan()

    def client(address: tuple[str, int], i: int) -> bytes:
        with net.dial(address) as conn:
            connected.done()
            open_together.recv_ok()
            conn.sendall(b"%d" % i)
            return conn.recv(100)

    connected = WaitGroup()
    with serving(echo) as address:
        n = 300
        connected.add(n)
        clients = [go(client, address, i) for i in range(n)]
        connected.wait()
        open_together.close()
        assert [g.result() for g in clients] == [b"%d" % i for i in range(n)]


def test_accept_from_several_goroutines() -> None:
    with net.listen(("127.0.0.1", 0)) as listener:
        accepted: Chan[int] = Chan(100)

        def accept(i: int) -> None:
            while True:
                try:
                    conn, _ = listener.accept()
                except OSError as exc:
                    assert exc.errno == errno.EBADF
                    return
                conn.close()
                accepted.send(i)

        group = WaitGroup()
        for i in range(5):
            group.go(accept, i)
        for _ in range(100):
            go(lambda: net.dial(("127.0.0.1", port)).close())
            port = listener.address[1]
        for _ in range(100):
            accepted.recv()
    group.wait()
    assert accepted.try_recv() == (None, False)


def test_iterating_a_listener() -> None:
    listener = net.listen(("127.0.0.1", 0))
    seen: list[Conn] = []

    def accept() -> None:
        for conn in listener:
            seen.append(conn)

    g = go(accept)
    conns = [net.dial(("127.0.0.1", listener.address[1])) for _ in range(3)]
    wait_until(lambda: len(seen) >= 3)
    listener.close()
    assert g.result() is None
    for conn in (*conns, *seen):
        conn.close()


# ---- transfers ----


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("chunk", [100, 4096, 65536, 300_000, 1 << 20])
def test_large_transfers_both_ways(host: str, chunk: int) -> None:
    size = 300_000 if chunk == 100 else 8 << 20
    there, back = payload(size, 1), payload(size, 2)
    with pair(host) as (client, server):
        senders = [go(client.sendall, there), go(server.sendall, back)]

        def receive(conn: Conn) -> bytes:
            parts, left = [], size
            while left:
                part = conn.recv(min(chunk, left))
                assert part
                assert len(part) <= chunk
                parts.append(part)
                left -= len(part)
            return hashlib.sha1(b"".join(parts)).digest()

        receivers = [go(receive, server), go(receive, client)]
        assert receivers[0].result() == hashlib.sha1(there).digest()
        assert receivers[1].result() == hashlib.sha1(back).digest()
        for s in senders:
            s.result()


def test_send_counts() -> None:
    data = payload(4 << 20)
    with pair() as (client, server):
        received = go(read_all, server)
        view, sent = memoryview(data), 0
        while sent < len(data):
            n = client.send(view[sent:])
            assert 0 < n <= len(data) - sent
            sent += n
        client.shutdown(socket.SHUT_WR)
        assert received.result() == data


def test_recv_into() -> None:
    data = payload(1 << 20)
    with pair() as (client, server):
        sender = go(client.sendall, data)
        buffer = bytearray(len(data))
        view, filled = memoryview(buffer), 0
        while filled < len(data):
            n = server.recv_into(view[filled:])
            assert n > 0
            filled += n
        assert buffer == data
        sender.join()
        client.sendall(b"abcdef")
        small = bytearray(b"......")
        assert server.recv_into(small, 3) == 3
        assert small == b"abc..."
        assert server.recv_into(small, nbytes=2) == 2
        assert small == b"dec..."
        with pytest.raises(ValueError, match="nbytes must be between 0 and"):
            server.recv_into(small, 7)
        with pytest.raises(ValueError, match="nbytes must be between 0 and"):
            server.recv_into(small, -1)
        with pytest.raises((TypeError, BufferError)):
            server.recv_into(b"constant")
        assert server.recv_into(small, 0) == 1
        assert small == b"fec..."


def test_buffers_of_all_kinds() -> None:
    from array import array

    with pair() as (client, server):
        for data in (b"bytes", bytearray(b"bytes"), memoryview(b"bytes"), array("b", b"bytes")):
            client.sendall(data)
            assert server.recv(100) == b"bytes"
        for bad in ("text", 5, None):
            with pytest.raises(TypeError):
                client.send(bad)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                client.sendall(bad)  # type: ignore[arg-type]
        client.sendall(b"")
        assert client.send(b"") == 0


def test_recv_arguments() -> None:
    with pair() as (client, server):
        client.sendall(b"abc")
        assert server.recv(2, socket.MSG_PEEK) == b"ab"
        assert server.recv(10, socket.MSG_PEEK) == b"abc"
        assert server.recv(2) == b"ab"
        assert server.recv(0) == b""
        assert server.recv(10) == b"c"
        with pytest.raises(ValueError, match="negative buffersize"):
            server.recv(-1)
        with pytest.raises(TypeError):
            server.recv("1")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            server.recv()  # type: ignore[call-arg]
        with pytest.raises(OverflowError):
            server.recv(2**80)


def test_peek_then_wait_for_more() -> None:
    with pair() as (client, server):
        client.sendall(b"abc")
        assert server.recv(100, socket.MSG_PEEK) == b"abc"
        assert server.recv(100) == b"abc"
        g = go(server.recv, 100)
        parked(g)
        client.sendall(b"def")
        assert g.result() == b"def"


def test_a_reader_and_a_writer_on_one_connection() -> None:
    def echo(conn: Conn) -> None:
        while data := conn.recv(65536):
            conn.sendall(data)

    data = payload(4 << 20)
    with serving(echo) as address, net.dial(address) as conn:

        def write() -> None:
            conn.sendall(data)
            conn.shutdown(socket.SHUT_WR)

        writer = go(write)
        assert read_all(conn) == data
        writer.result()


def test_makefile() -> None:
    with pair() as (client, server):
        with client.makefile("w", encoding="utf-8", newline="") as out:
            out.write("grün\r\nzwei\n")
        with server.makefile("r", encoding="utf-8", newline="") as lines:
            assert lines.readline() == "grün\r\n"
            assert lines.readline() == "zwei\n"
        with server.makefile("rwb") as both:
            both.write(b"x" * 100_000)
            flushed = go(both.flush)
            got = b""
            while len(got) < 100_000:
                got += client.recv(65536)
            flushed.result()
            client.sendall(b"line\n")
            assert both.readline() == b"line\n"
        raw = server.makefile("wb", buffering=0)
        assert raw.write(b"abc") == 3
        raw.close()
        assert client.recv(10) == b"abc"
        client.shutdown(socket.SHUT_WR)
        assert server.makefile("rb").read() == b""
        for mode in ("a", "x", "rt+"):
            with pytest.raises(ValueError):
                server.makefile(mode)
        with pytest.raises(ValueError, match="unbuffered"):
            server.makefile("r", buffering=0)


# ---- the end of a stream ----


@pytest.mark.parametrize("when", ["before", "between", "after"])
@pytest.mark.parametrize("size", [1, 1000, 65535, 65536, 65537, 400_000])
def test_end_right_behind_data(when: str, size: int) -> None:
    # A receive that gives less than was asked for is taken as the last: the end must still be seen,
    # also where its edge came along with the data's.
    data = payload(size)
    with pair() as (client, server):
        if when == "after":
            received = go(read_all, server)
            parked(received)
        sender = go(client.sendall, data)
        if when == "before":
            wait_until(lambda: size >= 100_000 or sender.done())
        if when == "between":
            first = server.recv(65536)
            assert data.startswith(first)
        if size < 100_000:
            sender.result()
            client.close()
        else:
            go(lambda: (sender.join(), client.close()))
        rest = received.result() if when == "after" else read_all(server)
        assert (first + rest if when == "between" else rest) == data
        assert server.recv(10) == b""
        assert server.recv(10) == b""


def test_end_behind_data_over_and_over() -> None:
    def handler(conn: Conn) -> None:
        conn.sendall(conn.recv(100) * 100)

    def client(i: int) -> bytes:
        with net.dial(address) as conn:
            conn.sendall(b"%04d" % i)
            if i % 2:
                conn.shutdown(socket.SHUT_WR)
            return read_all(conn, 4096 if i % 3 else 400)

    with serving(handler) as address:
        for _ in range(5):
            goroutines = [go(client, i) for i in range(60)]
            assert [g.result() for g in goroutines] == [b"%04d" % i * 100 for i in range(60)]


def test_half_close() -> None:
    with pair() as (client, server):
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert read_all(server) == b"question"
        server.sendall(b"answer")
        server.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"answer"
        with pytest.raises(BrokenPipeError):
            client.send(b"more")


def test_shutdown_of_reading_wakes_the_reader() -> None:
    with pair() as (client, server):
        g = go(server.recv, 10)
        parked(g)
        server.shutdown(socket.SHUT_RD)
        assert g.result() == b""
        client.sendall(b"x")


def test_shutdown_arguments() -> None:
    with pair() as (client, _):
        with pytest.raises(OSError) as info:
            client.shutdown(77)
        assert info.value.errno == errno.EINVAL
        with pytest.raises(TypeError):
            client.shutdown("x")  # type: ignore[arg-type]


def test_reset() -> None:
    with pair() as (client, server):
        g = go(server.recv, 10)
        parked(g)
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.close()
        with pytest.raises(ConnectionResetError):
            g.result()


def test_send_to_a_closed_peer() -> None:
    with pair() as (client, server):
        server.close()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(1000):
                client.sendall(b"x" * 65536)


# ---- deadlines ----


def test_recv_times_out() -> None:
    with pair() as (client, server):
        assert server.gettimeout() is None
        server.settimeout(0.001)
        assert server.gettimeout() == 0.001
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                server.recv(10)
        with pytest.raises(TimeoutError):
            server.recv_into(bytearray(10))
        client.sendall(b"late")
        server.settimeout(None)
        assert server.recv(10) == b"late"


def test_send_times_out() -> None:
    with pair() as (client, server):
        client.settimeout(0.01)
        with pytest.raises(DeadlineExceeded):
            client.sendall(b"x" * (64 << 20))
        with pytest.raises(DeadlineExceeded):
            while True:
                client.send(b"x" * 65536)
        client.settimeout(None)
        reading = go(read_all, server)
        client.sendall(b"the end")
        client.close()
        assert reading.result().endswith(b"the end")


def test_accept_times_out() -> None:
    with net.listen(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.001)
        with pytest.raises(DeadlineExceeded):
            listener.accept()
        listener.settimeout(100)
        g = go(listener.accept)
        net.dial(("127.0.0.1", listener.address[1])).close()
        g.result()[0].close()


def test_timeout_zero_does_not_wait() -> None:
    with pair() as (client, server):
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.recv(10)
        client.sendall(b"x")
        while True:
            try:
                assert server.recv(10) == b"x"
                break
            except BlockingIOError:
                sleep(0.001)


def test_a_call_that_waits_keeps_the_timeout_it_began_with() -> None:
    with pair() as (client, server):
        readers = [go(server.recv, 100), go(server.recv, 100)]
        for reader in readers:
            parked(reader)
        server.settimeout(0)
        client.sendall(b"one")  # both are woken, and the second finds nothing
        first = next(as_completed(readers))
        client.sendall(b"two")
        assert [r.result() for r in as_completed(readers)] == [b"one", b"two"]
        assert first.result() == b"one"


def test_the_timeout_of_sendall_is_for_all() -> None:
    with pair() as (client, server):
        client.settimeout(0.2)

        def read_slowly() -> None:
            while server.recv(65536):
                sleep(0.001)

        reader = go(read_slowly)
        with pytest.raises(DeadlineExceeded):
            client.sendall(b"x" * (64 << 20))
        reader.cancel()
        reader.join()


def test_timeout_that_is_not_needed() -> None:
    with pair() as (client, server):
        server.settimeout(1000)
        for i in range(50):
            g = go(server.recv, 10)
            parked(g)
            client.sendall(b"%d" % i)
            assert g.result() == b"%d" % i
        assert golibx.stats()["timers"] == 0


def test_timeout_arguments() -> None:
    with pair() as (client, _):
        for bad in (-1, float("nan")):
            with pytest.raises(ValueError, match="out of range"):
                client.settimeout(bad)
        with pytest.raises(TypeError):
            client.settimeout("1")  # type: ignore[arg-type]
        client.settimeout(float("inf"))
        client.settimeout(5)
        assert client.gettimeout() == 5.0


# ---- closing and cancelling ----


@pytest.mark.parametrize("operation", ["recv", "recv_into", "sendall", "send"])
def test_close_wakes_a_blocked_goroutine(operation: str) -> None:
    with pair() as (client, _):
        do: dict[str, Callable[[], object]] = {
            "recv": lambda: client.recv(10),
            "recv_into": lambda: client.recv_into(bytearray(10)),
            "sendall": lambda: client.sendall(b"x" * (64 << 20)),
            "send": lambda: [client.send(b"x" * 65536) for _ in range(10_000)],
        }
        g = go(do[operation])
        parked(g)
        client.close()
        with pytest.raises(OSError) as info:
            g.result()
        assert info.value.errno == errno.EBADF


def test_close_wakes_accept() -> None:
    listener = net.listen(("127.0.0.1", 0))
    waiting = [go(listener.accept) for _ in range(5)]
    for g in waiting:
        parked(g)
    listener.close()
    for g in waiting:
        with pytest.raises(OSError) as info:
            g.result()
        assert info.value.errno == errno.EBADF


def test_close_wakes_both_directions() -> None:
    with pair() as (client, _):
        reader = go(client.recv, 10)
        writer = go(client.sendall, b"x" * (64 << 20))
        parked(reader)
        parked(writer)
        client.close()
        for g in (reader, writer):
            g.join()
            assert isinstance(g.exception, OSError)
            assert g.exception.errno == errno.EBADF


def test_operations_on_a_closed_connection() -> None:
    with pair() as (client, _):
        client.close()
        client.close()
        assert client.closed
        assert client.fileno() == -1
        assert "closed" in repr(client)
        operations: list[Callable[[], object]] = [
            lambda: client.recv(1),
            lambda: client.send(b""),
            lambda: client.send(b"x"),
            lambda: client.sendall(b"x"),
            lambda: client.recv_into(bytearray(1)),
            lambda: client.shutdown(socket.SHUT_WR),
            client.getpeername,
            client.getsockname,
            lambda: client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        ]
        for f in operations:
            with pytest.raises(OSError) as info:
                f()
            assert info.value.errno == errno.EBADF


def test_a_reader_can_be_cancelled_and_replaced() -> None:
    with pair() as (client, server):
        g = go(server.recv, 10)
        parked(g)
        g.cancel()
        with pytest.raises(Cancelled):
            g.result()
        again = go(server.recv, 10)
        parked(again)
        client.sendall(b"for the second")
        assert again.result() == b"for the se"
        assert server.recv(100) == b"cond"


def test_cancelled_dial_and_accept_leave_no_descriptor() -> None:
    with net.listen(("127.0.0.1", 0), backlog=0) as listener:
        filling = []
        try:
            for _ in range(10):
                filling.append(net.dial(("127.0.0.1", listener.address[1]), timeout=0.05))
        except DeadlineExceeded:
            pass
        before = open_fds()
        dialling = go(net.dial, ("127.0.0.1", listener.address[1]))
        parked(dialling)
        dialling.cancel()
        dialling.join()
        assert dialling.state == "cancelled"
        assert open_fds() == before
        for conn in filling:
            conn.close()


def test_detach() -> None:
    with pair() as (client, server):
        fd = client.detach()
        assert client.closed
        with socket.socket(fileno=fd) as plain:
            plain.sendall(b"by another name")
            assert server.recv(100) == b"by another name"


def test_options() -> None:
    with pair() as (client, server):
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert len(client.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == 8  # type: ignore[arg-type]
        assert client.fileno() > 2
        assert str(client.fileno()) in repr(client)


# ---- descriptors ----


def test_no_descriptors_are_left() -> None:
    def session() -> None:
        with pair() as (client, server):
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            client.getpeername()
            server.getsockname()

    session()
    before = open_fds()
    for _ in range(50):
        session()
    assert open_fds() == before


def test_dropped_connections_are_closed() -> None:
    session = pair()
    client, server = session.__enter__()
    server.getpeername()
    before = open_fds()
    number = client.fileno()
    waiting = go(server.recv, 10)
    parked(waiting)
    dropped = net.Conn(os.dup(number))
    dropped.getsockname()
    del dropped
    gc.collect()
    assert open_fds() == before
    session.__exit__(None, None, None)
    assert isinstance(waiting.exception, OSError) or not waiting.done()
    waiting.join()
    assert isinstance(waiting.exception, OSError)


def test_a_descriptor_that_is_used_again_at_once() -> None:
    # A new connection gets the number of one closed a moment ago, with events perhaps on the way.
    with net.listen(("127.0.0.1", 0)) as listener:
        port = listener.address[1]
        numbers = set()
        for i in range(200):
            accepted = go(listener.accept)
            with net.dial(("127.0.0.1", port)) as client:
                numbers.add(client.fileno())
                server, _ = accepted.result()
                g = go(client.recv, 10)
                parked(g)
                server.sendall(b"%d" % i)
                server.close()
                assert g.result() == b"%d" % i
                assert client.recv(10) == b""
        assert len(numbers) < 20


def test_goroutines_are_not_left_either() -> None:
    with serving(lambda conn: conn.recv(10)) as address:
        before = num_goroutine()
        for _ in range(20):
            net.dial(address).close()
        wait_until(lambda: num_goroutine() <= before)
        assert num_goroutine() == before


# ---- across runs and threads ----


@pytest.mark.goroutine(False)
def test_a_connection_of_an_ended_run() -> None:
    def first() -> tuple[Conn, Listener]:
        listener = net.listen(("127.0.0.1", 0))
        return net.dial(("127.0.0.1", listener.address[1])), listener

    conn, listener = golibx.run(first)
    with pytest.raises(RuntimeError, match="no golibx runtime"):
        conn.recv(1)

    def second() -> None:
        with pytest.raises(RuntimeError, match="belongs to a golibx runtime that has ended"):
            conn.recv(1)
        with pytest.raises(RuntimeError, match="has ended"):
            listener.accept()

    golibx.run(second)
    before = open_fds()
    conn.close()
    listener.close()
    assert open_fds() == before - 2


@pytest.mark.goroutine(False)
def test_outside_a_run() -> None:
    with pytest.raises(RuntimeError, match="no golibx runtime"):
        net.listen(("127.0.0.1", 0))


def test_a_plain_socket_as_the_other_end() -> None:
    # It blocks its thread; the processor is taken from it.
    with net.listen(("127.0.0.1", 0)) as listener:
        address = listener.address

        def plain() -> bytes:
            with socket.create_connection(address) as s:
                s.sendall(b"hello")
                return s.recv(100)

        g = go(plain)
        conn, _ = listener.accept()
        with conn:
            assert conn.recv(100) == b"hello"
            conn.sendall(b"goodbye")
            assert g.result() == b"goodbye"


def test_asking_for_an_address_leaves_the_socket_open() -> None:
    with net.listen("127.0.0.1:0") as listener:
        addresses = [go(listener.getsockname) for _ in range(5)]
        assert len({g.result() for g in addresses}) == 1
        gc.collect()
        accepted = go(listener.accept)
        with net.dial(addresses[0].result(), timeout=5):
            accepted.result()[0].close()


def test_names_and_options_are_those_of_the_standard_library() -> None:
    """For addresses of every kind, and options of both."""
    pairs = [socket.socketpair(socket.AF_UNIX)]
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.create_server((host, 0), family=family) as server:
            client = socket.create_connection(server.getsockname()[:2])
            pairs.append((client, server.accept()[0]))
    for name in ("\0golibx test" + str(os.getpid()), f"path{os.getpid()}"):
        with socket.socket(socket.AF_UNIX) as server, chdir_to_temporary():
            server.bind(name)
            server.listen()
            client = socket.socket(socket.AF_UNIX)
            client.connect(name)
            pairs.append((client, server.accept()[0]))
    for plain, theirs in pairs:
        same = plain.dup()
        with same, theirs, net.Conn(plain.detach()) as conn:
            assert conn.getsockname() == same.getsockname()
            assert conn.getpeername() == same.getpeername()
            assert conn.family is same.family
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            linger = struct.pack("ii", 1, 3)
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            for option in (socket.SO_KEEPALIVE, socket.SO_TYPE, socket.SO_ERROR):
                ours = conn.getsockopt(socket.SOL_SOCKET, option)
                assert ours == same.getsockopt(socket.SOL_SOCKET, option)
            assert conn.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, buflen=8) == linger
            with pytest.raises(OSError, match="not 1025"):
                conn.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 1025)
            with pytest.raises(OverflowError, match=str(1 << 40)):
                conn.setsockopt(1 << 40, 1, 1)
            with pytest.raises(TypeError):
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, "text")  # type: ignore[arg-type]
        calls: list[Callable[[], object]] = [
            conn.getsockname,
            conn.getpeername,
            lambda: conn.family,
            lambda: conn.getsockopt(1, 1),
            lambda: conn.setsockopt(1, 1, 1),
        ]
        for call in calls:
            with pytest.raises(OSError) as closed:
                call()
            assert closed.value.errno == errno.EBADF


@contextmanager
def chdir_to_temporary() -> Iterator[None]:
    with TemporaryDirectory() as folder, chdir(folder):
        yield
