"""Plans: what is run, in which order, under which settings; wrong input is named."""

import pytest

from cleaner.compare.plan import read_plan
from cleaner.compare.rows_and_models import provide_rows
from cleaner.data.tasks import ALL_TASKS
from cleaner.errors import ConfigError


def test_runs_come_seed_by_seed_so_that_what_is_done_is_paired(plan_of):
    assert [run.name for run in plan_of().runs] == [
        "short/baseline/seed-1",
        "short/saar/seed-1",
        "short/baseline/seed-2",
        "short/saar/seed-2",
    ]


def test_an_arms_settings_come_after_the_tasks_and_the_users(plan_of):
    run = plan_of(extra=["a.b=1"]).runs[1]
    assert run.overrides == [
        "trainer.save_freq=-1",
        "data.max_response_length=256",
        "a.b=1",
        "cleaner.strategy=saar",
        "cleaner.seed=1",
        "cleaner.budget.tokens=100",
        "cleaner.budget.validations=2",
    ]


def test_arms_differ_in_nothing_but_what_they_set(plan_of):
    baseline, saar = (set(run.overrides) for run in plan_of().runs[:2])
    assert baseline ^ saar == {"cleaner.strategy=none", "cleaner.strategy=saar"}


def test_the_fingerprint_tells_experiments_apart_and_nothing_else(plan_of, recipe):
    before = plan_of().runs[1]
    assert before.fingerprint == plan_of(seeds=[1], arms=["other", "saar"]).runs[2].fingerprint
    for other in (plan_of(budget=200), plan_of(extra=["x=1"]), plan_of(seeds=[3])):
        assert other.runs[1].fingerprint != before.fingerprint
    task = recipe / "tasks" / "short.yaml"
    task.write_text(task.read_text().replace("lcm", "products"))
    assert plan_of().runs[1].fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"arms": ["sarr"]}, "unknown arm 'sarr'. Did you mean 'saar'"),
        ({"tasks": ["shrt"]}, "unknown task 'shrt'. Did you mean 'short'"),
        ({"seeds": [1, 1]}, "SEEDS=1 1 must be one or more different"),
        ({"seeds": []}, "must be one or more different"),
        ({"budget": 0}, "BUDGET=0 must be at least 1"),
    ],
)
def test_wrong_choices_are_named(plan_of, choices, message):
    with pytest.raises(ConfigError, match=message):
        plan_of(**choices)


def test_a_broken_file_is_named(plan_of, recipe):
    (recipe / "tasks" / "short.yaml").write_text("about: x\nproblems: gcd\n")
    with pytest.raises(ConfigError, match=r"tasks/short.yaml: 'problems' must be a list of texts"):
        plan_of()
    (recipe / "arms.yaml").write_text("baseline: {about: raw}\n")
    with pytest.raises(ConfigError, match=r"arms.yaml, arm baseline has no 'set'"):
        plan_of()


def test_rows_of_a_seed_are_made_once_and_are_the_same_for_all_arms(plan_of, tmp_path):
    task = plan_of().tasks[0]
    folder = provide_rows(task, 1, tmp_path)
    written = (folder / "train.parquet").stat().st_mtime_ns
    assert provide_rows(task, 1, tmp_path) == folder
    assert (folder / "train.parquet").stat().st_mtime_ns == written
    assert provide_rows(task, 2, tmp_path) != folder


def test_the_comparison_that_is_shipped_can_be_read(request):
    folder = request.config.rootpath / "recipe" / "cleaner" / "compare"
    plan = read_plan(folder, tasks=[], arms=[], seeds=[1], budget=1000, validations=1)
    assert {task.name for task in plan.tasks} >= {"quickstart", "several", "tempting"}
    assert {problem for task in plan.tasks for problem in task.problems} <= ALL_TASKS.keys()
    assert plan.arms[0].name == "baseline"
    assert len({run.fingerprint for run in plan.runs}) == len(plan.runs)
    large = read_plan(
        folder, tasks=["quickstart"], arms=[], seeds=[1], budget=1000, validations=1, model="smollm2"
    )
    assert len(large.runs) == len(plan.arms)


def test_another_models_sizes_come_after_those_of_all_runs_and_before_the_tasks(plan_of, recipe):
    (recipe / "smollm2.yaml").write_text("set: [data.train_batch_size=4]\n")
    assert plan_of(model="smollm2").runs[0].overrides[:3] == [
        "trainer.save_freq=-1",
        "data.train_batch_size=4",
        "data.max_response_length=256",
    ]
    assert plan_of(model="smollm2").runs[0].fingerprint != plan_of().runs[0].fingerprint


def test_a_cold_start_of_the_small_model_is_refused_for_another(plan_of, recipe):
    (recipe / "smollm2.yaml").write_text("set: []\n")
    cold = "coldstart: {steps: 1, traces: 1, evaluate: 1}\n"
    (recipe / "tasks" / "cold.yaml").write_text((recipe / "tasks" / "short.yaml").read_text() + cold)
    with pytest.raises(ConfigError, match="TASKS=cold with MODEL=smollm2.*TASKS=quickstart"):
        plan_of(model="smollm2")
    assert plan_of(model="smollm2", tasks=["short"]).runs
    with pytest.raises(ConfigError, match="unknown model 'smollm'. Did you mean 'smollm2'"):
        plan_of(model="smollm", tasks=["short"])
