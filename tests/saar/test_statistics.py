"""Counts add up to the metrics of a step."""

import json

from cleaner.saar.outcome import ToolOutcome
from cleaner.saar.policy import Decision, Ending
from cleaner.saar.repair import Repair, SampledTurn
from cleaner.saar.statistics import TrajectoryStatistics, aggregate

NAME_ERROR = ToolOutcome("program_error", "NameError", "NameError: x")


def repair(decision, similarity=None, exception="NameError"):
    failed = SampledTurn((1, 2), None, 0, "x", ToolOutcome("program_error", exception))
    exhausted = decision == Decision.EXHAUSTED
    return Repair(
        turn=0, start=0, decision=decision, similarity=similarity, similarity_exact=True, weight=None,
        accepted=None if exhausted else 0, ending=Ending.ATTEMPTS if exhausted else None, failed=failed, attempts=(),
        after=(3,), graft_call_start=0, aside=None, discarded_tokens=10, excluded_tokens=0,
        removed_tokens=0 if exhausted else 20, lookahead_tokens=15, seconds=0.5,
    )  # fmt: skip


def test_metrics_of_a_step_are_sums_and_ratios_of_sums():
    first, second = TrajectoryStatistics(), TrajectoryStatistics()
    for outcome, lookahead in (
        (NAME_ERROR, False),
        (ToolOutcome("timeout"), True),
        (ToolOutcome("ok"), True),
    ):
        first.count_call(outcome, lookahead=lookahead)
    first.sampled_tokens = 30
    first.count_repair(repair(Decision.SHALLOW, 0.75))
    first.finish(50)
    for outcome in (ToolOutcome("ok"), NAME_ERROR, ToolOutcome("infrastructure", "JudgeUnavailable")):
        second.count_call(outcome, lookahead=False)
    second.sampled_tokens = 40
    second.count_repair(repair(Decision.EXHAUSTED, exception="KeyError"))
    second.finish(30)
    rows = [json.loads(json.dumps(statistics.to_dict())) for statistics in (first, second)]
    metrics = aggregate(rows)
    assert metrics["tool_calls/total"] == 5 and metrics["tool_calls/success_rate"] == 2 / 5
    assert metrics["tool_calls/first_attempt_success_rate"] == 1 / 3
    assert metrics["tool_calls/failure/NameError"] == metrics["tool_calls/failure/program_error"] == 2
    assert metrics["tool_calls/failure/timeout"] == 1
    assert metrics["tool_calls/infrastructure_trajectories"] == 1
    assert [metrics[f"rollback/{name}"] for name in ("triggered", "recovered", "exhausted")] == [2, 1, 1]
    assert [metrics[f"rollback/{name}"] for name in ("shallow", "deep", "recovery_rate")] == [1, 0, 0.5]
    assert metrics["rollback/recovered/NameError"] == metrics["rollback/exhausted/KeyError"] == 1
    assert metrics["rollback/exhausted_by/attempts"] == 1
    assert metrics["rollback/similarity/mean"] == 0.75 and metrics["rollback/similarity/from_0.7"] == 1
    assert metrics["rollback/generated_tokens"] == 100 and metrics["rollback/discarded_token_share"] == 0.2
    assert metrics["rollback/lookahead_token_share"] == 0.3 and metrics["rollback/lookahead_seconds"] == 1.0
    assert metrics["rollback/purified_length"] == 40 and metrics["rollback/sampled_length"] == 50
    assert all(isinstance(value, float) for value in metrics.values())


def test_a_trajectory_opens_with_its_first_call_whatever_repairs_it():
    repaired, clean, silent = (TrajectoryStatistics() for _ in range(3))
    repaired.begin_turn()
    repaired.count_call(NAME_ERROR, lookahead=False)
    repaired.count_call(ToolOutcome("ok"), lookahead=True)
    repaired.begin_turn()
    repaired.count_call(ToolOutcome("ok"), lookahead=False)
    clean.count_call(ToolOutcome("infrastructure"), lookahead=False)
    clean.count_call(ToolOutcome("ok"), lookahead=False)
    metrics = aggregate([statistics.to_dict() for statistics in (repaired, clean, silent)])
    assert metrics["tool_calls/first_call_success_rate"] == 1 / 2
    # A trajectory that is sampled anew has opened as often as it was sampled.
    clean.absorb(repaired)
    assert (clean.opening_calls, clean.opening_calls_ok) == (2, 1)


def test_nothing_is_measured_of_nothing():
    assert aggregate([]) == {}
    quiet = aggregate([TrajectoryStatistics().to_dict()])
    assert quiet["rollback/triggered"] == 0 and not any("_rate" in name or "share" in name for name in quiet)


def test_a_first_attempt_is_a_call_that_does_not_answer_a_failure_in_the_final_history():
    statistics = TrajectoryStatistics()
    # Fails and stays; its retry succeeds; a third call fails and is repaired; a fourth call succeeds.
    for outcome, decision in (
        (NAME_ERROR, None),
        (ToolOutcome("ok"), None),
        (NAME_ERROR, Decision.DEEP),
        (ToolOutcome("ok"), None),
    ):
        statistics.begin_turn()
        statistics.count_call(outcome, lookahead=False)
        if decision is not None:
            statistics.count_repair(repair(decision, 0.1))
    assert (statistics.calls, statistics.first_calls, statistics.first_calls_ok) == (4, 3, 1)
