"""A tour of golibx: a server and 200 clients that don't notice a hog and a blocking call.

    golibx run --config config/golib.toml
    golibx run --config config/golib.toml --set preempt.async=false     the hog freezes them all
    golibx run --config config/golib.toml --set retake.enabled=false    so does the blocking call
    python examples/tour.py

A TCP server serves the sources of Python's standard library, a goroutine per connection. The
clients ask for piece after piece and hand what they get to a pipeline that counts words:

    server <=TCP=> 200 clients --replies--> 4 counters --counted--> 1 collector

Each client asks at random times (a Poisson process, so the load doesn't sink when the server is
slow), some 600 requests a second in all: well below what the server can do, because what is
measured is how long a request takes while another goroutine misbehaves. That is counted from the
moment at which the request was due: a client that the scheduler doesn't wake up in time suffers
like one whose reply is late.

Three phases are measured. In the second, one goroutine computes for two seconds, all in Python; in
the third, one sits for two seconds in a C call, poll(2) by way of ctypes, that knows nothing of
golibx. At the end everything is checked: each reply's length and checksum, the requests that the
clients made against those that the server saw, the words that the pipeline counted against those
counted straight from the files. Exit code 1 if anything doesn't add up.

The protocol is made of lines of ASCII; names are those of files, pieces count from 0:

    request     NAME PIECE \\n
    reply       ok LENGTH CRC32 PIECES \\n   and LENGTH bytes: that piece of the PIECES the file has
             or no REASON \\n
"""

from __future__ import annotations

import argparse
import ctypes
import math
import re
import sys
import sysconfig
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import golibx
import tour_counter
from golibx import Chan, DeadlineExceeded, go, net, select

PIECE_BYTES = 4096
RECV_BYTES = 65536
COUNTERS = 4
PAUSE = 0.5
"""Seconds between two phases: what is under way ends, and the last events reach the plugin."""
Piece = tuple[str, int]
"""A file's name and the number of the piece."""


class TourError(Exception):
    """Something did not add up."""


# --- The server -----------------------------------------------------------------------------------


class Library:
    """The standard library's files, read when they are first asked for and kept in memory."""

    def __init__(self) -> None:
        self.folder = Path(sysconfig.get_path("stdlib"))
        self.names = sorted(
            path.name for path in self.folder.glob("*.py") if path.stat().st_size > 0
        )
        self._pieces: dict[str, list[bytes]] = {}

    def pieces(self, name: str) -> list[bytes]:
        """The pieces of a file. Raises LookupError if there is no such file."""
        if name not in self._pieces:
            if name not in self.names:
                raise LookupError(f"there is no {name}")
            self._pieces[name] = cut(self.read(name))
        return self._pieces[name]

    def read(self, name: str) -> bytes:
        """The file, from the disk."""
        return (self.folder / name).read_bytes()


def cut(text: bytes) -> list[bytes]:
    """Cuts a text into pieces of about PIECE_BYTES, at line ends, so that no word is cut."""
    pieces = []
    start = 0
    while start < len(text):
        end = text.find(b"\n", start + PIECE_BYTES - 1) + 1 or len(text)
        pieces.append(text[start:end])
        start = end
    return pieces


class Stream:
    """Lines and blocks of bytes from a connection."""

    def __init__(self, conn: net.Conn) -> None:
        self._conn = conn
        self._rest = b""

    def line(self) -> str:
        """The next line without its end; "" when there is none."""
        while (end := self._rest.find(b"\n")) < 0:
            data = self._conn.recv(RECV_BYTES)
            if not data or len(self._rest) > RECV_BYTES:
                return ""
            self._rest += data
        line, self._rest = self._rest[:end], self._rest[end + 1 :]
        return line.decode("ascii")

    def block(self, size: int) -> bytes:
        """The next `size` bytes; fewer when the other end has closed the connection."""
        while len(self._rest) < size:
            data = self._conn.recv(RECV_BYTES)
            if not data:
                break
            self._rest += data
        block, self._rest = self._rest[:size], self._rest[size:]
        return block


def answer(conn: net.Conn, library: Library, served: Chan[int]) -> None:
    """Serves one connection, then says how many requests were served."""
    stream = Stream(conn)
    requests = 0
    while line := stream.line():
        try:
            name, number = line.split()
            pieces = library.pieces(name)
            piece = pieces[int(number)]
        except (LookupError, ValueError):
            conn.sendall(b"no such piece\n")
            continue
        header = f"ok {len(piece)} {zlib.crc32(piece)} {len(pieces)}\n"
        conn.sendall(header.encode("ascii") + piece)
        requests += 1
    served.send(requests)


