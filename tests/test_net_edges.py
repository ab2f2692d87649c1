"""Sockets where something is empty, cut short, closed by others, or not what an event said."""

from __future__ import annotations

import array
import copy
import ctypes
import errno
import gc
import io
import os
import pickle
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import golibx
import net_types
from conftest import Script
from golibx import Cancelled, DeadlineExceeded, Goroutine, go, gosched, net, select, stats
from golibx.net import Conn
from golibx.testing import wait_until, wait_until_parked

pytestmark = pytest.mark.goroutine


@contextmanager
def pair() -> Iterator[tuple[Conn, Conn]]:
    with net.listen("127.0.0.1:0") as listener:
        accepted = go(listener.accept)
        client = net.dial(listener.address)
        server, _ = accepted.result()
    with client, server:
        yield client, server


def parked(g: Goroutine[object]) -> None:
    wait_until_parked(g, state="IO wait")


def is_closed(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EBADF


# ---- nothing to send or receive ----


def test_nothing_is_received_and_sent_at_once() -> None:
    with pair() as (client, _):
        client.settimeout(0.001)
        assert client.recv(0) == b""
        assert client.recv_into(bytearray(0)) == 0
        assert client.recv_into(array.array("i")) == 0
        assert client.send(b"") == 0
        assert client.sendall(b"") is None
        assert client.send(memoryview(b"abc")[:0]) == 0


def test_nothing_needs_no_room() -> None:
    with pair() as (client, _):
        client.settimeout(0)
        with pytest.raises(BlockingIOError):
            while True:
                client.send(b"x" * 65536)
        client.settimeout(None)
        assert client.send(b"") == 0
        client.sendall(b"")


@pytest.mark.parametrize(
    "operation",
    [
        lambda c: c.recv(0),
        lambda c: c.recv_into(bytearray(0)),
        lambda c: c.send(b""),
        lambda c: c.sendall(b""),
    ],
    ids=["recv", "recv_into", "send", "sendall"],
)
def test_a_closed_socket_is_noticed_though_nothing_is_asked(
    operation: Callable[[Conn], object],
) -> None:
    with pair() as (client, _):
        client.close()
        with pytest.raises(OSError) as info:
            operation(client)
        assert info.value.errno == errno.EBADF


def test_a_direction_that_is_shut_is_noticed_though_nothing_is_sent() -> None:
    with pair() as (client, _):
        client.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenPipeError):
            client.sendall(b"")


def test_sizes_and_buffers() -> None:
    with pair() as (client, server):
        for size in (-1, -(10**6)):
            with pytest.raises(ValueError, match="negative"):
                client.recv(size)
        with pytest.raises(OverflowError):
            client.recv(1 << 80)
        with pytest.raises(MemoryError):
            client.recv((1 << 63) - 64)
        for nbytes in (-1, 5):
            with pytest.raises(ValueError, match=r"the buffer.s 4 bytes"):
                client.recv_into(bytearray(4), nbytes)
        with pytest.raises(BufferError):
            client.recv_into(b"read-only")  # type: ignore[arg-type]
        with pytest.raises(BufferError):
            client.sendall(memoryview(b"abcdef")[::2])
        # Sizes are in bytes, also of what has larger items.
        numbers = array.array("i", [1, 2, 3])
        assert client.send(numbers) == 12
        got = array.array("i", [0, 0, 0])
        assert server.recv_into(memoryview(got), 8) == 8
        assert server.recv_into(memoryview(got)[2:]) == 4
        assert got == numbers


def test_a_buffer_that_somebody_waits_with_keeps_its_size() -> None:
    with pair() as (client, server):
        buffer = bytearray(4)
        view = memoryview(buffer)
        reader = go(client.recv_into, view)
        parked(reader)
        with pytest.raises(BufferError):
            buffer.extend(b"more")
        with pytest.raises(BufferError):
            view.release()
        server.sendall(b"abcd")
        assert reader.result() == 4
        assert buffer == b"abcd"
        view.release()
        buffer.extend(b"more")


def test_a_socket_is_neither_pickled_nor_copied() -> None:
    with pair() as (client, _):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                attempt(client)


