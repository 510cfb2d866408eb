"""What a configuration decides, as a table: what a reader of a paper asks for, and the key that changes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cleaner.config.precision import actor_precision, precision_name

_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
_MULTI_TURN, _CORRECTION = f"{_ROLLOUT}.multi_turn", "algorithm.rollout_correction"


@dataclass(frozen=True)
class Decision:
    """One line: what is decided, the value as text, and the keys that it comes from."""

    what: str
    value: str
    keys: str


def decisions(config: DictConfig) -> list[Decision]:
    """The table of a training or evaluation configuration; interpolations must be resolvable."""
    update = () if config.trainer.val_only else _UPDATE
    return [_line(config, *row) for row in (*_SAMPLING, *update, *_TOOLS, *_MACHINE)]


def sft_decisions(config: DictConfig) -> list[Decision]:
    """The table of a configuration of verl's SFT trainer."""
    return [_line(config, *row) for row in _SFT]


def as_text(table: Sequence[Decision], width: int = 44) -> str:
    """The table with aligned columns; a longer value pushes its keys to the next line.

    Keys of `actor_rollout_ref` are shown without that prefix.
    """
    first = max(len(row.what) for row in table)
    second = min(width, max(len(row.value) for row in table))
    lines = []
    for row in table:
        start = f"  {row.what:<{first}}  {row.value:<{second}}"
        separator = "\n" + " " * (first + second + 4) if len(row.value) > second else ""
        keys = row.keys.replace("actor_rollout_ref.", "")
        lines.append(f"{start}{separator}  {keys}".rstrip())
    return "\n".join(lines)


def _line(config: DictConfig, what: str, keys: Sequence[str], show: Callable[..., str]) -> Decision:
    return Decision(what, show(*(_value(config, key) for key in keys)), _joined(keys))


def _value(config: DictConfig, key: str) -> Any:
    found = OmegaConf.select(config, key)
    return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found


