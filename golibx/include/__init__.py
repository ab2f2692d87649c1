"""Where a C compiler finds golibx: the folder of golibx.h, the library, and the flags for both.

`python -m golibx.include` prints them for a Makefile. The library is the one that Python imports:
a program that is linked with it needs no Python to run.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from golibx import _core

__all__ = ["cflags", "folder", "header", "library", "libs"]

_HERE = Path(__file__).resolve().parent
# An editable install has golibx.h where it is written.
_SOURCES = _HERE.parent.parent / "zsrc"


def folder() -> str:
    """The folder that a compiler is told by -I. Raises FileNotFoundError if golibx.h is missing."""
    for path in (_HERE, _SOURCES):
        if (path / "golibx.h").is_file():
            return str(path)
    raise FileNotFoundError(f"this golibx was installed without golibx.h: it is not in {_HERE}")


def header() -> str:
    """The path of golibx.h. Raises FileNotFoundError if it is missing."""
    return str(Path(folder()) / "golibx.h")


def library() -> str:
    """The path of the shared library: _core.abi3.so, on Windows _core.pyd."""
    return str(Path(_core.__file__).resolve())


def cflags() -> list[str]:
    """The compiler's arguments that make `#include "golibx.h"` work."""
    return [f"-I{folder()}"]


def libs() -> list[str]:
    """The linker's arguments: the library, and that a program looks for it where it is now."""
    path = library()
    if sys.platform == "win32":  # a program has its libraries beside it, or on PATH
        return [str(_HERE / "_core.lib")]
    return [path, f"-Wl,-rpath,{Path(path).parent}"]


def join(arguments: list[str]) -> str:
    """Arguments as a shell reads them."""
    return shlex.join(arguments)
