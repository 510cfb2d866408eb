"""The rollout server's model: building it, its limits, and taking new weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from verl.workers.config import HFModelConfig, RolloutConfig

from cleaner.cpu import fast_modules
from cleaner.cpu.options import HFServerOptions


def build_model(
    model_config: HFModelConfig, options: HFServerOptions, max_length: int, *, load: bool
) -> PreTrainedModel:
    """A causal LM in evaluation mode on the options' device and in their data type.

    Args:
        model_config: verl's model configuration.
        options: the server's settings.
        max_length: longest prompt and answer together, in tokens.
        load: read the weights from ``model_config.local_path``; otherwise they are random until they are replaced.
    """
    dtype = options.torch_dtype
    arguments: dict[str, Any] = {
        "dtype": dtype,
        "attn_implementation": "sdpa",
        "trust_remote_code": model_config.trust_remote_code,
    }
    if load:
        model = AutoModelForCausalLM.from_pretrained(
            model_config.local_path, config=model_config.hf_config, **arguments
        )
    else:
        model = AutoModelForCausalLM.from_config(model_config.hf_config, **arguments)
    model = model.to(device=torch.device(options.device), dtype=dtype).eval().requires_grad_(False)
    if options.fast_modules:
        fast_modules.install(model, max_length + 1)
    return model


def context_length(config: RolloutConfig, hf_config: Any) -> int:
    """Longest prompt and answer together, in tokens: verl's lengths within the model's own limit.

    Raises:
        ValueError: no positive length remains.
    """
    limits = {
        "prompt_length + response_length": config.prompt_length + config.response_length,
        "max_model_len": config.max_model_len,
        "the model's max_position_embeddings": getattr(
            hf_config.get_text_config(decoder=True), "max_position_embeddings", None
        ),
    }
    length = min(limit for limit in limits.values() if limit is not None)
    if length < 2:
        named = ", ".join(f"{name} = {limit}" for name, limit in limits.items())
        raise ValueError(f"no room for a prompt and an answer: {named}")
    return length


def end_token_ids(model_config: HFModelConfig) -> tuple[int, ...]:
    """The tokens that end an answer: the tokenizer's and the generation configuration's."""
    found: set[int] = set()
    sources = (model_config.tokenizer, model_config.generation_config or model_config.hf_config)
    for value in (getattr(source, "eos_token_id", None) for source in sources):
        found.update([value] if isinstance(value, int) else value or [])
    return tuple(sorted(found))


class WeightReceiver:
    """Takes one complete set of weights, in any number of parts.

    Args:
        model: the parts are copied into it at once.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._targets: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
        persistent = model.state_dict(keep_vars=True)
        self._targets.update((name, t) for name, t in model.named_buffers() if name in persistent)
        self._received: set[int] = set()

    def load(self, named_tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Copy tensors into the model.

        Raises:
            ValueError: a name or a shape that the model doesn't have.
        """
        with torch.no_grad():
            for name, tensor in named_tensors:
                target = self._targets.get(name)
                if target is None:
                    raise ValueError(f"weight update: the model has no parameter {name!r}")
                if target.shape != tensor.shape:
                    raise ValueError(
                        f"weight update: {name} has shape {tuple(tensor.shape)}, the model's is {tuple(target.shape)}"
                    )
                target.copy_(tensor)
                self._received.add(id(target))

    def check_complete(self) -> None:
        """Raise ValueError unless every parameter arrived (tied ones under one of their names)."""
        missing = [name for name, target in self._targets.items() if id(target) not in self._received]
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise ValueError(
                f"weight update: {len(missing)} of {len(self._targets)} weights did not arrive: {shown}"
            )
