"""A few steps of the quick start with one engine in one number format: everything real, on this machine's device."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from cleaner.gpu_check.command import run
from cleaner.gpu_check.row import FAILED, SKIPPED, Row
from cleaner.gpu_check.run_rows import rows_of
from cleaner.gpu_check.settings import Settings

_ACTOR, _ROLLOUT = "actor_rollout_ref.actor.fsdp_config", "actor_rollout_ref.rollout"
# The engines share the card with the trainer and start in seconds: no CUDA graphs. SGLang's default kernels of
# attention want larger heads than the quick-start model's of 32.
_ENGINE_OVERRIDES = {
    "hf_server": (),
    "sglang": (
        f"{_ROLLOUT}.gpu_memory_utilization=0.4",
        f"{_ROLLOUT}.enforce_eager=true",
        f"++{_ROLLOUT}.engine_kwargs.sglang.attention_backend=triton",
    ),
    "vllm": (f"{_ROLLOUT}.gpu_memory_utilization=0.4", f"{_ROLLOUT}.enforce_eager=true"),
}


def name_of(engine: str, dtype: str) -> str:
    """How the table calls such a run."""
    return f"{engine} {dtype}"


def command(settings: Settings, engine: str, dtype: str, module: str = "cleaner.main") -> list[str]:
    """The command that trains, or with another module of the same arguments, does something else with them."""
    return [
        settings.python, "-m", module, "--config-dir", str(settings.recipe), "--config-name", "quickstart",
        *_overrides(settings, engine, dtype),
    ]  # fmt: skip


def environment(
    settings: Settings, engine: str, dtype: str, base: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """What the configuration reads beside what this process has."""
    found = {
        **base,
        "OUTPUT_DIR": str(folder(settings, engine, dtype)),
        "ROWS": str(settings.rows),
        "MODEL_DIR": str(settings.model),
        "RECIPE_DIR": str(settings.recipe),
    }
    found.pop("RAY_ADDRESS", None)  # what is checked is this machine
    return found


def folder(settings: Settings, engine: str, dtype: str) -> Path:
    """The run directory."""
    return settings.output / f"{engine}-{dtype}"


def train(settings: Settings, engine: str, dtype: str, missing: str = "") -> list[Row]:
    """Train, and read what the run left behind. A run that cannot be made here is skipped.

    Args:
        missing: what every training needs and is not there; empty: nothing.
    """
    name = name_of(engine, dtype)
    if reason := f"not tried: {missing}" if missing else _obstacle(settings, engine):
        return [Row(name, SKIPPED, "", reason)]
    where = folder(settings, engine, dtype)
    if where.exists():
        shutil.rmtree(where)  # of an earlier check; `cleaner.main` would refuse to mix two runs
    log = settings.output / "logs" / f"{engine}-{dtype}.log"
    ended = run(command(settings, engine, dtype), log, settings.limit_s, environment(settings, engine, dtype))
    if ended.status != 0:
        advice = "Its log tells; docs/gpu.md and docs/troubleshooting.md have the usual causes"
        if ended.status is None:
            advice = "Look in its log for what it waited for, or give it more time: TIME_LIMIT (seconds)"
        return [Row(f"{name}: training", FAILED, "", ended.reason, advice, str(log))]
    return rows_of(where, name, settings.steps, engine, dtype, ended.seconds, log)


def _obstacle(settings: Settings, engine: str) -> str:
    if engine == "hf_server":
        return ""
    if settings.on_cpu:
        return "needs a GPU; on a CPU only hf_server is tried"
    if importlib.util.find_spec(engine) is None:
        return "not installed; requirements.txt tells how"
    return ""


def _overrides(settings: Settings, engine: str, dtype: str) -> list[str]:
    return [
        f"{_ROLLOUT}.name={engine}",
        f"{_ROLLOUT}.dtype={dtype}",
        f"{_ROLLOUT}.engine_kwargs.hf_server.dtype={dtype}",
        # verl's FSDP engine computes in param_dtype, and float16 switches its loss scaling on.
        f"{_ACTOR}.dtype={dtype}",
        f"{_ACTOR}.mixed_precision.param_dtype={dtype}",
        # As in the recipes: the server gives its memory to the update and takes it back.
        f"{_ROLLOUT}.free_cache_engine=true",
        "cleaner.strategy=saar",
        "cleaner.failures.strict=true",
        f"trainer.total_training_steps={settings.steps}",
        f"trainer.save_freq={settings.steps}",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        *_ENGINE_OVERRIDES[engine],
        *settings.overrides,
    ]
