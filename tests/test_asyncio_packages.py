"""Packages for asyncio beside goroutines: aiohttp, httpx, anyio and uvloop, with golibx.net."""

from __future__ import annotations

import asyncio
import json
import signal

import aiohttp
import aiohttp.web
import anyio
import anyio.from_thread
import anyio.to_thread
import httpx
import pytest

from conftest import Script
from golibx import (
    Cancelled,
    Chan,
    Event,
    GoroutinePoolExecutor,
    aio,
    current,
    go,
    net,
    scope,
    sleep,
)

# The server answers connections for as long as their clients keep them.
pytestmark = pytest.mark.goroutine(leaks=False)


# ---- a server of golibx.net, and clients of those packages ----


def serve_http(conn: net.Conn) -> None:
    """Answers each request with its method, path and body, as JSON; /slow never."""
    with conn, conn.makefile("rwb") as file:
        while line := file.readline():
            method, path, _ = line.decode().split()
            length = 0
            while (header := file.readline().strip().lower()) != b"":
                name, _, value = header.partition(b":")
                if name == b"content-length":
                    length = int(value)
            body = file.read(length).decode()
            if path == "/slow":
                slow.set()
                sleep(3600)
            answer = json.dumps([method, path, body]).encode()
            file.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
            file.flush()


slow = Event()


def start_server() -> tuple[str, net.Listener]:
    """In the run of the test, unlike what a fixture would start."""
    slow.clear()
    listener = net.listen("127.0.0.1:0")

    def accept() -> None:
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            go(serve_http, conn)

    go(accept)
    return "http://%s:%d" % listener.address[:2], listener


def test_an_aiohttp_client_in_a_loop_of_its_own() -> None:
    url, listener = start_server()

    async def main() -> list[object]:
        async with aiohttp.ClientSession() as session:

            async def fetch(n: int) -> object:
                async with session.post(f"{url}/{n}", data=f"body {n}") as response:
                    return json.loads(await response.text())

            return await asyncio.gather(*(fetch(n) for n in range(30)))

    assert asyncio.run(main()) == [["POST", f"/{n}", f"body {n}"] for n in range(30)]
    listener.close()


def test_goroutines_share_an_aiohttp_session() -> None:
    url, listener = start_server()

    async def open_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    session = aio.run(open_session())

    async def get(n: int) -> object:
        async with session.get(f"{url}/{n}") as response:
            return json.loads(await response.text())

    with scope() as s:
        answers = list(s.map(lambda n: aio.run(get(n)), range(30)))
    assert answers == [["GET", f"/{n}", ""] for n in range(30)]
    aio.run(session.close())
    listener.close()


def test_cancelling_a_goroutine_ends_its_request() -> None:
    url, listener = start_server()

    async def get(path: str) -> str:
        async with aiohttp.ClientSession() as session, session.get(url + path) as response:
            return await response.text()

    g = go(lambda: aio.run(get("/slow")))
    slow.wait()
    g.cancel()
    with pytest.raises(Cancelled):
        g.result()
    assert json.loads(aio.run(get("/a"))) == ["GET", "/a", ""]
    listener.close()


def test_httpx_in_loops_and_in_goroutines() -> None:
    url, listener = start_server()

    async def with_loop(n: int) -> object:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{url}/{n}")).json()

    def without(n: int) -> object:
        with httpx.Client(trust_env=False) as client:
            return client.put(f"{url}/{n}", content="text").json()

    with scope() as s:
        shared = s.map(lambda n: aio.run(with_loop(n)), range(3))
        own = s.map(lambda n: asyncio.run(with_loop(n)), range(3))
        plain = s.map(without, range(3))
        assert list(shared) == list(own) == [["GET", f"/{n}", ""] for n in range(3)]
        assert list(plain) == [["PUT", f"/{n}", "text"] for n in range(3)]
    listener.close()


# ---- a server of aiohttp, and goroutines as clients ----


def test_an_aiohttp_server_that_waits_for_goroutines() -> None:
    started: Chan[tuple[str, int]] = Chan(1)
    asked: Chan[tuple[str, Chan[str]]] = Chan()
    ending: Chan[asyncio.Event] = Chan(1)
    loops: Chan[asyncio.AbstractEventLoop] = Chan(1)

    def ask(name: str) -> str:
        answer: Chan[str] = Chan()
        asked.send((name, answer))
        return answer.recv()

    async def handle(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text=await aio.wait(go(ask, request.match_info["name"])))

    async def main() -> None:
        app = aiohttp.web.Application()
        app.router.add_get("/{name}", handle)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        end = asyncio.Event()
        ending.send(end)
        loops.send(asyncio.get_running_loop())
        started.send(runner.addresses[0])
        await end.wait()
        await runner.cleanup()

    def client(name: str) -> bytes:
        with net.dial(address) as conn:
            conn.sendall(f"GET /{name} HTTP/1.0\r\n\r\n".encode())
            reply = b""
            while data := conn.recv(1000):
                reply += data
        return reply.rpartition(b"\r\n\r\n")[2]

    def answers() -> None:
        for name, answer in asked:
            answer.send(f"hello {name}")

    server = go(asyncio.run, main())
    address = started.recv()
    answering = go(answers)
    with scope() as s:
        assert list(s.map(client, "abc")) == [b"hello a", b"hello b", b"hello c"]
    asked.close()
    answering.result()
    loops.recv().call_soon_threadsafe(ending.recv().set)
    server.result()


