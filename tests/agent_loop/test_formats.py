"""Calls are located in every tool-call format whose parser says its markers, and repairs work without that too."""

import asyncio
import json

import pytest
from scripted_policy import IM_END, make_tokenizer, observation, rolled_back
from verl.experimental.agent_loop.tool_parser import ToolParser

from cleaner.turn_calls import TurnReader

XML = "<function=run>\n<parameter=code>\n{}\n</parameter>\n</function>"
FORMATS = {
    "hermes": lambda code: (
        f"<tool_call>{json.dumps({'name': 'run', 'arguments': {'code': code}})}</tool_call>"
    ),
    "qwen3_coder": lambda code: f"<tool_call>\n{XML.format(code)}\n</tool_call>",
    "glm": lambda code: f"<tool_call>run\n<arg_key>code</arg_key>\n<arg_value>{code}</arg_value></tool_call>",
    "seed": lambda code: f"<seed:tool_call>\n{XML.format(code)}</seed:tool_call>",
    "minimax": lambda code: (
        f'<minimax:tool_call><invoke name="run"><parameter name="code">{code}</parameter></invoke></minimax:tool_call>'
    ),
    "gemma4": lambda code: f'<|tool_call>call:run{{code:<|"|>{code}<|"|>}}<tool_call|>',
    "kimi": lambda code: (
        "<|tool_calls_section_begin|><|tool_call_begin|>run<|tool_call_argument_begin|>"
        f"{json.dumps({'code': code})}<|tool_call_end|><|tool_calls_section_end|>"
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_call_is_located_behind_its_reasoning(name):
    tokenizer = make_tokenizer(True)
    parser = ToolParser.get_tool_parser(name, tokenizer)
    call = FORMATS[name]("fail E x")

    async def read():
        ids = tokenizer.encode("Überlegung 😀: " + call + IM_END)
        _, parsed = await parser.extract_tool_calls(ids, [])
        return ids, await TurnReader(parser, tokenizer).read(ids, parsed, [])

    ids, (found,) = asyncio.run(read())
    assert tokenizer.decode(ids[found.span.start : found.span.stop]) == call
    assert found.call.name == "run" and found.code == "fail E x" and found.problem is None


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "gemma4"])
def test_a_repair_works_in_every_format(name):
    call = FORMATS[name]
    script = ["R: " + call("fail E x") + IM_END, "S: " + call("fine E x") + IM_END, "Done." + IM_END]
    run = rolled_back(script, format=name, max_tool_response_length=200)
    assert (
        run.text == "R: " + call("fine E x") + IM_END + observation("result of fine E x") + "Done." + IM_END
    )


def test_where_calls_cannot_be_located_repairs_are_deep(monkeypatch):
    class Silent(ToolParser._registry["hermes"]):
        def __init__(self, tokenizer):
            super().__init__(tokenizer)
            self.__dict__["_inner"] = ToolParser._registry["hermes"](tokenizer)
            del self.tool_call_start_token, self.tool_call_end_token

        async def extract_tool_calls(self, ids, tools=None):
            return await self._inner.extract_tool_calls(ids, tools)

    monkeypatch.setitem(ToolParser._registry, "silent", Silent)
    call = FORMATS["hermes"]
    script = ["R: " + call("fail E x") + IM_END, "S: " + call("fine E x") + IM_END, "Done." + IM_END]
    run = rolled_back(script, format="silent")
    assert run.text.startswith("S: " + call("fine E x")) and run.repairs[0]["decision"] == "deep"
    assert run.repairs[0]["similarity"] > 0.5


def test_an_unclosed_call_that_the_parser_accepts_is_a_call():
    unclosed = "R: <tool_call>\n" + XML.format("fail E x") + IM_END
    script = [unclosed, "S: " + FORMATS["qwen3_coder"]("fine E x") + IM_END, "Done." + IM_END]
    run = rolled_back(script, format="qwen3_coder")
    assert run.text.startswith("R: " + FORMATS["qwen3_coder"]("fine E x"))
    assert run.saar["failures"] == {"program_error": 1, "E": 1}
