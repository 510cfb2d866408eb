"""The run configuration: documented keys work, misspelt keys and bad values are refused by name."""

from dataclasses import fields
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from cleaner.config.documented_keys import adopt_documented_keys
from cleaner.config.settings import CleanerConfig, FailuresConfig, NegativesConfig, read_settings
from cleaner.errors import ConfigError
from cleaner.saar.config import SaarConfig
from cleaner.saar.strategy import ResampleOnCorrect, RetryTrajectory

TOOLS_ON = "actor_rollout_ref.rollout.multi_turn.enable=true"


def composed(*overrides: str) -> DictConfig:
    with initialize_config_module("cleaner.config", version_base=None):
        return compose("cleaner", overrides=["actor_rollout_ref.rollout.name=hf_server", *overrides])


def settings_of(*overrides: str) -> Any:
    config = composed(*overrides)
    adopt_documented_keys(config)
    return read_settings(config)


def defaults_of(cls: type) -> dict[str, Any]:
    made = cls()
    return {
        f.name: list(value) if isinstance(value := getattr(made, f.name), tuple) else value
        for f in fields(cls)
    }


def test_the_yaml_group_lists_every_key_of_the_typed_configuration_with_its_default() -> None:
    group = OmegaConf.to_container(composed().cleaner)
    assert set(group) == {f.name for f in fields(CleanerConfig)}
    saar = defaults_of(SaarConfig)
    del saar["seed"]
    assert group["saar"] == saar
    assert group["retry_trajectory"] == defaults_of(RetryTrajectory)
    assert group["roc"] == defaults_of(ResampleOnCorrect)
    assert group["negatives"] == defaults_of(NegativesConfig)
    assert group["failures"] == defaults_of(FailuresConfig)
    assert (group["strategy"], group["record"]) == ("none", False)


def test_the_documented_keys_of_cleaner_reach_the_rollback() -> None:
    prefix = "+actor_rollout_ref.rollout.multi_turn."
    settings = settings_of(
        TOOLS_ON,
        f"{prefix}enable_tool_rollback=true",
        f"{prefix}max_tool_retries=5",
        f"{prefix}rollback_probability=0.7",
        f"{prefix}rollback_on_errors=[timeout,NameError]",
        f"{prefix}save_negative_samples=true",
        f"{prefix}max_negative_samples_per_group=2",
        "+algorithm.use_dpo_on_tool_calls=true",
        "+algorithm.dpo_beta=0.2",
        "+algorithm.dpo_max_adjustment_ratio=0.3",
    )
    assert settings.strategy == "saar"
    assert settings.saar == SaarConfig(
        max_retries=5, rollback_probability=0.7, rollback_on=("timeout", "NameError")
    )
    assert settings.negatives == NegativesConfig(
        save=True, max_per_group=2, dpo=True, dpo_beta=0.2, dpo_max_adjustment_ratio=0.3
    )


def test_the_documented_switch_turns_rollback_off_too() -> None:
    off = "+actor_rollout_ref.rollout.multi_turn.enable_tool_rollback=false"
    assert settings_of(TOOLS_ON, "cleaner.strategy=saar", off).strategy == "none"


