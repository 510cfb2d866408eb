"""Tests that are Python texts: what in them is left for us to call.

A text of bare asserts tests while it is run. Many only define their tests, for a framework to call them: `check`
of HumanEval, functions `test_...` of pytest, classes of unittest. Run alone they would test nothing, and pass.
"""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def left_to_call(tree: ast.Module) -> list[str]:
    """Names of functions `test_...` and of classes that nothing in the text uses, in order; then `check`, if it is
    defined and they do not use it either. What is under `if __name__ == "__main__"` is not run, and uses nothing.
    """
    definitions = {node.name: node for node in tree.body if isinstance(node, _Definition)}
    used: set[str] = set()
    for node in tree.body:
        if not isinstance(node, _Definition) and not _is_guard(node):
            _use(_names(node), definitions, used)
    found = [name for name, node in definitions.items() if name not in used and _may_be_test(node)]
    _use(found, definitions, used)
    if isinstance(definitions.get("check"), ast.FunctionDef) and "check" not in used:
        found.append("check")
    return found


def _may_be_test(node: _Definition) -> bool:
    return isinstance(node, ast.ClassDef) or node.name.startswith("test_")


def _is_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in _names(node.test)


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _use(names: Iterable[str], definitions: Mapping[str, _Definition], used: set[str]) -> None:
    """Add to `used` the names, and whatever the definitions among them use."""
    left = list(names)
    while left:
        name = left.pop()
        if name not in used:
            used.add(name)
            if name in definitions:
                left += _names(definitions[name])


def call(test: Any) -> None:
    """Call a function, or what a class has of tests. Raises what a test raises."""
    if not isinstance(test, type):
        result = test()
        if isinstance(result, types.CoroutineType):
            import asyncio

            asyncio.run(result)
        return
    unittest: Any = sys.modules.get("unittest")
    if unittest is not None and issubclass(test, unittest.TestCase):
        _call_cases(unittest, test)
    elif test.__name__.startswith("Test"):
        for name in [name for name in dir(test) if name.startswith("test_")]:
            call(getattr(test(), name))


def _call_cases(unittest: Any, kind: type) -> None:
    result = unittest.TestResult()
    unittest.TestLoader().loadTestsFromTestCase(kind)(result)
    wrong = [*result.errors, *result.failures]
    for case, told in wrong[:1]:
        raise AssertionError(
            f"{case}: {told.strip().rpartition(chr(10))[2]} ({len(wrong)} of {result.testsRun} failed)"
        )
