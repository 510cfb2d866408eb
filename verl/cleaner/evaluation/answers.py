"""One form for answers that are written differently, so that a vote counts them together.

Only what the text alone says counts as equal: blanks, `$`, `\\left` and `\\right`, `\\dfrac` for `\\frac`, thousands
separators, a full stop at the end, and numbers of equal value (`0.5`, `1/2`, `\\frac{1}{2}`). Everything else, two
forms of one radical for example, counts as two answers: a vote must not know which answers are right.
"""

from __future__ import annotations

import re
from fractions import Fraction

# No answer is longer, and longer numbers cost more than they are worth.
_MAX_DIGITS = 60
_NOISE = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[,;!: ]|\s+|\$")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\{([^{}]*)\}")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_FRACTION = re.compile(r"([+-]?)\\frac(?:\{([+-]?\d+)\}\{(\d+)\}|(\d)(\d))")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:/\d+)?")


def canonical(answer: str) -> str:
    """The form that stands for an answer; equal forms are equal answers."""
    text = answer.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = _NOISE.sub("", _WRAPPED.sub(r"\1", text)).removesuffix(".")
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    value = _number(text)
    return text if value is None else str(value)


def _number(text: str) -> Fraction | None:
    if len(text) > _MAX_DIGITS or not text.isascii():
        return None
    if match := _FRACTION.fullmatch(text):
        sign, top, bottom, digit, other = match.groups()
        number = _quotient(top or digit, bottom or other)
        return number if number is None or sign != "-" else -number
    return _quotient(*text.split("/")) if _NUMBER.fullmatch(text) else None


def _quotient(top: str, bottom: str = "1") -> Fraction | None:
    return Fraction(top) / int(bottom) if int(bottom) else None
