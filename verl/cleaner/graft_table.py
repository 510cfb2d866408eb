"""The grafted tokens and pairs of calls of a batch in the TransferQueue, as tensors, and the edits made to them.

Each edit is one configuration's way of giving credit to tokens: `cleaner.saar.graft_credit`, `cleaner.negatives.dpo`.
The arithmetic is in `cleaner.graft_credit`; verl's loss does the rest with the columns that are written here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.workers.utils.padding import response_to_nested

from cleaner.graft_credit import (
    dpo_adjustment,
    dpo_strength,
    graft_only_rollout_log_probs,
    graft_weights,
    weight_metrics,
)
from cleaner.graft_terms import right_answers, term_metrics, with_failing_term, with_graft_term
from cleaner.saar.config import SaarConfig
from cleaner.saar.trajectory import Origin
from cleaner.trajectory_rows import GRAFT_KEY, NEGATIVE_KEY, column_values

_COLUMNS = [
    "response_mask",
    "loss_mask",
    "old_log_probs",
    "rollout_log_probs",
    "ref_log_prob",
    "extra_fields",
]


class GraftTable:
    """Reads the columns of a batch once; rows in the batch's order, (B, T) tensors padded with zeros.

    Args:
        batch: with `old_log_probs` computed.
    """

    def __init__(self, batch: KVBatchMeta) -> None:
        self._batch = batch
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=_COLUMNS)
        self._mask_layout = data["response_mask"]
        self._extra = [
            {} if tag.get("is_padding", False) or not isinstance(extra, dict) else extra
            for extra, tag in zip(column_values(data["extra_fields"]), batch.tags, strict=True)
        ]
        self._columns: dict[str, torch.Tensor] = {
            name: torch.nested.to_padded_tensor(data[name], 0)
            for name in _COLUMNS
            if name != "extra_fields" and name in data.keys()  # noqa: SIM118 (a tensordict is no dict)
        }
        self.origin = torch.zeros_like(self._columns["response_mask"])
        for row, extra in enumerate(self._extra):
            values = torch.tensor(extra.get("token_origin") or [], dtype=self.origin.dtype)
            self.origin[row, : len(values)] = values

    @property
    def has_sampled_log_probs(self) -> bool:
        """Whether the server's log-probabilities are known, without which there are no weights."""
        return "rollout_log_probs" in self._columns

    def weight_metrics(self, cap: float) -> dict[str, float]:
        """The distribution of w over all grafted tokens, trained or not."""
        if not self.has_sampled_log_probs:
            return {}
        weights = graft_weights(
            self._columns["old_log_probs"], self._columns["rollout_log_probs"], self.origin
        )
        return weight_metrics(weights, self.origin, cap)

    def log_prob_differences(self) -> dict[str, float]:
        """How far server and actor are apart on trained tokens that stand where they were sampled.

        verl's `training/rollout_probs_diff_*` is of probabilities, and of grafted tokens too, which were sampled in
        another context.

        Returns:
            `rollout/logprob_diff/tokens`, and if there are any `mean`, `p99.5` (a percentile) and `max` of the absolute
            difference of log-probabilities; nothing where the server's are not known.
        """
        if not self.has_sampled_log_probs:
            return {}
        sampled = (self.origin == int(Origin.SAMPLED)) & (self._columns["response_mask"] > 0)
        difference = (self._columns["old_log_probs"] - self._columns["rollout_log_probs"])[sampled].abs()
        metrics = {"rollout/logprob_diff/tokens": float(len(difference))}
        if len(difference):
            metrics["rollout/logprob_diff/mean"] = float(difference.double().mean())
            # `torch.quantile` takes no more than 16 million values.
            metrics["rollout/logprob_diff/p99.5"] = float(
                difference.kthvalue(math.ceil(0.995 * len(difference))).values
            )
            metrics["rollout/logprob_diff/max"] = float(difference.max())
        return metrics

    def exclude_grafts(self) -> None:
        """Take grafted tokens out of the loss (`graft_credit: mask`)."""
        trained = self.origin != int(Origin.GRAFTED)
        self._put({name: self._columns[name] * trained for name in ("response_mask", "loss_mask")})

    def weigh_grafts_only(self) -> None:
        """Let verl's rollout correction find ratios on grafted tokens only (`graft_credit: importance`)."""
        told = graft_only_rollout_log_probs(
            self._columns["old_log_probs"], self._columns["rollout_log_probs"], self.origin
        )
        self._put({"rollout_log_probs": told})

    def prefer_accepted_calls(self, beta: float, ratio: float) -> dict[str, float]:
        """Move the advantages on the tokens of each pair of calls apart (`cleaner.negatives.dpo`).

        The reference is the reference policy's where the run has one, else what the server said when it sampled. Call
        it after the advantages were computed: rejected calls then carry their trajectory's, which is replaced.

        Returns:
            Metrics `dpo/pairs`, and if there are any the means of margin, strength and adjustment.
        """
        data = tq.kv_batch_get(
            keys=self._batch.keys,
            partition_id=self._batch.partition_id,
            select_fields=["advantages", "returns"],
        )
        advantages = torch.nested.to_padded_tensor(data["advantages"], 0)
        returns = torch.nested.to_padded_tensor(data["returns"], 0)
        pairs = self._pairs()
        # Also of a rejected call without a partner: its trajectory's advantage would reinforce it.
        advantages[[row for row, extra in enumerate(self._extra) if NEGATIVE_KEY in extra]] = 0.0
        if not pairs:
            self._put({"advantages": advantages})
            return {"dpo/pairs": 0.0}
        reference = self._columns.get("ref_log_prob", self._columns.get("rollout_log_probs"))
        gain = (self._columns["old_log_probs"] - reference).double()
        own = torch.stack([advantages[row, tokens[0]] for row, tokens, _, _ in pairs]).double()
        chosen = torch.stack([gain[row, tokens].sum() for row, tokens, _, _ in pairs])
        rejected = torch.stack([gain[row, tokens].sum() for _, _, row, tokens in pairs])
        strength = dpo_strength(chosen, rejected, beta)
        adjustment = dpo_adjustment(strength, own, ratio)
        for number, (row, tokens, negative, call) in enumerate(pairs):
            advantages[row, tokens] += adjustment[number].to(advantages.dtype)
            advantages[negative, call] = -adjustment[number].to(advantages.dtype)
        self._put({"advantages": advantages, "returns": returns})
        return {
            "dpo/pairs": float(len(pairs)),
            "dpo/margin/mean": float((chosen - rejected).mean()),
            "dpo/strength/mean": float(strength.mean()),
            "dpo/adjustment/mean": float(adjustment.mean()),
        }

    def add_terms(self, config: SaarConfig) -> dict[str, float]:
        """Add the terms of `graft_credit: distill` or `contrast` (`cleaner.graft_terms`).

        Call it after the advantages were computed. Samples of their own then carry their trajectory's, which is
        replaced; of those whose gate is closed nothing is trained, nor do their tokens count in the loss's mean.

        Returns:
            Metrics `graft/distill/*`, and with `contrast` `graft/contrast/*`.
        """
        data = tq.kv_batch_get(
            keys=self._batch.keys,
            partition_id=self._batch.partition_id,
            select_fields=["advantages", "rm_scores"],
        )
        advantages = torch.nested.to_padded_tensor(data["advantages"], 0)
        contrast = config.graft_credit == "contrast"
        failing_rows, graft_rows = (
            torch.tensor([key in extra for extra in self._extra]) for key in (NEGATIVE_KEY, GRAFT_KEY)
        )
        advantages[failing_rows | graft_rows] = 0.0
        trained = self._columns["response_mask"] > 0
        failing = trained & failing_rows[:, None]
        grafted = trained & (self.origin == int(Origin.GRAFTED))
        termed = grafted & self._paired(graft_rows) if contrast else grafted
        rewards = [float(scores.sum()) for scores in data["rm_scores"].unbind()]
        accuracies = [(extra.get("reward_extra_info") or {}).get("acc") for extra in self._extra]
        right = torch.tensor(right_answers(rewards, accuracies)).to(advantages.dtype)[:, None]
        always = torch.ones_like(right)
        up = (always if config.credit_gate == "none" else right).expand_as(advantages)
        down = (right if config.credit_gate == "reward" else always).expand_as(advantages)
        weight, signed = config.distill_weight, config.distill_advantage == "signed"
        new = with_graft_term(advantages, grafted, up * termed, weight, signed=signed)
        new = with_failing_term(new, failing, down, weight)
        columns = {"advantages": new}
        closed = (graft_rows[:, None] & (up == 0)) | (failing_rows[:, None] & (down == 0))
        if closed.any():
            columns |= {name: self._columns[name] * ~closed for name in ("response_mask", "loss_mask")}
        self._put(columns)
        metrics = term_metrics("distill", new - advantages, up, termed)
        return metrics | (term_metrics("contrast", new - advantages, down, failing) if contrast else {})

    def _paired(self, graft_rows: torch.Tensor) -> torch.Tensor:
        """(B, T), bool: tokens whose failing call is trained too. Samples of grafts are made of such pairs only."""
        paired = torch.zeros_like(self.origin, dtype=torch.bool)
        for row, extra in enumerate(self._extra):
            paired[row, extra.get("paired_tokens") or []] = True
        return paired | graft_rows[:, None]

    def _pairs(self) -> list[tuple[int, torch.Tensor, int, torch.Tensor]]:
        """(row of the trajectory, tokens of the accepted call, row of the negative sample, tokens of the rejected)."""
        sessions = [key.rsplit("_", 1)[0] for key in self._batch.keys]
        trajectories = {
            session: row
            for row, (session, extra) in enumerate(zip(sessions, self._extra, strict=True))
            if "pairs" in extra
        }
        found = []
        for negative, (session, extra) in enumerate(zip(sessions, self._extra, strict=True)):
            row = trajectories.get(session)
            if NEGATIVE_KEY not in extra or row is None:
                continue
            accepted = torch.tensor(self._extra[row]["pairs"][extra[NEGATIVE_KEY]], dtype=torch.int64)
            accepted = accepted[self._columns["response_mask"][row, accepted] > 0]
            rejected = self._columns["response_mask"][negative].nonzero().flatten()
            if len(accepted) and len(rejected):
                found.append((row, accepted, negative, rejected))
        return found

    def _put(self, columns: dict[str, Any]) -> None:
        """Write columns back to the TransferQueue, without their padding."""
        nested = {name: response_to_nested(values, self._mask_layout) for name, values in columns.items()}
        fields = TensorDict(nested, batch_size=len(self._batch))
        tq.kv_batch_put(keys=self._batch.keys, partition_id=self._batch.partition_id, fields=fields)
