"""What the quick start does not switch on, end to end: graft credit, preferences, trackers, resumed totals, RoC."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from quickstart_run import QuickStart

pytestmark = pytest.mark.timeout(600)
MULTI_TURN = "+actor_rollout_ref.rollout.multi_turn."
# CLEANER's documented keys for negative samples, beside ours for the rest.
PREFERENCES = (
    f"{MULTI_TURN}save_negative_samples=true",
    f"{MULTI_TURN}max_negative_samples_per_group=3",
    "+algorithm.use_dpo_on_tool_calls=true",
    "+algorithm.dpo_beta=0.2",
    "+algorithm.dpo_max_adjustment_ratio=0.4",
    "cleaner.saar.graft_credit=importance",
    "cleaner.saar.lookahead=parallel",
    "trainer.logger=[console,file,tensorboard,wandb]",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuickStart]:
    """A run of one step with preferences and importance weights, resumed for a second."""
    folder = tmp_path_factory.mktemp("preferences")
    trackers = {"WANDB_MODE": "offline", "WANDB_DIR": str(folder)}
    run = QuickStart(folder / "run", {"STEPS": "1", **trackers})
    run.run(*PREFERENCES)
    QuickStart(run.output, {"STEPS": "2", "RESUME": "1", **trackers}).run(*PREFERENCES)
    yield run


def test_preferences_and_weights_train_and_are_logged(trained: QuickStart) -> None:
    steps = [trained.metrics()[step] for step in (1, 2)]
    assert all(math.isfinite(step["actor/grad_norm"]) for step in steps)
    assert sum(step["dpo/pairs"] for step in steps) > 0
    for step in steps:
        if step["dpo/pairs"]:
            assert 0 < step["dpo/strength/mean"] < 0.2 and step["dpo/adjustment/mean"] >= 0
        if step["graft/tokens"]:
            assert step["graft/weight/min"] <= step["graft/weight/mean"] <= step["graft/weight/max"]
            # verl's own account of the weights that it applied: truncated, and 1 but on grafts.
            assert step["rollout_corr/rollout_is_max"] <= 2.0
    # Rejected calls are no trajectories: the number of these is prompts x samples, and each has its line.
    lines = Counter(line["step"] for line in trained.trajectories() if line["phase"] == "train")
    assert lines == {1: 24, 2: 24}


def test_totals_go_on_where_a_resumed_run_left_off(trained: QuickStart) -> None:
    metrics = trained.metrics()
    for name, source in (
        ("generated_tokens", "rollback/generated_tokens"),
        ("rolled_back_turns", "rollback/triggered"),
    ):
        expected = 0.0
        for step in (1, 2):
            expected += metrics[step][source]
            assert metrics[step][f"run_total/{name}"] == pytest.approx(expected), (step, name)


def test_pairs_are_saved_within_their_limit_and_exported(trained: QuickStart) -> None:
    from datasets import load_dataset

    from cleaner.cli import main

    lines = [json.loads(line) for line in (trained.output / "negatives.jsonl").read_text().splitlines()]
    assert lines and max(Counter((line["step"], line["uid"]) for line in lines).values()) <= 3
    assert main(["pairs", str(trained.output)]) == 0
    pairs = load_dataset("json", data_files=str(trained.output / "pairs.jsonl"), split="train")
    assert set(pairs.column_names) == {"prompt", "chosen", "rejected"}
    assert all(row["chosen"] != row["rejected"] and "<tool_call>" in row["chosen"] for row in pairs)


def test_trackers_get_the_metrics_of_training_and_validation(trained: QuickStart) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained.output / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"rollback/triggered", "tool_calls/total", "val/tool_calls/total", "graft/tokens"} <= tags
    log = (trained.output / "logs" / "train.log").read_text()
    assert "rollback/triggered:" in log and "val/accuracy" in log
    assert list(trained.output.parent.glob("wandb/offline-run-*"))


def test_roc_samples_more_than_it_trains_and_failed_calls_are_penalised(tmp_path: Path) -> None:
    run = QuickStart(tmp_path / "run", {"STEPS": "1"})
    run.run("cleaner.strategy=roc", "cleaner.roc.oversample=1.5", "cleaner.failure_penalty=0.25")
    metrics = run.metrics()[1]
    # The reward as it was, and as it was trained.
    assert metrics["reward"] == pytest.approx(metrics["critic/score/mean"])
    assert metrics["failure_penalty/mean"] > 0
    penalised = metrics["critic/score/mean"] - metrics["failure_penalty/mean"]
    assert metrics["critic/rewards/mean"] == pytest.approx(penalised, abs=1e-5)
    assert not any(name.startswith("val/failure_penalty") for name in run.metrics()[0])
    assert metrics["rollout/unselected_trajectories"] == 12
    kept = [line for line in run.trajectories() if line["phase"] == "train"]
    assert Counter(line["uid"] for line in kept).most_common(1)[0][1] == 6 and len(kept) == 24
    assert metrics["rollback/triggered"] == 0
    trained_tokens = sum(
        part["tokens"] for line in kept for part in line["segments"] if part["origin"] == "sampled"
    )
    assert metrics["rollback/generated_tokens"] > trained_tokens
    assert metrics["rollback/discarded_tokens"] == metrics["rollback/generated_tokens"] - trained_tokens
    assert math.isfinite(metrics["actor/grad_norm"])
