"""Negative samples of a run in TRL's preference format: one `{"prompt", "chosen", "rejected"}` a line, as text.

Read from the run's `negatives.jsonl`; the fields of both files are in `docs/negatives.md`.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cleaner.report.run_dir import JsonLines

NEGATIVES_FILE = "negatives.jsonl"
PAIRS_FILE = "pairs.jsonl"
COLUMNS = ("prompt", "chosen", "rejected")


class NoPairs(ValueError):
    """There is nothing to export; the message says why and what to do."""


@dataclass(frozen=True)
class PairFilter:
    """Which pairs are exported.

    Attributes:
        min_reward: least reward of the trajectory; None: any.
        decision: `shallow` (two calls) or `deep` (two turns); None: both.
        limit: most pairs, drawn at random by `seed` and kept in order; None: all.
        details: keep the other fields of `negatives.jsonl` too.
    """

    min_reward: float | None = None
    decision: str | None = None
    limit: int | None = None
    seed: int = 0
    details: bool = False

    def admits(self, line: dict[str, Any]) -> bool:
        if self.decision is not None and line.get("decision") != self.decision:
            return False
        reward = line.get("reward")
        return self.min_reward is None or (isinstance(reward, int | float) and reward >= self.min_reward)


def export_pairs(run_dir: Path, out: Path | None, wanted: PairFilter) -> str:
    """Write the pairs of a run; returns a line that says how many, and what was left out.

    Args:
        out: the file, written whole or not at all; None: standard output.

    Raises:
        NoPairs: no such folder, or no `negatives.jsonl` in it.
        OSError: `out` cannot be written.
    """
    path = run_dir / NEGATIVES_FILE
    if not run_dir.is_dir():
        raise NoPairs(f"{run_dir} is no folder. Give the folder of a run, which holds metrics.jsonl.")
    if not path.is_file():
        raise NoPairs(
            f"{run_dir} holds no {NEGATIVES_FILE}. Train with cleaner.strategy=saar cleaner.negatives.save=true."
        )
    lines = JsonLines(path)
    unique: dict[tuple[str, ...], dict[str, Any]] = {}
    read = unusable = filtered = repeated = 0
    for line in lines:
        read += 1
        if not all(isinstance(line.get(column), str) for column in COLUMNS):
            unusable += 1
        elif not wanted.admits(line):
            filtered += 1
        elif (key := tuple(line[column] for column in COLUMNS)) in unique:
            repeated += 1
        else:
            unique[key] = line if wanted.details else {column: line[column] for column in COLUMNS}
    pairs = list(unique.values())
    if wanted.limit is not None and len(pairs) > wanted.limit:
        chosen = sorted(random.Random(wanted.seed).sample(range(len(pairs)), wanted.limit))
        pairs = [pairs[i] for i in chosen]
    _write(pairs, out)
    left_out = [
        f"{count} {why}"
        for count, why in (
            (lines.broken_lines, "broken lines"),
            (unusable, "lines without texts"),
            (filtered, "filtered"),
            (repeated, "repeated"),
            (len(unique) - len(pairs), "beyond the limit"),
        )
        if count
    ]
    target = "standard output" if out is None else str(out)
    rest = f"; left out: {', '.join(left_out)}" if left_out else ""
    return f"{len(pairs)} of {read} pairs written to {target}{rest}"


def _write(pairs: Iterable[dict[str, Any]], out: Path | None) -> None:
    # ASCII JSON holds any text, a lone surrogate too.
    text = "".join(json.dumps(pair) + "\n" for pair in pairs)
    if out is None:
        sys.stdout.write(text)
        return
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.write_text(text)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
