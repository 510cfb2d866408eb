"""Two terms of the advantages that purification takes out of the gradient: grafts up, failing calls down.

Write s for the chance that the policy's first call succeeds. In a group of purified trajectories every call is one that
succeeded, and advantages have mean zero, so what all these calls have in common, the gradient of log s, cancels. A
weight beta > 0 on every graft brings it back, in proportion to what still fails; -beta on the failing call does the
same from the other side:

    A_t <- max(A_t, 0) + beta * g    on a grafted token (`distill_advantage: signed`: A_t + beta * g)
    A_t <-              -beta * g    on a token of the failing call, in a sample of its own (`graft_credit: contrast`)
    A_t <-               beta * g    on a grafted token in a sample of its own (`history: sampled`)

g is 1, or by the reward gate 1 where the trajectory's answer is right and 0 elsewhere. The weight is per token: the
log-probabilities of the two calls, each the sum over its tokens, get the coefficients beta and -beta, as in a
preference loss. With equal sums over tokens the shorter call would be pushed harder per token, without a bound.

Functions of tensors only. (B, T): B responses padded to T tokens. Nothing here carries a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def with_graft_term(
    advantages: torch.Tensor, grafted: torch.Tensor, gate: torch.Tensor, weight: float, *, signed: bool
) -> torch.Tensor:
    """The advantages with the graft's term.

    Args:
        advantages: (B, T).
        grafted: (B, T), bool: the tokens that get it.
        gate: (B, T), g: 1.0 or 0.0.
        weight: beta.
        signed: add to A, not to max(A, 0).

    Returns:
        (B, T), of the same type; unchanged where `grafted` is false.
    """
    base = advantages if signed else advantages.clamp(min=0.0)
    return torch.where(grafted, base + weight * gate, advantages)


def with_failing_term(
    advantages: torch.Tensor, failing: torch.Tensor, gate: torch.Tensor, weight: float
) -> torch.Tensor:
    """The advantages with -beta * g in place of what stands on the tokens of failing calls.

    Args and returns: as :func:`with_graft_term`.
    """
    return torch.where(failing, -weight * gate, advantages)


def right_answers(rewards: Sequence[float], accuracies: Sequence[object]) -> list[bool]:
    """Where the reward gate is open.

    Args:
        rewards: (B,), each trajectory's outcome reward, without penalties of the trainer.
        accuracies: (B,), what the reward function calls `acc`, None where it says nothing.

    Returns:
        (B,): whether `acc` is 1 (a partly right program is not right); without it, whether the reward is above 0.
    """
    return [
        float(accuracy) >= 1.0 if isinstance(accuracy, bool | int | float) else reward > 0
        for reward, accuracy in zip(rewards, accuracies, strict=True)
    ]


def term_metrics(
    name: str, added: torch.Tensor, gate: torch.Tensor, tokens: torch.Tensor
) -> dict[str, float]:
    """What a term did: `graft/<name>/...`.

    Args:
        added: (B, T), by how much advantages were moved.
        gate: (B, T), g.
        tokens: (B, T), bool: the tokens that the term is for.

    Returns:
        `tokens` with the gate open; and if there are any tokens, `added`, the mean over them, and `gated_share`, the
        share of them whose gate is closed.
    """
    number, opened = int(tokens.sum()), float(gate[tokens].sum())
    metrics = {f"graft/{name}/tokens": opened}
    if number:
        metrics[f"graft/{name}/added"] = float(added[tokens].double().mean())
        metrics[f"graft/{name}/gated_share"] = 1.0 - opened / number
    return metrics
