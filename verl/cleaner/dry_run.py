"""`python -m cleaner.dry_run [overrides]`: what `cleaner.main` would do with the same arguments, without doing it.

The configuration is composed, checked by everything that checks it before a real run, and by what would otherwise
show only later: keys that verl does not have, groups that verl's classes refuse. What the real run needs and this
machine lacks (GPUs, the engine, a model, data) is listed and is no error: a dry run works on a laptop.
"""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from cleaner.config.decisions import Decision, as_text, decisions
from cleaner.data.row_files import maps_rows
from cleaner.errors import ConfigError
from cleaner.main import CONFIG_ERROR_STATUS, prepare
from cleaner.preflight import Problem, check_data, check_model, check_output_dir, check_python, in_hub_cache

_ROLLOUT = "actor_rollout_ref.rollout"


@dataclass(frozen=True)
class Report:
    """What was decided, and what the real run needs that is not here."""

    table: list[Decision]
    missing: list[Problem]

    def text(self, name: str) -> str:
        lines = [f"{name}: valid for verl 0.9.1", "", as_text(self.table), ""]
        if any("actor_rollout_ref." in row.keys for row in self.table):
            lines += ["Keys that begin with actor., model. or rollout. stand below actor_rollout_ref.", ""]
        if self.missing:
            lines += [
                "Needed by the run, and not here:",
                *(f"  - {problem}." for problem in self.missing),
                "",
            ]
        return "\n".join([*lines, "Dry run: nothing was started."])


def examine(config: DictConfig) -> Report:
    """Check a training or evaluation configuration, which is completed in place.

    Raises:
        ConfigError: what is wrong, where, and what to do.
    """
    from cleaner.config.verl_keys import refuse_unknown_keys

    missing: list[Problem] = []

    def check_inputs(config: Any) -> None:
        missing.extend(missing_inputs(config))

    prepare(config, check_inputs)
    refuse_unknown_keys(config)
    _refuse_what_verl_refuses(config)
    return Report(
        [*decisions(config), *_beside(config)],
        [*missing, *_missing_reward(config), *_missing_services(config)],
    )


def _beside(config: DictConfig) -> list[Decision]:
    """What follows from files and from the environment, not from keys."""
    found = []
    file = config.data.train_files
    if not config.trainer.val_only and isinstance(file, str) and Path(file).is_file():
        rows = pq.read_metadata(file).num_rows
        steps = rows // config.data.train_batch_size * config.trainer.total_epochs
        found.append(Decision("training rows / steps at most", f"{rows:,} / {steps}", "data.train_files"))
    if url := os.environ.get("CODE_JUDGE_URL"):
        found.append(Decision("code-judge", f"{url}, with its own limits", "CODE_JUDGE_URL"))
    else:
        limits = (os.environ.get(name, "?") for name in ("MAX_EXECUTION_TIME", "MAX_MEMORY"))
        value = "started here: {} s, {} MiB a program".format(*limits)
        found.append(Decision("code-judge", value, "MAX_EXECUTION_TIME, MAX_MEMORY"))
    return found


def missing_inputs(config: Any) -> list[Problem]:
    """Data and model that are not here.

    Raises:
        ConfigError: what is here and wrong, all of it at once.
    """
    wrong, missing = [*check_python(), *check_output_dir(config.cleaner.output_dir)], []
    # An evaluation reads no training rows.
    for option in ("data.train_files", "data.val_files")[int(config.trainer.val_only) :]:
        files = OmegaConf.select(config, option)
        for file in [files] if isinstance(files, str) else files or []:
            if Path(file).exists():
                wrong += check_data([file], option, maps_rows(config.data))
            else:
                missing.append(Problem("no such file", f"{option} {file}", "See dataset/README.md"))
        if not files and option == "data.val_files":
            wrong.append(Problem("no file is given", option, "Set VAL_FILES"))
    bad_model, no_model = model_problems(str(config.actor_rollout_ref.model.path))
    raise_problems([*wrong, *bad_model])
    return [*missing, *no_model]


