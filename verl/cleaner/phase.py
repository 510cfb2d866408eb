"""Tells the agent loop whether it works for training or for validation.

verl knows, but does not say: the worker takes `validate` out of the batch and keeps it from `AgentLoop.run`
(`AgentLoopWorkerTQ.generate_sequences`), and the sampling parameters may be the same in both. Any other column of the
batch does reach `run` as a keyword argument, so the trainer marks the batches: `PhaseMarker` around its agent-loop
manager does it. It also asks for more trajectories per prompt, where a strategy samples more than it trains.
"""

from typing import Any

from tensordict import TensorDict

# Keyword argument of `CleanerAgentLoop.run`; the column travels on to the TransferQueue with the others.
VALIDATE_KEY = "cleaner_validate"
# verl's worker takes this column for the number of a prompt's trajectories.
_PER_PROMPT_KEY = "__rollout_n__"


class PhaseMarker:
    """An agent-loop manager that adds the column `cleaner_validate` (bool) to every batch it passes on.

    Args:
        per_prompt: trajectories per prompt in training; None: verl's own number.
    """

    def __init__(self, manager: Any, per_prompt: int | None = None) -> None:
        self._manager = manager
        self._per_prompt = per_prompt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def generate_sequences(self, prompts: TensorDict) -> Any:
        from verl.utils import tensordict_utils as tu

        validate = bool(tu.get(prompts, "validate", False))
        tu.assign_non_tensor_data(prompts, VALIDATE_KEY, validate)
        if self._per_prompt is not None and not validate:
            tu.assign_non_tensor_data(prompts, _PER_PROMPT_KEY, self._per_prompt)
        return self._manager.generate_sequences(prompts)
