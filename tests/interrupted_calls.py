"""Prints what calls give that wait in a thread while signals come whose handler is in Python.

Plain Python prints the same: test_patch.py compares. Each call goes on until the handler, which the
main thread runs as it waits for the thread, has run often enough and lets the call end. One of
these times the handler raises, in the main thread.

With the argument "c" it prints how often C code of the thread's was interrupted, instead.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERVAL = 0.002  # seconds
RAISES = 5
ENDS = 20
SIZE = 65536
FULL = SIZE * 64  # bytes, more than a pipe or a socket takes

Call = Callable[[], object]
Case = Iterator[tuple[Call, Call]]
"""What waits, and what lets it end."""


class Raised(Exception):
    """By the handler."""


class PollFd(ctypes.Structure):
    """struct pollfd"""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def read() -> Case:
    with pipe() as (r, w):
        yield lambda: os.read(r, 1), lambda: os.write(w, b"x")


def read_file() -> Case:
    with pipe() as (r, w), open(r, "rb", 0, closefd=False) as file:
        yield lambda: file.read(1), lambda: os.write(w, b"x")


def read_buffered() -> Case:
    with pipe() as (r, w), open(r, "rb", closefd=False) as file:
        yield lambda: file.read(2), lambda: os.write(w, b"xy")


def readv() -> Case:
    with pipe() as (r, w):
        yield lambda: os.readv(r, [bytearray(1)]), lambda: os.write(w, b"x")


def fill(fd: int) -> None:
    os.set_blocking(fd, False)
    try:
        while True:
            os.write(fd, bytes(SIZE))
    except BlockingIOError:
        os.set_blocking(fd, True)


def write() -> Case:
    with pipe() as (r, w):
        fill(w)
        yield lambda: os.write(w, bytes(4096)), lambda: os.read(r, FULL)


def write_file() -> Case:
    with pipe() as (r, w), open(w, "wb", 0, closefd=False) as file:
        fill(w)
        yield lambda: file.write(bytes(4096)), lambda: os.read(r, FULL)


def open_fifo() -> Case:
    with tempfile.TemporaryDirectory() as folder:
        name = os.path.join(folder, "fifo")
        os.mkfifo(name)
        ends: list[int] = []

        def wait() -> str:
            ends.append(os.open(name, os.O_RDONLY))
            return "open"

        yield wait, lambda: ends.append(os.open(name, os.O_RDWR))
        for end in ends:
            os.close(end)


def select_() -> Case:
    with pipe() as (r, w):
        yield lambda: len(select.select([r], [], [])[0]), lambda: os.write(w, b"x")


def poll() -> Case:
    with pipe() as (r, w):
        poller = select.poll()
        poller.register(r, select.POLLIN)
        yield lambda: len(poller.poll()), lambda: os.write(w, b"x")


def epoll() -> Case:
    with pipe() as (r, w), select.epoll() as poller:
        poller.register(r, select.EPOLLIN)
        yield lambda: len(poller.poll()), lambda: os.write(w, b"x")


def recv() -> Case:
    a, b = socket.socketpair()
    with a, b:
        yield lambda: a.recv(1), lambda: b.send(b"x")


def recv_timed() -> Case:
    a, b = socket.socketpair()
    with a, b:
        a.settimeout(100)
        yield lambda: a.recv(1), lambda: b.send(b"x")


def accept() -> Case:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:

        def wait() -> str:
            with server.accept()[0] as s:
                return str(s.family)

        yield wait, lambda: client.connect(server.getsockname())


def lock() -> Case:
    waited = threading.Lock()
    waited.acquire()
    yield lambda: waited.acquire(timeout=100), waited.release


def flock() -> Case:
    with tempfile.NamedTemporaryFile() as file, open(file.name) as again:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield (
            lambda: fcntl.flock(again, fcntl.LOCK_EX),
            lambda: fcntl.flock(file, fcntl.LOCK_UN),
        )


def child(wait: Callable[[int], object]) -> Case:
    process = subprocess.Popen("cat", stdin=subprocess.PIPE)
    assert process.stdin is not None
    yield lambda: wait(process.pid), process.stdin.close
    process.returncode = 0


def waitpid() -> Case:
    return child(lambda pid: os.waitpid(pid, 0)[1])


def wait4() -> Case:
    return child(lambda pid: os.wait4(pid, 0)[1])


def waitid() -> Case:
    def wait(pid: int) -> int | None:
        ended = os.waitid(os.P_PID, pid, os.WEXITED)
        return ended and ended.si_status

    return child(wait)


def popen() -> Case:
    process = subprocess.Popen("cat", stdin=subprocess.PIPE)
    assert process.stdin is not None
    yield process.wait, process.stdin.close


def sigwait() -> Case:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    yield (
        lambda: signal.sigwait([signal.SIGUSR2]),
        lambda: os.kill(os.getpid(), signal.SIGUSR2),
    )


def sigtimedwait() -> Case:
    yield (
        lambda: (found := signal.sigtimedwait([signal.SIGUSR2], 100)) and found.si_signo,
        lambda: os.kill(os.getpid(), signal.SIGUSR2),
    )


def c_poll() -> Case:
    libc = ctypes.CDLL(None, use_errno=True)
    with pipe() as (r, w):

        def wait() -> str:
            files = PollFd(r, select.POLLIN, 0)
            interrupted = 0
            while libc.poll(ctypes.byref(files), 1, -1) < 0:
                assert ctypes.get_errno() == errno.EINTR
                interrupted += 1
            return "interrupted" if interrupted else "never"

        yield wait, lambda: os.write(w, b"x")


def tried(case: Callable[[], Case]) -> None:
    """Prints what the call gives, and what the main thread had of the handler."""
    waits = contextmanager(case)
    ran = 0
    found: list[object] = []
    # join() that is left by an error has the thread ended, up to 3.12.
    ended = threading.Event()
    with waits() as (wait, let_end):

        def handle(*_: object) -> None:
            nonlocal ran
            ran += 1
            if ran == RAISES:
                raise Raised
            if ran == ENDS:
                signal.setitimer(signal.ITIMER_REAL, 0)
                let_end()

        def call() -> None:
            signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)
            try:
                found.append(wait())
            finally:
                ended.set()

        signal.signal(signal.SIGALRM, handle)
        thread = threading.Thread(target=call)
        raised = 0
        thread.start()
        while not ended.is_set():
            try:
                ended.wait()
            except Raised:
                raised += 1
        thread.join()
    print(case.__name__, found, raised, ran >= ENDS, flush=True)


if sys.argv[1:] == ["c"]:
    tried(c_poll)
else:
    for each in (
        *(read, read_file, read_buffered, readv, write, write_file, open_fifo),
        *(select_, poll, epoll, recv, recv_timed, accept, lock, flock),
        *(waitpid, wait4, waitid, popen, sigwait, sigtimedwait),
    ):
        tried(each)
