"""Credit of grafted tokens and of pairs of calls, through a real TransferQueue and verl's own advantages.

Rows are written as in `table_rows`.
"""

import copy
import math
from typing import Any

import pytest
import transfer_queue as tq
from table_rows import BETA, CAP, HALF, Row, column, make_trainer
from transfer_queue import KVBatchMeta
from verl.protocol import DataProto
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from cleaner.graft_table import GraftTable
from cleaner.trainer import CleanerTrainer
from cleaner.trajectory_rows import column_values, negative_keys, without

TWO_GROUPS = [
    Row("a_0_0", "SSOGGGS", reward=1.0),
    Row("a_1_0", "SSS"),
    Row("b_0_0", "SXOGGG"),
    Row("b_1_0", "SSSSS", reward=1.0),
]
# Of each session the last is the trajectory; "c" has one outcome, and so no advantage.
WITH_NEGATIVES = [
    Row("a_0_0", "OOSS", negative_of=0),
    Row("a_0_1", "SSGGGOS", reward=1.0, pairs=[[2, 3, 4]]),
    Row("a_1_0", "OSSSS", negative_of=0),
    Row("a_1_1", "OOOOOSS", negative_of=1),
    Row("a_1_2", "SGGOGOSS", pairs=[[1, 2], [4]]),
    Row("a_2_0", "SSSSOS"),
    Row("c_0_0", "OS", negative_of=0),
    Row("c_0_1", "GGSS", reward=1.0, pairs=[[0, 1]]),
    Row("c_1_0", "SSS", reward=1.0),
]


def test_excluded_grafts_lose_both_masks_and_nothing_else_of_the_batch_changes(put: Any) -> None:
    batch = put(TWO_GROUPS, multiple=3)
    before = {name: column(batch, name) for name in ("old_log_probs", "rollout_log_probs", "rm_scores")}
    GraftTable(batch).exclude_grafts()
    for name in ("response_mask", "loss_mask"):
        masks = column(batch, name)
        for row in TWO_GROUPS:
            assert masks[row.key] == [int(token == "S") for token in row.tokens]
        # The padding rows' extra fields are those of a_0_0, whose response is seven times as long.
        assert [masks[key] for key in batch.keys[4:]] == [[0], [0]]
    assert {name: column(batch, name) for name in before} == before


def test_padding_has_no_origin_of_its_own(put: Any) -> None:
    batch = put(TWO_GROUPS, multiple=3)
    assert all(tag.get("is_padding") for tag in batch.tags[4:])
    extra = tq.kv_batch_get(keys=batch.keys[4:], partition_id="train", select_fields=["extra_fields"])
    assert [len(value["token_origin"]) for value in column_values(extra["extra_fields"])] == [7, 7]
    assert GraftTable(batch).origin[4:].sum() == 0


def test_server_and_actor_are_compared_where_tokens_were_sampled_and_nowhere_else(put: Any) -> None:
    found = GraftTable(put(TWO_GROUPS, multiple=3)).log_prob_differences()
    differences = [
        abs(old - new)
        for row in TWO_GROUPS
        for token, old, new in zip(
            row.tokens,
            *(row.log_probs[name].tolist() for name in ("old_log_probs", "rollout_log_probs")),
            strict=True,
        )
        if token == "S"
    ]
    assert found["rollout/logprob_diff/tokens"] == len(differences) > 10
    assert found["rollout/logprob_diff/mean"] == pytest.approx(sum(differences) / len(differences))
    assert found["rollout/logprob_diff/max"] == pytest.approx(max(differences))
    assert found["rollout/logprob_diff/p99.5"] == found["rollout/logprob_diff/max"]  # of few tokens


def test_without_the_servers_log_probabilities_nothing_is_compared(put: Any) -> None:
    assert GraftTable(put(TWO_GROUPS, sampled=False)).log_prob_differences() == {}


