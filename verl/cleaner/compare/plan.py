"""What is compared: arms, tasks, seeds and the budget, read from the files in `recipe/cleaner/compare`."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cleaner.errors import ConfigError

BASELINE = "baseline"

#: Models that runs can start from. Another than the first has a file of its sizes, `<model>.yaml`.
MODELS = ("tiny", "smollm2")


@dataclass(frozen=True)
class Arm:
    """One way of training. `set`: overrides on top of the task's."""

    name: str
    about: str
    set: tuple[str, ...]


@dataclass(frozen=True)
class ColdStart:
    """How the task's model is made from the quick start's: supervised steps on conversations of the teacher."""

    steps: int
    traces: int
    evaluate: int
    habits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskSet:
    """Problems, the model that starts on them (None: the quick start's), and what runs on them override."""

    name: str
    about: str
    problems: tuple[str, ...]
    train_rows: int
    val_rows: int
    coldstart: ColdStart | None
    set: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One training run."""

    task: TaskSet
    arm: Arm
    seed: int
    budget: int
    validations: int
    common: tuple[str, ...]
    extra: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its folder below the folder of all runs."""
        return f"{self.task.name}/{self.arm.name}/seed-{self.seed}"

    @property
    def overrides(self) -> list[str]:
        """What the run sets on top of the quick start's configuration; later ones win, so an arm's come last."""
        return [
            *self.common,
            *self.task.set,
            *self.extra,
            *self.arm.set,
            f"cleaner.seed={self.seed}",
            f"cleaner.budget.tokens={self.budget}",
            f"cleaner.budget.validations={self.validations}",
        ]

    @property
    def fingerprint(self) -> str:
        """Equal for runs that are the same experiment: overrides, problems and the model's cold start."""
        task = asdict(self.task)
        del task["about"]
        text = json.dumps([sorted(task.items()), self.overrides], default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """All runs, in the order in which they are to be done: seed by seed, so that what is done is always paired."""

    tasks: tuple[TaskSet, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]


def read_plan(
    folder: Path,
    *,
    tasks: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    budget: int,
    validations: int,
    extra: Sequence[str] = (),
    model: str = MODELS[0],
) -> Plan:
    """Read the files in `folder` and choose from them.

    Args:
        tasks, arms: names; empty: all. The baseline is added where it is not named: the others are compared with it.
        budget: generated tokens of a run. validations: how often it is validated within them.
        extra: overrides of all arms.
        model: one of `MODELS`. What its file sets comes after `run.yaml`.

    Raises:
        ConfigError: an unknown name, a file that cannot be read or that lacks a key, a task whose cold start is for
            another model.
    """
    known_arms = {
        name: Arm(
            name, str(_need(entry, "about", "arms.yaml")), _texts(entry, "set", f"arms.yaml, arm {name}")
        )
        for name, entry in _read(folder / "arms.yaml").items()
    }
    if BASELINE not in known_arms:
        raise ConfigError(
            f"{folder / 'arms.yaml'} has no arm {BASELINE!r}, with which the others are compared."
        )
    known_tasks = {path.stem: path for path in sorted((folder / "tasks").glob("*.yaml"))}
    chosen_arms = _choose(arms, known_arms, "arm")
    if BASELINE not in chosen_arms:
        chosen_arms = [BASELINE, *chosen_arms]
    chosen_tasks = [_task(known_tasks[name]) for name in _choose(tasks, known_tasks, "task")]
    common = _texts(_read(folder / "run.yaml"), "set", "run.yaml")
    if _choose([model], dict.fromkeys(MODELS), "model") != [MODELS[0]]:
        common += _texts(_read(folder / f"{model}.yaml"), "set", f"{model}.yaml")
        if own := [task.name for task in chosen_tasks if task.coldstart is not None]:
            raise ConfigError(
                f"TASKS={' '.join(own)} with MODEL={model}: their cold start is for MODEL={MODELS[0]}. Choose tasks "
                f"without one, such as TASKS=quickstart."
            )
    for name, number in (("BUDGET", budget), ("VALIDATIONS", validations)):
        if number < 1:
            raise ConfigError(f"{name}={number} must be at least 1.")
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(
            f"SEEDS={' '.join(map(str, seeds))} must be one or more different whole numbers >= 0."
        )
    runs = tuple(
        Run(task, known_arms[arm], seed, budget, validations, common, tuple(extra))
        for seed in seeds
        for task in chosen_tasks
        for arm in chosen_arms
    )
    return Plan(tuple(chosen_tasks), tuple(known_arms[name] for name in chosen_arms), tuple(seeds), runs)


def _task(path: Path) -> TaskSet:
    entry, where = _read(path), f"tasks/{path.name}"
    cold = entry.get("coldstart")
    coldstart = None
    if cold is not None:
        steps, traces, evaluate = (int(_need(cold, key, where)) for key in ("steps", "traces", "evaluate"))
        coldstart = ColdStart(steps, traces, evaluate, dict(cold.get("habits") or {}))
    return TaskSet(
        path.stem,
        str(_need(entry, "about", where)),
        _texts(entry, "problems", where),
        int(_need(entry, "train_rows", where)),
        int(_need(entry, "val_rows", where)),
        coldstart,
        _texts(entry, "set", where),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold names and values.")
    return loaded


def _need(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or entry.get(key) is None:
        raise ConfigError(f"{where} has no {key!r}.")
    return entry[key]


def _texts(entry: Any, key: str, where: str) -> tuple[str, ...]:
    values = _need(entry, key, where)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"{where}: {key!r} must be a list of texts.")
    return tuple(values)


def _choose(names: Sequence[str], known: Mapping[str, Any], what: str) -> list[str]:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"unknown {what} {name!r}.{hint} Known: {', '.join(known)}.")
    return list(dict.fromkeys(names)) if names else list(known)
