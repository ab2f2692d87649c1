# before 3.12: from then on a count of C calls that fits the stack ends it sooner.
# exits with -6
# stderr has ^(golibx: fatal: goroutine 1 overflowed its stack of 128 KiB; .*)$
# stderr has stack\.main_size in golib\.toml$
import ctypes
import sys

import golibx

sys.setrecursionlimit(1_000_000)
compare_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
libc = ctypes.CDLL(None)


def deep() -> int:
    numbers = (ctypes.c_int * 2)(1, 2)
    libc.qsort(numbers, 2, 4, compare_type(lambda a, b: deep()))
    return 0


golibx.run(deep, config={"stack": {"main_size": "128KiB"}})
