"""Prints what calls say that fail at once, or have nothing to do, where a right one would wait.

Plain Python prints the same: test_patch.py compares. A call that waits is given up.
"""

from __future__ import annotations

import _queue
import io
import os
import pty
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

LIMIT = 5.0  # seconds

Address = tuple[str, int]


class Waited(Exception):
    """It should not have."""


def give_up(*args: object) -> None:
    raise Waited


def said(
    call: Callable[..., object],
    args: tuple[Any, ...],
    named: dict[str, Any],
    limit: float = LIMIT,
) -> str:
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        return repr(call(*args, **named))
    except BaseException as e:
        return f"{type(e).__name__}: {e}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def each(what: str, call: Callable[..., object], *arguments: object) -> None:
    """Calls it with each of these: a tuple, a dict of what is named, or the only one."""
    for i, given in enumerate(arguments):
        named = given if isinstance(given, dict) else {}
        args = given if isinstance(given, tuple) else () if named else (given,)
        print(what, i, said(call, args, named), flush=True)


def files() -> None:
    r, w = os.pipe()
    terminal = pty.openpty()[1]
    for what, fd, mode in ("reader", r, "r"), ("writer", w, "w"), ("one way", terminal, "w"):
        file = io.FileIO(fd, mode, closefd=False)
        each(f"{what}.read", file.read, 0, "x", 1.5, (1, 2), {"size": 1})
        each(
            f"{what}.readinto", file.readinto, (), b"", bytearray(), "x", b"x", 1, (bytearray(1), 1)
        )
        if mode == "w":
            each(f"{what}.read", file.read, (), 1, None, -1)
            each(f"{what}.readinto", file.readinto, bytearray(1))
        if what == "writer":
            each(f"{what}.readall", file.readall, ())
    each(
        "read",
        os.read,
        (r, 0),
        (r, -1),
        (r, "x"),
        (r, 1.5),
        (r,),
        (r, 1, 1),
        {"fd": r, "length": 1},
    )
    each("read", os.read, (w, 1), (w, 0), (-1, 1), (1_000_000, 1), ("x", 1), (None, 1), (1.5, 1))
    closed = io.FileIO(os.dup(r))
    closed.close()
    each("closed.read", closed.read, (), 1, 0)
    each(
        "waitpid",
        os.waitpid,
        (),
        1,
        ("x", 0),
        (os.getpid(), 0),
        (-1, 0),
        (0, 0),
        (1, "x"),
        (1, 2, 3),
    )


def sockets(kind: str, a: socket.socket) -> None:
    short = bytearray(2)
    each(f"{kind}.recv", a.recv, -1, "x", (1, "x"), (), (1, 2, 3), 1.5, {"bufsize": 1})
    each(f"{kind}.recv_into", a.recv_into, b"x", "x", (short, 5), (short, -1), (), (short, 1, "x"))
    each(f"{kind}.recvfrom", a.recvfrom, -1, "x", (), (1, "x"))
    if not a.gettimeout():
        each(f"{kind}.recvfrom", a.recvfrom, (1, socket.MSG_DONTWAIT))
        each(f"{kind}.accept", a.accept, ())
    each(
        f"{kind}.recvfrom_into", a.recvfrom_into, b"x", (short, 5), (short, -1), (), (short, 1, "x")
    )
    each(f"{kind}.recvmsg", a.recvmsg, -1, "x", (), (1, -1), (1, "x"), (1, 0, "x"))
    each(f"{kind}.recvmsg_into", a.recvmsg_into, "x", [b"x"], (), [1], ([short], -1), iter([b""]))
    each(f"{kind}.send", a.send, "x", b"", (), 1, (b"x", "x"))
    each(f"{kind}.sendall", a.sendall, "x", b"", (), 1, (b"x", "x"))
    each(f"{kind}.sendmsg", a.sendmsg, "x", [], (), [1], [b""], ([b"x"], [1]), iter([1]))
    each(f"{kind}.sendto", a.sendto, b"x", ("x", b"y"), (), (b"x", 1, 2, 3))
    each(f"{kind}.connect", a.connect, (), 1, (("a",),))
    each(f"{kind}.connect_ex", a.connect_ex, (), 1)


def shut(kind: str, a: socket.socket) -> None:
    a.shutdown(socket.SHUT_RDWR)
    each(f"shut {kind}.recv", a.recv, 1)
    each(f"shut {kind}.recvmsg", a.recvmsg, 1)
    each(f"shut {kind}.send", a.send, b"x")
    each(f"shut {kind}.sendall", a.sendall, b"x")
    a.close()
    each(f"closed {kind}.recv", a.recv, 1)
    each(f"closed {kind}.recvfrom", a.recvfrom, 1)
    each(f"closed {kind}.send", a.send, b"x")
    each(f"closed {kind}.accept", a.accept, ())
    each(f"closed {kind}.connect", a.connect, ("127.0.0.1", 1))


