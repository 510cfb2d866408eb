"""The arithmetic of the graft's and the failing call's terms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cleaner.graft_terms import right_answers, term_metrics, with_failing_term, with_graft_term

OPEN, CLOSED = torch.ones(1, 1), torch.zeros(1, 1)


def batch(seed: int, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Advantages that have one value a row, as GRPO's, tokens of grafts, and the rows' gates."""
    generator = torch.Generator().manual_seed(seed)
    advantages = torch.randn(rows, 1, generator=generator).expand(rows, length)
    grafted = torch.rand(rows, length, generator=generator) < 0.4
    return advantages, grafted, (torch.rand(rows, 1, generator=generator) < 0.5).float()


def test_by_hand():
    advantages = torch.tensor([[2.0, 2.0, 2.0], [-1.0, -1.0, -1.0]])
    grafted = torch.tensor([[False, True, False], [True, True, False]])
    up = with_graft_term(advantages, grafted, OPEN, 0.5, signed=False)
    assert up.tolist() == [[2.0, 2.5, 2.0], [0.5, 0.5, -1.0]]
    signed = with_graft_term(advantages, grafted, torch.tensor([[0.0], [1.0]]), 0.5, signed=True)
    assert signed.tolist() == [[2.0, 2.0, 2.0], [-0.5, -0.5, -1.0]]
    down = with_failing_term(advantages, grafted, torch.tensor([[1.0], [0.0]]), 0.5)
    assert down.tolist() == [[2.0, -0.5, 2.0], [0.0, 0.0, -1.0]]
    metrics = term_metrics("distill", up - advantages, OPEN.expand_as(advantages), grafted)
    assert metrics == {
        "graft/distill/tokens": 3.0,
        "graft/distill/added": pytest.approx((0.5 + 1.5 + 1.5) / 3),
        "graft/distill/gated_share": 0.0,
    }


shapes = st.tuples(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 8))
weights = st.floats(0.01, 4.0)


@given(shapes, weights, st.booleans())
def test_only_grafts_with_an_open_gate_get_the_term(shape, weight, signed):
    advantages, grafted, gate = batch(*shape)
    new = with_graft_term(advantages, grafted, gate, weight, signed=signed)
    assert torch.equal(new[~grafted], advantages[~grafted])
    base = advantages if signed else advantages.clamp(min=0)
    closed = grafted & (gate == 0)
    assert torch.equal(new[closed], base.expand_as(new)[closed])
    torch.testing.assert_close(new[grafted & (gate == 1)], (base + weight)[grafted & (gate == 1)])


@given(shapes, weights)
def test_a_graft_of_a_right_answer_is_never_pushed_down(shape, weight):
    advantages, grafted, gate = batch(*shape)
    new = with_graft_term(advantages, grafted, gate, weight, signed=False)
    assert (new[grafted] >= 0).all() and (new[grafted & (gate == 1)] >= weight * 0.999).all()


@given(shapes, weights)
def test_what_a_groups_mean_takes_away_the_term_gives_back(shape, weight):
    """Advantages of a group sum to zero over its members; with the term, those of grafts sum to beta per member."""
    seed, rows, length = shape
    advantages, _, _ = batch(seed, rows, length)
    advantages = advantages - advantages.mean(0)
    everywhere = torch.ones(rows, length, dtype=torch.bool)
    new = with_graft_term(advantages, everywhere, OPEN, weight, signed=True)
    torch.testing.assert_close(advantages.sum(0), torch.zeros(length), atol=1e-5, rtol=0)
    torch.testing.assert_close(new.sum(0), torch.full((length,), rows * weight), atol=1e-4, rtol=1e-4)


@given(st.integers(1, 20), st.integers(1, 20), weights, st.integers(0, 10_000))
def test_the_two_calls_log_probabilities_get_opposite_coefficients_however_long_they_are(
    up, down, weight, seed
):
    generator = torch.Generator().manual_seed(seed)
    graft, failing = (torch.randn(1, n, generator=generator).requires_grad_() for n in (up, down))
    zero = [torch.zeros(1, n) for n in (up, down)]
    plus = with_graft_term(zero[0], torch.ones(1, up, dtype=torch.bool), OPEN, weight, signed=False)
    minus = with_failing_term(zero[1], torch.ones(1, down, dtype=torch.bool), OPEN, weight)
    # The policy gradient's loss, token-mean: sum of A log p over the number of trained tokens.
    loss = -((plus * graft).sum() + (minus * failing).sum()) / (up + down)
    loss.backward()
    total = weight / (up + down)
    torch.testing.assert_close(graft.grad, torch.full_like(graft, -total))
    torch.testing.assert_close(failing.grad, torch.full_like(failing, total))


@given(shapes, weights)
def test_a_closed_gate_takes_a_failing_call_out(shape, weight):
    advantages, failing, _ = batch(*shape)
    assert not with_failing_term(advantages, failing, CLOSED, weight)[failing].any()
    assert (with_failing_term(advantages, failing, OPEN, weight)[failing] == -weight).all()


def test_the_gate_is_open_where_the_answer_is_right():
    rewards = [1.0, -1.0, 0.4, 0.4, 0.0, 2.0]
    accuracies = [None, True, 1, 0.4, None, False]
    assert right_answers(rewards, accuracies) == [True, True, True, False, False, False]


def test_without_tokens_there_is_nothing_to_average():
    none = torch.zeros(2, 3, dtype=torch.bool)
    assert term_metrics("contrast", torch.zeros(2, 3), torch.ones(2, 3), none) == {
        "graft/contrast/tokens": 0.0
    }
