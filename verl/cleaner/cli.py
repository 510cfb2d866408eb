"""The command `cleaner`. Sub-commands import what they need when they run, so that `cleaner --help` stays
quick.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

from cleaner.evaluation.command_line import add_eval_report, add_lcb_export
from cleaner.report.command_line import add_report

_Register = Callable[["argparse._SubParsersAction[argparse.ArgumentParser]"], None]


def main(arguments: list[str] | None = None) -> int:
    """Parse `arguments` (the process's own by default) and run the sub-command; returns the exit status.

    0: all right; 1: `doctor` found something to put right; 2: wrong usage or input, told on standard error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except BrokenPipeError:
        # The reader (`| head`) left. The interpreter's last flush must not complain.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cleaner", description="Training on self-purified tool-use trajectories."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for register in _COMMANDS:
        register(commands)
    return parser


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "doctor",
        help="say what is installed and what is missing",
        description="Say what is installed, what verl resolved, whether our registrations took hold, whether "
        "the judge answers. Exit status 0 when all that is needed is right, else 1.",
    )
    parser.add_argument("--judge-url", help="the code-judge to ask (default: CODE_JUDGE_URL)")
    parser.add_argument("--json", action="store_true", help="machine-readable answer")

    def run(options: argparse.Namespace) -> int:
        from cleaner import doctor

        return doctor.run(options.judge_url, options.json)

    parser.set_defaults(run=run)


def _add_show(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "show",
        help="print a run's summary and repaired trajectories",
        description="Print a run's closing table and repaired turns, before and after. Changes nothing.",
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the folder that holds metrics.jsonl")
    parser.add_argument("--count", type=_count, default=1, metavar="N", help="how many repairs (default: 1)")
    parser.add_argument(
        "--decision", choices=("shallow", "deep", "kept", "exhausted"), help="only such repairs"
    )
    parser.add_argument("--step", type=int, metavar="N", help="only repairs of this training step")

    def run(options: argparse.Namespace) -> int:
        from cleaner.report.closing import show_run
        from cleaner.report.run_dir import NotARunDirectory

        try:
            show_run(options.run_dir, options.count, options.decision, options.step)
        except (NotARunDirectory, PermissionError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0

    parser.set_defaults(run=run)


def _add_pairs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "pairs",
        help="export a run's negative samples for TRL",
        description="Export rejected and accepted calls of a run in TRL's preference format: JSON lines with prompt, "
        "chosen and rejected. The run must have been made with cleaner.negatives.save=true. Experimental.",
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="the folder that holds negatives.jsonl")
    parser.add_argument("--out", metavar="FILE", help="default: RUN_DIR/pairs.jsonl; - for standard output")
    parser.add_argument("--min-reward", type=float, metavar="X", help="only of trajectories with X or more")
    parser.add_argument("--decision", choices=("shallow", "deep"), help="only calls, or only whole turns")
    parser.add_argument("--limit", type=_count, metavar="N", help="at most N pairs, drawn at random")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the draw (default: 0)")
    parser.add_argument("--with-details", action="store_true", help="keep step, reward, error and the rest")

    def run(options: argparse.Namespace) -> int:
        from cleaner.report.pairs import PAIRS_FILE, CannotExport, PairFilter, export_pairs

        wanted = PairFilter(
            options.min_reward, options.decision, options.limit, options.seed, options.with_details
        )
        out = None if options.out == "-" else Path(options.out or options.run_dir / PAIRS_FILE)
        try:
            print(export_pairs(options.run_dir, out, wanted), file=sys.stderr)
        except BrokenPipeError:
            raise  # `main` knows what to do
        except (CannotExport, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0

    parser.set_defaults(run=run)


def _add_version(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("version", help="print the versions of cleaner, verl and Python")

    def run(options: argparse.Namespace) -> int:
        for name in ("cleaner", "verl", "torch"):
            print(f"{name} {_version(name)}")
        print(f"python {sys.version.split()[0]}")
        return 0

    parser.set_defaults(run=run)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative")
    return number


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


# A later sub-command is one more function here.
_COMMANDS: tuple[_Register, ...] = (
    _add_doctor,
    _add_show,
    add_report,
    _add_pairs,
    add_eval_report,
    add_lcb_export,
    _add_version,
)


if __name__ == "__main__":
    sys.exit(main())
