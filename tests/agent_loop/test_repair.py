"""Each path of the rollback, on a scripted policy."""

import json

import pytest
from scripted_policy import IM_END, assert_aligned, call, observation, rolled_back, run_script, turn

FINAL = "The answer is 4." + IM_END
markers = pytest.mark.parametrize("marker_tokens", [True, False], ids=["marker_tokens", "marker_bytes"])


@markers
def test_a_similar_correction_replaces_only_the_call(marker_tokens):
    failing, good = "fail NameError print(1+1)", "okay NameError print(1+1)"
    run = rolled_back([turn("Let me see: ", failing), turn("Oh: ", good), FINAL], marker_tokens=marker_tokens)
    assert run.segments() == [
        (1, "Let me see: "),
        (2, call(good) + IM_END),
        (0, observation(f"result of {good}")),
        (1, FINAL),
    ]
    assert run.saar["shallow"] == 1 and run.saar["deep"] == 0
    assert run.output.num_turns == 4  # prompt, call, tool, answer: as if nothing had failed
    assert run.output.extra_fields["tool_rewards"] == [0.5]
    assert_aligned(run)


@markers
def test_a_dissimilar_correction_replaces_the_whole_turn(marker_tokens):
    run = rolled_back(
        [turn("Let me see: ", "fail NameError aaaaaaaaaaaaa"), turn("Oh: ", "2**70"), FINAL],
        marker_tokens=marker_tokens,
    )
    assert run.segments() == [
        (2, turn("Oh: ", "2**70")),
        (0, observation("result of 2**70")),
        (1, FINAL),
    ]
    assert run.saar["deep"] == 1
    assert_aligned(run)


def test_exhausted_restores_the_first_failing_turn_with_its_real_error_and_stays_armed():
    first = turn("One.\n", "fail NameError x")
    script = [first, turn("A.\n", "slow"), turn("B.\n", "fail KeyError"), FINAL[:-10] + IM_END]
    script += [turn("Two.\n", "fail NameError yy"), turn("C.\n", "fine yy"), FINAL]
    run = rolled_back(script, {"gamma": 0.9})
    assert run.segments() == [
        (1, first),
        (0, observation("Error: NameError x")),
        (2, turn("C.\n", "fine yy")),
        (0, observation("result of fine yy")),
        (1, FINAL),
    ]
    assert [repair["decision"] for repair in run.repairs] == ["exhausted", "deep"]
    assert run.repairs[0]["ending"] == "attempts" and run.repairs[0]["accepted"] is None
    assert run.saar["exhausted"] == {"NameError": 1} and run.saar["recovered"] == {"NameError": 1}
    assert_aligned(run)


def test_context_of_an_attempt_holds_all_earlier_ones_or_only_the_latest():
    script = [turn("0.\n", "fail A"), turn("1.\n", "fail B"), turn("2.\n", "good"), FINAL]
    for context, expected in {
        "cumulative": turn("0.\n", "fail A")
        + observation("Error: A")
        + turn("1.\n", "fail B")
        + observation("Error: B"),
        "latest": turn("1.\n", "fail B") + observation("Error: B"),
    }.items():
        run = rolled_back(script, {"lookahead_context": context})
        prompt = run.output.prompt_ids
        assert run.server.requests[2].prompt_ids[: len(prompt)] == prompt
        assert run.tokenizer.decode(run.server.requests[2].prompt_ids[len(prompt) :]) == expected
        assert len({request.request_id for request in run.server.requests}) == 1


def test_an_attempt_without_a_call_fails_and_the_next_starts_from_the_same_context():
    run = rolled_back([turn("0.\n", "fail A"), FINAL, turn("1.\n", "good"), FINAL])
    first, second = run.server.requests[1:3]
    assert first.prompt_ids == second.prompt_ids
    assert first.sampling_params["seed"] != second.sampling_params["seed"]
    assert run.segments()[0] == (2, turn("1.\n", "good"))
    assert [attempt["outcome"] is None for attempt in run.repairs[0]["attempts"]] == [True, False]


