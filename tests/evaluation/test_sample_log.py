"""The samples file after a kill, and what is left to do then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cleaner.evaluation.identity import prompt_digest, row_id
from cleaner.evaluation.sample_log import SampleLog
from cleaner.evaluation.unfinished import UnfinishedProblems, accuracy_by_source, rows_of

Make = Callable[..., Any]


def test_a_killed_run_leaves_no_broken_line_behind_once_it_goes_on(line: Make, tmp_path: Path) -> None:
    path = tmp_path / "run" / "samples.jsonl"
    SampleLog(path).append([line(sample=0), line(sample=1)])
    whole = path.read_bytes()
    for tail in (b'{"half', b'{"long": "' + b"x" * 200_000, b""):
        path.write_bytes(whole + tail)
        log = SampleLog(path)
        log.append([line(sample=2)])
        log.append([line(sample=3)])
        assert [json.loads(text)["sample"] for text in path.read_bytes().splitlines()] == [0, 1, 2, 3]
    path.write_bytes(b"nothing but a half line")
    SampleLog(path).append([line(sample=0)])
    assert [json.loads(text)["sample"] for text in path.read_bytes().splitlines()] == [0]


def test_a_problem_is_as_far_as_it_has_samples_of_this_step_that_count(line: Make, tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "samples.jsonl")
    assert log.finished(0) == {}
    log.append([line(sample=0), line(sample=1, left_out="infrastructure", acc=None)])
    log.append([line(id="q"), line(id="q", step=5)])
    assert log.finished(0) == {("aime", "p", "d"): 1, ("aime", "q", "d"): 1}
    log.append([line(sample=0), line(sample=1)])
    assert log.finished(0)["aime", "p", "d"] == 2
    assert len(log.lines(0)) == 3 and len(log.lines(5)) == 1


def test_a_full_disk_names_the_file() -> None:
    with pytest.raises(OSError, match="cannot write samples to /dev/full.*is not sampled again"):
        log = SampleLog(Path("/dev/full"))
        log._mended = True
        log.append([{"sample": 0}])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question_id": "3700", "extra_info": {"index": 4}, "index": 4}, "3700"),
        ({"extra_info": {"question_id": "abc", "uid": "u"}}, "abc"),
        ({"uid": "verl's own", "extra_info": {"uid": "u", "index": 4}}, "u"),
        ({"extra_info": {"index": np.int64(4)}, "index": 0}, "4"),
        ({"extra_info": None, "index": torch.tensor(3)}, "3"),
        ({"question_id": None, "extra_info": {}}, "0"),
    ],
)
def test_a_row_is_named_by_the_dataset_and_never_by_verl(row: dict[str, Any], expected: str) -> None:
    assert row_id(row) == expected


def test_a_prompt_has_one_digest_and_another_prompt_another() -> None:
    chat = [{"role": "user", "content": "2+2?"}]
    assert prompt_digest(chat) == prompt_digest(np.array(chat, dtype=object)) != prompt_digest([])
    assert len(prompt_digest([{"role": "user", "content": "\ud83d"}])) == 12
    assert prompt_digest([{"image": object()}]) == prompt_digest([{"image": object()}])


def batch_of(*ids: str, **columns: list[Any]) -> dict[str, Any]:
    """A batch of verl's validation data loader; every prompt is its id."""
    objects: dict[str, list[Any]] = {
        "raw_prompt": [[{"role": "user", "content": name}] for name in ids],
        "data_source": ["aime"] * len(ids),
        "extra_info": [{"index": name} for name in ids],
        **columns,
    }
    found = {name: np.fromiter(values, dtype=object, count=len(ids)) for name, values in objects.items()}
    return {**found, "dummy_tensor": torch.arange(len(ids))}


def done(name: str, samples: int) -> dict[tuple[str, str, str], int]:
    return {("aime", name, prompt_digest([{"role": "user", "content": name}])): samples}


def test_only_problems_with_too_few_samples_are_validated_again() -> None:
    batches = [batch_of("a", "b"), batch_of("c"), batch_of("d", "e")]
    finished = {**done("a", 4), **done("b", 3), **done("c", 4)}
    left = list(UnfinishedProblems(batches, finished, samples=4))
    assert [[extra["index"] for extra in batch["extra_info"]] for batch in left] == [["b"], ["d", "e"]]
    assert [batch["dummy_tensor"].tolist() for batch in left] == [[1], [0, 1]]


def test_a_row_that_asks_for_more_samples_gets_them() -> None:
    batch = batch_of("a", "b", __rollout_n__=[8, 4])
    [left] = UnfinishedProblems([batch], {**done("a", 4), **done("b", 4)}, samples=4)
    assert [extra["index"] for extra in left["extra_info"]] == ["a"]


def test_accuracy_is_of_the_samples_that_are_scored(problems: Make, line: Make) -> None:
    lines = problems({"a": [1, 0], "b": [0, 0]}) + [line(id="c", acc=None, left_out="unscored")]
    assert accuracy_by_source(lines) == {"val-core/aime/acc/mean@2": 0.25}
    assert [row["header"]["accuracy"] for row in rows_of(lines)] == [1, 0, 0, 0]
