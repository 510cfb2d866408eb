"""`python -m cleaner.compare.own_errors RUN_DIR`: how many of a model's failing first calls are errors of its own.

The cold starts teach errors: their teacher writes failing programs on purpose (`cleaner.coldstart.slips`). So a failing
call is counted as the teacher's where it runs a program that the teacher could have written for this problem, whatever
the numbers in it, and as the model's own otherwise; a malformed call is always its own. Looks at the validations, which
are sampled without rollback, of a run that recorded its trajectories, as the quick start does.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cleaner.coldstart.chat_format import parse_turn
from cleaner.coldstart.slips import SLIPS, dead_ends
from cleaner.coldstart.solutions import right_programs
from cleaner.data.row_files import read_rows
from cleaner.data.tasks import Problem
from cleaner.errors import ConfigError
from cleaner.report.run_dir import NotARunDirectory, RunDirectory

#: Tries of each slip, which may choose between a few edits.
_TRIES = 20


def teachers_errors(problem: Problem) -> set[str]:
    """The failing programs that the teacher can write as the first call for a problem of one call."""
    slips = {
        edit(program.code, random.Random(seed))
        for program in right_programs(problem)
        for edit, _ in SLIPS.values()
        for seed in range(_TRIES)
    }
    return {code for code in slips if code is not None} | {program.code for program in dead_ends(problem)}


def is_own(turn: str, problem: Problem) -> bool:
    """Whether the failing call in an assistant's turn is no error of the teacher's, numbers aside."""
    code = parse_turn(turn).code
    return code is None or _plain(code) not in {_plain(known) for known in teachers_errors(problem)}


def count(run: RunDirectory) -> dict[int, Counter[str]]:
    """By step of the validation: `calls` (trajectories that make one), `failing` first calls, `own` ones of these.

    Raises:
        ConfigError: no validation was recorded, or its rows are gone.
    """
    problems: Mapping[int, Problem] = {}
    counts: dict[int, Counter[str]] = {}
    for record in run.trajectories():
        if record["phase"] != "val" or not record["saar"]["first_calls"]:
            continue
        problems = problems or _problems(run)
        here = counts.setdefault(int(record["step"]), Counter())
        here["calls"] += 1
        if not record["saar"]["first_calls_ok"]:
            here["failing"] += 1
            here["own"] += is_own(record["segments"][0]["text"], problems[int(record["index"])])
    if not counts:
        raise ConfigError(f"{run.path} holds no recorded validation; train with cleaner.record=true.")
    return counts


def _plain(code: str) -> str:
    return re.sub(r"\d+", "0", code).strip()


def _problems(run: RunDirectory) -> Mapping[int, Problem]:
    """The validation's problems by the index of their row."""
    path = run.setting("data.val_files")
    rows = [row for each in ([path] if isinstance(path, str) else path) for row in read_rows(each, tool=True)]
    return {int(row["extra_info"]["index"]): _problem(row) for row in rows}


def _problem(row: Mapping[str, Any]) -> Problem:
    facts = row["extra_info"]
    answer = str(row["reward_model"]["ground_truth"])
    return Problem(facts["task"], row["prompt"][-1]["content"], answer, json.loads(facts["metadata"]))


def main(argv: Sequence[str] | None = None) -> int:
    """0: printed; 2: wrong input."""
    parser = argparse.ArgumentParser(prog="python -m cleaner.compare.own_errors", description=__doc__)
    parser.add_argument("run", type=Path, help="run directory of a quick start")
    options = parser.parse_args(argv)
    try:
        counts = count(RunDirectory.open(options.run))
    except (ConfigError, NotARunDirectory) as error:
        print(f"own_errors: {error}", file=sys.stderr)
        return 2
    for step, here in sorted(counts.items()):
        print(
            f"validation after step {step}: {here['calls']} trajectories make a call, the first one fails in "
            f"{here['failing']}; in {here['own']} of these the error is the model's own"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
