"""Branches off the main history: where the model corrects itself without the history being touched.

A branch starts from copies: it changes neither messages, tokens, counters nor images of the main history. Its tokens
are what an unedited history would be, tools' messages included, merged by verl's Continuous Token builder like any
other; a branch can therefore become the history. It uses the trajectory's `request_id`, so that the same server's
prefix cache serves it.

A tool's effects on the outside world are not undone: a tool with lasting effects sees every attempt.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from verl.experimental.agent_loop.tool_agent_loop import AgentData, AgentState, ToolAgentLoop
from verl.workers.rollout.replica import TokenOutput

from cleaner.sampled_turn import CallResult, Turn, offer_results
from cleaner.turn_calls import TurnCall


class LoopParts(Protocol):
    """What look-aheads use of the agent loop."""

    max_parallel_calls: int
    max_assistant_turns: int | None
    max_user_turns: int | None
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
class Attempt:
    """One correction: the turn, the branch that ends with it, what the server answered, and to how many tokens."""

    turn: Turn
    branch: AgentData
    answer: TokenOutput
    prompt_tokens: int


def fork(agent_data: AgentData) -> AgentData:
    """A copy whose changes the original does not see. Token lists are shared: verl's builder replaces them whole."""
    branch = copy.copy(agent_data)
    branch.messages = list(agent_data.messages)
    branch.turn_scores = list(agent_data.turn_scores)
    branch.tool_rewards = list(agent_data.tool_rewards)
    branch.extra_fields = dict(agent_data.extra_fields)
    branch.metrics = {}
    if isinstance(agent_data.image_data, list):
        branch.image_data = list(agent_data.image_data)
    return branch


class BranchSampler:
    """Extends branches by turns of the model and messages of the tools."""

    def __init__(self, loop: LoopParts) -> None:
        self._loop = loop

    async def observe(self, branch: AgentData, turn: Turn) -> bool:
        """Append the tools' messages to the branch that ends with `turn`; False if they fill the response length."""
        branch.tool_calls = [call.call for call in turn.calls]
        offer_results(branch, turn.calls, turn.results)
        state = await ToolAgentLoop._handle_processing_tools_state(self._loop, branch)
        return bool(state != AgentState.TERMINATED)

    async def sample(self, branch: AgentData, params: dict[str, Any]) -> Attempt:
        """One turn of the model behind `branch`, which stays as it is.

        Args:
            params: sampling parameters of this request, `max_tokens` among them.
        """
        if self._loop.tool_parser.stop_token_ids:
            known = params.get("stop_token_ids") or []
            params["stop_token_ids"] = list({*known, *self._loop.tool_parser.stop_token_ids})
        output = await self.request(branch, branch.prompt_ids, params)
        ids = list(output.token_ids[: params["max_tokens"]])
        content, calls = await self._loop.read_turn(ids, branch)
        logprobs = list(output.log_probs[: len(ids)]) if output.log_probs else None
        turn = Turn(ids, logprobs, content, calls)
        return Attempt(turn, await self.extend(branch, turn), output, len(branch.prompt_ids))

    async def request(self, branch: AgentData, prompt_ids: list[int], params: dict[str, Any]) -> TokenOutput:
        """Ask the server for a continuation of `prompt_ids`, with the branch's images, videos and sounds."""
        output: TokenOutput = await self._loop.server_manager.generate(
            request_id=branch.request_id,
            prompt_ids=prompt_ids,
            sampling_params=params,
            image_data=branch.image_data,
            video_data=branch.video_data,
            mm_processor_output=branch.mm_processor_output,
            audio_data=branch.audio_data,
            mm_processor_kwargs=branch.mm_processor_kwargs,
        )
        return output

    async def extend(self, base: AgentData, turn: Turn) -> AgentData:
        """A branch that continues `base` with `turn`."""
        branch = fork(base)
        merged, mask, logprobs = await self._loop.ct_merge_assistant_token(
            base.prompt_ids,
            turn.ids,
            base.response_mask,
            base.response_logprobs if (base.response_logprobs or turn.logprobs) else None,
            assistant_logprobs=turn.logprobs,
        )
        branch.prompt_ids, branch.response_mask = merged.token_ids, mask
        branch.response_logprobs = logprobs or []
        branch.response_ids = turn.ids
        branch.assistant_turns += 1
        branch.tool_calls = [call.call for call in turn.calls]
        branch.messages.append(self._loop._build_assistant_message(turn.content, branch))
        return branch
