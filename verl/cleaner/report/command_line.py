"""The sub-command `cleaner report`; what it needs is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleaner.report.run_dir import RunDirectory

# Below it reading takes less time than a look at a progress bar.
_WORTH_A_BAR_BYTES = 20_000_000


def add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        help="write a run, or several to compare, as one HTML file",
        description="Write curves and trajectories of one or several runs as one HTML file that opens offline and asks "
        "the network for nothing. Runs whose configurations differ by the seed alone are shown as one arm with a band.",
    )
    parser.add_argument(
        "run_dirs", nargs="+", metavar="RUN_DIR", help="a folder that holds metrics.jsonl; each is a run"
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="default: report.html in the first RUN_DIR"
    )
    parser.add_argument(
        "--name", action="append", metavar="NAME", help="what to call the runs; once for each run, in order"
    )
    parser.add_argument(
        "--megabytes",
        type=_megabytes,
        default=4.5,
        metavar="X",
        help="room for trajectories; where more are recorded a sample is shown, and said to be one (default: 4.5)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the sample (default: 0)")

    def run(options: argparse.Namespace) -> int:
        from cleaner.report.page_file import write_page
        from cleaner.report.run_dir import NotARunDirectory, RunDirectory

        if options.name and len(options.name) != len(options.run_dirs):
            print("error: give --name once for each run, or not at all", file=sys.stderr)
            return 2
        out = options.out.expanduser() if options.out else None
        if out is not None and (out.is_dir() or not out.parent.is_dir()):
            wrong = f"{out} is a folder" if out.is_dir() else f"there is no folder {out.parent}"
            print(f"error: {wrong}; give a file in an existing folder, e.g. -o report.html", file=sys.stderr)
            return 2
        try:
            runs = [RunDirectory.open(path) for path in options.run_dirs]
            with reading_bar(runs) as progress:
                written = write_page(
                    runs, out, int(options.megabytes * 1e6), options.seed, options.name, progress
                )
        except (NotARunDirectory, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print(f"{written} ({written.stat().st_size / 1e6:.1f} MB)")
        return 0

    parser.set_defaults(run=run)


@contextmanager
def reading_bar(runs: Sequence[RunDirectory]) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on standard error while trajectories are read: on a terminal, and where it takes a while."""
    from cleaner.report.run_dir import TRAJECTORIES_FILE

    files = [run.path / TRAJECTORIES_FILE for run in runs]
    sizes = [file.stat().st_size if file.is_file() else 0 for file in files]
    if sum(sizes) < _WORTH_A_BAR_BYTES or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading trajectories", total=sum(sizes))

        def told(run: int, done: int) -> None:
            bar.update(task, completed=sum(sizes[:run]) + done)

        yield told


def _megabytes(text: str) -> float:
    number = float(text)
    if not 0.01 <= number <= 500:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.01 and 500")
    return number
