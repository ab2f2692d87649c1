"""What [tune] of golib.toml says: how far plugins may go, and rules; and what those look at.

A rule is a condition over the numbers of a Snapshot and the values that it sets. This module reads
and checks them; golibx.tuning takes snapshots and makes changes. It is imported only where there
are limits or rules, or a plugin: most runs have none.
"""

from __future__ import annotations

import operator
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from golibx.errors import ConfigError
from golibx.schema import SCHEMA, Key
from golibx.values import format_duration, parse_duration, parse_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "KEYS",
    "METRICS",
    "Rule",
    "Snapshot",
    "TuningKey",
    "as_written",
    "beyond",
    "flattened",
    "nearest",
    "parse_limits",
    "parse_rules",
    "range_of",
    "read_number",
    "written",
]

KEYS: dict[str, Key] = {
    f"{table.name}.{key.name}": key
    for table in SCHEMA
    for key in table.keys
    if key.tunable or (table.name, key.name) == ("runtime", "gomaxprocs")
}
"""What may change while a run goes on, by its name in golib.toml."""


class Snapshot(NamedTuple):
    """What the scheduler does. Counts are of Python's lane, and since the snapshot before."""

    time_ns: int
    """When it was taken."""
    interval_ns: int
    """How long it is since the one before; for the first one, since the run began."""
    goroutines: int
    """The program's goroutines that have not ended."""
    runnable: int
    """Those that are ready to run and wait for their turn."""
    threads: int
    """The runtime's OS threads."""
    threads_blocked: int
    """Those of them with a goroutine in a blocking call, without a processor."""
    spawns: int
    """Goroutines that were started."""
    switches: int
    """Switches from one goroutine to another."""
    preemptions: int
    """Goroutines that gave way when their slice was over."""
    retakes: int
    """Times that a blocking call's processor was taken."""
    netpoll_wakeups: int
    """Goroutines that were woken because their socket was ready."""
    idle: int
    """Times that no goroutine could run."""
    latencies: int
    """How many waits of goroutines for their turn were measured: about one wake-up in eight."""
    latency_p50_ns: int | None
    """How long they waited from when they were ready until they ran: half of them no longer. None:
    none was measured."""
    latency_p90_ns: int | None
    """The same, of nine in ten."""
    latency_p99_ns: int | None
    """The same, of 99 in a hundred."""
    latency_max_ns: int | None
    """The longest one."""
    tunables: Mapping[str, int]
    """The present values of what may change, by their keys in golib.toml; durations in
    nanoseconds."""
    limits: Mapping[str, tuple[int, int]]
    """Between which values plugins may set each of them."""


class TuningKey(NamedTuple):
    """A value that may change while the program runs: see Runtime.tuning_keys()."""

    value: int
    """The present one; a duration in nanoseconds."""
    configured: int
    """What the run began with."""
    low: int
    """The least that plugins may set: by `[tune] limits`, or else by the key's own range."""
    high: int
    """The most."""
    zero: str
    """What 0 means, where that is allowed besides; else ""."""
    is_duration: bool
    """Whether it is a duration, and not a number."""
    description: str
    """What the key does, as docs/configuration.md says it; Markdown."""


METRICS: dict[str, str] = {
    field.removesuffix("_ns"): field
    for field in Snapshot._fields
    if field not in ("time_ns", "interval_ns", "tunables", "limits")
}
"""What a rule may look at, and the field of the Snapshot."""

