"""Counts of a whole run, which go on where a resumed run left off."""

import json
from collections.abc import Mapping
from pathlib import Path

# Total -> the step's metric that is added to it.
_SOURCES = {
    "generated_tokens": "rollback/generated_tokens",
    "trained_tokens": "trained_tokens",
    "discarded_tokens": "rollback/discarded_tokens",
    "lookahead_tokens": "rollback/lookahead_tokens",
    "lookahead_seconds": "rollback/lookahead_seconds",
    "tool_calls": "tool_calls/total",
    "rolled_back_turns": "rollback/triggered",
    "recovered_turns": "rollback/recovered",
    "failed_trajectories": "rollout/failed_trajectories",
    "left_out_for_infrastructure": "rollout/left_out_for_infrastructure",
}
_FILE = "cleaner_totals.json"


class RunTotals:
    """Sums over all training steps; part of each checkpoint."""

    def __init__(self) -> None:
        self._totals = dict.fromkeys(_SOURCES, 0.0)

    def __getitem__(self, name: str) -> float:
        return self._totals[name]

    def add(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Add one step's metrics; returns the totals as metrics `run_total/<name>`."""
        for name, source in _SOURCES.items():
            self._totals[name] += float(metrics.get(source, 0.0))
        return {f"run_total/{name}": value for name, value in self._totals.items()}

    def save(self, folder: Path) -> None:
        """Write them into the folder of a checkpoint."""
        (folder / _FILE).write_text(json.dumps(self._totals))

    def load(self, folder: Path) -> None:
        """Take over those of a checkpoint; one that has none, made by another program, leaves them as they are."""
        path = folder / _FILE
        if path.exists():
            known = json.loads(path.read_text())
            self._totals.update({name: float(known[name]) for name in _SOURCES if name in known})
