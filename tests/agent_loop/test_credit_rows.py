"""Samples that repairs give to training beside their trajectories: which tokens, in which context, how many."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_policy import IM_END, ScriptedTool, assert_aligned, call, observation, rolled_back, turn

FINAL = "Done." + IM_END
FIRST, FIXED = turn("R: ", "fail E 1"), turn("S: ", "fine E 1")
SECOND, OTHER = turn("T: ", "fail AAAAAAAAAA"), turn("U: ", "2**9")
SCRIPT = [FIRST, FIXED, SECOND, OTHER, FINAL]
DISTILL, CONTRAST = {"graft_credit": "distill"}, {"graft_credit": "contrast"}
SAMPLED = {"history": "sampled", "on_exhausted": "keep_all"}
ERROR, SECOND_ERROR = observation("Error: E 1"), observation("Error: AAAAAAAAAA")
GOOD, OTHER_GOOD = observation("result of fine E 1"), observation("result of 2**9")


def made(script: Any, saar: dict[str, Any], **kwargs: Any) -> tuple[Any, list[Any], Any]:
    """The run with its trajectory as the output; the samples beside it; the trajectory."""
    run = rolled_back(script, saar, **kwargs)
    *rows, run.output = run.output if isinstance(run.output, list) else [run.output]
    return run, rows, run.output


def texts(run: Any, output: Any) -> tuple[str, str]:
    """Of the whole response, and of its trained tokens."""
    trained = [i for i, m in zip(output.response_ids, output.response_mask, strict=True) if m]
    return run.tokenizer.decode(output.response_ids), run.tokenizer.decode(trained)


def test_distill_on_an_edited_history_needs_no_sample_of_its_own():
    _, rows, trajectory = made(SCRIPT, DISTILL)
    _, _, same = made(SCRIPT, {})
    assert rows == [] and trajectory.response_ids == same.response_ids
    assert trajectory.response_mask == same.response_mask
    assert trajectory.extra_fields.keys() == same.extra_fields.keys()


def test_contrast_gives_each_failing_call_in_its_own_context_and_names_its_grafts_tokens():
    run, rows, trajectory = made(SCRIPT, CONTRAST)
    purified = "R: " + call("fine E 1") + IM_END + GOOD
    assert [texts(run, row) for row in rows] == [
        (FIRST, call("fail E 1") + IM_END),
        (purified + SECOND, call("fail AAAAAAAAAA") + IM_END),
    ]
    # All of the graft: of the deep repair its reasoning too.
    grafted = [trajectory.response_ids[i] for i in trajectory.extra_fields["paired_tokens"]]
    assert run.tokenizer.decode(grafted) == call("fine E 1") + IM_END + OTHER


def test_of_a_turn_that_fails_more_than_once_the_first_call_is_the_failing_one():
    run, rows, _ = made([FIRST, turn("N: ", "fail E 2"), turn("N: ", "slow"), FIXED, FINAL], CONTRAST)
    assert [texts(run, row) for row in rows] == [(FIRST, call("fail E 1") + IM_END)]


def test_of_several_calls_only_those_that_failed_are_trained():
    script = [turn("R: ", "good 1", "fail E 2"), turn("S: ", "fine E 2"), FINAL]
    run, rows, trajectory = made(script, CONTRAST, max_parallel_calls=2)
    assert [texts(run, row) for row in rows] == [(script[0], call("fail E 2"))]
    grafted = [trajectory.response_ids[i] for i in trajectory.extra_fields["paired_tokens"]]
    assert run.tokenizer.decode(grafted) == call("fine E 2")


def test_a_sampled_history_is_what_was_sampled_and_grafts_stand_in_the_clean_context_beside_it():
    run, rows, trajectory = made(SCRIPT, {**CONTRAST, **SAMPLED})
    before = FIRST + ERROR + FIXED + GOOD
    assert run.text == before + SECOND + SECOND_ERROR + OTHER + OTHER_GOOD + FINAL
    assert {origin for origin, _ in run.segments()} == {0, 1}
    # Every request's prompt is the history that the next one extends: on-policy throughout.
    whole = trajectory.prompt_ids + trajectory.response_ids
    assert all(whole[: len(request.prompt_ids)] == request.prompt_ids for request in run.server.requests)
    assert_aligned(run)
    assert [texts(run, row) for row in rows] == [
        (FIRST, call("fail E 1") + IM_END),
        (before + SECOND, call("fail AAAAAAAAAA") + IM_END),
        ("R: " + call("fine E 1") + IM_END, call("fine E 1") + IM_END),
        (before + OTHER, OTHER),
    ]
    assert [sorted(row.extra_fields.keys() & {"negative_of", "graft_of"}) for row in rows] == [
        ["negative_of"], ["negative_of"], ["graft_of"], ["graft_of"],
    ]  # fmt: skip
    assert trajectory.extra_fields["paired_tokens"] == []


def test_a_sample_has_the_tokens_log_probabilities_of_their_sampling_and_the_trajectorys_fields():
    run, rows, trajectory = made(SCRIPT, {**CONTRAST, **SAMPLED})
    for row in rows:
        assert len(row.response_ids) == len(row.response_mask) == len(row.extra_fields["token_origin"])
        assert row.response_mask == [int(kind in (1, 2)) for kind in row.extra_fields["token_origin"]]
        for token, m, value in zip(row.response_ids, row.response_mask, row.response_logprobs, strict=True):
            assert not m or run.server.emitted[value] == token
        assert row.model_fields_set == trajectory.model_fields_set
        assert row.prompt_ids == trajectory.prompt_ids


def test_distill_on_a_sampled_history_gives_the_grafts_only():
    run, rows, _ = made(SCRIPT, {**DISTILL, **SAMPLED})
    assert [texts(run, row)[1] for row in rows] == [call("fine E 1") + IM_END, OTHER]


def test_calls_of_a_sampled_history_are_counted_and_nothing_of_it_is_discarded():
    run, _, _ = made(SCRIPT, {**DISTILL, **SAMPLED})
    counts = run.saar
    assert (counts["final_calls"], counts["final_calls_ok"]) == (4, 2)
    assert (counts["first_calls"], counts["first_calls_ok"]) == (2, 0)
    assert counts["kept"] == 2 and counts["discarded_tokens"] == 0
    assert [repair["decision"] for repair in run.repairs] == ["kept", "kept"]
    assert [repair["similarity"] >= 0.5 for repair in run.repairs] == [True, False]


def test_every_call_of_a_kept_look_ahead_is_counted():
    script = [
        turn("R: ", "fail E 1", "fail E 2"),
        turn("S: ", "slow", "fail E 2"),
        turn("S: ", "fine", "fine 2"),
        FINAL,
    ]
    run, _, _ = made(script, {**DISTILL, **SAMPLED}, max_parallel_calls=2)
    assert (run.saar["final_calls"], run.saar["final_calls_ok"]) == (6, 2)


def test_a_correction_that_cannot_be_grafted_stays_in_a_sampled_history_and_gives_no_sample():
    script = [turn("R: ", "fail E 1", "fail E 2", "good"), turn("S: ", "fine"), FINAL]
    run, rows, _ = made(script, {**CONTRAST, **SAMPLED}, max_parallel_calls=3)
    assert run.text.endswith(turn("S: ", "fine") + observation("result of fine") + FINAL)
    assert rows == [] and run.saar["kept"] == 1 and run.repairs[0]["similarity"] is None
    assert_aligned(run)


class Flaky(ScriptedTool):
    """Its first call takes too long, whatever it is."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "flaky"

    async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
        code = parameters["code"] if self.ran else "slow"
        return await super().execute(instance_id, {"code": code}, **kwargs)


