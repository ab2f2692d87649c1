"""The calls of golibx that wait, for test_blocking_matrix: how to wait, and how to wake."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from golibx import (
    Barrier,
    BrokenBarrierError,
    Chan,
    ChannelClosed,
    Cond,
    DeadlineExceeded,
    Event,
    Goroutine,
    Mutex,
    Once,
    RWMutex,
    Semaphore,
    Ticker,
    Timer,
    WaitGroup,
    after,
    as_completed,
    context,
    go,
    gosched,
    native,
    net,
    scope,
    select,
    singleflight,
    sleep,
)

NEVER = 3600.0  # seconds


def parked(g: Goroutine[Any]) -> None:
    for _ in range(100_000):
        if g.waiting:
            return
        gosched()
    raise AssertionError(f"{g!r} does not wait")


class Call:
    """A call that waits, on an object of its own, by `waiters` goroutines at most at a time."""

    timeout = True  # wait() takes one
    wakes = "one"  # or "all": how many that wait go on after a give()
    gives = True  # there is a give()
    # The waiter that give() wakes has succeeded when give() returns; otherwise, some time after.
    instant = True
    # One that was cancelled may find that it has succeeded before it ran: its next wait raises.
    looks_again = False
    closes = False  # there is a close()
    cancel_breaks = False  # a waiter that leaves ends the wait of the others
    goes_on = False  # what one that is cancelled has begun still takes what is given
    covers: tuple[str, ...] = ()

    def __init__(self, waiters: int) -> None:
        """Makes the object."""

    def wait(self, timeout: float | None = None) -> object:
        """The call. False: its time was up."""
        raise NotImplementedError

    def give(self) -> None:
        """Has one that waits succeed, or all; does not wait itself."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def check(self, succeeded: int) -> None:
        """Called when all waiters have ended, of which so many have succeeded."""

    def end(self) -> None:
        """Lets go of what the test needed."""


class Send(Call):
    covers = ("SendChan.send", "Chan.send")
    closes = True

    def __init__(self, waiters: int) -> None:
        self.chan: Chan[int] = Chan()
        self.received = 0
        self.close = self.chan.close

    def wait(self, timeout: float | None = None) -> object:
        return self.chan.send(1, timeout)

    def give(self) -> None:
        self.received += self.chan.try_recv()[1]

    def check(self, succeeded: int) -> None:
        assert self.received == succeeded


class BufferedSend(Send):
    def __init__(self, waiters: int) -> None:
        self.chan = Chan(1)
        self.received = -1
        self.close = self.chan.close
        self.chan.send(0)

    def check(self, succeeded: int) -> None:
        assert self.received + len(self.chan) == succeeded


class Recv(Call):
    covers = ("RecvChan.recv", "Chan.recv")
    closes = True
    capacity = 0

    def __init__(self, waiters: int) -> None:
        self.chan: Chan[int] = Chan(self.capacity)
        self.sent = 0
        self.close = self.chan.close

    def wait(self, timeout: float | None = None) -> object:
        assert self.chan.recv(timeout) == 1
        return True

    def give(self) -> None:
        self.sent += self.chan.try_send(1)

    def check(self, succeeded: int) -> None:
        assert self.sent - len(self.chan) == succeeded


class BufferedRecv(Recv):
    capacity = 2


class RecvOk(Recv):
    covers = ("RecvChan.recv_ok", "Chan.recv_ok")

    def wait(self, timeout: float | None = None) -> object:
        value, ok = self.chan.recv_ok(timeout)
        if not ok:
            raise ChannelClosed
        return value == 1


class Next(Recv):
    timeout = False

    def wait(self, timeout: float | None = None) -> object:
        for value in self.chan:
            return value == 1
        raise ChannelClosed


class SelectRecv(Recv):
    covers = ("select",)

    def wait(self, timeout: float | None = None) -> object:
        index, value, ok = select(None, Chan().on_recv(), self.chan.on_recv(), timeout=timeout)
        if not ok:
            raise ChannelClosed
        return (index, value) == (2, 1)


class SelectSend(Send):
    def wait(self, timeout: float | None = None) -> object:
        return select(self.chan.on_send(1), self.chan.on_send(1), timeout=timeout)[2]


