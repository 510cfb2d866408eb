"""How alike a failed call and an accepted one are: decides between a shallow and a deep repair.

Compared is the code argument, or the arguments' canonical JSON where there is no code: wrapped in a tool call's JSON,
two unrelated one-liners look 87 % alike instead of 18 %. The ratio is difflib's with `autojunk=False` (its default
treats frequent characters of long code as junk and so flips decisions); it is not symmetric: the order is always
(failed, accepted). `cydifflib` gives the same ratio bit for bit, faster.
"""

import json
import re
from dataclasses import dataclass

try:
    from cydifflib import SequenceMatcher
except ImportError:  # no wheel for this platform: same numbers, slower
    from difflib import SequenceMatcher

# Below this many characters together the exact ratio takes less than 2 ms and is always computed.
ALWAYS_EXACT_CHARS = 4_000
# Above this product of lengths the exact ratio may take seconds; the upper bound decides then.
MAX_EXACT_PRODUCT = 2_500_000_000

_CODE_VALUE = re.compile(r'"code"\s*:\s*"((?:[^"\\]|\\.)*)', re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


@dataclass(frozen=True)
class Similarity:
    """`value` in [0, 1]; `exact` is False where it is only an upper bound that already settled the decision."""

    value: float
    exact: bool = True


def similarity(failed: str, accepted: str, gamma: float) -> Similarity:
    """Ratio of `failed` to `accepted`; for long texts a cheap upper bound where that is already below `gamma`."""
    matcher = SequenceMatcher(None, failed, accepted, autojunk=False)
    if len(failed) + len(accepted) > ALWAYS_EXACT_CHARS:
        for bound in (matcher.real_quick_ratio, matcher.quick_ratio):
            value = float(bound())
            if value < gamma:
                return Similarity(value, exact=False)
        if len(failed) * len(accepted) > MAX_EXACT_PRODUCT:
            return Similarity(value, exact=False)
    return Similarity(float(matcher.ratio()))


def code_of(arguments: str) -> str | None:
    """The string argument `code` of a call, read leniently where the JSON is broken; None where there is none."""
    try:
        parsed = json.loads(arguments)
    except (json.JSONDecodeError, TypeError, RecursionError):
        match = _CODE_VALUE.search(arguments or "")
        return _ESCAPE.sub(_unescape, match.group(1)) if match else None
    if isinstance(parsed, dict) and isinstance(parsed.get("arguments"), dict):
        parsed = parsed["arguments"]
    code = parsed.get("code") if isinstance(parsed, dict) else None
    return code if isinstance(code, str) else None


def comparable_text(arguments: str) -> str:
    """What is compared of a call whose arguments (JSON, or the raw text of a broken call) are `arguments`."""
    code = code_of(arguments)
    if code is not None:
        return code
    try:
        return json.dumps(json.loads(arguments), sort_keys=True, ensure_ascii=False)
    except (json.JSONDecodeError, TypeError, RecursionError):
        return arguments or ""


def _unescape(match: re.Match[str]) -> str:
    escape = match.group(1)
    if len(escape) == 5:
        return chr(int(escape[1:], 16))
    return _ESCAPES.get(escape, escape)
