"""Runs compared problem by problem: the same problem is as hard in each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cleaner.evaluation.estimators import Interval, bootstrap_mean
from cleaner.evaluation.figures import OVERALL, problem_means
from cleaner.evaluation.samples import Evaluation


@dataclass(frozen=True)
class Comparison:
    """What a run has over another one, over the problems that both have.

    Attributes:
        problems: that both have and that are scored in both. unmatched: that only one has.
        difference: mean over problems of the differences of their shares of right samples, the other run's taken away.
        better, worse, equal: numbers of problems.
    """

    problems: int
    unmatched: int
    difference: Interval | None
    better: int
    worse: int
    equal: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def compare(run: Evaluation, other: Evaluation, seed: int = 0) -> dict[str, Comparison]:
    """Compare by data source, and `overall` last. Problems are matched by data source and id."""
    ours, theirs = problem_means(run), problem_means(other)
    differences: dict[str, list[float]] = {}
    unmatched: dict[str, int] = {}
    for source in sorted(ours.keys() | theirs.keys()):
        first, second = ours.get(source, {}), theirs.get(source, {})
        both = sorted(first.keys() & second.keys())
        differences[source] = [first[label] - second[label] for label in both]
        unmatched[source] = len(first.keys() ^ second.keys())
    found = {source: _comparison(values, unmatched[source], seed) for source, values in differences.items()}
    everything = [value for values in differences.values() for value in values]
    return {**found, OVERALL: _comparison(everything, sum(unmatched.values()), seed)}


def _comparison(values: list[float], unmatched: int, seed: int) -> Comparison:
    better, worse = sum(value > 0 for value in values), sum(value < 0 for value in values)
    return Comparison(
        problems=len(values),
        unmatched=unmatched,
        difference=bootstrap_mean(values, seed),
        better=better,
        worse=worse,
        equal=len(values) - better - worse,
    )
