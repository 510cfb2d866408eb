"""What runs start from: a task's problems for a seed, and its cold-started model. Made once, kept in a cache."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from cleaner.compare.parentage import end_with_parent
from cleaner.compare.plan import TaskSet
from cleaner.compare.starting_models import keep_model, kept_model
from cleaner.data.make_rows import make_rows
from cleaner.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent.parent


def rows_folder(task: TaskSet, seed: int, cache: Path) -> Path:
    """Folder of the task's rows for a seed; its name carries a checksum of what makes them."""
    made_by = _checksum(["data/tasks.py", "data/own_problems.py", "data/make_rows.py"], [task.problems])
    return cache / f"rows-{task.name}-{seed}-{task.train_rows}x{task.val_rows}-{made_by}"


def provide_rows(task: TaskSet, seed: int, cache: Path) -> Path:
    """The folder, made if it is not there."""
    folder = rows_folder(task, seed, cache)
    if not (folder / "val.parquet").is_file():
        # The validation file is written last.
        make_rows(folder, task.train_rows, task.val_rows, seed, task.problems)
    return folder


def model_folder(task: TaskSet, quickstart: Path, cache: Path) -> Path:
    """Folder of the task's model: `quickstart`, or one whose name carries a checksum of what makes it from that."""
    if task.coldstart is None:
        return quickstart
    sources = ["data/tasks.py", "data/own_problems.py"]
    sources += sorted(f"coldstart/{path.name}" for path in (_PACKAGE / "coldstart").glob("*.py"))
    settings = [
        task.problems,
        sorted(asdict(task.coldstart).items()),
        (quickstart / "coldstart.json").read_text(),
    ]
    return cache / f"model-{task.name}-{_checksum(sources, settings)}"


def provide_model(task: TaskSet, quickstart: Path, cache: Path, results: Path, judge_url: str) -> Path:
    """Folder of the model that the task's runs start from: the one kept in `results`, else one that is made, which
    takes some minutes, and kept there. `quickstart`: folder of the model that tasks without a cold start begin with.

    Raises:
        ConfigError: the cold start failed; the message names its log.
    """
    folder = kept_model(task.name, results, cache)
    if folder is None:
        folder = _make_model(task, quickstart, cache, judge_url)
        keep_model(task.name, folder, results)
    return folder


def _make_model(task: TaskSet, quickstart: Path, cache: Path, judge_url: str) -> Path:
    folder = model_folder(task, quickstart, cache)
    if task.coldstart is None or (folder / "config.json").is_file():
        return folder
    cold = task.coldstart
    command = [
        sys.executable,
        "-m",
        "cleaner.coldstart",
        "--model",
        "tiny",
        "--out",
        str(folder),
        "--minutes",
        "60",
    ]
    command += ["--start", str(quickstart), "--steps", str(cold.steps), "--traces", str(cold.traces)]
    command += ["--evaluate", str(cold.evaluate), "--judge-url", judge_url, "--tasks", *task.problems]
    for name, value in cold.habits.items():
        command += ["--habit", f"{name}={value}"]
    cache.mkdir(parents=True, exist_ok=True)
    log = cache / f"{folder.name}.log"
    with log.open("w") as file:
        done = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, check=False, preexec_fn=end_with_parent
        )
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError(f"the cold start of task {task.name} failed; its log is {log}.")
    return folder


def _checksum(sources: list[str], settings: list[Any]) -> str:
    digest = sha256(json.dumps(settings, default=str).encode())
    for source in sources:
        digest.update((_PACKAGE / source).read_bytes())
    return digest.hexdigest()[:10]
