"""The check of a parquet file names the file, the first bad row and its column."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cleaner.data.schema import check_rows
from cleaner.errors import ConfigError

MESSAGE = {"role": "user", "content": "1 + 1?"}


def good(**changes):
    row = {"prompt": [MESSAGE], "data_source": "x", "reward_model": {"style": "rule", "ground_truth": "2"}}
    return {**row, **changes}


def write(tmp_path: Path, rows) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_good_rows_are_counted(tmp_path):
    assert check_rows(write(tmp_path, [good(), good(), good()])) == 3
    assert check_rows(str(write(tmp_path, [good(agent_name="a", extra_info={"index": 0})]))) == 1


def test_multimodal_content_lists_pass(tmp_path):
    parts = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert check_rows(write(tmp_path, [good(prompt=parts)])) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"prompt": "2 + 2?"},
            r"row 0, column 'prompt': must be a list of chat messages, got str '2 \+ 2\?'",
        ),
        ({"prompt": []}, "column 'prompt': must not be an empty list"),
        ({"prompt": None}, "column 'prompt': must be a list of chat messages, got null"),
        (
            {"prompt": ["hi"]},
            "column 'prompt': message 0 must be an object with 'role' and 'content', got str 'hi'",
        ),
        ({"prompt": [{"role": "user", "text": "hi"}]}, r"message 0 has no 'content' \(it has: role, text\)"),
        ({"prompt": [{"role": 3, "content": "hi"}]}, "message 0: 'role' must be a string, got int 3"),
        ({"prompt": [{"role": "user", "content": 1.5}]}, "message 0: 'content' must be text, got float 1.5"),
        ({"reward_model": "2"}, "column 'reward_model': must be an object with 'ground_truth', got str '2'"),
        (
            {"reward_model": {"style": "rule"}},
            r"column 'reward_model': has no 'ground_truth' \(it has: style\)",
        ),
        ({"data_source": 7}, "column 'data_source': must be non-empty text, got int 7"),
        ({"data_source": ""}, "column 'data_source': must be non-empty text, got str ''"),
        ({"extra_info": "index 0"}, "column 'extra_info': must be an object, got str"),
    ],
)
def test_a_bad_value_is_named_with_file_row_and_column(tmp_path, change, message):
    path = write(tmp_path, [good(**change)])
    with pytest.raises(ConfigError, match=message) as caught:
        check_rows(path)
    assert str(path) in str(caught.value)


def test_the_first_bad_row_is_named_even_beyond_the_first_batch(tmp_path):
    rows = [good() for _ in range(5000)]
    rows[4321] = good(reward_model={"style": "rule", "ground_truth": None})
    with pytest.raises(ConfigError, match="row 4321, column 'reward_model'"):
        check_rows(write(tmp_path, rows))


def test_a_missing_column_lists_what_is_there_and_suggests(tmp_path):
    row = {("promt" if key == "prompt" else key): value for key, value in good().items()}
    path = write(tmp_path, [row])
    with pytest.raises(
        ConfigError, match=r"no column 'prompt'. Did you mean to rename 'promt'\? Columns: promt, "
    ):
        check_rows(path)
    with pytest.raises(ConfigError, match="no column 'agent_name'"):
        check_rows(write(tmp_path, [good()]), required=("prompt", "agent_name"))


def test_missing_files_folders_and_other_formats_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.parquet: no such file"):
        check_rows(tmp_path / "nowhere.parquet")
    with pytest.raises(ConfigError, match="is a folder"):
        check_rows(tmp_path)
    text = tmp_path / "rows.parquet"
    for content in ("", "a,b\n1,2\n"):
        text.write_text(content)
        with pytest.raises(ConfigError, match="not a readable parquet file"):
            check_rows(text)


def test_a_truncated_or_empty_file_is_refused(tmp_path):
    path = write(tmp_path, [good()])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="not a readable parquet file"):
        check_rows(path)
    pq.write_table(pa.Table.from_pylist([good()]).slice(0, 0), path)
    with pytest.raises(ConfigError, match="has no rows"):
        check_rows(path)


def test_max_rows_bounds_the_work(tmp_path):
    rows = [good() for _ in range(9000)]
    rows[8999] = good(data_source="")
    assert check_rows(write(tmp_path, rows), max_rows=100) == 9000
