"""Combinations of settings that would train something else than they say, refused with the reason and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from cleaner.errors import ConfigError
from cleaner.saar.config import TERMS

if TYPE_CHECKING:
    from cleaner.config.settings import CleanerConfig

_CORRECTION = "algorithm.rollout_correction"
_OTHER_LOOPS = ("tool_agent", "single_turn_agent")
# verl's policy losses that take the ratio, or the advantage too, of a whole response.
_SEQUENCE_LOSSES = ("gspo", "geo_mean")
# Servers that give log-probabilities of given tokens; of these, ours at the sampling temperature.
_SCORING_SERVERS = ("hf_server", "vllm", "sglang")


def refuse_combinations(config: DictConfig, settings: CleanerConfig) -> None:
    """Check `settings` against each other and against verl's keys in `config`.

    Raises:
        ConfigError: the first combination that makes no sense.
    """

    def key(path: str) -> Any:
        return OmegaConf.select(config, path)

    _refuse_filter(key, settings)
    if key("trainer.v1.sampler.sync_refill_failed_groups"):
        raise ConfigError(
            "trainer.v1.sampler.sync_refill_failed_groups=true has no effect here: failed trajectories are recorded, "
            "and their group goes on without them. Set it to false, and cleaner.failures.max_share to what you accept."
        )
    negatives = settings.negatives
    if settings.strategy != "saar" and (negatives.save or negatives.dpo):
        switch = "save" if negatives.save else "dpo"
        raise ConfigError(
            f"cleaner.negatives.{switch}=true with cleaner.strategy={settings.strategy}: negative samples come from "
            "repairs, and only cleaner.strategy=saar repairs."
        )
    if settings.failure_penalty:
        _refuse_with_penalty(key)
    if settings.strategy == "none":
        return
    if not key("actor_rollout_ref.rollout.multi_turn.enable"):
        raise ConfigError(
            f"cleaner.strategy={settings.strategy} needs tool calls: set "
            "actor_rollout_ref.rollout.multi_turn.enable=true."
        )
    if (loop := key("actor_rollout_ref.rollout.agent.default_agent_loop")) in _OTHER_LOOPS:
        raise ConfigError(
            f"cleaner.strategy={settings.strategy} with "
            f"actor_rollout_ref.rollout.agent.default_agent_loop={loop}: that agent loop would ignore it. Use "
            "cleaner_agent."
        )
    colocated = key("reward.reward_model.enable") and not key("reward.reward_model.enable_resource_pool")
    if settings.strategy == "roc" and colocated:
        raise ConfigError(
            "cleaner.strategy=roc selects by reward, which a colocated reward model gives too late. Set "
            "reward.reward_model.enable_resource_pool=true."
        )
    if settings.strategy == "saar":
        _refuse_with_grafts(key, settings)
        if settings.saar.has_terms:
            _refuse_with_terms(key, settings)
        if negatives.dpo:
            _refuse_with_dpo(key, settings)


def _refuse_with_penalty(key: Any) -> None:
    where = "cleaner.failure_penalty"
    loop = key("actor_rollout_ref.rollout.agent.default_agent_loop")
    if not key("actor_rollout_ref.rollout.multi_turn.enable"):
        raise ConfigError(
            f"{where} without tool calls: there is nothing that could fail. Set "
            "actor_rollout_ref.rollout.multi_turn.enable=true, or the penalty to 0."
        )
    if loop in _OTHER_LOOPS:
        raise ConfigError(
            f"{where} with actor_rollout_ref.rollout.agent.default_agent_loop={loop}: that agent loop counts no failed "
            "calls. Use cleaner_agent."
        )
    if key("algorithm.filter_groups.enable"):
        raise ConfigError(
            f"{where} with algorithm.filter_groups.enable=true: the filter looks at rewards without the penalty, and "
            "would drop the groups that only the penalty tells apart. Set it to false."
        )


def _refuse_with_terms(key: Any, settings: CleanerConfig) -> None:
    saar = settings.saar
    where = f"cleaner.saar.graft_credit={saar.graft_credit}"
    if settings.negatives.dpo:
        raise ConfigError(
            f"{where} with cleaner.negatives.dpo=true: both move the advantages of the same calls. Use one of them."
        )
    if (loss := key("actor_rollout_ref.actor.policy_loss.loss_mode")) in _SEQUENCE_LOSSES:
        raise ConfigError(
            f"{where} with actor_rollout_ref.actor.policy_loss.loss_mode={loss}: that loss takes one ratio or one "
            "advantage of a whole response, so a term on some of its tokens would move them all. Use vanilla."
        )
    if not saar.credit_rows:
        return
    cause = where if saar.history == "edited" else "cleaner.saar.history=sampled"
    if (estimator := key("algorithm.adv_estimator")) != "grpo":
        raise ConfigError(
            f"{cause} with algorithm.adv_estimator={estimator}: only grpo keeps samples that are no trajectories out "
            "of the group's baseline."
        )
    if (mode := key("actor_rollout_ref.actor.loss_agg_mode")) == "seq-mean-token-mean":
        raise ConfigError(
            f"{cause} with actor_rollout_ref.actor.loss_agg_mode={mode}: a token would weigh the more the fewer tokens "
            "its sample trains, so a call in a sample of its own would weigh many times as much as the same call in a "
            "trajectory. Use token-mean."
        )


def _refuse_filter(key: Any, settings: CleanerConfig) -> None:
    """verl's group filter looks at groups before failed trajectories are taken out and before a strategy selects."""
    if not key("algorithm.filter_groups.enable"):
        return
    if (metric := key("algorithm.filter_groups.metric")) != "reward":
        raise ConfigError(
            f"algorithm.filter_groups.metric={metric}: a failed trajectory has none, and verl would stop at it. Use "
            "reward."
        )
    if settings.strategy == "roc":
        raise ConfigError(
            "algorithm.filter_groups.enable=true with cleaner.strategy=roc: the filter would judge groups that are "
            "larger than what is trained. Set it to false."
        )


