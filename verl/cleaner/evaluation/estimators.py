"""Estimators over the samples of problems: pass@k, majority vote, bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Chance that at least one of `k` samples is right, drawn without replacement from `samples` of which `right` are.

    1 - C(n - c, k) / C(n, k), the unbiased estimator of arXiv 2107.03374, section 2.1.

    Raises:
        ValueError: not 1 <= k <= samples, or not 0 <= right <= samples.
    """
    if not 1 <= k <= samples or not 0 <= right <= samples:
        raise ValueError(f"pass@{k} of {right} right among {samples} samples")
    return 1.0 - comb(samples - right, k) / comb(samples, k)


def ks_up_to(samples: int) -> list[int]:
    """1, 2, 4, ... and `samples` itself."""
    powers = [2**i for i in range(samples.bit_length()) if 2**i < samples]
    return [*powers, samples] if samples >= 1 else []


def majority(votes: Sequence[tuple[str | None, int]]) -> float | None:
    """Expected accuracy of the most frequent answer.

    Args:
        votes: (answer in its canonical form, 0 or 1) of each sample; a sample without an answer does not vote.

    Returns:
        The mean accuracy of the samples that gave the winning answer; of a tie, the mean over the answers that tie, as
        if one were drawn. 0.0 if nobody votes, None without samples.
    """
    if not votes:
        return None
    groups: dict[str, list[int]] = {}
    for answer, right in votes:
        if answer is not None:
            groups.setdefault(answer, []).append(right)
    if not groups:
        return 0.0
    most = max(map(len, groups.values()))
    winners = [sum(group) / len(group) for group in groups.values() if len(group) == most]
    return sum(winners) / len(winners)


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95 % interval; the ends are None for fewer than two problems."""

    mean: float
    low: float | None
    high: float | None


def bootstrap_mean(values: Sequence[float], seed: int, resamples: int = RESAMPLES) -> Interval | None:
    """Mean of the problems' values, and its percentile bootstrap interval.

    For every resample as many values are drawn with replacement as there are; the interval lies between the 2.5th and
    the 97.5th percentile of the resamples' means. Of few problems, below about 20, it is too narrow.

    Args:
        values: one a problem.
        seed: of the draws; equal seeds give equal intervals.

    Returns:
        None without values.
    """
    if not len(values):
        return None
    found = np.asarray(values, dtype=np.float64)
    mean = float(found.mean())
    if len(found) < 2:
        return Interval(mean, None, None)
    # Problems share few values (k of n samples right), so it is enough to draw how often each value comes.
    distinct, counts = np.unique(found, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(found), counts / len(found), size=resamples)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn @ distinct / len(found), [tail, 100 - tail])
    return Interval(mean, float(low), float(high))
