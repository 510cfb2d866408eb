"""Check a parquet file of rows before a run starts, with errors that name file, row and column."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cleaner.errors import ConfigError

REQUIRED_COLUMNS: tuple[str, ...] = ("prompt", "data_source", "reward_model")
"""Columns without which verl can't train on or validate with a file."""

_BATCH_ROWS = 4096


def prompt_fault(value: Any) -> str | None:
    """What is wrong with a chat, or None."""
    if not isinstance(value, list):
        return f"must be a list of chat messages, got {shown(value)}"
    if not value:
        return "must not be an empty list of chat messages"
    for position, message in enumerate(value):
        if not isinstance(message, dict):
            return f"message {position} must be an object with 'role' and 'content', got {shown(message)}"
        for key in ("role", "content"):
            if key not in message:
                return f"message {position} has no {key!r} (it has: {', '.join(message) or 'nothing'})"
        if not isinstance(message["role"], str):
            return f"message {position}: 'role' must be a string, got {shown(message['role'])}"
        if not isinstance(message["content"], str | list):
            return f"message {position}: 'content' must be text, got {shown(message['content'])}"
    return None


def reward_model_fault(value: Any) -> str | None:
    """What is wrong with the object that holds the ground truth, or None."""
    if not isinstance(value, dict):
        return f"must be an object with 'ground_truth', got {shown(value)}"
    if value.get("ground_truth") is None:
        return f"has no 'ground_truth' (it has: {', '.join(k for k, v in value.items() if v is not None) or 'nothing'})"
    return None


def text_fault(value: Any) -> str | None:
    """What is wrong with a text that must not be empty, or None."""
    return None if isinstance(value, str) and value else f"must be non-empty text, got {shown(value)}"


def object_fault(value: Any) -> str | None:
    """What is wrong with an object that may be null, or None."""
    return None if value is None or isinstance(value, dict) else f"must be an object, got {shown(value)}"


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "prompt": prompt_fault,
    "reward_model": reward_model_fault,
    "data_source": text_fault,
    "agent_name": text_fault,
    "extra_info": object_fault,
}


def shown(value: Any) -> str:
    """A value in a message: its type and its first 60 characters."""
    if value is None:
        return "null"
    text = repr(value)
    return f"{type(value).__name__} {text[:60] + '...' if len(text) > 60 else text}"


def columns_of(path: Path) -> list[str]:
    """Column names of a parquet file; ``ConfigError`` when there is no such file or it isn't parquet."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file")
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, a parquet file is needed")
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error


def check_rows(
    path: str | Path, required: Sequence[str] = REQUIRED_COLUMNS, max_rows: int | None = None
) -> int:
    """Check that ``path`` holds usable rows; returns their number.

    ``required`` columns must exist.  Every value of a column that verl gives a meaning to (prompt, reward_model,
    data_source, agent_name, extra_info) is checked if the column is there, in the first ``max_rows`` rows or in all.
    Raises ``ConfigError`` naming the file and, where it applies, the first bad row (counted from 0) and its column.
    """
    path = Path(path)
    columns = columns_of(path)
    for column in required:
        if column not in columns:
            close = difflib.get_close_matches(column, columns, n=1)
            hint = f" Did you mean to rename {close[0]!r}?" if close else ""
            raise ConfigError(f"{path}: no column {column!r}.{hint} Columns: {', '.join(columns) or 'none'}")
    checked = [column for column in columns if column in _CHECKS]
    start = 0
    try:
        file = pq.ParquetFile(path)
        total = file.metadata.num_rows
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=checked):
            _check_batch(path, batch, start)
            start += batch.num_rows
            if max_rows is not None and start >= max_rows:
                break
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{path}: damaged at or after row {start} ({str(error).splitlines()[0]})"
        ) from error
    if total == 0:
        raise ConfigError(f"{path}: has no rows")
    return int(total)


def _check_batch(path: Path, batch: pa.RecordBatch, start: int) -> None:
    values = {name: batch.column(name).to_pylist() for name in batch.schema.names}
    for offset in range(batch.num_rows):
        for name, column in values.items():
            fault = _CHECKS[name](column[offset])
            if fault is not None:
                raise ConfigError(f"{path}: row {start + offset}, column {name!r}: {fault}")
