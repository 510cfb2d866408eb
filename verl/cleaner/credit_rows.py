"""Samples that a repair gives to training beside its trajectory, each in the context before the failing turn.

- The failing call (`negatives.dpo`, `graft_credit: contrast`): the failing turn, of which the failing call's tokens are
  trained. That context is where the policy sampled it. Of a turn that failed more than once it is the first call: what
  the policy does without having seen an error; the later ones answer an error that is not in this context.
- The graft (`history: sampled`): the repaired turn as it would stand in an edited history, of which the grafted tokens
  are trained.

verl takes several outputs of one trajectory. The last one, the trajectory itself, is the one that is scored, and the
others carry its reward and, until the trainer replaces it, its advantage.
"""

from collections.abc import Collection, Sequence
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from cleaner.negatives import pairs
from cleaner.saar.config import CreditRow
from cleaner.saar.repair import Repair, SampledTurn
from cleaner.saar.trajectory import Origin, Piece
from cleaner.trajectory_rows import GRAFT_KEY, NEGATIVE_KEY


def credit_rows(
    output: AgentLoopOutput, repairs: Sequence[Repair], wanted: Collection[CreditRow]
) -> list[AgentLoopOutput]:
    """The wanted samples of a trajectory's repairs.

    Where failing calls are wanted, grafts come from the same pairs: one whose failing call is not trained would have no
    counterweight.
    """
    paired = pairs(output, repairs)
    rows = []
    if CreditRow.FAILING in wanted:
        rows += [
            _row(output, repair.start, _failing_call(repair), {NEGATIVE_KEY: number})
            for number, repair in enumerate(paired)
        ]
    if CreditRow.GRAFT in wanted:
        grafted = paired if CreditRow.FAILING in wanted else repairs
        rows += [
            _row(output, repair.start, repair.aside.pieces, {GRAFT_KEY: number}, Origin.GRAFTED)
            for number, repair in enumerate(grafted)
            if repair.aside is not None
        ]
    return rows


def _failing_call(repair: Repair) -> list[Piece]:
    """The failing turn; its failing calls are `SAMPLED`."""
    failed, pieces, done = repair.failed, [], 0
    for start, stop in failed.call_spans:
        pieces += [_piece(failed, done, start, Origin.EXCLUDED), _piece(failed, start, stop, Origin.SAMPLED)]
        done = stop
    return [*pieces, _piece(failed, done, len(failed.ids), Origin.EXCLUDED)]


def _piece(turn: SampledTurn, start: int, stop: int, origin: Origin) -> Piece:
    return Piece(turn.ids[start:stop], origin, None if turn.logprobs is None else turn.logprobs[start:stop])


def _row(
    output: AgentLoopOutput,
    start: int,
    pieces: Sequence[Piece],
    mark: dict[str, int],
    trained: Origin = Origin.SAMPLED,
) -> AgentLoopOutput:
    """`output` up to response token `start`, and the pieces, of which those of the origin `trained` are trained.

    It has exactly the fields of `output` set, so that verl can batch them together.
    """
    fields: dict[str, Any] = {name: getattr(output, name) for name in output.model_fields_set}
    origin = [
        int(piece.origin if piece.origin == trained else Origin.OBSERVATION)
        for piece in pieces
        for _ in piece.ids
    ]
    fields["response_ids"] = [
        *output.response_ids[:start],
        *(token for piece in pieces for token in piece.ids),
    ]
    fields["response_mask"] = [0] * start + [int(kind != Origin.OBSERVATION) for kind in origin]
    if output.response_logprobs is not None:
        logprobs = [value for piece in pieces for value in piece.logprobs or [0.0] * len(piece.ids)]
        fields["response_logprobs"] = [*output.response_logprobs[:start], *logprobs]
    fields["metrics"] = output.metrics.model_copy()
    if output.routed_experts is not None:
        fields["routed_experts"] = output.routed_experts[: len(output.prompt_ids) + start]
    steps = {key: output.extra_fields.get(key) for key in ("min_global_steps", "max_global_steps")}
    fields["extra_fields"] = {**steps, **mark, "token_origin": [0] * start + origin}
    return AgentLoopOutput(**fields)
