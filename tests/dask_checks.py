"""A Dask client, its scheduler and workers: `python dask_checks.py one-host|hosts`.

Prints a line of JSON, {"name of the check": "what went wrong, or nothing"}. It is a process of its
own, since distributed leaves threads behind, and has its files in the current directory.
tests/test_dask.py and test_dask_hosts.py run it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dask
import distributed
import psutil
from distributed import Client, LocalCluster, Scheduler, Worker

import golibx
from golibx import _core
from golibx.integrations.dask import GoroutineThreadPoolExecutor

LIMIT = 20.0
MODULE = "golibx.integrations.dask"
Address = str
outcomes: dict[str, str] = {}


def wait_until(what: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def check(function: Callable[..., None], *args: object) -> None:
    print(f"{function.__name__} begins", file=sys.stderr)
    wrong = outcomes.setdefault(function.__name__, "")
    try:
        function(*args)
    except BaseException:
        outcomes[function.__name__] = wrong + traceback.format_exc()


# ---- what tasks do; they share their worker's process ----


def shared(name: str, make: Callable[[], Any]) -> Any:
    return vars(distributed.get_worker()).setdefault(name, make())


def meet(number: int, others: int) -> tuple[int, bool, int]:
    shared("barrier", lambda: threading.Barrier(others)).wait(LIMIT)
    return number, golibx.current() is not None, golibx.stats()["threads"]


def compute(_: object = None) -> int:
    turns = 0
    while not shared("enough", threading.Event).is_set():
        turns += 1
    return turns


def set_event(name: str) -> None:
    shared(name, threading.Event).set()


def wait_for_event(name: str) -> None:
    shared(name + " begun", list).append(1)
    assert shared(name, threading.Event).wait(LIMIT)


def begun(name: str, dask_worker: Any) -> int:
    return len(vars(dask_worker).get(name + " begun", []))


def has_task(key: str, dask_worker: Any) -> bool:
    return key in dask_worker.state.tasks


def fail(text: str) -> None:
    raise ValueError(text)


def note(name: str) -> None:
    shared(name, list).append(1)


def add_one(x: int) -> int:
    return x + 1


def ask_others(x: int, address: Address) -> int:
    with distributed.worker_client() as client:
        assert distributed.get_worker().address == address
        return client.submit(add_one, x, workers=[address], pure=False).result(LIMIT)


def ask_others_seceded(x: int, address: Address) -> int:
    client = distributed.get_client()
    future = client.submit(add_one, x, workers=[address], pure=False)
    distributed.secede()
    result = future.result(LIMIT)
    distributed.rejoin()
    return result + distributed.get_worker().state.nthreads


# ---- workers by the command line ----


@contextmanager
def worker(
    address: Address, name: str, nthreads: int, *python: str
) -> Iterator[subprocess.Popen[str]]:
    command = [*(python or (sys.executable,)), "-m", "dask", "worker", address, "--no-nanny"]
    command += ["--nthreads", str(nthreads), "--preload", MODULE, "--no-dashboard"]
    command += ["--name", name, "--local-directory", os.getcwd()]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def workers_of(client: Client, number: int) -> dict[str, Address]:
    """Their addresses, by their names, when there are so many."""
    client.wait_for_workers(number)
    info = client.scheduler_info(n_workers=-1)["workers"]
    return {str(each["name"]): address for address, each in info.items()}


def check_one_host() -> None:
    """Two workers have nannies of a LocalCluster's; a and b are of the command line."""
    check(a_worker_of_this_process)
    check(a_worker_in_a_run)
    golibx_run = (sys.executable, "-m", "golibx", "run")
    with LocalCluster(
        n_workers=0,
        threads_per_worker=50,
        preload=MODULE,
        dashboard_address=None,
        local_directory=os.getcwd(),
    ) as cluster:
        cluster.scale(2)
        with (
            Client(cluster) as client,
            worker(cluster.scheduler_address, "a", 200) as a,
            worker(cluster.scheduler_address, "b", 4, *golibx_run) as b,
        ):
            address = workers_of(client, 4)
            for name, number in {"0": 50, "1": 50, "a": 200, "b": 4}.items():
                check(many_tasks_at_once, client, address[name], number)
            (pid,) = client.run(os.getpid, workers=[address["1"]]).values()
            lost = address["0"], address["1"], lambda: os.kill(pid, signal.SIGKILL)
            check(another_worker_does_the_tasks, client, *lost)
            check(a_task_that_computes_delays_nobody, client, address["a"])
            check(what_a_task_raises_is_its_result, client, address["a"])
            check(a_cancelled_task_does_not_begin, client, address["a"])
            check(tasks_of_tasks, client, address["b"])
            check(a_nanny_starts_its_worker_anew, client)
            check(another_worker_does_the_tasks, client, address["a"], address["b"], b.kill)
            check(a_worker_ends, client, address["a"], a)
        children = psutil.Process().children(recursive=True)
    check(nothing_is_left_of_a_cluster, children)


