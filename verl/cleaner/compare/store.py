"""The account of runs on disk: what was started, how it ended, and with which settings it was made.

RUNS_DIR/started.jsonl                     one line for each start and each end, never rewritten
RUNS_DIR/<task>/<arm>/seed-<n>/            a run directory (`cleaner.report.run_dir`), and in it
    run.json                               what the run is, written before it starts
    end.json                               how it ended
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cleaner.compare.plan import Run
from cleaner.errors import ConfigError
from cleaner.json_lines import append_json_lines
from cleaner.report.run_dir import JsonLines

Status = Literal["missing", "finished", "failed", "interrupted"]

STARTED = "started.jsonl"

_RUN, _END = "run.json", "end.json"


@dataclass(frozen=True)
class Store:
    """See the module's text. `models`: of tasks, what their models are told by (`starting_models`), once known."""

    folder: Path
    models: Mapping[str, str] = field(default_factory=dict)

    def path(self, run: Run) -> Path:
        """The run's directory."""
        return self.folder / run.name

    def status(self, run: Run) -> Status:
        """How the run stands.

        Raises:
            ConfigError: the directory holds a run that was made with other settings or from another model.
        """
        about = _read(self.path(run) / _RUN)
        if about is None:
            return "missing"
        if about.get("fingerprint") != run.fingerprint:
            raise ConfigError(
                f"{self.path(run)} holds a run with other settings. Give another RUNS_DIR, or move that folder away."
            )
        model = self.models.get(run.task.name)
        if model is not None and about.get("model") != model:
            raise ConfigError(
                f"{self.path(run)} holds a run that started from model {about.get('model') or 'unknown'}, and the one "
                f"here is {model}: they can't be compared. Give another OUTPUT_DIR and RUNS_DIR, or put the archive of "
                f"that model into OUTPUT_DIR/models."
            )
        end = _read(self.path(run) / _END)
        # A run whose end nobody wrote was stopped with its runner.
        return "interrupted" if end is None else end["status"]

    def seconds(self, run: Run) -> float | None:
        """Wall-clock seconds of a finished run."""
        end = _read(self.path(run) / _END)
        return float(end["seconds"]) if end is not None and end["status"] == "finished" else None

    def begin(self, run: Run, command: Sequence[str]) -> Path:
        """Make the run's directory and note the start; an earlier try is kept beside it. Returns the directory."""
        path = self.path(run)
        if path.exists():
            tries = sum(1 for _ in path.parent.glob(f"{path.name}.try-*"))
            path.rename(path.with_name(f"{path.name}.try-{tries + 1}"))
        (path / "logs").mkdir(parents=True)
        about = {
            "fingerprint": run.fingerprint,
            "task": run.task.name,
            "arm": run.arm.name,
            "seed": run.seed,
            "budget": run.budget,
            "validations": run.validations,
            "model": self.models.get(run.task.name),
            "overrides": run.overrides,
            "command": list(command),
        }
        (path / _RUN).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        self._note(run, "started")
        return path

    def end(self, run: Run, status: Status, seconds: float, exit_status: int | None) -> None:
        """Note how the run ended."""
        end = {"status": status, "seconds": round(seconds, 1), "exit_status": exit_status}
        (self.path(run) / _END).write_text(json.dumps(end) + "\n", encoding="utf-8")
        self._note(run, status)

    def starts(self, runs: Sequence[Run] | None = None) -> list[dict[str, Any]]:
        """Every start and end that was noted, of these runs or of all, oldest first."""
        path = self.folder / STARTED
        names = None if runs is None else {run.name for run in runs}
        entries = list(JsonLines(path)) if path.is_file() else []
        return [entry for entry in entries if names is None or entry["run"] in names]

    def adopt(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add starts and ends that another store has noted; those that are here already are not doubled."""
        mine = self.starts()
        merged = sorted([*mine, *(e for e in entries if e not in mine)], key=lambda entry: str(entry["time"]))
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{STARTED}.part"
        part.write_text("".join(json.dumps(entry) + "\n" for entry in merged), encoding="utf-8")
        part.replace(self.folder / STARTED)

    def _note(self, run: Run, what: str) -> None:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        append_json_lines(self.folder / STARTED, [{"time": when, "run": run.name, "event": what}])


def _read(path: Path) -> dict[str, Any] | None:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None
