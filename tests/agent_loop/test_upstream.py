"""Without a failing call, or with rollback off, the loop is upstream's, field for field."""

import asyncio
import types
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scripted_policy import IM_END, Run, ScriptedTool, call, make_config, run_script
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop
from verl.experimental.agent_loop.tool_parser import FunctionCall
from verl.tools.function_tool import FunctionTool

from cleaner.agent_loop import CleanerAgentLoop
from cleaner.tools.outcomes import observed

OF_VALIDATION = {"ending", "assistant_turns", "lookahead"}
OURS = {"saar", "token_origin", "trajectory", *OF_VALIDATION}
harmless = ["", "x\n", "Überlegung 😀\n", "Use <tool_call></tool_call> ", "</tool_call>", "ok>\n<"]
# The last one makes the next call unreadable for the parser.
prose = st.sampled_from([*harmless, "a <tool_call> b"])
good_call = st.sampled_from(["1+1", "okay 中😀", "print('<tool_call>')"]).map(call)
bad_call = st.sampled_from(
    [
        call("fail NameError x"),
        call("slow"),
        call("down"),
        call("raise oh"),
        call("1", name="nope"),
        '<tool_call>{"name": "run", "arguments": {"kode": 1}}</tool_call>',
        '<tool_call>{"name": "run"</tool_call>',
        '<tool_call>{"name": "run", "arguments": {"code": "1"}}',
        "<tool_call>print(1)</tool_call>",
    ]
)
end = st.sampled_from([IM_END, IM_END, IM_END, "", "\n" + IM_END])
limits = st.fixed_dictionaries(
    {
        "max_assistant_turns": st.sampled_from([None, 1, 2, 5]),
        "max_user_turns": st.sampled_from([None, 1, 3]),
        "max_parallel_calls": st.integers(1, 3),
        "response_length": st.sampled_from([1, 40, 120, 200, 400, 20_000]),
        "max_tool_response_length": st.sampled_from([5, 4096]),
        "logprobs": st.booleans(),
        "marker_tokens": st.booleans(),
    }
)


def script_of(calls: Any, prose: Any = prose) -> Any:
    """Turns of prose and calls that end in an answer."""
    parts = st.lists(st.one_of(prose, calls), max_size=4).map("".join)
    turns = st.lists(st.tuples(parts, end).map("".join), min_size=1, max_size=5)
    return turns.map(lambda script: [*script, "Done." + IM_END])


def comparable(run: Run) -> dict[str, Any]:
    fields = run.output.model_dump()
    fields["extra_fields"] = {key: value for key, value in fields["extra_fields"].items() if key not in OURS}
    fields["metrics"] = {"num_preempted": fields["metrics"]["num_preempted"]}
    requests = [
        (
            r.request_id,
            r.prompt_ids,
            {key: value for key, value in r.sampling_params.items() if key != "seed"},
        )
        for r in run.server.requests
    ]
    return {**fields, "requests": requests, "tool": run.tool.ran}


def assert_like_upstream(script: list[str], saar: Any, limits: dict[str, Any], **kwargs: Any) -> None:
    ours = run_script(script, saar, **limits, **kwargs)
    theirs = run_script(script, loop_class=ToolAgentLoop, **limits)
    assert comparable(ours) == comparable(theirs)
    added = set(ours.output.extra_fields) - set(theirs.output.extra_fields) - OF_VALIDATION
    assert added == {"saar", "token_origin"}
    assert len(ours.output.extra_fields["token_origin"]) == len(ours.output.response_ids)


@given(script=script_of(st.one_of(good_call, bad_call)), limits=limits, how=st.integers(0, 3))
@example(["", ""], {}, 0)
@example([call("down") + IM_END], {}, 1)
def test_with_rollback_off_the_output_is_upstreams(script, limits, how):
    validation = {"run_kwargs": {"cleaner_validate": True}}
    saar, kwargs = [
        (None, {}),
        ({}, {}),
        ({}, {**validation, "cleaner": {"strategy": "saar"}}),
        ({"max_retries": 0}, {"cleaner": {"strategy": "saar"}}),
    ][how]
    assert_like_upstream(script, saar, limits, **kwargs)


