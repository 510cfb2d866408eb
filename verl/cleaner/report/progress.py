"""Follows a run while it trains: one line a step. `python -m cleaner.report.progress RUN_DIR --pid PID --steps N`.

It only reads the run directory, so it can be started, stopped and started again at any time beside any run.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from cleaner.report import metric_names as names
from cleaner.report.run_dir import NotARunDirectory, RunDirectory

POLL_SECONDS = 0.5


def step_line(step: int, total: int, values: Mapping[str, float]) -> str:
    """One line that says what a step did; quantities that were not logged are left out."""
    parts = [f"step {step:>{len(str(total))}}/{total}"]
    if (seconds := values.get(names.STEP_SECONDS)) is not None:
        parts.append(f"{seconds:5.1f} s")
    training = next((values[name] for name in names.TRAINING_ACCURACY if name in values), None)
    if training is not None:
        parts.append(f"accuracy {training:.2f}")
    if (first := values.get(names.FIRST_ATTEMPT)) is not None:
        parts.append(f"first calls ok {first:.2f}")
    if names.TRIGGERED in values:
        parts.append(
            f"rollbacks {values[names.TRIGGERED]:.0f}, recovered {values.get(names.RECOVERED, 0):.0f} "
            f"({values.get(names.SHALLOW, 0):.0f} shallow, {values.get(names.DEEP, 0):.0f} deep)"
        )
    if names.VALIDATION_ACCURACY in values:
        parts.append(validation_note(values))
    return "  ".join(parts)


def validation_note(values: Mapping[str, float]) -> str:
    """The validation of one step: always without rollback unless the configuration asks for it."""
    note = f"validation accuracy {values[names.VALIDATION_ACCURACY]:.3f}"
    first = values.get(names.VALIDATION + names.FIRST_ATTEMPT)
    return note if first is None else f"{note}, first calls ok {first:.3f}"


def new_lines(path: Path, total: int, after: int) -> Iterator[tuple[int, str]]:
    """`(step, line)` of the steps that were logged since step `after` (exclusive)."""
    try:
        run = RunDirectory.open(path)
    except NotARunDirectory:
        return
    for entry in run.steps:
        if entry.step > after:
            is_training = names.STEP_SECONDS in entry.values
            line = (
                step_line(entry.step, total, entry.values) if is_training else validation_note(entry.values)
            )
            yield entry.step, line if is_training else f"before training: {line}"


def follow(path: Path, pid: int, total: int, from_step: int = 0) -> None:
    """Print lines until the process `pid` has ended and its last step is printed."""
    start, last, waited = time.monotonic(), from_step - 1, False
    while True:
        alive = _is_alive(pid)
        for step, line in new_lines(path, total, last):
            last = step
            if waited and sys.stdout.isatty():
                print("\r\x1b[K", end="")
            waited = False
            print(f"  {line}", flush=True)
        if not alive:
            return
        if sys.stdout.isatty():
            doing = "starting Ray, verl and the rollout server" if last < from_step else "working"
            print(f"\r\x1b[K  {doing} ... {time.monotonic() - start:.0f} s", end="", flush=True)
            waited = True
        time.sleep(POLL_SECONDS)


def _is_alive(pid: int) -> bool:
    """Whether the process runs; a child that ended but was not waited for (a zombie) does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    except PermissionError:
        return True
    return state != "Z"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Follow a run while it trains, one line a step.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--pid", type=int, required=True, help="process id of the training")
    parser.add_argument("--steps", type=int, required=True, help="total training steps")
    parser.add_argument("--from-step", type=int, default=0, help="the step that the run resumes from")
    arguments = parser.parse_args()
    try:
        follow(arguments.run_dir, arguments.pid, arguments.steps, arguments.from_step)
    finally:
        if sys.stdout.isatty():
            print("\r\x1b[K", end="", flush=True)


if __name__ == "__main__":
    main()
