"""The reward of the recipes, in training and in validation, in verl's `compute_score` form.

`docs/rewards.md` documents what is scored and how. What a row's ground truth is decides: a final answer, a letter, or
tests of a program. No verdict, no score: where code-judge gives none within its deadline, the exception reaches
`cleaner.rollout_worker`, which records the trajectory as failed, and it is left out of the batch.
"""

from __future__ import annotations

from typing import Any

from cleaner.rewards.ground_truth import FinalAnswer, Letter, read_task
from cleaner.rewards.math_answer import score_answer, score_letter
from cleaner.rewards.programs import score_program
from cleaner.rewards.settings import RewardSettings


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: dict[str, Any] | None = None,
    *,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    **settings: Any,
) -> dict[str, Any]:
    """Score one response.

    Args:
        data_source: of the row; it only matters where it names GPQA or code.
        solution_str: the decoded response, special tokens left out.
        ground_truth: see `cleaner.rewards.ground_truth`.
        extra_info, reward_router_address, reward_model_tokenizer: what verl gives every reward function; not used.
        settings: fields of `RewardSettings`, from `reward.custom_reward_function.reward_kwargs`.

    Returns:
        The fields of `cleaner.rewards.verdict.Verdict`: `score`, and details.

    Raises:
        JudgeUnavailable: there is no verdict.
        GroundTruthError: the row can't be scored.
        ConfigError: a setting is wrong; `cleaner.preflight` tells it before anything starts.
    """
    checked = RewardSettings.from_mapping(settings)
    task = read_task(str(data_source), ground_truth)
    response = str(solution_str)
    if isinstance(task, Letter):
        return score_letter(response, task.letter).to_dict()
    if isinstance(task, FinalAnswer):
        return (await score_answer(response, task.text, checked)).to_dict()
    return (await score_program(response, task, checked)).to_dict()
