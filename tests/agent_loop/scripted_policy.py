"""Agent loops without a model: a server that follows a script, a small real tokenizer, a scripted tool."""

import asyncio
import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, DictConfigWrap, ToolListWrap
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop
from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.replica import TokenOutput

from cleaner.agent_loop import CleanerAgentLoop
from cleaner.saar.outcome import ToolOutcome
from cleaner.token_bytes import _byte_level_alphabet

PROMPT = [{"role": "user", "content": "2+2?"}]
IM_END = "<|im_end|>"
# Merges that let tokens straddle the markers' edges, and split characters of three and four bytes.
MERGES = [
    ("Ċ", "<"),
    ("l", ">"),
    (">", "Ċ"),
    ("o", "k"),
    ("p", "r"),
    ("pr", "i"),
    ("Ġ", "="),
    ("Ń", "ĩ"),
    ("ð", "Ł"),
]
TEMPLATE = (
    "{%- for m in messages -%}"
    "{%- if m.role == 'tool' -%}"
    "{{ '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}"
    "{%- else -%}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


@lru_cache
def make_tokenizer(marker_tokens: bool) -> PreTrainedTokenizerFast:
    """Byte-level BPE over all bytes with a few merges; with `marker_tokens` the markers are one token each."""
    vocabulary = {character: index for index, character in enumerate(sorted(_byte_level_alphabet()))}
    for left, right in MERGES:
        vocabulary.setdefault(left + right, len(vocabulary))
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", IM_END)])
    if marker_tokens:
        core.add_tokens(
            [AddedToken(t, special=False, normalized=False) for t in ("<tool_call>", "</tool_call>")]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=IM_END, pad_token="<|endoftext|>", chat_template=TEMPLATE
    )


def call(code: str, name: str = "run") -> str:
    """A Hermes call of the scripted tool."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': {'code': code}}, ensure_ascii=False)}\n</tool_call>"


def turn(reasoning: str, *codes: str) -> str:
    return reasoning + "\n".join(call(code) for code in codes) + IM_END


@dataclass
class Request:
    request_id: str
    prompt_ids: list[int]
    sampling_params: dict[str, Any]
    output_ids: list[int] = field(default_factory=list)


class ScriptedServer:
    """Answers request i with `script[i]`: text, or (text, extra_fields); the last answer is repeated.

    Every token that it emits gets a log-probability of its own, so that a value found later says where it comes from.
    """

    def __init__(
        self,
        tokenizer: Any,
        script: Sequence[str] | Callable[[Request], str],
        *,
        logprobs: bool = True,
        routing: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._script = script
        self._logprobs = logprobs
        self._routing = routing
        self.requests: list[Request] = []
        self.emitted: dict[float, int] = {}

    async def generate(
        self, request_id: str, *, prompt_ids: Any, sampling_params: Any, **kwargs: Any
    ) -> TokenOutput:
        request = Request(request_id, list(prompt_ids), copy.deepcopy(sampling_params))
        text = (
            self._script(request)
            if callable(self._script)
            else self._script[min(len(self.requests), len(self._script) - 1)]
        )
        self.requests.append(request)
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        limit = sampling_params.get("max_tokens")
        if limit is not None:
            assert limit > 0, "asked for no tokens"
            ids = ids[:limit]
        request.output_ids = ids
        logprobs = []
        for token in ids:
            value = -1e-3 * (len(self.emitted) + 1)
            self.emitted[value] = token
            logprobs.append(value)
        step = len(self.requests)
        return TokenOutput(
            token_ids=list(ids),
            log_probs=logprobs if self._logprobs else None,
            num_preempted=0,
            routed_experts=np.zeros((len(prompt_ids) + len(ids), 1, 1)) if self._routing else None,
            extra_fields={"global_steps": 5, "min_global_steps": 5, "max_global_steps": 5 + step},
        )


SCHEMA = OpenAIFunctionToolSchema.model_validate(
    {
        "type": "function",
        "function": {
            "name": "run",
            "description": "run it",
            "parameters": {
                "type": "object",
                "properties": {"code": {"type": "string", "description": "code"}},
                "required": ["code"],
            },
        },
    }
)


class ScriptedTool(BaseTool):
    """What the first word of its code says: fail NameError, slow, down, raise, long; anything else is fine."""

    def __init__(self) -> None:
        self.config, self.tool_schema, self.name = {}, SCHEMA, "run"
        self.ran: list[str] = []
        self.violations: list[AssertionError] = []

    async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
        code = parameters["code"]
        self.ran.append(code)
        agent_data = kwargs["agent_data"]
        if hasattr(agent_data, "tokenizer"):
            # The loop turns what a tool raises into text, so the verdict is kept for the end.
            try:
                assert_messages_tell_the_tokens(agent_data)
            except AssertionError as error:
                self.violations.append(error)
        if hasattr(agent_data, "extra_fields"):
            agent_data.extra_fields["last_code"] = code
        word, _, rest = code.partition(" ")
        if word == "raise":
            raise RuntimeError(rest)
        outcome = {
            "fail": ToolOutcome("program_error", rest.split()[0] if rest else "ValueError", f"Error: {rest}"),
            "long": ToolOutcome("ok", None, "x" * 500),
            "slow": ToolOutcome("timeout", None, "TimeoutError"),
            "down": ToolOutcome("infrastructure", None, "unavailable", retryable=True),
        }.get(word, ToolOutcome("ok", None, f"result of {code}"))
        return ToolResponse(text=outcome.text), 0.5, {"outcome": outcome, "other": 1}


def assert_messages_tell_the_tokens(agent_data: Any) -> None:
    """`messages` and token ids hold the same history: as many turns, with the same calls and observations."""
    text = agent_data.tokenizer.decode(agent_data.prompt_ids)
    response = text.split("<|im_start|>assistant\n", 1)[1]
    told = [m for m in agent_data.messages if m["role"] in ("assistant", "tool")]
    for message in told:
        if message["role"] == "tool":
            shown = f"<tool_response>\n{message['content']}\n</tool_response>"
            assert shown in response
            response = response.split(shown, 1)[1]
        else:
            said, _, after = response.partition("<|im_start|>user\n")
            for made in message["tool_calls"]:
                arguments = made["function"]["arguments"]
                code = arguments.get("code") if isinstance(arguments, dict) else arguments
                assert code is None or str(code) in said or json.dumps(code)[1:-1] in said
            assert "<tool_response>" not in said
            response = after
    assert "assistant" not in response, "tokens of turns that the messages lack"


def observation(*texts: str) -> str:
    """What stands in the history between an assistant turn that ended properly and the next one."""
    tools = "".join(
        f"<|im_start|>user\n<tool_response>\n{text}\n</tool_response>{IM_END}\n" for text in texts
    )
    return f"\n{tools}<|im_start|>assistant\n"


def make_config(
    saar: dict[str, Any] | None = None, *, cleaner: dict[str, Any] | None = None, **rollout: Any
) -> Any:
    multi_turn = {
        "max_user_turns": None,
        "max_assistant_turns": 12,
        "max_parallel_calls": 1,
        "max_tool_response_length": 4096,
        "tool_response_truncate_side": "middle",
        "format": "hermes",
    }
    multi_turn.update({key: rollout.pop(key) for key in list(rollout) if key in multi_turn})
    config: dict[str, Any] = {
        "actor_rollout_ref": {
            "rollout": {
                "name": "scripted",
                "prompt_length": 512,
                "response_length": 20_000,
                "full_determinism": True,
                "multi_turn": multi_turn,
                **rollout,
            }
        },
        "data": {"apply_chat_template_kwargs": {}},
    }
    if saar is not None or cleaner is not None:
        config["cleaner"] = {"seed": 1, "record": False, **(cleaner or {}), "saar": saar or {}}
    return OmegaConf.create(config)


@dataclass
class Run:
    output: AgentLoopOutput
    server: ScriptedServer
    tool: ScriptedTool
    tokenizer: Any

    @property
    def text(self) -> str:
        return self.tokenizer.decode(self.output.response_ids)

    @property
    def saar(self) -> dict[str, Any]:
        return self.output.extra_fields["saar"]

    @property
    def repairs(self) -> list[dict[str, Any]]:
        return self.output.extra_fields["trajectory"]["repairs"]

    def segments(self) -> list[tuple[int, str]]:
        """Runs of one origin with their text."""
        found: list[tuple[int, list[int]]] = []
        for token, origin in zip(
            self.output.response_ids, self.output.extra_fields["token_origin"], strict=True
        ):
            if not found or found[-1][0] != origin:
                found.append((origin, []))
            found[-1][1].append(token)
        return [(origin, self.tokenizer.decode(ids)) for origin, ids in found]


def run_script(
    script: Sequence[str] | Callable[[Request], str],
    saar: dict[str, Any] | None = None,
    *,
    loop_class: type[ToolAgentLoop] = CleanerAgentLoop,
    marker_tokens: bool = True,
    logprobs: bool = True,
    routing: bool = False,
    cleaner: dict[str, Any] | None = None,
    sampling_params: dict[str, Any] | None = None,
    run_kwargs: dict[str, Any] | None = None,
    tools: list[Any] | None = None,
    **rollout: Any,
) -> Run:
    """Make one trajectory of `script`."""
    tokenizer = make_tokenizer(marker_tokens)
    config = make_config(saar, cleaner=cleaner, **rollout)
    server = ScriptedServer(tokenizer, script, logprobs=logprobs, routing=routing)
    tool = ScriptedTool()

    async def make() -> AgentLoopOutput:
        loop = loop_class(
            trainer_config=DictConfigWrap(config),
            server_manager=server,
            tokenizer=tokenizer,
            processor=None,
            dataset_cls=RLHFDataset,
            data_config=DictConfigWrap(config.data),
            hf_model_type="qwen2",
            tools=ToolListWrap([tool, *(tools or [])]),
        )
        kwargs = {"raw_prompt": PROMPT, "global_steps": 3, "index": 7, "session_id": 0, **(run_kwargs or {})}
        return await loop.run(dict(sampling_params or {"temperature": 1.0}), **kwargs)

    run = Run(asyncio.run(make()), server, tool, tokenizer)
    if tool.violations:
        raise tool.violations[0]
    return run


def rolled_back(script: Any, saar: dict[str, Any] | None = None, **kwargs: Any) -> Run:
    """`run_script` with rollback on and a record."""
    cleaner = {"strategy": "saar", "record": True, **kwargs.pop("cleaner", {})}
    return run_script(script, saar or {}, cleaner=cleaner, **kwargs)


def assert_aligned(run: Run) -> None:
    """The invariants that hold after every path."""
    output = run.output
    origin = output.extra_fields["token_origin"]
    assert len(output.response_ids) == len(output.response_mask) == len(origin)
    assert output.response_mask == [int(value in (1, 2)) for value in origin]
    if output.response_logprobs is None:
        return
    assert len(output.response_logprobs) == len(output.response_ids)
    for position, (token, logprob) in enumerate(
        zip(output.response_ids, output.response_logprobs, strict=True)
    ):
        if origin[position] != 0:
            assert run.server.emitted[logprob] == token, "a token with the log-probability of another"
        else:
            assert logprob == 0.0
