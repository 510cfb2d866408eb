"""The rollback's modes beyond the defaults, each path on a scripted policy."""

import asyncio

import pytest
from scripted_policy import (
    IM_END,
    ScriptedServer,
    assert_aligned,
    call,
    observation,
    rolled_back,
    turn,
)

FINAL = "The answer is 4." + IM_END
FIRST = turn("R: ", "fail E 1234")
SLOW = turn("N: ", "slow")
FAILED, TIMED_OUT = observation("Error: E 1234"), observation("TimeoutError")


def good(reasoning: str, code: str) -> str:
    return turn(reasoning, code) + observation(f"result of {code}")


# -- on_exhausted ------------------------------------------------------------------------------------------------------


def test_keep_all_leaves_the_whole_look_ahead_in_the_history_as_it_was_sampled():
    run = rolled_back([FIRST, SLOW, SLOW, FINAL], {"on_exhausted": "keep_all", "max_retries": 2})
    assert run.text == FIRST + FAILED + SLOW + TIMED_OUT + SLOW + TIMED_OUT + FINAL
    assert {origin for origin, _ in run.segments()} == {0, 1}, "nothing is grafted or excluded"
    assert run.output.num_turns == 8  # prompt, three calls, three tools, answer
    assert run.saar["discarded_tokens"] == 0
    assert run.saar["lookahead_tokens"] == 2 * len(run.tokenizer.encode(SLOW))
    assert run.output.extra_fields["tool_rewards"] == [0.5] * 3
    # Every request's prompt is the history that the next one extends: on-policy throughout.
    prompts = [request.prompt_ids for request in run.server.requests]
    whole = run.output.prompt_ids + run.output.response_ids
    assert all(whole[: len(prompt)] == prompt for prompt in prompts)
    assert_aligned(run)


def test_keep_all_drops_attempts_that_no_later_context_held():
    run = rolled_back([FIRST, FINAL, SLOW, FINAL], {"on_exhausted": "keep_all", "max_retries": 2})
    assert run.text == FIRST + FAILED + SLOW + TIMED_OUT + FINAL
    assert run.saar["discarded_tokens"] == len(run.tokenizer.encode(FINAL))
    assert run.repairs[0]["decision"] == "exhausted"
    assert_aligned(run)


@pytest.mark.parametrize(
    "limits, attempts",
    [
        ({"max_assistant_turns": 5}, 3),
        ({"max_assistant_turns": 4}, 2),
        ({"max_assistant_turns": 3}, 1),
        ({"max_assistant_turns": 2}, 0),
        ({"max_user_turns": 3}, 2),
        ({"max_user_turns": 2}, 1),
    ],
)
def test_keep_all_never_has_more_turns_than_are_allowed(limits, attempts):
    run = rolled_back([FIRST, SLOW, SLOW, SLOW, FINAL], {"on_exhausted": "keep_all"}, **limits)
    assert len(run.repairs[0]["attempts"]) == attempts
    last = [FINAL, SLOW, SLOW, SLOW][3 - attempts] if attempts < 3 else FINAL
    assert run.text == FIRST + FAILED + (SLOW + TIMED_OUT) * attempts + last
    assert run.repairs[0]["ending"] == ("attempts" if attempts == 3 else "turns")


def test_keep_all_that_fills_the_response_ends_the_trajectory():
    script = [FIRST, turn("N: ", "fail " + "x" * 300), FINAL]
    run = rolled_back(script, {"on_exhausted": "keep_all", "max_retries": 2}, response_length=800)
    assert run.text == FIRST + FAILED + script[1]
    assert run.repairs[0]["ending"] == "room"
    assert_aligned(run)


def test_keep_all_repairs_like_any_other_when_an_attempt_succeeds():
    script = [FIRST, SLOW, turn("Y: ", "fine E 1234"), FINAL]
    run = rolled_back(script, {"on_exhausted": "keep_all"})
    assert run.text == "R: " + call("fine E 1234") + IM_END + observation("result of fine E 1234") + FINAL


@pytest.mark.parametrize("marker_tokens", [True, False])
def test_mask_keeps_the_failing_call_in_the_context_but_out_of_training(marker_tokens):
    script = [FIRST, SLOW, FINAL]
    run = rolled_back(script, {"on_exhausted": "mask", "max_retries": 1}, marker_tokens=marker_tokens)
    assert run.segments() == [
        (1, "R: "),
        (3, call("fail E 1234")),
        (1, IM_END),
        (0, FAILED),
        (1, FINAL),
    ]
    assert run.saar["excluded_tokens"] == len(run.tokenizer.encode(call("fail E 1234")))
    assert_aligned(run)


