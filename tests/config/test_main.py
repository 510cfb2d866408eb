"""`python -m cleaner.main`: what is wrong is said before anything starts, with exit status 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipe" / "cleaner"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    command = [
        sys.executable,
        "-m",
        "cleaner.data.make_rows",
        "--out",
        str(folder),
        "--train",
        "32",
        "--val",
        "8",
    ]
    subprocess.run([*command, "--seed", "1"], check=True, capture_output=True)
    return folder


def run_main(
    rows: Path, output: Path, *overrides: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "cleaner.main",
        "--config-dir",
        str(RECIPE),
        "--config-name",
        "quickstart",
    ]
    return subprocess.run(
        [*command, *overrides],
        env={
            **os.environ,
            "VERL_PLATFORM": "cpu",
            "OUTPUT_DIR": str(output),
            "ROWS": str(rows),
            "RECIPE_DIR": str(RECIPE),
            "MODEL_DIR": str(RECIPE / "quickstart" / "model"),
            "CODE_JUDGE_URL": "http://127.0.0.1:9",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_dry_run_prints_the_resolved_configuration_and_starts_nothing(rows: Path, tmp_path: Path) -> None:
    result = run_main(rows, tmp_path / "run", DRY_RUN="1")
    assert result.returncode == 0, result.stderr
    assert "trainer_mode: cleaner_sync" in result.stdout
    assert "${" not in result.stdout
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_every_problem_is_named_at_once(rows: Path, tmp_path: Path) -> None:
    result = run_main(
        rows, tmp_path / "run", "data.val_files=/nowhere.parquet", "actor_rollout_ref.model.path=/nomodel"
    )
    assert result.returncode == 2
    for place in ("data.val_files /nowhere.parquet", "model /nomodel", "judge http://127.0.0.1:9"):
        assert place in result.stderr
    assert "Traceback" not in result.stderr


def test_a_misspelt_key_exits_with_status_2_and_no_traceback(rows: Path, tmp_path: Path) -> None:
    result = run_main(rows, tmp_path / "run", "+cleaner.saar.gama=0.5")
    assert result.returncode == 2
    assert "Did you mean 'gamma'" in result.stderr and "Traceback" not in result.stderr


def test_a_run_is_never_overwritten_without_being_asked(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    result = run_main(rows, tmp_path)
    assert result.returncode == 2
    assert "already holds a run" in result.stderr
