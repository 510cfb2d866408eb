"""What the worker knows of a validation trajectory and the trainer would not: its row, its end, its time.

The worker puts it into `extra_fields[SAMPLE_KEY]` of the trajectory's last output, whichever agent loop made it.
"""

from collections.abc import Mapping
from typing import Any

from cleaner.evaluation.identity import prompt_digest, row_id

SAMPLE_KEY = "sample"
# Set by our agent loop in `extra_fields`; other loops leave them out.
ENDING_KEY, TURNS_KEY, LOOKAHEAD_KEY = "ending", "assistant_turns", "lookahead"

ANSWER, LENGTH, TURNS, BROKEN_CALL = "answer", "length", "turns", "broken_call"
ENDINGS = (ANSWER, LENGTH, TURNS, BROKEN_CALL)
"""Why a trajectory ended: a turn without a call; no room left; no turn left; a call that does not parse."""


def sample_facts(output: Any, row: Mapping[str, Any], response_length: int, seconds: float) -> dict[str, Any]:
    """The facts of one trajectory.

    Args:
        output: verl's `AgentLoopOutput`, the last one of the trajectory.
        row: the dataset's row and verl's identifiers.
        response_length: most tokens of a response.
        seconds: wall time of the trajectory, tools included, the reward not.
    """
    extra, mask = output.extra_fields, output.response_mask
    truncated = len(mask) >= response_length
    return {
        "id": row_id(row),
        "prompt_digest": prompt_digest(row.get("raw_prompt") or ()),
        "ending": extra.get(ENDING_KEY) or (LENGTH if truncated else ANSWER),
        # Other loops tell only the sum of user, tool and assistant turns, the prompt's turn included.
        "turns": extra.get(TURNS_KEY) or max(1, output.num_turns // 2),
        "lookahead": bool(extra.get(LOOKAHEAD_KEY)),
        "response_tokens": len(mask),
        "sampled_tokens": int(sum(mask)),
        "seconds": seconds,
        "generate_seconds": float(output.metrics.generate_sequences),
        "tool_seconds": float(output.metrics.tool_calls),
    }