def test_mask_excludes_only_the_calls_that_failed():
    script = [turn("R: ", "good 1", "fail E 2"), SLOW, FINAL]
    run = rolled_back(script, {"on_exhausted": "mask", "max_retries": 1}, max_parallel_calls=2)
    assert [text for origin, text in run.segments() if origin == 3] == [call("fail E 2")]
    assert_aligned(run)


def test_mask_excludes_nothing_of_a_turn_that_was_repaired():
    run = rolled_back([FIRST, turn("Y: ", "fine E 1234"), FINAL], {"on_exhausted": "mask"})
    assert not any(origin == 3 for origin, _ in run.segments()) and run.saar["excluded_tokens"] == 0


# -- tolerance ---------------------------------------------------------------------------------------------------------


def test_tolerance_lets_the_model_correct_itself_once_in_the_open():
    run = rolled_back([FIRST, turn("Y: ", "fine"), FINAL], {"tolerance": 1})
    assert run.text == FIRST + FAILED + good("Y: ", "fine") + FINAL
    assert run.repairs == [] and run.saar["tolerated"] == 1


def test_tolerance_is_used_up_by_failures_in_a_row_and_comes_back_after_a_success():
    script = [FIRST, turn("N: ", "fail E 9"), turn("Y: ", "fine E 9")]
    script += [FIRST, turn("Y: ", "fine"), FINAL]
    run = rolled_back(script, {"tolerance": 1})
    repaired = "N: " + call("fine E 9") + IM_END + observation("result of fine E 9")
    assert run.text == FIRST + FAILED + repaired + FIRST + FAILED + good("Y: ", "fine") + FINAL
    assert len(run.repairs) == 1 and run.repairs[0]["turn"] == 1 and run.saar["tolerated"] == 2


def test_an_exhausted_turn_counts_as_a_failure_in_a_row():
    script = [FIRST, SLOW, SLOW, turn("N: ", "fail E 9"), turn("Y: ", "fine E 9"), FINAL]
    run = rolled_back(script, {"tolerance": 1, "max_retries": 1})
    assert [repair["decision"] for repair in run.repairs] == ["exhausted", "shallow"]


def test_a_tolerated_call_that_does_not_parse_is_told_to_the_model():
    broken = 'Hm.\n<tool_call>\n{"name": "run"\n</tool_call>' + IM_END
    run = rolled_back([broken, turn("Y: ", "fine"), FINAL], {"tolerance": 1})
    assert "Invalid tool call" in run.text and run.text.endswith(good("Y: ", "fine") + FINAL)
    assert run.repairs == [] and run.saar["failures"] == {"format_error": 1}


# -- parallel ----------------------------------------------------------------------------------------------------------

PARALLEL = {"lookahead": "parallel"}


def test_the_most_similar_of_the_successful_corrections_is_accepted():
    script = [FIRST, turn("a: ", "2**70"), turn("b: ", "fine E 1234"), turn("c: ", "fail E 1234"), FINAL]
    run = rolled_back(script, PARALLEL)
    assert run.text == "R: " + call("fine E 1234") + IM_END + observation("result of fine E 1234") + FINAL
    repair = run.repairs[0]
    assert repair["accepted"] == 1 and repair["decision"] == "shallow"
    similarities = [attempt["similarity"] for attempt in repair["attempts"]]
    assert similarities[2] is None and 0 < similarities[0] < similarities[1] == repair["similarity"]
    assert_aligned(run)


def test_parallel_corrections_are_sampled_from_one_context_with_different_seeds():
    run = rolled_back([FIRST, SLOW, SLOW, SLOW, FINAL], PARALLEL)
    attempts = run.server.requests[1:4]
    assert all(request.prompt_ids == attempts[0].prompt_ids for request in attempts)
    assert len({request.sampling_params["seed"] for request in attempts}) == 3
    assert run.text == FIRST + FAILED + FINAL and run.repairs[0]["ending"] == "attempts"
    assert run.saar["lookahead_tokens"] == run.saar["discarded_tokens"] > 0


def test_ties_go_to_the_lowest_index():
    script = [FIRST, SLOW, turn("b: ", "fine E 1"), turn("c: ", "fine E 1"), FINAL]
    run = rolled_back(script, {**PARALLEL, "gamma": 1.0})
    assert run.repairs[0]["accepted"] == 1 and run.text.startswith(turn("b: ", "fine E 1"))


