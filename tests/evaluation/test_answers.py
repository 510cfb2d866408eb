"""Answers that are written differently and mean the same get one vote together; others do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleaner.evaluation.answers import canonical


@pytest.mark.parametrize(
    "forms",
    [
        ["1/2", "0.5", ".50", r"\frac{1}{2}", r"\dfrac12", r"$\tfrac{2}{4}$", " 1 / 2 "],
        ["-3/4", r"-\frac{3}{4}", r"\frac{-3}{4}", "-0.75"],
        ["1,000,000", "1000000", "1000000.", "1000000.0", "+1000000"],
        ["(1,2)", r"\left(1, 2\right)", r"(1,\ 2)"],
        [r"\text{A}", "A", " A. "],
        ["070", "70"],
    ],
)
def test_equal_answers_have_one_form(forms: list[str]) -> None:
    assert len({canonical(form) for form in forms}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1/2", "1/3"),
        ("12", "1,2"),
        ("A", "a"),
        ("x+1", "1+x"),
        ("1/0", "0"),
        (r"\leftarrow", "arrow"),
        ("50%", "0.5"),
    ],
)
def test_different_answers_stay_apart(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@given(st.text(max_size=40))
def test_no_answer_is_too_odd(answer: str) -> None:
    assert isinstance(canonical(answer), str)


def test_a_huge_number_is_text() -> None:
    assert canonical("9" * 100_000) == "9" * 100_000
