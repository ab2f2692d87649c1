"""Machine code from Python source, on all processors: numba.

golibx run examples/native_numba.py [HOW_MANY_TERMS]        needs numba: pip install numba

A numba cfunc is a C function. The workers below are native goroutines: each receives pieces of
Leibniz's series for pi from one channel, and sends their sums to another.
"""

# mypy: disallow-untyped-decorators=False

import ctypes
import sys
from typing import Any

import numba
import numpy as np

from golibx import go, gomaxprocs, native

lib = ctypes.CDLL(native.library())
receive, send = lib.golibx_chan_recv, lib.golibx_chan_send
receive.argtypes = send.argtypes = (ctypes.c_void_p, ctypes.c_void_p)

PIECES = 100


@numba.cfunc("void(CPointer(int64))")
def worker(job: Any) -> None:
    """job: addresses of the two channels, terms a piece."""
    pieces, sums, terms = job[0], job[1], job[2]
    piece = np.zeros(1, np.int64)
    total = np.zeros(1, np.float64)
    while receive(pieces, piece.ctypes) == 0:
        x = 0.0
        for k in range(piece[0] * terms, (piece[0] + 1) * terms):
            x += (1.0 - 2.0 * (k % 2)) / (2 * k + 1)
        total[0] = 4 * x
        send(sums, total.ctypes)


def main(how_many: int) -> None:
    pieces, sums = native.Chan(ctypes.c_int64), native.Chan(ctypes.c_double, PIECES)
    job = np.array([pieces.address, sums.address, how_many // PIECES])
    workers = [native.go(worker, job) for _ in range(gomaxprocs())]

    def hand_out() -> None:
        for piece in range(PIECES):
            pieces.send(piece)
        pieces.close()

    go(hand_out)
    print(f"pi is about {sum(sums.recv() for _ in range(PIECES)):.6f}")
    for each in workers:
        each.join()


main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000_000)
