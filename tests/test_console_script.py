"""golibx as its users have it: the console script that an installation brings.

The script is `__main__` when it begins, as `python -m golibx` is not, and its arguments, its path
and its exit code are what a shell sees.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

GOLIBX = Path(sysconfig.get_path("scripts")) / ("golibx.exe" if os.name == "nt" else "golibx")
Result = subprocess.CompletedProcess[str]


def golibx(folder: Path, *arguments: str, env: dict[str, str] | None = None, **more: str) -> Result:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GOLIB_")}
    return subprocess.run(
        [GOLIBX, *arguments],
        cwd=folder,
        env={**environment, **(env or {})},
        text=True,
        timeout=60,
        capture_output=True,
        check=False,
        **more,  # type: ignore[arg-type]
    )


NO_FRAMES = {
    "syntax error": ("x = = 1\n", "SyntaxError: invalid syntax"),
    "null byte": ("x = '\0'\n", "null bytes"),
    "encoding": ("# coding: no-such\n", "unknown encoding: no-such"),
    "not UTF-8": ("\udcff\n", "SyntaxError"),
    "indentation": ("if 1:\nx = 1\n", "IndentationError"),
}


@pytest.mark.parametrize("name", NO_FRAMES)
def test_an_error_without_frames_of_the_program(tmp_path: Path, name: str) -> None:
    """The interpreter ended with a use of what nobody held any more, until 3.12."""
    text, message = NO_FRAMES[name]
    (tmp_path / "program.py").write_text(text, errors="surrogateescape")
    result = golibx(tmp_path, "run", "program.py")
    assert (result.returncode, result.stdout) == (1, ""), result.stderr
    assert message in result.stderr
    assert "golibx/" not in result.stderr


def test_a_program_that_has_no_frames_because_it_has_no_code(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "folder").mkdir()
    assert golibx(tmp_path, "run", "empty.py").returncode == 0
    for arguments in (["folder"], ["none.py"], ["-m", "none"]):
        result = golibx(tmp_path, "run", *arguments)
        assert result.returncode in (1, 2), result.stderr
