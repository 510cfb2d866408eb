"""Reads back from verl's TransferQueue what the agent loop said of each trajectory."""

from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta

_FIELDS = ["uid", "index", "session_id", "data_source", "rm_scores", "extra_fields"]


def read_rows(batch: KVBatchMeta) -> list[dict[str, Any]]:
    """One dict per real trajectory of the batch (synthetic padding left out), in the batch's order.

    Returns:
        `key` of the TransferQueue, `header` (uid, index, session, data source, reward, accuracy), `saar`
        (statistics or None), `token_origin` (or None) and `trajectory` (the record, None unless recorded).
    """
    keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
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
        "token_origin": extra.get("token_origin"),
        "trajectory": extra.get("trajectory"),
    }


def column_values(column: Any) -> list[Any]:
    """The values of a TransferQueue column, which comes back as a tensor, a tensordict stack or a list."""
    return column.tolist() if hasattr(column, "tolist") else list(column)
