"""Run by test_training: one rank of real training steps through verl's worker. Prints what happened as JSON.

usage: train_one_step.py MODEL_DIRECTORY
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig

from cleaner.cpu.worker import CPUTrainingWorker

FP32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}


def main(directory: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result: dict[str, Any] = {
        "reference": compute_log_probs(make_worker(directory, forward_only=True)),
        "value_model": train(make_worker(directory, model_type="value_model")),
        "language_model": train(make_worker(directory)),
        "backend": str(torch.distributed.get_backend_config()),
    }
    print("RESULT" + json.dumps(result), flush=True)
    torch.distributed.destroy_process_group()


def make_worker(
    directory: str, forward_only: bool = False, model_type: str = "language_model"
) -> CPUTrainingWorker:
    worker = CPUTrainingWorker(
        TrainingWorkerConfig(
            model_type=model_type,
            model_config=HFModelConfig(
                path=directory, use_remove_padding=False, enable_gradient_checkpointing=False,
                override_config={"attn_implementation": "sdpa"},
            ),
            engine_config=FSDPEngineConfig(
                strategy="fsdp2", use_torch_compile=False, mixed_precision=FP32, forward_only=forward_only,
                use_dynamic_bsz=False, micro_batch_size_per_gpu=2, infer_micro_batch_size_per_gpu=2,
            ),
            optimizer_config=None if forward_only else FSDPOptimizerConfig(lr=1e-2, total_training_steps=3),
            checkpoint_config=CheckpointConfig(),
        )
    )  # fmt: skip
    worker.reset()
    return worker


def train(worker: CPUTrainingWorker) -> dict[str, Any]:
    def loss(model_output: Any, data: Any, dp_group: Any = None) -> tuple[torch.Tensor, dict]:
        if "values" in model_output:
            return (model_output["values"].values() - 10).pow(2).mean(), {}
        return -model_output["log_probs"].values().mean(), {}

    worker.set_loss_fn(loss)
    losses = [tu.get(worker.train_batch(batch()), "metrics")["loss"] for _ in range(3)]
    weights, _ = worker.engine.get_per_tensor_param()
    return {"losses": losses, "norms": {name: float(tensor.double().norm()) for name, tensor in weights}}


def compute_log_probs(worker: CPUTrainingWorker) -> list[list[float]]:
    output = worker.infer_batch(batch(compute_loss=False))
    return [row.tolist() for row in output["log_probs"].unbind()]


def batch(**options: Any) -> Any:
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    rows = [torch.arange(2 + i, 12 + 2 * i) for i in range(4)][rank::world]
    jagged = {
        "input_ids": rows,
        "position_ids": [torch.arange(len(row)) for row in rows],
        "loss_mask": [torch.ones(len(row)) for row in rows],
    }
    tensors = {
        key: torch.nested.as_nested_tensor(value, layout=torch.jagged) for key, value in jagged.items()
    }
    numbers = [n for row in rows for n in [len(row)]]
    data = tu.get_tensordict(
        tensors, {"temperature": 1.0, "pad_mode": "no_padding", "global_token_num": numbers}
    )
    tu.assign_non_tensor(data, **options)
    return data


if __name__ == "__main__":
    main(*sys.argv[1:])
