"""The native lane under storms: the short form of tests/native_stress, in processes without Python.

Each storm runs on one processor and on several, preempted every 100 us in registered text, with
threads only, and not at all. `make stress ARGS=--times=50` is the long form.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

from golibx import include

HERE = Path(__file__).resolve().parent / "native_stress"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("native_stress_run", HERE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load()

pytestmark = [
    pytest.mark.limit(2 * run.SLOWEST + 40),
    pytest.mark.skipif(os.name != "posix", reason="the storms are for POSIX"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if run.find_compiler() is None:
        pytest.skip("there is no C compiler: neither cc nor ziglang")
    header = Path(include.header()).parent
    built = run.build(tmp_path_factory.mktemp("stress"), header, Path(include.library()))
    assert isinstance(built, Path)
    return built


@pytest.mark.parametrize("procs", [1, 3])
@pytest.mark.parametrize("storm", run.STORMS)
def test_storm(program: Path, storm: str, procs: int, capsys: pytest.CaptureFixture[str]) -> None:
    # Which way a storm is preempted in takes turns: make stress has them all.
    way = list(run.WAYS)[(run.STORMS.index(storm) + procs) % len(run.WAYS)]
    options = run.parse(["--seconds", "0"])
    passed = run.passes(program, run.Run(storm, procs, way, 1), options)
    assert passed, capsys.readouterr().out
