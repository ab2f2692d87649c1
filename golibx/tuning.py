"""Changing the scheduler while the program runs: what may be set, and what becomes of it.

Every change goes through `change`: by the program (golibx.tune), a plugin (Runtime.tune and the
hook `tune`), a rule of [tune], or `golibx tune PID`. It checks all values before it sets one, sets
all of them or none, and has each that is another now counted and told to plugins (`on_tune`).

The values are the native core's (zsrc/core/tunables.zig), which both lanes read where they need
them, and GOMAXPROCS.
"""

from __future__ import annotations

import os
import time

from golibx import _core
from golibx.errors import ConfigError

TYPE_CHECKING = False  # typing costs more to import than this whole module
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from golibx.config import Config
    from golibx.rules import Rule, Snapshot, TuningKey

__all__ = ["BeyondLimits", "Meter", "RuleBook", "change", "keys", "limits_of", "tunables", "tune"]

LATENCY_BIT = 1 << 31
"""Of the event mask: latencies are measured."""

_GOMAXPROCS = "runtime.gomaxprocs"
_changing = _core.Guard()
"""So that `on_tune` tells of the changes in their order, each with what was there before."""


class BeyondLimits(ConfigError):
    """A value that is right, but not within [tune] limits."""


def tunables() -> dict[str, int]:
    """The present values of all keys that may change while the program runs, as in golib.toml.

    Durations are in nanoseconds: {"preempt.slice": 10_000_000, …}.
    """
    values = _core.tunables()
    values[_GOMAXPROCS] = _core.gomaxprocs()
    return values


def tune(changes: Mapping[str, int | str], /) -> dict[str, int]:
    """Changes some of tunables(): tune({"preempt.slice": "2ms"}).

    Any thread may call it while the runtime runs. What is changed holds until the run ends; a new
    run begins with what its configuration says.

    Args:
        changes: values by their keys in golib.toml, as they are written there; a duration may also
            be an int, of nanoseconds.

    Returns:
        What was there before, for tune() to restore.

    Raises:
        ConfigError: a key that cannot change, or a value that is not allowed, with what is; nothing
            was changed.
        TypeError: `changes` is not a mapping.
        RuntimeError: no runtime is running.
    """
    return change(changes, "program")


