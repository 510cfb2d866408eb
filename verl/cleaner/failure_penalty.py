"""A penalty on the reward for each call that failed: reward - lambda * (failed calls in the final trajectory).

In training only, before a group's rewards are compared, so for every strategy and every estimator. What failed through
the tool's service is not counted, and a failing call that a repair took out of the history is not in the trajectory.

The reward itself stays what it is: `rm_scores`, from which logs, accuracy, selection and gates read, is changed only
while verl computes advantages, and then put back. `token_level_rewards` holds the penalised one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from cleaner.trajectory_rows import column_values


def failed_calls(statistics: Mapping[str, Any] | None) -> int:
    """Calls in the final trajectory that failed by the model's doing.

    Args:
        statistics: `TrajectoryStatistics.to_dict`; None (an agent loop that counts nothing) is 0.
    """
    return 0 if statistics is None else int(statistics["final_calls"]) - int(statistics["final_calls_ok"])


@contextmanager
def penalised(batch: KVBatchMeta, weight: float, metrics: dict[str, Any], *, keep: bool) -> Iterator[None]:
    """Let verl see penalised rewards.

    Args:
        weight: lambda, above 0.
        metrics: gets `failure_penalty/mean`, what was taken off the reward of a trajectory on average, and
            `failure_penalty/share`, of the trajectories with a failed call; without those that met an infrastructure
            fault.
        keep: leave the penalised rewards in `token_level_rewards` (where verl writes that itself, with a KL penalty,
            it starts from the penalised rewards).
    """
    data = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["rm_scores", "extra_fields"]
    )
    original = data["rm_scores"].unbind()
    rewards, penalties = [scores.clone() for scores in original], []
    for scores, extra, tag in zip(rewards, column_values(data["extra_fields"]), batch.tags, strict=True):
        statistics = extra.get("saar") if isinstance(extra, dict) else None
        if statistics is None or tag.get("is_padding", False) or statistics["infrastructure"]:
            continue
        penalties.append(weight * failed_calls(statistics))
        scores[-1] -= penalties[-1]
    if penalties:
        metrics["failure_penalty/mean"] = sum(penalties) / len(penalties)
        metrics["failure_penalty/share"] = sum(penalty > 0 for penalty in penalties) / len(penalties)
    _put(batch, {"rm_scores": rewards, **({"token_level_rewards": rewards} if keep else {})})
    try:
        yield
    finally:
        _put(batch, {"rm_scores": original})


def _put(batch: KVBatchMeta, columns: Mapping[str, Any]) -> None:
    nested = {
        name: torch.nested.as_nested_tensor(list(rows), layout=torch.jagged) for name, rows in columns.items()
    }
    fields = TensorDict(nested, batch_size=len(batch))
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
