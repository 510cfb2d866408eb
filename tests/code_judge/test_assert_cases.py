"""Asserts as tests: texts that run beside the program, whatever form they bring."""

from __future__ import annotations

from typing import Any

import pytest

ADD = "def add(a, b):\n    return a + b\n"
GUARD = "if __name__ == '__main__':\n    check(add)\n"
UNIT = "import unittest\nclass Cases(unittest.TestCase):\n    def setUp(self): self.n = 1\n    def test_a(self): {}\n"


def passed(result: dict[str, Any]) -> list[bool]:
    return [test["passed"] for test in result["tests"]]


def test_asserts_are_run_after_the_program_in_its_namespace(judge: Any) -> None:
    tests = [
        "assert add(1, 2) == 3",
        "x = 4\nassert candidate(2, 2) == x",
        "assert x == 4",
        "assert candidate(1, 1) == 3, 'one and one'",
        "METADATA = {}\n\ndef check(candidate):\n    assert candidate(1, 1) == 2\n    assert candidate(0, 1) == 2\n",
        "def check(f):\n    assert f(1, 1) == 2\ncheck(add)",
        "assert (",
        "raise SystemExit(0)",
        "assert True",
    ]
    result = judge.run(ADD, entry_point="add", tests=tests)
    assert passed(result) == [True, True, True, False, False, True, False, False, True]
    errors = [test["error"] for test in result["tests"]]
    assert errors[3] == (
        "AssertionError: one and one (line 1 of the test: assert candidate(1, 1) == 3, 'one and one')"
    )
    assert errors[4] == "AssertionError (line 5 of the test: assert candidate(0, 1) == 2)"
    assert errors[6].startswith("SyntaxError") and errors[6].endswith("(line 1 of the test)")
    assert errors[7].startswith("SystemExit")


def test_asserts_need_no_function_name(judge: Any) -> None:
    assert judge.run(ADD, tests=["assert add(1, 2) == 3"])["success"]
    result = judge.run(ADD, tests=["def check(candidate): pass"])
    assert "fn_name" in result["tests"][0]["error"]


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("def check(candidate):\n    assert candidate(1, 1) == {n}\n" + GUARD, "line 2 of the test"),
        (
            "def check(candidate):\n    assert candidate(1, 1) == {n}\ndef main():\n    check(add)\n",
            "line 2 of the test",
        ),
        ("from solution import add\n\ndef test_ones():\n    assert add(1, 1) == {n}\n", "line 4 of the test"),
        ("async def test_ones():\n    assert add(1, 1) == {n}\n", "line 2 of the test"),
        ("class TestAdd:\n    def test_ones(self):\n        assert add(1, 1) == {n}\n", "line 3 of the test"),
        (
            UNIT.format("self.assertEqual(add(1, self.n), {n})"),
            "AssertionError: 2 != 3 (1 of 1 failed)",
        ),
        (
            "def test_check():\n    check(add)\n\ndef check(f):\n    assert f(1, 1) == {n}\n",
            "line 5 of the test",
        ),
    ],
)
def test_a_text_that_only_defines_its_tests_is_called(judge: Any, text: str, bad: str) -> None:
    right, wrong = text.replace("{n}", "2"), text.replace("{n}", "3")
    result = judge.run(ADD, fn_name="add", tests=[right, wrong, right])
    assert passed(result) == [True, False, True], result["tests"]
    assert bad in result["tests"][1]["error"]
    assert "sandbox" not in result["stderr"]


def test_what_a_text_calls_itself_is_not_called_again(judge: Any) -> None:
    texts = [
        "calls = 0\ndef check(f):\n    global calls\n    calls += 1\ncheck(add)",
        "assert calls == 1",
        "def test_it():\n    check(add)\ndef check(f):\n    global calls\n    calls += 1\n",
        "assert calls == 2",
        "def test_two(a):\n    global calls\n    calls += a\nfor a in range(2): test_two(a)",
        "assert calls == 3",
    ]
    result = judge.run(ADD, fn_name="add", tests=texts)
    assert passed(result) == [True] * len(texts), result["tests"]
