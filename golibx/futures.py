"""GoroutinePoolExecutor: concurrent.futures with goroutines in place of threads.

    with GoroutinePoolExecutor(max_workers=20) as executor:
        for page in executor.map(fetch, urls):
            print(len(page))

Code that takes an Executor, such as asyncio's run_in_executor(), gets goroutines by it: thousands
of calls at once, and no thread for each. A call has the context variables and the ambient context
of the goroutine that submitted it, as if that had started it by go().
"""

from __future__ import annotations

import contextvars
from collections import deque
from concurrent import futures
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from golibx import _core, context
from golibx.errors import Cancelled
from golibx.inherited import made_anew

if TYPE_CHECKING:
    from collections.abc import Callable

    from golibx._core import Context, Goroutine

__all__ = ["GoroutinePoolExecutor"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_executors = count()


class Future(futures.Future[_T]):
    """A goroutine that waits for it parks; for a thread it is any other future."""

    def _park(self, timeout: float | None) -> float | None:
        """Waits for the end; returns the time-out that is left."""
        if self.done() or _core.current() is None:
            return timeout
        ended = self.__dict__.get("_ended")
        if ended is None:
            ended = _core.Event()
            self.add_done_callback(lambda _: ended.set())
            self._ended = ended  # not sooner: a thread that finds it waits for it
        ended.wait(None if timeout is None else max(0.0, timeout))
        return 0.0

    def result(self, timeout: float | None = None) -> _T:
        """As Future.result()."""
        return super().result(self._park(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As Future.exception()."""
        return super().exception(self._park(timeout))


class _Call(Generic[_T]):
    __slots__ = ("args", "context", "fn", "future", "kwargs", "variables")

    def __init__(
        self, fn: Callable[..., _T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.future: Future[_T] = Future()
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.variables = contextvars.copy_context()
        self.context: Context = (
            context.background() if _core.current() is None else context.current()
        )

    def run(self) -> None:
        """Makes the call; raises only Cancelled, and after it has told the future."""
        if not _complete(self.future, self.future.set_running_or_notify_cancel):
            return
        try:
            with self.context:
                result = self.variables.run(self.fn, *self.args, **self.kwargs)
        except BaseException as error:
            _complete(self.future, self.future.set_exception, error)
            cancelled = isinstance(error, Cancelled) and error.context is None
            del self  # which the error's traceback leads to
            if cancelled:
                raise
            return
        _complete(self.future, self.future.set_result, result)


def _complete(future: futures.Future[Any], change: Callable[..., _T], *args: object) -> _T | None:
    """Returns change(*args), also in a goroutine that is cancelled while it waits for the lock."""
    cancelled = False
    changed = None
    while True:
        try:
            changed = change(*args)
            break
        except Cancelled:
            cancelled = True
            if future.done():  # it was a callback that waited
                break
    if cancelled and (goroutine := _core.current()) is not None:
        goroutine.cancel()
    return changed


class GoroutinePoolExecutor(futures.Executor):
    """An Executor that makes each call in a goroutine.

    Its futures are concurrent.futures.Future; result() and exception() park a goroutine that waits.
    submit() needs a golibx runtime, and works from its goroutines and from threads. What still runs
    or is queued when the runtime ends is cancelled: leave a `with` block, or shutdown(), first.

    Args:
        max_workers: how many calls may run at once; the others wait for their turn, in order.
            None: any number.
        thread_name_prefix: what the goroutines' names begin with.
        initializer: called with `*initargs` in each goroutine before its first call. Those
            goroutines wait for further calls until shutdown(), as ThreadPoolExecutor's threads do.
            Without an initializer each ends when no call waits for it.
        initargs: a tuple.

    Raises:
        TypeError, ValueError: max_workers is no int from 1, the initializer is not callable.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if max_workers is not None and (
            not isinstance(max_workers, int) or isinstance(max_workers, bool)
        ):
            raise TypeError(f"max_workers must be an int or None, not {max_workers!r}")
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {initializer!r}")
        callee = _core.async_callee(initializer)
        if callee is not None:
            what, does = ("an async generator", "go through") if callee[1] else ("async", "await")
            raise TypeError(f"initializer is {what}, and nothing would {does} {callee[0]}()")
        self._max_workers = max_workers
        self._prefix = thread_name_prefix or f"GoroutinePoolExecutor-{next(_executors)}"
        self._initializer = initializer
        self._initargs = initargs
        # Held for moments, and never across a wait.
        self._lock = _core.Guard()
        self._queue: deque[_Call[Any]] = deque()
        self._workers: dict[Goroutine[Any] | None, None] = {}
        self._probing: set[Goroutine[Any]] = set()  # those that took another's place, at first
        self._leaving: list[Goroutine[Any]] = []  # no workers any more, and about to end
        self._started = 0
        self._idle: list[_core.Event] = []  # one for each worker that waits for a call
        self._broken: BaseException | None = None  # what the initializer raised
        self._shutdown = False
        self._ended: Future[None] = Future()  # no worker is left, and none will come
        made_anew(self)

    def forget_others(self) -> None:
        """In the child of a fork: the workers and the calls are the parent's."""
        self._queue = deque()
        self._workers = {}
        self._probing = set()
        self._leaving = []
        self._idle = []
        self._ended = Future()

    @_core.whole
    def submit(
        self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> futures.Future[_T]:
        """Has fn(*args, **kwargs) called in a goroutine; returns the Future of its result.

        Raises:
            RuntimeError: after shutdown(), or no runtime is running.
            concurrent.futures.BrokenExecutor: the initializer has raised.
            TypeError: fn is not callable.
        """
        if not callable(fn):
            shown = _core.open_to_signals(repr, fn)
            raise TypeError(f"submit() needs a callable, not {shown}")
        if not _core.active():
            raise RuntimeError("submit() needs a golibx runtime: golibx.run() or `golibx run`")
        call = _Call(fn, args, kwargs)
        with self._lock:
            if self._broken is not None:
                raise _broken() from self._broken
            if self._shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._queue.append(call)
            if self._idle:
                self._idle.pop().set()
            elif self._max_workers is None or len(self._workers) < self._max_workers:
                try:
                    self._start_worker()
                except BaseException:
                    self._queue.remove(call)
                    raise
        return call.future

    @_core.whole
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls, and waits for those that were submitted.

        Args:
            wait: False: returns at once; the calls are made all the same. Otherwise the executor's
                goroutines have ended when it returns.
            cancel_futures: cancels the calls that have not begun.

        Raises:
            RuntimeError: a call of the executor's own would wait for itself.
        """
        cancelled: list[_Call[Any]] = []
        with self._lock:
            self._shutdown = True
            if cancel_futures:
                cancelled.extend(self._queue)
                self._queue.clear()
            for event in self._idle:
                event.set()
            self._idle.clear()
            ended = self._has_ended()
            own = wait and _core.current() in self._workers
        for call in cancelled:
            _core.open_to_signals(call.future.cancel)
        if ended:
            self._note_end()
        if own:
            raise RuntimeError("a call of the executor cannot wait for its shutdown")
        if wait:
            self._ended.result()
            for worker in self._leaving:  # to which no others are added
                if worker is not _core.current():  # what tells a future's callbacks at its end
                    worker.join()

    @_core.whole
    def __exit__(self, *exc_info: object) -> None:
        self.shutdown(wait=True)

    def _note_end(self) -> None:
        try:
            _complete(self._ended, self._ended.set_result, None)
        except futures.InvalidStateError:  # it was noted before
            pass

    # ---- with the lock held ----

    def _start_worker(self, replaces: bool = False) -> None:
        worker = _core.go_child(
            context.background(), self._worker_ended, self._workers, None, self._work, replaces
        )
        worker.name = f"{self._prefix}_{self._started}"
        self._started += 1
        if replaces:
            self._probing.add(worker)

    def _leave(self) -> None:
        worker = _core.current()
        self._workers.pop(worker, None)
        self._leaving = [each for each in self._leaving if not each.done()]
        if worker is not None:
            self._leaving.append(worker)

    def _has_ended(self) -> bool:
        return self._shutdown and not self._workers

    # ---- in the workers ----

    def _work(self, replaces: bool) -> None:
        if replaces:
            _core.gosched()  # raises Cancelled if the run ends
            with self._lock:
                self._probing.discard(_core.current())
        if self._initialize():
            self._make_calls()

    def _worker_ended(self, worker: Goroutine[Any]) -> None:
        """Called in the worker, also if that was cancelled before it began."""
        dropped: list[_Call[Any]] = []
        failed: list[_Call[Any]] = []
        error = worker.exception
        with self._lock:
            self._workers.pop(worker, None)
            if worker in self._probing:
                self._probing.discard(worker)
                dropped.extend(self._queue)
                self._queue.clear()
            elif self._queue and isinstance(error, Cancelled):
                # The code that cancelled this one, or one that its call waited for, did not mean
                # the other calls; unless it was the end of the run.
                self._start_worker(replaces=True)
            elif error is not None and not self._workers:
                # There was no memory for it. No worker is left to make these.
                failed.extend(self._queue)
                self._queue.clear()
            ended = self._has_ended()
        for call in dropped:
            _complete(call.future, call.future.cancel)
        for call in failed:
            _complete(call.future, call.future.set_exception, error)
        if ended:
            self._note_end()

    def _initialize(self) -> bool:
        if self._initializer is None:
            return True
        try:
            self._initializer(*self._initargs)
        except Cancelled:
            raise
        except BaseException as error:
            with self._lock:
                self._broken = error
                broken = [*self._queue]
                self._queue.clear()
            for call in broken:
                failure = _broken()
                failure.__cause__ = error
                _complete(call.future, call.future.set_exception, failure)
            return False
        return True

    def _make_calls(self) -> None:
        """Makes the calls that wait, until there are none or one of them is cancelled."""
        while True:
            event = None
            with self._lock:
                if self._queue:
                    call = self._queue.popleft()
                elif self._initializer is None or self._shutdown or self._broken is not None:
                    # Now, so that no submit() counts on this worker.
                    self._leave()
                    return
                else:
                    event = _core.Event()
                    self._idle.append(event)
            if event is None:
                call.run()
                del call  # with its result
                continue
            try:
                event.wait()
            except BaseException:
                with self._lock:
                    if event in self._idle:
                        self._idle.remove(event)
                raise


def _broken() -> futures.BrokenExecutor:
    return futures.BrokenExecutor("the initializer of the executor's goroutines raised")