def test_a_better_correction_that_cannot_be_grafted_gives_way_to_the_next():
    long = turn("b" * 400, "fine E 1234")
    script = [turn("R" * 300, "fail E 1234"), turn("a: ", "x"), long, SLOW, FINAL]
    run = rolled_back(script, {**PARALLEL, "gamma": 1.0}, response_length=1000)
    assert run.repairs[0]["attempts"][1]["similarity"] > run.repairs[0]["attempts"][0]["similarity"]
    wide = rolled_back(script, {**PARALLEL, "gamma": 1.0})
    assert wide.repairs[0]["accepted"] == 1
    narrow = rolled_back(script, {**PARALLEL, "gamma": 1.0}, response_length=440)
    assert narrow.repairs[0]["accepted"] in (0, None)


def test_the_token_limit_is_shared_between_parallel_corrections():
    run = rolled_back([FIRST, SLOW, SLOW, SLOW, FINAL], {**PARALLEL, "max_lookahead_tokens": 100})
    assert [request.sampling_params["max_tokens"] for request in run.server.requests[1:4]] == [33] * 3
    run = rolled_back([FIRST, SLOW, SLOW, FINAL], {**PARALLEL, "max_lookahead_tokens": 2})
    assert [request.sampling_params["max_tokens"] for request in run.server.requests[1:3]] == [1] * 2


def test_greedy_sampling_tries_one_correction_only():
    run = rolled_back([FIRST, SLOW, FINAL], PARALLEL, sampling_params={"temperature": 0})
    assert len(run.repairs[0]["attempts"]) == 1


def test_infrastructure_under_one_of_several_corrections_does_not_hide_a_success():
    run = rolled_back([FIRST, turn("a: ", "down"), turn("b: ", "fine E 1234"), SLOW, FINAL], PARALLEL)
    assert run.repairs[0]["accepted"] == 1 and run.saar["infrastructure"] == 1
    run = rolled_back([FIRST, turn("a: ", "down"), SLOW, SLOW, FINAL], PARALLEL)
    assert run.repairs[0]["ending"] == "infrastructure"


def test_parallel_corrections_really_run_at_the_same_time(monkeypatch):
    """Each of three requests waits until all three have arrived; sequential look-ahead would wait for ever."""
    arrived = []
    everyone = asyncio.Event()
    generate = ScriptedServer.generate

    async def together(self, request_id, **kwargs):
        number = len(arrived)
        arrived.append(number)
        if number == 3:
            everyone.set()
        if 1 <= number <= 3:
            await asyncio.wait_for(everyone.wait(), 10)
        return await generate(self, request_id, **kwargs)

    monkeypatch.setattr(ScriptedServer, "generate", together)
    run = rolled_back([FIRST, SLOW, SLOW, turn("Y: ", "fine E 1234"), FINAL], PARALLEL)
    assert run.saar["recovered"] == {"E": 1}


def test_an_error_in_one_parallel_request_is_raised_after_all_have_ended(monkeypatch):
    ended = []
    generate = ScriptedServer.generate

    async def one_fails(self, request_id, **kwargs):
        number = len(self.requests)
        output = await generate(self, request_id, **kwargs)
        if number == 1:
            raise ConnectionError("lost")
        await asyncio.sleep(0)
        ended.append(number)
        return output

    monkeypatch.setattr(ScriptedServer, "generate", one_fails)
    with pytest.raises(ConnectionError, match="lost"):
        rolled_back([FIRST, SLOW, SLOW, SLOW, FINAL], PARALLEL)
    assert ended == [0, 2, 3]


# -- the gate ----------------------------------------------------------------------------------------------------------


class ScoringServer(ScriptedServer):
    """Gives every token of a scored prompt the log-probability `score`; in verl's form entry i is of token i + 1."""

    score = 0.0

    async def generate(self, request_id, *, prompt_ids, sampling_params, **kwargs):
        if "prompt_logprobs" not in sampling_params:
            return await super().generate(
                request_id, prompt_ids=prompt_ids, sampling_params=sampling_params, **kwargs
            )
        self.scored = list(prompt_ids)
        output = await ScriptedServer(self._tokenizer, [IM_END]).generate(
            request_id, prompt_ids=prompt_ids, sampling_params=sampling_params
        )
        output.extra_fields["prompt_logprobs"] = [[self.score]] * len(prompt_ids)
        return output


@pytest.fixture
def scoring(monkeypatch):
    monkeypatch.setattr("scripted_policy.ScriptedServer", ScoringServer)

    def set_score(value):
        monkeypatch.setattr(ScoringServer, "score", value)

    return set_score


GATE = {"graft_credit": "gate"}
REPAIRED = "R: " + call("fine E 1234") + IM_END
CORRECTION = turn("Y: ", "fine E 1234")


