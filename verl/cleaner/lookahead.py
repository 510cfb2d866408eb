"""The look-ahead after a failing turn: a branch of the history in which the model corrects itself.

The branch starts from copies: it changes neither messages, tokens, counters nor images of the main history. Its context
is what an unedited history would be, the failing turn and the tools' messages included, merged by verl's Continuous
Token builder like any other. It uses the trajectory's `request_id`, so the same server's prefix cache serves it.

A tool's effects on the outside world are not undone: a tool with lasting effects sees every attempt.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from verl.experimental.agent_loop.tool_agent_loop import AgentData, AgentState, ToolAgentLoop
from verl.tools.schemas import ToolResponse
from verl.utils.profiler import simple_timer
from verl.workers.rollout.replica import TokenOutput

from cleaner.saar.graft import Graft, TurnTokens, counterparts, grafts
from cleaner.saar.outcome import INFRASTRUCTURE, ToolOutcome
from cleaner.saar.policy import Decision, Ending
from cleaner.saar.repair import AttemptRecord, Repair, SampledTurn
from cleaner.saar.similarity import Similarity, similarity
from cleaner.tools.outcomes import OUTCOME_KEY
from cleaner.trajectory_session import TrajectorySession
from cleaner.turn_calls import TurnCall

CallResult = tuple[ToolResponse, float, dict[str, Any]]
# Texts up to this size together are compared on the event loop; comparing takes less than a millisecond.
_INLINE_CHARS = 2_000


def offer_results(agent_data: AgentData, calls: Sequence[TurnCall], results: Sequence[CallResult]) -> None:
    """Make `_call_tool` return these results instead of running the calls again."""
    agent_data.cleaner_results = {id(call.call): result for call, result in zip(calls, results, strict=True)}


class LoopParts(Protocol):
    """What the look-ahead uses of the agent loop."""

    max_parallel_calls: int
    response_length: int
    tool_parser: Any
    server_manager: Any
    loop: Any

    async def run_calls(
        self, calls: Sequence[TurnCall], agent_data: AgentData, metrics: dict[str, Any], *, lookahead: bool
    ) -> list[CallResult]: ...

    async def read_turn(self, ids: list[int], agent_data: AgentData) -> tuple[str, list[TurnCall]]: ...

    async def ct_merge_assistant_token(self, *args: Any, **kwargs: Any) -> Any: ...

    def _build_assistant_message(self, content: str, agent_data: AgentData) -> dict[str, Any]: ...


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
        )


@dataclass
class RepairedTurn:
    """The turn that replaces the failing one: tokens as a graft, with its calls and their results."""

    graft: Graft
    content: str
    calls: list[TurnCall]
    results: list[CallResult]
    extra_fields: dict[str, Any]
    server_fields: dict[str, Any]


class LookAhead:
    """Explores corrections of one failing turn. Use once."""

    def __init__(self, loop: LoopParts, session: TrajectorySession, main: AgentData, failed: Turn) -> None:
        if session.checkpoint is None:
            raise RuntimeError("look-ahead outside of a turn")
        self._loop = loop
        self._session = session
        self._main = main
        self._failed = failed
        self._before = session.checkpoint
        self._config = session.settings.saar
        self._failing = session.policy.failing(failed.outcomes)
        self._start = len(session.trajectory) - len(failed.ids)
        self._attempts: list[Turn] = []
        self._used = 0
        self._repaired: RepairedTurn | None = None
        self._similarity: Similarity | None = None
        self._removed = 0
        self._server_fields: dict[str, Any] = {}

    async def explore(self) -> tuple[Repair, RepairedTurn | None]:
        """Sample corrections until one succeeds, K failed, or there is no room left.

        Returns:
            The record, and the turn to put in place of the failing one (None: exhausted).
        """
        begin = time.perf_counter()
        ending = await self._search()
        seconds = time.perf_counter() - begin
        records = [AttemptRecord(turn.sampled(range(len(turn.calls)))) for turn in self._attempts]
        accepted = None
        if self._repaired is not None and self._similarity is not None:
            accepted = len(records) - 1
            records[accepted] = replace(records[accepted], similarity=self._similarity.value)
        after = self._failed.ids if self._repaired is None else self._repaired.graft.ids
        repair = Repair(
            turn=self._session.turn,
            start=self._start,
            decision=Decision.EXHAUSTED if self._repaired is None else self._repaired.graft.depth,
            similarity=None if self._similarity is None else self._similarity.value,
            similarity_exact=self._similarity is None or self._similarity.exact,
            accepted=accepted,
            ending=ending,
            failed=self._failed.sampled(self._failing),
            attempts=tuple(records),
            after=tuple(after),
            discarded_tokens=len(self._failed.ids) + self._used - len(after),
            removed_tokens=self._removed,
            lookahead_tokens=self._used,
            seconds=seconds,
        )
        return repair, self._repaired

    async def _search(self) -> Ending | None:
        branch = _fork(self._main)
        if not await self._observe(branch, self._failed):
            return Ending.ROOM
        for number in range(self._config.max_retries):
            room = self._room(branch)
            if room <= 0:
                return Ending.ROOM
            attempt, extended = await self._sample(branch, room)
            self._attempts.append(attempt)
            if not attempt.calls:
                # An answer without a call leaves no tool message to go on from: the next attempt starts where this
                # one did, with another seed.
                if self._session.sampling_params.get("temperature") == 0:
                    return Ending.GREEDY
                continue
            attempt.results = await self._loop.run_calls(
                attempt.calls, extended, self._main.metrics, lookahead=True
            )
            if any(outcome.status == INFRASTRUCTURE for outcome in attempt.outcomes):
                return Ending.INFRASTRUCTURE
            if self._session.policy.accepts(attempt.outcomes) and await self._fit(attempt, extended):
                return None
            if number + 1 < self._config.max_retries:
                if self._config.lookahead_context == "latest":
                    extended = await self._extend(self._fork_before_turn(), attempt)
                branch = extended
                if not await self._observe(branch, attempt):
                    return Ending.ROOM
        return Ending.ATTEMPTS

    def _room(self, branch: AgentData) -> int:
        """Tokens that the next attempt may take."""
        room = self._loop.response_length - len(branch.response_mask)
        limit = self._config.max_lookahead_tokens
        return room if limit is None else min(room, limit - self._used)

    async def _observe(self, branch: AgentData, turn: Turn) -> bool:
        """Append the tools' messages; False if they fill the response length."""
        branch.tool_calls = [call.call for call in turn.calls]
        offer_results(branch, turn.calls, turn.results)
        state = await ToolAgentLoop._handle_processing_tools_state(self._loop, branch)
        return bool(state != AgentState.TERMINATED)

    async def _sample(self, branch: AgentData, room: int) -> tuple[Turn, AgentData]:
        """One attempt, and the branch with it appended."""
        params = self._session.request_params(self._session.sampling_params, max_tokens=room)
        if self._loop.tool_parser.stop_token_ids:
            known = params.get("stop_token_ids") or []
            params["stop_token_ids"] = list({*known, *self._loop.tool_parser.stop_token_ids})
        with simple_timer("generate_sequences", self._main.metrics):
            output: TokenOutput = await self._loop.server_manager.generate(
                request_id=branch.request_id,
                prompt_ids=branch.prompt_ids,
                sampling_params=params,
                image_data=branch.image_data,
                video_data=branch.video_data,
                mm_processor_output=branch.mm_processor_output,
                audio_data=branch.audio_data,
                mm_processor_kwargs=branch.mm_processor_kwargs,
            )
        self._server_fields = output.extra_fields
        ids = list(output.token_ids[:room])
        self._used += len(ids)
        content, calls = await self._loop.read_turn(ids, branch)
        logprobs = list(output.log_probs[: len(ids)]) if output.log_probs else None
        attempt = Turn(ids, logprobs, content, calls)
        return attempt, await self._extend(branch, attempt)

    async def _extend(self, base: AgentData, attempt: Turn) -> AgentData:
        branch = _fork(base)
        merged, mask, _ = await self._loop.ct_merge_assistant_token(
            base.prompt_ids, attempt.ids, base.response_mask, None
        )
        branch.prompt_ids, branch.response_mask = merged.token_ids, mask
        branch.response_ids = attempt.ids
        branch.tool_calls = [call.call for call in attempt.calls]
        branch.messages.append(self._loop._build_assistant_message(attempt.content, branch))
        return branch

    def _fork_before_turn(self) -> AgentData:
        branch = _fork(self._main)
        branch.prompt_ids, branch.response_mask = self._before.prompt_ids, self._before.response_mask
        del branch.messages[self._before.messages :]
        return branch

    async def _fit(self, attempt: Turn, branch: AgentData) -> bool:
        """Find the repair that a successful attempt makes; False if it does not cover the failing calls."""
        sources = counterparts(len(self._failed.calls), self._failing, len(attempt.calls))
        if sources is None:
            return False
        failed_text = "\n".join(self._failed.calls[index].comparable for index in self._failing)
        accepted_text = "\n".join(
            attempt.calls[index].comparable for origin, index in sources if origin == "attempt"
        )
        ratio = await self._compare(failed_text, accepted_text)
        wanted = self._session.policy.depth(ratio.value)
        for graft in grafts(self._failed.tokens, self._failing, attempt.tokens, wanted):
            origins = {"turn": self._failed, "attempt": attempt}
            calls = [origins[origin].calls[index] for origin, index in graft.sources]
            content = await self._content_if_sound(graft, calls, attempt, branch)
            if content is None or self._start + len(graft.ids) >= self._loop.response_length:
                continue
            results = [origins[origin].results[index] for origin, index in graft.sources]
            self._repaired = RepairedTurn(
                graft, content, calls, results, branch.extra_fields, self._server_fields
            )
            self._similarity = ratio
            self._removed = len(branch.response_mask) - self._start - len(graft.ids)
            return True
        return False

    async def _compare(self, failed: str, accepted: str) -> Similarity:
        gamma = self._config.gamma
        if len(failed) + len(accepted) <= _INLINE_CHARS:
            return similarity(failed, accepted, gamma)
        return await self._loop.loop.run_in_executor(None, similarity, failed, accepted, gamma)

    async def _content_if_sound(
        self, graft: Graft, calls: Sequence[TurnCall], attempt: Turn, branch: AgentData
    ) -> str | None:
        """The repaired turn's text beside its calls; None if the turn does not parse to exactly these calls."""
        if graft.ids == attempt.ids:
            return attempt.content
        content, parsed = await self._loop.read_turn(graft.ids, branch)
        same = [(c.call.name, c.call.arguments, c.problem) for c in parsed] == [
            (c.call.name, c.call.arguments, c.problem) for c in calls
        ]
        return content if same else None


def _fork(agent_data: AgentData) -> AgentData:
    """A copy whose changes the original does not see. Log-probabilities of the context are not needed in a branch."""
    branch = copy.copy(agent_data)
    branch.messages = list(agent_data.messages)
    branch.response_logprobs = []
    branch.turn_scores = list(agent_data.turn_scores)
    branch.tool_rewards = list(agent_data.tool_rewards)
    branch.extra_fields = dict(agent_data.extra_fields)
    branch.metrics = {}
    if isinstance(agent_data.image_data, list):
        branch.image_data = list(agent_data.image_data)
    return branch
