"""Rows of every kind, and a place to write them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample_rows import raw_rows


@pytest.fixture
def raw() -> dict[str, dict[str, Any]]:
    """One row of every kind."""
    return raw_rows()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows to a parquet file."""

    def write_rows(*rows: dict[str, Any], name: str = "rows.parquet") -> Path:
        path = tmp_path / name
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return path

    return write_rows
