"""Settings of the recipes' reward: `reward.custom_reward_function.reward_kwargs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cleaner.errors import ConfigError
from cleaner.saar.setting_checks import check_choice, known_keys, number_in
from code_judge.client import JudgeSettings, JudgeSettingsError

PATH = "reward.custom_reward_function.reward_kwargs"
MODULE = "cleaner.rewards.recipe"
MATH_RULES = ("equivalent", "strict")
_BUFFER = "reward.reward_kwargs.overlong_buffer_cfg"


@dataclass(frozen=True)
class RewardSettings:
    """How responses are scored.

    Attributes:
        math_rule: `equivalent`, as mathematics; or `strict`, the original rule: the content of the last box within the
            last 100 characters is the right answer, character by character.
        judge_url: address of code-judge, several with commas between; None: the environment's CODE_JUDGE_URL.
        deadline_s: seconds for a verdict, retries included; after that the response is left out.
        max_concurrency: programs at a time from one reward worker; verl starts `reward.num_workers` of them.
        timeout_s: seconds for one job of the judge; None, or more than it allows: its own limit.
        test_timeout_s: seconds for one call or assert of the several that make a job.

    Raises:
        ConfigError: a value is wrong.
    """

    math_rule: str = "equivalent"
    judge_url: str | None = None
    deadline_s: float = 180.0
    max_concurrency: int = 64
    timeout_s: float | None = None
    test_timeout_s: float = 2.0

    def __post_init__(self) -> None:
        check_choice(f"{PATH}.math_rule", self.math_rule, MATH_RULES)
        for name in ("timeout_s", "test_timeout_s"):
            if getattr(self, name) is not None:
                number_in(f"{PATH}.{name}", getattr(self, name), 0.0, above=True)
        try:
            self.judge()
        except JudgeSettingsError as error:
            raise ConfigError(f"{PATH}: {error}") from error

    def judge(self) -> JudgeSettings:
        """How to reach the judge; its token comes from the environment."""
        given: dict[str, Any] = {} if self.judge_url is None else {"url": self.judge_url}
        return JudgeSettings.from_environment(
            deadline_s=self.deadline_s, max_concurrency=self.max_concurrency, **given
        )

    @classmethod
    def from_mapping(cls, group: Mapping[str, Any] | None) -> RewardSettings:
        """The settings of a configuration's group.

        Raises:
            ConfigError: an unknown key, or a wrong value.
        """
        return cls(**known_keys(cls, PATH, group))


def refuse_reward(config: DictConfig) -> None:
    """Check what a run's configuration says of the reward, where the reward is the recipes'.

    Raises:
        ConfigError: a setting is unknown or wrong, or verl's reward workers would refuse the overlong penalty.
    """
    if not str(OmegaConf.select(config, "reward.custom_reward_function.path")).endswith(MODULE):
        return
    RewardSettings.from_mapping(OmegaConf.select(config, PATH))
    if not OmegaConf.select(config, f"{_BUFFER}.enable"):
        return
    most, length = (
        OmegaConf.select(config, key) for key in ("reward.reward_kwargs.max_resp_len", f"{_BUFFER}.len")
    )
    if config.reward.reward_manager.name != "dapo":
        raise ConfigError(
            f"{_BUFFER}.enable=true needs reward.reward_manager.name=dapo: no other one reads it."
        )
    if not isinstance(most, int) or not isinstance(length, int) or not 0 < length <= most:
        raise ConfigError(
            f"{_BUFFER}.len={length} must be an integer from 1 to reward.reward_kwargs.max_resp_len={most}."
        )
