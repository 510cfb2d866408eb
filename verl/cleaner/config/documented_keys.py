"""CLEANER's documented keys, which stand in verl's groups, moved to where they belong: the group `cleaner`.

verl would refuse them where they are. Both spellings mean the same; of two that are given, the documented one counts.
"""

import difflib
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from cleaner.errors import ConfigError

_MULTI_TURN = "actor_rollout_ref.rollout.multi_turn"
# Documented key -> key of ours.
DOCUMENTED_KEYS = {
    f"{_MULTI_TURN}.enable_tool_rollback": "cleaner.strategy",
    f"{_MULTI_TURN}.max_tool_retries": "cleaner.saar.max_retries",
    f"{_MULTI_TURN}.rollback_probability": "cleaner.saar.rollback_probability",
    f"{_MULTI_TURN}.rollback_on_errors": "cleaner.saar.rollback_on",
    f"{_MULTI_TURN}.save_negative_samples": "cleaner.negatives.save",
    f"{_MULTI_TURN}.max_negative_samples_per_group": "cleaner.negatives.max_per_group",
    "algorithm.use_dpo_on_tool_calls": "cleaner.negatives.dpo",
    "algorithm.dpo_beta": "cleaner.negatives.dpo_beta",
    "algorithm.dpo_max_adjustment_ratio": "cleaner.negatives.dpo_max_adjustment_ratio",
}


def adopt_documented_keys(config: DictConfig) -> None:
    """Move the documented keys, in place.

    Raises:
        ConfigError: a misspelt key in verl's multi-turn group, or a switch that is neither true nor false.
    """
    with open_dict(config):
        for documented, ours in DOCUMENTED_KEYS.items():
            parent, key = documented.rsplit(".", 1)
            group = OmegaConf.select(config, parent)
            if key in group:
                OmegaConf.update(config, ours, _translated(documented, group.pop(key)), force_add=True)
        _refuse_unknown_multi_turn_keys(OmegaConf.select(config, _MULTI_TURN))


def _translated(documented: str, value: Any) -> Any:
    if not documented.endswith(".enable_tool_rollback"):
        return value
    if not isinstance(value, bool):
        raise ConfigError(f"{documented}={value!r} must be true or false.")
    return "saar" if value else "none"


def _refuse_unknown_multi_turn_keys(multi_turn: DictConfig) -> None:
    from verl.workers.config import MultiTurnConfig

    documented = {path.rsplit(".", 1)[1] for path in DOCUMENTED_KEYS if path.startswith(_MULTI_TURN)}
    known = {field.name for field in fields(MultiTurnConfig)} | documented
    for key in map(str, multi_turn):
        if key not in known and key != "_target_":
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"unknown key {_MULTI_TURN}.{key}.{hint} Valid keys: {', '.join(sorted(known))}."
            )
