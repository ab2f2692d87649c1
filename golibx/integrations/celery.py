r"""A pool for Celery whose tasks are goroutines of one process.

    CELERY_CUSTOM_WORKER_POOL=golibx.integrations.celery:TaskPool \
        golibx run -m celery -A tasks worker --pool custom --concurrency 200

Tasks are ordinary blocking code. One that computes is preempted, and one that blocks in a C library
blocks no other. Soft and hard time limits end tasks that wait and tasks that compute, without the
process: SoftTimeLimitExceeded is raised in the task, and after the hard limit the task is a failure
with TimeLimitExceeded. `revoke(terminate=True)` ends one task in the same way.
"""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

from billiard.exceptions import SoftTimeLimitExceeded
from celery.concurrency.base import BasePool, apply_target
from celery.exceptions import ImproperlyConfigured

import golibx
from golibx import _core

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TaskPool"]


def _number() -> int:
    current = golibx.current()
    assert current is not None
    return current.id


class _Ended(BaseException):
    """Raised in a task that has to end; what became of the task is told already."""


class _Job:
    """A task that was given to the pool. Celery has it as what apply_async() returns."""

    def __init__(self, call: Callable[[_Job], None], options: dict[str, Any]) -> None:
        self.call = call
        self.soft_limit: float | None = options.get("soft_timeout")
        self.limit: float | None = options.get("timeout")
        self.on_timeout: Callable[[bool, float], None] | None = options.get("timeout_callback")
        self.goroutine: golibx.Goroutine[None] | None = None
        self.is_over = False
        self._done = golibx.Event()

    def run(self) -> None:
        """What the task's goroutine does."""
        self.goroutine = golibx.current()
        timers = [
            golibx.Timer(seconds, function)
            for seconds, function in ((self.soft_limit, self._warn), (self.limit, self._give_up))
            if seconds
        ]
        try:
            self.call(self)
        finally:
            self.is_over = True
            for timer in timers:
                timer.stop()

    def finish(self) -> None:
        """After that, whatever ended it."""
        self.is_over = True
        self._done.set()

    def _warn(self) -> None:
        """The soft limit is over."""
        if not self.is_over:
            self._tell(True, self.soft_limit)
            self._throw(SoftTimeLimitExceeded(self.soft_limit))

    def _give_up(self) -> None:
        """The hard limit is over."""
        if not self.is_over:
            self._tell(False, self.limit)
            self.end()

    def end(self) -> None:
        """Ends the task. What became of it is told already."""
        if not self.is_over:
            self.is_over = True
            self._throw(_Ended())

    def _tell(self, soft: bool, limit: float | None) -> None:
        if self.on_timeout is not None and limit is not None:
            self.on_timeout(soft, limit)

    def _throw(self, exception: BaseException) -> None:
        if self.goroutine is not None:
            _core.throw_at_once(self.goroutine, exception)

    def wait(self, timeout: float | None = None) -> None:
        """Until the task has ended, as billiard's results have it."""
        self._done.wait(timeout)

    get = wait

    def terminate(self, signal: int | None = None) -> None:
        """Ends the task, whatever the signal."""
        self.end()


class TaskPool(BasePool):  # type: ignore[misc]  # Celery has no types
    """Runs `--concurrency` tasks at a time; others wait for a place."""

    limit: int
    body_can_be_buffer = True
    signal_safe = False
    task_join_will_block = False

    def on_start(self) -> None:
        """Begins to take tasks."""
        if golibx.current() is None:
            raise ImproperlyConfigured(
                "golibx.integrations.celery needs a worker that golibx runs: "
                "golibx run -m celery … worker --pool custom"
            )
        golibx.patch_all()
        self._places = golibx.Semaphore(self.limit)
        self._jobs: dict[int, _Job] = {}
        # ETAs come from a thread of Celery's: it may not start goroutines, but put into a queue.
        self._given: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._starter = golibx.go(self._start_all)

    def _start_all(self) -> None:
        while job := self._given.get():
            self._places.acquire()
            golibx.go(self._run, job)

    def _run(self, job: _Job) -> None:
        number = _number()
        self._jobs[number] = job
        try:
            job.run()
        except (_Ended, SoftTimeLimitExceeded):
            pass  # it came when the task had ended, or it has ended the task
        finally:
            job.finish()
            del self._jobs[number]
            self._places.release()

    def on_stop(self) -> None:
        """Lets the tasks end that were given."""
        self._given.put(None)
        self._starter.join()
        for job in list(self._jobs.values()):
            job.wait()

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[Any], None] | None = None,
        accept_callback: Callable[..., None] | None = None,
        **options: Any,
    ) -> _Job:
        """Runs a task as soon as there is a place for it."""

        def call(job: _Job) -> None:
            def report(result: object) -> None:
                if callback is not None and not job.is_over:
                    callback(result)

            apply_target(target, args, kwargs, report, accept_callback, pid=_number())

        job = _Job(call, options)
        self._given.put(job)
        return job

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Ends one task: `pid` is what the task was accepted with, its goroutine's id."""
        job = self._jobs.get(pid)
        if job is not None:
            job.end()

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "running": len(self._jobs)}
