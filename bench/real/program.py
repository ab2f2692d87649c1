"""An ordinary program of many threads, of which each does the same again and again.

    python program.py ROW TASKS SECONDS [--hog]

It knows nothing of golibx or gevent: what it runs on is who starts it. Prints a line of JSON: how
often all of them did it in a second (rate), how long that took (p50, p99, longest; milliseconds),
the processor's time for each (microseconds), and how many threads the process had.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

Operation = Callable[[], object]
# Called once; then for each thread, with its number. What that returns is done again and again.
Row = Callable[[int], Callable[[int], Operation]]

PORTS = json.loads(os.environ.get("BENCH_REAL_PORTS", "{}"))
WAIT = 1.0  # seconds, for what others should bring
POOL = 20  # threads, and connections


def _url(server: str, path: str) -> str:
    return f"http://127.0.0.1:{PORTS[server]}/{path}"


def requests(_: int) -> Callable[[int], Operation]:
    import requests

    def thread(_: int) -> Operation:
        session = requests.Session()
        session.trust_env = False
        return lambda: session.get(_url("http", "small")).content

    return thread


def http_client(_: int) -> Callable[[int], Operation]:
    from http.client import HTTPConnection

    def thread(_: int) -> Operation:
        connection = HTTPConnection("127.0.0.1", PORTS["slow"])

        def ask() -> bytes:
            connection.request("GET", "/")
            return connection.getresponse().read()

        return ask

    return thread


def redis(tasks: int) -> Callable[[int], Operation]:
    import redis

    client = redis.Redis(port=PORTS["redis"], max_connections=tasks + 10)

    def thread(number: int) -> Operation:
        key = f"key {number}"

        def set_and_get() -> None:
            client.set(key, "value")
            if client.get(key) != b"value":
                raise ValueError(key)

        return set_and_get

    return thread


def psycopg(_: int) -> Callable[[int], Operation]:
    import psycopg

    def thread(_: int) -> Operation:
        connection = psycopg.connect(_postgres(), autocommit=True)
        return lambda: connection.execute("select pg_sleep(0.05)").fetchall()

    return thread


def _postgres() -> str:
    return f"host=127.0.0.1 port={PORTS['postgres']} user=postgres dbname=postgres"


def mysqlclient(_: int) -> Callable[[int], Operation]:
    import MySQLdb

    def thread(_: int) -> Operation:
        connection = MySQLdb.connect(host="127.0.0.1", port=PORTS["mysql"], user="bench")

        def ask() -> None:
            cursor = connection.cursor()
            cursor.execute("select sleep(0.05)")
            cursor.fetchall()
            cursor.close()

        return ask

    return thread


def sqlalchemy(_: int) -> Callable[[int], Operation]:
    """All threads share a pool of 20 connections."""
    import sqlalchemy

    port = PORTS["postgres"]
    engine = sqlalchemy.create_engine(
        f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres",
        pool_size=POOL,
        max_overflow=0,
        pool_timeout=60,
    )
    text = sqlalchemy.text("select pg_sleep(0.005)")

    def ask() -> None:
        with engine.connect() as connection:
            connection.execute(text).all()

    return lambda _: ask


def queues(tasks: int) -> Callable[[int], Operation]:
    """Pairs: one asks, the other answers."""
    pairs: list[tuple[queue.Queue[int], queue.Queue[int]]]
    pairs = [(queue.Queue(), queue.Queue()) for _ in range(tasks // 2 + 1)]

    def thread(number: int) -> Operation:
        question, answer = pairs[number // 2]

        def asks() -> None:
            question.put(1)
            answer.get(timeout=WAIT)

        def answers() -> None:
            answer.put(question.get(timeout=WAIT))

        return answers if number % 2 else asks

    return thread


def condition_ring(tasks: int) -> Callable[[int], Operation]:
    """Two tokens go around a ring of conditions."""
    conditions = [threading.Condition() for _ in range(tasks)]
    tokens = [0] * tasks
    tokens[0] = tokens[tasks // 2] = 1

    def thread(number: int) -> Operation:
        after = (number + 1) % tasks

        def pass_on() -> None:
            with conditions[number]:
                if not conditions[number].wait_for(lambda: tokens[number], WAIT):
                    raise TimeoutError
                tokens[number] -= 1
            with conditions[after]:
                tokens[after] += 1
                conditions[after].notify()

        return pass_on

    return thread


def pool(_: int) -> Callable[[int], Operation]:
    executor = ThreadPoolExecutor(POOL)
    return lambda _: lambda: executor.submit(time.sleep, 0.001).result()


def file_log(_: int) -> Callable[[int], Operation]:
    import logging

    path = os.path.join(tempfile.gettempdir(), f"bench-real-{os.getpid()}.log")
    log = logging.getLogger("bench")
    log.addHandler(logging.FileHandler(path, mode="w"))
    os.unlink(path)
    log.setLevel(logging.INFO)
    log.propagate = False
    return lambda number: lambda: log.info("thread %d says hello", number)


def subprocess(_: int) -> Callable[[int], Operation]:
    import subprocess

    return lambda _: lambda: subprocess.run(["/bin/true"], check=True)


ROWS: Mapping[str, Row] = {
    "requests": requests,
    "http.client": http_client,
    "redis": redis,
    "psycopg": psycopg,
    "mysqlclient": mysqlclient,
    "sqlalchemy": sqlalchemy,
    "queue": queues,
    "condition": condition_ring,
    "pool": pool,
    "file-log": file_log,
    "subprocess": subprocess,
}


class Run:
    """The threads of one measurement."""

    def __init__(self, row: Row, tasks: int) -> None:
        self.operation = row(tasks)
        self.tasks = tasks
        self.ready = 0
        self.all_ready = threading.Event()
        self.go_on = threading.Event()
        self.until = 0.0
        self.times: list[float] = []
        self.errors: dict[str, int] = {}
        # They hold connections: a server that closes some has less time for the others.
        self.operations: list[Operation] = []
        self.lock = threading.Lock()

    def work(self, number: int) -> None:
        times: list[float] = []
        errors: dict[str, int] = {}
        try:
            operation = self.operation(number)
            self.operations.append(operation)
        except Exception as error:
            errors[f"{type(error).__name__}: {error}"] = 1
            operation = None
        with self.lock:
            self.ready += 1
            if self.ready == self.tasks:
                self.all_ready.set()
        self.go_on.wait()
        began = time.perf_counter()
        while operation is not None and began < self.until:
            try:
                operation()
            except Exception as error:
                # The partner of one that has ended waits in vain, once.
                if time.perf_counter() < self.until:
                    name = f"{type(error).__name__}: {error}"
                    errors[name] = errors.get(name, 0) + 1
            now = time.perf_counter()
            if now < self.until + WAIT / 2:
                times.append(now - began)
            began = now
        with self.lock:
            self.times += times
            for name, count in errors.items():
                self.errors[name] = self.errors.get(name, 0) + count

    def hog(self) -> None:
        self.go_on.wait()
        number = 0
        while time.perf_counter() < self.until:
            for _ in range(1000):
                number += 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("tasks", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--hog", action="store_true", help="a thread computes meanwhile")
    options = parser.parse_args()
    run = Run(ROWS[options.row], options.tasks)
    threads = [
        threading.Thread(target=run.work, args=(i,), daemon=True) for i in range(options.tasks)
    ]
    if options.hog:
        threads.append(threading.Thread(target=run.hog, daemon=True))
    for thread in threads:
        thread.start()
    if not run.all_ready.wait(60):
        sys.exit(f"only {run.ready} of {options.tasks} threads were ready after 60 seconds")
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    run.until = began + options.seconds
    run.go_on.set()
    time.sleep(options.seconds / 2)
    count = len(os.listdir("/proc/self/task"))
    for thread in threads:
        thread.join(options.seconds + 30)
    after = resource.getrusage(resource.RUSAGE_SELF)
    times = sorted(run.times)
    if not times:
        sys.exit(f"nothing was done: {run.errors}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = {
        "rate": len(times) / options.seconds,
        "p50": times[len(times) // 2] * 1e3,
        "p99": times[int(len(times) * 0.99)] * 1e3,
        "longest": times[-1] * 1e3,
        "cpu": cpu / len(times) * 1e6,
        "threads": count,
        "errors": run.errors,
    }
    print(json.dumps(result), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
