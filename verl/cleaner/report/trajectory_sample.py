"""Chooses which trajectories the HTML report carries where not all of them fit: at random by seed, by kind.

A stratum is a run, a phase (training or validation) and a kind (`page_record.KINDS`). The room is shared out evenly
among the strata; what a stratum does not need goes to the others. So rare kinds stay whole, common ones are thinned.
One pass over each file, and memory for what may still be chosen only.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cleaner.report.page_record import kinds_of, page_record

Key = tuple[int, str, str]
# A comma after the record, and the number of its prompt.
_INDEX_BYTES = 8


@dataclass(frozen=True)
class Candidate:
    """A trajectory that may be shown: `draw` orders a stratum at random, `size` is that of its JSON in bytes."""

    draw: float
    position: int
    size: int
    record: dict[str, Any]


@dataclass
class Stratum:
    """The candidates of one stratum, at most `room` bytes of them: those with the smallest draws.

    Attributes:
        recorded: how many trajectories of the stratum were seen.
    """

    room: int
    recorded: int = 0
    _heap: list[tuple[float, int, Candidate]] = field(default_factory=list)
    _bytes: int = 0

    def wants(self, draw: float) -> bool:
        """Whether a candidate with this draw would be held."""
        return self._bytes < self.room or draw < -self._heap[0][0]

    def add(self, candidate: Candidate) -> None:
        """Hold a candidate, and let go of the largest draws that no longer fit; one always stays."""
        heapq.heappush(self._heap, (-candidate.draw, -candidate.position, candidate))
        self._bytes += candidate.size
        while self._bytes > self.room and len(self._heap) > 1:
            self._bytes -= heapq.heappop(self._heap)[2].size

    def in_draw_order(self) -> Iterator[Candidate]:
        """The candidates from the smallest draw on."""
        return (entry[2] for entry in sorted(self._heap, key=lambda entry: entry[:2], reverse=True))


class TrajectorySample:
    """Takes trajectories of several runs and gives back those that fit.

    Args:
        room: bytes of JSON for all trajectories and prompts together.
        seed: of the draw; equal input and seed give an equal choice.
    """

    def __init__(self, room: int, seed: int = 0) -> None:
        self.room = room
        self.seed = seed
        self.strata: dict[Key, Stratum] = {}

    def read(self, run: int, trajectories: Iterable[Mapping[str, Any]], grafts_trained: bool = True) -> None:
        """Take all trajectories of the run with this index."""
        random_numbers = random.Random(f"{self.seed}/{run}")
        for position, trajectory in enumerate(trajectories):
            draw = random_numbers.random()
            phase = "val" if trajectory.get("phase") == "val" else "train"
            stratum = self.strata.setdefault((run, phase, kinds_of(trajectory)[0]), Stratum(self.room))
            stratum.recorded += 1
            if stratum.wants(draw):
                record = {"run": run, **page_record(trajectory, grafts_trained)}
                stratum.add(Candidate(draw, position, json_size(record) + _INDEX_BYTES, record))

    def choose(self) -> dict[Key, list[Candidate]]:
        """The chosen trajectories by stratum, in the order of the file.

        The smallest strata come first, so that what they leave goes to the larger ones. A stratum's first candidate is
        taken whatever its size: no kind vanishes.
        """
        waiting = {key: list(stratum.in_draw_order()) for key, stratum in self.strata.items()}
        order = sorted(waiting, key=lambda key: (sum(candidate.size for candidate in waiting[key]), key))
        chosen: dict[Key, list[Candidate]] = {}
        left, prompts = self.room, set[str]()
        for number, key in enumerate(order):
            share = left / (len(order) - number)
            taken: list[Candidate] = []
            for candidate in waiting[key]:
                # A prompt is carried once, however many trajectories share it.
                prompt = candidate.record["prompt"]
                cost = candidate.size - (json_size(prompt) if prompt in prompts else 0)
                if taken and cost > share:
                    break
                share -= cost
                left -= cost
                prompts.add(prompt)
                taken.append(candidate)
            chosen[key] = sorted(taken, key=lambda candidate: candidate.position)
        return chosen


def json_size(value: Any) -> int:
    """Bytes of `value` in the page, escapes of `<`, `>` and `&` included."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode()) + 5 * sum(text.count(character) for character in "<>&")
