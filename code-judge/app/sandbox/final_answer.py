"""What a `math` job runs: whether a final answer equals the expected one, by math-verify.

Runs in the sandbox as programs do, because reading a formula and simplifying it may take for ever. It reads
{"nonce", "answer", "expected"} from stdin and prints the nonce and one of the words below.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any

EQUAL, DIFFERENT, UNREADABLE, BAD_EXPECTED = "equal", "different", "unreadable", "bad-expected"

_DELIMITED = re.compile(r"\\boxed|\\fbox|\\\[|\\\(|\$[^$]+\$|\\begin\{(?:equation|align)")
_NUMERIC = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|[-+*/^().\s\d%$€£])+")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d*)?|\.\d+)[eE]([-+]?\d+)(?!\w)")
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}")
# Names that plain expressions use as LaTeX does, with a backslash before them.
_NAMES = (
    "alpha", "arccos", "arcsin", "arctan", "beta", "cos", "cosh", "cot", "csc", "det", "exp", "gamma", "infty",
    "lambda", "ln", "log", "max", "min", "mu", "omega", "phi", "pi", "sec", "sigma", "sin", "sinh", "sqrt", "tan",
    "tanh", "theta",
)  # fmt: skip
_OTHER_NAMES = {
    "acos": "arccos",
    "asin": "arcsin",
    "atan": "arctan",
    "inf": "infty",
    "infinity": "infty",
    "oo": "infty",
}
_FRACTION = re.compile(r"(?:Fraction|Rational)\(\s*(-?\d+)\s*,\s*(\d+)\s*\)")
_REHEARSAL = (
    ("1/2", r"\frac12"), (r"so it is $\boxed{3}$", "4"), ("(x+1)**2", "x^2+2x+1"), ("[0, 1)", "(0, 1)"),
    ("2*sqrt(3)", r"\sqrt{12}"), (r"\{1, 2\}", "1, 2"), ("x = 5", "5"), ("50%", "0.5"), (r"\text{Monday}", "Tuesday"),
    ("sin(pi/6)", r"\frac{1}{2}"), ("3 + 4i", "5"), (r"\begin{pmatrix}1\\2\end{pmatrix}", "2"), ("1 < x < 2", "x > 1"),
    ("the answer is 42", "42"), ("e^2", r"\ln 2"), (r"\infty", "1"), ("1e-3", "0.001"), ("10^{6}", "5!"),
)  # fmt: skip
_POWER = re.compile(r"\^\s*(-?\d{2,}|-\d)")


def parsed(text: str) -> list[Any]:
    """What a text says as mathematics, as `math_verify.parse` gives it; empty if it says nothing.

    LaTeX may stand in $, \\( or \\boxed, or alone; anything else is read as Python and calculators write
    formulas, and a sentence for the last number or formula in it.
    """
    text = re.sub(r"\\mathrm\s*\{\s*([ei])\s*\}", r"\1", text.strip()).replace(r"\%", "%")
    if _DELIMITED.search(text):
        return _parse(text)
    if _NUMERIC.fullmatch(text) and (found := _parse(text)):
        return found
    formula = as_latex(text)
    if _is_prose(formula):
        return _parse(text) or _parse(rf"\boxed{{\text{{{text}}}}}") if _is_name(text) else _parse(text)
    return _parse(rf"\boxed{{{formula}}}") or _parse(text)


def _is_name(text: str) -> bool:
    """Whether prose is short enough to be an answer in words: "Monday"."""
    return re.fullmatch(r"[A-Za-z][A-Za-z' -]{0,40}", text) is not None


def as_latex(text: str) -> str:
    """A formula as Python or a calculator writes it, in LaTeX; LaTeX stays as it is."""
    text = text.replace("**", "^")
    text = _SCIENTIFIC.sub(r"\1\\cdot 10^{\2}", text)
    text = _FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = _roots(text)
    text = _POWER.sub(r"^{\1}", text)
    return _WORD.sub(lambda found: _with_backslash(found[0]), text)


def _roots(text: str) -> str:
    """sqrt(...) as sqrt{...}, whatever brackets are in it."""
    start = text.find("sqrt(")
    if start < 0:
        return text
    depth, end = 1, start + 5
    while end < len(text) and depth:
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    return f"{text[: start + 4]}{{{_roots(text[start + 5 : end - 1])}}}{_roots(text[end:])}"


def _with_backslash(word: str) -> str:
    name = _OTHER_NAMES.get(word.lower(), word)
    return rf"\{name} " if name in _NAMES else word


def _is_prose(formula: str) -> bool:
    """Whether there are words in it that are no names of functions: "the answer is 42", not "xy + 1"."""
    plain = re.sub(
        r"\\(?:begin|end)\{[^{}]*\}|\\(?:text|mathrm|textbf|mbox|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+",
        " ",
        formula,
    )
    return re.search(r"[A-Za-z]{3,}|[A-Za-z]\s+[A-Za-z]{2,}|[A-Za-z]{2,}\s+[A-Za-z]", plain) is not None


def _parse(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    wanted = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    return parse(text, wanted, parsing_timeout=None)  # type: ignore[arg-type]


def compared(answer: str, expected: str) -> str:
    """How `answer` stands to `expected`: one of the words above."""
    from math_verify import verify

    gold = parsed(expected)
    if not gold or not re.search(r"\w", expected):
        return BAD_EXPECTED
    found = parsed(answer)
    if found and verify(gold, found, timeout_seconds=None):
        return EQUAL
    return UNREADABLE if all(isinstance(part, str) for part in found) else DIFFERENT


def main() -> None:
    """Read a task from stdin, print what came of it."""
    logging.disable(logging.CRITICAL)  # math-verify warns that nothing but us watches the time
    task = json.loads(sys.stdin.read())
    print(f"\n{task['nonce']} {compared(task['answer'], task['expected'])}")


def warm_up() -> None:
    """Read and compare formulas of many kinds: grammars and caches are built at their first use."""
    logging.disable(logging.CRITICAL)
    for answer, expected in _REHEARSAL:
        compared(answer, expected)
    logging.disable(logging.NOTSET)