def test_verl_accepts_the_multi_turn_group_after_the_documented_keys_were_taken_out() -> None:
    from verl.utils.config import omega_conf_to_dataclass

    config = composed(TOOLS_ON, "+actor_rollout_ref.rollout.multi_turn.enable_tool_rollback=true")
    adopt_documented_keys(config)
    assert omega_conf_to_dataclass(config.actor_rollout_ref.rollout).multi_turn.enable


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+cleaner.saar.gama=0.4", "Did you mean 'gamma'"),
        ("cleaner.saar.gamma=1.5", "gamma=1.5 must be a number in"),
        ("cleaner.saar.gamma=nan", "gamma"),
        ("cleaner.saar.max_retries=-1", "max_retries=-1 must be an integer >= 0"),
        ("cleaner.saar.rollback_probability=-0.1", "rollback_probability"),
        ("cleaner.saar.rollback_on=[time_out]", "Did you mean 'timeout'"),
        ("+cleaner.sed=3", "Did you mean 'seed'"),
        ("cleaner.seed=-1", "cleaner.seed=-1 must be an integer"),
        ("cleaner.record=maybe", "cleaner.record='maybe'"),
        (
            "+actor_rollout_ref.rollout.multi_turn.enable_tool_rolback=true",
            "Did you mean 'enable_tool_rollback'",
        ),
        ("+actor_rollout_ref.rollout.multi_turn.enable_tool_rollback=1", "must be true or false"),
        ("cleaner.strategy=sar", "Did you mean 'saar'"),
        ("+cleaner.saar.enabled=true", "cleaner.strategy=saar"),
        ("cleaner.negatives.dpo_beta=0", "dpo_beta=0 must be a number > 0"),
        ("cleaner.negatives.dpo_max_adjustment_ratio=2", "dpo_max_adjustment_ratio=2"),
        ("cleaner.negatives.max_per_group=-1", "max_per_group=-1"),
        ("cleaner.failures.max_share=1.5", "max_share=1.5"),
        ("cleaner.failures.strict=1", "strict=1 must be true or false"),
        ("+cleaner.saar.similarity_by_tool.lookup=jsn", "Did you mean 'json'"),
    ],
)
def test_a_bad_key_or_value_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        settings_of(override)


@pytest.mark.parametrize("off", ["save_negative_samples=false", "max_negative_samples_per_group=2"])
def test_a_documented_key_that_switches_nothing_on_is_accepted(off: str) -> None:
    settings_of(f"+actor_rollout_ref.rollout.multi_turn.{off}")


SAAR = "cleaner.strategy=saar"
CORRECTION = "algorithm.rollout_correction."
NO_LOGPROBS = "actor_rollout_ref.rollout.calculate_log_probs=false"


LOSS = "actor_rollout_ref.actor."
AS_SAMPLED = ("cleaner.saar.history=sampled", "cleaner.saar.on_exhausted=keep_all")
PENALTY = "cleaner.failure_penalty=0.1"


