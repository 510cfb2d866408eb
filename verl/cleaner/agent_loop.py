"""verl's tool agent loop with similarity-aware adaptive rollback.

`CleanerAgentLoop` is upstream's `ToolAgentLoop`, whose handlers do all generating, parsing, merging and ending. What it
adds happens at three places:

- after a turn was generated, its calls are located, calls that do not parse included;
- before a turn's tool messages are merged, failing calls are repaired in a look-ahead (`cleaner.lookahead`), and the
  turn's tokens are replaced by one splice (`cleaner.saar.trajectory`), together with its message and results;
- every tool call gets a structured outcome.

What is done about a failing call is for the configured strategy to say (`cleaner.saar.strategy`). Where it does nothing
the output is upstream's, token for token, but for keys in `extra_fields`: `saar` (counts of this trajectory),
`token_origin` (one of `Origin` per response token), in validation `ending`, `assistant_turns` and `lookahead` (see
`cleaner.evaluation.sample_facts`) and, where they are asked for, `trajectory` (the record), `negatives`, `pairs`
and `paired_tokens` (see `cleaner.negatives`).

An exhausted turn goes on as upstream's would: with its own error message. A call that does not parse, which upstream
takes for the final answer, gets an error message too, if it was rolled back or tolerated.
"""

import asyncio
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.tool_agent_loop import AgentData, AgentState, ToolAgentLoop
from verl.experimental.agent_loop.tool_parser import FunctionCall
from verl.tools.schemas import ToolResponse
from verl.utils.ray_utils import get_event_loop

from cleaner.credit_rows import credit_rows
from cleaner.evaluation.sample_facts import BROKEN_CALL, ENDING_KEY, LENGTH, LOOKAHEAD_KEY, TURNS, TURNS_KEY
from cleaner.lookahead import KeptBranch, LookAhead
from cleaner.negatives import call_pairs, negative_texts, paired_tokens
from cleaner.recorder import record_trajectory
from cleaner.saar.config import CreditRow
from cleaner.saar.outcome import FORMAT_ERROR, OK, ToolOutcome
from cleaner.saar.policy import Decision, Reaction
from cleaner.sampled_turn import CallResult, RepairedTurn, Turn, offer_results
from cleaner.tools.outcomes import OBSERVATION, OUTCOME_KEY, Observation, observed, outcome_of
from cleaner.trajectory_session import LoopSettings, TrajectorySession
from cleaner.turn_calls import TurnCall, TurnReader

# The trajectory that the current task makes. Handlers get no other place to keep it: upstream creates `AgentData`
# within `run`, and may run several trajectories on one loop.
_session: ContextVar[TrajectorySession | None] = ContextVar("cleaner_session", default=None)


