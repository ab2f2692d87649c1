"""golibx.integrations.celery: a real worker, with a broker and results in files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import golibx

pytest.importorskip("celery")

from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

ROOT = Path(golibx.__file__).resolve().parent.parent
TASKS = """
import os, time
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

here = os.environ["TASKS_FOLDER"]
for name in ("queue", "results", "control"):
    os.makedirs(os.path.join(here, name), exist_ok=True)
app = Celery("tasks", broker="filesystem://", backend="file://" + os.path.join(here, "results"))
app.conf.broker_transport_options = {
    "data_folder_in": os.path.join(here, "queue"),
    "data_folder_out": os.path.join(here, "queue"),
    "control_folder": os.path.join(here, "control"),
    "polling_interval": 0.02,
}
app.conf.worker_prefetch_multiplier = 0
app.conf.broker_connection_retry_on_startup = True

@app.task
def sleep(seconds):
    time.sleep(seconds)
    return seconds

@app.task
def threads():
    import golibx
    return golibx.stats()["threads"]

@app.task
def fail(text):
    raise ValueError(text)

@app.task
def compute():
    x = 0
    while True:
        x += 1

@app.task(soft_time_limit=0.2)
def compute_softly():
    try:
        compute()
    except SoftTimeLimitExceeded:
        return "ended softly"

@app.task(soft_time_limit=0.2)
def wait_softly():
    time.sleep(100)

@app.task(time_limit=0.3)
def compute_for_ever():
    compute()

@app.task(time_limit=0.3)
def wait_for_ever():
    time.sleep(1000)
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The module of the tasks, as a client has it; a worker is there."""
    folder = tmp_path_factory.mktemp("celery")
    (folder / "golibx_tasks.py").write_text(TASKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TASKS_FOLDER", str(folder))
        patch.syspath_prepend(str(folder))
        import golibx_tasks

        pool = "golibx.integrations.celery:TaskPool"
        command = [sys.executable, "-m", "golibx", "run", "-m", "celery", "-A", "golibx_tasks"]
        command += ["worker", "--pool", "custom", "--concurrency", "100", "--without-gossip"]
        path = os.pathsep.join((str(ROOT), str(folder)))
        environment = {**os.environ, "CELERY_CUSTOM_WORKER_POOL": pool, "PYTHONPATH": path}
        with open(folder / "log", "w") as log:
            worker = subprocess.Popen(command, cwd=folder, env=environment, stderr=log, stdout=log)
            try:
                yield golibx_tasks
                worker.terminate()
                assert worker.wait(60) == 0, (folder / "log").read_text()
            finally:
                worker.kill()
                worker.wait()
        del sys.modules["golibx_tasks"]


LIMIT = 60.0


def test_many_tasks_wait_at_once(tasks: ModuleType) -> None:
    results = [tasks.sleep.delay(0.2) for _ in range(100)]
    assert [result.get(LIMIT) for result in results] == [0.2] * 100
    assert tasks.threads.delay().get(LIMIT) < 20


def test_what_a_task_raises_is_its_result(tasks: ModuleType) -> None:
    with pytest.raises(ValueError, match="of the task"):
        tasks.fail.delay("of the task").get(LIMIT)


def test_a_soft_limit_ends_what_computes_and_what_waits(tasks: ModuleType) -> None:
    computing, waiting = tasks.compute_softly.delay(), tasks.wait_softly.delay()
    assert computing.get(LIMIT) == "ended softly"
    with pytest.raises(SoftTimeLimitExceeded):
        waiting.get(LIMIT)


def test_a_hard_limit_ends_what_computes_and_what_waits(tasks: ModuleType) -> None:
    results = [tasks.compute_for_ever.delay(), tasks.wait_for_ever.delay()]
    assert tasks.sleep.delay(0).get(LIMIT) == 0  # others go on
    for result in results:
        with pytest.raises(TimeLimitExceeded):
            result.get(LIMIT)
    assert tasks.sleep.delay(0).get(LIMIT) == 0


def test_a_revoked_task_ends(tasks: ModuleType) -> None:
    result = tasks.sleep.delay(1000)
    other = tasks.sleep.delay(0.1)
    assert other.get(LIMIT) == 0.1
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(LIMIT)


def test_a_task_with_a_countdown(tasks: ModuleType) -> None:
    assert tasks.sleep.apply_async((0.01,), countdown=0.2).get(LIMIT) == 0.01
