"""Gathers everything that the HTML report shows, from run directories, as one JSON-able object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from cleaner.report.page_curves import charts_of, series_of
from cleaner.report.run_arms import group_runs, run_names
from cleaner.report.run_dir import RunDirectory
from cleaner.report.summary import summarise
from cleaner.report.trajectory_sample import TrajectorySample
from cleaner.report.visible_text import visible

# Called with a run's index and the bytes of its trajectories file that were read so far.
Progress = Callable[[int, int], None]


def page_data(
    runs: Sequence[RunDirectory],
    room: int,
    seed: int = 0,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What the page shows; `page/data.js` reads it.

    Args:
        room: bytes for trajectories, as JSON; what does not fit is sampled.
        seed: of the sample.
        names: of the runs; by default their folders'.
        progress: is told how far reading is.
    """
    labels = [visible(name)[:120] for name in (names or run_names(runs))]
    sample = TrajectorySample(room, seed)
    for index, run in enumerate(runs):
        told = (lambda done, index=index: progress(index, done)) if progress else None
        trained = run.setting("cleaner.saar.graft_credit") != "mask"
        sample.read(index, run.trajectories(told), trained)
    chosen = sample.choose()
    prompts: dict[str, int] = {}
    trajectories = []
    for key in sorted(chosen, key=lambda key: (key[0], key[1], key[2])):
        for candidate in chosen[key]:
            prompt = prompts.setdefault(candidate.record["prompt"], len(prompts))
            trajectories.append((key[0], candidate.position, {**candidate.record, "prompt": prompt}))
    trajectories.sort(key=lambda entry: entry[:2])
    arms = group_runs(runs, labels)
    return {
        "schema": 1,
        "arms": [
            {
                "name": arm.name,
                "runs": arm.runs,
                "differs": [[visible(key), visible(value)[:200]] for key, value in arm.differs],
            }
            for arm in arms
        ],
        "runs": [
            _run(run, label, next(i for i, arm in enumerate(arms) if index in arm.runs))
            for index, (run, label) in enumerate(zip(runs, labels, strict=True))
        ],
        "charts": [chart.to_dict() for chart in charts_of(runs)],
        "strata": [
            {
                "run": run,
                "phase": phase,
                "kind": kind,
                "recorded": stratum.recorded,
                "shown": len(chosen[run, phase, kind]),
            }
            for (run, phase, kind), stratum in sorted(sample.strata.items())
        ],
        "seed": seed,
        "prompts": list(prompts),
        "trajectories": [record for _, _, record in trajectories],
    }


def _run(run: RunDirectory, name: str, arm: int) -> dict[str, Any]:
    summary = summarise(run)
    settings = {key: visible(value)[:200] for key, value in summary.settings.items()}
    gamma = summary.settings.get("gamma")
    return {
        "name": name,
        "arm": arm,
        "settings": settings,
        "seed": settings.get("seed"),
        "gamma": gamma if isinstance(gamma, int | float) and not isinstance(gamma, bool) else None,
        "credit": visible(run.setting("cleaner.saar.graft_credit", "train"))[:40],
        "steps": summary.steps,
        "accuracy": asdict(summary.accuracy) if summary.accuracy else None,
        "first": asdict(summary.first_attempt_success) if summary.first_attempt_success else None,
        "rollbacks": asdict(summary.rollbacks),
        "seconds": sum(summary.training_seconds.values()) or None,
        "warnings": [visible(warning) for warning in run.warnings],
        "series": {
            series: [[step, round(value, 6)] for step, value in points]
            for series, points in series_of(run).items()
        },
    }
