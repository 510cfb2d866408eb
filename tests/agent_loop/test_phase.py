"""Training and validation batches are told apart, and nothing else of a batch changes."""

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from cleaner.phase import VALIDATE_KEY, PhaseMarker


class Manager:
    name = "manager"

    def generate_sequences(self, batch):
        self.batch = batch
        return "started"


def test_every_batch_says_whether_it_is_validation():
    manager = Manager()
    marker = PhaseMarker(manager)
    assert marker.name == "manager"
    for validate in (False, True):
        batch = TensorDict({"x": torch.zeros(4, 2)}, batch_size=4)
        if validate:
            tu.assign_non_tensor_data(batch, "validate", True)
        assert marker.generate_sequences(batch) == "started"
        for chunk in manager.batch.chunk(2):
            assert tu.get(chunk, VALIDATE_KEY) is validate
            assert tu.get(chunk, "validate", False) is validate


def test_more_trajectories_are_asked_for_in_training_only():
    manager = Manager()
    marker = PhaseMarker(manager, per_prompt=12)
    for validate in (False, True):
        batch = TensorDict({"x": torch.zeros(4, 2)}, batch_size=4)
        if validate:
            tu.assign_non_tensor_data(batch, "validate", True)
        marker.generate_sequences(batch)
        for chunk in manager.batch.chunk(2):
            assert tu.get(chunk, "__rollout_n__", None) == (None if validate else 12)
