"""Trajectories without a model, for benchmarks of the agent loop: a server that answers at once, from a script.

Everything but the model is real: verl's agent loop or ours, the quick start's tokenizer and chat template, verl's tool
parser. Answers arrive as fresh objects, as they do from another process. They are tokenised beforehand, so that the
server's share is one copy of the answer.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopOutput,
    DictConfigWrap,
    ToolListWrap,
    _agent_loop_registry,
)
from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.replica import TokenOutput

import cleaner.agent_loop  # noqa: F401  registers our loop
from cleaner.saar.outcome import PROGRAM_ERROR, ToolOutcome

TOKENIZER = Path(__file__).resolve().parent.parent / "recipe" / "cleaner" / "quickstart" / "model"
RESPONSE_TOKENS = 20_480
PROMPT = [
    {"role": "user", "content": "What is the sum of the squares of the odd numbers among 3, 5, 8 and 11?"}
]
SENTENCE = " I look at the numbers, write a short program for them and let it print what is asked for."
# What `ScriptedTool` fails on.
ERROR = "undefined_total"
# K, corrections of a failing turn; the default of `cleaner.saar.max_retries`.
CORRECTIONS = 3

SOUND = "numbers = [3, 5, 8, 11]\ntotal = 0\nfor n in numbers:\n    if n % 2:\n        total += n * n\nprint(total)"
FAILING = SOUND.replace("print(total)", f"print({ERROR})")
STILL_FAILING = SOUND.replace("total = 0", f"total = {ERROR}")
# Another program, so that the repair is deep: its similarity to FAILING is below 0.5.
REWRITTEN = (
    "import math\nodd = filter(lambda x: x & 1, (3, 5, 8, 11))\nprint(int(math.fsum(x ** 2 for x in odd)))"
)

SCHEMA = OpenAIFunctionToolSchema.model_validate(
    {
        "type": "function",
        "function": {
            "name": "code_interpreter",
            "description": "Run Python code and return what it prints.",
            "parameters": {
                "type": "object",
                "properties": {"code": {"type": "string", "description": "Python source code"}},
                "required": ["code"],
            },
        },
    }
)


@cache
def load_tokenizer() -> Any:
    """The quick start's tokenizer; it has the markers of a call as tokens."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    tokenizer.model_max_length = 10**9  # no warning about lengths that the small model could not take
    return tokenizer


def call_text(code: str) -> str:
    """A Hermes call of the scripted tool."""
    arguments = {"name": SCHEMA.function.name, "arguments": {"code": code}}
    return f"<tool_call>\n{json.dumps(arguments)}\n</tool_call>"


