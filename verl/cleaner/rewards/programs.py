"""Programs: which share of its tests does the last ```` ```python ```` block of the last turn pass?

The share is in [0, 1]; -1 stands for a response without a program that can be read as Python. code-judge runs them,
each job within its time and memory limits.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cleaner.evaluation.code_blocks import last_python_block
from cleaner.rewards.ground_truth import Functions, Printed
from cleaner.rewards.printed import same_output
from cleaner.rewards.response import last_turn
from cleaner.rewards.settings import RewardSettings
from cleaner.rewards.verdict import WRONG, GroundTruthError, Verdict
from code_judge.client import Result, Submission, python, shared_client

_TESTS_PER_JOB = 8
_TRIED_FIRST = 8
_INVALID, _TIMEOUT = "invalid_input", "worker_timeout"
_MOST_CHARS = 1 << 16


@dataclass
class _Tally:
    """What has come of a program so far."""

    passed: int = 0
    seconds: float = 0.0
    timeouts: int = 0
    crashes: int = 0
    jobs: int = 0

    @property
    def hopeless(self) -> bool:
        """No job came to a good end, and no test passed."""
        return self.jobs > 0 and self.passed == 0 and self.timeouts + self.crashes == self.jobs

    @property
    def note(self) -> str:
        return "timeout" if self.timeouts else "crash" if self.crashes else ""


async def score_program(response: str, task: Printed | Functions, settings: RewardSettings) -> Verdict:
    """Score a program by the share of its tests that it passes.

    A program whose first jobs all crash or time out, without a test passed, is not tried on the others: they count as
    failed.

    Raises:
        JudgeUnavailable: the judge gave no verdict.
        GroundTruthError: it refuses the tests.
    """
    total = len(task.cases if isinstance(task, Printed) else task.tests)
    kind = "stdin" if isinstance(task, Printed) else task.kind
    program = last_python_block(last_turn(response))
    note = "" if program else "no_program"
    if program and not _is_python(program):
        note = "not_python"
    if note:
        return Verdict(WRONG, False, None, kind, note, 0, total)
    if isinstance(task, Printed):
        tally = await _run_cases(program, task.cases, settings)
    else:
        tally = await _run_tests(program, task, task.tests, settings)
        if tally.passed == 0 and not tally.hopeless and task.other_tests is not None:
            seconds = tally.seconds
            tally = await _run_tests(program, task, task.other_tests, settings)
            tally.seconds += seconds
    all_passed = tally.passed == total
    return Verdict(
        tally.passed / total,
        all_passed,
        None,
        kind,
        "" if all_passed else tally.note,
        tally.passed,
        total,
        round(tally.seconds, 6),
    )


def _is_python(program: str) -> bool:
    if len(program) > _MOST_CHARS:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence" and the like
            ast.parse(program)
    # ValueError: a null byte or a lone surrogate. MemoryError is the parser's for what is nested too deeply.
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


async def _run_cases(program: str, cases: Sequence[tuple[str, str]], settings: RewardSettings) -> _Tally:
    jobs = [
        python(program, stdin=given, expected_output=expected, timeout_s=settings.timeout_s)
        for given, expected in cases
    ]

    def passed(number: int, result: Result) -> int:
        # The judge compares whole outputs; what it tells of them is cut, and then equals nothing.
        alike = result["run_success"] and same_output(result.get("stdout", ""), cases[number][1])
        return int(result["success"] or alike)

    return await _run(jobs, _TRIED_FIRST, passed, settings)


async def _run_tests(program: str, task: Functions, tests: Sequence[Any], settings: RewardSettings) -> _Tally:
    text = f"{task.prefix}\n{program}" if task.prefix else program
    options = {"test_timeout": repr(float(settings.test_timeout_s))}
    jobs = [
        python(
            text,
            fn_name=task.function,
            tests=list(tests[first : first + _TESTS_PER_JOB]),
            timeout_s=settings.timeout_s,
            options=options,
        )
        for first in range(0, len(tests), _TESTS_PER_JOB)
    ]

    def passed(number: int, result: Result) -> int:
        return sum(test["passed"] for test in result.get("tests") or ())

    return await _run(jobs, 1, passed, settings)


async def _run(jobs: list[Submission], first: int, passed: Any, settings: RewardSettings) -> _Tally:
    """Run the first jobs, then, unless that is hopeless, the others. `passed(number, result)` counts tests."""
    judge = shared_client(settings.judge())
    tally = _Tally()
    for begin, part in ((0, jobs[:first]), (first, jobs[first:])):
        if not part or tally.hopeless:
            continue
        for number, result in enumerate(await judge.run_many(part), begin):
            if result["reason"] == _INVALID:
                raise GroundTruthError(f"code-judge refuses the tests: {result.get('stderr', '').strip()}")
            tally.jobs += 1
            tally.passed += passed(number, result)
            tally.seconds += result["cost"]
            tally.timeouts += result["reason"] == _TIMEOUT
            tally.crashes += not result["run_success"] and result["reason"] != _TIMEOUT
    return tally
