"""Batches in one order, however the trajectories happened to finish.

verl's replay buffer hands trajectories out in the order in which they arrived, so gradients are summed in another
order in every run. `OrderedReplayBuffer` wraps it, sorts each batch by (dataset row, sample, output), and lets a screen
take rows out; everything else is the wrapped buffer's. It can also tell of validation problems when their trajectories
are there, long before the batch is.
"""

from collections.abc import Callable
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta

from cleaner.trajectory_rows import column_values

# Into how many parts a validation batch is divided at most, roughly.
_MOST_PARTS = 100


class OrderedReplayBuffer:
    """verl's replay buffer with a reproducible order and an observer of every batch.

    Args:
        inner: the replay buffer that verl built from its configuration.
        screen: called with each batch before the trainer sees it, the training step and the number of prompts that it
            is of; returns what is left of it, and metrics. Validation batches are cleared by verl before any of its
            own hooks runs, so this is the one place where their rows can still be read.
        observe: called with the trajectories of finished validation problems, a few problems at a time, and the
            training step.
    """

    def __init__(
        self,
        inner: Any,
        screen: Callable[[KVBatchMeta, int, int], tuple[KVBatchMeta, dict[str, float]]],
        observe: Callable[[KVBatchMeta, int], None] | None = None,
    ) -> None:
        self._inner = inner
        self._screen = screen
        self._observe = observe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def watch(self, check: Callable[[], None]) -> None:
        """Call `check` each time before the wrapped buffer waits for trajectories; what it raises ends the waiting."""
        wait = self._inner._wait_for_next_poll

        def checked(*args: Any) -> Any:
            check()
            return wait(*args)

        self._inner._wait_for_next_poll = checked

    def sample(
        self, global_steps: int, partition_id: str, batch_size: int
    ) -> tuple[KVBatchMeta, dict[str, Any]]:
        """The wrapped buffer's next batch, sorted and screened, and its metrics."""
        if partition_id == "val" and self._observe is not None:
            batch, metrics = self._bit_by_bit(global_steps, partition_id, batch_size, self._observe)
        else:
            batch, metrics = self._inner.sample(
                global_steps=global_steps, partition_id=partition_id, batch_size=batch_size
            )
        batch, more = self._screen(in_dataset_order(batch), global_steps, batch_size)
        return batch, {**metrics, **more}

    def _bit_by_bit(
        self, step: int, partition_id: str, problems: int, observe: Callable[[KVBatchMeta, int], None]
    ) -> tuple[KVBatchMeta, dict[str, Any]]:
        """The batch that the wrapped buffer would give, taken from it in bits, as problems finish."""
        parts: list[KVBatchMeta] = []
        metrics: dict[str, Any] = {}
        # Each look at the queue lists all that is in it.
        size = max(1, problems // _MOST_PARTS)
        for taken in range(0, problems, size):
            part, metrics = self._inner.sample(
                global_steps=step, partition_id=partition_id, batch_size=min(size, problems - taken)
            )
            if part.keys:
                observe(part, step)
                parts.append(part)
        return KVBatchMeta.concat(parts) if parts else KVBatchMeta(partition_id=partition_id), metrics


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