_OPERATORS: dict[str, Callable[[int, int], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON = re.compile(r"\s*(\w+)\s*(>=|<=|>|<)\s*(.+?)\s*")
_WHEN = "METRIC > VALUE, with >, >=, < or <=, and more of them after `and`"


class _Comparison(NamedTuple):
    metric: str
    operator: str
    bound: int

    def holds(self, snapshot: Snapshot) -> bool:
        value = getattr(snapshot, METRICS[self.metric])
        return value is not None and _OPERATORS[self.operator](value, self.bound)


class Rule(NamedTuple):
    """What to set, and when."""

    when: str
    """The condition, as it was written."""
    changes: Mapping[str, int]
    """The values to set, by their keys."""
    comparisons: tuple[_Comparison, ...]
    """The condition's parts, all of which have to hold."""

    def holds(self, snapshot: Snapshot) -> bool:
        """Whether the condition does. A metric of which there is nothing to tell makes it false."""
        return all(comparison.holds(snapshot) for comparison in self.comparisons)


def nearest(name: str, known: Iterator[str] | Mapping[str, object]) -> str | None:
    """The known name that `name` is most likely a misspelling of, if of any."""
    from difflib import get_close_matches

    names = list(known)
    ends = [each for each in names if each.rpartition(".")[2] == name.rpartition(".")[2]]
    matches = get_close_matches(name, names, n=1, cutoff=0.5)
    return ends[0] if len(ends) == 1 else matches[0] if matches else None


def read_number(key: Key, value: object, *, is_text: bool = False) -> int:
    """The value of a tunable key: as in golib.toml, or a duration as an int of nanoseconds.

    Raises ValueError if it is not one, or out of the key's range; the text says what is wrong.
    """
    if key.kind == "duration" and isinstance(value, int) and not isinstance(value, bool):
        low, high = range_of(key)
        if not (low <= value <= high or (value == 0 and key.zero)):
            raise ValueError("out of range")
        return value
    number = parse_value(key, value, "", is_text=is_text)
    assert isinstance(number, int)
    return number


def range_of(key: Key) -> tuple[int, int]:
    """The least and the most that a tunable key may be; 0 may be allowed besides."""
    low, high = (
        parse_duration(end) if isinstance(end, str) else end for end in (key.low, key.high)
    )
    return low, high


def written(path: str, number: int) -> int | str:
    """The value of a tunable key as one would write it in golib.toml: "2ms" for 2_000_000."""
    return format_duration(number) if KEYS[path].kind == "duration" else number


def as_written(value: Any) -> object:
    """`[tune] limits` or `rules`, as parsed here, as one would write them in golib.toml."""
    if isinstance(value, tuple):
        return [
            {"when": rule.when, "set": {path: written(path, n) for path, n in rule.changes.items()}}
            for rule in value
        ]
    return {
        path: {"min": written(path, low), "max": written(path, high)}
        for path, (low, high) in value.items()
    }


def beyond(rules: Any, limits: Any) -> Iterator[tuple[str, object, str]]:
    """What rules set beyond the limits: where, the value, and what is allowed."""
    for i, rule in enumerate(rules, 1):
        for path, number in rule.changes.items():
            low, high = limits.get(path, (number, number))
            if not low <= number <= high:
                allowed = f"{written(path, low)} to {written(path, high)}"
                yield f"[{i}].set.{path}", written(path, number), allowed


def flattened(table: Mapping[Any, object]) -> Iterator[tuple[str, object]]:
    """The items of a table with paths for keys: of `preempt.slice = …` TOML makes tables."""
    for name, value in table.items():
        if isinstance(value, dict) and name in {path.partition(".")[0] for path in KEYS}:
            yield from ((f"{name}.{inner}", each) for inner, each in value.items())
        else:
            yield str(name), value


class _Reader:
    """Collects what is wrong beside what is right."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[ConfigError] = []

    def problem(
        self,
        where: str,
        problem: str,
        value: object = None,
        allowed: str = "",
        near: str | None = None,
    ) -> None:
        key = f"{self.path}{where}"
        self.problems.append(
            ConfigError(problem, key=key, value=value, allowed=allowed, nearest=near)
        )

    def key(self, where: str, path: str, value: object) -> Key | None:
        if path in KEYS:
            return KEYS[path]
        problem = "cannot change while a run goes on"
        self.problem(f"{where}.{path}", problem, value, ", ".join(KEYS), nearest(path, KEYS))
        return None

    def number(self, where: str, key: Key, value: object) -> int | None:
        try:
            return int(str(parse_value(key, value, "", is_text=False)))
        except ValueError as exc:
            self.problem(where, str(exc), value, key.allowed)
            return None

    def fields(self, where: str, table: object, known: tuple[str, ...]) -> Mapping[str, Any]:
        """`table`, if it is one with these keys; else none of it."""
        if not isinstance(table, dict):
            self.problem(where, "not a table", table, f"a table with {' and '.join(known)}")
            return {}
        for name in table:
            if name not in known:
                near = nearest(str(name), dict.fromkeys(known))
                self.problem(f"{where}.{name}", "unknown key", table[name], ", ".join(known), near)
        return table

    def result(self) -> None:
        if self.problems:
            raise ConfigError.of(self.problems)


def parse_limits(value: object, path: str) -> Mapping[str, tuple[int, int]]:
    """`[tune] limits`, each with both ends. Raises ConfigError with all that is wrong."""
    reader = _Reader(path)
    if not isinstance(value, dict):
        raise ConfigError("not a table", key=path, value=value)
    limits = {}
    for name, table in flattened(value):
        key = reader.key("", name, table)
        if key is None:
            continue
        low, high = range_of(key)
        ends = reader.fields(f".{name}", table, ("min", "max"))
        least = reader.number(f".{name}.min", key, ends["min"]) if "min" in ends else low
        most = reader.number(f".{name}.max", key, ends["max"]) if "max" in ends else high
        if least is not None and most is not None and least > most:
            allowed = f"at most max, which is {written(name, most)}"
            reader.problem(f".{name}.min", "more than max", ends.get("min"), allowed)
        elif least is not None and most is not None:
            limits[name] = (least, most)
    reader.result()
    return MappingProxyType(limits)


def parse_rules(value: object, path: str) -> tuple[Rule, ...]:
    """`[tune] rules`. Raises ConfigError with all that is wrong."""
    if not isinstance(value, list | tuple):
        raise ConfigError("not a list of tables", key=path, value=value)
    reader = _Reader(path)
    rules = [_rule(reader, f"[{i}]", table) for i, table in enumerate(value, 1)]
    reader.result()
    return tuple(rules)


def _rule(reader: _Reader, where: str, table: object) -> Rule:
    fields = reader.fields(where, table, ("when", "set"))
    when = fields.get("when", "")
    comparisons = _comparisons(reader, f"{where}.when", when) if fields else ()
    wanted = fields.get("set", {})
    changes: dict[str, int] = {}
    if fields and (not isinstance(wanted, dict) or not wanted):
        problem = "sets nothing" if wanted == {} else "not a table"
        reader.problem(f"{where}.set", problem, wanted, "{ KEY = VALUE, … }")
    elif isinstance(wanted, dict):
        for name, value in flattened(wanted):
            key = reader.key(f"{where}.set", name, value)
            number = None if key is None else reader.number(f"{where}.set.{name}", key, value)
            if number is not None:
                changes[name] = number
    return Rule(str(when), MappingProxyType(changes), tuple(comparisons))


def _comparisons(reader: _Reader, where: str, when: object) -> list[_Comparison]:
    found: list[_Comparison] = []
    if not isinstance(when, str) or not when.strip():
        reader.problem(where, "not a condition", when or None, _WHEN)
        return found
    for part in re.split(r"\band\b", when):
        match = _COMPARISON.fullmatch(part)
        if match is None:
            reader.problem(where, f"{part.strip()!r} is not a comparison", when, _WHEN)
            continue
        metric, sign, text = match.groups()
        if metric not in METRICS:
            known = ", ".join(METRICS)
            near = nearest(metric.removesuffix("_ns"), METRICS)
            reader.problem(where, f"there is no metric {metric}", when, known, near)
            continue
        try:
            if METRICS[metric].endswith("_ns"):
                bound = parse_duration(text)
            elif text.isascii() and text.isdigit():
                bound = int(text)
            else:
                raise ValueError("not a number")
        except ValueError as exc:
            reader.problem(where, f"{text!r}, which {metric} is compared with, is {exc}", when)
            continue
        found.append(_Comparison(metric, sign, bound))
    return found