def many_tasks_at_once(client: Client, address: Address, number: int) -> None:
    futures = client.map(meet, range(number), others=number, workers=[address], pure=False)
    results = client.gather(futures)
    assert [result[0] for result in results] == [*range(number)]
    assert all(result[1] for result in results), "it was no goroutine"
    # Threads come with calls that block and with a busy machine, but not with goroutines that wait.
    assert number < 100 or max(result[2] for result in results) < number


def a_task_that_computes_delays_nobody(client: Client, address: Address) -> None:
    hogs = client.map(compute, range(3), workers=[address], pure=False)
    wait_until(lambda: all(f.key in client.processing()[address] for f in hogs))
    for _ in range(2):
        seen = last_seen(client, address)
        assert client.gather(client.map(add_one, range(50), workers=[address], pure=False))
        wait_until(lambda: last_seen(client, address) > seen)
    assert not any(hog.done() for hog in hogs)
    client.submit(set_event, "enough", workers=[address], pure=False).result(LIMIT)
    assert all(client.gather(hogs))


def last_seen(client: Client, address: Address) -> float:
    return client.scheduler_info(n_workers=-1)["workers"][address]["last_seen"]


def what_a_task_raises_is_its_result(client: Client, address: Address) -> None:
    future = client.submit(fail, "of the task", workers=[address])
    error = future.exception(LIMIT)
    assert isinstance(error, ValueError)
    assert error.args == ("of the task",)


def a_cancelled_task_does_not_begin(client: Client, address: Address) -> None:
    blockers = client.map(
        lambda _: wait_for_event("free"), range(200), workers=[address], pure=False
    )
    wait_until(lambda: client.run(begun, "free", workers=[address])[address] == 200)
    queued = client.submit(note, "noted", workers=[address], pure=False)
    wait_until(lambda: client.run(has_task, queued.key, workers=[address])[address])
    running = blockers.pop()
    client.cancel([queued, running])
    wait_until(lambda: queued.cancelled() and running.cancelled())
    wait_until(lambda: not client.run(has_task, queued.key, workers=[address])[address])
    client.run(lambda dask_worker: vars(dask_worker)["free"].set(), workers=[address])
    client.gather(blockers)
    assert client.run(lambda dask_worker: hasattr(dask_worker, "noted"))[address] is False


def tasks_of_tasks(client: Client, address: Address) -> None:
    """More tasks than goroutines, and all of them wait for other tasks there."""
    for function, more in ((ask_others, 1), (ask_others_seceded, 5)):
        futures = client.map(function, range(10), address=address, workers=[address], pure=False)
        assert client.gather(futures) == [x + more for x in range(10)]


def another_worker_does_the_tasks(
    client: Client, address: Address, lost: Address, lose: Callable[[], object]
) -> None:
    futures = client.map(
        lambda x: wait_for_event("last") or x, range(4), workers=[address, lost], pure=False
    )
    wait_until(lambda: sum(client.run(begun, "last", workers=[address, lost]).values()) == 4)
    assert client.run(begun, "last", workers=[lost])[lost], "it has no task to lose"
    lose()
    wait_until(lambda: client.run(begun, "last", workers=[address])[address] == 4)
    client.run(lambda dask_worker: vars(dask_worker)["last"].set(), workers=[address])
    assert client.gather(futures) == [0, 1, 2, 3]


def a_nanny_starts_its_worker_anew(client: Client) -> None:
    anew = workers_of(client, 4)["1"]
    number, is_goroutine, _ = client.submit(meet, 7, others=1, workers=[anew]).result(LIMIT)
    assert number == 7
    assert is_goroutine


def a_worker_ends(client: Client, address: Address, process: subprocess.Popen[str]) -> None:
    # Not by SIGTERM: without a nanny Dask may then wait 30 seconds for a message that it cancelled.
    client.retire_workers([address])
    _, log = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, log
    assert "golibx: " not in log, log


