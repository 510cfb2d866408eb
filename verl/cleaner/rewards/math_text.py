r"""Answers as text: what can be said of two of them without a computer algebra system, and in what form the rest is
handed to one.

`settled` decides what text alone can decide: equal texts, numbers, words, units, lists of guesses. Most answers of
training data are integers, so most are decided here.
"""

from __future__ import annotations

import re
from fractions import Fraction

from cleaner.rewards.units import units_differ

MOST_CHARS = 2000
"""Longer answers are not looked at."""

_MOST_DIGITS = 60
_SPACING = re.compile(
    r"\\left(?![a-z])|\\right(?![a-z])|\\displaystyle(?![a-z])|(?<!\\)\\[!,;: ]|\\q?quad(?![a-z])|~|\\?\$"
)
_TEXT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_CONJUNCTION = re.compile(
    r"\\(?:text|textrm|mbox|mathrm)\s*\{\s*,?\s*(?:or|and)\s*\}|(?<=\s)(?:or|and)(?=\s)", re.IGNORECASE
)
_GROUPED = re.compile(r"(?<![\d.])\d{1,3}(?:(?:,|\{,\}|\\,|\\ )\d{3})+(?!\d)")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_QUOTIENT = re.compile(r"([+-]?)\\frac\{([+-]?\d+)\}\{([+-]?\d+)\}|([+-]?\d+)/(\d+)")
_COMMAND = re.compile(r"\\(?:begin|end)\{[^{}]*\}|\\[A-Za-z]+")
# Not between figures: "4 2" is not 42.
_BLANK = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' ,.-]*")
# Three letters may be a product of variables.
_LONG_WORD = re.compile(r"[A-Za-z]{4,}")
_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_ADJACENT = re.compile(r"\d\s+\d")
_BASE = re.compile(r"\d_\{?(\d+)\}?$")
_IMAGINARY = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])")
_INDEXED = re.compile(r"_\s*\{?\s*i|\\(?:sum|prod|int|bigcup|bigcap)(?![A-Za-z])")
# Names of functions and constants that plain formulas use: these are no prose.
_FUNCTIONS = frozenset((
    "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "log",
    "exp", "det", "max", "min", "gcd", "lcm", "mod", "infty", "infinity", "inf", "alpha", "beta", "gamma", "theta",
    "lambda", "sigma", "omega", "phi", "Fraction", "Rational",
))  # fmt: skip


def tidied(answer: str) -> str:
    """The same answer without what does not change it, for `settled` and for the judge."""
    text = " ".join(answer.split()).removesuffix(".").strip()
    text = text.replace("°", r"^\circ").replace(r"\varnothing", r"\emptyset").replace("−", "-")
    text = re.sub(r"\\([dtc])frac(?![a-z])", r"\\frac", text).replace(r"\dbinom", r"\binom")
    text = _GROUPED.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    text = _CONJUNCTION.sub(",", text)
    return " ".join(_SPACING.sub(" ", text).split())


def settled(answer: str, truth: str) -> bool | None:
    """Whether two tidied answers are equal; None if it takes mathematics to know."""
    if _BLANK.sub("", answer) == _BLANK.sub("", truth):
        return bool(answer)
    one, other = _number(answer), _number(truth)
    if one is not None and other is not None:
        return one == other
    if _as_words(answer) == _as_words(truth) != "":
        return True
    if units_differ(answer, truth) or _bases_differ(answer, truth):
        return False
    if _is_guessing(answer):
        return False
    return None


def with_imaginary_unit(answer: str, truth: str) -> tuple[str, str]:
    r"""Both texts with `i` as `\sqrt{-1}`, which math-verify does not make of it; not where i is an index."""
    if _INDEXED.search(answer) or _INDEXED.search(truth):
        return answer, truth
    return _IMAGINARY.sub(r"\\sqrt{-1}", answer), _IMAGINARY.sub(r"\\sqrt{-1}", truth)


def _number(text: str) -> Fraction | None:
    """The value of an integer, a decimal number or a quotient of integers."""
    text = _TEXT.sub(r"\1", text).strip()
    if len(text) > _MOST_DIGITS or not text.isascii():
        return None
    if _NUMBER.fullmatch(text):
        return Fraction(text)
    found = _QUOTIENT.fullmatch(text)
    if found is None:
        return None
    sign, top, bottom, plain_top, plain_bottom = found.groups()
    below = int(bottom or plain_bottom)
    if below == 0:
        return None
    value = Fraction(int(top or plain_top), below)
    return -value if sign == "-" else value


def _as_words(text: str) -> str:
    """An answer in words in one form; "" if it is none. Short ones may be symbols, of which the case counts."""
    plain = " ".join(_TEXT.sub(r"\1", text).split()).rstrip(".")
    if _WORDS.fullmatch(plain) and (len(plain) > 2 or " " in plain):
        return plain.lower()
    # Sentences with figures in them are compared as they stand.
    return plain.lower() if len(_prose(plain)) > 1 else plain


def _prose(text: str) -> list[str]:
    """The words in a text that are not LaTeX's and no names of functions."""
    plain = _COMMAND.sub(" ", _TEXT.sub(" ", text))
    return [word for word in _LONG_WORD.findall(plain) if word not in _FUNCTIONS]


def _is_guessing(answer: str) -> bool:
    """Whether an answer lists numbers without saying that they are a list: of these, math-verify takes the last."""
    if _ADJACENT.search(_TEXT.sub(" ", answer)) and r"\begin" not in answer:
        return True
    return bool(_prose(answer)) and len(_DIGITS.findall(answer)) > 1


def _bases_differ(answer: str, truth: str) -> bool:
    one, other = _BASE.search(answer), _BASE.search(truth)
    return one is not None and other is not None and one[1] != other[1]
