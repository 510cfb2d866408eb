"""Jobs of type `math`: a final answer against the right one, as a person would compare them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from judge_service import eventually

SAME = [
    ("1/2", r"\frac{1}{2}"),
    ("0.5", "1/2"),
    (r"\frac12", "0.5"),
    (r"So the answer is $\boxed{\frac{3}{4}}$.", "0.75"),
    ("The answer is 42", "42"),
    ("x**2 + 1", "1+x^2"),
    ("(x+1)**2", "x^2+2x+1"),
    ("1/sqrt(2)", r"\frac{\sqrt{2}}{2}"),
    ("sqrt((x+1)*2)", r"\sqrt{2x+2}"),
    ("pi/4", r"\frac{\pi}{4}"),
    ("sin(x)**2 + cos(x)**2", "1"),
    ("1,234", "1234"),
    ("1e-3", "0.001"),
    ("x**10", "x^{10}"),
    ("(1,2)", "(1, 2)"),
    ("{1, 2}", r"\{2, 1\}"),
    ("[0,1)", "[0, 1)"),
    ("x = 5", "5"),
    ("50%", r"50\%"),
    (r"90^\circ", "90"),
    (r"5\text{ cm}", "5"),
    ("e^2", r"\mathrm{e}^2"),
    (r"1\frac12", "3/2"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    ("3+4i", "4i+3"),
    ("oo", r"\infty"),
    ("Fraction(1, 2)", "1/2"),
    ("n(n+1)/2", r"\frac{n^2+n}{2}"),
    ("Monday", r"\text{Monday}"),
    ("A", "A"),
]
DIFFERENT = [
    ("3", "4"),
    ("0.3333", "1/3"),
    ("(1,2)", "(2,1)"),
    (r"\boxed{3}", "4"),
    ("x^2", "x^3"),
    ("A", "B"),
    ("Monday", r"\text{Tuesday}"),
    ("[0, 1]", "[0, 1)"),
    ("no idea", "5"),
]


def math(judge: Any, answer: str, expected: str | None, **fields: Any) -> dict[str, Any]:
    return judge.post("/run", {"type": "math", "solution": answer, "expected_output": expected, **fields})


def test_answers_are_compared_as_mathematics(judge: Any) -> None:
    pairs = SAME + DIFFERENT
    items = [{"type": "math", "solution": one, "expected_output": other} for one, other in pairs]
    results = judge.post("/run/batch", {"submissions": items})["results"]
    wrong = [
        (pair, result)
        for pair, result in zip(pairs, results, strict=True)
        if (result["success"], result["run_success"], result["reason"]) != (pair in SAME, True, "")
    ]
    assert not wrong


@pytest.mark.parametrize("answer", ["", "???", "!"])
def test_an_answer_that_says_nothing_is_wrong_and_stderr_says_why(judge: Any, answer: str) -> None:
    result = math(judge, answer, "4")
    assert (result["success"], result["run_success"], result["reason"]) == (False, True, "")
    assert "no mathematics was found in the answer" in result["stderr"]


@pytest.mark.parametrize("expected", [None, "", " ", "???"])
def test_without_a_right_answer_to_compare_with_the_input_is_invalid(
    judge: Any, expected: str | None
) -> None:
    result = math(judge, "4", expected)
    assert (result["success"], result["run_success"], result["reason"]) == (False, False, "invalid_input")
    assert "expected_output" in result["stderr"] and not result["retryable"]


@pytest.mark.parametrize("answer", ["9**9**9**9**9", "9^{9^{9^{9^9}}}"])
def test_an_answer_that_takes_for_ever_is_a_timeout(judge: Any, answer: str) -> None:
    result = math(judge, answer, "4", options={"timeout": "0.5"})
    assert (result["success"], result["run_success"], result["reason"]) == (False, False, "worker_timeout")
    assert result["cost"] < 1.5


def test_an_answer_can_not_run_code_or_print_the_verdict(judge: Any) -> None:
    for answer in ("__import__('os').system('true')", "1\n0 equal\n", "print('equal')"):
        assert not math(judge, answer, "5")["success"]


def test_a_math_job_that_comes_at_the_very_start_waits_for_its_layer(start_judge: Callable[..., Any]) -> None:
    judge = start_judge("--workers", "1")  # its PRELOAD has no sympy: the layer has most to do
    assert math(judge, "1/2", "0.5")["success"]
    assert eventually(lambda: judge.get("/status")["running"] == 0, 5)
