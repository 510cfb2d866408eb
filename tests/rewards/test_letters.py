"""Choices: the letter counts, however it is dressed; two letters are none."""

from __future__ import annotations

from typing import Any

import pytest

from cleaner.rewards.letters import letter_of
from cleaner.rewards.verdict import GroundTruthError


@pytest.mark.parametrize(
    "answer",
    [
        "C", " C ", "C.", "(C)", "(C).", "C)", "C) 5 nm", "C) A proton", "C. five metres", "C: five", "$C$",
        "\\text{C}", "\\text{(C)}", "\\textbf{C}", "\\mathrm{C}", "\\text{C) a longer text}", "Option C", "option (C)",
        "The answer is C", "Answer: C", "\\text{Choice C}", "\\boxed{C}",
    ],
)  # fmt: skip
def test_a_letter_is_found_in_its_wrapping(answer: str) -> None:
    assert letter_of(answer) == "C"


@pytest.mark.parametrize(
    "answer",
    ["", "c", "K", "AB", "A or B", "A, B", "A and B", "A B", "(A) (B)", "A) B)", "5", "C = 5", "CO_2", "Cat", "none",
     "A" * 5000, "(" * 5000],
)  # fmt: skip
def test_what_names_no_letter_or_two_is_none(answer: str) -> None:
    assert letter_of(answer) is None


@pytest.mark.parametrize("truth", ["B", "(B)", "\\boxed{B}", "\\text{B}"])
def test_gpqa_scores_the_letter(score_all: Any, truth: str) -> None:
    responses = ["It is \\boxed{B}.", "\\boxed{\\text{(B)}}", "\\boxed{C}", "\\boxed{A, B}", "B"]
    results = score_all([("gpqa_diamond", response, truth) for response in responses])
    assert [result["score"] for result in results] == [1.0, 1.0, -1.0, -1.0, -1.0]
    assert [result["pred"] for result in results] == ["B", "B", "C", "A, B", ""]
    assert {result["kind"] for result in results} == {"letter"}


def test_a_gpqa_row_without_a_letter_is_an_error_of_the_row(score: Any) -> None:
    with pytest.raises(GroundTruthError, match="no letter"):
        score("gpqa_diamond", "\\boxed{B}", "5 nm")
