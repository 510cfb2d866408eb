"""Shares of trajectories that need both what the reward said and what the agent loop counted."""

from collections.abc import Sequence
from typing import Any


def trajectory_shares(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Metrics of the trajectories whose tool calls were counted (`cleaner.trajectory_rows`); empty for none.

    Returns:
        `trajectories/used_tool`: share of trajectories that made a call. `trajectories/clean_accuracy`: share of those
        with a known accuracy that are right and met no failing call, in no look-ahead either.
    """
    counted = [row for row in rows if row["saar"] is not None]
    if not counted:
        return {}
    shares = {"trajectories/used_tool": sum(row["saar"]["calls"] > 0 for row in counted) / len(counted)}
    scored = [row for row in counted if row["header"]["accuracy"] is not None]
    if scored:
        shares["trajectories/clean_accuracy"] = sum(map(_clean, scored)) / len(scored)
    return shares


def _clean(row: dict[str, Any]) -> float:
    counts = row["saar"]
    return float(row["header"]["accuracy"]) if counts["calls"] == counts["calls_ok"] else 0.0
