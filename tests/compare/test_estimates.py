"""Estimates over seeds: known cases, and the bootstrap against all resamples there are."""

import itertools
import math
import random

import numpy as np
import pytest

from cleaner.compare.estimates import paired_difference, tokens_to_target


def line(end: float, speed: float = 1.0, height: float = 1.0) -> list[tuple[float, float]]:
    """Rises (or falls) straight to `height` of the way, reached at end / speed, and stays there."""
    return [(end * i / 10, min(1.0, speed * i / 10) * height) for i in range(11)]


def test_a_difference_is_of_the_seeds_that_both_have():
    interval = paired_difference({1: 0.5, 2: 0.7, 9: 5.0}, {1: 0.4, 2: 0.4, 8: 9.0})
    assert interval is not None
    assert interval.mean == pytest.approx(0.2)
    assert (interval.low, interval.high) == (pytest.approx(0.1), pytest.approx(0.3))
    assert paired_difference({1: 1.0}, {2: 1.0}) is None


def test_pairing_takes_away_what_seeds_have_in_common():
    rng = random.Random(0)
    hardness = {seed: rng.gauss(0, 1) for seed in range(8)}
    ours = {seed: value + 0.1 + rng.gauss(0, 0.01) for seed, value in hardness.items()}
    interval = paired_difference(ours, hardness)
    assert interval is not None and interval.low is not None and interval.high is not None
    assert 0.08 < interval.low < 0.1 < interval.high < 0.12


def test_equal_seeds_give_equal_intervals():
    ours = {seed: math.sin(seed) for seed in range(8)}
    theirs = {seed: math.cos(seed) for seed in range(8)}
    assert paired_difference(ours, theirs, 3) == paired_difference(ours, theirs, 3)
    curves = {seed: line(100, 1 + seed / 10) for seed in range(4)}
    first, second = (
        tokens_to_target(curves, {s: line(100) for s in range(4)}, 1, 1, seed=5) for _ in range(2)
    )
    assert first == second


def test_eight_seeds_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(60):
        values = dict(enumerate(rng.normal(0.3, 1.0, size=8)))
        interval = paired_difference(values, dict.fromkeys(values, 0.0), seed=trial)
        assert interval is not None and interval.low is not None and interval.high is not None
        hits += interval.low <= 0.3 <= interval.high
    # Percentile intervals of eight values are too narrow; the page says so.
    assert 0.8 <= hits / 60 < 1.0


@pytest.mark.parametrize("better", [1, -1])
def test_twice_as_fast_takes_half_the_tokens(better):
    ours, theirs = (
        {seed: [(t, better * v) for t, v in line(100, speed)] for seed in range(3)} for speed in (2.0, 1.0)
    )
    ratio = tokens_to_target(ours, theirs, better, last=1)
    assert ratio is not None
    assert ratio.target == pytest.approx(better)
    assert (ratio.arm_tokens, ratio.baseline_tokens) == (pytest.approx(50), pytest.approx(100))
    assert (ratio.ratio, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, 0.5))
    assert (ratio.censored, ratio.seeds) == (0.0, 3)


def test_the_baseline_against_itself_takes_as_many_tokens():
    curves = {seed: line(100, 1.0, 0.5 + seed / 10) for seed in range(4)}
    ratio = tokens_to_target(curves, curves, 1, last=2)
    assert ratio is not None
    assert (ratio.ratio, ratio.low, ratio.high) == pytest.approx((1.0, 1.0, 1.0))


def test_an_arm_that_never_gets_there_is_censored_not_left_out():
    low = {seed: line(100, 1.0, 0.8) for seed in range(3)}
    ratio = tokens_to_target(low, {seed: line(100) for seed in range(3)}, 1, last=1)
    assert ratio is not None
    assert ratio.arm_tokens is None
    assert (ratio.ratio, ratio.low, ratio.high, ratio.censored) == (math.inf, math.inf, math.inf, 1.0)


def test_a_baseline_that_learns_nothing_has_no_ratio():
    flat = {seed: [(0.0, 0.5), (100.0, 0.5)] for seed in range(3)}
    ratio = tokens_to_target({seed: line(100) for seed in range(3)}, flat, 1, last=1)
    assert ratio is not None
    assert (ratio.baseline_tokens, ratio.ratio, ratio.low) == (None, None, None)


def test_one_noisy_run_does_not_count_as_there():
    """The crossing is the mean curve's: a run that shoots up early does not pull it forward by itself."""
    steady = {seed: line(100) for seed in range(10)}
    noisy = {**steady, 0: [(0.0, 0.0), (10.0, 1.0), (100.0, 1.0)]}
    ratio = tokens_to_target(noisy, steady, 1, last=1)
    assert ratio is not None and ratio.ratio is not None
    assert ratio.ratio == pytest.approx(1.0, abs=0.01)


def test_the_interval_is_that_of_all_resamples():
    speeds = {0: 1.0, 1: 2.0, 2: 4.0}
    ours = {seed: line(100, speed) for seed, speed in speeds.items()}
    theirs = {seed: line(100) for seed in speeds}
    found = tokens_to_target(ours, theirs, 1, last=1, resamples=4000)
    grid = np.linspace(0, 100, 2001)
    everything = []
    for drawn in itertools.product(speeds, repeat=3):
        mean = np.mean([np.interp(grid, *zip(*ours[seed], strict=True)) for seed in drawn], axis=0)
        everything.append(grid[np.flatnonzero(mean >= 1 - 1e-9)[0]] / 100)
    low = float(np.percentile(everything, 2.5, method="lower"))
    high = float(np.percentile(everything, 97.5, method="higher"))
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