def test_a_graft_that_is_likely_enough_in_the_clean_context_is_made(scoring):
    scoring(0.0)
    run = rolled_back([FIRST, CORRECTION, FINAL], GATE)
    assert run.text == REPAIRED + observation("result of fine E 1234") + FINAL
    assert run.repairs[0]["weight"] >= 1.0
    scored = run.tokenizer.decode(run.server.scored)
    assert scored.endswith("<|im_start|>assistant\n" + REPAIRED) and "fail" not in scored


def test_a_graft_below_the_threshold_keeps_the_look_ahead_as_sampled(scoring):
    scoring(-5.0)
    run = rolled_back([FIRST, SLOW, CORRECTION, FINAL], GATE)
    assert run.text == (
        FIRST + FAILED + SLOW + TIMED_OUT + CORRECTION + observation("result of fine E 1234") + FINAL
    )
    assert {origin for origin, _ in run.segments()} == {0, 1}
    repair = run.repairs[0]
    assert repair["decision"] == "kept" and repair["accepted"] == 1 and repair["ending"] is None
    assert repair["weight"] < 0.01 and repair["discarded_tokens"] == 0
    assert run.saar["kept"] == 1 and run.saar["recovered"] == {"E": 1}
    assert run.saar["shallow"] == run.saar["deep"] == 0
    assert run.output.num_turns == 8
    assert_aligned(run)


def test_the_gate_weighs_grafted_tokens_only_by_their_geometric_mean(scoring):
    scoring(-0.7)
    run = rolled_back([FIRST, CORRECTION, FINAL], {**GATE, "gate_threshold": 0.0})
    emitted = {token: value for value, token in run.server.emitted.items()}
    assert emitted
    output = run.output
    grafted = [
        value
        for value, origin in zip(output.response_logprobs, output.extra_fields["token_origin"], strict=True)
        if origin == 2
    ]
    expected = sum(-0.7 - value for value in grafted) / len(grafted)
    assert run.repairs[0]["weight"] == pytest.approx(2.718281828459045**expected, rel=1e-9)


def test_a_gated_parallel_look_ahead_keeps_the_accepted_correction_only(scoring):
    scoring(-5.0)
    run = rolled_back([FIRST, SLOW, CORRECTION, SLOW, FINAL], {**GATE, **PARALLEL})
    assert run.text == FIRST + FAILED + CORRECTION + observation("result of fine E 1234") + FINAL
    assert run.saar["discarded_tokens"] == 2 * len(run.tokenizer.encode(SLOW))
    assert_aligned(run)


def test_where_no_turn_is_left_to_keep_a_gated_look_ahead_the_failing_turn_stays(scoring):
    scoring(-5.0)
    run = rolled_back([FIRST, CORRECTION, FINAL], GATE, max_assistant_turns=2)
    assert run.text == FIRST + FAILED + FINAL
    assert run.repairs[0]["decision"] == "exhausted" and run.repairs[0]["ending"] == "turns"


def test_a_server_that_does_not_score_is_told_of(scoring, monkeypatch):
    monkeypatch.setattr("scripted_policy.ScriptedServer", ScriptedServer)
    with pytest.raises(ValueError, match="graft_credit=gate.*prompt_logprobs"):
        rolled_back([FIRST, CORRECTION, IM_END], GATE)


# -- whole trajectories ------------------------------------------------------------------------------------------------


def test_a_trajectory_with_a_failing_call_is_sampled_anew_and_the_first_clean_one_kept():
    script = [FIRST, FINAL, turn("Y: ", "fine"), FINAL]
    run = rolled_back(script, cleaner={"strategy": "retry_trajectory"})
    assert run.text == good("Y: ", "fine") + FINAL
    assert (
        run.saar["tries"] == 2
        and run.saar["calls"] == 2
        and run.saar["failures"]
        == {
            "program_error": 1,
            "E": 1,
        }
    )
    discarded = len(run.tokenizer.encode(FIRST + FINAL))
    assert run.saar["discarded_tokens"] == run.saar["lookahead_tokens"] == discarded
    seeds = [request.sampling_params["seed"] for request in run.server.requests]
    assert len(set(seeds)) == 4
    assert_aligned(run)


def test_where_no_try_is_clean_the_first_one_stays():
    script = [FIRST, FINAL, turn("N: ", "slow"), FINAL]
    run = rolled_back(
        script, cleaner={"strategy": "retry_trajectory", "retry_trajectory": {"max_retries": 1}}
    )
    assert run.text == FIRST + FAILED + FINAL and len(run.server.requests) == 4
