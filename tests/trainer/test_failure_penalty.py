"""A penalty for failed calls changes what advantages are made of, and nothing else."""

import math
from typing import Any

import pytest
from table_rows import HALF, Row, column, make_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from cleaner.failure_penalty import failed_calls
from cleaner.saar.outcome import ToolOutcome
from cleaner.saar.statistics import TrajectoryStatistics
from cleaner.trajectory_rows import read_rows

# Both answers of group a are right, and one took two failing calls; in b the wrong answer has one.
ROWS = [
    Row("a_0_0", "SSO", reward=1.0),
    Row("a_1_0", "SSOSS", reward=1.0, failed=2),
    Row("b_0_0", "SS", reward=1.0),
    Row("b_1_0", "SSS", failed=1),
    Row("b_2_0", "S"),
]
PENALTY = "cleaner.failure_penalty=0.25"


@pytest.mark.parametrize("strategy", ["none", "saar", "retry_trajectory", "roc"])
def test_groups_are_compared_by_the_penalised_reward_whatever_the_strategy(put: Any, strategy: str) -> None:
    batch, metrics = put(ROWS, multiple=4), {}
    make_trainer(f"cleaner.strategy={strategy}", PENALTY)._compute_advantage(batch, metrics)
    found = column(batch, "advantages")
    assert found["a_0_0"] == pytest.approx([HALF, HALF, 0], rel=1e-4)
    assert found["a_1_0"] == pytest.approx([-HALF, -HALF, 0, -HALF, -HALF], rel=1e-4)
    # 1, -0.25 and 0: mean 0.25, standard deviation (of a sample) sqrt(0.4375).
    for key, reward in (("b_0_0", 1.0), ("b_1_0", -0.25), ("b_2_0", 0.0)):
        assert found[key][0] == pytest.approx((reward - 0.25) / math.sqrt(0.4375), rel=1e-4)
    assert metrics["failure_penalty/mean"] == pytest.approx((0.5 + 0.25) / 5)
    assert metrics["failure_penalty/share"] == pytest.approx(2 / 5)


def test_the_reward_itself_stays_and_the_penalised_one_stands_beside_it(put: Any) -> None:
    batch = put(ROWS, multiple=4)
    before = column(batch, "rm_scores")
    make_trainer(PENALTY)._compute_advantage(batch, {})
    assert column(batch, "rm_scores") == before
    assert [row["header"]["reward"] for row in read_rows(batch)] == [1, 1, 1, 0, 0]
    totals = {key: sum(values) for key, values in column(batch, "token_level_rewards").items()}
    assert [totals[row.key] for row in ROWS] == pytest.approx([1, 0.5, 1, -0.25, 0])


def test_the_reward_comes_back_when_upstream_raises(put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = put(ROWS)
    before, seen = column(batch, "rm_scores"), []

    def fail(trainer: Any, batch: Any, metrics: dict[str, Any]) -> None:
        seen.append(column(batch, "rm_scores"))
        raise ZeroDivisionError

    monkeypatch.setattr(PPOTrainerSync, "_compute_advantage", fail)
    with pytest.raises(ZeroDivisionError):
        make_trainer(PENALTY)._compute_advantage(batch, {})
    assert sum(seen[0]["a_1_0"]) == 0.5 and column(batch, "rm_scores") == before


def test_the_reward_gate_looks_at_the_reward_without_the_penalty(put: Any) -> None:
    rows = [Row("a_0_0", "GS", reward=1.0, failed=8), Row("a_1_0", "S", reward=1.0)]
    batch, metrics = put(rows), {}
    gated = ("cleaner.saar.graft_credit=distill", "cleaner.saar.credit_gate=reward")
    make_trainer(*gated, PENALTY)._compute_advantage(batch, metrics)
    assert metrics["graft/distill/tokens"] == 1
    assert column(batch, "advantages")["a_0_0"] == pytest.approx([0.5, -HALF], rel=1e-4)


def test_without_a_penalty_no_column_and_no_metric_is_added(put: Any) -> None:
    batch, metrics = put(ROWS), {}
    make_trainer()._compute_advantage(batch, metrics)
    assert not any(name.startswith("failure_penalty") for name in metrics)
    assert column(batch, "advantages")["a_1_0"] == [0.0] * 5


def test_infrastructure_is_not_a_failed_call_and_its_trajectory_not_in_the_mean(put: Any) -> None:
    statistics = TrajectoryStatistics()
    for status in ("ok", "timeout", "infrastructure", "format_error"):
        statistics.count_call(ToolOutcome(status), lookahead=False)
    statistics.count_call(ToolOutcome("program_error"), lookahead=True)
    assert failed_calls(statistics.to_dict()) == 2 and failed_calls(None) == 0
    rows = [*ROWS[2:], Row("b_3_0", "SS", failed=9, infrastructure=1)]
    batch, metrics = put(rows), {}
    make_trainer(PENALTY)._compute_advantage(batch, metrics)
    assert metrics["failure_penalty/mean"] == pytest.approx(0.25 / 3)
