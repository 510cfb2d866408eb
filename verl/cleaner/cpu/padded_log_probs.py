"""Log-probabilities of padded rows, all tokens at once, for verl's FSDP engines where flash attention is missing.

Without its kernel upstream takes one token after the other: on CPU that costs more than a small model itself, on a
GPU it is several launches for each of ten thousand tokens. The price is memory, another two times the logits in
float32, so this is for small models and vocabularies; a large model is trained without padding, which needs flash
attention anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead


class PaddedLogProbs(FSDPEngineWithLMHead):  # type: ignore[misc]
    """Upstream's engine of a language model, with these log-probabilities where rows are padded."""

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, Any]:
        """Upstream's outputs; it leaves the log-probabilities out when it is told that only a distillation loss needs
        the model."""
        if any(
            tu.get_non_tensor_data(micro_batch, name, default)
            for name, default in (
                ("use_remove_padding", True),
                ("use_fused_kernels", False),
                ("distillation_only", False),
            )
        ):
            return dict(
                super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
            )
        without_log_probs = micro_batch.copy()
        tu.assign_non_tensor_data(without_log_probs, "distillation_only", True)
        outputs = dict(
            super().prepare_model_outputs(output, output_args, without_log_probs, logits_processor_func)
        )
        outputs["log_probs"] = log_probs(output.logits, output_args, micro_batch["input_ids"].offsets())
        return outputs


def log_probs(logits: torch.Tensor, output_args: dict[str, Any], offsets: torch.Tensor) -> torch.Tensor:
    """Log-probability of each row's next tokens, as a jagged tensor; the last of a row is undefined, as upstream's.

    Args:
        logits: (rows, longest, vocabulary), padded on the right, of any floating type.
        output_args: what upstream's `prepare_model_inputs` noted: next tokens and temperatures.
        offsets: (rows + 1,), where each row's tokens begin.

    Returns:
        (rows, jagged), computed in float32 at least: autocast raises the type of a softmax on CUDA but not on CPU, and
        in float16 a log-probability of -8 is off by up to 1/256.
    """
    is_token = torch.arange(logits.size(1), device=logits.device) < offsets.diff().unsqueeze(1)
    if not output_args.get("temperature_is_one", False):
        temperature = output_args["temperature"].view(-1, 1, 1).clamp(min=1e-8)
        logits = logits / temperature.to(logits.dtype)
    labels = output_args["input_ids_rmpad_rolled"].unsqueeze(-1)
    tokens = logits[is_token]
    wide = torch.promote_types(tokens.dtype, torch.float32)
    chosen = torch.log_softmax(tokens, dim=-1, dtype=wide).gather(-1, labels).squeeze(-1)
    return torch.nested.nested_tensor_from_jagged(chosen, offsets)
