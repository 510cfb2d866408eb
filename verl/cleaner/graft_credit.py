"""Credit of grafted tokens: importance weights, what verl's rollout correction is told, and preferences between calls.

A grafted token was sampled in a look-ahead context, which holds the failed attempts and their errors, and is trained in
the clean context, which doesn't. Its exact importance ratio is

    w = pi_old(token | clean context) / pi_rollout(token | the context in which it was sampled).

`old_log_probs` are the actor's, recomputed on the purified tokens: the clean context. `rollout_log_probs` are the
server's, of the moment of sampling. On every other token both belong to one context, and w is 1 by definition: what
they differ by there is the engines' rounding, which is not what is corrected here.

Functions of tensors only. (B, T): B responses padded to T tokens; `origin` holds `cleaner.saar.trajectory.Origin` as
integers, `OBSERVATION` (0) on padding. Nothing here carries a gradient.
"""

from __future__ import annotations

import torch

from cleaner.saar.trajectory import Origin

# Of a log-ratio: verl clamps there before it exponentiates (SAFETY_BOUND of its rollout correction).
LOG_RATIO_BOUND = 20.0

# Octaves of w whose middle is a power of two: most graft tokens are nearly certain in both contexts, and a bound at
# w = 1 would part them by their rounding. Named by their lower bounds, 2**(k - 1/2) for k = -3 .. 3.
_OCTAVES = range(-3, 4)


def graft_weights(
    old_log_probs: torch.Tensor, rollout_log_probs: torch.Tensor, origin: torch.Tensor
) -> torch.Tensor:
    """Untruncated importance weights: w on grafted tokens, 1 elsewhere.

    Args:
        old_log_probs: (B, T), of the actor in the clean context.
        rollout_log_probs: (B, T), of the server in the context in which each token was sampled.
        origin: (B, T).

    Returns:
        (B, T), of `old_log_probs`' type, within exp(-20) and exp(20).

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(old_log_probs=old_log_probs, rollout_log_probs=rollout_log_probs, origin=origin)
    with torch.no_grad():
        ratio = (old_log_probs - rollout_log_probs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()
        return torch.where(_grafted(origin), ratio, 1.0).to(old_log_probs.dtype)


def graft_only_rollout_log_probs(
    old_log_probs: torch.Tensor, rollout_log_probs: torch.Tensor, origin: torch.Tensor
) -> torch.Tensor:
    """`rollout_log_probs` for verl's rollout correction, whose token-level weights then are exactly 1 but on grafts.

    Args and errors: as :func:`graft_weights`.

    Returns:
        (B, T), of `old_log_probs`' type: the server's values on grafted tokens, the actor's own everywhere else.
    """
    _check_shapes(old_log_probs=old_log_probs, rollout_log_probs=rollout_log_probs, origin=origin)
    given = rollout_log_probs.to(old_log_probs.dtype)
    return torch.where(_grafted(origin), given, old_log_probs).detach()


def geometric_mean_weights(weights: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
    """Geometric mean of w over each graft, a run of grafted tokens in one row.

    Args:
        weights: (B, T), from :func:`graft_weights`.
        origin: (B, T).

    Returns:
        (number of grafts,), float64, in order of rows and positions. Grafts that touch count as one.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(weights=weights, origin=origin)
    grafted = _grafted(origin)
    begins = grafted.clone()
    begins[:, 1:] &= ~grafted[:, :-1]
    number = (
        begins.flatten().cumsum(0)[grafted.flatten()] - 1
    )  # of the graft that each grafted token belongs to
    logs = weights[grafted].double().log()
    sums = torch.zeros(int(begins.sum()), dtype=torch.float64, device=weights.device)
    return (sums.index_add(0, number, logs) / number.bincount(minlength=len(sums))).exp()


