"""golibx.integrations.dask: real schedulers, workers and clients, which are in dask_checks.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Script

pytest.importorskip("distributed")

CHECKS = Path(__file__).with_name("dask_checks.py")
LIMIT = 55.0

NAMES = [
    # A worker of a process that has others beside it.
    "a_worker_of_this_process",
    "a_worker_in_a_run",
    # Workers of a LocalCluster, with nannies; by `dask worker`; by `golibx run -m dask worker`.
    "many_tasks_at_once",
    "another_worker_does_the_tasks",
    "a_task_that_computes_delays_nobody",
    "what_a_task_raises_is_its_result",
    "a_cancelled_task_does_not_begin",
    "tasks_of_tasks",
    "a_nanny_starts_its_worker_anew",
    "a_worker_ends",
    "nothing_is_left_of_a_cluster",
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What was wrong, by the checks' names. One process makes all of them, which is quicker."""
    script = Script(tmp_path_factory.mktemp("dask"))
    found: dict[str, str] = json.loads(script.passes(CHECKS, "one-host", limit=LIMIT))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_workers(outcomes: dict[str, str], name: str) -> None:
    assert [*outcomes] == NAMES
    assert not outcomes[name], outcomes[name]
