"""Reading a run directory: whole, half-written, resumed, empty, or not one at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cleaner.report.run_dir import NotARunDirectory, RunDirectory, set_aside_metrics


def test_steps_come_sorted_and_lines_of_one_step_are_merged(write_run: Callable[..., Path]) -> None:
    run = RunDirectory.open(write_run([(2, {"a": 1}), (0, {"b": 2}), (2, {"a": 3, "c": 4})]))
    assert [(entry.step, dict(entry.values)) for entry in run.steps] == [
        (0, {"b": 2.0}),
        (2, {"a": 3.0, "c": 4.0}),
    ]
    assert run.series("a") == [(2, 3.0)]
    assert run.names() == {"a", "b", "c"}


def test_only_finite_numbers_are_metrics(write_run: Callable[..., Path]) -> None:
    folder = write_run([])
    huge = "1" + "0" * 400
    data = f'{{"null": null, "text": "x", "list": [1], "nan": NaN, "huge": {huge}, "good": 1}}'
    (folder / "metrics.jsonl").write_text(f'{{"step": 1, "data": {data}}}\n')
    assert dict(RunDirectory.open(folder).steps[0].values) == {"good": 1.0}


def test_a_half_written_last_line_is_left_out_silently(write_run: Callable[..., Path]) -> None:
    folder = write_run([(1, {"a": 1})])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "data": {"a"')
    run = RunDirectory.open(folder)
    assert run.series("a") == [(1, 1.0)]
    assert run.warnings == []


def test_a_whole_last_line_without_newline_counts(write_run: Callable[..., Path]) -> None:
    folder = write_run([])
    (folder / "metrics.jsonl").write_text('{"step": 1, "data": {"a": 1}}')
    assert RunDirectory.open(folder).series("a") == [(1, 1.0)]


@pytest.mark.parametrize("junk", ['{"step": 2, "da', "[1, 2]", "\x00\x00", "[" * 100_000, "9" * 5000])
def test_a_broken_line_in_the_middle_is_left_out_and_told(write_run: Callable[..., Path], junk: str) -> None:
    folder = write_run([])
    (folder / "metrics.jsonl").write_text(
        f'{{"step": 1, "data": {{"a": 1}}}}\n{junk}\n{{"step": 3, "data": {{"a": 3}}}}\n'
    )
    run = RunDirectory.open(folder)
    assert run.series("a") == [(1, 1.0), (3, 3.0)]
    assert run.warnings == ["metrics.jsonl: 1 line(s) could not be read and were left out"]


def test_bytes_that_are_no_utf8_do_not_stop_the_reader(write_run: Callable[..., Path]) -> None:
    folder = write_run([(1, {"a": 1})])
    (folder / "trajectories.jsonl").write_bytes(b'{"uid": "\xff\xfe"}\n{"uid": "good"}\n')
    run = RunDirectory.open(folder)
    assert [record["uid"] for record in run.trajectories()] == ["good"]
    assert len(run.warnings) == 1


def test_a_resumed_run_replaces_what_came_after_its_checkpoint(write_run: Callable[..., Path]) -> None:
    folder = write_run([(step, {"a": step}) for step in range(5)])
    first = set_aside_metrics(folder)
    assert first is not None and first.name == "metrics.part-0001.jsonl"
    (folder / "metrics.jsonl").write_text('{"step": 2, "data": {"v": 9}}\n{"step": 3, "data": {"a": 30}}\n')
    run = RunDirectory.open(folder)
    assert run.series("a") == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0)]
    assert run.series("v") == [(2, 9.0)]
    second = set_aside_metrics(folder)
    assert second is not None and second.name == "metrics.part-0002.jsonl"
    assert RunDirectory.open(folder).series("a")[-1] == (3, 30.0)


def test_nothing_is_set_aside_where_nothing_was_logged(tmp_path: Path) -> None:
    assert set_aside_metrics(tmp_path) is None
    (tmp_path / "metrics.jsonl").touch()
    assert set_aside_metrics(tmp_path) is None


def test_an_empty_run_has_no_steps(write_run: Callable[..., Path]) -> None:
    run = RunDirectory.open(write_run([]))
    assert run.steps == [] and list(run.trajectories()) == [] and run.config == {} and run.phases == {}


def test_a_path_that_is_no_run_directory_is_refused_with_a_remedy(tmp_path: Path, quick_run: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for path, expected in (
        (tmp_path / "nowhere", "no such directory"),
        (tmp_path / "file", "a file, not a directory"),
        (tmp_path / "empty", "it has no metrics.jsonl"),
        (tmp_path, f"Did you mean {quick_run}"),
    ):
        with pytest.raises(NotARunDirectory) as caught:
            RunDirectory.open(path)
        assert expected in str(caught.value)


def test_phases_of_one_name_add_up_and_keep_their_order(write_run: Callable[..., Path]) -> None:
    folder = write_run([])
    rows = [("b", 1), ("a", 2.5), ("b", 3), ("bad", None)]
    lines = [json.dumps({"phase": phase, "seconds": seconds}) for phase, seconds in rows]
    (folder / "phases.jsonl").write_text("\n".join(lines))
    assert list(RunDirectory.open(folder).phases.items()) == [("b", 4.0), ("a", 2.5)]


def test_a_configuration_that_is_no_yaml_is_a_warning(quick_run: Path) -> None:
    assert RunDirectory.open(quick_run).setting("cleaner.saar.gamma") == 0.5
    assert RunDirectory.open(quick_run).setting("cleaner.saar.nothing.here", "default") == "default"
    (quick_run / "config.yaml").write_text("a: [")
    run = RunDirectory.open(quick_run)
    assert run.setting("cleaner.seed") is None
    assert run.warnings[0].startswith("config.yaml could not be read")
