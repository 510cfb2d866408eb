"""Keys and values of the running requests: one fixed row of memory for each, written in place.

A row holds one request. The rows of running requests are 0..n-1, so that attention reads one contiguous block. Rows
differ in length; what lies beyond a row's length is finite rubbish that the attention mask hides.

transformers calls :meth:`RowCache.update` once for each layer of a forward pass; what the pass means is set before by
:meth:`begin_decode` or :meth:`begin_prefill`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of one request's prefix, for each layer: (heads, tokens, head size) each."""


@dataclass(frozen=True)
class LayerShape:
    """What one layer caches for a token."""

    heads: int
    key_size: int
    value_size: int


class _Layer(CacheLayerMixin):
    """Placeholder that transformers can ask; the tensors belong to :class:`RowCache`."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        raise NotImplementedError("RowCache allocates its layers itself")

    def update(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError("call RowCache.update")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_cache_shape(self) -> int:
        return -1


class ShapeProbe(Cache):
    """Learns each layer's :class:`LayerShape` from one forward pass of one token."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.shapes: dict[int, LayerShape] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.shapes[layer_idx] = LayerShape(key_states.shape[1], key_states.shape[-1], value_states.shape[-1])
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return query_length, 0


class RowCache(Cache):
    """See the module's text.

    Args:
        shapes: one for each layer.
        length: tokens that a row can hold.
        dtype, device: of the tensors.
    """

    def __init__(
        self, shapes: list[LayerShape], length: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(layers=[_Layer() for _ in shapes])
        self.shapes, self.length, self.dtype, self.device = shapes, length, dtype, device
        self.rows = 0
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._targets: dict[int, torch.Tensor] = {}  # heads -> flat destination of each written vector
        self._read_rows: slice | torch.Tensor | None = None
        self._span = 0
        self._valid: torch.Tensor | None = None

    @staticmethod
    def bytes_per_token(shapes: list[LayerShape], dtype: torch.dtype) -> int:
        return sum(s.heads * (s.key_size + s.value_size) for s in shapes) * dtype.itemsize

    def resize(self, rows: int, keep: int) -> None:
        """Reallocate for ``rows`` rows; the first ``keep`` rows stay. Zeros elsewhere: never NaN, which a mask
        would not hide, and on CPU not resident before it is written."""
        for index, shape in enumerate(self.shapes):
            for tensors, size in ((self._keys, shape.key_size), (self._values, shape.value_size)):
                new = torch.zeros(rows, shape.heads, self.length, size, dtype=self.dtype, device=self.device)
                if index < len(tensors):
                    new[:keep] = tensors[index][:keep]
                    tensors[index] = new
                else:
                    tensors.append(new)
        self.rows = rows

    def free(self) -> None:
        """Give the memory back."""
        self._keys, self._values, self.rows = [], [], 0

    # -- one forward pass ---------------------------------------------------------------------------------------------

    def begin_decode(self, positions: torch.Tensor, span: int) -> None:
        """The next pass has one token for each of the first n rows, at ``positions`` (n,); it reads ``span`` tokens."""
        rows = torch.arange(positions.shape[0], device=self.device)
        self._begin(rows, positions, slice(0, positions.shape[0]), span)
        self._valid = None

    def begin_prefill(
        self, rows: torch.Tensor, positions: torch.Tensor, valid: torch.Tensor | None, span: int
    ) -> None:
        """The next pass has T tokens for each of b rows.

        Args:
            rows: (b,) row numbers.
            positions: (b, T) where each token goes.
            valid: (b, T) bool, False for padding, which is not written; None: no padding.
            span: how many tokens of these rows attention reads; 0: it sees the pass's own tokens only.
        """
        flat_rows = rows[:, None].expand_as(positions)
        if valid is not None:
            self._valid = valid.reshape(-1).nonzero().squeeze(1)
            self._begin(flat_rows[valid], positions[valid], rows, span)
        else:
            self._valid = None
            self._begin(flat_rows.reshape(-1), positions.reshape(-1), rows, span)

    def _begin(
        self, rows: torch.Tensor, positions: torch.Tensor, read: slice | torch.Tensor, span: int
    ) -> None:
        self._targets = {}
        for heads in {shape.heads for shape in self.shapes}:
            first = rows[:, None] * heads + torch.arange(heads, device=self.device)
            self._targets[heads] = (first * self.length + positions[:, None]).reshape(-1)
        self._read_rows, self._span = read, span

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one layer's new keys and values (b, heads, T, size); return what attention shall read."""
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        targets = self._targets[key_states.shape[1]]
        for store, states in ((keys, key_states), (values, value_states)):
            if states.shape[2] == 1 and self._valid is None:
                vectors = states.reshape(-1, states.shape[-1])
            else:
                vectors = states.transpose(1, 2).flatten(0, 1)  # (b * T, heads, size)
                if self._valid is not None:
                    vectors = vectors[self._valid]
                vectors = vectors.reshape(-1, states.shape[-1])
            store.view(-1, states.shape[-1]).index_copy_(0, targets, vectors)
        if self._span == 0:
            return key_states, value_states
        return keys[self._read_rows, :, : self._span], values[self._read_rows, :, : self._span]

    # -- rows as a whole ----------------------------------------------------------------------------------------------

    def move(self, source: torch.Tensor, target: torch.Tensor, span: int) -> None:
        """Copy the first ``span`` tokens of the rows ``source`` to the rows ``target`` (disjoint)."""
        for store in (*self._keys, *self._values):
            store[target, :, :span] = store[source, :, :span]

    def save(self, row: int, length: int) -> Layers:
        """A copy of the row's first ``length`` tokens."""
        return [
            (keys[row, :, :length].clone(), values[row, :, :length].clone())
            for keys, values in zip(self._keys, self._values, strict=True)
        ]

    def load(self, row: int, layers: Layers, length: int) -> None:
        """Write the first ``length`` tokens of a saved prefix into the row."""
        for keys, values, (saved_keys, saved_values) in zip(self._keys, self._values, layers, strict=True):
            keys[row, :, :length] = saved_keys[:, :length]
            values[row, :, :length] = saved_values[:, :length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return query_length, 0


def layer_shapes(model: PreTrainedModel) -> list[LayerShape]:
    """The layers' cache shapes, learnt from a pass of one token.

    Raises:
        ValueError: some layer doesn't cache keys and values of the whole sequence.
    """
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise ValueError(
            f"the rollout server hf_server needs full attention in every layer; this model ({config.model_type}) has "
            f"{', '.join(sorted(kinds))}"
        )
    probe = ShapeProbe()
    one = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    with torch.inference_mode():
        model.base_model(input_ids=one, position_ids=one, past_key_values=probe, use_cache=True)
    layers = len(probe.shapes)
    if not layers or layers != config.num_hidden_layers:
        raise ValueError(
            f"the rollout server hf_server cannot serve {config.model_type}: {layers} of its "
            f"{config.num_hidden_layers} layers keep keys and values in the cache that transformers hands them"
        )
    return [probe.shapes[index] for index in range(layers)]