class LockMutex(Call):
    covers = ("Mutex.lock",)

    def __init__(self, waiters: int) -> None:
        self.lock: Any = Mutex()
        assert self.lock.lock()
        self.unlocks = 0

    def wait(self, timeout: float | None = None) -> object:
        return self.lock.lock(timeout)

    def give(self) -> None:
        self.unlocks += 1
        self.lock.unlock()

    def check(self, succeeded: int) -> None:
        assert self.lock.try_lock() is (self.unlocks > succeeded)


class LockRW(LockMutex):
    covers = ("RWMutex.lock",)

    def __init__(self, waiters: int) -> None:
        self.lock = RWMutex()
        assert self.lock.lock()
        self.unlocks = 0


class LockRWAfterReader(LockRW):
    def __init__(self, waiters: int) -> None:
        super().__init__(waiters)
        self.lock.unlock()
        assert self.lock.rlock()

    def give(self) -> None:
        self.unlocks += 1
        if self.lock.readers:
            self.lock.runlock()
        else:
            self.lock.unlock()


class RLockRW(Call):
    covers = ("RWMutex.rlock", "RLocker.lock")
    wakes = "all"

    def __init__(self, waiters: int) -> None:
        self.lock = RWMutex()
        assert self.lock.lock()
        self.turn = 0

    def wait(self, timeout: float | None = None) -> object:
        self.turn += 1
        return self.lock.rlock(timeout) if self.turn % 2 else self.lock.reader().lock(timeout)

    def give(self) -> None:
        if self.lock.locked:
            self.lock.unlock()

    def check(self, succeeded: int) -> None:
        assert self.lock.readers == succeeded


class WaitCond(Call):
    covers = ("Cond.wait", "Cond.wait_for")
    # One that is woken needs the lock as well.
    instant = False

    def __init__(self, waiters: int) -> None:
        self.cond = Cond()
        self.turn = 0

    def wait(self, timeout: float | None = None) -> object:
        self.turn += 1
        with self.cond:
            if self.turn % 2:
                return self.cond.wait(timeout)
            woken = iter((False, True, True))
            return self.cond.wait_for(lambda: next(woken), timeout)

    def give(self) -> None:
        self.cond.signal()

    def check(self, succeeded: int) -> None:
        assert self.cond.locker.try_lock()


class WaitCondAll(WaitCond):
    wakes = "all"

    def give(self) -> None:
        self.cond.broadcast()


class Acquire(Call):
    covers = ("Semaphore.acquire",)

    def __init__(self, waiters: int) -> None:
        self.semaphore = Semaphore(2)
        assert self.semaphore.acquire(2)
        self.released = 0

    def wait(self, timeout: float | None = None) -> object:
        return self.semaphore.acquire(2, timeout)

    def give(self) -> None:
        self.semaphore.release(2)
        self.released += 1

    def check(self, succeeded: int) -> None:
        assert self.semaphore.available == 2 * (self.released - succeeded)


class WaitGroup_(Call):
    covers = ("WaitGroup.wait",)
    wakes = "all"

    def __init__(self, waiters: int) -> None:
        self.group = WaitGroup()
        self.group.add()
        self.wait = self.group.wait  # type: ignore[method-assign]

    def give(self) -> None:
        if self.group.count:
            self.group.done()


class WaitEvent(Call):
    looks_again = True
    covers = ("Event.wait",)
    wakes = "all"

    def __init__(self, waiters: int) -> None:
        self.event = Event()
        self.wait = self.event.wait  # type: ignore[method-assign]
        self.give = self.event.set  # type: ignore[method-assign]


class WaitBarrier(Call):
    looks_again = True
    covers = ("Barrier.wait",)
    wakes = "all"
    closes = True
    cancel_breaks = True

    def __init__(self, waiters: int) -> None:
        self.barrier = Barrier(waiters + 1)
        self.close = self.barrier.abort  # type: ignore[method-assign]

    def wait(self, timeout: float | None = None) -> object:
        try:
            return self.barrier.wait(timeout) >= 0
        except BrokenBarrierError as broken:
            if timeout is None:
                raise ChannelClosed from broken
            return False

    def give(self) -> None:
        if self.barrier.broken:
            self.barrier.reset()
        if self.barrier.n_waiting == self.barrier.parties - 1:
            self.barrier.wait()


