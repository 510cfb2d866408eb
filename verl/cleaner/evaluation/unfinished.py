"""What an evaluation that was stopped has still to do, and the metrics of all of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cleaner.evaluation.identity import prompt_digest, row_id
from cleaner.evaluation.sample_log import ProblemKey, problem_key


class UnfinishedProblems:
    """verl's validation batches without the problems whose samples are all there.

    Args:
        batches: verl's validation data loader: mappings of column to tensor or array, one row a problem.
        done: how many samples of each problem are there.
        samples: how many a problem needs, unless its row says it (`__rollout_n__`).
    """

    def __init__(
        self, batches: Iterable[dict[str, Any]], done: Mapping[ProblemKey, int], samples: int
    ) -> None:
        self._batches = batches
        self._done = done
        self._samples = samples

    def __iter__(self) -> Iterator[dict[str, Any]]:
        problems = left = 0
        for batch in self._batches:
            keep = [i for i in range(len(batch["raw_prompt"])) if not self._is_done(batch, i)]
            problems, left = problems + len(batch["raw_prompt"]), left + len(keep)
            if keep:
                yield {name: column[keep] for name, column in batch.items()}
        print(f"evaluation: {problems - left} of {problems} problems were done already", flush=True)

    def _is_done(self, batch: Mapping[str, Any], number: int) -> bool:
        row = {name: column[number] for name, column in batch.items()}
        source = str(row.get("data_source", "unknown"))
        key = (source, row_id(row), prompt_digest(row["raw_prompt"]))
        return self._done.get(key, 0) >= int(row.get("__rollout_n__", self._samples))


def accuracy_by_source(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`val-core/<data source>/acc/mean@<n>`, as verl names it; n is the largest number of samples of a problem."""
    sources: dict[str, dict[ProblemKey, list[float]]] = {}
    for line in lines:
        if line["left_out"] is None and line["acc"] is not None:
            problems = sources.setdefault(line["data_source"], {})
            problems.setdefault(problem_key(line), []).append(float(line["acc"]))
    return {
        f"val-core/{source}/acc/mean@{max(map(len, problems.values()))}": float(
            np.mean([np.mean(samples) for samples in problems.values()])
        )
        for source, problems in sorted(sources.items())
    }


def rows_of(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Samples in the form of `cleaner.trajectory_rows`, as far as metrics need it."""
    return [
        {"header": {"accuracy": line["acc"], "reward": line["score"]}, "saar": line["saar"]}
        for line in lines
        if line["left_out"] is None
    ]
