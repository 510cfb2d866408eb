"""One call: faults of the service are retried until the deadline, those of the program are not."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time

import pytest
from judge_service import CODE_JUDGE, eventually
from scripted_judge import Answer, answer_with, scripted_judge, verdict, well

from code_judge.client import (
    BadSubmission,
    JudgeClient,
    JudgeMismatch,
    JudgeRefused,
    JudgeSettings,
    JudgeSettingsError,
    JudgeUnavailable,
    cpp,
    final_answer,
    python,
    shared_client,
)


@pytest.fixture
def fake():
    with scripted_judge() as judge:
        yield judge


def run(url, *submissions, **settings):
    """The outcome of each submission, all run at the same time; of the only one, if it is one."""

    async def calls():
        async with JudgeClient(JudgeSettings(url, **{"retry_delay_s": 0.01, **settings})) as client:
            runs = (client.run(submission) for submission in submissions or [python("print(4)")])
            return await asyncio.gather(*runs, return_exceptions=True)

    outcomes = asyncio.run(calls())
    return outcomes if len(submissions) > 1 else outcomes[0]


def test_the_real_service_runs_programs_and_judges_them(judge):
    async def calls():
        async with JudgeClient(judge.url) as client:
            await client.ping()
            assert (await client.wait_until_ready(5))["num_workers"] == 2
            assert (await client.status())["num_workers"] == 2
            ran = await client.run(python("print(6 * 7)", expected_output="42", sub_id="mine"))
            judged = await client.judge(python("print(6 * 7)", expected_output="41"))
            options = await client.run(python("import random\nrandom.random()", echo_last=True, seed=7))
            late = await client.run(python("while True: pass", timeout_s=0.2))
            torn = await client.run(python("'\udc80'", sub_id="\udc80"))
            return ran, judged, options, late, torn

    ran, judged, options, late, torn = asyncio.run(calls())
    assert ran["success"] and ran["stdout"] == "42\n" and ran["sub_id"] == "mine"
    assert judged["run_success"] and not judged["success"] and "stdout" not in judged
    assert options["stdout"] == f"{random.Random(7).random()!r}\n"
    assert late["reason"] == "worker_timeout"
    assert torn["reason"] == "invalid_input" and torn["sub_id"] == "\udc80"


def test_a_run_is_one_request_of_the_contract(fake):
    assert run(fake.url, python("print(4)", stdin="x", timeout_s=2, sub_id="7"))["sub_id"] == "7"
    (request,) = fake.requests
    assert request.path == "/run" and request.content.pop("sub_id").endswith(":7")
    assert request.content == {
        "type": "python",
        "solution": "print(4)",
        "input": "x",
        "options": {"timeout": "2.0"},
    }


def test_what_the_client_does_not_know_passes_through_both_ways(fake):
    tests = [{"args": [1, 2], "expected": 3}]
    fake.script = lambda request: answer_with(
        request, [verdict(request.content, tests=[{"passed": True}], newer=1)]
    )
    result = run(fake.url, python("def add(a, b): return a + b", fn_name="add", tests=tests))
    assert fake.requests[0].content["tests"] == tests and fake.requests[0].content["fn_name"] == "add"
    assert result["tests"] == [{"passed": True}] and result["newer"] == 1


def test_every_type_of_submission_is_sent_as_what_it_is(fake):
    run(fake.url, cpp("int main() {}", stdin="1"), final_answer("1/2", "0.5"), {"solution": "1"})
    sent = sorted((request.content for request in fake.requests), key=lambda item: item["solution"])
    for item in sent:
        del item["sub_id"]
    assert sent == [
        {"solution": "1"},
        {"type": "math", "solution": "1/2", "expected_output": "0.5"},
        {"type": "cpp", "solution": "int main() {}", "input": "1"},
    ]


FAULTS = {
    "429": {"status": 429, "headers": {"Retry-After": "0"}, "body": {}},
    "429 by date": {
        "status": 429,
        "headers": {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"},
        "body": {},
    },
    "502": {"status": 502, "body": b"<html>"},
    "503": {"status": 503, "body": b"busy"},
    "504": {"status": 504, "body": {}},
    "dropped at once": {"drop": 0},
    "dropped in the headers": {"drop": 20},
    "dropped in the body": {"drop": 100, "body": {"long": "x" * 200}},
    "no http": {"drop": 17, "body": {}, "status": "what?"},
    "no json": {"body": b"not json"},
    "no utf-8": {"body": b'"\xff"'},
    "brackets": {"body": b"[" * 100_000},
    "no verdict": {"body": {"odd": 1}},
    "a list": {"body": []},
    "retryable": {"body": "queue_timeout"},
    "an old service's fault": {"body": "internal_error"},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_faults_of_the_service_are_retried(fake, fault):
    def script(request):
        if request.number >= 2:
            return well(request)
        if isinstance(fault.get("body"), str):
            result = verdict(request.content, run_success=False, success=False, reason=fault["body"])
            result["retryable"] = True
            if fault["body"] == "internal_error":
                del result["retryable"]
            return Answer(result)
        return Answer(**fault)

    fake.script = script
    assert run(fake.url)["run_success"] is True
    assert len(fake.requests) == 3


@pytest.mark.parametrize("changes", [{"exception": "NameError"}, {"reason": "worker_timeout"}])
def test_faults_of_the_program_are_not_retried(fake, changes):
    fake.script = lambda request: Answer(
        verdict(request.content, run_success=False, success=False, **changes)
    )
    assert run(fake.url)["run_success"] is False
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [302, 400, 401, 404, 413, 422, 500])
def test_a_refused_request_is_not_repeated(fake, status):
    fake.script = lambda request: Answer({"detail": "because"}, status, {"Location": "/other"})
    error = run(fake.url)
    assert isinstance(error, JudgeRefused) and error.status == status
    assert fake.url in str(error) and "because" in str(error)
    assert ("CODE_JUDGE_TOKEN" in str(error)) == (status == 401)
    assert len(fake.requests) == 1


def test_the_token_is_sent_and_never_shown(fake):
    settings = JudgeSettings(fake.url, token="secret")
    assert "secret" not in repr(settings)
    run(fake.url, token="secret")
    assert fake.requests[0].headers["authorization"] == "Bearer secret"


def test_retries_end_with_the_deadline_and_say_what_was_wrong(fake):
    fake.script = lambda request: Answer({}, 503)
    begin = time.monotonic()
    error = run(fake.url, deadline_s=0.4, retry_delay_s=0.05)
    assert isinstance(error, JudgeUnavailable)
    assert "HTTP 503" in str(error) and fake.url in str(error) and "0.4 s" in str(error)
    assert time.monotonic() - begin < 3
    assert 2 <= len(fake.requests) <= 9  # at least half of 0.05, 0.1, 0.2, ... apart


@pytest.mark.parametrize("trickle", [0.0, 0.02])
def test_a_service_that_does_not_come_to_an_end_costs_no_more_than_the_deadline(fake, trickle):
    fake.script = lambda request: well(request, delay=0 if trickle else 20, trickle=trickle)
    begin = time.monotonic()
    assert isinstance(run(fake.url, deadline_s=0.3), JudgeUnavailable)
    assert time.monotonic() - begin < 3


def test_a_request_has_a_limit_below_the_deadline(fake):
    fake.script = lambda request: well(request, delay=0 if request.number else 20)
    assert run(fake.url, request_timeout_s=0.2)["run_success"]
    assert eventually(lambda: fake.left == 1, 5)


def test_retry_after_is_heeded_but_not_beyond_the_deadline(fake):
    fake.script = lambda request: (
        Answer({}, 429, {"Retry-After": "0.3"}) if request.number == 0 else well(request)
    )
    begin = time.monotonic()
    assert run(fake.url)["run_success"] and time.monotonic() - begin >= 0.3
    fake.script = lambda request: Answer({}, 429, {"Retry-After": "60"})
    begin = time.monotonic()
    assert isinstance(run(fake.url, deadline_s=5), JudgeUnavailable) and time.monotonic() - begin < 3


def test_nobody_listening_is_unavailable():
    error = run("http://127.0.0.1:9", deadline_s=0.3)
    assert isinstance(error, JudgeUnavailable) and "no connection" in str(error)


def test_an_answer_to_something_else_is_an_error_and_not_a_result(fake):
    fake.script = lambda request: Answer(verdict({"sub_id": "of another"}))
    error = run(fake.url, python("x", sub_id="mine"))
    assert isinstance(error, JudgeMismatch) and "mine" in str(error) and "of another" in str(error)
    assert len(fake.requests) == 1


def test_waiting_for_room_does_not_count_against_the_deadline(fake):
    fake.script = lambda request: well(request, delay=0.2)
    results = run(fake.url, *[python("print(4)")] * 6, max_concurrency=1, deadline_s=1.0)
    assert all(result["run_success"] for result in results)
    assert fake.most_programs == 1


def test_connections_are_kept(fake):
    async def calls():
        async with JudgeClient(fake.url) as client:
            for _ in range(5):
                await client.run(python("print(4)"))

    asyncio.run(calls())
    assert len(fake.requests) == 5 and fake.connections == 1


def test_a_cancelled_call_closes_its_connection_and_gives_its_place_back(fake):
    fake.script = lambda request: well(request, delay=0 if request.number else 20)

    async def calls():
        async with JudgeClient(JudgeSettings(fake.url, max_concurrency=1)) as client:
            first = asyncio.create_task(client.run(python("while True: pass")))
            while not fake.requests:
                await asyncio.sleep(0.01)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            return await client.run(python("print(4)"))

    assert asyncio.run(calls())["run_success"]
    assert eventually(lambda: fake.left == 1, 5)


def test_a_client_outlives_the_event_loops_it_is_used_in(fake, recwarn):
    client = shared_client(JudgeSettings(fake.url))
    assert client is shared_client(JudgeSettings(fake.url))
    assert client is not shared_client(JudgeSettings(fake.url, deadline_s=1))
    for _ in range(3):
        assert asyncio.run(client.run(python("print(4)")))["run_success"]
    assert fake.connections == 3
    assert not [str(warning.message) for warning in recwarn if "nclosed" in str(warning.message)]


def test_an_address_that_fails_is_left_alone_for_a_while(fake):
    async def calls():
        async with JudgeClient(JudgeSettings(f"{good.url}, {fake.url}", retry_delay_s=0.01)) as client:
            for _ in range(10):
                await client.run(python("print(4)"))

    fake.script = lambda request: Answer({}, 503)
    with scripted_judge() as good:
        asyncio.run(calls())
        assert len(good.requests) == 10 and 1 <= len(fake.requests) <= 5


def test_addresses_are_asked_in_turn_and_a_busy_one_hands_over_at_once(fake):
    async def calls():
        async with JudgeClient(f"{fake.url},{other.url}") as client:
            for _ in range(10):
                await client.run(python("print(4)"))

    with scripted_judge() as other:
        asyncio.run(calls())
        assert len(fake.requests) == len(other.requests) == 5
        fake.script = lambda request: Answer({}, 429, {"Retry-After": "30"})
        asyncio.run(calls())
        assert len(fake.requests) == 6 and len(other.requests) == 15


def test_waiting_for_a_service_that_never_comes_says_what_is_missing(fake):
    async def calls(url):
        async with JudgeClient(url) as client:
            await client.wait_until_ready(0.3)

    fake.script = lambda request: Answer({"queue": 0, "num_workers": 0})
    with pytest.raises(JudgeUnavailable, match="no live workers"):
        asyncio.run(calls(fake.url))
    with pytest.raises(JudgeUnavailable, match="no connection"):
        asyncio.run(calls("http://127.0.0.1:9"))


def test_a_stranger_is_not_taken_for_a_judge(fake):
    async def calls():
        async with JudgeClient(fake.url) as client:
            await client.ping()

    fake.script = lambda request: Answer("hello")
    with pytest.raises(JudgeUnavailable, match="code-judge"):
        asyncio.run(calls())


@pytest.mark.parametrize(
    "bad",
    [
        {"url": "localhost:8088"},
        {"url": ""},
        {"url": None},
        {"url": "http://a:8088,b"},
        {"url": "http://a:x"},
        {"url": "http://me:secret@a"},
        {"deadline_s": 0},
        {"max_concurrency": 0},
        {"max_concurrency": 1.5},
        {"deadline_s": "5"},
        {"batch_size": True},
        {"token": "a\n"},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(JudgeSettingsError, match="must be") as caught:
        JudgeSettings(**{"url": "http://x", **bad})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("bad", [None, {}, {"solution": None}, {"solution": "x", "tests": {1, 2}}])
def test_what_can_not_be_sent_is_the_callers_mistake(fake, bad):
    assert isinstance(run(fake.url, bad), BadSubmission)
    assert not fake.requests


def test_the_settings_come_from_the_environment(tmp_path):
    (tmp_path / "token").write_text("of a file\n")
    given = {"CODE_JUDGE_TOKEN_FILE": str(tmp_path / "token")}
    assert JudgeSettings.from_environment(given).token == "of a file"
    with pytest.raises(JudgeSettingsError, match="CODE_JUDGE_TOKEN_FILE"):
        JudgeSettings.from_environment({"CODE_JUDGE_TOKEN_FILE": str(tmp_path / "none")})
    given = {"CODE_JUDGE_URL": "http://A:1/,http://b:2/x", "CODE_JUDGE_TOKEN": "t"}
    settings = JudgeSettings.from_environment(given, deadline_s=3)
    assert settings.addresses == ("http://a:1", "http://b:2/x")
    assert settings.token == "t" and settings.deadline_s == 3
    assert JudgeSettings.from_environment({}).addresses == ("http://127.0.0.1:8088",)


def test_the_client_imports_nothing_of_the_service():
    code = (
        "import sys, code_judge.client, code_judge.blocking, code_judge.run_command\n"
        "names = {'app', 'fastapi', 'starlette', 'pydantic', 'redis', 'uvicorn', 'orjson', 'numpy'}\n"
        "sys.exit(', '.join(sorted(names & set(sys.modules))) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=CODE_JUDGE, check=True)
