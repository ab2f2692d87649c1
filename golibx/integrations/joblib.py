"""A backend for joblib whose tasks are goroutines.

    import golibx.integrations.joblib

    with joblib.parallel_config(backend="golibx", n_jobs=100):
        pages = joblib.Parallel()(joblib.delayed(fetch)(url) for url in urls)

Tasks are ordinary blocking code, and share the process's memory. What a task raises ends the call
of Parallel, as does `timeout=`: the tasks that are left are cancelled, those that wait and those
that compute. Calls of Parallel in tasks use goroutines as well, at any depth. It works in
goroutines, and in programs that golibx does not run (golibx.integrations.background).
"""

from __future__ import annotations

import time
import traceback
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from joblib import register_parallel_backend
from joblib._parallel_backends import FallbackToBackend  # what configure() has to raise
from joblib.parallel import ParallelBackendBase, SequentialBackend

import golibx
from golibx import Cancelled, GoroutinePoolExecutor, _core
from golibx.integrations import background

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ALL_JOBS", "GoroutineBackend"]

ALL_JOBS = 100
"""What n_jobs=-1 stands for. Goroutines are for what waits: processors do not bound that."""

_END_S = 1.0
"""How long an error's call of Parallel waits for the tasks that it has cancelled, to end."""


class _Task:
    """A batch of joblib's. It may be cancelled while it runs."""

    def __init__(self, batch: Callable[[], Any]) -> None:
        self._batch = batch
        self._guard = _core.Guard()
        self._goroutine: golibx.Goroutine[Any] | None = None
        self._is_cancelled = False
        self.ended = golibx.Event()

    def __call__(self) -> Any:
        background.hold()
        try:
            with self._guard:
                if self._is_cancelled:
                    raise Cancelled
                self._goroutine = golibx.current()
            return self._batch()
        except Exception as error:
            # joblib takes the traceback away.
            frames = traceback.format_tb(error.__traceback__)[1:]
            error.add_note("The task's traceback (most recent call last):\n" + "".join(frames))
            raise
        finally:
            try:
                with self._guard:  # where a late cancel() is raised, and none comes after it
                    self._goroutine = None
            finally:
                self.ended.set()
                background.release()

    def cancel(self) -> bool:
        """Has it raise Cancelled where it is, or when it begins; returns whether it had begun."""
        with self._guard:
            self._is_cancelled = True
            return self._goroutine is not None and _core.throw_at_once(self._goroutine, Cancelled())


class GoroutineBackend(ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """Runs `n_jobs` tasks at a time as goroutines; -1 means ALL_JOBS, -2 one less, and so on."""

    supports_retrieve_callback = True
    supports_sharedmem = True
    uses_threads = True

    nesting_level: int
    _executor: GoroutinePoolExecutor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many tasks run at a time. Raises ValueError for 0."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(ALL_JOBS + 1 + n_jobs, 1)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Makes ready for a call of Parallel, or for those of its `with` block."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        golibx.patch_all()
        background.hold()
        self._executor = GoroutinePoolExecutor(n_jobs, "joblib")
        self._tasks: dict[_Task, None] = {}  # that have not ended
        return n_jobs

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Future[Any]], None] | None = None
    ) -> Future[Any]:
        """Has a batch of tasks run, and then the callback called."""
        task, tasks = _Task(func), self._tasks
        tasks[task] = None
        future: Future[Any]
        try:
            if self._executor is None:
                raise RuntimeError("this call of Parallel has ended")
            future = self._executor.submit(task)
        except RuntimeError as error:
            # In a goroutine that has done another task: joblib learns of errors by the callback.
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda _: tasks.pop(task, None))
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """Returns what the batch has returned, or raises what it has raised."""
        return future.result()

    def terminate(self) -> None:
        """Called at the end, when the tasks have ended or abort_everything() was called."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()
            background.release()
            background.wait()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancels the tasks that are left, and waits a moment for their ends."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
            running = [task for task in list(self._tasks) if task.cancel()]
            end = time.monotonic() + _END_S
            for task in running:
                task.ended.wait(max(0.0, end - time.monotonic()))
            background.release()
            background.wait()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)

    def get_nested_backend(self) -> tuple[GoroutineBackend, None]:
        """What calls of Parallel in tasks use: goroutines of their own, so that none waits."""
        return GoroutineBackend(nesting_level=(self.nesting_level or 0) + 1), None


register_parallel_backend("golibx", GoroutineBackend)
