"""What kind of problem a row holds, told by its `data_source`."""

from __future__ import annotations

import re
from functools import lru_cache

CODE, MATH, SCIENCE, OTHER = "code", "math", "science", "other"
CATEGORIES: tuple[str, ...] = (CODE, MATH, SCIENCE, OTHER)

# In this order: `train-code-leetcode-Medium` is code, `mega-science` is science.
_NAMES: tuple[tuple[str, re.Pattern[str]], ...] = (
    (CODE, re.compile(r"code|taco|\blcb", re.IGNORECASE)),
    (SCIENCE, re.compile(r"science|gpqa|physics|chemistry|biology", re.IGNORECASE)),
    (MATH, re.compile(r"math|aime|\bamc|olympiad|gsm8k|numina|deepscaler|dapo", re.IGNORECASE)),
)


@lru_cache(maxsize=4096)
def category(data_source: str) -> str:
    """`code`, `math`, `science` or `other`. Of Open-AgentRL-30K's 25 sources ten are code: all whose name holds it."""
    return next((name for name, pattern in _NAMES if pattern.search(data_source)), OTHER)


def is_code(data_source: str) -> bool:
    """Whether a source is named after code."""
    return category(data_source) == CODE
