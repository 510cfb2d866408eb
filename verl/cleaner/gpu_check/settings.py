"""What is asked for, and where things are."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

ENGINES = ("hf_server", "sglang", "vllm")
DTYPES = ("float16", "bfloat16", "float32")


@dataclass(frozen=True)
class Settings:
    """Everything that a check may want to know.

    Attributes:
        output: folder of results, logs and runs; absolute.
        recipe: folder `recipe/cleaner`.
        rows: folder with train.parquet and val.parquet; None: there is none.
        model: folder of a Hugging Face model; None: there is none.
        unprepared: what went wrong before, one text each; trainings are then skipped.
        engines, dtypes: what is trained with, in this order.
        steps: training steps of each run, at least 1.
        limit_s: time limit of one training.
        judge_log: output of the judge that was started for these checks, if one was.
        on_cpu: the CPU is asked for.
        overrides: of verl's or our configuration, for every training; they win.
    """

    output: Path
    recipe: Path
    rows: Path | None
    model: Path | None
    unprepared: tuple[str, ...] = ()
    engines: tuple[str, ...] = ENGINES
    dtypes: tuple[str, ...] = ("float16", "bfloat16")
    steps: int = 3
    limit_s: float = 900.0
    judge_log: Path | None = None
    on_cpu: bool = False
    overrides: tuple[str, ...] = ()
    python: str = field(default=sys.executable)
