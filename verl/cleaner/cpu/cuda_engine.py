"""verl's FSDP engine on CUDA where flash attention isn't installed: a small model trains on one GPU without it.

verl looks for an engine of the device and its vendor before it takes the device's own, so this replaces nothing.
Imported by ``cleaner.cpu.backend`` on such a machine only.
"""

from __future__ import annotations

from verl.workers.engine import EngineRegistry

from cleaner.cpu.padded_log_probs import PaddedLogProbs


@EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor="nvidia"
)
class CUDAEngineWithLMHead(PaddedLogProbs):
    """Actor and reference model on CUDA without flash attention."""
