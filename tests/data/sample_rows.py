"""Rows as the data sets' files have them, written here."""

import json
from typing import Any

TESTS = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
# A problem that is about tools, and instructions as training rows carry them.
WORKERS = "A shop rents 4 saws. How many workers use the saw if each tool serves 3? x = 1.5 is no answer."
TALK = (
    "The tool may be used for precise calculation.\n\n**Note: think first, then utilize the tools to help you.**\n"
    "When you are sure, do not call the tools again and answer in the form \\boxed{'The answer.'}."
)


def raw_rows() -> dict[str, dict[str, Any]]:
    """One row of every kind."""
    return {
        "math_dapo": {
            "prompt": [{"role": "user", "content": f"{WORKERS}\n\n{TALK}"}],
            "data_source": "math_dapo",
            "ability": "MATH",
            "reward_model": {"style": "rule", "ground_truth": "12"},
            "extra_info": {"index": "9a9b6eb4", "split": "train"},
        },
        "code": {
            "prompt": [{"role": "user", "content": "Add two numbers."}],
            "data_source": "train-code-taco-easy",
            "ability": "code",
            "reward_model": {"style": "rule", "ground_truth": json.dumps(TESTS)},
            "extra_info": {"index": "taco-1", "split": "train"},
        },
        "AIME2024": {
            "ID": "2024-II-4",
            "Problem": "Find m + n.",
            "Solution": "33",
            "Answer": 33,
            "data_source": "AIME2024",
        },
        "AIME2025": {"id": "7", "problem": "Find the sum.", "answer": "70", "data_source": "AIME2025"},
        "gpqa": {
            "problem": "Which?\nA. a\nB. b\nC. c\nD. d",
            "solution": "C",
            "domain": "Physics",
            "data_source": "gpqa_diamond",
        },
        "lcb": {
            "problem": "Read two numbers, print the sum.",
            "reward_model": json.dumps({"style": "rule", "ground_truth": TESTS}),
            "extra_info": json.dumps({"difficulty": "easy", "platform": "atcoder", "tests": TESTS}),
            "question_id": "abc_387_a",
            "data_source": "LiveCodeBench_v6",
            "ability": "code",
        },
    }
