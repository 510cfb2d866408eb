"""Runs what is not done yet, several processes at a time, and says how far it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cleaner.compare.parentage import end_with_parent
from cleaner.compare.plan import Run
from cleaner.compare.store import Store
from cleaner.report.run_dir import NotARunDirectory, RunDirectory

_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 30.0
_SHOWN_LINES = 15


@dataclass
class _Process:
    run: Run
    child: subprocess.Popen[bytes]
    began: float


@dataclass
class Runner:
    """Runs training processes.

    Args:
        store: the account.
        command: of a run's training process, and its environment, from the run and its directory.
        jobs: processes at a time.
        limit_seconds: after which a run is stopped and counted as failed.
        say: prints a line. show: shows the present state in place of the one before it; None: no terminal.
    """

    store: Store
    command: Callable[[Run, Path], tuple[list[str], dict[str, str]]]
    jobs: int
    limit_seconds: float
    say: Callable[[str], None]
    show: Callable[[str], None] | None = None

    def run_all(self, runs: Sequence[Run]) -> int:
        """Run them in order; returns how many failed. A run that fails does not stop the others.

        Raises:
            KeyboardInterrupt: the processes were stopped and noted as interrupted; finished runs stay.
        """
        waiting, active, failed, done = list(runs), list[_Process](), 0, 0
        began = time.monotonic()
        try:
            while waiting or active:
                while waiting and len(active) < self.jobs:
                    active.append(self._start(waiting.pop(0)))
                time.sleep(_POLL_SECONDS)
                for process in list(active):
                    ended = self._ended(process)
                    if ended is None:
                        continue
                    active.remove(process)
                    done += 1
                    failed += not ended
                    self._report(process, ended, f"[{done}/{len(runs)}]")
                if self.show is not None and active:
                    self.show(self._state(active, done, failed, len(runs), time.monotonic() - began))
        finally:
            for process in active:
                self._stop(process)
                self.store.end(process.run, "interrupted", time.monotonic() - process.began, None)
        return failed

    def _start(self, run: Run) -> _Process:
        path = self.store.path(run)
        command, environment = self.command(run, path)
        self.store.begin(run, command)
        with (path / "logs" / "train.log").open("wb") as log:
            # A session of its own: a terminal's Ctrl-C reaches the runner only, which stops its children in order.
            child = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        return _Process(run, child, time.monotonic())

    def _ended(self, process: _Process) -> bool | None:
        """None: it still runs; else whether it succeeded, which is noted."""
        status = process.child.poll()
        seconds = time.monotonic() - process.began
        if status is None and seconds < self.limit_seconds:
            return None
        if status is None:
            self.say(f"{process.run.name}: stopped, it took more than {self.limit_seconds / 60:.0f} minutes")
            self._stop(process)
        else:
            # What a crash left of its session.
            with suppress(ProcessLookupError):
                os.killpg(process.child.pid, signal.SIGKILL)
        finished = status == 0
        self.store.end(process.run, "finished" if finished else "failed", seconds, status)
        return finished

    def _report(self, process: _Process, finished: bool, count: str) -> None:
        seconds = time.monotonic() - process.began
        if finished:
            self.say(f"{count} {process.run.name}: {seconds:.0f} s")
            return
        log = self.store.path(process.run) / "logs" / "train.log"
        tail = log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
        self.say(
            "\n".join([f"{count} {process.run.name}: failed; the end of {log}:", *(f"    {t}" for t in tail)])
        )

    def _state(self, active: Sequence[_Process], done: int, failed: int, total: int, elapsed: float) -> str:
        shares = [min(1.0, generated_tokens(self.store.path(p.run)) / p.run.budget) for p in active]
        filled = round(20 * (done + sum(shares)) / total)
        parts = [f"{p.run.name} {share:.0%}" for p, share in zip(active, shares, strict=True)]
        bad = f", {failed} failed" if failed else ""
        left = ""
        if done:
            left = f", {_hours(elapsed * (total - done - sum(shares)) / (done + sum(shares)))} left"
        return f"[{'#' * filled}{'.' * (20 - filled)}] {done}/{total}{bad}{left}  {'  '.join(parts)}"

    def _stop(self, process: _Process) -> None:
        child = process.child
        if child.poll() is None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_PATIENCE_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def generated_tokens(path: Path) -> float:
    """Tokens that a run has generated so far."""
    try:
        points = RunDirectory.open(path).series("run_total/generated_tokens")
    except NotARunDirectory:
        return 0.0
    return points[-1][1] if points else 0.0


def training_command(
    run: Run, path: Path, *, rows: Path, model: Path, recipe: Path, judge_url: str, threads: int
) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a run: the quick start's trainer on these rows and this model."""
    command = [
        sys.executable,
        "-m",
        "cleaner.main",
        "--config-dir",
        str(recipe),
        "--config-name",
        "quickstart",
    ]
    environment = {
        **os.environ,
        "OUTPUT_DIR": str(path),
        "ROWS": str(rows),
        "MODEL_DIR": str(model),
        "RECIPE_DIR": str(recipe),
        "CODE_JUDGE_URL": judge_url,
        "OMP_NUM_THREADS": str(threads),
    }
    return [*command, *run.overrides], environment


def _hours(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
