"""From run directories to tables: every run is accounted for, and the figures are those of the logs."""

import csv
import json

import pytest
from run_logs import log_run

from cleaner.compare.curves import read_curve
from cleaner.compare.plots import write_plots
from cleaner.compare.results import collect, write_raw
from cleaner.compare.store import Store
from cleaner.compare.tables import results_page


@pytest.fixture
def done(plan_of, tmp_path):
    """Two arms on two seeds: all finished but one, which failed. One arm was never started."""
    plan, store = plan_of(arms=["saar", "other"]), Store(tmp_path / "runs")
    accuracies = {
        ("baseline", 1): [0.2, 0.4, 0.6],
        ("baseline", 2): [0.2, 0.4, 0.6],
        ("saar", 1): [0.2, 0.6, 0.8],
        ("saar", 2): [],
    }
    for run in plan.runs:
        values = accuracies.get((run.arm.name, run.seed))
        if values is not None:
            log_run(store.begin(run, ["command"]), values)
            store.end(run, "finished" if values else "failed", 12.0, 0 if values else 1)
    return collect(plan, store), store


def test_a_curve_holds_what_was_logged(tmp_path):
    log_run(tmp_path, [0.2, 0.4, 0.6])
    curve = read_curve(tmp_path)
    assert curve.points("accuracy") == [(0.0, 0.2), (50.0, 0.4), (100.0, 0.6)]
    assert curve.points("first_call_failure")[0] == (0.0, pytest.approx(0.8))
    assert (curve.steps, curve.tokens, curve.trained_tokens, curve.seconds) == (2, 100, 50, 3.0)
    assert (curve.final("accuracy", 2), curve.mean("accuracy")) == (pytest.approx(0.5), pytest.approx(0.5))
    assert curve.final("no such measure", 2) is None


def test_figures_are_paired_and_count_every_run(done):
    results, _ = done
    baseline, saar, other = results.figures
    assert baseline.final["accuracy"].mean == pytest.approx(0.5)
    assert (saar.seeds, saar.failed, saar.missing) == ([1], 1, 0)
    assert saar.final_difference["accuracy"].mean == pytest.approx(0.7 - 0.5)
    assert saar.ratios["accuracy"].ratio == pytest.approx(37.5 / 75)
    assert (other.seeds, other.missing) == ([], 2)


def test_the_page_accounts_for_every_run_and_says_how_to_repeat_it(done):
    results, store = done
    page = results_page(results, "SEEDS=1 bash x.sh", store.starts())
    assert "Of 6 planned runs 3 finished, 1 failed, 0 were interrupted and 2 were not started" in page
    assert "4 starts were made" in page
    assert "SEEDS=1 bash x.sh" in page and "2 seeds only" in page
    assert "| `saar`: repaired | 1, 1 failed | +0.200 |" in page
    assert "| `other`: another | 0, 2 missing | – |" in page


def test_raw_metrics_hold_every_planned_run_and_every_validation(done, tmp_path):
    results, store = done
    write_raw(results, store, tmp_path / "out")
    runs = list(csv.DictReader((tmp_path / "out" / "runs.csv").open()))
    assert [row["status"] for row in runs] == [
        "finished",
        "finished",
        "missing",
        "finished",
        "failed",
        "missing",
    ]
    assert runs[0]["final_accuracy"] == "0.5" and runs[0]["wall_seconds"] == "12.0"
    assert len(list(csv.DictReader((tmp_path / "out" / "validations.csv").open()))) == 9
    assert len(json.loads((tmp_path / "out" / "summary.json").read_text())["figures"]) == 3


def test_a_plot_is_drawn_for_each_measure(done, tmp_path):
    results, _ = done
    files = write_plots(results, tmp_path / "plots")
    assert len(files) == 4 and all(file.read_bytes().startswith(b"\x89PNG") for file in files)
