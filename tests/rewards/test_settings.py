"""Settings of the reward: what is wrong is said before anything starts."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from cleaner.errors import ConfigError
from cleaner.rewards.settings import RewardSettings, refuse_reward


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"math_rules": "strict"}, "math_rules"),
        ({"math_rule": "sympy"}, "math_rule='sympy'"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"judge_url": "localhost"}, "localhost"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"test_timeout_s": "2"}, "test_timeout_s"),
        ({"max_concurrency": 0}, "max_concurrency"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RewardSettings.from_mapping(settings)


def run(**buffer: Any) -> DictConfig:
    return OmegaConf.create(
        {
            "reward": {
                "reward_manager": {"name": buffer.pop("manager", "dapo")},
                "reward_kwargs": {
                    "max_resp_len": 20480,
                    "overlong_buffer_cfg": {"enable": True, "len": 4096, "penalty_factor": 1.0, **buffer},
                },
                "custom_reward_function": {
                    "path": "pkg://cleaner.rewards.recipe",
                    "reward_kwargs": {"math_rule": "strict"},
                },
            }
        }
    )


def test_a_run_with_a_wrong_reward_is_refused() -> None:
    refuse_reward(run())
    refuse_reward(run(enable=False, len=0))
    with pytest.raises(ConfigError, match="len=30000 must be an integer from 1 to .*20480"):
        refuse_reward(run(len=30000))
    with pytest.raises(ConfigError, match="reward_manager.name=dapo"):
        refuse_reward(run(manager="naive"))
    config = run()
    config.reward.custom_reward_function.reward_kwargs.tool_penalty = 1
    with pytest.raises(ConfigError, match="unknown key .*tool_penalty"):
        refuse_reward(config)
    # Another reward's settings are its own.
    config.reward.custom_reward_function.path = "mine.py"
    refuse_reward(config)


def test_the_judges_address_and_token_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_JUDGE_URL", "http://far:1")
    monkeypatch.setenv("CODE_JUDGE_TOKEN", "secret")
    assert RewardSettings().judge().url == "http://far:1" and RewardSettings().judge().token == "secret"
    assert RewardSettings(judge_url="http://near:2").judge().url == "http://near:2"
