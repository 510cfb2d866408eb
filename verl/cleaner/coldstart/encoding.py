"""Conversations as token ids, cut exactly where the agent loop cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from cleaner.coldstart.chat_format import TOOL_SCHEMA

_TURN_END = "<|im_end|>"


@dataclass(frozen=True)
class Example:
    """Token ids of a conversation, and a mask of the same length that is 1 on assistant tokens (turn ends included)."""

    ids: list[int]
    mask: list[int]


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, Any]], prompt: bool = False
) -> str:
    """The conversation as text; ``prompt`` adds the opening of an assistant turn."""
    text = tokenizer.apply_chat_template(
        list(messages), tools=[TOOL_SCHEMA], add_generation_prompt=prompt, tokenize=False
    )
    return str(text)


def segments(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, Any]]
) -> list[tuple[str, bool]]:
    """The rendered conversation up to its last assistant turn, in pieces: (text, is an assistant's own).

    An assistant piece ends with the turn-end token, which the model generates; the newline after it is context.
    """
    pieces: list[tuple[str, bool]] = []
    done = 0
    for position, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        opening = render(tokenizer, messages[:position], prompt=True)
        turn = f"{message['content']}{_TURN_END}"
        pieces += [(opening[done:], False), (turn, True)]
        done = len(opening) + len(turn)
    return pieces


def encode(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, Any]]) -> Example:
    """Tokenise a conversation piece by piece: the model's turns never merge with the context around them."""
    ids: list[int] = []
    mask: list[int] = []
    for text, own in segments(tokenizer, messages):
        piece = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += piece
        mask += [int(own)] * len(piece)
    return Example(ids, mask)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, Any]]) -> list[int]:
    """Token ids of a conversation that waits for an assistant turn."""
    if any(message["role"] == "assistant" for message in messages):
        ids = encode(tokenizer, messages).ids
        tail = render(tokenizer, messages, prompt=True)
        tail = tail[sum(len(text) for text, _ in segments(tokenizer, messages)) :]
        return ids + list(tokenizer(tail, add_special_tokens=False)["input_ids"])
    text = render(tokenizer, messages, prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
