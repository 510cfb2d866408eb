"""Train: `python -m cleaner.main [overrides]`, upstream verl's keys plus the group `cleaner`.

Everything that can be wrong with a configuration is found before Ray, the judge or a model is touched: exit status 2
and one message that names what to fix. `DRY_RUN=1` stops after the checks and prints the resolved configuration.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from cleaner.errors import ConfigError, TooManyFailures
from cleaner.preflight import check_training_inputs
from cleaner.report.run_dir import METRICS_FILE, set_aside_metrics

CONFIG_ERROR_STATUS = 2


def prepare(config: DictConfig, check_inputs: Callable[[Any], None] = check_training_inputs) -> None:
    """Check the whole configuration and complete it in place.

    Args:
        config: as composed.
        check_inputs: checks what the configuration points at: data, model, output directory, judge.

    Raises:
        ConfigError: with every problem that was found, each with its remedy.
    """
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    from verl.utils.device import auto_set_device

    from cleaner.config.documented_keys import adopt_documented_keys
    from cleaner.config.precision import refuse_precision
    from cleaner.config.settings import read_settings
    from cleaner.config.sizes import refuse_sizes
    from cleaner.evaluation.preparation import prepare_evaluation
    from cleaner.rewards.settings import refuse_reward

    adopt_documented_keys(config)
    settings = read_settings(config)
    output_dir = Path(settings.output_dir).absolute()
    if config.trainer.val_only:
        prepare_evaluation(config, output_dir)
    elif (
        not _is_dry_run() and config.trainer.resume_mode == "disable" and (output_dir / METRICS_FILE).exists()
    ):
        raise ConfigError(
            f"{output_dir} already holds a run. Give another cleaner.output_dir, or trainer.resume_mode=auto to go on."
        )
    refuse_precision(config)
    refuse_sizes(config)
    refuse_reward(config)
    check_inputs(config)
    auto_set_device(config)
    try:
        validate_config(
            config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config)
        )
    except (AssertionError, ValueError, InstantiationException) as error:
        raise ConfigError(f"verl refuses the configuration: {error}") from error
    config.cleaner.output_dir = str(output_dir)
    # Resolved here, so that no worker on another machine needs this shell's environment.
    OmegaConf.resolve(config)


def train(config: DictConfig) -> None:
    """Run verl's training with our task runner, in this process's Ray cluster, and leave nothing running."""
    import ray
    from verl.trainer.main_ppo import run_ppo

    from cleaner.task_runner import CleanerTaskRunner

    output_dir = Path(config.cleaner.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, output_dir / "config.yaml", resolve=True)
    os.environ["VERL_FILE_LOGGER_PATH"] = str(output_dir / METRICS_FILE)
    # Where verl's tensorboard logger would write otherwise: beside the run directory.
    os.environ.setdefault("TENSORBOARD_DIR", str(output_dir / "tensorboard"))
    set_aside_metrics(output_dir)
    try:
        run_ppo(config, task_runner_class=CleanerTaskRunner)
    except ray.exceptions.RayTaskError as error:
        # Ray's own text would bury the message under the tracebacks of two processes.
        if isinstance(error.cause, TooManyFailures):
            raise error.cause from None
        raise
    finally:
        ray.shutdown()


def _is_dry_run() -> bool:
    return os.environ.get("DRY_RUN") == "1"


def _stop(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt(f"signal {signum}")


@hydra.main(config_path="config", config_name="cleaner", version_base=None)
def main(config: DictConfig) -> None:
    """Entry point; see the module's docstring."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        prepare(config)
    except ConfigError as error:
        print(f"configuration error: {error}", file=sys.stderr)
        sys.exit(CONFIG_ERROR_STATUS)
    if _is_dry_run():
        print(OmegaConf.to_yaml(config))
        return
    try:
        train(config)
    except TooManyFailures as error:
        print(f"stopped: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; RESUME continues from the last checkpoint", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
