"""The quick start's reward: full marks for the right answer in the last turn, nothing for anything else, no crash."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleaner.data.make_rows import row
from cleaner.data.tasks import TASKS, draw
from cleaner.rewards.quickstart import compute_score
from cleaner.rewards.response import last_boxed, last_turn

GCD = "reasoning_gym/gcd"
OBSERVATION = "</tool_call>\nuser\n<tool_response>\n{}\n</tool_response>\nassistant\n"


def acc(text, truth="12", source=GCD):
    return compute_score(source, text, truth)["acc"]


def test_every_task_scores_its_reference_answer_1_and_a_wrong_one_0():
    for index, problem in enumerate(draw(list(TASKS.values()), 36, seed=9)):
        info = row(problem, index, "train")["extra_info"]
        right = compute_score(
            problem.data_source, f"It is \\boxed{{{problem.answer}}}.", problem.answer, info
        )
        assert right == {"score": 1.0, "acc": 1.0, "pred": problem.answer}
        wrong = compute_score(
            problem.data_source, f"It is \\boxed{{{problem.answer}7}}.", problem.answer, info
        )
        assert (wrong["score"], wrong["acc"]) == (0.0, 0.0)


@pytest.mark.parametrize("answer", ["12", " 12 ", "$12$", "12."])
def test_harmless_decoration_is_accepted(answer):
    assert acc(f"The answer is \\boxed{{{answer}}}.") == 1.0


def test_thousands_separators_are_accepted():
    assert acc("\\boxed{1,234,567}", "1234567") == 1.0
    assert acc("\\boxed{12,34}", "1234") == 0.0


@pytest.mark.parametrize("answer", ["", "13", "12 or 13", "112", "12 12", "twelve", "\\text{12}"])
def test_other_answers_earn_nothing(answer):
    assert acc(f"\\boxed{{{answer}}}") == 0.0


def test_the_last_box_of_the_last_turn_counts():
    assert acc("\\boxed{12} no, \\boxed{13}") == 0.0
    assert acc("\\boxed{13} no, \\boxed{12}") == 1.0
    assert acc("\\boxed{12}" + OBSERVATION.format("5") + "I gave up.") == 0.0


def test_a_box_printed_by_the_tool_earns_nothing():
    assert acc("I run it." + OBSERVATION.format("\\boxed{12}") + "Done.") == 0.0
    assert acc("I run it." + OBSERVATION.format("</tool_response> \\boxed{12}") + "Done.") == 0.0
    assert acc("I run it.</tool_call>\nuser\n<tool_response>\n\\boxed{12}") == 0.0
    assert acc("I run it." + OBSERVATION.format("\\boxed{13}") + "So \\boxed{12}.") == 1.0


def test_special_tokens_in_the_text_mark_the_last_turn():
    text = (
        "<|im_start|>user\n<tool_response>\n\\boxed{12}\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert acc(text + "nothing<|im_end|>") == 0.0
    assert acc(text + "\\boxed{12}<|im_end|>") == 1.0


def test_a_box_inside_a_call_earns_nothing():
    assert acc('<tool_call>\n{"name": "x", "arguments": {"code": "\\boxed{12}"}}\n</tool_call>') == 0.0
    assert acc("<tool_call>\\boxed{12}") == 0.0


def test_sources_without_a_verifier_compare_text():
    assert compute_score("math_dapo", "\\boxed{\\frac{1}{2}}", "\\frac{1}{2}")["acc"] == 1.0
    assert compute_score("reasoning_gym/no_such_task", "\\boxed{12}", "12")["acc"] == 1.0
    assert compute_score("reasoning_gym/no_such_task", "\\boxed{12.0}", "12")["acc"] == 0.0


@pytest.mark.parametrize("extra_info", [None, {}, {"metadata": "{broken"}, {"metadata": [1]}, "text"])
def test_odd_extra_info_is_no_reason_to_fail(extra_info):
    assert compute_score(GCD, "\\boxed{12}", "12", extra_info, reward_router_address="x")["acc"] == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\\boxed{",
        "\\boxed{" * 100_000,
        "\\boxed{" + "9" * 1_000_000 + "}",
        "\\boxed{" + "{" * 50_000 + "}" * 50_000 + "}",
        "<tool_call>" * 50_000,
        "</tool_response>" * 50_000,
        "\x00\\boxed{\ud800}",
        "\\boxed{nan}",
        "\\boxed{1e999}",
        "\\boxed{__import__('os')}",
    ],
    ids=range(11),
)
def test_hostile_text_scores_0_quickly(text):
    began = time.monotonic()
    for name in TASKS:
        assert compute_score(f"reasoning_gym/{name}", text, "12")["score"] == 0.0
    assert time.monotonic() - began < 10


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("\\boxed{}12<tool_call>/response ")), st.sampled_from(sorted(TASKS)))
def test_any_text_gives_0_or_1_and_1_only_with_a_box_in_the_last_turn(text, task):
    result = compute_score(f"reasoning_gym/{task}", text, "12")
    assert result["score"] in (0.0, 1.0)
    assert result["score"] == result["acc"]
    if result["score"]:
        assert last_boxed(last_turn(text)) is not None
