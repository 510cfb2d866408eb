"""What the decoder takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cleaner.cpu.sampling import SamplingParams

Finish = Literal["stop", "length", "aborted"]


@dataclass(eq=False)
class Request:
    """One prompt to continue.

    Attributes:
        prompt: token ids, at least one.
        params: how to sample.
        seed: of the request's random numbers.
        max_tokens: bound of the answer; with the prompt it must fit into the decoder's ``max_length``.
    """

    prompt: list[int]
    params: SamplingParams
    seed: int
    max_tokens: int


@dataclass(frozen=True)
class Completion:
    """What a request got.

    Attributes:
        tokens: the sampled token ids, a stop token included.
        log_probs: theirs, float64, at the request's temperature over the whole vocabulary.
        finish: why it ended.
        cached_tokens: prompt tokens whose keys and values came from the prefix pool.
    """

    tokens: list[int]
    log_probs: list[float]
    finish: Finish
    cached_tokens: int


@dataclass
class DecoderStats:
    """Running totals. Seconds are of the calling thread's clock; on an accelerator ``sample_seconds`` includes waiting
    for it."""

    requests: int = 0
    generated_tokens: int = 0
    prompt_tokens: int = 0
    prefilled_tokens: int = 0
    cached_tokens: int = 0
    decode_steps: int = 0
    prefill_seconds: float = 0.0
    forward_seconds: float = 0.0
    sample_seconds: float = 0.0
    decode_seconds: float = 0.0
