"""Curves of the arms by generated tokens: mean of the seeds and its standard error, one file a task and measure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cleaner.compare.curves import MEASURES, Measure
from cleaner.compare.estimates import GRID, on_grid
from cleaner.compare.plan import BASELINE
from cleaner.compare.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart with any colour vision; lines beyond it get another style.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8B6914")
_STYLES = ("-", "--", ":")
_SIZE_INCHES = (7.2, 4.6)
_DPI = 120


def write_plots(results: Results, folder: Path) -> list[Path]:
    """Draw every task and measure that a finished run has; returns the files, `<task>-<measure>.png`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for task in results.plan.tasks:
        for measure in MEASURES:
            figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
            FigureCanvasAgg(figure)
            axes = figure.add_subplot()
            if not _draw(axes, results, task.name, measure):
                continue
            axes.set(
                title=f"{task.name}: {measure.title}",
                xlabel="generated tokens (thousands)",
                ylabel="share, mean of the seeds",
            )
            axes.grid(axis="y", alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
            path = folder / f"{task.name}-{measure.name}.png"
            draft = path.with_suffix(".tmp")
            figure.savefig(draft, format="png")
            draft.replace(path)
            written.append(path)
    return written


def _draw(axes: Axes, results: Results, task: str, measure: Measure) -> bool:
    drawn = 0
    for arm in results.plan.arms:
        curves = [
            points
            for curve in results.curves_of(task, arm.name).values()
            if (points := curve.points(measure.name))
        ]
        if not curves:
            continue
        grid = np.linspace(0.0, max(points[-1][0] for points in curves), GRID + 1)
        values = np.array([on_grid(points, grid) for points in curves])
        is_baseline = arm.name == BASELINE
        colour = "black" if is_baseline else _COLOURS[(drawn - 1) % len(_COLOURS)]
        style = "-" if is_baseline else _STYLES[(drawn - 1) // len(_COLOURS) % len(_STYLES)]
        label = f"{arm.name} ({len(curves)})"
        axes.plot(grid / 1000, values.mean(axis=0), label=label, color=colour, linestyle=style, linewidth=1.8)
        if len(curves) > 1:
            # The standard error of the mean: the range of many seeds would cover everything.
            error = values.std(axis=0, ddof=1) / np.sqrt(len(curves))
            middle = values.mean(axis=0)
            axes.fill_between(
                grid / 1000, middle - error, middle + error, color=colour, alpha=0.12, linewidth=0
            )
        drawn += 1
    return drawn > 0