@dataclass(frozen=True)
class Script:
    """What the model says in a trajectory: calls in all turns but the last, which is the answer.

    Attributes:
        turns: assistant turns of a trajectory, corrections not counted.
        turn_tokens: tokens of each turn, reasoning included; `answer_tokens`: of the last one, None: as many.
        failing: share of calls that fail.
        recovered: share of failing calls that the first correction repairs; half of these repairs are shallow. Where
            it does not, no correction does.
        seed: of the draws; a trajectory's draws depend on its number only, not on who asks.
    """

    turns: int = 8
    turn_tokens: int = 200
    answer_tokens: int | None = None
    failing: float = 0.0
    recovered: float = 0.62
    seed: int = 1

    @cached_property
    def _answers(self) -> dict[str, tuple[array[int], array[float]]]:
        tokenizer = load_tokenizer()
        reasoning = tokenizer.encode(SENTENCE * (self.turn_tokens // 20 + 1))
        answers = {}
        endings = {code: call_text(code) for code in (SOUND, FAILING, STILL_FAILING, REWRITTEN)}
        for name, ending in {**endings, "answer": "The answer is 155."}.items():
            end = tokenizer.encode(ending + "<|im_end|>")
            length = self.turn_tokens
            if name == "answer" and self.answer_tokens is not None:
                length = self.answer_tokens
            if len(end) > length:
                raise ValueError(f"a turn of {length} tokens, but its end alone takes {len(end)}")
            ids = array("q", reasoning[: length - len(end)] + end)
            answers[name] = ids, array("d", (-1e-3 * (i + 1) for i in range(len(ids))))
        return answers

    def requests(self, trajectory: int, corrections: int) -> list[str]:
        """Names of the answers in the order in which a loop that tries `corrections` asks for them."""
        draw = random.Random(f"{self.seed}/{trajectory}").random
        names: list[str] = []
        for _ in range(self.turns - 1):
            fails, repaired, rewritten = draw() < self.failing, draw() < self.recovered, draw() < 0.5
            names.append(FAILING if fails else SOUND)
            if fails and corrections and repaired:
                names.append(REWRITTEN if rewritten else SOUND)
            elif fails:
                names += [STILL_FAILING] * corrections
        return [*names, "answer"]

    def answer(self, name: str) -> tuple[list[int], list[float]]:
        """Fresh tokens and log-probabilities of an answer."""
        ids, logprobs = self._answers[name]
        return ids.tolist(), logprobs.tolist()


class ScriptedServer:
    """Gives each trajectory the next answer of its script, without waiting.

    Attributes:
        requests: how many were answered.
        gate: where every trajectory's last request waits, if set.
    """

    def __init__(self, script: Script, corrections: int) -> None:
        self._script = script
        self._corrections = corrections
        self._scripts: dict[str, Iterator[str]] = {}
        self.requests = 0
        self.gate: asyncio.Barrier | None = None

    async def generate(
        self, request_id: str, *, prompt_ids: Any, sampling_params: Any, **kwargs: Any
    ) -> TokenOutput:
        names = self._scripts.get(request_id)
        if names is None:
            number = int(request_id.removeprefix("det-"))
            names = self._scripts[request_id] = iter(self._script.requests(number, self._corrections))
        self.requests += 1
        name = next(names, None)
        if name is None:
            raise AssertionError(f"{request_id} asks for more than its script holds")
        if name == "answer" and self.gate is not None:
            await self.gate.wait()
        ids, logprobs = self._script.answer(name)
        return TokenOutput(token_ids=ids, log_probs=logprobs, num_preempted=0, extra_fields={})

    def check_finished(self) -> None:
        """Every trajectory that was begun asked for all that its script holds, and for nothing else."""
        left = sum(len(list(names)) for names in self._scripts.values())
        if left:
            raise AssertionError(f"{left} scripted answers were not asked for")
        self._scripts.clear()


class ScriptedTool(BaseTool):
    """Answers at once; code that holds `ERROR` fails with a NameError."""

    def __init__(self) -> None:
        self.config, self.tool_schema, self.name = {}, SCHEMA, SCHEMA.function.name

    async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
        if ERROR not in parameters["code"]:
            return ToolResponse(text="155"), None, {}
        text = f"Traceback (most recent call last):\n  line 6\nNameError: name {ERROR!r} is not defined"
        return ToolResponse(text=text), None, {"outcome": ToolOutcome(PROGRAM_ERROR, "NameError", text)}


async def settle() -> None:
    """Let the event loop drop what it still holds of tasks that are done, and collect garbage."""
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()


class Rollout:
    """Makes the trajectories of a script as verl's worker does, which asks for a loop for each of them.

    The worker calls what is registered through `hydra.utils.instantiate`. That takes 1.7 ms for either loop and would
    only hide what they do, so it is left out here.

    Args:
        script: what the model says.
        rollback: None: upstream's loop; else ours, rollback on or off.
        record: keep records of the repairs.
        corrections: K.
    """

    def __init__(
        self, script: Script, rollback: bool | None, *, record: bool = False, corrections: int = CORRECTIONS
    ) -> None:
        self.server = ScriptedServer(script, corrections if rollback else 0)
        name = "tool_agent" if rollback is None else "cleaner_agent"
        self._make_loop = hydra.utils.get_object(_agent_loop_registry[name]["_target_"])
        self._config = make_config(rollback, record, corrections)
        self._tokenizer = load_tokenizer()
        self._tools = [ScriptedTool()]

    async def trajectory(self, number: int) -> AgentLoopOutput:
        """Make trajectory `number` of the script."""
        loop = self._make_loop(
            trainer_config=DictConfigWrap(self._config),
            server_manager=self.server,
            tokenizer=self._tokenizer,
            processor=None,
            dataset_cls=RLHFDataset,
            data_config=DictConfigWrap(self._config.data),
            hf_model_type="qwen2",
            tools=ToolListWrap(self._tools),
        )
        row = {"raw_prompt": PROMPT, "global_steps": 1, "index": number, "session_id": 0}
        return await loop.run({"temperature": 1.0, "top_p": 1.0, "logprobs": True}, priority=number, **row)


def make_config(rollback: bool | None, record: bool, corrections: int) -> Any:
    """The run configuration as far as the agent loop reads it. `full_determinism` names requests by their priority."""
    config: dict[str, Any] = {
        "actor_rollout_ref": {
            "rollout": {
                "name": "scripted",
                "prompt_length": 1024,
                "response_length": 2 * RESPONSE_TOKENS,
                "full_determinism": True,
                "multi_turn": {
                    "max_user_turns": None,
                    "max_assistant_turns": None,
                    "max_parallel_calls": 1,
                    "max_tool_response_length": 4096,
                    "tool_response_truncate_side": "middle",
                    "format": "hermes",
                },
            }
        },
        "data": {"apply_chat_template_kwargs": {}},
    }
    if rollback is not None:
        config["cleaner"] = {
            "seed": 1,
            "record": record,
            "strategy": "saar" if rollback else "none",
            "saar": {"max_retries": corrections},
        }
    return OmegaConf.create(config)
