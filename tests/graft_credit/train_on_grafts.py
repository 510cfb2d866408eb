"""Run by test_real_model: old log-probabilities and one optimizer step by verl's own worker and loss.

usage: train_on_grafts.py MODEL_DIRECTORY TRAJECTORIES RESULT

TRAJECTORIES is a list of dicts with `prompt`, `response`, `response_mask`, `rollout_log_probs`, `origin` (lists) and
`advantage` (a number), saved by torch. RESULT gets `old_log_probs` (a list of rows), `moved` (by how much each
parameter moved, the norm of the difference) and the step's `metrics`.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import response_from_nested, response_to_nested

from cleaner.graft_credit import graft_weights

sys.path.insert(0, str(Path(__file__).parents[1] / "cpu"))
from train_one_step import make_worker


def main(directory: str, source: str, target: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    trajectories = torch.load(source)
    worker = make_worker(directory)
    before = parameters(worker)
    mask = nested(trajectories, "response_mask")
    output = worker.infer_batch(batch(trajectories, compute_loss=False))
    old = response_from_nested(output["log_probs"], mask)
    padded, rollout = (
        old.to_padded_tensor(0.0),
        nested(trajectories, "rollout_log_probs").to_padded_tensor(0.0),
    )
    weights = graft_weights(padded, rollout, nested(trajectories, "origin").to_padded_tensor(0)).clamp(
        max=2.0
    )
    advantages = torch.tensor([t["advantage"] for t in trajectories])[:, None] * mask.to_padded_tensor(0)
    config = FSDPActorConfig(
        strategy="fsdp2", rollout_n=1, ppo_mini_batch_size=len(trajectories), ppo_micro_batch_size_per_gpu=2,
        use_kl_loss=False, entropy_coeff=0.0,
    )  # fmt: skip
    worker.set_loss_fn(partial(ppo_loss, config))
    data = batch(trajectories, mini_batch_size=len(trajectories), global_batch_size=len(trajectories))
    data["old_log_probs"] = old
    data["advantages"] = response_to_nested(advantages, mask)
    data["rollout_is_weights"] = response_to_nested(weights, mask)
    metrics = tu.get(worker.train_mini_batch(data), "metrics")
    after = parameters(worker)
    torch.save(
        {
            "old_log_probs": [row.tolist() for row in old.unbind()],
            "moved": {name: float((after[name] - before[name]).norm()) for name in before},
            "metrics": {name: float(torch.as_tensor(value).mean()) for name, value in metrics.items()},
        },
        target,
    )
    torch.distributed.destroy_process_group()


def parameters(worker: Any) -> dict[str, torch.Tensor]:
    named, _ = worker.engine.get_per_tensor_param()
    return {name: tensor.detach().double().clone() for name, tensor in named}


def nested(trajectories: list[dict[str, Any]], key: str) -> torch.Tensor:
    rows = [torch.tensor(trajectory[key]) for trajectory in trajectories]
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def batch(trajectories: list[dict[str, Any]], **options: Any) -> Any:
    """The whole sequences in verl's format without padding."""
    whole = [
        {
            "input_ids": t["prompt"] + t["response"],
            "position_ids": list(range(len(t["prompt"]) + len(t["response"]))),
            "prompts": t["prompt"],
            "responses": t["response"],
            "response_mask": t["response_mask"],
            "loss_mask": t["response_mask"],
        }
        for t in trajectories
    ]
    tensors = {key: nested(whole, key) for key in whole[0]}
    numbers = [len(row["input_ids"]) for row in whole]
    data = tu.get_tensordict(
        tensors, {"temperature": 1.0, "pad_mode": "no_padding", "global_token_num": numbers}
    )
    tu.assign_non_tensor(data, **options)
    return data


if __name__ == "__main__":
    main(*sys.argv[1:])
