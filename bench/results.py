"""What was measured: the samples, their medians, and whether golibx met its targets."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from suite import GOLIBX, Case


@dataclass
class CaseResult:
    """All that is known of one case after some rounds.

    Attributes:
        case: the case.
        samples: for each runtime's key, for each metric's name, a number for each round.
        failures: for each runtime's key that crashed, its last words.
    """

    case: Case
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, runtime: str, metrics: dict[str, float]) -> None:
        """Record one measurement. Raises KeyError when a metric of the case is missing from it."""
        lists = self.samples.setdefault(runtime, {})
        for metric in self.case.metrics:
            lists.setdefault(metric.key, []).append(metrics[metric.key])

    def median(self, runtime: str, metric: str) -> float | None:
        """The median over the rounds; None when the runtime was not measured."""
        values = self.samples.get(runtime, {}).get(metric)
        return statistics.median(values) if values else None

    def spread(self, runtime: str) -> float | None:
        """The compared metric's largest distance from its median, relative to it.

        None with fewer than two rounds.
        """
        values = self.samples.get(runtime, {}).get(self.case.metrics[0].key, [])
        if len(values) < 2:
            return None
        middle = statistics.median(values)
        return max(max(values) - middle, middle - min(values)) / middle

    def ratio(self, runtime: str) -> float | None:
        """golibx's median over the runtime's; None when either is missing or the latter is 0."""
        metric = self.case.metrics[0].key
        ours, theirs = self.median(GOLIBX, metric), self.median(runtime, metric)
        return None if ours is None or theirs is None or theirs <= 0 else ours / theirs

    def achieved(self) -> float | None:
        """What the target limits; None when the case has no target or it could not be measured."""
        target = self.case.target
        metric = self.case.metrics[0].key
        ours = self.median(GOLIBX, metric)
        if target is None or ours is None:
            return None
        if target.peer is None:
            return ours
        if target.relation == "ratio":
            return self.ratio(target.peer)
        theirs = self.median(target.peer, metric)
        return None if theirs is None else ours - theirs

    def met(self) -> bool | None:
        """Whether the target was met; None when the case has none or it could not be measured."""
        achieved = self.achieved()
        if self.case.target is None or achieved is None:
            return None
        return achieved <= self.case.target.limit