def credit(mode: str) -> str:
    return f"cleaner.saar.graft_credit={mode}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([SAAR, f"{CORRECTION}rollout_is=token"], "rollout_is=token with cleaner.saar.graft_credit=train"),
        ([SAAR, f"{CORRECTION}rollout_rs=token_k1"], "rollout_rs=token_k1 with .*train"),
        ([SAAR, credit("gate"), f"{CORRECTION}rollout_is=token"], "rollout_is=token with .*gate"),
        ([SAAR, f"{CORRECTION}bypass_mode=true"], "bypass_mode"),
        ([SAAR, credit("importance"), f"{CORRECTION}rollout_is=sequence"], "whole sequence"),
        ([SAAR, credit("importance"), f"{CORRECTION}rollout_rs=token_k1"], "needs .*rollout_is=token"),
        ([SAAR, credit("importance"), f"{CORRECTION}rollout_is_batch_normalize=true"], "batch_normalize"),
        ([SAAR, credit("importance"), NO_LOGPROBS], "calculate_log_probs=true"),
        ([SAAR, credit("gate"), NO_LOGPROBS], "calculate_log_probs=true"),
        (
            [SAAR, credit("gate"), "actor_rollout_ref.rollout.name=trtllm"],
            "log-probabilities of given tokens",
        ),
        (
            [
                SAAR,
                credit("gate"),
                "actor_rollout_ref.rollout.name=vllm",
                "actor_rollout_ref.rollout.temperature=0.8",
            ],
            "temperature=0.8",
        ),
        ([SAAR, "cleaner.negatives.dpo=true", NO_LOGPROBS], "calculate_log_probs=true"),
        ([SAAR, "cleaner.negatives.dpo=true", credit("mask")], "would not be trained"),
        ([SAAR, "cleaner.negatives.dpo=true", "algorithm.adv_estimator=rloo"], "only grpo"),
        ([SAAR, credit("distill"), f"{CORRECTION}rollout_is=token"], "rollout_is=token with .*distill"),
        ([SAAR, credit("contrast"), f"{CORRECTION}bypass_mode=true"], "bypass_mode"),
        ([SAAR, credit("distill"), "cleaner.negatives.dpo=true"], "Use one of them"),
        ([SAAR, credit("distill"), f"{LOSS}policy_loss.loss_mode=gspo"], "loss_mode=gspo: that loss"),
        ([SAAR, credit("contrast"), "algorithm.adv_estimator=rloo"], "contrast with .*only grpo"),
        (
            [SAAR, credit("distill"), *AS_SAMPLED, "algorithm.adv_estimator=rloo"],
            "history=sampled with .*only grpo",
        ),
        ([SAAR, credit("contrast"), f"{LOSS}loss_agg_mode=seq-mean-token-mean"], "Use token-mean"),
        ([SAAR, credit("distill"), AS_SAMPLED[0]], "would not be what was sampled"),
        ([SAAR, *AS_SAMPLED], "nothing is grafted"),
        ([SAAR, credit("gate"), *AS_SAMPLED], "nothing is grafted"),
        ([SAAR, "cleaner.saar.credit_gate=reward"], "credit_gate='reward' with .*'train' has no effect"),
        ([SAAR, "cleaner.saar.distill_advantage=signed"], "distill_advantage='signed' with .*no effect"),
        (["cleaner.failure_penalty=-0.1"], r"failure_penalty=-0.1 must be a number >= 0"),
        (
            [PENALTY, "actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent"],
            "counts no failed calls",
        ),
        (
            [PENALTY, "algorithm.filter_groups.enable=true", "algorithm.filter_groups.metric=reward"],
            "penalty tells apart",
        ),
        ([PENALTY, "actor_rollout_ref.rollout.multi_turn.enable=false"], "nothing that could fail"),
        (["algorithm.filter_groups.enable=true", "algorithm.filter_groups.metric=acc"], "metric=acc"),
        (["cleaner.strategy=roc", "algorithm.filter_groups.enable=true"], "larger than what is trained"),
        (["trainer.v1.sampler.sync_refill_failed_groups=true"], "no effect"),
        (["cleaner.strategy=roc", "reward.reward_model.enable=true"], "selects by reward"),
        (["cleaner.negatives.save=true"], "only cleaner.strategy=saar repairs"),
        (["cleaner.strategy=roc", "cleaner.negatives.dpo=true"], "only cleaner.strategy=saar repairs"),
        (
            [SAAR, "actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent"],
            "that agent loop would ignore it",
        ),
    ],
)
def test_combinations_that_would_train_something_else_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of(TOOLS_ON, *overrides)


@pytest.mark.parametrize("strategy", ["saar", "retry_trajectory", "roc"])
def test_every_strategy_needs_tools(strategy: str) -> None:
    with pytest.raises(ConfigError, match="multi_turn.enable=true"):
        settings_of(f"cleaner.strategy={strategy}")


@pytest.mark.parametrize(
    "overrides",
    [
        [credit("mask"), f"{CORRECTION}rollout_is=sequence"],
        [credit("mask"), f"{CORRECTION}bypass_mode=true"],
        [credit("importance")],
        [credit("importance"), f"{CORRECTION}rollout_is=token", f"{CORRECTION}rollout_rs=token_k1"],
        [credit("gate")],
        [
            credit("gate"),
            "actor_rollout_ref.rollout.name=hf_server",
            "actor_rollout_ref.rollout.temperature=0.8",
        ],
        ["cleaner.negatives.dpo=true"],
        [credit("distill"), "algorithm.adv_estimator=rloo", f"{LOSS}loss_agg_mode=seq-mean-token-mean"],
        [
            credit("contrast"),
            NO_LOGPROBS,
            "cleaner.saar.credit_gate=reward",
            "cleaner.negatives.save=true",
            PENALTY,
        ],
        [credit("contrast"), *AS_SAMPLED, "cleaner.saar.credit_gate=reward_graft"],
        [credit("distill"), *AS_SAMPLED, f"{LOSS}loss_agg_mode=seq-mean-token-sum", PENALTY],
    ],
)
def test_combinations_that_make_sense_are_accepted(overrides: list[str]) -> None:
    settings_of(TOOLS_ON, SAAR, *overrides)
