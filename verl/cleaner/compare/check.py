"""Composes and checks the configuration of every kind of run before one starts. Reads lists of overrides as JSON.

A process of its own: composing needs verl, and what that takes of memory is better left to the runs.
`python -m cleaner.compare.check RECIPE_DIR < overrides.json` prints one message, or null, for each list.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cleaner.errors import ConfigError


def problem_with(overrides: Sequence[str], recipe: Path) -> str | None:
    """What is wrong with the configuration that these overrides make of the quick start's; None: nothing."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from cleaner.main import prepare

    try:
        with initialize_config_dir(str(recipe), version_base=None):
            config = compose("quickstart", overrides=list(overrides))
        prepare(config, check_inputs=lambda _: None)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        return str(error)
    return None


def main() -> None:
    """Command line."""
    recipe = Path(sys.argv[1])
    # Only composed, never run: the places need not exist.
    for name in ("ROWS", "MODEL_DIR", "OUTPUT_DIR"):
        os.environ.setdefault(name, "/nonexistent")
    os.environ["RECIPE_DIR"] = str(recipe)
    found = [problem_with(overrides, recipe) for overrides in json.load(sys.stdin)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