def test_verls_correction_finds_ratios_on_grafts_only(put: Any) -> None:
    batch = put(TWO_GROUPS, multiple=3)
    GraftTable(batch).weigh_grafts_only()
    names = ["old_log_probs", "rollout_log_probs", "response_mask"]
    data = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=names)
    correction = {"rollout_is": "token", "rollout_is_threshold": CAP}
    corrected, _ = compute_rollout_correction_and_add_to_batch(
        DataProto(batch=data.to_padded_tensor()), correction
    )
    weights = corrected.batch["rollout_is_weights"]
    for number, row in enumerate(TWO_GROUPS):
        assert_trained_close(row, weights[number].tolist(), graft_weights(row))


def graft_weights(row: Row, cap: float = CAP) -> list[float]:
    """min(w, cap) on grafts, 1 elsewhere."""
    ratio = (row.log_probs["old_log_probs"] - row.log_probs["rollout_log_probs"]).exp().clamp(max=cap)
    return [w if token == "G" else 1.0 for token, w in zip(row.tokens, ratio.tolist(), strict=True)]


def assert_trained_close(row: Row, values: list[float], expected: list[float]) -> None:
    trained = [i for i, mask in enumerate(row.mask) if mask]
    assert [values[i] for i in trained] == pytest.approx([expected[i] for i in trained], rel=1e-5)


def test_the_rows_of_this_file_have_grafts_below_and_above_the_cap() -> None:
    weights = [w for row in TWO_GROUPS for w in graft_weights(row) if w != 1.0]
    assert len(weights) == 6 and min(weights) < 1 and weights.count(CAP) in range(1, 6)


@pytest.mark.parametrize("credit", ["train", "mask", "importance"])
def test_each_credit_changes_the_columns_that_it_says_and_leaves_the_configuration(
    put: Any, credit: str
) -> None:
    trainer = make_trainer(f"cleaner.saar.graft_credit={credit}")
    config, written = trainer.config, copy.deepcopy(trainer.config)
    batch = put(TWO_GROUPS, multiple=3)
    metrics: dict[str, Any] = {}
    assert trainer._compute_advantage(batch, metrics).keys == batch.keys
    assert trainer.config is config and config == written

    trained = "S" if credit == "mask" else "SG"
    masks, loss_masks = column(batch, "response_mask"), column(batch, "loss_mask")
    advantages = column(batch, "advantages")
    own = {"a_0_0": HALF, "a_1_0": -HALF, "b_0_0": -HALF, "b_1_0": HALF}
    for row in TWO_GROUPS:
        expected = [int(token in trained) for token in row.tokens]
        assert masks[row.key] == loss_masks[row.key] == expected
        assert advantages[row.key] == pytest.approx([own[row.key] * m for m in expected], rel=1e-4)
    assert [advantages[key] for key in batch.keys[4:]] == [[0.0], [0.0]]

    columns = tq.kv_batch_get(keys=batch.keys, partition_id="train").keys()
    assert ("rollout_is_weights" in columns) is (credit == "importance")
    if credit == "importance":
        weights = column(batch, "rollout_is_weights")
        for row in TWO_GROUPS:
            assert len(weights[row.key]) == len(row.tokens)
            assert_trained_close(row, weights[row.key], graft_weights(row))
        assert metrics["rollout_corr/rollout_is_max"] <= CAP
    assert metrics["graft/tokens"] == 6 and metrics["graft/weight/truncated_share"] > 0
    assert metrics["rollout/left_out_for_infrastructure"] == 0


def test_where_all_tokens_are_to_be_weighed_those_of_grafts_are_among_them(put: Any) -> None:
    correction = "algorithm.rollout_correction"
    trainer = make_trainer(
        "cleaner.saar.graft_credit=importance",
        f"{correction}.rollout_is=token",
        f"{correction}.rollout_is_threshold=1.2",
    )
    batch = put(TWO_GROUPS)
    trainer._compute_advantage(batch, {})
    weights = column(batch, "rollout_is_weights")
    for row in TWO_GROUPS:
        ratio = (row.log_probs["old_log_probs"] - row.log_probs["rollout_log_probs"]).exp().clamp(max=1.2)
        assert_trained_close(row, weights[row.key], ratio.tolist())


