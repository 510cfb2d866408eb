"""An assistant turn while it is dealt with: its tokens, its calls, and what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from verl.experimental.agent_loop.tool_agent_loop import AgentData
from verl.tools.schemas import ToolResponse

from cleaner.saar.graft import Graft, TurnTokens
from cleaner.saar.outcome import ToolOutcome
from cleaner.saar.repair import SampledTurn
from cleaner.tools.outcomes import OUTCOME_KEY
from cleaner.turn_calls import TurnCall

CallResult = tuple[ToolResponse, float, dict[str, Any]]


def offer_results(agent_data: AgentData, calls: Sequence[TurnCall], results: Sequence[CallResult]) -> None:
    """Make `_call_tool` return these results instead of running the calls again."""
    agent_data.cleaner_results = {id(call.call): result for call, result in zip(calls, results, strict=True)}


@dataclass
class Turn:
    """An assistant turn with the calls that count (the first `max_parallel_calls`) and what became of them."""

    ids: list[int]
    logprobs: list[float] | None
    content: str
    calls: list[TurnCall]
    results: list[CallResult] = field(default_factory=list)

    @property
    def outcomes(self) -> list[ToolOutcome]:
        return [result[2][OUTCOME_KEY] for result in self.results]

    @property
    def tokens(self) -> TurnTokens:
        return TurnTokens(self.ids, self.logprobs, [call.span for call in self.calls])

    def sampled(self, relevant: Sequence[int]) -> SampledTurn:
        """The record of this turn; `relevant` are the calls that failed, or all."""
        codes = [code for index in relevant if (code := self.calls[index].code) is not None]
        outcomes = self.outcomes
        failed = [outcome for outcome in outcomes if not outcome.ok]
        span = self.tokens.first_span
        return SampledTurn(
            ids=tuple(self.ids),
            logprobs=None if self.logprobs is None else tuple(self.logprobs),
            call_start=None if span is None else span.start,
            code="\n".join(codes) if codes else None,
            outcome=failed[0] if failed else outcomes[-1] if outcomes else None,
            call_spans=self._spans_of(relevant),
        )

    def _spans_of(self, relevant: Sequence[int]) -> tuple[tuple[int, int], ...]:
        tokens = self.tokens
        if len(relevant) == len(self.calls):
            first = tokens.first_span
            return () if first is None else ((first.start, len(self.ids)),)
        if not tokens.separable():
            return ()
        spans = (tokens.spans[index] for index in relevant)
        return tuple((span.start, span.stop) for span in spans if span is not None)


@dataclass
class RepairedTurn:
    """The turn that replaces the failing one: tokens as a graft, with its calls and their results."""

    graft: Graft
    content: str
    calls: list[TurnCall]
    results: list[CallResult]
    extra_fields: dict[str, Any]
    server_fields: dict[str, Any]
