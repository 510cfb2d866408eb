"""The terms of `distill` and `contrast`, in a real TransferQueue, on verl's own advantages, against hand counts."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
from table_rows import HALF, Row, column, make_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from cleaner.batch_screen import BatchScreen
from cleaner.failures import FailureMonitor
from cleaner.saar.strategy import NoStrategy
from cleaner.trajectory_rows import read_rows

# Group a has one right answer of two; group c two right ones, so no advantage; every graft has its failing call's row.
EDITED = [
    Row("a_0_0", "OOSS", reward=1.0, negative_of=0),
    Row("a_0_1", "SSGGGOS", reward=1.0, paired=[2, 3, 4]),
    Row("a_1_0", "OSSSS", negative_of=0),
    Row("a_1_1", "SGGOSS", paired=[1, 2]),
    Row("c_0_0", "OS", reward=1.0, negative_of=0),
    Row("c_0_1", "GGSS", reward=1.0, paired=[0, 1]),
    Row("c_1_0", "SSS", reward=1.0),
]
# The same groups where no history is edited: the grafts are samples of their own.
SAMPLED = [
    Row("a_0_0", "OOSS", reward=1.0, negative_of=0),
    Row("a_0_1", "OOOGGG", reward=1.0, graft_of=0),
    Row("a_0_2", "SSOSSOS", reward=1.0),
    Row("a_1_0", "OSSSS", negative_of=0),
    Row("a_1_1", "OGG", graft_of=0),
    Row("a_1_2", "SSOSSOSS"),
    Row("c_0_0", "SSOSOS", reward=1.0),
    Row("c_1_0", "SSS", reward=1.0),
]
ALONE = [row for row in EDITED if row.negative_of is None]
DISTILL, CONTRAST = (f"cleaner.saar.graft_credit={credit}" for credit in ("distill", "contrast"))
BY_REWARD, BY_REWARD_UP = (f"cleaner.saar.credit_gate={gate}" for gate in ("reward", "reward_graft"))
AS_SAMPLED = ("cleaner.saar.history=sampled", "cleaner.saar.on_exhausted=keep_all")


def advantages_of(
    put: Any, rows: list[Row], *overrides: str, multiple: int = 1
) -> tuple[Any, dict[str, Any]]:
    batch = put(rows, multiple=multiple)
    metrics: dict[str, Any] = {}
    make_trainer(*overrides)._compute_advantage(batch, metrics)
    return batch, metrics


def assert_advantages(batch: Any, expected: dict[str, list[float]]) -> None:
    found = column(batch, "advantages")
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=1e-4, abs=1e-7), key


def test_distill_adds_beta_to_what_is_positive_of_a_grafts_advantage(put: Any) -> None:
    batch, metrics = advantages_of(put, ALONE, DISTILL, multiple=5)
    up = HALF + 0.5
    expected = {
        "a_0_1": [HALF, HALF, up, up, up, 0, HALF],
        "a_1_1": [-HALF, 0.5, 0.5, 0, -HALF, -HALF],
        "c_0_1": [0.5, 0.5, 0, 0],
        "c_1_0": [0, 0, 0],
    }
    assert_advantages(batch, expected)
    assert [column(batch, "advantages")[key] for key in batch.keys[4:]] == [[0.0]]
    assert metrics["graft/distill/tokens"] == 7 and metrics["graft/distill/gated_share"] == 0
    # Three and two tokens moved by beta, two by beta and from -HALF to 0.
    assert metrics["graft/distill/added"] == pytest.approx((7 * 0.5 + 2 * HALF) / 7, rel=1e-4)
    assert not any(name.startswith("graft/contrast") for name in metrics)


def test_signed_adds_beta_to_the_advantage_as_it_is(put: Any) -> None:
    signed, weight = "cleaner.saar.distill_advantage=signed", "cleaner.saar.distill_weight=0.25"
    batch, _ = advantages_of(put, ALONE, DISTILL, signed, weight)
    low = 0.25 - HALF
    assert_advantages(batch, {"a_1_1": [-HALF, low, low, 0, -HALF, -HALF], "c_0_1": [0.25, 0.25, 0, 0]})


def test_contrast_gives_both_calls_of_a_pair_the_same_weight_per_token(put: Any) -> None:
    batch, metrics = advantages_of(put, EDITED, CONTRAST, multiple=8)
    up = HALF + 0.5
    expected = {
        "a_0_0": [0, 0, -0.5, -0.5],
        "a_0_1": [HALF, HALF, up, up, up, 0, HALF],
        "a_1_0": [0, -0.5, -0.5, -0.5, -0.5],
        "a_1_1": [-HALF, 0.5, 0.5, 0, -HALF, -HALF],
        "c_0_0": [0, -0.5],
        "c_0_1": [0.5, 0.5, 0, 0],
    }
    assert_advantages(batch, expected)
    assert [column(batch, "advantages")[key] for key in batch.keys[7:]] == [[0.0]]
    assert metrics["graft/distill/tokens"] == 7 and metrics["graft/contrast/tokens"] == 7
    assert metrics["graft/contrast/added"] == pytest.approx(-0.5)
    masks = column(batch, "response_mask")
    assert {row.key: masks[row.key] for row in EDITED} == {row.key: row.mask for row in EDITED}


def test_the_terms_change_nothing_but_grafts_and_failing_calls(put: Any) -> None:
    batch = put(EDITED)
    make_trainer()._compute_advantage(batch, {})
    before = column(batch, "advantages")
    make_trainer(CONTRAST)._compute_advantage(batch, {})
    after = column(batch, "advantages")
    for row in EDITED:
        if row.negative_of is None:
            others = [i for i, token in enumerate(row.tokens) if token != "G"]
            assert [after[row.key][i] for i in others] == [before[row.key][i] for i in others]


def test_the_reward_gate_leaves_both_terms_where_the_answer_is_right(put: Any) -> None:
    batch, metrics = advantages_of(put, EDITED, CONTRAST, BY_REWARD)
    up = HALF + 0.5
    expected = {
        "a_0_0": [0, 0, -0.5, -0.5],
        "a_0_1": [HALF, HALF, up, up, up, 0, HALF],
        "a_1_0": [0] * 5,
        # Not pushed down either: the graft works, and what is wrong is elsewhere.
        "a_1_1": [-HALF, 0, 0, 0, -HALF, -HALF],
        "c_0_0": [0, -0.5],
        "c_0_1": [0.5, 0.5, 0, 0],
    }
    assert_advantages(batch, expected)
    assert metrics["graft/distill/tokens"] == 5 and metrics["graft/distill/gated_share"] == pytest.approx(
        2 / 7
    )
    assert metrics["graft/contrast/tokens"] == 3
    assert metrics["graft/contrast/gated_share"] == pytest.approx(4 / 7)
    # What isn't trained doesn't count in the loss's mean: the closed sample's tokens leave both masks.
    for name in ("response_mask", "loss_mask"):
        masks = column(batch, name)
        assert masks["a_1_0"] == [0] * 5
        assert all(masks[row.key] == row.mask for row in EDITED if row.key != "a_1_0")


def test_the_gate_can_be_the_grafts_alone(put: Any) -> None:
    batch, metrics = advantages_of(put, EDITED, CONTRAST, BY_REWARD_UP)
    assert_advantages(batch, {"a_1_0": [0] + [-0.5] * 4, "a_1_1": [-HALF, 0, 0, 0, -HALF, -HALF]})
    assert metrics["graft/contrast/tokens"] == 7 and metrics["graft/distill/tokens"] == 5
    assert column(batch, "loss_mask")["a_1_0"] == [0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("accuracy", "reward", "is_open"),
    [
        (True, -1.0, True),
        (1.0, 0.3, True),
        (0.5, 0.5, False),
        (False, 1.0, False),
        (None, 0.1, True),
        (None, 0.0, False),
    ],
)
def test_right_is_what_the_reward_function_calls_accurate_and_else_a_positive_reward(
    put: Any, accuracy: object, reward: float, is_open: bool
) -> None:
    rows = [Row("a_0_0", "GS", reward=reward, accuracy=accuracy), Row("a_1_0", "S", reward=reward)]
    _, metrics = advantages_of(put, rows, DISTILL, BY_REWARD)
    assert metrics["graft/distill/tokens"] == int(is_open)


def test_a_sampled_history_keeps_its_advantage_and_the_graft_beside_it_gets_beta(put: Any) -> None:
    batch, metrics = advantages_of(put, SAMPLED, CONTRAST, *AS_SAMPLED, multiple=3)
    expected = {
        "a_0_0": [0, 0, -0.5, -0.5],
        "a_0_1": [0, 0, 0, 0.5, 0.5, 0.5],
        "a_0_2": [HALF, HALF, 0, HALF, HALF, 0, HALF],
        "a_1_0": [0, -0.5, -0.5, -0.5, -0.5],
        "a_1_1": [0, 0.5, 0.5],
        "a_1_2": [-HALF, -HALF, 0, -HALF, -HALF, 0, -HALF, -HALF],
        "c_0_0": [0] * 6,
    }
    assert_advantages(batch, expected)
    assert metrics["graft/distill/tokens"] == 5 and metrics["graft/distill/added"] == pytest.approx(0.5)
    gated, metrics = advantages_of(put, SAMPLED, CONTRAST, BY_REWARD, *AS_SAMPLED, multiple=3)
    assert_advantages(gated, {"a_1_0": [0] * 5, "a_1_1": [0] * 3, "a_0_1": [0, 0, 0, 0.5, 0.5, 0.5]})
    assert not any(column(gated, "loss_mask")["a_1_1"]) and metrics["graft/distill/tokens"] == 3


def test_in_contrast_a_graft_whose_failing_call_is_not_trained_gets_no_term(put: Any) -> None:
    rows = copy.deepcopy(EDITED[2:])
    rows[1].paired = [2]
    batch, metrics = advantages_of(put, rows, CONTRAST)
    assert column(batch, "advantages")["a_1_1"][1:3] == [0.0, 0.5]
    assert metrics["graft/distill/tokens"] == 3


def test_terms_pass_by_a_trajectory_that_met_an_infrastructure_fault_and_its_samples(put: Any) -> None:
    rows = copy.deepcopy(SAMPLED)
    rows[2].infrastructure = 1
    batch, metrics = advantages_of(put, rows, CONTRAST, *AS_SAMPLED)
    for name in ("advantages", "response_mask", "loss_mask"):
        values = column(batch, name)
        assert not any(values["a_0_0"] + values["a_0_1"] + values["a_0_2"])
    assert metrics["graft/distill/tokens"] == 2 and metrics["graft/contrast/tokens"] == 4


def test_a_batch_without_repairs_has_no_term_and_no_error(put: Any) -> None:
    batch, metrics = advantages_of(put, [Row("a_0_0", "SS", reward=1.0), Row("a_1_0", "SOS")], CONTRAST)
    assert_advantages(batch, {"a_0_0": [HALF, HALF], "a_1_0": [-HALF, 0, -HALF]})
    assert {name: value for name, value in metrics.items() if name.startswith("graft/")} == {
        "graft/tokens": 0.0, "graft/distill/tokens": 0.0, "graft/contrast/tokens": 0.0,
    }  # fmt: skip


def test_samples_beside_the_trajectories_are_no_trajectories(put: Any, tmp_path: Path) -> None:
    batch = put(SAMPLED)
    assert [row["key"] for row in read_rows(batch)] == ["a_0_2", "a_1_2", "c_0_0", "c_1_0"]
    monitor = FailureMonitor(tmp_path / "failures.jsonl", 0.5, False)
    screen = BatchScreen(NoStrategy(), monitor, trained=2, validated=1, max_negatives=None, seed=0)
    left, metrics = screen.screen(batch, step=1, prompts=2)
    assert left.keys == batch.keys and metrics["rollout/failed_trajectories"] == 0


def test_a_step_has_as_many_updates_with_these_samples_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def update(trainer: Any, batch: Any, metrics: dict[str, Any]) -> Any:
        config = trainer.config.actor_rollout_ref
        seen.append(len(batch) / (config.actor.ppo_mini_batch_size * config.rollout.n))
        return batch

    monkeypatch.setattr(PPOTrainerSync, "_update_actor", update)
    sizes = ("data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=2")
    trainer = make_trainer(CONTRAST, *sizes, "actor_rollout_ref.rollout.n=6")
    trainer._has_credit_rows = True
    multiple = trainer._get_required_batch_multiple(dp_size=1)
    rows = math.ceil((24 + 17) / multiple) * multiple
    trainer._update_actor([None] * rows, {})
    assert seen == [2.0] and trainer.config.actor_rollout_ref.rollout.n == 6
