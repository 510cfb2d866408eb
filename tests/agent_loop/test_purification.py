"""Random scripts against a second, plain account of what the rollback must do to them."""

import difflib
import json
from dataclasses import dataclass
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from scripted_policy import IM_END, assert_aligned, call, observation, rolled_back, run_script, turn
from test_upstream import bad_call, good_call, limits, script_of

from cleaner.saar.trajectory import Origin

SAMPLED, GRAFTED, OBSERVED = int(Origin.SAMPLED), int(Origin.GRAFTED), int(Origin.OBSERVATION)
EXCLUDED = int(Origin.EXCLUDED)


@dataclass(frozen=True)
class Said:
    """One answer of the scripted model."""

    reasoning: str
    code: str | None  # None: no call

    @property
    def text(self) -> str:
        return self.reasoning + IM_END if self.code is None else turn(self.reasoning, self.code)

    @property
    def call(self) -> str:
        return call(self.code or "") + IM_END

    @property
    def good(self) -> bool:
        return self.code is not None and not self.code.startswith(("fail", "slow"))

    @property
    def observed(self) -> str:
        code = self.code or ""
        if code.startswith("fail"):
            return observation("Error: " + code[5:])
        return observation("TimeoutError" if code.startswith("slow") else f"result of {code}")


reasonings = st.sampled_from(["", "Think. ", "Überlegung 😀: ", "a <tool_call></tool_call> b ", "one\ntwo "])
codes = st.sampled_from(
    ["fail NameError 1+1", "fail KeyError xyz = 'ü😀'", "slow 1+1", "okay 1+1", "NameError 1+1", "7"]
)
said = st.builds(Said, reasonings, st.one_of(codes, codes, codes, st.none()))


@dataclass
class Account:
    """What must come out of a script, by the specification, in text."""

    segments: list[tuple[int, str]]
    requests: list[str]  # response part of every request's prompt
    decisions: list[str]


@dataclass(frozen=True)
class Modes:
    """The settings that the account knows."""

    retries: int
    gamma: float
    context: str = "cumulative"
    lookahead: str = "sequential"
    on_exhausted: str = "keep_first"
    tolerance: int = 0

    def saar(self) -> dict[str, Any]:
        return {
            "max_retries": self.retries,
            "gamma": self.gamma,
            "lookahead_context": self.context,
            "lookahead": self.lookahead,
            "on_exhausted": self.on_exhausted,
            "tolerance": self.tolerance,
        }


def account(script: list[Said], modes: Modes, max_turns: int) -> Account:
    answers = iter([*script, *[Said("", None)] * 40])
    result = Account([], [], [])
    turns = streak = 0

    def ask(history: str) -> Said:
        result.requests.append(history)
        return next(answers)

    def history() -> str:
        return "".join(text for _, text in result.segments)

    def ratio(failed: Said, attempt: Said) -> float:
        return difflib.SequenceMatcher(None, failed.code, attempt.code, autojunk=False).ratio()

    while True:
        answer = ask(history())
        turns += 1
        if turns >= max_turns or answer.code is None:
            result.segments.append((SAMPLED, answer.text))
            return result
        if answer.good or not modes.retries:
            result.segments += [(SAMPLED, answer.text), (OBSERVED, answer.observed)]
            streak = 0
            continue
        if streak < modes.tolerance:
            result.segments += [(SAMPLED, answer.text), (OBSERVED, answer.observed)]
            streak += 1
            continue
        before = history()
        branch = before + answer.text + answer.observed
        accepted = None
        chain: list[Said] = []
        if modes.lookahead == "parallel":
            good = [attempt for attempt in [ask(branch) for _ in range(modes.retries)] if attempt.good]
            accepted = max(good, key=lambda attempt: ratio(answer, attempt), default=None)
        else:
            for _ in range(modes.retries):
                if modes.on_exhausted == "keep_all" and turns + len(chain) + 1 >= max_turns:
                    break
                attempt = ask(branch)
                if attempt.good:
                    accepted = attempt
                    break
                if attempt.code is not None:
                    chain.append(attempt)
                    start = before if modes.context == "latest" else branch
                    branch = start + attempt.text + attempt.observed
        if accepted is None:
            if modes.on_exhausted == "mask":
                call_text = call(answer.code)
                result.segments += [
                    (SAMPLED, answer.reasoning),
                    (EXCLUDED, call_text),
                    (SAMPLED, IM_END),
                    (OBSERVED, answer.observed),
                ]
            else:
                result.segments += [(SAMPLED, answer.text), (OBSERVED, answer.observed)]
            for kept in chain if modes.on_exhausted == "keep_all" else []:
                result.segments += [(SAMPLED, kept.text), (OBSERVED, kept.observed)]
                turns += 1
            result.decisions.append("exhausted")
            streak += 1
            continue
        streak = 0
        shallow = ratio(answer, accepted) >= modes.gamma
        if shallow:
            result.segments += [(SAMPLED, answer.reasoning), (GRAFTED, accepted.call)]
        else:
            result.segments += [(GRAFTED, accepted.text)]
        result.segments.append((OBSERVED, accepted.observed))
        result.decisions.append("shallow" if shallow else "deep")


