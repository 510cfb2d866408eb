"""`python -m cleaner.gpu_check`: all checks, one table, one JSON file. `scripts/gpu_check.sh` prepares what it needs.

Exit status 0: nothing failed; 1: something did; 2: wrong usage; 130: stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cleaner.gpu_check import machine, training
from cleaner.gpu_check.command import STOP, Stopped, run, tail
from cleaner.gpu_check.row import FAILED, SKIPPED, Row
from cleaner.gpu_check.settings import DTYPES, ENGINES, Settings
from cleaner.gpu_check.table import as_text, failed, write_json

RESULT_FILE = "result.json"
_STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; see the module's docstring."""
    settings, dry_run = _settings(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: STOP.set())
    try:
        return _dry_run(settings) if dry_run else check(settings)
    except Stopped:
        return _STOPPED


def check(settings: Settings) -> int:
    """Run every check, each whether or not those before it failed, and tell."""
    rows: list[Row] = [Row("set-up", FAILED, "", text, "See docs/gpu.md") for text in settings.unprepared]
    for name, work in _checks(settings, rows):
        if STOP.is_set():
            rows.append(Row(name, SKIPPED, "", "stopped before"))
            continue
        print(f"... {name}", flush=True)
        try:
            found = work()
        except Stopped:
            found = [Row(name, SKIPPED, "", "stopped while it ran")]
        except Exception as error:  # a fault of ours in one check is a row like any other
            found = [
                Row(name, FAILED, "", f"{type(error).__name__}: {error}", "This is a fault of the script")
            ]
        rows += found
        for row in found:
            _print_tail(row)
    about = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": str(settings.model),
        "steps": settings.steps,
        "on_cpu": settings.on_cpu,
        "stopped": STOP.is_set(),
    }
    write_json(settings.output / RESULT_FILE, rows, about)
    print(f"\n{as_text(rows)}\n")
    if settings.on_cpu:
        print(
            "This ran on a CPU, as VERL_PLATFORM=cpu asked: it says that the script works, nothing about a GPU."
        )
    print(f"{settings.output / RESULT_FILE}")
    return _STOPPED if STOP.is_set() else int(failed(rows))


def _missing(rows: Sequence[Row]) -> str:
    """What the rows so far say that every training lacks."""
    broken = {row.check: row for row in rows if row.result == FAILED}
    if "set-up" in broken:
        return "the set-up failed"
    if "device" in broken and not broken["device"].figure:
        return "there is no device"
    return "there is no judge" if "judge" in broken else ""


def _checks(settings: Settings, rows: Sequence[Row]) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """Names and checks. `rows` are those so far, whenever a check begins."""
    yield "device", lambda: [machine.device(settings)]
    yield "cleaner doctor", lambda: [machine.doctor(settings)]
    yield "judge", lambda: [machine.judge(settings)]
    for engine in settings.engines:
        for dtype in settings.dtypes:
            yield (
                training.name_of(engine, dtype),
                lambda engine=engine, dtype=dtype: training.train(settings, engine, dtype, _missing(rows)),  # type: ignore[misc]
            )


def _dry_run(settings: Settings) -> int:
    """Check every training's configuration; start nothing."""
    status = 0
    for text in settings.unprepared:
        print(f"not prepared: {text}")
    for engine in settings.engines:
        for dtype in settings.dtypes:
            name = training.name_of(engine, dtype)
            command = training.command(settings, engine, dtype, "cleaner.dry_run")
            log = settings.output / "logs" / f"dry-{engine}-{dtype}.log"
            ended = run(command, log, settings.limit_s, training.environment(settings, engine, dtype))
            print(
                f"{name}: {'valid for verl 0.9.1' if ended.status == 0 else ended.reason}; {log}", flush=True
            )
            if ended.status != 0:
                status = 1
                print("\n".join(f"    {line}" for line in tail(log)))
            print(f"    would run: {' '.join(training.command(settings, engine, dtype))}")
    print("Dry run: nothing was started.")
    return status


def _print_tail(row: Row) -> None:
    if row.result != FAILED:
        return
    print(f"{row.check}: {row.reason}")
    if row.log:
        print(f"  the end of {row.log}:")
        print("\n".join(f"    {line}" for line in tail(Path(row.log))))
    sys.stdout.flush()


def _settings(arguments: Sequence[str] | None) -> tuple[Settings, bool]:
    parser = argparse.ArgumentParser(
        prog="python -m cleaner.gpu_check", description="Check CLEANER on this machine's GPU."
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of results, logs and runs")
    parser.add_argument("--recipe", type=Path, required=True, help="the folder recipe/cleaner")
    parser.add_argument("--rows", type=Path, help="folder with train.parquet and val.parquet")
    parser.add_argument("--model", type=Path, help="folder of a Hugging Face model")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float16", "bfloat16"])
    parser.add_argument("--steps", type=int, default=3, help="training steps of each run (default: 3)")
    parser.add_argument("--limit", type=float, default=900.0, help="time limit of a run in s (default: 900)")
    parser.add_argument("--judge-log", type=Path, help="output of the judge that was started for this")
    parser.add_argument(
        "--unprepared", action="append", default=[], metavar="TEXT", help="what went wrong before"
    )
    parser.add_argument("--dry-run", action="store_true", help="check the configurations, start nothing")
    parser.add_argument("overrides", nargs="*", help="of verl's or CLEANER's keys, after --")
    options = parser.parse_args(arguments)
    if options.steps < 1 or options.limit <= 0:
        parser.error("--steps must be at least 1, and --limit above 0")
    unprepared = list(options.unprepared)
    if not unprepared:
        unprepared += [f"no {name} are given" for name in ("rows", "model") if getattr(options, name) is None]
    settings = Settings(
        output=options.output.absolute(),
        recipe=options.recipe.absolute(),
        rows=options.rows and options.rows.absolute(),
        model=options.model and options.model.absolute(),
        unprepared=tuple(unprepared),
        engines=tuple(options.engines),
        dtypes=tuple(options.dtypes),
        steps=options.steps,
        limit_s=options.limit,
        judge_log=options.judge_log,
        on_cpu=os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu",
        overrides=tuple(options.overrides),
    )
    with contextlib.suppress(OSError):
        settings.output.mkdir(parents=True, exist_ok=True)
    return settings, options.dry_run


if __name__ == "__main__":
    sys.exit(main())
