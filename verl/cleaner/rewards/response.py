"""What a model's response ends with: its last turn, its last box, its last program.

verl hands over the decoded *response part* of a trajectory: assistant turns with tool observations between them,
special tokens removed.  Only text after the last observation is the model's final turn; an answer that a tool printed,
or that stands inside a tool call, earns nothing.
"""

from __future__ import annotations

import re

_TURN_START = "<|im_start|>assistant"
_OBSERVATION_OPEN, _OBSERVATION_CLOSE = "<tool_response>", "</tool_response>"
_TOOL_CALL = re.compile(r"<tool_call>.*?(?:</tool_call>|\Z)", re.DOTALL)
_BRACE = re.compile(r"\\boxed\{|[{}]")


def last_turn(solution_str: str) -> str:
    """The text of the last assistant turn without its tool calls; "" if the response ends inside an observation."""
    text = solution_str.rpartition(_TURN_START)[2]
    before, close, after = text.rpartition(_OBSERVATION_CLOSE)
    text = after if close else before + after
    if _OBSERVATION_OPEN in text:
        return ""
    return _TOOL_CALL.sub("", text)


def last_boxed(text: str) -> str | None:
    """Content of the last ``\\boxed{...}`` whose braces close (they may nest), or None.  One pass over the text."""
    found: tuple[int, int] | None = None
    open_braces: list[int | None] = []  # where a box's content begins; None for other braces
    for match in _BRACE.finditer(text):
        if match.group() != "}":
            open_braces.append(match.end() if match.group() != "{" else None)
        elif open_braces and (begin := open_braces.pop()) is not None:
            found = max(found or (-1, -1), (begin, match.start()))
    return text[found[0] : found[1]] if found else None
