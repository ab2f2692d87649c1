"""The standard library's blocking functions in goroutines: golibx.patch_all()."""

from __future__ import annotations

import _thread
import json
import os
import platform
import queue
import select
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from time import sleep  # a reference from before
from typing import Any

import pytest

import golibx
from conftest import c_library
from golibx import Goroutine, _core, context, go, run
from golibx.testing import wait_until_parked

MODULES = ("time", "threading", "queue", "socket", "select", "ssl", "io", "os")
FEW = 20
"""Threads: a call that takes long on a busy machine may have one to itself for a moment."""

LOCK = threading.Lock()  # from before, too


@pytest.fixture(autouse=True)
def patched() -> Iterator[None]:
    assert golibx.patch_all() == {}
    yield
    golibx.unpatch()


def threads_used(main: Callable[[], object]) -> int:
    """How many threads the run of main() has at its end."""

    def body() -> int:
        main()
        return int(golibx.stats()["threads"])

    return run(body)


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


# ---- what parks ----


def test_a_thousand_sleeps_take_no_threads() -> None:
    def main() -> None:
        for each in [go(sleep, 0.05) for _ in range(1000)]:
            each.join()

    assert threads_used(main) < FEW


def test_a_lock_from_before_parks() -> None:
    order: list[int] = []

    def main() -> None:
        def one(i: int) -> None:
            with LOCK:
                order.append(i)

        with LOCK:
            waiting = [go(one, i) for i in range(100)]
            for each in waiting:
                wait_until_parked(each)
        for each in waiting:
            each.join()

    assert threads_used(main) < FEW
    assert sorted(order) == list(range(100))


def test_sockets_park() -> None:
    def main() -> None:
        def echo(end: socket.socket, timeout: float | None) -> None:
            end.settimeout(timeout)
            for _ in range(5):
                end.sendall(end.recv(100))

        def ask(end: socket.socket) -> None:
            buffer = bytearray(10)
            for _ in range(5):
                assert end.send(b"hello") == 5
                assert end.recv_into(buffer) == 5
                assert buffer[:5] == b"hello"

        ends = [pair() for _ in range(100)]
        started = [go(ask, one) for one, _ in ends]
        started += [go(echo, other, (None, 5.0)[i % 2]) for i, (_, other) in enumerate(ends)]
        for each in started:
            each.result()
        for end in (end for both in ends for end in both):
            end.close()

    assert threads_used(main) < FEW


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_servers_and_clients_park(timeout: float | None) -> None:
    def main() -> None:
        def answer(connection: socket.socket) -> None:
            with connection:
                while data := connection.recv(100):
                    connection.sendall(data)

        def serve(listener: socket.socket) -> None:
            for _ in range(50):
                connection, _address = listener.accept()
                go(answer, connection)

        def ask(address: tuple[str, int]) -> None:
            with closing(socket.create_connection(address, timeout)) as client:
                assert client.gettimeout() == timeout
                client.sendall(b"x" * 50)
                assert client.recv(100) == b"x" * 50

        with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
            listener.settimeout(timeout)
            server = go(serve, listener)
            wait_until_parked(server)
            for each in [go(ask, listener.getsockname()) for _ in range(50)]:
                each.result()
            server.result()

    assert threads_used(main) < FEW


def test_datagrams_and_messages_park() -> None:
    def main() -> None:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        buffer = bytearray(10)
        calls = (
            lambda: other.recvfrom(10),
            lambda: other.recvfrom_into(buffer),
            lambda: other.recvmsg(10),
            lambda: other.recvmsg_into([buffer]),
        )
        for call in calls:
            receiver = go(call)
            wait_until_parked(receiver)
            assert one.sendto(b"hello", other.getsockname()) == 5
            got = receiver.result()
            assert got[0] in (b"hello", 5)
        one.close()
        other.close()

    assert threads_used(main) < FEW


