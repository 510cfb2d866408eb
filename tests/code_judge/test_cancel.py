"""A client that leaves takes its jobs along: those that wait are never run, those that run are stopped."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from judge_service import eventually

FOREVER = "while True: pass"


def _send_and_leave(judge: Any, path: str, content: Any, after: float) -> None:
    """POST, wait `after` seconds, close the connection without reading."""
    parts = urlsplit(judge.url)
    body = json.dumps(content).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection((parts.hostname, parts.port), 5) as connection:
        connection.sendall(head.encode() + body)
        time.sleep(after)


def _idle(judge: Any) -> bool:
    status = judge.get("/status")
    return (status["queue"], status["running"]) == (0, 0)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service whose programs may run for a minute."""
    from judge_service import running

    settings = {"MAX_EXECUTION_TIME": "60", "PRELOAD": "json", "DRAIN_TIMEOUT": "1"}
    with running(tmp_path_factory.mktemp("patient"), "--workers", "2", **settings) as service:
        service.prints("print(1)")
        yield service


@pytest.mark.parametrize(
    "content",
    [
        {"solution": FOREVER},
        {"solution": "import os, time\nfor _ in range(5): os.fork()\ntime.sleep(60)"},
        {"type": "cpp", "solution": "int main() { for (;;) {} }"},
    ],
)
def test_a_running_program_ends_within_a_second_after_its_client_left(patient: Any, content: Any) -> None:
    _send_and_leave(patient, "/run", content, after=0.6)
    assert eventually(lambda: _idle(patient), 3)
    assert patient.prints("print(2)") == "2\n"


def test_all_jobs_of_a_batch_are_withdrawn_when_its_client_leaves(patient: Any) -> None:
    _send_and_leave(patient, "/run/long-batch", {"submissions": [{"solution": FOREVER}] * 100}, after=0.4)
    assert eventually(lambda: _idle(patient), 3)
    started = time.monotonic()
    assert patient.prints("print(3)") == "3\n"
    assert time.monotonic() - started < 2


def test_a_job_that_waits_is_never_run_if_its_client_left(patient: Any) -> None:
    cancelled = _metric(patient, "code_judge_cancelled_total")
    blockers = [
        _open(patient, {"solution": "import time; time.sleep(1.5); print('blocked')"}) for _ in range(2)
    ]
    assert eventually(lambda: patient.get("/status")["running"] == 2, 2)
    _send_and_leave(patient, "/run", {"solution": FOREVER}, after=0.2)
    assert eventually(lambda: patient.get("/status")["queue"] == 0, 1)
    for connection in blockers:
        assert b"blocked" in _read(connection)
    assert eventually(lambda: _idle(patient), 1)
    assert eventually(lambda: _metric(patient, "code_judge_cancelled_total") >= cancelled + 1, 3)


def test_a_client_that_stays_gets_its_answer_however_slowly_it_reads(patient: Any) -> None:
    connection = _open(patient, {"solution": "import time; time.sleep(0.8); print('patience')"})
    time.sleep(0.4)
    assert b"patience" in _read(connection)


def _open(judge: Any, content: Any) -> socket.socket:
    parts = urlsplit(judge.url)
    body = json.dumps(content).encode()
    head = (
        f"POST /run HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    )
    connection = socket.create_connection((parts.hostname, parts.port), 30)
    connection.sendall(head.encode() + b"connection: close\r\n\r\n" + body)
    return connection


def _read(connection: socket.socket) -> bytes:
    with contextlib.closing(connection):
        parts = []
        while data := connection.recv(65536):
            parts.append(data)
        return b"".join(parts)


def _metric(judge: Any, name: str) -> float:
    import urllib.request

    with urllib.request.urlopen(judge.url + "/metrics") as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))
