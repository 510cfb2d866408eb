"""Any metric of the validations can be compared, from what is kept beside the results."""

import json

import pytest

from cleaner.compare.archive import ARCHIVE, keep
from cleaner.compare.metric import lines, main, names, read_runs
from cleaner.compare.store import Store
from cleaner.errors import ConfigError

CALLS = "val/tool_calls/total"
ERRORS = "val/tool_calls/failure/ValueError"


@pytest.fixture
def results(plan_of, tmp_path):
    """Results of two arms and two seeds: calls 10 -> 6 and 8, with the arm always 2 below; errors in one validation."""
    plan, store = plan_of(), Store(tmp_path / "runs")
    for run in plan.runs:
        path = store.begin(run, ["train"])
        less = 2 if run.arm.name == "saar" else 0
        logs = []
        for step, calls in enumerate((10, 7, 5, 7)):
            data = {"val/accuracy": 0.5, CALLS: calls + 2 * run.seed - 2 - less * (step > 0), "actor/lr": 1.0}
            if step == 3 and run.arm.name == "saar":
                data[ERRORS] = 4.0 * run.seed
            logs.append(json.dumps({"step": step, "data": data}))
            logs.append(json.dumps({"step": step, "data": {"actor/lr": 1.0}}))
        (path / "metrics.jsonl").write_text("\n".join(logs) + "\n")
        store.end(run, "finished", 60.0, 0)
    folder = tmp_path / "results"
    folder.mkdir()
    keep(plan, store, folder / ARCHIVE)
    return folder


def test_ends_are_means_of_the_last_two_validations_and_differences_are_paired(results, capsys):
    table = lines(read_runs(results), CALLS)
    assert [(line.arm, line.start, line.end) for line in table] == [
        ("baseline", {1: 10, 2: 12}, {1: 6, 2: 8}),
        ("saar", {1: 10, 2: 12}, {1: 4, 2: 6}),
    ]
    assert main([str(results), CALLS]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert "| 2 | 11.000 → 7.000 | 6.000 8.000 |" in rows[2]
    assert "| `saar` | 2 | -2.000 [-2.000, -2.000] | -2.000 -2.000 |" in rows[3]


def test_a_validation_without_the_metric_counts_as_none_of_it(results):
    baseline, saar = lines(read_runs(results), ERRORS)
    assert baseline.end == {1: 0, 2: 0} and saar.start == {1: 0, 2: 0} and saar.end == {1: 2, 2: 4}


def test_it_lists_what_there_is_and_refuses_what_there_is_not(results, tmp_path, capsys):
    assert names(read_runs(results)) == ["val/accuracy", ERRORS, CALLS]
    assert main([str(results)]) == 0 and CALLS in capsys.readouterr().out.splitlines()
    with pytest.raises(ConfigError, match="lists all"):
        lines(read_runs(results), "actor/lr")
    assert main([str(tmp_path / "nowhere"), CALLS]) == 2
    assert "runs.tar.xz is not there" in capsys.readouterr().err
