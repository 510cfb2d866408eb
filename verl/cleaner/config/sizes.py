"""Sizes that must fit each other. verl 0.9.1 finds a misfit only after the first batch has been sampled."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from cleaner.errors import ConfigError

_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


def refuse_sizes(config: DictConfig) -> None:
    """Check numbers of GPUs, batch sizes and token limits of a training configuration against each other.

    Raises:
        ConfigError: the first misfit, with what would fit.
    """

    def key(path: str) -> Any:
        return OmegaConf.select(config, path)

    gpus = key("trainer.n_gpus_per_node") * key("trainer.nnodes")
    sequence_parallel = key(f"{_ACTOR}.ulysses_sequence_parallel_size") or 1
    for name, size in (
        (f"{_ACTOR}.ulysses_sequence_parallel_size", sequence_parallel),
        (f"{_ROLLOUT}.tensor_model_parallel_size", key(f"{_ROLLOUT}.tensor_model_parallel_size")),
    ):
        if gpus % size:
            raise ConfigError(
                f"{name}={size} does not divide {gpus} GPUs (trainer.n_gpus_per_node x nnodes)."
            )
    prompts, mini_batch = key("data.train_batch_size"), key(f"{_ACTOR}.ppo_mini_batch_size")
    if mini_batch > prompts:
        raise ConfigError(
            f"{_ACTOR}.ppo_mini_batch_size={mini_batch} is larger than data.train_batch_size={prompts}."
        )
    trajectories, ranks = mini_batch * key(f"{_ROLLOUT}.n"), gpus // sequence_parallel
    if trajectories % ranks:
        raise ConfigError(
            f"a mini-batch of {mini_batch} x {key(f'{_ROLLOUT}.n')} = {trajectories} trajectories cannot be shared by "
            f"{ranks} data-parallel ranks. Change {_ACTOR}.ppo_mini_batch_size or the number of GPUs."
        )
    longest = key("data.max_prompt_length") + key("data.max_response_length")
    if (room := key(f"{_ROLLOUT}.max_model_len")) is not None and room < longest:
        raise ConfigError(
            f"{_ROLLOUT}.max_model_len={room} is less than prompt and response together, {longest} tokens."
        )
    if key(f"{_ACTOR}.use_dynamic_bsz"):
        _refuse_small_batches(key, longest, sequence_parallel)


def _refuse_small_batches(key: Any, longest: int, sequence_parallel: int) -> None:
    for name in (f"{_ACTOR}.ppo_max_token_len_per_gpu", f"{_ROLLOUT}.log_prob_max_token_len_per_gpu"):
        if key(name) * sequence_parallel < longest:
            raise ConfigError(
                f"{name}={key(name)} cannot hold one trajectory: prompt and response may have {longest} tokens "
                f"together. Set it to {-(-longest // sequence_parallel)} or more."
            )