class Gated(Call):
    """What waits for a goroutine that waits for a gate."""

    wakes = "all"
    instant = False
    timeout = False

    def __init__(self, waiters: int) -> None:
        self.gate: Chan[None] = Chan()

    def pass_gate(self) -> int:
        with context.background():
            self.gate.recv_ok()
        return 1

    def give(self) -> None:
        if not self.gate.closed:
            self.gate.close()

    def end(self) -> None:
        self.give()


class DoOnce(Gated):
    looks_again = True

    def __init__(self, waiters: int) -> None:
        super().__init__(waiters)
        self.once = Once()
        self.first = go(self.once.do, self.pass_gate)
        parked(self.first)

    def wait(self, timeout: float | None = None) -> object:
        return self.once.do(pytest.fail, "the second caller called the function")


class SingleFlight(Gated):
    looks_again = True

    def __init__(self, waiters: int) -> None:
        super().__init__(waiters)
        self.group = singleflight.Group[str, int]()
        self.first = go(self.group.do, "key", self.pass_gate)
        parked(self.first)

    def wait(self, timeout: float | None = None) -> object:
        return self.group.do("key", lambda: 2) == (1, True)


class Join(Gated):
    covers = ("Goroutine.join",)
    timeout = True

    def __init__(self, waiters: int) -> None:
        super().__init__(waiters)
        self.target = go(self.pass_gate)

    def wait(self, timeout: float | None = None) -> object:
        return self.target.join(timeout)


class Result(Join):
    covers = ("Goroutine.result",)

    def wait(self, timeout: float | None = None) -> object:
        return self.target.result(timeout) == 1


class SelectOnDone(Join):
    def wait(self, timeout: float | None = None) -> object:
        return select(self.target.on_done(), timeout=timeout)[1] is self.target


class AsCompleted(Join):
    timeout = False

    def wait(self, timeout: float | None = None) -> object:
        return list(as_completed([self.target])) == [self.target]


class ScopeExit(Gated):
    """The children would go on under a shield: a scope waits for them whatever happens."""

    def open_gate(self) -> None:
        self.gate.recv_ok()

    def wait(self, timeout: float | None = None) -> object:
        with scope() as s:
            s.go(self.open_gate)
        return True


class ScopeGo(ScopeExit):
    def wait(self, timeout: float | None = None) -> object:
        with scope(limit=1) as s:
            s.go(self.open_gate)
            s.go(self.open_gate)
        return True


class ScopeMap(ScopeExit):
    def wait(self, timeout: float | None = None) -> object:
        with scope() as s:
            return list(s.map(lambda _: self.open_gate(), "ab")) == [None, None]
        return True


class ContextDone(Call):
    wakes = "all"

    def __init__(self, waiters: int) -> None:
        self.ctx, self.give = context.with_cancel(  # type: ignore[method-assign]
            context.background()
        )

    def wait(self, timeout: float | None = None) -> object:
        return self.ctx.done().recv_ok(timeout) == (None, False)


class RecvTimer(Call):
    covers = ("TimeChan.recv", "TimeChan.recv_ok")
    instant = False

    def __init__(self, waiters: int) -> None:
        self.timer = Timer(NEVER)
        self.fired = 0
        self.turn = 0

    def wait(self, timeout: float | None = None) -> object:
        self.turn += 1
        if self.turn % 2:
            return self.timer.c.recv(timeout) > 0
        return self.timer.c.recv_ok(timeout)[1]

    def give(self) -> None:
        self.fired += 1
        self.timer.reset(0)

    def check(self, succeeded: int) -> None:
        assert self.fired - self.timer.c.try_recv()[1] == succeeded

    def end(self) -> None:
        self.timer.stop()


class SelectTimer(RecvTimer):
    def wait(self, timeout: float | None = None) -> object:
        return select(self.timer.on_fire(), timeout=timeout)[2]