def limits_of(limits: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """The least and the most of each key, by these limits and else by its own range."""
    from golibx.rules import KEYS, range_of

    return {path: limits.get(path) or range_of(key) for path, key in KEYS.items()}


def keys(config: Config) -> dict[str, TuningKey]:
    """What is known about each of tunables(), by its key."""
    from golibx.rules import KEYS, TuningKey

    values, limits = tunables(), limits_of(config.tune.limits)
    found = {}
    for path, key in KEYS.items():
        section = getattr(config, path.partition(".")[0])
        found[path] = TuningKey(
            value=values[path],
            configured=_meant(path, getattr(section, key.attribute)),
            low=limits[path][0],
            high=limits[path][1],
            zero=key.zero if path not in config.tune.limits else "",
            is_duration=key.kind == "duration",
            description=key.description,
        )
    return found


def change(
    changes: Mapping[str, object],
    who: str,
    limits: Mapping[str, tuple[int, int]] | None = None,
    *,
    is_text: bool = False,
) -> dict[str, int]:
    """As tune().

    Args:
        changes: the values.
        who: who changes them, for `on_tune`.
        limits: between which values each may be set.
        is_text: the values are strings, from a command line.
    """
    wanted = _checked(changes, limits or {}, is_text)
    if not _core.active():
        raise RuntimeError("no runtime is running: a run begins with what its configuration says")
    with _changing:
        before = _set(wanted)
        for path, old in before.items():
            if wanted[path] != old:
                _core.record_tune((who, path, old, wanted[path]))
    return before


def _set(wanted: dict[str, int]) -> dict[str, int]:
    """Sets all or none."""
    others = {path: number for path, number in wanted.items() if path != _GOMAXPROCS}
    procs_before = None
    if _GOMAXPROCS in wanted:
        procs_before = _core.gomaxprocs(wanted[_GOMAXPROCS])
    try:
        before = _core.tune(others)
    except BaseException as exc:
        if procs_before is not None:
            _core.gomaxprocs(procs_before)
        if isinstance(exc, ValueError):  # two that depend on each other
            raise ConfigError(str(exc)) from None
        raise
    if procs_before is not None:
        before[_GOMAXPROCS] = procs_before
    return {path: before[path] for path in wanted}


def _checked(
    changes: Mapping[str, object], limits: Mapping[str, tuple[int, int]], is_text: bool
) -> dict[str, int]:
    from golibx.rules import KEYS, flattened, nearest, read_number, written

    if not hasattr(changes, "items"):
        raise TypeError(f"what to change is a mapping of keys to values, not {changes!r}")
    wanted: dict[str, int] = {}
    problems = []
    for path, value in flattened(dict(changes)):
        key = KEYS.get(path)
        if key is None:
            problem = "cannot change while a run goes on"
            near = nearest(path, KEYS)
            allowed = ", ".join(KEYS)
            error = ConfigError(problem, key=path, value=value, allowed=allowed, nearest=near)
            problems.append(error)
            continue
        try:
            number = read_number(key, value, is_text=is_text)
        except ValueError as exc:
            error = ConfigError(str(exc), key=path, value=value, allowed=key.allowed)
            problems.append(error)
            continue
        wanted[path] = number = _meant(path, number)
        low, high = limits.get(path, (number, number))
        if not low <= number <= high:
            allowed = f"{written(path, low)} to {written(path, high)}"
            problem = "beyond what [tune] limits says"
            problems.append(BeyondLimits(problem, key=path, value=value, allowed=allowed))
    if problems:
        beyond = all(isinstance(problem, BeyondLimits) for problem in problems)
        raise (BeyondLimits if beyond else ConfigError).of(problems)
    return wanted


def _meant(path: str, number: int) -> int:
    """0 processors are as many as there are CPUs."""
    if path != _GOMAXPROCS or number:
        return number
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_COUNTED = ("spawns", "switches", "preemptions", "retakes", "netpoll_wakeups", "idle")


class Meter:
    """Takes snapshots, each of the time since the one before.

    Args:
        limits: between which values each key may be set.
    """

    def __init__(self, limits: Mapping[str, tuple[int, int]]) -> None:
        from types import MappingProxyType

        self._limits = MappingProxyType(limits_of(limits))
        self._time_ns = time.monotonic_ns()
        self._stats = _core.stats()
        self._latencies = _core.latencies()

    def snapshot(self) -> Snapshot:
        """What the scheduler does, as of now."""
        from types import MappingProxyType

        from golibx.rules import Snapshot

        before, self._stats = self._stats, _core.stats()
        time_before, self._time_ns = self._time_ns, time.monotonic_ns()
        latencies_before, self._latencies = self._latencies, _core.latencies()
        latencies = {
            longest: count - latencies_before.get(longest, 0)
            for longest, count in sorted(self._latencies.items())
        }
        counted = {name: self._stats[name] - before[name] for name in _COUNTED}
        return Snapshot(
            time_ns=self._time_ns,
            interval_ns=self._time_ns - time_before,
            goroutines=self._stats["goroutines"],
            runnable=self._stats["runq"],
            threads=self._stats["threads"],
            threads_blocked=self._stats["threads_blocked"],
            latencies=sum(latencies.values()),
            latency_p50_ns=quantile(latencies, 0.5),
            latency_p90_ns=quantile(latencies, 0.9),
            latency_p99_ns=quantile(latencies, 0.99),
            latency_max_ns=quantile(latencies, 1.0),
            tunables=MappingProxyType(tunables()),
            limits=self._limits,
            **counted,
        )


def quantile(latencies: Mapping[int, int], share: float) -> int | None:
    """The length that this share of the latencies does not exceed, by nearest rank; None of none.

    Args:
        latencies: how many were no longer than that many nanoseconds, the shortest first.
        share: from 0 to 1.
    """
    from math import ceil

    left = ceil(share * sum(latencies.values()))
    for longest, count in latencies.items():
        left -= count
        if left <= 0 < count:
            return longest
    return None


class RuleBook:
    """The rules of [tune], and when each was last of use.

    Args:
        rules: the rules.
        limits: between which values each key may be set.
        confirm: at how many looks in a row a condition has to hold.
        cooldown_ns: how long a key is left alone that was set.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        limits: Mapping[str, tuple[int, int]],
        confirm: int,
        cooldown_ns: int,
    ) -> None:
        self._rules = rules
        self._limits = limits
        self._confirm = confirm
        self._cooldown_ns = cooldown_ns
        self._held = [0] * len(rules)
        self._alone_until: dict[str, int] = {}
        self._refused: set[int] = set()

    def look(self, snapshot: Snapshot) -> list[str]:
        """Makes the changes that are due. Returns what to say of those that were refused."""
        said = []
        spoken_for: set[str] = set()
        for i, rule in enumerate(self._rules):
            self._held[i] = self._held[i] + 1 if rule.holds(snapshot) else 0
            if self._held[i] < self._confirm:
                continue
            is_second = not spoken_for.isdisjoint(rule.changes)
            spoken_for.update(rule.changes)
            now_ns = snapshot.time_ns
            rests = any(now_ns < self._alone_until.get(path, 0) for path in rule.changes)
            if is_second or rests or not self._differs(rule, snapshot):
                continue
            try:
                change(rule.changes, f"rule {i + 1}", self._limits)
            except ConfigError as exc:
                if i not in self._refused:
                    self._refused.add(i)
                    said.append(
                        f"golibx: rule {i + 1} of [tune], {rule.when!r}, sets nothing: {exc}"
                    )
                continue
            for path in rule.changes:
                self._alone_until[path] = now_ns + self._cooldown_ns
        return said

    @staticmethod
    def _differs(rule: Rule, snapshot: Snapshot) -> bool:
        present = snapshot.tunables
        return any(present[path] != _meant(path, n) for path, n in rule.changes.items())
