"""Final answers: equal ones score 1, others -1, by the running judge where it takes mathematics to know."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_judge import answer_with, scripted_judge, verdict

from cleaner.rewards import math_answer
from cleaner.rewards.math_text import settled, tidied
from cleaner.rewards.recipe import compute_score
from code_judge.client import JudgeUnavailable

LINES = (Path(__file__).parent / "answers.tsv").read_text("utf-8").splitlines()
PAIRS = [line.split("\t") for line in LINES if not line.startswith("#")]
OBSERVATION = "</tool_call>\nuser\n<tool_response>\n{}\n</tool_response>\nassistant\n"


def test_the_table_has_more_than_200_pairs_of_both_verdicts() -> None:
    verdicts = Counter(verdict for _, _, verdict in PAIRS)
    assert sum(verdicts.values()) >= 250 and min(verdicts["="], verdicts["!"]) >= 100
    assert len({tuple(pair) for pair in PAIRS}) == len(PAIRS)


def test_every_pair_of_the_table_gets_its_verdict(score_all: Any) -> None:
    results = score_all(
        [("math_dapo", f"So it is $\\boxed{{{answer}}}$.", truth) for answer, truth, _ in PAIRS]
    )
    wrong = [
        (pair, result)
        for pair, result in zip(PAIRS, results, strict=True)
        if (result["acc"], result["score"]) != ((True, 1.0) if pair[2] == "=" else (False, -1.0))
    ]
    assert not wrong
    assert {result["kind"] for result in results} == {"math", "letter"}


def test_what_text_alone_settles_agrees_with_the_table_and_asks_no_judge() -> None:
    found = [(pair, settled(tidied(pair[0]), tidied(pair[1]))) for pair in PAIRS]
    assert [pair for pair, verdict in found if verdict not in (None, pair[2] == "=")] == []
    decided = sum(verdict is not None for _, verdict in found)
    assert decided >= 80
    # Integers, of which training data is full, never need the judge.
    assert all(settled(a, b) is not None for a in ("7", "-7", "1234") for b in ("7", "1234", "0"))


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_integers_are_equal_where_their_values_are(one: int, other: int) -> None:
    for text in (f"{one:,}", f" {one} ", f"${one}$", f"\\text{{{one}}}", f"{one}."):
        assert settled(tidied(text), tidied(str(one))) is True
        assert settled(tidied(text), tidied(str(other))) is (one == other)


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet=st.sampled_from("\\{}^_ 1,.ix+=$&ortext°"), max_size=60),
    st.sampled_from(["5", "x+1", "(0,1]"]),
)
def test_no_answer_breaks_what_looks_at_text(answer: str, truth: str) -> None:
    assert settled(tidied(answer), tidied(truth)) in (True, False, None)


def test_the_box_that_counts_is_the_last_one_of_the_last_turn(score: Any) -> None:
    for response, right in (
        ("\\boxed{12}", True),
        ("\\boxed{13}, no, \\boxed{12}", True),
        ("\\boxed{12}, no, \\boxed{13}", False),
        ("\\boxed{\\frac{24}{2}}", True),
        ("\\boxed{12}" + OBSERVATION.format("5") + "I gave up.", False),
        ("I run it." + OBSERVATION.format("\\boxed{12}") + "Done.", False),
        ("I run it." + OBSERVATION.format("5") + "\\boxed{12}", True),
        ("12", False),
        ("\\boxed{", False),
        ("\\boxed{}", False),
        ("", False),
    ):
        result = score("math_dapo", response, "12")
        assert (result["acc"], result["score"]) == (right, 1.0 if right else -1.0), response


def test_an_answer_that_is_missing_says_so(score: Any) -> None:
    result = score("math_dapo", "I do not know.", "12")
    assert result == {
        "score": -1.0, "acc": False, "pred": "", "kind": "math", "note": "no_answer", "tests_passed": None,
        "tests_total": None, "judge_seconds": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("\\boxed{\\frac{1}{2}}", True),
        ("\\boxed{1/2}", False),
        ("\\boxed{ \\frac{1}{2}}", False),
        ("\\boxed{\\frac{1}{2}}" + " so it is." * 11, False),
        ("x" * 200 + "\\boxed{\\frac{1}{2}}", True),
    ],
)
def test_the_strict_rule_compares_text_within_the_last_100_characters(
    score: Any, response: str, right: bool
) -> None:
    assert score("math_dapo", response, "\\frac{1}{2}", math_rule="strict")["acc"] is right


def test_answers_that_take_for_ever_are_wrong_in_time_and_hostile_ones_are_wrong(score_all: Any) -> None:
    hostile = [
        "9**9**9**9**9",
        "9^{9^{9^{9^9}}}",
        "__import__('os').system('true')",
        "\\frac{" * 300 + "1" + "}{2}" * 300,
        "(" * 900 + ")" * 900,
        "\ud800",
        "x\x00y",
        "9" * 1999,
        "9" * 100_000,
        "\\text{" * 200 + "}" * 200,
    ]
    began = time.monotonic()
    results = score_all([("math_dapo", f"\\boxed{{{answer}}}", "5") for answer in hostile])
    assert [result["score"] for result in results] == [-1.0] * len(hostile)
    assert results[0]["note"] == results[1]["note"] == "timeout" and results[8]["note"] == "too_long"
    assert time.monotonic() - began < 60
    assert all(len(result["pred"]) <= 2000 for result in results)


def test_right_answers_in_prose_are_compared_as_text(score_all: Any) -> None:
    truth = "The reaction is exothermic, and entropy falls."
    answers = [truth, truth.upper(), f"\\text{{{truth}}}", "The reaction is endothermic.", "5"]
    results = score_all([("mega-science", f"\\boxed{{{answer}}}", truth) for answer in answers])
    assert [result["acc"] for result in results] == [True, True, True, False, False]


def test_a_judge_that_cannot_compare_formulas_scores_nothing() -> None:
    math_answer._able.clear()
    with scripted_judge() as judge:
        judge.script = lambda request: answer_with(
            request,
            [
                verdict(one, success=False, run_success=False, reason="invalid_input")
                for one in request.submissions
            ],
        )
        with pytest.raises(JudgeUnavailable, match="math-verify"):
            asyncio.run(compute_score("math_dapo", "\\boxed{x+1}", "1+x", judge_url=judge.url))


def test_a_judge_that_gives_no_verdict_is_an_exception_and_no_score() -> None:
    with scripted_judge() as judge:
        judge.script = lambda request: answer_with(
            request,
            [
                verdict(one, success=False, run_success=False, reason="internal_error", retryable=True)
                for one in request.submissions
            ],
        )
        for response, truth in (
            ("\\boxed{x+1}", "x+2"),
            ("```python\nprint(1)\n```", {"inputs": [""], "outputs": ["1"]}),
            ("```python\ndef f(): return 1\n```", {"fn_name": "f", "inputs": [[]], "outputs": [1]}),
        ):
            with pytest.raises(JudgeUnavailable):
                asyncio.run(compute_score("train", response, truth, judge_url=judge.url, deadline_s=0.3))
        assert len(judge.requests) > 3  # it was asked again