def nothing_is_left_of_a_cluster(children: list[psutil.Process]) -> None:
    assert len(children) > 2
    wait_until(lambda: not [each for each in children if is_worker(each)])


def is_worker(process: psutil.Process) -> bool:
    try:
        return process.is_running() and "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


# ---- workers on several hosts ----


HOSTS = 3  # the scheduler's and the workers'


def command(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=LIMIT)


@contextmanager
def hosts() -> Iterator[list[str]]:
    """Network namespaces, each a host 10.0.0.N behind port N of a switch, which is the last."""
    names = [f"golibx-{os.getpid()}-{n}" for n in range(HOSTS)]
    switch = f"golibx-{os.getpid()}-switch"
    try:
        command("ip", "netns", "add", switch)
        command("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        command("ip", "-n", switch, "link", "set", "bridge", "up")
        for n, name in enumerate(names):
            command("ip", "netns", "add", name)
            port = ("link", "add", f"port{n}", "type", "veth", "peer", "name", "eth", "netns", name)
            command("ip", "-n", switch, *port)
            command("ip", "-n", switch, "link", "set", f"port{n}", "master", "bridge", "up")
            command("ip", "-n", name, "address", "add", f"10.0.0.{n + 1}/24", "dev", "eth")
            command("ip", "-n", name, "link", "set", "eth", "up")
            command("ip", "-n", name, "link", "set", "lo", "up")
        yield [*names, switch]
    finally:
        for name in (*names, switch):
            subprocess.run(("ip", "netns", "delete", name), check=False, capture_output=True)


def python_on(host: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{host}", sys.executable]


def check_hosts() -> None:
    """Has the rest run on the first host; or says why there can be none."""
    with ExitStack() as stack:
        try:
            names = stack.enter_context(hosts())
        except (OSError, subprocess.CalledProcessError) as error:
            outcomes["skipped"] = f"{error} {getattr(error, 'stderr', '')}"
            return
        first = [*python_on(names[0]), __file__, "first-host", *names]
        environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "3s"}
        done = subprocess.run(first, stdout=subprocess.PIPE, check=True, env=environment)
        outcomes.update(json.loads(done.stdout))


def check_first_host(_: str, host_a: str, host_b: str, switch: str) -> None:
    with LocalCluster(
        n_workers=0, processes=False, protocol="tcp://", host="10.0.0.1", dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        assert "10.0.0.1" in address
        with (
            Client(cluster) as client,
            worker(address, "a", 4, *python_on(host_a)),
            worker(address, "b", 4, *python_on(host_b)),
        ):
            by_name = workers_of(client, 2)
            assert by_name["a"].startswith("tcp://10.0.0.2:")

            def unplug_b() -> None:
                command("ip", "-n", switch, "link", "set", "port2", "down")

            check(many_tasks_at_once, client, by_name["b"], 4)
            check(another_worker_does_the_tasks, client, by_name["a"], by_name["b"], unplug_b)


# ---- workers of this process ----


async def use_a_worker() -> None:
    async with (
        Scheduler(dashboard_address=":0", port=0, host="127.0.0.1") as scheduler,
        Worker(
            scheduler.address,
            nthreads=20,
            executor=GoroutineThreadPoolExecutor(20),
            local_directory=os.getcwd(),
            host="127.0.0.1",
        ) as one,
        Client(scheduler.address, asynchronous=True) as client,
    ):
        futures = client.map(meet, range(20), others=20, pure=False)
        results = await client.gather(futures)
        assert [result[0] for result in results] == [*range(20)]
        assert all(result[1] for result in results)
        assert one.executor.submit(add_one, 1).result(LIMIT) == 2


def a_worker_of_this_process() -> None:
    asyncio.run(use_a_worker())
    assert not _core.active()
    assert not [each.name for each in threading.enumerate() if "golibx" in each.name]


def a_worker_in_a_run() -> None:
    def main() -> int:
        asyncio.run(use_a_worker())
        return golibx.num_goroutine()

    assert golibx.run(main) == 1


if __name__ == "__main__":
    dask.config.set({"distributed.comm.timeouts.connect": "30s"})
    checks: dict[str, Callable[..., None]] = {
        "one-host": check_one_host,
        "hosts": check_hosts,
        "first-host": check_first_host,
    }
    checks[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(outcomes))
