"""The run configuration: documented keys work, misspelt keys and bad values are refused by name."""

from dataclasses import fields
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from cleaner.config.settings import adopt_documented_keys, read_settings
from cleaner.errors import ConfigError
from cleaner.saar.config import SaarConfig

TOOLS_ON = "actor_rollout_ref.rollout.multi_turn.enable=true"


def composed(*overrides: str) -> DictConfig:
    with initialize_config_module("cleaner.config", version_base=None):
        return compose("cleaner", overrides=["actor_rollout_ref.rollout.name=hf_server", *overrides])


def settings_of(*overrides: str) -> Any:
    config = composed(*overrides)
    adopt_documented_keys(config)
    return read_settings(config)


def test_the_yaml_group_lists_every_key_of_the_typed_configuration_with_its_default() -> None:
    group = OmegaConf.to_container(composed().cleaner.saar)
    typed = {f.name: f.default for f in fields(SaarConfig) if f.name != "seed"}
    assert {key: tuple(value) if isinstance(value, list) else value for key, value in group.items()} == typed


def test_the_documented_keys_of_cleaner_reach_the_rollback() -> None:
    prefix = "+actor_rollout_ref.rollout.multi_turn."
    saar = settings_of(
        TOOLS_ON,
        f"{prefix}enable_tool_rollback=true",
        f"{prefix}max_tool_retries=5",
        f"{prefix}rollback_probability=0.7",
        f"{prefix}rollback_on_errors=[timeout,NameError]",
    ).saar
    assert saar == SaarConfig(
        enabled=True, max_retries=5, rollback_probability=0.7, rollback_on=("timeout", "NameError")
    )


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
        ("+actor_rollout_ref.rollout.multi_turn.save_negative_samples=true", "does not have it yet"),
        ("+algorithm.use_dpo_on_tool_calls=true", "does not have it yet"),
    ],
)
def test_a_bad_key_or_value_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        settings_of(override)


@pytest.mark.parametrize("off", ["save_negative_samples=false", "max_negative_samples_per_group=2"])
def test_a_documented_key_that_switches_nothing_on_is_accepted(off: str) -> None:
    settings_of(f"+actor_rollout_ref.rollout.multi_turn.{off}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([TOOLS_ON, "algorithm.rollout_correction.rollout_is=token"], "rollout_is"),
        ([TOOLS_ON, "algorithm.rollout_correction.bypass_mode=true"], "bypass_mode"),
        ([], "multi_turn.enable=true"),
    ],
)
def test_combinations_that_would_train_something_else_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of("cleaner.saar.enabled=true", *overrides)
