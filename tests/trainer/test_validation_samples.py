"""verl's own validation loop with a real TransferQueue: what is saved of it, when, and what is left after a stop."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transfer_queue as tq
from hydra import compose, initialize_config_module
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from cleaner.evaluation.identity import prompt_digest
from cleaner.evaluation.sample_facts import SAMPLE_KEY
from cleaner.failures import FAILED_TAG, FAILURE_FIELD, describe_exception
from cleaner.replay_buffer import OrderedReplayBuffer
from cleaner.saar.statistics import TrajectoryStatistics
from cleaner.trainer import CleanerTrainer

SAMPLES = 2
PROMPTS = {name: [{"role": "user", "content": f"{name}?"}] for name in ("a", "b", "c")}


class Letters:
    """A tokenizer whose tokens are characters."""

    pad_token_id = 0

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        return "".join(chr(i) for i in ids if i)


class Rollout:
    """An agent-loop manager whose trajectories are all there at once, but for problems that it never finishes."""

    def __init__(
        self, unfinished: str = "", failing: str = "", faulty: str = "", tests: Any = (1, 0)
    ) -> None:
        self.unfinished, self.failing, self.faulty = unfinished, failing, faulty
        self.tests = np.array(tests)
        self.asked: list[str] = []

    def generate_sequences(self, batch: Any) -> None:
        for number, uid in enumerate(list(batch["uid"])):
            row = {key: list(batch[key])[number] for key in ("raw_prompt", "extra_info", "index")}
            name = row["extra_info"]["index"]
            self.asked.append(name)
            if name in self.unfinished:
                continue
            for session in range(SAMPLES):
                self._put(uid, name, session, row)
            tq.kv_put(key=uid, partition_id="val", tag={"status": "finished"})

    def _put(self, uid: str, name: str, session: int, row: dict[str, Any]) -> None:
        failed = name in self.failing and session == 0
        saar = TrajectoryStatistics(
            calls=2, calls_ok=1, sampled_tokens=9, lookahead_tokens=4, discarded_tokens=3
        )
        saar.infrastructure = int(name in self.faulty)
        facts = {
            "id": name, "prompt_digest": prompt_digest(PROMPTS[name]), "ending": "answer", "turns": 2,
            "lookahead": False, "response_tokens": 12, "sampled_tokens": 9, "seconds": 1.0,
        }  # fmt: skip
        extra = (
            {FAILURE_FIELD: describe_exception(ValueError("broken")), "reward_extra_info": {}}
            if failed
            else {
                SAMPLE_KEY: facts,
                "saar": saar.to_dict(),
                "reward_extra_info": {
                    "acc": np.bool_(session == 0),
                    "pred": "7",
                    "tests": self.tests if self.tests.ndim else float(self.tests),
                },
                "trajectory": {"prompt": name},
            }
        )
        fields = {
            "uid": uid, "session_id": session, "data_source": "aime", "num_turns": 4, "extra_fields": extra,
            "index": ord(name), "reward_model": {"ground_truth": "7"},
            "rm_scores": torch.tensor([0.0, 1.0 - session]),
            "prompts": torch.tensor([ord(name), ord("?")]), "responses": torch.tensor([ord("7"), ord("!")]),
        }  # fmt: skip
        tags = [{"status": "success", "global_steps": 0, **({FAILED_TAG: True} if failed else {})}]
        tq.kv_batch_put(
            keys=[f"{uid}_{session}_0"],
            fields=list_of_dict_to_tensordict([fields]),
            tags=tags,
            partition_id="val",
        )


def make_trainer(folder: Path, rollout: Rollout, *overrides: str) -> CleanerTrainer:
    """A trainer of which all is made that a validation needs, on a batch of three problems."""
    trainer = CleanerTrainer.__new__(CleanerTrainer)
    with initialize_config_module("cleaner.config", version_base=None):
        trainer.config = compose(
            "cleaner",
            overrides=[
                f"cleaner.output_dir={folder}", "actor_rollout_ref.rollout.name=hf_server",
                f"actor_rollout_ref.rollout.val_kwargs.n={SAMPLES}", "trainer.val_only=true", *overrides,
            ],
        )  # fmt: skip
    trainer.trainer_mode = "cleaner_sync"
    trainer.replay_buffer = trainer._build_replay_buffer()
    trainer.global_steps, trainer.tokenizer, trainer.agent_loop_manager = 0, Letters(), rollout
    trainer.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[object()])
    columns: dict[str, list[Any]] = {
        "raw_prompt": list(PROMPTS.values()),
        "data_source": ["aime"] * 3,
        "extra_info": [{"index": name} for name in PROMPTS],
        "index": [ord(name) for name in PROMPTS],
    }
    arrays = {name: np.fromiter(values, dtype=object, count=3) for name, values in columns.items()}
    # verl adds a column to the batches that it is given.
    trainer.val_dataloader = [{**arrays, "dummy_tensor": torch.arange(3)}]
    return trainer


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def empty_queue(transfer_queue: None) -> Iterator[None]:
    yield
    if keys := list((tq.kv_list() or {}).get("val") or {}):
        tq.kv_clear(keys=keys, partition_id="val")


def test_every_sample_is_a_line_with_its_rows_id_and_all_reward_details(tmp_path: Path) -> None:
    metrics = make_trainer(tmp_path, Rollout())._validate()
    lines = read(tmp_path)
    # Problems come in the order in which they are finished, the samples of one beside each other.
    assert [line["sample"] for line in lines] == [0, 1] * 3
    assert sorted((line["id"], line["acc"]) for line in lines) == [
        (name, acc) for name in "abc" for acc in (0, 1)
    ]
    lines.sort(key=lambda line: line["id"])
    first = lines[0]
    assert first["prompt"] == "a?" and first["response"] == "7!" and first["step"] == 0
    assert (first["score"], first["pred"], first["details"]) == (1.0, "7", {"tests": [1, 0]})
    assert (first["generated_tokens"], first["discarded_tokens"], first["tool_calls"]) == (13, 3, 2)
    assert metrics["val/accuracy"] == 0.5 and metrics["val-core/aime/acc/mean@2"] == 0.5


def test_an_evaluation_that_was_stopped_keeps_what_was_finished_and_samples_only_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = make_trainer(tmp_path, Rollout(unfinished="b"))

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    # verl waits here for the problem that never finishes.
    monkeypatch.setattr(type(stopped.replay_buffer._inner), "_wait_for_next_poll", stop)
    with pytest.raises(KeyboardInterrupt):
        stopped._validate()
    assert {line["id"] for line in read(tmp_path)} == {"a", "c"}
    monkeypatch.undo()

    rollout = Rollout()
    resumed = make_trainer(tmp_path, rollout)
    batches = resumed.val_dataloader
    metrics = resumed._validate()
    assert rollout.asked == ["b"] and resumed.val_dataloader is batches
    assert sorted((line["id"], line["sample"]) for line in read(tmp_path)) == [
        (name, sample) for name in "abc" for sample in range(SAMPLES)
    ]
    # Of all samples, not of those that this process made.
    assert metrics["val-core/aime/acc/mean@2"] == metrics["val/accuracy"] == 0.5
    assert metrics["val/tool_calls/total"] == 12

    finished = Rollout()
    again = make_trainer(tmp_path, finished)._validate()
    assert finished.asked == [] and len(read(tmp_path)) == 6
    assert again["val/accuracy"] == 0.5


def test_failed_and_faulty_samples_are_sampled_again_and_count_in_no_accuracy(tmp_path: Path) -> None:
    make_trainer(tmp_path, Rollout(failing="a", faulty="b"), "cleaner.failures.max_share=1.0")._validate()
    lines = read(tmp_path)
    assert [(line["id"], line["sample"]) for line in lines if line["id"] == "a"] == [("a", 1)]
    assert [line["left_out"] for line in lines if line["id"] == "b"] == ["infrastructure"] * 2
    rollout = Rollout()
    metrics = make_trainer(tmp_path, rollout)._validate()
    assert rollout.asked == ["a", "b"] and metrics["val/accuracy"] == 0.5


def test_validations_of_a_training_run_are_saved_on_request_and_never_skipped(tmp_path: Path) -> None:
    overrides = ("trainer.val_only=false", "cleaner.save_samples=true")
    for _ in range(2):
        rollout = Rollout(tests=1.0)
        metrics = make_trainer(tmp_path, rollout, *overrides)._validate()
        # Upstream's own metrics are there too.
        assert "val-aux/aime/tests/mean@2" in metrics
        assert rollout.asked == ["a", "b", "c"]
    make_trainer(tmp_path / "plain", Rollout(tests=1.0), "trainer.val_only=false")._validate()
    assert not (tmp_path / "plain" / "samples.jsonl").exists()


@pytest.mark.parametrize(("problems", "most"), [(1, 1), (99, 99), (258, 129), (30_128, 101)])
def test_a_large_validation_is_looked_at_a_bounded_number_of_times_and_loses_no_problem(
    problems: int, most: int
) -> None:
    left, sizes, seen = problems, [], []

    class Inner:
        def sample(self, *, global_steps: int, partition_id: str, batch_size: int) -> Any:
            nonlocal left
            assert 0 < batch_size <= left
            numbers = range(problems - left, problems - left + batch_size)
            left -= batch_size
            sizes.append(batch_size)
            keys = [f"{number}_0_0" for number in numbers]
            return KVBatchMeta(partition_id=partition_id, keys=keys, tags=[{} for _ in keys]), {}

    buffer = OrderedReplayBuffer(Inner(), lambda batch, step, prompts: (batch, {}))
    batch, _ = buffer._bit_by_bit(0, "val", problems, lambda part, step: seen.extend(part.keys))
    assert len(sizes) <= most and left == 0
    assert batch.keys == seen and len(seen) == problems