def merged(segments: list[tuple[int, str]]) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for origin, text in segments:
        if found and found[-1][0] == origin:
            found[-1] = (origin, found[-1][1] + text)
        elif text:
            found.append((origin, text))
    return found


modes = st.builds(
    Modes,
    retries=st.integers(0, 3),
    gamma=st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]),
    context=st.sampled_from(["cumulative", "latest"]),
    lookahead=st.sampled_from(["sequential", "parallel"]),
    on_exhausted=st.sampled_from(["keep_first", "keep_all", "mask"]),
    tolerance=st.integers(0, 1),
).filter(
    lambda modes: (
        modes.on_exhausted != "keep_all"
        or (modes.lookahead == "sequential" and modes.context == "cumulative")
    )
)


@given(
    script=st.lists(said, min_size=1, max_size=8),
    modes=modes,
    max_turns=st.integers(1, 6),
    options=st.fixed_dictionaries({"marker_tokens": st.booleans(), "logprobs": st.booleans()}),
)
def test_the_trajectory_is_prefix_kept_reasoning_accepted_call_real_observation(
    script, modes, max_turns, options
):
    expected = account(script, modes, max_turns)
    texts = [item.text for item in script] + [IM_END]
    run = rolled_back(texts, modes.saar(), max_assistant_turns=max_turns, **options)
    assert run.segments() == merged(expected.segments)
    prompt = len(run.output.prompt_ids)
    assert [run.tokenizer.decode(r.prompt_ids[prompt:]) for r in run.server.requests] == expected.requests
    assert [repair["decision"] for repair in run.repairs] == expected.decisions
    assert_aligned(run)
    assert_counts(run)


def assert_counts(run: Any) -> None:
    saar = run.saar
    generated = sum(len(request.output_ids) for request in run.server.requests)
    assert saar["sampled_tokens"] + saar["lookahead_tokens"] == generated
    in_history = sum(run.output.response_mask) + saar["excluded_tokens"]
    assert saar["discarded_tokens"] + in_history == generated
    assert sum(saar["triggered"].values()) == len(run.repairs)
    assert sum(saar["recovered"].values()) == len(saar["similarities"])
    assert len(saar["similarities"]) == saar["shallow"] + saar["deep"] + saar["kept"]
    assert sum(saar["recovered"].values()) + sum(saar["exhausted"].values()) == len(run.repairs)
    assert saar["purified_length"] == len(run.output.response_ids) <= saar["sampled_length"]
    assert json.loads(json.dumps(run.output.extra_fields)) == run.output.extra_fields


def makes_sense(saar: dict[str, Any]) -> bool:
    kept = saar["on_exhausted"] == "keep_all"
    return not kept or (saar["lookahead"], saar["lookahead_context"]) == ("sequential", "cumulative")


