"""Cold start: `torchrun ... -m cleaner.sft --config-dir DIR --config-name sft [overrides]`.

verl's SFT trainer over multi-turn conversations with tool calls, checked before it starts like `cleaner.main`, and able
to run without a GPU (VERL_PLATFORM=cpu). `DRY_RUN=1` composes, checks, prints what was decided, and starts nothing.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from cleaner.config.decisions import sft_decisions
from cleaner.config.precision import actor_precision
from cleaner.config.verl_keys import check_group, refuse_unknown_keys, upstream_sft_config
from cleaner.dry_run import Report, missing_gpus, model_problems, raise_problems
from cleaner.errors import ConfigError
from cleaner.preflight import Problem, check_output_dir, check_python
from cleaner.sft_rows import check_conversations

CONFIG_ERROR_STATUS = 2
METRICS_FILE = "metrics.jsonl"


def prepare(config: DictConfig) -> list[Problem]:
    """Check the whole configuration; returns what the run needs and this machine lacks.

    Raises:
        ConfigError: what is wrong, where, and what to do.
    """
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.config import HFModelConfig

    refuse_unknown_keys(config, upstream_sft_config())
    check_group(config.model, HFModelConfig, "model")
    for group in ("engine", "optim", "checkpoint", "profiler"):
        try:
            omega_conf_to_dataclass(config[group])
        except Exception as error:
            raise ConfigError(f"verl refuses {group}: {error}") from error
    actor_precision(config.engine, "engine")
    _refuse_sizes(config)
    missing: list[Problem] = []
    wrong = [*check_python(), *check_output_dir(config.trainer.default_local_dir)]
    for option in ("data.train_files", "data.val_files"):
        files = OmegaConf.select(config, option)
        for file in [files] if isinstance(files, str) else files or []:
            if Path(file).exists():
                wrong += check_conversations(file, option, config.data.messages_key, config.data.tools_key)
            else:
                missing.append(Problem("no such file", f"{option} {file}", "See dataset/README.md"))
    bad_model, no_model = model_problems(config.model.path)
    raise_problems([*wrong, *bad_model])
    return [*missing, *no_model]


def _refuse_sizes(config: DictConfig) -> None:
    data, trainer = config.data, config.trainer
    gpus, parallel = trainer.n_gpus_per_node * trainer.nnodes, config.engine.ulysses_sequence_parallel_size
    if gpus % parallel:
        raise ConfigError(
            f"engine.ulysses_sequence_parallel_size={parallel} does not divide {gpus} GPUs. Set it to a divisor; "
            f"data.max_token_len_per_gpu times it must hold data.max_length={data.max_length} tokens."
        )
    # verl would round the batch of a rank down and train fewer rows than it is told.
    if data.train_batch_size % (gpus // parallel):
        raise ConfigError(
            f"data.train_batch_size={data.train_batch_size} cannot be shared by {gpus // parallel} data-parallel ranks."
        )
    if data.use_dynamic_bsz and data.max_token_len_per_gpu * parallel < data.max_length:
        raise ConfigError(
            f"data.max_token_len_per_gpu={data.max_token_len_per_gpu} cannot hold one conversation of data.max_length="
            f"{data.max_length} tokens. Set it to {-(-data.max_length // parallel)} or more."
        )
    every = trainer.test_freq
    if not data.val_files and (every == "after_each_epoch" or every > 0):
        raise ConfigError(f"trainer.test_freq={every} without data.val_files: there is nothing to test on.")


def train(config: DictConfig) -> None:
    """Train in this process, one of those that torchrun has started."""
    from verl.trainer import sft_trainer
    from verl.utils.device import auto_set_device, get_device_name
    from verl.utils.distributed import destroy_global_process_group

    auto_set_device(config)
    output_dir = Path(config.trainer.default_local_dir).absolute().parent
    os.environ["VERL_FILE_LOGGER_PATH"] = str(output_dir / METRICS_FILE)
    if os.environ.get("RANK", "0") == "0":
        output_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, output_dir / "config.yaml", resolve=True)
    if get_device_name() != "cpu":
        sft_trainer.run_sft(config)
        return
    from cleaner.cpu.worker import initialize_cpu_process_group

    config.trainer.device = "cpu"
    initialize_cpu_process_group()
    sft_trainer.SFTTrainer(config=config).fit()
    destroy_global_process_group()


@hydra.main(config_path=None, config_name=None, version_base=None)
def main(config: DictConfig) -> None:
    """Entry point; see the module's docstring. Exit status 2 for a configuration that cannot be right."""
    is_dry = os.environ.get("DRY_RUN") == "1"
    report: Any = None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            missing = prepare(config)
            if is_dry:
                missing = [*missing, *missing_gpus(config.trainer.n_gpus_per_node)]
                report = Report(sft_decisions(config), missing)
            else:
                # A hub id that is not cached yet is fetched by the run.
                raise_problems([problem for problem in missing if problem.where.startswith("data.")])
    except ConfigError as error:
        print(f"configuration error: {error}", file=sys.stderr)
        sys.exit(CONFIG_ERROR_STATUS)
    if is_dry:
        print(report.text(config.trainer.experiment_name))
        return
    train(config)


if __name__ == "__main__":
    if os.environ.get("DRY_RUN") == "1":
        os.environ.setdefault("VERL_PLATFORM", "cpu")
    main()
