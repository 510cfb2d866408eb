"""Importance weights of grafted tokens: their values, what verl makes of them, and what is logged about them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from verl.protocol import DataProto
from verl.trainer.config.algorithm import RolloutCorrectionConfig
from verl.trainer.ppo import rollout_corr_helper
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch
from verl.trainer.ppo.v1.utils import MetricsAggregator

from cleaner.graft_credit import (
    LOG_RATIO_BOUND,
    geometric_mean_weights,
    graft_only_rollout_log_probs,
    graft_weights,
    weight_metrics,
)
from cleaner.saar.trajectory import Origin

OBSERVED, SAMPLED, GRAFTED, EXCLUDED = (int(origin) for origin in Origin)

# Two rows: a graft between sampled tokens and an observation; two grafts, excluded tokens, and padding at the end.
ORIGIN = torch.tensor([[1, 1, 2, 2, 2, 0, 0, 1, 1, 1], [2, 1, 3, 0, 2, 2, 1, 0, 0, 0]])
OLD = torch.tensor(
    [[-0.1, -2.0, -0.5, -3.0, -1.0, -9.0, -9.0, -0.4, -0.2, -7.0],
     [-1.0, -0.3, -0.6, -9.0, -0.9, -0.2, -0.1, 0.0, 0.0, 0.0]]
)  # fmt: skip
ROLLOUT = torch.tensor(
    [[-0.1, -2.1, -1.5, -1.0, -1.0, 0.0, 0.0, -0.5, -0.2, -2.0],
     [-1.2, -0.3, -5.0, 0.0, -0.1, -4.2, -0.1, 0.0, 0.0, 0.0]]
)  # fmt: skip


def test_only_grafted_tokens_are_weighted_and_nothing_is_truncated():
    weights = graft_weights(OLD, ROLLOUT, ORIGIN)
    expected = torch.ones(2, 10)
    expected[0, 2:5] = torch.tensor([math.e, math.exp(-2), 1.0])
    expected[1, 0], expected[1, 4], expected[1, 5] = math.exp(0.2), math.exp(-0.8), math.exp(4.0)
    torch.testing.assert_close(weights, expected)
    assert (weights == 1)[ORIGIN != GRAFTED].all()


def test_a_weight_is_bounded_where_verl_bounds_it():
    assert LOG_RATIO_BOUND == rollout_corr_helper.SAFETY_BOUND
    old = torch.tensor([[-100.0, 0.0, -30.0]], dtype=torch.float64)
    rollout = torch.tensor([[0.0, -100.0, 0.0]], dtype=torch.float64)
    weights = graft_weights(old, rollout, torch.tensor([[GRAFTED, GRAFTED, SAMPLED]]))
    assert weights.tolist() == [[math.exp(-20), math.exp(20), 1.0]]


def test_what_padding_holds_does_not_matter():
    old, rollout = OLD.clone(), ROLLOUT.clone()
    old[1, 8:], rollout[1, 8:] = math.nan, math.inf
    assert torch.equal(graft_weights(old, rollout, ORIGIN), graft_weights(OLD, ROLLOUT, ORIGIN))


def test_a_weight_carries_no_gradient():
    old = OLD.clone().requires_grad_()
    assert not graft_weights(old, ROLLOUT, ORIGIN).requires_grad
    assert not graft_only_rollout_log_probs(old, ROLLOUT, ORIGIN).requires_grad


@pytest.mark.parametrize("threshold", [2.0, 1.2])
def test_verls_rollout_correction_then_truncates_grafts_and_leaves_all_else_alone(threshold: float):
    trained = ((ORIGIN == SAMPLED) | (ORIGIN == GRAFTED)).long()
    given_log_probs = graft_only_rollout_log_probs(OLD, ROLLOUT, ORIGIN)
    batch = DataProto.from_dict(
        tensors={"old_log_probs": OLD, "rollout_log_probs": given_log_probs, "response_mask": trained}
    )
    config = RolloutCorrectionConfig(rollout_is="token", rollout_is_threshold=threshold)
    batch, _ = compute_rollout_correction_and_add_to_batch(batch, config)
    found = batch.batch["rollout_is_weights"]
    grafted = ORIGIN == GRAFTED
    w = graft_weights(OLD, ROLLOUT, ORIGIN)
    torch.testing.assert_close(found[grafted], w[grafted].clamp(max=threshold), rtol=1e-6, atol=0)
    assert (found[ORIGIN == SAMPLED] == 1).all()
    assert (found[trained == 0] == 0).all()
    assert torch.equal(batch.batch["response_mask"], trained)


def test_given_log_probs_are_the_servers_on_grafts_and_the_actors_elsewhere():
    found = graft_only_rollout_log_probs(OLD.double(), ROLLOUT, ORIGIN)
    assert found.dtype == torch.float64
    assert torch.equal(found, torch.where(ORIGIN == GRAFTED, ROLLOUT.double(), OLD.double()))


def test_each_graft_has_one_geometric_mean():
    means = geometric_mean_weights(graft_weights(OLD, ROLLOUT, ORIGIN), ORIGIN)
    expected = torch.tensor([math.exp(-1 / 3), math.exp(0.2), math.exp(1.6)], dtype=torch.float64)
    torch.testing.assert_close(means, expected, rtol=1e-6, atol=0)


def test_a_graft_does_not_run_on_into_the_next_row():
    origin = torch.tensor([[SAMPLED, GRAFTED], [GRAFTED, SAMPLED], [GRAFTED, GRAFTED]])
    weights = torch.tensor([[9.0, 2.0], [4.0, 9.0], [1.0, 16.0]])
    means = geometric_mean_weights(weights, origin)
    torch.testing.assert_close(means, torch.tensor([2.0, 4.0, 4.0], dtype=torch.float64))


def test_metrics_say_how_the_weights_are_spread():
    w = torch.tensor(
        [[0.01, 0.5, 1.0 - 1e-7, 1.0 + 1e-7, 1.0, 1.9, 2.0, 2.1, 4.0, 100.0]], dtype=torch.float64
    )
    origin = torch.tensor([[GRAFTED] * 5 + [SAMPLED] + [GRAFTED] * 4])
    metrics = weight_metrics(w, origin, threshold=2.0)
    kept = torch.cat([w[0, :5], w[0, 6:]])
    assert metrics["graft/tokens"] == 9
    assert metrics["graft/weight/mean"] == pytest.approx(float(kept.mean()))
    assert (metrics["graft/weight/min"], metrics["graft/weight/max"]) == (0.01, 100.0)
    assert metrics["graft/weight/p50"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["graft/weight/p10"] == pytest.approx(0.01 + 0.8 * 0.49)
    assert metrics["graft/weight/p90"] == pytest.approx(4.0 + 0.2 * 96)
    assert metrics["graft/weight/truncated_share"] == pytest.approx(3 / 9)
    share = float(kept.sum() ** 2 / kept.square().sum() / 9)
    assert metrics["graft/weight/effective_sample_share"] == pytest.approx(share)
    first, second = (0.01 * 0.5) ** (1 / 5), (2.0 * 2.1 * 4.0 * 100.0) ** (1 / 4)
    assert metrics["graft/weight/geometric_mean/mean"] == pytest.approx((first + second) / 2)
    assert metrics["graft/weight/geometric_mean/min"] == pytest.approx(first)
    histogram = {name.rpartition("from_")[2]: n for name, n in metrics.items() if "/from_" in name}
    assert histogram == {
        "0.00": 1, "0.09": 0, "0.18": 0, "0.35": 1, "0.71": 3, "1.41": 2, "2.83": 1, "5.66": 1,
    }  # fmt: skip


def test_without_a_graft_only_their_number_is_logged():
    weights = graft_weights(OLD, ROLLOUT, torch.zeros_like(ORIGIN))
    assert weight_metrics(weights, torch.zeros_like(ORIGIN)) == {"graft/tokens": 0.0}
    assert geometric_mean_weights(weights, torch.full_like(ORIGIN, EXCLUDED)).shape == (0,)
    nothing = torch.zeros(0, 5)
    assert weight_metrics(nothing, nothing.long()) == {"graft/tokens": 0.0}


def test_equal_weights_make_a_full_sample_and_always_the_same_names():
    origin = torch.full((2, 3), GRAFTED)
    metrics = weight_metrics(torch.ones(2, 3), origin)
    assert metrics["graft/weight/effective_sample_share"] == pytest.approx(1.0)
    assert metrics["graft/weight/from_0.71"] == 6
    assert list(metrics) == list(weight_metrics(graft_weights(OLD, ROLLOUT, ORIGIN), ORIGIN))


def test_verl_combines_the_metrics_of_several_batches_as_their_names_say():
    aggregator = MetricsAggregator()
    names = list(weight_metrics(graft_weights(OLD, ROLLOUT, ORIGIN), ORIGIN))
    for values in (1.0, 3.0):
        aggregator.add_step_metrics(dict.fromkeys(names, values), sample_count=8)
    for name, value in aggregator.get_aggregated_metrics().items():
        last = name.rpartition("/")[2]
        assert value == {"min": 1.0, "max": 3.0}.get(last, 2.0), name


@pytest.mark.parametrize("function", [graft_weights, graft_only_rollout_log_probs])
def test_unequal_shapes_are_refused(function):
    with pytest.raises(ValueError, match=r"old_log_probs \(2, 10\), rollout_log_probs \(2, 9\)"):
        function(OLD, ROLLOUT[:, :9], ORIGIN)
    with pytest.raises(ValueError, match=r"origin \(2, 9\)"):
        function(OLD, ROLLOUT, ORIGIN[:, :9])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(0, 99)
)
def test_geometric_means_are_those_of_a_plain_walk_over_the_rows(rows: list[list[int]], seed: int):
    origin = torch.tensor(rows)
    shape = origin.shape
    generator = torch.Generator().manual_seed(seed)
    weights = graft_weights(
        torch.randn(shape, generator=generator), torch.randn(shape, generator=generator), origin
    )
    grafts: list[list[float]] = []
    for row, values in zip(rows, weights.tolist(), strict=True):
        before = None
        for kind, w in zip(row, values, strict=True):
            if kind == GRAFTED:
                grafts += [[]] if before != GRAFTED else []
                grafts[-1].append(math.log(w))
            before = kind
    expected = torch.tensor([math.exp(sum(logs) / len(logs)) for logs in grafts], dtype=torch.float64)
    torch.testing.assert_close(geometric_mean_weights(weights, origin), expected)
