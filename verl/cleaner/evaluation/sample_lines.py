"""Validation samples as JSON objects, read from verl's TransferQueue. `docs/evaluation.md` documents the fields."""

import math
from collections.abc import Mapping
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta

from cleaner.evaluation.sample_facts import SAMPLE_KEY
from cleaner.failures import FAILED_TAG
from cleaner.trajectory_rows import column_values, trajectory_keys

SCHEMA_VERSION = 1
_FIELDS = ["session_id", "data_source", "rm_scores", "extra_fields", "prompts", "responses"]
# Why a sample is left out of all scores.
INFRASTRUCTURE, UNSCORED = "infrastructure", "unscored"


def sample_lines(batch: KVBatchMeta, step: int, tokenizer: Any) -> list[dict[str, Any]]:
    """One object a trajectory of a validation batch, by problem and number; one that failed by an exception has none.

    Raises:
        RuntimeError: the trajectories come from another agent-loop worker than ours.
    """
    failed = {key for key, tag in zip(batch.keys, batch.tags, strict=True) if tag.get(FAILED_TAG)}
    keys = [key for key in trajectory_keys(batch) if key not in failed]
    if not keys:
        return []
    data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=_FIELDS)
    sessions, sources, extras = (
        column_values(data[name]) for name in ("session_id", "data_source", "extra_fields")
    )
    texts = [
        [tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in data[name].unbind()]
        for name in ("prompts", "responses")
    ]
    scores = [float(row.sum()) for row in data["rm_scores"].unbind()]
    lines = [
        {
            **_line(step, str(sources[i]), int(sessions[i]), scores[i], extras[i]),
            "prompt": texts[0][i],
            "response": texts[1][i],
        }
        for i in range(len(keys))
    ]
    return sorted(
        lines, key=lambda line: (line["data_source"], line["id"], line["prompt_digest"], line["sample"])
    )


def _line(step: int, data_source: str, number: int, score: float, extra: Mapping[str, Any]) -> dict[str, Any]:
    if SAMPLE_KEY not in extra:
        raise RuntimeError(
            "samples are saved only with actor_rollout_ref.rollout.agent.agent_loop_manager_class="
            "cleaner.rollout_worker.CleanerAgentLoopManager"
        )
    facts = dict(extra[SAMPLE_KEY])
    sampled = facts.pop("sampled_tokens")
    details = {key: plain(value) for key, value in (extra.get("reward_extra_info") or {}).items()}
    saar = extra.get("saar")
    counts: Mapping[str, Any] = saar or {}
    scored = math.isfinite(score) and not details.get("left_out") and details.get("acc", 0) is not None
    lookahead = counts.get("lookahead_tokens", 0)
    return {
        "schema": SCHEMA_VERSION,
        "step": step,
        "data_source": data_source,
        "id": facts.pop("id"),
        "prompt_digest": facts.pop("prompt_digest"),
        "sample": number,
        "score": plain(score),
        "acc": _zero_or_one(details.pop("acc", None)),
        "pred": details.pop("pred", None),
        "left_out": INFRASTRUCTURE if counts.get("infrastructure") else None if scored else UNSCORED,
        "details": details,
        **facts,
        "generated_tokens": counts.get("sampled_tokens", sampled) + lookahead,
        "discarded_tokens": counts.get("discarded_tokens", 0),
        "lookahead_tokens": lookahead,
        "tool_calls": counts.get("calls", 0),
        "tool_failures": counts.get("failures", {}),
        "rollbacks": {
            "triggered": sum(counts.get("triggered", {}).values()),
            **{name: counts.get(name, 0) for name in ("shallow", "deep", "kept")},
        },
        "saar": saar,
    }


def _zero_or_one(value: Any) -> Any:
    """Reward functions tell it as bool, int or float; a fraction stays what it is, for the report to refuse."""
    return int(value) if isinstance(value, bool | int | float) and value in (0, 1) else value


def plain(value: Any) -> Any:
    """A value as JSON can hold it: numpy's scalars and arrays as Python's, what is not finite as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
