"""What other processes may ask and change: `golibx stats`, `plugins`, `tune` and others.

They connect to the socket that `golibx dump` asks through. zsrc/python/run/requests.zig has the
protocol, and lets nobody in but the process's own user and root: of a request that it does not
answer itself it calls `answer`, in a thread of its own. The requests:

    stats           counters, latencies, and the present values of what can be tuned; this is
                    answered in part where the interpreter is stuck
    plugins         what the hooks of its plugins took
    tune {…}        sets values, a JSON object of strings by key; what was there before
    trace           has the plugin trace write the last seconds; the file's path

The answers are JSON objects. The rest of this module is what asks.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from golibx import _core, tuning
from golibx.dump import DumpError, request
from golibx.errors import ConfigError
from golibx.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from golibx.hookspec import PluginStats

__all__ = ["answer", "plugins", "processes", "stats", "trace", "tune"]


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
        return (
            f"-there is no request {verb!r} of golibx {__version__}: "
            "there are dump, stats, plugins, tune, trace\n"
        )
    except (ConfigError, RuntimeError, ValueError) as exc:
        return f"-{exc}\n"
    except Exception as exc:  # Whoever asks is not to wait for what will not come.
        return f"-{type(exc).__name__}: {exc}\n"


def _stats() -> dict[str, Any]:
    latencies = _core.latencies()
    ordered = dict(sorted(latencies.items()))
    _core.measure_latency()
    return {
        "interpreter": True,
        "golibx": __version__,
        "python": sys.version.partition(" ")[0],
        "program": sys.argv[0],
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
