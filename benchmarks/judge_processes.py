"""Processor time of a running service, by what its processes are for."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, fields
from pathlib import Path

_MS_PER_TICK = 1000 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spent:
    """Milliseconds: web processes, Redis, workers, zygotes (their forks), programs, and the client (this process)."""

    web: float = 0.0
    redis: float = 0.0
    workers: float = 0.0
    zygotes: float = 0.0
    programs: float = 0.0
    client: float = 0.0

    def milliseconds(self) -> dict[str, float]:
        """As a mapping, rounded."""
        return {field.name: round(getattr(self, field.name), 3) for field in fields(self)}

    def __sub__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def __truediv__(self, number: float) -> Spent:
        return Spent(*(getattr(self, f.name) / number for f in fields(self)))

    def __str__(self) -> str:
        parts = [f"{name} {value:.2f}" for name, value in self.milliseconds().items()]
        return ", ".join(parts) + f"; together {sum(self.milliseconds().values()):.2f}"


def spent(root: int) -> Spent:
    """What the processes below `root` have used since they started; ended programs are in their zygote's account."""
    parents: dict[int, int] = {}
    times: dict[int, tuple[float, float]] = {}
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parts = Path(f"/proc/{int(name)}/stat").read_text().rpartition(")")[2].split()
            parents[int(name)] = int(parts[1])
            own, ended = (_MS_PER_TICK * (int(parts[i]) + int(parts[i + 1])) for i in (11, 13))
            times[int(name)] = (own, ended)
    below = {root}
    while more := {pid for pid, parent in parents.items() if parent in below and pid not in below}:
        below |= more
    sums = dict.fromkeys((field.name for field in fields(Spent)), 0.0)
    for pid in below - {root}:
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            own, ended = times[pid]
            kind = _kind(line)
            if kind is not None:
                sums[kind] += own
                if kind == "zygotes":
                    sums["programs"] += ended
    sums["client"] = sum(os.times()[:2]) * 1000
    return Spent(**sums)


def _kind(line: str) -> str | None:
    kinds = {"valkey": "redis", "code-judge web": "web", "code-judge worker ": "workers"}
    for part, kind in kinds.items():
        if part in line:
            return kind
    return "zygotes" if "app.sandbox.nursery" in line else None
