"""From a submission to a job, or at once to the answer that it is invalid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.gateway import Gateway
from app.job import Cases, Job, Steps, outcome
from app.sandbox.value import DEEPEST
from app.schema import Submission

_TRUE = ("1", "true", "yes", "on")
_MOST_TESTS = 10_000


class _Invalid(Exception):
    """The submission can't be run; the message says why."""


def accept(submission: Submission, gateway: Gateway, long: bool = False) -> Job | dict[str, Any]:
    """The job of a submission; if the submission can't be run, its answer with reason "invalid_input"."""
    try:
        return _job(submission, gateway, long)
    except _Invalid as why:
        return outcome(reason="invalid_input", stderr=f"{why}\n")


def _job(submission: Submission, gateway: Gateway, long: bool) -> Job:
    texts = (submission.solution, submission.input, submission.expected_output)
    for name, text in zip(("solution", "input", "expected_output"), texts, strict=True):
        if text is not None and not _encodable(text):
            raise _Invalid(f"{name} holds a lone surrogate, which is no text in UTF-8")
    math = submission.type == "math"
    if math and not (submission.expected_output or "").strip():
        raise _Invalid('type "math" needs the right answer in expected_output')
    options = submission.options or {}
    try:
        timeout = _positive(options, "timeout")
        seed = int(options["seed"]) % 2**63 if "seed" in options else None
    except ValueError as error:
        raise _Invalid(f"options: {error}") from None
    limit = gateway.settings.max_execution_time
    return gateway.job(
        text=submission.solution,
        stdin=submission.input or "",
        expected=submission.expected_output,
        timeout=limit if timeout is None else min(limit, timeout),
        echo=_flag(options, "echo_last"),
        seed=seed,
        long=long,
        steps=Steps("cpp", gateway.settings.max_compile_time) if submission.type == "cpp" else None,
        cases=_cases(submission, options),
        math=math,
    )


def _cases(submission: Submission, options: Mapping[str, str]) -> Cases | None:
    """The tests of a submission. Raises _Invalid."""
    tests: Any = submission.tests
    function = submission.fn_name
    if function is not None and not function.isidentifier():
        raise _Invalid(f"fn_name must be the name of a function, not {_shown(function)}")
    if tests is None:
        if function is not None:
            raise _Invalid("fn_name needs tests: a list of calls or of texts with asserts")
        return None
    if submission.type != "python":
        raise _Invalid(f'tests need type "python", not "{submission.type}"')
    if submission.expected_output is not None:
        raise _Invalid("give either tests or expected_output: with tests nothing compares what is printed")
    if not isinstance(tests, list) or not 0 < len(tests) <= _MOST_TESTS:
        raise _Invalid(f"tests must be a list of 1 to {_MOST_TESTS} tests")
    try:
        tolerance = float(options.get("tolerance", 0.0))
        if not 0 <= tolerance < float("inf"):
            raise ValueError(f"tolerance must be a number of at least 0, not {_shown(options['tolerance'])}")
        timeout = _positive(options, "test_timeout")
    except ValueError as error:
        raise _Invalid(f"options: {error}") from None
    texts, expected = _texts(tests) if isinstance(tests[0], str) else _calls(tests, function)
    return Cases(texts, expected, function, tolerance, _flag(options, "stop_on_failure"), timeout)


def _texts(tests: list[Any]) -> tuple[tuple[str, ...], None]:
    for number, test in enumerate(tests):
        if not isinstance(test, str):
            raise _Invalid(f"tests[{number}] is no text, but the first test is: all must be of one kind")
        if not _encodable(test):
            raise _Invalid(f"tests[{number}] holds a lone surrogate, which is no text in UTF-8")
    return tuple(tests), None


def _calls(tests: list[Any], function: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Arguments and expected values, as JSON texts: a job's own JSON has no long integers, no surrogates."""
    if function is None:
        raise _Invalid("tests with input and output need fn_name, the function to call")
    for number, test in enumerate(tests):
        if not isinstance(test, dict) or not {"input", "output"} <= test.keys():
            raise _Invalid(
                f'tests[{number}] must be {{"input": [arguments], "output": value}}, or all must be texts'
            )
        if not isinstance(test["input"], list | dict):
            raise _Invalid(
                f"tests[{number}].input must be a list of arguments, or an object of keyword arguments"
            )
        if _too_deep(test["output"], DEEPEST):
            raise _Invalid(f"tests[{number}].output is nested more than {DEEPEST} levels deep")
    try:
        inputs, outputs = (tuple(json.dumps(test[name]) for test in tests) for name in ("input", "output"))
    except RecursionError:
        raise _Invalid("tests: a value is nested too deeply") from None
    return inputs, outputs


def _too_deep(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested more than so many levels."""
    if not isinstance(value, list | dict):
        return False
    members = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(
        _too_deep(part, levels - 1) for part in members if isinstance(part, list | dict)
    )


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _flag(options: Mapping[str, str], name: str) -> bool:
    return options.get(name, "").lower() in _TRUE


def _positive(options: Mapping[str, str], name: str) -> float | None:
    if name not in options:
        return None
    value = float(options[name])
    if not value > 0:
        raise ValueError(f"{name} must be a positive number of seconds, not {_shown(options[name])}")
    return value


def _shown(text: str) -> str:
    return repr(text[:100].encode("utf-8", "replace").decode())
