"""Each strategy's answers, and what none of them may do."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleaner.errors import ConfigError
from cleaner.saar.outcome import ToolOutcome
from cleaner.saar.policy import Reaction
from cleaner.saar.statistics import TrajectoryStatistics
from cleaner.saar.strategy import STRATEGIES, Member, make_strategy

FAILED = [ToolOutcome("timeout")]


def statistics(ok=0, failed=0, infrastructure=0, tokens=10):
    counts = TrajectoryStatistics(sampled_tokens=tokens)
    outcomes = ["ok"] * ok + ["program_error"] * failed + ["infrastructure"] * infrastructure
    for status in outcomes:
        counts.count_call(ToolOutcome(status), lookahead=False)
    return counts


def member(reward, ok=0, failed=0):
    return Member(reward, statistics(ok, failed).to_dict())


def reaction(strategy, validate=False):
    return strategy.turn_policy(validate=validate).reaction(FAILED, chance=0.0, streak=0)


def test_only_saar_rolls_back_and_in_validation_only_when_asked():
    for name in STRATEGIES:
        assert (reaction(make_strategy({"strategy": name})) == Reaction.ROLL_BACK) == (name == "saar")
        assert reaction(make_strategy({"strategy": name}), validate=True) == Reaction.GO_ON
    asked = make_strategy({"strategy": "saar", "saar": {"rollback_in_validation": True}})
    assert reaction(asked, validate=True) == Reaction.ROLL_BACK
    assert reaction(make_strategy({"strategy": "saar", "saar": {"max_retries": 0}})) == Reaction.GO_ON


def test_without_a_named_strategy_nothing_is_done():
    strategy = make_strategy({})
    assert reaction(strategy) == Reaction.GO_ON
    assert not strategy.samples_again([statistics(failed=1)], validate=False)
    assert strategy.sampled_per_prompt(8) == 8
    assert strategy.select([member(0.0)] * 3, 3, ()) == [0, 1, 2]


@pytest.mark.parametrize(
    "group, words",
    [
        ({"strategy": "sar"}, "Did you mean 'saar'"),
        ({"strategy": "roc", "roc": {"oversample": 0.5}}, "cleaner.roc.oversample=0.5"),
        ({"roc": {"over": 2}}, "unknown key cleaner.roc.over"),
        ({"retry_trajectory": {"max_retries": -1}}, "cleaner.retry_trajectory.max_retries=-1"),
        ({"strategy": "none", "saar": {"gamma": 2}}, "cleaner.saar.gamma=2"),
    ],
)
def test_a_bad_setting_is_refused_whether_its_strategy_is_chosen_or_not(group, words):
    with pytest.raises(ConfigError, match=words):
        make_strategy(group)


def test_retry_samples_again_until_a_try_is_clean_or_k_are_used_up():
    strategy = make_strategy({"strategy": "retry_trajectory", "retry_trajectory": {"max_retries": 2}})
    bad, good = statistics(ok=1, failed=1), statistics(ok=2)
    assert strategy.samples_again([bad], validate=False) and strategy.samples_again(
        [bad, bad], validate=False
    )
    assert not strategy.samples_again([bad, bad, bad], validate=False)
    assert not strategy.samples_again([bad, good], validate=False)
    assert not strategy.samples_again([bad], validate=True)
    assert strategy.kept([bad, good]) == 1
    assert strategy.kept([bad, bad]) == 0
    assert strategy.kept([bad, statistics(ok=1, infrastructure=1)]) == 0


def test_absorbed_tries_count_as_generated_and_discarded():
    kept = statistics(ok=1, tokens=7)
    kept.absorb(statistics(failed=2, infrastructure=1, tokens=30))
    assert (kept.sampled_tokens, kept.lookahead_tokens, kept.discarded_tokens) == (7, 30, 30)
    assert (kept.calls, kept.calls_ok, kept.tries) == (3, 1, 2)
    assert kept.failures == {"program_error": 2}
    assert kept.infrastructure == 0, "the trajectory that is trained met no fault"
    assert (kept.first_calls, kept.first_calls_ok) == (1, 1)


def test_roc_samples_more_and_keeps_both_classes_in_proportion():
    strategy = make_strategy({"strategy": "roc"})
    assert strategy.sampled_per_prompt(8) == 16
    group = [member(1.0, ok=1)] * 6 + [member(0.0, ok=1)] * 10
    chosen = strategy.select(group, 8, ("seed",))
    assert Counter(group[i].reward for i in chosen) == {1.0: 3, 0.0: 5}
    assert strategy.select(group, 8, ("seed",)) == chosen
    assert len({tuple(strategy.select(group, 8, (seed,))) for seed in range(20)}) > 1


def test_roc_prefers_successes_with_few_tool_errors_and_is_fair_to_failures_in_reward():
    strategy = make_strategy({"strategy": "roc"})
    clean, dirty, silent = member(1.0, ok=4), member(1.0, ok=1, failed=3), member(1.0)
    counts = Counter(
        i for seed in range(2000) for i in strategy.select([clean, dirty, silent, dirty], 2, (seed,))
    )
    assert counts[0] > counts[2] > counts[1]
    wrong = [member(0.0, ok=4), member(0.0, failed=4)]
    counts = Counter(strategy.select(wrong, 1, (seed,))[0] for seed in range(2000))
    assert abs(counts[0] - 1000) < 150


@given(
    rewards=st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=20),
    trained=st.integers(1, 10),
    name=st.sampled_from(STRATEGIES),
    seed=st.integers(0, 9),
)
def test_a_selection_is_ascending_without_repeats_and_never_too_small(rewards, trained, name, seed):
    group = [member(reward, ok=1) for reward in rewards]
    chosen = make_strategy({"strategy": name}).select(group, trained, (seed,))
    assert chosen == sorted(set(chosen)) and all(0 <= i < len(group) for i in chosen)
    assert len(chosen) == (min(trained, len(group)) if name == "roc" else len(group))
