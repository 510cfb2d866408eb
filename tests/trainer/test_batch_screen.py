"""What is taken out of a batch before it is trained, in a real TransferQueue; failure rows are the worker's."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from cleaner.batch_screen import BatchScreen
from cleaner.failures import FailureMonitor, TooManyFailures
from cleaner.replay_buffer import in_dataset_order
from cleaner.rollout_worker import CleanerAgentLoopWorker
from cleaner.saar.statistics import TrajectoryStatistics
from cleaner.saar.strategy import NoStrategy, ResampleOnCorrect, Saar, Strategy
from cleaner.trajectory_rows import negative_keys, read_rows, trajectory_keys, without

TRAINED, VALIDATED = 2, 3
STEP = 4


@dataclass
class Group:
    """A prompt's trajectories: a reward each, None where it fails; and the number of each one's negative samples."""

    uid: str
    rewards: list[float | None]
    negatives: list[int] = field(default_factory=list)

    def put(self, index: int, partition: str) -> None:
        keys, rows, tags = [], [], []
        for session, reward in enumerate(self.rewards):
            given = {"uid": self.uid, "session_id": session, "index": index, "data_source": "test"}
            if reward is None:
                put_failure(partition, {**given, "global_steps": STEP})
                continue
            # Of ten calls as many fail as the session's number is, which also tells its statistics apart.
            statistics = TrajectoryStatistics(calls=10, calls_ok=10 - session, sampled_tokens=100 + session)
            negatives = self.negatives[session] if self.negatives else 0
            for number in range(negatives + 1):
                keys.append(f"{self.uid}_{session}_{number}")
                is_negative = number < negatives
                extra = {"negative_of": number} if is_negative else {"saar": statistics.to_dict()}
                rows.append({**given, "rm_scores": torch.tensor([0.0, reward]), "extra_fields": extra})
                tags.append({"status": "success", "global_steps": STEP})
        if keys:
            fields = list_of_dict_to_tensordict(rows)
            tq.kv_batch_put(keys=keys, fields=fields, tags=tags, partition_id=partition)


def put_failure(partition: str, given: dict[str, Any]) -> None:
    worker = CleanerAgentLoopWorker.__new__(CleanerAgentLoopWorker)
    worker.tokenizer = SimpleNamespace(eos_token_id=0)
    asyncio.run(worker._put_failure(LookupError("no such page"), partition, given))


@pytest.fixture
def put(transfer_queue: None) -> Iterator[Callable[..., KVBatchMeta]]:
    """Stores groups and lists them as verl's replay buffer does, in the trainer's order."""

    def clear() -> None:
        for partition, keys in tq.kv_list().items():
            if keys:
                tq.kv_clear(keys=list(keys), partition_id=partition)

    def put(*groups: Group, partition: str = "train") -> KVBatchMeta:
        clear()
        for index, group in enumerate(groups):
            group.put(index, partition)
        listed = tq.kv_list(partition)[partition]
        meta = KVBatchMeta(keys=list(listed), tags=list(listed.values()), partition_id=partition)
        return in_dataset_order(meta)

    yield put
    clear()


def make_screen(
    folder: Path, strategy: Strategy, *, max_negatives: int | None = None, seed: int = 1
) -> BatchScreen:
    monitor = FailureMonitor(folder / "failures.jsonl", max_share=1.0, strict=False)
    return BatchScreen(
        strategy,
        monitor,
        trained=TRAINED,
        validated=VALIDATED,
        max_negatives=max_negatives,
        seed=seed,
    )


def in_queue(partition: str = "train") -> list[str]:
    return sorted(tq.kv_list(partition).get(partition, {}))


def sessions_of(batch: KVBatchMeta, uid: str) -> list[int]:
    return [int(key.rsplit("_", 2)[1]) for key in batch.keys if key.startswith(f"{uid}_")]


FOUR_OF_EACH = (Group("u", [1.0, 0.0, 1.0, 0.0]), Group("v", [1.0, 1.0, 1.0, 1.0]))


def test_of_each_group_as_many_are_kept_as_are_trained_and_the_rest_is_cleared(
    put: Any, tmp_path: Path
) -> None:
    screen = make_screen(tmp_path, ResampleOnCorrect(oversample=2.0))
    batch = put(*FOUR_OF_EACH)
    statistics = {row["key"]: row["saar"] for row in read_rows(batch)}
    kept, metrics = screen.screen(batch, STEP, prompts=2)
    assert Counter(key[0] for key in kept.keys) == {"u": TRAINED, "v": TRAINED}
    # Half of group u succeeded, so half of what is kept did.
    assert {FOUR_OF_EACH[0].rewards[session] for session in sessions_of(kept, "u")} == {0.0, 1.0}
    assert in_queue() == sorted(kept.keys)
    assert metrics == {
        "rollout/failed_trajectories": 0, "rollout/failed_share": 0.0, "rollout/unselected_trajectories": 4,
    }  # fmt: skip
    dropped = [key for key in statistics if key not in kept.keys]
    assert screen.unselected == [statistics[key] for key in dropped] and len(dropped) == 4


def test_what_is_kept_keeps_its_order_its_tags_and_its_rows(put: Any, tmp_path: Path) -> None:
    batch = put(*FOUR_OF_EACH)
    rows = {row["key"]: row for row in read_rows(batch)}
    tags = dict(zip(batch.keys, batch.tags, strict=True))
    kept, _ = make_screen(tmp_path, ResampleOnCorrect()).screen(batch, STEP, prompts=2)
    assert kept.keys == [key for key in rows if key in kept.keys]
    assert kept.tags == [tags[key] for key in kept.keys]
    assert read_rows(kept) == [rows[key] for key in kept.keys]


def test_one_seed_gives_one_selection_and_another_seed_another(put: Any, tmp_path: Path) -> None:
    def kept(seed: int, step: int = STEP) -> list[str]:
        screen = make_screen(tmp_path, ResampleOnCorrect(), seed=seed)
        return screen.screen(put(*FOUR_OF_EACH), step, prompts=2)[0].keys

    assert kept(1) == kept(1)
    assert len({tuple(kept(seed)) for seed in range(6)}) > 1
    assert len({tuple(kept(1, step)) for step in range(6)}) > 1


def test_failures_are_taken_out_and_counted_before_the_strategy_selects(put: Any, tmp_path: Path) -> None:
    screen = make_screen(tmp_path, ResampleOnCorrect(oversample=2.0))
    groups = (Group("u", [1.0, None, 0.0, 1.0]), Group("v", [None, 1.0, None, 0.0]))
    kept, metrics = screen.screen(put(*groups), STEP, prompts=2)
    # Three of u are left to choose from, and two of v, which are no more than are trained.
    assert len(sessions_of(kept, "u")) == 2 and sessions_of(kept, "v") == [1, 3]
    assert metrics == {
        "rollout/failed_trajectories": 3, "rollout/failed_share": 3 / 8, "rollout/failure/LookupError": 3,
        "rollout/unselected_trajectories": 1,
    }  # fmt: skip
    assert in_queue() == sorted(kept.keys)
    lines = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert [(line["uid"], line["session"], line["step"]) for line in lines] == [
        ("u", 1, 4), ("v", 0, 4), ("v", 2, 4),
    ]  # fmt: skip


def test_a_batch_of_failures_ends_the_run(put: Any, tmp_path: Path) -> None:
    screen = make_screen(tmp_path, ResampleOnCorrect())
    with pytest.raises(TooManyFailures, match="Nothing is left of the batch"):
        screen.screen(put(Group("u", [None, None, None, None])), STEP, prompts=1)


def test_validation_batches_are_screened_for_failures_only(put: Any, tmp_path: Path) -> None:
    screen = make_screen(tmp_path, ResampleOnCorrect(), max_negatives=0)
    screen.screen(put(*FOUR_OF_EACH), STEP, prompts=2)
    unselected = list(screen.unselected)
    batch = put(Group("u", [1.0, 0.0, None], [1, 0, 0]), Group("v", [1.0, 1.0, 1.0]), partition="val")
    kept, metrics = screen.screen(batch, STEP, prompts=2)
    expected = ["u_0_0", "u_0_1", "u_1_0", "v_0_0", "v_1_0", "v_2_0"]
    assert kept.keys == expected == in_queue("val")
    assert metrics == {
        "rollout/failed_trajectories": 1, "rollout/failed_share": 1 / 6, "rollout/failure/LookupError": 1,
    }  # fmt: skip
    assert screen.unselected == unselected != []


def test_the_unselected_are_those_of_the_latest_batch(put: Any, tmp_path: Path) -> None:
    screen = make_screen(tmp_path, ResampleOnCorrect())
    screen.screen(put(*FOUR_OF_EACH), STEP, prompts=2)
    assert len(screen.unselected) == 4
    _, metrics = screen.screen(put(Group("u", [1.0, 0.0])), STEP + 1, prompts=1)
    assert screen.unselected == [] and metrics["rollout/unselected_trajectories"] == 0


@pytest.mark.parametrize("strategy", [NoStrategy(), Saar(), ResampleOnCorrect(oversample=1.0)])
def test_a_strategy_that_samples_what_it_trains_leaves_the_batch_alone(
    put: Any, tmp_path: Path, strategy: Strategy
) -> None:
    batch = put(*FOUR_OF_EACH)
    kept, metrics = make_screen(tmp_path, strategy).screen(batch, STEP, prompts=2)
    assert kept is batch and in_queue() == sorted(batch.keys)
    assert "rollout/unselected_trajectories" not in metrics


WITH_NEGATIVES = (Group("u", [1.0, 0.0], [2, 2]), Group("v", [1.0, None], [1, 0]))


@pytest.mark.parametrize(
    ("limit", "kept_negatives"),
    [
        (None, ["u_0_0", "u_0_1", "u_1_0", "u_1_1", "v_0_0"]),
        (3, ["u_0_0", "u_0_1", "u_1_0", "v_0_0"]),
        (1, ["u_0_0", "v_0_0"]),
        (0, []),
    ],
)
def test_no_more_negative_samples_of_a_group_are_kept_than_the_limit(
    put: Any, tmp_path: Path, limit: int | None, kept_negatives: list[str]
) -> None:
    batch = put(*WITH_NEGATIVES)
    kept, metrics = make_screen(tmp_path, Saar(), max_negatives=limit).screen(batch, STEP, prompts=2)
    assert negative_keys(kept) == kept_negatives
    assert trajectory_keys(kept) == ["u_0_2", "u_1_2", "v_0_1"]
    assert in_queue() == sorted(kept.keys)
    # A trajectory is one however many rows it gave.
    assert metrics["rollout/failed_share"] == 1 / 4


def test_of_each_sessions_rows_the_last_is_the_trajectory_and_the_others_are_negatives() -> None:
    keys = ["u_0_2", "u_0_10", "u_0_0", "a_b_1_0", "pad_0_0", "u_1_0"]
    tags = [{}, {}, {}, {}, {"is_padding": True}, {}]
    batch = KVBatchMeta(keys=keys, tags=tags, partition_id="train")
    assert trajectory_keys(batch) == ["u_0_10", "a_b_1_0", "u_1_0"]
    assert negative_keys(batch) == ["u_0_2", "u_0_0"]


def test_a_batch_without_some_keys_keeps_the_others_in_order_and_with_their_tags() -> None:
    tags = [{"number": i} for i in range(3)]
    batch = KVBatchMeta(keys=["u_0_0", "u_1_0", "v_0_0"], tags=tags, partition_id="train")
    rest = without(batch, ["u_1_0"])
    assert rest.keys == ["u_0_0", "v_0_0"] and [tag["number"] for tag in rest.tags] == [0, 2]
    assert rest.partition_id == "train" and len(batch) == 3
    assert without(batch, []) is batch
