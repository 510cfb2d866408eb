"""Scoring given tokens: the log-probability of every token of a prompt, given those before it. Nothing is generated.

A scoring request goes through the decoder's queue like any other, so that it waits behind a weight update, sees one
weight version, and can be aborted. It takes no row of the cache and no prefix from the pool: running requests keep
their tokens, and only wait for its pass.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel

from cleaner.cpu.decoder import Decoder
from cleaner.cpu.requests import Completion, Request
from cleaner.cpu.sampling import overflow

_LOGITS_PER_PASS = 2**24  # 128 MiB in float64, and some three times that for what is computed from them


class ScoreRequest(Request):
    """Score ``prompt`` at the temperature of ``params``; the other parameters say nothing here."""


@dataclass(frozen=True)
class Scores(Completion):
    """What a scoring request got.

    Attributes:
        log_probs: element i is token i + 1's of the prompt; one fewer than the prompt has tokens.
        error: why there are none.
    """

    error: Exception | None = None


class ScoringDecoder(Decoder):
    """A decoder that takes :class:`ScoreRequest` too; at most one is scored between two decoding steps.

    Args and errors: :class:`cleaner.cpu.decoder.Decoder`.
    """

    def __init__(
        self, model: PreTrainedModel, *, max_length: int, prefill_tokens: int = 1024, **kwargs: int
    ) -> None:
        super().__init__(model, max_length=max_length, prefill_tokens=prefill_tokens, **kwargs)
        self._tokens_per_pass = prefill_tokens
        self._unscored: deque[ScoreRequest] = deque()

    @property
    def running(self) -> int:
        """Requests that have joined and not ended, those to score among them."""
        return super().running + len(self._unscored)

    @property
    def free_rows(self) -> int:
        """How many more requests may join. Those to score count, for the bound is on all that run."""
        return super().free_rows - len(self._unscored)

    def admit(self, requests: Sequence[Request]) -> None:
        """See :meth:`Decoder.admit`."""
        to_score = [request for request in requests if isinstance(request, ScoreRequest)]
        others = [request for request in requests if not isinstance(request, ScoreRequest)]
        if others:
            super().admit(others)
        self._unscored += to_score

    def step(self) -> list[tuple[Request, Completion]]:
        """One decoding step, then one request's scores. An error while scoring ends that request only."""
        finished = super().step()
        if self._unscored:
            request = self._unscored.popleft()
            finished.append((request, self._score(request)))
        return finished

    def abort(self) -> list[tuple[Request, Completion]]:
        """See :meth:`Decoder.abort`."""
        unscored: list[tuple[Request, Completion]] = [
            (request, Scores([], [], "aborted", 0)) for request in self._unscored
        ]
        self._unscored.clear()
        return super().abort() + unscored

    def _score(self, request: ScoreRequest) -> Scores:
        temperature = 1.0 if request.params.greedy else request.params.temperature
        try:
            log_probs = score_tokens(self.model, request.prompt, temperature, self._tokens_per_pass)
        except Exception as error:
            return Scores([], [], "stop", 0, error)
        return Scores([], log_probs, "stop", 0)


@torch.inference_mode()
def score_tokens(
    model: PreTrainedModel, tokens: Sequence[int], temperature: float = 1.0, tokens_per_pass: int = 1024
) -> list[float]:
    """Log-probability of each token but the first, given all before it.

    The tokens pass through the model once, in parts: neither logits nor attention of the whole sequence are in memory
    at one time.

    Args:
        model: a causal LM in evaluation mode whose layers attend to the whole sequence.
        tokens: n token ids, at least one.
        temperature: divisor of the logits, above 0.
        tokens_per_pass: at most this many tokens in one part; fewer where the vocabulary is large.

    Returns:
        n - 1 numbers, computed in float64 from the model's logits, over the whole vocabulary.

    Raises:
        FloatingPointError: the model's logits are not finite.
    """
    device, vocabulary = model.device, model.config.get_text_config(decoder=True).vocab_size
    width = max(1, min(tokens_per_pass, _LOGITS_PER_PASS // vocabulary))
    sequence = torch.tensor(tokens, dtype=torch.int64, device=device)
    cache = DynamicCache()
    found: list[torch.Tensor] = []
    for start in range(0, len(tokens) - 1, width):
        stop = min(start + width, len(tokens) - 1)
        positions = torch.arange(start, stop, device=device)
        mask = None  # a first part's causal mask is the model's own
        if start:
            hidden = torch.arange(stop, device=device) > positions[:, None]
            mask = torch.zeros(hidden.shape, dtype=model.dtype, device=device)
            mask = mask.masked_fill_(hidden, float("-inf"))[None, None]
        logits = model(
            input_ids=sequence[None, start:stop],
            position_ids=positions[None],
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).logits[0]
        scores = logits.double()
        if temperature != 1.0:
            scores = scores / temperature
        chosen = scores.gather(1, sequence[start + 1 : stop + 1, None]).squeeze(1)
        found.append(chosen - torch.logsumexp(scores, dim=-1))
    log_probs = torch.cat(found).tolist() if found else []
    if not all(map(math.isfinite, log_probs)):
        raise overflow(model.dtype)
    return log_probs
