"""Many submissions: batches within bounds, every answer at its own place, nothing answered is asked again."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_service import eventually
from scripted_judge import Answer, answer_with, scripted_judge, verdict, well

from code_judge.client import (
    BadSubmission,
    JudgeClient,
    JudgeMismatch,
    JudgeRefused,
    JudgeSettings,
    JudgeUnavailable,
    python,
)


@pytest.fixture
def fake():
    with scripted_judge() as judge:
        yield judge


def run_many(url, submissions, kind="run_many", settings=None, **how):
    async def call():
        given = {"retry_delay_s": 0.001, **(settings or {})}
        async with JudgeClient(JudgeSettings(url, **given)) as client:
            return await getattr(client, kind)(submissions, **how)

    return asyncio.run(call())


def numbered(count):
    return [python(f"print({number})", sub_id=f"n{number}") for number in range(count)]


def echo(request, **how):
    """Each program's text is what it prints."""
    return answer_with(
        request, [verdict(item, stdout=item["solution"]) for item in request.submissions], **how
    )


@pytest.mark.parametrize("long", [False, True])
def test_the_real_service_answers_each_of_many_at_its_place(judge, long):
    seen = []
    programs = [python(f"print({n})" if n % 5 else f"raise ValueError({n})") for n in range(60)]
    results = run_many(judge.url, programs, long=long, progress=lambda *counts: seen.append(counts))
    for number, result in enumerate(results):
        if number % 5:
            assert result["stdout"] == f"{number}\n"
        else:
            assert result["exception"] == "ValueError" and f"ValueError: {number}\n" in result["stderr"]
    assert seen[-1] == (60, 60) and seen == sorted(seen)
    judged = run_many(judge.url, programs[:3], "judge_many", long=long)
    assert [result["success"] for result in judged] == [False, True, True] and "stdout" not in judged[0]


def test_batches_are_bounded_in_number_and_bytes_and_in_order(fake):
    fake.script = echo
    programs = [*numbered(20), python("#" * 3000), *numbered(5)]
    results = run_many(fake.url, programs, settings={"batch_size": 8, "batch_bytes": 1000})
    assert [result["stdout"] for result in results] == [program["solution"] for program in programs]
    assert [result["sub_id"] for result in results[:20]] == [f"n{number}" for number in range(20)]
    sizes = [len(request.submissions) for request in fake.requests]
    assert max(sizes) <= 8 and sum(sizes) == 26
    alone = [request for request in fake.requests if "###" in request.submissions[0]["solution"]]
    assert [len(request.submissions) for request in alone] == [1]


def test_no_submissions_are_no_request(fake):
    assert run_many(fake.url, []) == []
    assert not fake.requests


def test_only_those_without_a_verdict_are_asked_for_again(fake):
    asked = Counter()

    def script(request):
        results = []
        for item in request.submissions:
            asked[item["solution"]] += 1
            again = item["solution"] == "print(2)" and asked["print(2)"] < 3
            reason = "queue_timeout" if again else ""
            results.append(verdict(item, run_success=not again, retryable=again, reason=reason))
        return answer_with(request, results)

    fake.script = script
    assert all(result["run_success"] for result in run_many(fake.url, numbered(8)))
    assert asked == {f"print({number})": 3 if number == 2 else 1 for number in range(8)}


def test_a_submission_that_never_gets_a_verdict_fails_alone(fake):
    def script(request):
        return answer_with(
            request,
            [
                verdict(item, retryable=item["solution"] == "print(2)", reason="x")
                for item in request.submissions
            ],
        )

    fake.script = script
    outcomes = run_many(fake.url, numbered(6), return_exceptions=True, deadline_s=0.3)
    assert isinstance(outcomes.pop(2), JudgeUnavailable)
    assert all(outcome["run_success"] for outcome in outcomes)
    with pytest.raises(JudgeUnavailable, match="could not run it"):
        run_many(fake.url, numbered(6), deadline_s=0.3)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda results: results[::-1],
        lambda results: results[1:],
        lambda results: [*results, results[0]],
        lambda results: [results[0]] * len(results),
    ],
    ids=["reversed", "one too few", "one too many", "one for all"],
)
def test_answers_in_another_order_are_no_answers(fake, spoil):
    fake.script = lambda request: answer_with(request, spoil([verdict(item) for item in request.submissions]))
    # Their own sub_ids are equal: the client must not rely on them.
    programs = [python(f"print({number})", sub_id="same") for number in range(4)]
    outcomes = run_many(fake.url, programs, return_exceptions=True)
    assert len(outcomes) == 4 and all(isinstance(outcome, JudgeMismatch) for outcome in outcomes)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_one_refused_submission_does_not_cost_its_batch(fake, status):
    fake.script = lambda request: (
        Answer({"detail": "no"}, status)
        if any(item["solution"] == "print(5)" for item in request.submissions)
        else echo(request)
    )
    outcomes = run_many(fake.url, numbered(16), return_exceptions=True)
    refused = outcomes.pop(5)
    assert isinstance(refused, JudgeRefused) and refused.status == status
    assert all(outcome["run_success"] for outcome in outcomes)


