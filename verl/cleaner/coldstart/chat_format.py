"""The conversation format: ChatML turns and Hermes tool calls, as Qwen2.5 writes them, with a compact list of tools."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

TOOL_NAME = "code_interpreter"

TOOL_SCHEMA: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": "Run Python code and return what it prints.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "Python source code"}},
            "required": ["code"],
        },
    },
}
"""OpenAI schema of the tool; the template below shows a model its name and argument names only."""

_TEMPLATE = r"""
{#- System turn: the given system message, then one line a tool. -#}
{%- set has_system = messages and messages[0].role == 'system' -%}
{%- if has_system or tools -%}
  {{- '<|im_start|>system\n' -}}
  {%- if has_system -%}{{- messages[0].content -}}{%- endif -%}
  {%- if tools -%}
    {{- ('\n' if has_system else '') + '<tools>' -}}
    {%- for tool in tools -%}
      {%- set function = tool.function if tool.function is defined else tool -%}
      {{- '\n' + function.name + '(' + (function.parameters.properties | default({}) | join(', ')) + ')' -}}
    {%- endfor -%}
    {{- '\n</tools>' -}}
  {%- endif -%}
  {{- '<|im_end|>' + AFTER -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role == 'user' or (message.role == 'system' and not loop.first) -%}
    {{- BEFORE + '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + AFTER -}}
  {#- Assistant turn: text, then each call on its own lines. -#}
  {%- elif message.role == 'assistant' -%}
    {{- BEFORE + '<|im_start|>assistant\n' + (message.content or '') -}}
    {%- for tool_call in message.tool_calls or [] -%}
      {%- set call = tool_call.function if tool_call.function is defined else tool_call -%}
      {{- '\n' if message.content or not loop.first else '' -}}
      {{- '<tool_call>\n{"name": "' + call.name + '", "arguments": ' -}}
      {{- call.arguments if call.arguments is string else call.arguments | tojson -}}
      {{- '}\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>' + AFTER -}}
  {#- Tool results: consecutive ones share a user turn. -#}
  {%- elif message.role == 'tool' -%}
    {%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}{{- BEFORE + '<|im_start|>user' -}}{%- endif -%}
    {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' -}}
    {%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}{{- '<|im_end|>' + AFTER -}}{%- endif -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- BEFORE + '<|im_start|>assistant\n' -}}{%- endif -%}
""".strip()

_FIRST_TURN = "(not has_system and not tools and (loop is not defined or loop.first))"


def chat_template(newline_first: bool = False) -> str:
    """The Jinja template: ChatML turns separated by a newline.

    Qwen writes that newline after each turn, and verl's token builder for Qwen puts it back where sampling stopped at
    the turn's end.  verl's generic builder doesn't; with ``newline_first`` the newline belongs to the turn that
    follows, so that the same text comes out for models of other families.
    """
    before, after = (f"('' if {_FIRST_TURN} else '\\n')", "''") if newline_first else ("''", "'\\n'")
    return _TEMPLATE.replace("BEFORE", before).replace("AFTER", after)


CHAT_TEMPLATE = chat_template()
"""Chat template of the tiny model's tokenizer (a Qwen2)."""

CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Special tokens: padding, turn start, turn end (also end of sequence)."""

TOOL_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>")
"""One token each in the tiny model's vocabulary.  Not *special*: decoding without special tokens keeps them, as Qwen
does, and the reward needs them."""

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


@dataclass(frozen=True)
class ParsedTurn:
    """What an assistant turn is: a call (``code`` set), a malformed call (``fault`` set), or a final answer."""

    code: str | None = None
    fault: str | None = None

    @property
    def is_final(self) -> bool:
        """True when the turn holds no call, well-formed or not."""
        return self.code is None and self.fault is None


def call_text(reasoning: str, code: str) -> str:
    """Assistant turn with one call: reasoning, then the call on its own lines."""
    call = json.dumps({"name": TOOL_NAME, "arguments": {"code": code}}, ensure_ascii=False)
    return f"{reasoning}\n<tool_call>\n{call}\n</tool_call>"


def parse_turn(text: str) -> ParsedTurn:
    """Read an assistant turn as the Hermes tool parser does; only the first call counts."""
    if "<tool_call>" not in text:
        return ParsedTurn()
    match = _CALL.search(text)
    if match is None:
        return ParsedTurn(fault="missing </tool_call>")
    try:
        call = json.loads(match.group(1))
        name, code = call["name"], call["arguments"]["code"]
    except (ValueError, TypeError, KeyError) as error:
        return ParsedTurn(fault=f"not a valid call ({type(error).__name__})")
    if name != TOOL_NAME or not isinstance(code, str):
        return ParsedTurn(fault=f"no tool {name!r} with a text argument 'code'")
    return ParsedTurn(code=code)
