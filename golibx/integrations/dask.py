r"""Dask workers whose tasks are goroutines.

    dask worker --nthreads 200 --preload golibx.integrations.dask tcp://scheduler:8786

    LocalCluster(n_workers=2, threads_per_worker=200, preload="golibx.integrations.dask")

    Worker(address, nthreads=200, executor=GoroutineThreadPoolExecutor(200))

Tasks are ordinary blocking code, and Dask's own functions for tasks work in them: get_worker(),
get_client(), worker_client(), secede() and rejoin(). The worker's event loop stays on its thread,
and the goroutines are in a run beside it (golibx.integrations.background): a task that computes
delays neither the heartbeat nor, by more than its time slice, the other tasks. A worker that runs
under `golibx run` has its tasks in that run.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from distributed import Worker
from distributed import threadpoolexecutor as pools

import golibx
from golibx import _core
from golibx.integrations import background

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

__all__ = ["GoroutineThreadPoolExecutor", "dask_setup"]


class _Call:
    def __init__(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.future: Future[Any] = Future()
        self._what = fn, args, kwargs

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        fn, args, kwargs = self._what
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            self.future.set_exception(error)
            del self  # which the error's traceback leads to
        else:
            self.future.set_result(result)


# Workers give a task its surroundings, such as get_worker(), if the name of the executor's class
# has "ThreadPoolExecutor" in it.
class GoroutineThreadPoolExecutor(pools.ThreadPoolExecutor):  # type: ignore[misc]  # untyped
    """An executor for Dask workers that makes calls in goroutines.

    Args:
        max_workers: how many calls are made at once. As large as the worker's `nthreads`, which is
            how many tasks Dask gives to a worker.
        thread_name_prefix: what the goroutines' names begin with.
    """

    _max_workers: int
    _shutdown: bool
    _rejoin_list: list[tuple[threading.Thread, threading.Event]]

    def __init__(self, max_workers: int, thread_name_prefix: str = "Dask-Goroutines") -> None:
        super().__init__(max_workers, thread_name_prefix=thread_name_prefix)
        golibx.patch_all()
        background.hold()
        self._guard = _core.Guard()
        # The worker clears it when it closes.
        self._calls: deque[_Call] = self._work_queue.queue
        # Those that have not seceded: secede() removes its own.
        self._threads: set[threading.Thread] = set()
        self._begun = 0  # and are not among them yet
        self._ended = golibx.Event()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Has fn(*args, **kwargs) called in a goroutine; returns the Future of its result.

        Raises:
            RuntimeError: after shutdown().
        """
        call = _Call(fn, args, kwargs)
        with self._guard:
            if self._shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._calls.append(call)
        self._adjust_thread_count()
        return call.future

    def _adjust_thread_count(self) -> None:
        """Starts a goroutine if one may be of use; secede() calls it, too."""
        with self._guard:
            if not self._calls or len(self._threads) + self._begun >= self._max_workers:
                self._note_end()
                return
            self._begun += 1
        try:
            background.hold()
            try:
                golibx.go(self._work)
            except BaseException:
                background.release()
                raise
        except BaseException:
            with self._guard:
                self._begun -= 1
            raise

    def shutdown(
        self, wait: bool = True, timeout: float | None = None, *, cancel_futures: bool = False
    ) -> None:
        """Takes no more calls.

        Args:
            wait: for those that were submitted.
            timeout: seconds to wait at most; what still runs then goes on.
            cancel_futures: cancels the calls that have not begun.
        """
        with self._guard:
            is_first = not self._shutdown
            self._shutdown = True
            dropped = [*self._calls] if cancel_futures else []
            if cancel_futures:
                self._calls.clear()
            self._note_end()
        for call in dropped:
            call.future.cancel()
        if wait:
            self._ended.wait(timeout)
        if is_first:
            background.release()
        if wait and self._ended.is_set():
            background.wait()

    def _note_end(self) -> None:
        """With the guard."""
        if self._shutdown and not (self._threads or self._begun or self._calls):
            self._ended.set()

    def _work(self) -> None:
        """What a goroutine of it does: it makes calls as long as there are some."""
        me = golibx.current()
        assert me is not None
        me.name = f"{self._thread_name_prefix}_{me.id}"
        me.priority = "normal"
        pools.thread_state.executor = self
        pools.thread_state.proceed = True
        with self._guard:
            self._begun -= 1
            self._threads.add(threading.current_thread())
        try:
            while (call := self._next()) is not None:
                call.run()
                del call  # with its result
        finally:
            with self._guard:
                self._threads.discard(threading.current_thread())
                self._note_end()
            background.release()

    def _next(self) -> _Call | None:
        """The call to make; None: this goroutine has to end."""
        if not pools.thread_state.proceed:  # it has seceded
            return None
        with self._guard:
            if not self._rejoin_list:
                if self._calls:
                    return self._calls.popleft()
                # Now, so that no submit() counts on it.
                self._threads.discard(threading.current_thread())
                return None
            other, rejoined = self._rejoin_list.pop()
            self._threads.discard(threading.current_thread())
            self._threads.add(other)
        rejoined.set()
        self._adjust_thread_count()
        return None


def dask_setup(worker: Worker) -> None:
    """Has a worker's tasks made goroutines, as many at once as it has `nthreads`; for --preload.

    Raises:
        TypeError: it is not a worker that is set up.
    """
    if not isinstance(worker, Worker):
        raise TypeError(
            "golibx.integrations.dask is to be preloaded by workers (dask worker --preload), "
            f"not by a {type(worker).__name__}"
        )
    loop = golibx.current()
    if loop is not None:
        loop.priority = "high"  # it hardly computes, and the others wait for it
    before = worker.executors["default"]
    worker.executors["default"] = GoroutineThreadPoolExecutor(
        worker.state.nthreads, f"{worker.name}-Dask-Goroutines"
    )
    before.shutdown(wait=False)
