"""Runs in a notebook's cell: beside IPython's threads, on a thread that runs an event loop.

The kernel itself is tried where ipykernel is installed; what it does to a run everywhere.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Script

IN_A_LOOP = """
import asyncio, golibx
from golibx import aio

async def answer(x):
    await asyncio.sleep(0.001)
    return x

async def cell():
    task = asyncio.current_task()
    print(golibx.run(lambda: aio.run(answer(1))))
    print(golibx.run(lambda: golibx.go(aio.run, answer(2)).result()))
    print(golibx.run(asyncio.run, answer(3)))
    try:
        golibx.run(lambda: 1 / 0)
    except ZeroDivisionError:
        print("raised")
    assert asyncio.current_task() is task
    loop = asyncio.get_running_loop()
    assert loop.is_running()
    print(await answer(4))
    try:
        aio.run(answer(5))
    except RuntimeError as exc:
        print("await where a loop runs" in str(exc))

async def inside():
    try:
        aio.run(answer(6))
    except RuntimeError as exc:
        print(exc)

import warnings
warnings.simplefilter("ignore")
asyncio.run(cell())
golibx.run(asyncio.run, inside())
"""


def test_a_run_on_a_thread_that_runs_a_loop(script: Script) -> None:
    assert script.passes(IN_A_LOOP).splitlines() == [
        "1",
        "2",
        "3",
        "raised",
        "4",
        "True",
        "aio.run() cannot be called from a coroutine, which can await",
    ]


BESIDE_THREADS = """
import sys, threading, types, golibx
from golibx import Chan, Deadlock

class HistorySavingThread(threading.Thread):
    __module__ = "IPython.core.history"
    def run(self): done.wait()

def pipe(): done.wait()
pipe.__module__ = "ipykernel.iostream"

sys.modules["IPython"] = types.ModuleType("IPython")
done = threading.Event()
threads = [HistorySavingThread(), threading.Thread(target=pipe)]
for thread in threads: thread.start()

try:
    golibx.run(Chan().recv)
except Deadlock:
    print("deadlock")

# One of the program's own may wake a goroutine.
ch = Chan()
go_on = threading.Event()
def own():
    go_on.wait()
    ch.send("own")
threading.Thread(target=own).start()
def main():
    golibx.go(golibx.sleep, 0.05).join()
    go_on.set()
    return ch.recv()
print(golibx.run(main))
done.set()
for thread in threads: thread.join()
"""


def test_a_deadlock_beside_the_threads_of_a_notebook(script: Script) -> None:
    assert script.passes(BESIDE_THREADS) == "deadlock\nown\n"


CELLS = {
    "import asyncio, golibx\nfrom golibx import aio, Chan": "",
    "async def f(x):\n    await asyncio.sleep(0.001)\n    return x": "",
    "golibx.run(lambda: aio.run(f(3)))": "3",
    "golibx.run(asyncio.run, f(4))": "4",
    "golibx.run(Chan().recv)": "Deadlock",
    "await f(5)": "5",
    "golibx.run(lambda: golibx.go(aio.run, f(6)).result())": "6",
}
CLIENT = """
import os, sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")
try:
    for cell in {cells!r}:
        def show(message):
            content = message["content"]
            kind = message["msg_type"]
            if kind == "execute_result": print("<", content["data"]["text/plain"], ">", sep="")
            elif kind == "error": print("<", content["ename"], ">", sep="")
        client.execute_interactive(cell, timeout=20, output_hook=show)
finally:
    manager.shutdown_kernel(now=True)
"""


@pytest.mark.limit(120)
def test_a_kernel(tmp_path: Path) -> None:
    for name in ("ipykernel", "jupyter_client"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    program = CLIENT.format(cells=list(CELLS))
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=110,
        check=False,
    )
    expected = "".join(f"<{text}>\n" for text in CELLS.values() if text)
    assert result.stdout == expected, result.stderr
