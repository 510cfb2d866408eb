"""`plan` says how long the missing runs take, from those that finished, also on a task with a cold start of its own."""

from pathlib import Path

from run_logs import log_run

from cleaner.compare.__main__ import main
from cleaner.compare.plan import read_plan
from cleaner.compare.store import Store

RECIPE = Path(__file__).parents[2] / "recipe" / "cleaner"


def test_the_time_left_is_reckoned_with_what_finished_runs_took(tmp_path, capsys):
    choice = {"tasks": ["several"], "arms": ["saar"], "seeds": [1, 2], "budget": 100, "validations": 2}
    store = Store(tmp_path / "runs")
    for run, seconds in zip(read_plan(RECIPE / "compare", **choice).runs[:2], (120.0, 360.0), strict=True):
        log_run(store.begin(run, ["train"]), [0.1])
        store.end(run, "finished", seconds, 0)
    arguments = [
        "plan",
        "--recipe",
        RECIPE,
        "--runs",
        store.folder,
        "--results",
        tmp_path,
        "--cache",
        tmp_path,
    ]
    arguments += ["--tasks", "several", "--arms", "saar", "--seeds", "1", "2", "--budget", "100"]
    arguments += ["--validations", "2", "--jobs", "2"]
    assert main([str(argument) for argument in arguments]) == 0
    out = capsys.readouterr().out
    # One baseline run of 120 s and one of saar of 360 s, two at a time.
    assert "4 runs, 2 to do: about 4 minutes (from 2 finished runs)." in out, out
