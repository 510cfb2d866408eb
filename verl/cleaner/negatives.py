"""Failing calls that were repaired, as negative samples: (context, rejected call, accepted call).

Forms of the same pairs:

- `negative_texts`: text, for `negatives.jsonl` and the export by `cleaner pairs`;
- `call_pairs`, `paired_tokens`: where the accepted calls, and their grafts, stand in the trajectory;
- `cleaner.credit_rows`: samples of their own for training.

Only repairs that graft make pairs: an exhausted turn has no accepted call, and of a look-ahead that was kept because
its graft was too unlikely, both calls are in the history already. Where no history is edited (`history: sampled`), the
graft is the one that would have been made.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from cleaner.saar.policy import Decision
from cleaner.saar.repair import Repair
from cleaner.saar.trajectory import Origin


def pairs(output: AgentLoopOutput, repairs: Sequence[Repair]) -> list[Repair]:
    """Repairs whose two calls are known in tokens, and both within the (perhaps truncated) response.

    Not those of a call that failed once and then ran as it was, after a timeout say: there is nothing to prefer. And
    not those whose failing call shares its tokens with one that succeeded.
    """
    return [repair for repair in repairs if _is_pair(output, repair)]


def _is_pair(output: AgentLoopOutput, repair: Repair) -> bool:
    accepted = repair.accepted_turn
    if accepted is None or accepted.call_start is None or not repair.failed.call_spans:
        return False
    in_history = repair.failed.ids if repair.aside is not None else accepted.ids
    return tuple(accepted.ids) != repair.failed.ids and repair.start + len(in_history) <= len(
        output.response_ids
    )


def negative_texts(
    tokenizer: Any, output: AgentLoopOutput, repairs: Sequence[Repair]
) -> list[dict[str, Any]]:
    """One dict per pair: `prompt` (everything before both calls), `chosen`, `rejected` (call, or turn if the repair is
    deep), `decision`, `similarity`, `turn`, and the rejected call's `error` (status, exception, text)."""
    found = []
    for repair in pairs(output, repairs):
        if (accepted := repair.accepted_turn) is None:
            continue
        shared = (accepted.call_start or 0) if accepted.depth == Decision.SHALLOW else 0
        context = [*output.prompt_ids, *output.response_ids[: repair.start], *repair.failed.ids[:shared]]
        outcome = repair.failed.outcome
        found.append(
            {
                "prompt": _text(tokenizer, context),
                "chosen": _text(tokenizer, accepted.ids[shared:]),
                "rejected": _text(tokenizer, repair.failed.ids[shared:]),
                "decision": str(accepted.depth),
                "similarity": repair.similarity,
                "turn": repair.turn,
                "error": None if outcome is None else outcome.to_dict(),
            }
        )
    return found


def call_pairs(output: AgentLoopOutput, origin: Sequence[int], repairs: Sequence[Repair]) -> list[list[int]]:
    """Response positions of the accepted call's grafted tokens, one list per pair; empty where nothing was grafted."""
    return [list(_grafted(origin, repair, repair.graft_call_start or 0)) for repair in pairs(output, repairs)]


def paired_tokens(output: AgentLoopOutput, origin: Sequence[int], repairs: Sequence[Repair]) -> list[int]:
    """Response positions of all grafted tokens of all pairs, the reasoning of deep repairs included."""
    return [i for repair in pairs(output, repairs) for i in _grafted(origin, repair, 0)]


def _grafted(origin: Sequence[int], repair: Repair, first: int) -> Iterator[int]:
    """Grafted tokens of the turn that stands in the history, from its token `first` on."""
    stop = repair.start + len(repair.after)
    return (i for i in range(repair.start + first, stop) if origin[i] == Origin.GRAFTED)


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))
