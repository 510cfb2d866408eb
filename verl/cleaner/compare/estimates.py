"""Estimates over seeds: paired differences, and tokens to a value, each with a bootstrap interval.

Seeds are what is drawn: a seed fixes the problems, their order and the sampling, so an arm and the baseline are paired
by it. Intervals are percentile intervals over resampled seeds. Of eight seeds they are somewhat too narrow: a
difference whose interval barely excludes 0 is not settled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cleaner.evaluation.estimators import CONFIDENCE, Interval, bootstrap_mean

GRID = 200
RESAMPLES = 2000

Points = Sequence[tuple[float, float]]
"""(tokens, value) of one run, ascending by tokens."""


def paired_difference(
    arm: Mapping[int, float], baseline: Mapping[int, float], seed: int = 0
) -> Interval | None:
    """Mean over the seeds that both have of (arm - baseline), with its interval; None without such a seed."""
    both = sorted(arm.keys() & baseline.keys())
    return bootstrap_mean([arm[number] - baseline[number] for number in both], seed)


@dataclass(frozen=True)
class Ratio:
    """Tokens that the arm needs to the baseline's final value, as a share of those that the baseline needs.

    Attributes:
        target: the baseline's final value, mean over seeds.
        arm_tokens: None: the arm does not get there within the budget.
        baseline_tokens: None: there is nothing to learn, the baseline is there (or further) at the start.
        ratio, low, high: the ratio and its 95 % interval; `inf` where the arm does not get there ("more than").
        censored: share of the resamples in which the arm does not get there.
        seeds: in how many seeds both were measured.
    """

    target: float
    arm_tokens: float | None
    baseline_tokens: float | None
    ratio: float | None
    low: float | None
    high: float | None
    censored: float
    seeds: int


def tokens_to_target(
    arm: Mapping[int, Points],
    baseline: Mapping[int, Points],
    better: int,
    last: int,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Ratio | None:
    """How much sooner or later than the baseline an arm reaches the value that the baseline ends with.

    A run's curve is interpolated linearly between validations, and is flat behind its last one. Curves are averaged
    over seeds before a crossing is looked for: one run's validations are so noisy that its first crossing would come
    too early. What counts is the first point at which the mean curve has the baseline's final value. Each resample
    draws seeds with replacement and computes target, both crossings and the ratio anew. Resamples in which the
    baseline has its final value at the start say nothing and are left out.

    Args:
        arm, baseline: curves by seed; seeds that only one has are left out.
        better: 1 where more is better, -1 where less is.
        last: validations whose mean is the final value.

    Returns:
        None where no seed is in both.
    """
    both = sorted(number for number in arm.keys() & baseline.keys() if arm[number] and baseline[number])
    if not both:
        return None
    end = max(curves[number][-1][0] for curves in (arm, baseline) for number in both)
    grid = np.linspace(0.0, end, GRID + 1)
    # A fall is a rise of the negative value.
    ours, theirs = (
        better * np.array([on_grid(curves[number], grid) for number in both]) for curves in (arm, baseline)
    )
    finals = better * np.array([np.mean([v for _, v in baseline[number][-last:]]) for number in both])
    whole = np.arange(len(both))
    arm_tokens, baseline_tokens = _crossings(ours, theirs, finals, whole, grid)
    draws = np.random.default_rng(seed).integers(len(both), size=(resamples, len(both)))
    ratios = []
    for drawn in draws:
        first, second = _crossings(ours, theirs, finals, drawn, grid)
        if second:
            ratios.append(math.inf if first is None else first / second)
    ratio = low = high = None
    if baseline_tokens:
        ratio = math.inf if arm_tokens is None else arm_tokens / baseline_tokens
    if ratios and len(both) > 1:
        tail = 100 * (1 - CONFIDENCE) / 2
        # Ends are values that occur: between a number and infinity there is nothing to interpolate.
        low = float(np.percentile(ratios, tail, method="lower"))
        high = float(np.percentile(ratios, 100 - tail, method="higher"))
    return Ratio(
        target=float(better * finals.mean()),
        arm_tokens=arm_tokens,
        baseline_tokens=baseline_tokens or None,
        ratio=ratio,
        low=low,
        high=high,
        censored=float(np.mean(np.isinf(ratios))) if ratios else 0.0,
        seeds=len(both),
    )


def on_grid(points: Points, grid: np.ndarray) -> np.ndarray:
    """A curve's values at these tokens."""
    tokens, values = zip(*points, strict=True)
    return np.interp(grid, tokens, values)


def _crossings(
    ours: np.ndarray, theirs: np.ndarray, finals: np.ndarray, drawn: np.ndarray, grid: np.ndarray
) -> tuple[float | None, float | None]:
    target = float(finals[drawn].mean())
    return _first(ours[drawn].mean(axis=0), target, grid), _first(theirs[drawn].mean(axis=0), target, grid)


def _first(curve: np.ndarray, target: float, grid: np.ndarray) -> float | None:
    """Tokens at which a curve first has the target, interpolated between points of the grid; None: never."""
    reached = np.flatnonzero(curve >= target - 1e-12)
    if not len(reached):
        return None
    at = int(reached[0])
    if at == 0:
        return 0.0
    low, high = curve[at - 1], curve[at]
    share = (target - low) / (high - low) if high > low else 1.0
    return float(grid[at - 1] + min(share, 1.0) * (grid[at] - grid[at - 1]))
