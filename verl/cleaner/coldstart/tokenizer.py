"""A byte-level BPE tokenizer trained on a few hundred conversations: small enough for a model of half a megabyte."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from cleaner.coldstart.chat_format import CHAT_TEMPLATE, CHAT_TOKENS, TOOL_TOKENS

#: Every pair of digits.
PAIRS = tuple(f"{pair:02d}" for pair in range(100))

#: Times that each pair of digits is shown, so that all become tokens whatever the conversations hold.
_EVERY_PAIR = 1000


def train_tokenizer(texts: Iterable[str], vocabulary: int, max_length: int) -> Qwen2Tokenizer:
    """Train a tokenizer on rendered conversations.

    Numbers are cut into pairs of digits, every pair a token: a small model learns to copy those in minutes, single
    digits take it much longer.  A newline is a token of its own (verl's Qwen token builder needs that), and so is each
    ChatML and tool tag.  ``vocabulary``: total number of tokens, tags included.  ``max_length``: the longest context
    in tokens.

    The result is a ``Qwen2Tokenizer``, because that is what ``AutoTokenizer`` makes of any tokenizer beside a Qwen2
    model, with Qwen's own splitting into words in place of the saved one.  Qwen splits numbers into single digits; the
    pairs survive as added tokens, which are found before the splitting.
    """
    vocab, merges = _train_bpe(texts, vocabulary - len(TOOL_TOKENS))
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
        model_max_length=max_length,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(
        [AddedToken(text, special=False, normalized=False) for text in (*TOOL_TOKENS, *PAIRS)]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _train_bpe(texts: Iterable[str], vocabulary: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE that never merges across a newline, a tag or a pair of digits."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.Split(Regex(r"\d{1,2}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(CHAT_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without_tags(texts), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def _without_tags(texts: Iterable[str]) -> Iterable[str]:
    """Pieces of text between tags: what is left for BPE to learn from."""
    yield from [" ".join(PAIRS)] * _EVERY_PAIR
    for text in texts:
        for tag in (*CHAT_TOKENS, *TOOL_TOKENS):
            text = text.replace(tag, "\n")
        yield text
