"""Sorts with the C library's qsort on all processors, without a compiler: ctypes.

golibx run examples/native_ctypes.py [HOW_MANY_STRINGS]

Each array is sorted by a goroutine of its own; `native.call` runs qsort, with strcmp to compare, on
the native lane, where calls run in parallel and hold no lock of the interpreter. Meanwhile the
main goroutine ticks.
"""

import ctypes
import random
import sys
import time

from golibx import WaitGroup, go, gomaxprocs, native, sleep, stats

WIDTH = 16
libc = ctypes.CDLL(None)
libc.qsort.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)
libc.qsort.restype = None


def main(how_many: int) -> None:
    numbers = random.Random(1)
    arrays = [
        bytearray(b"".join(b"%015d\0" % numbers.randrange(10**15) for _ in range(how_many)))
        for _ in range(gomaxprocs())
    ]
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            sleep(0.001)
            ticks += 1

    go(tick)
    began = time.perf_counter()
    group = WaitGroup()
    for strings in arrays:
        group.go(native.call, libc.qsort, strings, how_many, WIDTH, libc.strcmp)
    group.wait()
    ms = 1000 * (time.perf_counter() - began)

    for strings in arrays:
        rows = [strings[i : i + WIDTH] for i in range(0, len(strings), WIDTH)]
        assert rows == sorted(rows)
    print(f"sorted {len(arrays)} arrays of {how_many} strings in {ms:.0f} ms")
    print(f"ticks meanwhile: {ticks}; native goroutines started: {stats()['native_spawns']}")


main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
