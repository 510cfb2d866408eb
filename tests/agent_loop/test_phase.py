"""Training and validation batches are told apart, and nothing else of a batch changes but what is asked for."""

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from cleaner.phase import VALIDATE_KEY, PhaseMarker

PER_PROMPT_KEY = "__rollout_n__"


class Manager:
    name = "manager"
    batch: TensorDict

    def generate_sequences(self, batch: TensorDict) -> str:
        self.batch = batch
        return "started"


def passed_on(per_prompt: int | None, *, validate: bool) -> TensorDict:
    """A batch of four rows as the manager gets it."""
    manager = Manager()
    batch = TensorDict({"x": torch.arange(8).reshape(4, 2)}, batch_size=4)
    if validate:
        tu.assign_non_tensor_data(batch, "validate", True)
    assert PhaseMarker(manager, per_prompt).generate_sequences(batch) == "started"
    return manager.batch


def chunks_have(batch: TensorDict, key: str) -> list[Any]:
    """What each half of the batch, as verl cuts it for its workers, says."""
    return [tu.get(chunk, key, None) for chunk in batch.chunk(2)]


@pytest.mark.parametrize("validate", [False, True])
def test_every_batch_says_whether_it_is_validation(validate: bool) -> None:
    batch = passed_on(None, validate=validate)
    assert chunks_have(batch, VALIDATE_KEY) == [validate, validate]
    assert chunks_have(batch, "validate") == [validate or None] * 2
    assert batch["x"].tolist() == torch.arange(8).reshape(4, 2).tolist()


def test_everything_else_of_the_manager_is_its_own() -> None:
    assert PhaseMarker(Manager()).name == "manager"


@pytest.mark.parametrize(
    ("per_prompt", "validate", "asked"),
    [(6, False, 6), (6, True, None), (None, False, None), (None, True, None)],
)
def test_more_trajectories_are_asked_for_in_training_only(
    per_prompt: int | None, validate: bool, asked: int | None
) -> None:
    batch = passed_on(per_prompt, validate=validate)
    assert chunks_have(batch, PER_PROMPT_KEY) == [asked, asked]
    assert (PER_PROMPT_KEY in batch.keys()) is (asked is not None)  # noqa: SIM118 (a tensordict is no dict)
