"""Credit of grafted tokens and preferences, through upstream's computation of advantages and a real TransferQueue."""

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

from cleaner.config.settings import read_settings
from cleaner.graft_table import GraftTable
from cleaner.run_totals import RunTotals
from cleaner.trainer import CleanerTrainer

TOOLS_ON = "actor_rollout_ref.rollout.multi_turn.enable=true"
# Observation, sampled, grafted; the last trajectory token is sampled.
ORIGIN = [1, 1, 2, 2, 0, 1]
SAMPLED_LOGP = [-1.0, -1.0, -1.0, -1.0, 0.0, -1.0]
# In the clean context the two grafted tokens are 2 and 8 times as likely; elsewhere the engines differ a little.
CLEAN_LOGP = [-1.01, -0.99, -1.0 + 0.6931472, -1.0 + 2.0794415, -3.0, -1.02]


def trainer_of(*overrides: str) -> CleanerTrainer:
    with initialize_config_module("cleaner.config", version_base=None):
        base = ["actor_rollout_ref.rollout.name=hf_server", "cleaner.output_dir=unused", TOOLS_ON]
        config = compose("cleaner", overrides=[*base, "cleaner.strategy=saar", *overrides])
    trainer = CleanerTrainer.__new__(CleanerTrainer)
    trainer.config = config
    trainer._settings = read_settings(config)
    trainer._strategy = trainer._settings.make_strategy()
    return trainer


def row(uid: str, session: int, reward: float, **changes: Any) -> dict[str, Any]:
    """A trajectory with a graft; `extra` adds to its extra fields."""
    origin = changes.get("origin", ORIGIN)
    mask = torch.tensor([int(o in (1, 2)) for o in origin])
    scores = torch.zeros(len(origin))
    scores[-1] = reward
    extra = {"saar": {"infrastructure": 0}, "token_origin": origin, **changes.get("extra", {})}
    return {
        "uid": uid,
        "index": 0,
        "session_id": session,
        "data_source": "test",
        "rm_scores": scores,
        "response_mask": mask,
        "loss_mask": mask.clone(),
        "old_log_probs": torch.tensor(changes.get("clean", CLEAN_LOGP)),
        "rollout_log_probs": torch.tensor(changes.get("sampled", SAMPLED_LOGP)),
        "extra_fields": extra,
    }


def negative(uid: str, session: int, reward: float, gain: float = 0.0) -> dict[str, Any]:
    """The rejected call of pair 0: two tokens behind a prefix of three; each gained `gain` since it was sampled."""
    sampled = [0.0, 0.0, 0.0, -2.0, -2.0]
    made = row(
        uid,
        session,
        reward,
        origin=[0, 0, 0, 1, 1],
        clean=[value + gain for value in sampled],
        sampled=sampled,
        extra={"negative_of": 0},
    )
    del made["extra_fields"]["saar"]
    return made


@pytest.fixture
def put(transfer_queue: None) -> Iterator[Callable[..., KVBatchMeta]]:
    """Puts rows by key, and clears them in the end."""
    stored: list[str] = []

    def put_rows(rows: dict[str, dict[str, Any]], padding: tuple[str, ...] = ()) -> KVBatchMeta:
        keys = list(rows)
        tags = [{"is_padding": True} if key in padding else {} for key in keys]
        fields = list_of_dict_to_tensordict(list(rows.values()))
        tq.kv_batch_put(keys=keys, fields=fields, tags=tags, partition_id="train")
        stored.extend(keys)
        return KVBatchMeta(partition_id="train", keys=keys, tags=tags)

    yield put_rows
    if stored:
        tq.kv_clear(keys=stored, partition_id="train")


def column(batch: KVBatchMeta, name: str) -> list[list[float]]:
    data = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=[name])
    return [values.tolist() for values in data[name].unbind()]


def group() -> dict[str, dict[str, Any]]:
    return {"g_0_0": row("g", 0, 1.0), "g_1_0": row("g", 1, 0.0)}


def test_as_published_grafts_are_trained_like_any_other_token_and_the_ratio_is_only_logged(put: Any) -> None:
    batch, metrics = put(group()), {}
    trainer_of()._compute_advantage(batch, metrics)
    for values, sign in zip(column(batch, "advantages"), (1, -1), strict=True):
        assert [round(v * sign, 4) for v in values] == [0.7071, 0.7071, 0.7071, 0.7071, 0.0, 0.7071]
    assert column(batch, "response_mask") == [[1, 1, 1, 1, 0, 1]] * 2
    assert metrics["graft/tokens"] == 4 and metrics["graft/weight/max"] == pytest.approx(8.0, rel=1e-5)
    assert metrics["graft/weight/geometric_mean/mean"] == pytest.approx(4.0, rel=1e-5)
    assert metrics["graft/weight/truncated_share"] == 0.5
    data = tq.kv_batch_get(keys=batch.keys, partition_id="train")
    assert "rollout_is_weights" not in data.keys()  # noqa: SIM118


