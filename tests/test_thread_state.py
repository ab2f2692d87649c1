"""What a thread keeps for the code on it belongs to the goroutine, from its start to its end."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import operator
import os
import platform
import sys
import time
from pathlib import Path

import pytest

from conftest import Script, c_library
from golibx import Chan, go, gosched, sleep

pytestmark = pytest.mark.goroutine

UPWARD = 0x800  # FE_UPWARD of x86-64
TENTHS = [0.1] * 10


def ten_tenths() -> float:
    return functools.reduce(operator.add, TENTHS)


x86_64_only = pytest.mark.skipif(
    os.name == "nt" or platform.machine() not in {"x86_64", "AMD64"},
    reason="the constants are those of x86-64's C library",
)


@x86_64_only
def test_the_rounding_mode_is_the_goroutines() -> None:
    """Some goroutines round up: the others do not, and they do still."""
    m = ctypes.PyDLL(None if sys.platform == "darwin" else "libm.so.6")

    def upward() -> bool:
        m.fesetround(UPWARD)
        for _ in range(30):
            gosched()
            time.sleep(0.0002)
            sleep(0)
            if m.fegetround() != UPWARD or ten_tenths() == 0.9999999999999999:
                return False
        m.fesetround(0)
        return True

    def nearest() -> bool:
        for _ in range(30):
            gosched()
            time.sleep(0.0002)
            if m.fegetround() != 0 or ten_tenths() != 0.9999999999999999:
                return False
        return True

    goroutines = [go(fn) for _ in range(3) for fn in (upward, nearest)]
    assert [g.result() for g in goroutines] == [True] * 6


@x86_64_only
@pytest.mark.goroutine(False)
def test_a_signal_handler_rounds_as_the_main_goroutine(script: Script) -> None:
    """Whichever thread raises the signal, and whether or not main waits. Nothing traps."""
    program = f"""
import ctypes, os, signal, sys
from golibx import go, gosched, run, sleep
m = ctypes.PyDLL(None if sys.platform == "darwin" else "libm.so.6")
seen = []
def handler(*_):
    seen.append((m.fegetround(), m.fegetexcept() if sys.platform == "linux" else 0, 1 / 3))
def raises():
    m.fesetround({UPWARD})
    signal.raise_signal(signal.SIGUSR1)
    gosched()
def main():
    signal.signal(signal.SIGUSR1, handler)
    signal.raise_signal(signal.SIGUSR1)
    go(raises).join()
    for n in range(3, 6):
        go(os.kill, os.getpid(), signal.SIGUSR1).join()
        while len(seen) < n: sleep(0.0005)
    print(len(seen), set(seen))
run(main)
"""
    assert script.passes(program) == "5 {(0, 0, 0.3333333333333333)}\n"


@x86_64_only
def test_a_goroutine_starts_with_the_rounding_mode_of_its_starter() -> None:
    """As a thread does; also on the stack of one that has just ended with another mode."""
    m = ctypes.PyDLL(None if sys.platform == "darwin" else "libm.so.6")
    m.fesetround(UPWARD)
    up = [go(m.fegetround) for _ in range(3)]
    m.fesetround(0)
    down = [go(fn, *args) for fn, *args in [(m.fesetround, UPWARD), (m.fegetround,)] * 3]
    assert [g.result() for g in up] == [UPWARD] * 3
    assert [g.result() for g in down] == [0] * 6
    assert m.fegetround() == 0


def leave_hooks() -> None:
    sys.set_asyncgen_hooks(firstiter=print, finalizer=print)
    sys.set_coroutine_origin_tracking_depth(7)


def leave_tracing() -> None:
    sys.settrace(lambda *_: None)
    sys.setprofile(lambda *_: None)


def kept() -> tuple[object, ...]:
    hooks = sys.get_asyncgen_hooks()
    depth = sys.get_coroutine_origin_tracking_depth()
    loop = asyncio._get_running_loop()
    return hooks.firstiter, hooks.finalizer, depth, sys.gettrace(), sys.getprofile(), loop


@pytest.mark.parametrize("leave", [leave_hooks, leave_tracing])
def test_the_next_goroutine_finds_nothing_of_the_last(leave: object) -> None:
    before = kept()
    for _ in range(3):
        go(leave).join()  # type: ignore[arg-type]
        assert go(kept).result() == (None, None, 0, None, None, None)
    assert kept() == before


def test_hooks_belong_to_the_goroutine_that_set_them() -> None:
    ch = Chan[int]()

    def first() -> object:
        leave_hooks()
        ch.send(1)
        ch.send(2)
        return sys.get_asyncgen_hooks().firstiter

    g = go(first)
    ch.recv()
    assert go(kept).result() == (None, None, 0, None, None, None)
    ch.recv()
    assert g.result() is print


def test_no_thread_state_is_left_after_a_run(script: Script) -> None:
    """They would be threads without frames: sys and faulthandler show them."""
    script.passes("""
