"""The live view of `golibx top PID`: what a process does, each second anew.

It asks twice a round, for the counters and for the goroutines, through golibx.control. What it
shows of counters is how much they have grown in a second since the round before. On a terminal rich
draws it, and keys change the order of the goroutines; elsewhere, and with `--once`, the same is
printed once.

The scheduler does not count how long each goroutine runs: that would take a reading of the clock at
each switch. Where they are ordered by it, a CPU profile is taken between two looks.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from golibx import control
from golibx.dump import DumpError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["ORDERS", "Look", "is_live", "once", "take", "watch"]

ORDERS = ("wait", "run", "state", "id")
"""How goroutines may be ordered: the longest wait first, the longest run between two looks first,
by what they do, by their numbers."""

_RATES = (
    ("switches", "switches"),
    ("spawns", "spawns"),
    ("preemptions", "preemptions"),
    ("retakes", "retakes"),
    ("netpoll_wakeups", "socket wake-ups"),
)
_LATENCIES = ("p50_ns", "p90_ns", "p99_ns", "max_ns")
_KEYS = {"w": "wait", "r": "run", "s": "state", "i": "id"}
_UNSHOWN_LINES = 13
"""Of a screen: what is above the goroutines, and the line of keys."""


class Look(NamedTuple):
    """What the process answered.

    Attributes:
        at_s: when, on the clock of time.monotonic().
        stats: what control.stats() has.
        goroutines: those of the program, as control.goroutines() has them; None: its interpreter
            is stuck.
        ran: which share of the time before it each of them ran, by its number; a text: why that is
            not known.
    """

    at_s: float
    stats: dict[str, Any]
    goroutines: list[dict[str, Any]] | None
    ran: dict[int, float] | str


_NOT_MEASURED = "how long goroutines run is shown from the next look on"


class _Runs(threading.Thread):
    """Finds out which goroutines run, for some seconds."""

    def __init__(self, pid: int, seconds: float, timeout: float) -> None:
        super().__init__(daemon=True)
        self._pid, self._seconds, self._timeout = pid, seconds, timeout
        self.found: dict[int, float] | str = ""
        self.start()

    def run(self) -> None:
        try:
            data = control.profile(
                self._pid, self._seconds, format_="totals", timeout=self._timeout
            )
        except DumpError as exc:
            self.found = f"how long goroutines run is not known: {exc}"
            return
        told = json.loads(data)
        whole_ns = max(told["total_ns"], 1)
        self.found = {int(each): ns / whole_ns for each, ns in told["goroutines"].items()}

    def ended(self) -> dict[int, float] | str:
        self.join()
        return self.found


def take(pid: int, timeout: float, ran: dict[int, float] | str = _NOT_MEASURED) -> Look:
    """Asks. Raises DumpError."""
    stats = control.stats(pid, timeout=timeout)
    at_s = time.monotonic()
    if not stats["interpreter"]:
        return Look(at_s, stats, None, ran)
    found = control.goroutines(pid, timeout=timeout)["goroutines"]
    return Look(at_s, stats, [each for each in found if not each["system"]], ran)


def once(pid: int, order: str, interval: float, timeout: float) -> None:
    """Prints one look, with all goroutines; after the interval if the order is by running time."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    with console.capture() as captured:
        ran = _Runs(pid, interval, timeout).ended() if order == "run" else _NOT_MEASURED
        console.print(_picture(pid, take(pid, timeout, ran), None, order, most=None))
    for line in captured.get().splitlines():
        print(line.rstrip())


def is_live() -> bool:
    """Whether there is a terminal that can show a live view."""
    return sys.stdin.isatty() and sys.stdout.isatty() and not Console().is_dumb_terminal


def watch(pid: int, order: str, interval: float, timeout: float) -> None:
    """Shows look after look until q is pressed. Raises DumpError, also when the process ends."""
    console = Console()
    before = None
    look = take(pid, timeout)
    with _keys() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            most = max(console.height - _UNSHOWN_LINES, 1)
            live.update(_picture(pid, look, before, order, most=most), refresh=True)
            due = time.monotonic() + interval
            runs = _Runs(pid, interval, timeout) if order == "run" else None
            while (left := due - time.monotonic()) > 0:
                key = _pressed(keyboard, left)
                if key in ("q", "\x03", "\x04"):
                    return
                if key in _KEYS:
                    order = _KEYS[key]
                    live.update(_picture(pid, look, before, order, most=most), refresh=True)
            ran = _NOT_MEASURED if runs is None else runs.ended()
            before, look = look, take(pid, timeout, ran)


