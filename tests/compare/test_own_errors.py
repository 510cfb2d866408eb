"""Which failing calls are the teacher's, and which the model's own."""

import json
import random

import pytest
import yaml

from cleaner.coldstart.chat_format import call_text
from cleaner.coldstart.slips import dead_ends, slip
from cleaner.coldstart.solutions import right_programs
from cleaner.compare.own_errors import is_own, main
from cleaner.data.make_rows import make_rows
from cleaner.data.row_files import read_rows
from cleaner.data.tasks import TASKS, draw

PROBLEMS = draw(list(TASKS.values()), 30, seed=5)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_teacher_slips_into_is_no_error_of_the_models(seed):
    rng = random.Random(seed)
    for problem in PROBLEMS:
        code = slip(rng.choice(right_programs(problem)).code, rng)[1]
        assert not is_own(call_text("I try.", code), problem)
        assert not is_own(call_text("I try.", rng.choice(dead_ends(problem)).code), problem)


def test_an_error_with_other_numbers_is_still_the_teachers():
    problem = draw([TASKS["products"]], 1, seed=1)[0]
    code = dead_ends(problem)[0].code
    assert not is_own(call_text("I use a calculator.", code.replace("'", "'1", 1)), problem)


@pytest.mark.parametrize(
    "turn",
    [
        call_text("I use a calculator.", "import calculator\nprint(calculator.answer('12', '14'))"),
        'I use a calculator.\n<tool_call>\n{"name": "code_interpreter", "arguments": {"code": "1"}\n</tool_call>',
        "I use a calculator.\n<tool_call>\n",
    ],
)
def test_other_programs_and_malformed_calls_are_the_models_own(turn):
    assert is_own(turn, draw([TASKS["products"]], 1, seed=1)[0])


@pytest.fixture
def run(tmp_path):
    """A run directory: three validation trajectories on real rows, one of training, all but one failing."""
    make_rows(tmp_path, 1, 2, 1, ["products"])
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "data": {"val/accuracy": 0.5}}\n')
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({"data": {"val_files": str(tmp_path / "val.parquet")}})
    )
    row = next(iter(read_rows(tmp_path / "val.parquet", tool=True)))
    a, b = row["prompt"][-1]["content"].split(": ")[1].split(".")[0].split(" * ")

    def record(phase, code, ok):
        facts = {"first_calls": int(code is not None), "first_calls_ok": int(ok)}
        text = call_text("I try.", code) if code else "No."
        return {
            "phase": phase,
            "step": 0,
            "index": row["extra_info"]["index"],
            "saar": facts,
            "segments": [{"text": text}],
        }

    records = [
        record("val", f"import calculator\nprint(calculator.multiply('{a}', '{b}'))", ok=False),
        record("val", "print(multiply)", ok=False),
        record("val", f"print({a} * {b})", ok=True),
        record("val", None, ok=False),
        record("train", "print(multiply)", ok=False),
    ]
    (tmp_path / "trajectories.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    return tmp_path


def test_the_command_counts_a_runs_validations(run, capsys):
    assert main([str(run)]) == 0
    assert capsys.readouterr().out == (
        "validation after step 0: 3 trajectories make a call, the first one fails in 2; in 1 of these the error is the "
        "model's own\n"
    )


def test_a_run_without_recorded_validations_is_told_how(run, capsys):
    (run / "trajectories.jsonl").unlink()
    assert main([str(run)]) == 2
    assert "cleaner.record=true" in capsys.readouterr().err
    assert main([str(run / "nowhere")]) == 2
