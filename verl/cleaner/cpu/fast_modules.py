"""Faster forms of three parts of a transformers model, put into one model instance where they are known to be equal.

At a small model's size most of a decoding step is the dispatch of small operations. No class is patched, and a part is
replaced only after its own output has been compared with the replacement's.

- RMS normalisation in one call. transformers computes it in float32 whatever the model's type; in float64 that would
  bring back the dependence on rounding which float64 is there to avoid. Used for float32 and float64 only.
- Rotary embedding looked up in a table made by the model's own module. Used where the angles depend on the position
  alone.
- Attention of one new token per row without repeating keys and values for grouped queries: the queries of a group
  become rows of one query block. It is registered as ``cleaner_grouped_sdpa``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import embedding, rms_norm, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

GROUPED_SDPA = "cleaner_grouped_sdpa"
_STATIC_ROTARY = {"default", "linear", "llama3", "yarn"}


def grouped_sdpa(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface.

    query is (b, heads, q, d), key and value are (b, kv heads, k, d), the answer is (b, q, heads, d). A single query per
    row attends without causal masking; anything longer is transformers' own ``sdpa``.
    """
    batch, heads, length, size = query.shape
    if length != 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    groups = key.shape[1]
    query = query.reshape(batch, groups, heads // groups, size)
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return output.reshape(batch, 1, heads, output.shape[-1]), None


AttentionInterface.register(GROUPED_SDPA, grouped_sdpa)


def install(model: PreTrainedModel, max_length: int) -> list[str]:
    """Replace what can be replaced in ``model``, which must be in its final data type.

    Args:
        model: changed in place.
        max_length: positions that occur are below this.

    Returns:
        what was replaced, for the log: names of "attention", "rms_norm", "rotary".
    """
    done = []
    if model._supports_attention_backend and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(GROUPED_SDPA)
        done.append("attention")
    if model.dtype in (torch.float32, torch.float64):
        norms = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm")]
        replaced = [_replace_rms_norm(module) for module in norms]
        if any(replaced):
            done.append("rms_norm")
    replaced = [_replace_rotary(module, max_length, model.dtype) for module in list(model.modules())]
    if any(replaced):
        done.append("rotary")
    return done


def _replace_rms_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(weight, nn.Parameter) or weight.dim() != 1 or not isinstance(epsilon, float):
        return False
    if set(dict(module.named_parameters(recurse=False))) != {"weight"} or list(module.children()):
        return False
    size = tuple(weight.shape)

    def forward(hidden_states: torch.Tensor) -> torch.Tensor:
        return rms_norm(hidden_states, size, module.weight, epsilon)  # type: ignore[arg-type]

    with torch.no_grad():
        kept = weight.detach().clone()
        generator = torch.Generator().manual_seed(0)
        weight.copy_(torch.rand(size, generator=generator) + 0.5)  # ones would hide a "1 + weight"
        probe = (torch.randn(4, *size, generator=generator) * 3).to(weight)
        equal = torch.allclose(module(probe), forward(probe), rtol=1e-5, atol=1e-5)
        weight.copy_(kept)
    return equal and _override(module, forward)


def _replace_rotary(module: nn.Module, max_length: int, dtype: torch.dtype) -> bool:
    if getattr(module, "rope_type", None) not in _STATIC_ROTARY:
        return False
    if list(inspect.signature(module.forward).parameters) != ["x", "position_ids"]:
        return False
    buffer = next(module.buffers(), None)
    device = buffer.device if buffer is not None else torch.device("cpu")
    positions = torch.arange(max_length, device=device)[None]
    with torch.no_grad():
        tables = module(torch.zeros(1, 1, 1, dtype=dtype, device=device), positions)
    if len(tables) != 2 or any(table.shape[:2] != (1, max_length) or table.dim() != 3 for table in tables):
        return False
    module.register_buffer("cleaner_cos", tables[0][0].contiguous(), persistent=False)
    module.register_buffer("cleaner_sin", tables[1][0].contiguous(), persistent=False)

    def forward(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return embedding(position_ids, module.cleaner_cos), embedding(position_ids, module.cleaner_sin)  # type: ignore[arg-type]

    return _override(module, forward)


def _override(module: nn.Module, forward: Callable[..., Any]) -> bool:
    module.forward = forward  # type: ignore[method-assign]  # on this instance only
    return True
