"""Draws a run's curves as PNG files, one question a file, with matplotlib's Agg backend (no display needed).

Figures are built without pyplot, so that nothing global changes in the process that draws them. A quantity
that the run did not log gives no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cleaner.report import metric_names as names
from cleaner.report.run_dir import PLOTS_FOLDER, RunDirectory
from cleaner.report.summary import discarded_share, step_seconds, validation_accuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with any colour vision.
_BLUE, _ORANGE, _GREEN, _RED, _PURPLE, _SKY, _YELLOW = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
)
_SIZE_INCHES = (6.4, 4.0)
_DPI = 120

Points = Sequence[tuple[int, float]]


def write_plots(run: RunDirectory, folder: Path | None = None) -> list[Path]:
    """Draw all figures that the run has data for; returns the files, in the order of the list below.

    Args:
        run: the run directory.
        folder: where to write, `plots/` in the run directory by default; made if needed.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = folder or run.path / PLOTS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in _FIGURES.items():
        figure, axes = _figure()
        if draw(run, axes):
            written.append(_save(figure, axes, folder / f"{name}.png"))
    return written


def _accuracy(run: RunDirectory, axes: Axes) -> bool:
    axes.set(title="Accuracy", ylabel="share of right answers", ylim=(-0.02, 1.02))
    training = next((points for name in names.TRAINING_ACCURACY if (points := run.series(name))), [])
    drawn = _line(axes, training, "training", _SKY)
    return _line(axes, validation_accuracy(run), "validation", _BLUE, marker="o") or drawn


def _first_attempt(run: RunDirectory, axes: Axes) -> bool:
    axes.set(
        title="Tool calls that succeed at the first attempt",
        ylabel="share of first attempts",
        ylim=(-0.02, 1.02),
    )
    drawn = _line(axes, run.series(names.FIRST_ATTEMPT), "training", _SKY)
    return (
        _line(axes, run.series(names.VALIDATION + names.FIRST_ATTEMPT), "validation", _BLUE, marker="o")
        or drawn
    )


def _rollbacks(run: RunDirectory, axes: Axes) -> bool:
    axes.set(title="Rollbacks", ylabel="number in a step")
    drawn = _line(axes, run.series(names.TRIGGERED), "triggered", _BLUE)
    drawn = _line(axes, run.series(names.RECOVERED), "recovered", _GREEN) or drawn
    return _line(axes, run.series(names.EXHAUSTED), "exhausted", _RED) or drawn


def _repairs(run: RunDirectory, axes: Axes) -> bool:
    axes.set(title="Accepted repairs", ylabel="number in a step")
    layers = {
        "shallow: call replaced": run.series(names.SHALLOW),
        "deep: whole turn replaced": run.series(names.DEEP),
    }
    return _stack(axes, layers, [_SKY, _ORANGE])


def _discarded(run: RunDirectory, axes: Axes) -> bool:
    axes.set(title="Generated tokens that are not trained on", ylabel="share of generated tokens (%)")
    shares = [(entry.step, discarded_share(entry.values)) for entry in run.steps]
    points = [(step, 100 * share) for step, share in shares if share is not None]
    return _line(axes, points, "discarded", _RED)


def _lengths(run: RunDirectory, axes: Axes) -> bool:
    axes.set(title="Response length", ylabel="tokens, tool output included")
    drawn = _line(axes, run.series(names.SAMPLED_LENGTH), "mean, with what was discarded", _ORANGE)
    drawn = _line(axes, run.series(names.RESPONSE_LENGTH), "mean, as trained", _BLUE) or drawn
    return _line(axes, run.series(names.RESPONSE_LENGTH_MAX), "longest", _SKY) or drawn


def _seconds(run: RunDirectory, axes: Axes) -> bool:
    axes.set(title="Where the time goes", ylabel="seconds in a step")
    rows = [(entry.step, step_seconds(entry.values)) for entry in run.steps]
    totals: dict[str, float] = {}
    for _, parts in rows:
        for part, seconds in parts.items():
            totals[part] = totals.get(part, 0.0) + seconds
    largest = sorted(totals, key=lambda part: -totals[part])
    shown = largest[:6] if len(largest) > 7 else largest
    layers = {part: [(step, parts.get(part, 0.0)) for step, parts in rows if parts] for part in shown}
    if len(largest) > len(shown):
        rest = largest[len(shown) :]
        layers["the rest"] = [
            (step, sum(parts.get(part, 0.0) for part in rest)) for step, parts in rows if parts
        ]
    return _stack(axes, layers, [_BLUE, _ORANGE, _GREEN, _RED, _PURPLE, _SKY, _YELLOW])


_FIGURES: dict[str, Callable[[RunDirectory, Axes], bool]] = {
    "accuracy": _accuracy,
    "first_attempt_success": _first_attempt,
    "rollbacks": _rollbacks,
    "repairs": _repairs,
    "discarded_tokens": _discarded,
    "response_length": _lengths,
    "seconds": _seconds,
}


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _line(axes: Axes, points: Points, label: str, colour: str, marker: str = ".") -> bool:
    if not points:
        return False
    steps, values = zip(*points, strict=True)
    axes.plot(
        steps,
        values,
        label=label,
        color=colour,
        marker=marker,
        markersize=6 if marker == "o" else 4,
        linewidth=1.6,
    )
    return True


def _stack(axes: Axes, layers: Mapping[str, Points], colours: Sequence[str]) -> bool:
    """Stacked bars over the union of the steps; an absent value counts as nothing."""
    steps = sorted({step for points in layers.values() for step, _ in points})
    if not steps:
        return False
    base = [0.0] * len(steps)
    for (label, points), colour in zip(layers.items(), colours, strict=False):
        heights = [dict(points).get(step, 0.0) for step in steps]
        axes.bar(steps, heights, bottom=base, width=0.85, label=label, color=colour)
        base = [low + height for low, height in zip(base, heights, strict=True)]
    return True


def _save(figure: Figure, axes: Axes, path: Path) -> Path:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("training step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_autoscaley_on():
        axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    draft = path.with_suffix(".tmp")
    try:
        figure.savefig(draft, format="png")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path
