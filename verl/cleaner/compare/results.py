"""From run directories to figures: what every run measured, and how each arm stands to the baseline."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cleaner.compare.curves import MEASURES, Curve, read_curve
from cleaner.compare.estimates import Ratio, paired_difference, tokens_to_target
from cleaner.compare.plan import BASELINE, Plan, Run
from cleaner.compare.store import Status, Store
from cleaner.evaluation.estimators import Interval, bootstrap_mean
from cleaner.report.run_dir import NotARunDirectory

LAST = 2
"""Validations whose mean is a run's final value."""

#: Measures of which it is said how many tokens they take to the baseline's final value.
CROSSINGS = ("accuracy", "first_call_failure")


@dataclass(frozen=True)
class ArmFigures:
    """One arm on one task, over its finished runs.

    Attributes:
        seeds: of finished runs. failed, interrupted, missing: numbers of the other runs.
        start, final, mean: by measure: of the first validation; of the last `LAST`; of all after the first step.
        final_difference, mean_difference: to the baseline, paired by seed.
        ratios: tokens to the baseline's final value, by measure.
        steps, tokens, trained_tokens, seconds: means of the runs.
    """

    task: str
    arm: str
    seeds: list[int]
    failed: int
    interrupted: int
    missing: int
    start: dict[str, Interval] = field(default_factory=dict)
    final: dict[str, Interval] = field(default_factory=dict)
    mean: dict[str, Interval] = field(default_factory=dict)
    final_difference: dict[str, Interval] = field(default_factory=dict)
    mean_difference: dict[str, Interval] = field(default_factory=dict)
    ratios: dict[str, Ratio] = field(default_factory=dict)
    steps: float = 0.0
    tokens: float = 0.0
    trained_tokens: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Results:
    """All runs with how they ended, their curves where they were finished, and the figures by task and arm."""

    plan: Plan
    status: Mapping[str, Status]
    curves: Mapping[str, Curve]
    figures: Sequence[ArmFigures]

    def curves_of(self, task: str, arm: str) -> dict[int, Curve]:
        """Finished runs by seed."""
        return {
            run.seed: self.curves[run.name]
            for run in self.plan.runs
            if run.task.name == task and run.arm.name == arm and run.name in self.curves
        }


def collect(plan: Plan, store: Store) -> Results:
    """Read all runs of a plan."""
    status: dict[str, Status] = {run.name: store.status(run) for run in plan.runs}
    curves = {}
    for run in plan.runs:
        if status[run.name] == "finished":
            try:
                curves[run.name] = read_curve(store.path(run))
            except NotARunDirectory:
                status[run.name] = "failed"
    results = Results(plan, status, curves, [])
    figures = [_figures(results, task.name, arm.name) for task in plan.tasks for arm in plan.arms]
    return Results(plan, status, curves, figures)


def _figures(results: Results, task: str, arm: str) -> ArmFigures:
    runs = [run for run in results.plan.runs if run.task.name == task and run.arm.name == arm]
    curves, baseline = results.curves_of(task, arm), results.curves_of(task, BASELINE)
    states = [results.status[run.name] for run in runs]
    failed, interrupted, missing = (states.count(state) for state in ("failed", "interrupted", "missing"))
    found = ArmFigures(task, arm, sorted(curves), failed, interrupted, missing)
    if not curves:
        return found
    for measure in MEASURES:
        name = measure.name
        ours, theirs = (
            {
                "start": _by_seed(each, lambda curve, name=name: curve.validations[0].values.get(name)),
                "final": _by_seed(each, lambda curve, name=name: curve.final(name, LAST)),
                "mean": _by_seed(each, lambda curve, name=name: curve.mean(name)),
            }
            for each in (curves, baseline)
        )
        for kind, target in (("start", found.start), ("final", found.final), ("mean", found.mean)):
            if (interval := bootstrap_mean(list(ours[kind].values()), seed=0)) is not None:
                target[name] = interval
        if arm == BASELINE:
            continue
        for kind, target in (("final", found.final_difference), ("mean", found.mean_difference)):
            if (interval := paired_difference(ours[kind], theirs[kind])) is not None:
                target[name] = interval
        if name in CROSSINGS:
            first, second = (
                {seed: curve.points(name) for seed, curve in each.items()} for each in (curves, baseline)
            )
            if (ratio := tokens_to_target(first, second, measure.better, LAST)) is not None:
                found.ratios[name] = ratio
    means = {
        name: sum(getattr(curve, name) for curve in curves.values()) / len(curves)
        for name in ("steps", "tokens", "trained_tokens", "seconds")
    }
    return ArmFigures(**{**vars(found), **means})


def _by_seed(curves: Mapping[int, Curve], value: Any) -> dict[int, float]:
    found = {seed: value(curve) for seed, curve in curves.items() if curve.validations}
    return {seed: number for seed, number in found.items() if number is not None}


def write_raw(results: Results, store: Store, folder: Path) -> None:
    """Write `runs.csv` (every run that was planned), `validations.csv` (every validation of finished runs),
    `starts.csv` (every start and end, also of runs that were done again) and `summary.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [measure.name for measure in MEASURES]
    runs, validations = [], []
    for run in results.plan.runs:
        curve = results.curves.get(run.name)
        row = _identity(run) | {"status": results.status[run.name]}
        if curve is not None:
            row |= {
                "steps": curve.steps,
                "generated_tokens": int(curve.tokens),
                "trained_tokens": int(curve.trained_tokens),
                "training_seconds": round(curve.seconds, 1),
                "wall_seconds": store.seconds(run),
            }
            row |= {f"final_{name}": _rounded(curve.final(name, LAST)) for name in names}
            validations += [
                _identity(run)
                | {"step": v.step, "generated_tokens": int(v.tokens), "trained_tokens": int(v.trained_tokens)}
                | {name: _rounded(v.values.get(name)) for name in names}
                for v in curve.validations
            ]
        runs.append(row)
    columns = ["status", "steps", "generated_tokens", "trained_tokens", "training_seconds", "wall_seconds"]
    _write_csv(folder / "runs.csv", runs, [*_IDENTITY, *columns, *(f"final_{name}" for name in names)])
    columns = ["step", "generated_tokens", "trained_tokens", *names]
    _write_csv(folder / "validations.csv", validations, [*_IDENTITY, *columns])
    _write_csv(folder / "starts.csv", store.starts(results.plan.runs), ["time", "run", "event"])
    summary = {
        "schema": 1,
        "last": LAST,
        "figures": [_finite(asdict(figures)) for figures in results.figures],
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


_IDENTITY = ("task", "arm", "seed")


def _identity(run: Run) -> dict[str, Any]:
    return {"task": run.task.name, "arm": run.arm.name, "seed": run.seed}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _finite(value: Any) -> Any:
    """The same with infinities as text, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return "inf" if isinstance(value, float) and math.isinf(value) else value


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
