"""What a tested function returned, made ready to be sent as JSON and compared with JSON.

Runs after the program's code in its process, so what it needs of the standard library is taken before.
"""

from __future__ import annotations

import collections
import json
import numbers
from collections.abc import Mapping
from typing import Any

DEEPEST = 200  # levels of a value: whoever reads it recurses, under a limit of its own
_SEQUENCES: tuple[Any, ...] = (
    list,
    tuple,
    collections.deque,
    range,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)
_PLAIN = frozenset((bool, int, float, str, type(None)))
_encode = json.JSONEncoder().encode


def sendable(value: Any, level: int = 0) -> Any:
    """A returned value as JSON can hold it.

    Sequences become lists, numpy's values what their `tolist` gives, decimals and fractions numbers. A JSON
    object is never a value of its own: {"dict": [[key, value], ...]} is a dictionary, its keys texts as JSON
    writes them, and {"set": [...]} a set. Raises TypeError for anything else, and for what is nested too deeply.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list and _PLAIN.issuperset(map(type, value)):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    level += 1
    if level > DEEPEST:
        raise TypeError(
            f"the function returned a value that is nested in itself, or more than {DEEPEST} levels deep"
        )
    if isinstance(value, _SEQUENCES):
        return [sendable(item, level) for item in value]
    if isinstance(value, set | frozenset):
        return {"set": [sendable(item, level) for item in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_key(key), sendable(item, level)] for key, item in value.items()]}
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return sendable(value.tolist(), level)
    if isinstance(value, numbers.Rational):
        return int(value.numerator) if value.denominator == 1 else float(value)
    if kind.__module__ in ("decimal", "_decimal") or isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(
        f"the function returned a value of type {kind.__name__}, which can't be compared with JSON"
    )


def _key(key: Any) -> str:
    key = sendable(key)
    if isinstance(key, str):
        return key
    if isinstance(key, list | dict):
        raise TypeError("the function returned a dict with a key that is no text and no number")
    return _encode(key)
