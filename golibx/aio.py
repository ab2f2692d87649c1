"""asyncio and goroutines, each from the other.

    page = aio.run(fetch(url))  # in a goroutine: awaits a coroutine

    result = await aio.wait(g)  # in a coroutine: awaits a goroutine

run() has coroutines awaited on one event loop, which all goroutines of a run share: what belongs to
a loop, such as a pool of connections, can be used by all of them. The loop is a goroutine too. It
begins with the first run() and ends with the golibx run. asyncio.run() works in a goroutine as
well, and makes a loop of its own each time.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, TypeVar

from golibx import _core, context
from golibx.errors import Cancelled
from golibx.inherited import made_anew

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from golibx._core import Goroutine

__all__ = ["run", "wait"]

_T = TypeVar("_T")

_DAY = 86400.0  # seconds


# ---- a coroutine, from a goroutine ----


def run(coro: Coroutine[Any, Any, _T], /) -> _T:
    """Awaits a coroutine on the event loop of the golibx run; the goroutine parks meanwhile.

    The coroutine is a task, with a copy of the goroutine's context variables. What cancels the
    goroutine, such as Goroutine.cancel(), its context or Ctrl-C, cancels the task. run() waits for
    the task's end even then, and raises what cancelled the goroutine, or the error that the task
    ended with. A second Ctrl-C does not wait.

    Raises:
        TypeError: `coro` is not a coroutine.
        RuntimeError: it is called outside of a goroutine, or in a coroutine, which can await.
        BaseException: what the coroutine raises, asyncio.CancelledError included.
    """
    if not asyncio.iscoroutine(coro):
        raise TypeError(f"aio.run() needs a coroutine, not {coro!r}")
    if _core.current() is None:
        raise RuntimeError(
            "aio.run() works in goroutines; elsewhere use asyncio.run(), or await where a loop runs"
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        result: _T = _Call(coro).run()
        return result
    raise RuntimeError("aio.run() cannot be called from a coroutine, which can await")


class _Call:
    """A coroutine that a goroutine waits for."""

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self._coro = coro
        self._variables = contextvars.copy_context()
        self._ended = _core.Event()
        self._task: asyncio.Task[Any] | None = None

    @_core.whole
    def run(self) -> Any:
        background = _of_run.background()
        try:
            try:
                background.call(self._start, background)
                self._wait()
            except BaseException:
                self._stop(background)
                raise
            assert self._task is not None
            return self._task.result()
        finally:
            del self  # which an error's traceback leads to

    def _wait(self) -> None:
        # The timers and sockets of the loop, which is the runtime's, do not count when the runtime
        # looks for deadlocks. A wait that may time out is none.
        while not self._ended.wait(_DAY):
            pass

    def _stop(self, background: _Background) -> None:
        """Cancels the task and waits for its end; raises its error if it has one of its own."""
        background.call(self._cancel)
        with context.background():
            while True:
                try:
                    self._wait()
                    break
                except (KeyboardInterrupt, SystemExit):
                    raise
                except BaseException:  # the goroutine is cancelled again
                    background.call(self._cancel)
        task = self._task
        if task is not None and not task.cancelled():
            error = task.exception()
            if error is not None:
                raise error

    # ---- in the loop, in the order in which they were called ----

    def _start(self, background: _Background) -> None:
        self._task = background.start(self._coro, self._variables)
        self._task.add_done_callback(lambda _: self._ended.set())

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:  # something was raised before it could be started
            self._coro.close()
            self._ended.set()


class _Background:
    """The event loop of a run, and the goroutine that runs it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        # Without the context variables of the goroutine that happens to be the first.
        self._goroutine = contextvars.Context().run(_core.go_system, self._run)
        self._goroutine.name = "aio"

    def call(self, fn: Callable[..., object], *args: object) -> None:
        """Has the loop call fn(*args)."""
        self._loop.call_soon_threadsafe(fn, *args)

    def start(
        self, coro: Coroutine[Any, Any, Any], variables: contextvars.Context
    ) -> asyncio.Task[Any]:
        """Makes the coroutine a task; in the loop."""
        task = self._loop.create_task(coro, context=variables)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def end(self, timeout: float) -> bool:
        """Cancels the tasks that are left and closes the loop; returns whether it has."""
        self.call(self._loop.stop)
        return self._goroutine.join(timeout)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            loop = runner.get_loop()
            while True:
                try:
                    loop.run_forever()
                    return
                except (KeyboardInterrupt, SystemExit) as error:
                    # One that ends a task ends the loop, too. Code that awaits the task raises it.
                    if not self._is_outcome(error):
                        _core.throw_main(error)

    def _is_outcome(self, error: BaseException) -> bool:
        ended = [task for task in self._tasks if task.done() and not task.cancelled()]
        return any(task.exception() is error for task in ended)


