"""verl's synchronous PPO trainer, and what training on purified trajectories adds to it.

It adds: batches in a reproducible order, metrics of tool calls and rollbacks in training and in validation, logs of
trajectories, of failed ones, of negative and of validation samples, credit of grafted tokens, a penalty for failed
calls, and trajectories that met an infrastructure fault left out of the loss. On a machine without a GPU it puts the
CPU worker classes in place. Everything else is upstream's.
"""

import copy
import math
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop import AgentLoopManager
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name

from cleaner.batch_screen import BatchScreen
from cleaner.config.settings import read_settings
from cleaner.evaluation.sample_lines import sample_lines
from cleaner.evaluation.sample_log import SAMPLES_FILE, ProblemKey, SampleLog
from cleaner.evaluation.unfinished import UnfinishedProblems, accuracy_by_source, rows_of
from cleaner.failure_penalty import penalised
from cleaner.failures import FailureMonitor
from cleaner.graft_table import GraftTable
from cleaner.json_lines import append_json_lines
from cleaner.phase import PhaseMarker
from cleaner.replay_buffer import OrderedReplayBuffer
from cleaner.rewards.verdict import UNMEASURED
from cleaner.run_totals import RunTotals
from cleaner.saar.config import TERMS
from cleaner.saar.statistics import aggregate
from cleaner.trajectory_log import TrajectoryLog
from cleaner.trajectory_rows import negative_keys, read_rows, without
from cleaner.trajectory_shares import trajectory_shares

# Steps between two validations, where there is to be none.
_NEVER = 2**31


