"""verl's synchronous PPO trainer, and what training on purified trajectories adds to it.

It adds: batches in a reproducible order, metrics of tool calls and rollbacks in training and in validation, a log of
trajectories, and trajectories that met an infrastructure fault left out of the loss. On a machine without a GPU it
puts the CPU worker classes in place. Everything else is upstream's.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop import AgentLoopManager
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name

from cleaner.phase import PhaseMarker
from cleaner.replay_buffer import OrderedReplayBuffer
from cleaner.saar.statistics import aggregate
from cleaner.trajectory_log import TrajectoryLog
from cleaner.trajectory_rows import read_rows


@register_trainer("cleaner_sync")
class CleanerTrainer(PPOTrainerSync):
    """`trainer.v1.trainer_mode=cleaner_sync`."""

    trainer_mode: str

    def _build_replay_buffer(self) -> OrderedReplayBuffer:
        # Upstream branches on trainer_mode == "sync" in a dozen places; ours is a synchronous trainer too. This is
        # the first method that upstream's constructor calls after it has read the mode.
        settings = self.config.trainer.v1.get(self.trainer_mode, {})
        self.trainer_mode = "sync"
        inner = super()._build_replay_buffer()
        inner.poll_interval = float(settings.get("poll_interval", inner.poll_interval))
        self._validation_rows: list[dict[str, Any]] = []
        cleaner = self.config.cleaner
        log_path = Path(cleaner.output_dir) / "trajectories.jsonl"
        self._trajectory_log = TrajectoryLog(log_path) if cleaner.record else None
        return OrderedReplayBuffer(inner, on_sample=self._observe_sample)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        if get_device_name() == "cpu":
            from cleaner.cpu.worker import CPUActorRolloutRefWorker, CPUTrainingWorker

            for role in self.role_worker_mapping:
                worker = CPUTrainingWorker if role == Role.Critic else CPUActorRolloutRefWorker
                self.role_worker_mapping[role] = ray.remote(worker)

    def fit(self, agent_loop_manager: AgentLoopManager) -> None:
        """Train; the agent loops are told which batches are for validation."""
        super().fit(PhaseMarker(agent_loop_manager))

    def _balance_batch(
        self, batch: KVBatchMeta, metrics: dict[str, Any], *args: Any, **kwargs: Any
    ) -> KVBatchMeta:
        batch = super()._balance_batch(batch, metrics, *args, **kwargs)
        if self._is_one_padded_update():
            batch.reorder(sorted(range(len(batch)), key=lambda i: batch.tags[i]["seq_len"]))
        return batch

    def _is_one_padded_update(self) -> bool:
        """Whether order means nothing to the update but time: one mini-batch, one rank, rows padded to their longest.

        Rows of like length then share a micro-batch, which halves the time of an update without a packing attention.
        """
        config = self.config
        actor = config.actor_rollout_ref.actor
        return (
            not config.actor_rollout_ref.model.use_remove_padding
            and actor.ppo_mini_batch_size == config.data.train_batch_size
            and config.trainer.n_gpus_per_node * config.trainer.nnodes == 1
        )

    def _observe_sample(self, batch: KVBatchMeta) -> None:
        if batch.partition_id == "val":
            self._validation_rows.extend(read_rows(batch))

    def _validate(self) -> dict[str, float]:
        self._validation_rows = []
        metrics = super()._validate()
        rows, self._validation_rows = self._validation_rows, []
        metrics.update({f"val/{name}": value for name, value in _row_metrics(rows).items()})
        if self._trajectory_log is not None:
            self._trajectory_log.append("val", self.global_steps, rows)
        return metrics

    def _save_checkpoint(self) -> None:
        try:
            super()._save_checkpoint()
        except Exception as error:
            folder = Path(self.config.trainer.default_local_dir)
            # What was half written cannot be resumed from, and it is what fills the disk.
            shutil.rmtree(folder / f"global_step_{self.global_steps}", ignore_errors=True)
            tracker = folder / "latest_checkpointed_iteration.txt"
            last = (
                f"step {tracker.read_text()} is the last whole one"
                if tracker.exists()
                else "there is none yet"
            )
            free_gib = shutil.disk_usage(folder.parent).free / 2**30
            raise RuntimeError(
                f"the checkpoint of step {self.global_steps} could not be saved in {folder} ({free_gib:.2f} GiB free): "
                f"{error}. Of earlier checkpoints, {last}. Free the disk, then resume."
            ) from error

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        faulty = [row["key"] for row in read_rows(batch) if (row["saar"] or {}).get("infrastructure")]
        if faulty:
            _leave_out(batch, faulty)
        metrics["rollout/left_out_for_infrastructure"] = len(faulty)
        return super()._compute_advantage(batch, metrics)

    def _compute_metrics(
        self,
        batch: KVBatchMeta,
        metrics: dict[str, Any],
        timing_raw: dict[str, float],
        global_steps: int,
        epoch: int,
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        rows = read_rows(batch)
        metrics.update(_row_metrics(rows))
        expected = self.config.data.train_batch_size * self.config.actor_rollout_ref.rollout.n
        metrics["rollout/failed_trajectories"] = expected - len(
            {row["key"].rsplit("_", 1)[0] for row in rows}
        )
        if self._trajectory_log is not None:
            self._trajectory_log.append("train", global_steps, rows)


def _row_metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Accuracy, reward, and the statistics of tool calls and rollbacks over `rows`."""
    accuracies = [row["header"]["accuracy"] for row in rows if row["header"]["accuracy"] is not None]
    metrics = aggregate([row["saar"] for row in rows if row["saar"] is not None])
    if accuracies:
        metrics["accuracy"] = float(np.mean(accuracies))
    if rows:
        metrics["reward"] = float(np.mean([row["header"]["reward"] for row in rows]))
    return metrics


def _leave_out(batch: KVBatchMeta, keys: list[str]) -> None:
    """Take trajectories out of the loss and out of their group's baseline.

    Their masks become zero, and each gets a group of its own, so that a reward which says nothing about the policy
    moves neither the mean nor the spread of its former group.
    """
    data = tq.kv_batch_get(
        keys=keys, partition_id=batch.partition_id, select_fields=["response_mask", "loss_mask"]
    )
    zeros = {
        name: torch.nested.as_nested_tensor(
            [torch.zeros_like(mask) for mask in data[name].unbind()], layout=torch.jagged
        )
        for name in ("response_mask", "loss_mask")
    }
    own_groups = tu.get_tensordict({"uid": np.array([f"infrastructure-{key}" for key in keys], dtype=object)})
    fields = TensorDict({**zeros, "uid": own_groups["uid"]}, batch_size=len(keys))
    tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=fields)
