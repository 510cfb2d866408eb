"""The program in a model's response."""

from __future__ import annotations

import re

# What a tool printed is not the model's.
_OBSERVATION = re.compile(r"<tool_response>.*?(?:</tool_response>|\Z)", re.DOTALL)
_OPENING = re.compile(r"^[ \t]*```[ \t]*(?:python3?|py)[ \t]*\r?\n", re.MULTILINE | re.IGNORECASE)
_CLOSING = re.compile(r"^[ \t]*```(?!\w)", re.MULTILINE)


def last_python_block(response: str) -> str:
    """Content of the last closed ```` ```python ```` block of a response, observations left out; "" without one."""
    text = _OBSERVATION.sub("\n", response)
    end = len(text)
    for opening in reversed(list(_OPENING.finditer(text))):
        closing = _CLOSING.search(text, opening.end(), end)
        if closing is not None:
            return text[opening.end() : closing.start()].replace("\r\n", "\n").rstrip("\n")
        end = opening.start()
    return ""
