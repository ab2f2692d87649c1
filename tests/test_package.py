"""What the wheel and the sdist contain, and that the tests run against the installed wheel.

`make test` says by GOLIBX_DIST where the two are; a test run by hand has none to look at.
"""

from __future__ import annotations

import os
import re
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from email.message import Message
from fnmatch import fnmatch
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path, PurePosixPath

import pytest

import golibx
from golibx import _core

ROOT = Path(__file__).resolve().parent.parent
DIST = os.environ.get("GOLIBX_DIST")

pytestmark = pytest.mark.skipif(not DIST, reason="GOLIBX_DIST names no folder with a wheel")

BINARIES = ("*.so", "*.pyd", "*.dll", "*.pdb", "*.o")


PAGE = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "golibx" / "plugins" / "dashboard_page").rglob("*")
    if path.is_file()
}
"""Of the plugin dashboard, with the library that it uses."""


@pytest.fixture(scope="module")
def wheel() -> zipfile.ZipFile:
    (path,) = Path(str(DIST)).glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def sdist() -> set[str]:
    """The names of its files, relative to its folder."""
    (path,) = Path(str(DIST)).glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}


def read_headers(wheel: zipfile.ZipFile, name: str) -> Message:
    (path,) = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
    return message_from_string(wheel.read(path).decode())


def sources(folder: str, *patterns: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for pattern in patterns
        for path in (ROOT / folder).rglob(pattern)
    }


def test_tests_run_on_the_installed_wheel() -> None:
    for module in (golibx, _core):
        path = Path(str(module.__file__)).resolve()
        assert path.is_relative_to(Path(sys.prefix).resolve())
        assert "site-packages" in path.parts
    assert not (Path.cwd() / "golibx").exists()


def test_wheel_is_the_package_and_the_library(wheel: zipfile.ZipFile) -> None:
    library = "golibx/_core.pyd" if sys.platform == "win32" else "golibx/_core.abi3.so"
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    python = sources("golibx", "*.py", "*.pyi", "py.typed") | sources("pytest_golibx", "*.py")
    assert files == python | PAGE | {
        library,
        "golibx/include/golibx.h",
    }


def test_wheel_is_tagged_for_one_platform_and_all_versions(wheel: zipfile.ZipFile) -> None:
    headers = read_headers(wheel, "WHEEL")
    assert headers["Root-Is-Purelib"] == "false"
    assert re.fullmatch(r"cp311-abi3-(manylinux_2_17|macosx_11_0|win)_\w+", headers["Tag"])
    assert f"-{headers['Tag']}.whl" in str(wheel.filename)


def test_library_asks_for_no_newer_glibc_than_its_tag(wheel: zipfile.ZipFile) -> None:
    if sys.platform != "linux":
        pytest.skip("Linux only")
    wanted = re.findall(rb"\0GLIBC_2\.(\d+)", wheel.read("golibx/_core.abi3.so"))
    assert wanted
    assert max(map(int, wanted)) <= 17


def test_library_is_not_linked_with_python(wheel: zipfile.ZipFile) -> None:
    """The same library is loaded by every version; a libpython would tie it to one."""
    if sys.platform != "linux":
        pytest.skip("Linux only")
    assert b"libpython" not in wheel.read("golibx/_core.abi3.so")


def test_pytest_finds_the_plugin(wheel: zipfile.ZipFile) -> None:
    (plugin,) = entry_points(group="pytest11", name="pytest_golibx")
    assert plugin.value == "pytest_golibx"
    assert read_headers(wheel, "METADATA")["Name"] == distribution_of(plugin)


def distribution_of(entry_point: EntryPoint) -> str:
    assert entry_point.dist is not None
    return entry_point.dist.name


def test_metadata(wheel: zipfile.ZipFile) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headers = read_headers(wheel, "METADATA")
    assert headers["Name"] == "golibx"
    assert headers["Version"] == golibx.__version__ == version("golibx")
    assert headers["Requires-Python"] == project["requires-python"]
    required = headers.get_all("Requires-Dist", [])
    assert sorted(line for line in required if "extra ==" not in line) == sorted(
        project["dependencies"]
    )
    assert headers["License-Expression"] == "Apache-2.0"
    assert headers.get_payload()
    for licence in project["license-files"]:
        assert any(name.endswith(f"/licenses/{licence}") for name in wheel.namelist())


def test_sdist_builds_the_wheel(sdist: set[str]) -> None:
    """All that the build reads is there, and nothing that it makes."""
    needed = {"pyproject.toml", "hatch_build.py", "build.zig", "README.md", "LICENSE", "PKG-INFO"}
    needed |= sources("zsrc", "*.zig", "*.h") | sources("golibx", "*.py", "*.pyi", "py.typed")
    needed |= sources("pytest_golibx", "*.py")
    assert needed | PAGE <= sdist
    made = [name for name in sdist for pattern in BINARIES if fnmatch(name, pattern)]
    made += [name for name in sdist if name.startswith(("build/", "zig-out/", ".venv/", ".zig"))]
    assert not made


def test_sdist_can_be_tested(sdist: set[str]) -> None:
    needed = {
        "Makefile",
        "mkdocs.yml",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "config/golib.toml",
        ".ci/run",
    }
    needed |= sources("tests", "*.py", "*.c", "*.h") | sources("tools", "*.py")
    needed |= sources("bench", "*.py") | sources(
        "examples", "*.py", "*.c", "*.md", "*.toml", "*.yml"
    )
    assert needed | sources("docs", "*.md") <= sdist
