"""Starting: the commands that users know, mistakes told at once and by name, overload told at once."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_service import CODE_JUDGE, Judge, environment, eventually


def _cli(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(
        command,
        cwd=CODE_JUDGE,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("code-judge: ")
    assert all(word in lines[0] for word in words), lines


def test_a_port_in_use_is_told_at_once_and_by_number() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        started = time.monotonic()
        _assert_one_line(_cli("serve", "--port", str(port)), str(port), "--port")
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_EXECUTION_TIME", "soon"), ("MAX_EXECUTION_TIME", "0"), ("MAX_MEMORY", "-1"), ("MAX_WORKERS", "two"),
     ("RUN_WORKERS", "perhaps"), ("MAX_STDOUT_ERROR_LENGTH", "1.5"), ("CODE_JUDGE_WITHOUT", "luck")],
)  # fmt: skip
def test_a_bad_setting_is_named_in_one_line(name: str, value: str) -> None:
    _assert_one_line(_cli("serve", "--port", "0", **{name: value}), name, value)


def test_a_redis_that_does_not_answer_is_told_without_its_password() -> None:
    done = _cli("serve", "--port", "0", REDIS_URI="redis://:pass-word@127.0.0.1:1")
    _assert_one_line(done, "REDIS_URI", "127.0.0.1:1")
    assert "pass-word" not in done.stderr


def test_it_refuses_to_run_programs_that_nothing_isolates() -> None:
    done = _cli("serve", "--port", "0", CODE_JUDGE_WITHOUT="user,mount,pid,net,ipc,landlock,seccomp,uid")
    _assert_one_line(done, "CODE_JUDGE_ALLOW_UNSAFE=1")


def test_it_runs_unisolated_if_told_to_and_says_so(start_judge: Any) -> None:
    without = "user,mount,pid,net,ipc,landlock,seccomp,uid"
    judge = start_judge("--workers", "1", CODE_JUDGE_WITHOUT=without, CODE_JUDGE_ALLOW_UNSAFE="1")
    assert judge.get("/status")["isolation"]["safe"] is False
    assert judge.prints("print(1)") == "1\n"


def test_settings_lists_every_setting_with_default_and_meaning() -> None:
    text = _cli("settings").stdout
    for name in (
        "MAX_EXECUTION_TIME",
        "MAX_MEMORY",
        "REDIS_URI",
        "CODE_JUDGE_TOKEN",
        "MAX_QUEUE_WORK_LIFE_TIME",
    ):
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert len(line.split()) > 2


def test_doctor_finds_this_machine_good() -> None:
    done = _cli("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "landlock" in done.stdout and "POSSIBLE" not in done.stdout and "valkey-server" in done.stdout


def test_a_token_is_asked_for_on_posts_only(start_judge: Any) -> None:
    judge = start_judge("--workers", "1", CODE_JUDGE_TOKEN="right")
    assert judge.prints("print(1)") == "1\n"
    for wrong in (None, "wrong", "right "):
        status, _, _ = Judge(judge.url, judge.process, wrong).request("POST", "/run", b'{"solution": ""}')
        assert status == 401
    assert Judge(judge.url, judge.process).get("/ping") == "pong"


def test_a_full_queue_is_told_at_once_with_retry_after(start_judge: Any) -> None:
    judge = start_judge("--workers", "1", MAX_QUEUE_LENGTH="4", MAX_EXECUTION_TIME="2")
    body = json.dumps({"solution": "import time; time.sleep(0.5)"}).encode()
    answers: list[tuple[int, Any, dict[str, str]]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(judge.request("POST", "/run", body)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    started = time.monotonic()
    status, answer, headers = judge.request("POST", "/run", body)
    assert status == 429 and time.monotonic() - started < 0.4
    assert int(headers["retry-after"]) >= 1 and "ask again" in answer["detail"]
    for thread in threads:
        thread.join()
    assert {code for code, _, _ in answers} == {200, 429}
    assert all(content["run_success"] for code, content, _ in answers if code == 200)
    assert judge.prints("print(1)") == "1\n"


def test_a_job_that_waited_too_long_is_answered_as_retryable(start_judge: Any) -> None:
    judge = start_judge("--workers", "1", MAX_QUEUE_WORK_LIFE_TIME="0.3", MAX_EXECUTION_TIME="1")
    items = [{"solution": "import time; time.sleep(0.8)"}, {"solution": "print(1)"}, {"solution": "print(1)"}]
    results = judge.post("/run/batch", {"submissions": items})["results"]
    late = [result for result in results if result["reason"] == "queue_timeout"]
    assert late and all(result["retryable"] and not result["success"] for result in late)
    patient = judge.post("/run/long-batch", {"submissions": items})["results"]
    assert all(result["success"] for result in patient)


def test_a_single_run_passes_a_long_batch(start_judge: Any) -> None:
    judge = start_judge("--workers", "1", MAX_EXECUTION_TIME="2")
    items = [{"solution": "import time; time.sleep(0.1)"}] * 20
    thread = threading.Thread(target=lambda: judge.post("/run/long-batch", {"submissions": items}))
    thread.start()
    time.sleep(0.5)
    started = time.monotonic()
    assert judge.prints("print(1)") == "1\n"
    assert time.monotonic() - started < 1.0
    thread.join()


def test_a_body_beyond_the_limit_is_413(start_judge: Any) -> None:
    judge = start_judge("--workers", "1", MAX_BODY="1")
    with contextlib.suppress(ConnectionError, OSError):
        assert judge.request("POST", "/run", json.dumps({"solution": "#" * (2 << 20)}).encode())[0] == 413
    assert judge.prints("print(1)") == "1\n"


@contextlib.contextmanager
def _process(*command: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*command], cwd=CODE_JUDGE, env=environment(**settings))
    try:
        yield process
    finally:
        process.terminate()
        process.wait(15)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url + "/status", timeout=2) as answer:
        return json.loads(answer.read())["num_workers"] == 2
    return False


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a TCP port, as the known start commands expect."""
    from app.embedded import binary

    port = _free_port()
    folder = str(tmp_path_factory.mktemp("valkey"))
    with _process(
        binary(),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        folder,
        "--loglevel",
        "warning",
    ):
        assert eventually(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 10)
        yield f"redis://127.0.0.1:{port}"