@register_trainer("cleaner_sync")
class CleanerTrainer(PPOTrainerSync):
    """`trainer.v1.trainer_mode=cleaner_sync`."""

    trainer_mode: str
    config: DictConfig
    val_dataloader: Any
    # Whether the present batch holds samples beside the trajectories (`cleaner.credit_rows`).
    _has_credit_rows = False

    def _build_replay_buffer(self) -> OrderedReplayBuffer:
        # Upstream branches on trainer_mode == "sync" in a dozen places; ours is a synchronous trainer too. This is
        # the first method that upstream's constructor calls after it has read the mode.
        settings = self.config.trainer.v1.get(self.trainer_mode, {})
        self.trainer_mode = "sync"
        inner = super()._build_replay_buffer()
        inner.poll_interval = float(settings.get("poll_interval", inner.poll_interval))
        self._settings = read_settings(self.config)
        self._strategy = self._settings.make_strategy()
        self._validation_rows: list[dict[str, Any]] = []
        self._validation_failures: dict[str, float] = {}
        self._totals = RunTotals()
        self._output_dir = Path(self._settings.output_dir)
        self._trajectory_log = (
            TrajectoryLog(self._output_dir / "trajectories.jsonl") if self._settings.record else None
        )
        save_samples = self._settings.save_samples
        if save_samples is None:
            save_samples = self.config.trainer.val_only
        self._sample_log = SampleLog(self._output_dir / SAMPLES_FILE) if save_samples else None
        failures = self._settings.failures
        negatives = self._settings.negatives
        rollout = self.config.actor_rollout_ref.rollout
        self._screen = BatchScreen(
            self._strategy,
            FailureMonitor(self._output_dir / "failures.jsonl", failures.max_share, failures.strict),
            trained=rollout.n,
            validated=rollout.val_kwargs.n,
            max_negatives=negatives.max_per_group if negatives.dpo else None,
            seed=self._settings.seed,
        )
        return OrderedReplayBuffer(
            inner, self._screen_batch, None if self._sample_log is None else self._save_samples
        )

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        if get_device_name() == "cpu":
            from cleaner.cpu.worker import CPUActorRolloutRefWorker, CPUTrainingWorker

            for role in self.role_worker_mapping:
                worker = CPUTrainingWorker if role == Role.Critic else CPUActorRolloutRefWorker
                self.role_worker_mapping[role] = ray.remote(worker)

    def fit(self, agent_loop_manager: AgentLoopManager) -> None:
        """Train; the agent loops are told which batches are for validation, and how many trajectories to sample."""
        trained = self.config.actor_rollout_ref.rollout.n
        sampled = self._strategy.sampled_per_prompt(trained)
        if (check := getattr(agent_loop_manager, "check_workers", None)) is not None:
            self.replay_buffer.watch(check)
        super().fit(PhaseMarker(agent_loop_manager, sampled if sampled != trained else None))

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> KVBatchMeta:
        """One training step; its counts are part of the checkpoint that may follow it."""
        batch = super().step(metrics, timing_raw)
        rows = read_rows(batch)
        metrics.update(_row_metrics(rows, self._screen.unselected))
        metrics["trained_tokens"] = _trained_tokens(batch)
        generated = self._totals["generated_tokens"]
        metrics.update(self._totals.add(metrics))
        self._keep_to_budget(generated, self._totals["generated_tokens"])
        if self._trajectory_log is not None:
            self._trajectory_log.append("train", self.global_steps, rows)
        if self._settings.negatives.save:
            self._save_negatives(rows)
        return batch

    def _keep_to_budget(self, before: float, after: float) -> None:
        """Have upstream's loop validate, save and end where the budget of generated tokens says so.

        Upstream knows steps only: it reads these frequencies after each step, and the last step before the next one.
        """
        budget = self._settings.budget
        if budget.tokens is None:
            return
        spent = budget.is_spent(after)
        if budget.validations:
            due = spent or budget.validates(before, after)
            OmegaConf.update(self.config, "trainer.test_freq", 1 if due else _NEVER)
        if spent:
            self.total_training_steps = self.global_steps
            if self.config.trainer.save_freq > 0:
                OmegaConf.update(self.config, "trainer.save_freq", 1)

    def _save_negatives(self, rows: list[dict[str, Any]]) -> None:
        """Append the step's pairs to `negatives.jsonl`, not more of a group than are allowed."""
        limit = self._settings.negatives.max_per_group
        seen: Counter[str] = Counter()
        lines = []
        # In the order in which the screen counts the samples that are trained.
        for row in sorted(rows, key=lambda row: (row["header"]["index"], row["header"]["session"])):
            header = row["header"]
            for pair in row["negatives"]:
                seen[header["uid"]] += 1
                if limit is None or seen[header["uid"]] <= limit:
                    lines.append({"schema": 1, "step": self.global_steps, **header, **pair})
        if lines:
            append_json_lines(self._output_dir / "negatives.jsonl", lines)

    def _balance_batch(
        self, batch: KVBatchMeta, metrics: dict[str, Any], *args: Any, **kwargs: Any
    ) -> KVBatchMeta:
        self._has_credit_rows = bool(negative_keys(batch))
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

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        if not self._has_credit_rows:
            return int(super()._get_required_batch_multiple(dp_size))
        # Samples of repairs are rows beyond prompts x n. As many updates as without them, each with an equal share of
        # all rows: padded to upstream's multiple, nearly empty updates would follow the full ones.
        config = self.config.actor_rollout_ref
        micro = math.lcm(
            config.actor.ppo_micro_batch_size_per_gpu or 1,
            config.rollout.log_prob_micro_batch_size_per_gpu or 1,
            config.ref.log_prob_micro_batch_size_per_gpu or 1,
        )
        return dp_size * self._updates_per_step() * micro

    def _updates_per_step(self) -> int:
        return max(
            1, self.config.data.train_batch_size // self.config.actor_rollout_ref.actor.ppo_mini_batch_size
        )

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if not self._has_credit_rows:
            return super()._update_actor(batch, metrics)
        rows = len(batch) // self._updates_per_step()
        with self._overridden(
            {"actor_rollout_ref.actor.ppo_mini_batch_size": rows, "actor_rollout_ref.rollout.n": 1}
        ):
            return super()._update_actor(batch, metrics)

    @contextmanager
    def _overridden(self, values: dict[str, Any]) -> Iterator[None]:
        """Let upstream's code see other values of some keys for a while."""
        original = self.config
        self.config = copy.deepcopy(original)
        try:
            for key, value in values.items():
                OmegaConf.update(self.config, key, value)
            yield
        finally:
            self.config = original

    def _screen_batch(
        self, batch: KVBatchMeta, step: int, prompts: int
    ) -> tuple[KVBatchMeta, dict[str, float]]:
        batch, metrics = self._screen.screen(batch, step, prompts)
        if batch.partition_id == "val":
            self._validation_rows.extend(read_rows(batch))
            self._validation_failures = metrics
        return batch, metrics

    def _save_samples(self, group: KVBatchMeta, step: int) -> None:
        if self._sample_log is not None:
            self._sample_log.append(sample_lines(group, step, self.tokenizer))

    def _validate(self) -> dict[str, float]:
        self._validation_rows, self._validation_failures = [], {}
        log = self._evaluation_log
        done = log.finished(self.global_steps) if log is not None else {}
        with self._without_problems(done) if done else nullcontext():
            metrics = super()._validate()
        rows, self._validation_rows = self._validation_rows, []
        if self._trajectory_log is not None:
            self._trajectory_log.append("val", self.global_steps, rows)
        if log is not None:
            lines = log.lines(self.global_steps)
            rows = rows_of(lines)
            metrics.update(accuracy_by_source(lines))
        ours = {**_row_metrics(rows), **self._validation_failures}
        metrics.update({f"val/{name}": value for name, value in ours.items()})
        return metrics

    @property
    def _evaluation_log(self) -> SampleLog | None:
        """The samples, where all that this process does is an evaluation, which goes on where it was stopped."""
        return self._sample_log if self.config.trainer.val_only else None

    def _val_metrics_update(
        self,
        data_sources: list[str],
        sample_uids: list[str],
        reward_extra_infos_dict: dict[str, list[Any]],
        sample_turns: list[int],
        expected_acc_counts: dict[tuple[str, str], int] | None = None,
    ) -> dict[str, float]:
        # Upstream's are of what this process sampled, and draw a thousand bootstrap samples of each reward detail of
        # each prompt, a quarter of a second a prompt at n = 16. `cleaner eval-report` tells more.
        if self._evaluation_log is not None:
            return {}
        details = {name: values for name, values in reward_extra_infos_dict.items() if name not in UNMEASURED}
        # With the expected counts, upstream would score trajectories that failed by an exception as wrong answers.
        return dict(super()._val_metrics_update(data_sources, sample_uids, details, sample_turns))

    @contextmanager
    def _without_problems(self, done: dict[ProblemKey, int]) -> Iterator[None]:
        """Let upstream's code validate only what is not done yet."""
        batches = self.val_dataloader
        samples = self.config.actor_rollout_ref.rollout.val_kwargs.n
        self.val_dataloader = UnfinishedProblems(batches, done, samples)
        try:
            yield
        finally:
            self.val_dataloader = batches

    def _checkpoint_folder(self) -> Path:
        return Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps > 0:
            resumed = self.config.trainer.get("resume_from_path")
            by_path = self.config.trainer.resume_mode == "resume_path" and resumed
            self._totals.load(Path(resumed) if by_path else self._checkpoint_folder())

    def _save_checkpoint(self) -> None:
        try:
            super()._save_checkpoint()
            self._totals.save(self._checkpoint_folder())
        except Exception as error:
            folder = Path(self.config.trainer.default_local_dir)
            # What was half written cannot be resumed from, and it is what fills the disk.
            shutil.rmtree(self._checkpoint_folder(), ignore_errors=True)
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
            sessions = {key.rsplit("_", 1)[0] for key in faulty}
            _leave_out(batch, [key for key in batch.keys if key.rsplit("_", 1)[0] in sessions])
        metrics["rollout/left_out_for_infrastructure"] = len(faulty)
        grafts = GraftTable(batch)
        cap, negatives = self._settings.saar.graft_weight_cap, self._settings.negatives
        metrics.update(grafts.weight_metrics(cap))
        metrics.update(grafts.log_prob_differences())
        correction: dict[str, Any] = {}
        if self._strategy.graft_credit == "mask":
            grafts.exclude_grafts()
        elif self._strategy.graft_credit == "importance":
            path = "algorithm.rollout_correction"
            # Where the user asks for weights of all tokens, those of grafts are among them.
            if OmegaConf.select(self.config, f"{path}.rollout_is") is None:
                grafts.weigh_grafts_only()
                correction = {f"{path}.rollout_is": "token", f"{path}.rollout_is_threshold": cap}
        penalty = self._settings.failure_penalty
        keep = not self.config.algorithm.use_kl_in_reward
        with (
            self._overridden(correction) if correction else nullcontext(),
            penalised(batch, penalty, metrics, keep=keep) if penalty else nullcontext(),
        ):
            batch = super()._compute_advantage(batch, metrics)
        if self._strategy.graft_credit in TERMS:
            metrics.update(grafts.add_terms(self._settings.saar))
        if negatives.dpo:
            ratio = negatives.dpo_max_adjustment_ratio
            metrics.update(grafts.prefer_accepted_calls(negatives.dpo_beta, ratio))
        return batch

    def _compute_metrics(
        self,
        batch: KVBatchMeta,
        metrics: dict[str, Any],
        timing_raw: dict[str, float],
        global_steps: int,
        epoch: int,
    ) -> None:
        # Samples of repairs are no trajectories: lengths, rewards and turns are of trajectories.
        trajectories = without(batch, negative_keys(batch))
        super()._compute_metrics(trajectories, metrics, timing_raw, global_steps, epoch)


def _row_metrics(
    rows: list[dict[str, Any]], unselected: list[dict[str, Any]] | None = None
) -> dict[str, float]:
    """Accuracy, reward, and the statistics of tool calls and rollbacks over `rows`."""
    accuracies = [row["header"]["accuracy"] for row in rows if row["header"]["accuracy"] is not None]
    metrics = aggregate([row["saar"] for row in rows if row["saar"] is not None], unselected or [])
    metrics.update(trajectory_shares(rows))
    if accuracies:
        metrics["accuracy"] = float(np.mean(accuracies))
    if rows:
        metrics["reward"] = float(np.mean([row["header"]["reward"] for row in rows]))
    return metrics


def _trained_tokens(batch: KVBatchMeta) -> int:
    """Tokens of the batch that the loss looks at, those of negative samples included."""
    keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
    if not keys:
        return 0
    masks = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["response_mask"])
    return sum(int(mask.sum()) for mask in masks["response_mask"].unbind())


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