def test_greedy_sampling_does_not_repeat_an_answer_without_a_call():
    run = rolled_back([turn("0.\n", "fail A"), FINAL, FINAL], sampling_params={"temperature": 0})
    assert run.repairs[0]["ending"] == "greedy" and len(run.repairs[0]["attempts"]) == 1
    assert run.text == turn("0.\n", "fail A") + observation("Error: A") + FINAL


@markers
@pytest.mark.parametrize(
    "broken",
    [
        '<tool_call>\n{"name": "run", "arguments": {"code": "2+2"}\n</tool_call>',
        '<tool_call>\n{"name": "run", "arguments": {"code": "2+2"}}',
        "<tool_call>\nprint(2)\n</tool_call>",
        '<tool_call>\n{"arguments": {"code": "2+2"}}\n</tool_call>',
        '<tool_call>\n{"name": "run"}\n</tool_call>',
    ],
)
def test_a_call_that_does_not_parse_is_repaired_like_any_other(broken, marker_tokens):
    script = ["Hm: " + broken + IM_END, turn("Oh: ", "2+2"), FINAL]
    run = rolled_back(script, marker_tokens=marker_tokens)
    assert run.text.endswith(call("2+2") + IM_END + observation("result of 2+2") + FINAL)
    repair = run.repairs[0]
    assert repair["failed"]["outcome"]["status"] == "format_error"
    assert repair["failed"]["call"] == broken + IM_END and repair["failed"]["reasoning"] == "Hm: "
    assert "Invalid tool call" in run.tokenizer.decode(run.server.requests[1].prompt_ids)
    assert run.saar["first_calls"] == 1 and run.saar["first_calls_ok"] == 0
    assert_aligned(run)


def test_a_broken_call_is_told_to_the_model_when_its_repair_is_exhausted():
    broken = 'Hm.\n<tool_call>\n{"name": "run"\n</tool_call>' + IM_END
    run = rolled_back([broken, FINAL, FINAL, FINAL, FINAL])
    assert run.text.startswith(
        broken + "\n<|im_start|>user\n<tool_response>\nInvalid tool call: not valid JSON"
    )
    assert run.text.endswith(FINAL)


def test_a_broken_call_ends_the_trajectory_as_upstream_does_without_rollback_but_is_counted():
    broken = 'Hm.\n<tool_call>\n{"name": "run"\n</tool_call>' + IM_END
    for strategy, saar in (
        ("none", {}),
        ("saar", {"rollback_on": ["timeout"]}),
        ("saar", {"rollback_probability": 0.0}),
    ):
        run = run_script([broken, FINAL], saar, cleaner={"strategy": strategy})
        assert run.text == broken
        assert run.saar["failures"] == {"format_error": 1}


@markers
def test_markers_that_are_only_mentioned_are_no_calls(marker_tokens):
    for mention in (
        "Use <tool_call> to call. It is <tool_call></tool_call>, or <tool_call>...</tool_call>. \\boxed{4}",
        "One writes <tool_call> before a call. \\boxed{4}",
        "It is <tool_call> {...} </tool_call> in general. \\boxed{4}",
    ):
        run = rolled_back([mention + IM_END], marker_tokens=marker_tokens)
        assert run.text == mention + IM_END and run.saar["calls"] == 0


@markers
def test_a_mention_before_the_call_belongs_to_the_reasoning_that_a_shallow_repair_keeps(marker_tokens):
    mention = "I call with <tool_call></tool_call>: "
    script = [turn(mention, "fail NameError 1+1"), turn("Oh: ", "fine NameError 1+1"), FINAL]
    run = rolled_back(script, marker_tokens=marker_tokens)
    assert run.segments()[:2] == [(1, mention), (2, call("fine NameError 1+1") + IM_END)]


@markers
def test_a_mention_that_would_swallow_the_graft_makes_the_repair_deep(marker_tokens):
    broken = (
        "Use <tool_call> so:\n"
        + '<tool_call>{"name": "run", "arguments": {"code": "2+2"}</tool_call>'
        + IM_END
    )
    run = rolled_back([broken, turn("Oh: ", "2+2"), FINAL], marker_tokens=marker_tokens)
    assert run.segments()[0] == (2, turn("Oh: ", "2+2"))
    assert run.repairs[0]["decision"] == "deep" and run.repairs[0]["similarity"] == 1.0


