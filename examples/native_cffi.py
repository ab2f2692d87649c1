"""A worker in C, as far as the C library has one: cffi, and golibx.h through it.

golibx run examples/native_cffi.py        needs cffi: pip install cffi

Declarations of golibx.h are given to ffi.cdef() as they are. What the program calls by
`native.call` runs as a native goroutine: so golibx_chan_recv() below waits in C, for what Python
sends.
"""

import ctypes

import cffi

from golibx import go, native

ffi = cffi.FFI()
ffi.cdef("""
    typedef struct golibx_chan golibx_chan;
    int golibx_chan_recv(golibx_chan *c, void *elem);
    uint64_t golibx_goid(void);
    const char *golibx_strerror(int code);
    double hypot(double x, double y);
""")
golibx_h = ffi.dlopen(native.library())
libm = ffi.dlopen("libm.so.6")


def main() -> None:
    print("hypot:", native.call(libm.hypot, 3, 4))

    numbers = native.Chan(ctypes.c_int64)
    chan = ffi.cast("golibx_chan *", numbers.address)
    received = ffi.new("int64_t *")

    def send() -> None:
        for number in range(3):
            numbers.send(number)
        numbers.close()

    go(send)
    while (code := native.call(golibx_h.golibx_chan_recv, chan, received)) == 0:
        print("received in C:", received[0])
    print("then:", ffi.string(native.call(golibx_h.golibx_strerror, code)).decode())


main()
