"""``python -m cleaner.coldstart --out DIR --model tiny|smollm2 --minutes M --seed S``: see ``make``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cleaner.coldstart.teacher import Habits, check_habits
from cleaner.errors import ConfigError

_DEFAULTS: dict[str, dict[str, float]] = {
    "tiny": {"minutes": 10.0, "traces": 8000, "evaluate": 600, "threads": 1},
    "smollm2": {"minutes": 4.0, "traces": 400, "evaluate": 24, "threads": os.cpu_count() or 1},
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cleaner.coldstart",
        description="Make a cold-start checkpoint that knows the tool-call format, slips, and repairs part of it.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint (replaced)")
    parser.add_argument("--model", choices=("tiny", "smollm2"), default="tiny")
    parser.add_argument("--minutes", type=float, help="fine-tuning time limit (default: tiny 10, smollm2 4)")
    parser.add_argument("--steps", type=int, help="optimizer steps: makes the result independent of speed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--traces", type=int, help="teacher conversations (default: tiny 8000, smollm2 400)")
    parser.add_argument(
        "--evaluate",
        type=int,
        help="problems measured at the end, 0 for none (default: tiny 600, smollm2 24)",
    )
    parser.add_argument("--cache", type=Path, help="folder for the converted SmolLM2 (default: beside --out)")
    parser.add_argument("--threads", type=int, help="torch threads (default: tiny 1, smollm2 all cores)")
    parser.add_argument("--start", type=Path, help="checkpoint to go on from, instead of a new model")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="default: the quick start's tasks")
    parser.add_argument(
        "--habit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"the teacher's, repeatable: {', '.join(vars(Habits()))}",
    )
    parser.add_argument(
        "--judge-url",
        default=os.environ.get("CODE_JUDGE_URL", "http://127.0.0.1:8088"),
        help="code-judge service that runs the programs (default: CODE_JUDGE_URL, now %(default)s)",
    )
    return parser


def _habits(assignments: Sequence[str]) -> Habits:
    """The teacher's habits; ``ConfigError`` names what is wrong."""
    known = vars(Habits())
    values: dict[str, float] = {}
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        if name not in known:
            raise ConfigError(f"--habit {assignment}: no such habit; known: {', '.join(known)}")
        try:
            values[name] = type(known[name])(text)
        except ValueError as error:
            raise ConfigError(f"--habit {assignment}: {text!r} is no number") from error
    habits = replace(Habits(), **values)  # type: ignore[arg-type]
    try:
        check_habits(habits)
    except ValueError as error:
        raise ConfigError(f"--habit: {error}") from error
    return habits


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 2 on bad input, with one line on stderr.  The report goes to stdout as JSON."""
    args = _parser().parse_args(argv)
    for name, value in _DEFAULTS[args.model].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    try:
        for name in ("minutes", "traces", "threads"):
            if getattr(args, name) <= 0:
                raise ConfigError(f"--{name} must be above 0, got {getattr(args, name)}")
        if args.evaluate < 0:
            raise ConfigError(f"--evaluate must be 0 or more, got {args.evaluate}")

        import torch

        from cleaner.coldstart.execute import judge_executor
        from cleaner.coldstart.make import Plan, make

        torch.set_num_threads(args.threads)
        plan = Plan(
            args.model,
            args.minutes,
            args.seed,
            args.steps,
            args.traces,
            args.evaluate,
            args.cache or args.out.parent,
            _habits(args.habit),
            args.start,
            None if args.tasks is None else tuple(args.tasks),
        )
        report = make(plan, args.out, judge_executor(args.judge_url))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report["evaluation"], indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