class _OfRun:
    """What the golibx run has of this module."""

    def __init__(self) -> None:
        self._lock = _core.Guard()
        self._background: _Background | None = None
        self.waits: set[_Wait] = set()
        # Until the next run: goroutines that did not end when they were cancelled may still run.
        self.over = False
        made_anew(self)

    def background(self) -> _Background:
        """The event loop, which begins with the first call."""
        with self._lock:
            if self.over:
                raise RuntimeError("the golibx run has ended: aio.run() has no event loop any more")
            if self._background is None:
                self._background = _Background()
            return self._background

    @_core.whole
    def end(self, timeout: float) -> bool:
        """Ends all of it, for golibx.runtime; returns whether it has ended."""
        with self._lock:
            self.over = True
            background, self._background = self._background, None
            waits = [*self.waits]
            self.waits.clear()
        for waiting in waits:
            waiting.tell()
        return background is None or background.end(timeout)

    def begin(self, waiting: _Wait) -> bool:
        """Has the run's end tell `waiting`; returns False if that has come."""
        with self._lock:
            if self.over or not _core.active():
                return False
            waiting.watch()
            self.waits.add(waiting)
            return True

    def forget(self) -> None:
        """Makes ready for the next run, when one is over."""
        self.over = False

    def forget_others(self) -> None:
        """In the child of a fork: the loop and its goroutine are the parent's."""
        self._background, self.over = None, False
        self.waits.clear()


_of_run = _OfRun()
end = _of_run.end
forget = _of_run.forget


# ---- a goroutine, from a coroutine ----


async def wait(g: Goroutine[_T], /, *, cancel: bool = False) -> _T:
    """Waits for a goroutine to end, in a coroutine of any loop; returns its result.

    Args:
        g: the goroutine.
        cancel: whether cancelling the coroutine cancels the goroutine and waits for its end. False:
            the goroutine goes on, as others may wait for it too.

    Raises:
        TypeError: `g` is no goroutine.
        RuntimeError: the coroutine's loop runs in `g` itself, or the goroutine's golibx run ended
            before it.
        BaseException: what the goroutine raised; Cancelled, if that was cancelled.
    """
    if not isinstance(g, _core.Goroutine):
        raise TypeError(f"aio.wait() needs a Goroutine, not {g!r}")
    if g is _core.current():
        raise RuntimeError(f"goroutine {g.id} cannot wait for itself")
    if not g.done():
        waiting = _Wait(g)
        try:
            waiting.begin()
            await waiting.until_ended(cancel)
        except asyncio.CancelledError:
            if g.done() and g.exception is not None and not isinstance(g.exception, Cancelled):
                return g.result()
            raise
        finally:
            waiting.close()
    if not g.done():
        raise RuntimeError(f"the golibx run ended before goroutine {g.id}")
    return g.result()


class _Wait:
    """A coroutine that waits for a goroutine."""

    def __init__(self, g: Goroutine[Any]) -> None:
        self._g = g
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._watcher: Goroutine[None] | None = None

    def begin(self) -> None:
        if not _of_run.begin(self):
            raise RuntimeError(f"the golibx run ended before goroutine {self._g.id}")

    def watch(self) -> None:
        """Starts what waits for the goroutine."""
        self._watcher = _core.go_system(self._watch)
        self._watcher.name = "aio.wait"

    async def until_ended(self, cancel: bool) -> None:
        try:
            await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            if cancel:
                self._g.cancel()
                while not self._ended.done():
                    try:
                        await asyncio.shield(self._ended)
                    except asyncio.CancelledError:
                        self._g.cancel()
            raise

    @_core.whole
    def close(self) -> None:
        _of_run.waits.discard(self)
        self._ended.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _watch(self) -> None:
        self._g.join()
        self.tell()

    def tell(self) -> None:
        """Ends the wait, from wherever it is called."""
        try:
            self._loop.call_soon_threadsafe(self._note_end)
        except RuntimeError:  # the loop has been closed
            pass

    def _note_end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
