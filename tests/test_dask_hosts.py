"""golibx.integrations.dask on several hosts, which are network namespaces: see dask_checks.py."""

from __future__ import annotations

import json
import sys

import pytest

from conftest import Script
from test_dask import CHECKS, LIMIT

pytest.importorskip("distributed")


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_the_tasks_of_a_host_that_is_lost(script: Script) -> None:
    found = json.loads(script.passes(CHECKS, "hosts", limit=LIMIT))
    if "skipped" in found:
        pytest.skip(f"no network namespaces can be made: {found['skipped']}")
    assert found == {"many_tasks_at_once": "", "another_worker_does_the_tasks": ""}