# --- The clients and the pipeline -----------------------------------------------------------------


class Reply(NamedTuple):
    text: bytes
    due: float
    """When the request was to be made, as time.perf_counter()."""
    latency: float
    """Seconds from then until all of the reply was there."""


class Counted(NamedTuple):
    words: int
    due: float
    latency: float


def request(conn: net.Conn, stream: Stream, name: str, piece: int) -> tuple[bytes, int]:
    """Asks for a piece; returns it and how many the file has. Raises TourError."""
    conn.sendall(f"{name} {piece}\n".encode("ascii"))
    status, *fields = stream.line().split() or [""]
    if status != "ok":
        raise TourError(f"asked for {name} {piece}, the server said {status} {fields}")
    length, crc, pieces = map(int, fields)
    text = stream.block(length)
    if len(text) != length or zlib.crc32(text) != crc:
        raise TourError(f"{name} {piece} came damaged: {len(text)} of {length} bytes")
    return text, pieces


def fetch(
    address: net.Address,
    names: list[str],
    random: Random,
    interval: float,
    replies: Chan[Reply],
    stop: Chan[None],
) -> Counter[Piece]:
    """A client: fetches the files, a piece every `interval` seconds on average, until `stop`.

    Returns how often it fetched which piece.
    """
    fetched: Counter[Piece] = Counter()
    name, piece = random.choice(names), 0
    with net.dial(address) as conn:
        stream = Stream(conn)
        due = time.perf_counter()
        while True:
            due += random.expovariate(1 / interval)
            try:
                select(stop.on_recv(), timeout=max(due - time.perf_counter(), 0))
                return fetched
            except DeadlineExceeded:
                pass  # it is time
            text, pieces = request(conn, stream, name, piece)
            replies.send(Reply(text, due, time.perf_counter() - due))
            fetched[name, piece] += 1
            piece += 1
            if piece == pieces:
                name, piece = random.choice(names), 0


def count(replies: Chan[Reply], counted: Chan[Counted]) -> None:
    """Counts the words of replies until there are no more."""
    for reply in replies:
        words = len(reply.text.decode("utf-8", "replace").split())
        counted.send(Counted(words, reply.due, reply.latency))


def collect(
    counted: Chan[Counted], served: Chan[int], connections: int
) -> tuple[list[Counted], int]:
    """Takes what the pipeline counted until that ends, and what the connections report.

    Returns the former, and how many requests the server served.
    """
    everything = []
    requests = 0
    counting = True
    while counting or connections:
        # None never fires: that is how select leaves out a channel that has ended.
        index, value, ok = select(counted.on_recv() if counting else None, served.on_recv())
        if index == 1:
            requests += value
            connections -= 1
        elif ok:
            everything.append(value)
        else:
            counting = False
    return everything, requests


# --- What misbehaves ------------------------------------------------------------------------------


def hog(seconds: float) -> None:
    """Computes, in Python, without a wait."""
    end = time.perf_counter() + seconds
    number = 0
    while time.perf_counter() < end:
        number = (number * 1103515245 + 12345) % 2**31


def block(seconds: float) -> None:
    """Blocks in a C call."""
    milliseconds = int(seconds * 1000)
    if sys.platform == "win32":
        ctypes.windll.kernel32.Sleep(milliseconds)
    else:
        ctypes.CDLL(None).poll(None, 0, milliseconds)


# --- The tour -------------------------------------------------------------------------------------

COUNTS = ("goroutines", "preemptions", "retakes", "netpoll_wakeups")
"""What is shown of the scheduler: attributes of the plugin, and keys of golibx.stats()."""


class Phase(NamedTuple):
    name: str
    begin: float
    end: float
    goroutines: int
    """How many there were at its end."""
    events: list[int]
    """How many preemptions, retakes and netpoll wake-ups there were."""


def counts() -> list[int]:
    """The COUNTS, from the plugin if it is enabled."""
    plugin = tour_counter.active
    if plugin is None:
        stats = golibx.stats()
        return [stats[name] for name in COUNTS]
    return [getattr(plugin, name) for name in COUNTS]


def phase(name: str, work: Callable[[float], object], seconds: float) -> Phase:
    """Has a goroutine of its own do the work, and waits until it is done."""
    _, *before = counts()
    begin = time.perf_counter()
    go(work, seconds).result()
    end = time.perf_counter()
    golibx.sleep(PAUSE)
    goroutines, *after = counts()
    return Phase(name, begin, end, goroutines, [b - a for a, b in zip(before, after, strict=True)])


