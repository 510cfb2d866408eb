"""Composes what a recipe would run, in this process: one import of verl for all of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from recorded_recipe import record


@pytest.fixture
def composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DictConfig]:
    """A function of script, arguments and environment that gives the configuration."""

    def compose_recipe(script: str, *arguments: str, **environment: str) -> DictConfig:
        recorded = record(script, *arguments, folder=tmp_path, DRY_RUN="1", **environment)
        for name, value in recorded.environment.items():
            monkeypatch.setenv(name, value)
        folder = recorded.command[recorded.command.index("--config-dir") + 1]
        name = recorded.command[recorded.command.index("--config-name") + 1]
        with initialize_config_dir(folder, version_base=None):
            return compose(name, overrides=recorded.overrides)

    return compose_recipe
