"""What a prompt says beside its problem: the form of the answer, and the tool where one is offered.

A sentence is added only where the prompt does not say the same already, so that rows that carry instructions of their
own (most of Open-AgentRL-30K) stay as they are, and instructing a row twice changes nothing.
"""

from __future__ import annotations

import re
from typing import Any

STEP_BY_STEP = "Solve the following problem step by step."
BOXED = "Put the final answer in \\boxed{}, without units."
NO_UNITS = "Write no units inside \\boxed{}."
LETTER = "Put only the capital letter of the right choice in \\boxed{}."
STDIN_PROGRAM = (
    "Write a Python program that solves the following problem. It reads the input from standard input and prints the "
    "result to standard output, and nothing else."
)
FUNCTION = "Write Python code that solves the following problem. Keep the names that it gives."
LAST_BLOCK = "End your answer with the complete code in one ```python block."
TOOL_FOR_ANSWERS = (
    "You can run Python with the tool, to compute or to check a result. Once you are sure of the answer, give it "
    "without a further call."
)
TOOL_FOR_CODE = (
    "You can run Python with the tool, for example to try your code on small inputs. Once you are sure of it, hand it "
    "in without a further call."
)

# A sentence that tells the model how to use its tool. It must name the tool's use, not a tool: problems are about
# workers with tools, too.
_TOOL_TALK = re.compile(
    r"\bcall(?:ing)?\s+(?:the|a|any)\s+tools?\b|\btool[\s-]calls?\b|\bprovided\s+tools?\b|\bwith\s+the\s+tool\b"
    r"|\bthe\s+tools?\s+(?:can|could|may|might)\s+be\s+used\b|\butili[sz]e\s+(?:the\s+)?tools?\b"
    r"|\buse\s+(?:the\s+)?tools?\s+(?:to|when|only|for)\b",
    re.IGNORECASE,
)
# A sentence ends at a line's end, or at a stop before a blank. `x.y` and `here.'}` do not end one.
_SENTENCE = re.compile(r"[^\n]+?(?:[.!?](?:\*\*)?(?=\s|$)[ \t]*|(?=\n)|$)|\n")


def speaks_of_tool(text: str) -> bool:
    """Whether a text tells the model how to use a tool."""
    return _TOOL_TALK.search(text) is not None


def without_tool_talk(text: str) -> str:
    """The text without the sentences that tell the model how to use a tool; the same text if there are none."""
    if not speaks_of_tool(text):
        return text
    kept = "".join(part for part in _SENTENCE.findall(text) if not _TOOL_TALK.search(part))
    return re.sub(r"\n{3,}", "\n\n", kept).strip()


def answer_sentences(text: str, tool: bool, choice: bool = False) -> list[str]:
    """What is to be added to a problem whose answer goes into a box.

    Args:
        text: all that the prompt says already.
        tool: whether one is offered.
        choice: whether the answer is the letter of a choice.
    """
    form = LETTER if choice else NO_UNITS if "\\boxed" in text else BOXED
    said = form in text or (form == NO_UNITS and BOXED in text)
    return [*_tool_sentence(text, tool, TOOL_FOR_ANSWERS), *([] if said else [form])]


def code_sentences(text: str, tool: bool) -> list[str]:
    """What is to be added to a problem that a program answers."""
    return [*_tool_sentence(text, tool, TOOL_FOR_CODE), *([] if "```python" in text else [LAST_BLOCK])]


def instructed(messages: list[dict[str, Any]], sentences: list[str]) -> list[dict[str, Any]]:
    """A chat whose last message of the user ends with `sentences`, as a paragraph of their own.

    Content that is no text (parts with images) is left alone.
    """
    position = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    if not sentences or position < 0 or not isinstance(messages[position]["content"], str):
        return messages
    content = f"{messages[position]['content'].rstrip()}\n\n{' '.join(sentences)}"
    return [
        {**message, "content": content} if i == position else message for i, message in enumerate(messages)
    ]


def _tool_sentence(text: str, tool: bool, sentence: str) -> list[str]:
    return [sentence] if tool and not speaks_of_tool(text) else []