@given(
    script=script_of(st.one_of(good_call, bad_call, bad_call)),
    limits=limits,
    saar=st.fixed_dictionaries(
        {
            "gamma": st.sampled_from([0.0, 0.5, 1.0]),
            "max_lookahead_tokens": st.sampled_from([None, 1, 60, 200]),
            "lookahead_context": st.sampled_from(["cumulative", "latest"]),
            "rollback_probability": st.sampled_from([0.5, 1.0]),
            "max_retries": st.integers(1, 3),
            "tolerance": st.integers(0, 1),
            "lookahead": st.sampled_from(["sequential", "parallel"]),
            "on_exhausted": st.sampled_from(["keep_first", "keep_all", "mask"]),
        }
    ).filter(makes_sense),
)
def test_no_limit_is_overrun_and_tokens_stay_aligned(script, limits, saar):
    run = rolled_back(script, saar, **limits)
    assume(sum(run.output.response_mask))  # upstream returns the prompt where the model said nothing at all
    assert_aligned(run)
    length = limits["response_length"]
    assert len(run.output.response_ids) <= length
    for name in ("max_assistant_turns", "max_user_turns"):
        if limits[name] is not None:
            assert run.output.num_turns <= 2 * limits[name] + 2
    prompt = len(run.output.prompt_ids)
    spent = sum(repair["lookahead_tokens"] for repair in run.repairs)
    assert spent == run.saar["lookahead_tokens"]
    for request in run.server.requests:
        asked = request.sampling_params.get("max_tokens")
        if asked is not None:
            assert 1 <= asked <= prompt + length - len(request.prompt_ids)
    for repair in run.repairs:
        if saar["max_lookahead_tokens"] is not None:
            assert repair["lookahead_tokens"] <= saar["max_lookahead_tokens"]
        assert (
            (repair["decision"] == "exhausted")
            == (repair["ending"] is not None)
            == (repair["accepted"] is None)
        )
    seeds = [request.sampling_params["seed"] for request in run.server.requests]
    assert len(set(seeds)) == len(seeds)


@given(script=script_of(st.one_of(good_call, bad_call)), limits=limits)
def test_equal_seeds_give_equal_trajectories(script, limits):
    runs = [rolled_back(script, {"rollback_probability": 0.5}, **limits) for _ in range(2)]
    first, second = ([r.sampling_params for r in run.server.requests] for run in runs)
    assert first == second
    assert runs[0].output.response_ids == runs[1].output.response_ids


@given(cut=st.integers(1, 900), attempts=st.integers(1, 3))
def test_the_length_limit_may_strike_anywhere(cut, attempts):
    """One script with two repairs, cut at every place that a limit can strike."""
    script = (
        [turn("One. ", "fail A 123")]
        + [turn("No. ", "fail B 12")] * (attempts - 1)
        + [turn("Yes. ", "good 123")]
    )
    script += [turn("Two. ", "slow"), turn("Yes. ", "good 9"), "Done." + IM_END]
    run = rolled_back(script, response_length=cut, marker_tokens=False)
    assert_aligned(run)
    whole = rolled_back(script, marker_tokens=False)
    # As long as no look-ahead was cut short, the shorter trajectory is the beginning of the whole one.
    pairs = zip(run.server.requests, whole.server.requests, strict=False)
    same = all((a.prompt_ids, a.output_ids) == (b.prompt_ids, b.output_ids) for a, b in pairs)
    if same and len(run.repairs) == 2 and run.repairs[1]["ending"] != "room":
        assert whole.output.response_ids[: len(run.output.response_ids)] == run.output.response_ids
    assert len(run.output.response_ids) <= cut
    assert cut < 700 or (same and len(run.repairs) == 2)


def test_a_trajectory_of_validation_has_other_seeds_than_one_of_training():
    seeds = set()
    for validate in (False, True):
        for step, index, session in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
            kwargs = {
                "cleaner_validate": validate,
                "global_steps": step,
                "index": index,
                "session_id": session,
            }
            run = run_script(["x" + IM_END], {}, run_kwargs=kwargs)
            seeds.add(run.server.requests[0].sampling_params["seed"])
    assert len(seeds) == 8 and all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_go_by_the_servers_own_name_and_are_absent_without_a_seed():
    assert "sampling_seed" in run_script(["x"], {}, name="sglang").server.requests[0].sampling_params
    assert run_script(["x"]).server.requests[0].sampling_params == {"temperature": 1.0}
