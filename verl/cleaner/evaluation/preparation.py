"""An evaluation (`trainer.val_only=true`): no training step, and an output directory that it may go on in."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cleaner.errors import ConfigError
from cleaner.evaluation.sample_log import SAMPLES_FILE

_CONFIG_FILE = "config.yaml"
# What decides which samples there are. Limits of how many problems are sampled, and how many at once, may change.
_DECISIVE = (
    "actor_rollout_ref.model.path",
    "trainer.resume_mode",
    "trainer.resume_from_path",
    "cleaner.seed",
    "cleaner.strategy",
    "cleaner.saar",
    "data.val_files",
    "data.max_prompt_length",
    "data.max_response_length",
    "actor_rollout_ref.rollout.name",
    "actor_rollout_ref.rollout.dtype",
    "actor_rollout_ref.rollout.val_kwargs",
    "actor_rollout_ref.rollout.multi_turn",
)


def prepare_evaluation(config: DictConfig, output_dir: Path) -> None:
    """Complete the configuration of an evaluation in place, and check that it may write into `output_dir`.

    No training file is needed: nothing is read of it but its existence, and the validation files take its place.

    Raises:
        ConfigError: verl would train after all; the directory holds a training run, or another evaluation.
    """
    if not config.trainer.val_before_train:
        raise ConfigError(
            "trainer.val_only=true with trainer.val_before_train=false would train: verl ends after the validation "
            "before training. Set trainer.val_before_train=true."
        )
    if config.cleaner.get("save_samples") is False:
        raise ConfigError(
            "trainer.val_only=true with cleaner.save_samples=false would leave nothing behind to report. Leave "
            "cleaner.save_samples away."
        )
    config.data.train_files = config.data.val_files
    # verl's own dump holds less, and a process that goes on would overwrite it.
    config.trainer.validation_data_dir = None
    if config.trainer.total_training_steps is None:
        # The optimizer, which verl makes all the same, wants a schedule.
        config.trainer.total_training_steps = 1
    _refuse_other_run(config, output_dir)


def _refuse_other_run(config: DictConfig, output_dir: Path) -> None:
    path = output_dir / _CONFIG_FILE
    if not path.is_file():
        return
    earlier = OmegaConf.load(path)
    fix = "Give another cleaner.output_dir."
    if not OmegaConf.select(earlier, "trainer.val_only"):
        raise ConfigError(f"{output_dir} holds a training run, not an evaluation. {fix}")
    if not (output_dir / SAMPLES_FILE).exists():
        return
    changed = [
        f"{key} was {_shown(before)} and is {_shown(now)}"
        for key in _DECISIVE
        if (before := _value(earlier, key)) != (now := _value(config, key))
    ]
    if changed:
        raise ConfigError(
            f"{output_dir} holds samples of another evaluation: {'; '.join(changed)}. {fix} To go on with the one "
            "there, run it with the same settings."
        )


def _value(config: Any, key: str) -> Any:
    found = OmegaConf.select(config, key)
    found = OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
    # The file may be given as one path or as a list of one.
    return [found] if key == "data.val_files" and isinstance(found, str) else found


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
