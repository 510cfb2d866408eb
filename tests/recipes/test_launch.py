"""The scripts: help, environment, Ray and the judge; and that a dry run checks exactly what a real run would do."""

from pathlib import Path

import pytest
from recorded_recipe import RECIPES, ROOT, record, run_script

TRAINING = [f"{size}{arm}.sh" for size in ("qwen3_4b", "qwen2_7b") for arm in ("_cleaner", "", "_notool")]
EVALUATION = sorted(f"eval/{path.name}" for path in (RECIPES / "eval").glob("*.sh"))
ALL = [*TRAINING, *EVALUATION, "qwen3_4b_sft.sh"]


def refused(script: str, tmp_path: Path, **environment: str) -> str:
    """What a script says that ends with status 2 before anything is started."""
    result = run_script(script, folder=tmp_path, **{"PYTHON": "/bin/false", **environment})
    assert result.returncode == 2, result.stdout + result.stderr
    assert not (tmp_path / "output").exists()
    return result.stderr


def test_there_are_eleven_recipes() -> None:
    assert len(ALL) == 11 and all((RECIPES / script).stat().st_mode & 0o111 for script in ALL)


@pytest.mark.parametrize("script", ALL)
def test_help_explains_every_variable_and_starts_nothing(script: str, tmp_path: Path) -> None:
    result = run_script(script, "trainer.total_epochs=2", "--help", folder=tmp_path, PYTHON="/bin/false")
    assert result.returncode == 0, result.stderr
    for variable in (
        "MODEL_PATH=",
        "OUTPUT_DIR=",
        "NUM_GPUS=4",
        "NNODES=1",
        "SEED=1",
        "DRY_RUN=0",
        "RESUME_FROM",
    ):
        assert variable in result.stdout
    assert ("ENGINE=sglang" in result.stdout) is (script != "qwen3_4b_sft.sh")
    baseline = script in TRAINING and not script.endswith("_cleaner.sh")
    assert ("SINGLE_FACTOR=0" in result.stdout) is baseline
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("script", ["qwen3_4b_cleaner.sh", "eval/eval_qwen2_7b_aime_gpqa.sh"])
def test_a_dry_run_composes_what_the_real_run_would(script: str, tmp_path: Path) -> None:
    real = record(script, "a.b=1", folder=tmp_path)
    dry = record(script, "a.b=1", folder=tmp_path, DRY_RUN="1")
    assert (real.module, dry.module) == ("cleaner.main", "cleaner.dry_run")
    assert real.overrides == dry.overrides and real.overrides[-1] == "a.b=1"
    ignored = ("DRY_RUN", "_", "SHLVL", "PPID")
    assert {k: v for k, v in real.environment.items() if k not in ignored} == {
        k: v for k, v in dry.environment.items() if k not in ignored
    }


def test_the_judge_that_is_started_has_the_published_limits(tmp_path: Path) -> None:
    environment = record("qwen3_4b_cleaner.sh", folder=tmp_path).environment
    assert (environment["MAX_EXECUTION_TIME"], environment["MAX_MEMORY"]) == ("4", "256")


def test_without_a_key_wandb_writes_to_disk(tmp_path: Path) -> None:
    assert record("qwen3_4b.sh", folder=tmp_path).environment["WANDB_MODE"] == "offline"
    assert "WANDB_MODE" not in record("qwen3_4b.sh", folder=tmp_path, WANDB_API_KEY="x").environment
    assert (
        record("qwen3_4b.sh", folder=tmp_path, WANDB_MODE="disabled").environment["WANDB_MODE"] == "disabled"
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [("NUM_GPUS", "four"), ("NUM_GPUS", "0"), ("NNODES", "-1"), ("SEED", "1.5"), ("DRY_RUN", "yes"),
     ("ENGINE", "tgi"), ("SINGLE_FACTOR", "2"), ("RESUME_FROM", "/runs/latest"), ("KEEP_CHECKPOINTS", "all")],
)  # fmt: skip
def test_a_bad_variable_is_named(variable: str, value: str, tmp_path: Path) -> None:
    assert f"{variable}={value}" in refused("qwen3_4b.sh", tmp_path, **{variable: value})


