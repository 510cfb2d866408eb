"""The quick start refuses what cannot work before it starts anything, and says what to do."""

import os
import subprocess
from pathlib import Path

import pytest
from quickstart_run import ROOT


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", f"recipe/cleaner/{script}"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("STEPS", "many", "STEPS=many must be a whole number"),
        ("STEPS", "0", "STEPS=0 must be at least 1"),
        ("MODEL", "gpt", "MODEL=gpt is unknown; use tiny or smollm2"),
        ("ENABLE_ROLLBACK", "yes", "ENABLE_ROLLBACK=yes must be 0 or 1"),
    ],
)
def test_a_bad_option_is_named(variable: str, value: str, message: str) -> None:
    result = run("quickstart.sh", **{variable: value})
    assert result.returncode == 2
    assert message in result.stderr


def test_resuming_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    result = run("quickstart.sh", RESUME="1", OUTPUT_DIR=str(tmp_path / "nothing"))
    assert result.returncode == 2
    assert "holds no checkpoint" in result.stderr


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_an_unsupported_python_is_refused_before_anything_is_installed(tmp_path: Path, version: str) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {version}\n")
    python.chmod(0o755)
    result = run("setup_cpu.sh", PYTHON=str(python))
    assert result.returncode == 2
    assert f"is Python {version}" in result.stderr and "3.11 or 3.12" in result.stderr


def test_help_names_every_option() -> None:
    printed = subprocess.run(
        ["bash", "recipe/cleaner/quickstart.sh", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for option in (
        "STEPS",
        "SEED",
        "ENABLE_ROLLBACK",
        "MODEL",
        "RESUME",
        "OUTPUT_DIR",
        "REDIS_URI",
        "DRY_RUN",
    ):
        assert f"  {option}" in printed
