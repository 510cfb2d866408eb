"""Programs by the running judge: right, wrong, slow, crashing and hostile ones, in all three kinds of tasks."""

from __future__ import annotations

import time
from typing import Any

import pytest

STDIN = {"inputs": ["1 2\n", "3 4\n", "10 -3\n", "0 0\n"], "outputs": ["3\n", "7\n", "7\n", "0\n"]}
CALLS = {"fn_name": "add", "inputs": [[1, 2], [3, 4], [10, -3], [0, 0]], "outputs": [3, 7, 7, 0]}
ASSERTS = {
    "import_prefix": "from math import *\n",
    "entry_point": "add",
    "test_code": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(3, 4) == 7\n"
    "    assert candidate(10, -3) == 7\n    assert abs(candidate(0, 0)) < 1e-9\n",
}
KINDS = {"stdin": STDIN, "calls": CALLS, "asserts": ASSERTS}


def block(program: str) -> str:
    return f"I would write\n```python\n{program}\n```\nand that is it."


def add(body: str, kind: str) -> str:
    """A program for a task of a kind, with `body` between its arguments and what it says."""
    if kind == "stdin":
        return f"a, b = map(int, input().split())\n{body}\nprint(r)"
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    return f"def add(a, b):\n{indented}    return r"


HOSTILE = {
    "stdin": ["print('3\\n7\\n7\\n0')\nimport os\nos._exit(0)", "import os\nos._exit(0)", "print(3)"],
    "calls": [
        "import os\nprint(3)\nos._exit(0)",
        "class E:\n    def __eq__(self, other): return True\ndef add(a, b): return E()",
        "import os\ndef add(a, b):\n    print(3)\n    os._exit(0)",
        "import sys\ndef add(a, b):\n    sys.exit(0)",
        "raise SystemExit(0)",
    ],
    "asserts": [
        "import os\nprint(3)\nos._exit(0)",
        "import os\ndef add(a, b):\n    os._exit(0)",
        "raise SystemExit(0)",
        "def check(f): pass",
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_the_share_of_tests_and_acc_wants_all(score_all: Any, kind: str) -> None:
    bodies = ["r = a + b", "r = a + b if a < 10 else 0", "r = 7", "r = -1000", "r = 1 // 0"]
    rows = [("train-code-taco-easy", block(add(body, kind)), KINDS[kind]) for body in bodies]
    results = score_all(rows)
    assert [result["score"] for result in results] == [1.0, 0.75, 0.5, 0.0, 0.0]
    assert [result["tests_passed"] for result in results] == [4, 3, 2, 0, 0]
    assert [result["acc"] for result in results] == [True, False, False, False, False]
    assert {(result["kind"], result["tests_total"], result["pred"]) for result in results} == {
        (kind, 4, None)
    }
    assert all(result["judge_seconds"] > 0 for result in results)


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_programs_earn_nothing_that_they_did_not_compute(score_all: Any, kind: str) -> None:
    results = score_all([("train-code-taco-easy", block(program), KINDS[kind]) for program in HOSTILE[kind]])
    most = 0.25 if kind == "stdin" else 0.0  # one of the outputs is 3
    assert all(result["score"] <= most and not result["acc"] for result in results), results


def test_slow_programs_lose_the_slow_tests_only(score_all: Any) -> None:
    slow = "r = a + b\nwhile a == 10: pass"
    rows = [("train-code-taco-easy", block(add(slow, kind)), KINDS[kind]) for kind in KINDS]
    results = score_all(rows, test_timeout_s=0.3)
    assert [result["tests_passed"] for result in results] == [3, 3, 3], results
    assert results[0]["note"] == "timeout"


def test_a_program_that_hangs_in_all_of_its_first_tests_is_not_tried_on_hundreds(score_all: Any) -> None:
    many = {"inputs": [f"{i}\n" for i in range(400)], "outputs": [str(i) for i in range(400)]}
    calls = {"fn_name": "f", "inputs": [[i] for i in range(400)], "outputs": list(range(400))}
    began = time.monotonic()
    results = score_all(
        [
            ("lcb_v6", block("while True: pass"), many),
            ("lcb_v6", block("import nothing"), many),
            ("lcb_v6", block("while True: pass"), calls),
            ("lcb_v6", block("def g(): pass"), calls),
        ],
        timeout_s=0.3,
    )
    assert [(result["score"], result["tests_total"]) for result in results] == [(0.0, 400)] * 4
    assert [result["note"] for result in results] == ["timeout", "crash", "timeout", ""]
    assert time.monotonic() - began < 30  # 400 x 0.3 s would be 120


@pytest.mark.parametrize(
    ("response", "note"),
    [
        ("no program", "no_program"),
        ("```python\nprint(1)", "no_program"),
        ("```cpp\nint main() {}\n```", "no_program"),
        (block("def f(:"), "not_python"),
        (block("x = '\x00'"), "not_python"),
        (block("x = '\ud800'"), "not_python"),
        (block("(" * 100_000), "not_python"),
        (block("-" * 60_000 + "1"), "not_python"),
        (block("x = 1\n" * 20_000), "not_python"),
        ('<tool_call>\n{"code": "\n```python\nprint(1)\n```\n"}\n</tool_call>', "no_program"),
        (block("print(3)") + "\n<tool_response>\n5\n</tool_response>\nassistant\nDone.", "no_program"),
    ],
)
def test_without_a_program_that_is_python_the_score_is_minus_1(score: Any, response: str, note: str) -> None:
    result = score("train-code-taco-easy", response, STDIN)
    assert (result["score"], result["acc"], result["note"], result["tests_passed"]) == (-1.0, False, note, 0)


def test_the_last_block_of_the_last_turn_is_the_program(score: Any) -> None:
    right, wrong = block(add("r = a + b", "stdin")), block("print(-1)")
    assert score("lcb_v6", wrong + right, STDIN)["acc"]
    assert not score("lcb_v6", right + wrong, STDIN)["acc"]
    observation = "\n<tool_response>\n```python\nprint(-1)\n```\n</tool_response>\nassistant\n"
    assert score("lcb_v6", wrong + observation + right, STDIN)["acc"]


def test_layout_of_what_is_printed_does_not_count(score: Any) -> None:
    truth = {"inputs": ["3\n"], "outputs": ["1 2 3\n0.3333333\n"]}
    program = "n = int(input())\nprint(*range(1, n + 1), end=' \\n')\nprint(1 / 3)\n"
    assert score("lcb_v6", block(program), truth)["acc"]
    assert not score("lcb_v6", block(program.replace("1 / 3", "1 / 4")), truth)["acc"]


def test_functions_are_functions_not_scripts(score_all: Any) -> None:
    # The original ran these tasks as scripts, so none of them could be solved.
    two_sum = {
        "entry_point": "Solution().twoSum",
        "import_prefix": "from typing import *\n",
        "test_code": "def check(candidate):\n    assert candidate(nums=[2, 7], target=9) == [0, 1]\n",
    }
    method = "class Solution:\n    def twoSum(self, nums: List[int], target: int) -> List[int]:\n        return [0, 1]"
    taco = {"fn_name": "double", "inputs": [[1], [2]], "outputs": [[2], [4]]}
    lists = {"fn_name": "pack", "inputs": [[1], [2]], "outputs": [[1], [2]]}
    lcb = {"fn_name": "first", "inputs": ['[3, 4]\n"x"', '[5]\n"y"'], "outputs": ['"3x"', '"5y"']}
    rows = [
        ("train-code-leetcode-Easy", block(method), two_sum),
        ("train-code-taco-easy", block("def double(n): return 2 * n"), taco),
        ("train-code-taco-easy", block("def pack(n): return [n]"), lists),
        ("train-code-taco-easy", block("def double(n): return n"), taco),
        (
            "lcb_v6",
            block(
                "class Solution:\n    def first(self, a: List[int], b: str) -> str:\n        return f'{a[0]}{b}'"
            ),
            lcb,
        ),
    ]
    assert [result["score"] for result in score_all(rows)] == [1.0, 1.0, 1.0, 0.0, 1.0]


def test_every_verdict_has_the_same_details(score_all: Any) -> None:
    rows = [
        ("math_dapo", "\\boxed{5}", "5"),
        ("gpqa", "\\boxed{A}", "A"),
        ("lcb_v6", block("print(3)"), STDIN),
        ("lcb_v6", "nothing", CALLS),
    ]
    assert len({tuple(result) for result in score_all(rows)}) == 1