# ---- anyio ----


def test_anyio_in_goroutines() -> None:
    async def main() -> list[object]:
        results: list[object] = []

        async def worker(n: int) -> None:
            await anyio.sleep(0.001)
            results.append(n)

        async with anyio.create_task_group() as group:
            for n in range(5):
                group.start_soon(worker, n)
        with anyio.move_on_after(0.002) as moved:
            await anyio.sleep(3600)
        assert moved.cancelled_caught
        results.append(await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(give)))
        return results

    async def give() -> str:
        await anyio.sleep(0)
        return "given"

    running = [go(anyio.run, main) for _ in range(3)]
    for goroutine in running:
        *numbers, last = goroutine.result()
        assert sorted(numbers) == list(range(5))
        assert last == "given"
    *numbers, last = aio.run(main())
    assert last == "given"


def test_an_executor_of_goroutines_for_a_client_that_waits() -> None:
    url, listener = start_server()

    def fetch(n: int) -> object:
        assert current() is not None
        return httpx.get(f"{url}/{n}", trust_env=False).json()

    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        with GoroutinePoolExecutor(8) as executor:
            calls = [loop.run_in_executor(executor, fetch, n) for n in range(20)]
            return await asyncio.gather(*calls)

    assert go(asyncio.run, main()).result() == [["GET", f"/{n}", ""] for n in range(20)]
    listener.close()


# ---- uvloop ----

UVLOOP = """
import asyncio, time, uvloop
from golibx import go, gosched, run, sleep

def hog():
    while True: sum(range(1000))

async def main():
    try:
        print("ready", flush=True)
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.001)
        print("cleaned up", flush=True)

def outer():
    go(hog)
    WAY

try:
    run(outer, config={"runtime": {"shutdown_timeout": "200ms"}})
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
UVLOOP_WAYS = {
    "run": ("uvloop.run(main())", True),
    "policy": (
        "asyncio.set_event_loop_policy(uvloop.EventLoopPolicy()); asyncio.run(main())",
        True,
    ),
    "factory": (
        "with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner: runner.run(main())",
        True,
    ),
    # Another goroutine's call has the main thread.
    "main is elsewhere": ("go(time.sleep, 3600); gosched(); uvloop.run(main())", True),
    # That loop looks for no signals. It has to have left the main thread for run() to return.
    "another goroutine": ("go(uvloop.run, main()); sleep(3600)", False),
    "a loop without asyncio.run()": (
        "go(lambda: uvloop.new_event_loop().run_until_complete(main())); sleep(3600)",
        False,
    ),
}


@pytest.mark.goroutine(False)
@pytest.mark.parametrize("way", UVLOOP_WAYS)
def test_ctrl_c_in_uvloop(script: Script, way: str) -> None:
    pytest.importorskip("uvloop", reason="uvloop is not installed: no wheel for this Python")
    statement, cleans_up = UVLOOP_WAYS[way]
    program = UVLOOP.replace("WAY", statement)
    with script.start(program, python=("-W", "ignore")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert out == "cleaned up\n" * cleans_up + "interrupted\n", err
    assert process.returncode == 0


@pytest.mark.goroutine(leaks=False, preempt={"slice": "1ms"})
def test_uvloop_in_goroutines() -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    url, listener = start_server()
    done: Chan[int] = Chan()

    async def use(n: int) -> list[object]:
        loop = asyncio.get_running_loop()
        called = asyncio.Event()
        go(loop.call_soon_threadsafe, called.set)
        await called.wait()
        go(done.send, n)
        parked = done.recv()  # below uvloop's C code
        waited = await asyncio.gather(*(aio.wait(go(int, k)) for k in range(3)))
        slept = await asyncio.to_thread(lambda: sleep(0.001))
        async with aiohttp.ClientSession() as session, session.get(f"{url}/{n}") as response:
            return [
                type(loop).__module__,
                parked in range(9),
                *waited,
                slept,
                await response.json(content_type=None),
            ]

    for n, goroutine in enumerate([go(uvloop.run, use(n)) for n in range(8)]):
        assert goroutine.result() == ["uvloop", True, 0, 1, 2, None, ["GET", f"/{n}", ""]]
        assert not goroutine.locked
    assert uvloop.run(use(8)) == ["uvloop", True, 0, 1, 2, None, ["GET", "/8", ""]]
    listener.close()
