"""A recorded trajectory in the form that the HTML report carries: checked field by field, nothing taken on trust.

Records are written by runs of any age and hold what a model wrote. Whatever has the wrong type becomes None or is left
out, every text passes `visible`, and very long texts lose their middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cleaner.report.visible_text import visible

# Longest text that is carried whole, in characters.
LONGEST_TEXT = 12_000
# From the rarest and most telling to the plainest; a trajectory counts for the first that it has.
KINDS = ("kept", "deep", "shallow", "exhausted", "failed", "clean")
_STATUSES = ("program_error", "timeout", "format_error", "infrastructure")


def kinds_of(trajectory: Mapping[str, Any]) -> list[str]:
    """What happened in a trajectory: the decisions of its repairs in the order of `KINDS`; without a repair `failed` if
    a call failed, else `clean`.
    """
    decisions = {repair.get("decision") for repair in _mappings(trajectory.get("repairs"))}
    found = [kind for kind in KINDS[:4] if kind in decisions]
    return found or ["failed" if errors_of(trajectory) else "clean"]


def errors_of(trajectory: Mapping[str, Any]) -> list[str]:
    """Names of the errors that its calls met, sorted: exception classes; statuses only where there is no class."""
    found = set()
    for repair in _mappings(trajectory.get("repairs")):
        for turn in (repair.get("failed"), *_mappings(repair.get("attempts"))):
            outcome = _mapping(_mapping(turn).get("outcome"))
            status = outcome.get("status")
            if isinstance(status, str) and status != "ok":
                found.add(str(outcome.get("exception") or status))
    failures = _mapping(_mapping(trajectory.get("saar")).get("failures"))
    found.update(str(name) for name, number in failures.items() if number)
    if any(name not in _STATUSES for name in found):
        found.discard("program_error")
    return sorted(visible(name)[:80] for name in found)


def page_record(trajectory: Mapping[str, Any], grafts_trained: bool = True) -> dict[str, Any]:
    """The record as it goes into the page.

    Args:
        trajectory: one object of `trajectories.jsonl`.
        grafts_trained: False under `graft_credit: mask`, where grafted tokens get no gradient though the record
            says `trained`.

    Returns:
        JSON-able dict of finite numbers and visible texts; `segments` are `[origin, trained, tokens, text]`.
    """
    validation = trajectory.get("phase") == "val"
    return {
        "phase": "val" if validation else "train",
        "step": _number(trajectory.get("step")),
        "index": _number(trajectory.get("index")),
        "session": _number(trajectory.get("session")),
        "source": _text(trajectory.get("data_source")),
        "reward": _number(trajectory.get("reward")),
        "accuracy": _number(trajectory.get("accuracy")),
        "kinds": kinds_of(trajectory),
        "errors": errors_of(trajectory),
        "prompt": _text(trajectory.get("prompt")),
        "segments": [
            _segment(segment, grafts_trained, validation) for segment in _mappings(trajectory.get("segments"))
        ],
        "repairs": [_repair(repair) for repair in _mappings(trajectory.get("repairs"))],
    }


def _segment(segment: Mapping[str, Any], grafts_trained: bool, validation: bool) -> list[Any]:
    origin = _text(segment.get("origin"))
    trained = segment.get("trained") is True and not validation and (grafts_trained or origin != "grafted")
    return [origin, int(trained), _number(segment.get("tokens")), _text(segment.get("text"))]


def _repair(repair: Mapping[str, Any]) -> dict[str, Any]:
    numbers = ("turn", "start", "similarity", "weight", "accepted")
    costs = ("discarded_tokens", "removed_tokens", "lookahead_tokens", "seconds")
    return {
        **{name: _number(repair.get(name)) for name in (*numbers, *costs)},
        "decision": _text(repair.get("decision")),
        "ending": _text(repair.get("ending")) or None,
        "exact": repair.get("similarity_exact") is not False,
        "failed": _turn(_mapping(repair.get("failed"))),
        "attempts": [_turn(attempt) for attempt in _mappings(repair.get("attempts"))],
        "after": _text(repair.get("after")),
    }


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    outcome = turn.get("outcome")
    code = turn.get("code")
    return {
        "reasoning": _text(turn.get("reasoning")),
        "call": _text(turn.get("call")),
        "code": _text(code) if isinstance(code, str) else None,
        "similarity": _number(turn.get("similarity")),
        "tokens": _number(turn.get("tokens")),
        "outcome": {name: _text(outcome.get(name)) for name in ("status", "exception", "text")}
        if isinstance(outcome, Mapping)
        else None,
    }


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    if len(text) > LONGEST_TEXT:
        half = LONGEST_TEXT // 2
        text = f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"
    return visible(text)


def _number(value: Any) -> int | float | None:
    """A finite number, at most six decimals; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if abs(value) > 1e15 or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else round(value, 6)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
