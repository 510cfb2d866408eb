"""The log: one JSON object a line from every process, nothing of the jobs, no secret."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_service import CODE_JUDGE, Judge, environment, eventually, running

from app.logs import JsonFormatter, TextFormatter
from app.outage import Outage

TOKEN = "token-of-the-service-4711"
PASSWORD = "pass-word-of-the-server-0815"
TEXT = "text_of_a_program_2342"


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Judge, Path]]:
    """A service that logs all it can, as JSON, to a file."""
    folder = tmp_path_factory.mktemp("logged")
    path = folder / "log"
    settings = {"LOG_FORMAT": "json", "LOG_LEVEL": "debug", "ACCESS_LOG": "1", "CODE_JUDGE_TOKEN": TOKEN}
    with running(
        folder, "--workers", "2", PRELOAD="json", MAX_EXECUTION_TIME="1", stderr=str(path), **settings
    ) as judge:
        yield judge, path


def _events(path: Path, name: str = "") -> list[dict[str, Any]]:
    lines = path.read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if name in ("", entry["event"])]


def test_every_event_of_every_process_is_one_json_line(logged: tuple[Judge, Path]) -> None:
    judge, path = logged
    server = next(pid for pid, line in judge.processes().items() if "valkey-server" in line)
    os.kill(server, signal.SIGKILL)
    assert eventually(lambda: _events(path, "process_restarted"), 10)
    assert eventually(lambda: _events(path, "redis_back"), 15)
    os.kill(judge.worker_pids()[0], signal.SIGKILL)
    assert eventually(lambda: _events(path, "worker_restarted"), 10)
    for entry in _events(path):  # json.loads has refused everything else
        assert {"time", "level", "logger", "process", "pid", "event", "message"} <= set(entry)
    assert {"ready", "web_started"} <= {entry["event"] for entry in _events(path)}
    assert _events(path, "ready")[0]["url"] == judge.url
    for process in ("web", "manager"):
        told = [entry for entry in _events(path, "redis_away") if entry["process"] == process]
        assert len(told) <= 2, "once, not each attempt"


def test_the_access_log_names_route_status_time_client_and_submission(logged: tuple[Judge, Path]) -> None:
    judge, path = logged
    judge.prints("print(1)", sub_id="my name\nforged line")

    def lines() -> list[dict[str, Any]]:
        return [entry for entry in _events(path, "request") if entry.get("sub_id", "").startswith("my name")]

    eventually(lambda: bool(lines()), 5)  # a line is written once the answer is out
    found = lines()
    assert len(found) == 1
    assert found[0]["route"] == "/run" and found[0]["status"] == 200 and found[0]["client"] == "127.0.0.1"
    assert 0 < found[0]["ms"] < 60_000 and found[0]["method"] == "POST"


def test_no_line_has_text_of_a_job_or_a_secret(logged: tuple[Judge, Path]) -> None:
    judge, path = logged
    for solution in (f"print('{TEXT}')", f"raise ValueError('{TEXT}')", f"{TEXT} = '\ud800'", f"{TEXT} ="):
        judge.run(solution, input=TEXT, expected_output=TEXT)
    judge.post("/run/batch", {"submissions": [{"solution": TEXT}, {"solution": TEXT, "type": "math"}]})
    judge.request("POST", "/run", f'{{"solution": "{TEXT}", '.encode())
    judge.request("POST", "/run", json.dumps({"solution": [TEXT], "options": TEXT}).encode())
    judge.request("POST", f"/{TOKEN}", b"{}")
    assert eventually(lambda: len(_events(path, "request")) > 8, 5)
    log = path.read_text()
    assert TEXT not in log and TOKEN not in log


def test_the_password_of_redis_is_in_no_line(tmp_path: Path) -> None:
    address = f"redis://:{PASSWORD}@127.0.0.1:1"
    command = [sys.executable, "run_workers.py"]
    with subprocess.Popen(
        command,
        cwd=CODE_JUDGE,
        env=environment(REDIS_URI=address, PRELOAD="json", MAX_WORKERS="1", LOG_LEVEL="debug"),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        time.sleep(0.3)
        process.terminate()
        text = first + process.stderr.read()
    assert PASSWORD not in text and "127.0.0.1:1" in text and "WARNING manager" in text
    assert text.count("no answer from") == 1


def test_what_slips_into_a_message_is_masked_in_either_format() -> None:
    record = logging.LogRecord(
        "code-judge", logging.ERROR, "", 0, "a %s b\n%s", ('quo"ted-secret', "redis://u:p@h"), None
    )
    try:
        raise ValueError('quo"ted-secret in a traceback')
    except ValueError:
        record.exc_info = sys.exc_info()
    for formatter in (TextFormatter(['quo"ted-secret']), JsonFormatter(['quo"ted-secret'])):
        line = formatter.format(record)
        assert "ted-secret" not in line and "u:p@" not in line and "redis://***@h" in line
    assert json.loads(JsonFormatter(['quo"ted-secret']).format(record))["message"] == "a *** b\nredis://***@h"


def test_a_message_can_not_look_like_two_lines() -> None:
    record = logging.LogRecord(
        "code-judge", logging.INFO, "", 0, "%s", ("one\n2026-01-01 ERROR forged\r\x1b[31m",), None
    )
    assert len(TextFormatter([]).format(record).splitlines()) == 1
    assert "\x1b" not in TextFormatter([]).format(record)


def test_an_outage_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(logging.getLogger("code-judge.test"), "redis://here")
    with caplog.at_level(logging.INFO, "code-judge.test"):
        outage.back()
        for _ in range(5):
            outage.away(ConnectionError("refused"))
        outage.back()
        outage.back()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "redis://here" in caplog.text and "refused" in caplog.text


def test_text_is_the_default_and_the_level_holds(start_judge: Callable[..., Judge], tmp_path: Path) -> None:
    path = tmp_path / "log"
    judge = start_judge("--workers", "1", "--host", "0.0.0.0", LOG_LEVEL="warning", stderr=str(path))
    judge.url = judge.url.replace("0.0.0.0", "127.0.0.1")
    judge.prints("print(1)")
    lines = path.read_text().splitlines()
    assert lines and all(" WARNING " in line for line in lines)
    assert any("CODE_JUDGE_TOKEN" in line for line in lines), (
        "open to the network and no token: told at the start"
    )
