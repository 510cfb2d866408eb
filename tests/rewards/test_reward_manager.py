"""The reward as verl's workers run it: the recipes' own configuration, verl's DAPO manager, the purified length."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import verl
from omegaconf import DictConfig, OmegaConf
from ray.exceptions import RayTaskError
from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics
from verl.trainer.ppo.reward import load_reward_manager
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils import hf_tokenizer

from cleaner.failures import describe_exception
from cleaner.rewards.settings import refuse_reward
from cleaner.rewards.verdict import GroundTruthError
from cleaner.rollout_worker import CleanerAgentLoopWorker
from cleaner.trainer import CleanerTrainer
from code_judge.client import JudgeUnavailable

RECIPE = Path(__file__).parents[2] / "recipe" / "cleaner"
MOST, BUFFER = 200, 50
FIELDS = {"score", "acc", "pred", "kind", "note", "tests_passed", "tests_total", "judge_seconds"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return hf_tokenizer(str(RECIPE / "quickstart" / "model"))


def configuration(**settings: Any) -> DictConfig:
    """verl's defaults and the recipes' reward, for responses of `MOST` tokens with a buffer of `BUFFER`."""
    defaults = OmegaConf.load(Path(verl.__file__).parent / "trainer" / "config" / "reward" / "reward.yaml")
    recipe = OmegaConf.load(RECIPE / "recipe.yaml")
    config = OmegaConf.create(
        {"data": {"max_response_length": MOST}, "reward": OmegaConf.merge(defaults, recipe.reward)}
    )
    config.reward.reward_kwargs.overlong_buffer_cfg.len = BUFFER
    OmegaConf.update(config, "reward.custom_reward_function.reward_kwargs", settings, force_add=True)
    return config


def output(prompt: list[int], response: list[int]) -> AgentLoopOutput:
    return AgentLoopOutput(
        prompt_ids=prompt,
        response_ids=response,
        response_mask=[1] * len(response),
        multi_modal_data={},
        mm_processor_kwargs={},
        mm_processor_output=None,
        num_turns=2,
        metrics=AgentLoopMetrics(),
        extra_fields={},
    )


async def scored(
    tokenizer: Any, outputs: list[AgentLoopOutput], truth: Any, **settings: Any
) -> AgentLoopOutput:
    """What verl's agent-loop worker makes of a trajectory, its reward worker in the same process."""
    manager = load_reward_manager(
        configuration(**settings), tokenizer, reward_router_address=None, reward_model_tokenizer=None
    )
    worker = object.__new__(CleanerAgentLoopWorker)
    worker.processor = None
    # As `RewardLoopWorker.compute_score` does for a custom reward function.
    worker.reward_loop_worker_handles = [
        SimpleNamespace(compute_score=SimpleNamespace(remote=lambda data: manager.run_single(data)))
    ]
    row = {
        "data_source": "math_dapo",
        "reward_model": {"ground_truth": truth},
        "extra_info": {"index": 1},
        "raw_prompt": [{"role": "user", "content": "?"}],
    }
    await worker._compute_score(outputs, row)
    return outputs[-1]


