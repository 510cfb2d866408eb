"""The ids of a file's rows, read without the rows: `cleaner.data.mapping` gives a row the same one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cleaner.errors import ConfigError

ROW_NUMBER = "the row's number"
# As dotted paths; the first that a row has a value of is its id. The number of the row comes last.
ID_COLUMNS: tuple[str, ...] = ("question_id", "extra_info.uid", "uid", "ID", "id")
# Statistics may have been made with these as well.
_OTHER_ID_COLUMNS: tuple[str, ...] = ("extra_info.index", "index")


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file, its footer read.

    Raises:
        ConfigError: it cannot be read as parquet.
    """
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error


def read_ids(path: Path) -> list[str]:
    """The id of each row, in order."""
    file = open_parquet(path)
    columns = [values for _, values in _columns(file, path, ID_COLUMNS)]
    numbers = range(file.metadata.num_rows)
    if not columns:
        return list(map(str, numbers))
    return [
        str(next((value for value in values if value is not None and value != ""), number))
        for number, *values in zip(numbers, *columns, strict=True)
    ]


def id_candidates(path: Path) -> Iterator[tuple[str, list[str]]]:
    """All that could be the rows' ids: the column's name and its values as text, "" for null.

    A column in which a value occurs twice is none.
    """
    file = open_parquet(path)
    for name, values in _columns(file, path, (*ID_COLUMNS, *_OTHER_ID_COLUMNS)):
        texts = ["" if value is None else str(value) for value in values]
        given = [text for text in texts if text]
        if given and max(Counter(given).values()) == 1:
            yield name, texts
    yield ROW_NUMBER, list(map(str, range(file.metadata.num_rows)))


def read_sources(path: Path) -> list[str]:
    """The `data_source` of each row, in order.

    Raises:
        ConfigError: there is no such column.
    """
    for _, values in _columns(open_parquet(path), path, ("data_source",)):
        return list(map(str, values))
    raise ConfigError(f"{path}: no column 'data_source'")


def _columns(file: pq.ParquetFile, path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, list[Any]]]:
    schema = file.schema_arrow
    for name in names:
        top, _, inner = name.partition(".")
        field = schema.field(top) if top in schema.names else None
        if field is None:
            continue
        if inner and not (pa.types.is_struct(field.type) and field.type.get_field_index(inner) >= 0):
            continue
        try:
            column = file.read(columns=[name]).column(top)
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{path}: column {name!r} is damaged ({str(error).splitlines()[0]})") from error
        values = column.to_pylist()
        yield name, [None if value is None else value[inner] for value in values] if inner else values
