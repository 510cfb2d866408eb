"""What the decoder keeps for each row beside keys and values, as tensors over all rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class RowTensors:
    """Tensors of all rows; (rows, length + 1) unless said otherwise. Column p belongs to position p of the sequence."""

    tokens: torch.Tensor  # int64
    log_probs: torch.Tensor  # float64; column p: of the token at p + 1
    uniforms: torch.Tensor  # float64; column p: chooses the token at p + 1
    mask: torch.Tensor  # model dtype, additive: 0 where the row has a token, -inf elsewhere; (rows, length)
    lengths: torch.Tensor  # (rows,) int64: tokens in the cache = position of the next input
    limits: torch.Tensor  # (rows,) int64: the row ends when its length reaches this
    first: torch.Tensor = field(init=False)  # (rows,) flat index of column 0

    def __post_init__(self) -> None:
        rows, width = self.tokens.shape
        self.first = torch.arange(rows, device=self.tokens.device) * width

    @classmethod
    def zeros(cls, rows: int, width: int, dtype: torch.dtype, device: torch.device) -> RowTensors:
        def full(value: float, kind: torch.dtype, *shape: int) -> torch.Tensor:
            return torch.full(shape, value, dtype=kind, device=device)

        return cls(
            tokens=full(0, torch.int64, rows, width),
            log_probs=full(0, torch.float64, rows, width),
            uniforms=full(0, torch.float64, rows, width),
            mask=full(float("-inf"), dtype, rows, width),
            lengths=full(0, torch.int64, rows),
            limits=full(0, torch.int64, rows),
        )

    def all(self) -> tuple[torch.Tensor, ...]:
        return self.tokens, self.log_probs, self.uniforms, self.mask, self.lengths, self.limits
