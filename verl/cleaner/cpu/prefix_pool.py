"""Keys and values of earlier requests, kept so that a request that extends one needn't compute its prompt anew.

A later turn of a trajectory repeats everything before it, K look-ahead requests repeat the failed turn's history, and
the n samples of one prompt begin alike. Entries are found by their tokens, not by request id: verl's client gives
every turn a fresh id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cleaner.cpu.kv_cache import Layers

_NO_TOKEN = -1  # fills the table's unused places; equals no token id


class PrefixPool:
    """A store of prefixes with a bounded size; the least recently used go first.

    Args:
        max_bytes: bound of the kept tensors; 0 keeps nothing.
        bytes_per_token: size of one token's keys and values in all layers.
        max_length: longest prefix in tokens.
    """

    def __init__(self, max_bytes: int, bytes_per_token: int, max_length: int) -> None:
        self.capacity = max_bytes // max(bytes_per_token, 1)
        self._table = np.full((16, max_length), _NO_TOKEN, dtype=np.int64)  # one entry's tokens a row
        self._layers: list[Layers] = []
        self._lengths: list[int] = []
        self._used: list[int] = []
        self._clock = 0
        self._tokens = 0

    def __len__(self) -> int:  # entries
        return len(self._layers)

    @property
    def enabled(self) -> bool:
        """Whether it keeps anything at all."""
        return self.capacity > 0

    @property
    def tokens(self) -> int:
        """Tokens in all entries together."""
        return self._tokens

    def common(self, tokens: Sequence[int]) -> tuple[Layers | None, int]:
        """The entry with the longest common beginning with ``tokens``, and that beginning's length (None, 0: none)."""
        if not self._layers or not tokens:
            return None, 0
        lengths = self._common_lengths(np.asarray(tokens, dtype=np.int64))
        best = int(lengths.argmax())
        if not lengths[best]:
            return None, 0
        self._touch(best)
        return self._layers[best], int(lengths[best])

    def wants(self, tokens: Sequence[int]) -> bool:
        """Whether :meth:`add` would store something new: not too long for the pool, and in no entry yet."""
        if not 0 < len(tokens) <= min(self.capacity, self._table.shape[1]):
            return False
        return self.common(tokens)[1] < len(tokens)

    def add(self, tokens: Sequence[int], layers: Layers) -> None:
        """Store a prefix. Entries that it extends are dropped: it serves whoever they would have served."""
        row = np.asarray(tokens, dtype=np.int64)
        if len(self._layers):
            covered = self._common_lengths(row) >= np.asarray(self._lengths)
            for index in sorted(np.flatnonzero(covered).tolist(), reverse=True):
                self._drop(index)
        while self._layers and self._tokens + len(row) > self.capacity:
            self._drop(min(range(len(self._used)), key=self._used.__getitem__))
        index = len(self._layers)
        if index == self._table.shape[0]:
            self._table = np.concatenate([self._table, np.full_like(self._table, _NO_TOKEN)])
        self._table[index] = _NO_TOKEN
        self._table[index, : len(row)] = row
        self._layers.append(layers)
        self._lengths.append(len(row))
        self._used.append(0)
        self._tokens += len(row)
        self._touch(index)

    def clear(self) -> None:
        """Forget everything (the weights changed)."""
        self._layers, self._lengths, self._used, self._tokens = [], [], [], 0

    def _common_lengths(self, tokens: np.ndarray) -> np.ndarray:
        width = min(len(tokens), self._table.shape[1])
        differs = self._table[: len(self._layers), :width] != tokens[:width]
        first = differs.argmax(axis=1)
        return np.where(differs.any(axis=1), first, width)

    def _touch(self, index: int) -> None:
        self._clock += 1
        self._used[index] = self._clock

    def _drop(self, index: int) -> None:
        """Remove one entry; the last one takes its place."""
        self._tokens -= self._lengths[index]
        last = len(self._layers) - 1
        self._table[index] = self._table[last]
        columns: list[list[Any]] = [self._layers, self._lengths, self._used]
        for column in columns:
            column[index] = column[last]
            column.pop()