def test_a_large_sendall_parks_until_all_is_sent() -> None:
    data = bytes(range(256)) * 40_000

    def main() -> None:
        one, other = pair()
        sender = go(one.sendall, data)
        wait_until_parked(sender)
        got = bytearray()
        while len(got) < len(data):
            got += other.recv(1 << 20)
        sender.result()
        assert got == data
        one.close()
        other.close()

    assert threads_used(main) < FEW


def test_select_poll_and_epoll_park() -> None:
    def main() -> None:
        one, other = pair()
        poller = select.poll()
        poller.register(one, select.POLLIN)
        watcher = select.epoll()
        watcher.register(one, select.EPOLLIN)
        looks: list[tuple[Callable[[], object], object]] = [
            (lambda: select.select([one], [], []), ([one], [], [])),
            (lambda: select.select([one], [], [], 20), ([one], [], [])),
            (lambda: poller.poll(), [(one.fileno(), select.POLLIN)]),
            (lambda: poller.poll(20_000), [(one.fileno(), select.POLLIN)]),
            (lambda: watcher.poll(), [(one.fileno(), select.EPOLLIN)]),
            (lambda: watcher.poll(20), [(one.fileno(), select.EPOLLIN)]),
        ]
        for look, expected in looks:
            waiting = go(look)
            wait_until_parked(waiting)
            other.send(b"x")
            assert waiting.result() == expected
            one.recv(1)
        for look in (
            lambda: select.select([one], [], [], 0.01),
            lambda: poller.poll(10),
            lambda: watcher.poll(0.01),
        ):
            assert look() in ([], ([], [], []))
        watcher.close()
        one.close()
        other.close()

    assert threads_used(main) < FEW


def test_a_poll_object_has_one_caller_at_a_time() -> None:
    """As in plain Python, and until the first one has ended, in whichever way."""

    def main() -> None:
        one, other = pair()
        poller = select.poll()
        poller.register(one, select.POLLIN)
        ends: list[tuple[int | None, Callable[[Goroutine[Any]], object]]] = [
            (None, lambda _: other.send(b"x")),
            (None, Goroutine.cancel),
            (200, lambda _: None),
        ]
        for limit, end in ends:
            waiting = go(poller.poll, limit)
            wait_until_parked(waiting)
            for again in (None, 0):
                with pytest.raises(RuntimeError, match=r"concurrent poll\(\) invocation"):
                    poller.poll(again)
            end(waiting)
            waiting.join()
            if poller.poll(0):
                one.recv(1)
        one.close()
        other.close()

    run(main)


def test_many_descriptors_in_one_select() -> None:
    def main() -> None:
        ends = [pair() for _ in range(40)]
        for _, other in ends:
            waiting = go(select.select, [one for one, _ in ends], [], [])
            wait_until_parked(waiting)
            other.send(b"x")
            (ready,) = waiting.result()[0]
            assert ready.recv(1) == b"x"
        for end in (end for both in ends for end in both):
            end.close()

    assert threads_used(main) < FEW


def test_buffered_files_of_sockets_take_no_threads() -> None:
    """As http.client reads: the wait is in the middle of the interpreter's BufferedReader."""

    def main() -> None:
        def read(end: socket.socket) -> list[bytes]:
            with end.makefile("rb") as file:
                return [file.readline(), *file, file.read()]

        ends = [pair() for _ in range(100)]
        readers = [go(read, one) for one, _ in ends]
        for part in (b"one\ntw", b"o\nthr", b"ee"):
            for each in readers:
                wait_until_parked(each, state="IO wait (read)")
            for _, other in ends:
                other.sendall(part)
        for _, other in ends:
            other.close()
        for each in readers:
            assert each.result() == [b"one\n", b"two\n", b"three", b""]
        for one, _ in ends:
            one.close()

    assert threads_used(main) < FEW


