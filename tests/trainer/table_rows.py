"""Rows of a batch in a real TransferQueue, and a trainer of which enough is made to compute their advantages.

A response is written as its tokens' origins: S sampled, G grafted, X excluded, O observation. Log-probabilities are
drawn, and differ between actor and server on every token, not on grafts only.
"""

import copy
import math
import zlib
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transfer_queue as tq
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from cleaner.config.settings import read_settings
from cleaner.saar.trajectory import Origin
from cleaner.trainer import CleanerTrainer
from cleaner.trajectory_rows import GRAFT_KEY, NEGATIVE_KEY

ORIGINS = {"S": Origin.SAMPLED, "G": Origin.GRAFTED, "X": Origin.EXCLUDED, "O": Origin.OBSERVATION}
CAP = 1.5
BETA = 0.1
# What GRPO gives the better and the worse of two.
HALF = math.sqrt(0.5)


@dataclass
class Row:
    """A row of the TransferQueue.

    `pairs`, `paired`: of a trajectory with negatives. `negative_of`, `graft_of`: of a sample that is no trajectory.
    `failed`: failed calls in the trajectory. `accuracy`: what the reward function says of it.
    """

    key: str
    tokens: str
    reward: float = 0.0
    pairs: list[list[int]] | None = None
    negative_of: int | None = None
    infrastructure: int = 0
    graft_of: int | None = None
    paired: list[int] | None = None
    failed: int = 0
    accuracy: object = None
    log_probs: dict[str, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(zlib.crc32(self.key.encode()))
        names = ("old_log_probs", "rollout_log_probs", "ref_log_prob")
        self.log_probs = {name: -2 * torch.rand(len(self.tokens), generator=generator) for name in names}

    @property
    def origin(self) -> list[int]:
        return [int(ORIGINS[token]) for token in self.tokens]

    @property
    def mask(self) -> list[int]:
        return [int(token in "SG") for token in self.tokens]

    def fields(self) -> dict[str, Any]:
        uid, session, _ = self.key.rsplit("_", 2)
        extra: dict[str, Any] = {"token_origin": self.origin}
        if self.negative_of is not None:
            extra[NEGATIVE_KEY] = self.negative_of
        elif self.graft_of is not None:
            extra[GRAFT_KEY] = self.graft_of
        else:
            calls = {"final_calls": self.failed + 2, "final_calls_ok": 2}
            extra["saar"] = {"infrastructure": self.infrastructure, **calls}
        if self.pairs is not None:
            extra["pairs"] = self.pairs
        if self.paired is not None:
            extra["paired_tokens"] = self.paired
        if self.accuracy is not None:
            extra["reward_extra_info"] = {"acc": self.accuracy}
        scores = torch.zeros(len(self.tokens))
        scores[-1] = self.reward
        return {
            "uid": uid, "index": ord(uid), "session_id": int(session), "data_source": "test",
            "prompts": torch.tensor([5, 6]), "responses": torch.full((len(self.tokens),), 8),
            "rm_scores": scores, "response_mask": torch.tensor(self.mask), "loss_mask": torch.tensor(self.mask),
            "rollout_log_probs": self.log_probs["rollout_log_probs"], "extra_fields": extra,
        }  # fmt: skip


def put_rows(
    rows: list[Row], *, reference: bool = False, sampled: bool = True, multiple: int = 1
) -> KVBatchMeta:
    """Rows as the agent loop leaves them, padded by verl to a multiple, then scored by the actor."""
    keys = [row.key for row in rows]
    fields = list_of_dict_to_tensordict([row.fields() for row in rows])
    if not sampled:
        del fields["rollout_log_probs"]
    tags = [{"status": "success", "seq_len": 2 + len(row.tokens)} for row in rows]
    tq.kv_batch_put(keys=keys, fields=fields, tags=tags, partition_id="train")
    meta = KVBatchMeta(partition_id="train", keys=keys, tags=tags)
    batch = upsample_batch_to_divisible_size(meta, multiple, eos_token_id=0)
    scores = {
        name: torch.nested.as_nested_tensor(
            [*(row.log_probs[name] for row in rows), *([torch.zeros(1)] * (len(batch) - len(rows)))],
            layout=torch.jagged,
        )
        for name in ("old_log_probs", *(["ref_log_prob"] if reference else []))
    }
    tq.kv_batch_put(keys=batch.keys, partition_id="train", fields=TensorDict(scores, batch_size=len(batch)))
    return batch


def column(batch: KVBatchMeta, name: str) -> dict[str, list[float]]:
    """Values of a column by key, each of its row's length."""
    data = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=[name])
    return dict(zip(batch.keys, [row.tolist() for row in data[name].unbind()], strict=True))


@cache
def _composed() -> DictConfig:
    with initialize_config_module("cleaner.config", version_base=None):
        return compose(
            "cleaner",
            overrides=[
                "actor_rollout_ref.rollout.name=hf_server",
                "actor_rollout_ref.rollout.multi_turn.enable=true",
                "actor_rollout_ref.rollout.calculate_log_probs=true",
                "cleaner.strategy=saar",
                f"cleaner.saar.graft_weight_cap={CAP}",
                f"cleaner.negatives.dpo_beta={BETA}",
            ],
        )


def configure(*overrides: str) -> DictConfig:
    config = copy.deepcopy(_composed())
    config.merge_with_dotlist(list(overrides))
    return config


def make_trainer(*overrides: str) -> CleanerTrainer:
    """A trainer of which only its settings are made: enough to compute advantages."""
    trainer = CleanerTrainer.__new__(CleanerTrainer)
    trainer.config = configure(*overrides)
    trainer._settings = read_settings(trainer.config)
    trainer._strategy = trainer._settings.make_strategy()
    return trainer
