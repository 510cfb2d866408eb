"""Batched sampling from a Hugging Face model, as a ``Policy`` for ``episodes.play``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from cleaner.coldstart.encoding import encode_prompt
from cleaner.coldstart.episodes import Episode


class ModelPolicy:
    """Samples turns at temperature 1 (no top-k, no top-p); the seed fixes them for one order of calls."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        max_new_tokens: int = 110,
        batch: int = 64,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._max_new_tokens = max_new_tokens
        self._batch = batch
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, episodes: Sequence[Episode], /) -> list[str]:
        """The next turn of each conversation, turn-end token removed."""
        prompts = [encode_prompt(self._tokenizer, episode.messages) for episode in episodes]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        texts = [""] * len(prompts)
        self._model.eval()
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            for index, ids in zip(rows, self._sample([prompts[i] for i in rows]), strict=True):
                if ids and ids[-1] == self._tokenizer.eos_token_id:
                    ids = ids[:-1]
                texts[index] = str(self._tokenizer.decode(ids))
        return texts

    @torch.inference_mode()
    def _sample(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """Token ids sampled after each prompt, the end token included where it came in time."""
        width = max(map(len, prompts))
        pad = self._tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._model.config)
        sampled: list[list[int]] = [[] for _ in prompts]
        live = torch.arange(len(prompts))
        for _ in range(self._max_new_tokens):
            logits = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            chosen = torch.multinomial(logits.float().softmax(-1), 1, generator=self._generator)[:, 0]
            for row, token in zip(live.tolist(), chosen.tolist(), strict=True):
                sampled[row].append(token)
            going = (chosen != self._tokenizer.eos_token_id).nonzero()[:, 0]
            if len(going) == 0:
                break
            if len(going) < len(live):
                cache.batch_select_indices(going)
                live, chosen, mask, positions = live[going], chosen[going], mask[going], positions[going]
            ids = chosen[:, None]
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
            positions = positions[:, -1:] + 1
        return sampled