def test_a_buffered_file_that_many_read() -> None:
    """Its lock knows threads: goroutines that have been on one thread have it one after another."""

    def main() -> None:
        one, other = pair()
        with one.makefile("rb", buffering=16) as file:
            readers = [go(file.read, 3) for _ in range(20)]
            sleep(0)
            for i in range(20):
                other.sendall(b"%02d" % i)
                sleep(0.001)
                other.sendall(b"\n")
            lines = sorted(each.result() for each in readers)
        assert lines == [b"%02d\n" % i for i in range(20)]
        one.close()
        other.close()

    run(main)


def test_pipes_park() -> None:
    def main() -> None:
        pipes = [os.pipe() for _ in range(50)]
        readers = [go(os.read, r, 10) for r, _ in pipes]
        for each in readers:
            wait_until_parked(each, state="IO wait (read)")
        for _, w in pipes:
            os.write(w, b"x")
        assert [each.result() for each in readers] == [b"x"] * 50
        files = [open(r, "rb") for r, _ in pipes]  # noqa: SIM115
        readers = [go(file.read) for file in files]
        for each in readers:
            wait_until_parked(each, state="IO wait (read)")
        for _, w in pipes:
            os.write(w, b"to the end")
            os.close(w)
        assert [each.result() for each in readers] == [b"to the end"] * 50
        for file in files:
            file.close()

    assert threads_used(main) < FEW


def test_who_waits_for_children_parks() -> None:
    def main() -> None:
        children = [subprocess.Popen("cat", stdin=subprocess.PIPE) for _ in range(20)]
        waiting = [go(child.wait) for child in children]
        for each in waiting:
            wait_until_parked(each)
        for child in children:
            assert child.stdin is not None
            child.stdin.close()
        assert {each.result() for each in waiting} == {0}
        asked = [go(subprocess.run, ["echo", "hello"], capture_output=True) for _ in range(20)]
        assert {each.result().stdout for each in asked} == {b"hello\n"}

    run(main)


