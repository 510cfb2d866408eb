"""Chooses, from thousands of recorded trajectories, the repairs worth reading first."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

DECISIONS = ("shallow", "deep", "kept", "exhausted")


@dataclass(frozen=True)
class Repair:
    """One repair and the trajectory that it belongs to, as recorded. Fields may lack: read them with
    `.get`.
    """

    trajectory: dict[str, Any]
    repair: dict[str, Any]


def choose_repairs(
    trajectories: Iterable[dict[str, Any]],
    count: int = 1,
    decision: str | None = None,
    step: int | None = None,
) -> list[Repair]:
    """The `count` repairs that show best what a repair is, best first; the choice depends on the records
    alone.

    Preferred, in this order: recovered ones, trajectories that got the right answer, later steps, short ones.
    Holds only `count` records in memory. `decision` (one of `DECISIONS`) and `step` restrict the choice.
    """
    best: list[tuple[tuple[float, ...], Repair]] = []
    for position, trajectory in enumerate(trajectories):
        if step is not None and trajectory.get("step") != step:
            continue
        repairs = trajectory.get("repairs")
        for turn, repair in enumerate(repairs if isinstance(repairs, list) else []):
            if not isinstance(repair, dict) or (decision is not None and repair.get("decision") != decision):
                continue
            # Unique by (position, turn): the heap never compares two records.
            entry = ((*_merit(trajectory, repair), -position, -turn), Repair(trajectory, repair))
            if len(best) < count:
                heapq.heappush(best, entry)
            elif count and entry[0] > best[0][0]:
                heapq.heapreplace(best, entry)
    return [repair for _, repair in sorted(best, key=lambda entry: entry[0], reverse=True)]


def _merit(trajectory: dict[str, Any], repair: dict[str, Any]) -> tuple[float, ...]:
    recovered = repair.get("decision") in ("shallow", "deep")
    correct = trajectory.get("accuracy") == 1
    step = trajectory.get("step")
    return (
        float(recovered),
        float(correct),
        float(step) if isinstance(step, int) else 0.0,
        -float(len(str(repair))),
    )
