"""Failing calls that were repaired, as negative samples."""

from scripted_policy import IM_END, ScriptedTool, call, observation, rolled_back, turn

FINAL = "Done." + IM_END
DPO = {"negatives": {"dpo": True, "save": True}}


def outputs_of(script, saar=None, **kwargs):
    run = rolled_back(script, saar, cleaner={**DPO, **kwargs.pop("cleaner", {})}, **kwargs)
    outputs = run.output if isinstance(run.output, list) else [run.output]
    return run, outputs


def test_each_repair_gives_the_failing_call_in_its_own_context_and_then_the_trajectory():
    first, fixed = turn("R: ", "fail E 1"), turn("S: ", "fine E 1")
    second, other = turn("T: ", "fail AAAAAAAAAA"), turn("U: ", "2**9")
    run, outputs = outputs_of([first, fixed, second, other, FINAL])
    assert len(outputs) == 3
    texts = [run.tokenizer.decode(output.response_ids) for output in outputs]
    purified = "R: " + call("fine E 1") + IM_END + observation("result of fine E 1")
    assert texts[0] == first
    assert texts[1] == purified + second
    assert texts[2] == purified + other + observation("result of 2**9") + FINAL
    for output, failing in zip(outputs[:2], (first, second), strict=True):
        trained = [i for i, m in zip(output.response_ids, output.response_mask, strict=True) if m]
        assert run.tokenizer.decode(trained) == failing[failing.index("<tool_call>") :]
        assert len(output.response_logprobs) == len(output.response_ids) == len(output.response_mask)
        for token, m, value in zip(
            output.response_ids, output.response_mask, output.response_logprobs, strict=True
        ):
            assert not m or run.server.emitted[value] == token
    assert [output.extra_fields["negative_of"] for output in outputs[:2]] == [0, 1]
    assert {frozenset(output.model_fields_set) for output in outputs} == {
        frozenset(outputs[2].model_fields_set)
    }


def test_pairs_say_where_the_accepted_calls_stand():
    first, fixed = turn("R: ", "fail E 1"), turn("S: ", "fine E 1")
    second, other = turn("T: ", "fail AAAAAAAAAA"), turn("U: ", "2**9")
    run, outputs = outputs_of([first, fixed, second, other, FINAL])
    main = outputs[-1]
    found = [
        run.tokenizer.decode([main.response_ids[i] for i in positions])
        for positions in main.extra_fields["pairs"]
    ]
    assert found == [call("fine E 1") + IM_END, call("2**9") + IM_END]


def test_texts_share_the_prompt_up_to_where_the_calls_differ():
    first, fixed = turn("R: ", "fail E 1"), turn("S: ", "fine E 1")
    second, other = turn("T: ", "fail AAAAAAAAAA"), turn("U: ", "2**9")
    _, outputs = outputs_of([first, fixed, second, other, FINAL])
    shallow, deep = outputs[-1].extra_fields["negatives"]
    assert shallow["prompt"].endswith("<|im_start|>assistant\nR: ")
    assert (shallow["chosen"], shallow["rejected"]) == (call("fine E 1") + IM_END, call("fail E 1") + IM_END)
    assert deep["prompt"].endswith("<|im_start|>assistant\n")
    assert (deep["chosen"], deep["rejected"]) == (other, second)
    assert shallow["error"]["exception"] == "E" and shallow["decision"] == "shallow"


def test_a_call_that_runs_when_it_is_simply_made_again_makes_no_pair():
    class Flaky(ScriptedTool):
        async def execute(self, instance_id, parameters, **kwargs):
            code = parameters["code"] if self.ran else "slow"
            return await super().execute(instance_id, {"code": code}, **kwargs)

    first = turn("R: ", "fine").replace('"run"', '"flaky"')
    flaky = Flaky()
    flaky.name = "flaky"
    run, outputs = outputs_of([first, first, FINAL], tools=[flaky])
    assert run.tool.ran == [] and flaky.ran == ["slow", "fine"]
    assert len(outputs) == 1 and outputs[0].extra_fields["negatives"] == []
    assert outputs[0].extra_fields["saar"]["shallow"] == 1


def test_exhausted_turns_and_validation_give_none():
    first = turn("R: ", "fail E 1")
    _, outputs = outputs_of([first, turn("N: ", "slow"), FINAL], {"max_retries": 1})
    assert len(outputs) == 1 and outputs[0].extra_fields["negatives"] == []
    _, outputs = outputs_of(
        [first, turn("S: ", "fine E 1"), FINAL],
        {"rollback_in_validation": True},
        run_kwargs={"cleaner_validate": True},
    )
    assert len(outputs) == 1 and "negatives" not in outputs[0].extra_fields


def test_without_log_probabilities_the_samples_have_none_either():
    _, outputs = outputs_of([turn("R: ", "fail E 1"), turn("S: ", "fine E 1"), FINAL], logprobs=False)
    assert [output.response_logprobs for output in outputs] == [None, None]


def test_a_repair_that_the_response_length_cuts_off_gives_no_pair():
    script = [turn("R: ", "fail E 1"), turn("S: ", "long E 1"), FINAL]
    whole = outputs_of(script)[1]
    assert len(whole) == 2
    _, outputs = outputs_of(script, response_length=len(whole[-1].response_ids) - 480)
    assert len(outputs) in (1, 2) and all(len(o.response_ids) <= 20_000 for o in outputs)
