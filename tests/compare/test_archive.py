"""Finished runs travel with the results: another machine reports the same and does not do them again."""

import pytest
from run_logs import log_run

from cleaner.compare.__main__ import main
from cleaner.compare.archive import ARCHIVE, keep, restore
from cleaner.compare.results import collect
from cleaner.compare.store import Store


@pytest.fixture
def made(plan_of, tmp_path):
    """Four runs, of which three finished and one failed."""
    plan, store = plan_of(), Store(tmp_path / "made")
    for place, run in enumerate(plan.runs):
        path = store.begin(run, ["train"])
        log_run(path, [0.1, 0.2 + place / 10])
        store.end(run, "failed" if place == 3 else "finished", 60.0, int(place == 3))
    return plan, store


def test_what_is_restored_gives_the_same_figures_and_the_same_account(made, tmp_path):
    plan, store = made
    keep(plan, store, tmp_path / ARCHIVE)
    other = Store(tmp_path / "other")
    assert restore(plan, other, tmp_path / ARCHIVE) == 3
    before, after = collect(plan, store), collect(plan, other)
    assert after.curves == before.curves and len(after.curves) == 3
    assert [other.status(run) for run in plan.runs] == ["finished"] * 3 + ["missing"]
    assert other.starts() == store.starts()
    assert restore(plan, other, tmp_path / ARCHIVE) == 0 and other.starts() == store.starts()


def test_the_archive_depends_on_the_runs_alone(made, tmp_path):
    plan, store = made
    for name in ("one", "two"):
        keep(plan, store, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_runs_of_other_settings_and_runs_that_are_there_are_left_alone(made, plan_of, tmp_path):
    plan, store = made
    keep(plan, store, tmp_path / ARCHIVE)
    other = Store(tmp_path / "other")
    assert restore(plan_of(budget=999), other, tmp_path / ARCHIVE) == 0 and not other.folder.exists()
    path = other.begin(plan.runs[0], ["train"])
    assert restore(plan, other, tmp_path / ARCHIVE) == 2
    assert not (path / "metrics.jsonl").exists() and other.status(plan.runs[0]) == "interrupted"
    times = [entry["time"] for entry in other.starts()]
    assert times == sorted(times) and all(entry in other.starts() for entry in store.starts())


def test_the_account_is_of_the_plans_runs(made, plan_of, tmp_path):
    _, store = made
    one = plan_of(seeds=[1])
    keep(one, store, tmp_path / ARCHIVE)
    other = Store(tmp_path / "other")
    assert restore(one, other, tmp_path / ARCHIVE) == 2
    assert other.starts() == store.starts(one.runs) and len(other.starts()) == 4


def test_a_smaller_plan_takes_no_run_out_of_the_archive(made, plan_of, tmp_path):
    plan, store = made
    keep(plan, store, tmp_path / ARCHIVE)
    before = (tmp_path / ARCHIVE).read_bytes()
    keep(plan_of(seeds=[1]), store, tmp_path / ARCHIVE)
    assert (tmp_path / ARCHIVE).read_bytes() == before


def test_a_finished_run_without_metrics_is_not_kept(made, tmp_path):
    plan, store = made
    (store.path(plan.runs[0]) / "metrics.jsonl").unlink()
    keep(plan, store, tmp_path / ARCHIVE)
    assert restore(plan, Store(tmp_path / "other"), tmp_path / ARCHIVE) == 2


def test_no_archive_is_no_error(plan_of, tmp_path):
    assert restore(plan_of(), Store(tmp_path / "runs"), tmp_path / ARCHIVE) == 0


def test_the_report_goes_on_from_the_archive_beside_it(made, recipe, tmp_path, capsys):
    _, store = made
    folder = tmp_path / "recipes" / "cleaner"
    folder.mkdir(parents=True)
    recipe.rename(folder / "compare")
    arguments = [
        "report",
        "--recipe",
        str(folder),
        "--results",
        str(tmp_path / "docs" / "results"),
        "--cache",
        str(tmp_path),
    ]
    arguments += ["--arms", "saar", "--seeds", "1", "2", "--budget", "100", "--validations", "2"]
    assert main([*arguments, "--runs", str(store.folder)]) == 0
    first = (tmp_path / "docs" / "results" / "results.md").read_text()
    assert "](../comparison.md)" in first
    assert main([*arguments, "--runs", str(tmp_path / "elsewhere")]) == 0
    assert "3 finished runs taken from" in capsys.readouterr().out
    second = (tmp_path / "docs" / "results" / "results.md").read_text()
    assert first.split("## short")[1] == second.split("## short")[1].replace("1 missing", "1 failed")
