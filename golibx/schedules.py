"""Schedules: the choices of an explored run, as text, in order, and made smaller.

The core writes down what it chose, and makes the same choices again (zsrc/serial/script.zig, which
says what the kinds and the options are). Option 0 is what happens by itself, so that a schedule is
known by the few choices at which something else did; those that cost something are preemptions.

As text a schedule is the options that it was made under, and behind a colon these choices: how many
that happened by themselves come before, the kind, the option and how many there were; at the end a
sum over the kinds and numbers of all of them, which tells another program's. `1cv:3c1/2.g2/3~5e0a`
lets three choices be, then has the second of two goroutines go on at a call, and the third of three
at once after that.
"""

from __future__ import annotations

import array
import re
import sys
import time
import zlib
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "Choice",
    "Schedule",
    "WrongSchedule",
    "check",
    "every",
    "letters_of",
    "needed",
    "pack",
    "parse",
    "preemptions",
    "smaller",
    "text_of",
    "unpack",
]

_KINDS = "gctds"
"""A goroutine at a wait, one at a call, a timer that is early, those that are due, a select."""
_OPTIONS = {"c": "preempt_every_call", "v": "virtual_time", "t": "early_timers"}
_TEXT = re.compile(r"1(c?v?t?):((?:\d*[gctds]\d+/\d+(?:\.(?!~)|(?=~)))*)~([0-9a-f]{4})")
_LARGEST = 0xFFFF


class WrongSchedule(ValueError):
    """A schedule is not written as one, or is not one of the program that it was given to."""


class Choice(NamedTuple):
    """One choice.

    Attributes:
        kind: the index of its letter.
        options: between how many; 0 in what has to happen by itself, whatever it is.
        free: how many of them, the first, are no preemption.
        taken: which of them.
    """

    kind: int
    options: int
    free: int
    taken: int


Schedule = tuple[Choice, ...]

_BY_ITSELF = Choice(0, 0, 1, 0)


def unpack(made: bytes) -> Schedule:
    """The choices that the core has written down."""
    numbers = memoryview(made).cast("H").tolist()
    return tuple(map(Choice, numbers[::4], numbers[1::4], numbers[2::4], numbers[3::4]))


def pack(choices: Sequence[Choice]) -> bytes:
    """What the core is given to follow."""
    return array.array("H", [number for choice in choices for number in choice]).tobytes()


def trimmed(choices: Schedule) -> Schedule:
    """Without what happens by itself at the end."""
    end = len(choices)
    while end and not choices[end - 1].taken:
        end -= 1
    return choices[:end]


def is_choice(choice: Choice) -> bool:
    """Whether something else was chosen than what happens by itself."""
    return choice.taken > 0


def is_preemption(choice: Choice) -> bool:
    """Whether it was one."""
    return choice.taken >= choice.free


def preemptions(choices: Sequence[Choice]) -> int:
    """How many."""
    return sum(map(is_preemption, choices))


# ---- as text ----


def text_of(choices: Schedule, options: str) -> str:
    """A schedule as text. `options` are the letters of those that the run had."""
    choices = trimmed(choices)
    items = []
    alone = 0
    for choice in choices:
        if choice.taken:
            items.append(f"{alone or ''}{_KINDS[choice.kind]}{choice.taken}/{choice.options}")
            alone = 0
        else:
            alone += 1
    return f"1{options}:{'.'.join(items)}~{_sum(choices)}"


