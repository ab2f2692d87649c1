"""The interpreter's own modes for finding mistakes, on programs that do a bit of everything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from conftest import Script

TORTURE = Path(__file__).with_name("torture.py")

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the Python lane needs Linux"
)

# Callbacks out of C code, threads, imports, ctypes and finalizers, all with switches inside.
PART = ("sort", "json_hooks", "ctypes_callbacks", "finalizers", "imports_shared")

MODES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "development mode": (("-X", "dev"), {}),
    "PYTHONMALLOC=debug": ((), {"PYTHONMALLOC": "debug"}),
    "PYTHONMALLOC=malloc_debug": ((), {"PYTHONMALLOC": "malloc_debug"}),
    "PYTHONMALLOC=malloc": ((), {"PYTHONMALLOC": "malloc"}),
    "tracemalloc": (("-X", "tracemalloc=5"), {}),
    "importtime": (("-X", "importtime"), {}),
    "faulthandler": (("-X", "faulthandler"), {}),
    "asyncio debug": ((), {"PYTHONASYNCIODEBUG": "1"}),
}
if hasattr(sys, "gettotalrefcount"):
    MODES["showrefcount"] = (("-X", "showrefcount"), {})


@pytest.mark.parametrize("mode", ["development mode", "PYTHONMALLOC=debug", "faulthandler"])
def test_mode(script: Script, mode: str) -> None:
    options, environment = MODES[mode]
    cases = [word for case in PART for word in ("--case", case)]
    out = script.passes(
        TORTURE, "--scale", "0.1", *cases, python=options, env=environment, limit=30.0
    )
    assert [line.split()[0] for line in out.splitlines()[: len(PART)]] == list(PART)


SOME_OF_ALL = """\
import threading
import golibx
from golibx import Chan, Mutex, context, go, net, select, sleep

def serve(listener):
    with listener.accept()[0] as conn:
        conn.sendall(conn.recv(10))

def main():
    listener = net.listen(("127.0.0.1", 0))
    server = go(serve, listener)
    with net.dial(listener.address) as conn:
        conn.sendall(b"x")
        assert conn.recv(10) == b"x"
    server.join()
    ctx, cancel = context.with_timeout(context.background(), 0.001)
    ctx.done().recv_ok()
    cancel()
    ch, mutex = Chan(), Mutex()
    thread = threading.Thread(target=lambda: ch.send(threading.local()))
    thread.start()
    with mutex:
        select(ch.on_recv(), timeout=10)
    thread.join()
    try:
        go(lambda: 1 // 0).result()
    except ZeroDivisionError:
        pass
    with golibx.scope() as s:
        for _ in range(10):
            s.go(sleep, 0.001)
    return "well"

print(golibx.run(main, config={"preempt": {"slice": "1ms"}}))
print(golibx.run(main))
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_program_of_everything(script: Script, mode: str) -> None:
    options, environment = MODES[mode]
    assert script.passes(SOME_OF_ALL, python=options, env=environment) == "well\nwell\n"