def test_a_wrong_token_is_asked_about_once_for_each_batch(fake):
    fake.script = lambda request: Answer({}, 401)
    outcomes = run_many(fake.url, numbered(8), settings={"batch_size": 4}, return_exceptions=True)
    assert [outcome.status for outcome in outcomes] == [401] * 8
    assert len(fake.requests) == 2


def test_the_first_error_ends_the_call_and_stops_what_runs(fake):
    bad = "print(0)"
    fake.script = lambda request: (
        Answer({}, 422)
        if any(item["solution"] == bad for item in request.submissions)
        else well(request, delay=20)
    )
    with pytest.raises(JudgeRefused):
        run_many(fake.url, numbered(12), settings={"batch_size": 1})
    assert eventually(lambda: fake.left >= 1 and fake.programs == 0, 5)


def test_what_can_not_be_sent_is_found_before_anything_is_sent(fake):
    programs = [*numbered(3), {"solution": 7}]
    with pytest.raises(BadSubmission, match="submission 3: "):
        run_many(fake.url, programs)
    assert not fake.requests
    outcomes = run_many(fake.url, programs, return_exceptions=True)
    assert isinstance(outcomes[3], BadSubmission) and outcomes[0]["run_success"]


def test_a_cancelled_call_stops_all_its_batches(fake):
    fake.script = lambda request: well(request, delay=20)

    async def call():
        async with JudgeClient(JudgeSettings(fake.url, batch_size=4, max_concurrency=16)) as client:
            task = asyncio.create_task(client.run_many(numbered(100)))
            while len(fake.requests) < 4:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(call())
    assert eventually(lambda: fake.left == 4, 5)
    assert len(fake.requests) == 4


def test_event_loops_of_several_threads_share_one_bound(fake):
    fake.script = lambda request: echo(request, delay=0.005)
    outcomes = {}

    def work(name, many):
        settings = {"max_concurrency": 8, "batch_size": 2 if many else 1}
        programs = [python(f"{name}-{number}") for number in range(30)]
        outcomes[name] = (programs, run_many(fake.url, programs, settings=settings))

    threads = [threading.Thread(target=work, args=(name, name % 2)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcomes) == 4
    for programs, results in outcomes.values():
        assert [result["stdout"] for result in results] == [program["solution"] for program in programs]
    assert 4 <= fake.most_programs <= 8


class Faults:
    """A script: what happens to each submission, and to the first requests whatever they hold."""

    def __init__(self, plans, requests):
        self.plans = plans
        self.left = list(requests)
        self.asked = Counter()

    def __call__(self, request):
        if self.left:
            fault = self.left.pop()
            if fault == "drop":
                return Answer({}, drop=5)
            if fault == "garbage":
                return Answer(b"<html>")
            if fault != "none":
                return Answer({}, fault)
        if any(self.plan(item) == "poison" for item in request.submissions):
            return Answer({"detail": "poison"}, 422)
        return answer_with(request, [self.result(item) for item in request.submissions])

    def plan(self, item):
        return self.plans[int(item["solution"])]

    def result(self, item):
        plan = self.plan(item)
        self.asked[item["solution"]] += 1
        if isinstance(plan, int) and self.asked[item["solution"]] <= plan:
            return verdict(item, run_success=False, success=False, retryable=True, reason="internal_error")
        return verdict(item, run_success=plan != "raises", success=plan != "raises", stdout=item["solution"])


@pytest.fixture(scope="module")
def pair():
    with scripted_judge() as first, scripted_judge() as second:
        yield first, second


@settings(deadline=None)  # the machine may be slow
@given(
    plans=st.lists(st.sampled_from(["well", "raises", "poison", "unsendable", 1, 2]), max_size=40),
    requests=st.lists(st.sampled_from(["none", "drop", "garbage", 429, 502, 503]), max_size=6),
    size=st.integers(1, 8),
    bound=st.integers(1, 16),
    both=st.booleans(),
)
def test_whatever_fails_each_submission_has_its_own_outcome_in_order(
    pair, plans, requests, size, bound, both
):
    script = Faults(plans, requests)
    for judge in pair:
        judge.script, judge.most_programs = script, 0
        judge.requests.clear()
    programs = [
        python(str(number), tests={1} if plan == "unsendable" else None) for number, plan in enumerate(plans)
    ]
    url = ",".join(judge.url for judge in (pair if both else pair[:1]))
    settings = {"batch_size": size, "max_concurrency": bound, "retry_delay_s": 1e-4}
    outcomes = run_many(url, programs, settings=settings, return_exceptions=True)
    assert len(outcomes) == len(plans)
    for number, (plan, outcome) in enumerate(zip(plans, outcomes, strict=True)):
        if plan == "poison":
            assert isinstance(outcome, JudgeRefused)
        elif plan == "unsendable":
            assert isinstance(outcome, BadSubmission)
        else:
            assert outcome["stdout"] == str(number) and outcome["run_success"] == (plan != "raises")
            assert script.asked[str(number)] == (plan + 1 if isinstance(plan, int) else 1)
    for judge in pair:
        assert judge.most_programs <= bound
        assert all(len(request.submissions) <= size for request in judge.requests)
