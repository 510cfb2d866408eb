"""Which runs are seeds of one arm: those whose resolved configurations say the same but for seeds and places.

Not compared are seeds, the output folder and what lies in it, names of experiments, and how a run was resumed. In the
paths of the data files the run's own seed counts as equal, because rows are made by seed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cleaner.report.run_dir import RunDirectory

_IGNORED = frozenset(
    {
        "cleaner.output_dir",
        "trainer.default_local_dir",
        "trainer.experiment_name",
        "trainer.project_name",
        "trainer.resume_mode",
        "trainer.resume_from_path",
    }
)
_DATA_FILES = frozenset({"data.train_files", "data.val_files"})
_MOST_DIFFERENCES = 4


@dataclass(frozen=True)
class Arm:
    """Runs that differ by their seed alone.

    Attributes:
        name: the run's name, or what the names of its runs have in common.
        runs: indices of the runs, ascending.
        differs: `(key, value)` of the configuration where arms differ from each other, ours first, at most four.
    """

    name: str
    runs: tuple[int, ...]
    differs: tuple[tuple[str, str], ...]


def group_runs(runs: Sequence[RunDirectory], names: Sequence[str]) -> list[Arm]:
    """The arms in the order of their first run. A run without a configuration is an arm of its own."""
    identities = [comparable_config(run) for run in runs]
    members: dict[str, list[int]] = {}
    for index, identity in enumerate(identities):
        key = json.dumps(identity, sort_keys=True) if identity else f"run {index}"
        members.setdefault(key, []).append(index)
    groups = list(members.values())
    differing = _differing_keys([identities[group[0]] for group in groups])
    return [
        Arm(
            _common_name([names[index] for index in group]),
            tuple(group),
            tuple((key, identities[group[0]].get(key, "not set")) for key in differing),
        )
        for group in groups
    ]


def comparable_config(run: RunDirectory) -> dict[str, str]:
    """The configuration by dotted key, values as JSON, without what may differ between seeds of one arm."""
    output, seed = run.setting("cleaner.output_dir"), run.setting("cleaner.seed")
    found = {}
    for key, value in _flat(run.config):
        if key in _IGNORED or key.rpartition(".")[2].endswith("seed"):
            continue
        text = json.dumps(value, sort_keys=True, default=str)
        if isinstance(output, str) and output:
            text = text.replace(output, "OUTPUT_DIR")
        if key in _DATA_FILES and seed is not None:
            text = re.sub(rf"(?<![0-9A-Za-z]){re.escape(str(seed))}(?![0-9A-Za-z])", "SEED", text)
        found[key] = text
    return found


def run_names(runs: Sequence[RunDirectory]) -> list[str]:
    """A short name for each run: its folder's, with as many parents before it as tell all of them apart."""
    parts = [run.path.resolve().parts for run in runs]
    depth = 1
    while depth < max(map(len, parts), default=1):
        short = ["/".join(path[-depth:]) for path in parts]
        if len(set(short)) == len(set(parts)):
            break
        depth += 1
    return ["/".join(path[-depth:]) for path in parts]


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, inner in value.items():
        name = f"{prefix}{key}"
        found += _flat(inner, f"{name}.") if isinstance(inner, Mapping) and inner else [(name, inner)]
    return found


def _differing_keys(identities: Sequence[Mapping[str, str]]) -> list[str]:
    keys = {key for identity in identities for key in identity}
    differing = [key for key in keys if len({identity.get(key) for identity in identities if identity}) > 1]
    return sorted(differing, key=lambda key: (not key.startswith("cleaner."), key))[:_MOST_DIFFERENCES]


def _common_name(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    start = names[0]
    for name in names[1:]:
        while not name.startswith(start):
            start = start[:-1]
    start = re.sub(r"[-_. ]*(seed|s)?[-_. ]*\d*$", "", start, flags=re.IGNORECASE).rstrip("/-_. ")
    return start or names[0]
