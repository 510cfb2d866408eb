"""DPO on tool calls: the strength is the loss's own gradient, and the advantage bounds what it may add."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from cleaner.graft_credit import dpo_adjustment, dpo_strength


def test_the_strength_is_the_gradient_of_the_dpo_loss():
    """d/d log pi of -log sigmoid(beta * margin): minus the strength on the chosen call, plus on the rejected one."""
    generator = torch.Generator().manual_seed(0)
    chosen = (3 * torch.randn(40, generator=generator, dtype=torch.float64)).requires_grad_()
    rejected = (3 * torch.randn(40, generator=generator, dtype=torch.float64)).requires_grad_()
    for beta in (0.05, 0.1, 1.0, 4.0):
        loss = -logsigmoid(beta * (chosen - rejected)).sum()
        up, down = torch.autograd.grad(loss, (chosen, rejected))
        strength = dpo_strength(chosen, rejected, beta)
        torch.testing.assert_close(-up, strength, rtol=1e-12, atol=0)
        torch.testing.assert_close(down, strength, rtol=1e-12, atol=0)
        assert not strength.requires_grad


def test_the_strength_falls_as_the_policy_learns_the_preference():
    margins = torch.tensor([-1e4, -10.0, 0.0, 10.0, 1e4], dtype=torch.float64)
    strength = dpo_strength(margins, torch.zeros(5, dtype=torch.float64), 0.2)
    expected = [0.2, 0.2 / (1 + math.exp(-2)), 0.1, 0.2 / (1 + math.exp(2)), 0.0]
    torch.testing.assert_close(strength, torch.tensor(expected, dtype=torch.float64))


def test_the_adjustment_never_exceeds_its_share_of_the_advantage():
    strength = torch.tensor([0.05, 0.05, 0.05, 0.05])
    advantage = torch.tensor([2.0, -2.0, 0.1, 0.0])
    assert dpo_adjustment(strength, advantage, 0.2).tolist() == pytest.approx([0.05, 0.05, 0.02, 0.0])
    assert dpo_adjustment(strength, advantage, 0.0).tolist() == [0.0] * 4
    assert dpo_adjustment(strength[:0], advantage[:0], 0.5).shape == (0,)


@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan])
def test_a_beta_that_is_not_above_zero_is_refused(beta: float):
    with pytest.raises(ValueError, match="dpo_beta"):
        dpo_strength(torch.zeros(1), torch.zeros(1), beta)


def test_a_negative_ratio_and_unequal_shapes_are_refused():
    for ratio in (-0.1, math.nan):
        with pytest.raises(ValueError, match="dpo_max_adjustment_ratio"):
            dpo_adjustment(torch.zeros(1), torch.zeros(1), ratio)
    with pytest.raises(ValueError, match=r"strength \(2,\), advantage \(3,\)"):
        dpo_adjustment(torch.zeros(2), torch.zeros(3), 0.1)
    with pytest.raises(ValueError, match=r"chosen \(2,\), rejected \(3,\)"):
        dpo_strength(torch.zeros(2), torch.zeros(3), 0.1)