def test_masked_grafts_leave_the_loss_and_nothing_else_does(put: Any) -> None:
    batch = put(group())
    trainer_of("cleaner.saar.graft_credit=mask")._compute_advantage(batch, {})
    for name in ("response_mask", "loss_mask"):
        assert column(batch, name) == [[1, 1, 0, 0, 0, 1]] * 2
    assert all(values[2:5] == [0, 0, 0] and values[0] != 0 for values in column(batch, "advantages"))


@pytest.mark.parametrize("cap", [2.0, 5.0])
def test_importance_weighs_grafts_by_their_truncated_ratio_and_all_else_by_one(put: Any, cap: float) -> None:
    batch = put(group())
    trainer = trainer_of("cleaner.saar.graft_credit=importance", f"cleaner.saar.graft_weight_cap={cap}")
    before = trainer.config
    trainer._compute_advantage(batch, {})
    for weights in column(batch, "rollout_is_weights"):
        assert weights == pytest.approx([1.0, 1.0, 2.0, min(8.0, cap), 0.0, 1.0], rel=1e-5)
    assert trainer.config is before
    assert trainer.config.algorithm.rollout_correction.rollout_is is None


def test_where_weights_of_all_tokens_are_asked_for_grafts_are_among_them(put: Any) -> None:
    batch = put(group())
    correction = "algorithm.rollout_correction.rollout_is"
    trainer_of("cleaner.saar.graft_credit=importance", f"{correction}=token")._compute_advantage(batch, {})
    expected = [0.9900498, 1.0100502, 2.0, 2.0, 0.0, 0.9801987]
    for weights in column(batch, "rollout_is_weights"):
        assert weights == pytest.approx(expected, rel=1e-4)


def test_padding_is_no_graft_though_it_copies_a_row(put: Any) -> None:
    rows = group()
    rows["pad_0_0"] = row(
        "pad", 0, 0.0, origin=[0], clean=[0.0], sampled=[0.0], extra={"token_origin": ORIGIN}
    )
    batch = put(rows, padding=("pad_0_0",))
    table = GraftTable(batch)
    assert table.origin[2].tolist() == [0] * 6
    table.exclude_grafts()
    assert column(batch, "response_mask")[2] == [0]


def pair_rows(rewards: tuple[float, float], gain: float = 0.0) -> dict[str, dict[str, Any]]:
    """Two trajectories; the first with a rejected call. Its accepted call stands at tokens 2 and 3."""
    accepted = {"pairs": [[2, 3]]}
    return {
        "g_0_0": negative("g", 0, rewards[0], gain),
        "g_0_1": row("g", 0, rewards[0], extra=accepted),
        "g_1_0": row("g", 1, rewards[1], extra={"pairs": []}),
    }


DPO = ("cleaner.negatives.dpo=true", "cleaner.negatives.dpo_beta=0.5")


@pytest.mark.parametrize("ratio", [0.01, 1.0])
def test_preferences_move_the_two_calls_apart_and_nothing_else(put: Any, ratio: float) -> None:
    batch, metrics = put(pair_rows((1.0, 0.0))), {}
    trainer_of(*DPO, f"cleaner.negatives.dpo_max_adjustment_ratio={ratio}")._compute_advantage(batch, metrics)
    advantage = 0.70710
    # Margin: the accepted call gained log 2 + log 8 since it was sampled, the rejected one nothing.
    margin = 0.6931472 + 2.0794415
    delta = 0.5 / (1 + torch.tensor(0.5 * margin).exp().item())
    moved = min(delta, ratio * advantage)
    rejected, trajectory, other = column(batch, "advantages")
    assert rejected == pytest.approx([0, 0, 0, -moved, -moved], abs=1e-4)
    plain, raised = advantage, advantage + moved
    assert trajectory == pytest.approx([plain, plain, raised, raised, 0, plain], abs=1e-4)
    assert other == pytest.approx([-plain, -plain, -plain, -plain, 0, -plain], abs=1e-4)
    assert metrics["dpo/pairs"] == 1 and metrics["dpo/margin/mean"] == pytest.approx(margin, rel=1e-5)