def response(tokenizer: Any, text: str, length: int) -> list[int]:
    """Tokens of a text, with blanks before it up to a length."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    blank = tokenizer.encode(" ", add_special_tokens=False)
    assert len(blank) == 1 and len(ids) <= length
    return blank * (length - len(ids)) + ids


@pytest.mark.parametrize(
    ("length", "penalty"), [(100, 0.0), (150, 0.0), (151, -0.02), (175, -0.5), (200, -1.0)]
)
def test_the_overlong_penalty_is_linear_over_the_buffer_and_apart_from_acc(
    tokenizer: Any, length: int, penalty: float
) -> None:
    result = asyncio.run(
        scored(tokenizer, [output([1, 2, 3], response(tokenizer, "\\boxed{5}", length))], "5")
    )
    assert float(result.reward_score) == pytest.approx(1.0 + penalty)
    details = result.extra_fields["reward_extra_info"]
    assert set(details) == FIELDS | {"overlong_reward", "overlong"}
    assert (details["acc"], details["pred"], details["score"]) == (True, "5", 1.0)
    assert float(details["overlong_reward"]) == pytest.approx(penalty)
    assert bool(details["overlong"]) == (penalty < 0)


def test_its_length_is_that_of_the_trajectory_whatever_was_discarded_or_comes_before_it(
    tokenizer: Any,
) -> None:
    # Negative samples come first in the list and are longer: the trajectory is the last output, purified.
    prompt = [1, 2, 3]
    outputs = [
        output(prompt, response(tokenizer, "\\boxed{7}", 190)),
        output(prompt, response(tokenizer, "\\boxed{5}", 160)),
    ]
    result = asyncio.run(scored(tokenizer, outputs, "5"))
    assert float(result.reward_score) == pytest.approx(1.0 - 10 / BUFFER)
    assert result.extra_fields["reward_extra_info"]["acc"] is True


def test_details_are_json_in_verls_dump(tokenizer: Any, tmp_path: Path) -> None:
    result = asyncio.run(scored(tokenizer, [output([1], response(tokenizer, "\\boxed{5}", 160))], "5"))
    details = {name: [value] for name, value in result.extra_fields["reward_extra_info"].items()}
    PPOTrainer._write_generations(["q"], ["a"], ["5"], [0.8], details, str(tmp_path), 3)
    line = json.loads((tmp_path / "3.jsonl").read_text())
    assert line["acc"] is True and line["kind"] == "math" and line["overlong_reward"] == pytest.approx(-0.2)


def test_verl_awaits_the_function_and_the_recipes_settings_pass_the_check() -> None:
    from verl.trainer.ppo.reward import get_custom_reward_fn

    config = configuration(math_rule="strict")
    refuse_reward(config)
    assert inspect.iscoroutinefunction(get_custom_reward_fn(config))


def test_an_unreachable_judge_is_an_exception_of_the_trajectory_that_survives_ray(tokenizer: Any) -> None:
    hard = [output([1, 2], response(tokenizer, "\\boxed{x+1}", 50))]
    settings = {"judge_url": "http://127.0.0.1:9", "deadline_s": 0.2}
    with pytest.raises(JudgeUnavailable) as caught:
        asyncio.run(scored(tokenizer, hard, "x+2", **settings))
    assert hard[0].reward_score is None
    # The reward worker is a Ray actor: its caller gets the exception inside another, pickled.
    across = RayTaskError("compute_score", "Traceback ...", pickle.loads(pickle.dumps(caught.value)))
    told = describe_exception(across.as_instanceof_cause())
    assert told["type"] == "code_judge.errors.JudgeUnavailable" and "127.0.0.1:9" in told["message"]


def test_a_row_that_cannot_be_scored_is_an_exception_too(tokenizer: Any) -> None:
    with pytest.raises(GroundTruthError, match="math_dapo"):
        asyncio.run(scored(tokenizer, [output([1], response(tokenizer, "\\boxed{5}", 20))], None))


def test_validation_metrics_leave_out_failed_trajectories_and_bookkeeping() -> None:
    trainer = object.__new__(CleanerTrainer)
    trainer._sample_log = None
    trainer.config = OmegaConf.create({"trainer": {"val_only": False}})
    details = {
        "reward": [1.0, -1.0], "acc": [True, False], "score": [1.0, -1.0], "judge_seconds": [0.1, 0.2],
        "tests_passed": [None, None], "tests_total": [None, None], "pred": ["5", "6"], "kind": ["math", "math"],
    }  # fmt: skip
    # Two of four trajectories were judged; upstream would say 0.25.
    metrics = trainer._val_metrics_update(
        ["aime"] * 2, ["u"] * 2, details, [2, 2], expected_acc_counts={("aime", "u"): 4}
    )
    assert metrics["val-core/aime/acc/mean@2"] == 0.5
    assert not [name for name in metrics if "judge_seconds" in name or "tests_" in name or "mean@4" in name]
