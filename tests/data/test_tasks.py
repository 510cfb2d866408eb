"""Problems and rows: valid, reproducible, disjoint, and refused with a clear error when the request is wrong."""

import itertools
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import reasoning_gym

from cleaner.data import make_rows as rows_module
from cleaner.data.make_rows import AGENT_NAME, main, make_rows, write_parquet
from cleaner.data.schema import check_rows
from cleaner.data.tasks import TASKS, Task, draw, draw_splits, select_tasks, stream
from cleaner.errors import ConfigError

ALL = list(TASKS.values())


def test_every_reference_answer_gets_full_marks_from_its_own_verifier():
    for problem in draw(ALL, 60, seed=3):
        entry = {"question": problem.question, "answer": problem.answer, "metadata": problem.metadata}
        assert reasoning_gym.get_score_answer_fn(problem.task)(problem.answer, entry) == 1.0


def test_the_same_seed_gives_the_same_problems_and_another_seed_others():
    assert draw(ALL, 30, seed=5) == draw(ALL, 30, seed=5)
    assert {p.question for p in draw(ALL, 30, seed=5)} != {p.question for p in draw(ALL, 30, seed=6)}


def test_tasks_get_equal_shares():
    counts = [sum(p.task == name for p in draw(ALL, 20, seed=0)) for name in TASKS]
    assert sum(counts) == 20
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_no_question_occurs_twice_within_or_across_the_splits(seed):
    train, val = draw_splits(ALL, 300, 60, seed)
    questions = [p.question for p in train + val]
    assert len(set(questions)) == len(questions) == 360


def test_validation_questions_do_not_depend_on_the_number_of_training_rows():
    assert draw_splits(ALL, 10, 24, seed=2)[1] == draw_splits(ALL, 100, 24, seed=2)[1]


def test_validation_shares_few_questions_with_a_cold_start_of_the_same_seed():
    """Chance repeats are left (a few thousand two-digit pairs exist); it must not be the same sequence of problems."""
    cold_start = {p.question for p in draw(ALL, 600, seed=0)}
    val = draw_splits(ALL, 1, 120, seed=0)[1]
    assert sum(p.question in cold_start for p in val) < 12


def test_a_task_that_runs_out_of_questions_says_so_instead_of_looping():
    small = Task("gcd", {"min_value": 10, "max_value": 12})
    with pytest.raises(ConfigError, match="'gcd' has no more new questions after"):
        list(itertools.islice(stream(small, seed=0), 50))


def test_unknown_empty_and_repeated_tasks_are_refused():
    with pytest.raises(ConfigError, match="unknown task 'gdc'.*Did you mean 'gcd'"):
        select_tasks(["gdc"])
    with pytest.raises(ConfigError, match="no task selected"):
        select_tasks([])
    with pytest.raises(ConfigError, match="'lcm' is selected more than once"):
        select_tasks(["lcm", "gcd", "lcm"])


def test_files_hold_valid_rows_in_verls_format(tmp_path: Path):
    train, val = make_rows(tmp_path, train=18, val=6, seed=0)
    assert (check_rows(train), check_rows(val)) == (18, 6)
    table = pq.read_table(train).to_pylist()
    assert [row["extra_info"]["index"] for row in table] == list(range(18))
    for row in table:
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        assert row["agent_name"] == AGENT_NAME
        assert row["reward_model"]["style"] == "rule"
        assert row["data_source"] == f"reasoning_gym/{row['extra_info']['task']}"
        assert row["extra_info"]["split"] == "train"
        assert json.loads(row["extra_info"]["metadata"])["source_dataset"] == row["extra_info"]["task"]


def test_the_same_command_writes_the_same_bytes(tmp_path: Path):
    first = [path.read_bytes() for path in make_rows(tmp_path / "a", 12, 6, seed=4)]
    second = [path.read_bytes() for path in make_rows(tmp_path / "b", 12, 6, seed=4)]
    assert first == second


def test_a_failed_write_keeps_the_old_file_and_leaves_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "train.parquet"
    path.write_bytes(b"old")

    def full_disk(table, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rows_module.pq, "write_table", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_parquet([{"a": 1}], path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["train.parquet"]
    with pytest.raises(ConfigError, match="cannot write rows to .*No space left on device"):
        make_rows(tmp_path, 3, 3, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train", "0"], "--train must be 1 or more, got 0"),
        (["--val", "-3"], "--val must be 1 or more, got -3"),
        (["--tasks", "prodcts"], "Did you mean 'products'?"),
    ],
)
def test_the_command_line_explains_bad_input_and_writes_nothing(tmp_path: Path, capsys, options, message):
    out = tmp_path / "rows"
    assert main(["--out", str(out), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_the_command_line_writes_the_tasks_asked_for(tmp_path: Path, capsys):
    assert main(["--out", str(tmp_path), "--train", "4", "--val", "2", "--tasks", "gcd", "lcm"]) == 0
    sources = {row["data_source"] for row in pq.read_table(tmp_path / "train.parquet").to_pylist()}
    assert sources == {"reasoning_gym/gcd", "reasoning_gym/lcm"}
    assert "train.parquet: 4 rows" in capsys.readouterr().out
