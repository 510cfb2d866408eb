"""The rows of a dataset and their statistics: which belong together, and writing those that are kept."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cleaner.data.rate_filter import Rates
from cleaner.data.row_ids import id_candidates, open_parquet, read_sources
from cleaner.errors import ConfigError


@dataclass(frozen=True)
class Joined:
    """A dataset whose rows have been found in the statistics.

    Attributes:
        path: of the dataset.
        id_column: what the rows were found by.
        uids: of all rows, in order; "" where a row has none.
        unmatched: rows that have no statistics: their uids, or their numbers where they have none.
        mismatched: uids whose row and statistics name different sources.
        absent: uids of the statistics without a row.
    """

    path: Path
    id_column: str
    uids: list[str]
    unmatched: list[str]
    mismatched: list[str]
    absent: list[str]

    @property
    def left_out(self) -> frozenset[str]:
        """Uids whose statistics are not used."""
        return frozenset(self.mismatched)

    def write(self, kept: Collection[str], output: Path) -> None:
        """Write the rows with these uids, in the dataset's order, all or nothing. Row groups come one at a time."""
        file = open_parquet(self.path)
        names = file.schema_arrow.names
        part = output.with_name(f".{output.name}.part")
        start = 0
        try:
            with pq.ParquetWriter(part, _schema(file.schema_arrow)) as writer:
                for number in range(file.num_row_groups):
                    table = file.read_row_group(number)
                    uids = self.uids[start : start + table.num_rows]
                    start += table.num_rows
                    if "uid" in names:
                        # The one that decided, as text.
                        table = table.drop_columns(["uid"])
                    table = table.append_column("uid", _texts(uids))
                    writer.write_table(table.filter(_mask(uids, kept)))
            part.replace(output)
        except pa.ArrowException as error:
            raise ConfigError(
                f"{self.path}: damaged at or after row {start} ({str(error).splitlines()[0]})"
            ) from error
        finally:
            part.unlink(missing_ok=True)


def join(path: Path, rates: Rates) -> Joined:
    """Find the rows of a dataset in the statistics.

    The published statistics count rows from 0; others may use a column. What most rows are found by, with the same
    `data_source`, is taken.

    Raises:
        ConfigError: the dataset cannot be read, or no row is found.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file. dataset/download.sh fetches the published one.")
    sources = read_sources(path)
    best: tuple[int, str, list[str]] = (0, "", [])
    for name, uids in id_candidates(path):
        found = sum(
            uid in rates and rates[uid][0] == source for uid, source in zip(uids, sources, strict=True)
        )
        if found > best[0]:
            best = found, name, uids
    found, name, uids = best
    if not found:
        raise ConfigError(
            f"{path}: none of its {len(sources)} rows is in the statistics, by id and data_source. Are they of this "
            "dataset?"
        )
    rows = list(zip(uids, sources, strict=True))
    here = frozenset(uids)
    return Joined(
        path,
        name,
        uids,
        [uid or f"row {number}" for number, (uid, _) in enumerate(rows) if uid not in rates],
        [uid for uid, source in rows if uid in rates and rates[uid][0] != source],
        [uid for uid in rates if uid not in here],
    )


# `pa.array` imports pandas, which takes as long as everything else here together. So these two are built from buffers.


def _texts(values: Sequence[str]) -> pa.Array:
    encoded = [value.encode("utf-8", "surrogatepass") for value in values]
    ends = array("i", accumulate(map(len, encoded), initial=0))
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def _mask(values: Sequence[str], kept: Collection[str]) -> pa.Array:
    bits = bytearray((len(values) + 7) // 8)
    for position, value in enumerate(values):
        if value in kept:
            bits[position >> 3] |= 1 << (position & 7)
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bytes(bits))])


def _schema(schema: pa.Schema) -> pa.Schema:
    """The dataset's, with `uid` as text behind the other columns."""
    if "uid" in schema.names:
        schema = schema.remove(schema.get_field_index("uid"))
    return schema.append(pa.field("uid", pa.string()))
