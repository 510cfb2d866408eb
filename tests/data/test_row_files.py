"""Files of rows: mixed kinds, errors that name the place, ids that are the same however they are read."""

import json

import pytest

from cleaner.data.check import main as check
from cleaner.data.row_files import check_mapped_rows, maps_rows, read_rows, table_of
from cleaner.data.row_ids import read_ids
from cleaner.errors import ConfigError
from cleaner.preflight import check_data


def test_a_file_may_mix_kinds(raw, write):
    """The rows of a file decide one by one; the first does not decide for all."""
    path = write(raw["math_dapo"], raw["code"], raw["math_dapo"])
    rows = list(read_rows(path, tool=True))
    assert [row["data_source"] for row in rows] == ["math_dapo", "train-code-taco-easy", "math_dapo"]
    assert "```python" in rows[1]["prompt"][0]["content"]
    assert "\\boxed" not in rows[1]["prompt"][0]["content"]
    assert check_mapped_rows(path) == 3


def test_rows_of_all_kinds_fit_into_one_table(raw):
    from cleaner.data.mapping import map_row

    rows = [map_row(row, number, tool=True) for number, row in enumerate(raw.values())]
    rows[0]["extra_info"]["mixed"], rows[1]["extra_info"]["mixed"] = 1, "one"
    table = table_of(rows).to_pylist()
    assert [row["extra_info"]["uid"] for row in table] == [row["extra_info"]["uid"] for row in rows]
    assert [json.loads(row["extra_info"]["mixed"]) for row in table[:2]] == [1, "one"]
    assert table[2]["extra_info"]["mixed"] is None
    assert all(isinstance(row["reward_model"]["ground_truth"], str) for row in table)


def test_an_odd_row_is_named_with_file_row_and_column(raw, write):
    rows = [raw["AIME2025"] | {"id": str(number)} for number in range(1500)]
    rows[1234] = rows[1234] | {"answer": ""}
    path = write(*rows)
    with pytest.raises(ConfigError, match=r"rows.parquet: row 1234, column 'answer': must be non-empty text"):
        check_mapped_rows(path)
    (problem,) = check_data([path], "data.val_files", mapped=True)
    assert str(problem).startswith(f"data.val_files {path}: row 1234, column 'answer'")


def test_a_missing_column_lists_what_is_there(raw, write):
    row = {("anwser" if key == "answer" else key): value for key, value in raw["AIME2025"].items()}
    with pytest.raises(
        ConfigError, match=r"row 0, column 'answer': is missing \(the row has: id, problem, anwser"
    ):
        check_mapped_rows(write(row))


def test_two_rows_with_one_id_are_refused(raw, write):
    path = write(raw["lcb"], {**raw["lcb"], "problem": "another"})
    with pytest.raises(ConfigError, match="row 1 has the id 'abc_387_a' of row 0"):
        check_mapped_rows(path)


def test_unreadable_and_empty_files_are_told(raw, write, tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        check_mapped_rows(tmp_path / "gone.parquet")
    path = write(raw["gpqa"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(ConfigError, match="not a readable parquet file"):
        check_mapped_rows(path)
    path.write_bytes(whole[:4] + bytes(60) + whole[64:])
    with pytest.raises(ConfigError, match="damaged at or after row 0"):
        check_mapped_rows(path)


@pytest.mark.parametrize("kinds", [["math_dapo", "code"], ["AIME2024"], ["AIME2025"], ["gpqa"], ["lcb"]])
def test_ids_read_without_the_rows_are_those_of_the_rows(raw, write, kinds):
    path = write(*(raw[kind] for kind in kinds))
    assert read_ids(path) == [row["extra_info"]["uid"] for row in read_rows(path, tool=True)]


def test_ids_of_rows_that_some_lack_are_numbers(raw, write):
    path = write(raw["code"] | {"uid": "a"}, raw["code"] | {"uid": None}, raw["code"] | {"uid": "c"})
    assert read_ids(path) == ["a", "1", "c"] == [row["extra_info"]["uid"] for row in read_rows(path, True)]


def test_only_runs_with_our_dataset_read_raw_rows():
    assert maps_rows({"custom_cls": {"path": "pkg://cleaner.data.dataset", "name": "ProblemDataset"}})
    assert not maps_rows({"custom_cls": {"path": None, "name": None}}) and not maps_rows({})


def test_the_check_command_counts_shows_and_goes_on_after_a_bad_file(raw, write, capsys):
    good = write(raw["code"], raw["math_dapo"], name="good.parquet")
    bad = write({**raw["gpqa"], "solution": "?"}, name="bad.parquet")
    assert check([str(bad), str(good), "--show", "1", "--no-tool"]) == 2
    out, err = capsys.readouterr()
    assert "bad.parquet: row 0, column 'solution'" in err and err.count("\n") == 1
    assert "good.parquet: 2 rows (train-code-taco-easy 1, math_dapo 1)" in out
    assert "[user] Add two numbers." in out
