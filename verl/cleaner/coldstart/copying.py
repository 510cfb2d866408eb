"""A warm-up for models that start from nothing: repeating random numbers.

Solving a problem by tool needs numbers copied from the question into the program.  On conversations alone a tiny model
learns the format in a minute and copying only much later; on short sequences that repeat themselves it learns copying
in a minute, and keeps it (induction heads, https://arxiv.org/abs/2209.11895).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from cleaner.coldstart.encoding import Example

_LONGEST = 8
_REPEATS = 2


def number_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the tokens that stand for one digit or a pair of digits."""
    texts = [str(digit) for digit in range(10)] + [f"{pair:02d}" for pair in range(100)]
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    return [piece[0] for piece in ids if len(piece) == 1]


def copy_examples(tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> list[Example]:
    """Sequences ``distraction numbers (separator numbers)*``; the loss is on what follows the first ``numbers``."""
    rng = random.Random(seed)
    numbers = number_tokens(tokenizer)
    separator = tokenizer.encode("\n", add_special_tokens=False)
    examples = []
    for _ in range(count):
        word = rng.choices(numbers, k=rng.randint(3, _LONGEST))
        start = rng.choices(numbers, k=rng.randint(0, _LONGEST)) + word
        repeat = (separator + word) * _REPEATS
        examples.append(Example(start + repeat, [0] * len(start) + [1] * len(repeat)))
    return examples


def emphasise(example: Example, tokens: Sequence[int] | set[int], weight: int) -> Example:
    """The same tokens with the mask times ``weight`` on those in ``tokens``."""
    mask = [m * weight if i in tokens else m for i, m in zip(example.ids, example.mask, strict=True)]
    return Example(example.ids, mask)
