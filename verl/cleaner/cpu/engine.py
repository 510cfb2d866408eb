"""verl's FSDP2 training engines for the device type "cpu".

Three things of upstream's engine need an accelerator and are avoided here: FSDP1 (``sync_module_states``), the
pinned-memory ``CPUOffloadPolicy`` that upstream forces on forward-only (reference) models, and the flash attention with
which it loads every value model.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from tensordict import TensorDict
from transformers import AutoModelForTokenClassification
from verl.utils import tensordict_utils as tu
from verl.utils.torch_dtypes import PrecisionType
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead


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
class CPUEngineWithLMHead(_FSDP2OnCPU, FSDPEngineWithLMHead):
    """Actor and reference model on CPU."""

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, Any]:
        """Upstream's outputs, with the log-probabilities of all tokens computed at once.

        Without flash attention's kernel upstream takes one token after the other, which on CPU costs more than the
        model itself. It leaves them out when it is told that nothing but a distillation loss needs the model.
        """
        if tu.get_non_tensor_data(micro_batch, "use_remove_padding", True) or tu.get_non_tensor_data(
            micro_batch, "distillation_only", False
        ):
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        without_log_probs = micro_batch.copy()
        tu.assign_non_tensor_data(without_log_probs, "distillation_only", True)
        outputs = super().prepare_model_outputs(output, output_args, without_log_probs, logits_processor_func)
        outputs["log_probs"] = _log_probs(output.logits, output_args, micro_batch["input_ids"].offsets())
        return outputs


def _log_probs(logits: torch.Tensor, output_args: dict[str, Any], offsets: torch.Tensor) -> torch.Tensor:
    """Log-probability of each row's next tokens, as a jagged tensor; the last of a row is undefined, as upstream's.

    Args:
        logits: (rows, longest, vocabulary), padded on the right.
        output_args: what upstream's `prepare_model_inputs` noted: next tokens and temperatures.
        offsets: (rows + 1,), where each row's tokens begin.
    """
    is_token = torch.arange(logits.size(1)) < offsets.diff().unsqueeze(1)
    if not output_args.get("temperature_is_one", False):
        temperature = output_args["temperature"].view(-1, 1, 1).clamp(min=1e-8)
        logits = logits / temperature.to(logits.dtype)
    labels = output_args["input_ids_rmpad_rolled"].unsqueeze(-1)
    chosen = torch.log_softmax(logits[is_token], dim=-1).gather(-1, labels).squeeze(-1)
    return torch.nested.nested_tensor_from_jagged(chosen, offsets)


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
