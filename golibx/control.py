"""What other processes may ask and change: `golibx stats`, `plugins`, `profile` and others.

They connect to the socket that `golibx dump` asks through. zsrc/python/run/requests.zig has the
protocol, and lets only the process's own user and root in. For a request that it does not answer
itself it calls `answer`, in a thread of its own. The requests:

    stats           counters, latencies, and the present values of what can be tuned; this is
                    answered in part where the interpreter is stuck
    plugins         what the hooks of its plugins took
    goroutines      what golibx.stacks() shows, as an object
    tune {…}        sets values, a JSON object of strings by key; what was there before
    trace           has the plugin trace write the last seconds; the file's path
    profile {…}     begins a profile, says how far it is, gives it up, or returns it: `_Attached`

The answers are JSON objects. The rest of this module is what asks.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from golibx import _core, tuning
from golibx.dump import DumpError, request, snapshot
from golibx.errors import ConfigError
from golibx.patch import threads
from golibx.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from threading import Thread

    from golibx.hookspec import PluginStats

__all__ = [
    "answer",
    "goroutines",
    "plugins",
    "processes",
    "profile",
    "stats",
    "trace",
    "tune",
]


# ---- in the process that is asked ----


def answer(asked: str, pid: int) -> str:
    """The answer to a request: "+" and JSON, or "-" and why there is none.

    Args:
        asked: the request, without the greeting.
        pid: the process that asks.
    """
    verb, _, body = asked.partition(" ")
    try:
        if verb == "stats" and not body:
            return f"+{json.dumps(_stats())}\n"
        if verb == "plugins" and not body:
            return f"+{json.dumps(_plugins())}\n"
        if verb == "tune":
            return f"+{json.dumps(_tune(body, pid))}\n"
        if verb == "trace" and not body:
            return f"+{json.dumps(_trace(pid))}\n"
        if verb == "goroutines" and not body:
            return f"+{json.dumps({**_about(), **snapshot()})}\n"
        if verb == "profile":
            return f"+{json.dumps(_profile(body, pid))}\n"
        return (
            f"-there is no request {verb!r} of golibx {__version__}: "
            "there are dump, goroutines, stats, plugins, tune, trace, profile\n"
        )
    except (ConfigError, RuntimeError, ValueError) as exc:
        return f"-{exc}\n"
    except Exception as exc:  # A client must not wait for what will not come.
        return f"-{type(exc).__name__}: {exc}\n"


def _about() -> dict[str, Any]:
    return {
        "interpreter": True,
        "golibx": __version__,
        "python": sys.version.partition(" ")[0],
        "program": sys.argv[0],
    }


def _stats() -> dict[str, Any]:
    latencies = _core.latencies()
    ordered = dict(sorted(latencies.items()))
    _core.measure_latency()
    return {
        **_about(),
        "stats": _core.stats(),
        "latency": {
            "count": sum(latencies.values()),
            "p50_ns": tuning.quantile(ordered, 0.5),
            "p90_ns": tuning.quantile(ordered, 0.9),
            "p99_ns": tuning.quantile(ordered, 0.99),
            "max_ns": tuning.quantile(ordered, 1.0),
        },
        "tunables": tuning.tunables(),
    }


def _plugins() -> dict[str, Any]:
    manager = sys.modules.get("golibx.pluginmanager")
    running = None if manager is None else manager.running
    found: dict[str, PluginStats] = {} if running is None else running.stats()
    return {
        name: {
            "state": each.state,
            "share": each.share,
            "hooks": {hook: times._asdict() for hook, times in each.hooks.items()},
        }
        for name, each in found.items()
    }


def _tune(body: str, pid: int) -> dict[str, Any]:
    changes = json.loads(body)
    if not isinstance(changes, dict) or not all(isinstance(v, str) for v in changes.values()):
        raise ValueError("what to change is a JSON object of strings by key")
    return tuning.change(changes, f"golibx tune (process {pid})", is_text=True)


def _trace(pid: int) -> dict[str, str]:
    plugin = sys.modules.get("golibx.plugins.trace")
    if plugin is None:
        raise RuntimeError(
            "it runs without the plugin trace: start it with --set plugins.enabled=trace "
            "--set plugins.trace.mode=flight"
        )
    return {"path": plugin.flight(f"golibx trace --flight, of process {pid}")}


class _Attached:
    """A profile that another process has asked for.

    The requests {"do": …} are:

    - "start", with "kind", "format", "hz", "interval_ns" and "duration_ns";
    - "look": {"done": bool};
    - "fetch", once it is done: {"data": base64}, and the file is forgotten here;
    - "stop": it is given up.
    """

    def __init__(self, asker: int, wanted: dict[str, Any]) -> None:
        # Plugins are loaded by name: they lie above this module.
        module = importlib.import_module("golibx.plugins.profile")
        kind, format_ = wanted["kind"], wanted["format"]
        formats = (*module.FORMATS, module.TOTALS) if kind == "cpu" else module.FORMATS
        if kind not in module.KINDS or format_ not in formats:
            raise ValueError(f"there is no {kind} profile for {format_}")
        hz, interval_ns = int(wanted["hz"]), int(wanted["interval_ns"])
        duration_ns = int(wanted["duration_ns"])
        for name, value, low, high in (
            ("hz", hz, 10, 1000),
            ("interval_ns", interval_ns, 1_000_000, 60_000_000_000),
            ("duration_ns", duration_ns, 1, 86_400_000_000_000),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} = {value}: out of range (allowed: {low} to {high})")
        self.asker = asker
        self.process = os.getpid()
        self.problem = ""
        self.data: bytes | None = None
        self.is_given_up = False
        self._collector = module.Collector(
            [kind],
            hz=hz,
            interval_ns=interval_ns,
            duration_ns=duration_ns,
            sample=_core.sample,
            start_thread=_start_thread,
        )
        self._collector.start()
        finish = (module.encode, kind, format_)
        self._thread = threads.start_bystander(self._finish, finish)

    def _finish(self, encode: Callable[[Any, str], bytes], kind: str, format_: str) -> None:
        """A thread."""
        try:
            self._collector.join()
            self.problem = self._collector.problem
            self.data = encode(self._collector.profiles[kind], format_)
        except Exception as exc:  # The client has to know.
            self.problem = f"{type(exc).__name__}: {exc}"
        finally:
            self.data = self.data or b""

    def give_up(self) -> None:
        """It ends soon, and no client gets it."""
        self.is_given_up = True
        self._collector.interrupt()

    def make_way(self) -> None:
        """It ends before another one begins."""
        if self.process == os.getpid():
            self.give_up()
            self._thread.join(_MAKE_WAY_S)

    def is_owned(self) -> bool:
        """Whether its client may still come for it. Until then it is in the way of others."""
        if self.process != os.getpid() or self.is_given_up:
            return False  # it may be the parent's of a fork
        return os.path.exists(f"/proc/{self.asker}")


_MAKE_WAY_S = 2.0


def _start_thread(fn: Callable[[], object]) -> Thread:
    return threads.start_bystander(fn, ())


_attached: _Attached | None = None


def _profile(body: str, pid: int) -> dict[str, Any]:
    global _attached
    wanted = json.loads(body)
    what = wanted["do"] if isinstance(wanted, dict) else None
    if what == "start":
        if not _core.active():
            raise RuntimeError("no runtime is running")
        if _attached is not None:
            if _attached.is_owned():
                raise RuntimeError(f"process {_attached.asker} takes a profile of it already")
            _attached.make_way()
        _attached = _Attached(pid, wanted)
        return {}
    attached = _attached
    if what not in ("look", "fetch", "stop"):
        raise ValueError(f"a profile has no {what!r}")
    if attached is None or attached.asker != pid or attached.process != os.getpid():
        raise RuntimeError("the profile is gone: another process has begun one, or it was fetched")
    if what == "look":
        return {"done": attached.data is not None}
    if what == "fetch" and attached.data is not None:
        _attached = None
        if attached.problem:
            raise RuntimeError(attached.problem)
        return {"data": base64.b64encode(attached.data).decode()}
    if what == "fetch":
        raise RuntimeError("the profile is not done")
    attached.give_up()
    return {}


# ---- in the one that asks ----


def stats(pid: int, *, timeout: float = 15.0) -> dict[str, Any]:
    """What the process does: {"stats": {…}, "tunables": {…}, "latency": {…}, …}.

    Where its interpreter is stuck, "interpreter" is False and there are fewer of them.

    Raises DumpError, as golibx.dump.request does.
    """
    return _object(pid, request(pid, "stats", timeout=timeout))


def plugins(pid: int, *, timeout: float = 15.0) -> dict[str, Any]:
    """What Runtime.plugin_stats() of the process says, its tuples as mappings.

    Raises DumpError, also where its interpreter is stuck.
    """
    return _object(pid, request(pid, "plugins", timeout=timeout))


def goroutines(pid: int, *, timeout: float = 15.0) -> dict[str, Any]:
    """What the goroutines and threads of the process do: docs/debugging.md describes it.

    Raises DumpError, also where its interpreter is stuck.
    """
    return _object(pid, request(pid, "goroutines", timeout=timeout))


def tune(pid: int, changes: Mapping[str, str], *, timeout: float = 15.0) -> dict[str, int]:
    """Sets values in the process; what was there before.

    Raises DumpError, also where the process refuses a value.
    """
    text = json.dumps(dict(changes))
    return _object(pid, request(pid, f"tune {text}", timeout=timeout))


def trace(pid: int, *, timeout: float = 15.0) -> str:
    """Has the process write the last seconds of its trace; the path of the file.

    Raises DumpError, also where it has no plugin trace, or one that writes all that happens.
    """
    return str(_object(pid, request(pid, "trace", timeout=timeout)).get("path"))


_LOOK_S = 0.2


def profile(
    pid: int,
    seconds: float,
    *,
    kind: str = "cpu",
    format_: str = "pprof",
    hz: int = 100,
    interval: float = 0.02,
    timeout: float = 15.0,
    progress: Callable[[float], object] = bool,
) -> bytes:
    """Takes a profile of the process, which need not have the plugin; the bytes of the file.

    Args:
        pid: its process id.
        seconds: how long; "leak" takes as long as it takes.
        kind: "cpu", "block", "mutex" or "leak".
        format_: "pprof" or "speedscope"; of "cpu" also "totals": JSON, the time for which it was
            taken and that of each goroutine in it, {"total_ns": …, "goroutines": {"7": …}}.
        hz: samples a second, of "cpu".
        interval: seconds between two looks, of "block" and "mutex".
        timeout: seconds to wait for each answer, and for the end when the time is up.
        progress: called now and then, with the seconds that have passed.

    Raises DumpError, also where the process cannot be profiled.
    """

    def ask(what: str, **more: object) -> dict[str, Any]:
        text = json.dumps({"do": what, **more})
        return _object(pid, request(pid, f"profile {text}", timeout=timeout))

    ask(
        "start",
        kind=kind,
        format=format_,
        hz=hz,
        interval_ns=int(interval * 1e9),
        duration_ns=max(int(seconds * 1e9), 1) if kind != "leak" else 1,
    )
    began = time.monotonic()
    try:
        while not ask("look")["done"]:
            passed = time.monotonic() - began
            progress(passed)
            if passed > seconds + timeout:
                raise DumpError(
                    f"process {pid} has not finished the profile {timeout:g} s after its time"
                )
            time.sleep(min(_LOOK_S, max(seconds - passed, 0.01)))
        return base64.b64decode(ask("fetch")["data"])
    except BaseException:
        with contextlib.suppress(DumpError):
            ask("stop")
        raise


def _object(pid: int, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DumpError(f"process {pid} has answered what this golibx does not understand")
    return found


def processes() -> list[int]:
    """The processes on this machine, or in this container, that can be asked; by number."""
    if sys.platform != "linux":
        raise DumpError("golibx ps works on Linux only")
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        found = {
            int(number) for number in re.findall(r" @golibx-(\d+)$", file.read(), re.MULTILINE)
        }
    return sorted(pid for pid in found if os.path.exists(f"/proc/{pid}"))
