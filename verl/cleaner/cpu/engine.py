"""verl's FSDP2 training engines for the device type "cpu".

Three things of upstream's engine need an accelerator and are avoided here: FSDP1 (``sync_module_states``), the
pinned-memory ``CPUOffloadPolicy`` that upstream forces on forward-only (reference) models, and the flash attention with
which it loads every value model.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoModelForTokenClassification
from verl.utils.torch_dtypes import PrecisionType
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithValueHead

from cleaner.cpu.padded_log_probs import PaddedLogProbs


class _FSDP2OnCPU:
    """Mixin before an upstream FSDP engine."""

    engine_config: Any

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """Wrap ``module`` by FSDP2 without offloading (there is nowhere to offload to).

        Raises:
            ValueError: the configured strategy isn't ``fsdp2``.
        """
        original = self.engine_config
        strategy = getattr(original, "strategy", None)
        if strategy != "fsdp2":
            raise ValueError(
                f"training on CPU needs strategy=fsdp2, not {strategy!r}: set actor_rollout_ref.actor.strategy=fsdp2 "
                "and actor_rollout_ref.actor.fsdp_config.strategy=fsdp2 (likewise for ref and critic)"
            )
        resident = copy.copy(original)
        # Either flag would ask for the pinned CPUOffloadPolicy.
        for flag in ("forward_only", "offload_policy"):
            object.__setattr__(resident, flag, False)  # verl's configurations refuse ordinary assignment
        self.engine_config = resident
        try:
            return super()._build_fsdp_module(module)  # type: ignore[misc]
        finally:
            self.engine_config = original


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPUEngineWithLMHead(_FSDP2OnCPU, PaddedLogProbs):
    """Actor and reference model on CPU."""


@EngineRegistry.register(model_type="value_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPUEngineWithValueHead(_FSDP2OnCPU, FSDPEngineWithValueHead):
    """Critic on CPU: the model's trunk with a token classification head of one label."""

    def _build_module(self) -> torch.nn.Module:
        """The value model, every rank loading all of it.

        Raises:
            ValueError: the configuration asks for packed sequences, which need flash attention.
        """
        if self.use_remove_padding:
            raise ValueError("a critic on CPU needs critic.model.use_remove_padding=False")
        config = self.model_config.hf_config
        config.num_labels = 1
        config.classifier_dropout = 0.0
        dtype = PrecisionType.to_dtype(self.engine_config.model_dtype or torch.float32)
        module = AutoModelForTokenClassification.from_pretrained(
            self.model_config.local_path,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa",
            trust_remote_code=self.model_config.trust_remote_code,
        ).to(dtype)
        if self.model_config.enable_gradient_checkpointing:
            module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return module
