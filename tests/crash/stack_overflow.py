# Recursion through C with the interpreter's own limits out of the way.
# before 3.12: from then on a count of C calls that fits the stack ends it sooner.
# exits with -6
# stderr has ^(golibx: fatal: goroutine 2 overflowed its stack of 64 KiB; .*)$
# stderr has stack\.size in golib\.toml$
# stderr has in __eq__
import ctypes
import sys

import golibx

sys.setrecursionlimit(1_000_000)
compare_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
libc = ctypes.CDLL(None)


class Deep:
    def __eq__(self, other: object) -> bool:
        numbers = (ctypes.c_int * 2)(1, 2)
        libc.qsort(numbers, 2, 4, compare_type(lambda a, b: int(self == other)))
        return True

    __hash__ = None  # type: ignore[assignment]


golibx.run(
    lambda: golibx.go(lambda: Deep() == Deep()).result(), config={"stack": {"size": "64KiB"}}
)