def weight_metrics(weights: torch.Tensor, origin: torch.Tensor, threshold: float = 2.0) -> dict[str, float]:
    """What the weights of a batch's grafted tokens are like.

    verl combines several batches' metrics by words in their names: `min` and `max` as such, all others by their mean.

    Args:
        weights: (B, T), untruncated, from :func:`graft_weights`.
        origin: (B, T).
        threshold: where they will be truncated (`rollout_correction.rollout_is_threshold`).

    Returns:
        `graft/tokens`, their number; without any, nothing else. Under `graft/weight/`: `mean`, `min`, `max`, the
        percentiles `p10`, `p50`, `p90`; `truncated_share` of the tokens above the threshold; `effective_sample_share`,
        (sum w)**2 / (n sum w**2) (Kish 1965), 1 where all are equal; `geometric_mean/mean` and `/min` over the grafts;
        and the counts of a histogram over log2 w, `from_<lower bound of w>`.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(weights=weights, origin=origin)
    w = weights[_grafted(origin)].double()
    if not len(w):
        return {"graft/tokens": 0.0}
    p10, p50, p90 = torch.quantile(w, torch.tensor([0.1, 0.5, 0.9], dtype=w.dtype, device=w.device)).tolist()
    per_graft = geometric_mean_weights(weights, origin)
    values = {
        "mean": w.mean(),
        "min": w.min(),
        "max": w.max(),
        "p10": p10,
        "p50": p50,
        "p90": p90,
        "truncated_share": (w > threshold).double().mean(),
        "effective_sample_share": w.sum() ** 2 / (len(w) * w.square().sum()),
        "geometric_mean/mean": per_graft.mean(),
        "geometric_mean/min": per_graft.min(),
    }
    bounds = torch.tensor([2.0 ** (k - 0.5) for k in _OCTAVES], dtype=w.dtype, device=w.device)
    counts = torch.bucketize(w, bounds, right=True).bincount(minlength=len(bounds) + 1)
    for lower, count in zip([0.0, *bounds.tolist()], counts.tolist(), strict=True):
        values[f"from_{lower:.2f}"] = count
    return {
        "graft/tokens": float(len(w)),
        **{f"graft/weight/{name}": float(value) for name, value in values.items()},
    }


def dpo_strength(chosen: torch.Tensor, rejected: torch.Tensor, beta: float) -> torch.Tensor:
    """How strongly the DPO loss pushes at pairs of calls: beta * sigmoid(-beta * (chosen - rejected)).

    It is the factor of grad log pi in the gradient of -log sigmoid(beta * (chosen - rejected)), up for every token of
    the accepted call and down for every token of the rejected one (Rafailov et al. 2023, arXiv 2305.18290, section 4).

    Args:
        chosen: (P,), the accepted calls' sums of `old_log_prob - reference_log_prob` over their tokens, in the clean
            context.
        rejected: (P,), the rejected calls' sums, in the context in which each was sampled.
        beta: of the DPO loss, above 0.

    Returns:
        (P,), in (0, beta).

    Raises:
        ValueError: beta is not above 0, or the shapes differ.
    """
    if not beta > 0:
        raise ValueError(f"dpo_beta={beta}: must be above 0")
    _check_shapes(chosen=chosen, rejected=rejected)
    return (beta * torch.sigmoid(-beta * (chosen - rejected))).detach()


def dpo_adjustment(strength: torch.Tensor, advantage: torch.Tensor, ratio: float) -> torch.Tensor:
    """What is added to the advantage of every token of the accepted call, and taken from the rejected call's.

    min(strength, ratio * |advantage|): the outcome, not the preference, keeps the last word on a trajectory, and where
    it teaches nothing (advantage 0) neither does the preference.

    Args:
        strength: (P,), from :func:`dpo_strength`.
        advantage: (P,), of each pair's trajectory.
        ratio: `dpo_max_adjustment_ratio`, 0 or more.

    Returns:
        (P,), 0 or more.

    Raises:
        ValueError: the ratio is negative, or the shapes differ.
    """
    if not ratio >= 0:
        raise ValueError(f"dpo_max_adjustment_ratio={ratio}: must be 0 or more")
    _check_shapes(strength=strength, advantage=advantage)
    return torch.minimum(strength, ratio * advantage.abs()).detach()


def _grafted(origin: torch.Tensor) -> torch.Tensor:
    return origin == int(Origin.GRAFTED)


def _check_shapes(**tensors: torch.Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError("unequal shapes: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))
