"""Batches as the trainer reads, orders and edits them, in a real TransferQueue."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from cleaner.replay_buffer import OrderedReplayBuffer, in_dataset_order
from cleaner.trainer import CleanerTrainer, _leave_out
from cleaner.trajectory_rows import column_values, read_rows

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

        def sample(self, **kwargs: Any) -> tuple[KVBatchMeta, dict[str, Any]]:
            return batch, kwargs

    seen: list[tuple[list[str], int, int]] = []

    def screen(sampled: KVBatchMeta, step: int, prompts: int) -> tuple[KVBatchMeta, dict[str, float]]:
        seen.append((list(sampled.keys), step, prompts))
        return sampled.select_keys(sampled.keys[1:]), {"screened": 1.0}

    buffer = OrderedReplayBuffer(Inner(), screen)
    sampled, metrics = buffer.sample(global_steps=3, partition_id="train", batch_size=2)
    assert seen == [(["a_0_0", "a_1_0", "b_0_0", "b_1_0"], 3, 2)]
    assert sampled.keys == ["a_1_0", "b_0_0", "b_1_0"]
    assert metrics == {"global_steps": 3, "partition_id": "train", "batch_size": 2, "screened": 1.0}
    assert buffer.poll_interval == 0.5


def test_rows_carry_reward_accuracy_and_statistics_and_leave_padding_out(batch: KVBatchMeta) -> None:
    batch.tags[0]["is_padding"] = True
    rows = read_rows(batch)
    assert [row["key"] for row in rows] == ["a_1_0", "b_0_0", "a_0_0"]
    assert rows[0]["header"] == {
        "uid": "a", "index": 3, "session": 1, "data_source": "test", "reward": 1.0, "accuracy": 1.0,
    }  # fmt: skip
    assert rows[0]["saar"] == {"infrastructure": 0} and rows[0]["trajectory"] is None


def test_a_trajectory_left_out_has_no_mask_and_a_group_of_its_own(batch: KVBatchMeta) -> None:
    _leave_out(batch, ["b_0_0"])
    names = ["uid", "response_mask", "loss_mask"]
    data = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=names)
    assert column_values(data["uid"]) == ["b", "a", "infrastructure-b_0_0", "a"]
    for name in ("response_mask", "loss_mask"):
        assert [int(mask.sum()) for mask in data[name].unbind()] == [3, 4, 0, 6]


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
