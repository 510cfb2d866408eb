"""Reads back from verl's TransferQueue what the agent loop said of each trajectory."""

from collections.abc import Iterable
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta

# Keys of `extra_fields` of samples that are no trajectories (`cleaner.credit_rows`). Of a failing call: the number of
# its pair in the trajectory's `pairs` (`cleaner.negatives`). Of a graft in the clean context: a number.
NEGATIVE_KEY = "negative_of"
GRAFT_KEY = "graft_of"
_FIELDS = ["uid", "index", "session_id", "data_source", "rm_scores", "extra_fields"]


def read_rows(batch: KVBatchMeta) -> list[dict[str, Any]]:
    """One dict per real trajectory of the batch, in the batch's order: padding and negative samples are left out.

    Returns:
        `key` of the TransferQueue, `header` (uid, index, session, data source, reward, accuracy), `saar`
        (statistics or None), `trajectory` (the record, None unless recorded) and `negatives` (texts of its pairs, a
        list).
    """
    keys = trajectory_keys(batch)
    if not keys:
        return []
    data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=_FIELDS)
    columns = {name: column_values(data[name]) for name in _FIELDS if name != "rm_scores"}
    rewards = [float(scores.sum()) for scores in data["rm_scores"].unbind()]
    return [
        _row(key, reward, {name: column[i] for name, column in columns.items()})
        for i, (key, reward) in enumerate(zip(keys, rewards, strict=True))
    ]


def _row(key: str, reward: float, fields: dict[str, Any]) -> dict[str, Any]:
    extra = fields["extra_fields"] if isinstance(fields["extra_fields"], dict) else {}
    accuracy = (extra.get("reward_extra_info") or {}).get("acc")
    return {
        "key": key,
        "header": {
            "uid": str(fields["uid"]),
            "index": int(fields["index"]),
            "session": int(fields["session_id"]),
            "data_source": str(fields["data_source"]),
            "reward": reward,
            "accuracy": None if accuracy is None else float(accuracy),
        },
        "saar": extra.get("saar"),
        "trajectory": extra.get("trajectory"),
        "negatives": extra.get("negatives") or [],
    }


def trajectory_keys(batch: KVBatchMeta) -> list[str]:
    """Keys of the trajectories themselves: of the outputs of one session the last, padding left out."""
    last: dict[str, tuple[int, str]] = {}
    for key, tag in zip(batch.keys, batch.tags, strict=True):
        if not tag.get("is_padding", False):
            session, number = key.rsplit("_", 1)
            last[session] = max(last.get(session, (-1, "")), (int(number), key))
    return [key for _, key in last.values()]


def negative_keys(batch: KVBatchMeta) -> list[str]:
    """Keys of the samples that repairs give beside their trajectories (`cleaner.credit_rows`), in the batch's order."""
    kept = set(trajectory_keys(batch))
    return [
        key
        for key, tag in zip(batch.keys, batch.tags, strict=True)
        if key not in kept and not tag.get("is_padding", False)
    ]


def without(batch: KVBatchMeta, keys: Iterable[str]) -> KVBatchMeta:
    """The batch without these keys, which stay in the TransferQueue."""
    dropped = set(keys)
    return batch.select_keys([key for key in batch.keys if key not in dropped]) if dropped else batch


def column_values(column: Any) -> list[Any]:
    """The values of a TransferQueue column, which comes back as a tensor, a tensordict stack or a list."""
    return column.tolist() if hasattr(column, "tolist") else list(column)
