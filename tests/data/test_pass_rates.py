"""From an evaluation's samples to statistics: what was made again counts once, a fault never."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from cleaner.data.filter import main as filter_rows
from cleaner.data.pass_rates import main
from cleaner.data.statistics import read_rates


def sample(uid, number, acc, source="math_dapo", **changes):
    line = {"step": 0, "data_source": source, "id": uid, "prompt_digest": "d", "sample": number}
    score = None if acc is None else 2.0 * acc - 1
    return {**line, "acc": acc, "score": score, "left_out": None, **changes}


def write_samples(tmp_path: Path, *samples) -> Path:
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in samples))
    return path


def collect(tmp_path: Path, rows: Path) -> list[dict]:
    out = tmp_path / "pass_rates.jsonl"
    assert main([str(tmp_path), "--rows", str(rows), "--out", str(out)]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.fixture
def rows(raw, write):
    return write(raw["math_dapo"], raw["code"], raw["math_dapo"])


def test_each_row_has_one_line_in_the_order_of_the_file(tmp_path, rows):
    code = [sample("1", n, int(n < 8), "train-code-taco-easy") for n in range(8)]
    math = [sample("0", n, int(n < 2)) for n in range(8)]
    write_samples(tmp_path, *code, *math, *(sample("2", n, 0) for n in range(8)))
    first, second, third = collect(tmp_path, rows)
    assert first == {
        "uid": "0", "data_source": "math_dapo", "successes": 2, "attempts": 8, "success_rate": 0.25, "avg_score": -0.5,
        "keep": True,
    }  # fmt: skip
    assert (second["uid"], second["success_rate"], second["keep"]) == ("1", 1.0, False)
    assert (third["uid"], third["success_rate"], third["keep"]) == ("2", 0.0, True)


def test_a_sample_that_was_made_again_counts_once_and_a_fault_never(tmp_path, rows, capsys):
    lines = [sample("0", n, 1, left_out="infrastructure" if n == 3 else None) for n in range(8)]
    write_samples(tmp_path, *lines, sample("1", 0, None, "train-code-taco-easy", left_out="unscored"))
    assert [(line["uid"], line["attempts"]) for line in collect(tmp_path, rows)] == [("0", 7)]
    error = capsys.readouterr().err
    assert "2 rows have none" in error and "1, 2" in error
    again = [sample("0", n, int(n != 3)) for n in range(8)]
    write_samples(tmp_path, *lines, *again)
    assert [(line["successes"], line["attempts"]) for line in collect(tmp_path, rows)] == [(7, 8)]


def test_rows_with_fewer_attempts_are_named(tmp_path, rows, capsys):
    write_samples(tmp_path, *(sample("0", n, 1) for n in range(8)), *(sample("2", n, 0) for n in range(5)))
    collect(tmp_path, rows)
    assert "1 rows have fewer scored attempts (failed trajectories); the same command tries again: 2" in (
        capsys.readouterr().err
    )


def test_a_line_that_a_kill_cut_off_does_not_count(tmp_path, rows):
    path = write_samples(tmp_path, *(sample("0", n, 1) for n in range(8)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert [line["attempts"] for line in collect(tmp_path, rows)] == [7]
    path.write_bytes(whole)
    assert [line["attempts"] for line in collect(tmp_path, rows)] == [8]


def test_the_filter_reads_what_is_collected(tmp_path, rows, capsys):
    samples = [sample("0", n, int(n < 4)) for n in range(8)] + [sample("2", n, 1) for n in range(8)]
    write_samples(tmp_path, *samples)
    collect(tmp_path, rows)
    stats = tmp_path / "pass_rates.jsonl"
    assert read_rates(stats) == {"0": ("math_dapo", 0.5), "2": ("math_dapo", 1.0)}
    assert filter_rows(["--stats", str(stats), "--dataset", str(rows), "--output_dir", str(tmp_path)]) == 0
    assert "filtered_sr.parquet: 1 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([sample("0", 0, 0.5)], "line 1: no usable sample .*acc is 0.5, not 0 or 1"),
        ([{"id": "0"}], "line 1: no usable sample .*data_source"),
        ([sample("0", 0, 1), sample("0", 1, 1, step=5)], "samples of steps 0 and 5"),
        ([sample("99", 0, 1)], "holds no scored sample of the rows of"),
        ([], "holds no scored sample"),
    ],
)
def test_what_cannot_be_counted_is_an_error_and_no_file(tmp_path, rows, capsys, lines, message):
    write_samples(tmp_path, *lines)
    out = tmp_path / "out.jsonl"
    assert main([str(tmp_path), "--rows", str(rows), "--out", str(out)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()


def test_the_script_evaluates_the_training_rows_then_counts(tmp_path, rows):
    """A stand-in for the interpreter takes down what would run."""
    log, interpreter = tmp_path / "calls", tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\necho "$@" >>{log}\n')
    interpreter.chmod(0o755)
    given = {
        "PYTHON": str(interpreter), "TRAIN_FILE": str(rows), "OUTPUT_DIR": str(tmp_path / "out"), "SAMPLES": "4",
        "CODE_JUDGE_URL": "http://127.0.0.1:9", "HOME": str(tmp_path), "VAL_FILES": "/not/used", "DRY_RUN": "0",
    }  # fmt: skip
    script = Path(__file__).parents[2] / "recipe" / "cleaner" / "collect_pass_rates.sh"
    command = ["bash", str(script), "trainer.logger=[file]"]
    result = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    run, count = log.read_text().splitlines()
    assert "-m cleaner.main" in run and "trainer.val_only=true" in run and f"data.val_files=['{rows}']" in run
    assert (
        "val_kwargs.n=4" in run
        and "val_kwargs.top_p=1.0" in run
        and "cleaner.saar.rollback_in_validation=false" in run
    )
    assert run.endswith("trainer.logger=[file]")
    assert count == (
        f"-m cleaner.data.pass_rates {tmp_path}/out --rows {rows} --out {tmp_path}/out/pass_rates.jsonl"
    )
    interpreter.write_text(f'#!/bin/sh\necho "$@" >>{log}\nexit 3\n')
    result = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, timeout=60)
    assert result.returncode == 3
    assert len(log.read_text().splitlines()) == 3, "nothing is counted after a run that failed"