def test_where_the_outcome_teaches_nothing_neither_does_the_preference(put: Any) -> None:
    batch = put(pair_rows((1.0, 1.0)))
    trainer_of(*DPO)._compute_advantage(batch, {})
    assert all(value == 0 for values in column(batch, "advantages") for value in values)


def test_a_rejected_call_that_grew_more_likely_is_pushed_harder(put: Any) -> None:
    pushed = []
    for gain in (0.0, 1.0):
        batch = put(pair_rows((1.0, 0.0), gain))
        trainer_of(*DPO, "cleaner.negatives.dpo_max_adjustment_ratio=1")._compute_advantage(batch, {})
        pushed.append(column(batch, "advantages")[0][3])
    assert pushed[1] < pushed[0] < 0


def test_rejected_calls_take_no_part_in_the_groups_baseline(put: Any) -> None:
    rows = pair_rows((1.0, 0.0))
    batch = put(rows)
    trainer_of(*DPO)._compute_advantage(batch, {})
    with_negatives = column(batch, "advantages")[1][0]
    del rows["g_0_0"]
    batch = put(rows)
    trainer_of()._compute_advantage(batch, {})
    assert column(batch, "advantages")[0][0] == pytest.approx(with_negatives)


def test_a_trajectory_that_met_a_fault_is_not_trained_and_neither_is_its_rejected_call(put: Any) -> None:
    rows = pair_rows((1.0, 0.0))
    rows["g_0_1"]["extra_fields"]["saar"] = {"infrastructure": 2}
    batch, metrics = put(rows), {}
    trainer_of(*DPO)._compute_advantage(batch, metrics)
    assert metrics["rollout/left_out_for_infrastructure"] == 1 and metrics["dpo/pairs"] == 0
    assert column(batch, "response_mask")[:2] == [[0] * 5, [0] * 6]
    assert all(value == 0 for values in column(batch, "advantages")[:2] for value in values)


def test_negative_samples_change_neither_the_number_of_updates_nor_what_verl_reads_later(
    put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ["data.train_batch_size=8", "actor_rollout_ref.actor.ppo_mini_batch_size=4"]
    micro = [
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=6",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
    ]
    trainer = trainer_of(*DPO, *sizes, *micro, "actor_rollout_ref.rollout.n=2")
    trainer._has_negatives = True
    multiple = trainer._get_required_batch_multiple(dp_size=2)
    assert multiple == 2 * 2 * 12
    seen = {}

    def update(self: Any, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        config = self.config.actor_rollout_ref
        seen["mini_batch"] = config.actor.ppo_mini_batch_size * config.rollout.n
        return batch

    monkeypatch.setattr(PPOTrainerSync, "_update_actor", update)
    batch = KVBatchMeta(
        partition_id="train", keys=[f"k_{i}_0" for i in range(multiple)], tags=[{}] * multiple
    )
    trainer._update_actor(batch, {})
    assert seen["mini_batch"] == multiple // 2
    trainer._has_negatives = False
    trainer._update_actor(batch, {})
    assert seen["mini_batch"] == 8 == 4 * trainer.config.actor_rollout_ref.rollout.n


def test_totals_of_a_run_are_saved_with_a_checkpoint_and_go_on_from_it(tmp_path: Path) -> None:
    totals = RunTotals()
    totals.add({"rollback/triggered": 3.0, "rollback/generated_tokens": 100.0})
    assert totals.add({"rollback/triggered": 1.0})["run_total/rolled_back_turns"] == 4.0
    totals.save(tmp_path)
    resumed = RunTotals()
    resumed.load(tmp_path)
    metrics = resumed.add({"rollback/triggered": 2.0})
    assert (metrics["run_total/rolled_back_turns"], metrics["run_total/generated_tokens"]) == (6.0, 100.0)
    fresh = RunTotals()
    fresh.load(tmp_path / "a checkpoint without them")
    assert fresh.add({})["run_total/rolled_back_turns"] == 0.0


def test_a_group_saves_no_more_pairs_than_it_may(tmp_path: Path) -> None:
    limit = "cleaner.negatives.max_per_group=3"
    trainer = trainer_of("cleaner.negatives.save=true", limit)
    trainer._output_dir, trainer.global_steps = tmp_path, 7
    pairs = [{"prompt": "p", "chosen": str(i), "rejected": "r"} for i in range(2)]
    rows = [{"header": {"uid": uid, "reward": 1.0}, "negatives": pairs} for uid in ("a", "a", "b")]
    trainer._save_negatives(rows)
    lines = (tmp_path / "negatives.jsonl").read_text().splitlines()
    assert len(lines) == 3 + 2 and all('"step": 7' in line for line in lines)
