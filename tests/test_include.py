"""golibx.h, and how programs find it: golibx.include, `python -m golibx.include`, `golibx info`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from golibx import _core, include
from golibx.include.__main__ import main

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = "_core.pyd" if sys.platform == "win32" else "_core.abi3.so"


def execute(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def output(*arguments: str) -> str:
    result = execute(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_the_header_is_the_one_in_the_sources() -> None:
    text = Path(include.header()).read_text(encoding="utf-8")
    assert text == (ROOT / "zsrc" / "golibx.h").read_text(encoding="utf-8")
    assert re.search(r"^#define GOLIBX_ABI_VERSION \d+$", text, re.MULTILINE)
    assert Path(include.header()).parent == Path(include.folder())


def test_the_library_is_the_one_that_python_loaded() -> None:
    path = Path(include.library())
    assert path.name == LIBRARY
    assert path.samefile(str(_core.__file__))


def test_flags() -> None:
    assert include.cflags() == [f"-I{include.folder()}"]
    path, *others = include.libs()
    assert path == include.library()
    if sys.platform != "win32":
        assert others == [f"-Wl,-rpath,{Path(path).parent}"]


def test_command() -> None:
    assert output("golibx.include") == f"{include.folder()}\n"
    assert output("golibx.include", "--library") == f"{include.library()}\n"
    assert shlex.split(output("golibx.include", "--cflags")) == include.cflags()
    both = output("golibx.include", "--cflags", "--libs")
    assert shlex.split(both) == include.cflags() + include.libs()


def test_info_has_the_paths_too() -> None:
    assert output("golibx", "info", "--include") == f"{include.folder()}\n"
    assert output("golibx", "info", "--library") == f"{include.library()}\n"


def test_help_is_a_recipe() -> None:
    text = output("golibx.include", "--help")
    assert "$(python -m golibx.include --cflags --libs)" in text
    for option in ("--library", "--cflags", "--libs"):
        assert option in text
    assert "golibx.include --help" in output("golibx", "info", "--help")


def test_unknown_option() -> None:
    result = execute("golibx.include", "--lib-folder")
    assert result.returncode == 2
    assert "--lib-folder" in result.stderr


def test_paths_with_spaces_are_quoted() -> None:
    arguments = ["-I/home/my name/include", "-lm"]
    assert shlex.split(include.join(arguments)) == arguments


def test_missing_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(include, "_HERE", tmp_path)
    monkeypatch.setattr(include, "_SOURCES", tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        include.folder()
    assert main([]) == 1
    assert capsys.readouterr().err.startswith("golibx: this golibx was installed without golibx.h")
    assert main(["--library"]) == 0


def test_an_editable_install_has_the_header(tmp_path: Path) -> None:
    """There it is not in the package, and comes from zsrc."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if not (ROOT / "golibx" / LIBRARY).exists():
        pytest.skip("the source tree has no library")
    result = subprocess.run(
        [sys.executable, "-m", "golibx.include"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert result.stdout == f"{ROOT / 'zsrc'}\n"
