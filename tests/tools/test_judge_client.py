"""The judge's faults are retried until the deadline and never longer; the program's own are not retried."""

import asyncio
import time

import pytest

from cleaner.errors import ConfigError, ToolInfrastructureError
from cleaner.tools.judge_client import JudgeClient, JudgeSettings, JudgeUnavailable, shared_client


def run(judge, count=1, code="print(4)", **settings):
    async def calls():
        client = JudgeClient(JudgeSettings(judge.url, **settings))
        try:
            return await asyncio.gather(
                *(client.run_python(code) for _ in range(count)), return_exceptions=True
            )
        finally:
            await client.close()

    results = asyncio.run(calls())
    return results[0] if count == 1 else results


def test_a_run_is_one_request_of_the_contract(judge):
    assert run(judge)["stdout"] == "4\n"
    assert judge.requests == [
        {"path": "/run", "type": "python", "solution": "print(4)", "options": {"echo_last": "1"}}
    ]


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "headers": {"Retry-After": "0"}, "body": {}},
        {"status": 503, "body": b"busy"},
        {"status": 500, "body": {}},
        {"drop": True},
        {"body": b"not json"},
        {"body": {"odd": 1}},
        {"body": {"run_success": False, "retryable": True, "reason": "queue_timeout"}},
    ],
    ids=["429", "503", "500", "dropped", "no json", "no verdict", "retryable"],
)
def test_faults_of_the_service_are_retried(judge, answers, fault):
    judge.answer = lambda number, body: answers.Answer(**fault) if number < 2 else answers.verdict()
    assert run(judge)["run_success"] is True
    assert len(judge.requests) == 3


@pytest.mark.parametrize("changes", [{"exception": "NameError"}, {"reason": "worker_timeout"}])
def test_faults_of_the_program_are_not_retried(judge, answers, changes):
    judge.answer = lambda number, body: answers.verdict(run_success=False, success=False, **changes)
    assert run(judge)["run_success"] is False
    assert len(judge.requests) == 1


def test_retries_end_with_the_deadline_and_say_what_was_wrong(judge, answers):
    judge.answer = lambda number, body: answers.Answer({}, 503)
    begin = time.monotonic()
    error = run(judge, deadline_s=0.5)
    assert isinstance(error, JudgeUnavailable) and isinstance(error, ToolInfrastructureError)
    assert "HTTP 503" in str(error) and judge.url in str(error)
    assert time.monotonic() - begin < 1.0
    assert 2 <= len(judge.requests) <= 6


def test_a_service_that_does_not_answer_costs_no_more_than_the_deadline(judge, answers):
    judge.answer = lambda number, body: answers.Answer({}, delay=1.5)
    begin = time.monotonic()
    assert isinstance(run(judge, deadline_s=0.4), JudgeUnavailable)
    assert time.monotonic() - begin < 1.2


def test_retry_after_is_heeded_but_not_beyond_the_deadline(judge, answers):
    judge.answer = lambda number, body: (
        answers.Answer({}, 429, {"Retry-After": "0.3"}) if number == 0 else answers.verdict()
    )
    begin = time.monotonic()
    assert run(judge)["run_success"] and time.monotonic() - begin >= 0.3
    judge.answer = lambda number, body: answers.Answer({}, 429, {"Retry-After": "60"})
    begin = time.monotonic()
    assert isinstance(run(judge, deadline_s=5), JudgeUnavailable) and time.monotonic() - begin < 1


def test_nobody_listening_is_unavailable():
    error = run(type("Nobody", (), {"url": "http://127.0.0.1:9"}), deadline_s=0.3)
    assert isinstance(error, JudgeUnavailable)


def test_a_refused_request_is_not_repeated(judge, answers):
    judge.answer = lambda number, body: answers.Answer({"detail": "no token"}, 401)
    assert "401" in str(run(judge)) and len(judge.requests) == 1
    run(judge, token="secret")
    assert judge.headers[-1]["Authorization"] == "Bearer secret"


def test_requests_at_a_time_are_bounded_and_all_are_served(judge, answers):
    judge.answer = lambda number, body: answers.Answer(answers.verdict().body, delay=0.05)
    results = run(judge, count=20, max_concurrency=4)
    assert all(result["run_success"] for result in results)
    assert judge.most_at_once <= 4


def test_waiting_for_a_free_slot_does_not_count_against_the_deadline(judge, answers):
    judge.answer = lambda number, body: answers.Answer(answers.verdict().body, delay=0.2)
    results = run(judge, count=4, max_concurrency=1, deadline_s=0.5)
    assert all(result["run_success"] for result in results)


def test_lone_surrogates_reach_the_judge(judge):
    run(judge, code="'\udc80'")
    assert judge.requests[0]["solution"] == "'\udc80'"


def test_one_client_per_event_loop_and_address(judge):
    async def clients():
        settings = JudgeSettings(judge.url)
        return (
            shared_client(settings),
            shared_client(JudgeSettings(judge.url)),
            shared_client(JudgeSettings("http://x")),
        )

    first, again, other = asyncio.run(clients())
    assert first is again and first is not other
    assert asyncio.run(clients())[0] is not first


@pytest.mark.parametrize(
    "bad", [{"url": "localhost:8088"}, {"deadline_s": 0}, {"max_concurrency": 0}, {"deadline_s": "5"}]
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ConfigError, match="must be"):
        JudgeSettings(**{"url": "http://x", **bad})
