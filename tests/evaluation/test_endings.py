"""What is known of a validation trajectory: why it ended, how long it is, what stands in its history."""

from typing import Any

import pytest
from scripted_policy import PROMPT, Run, call, run_script, turn

from cleaner.evaluation.identity import prompt_digest
from cleaner.evaluation.sample_facts import sample_facts

VALIDATE = {"cleaner_validate": True, "extra_info": {"index": 12}}
REPAIRED = {"rollback_in_validation": True, "gamma": 0.0}


def facts_of(run: Run, response_length: int = 20_000) -> dict[str, Any]:
    return sample_facts(run.output, {"raw_prompt": PROMPT, **VALIDATE}, response_length, seconds=1.5)


def validated(script: list[str], saar: dict[str, Any] | None = None, **kwargs: Any) -> Run:
    return run_script(script, saar, cleaner={"strategy": "saar"}, run_kwargs=VALIDATE, **kwargs)


def test_an_answer_ends_it() -> None:
    facts = facts_of(run := validated([turn("r", "fine"), turn("done")]))
    assert (facts["id"], facts["prompt_digest"]) == ("12", prompt_digest(PROMPT))
    assert (facts["ending"], facts["turns"], facts["lookahead"]) == ("answer", 2, False)
    assert facts["response_tokens"] == len(run.output.response_mask)
    assert facts["sampled_tokens"] == sum(run.output.response_mask) == run.saar["sampled_tokens"]


def test_the_room_ends_it_in_a_turn_and_in_a_tools_message() -> None:
    facts = facts_of(validated([turn("r" * 600)], response_length=100), 100)
    assert (facts["ending"], facts["response_tokens"]) == ("length", 100)
    facts = facts_of(validated([turn("r", "long"), turn("done")], response_length=200), 200)
    assert facts["ending"] == "length" and facts["response_tokens"] < 200


def test_the_last_turn_ends_it_if_it_calls_and_answers_if_it_does_not() -> None:
    assert facts_of(validated([turn("r", "fine")], max_assistant_turns=2))["ending"] == "turns"
    assert facts_of(validated([turn("r", "fine"), turn("done")], max_assistant_turns=2))["ending"] == "answer"


def test_a_call_that_does_not_parse_ends_it() -> None:
    broken = call("x").replace("}}", "")
    assert facts_of(validated([f"r{broken}<|im_end|>"]))["ending"] == "broken_call"


def test_training_trajectories_carry_none_of_it() -> None:
    run = run_script([turn("r", "fine"), turn("done")], None, cleaner={"strategy": "saar"})
    assert not {"ending", "assistant_turns", "lookahead"} & run.output.extra_fields.keys()


@pytest.mark.parametrize(
    ("script", "saar", "final"),
    [
        # The failing call stays, then a right one.
        ([turn("r", "fail"), turn("r", "fine"), turn("done")], {}, (2, 1)),
        # It is repaired: one call, a right one.
        ([turn("r", "fail"), turn("r", "fine"), turn("done")], REPAIRED, (1, 1)),
        # No correction succeeds: the failing call stays.
        ([turn("r", "fail"), turn("r", "fail"), turn("done")], {**REPAIRED, "max_retries": 1}, (1, 0)),
        # The same, with the look-ahead behind it.
        (
            [turn("r", "fail"), turn("r", "fail"), turn("done")],
            {**REPAIRED, "max_retries": 1, "on_exhausted": "keep_all"},
            (2, 0),
        ),
    ],
)
def test_calls_of_the_final_history_are_counted(
    script: list[str], saar: dict[str, Any], final: tuple[int, int]
) -> None:
    run = validated(script, saar)
    assert (run.saar["final_calls"], run.saar["final_calls_ok"]) == final
    assert facts_of(run)["lookahead"] == bool(saar)
    assert facts_of(run)["turns"] == run.text.count("<|im_start|>assistant") + 1


def test_another_agent_loop_tells_what_it_can() -> None:
    from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop

    run = run_script([turn("r", "fine"), turn("done")], loop_class=ToolAgentLoop)
    facts = facts_of(run)
    assert (facts["ending"], facts["turns"], facts["lookahead"]) == ("answer", 2, False)
    assert facts_of(run, len(run.output.response_mask))["ending"] == "length"
