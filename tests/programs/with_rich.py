"""rich: a live display, which a thread of its own draws, fed by 100 threads; and its log."""

import io
import re
import time

import beside
from rich.console import Console
from rich.progress import Progress

console = Console(file=io.StringIO(), force_terminal=True, width=80)


def task(number):
    for _ in range(10):
        time.sleep(0.01)
        progress.advance(bar)
    progress.console.print(f"done {number}.")


with Progress(console=console, transient=True, redirect_stdout=False) as progress:
    bar = progress.add_task("all", total=1000)
    beside.run(task)
text = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
print("lost", [number for number in range(100) if f"done {number}." not in text])
print("finished", progress.finished, progress.tasks[bar].completed)
