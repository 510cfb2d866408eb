"""Ground truths: which task a row is, and which rows are refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from cleaner.rewards.check_code import read_check
from cleaner.rewards.ground_truth import FinalAnswer, Functions, Letter, Printed, read_task
from cleaner.rewards.verdict import GroundTruthError

TACO = "train-code-taco-easy"


@pytest.mark.parametrize("form", [json.dumps, dict])
def test_inputs_and_outputs_are_a_program_that_reads_and_prints(form: Any) -> None:
    task = read_task(TACO, form({"inputs": ["1\n2\n", ["3", "4"]], "outputs": ["3\n", ["7"]]}))
    assert task == Printed((("1\n2\n", "3\n"), ("3\n4", "7")))
    columns = {"inputs": np.array(["1"], dtype=object), "outputs": np.array(["2"], dtype=object)}
    assert read_task(TACO, columns) == Printed((("1", "2"),))


def test_calls_have_values_or_lines_of_json() -> None:
    task = read_task(TACO, json.dumps({"fn_name": "f", "inputs": [[1, [2]], ["a"]], "outputs": [3, [4, 5]]}))
    assert isinstance(task, Functions) and (task.kind, task.function, task.other_tests) == (
        "calls",
        "f",
        None,
    )
    assert task.tests == ({"input": [1, [2]], "output": 3}, {"input": ["a"], "output": [4, 5]})
    task = read_task("lcb_v6", {"fn_name": "f", "inputs": ['[1, 2]\n"x"'], "outputs": ["[[1]]"]})
    assert isinstance(task, Functions)
    assert task.other_tests == ({"input": [[1, 2], "x"], "output": [[1]]},)
    assert task.tests == ({"input": [[1, 2], "x"], "output": [1]},)


def test_outputs_that_may_be_lists_of_one_element_have_both_readings() -> None:
    task = read_task(TACO, {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[2], [4]]})
    assert isinstance(task, Functions) and task.other_tests is not None
    assert [test["output"] for test in task.tests] == [2, 4]
    assert [test["output"] for test in task.other_tests] == [[2], [4]]


def test_livecodebench_cases_are_understood() -> None:
    printed = [{"input": "1\n", "output": "2\n", "testtype": "stdin"}] * 2
    assert read_task("livecodebench", json.dumps(printed)) == Printed((("1\n", "2\n"),) * 2)
    called = [{"input": "[1]\n2", "output": "3", "testtype": "functional", "metadata": {"func_name": "g"}}]
    task = read_task("livecodebench", called)
    assert isinstance(task, Functions) and task.function == "g"
    assert task.tests == ({"input": [[1], 2], "output": 3},)


@pytest.mark.parametrize(
    "answer", ["5", "[0, 1]", "{}", "{1, 2}", '["a"]', "[]", "\\frac{1}{2}", "Paris", "{broken"]
)
def test_everything_else_is_a_final_answer(answer: str) -> None:
    assert read_task("math_dapo", answer) == FinalAnswer(answer)


def test_numbers_are_final_answers_and_letters_are_letters() -> None:
    assert read_task("aime", 204) == FinalAnswer("204") and read_task("x", np.int64(7)) == FinalAnswer("7")
    assert read_task("mega-science", "(D)") == Letter("D") == read_task("gpqa", "D")
    assert read_task("math_dapo", "K") == FinalAnswer("K")


@pytest.mark.parametrize(
    "truth",
    [
        "", "  ", None, True, [], {}, {"inputs": ["1"], "outputs": []}, {"inputs": [], "outputs": []},
        {"inputs": ["1"]}, {"fn_name": 5, "inputs": [[1]], "outputs": [1]}, {"entry_point": "f"},
        {"inputs": 5, "outputs": 5}, {"test_code": "def check(", "entry_point": "f"},
        {"test_code": "def check(candidate):\n    assert candidate(1)"},
        [{"input": "1", "output": "2", "testtype": "functional"}],
    ],
)  # fmt: skip
def test_rows_that_nothing_can_be_measured_by_are_refused(truth: Any) -> None:
    with pytest.raises(GroundTruthError):
        read_task("math_dapo" if not isinstance(truth, dict | list) else TACO, truth)


def test_a_source_that_names_code_is_never_scored_as_an_answer() -> None:
    with pytest.raises(GroundTruthError, match="names code"):
        read_task(TACO, "42")


def test_plain_asserts_become_calls_whose_values_stay_outside() -> None:
    code = (
        "def check(candidate):\n    assert candidate(nums=[1, 2], k=3) == [0, 1]\n"
        "    assert candidate(nums=[], k=0) == (1, 'a'), 'advice'\n    assert True, 'fine'\n"
    )
    assert read_check(code, "f") == (
        {"input": {"nums": [1, 2], "k": 3}, "output": [0, 1]},
        {"input": {"nums": [], "k": 0}, "output": (1, "a")},
    )


@pytest.mark.parametrize(
    "line",
    ["assert candidate((1, 2)) == 3", "assert candidate({1: 2}) == 3", "assert candidate(1, k=2) == 3",
     "assert abs(candidate(1) - 2) < 1e-6", "assert candidate(1) is None", "assert candidate(x) == 1",
     "assert candidate(1) == {1, 2}", "assert candidate(**{}) == 1", "assert other(1) == 1"],
)  # fmt: skip
def test_other_asserts_stay_texts_one_test_each(line: str) -> None:
    code = f"import math\nx = 1\ndef check(f):\n    'doc'\n    assert f(1) == 1\n    {line.replace('candidate', 'f')}"
    tests = read_check(code, "f")
    assert len(tests) == 2 and all(test.startswith("import math\nx = 1") for test in tests)
    assert all(test.count("assert") == 1 for test in tests)


@pytest.mark.parametrize(
    "code",
    ["def check(candidate):\n    for i in range(3):\n        assert candidate(i) == i", "x = 1\nassert f(x) == 1",
     "def check(candidate):\n    pass"],
)  # fmt: skip
def test_code_that_is_more_than_asserts_stays_one_test(code: str) -> None:
    assert read_check(code, "f") == (code,)


def test_asserts_without_a_check_are_one_test_each() -> None:
    assert read_check("assert f(1) == 1\nassert f(2) == 4", None) == ("assert f(1) == 1", "assert f(2) == 4")