def test_the_configuration_comes_back_when_upstream_raises(put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def fail(trainer: CleanerTrainer, batch: KVBatchMeta, metrics: dict[str, Any]) -> None:
        correction = trainer.config.algorithm.rollout_correction
        seen.append((correction.rollout_is, correction.rollout_is_threshold))
        raise ZeroDivisionError

    monkeypatch.setattr(PPOTrainerSync, "_compute_advantage", fail)
    trainer = make_trainer("cleaner.saar.graft_credit=importance")
    config, written = trainer.config, copy.deepcopy(trainer.config)
    with pytest.raises(ZeroDivisionError):
        trainer._compute_advantage(put(TWO_GROUPS), {})
    assert seen == [("token", CAP)]
    assert trainer.config is config and config == written


def expected_advantages(
    rows: list[Row], own: dict[str, float], ratio: float, reference: str
) -> dict[str, list[float]]:
    """By hand: what each token's advantage is after the pairs of calls were moved apart.

    Args:
        own: the advantage of each session.
    """
    found = {}
    for row in rows:
        own_advantage = own[row.key.rsplit("_", 1)[0]] if row.negative_of is None else 0.0
        found[row.key] = [own_advantage * mask for mask in row.mask]

    def gain(row: Row, tokens: list[int]) -> float:
        return sum(float(row.log_probs["old_log_probs"][i] - row.log_probs[reference][i]) for i in tokens)

    for negative in (row for row in rows if row.negative_of is not None):
        session = negative.key.rsplit("_", 1)[0]
        trajectory = next(row for row in rows if row.key.startswith(session) and row.pairs is not None)
        accepted = trajectory.pairs[negative.negative_of]
        rejected = [i for i, mask in enumerate(negative.mask) if mask]
        margin = gain(trajectory, accepted) - gain(negative, rejected)
        moved = min(BETA / (1 + math.exp(BETA * margin)), ratio * abs(own[session]))
        for i in accepted:
            found[trajectory.key][i] += moved
        for i in rejected:
            found[negative.key][i] = -moved
    return found


# Group a has rewards 1, 0, 0; group c has 1, 1.
THREE = {"a_0": 2 / math.sqrt(3), "a_1": -1 / math.sqrt(3), "a_2": -1 / math.sqrt(3), "c_0": 0.0, "c_1": 0.0}


@pytest.mark.parametrize("credit", ["train", "importance"])
@pytest.mark.parametrize("reference", ["rollout_log_probs", "ref_log_prob"])
@pytest.mark.parametrize("ratio", [0.5, 0.01])
def test_the_two_calls_of_a_pair_are_moved_apart_and_no_other_token_is(
    put: Any, ratio: float, reference: str, credit: str
) -> None:
    trainer = make_trainer(
        "cleaner.negatives.dpo=true",
        f"cleaner.negatives.dpo_max_adjustment_ratio={ratio}",
        f"cleaner.saar.graft_credit={credit}",
    )
    batch = put(WITH_NEGATIVES, reference=reference == "ref_log_prob", multiple=10)
    metrics: dict[str, Any] = {}
    trainer._compute_advantage(batch, metrics)
    advantages = column(batch, "advantages")
    expected = expected_advantages(WITH_NEGATIVES, THREE, ratio, reference)
    for row in WITH_NEGATIVES:
        assert advantages[row.key] == pytest.approx(expected[row.key], rel=1e-4, abs=1e-7), row.key
    assert [advantages[key] for key in batch.keys[9:]] == [[0.0]]
    assert metrics["dpo/pairs"] == 4
    # The bound, not the preference, decides at the small ratio, and the preference at the large one.
    bounds = [ratio * abs(THREE[session]) for session in ("a_0", "a_1", "a_1", "c_0")]
    bounded = metrics["dpo/adjustment/mean"] == pytest.approx(sum(bounds) / 4, rel=1e-4)
    assert bounded is (ratio == 0.01)


def test_a_group_without_an_advantage_is_not_moved_by_its_pairs(put: Any) -> None:
    batch = put(WITH_NEGATIVES)
    make_trainer("cleaner.negatives.dpo=true")._compute_advantage(batch, {})
    advantages = column(batch, "advantages")
    assert all(not any(advantages[key]) for key in ("c_0_0", "c_0_1", "c_1_0"))
    assert any(advantages["a_0_0"])


def test_negative_samples_take_no_part_in_their_groups_baseline(put: Any) -> None:
    batch = put(WITH_NEGATIVES)
    trainer = make_trainer("cleaner.negatives.dpo=true")
    trainer._compute_advantage(batch, {})
    with_them = column(batch, "advantages")
    alone = without(batch, negative_keys(batch))
    assert len(alone) == 5
    metrics: dict[str, Any] = {}
    trainer._compute_advantage(alone, metrics)
    without_them = column(alone, "advantages")
    assert metrics["dpo/pairs"] == 0
    for row in WITH_NEGATIVES:
        if row.key in alone.keys:
            calls = {i for tokens in row.pairs or [] for i in tokens}
            others = [i for i in range(len(row.tokens)) if i not in calls]
            assert [with_them[row.key][i] for i in others] == [without_them[row.key][i] for i in others]


def test_a_trajectory_of_an_infrastructure_fault_is_not_trained_nor_are_its_pairs(put: Any) -> None:
    rows = copy.deepcopy(WITH_NEGATIVES)
    rows[4].infrastructure = 2
    batch = put(rows)
    metrics: dict[str, Any] = {}
    make_trainer("cleaner.negatives.dpo=true")._compute_advantage(batch, metrics)
    assert metrics["rollout/left_out_for_infrastructure"] == 1 and metrics["dpo/pairs"] == 2
    masks, loss_masks, advantages = (
        column(batch, name) for name in ("response_mask", "loss_mask", "advantages")
    )
    for key in ("a_1_0", "a_1_1", "a_1_2"):
        assert not any(masks[key]) and not any(loss_masks[key]) and not any(advantages[key])
    # The rest of the group is measured against itself: rewards 1 and 0 are left.
    rest = [row for row in rows if not row.key.startswith("a_1_")]
    own = {"a_0": HALF, "a_2": -HALF, "c_0": 0.0, "c_1": 0.0}
    expected = expected_advantages(rest, own, 0.5, "rollout_log_probs")
    for row in rest:
        assert masks[row.key] == loss_masks[row.key] == row.mask
        assert advantages[row.key] == pytest.approx(expected[row.key], rel=1e-4, abs=1e-7)


def test_where_every_pair_is_left_out_nothing_is_trained_of_them(put: Any) -> None:
    rows = copy.deepcopy(WITH_NEGATIVES[:2] + WITH_NEGATIVES[5:6])
    rows[1].infrastructure = 1
    batch = put(rows)
    metrics: dict[str, Any] = {}
    make_trainer("cleaner.negatives.dpo=true")._compute_advantage(batch, metrics)
    assert metrics["dpo/pairs"] == 0 and "dpo/strength/mean" not in metrics
    masks = column(batch, "response_mask")
    assert [any(masks[row.key]) for row in rows] == [False, False, True]


@pytest.mark.parametrize("multiple", [1, 3])
def test_without_the_servers_log_probabilities_grafts_have_no_weights(put: Any, multiple: int) -> None:
    batch = put(TWO_GROUPS, sampled=False, multiple=multiple)
    table = GraftTable(batch)
    assert not table.has_sampled_log_probs and table.weight_metrics(CAP) == {}
    trainer = make_trainer("actor_rollout_ref.rollout.calculate_log_probs=false")
    trainer._compute_advantage(batch, {})
    advantages = column(batch, "advantages")
    assert advantages["b_1_0"] == pytest.approx([HALF] * 5, rel=1e-4)


def test_a_rejected_call_without_an_accepted_one_is_not_trained(put: Any) -> None:
    rows = copy.deepcopy(WITH_NEGATIVES)
    rows[1].pairs = [[]]
    batch = put(rows)
    make_trainer("cleaner.negatives.dpo=true")._compute_advantage(batch, {})
    assert not any(column(batch, "advantages")["a_0_0"])
