"""`python -m cleaner.compare.metric RESULTS [METRIC ...]`: how the arms differ in any metric of the validations.

RESULTS is a comparison's folder of results, with `runs.tar.xz`. Prints, for each task and metric, the baseline's value
at the start and at the end, and each arm's difference to it, paired by seed: mean, 95 % bootstrap interval (bold as in
`results.md`), and every seed's. Without a METRIC it lists those that the runs logged. A metric that some validations
lack, as an error class that did not occur, counts as 0 there.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cleaner.compare.archive import ARCHIVE
from cleaner.compare.estimates import paired_difference
from cleaner.compare.plan import BASELINE
from cleaner.compare.results import LAST
from cleaner.compare.tables import difference, table
from cleaner.errors import ConfigError
from cleaner.report.run_dir import METRICS_FILE, RunDirectory

_ACCURACY = "val/accuracy"  # what every validation has

Runs = Mapping[str, Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]]]
"""The metrics of all validations of each run, in order: [task][arm][seed]."""


@dataclass(frozen=True)
class Line:
    """One arm in one metric of one task. `start` and `end`: by seed, the end is the mean of the last validations."""

    task: str
    metric: str
    arm: str
    start: Mapping[int, float]
    end: Mapping[int, float]


def read_runs(results: Path) -> Runs:
    """The validations of the runs that are kept beside the results.

    Raises:
        ConfigError: there are none.
    """
    archive = results / ARCHIVE
    if not archive.is_file():
        raise ConfigError(f"{archive} is not there; give a folder that recipe/cleaner/compare.sh wrote.")
    runs: dict[str, dict[str, dict[int, list[Mapping[str, float]]]]] = {}
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        for log in sorted(Path(folder).glob(f"*/*/seed-*/{METRICS_FILE}")):
            task, arm, seed = log.parent.relative_to(folder).parts
            steps = RunDirectory.open(log.parent).steps
            validations = [step.values for step in steps if _ACCURACY in step.values]
            runs.setdefault(task, {}).setdefault(arm, {})[int(seed.removeprefix("seed-"))] = validations
    if not runs:
        raise ConfigError(f"{archive} holds no run.")
    return runs


def names(runs: Runs) -> list[str]:
    """Every metric of a validation that a run logged, sorted."""
    found = (v for arms in runs.values() for seeds in arms.values() for vs in seeds.values() for v in vs)
    return sorted({name for values in found for name in values if name.startswith("val")})


def lines(runs: Runs, metric: str) -> list[Line]:
    """The metric in every task that has it, the baseline first.

    Raises:
        ConfigError: no run has it.
    """
    if metric not in names(runs):
        raise ConfigError(f"no run logged {metric!r}; without a metric, the command lists all.")
    found = []
    for task, arms in runs.items():
        if metric not in names({task: arms}):
            continue
        for arm in sorted(arms, key=lambda name: (name != BASELINE, name)):
            values = {
                seed: [validation.get(metric, 0.0) for validation in validations]
                for seed, validations in arms[arm].items()
            }
            start = {seed: each[0] for seed, each in values.items()}
            end = {seed: sum(each[-LAST:]) / len(each[-LAST:]) for seed, each in values.items()}
            found.append(Line(task, metric, arm, start, end))
    return found


def page(found: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    rows = []
    baseline: Mapping[int, float] = {}
    for line in found:
        if line.arm == BASELINE:
            baseline = line.end
            value = f"{_mean(line.start):.3f} → {_mean(line.end):.3f}"
            by_seed = " ".join(f"{line.end[seed]:.3f}" for seed in sorted(line.end))
        else:
            both = sorted(line.end.keys() & baseline.keys())
            value = difference(paired_difference(line.end, baseline), len(both))
            by_seed = " ".join(f"{line.end[seed] - baseline[seed]:+.3f}" for seed in both)
        rows.append(
            [line.task, f"`{line.metric}`", f"`{line.arm}`", str(len(line.end)), value, by_seed],
        )
    titles = ["task", "metric", "arm", "seeds", "start → end, or difference", "by seed"]
    return "\n".join(table(titles, rows))


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values)


def main(argv: Sequence[str] | None = None) -> int:
    """0: printed; 2: wrong input."""
    parser = argparse.ArgumentParser(prog="python -m cleaner.compare.metric", description=__doc__)
    parser.add_argument("results", type=Path, help="folder of a comparison's results")
    parser.add_argument("metrics", nargs="*", metavar="METRIC", help="such as val/tool_calls/total")
    options = parser.parse_args(argv)
    try:
        runs = read_runs(options.results)
        if options.metrics:
            print(page([line for metric in options.metrics for line in lines(runs, metric)]))
        else:
            print("\n".join(names(runs)))
    except ConfigError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
