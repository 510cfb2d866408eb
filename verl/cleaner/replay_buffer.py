"""Batches in one order, however the trajectories happened to finish.

verl's replay buffer hands trajectories out in the order in which they arrived, so gradients are summed in another
order in every run. `OrderedReplayBuffer` wraps it and sorts each batch by (dataset row, sample, output); everything
else is the wrapped buffer's.
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
        on_sample: called with each batch before the trainer sees it; validation batches are cleared by verl
            before any of its own hooks runs, so this is the one place where their rows can still be read.
    """

    def __init__(self, inner: Any, on_sample: Callable[[KVBatchMeta], None]) -> None:
        self._inner = inner
        self._on_sample = on_sample

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def sample(self, *args: Any, **kwargs: Any) -> tuple[KVBatchMeta, dict[str, Any]]:
        """The wrapped buffer's next batch, sorted, and its metrics."""
        batch, metrics = self._inner.sample(*args, **kwargs)
        batch = in_dataset_order(batch)
        self._on_sample(batch)
        return batch, metrics


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
