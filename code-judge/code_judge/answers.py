"""From the bytes of an answer to results, each beside its own submission."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from code_judge.errors import JudgeMismatch
from code_judge.submission import Item, Result
from code_judge.transport import Broken

# Not the program's fault; a service that does not say `retryable` says it so.
_NOT_ITS_FAULT = ("internal_error", "queue_timeout")


def results_of(content: bytes, items: Sequence[Item], one: bool) -> list[Result]:
    """The results of `items`, in their order.

    Args:
        content: JSON: a result if `one`, else a batch's `{"results": [...]}`.

    Raises:
        Broken: this is no answer of a judge.
        JudgeMismatch: it is one, but not to these items.
    """
    try:
        # ValueError: no JSON, or no UTF-8. RecursionError: brackets without end.
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Broken(f"the answer is not JSON: {content[:80]!r}") from error
    results: Any = [answer] if one else answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list) or not all(_is_result(result) for result in results):
        raise Broken(f"the answer has no run_success: {content[:80]!r}")
    if len(results) != len(items):
        raise JudgeMismatch(f"{len(results)} results for {len(items)} submissions; nothing of it is used")
    for item, result in zip(items, results, strict=True):
        if result.get("sub_id") != item.wire_id:
            raise JudgeMismatch(
                f"the result at the place of {item.wire_id!r} is that of {result.get('sub_id')!r}; "
                "nothing of the answer is used"
            )
        result["sub_id"] = item.sub_id or item.wire_id
    return results


def is_verdict(result: Result) -> bool:
    """Whether the outcome is the program's own; if not, it is to be asked for again."""
    return not result.get("retryable", result["reason"] in _NOT_ITS_FAULT)


def _is_result(answer: Any) -> bool:
    if not isinstance(answer, dict) or not isinstance(answer.get("run_success"), bool):
        return False
    return isinstance(answer.get("success"), bool) and isinstance(answer.get("reason"), str)
