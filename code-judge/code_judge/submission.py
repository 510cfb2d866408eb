"""What is sent and what comes back, as the JSON of the service's contract.

Both are plain dicts with typed keys: what the service learns to take or to answer passes through unchanged.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, Required, TypedDict, cast

from code_judge.errors import BadSubmission

Kind = Literal["python", "cpp", "math"]


class Submission(TypedDict, total=False):
    """One thing to judge; `Submission(solution="print(1)")`, or one of the functions below."""

    solution: Required[str]
    type: Kind
    input: str | None
    expected_output: str | None
    options: dict[str, str] | None
    sub_id: str | None
    fn_name: str | None
    entry_point: str | None
    tests: Any


class Result(TypedDict):
    """What came of a submission. `judge` answers without `stdout` and `stderr`."""

    sub_id: str
    success: bool
    run_success: bool
    cost: float
    reason: str
    stdout: NotRequired[str]
    stderr: NotRequired[str]
    exception: NotRequired[str | None]
    retryable: NotRequired[bool]
    tests: NotRequired[Any]


def python(
    code: str,
    *,
    stdin: str | None = None,
    expected_output: str | None = None,
    timeout_s: float | None = None,
    echo_last: bool = False,
    seed: int | None = None,
    **more: Any,
) -> Submission:
    """A Python program.

    Args:
        code: its text.
        stdin: what it reads.
        expected_output: what it must print for `success`, both stripped; None: nothing in particular.
        timeout_s: seconds that it may run, where that is less than the service's limit.
        echo_last: print the last expression's value, as a notebook does.
        seed: of `random` and `numpy.random`.
        more: further fields of the contract, such as `sub_id`, `fn_name` and `tests`.
    """
    options = dict(more.pop("options", None) or {})
    if timeout_s is not None:
        options["timeout"] = repr(float(timeout_s))
    if echo_last:
        options["echo_last"] = "1"
    if seed is not None:
        options["seed"] = str(seed)
    return _submission("python", code, stdin, expected_output, options, more)


def cpp(
    code: str,
    *,
    stdin: str | None = None,
    expected_output: str | None = None,
    timeout_s: float | None = None,
    **more: Any,
) -> Submission:
    """A C++ program; the arguments are those of `python`."""
    options = dict(more.pop("options", None) or {})
    if timeout_s is not None:
        options["timeout"] = repr(float(timeout_s))
    return _submission("cpp", code, stdin, expected_output, options, more)


def final_answer(answer: str, expected: str, **more: Any) -> Submission:
    """A mathematical answer that is to equal `expected`; `success` says whether it does."""
    options = dict(more.pop("options", None) or {})
    return _submission("math", answer, None, expected, options, more)


def _submission(
    kind: Kind,
    solution: str,
    stdin: str | None,
    expected: str | None,
    options: dict[str, str],
    more: dict[str, Any],
) -> Submission:
    content: dict[str, Any] = {"type": kind, "solution": solution}
    if stdin is not None:
        content["input"] = stdin
    if expected is not None:
        content["expected_output"] = expected
    if options:
        content["options"] = options
    return cast(Submission, content | more)


@dataclass(frozen=True, slots=True)
class Item:
    """A submission ready to be sent.

    Attributes:
        index: its place among the caller's.
        wire_id: the `sub_id` that is sent: no two are the same, so that no answer can be taken for another's.
        sub_id: the caller's own, which the result gets back; None if there is none.
        body: its JSON.
    """

    index: int
    wire_id: str
    sub_id: str | None
    body: bytes


_PROCESS = secrets.token_hex(4)
_numbers = itertools.count()


def check(index: int, submission: Mapping[str, Any]) -> None:
    """Raise BadSubmission for what is no submission at all."""
    if not isinstance(submission, Mapping):
        raise BadSubmission(
            f"submission {index} is a {type(submission).__name__}; give a dict, or `python(code)`"
        )
    if not isinstance(submission.get("solution"), str):
        kind = type(submission.get("solution")).__name__
        raise BadSubmission(f"submission {index}: `solution` must be the program's text, not {kind}")


def pack(index: int, submission: Mapping[str, Any]) -> Item:
    """Make a submission ready. Raises BadSubmission if it holds what JSON can't."""
    check(index, submission)
    own = submission.get("sub_id") or None
    # The caller's id is part of ours, so that the service's logs can be searched for it.
    wire_id = f"{_PROCESS}-{next(_numbers)}"
    if own is not None:
        wire_id += f":{str(own).encode('utf-8', 'replace').decode()}"
    try:
        # ASCII JSON can hold any text, lone surrogates too.
        body = json.dumps({**submission, "sub_id": wire_id}).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadSubmission(f"submission {index} can't be sent as JSON: {error}") from error
    return Item(index, wire_id, own, body)
