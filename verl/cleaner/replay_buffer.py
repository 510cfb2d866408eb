"""Batches in one order, however the trajectories happened to finish.

verl's replay buffer hands trajectories out in the order in which they arrived, so gradients are summed in another
order in every run. `OrderedReplayBuffer` wraps it, sorts each batch by (dataset row, sample, output), and lets a screen
take rows out; everything else is the wrapped buffer's.
"""

from collections.abc import Callable
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta

from cleaner.trajectory_rows import column_values


class OrderedReplayBuffer:
    """verl's replay buffer with a reproducible order and an observer of every batch.

    Args:
        inner: the replay buffer that verl built from its configuration.
        screen: called with each batch before the trainer sees it, the training step and the number of prompts that it
            is of; returns what is left of it, and metrics. Validation batches are cleared by verl before any of its
            own hooks runs, so this is the one place where their rows can still be read.
    """

    def __init__(
        self, inner: Any, screen: Callable[[KVBatchMeta, int, int], tuple[KVBatchMeta, dict[str, float]]]
    ) -> None:
        self._inner = inner
        self._screen = screen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def sample(
        self, global_steps: int, partition_id: str, batch_size: int
    ) -> tuple[KVBatchMeta, dict[str, Any]]:
        """The wrapped buffer's next batch, sorted and screened, and its metrics."""
        batch, metrics = self._inner.sample(
            global_steps=global_steps, partition_id=partition_id, batch_size=batch_size
        )
        batch, more = self._screen(in_dataset_order(batch), global_steps, batch_size)
        return batch, {**metrics, **more}


def in_dataset_order(batch: KVBatchMeta) -> KVBatchMeta:
    """Sort the batch's trajectories by dataset row, then sample number, then output number."""
    if not batch.keys:
        return batch
    rows = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["index"])
    indices = [int(index) for index in column_values(rows["index"])]

    def position(i: int) -> tuple[int, str, int, int]:
        uid, session, output = batch.keys[i].rsplit("_", 2)
        return indices[i], uid, int(session), int(output)

    batch.reorder(sorted(range(len(batch.keys)), key=position))
    return batch
