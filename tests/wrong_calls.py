"""Calls what golibx._core has with wrong arguments: `python wrong_calls.py main|run [name]...`.

Each function and type is called in a process of its own, outside of a run or as the main goroutine
of one, with values of all types, golibx's own included, and with 0 to 6 of them. Prints the name of
each that ends its process by a crash. One that waits is ended after LIMIT seconds.
"""

from __future__ import annotations

import gc
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from ctypes import c_int
from typing import Any

import golibx
from golibx import _core, context, go, native, sync

LIMIT = 5
NO_VALUES = 9  # status
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}


class Own:
    pass


def plain() -> list[Any]:
    frame = sys._getframe()
    numbers = [None, True, 0, 1, -1, 99_999, 1 << 31, 1 << 40, 1 << 64, -1 << 70, 1.5, float("nan")]
    texts = ["x", "", "\udcff", "ii", b"x", bytearray(1)]
    types = [object(), int, Own, Own(), ValueError, ValueError(), len, plain, iter([1])]
    containers = [[], [1], (), (1, 2), ((1, 2),), {}, {1: 2}, {"a": object()}]
    return [*numbers, *texts, *types, *containers, frame, frame.f_code, lambda *args: args]


def own() -> list[Any]:
    channel: golibx.Chan[int] = golibx.Chan(1)
    objects: list[Any] = [
        channel, channel.sender(), channel.receiver(), channel.on_recv(),
        golibx.Mutex(), golibx.RWMutex(), golibx.Cond(golibx.Mutex()), golibx.Once(),
        golibx.WaitGroup(), golibx.Event(), sync.Pool(int), sync.Semaphore(1), sync.AtomicInt(),
        sync.Barrier(2), context.background(), context.with_cancel(context.background())[0],
        native.Chan(c_int, 1), _core.Guard(), _core.whole(lambda: 1),
    ]  # fmt: skip
    me = golibx.current()
    if me is not None:
        goroutine = go(golibx.Chan[int]().recv)
        golibx.gosched()
        golibx.leaks()  # finds out about frames
        stacks = [1, (1,), ((1,) * 7,), ((sys._getframe(), 0, 0, 0, 0, 0, (1,)),)]
        objects += [me, goroutine, *(((goroutine, stack),) for stack in stacks)]
        objects += [golibx.after(100), golibx.Timer(100), golibx.Ticker(100)]
    return objects


def call_wrongly(name: str) -> None:
    function: Callable[..., object] = getattr(_core, name)
    try:
        values = plain() + own()
    except BaseException:
        os._exit(NO_VALUES)
    chance = random.Random(name)
    calls: list[tuple[Any, ...]] = [(value,) for value in values]
    calls += [(value, chance.choice(values)) for value in values]
    calls += [(chance.choice(values), value) for value in values]
    calls += [(value, []) for value in values]
    calls += [(value,) * 3 for value in values]
    calls += [tuple(chance.choices(values, k=n)) for n in (3, 4, 5, 6) for _ in range(60)]
    calls += [()]  # last: it may wait, or do what it is for
    for args in calls:
        for named in ({}, {"x": 1}) if len(args) == 1 else ({},):
            try:
                function(*args, **named)
            except BaseException:  # whatever it raises
                pass
    gc.collect()


def child(where: str, name: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LIMIT)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    if where == "main":
        call_wrongly(name)
    else:
        golibx.run(lambda: call_wrongly(name), config={"runtime": {"shutdown_timeout": "100ms"}})


def main(where: str, *names: str) -> None:
    for name in names or [name for name in dir(_core) if callable(getattr(_core, name))]:
        pid = os.fork()
        if pid == 0:
            try:
                child(where, name)
            finally:
                os._exit(0)
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in CRASHES:
            print(name, signal.Signals(os.WTERMSIG(status)).name, flush=True)
        assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) != NO_VALUES


if __name__ == "__main__":
    main(*sys.argv[1:])
