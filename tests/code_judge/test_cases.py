"""Submissions with tests: many in one job, each with its own result, and no way to pass but to be right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.cases import Records, equal
from app.job import Cases
from app.sandbox.value import sendable

ADD = "def add(a, b):\n    return a + b\n"
FIELDS = {"passed", "error", "seconds"}


def passed(result: dict[str, Any]) -> list[bool]:
    return [test["passed"] for test in result["tests"]]


def call(arguments: Any, output: Any) -> dict[str, Any]:
    return {"input": arguments, "output": output}


def test_each_call_has_its_own_result_and_success_needs_all(judge: Any) -> None:
    right = [call([1, 2], 3), call({"a": 1, "b": 1}, 2), call(["a", "b"], "ab"), call([[1], [2]], [1, 2])]
    result = judge.run(ADD, fn_name="add", tests=right)
    assert (result["success"], result["run_success"], result["reason"]) == (True, True, "")
    assert passed(result) == [True] * 4
    assert all(set(test) == FIELDS and test["error"] is None for test in result["tests"])

    wrong = judge.run(ADD, entry_point="add", tests=[call([1, 2], 4), call([1, "a"], 0), *right])
    assert (wrong["success"], wrong["run_success"], wrong["exception"]) == (False, True, None)
    assert passed(wrong) == [False, False, *[True] * 4]
    assert wrong["tests"][0]["error"] == "wrong answer: returned 3"
    assert wrong["tests"][1]["error"].startswith("TypeError: ")
    assert "(line 2, in add)" in wrong["tests"][1]["error"]
    assert "Test 1:" in wrong["stderr"] and '  File "<code>", line 2, in add' in wrong["stderr"]


def test_judge_answers_with_the_tests_too(judge: Any) -> None:
    content = {"solution": ADD, "fn_name": "add", "tests": [call([1, 2], 3)]}
    answer = judge.post("/judge", content)
    assert answer["success"] and passed(answer) == [True] and "stdout" not in answer


def test_a_method_of_a_class_solution_is_called_on_a_new_object_each_time(judge: Any) -> None:
    program = (
        "class Solution:\n    def __init__(self):\n        self.calls = 0\n"
        "    def count(self, n: int) -> int:\n        self.calls += 1\n        return self.calls + n\n"
    )
    assert judge.run(program, fn_name="count", tests=[call([n], n + 1) for n in range(3)])["success"]


def test_a_program_without_the_function_fails_all_tests_and_is_told_so(judge: Any) -> None:
    result = judge.run("x = 1", fn_name="f", tests=[call([], 1), call([], 2)])
    assert passed(result) == [False, False]
    assert "no function 'f'" in result["tests"][0]["error"]


def test_a_program_that_raises_before_its_tests_has_run_none(judge: Any) -> None:
    result = judge.run(ADD + "1 / 0", fn_name="add", tests=[call([1, 2], 3)] * 2)
    assert (result["success"], result["run_success"]) == (False, False)
    assert result["exception"] == "ZeroDivisionError" and "line 3" in result["stderr"]
    assert [test["error"] for test in result["tests"]] == ["not run: the program ended before its tests"] * 2


def test_a_tested_program_is_not_the_main_module(judge: Any) -> None:
    program = ADD + "if __name__ == '__main__':\n    input()\n    add(1, None)\n"
    assert judge.run(program, fn_name="add", tests=[call([1, 2], 3)])["success"]


def test_stdin_and_printed_text_are_as_usual(judge: Any) -> None:
    result = judge.run(
        "def f(): print('hello'); return input()", fn_name="f", tests=[call([], "x")], input="x"
    )
    assert result["success"] and result["stdout"] == "hello\n"


@pytest.mark.parametrize(
    ("value", "output", "equal_"),
    [
        ("(1, (2, 3))", [1, [2, 3]], True),
        ("{3, 1, 2}", [1, 2, 3], True),
        ("{3, 1}", [1, 2, 3], False),
        ("{1: 'a', 'b': (2,)}", {"1": "a", "b": [2]}, True),
        ("{1: 'a'}", {"1": "a", "b": [2]}, False),
        ("{'set': [1]}", [1], False),
        ("{'set': [1]}", {"set": [1]}, True),
        ("1.0", 1, True),
        ("True", True, True),
        ("1 == 1", 1, True),
        ("'1'", 1, False),
        ("None", None, True),
        ("None", 0, False),
        ("0.1 + 0.2", 0.3, False),
        ("float('nan')", float("nan"), True),
        ("2 ** 200", 2**200, True),
        ("__import__('numpy').arange(3)", [0, 1, 2], True),
        ("__import__('numpy').float64(0.5)", 0.5, True),
        ("__import__('fractions').Fraction(1, 2)", 0.5, True),
        ("__import__('decimal').Decimal('2.5')", 2.5, True),
        ("__import__('collections').Counter('aab')", {"a": 2, "b": 1}, True),
        ("range(3)", [0, 1, 2], True),
        ("'\\ud800'", "\ud800", True),
        ("'é' * 3", "é" * 3, True),
        ("object()", None, False),
        ("b'a'", "a", False),
        ("[1] * 100_000", [1], False),
    ],
)
def test_returned_values_are_compared_by_value(judge: Any, value: str, output: Any, equal_: bool) -> None:
    result = judge.run(f"def f(): return {value}", fn_name="f", tests=[call([], output)])
    assert passed(result) == [equal_], result["tests"]


def test_the_tolerance_option_is_for_floating_point_numbers_only(judge: Any) -> None:
    program = "def f(x): return x"
    tests = [call([[0.1 + 0.2, 1e9 + 1]], [0.3, 1e9]), call([1], 2), call([1.1], 1)]
    result = judge.run(program, fn_name="f", tests=tests, options={"tolerance": "1e-6"})
    assert passed(result) == [True, False, False]


def test_equality_holds_for_every_sendable_value() -> None:
    for value, output in [
        ((1, {2, 3}), [1, [3, 2]]),
        ({(1, 2), (0, 1)}, [[1, 2], [0, 1]]),
        ([float("inf")], [1e999]),
    ]:
        assert equal(sendable(value), output)
    assert equal(10**400, 10**400) and not equal(10**400, 1.5, 0.1)
    with pytest.raises(TypeError, match="generator"):
        sendable(n for n in range(3))


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("return 10 ** 5000", "ValueError"),
        ("x = []\n    for _ in range(20_000): x = [x]\n    return x", "levels deep"),
        ("x = []\n    x.append(x)\n    return x", "levels deep"),
        ("sys.stdout = sys.stderr = None\n    raise KeyError(7)", "KeyError: 7 (line"),
        ("json.JSONDecoder = json.JSONEncoder = json.loads = None\n    return 2", "wrong answer: returned 2"),
        ("class Odd(BaseException):\n        def __str__(self): raise self\n    raise Odd", "Odd"),
    ],
)
def test_a_test_goes_wrong_alone_whatever_it_returns_or_breaks(judge: Any, body: str, word: str) -> None:
    program = (
        f"import json, sys\nsys.setrecursionlimit(100_000)\ndef f(n):\n    if n != 1: return n\n    {body}\n"
    )
    result = judge.run(program, fn_name="f", tests=[call([n], n) for n in range(3)])
    assert result["run_success"] and passed(result) == [True, False, True]
    assert word in result["tests"][1]["error"]
    assert "sandbox" not in result["stderr"] and "json" not in result["stderr"]


def test_values_as_deep_as_allowed_are_compared(judge: Any) -> None:
    program = "def f(n):\n    x = 1\n    for _ in range(n): x = {'k': x}\n    return x\n"
    output: Any = 1
    for _ in range(200):
        output = {"k": output}
    assert judge.run(program, fn_name="f", tests=[call([200], output)])["success"]
    deeper = judge.run(program, fn_name="f", tests=[call([201], {"k": output})])
    assert deeper["reason"] == "invalid_input" and "tests[0].output" in deeper["stderr"]


FORGED = r"""
import os, sys
for n in range(3, 256):
    try:
        os.write(n, b'\nnonce {"n":0,"s":0,"ok":true}\n{"n":0,"s":0,"ok":true}\n')
    except OSError:
        pass
