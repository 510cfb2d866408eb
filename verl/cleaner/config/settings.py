"""CLEANER's own part of the run configuration: read from Hydra and checked.

Nothing starts before this has passed: every key is known, every value is in its range, and combinations that would
train something else than they say are refused (`cleaner.config.combinations`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from cleaner.config.combinations import refuse_combinations
from cleaner.errors import ConfigError
from cleaner.saar.config import SaarConfig
from cleaner.saar.setting_checks import check_bool, check_int, did_you_mean, known_keys, number_in
from cleaner.saar.strategy import Strategy, make_strategy
from cleaner.token_budget import BudgetConfig


@dataclass(frozen=True)
class NegativesConfig:
    """What is done with failing calls that were repaired. Experimental: the paper's online DPO on them collapsed.

    Attributes:
        save: write (context, rejected call, accepted call) to `negatives.jsonl`; `cleaner pairs` exports it.
        max_per_group: most pairs of a group that are saved or trained; None: all.
        dpo: train the two calls of each pair against each other, by an adjustment of the advantages on their tokens.
        dpo_beta: > 0, strength of it. 0.1 is the usual choice in DPO (arXiv 2305.18290).
        dpo_max_adjustment_ratio: in [0, 1], most that an advantage is moved, as a share of it.
    """

    save: bool = False
    max_per_group: int | None = None
    dpo: bool = False
    dpo_beta: float = 0.1
    dpo_max_adjustment_ratio: float = 0.5

    def __post_init__(self) -> None:
        path = "cleaner.negatives."
        for key in ("save", "dpo"):
            check_bool(path + key, getattr(self, key))
        if self.max_per_group is not None:
            check_int(path + "max_per_group", self.max_per_group, 0, "or null (all)")
        number_in(path + "dpo_beta", self.dpo_beta, 0.0, above=True)
        number_in(path + "dpo_max_adjustment_ratio", self.dpo_max_adjustment_ratio, 0.0, 1.0)


@dataclass(frozen=True)
class FailuresConfig:
    """When failed trajectories (an exception in the agent loop, the reward, ...) end the run.

    Attributes:
        strict: at the first one.
        max_share: in [0, 1], where more than this share of a step's trajectories failed.
    """

    strict: bool = False
    max_share: float = 0.5

    def __post_init__(self) -> None:
        check_bool("cleaner.failures.strict", self.strict)
        number_in("cleaner.failures.max_share", self.max_share, 0.0, 1.0)


@dataclass(frozen=True)
class CleanerConfig:
    """The group `cleaner` of the run configuration.

    Attributes:
        output_dir: folder of metrics, trajectories, checkpoints.
        seed: non-negative; sampling, rollback decisions and data order follow from it.
        record: write trajectories with their repairs.
        save_samples: write the samples of each validation to `samples.jsonl`; None: where `trainer.val_only` is on.
        strategy: what is done about failing calls, by name: see `cleaner.saar.strategy`.
        saar, retry_trajectory, roc: settings of the strategies.
        failure_penalty: lambda >= 0, taken off the reward in training for each failed call; `cleaner.failure_penalty`.
        negatives: negative samples. failures: failed trajectories. budget: where the run ends.
    """

    output_dir: str
    seed: int
    record: bool = False
    save_samples: bool | None = None
    strategy: str = "none"
    saar: SaarConfig = field(default_factory=SaarConfig)
    retry_trajectory: Mapping[str, Any] = field(default_factory=dict)
    roc: Mapping[str, Any] = field(default_factory=dict)
    failure_penalty: float = 0.0
    negatives: NegativesConfig = field(default_factory=NegativesConfig)
    failures: FailuresConfig = field(default_factory=FailuresConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)

    def make_strategy(self) -> Strategy:
        return make_strategy({"strategy": self.strategy, "retry_trajectory": self.retry_trajectory, "roc": self.roc,
                              "saar": vars(self.saar)})  # fmt: skip


def read_settings(config: DictConfig) -> CleanerConfig:
    """The checked group `cleaner`.

    Raises:
        ConfigError: names the key, the bad value and what would be right.
    """
    group = cast(dict[str, Any], OmegaConf.to_container(config.cleaner, resolve=True))
    known = [item.name for item in fields(CleanerConfig)]
    for key in group:
        if key not in known:
            raise ConfigError(
                f"unknown key cleaner.{key}.{did_you_mean(key, known)} Valid keys: {', '.join(known)}."
            )
    check_int("cleaner.seed", group["seed"], 0)
    check_bool("cleaner.record", group["record"])
    if group.get("save_samples") is not None:
        check_bool("cleaner.save_samples", group["save_samples"])
    make_strategy(group)
    penalty = number_in("cleaner.failure_penalty", group.get("failure_penalty", 0.0), 0.0)
    negatives = NegativesConfig(**known_keys(NegativesConfig, "cleaner.negatives", group.get("negatives")))
    failures = FailuresConfig(**known_keys(FailuresConfig, "cleaner.failures", group.get("failures")))
    settings = CleanerConfig(
        **{
            **group,
            "saar": SaarConfig.from_mapping(group.get("saar")),
            "failure_penalty": penalty,
            "negatives": negatives,
            "failures": failures,
            "budget": BudgetConfig(**known_keys(BudgetConfig, "cleaner.budget", group.get("budget"))),
        }
    )
    refuse_combinations(config, settings)
    return settings