def model_problems(
    model: str, environment: Mapping[str, str] = os.environ
) -> tuple[list[Problem], list[Problem]]:
    """(what is wrong, what is not here) of a model, which is a folder or a hub id."""
    where = f"model {model}"
    if model.startswith((".", "/", "~")) and not Path(model).expanduser().exists():
        return [], [Problem("no such folder", where, "Correct MODEL_PATH, or copy the model there")]
    online = {**environment, "HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": ""}
    wrong = check_model(model, online)
    if not wrong and not Path(model).expanduser().exists() and not in_hub_cache(model, environment):
        return [], [Problem("not in the hub cache", where, f"`hf download {model}`, or let the run fetch it")]
    return wrong, []


def raise_problems(problems: list[Problem]) -> None:
    """Raises ConfigError with all problems, one a line, if there are any."""
    if problems:
        raise ConfigError("\n  ".join(["", *map(str, problems)]) if len(problems) > 1 else str(problems[0]))


def missing_gpus(wanted: int) -> list[Problem]:
    """Whether this machine lacks some of the `wanted` GPUs of a node."""
    import torch

    found = torch.cuda.device_count()
    if found >= wanted:
        return []
    return [
        Problem(f"{found} found, {wanted} wanted", "GPUs of this node", "Set NUM_GPUS, or run it elsewhere")
    ]


def _missing_services(config: DictConfig) -> list[Problem]:
    missing = missing_gpus(config.trainer.n_gpus_per_node)
    engine = config.actor_rollout_ref.rollout.name
    if engine in ("sglang", "vllm") and importlib.util.find_spec(engine) is None:
        fix = f"requirements.txt tells how to install {engine}; or use the other engine"
        missing.append(Problem("not installed", f"engine {engine}", fix))
    if config.trainer.nnodes > 1 and not os.environ.get("RAY_ADDRESS"):
        fix = "Start it with ray_cluster.sh, then set RAY_ADDRESS"
        missing.append(Problem("no address is given", f"Ray cluster of {config.trainer.nnodes} nodes", fix))
    return missing


def _refuse_what_verl_refuses(config: DictConfig) -> None:
    """Make or check the groups that verl's workers make of the configuration when they start."""
    from verl.trainer.ppo.reward import resolve_reward_manager_cls
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.config import HFModelConfig

    from cleaner.config.verl_keys import check_group

    check_group(config.actor_rollout_ref.model, HFModelConfig, "actor_rollout_ref.model")
    for path in (_ROLLOUT, "algorithm"):
        try:
            omega_conf_to_dataclass(OmegaConf.select(config, path))
        except Exception as error:
            # verl's classes assert, and Hydra wraps whatever they raise.
            raise ConfigError(f"verl refuses {path}: {error}") from error
    try:
        resolve_reward_manager_cls(config)
    except (AssertionError, AttributeError, ImportError, ValueError) as error:
        raise ConfigError(f"verl refuses reward.reward_manager: {error}") from error


def _missing_reward(config: DictConfig) -> list[Problem]:
    """Whether the module of the reward function is not installed.

    Raises:
        ConfigError: it is, and has no such function or cannot be imported.
    """
    from verl.trainer.ppo.reward import get_custom_reward_fn

    where = f"reward.custom_reward_function.path {config.reward.custom_reward_function.path}"
    try:
        get_custom_reward_fn(config)
    except (FileNotFoundError, ModuleNotFoundError) as error:
        return [Problem(f"cannot be found ({error})", where, "Install it, or correct the path")]
    except (ImportError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"{where} cannot be used: {error}") from error
    return []


@hydra.main(config_path="config", config_name="cleaner", version_base=None)
def main(config: DictConfig) -> None:
    """Entry point; see the module's docstring. Exit status 2 where a real run would be refused."""
    try:
        # verl prints what it has checked.
        with contextlib.redirect_stdout(sys.stderr):
            report = examine(config)
    except ConfigError as error:
        print(f"configuration error: {error}", file=sys.stderr)
        sys.exit(CONFIG_ERROR_STATUS)
    print(report.text(config.trainer.experiment_name))


if __name__ == "__main__":
    # What checks for a real run (free outputs, a judge that answers) leaves out in a dry run.
    os.environ["DRY_RUN"] = "1"
    # No device is touched; verl would warn that it finds none.
    os.environ.setdefault("VERL_PLATFORM", "cpu")
    main()
