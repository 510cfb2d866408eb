"""Batched decoding of unlike requests with a KV cache: requests join between steps and leave as they finish.

The decoder is synchronous and belongs to one thread (``cleaner.cpu.engine_loop``). A request occupies one row. All
tensors of a row share one index, the position in its sequence, so that a step writes token, log-probability and
attention mask through one flat index. The last prompt token is not part of the prefill: it is the input of the row's
first decoding step, so a row that just joined is like any other.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from cleaner.cpu.kv_cache import RowCache, layer_shapes
from cleaner.cpu.prefill import Prefill
from cleaner.cpu.prefix_pool import PrefixPool
from cleaner.cpu.requests import Completion, DecoderStats, Finish, Request
from cleaner.cpu.rows import RowTensors
from cleaner.cpu.sampling import RowSampling, draw_uniforms, overflow, sample

_SPAN_STEP = 16  # attention reads a multiple of this many tokens


@dataclass(eq=False)
class _Row:
    request: Request
    started: int  # the decoder's step number when it joined
    cached: int


class Decoder:
    """See the module's text.

    Args:
        model: a causal LM of transformers in evaluation mode, on its final device and in its final data type. Every
            layer must cache keys and values of the whole sequence.
        max_length: prompt and answer of a request together never exceed this, in tokens.
        max_rows: at most this many requests at once.
        kv_bytes: bound of the cache's memory; it lowers the number of rows where need be (at least one).
        prefix_bytes: bound of the prefix pool's memory; 0 disables it.
        prefill_tokens: at most about this many tokens, padding included, in one prefill pass.

    Raises:
        ValueError: the model's cache isn't of that kind.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        max_length: int,
        max_rows: int = 256,
        kv_bytes: int = 4 << 30,
        prefix_bytes: int = 512 << 20,
        prefill_tokens: int = 1024,
    ) -> None:
        self.model, self.device, self.max_length = model, model.device, max_length
        self.stats = DecoderStats()
        shapes = layer_shapes(model)
        per_token = RowCache.bytes_per_token(shapes, model.dtype)
        self._width = max_length + 1
        self.max_rows = max(1, min(max_rows, kv_bytes // (per_token * self._width)))
        self.cache = RowCache(shapes, self._width, model.dtype, self.device)
        self.pool = PrefixPool(prefix_bytes, per_token, max_length)
        self._prefill = Prefill(
            model,
            self.cache,
            self.pool,
            max_length=max_length,
            tokens_per_pass=prefill_tokens,
            stats=self.stats,
        )
        self._buffers = RowTensors.zeros(0, self._width, model.dtype, self.device)
        self._rows: list[_Row] = []
        self._step = 0
        self._longest = 0  # the longest running row's length
        self._sampling = RowSampling.stack([], self.device)
        self._stop = torch.zeros(0, 1, dtype=torch.int64, device=self.device)

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._rows)

    @property
    def free_rows(self) -> int:
        """How many more requests may join."""
        return self.max_rows - len(self._rows)

    # -- joining ------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def admit(self, requests: Sequence[Request]) -> None:
        """Compute the prompts' keys and values and add the requests to the batch.

        Raises:
            ValueError: more requests than free rows, an empty prompt, or one that with its answer is too long.
        """
        started = time.perf_counter()
        if len(requests) > self.free_rows:
            raise ValueError(f"{len(requests)} requests for {self.free_rows} free rows")
        for request in requests:
            if not request.prompt or request.max_tokens < 1:
                raise ValueError("a request needs at least one prompt token and room for one token")
            if len(request.prompt) + request.max_tokens > self.max_length:
                raise ValueError(
                    f"a prompt of {len(request.prompt)} tokens and an answer of {request.max_tokens} "
                    f"exceed {self.max_length}"
                )
        base = len(self._rows)
        self._reserve(base + len(requests))
        cached = self._prefill.fill([request.prompt for request in requests], base)
        buffers = self._buffers
        for offset, request in enumerate(requests):
            row, known = base + offset, len(request.prompt)
            buffers.tokens[row, :known] = torch.tensor(request.prompt, device=self.device)
            if not request.params.greedy:
                uniforms = draw_uniforms(request.seed, request.max_tokens).to(self.device)
                buffers.uniforms[row, known - 1 : known - 1 + request.max_tokens] = uniforms
            buffers.mask[row, : known - 1] = 0
            buffers.mask[row, known - 1 :] = float("-inf")
        now = slice(base, base + len(requests))
        lengths = torch.tensor([len(request.prompt) - 1 for request in requests], device=self.device)
        buffers.lengths[now] = lengths
        buffers.limits[now] = lengths + torch.tensor(
            [request.max_tokens for request in requests], device=self.device
        )
        self._rows += [_Row(request, self._step, hit) for request, hit in zip(requests, cached, strict=True)]
        self._composition_changed()
        self.stats.requests += len(requests)
        self.stats.prompt_tokens += sum(len(request.prompt) for request in requests)
        self.stats.prefill_seconds += time.perf_counter() - started

    def _reserve(self, rows: int) -> None:
        if rows <= self.cache.rows:
            return
        rows = min(self.max_rows, max(rows, 2 * self.cache.rows, 8))
        keep = len(self._rows)
        self.cache.resize(rows, keep)
        old = self._buffers
        self._buffers = RowTensors.zeros(rows, self._width, self.model.dtype, self.device)
        for new, tensor in zip(self._buffers.all(), old.all(), strict=True):
            new[:keep] = tensor[:keep]

    # -- one step -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self) -> list[tuple[Request, Completion]]:
        """Give every running request one more token; return those that ended by it.

        Raises:
            FloatingPointError: the model's logits are not finite.
        """
        started = time.perf_counter()
        n, buffers = len(self._rows), self._buffers
        if not n:
            return []
        positions = buffers.lengths[:n]
        flat = buffers.first[:n] + positions
        buffers.mask.view(-1).index_fill_(0, flat, 0.0)
        span = min(self._width, -(-(self._longest + 1) // _SPAN_STEP) * _SPAN_STEP)
        self.cache.begin_decode(positions, span)
        before = time.perf_counter()
        logits = self.model(
            input_ids=buffers.tokens.view(-1)[flat][:, None],
            position_ids=positions[:, None],
            attention_mask=buffers.mask[:n, None, None, :span],
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        after = time.perf_counter()
        tokens, log_probs = sample(logits, self._sampling, buffers.uniforms.view(-1)[flat])
        buffers.log_probs.view(-1).index_copy_(0, flat, log_probs)
        buffers.tokens.view(-1).index_copy_(0, flat + 1, tokens)
        positions += 1
        stopped = (tokens[:, None] == self._stop).any(1)
        ends = stopped | (positions >= buffers.limits[:n])
        # The step's one wait for the device.
        ended, finite = torch.stack([ends, log_probs.isfinite()]).tolist()
        if False in finite:
            raise overflow(self.model.dtype)
        self._step += 1
        self._longest += 1
        now = time.perf_counter()
        stats = self.stats
        stats.decode_steps += 1
        stats.generated_tokens += n
        stats.forward_seconds += after - before
        stats.sample_seconds += now - after
        finished = []
        if True in ended:
            rows = [row for row, end in enumerate(ended) if end]
            reasons: list[Finish] = ["stop" if stop else "length" for stop in stopped[rows].tolist()]
            finished = self._leave(rows, reasons)
        stats.decode_seconds += time.perf_counter() - started
        return finished

    @torch.inference_mode()
    def abort(self) -> list[tuple[Request, Completion]]:
        """End every running request now; their completions hold what they have."""
        return self._leave(list(range(len(self._rows))), ["aborted"] * len(self._rows))

    def _leave(self, rows: list[int], reasons: list[Finish]) -> list[tuple[Request, Completion]]:
        finished = []
        for row, reason in zip(rows, reasons, strict=True):
            entry = self._rows[row]
            known, made = len(entry.request.prompt), self._step - entry.started
            sequence = self._buffers.tokens[row, : known + made].tolist()
            log_probs = self._buffers.log_probs[row, known - 1 : known - 1 + made].tolist()
            finished.append((entry.request, Completion(sequence[known:], log_probs, reason, entry.cached)))
            in_cache = sequence[: known + made - 1]  # the newest token has not been an input yet
            if self.pool.enabled and made > 1 and self.pool.wants(in_cache):
                self.pool.add(in_cache, self.cache.save(row, len(in_cache)))
        self._close_gaps(rows)
        return finished

    def _close_gaps(self, left: list[int]) -> None:
        """Move rows from the end of the batch into the places of those that left."""
        remaining = len(self._rows) - len(left)
        gone = set(left)
        gaps = [row for row in left if row < remaining]
        movers = [row for row in range(remaining, len(self._rows)) if row not in gone]
        if gaps:
            source, target = torch.tensor(movers, device=self.device), torch.tensor(gaps, device=self.device)
            self.cache.move(source, target, min(self._longest + 1, self._width))
            for tensor in self._buffers.all():
                tensor[target] = tensor[source]
            for mover, gap in zip(movers, gaps, strict=True):
                self._rows[gap] = self._rows[mover]
        del self._rows[remaining:]
        self._composition_changed()

    def _composition_changed(self) -> None:
        params = [row.request.params for row in self._rows]
        self._sampling = RowSampling.stack(params, self.device)
        width = max((len(p.stop_token_ids) for p in params), default=0) or 1
        stop = [list(p.stop_token_ids) + [-1] * (width - len(p.stop_token_ids)) for p in params]
        self._stop = torch.tensor(stop, dtype=torch.int64, device=self.device).view(len(params), width)
        self._longest = max(
            (len(row.request.prompt) - 1 + self._step - row.started for row in self._rows), default=0
        )

    # -- between batches ----------------------------------------------------------------------------------------------

    def forget_prefixes(self) -> None:
        """Drop all kept keys and values of finished requests. Call it whenever the weights change."""
        self.pool.clear()

    def free_memory(self) -> None:
        """Give back the cache's memory; it is allocated again when needed.

        Raises:
            RuntimeError: requests are running.
        """
        if self._rows:
            raise RuntimeError(f"{len(self._rows)} requests are running")
        self.pool.clear()
        self.cache.free()
        self._buffers = RowTensors.zeros(0, self._width, self.model.dtype, self.device)
