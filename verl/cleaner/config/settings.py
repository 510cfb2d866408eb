"""CLEANER's own part of the run configuration: read from Hydra, completed by the documented keys, checked.

Nothing starts before this has passed: every key is known, every value is in its range, and combinations that would
train something else than they say are refused.
"""

import difflib
from dataclasses import dataclass, fields
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict

from cleaner.errors import ConfigError
from cleaner.saar.config import SaarConfig

# Documented keys of CLEANER under actor_rollout_ref.rollout.multi_turn -> keys of cleaner.saar.
DOCUMENTED_KEYS = {
    "enable_tool_rollback": "enabled",
    "max_tool_retries": "max_retries",
    "rollback_probability": "rollback_probability",
    "rollback_on_errors": "rollback_on",
}
# Documented keys whose function this version does not have, with the value that means "off".
NOT_YET = {
    "actor_rollout_ref.rollout.multi_turn.save_negative_samples": False,
    "actor_rollout_ref.rollout.multi_turn.max_negative_samples_per_group": None,
    "algorithm.use_dpo_on_tool_calls": False,
    "algorithm.dpo_beta": None,
    "algorithm.dpo_max_adjustment_ratio": None,
}


@dataclass(frozen=True)
class CleanerConfig:
    """The group `cleaner` of the run configuration.

    Attributes:
        output_dir: folder of metrics, trajectories, checkpoints.
        seed: non-negative; sampling, rollback decisions and data order follow from it.
        record: write trajectories with their repairs.
        saar: the rollback.
    """

    output_dir: str
    seed: int
    record: bool
    saar: SaarConfig


def adopt_documented_keys(config: DictConfig) -> None:
    """Move CLEANER's documented keys from verl's groups, where verl would refuse them, into `cleaner.saar`.

    Raises:
        ConfigError: a key of a function that this version does not have is switched on, or a documented key
            contradicts its counterpart in `cleaner.saar`.
    """
    with open_dict(config):
        for path, off in NOT_YET.items():
            parent_path, key = path.rsplit(".", 1)
            parent = OmegaConf.select(config, parent_path)
            value = parent.pop(key, off)
            if off is False and value not in (off, None):
                raise ConfigError(
                    f"{path}={value}: this version of CLEANER does not have it yet; leave it out."
                )
        multi_turn = config.actor_rollout_ref.rollout.multi_turn
        for documented, ours in DOCUMENTED_KEYS.items():
            if documented in multi_turn:
                config.cleaner.saar[ours] = multi_turn.pop(documented)
        _refuse_unknown_multi_turn_keys(multi_turn)


def _refuse_unknown_multi_turn_keys(multi_turn: DictConfig) -> None:
    from verl.workers.config import MultiTurnConfig

    known = {field.name for field in fields(MultiTurnConfig)} | set(DOCUMENTED_KEYS) | {"_target_"}
    for key in map(str, multi_turn):
        if key not in known:
            raise ConfigError(_unknown(f"actor_rollout_ref.rollout.multi_turn.{key}", key, known))


def read_settings(config: DictConfig) -> CleanerConfig:
    """The checked group `cleaner`.

    Raises:
        ConfigError: names the key, the bad value and what would be right.
    """
    group = cast(dict[str, Any], OmegaConf.to_container(config.cleaner, resolve=True))
    known = {field.name for field in fields(CleanerConfig)}
    for key in group:
        if key not in known:
            raise ConfigError(_unknown(f"cleaner.{key}", key, known))
    seed = group["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(f"cleaner.seed={seed!r} must be an integer >= 0.")
    if not isinstance(group["record"], bool):
        raise ConfigError(f"cleaner.record={group['record']!r} must be true or false.")
    saar = SaarConfig.from_mapping(group["saar"])
    _refuse_combinations(config, saar)
    return CleanerConfig(output_dir=str(group["output_dir"]), seed=seed, record=group["record"], saar=saar)


def _refuse_combinations(config: DictConfig, saar: SaarConfig) -> None:
    if not saar.enabled:
        return
    if OmegaConf.select(config, "algorithm.rollout_correction.rollout_is"):
        raise ConfigError(
            "algorithm.rollout_correction.rollout_is with cleaner.saar.enabled=true: grafted tokens keep the "
            "log-probability of the context in which they were sampled, so this correction would weigh them against "
            "the wrong distribution. Set algorithm.rollout_correction.rollout_is=null."
        )
    if OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode"):
        raise ConfigError(
            "algorithm.rollout_correction.bypass_mode=true with cleaner.saar.enabled=true would train grafted tokens "
            "on log-probabilities of another context. Set it to false."
        )
    if not OmegaConf.select(config, "actor_rollout_ref.rollout.multi_turn.enable"):
        raise ConfigError(
            "cleaner.saar.enabled=true needs tool calls: set actor_rollout_ref.rollout.multi_turn.enable=true."
        )


def _unknown(path: str, key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown key {path}.{hint} Valid keys: {', '.join(sorted(known - {'_target_'}))}."
