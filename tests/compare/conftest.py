"""A small comparison: its files."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cleaner.compare.plan import Plan, read_plan

sys.path.insert(0, str(Path(__file__).parent))

ARMS = """
baseline: {about: raw, set: [cleaner.strategy=none]}
saar: {about: repaired, set: [cleaner.strategy=saar]}
other: {about: another, set: [cleaner.strategy=roc]}
"""
TASK = """
about: short
problems: [gcd, lcm]
train_rows: 8
val_rows: 4
set: [data.max_response_length=256]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A folder with the files of a comparison."""
    folder = tmp_path / "recipe"
    (folder / "tasks").mkdir(parents=True)
    (folder / "arms.yaml").write_text(ARMS)
    (folder / "run.yaml").write_text("set: [trainer.save_freq=-1]\n")
    (folder / "tasks" / "short.yaml").write_text(TASK)
    return folder


@pytest.fixture
def plan_of(recipe: Path) -> Callable[..., Plan]:
    """`read_plan` on it, with small numbers where none are given."""

    def read(**choices: object) -> Plan:
        settings = {"tasks": [], "arms": ["saar"], "seeds": [1, 2], "budget": 100, "validations": 2}
        return read_plan(recipe, **{**settings, **choices})

    return read
