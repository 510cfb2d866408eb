"""Failing calls that were repaired, as negative samples: (context, rejected call, accepted call).

Three forms of the same pairs:

- `negative_texts`: text, for `negatives.jsonl` and the export by `cleaner pairs`;
- `negative_outputs`: each failing call as a sample of its own, in the context in which it was really sampled, of which
  only the call's tokens are trained. verl takes several outputs of one trajectory; the last one, the trajectory itself,
  is the one that is scored;
- `call_pairs`: where the accepted calls stand in the trajectory.

Only shallow and deep repairs make pairs: an exhausted turn has no accepted call, and in a look-ahead that was kept both
calls are in the history already.
"""

from collections.abc import Sequence
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from cleaner.saar.policy import Decision
from cleaner.saar.repair import Repair
from cleaner.saar.trajectory import Origin
from cleaner.trajectory_rows import NEGATIVE_KEY


def _pairs(output: AgentLoopOutput, repairs: Sequence[Repair]) -> list[Repair]:
    """Repairs whose two calls are known in tokens, and whose accepted call is in the (perhaps truncated) response.

    Not those of a call that failed once and then ran as it was, after a timeout say: there is nothing to prefer.
    """
    return [
        repair
        for repair in repairs
        if repair.decision in (Decision.SHALLOW, Decision.DEEP)
        and repair.after != repair.failed.ids
        and repair.failed.call_start is not None
        and repair.graft_call_start is not None
        and repair.start + len(repair.after) <= len(output.response_ids)
    ]


def negative_texts(
    tokenizer: Any, output: AgentLoopOutput, repairs: Sequence[Repair]
) -> list[dict[str, Any]]:
    """One dict per pair: `prompt` (everything before both calls), `chosen`, `rejected` (call, or turn if the repair is
    deep), `decision`, `similarity`, `turn`, and the rejected call's `error` (status, exception, text)."""
    found = []
    for repair in _pairs(output, repairs):
        shared = repair.graft_call_start if repair.decision == Decision.SHALLOW else 0
        context = [*output.prompt_ids, *output.response_ids[: repair.start], *repair.failed.ids[:shared]]
        outcome = repair.failed.outcome
        found.append(
            {
                "prompt": _text(tokenizer, context),
                "chosen": _text(tokenizer, repair.after[shared:]),
                "rejected": _text(tokenizer, repair.failed.ids[shared:]),
                "decision": str(repair.decision),
                "similarity": repair.similarity,
                "turn": repair.turn,
                "error": None if outcome is None else outcome.to_dict(),
            }
        )
    return found


def negative_outputs(output: AgentLoopOutput, repairs: Sequence[Repair]) -> list[AgentLoopOutput]:
    """One sample per pair: the frozen prefix and the failing turn, trained on the failing call's tokens only.

    All have exactly the fields of `output` set, so that verl can batch them with it.
    """
    found = []
    for number, repair in enumerate(_pairs(output, repairs)):
        failed = repair.failed
        call_start = failed.call_start or 0
        prefix = output.response_ids[: repair.start]
        fields: dict[str, Any] = {name: getattr(output, name) for name in output.model_fields_set}
        fields["response_ids"] = [*prefix, *failed.ids]
        mask = [0] * (repair.start + call_start) + [1] * (len(failed.ids) - call_start)
        fields["response_mask"] = mask
        if output.response_logprobs is not None:
            logprobs = failed.logprobs if failed.logprobs is not None else [0.0] * len(failed.ids)
            fields["response_logprobs"] = [*output.response_logprobs[: repair.start], *logprobs]
        fields["metrics"] = output.metrics.model_copy()
        if output.routed_experts is not None:
            fields["routed_experts"] = output.routed_experts[: len(output.prompt_ids) + repair.start]
        steps = {key: output.extra_fields.get(key) for key in ("min_global_steps", "max_global_steps")}
        origin = [int(Origin.SAMPLED) if trained else int(Origin.OBSERVATION) for trained in mask]
        fields["extra_fields"] = {**steps, NEGATIVE_KEY: number, "token_origin": origin}
        found.append(AgentLoopOutput(**fields))
    return found


def call_pairs(output: AgentLoopOutput, origin: Sequence[int], repairs: Sequence[Repair]) -> list[list[int]]:
    """Response positions of the accepted call's grafted tokens, one list per pair."""
    found = []
    for repair in _pairs(output, repairs):
        first = repair.start + (repair.graft_call_start or 0)
        stop = repair.start + len(repair.after)
        found.append([i for i in range(first, stop) if origin[i] == Origin.GRAFTED])
    return found


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))
