"""Trajectories as JSON lines, one per trajectory, with every repair: what was sampled, why it failed, what is trained.

Written by the trainer, because only it knows reward and step. The schema is documented in `docs/trajectories.md`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cleaner.json_lines import append_json_lines

SCHEMA_VERSION = 1


class TrajectoryLog:
    """Appends trajectories to a file; every call leaves whole lines behind.

    Args:
        path: the JSONL file; its folder is made. Lines of earlier runs are kept.

    Raises:
        OSError: where the file cannot be written (a full disk, say); the message names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, phase: str, step: int, rows: Iterable[dict[str, Any]]) -> None:
        """Write `rows` (see `cleaner.trajectory_rows`) that carry a recorded trajectory."""
        lines = [
            {"schema": SCHEMA_VERSION, "phase": phase, "step": step, **row["trajectory"], **row["header"]}
            for row in rows
            if row["trajectory"] is not None
        ]
        if not lines:
            return
        try:
            append_json_lines(self.path, lines)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot write trajectories to {self.path}: {error.strerror}. Free the disk or set "
                "cleaner.record=false, then resume from the last checkpoint",
            ) from error
