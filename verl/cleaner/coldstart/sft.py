"""Supervised fine-tuning on conversations: next-token loss on assistant tokens, cosine learning rate, a time limit."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from cleaner.coldstart.encoding import Example

#: Time between two progress lines.
_REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class SftSettings:
    """``minutes``: wall-clock limit, which also sets the learning-rate schedule unless ``steps`` is given.

    ``batch``: conversations a step; ``micro``: conversations a forward pass; ``warmup``: steps.  ``bfloat16``: matrix
    products in bfloat16, the weights stay as they are.
    """

    minutes: float
    lr: float
    batch: int = 32
    micro: int = 16
    warmup: int = 50
    weight_decay: float = 0.01
    steps: int | None = None
    seed: int = 0
    bfloat16: bool = False


def _batches(examples: Sequence[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Endless shuffled epochs in batches; a last short batch is dropped."""
    rng = random.Random(seed)
    order = list(range(len(examples)))
    size = min(size, len(examples))
    while True:
        rng.shuffle(order)
        for start in range(0, len(order) - size + 1, size):
            yield [examples[i] for i in order[start : start + size]]


def masked_loss(model: PreTrainedModel, examples: Sequence[Example]) -> torch.Tensor:
    """Summed cross-entropy, each token times its mask's value, over right-padded ``examples`` (scalar, nats)."""
    width = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros(len(examples), width)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        mask[row, : len(example.ids)] = torch.tensor(example.mask, dtype=torch.float32)
    # Padding is on the right, so causal attention alone keeps it out of every masked position.
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    weights = mask[:, 1:]
    chosen = weights > 0
    logits = model.lm_head(hidden[:, :-1][chosen]).float()
    losses = F.cross_entropy(logits, ids[:, 1:][chosen], reduction="none")
    return (losses * weights[chosen]).sum()


def train(model: PreTrainedModel, examples: Sequence[Example], settings: SftSettings) -> dict[str, float]:
    """Fine-tune in place; returns ``{"steps", "loss", "tokens", "seconds"}`` (loss: nats a token, last 50 steps)."""
    if not examples:
        raise ValueError("no conversations to train on")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, betas=(0.9, 0.98)
    )
    began = reported = time.monotonic()
    recent: list[float] = []
    steps = tokens = 0
    model.train()
    for batch in _batches(examples, settings.batch, settings.seed):
        elapsed = time.monotonic() - began
        progress = steps / settings.steps if settings.steps else elapsed / (settings.minutes * 60)
        if progress >= 1 or elapsed > settings.minutes * 60:
            break
        rate = min(1.0, (steps + 1) / settings.warmup) * (
            0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))
        )
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * rate
        recent = [*recent[-49:], _step(model, batch, optimizer, settings)]
        tokens += sum(len(example.ids) for example in batch)
        steps += 1
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            _progress(steps, sum(recent) / len(recent), progress, reported - began, tokens)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    seconds = time.monotonic() - began
    return {
        "steps": steps,
        "loss": sum(recent) / max(1, len(recent)),
        "tokens": tokens,
        "seconds": round(seconds, 1),
    }


def _step(
    model: PreTrainedModel, batch: Sequence[Example], optimizer: torch.optim.Optimizer, settings: SftSettings
) -> float:
    """One optimizer step; returns the mean loss of the batch's assistant tokens."""
    batch = sorted(batch, key=lambda example: len(example.ids))
    count = sum(sum(example.mask[1:]) for example in batch)
    total = 0.0
    optimizer.zero_grad()
    for start in range(0, len(batch), settings.micro):
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            loss = masked_loss(model, batch[start : start + settings.micro]) / count
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return total


def _progress(steps: int, loss: float, progress: float, elapsed: float, tokens: int) -> None:
    rate = tokens / max(elapsed, 1e-6)
    line = (
        f"fine-tuning {progress:4.0%}  step {steps}  loss {loss:.3f}  {rate:,.0f} tokens/s  {elapsed:.0f} s"
    )
    print(line, end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
