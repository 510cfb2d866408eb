"""Parquet files of any known form, read as rows in verl's format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cleaner.data.mapping import RowFault, map_row
from cleaner.data.schema import columns_of
from cleaner.errors import ConfigError

_BATCH_ROWS = 1024


def read_rows(path: str | Path, tool: bool) -> Iterator[dict[str, Any]]:
    """The rows of a file, mapped one by one (`cleaner.data.mapping.map_row`).

    Args:
        tool: whether a tool is offered.

    Raises:
        ConfigError: no such file, not parquet, damaged, no rows, two rows with one id, or a row that cannot be used;
            names the file, the row (counted from 0) and the column.
    """
    path = Path(path).expanduser()
    columns_of(path)
    number = 0
    ids: dict[tuple[str, str], int] = {}
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                try:
                    mapped = map_row(row, number, tool)
                except RowFault as fault:
                    raise ConfigError(f"{path}: row {number}, column {fault.column!r}: {fault}") from fault
                key = (mapped["data_source"], mapped["extra_info"]["uid"])
                if ids.setdefault(key, number) != number:
                    raise ConfigError(
                        f"{path}: row {number} has the id {key[1]!r} of row {ids[key]}. Give every row an id of its "
                        "own, or take the column with the ids out: rows are numbered then."
                    )
                yield mapped
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{path}: damaged at or after row {number} ({str(error).splitlines()[0]})"
        ) from error
    if not number:
        raise ConfigError(f"{path}: has no rows")


def check_mapped_rows(path: str | Path) -> int:
    """Check that all rows of a file can be mapped; returns their number.

    Raises:
        ConfigError: see `read_rows`.
    """
    return sum(1 for _ in read_rows(path, tool=True))


def maps_rows(data_config: Any) -> bool:
    """Whether a run reads its files through `cleaner.data.dataset.ProblemDataset`, given its group `data`."""
    custom = data_config.get("custom_cls") or {}
    return bool(custom.get("path")) and custom.get("name") == "ProblemDataset"


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Mapped rows as a table. A key of `extra_info` that not all rows have is null where it is missing; one whose
    values share no type is JSON text.
    """
    keys = sorted({key for row in rows for key in row["extra_info"]})
    extra = pa.StructArray.from_arrays(
        [_array([row["extra_info"].get(key) for row in rows]) for key in keys], names=keys
    )
    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0] if name != "extra_info"}
    return pa.table({**columns, "extra_info": extra})


def _array(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return pa.array([None if value is None else json.dumps(value, default=str) for value in values])
