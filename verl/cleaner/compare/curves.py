"""What one run measured: its validations and its training steps, by generated tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cleaner.report.run_dir import RunDirectory

_TOKENS = "run_total/generated_tokens"
_TRAINED = "run_total/trained_tokens"
_STEP_SECONDS = "timing_s/step"


@dataclass(frozen=True)
class Measure:
    """A quantity of a validation, which is always without rollback.

    Attributes:
        name: in files. title: in tables and plots.
        better: 1 where more is better, -1 where less is, 0 where neither.
        of: its value from a validation's metrics; None where they do not tell.
    """

    name: str
    title: str
    better: int
    of: Callable[[Mapping[str, float]], float | None]


def _one_minus(name: str) -> Callable[[Mapping[str, float]], float | None]:
    return lambda values: 1.0 - values[name] if name in values else None


MEASURES: tuple[Measure, ...] = (
    Measure("accuracy", "accuracy", 1, lambda values: values.get("val/accuracy")),
    Measure(
        "clean_accuracy",
        "accuracy without any failure",
        1,
        lambda values: values.get("val/trajectories/clean_accuracy"),
    ),
    Measure(
        "first_call_failure",
        "first call fails",
        -1,
        _one_minus("val/tool_calls/first_call_success_rate"),
    ),
    Measure("used_tool", "uses the tool", 0, lambda values: values.get("val/trajectories/used_tool")),
)
"""What runs are compared by. Shares in [0, 1]; the failure of the first call is of those that made one."""


@dataclass(frozen=True)
class Validation:
    """One validation. `tokens` and `trained_tokens`: generated and trained by all steps before it."""

    step: int
    tokens: float
    trained_tokens: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Curve:
    """One run. `seconds`: of all training steps, validations not included."""

    validations: tuple[Validation, ...]
    steps: int
    tokens: float
    trained_tokens: float
    seconds: float

    def final(self, name: str, last: int) -> float | None:
        """Mean of a measure over the `last` validations; None where one of them lacks it."""
        values = [validation.values.get(name) for validation in self.validations[-last:]]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    def mean(self, name: str) -> float | None:
        """Mean of a measure over all validations after the first step: how fast it was learned."""
        known = [v.values[name] for v in self.validations if v.step > 0 and name in v.values]
        return sum(known) / len(known) if known else None

    def points(self, name: str) -> list[tuple[float, float]]:
        """(generated tokens, value) of a measure, ascending."""
        return [(v.tokens, v.values[name]) for v in self.validations if name in v.values]


def read_curve(folder: Path) -> Curve:
    """Read a run directory.

    Raises:
        NotARunDirectory: nothing was logged there.
    """
    validations = []
    tokens = trained = seconds = 0.0
    steps = 0
    for entry in RunDirectory.open(folder).steps:
        tokens = entry.values.get(_TOKENS, tokens)
        trained = entry.values.get(_TRAINED, trained)
        seconds += entry.values.get(_STEP_SECONDS, 0.0)
        steps = max(steps, entry.step)
        found = {measure.name: measure.of(entry.values) for measure in MEASURES}
        values = {name: value for name, value in found.items() if value is not None}
        if "accuracy" in values:
            validations.append(Validation(entry.step, tokens, trained, values))
    return Curve(tuple(validations), steps, tokens, trained, seconds)
