"""What is taken out of a batch before the trainer sees it: failed trajectories, those that the strategy does not
select, and negative samples beyond the limit. What is taken out is cleared from the TransferQueue."""

from collections import Counter
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta

from cleaner.failures import FailureMonitor, count_trajectories, split_failures
from cleaner.saar.strategy import Member, Strategy
from cleaner.trajectory_rows import negative_keys, read_rows, without


class BatchScreen:
    """See the module's text.

    Args:
        trained: trajectories of each prompt that are trained. `validated`: that are validated.
        max_negatives: negative samples of each prompt that are trained; None: all.
        seed: of the strategy's draws.
    """

    def __init__(
        self,
        strategy: Strategy,
        monitor: FailureMonitor,
        *,
        trained: int,
        validated: int,
        max_negatives: int | None,
        seed: int,
    ) -> None:
        self._strategy = strategy
        self._monitor = monitor
        self._trained = trained
        self._validated = validated
        self._max_negatives = max_negatives
        self._seed = seed
        #: Statistics of the trajectories that the strategy did not select from the latest batch.
        self.unselected: list[dict[str, Any]] = []

    def screen(self, batch: KVBatchMeta, step: int, prompts: int) -> tuple[KVBatchMeta, dict[str, float]]:
        """What is left of a batch, and metrics of what is not.

        Args:
            prompts: how many prompts the batch is of.

        Raises:
            TooManyFailures: by the settings, or where nothing is left.
        """
        validation = batch.partition_id == "val"
        batch, failures = split_failures(batch)
        per_prompt = self._validated if validation else self._strategy.sampled_per_prompt(self._trained)
        metrics = self._monitor.observe(
            "val" if validation else "train", step, failures, prompts * per_prompt, count_trajectories(batch)
        )
        if not validation:
            batch = self._limited(self._selected(batch, step, metrics))
        return batch, metrics

    def _selected(self, batch: KVBatchMeta, step: int, metrics: dict[str, float]) -> KVBatchMeta:
        self.unselected = []
        if self._strategy.sampled_per_prompt(self._trained) == self._trained:
            return batch
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in read_rows(batch):
            groups.setdefault(row["header"]["uid"], []).append(row)
        dropped = []
        for group in groups.values():
            members = [Member(row["header"]["reward"], row["saar"] or {}) for row in group]
            seed = (self._seed, step, group[0]["header"]["index"])
            chosen = set(self._strategy.select(members, self._trained, seed))
            dropped += [row for number, row in enumerate(group) if number not in chosen]
        self.unselected = [row["saar"] for row in dropped if row["saar"] is not None]
        metrics["rollout/unselected_trajectories"] = len(dropped)
        return _cleared(batch, [row["key"] for row in dropped])

    def _limited(self, batch: KVBatchMeta) -> KVBatchMeta:
        if self._max_negatives is None:
            return batch
        seen: Counter[str] = Counter()
        beyond = []
        for key in negative_keys(batch):
            uid = key.rsplit("_", 2)[0]
            seen[uid] += 1
            if seen[uid] > self._max_negatives:
                beyond.append(key)
        return _cleared(batch, beyond)


def _cleared(batch: KVBatchMeta, keys: list[str]) -> KVBatchMeta:
    if keys:
        tq.kv_clear(keys=keys, partition_id=batch.partition_id)
    return without(batch, keys)