class RecvTicker(Call):
    instant = False
    wakes = "all"  # as it goes on

    def __init__(self, waiters: int) -> None:
        self.ticker = Ticker(NEVER)
        self.end = self.ticker.stop  # type: ignore[method-assign]

    def wait(self, timeout: float | None = None) -> object:
        return self.ticker.c.recv(timeout) > 0

    def give(self) -> None:
        self.ticker.reset(0.0001)


class RecvAfter(Call):
    gives = False

    def wait(self, timeout: float | None = None) -> object:
        return after(NEVER).recv(timeout) > 0


class Sleep(Call):
    covers = ("sleep",)
    gives = False
    timeout = False

    def wait(self, timeout: float | None = None) -> object:
        return sleep(NEVER)


class Network(Call):
    looks_again = True  # an edge may tell of what was before, and wake it to try in vain
    instant = False
    closes = True

    def __init__(self, waiters: int) -> None:
        self.plain = socket.create_server(("127.0.0.1", 0))
        self.conn = net.dial(self.plain.getsockname())
        self.peer, _ = self.plain.accept()
        self.peer.setblocking(False)
        self.close = self.conn.close  # type: ignore[method-assign]
        self.given = 0

    def end(self) -> None:
        self.conn.close()
        self.peer.close()
        self.plain.close()


class NetRecv(Network):
    covers = ("Socket.recv", "Socket.recv_into")

    def wait(self, timeout: float | None = None) -> object:
        self.conn.settimeout(timeout)
        return self.conn.recv(1) == b"x"

    def give(self) -> None:
        self.given += self.peer.send(b"x")

    def check(self, succeeded: int) -> None:
        if not self.conn.closed:
            left = self.conn.recv(100) if self.given > succeeded else b""
            assert self.given - len(left) == succeeded


class NetRecvInto(NetRecv):
    def wait(self, timeout: float | None = None) -> object:
        self.conn.settimeout(timeout)
        return self.conn.recv_into(bytearray(1)) == 1


class NetSend(Network):
    covers = ("Socket.send",)
    wakes = "all"

    def __init__(self, waiters: int) -> None:
        # Of a local pair, since TCP goes on moving data to the other end after it refused more.
        ours, self.peer = socket.socketpair()
        for each in (ours, self.peer):
            each.setblocking(False)
        self.plain = self.peer
        self.conn = net.Conn(ours.detach())
        self.close = self.conn.close
        self.sent = 0
        self.received = 0
        self.conn.settimeout(0)
        for size in (65536, 1):
            with pytest.raises(BlockingIOError):
                while True:
                    self.sent += self.conn.send(b"x" * size)

    def wait(self, timeout: float | None = None) -> object:
        self.conn.settimeout(timeout)
        return self.conn.send(b"x") == 1

    def give(self) -> None:
        while self.received < self.sent:
            try:
                self.received += len(self.peer.recv(65536))
            except BlockingIOError:
                gosched()

    def check(self, succeeded: int) -> None:
        self.conn.close()
        self.peer.setblocking(True)
        while data := self.peer.recv(65536):
            self.received += len(data)
        assert self.received - self.sent == succeeded


class NetSendall(NetSend):
    covers = ("Socket.sendall",)

    def wait(self, timeout: float | None = None) -> object:
        self.conn.settimeout(timeout)
        return self.conn.sendall(b"x")


class SelectReadable(Network):
    wakes = "all"

    def wait(self, timeout: float | None = None) -> object:
        index, conn, ok = select(self.conn.on_readable(), timeout=timeout)
        if not ok:
            raise ChannelClosed
        return conn is self.conn

    def give(self) -> None:
        self.peer.send(b"x")


class NetAccept(Call):
    looks_again = True
    covers = ("Socket.accept",)
    instant = False
    closes = True

    def __init__(self, waiters: int) -> None:
        self.listener = net.listen("127.0.0.1:0")
        self.close = self.listener.close  # type: ignore[method-assign]
        self.clients: list[socket.socket] = []

    def wait(self, timeout: float | None = None) -> object:
        self.listener.settimeout(timeout)
        conn, _ = self.listener.accept()
        conn.close()
        return True

    def give(self) -> None:
        self.clients.append(socket.create_connection(self.listener.address))

    def check(self, succeeded: int) -> None:
        if not self.listener.closed:
            for _ in range(len(self.clients) - succeeded):
                self.listener.accept()[0].close()

    def end(self) -> None:
        self.listener.close()
        for client in self.clients:
            client.close()


