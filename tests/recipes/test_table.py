"""All eleven scripts hold to the published values; what a dry run prints is what the configuration says."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from cleaner import dry_run, sft
from cleaner.config.decisions import sft_decisions
from cleaner.errors import ConfigError

Compose = Callable[..., DictConfig]

ACTOR, ROLLOUT, MODEL = (f"actor_rollout_ref.{name}" for name in ("actor", "rollout", "model"))
MULTI_TURN, ENGINE = f"{ROLLOUT}.multi_turn", f"{ACTOR}.fsdp_config"
CORRECTION = "algorithm.rollout_correction"

SHARED = {
    "data.max_prompt_length": 2560,
    "data.max_response_length": 20480,
    f"{ROLLOUT}.val_kwargs.do_sample": True,
    f"{ROLLOUT}.val_kwargs.temperature": 1.0,
    f"{ROLLOUT}.val_kwargs.top_p": 0.6,
    f"{ROLLOUT}.val_kwargs.n": 16,
    f"{ROLLOUT}.name": "sglang",
    f"{ROLLOUT}.mode": "async",
    f"{ROLLOUT}.dtype": "float16",
    f"{ROLLOUT}.tensor_model_parallel_size": 1,
    f"{ENGINE}.mixed_precision.param_dtype": "float16",
    f"{ENGINE}.param_offload": True,
    f"{ENGINE}.optimizer_offload": True,
    f"{ENGINE}.strategy": "fsdp2",
    f"{ACTOR}.strategy": "fsdp2",
    f"{ACTOR}.ulysses_sequence_parallel_size": 1,
    f"{ACTOR}.use_dynamic_bsz": True,
    f"{ACTOR}.ppo_max_token_len_per_gpu": 23_040,
    f"{ROLLOUT}.log_prob_use_dynamic_bsz": True,
    f"{ROLLOUT}.log_prob_max_token_len_per_gpu": 4 * 23_040,
    f"{MODEL}.enable_gradient_checkpointing": True,
    f"{MODEL}.use_remove_padding": True,
    f"{MODEL}.use_fused_kernels": True,
    f"{MODEL}.fused_kernel_options.impl_backend": "triton",
    "trainer.n_gpus_per_node": 4,
    "trainer.nnodes": 1,
    "cleaner.seed": 1,
}
TRAINING = {
    **SHARED,
    "data.train_batch_size": 128,
    f"{ROLLOUT}.n": 16,
    f"{ACTOR}.ppo_mini_batch_size": 32,
    f"{ACTOR}.optim.lr_warmup_steps": 20,
    f"{ACTOR}.optim.clip_grad": 1.0,
    f"{ACTOR}.clip_ratio_low": 0.2,
    f"{ACTOR}.clip_ratio_high": 0.28,
    f"{ACTOR}.clip_ratio_c": 10.0,
    f"{ACTOR}.loss_agg_mode": "token-mean",
    f"{ACTOR}.use_kl_loss": False,
    "algorithm.use_kl_in_reward": False,
    "algorithm.adv_estimator": "grpo",
    f"{ROLLOUT}.temperature": 1.0,
    f"{ROLLOUT}.top_p": 1.0,
    "trainer.total_epochs": 1,
    "trainer.total_training_steps": None,
    "trainer.save_freq": 10,
    "trainer.test_freq": 10,
    "trainer.val_only": False,
    "reward.reward_kwargs.overlong_buffer_cfg": {"enable": True, "len": 4096, "penalty_factor": 1.0, "log": True},
    "reward.reward_kwargs.max_resp_len": 20480,
    # The original kept no training rollouts.
    "cleaner.record": True,
}  # fmt: skip
TOOL = {
    f"{MULTI_TURN}.enable": True,
    f"{MULTI_TURN}.format": "hermes",
    f"{MULTI_TURN}.max_user_turns": 16,
    f"{MULTI_TURN}.max_assistant_turns": 16,
    # The original cut a tool's response to 256 characters.
    f"{MULTI_TURN}.max_tool_response_length": 16384,
    f"{ROLLOUT}.agent.default_agent_loop": "cleaner_agent",
}
NO_TOOL = {
    f"{MULTI_TURN}.enable": False,
    f"{MULTI_TURN}.tool_config_path": None,
    f"{ROLLOUT}.agent.default_agent_loop": "single_turn_agent",
}
PURIFIED = {
    "cleaner.strategy": "saar",
    "cleaner.saar.max_retries": 3,
    "cleaner.saar.gamma": 0.5,
    "cleaner.saar.rollback_in_validation": False,
    f"{CORRECTION}.rollout_is": None,
    f"{ROLLOUT}.calculate_log_probs": False,
    f"{ROLLOUT}.gpu_memory_utilization": 0.8,
}
BASELINE = {
    "cleaner.strategy": "none",
    f"{CORRECTION}.rollout_is": "sequence",
    f"{CORRECTION}.rollout_is_threshold": 2.0,
    f"{ROLLOUT}.calculate_log_probs": True,
    f"{ROLLOUT}.gpu_memory_utilization": 0.65,
}
SMALL = {f"{MODEL}.path": "Gen-Verse/Qwen3-4B-RA-SFT", f"{ACTOR}.optim.lr": 2e-6}
LARGE = {f"{MODEL}.path": "Gen-Verse/Qwen2.5-7B-RA-SFT", f"{ACTOR}.optim.lr": 1e-6}
EVALUATION = {
    **SHARED,
    **TOOL,
    "trainer.val_only": True,
    "trainer.val_before_train": True,
    "cleaner.strategy": "none",
    "reward.reward_kwargs.overlong_buffer_cfg.enable": False,
}
TEN = {f"{ROLLOUT}.val_kwargs.n": 10}

SCRIPTS = {
    "qwen3_4b_cleaner.sh": {**TRAINING, **TOOL, **PURIFIED, **SMALL, "cleaner.saar.rollback_probability": 1.0},
    "qwen3_4b.sh": {**TRAINING, **TOOL, **BASELINE, **SMALL},
    "qwen3_4b_notool.sh": {**TRAINING, **NO_TOOL, **BASELINE, **SMALL},
    "qwen2_7b_cleaner.sh": {**TRAINING, **TOOL, **PURIFIED, **LARGE, "cleaner.saar.rollback_probability": 0.7},
    "qwen2_7b.sh": {**TRAINING, **TOOL, **BASELINE, **LARGE},
    "qwen2_7b_notool.sh": {**TRAINING, **NO_TOOL, **BASELINE, **LARGE},
    "eval/eval_qwen3_4b_aime_gpqa.sh": EVALUATION | {f"{MODEL}.path": SMALL[f"{MODEL}.path"]},
    "eval/eval_qwen2_7b_aime_gpqa.sh": EVALUATION | {f"{MODEL}.path": LARGE[f"{MODEL}.path"]},
    "eval/eval_qwen3_4b_livecodebench.sh": EVALUATION | {f"{MODEL}.path": SMALL[f"{MODEL}.path"]} | TEN,
    "eval/eval_qwen2_7b_livecodebench.sh": EVALUATION | {f"{MODEL}.path": LARGE[f"{MODEL}.path"]} | TEN,
}  # fmt: skip


def values(config: DictConfig, wanted: dict[str, Any]) -> dict[str, Any]:
    found = {key: OmegaConf.select(config, key) for key in wanted}
    return {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in found.items()}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_decides_what_was_published(composed: Compose, script: str) -> None:
    config = composed(script)
    report = dry_run.examine(config)
    assert values(config, SCRIPTS[script]) == SCRIPTS[script]
    printed = report.text("recipe")
    for text in ("float16, with loss scaling / float16", "2560 / 20,480", "on: 23,040 / 92,160"):
        assert text in printed
    assert config.trainer.logger == ["console", "wandb", "file"]
    # Neither data nor model nor GPU is needed.
    assert "no such file" in printed and "not in the hub cache" in printed


def test_the_cold_start_decides_what_was_published(composed: Compose) -> None:
    config = composed("qwen3_4b_sft.sh")
    assert sft.prepare(config)
    wanted = {
        "model.path": "Qwen/Qwen3-4B-Instruct-2507",
        "data.max_length": 32768,
        "data.truncation": "right",
        "data.train_batch_size": 32,
        "data.messages_key": "messages",
        "data.tools_key": "tools",
        "engine.strategy": "fsdp2",
        "engine.ulysses_sequence_parallel_size": 4,
        "model.use_remove_padding": True,
        "trainer.total_epochs": 5,
        "trainer.save_freq": "after_each_epoch",
    }
    assert values(config, wanted) == wanted
    assert "hf_model" in config.checkpoint.save_contents
    assert {row.what: row.value for row in sft_decisions(config)}["dtype"] == "bfloat16"


def test_a_dry_run_says_how_many_steps_the_rows_give(composed: Compose, tmp_path: Path) -> None:
    row = {
        "prompt": [{"role": "user", "content": "?"}],
        "data_source": "math_dapo",
        "reward_model": {"ground_truth": "1"},
    }
    for script, rows, steps in (
        ("qwen3_4b_cleaner.sh", 30_128, 235),
        ("qwen2_7b_cleaner.sh", 15_353, 119),
    ):
        file = tmp_path / f"{rows}.parquet"
        pq.write_table(pa.Table.from_pylist([row] * rows), file)
        report = dry_run.examine(composed(script, TRAIN_FILE=str(file)))
        assert f"{rows:,} / {steps}" in report.text("recipe")


def test_a_single_factor_baseline_differs_from_cleaner_in_rollback_alone(composed: Compose) -> None:
    purified = flat(composed("qwen2_7b_cleaner.sh"))
    baseline = flat(composed("qwen2_7b.sh", SINGLE_FACTOR="1"))
    differing = {key for key in purified if purified[key] != baseline[key]}
    # The runs' names, and a probability that nothing reads where nothing is rolled back.
    differing = {key for key in differing if not key.endswith(("experiment_name", "rollback_probability"))}
    assert differing == {"cleaner.strategy"}


def test_an_evaluation_with_look_ahead_rolls_back_in_validation(composed: Compose) -> None:
    config = composed("eval/eval_qwen3_4b_aime_gpqa.sh", LOOKAHEAD="1")
    dry_run.examine(config)
    assert (config.cleaner.strategy, config.cleaner.saar.rollback_in_validation) == ("saar", True)


def test_the_command_line_wins_over_the_script(composed: Compose) -> None:
    lr = f"{ACTOR}.optim.lr=5e-7"
    config = composed("qwen3_4b_cleaner.sh", lr, "cleaner.strategy=none", "trainer.n_gpus_per_node=8")
    dry_run.examine(config)
    assert (config.actor_rollout_ref.actor.optim.lr, config.cleaner.strategy) == (5e-7, "none")
    assert config.trainer.n_gpus_per_node == 8


def test_the_environment_sets_paths_and_sizes(composed: Compose) -> None:
    config = composed(
        "qwen3_4b_cleaner.sh",
        ENGINE="vllm",
        NUM_GPUS="8",
        NNODES="2",
        SEED="7",
        MODEL_PATH="/models/with space=1",
        TRAIN_FILE="/data/a,b.parquet",
        VAL_FILES="/data/one two.parquet,/data/x=y.parquet",
        RESUME_FROM="/runs/a/checkpoints/global_step_20",
    )
    dry_run.examine(config)
    assert config.actor_rollout_ref.rollout.name == "vllm"
    assert (config.trainer.n_gpus_per_node, config.trainer.nnodes, config.cleaner.seed) == (8, 2, 7)
    assert config.actor_rollout_ref.model.path == "/models/with space=1"
    assert config.data.train_files == "/data/a,b.parquet"
    assert config.data.val_files == ["/data/one two.parquet", "/data/x=y.parquet"]
    assert (config.trainer.resume_mode, config.trainer.resume_from_path) == (
        "resume_path",
        "/runs/a/checkpoints/global_step_20",
    )


def test_the_documented_keys_work_unchanged(composed: Compose) -> None:
    config = composed(
        "qwen3_4b.sh",
        f"+{MULTI_TURN}.enable_tool_rollback=true",
        f"+{MULTI_TURN}.max_tool_retries=5",
        f"+{MULTI_TURN}.rollback_on_errors=[NameError]",
        SINGLE_FACTOR="1",
    )
    dry_run.examine(config)
    assert config.cleaner.strategy == "saar"
    assert (config.cleaner.saar.max_retries, config.cleaner.saar.rollback_on) == (5, ["NameError"])


REFUSED = {
    "cleaner.saar.gamma=2": "gamma",
    "+cleaner.saar.gama=0.5": "did you mean",
    "+data.max_promt_length=1": "max_prompt_length",
    f"{ROLLOUT}.dtype=float15": "float16",
    f"{ENGINE}.mixed_precision.param_dtype=fp4": "param_dtype",
    f"{ENGINE}.mixed_precision=null": "would have no effect",
    f"{CORRECTION}.rollout_is=sequence": "grafted tokens",
    f"{ACTOR}.loss_agg_mode=mean": "loss_agg_mode",
    f"{ACTOR}.ppo_mini_batch_size=256": "larger than data.train_batch_size",
    f"{ACTOR}.ppo_max_token_len_per_gpu=8192": "23040",
    "trainer.n_gpus_per_node=3": "data-parallel ranks",
    f"{ROLLOUT}.tensor_model_parallel_size=3": "does not divide",
    f"{ROLLOUT}.max_model_len=16384": "23040 tokens",
    f"+{ROLLOUT}.gpu_memory=0.8": "gpu_memory_utilization",
    f"{MODEL}.use_fused_kernels=perhaps": f"{MODEL}",
    "reward.reward_manager.name=daapo": "reward_manager",
    "reward.custom_reward_function={path: 'pkg://cleaner.rewards.quickstart', name: score_it}": "score_it",
}


@pytest.fixture(scope="module")
def once() -> dict[str, DictConfig]:
    """Composed configurations by script: changing a copy is quicker than composing anew."""
    return {}


def changed(composed: Compose, once: dict[str, DictConfig], script: str, override: str) -> DictConfig:
    """The configuration of a script with one override more."""
    if script not in once:
        once[script] = composed(script)
        OmegaConf.resolve(once[script])
    config = copy.deepcopy(once[script])
    parsed = OverridesParser.create().parse_override(override)
    OmegaConf.update(config, parsed.key_or_group, parsed.value(), merge=False, force_add=True)
    return config


@pytest.mark.parametrize("override", REFUSED)
def test_what_verl_or_we_could_not_run_is_refused(
    composed: Compose, once: dict[str, DictConfig], override: str
) -> None:
    with pytest.raises(ConfigError, match=rf"(?i){REFUSED[override].replace('.', '[.]')}"):
        dry_run.examine(changed(composed, once, "qwen3_4b_cleaner.sh", override))


REFUSED_IN_SFT = {
    "data.max_token_len_per_gpu=4096": "8192 or more",
    "engine.ulysses_sequence_parallel_size=3": "does not divide",
    "data.train_batch_size=33": "data-parallel ranks",
    "trainer.test_freq=10": "nothing to test on",
    "+data.multiturn.enable=true": "data.multiturn",
    "optim.lr_scheduler_type=linear": "optim",
}


@pytest.mark.parametrize("override", REFUSED_IN_SFT)
def test_a_cold_start_that_could_not_run_is_refused(
    composed: Compose, once: dict[str, DictConfig], override: str
) -> None:
    config = changed(composed, once, "qwen3_4b_sft.sh", override)
    if "batch_size" in override:
        # Several ranks, so that the batch has to be shared.
        config.engine.ulysses_sequence_parallel_size, config.data.max_token_len_per_gpu = 2, 16384
    with pytest.raises(ConfigError, match=REFUSED_IN_SFT[override].replace(".", "[.]")):
        sft.prepare(config)


def flat(config: DictConfig) -> dict[str, Any]:
    """Every leaf of the resolved configuration by its path."""

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            for key, below in node.items():
                walk(below, f"{path}.{key}" if path else str(key))
        else:
            leaves[path] = node

    leaves: dict[str, Any] = {}
    walk(OmegaConf.to_container(config, resolve=True), "")
    return leaves
