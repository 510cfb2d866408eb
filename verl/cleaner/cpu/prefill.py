"""Filling rows of the cache with prompts: reused prefixes first, then as few padded passes as their lengths allow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from cleaner.cpu.kv_cache import RowCache
from cleaner.cpu.prefix_pool import PrefixPool
from cleaner.cpu.requests import DecoderStats

_SMALLEST_SHARED = 16  # a prompt part shorter than this is not worth a copy in the prefix pool


class Prefill:
    """Computes prompts' keys and values into the cache.

    Args:
        model, cache, pool: what to compute with, where to, and whence prefixes come.
        max_length: positions that occur are below this.
        tokens_per_pass: at most about this many tokens, padding included, in one pass.
        stats: ``prefilled_tokens`` and ``cached_tokens`` are counted here.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache: RowCache,
        pool: PrefixPool,
        *,
        max_length: int,
        tokens_per_pass: int,
        stats: DecoderStats,
    ) -> None:
        self._model, self._cache, self._pool, self._stats = model, cache, pool, stats
        self._max_length, self._tokens_per_pass, self._device = max_length, tokens_per_pass, cache.device

    def fill(self, prompts: Sequence[list[int]], base: int) -> list[int]:
        """Fill row ``base + i`` with all but the last token of prompt i; how many tokens of each came from the pool."""
        cached = [0] * len(prompts)
        waiting = [i for i, prompt in enumerate(prompts) if len(prompt) > 1]
        while waiting:
            # One of several equal prompts is computed; the others then find it in the pool.
            first: dict[tuple[int, ...], int] = {}
            for i in waiting:
                first.setdefault(tuple(prompts[i]), i)
            wave = list(first.values()) if self._pool.enabled else waiting
            todo = []
            for i in wave:
                layers, cached[i] = self._pool.common(prompts[i][:-1])
                if layers is not None:
                    self._cache.load(base + i, layers, cached[i])
                if cached[i] < len(prompts[i]) - 1:
                    todo.append(i)
            for group in self._groups([(i, cached[i], len(prompts[i]) - 1) for i in todo]):
                self._compute([(base + i, start, prompts[i][start:-1]) for i, start in group])
            for i in todo:
                computed = len(prompts[i]) - 1 - cached[i]
                self._stats.prefilled_tokens += computed
                if computed >= _SMALLEST_SHARED and self._pool.enabled and self._pool.wants(prompts[i][:-1]):
                    self._pool.add(prompts[i][:-1], self._cache.save(base + i, len(prompts[i]) - 1))
            done = set(wave)
            waiting = [i for i in waiting if i not in done]
        self._stats.cached_tokens += sum(cached)
        return cached

    def _groups(self, parts: list[tuple[int, int, int]]) -> list[list[tuple[int, int]]]:
        """Group parts (prompt, start, end), one pass for each group: alike in length, and what starts at 0 apart."""
        groups: list[list[tuple[int, int]]] = []
        widest = 0
        for i, start, end in sorted(parts, key=lambda part: (part[1] > 0, part[1] - part[2])):
            length = end - start
            last = groups[-1] if groups else None
            if (
                last
                and (last[0][1] > 0) == (start > 0)
                and widest * (len(last) + 1) <= self._tokens_per_pass
                and widest <= 1.3 * length + 8
            ):
                last.append((i, start))
            else:
                groups.append([(i, start)])
                widest = length
        return groups

    def _compute(self, parts: list[tuple[int, int, list[int]]]) -> None:
        """Compute keys and values of the parts (row, start, tokens) in one pass, padded on the right."""
        width = max(len(tokens) for _, _, tokens in parts)
        # Made on the host and moved at once: filled on an accelerator, each row would be several launches.
        ids = torch.zeros(len(parts), width, dtype=torch.int64, device="cpu")
        valid = torch.zeros(len(parts), width, dtype=torch.bool, device="cpu")
        for index, (_, _, tokens) in enumerate(parts):
            ids[index, : len(tokens)] = torch.tensor(tokens, device="cpu")
            valid[index, : len(tokens)] = True
        starts = torch.tensor([start for _, start, _ in parts], device="cpu")
        # A padding token's position is the last valid one, so that it never leaves the rotary table.
        positions = (starts[:, None] + torch.arange(width, device="cpu")).clamp(max=self._max_length - 1)
        rows = torch.tensor([row for row, _, _ in parts], device=self._device)
        mask, span = None, 0
        if any(start for _, start, _ in parts):
            span = max(start + len(tokens) for _, start, tokens in parts)
            hidden = torch.arange(span, device="cpu") > positions[:, :, None]
            mask = torch.zeros(hidden.shape, dtype=self._model.dtype, device="cpu")
            mask = mask.masked_fill_(hidden, float("-inf"))[:, None].to(self._device)
        ids, positions = ids.to(self._device), positions.to(self._device)
        padded = any(len(tokens) < width for _, _, tokens in parts)
        self._cache.begin_prefill(rows, positions, valid.to(self._device) if padded else None, span)
        # Padding lies to the right of every token that counts, so the causal mask of a fresh prompt hides it.
        self._model.base_model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
        )