def _joined(keys: Sequence[str]) -> str:
    """Keys of one group as `group.{a, b}`."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        group, _, name = key.rpartition(".")
        groups.setdefault(group, []).append(name)
    return ", ".join(
        f"{group}.{names[0]}".lstrip(".") if len(names) == 1 else f"{group}.{{{', '.join(names)}}}"
        for group, names in groups.items()
    )


def _plain(*values: Any) -> str:
    return " / ".join(_shown(value) for value in values)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def _batch(prompts: int, samples: int, mini_batch: int) -> str:
    return f"{prompts} x {samples} / {mini_batch}"


def _turns(enabled: bool, user: int | None, assistant: int | None) -> str:
    return f"{_shown(user)} / {_shown(assistant)}" if enabled else "off (a single turn, no tool)"


def _rollback(strategy: str, probability: float, retries: int, gamma: float) -> str:
    if strategy != "saar":
        return f"off (strategy {strategy})"
    return f"on: probability {probability:g}, K {retries}, gamma {gamma:g}"


def _correction(level: str | None, threshold: float) -> str:
    return "off" if level is None else f"{level}, threshold {threshold:g}"


def _dynamic(enabled: bool, update: int, log_prob: int) -> str:
    return f"{_shown(enabled)}: {_shown(update)} / {_shown(log_prob)}"


def _formats(engine: dict[str, Any], rollout: str) -> str:
    used = actor_precision(engine)
    note = ", with loss scaling" if used == "float16" else ""
    spelt = rollout if rollout in ("auto", "float64") else precision_name(rollout, f"{_ROLLOUT}.dtype")
    return f"{used}{note} / {spelt}"


def _overlong(settings: dict[str, Any] | None) -> str:
    if not settings or not settings.get("enable"):
        return "none"
    return f"from the last {_shown(settings['len'])} tokens on, factor {settings['penalty_factor']:g}"


def _reward(manager: str, path: str | None, name: str) -> str:
    return f"{manager}: {path or 'verl.utils.reward_score'}, {name}"


def _of(group: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{group}.{name}" for name in names)


_Row = tuple[str, Sequence[str], Callable[..., str]]

_SAMPLING: tuple[_Row, ...] = (
    ("model", ("actor_rollout_ref.model.path",), _plain),
    ("validation rows", ("data.val_files",), _plain),
    ("validation temperature / top_p / n", _of(f"{_ROLLOUT}.val_kwargs", "temperature", "top_p", "n"), _plain),
    ("prompt / response tokens", _of("data", "max_prompt_length", "max_response_length"), _plain),
    ("user / assistant turns", _of(_MULTI_TURN, "enable", "max_user_turns", "max_assistant_turns"), _turns),
    ("rollback", ("cleaner.strategy", *_of("cleaner.saar", "rollback_probability", "max_retries", "gamma")), _rollback),
    ("rollback in validation", ("cleaner.saar.rollback_in_validation",), _plain),
    ("reward", ("reward.reward_manager.name", *_of("reward.custom_reward_function", "path", "name")), _reward),
    ("overlong penalty", ("reward.reward_kwargs.overlong_buffer_cfg",), _overlong),
)  # fmt: skip

_UPDATE: tuple[_Row, ...] = (
    ("training rows", ("data.train_files",), _plain),
    ("learning rate / warm-up steps", _of(f"{_ACTOR}.optim", "lr", "lr_warmup_steps"), _plain),
    ("prompts x samples / mini-batch",
     ("data.train_batch_size", f"{_ROLLOUT}.n", f"{_ACTOR}.ppo_mini_batch_size"), _batch),
    ("rollout temperature / top_p", _of(_ROLLOUT, "temperature", "top_p"), _plain),
    ("epochs / steps", _of("trainer", "total_epochs", "total_training_steps"), _plain),
    ("clip low / high / c", _of(_ACTOR, "clip_ratio_low", "clip_ratio_high", "clip_ratio_c"), _plain),
    ("gradient clip", (f"{_ACTOR}.optim.clip_grad",), _plain),
    ("KL in reward / in loss", ("algorithm.use_kl_in_reward", f"{_ACTOR}.use_kl_loss"), _plain),
    ("advantage / aggregation", ("algorithm.adv_estimator", f"{_ACTOR}.loss_agg_mode"), _plain),
    ("rollout_is", _of(_CORRECTION, "rollout_is", "rollout_is_threshold"), _correction),
    ("log-probabilities of sampling", (f"{_ROLLOUT}.calculate_log_probs",), _plain),
    ("save / test every", _of("trainer", "save_freq", "test_freq"), _plain),
)  # fmt: skip

_TOOLS: tuple[_Row, ...] = (
    ("tool call format", (f"{_MULTI_TURN}.format",), _plain),
    ("tool configuration", (f"{_MULTI_TURN}.tool_config_path",), _plain),
    ("tool response, characters", (f"{_MULTI_TURN}.max_tool_response_length",), _plain),
    ("agent loop", (f"{_ROLLOUT}.agent.default_agent_loop",), _plain),
)

_MACHINE: tuple[_Row, ...] = (
    ("GPUs of a node / nodes", _of("trainer", "n_gpus_per_node", "nnodes"), _plain),
    ("engine / mode / memory share", _of(_ROLLOUT, "name", "mode", "gpu_memory_utilization"), _plain),
    ("dtype of actor / rollout", (f"{_ACTOR}.fsdp_config", f"{_ROLLOUT}.dtype"), _formats),
    ("strategy", (f"{_ACTOR}.strategy",), _plain),
    (
        "parameter / optimizer offload",
        _of(f"{_ACTOR}.fsdp_config", "param_offload", "optimizer_offload"),
        _plain,
    ),
    (
        "tensor / sequence parallel",
        (f"{_ROLLOUT}.tensor_model_parallel_size", f"{_ACTOR}.ulysses_sequence_parallel_size"),
        _plain,
    ),
    (
        "gradient checkpointing / remove padding",
        _of("actor_rollout_ref.model", "enable_gradient_checkpointing", "use_remove_padding"),
        _plain,
    ),
    (
        "fused kernels / backend",
        ("actor_rollout_ref.model.use_fused_kernels", "actor_rollout_ref.model.fused_kernel_options.impl_backend"),
        _plain,
    ),
    (
        "dynamic batch, tokens a GPU: update / log-prob",
        (
            f"{_ACTOR}.use_dynamic_bsz",
            f"{_ACTOR}.ppo_max_token_len_per_gpu",
            f"{_ROLLOUT}.log_prob_max_token_len_per_gpu",
        ),
        _dynamic,
    ),
    ("validation only", ("trainer.val_only",), _plain),
    ("loggers", ("trainer.logger",), _plain),
    ("trajectories recorded", ("cleaner.record",), _plain),
    ("resume", _of("trainer", "resume_mode", "resume_from_path"), _plain),
    ("seed", ("cleaner.seed",), _plain),
    ("output", ("cleaner.output_dir",), _plain),
)  # fmt: skip

_SFT: tuple[_Row, ...] = (
    ("model", ("model.path",), _plain),
    ("conversations", ("data.train_files",), _plain),
    ("validation conversations", ("data.val_files",), _plain),
    ("columns of messages / tools", _of("data", "messages_key", "tools_key"), _plain),
    ("batch / epochs", ("data.train_batch_size", "trainer.total_epochs"), _plain),
    ("longest conversation / beyond that", _of("data", "max_length", "truncation"), _plain),
    ("learning rate / warm-up share / schedule",
     _of("optim", "lr", "lr_warmup_steps_ratio", "lr_scheduler_type"), _plain),
    ("gradient clip", ("optim.clip_grad",), _plain),
    ("dtype", ("engine",), lambda engine: actor_precision(engine, "engine")),
    ("strategy / sequence parallel", _of("engine", "strategy", "ulysses_sequence_parallel_size"), _plain),
    ("gradient checkpointing / remove padding",
     _of("model", "enable_gradient_checkpointing", "use_remove_padding"), _plain),
    ("dynamic batch / tokens a GPU", _of("data", "use_dynamic_bsz", "max_token_len_per_gpu"), _plain),
    ("GPUs of a node / nodes", _of("trainer", "n_gpus_per_node", "nnodes"), _plain),
    ("save / test every", _of("trainer", "save_freq", "test_freq"), _plain),
    ("saved", ("checkpoint.save_contents",), _plain),
    ("loggers", ("trainer.logger",), _plain),
    ("resume", _of("trainer", "resume_mode", "resume_from_path"), _plain),
    ("seed", ("trainer.seed",), _plain),
    ("checkpoints", ("trainer.default_local_dir",), _plain),
)  # fmt: skip
