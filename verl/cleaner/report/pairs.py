"""Negative samples of a run in TRL's preference format: one `{"prompt", "chosen", "rejected"}` a line, as text.

Read from the run's `negatives.jsonl`; the fields of both files are in `docs/negatives.md`. The file is read twice, once
to choose and once to copy, so that texts are never held together: a context may have 100 kB. A run may append to it
meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NEGATIVES_FILE = "negatives.jsonl"
PAIRS_FILE = "pairs.jsonl"
COLUMNS = ("prompt", "chosen", "rejected")


class CannotExport(ValueError):
    """Nothing was written; the message says why and what to do."""


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
        """Whether a line of `negatives.jsonl` has the decision and the reward asked for; no reward is too little."""
        if self.decision is not None and line.get("decision") != self.decision:
            return False
        reward = line.get("reward")
        return self.min_reward is None or (isinstance(reward, int | float) and reward >= self.min_reward)


def export_pairs(run_dir: Path, out: Path | None, wanted: PairFilter) -> str:
    """Write the pairs of a run, each once; returns a line that says how many, and how many were left out and why.

    Args:
        out: the file, written whole or not at all; None: standard output.

    Raises:
        CannotExport: no such folder, no `negatives.jsonl` in it, no pair left, or `out` must not be written to.
        OSError: a file cannot be read or written.
    """
    source = _source(run_dir.expanduser())
    target = None if out is None else _target(out.expanduser(), source)
    offsets, left_out = _choose(source, wanted)
    read = len(offsets) + left_out.total()
    reasons = ", ".join(f"{count} {why}" for why, count in left_out.items())
    if not offsets:
        # An empty file would only fail later: `datasets` cannot load one. An older export stays.
        told = reasons or "the file is empty"
        hint = " Relax the options." if {"filtered", "beyond the limit"} & left_out.keys() else ""
        raise CannotExport(f"no pair is left of {read} in {source}: {told}. Nothing was written.{hint}")
    _write(_pairs(source, offsets, wanted), target)
    name = "standard output" if out is None else str(out)
    return f"{len(offsets)} of {read} pairs written to {name}" + (f"; left out: {reasons}" if reasons else "")


def _source(run_dir: Path) -> Path:
    if not run_dir.is_dir():
        raise CannotExport(f"{run_dir} is no folder. Give the folder of a run, which holds metrics.jsonl.")
    path = run_dir / NEGATIVES_FILE
    if not path.is_file():
        raise CannotExport(
            f"{run_dir} holds no {NEGATIVES_FILE}. Train with cleaner.strategy=saar cleaner.negatives.save=true."
        )
    return path


def _target(out: Path, source: Path) -> Path:
    # The file is replaced, not written into: a link would be lost, and a device too where root asks.
    target = out.resolve()
    if target == source.resolve():
        raise CannotExport(f"{out} holds the negative samples themselves. Give --out another name.")
    if target.exists() and not target.is_file():
        raise CannotExport(f"{out} is no regular file. Give --out a file's name, or - for standard output.")
    if not target.parent.is_dir():
        raise CannotExport(f"{target.parent} is no folder. Make it first, or give --out another name.")
    return target


def _choose(source: Path, wanted: PairFilter) -> tuple[list[int], Counter[str]]:
    """Where in the file the pairs to be exported start, in bytes and ascending; how many others there are, by why."""
    offsets: list[int] = []
    left_out: Counter[str] = Counter()
    seen: set[bytes] = set()
    after = 0
    with source.open("rb") as file:
        for text in file:
            offset, after = after, after + len(text)
            if not text.strip():
                continue
            line = _parsed(text)
            if line is None:
                left_out["broken" if text.endswith(b"\n") else "half-written"] += 1
            elif not all(isinstance(line.get(column), str) for column in COLUMNS):
                left_out["without the three texts"] += 1
            elif not wanted.admits(line):
                left_out["filtered"] += 1
            elif (key := _digest(line)) in seen:
                left_out["repeated"] += 1
            else:
                seen.add(key)
                offsets.append(offset)
    if wanted.limit is not None and len(offsets) > wanted.limit:
        left_out["beyond the limit"] = len(offsets) - wanted.limit
        offsets = sorted(random.Random(wanted.seed).sample(offsets, wanted.limit))
    return offsets, left_out


def _pairs(source: Path, offsets: Sequence[int], wanted: PairFilter) -> Iterator[dict[str, Any]]:
    with source.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            line = _loadable(json.loads(file.readline()))
            yield line if wanted.details else {column: line[column] for column in COLUMNS}


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _digest(line: dict[str, Any]) -> bytes:
    texts = json.dumps([line[column] for column in COLUMNS])
    return hashlib.blake2b(texts.encode("ascii"), digest_size=16).digest()


def _loadable(value: Any) -> Any:
    """The value with each lone surrogate spelt out as `\\ud83d`: Arrow's texts are UTF-8 and can hold none, and one
    would make the whole file unreadable to `datasets`."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_loadable(key): _loadable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_loadable(each) for each in value]
    return value


def _write(pairs: Iterator[dict[str, Any]], target: Path | None) -> None:
    # ASCII, whatever the locale of standard output.
    lines = (json.dumps(pair) + "\n" for pair in pairs)
    if target is None:
        sys.stdout.writelines(lines)
        sys.stdout.flush()  # here, where a reader that left is understood
        return
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="ascii") as file:
            file.writelines(lines)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