class NetDial(Call):
    covers = ("Socket.wait_write",)
    gives = False

    def __init__(self, waiters: int) -> None:
        # A full backlog: the kernel drops what comes beyond it.
        self.listener = net.listen("127.0.0.1:0", backlog=0)
        self.filling = []
        with pytest.raises(DeadlineExceeded):
            for _ in range(10):
                self.filling.append(net.dial(self.listener.address, timeout=0.02))

    def wait(self, timeout: float | None = None) -> object:
        net.dial(self.listener.address, timeout).close()
        return True

    def end(self) -> None:
        self.listener.close()
        for conn in self.filling:
            conn.close()


class NativeSend(Send):
    looks_again = True
    covers = ("NativeChan.send",)

    def __init__(self, waiters: int) -> None:
        self.chan: Any = native.Chan(ctypes.c_int64)
        self.received = 0
        self.close = self.chan.close


class NativeRecv(Recv):
    looks_again = True
    covers = ("NativeChan.recv",)

    def __init__(self, waiters: int) -> None:
        self.chan: Any = native.Chan(ctypes.c_int64, self.capacity)
        self.sent = 0
        self.close = self.chan.close


class NativeRecvOk(NativeRecv, RecvOk):
    covers = ("NativeChan.recv_ok",)


class NativeSelect(NativeRecv, SelectRecv):
    capacity = 1


class NativeSendToC(NativeSend):
    """The receiver is on the native lane."""

    instant = False

    def give(self) -> None:
        value = ctypes.c_int64()
        lib = ctypes.CDLL(native.library())
        deadline = 0  # only what is there
        status = native.call(lib.golibx_chan_recv_until, self.chan, ctypes.byref(value), deadline)
        if status == 0:
            self.received += value.value


class NativeRecvFromC(NativeRecv):
    """The sender is on the native lane."""

    instant = False
    capacity = 2

    def give(self) -> None:
        value = ctypes.c_int64(1)
        lib = ctypes.CDLL(native.library())
        self.sent += native.call(lib.golibx_chan_send, self.chan, ctypes.byref(value)) == 0


class NativeSelectFromC(NativeRecvFromC, SelectRecv):
    """The sender is on the native lane."""


class NativeCall(Call):
    """A C function that waits on the native lane for what Python sends."""

    looks_again = True
    timeout = False
    instant = False
    goes_on = True

    def __init__(self, waiters: int) -> None:
        self.chan = native.Chan(ctypes.c_int64, 10)
        self.lib = ctypes.CDLL(native.library())

    def wait(self, timeout: float | None = None) -> object:
        value = ctypes.c_int64()
        status = native.call(self.lib.golibx_chan_recv, self.chan, ctypes.byref(value))
        return (status, value.value) == (0, 1)

    def give(self) -> None:
        self.chan.send(1)

    def end(self) -> None:
        self.chan.close()


class NativeJoin(Call):
    looks_again = True
    covers = ("NativeGoroutine.join",)
    wakes = "all"
    instant = False

    def __init__(self, waiters: int) -> None:
        self.lib = ctypes.CDLL(native.library())
        self.mutex = ctypes.create_string_buffer(32)  # a golibx_mutex
        native.call(self.lib.golibx_mutex_lock, self.mutex, restype=None)
        self.target = native.go(self.lib.golibx_mutex_lock, self.mutex)
        self.given = False

    def wait(self, timeout: float | None = None) -> object:
        return self.target.join(timeout)

    def give(self) -> None:
        if not self.given:
            self.given = True
            native.call(self.lib.golibx_mutex_unlock, self.mutex)

    def end(self) -> None:
        self.give()
        assert self.target.join()


def every_call(base: type[Call] = Call) -> Iterator[type[Call]]:
    for each in base.__subclasses__():
        if each.wait is not Call.wait or each in (WaitGroup_, WaitEvent):
            yield each
        yield from every_call(each)


CALLS = list(dict.fromkeys(every_call()))
