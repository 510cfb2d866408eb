"""Several calls in one turn: only failing ones are replaced, and each call has one tool message."""

from hypothesis import given
from hypothesis import strategies as st
from scripted_policy import IM_END, assert_aligned, call, observation, rolled_back, turn

FINAL = "Done." + IM_END


def test_only_the_failing_call_is_replaced_and_good_ones_do_not_run_again():
    script = [turn("R: ", "good 1", "fail E 2", "good 3"), turn("S: ", "fine E 2"), FINAL]
    run = rolled_back(script, max_parallel_calls=3)
    assert run.text == (
        turn("R: ", "good 1", "fine E 2", "good 3")
        + observation("result of good 1", "result of fine E 2", "result of good 3")
        + FINAL
    )
    assert run.segments()[1] == (2, call("fine E 2"))
    assert run.tool.ran == ["good 1", "fail E 2", "good 3", "fine E 2"]
    assert run.repairs[0]["decision"] == "shallow" and run.output.extra_fields["tool_rewards"] == [0.5] * 3
    assert_aligned(run)


def test_a_correction_that_repeats_all_calls_replaces_only_those_that_failed():
    script = [turn("R: ", "good 1", "fail E 2"), turn("S: ", "again 1", "fine E 2"), FINAL]
    run = rolled_back(script, max_parallel_calls=2)
    assert run.text.startswith(
        turn("R: ", "good 1", "fine E 2") + observation("result of good 1", "result of fine E 2")
    )


def test_a_deep_repair_takes_the_corrections_reasoning_and_keeps_good_calls():
    script = [turn("R: ", "good 1", "fail AAAAAAAAAA"), turn("S: ", "2**9"), FINAL]
    run = rolled_back(script, max_parallel_calls=2)
    assert run.text.startswith(
        turn("S: ", "good 1", "2**9") + observation("result of good 1", "result of 2**9")
    )
    assert run.repairs[0]["decision"] == "deep"
    assert_aligned(run)


def test_a_correction_that_does_not_cover_the_failing_calls_is_a_failed_attempt():
    first = turn("R: ", "fail E 1", "fail E 2", "good 3")
    run = rolled_back(
        [first, turn("S: ", "fine E 1"), turn("T: ", "fine E 1", "fine E 2"), FINAL], max_parallel_calls=3
    )
    assert run.text.startswith(turn("R: ", "fine E 1", "fine E 2", "good 3"))
    assert run.repairs[0]["accepted"] == 1
    run = rolled_back([first, *[turn("S: ", "fine E 1")] * 3, FINAL], max_parallel_calls=3)
    assert run.text == first + observation("Error: E 1", "Error: E 2", "result of good 3") + FINAL


def test_where_all_calls_failed_the_correction_may_hold_any_number():
    run = rolled_back(
        [turn("R: ", "fail E 1", "fail E 2"), turn("S: ", "fine E 1 2"), FINAL], max_parallel_calls=2
    )
    assert run.text == turn("R: ", "fine E 1 2") + observation("result of fine E 1 2") + FINAL


def test_one_attempt_that_fails_in_part_is_a_failed_attempt():
    script = [
        turn("R: ", "fail E 1", "fail E 2"),
        turn("S: ", "fine E 1", "slow"),
        turn("T: ", "fine E 1", "fine E 2"),
        FINAL,
    ]
    run = rolled_back(script, max_parallel_calls=2)
    assert run.text.startswith(turn("R: ", "fine E 1", "fine E 2")) and len(run.repairs[0]["attempts"]) == 2


def test_a_call_that_does_not_parse_beside_a_good_one_is_repaired():
    broken = '<tool_call>{"name": "run", "arguments": {"code": "E 2"}</tool_call>'
    first = "R: " + call("good 1") + broken + IM_END
    run = rolled_back([first, turn("S: ", "E 2"), FINAL], max_parallel_calls=2)
    assert run.text == (
        "R: "
        + call("good 1")
        + call("E 2")
        + IM_END
        + observation("result of good 1", "result of E 2")
        + FINAL
    )


def test_calls_beyond_max_parallel_calls_are_ignored_as_upstream_does():
    first = turn("R: ", "good 1", "fail E 2")
    run = rolled_back([first, FINAL], max_parallel_calls=1)
    assert run.text == first + observation("result of good 1") + FINAL


codes = st.sampled_from(["good 1", "fail E 2", "slow 3", "fine E 2"])


@given(
    turns=st.lists(st.lists(codes, min_size=1, max_size=3), min_size=1, max_size=6),
    marker_tokens=st.booleans(),
    gamma=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_every_call_of_the_final_history_is_answered_by_its_own_result(turns, marker_tokens, gamma):
    script = [turn("R: ", *calls) for calls in turns] + [FINAL]
    run = rolled_back(script, {"gamma": gamma}, max_parallel_calls=3, marker_tokens=marker_tokens)
    assert_aligned(run)
    known = {
        "good 1": "result of good 1",
        "fail E 2": "Error: E 2",
        "slow 3": "TimeoutError",
        "fine E 2": "result of fine E 2",
    }
    rest = run.text
    while rest != FINAL:
        head, separator, rest = rest.partition(IM_END)
        assert separator
        called = [code for part in head.split("</tool_call>") for code in known if call(code)[:-12] in part]
        expected = observation(*(known[code] for code in called))
        assert rest.startswith(expected)
        rest = rest.removeprefix(expected)
