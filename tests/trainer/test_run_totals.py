"""Totals of a run, which go on after a resume, and what a training step says and writes, with a real TransferQueue."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transfer_queue as tq
from hydra import compose, initialize_config_module
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from cleaner.run_totals import _SOURCES, RunTotals
from cleaner.saar.statistics import TrajectoryStatistics
from cleaner.trainer import CleanerTrainer

STEP = {source: float(number) for number, source in enumerate(_SOURCES.values(), start=1)}


def totals_of(times: int) -> dict[str, float]:
    """What the totals are after so many steps like STEP."""
    return {f"run_total/{name}": times * STEP[source] for name, source in _SOURCES.items()}


def test_each_step_is_added_to_the_totals() -> None:
    totals = RunTotals()
    assert totals.add(STEP) == totals_of(1)
    assert totals.add({**STEP, "reward": 7.0}) == totals_of(2)


def test_what_a_step_does_not_count_adds_nothing() -> None:
    totals = RunTotals()
    totals.add(STEP)
    assert totals.add({"reward": 1.0}) == totals_of(1)


def test_totals_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    first = RunTotals()
    first.add(STEP)
    first.add(STEP)
    first.save(tmp_path)
    resumed = RunTotals()
    resumed.load(tmp_path)
    assert resumed.add(STEP) == totals_of(3)
    # What was saved is what was saved, whatever came after.
    again = RunTotals()
    again.load(tmp_path)
    assert again.add({}) == totals_of(2)


def test_a_checkpoint_without_totals_is_accepted(tmp_path: Path) -> None:
    totals = RunTotals()
    totals.load(tmp_path)
    assert totals.add(STEP) == totals_of(1)


def test_totals_of_a_checkpoint_that_knows_fewer_or_others_are_taken_over(tmp_path: Path) -> None:
    first = RunTotals()
    first.add(STEP)
    first.save(tmp_path)
    [path] = tmp_path.iterdir()
    known = json.loads(path.read_text())
    del known["tool_calls"]
    path.write_text(json.dumps({**known, "of_another_version": 5.0}))
    totals = RunTotals()
    totals.load(tmp_path)
    assert totals.add({}) == {**totals_of(1), "run_total/tool_calls": 0.0}


def make_trainer(folder: Path, *overrides: str) -> CleanerTrainer:
    """A trainer of which all is made that needs neither a model nor workers."""
    trainer = CleanerTrainer.__new__(CleanerTrainer)
    with initialize_config_module("cleaner.config", version_base=None):
        trainer.config = compose(
            "cleaner",
            overrides=[
                f"cleaner.output_dir={folder}",
                "actor_rollout_ref.rollout.name=hf_server",
                "actor_rollout_ref.rollout.multi_turn.enable=true",
                "cleaner.strategy=saar",
                *overrides,
            ],
        )
    trainer.trainer_mode = "cleaner_sync"
    trainer.replay_buffer = trainer._build_replay_buffer()
    trainer.global_steps = 0
    return trainer


@pytest.fixture
def checkpoints_of_verl(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """verl's part of saving and loading, without a model; the step that a resumed run finds is `step`."""
    found = {"step": 0}

    def save(trainer: CleanerTrainer) -> None:
        (trainer._checkpoint_folder() / "actor").mkdir(parents=True)

    def load(trainer: CleanerTrainer) -> None:
        trainer.global_steps = found["step"]

    monkeypatch.setattr(PPOTrainerSync, "_save_checkpoint", save)
    monkeypatch.setattr(PPOTrainerSync, "_load_checkpoint", load)
    return found


def test_a_resumed_run_finds_the_totals_of_the_checkpoint_that_it_resumes_from(
    tmp_path: Path, checkpoints_of_verl: dict[str, int]
) -> None:
    trainer = make_trainer(tmp_path)
    for step in (1, 2, 3):
        trainer.global_steps = step
        trainer._totals.add(STEP)
        trainer._save_checkpoint()

    checkpoints_of_verl["step"] = 3
    resumed = make_trainer(tmp_path)
    resumed._load_checkpoint()
    assert resumed._totals.add(STEP) == totals_of(4)

    # By path, an earlier one, into another run's folder.
    checkpoints_of_verl["step"] = 2
    by_path = make_trainer(
        tmp_path / "other",
        "trainer.resume_mode=resume_path",
        f"trainer.resume_from_path={tmp_path}/checkpoints/global_step_2",
    )
    by_path._load_checkpoint()
    assert by_path._totals.add(STEP) == totals_of(3)


def test_a_new_run_and_one_that_resumes_from_another_programs_checkpoint_begin_at_zero(
    tmp_path: Path, checkpoints_of_verl: dict[str, int]
) -> None:
    for step in (0, 5):
        checkpoints_of_verl["step"] = step
        trainer = make_trainer(tmp_path)
        trainer._load_checkpoint()
        assert trainer._totals.add(STEP) == totals_of(1)


def pair(text: str) -> dict[str, Any]:
    return {
        "prompt": f"p {text}", "chosen": f"c {text}", "rejected": f"r {text}", "decision": "shallow",
        "similarity": 0.9, "turn": 0, "error": None,
    }  # fmt: skip


# Key -> texts of the trajectory's pairs; u_0_0 is a negative sample of the trajectory u_0_1.
ROWS = {"u_0_0": [], "u_0_1": ["a", "b"], "u_1_0": ["c", "d"], "v_0_0": ["e"], "v_1_0": []}


