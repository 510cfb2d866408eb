"""What is taken out of a batch before the trainer sees it, in a real TransferQueue."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from cleaner.batch_screen import BatchScreen
from cleaner.failures import FailureMonitor, TooManyFailures
from cleaner.saar.statistics import TrajectoryStatistics
from cleaner.saar.strategy import make_strategy
from cleaner.trajectory_rows import negative_keys, trajectory_keys, without

FAILURE = {"type": "KeyError", "message": "'x'", "where": "here:1 in f", "traceback": "..."}


def fields_of(uid: str, session: int, reward: float, extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "uid": uid,
        "index": ord(uid),
        "session_id": session,
        "data_source": "test",
        "rm_scores": torch.tensor([0.0, reward]),
        "extra_fields": extra,
    }


def trajectory(uid: str, session: int, reward: float, tokens: int = 10) -> dict[str, Any]:
    statistics = TrajectoryStatistics(sampled_tokens=tokens, calls=2, calls_ok=2)
    return fields_of(uid, session, reward, {"saar": statistics.to_dict()})


@pytest.fixture
def put(transfer_queue: None) -> Iterator[Callable[..., KVBatchMeta]]:
    stored: list[tuple[str, str]] = []

    def put_rows(
        rows: dict[str, dict[str, Any]], failed: tuple[str, ...] = (), partition: str = "train"
    ) -> KVBatchMeta:
        keys = list(rows)
        tags = [
            {"status": "success", "global_steps": 3, **({"failed": True} if k in failed else {})}
            for k in keys
        ]
        fields = list_of_dict_to_tensordict(list(rows.values()))
        tq.kv_batch_put(keys=keys, fields=fields, tags=tags, partition_id=partition)
        stored.extend((partition, key) for key in keys)
        return KVBatchMeta(partition_id=partition, keys=keys, tags=tags)

    yield put_rows
    for partition, key in stored:
        tq.kv_clear(keys=[key], partition_id=partition)


def screen_of(tmp_path: Path, strategy: str = "none", **settings: Any) -> BatchScreen:
    monitor = FailureMonitor(tmp_path / "failures.jsonl", settings.pop("max_share", 0.5), strict=False)
    options = {"trained": 2, "validated": 1, "max_negatives": None, "seed": 1, **settings}
    return BatchScreen(make_strategy({"strategy": strategy}), monitor, **options)


def left(partition: str = "train") -> set[str]:
    return set((tq.kv_list(partition_id=partition) or {}).get(partition, {}))


def test_roc_keeps_n_of_a_group_and_accounts_for_the_rest(put: Any, tmp_path: Path) -> None:
    rows = {f"{uid}_{i}_0": trajectory(uid, i, float(i % 2), tokens=10 + i) for uid in "ab" for i in range(4)}
    screen = screen_of(tmp_path, "roc")
    kept, metrics = screen.screen(put(rows), step=3, prompts=2)
    assert sorted(key[0] for key in kept.keys) == ["a", "a", "b", "b"]
    assert metrics["rollout/unselected_trajectories"] == 4 and metrics["rollout/failed_trajectories"] == 0
    dropped = set(rows) - set(kept.keys)
    expected = sorted(rows[key]["extra_fields"]["saar"]["sampled_tokens"] for key in dropped)
    assert sorted(counts["sampled_tokens"] for counts in screen.unselected) == expected
    assert left() & set(rows) == set(kept.keys), "what is dropped is cleared"
    again, _ = screen_of(tmp_path, "roc").screen(put(rows), step=3, prompts=2)
    assert again.keys == kept.keys


def test_validation_batches_are_not_selected(put: Any, tmp_path: Path) -> None:
    rows = {f"a_{i}_0": trajectory("a", i, 1.0) for i in range(4)}
    batch, metrics = screen_of(tmp_path, "roc", validated=4).screen(put(rows, partition="val"), 3, 1)
    assert batch.keys == list(rows) and "rollout/unselected_trajectories" not in metrics


def test_failed_trajectories_are_taken_out_counted_and_recorded(put: Any, tmp_path: Path) -> None:
    rows = {"a_0_0": trajectory("a", 0, 1.0), "a_1_0": fields_of("a", 1, 0.0, {"failure": FAILURE})}
    batch, metrics = screen_of(tmp_path).screen(put(rows, failed=("a_1_0",)), step=3, prompts=1)
    assert batch.keys == ["a_0_0"]
    assert metrics["rollout/failed_trajectories"] == 1 and metrics["rollout/failed_share"] == 0.5
    assert metrics["rollout/failure/KeyError"] == 1
    assert '"KeyError"' in (tmp_path / "failures.jsonl").read_text()


def test_too_many_failures_end_the_run(put: Any, tmp_path: Path) -> None:
    rows = {"a_0_0": trajectory("a", 0, 1.0), "a_1_0": fields_of("a", 1, 0.0, {"failure": FAILURE})}
    with pytest.raises(TooManyFailures, match=r"max_share=0\.4"):
        screen_of(tmp_path, max_share=0.4).screen(put(rows, failed=("a_1_0",)), step=3, prompts=1)


def with_negatives() -> dict[str, dict[str, Any]]:
    rows = {}
    for uid in "ab":
        for session in range(2):
            for number in range(2):
                extra = {"negative_of": number}
                rows[f"{uid}_{session}_{number}"] = fields_of(uid, session, 0.0, extra)
            rows[f"{uid}_{session}_2"] = trajectory(uid, session, 1.0)
    return rows


def test_a_group_keeps_no_more_negative_samples_than_it_may(put: Any, tmp_path: Path) -> None:
    rows = with_negatives()
    batch, metrics = screen_of(tmp_path, max_negatives=3).screen(put(rows), step=3, prompts=2)
    assert negative_keys(batch) == ["a_0_0", "a_0_1", "a_1_0", "b_0_0", "b_0_1", "b_1_0"]
    assert trajectory_keys(batch) == ["a_0_2", "a_1_2", "b_0_2", "b_1_2"]
    assert metrics["rollout/failed_trajectories"] == 0
    assert left() & set(rows) == set(batch.keys)
    all_kept, _ = screen_of(tmp_path).screen(put(rows), step=3, prompts=2)
    assert len(negative_keys(all_kept)) == 8


def test_without_leaves_the_rest_in_order() -> None:
    batch = KVBatchMeta(partition_id="train", keys=["a_0_0", "a_0_1", "b_0_0"], tags=[{}, {}, {}])
    assert without(batch, ["a_0_0"]).keys == ["a_0_1", "b_0_0"] and without(batch, []) is batch
    assert negative_keys(batch) == ["a_0_0"]
