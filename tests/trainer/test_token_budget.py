"""A budget of generated tokens: when a run is validated and when it ends, and what is counted on the way."""

import pytest

from cleaner.errors import ConfigError
from cleaner.token_budget import BudgetConfig
from cleaner.trajectory_shares import trajectory_shares


def walk(budget: BudgetConfig, steps: list[int]) -> tuple[list[int], int]:
    """Token counts at which a run of such steps is validated, and where it ends."""
    total, validated = 0, []
    for tokens in steps:
        before, total = total, total + tokens
        if budget.is_spent(total) or budget.validates(before, total):
            validated.append(total)
        if budget.is_spent(total):
            break
    return validated, total


def test_a_run_is_validated_after_equal_shares_and_ends_with_the_step_that_spends_the_budget():
    assert walk(BudgetConfig(100, 4), [10] * 50) == ([30, 50, 80, 100], 100)
    assert walk(BudgetConfig(100, 4), [30] * 50) == ([30, 60, 90, 120], 120)
    assert walk(BudgetConfig(100, 4), [70, 70]) == ([70, 140], 140)


def test_it_does_not_matter_where_a_run_was_resumed():
    budget = BudgetConfig(1000, 10)
    assert [total for total in range(7, 1000, 7) if budget.validates(total - 7, total)] == [
        -(-share // 7) * 7 for share in range(100, 1000, 100)
    ]


def test_without_a_budget_nothing_ends_or_is_validated():
    assert walk(BudgetConfig(), [10] * 5) == ([], 50)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": 0}, r"cleaner\.budget\.tokens"),
        ({"tokens": 10, "validations": -1}, r"cleaner\.budget\.validations"),
        ({"validations": 4}, r"validations=4 divides a budget, but cleaner\.budget\.tokens is not set"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        BudgetConfig(**settings)


def row(accuracy, calls=1, calls_ok=1):
    return {"header": {"accuracy": accuracy}, "saar": {"calls": calls, "calls_ok": calls_ok}}


def test_a_right_answer_after_a_failing_call_is_not_clean():
    rows = [row(1.0), row(1.0, 2, 1), row(0.0), row(1.0, 0, 0), row(None, 3, 3), {"header": {}, "saar": None}]
    assert trajectory_shares(rows) == {
        "trajectories/used_tool": 4 / 5,
        "trajectories/clean_accuracy": 2 / 4,
    }
    assert trajectory_shares([]) == {}