def test_a_token_that_straddles_the_marker_differently_makes_the_repair_deep():
    # Without marker tokens "\n<" is one token: it cannot follow a reasoning whose call starts with a plain "<".
    script = [turn("See. ", "fail NameError 1+1"), turn("Oh.\n", "fine NameError 1+1"), FINAL]
    assert rolled_back(script, marker_tokens=False).repairs[0]["decision"] == "deep"
    assert rolled_back(script, marker_tokens=True).repairs[0]["decision"] == "shallow"


@markers
def test_unicode_that_splits_over_tokens_survives(marker_tokens):
    script = [turn("Überlegung 😀 中文: ", "fail E '中😀'"), turn("Ö: ", "fine E '中😀'"), FINAL]
    run = rolled_back(script, marker_tokens=marker_tokens)
    assert run.segments()[:2] == [(1, "Überlegung 😀 中文: "), (2, call("fine E '中😀'") + IM_END)]


@markers
def test_empty_reasoning_and_the_very_first_turn(marker_tokens):
    for gamma, decision in ((0.0, "shallow"), (1.0, "deep")):
        run = rolled_back(
            [turn("", "fail A"), turn("", "good B"), FINAL], {"gamma": gamma}, marker_tokens=marker_tokens
        )
        assert run.segments()[0] == (2, turn("", "good B"))
        assert run.repairs[0]["decision"] == decision and run.repairs[0]["start"] == 0


def test_without_logprobs_nothing_else_changes():
    script = [turn("R.\n", "fail A"), turn("S.\n", "good"), FINAL]
    with_them, without = rolled_back(script), rolled_back(script, logprobs=False)
    assert without.output.response_logprobs is None
    assert without.output.response_ids == with_them.output.response_ids
    assert without.segments() == with_them.segments()


def test_infrastructure_never_triggers_a_rollback_and_marks_the_trajectory():
    run = rolled_back([turn("R.\n", "down"), FINAL])
    assert len(run.server.requests) == 2
    assert run.saar["infrastructure"] == 1 and run.saar["triggered"] == {} and run.saar["calls"] == 0


def test_infrastructure_under_an_attempt_restores_the_failing_turn():
    run = rolled_back([turn("R.\n", "fail A"), turn("S.\n", "down"), FINAL])
    assert run.text == turn("R.\n", "fail A") + observation("Error: A") + FINAL
    assert run.repairs[0]["ending"] == "infrastructure" and run.saar["infrastructure"] == 1


def test_a_tool_that_raises_is_a_program_error_and_a_misfit_a_format_error():
    run = rolled_back([turn("R.\n", "raise oh"), turn("S.\n", "good"), FINAL])
    assert run.repairs[0]["failed"]["outcome"] == {
        "status": "program_error", "exception": "RuntimeError", "text": "Error executing tool 'run': oh"
    }  # fmt: skip
    for arguments in ({"kode": "1"}, {"code": 1}):
        misfit = (
            "R.\n" + f"<tool_call>{json.dumps({'name': 'run', 'arguments': arguments})}</tool_call>" + IM_END
        )
        run = rolled_back([misfit, turn("S.\n", "good"), FINAL])
        assert run.repairs[0]["failed"]["outcome"]["status"] == "format_error"
        assert run.tool.ran == ["good"]
    unknown = "R.\n" + call("1", name="nope") + IM_END
    assert rolled_back([unknown, turn("S.\n", "good"), FINAL]).saar["triggered"] == {"format_error": 1}


def test_rollback_on_may_list_exception_classes():
    script = [turn("R.\n", "fail KeyError"), turn("S.\n", "good"), FINAL]
    assert rolled_back(script, {"rollback_on": ["NameError"]}).saar["triggered"] == {}
    assert rolled_back(script, {"rollback_on": ["KeyError"]}).saar["triggered"] == {"KeyError": 1}


def test_validation_runs_without_rollback_unless_asked():
    script = [turn("R.\n", "fail A"), turn("S.\n", "good"), FINAL]
    validation = {"cleaner_validate": True}
    assert rolled_back(script, run_kwargs=validation).saar["triggered"] == {}
    assert rolled_back(script, {"rollback_in_validation": True}, run_kwargs=validation).saar["triggered"] == {
        "A": 1
    }