def _refuse_with_grafts(key: Any, settings: CleanerConfig) -> None:
    credit = settings.saar.graft_credit
    is_level, rejection = key(f"{_CORRECTION}.rollout_is"), key(f"{_CORRECTION}.rollout_rs")
    if credit in ("train", "gate", *TERMS):
        for name, value in (("rollout_is", is_level), ("rollout_rs", rejection)):
            if value:
                raise ConfigError(
                    f"{_CORRECTION}.{name}={value} with cleaner.saar.graft_credit={credit}: grafted tokens are to be "
                    "trained as if sampled where they stand, but keep the log-probability of the context in which "
                    f"they were sampled, so this correction would weigh them after all. Set {_CORRECTION}.{name}=null, "
                    "or cleaner.saar.graft_credit=importance or mask."
                )
    if key(f"{_CORRECTION}.bypass_mode") and credit != "mask":
        raise ConfigError(
            f"{_CORRECTION}.bypass_mode=true with cleaner.saar.graft_credit={credit} would take the log-probabilities "
            "of another context for the old policy's. Set it to false, or cleaner.saar.graft_credit=mask."
        )
    if credit == "importance":
        _refuse_with_importance(key, is_level, rejection)
    if credit in ("importance", "gate") and not key("actor_rollout_ref.rollout.calculate_log_probs"):
        raise ConfigError(
            f"cleaner.saar.graft_credit={credit} needs the log-probabilities of what was sampled: set "
            "actor_rollout_ref.rollout.calculate_log_probs=true."
        )
    if credit == "gate":
        _refuse_with_gate(key)


def _refuse_with_importance(key: Any, is_level: Any, rejection: Any) -> None:
    if is_level not in (None, "token"):
        raise ConfigError(
            f"{_CORRECTION}.rollout_is={is_level} with cleaner.saar.graft_credit=importance: a weight for the whole "
            "sequence would multiply all grafts into one. Use rollout_is=token, which weighs every token, or null, "
            "which weighs grafted tokens only."
        )
    if is_level is None and rejection:
        raise ConfigError(
            f"{_CORRECTION}.rollout_rs={rejection} with cleaner.saar.graft_credit=importance needs "
            f"{_CORRECTION}.rollout_is=token: with rollout_is=null the ratios of all but grafted tokens are set to 1, "
            "and there would be little to reject."
        )
    if is_level is None and key(f"{_CORRECTION}.rollout_is_batch_normalize"):
        raise ConfigError(
            f"{_CORRECTION}.rollout_is_batch_normalize=true with cleaner.saar.graft_credit=importance would give all "
            "other tokens a weight that is not 1. Set it to false."
        )


def _refuse_with_gate(key: Any) -> None:
    server = key("actor_rollout_ref.rollout.name")
    if server not in _SCORING_SERVERS:
        raise ConfigError(
            f"cleaner.saar.graft_credit=gate with actor_rollout_ref.rollout.name={server}: the gate asks the rollout "
            f"server for log-probabilities of given tokens, which {', '.join(_SCORING_SERVERS)} give."
        )
    temperature = key("actor_rollout_ref.rollout.temperature")
    if server != "hf_server" and temperature != 1.0:
        raise ConfigError(
            f"cleaner.saar.graft_credit=gate with actor_rollout_ref.rollout.temperature={temperature}: {server} gives "
            "log-probabilities of given tokens at temperature 1 only. Use temperature 1.0."
        )


def _refuse_with_dpo(key: Any, settings: CleanerConfig) -> None:
    where = "cleaner.negatives.dpo=true"
    if not key("actor_rollout_ref.rollout.calculate_log_probs"):
        raise ConfigError(
            f"{where} takes what was sampled as its reference: set "
            "actor_rollout_ref.rollout.calculate_log_probs=true."
        )
    if settings.saar.graft_credit == "mask":
        raise ConfigError(
            f"{where} with cleaner.saar.graft_credit=mask: the accepted call of a pair is a graft and would not be "
            "trained. Use another graft_credit."
        )
    if (estimator := key("algorithm.adv_estimator")) != "grpo":
        raise ConfigError(
            f"{where} with algorithm.adv_estimator={estimator}: only grpo keeps rejected calls, which are samples of "
            "their own, out of the group's baseline."
        )
    if key(f"{_CORRECTION}.bypass_mode"):
        raise ConfigError(f"{where} with {_CORRECTION}.bypass_mode=true: the two policies would be one.")
