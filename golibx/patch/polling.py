"""selectors.EpollSelector, which asyncio waits in: it parks the goroutine and not the thread.

An epoll descriptor can itself be watched: golibx's poller tells when one of those that it watches
is ready. Where there is no epoll, selectors stay as they are: the thread blocks, and the scheduler
takes the processor back from it.
"""

from __future__ import annotations

import math
import os
import time

from golibx import _core
from golibx.errors import Cancelled, DeadlineExceeded
from golibx.patch.imports import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from typing import Any

    from golibx._core import Case, Context, Socket

__all__ = ["install"]


_installed = False


def install() -> None:
    """Has selectors.EpollSelector park goroutines; does nothing the second time."""
    global _installed
    if not _installed:
        _installed = True
        when_imported("selectors", _change)


def _change(selectors: Any) -> None:
    # Its name may be that of a class of the program's by now.
    for selector in selectors._PollLikeSelector.__subclasses__():
        if (selector.__module__, selector.__name__) == ("selectors", "EpollSelector"):
            Epoll.make = selector._selector_cls
            selector._selector_cls = Epoll


class Epoll:
    """A select.epoll for goroutines and threads."""

    __slots__ = ("_case", "_epoll", "_guard", "_raised", "_socket", "fileno", "modify", "register")

    make: type[select.epoll]

    def __init__(self) -> None:
        self._epoll = self.make()
        self.fileno = self._epoll.fileno
        self.modify = self._epoll.modify
        self.register = self._epoll.register
        self._guard = _core.Guard()  # of the two that follow
        self._socket: Socket | None = None
        self._case: Case | None = None
        self._raised: Context | None = None

    def unregister(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def close(self) -> None:
        self._epoll.close()
        self._forget()

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """As select.epoll.poll()."""
        events = self._epoll.poll(0, maxevents)
        if events or timeout == 0:
            return events
        if _core.current() is None:
            return self._epoll.poll(timeout, maxevents)
        forever = timeout is None or timeout < 0
        end = math.inf if forever else time.monotonic() + timeout  # type: ignore[operator]
        while not events and self._wait(end):
            events = self._epoll.poll(0, maxevents)
        return events

    def _wait(self, end: float) -> bool:
        """Parks until there may be an event; returns False when the time is up."""
        timeout = None if end == math.inf else max(0.0, end - time.monotonic())
        context = _core.context_current()
        if context is self._raised:
            # A loop that ends because its context is done waits for what its tasks clean up.
            context = _core.context_background()
        try:
            with context:
                _core.select(self._readable(), timeout=timeout)
        except (Cancelled, DeadlineExceeded) as error:
            if error.context is None and isinstance(error, DeadlineExceeded):
                return False
            if error.context is not None:
                self._raised = context
            raise
        return True

    def _readable(self) -> Case:
        with self._guard:
            # A socket belongs to one run, the epoll object maybe to several.
            if self._case is None or self._socket is None or not self._socket.usable:
                self._close_socket()
                self._socket = _core.Socket(os.dup(self._epoll.fileno()))
                self._case = self._socket.on_readable()
            return self._case

    def _forget(self) -> None:
        with self._guard:
            self._close_socket()

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = self._case = None
