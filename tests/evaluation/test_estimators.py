"""pass@k, maj@n and intervals against counting everything."""

import itertools
from collections import Counter

import numpy as np
import pytest

from cleaner.evaluation.estimators import bootstrap_mean, ks_up_to, majority, pass_at_k


@pytest.mark.parametrize("samples", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(samples: int) -> None:
    for right in range(samples + 1):
        row = [1] * right + [0] * (samples - right)
        for k in range(1, samples + 1):
            subsets = list(itertools.combinations(row, k))
            expected = sum(any(subset) for subset in subsets) / len(subsets)
            assert pass_at_k(samples, right, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_1_is_the_mean_and_large_numbers_stay_exact() -> None:
    assert pass_at_k(16, 3, 1) == pytest.approx(3 / 16)
    assert pass_at_k(1000, 1, 500) == pytest.approx(0.5)
    assert 0 < pass_at_k(10_000, 1, 1) < 1e-3


@pytest.mark.parametrize(("samples", "right", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_refuses_more_than_there_is(samples: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(samples, right, k)


def test_k_doubles_up_to_the_number_of_samples() -> None:
    assert ks_up_to(16) == [1, 2, 4, 8, 16]
    assert ks_up_to(10) == [1, 2, 4, 8, 10]
    assert ks_up_to(1) == [1] and ks_up_to(0) == []


def test_a_vote_is_the_accuracy_of_the_most_frequent_answer() -> None:
    assert majority([("7", 1), ("7", 1), ("8", 0)]) == 1.0
    assert majority([("7", 1), ("8", 0), ("8", 0)]) == 0.0
    assert majority([(None, 0), (None, 0), ("7", 1)]) == 1.0
    assert majority([(None, 0)]) == 0.0 and majority([]) is None


def test_a_tie_is_what_a_fair_draw_between_the_answers_gives() -> None:
    assert majority([("7", 1), ("8", 0)]) == 0.5
    assert majority([("7", 1), ("8", 0), ("9", 0), ("7", 1), ("8", 0), ("9", 0)]) == pytest.approx(1 / 3)


def test_a_vote_agrees_with_counting_for_every_small_vote() -> None:
    answers = [("a", 1), ("b", 0), ("c", 0), (None, 0)]
    for votes in itertools.product(answers, repeat=4):
        counts = Counter(answer for answer, _ in votes if answer is not None)
        best = [answer for answer, count in counts.items() if count == max(counts.values())]
        expected = best.count("a") / len(best) if best else 0.0
        assert majority(votes) == pytest.approx(expected)


def test_an_interval_is_that_of_all_resamples_there_are() -> None:
    values = [0.0, 0.25, 0.25, 1.0, 0.5]
    means = [sum(drawn) / 5 for drawn in itertools.product(values, repeat=5)]
    low, high = np.percentile(means, [2.5, 97.5])
    found = bootstrap_mean(values, seed=3)
    assert found is not None and found.mean == pytest.approx(0.4)
    # Means of five such values lie 0.05 apart: the 10,000 draws find the same steps.
    assert found.low == pytest.approx(low, abs=0.051) and found.high == pytest.approx(high, abs=0.051)


def test_intervals_of_many_problems_are_as_wide_as_theory_says_and_repeat_with_the_seed() -> None:
    values = [1.0] * 120 + [0.0] * 80
    found = bootstrap_mean(values, seed=0)
    assert found is not None and found.low is not None and found.high is not None
    error = (0.6 * 0.4 / 200) ** 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert bootstrap_mean(values, seed=0) == found
    spread = [i / 199 for i in range(200)]
    assert bootstrap_mean(spread, seed=0) != bootstrap_mean(spread, seed=1)
    assert bootstrap_mean(values[::-1], seed=0) == found


def test_one_problem_has_no_interval_and_none_has_no_mean() -> None:
    found = bootstrap_mean([0.5], seed=0)
    assert found is not None and (found.mean, found.low, found.high) == (0.5, None, None)
    assert bootstrap_mean([], seed=0) is None
