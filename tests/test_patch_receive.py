"""Receives on plain sockets, which stay watched from one to the next: nothing is missed, whatever
happens to a socket in between."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import socket
import threading
from collections.abc import Iterator

import pytest

import golibx
from golibx import Goroutine, go
from golibx.testing import wait_until, wait_until_parked

pytestmark = pytest.mark.goroutine


@pytest.fixture(autouse=True)
def patched() -> Iterator[None]:
    golibx.patch_all()
    yield
    golibx.unpatch()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


def unix_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


@contextlib.contextmanager
def pair(kind: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = tcp_pair() if kind == "tcp" else unix_pair()
    with one, other:
        watched(one, other)
        yield one, other


def parked(g: Goroutine[object]) -> None:
    wait_until_parked(g, state="IO wait (read)")


def watched(one: socket.socket, other: socket.socket) -> None:
    """The first has waited to receive, so that it is watched from now on."""
    reader = go(one.recv, 100)
    parked(reader)
    other.sendall(b"first")
    assert reader.result() == b"first"


KINDS = pytest.mark.parametrize("kind", ["tcp", "unix"])


@KINDS
def test_what_comes_between_receives(kind: str) -> None:
    with pair(kind) as (one, other):
        for size in (1, 5, 100):
            other.sendall(b"abcde")
            assert one.recv(size) == b"abcde"[:size]
            for at in range(size, 5, size):
                assert one.recv(size) == b"abcde"[at : at + size]
            reader = go(one.recv_into, bytearray(100))
            parked(reader)
            other.sendall(b"x")
            assert reader.result() == 1


@KINDS
def test_a_look_at_what_has_come_leaves_it(kind: str) -> None:
    with pair(kind) as (one, other):
        other.sendall(b"abc")
        for _ in range(3):
            assert one.recv(100, socket.MSG_PEEK) == b"abc"
        assert one.recv(100) == b"abc"
        reader = go(one.recv, 100, socket.MSG_PEEK)
        parked(reader)
        other.sendall(b"def")
        assert reader.result() == b"def"
        assert one.recv(100) == b"def"


@KINDS
def test_the_end_comes_with_data_or_after_it(kind: str) -> None:
    for waits in (False, True):
        with pair(kind) as (one, other):
            reader = go(one.recv, 100) if waits else None
            if reader is not None:
                parked(reader)
            other.sendall(b"end")
            other.close()
            assert (reader.result() if reader is not None else one.recv(100)) == b"end"
            assert [one.recv(100) for _ in range(3)] == [b""] * 3


@KINDS
def test_a_socket_that_is_waited_for_otherwise_in_between(kind: str) -> None:
    with pair(kind) as (one, other):
        for _ in range(3):
            assert select.select([], [one], [], 10)[1] == [one]
            waiter = go(select.select, [one], [], [], 10)
            wait_until_parked(waiter)
            reader = go(one.recv, 100)
            parked(reader)
            other.sendall(b"x")
            assert reader.result() == b"x"
            other.sendall(b"y")
            assert waiter.result()[0] in ([one], [])
            assert one.recv(100) == b"y"
            while True:  # until nothing can be sent
                try:
                    one.send(b"z" * 65536, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
            writer = go(select.select, [], [one], [], 10)
            wait_until_parked(writer)
            reader = go(one.recv, 100)
            parked(reader)
            other.sendall(b"a")
            assert reader.result() == b"a"
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.recv(1 << 20)
            other.setblocking(True)
            assert writer.result()[1] == [one]


@KINDS
def test_a_socket_that_does_not_wait_in_between(kind: str) -> None:
    with pair(kind) as (one, other):
        for _ in range(3):
            one.setblocking(False)
            with pytest.raises(BlockingIOError):
                one.recv(100)
            other.sendall(b"ab")
            wait_until(lambda: bool(select.select([one], [], [], 0)[0]))
            assert one.recv(1) == b"a"
            one.settimeout(10)
            assert one.recv(100) == b"b"
            with pytest.raises(TimeoutError):
                one.settimeout(0.001)
                one.recv(100)
            one.settimeout(None)
            reader = go(one.recv, 100)
            parked(reader)
            other.sendall(b"c")
            assert reader.result() == b"c"


@KINDS
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_socket_that_is_collected_while_it_is_open(kind: str) -> None:
    """Its number, and its address, are soon those of another."""
    numbers = set()
    for _ in range(20):
        one, other = tcp_pair() if kind == "tcp" else unix_pair()
        numbers.add(one.fileno())
        watched(one, other)
        watched(other, one)
        del one, other
        gc.collect()
    assert len(numbers) < 20


@KINDS
def test_a_number_that_becomes_another_file(kind: str) -> None:
    with pair(kind) as (one, other), pair(kind) as (third, fourth):
        number = one.fileno()
        os.dup2(third.fileno(), number)
        watched(one, fourth)
        detached = socket.socket(fileno=one.detach())
        watched(detached, fourth)
        detached.close()
        os.dup2(third.fileno(), number)
        with socket.socket(fileno=number) as again:
            watched(again, fourth)
            watched(third, fourth)
        assert other.recv(1) == b""


@KINDS
def test_a_socket_that_begins_anew(kind: str) -> None:
    with pair(kind) as (one, other):
        number = one.detach()
        one.__init__(fileno=number)  # type: ignore[misc]
        watched(one, other)


@KINDS
def test_several_receive_from_one_socket(kind: str) -> None:
    with pair(kind) as (one, other):
        got: list[bytes] = []

        def receive() -> None:
            while data := one.recv(3):
                got.append(data)

        thread = threading.Thread(target=receive)
        thread.start()
        receivers = [go(receive) for _ in range(5)]
        for _ in range(200):
            other.sendall(b"abcdefg")
        other.shutdown(socket.SHUT_WR)
        for each in receivers:
            each.result()
        thread.join()
        assert sum(map(len, got)) == 1400


def test_datagrams() -> None:
    one, other = socket.socketpair(type=socket.SOCK_DGRAM)
    with one, other:
        watched(one, other)
        for _ in range(3):
            for message in (b"a", b"bb", b"ccc"):
                other.send(message)
            assert [one.recv(100) for _ in range(3)] == [b"a", b"bb", b"ccc"]
            watched(one, other)


def test_errors_of_a_watched_socket_are_pythons() -> None:
    with pair("tcp") as (one, other):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        other.close()
        with pytest.raises(ConnectionResetError):
            while one.recv(100):
                pass
        with pytest.raises(OSError) as raised:
            one.getpeername()
        assert raised.value.errno == errno.ENOTCONN
