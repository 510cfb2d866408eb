"""The curves of the HTML report: which there are, and a run's points on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cleaner.report import metric_names as names
from cleaner.report.run_dir import RunDirectory
from cleaner.report.summary import discarded_share, validation_accuracy
from cleaner.report.visible_text import visible

_MOST_CLASSES = 8

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Line:
    """One quantity of a chart: `series` is its key in a run's series, `style` is solid, dashed or faint."""

    series: str
    label: str
    style: str = "solid"


@dataclass(frozen=True)
class Chart:
    """One chart. `form` says how values are written: share, count, tokens or seconds. Small charts share a scale."""

    title: str
    form: str
    lines: tuple[Line, ...]
    note: str = ""
    small: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        lines = [{"series": line.series, "label": line.label, "style": line.style} for line in self.lines]
        return {
            "title": self.title,
            "form": self.form,
            "note": self.note,
            "small": self.small,
            "lines": lines,
        }


_MAIN = (
    Chart(
        "Accuracy",
        "share",
        (Line("val_accuracy", "validation"), Line("train_accuracy", "training", "faint")),
        "share of right answers",
    ),
    Chart("Reward", "number", (Line("train_reward", "training"),), "mean of a step's trajectories"),
    Chart(
        "First tool call succeeds",
        "share",
        (Line("val_first", "validation"), Line("train_first", "training", "faint")),
        "share of first calls",
    ),
    Chart(
        "Rollbacks",
        "count",
        (Line("triggered", "failing turns rolled back"), Line("recovered", "recovered", "dashed")),
        "number in a step",
    ),
    Chart(
        "Discarded tokens",
        "share",
        (Line("discarded", "discarded"),),
        "share of generated tokens that no training sequence contains",
    ),
    Chart(
        "Response length",
        "tokens",
        (Line("purified_length", "as trained"), Line("sampled_length", "failing turns left in", "dashed")),
        "mean tokens, observations included",
    ),
    Chart("Seconds a step", "seconds", (Line("seconds", "step"),), "wall clock, validation not included"),
)


def charts_of(runs: Sequence[RunDirectory]) -> list[Chart]:
    """The charts that at least one run has points for; after them a small one for each frequent error class."""
    classes: Counter[str] = Counter()
    logged: set[str] = set()
    for run in runs:
        series = series_of(run)
        logged.update(series)
        for name, points in series.items():
            if name.startswith("triggered/"):
                classes[name.partition("/")[2]] += int(sum(value for _, value in points))
    main = [chart for chart in _MAIN if any(line.series in logged for line in chart.lines)]
    if all(_rewards_are_accuracy(run) for run in runs):
        main = [chart for chart in main if chart.title != "Reward"]
    frequent = [name for name, number in classes.most_common(_MOST_CLASSES) if number]
    return main + [
        Chart(
            name,
            "count",
            (Line(f"triggered/{name}", "rolled back"), Line(f"recovered/{name}", "recovered", "dashed")),
            small=True,
        )
        for name in frequent
    ]


def series_of(run: RunDirectory) -> dict[str, Points]:
    """A run's points by series key; a quantity that it did not log is absent.

    A step that logged rollbacks but not this error class had none of it: its point is 0.
    """
    found: dict[str, Points] = {
        "val_accuracy": validation_accuracy(run),
        "train_accuracy": _first_of(run, names.TRAINING_ACCURACY),
        "train_reward": _first_of(run, names.TRAINING_REWARD),
        "val_first": run.series(names.VALIDATION + names.FIRST_ATTEMPT),
        "train_first": run.series(names.FIRST_ATTEMPT),
        "triggered": run.series(names.TRIGGERED),
        "recovered": run.series(names.RECOVERED),
        "purified_length": run.series(names.PURIFIED_LENGTH) or run.series(names.RESPONSE_LENGTH),
        "sampled_length": run.series(names.SAMPLED_LENGTH),
        "seconds": run.series(names.STEP_SECONDS),
        "discarded": [
            (entry.step, share) for entry in run.steps if (share := discarded_share(entry.values)) is not None
        ],
    }
    steps = [step for step, _ in found["triggered"]]
    for kind in ("triggered", "recovered"):
        prefix = f"rollback/{kind}/"
        for name in sorted(run.names()):
            if name.startswith(prefix):
                logged = dict(run.series(name))
                label = f"{kind}/{visible(name.removeprefix(prefix))[:80]}"
                found[label] = [(step, logged.get(step, 0.0)) for step in steps]
    return {name: points for name, points in found.items() if points}


def _rewards_are_accuracy(run: RunDirectory) -> bool:
    """Whether a chart of rewards would show what the chart of accuracy shows: rewards of 0 and 1."""
    rewards, accuracy = _first_of(run, names.TRAINING_REWARD), _first_of(run, names.TRAINING_ACCURACY)
    return len(rewards) == len(accuracy) and all(
        left[0] == right[0] and abs(left[1] - right[1]) < 1e-6
        for left, right in zip(rewards, accuracy, strict=True)
    )


def _first_of(run: RunDirectory, candidates: Sequence[str]) -> Points:
    return next((points for name in candidates if (points := run.series(name))), [])
