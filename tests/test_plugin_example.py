"""The package in examples/plugin: installed in an environment of its own, as a user does.

That has golibx and pytest from the environment of these tests; pip builds the package and installs
it beside them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

import golibx
from golibx.config import Key
from golibx.errors import toml_value

EXAMPLE = Path(__file__).parent.parent / "examples" / "plugin"
PROGRAM = """
import logging, golibx
logging.basicConfig()
ch = golibx.Chan()
g = golibx.go(ch.recv)
golibx.sleep(0.02)
ch.send(1)
g.join()
"""


class Environment:
    """A virtual environment with the package in it."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "slowwait"
        shutil.copytree(EXAMPLE, self.source, ignore=shutil.ignore_patterns("__pycache__"))
        venv.create(folder / "venv", symlinks=True)
        self._python = folder / "venv" / "bin" / "python"
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = Path(self("-c", code).stdout.strip())
        packages = [Path(golibx.__file__).parent.parent, Path(pytest.__file__).parent.parent]
        site.joinpath("these_tests.pth").write_text("\n".join(map(str, packages)))
        # By the pip of these tests: to install another one takes longer than all the rest.
        pip = ("-m", "pip", "--python", str(self._python), "install", "--quiet", "--no-deps")
        self(*pip, str(self.source), python=sys.executable)

    def __call__(
        self, *arguments: str, status: int = 0, python: str = ""
    ) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GOLIB", "PYTEST"))}
        result = subprocess.run(
            [python or str(self._python), *arguments],
            cwd=self._python.parent.parent.parent,
            env={**kept, "NO_COLOR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )
        assert result.returncode == status, result.stdout + result.stderr
        return result


@pytest.mark.limit(300)
@pytest.mark.skipif(os.name != "posix", reason="the folders of the environment are POSIX's")
def test_the_package(tmp_path: Path) -> None:
    python = Environment(tmp_path)
    # Its own tests, on what is installed.
    shutil.rmtree(python.source / "src")
    result = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(python.source))
    assert re.search(r"^9 passed", result.stdout, re.M), result.stdout
    # golibx finds it by its entry point, and only where it is enabled.
    rows = python("-m", "golibx", "plugins").stdout.splitlines()
    (row,) = [row for row in rows if row.startswith("slowwait")]
    assert row.split()[1:3] == ["installed", "no"]
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = ("-m", "golibx", "run", "--set", "plugins.slowwait.limit=10ms")
    assert python(*run, str(program)).stderr == ""
    said = python(*run, "--set", "plugins.enabled=slowwait", str(program)).stderr
    assert re.search(
        r"^WARNING:golibx_slowwait:goroutine \d+ \(python\) waited \d+ ms: chan receive$",
        said,
        re.M,
    )
    options = ("--set", "plugins.enabled=slowwait", "--set", "plugins.slowwait.limit=0")
    said = python("-m", "golibx", "run", *options, str(program), status=2).stderr
    assert "plugins.slowwait.limit" in said
    assert "(allowed: 1ms to 24h)" in said


def test_what_its_pages_say() -> None:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["golibx"] == {"slowwait": "golibx_slowwait"}
    assert project["dependencies"] == ["golibx>=0.1"]
    namespace: dict[str, object] = {}
    source = (EXAMPLE / "src" / "golibx_slowwait" / "__init__.py").read_text(encoding="utf-8")
    exec(source, namespace)
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    keys = namespace["KEYS"]
    assert isinstance(keys, tuple)
    for key in keys:
        assert isinstance(key, Key)
        allowed = key.allowed.partition(", such as")[0]
        row = f"| `{key.name}` | `{toml_value(key.default)}` | {allowed} | {key.description} |"
        assert row in readme
    workflow = (EXAMPLE / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    for version in re.findall(r'"(3\.\d+)"', workflow):
        assert version >= project["requires-python"].removeprefix(">=")
    assert sys.version_info >= (3, 11)
