"""Makes what may happen happen more often: preemptions, delays, short reads and writes, resets.

A program that is right copes with all of it, and one that is not shows that sooner than on a quiet
machine. What comes when is drawn by a seed, which is printed at the start and can be set.

- At a call of golibx's by a goroutine of the program, such as a send, a receive or a lock, others
  may get their turn first, or the goroutine sleeps a while (Runtime.disturb).
- The time slice may be another one at each `[hooks] tune_interval`.
- `recv`, `recv_into` and `send` of golibx.net's connections, and of TCP sockets of the module
  socket, may handle less than they could, and these and `sendall` may raise ConnectionResetError:
  then the connection is broken for both ends. That is so in goroutines of the program; the methods
  are replaced while the run lasts (Runtime.replace).
"""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

from golibx import current, net
from golibx.config import Key
from golibx.hookspec import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from golibx.config import Config
    from golibx.hookspec import Snapshot, Tuning
    from golibx.runtime import Runtime

__all__ = ["KEYS", "Plugin"]

_ONE_IN = 1_000_000_000
_NONE = "none"

KEYS = (
    Key(
        "seed",
        "int",
        0,
        "What decides all draws.",
        low=1,
        high=2**63 - 1,
        zero="a new one each run, which is printed",
    ),
    Key(
        "preempt",
        "int",
        100,
        "One in so many calls of golibx's lets all others run first.",
        low=1,
        high=_ONE_IN,
        zero=_NONE,
    ),
    Key(
        "delay",
        "int",
        1000,
        "Before one in so many calls of golibx's the goroutine sleeps.",
        low=1,
        high=_ONE_IN,
        zero=_NONE,
    ),
    Key("delay_max", "duration", "1ms", "The longest of these sleeps.", low="1us", high="10s"),
    Key(
        "slice",
        "duration",
        "0s",
        "At each `[hooks] tune_interval` the time slice becomes a random one, up to this.",
        low="20us",
        high="1m",
        zero="it stays as it is",
    ),
    Key(
        "short",
        "int",
        10,
        "One in so many calls of `recv`, `recv_into` and `send` handles less than it could.",
        low=1,
        high=_ONE_IN,
        zero=_NONE,
    ),
    Key(
        "reset",
        "int",
        0,
        "One in so many calls of these and of `sendall` raises ConnectionResetError.",
        low=1,
        high=_ONE_IN,
        zero=_NONE,
    ),
)
_SLICE = "preempt.slice"
_SHORTEST_SLICE_NS = 20_000
_RST_ON_CLOSE = struct.pack("ii", 1, 0)


class Plugin:
    """One run's chaos."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self._socket_calls = 0
        self._short = 0
        self._resets = 0
        self._slices = 0

    @hookimpl
    def golib_configure(self, config: Config, name: str) -> None:
        settings = config.plugin(name, KEYS)
        self._name = name
        self._seed: int = settings.seed or random.SystemRandom().randint(1, 2**63 - 1)
        self._preempt: int = settings.preempt
        self._delay: int = settings.delay
        self._delay_ns: int = settings.delay_max_ns
        self._slice_ns: int = settings.slice_ns
        self._one_short: int = settings.short
        self._one_reset: int = settings.reset
        one_of = {
            "preempt": self._preempt,
            "delay": self._delay,
            "slice": self._slice_ns,
            "short": self._one_short,
            "reset": self._one_reset,
        }
        if not any(one_of.values()):
            problem = f"nothing is left to do: one of {', '.join(one_of)} has to be other than 0"
            raise config.error(f"plugins.{name}", problem)
        # One for each use: what a program does with sockets does not change its slices.
        self._socket_draws = random.Random(f"{self._seed} sockets")
        self._slice_draws = random.Random(f"{self._seed} slices")

    @hookimpl
    def golib_start(self, runtime: Runtime) -> None:
        self._say(f"seed={self._seed}; plugins.{self._name}.seed={self._seed} draws the same again")
        if self._preempt or self._delay:
            runtime.disturb(
                seed=self._seed,
                preempt=self._preempt,
                delay=self._delay,
                delay_ns=self._delay_ns,
            )
        self._runtime = runtime
        if self._one_short or self._one_reset:
            for kind in (net.Conn, socket.socket):
                runtime.replace(kind, "recv", self._receiving)
                runtime.replace(kind, "recv_into", self._receiving_into)
                runtime.replace(kind, "send", self._sending)
                runtime.replace(kind, "sendall", self._sending_all)

    @hookimpl
    def tune(self, snapshot: Snapshot) -> Tuning | None:
        if not self._slice_ns:
            return None
        least, most = snapshot.limits[_SLICE]
        least, most = max(least, _SHORTEST_SLICE_NS), min(most, self._slice_ns)
        self._slices += 1
        return {_SLICE: self._slice_draws.randint(min(least, most), most)}

    @hookimpl
    def golib_stop(self) -> None:
        if self._runtime is None:
            return
        done = self._runtime.disturbances()
        self._say(
            f"seed={self._seed} calls={done['calls']} preempted={done['preempted']} "
            f"delayed={done['delayed']} slices={self._slices} socket_calls={self._socket_calls} "
            f"short={self._short} resets={self._resets}"
        )

    # ---- sockets ----

    def _receiving(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def recv(sock: Any, size: Any, *flags: Any) -> Any:
            if self._applies_to(sock):
                # MSG_WAITALL among the flags would have that no receive is short.
                fewer = self._draw(sock, 0 if flags else size)
                if fewer is not None:
                    return plain(sock, fewer)
            return plain(sock, size, *flags)

        return recv

    def _receiving_into(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def recv_into(sock: Any, buffer: Any, *args: Any, **kwargs: Any) -> Any:
            if self._applies_to(sock):
                fewer = self._draw(sock, 0 if args or kwargs else memoryview(buffer).nbytes)
                if fewer is not None:
                    return plain(sock, buffer, fewer)
            return plain(sock, buffer, *args, **kwargs)

        return recv_into

    def _sending(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def send(sock: Any, data: Any, *args: Any) -> Any:
            if self._applies_to(sock):
                view = memoryview(data)
                fewer = self._draw(sock, view.nbytes)
                if fewer is not None:
                    return plain(sock, view.cast("B")[:fewer], *args)
            return plain(sock, data, *args)

        return send

    def _sending_all(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def sendall(sock: Any, data: Any, *args: Any) -> Any:
            if self._applies_to(sock):
                self._draw(sock, 0)
            return plain(sock, data, *args)

        return sendall

    def _applies_to(self, sock: Any) -> bool:
        """Whether it is a TCP connection, used by a goroutine of the program."""
        goroutine = current()
        if goroutine is None or goroutine.system:
            return False
        return isinstance(sock, net.Conn) or (
            sock.type == socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6)
        )

    def _draw(self, sock: Any, size: object) -> int | None:
        """How many bytes to handle, if fewer than `size`. Raises ConnectionResetError."""
        self._socket_calls += 1
        draw = self._socket_draws
        if self._one_reset and draw.randrange(self._one_reset) == 0:
            self._resets += 1
            self._break(sock)
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        if not isinstance(size, int) or size < 2 or not self._one_short:
            return None
        if draw.randrange(self._one_short) != 0:
            return None
        self._short += 1
        return draw.randrange(1, size)

    def _break(self, sock: Any) -> None:
        """The other end sees it too, at once as the end of the stream or when this one closes."""
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is broken already, or not connected
            pass

    @staticmethod
    def _say(text: str) -> None:
        if sys.stderr is not None:
            sys.stderr.write(f"chaos: {text}\n")
            sys.stderr.flush()
