"""What a call's arguments hold: their code, their text, their parsed JSON.

Arguments are a string: JSON, or, of a call that did not parse, the raw text between the call's markers. Nothing here
raises on any string.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

# ValueError: broken JSON, and integers of more digits than Python converts. RecursionError: nested too deeply.
_UNREADABLE = (ValueError, TypeError, RecursionError)
_CODE_VALUE = re.compile(r'"code"\s*:\s*"((?:[^"\\]++|\\.)*+)', re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_WRAPPER = re.compile(r'\s*\{\s*"name"\s*:\s*"[^"]*"\s*,\s*"arguments"\s*:')
_WRAPPER_KEYS = {"name", "arguments"}


def code_of(arguments: str) -> str | None:
    """The string argument `code` of a call, read leniently where the JSON is broken; None where there is none."""
    try:
        parsed = json.loads(arguments)
    except _UNREADABLE:
        match = _CODE_VALUE.search(arguments or "")
        return _unescaped(match.group(1)) if match else None
    if isinstance(parsed, dict) and isinstance(parsed.get("arguments"), dict):
        parsed = parsed["arguments"]
    code = parsed.get("code") if isinstance(parsed, dict) else None
    return code if isinstance(code, str) else None


def comparable_text(arguments: str) -> str:
    """What the metrics of code compare: a call's code, else the canonical JSON or the raw text of its arguments."""
    code = code_of(arguments)
    if code is not None:
        return code
    try:
        return json.dumps(json.loads(arguments), sort_keys=True, ensure_ascii=False)
    except _UNREADABLE:
        return arguments or ""


def parsed_arguments(calls: Sequence[str]) -> list[Any] | None:
    """The JSON values of the calls' arguments; None where one of them is no JSON.

    Of arguments inside their wrapper, `{"name": ..., "arguments": ...}`, only those.
    """
    try:
        values = [json.loads(arguments) for arguments in calls]
    except _UNREADABLE:
        return None
    return [_unwrapped(value) for value in values]


def raw_text(calls: Sequence[str]) -> str:
    """The arguments as they were written, without the wrapper's beginning, escapes of JSON resolved."""
    return "\n".join(_unescaped(_WRAPPER.sub("", arguments, count=1)) for arguments in calls)


def scalars(value: Any) -> list[Any]:
    """The strings, numbers, booleans and nulls of parsed JSON: keys in sorted order, lists in theirs."""
    found = []
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += [value[key] for key in sorted(value, reverse=True)]
        elif isinstance(value, list):
            pending += reversed(value)
        else:
            found.append(value)
    return found


def _unwrapped(value: Any) -> Any:
    if not isinstance(value, dict) or "arguments" not in value or not _WRAPPER_KEYS.issuperset(value):
        return value
    inner = value["arguments"]
    if isinstance(inner, str):  # arguments written as a string that holds JSON, a frequent mistake
        try:
            inner = json.loads(inner)
        except _UNREADABLE:
            return value
    return inner if isinstance(inner, dict) else value


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    escape = match.group(1)
    if len(escape) == 5:
        return chr(int(escape[1:], 16))
    return _ESCAPES.get(escape, escape)