def parse(text: str) -> tuple[str, Schedule, str]:
    """The letters of the options, the choices, and the sum.

    Raises:
        WrongSchedule: it is not written as a schedule.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise WrongSchedule(
            f"a schedule looks like 1cvt:3c1/2.g2/3~5e0a, as the note of a failure shows it; "
            f"not {text!r}"
        )
    choices: list[Choice] = []
    for item in match[2].split(".") if match[2] else ():
        alone, kind, taken, options = re.fullmatch(r"(\d*)([gctds])(\d+)/(\d+)", item).groups()  # type: ignore[union-attr]  # as above
        if not 0 < int(taken) < int(options) <= _LARGEST or int(alone or 0) > _LARGEST:
            raise WrongSchedule(f"the choice {item} of schedule {text!r} cannot be")
        choices += [_BY_ITSELF] * int(alone or 0)
        choices.append(Choice(_KINDS.index(kind), int(options), 0, int(taken)))
    return match[1], tuple(choices), match[3]


def check(text: str, made: Schedule, misfit: int) -> None:
    """Raises WrongSchedule if a run made other choices than the schedule that it had to follow."""
    _, planned, expected = parse(text)
    begin = f"schedule {text} is not one of this program as it is now: "
    if misfit >= 0:
        had = _described(made[misfit]) if misfit < len(made) else "something else"
        raise WrongSchedule(
            f"{begin}choice {misfit + 1} was {_described(planned[misfit])}, and is {had}"
        )
    if len(made) < len(planned):
        raise WrongSchedule(f"{begin}it has {len(planned)} choices, and the program {len(made)}")
    if _sum(made[: len(planned)]) != expected:
        raise WrongSchedule(f"{begin}choices before its last one are others")


def needed(letters: str) -> dict[str, bool]:
    """The options of run() that the letters stand for."""
    return {name: letter in letters for letter, name in _OPTIONS.items()}


def letters_of(**options: bool) -> str:
    """The letters that stand for the options."""
    return "".join(letter for letter, name in _OPTIONS.items() if options[name])


def _described(choice: Choice) -> str:
    what = ("goroutines at a wait", "goroutines at a call", "a timer and none", "timers", "cases")
    return f"one of {choice.options} {what[choice.kind]}"


def _sum(choices: Sequence[Choice]) -> str:
    shape = ",".join(f"{choice.kind}:{choice.options}" for choice in choices)
    return f"{zlib.crc32(shape.encode()) & _LARGEST:04x}"


# ---- in order ----


def every(most: int, run: Callable[[bytes], bytes]) -> Iterator[int]:
    """Runs all schedules with up to `most` preemptions, those with fewer first.

    Each has a beginning that ends with a choice which is not what happens by itself. After it all
    happens by itself. So each schedule is met once: those that follow from a run are the ones that
    differ from it after its beginning.

    Args:
        run: follows a beginning, and returns what was chosen.

    Yields:
        How many preemptions the next one has, before it is run.
    """
    runs: list[tuple[bytes, int]] = []
    for level in range(most + 1):
        beginnings: Iterator[bytes] = iter((b"",))
        if level:
            beginnings = (b for made, at in runs for b in _others(made, at, preempting=True))
        runs = []
        for first in beginnings:
            left = [first]
            while left:
                beginning = left.pop()
                yield level
                made = run(beginning)
                if level < most:
                    runs.append((made, len(beginning)))
                left += reversed(list(_others(made, len(beginning), preempting=False)))


def _others(made: bytes, begin: int, *, preempting: bool) -> Iterator[bytes]:
    """The beginnings that differ from a run in one choice at `begin` or behind it, their last."""
    numbers = memoryview(made).cast("H")
    for at in range(begin // 2, len(numbers), 4):
        _, options, free, _ = numbers[at : at + 4]
        for taken in range(free, options) if preempting else range(1, free):
            yield made[: at * 2 + 6] + taken.to_bytes(2, sys.byteorder)


# ---- smaller ----


class _Enough(Exception):
    pass


def smaller(
    found: Schedule,
    run: Callable[[bytes], tuple[bytes, bool]],
    *,
    most_runs: int,
    most_seconds: float,
) -> Schedule | None:
    """A schedule that fails too, with fewer preemptions, then fewer and earlier choices.

    Args:
        found: what was chosen in a run that failed.
        run: follows a plan. Its choices give way where they do not fit. Returns what was chosen,
            and whether it failed in the same way.
        most_runs: after so many it is what is known by then; and
        most_seconds: after so long.

    Returns:
        None if not even the same choices fail again.
    """
    found = trimmed(found)
    made, failed = run(pack(found))
    if not failed or trimmed(unpack(made)) != found:
        return None
    shrinker = _Shrinker(found, run, most_runs, time.perf_counter() + most_seconds)
    try:
        shrinker.drop(is_preemption)
        shrinker.cut()
        shrinker.drop(is_choice)
        shrinker.look_near_what_happens_by_itself()
        shrinker.look_for_fewer_preemptions()
        shrinker.drop(is_choice)
    except _Enough:
        pass
    return shrinker.best


class _Shrinker:
    def __init__(
        self,
        found: Schedule,
        run: Callable[[bytes], tuple[bytes, bool]],
        most_runs: int,
        end: float,
    ) -> None:
        self.best = found
        self._run = run
        self._left = most_runs
        self._end = end

    def attempt(self, plan: bytes) -> bytes:
        """Keeps what it makes if it fails too and is better. Returns what was chosen."""
        self._left -= 1
        if self._left < 0 or time.perf_counter() > self._end:
            raise _Enough
        made, failed = self._run(plan)
        choices = trimmed(unpack(made))
        if failed and _cost(choices) < _cost(self.best):
            self.best = choices
        return made

    def drop(self, is_one: Callable[[Choice], bool]) -> None:
        """Leaves some out: all, halves, quarters, and so on (Zeller and Hildebrandt, 2002)."""
        size = sum(map(is_one, self.best))
        while size:
            at = 0
            while out := self._places(is_one)[at : at + size]:
                before = self.best
                self.attempt(pack([_BY_ITSELF if i in out else c for i, c in enumerate(before)]))
                if self.best is before:
                    at += size
            size //= 2

    def cut(self) -> None:
        """Takes parts out, with all that was chosen there, so that what follows comes sooner."""
        size = len(self.best) // 2
        while size:
            at = 0
            while at < len(self.best):
                before = self.best
                self.attempt(pack(before[:at] + before[at + size :]))
                if self.best is before:
                    at += size
            size //= 2

    def look_near_what_happens_by_itself(self) -> None:
        """At all runs with a single choice."""
        if sum(map(is_choice, self.best)) < 2:
            return
        made = self.attempt(b"")
        for preempting in False, True:
            for plan in _others(made, 0, preempting=preempting):
                self.attempt(plan)
                if sum(map(is_choice, self.best)) < 2:
                    return

    def _places(self, is_one: Callable[[Choice], bool]) -> list[int]:
        return [place for place, choice in enumerate(self.best) if is_one(choice)]

    def look_for_fewer_preemptions(self) -> None:
        """At other places than those of the best."""
        had = preemptions(self.best)
        for _ in every(had - 1, self.attempt) if had else ():
            if preemptions(self.best) < had:
                return


def _cost(choices: Schedule) -> tuple[int, int, int]:
    return preemptions(choices), sum(map(is_choice, choices)), len(choices)