def all_sockets() -> None:
    unix = socket.socketpair()
    sockets("unix", unix[0])
    shut("unix", unix[0])
    server = socket.create_server(("127.0.0.1", 0))
    tcp = socket.create_connection(server.getsockname())
    accepted = server.accept()[0]
    sockets("tcp", tcp)
    tcp.settimeout(100)
    sockets("timed tcp", tcp)
    shut("tcp", tcp)
    accepted.close()
    datagrams = socket.socket(type=socket.SOCK_DGRAM)
    for what, new in ("new", socket.socket()), ("server", server), ("datagrams", datagrams):
        each(f"{what}.send", new.send, b"x")
        if what != "datagrams":
            each(f"{what}.recv", new.recv, 1)
            each(f"{what}.recvmsg", new.recvmsg, 1)
        if what != "server":
            each(f"{what}.accept", new.accept, ())
        each(f"{what}.settimeout", new.settimeout, -1, "x")
    each("datagrams.sendto", datagrams.sendto, (b"x", ("127.0.0.1", 70_000)), (b"x", 1), (b"x",))


def connected(server: Address, _: Address) -> socket.socket:
    return socket.create_connection(server)


def shut_down(server: Address, _: Address) -> socket.socket:
    s = socket.create_connection(server)
    s.shutdown(socket.SHUT_RDWR)
    return s


def refused(_: Address, nobody: Address) -> socket.socket:
    s = socket.socket()
    s.connect_ex(nobody)
    return s


def refused_timed(_: Address, nobody: Address) -> socket.socket:
    s = socket.socket()
    s.settimeout(LIMIT)
    s.connect_ex(nobody)
    return s


def begun(server: Address, _: Address) -> socket.socket:
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(server)
    return s


def in_vain(_: Address, nobody: Address) -> socket.socket:
    return begun(nobody, nobody)


def connect_again() -> None:
    """What the next calls say, by what was done before and by the time-out."""
    server = socket.create_server(("127.0.0.1", 0))
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    addresses: tuple[Address, Address] = server.getsockname(), bound.getsockname()
    for limit in None, LIMIT, 0:
        for name in "connect", "connect_ex":
            for before in connected, shut_down, refused, refused_timed, begun, in_vain:
                for where, to in zip(("server", "nobody"), addresses, strict=True):
                    s = before(*addresses)
                    s.settimeout(limit)
                    for i in range(3):
                        select.select([], [s], [], LIMIT)  # time-out 0 leaves it in the making
                        said_again = said(getattr(s, name), (to,), {})
                        print(before.__name__, limit, name, where, i, said_again, flush=True)
                    s.close()


def connect_while_connecting() -> None:
    """One without a time-out waits for what was begun without one; others say that it was."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    waiting = [begun(full.getsockname(), full.getsockname()) for _ in range(4)]
    for limit in None, LIMIT, 0:
        for name in "connect", "connect_ex":
            waiting[-1].settimeout(limit)
            found = said(getattr(waiting[-1], name), (full.getsockname(),), {}, 0.1)
            print("connecting", limit, name, found.replace("Waited", "waits"), flush=True)


def selectors() -> None:
    r, _ = os.pipe()
    nothing: list[int] = []
    calls = [((), (), (), -1), ((), (), (), "x"), ((), ()), ([-1], (), ()), ([1 << 20], (), ())]
    each("select", select.select, ("x", nothing, nothing), (1, 2, 3), *calls)
    p = select.poll()
    p.register(r, select.POLLIN)
    each("poll", p.poll, "x", (1, 2), 1e30, 0, False, 1)
    e = select.epoll()
    e.register(r, select.EPOLLIN)
    each("epoll", e.poll, "x", (0, 0), (0, -5), (1, 2, 3), 0, {"timeout": "x"}, {"maxevents": 0})
    e.close()
    each("closed epoll", e.poll, (), 0)
    infinite = float("inf")
    each("sleep", time.sleep, -1, "x", float("nan"), infinite, 1e30, (), (1, 2), False, None, -1e-9)


def locks() -> None:
    lock = threading.Lock()
    lock.acquire()
    nan = float("nan")
    wrong = (
        (False, 1),
        (True, "x"),
        {"timeout": -5},
        {"timeout": 1e30},
        {"timeout": nan},
        (1, 2, 3),
    )
    at_once = (False, (True, 0), (True, 0.0), (0, -1), {"blocking": 0})
    odd = (("x", 0), {"blocking": 1.5, "timeout": 0}, {"other": 1})
    each("acquire", lock.acquire, *wrong, *at_once, *odd)
    each("release", threading.Lock().release, (), 1)
    rlock = threading.RLock()
    each("rlock.release", rlock.release, ())
    each("rlock.acquire", rlock.acquire, *wrong)
    q: _queue.SimpleQueue[int] = _queue.SimpleQueue()
    wrong = ({"timeout": -1}, (True, "x"), (1, 2, 3), {"timeout": 1e30}, {"timeout": nan}, {"x": 1})
    each("get", q.get, *wrong, False, (False, -1), (True, 0), {"block": 0}, (True, -0.0))
    each("get_nowait", q.get_nowait, (), 1)
    each("put", q.put, (), (1, 2, 3, 4))


signal.signal(signal.SIGALRM, give_up)
files()
all_sockets()
connect_again()
connect_while_connecting()
selectors()
locks()
