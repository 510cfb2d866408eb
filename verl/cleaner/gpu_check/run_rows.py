"""What the directory of a finished run says: rows of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from cleaner.gpu_check.row import FAILED, NOTE, OK, Row
from cleaner.report import metric_names as names
from cleaner.report.run_dir import NotARunDirectory, RunDirectory, StepMetrics

# Distance from 1 to the next number.
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}
# Server and actor do the same computation with other kernels, in other batches, and add in another order. A logit of
# 8 to 16 is rounded by up to 8 epsilon, and a log-probability is a difference of two sums of such numbers; most
# roundings cancel, so the mean stays well below 8 epsilon. A single token may be far worse, where the model is on a
# knife's edge: with the quick-start model on a CPU, one in 1,475 was off by 0.34 in float16 against float32, in one and
# the same program. So the largest difference is told and not judged, but the 99.5th percentile: what would be wrong
# (weights of another version, positions, temperature, a token's place) moves every token, or one of each response, by
# whole units.
MEAN_EPSILONS, PERCENTILE_EPSILONS = 8, 64
_DIFFERENCE = "rollout/logprob_diff/"


def rows_of(
    folder: Path, name: str, steps: int, engine: str, dtype: str, seconds: float, log: Path
) -> list[Row]:
    """Rows of a run that ended well.

    Args:
        name: what the rows' names begin with.
        steps: how many it should have made.
        seconds: of the whole run.
        log: its output.
    """
    try:
        found = [step for step in RunDirectory.open(folder).steps if names.STEP_SECONDS in step.values]
    except NotARunDirectory as error:
        return [Row(f"{name}: training", FAILED, "", str(error), "Look at its log", str(log))]
    if len(found) < steps:
        reason = f"{len(found)} of {steps} steps were logged"
        return [Row(f"{name}: training", FAILED, "", reason, "Look at its log", str(log))]
    return [
        _training(folder, name, found, seconds, log),
        _updates(name, found, dtype),
        _rollback(name, found),
        _log_probs(name, found, engine, dtype),
        _speed(name, found),
        _lookahead_time(name, found),
        _prefix_cache(name, found),
    ]


def tolerances(dtype: str) -> tuple[float, float]:
    """Largest mean and 99.5th percentile of differences of log-probabilities that rounding explains (natural units)."""
    return MEAN_EPSILONS * EPSILON[dtype], PERCENTILE_EPSILONS * EPSILON[dtype]


def _training(folder: Path, name: str, steps: Sequence[StepMetrics], seconds: float, log: Path) -> Row:
    check = f"{name}: training"
    step = _mean(_warm(steps), names.STEP_SECONDS)
    figure = f"{len(steps)} steps, {step:.1f} s each after the first; {seconds:.0f} s with start and stop"
    memory = _mean(steps, "actor/perf/max_memory_allocated_gb")
    if memory is not None:
        figure += f"; actor {memory:.1f} GiB"
    if not next(folder.glob("checkpoints/global_step_*/actor/huggingface/*.safetensors"), None):
        return Row(check, FAILED, figure, "no model was saved", "Look at its log", str(log))
    return Row(check, OK, figure)


def _updates(name: str, steps: Sequence[StepMetrics], dtype: str) -> Row:
    check = f"{name}: updates"
    finite = [step for step in steps if "actor/grad_norm" in step.values]  # what is not finite isn't read
    norm = _mean(finite, "actor/grad_norm")
    if norm is None:
        advice = (
            "Raise STEPS: the scale of the loss halves at each overflow. If it stays, the model does not stand float16"
            if dtype == "float16"
            else "The loss or the weights are broken: compare with DTYPES=float32"
        )
        return Row(check, FAILED, "", f"no gradient of {len(steps)} was finite", advice)
    figure = f"{len(finite)} of {len(steps)}, mean gradient norm {norm:.3g}"
    if len(finite) == len(steps):
        return Row(check, OK, figure)
    if dtype == "float16":
        reason = (
            "The others overflowed and changed nothing, which is how float16's loss scaling finds its scale"
        )
        return Row(check, NOTE, figure, reason)
    return Row(check, FAILED, figure, "The others overflowed", "Compare with DTYPES=float32")


def _rollback(name: str, steps: Sequence[StepMetrics]) -> Row:
    check = f"{name}: rollback"
    triggered, recovered = (_total(steps, key) for key in (names.TRIGGERED, names.RECOVERED))
    figure = f"{triggered:.0f} failing turns rolled back, {recovered:.0f} recovered"
    if not recovered:
        reason = "Nothing was repaired, so grafts were not tried"
        return Row(check, NOTE, figure, reason, "Raise STEPS, or use MODEL=quickstart, which makes mistakes")
    return Row(check, OK, figure)


def _log_probs(name: str, steps: Sequence[StepMetrics], engine: str, dtype: str) -> Row:
    check = f"{name}: log-probs"
    counts = [step.values.get(f"{_DIFFERENCE}tokens", 0.0) for step in steps]
    if not sum(counts):
        advice = "Set actor_rollout_ref.rollout.calculate_log_probs=true"
        return Row(check, FAILED, "", f"{engine} gave no log-probabilities of sampled tokens", advice)

    def weighted(key: str) -> float:
        # What is not finite is not read, and is no small difference.
        values = [step.values.get(_DIFFERENCE + key, math.inf) for step in steps]
        return sum(value * count for value, count in zip(values, counts, strict=True) if count) / sum(counts)

    mean, percentile = weighted("mean"), weighted("p99.5")
    largest = max(step.values.get(f"{_DIFFERENCE}max", math.inf) for step in steps)
    most_mean, most = tolerances(dtype)
    figure = (
        f"server - actor: mean {mean:.2g} (at most {most_mean:.2g}), 99.5th percentile {percentile:.2g} (at most "
        f"{most:.2g}), max {largest:.2g}, of {sum(counts):.0f} un-grafted tokens"
    )
    if mean > most_mean or percentile > most:
        reason = "More than rounding explains: server and actor differ in weights, positions, temperature or format"
        advice = "Compare with DTYPES=float32; if only this engine or format is off, train with another"
        return Row(check, FAILED, figure, reason, advice)
    return Row(check, OK, figure)


def _speed(name: str, steps: Sequence[StepMetrics]) -> Row:
    warm = _warm(steps)
    seconds = _total(warm, "timing_s/gen")
    speed = _total(warm, names.GENERATED_TOKENS) / seconds if seconds else 0.0
    return Row(f"{name}: speed", NOTE, f"{speed:.0f} generated tokens/s, tools and look-ahead included")


def _lookahead_time(name: str, steps: Sequence[StepMetrics]) -> Row:
    share = _mean(steps, "rollback/lookahead_seconds_share")
    figure = "no trajectory was timed" if share is None else f"{share:.0%} of the trajectories' wall time"
    return Row(f"{name}: look-ahead time", NOTE, figure)


def _prefix_cache(name: str, steps: Sequence[StepMetrics]) -> Row:
    share = _mean(steps, "perf/lookahead_cached_share")
    figure = "not reported by the engine" if share is None else f"{share:.0%} of look-ahead prompts' tokens"
    return Row(f"{name}: prefix cache", NOTE, figure)


def _warm(steps: Sequence[StepMetrics]) -> Sequence[StepMetrics]:
    """All but the first step, which compiles kernels and fills caches, if there are others."""
    return steps[1:] or steps


def _total(steps: Sequence[StepMetrics], name: str) -> float:
    return sum(step.values.get(name, 0.0) for step in steps)


def _mean(steps: Sequence[StepMetrics], name: str) -> float | None:
    values = [step.values[name] for step in steps if name in step.values]
    return sum(values) / len(values) if values else None
