"""The sub-commands `cleaner eval-report` and `cleaner lcb-export`; what they need is imported when they run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_eval_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "eval-report",
        help="accuracy, tool use and tokens of evaluations",
        description="Print what evaluations found, by data source and overall: mean@n (pass@1) with a 95 % interval, "
        "pass@k, maj@n, failing tool calls, tokens, turns. Several runs stand side by side, with the differences of "
        "each to the first, problem by problem.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run directory, or a samples.jsonl; each is a run"
    )
    parser.add_argument(
        "--name", action="append", metavar="NAME", help="what to call the runs; once for each run, in order"
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="the validation of this step (default: the last)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the bootstrap (default: 0)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything as one JSON object, shares from 0 to 1")
    form.add_argument("--csv", action="store_true", help="one line a run and data source, shares from 0 to 1")

    def run(options: argparse.Namespace) -> int:
        from cleaner.errors import ConfigError
        from cleaner.evaluation.samples import read_evaluation
        from cleaner.evaluation.tables import as_csv, as_json, as_text

        names = options.name or [None] * len(options.runs)
        if len(names) != len(options.runs):
            print("error: give --name once for each run, or not at all", file=sys.stderr)
            return 2
        try:
            found = [
                read_evaluation(path, options.step, name)
                for path, name in zip(options.runs, names, strict=True)
            ]
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        render = as_json if options.json else as_csv if options.csv else as_text
        print(render(found, options.seed), end="" if options.csv else "\n")
        return 0

    parser.set_defaults(run=run)


def add_lcb_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "lcb-export",
        help="write LiveCodeBench's custom-evaluation file",
        description="Write the programs of an evaluation as LiveCodeBench's custom_evaluator reads them: the last "
        "closed ```python block of each response, in the order of the sample numbers; an empty program where there "
        "is none.",
    )
    parser.add_argument("samples", metavar="RUN", help="a run directory, or a samples.jsonl")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE", help="the JSON file to write"
    )
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="FILE",
        help="question ids of the release: JSON, JSON lines, parquet, or one a line. Says which are missing, and "
        "leaves out what is not in it",
    )
    parser.add_argument("--fill", action="store_true", help="give missing questions empty programs")
    parser.add_argument(
        "--data-source", metavar="NAME", help="of LiveCodeBench's rows, where there are several"
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="the validation of this step (default: the last)"
    )

    def run(options: argparse.Namespace) -> int:
        from cleaner.errors import ConfigError
        from cleaner.evaluation.livecodebench import export_entries, read_questions, write_entries
        from cleaner.evaluation.samples import read_evaluation

        if options.fill and options.questions is None:
            print("error: --fill needs --questions: which are missing is not known", file=sys.stderr)
            return 2
        try:
            questions = None if options.questions is None else read_questions(options.questions)
            evaluation = read_evaluation(options.samples, options.step)
            export = export_entries(evaluation, options.data_source, questions, options.fill)
            write_entries(export.entries, options.out)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            print(f"error: cannot write {options.out}: {error.strerror or error}", file=sys.stderr)
            return 2
        most = len(export.entries[0]["code_list"]) if export.entries else 0  # type: ignore[arg-type]
        print(f"{options.out}: {len(export.entries)} questions, {most} programs each", file=sys.stderr)
        for note in notes_of(export.missing, export.extra, export.without_code, export.padded, options.fill):
            print(f"warning: {note}", file=sys.stderr)
        return 0

    parser.set_defaults(run=run)


def notes_of(missing: list[str], extra: list[str], without_code: int, padded: int, fill: bool) -> list[str]:
    """What is to be said about an export."""
    notes = []
    if missing and fill:
        notes.append(f"{_listed(missing)} missing and got empty programs")
    elif missing:
        notes.append(
            f"{_listed(missing)} missing: LiveCodeBench refuses a file that is not of all the release's questions. "
            "Evaluate them, or use --fill"
        )
    if extra:
        notes.append(f"{_listed(extra)} not of this release and left out")
    if without_code:
        notes.append(f"{without_code} responses have no closed ```python block")
    if padded:
        notes.append(f"{padded} empty programs were added, for LiveCodeBench wants as many of every question")
    return notes


def _listed(questions: list[str]) -> str:
    shown = ", ".join(questions[:5]) + (", …" if len(questions) > 5 else "")
    noun, verb = ("question", "is") if len(questions) == 1 else ("questions", "are")
    return f"{len(questions)} {noun} ({shown}) {verb}"
