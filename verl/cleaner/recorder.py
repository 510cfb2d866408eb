"""A trajectory and its repairs as readable records. Nothing is decoded unless a record is asked for."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from cleaner.saar.repair import Repair, SampledTurn
from cleaner.saar.trajectory import Origin


def record_trajectory(
    tokenizer: Any,
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    response_mask: Sequence[int],
    origin: Sequence[int],
    repairs: Sequence[Repair],
) -> dict[str, Any]:
    """The record of one trajectory without what only the trainer knows (step, reward, ...).

    Returns:
        JSON-able dict with `prompt` (text), `segments` (runs of one origin, with their text) and `repairs`.
    """
    segments = []
    position = 0
    labels = list(zip(origin, response_mask, strict=False))
    for (kind, trained), run in groupby(labels):
        length = len(list(run))
        ids = response_ids[position : position + length]
        position += length
        segments.append(
            {
                "origin": Origin(kind).name.lower(),
                "trained": bool(trained),
                "text": _text(tokenizer, ids),
                "tokens": length,
            }
        )
    return {
        "prompt": _text(tokenizer, prompt_ids),
        "segments": segments,
        "repairs": [record_repair(tokenizer, repair) for repair in repairs],
    }


def record_repair(tokenizer: Any, repair: Repair) -> dict[str, Any]:
    """One repair as a JSON-able dict."""
    return {
        "turn": repair.turn,
        "start": repair.start,
        "decision": str(repair.decision),
        "ending": None if repair.ending is None else str(repair.ending),
        "similarity": repair.similarity,
        "similarity_exact": repair.similarity_exact,
        "weight": repair.weight,
        "accepted": repair.accepted,
        "failed": _turn(tokenizer, repair.failed),
        "attempts": [
            {**_turn(tokenizer, attempt.turn), "similarity": attempt.similarity}
            for attempt in repair.attempts
        ],
        "after": _text(tokenizer, repair.after),
        "discarded_tokens": repair.discarded_tokens,
        "excluded_tokens": repair.excluded_tokens,
        "removed_tokens": repair.removed_tokens,
        "lookahead_tokens": repair.lookahead_tokens,
        "seconds": repair.seconds,
    }


def _turn(tokenizer: Any, turn: SampledTurn) -> dict[str, Any]:
    split = len(turn.ids) if turn.call_start is None else turn.call_start
    outcome = None
    if turn.outcome is not None:
        outcome = {
            "status": turn.outcome.status,
            "exception": turn.outcome.exception,
            "text": turn.outcome.text,
        }
    return {
        "reasoning": _text(tokenizer, turn.ids[:split]),
        "call": _text(tokenizer, turn.ids[split:]),
        "code": None if turn.code is None else turn.code.encode("utf-8", "backslashreplace").decode(),
        "outcome": outcome,
        "tokens": len(turn.ids),
    }


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False)) if len(ids) else ""
