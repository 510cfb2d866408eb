"""Texts and examples of the OpenAPI description, as /docs shows them."""

from __future__ import annotations

from typing import Any

DESCRIPTION = """
Runs programs in a sandbox, and says what came of them: output, exit, time.

A result with `retryable: true`, and the statuses 429 and 503, say nothing about the program: ask again. Both
statuses carry `Retry-After`. If the service has a token, send it with every POST: `Authorization: Bearer <token>`.
"""

TAGS = [
    {"name": "programs", "description": "Run programs."},
    {"name": "service", "description": "What the service is doing. Open to everyone who reaches the port."},
]

_SQUARES = {
    "type": "python",
    "solution": "n = int(input())\nprint(n * n)",
    "input": "12\n",
    "expected_output": "144",
}

SUBMISSIONS: dict[str, Any] = {
    "print": {
        "summary": "Run a program, return its output",
        "value": {"type": "python", "solution": "print(6 * 7)"},
    },
    "expected output": {"summary": "Give it stdin, compare its stdout", "value": _SQUARES},
    "C++": {
        "summary": "Compile a C++ program, run it, compare its stdout",
        "value": {
            "type": "cpp",
            "solution": "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << n * n; }",
            "input": "12",
            "expected_output": "144",
        },
    },
    "calls": {
        "summary": "Test a function: all calls in one job, each with its own result",
        "value": {
            "type": "python",
            "solution": "def add(a, b):\n    return a + b",
            "fn_name": "add",
            "tests": [{"input": [1, 2], "output": 3}, {"input": ["a", "b"], "output": "ab"}],
        },
    },
    "asserts": {
        "summary": "Test a function with asserts",
        "value": {
            "type": "python",
            "solution": "def add(a, b):\n    return a + b",
            "entry_point": "add",
            "tests": ["assert add(1, 2) == 3", "def check(candidate):\n    assert candidate(1, 1) == 2"],
        },
    },
    "final answer": {
        "summary": "Compare a final answer with the right one, as mathematics",
        "value": {"type": "math", "solution": "So it is $\\boxed{\\frac{1}{2}}$.", "expected_output": "0.5"},
    },
    "last value": {
        "summary": "Show the last expression's value, as a notebook does; stop after 2 s",
        "value": {
            "type": "python",
            "solution": "import sympy\nx = sympy.Symbol('x')\nsympy.integrate(2 * x, x)",
            "options": {"echo_last": "1", "timeout": "2"},
        },
    },
}

RUN_CODE: dict[str, Any] = {
    "python": {
        "summary": "Run a Python program with a file beside it, and bring one back",
        "value": {
            "language": "python",
            "code": "open('squares', 'w').write(''.join(f'{int(n) ** 2}\\n' for n in open('numbers')))",
            "files": {"numbers": "Mwo0Cg=="},
            "fetch_files": ["squares"],
        },
    },
    "cpp": {
        "summary": "Compile a C++ program and run it",
        "value": {
            "language": "cpp",
            "code": "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << n * n; }",
            "stdin": "12",
            "run_timeout": 2,
        },
    },
}

BATCHES: dict[str, Any] = {
    "two": {
        "summary": "One that is right, one that is wrong",
        "value": {
            "type": "batch",
            "submissions": [
                {"sub_id": "right", **_SQUARES},
                {"sub_id": "wrong", **_SQUARES, "solution": "print(0)"},
            ],
        },
    },
}
