"""Reads a run directory: what one training run leaves on disk.

Contract. A run directory holds `metrics.jsonl` (verl's file logger: one object `{"step": int, "data": {name:
value}}` a line), and optionally `trajectories.jsonl` (one trajectory record a line), `config.yaml` (the
resolved configuration), `phases.jsonl` (`{"phase": str, "seconds": float}` a line, written by the script
around the trainer) and `summary.json`.

Reading never changes the directory and is safe while a run is still writing: a half-written last line is left
out silently, a broken line in the middle (a crash, then a resumed run) is left out and counted in
`RunDirectory.warnings`. Only a path that is no run directory is an error: `NotARunDirectory`, which says what
is missing.

A resumed run: verl's file logger truncates its file when it starts, so the launcher calls `set_aside_metrics`
first. The parts (`metrics.part-0001.jsonl`, ...) are read before `metrics.jsonl`, and a later part replaces
what an earlier one logged for the same and for later steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"
TRAJECTORIES_FILE = "trajectories.jsonl"
CONFIG_FILE = "config.yaml"
PHASES_FILE = "phases.jsonl"
SUMMARY_FILE = "summary.json"
PLOTS_FOLDER = "plots"


class NotARunDirectory(ValueError):
    """The path is not a run directory; the message says what was looked for and what to do."""


@dataclass(frozen=True)
class StepMetrics:
    """What was logged for one step: `values` holds the finite numbers only, by metric name."""

    step: int
    values: Mapping[str, float]


@dataclass
class JsonLines:
    """The objects of a JSON-lines file, and how many lines in the middle of it could not be read.

    `read_bytes` is how far an iteration has come.
    """

    path: Path
    broken_lines: int = 0
    read_bytes: int = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each line's object, in file order, holding one line in memory.

        A last line without its newline counts only if it parses (a writer may be in the middle of it).
        """
        self.broken_lines = self.read_bytes = 0
        with self.path.open("rb") as file:
            for line in file:
                self.read_bytes += len(line)
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    value = None
                if isinstance(value, dict):
                    yield value
                elif line.endswith(b"\n"):
                    self.broken_lines += 1


@dataclass
class RunDirectory:
    """One run on disk. Everything but the trajectories is read once and kept; trajectories are streamed."""

    path: Path
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Check that `path` is a run directory.

        Raises:
            NotARunDirectory: the path does not exist, is a file, or has no metrics file.
        """
        folder = Path(path).expanduser()
        if not folder.exists():
            raise NotARunDirectory(
                f"{folder}: no such directory. Give the folder that a run wrote (OUTPUT_DIR)."
            )
        if not folder.is_dir():
            raise NotARunDirectory(
                f"{folder}: a file, not a directory. Give the folder that holds {METRICS_FILE}."
            )
        if not _metric_files(folder):
            inside = sorted(entry.name for entry in folder.iterdir() if (entry / METRICS_FILE).is_file())
            hint = f" Did you mean {folder / inside[0]}?" if inside else " Has the run started to train?"
            raise NotARunDirectory(f"{folder}: not a run directory, it has no {METRICS_FILE}.{hint}")
        return cls(folder)

    @cached_property
    def steps(self) -> list[StepMetrics]:
        """The logged steps in ascending order, one entry a step.

        Step 0 holds the validation before training, step k >= 1 the k-th update and any validation after it.
        Several lines of one step are merged, the later value wins.
        """
        merged: dict[int, dict[str, float]] = {}
        for path in _metric_files(self.path):
            part: dict[int, dict[str, float]] = {}
            for entry in self._lines(path):
                step, data = entry.get("step"), entry.get("data")
                if isinstance(step, int) and isinstance(data, dict):
                    part.setdefault(step, {}).update(_numbers(data))
            if part:
                first = min(part)
                merged = {step: values for step, values in merged.items() if step <= first}
            for step, values in part.items():
                merged.setdefault(step, {}).update(values)
        return [StepMetrics(step, merged[step]) for step in sorted(merged)]

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The resolved configuration; empty where there is none or it cannot be read (a warning says so)."""
        path = self.path / CONFIG_FILE
        if not path.is_file():
            return {}
        import yaml

        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            self.warnings.append(f"{CONFIG_FILE} could not be read: {str(error).splitlines()[0]}")
            return {}
        return loaded if isinstance(loaded, dict) else {}

    @cached_property
    def phases(self) -> dict[str, float]:
        """Seconds by phase of the script around the trainer, in the order first logged; equal names add
        up.
        """
        seconds: dict[str, float] = {}
        path = self.path / PHASES_FILE
        if path.is_file():
            for entry in self._lines(path):
                value = entry.get("seconds")
                if (
                    isinstance(entry.get("phase"), str)
                    and isinstance(value, int | float)
                    and math.isfinite(value)
                ):
                    seconds[entry["phase"]] = seconds.get(entry["phase"], 0.0) + float(value)
        return seconds

    def trajectories(self, told: Callable[[int], None] | None = None) -> Iterator[dict[str, Any]]:
        """Stream the trajectory records in file order; nothing where the run recorded none.

        `told` hears after each record how many bytes of the file have been read.
        """
        path = self.path / TRAJECTORIES_FILE
        if path.is_file():
            yield from self._lines(path, told)

    def series(self, name: str) -> list[tuple[int, float]]:
        """`(step, value)` of one metric, ascending, only the steps that logged it."""
        return [(entry.step, entry.values[name]) for entry in self.steps if name in entry.values]

    def names(self) -> set[str]:
        """All metric names that occur."""
        return {name for entry in self.steps for name in entry.values}

    def setting(self, dotted: str, default: Any = None) -> Any:
        """A value of the resolved configuration by its dotted name, `default` where it is absent."""
        value: Any = self.config
        for key in dotted.split("."):
            if not isinstance(value, Mapping) or key not in value:
                return default
            value = value[key]
        return value

    def _lines(self, path: Path, told: Callable[[int], None] | None = None) -> Iterator[dict[str, Any]]:
        lines = JsonLines(path)
        for value in lines:
            yield value
            if told is not None:
                told(lines.read_bytes)
        if lines.broken_lines:
            message = f"{path.name}: {lines.broken_lines} line(s) could not be read and were left out"
            if message not in self.warnings:
                self.warnings.append(message)


def set_aside_metrics(path: str | Path) -> Path | None:
    """Rename a run directory's metrics file before a resumed run starts, because verl's file logger truncates
    it.

    Returns the new path (`metrics.part-0001.jsonl` and so on), or None where there was nothing to keep.
    """
    folder = Path(path)
    current = folder / METRICS_FILE
    if not current.is_file() or current.stat().st_size == 0:
        return None
    number = 1 + max((int(part.stem.rpartition("-")[2]) for part in _parts(folder)), default=0)
    target = folder / f"metrics.part-{number:04d}.jsonl"
    current.rename(target)
    return target


def _parts(folder: Path) -> list[Path]:
    found = [p for p in folder.glob("metrics.part-*.jsonl") if p.stem.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.stem.rpartition("-")[2]))


def _metric_files(folder: Path) -> list[Path]:
    current = folder / METRICS_FILE
    return _parts(folder) + ([current] if current.is_file() else [])


def _numbers(data: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a step's data. The file logger writes NaN as null; lists and texts are no
    metrics.
    """
    return {
        name: float(value)
        for name, value in data.items()
        if isinstance(value, int | float) and abs(value) < 1e300 and math.isfinite(value)
    }