@contextlib.contextmanager
def _keys() -> Iterator[int]:
    """The terminal's descriptor, which gives each key at once and does not show it."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    old = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, old)


def _pressed(descriptor: int, seconds: float) -> str:
    """A key; "" for none within the time."""
    if not select.select([descriptor], [], [], seconds)[0]:
        return ""
    key = os.read(descriptor, 1)
    return key.decode(errors="replace") if key else "q"  # the terminal has gone


def _picture(pid: int, look: Look, before: Look | None, order: str, *, most: int | None) -> Group:
    found = look.stats
    counters = found["stats"]
    program = printable(str(found.get("program", "")), lines=False)
    head = Text()
    head.append(f"golibx top: process {pid} ", style="bold")
    head.append(program)
    figures = _plain_table()
    figures.add_row("goroutines", str(counters["goroutines"]), _states(look.goroutines))
    ready, threads = counters["runq"], counters["threads"]
    blocked = counters.get("threads_blocked")
    figures.add_row("run queue", str(ready), "")
    figures.add_row("threads", str(threads), "" if blocked is None else f"{blocked} blocked")
    figures.add_row("latency", "", _latencies(found.get("latency", {})))
    what = "in all" if before is None else "a second"
    figures.add_row(what, "", _rates(counters, look, before))
    if look.goroutines is None:
        stuck = "its interpreter has not answered: C code holds its lock, and "
        return Group(head, figures, Text(f"{stuck}`golibx dump {pid}` says which", style="bold"))
    table = _goroutines(look.goroutines, order, most, look.ran)
    parts: list[Text | Table] = [head, figures, table]
    if order == "run" and isinstance(look.ran, str):
        parts.insert(2, Text(look.ran, no_wrap=True, overflow="ellipsis"))
    if most is not None:
        parts.append(Text("q quits; order: w wait, r run, s state, i id", style="dim"))
    return Group(*parts)


def _plain_table() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    return table


def _states(goroutines: list[dict[str, Any]] | None) -> Text:
    counts = Counter(each["state"] for each in goroutines or ())
    return Text(", ".join(f"{count} {state}" for state, count in counts.most_common()))


def _latencies(latency: Mapping[str, int | None]) -> Text:
    parts = []
    for name in _LATENCIES:
        value = latency.get(name)
        shown = "-" if value is None else _duration(value)
        parts.append(f"{name.removesuffix('_ns')} {shown}")
    return Text(", ".join(parts))


def _rates(counters: Mapping[str, int], look: Look, before: Look | None) -> Text:
    passed = 1.0 if before is None else max(look.at_s - before.at_s, 0.001)
    old: Mapping[str, int] = {} if before is None else before.stats["stats"]
    parts = []
    for name, shown in _RATES:
        if name in counters:
            parts.append(f"{(counters[name] - old.get(name, 0)) / passed:.0f} {shown}")
    return Text(", ".join(parts))


def _goroutines(
    goroutines: list[dict[str, Any]], order: str, most: int | None, ran: dict[int, float] | str
) -> Table:
    shares = {} if isinstance(ran, str) else ran
    if order == "run":
        ordered = sorted(goroutines, key=lambda each: (-shares.get(each["id"], 0.0), each["id"]))
    elif order == "wait":
        ordered = sorted(goroutines, key=lambda each: (-each["waited_ns"], each["id"]))
    elif order == "state":
        ordered = sorted(goroutines, key=lambda each: (each["state"], -each["waited_ns"]))
    else:
        ordered = sorted(goroutines, key=lambda each: each["id"])
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("name", no_wrap=True, max_width=30)
    table.add_column("state", no_wrap=True)
    table.add_column("ran" if order == "run" else "waited", justify="right", no_wrap=True)
    table.add_column("where", no_wrap=True, overflow="ellipsis")
    for each in ordered[:most]:
        number, state = str(each["id"]), each["state"]
        if order == "run":
            figure = f"{100 * shares[each['id']]:.1f}%" if each["id"] in shares else ""
        else:
            figure = _duration(each["waited_ns"]) if each["reason"] else ""
        table.add_row(number, Text(each["name"]), Text(state), figure, Text(_place(each)))
    if most is not None and len(ordered) > most:
        table.add_row("", Text(f"… and {len(ordered) - most} more"), "", "", "")
    return table


def _place(goroutine: dict[str, Any]) -> str:
    if not goroutine["frames"]:
        return ""
    frame = goroutine["frames"][0]
    place = f"{frame['function']} at {os.path.basename(frame['file'])}:{frame['line']}"
    return printable(place, lines=False)


def _duration(ns: int) -> str:
    for scale, unit in ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")):
        if ns >= scale:
            return f"{ns / scale:.1f}{unit}"
    return f"{ns}ns"