def test_several_nodes_need_a_cluster_and_a_judge_that_they_reach(tmp_path: Path) -> None:
    judge = {"CODE_JUDGE_URL": "http://node1:8088"}
    assert "ray_cluster.sh" in refused("qwen3_4b.sh", tmp_path, NNODES="2", **judge)
    assert "CODE_JUDGE_URL" in refused("qwen3_4b.sh", tmp_path, NNODES="2", RAY_ADDRESS="node1:6379")


def test_a_cluster_gets_the_judge_and_no_secret(tmp_path: Path) -> None:
    secrets = {"WANDB_API_KEY": "key-1", "HF_TOKEN": "key-2", "CODE_JUDGE_TOKEN": "key-3"}
    shared = {
        "CODE_JUDGE_URL": "http://node1:8088",
        "HF_HOME": "/shared/hf",
        "CODE_JUDGE_TOKEN_FILE": "/shared/t",
    }
    given = {"RAY_ADDRESS": "node1:6379", "NNODES": "2", **shared, **secrets}
    command = record("qwen3_4b.sh", folder=tmp_path, **given).command
    for name in shared:
        assert f"+ray_kwargs.ray_init.runtime_env.env_vars.{name}=${{oc.env:{name}}}" in command
    assert not any(secret in " ".join(command) for secret in secrets.values())


def test_the_cold_start_runs_on_several_nodes(tmp_path: Path) -> None:
    assert "MASTER_ADDR" in refused("qwen3_4b_sft.sh", tmp_path, NNODES="2")
    assert "NODE_RANK=2" in refused("qwen3_4b_sft.sh", tmp_path, NNODES="2", MASTER_ADDR="n1", NODE_RANK="2")
    recorded = record(
        "qwen3_4b_sft.sh", folder=tmp_path, NNODES="2", NODE_RANK="1", MASTER_ADDR="n1", NUM_GPUS="8"
    )
    text = " ".join(recorded.command)
    assert "--nnodes 2 --node-rank 1 --nproc-per-node 8 --master-addr n1 --master-port 29500" in text
    assert recorded.module == "cleaner.sft"


@pytest.mark.parametrize(
    ("role", "command"),
    [("head", "ray start --head --port=6379 --num-gpus=8"), ("worker", "ray start --address=node1:6379"),
     ("judge", "code-judge serve --host 0.0.0.0 --port 8088"), ("judge-workers", "code-judge workers"),
     ("status", "ray status --address=node1:6379"), ("stop", "ray stop")],
)  # fmt: skip
def test_the_cluster_script_says_what_it_would_start(role: str, command: str, tmp_path: Path) -> None:
    given = {"DRY_RUN": "1", "NUM_GPUS": "8", "HEAD": "node1", "REDIS_URI": "redis://node1:6380"}
    result = run_script("ray_cluster.sh", role, folder=tmp_path, **given)
    assert result.returncode == 0, result.stderr
    assert command in result.stdout


def test_the_cluster_script_names_what_is_missing(tmp_path: Path) -> None:
    for role, missing in (
        ("worker", "HEAD"),
        ("judge-workers", "REDIS_URI"),
        ("boss", "role boss"),
        ("", "usage"),
    ):
        result = run_script("ray_cluster.sh", *[role][: len(role)], folder=tmp_path)
        assert result.returncode == 2 and missing in result.stderr


def test_a_script_prints_its_table_on_a_machine_without_gpu_engine_model_or_data(tmp_path: Path) -> None:
    result = run_script("eval/eval_qwen3_4b_aime_gpqa.sh", folder=tmp_path, DRY_RUN="1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("eval_qwen3_4b_aime_gpqa: valid for verl 0.9.1")
    assert "nothing was started" in result.stdout and not (tmp_path / "output").exists()


def test_a_script_that_verl_would_refuse_exits_with_status_2(tmp_path: Path) -> None:
    result = run_script("qwen3_4b_sft.sh", "+model.pth=x", folder=tmp_path, DRY_RUN="1")
    assert result.returncode == 2
    assert "did you mean 'path'" in result.stderr and "Traceback" not in result.stderr


def test_no_recipe_holds_a_key_of_anybody() -> None:
    for path in RECIPES.rglob("*"):
        if path.suffix in (".sh", ".yaml"):
            assert "WANDB_API_KEY=" not in path.read_text(), path.relative_to(ROOT)
