"""Whether what a program printed is what it should have printed."""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_LONGEST_NUMBER = 100
TOLERANCE = 1e-6
"""Of numbers that are expected with a decimal point or an exponent; absolute, or relative to the expected one."""


def same_output(printed: str, expected: str) -> bool:
    """Whether two outputs are the same, line by line.

    Blanks at the ends of lines and empty lines at the end do not count, nor do blanks between the words of a line.
    Words that differ may be numbers of equal value; where the expected one has a decimal point or an exponent, within
    `TOLERANCE`.
    """
    ours, theirs = _lines(printed), _lines(expected)
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _same_line(printed: str, expected: str) -> bool:
    if printed == expected:
        return True
    ours, theirs = printed.split(), expected.split()
    return len(ours) == len(theirs) and all(map(_same_word, ours, theirs))


def _same_word(printed: str, expected: str) -> bool:
    if printed == expected:
        return True
    if max(len(printed), len(expected)) > _LONGEST_NUMBER:
        return False
    if not (_NUMBER.fullmatch(printed) and _NUMBER.fullmatch(expected)):
        return False
    try:
        if Decimal(printed) == Decimal(expected):
            return True
    except InvalidOperation:
        return False
    if not re.search(r"[.eE]", expected):
        return False
    right = float(expected)
    return math.isclose(float(printed), right, rel_tol=0.0, abs_tol=TOLERANCE * max(1.0, abs(right)))