def test_a_receive_that_waits_for_all_does() -> None:
    with pair() as (client, server):
        readers = []
        for size in (6, 300_000):
            readers.append(go(client.recv, size, socket.MSG_WAITALL))
            parked(readers[-1])
            server.sendall(b"abc")
            golibx.sleep(0.001)
            parked(readers[-1])
            server.sendall(b"x" * (size - 3))
            assert readers[-1].result() == b"abc" + b"x" * (size - 3)
        client.settimeout(0.005)
        server.sendall(b"abc")
        assert client.recv(6, socket.MSG_WAITALL) == b"abc"
        with pytest.raises(DeadlineExceeded):
            client.recv(6, socket.MSG_WAITALL)
        server.sendall(b"end")
        server.close()
        assert client.recv(6, socket.MSG_WAITALL) == b"end"
        assert client.recv(6, socket.MSG_WAITALL) == b""


# ---- files over a connection, with reads and writes that are cut short ----


def cut_short_by_timeout(conn: Conn, read: Callable[[], object]) -> None:
    conn.settimeout(0.005)
    with pytest.raises(TimeoutError):
        read()


def cut_short_by_cancel(conn: Conn, read: Callable[[], object]) -> None:
    reader = go(read)
    parked(reader)
    reader.cancel()
    with pytest.raises(Cancelled):
        reader.result()


@pytest.mark.parametrize("cut_short", [cut_short_by_timeout, cut_short_by_cancel])
@pytest.mark.parametrize("mode", ["rb", "r", "rwb", "rw"])
@pytest.mark.parametrize("buffering", [None, 1, 4, 8192])
def test_a_read_that_was_cut_short_returns_no_later_half(
    cut_short: Callable[[Conn, Callable[[], object]], None], mode: str, buffering: int | None
) -> None:
    with pair() as (client, server):
        file = client.makefile(mode, buffering)  # type: ignore[call-overload]
        server.sendall(b"first half, ")
        cut_short(client, file.readline)
        server.sendall(b"second half\n")
        for _ in range(2):
            with pytest.raises(OSError, match=r"cannot read from (timed out|interrupted) object"):
                file.readline()


def test_a_read_that_would_wait_loses_nothing() -> None:
    with pair() as (client, server):
        file = client.makefile("rb")
        client.settimeout(0)
        assert file.read(10) is None
        server.sendall(b"first half, ")
        client.settimeout(1)
        assert file.peek(1) != b""
        client.settimeout(0)
        assert file.readline() == b"first half, "
        server.sendall(b"second half\n")
        client.settimeout(1)
        assert file.readline() == b"second half\n"
        raw = client.makefile("rb", 0)
        client.settimeout(0)
        assert raw.read(1) is None


def test_a_flush_that_was_cut_short_goes_on_where_it_was() -> None:
    data = bytes(range(256)) * 40_000
    with pair() as (client, server):
        file = client.makefile("wb", len(data) + 1)
        assert isinstance(file, io.BufferedWriter)
        file.write(data)
        client.settimeout(0.005)
        with pytest.raises(TimeoutError):
            file.flush()
        client.settimeout(None)
        flushed = go(file.flush)
        got = bytearray()
        while len(got) < len(data):
            got += server.recv(1 << 20)
        flushed.result()
        assert got == data


def test_files_are_as_those_of_sockets() -> None:
    plain, _other = socket.socketpair()
    with pair() as (client, _), plain, _other:
        for mode in ("", "r", "w", "rw", "b", "rb", "br", "wb", "rwb", "wrb"):
            for buffering in (None, -1, 0, 1, 100):
                made: list[object] = []
                for make in (plain.makefile, client.makefile):
                    try:
                        file = make(mode, buffering)  # type: ignore[operator]
                    except ValueError as error:
                        made.append(str(error))
                        continue
                    kind = io.RawIOBase if isinstance(file, io.RawIOBase) else type(file)
                    text_mode = getattr(file, "mode", None)
                    made.append((kind, file.readable(), file.writable(), text_mode))
                    file.close()
                    assert file.closed
                assert made[0] == made[1], (mode, buffering)
        raw = client.makefile("rb", 0)
        with pytest.raises(io.UnsupportedOperation):
            raw.write(b"x")
        assert raw.fileno() == client.fileno()
        raw.close()
        with pytest.raises(ValueError):
            raw.readable()
        assert not client.closed


