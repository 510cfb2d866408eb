"""The rollback's decisions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleaner.saar.config import SaarConfig
from cleaner.saar.graft import CallSpan, TurnTokens, counterparts, grafts
from cleaner.saar.outcome import INFRASTRUCTURE, OK, STATUSES, ToolOutcome
from cleaner.saar.policy import Decision, Reaction, TurnPolicy
from cleaner.saar.seeding import derive_seed, draw
from cleaner.saar.trajectory import Origin

outcomes = st.lists(
    st.builds(
        ToolOutcome, st.sampled_from(STATUSES), st.sampled_from([None, "NameError", "json.JSONDecodeError"])
    ),
    max_size=4,
)


def policy(**settings):
    return TurnPolicy(SaarConfig(**settings), active=True)


def triggers(policy, outcomes, chance=0.0, streak=0):
    return policy.reaction(outcomes, chance=chance, streak=streak) == Reaction.ROLL_BACK


@given(outcomes=outcomes)
def test_infrastructure_never_triggers_and_success_never_fails(outcomes):
    statuses = [outcome.status for outcome in outcomes]
    triggered = triggers(policy(), outcomes)
    failures = [s for s in statuses if s not in (OK, INFRASTRUCTURE)]
    assert triggered == (bool(failures) and INFRASTRUCTURE not in statuses)
    assert policy().accepts(outcomes) == (bool(statuses) and set(statuses) == {OK})


def test_rollback_on_lists_statuses_and_classes_with_or_without_module():
    outcome = ToolOutcome("program_error", "json.JSONDecodeError")
    for entry, expected in {
        "program_error": True,
        "JSONDecodeError": True,
        "json.JSONDecodeError": True,
        "timeout": False,
        "KeyError": False,
    }.items():
        assert triggers(policy(rollback_on=(entry,)), [outcome]) is expected


def test_probability_is_compared_with_the_draw():
    failed = [ToolOutcome("timeout")]
    assert triggers(policy(rollback_probability=0.3), failed, 0.29)
    assert not triggers(policy(rollback_probability=0.3), failed, 0.3)
    assert not triggers(policy(rollback_probability=0.0), failed, 0.0)
    assert triggers(policy(rollback_probability=1.0), failed, 1 - 1e-9)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_high_similarity_is_shallow(gamma):
    assert policy(gamma=gamma).depth(gamma) == Decision.SHALLOW
    if gamma:
        assert policy(gamma=gamma).depth(gamma - 0.01) == Decision.DEEP


@pytest.mark.parametrize("streak", [0, 1, 2])
def test_tolerance_leaves_the_first_failure_in_a_row_to_the_model(streak):
    failed = [ToolOutcome("timeout")]
    expected = Reaction.TOLERATE if streak == 0 else Reaction.ROLL_BACK
    assert policy(tolerance=1).reaction(failed, chance=0.0, streak=streak) == expected
    assert policy(tolerance=1).reaction([ToolOutcome("ok")], chance=0.0, streak=streak) == Reaction.GO_ON


def test_draws_are_uniform_and_depend_on_every_part():
    values = [draw(0, step, index) for step in range(40) for index in range(50)]
    assert all(0 <= value < 1 for value in values) and 0.48 < sum(values) / len(values) < 0.52
    assert len({derive_seed(1, 23), derive_seed(12, 3), derive_seed("1", 23), derive_seed(1, 2, 3)}) == 4


@given(calls=st.integers(1, 5), failing=st.sets(st.integers(0, 4)), attempt=st.integers(0, 6))
def test_every_call_of_a_repaired_turn_has_one_source_and_good_ones_stay(calls, failing, attempt):
    failing = sorted(index for index in failing if index < calls) or [0]
    sources = counterparts(calls, failing, attempt)
    if sources is None:
        assert attempt == 0 or (attempt not in (len(failing), calls) and len(failing) < calls)
    elif len(failing) == calls:
        assert sources == tuple(("attempt", j) for j in range(attempt))
    else:
        kept = [index for origin, index in sources if origin == "turn"]
        assert len(sources) == calls and kept == [i for i in range(calls) if i not in failing]


@given(data=st.data(), wanted=st.sampled_from([Decision.SHALLOW, Decision.DEEP]))
def test_grafts_take_each_token_from_the_turn_or_from_the_correction(data, wanted):
    def turn_of(base, calls):
        position, spans = data.draw(st.integers(0, 3)), []
        for _ in range(calls):
            length = data.draw(st.integers(1, 3))
            spans.append(CallSpan(position, position + length))
            position += length + data.draw(st.integers(0, 2))
        return TurnTokens([base + i for i in range(position)], None, spans)

    calls = data.draw(st.integers(1, 3))
    failing = sorted(data.draw(st.sets(st.integers(0, calls - 1), min_size=1)))
    turn, attempt = turn_of(0, calls), turn_of(100, data.draw(st.integers(1, 3)))
    for graft in grafts(turn, failing, attempt, wanted):
        for piece in graft.pieces:
            source = turn.ids if piece.origin == Origin.SAMPLED else attempt.ids
            assert all(token in source for token in piece.ids)
        assert len(set(graft.ids)) == len(graft.ids)
        for origin, index in graft.sources:
            span = (turn if origin == "turn" else attempt).spans[index]
            ids = (turn if origin == "turn" else attempt).ids[span.start : span.stop]
            assert any(graft.ids[i : i + len(ids)] == ids for i in range(len(graft.ids)))
        if wanted == Decision.DEEP:
            assert graft.depth == Decision.DEEP
