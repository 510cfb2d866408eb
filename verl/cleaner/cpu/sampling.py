"""Sampling parameters of one request, and sampling for a whole batch of unlike requests at once.

The log-probability of a sampled token is taken at the request's temperature, over the whole vocabulary: what verl's
actor computes again from ``logits / temperature``, and what SGLang returns. (vLLM in verl's default mode,
``processed_logprobs``, renormalises over the tokens that top-p and top-k left. With verl's training defaults, top_p=1
and top_k=-1, all three agree.) A greedy request's log-probabilities are at temperature 1.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

# A request says more than this server can do when one of these has another value than the neutral one given here.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (None, 1, 1.0),
    "frequency_penalty": (None, 0, 0.0),
    "presence_penalty": (None, 0, 0.0),
    "min_p": (None, 0, 0.0),
    "n": (None, 1),
    "stop": (None, "", []),
    "min_tokens": (None, 0),
}
_KNOWN = frozenset(
    {"temperature", "top_p", "top_k", "seed", "stop_token_ids", "max_tokens", "max_new_tokens", "logprobs"}
    | {"ignore_eos", "do_sample", "detokenize", "skip_special_tokens", "prompt_logprobs"}
    | set(_NEUTRAL)
)


@dataclass(frozen=True)
class SamplingParams:
    """How one request samples.

    Attributes:
        temperature: divisor of the logits; 0 means greedy.
        top_p: keep the smallest set of most probable tokens whose probability reaches this, in (0, 1].
        top_k: keep this many most probable tokens; 0 keeps all.
        seed: seed of the request's own random numbers, in [-2**63, 2**64); None: the server gives one.
        stop_token_ids: generation ends with (and includes) the first of these.
        max_tokens: at most this many tokens; None: what the server's lengths allow.
        logprobs: whether the answer carries log-probabilities.
        prompt_logprobs: whether the prompt's own tokens are scored, and nothing is generated.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int | None = None
    logprobs: bool = True
    prompt_logprobs: bool = False

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @classmethod
    def from_mapping(
        cls, given: Mapping[str, Any], *, eos_token_ids: Iterable[int] = (), ignore_eos: bool = False
    ) -> SamplingParams:
        """Read verl's ``sampling_params`` (vLLM's names; SGLang's ``max_new_tokens`` too).

        Args:
            given: the request's mapping; it is not changed.
            eos_token_ids: the model's end tokens, which stop a request unless it says ``ignore_eos``.
            ignore_eos: what holds when the request doesn't say.

        Raises:
            ValueError: unknown key, a value out of range, or a feature that this server doesn't have.
        """
        for key, value in given.items():
            if key not in _KNOWN:
                near = difflib.get_close_matches(key, _KNOWN, n=1)
                raise ValueError(
                    f"unknown sampling parameter {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
                )
            if key in _NEUTRAL and value not in _NEUTRAL[key]:
                raise ValueError(
                    f"sampling parameter {key}={value!r} is not supported by the rollout server hf_server"
                )
        temperature = float(_or(given.get("temperature"), 1.0))
        if given.get("do_sample") is False:
            temperature = 0.0
        if not (0.0 <= temperature < math.inf):
            raise ValueError(f"temperature={temperature}: must be 0 (greedy) or a positive number")
        top_p = float(_or(given.get("top_p"), 1.0))
        if not 0.0 < top_p <= 1.0:
            raise ValueError(f"top_p={top_p}: must be in (0, 1]")
        top_k = int(_or(given.get("top_k"), 0))
        if top_k < -1:
            raise ValueError(f"top_k={top_k}: must be positive, or 0 or -1 for no limit")
        seed = given.get("seed")
        if seed is not None and not -(2**63) <= int(seed) < 2**64:
            raise ValueError(f"seed={seed}: must be in [-2**63, 2**64)")
        scored = given.get("prompt_logprobs")
        if scored is not None and (isinstance(scored, bool) or scored != 0):
            raise ValueError(
                f"prompt_logprobs={scored!r}: must be 0, each prompt token's own log-probability; "
                "the rollout server hf_server doesn't give those of other tokens"
            )
        max_tokens = given.get("max_tokens", given.get("max_new_tokens"))
        stop = {int(token) for token in given.get("stop_token_ids") or ()}
        if not _or(given.get("ignore_eos"), ignore_eos):
            stop.update(int(token) for token in eos_token_ids)
        return cls(
            temperature=temperature,
            top_p=top_p,
            top_k=max(top_k, 0),
            seed=None if seed is None else int(seed),
            stop_token_ids=tuple(sorted(stop)),
            max_tokens=None if max_tokens is None else int(max_tokens),
            logprobs=bool(given.get("logprobs")),
            prompt_logprobs=scored is not None,
        )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def draw_uniforms(seed: int, count: int) -> torch.Tensor:
    """``count`` numbers in [0, 1) from the request's own generator, float64 on CPU.

    The first numbers do not depend on ``count``. The largest possible one is below 1 by more than rounding, so its
    product with any positive number is smaller than that number.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator, dtype=torch.float64) * (1.0 - 2.0**-52)


@dataclass
class RowSampling:
    """Sampling parameters of a batch of n rows as tensors of shape (n,), with what may be skipped.

    Attributes:
        temperature: float64; 1 for greedy rows.
        greedy: bool, or None when no row is greedy.
        top_k: int64, the vocabulary size where a row doesn't limit; None when no row does.
        top_p: float64, infinity where a row doesn't limit; None when no row does.
        unit_temperature: every row's temperature is 1.
    """

    temperature: torch.Tensor
    greedy: torch.Tensor | None
    top_k: torch.Tensor | None
    top_p: torch.Tensor | None
    unit_temperature: bool

    @classmethod
    def stack(cls, params: list[SamplingParams], device: torch.device) -> RowSampling:
        temperatures = [1.0 if p.greedy else p.temperature for p in params]
        truncates = [not p.greedy for p in params]  # truncation doesn't change a row's best token
        top_k = [p.top_k if t and p.top_k else 2**31 for p, t in zip(params, truncates, strict=True)]
        top_p = [p.top_p if t and p.top_p < 1 else math.inf for p, t in zip(params, truncates, strict=True)]
        greedy = [p.greedy for p in params]
        return cls(
            temperature=torch.tensor(temperatures, dtype=torch.float64, device=device),
            greedy=torch.tensor(greedy, device=device) if any(greedy) else None,
            top_k=torch.tensor(top_k, device=device) if min(top_k, default=2**31) < 2**31 else None,
            top_p=torch.tensor(top_p, dtype=torch.float64, device=device)
            if min(top_p, default=math.inf) < math.inf
            else None,
            unit_temperature=all(t == 1.0 for t in temperatures),
        )


def sample(
    logits: torch.Tensor, rows: RowSampling, uniforms: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample one token for each row by inverting its cumulative distribution at the row's uniform number.

    Args:
        logits: (n, vocabulary), any floating type; computed with in float64.
        rows: the rows' parameters.
        uniforms: (n,), float64 in [0, 1), from :func:`draw_uniforms`.

    Returns:
        tokens (n,), int64, and their log-probabilities (n,), float64, at the row's temperature over the whole
        vocabulary (see the module's text). A row whose logits are not finite has a log-probability that isn't either.
    """
    scores = logits.double()
    if not rows.unit_temperature:
        scores = scores / rows.temperature[:, None]
    log_total = torch.logsumexp(scores, dim=-1, keepdim=True)
    weights = torch.exp(scores - log_total)
    if rows.top_k is not None or rows.top_p is not None:
        weights = _truncate(weights, rows)
    cumulative = weights.cumsum(-1)
    # The point lies below the total, so the search ends on a token of positive probability.
    points = uniforms[:, None] * cumulative[:, -1:]
    # Where the logits are not finite the search finds no token. An index beyond the vocabulary would kill a CUDA
    # process with all its requests before anybody can say why, so the caller sees it in the log-probability.
    tokens = torch.searchsorted(cumulative, points, right=True).clamp_(max=scores.shape[-1] - 1)
    if rows.greedy is not None:
        tokens = torch.where(rows.greedy[:, None], scores.argmax(-1, keepdim=True), tokens)
    log_probs = scores.gather(1, tokens) - log_total
    return tokens.squeeze(1), log_probs.squeeze(1)


