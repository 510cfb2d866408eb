"""Reward of the quick start: is the last ``\\boxed{}`` of the last assistant turn the right answer?"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from cleaner.rewards.response import last_boxed, last_turn

#: Longer "answers" are never right here; the cap keeps hostile ones away from verifiers that parse numbers.
_MAX_ANSWER_CHARS = 200


def _normalise(answer: str) -> str:
    """Strip what doesn't change an answer: blanks, ``$``, a final full stop, thousands separators."""
    answer = answer.strip().strip("$").strip()
    answer = answer.removesuffix(".").strip()
    return re.sub(r"(?<=\d),(?=\d{3}(?:\D|$))", "", answer)


@lru_cache(maxsize=64)
def _verifier(data_source: str) -> Callable[[str, dict[str, Any]], float] | None:
    """reasoning-gym's verifier for ``reasoning_gym/<name>``; None for other sources."""
    family, _, name = data_source.partition("/")
    if family != "reasoning_gym" or not name:
        return None
    import reasoning_gym

    try:
        return reasoning_gym.get_score_answer_fn(name)
    except ValueError:
        return None


def _metadata(extra_info: Any) -> dict[str, Any]:
    raw = extra_info.get("metadata") if isinstance(extra_info, dict) else None
    try:
        value = json.loads(raw) if isinstance(raw, str) else raw
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}


def _is_right(data_source: str, answer: str, truth: str, extra_info: Any) -> bool:
    if answer == truth:
        return True
    verifier = _verifier(data_source)
    if verifier is None:
        return False
    try:
        score = float(verifier(answer, {"answer": truth, "metadata": _metadata(extra_info)}))
    except Exception:
        return False
    return math.isfinite(score) and score >= 1.0


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Score one response 0 or 1; never raises on any text.

    ``data_source``: ``reasoning_gym/<task>`` uses that task's verifier (full marks only), anything else compares text.
    ``extra_info["metadata"]``: what the verifier may need, as JSON text or an object.
    Returns ``{"score": 0.0 | 1.0, "acc": the same, "pred": the answer found, or ""}``.
    """
    boxed = last_boxed(last_turn(str(solution_str)))
    answer = _normalise(boxed) if boxed is not None and len(boxed) <= _MAX_ANSWER_CHARS else ""
    right = bool(answer) and _is_right(str(data_source), answer, _normalise(str(ground_truth)), extra_info)
    return {"score": float(right), "acc": float(right), "pred": answer}
