"""Signals on channels, with the semantics of Go's os/signal.

    stop = Chan(1)
    signal.notify(stop, SIGTERM, SIGINT)
    sig = stop.recv()                          # instead of the end of the process

A signal that some channel is notified of has no other effect: neither that of the program's handler
nor the system's. stop(), reset() and the end of the run put back what was there. A value is sent
without waiting: a channel that is full misses it, which missed() counts, so give it room for one.
All of it works in any goroutine, and signals arrive whatever the main thread does.

ignore(), and a disposition that the program sets with the standard library's signal.signal() while
a channel is notified, take the place of notify() for that signal; the last one counts.

Linux and macOS only; elsewhere notify() raises NotImplementedError.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

from golibx import _core
from golibx.context import Context, with_cancel
from golibx.errors import ChannelClosed
from golibx.patch import signals as patch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from golibx._core import Chan, SendChan

__all__ = ["ignore", "missed", "notify", "notify_context", "reset", "stop"]

_NEVER = {"SIGKILL", "SIGSTOP"}
_OF_ONES_OWN_MAKING = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGABRT", "SIGSYS"}
_NOT_UNNAMED = {"SIGPIPE", "SIGXFSZ", "SIGURG", "SIGPROF", "SIGTSTP", "SIGTTIN", "SIGTTOU"}

# Held by code that changes what follows. A handler may do that in the midst of another change.
_lock = threading.RLock()
_channels: dict[int, list[SendChan[signal.Signals]]] = {}
_ignored: set[int] = set()
_missed = 0
_ends: tuple[socket.socket, _core.Socket] | None = None


@_core.whole
def notify(chan: SendChan[signal.Signals], /, *signals: int) -> None:
    """Has each of the signals sent to the channel, as a signal.Signals.

    Without signals: all but those that cannot be caught, those by which an instruction's fault is
    told, those that the interpreter ignores or golibx uses, and those of job control. Again for the
    same channel: these as well. Several channels may be notified of one signal; each gets it.

    Raises:
        ValueError: a signal cannot be caught, or is no signal.
        RuntimeError: no run is going on.
        NotImplementedError: on Windows.
    """
    if not isinstance(chan, _core.SendChan):
        shown = _core.open_to_signals(repr, chan)
        raise TypeError(f"notify() needs a channel to send to, not {shown}")
    _check_run()
    numbers = _core.open_to_signals(_numbers, signals)
    with _lock:
        _listen()
        for number in numbers:
            channels = _channels.setdefault(number, [])
            if not any(each is chan for each in channels):
                channels.append(chan)
            _ignored.discard(number)
            _core.take_signal(number, 1)
        _recount()


@_core.whole
def stop(chan: SendChan[signal.Signals], /) -> None:
    """Nothing is sent to the channel any more when this has returned."""
    with _lock:
        for number, channels in list(_channels.items()):
            channels[:] = [each for each in channels if each is not chan]
            if not channels:
                _release(number)
        _recount()


@_core.whole
def ignore(*signals: int) -> None:
    """Has the signals do nothing at all, until reset(), notify() or the end of the run.

    Processes that are started meanwhile ignore them too, unless they know better.
    """
    _check_run()
    numbers = _core.open_to_signals(_numbers, signals)
    with _lock:
        for number in numbers:
            _channels.pop(number, None)
            _ignored.add(number)
            _core.take_signal(number, 2)
        _recount()


@_core.whole
def reset(*signals: int) -> None:
    """Undoes notify() and ignore(), for these signals or, without any, for all."""
    _check_run()
    numbers = _core.open_to_signals(_numbers, signals) if signals else ()
    with _lock:
        for number in numbers or [*_channels, *_ignored]:
            _release(number)
        _recount()


@_core.whole
def notify_context(parent: Context, /, *signals: int) -> tuple[Context, Callable[[], None]]:
    """Returns (ctx, stop): a child of `parent` that ends when one of the signals comes.

    stop() ends it too, and puts back what the signals did before; after the first signal only it
    does that, so call it where the end begins: a second Ctrl-C is then the usual one.
    """
    chan: Chan[signal.Signals] = _core.Chan(1)
    notify(chan, *signals)
    ctx, cancel = with_cancel(parent)

    @_core.whole
    def end() -> None:
        stop(chan)
        cancel()

    def wait() -> None:
        index, _, _ = _core.select(chan.on_recv(), ctx.done().on_recv())
        if index == 0:
            cancel()

    _core.go_system(wait)
    return ctx, end


def missed() -> int:
    """How many signals channels had no room for, since the program began."""
    return _missed


def _numbers(signals: tuple[int, ...]) -> list[int]:
    if not signals:
        left_out = _NEVER | _OF_ONES_OWN_MAKING | _NOT_UNNAMED
        return [int(each) for each in signal.Signals if each.name not in left_out]
    numbers = []
    for each in signals:
        name = signal.Signals(each).name  # ValueError for what is none
        if name in _NEVER or name in _OF_ONES_OWN_MAKING:
            why = "cannot be caught" if name in _NEVER else "tells of a fault of the process's own"
            raise ValueError(f"{name} {why}: no channel can be notified of it")
        numbers.append(int(each))
    return numbers


def _check_run() -> None:
    if sys.platform == "win32":
        raise NotImplementedError("golibx.signal needs POSIX signals; use the standard signal")
    if not _core.active():
        raise RuntimeError("golibx.signal works while a run goes on: call it below golibx.run()")


def _listen() -> None:
    """Has the handler write to a socket, which a goroutine of the runtime's own reads."""
    global _ends
    _check_run()
    if _ends is not None:
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _ends = (theirs, _core.Socket(ours.detach()))
    _core.write_signals(theirs.fileno())
    _core.go_system(_deliver, _ends[1])


def _deliver(reader: _core.Socket) -> None:
    try:
        while numbers := reader.recv(4096):
            for number in numbers:
                for chan in list(_channels.get(number, ())):
                    _send(chan, signal.Signals(number))
    except OSError:  # closed by end()
        pass


def _send(chan: SendChan[signal.Signals], number: signal.Signals) -> None:
    global _missed
    try:
        if not chan.try_send(number):
            _missed += 1
    except ChannelClosed:
        stop(chan)


def _release(number: int) -> None:
    _channels.pop(number, None)
    _ignored.discard(number)
    _core.take_signal(number, 0)


def _recount() -> None:
    patch.watched = len(_channels)
    patch.recount()


def end() -> None:
    """At the end of a run."""
    global _ends
    with _lock:
        for number in [*_channels, *_ignored]:
            _release(number)
        _recount()
        if _ends is not None:
            _core.write_signals(-1)
            _ends[0].close()
            _ends[1].close()
            _ends = None


def _forget() -> None:
    """In the child of a fork, where no other thread is left that may have the lock."""
    _lock._at_fork_reinit()  # type: ignore[attr-defined] # noqa: SLF001
    end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
