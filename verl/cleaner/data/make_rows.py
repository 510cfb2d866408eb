"""Write training and validation rows as parquet in verl's format.

``python -m cleaner.data.make_rows --out DIR --train 512 --val 96 --seed 0 [--tasks gcd lcm ...]``
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cleaner.data.tasks import ALL_TASKS, TASKS, Problem, draw_splits, select_tasks
from cleaner.errors import ConfigError

SYSTEM_PROMPT = "Solve the problem with Python. Give the answer in \\boxed{}."
"""System message of every row; short, because a tiny model reads it in every prompt."""

AGENT_NAME = "cleaner_agent"
"""Registered name of the agent loop that these rows ask for."""


def row(problem: Problem, index: int, split: str) -> dict[str, Any]:
    """One row in verl's format; ``extra_info`` carries what reasoning-gym's verifier needs (metadata as JSON text)."""
    return {
        "prompt": [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": problem.question},
        ],
        "data_source": problem.data_source,
        "ability": "arithmetic",
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "extra_info": {
            "index": index,
            "split": split,
            "task": problem.task,
            "metadata": json.dumps(problem.metadata, sort_keys=True, default=str),
        },
        "agent_name": AGENT_NAME,
    }


def write_parquet(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write ``rows`` to ``path`` all or nothing: a file that can't be finished leaves the old one untouched."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            pq.write_table(pa.Table.from_pylist(list(rows)), file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def make_rows(
    out: Path, train: int, val: int, seed: int, tasks: Sequence[str] | None = None
) -> tuple[Path, Path]:
    """Draw problems and write ``out/train.parquet`` and ``out/val.parquet``; returns both paths.

    Raises ``ConfigError`` for bad numbers or task names and when the folder can't be written to.
    """
    for name, number in (("train", train), ("val", val)):
        if number < 1:
            raise ConfigError(f"--{name} must be 1 or more, got {number}")
    splits = dict(zip(("train", "val"), draw_splits(select_tasks(tasks), train, val, seed), strict=True))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for split, problems in splits.items():
            write_parquet([row(p, i, split) for i, p in enumerate(problems)], out / f"{split}.parquet")
    except OSError as error:
        raise ConfigError(f"cannot write rows to {out}: {error.strerror or error}") from error
    return out / "train.parquet", out / "val.parquet"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 2 on bad input, with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m cleaner.data.make_rows", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for train.parquet and val.parquet")
    parser.add_argument("--train", type=int, default=512, help="training rows (default %(default)s)")
    parser.add_argument("--val", type=int, default=96, help="validation rows (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same rows (default 0)")
    parser.add_argument(
        "--tasks", nargs="+", metavar="TASK", help=f"of {' '.join(ALL_TASKS)}; default {' '.join(TASKS)}"
    )
    args = parser.parse_args(argv)
    try:
        paths = make_rows(args.out, args.train, args.val, args.seed, args.tasks)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path, count in zip(paths, (args.train, args.val), strict=True):
        print(f"{path}: {count} rows")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