def test_files_have_the_methods_that_their_types_promise() -> None:
    with pair() as (client, server):
        server.close()
        net_types.files(client)
        files = [client.makefile(mode) for mode in ("r", "rb", "wb", "rwb")]
        assert [f.readable() for f in files] == [True, True, False, True]
        assert [f.writable() for f in files] == [False, False, True, True]


# ---- what an event said, and what is true ----


def test_a_socket_that_was_watched_before_it_was_connected_waits() -> None:
    with net.listen("127.0.0.1:0") as listener:
        plain = socket.socket()
        plain.setblocking(False)
        conn = Conn(plain.detach())
        golibx.sleep(0.001)  # the poller tells of a hang-up
        accepted = go(listener.accept)
        with socket.socket(fileno=os.dup(conn.fileno())) as same:
            same.connect_ex(listener.address)
        conn.wait_write(1)
        server, _ = accepted.result()
        with conn, server:
            conn.settimeout(0.005)
            switches = stats()["switches"]
            with pytest.raises(DeadlineExceeded):
                conn.recv(1)
            assert stats()["switches"] - switches < 50
            assert select(conn.on_readable(), default=True)[0] == -1
            server.sendall(b"now")
            conn.settimeout(None)
            assert select(conn.on_readable())[2]
            assert conn.recv(10) == b"now"
            server.close()
            assert conn.recv(10) == b""


def test_out_of_band_data_keeps_nobody_waiting() -> None:
    # A read stops before urgent data: to get less than was asked for is not to have got all.
    with pair() as (client, server):
        for _ in range(20):
            reader = go(client.recv, 1)
            parked(reader)
            server.sendall(b"ab")
            with socket.socket(fileno=os.dup(server.fileno())) as same:
                same.send(b"!", socket.MSG_OOB)
            server.sendall(b"cd")
            got = reader.result() + client.recv(100)
            assert client.recv(1, socket.MSG_OOB) == b"!"
            with pytest.raises(OSError):
                client.recv(1, socket.MSG_OOB)  # there is no more, and none is waited for
            while len(got) < 4:
                got += client.recv(100)
            assert got == b"abcd"