@given(script=script_of(good_call, st.sampled_from(harmless)), limits=limits)
def test_with_rollback_on_and_no_failure_the_output_is_upstreams(script, limits):
    assert_like_upstream(script, {}, limits, cleaner={"strategy": "saar"})


class Broken(ScriptedTool):
    """A tool that fails before or while it runs."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    async def create(self, *args: Any, **kwargs: Any) -> Any:
        if self.where == "create":
            raise KeyError("create")
        return await super().create(*args, **kwargs)

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        raise TimeoutError("too slow")


def add(a: int, b: int) -> int:
    """Add.

    Args:
        a: left
        b: right
    """
    return a + b


@pytest.mark.parametrize("side", ["left", "right", "middle"])
@pytest.mark.parametrize(
    "tool_call, status, exception",
    [
        (("run", '{"code": "good"}'), "ok", None),
        (("run", '{"code": "fail NameError x"}'), "program_error", "NameError"),
        (("run", '{"code": "down"}'), "infrastructure", None),
        (("run", '{"code": "raise oh"}'), "program_error", "RuntimeError"),
        (("run", "{code: 1}"), "format_error", None),
        (("run", "[1]"), "format_error", "TypeError"),
        (("run", "{}"), "format_error", "KeyError"),
        (("nope", "{}"), "format_error", None),
        (("create", '{"code": "1"}'), "program_error", "KeyError"),
        (("execute", '{"code": "1"}'), "timeout", "TimeoutError"),
        (("add", '{"a": 1, "b": 2}'), "ok", None),
        (("add", '{"a": 1}'), "format_error", "TypeError"),
        (("add", '{"a": 1, "b": {}}'), "format_error", "TypeError"),
    ],
)
def test_call_tool_says_what_upstreams_says_and_adds_the_outcome(tool_call, status, exception, side):
    config = make_config()
    schema = {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add.",
            "parameters": {
                "type": "object",
                "properties": {name: {"type": "integer", "description": name} for name in "ab"},
                "required": ["a", "b"],
            },
        },
    }
    from verl.tools.schemas import OpenAIFunctionToolSchema

    tools = {"run": ScriptedTool(), "create": Broken("create"), "execute": Broken("execute")}
    tools["add"] = FunctionTool("add", add, OpenAIFunctionToolSchema.model_validate(schema))
    loop = object.__new__(CleanerAgentLoop)
    loop.config, loop.tools = config, tools
    loop.max_tool_response_length, loop.tool_response_truncate_side = 12, side
    ours = object.__new__(CleanerAgentLoop)
    ours.__dict__.update({**vars(loop), "tools": {name: observed(tool) for name, tool in tools.items()}})
    agent_data = types.SimpleNamespace()

    async def both() -> Any:
        wanted = FunctionCall(name=tool_call[0], arguments=tool_call[1])
        theirs = await ToolAgentLoop._call_tool(loop, wanted, {}, agent_data)
        return theirs, await ours._call_tool(wanted, {}, agent_data)

    (response, reward, metrics), (our_response, our_reward, our_metrics) = asyncio.run(both())
    assert (our_response, our_reward) == (response, reward)
    outcome = our_metrics["outcome"]
    assert (outcome.status, outcome.exception, outcome.text) == (status, exception, response.text)
    assert {key: value for key, value in our_metrics.items() if key != "outcome"} == {
        key: value for key, value in metrics.items() if key != "outcome"
    }


def test_the_loop_is_registered_and_reads_its_group():
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry

    assert _agent_loop_registry["cleaner_agent"] == {"_target_": "cleaner.agent_loop.cleaner_agent"}
    assert AgentLoopMetrics().num_preempted == -1
    with pytest.raises(ValueError, match="max_retries"):
        run_script(["x"], {"max_retries": -1})
    assert OmegaConf.is_config(make_config({}))
