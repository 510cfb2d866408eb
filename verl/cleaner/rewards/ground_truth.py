"""From a row's ground truth to the task that a response is measured by.

A dict, or its JSON text, with one of these groups of keys is a programming task:

- `inputs`, `outputs`: what a program reads and prints;
- `fn_name`, `inputs`, `outputs`: arguments of calls of a function and what they return;
- `test_code`, `entry_point`, perhaps `import_prefix`: a function `check(candidate)`, or plain asserts.

So is LiveCodeBench's list of `{"input", "output", "testtype"}`, with `fn_name` or `metadata.func_name` where the
type is `functional`. A capital letter is a choice. Everything else is a final answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cleaner.data.sources import is_code
from cleaner.rewards.check_code import read_check
from cleaner.rewards.letters import letter_of
from cleaner.rewards.verdict import GroundTruthError

_KEYS = frozenset(("inputs", "outputs", "fn_name", "test_code", "entry_point", "import_prefix"))
_LETTER = re.compile(r"\(?[A-J]\)?")
# What solutions of function tasks take for granted: the sites that the tasks come from import it for them.
FUNCTION_PREFIX = """\
from typing import *
from collections import *
import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys
"""


@dataclass(frozen=True)
class FinalAnswer:
    """A mathematical answer, or one in words."""

    text: str


@dataclass(frozen=True)
class Letter:
    """A choice, `A` to `J`."""

    letter: str


@dataclass(frozen=True)
class Printed:
    """Programs that read and print: (stdin, stdout) of each case."""

    cases: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Functions:
    """Functions that are called.

    Attributes:
        prefix: code that stands before the solution.
        function: its name.
        tests: as the judge takes them: calls, or texts with asserts.
        other_tests: the same tests, were their returned values not written as lists of one element; None where
            that makes no difference.
    """

    prefix: str
    function: str | None
    tests: tuple[Any, ...]
    other_tests: tuple[Any, ...] | None = None

    @property
    def kind(self) -> str:
        """`asserts` or `calls`."""
        return "asserts" if isinstance(self.tests[0], str) else "calls"


Task = FinalAnswer | Letter | Printed | Functions


def read_task(data_source: str, ground_truth: Any) -> Task:
    """The task of a row.

    Raises:
        GroundTruthError: there is nothing that a response could be measured by.
    """
    if isinstance(ground_truth, str):
        return _of_text(data_source, ground_truth)
    return _of_value(data_source, ground_truth)


# A group's responses come together and share a ground truth, which may have megabytes.
@lru_cache(maxsize=64)
def _of_text(data_source: str, text: str) -> Task:
    value: Any = text
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
    # "[0, 1]" and "{}" are answers too.
    return _of_value(data_source, value if _is_program(value) else text)


def _is_program(value: Any) -> bool:
    if isinstance(value, Mapping):
        return not _KEYS.isdisjoint(value)
    return isinstance(value, list) and bool(value) and all(_is_case(item) for item in value)


def _is_case(item: Any) -> bool:
    return isinstance(item, Mapping) and {"input", "output"} <= item.keys()


def _of_value(data_source: str, value: Any) -> Task:
    value = value.tolist() if hasattr(value, "tolist") else value
    try:
        if _is_program(value):
            return _of_cases(value) if isinstance(value, list) else _of_keys(value)
    except GroundTruthError as error:
        raise GroundTruthError(f"ground truth of a row of {data_source!r}: {error}") from error
    if is_code(data_source):
        raise GroundTruthError(
            f"{data_source!r} names code, but its ground truth has none of the keys {', '.join(sorted(_KEYS))}: "
            f"{str(value)[:80]!r}"
        )
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise GroundTruthError(
            f"ground truth of a row of {data_source!r} is no text, no number and no tests: {str(value)[:80]!r}"
        )
    text = str(value).strip()
    if "gpqa" in data_source.lower():
        letter = letter_of(text)
        if letter is None:
            raise GroundTruthError(f"ground truth of a row of {data_source!r} is no letter: {text[:80]!r}")
        return Letter(letter)
    return Letter(text.strip("()")) if _LETTER.fullmatch(text) else FinalAnswer(text)


def _of_keys(value: Mapping[str, Any]) -> Task:
    function = value.get("fn_name") or value.get("entry_point")
    if function is not None and not isinstance(function, str):
        raise GroundTruthError(f"the function's name is {function!r}")
    if value.get("test_code"):
        # LeetCode's entry points read `Solution().twoSum`.
        name = function.rpartition(".")[2].strip() if function else None
        return Functions(
            str(value.get("import_prefix") or ""), name, read_check(str(value["test_code"]), name)
        )
    inputs, outputs = (_plain_list(value.get(key), key) for key in ("inputs", "outputs"))
    if len(inputs) != len(outputs) or not inputs:
        raise GroundTruthError(f"{len(inputs)} inputs and {len(outputs)} outputs")
    if function:
        prefix = str(value.get("import_prefix") or FUNCTION_PREFIX)
        return _calls(prefix, function.rpartition(".")[2].strip(), inputs, outputs)
    return Printed(
        tuple((_lines(given), _lines(printed)) for given, printed in zip(inputs, outputs, strict=True))
    )


def _of_cases(cases: Sequence[Mapping[str, Any]]) -> Task:
    first = cases[0]
    inputs, outputs = [case["input"] for case in cases], [case["output"] for case in cases]
    if first.get("testtype") != "functional":
        return Printed(
            tuple((_lines(one), _lines(other)) for one, other in zip(inputs, outputs, strict=True))
        )
    function = first.get("fn_name") or (first.get("metadata") or {}).get("func_name")
    if not isinstance(function, str):
        raise GroundTruthError("functional tests without fn_name")
    return _calls(FUNCTION_PREFIX, function, inputs, outputs)


def _calls(prefix: str, function: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> Functions:
    """Calls of a function. A text is JSON, one argument a line, as LiveCodeBench has it; anything else is a value."""
    arguments = [_arguments(given) for given in inputs]
    values = [
        _json_or_text(value) if isinstance(given, str) and isinstance(value, str) else value
        for given, value in zip(inputs, outputs, strict=True)
    ]
    as_written = _tests(arguments, values)
    if not all(isinstance(value, list) and len(value) == 1 for value in values):
        return Functions(prefix, function, as_written)
    # TACO writes a returned 5 as [5] in most of its tasks, and as 5 in others.
    return Functions(prefix, function, _tests(arguments, [value[0] for value in values]), as_written)


def _tests(arguments: Sequence[Any], values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple({"input": given, "output": value} for given, value in zip(arguments, values, strict=True))


def _arguments(given: Any) -> Any:
    if isinstance(given, str):
        return [_json_or_text(line) for line in given.splitlines()]
    return given if isinstance(given, list | dict) else [given]


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _lines(value: Any) -> str:
    """What is read or printed; older tasks have it as a list of lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _plain_list(value: Any, key: str) -> list[Any]:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str):
        value = _json_or_text(value)
    if not isinstance(value, list):
        raise GroundTruthError(f"`{key}` is {str(value)[:40]!r}, not a list")
    return value
