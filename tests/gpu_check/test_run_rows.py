"""What a run directory says becomes rows: what is wrong fails, and says so."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cleaner.gpu_check.row import FAILED, NOTE, OK, Row
from cleaner.gpu_check.run_rows import EPSILON, rows_of, tolerances

GOOD = {
    "timing_s/step": 2.0,
    "timing_s/gen": 1.5,
    "actor/grad_norm": 0.2,
    "rollback/triggered": 9.0,
    "rollback/recovered": 6.0,
    "rollback/generated_tokens": 3000.0,
    "rollback/lookahead_seconds_share": 0.4,
    "rollout/logprob_diff/tokens": 1000.0,
    "rollout/logprob_diff/mean": 5e-4,
    "rollout/logprob_diff/p99.5": 1e-2,
    "rollout/logprob_diff/max": 0.5,
    "perf/lookahead_cached_share": 0.8,
}


def rows(
    folder: Path, *changes: dict[str, Any], dtype: str = "float16", saved: bool = True
) -> dict[str, Row]:
    """Rows of a run of three steps; step i differs from a good one by `changes[i]`, None takes a value away."""
    folder.mkdir(exist_ok=True)
    steps = [{**GOOD, **(changes[i] if i < len(changes) else {})} for i in range(3)]
    lines = [
        json.dumps(
            {"step": i + 1, "data": {name: value for name, value in step.items() if value is not None}}
        )
        for i, step in enumerate(steps)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if saved:
        model = folder / "checkpoints/global_step_3/actor/huggingface"
        model.mkdir(parents=True, exist_ok=True)
        (model / "model.safetensors").touch()
    found = rows_of(folder, "run", 3, "hf_server", dtype, 60.0, folder / "log")
    return {row.check.removeprefix("run: "): row for row in found}


def test_a_good_run_has_no_failing_row_and_tells_its_figures(tmp_path: Path) -> None:
    # The first step, in which kernels are compiled, is no measure of speed.
    found = rows(tmp_path, {"timing_s/step": 90.0, "timing_s/gen": 80.0})
    assert {name: row.result for name, row in found.items()} == {
        "training": OK, "updates": OK, "rollback": OK, "log-probs": OK,
        "speed": NOTE, "look-ahead time": NOTE, "prefix cache": NOTE,
    }  # fmt: skip
    assert found["speed"].figure.startswith("2000 generated tokens/s")
    assert "2.0 s each" in found["training"].figure and "18 recovered" in found["rollback"].figure
    assert found["look-ahead time"].figure.startswith("40%") and found["prefix cache"].figure.startswith(
        "80%"
    )
    assert "max 0.5" in found["log-probs"].figure and "3000 un-grafted tokens" in found["log-probs"].figure


@pytest.mark.parametrize("dtype", list(EPSILON))
def test_log_probabilities_fail_beyond_what_the_format_rounds(tmp_path: Path, dtype: str) -> None:
    mean, percentile = tolerances(dtype)
    names = ("rollout/logprob_diff/mean", "rollout/logprob_diff/p99.5")

    def result(*factors: float) -> str:
        values = zip(names, (mean, percentile), factors, strict=True)
        step = {name: bound * factor for name, bound, factor in values}
        return rows(tmp_path, step, step, step, dtype=dtype)["log-probs"].result

    assert result(0.99, 0.99) == OK
    assert result(1.01, 0.99) == result(0.99, 1.01) == FAILED


def test_a_difference_that_is_no_number_is_no_small_difference(tmp_path: Path) -> None:
    assert rows(tmp_path, {}, {"rollout/logprob_diff/mean": math.nan})["log-probs"].result == FAILED
    silent = {name: None for name in GOOD if "logprob_diff" in name}
    assert rows(tmp_path, silent, silent, silent)["log-probs"].result == FAILED


def test_overflow_is_how_float16_finds_its_scale_and_a_fault_elsewhere(tmp_path: Path) -> None:
    overflow = {"actor/grad_norm": math.inf}
    assert rows(tmp_path, overflow)["updates"].result == NOTE
    assert rows(tmp_path, overflow, dtype="bfloat16")["updates"].result == FAILED
    never = rows(tmp_path, overflow, overflow, overflow)["updates"]
    assert never.result == FAILED and "STEPS" in never.advice


def test_too_few_steps_and_a_missing_model_fail(tmp_path: Path) -> None:
    short = rows(tmp_path / "short", {"timing_s/step": None})
    assert short["training"].result == FAILED and "2 of 3" in short["training"].reason
    assert rows(tmp_path / "unsaved", saved=False)["training"].result == FAILED
    [nothing] = rows_of(tmp_path / "nowhere", "run", 3, "hf_server", "float16", 1.0, tmp_path / "log")
    assert nothing.result == FAILED


def test_what_an_engine_does_not_report_and_what_did_not_happen_is_said(tmp_path: Path) -> None:
    quiet = {"perf/lookahead_cached_share": None, "rollback/recovered": 0.0}
    found = rows(tmp_path, quiet, quiet, quiet)
    assert found["prefix cache"].figure == "not reported by the engine"
    assert found["rollback"].result == NOTE and found["rollback"].advice