@pytest.fixture
def batch(transfer_queue: None) -> Iterator[KVBatchMeta]:
    fields = []
    for number, (key, texts) in enumerate(ROWS.items()):
        uid, session, _ = key.split("_")
        # A rolled-back turn for each pair.
        counts = TrajectoryStatistics(
            calls=4, calls_ok=3, sampled_tokens=100, lookahead_tokens=10, discarded_tokens=5
        )
        counts.triggered.update({"TypeError": len(texts)})
        counts.recovered.update({"TypeError": len(texts)})
        extra = {
            "saar": counts.to_dict(),
            "reward_extra_info": {"acc": 1.0},
            "trajectory": {"prompt": key, "segments": [], "repairs": []},
            "negatives": [pair(text) for text in texts],
        }
        fields.append(
            {
                "uid": uid, "index": ord(uid), "session_id": int(session), "data_source": "test",
                "rm_scores": torch.tensor([0.0, float(number)]),
                "response_mask": torch.tensor([0] + [1] * (number + 1)),
                "extra_fields": {"negative_of": 0} if key == "u_0_0" else extra,
            }
        )  # fmt: skip
    keys = list(ROWS)
    tags = [{"status": "success"} for _ in keys]
    tq.kv_batch_put(keys=keys, fields=list_of_dict_to_tensordict(fields), tags=tags, partition_id="train")
    padding = {"is_padding": True}
    yield KVBatchMeta(partition_id="train", keys=[*keys, "pad_0_0"], tags=[*tags, padding])
    tq.kv_clear(keys=keys, partition_id="train")


@pytest.fixture
def step(batch: KVBatchMeta, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs a step whose upstream part gives the batch and counts a failed trajectory; returns its metrics."""

    def upstream(trainer: CleanerTrainer, metrics: dict[str, Any], timing: dict[str, float]) -> KVBatchMeta:
        metrics["rollout/failed_trajectories"] = 1
        return batch

    monkeypatch.setattr(PPOTrainerSync, "step", upstream)

    def step(trainer: CleanerTrainer) -> dict[str, Any]:
        trainer.global_steps += 1
        metrics: dict[str, Any] = {}
        assert trainer.step(metrics, {}) is batch
        return metrics

    return step


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_step_says_its_counts_and_those_of_the_run(step: Any, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    for number in (1, 2):
        metrics = step(trainer)
        # Four trajectories; the negative sample and the padding are none.
        assert metrics["tool_calls/total"] == 16 and metrics["rollback/triggered"] == 5
        assert metrics["rollback/generated_tokens"] == 440 and metrics["rollback/discarded_tokens"] == 20
        assert metrics["reward"] == (1 + 2 + 3 + 4) / 4 and metrics["accuracy"] == 1.0
        assert metrics["run_total/tool_calls"] == 16 * number
        assert metrics["run_total/rolled_back_turns"] == metrics["run_total/recovered_turns"] == 5 * number
        assert metrics["run_total/generated_tokens"] == 440 * number
        assert metrics["run_total/failed_trajectories"] == number
        # The negative sample's are trained too.
        assert metrics["trained_tokens"] == 1 + 2 + 3 + 4 + 5
        assert metrics["run_total/trained_tokens"] == 15 * number
    assert not (tmp_path / "negatives.jsonl").exists() and not (tmp_path / "trajectories.jsonl").exists()


def test_a_budget_has_upstreams_loop_validate_save_and_end(step: Any, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "cleaner.budget.tokens=1760", "cleaner.budget.validations=2")
    trainer.config.trainer.save_freq, trainer.total_training_steps = 1000, 1000
    seen = []
    for number in (1, 2, 3, 4):
        step(trainer)
        validates = number % trainer.config.trainer.test_freq == 0
        seen.append((validates, trainer.config.trainer.save_freq, trainer.total_training_steps))
    assert seen == [(False, 1000, 1000), (True, 1000, 1000), (False, 1000, 1000), (True, 1, 4)]


def test_tokens_of_unselected_trajectories_are_generated_and_discarded(step: Any, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer._screen.unselected = [TrajectoryStatistics(sampled_tokens=60, lookahead_tokens=7).to_dict()]
    metrics = step(trainer)
    assert metrics["rollback/generated_tokens"] == metrics["run_total/generated_tokens"] == 440 + 67
    assert metrics["rollback/discarded_tokens"] == metrics["run_total/discarded_tokens"] == 20 + 67
    assert metrics["tool_calls/total"] == 16


def test_recorded_trajectories_are_logged_with_their_step(step: Any, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "cleaner.record=true")
    step(trainer)
    lines = read_lines(tmp_path / "trajectories.jsonl")
    assert [line["prompt"] for line in lines] == ["u_0_1", "u_1_0", "v_0_0", "v_1_0"]
    assert {(line["phase"], line["step"]) for line in lines} == {("train", 1)}


@pytest.mark.parametrize(
    ("limit", "kept"),
    [("null", ["a", "b", "c", "d", "e"]), ("3", ["a", "b", "c", "e"]), ("1", ["a", "e"]), ("0", [])],
)
def test_of_each_group_and_step_no_more_pairs_are_saved_than_the_limit(
    step: Any, tmp_path: Path, limit: str, kept: list[str]
) -> None:
    trainer = make_trainer(
        tmp_path, "cleaner.negatives.save=true", f"cleaner.negatives.max_per_group={limit}"
    )
    step(trainer)
    step(trainer)
    path = tmp_path / "negatives.jsonl"
    lines = read_lines(path) if path.exists() else []
    expected = [(number, f"r {text}") for number in (1, 2) for text in kept]
    assert [(line["step"], line["rejected"]) for line in lines] == expected
    for line in lines[:1]:
        assert line == {
            "schema": 1, "step": 1, "uid": "u", "index": ord("u"), "session": 0, "data_source": "test",
            "reward": 1.0, "accuracy": 1.0, **pair("a"),
        }  # fmt: skip
