"""The end-of-run summary: what changed from the first to the last validation, what SAAR did, what it cost.

It is computed from the logged metrics alone, so it can be made again at any time (`cleaner show`). A quantity
that a run did not log is None, never 0. Nothing here compares runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cleaner.report import metric_names as names
from cleaner.report.run_dir import SUMMARY_FILE, RunDirectory

SCHEMA = 1

_CORE_ACCURACY = re.compile(r"^val-core/(?P<source>.+)/(?:acc|reward)/mean@(?P<n>\d+)$")
# Failures are counted twice: by status, and by exception class where one is known.
_STATUSES = frozenset({"program_error", "timeout", "format_error", "infrastructure"})
# Parts of verl's step that are shown by name; the rest of the step is shown as "other".
_STEP_PARTS = (
    *("gen", "reward", "old_log_prob", "ref", "values", "adv", "update_critic", "update_actor"),
    *("update_weights", "save_checkpoint", "dump_rollout_generations"),
)


@dataclass(frozen=True)
class Change:
    """A validation metric (a share between 0 and 1) at the first and at the last validation of the run."""

    before: float
    after: float
    before_step: int
    after_step: int


@dataclass(frozen=True)
class Rollbacks:
    """Totals over all training steps. Shares are of all tokens that the model generated in training."""

    triggered: float | None
    recovered: float | None
    exhausted: float | None
    shallow: float | None
    deep: float | None
    discarded_tokens: float | None
    lookahead_tokens: float | None
    lookahead_seconds: float | None
    generated_tokens: float | None
    discarded_share: float | None


@dataclass(frozen=True)
class Summary:
    """What the closing table shows.

    Attributes:
        steps: the last training step.
        settings: of the run, by a short name.
        accuracy, first_attempt_success: of validation. `accuracy_by_source` is the same by data source.
        rollbacks: totals over training.
        failures: failing calls in training by status; `exceptions` the program errors among them by exception
            class.
        seconds: wall-clock seconds by phase of the script around the trainer.
        training_seconds: wall-clock seconds by part of the training loop, summed over the steps.
    """

    steps: int
    settings: dict[str, Any]
    accuracy: Change | None
    accuracy_by_source: dict[str, Change]
    first_attempt_success: Change | None
    rollbacks: Rollbacks
    failures: dict[str, float]
    exceptions: dict[str, float]
    seconds: dict[str, float]
    training_seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, with its schema number."""
        return {"schema": SCHEMA, **asdict(self)}


def summarise(run: RunDirectory) -> Summary:
    """Summarise one run from its metrics. Works on a run of any length, also one that has logged nothing
    yet.
    """
    sources = {match["source"]: name for name in sorted(run.names()) if (match := _CORE_ACCURACY.match(name))}
    failures = _failures(run)
    by_source = {source: change for source, name in sources.items() if (change := _change(run.series(name)))}
    return Summary(
        steps=max((entry.step for entry in run.steps), default=0),
        settings=_settings(run),
        accuracy=_change(validation_accuracy(run)),
        accuracy_by_source=by_source,
        first_attempt_success=_change(run.series(names.VALIDATION + names.FIRST_ATTEMPT)),
        rollbacks=_rollbacks(run),
        failures={kind: number for kind, number in failures.items() if kind in _STATUSES},
        exceptions={kind: number for kind, number in failures.items() if kind not in _STATUSES},
        seconds=dict(run.phases),
        training_seconds=training_seconds(run),
    )