def test_a_look_without_waiting_changes_nothing() -> None:
    with pair() as (client, server):
        with pytest.raises(BlockingIOError):
            client.recv(1, socket.MSG_DONTWAIT)
        server.sendall(b"x")
        wait_until(lambda: select(client.on_readable(), default=True)[2])
        with pytest.raises(BlockingIOError):
            client.recv(1, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        assert client.recv(1, socket.MSG_PEEK) == b"x"
        assert client.recv(10) == b"x"


def test_a_half_closed_connection_goes_on_in_the_other_direction() -> None:
    with pair() as (client, server):
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        waiting = go(client.recv, 3)
        parked(waiting)
        server.sendall(b"yes")
        assert waiting.result() == b"yes"
        server.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert server.recv(1) == b""


def test_what_happened_in_the_background_is_raised_once() -> None:
    with pair() as (client, server):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        waiting = go(client.recv, 1)
        parked(waiting)
        server.close()  # with a reset
        with pytest.raises(ConnectionResetError):
            waiting.result()
        assert client.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            client.sendall(b"x")


# ---- files that are closed by number ----


@pytest.mark.parametrize("close", ["close", "closerange", "dup2"])
def test_who_waits_for_a_file_that_is_closed_by_number_is_told(close: str) -> None:
    with pair() as (client, server):
        number = client.fileno()
        waiting = go(client.recv, 1)
        writing = go(client.sendall, b"x" * (1 << 24))
        parked(waiting)
        parked(writing)
        if close == "close":
            os.close(number)
        elif close == "closerange":
            os.closerange(number, number + 1)
        else:
            os.dup2(server.fileno(), number)
        waiting.join()
        writing.join()
        assert is_closed(waiting.exception)
        assert is_closed(writing.exception)
        assert client.closed
        if close == "dup2":
            client.close()  # is not the file's any more
            os.close(number)
        with pytest.raises(OSError):
            os.fstat(number)


def test_who_gets_the_number_of_a_file_that_c_code_has_closed_gets_its_events() -> None:
    with pair() as (client, server), pair() as (other, far):
        number = client.fileno()
        kept = os.dup(number)  # so that the poller goes on to tell of the first file
        waiting = go(client.recv, 1)
        parked(waiting)
        assert ctypes.CDLL(None).close(number) == 0
        assert os.dup(other.fileno()) == number
        successor = Conn(number)
        waiting.join()
        assert is_closed(waiting.exception)
        reader = go(successor.recv, 100)
        parked(reader)
        server.sendall(b"for the first")
        gosched()
        parked(reader)
        client.close()
        assert os.fstat(number)
        far.sendall(b"for the other")
        assert reader.result() == b"for the other"
        successor.close()
        os.close(kept)


CLOSES_ALL = """\
import os, sys
from golibx import Chan, go, net, run, sleep

def closes():
    if sys.argv[1] == "closerange":
        os.closerange(3, 256)
    else:
        close = os.close
        for fd in range(3, 256):
            try:
                close(fd)
            except OSError:
                pass

def main():
    waiting = Chan()
    listener = net.listen("127.0.0.1:0")
    def accepts():
        waiting.send(1)
        try:
            listener.accept()
        except OSError as error:
            return error.errno
    g = go(accepts)
    waiting.recv()
    sleep(0.001)
    closes()
    print(g.result(), listener.closed)
    sleep(0.001)
    with net.listen("127.0.0.1:0") as second:  # gets the same number
        g = go(second.accept)
        with net.dial(second.address) as client, g.result()[0] as server:
            server.sendall(b"still at work")
            print(client.recv(100))
    os.system("true")

run(main)
print("over")
run(main)
print("over again")
"""


@pytest.mark.parametrize("how", ["closerange", "close"])
@pytest.mark.goroutine(False)
def test_a_program_that_closes_all_descriptors_goes_on(script: Script, how: str) -> None:
    out = script.passes(CLOSES_ALL, how)
    once = "9 True\nb'still at work'\n"
    assert out == f"{once}over\n{once}over again\n"


CLOSED_BY_C_CODE = """\
import ctypes, os, sys
from golibx import go, net, run, sleep

close = ctypes.CDLL(None).close

def main():
    sleep(0.001)
    for fd in range(3, 64):
        try:
            name = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if any(kind in name for kind in sys.argv[1:]):
            close(fd)
            if "reuse" in sys.argv:
                os.open("file", os.O_RDWR | os.O_CREAT)
    sleep(0.01)  # a dump's thread may see first that its descriptor is gone
    with net.listen("127.0.0.1:0") as listener:
        g = go(listener.accept)
        net.dial(listener.address)
        g.result()

run(main)
"""


@pytest.mark.parametrize("reuse", [(), ("reuse",)], ids=["", "reused"])
@pytest.mark.parametrize("kinds", [("eventpoll",), ("eventfd",), ("eventpoll", "eventfd")])
@pytest.mark.goroutine(False)
def test_the_pollers_own_descriptors_closed_by_c_code_end_the_program_with_a_line(
    script: Script, kinds: tuple[str, ...], reuse: tuple[str, ...]
) -> None:
    result = script(CLOSED_BY_C_CODE, *kinds, *reuse)
    assert result.returncode == -signal.SIGABRT
    assert result.stderr.startswith("golibx: fatal: the ")
    assert "closed by the program" in result.stderr
    if reuse:
        assert (script.cwd / "file").read_bytes() == b""  # nothing was written to a stranger


def test_a_socket_gets_the_number_of_the_pollers_own_wakeup(script: Script) -> None:
    """Watched in its place, it would never be told that it can be read again."""
    source = """
import ctypes, os, re
from golibx import net, run, sleep

def main():
    sleep(0.001)
    [poller] = (fd for fd in range(3, 64)
        if os.path.exists(f"/proc/self/fd/{fd}")
        and "eventpoll" in os.readlink(f"/proc/self/fd/{fd}"))
    with open(f"/proc/self/fdinfo/{poller}") as file:
        watched = re.findall("tfd: *([0-9]+)", file.read())
    [wakeup] = (int(fd) for fd in watched if "eventfd" in os.readlink(f"/proc/self/fd/{fd}"))
    kept = []
    while os.path.exists(f"/proc/self/fd/{wakeup}"):
        kept.append(os.open("/dev/null", os.O_RDONLY))
        if kept[-1] > wakeup: ctypes.CDLL(None).close(wakeup)
    net.listen("127.0.0.1:0").accept()

run(main)
"""
    result = script(source)
    assert result.returncode == -signal.SIGABRT, result
    assert result.stderr.startswith("golibx: fatal: the poller's descriptors have been closed")


# ---- many that wait ----


def test_a_packet_wakes_one_of_those_who_receive() -> None:
    """To wake all costs the square of their number."""
    many = 300
    with pair() as (client, server):
        waiting = [go(server.recv, 1) for _ in range(many)]
        for g in waiting:
            parked(g)
        before = stats()["netpoll_wakeups"]
        for _ in range(many):
            client.sendall(b"x")
            gosched()
        assert [g.result() for g in waiting] == [b"x"] * many
        assert stats()["netpoll_wakeups"] - before <= 3 * many


def test_what_one_receiver_leaves_over_is_the_next_ones() -> None:
    with pair() as (client, server):
        waiting = [go(server.recv, 2) for _ in range(20)]
        for g in waiting:
            parked(g)
        client.sendall(b"ab" * 19 + b"c")  # one edge
        assert b"".join(sorted(g.result() for g in waiting)) == b"ab" * 19 + b"c"


def test_the_end_of_the_stream_is_passed_on() -> None:
    with pair() as (client, server):
        waiting = [go(server.recv, 10) for _ in range(20)]
        looking = [go(select, server.on_readable()) for _ in range(5)]
        for g in (*waiting, *looking):
            parked(g) if g in waiting else gosched()
        client.close()
        assert [g.result() for g in waiting] == [b""] * 20
        for g in looking:
            g.join()


def test_who_looks_keeps_nothing_from_who_receives() -> None:
    with pair() as (client, server):
        looking = go(select, server.on_readable())
        gosched()
        receiving = go(server.recv, 10)
        parked(receiving)
        client.sendall(b"abc")
        assert receiving.result() == b"abc"
        client.sendall(b"d")  # the one that looked again and found nothing waits on
        looking.join()


def test_a_receiver_that_gives_up_takes_nothing_along() -> None:
    with pair() as (client, server):
        leaving = go(server.recv, 1)
        parked(leaving)
        staying = go(server.recv, 1)
        parked(staying)
        client.sendall(b"xy")
        leaving.cancel()
        assert staying.result() in (b"x", b"y")
        leaving.join()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_short_datagram_is_not_the_last_one(kind: socket.SocketKind) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    with theirs, Conn(ours.detach()) as conn:
        for text in (b"a", b"bb", b"ccc"):
            theirs.send(text)
        assert [conn.recv(100) for _ in range(3)] == [b"a", b"bb", b"ccc"]


def test_a_stream_that_stops_where_a_descriptor_came_along_goes_on() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs, Conn(ours.detach()) as conn:
        theirs.send(b"ab")
        socket.send_fds(theirs, [b"cd"], [0])
        received = b""
        while len(received) < 4:
            received += conn.recv(100)
        assert received == b"abcd"


# ---- limits ----


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """As many can be opened, and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_server_without_descriptors_waits_for_some() -> None:
    listener = net.listen("127.0.0.1:0")
    server = go(net.serve, lambda conn: conn.sendall(conn.recv(10)), listener)
    parked(server)
    plain = socket.socket()
    plain.setblocking(False)
    with plain:
        with descriptors_left(0):
            plain.connect_ex(listener.address)
            golibx.sleep(0.01)
            switches = stats()["switches"]
            golibx.sleep(0.05)
            assert stats()["switches"] - switches < 50
            assert not server.done()
            with pytest.raises(OSError) as info:
                net.dial(listener.address)
            assert info.value.errno == errno.EMFILE
        plain.send(b"served")
        with Conn(plain.detach()) as conn:
            conn.settimeout(5)
            assert conn.recv(10) == b"served"
    listener.close()
    server.result()


@pytest.mark.goroutine(False)
def test_a_run_without_descriptors_says_so() -> None:
    golibx.run(gosched)  # what is opened once is open
    for count in range(2):
        with descriptors_left(count), pytest.raises(OSError) as info:
            golibx.run(gosched)
        assert info.value.errno == errno.EMFILE
        assert "poller" in str(info.value)
    golibx.run(gosched)


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (lambda: os.open(__file__, os.O_RDONLY), errno.EPERM),
        (lambda: os.open("/", os.O_RDONLY), errno.EPERM),
        (lambda: 1 << 20, errno.EBADF),
    ],
    ids=["file", "folder", "closed"],
)
def test_what_cannot_be_watched_is_an_error_with_its_number(
    make: Callable[[], int], number: int
) -> None:
    fd = make()
    with pytest.raises(OSError, match=f"cannot watch descriptor {fd}: ") as info:
        Conn(fd)
    assert info.value.errno == number
    if number != errno.EBADF:
        os.close(fd)


def test_a_file_is_watched_once() -> None:
    with pair() as (client, server):
        with pytest.raises(FileExistsError, match="another socket of this run has it"):
            Conn(client.fileno())
        client.sendall(b"x")
        assert server.recv(1) == b"x"


WATCHES = "/proc/sys/fs/epoll/max_user_watches"


@pytest.mark.skipif(not os.access(WATCHES, os.W_OK), reason=f"{WATCHES} cannot be changed here")
def test_the_limit_of_watches_is_an_error_that_names_it() -> None:
    with open(WATCHES) as file:
        before = file.read()
    with pair() as (client, _):
        with open(WATCHES, "w") as file:
            file.write("1")
        try:
            with pytest.raises(OSError, match=r"fs\.epoll\.max_user_watches") as info:
                Conn(os.dup(client.fileno()))
            assert info.value.errno == errno.ENOSPC
        finally:
            with open(WATCHES, "w") as file:
                file.write(before)


# ---- waits while something else happens ----


@pytest.mark.parametrize("end", ["close", "shutdown", "detach"])
def test_the_end_of_a_socket_wakes_all_who_wait_for_it(end: str) -> None:
    with pair() as (client, server):
        readers = [go(client.recv, 1) for _ in range(3)]
        writers = [go(client.sendall, b"x" * (1 << 24)) for _ in range(2)]
        for g in (*readers, *writers):
            parked(g)
        if end == "close":
            client.close()
        elif end == "shutdown":
            client.shutdown(socket.SHUT_RDWR)
        else:
            os.close(client.detach())
        for g in (*readers, *writers):
            g.join()
        if end == "shutdown":
            assert [g.result() for g in readers] == [b""] * 3
            assert all(isinstance(g.exception, BrokenPipeError) for g in writers)
        else:
            assert all(is_closed(g.exception) for g in (*readers, *writers))
        server.close()


def test_a_listener_that_is_closed_wakes_all_who_accept() -> None:
    listener = net.listen("127.0.0.1:0")
    acceptors = [go(listener.accept) for _ in range(3)]
    for g in acceptors:
        parked(g)
    listener.close()
    for g in acceptors:
        g.join()
        assert is_closed(g.exception)


def test_the_rest_of_what_was_sent_when_the_time_was_up_is_not_sent_twice() -> None:
    data = bytes(range(256)) * 20_000
    with pair() as (client, server):
        client.settimeout(0.005)
        with pytest.raises(DeadlineExceeded):
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        got = b""
        while part := server.recv(1 << 20):
            got += part
        assert 0 < len(got) < len(data)
        assert data.startswith(got)


def test_a_socket_that_is_dropped_unseen_leaves_its_number_to_others() -> None:
    with pair() as (client, server):
        number = client.fileno()
        os.close(number)
        assert os.dup2(server.fileno(), number) == number
        again = socket.socket(fileno=number)
        del client
        gc.collect()
        assert again.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        again.close()
        server.close()
