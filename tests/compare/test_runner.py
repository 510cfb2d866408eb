"""Running: each run once, failures reported and not fatal, a stop leaves finished runs and no process."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cleaner.compare import runner as runner_module
from cleaner.compare.runner import Runner
from cleaner.compare.store import Store
from cleaner.errors import ConfigError


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    monkeypatch.setattr(runner_module, "_POLL_SECONDS", 0.02)


def make_runner(store, program, jobs=2, limit=60.0, said=None):
    def command(run, path):
        return [sys.executable, "-S", "-c", program, run.arm.name], {"PATH": os.environ["PATH"]}

    return Runner(store, command, jobs, limit, (said if said is not None else []).append)


def statuses(plan, store):
    return [store.status(run) for run in plan.runs]


def test_every_run_is_done_and_noted_and_a_failed_one_stops_no_other(plan_of, tmp_path):
    plan, store, said = plan_of(), Store(tmp_path / "runs"), []
    program = "import sys; print('what happened'); sys.exit(3 if sys.argv[1] == 'saar' else 0)"
    assert make_runner(store, program, said=said).run_all(plan.runs) == 2
    assert statuses(plan, store) == ["finished", "failed", "finished", "failed"]
    assert sum("what happened" in line for line in said) == 2
    events = [entry["event"] for entry in store.starts()]
    assert sorted(events) == ["failed"] * 2 + ["finished"] * 2 + ["started"] * 4
    assert store.seconds(plan.runs[0]) is not None and store.seconds(plan.runs[1]) is None


def test_no_more_runs_at_a_time_than_jobs(plan_of, tmp_path):
    plan, store = plan_of(seeds=[1, 2, 3]), Store(tmp_path / "runs")
    marks = tmp_path / "marks"
    marks.mkdir()
    program = (
        "import os, time\n"
        f"folder = {str(marks)!r}\n"
        "mine = f'{folder}/{os.getpid()}'\n"
        "open(mine, 'w').close()\n"
        "together = len([n for n in os.listdir(folder) if n.isdigit()])\n"
        "time.sleep(0.2); os.remove(mine)\n"
        "assert together <= 2, together\n"
    )
    assert make_runner(store, program, jobs=2).run_all(plan.runs) == 0


def test_a_run_that_takes_too_long_is_stopped_and_counts_as_failed(plan_of, tmp_path):
    plan, store = plan_of(seeds=[1]), Store(tmp_path / "runs")
    program = "import sys, time; time.sleep(60 if sys.argv[1] == 'saar' else 0)"
    began = time.monotonic()
    assert make_runner(store, program, limit=0.5).run_all(plan.runs) == 1
    assert time.monotonic() - began < 20
    assert statuses(plan, store) == ["finished", "failed"]


def test_a_stop_leaves_finished_runs_and_no_process(plan_of, tmp_path):
    plan, store = plan_of(), Store(tmp_path / "runs")
    program = "import sys, time; time.sleep(60 if sys.argv[1] == 'saar' else 0)"

    def stop_when_one_is_done(line: str) -> None:
        raise KeyboardInterrupt

    runner = make_runner(store, program)
    runner.say = stop_when_one_is_done
    with pytest.raises(KeyboardInterrupt):
        runner.run_all(plan.runs)
    assert statuses(plan, store) == ["finished", "interrupted", "missing", "missing"]
    assert not [
        child for child in psutil.Process().children() if "time.sleep(60" in " ".join(child.cmdline())
    ]


def test_runs_end_with_a_runner_that_is_killed(tmp_path):
    program = (
        "import subprocess, sys, time\n"
        "from cleaner.compare.parentage import end_with_parent\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'],"
        " start_new_session=True, preexec_fn=end_with_parent)\n"
        "print(child.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    gone, _ = psutil.wait_procs([child], timeout=10)
    assert gone == [child]


def test_an_interrupted_run_is_done_again_and_its_first_try_is_kept(plan_of, tmp_path):
    plan, store = plan_of(seeds=[1]), Store(tmp_path / "runs")
    run = plan.runs[0]
    store.begin(run, ["x"])
    assert store.status(run) == "interrupted", "a runner that was killed notes no end"
    assert make_runner(store, "").run_all([run]) == 0
    assert store.status(run) == "finished"
    assert store.path(run).with_name("seed-1.try-1").is_dir()
    assert [entry["event"] for entry in store.starts()] == ["started", "started", "finished"]


def test_a_run_of_other_settings_is_not_taken_for_this_one(plan_of, tmp_path):
    store = Store(tmp_path / "runs")
    store.begin(plan_of().runs[0], [])
    with pytest.raises(ConfigError, match="holds a run with other settings. Give another RUNS_DIR"):
        store.status(plan_of(budget=101).runs[0])


def test_the_script_refuses_wrong_values_before_it_starts_anything(request):
    root: Path = request.config.rootpath
    for variables, message in (
        ({"BUDGET": "many"}, "BUDGET=many must be a whole number"),
        ({"SEEDS": "1 x"}, 'SEEDS="1 x" must be whole numbers'),
        ({"DRY_RUN": "2"}, "DRY_RUN=2 must be 0 or 1"),
    ):
        done = subprocess.run(
            ["bash", str(root / "recipe/cleaner/compare.sh")],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 2 and message in done.stderr
