"""How one measurement is made: in fresh processes, free of earlier cases' heaps and threads."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from runtimes import Runtime
from suite import Case

ECHO_CONNECTIONS = 100
ECHO_BYTES = 64
ECHO_SECONDS = 2.0
LATENCY_CONNECTIONS = 5
LATENCY_RATE = 10  # requests a second on each connection
LATENCY_SECONDS = 2.0  # as long as the disturbance

# Starts of the interpreter in one measurement of start-up; it is their median.
_STARTS = 10

# A disturbance shorter than this did not happen; milliseconds.
_DISTURBED_AT_LEAST_MS = 1900.0

# What a parked task may need before a case is refused for want of memory.
_PARKED_AT_MOST_BYTES = 16 * 1024

# No program takes nearly as long; seconds.
_TIMEOUT = 300.0
_SERVER_START_TIMEOUT = 20.0


class MeasurementError(Exception):
    """A benchmark program crashed, hung or printed nonsense; str() has its last words."""


def measure(case: Case, runtime: Runtime, load_generator: Sequence[str]) -> dict[str, float]:
    """Measure a case once; returns at least its metrics, by name. Raises MeasurementError."""
    results = _measure(case, runtime, load_generator)
    metrics = case.metrics_of(runtime.key)
    missing = [metric.key for metric in metrics if metric.key not in results]
    if missing:
        raise MeasurementError(f"printed no {', '.join(missing)}")
    return results


def _measure(case: Case, runtime: Runtime, load_generator: Sequence[str]) -> dict[str, float]:
    match case.kind:
        case "micro" | "native":
            return _measure_micro(case, runtime)
        case "startup":
            return _measure_startup(case, runtime)
        case "echo":
            return _measure_echo(runtime, load_generator)
        case "latency":
            return _measure_latency(case, runtime, load_generator)


def _measure_micro(case: Case, runtime: Runtime) -> dict[str, float]:
    operations = case.operations_of(runtime.key)
    if case.program == "parked":
        _require_memory(operations * _PARKED_AT_MOST_BYTES)
    command = [*runtime.commands[case.kind], case.program, str(operations)]
    results = parse(call(command, runtime.environment))
    for metric in case.metrics_of(runtime.key):
        if metric.key.startswith("preempts_") and results.get(metric.key) == 0:
            raise MeasurementError(f"preempted nobody: {metric.key} is 0")
    return results


def _require_memory(needed: int) -> None:
    """Refuse before the kernel starts to end other programs."""
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in meminfo if line.startswith("MemAvailable:"))
    available = int(line.split()[1]) * 1024
    if available < needed:
        raise MeasurementError(
            f"needs {needed / 2**30:.0f} GiB of memory; {available / 2**30:.1f} GiB are available"
        )


def _measure_startup(case: Case, runtime: Runtime) -> dict[str, float]:
    command = [*runtime.commands["startup"], str(Path(__file__).with_name(case.program))]
    elapsed = []
    for _ in range(_STARTS):
        start = time.perf_counter()
        call(command, runtime.environment)
        elapsed.append((time.perf_counter() - start) * 1e3)
    return {"ms": statistics.median(elapsed)}


def _measure_echo(runtime: Runtime, load_generator: Sequence[str]) -> dict[str, float]:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise MeasurementError("needs two CPUs: one for the server, one for the load")
    with echo_server(runtime, cpus[0]) as (port, pid):
        sizes = [ECHO_CONNECTIONS, ECHO_BYTES, ECHO_SECONDS]
        command = [*load_generator, "load", port, *map(str, sizes), pid]
        return parse(call(command, {"GOMAXPROCS": "1"}, cpus[1]))


def _measure_latency(
    case: Case, runtime: Runtime, load_generator: Sequence[str]
) -> dict[str, float]:
    # Not pinned: a server that has a monitor thread is meant to use the machine's other CPU for it.
    with echo_server(runtime) as (port, _):
        sizes = [LATENCY_CONNECTIONS, LATENCY_RATE, LATENCY_SECONDS]
        results = parse(call([*load_generator, "latency", port, *map(str, sizes), case.program]))
    disturbed_ms = results.get("disturbed_ms", 0.0)
    if case.program != "-" and disturbed_ms < _DISTURBED_AT_LEAST_MS:
        raise MeasurementError(f"the disturbance lasted only {disturbed_ms:.0f} ms")
    return results


def call(
    command: Sequence[str], environment: Mapping[str, str] | None = None, cpu: int | None = None
) -> str:
    """Run a program to its end, on one CPU if asked; returns its standard output."""
    try:
        with _pinned(cpu):
            result = subprocess.run(
                command,
                env=os.environ | (environment or {}),
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"did not end within {_TIMEOUT:.0f} s") from None
    if result.returncode:
        raise MeasurementError(_last_words(result.returncode, result.stderr))
    return result.stdout


@contextmanager
def _pinned(cpu: int | None) -> Iterator[None]:
    """Let the programs that are started meanwhile inherit that they run on one CPU."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, [cpu])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def parse(output: str) -> dict[str, float]:
    """The lines "name<TAB>value" of a program's output; others are the program's own business."""
    results = {}
    for line in output.splitlines():
        name, tab, value = line.partition("\t")
        if tab:
            results[name] = float(value)
    return results


@contextmanager
def echo_server(runtime: Runtime, cpu: int | None = None) -> Iterator[tuple[str, str]]:
    """An echo server that accepts connections; yields its port and its process id."""
    port = _free_port()
    with tempfile.TemporaryFile("w+") as log:
        with _pinned(cpu):
            process = subprocess.Popen(
                [*runtime.commands["echo"], str(port)],
                env=os.environ | runtime.environment,
                stdout=log,
                stderr=log,
            )
        try:
            _wait_until_accepting(process, port)
            yield str(port), str(process.pid)
        except MeasurementError as error:
            status = process.poll()
            if status is None:
                raise
            log.seek(0)
            server = _last_words(status, log.read())
            raise MeasurementError(f"the server {server}; the load generator {error}") from None
        finally:
            _stop(process)


def _wait_until_accepting(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _SERVER_START_TIMEOUT
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
    raise MeasurementError("found no server that accepts connections")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _last_words(status: int, errors: str) -> str:
    how = f"ended by signal {-status}" if status < 0 else f"ended with exit code {status}"
    lines = errors.strip().splitlines()
    return f"{how}: {lines[-1]}" if lines else how
