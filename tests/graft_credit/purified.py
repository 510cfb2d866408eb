"""Purified trajectories of the quick start's model: real prompts, server, tokenizer and agent loop.

Only the tool is scripted: it fails the first call of every trajectory that reaches it, and accepts all later ones.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, DictConfigWrap, ToolListWrap
from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.replica import TokenOutput

from cleaner.agent_loop import CleanerAgentLoop
from cleaner.cpu.options import HFServerOptions
from cleaner.cpu.server import HFServer
from cleaner.data.make_rows import row
from cleaner.data.tasks import draw_splits, select_tasks
from cleaner.saar.outcome import ToolOutcome
from cleaner.saar.trajectory import Origin
from cleaner.tools.outcomes import OUTCOME_KEY

MODEL = Path(__file__).parents[2] / "recipe/cleaner/quickstart/model"
ERROR = "NameError: name 'x' is not defined"
LENGTHS = {"prompt_length": 192, "response_length": 512}


def make_config(saar: dict[str, Any]) -> Any:
    """A run configuration with rollback on, as far as the agent loop reads it."""
    multi_turn = {
        "max_user_turns": 4,
        "max_assistant_turns": 5,
        "max_parallel_calls": 1,
        "max_tool_response_length": 512,
        "tool_response_truncate_side": "middle",
        "format": "hermes",
    }
    rollout = {"name": "hf_server", **LENGTHS, "full_determinism": True, "multi_turn": multi_turn}
    return OmegaConf.create(
        {
            "actor_rollout_ref": {"rollout": rollout},
            "data": {"apply_chat_template_kwargs": {}},
            "cleaner": {"strategy": "saar", "seed": 1, "record": True, "saar": saar},
        }
    )


def make_server() -> HFServer:
    """The rollout server with the model's own weights, in float64."""
    return HFServer(
        RolloutConfig(
            name="hf_server", **LENGTHS, tensor_model_parallel_size=1, load_format="auto", free_cache_engine=False,
            max_num_seqs=32,
        ),
        HFModelConfig(path=str(MODEL)),
        HFServerOptions(dtype="float64"),
        awaits_weights=False,
    )  # fmt: skip


@dataclass
class Request:
    """One request and its answer."""

    prompt: list[int]
    answer: list[int]
    log_probs: list[float]


@dataclass
class SpiedServer:
    """Hands requests on to the real server as verl's client does, and keeps those of one trajectory."""

    server: HFServer
    requests: list[Request] = field(default_factory=list)

    async def generate(self, request_id: str, **arguments: Any) -> TokenOutput:
        output = await self.server.generate(request_id=request_id, **arguments)
        steps = output.extra_fields["global_steps"]
        output.extra_fields.update(min_global_steps=steps, max_global_steps=steps)
        made = Request(list(arguments["prompt_ids"]), list(output.token_ids), list(output.log_probs))
        self.requests.append(made)
        return output


class FirstCallFails(BaseTool):
    """See the module's text. One instance serves one trajectory."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.name = "code_interpreter"
        parameters = {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "Python source code"}},
            "required": ["code"],
        }
        function = {
            "name": self.name,
            "description": "Run Python code and return what it prints.",
            "parameters": parameters,
        }
        self.tool_schema = OpenAIFunctionToolSchema.model_validate({"type": "function", "function": function})
        self.calls = 0

    async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
        self.calls += 1
        failed = ToolOutcome("program_error", "NameError", ERROR)
        outcome = failed if self.calls == 1 else ToolOutcome("ok", None, "42")
        return ToolResponse(text=outcome.text), 0.0, {OUTCOME_KEY: outcome}


@dataclass
class Purified:
    """A trajectory, and the requests that made it."""

    output: AgentLoopOutput
    requests: list[Request]

    @property
    def prompt(self) -> list[int]:
        return self.output.prompt_ids

    @property
    def response(self) -> list[int]:
        return self.output.response_ids

    @property
    def log_probs(self) -> list[float]:
        assert self.output.response_logprobs is not None
        return self.output.response_logprobs

    @property
    def origin(self) -> list[int]:
        return self.output.extra_fields["token_origin"]

    @property
    def statistics(self) -> dict[str, Any]:
        return self.output.extra_fields["saar"]

    @property
    def repairs(self) -> list[dict[str, Any]]:
        return self.output.extra_fields["trajectory"]["repairs"]

    @cached_property
    def grafts(self) -> list[tuple[int, int]]:
        """Ranges of response positions that were grafted."""
        bounds = [Origin.OBSERVATION, *self.origin, Origin.OBSERVATION]
        steps = list(enumerate(pairwise(bounds)))
        begins = [i for i, (before, here) in steps if before != here == Origin.GRAFTED]
        ends = [i for i, (before, here) in steps if here != before == Origin.GRAFTED]
        return list(zip(begins, ends, strict=True))

    def sampled_after(self, start: int, stop: int) -> list[int]:
        """The context in which tokens [start, stop) were sampled: of the one request that answered with just them."""
        tokens, log_probs = self.response[start:stop], self.log_probs[start:stop]
        found = [
            request.prompt + request.answer[:i]
            for request in self.requests
            for i in range(len(request.answer))
            if request.answer[i : i + len(tokens)] == tokens
            and request.log_probs[i : i + len(tokens)] == log_probs
        ]
        [context] = found
        return context


def purified(server: HFServer, prompts: int, seed: int = 0, **saar: Any) -> list[Purified]:
    """One trajectory of each of `prompts` real prompts at temperature 1.

    Args:
        saar: settings of the rollback. `gamma` 0 makes every repair shallow; 1 makes all deep but those whose call is
            the failed one again.
    """
    config = make_config(saar)
    tokenizer = HFModelConfig(path=str(MODEL)).tokenizer
    problems, _ = draw_splits(select_tasks(None), prompts, 1, seed)
    rows = [row(problem, index, "train") for index, problem in enumerate(problems)]

    async def make(number: int) -> Purified:
        chosen, spied = rows[number], SpiedServer(server)
        loop = CleanerAgentLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=spied,
            tokenizer=tokenizer,
            processor=None,
            dataset_cls=RLHFDataset,
            data_config=DictConfigWrap(config.data),
            hf_model_type="qwen2",
            tools=ToolListWrap([FirstCallFails()]),
        )
        output = await loop.run(
            {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "logprobs": True},
            raw_prompt=chosen["prompt"],
            global_steps=1,
            index=chosen["extra_info"]["index"],
            session_id=0,
        )
        assert isinstance(output, AgentLoopOutput)
        return Purified(output, spied.requests)

    async def make_all() -> list[Purified]:
        return await asyncio.gather(*[make(number) for number in range(prompts)])

    return asyncio.run(make_all())
