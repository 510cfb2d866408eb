"""Reading: what is there, and where exactly it is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cleaner.errors import ConfigError
from cleaner.evaluation.samples import read_evaluation

Line = dict[str, Any]
Make = Callable[..., Any]


def test_a_run_directory_and_its_file_are_the_same_evaluation(problems: Make, write: Make) -> None:
    folder = write(problems({"a": [1, 0], "b": [1, 1]}), "my-run")
    by_folder, by_file = read_evaluation(folder), read_evaluation(folder / "samples.jsonl")
    assert by_folder == by_file and by_folder.name == "my-run"
    assert {label: [s.acc for s in group] for label, group in by_folder.problems["aime"].items()} == {
        "a": [1, 0],
        "b": [1, 1],
    }


def test_a_half_written_last_line_is_left_out(problems: Make, write: Make) -> None:
    folder = write(problems({"a": [1, 0]}), tail='{"data_source": "aime", "id"')
    assert len(list(read_evaluation(folder).samples)) == 2


def test_of_a_sample_that_was_made_twice_the_later_counts(line: Make, write: Make) -> None:
    run = read_evaluation(write([line(acc=0, left_out="infrastructure"), line(acc=1)]))
    assert [sample.acc for sample in run.samples] == [1]
    assert any("made twice" in warning for warning in run.warnings)


def test_the_last_step_is_read_unless_another_is_asked_for(line: Make, write: Make) -> None:
    folder = write([line(step=0, acc=0), line(step=20, acc=1)])
    assert [sample.acc for sample in read_evaluation(folder).samples] == [1]
    assert [sample.acc for sample in read_evaluation(folder, step=0).samples] == [0]
    with pytest.raises(ConfigError, match="no sample of step 7; there are steps 0, 20"):
        read_evaluation(folder, step=7)


def test_prompts_that_share_an_id_are_different_problems(line: Make, write: Make) -> None:
    run = read_evaluation(write([line(prompt_digest="one"), line(prompt_digest="two"), line(id="q")]))
    assert list(run.problems["aime"]) == ["p~one", "p~two", "q"]


def test_missing_samples_are_told(problems: Make, write: Make) -> None:
    run = read_evaluation(write(problems({"a": [1, 0], "b": [1]})))
    assert any("1 problems have fewer than 2 samples" in warning for warning in run.warnings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"acc": 0.5}, "line 2, key 'acc': must be 0 or 1, got 0.5. A share of passed tests is a score"),
        ({"acc": None}, "line 2, key 'acc': is null"),
        ({"acc": "yes"}, "line 2, key 'acc': must be a number or true or false or null, got \"yes\""),
        ({"sample": "0"}, "line 2, key 'sample': must be a whole number, got \"0\""),
        ({"sample": True}, "line 2, key 'sample': must be a whole number, got true"),
        ({"data_source": None}, "line 2, key 'data_source': must be text, got null"),
        ({"turns": 1.5}, "line 2, key 'turns': must be a whole number, got 1.5"),
        ({"saar": [1]}, "line 2, key 'saar': must be an object or null"),
        ({"saar": {"calls": "x"}}, "line 2, key 'saar.calls': must be a whole number"),
    ],
)
def test_an_odd_value_is_named_with_file_line_and_key(
    line: Make, write: Make, fields: Line, message: str
) -> None:
    folder = write([line(), line(**{"sample": 1, **fields})])
    with pytest.raises(ConfigError) as caught:
        read_evaluation(folder)
    assert str(folder / "samples.jsonl") in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize("key", ["data_source", "id", "sample", "acc"])
def test_a_missing_key_is_named(line: Make, write: Make, key: str) -> None:
    broken = line()
    del broken[key]
    with pytest.raises(ConfigError, match=f"line 1: no key '{key}'"):
        read_evaluation(write([broken]))


def test_a_line_that_is_no_json_is_an_error_in_the_middle(line: Make, write: Make) -> None:
    folder = write([line()], tail="{broken\n" + json.dumps(line(sample=1)) + "\n")
    with pytest.raises(ConfigError, match="line 2: not JSON"):
        read_evaluation(folder)


def test_verls_own_dump_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    path.write_text(json.dumps({"input": "?", "output": "7", "gts": "7", "score": 1.0, "step": 0}) + "\n")
    with pytest.raises(ConfigError, match="verl's own dump.*names no rows"):
        read_evaluation(path)


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or directory"):
        read_evaluation(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"has no samples\.jsonl.*trainer\.val_only=true"):
        read_evaluation(tmp_path)
    (tmp_path / "samples.jsonl").write_text("")
    with pytest.raises(ConfigError, match="holds no sample"):
        read_evaluation(tmp_path)
