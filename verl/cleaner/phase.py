"""Tells the agent loop whether it works for training or for validation.

verl knows, but does not say: the worker takes `validate` out of the batch and keeps it from `AgentLoop.run`
(`AgentLoopWorkerTQ.generate_sequences`), and the sampling parameters may be the same in both. Any other column of the
batch does reach `run` as a keyword argument, so the trainer marks the batches: `PhaseMarker` around its agent-loop
manager does it.
"""

from typing import Any

from tensordict import TensorDict

# Keyword argument of `CleanerAgentLoop.run`; the column travels on to the TransferQueue with the others.
VALIDATE_KEY = "cleaner_validate"


class PhaseMarker:
    """An agent-loop manager that adds the column `cleaner_validate` (bool) to every batch it passes on."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def generate_sequences(self, prompts: TensorDict) -> Any:
        from verl.utils import tensordict_utils as tu

        validate = bool(tu.get(prompts, "validate", False))
        tu.assign_non_tensor_data(prompts, VALIDATE_KEY, validate)
        return self._manager.generate_sequences(prompts)