import golibx.net, sys
from golibx import go, lock_os_thread, run

def threads():
    for g in [go(lock_os_thread) for _ in range(5)]: g.result()
def with_network():
    golibx.net.listen(("127.0.0.1", 0)).close()
    threads()
before = list(sys._current_exceptions())
for main in (threads, with_network, threads):
    run(main)
    assert list(sys._current_exceptions()) == before
""")


def test_hooks_of_the_program_are_its_own_after_a_run(script: Script) -> None:
    out = script.passes(
        """
import sys
from golibx import go, run
sys.set_coroutine_origin_tracking_depth(3)
def inner():
    return sys.get_coroutine_origin_tracking_depth()
print(run(lambda: (inner(), go(inner).result())), inner())
"""
    )
    assert out == "(3, 0) 3\n"


GUARD = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

/* Blocks of calloc() that may be thread states end at a page that no code may read. */
enum { PAGE = 4096, SLOTS = 4096 };
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_malloc(size_t);
extern void *__libc_realloc(void *, size_t);
extern void __libc_free(void *);
static char *slab;
static size_t used;
static size_t (*plain_size)(void *);

static int guarded(const void *p) {
    return slab && (const char *)p >= slab && (const char *)p < slab + (size_t)SLOTS * 2 * PAGE;
}
static size_t left(const void *p) { return PAGE - ((uintptr_t)p & (PAGE - 1)); }

void *calloc(size_t n, size_t size) {
    size_t bytes = (n * size + 15) & ~(size_t)15;
    if (bytes < 256 || bytes > 2048 || used == SLOTS) return __libc_calloc(n, size);
    if (!slab) slab = mmap(0, (size_t)SLOTS * 2 * PAGE, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *page = slab + used++ * 2 * PAGE;
    mprotect(page, PAGE, PROT_READ | PROT_WRITE);
    return page + PAGE - bytes;
}
void free(void *p) { if (!guarded(p)) __libc_free(p); }
void *realloc(void *p, size_t size) {
    if (!guarded(p)) return __libc_realloc(p, size);
    void *copy = __libc_malloc(size);
    if (copy) memcpy(copy, p, size < left(p) ? size : left(p));
    return copy;
}
size_t malloc_usable_size(void *p) {
    if (guarded(p)) return left(p);
    if (!plain_size) plain_size = dlsym(RTLD_NEXT, "malloc_usable_size");
    return plain_size(p);
}
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc",
    reason="the C library's allocator is replaced, which is glibc's",
)
@pytest.mark.parametrize("allocator", ["malloc", "malloc_debug", "pymalloc"])
def test_nothing_behind_a_thread_state_is_read(
    script: Script, tmp_path: Path, allocator: str
) -> None:
    """A thread state may lie where the memory ends."""
    library = c_library(tmp_path, "guard", GUARD, "-ldl")
    program = "import golibx\nprint(golibx.run(lambda: golibx.go(int).result()))\n"
    environment = {"LD_PRELOAD": str(library), "PYTHONMALLOC": allocator}
    assert script.passes(program, env=environment) == "0\n"
