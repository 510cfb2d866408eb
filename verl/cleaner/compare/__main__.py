"""`python -m cleaner.compare plan|run|report`: what `recipe/cleaner/compare.sh` calls; see there."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cleaner.compare.archive import ARCHIVE, keep, restore
from cleaner.compare.plan import MODELS, Plan, Run, read_plan
from cleaner.compare.store import Store
from cleaner.errors import ConfigError

_GUESSED_SECONDS = 180.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cleaner.compare", description=__doc__)
    parser.add_argument("action", choices=("plan", "run", "report"))
    parser.add_argument("--recipe", type=Path, required=True, help="folder recipe/cleaner")
    parser.add_argument("--runs", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--results", type=Path, required=True, help="folder of tables, plots and raw metrics")
    parser.add_argument("--cache", type=Path, required=True, help="folder of rows and models")
    parser.add_argument("--model", default=MODELS[0], help=f"what runs start from: {' or '.join(MODELS)}")
    parser.add_argument(
        "--model-folder", type=Path, help="its folder (default: the quick start's, in the recipe)"
    )
    parser.add_argument("--tasks", nargs="*", default=[])
    parser.add_argument("--arms", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="+", type=int, required=True)
    parser.add_argument("--budget", type=int, required=True, help="generated tokens of a run")
    parser.add_argument("--validations", type=int, required=True)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit-minutes", type=float, default=30.0)
    parser.add_argument("--judge-url", default="")
    parser.add_argument("--retry-failed", action="store_true")
    parser.add_argument("--repeat", default="", help="the command line that repeats all this")
    parser.add_argument("override", nargs="*", help="of all arms")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """0: all done; 1: a run failed; 2: wrong input; 130: interrupted."""
    options = _parser().parse_intermixed_args(argv)
    signal.signal(signal.SIGTERM, _stop)
    try:
        plan = read_plan(
            options.recipe / "compare",
            tasks=options.tasks,
            arms=options.arms,
            seeds=options.seeds,
            budget=options.budget,
            validations=options.validations,
            extra=options.override,
            model=options.model,
        )
        if options.jobs < 1 or options.threads < 1 or options.limit_minutes <= 0:
            raise ConfigError("JOBS, threads and RUN_MINUTES must be at least 1.")
        store = Store(options.runs)
        if restored := restore(plan, store, options.results / ARCHIVE):
            print(f"{restored} finished runs taken from {options.results / ARCHIVE}", flush=True)
        return _ACTIONS[options.action](options, plan, store)
    except ConfigError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("compare: stopped; the same command goes on from here.", file=sys.stderr)
        return 130


def _stop(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt(f"signal {signum}")


def _plan(options: argparse.Namespace, plan: Plan, store: Store) -> int:
    """List the runs, how they stand, and about how long the missing ones take."""
    todo = _todo(plan, store, options.retry_failed)
    for run in plan.runs:
        seconds = store.seconds(run)
        print(f"{store.status(run):<12} {run.name}{'' if seconds is None else f'  {seconds:.0f} s'}")
    known = [(run, seconds) for run in plan.runs if (seconds := store.seconds(run)) is not None]
    total = sum(_expected(run, known) for run in todo) / options.jobs
    basis = f"from {len(known)} finished runs" if known else "a guess, no run has finished yet"
    print(f"{len(plan.runs)} runs, {len(todo)} to do: about {total / 60:.0f} minutes ({basis}).")
    _check_arms(options, plan)
    print("Every arm's configuration was composed and checked.")
    return 0


def _run(options: argparse.Namespace, plan: Plan, store: Store) -> int:
    from cleaner.compare.rows_and_models import provide_model, provide_rows
    from cleaner.compare.runner import Runner, training_command
    from cleaner.compare.starting_models import digest

    todo = _todo(plan, store, options.retry_failed)
    if todo:
        _check_arms(options, plan)
        quickstart = options.model_folder or options.recipe / "quickstart" / "model"
        models = {}
        for task in {run.task.name: run.task for run in todo}.values():
            if task.coldstart is not None:
                print(f"cold start of task {task.name}, unless its model is there", flush=True)
            models[task.name] = provide_model(
                task, quickstart, options.cache, options.results, options.judge_url
            )
        store = replace(store, models={task: digest(model) for task, model in models.items()})
        todo = _todo(plan, store, options.retry_failed)
        for run in todo:
            provide_rows(run.task, run.seed, options.cache)

        def command(run: Run, path: Path) -> tuple[list[str], dict[str, str]]:
            return training_command(
                run,
                path,
                rows=provide_rows(run.task, run.seed, options.cache),
                model=models[run.task.name],
                recipe=options.recipe,
                judge_url=options.judge_url,
                threads=options.threads,
            )

        say, show = _terminal()
        runner = Runner(store, command, options.jobs, options.limit_minutes * 60, say, show)
        try:
            failed = runner.run_all(todo)
        finally:
            _report(options, plan, store)
        return 1 if failed else 0
    print("All runs are there.")
    return _report(options, plan, store)


def _report(options: argparse.Namespace, plan: Plan, store: Store) -> int:
    from cleaner.compare.plots import write_plots
    from cleaner.compare.results import collect, write_raw
    from cleaner.compare.tables import results_page

    results = collect(plan, store)
    write_raw(results, store, options.results)
    explanation = os.path.relpath(options.recipe.parent.parent / "docs" / "comparison.md", options.results)
    page = results_page(results, options.repeat or shlex.join(sys.argv), store.starts(plan.runs), explanation)
    (options.results / "results.md").write_text(page, encoding="utf-8")
    write_plots(results, options.results / "plots")
    keep(plan, store, options.results / ARCHIVE)
    print(f"{options.results / 'results.md'}, plots and raw metrics beside it", flush=True)
    return 0


_ACTIONS: dict[str, Callable[[argparse.Namespace, Plan, Store], int]] = {
    "plan": _plan,
    "run": _run,
    "report": _report,
}


def _todo(plan: Plan, store: Store, retry_failed: bool) -> list[Run]:
    done = {"finished"} if retry_failed else {"finished", "failed"}
    return [run for run in plan.runs if store.status(run) not in done]


def _expected(run: Run, known: Sequence[tuple[Run, float]]) -> float:
    """Seconds of a run: the mean of finished runs of its task and arm, else of its task, else of all."""
    for same in (
        lambda other: (other.task.name, other.arm.name) == (run.task.name, run.arm.name),
        lambda other: other.task.name == run.task.name,
        lambda other: True,
    ):
        seconds = [value for other, value in known if same(other)]
        if seconds:
            return sum(seconds) / len(seconds)
    return _GUESSED_SECONDS


def _check_arms(options: argparse.Namespace, plan: Plan) -> None:
    """Raises ConfigError with the message of every arm that the configuration refuses."""
    kinds = {(run.task.name, run.arm.name): run for run in plan.runs}
    command = [sys.executable, "-m", "cleaner.compare.check", str(options.recipe)]
    done = subprocess.run(
        command,
        input=json.dumps([run.overrides for run in kinds.values()]),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ConfigError(f"the configurations could not be composed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    problems = [
        f"arm {arm} (task {task}): {problem.strip()}"
        for (task, arm), problem in zip(kinds, found, strict=True)
        if problem is not None
    ]
    if problems:
        raise ConfigError(
            "the configuration refuses these arms; correct recipe/cleaner/compare/arms.yaml or choose others with "
            "ARMS=:\n  " + "\n  ".join(problems)
        )


def _terminal() -> tuple[Callable[[str], None], Callable[[str], None] | None]:
    """How to print a line, and how to show a state that the next one replaces, which only a terminal can."""
    if not sys.stdout.isatty():
        return lambda text: print(text, flush=True), None

    def say(text: str) -> None:
        print(f"\r\x1b[K{text}", flush=True)

    def show(text: str) -> None:
        print(f"\r\x1b[K{text}", end="", flush=True)

    return say, show


if __name__ == "__main__":
    raise SystemExit(main())
