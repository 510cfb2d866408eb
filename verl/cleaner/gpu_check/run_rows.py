"""What the directory of a finished run says: rows of the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cleaner.gpu_check.row import FAILED, NOTE, OK, Row
from cleaner.report import metric_names as names
from cleaner.report.run_dir import NotARunDirectory, RunDirectory, StepMetrics

# Distance from 1 to the next number.
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}
# Server and actor round the same computation differently: other kernels, other batches, another order of sums. A logit
# of up to 16 that is rounded is off by up to 8 epsilon, and a log-probability is the difference of two such numbers, each
# computed twice: 16 epsilon in the mean is a generous bound. Single tokens are worse where the logits are large and the
# layers' own rounding adds up; 256 epsilon (0.25 in float16) is where a wrong token, position, temperature or weight
# version begins to show, and these are off by whole units.
MEAN_EPSILONS, MAX_EPSILONS = 16, 256


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
    """Largest mean and largest single difference of log-probabilities that rounding explains (natural units)."""
    return MEAN_EPSILONS * EPSILON[dtype], MAX_EPSILONS * EPSILON[dtype]


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
        reason = "The others overflowed and changed nothing, which is how float16's loss scaling finds its scale"
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
    tokens = _total(steps, "rollout/logprob_diff/tokens")
    if not tokens:
        advice = "Set actor_rollout_ref.rollout.calculate_log_probs=true"
        return Row(check, FAILED, "", f"{engine} gave no log-probabilities of sampled tokens", advice)
    weighted = ((s.values["rollout/logprob_diff/mean"], s.values["rollout/logprob_diff/tokens"]) for s in steps)
    mean = sum(value * count for value, count in weighted) / tokens
    largest = max(step.values["rollout/logprob_diff/max"] for step in steps)
    most_mean, most = tolerances(dtype)
    figure = (
        f"server - actor: mean {mean:.2g} (at most {most_mean:.2g}), max {largest:.2g} (at most {most:.2g}), "
        f"{tokens:.0f} un-grafted tokens"
    )
    if mean > most_mean or largest > most:
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
