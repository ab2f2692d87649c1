"""What was measured: the samples, their medians, and whether golibx met its targets."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from suite import GO, Case, Target


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
        for metric in self.case.metrics_of(runtime):
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
        ours = self.case.golibx_beside(runtime)
        return None if ours is None else self._ratio(ours, runtime, self.case.metrics[0].key)

    def of_go(self, runtime: str) -> float | None:
        """The runtime's median over that of Go on one processor; None as `ratio`."""
        return None if runtime == GO else self._ratio(runtime, GO, self.case.metrics[0].key)

    def _ratio(self, ours: str, theirs: str, metric: str) -> float | None:
        over, under = self.median(ours, metric), self.median(theirs, metric)
        return None if over is None or under is None or under <= 0 else over / under

    def achieved(self, target: Target) -> float | None:
        """What a target of the case limits; None when it could not be measured."""
        metric = self.case.metric(target.metric).key
        ours = self.median(target.runtime, metric)
        if ours is None or target.peer is None:
            return ours
        if target.relation == "ratio":
            return self._ratio(target.runtime, target.peer, metric)
        theirs = self.median(target.peer, metric)
        return None if theirs is None else ours - theirs

    def met(self, target: Target) -> bool | None:
        """Whether a target of the case was met; None when it could not be measured."""
        achieved = self.achieved(target)
        if achieved is None:
            return None
        return achieved <= target.limit if target.bound == "at most" else achieved >= target.limit
