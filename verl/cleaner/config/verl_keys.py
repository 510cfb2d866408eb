"""Keys of a composed configuration that the installed verl does not have.

Hydra refuses an unknown key on the command line, but not in a YAML file of ours, and verl ignores what it does not
read. So a key that verl renamed would be lost without a word.
"""

import difflib
import importlib.resources
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from cleaner.errors import ConfigError

_FLAT = "_generated_ppo_trainer.yaml"
# Groups of our own, what verl's defaults list chooses by, and mappings whose keys are for others to name: engines,
# reward functions, chat templates.
_FREE = (
    "cleaner",
    "model_engine",
    "trainer.v1.cleaner_sync",
    "reward.reward_kwargs",
    "reward.custom_reward_function.reward_kwargs",
    "actor_rollout_ref.rollout.engine_kwargs",
    "actor_rollout_ref.rollout.custom",
    "actor_rollout_ref.model.override_config",
    "data.apply_chat_template_kwargs",
    "data.custom_cls",
    "ray_kwargs.ray_init",
    "transfer_queue",
)


def upstream_config(name: str = _FLAT) -> dict[str, Any]:
    """A file of verl's own configuration; by default the trainer's whole one, as verl flattens it."""
    text = importlib.resources.files("verl.trainer.config").joinpath(name).read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def upstream_sft_config() -> dict[str, Any]:
    """verl's configuration of its SFT trainer, with the groups that `sft_trainer_engine.yaml` composes."""
    groups = {
        "model": "model/hf_model",
        "engine": "engine/fsdp",
        "optim": "optim/fsdp",
        "profiler": "profiler/profiler",
    }
    composed = {key: upstream_config(f"{name}.yaml") for key, name in groups.items()}
    return {**upstream_config("sft_trainer_engine.yaml"), **composed}


def refuse_unknown_keys(config: DictConfig, upstream: Mapping[str, Any] | None = None) -> None:
    """Check every key of `config` against verl's configuration and against the dataclasses that it names.

    Args:
        config: as composed.
        upstream: what verl has; by default the trainer's configuration.

    Raises:
        ConfigError: with all unknown keys, each with the nearest known one.
    """
    known = upstream_config() if upstream is None else upstream
    problems = list(_unknown(config, known, ""))
    if problems:
        raise ConfigError("verl 0.9.1 has no key " + "; ".join(problems) + ".")


def _unknown(ours: DictConfig, theirs: Mapping[str, Any], path: str) -> Iterator[str]:
    names = set(theirs) | _field_names(ours)
    for key in map(str, ours):
        where = f"{path}.{key}" if path else key
        if where in _FREE or key == "_target_":
            continue
        if key not in names:
            close = difflib.get_close_matches(key, sorted(names), n=1)
            yield where + (f" (did you mean {close[0]!r}?)" if close else "")
            continue
        value, below = ours._get_node(key), theirs.get(key)
        if not isinstance(value, DictConfig) or value._is_none() or value._is_interpolation():
            continue
        if below or "_target_" in value:
            yield from _unknown(value, below if isinstance(below, Mapping) else {}, where)


def _field_names(config: DictConfig) -> set[str]:
    """Fields of the dataclass that `_target_` names."""
    target = config.get("_target_")
    if not target:
        return set()
    from hydra.utils import get_class

    found = get_class(target)
    return {item.name for item in fields(found)} if is_dataclass(found) else set()


def check_group(config: Mapping[str, Any], kind: type, path: str) -> None:
    """Check types and values of a group against verl's dataclass, without making one.

    For classes that read files when they are made.

    Raises:
        ConfigError: names the group and verl's or OmegaConf's reason.
    """
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.merge(OmegaConf.structured(kind), config)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
