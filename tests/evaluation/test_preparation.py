"""An evaluation never trains, and never mixes with another run."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from cleaner.errors import ConfigError
from cleaner.evaluation.preparation import prepare_evaluation


@cache
def composed() -> Any:
    overrides = ["trainer.val_only=true", "data.val_files=[val.parquet]", "actor_rollout_ref.model.path=m"]
    with initialize_config_module("cleaner.config", version_base=None):
        return compose("cleaner", overrides=overrides)


def make_config(*overrides: str) -> Any:
    """Composing takes a while, so it is done once."""
    config = copy.deepcopy(composed())
    for key, value in OmegaConf.from_dotlist(list(overrides)).items():
        OmegaConf.update(config, key, value)
    return config


def evaluated(folder: Path, *overrides: str) -> Path:
    """A run directory as an evaluation leaves it."""
    OmegaConf.save(make_config(*overrides), folder / "config.yaml", resolve=True)
    (folder / "samples.jsonl").write_text("")
    return folder


def test_it_needs_no_training_file(tmp_path: Path) -> None:
    config = make_config()
    prepare_evaluation(config, tmp_path)
    assert config.data.train_files == ["val.parquet"] and config.trainer.total_training_steps == 1
    assert config.trainer.validation_data_dir is None


def test_what_would_train_after_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"would train.*Set trainer\.val_before_train=true"):
        prepare_evaluation(make_config("trainer.val_before_train=false"), tmp_path)


def test_an_evaluation_that_saves_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing behind"):
        prepare_evaluation(make_config("cleaner.save_samples=false"), tmp_path)


def test_the_same_evaluation_goes_on_also_with_more_problems(tmp_path: Path) -> None:
    folder = evaluated(tmp_path, "data.val_max_samples=8")
    prepare_evaluation(make_config("data.val_max_samples=16", "data.val_batch_size=4"), folder)
    # One file, named as a list or not.
    prepare_evaluation(make_config("data.val_files=val.parquet"), folder)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("actor_rollout_ref.model.path=other", "actor_rollout_ref.model.path was 'm' and is 'other'"),
        ("cleaner.saar.rollback_in_validation=true", "cleaner.saar was"),
        ("cleaner.seed=2", "cleaner.seed was 1 and is 2"),
        ("actor_rollout_ref.rollout.val_kwargs.n=9", "actor_rollout_ref.rollout.val_kwargs was"),
        (
            "trainer.resume_from_path=x/global_step_5",
            "trainer.resume_from_path was None and is 'x/global_step_5'",
        ),
    ],
)
def test_samples_of_two_evaluations_do_not_share_a_directory(
    tmp_path: Path, override: str, named: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare_evaluation(make_config(override), evaluated(tmp_path))
    assert named in str(caught.value) and "Give another cleaner.output_dir" in str(caught.value)


def test_the_directory_of_a_training_run_is_refused(tmp_path: Path) -> None:
    OmegaConf.save(make_config("trainer.val_only=false"), tmp_path / "config.yaml", resolve=True)
    with pytest.raises(ConfigError, match="holds a training run"):
        prepare_evaluation(make_config(), tmp_path)
