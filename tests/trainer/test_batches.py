"""Batches as the trainer reads, orders and edits them, in a real TransferQueue."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transfer_queue as tq
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from cleaner.replay_buffer import OrderedReplayBuffer, in_dataset_order
from cleaner.trainer import CleanerTrainer, _leave_out
from cleaner.trajectory_rows import column_values, read_rows, without

# (uid, dataset row, sample): in the order in which they finished.
FINISHED = [("b", 7, 1), ("a", 3, 1), ("b", 7, 0), ("a", 3, 0)]


@pytest.fixture
def batch(transfer_queue: None) -> Iterator[KVBatchMeta]:
    keys = [f"{uid}_{session}_0" for uid, _, session in FINISHED]
    fields = [
        {
            "uid": uid,
            "index": index,
            "session_id": session,
            "data_source": "test",
            "rm_scores": torch.tensor([0.0] * length + [float(session)]),
            "response_mask": torch.ones(length + 1, dtype=torch.int64),
            "loss_mask": torch.ones(length + 1, dtype=torch.int64),
            "extra_fields": {"saar": {"infrastructure": 0}, "reward_extra_info": {"acc": session}},
        }
        for length, (uid, index, session) in enumerate(FINISHED, start=2)
    ]
    tags = [{"status": "success"} for _ in keys]
    tq.kv_batch_put(keys=keys, fields=list_of_dict_to_tensordict(fields), tags=tags, partition_id="train")
    yield KVBatchMeta(partition_id="train", keys=keys, tags=[{"number": i} for i in range(4)])
    tq.kv_clear(keys=keys, partition_id="train")


def test_a_batch_is_sorted_by_dataset_row_and_sample_whatever_finished_first(batch: KVBatchMeta) -> None:
    ordered = in_dataset_order(batch)
    assert ordered.keys == ["a_0_0", "a_1_0", "b_0_0", "b_1_0"]
    assert [tag["number"] for tag in ordered.tags] == [3, 1, 2, 0]


def test_the_wrapped_buffer_is_asked_and_its_batch_screened_in_order(batch: KVBatchMeta) -> None:
    class Inner:
        poll_interval = 0.5

        def sample(self, **asked: Any) -> tuple[KVBatchMeta, dict[str, Any]]:
            return batch, {**asked, "off_policy": 0, "dropped": 5}

    seen: list[tuple[list[str], int, int]] = []

    def screen(sampled: KVBatchMeta, step: int, prompts: int) -> tuple[KVBatchMeta, dict[str, float]]:
        seen.append((list(sampled.keys), step, prompts))
        return without(sampled, ["a_1_0"]), {"dropped": 1.0}

    buffer = OrderedReplayBuffer(Inner(), screen)
    left, metrics = buffer.sample(global_steps=9, partition_id="train", batch_size=2)
    assert seen == [(["a_0_0", "a_1_0", "b_0_0", "b_1_0"], 9, 2)]
    assert left.keys == ["a_0_0", "b_0_0", "b_1_0"]
    # The screen's metrics stand beside the buffer's, and above them.
    assert metrics == {
        "global_steps": 9, "partition_id": "train", "batch_size": 2, "off_policy": 0, "dropped": 1.0,
    }  # fmt: skip
    assert buffer.poll_interval == 0.5


def test_rows_carry_reward_accuracy_and_statistics_and_leave_padding_out(batch: KVBatchMeta) -> None:
    batch.tags[0]["is_padding"] = True
    rows = read_rows(batch)
    assert [row["key"] for row in rows] == ["a_1_0", "b_0_0", "a_0_0"]
    assert rows[0]["header"] == {
        "uid": "a", "index": 3, "session": 1, "data_source": "test", "reward": 1.0, "accuracy": 1.0,
    }  # fmt: skip
    assert rows[0]["saar"] == {"infrastructure": 0} and rows[0]["trajectory"] is None
    assert rows[0]["negatives"] == []


def test_negative_samples_are_no_rows_and_share_the_key_of_their_trajectory(batch: KVBatchMeta) -> None:
    # Of the rows b_1_0 and, as if it were the same session's, b_1_9 the last is the trajectory.
    data = tq.kv_batch_get(keys=["b_1_0"], partition_id="train")
    tq.kv_batch_put(keys=["b_1_9"], fields=data, tags=[{"status": "success"}], partition_id="train")
    both = KVBatchMeta(partition_id="train", keys=["b_1_0", "b_1_9", "a_0_0"], tags=[{}, {}, {}])
    assert [row["key"] for row in read_rows(both)] == ["b_1_9", "a_0_0"]
    tq.kv_clear(keys=["b_1_9"], partition_id="train")


def test_a_trajectory_left_out_has_no_mask_and_a_group_of_its_own(batch: KVBatchMeta) -> None:
    _leave_out(batch, ["b_0_0"])
    names = ["uid", "response_mask", "loss_mask"]
    data = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=names)
    assert column_values(data["uid"]) == ["b", "a", "infrastructure-b_0_0", "a"]
    for name in ("response_mask", "loss_mask"):
        assert [int(mask.sum()) for mask in data[name].unbind()] == [3, 4, 0, 6]


def make_trainer(*overrides: str) -> CleanerTrainer:
    """A trainer of 8 prompts x 3 samples in two updates, on two ranks; only its configuration is made."""
    trainer = CleanerTrainer.__new__(CleanerTrainer)
    with initialize_config_module("cleaner.config", version_base=None):
        trainer.config = compose(
            "cleaner",
            overrides=[
                "actor_rollout_ref.rollout.name=hf_server",
                "actor_rollout_ref.rollout.n=3",
                "data.train_batch_size=8",
                "actor_rollout_ref.actor.ppo_mini_batch_size=4",
                "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
                "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
                "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=1",
                "trainer.n_gpus_per_node=2",
                *overrides,
            ],
        )
    trainer.use_critic, trainer.global_steps = False, 1
    return trainer


def batch_with(negatives: int, padding: int = 0) -> KVBatchMeta:
    """The keys of 24 trajectories and as many negative samples as asked for, of the first ones."""
    keys = [f"{uid}_{session}_{negatives}" for uid in "abcdefgh" for session in range(3)]
    keys += [f"{keys[i % 24].rsplit('_', 1)[0]}_{i // 24}" for i in range(negatives)]
    tags = [{"seq_len": 5 + i % 7} for i in range(len(keys))]
    keys += [f"pad_{i}_0" for i in range(padding)]
    tags += [{"seq_len": 1, "is_padding": True} for _ in range(padding)]
    return KVBatchMeta(partition_id="train", keys=keys, tags=tags)


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """What upstream's methods see of each batch that is balanced and trained."""
    seen: list[dict[str, int]] = []

    def balance(trainer: CleanerTrainer, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        return batch

    def update(trainer: CleanerTrainer, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        config = trainer.config.actor_rollout_ref
        seen.append({"mini": config.actor.ppo_mini_batch_size, "n": config.rollout.n, "rows": len(batch)})
        return batch

    monkeypatch.setattr(PPOTrainerSync, "_balance_batch", balance)
    monkeypatch.setattr(PPOTrainerSync, "_update_actor", update)
    return seen


@pytest.mark.parametrize("negatives", [1, 5, 24, 47])
def test_negative_samples_make_updates_larger_and_no_more_of_them(
    updates: list[dict[str, int]], negatives: int
) -> None:
    trainer = make_trainer()
    trainer._balance_batch(batch_with(negatives), {})
    multiple = trainer._get_required_batch_multiple(dp_size=2)
    config, written = trainer.config, copy.deepcopy(trainer.config)
    batch = batch_with(negatives, padding=-(24 + negatives) % multiple)
    assert trainer._update_actor(batch, {}) is batch
    [seen] = updates
    rows_per_update = seen["mini"] * seen["n"]
    # Two updates, each of equal, whole micro-batches on each of the two ranks.
    assert seen["rows"] == 2 * rows_per_update and rows_per_update % (2 * 4) == 0
    # Less padding than an update of upstream's has rows.
    assert seen["rows"] - 24 - negatives < multiple == 16
    assert trainer.config is config and config == written


def test_without_negative_samples_the_update_is_upstreams(updates: list[dict[str, int]]) -> None:
    trainer = make_trainer()
    trainer._balance_batch(batch_with(3), {})
    # The next batch has none, but padding.
    trainer._balance_batch(batch_with(0, padding=12), {})
    assert trainer._get_required_batch_multiple(dp_size=2) == 12
    trainer._update_actor(batch_with(0, padding=12), {})
    assert updates == [{"mini": 4, "n": 3, "rows": 36}]


def test_a_mini_batch_larger_than_the_batch_is_one_update(updates: list[dict[str, int]]) -> None:
    trainer = make_trainer("actor_rollout_ref.actor.ppo_mini_batch_size=32")
    trainer._balance_batch(batch_with(8), {})
    assert trainer._get_required_batch_multiple(dp_size=2) == 8
    trainer._update_actor(batch_with(8), {})
    assert updates == [{"mini": 32, "n": 1, "rows": 32}]


def test_upstreams_metrics_are_of_trajectories_not_of_negative_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(
        PPOTrainerSync, "_compute_metrics", lambda trainer, batch, *_: seen.append(batch.keys)
    )
    batch = batch_with(5, padding=3)
    make_trainer()._compute_metrics(batch, {}, {}, 1, 0)
    assert seen == [batch.keys[:24] + batch.keys[29:]]


def test_a_checkpoint_that_cannot_be_saved_leaves_the_last_whole_one_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(trainer: CleanerTrainer) -> None:
        (tmp_path / "checkpoints" / "global_step_7" / "actor").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PPOTrainerSync, "_save_checkpoint", disk_full)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("5")
    trainer = CleanerTrainer.__new__(CleanerTrainer)
    trainer.config = OmegaConf.create({"trainer": {"default_local_dir": str(tmp_path / "checkpoints")}})
    trainer.global_steps = 7
    with pytest.raises(
        RuntimeError, match=r"step 7 could not be saved.*No space left.*step 5 is the last whole one"
    ):
        trainer._save_checkpoint()
    assert not (tmp_path / "checkpoints" / "global_step_7").exists()