class CleanerAgentLoop(ToolAgentLoop):
    """The agent loop `cleaner_agent`; settings come from the group `cleaner` of the run configuration."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = LoopSettings.from_config(self.config)
        self.tools: dict[str, Any] = {name: observed(tool) for name, tool in self.tools.items()}
        self._turn_reader = TurnReader(self.tool_parser, self.tokenizer)

    async def run(
        self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any
    ) -> AgentLoopOutput | list[AgentLoopOutput]:
        """Make one trajectory.

        Args:
            sampling_params: of every request; a seed is added to a copy.
            kwargs: the row of the dataset and verl's identifiers; `cleaner_validate` says that this is validation.

        Returns:
            The trajectory; where repairs give samples of their own to training, these and then the trajectory.
        """
        strategy = self._settings.strategy
        tries: list[tuple[AgentLoopOutput, TrajectorySession]] = []
        while True:
            session = TrajectorySession(self._settings, kwargs, number=len(tries))
            tries.append((await self._make(session, sampling_params, priority, kwargs), session))
            counts = [each.statistics for _, each in tries]
            if not strategy.samples_again(counts, validate=session.validate):
                break
        kept = strategy.kept(counts) if len(tries) > 1 else 0
        output, session = tries[kept]
        for number, other in enumerate(counts):
            if number != kept:
                session.statistics.absorb(other)
        return await self._complete(output, session)

    async def _make(
        self,
        session: TrajectorySession,
        sampling_params: dict[str, Any],
        priority: int,
        kwargs: dict[str, Any],
    ) -> AgentLoopOutput:
        token = _session.set(session)
        begin = time.perf_counter()
        try:
            output: AgentLoopOutput = await super().run(sampling_params, priority, **kwargs)
        finally:
            _session.reset(token)
        session.statistics.seconds += time.perf_counter() - begin
        session.statistics.finish(len(output.response_mask))
        return output

    async def _complete(
        self, output: AgentLoopOutput, session: TrajectorySession
    ) -> AgentLoopOutput | list[AgentLoopOutput]:
        """Say in `extra_fields` what the trainer and the log want to know."""
        origin = session.origin(output)
        statistics = session.statistics.to_dict()
        output.extra_fields.update({"saar": statistics, "token_origin": origin})
        if self._settings.record:
            # Decoding thousands of tokens would hold up the requests of all other trajectories.
            record = await asyncio.get_running_loop().run_in_executor(
                None,
                record_trajectory,
                self.tokenizer,
                output.prompt_ids,
                output.response_ids,
                output.response_mask,
                origin,
                session.repairs,
            )
            output.extra_fields["trajectory"] = {**record, "saar": statistics}
        if session.validate:
            output.extra_fields.update(
                {
                    ENDING_KEY: session.ending,
                    TURNS_KEY: session.turn + 1,
                    LOOKAHEAD_KEY: session.policy.active,
                }
            )
            return output
        if self._settings.save_negatives:
            output.extra_fields["negatives"] = negative_texts(self.tokenizer, output, session.repairs)
        rows = credit_rows(output, session.repairs, self._settings.credit_rows)
        if CreditRow.FAILING in self._settings.credit_rows:
            output.extra_fields["pairs"] = call_pairs(output, origin, session.repairs)
            output.extra_fields["paired_tokens"] = paired_tokens(output, origin, session.repairs)
        return [*rows, output] if rows else output

    async def ct_merge_assistant_token(
        self,
        runtime_token_ids: list[int],
        assistant_token_ids: list[int],
        response_mask: list[int],
        response_logprobs: list[float] | None = None,
        assistant_logprobs: list[float] | None = None,
    ) -> Any:
        """Upstream's, on the event loop: joining two lists takes less time than handing them to a thread."""
        builder = self.continuous_token_builder
        merged = builder.merge_assistant_tokens(runtime_token_ids, assistant_token_ids)
        mask, logprobs = builder.align_response_metadata(
            merged, response_mask, response_logprobs, assistant_logprobs=assistant_logprobs
        )
        return merged, mask, logprobs

    async def _handle_pending_state(
        self, agent_data: AgentData, sampling_params: dict[str, Any]
    ) -> AgentState:
        # Tools truncate their output in tokens.
        agent_data.tokenizer = self.tokenizer
        return await super()._handle_pending_state(agent_data, sampling_params)

    async def _handle_generating_state(
        self, agent_data: AgentData, sampling_params: dict[str, Any], ignore_termination: bool = False
    ) -> AgentState:
        session = _session.get()
        if session is None:
            return await ToolAgentLoop._handle_generating_state(
                self, agent_data, sampling_params, ignore_termination
            )
        session.begin_turn(agent_data, sampling_params)
        messages = len(agent_data.messages)
        state = await super()._handle_generating_state(
            agent_data, session.request_params(sampling_params), ignore_termination
        )
        session.statistics.sampled_tokens += len(agent_data.response_ids)
        if len(agent_data.messages) == messages:
            # A limit ended the trajectory before upstream looked for calls.
            session.ending = await self._limit_that_ended(agent_data) if session.validate else None
            return state
        session.located = not self._turn_reader.surely_sound(agent_data.response_ids, agent_data.tool_calls)
        if session.located:
            return await self._take_up_broken_calls(session, agent_data, state)
        # Where its calls are is looked up if one of them fails.
        session.turn_calls = [
            TurnCall(call, None) for call in agent_data.tool_calls[: self.max_parallel_calls]
        ]
        return state

    async def _take_up_broken_calls(
        self, session: TrajectorySession, agent_data: AgentData, state: AgentState
    ) -> AgentState:
        """Count the turn's calls that do not parse, and hand them on to be repaired where rollback is on."""
        tools = self._schemas_of(agent_data)
        calls = await self._turn_reader.read(agent_data.response_ids, agent_data.tool_calls, tools)
        counting = calls[: self.max_parallel_calls]
        broken = [call.format_outcome() for call in counting if call.problem is not None]
        session.turn_calls = [call for call in calls if call.problem is None][: self.max_parallel_calls]
        if not broken:
            return state
        if session.reaction(broken) == Reaction.GO_ON:
            for outcome in broken:
                session.statistics.count_call(outcome, lookahead=False)
            if state == AgentState.TERMINATED:
                session.ending = BROKEN_CALL
            return state
        session.turn_calls = counting
        agent_data.tool_calls = [call.call for call in calls]
        span = counting[0].span
        content_ids = agent_data.response_ids[: span.start if span else None]
        content = self.tokenizer.decode(content_ids)
        agent_data.messages[-1] = self._build_assistant_message(content, agent_data)
        return AgentState.PROCESSING_TOOLS

    async def _handle_processing_tools_state(self, agent_data: AgentData) -> AgentState:
        session = _session.get()
        if session is None:
            return await ToolAgentLoop._handle_processing_tools_state(self, agent_data)
        if session.policy.active:
            complete = await self._run_and_repair(session, agent_data)
            if complete is not None:
                return complete
        state = await super()._handle_processing_tools_state(agent_data)
        if state == AgentState.TERMINATED:
            # Upstream drops tools' messages that would fill the response length.
            session.ending = LENGTH
        return state

    async def _limit_that_ended(self, agent_data: AgentData) -> str | None:
        """None for an answer in the last turn that was allowed: it would have been the last turn anyhow."""
        if len(agent_data.response_mask) >= self.response_length:
            return LENGTH
        _, calls = await self.read_turn(agent_data.response_ids, agent_data)
        return TURNS if calls else None

    async def _run_and_repair(self, session: TrajectorySession, agent_data: AgentData) -> AgentState | None:
        """Run the turn's calls; if they fail, look ahead and put the repaired turn in place.

        Leaves results behind for upstream's handler to make tool messages of: the failing ones if nothing succeeded.

        Returns:
            The next state where the history is complete already, tools' messages included; None where it is not.
        """
        calls = session.turn_calls
        results = await self.run_calls(calls, agent_data, agent_data.metrics, lookahead=False)
        offer_results(agent_data, calls, results)
        outcomes = [result[2][OUTCOME_KEY] for result in results]
        if all(outcome.status == OK for outcome in outcomes):
            session.note_turn(failed=False)
            return None
        reaction = session.reaction(outcomes)
        if reaction != Reaction.ROLL_BACK:
            session.statistics.tolerated += reaction == Reaction.TOLERATE
            session.note_turn(failed=bool(session.policy.failing(outcomes)))
            return None
        if not session.located:
            located = await self._turn_reader.read(
                agent_data.response_ids, agent_data.tool_calls, self._schemas_of(agent_data)
            )
            calls = located[: self.max_parallel_calls]
        session.follow(agent_data)
        length = len(agent_data.response_ids)
        logprobs = session.trajectory.logprobs
        turn = Turn(
            ids=list(agent_data.response_ids),
            logprobs=None if logprobs is None else logprobs[len(logprobs) - length :],
            content="",
            calls=calls,
            results=results,
        )
        look_ahead = LookAhead(self, session, agent_data, turn)
        repair, replacement = await look_ahead.explore()
        if session.settings.keeps_repairs:
            session.repairs.append(repair)
        session.statistics.count_repair(repair)
        session.note_turn(failed=repair.decision == Decision.EXHAUSTED)
        if isinstance(replacement, RepairedTurn):
            self._put_in_place(session, agent_data, repair.start, replacement)
            session.statistics.replace_turn_calls(len(replacement.calls))
        elif excluded := look_ahead.excluded():
            session.exclude(repair.start, excluded)
            session.write_back(agent_data)
        if isinstance(replacement, KeptBranch):
            session.statistics.keep_lookahead_calls(replacement.outcomes)
            return self._adopt(session, agent_data, replacement)
        return None

    def _put_in_place(
        self, session: TrajectorySession, agent_data: AgentData, start: int, repaired: RepairedTurn
    ) -> None:
        """Replace the last turn: tokens, message, calls and results together."""
        session.trajectory.splice(start, len(session.trajectory), repaired.graft.pieces)
        session.write_back(agent_data)
        agent_data.response_ids = repaired.graft.ids
        agent_data.tool_calls = [call.call for call in repaired.calls]
        agent_data.messages[-1] = self._build_assistant_message(repaired.content, agent_data)
        offer_results(agent_data, repaired.calls, repaired.results)
        agent_data.extra_fields.update(repaired.extra_fields)
        if (max_global_steps := repaired.server_fields.get("max_global_steps")) is not None:
            agent_data.extra_fields["max_global_steps"] = max_global_steps
        if agent_data.routed_experts is not None:
            # Routing is known up to the frozen prefix; the next request reports the rest anew.
            prefix = len(agent_data.prompt_ids) - len(agent_data.response_mask) + start
            agent_data.routed_experts = agent_data.routed_experts[:prefix]

    def _adopt(self, session: TrajectorySession, agent_data: AgentData, kept: KeptBranch) -> AgentState:
        """Make a branch the history: every token of it was sampled where it stands."""
        branch = kept.branch
        for name in (
            "messages", "image_data", "prompt_ids", "response_ids", "response_mask", "response_logprobs",
            "turn_scores", "tool_rewards", "tool_calls", "user_turns", "assistant_turns",
        ):  # fmt: skip
            setattr(agent_data, name, getattr(branch, name))
        agent_data.extra_fields.update(branch.extra_fields)
        if kept.answer is not None:
            if (max_global_steps := kept.answer.extra_fields.get("max_global_steps")) is not None:
                agent_data.extra_fields["max_global_steps"] = max_global_steps
            if kept.answer.routed_experts is not None:
                agent_data.routed_experts = kept.answer.routed_experts
        session.turn += len(kept.attempts)
        if kept.full:
            session.ending = LENGTH
        session.follow(agent_data)
        return AgentState.TERMINATED if kept.full else AgentState.GENERATING

    async def run_calls(
        self, calls: Sequence[TurnCall], agent_data: AgentData, metrics: dict[str, Any], *, lookahead: bool
    ) -> list[CallResult]:
        """Run calls concurrently; those that did not parse give their format error.

        Args:
            agent_data: the history in which they were made; tools see it.
            metrics: where the time is added.
        """
        begin = time.perf_counter()
        if len(calls) == 1:
            # No task of its own, which would cost more than all else that is done here about a call.
            results = [await self._run_call(calls[0], agent_data, lookahead)]
        else:
            results = await asyncio.gather(*(self._run_call(call, agent_data, lookahead) for call in calls))
        metrics["tool_calls"] = metrics.get("tool_calls", 0.0) + time.perf_counter() - begin
        return results

    async def _run_call(self, call: TurnCall, agent_data: AgentData, lookahead: bool) -> CallResult:
        if call.problem is None:
            result = await self._observed_call(call.call, agent_data.tools_kwargs, agent_data)
        else:
            outcome = call.format_outcome()
            result = ToolResponse(text=outcome.text), 0.0, {OUTCOME_KEY: outcome}
        if (session := _session.get()) is not None:
            session.statistics.count_call(result[2][OUTCOME_KEY], lookahead=lookahead)
        return result

    async def read_turn(self, ids: list[int], agent_data: AgentData) -> tuple[str, list[TurnCall]]:
        """Text beside the calls, and the calls that count, of a turn."""
        tools = self._schemas_of(agent_data)
        content, parsed = await self.tool_parser.extract_tool_calls(ids, tools)
        calls = await self._turn_reader.read(ids, parsed, tools)
        return content, calls[: self.max_parallel_calls]

    def _schemas_of(self, agent_data: AgentData) -> list[Any]:
        return [tool.tool_schema for tool in self._active_tools_of(agent_data).values()]

    def _active_tools_of(self, agent_data: AgentData) -> dict[str, Any]:
        # Set where a row of the dataset selects its tools.
        selected: dict[str, Any] | None = getattr(agent_data, "_active_tools", None)
        return self.tools if selected is None else selected

    async def _call_tool(
        self, tool_call: FunctionCall, tools_kwargs: dict[str, Any], agent_data: AgentData
    ) -> CallResult:
        """Upstream's `_call_tool` with a `ToolOutcome` under "outcome" in its third value.

        A call whose result is known already is not run again.
        """
        results: dict[int, CallResult] = getattr(agent_data, "cleaner_results", None) or {}
        if id(tool_call) in results:
            return results[id(tool_call)]
        result = await CleanerAgentLoop._observed_call(self, tool_call, tools_kwargs, agent_data)
        if (session := _session.get()) is not None:
            session.statistics.count_call(result[2][OUTCOME_KEY], lookahead=False)
        return result

    async def _observed_call(
        self, tool_call: FunctionCall, tools_kwargs: dict[str, Any], agent_data: AgentData
    ) -> CallResult:
        session = _session.get()
        observation = Observation(strict=session is not None and session.policy.active)
        token = OBSERVATION.set(observation)
        try:
            response, reward, metrics = await ToolAgentLoop._call_tool(
                self, tool_call, tools_kwargs, agent_data
            )
        finally:
            OBSERVATION.reset(token)
        # A lone surrogate, which a call's JSON may hold and an error message repeat, is nothing that can be tokenised.
        text = (response.text or "").encode("utf-8", "backslashreplace").decode()
        outcome = outcome_of(metrics, text, observation.error)
        if not observation.reached or observation.misfit:
            # An unknown tool, no JSON, or arguments that the tool was not written for.
            outcome = ToolOutcome(FORMAT_ERROR, outcome.exception, text)
        if outcome.text != (response.text or ""):
            response = response.model_copy(update={"text": outcome.text})
        metrics = metrics if isinstance(metrics, dict) else {}
        return response, reward, {**metrics, OUTCOME_KEY: outcome}


# The worker asks for a loop for every trajectory, always with the same parts. All that belongs to a trajectory is in
# `AgentData` and in the session, so one loop serves them all; making it costs as much as half a turn.
_latest: tuple[tuple[Any, ...], CleanerAgentLoop] | None = None


@register("cleaner_agent")
def cleaner_agent(**parts: Any) -> CleanerAgentLoop:
    """The agent loop for the worker's `parts` (see `ToolAgentLoop`): the latest one if they are the same objects."""
    global _latest
    tools = parts.get("tools")
    key = (
        parts["trainer_config"].config,
        *(
            parts[name]
            for name in ("server_manager", "tokenizer", "processor", "dataset_cls", "hf_model_type")
        ),
        tools.tools if tools else None,
        get_event_loop(),
    )
    if _latest is None or any(old is not new for old, new in zip(_latest[0], key, strict=True)):
        _latest = key, CleanerAgentLoop(**parts)
    return _latest[1]