def write_summary(run: RunDirectory, summary: Summary | None = None) -> Path:
    """Write `summary.json` into the run directory, whole or not at all; returns its path.

    Raises:
        OSError: the disk is full or the directory not writable; an older summary is then still whole.
    """
    summary = summary or summarise(run)
    target = run.path / SUMMARY_FILE
    draft = target.with_suffix(".json.tmp")
    try:
        draft.write_text(json.dumps(summary.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def validation_accuracy(run: RunDirectory) -> list[tuple[int, float]]:
    """Validation accuracy by step: the overall one, or the plain mean over verl's data sources where a run
    lacks it.
    """
    overall = run.series(names.VALIDATION_ACCURACY)
    if overall:
        return overall
    points = []
    for entry in run.steps:
        values = [value for name, value in entry.values.items() if _CORE_ACCURACY.match(name)]
        if values:
            points.append((entry.step, sum(values) / len(values)))
    return points


def training_seconds(run: RunDirectory) -> dict[str, float]:
    """Seconds by part of the training loop, summed over steps, largest first; `validation` is not part of a
    step.
    """
    totals: dict[str, float] = {}
    for entry in run.steps:
        for label, seconds in step_seconds(entry.values).items():
            totals[label] = totals.get(label, 0.0) + seconds
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def step_seconds(values: Mapping[str, float]) -> dict[str, float]:
    """One step's seconds by part, from verl's `timing_s/*`; what the named parts leave of the step is
    `other`.
    """
    parts = {part: values[names.TIMING + part] for part in _STEP_PARTS if names.TIMING + part in values}
    if names.STEP_SECONDS in values:
        rest = values[names.STEP_SECONDS] - sum(parts.values())
        if rest > 0:
            parts["other"] = rest
    if names.TESTING_SECONDS in values:
        parts["validation"] = values[names.TESTING_SECONDS]
    return parts


def discarded_share(values: Mapping[str, float]) -> float | None:
    """Share of one step's generated tokens that no training sequence contains; None where it was not
    logged.
    """
    discarded, generated = values.get(names.DISCARDED_TOKENS), values.get(names.GENERATED_TOKENS)
    if discarded is not None and generated:
        return float(discarded / generated)
    share = values.get(names.DISCARDED_SHARE)
    return None if share is None else float(share)


def _change(points: list[tuple[int, float]]) -> Change | None:
    if not points:
        return None
    (first_step, first), (last_step, last) = points[0], points[-1]
    return Change(before=first, after=last, before_step=first_step, after_step=last_step)


def _total(run: RunDirectory, name: str) -> float | None:
    points = run.series(name)
    return sum(value for _, value in points) if points else None


def _rollbacks(run: RunDirectory) -> Rollbacks:
    discarded, generated = _total(run, names.DISCARDED_TOKENS), _total(run, names.GENERATED_TOKENS)
    return Rollbacks(
        triggered=_total(run, names.TRIGGERED),
        recovered=_total(run, names.RECOVERED),
        exhausted=_total(run, names.EXHAUSTED),
        shallow=_total(run, names.SHALLOW),
        deep=_total(run, names.DEEP),
        discarded_tokens=discarded,
        lookahead_tokens=_total(run, names.LOOKAHEAD_TOKENS),
        lookahead_seconds=_total(run, names.LOOKAHEAD_SECONDS),
        generated_tokens=generated,
        discarded_share=discarded / generated if discarded is not None and generated else None,
    )


def _failures(run: RunDirectory) -> dict[str, float]:
    totals: dict[str, float] = {}
    for entry in run.steps:
        for name, value in entry.values.items():
            if name.startswith(names.FAILURES):
                kind = name.removeprefix(names.FAILURES)
                totals[kind] = totals.get(kind, 0.0) + value
    return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


def _settings(run: RunDirectory) -> dict[str, Any]:
    """The settings that a reader needs to place the figures; only those that the resolved configuration
    names.
    """
    wanted = {
        "strategy": "cleaner.strategy",
        "max_retries": "cleaner.saar.max_retries",
        "gamma": "cleaner.saar.gamma",
        "rollback_probability": "cleaner.saar.rollback_probability",
        "rollback_in_validation": "cleaner.saar.rollback_in_validation",
        "seed": "cleaner.seed",
        "model": "actor_rollout_ref.model.path",
    }
    found = {label: run.setting(dotted) for label, dotted in wanted.items()}
    return {label: value for label, value in found.items() if value is not None}
