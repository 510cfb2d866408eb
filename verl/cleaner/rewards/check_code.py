"""Tests given as Python code, taken apart so that each counts for itself.

`def check(candidate)` with nothing but asserts in it becomes one test an assert. Where all of them are plain, such as
`assert candidate([1, 2], 3) == 5`, they become calls: the expected values then never enter the sandbox, and an object
that claims to equal everything gains nothing. Any other code stays one test.
"""

from __future__ import annotations

import ast
import json
from typing import Any

from cleaner.rewards.verdict import GroundTruthError


def read_check(code: str, function: str | None) -> tuple[Any, ...]:
    """The tests of `code`, as code-judge takes them: calls of `function`, or texts.

    Raises:
        GroundTruthError: it is no Python, or it checks a candidate that has no name.
    """
    try:
        module = ast.parse(code)
    # ValueError: a null byte or a lone surrogate. MemoryError is the parser's for what is nested too deeply.
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise GroundTruthError(f"test_code is no Python: {error}") from error
    checks = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    if checks and not function:
        raise GroundTruthError("test_code defines check, and no entry_point names what it is given")
    if len(checks) != 1 or len(checks[0].args.args) != 1:
        return _plain_asserts(module) or (code,)
    check = checks[0]
    asserts = _asserts(check.body)
    if asserts is None:
        return (code,)
    name = check.args.args[0].arg
    calls = [_call(test, name) for test in asserts]
    if all(call is not None for call in calls):
        return tuple(calls)
    rest = [node for node in module.body if node is not check]
    return tuple(_alone(rest, check, test) for test in asserts)


def _asserts(body: list[ast.stmt]) -> list[ast.Assert] | None:
    """The asserts of a body that has nothing else that counts; None if it has, or none at all."""
    tests = []
    for node in body:
        if isinstance(node, ast.Assert):
            # HumanEval has `assert True, "some advice"`.
            if not (isinstance(node.test, ast.Constant) and node.test.value):
                tests.append(node)
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return None
    return tests or None


def _plain_asserts(module: ast.Module) -> tuple[str, ...] | None:
    tests = _asserts(module.body)
    return None if tests is None else tuple(ast.unparse(test) for test in tests)


def _alone(rest: list[ast.stmt], check: ast.FunctionDef, test: ast.Assert) -> str:
    """The text that runs one assert of `check`, with what stands around it."""
    lone = ast.FunctionDef(
        name=check.name, args=check.args, body=[test], decorator_list=[], returns=None, type_comment=None
    )
    return ast.unparse(ast.fix_missing_locations(ast.Module(body=[*rest, lone], type_ignores=[])))


def _call(test: ast.Assert, name: str) -> dict[str, Any] | None:
    """`assert name(arguments) == value` as a call; None if it is anything else, or JSON would change a value."""
    compared = test.test
    if not (
        isinstance(compared, ast.Compare) and len(compared.ops) == 1 and isinstance(compared.ops[0], ast.Eq)
    ):
        return None
    call, value = compared.left, compared.comparators[0]
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == name):
        return None
    if call.args and call.keywords:
        return None
    try:
        given: Any = [ast.literal_eval(argument) for argument in call.args]
        if call.keywords:
            given = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        returned = ast.literal_eval(value)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return None
    # Of `**more` the name is None. A tuple that is returned may come back as a list; one that is given may not.
    if any(word.arg is None for word in call.keywords) or not _keeps(given):
        return None
    return {"input": given, "output": returned} if _keeps(_tuples_as_lists(returned)) else None


def _tuples_as_lists(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_tuples_as_lists(item) for item in value]
    return value


def _keeps(value: Any) -> bool:
    """Whether a value is the same after JSON: no tuples, sets, other keys than texts, NaN."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError, RecursionError):
        return False
