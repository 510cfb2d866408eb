"""Which submissions go together in one request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from code_judge.submission import Item


def cut(items: Iterable[Item], most: int, most_bytes: int) -> Iterator[list[Item]]:
    """Batches of `items` in order, each of at most `most` items and, unless one alone is larger,
    `most_bytes`.
    """
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and (len(batch) == most or size + len(item.body) > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item.body)
    if batch:
        yield batch