DELETES_NO_WATCH = """
import ctypes
import struct
import subprocess

import golibx

# What deletes a watch of epoll's ends with SIGSYS: load the call's number, and its second argument.
instructions = [(0x20, 0, 0, 0), (0x15, 0, 3, 233), (0x20, 0, 0, 24), (0x15, 0, 1, 2)]
instructions += [(0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in instructions))
program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(code))
prctl = ctypes.CDLL(None).prctl
prctl.argtypes = (ctypes.c_int, *[ctypes.c_void_p] * 4)
assert prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
if prctl(22, 2, program, 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
    raise SystemExit("no filters")


def main():
    for _ in range(3):
        child = subprocess.Popen("cat", stdin=subprocess.PIPE)
        golibx.go(child.stdin.close)
        assert child.wait() == 0


golibx.patch_all()
golibx.run(main)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86-64 are the calls' numbers")
def test_the_wait_for_a_child_ends_with_the_close_of_its_descriptor() -> None:
    command = [sys.executable, "-c", DELETES_NO_WATCH]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    if done.stderr == "no filters\n":
        pytest.skip("the system lets no program filter its calls")
    assert (done.returncode, done.stderr) == (0, "")


def test_reads_that_do_not_wait_stay_so() -> None:
    def main() -> None:
        r, w = os.pipe()
        os.set_blocking(r, False)
        with pytest.raises(BlockingIOError):
            os.read(r, 1)
        with open(r, "rb", buffering=0) as file:
            assert file.read(1) is None
        os.close(w)
        with pytest.raises(ChildProcessError):
            os.waitpid(os.getppid(), 0)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.read(r, 1)

    run(main)


TLS = Path(__file__).parent / "tls"


def tls_pair(timeout: float | None) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """A client and a server that have shaken hands, each in a goroutine of its own."""
    of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    of_server.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    of_client = ssl.create_default_context(cafile=str(TLS / "cert.pem"))
    one, other = pair()
    one.settimeout(timeout)
    other.settimeout(timeout)
    server = go(of_server.wrap_socket, other, server_side=True)
    client = go(of_client.wrap_socket, one, server_hostname="localhost")
    return client.result(), server.result()


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_tls_parks(timeout: float | None) -> None:
    sizes = (1, 1000, 60_000)

    def main() -> None:
        def echo(end: ssl.SSLSocket) -> None:
            left = sum(sizes)
            while left:
                data = end.recv(100_000)
                end.sendall(data)
                left -= len(data)

        def ask(end: ssl.SSLSocket) -> None:
            for size in sizes:
                end.sendall(b"x" * size)
                got = 0
                while got < size:
                    got += len(end.recv(100_000))
            assert end.gettimeout() == timeout
            assert os.get_blocking(end.fileno()) == (timeout is None)

        ends = [tls_pair(timeout) for _ in range(30)]
        servers = [go(echo, server) for _, server in ends]
        for each in servers:
            wait_until_parked(each, state="IO wait (read)")
        for each in [go(ask, client) for client, _ in ends]:
            each.result()
        for each in servers:
            each.result()
        for end in (end for both in ends for end in both):
            end.close()

    assert threads_used(main) < FEW


def test_tls_writers_have_turns_beside_a_reader() -> None:
    lines = [bytes([65 + i]) * 5000 + b"\n" for i in range(8)]

    def main() -> None:
        client, server = tls_pair(None)

        def write(line: bytes) -> None:
            for _ in range(20):
                client.sendall(line)

        def read() -> list[bytes]:
            with server.makefile("rb") as file:
                return [file.readline() for _ in range(20 * len(lines))]

        reader = go(read)
        other_way = go(client.recv, 10)  # waits all the time
        wait_until_parked(other_way)
        for each in [go(write, line) for line in lines]:
            each.result()
        assert sorted(reader.result()) == sorted(lines * 20)
        server.sendall(b"end")
        assert other_way.result() == b"end"
        client.close()
        server.close()

    assert threads_used(main) < FEW


def test_tls_time_outs_are_python_s() -> None:
    def main() -> None:
        client, server = tls_pair(0.02)
        with pytest.raises(TimeoutError, match="The read operation timed out"):
            client.recv(1)
        with pytest.raises(TimeoutError, match="The write operation timed out"):
            client.sendall(bytes(1 << 24))
        client.close()
        server.close()
        one, other = pair()
        one.settimeout(0.02)
        with pytest.raises(TimeoutError, match="handshake operation timed out"):
            ssl.create_default_context().wrap_socket(one, server_hostname="localhost")
        one.close()
        other.close()

    run(main)


def test_simple_queues_park() -> None:
    def main() -> None:
        q: queue.SimpleQueue[int] = queue.SimpleQueue()
        getters = [go(q.get) for _ in range(50)]
        for each in getters:
            wait_until_parked(each)
        for i in range(50):
            (q.put, q.put_nowait)[i % 2](i)
        assert sorted(each.result() for each in getters) == list(range(50))
        with pytest.raises(queue.Empty):
            q.get(timeout=0.01)
        with pytest.raises(queue.Empty):
            q.get(block=False)
        with pytest.raises(ValueError, match="non-negative"):
            q.get(timeout=-1)

    assert threads_used(main) < FEW


def test_what_is_built_on_locks_parks() -> None:
    def main() -> None:
        event = threading.Event()
        barrier = threading.Barrier(20)
        full: queue.Queue[int] = queue.Queue(1)
        waiting = [go(event.wait) for _ in range(20)] + [go(barrier.wait) for _ in range(19)]
        producers = [go(full.put, i) for i in range(20)]
        for each in waiting:
            wait_until_parked(each)
        event.set()
        barrier.wait()
        assert sorted(full.get() for _ in range(20)) == list(range(20))
        for each in waiting + producers:
            each.result()

    assert threads_used(main) < FEW


# ---- threads and goroutines ----


def test_threads_and_goroutines_share_locks() -> None:
    counts = [0, 0]
    lock = threading.Lock()

    def add(times: int) -> None:
        for _ in range(times):
            with lock:
                before = counts[0]
                sleep(0)
                counts[0] = before + 1

    def main() -> None:
        threads = [threading.Thread(target=add, args=(200,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        started = [go(add, 200) for _ in range(10)]
        for each in started:
            each.result()
        for thread in threads:
            thread.join()

    run(main)
    assert counts[0] == 13 * 200


def test_a_thread_that_begins_is_no_deadlock() -> None:
    """It may be about to release what all goroutines wait for, before it is counted."""

    def main() -> int:
        for _ in range(3000):
            lock = _thread.allocate_lock()
            lock.acquire()
            _thread.start_new_thread(lock.release, ())
            lock.acquire()
        return 3000

    assert run(main) == 3000


def test_a_lock_that_nobody_releases_is_a_deadlock() -> None:
    def main() -> None:
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    with pytest.raises(golibx.Deadlock, match="lock"):
        run(main)


def test_a_thread_state_of_c_code_hides_no_deadlock() -> None:
    program = """