@pytest.mark.parametrize("run_workers", ["0", "1"])
def test_the_start_commands_that_users_know_work(valkey: str, run_workers: str) -> None:
    port = _free_port()
    settings = {"MAX_EXECUTION_TIME": "4", "REDIS_URI": valkey, "MAX_WORKERS": "2"}
    web = [
        sys.executable,
        "-m",
        "uvicorn",
        "app.main:app",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "2",
    ]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_process(*web, RUN_WORKERS=run_workers, **settings))
        if run_workers == "0":
            stack.enter_context(_process(sys.executable, "run_workers.py", **settings))
        url = f"http://127.0.0.1:{port}"
        assert eventually(lambda: _answers(url), 30)
        assert Judge(url, server).prints("print(1)") == "1\n"


def test_the_ready_file_goes_with_the_service(start_judge: Any, tmp_path: Path) -> None:
    judge = start_judge("--workers", "1")
    ready = tmp_path / "1" / "url"
    assert ready.read_text() == judge.url + "\n"
    judge.process.terminate()
    judge.process.wait(10)
    assert not ready.exists()


def test_serve_uses_the_redis_that_it_is_given(valkey: str) -> None:
    import redis

    port = _free_port()
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--workers", "2"]
    with _process(*command, REDIS_URI=valkey) as server:
        url = f"http://127.0.0.1:{port}"
        assert eventually(lambda: _answers(url), 30)
        assert Judge(url, server).prints("print(6 * 7)") == "42\n"
        assert redis.Redis.from_url(valkey).keys(), "the jobs' stream lies in the given server"