def tour(clients: int, rate: float, seconds: float) -> None:
    """The whole tour, in the main goroutine. Raises TourError if something does not add up.

    Args:
        clients: how many there are.
        rate: requests a second, of all clients.
        seconds: how long each phase takes.
    """
    library = Library()
    served: Chan[int] = Chan()
    replies: Chan[Reply] = Chan(64)
    counted: Chan[Counted] = Chan(64)
    stop: Chan[None] = Chan()

    listener = net.listen("127.0.0.1:0")
    address = listener.address
    go(net.serve, lambda conn: answer(conn, library, served), listener)
    collector = go(collect, counted, served, clients)
    counters = golibx.WaitGroup()
    for _ in range(COUNTERS):
        counters.go(count, replies, counted)
    fetchers = [
        go(fetch, address, library.names, Random(seed), clients / rate, replies, stop)
        for seed in range(clients)
    ]
    say(f"{len(library.names)} files of {library.folder}, {clients} clients, {rate:g} requests/s")

    phases = [
        phase("warm-up", golibx.sleep, seconds / 2),
        phase("before", golibx.sleep, seconds),
        phase("during hog", hog, seconds),
        phase("during block", block, seconds),
    ]
    _, *events = counts()
    alive = max(phase.goroutines for phase in phases)
    phases.append(Phase("whole run", 0, math.inf, alive, events))

    stop.close()
    fetched: Counter[Piece] = Counter()
    for fetcher in fetchers:
        fetched.update(fetcher.result())
    replies.close()
    counters.wait()
    counted.close()
    everything, requests = collector.result()
    listener.close()

    show(phases[1:], everything)
    check(library, fetched, everything, requests)


def check(
    library: Library, fetched: Counter[Piece], everything: list[Counted], requests: int
) -> None:
    """Compares what clients, server and pipeline saw, and the words with those in the files."""
    expected = 0
    for name in {name for name, _ in fetched}:
        for number, piece in enumerate(cut(library.read(name))):
            words = len(re.findall(r"\S+", piece.decode("utf-8", "replace")))
            expected += fetched[name, number] * words
    words = sum(reply.words for reply in everything)
    if not fetched.total() == len(everything) == requests > 0:
        raise TourError(
            f"the clients fetched {fetched.total()} pieces, the server served {requests}, "
            f"the pipeline counted {len(everything)}"
        )
    if words != expected:
        raise TourError(f"the pipeline counted {words} words, there are {expected}")
    say(f"checked: {requests} replies, and {words} words against the files")


# --- What it shows --------------------------------------------------------------------------------


def show(phases: list[Phase], everything: list[Counted]) -> None:
    """Prints the table."""
    columns = []
    for phase in phases:
        replies = [reply for reply in everything if phase.begin <= reply.due < phase.end]
        latencies = sorted(reply.latency for reply in replies)
        columns.append(
            [
                phase.name,
                str(len(replies)),
                str(sum(reply.words for reply in replies)),
                *[milliseconds(latencies, quantile) for quantile in (0.5, 0.99, 1)],
                str(phase.goroutines),
                *map(str, phase.events),
            ]
        )
    titles = ["", "requests served", "words counted", "latency p50, ms", "p99, ms", "max, ms"]
    titles += ["goroutines", "preemptions", "retakes", "netpoll wake-ups"]
    print_table(list(zip(titles, *columns, strict=True)))
    source = "golibx.stats()" if tour_counter.active is None else "the hooks of tour_counter.py"
    dropped = golibx.stats()["events_dropped"]
    say(f"the last four rows are from {source}" + (f"; {dropped} events lost" if dropped else ""))


def milliseconds(latencies: list[float], quantile: float) -> str:
    """A quantile, by the nearest-rank method, of sorted latencies in seconds."""
    if not latencies:
        return "-"
    return f"{latencies[math.ceil(quantile * len(latencies)) - 1] * 1000:.2f}"


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Prints rows, the first of which has the columns' names; prettily on a terminal."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for number, name in enumerate(rows[0]):
            table.add_column(name, justify="right" if number else "left")
        for row in rows[1:]:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for title, *cells in rows:
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        print("  ".join([title.ljust(widths[0]), *aligned]))


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="A tour of golibx.")
    parser.add_argument("--clients", type=int, default=200, help="how many (default: 200)")
    parser.add_argument(
        "--rate", type=float, default=600, help="requests a second, of all clients (default: 600)"
    )
    parser.add_argument(
        "--seconds", type=float, default=2, help="how long each phase takes (default: 2)"
    )
    options = parser.parse_args()
    try:
        tour(options.clients, options.rate, options.seconds)
    except (TourError, OSError) as exc:
        print(f"tour: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # Under `golibx run` this is a goroutine already.
    sys.exit(main() if golibx.current() is not None else golibx.run(main))