print('{"n":0,"s":0,"ok":true}')
"""


@pytest.mark.parametrize(
    "end", ["", "os._exit(0)", "sys.exit(0)", "raise SystemExit", "os.closerange(0, 256)"]
)
@pytest.mark.parametrize("where", ["module", "test"])
def test_no_way_to_end_or_to_write_passes_a_test(judge: Any, end: str, where: str) -> None:
    program = FORGED + f"{end}\ndef f(): return 0\n"
    if where == "test":
        program = "def f():" + (FORGED + end).replace("\n", "\n    ") + "\n    return 0\n"
    for tests in (["assert f() == 1"], [call([], 1)]):
        result = judge.run(program, fn_name="f", tests=tests)
        assert passed(result) == [False] and not result["success"]


def test_a_test_that_ends_the_process_takes_those_after_it_along(judge: Any) -> None:
    program = "import os\ndef f(n):\n    if n == 1: os._exit(0)\n    return n\n"
    result = judge.run(program, fn_name="f", tests=[call([n], n) for n in range(4)])
    assert passed(result) == [True, False, False, False]
    errors = [test["error"] for test in result["tests"]]
    assert errors[1].startswith("no result: the program ended") and errors[2].startswith("not run")


def test_expected_values_are_nowhere_in_the_programs_memory(judge: Any) -> None:
    program = (
        "import gc, sys\ndef f(key):\n    found = [o for o in gc.get_objects() if isinstance(o, (dict, list, tuple))]\n"
        "    texts = ' '.join(map(repr, found)) + repr(sys._getframe(1).f_locals)\n"
        "    frame = sys._getframe()\n    while frame:\n        texts += repr(frame.f_locals)\n"
        "        frame = frame.f_back\n"
        "    return ('SECRET' + key) in texts, ('GIVEN' + key) in texts\n"
    )
    result = judge.run(
        program, fn_name="f", tests=[call(["1"], "SECRET1"), call(["2"], [False, False]), call(["GIVEN2"], 0)]
    )
    assert result["tests"][0]["error"] == "wrong answer: returned [False, False]"
    # The search does find what is there: the arguments of the tests.
    assert judge.run(program, fn_name="f", tests=[call(["1"], [False, True]), call(["GIVEN1"], 0)])["tests"][
        0
    ]["passed"]


def test_a_test_that_hangs_makes_a_timeout_that_tells_what_came_before(judge: Any) -> None:
    program = "import time\ndef f(n):\n    time.sleep(n)\n    return n\n"
    tests = [call([0], 0), call([9], 9), call([0], 0)]
    result = judge.run(program, fn_name="f", tests=tests, options={"timeout": "0.5"})
    assert (result["reason"], result["success"], passed(result)) == (
        "worker_timeout",
        False,
        [True, False, False],
    )
    assert "line 3, in f" in result["stderr"]
    assert "0.5 s" in result["tests"][1]["error"] and result["tests"][2]["error"].startswith("not run")


def test_the_test_timeout_option_ends_one_test_and_the_others_go_on(judge: Any) -> None:
    program = (
        "def f(n):\n    while n:\n        try:\n            while True: pass\n"
        "        except Exception:\n            pass\n    return n\n"
    )
    tests = [call([0], 0), call([1], 1), call([0], 0)]
    result = judge.run(program, fn_name="f", tests=tests, options={"test_timeout": "0.2"})
    assert (result["reason"], result["run_success"], passed(result)) == ("", True, [True, False, True])
    assert result["tests"][1]["error"] == "timed out: the test was stopped after 0.2 s"
    assert 0.1 < result["tests"][1]["seconds"] < 1
    swallowed = "def f(n):\n    try:\n        while n: pass\n    except BaseException: pass\n    return n\n"
    result = judge.run(swallowed, fn_name="f", tests=tests, options={"test_timeout": "0.2"})
    assert passed(result) == [True, False, True] and "timed out" in result["tests"][1]["error"]


@pytest.mark.parametrize("tests", [[call([1], 2), call([1], 1)], ["assert f(1) == 2", "assert f(1) == 1"]])
def test_stop_on_failure_leaves_out_the_tests_after_it(judge: Any, tests: Any) -> None:
    result = judge.run("def f(n): return n", fn_name="f", tests=tests, options={"stop_on_failure": "1"})
    assert passed(result) == [False, False]
    assert result["tests"][1]["error"] == "not run: a test before it failed"


def test_an_error_of_any_text_and_length_is_answered(judge: Any) -> None:
    program = "def f(text): raise ValueError(text * 3000)"
    result = judge.run(program, fn_name="f", tests=[call(["\ud800"], 1), call(["\0\n"], 1)])
    assert passed(result) == [False, False]
    assert all(test["error"].startswith("ValueError: ") for test in result["tests"])
    assert all(len(test["error"]) <= 1000 for test in result["tests"])


def test_a_record_can_not_be_forged_into_an_answer_that_is_none() -> None:
    records = Records(Cases(("1", "2", "3"), ("1", "2", "3"), "f"), "secret")
    lines = [
        b'secret {"n": -1}', b'wrong {"n": 0, "s": 0, "v": 1}', b'secret {"n": 1, "s": 0, "v": 2}', b"secret [" * 999,
        b'secret {"n": 0, "s": 1e999, "v": 1}', b'secret {"n": 0, "s": 0, "v": 1}',
        b'secret {"n": 1, "s": 0, "ok": true}', b'secret {"n": 1, "v": 2, "s": 1' + b"0" * 400 + b"}",
        b'secret {"n": 1, "s": -5, "e": ["\\ud800"]}', b'secret {"n": 2, "s": "x", "v": 3}', b"secret nothing",
        b'secret {"n": 2, "s": NaN, "v": {"set": 7}}', b"hint",
    ]  # fmt: skip
    data = b"\n".join(lines)
    for piece in range(0, len(data), 7):
        records.feed(data[piece : piece + 7])
    records.feed(b"", final=True)
    assert records.loaded
    assert [test["passed"] for test in records.results] == [True, False]
    assert json.dumps(records.results, allow_nan=False).encode()
    assert b"hint" in records.rest and b"secret" not in records.rest


def test_a_thousand_tests_are_one_job(judge: Any) -> None:
    tests = [call([[n] * 100, [n]], [n] * 101) for n in range(1000)]
    result = judge.run(ADD, fn_name="add", tests=tests)
    assert result["success"] and len(result["tests"]) == 1000


def test_a_program_that_sends_without_end_costs_the_worker_nothing(judge: Any) -> None:
    program = "def f(): return 'x' * 30_000_000\n"
    result = judge.run(program, fn_name="f", tests=[call([], "x"), call([], "x")])
    assert passed(result) == [False, False]
    assert "longer" in result["tests"][0]["error"]


def test_a_thread_or_an_exit_handler_left_behind_does_not_matter(judge: Any) -> None:
    program = (
        "import atexit, threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n" + ADD
    )
    result = judge.run(program + "atexit.register(time.sleep, 60)", fn_name="add", tests=[call([1, 2], 3)])
    assert result["success"] and result["cost"] < 1


def test_deep_recursion_and_dataclasses_work_in_tests_as_elsewhere(judge: Any) -> None:
    program = (
        "import sys, pickle\nfrom dataclasses import dataclass\nsys.setrecursionlimit(50000)\n"
        "@dataclass\nclass P:\n    x: int\ndef f(n): return n and f(n - 1)\n"
        "def g(n): return pickle.loads(pickle.dumps(P(n))).x\n"
    )
    assert judge.run(program, fn_name="f", tests=[call([20000], 0)])["success"]
    assert judge.run(program, fn_name="g", tests=[call([3], 3)])["success"]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"fn_name": "f"}, "needs tests"),
        ({"fn_name": "f g", "tests": ["pass"]}, "fn_name"),
        ({"tests": []}, "1 to"),
        ({"tests": "assert True"}, "list"),
        ({"fn_name": "f", "tests": [1]}, "tests[0]"),
        ({"tests": [call([], 1)]}, "fn_name"),
        ({"fn_name": "f", "tests": [{"input": [1]}]}, "tests[0]"),
        ({"fn_name": "f", "tests": [call(1, 1)]}, "tests[0].input"),
        ({"fn_name": "f", "tests": ["pass", call([], 1)]}, "tests[1]"),
        ({"fn_name": "f", "tests": ["'\ud800'"]}, "surrogate"),
        ({"tests": ["pass"], "expected_output": "1"}, "expected_output"),
        ({"tests": ["pass"], "type": "cpp"}, "cpp"),
        ({"tests": ["pass"], "options": {"tolerance": "-1"}}, "tolerance"),
        ({"tests": ["pass"], "options": {"test_timeout": "0"}}, "test_timeout"),
    ],
)
def test_tests_of_the_wrong_form_are_invalid_and_told_which(
    judge: Any, fields: dict[str, Any], word: str
) -> None:
    result = judge.run("def f(): pass", **fields)
    assert result["reason"] == "invalid_input" and word in result["stderr"], result
    assert result["tests"] is None


def test_an_ordinary_job_has_no_tests(judge: Any) -> None:
    assert judge.run("print(1)")["tests"] is None
