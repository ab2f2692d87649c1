"""`python -m golibx.include`: what a Makefile or a shell needs to compile with golibx.h."""

from __future__ import annotations

import argparse
import sys

from golibx import include

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = """\
examples:
  cc hello.c $(python -m golibx.include --cflags --libs) -o hello
  python -m ziglang cc hello.c $(python -m golibx.include --cflags --libs) -o hello
  cc -I$(python -m golibx.include) -c hello.c

The program that these make runs without Python. It looks for the library where it is now; use
-Wl,-rpath,'$ORIGIN' and the path that --library prints for one that is shipped with a copy of it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what was asked for, on one line."""
    parser = argparse.ArgumentParser(
        prog="python -m golibx.include",
        description="Prints the folder that holds golibx.h, Go's concurrency for C and others.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--library", action="store_true", help="the path of the shared library, instead"
    )
    parser.add_argument(
        "--cflags", action="store_true", help="the compiler's arguments, instead: -I and the folder"
    )
    parser.add_argument(
        "--libs",
        action="store_true",
        help="the linker's arguments, instead: the library, and an rpath to its folder",
    )
    options = parser.parse_args(arguments)
    try:
        parts = []
        if options.cflags:
            parts.append(include.join(include.cflags()))
        if options.libs:
            parts.append(include.join(include.libs()))
        if options.library:
            parts.append(include.library())
        print(" ".join(parts) or include.folder())
    except FileNotFoundError as exc:
        print(f"golibx: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