import ctypes, threading, golibx
api = ctypes.pythonapi
api.PyInterpreterState_Get.restype = ctypes.c_void_p
api.PyThreadState_New.restype = ctypes.c_void_p
api.PyThreadState_New(ctypes.c_void_p(api.PyInterpreterState_Get()))  # runs nothing, ever

def main():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

golibx.patch_all()
try:
    golibx.run(main)
except golibx.Deadlock:
    print("found")
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "found\n"


LATE = """
#include <pthread.h>
#include <unistd.h>
void PyEval_AcquireThread(void *), PyThreadState_Clear(void *), PyThreadState_DeleteCurrent(void);
void *PyObject_CallMethod(void *, const char *, const char *);
static void *late[2];
static void *body(void *unused) {
    usleep(300000);
    PyEval_AcquireThread(late[0]);
    PyObject_CallMethod(late[1], "release", 0);
    PyThreadState_Clear(late[0]);
    PyThreadState_DeleteCurrent();
    return unused;
}
int start(void *state, void *lock) {
    static pthread_t thread;
    late[0] = state;
    late[1] = lock;
    return pthread_create(&thread, 0, body, 0);
}
"""


def test_a_thread_that_begins_late_is_no_deadlock(tmp_path: Path) -> None:
    """On a busy machine a thread that has been started may have to wait for long."""
    path = c_library(tmp_path, "late", LATE)
    program = f"""
import _thread, ctypes, golibx
api, late = ctypes.pythonapi, ctypes.PyDLL({str(path)!r})
api.PyInterpreterState_Get.restype = api.PyThreadState_New.restype = ctypes.c_void_p

def main():
    lock = _thread.allocate_lock()
    lock.acquire()
    state = api.PyThreadState_New(ctypes.c_void_p(api.PyInterpreterState_Get()))
    assert late.start(ctypes.c_void_p(state), ctypes.py_object(lock)) == 0
    lock.acquire()
    return "released"

golibx.patch_all()
print(golibx.run(main))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "released\n"


def test_a_lock_that_nobody_can_release_is_a_leak() -> None:
    def wait() -> None:
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    def main() -> None:
        lost = go(wait)
        held = threading.Lock()
        held.acquire()
        waits = go(held.acquire)
        wait_until_parked(lost, waits, state="lock")
        assert golibx.leaks() == [lost]
        held.release()
        waits.result()
        lost.cancel()
        lost.join()

    run(main)


def test_a_queue_that_nobody_else_has_is_a_leak() -> None:
    def wait() -> object:
        mine: queue.SimpleQueue[int] = queue.SimpleQueue()
        return mine.get()

    class Own(queue.SimpleQueue[int]):
        pass

    def main() -> None:
        kept: queue.SimpleQueue[int] = queue.SimpleQueue()
        losers = [go(wait), go(lambda: queue.SimpleQueue[int]().get())]
        others = [go(kept.get), go(lambda: kept.get(timeout=1000)), go(Own().get)]
        wait_until_parked(*losers, *others)
        assert set(golibx.leaks()) == set(losers)
        kept.put(1)
        assert others[0].result() == 1
        for g in [*losers, *others]:
            g.cancel()
            g.join()

    run(main)


def test_threads_keep_the_originals() -> None:
    before = _core.replaced()
    one, other = pair()

    def outside() -> None:
        sleep(0.001)
        with LOCK:
            one.send(b"x")
        other.recv(1)
        select.select([], [one], [])

    thread = threading.Thread(target=outside)
    thread.start()
    thread.join()
    one.close()
    other.close()
    now = _core.replaced()
    for name in ("time.sleep", "_socket.socket.recv", "_socket.socket.send", "select.select"):
        assert now[name] == before[name]


def test_everything_at_once() -> None:
    soak = Path(__file__).with_name("patch_soak.py")
    done = subprocess.run(
        [sys.executable, soak, "2"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("ok")


# ---- time-outs, errors and ends ----


@pytest.mark.parametrize(
    "call",
    [
        lambda end: end.recv(1),
        lambda end: end.recv_into(bytearray(1)),
        lambda end: end.recvfrom(1),
        lambda end: end.recvmsg(1),
        lambda end: end.sendall(bytes(1 << 24)),
    ],
)
def test_time_outs_are_python_s(call: Callable[[socket.socket], object]) -> None:
    def main() -> None:
        one, other = pair()
        one.settimeout(0.01)
        with pytest.raises(TimeoutError) as raised:
            call(one)
        assert raised.value.args == ("timed out",)
        one.close()
        other.close()

    run(main)


def test_accept_and_connect_time_out() -> None:
    def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(0.01)
            with pytest.raises(TimeoutError, match="timed out"):
                listener.accept()
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            for connects in (True, False):
                with socket.socket() as client:
                    client.settimeout(0.01)
                    if connects:
                        with pytest.raises(TimeoutError, match="timed out"):
                            client.connect(full.getsockname())
                    else:
                        assert client.connect_ex(full.getsockname()) == 11
            for filler in fillers:
                filler.close()

    run(main)


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_a_refused_connection_says_so(timeout: float | None) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = unused.getsockname()

        def main() -> None:
            for connects in (True, False):
                with socket.socket() as client:
                    client.settimeout(timeout)
                    if connects:
                        with pytest.raises(ConnectionRefusedError):
                            client.connect(address)
                    else:
                        assert client.connect_ex(address) == 111
                    assert client.gettimeout() == timeout
                    assert client.getblocking()

        run(main)


def test_a_socket_without_waiting_stays_so() -> None:
    def main() -> None:
        one, other = pair()
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.recv(1)
        one.setblocking(True)
        with pytest.raises(BlockingIOError):
            one.recv(1, socket.MSG_DONTWAIT)
        one.close()
        other.close()

    run(main)


def test_a_close_ends_the_waits() -> None:
    def main() -> None:
        one, other = pair()
        waiting = go(one.recv, 1)
        wait_until_parked(waiting)
        one.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            waiting.result()
        other.close()

    run(main)


def test_a_number_that_is_another_file_s_by_now() -> None:
    """What C code has closed is found out: its number is watched for the new file."""
    import ctypes

    close = ctypes.CDLL(None).close

    def main() -> None:
        for _ in range(3):
            one, other = pair()
            assert select.select([one], [], [], 0.001) == ([], [], [])
            number = one.detach()
            assert close(number) == 0
            new, end = pair()
            assert new.fileno() == number
            waiting = go(new.recv, 1)
            wait_until_parked(waiting)
            end.send(b"x")
            assert waiting.result() == b"x"
            for each in (other, new, end):
                each.close()

    run(main)


def test_a_cancellation_ends_the_waits() -> None:
    def main() -> None:
        one, other = pair()
        LOCK.acquire()
        calls = [partial(sleep, 100), partial(one.recv, 1), LOCK.acquire]
        calls += [partial(select.select, [one], [], []), queue.SimpleQueue[int]().get]
        for call in calls:
            waiting = go(call)
            wait_until_parked(waiting)
            waiting.cancel()
            with pytest.raises(golibx.Cancelled):
                waiting.result()
        LOCK.release()
        one.close()
        other.close()

    run(main)


def test_a_deadline_ends_sleeps_and_sockets() -> None:
    def main() -> None:
        one, other = pair()
        for call in (partial(sleep, 100), partial(one.recv, 1)):
            ctx, cancel = context.with_timeout(context.background(), 0.01)
            with pytest.raises(golibx.DeadlineExceeded), ctx:
                call()
            cancel()
        one.close()
        other.close()

    run(main)


def on_a_socket(call: Callable[[socket.socket], object]) -> Callable[[], object]:
    def body() -> object:
        with socket.socket() as end:
            return call(end)

    return body


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: sleep(-1), ValueError),
        (lambda: sleep("1"), TypeError),  # type: ignore[arg-type]
        (lambda: sleep(float("nan")), ValueError),
        (lambda: sleep(1e300), OverflowError),
        (lambda: LOCK.acquire(timeout=-2), ValueError),
        (lambda: LOCK.acquire(False, 1), ValueError),
        (lambda: LOCK.acquire(1, 2, 3), TypeError),  # type: ignore[call-arg]
        (lambda: LOCK.release(), RuntimeError),
        (lambda: select.select([-1], [], [], 1), ValueError),
        (lambda: select.select(1, [], []), TypeError),  # type: ignore[call-overload]
        (lambda: select.select([], [], [], -1), ValueError),
        (lambda: select.poll().poll("1"), TypeError),  # type: ignore[arg-type]
        (lambda: select.poll().poll(1 << 70), OverflowError),
        (on_a_socket(lambda end: end.recv(-1)), ValueError),
        (on_a_socket(lambda end: end.recv_into(bytearray(1), 2)), ValueError),
        (on_a_socket(lambda end: end.recv_into(b"1")), TypeError),  # type: ignore[arg-type]
        (on_a_socket(lambda end: end.send("text")), TypeError),  # type: ignore[arg-type]
        (on_a_socket(lambda end: end.recv()), TypeError),  # type: ignore[call-arg]
        (on_a_socket(lambda end: end.connect("text")), TypeError),
        (on_a_socket(lambda end: end.recv(1)), OSError),
        (on_a_socket(lambda end: end.sendall(b"x")), OSError),
    ],
)
def test_errors_are_python_s(call: Callable[[], object], kind: type[Exception]) -> None:
    def message() -> str:
        with pytest.raises(kind) as raised:
            call()
        return str(raised.value)

    assert run(message) == message()


# ---- patching itself ----


def test_what_fails_at_once_waits_for_nothing() -> None:
    program = Path(__file__).with_name("failing_calls.py")
    found = [
        subprocess.run([sys.executable, *how, str(program)], capture_output=True, text=True)
        for how in ((), ("-m", "golibx", "run"))
    ]
    assert found[0].returncode == 0, found[0].stderr
    assert "Waited" not in found[0].stdout
    assert found[1].stdout.splitlines() == found[0].stdout.splitlines()
    assert (found[1].returncode, found[1].stderr) == (0, found[0].stderr)


def test_signals_disturb_no_call_of_a_thread() -> None:
    program = str(Path(__file__).with_name("interrupted_calls.py"))
    found = [
        subprocess.run([sys.executable, *how, program], capture_output=True, text=True, timeout=100)
        for how in ((), ("-m", "golibx", "run"))
    ]
    assert (found[0].returncode, found[0].stderr) == (0, "")
    assert found[1].stdout.splitlines() == found[0].stdout.splitlines()
    assert (found[1].returncode, found[1].stderr) == (0, "")


def test_c_code_of_a_thread_may_be_interrupted() -> None:
    """Other than in plain Python, as docs/patching.md says: it may be on the main thread."""
    program = str(Path(__file__).with_name("interrupted_calls.py"))
    command = [sys.executable, "-m", "golibx", "run", program, "c"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("c_poll ['interrupted'] 1 True\n", "")


def test_what_is_patched_is_told_and_taken_back() -> None:
    assert golibx.patched() == dict.fromkeys(MODULES, "patched")
    golibx.unpatch(["time"])
    assert golibx.patched()["time"] == "native"
    assert "time.sleep" not in _core.replaced()
    assert golibx.patch_all(["time", "socket"]) == {}
    assert golibx.patched() == dict.fromkeys(MODULES, "patched")
    golibx.unpatch()
    assert golibx.patched() == dict.fromkeys(MODULES, "native")
    names = {"time", "_socket", "select", "_queue", "_ssl"}
    assert not [name for name in _core.replaced() if name.split(".")[0] in names]
    assert not {"posix.read", "posix.waitpid", "_io.FileIO.read"} & _core.replaced().keys()
    assert "_thread.lock.acquire" not in _core.replaced()


@pytest.mark.parametrize("change", [golibx.patch_all, golibx.unpatch])
def test_an_unknown_module_is_named(change: Callable[[list[str]], object]) -> None:
    with pytest.raises(ValueError, match="nothing of a module 'tine'; it knows time, threading"):
        change(["time", "tine"])
    assert golibx.patched()["time"] == "patched"


def test_not_while_somebody_waits() -> None:
    def main() -> None:
        with LOCK:
            waiting = go(LOCK.acquire)
            wait_until_parked(waiting)
            with pytest.raises(RuntimeError, match="goroutines wait in what is patched"):
                golibx.unpatch()
        waiting.result()
        LOCK.release()

    run(main)
    assert golibx.patched()["time"] == "patched"


def printed_by(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "golibx", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", MODULES),
        ("false", ()),
        ("socket,time", ("time", "socket")),
    ],
)
def test_golibx_run_patches_before_the_program(value: str, expected: tuple[str, ...]) -> None:
    code = "import ssl, json, golibx; print(json.dumps(golibx.patched()))"
    states = json.loads(printed_by("run", "--set", f"patch.stdlib={value}", "-c", code))
    assert states == {name: "patched" if name in expected else "native" for name in MODULES}


def test_ssl_is_patched_when_it_is_imported() -> None:
    code = (
        "import sys, golibx; print('ssl' in sys.modules, golibx.patched()['ssl'])\n"
        "import ssl; print(golibx.patched()['ssl'])"
    )
    assert printed_by("run", "-c", code) == "False when imported\npatched\n"


def test_info_shows_what_is_patched() -> None:
    rows = dict(line.split(None, 1) for line in printed_by("info", "--patched").splitlines()[1:])
    assert tuple(rows) == MODULES
    assert all(text.startswith("patched ") for text in rows.values())
    assert "socket.recv_into" in rows["socket"]


def test_names_and_signatures_stay() -> None:
    assert sleep.__module__ == "time"
    assert sleep.__name__ == "sleep"
    assert type(sleep) is type(len)
    assert type(LOCK).acquire.__name__ == "acquire"
    assert type(LOCK).__module__ == "_thread"
    assert sys.modules["time"].sleep is sleep


# ---- drivers ----


def test_psycopg_waits_for_its_server_without_a_thread() -> None:
    waiting = pytest.importorskip("psycopg.waiting")

    def answer(conn: socket.socket) -> Iterator[object]:
        """As psycopg's own: tells what it waits for, and is told what there is."""
        while (yield waiting.Wait.R) != waiting.Ready.R:
            pass
        return conn.recv(10)

    def main() -> int:
        pairs = [socket.socketpair() for _ in range(50)]
        wait = partial(waiting.wait, interval=0.1)
        started = [go(wait, answer(ours), ours.fileno()) for ours, _ in pairs]
        for each in started:
            wait_until_parked(each)
        threads = golibx.stats()["threads"]
        for _, theirs in pairs:
            theirs.send(b"row")
        assert [each.result() for each in started] == [b"row"] * 50
        for pair in pairs:
            for conn in pair:
                conn.close()
        return threads

    assert run(main) < FEW
