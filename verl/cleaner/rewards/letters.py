"""Choices: which letter does an answer name?"""

from __future__ import annotations

import re

_WRAPPING = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{([^{}]*)\}")
_NAMED = re.compile(
    r"(?:the\s+)?(?:(?:correct\s+)?(?:option|answer|choice)\s*(?:is\b)?\s*:?\s*)?\(?([A-J])(?:\)|[.:,)]|\s|$)(.*)",
    re.IGNORECASE | re.DOTALL,
)
_ANOTHER = re.compile(r"\(?[A-J]\s*(?:[).,:]|$|or\b|and\b)")
_LONGEST = 2000


def letter_of(answer: str) -> str | None:
    r"""The capital letter that an answer such as `C`, `(C)`, `\text{C.}` or `C) 5 nm` names; None if it names none,
    or several.
    """
    text = answer[:_LONGEST].strip().strip("$").strip()
    text = _WRAPPING.sub(r"\1", _WRAPPING.sub(r"\1", text)).strip().rstrip(".").strip()
    named = _NAMED.fullmatch(text)
    if named is None or not named[1].isupper():
        return None
    rest = named[2].strip()
    # "A or B", "A, B": an answer that names two is none. Behind a bracket stands the choice's own text.
    separator = text[named.end(1) : named.end(1) + 1]
    if rest and (separator in ("", ",", " ") or _ANOTHER.match(rest)):
        return None
    return named[1]
