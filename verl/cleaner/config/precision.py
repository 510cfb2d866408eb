"""Number formats of actor and rollout, spelt as verl and the engines understand them."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from cleaner.errors import ConfigError

_ENGINE = "actor_rollout_ref.actor.fsdp_config"
_ROLLOUT = "actor_rollout_ref.rollout.dtype"
_NAMES = {
    "float16": ("float16", "fp16", "half"),
    "bfloat16": ("bfloat16", "bf16"),
    "float32": ("float32", "fp32", "float"),
}
# verl's FSDP engine takes this format where no mixed precision is configured, whatever `dtype` says (verl issue 8076).
_UNCONFIGURED = "bfloat16"


def precision_name(value: Any, path: str) -> str:
    """`float16`, `bfloat16` or `float32` for any of their spellings.

    Raises:
        ConfigError: it is none of them.
    """
    for name, spellings in _NAMES.items():
        if value in spellings:
            return name
    raise ConfigError(f"{path}={value!r} must be {', '.join(_NAMES)}.")


def actor_precision(engine: Any, path: str = _ENGINE) -> str:
    """The format in which verl 0.9.1's FSDP engine computes.

    Args:
        engine: verl's group `fsdp_config` (or the SFT trainer's `engine`).
        path: its name, for messages.

    Raises:
        ConfigError: an unknown format, or a `dtype` that the engine would not follow.
    """
    mixed = engine.get("mixed_precision") or {}
    for name in ("reduce_dtype", "buffer_dtype"):
        precision_name(mixed.get(name, "float32"), f"{path}.mixed_precision.{name}")
    used = precision_name(mixed.get("param_dtype", _UNCONFIGURED), f"{path}.mixed_precision.param_dtype")
    wanted = precision_name(engine.get("dtype", _UNCONFIGURED), f"{path}.dtype")
    if wanted not in (used, _UNCONFIGURED):
        raise ConfigError(
            f"{path}.dtype={engine.dtype} would have no effect: verl 0.9.1's FSDP engine computes in "
            f"{path}.mixed_precision.param_dtype ({used}). Set that one."
        )
    return used


def refuse_precision(config: DictConfig) -> None:
    """Check the formats of a training configuration.

    Raises:
        ConfigError: names the key and what is right.
    """
    if OmegaConf.select(config, "actor_rollout_ref.actor.strategy") in ("fsdp", "fsdp2"):
        actor_precision(config.actor_rollout_ref.actor.fsdp_config)
    rollout = config.actor_rollout_ref.rollout
    # Our own server knows more formats and checks them itself; `auto` leaves the choice to the engine.
    if rollout.name in ("sglang", "vllm") and rollout.dtype != "auto":
        precision_name(rollout.dtype, _ROLLOUT)
