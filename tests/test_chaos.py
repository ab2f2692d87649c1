"""The plugin chaos, and what it is built on: Runtime.disturb() and Runtime.replace()."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import golibx
from conftest import Script
from golibx import Cancelled, Chan, ConfigError, Deadlock, Mutex, WaitGroup, go, net, testing
from golibx.config import Config, Key
from golibx.hookspec import GoroutinePark, hookimpl
from golibx.plugins import chaos
from golibx.runtime import Runtime
from golibx.testing import wait_until
from golibx.testing.plugins import Seen, feed, run_with, snapshot

MS = 1_000_000
PAGE = Path(__file__).parent.parent / "docs" / "chaos.md"
OFF: dict[str, object] = {"preempt": 0, "delay": 0, "short": 0}
METHODS = ("recv", "recv_into", "send", "sendall")


def counts_of(seen: Seen[Any]) -> dict[str, int]:
    """What the last line says."""
    assert seen.error is None
    line = seen.stderr.splitlines()[-1]
    assert line.startswith("chaos: seed=")
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)}


class WithRuntime:
    """A plugin that keeps the runtime for the main function."""

    @hookimpl
    def golib_start(self, runtime: Runtime) -> None:
        self.runtime = runtime


def with_runtime(fn: Callable[[Runtime], Any]) -> Any:
    """What the function returns, called with the runtime in the main goroutine."""
    plugin = WithRuntime()
    return run_with(plugin, lambda: fn(plugin.runtime)).result


# ---- disturb() ----


def calls(times: int) -> None:
    ch: Chan[int] = Chan(1)
    for _ in range(times):
        ch.try_send(1)


def test_the_draws_are_those_of_the_seed() -> None:
    """One goroutine, with always the same calls."""

    def disturbed(seed: int, preempt: int, delay: int) -> tuple[int, int, int]:
        def main(runtime: Runtime) -> tuple[int, int, int]:
            runtime.disturb(seed=seed, preempt=preempt, delay=delay, delay_ns=1000)
            calls(2000)
            return tuple(runtime.disturbances().values())  # type: ignore[return-value]

        found: tuple[int, int, int] = with_runtime(main)
        return found

    first = disturbed(7, 10, 50)
    assert first == disturbed(7, 10, 50)
    assert first != disturbed(8, 10, 50)
    assert first[0] == 2000
    assert 100 < first[1] < 300
    assert 10 < first[2] < 100
    assert disturbed(7, 1, 0) == (2000, 2000, 0)
    assert disturbed(7, 0, 1) == (2000, 0, 2000)
    assert disturbed(7, 0, 0) == (2000, 0, 0)


def test_who_gives_way_lets_the_others_run() -> None:
    """In a call that does not wait: without it the others come after the last one."""

    def order(runtime: Runtime | None) -> list[str]:
        if runtime is not None:
            runtime.disturb(seed=1, preempt=1)
        log: list[str] = []
        other = go(log.append, "other")
        calls(5)
        log.append("main")
        other.join()
        return log

    assert with_runtime(order) == ["other", "main"]
    assert with_runtime(lambda _: order(None)) == ["main", "other"]


def test_a_delay_is_a_sleep_of_the_goroutine() -> None:
    class Watches(WithRuntime):
        @hookimpl
        def on_goroutine_park(self, event: GoroutinePark) -> None:
            pass

    plugin = Watches()

    def main() -> None:
        plugin.runtime.disturb(seed=1, delay=1, delay_ns=1000)
        calls(10)

    seen = run_with(plugin, main)
    # The end of the run is made of such calls too.
    assert [event.reason for event in seen.of(GoroutinePark)].count("sleep") >= 10


def test_nothing_is_disturbed_after_the_run() -> None:
    with_runtime(lambda runtime: runtime.disturb(seed=1, delay=1, delay_ns=1000))

    def main(runtime: Runtime) -> dict[str, int]:
        calls(10)
        return runtime.disturbances()

    assert with_runtime(main) == {"calls": 0, "preempted": 0, "delayed": 0}


def test_plain_threads_and_service_goroutines_are_left_alone() -> None:
    def main(runtime: Runtime) -> dict[str, int]:
        runtime.disturb(seed=1, preempt=1, delay=1, delay_ns=1000)
        before = runtime.disturbances()["calls"]
        thread = threading.Thread(target=calls, args=(100,))
        thread.start()
        thread.join()
        service = runtime.go_system(calls, 100)
        wait_until(service.done)
        return {"more": runtime.disturbances()["calls"] - before}

    # Those of the main goroutine only, which asks whether the others are done.
    assert with_runtime(main)["more"] < 100


def test_a_cancellation_that_comes_in_a_delay_is_not_lost() -> None:
    """Nor does it come out of a call that does not wait, such as an unlock."""

    def main(runtime: Runtime) -> None:
        lock, raised = Mutex(), []
        never: Chan[int] = Chan()

        def work() -> None:
            lock.lock()
            try:
                lock.unlock()
            except Cancelled:
                raised.append("unlock")
                raise
            try:
                never.recv()
            except Cancelled:
                raised.append("recv")
                raise

        runtime.disturb(seed=1, delay=1, delay_ns=MS)
        for _ in range(50):
            worker = go(work)
            golibx.gosched()
            worker.cancel()
            worker.join()
            assert not lock.locked
        assert "unlock" not in raised
        assert "recv" in raised

    with_runtime(main)


def test_a_deadlock_is_found_in_spite_of_delays() -> None:
    def main(runtime: Runtime) -> None:
        runtime.disturb(seed=1, preempt=2, delay=2, delay_ns=MS)
        go(Chan[int]().recv)
        Chan[int]().recv()

    with pytest.raises(Deadlock):
        with_runtime(main)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"seed": -1}, ValueError, "seed must be 0 to"),
        ({"seed": 2**63}, ValueError, "seed must be 0 to"),
        ({"seed": "x"}, TypeError, "seed must be an int, not 'x'"),
        ({"seed": 1, "preempt": True}, TypeError, "preempt must be an int"),
        ({"seed": 1, "preempt": -1}, ValueError, "preempt must be 0 to"),
        ({"seed": 1, "delay": 10}, ValueError, "delay_ns must be 1 to 10000000000, not 0"),
        ({"seed": 1, "delay": 1, "delay_ns": 10**11}, ValueError, "delay_ns must be 1 to"),
    ],
)
def test_what_disturb_refuses(given: dict[str, Any], error: type[Exception], text: str) -> None:
    def main(runtime: Runtime) -> None:
        with pytest.raises(error, match=text):
            runtime.disturb(**given)
        calls(3)
        assert runtime.disturbances()["calls"] == 0

    with_runtime(main)


def test_where_disturb_is_refused() -> None:
    runtime = Runtime(Config.load(environ={}))
    with pytest.raises(RuntimeError, match="no runtime is running"):
        runtime.disturb(seed=1)
    for options in ({"seed": 3}, {"virtual_time": True}):
        with pytest.raises(RuntimeError, match="drawn already"):
            testing.run(lambda: runtime.disturb(seed=1), **options)  # type: ignore[call-overload]


# ---- replace() ----


class Thing:
    def name(self) -> str:
        return "thing"


class Inherits(Thing):
    pass


def longer(present: Callable[..., str]) -> Callable[..., str]:
    return lambda self: f"long {present(self)}"


def test_replace_until_the_run_ends() -> None:
    def main(runtime: Runtime) -> list[str]:
        runtime.replace(Thing, "name", longer)
        runtime.replace(Inherits, "name", longer)
        runtime.replace(Inherits, "name", longer)
        return [Thing().name(), Inherits().name()]

    own = vars(Thing)["name"]
    assert with_runtime(main) == ["long thing", "long long long thing"]
    assert (Thing().name(), Inherits().name()) == ("thing", "thing")
    assert vars(Thing)["name"] is own
    assert "name" not in vars(Inherits)


class Kinds:
    @staticmethod
    def static(text: str) -> str:
        return text

    @classmethod
    def of_class(cls, text: str) -> str:
        return f"{cls.__name__} {text}"


def test_replacing_static_and_class_methods() -> None:
    def main(runtime: Runtime) -> list[str]:
        for name in ("static", "of_class"):
            runtime.replace(Kinds, name, lambda present: lambda text: present(f"<{text}>"))
        return [Kinds.static("a"), Kinds().static("b"), Kinds.of_class("c"), Kinds().of_class("d")]

    before = dict(vars(Kinds))
    assert with_runtime(main) == ["<a>", "<b>", "Kinds <c>", "Kinds <d>"]
    assert dict(vars(Kinds)) == before
    assert Kinds().of_class("e") == "Kinds e"


def test_what_was_replaced_comes_back_however_the_run_ends() -> None:
    def main(runtime: Runtime) -> None:
        runtime.replace(Thing, "name", longer)
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        with_runtime(main)
    assert Thing().name() == "thing"


def test_what_replace_refuses() -> None:
    def main(runtime: Runtime) -> None:
        with pytest.raises(AttributeError, match="nome"):
            runtime.replace(Thing, "nome", longer)
        with pytest.raises(TypeError, match="no function"):
            runtime.replace(Thing, "__module__", longer)
        with pytest.raises(TypeError):
            runtime.replace(Chan, "send", longer)
        assert Thing().name() == "thing"

    with_runtime(main)
    with pytest.raises(RuntimeError, match="a run that goes on"):
        Runtime(Config.load(environ={})).replace(Thing, "name", longer)


# ---- the plugin ----


def pipeline() -> int:
    """The sum of what many goroutines hand each other, under a lock."""
    numbers: Chan[int] = Chan(3)
    total, lock, done = [0], Mutex(), WaitGroup()

    def add() -> None:
        for number in numbers:
            with lock:
                before = total[0]
                golibx.gosched()
                total[0] = before + number
        done.done()

    workers = 5
    done.add(workers)
    for _ in range(workers):
        go(add)
    for number in range(200):
        numbers.send(number)
    numbers.close()
    done.wait()
    return total[0]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_program_that_is_right_stays_right(seed: int) -> None:
    settings = {"seed": seed, "preempt": 2, "delay": 20, "delay_max": "100us", "slice": "1ms"}
    seen = run_with("chaos", pipeline, settings=settings)
    assert seen.result == sum(range(200))
    counts = counts_of(seen)
    assert counts["seed"] == seed
    assert counts["calls"] > 400
    assert 0 < counts["delayed"] < counts["preempted"] < counts["calls"]


def test_it_is_off_unless_it_is_enabled(script: Script) -> None:
    program = "import golibx, sys\ngolibx.run(golibx.sleep, 0.001)\nprint(sys.modules.keys())"
    assert "golibx.plugins.chaos" not in script.passes(program)


def test_the_seed_is_printed_and_can_be_set() -> None:
    seen = run_with("chaos", int)
    printed = re.fullmatch(
        r"chaos: seed=(\d+); plugins\.chaos\.seed=\1 draws the same again\nchaos: seed=\1 .+\n",
        seen.stderr,
    )
    assert printed
    seeds = {run_with("chaos", int).stderr.split()[1] for _ in range(3)}
    assert len(seeds) == 3
    again = run_with("chaos", int, settings={"seed": int(printed[1])})
    assert f"seed={printed[1]}" in again.stderr


def test_slices_are_drawn_within_the_limits() -> None:
    settings = {**OFF, "seed": 5, "slice": "2ms"}
    looks = [snapshot()] * 20 + [snapshot(limits={"preempt.slice": (MS, 9 * MS)})] * 20
    looks += [snapshot(limits={"preempt.slice": (5 * MS, 9 * MS)})]
    tunings = feed(chaos, *looks, settings=settings).tunings
    slices = [int(tuning["preempt.slice"]) for tuning in tunings]
    assert len(slices) == len(looks)
    assert all(20_000 <= each <= 2 * MS for each in slices[:20])
    assert all(MS <= each <= 2 * MS for each in slices[20:40])
    assert len(set(slices[:40])) > 35
    assert [*feed(chaos, *looks, settings=settings).tunings] == tunings
    assert feed(chaos, snapshot(), settings={"seed": 5}).tunings == []


def test_slices_in_a_run() -> None:
    def main() -> None:
        wait_until(lambda: golibx.tunables()["preempt.slice"] <= 2 * MS)

    seen = run_with("chaos", main, settings={**OFF, "slice": "2ms"})
    assert seen.changes
    assert counts_of(seen)["slices"] >= len(seen.changes)


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"seed": -1}, "seed = -1: out of range"),
    ({"seed": "x"}, "not an integer"),
    ({"preempt": 0.5}, "preempt = 0.5: not an integer"),
    ({"delay": -3}, "delay = -3: out of range"),
    ({"delay_max": "1h"}, "allowed: 1us to 10s"),
    ({"slice": "1us"}, "allowed: 20us to 1m, or 0"),
    ({"short": True}, "not an integer"),
    ({"reset": 2_000_000_000}, "allowed: 1 to 1000000000, or 0: none"),
    ({"resets": 1}, "did you mean plugins.chaos.reset"),
    (OFF, "nothing is left to do: one of preempt, delay, slice, short, reset has to be"),
]


@pytest.mark.parametrize(("settings", "text"), REFUSED)
def test_nonsense_is_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_with("chaos", int, settings=settings)
    assert text in str(caught.value)


@pytest.mark.parametrize("key", chaos.KEYS, ids=lambda key: key.name)
def test_every_setting_is_on_its_page_and_has_a_value_that_is_refused(key: Key) -> None:
    text = PAGE.read_text(encoding="utf-8").partition("| key | default |")[2].partition("\n\n")[0]
    rows = [row for row in text.splitlines() if f"`{key.name}`" in row.partition(" | ")[0]]
    assert len(rows) == 1
    assert str(key.default).removesuffix("s") in rows[0].split(" | ")[1]
    assert any(key.name in settings for settings, _ in REFUSED if settings is not OFF)


# ---- its sockets ----

DATA = bytes(range(256)) * 40


def pair(server: Any) -> tuple[Any, Any]:
    """Two ends of a connection: of golibx.net, and of the module socket."""
    accepted = go(server.accept)
    client = socket.create_connection(server.address)
    conn, _ = accepted.result()
    return conn, client


def exchange() -> bytes:
    """What comes back from the other end: sent and received in every way there is."""
    with net.listen("127.0.0.1:0") as server:
        conn, client = pair(server)

        def echo() -> None:
            buffer = bytearray(1000)
            while n := conn.recv_into(buffer):
                conn.sendall(buffer[:n])
            conn.close()

        def write() -> None:
            left = memoryview(DATA)
            while left:
                left = left[client.send(left[:999]) :]
            client.shutdown(socket.SHUT_WR)

        go(echo)
        go(write)
        with client, client.makefile("rb") as file:
            return file.read()


def test_short_reads_and_writes_lose_nothing() -> None:
    seen = run_with("chaos", exchange, settings={**OFF, "short": 2, "seed": 3})
    assert seen.result == DATA
    counts = counts_of(seen)
    assert counts["short"] > 10
    assert counts["socket_calls"] > counts["short"]
    assert counts["resets"] == 0


def test_every_transfer_may_be_short() -> None:
    def main() -> list[int]:
        with net.listen("127.0.0.1:0") as server:
            conn, client = pair(server)
            with conn, client:
                sizes = [client.send(b"x" * 100), conn.send(b"y" * 100)]
                client.sendall(b"x" * 100)
                sizes.append(len(conn.recv(50)))
                sizes.append(conn.recv_into(bytearray(50)))
                conn.sendall(b"y" * 100)
                sizes.append(len(client.recv(50)))
                sizes.append(client.recv_into(bytearray(50)))
                # One byte is not made none, nor are flags without effect.
                assert len(client.recv(1)) == 1
                assert client.recv(20, socket.MSG_WAITALL) == b"y" * 20
                return sizes

    sizes = run_with("chaos", main, settings={**OFF, "short": 1, "seed": 3}).result
    assert all(0 < size < 100 for size in sizes[:2])
    assert all(0 < size < 50 for size in sizes[2:])


@pytest.mark.parametrize("is_net", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_a_reset_breaks_the_connection(method: str, is_net: bool) -> None:
    argument = {"recv": 10, "recv_into": bytearray(10)}.get(method, b"hello")

    def main() -> None:
        with net.listen("127.0.0.1:0") as server:
            ends = pair(server)
            broken, other = ends if is_net else ends[::-1]
            with pytest.raises(ConnectionResetError):
                getattr(broken, method)(argument)
            broken.close()
            # A thread's sockets are not the plugin's: what it sees is so.
            told: list[object] = []

            def receive() -> None:
                try:
                    told.append(other.recv(10))
                except ConnectionError as exc:
                    told.append(exc)

            thread = threading.Thread(target=receive)
            thread.start()
            thread.join()
            other.close()
            assert told == [b""] or isinstance(told[0], ConnectionResetError)

    counts = counts_of(run_with("chaos", main, settings={**OFF, "reset": 1}))
    assert counts["resets"] == 1


def test_what_is_no_program_goroutine_or_no_tcp_is_left_alone() -> None:
    def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            a.sendall(b"x" * 100)
            assert len(b.recv(100)) == 100
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
        ):
            two.bind(("127.0.0.1", 0))
            one.connect(two.getsockname())
            assert one.send(b"x" * 100) == 100
            assert len(two.recv(100)) == 100

    counts = counts_of(run_with("chaos", main, settings={**OFF, "reset": 1, "short": 1}))
    assert counts["socket_calls"] == 0


def test_the_methods_are_there_again_after_the_run() -> None:
    before = {
        (kind, name): vars(kind).get(name) for kind in (net.Conn, socket.socket) for name in METHODS
    }
    inside: list[bool] = []

    def main() -> None:
        inside.extend("recv" in vars(kind) for kind in (net.Conn, socket.socket))

    run_with("chaos", main, settings={"reset": 5})
    assert inside == [True, True]
    for (kind, name), method in before.items():
        assert vars(kind).get(name) is method


def test_asyncio_copes(script: Script) -> None:
    program = """
import asyncio, golibx
async def main():
    done = asyncio.Event()
    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
        writer.close()
        done.set()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"x" * 5000)
    print(len(await reader.readexactly(5000)))
    writer.close()
    await done.wait()
    server.close()
settings = {"enabled": ["chaos"], "chaos": {"preempt": 5, "delay": 50, "short": 2}}
golibx.run(asyncio.run, main(), config={"plugins": settings})
"""
    result = script(program)
    assert (result.returncode, result.stdout) == (0, "5000\n")
    assert "Traceback" not in result.stderr