def overflow(dtype: torch.dtype) -> FloatingPointError:
    """The error to raise where the model's logits are not finite."""
    name = str(dtype).removeprefix("torch.")
    return FloatingPointError(
        f"the model's logits are not finite in {name}. Set actor_rollout_ref.rollout.engine_kwargs.hf_server.dtype to "
        f"{'bfloat16 or float32, whose range is larger' if dtype == torch.float16 else 'a wider type'}; if it stays, "
        "the trainer's weights are broken: look at actor/grad_norm"
    )


def _truncate(weights: torch.Tensor, rows: RowSampling) -> torch.Tensor:
    """Set to zero what top-k, and then top-p of the rest, leave out. Ties at the border go to the smaller token."""
    ordered, order = weights.sort(dim=-1, descending=True, stable=True)
    if rows.top_k is not None:
        rank = torch.arange(ordered.shape[-1], device=ordered.device)
        ordered = ordered.masked_fill(rank >= rows.top_k[:, None], 0.0)
    if rows.top_p is not None:
        total = ordered.sum(-1, keepdim=True)
        before = ordered.cumsum(-1) - ordered  # probability of the more probable tokens
        ordered = ordered.masked_fill(before >= rows.top_p[:, None] * total, 0.0)
    return torch.zeros_like(weights).scatter(-1, order, ordered)
