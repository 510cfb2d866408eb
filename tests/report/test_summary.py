"""The summary's figures, from a run whose totals are known by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cleaner.report.run_dir import RunDirectory
from cleaner.report.summary import Change, step_seconds, summarise, write_summary


def test_before_and_after_are_the_first_and_the_last_validation(quick_run: Path) -> None:
    summary = summarise(RunDirectory.open(quick_run))
    assert summary.accuracy == Change(before=0.4, after=0.6, before_step=0, after_step=2)
    assert summary.first_attempt_success == Change(before=0.3, after=0.7, before_step=0, after_step=2)
    assert list(summary.accuracy_by_source) == ["reasoning_gym/gcd", "reasoning_gym/lcm"]


def test_rollbacks_are_totals_and_the_share_is_a_ratio_of_totals(quick_run: Path) -> None:
    rollbacks = summarise(RunDirectory.open(quick_run)).rollbacks
    counted = (
        rollbacks.triggered,
        rollbacks.recovered,
        rollbacks.exhausted,
        rollbacks.shallow,
        rollbacks.deep,
    )
    assert counted == (8, 6, 2, 4, 2)
    assert rollbacks.discarded_share == pytest.approx(0.1)


def test_failures_are_told_by_status_and_by_exception(quick_run: Path) -> None:
    summary = summarise(RunDirectory.open(quick_run))
    assert summary.failures == {"program_error": 6, "timeout": 2}
    assert summary.exceptions == {"NameError": 6}


def test_seconds_of_a_step_add_up_to_it() -> None:
    values = {
        "timing_s/step": 4.0,
        "timing_s/gen": 1.0,
        "timing_s/update_actor": 2.5,
        "timing_s/testing": 7.0,
    }
    assert step_seconds(values) == {"gen": 1.0, "update_actor": 2.5, "other": 0.5, "validation": 7.0}


def test_what_was_not_logged_is_none_and_not_zero(write_run: Callable[..., Path]) -> None:
    for steps in ([], [(1, {"loss": 0.1})]):
        summary = summarise(RunDirectory.open(write_run(steps, name=f"run{len(steps)}")))
        assert summary.accuracy is None and summary.first_attempt_success is None
        assert summary.rollbacks.triggered is None and summary.rollbacks.discarded_share is None


def test_a_run_that_generated_nothing_has_no_share(write_run: Callable[..., Path]) -> None:
    data = {"rollback/discarded_tokens": 0, "rollback/generated_tokens": 0}
    assert summarise(RunDirectory.open(write_run([(1, data)]))).rollbacks.discarded_share is None


def test_accuracy_falls_back_to_the_mean_over_data_sources(write_run: Callable[..., Path]) -> None:
    data = {"val-core/a/acc/mean@4": 0.2, "val-core/b/acc/mean@4": 0.6, "val-core/b/acc/best@4/mean": 1.0}
    accuracy = summarise(RunDirectory.open(write_run([(0, data)]))).accuracy
    assert accuracy is not None and accuracy.before == pytest.approx(0.4)


def test_the_written_summary_is_json_and_replaces_the_old_one_whole(quick_run: Path) -> None:
    run = RunDirectory.open(quick_run)
    path = write_summary(run)
    write_summary(run)
    loaded = json.loads(path.read_text())
    assert (
        loaded["schema"] == 1 and loaded["rollbacks"]["triggered"] == 8 and loaded["settings"]["gamma"] == 0.5
    )
    assert sorted(entry.name for entry in quick_run.glob("summary*")) == ["summary.json"]


def test_a_full_disk_leaves_the_old_summary_whole(quick_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory.open(quick_run)
    before = write_summary(run).read_text()

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_summary(run)
    assert (quick_run / "summary.json").read_text() == before


def test_the_names_are_those_that_the_statistics_log() -> None:
    statistics = pytest.importorskip("cleaner.saar.statistics")
    outcome = pytest.importorskip("cleaner.saar.outcome")
    from cleaner.report import metric_names as names

    one = statistics.TrajectoryStatistics(sampled_tokens=10, discarded_tokens=2)
    one.count_call(outcome.ToolOutcome("program_error", "NameError"), lookahead=False)
    logged = set(statistics.aggregate([one.to_dict()]))
    wanted = {
        *(names.TOOL_CALLS, names.TOOL_SUCCESS, names.FIRST_ATTEMPT, names.FAILURES + "NameError"),
        *(names.TRIGGERED, names.RECOVERED, names.EXHAUSTED, names.SHALLOW, names.DEEP),
        *(names.DISCARDED_TOKENS, names.LOOKAHEAD_TOKENS, names.LOOKAHEAD_SECONDS, names.GENERATED_TOKENS),
        *(names.DISCARDED_SHARE, names.PURIFIED_LENGTH, names.SAMPLED_LENGTH),
    }
    assert wanted <= logged, f"not logged any more: {sorted(wanted - logged)}"
