"""Stopping: what was accepted is answered, what comes later is told to come again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_service import CODE_JUDGE, Judge, alive, environment, eventually

SLOW = "import time; time.sleep(0.6); print('true result')"


class _Requests:
    """Requests in the background, each on a connection of its own, and their answers."""

    def __init__(self, judge: Judge, path: str, bodies: list[Any]) -> None:
        self.answers: list[Any] = [None] * len(bodies)
        self._threads = [
            threading.Thread(target=self._ask, args=(judge, path, body, place))
            for place, body in enumerate(bodies)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, judge: Judge, path: str, body: Any, place: int) -> None:
        try:
            self.answers[place] = judge.request("POST", path, json.dumps(body).encode())[:2]
        except OSError as error:
            self.answers[place] = error

    def wait(self) -> list[Any]:
        for thread in self._threads:
            thread.join(30)
        return self.answers


def _true_results(answers: list[Any]) -> bool:
    return [
        isinstance(answer, tuple) and answer[0] == 200 and answer[1]["stdout"] == "true result\n"
        for answer in answers
    ] == [True] * len(answers)


def _is_draining(judge: Judge) -> bool:
    with contextlib.suppress(OSError):
        return judge.request("GET", "/ready")[1] == {"detail": "the service is stopping"}
    return False


def test_what_was_accepted_gets_its_true_result_and_new_work_is_refused(
    start_judge: Callable[..., Judge],
) -> None:
    judge = start_judge("--workers", "2", MAX_EXECUTION_TIME="4")
    requests = _Requests(judge, "/run", [{"solution": SLOW}] * 4)  # two run, two wait
    assert eventually(lambda: judge.get("/status")["running"] == 2, 5)
    assert eventually(lambda: judge.get("/status")["queue"] == 2, 5)
    judge.process.terminate()
    assert eventually(lambda: _is_draining(judge), 5)
    status, answer, headers = judge.request("POST", "/run", b'{"solution": "print(1)"}')
    assert status == 503 and int(headers["retry-after"]) >= 1 and "stopping" in answer["detail"]
    assert judge.get("/status")["draining"] is True and judge.get("/ping") == "pong"
    pids = [judge.process.pid, *judge.processes()]
    assert _true_results(requests.wait()), requests.answers
    assert judge.process.wait(15) == 0
    assert eventually(lambda: not any(map(alive, pids)), 2)
    with pytest.raises(OSError):
        judge.get("/ping")


def test_a_worker_that_dies_during_the_drain_loses_nothing(start_judge: Callable[..., Judge]) -> None:
    judge = start_judge("--workers", "1", MAX_EXECUTION_TIME="6")
    requests = _Requests(judge, "/run", [{"solution": SLOW}])
    assert eventually(lambda: judge.get("/status")["running"] == 1, 5)
    judge.process.terminate()
    assert eventually(lambda: _is_draining(judge), 5)
    os.kill(judge.worker_pids()[0], signal.SIGKILL)
    assert _true_results(requests.wait()), requests.answers


def test_what_is_not_through_in_time_is_told_to_ask_again(start_judge: Callable[..., Judge]) -> None:
    judge = start_judge("--workers", "1", MAX_EXECUTION_TIME="30", DRAIN_TIMEOUT="0.7")
    quick, endless = {"solution": "print('true result')"}, {"solution": "while True: pass"}
    requests = _Requests(judge, "/run/batch", [{"submissions": [quick, endless, quick]}])
    assert eventually(lambda: judge.get("/status")["running"] == judge.get("/status")["queue"] == 1, 5)
    started = time.monotonic()
    judge.process.send_signal(signal.SIGINT)
    status, answer = requests.wait()[0]
    first, second, third = answer["results"]
    assert status == 200 and first["stdout"] == "true result\n"
    assert second["retryable"] and third["retryable"] and second["reason"] == "queue_timeout"
    assert judge.process.wait(15) == 0
    assert 0.6 < time.monotonic() - started < 8


def test_a_second_signal_ends_it_at_once(start_judge: Callable[..., Judge]) -> None:
    judge = start_judge("--workers", "1", MAX_EXECUTION_TIME="60")
    requests = _Requests(judge, "/run", [{"solution": "while True: pass"}])
    assert eventually(lambda: judge.get("/status")["running"] == 1, 5)
    pids = [judge.process.pid, *judge.processes()]
    judge.process.send_signal(signal.SIGINT)
    assert eventually(lambda: _is_draining(judge), 5)
    judge.process.send_signal(signal.SIGINT)
    assert judge.process.wait(6) == 0
    assert eventually(lambda: not any(map(alive, pids)), 2)
    requests.wait()


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the tests' own, on a Unix socket."""
    from app import embedded

    folder = str(tmp_path_factory.mktemp("v"))
    process = embedded.start(folder)
    yield embedded.uri(folder)
    process.kill()
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _uvicorn(
    valkey: str, run_workers: str, folder: Path
) -> Iterator[tuple[Judge, list[subprocess.Popen[str]]]]:
    """The known start commands, each in a session of its own, as terminals and service managers start them."""
    port = _free_port()
    settings = {"REDIS_URI": valkey, "MAX_WORKERS": "2", "MAX_EXECUTION_TIME": "4", "PRELOAD": "json"}
    settings["REDIS_KEY_PREFIX"] = f"drain-{port}"
    web = ["-m", "uvicorn", "app.main:app", "--port", str(port), "--workers", "2"]
    commands = [web] if run_workers == "1" else [web, ["run_workers.py"]]
    with open(folder / "log", "w") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, *command],
                cwd=CODE_JUDGE,
                env=environment(**settings, RUN_WORKERS=run_workers),
                stderr=log,
                text=True,
                start_new_session=True,
            )
            for command in commands
        ]
    judge = Judge(f"http://127.0.0.1:{port}", processes[0])

    def ready() -> bool:
        with contextlib.suppress(OSError):
            return judge.request("GET", "/ready")[0] == 200
        return False

    try:
        assert eventually(ready, 40), (folder / "log").read_text()
        yield judge, processes
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.mark.parametrize(("run_workers", "number"), [("0", signal.SIGTERM), ("1", signal.SIGINT)])
def test_the_known_start_commands_drain_too(
    valkey: str, run_workers: str, number: int, tmp_path: Path
) -> None:
    with _uvicorn(valkey, run_workers, tmp_path) as (judge, processes):
        requests = _Requests(judge, "/run", [{"solution": SLOW}] * 2)
        assert eventually(lambda: judge.get("/status")["running"] == 2, 10)
        for process in processes:
            if number == signal.SIGINT:
                os.killpg(process.pid, number)  # Ctrl-C: the terminal tells the whole group
            else:
                process.send_signal(number)
        assert _true_results(requests.wait()), (requests.answers, (tmp_path / "log").read_text())
        for process in processes:
            process.wait(15)