def test_max_retries_bounds_the_attempts():
    for retries in range(4):
        run = rolled_back(
            [turn("R.\n", "fail A")] * 6 + [FINAL], {"max_retries": retries}, max_assistant_turns=2
        )
        assert len(run.server.requests) == 2 + retries
        assert run.saar["triggered"] == ({"A": 1} if retries else {})


def test_a_lone_surrogate_in_a_call_breaks_nothing():
    strange = '<tool_call>{"name": "\\ud800", "arguments": {"code": "\\udfff"}}</tool_call>' + IM_END
    odd_code = '<tool_call>{"name": "run", "arguments": {"code": "fail X \\udfff"}}</tool_call>' + IM_END
    run = rolled_back([strange, odd_code, turn("S. ", "good"), FINAL])
    assert run.saar["recovered"] == {"format_error": 1}
    json.dumps(run.output.extra_fields, ensure_ascii=False).encode()


def test_max_lookahead_tokens_bounds_all_attempts_of_a_turn_together():
    script = [turn("0.", "fail A"), turn("1.", "fail B"), turn("2.", "fail C"), turn("3.", "good"), FINAL]
    run = rolled_back(script, {"max_lookahead_tokens": 150})
    asked = [request.sampling_params.get("max_tokens") for request in run.server.requests[1:4]]
    first, second = (len(request.output_ids) for request in run.server.requests[1:3])
    assert asked == [150, 150 - first, 150 - first - second]
    assert run.repairs[0]["lookahead_tokens"] <= 150


def test_a_shallow_repair_that_would_fill_the_response_gives_way_to_a_deep_one():
    long_code = "fine " + "x" * 300
    script = [turn("R" * 300 + " ", "fail A"), turn("S ", "fail B"), turn("T ", long_code), FINAL]
    run = rolled_back(script, {"gamma": 0.0, "lookahead_context": "latest"}, response_length=600)
    assert run.repairs[0]["decision"] == "deep"
    assert (
        rolled_back(script, {"gamma": 0.0, "lookahead_context": "latest"}).repairs[0]["decision"] == "shallow"
    )


def test_lengths_tell_what_the_repair_removed():
    failing, attempt = turn("R: ", "fail E 1"), turn("S: ", "fine E 1")
    run = rolled_back([failing, attempt, FINAL])
    unedited = failing + observation("Error: E 1") + attempt + observation("result of fine E 1") + FINAL
    assert run.saar["sampled_length"] == len(run.tokenizer.encode(unedited))
    assert run.saar["purified_length"] == len(run.output.response_ids)


def test_what_servers_and_tools_report_follows_the_repair_where_the_trajectory_ends_with_it():
    script = [turn("R: ", "fail E 1"), turn("S: ", "long E 1"), FINAL]
    run = rolled_back(script, response_length=400, routing=True)
    assert run.text == "R: " + call("long E 1") + IM_END  # its observation did not fit any more
    assert run.output.extra_fields["max_global_steps"] == 7  # of the look-ahead's request, the second
    assert run.output.extra_fields["min_global_steps"] == 5
    assert run.output.extra_fields["last_code"] == "long E 1"
    prefix = len(run.output.prompt_ids)
    assert len(run.output.routed_experts) == prefix, "routing of tokens that are gone"


def test_what_tools_note_in_a_failed_look_ahead_does_not_reach_the_main_history():
    run = rolled_back([turn("R: ", "fail E 1"), *[turn("S: ", "slow")] * 3, FINAL])
    assert run.output.extra_fields["last_code"] == "fail E 1"


def test_attempts_stop_where_the_tool_parser_wants_them_to(monkeypatch):
    from verl.experimental.agent_loop.tool_parser import HermesToolParser

    monkeypatch.setattr(HermesToolParser, "stop_token_ids", property(lambda self: [5]))
    run = rolled_back(
        [turn("R: ", "fail E 1"), turn("S: ", "good"), FINAL],
        sampling_params={"stop_token_ids": [9], "top_p": 0.9},
    )
    for request in run.server.requests:
        assert (
            sorted(request.sampling_params["stop_token_ids"]) == [5, 9]
            and request.sampling_params["top_p"] == 0.9
        )