@pytest.mark.parametrize(("credit", "grafts"), [(CONTRAST, 0), (DISTILL, 1)])
@pytest.mark.parametrize("history", [{}, SAMPLED])
def test_a_call_that_works_when_it_is_simply_made_again_is_not_trained_against_itself(
    history, credit, grafts
):
    again = turn("R: ", "fine").replace('"run"', '"flaky"')
    _, rows, trajectory = made([again, again, FINAL], {**credit, **history}, tools=[Flaky()])
    assert len(rows) == (grafts if history else 0)
    assert not trajectory.extra_fields.get("paired_tokens")
    assert (2 in trajectory.extra_fields["token_origin"]) is (not history)


def test_an_exhausted_turn_and_a_validation_give_no_sample():
    run, rows, _ = made([FIRST, turn("N: ", "slow"), FINAL], {**CONTRAST, **SAMPLED, "max_retries": 1})
    assert (
        rows == [] and run.text == FIRST + ERROR + turn("N: ", "slow") + observation("TimeoutError") + FINAL
    )
    validated = {"rollback_in_validation": True, **CONTRAST, **SAMPLED}
    run, rows, _ = made(SCRIPT, validated, run_kwargs={"cleaner_validate": True})
    assert rows == [] and run.saar["kept"] == 2


def test_pairs_of_a_sampled_history_are_saved_as_those_of_an_edited_one():
    save = {"negatives": {"save": True}}
    [edited, sampled] = [
        made(SCRIPT[:2] + [FINAL], {**DISTILL, **history}, cleaner=save)[2].extra_fields["negatives"]
        for history in ({}, SAMPLED)
    ]
    assert edited == sampled and edited[0]["chosen"] == call("fine E 1") + IM_END


codes = st.sampled_from(["fine E 1", "2**9", "fail E 1", "fail BBBBBBBBB", "slow"])
turns = st.one_of(
    st.builds(lambda why, code: turn(why, code), st.sampled_from(["a: ", ""]), codes), st.just(FINAL)
)


@given(
    script=st.lists(turns, min_size=1, max_size=7),
    gamma=st.sampled_from([0.0, 0.5, 1.0]),
    options=st.fixed_dictionaries({"marker_tokens": st.booleans(), "logprobs": st.booleans()}),
)
def test_both_histories_train_the_same_calls_up_and_down(script, gamma, options):
    """On one script: what is grafted in the edited history is trained beside the sampled one, and as often."""
    saar = {**CONTRAST, "gamma": gamma, "on_exhausted": "keep_all"}
    script = [*script, FINAL]
    run, edited, trajectory = made(script, saar, max_assistant_turns=30, **options)
    other, sampled, _ = made(script, {**saar, "history": "sampled"}, max_assistant_turns=30, **options)
    down = [texts(run, row)[1] for row in edited]
    assert [texts(other, row)[1] for row in sampled if "negative_of" in row.extra_fields] == down
    up = "".join(texts(other, row)[1] for row in sampled if "graft_of" in row.extra_fields)
    grafted = [trajectory.response_ids[i] for i in trajectory.extra_fields["paired_tokens"]]
    assert up == run.tokenizer.decode(grafted)
    assert len(sampled) == 2 * len(edited)
    assert_aligned(other)
    for row in [*edited, *sampled]:
        assert len(row.response_ids) == len(row.response_mask) <= 20_000


@pytest.mark.parametrize("length", [120, 160, 200, 260, 320])
def test_no_sample_is_longer_than_a_response_may_be(length: int):
    _, rows, trajectory = made(SCRIPT, {**CONTRAST, **SAMPLED}, response_length=length)
    assert all(len(output.response_ids) <= length for output in [*rows, trajectory])
