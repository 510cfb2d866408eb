"""What happens when a run ends: summary, plots, page and the printed report, in one call. `show_run` only
prints.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from cleaner.report.page_file import write_page
from cleaner.report.plots import write_plots
from cleaner.report.repair_choice import choose_repairs
from cleaner.report.run_dir import RunDirectory
from cleaner.report.summary import Summary, summarise, write_summary
from cleaner.report.terminal import print_run


def close_run(run_dir: str | Path, console: Console | None = None) -> Summary:
    """Write `summary.json`, `plots/*.png` and `report.html` into a run directory and print the closing report.

    Raises:
        NotARunDirectory: no metrics were logged there.
        OSError: the directory cannot be written.
    """
    run = RunDirectory.open(run_dir)
    summary = summarise(run)
    write_summary(run, summary)
    write_plots(run)
    write_page([run])
    print_run(run, summary, choose_repairs(run.trajectories()), console)
    return summary


def show_run(
    run_dir: str | Path,
    count: int = 1,
    decision: str | None = None,
    step: int | None = None,
    console: Console | None = None,
) -> Summary:
    """Print the report again, changing nothing; `choose_repairs` explains the other arguments.

    Raises:
        NotARunDirectory: no metrics were logged there.
    """
    run = RunDirectory.open(run_dir)
    summary = summarise(run)
    print_run(run, summary, choose_repairs(run.trajectories(), count, decision, step), console)
    return summary
